"""A committee knows where it does not know: the spread rises before the energy is wrong."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

import mlmm
from mlmm.dynamics.uncertainty import UncertaintyLimits, UncertaintyMonitor
from mlmm.potentials import TrainingSet, committee_spread
from mlmm.potentials.known import find_model, known_potentials
from mlmm.structures import Structure

#: Beyond this, kJ/mol, an energy counts as wrong.
WRONG = 10.0
FLAG = 5.0  # times the spread at equilibrium
DISTANCES = np.arange(0.150, 0.2501, 0.005)


def ethane(distance):
    """Staggered, two rigid methyl groups at a C–C distance, nm."""
    length, angle = 0.109, np.deg2rad(111.2)
    places = [[0, 0, 0], [0, 0, distance]]
    for end, sign, turn in ((0.0, 1, 0.0), (distance, -1, np.pi / 3)):
        for k in range(3):
            a = 2 * np.pi * k / 3 + turn
            side = length * np.sin(angle)
            places.append([side * np.cos(a), side * np.sin(a), end + sign * length * np.cos(angle)])
    return Structure(torch.tensor([6, 6] + 6 * [1]), torch.tensor(np.array(places)))


def installed(name):
    known = next(known for known in known_potentials() if known.name == name)
    if find_model(known) is None:
        pytest.skip(f"{known.install}, or set MLMM_MODELS to a folder with {known.file}")
    return mlmm.load_potential(name, precision="float64")


def stretch(model):
    """Energy above the minimum and spread of the energy along the stretch."""
    structures = [ethane(d) for d in DISTANCES]
    energies = np.array([float(model.atom_energies(s).energies.sum()) for s in structures])
    spreads = np.array([committee_spread(model, s, forces=False).energy for s in structures])
    return energies - energies.min(), spreads


@pytest.mark.parametrize(
    ("name", "reference"), [("ani1x", "ani1ccx"), ("ani2x", "ani1ccx"), ("ani1x", "ani2x")]
)
def test_spread_flags_a_stretched_bond_before_the_energy_is_wrong(name, reference):
    """Wrong: 10 kJ/mol from a potential of other reference energies or other training data."""
    energies, spreads = stretch(installed(name))
    others, _ = stretch(installed(reference))
    at_rest = spreads[energies.argmin()]
    flagged = int((spreads > FLAG * at_rest).argmax())
    wrong = int((np.abs(energies - others) > WRONG).argmax())
    assert spreads[flagged] > FLAG * at_rest and abs(energies - others)[wrong] > WRONG
    assert DISTANCES[flagged] < DISTANCES[wrong]
    # No alarm for what the bond does at room temperature: 0.150 to 0.160 nm.
    assert (spreads[DISTANCES < 0.161] < 3 * at_rest).all()


def test_distance_to_the_training_set_flags_it_as_well():
    random = torch.Generator().manual_seed(0)
    rest = ethane(0.153)
    frames = [
        Structure(
            rest.numbers, rest.positions + 0.004 * torch.randn(8, 3, generator=random, dtype=torch.float64)
        )
        for _ in range(60)
    ]
    training = TrainingSet.from_structures(frames)
    found = np.array([float(training.distances(ethane(d))[:2].max()) for d in DISTANCES])
    assert found[DISTANCES < 0.157].max() < 1.5 and found[DISTANCES > 0.185].min() > 3.0
    assert (np.diff(found[5:]) > 0).all()


@pytest.mark.slow
def test_two_picoseconds_of_a_pocket_that_holds_sulfur(root, models_folder, tmp_path):
    """ANI-2x on p-xylene and the side chain of Met102 in lysozyme: 2 ps, at the temperature asked for."""
    folder = root / "systems/lysozyme_xylene"
    built = mlmm.build_system(
        folder / "input.pdb",
        ligands=[folder / "p-xylene.xml"],
        solvate=False,
        constraints="none",
        rigid_water=False,
    )
    region = mlmm.select_region(built, "resname TMP or (resSeq 102 and sidechain)", complete="atoms")
    symbols = [atom.element.symbol for atom in built.topology.atoms()]
    assert "S" in {symbols[i] for i in region.atoms}
    zones = mlmm.static_zones(built, region, plateau="0 nm", width="0.15 nm", snap="hydrogen")
    hybrid = mlmm.hybrid_system(built, zones, mlmm.load_potential("ani2x"), scheme="per_atom")
    run = mlmm.simulate(
        hybrid,
        tmp_path / "run",
        [
            mlmm.Minimise(max_iterations=100),
            mlmm.Equilibrate("0.1 ps", timestep="0.5 fs", friction="10 /ps"),
            mlmm.Produce("2 ps", timestep="0.5 fs", friction="10 /ps"),
        ],
        seed=1,
        report_interval=50,
        monitor=UncertaintyMonitor(hybrid, UncertaintyLimits(force="2000 kJ/mol/nm", action="stop")),
    )
    assert run.state == "finished", json.dumps(run.summary["message"])
    rows = list(csv.DictReader((run.path / "energies.csv").read_text().splitlines()))
    produced = [row for row in rows if row["stage"] == "produce"]
    assert len(produced) == 80
    temperatures = np.array([float(row["temperature"]) for row in produced])
    assert abs(temperatures[40:].mean() - 300) < 15
    assert 0 < max(float(row["force_spread"]) for row in produced) < 2000
