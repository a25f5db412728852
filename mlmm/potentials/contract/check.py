"""What every potential has to keep, measured: the contract that the engine relies on, as one call.

Symmetries, forces as the gradient of the energy, smoothness where neighbours enter, a range as declared, the
same numbers through every door: alone or among others, periodic or open, eager or compiled; and one energy
for a structure and the charges around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mlmm.check_report import CheckReport, CheckResult
from mlmm.errors import PotentialError
from mlmm.potentials.base import (
    PotentialModel,
    check_elements,
    energy_and_forces,
    scriptable_module,
)
from mlmm.potentials.contract.external import external_rows, refusal_row
from mlmm.potentials.contract.probes import dimer, force_step, random_molecule, range_reached, wire
from mlmm.potentials.contract.same_numbers import compiled_rows, reload_rows
from mlmm.structures import Structure

__all__ = ["check_potential"]

_MOST_ELEMENTS = 8  # of a model that knows the whole periodic table, so many are tried


@dataclass(frozen=True)
class _Limits:
    """What the arithmetic allows, as fractions of the largest force and of the energy."""

    energy: float
    force: float
    difference: float  # of a finite difference
    displacement: float  # nm, of a finite difference


_LIMITS = {
    "float64": _Limits(1e-10, 1e-8, 1e-6, 2e-6),
    "float32": _Limits(2e-6, 1e-4, 2e-3, 3e-4),
}


def check_potential(
    model: PotentialModel,
    structure: Structure | None = None,
    *,
    elements: Sequence[int] | None = None,
    reload: Callable[[], PotentialModel] | None = None,
    compiled: bool = True,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> CheckReport:
    """Measure whether a potential keeps the contract between models and engine.

    Parameters
    ----------
    model : PotentialModel
        In float64 where it can: in float32 only rounding errors of that size are asked for.
    structure : Structure, optional
        An open structure of at least four atoms; by default a random molecule of the model's elements.
    elements : sequence of int, optional
        Atomic numbers of the random structures; up to eight of the model's own by default.
    reload : callable, optional
        Makes the model again from where it is stored, to see that it comes back the same.
    compiled : bool
        Whether the TorchScript form is tried, where there is one.
    seed : int
        Of the random structures.
    progress : callable, optional
        Called with the name of each check.

    Returns
    -------
    CheckReport
        One row for each clause; prints as a table. Energies in kJ/mol, forces as a fraction of the largest.

    Raises
    ------
    PotentialError
        A structure with elements that the model does not know, or a model that returns something else than
        finite `AtomEnergies`.
    """
    spec, progress = model.spec, progress or (lambda _: None)
    chosen = list(elements or sorted(spec.elements)[:_MOST_ELEMENTS])
    structure = structure or random_molecule(chosen, seed=seed, spin_pairs=spec.charges)
    check_elements(spec, structure.numbers.tolist())
    check = _Check(model, structure, chosen, _LIMITS[spec.precision], seed)
    results: list[CheckResult] = []
    for name, clause in (
        ("shapes", check.shapes),
        ("input", check.untouched),
        ("repeated call", check.repeated),
        ("sum of atoms", check.sums),
        ("symmetries", check.symmetries),
        ("finite differences", check.finite_differences),
        ("cutoff", check.cutoff),
        ("receptive field", check.receptive_field),
        ("many and one", check.many),
        ("box", check.box),
        ("charges around", lambda: check.among_charges(compiled)),
    ):
        progress(name)
        results += clause()
    if compiled and scriptable_module(model) is not None:
        progress("TorchScript")
        results += compiled_rows(model, structure, check.limits.energy, check.scale)
    if reload is not None:
        progress("loading again")
        results += reload_rows(model, reload(), structure, check.limits.energy, check.scale)
    return CheckReport(tuple(results))


class _Check:
    """The clauses; `scale` and `largest` are what errors are measured by."""

    def __init__(
        self, model: PotentialModel, structure: Structure, chosen: list[int], limits: _Limits, seed: int
    ):
        self.model, self.structure, self.chosen, self.limits = model, structure, chosen, limits
        self.spec = model.spec
        self.random = torch.Generator().manual_seed(seed)
        result = model.atom_energies(structure)
        energies = getattr(result, "energies", None)
        if not isinstance(energies, torch.Tensor) or energies.shape != (len(structure),):
            raise PotentialError(
                f"atom_energies(structure) to return AtomEnergies with energies of shape ({len(structure)},)",
                f"{type(result).__name__} {'' if energies is None else tuple(energies.shape)}",
                "return mlmm.AtomEnergies(energies=…)",
            )
        if not bool(torch.isfinite(energies).all()):
            raise PotentialError(
                f"finite energies from {self.spec.name}",
                "NaN or infinity",
                "look for weights that are not finite",
            )
        self.result, self.energies = result, energies.detach()
        self.energy, self.forces = energy_and_forces(model, structure)
        self.largest = max(float(self.forces.norm(dim=1).max()), 1e-12)
        # A molecule whose energies nearly cancel must not make rounding look large.
        self.scale = max(float(self.energies.abs().max()), 1.0)

    def shapes(self) -> list[CheckResult]:
        """float64 out, finite; a committee's mean is the energy."""
        members, charges = self.result.members, self.result.charges
        wrong = int(self.energies.dtype != torch.float64) + int(self.forces.shape != (len(self.structure), 3))
        if members is not None:
            wrong += int(members.shape[1:] != self.energies.shape) + int(members.dtype != torch.float64)
            wrong += int(len(members) != self.spec.members)
        else:
            wrong += int(self.spec.members > 1)
        if charges is not None:
            wrong += int(charges.shape != self.energies.shape)
        rows = [_row("shapes, types and number of members that are not as declared", wrong, "", 0)]
        if members is not None and not wrong:
            error = float((members.detach().mean(dim=0) - self.energies).abs().max())
            rows.append(self._energy_row("mean of the members less the energies", error))
        if charges is not None:
            error = abs(float(charges.detach().sum()) - self.structure.charge)
            rows.append(_row("sum of the charges less the net charge", error, "e", 1e-4))
        return rows

    def untouched(self) -> list[CheckResult]:
        """Positions, numbers and cell are as they were."""
        structure = _boxed(self.structure, 2 * self._clearance())
        assert structure.cell is not None
        held = (structure.numbers, structure.positions, structure.cell)
        before = [tensor.clone() for tensor in held]
        self.model.atom_energies(structure)
        changed = sum(not torch.equal(old, new) for old, new in zip(before, held, strict=True))
        return [_row("inputs that a call changes", changed, "", 0)]

    def repeated(self) -> list[CheckResult]:
        """The same input gives the same bits, unless the model says that it does not."""
        error = float(
            (self.model.atom_energies(self.structure).energies.detach() - self.energies).abs().max()
        )
        if self.spec.deterministic:
            return [_row("repeated call", error, "kJ/mol", 0.0)]
        return [self._energy_row("repeated call (not deterministic, by its spec)", error)]

    def sums(self) -> list[CheckResult]:
        """Energies of the atoms and references add up to the original's own total, where there is one."""
        original = getattr(self.model, "own_energy_and_forces", None)
        if original is None:
            return []
        numbers = self.structure.numbers.tolist()
        references, alignment = self.spec.reference_energies, self.spec.alignment
        shift = sum(references.get(z, 0.0) - alignment.get(z, 0.0) for z in numbers)
        own, forces = original(self.structure)
        # The original may add large isolated-atom energies in its own precision.
        limit = self.limits.energy * max(self.scale * len(numbers), abs(own))
        error = abs(float(self.energies.sum()) + shift - own)
        return [
            _row("sum of atoms and references less the original's energy", error, "kJ/mol", limit),
            self._force_row("forces less the original's", _largest(forces - self.forces)),
        ]

    def symmetries(self) -> list[CheckResult]:
        """Permutation, rotation and translation."""
        structure, n = self.structure, len(self.structure)
        order = torch.randperm(n, generator=self.random)
        turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=self.random))
        turn = turn * torch.det(turn)
        shift = torch.randn(3, dtype=torch.float64, generator=self.random)
        same = torch.eye(3, dtype=torch.float64)
        rows = []
        for name, numbers, positions, place, rotation in (
            ("permutation", structure.numbers[order], structure.positions[order], order, same),
            ("rotation", structure.numbers, structure.positions @ turn.t(), torch.arange(n), turn),
            ("translation", structure.numbers, structure.positions + shift, torch.arange(n), same),
        ):
            moved = Structure(numbers, positions, None, structure.charge, structure.spin)
            found = self.model.atom_energies(moved).energies.detach()
            _, forces = energy_and_forces(self.model, moved)
            rows.append(
                self._energy_row(f"{name}: energies", float((found - self.energies[place]).abs().max()))
            )
            error = (forces - self.forces[place] @ rotation.t()).norm(dim=1).max()
            rows.append(self._force_row(f"{name}: forces", float(error)))
        return rows

    def finite_differences(self) -> list[CheckResult]:
        """Fourth-order central differences of the energy against the forces, on every coordinate."""
        structure, step = self.structure, self.limits.displacement
        worst = 0.0
        for atom in range(len(structure)):
            for axis in range(3):
                slope = 0.0
                for factor, weight in ((1, 8.0), (2, -1.0)):
                    for sign in (1, -1):
                        where = structure.positions.detach().clone()
                        where[atom, axis] += sign * factor * step
                        slope += sign * weight * self._energy_at(where)
                slope /= 12 * step
                worst = max(worst, abs(slope + float(self.forces[atom, axis])))
        # Rounding of the energy, seen through the step.
        noise = self.limits.energy * self.scale / (step * self.largest)
        limit = self.limits.difference + 0.1 * noise
        return [_row("finite differences less forces / largest force", worst / self.largest, "", limit)]

    def cutoff(self) -> list[CheckResult]:
        """No force beyond the declared cutoff; no step where a neighbour enters."""
        spec, rows = self.spec, []
        pairs = list(zip(self.chosen, [*self.chosen[1:], self.chosen[0]], strict=True))
        if not spec.long_range:
            beyond = max(
                float(energy_and_forces(self.model, dimer(*pair, spec.cutoff * (1 + 1e-6)))[1].norm())
                for pair in pairs
            )
            rows.append(self._force_row("force on a pair beyond the cutoff", beyond))
        reach = 1.3 if math.isinf(spec.cutoff) else 1.1 * spec.cutoff
        enough = (0.1 * self.limits.energy * self.scale, self.limits.force * self.largest)
        steps = [force_step(self.model, self.structure, pair[0], reach, enough) for pair in pairs[:2]]
        # A whole energy is rounded where it is large, wherever the steps are.
        limit = self.limits.energy * max(self.scale, *(s[2] for s in steps))
        name = "step in the energy as a neighbour enters"
        rows.append(_row(name, max(s[0] for s in steps), "kJ/mol", limit))
        # A continuous force still changes between two representable places: ten times rounding.
        rows.append(self._force_row("step in the force as a neighbour enters", max(s[1] for s in steps), 10))
        return rows

    def receptive_field(self) -> list[CheckResult]:
        """The largest distance at which moving one atom changes the energy of another."""
        spec = self.spec
        if spec.long_range or not spec.per_atom or not math.isfinite(spec.receptive_field):
            return []
        limit = spec.receptive_field
        layers = [
            _row(
                "receptive field less layers times cutoff",
                max(0.0, limit - spec.layers * spec.cutoff),
                "nm",
                1e-9,
            )
        ]
        chain = wire(self.chosen, limit)
        reached = range_reached(self.model, chain, 10 * self.limits.energy * self.scale)
        return [*layers, _row("receptive field, measured", reached, "nm", limit * (1 + 1e-9))]

    def many(self) -> list[CheckResult]:
        """Molecules that do not see each other have the energies that they have alone."""
        if self.spec.long_range or self.spec.charges:
            return []
        structure = self.structure
        other = random_molecule(self.chosen, seed=17)
        shift = torch.tensor([self._clearance(), 0.0, 0.0], dtype=torch.float64)
        numbers = torch.cat([structure.numbers, other.numbers, structure.numbers])
        places = torch.cat([structure.positions, other.positions + shift, structure.positions - shift])
        together = self.model.atom_energies(Structure(numbers, places)).energies.detach()
        alone = torch.cat([self.energies, self.model.atom_energies(other).energies.detach(), self.energies])
        if not self.spec.per_atom:
            together, alone = together.sum(), alone.sum()
        return [
            self._energy_row("three molecules in one call less each alone", _largest(together - alone), 4)
        ]

    def box(self) -> list[CheckResult]:
        """In a large box as without, wherever the images of the atoms are."""
        if self.spec.long_range:
            return []
        boxed = _boxed(self.structure, 2 * self._clearance())
        found = self.model.atom_energies(boxed).energies.detach()
        rows = [self._energy_row("large box less none", _largest(found - self.energies), 4)]
        assert boxed.cell is not None
        images = torch.randint(-1, 2, (len(boxed), 3), generator=self.random).to(torch.float64)
        moved = Structure(
            boxed.numbers, boxed.positions + images @ boxed.cell, boxed.cell, boxed.charge, boxed.spin
        )
        other = self.model.atom_energies(moved).energies.detach()
        return [*rows, self._energy_row("atoms moved by box vectors", _largest(other - found), 4)]

    def among_charges(self, compiled: bool) -> list[CheckResult]:
        """In the field of charges, or a refusal of them."""
        if self.spec.external == "none":
            return [refusal_row(self.model, self.structure)]
        limits = self.limits
        fractions = (limits.energy, limits.force, limits.difference, limits.displacement)
        return external_rows(self.model, self.structure, fractions, self.scale, compiled=compiled)

    def _clearance(self) -> float:
        """Distance between copies that cannot see each other, nm."""
        size = float(torch.cdist(self.structure.positions, self.structure.positions).max())
        field = self.spec.receptive_field
        return 2 * size + (field if math.isfinite(field) else 2.0) + 0.5

    def _energy_at(self, positions: torch.Tensor) -> float:
        structure = self.structure
        moved = Structure(structure.numbers, positions, None, structure.charge, structure.spin)
        with torch.no_grad():
            return float(self.model.atom_energies(moved).energies.sum())

    def _energy_row(self, name: str, error: float, times: float = 1) -> CheckResult:
        return _row(name, error, "kJ/mol", times * self.limits.energy * self.scale)

    def _force_row(self, name: str, error: float, times: float = 1) -> CheckResult:
        return _row(f"{name} / largest force", error / self.largest, "", times * self.limits.force)


def _row(name: str, value: float, unit: str, limit: float) -> CheckResult:
    value = float(value)
    return CheckResult(name, value, unit, limit=limit, passed=bool(value <= limit))


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max())


def _boxed(structure: Structure, width: float) -> Structure:
    """The same in the middle of a slightly triclinic box."""
    cell = width * torch.eye(3, dtype=torch.float64)
    cell[1, 0] = 0.1 * width
    middle = structure.positions.mean(dim=0)
    positions = structure.positions - middle + 0.5 * cell.sum(dim=0)
    return Structure(structure.numbers, positions, cell, structure.charge, structure.spin)
