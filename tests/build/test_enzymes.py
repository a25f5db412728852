"""Whole paths from deposited structures: chorismate mutase in droplet and box, trypsin from two formats."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import openmm
import pytest

from mlmm.build import checks
from mlmm.config.load import load_config
from mlmm.config.objects import build_from

ROOT = Path(__file__).resolve().parents[2]


def structure(name: str) -> Path:
    for folder in os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep):
        if folder and (Path(folder) / name).is_file():
            return Path(folder) / name
    pytest.skip(f"set MLMM_STRUCTURES to a folder that holds {name}")


def built_from(path: str, *overrides: str):
    return build_from(load_config(ROOT / path, overrides), lambda stage: None)


def dynamics(built, iterations: int, steps: int):
    """Minimise, then Langevin dynamics of 2 fs at 300 K on the CPU platform; positions before and after."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, iterations)
    start = context.getState(positions=True).getPositions(asNumpy=True)._value
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(steps)
    state = context.getState(energy=True, positions=True)
    assert np.isfinite(state.getPotentialEnergy()._value) and state.getPotentialEnergy()._value < 0
    end = state.getPositions(asNumpy=True)._value
    hands = checks.handedness(built.topology, built.positions)
    checks.check_handedness(hands, checks.handedness(built.topology, end), "after dynamics")
    return start, end


def substrates(built):
    return [residue for residue in built.topology.residues() if residue.name == "CHA"]


def opened(built, positions, residue) -> float:
    """Distance in nm of the atoms that the transition-state analogue has bonded and chorismate has not."""
    at = {atom.name: positions[atom.index] for atom in residue.atoms()}
    bonded = {frozenset((one.name, other.name)) for one, other in residue.bonds()}
    assert frozenset(("C1", "C9")) not in bonded
    return float(np.linalg.norm(at["C1"] - at["C9"]))


@pytest.mark.slow
def test_chorismate_mutase_in_a_droplet():
    structure("2CHT.pdb")
    pytest.importorskip("propka")
    built = built_from("systems/chorismate_mutase/droplet.toml")
    assert 3_600 <= built.n_atoms <= 4_200 and not built.periodic
    text = "\n".join(built.provenance["decisions"])
    assert "BAR 201 of chain A turned into CHA" in text
    assert "as asked for" in text and "pKa" in text
    still = np.array([built.system.getParticleMass(i)._value == 0 for i in range(built.n_atoms)])
    assert 1_000 < still.sum() < built.n_atoms - 1_500
    target = next(residue for residue in substrates(built) if residue.id == "201")
    assert opened(built, built.positions, target) > 0.25
    start, end = dynamics(built, 50, 500)
    np.testing.assert_array_equal(start[still], end[still])
    assert opened(built, end, target) > 0.25
    # No water went through the frozen shell.
    centre = built.positions[[atom.index for atom in target.atoms()]].mean(axis=0)
    oxygens = [
        next(residue.atoms()).index
        for residue in built.topology.residues()
        if residue.name == "HOH" and not still[next(residue.atoms()).index]
    ]
    assert np.linalg.norm(end[oxygens] - centre, axis=1).max() < 1.9


@pytest.mark.slow
def test_chorismate_mutase_in_a_box():
    structure("2CHT.pdb")
    pytest.importorskip("propka")
    built = built_from("systems/chorismate_mutase/box.toml")
    assert 27_000 <= built.n_atoms <= 32_000 and built.periodic
    assert built.provenance["net_charge"] == 0
    assert len(substrates(built)) == 3
    names = {residue.name for residue in built.topology.residues()}
    assert {"NA", "CL", "HOH", "CHA"} <= names and "BAR" not in names
    start, end = dynamics(built, 60, 500)
    assert all(opened(built, end, residue) > 0.25 for residue in substrates(built))
    assert np.isfinite(end).all() and np.linalg.norm(end - start, axis=1).max() < 3.0


@pytest.mark.slow
def test_trypsin_is_the_same_from_pdb_and_mmcif():
    pdb, cif = structure("3PTB.pdb"), structure("3PTB.cif")
    overrides = ("system.solvent=none",)
    first, second = (
        built_from("systems/trypsin_benzamidine/run.toml", *overrides, f"system.pdb={path}")
        for path in (pdb, cif)
    )
    names = [
        [(residue.name, len(list(residue.atoms()))) for residue in built.topology.residues()]
        for built in (first, second)
    ]
    assert names[0] == names[1]
    np.testing.assert_allclose(first.positions, second.positions, atol=1e-4)
    assert first.provenance["net_charge"] == second.provenance["net_charge"]
    counted = [name for name, _ in names[0]]
    assert counted.count("BEN") == 1 and counted.count("CA") == 1
    sulfurs = [bond for bond in first.topology.bonds() if bond[0].name == "SG" and bond[1].name == "SG"]
    assert len(sulfurs) == 6
    insertions = {
        f"{residue.id}{residue.insertionCode.strip()}"
        for residue in first.topology.residues()
        if residue.insertionCode.strip()
    }
    assert {"184A", "188A", "221A"} <= insertions
