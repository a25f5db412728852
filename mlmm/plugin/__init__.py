"""ANI networks as OpenMM Forces on Reference, CPU, CUDA, HIP and OpenCL, for any script with OpenMM."""

from mlmm.plugin.ani_force import ANIForce
from mlmm.plugin.blend_force import AdaptiveANIForce, SupermolecularANIForce
from mlmm.plugin.energies import potential_energies
from mlmm.plugin.library import plugin_problem
from mlmm.plugin.members import MemberEnergies, MemberEvaluation

__all__ = [
    "ANIForce",
    "AdaptiveANIForce",
    "MemberEnergies",
    "MemberEvaluation",
    "SupermolecularANIForce",
    "plugin_problem",
    "potential_energies",
]
