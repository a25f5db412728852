"""Whether a simulation is still one of molecules: temperatures, speeds, bonds and distances within bounds.

An explosion need not reach NaN: atoms that fall into a hole of the energy, or that too long a step heats,
fly apart at finite speeds, and a thermostat cools what is left. The bounds are those of matter, not of a
force field: bonds inside the region may break and form, and may release as much energy as any reaction does.
"""

from __future__ import annotations

import math

import numpy as np
import openmm

from mlmm.dynamics.heat import HeatBalance, HotGroup
from mlmm.hybrid.system import HybridSystem
from mlmm.neighbours import minimum_images, pairs_within
from mlmm.units import GAS_CONSTANT

__all__ = ["ADVICE", "StabilityCheck", "largest_kinetic_energy"]

#: What helps where a simulation becomes unstable.
ADVICE = (
    "try a smaller time step, a longer minimisation (minimise) or a longer heat-up under strong friction "
    "(equilibrate)"
)
#: Dissociation energy of carbon monoxide, the strongest bond of all, kJ/mol: Luo, Comprehensive Handbook of
#: Chemical Bond Energies (CRC Press, 2007).
_STRONGEST_BOND = 1077.0
#: Energy that reactions may release, kJ/mol for each atom of the region; acetylene in oxygen: 140.
_REACTION = 150.0
#: Strain that a structure which was not minimised may bring along, kJ/mol for each other atom: 2,000 K.
_STRAIN = 25.0
#: Chance of less than exp(-40) = 4e-18 for each look that a thermal fluctuation goes beyond a bound.
_CHANCE = 40.0
_CLOSEST = 0.04  # nm; the shortest bond, that of H2, is 0.074 nm long
_NAMED = 4


def largest_kinetic_energy(freedom: int, temperature: float) -> float:
    """Bound on the kinetic energy of matter in equilibrium that a fluctuation does not pass, kJ/mol.

    2 K / kT has a chi-squared distribution of n degrees of freedom, which exceeds n + 2 sqrt(n x) + 2 x with
    a probability below exp(-x) (Laurent and Massart, Ann. Stat. 28, 1302 (2000), doi 10.1214/aos/1015957395);
    x = 40 here.

    Parameters
    ----------
    freedom : int
        Degrees of freedom, n.
    temperature : float
        K.
    """
    bound = freedom + 2.0 * math.sqrt(freedom * _CHANCE) + 2.0 * _CHANCE
    return 0.5 * GAS_CONSTANT * temperature * bound


class StabilityCheck:
    """What no stable simulation shows, whatever reacts in it.

    - a kinetic energy of the region or of the whole beyond its thermal fluctuations plus all that
      reactions and strain could release;
    - a region or a whole that stays hot while a thermostat takes more heat from it than reactions can
      release, see `HeatBalance`;
    - an atom with more kinetic energy than the strongest bond and a thermal fluctuation together;
    - a harmonic bond of the force field, away from the region, that holds more energy than that;
    - two atoms of the region closer than 0.04 nm.

    Parameters
    ----------
    hybrid : HybridSystem
    """

    def __init__(self, hybrid: HybridSystem):
        system, built, zones = hybrid.system, hybrid.built, hybrid.zones
        self._label = built.label
        self._masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
        self._region = np.array(sorted({*zones.region.atoms, *zones.active}), dtype=np.int64)
        self._elements = self._region[built.numbers[self._region] > 0]
        described = {*self._region.tolist(), *zones.switchable_atoms}
        moving = int((self._masses > 0).sum())
        reacting = len(described)
        constraints = system.getNumConstraints()
        released = _STRONGEST_BOND + _REACTION * reacting
        self._groups = (
            (self._region, HotGroup("the region", 3 * len(self._region), released)),
            (
                slice(None),
                HotGroup("the system", max(1, 3 * moving - constraints), released + _STRAIN * moving),
            ),
        )
        self._heat = HeatBalance([group for _, group in self._groups])
        self._bonds, self._lengths, self._constants = _harmonic_bonds(hybrid, described)

    def begin(self, temperature: float, friction: float, time: float) -> None:
        """A stage begins, at a time, ps, under a thermostat, K and 1/ps; friction 0 for none."""
        self._heat.begin(temperature, friction, time)

    def problem(
        self,
        positions: np.ndarray,
        velocities: np.ndarray,
        box: np.ndarray | None,
        temperature: float,
        time: float = 0.0,
    ) -> str | None:
        """Describe what is beyond its bound, with the atoms; None if nothing is.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
        velocities : ndarray, shape (N, 3), nm/ps
        box : ndarray, shape (3, 3), nm, optional
        temperature : float
            Of the stage, K.
        time : float
            Of the stage, ps.
        """
        kinetic = 0.5 * self._masses * np.einsum("ij,ij->i", velocities, velocities)
        # One atom has three degrees of freedom.
        single = _STRONGEST_BOND + largest_kinetic_energy(3, temperature)
        found = []
        energies = [float(kinetic[atoms].sum()) for atoms, _ in self._groups]
        stays_hot = self._heat.look(energies, time)
        for energy, (_, group) in zip(energies, self._groups, strict=True):
            if not energy <= group.released + largest_kinetic_energy(group.freedom, temperature):
                found.append(f"{group.name} at {2 * energy / (group.freedom * GAS_CONSTANT):,.0f} K")
                break
        else:
            found += [stays_hot] if stays_hot else []
        fast = np.flatnonzero(~(kinetic <= single))
        if len(fast):
            names = self._names(fast[np.argsort(-kinetic[fast])])
            found.append(f"kinetic energies of up to {kinetic[fast].max():,.0f} kJ/mol on {names}")
        close = pairs_within(positions[self._elements], positions[self._elements], _CLOSEST, box)
        close = close[close[:, 0] < close[:, 1]]
        if len(close):
            names = "; ".join(self._names(self._elements[pair], " and ") for pair in close[:_NAMED])
            found.append(f"less than {_CLOSEST:g} nm between {names}")
        if len(self._bonds):
            vectors = minimum_images(positions[self._bonds[:, 1]] - positions[self._bonds[:, 0]], box)
            lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
            broken = np.flatnonzero(~(0.5 * self._constants * (lengths - self._lengths) ** 2 <= single))
            if len(broken):
                names = "; ".join(self._names(self._bonds[bond], " and ") for bond in broken[:_NAMED])
                found.append(f"bonds of up to {lengths[broken].max():.2g} nm, between {names}")
        return ", ".join(found) or None

    def _names(self, atoms: np.ndarray, joined: str = ", ") -> str:
        names = [self._label(int(atom)) for atom in atoms[:_NAMED]]
        return joined.join(names) + (f" and {len(atoms) - _NAMED} more" if len(atoms) > _NAMED else "")


def _harmonic_bonds(hybrid: HybridSystem, without: set[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bonds of the topology that the force field holds alone: pairs of atoms, nm, kJ/mol/nm²."""
    bonded = {tuple(sorted(pair)) for pair in hybrid.built.bonds.tolist()}
    pairs, lengths, constants = [], [], []
    for force in hybrid.built.system.getForces():
        if not isinstance(force, openmm.HarmonicBondForce):
            continue
        for i in range(force.getNumBonds()):
            first, second, length, constant = force.getBondParameters(i)
            # A restraint between atoms that are not bonded may be as far away as it likes.
            if not without.intersection((first, second)) and tuple(sorted((first, second))) in bonded:
                pairs.append((first, second))
                lengths.append(length._value)
                constants.append(constant._value)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(lengths), np.array(constants)
