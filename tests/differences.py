"""Models of short range with exact answers, and differences by definition, for scheme `supermolecular`."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from toys import toy_spec

from mlmm.blending.link_atoms import CappedAtoms, cap_lengths
from mlmm.blending.supermolecular import capped_region
from mlmm.potentials import AtomEnergies
from mlmm.structures import Structure, neighbour_pairs
from mlmm.term_weights import CappedRegion
from mlmm.zones.region import molecules_of

RANGE = 0.4  # nm, of the toys


class Contacts(torch.nn.Module):
    """eps_i = sum_j Z_i Z_j (1 − r²/c²)³/100 [+ square], all of a pair on its lighter atom; two members."""

    def __init__(self, numbers: torch.Tensor, reach: float, many_body: float):
        super().__init__()
        self.reach, self.many_body = reach, many_body
        self.register_buffer("numbers", numbers)
        self.register_buffer("all_atoms", torch.arange(len(numbers)))

    def forward(
        self,
        positions: torch.Tensor,
        cell: torch.Tensor | None,
        centres: torch.Tensor | None = None,
    ) -> torch.Tensor:
        central = self.all_atoms if centres is None else centres
        first, second, vectors = neighbour_pairs(positions, cell, self.reach, central)
        here, there = self.numbers[central[first]], self.numbers[second]
        # 2, 1 or 0 halves of the pair: a share as lopsided as a model's may be.
        halves = 1.0 + (here < there).to(torch.float64) - (here > there).to(torch.float64)
        close = (1.0 - vectors.square().sum(-1) / self.reach**2).clamp(min=0.0) ** 3
        sums = torch.zeros(central.shape[0], dtype=torch.float64).index_add(
            0, first, 0.005 * halves * here * there * close
        )
        sums = sums + self.many_body * sums.square()
        return torch.stack([sums, 1.5 * sums])


class ContactPotential:
    """`Contacts` with its TorchScript form."""

    def __init__(self, many_body: float = 0.0, reach: float = RANGE, **changes: object):
        self.spec = toy_spec("contacts", cutoff=reach, receptive_field=reach, trained_on="total", members=2)
        self.spec = dataclasses.replace(self.spec, **changes)
        self.many_body = many_body

    def scriptable(self, numbers, centres=None):
        assert centres is None
        return Contacts(torch.tensor(list(numbers), dtype=torch.float64), self.spec.cutoff, self.many_body)

    def atom_energies(self, structure):
        members = self.scriptable(structure.numbers.tolist())(structure.positions, structure.cell)
        return AtomEnergies(members.mean(dim=0), members)


class Messages:
    """Two layers of message passing: h_j = sum_k f_jk, g_i = sum_j f_ij tanh h_j, eps_i = g_i + g_i²/100.

    Without a TorchScript form. The square couples what two neighbours of an atom see.
    """

    def __init__(self, **changes: object):
        self.spec = toy_spec("messages", cutoff=RANGE, receptive_field=2 * RANGE, trained_on="total")
        self.spec = dataclasses.replace(self.spec, **changes)

    def atom_energies(self, structure):
        n, numbers = len(structure), structure.numbers.to(torch.float64)
        first, second, vectors = neighbour_pairs(structure.positions, structure.cell, RANGE)
        close = (1.0 - vectors.square().sum(-1) / RANGE**2).clamp(min=0.0) ** 3 * numbers[second]
        zeros = torch.zeros(n, dtype=torch.float64)
        features = zeros.index_add(0, first, 0.1 * close)
        sums = zeros.index_add(0, first, 10 * close * features.tanh()[second])
        return AtomEnergies(sums + 0.01 * sums.square())


def atoms_of(built) -> tuple[list[int], list[tuple[int, int]]]:
    """Atomic numbers and bonds."""
    numbers = [atom.element.atomic_number for atom in built.topology.atoms()]
    return numbers, [(bond[0].index, bond[1].index) for bond in built.topology.bonds()]


def geometry(built) -> tuple[torch.Tensor, torch.Tensor | None]:
    cell = None if built.box_vectors is None else torch.tensor(built.box_vectors)
    return torch.tensor(built.positions, requires_grad=True), cell


def region_of(atoms, bonds) -> CappedRegion:
    """Some atoms, with caps on the bonds that they cut."""
    weights = np.zeros(1 + max(max(bond) for bond in bonds))
    weights[list(atoms)] = 1.0
    return capped_region(weights, bonds)


def waters_by_distance(built) -> list[tuple[int, ...]]:
    """Water molecules of the dipeptide's box, the nearest first."""
    box, positions = np.diag(built.box_vectors), built.positions
    waters = [tuple(atoms) for atoms in molecules_of(built.topology) if len(atoms) == 3]

    def distance(atoms):
        separation = positions[list(atoms)][:, None] - positions[None, :22]
        return np.linalg.norm(separation - np.round(separation / box) * box, axis=-1).min()

    return sorted(waters, key=distance)


def smooth_weights(built) -> np.ndarray:
    """1 on alanine, 0.7 on the rest of the dipeptide, 0.3 on twelve waters."""
    weights = np.zeros(built.n_atoms)
    weights[:22], weights[6:16] = 0.7, 1.0
    weights[[atom for water in waters_by_distance(built)[:12] for atom in water]] = 0.3
    return weights


def whole_energies(model, numbers, visible, region, positions, cell) -> torch.Tensor:
    """E(V) − E(V∖S, capped) from energies of the whole system: the definition."""

    def total(atoms, caps, lengths):
        where = CappedAtoms(atoms, caps, lengths)(positions, cell)
        elements = torch.tensor([numbers[atom] for atom in atoms] + [1] * len(caps))
        return model.atom_energies(Structure(elements, where, cell)).energies.sum()

    kept = [atom for atom in visible if atom not in region.atoms]
    lengths = cap_lengths(region.caps, numbers, model.spec)
    return total(visible, (), ()) - total(kept, region.caps, lengths)


def model_forces(model, numbers, positions, cell) -> torch.Tensor:
    """−dE(V)/dr: the model on everything."""
    energy = model.atom_energies(Structure(torch.tensor(numbers), positions, cell)).energies.sum()
    return -torch.autograd.grad(energy, positions)[0]


def forces_of(blend, positions, cell) -> torch.Tensor:
    return -torch.autograd.grad(blend(positions, cell), positions)[0]
