"""Ideal gases around fixed centres: densities with exact answers."""

from __future__ import annotations

import numpy as np
import torch

from mlmm.units import GAS_CONSTANT
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones
from mlmm.zones.compensation import CompensationEnergy
from mlmm.zones.region import Region

THERMAL = GAS_CONSTANT * 300.0
BOX = np.diag([3.0, 3.0, 3.0])
EDGES = np.arange(0.0, 1.01, 0.1)
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def gas_zones(n_molecules, centres=1, plateau=0.4, width=0.5):
    """Single atoms around fixed centres, which are the first atoms."""
    atoms = tuple(range(centres))
    return AdaptiveZones(
        n_molecules + centres,
        Region(atoms, (), "the first", ()),
        core=atoms,
        molecules=tuple((centres + m,) for m in range(n_molecules)),
        kinds=("GAS",) * n_molecules,
        anchors=((1.0,),) * n_molecules,
        centres=atoms,
        plateau=plateau,
        width=width,
    )


def ideal_gas(zones, centres, energy, n_frames, seed):
    """Independent positions with the weight exp(−energy(lambda)/kT), by rejection: (F, N, 3)."""
    generator = np.random.default_rng(seed)
    weights_of = AdaptiveWeights(zones)
    wanted, found = n_frames * len(zones.molecules), []
    least = energy(torch.linspace(0, 1, 1001, dtype=torch.float64)).min()
    while sum(map(len, found)) < wanted:
        trial = torch.tensor(generator.uniform(0, 3.0, (wanted, 3)))
        vectors = trial.unsqueeze(1) - torch.tensor(centres).unsqueeze(0)
        vectors = vectors - 3.0 * torch.round(vectors / 3.0)
        weights = weights_of.at(vectors.norm(dim=-1))
        keep = generator.uniform(size=wanted) < torch.exp((least - energy(weights)) / THERMAL).numpy()
        found.append(trial[torch.tensor(keep)].numpy())
    gas = np.concatenate(found)[:wanted].reshape(n_frames, -1, 3)
    fixed = np.broadcast_to(np.asarray(centres), (n_frames, len(centres), 3))
    return np.concatenate([fixed, gas], axis=1)


def hill(weights):
    """kJ/mol: the difference of two descriptions that a compensation has to cancel."""
    return 4.0 * weights - 3.0 * weights * weights


CENTRE = [[0.2, 2.9, 1.0]]


def compensated(compensation):
    energy = CompensationEnergy(compensation, ["GAS"])
    kinds = energy.kinds

    def total(weights):
        energy.kinds, energy.alignment = kinds.expand(len(weights)), torch.zeros(len(weights))
        return hill(weights) + energy(weights)

    return total
