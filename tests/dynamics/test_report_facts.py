"""What a run records for its report: distances, masses, stages with frames, two drifts."""

from __future__ import annotations

import json

import numpy as np
import openmm
import pytest
from frames import make_topology, start_positions
from runs import chain_hybrid, run_in
from toys import PlainSprings, SpringPotential, Swirl

from mlmm.build import BuiltSystem
from mlmm.dynamics.drift import measure_drift
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Minimise, NVECheck, Produce
from mlmm.errors import ConfigError, SelectionError
from mlmm.hybrid.system import hybrid_system
from mlmm.report import read_record
from mlmm.statistics import drift_limit
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

_DISTANCES = {"ends": ["name C0 and resname CH0", "name C3 and resname CH0"], "all": ["resname CH1", "all"]}


def test_distances_are_recorded_as_atoms_and_followed(tmp_path):
    """The report measures them in the frames, without the selections."""
    run = run_in(tmp_path / "run", distances=_DISTANCES)
    facts = run.summary["distances"]
    assert facts["ends"] == {"selections": _DISTANCES["ends"], "atoms": [[0], [3]]}
    assert facts["all"]["atoms"][0] == [4, 5, 6, 7]
    record = read_record(run.path)
    series = record.series
    assert list(series.distances) == ["ends", "all"] and len(series.times) == series.frames == 8
    positions, _ = record.frames.trajectory[7]
    assert series.distances["ends"][7] == pytest.approx(np.linalg.norm(positions[3] - positions[0]), abs=1e-6)
    # Equilibration of 10 fs, then every tenth step of 0.5 fs.
    np.testing.assert_allclose(series.times, 0.01 + 0.005 * np.arange(1, 9))


def test_a_wrong_selection_ends_before_anything_is_written(tmp_path):
    for selections, message in (
        (["name C0", "resname XYZ"], "for distance 'x', but got 'resname XYZ', which matches none"),
        (["name C0", "resname =="], "mdtraj's language for distance 'x'"),
    ):
        with pytest.raises(SelectionError, match=message):
            run_in(tmp_path / "run", distances={"x": selections})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="a name to two texts"):
        RunOptions(distances={"x": ["name C0"]})


def test_a_resumed_run_may_follow_other_distances(tmp_path):
    """They change nothing of the run itself."""
    run_in(tmp_path / "run", distances=_DISTANCES)
    longer = run_in(
        tmp_path / "run", length="60 fs", resume=True, distances={"other": ["name C1", "name C2"]}
    )
    assert list(longer.summary["distances"]) == ["other"]
    record = read_record(longer.path)
    assert list(record.series.distances) == ["other"] and len(record.series.times) == 12


def test_the_plan_says_which_stages_write_frames(tmp_path):
    run = run_in(tmp_path / "run")
    found = {stage["name"]: stage.get("trajectory") for stage in run.summary["plan"]}
    assert found == {"minimise": None, "equilibrate": False, "produce": True}
    assert run.summary["trajectory_interval"] == 10


def test_mass_and_water_are_recorded(tmp_path):
    """A peptide, three carbons and twelve waters; what makes a density."""
    topology, system = make_topology(), openmm.System()
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    built = BuiltSystem.from_openmm(topology, system, start_positions(topology))
    zones = hard_zones(built, region_from_atoms(topology, range(30, 33)))
    hybrid = hybrid_system(built, zones, SpringPotential())
    run = simulate(hybrid, tmp_path / "run", [Produce("1 fs")], platform="Reference", timestep="0.5 fs")
    facts = run.summary["system"]
    total = sum(atom.element.mass._value for atom in topology.atoms())
    assert facts["mass_amu"] == pytest.approx(total)
    assert facts["water_mass_fraction"] == pytest.approx(12 * (15.99943 + 2 * 1.007947) / total)


@pytest.mark.parametrize(("potential", "kept"), [(PlainSprings(), True), (Swirl(20.0), False)])
def test_drift_beside_that_of_the_force_field(tmp_path, potential, kept):
    """Both conserve their energy; a force that is no gradient shows in the hybrid alone."""
    hybrid = chain_hybrid(potential, n_molecules=3)
    # Relaxed and cold, so that no two atoms of these chains meet.
    stages = [Minimise(), Equilibrate("0.2 ps"), NVECheck("2 ps")]
    options = RunOptions(
        timestep="0.5 fs", temperature="30 K", platform="Reference", seed=2, report_interval=20
    )
    run = simulate(hybrid, tmp_path / "run", stages, options)
    drift = run.summary["drift"]
    alone = drift["force_field"]
    assert alone["length_ps"] == 2.0 and abs(alone["kj_per_mol_per_ns_per_dof"]) < 5.0
    limit = drift_limit(alone["kj_per_mol_per_ns_per_dof"], alone["standard_error"], drift["standard_error"])
    assert (abs(drift["kj_per_mol_per_ns_per_dof"]) <= limit) is kept
    (found,) = [j for j in read_record(run.path).verdict.judgements if j.name == "energy drift"]
    assert (found.level in ("ok", "unknown")) is kept and "the force field alone" in found.finding


def test_a_stop_ends_the_force_field_too(tmp_path):
    hybrid = chain_hybrid(n_molecules=3)
    options = RunOptions(timestep="0.5 fs", platform="Reference", report_interval=20)
    stages = [Equilibrate("10 fs"), NVECheck("0.5 ps")]
    run = simulate(hybrid, tmp_path / "run", stages, options)
    assert run.summary["drift"]["force_field"]["length_ps"] == 0.5
    context = openmm.Context(
        hybrid.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(hybrid.built.positions)
    stage = stages[1].under(options)
    seen = []

    def half(done, total):
        seen.append(total)
        return done < total / 2

    stopped = measure_drift(hybrid, stage, run, context, options, half)
    assert stopped["force_field"] is None and set(seen) == {2000} and len(seen) == 20
    assert json.dumps(stopped)  # a record of plain values


def test_a_short_stage_has_nothing_to_be_held_against(tmp_path):
    options = RunOptions(timestep="0.5 fs", platform="Reference", report_interval=2)
    run = simulate(chain_hybrid(), tmp_path / "run", [NVECheck("0.4 ps")], options)
    assert run.summary["drift"]["standard_error"] > 0 and run.summary["drift"]["force_field"] is None


def test_a_resumed_drift_is_that_of_an_uninterrupted_run(tmp_path):
    """Of the force field too: it goes on from where the stage ended."""
    hybrid, found = chain_hybrid(n_molecules=2), []
    options = {
        "platform": "Reference",
        "timestep": "0.5 fs",
        "report_interval": 20,
        "checkpoint_interval": 10,
    }
    stages = [Equilibrate("10 fs"), NVECheck("0.5 ps")]

    def stop(now):
        if now.stage == "nve" and now.done >= 20:
            raise KeyboardInterrupt

    found.append(simulate(hybrid, tmp_path / "whole", stages, **options).summary["drift"])
    with pytest.raises(KeyboardInterrupt):
        simulate(hybrid, tmp_path / "part", stages, progress=stop, **options)
    found.append(simulate(hybrid, tmp_path / "part", stages, resume=True, **options).summary["drift"])
    assert found[0] == found[1] and found[0]["force_field"] is not None
