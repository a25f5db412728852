"""A user of plain OpenMM brings a system and a model and goes on with their own Simulation."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit
from toys import PlainSprings, SpringPotential, chains, toy_spec

import mlmm
from mlmm.errors import EmbeddingError, MissingPackageError, PotentialError, SimulationError


def zones_of(built, atoms=range(4)):
    return mlmm.hard_zones(built, mlmm.select_region(built, f"index {atoms[0]} to {atoms[-1]}"))


def test_own_model_and_own_simulation():
    built = chains()
    hybrid = mlmm.hybrid_system(built, zones_of(built), PlainSprings())
    assert hybrid.bridge == "pythonforce"
    simulation = app.Simulation(built.topology, hybrid.system, openmm.LangevinMiddleIntegrator(300, 1, 0.001))
    simulation.context.setPositions(built.positions)
    simulation.minimizeEnergy(maxIterations=20)
    simulation.step(20)
    state = simulation.context.getState(energy=True, groups={hybrid.force_groups["ml"]}, positions=True)
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    expected = float(hybrid.region_energies(positions).energies.sum())
    assert state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) == pytest.approx(
        expected, rel=1e-6
    )


def test_the_users_objects_are_not_touched():
    built = chains()
    system = copy.deepcopy(built.system)
    before = openmm.XmlSerializer.serialize(system)
    own = mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)
    mlmm.hybrid_system(own, zones_of(own), SpringPotential())
    assert openmm.XmlSerializer.serialize(system) == before


def test_a_hybrid_system_cannot_be_the_start_of_another():
    """Its TorchForce cannot be copied: OpenMM says so, and a sentence here says what to do."""
    built = chains()
    hybrid = mlmm.hybrid_system(built, zones_of(built), SpringPotential(), bridge="torchforce")
    with pytest.raises(openmm.OpenMMException):
        copy.deepcopy(hybrid.system)
    assert hybrid.create_system().getNumForces() == hybrid.system.getNumForces()
    with pytest.raises(
        EmbeddingError, match=r"TorchForce .*cannot be copied safely\. Build the hybrid system first"
    ):
        mlmm.BuiltSystem.from_openmm(built.topology, hybrid.system, built.positions)


def test_a_barostat_works_on_the_hybrid(tmp_path):
    built = chains(n_molecules=3)
    hybrid = mlmm.hybrid_system(built, zones_of(built), SpringPotential())
    stages = [
        mlmm.Minimise(max_iterations=20),
        mlmm.Produce("0.1 ps", ensemble="NPT", pressure="500 bar", timestep="1 fs"),
    ]
    run = mlmm.simulate(hybrid, tmp_path / "run", stages, platform="Reference", report_interval=10)
    volumes = np.genfromtxt(run.file("energies.csv"), delimiter=",", names=True, encoding="utf-8")["volume"]
    assert len(set(volumes)) > 1
    assert not any(isinstance(force, openmm.MonteCarloBarostat) for force in hybrid.system.getForces())


class Broken:
    """A model that returns something else than it should."""

    def __init__(self, result):
        self.spec = toy_spec("broken")
        self.result = result

    def atom_energies(self, structure):
        return self.result(structure)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (
            lambda s: mlmm.AtomEnergies(s.positions.sum()),
            r"energies of shape \(4,\), but got AtomEnergies with energies of shape \(\)",
        ),
        (lambda s: s.positions.sum(dim=1), "Return mlmm.AtomEnergies"),
        (lambda s: mlmm.AtomEnergies(s.positions.sum(dim=1) / 0.0), "finite energies"),
        (lambda s: mlmm.AtomEnergies(torch.full((4,), float("nan"))), "finite energies"),
    ],
)
def test_model_that_breaks_the_contract_is_rejected_when_built(result, message):
    built = chains()
    with pytest.raises(PotentialError, match=message):
        mlmm.hybrid_system(built, zones_of(built), Broken(result))


def test_torchforce_is_refused_for_a_model_without_torchscript():
    built = chains()
    with pytest.raises(PotentialError, match=r"plain springs, which has none\. Set bridge"):
        mlmm.hybrid_system(built, zones_of(built), PlainSprings(), bridge="torchforce")


def test_auto_falls_back_with_one_log_line(monkeypatch, caplog):
    """Where TorchForce does not work, auto goes on with PythonForce; an explicit wish is an error."""
    import mlmm.hybrid.bridge

    monkeypatch.setattr(mlmm.hybrid.bridge, "torchforce_problem", lambda: "ImportError: no openmmtorch here")
    built = chains()
    hybrid = mlmm.hybrid_system(built, zones_of(built), SpringPotential())
    assert hybrid.bridge == "pythonforce"
    warnings = [record.message for record in caplog.records if "PythonForce" in record.message]
    assert warnings == ["TorchForce does not work here (ImportError: no openmmtorch here): using PythonForce"]
    with pytest.raises(MissingPackageError, match=r"pip install torch==2\.9\.1 openmmtorch==1\.5"):
        mlmm.hybrid_system(built, zones_of(built), SpringPotential(), bridge="torchforce")


def test_openmm_may_be_imported_before_torch():
    """OpenMM loads its plugins when it is imported; openmm-torch's need torch's libraries by then."""
    code = "import openmm, mlmm.hybrid.bridge; print(mlmm.hybrid.bridge.torchforce_problem())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "None"
    assert printed.stderr == ""  # quiet, too


def test_charged_region_is_a_warning():
    built = chains()
    system = copy.deepcopy(built.system)
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    charge, sigma, epsilon = force.getParticleParameters(0)
    force.setParticleParameters(0, charge - 1 * unit.elementary_charge, sigma, epsilon)
    own = mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)
    hybrid = mlmm.hybrid_system(own, zones_of(own), SpringPotential())
    assert hybrid.charge == -1
    assert hybrid.warnings == ("the region has charge -1, which springs does not take into account",)


class Fails(PlainSprings):
    """A model that breaks down after a while."""

    calls = 0

    def atom_energies(self, structure):
        self.calls += 1
        if self.calls > 30:
            raise RuntimeError("the model gave up")
        return super().atom_energies(structure)


def test_an_error_in_the_model_stops_the_run(tmp_path):
    built = chains(box=None)
    hybrid = mlmm.hybrid_system(built, zones_of(built), Fails())
    with pytest.raises(SimulationError, match="the model gave up"):
        mlmm.simulate(hybrid, tmp_path / "run", [mlmm.Produce("1 ps")], platform="Reference")
    assert mlmm.RunDirectory(tmp_path / "run").state == "failed"
