"""Chains of carbon with every kind of variable on them, and OpenMM's side of each."""

from __future__ import annotations

import numpy as np
import openmm
import torch
from toys import chains

from mlmm.build import BuiltSystem
from mlmm.collective_variables.openmm_forces import follow_box
from mlmm.collective_variables.options import Variable

BOXES = {"open": None, "periodic": 1.5}


def system_of(box: float | None) -> BuiltSystem:
    return chains(n_molecules=2, box=box, seed=2, cutoff=0.7)


def images(built: BuiltSystem, n: int = 5) -> np.ndarray:
    """A path from the start that bends the first chain a little more with each image."""
    start = built.positions[:4]
    bent = np.random.default_rng(1).normal(0, 0.03, start.shape)
    return np.stack([start + k * bent for k in range(n)])


def variables(built: BuiltSystem) -> list[Variable]:
    """One of each kind; groups of one atom, of several, and across molecules."""
    return [
        Variable("d", "distance", [[0, 1], [5]]),
        Variable("theta", "angle", [[0], [1, 2], [7]]),
        Variable("phi", "torsion", [[0], [1], [5], [3]]),
        Variable("dd", "difference", [[0], [1, 3], [5], [3]]),
        Variable("combination", "sum", [[0], [1, 2], [5], [3]], coefficients=[0.5, -2.0]),
        Variable("along", "axis", [[0], [1, 2], [5, 6]]),
        Variable("contacts", "coordination", [[0, 1, 2], [4, 5, 6]], contact_distance="0.25 nm"),
        Variable("shape", "rmsd", [[0, 1, 2, 3]], reference=images(built)[2]),
        Variable("places", "position", [[0, 1, 6]]),
        Variable("s", "path_s", [[0, 1, 2, 3]], images=images(built)),
        Variable("z", "path_z", [[0, 1, 2, 3]], images=images(built)),
    ]


def disturbed(built: BuiltSystem, seed: int = 0) -> np.ndarray:
    """Positions away from the start; the second chain of a box in another image."""
    positions = built.positions + np.random.default_rng(seed).normal(0, 0.02, built.positions.shape)
    if built.box_vectors is not None:
        positions[4:] += [1, -2, 1] @ np.array(built.box_vectors)
    return positions


def cell_of(built: BuiltSystem) -> torch.Tensor | None:
    return None if built.box_vectors is None else torch.tensor(np.array(built.box_vectors))


def context_of(built: BuiltSystem, *forces: openmm.Force, platform: str = "Reference") -> openmm.Context:
    """Forces alone on the particles of a system."""
    system = openmm.System()
    for k in range(built.n_atoms):
        system.addParticle(built.system.getParticleMass(k))
    if built.box_vectors is not None:
        system.setDefaultPeriodicBoxVectors(*np.array(built.box_vectors).tolist())
    for force in forces:
        system.addForce(force)
    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen)
    follow_box(context)
    return context
