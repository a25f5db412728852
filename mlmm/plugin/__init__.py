"""ANI networks as an OpenMM Force, for Reference, CPU, CUDA, HIP and OpenCL; usable without the rest of mlmm."""

from mlmm.plugin.ani_force import ANIForce
from mlmm.plugin.library import plugin_problem

__all__ = ["ANIForce", "plugin_problem"]
