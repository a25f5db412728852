"""ANI networks as an OpenMM Force on Reference, CPU, CUDA, HIP and OpenCL, for any script with OpenMM."""

from mlmm.plugin.ani_force import ANIForce
from mlmm.plugin.library import plugin_problem

__all__ = ["ANIForce", "plugin_problem"]
