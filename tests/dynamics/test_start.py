"""Runs that branch from another one, and runs that become longer although NVE checks close them."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import openmm
import pytest
from runs import INTERVALS, CrashError, chain_hybrid, crash_at, results, run_in, stages
from toys import SpringPotential, chains

import mlmm
from mlmm.build import BuiltSystem
from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Minimise, NVECheck, Produce
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.units import GAS_CONSTANT
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

OPTIONS = {"platform": "Reference", "timestep": "0.5 fs"} | INTERVALS


def state_of(run: RunDirectory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, velocities and box at the last checkpoint."""
    state = openmm.XmlSerializer.deserialize(run.read_checkpoint().state)
    found = state.getPositions(asNumpy=True), state.getVelocities(asNumpy=True)
    return *(part._value for part in found), state.getPeriodicBoxVectors(asNumpy=True)._value


def frames(run: RunDirectory, atoms: int) -> np.ndarray:
    """Coordinates of the trajectory as its bytes hold them."""
    import mdtraj

    return mdtraj.load_dcd(str(run.file("trajectory.dcd")), top=str(run.file("topology.pdb"))).xyz[:, :atoms]


@pytest.fixture(scope="module")
def hybrid():
    """Without a box, where a step costs a hundredth."""
    return chain_hybrid(n_molecules=3)


@pytest.fixture(scope="module")
def source(tmp_path_factory, hybrid):
    return run_in(tmp_path_factory.mktemp("source") / "run", hybrid, "60 fs")


@pytest.fixture(scope="module")
def boxed():
    return chain_hybrid(box=2.1)


@pytest.fixture(scope="module")
def in_box(tmp_path_factory, boxed):
    """Constant pressure, so that the box is its own."""
    return run_in(tmp_path_factory.mktemp("source") / "run", boxed, "20 fs", ensemble="NPT")


# --- velocities kept ----------------------------------------------------------------------------------


def test_velocities_that_are_kept_go_on_along_the_same_path(tmp_path, hybrid):
    """NVE, where no random number enters: every bit, in both rows and frames. New velocities leave it."""
    nve = OPTIONS | {"ensemble": "NVE", "report_interval": 10}
    whole = simulate(hybrid, tmp_path / "whole", [Produce("60 fs")], **nve)
    first = simulate(hybrid, tmp_path / "first", [Produce("30 fs")], **nve)
    kept = mlmm.Start(first.path, velocities="kept")
    second = simulate(hybrid, tmp_path / "second", [Produce("30 fs")], start=kept, **nve)
    for mine, theirs in zip(state_of(second), state_of(whole), strict=True):
        assert np.array_equal(mine, theirs)
    rows = [
        list(csv.reader(run.file("energies.csv").read_text().splitlines())) for run in (first, second, whole)
    ]
    energies = [[row[3:] for row in table[1:]] for table in rows]
    assert energies[0] + energies[1] == energies[2] and len(energies[2]) == 12
    new = simulate(hybrid, tmp_path / "new", [Produce("30 fs")], start=first.path, **nve)
    assert not np.array_equal(state_of(new)[0], state_of(whole)[0])


def test_box_positions_and_velocities_are_those_of_the_checkpoint(tmp_path, boxed, in_box):
    """Before the first step, bit for bit; the box is the one that the barostat left."""
    kept = mlmm.Start(in_box.path, velocities="kept")
    with pytest.raises(CrashError):
        changes = OPTIONS | {"seed": 5, "progress": crash_at("produce", 1), "ensemble": "NPT"}
        simulate(boxed, tmp_path / "run", [Produce("5 fs")], start=kept, **changes)
    begun = RunDirectory(tmp_path / "run")
    assert begun.read_checkpoint().step == 0
    for mine, theirs in zip(state_of(begun), state_of(in_box), strict=True):
        assert np.array_equal(mine, theirs)
    assert not np.array_equal(state_of(begun)[2], boxed.built.box_vectors)
    # Resumed without saying where it began.
    resumed = simulate(boxed, begun.path, [Produce("5 fs")], resume=True, **OPTIONS | changes | NO_CRASH)
    changes = OPTIONS | {"seed": 5, "ensemble": "NPT"}
    straight = simulate(boxed, tmp_path / "straight", [Produce("5 fs")], start=kept, **changes)
    assert results(resumed) == results(straight)
    facts = resumed.summary["start"]
    assert facts["run"] == str(in_box.path.resolve()) and facts["velocities"] == "kept"
    assert (facts["stage"], facts["step"], facts["seed"], facts["frame"]) == ("produce", 40, 4, None)
    assert not resumed.summary["warnings"]


NO_CRASH = {"progress": None}


def test_a_branch_killed_before_its_first_checkpoint_starts_there_again(tmp_path, hybrid, source):
    kept = mlmm.Start(source.path, velocities="kept")
    options = OPTIONS | {"seed": 5}
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_):
            raise CrashError

        patch.setattr(BuiltSystem, "save", killed)
        with pytest.raises(CrashError):
            simulate(hybrid, tmp_path / "run", [Produce("20 fs")], start=kept, **options)
    again = simulate(hybrid, tmp_path / "run", [Produce("20 fs")], resume=True, **options)
    straight = simulate(hybrid, tmp_path / "straight", [Produce("20 fs")], start=kept, **options)
    assert results(again) == results(straight)


def test_a_branch_killed_before_it_has_a_record_is_given_its_start_again(tmp_path, hybrid, source):
    """Between the folder and its first file: the start may stand beside resume, as in a queue's script."""
    kept = mlmm.Start(source.path, velocities="kept")
    options = OPTIONS | {"seed": 5}
    with pytest.MonkeyPatch.context() as patch:

        def killed(*_):
            raise CrashError

        patch.setattr(RunDirectory, "write_summary", killed)
        with pytest.raises(CrashError):
            simulate(hybrid, tmp_path / "run", [Produce("20 fs")], start=kept, **options)
    assert not RunDirectory(tmp_path / "run").recorded
    again = simulate(hybrid, tmp_path / "run", [Produce("20 fs")], start=kept, resume=True, **options)
    straight = simulate(hybrid, tmp_path / "straight", [Produce("20 fs")], start=kept, **options)
    assert results(again) == results(straight)
    with pytest.raises(ConfigError, match="no start for a run that is resumed"):
        simulate(hybrid, again.path, [Produce("20 fs")], start=kept, resume=True, **options)


# --- velocities new -----------------------------------------------------------------------------------


def test_new_velocities_have_the_temperature_of_the_run(tmp_path, source, hybrid):
    """2 K / kT of eight draws is chi-squared with 8 x 3 N degrees of freedom: within 4 standard errors."""
    atoms = hybrid.built.n_atoms
    masses = np.array([hybrid.system.getParticleMass(i)._value for i in range(atoms)])
    start = state_of(source)
    found = {}
    for temperature in (300.0, 450.0):
        found[temperature] = []
        for seed in range(8):
            options = OPTIONS | {"seed": seed, "temperature": temperature, "ensemble": "NVE"}
            run = simulate(
                hybrid,
                tmp_path / f"{temperature}-{seed}",
                [Produce("0.001 fs")],
                start=source.path,
                **options | {"timestep": "0.001 fs"},
            )
            positions, velocities, _ = state_of(run)
            assert np.abs(positions - start[0]).max() < 1e-4
            assert np.abs(velocities - start[1]).max() > 0.1
            found[temperature].append((masses[:, None] * velocities**2).sum() / GAS_CONSTANT)
        freedom = 8 * 3 * atoms
        total, sigma = np.sum(found[temperature]), np.sqrt(2 * freedom)
        assert abs(total / temperature - freedom) < 4 * sigma
    # Half as much again is told apart.
    assert abs(np.sum(found[450.0]) / 300.0 - freedom) > 4 * sigma
    assert len(set(found[300.0])) == 8


def test_the_same_seed_is_warned_about_where_a_thermostat_acts(tmp_path, hybrid, source):
    for name, changes, expected in (
        ("same", {}, True),
        ("other", {"seed": 5}, False),
        ("nve", {"ensemble": "NVE"}, False),
    ):
        options = OPTIONS | changes
        run = simulate(hybrid, tmp_path / name, [Produce("10 fs")], start=source.path, **options)
        assert any("give another seed" in said for said in run.summary["warnings"]) is expected


# --- frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 4, -1])
def test_a_frame_of_the_trajectory(tmp_path, boxed, in_box, number):
    start = mlmm.Start(in_box.path, frame=number)
    options = OPTIONS | {"seed": 5, "timestep": "0.001 fs", "ensemble": "NVE"}
    run = simulate(boxed, tmp_path / "run", [Produce("0.001 fs")], start=start, **options)
    there = frames(in_box, boxed.built.n_atoms)
    positions, _, box = state_of(run)
    expected = there[number - 1 if number > 0 else number]
    np.testing.assert_allclose(positions, expected, atol=1e-5)
    assert np.abs(positions - there[1]).max() > 1e-3
    assert run.summary["start"]["frame"] == (number if number > 0 else len(there))
    # The barostat first moves after the first frame.
    assert box[0, 0] == pytest.approx(float(box[1, 1])) and bool(box[0, 0] != 2.1) is (number != 1)


def test_frames_are_read_without_a_word_of_another_program(tmp_path, hybrid, source, capfd):
    """A frame that is still being written does not count; a file without frames is a sentence."""
    copied = RunDirectory(shutil.copytree(source.path, tmp_path / "copy"))
    file = copied.file("trajectory.dcd")
    content, total = file.read_bytes(), len(DCDFrames(file, hybrid.built.n_atoms))

    def begin(name):
        start = mlmm.Start(copied.path, frame=-1)
        return simulate(hybrid, tmp_path / name, [Produce("5 fs")], start=start, **OPTIONS)

    file.write_bytes(content[:-30])
    assert begin("run").summary["start"]["frame"] == total - 1
    for kept, found in ((content[:276], "none yet"), (content[:100], "no DCD file"), (None, "got none")):
        file.unlink() if kept is None else file.write_bytes(kept)
        with pytest.raises(ConfigError, match=f"a trajectory with frames in .*{found}.*eave the frame out"):
            begin("refused")
    printed = capfd.readouterr()
    assert "dcdplugin" not in printed.out + printed.err


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"n_molecules": 2}, "12 atoms there, 8 here"),
        ({"n_molecules": 3, "box": 3.0}, "one has a periodic box, the other none"),
    ],
)
def test_a_run_of_another_system_is_refused_by_name(tmp_path, source, other, named):
    with pytest.raises(ConfigError, match=f"a run of the same system.*{source.path}: {named}"):
        simulate(chain_hybrid(**other), tmp_path / "run", [Produce("10 fs")], start=source.path, **OPTIONS)
    assert not list(tmp_path.glob("run/*"))


def test_other_elements_and_other_masses(tmp_path, hybrid, source):
    renamed = chains(n_molecules=3, box=None)
    atom = list(renamed.topology.atoms())[5]
    atom.name = "N1"
    zones = hard_zones(renamed, region_from_atoms(renamed.topology, range(4)))
    other = hybrid_system(renamed, zones, SpringPotential())
    with pytest.raises(ConfigError, match="atom 5 is CH12:C1 there, CH12:N1 here"):
        simulate(other, tmp_path / "run", [Produce("10 fs")], start=source.path, **OPTIONS)
    heavy = chains(n_molecules=3, box=None)
    heavy.system.setParticleMass(5, 14.0)
    other = hybrid_system(heavy, hard_zones(heavy, zones.region), SpringPotential())
    kept = mlmm.Start(source.path, velocities="kept")
    with pytest.raises(ConfigError, match=r"equal masses.*Take new velocities"):
        simulate(other, tmp_path / "run", [Produce("10 fs")], start=kept, **OPTIONS)
    # The advice holds.
    assert simulate(other, tmp_path / "run", [Produce("10 fs")], start=source.path, **OPTIONS)


def test_what_cannot_be_a_start(tmp_path, hybrid, source):
    kept = mlmm.Start(source.path, velocities="kept")
    for start, changes, said in (
        (kept, {"stages": stages()}, r"velocities are kept.*minimise. Set run.minimise = 0"),
        (mlmm.Start(source.path, frame=13), {}, r"a frame from 1 to 12 .*13\. Give another"),
        (mlmm.Start(source.path, frame=0), {}, "a frame from 1 to 12"),
        (tmp_path / "none", {}, "readable run.json"),
        (source.path, {"out": source.path, "overwrite": True}, "another folder"),
        (source.path, {"out": source.path, "resume": True}, "no start for a run that is resumed"),
    ):
        call = {"out": tmp_path / "run", "stages": [Produce("10 fs")]} | changes
        with pytest.raises(ConfigError, match=said):
            simulate(hybrid, call.pop("out"), call.pop("stages"), start=start, **OPTIONS | call)
    with pytest.raises(ConfigError, match="velocities new or kept"):
        mlmm.Start(source.path, velocities="old")
    with pytest.raises(ConfigError, match="which holds none"):
        mlmm.Start(source.path, frame=1, velocities="kept")
    assert source.state == "finished" and len(frames(source, 12)) == 12


# --- longer, with NVE checks at the end ---------------------------------------------------------------


def plan(length: str, nve: str = "10 fs") -> list:
    return [Minimise(max_iterations=5), Equilibrate("10 fs"), Produce(length), NVECheck(nve)]


@pytest.mark.parametrize("report_interval", [4, 7])
def test_a_run_that_ends_with_an_nve_check_becomes_longer(tmp_path, hybrid, report_interval):
    """The check is repeated from the new end; every bit is that of a run of that length; nothing is lost."""
    options = OPTIONS | {"report_interval": report_interval}
    whole = simulate(hybrid, tmp_path / "whole", plan("40 fs"), **options)
    part = simulate(hybrid, tmp_path / "part", plan("15 fs"), **options)
    before = part.file("energies.csv").read_text()
    # Twice; the second time with a crash right after it began, and one within.
    simulate(hybrid, part.path, plan("25 fs"), resume=True, **options)
    assert part.state == "finished"
    assert part.file("replaced/energies.1.csv").read_text() == before
    for stage, step in (("produce", 50), ("nve", 4)):
        with pytest.raises(CrashError):
            changes = options | {"resume": True, "progress": crash_at(stage, step)}
            simulate(hybrid, part.path, plan("40 fs"), **changes)
    longer = simulate(hybrid, part.path, plan("40 fs"), resume=True, **options)
    assert results(longer) == results(whole)
    assert [stage["name"] for stage in longer.summary["stages"]] == [stage.name for stage in plan("40 fs")]
    assert longer.summary["plan"] == whole.summary["plan"]
    assert sorted(path.name for path in longer.file("replaced").iterdir()) == [
        "energies.1.csv",
        "energies.2.csv",
    ]


def test_the_check_alone_becomes_longer_too(tmp_path, hybrid):
    whole = simulate(hybrid, tmp_path / "whole", plan("10 fs", "20 fs"), **OPTIONS)
    part = simulate(hybrid, tmp_path / "part", plan("10 fs"), **OPTIONS)
    longer = simulate(hybrid, part.path, plan("10 fs", "20 fs"), resume=True, **OPTIONS)
    assert results(longer) == results(whole) and not longer.file("replaced").exists()


def test_a_finished_run_says_what_is_possible(tmp_path, hybrid):
    part = simulate(hybrid, tmp_path / "part", plan("10 fs"), **OPTIONS)
    with pytest.raises(ConfigError) as refused:
        simulate(hybrid, part.path, plan("10 fs"), resume=True, **OPTIONS)
    for said in ('--set run.produce="…"', "more than the 0.01 ps", f"--from {part.path} --out"):
        assert said in str(refused.value)
    with pytest.raises(ConfigError, match=r"produce\.length = 0\.005 .*produce alone may become longer"):
        simulate(hybrid, part.path, plan("5 fs"), resume=True, **OPTIONS)
    part.file("checkpoint.before_nve.zip").unlink()
    with pytest.raises(ConfigError, match=r"checkpoint.before_nve.zip, from which.*--from"):
        simulate(hybrid, part.path, plan("20 fs"), resume=True, **OPTIONS)
    assert json.loads(part.file("run.json").read_text())["state"] == "finished"
