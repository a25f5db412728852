"""Which unit numbers look like: lengths of bonds, total energies, and energies against forces.

- A hydrogen atom is 0.09 to 0.11 nm from its neighbour.
- Total energies of molecules are close to a sum over their atoms, for all electrons and for valence electrons
  alone; in which unit, the sum tells.
- Along a short step the energy changes by minus the forces times the step. The slope of one against the other
  is 1, whatever the method; another number is a ratio of units, −1 a gradient in place of forces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlmm.reference.labels import Label, Molecule
from mlmm.units import ANGSTROM, BOHR, ELECTRONVOLT, HARTREE, KILOCALORIE

__all__ = ["energy_force_slope", "energy_unit", "length_unit", "slope_meaning"]

_LENGTHS = {"nm": 1.0, "angstrom": ANGSTROM, "bohr": BOHR}
_ENERGIES = {"kJ/mol": 1.0, "kcal/mol": KILOCALORIE, "eV": ELECTRONVOLT, "hartree": HARTREE}
#: Energy of an atom in molecules, hartree: all electrons (wB97X), and valence electrons alone (GFN2-xTB).
_ALL_ELECTRON = {1: -0.60, 6: -38.08, 7: -54.75, 8: -75.20, 9: -99.8, 15: -341.3, 16: -398.1, 17: -460.1}
#: Least squares over 102 closed-shell molecules of the G2 set, largest deviation 6 %.
_VALENCE = {1: -0.503, 6: -2.136, 7: -2.896, 8: -4.046, 9: -4.711, 15: -2.511, 16: -3.235, 17: -4.545}
_NEAR = 0.1  # relative deviation from the sum
_SLOPE = 0.1  # relative deviation of a slope
#: Wide steps bend the slope up to here; a mistaken unit changes it by more, bohr for angstrom by 1.9.
_BENT = 1.5
_MOST_PAIRS = 400
_FORCES = [f"{energy}/{length}" for energy in _ENERGIES for length in _LENGTHS]


def length_unit(molecules: Sequence[Molecule], taken: str = "nm") -> str:
    """The unit that positions look like: "nm", "angstrom", "bohr", or "" where that cannot be told.

    Parameters
    ----------
    molecules : sequence of Molecule
        Only hydrogen atoms with a neighbour tell.
    taken : str
        The unit that their positions were converted from.
    """
    found = []
    for molecule in molecules:
        hydrogen = np.flatnonzero(molecule.numbers == 1)
        if len(hydrogen) and len(molecule) > 1:
            apart = np.linalg.norm(molecule.positions[hydrogen, None] - molecule.positions[None], axis=2)
            apart[np.arange(len(hydrogen)), hydrogen] = np.inf
            found.append(np.median(apart.min(axis=1)))
    if not found:
        return ""
    distance = float(np.median(found)) / _LENGTHS[taken]
    for name, factor in _LENGTHS.items():
        # H2 has 0.074 nm; stretched bonds reach 0.15.
        if 0.070 < distance * factor < 0.150 and not (name == "angstrom" and distance > 1.6):
            return name
    return ""


def energy_unit(pairs: Sequence[tuple[Molecule, Label]], taken: str = "kJ/mol") -> str:
    """The unit that total energies look like, or "" where they are neither of the two kinds of totals.

    Parameters
    ----------
    pairs : sequence of (Molecule, Label)
    taken : str
        The unit that their energies were converted from.
    """
    votes: dict[str, int] = {}
    judged = 0
    for molecule, label in pairs:
        for table in (_ALL_ELECTRON, _VALENCE):
            if not all(int(z) in table for z in molecule.numbers):
                continue
            judged += 1
            expected = HARTREE * sum(table[int(z)] for z in molecule.numbers)
            for name, factor in _ENERGIES.items():
                ratio = label.energy / _ENERGIES[taken] * factor / expected
                if abs(ratio - 1.0) < _NEAR:
                    votes[name] = votes.get(name, 0) + 1
    best = max(votes, key=lambda name: votes[name], default="")
    # Both tables are asked of each structure: one of them at most agrees.
    return best if best and votes[best] > 0.4 * judged / 2 else ""


def energy_force_slope(pairs: Sequence[tuple[Molecule, Label]]) -> tuple[float, float, int]:
    """Slope of energy differences against the work of the forces, over near structures.

    Between structures a and b of the same atoms in the same surroundings E_b − E_a = −½ (F_a + F_b)·(x_b −
    x_a), up to third order in the step.

    Parameters
    ----------
    pairs : sequence of (Molecule, Label)

    Returns
    -------
    slope, correlation : float
        NaN where there are fewer than five steps.
    count : int
        Steps.
    """
    groups: dict[tuple[bytes, int, int], list[tuple[Molecule, Label]]] = {}
    for molecule, label in pairs:
        if molecule.external is None and label.forces is not None and label.converged:
            key = (molecule.numbers.tobytes(), molecule.charge, molecule.multiplicity)
            groups.setdefault(key, []).append((molecule, label))
    work, change = [], []
    for members in groups.values():
        positions = np.array([molecule.positions.reshape(-1) for molecule, _ in members])
        for a in range(min(len(members) - 1, _MOST_PAIRS)):
            apart = np.square(positions[a + 1 :] - positions[a]).sum(axis=1)
            b = a + 1 + int(apart.argmin())
            mean = 0.5 * (np.asarray(members[a][1].forces) + np.asarray(members[b][1].forces)).reshape(-1)
            work.append(-float(mean @ (positions[b] - positions[a])))
            change.append(members[b][1].energy - members[a][1].energy)
    if len(work) < 5:
        return math.nan, math.nan, len(work)
    x, y = np.array(work), np.array(change)
    size = math.sqrt(float(x @ x) * float(y @ y))
    if size == 0.0:
        return math.nan, math.nan, len(work)
    return float(x @ y) / float(x @ x), float(x @ y) / size, len(work)


def slope_meaning(slope: float, energy: str = "kJ/mol", force: str = "kJ/mol/nm") -> str:
    """In words, which units a slope of `energy_force_slope` other than 1 looks like.

    Parameters
    ----------
    slope : float
    energy, force : str
        The units that energies and forces were taken to be in, such as "eV" and "eV/angstrom".

    Returns
    -------
    str
        Empty for 1, or so near to it that no unit is to blame.
    """
    if abs(slope - 1.0) < _SLOPE:
        return ""
    if abs(slope + 1.0) < _SLOPE:
        return "gradients in place of forces (the sign is the other one)"
    taken = _ENERGIES[energy] / _force_factor(force)
    found = []
    for unit, factor in _ENERGIES.items():
        for other in _FORCES:
            consistent = other.startswith(f"{unit}/")
            if (unit != energy) + (other != force) == 1 or (consistent and unit != energy):
                ratio = taken * _force_factor(other) / factor
                if abs(abs(slope) / ratio - 1.0) < _SLOPE:
                    words = [f"energies in {unit}"] * (unit != energy) + [f"forces in {other}"] * (
                        other != force
                    )
                    found.append(" and ".join(words))
    if not found and 1.0 / _BENT < slope < _BENT:
        return ""
    sign = " with the sign of gradients" if slope < 0 else ""
    return (" or ".join(found) or "no two units") + sign


def _force_factor(unit: str) -> float:
    """kJ/mol/nm of a unit of force such as "eV/angstrom"."""
    energy, _, length = unit.rpartition("/")
    return _ENERGIES[energy] / _LENGTHS[length]
