"""What is odd about labelled structures: units, duplicates, outliers, elements, labels that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlmm.elements import element_names
from mlmm.errors import ConfigError
from mlmm.learning.dataset.units_by_size import (
    energy_force_slope,
    energy_unit,
    length_unit,
    slope_meaning,
)
from mlmm.learning.descriptors import distances_between, structure_descriptors
from mlmm.learning.offsets import composition, fit_offsets
from mlmm.reference.labels import Label, Molecule
from mlmm.short_repr import counted

__all__ = [
    "Finding",
    "check_units",
    "find_duplicates",
    "find_outliers",
    "inspect_pairs",
    "refuse_serious",
    "refuse_units",
]

Pair = tuple[Molecule, Label]
_FORCES = (20.0, 3.0e4)  # kJ/mol/nm, plausible root mean square of a set
_FORCE_SIZE = 900.0  # kJ/mol/nm, that of organic molecules near 300 K
_MOST = 4000  # structures compared with each other
_CORRELATION = 0.9  # from which on a slope says something
_FAR = 3.0  # distances to the next structure, in units of the 95 % of all


@dataclass(frozen=True)
class Finding:
    """Something to look at.

    Parameters
    ----------
    kind : str
        "units", "duplicates", "contradiction", "outliers", "not converged", "net force" or "elements".
    sentence : str
    structures : tuple of int
        Indices in the list that was looked at.
    serious : bool
        Whether training on it would be wrong; otherwise it may be as it should.
    """

    kind: str
    sentence: str
    structures: tuple[int, ...] = ()
    serious: bool = False

    def __str__(self) -> str:
        return self.sentence


def inspect_pairs(pairs: Sequence[Pair], elements: Sequence[int] = ()) -> list[Finding]:
    """Everything that is odd, serious things first.

    Parameters
    ----------
    pairs : sequence of (Molecule, Label)
    elements : sequence of int
        Atomic numbers that a model knows; nothing is said about elements without it.
    """
    found = [*check_units(pairs), *_elements(pairs, elements), *_net_forces(pairs)]
    failed = tuple(k for k, (_, label) in enumerate(pairs) if not label.converged)
    if failed:
        share = f"{len(failed) / len(pairs):.1%}"
        found.append(
            Finding(
                "not converged",
                f"{counted(len(failed), 'label')} of {len(pairs):,} ({share}) did not converge: kept, never "
                "used.",
                failed,
            )
        )
    good = [k for k, (_, label) in enumerate(pairs) if label.converged][:_MOST]
    if len(good) > 2:
        descriptors = structure_descriptors([pairs[k][0] for k in good])
        found += _renumbered(find_duplicates([pairs[k] for k in good], descriptors), good)
        found += _renumbered(find_outliers([pairs[k] for k in good], descriptors), good)
    return sorted(found, key=lambda finding: not finding.serious)


def check_units(
    pairs: Sequence[Pair], energy: str = "kJ/mol", force: str = "kJ/mol/nm", length: str = "nm"
) -> list[Finding]:
    """Units by magnitude and by the slope of energies against the work of forces.

    Parameters
    ----------
    pairs : sequence of (Molecule, Label)
        In internal units, if the other arguments are right.
    energy, force, length : str
        The units that the numbers were converted from.
    """
    good = [(molecule, label) for molecule, label in pairs if label.converged]
    found = []
    looks = length_unit([molecule for molecule, _ in good], length)
    if looks and looks != length:
        found.append(_unit_finding("positions", looks, length))
    looks = energy_unit(good, energy)
    if looks and looks != energy:
        found.append(_unit_finding("energies", looks, energy))
    slope, correlation, count = energy_force_slope(good) if not found else (math.nan, 0.0, 0)
    if abs(correlation) > _CORRELATION and slope_meaning(slope, energy, force):
        found.append(
            Finding(
                "units",
                f"Along {counted(count, 'short step')} energies change by {slope:.4g} times the work of the "
                f"forces, in place of 1, which looks like {slope_meaning(slope, energy, force)}; taken to be "
                f"energies in {energy} and forces in {force}.",
                serious=True,
            )
        )
    squares = [np.square(label.forces).mean() for _, label in good if label.forces is not None]
    size = float(np.sqrt(np.mean(squares))) if squares else 0.0
    if not found and size > 0.0 and not _FORCES[0] < size < _FORCES[1]:
        known = {"eV/angstrom": 964.9, "kcal/mol/angstrom": 41.84, "hartree/bohr": 49614.8}
        near = min(known, key=lambda name: abs(math.log(size * known[name] / _FORCE_SIZE)))
        taken = f" (taken to be in {force})" if force != "kJ/mol/nm" else ""
        found.append(
            Finding(
                "units",
                f"Forces of {size:.3g} kJ/mol/nm in the root mean square{taken}, where molecules have some "
                f"hundred: they look like {near}, or all structures are at their minima.",
                serious=True,
            )
        )
    return found


def find_duplicates(pairs: Sequence[Pair], descriptors: np.ndarray) -> list[Finding]:
    """Structures that are the same but for rotation and order, and those among them with other energies.

    Parameters
    ----------
    pairs : sequence of (Molecule, Label)
    descriptors : ndarray, shape (S, L)
        Of `mlmm.learning.descriptors.structure_descriptors`.
    """
    limit = 1e-5 * float(np.linalg.norm(descriptors, axis=1).mean())
    apart = distances_between(descriptors, descriptors)
    twins, contradictions = [], []
    for a, b in zip(*np.nonzero(np.triu(apart <= limit, k=1)), strict=True):
        (one, label), (other, label_) = pairs[a], pairs[b]
        same = sorted(one.numbers) == sorted(other.numbers) and one.charge == other.charge
        around = (one.external is None) and (other.external is None)
        if not same or one.multiplicity != other.multiplicity or not around:
            continue
        twins.append((int(a), int(b)))
        if abs(label.energy - label_.energy) > 1e-6 * abs(label.energy) + 0.5:
            contradictions.append((int(a), int(b)))
    found = []
    if contradictions:
        a, b = contradictions[0]
        off = pairs[b][1].energy - pairs[a][1].energy
        found.append(
            Finding(
                "contradiction",
                f"{counted(len(contradictions), 'pair')} of equal structures with different energies, such "
                f"as {a} and {b}, {off:+.3g} kJ/mol apart: labels of two methods, or one that went wrong.",
                tuple(sorted({k for pair in contradictions for k in pair})),
                serious=True,
            )
        )
    if twins:
        again = tuple(sorted({b for _, b in twins}))
        found.append(
            Finding("duplicates", f"{counted(len(again), 'structure')} a second time, {_some(again)}.", again)
        )
    return found


def find_outliers(pairs: Sequence[Pair], descriptors: np.ndarray) -> list[Finding]:
    """Structures far from all others, energies far from a sum over elements, and very large forces.

    Parameters
    ----------
    pairs : sequence of (Molecule, Label)
    descriptors : ndarray, shape (S, L)
    """
    found = []
    apart = distances_between(descriptors, descriptors)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1)
    scale = float(np.quantile(nearest, 0.95))
    far = tuple(np.flatnonzero(nearest > _FAR * scale).tolist()) if len(pairs) >= 20 else ()
    if far:
        found.append(
            Finding(
                "outliers",
                f"{counted(len(far), 'structure')} more than {_FAR:g} times as far from the next one as 95 % "
                f"are, {_some(far)}.",
                far,
            )
        )
    elements = sorted({int(z) for molecule, _ in pairs for z in molecule.numbers})
    counts = composition([molecule for molecule, _ in pairs], elements)
    energies = np.array([label.energy for _, label in pairs])
    rest = energies - counts @ fit_offsets(counts, energies)
    rest -= np.median(rest)
    spread = 1.4826 * float(np.median(np.abs(rest)))
    odd = tuple(np.flatnonzero(np.abs(rest) > 10.0 * spread + 1.0).tolist()) if len(pairs) >= 20 else ()
    if odd:
        worst = max(odd, key=lambda k: abs(rest[k]))
        found.append(
            Finding(
                "outliers",
                f"{counted(len(odd), 'energy', 'energies')} more than ten standard deviations from the "
                f"median after a sum over elements, {_some(odd)}; structure {worst} by "
                f"{rest[worst]:+.4g} kJ/mol.",
                odd,
            )
        )
    strong = tuple(
        k
        for k, (_, label) in enumerate(pairs)
        if label.forces is not None and np.abs(label.forces).max() > 5e4
    )
    if strong:
        found.append(
            Finding(
                "outliers",
                f"{counted(len(strong), 'structure')} with a force above 50,000 kJ/mol/nm, {_some(strong)}: "
                "atoms nearly on top of each other.",
                strong,
            )
        )
    return found


def _elements(pairs: Sequence[Pair], elements: Sequence[int]) -> list[Finding]:
    lacking = sorted({int(z) for molecule, _ in pairs for z in molecule.numbers} - set(elements))
    if not elements or not lacking:
        return []
    having = tuple(k for k, (molecule, _) in enumerate(pairs) if np.isin(molecule.numbers, lacking).any())
    text = (
        f"{element_names(lacking)} in {counted(len(having), 'structure')}, which the model does not know; it "
        f"knows {element_names(elements, ' ')}."
    )
    return [Finding("elements", text, having, serious=True)]


def _net_forces(pairs: Sequence[Pair]) -> list[Finding]:
    """Forces whose sum, with those on the point charges, is not zero: no energy of positions alone."""
    odd = []
    for k, (molecule, label) in enumerate(pairs):
        if not label.converged or label.forces is None:
            continue
        if molecule.external is not None and label.external_forces is None:
            continue
        total = np.asarray(label.forces).sum(axis=0)
        if label.external_forces is not None:
            total = total + np.asarray(label.external_forces).sum(axis=0)
        if np.abs(total).max() > 10.0 + 0.02 * np.abs(label.forces).max():
            odd.append(k)
    if not odd:
        return []
    text = (
        f"Forces of {counted(len(odd), 'structure')} do not add up to zero, {_some(odd)}: an order of atoms "
        "that is not that of the positions, a loose convergence, or surroundings that have no "
        "labels."
    )
    return [Finding("net force", text, tuple(odd), serious=True)]


def refuse_units(findings: Sequence[Finding], where: str, do: str) -> None:
    """Raise the first finding on units as an error (ConfigError)."""
    for finding in findings:
        if finding.kind == "units":
            raise ConfigError(f"the units that were stated for {where}", finding.sentence.rstrip("."), do)


def refuse_serious(findings: Sequence[Finding]) -> None:
    """Raise the first finding on which it would be wrong to train as an error (ConfigError)."""
    for finding in findings:
        if finding.serious:
            raise ConfigError(
                "labels that one energy of the positions can have",
                finding.sentence.rstrip("."),
                'remove or correct these structures; or write inspect = "warn" in [data] to train on them',
            )


def _unit_finding(what: str, looks: str, taken: str) -> Finding:
    return Finding("units", f"The {what} look like {looks}; they were taken to be in {taken}.", serious=True)


def _renumbered(findings: Sequence[Finding], indices: Sequence[int]) -> list[Finding]:
    return [Finding(f.kind, f.sentence, tuple(indices[k] for k in f.structures), f.serious) for f in findings]


def _some(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:5]))
    return f"number {shown}" + ("" if len(indices) <= 5 else f" and {len(indices) - 5} others")
