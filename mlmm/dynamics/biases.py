"""What restraints and variables of a run have to agree with: its stages, its columns, its barostat."""

from __future__ import annotations

from collections.abc import Sequence

from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.reporters import energy_columns
from mlmm.dynamics.stages import Dynamics, Minimise
from mlmm.dynamics.start import Start
from mlmm.errors import ConfigError
from mlmm.forcefield.reference_platform import reference_context
from mlmm.hybrid.system import HybridSystem

__all__ = ["check_biases", "unjoined_molecules"]


def check_biases(
    hybrid: HybridSystem, stages: Sequence[Minimise | Dynamics], start: Start | None = None
) -> None:
    """Refuse restraints in stages that a run does not have, names of its columns, and places that are lost.

    Places in space are left behind by a barostat in the System, and by frames that are centred on the region.

    Raises
    ------
    ConfigError
    """
    energy_columns(hybrid)
    names = [stage.name for stage in stages]
    for restraint in hybrid.biases:
        for stage in restraint.stages:
            if stage not in names:
                raise ConfigError(
                    f"stages of the restraint on {restraint.variable.name} that the run has",
                    repr(stage),
                    f"choose of {', '.join(names)}",
                )
    places = [r.variable.name for r in hybrid.biases if r.variable.kind == "position"]
    if places and hybrid.built.periodic and start is not None and start.frame is not None:
        raise ConfigError(
            f"a start from a checkpoint with the restraint on positions {places[0]}",
            f"frame {start.frame}, which is centred on the region",
            "leave the frame out, or the restraint",
        )
    own = own_barostats(hybrid.system)
    if own and places:
        raise ConfigError(
            "restraints on positions without a barostat in the System, which leaves their references behind",
            ", ".join(own),
            'remove it, and write ensemble = "NPT"',
        )


def unjoined_molecules(hybrid: HybridSystem) -> Sequence[Sequence[int]] | None:
    """Molecules as they are without restraints, for a barostat; None where there is nothing to undo.

    OpenMM takes all atoms of a restraint for one molecule. The centre of all water would then move as one
    body, and the volume not at all.
    """
    if not hybrid.biases.restraints:
        return None
    return reference_context(hybrid.built.system).getMolecules()
