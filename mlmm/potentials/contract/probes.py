"""Structures that ask a potential questions, and the two searches: where a force jumps, how far atoms see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mlmm.potentials.base import PotentialModel, energy_and_forces
from mlmm.structures import Structure

__all__ = ["dimer", "force_step", "random_molecule", "range_reached", "wire"]

_BOND, _BOND_TO_HYDROGEN = 0.15, 0.105  # nm: crude, since smoothness is asked for, not chemistry
_SPACING = 0.13  # nm
_SHORTEST = 1e-10  # nm
_INTERVALS = 32


class _Point(NamedTuple):
    """Energy, all forces and the energy's slope with the distance of the probe."""

    distance: float
    energy: float
    forces: torch.Tensor
    slope: float


def random_molecule(
    elements: Sequence[int], atoms: int = 10, *, seed: int = 0, spin_pairs: bool = False
) -> Structure:
    """A compact tree of bonds with every element in it, no two atoms on top of each other.

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers; each occurs before the first is repeated.
    atoms : int
    seed : int
    spin_pairs : bool
        An even number of electrons, for models that ask for the multiplicity.
    """
    random = torch.Generator().manual_seed(seed)
    numbers = [elements[k % len(elements)] for k in range(max(atoms, len(elements)))]
    odd = [z for z in elements if z % 2]
    if spin_pairs and sum(numbers) % 2 and odd:
        numbers.append(odd[0])
    # Heavy atoms first: they carry the others.
    numbers.sort(reverse=True)
    positions = [torch.zeros(3, dtype=torch.float64)]
    while len(positions) < len(numbers):
        z = numbers[len(positions)]
        parent = int(torch.randint(0, len(positions), (1,), generator=random))
        length = _BOND if 1 not in (z, numbers[parent]) else _BOND_TO_HYDROGEN
        direction = torch.randn(3, dtype=torch.float64, generator=random)
        place = positions[parent] + length * direction / direction.norm()
        distances = torch.stack([(place - other).norm() for other in positions])
        if float(distances.min()) > 0.97 * length:
            positions.append(place)
    return Structure(torch.tensor(numbers), torch.stack(positions))


def dimer(first: int, second: int, distance: float) -> Structure:
    """Two atoms at a distance, nm, along no axis."""
    direction = torch.tensor([0.48, 0.6, 0.64], dtype=torch.float64)
    return Structure(
        torch.tensor([first, second]), torch.stack([torch.zeros_like(direction), distance * direction])
    )


def wire(elements: Sequence[int], reach: float) -> Structure:
    """A crooked chain of atoms, dense enough for messages to pass and twice as long as `reach`, nm."""
    random = torch.Generator().manual_seed(5)
    count = int(2.2 * reach / _SPACING) + 2
    positions = torch.zeros(count, 3, dtype=torch.float64)
    positions[:, 0] = _SPACING * torch.arange(count)
    positions += 0.02 * torch.randn(count, 3, dtype=torch.float64, generator=random)
    heavy = [z for z in elements if z > 1] or list(elements)
    return Structure(torch.tensor([heavy[k % len(heavy)] for k in range(count)]), positions)


def force_step(
    model: PotentialModel, structure: Structure, probe: int, reach: float, enough: tuple[float, float]
) -> tuple[float, float, float]:
    """Largest step in energy and force as an atom comes closer, and the largest energy on its way.

    A step in the energy is what the work of the force does not account for, a step in a force what its change
    on both halves of an interval does not. Where that is largest, intervals are halved until they are as
    short as arithmetic allows: a smooth function has no step left there.

    Parameters
    ----------
    model : PotentialModel
    structure : Structure
    probe : int
        Atomic number of the atom that comes closer.
    reach : float
        Distance from the outermost atom where the path begins, nm; it ends at half a bond from there.
    enough : tuple of (float, float)
        kJ/mol and kJ/mol/nm: below, an interval is not halved any more.
    """
    centre = structure.positions.mean(dim=0)
    direction = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    outermost = float(((structure.positions - centre) @ direction).max())

    def look(distance: float) -> _Point:
        place = centre + (outermost + distance) * direction
        positions = torch.cat([structure.positions, place.unsqueeze(0)])
        numbers = torch.cat([structure.numbers, torch.tensor([probe])])
        # One more atom may leave an electron unpaired: the charge makes up for it where the model asks.
        charge = structure.charge + (probe % 2 if model.spec.charges else 0)
        energy, forces = energy_and_forces(model, Structure(numbers, positions, None, charge, structure.spin))
        return _Point(distance, energy, forces, -float(forces[-1] @ direction))

    samples = 2 * _INTERVALS
    points = [look(0.08 + (reach - 0.08) * k / samples) for k in range(samples + 1)]
    triples = [(points[k], points[k + 1], points[k + 2]) for k in range(0, samples, 2)]
    steps = []
    for misfit, small in zip((_energy_misfit, _force_misfit), enough, strict=True):
        largest = 0.0
        for first, middle, last in sorted(triples, key=lambda triple: misfit(*triple))[-2:]:
            while last.distance - first.distance > _SHORTEST and misfit(first, middle, last) > small:
                halves = []
                for low, high in ((first, middle), (middle, last)):
                    halves.append((low, look(0.5 * (low.distance + high.distance)), high))
                first, middle, last = max(halves, key=lambda triple: misfit(*triple))
            largest = max(largest, misfit(first, middle, last))
        steps.append(largest)
    return steps[0], steps[1], max(abs(point.energy) for point in points)


def _energy_misfit(first: _Point, middle: _Point, last: _Point) -> float:
    """Change of the energy less the work by Simpson's rule, kJ/mol."""
    work = (last.distance - first.distance) / 6 * (first.slope + 4 * middle.slope + last.slope)
    return abs(last.energy - first.energy - work)


def _force_misfit(first: _Point, middle: _Point, last: _Point) -> float:
    """Second difference of the forces, the largest of all atoms, kJ/mol/nm."""
    return float((first.forces - 2 * middle.forces + last.forces).norm(dim=1).max())


def range_reached(model: PotentialModel, structure: Structure, noise: float) -> float:
    """Largest distance at which moving an atom by 0.01 nm changes the energy of another, nm.

    Parameters
    ----------
    model : PotentialModel
    structure : Structure
        Longer than the range that is expected.
    noise : float
        Changes up to this are rounding, kJ/mol.
    """
    reached = 0.0
    with torch.no_grad():
        before = model.atom_energies(structure).energies
        for atom in range(len(structure)):
            where = structure.positions.clone()
            where[atom, 1] += 0.01
            after = model.atom_energies(
                Structure(structure.numbers, where, None, structure.charge, structure.spin)
            ).energies
            changed = (after - before).abs() > noise
            changed[atom] = False
            if bool(changed.any()):
                # The pair was in range at the nearer of the two places.
                near = torch.minimum(
                    (structure.positions - structure.positions[atom]).norm(dim=1),
                    (structure.positions - where[atom]).norm(dim=1),
                )
                reached = max(reached, float(near[changed].max()))
    return reached
