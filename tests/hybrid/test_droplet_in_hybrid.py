"""The engine in a droplet: no box, a frozen shell, a wall; forces are derivatives and frozen atoms stay."""

from __future__ import annotations

import numpy as np
import openmm
import pytest

import mlmm
from mlmm.build import build_system
from mlmm.dynamics.stages import Minimise, NVECheck
from mlmm.errors import EmbeddingError

DROPLET = {"centre": "resname ALA", "radius": "1.1 nm", "mobile": "0.8 nm", "relax": 100}


@pytest.fixture(scope="module")
def droplet(root):
    pdb = root / "systems/alanine_dipeptide/input.pdb"
    return build_system(pdb, solvent="droplet", droplet=DROPLET, constraints="none", rigid_water=False)


@pytest.mark.parametrize("scheme", ["per_atom", "additive"])
def test_forces_in_a_droplet_are_derivatives_of_the_energy(droplet, ani1x, scheme):
    region = mlmm.select_region(droplet, "resname ACE ALA NME")
    zones = (
        mlmm.static_zones(droplet, region, "0.1 nm", "0.2 nm")
        if scheme == "per_atom"
        else mlmm.hard_zones(droplet, region)
    )
    hybrid = mlmm.hybrid_system(droplet, zones, ani1x, scheme=scheme)
    mobile = [i for i in zones.active if droplet.system.getParticleMass(i)._value > 0]
    system = hybrid.create_system()
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )

    def energy(positions):
        context.setPositions(positions)
        return context.getState(energy=True).getPotentialEnergy()._value

    context.setPositions(droplet.positions)
    forces = context.getState(forces=True).getForces(asNumpy=True)._value
    largest = np.abs(forces[mobile]).max()
    generator = np.random.default_rng(0)
    for _ in range(3):
        direction = np.zeros_like(droplet.positions)
        direction[mobile] = generator.normal(size=(len(mobile), 3))
        direction /= np.linalg.norm(direction)
        step = 1e-4
        slope = energy(droplet.positions + step * direction) - energy(droplet.positions - step * direction)
        assert slope / (2 * step) == pytest.approx(-(forces * direction).sum(), abs=1e-5 * largest)


def test_a_run_in_a_droplet_keeps_frozen_atoms_and_counts_the_moving_ones(droplet, ani1x, tmp_path):
    region = mlmm.select_region(droplet, "resname ACE ALA NME")
    hybrid = mlmm.hybrid_system(droplet, mlmm.hard_zones(droplet, region), ani1x, scheme="additive")
    still = np.array([droplet.system.getParticleMass(i)._value == 0 for i in range(droplet.n_atoms)])
    stages = [Minimise(max_iterations=20), NVECheck("0.01 ps", timestep="0.5 fs")]
    run = mlmm.simulate(hybrid, tmp_path / "run", stages, platform="Reference", report_interval=5)
    assert run.state == "finished"
    assert run.summary["system"]["degrees_of_freedom"] == 3 * int((~still).sum())
    final = openmm.app.PDBFile(str(run.file("final.pdb"))).getPositions(asNumpy=True)._value
    moved = np.linalg.norm(final - droplet.positions, axis=1)
    # A PDB file has three decimals of an angstrom.
    assert moved[still].max() < 1e-4 < 1e-3 < moved[~still].max()


def test_reaction_field_is_for_scheme_additive(root, ani1x):
    pdb = root / "systems/alanine_dipeptide/input.pdb"
    limited = DROPLET | {"cutoff": "0.9 nm", "relax": 0}
    built = build_system(pdb, solvent="droplet", droplet=limited, constraints="none", rigid_water=False)
    region = mlmm.select_region(built, "resname ACE ALA NME")
    zones = mlmm.hard_zones(built, region)
    with pytest.raises(EmbeddingError, match=r"reaction field.*without cutoff"):
        mlmm.hybrid_system(built, zones, ani1x, scheme="per_atom")
    assert mlmm.hybrid_system(built, zones, ani1x, scheme="additive").scheme == "additive"
