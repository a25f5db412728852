"""Bonded energies on the processor, beside a run on a GPU: from positions and box alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import openmm

from mlmm.forcefield.term_catalogue import WITHOUT_ENERGY, class_of
from mlmm.plugin import potential_energies

__all__ = ["BondedEnergies"]

#: Forces between few atoms each, whose energy costs the processor less than a GPU the wait for it.
_BONDED = (
    openmm.HarmonicBondForce,
    openmm.HarmonicAngleForce,
    openmm.PeriodicTorsionForce,
    openmm.RBTorsionForce,
    openmm.CMAPTorsionForce,
    openmm.CustomBondForce,
    openmm.CustomAngleForce,
    openmm.CustomTorsionForce,
    openmm.CustomCompoundBondForce,
)


class BondedEnergies:
    """Energies of those kinds of which every force is a bonded one, on OpenMM's Reference platform.

    Double precision, whatever the platform of the run. A kind with a force that depends on more than that,
    such as a global parameter that a stage sets, is left out as a whole.

    Parameters
    ----------
    system : openmm.System
    kinds : mapping of str to collection of int
        Force groups of each kind.
    """

    def __init__(self, system: openmm.System, kinds: Mapping[str, Collection[int]]):
        forces = [force for force in system.getForces() if class_of(force) not in WITHOUT_ENERGY]
        own = {name: [f for f in forces if f.getForceGroup() in groups] for name, groups in kinds.items()}
        #: Names of the kinds whose energies are found here.
        self.names = tuple(name for name, found in own.items() if found and all(map(_from_positions, found)))
        self._groups = [kinds[name] for name in self.names]
        self._context: openmm.Context | None = None
        if not self.names:
            return
        bonded = openmm.System()
        # Nothing moves here: virtual sites come with the positions.
        for _ in range(system.getNumParticles()):
            bonded.addParticle(0.0)
        bonded.setDefaultPeriodicBoxVectors(*system.getDefaultPeriodicBoxVectors())
        for name in self.names:
            for force in own[name]:
                bonded.addForce(openmm.XmlSerializer.clone(force))
        platform = openmm.Platform.getPlatformByName("Reference")
        self._context = openmm.Context(bonded, openmm.VerletIntegrator(0.001), platform)

    def __call__(self, positions: np.ndarray, box: np.ndarray | None) -> dict[str, float]:
        """Energy of each kind in `names`, kJ/mol: positions (N, 3) and box vectors (3, 3), nm."""
        if self._context is None:
            return {}
        if box is not None:
            self._context.setPeriodicBoxVectors(*box)
        self._context.setPositions(positions)
        return dict(zip(self.names, potential_energies(self._context, self._groups), strict=True))


def _from_positions(force: openmm.Force) -> bool:
    """Whether the energy follows from positions and box, term by term."""
    parameters = getattr(force, "getNumGlobalParameters", None)
    return isinstance(force, _BONDED) and (parameters is None or parameters() == 0)
