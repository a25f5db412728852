"""Restraints in runs: columns, stages, conservation, constant pressure, resuming."""

from __future__ import annotations

import csv
import math

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from runs import CrashError, chain_hybrid, crash_at, results, run_in
from toys import SpringPotential, chains, evaluate, reference_context

import mlmm
from mlmm.collective_variables.values import bias_energy, value
from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Minimise, NVECheck, Produce
from mlmm.dynamics.start import Start
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

#: Atoms 0 to 3 are the region, 4 to 7 force field.
ACROSS = mlmm.Variable("d", "distance", [[1], [6]])
INSIDE = mlmm.Variable("phi", "torsion", [[0], [1], [2], [3]])
OUTSIDE = mlmm.Variable("theta", "angle", [[4], [5], [7]])
PLACES = mlmm.Variable("places", "position", [[4, 5, 6, 7]])
RESTRAINTS = [
    mlmm.Restraint(ACROSS, "0.4 nm", "2000 kJ/mol/nm^2"),
    mlmm.Restraint(INSIDE, "90 degree", "100 kJ/mol/rad^2"),
    mlmm.Restraint(OUTSIDE, "120 degree", "200 kJ/mol/rad^2", "upper"),
    mlmm.Restraint(PLACES, force_constant="1000 kJ/mol/nm^2", stages=["equilibrate"]),
]


def rows_of(run, stage: str | None = None) -> list[dict[str, str]]:
    with run.file("energies.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if stage in (None, row["stage"])]


#: A box that is quick on the Reference platform.
SMALL = {"box": 1.5, "cutoff": 0.7}


def restrained(box: dict | None = None):
    return chain_hybrid(**box or {}).restrained(RESTRAINTS)


@pytest.fixture
def frames(monkeypatch) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Stage, positions and box of every row of the energy table, in full precision."""
    seen, write = [], EnergyTable.write

    def watched(self, stage, step, time, now):
        seen.append((stage, now.positions, now.box))
        write(self, stage, step, time, now)

    monkeypatch.setattr(EnergyTable, "write", watched)
    return seen


@pytest.mark.parametrize(
    ("box", "changes"), [({}, {}), (SMALL, {"ensemble": "NPT"}), (SMALL, {"nonbonded_every": 2})]
)
def test_columns_are_those_of_the_other_twin(tmp_path, frames, box, changes):
    """Bias and variables at every row by torch, potential by the hybrid without bias: 1e-9 of it."""
    hybrid = restrained(box)
    run = run_in(tmp_path / "run", hybrid, "16 fs", **changes)
    plain = reference_context(chain_hybrid(**box).system)
    rows = rows_of(run)
    assert len(rows) == len(frames) >= 6
    for row, (stage, positions, vectors) in zip(rows, frames, strict=True):
        where, cell = torch.tensor(positions), torch.tensor(vectors) if box else None
        expected = float(bias_energy(hybrid.biases, where, cell, stage))
        assert float(row["E_bias"]) == pytest.approx(expected, rel=1e-9, abs=1e-10)
        assert expected > 1e-3
        for variable in hybrid.biases.variables:
            assert float(row[variable.name]) == float(value(variable, where, cell))
        if box:
            plain.setPeriodicBoxVectors(*vectors)
        unbiased, _ = evaluate(plain, positions)
        assert float(row["potential"]) == pytest.approx(unbiased, rel=1e-9, abs=1e-9)
        parts = [float(row[name]) for name in ("potential", "E_bias", "kinetic")]
        assert float(row["total"]) == pytest.approx(math.fsum(parts), rel=1e-12)
    if "ensemble" in changes:
        assert len({row["volume"] for row in rows}) > 1


def test_values_belong_to_the_frames_of_the_trajectory(tmp_path):
    """What a colleague computes later from the files, in their single precision."""
    hybrid = restrained()
    run = run_in(tmp_path / "run", hybrid, report_interval=10)
    xyz = mdtraj.load(str(run.file("trajectory.dcd")), top=str(run.file("topology.pdb"))).xyz
    rows = rows_of(run, "produce")
    assert len(xyz) == len(rows) == 8
    for row, frame in zip(rows, xyz, strict=True):
        for variable in hybrid.biases.variables:
            if variable.kind != "position":  # frames are centred on the region
                assert float(row[variable.name]) == pytest.approx(
                    float(value(variable, torch.tensor(frame.astype(np.float64)))), abs=1e-4
                )


def test_a_restraint_acts_in_its_stages_alone(tmp_path, frames):
    """In equilibrate with the places, in produce without them."""
    hybrid = restrained()
    rows = rows_of(run_in(tmp_path / "run", hybrid))
    for row, (stage, positions, _) in zip(rows, frames, strict=True):
        both = [
            float(bias_energy(hybrid.biases, torch.tensor(positions), stage=s))
            for s in ("equilibrate", "produce")
        ]
        assert both[0] > both[1] + 1e-4
        assert float(row["E_bias"]) == pytest.approx(both[stage == "produce"], rel=1e-9)
    assert {row["stage"] for row in rows} == {"equilibrate", "produce"}


@pytest.mark.parametrize("variable", [ACROSS, INSIDE, OUTSIDE, PLACES], ids=lambda v: v.name)
def test_energy_is_conserved_with_its_bias(tmp_path, variable):
    """NVE on the Reference platform: the total of the table varies by 2 % of the bias's own changes."""
    at = {} if variable is PLACES else {"at": {"d": 0.45, "phi": 1.2, "theta": 1.5}[variable.name]}
    restraint = mlmm.Restraint(variable, force_constant=800.0, **at)
    run = run_in_stages(tmp_path / "run", [restraint], [Minimise(max_iterations=20), NVECheck("0.2 ps")])
    columns = {
        name: np.array([float(row[name]) for row in rows_of(run, "nve")]) for name in ("total", "E_bias")
    }
    assert columns["E_bias"].std() > 0.1
    assert columns["total"].std() < 0.02 * columns["E_bias"].std()
    # Control: without the bias the sum is not conserved.
    assert (columns["total"] - columns["E_bias"]).std() > 0.5 * columns["E_bias"].std()


def run_in_stages(folder, restraints, stages):
    options = {"platform": "Reference", "timestep": "0.1 fs", "report_interval": 10, "seed": 3}
    return mlmm.simulate(chain_hybrid(), folder, stages, restraints=restraints, **options)


def test_the_distance_goes_where_it_is_pulled(tmp_path):
    """A stiff restraint across the boundary, minimised: the rest gives way."""
    found = []
    for at in ("0.45 nm", "0.65 nm"):
        stiff = mlmm.Restraint(ACROSS, at, "1e6 kJ/mol/nm^2")
        stages = [Minimise(max_iterations=500, tolerance=1.0), Produce("1 fs", temperature="1 K")]
        found.append(float(rows_of(run_in_stages(tmp_path / at, [stiff], stages))[-1]["d"]))
    assert found == pytest.approx([0.45, 0.65], abs=2e-3)


@pytest.mark.parametrize("changes", [{}, {"ensemble": "NPT", "checkpoint_interval": 9}])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, changes):
    """Bit for bit, with places that follow the box, killed in the stage with them and in the one without."""
    box, length = (SMALL, "20 fs") if changes else ({}, "40 fs")
    whole = run_in(tmp_path / "whole", restrained(box), length, **changes)
    for stage, step in (("equilibrate", 19), ("produce", 30)):
        going_on = {"progress": crash_at(stage, step), "resume": stage == "produce"} | changes
        with pytest.raises(CrashError):
            run_in(tmp_path / "part", restrained(box), length, **going_on)
    part = run_in(tmp_path / "part", restrained(box), length, resume=True, **changes)
    assert results(part) == results(whole)
    if changes:
        assert part.summary["barostat"]["changes"] > 0
    else:
        assert results(run_in(tmp_path / "free", length=length)) != results(whole)


def test_other_restraints_are_refused_by_name(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CrashError):
        run_in(folder, restrained(), progress=crash_at("produce", 30))
    first, *others = RESTRAINTS
    for changed, named in (
        (
            [mlmm.Restraint(ACROSS, "0.41 nm", "2000 kJ/mol/nm^2"), *others],
            r"restraint.d.at = 0.41 \(the run: 0.4\)",
        ),
        ([mlmm.Restraint(ACROSS, "0.4 nm", 1999.0), *others], "restraint.d.force_constant = 1999"),
        ([first], "variable.phi.kind = none"),
        ([], "restraint.d.at = none"),
        ([*RESTRAINTS, mlmm.Restraint("d", 0.2, 10.0, "lower")], "restraint.d_2.at = 0.2"),
        (
            [mlmm.Restraint(mlmm.Variable("d", "distance", [[1], [7]]), 0.4, 2000.0), *others],
            "variable.d.groups",
        ),
    ):
        with pytest.raises(ConfigError, match=named):
            run_in(folder, chain_hybrid(), resume=True, restraints=changed)
    assert run_in(folder, chain_hybrid(), resume=True, restraints=RESTRAINTS).state == "finished"


def test_a_run_records_its_restraints_and_follows_free_variables(tmp_path):
    contacts = mlmm.Variable("n", "coordination", [[0], [4, 5]], contact_distance="0.3 nm")
    run = run_in(tmp_path / "run", restraints=RESTRAINTS[1:3], variables=[contacts])
    facts = run.summary
    assert [(v["name"], v["unit"]) for v in facts["variables"]] == [
        ("n", ""),
        ("phi", "rad"),
        ("theta", "rad"),
    ]
    assert facts["restraints"][0] == {
        "name": "phi",
        "variable": "phi",
        "kind": "torsion",
        "shape": "harmonic",
        "at": pytest.approx(math.pi / 2),
        "unit": "rad",
        "force_constant": 100.0,
        "force_constant_unit": "kJ/mol/rad^2",
        "stages": [],
    }
    assert all(0 < float(row["n"]) < 2 for row in rows_of(run))
    assert run_in(tmp_path / "free").summary["restraints"] == []
    assert "E_bias" not in rows_of(run_in(tmp_path / "plain"))[0]


def test_what_a_run_cannot_have_is_refused_before_it_begins(tmp_path):
    hybrid = chain_hybrid()
    restraint = mlmm.Restraint(ACROSS, 0.4, 100.0, stages=["heat"])
    with pytest.raises(
        ConfigError, match=r"restraint on d that the run has, but got 'heat'. Choose of minimise"
    ):
        run_in(tmp_path / "run", hybrid, restraints=[restraint])
    taken = mlmm.Variable("temperature", "distance", [[1], [6]])
    with pytest.raises(ConfigError, match=r"no column of energies.csv has, but got temperature"):
        run_in(tmp_path / "run", hybrid, variables=[taken])
    with pytest.raises(ConfigError, match="restraints beside variables"):
        run_in(tmp_path / "run", restrained(), variables=[ACROSS])
    built = chains(**SMALL)
    built.system.addForce(openmm.MonteCarloBarostat(1.0, 300.0))
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    own = hybrid_system(built, zones, SpringPotential(), restraints=[RESTRAINTS[-1]])
    with pytest.raises(
        ConfigError, match=r'but got MonteCarloBarostat\. Remove it, and write ensemble = "NPT"'
    ):
        run_in(tmp_path / "run", own)
    assert not (tmp_path / "run").exists()


def test_a_bias_that_came_with_the_system_has_the_same_group(tmp_path):
    """Kept whole at the user's wish: its energy stands in E_bias, not in that of the hybrid."""
    built = chains()
    own = openmm.CustomCentroidBondForce(2, "100*distance(g1,g2)^2")
    for group in ([0], [6]):
        own.addGroup(group)
    own.addBond([0, 1], [])
    built.system.addForce(own)
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    hybrid = hybrid_system(built, zones, SpringPotential(), keep=["CustomCentroidBondForce"])
    assert hybrid.force_groups["bias"] == 7
    squared = np.square(built.positions[6] - built.positions[0]).sum()
    energy, _ = evaluate(reference_context(hybrid.system), built.positions, 1 << 7)
    assert energy == pytest.approx(100 * squared)
    both = hybrid.restrained([mlmm.Restraint(ACROSS, 0.0, 10.0)])
    distance = np.linalg.norm(built.positions[6] - built.positions[1])
    energy, _ = evaluate(reference_context(both.system), built.positions, 1 << 7)
    assert energy == pytest.approx(100 * squared + 5 * distance**2)
    # Another System of the same hybrid has the restraint, too, and the original keeps to itself.
    assert (
        both.create_system().getNumForces() == both.system.getNumForces() == hybrid.system.getNumForces() + 1
    )
    assert not hybrid.biases and both.biases.restraints[0].variable.groups == ((1,), (6,))


def test_the_check_sees_the_bias():
    """Finite differences on restrained atoms; a force that is no gradient of its energy is found."""
    from mlmm.validation.check import finite_difference_error

    hybrid = restrained()
    assert finite_difference_error(hybrid, n_coordinates=30) < 1e-6
    report = mlmm.check(hybrid, nve_length="0 ps")
    assert report.passed and mlmm.check(restrained(SMALL), nve_length="0 ps").passed
    # OpenMM takes the gradient of floor to be 0: an energy with a force that is not its slope.
    wrong = openmm.CustomBondForce("1e5*floor(1e5*r)/1e5")
    wrong.addBond(5, 6)
    hybrid.system.addForce(wrong)
    assert finite_difference_error(hybrid, n_coordinates=30) > 1e-3


def test_a_window_starts_where_its_neighbour_is(tmp_path):
    """Another target, the places of the structure as built; a centred frame has lost those."""
    first = run_in(tmp_path / "first", restrained(SMALL), "2 fs")
    target = mlmm.Restraint(ACROSS, "0.5 nm", "2000 kJ/mol/nm^2")
    window = chain_hybrid(**SMALL).restrained([target, *RESTRAINTS[1:]])
    second = run_in(tmp_path / "second", window, "2 fs", start=first.path)
    facts = [run.summary["settings"] for run in (first, second)]
    assert [settings["restraint.d.at"] for settings in facts] == pytest.approx([0.4, 0.5])
    assert facts[0]["variable.places.references"] == facts[1]["variable.places.references"]
    with pytest.raises(ConfigError, match="got frame -1, which is centred on the region"):
        run_in(tmp_path / "third", window, "2 fs", start=Start(first.path, frame=-1))
    assert not (tmp_path / "third").exists()


def test_frames_without_a_box_keep_their_places(tmp_path):
    """A restraint on places has the energy in the branch that it had in the frame, and another one moved."""
    hybrid = chain_hybrid().restrained([mlmm.Restraint(PLACES, force_constant="1000 kJ/mol/nm^2")])
    first = run_in(tmp_path / "first", hybrid, "10 fs")
    options = {"platform": "Reference", "timestep": "0.001 fs", "seed": 5, "report_interval": 1}
    start = Start(first.path, frame=-1)
    second = simulate(hybrid, tmp_path / "second", [Produce("0.001 fs")], start=start, **options)
    then, now = (float(rows_of(run, "produce")[-1]["E_bias"]) for run in (first, second))
    assert then > 1e-3 and now == pytest.approx(then, rel=1e-3)
    xyz = torch.tensor(DCDFrames(first.file("trajectory.dcd"), hybrid.built.n_atoms)[-1][0])
    energies = [float(bias_energy(hybrid.biases, xyz + shift, stage="produce")) for shift in (0.0, 0.01)]
    assert energies[0] == pytest.approx(then, rel=1e-3) and abs(energies[1] - then) > 0.1
