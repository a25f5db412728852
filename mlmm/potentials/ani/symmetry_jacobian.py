"""ANI symmetry functions of all atoms of a structure with their analytic derivatives.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi 10.1039/C6SC05720A, eqs. 3 and 4; float64.
"""

from __future__ import annotations

import math

import torch

from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.structures import neighbour_pairs

__all__ = ["jacobian"]


def jacobian(
    functions: SymmetryFunctions, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Symmetry functions of every atom of one structure and their analytic derivatives.

    Parameters
    ----------
    functions : SymmetryFunctions
        In float64, with every atom as a centre.
    positions : torch.Tensor, shape (N, 3), float64, angstrom

    Returns
    -------
    values : torch.Tensor, shape (N, L)
    derivatives : torch.Tensor, shape (N, L, 3 M), 1/angstrom
    neighbours : torch.Tensor, shape (N, M), int64
        The atom itself, then those within the radial cutoff; 0 in places that are not needed.
    """
    n = len(positions)
    centre, neighbour, vectors = neighbour_pairs(positions, None, functions.radial_cutoff, functions.centres)
    counts = torch.bincount(centre, minlength=n)
    place = torch.arange(len(centre)) - (counts.cumsum(0) - counts)[centre] + 1  # 0 is the atom itself
    places = int(counts.max()) + 1 if len(counts) else 1
    neighbours = torch.zeros(n, places, dtype=torch.int64)
    neighbours[:, 0] = torch.arange(n)
    neighbours[centre, place] = neighbour
    distances = vectors.square().sum(-1).sqrt()
    radial = _radial(functions, centre, neighbour, vectors, distances, place, (n, places))
    angular = _angular(functions, centre, neighbour, vectors, distances, place, (n, places))
    values = functions(positions, None)
    return values, torch.cat([radial, angular], dim=1).reshape(n, -1, 3 * places), neighbours


def _radial(
    functions: SymmetryFunctions,
    centre: torch.Tensor,
    neighbour: torch.Tensor,
    vectors: torch.Tensor,
    distances: torch.Tensor,
    place: torch.Tensor,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Derivatives of eq. 3, (N, elements × radial functions, M, 3)."""
    n, places = shape
    r = distances.unsqueeze(1)
    wave = math.pi / functions.radial_cutoff
    switch, slope = 0.5 * torch.cos(wave * r) + 0.5, -0.5 * wave * torch.sin(wave * r)
    off = r - functions.shift_radial
    bell = 0.25 * torch.exp(-functions.eta_radial * off.square())
    by_distance = bell * (slope - 2.0 * functions.eta_radial * off * switch)
    terms = by_distance.unsqueeze(2) * (vectors / r).unsqueeze(1)  # (P, radial, 3)
    kinds = functions.n_species
    out = torch.zeros(n * kinds * places, functions.n_radial, 3, dtype=torch.float64)
    row = (centre * kinds + functions.species[neighbour]) * places
    out.index_add_(0, row + place, terms)
    out.index_add_(0, row, -terms)
    out = out.reshape(n, kinds, places, functions.n_radial, 3).permute(0, 1, 3, 2, 4)
    return out.reshape(n, kinds * functions.n_radial, places, 3)


def _angular(
    functions: SymmetryFunctions,
    centre: torch.Tensor,
    neighbour: torch.Tensor,
    vectors: torch.Tensor,
    distances: torch.Tensor,
    place: torch.Tensor,
    shape: tuple[int, int],
) -> torch.Tensor:
    """Derivatives of eq. 4, (N, pairs of elements × angular functions, M, 3)."""
    n, places = shape
    near = (distances < functions.angular_cutoff).nonzero().squeeze(1)
    centre, place, r = centre[near], place[near], distances[near]
    kind, unit = functions.species[neighbour[near]], vectors[near] / distances[near].unsqueeze(1)
    first, second = functions.pairs_of_neighbours(centre, n)
    wave = math.pi / functions.angular_cutoff
    switch, slope = 0.5 * torch.cos(wave * r) + 0.5, -0.5 * wave * torch.sin(wave * r)
    cosine = (unit[first] * unit[second]).sum(-1, keepdim=True)
    damped = 0.95 * cosine
    sine = (1.0 - damped.square()).sqrt()
    base = 0.5 + 0.5 * (damped * functions.cos_angle + sine * functions.sin_angle)
    by_angle = base.pow(functions.zeta)
    turn = 0.475 * (functions.cos_angle - damped / sine * functions.sin_angle)
    d_angle = functions.zeta * base.pow(functions.zeta - 1.0) * turn
    off = (0.5 * (r[first] + r[second])).unsqueeze(1) - functions.shift_angular
    bell = 2.0 * torch.exp(-functions.eta_angular * off.square())
    f_first, f_second = switch[first].unsqueeze(1), switch[second].unsqueeze(1)
    both = f_first * f_second
    by_distance = bell * both
    fall = -functions.eta_angular * off * both
    d_first = bell * (fall + slope[first].unsqueeze(1) * f_second)
    d_second = bell * (fall + slope[second].unsqueeze(1) * f_first)

    def joined(distance: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        return (distance.unsqueeze(2) * angle.unsqueeze(1)).flatten(1).unsqueeze(2)

    pull = joined(by_distance, d_angle)
    to_first = (unit[second] - cosine * unit[first]) / r[first].unsqueeze(1)
    to_second = (unit[first] - cosine * unit[second]) / r[second].unsqueeze(1)
    on_first = joined(d_first, by_angle) * unit[first].unsqueeze(1) + pull * to_first.unsqueeze(1)
    on_second = joined(d_second, by_angle) * unit[second].unsqueeze(1) + pull * to_second.unsqueeze(1)
    kinds = functions.n_species_pairs
    out = torch.zeros(n * kinds * places, functions.n_angular, 3, dtype=torch.float64)
    row = (centre[first] * kinds + functions.pair_index[kind[first], kind[second]]) * places
    out.index_add_(0, row + place[first], on_first)
    out.index_add_(0, row + place[second], on_second)
    out.index_add_(0, row, -(on_first + on_second))
    out = out.reshape(n, kinds, places, functions.n_angular, 3).permute(0, 1, 3, 2, 4)
    return out.reshape(n, kinds * functions.n_angular, places, 3)
