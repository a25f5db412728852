"""Umbrella windows through the engine: exact profile, resuming, exchange, windows that are added."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bonded_pair import distance, exact_profile, pair_hybrid

import mlmm
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.dynamics.reporters import EnergyTable
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError
from mlmm.reactions.replica_exchange import exchanged
from mlmm.reactions.sampling_options import UmbrellaOptions
from mlmm.reactions.umbrella import Umbrella
from mlmm.reactions.umbrella_folder import analyse_folder, folder_samples
from mlmm.reactions.umbrella_plan import planned, scan_curvatures
from mlmm.reactions.umbrella_record import UmbrellaRecord
from mlmm.reactions.window_runs import production_values, task_runner
from mlmm.reactions.windows import Coordinate, Window, neighbours
from mlmm.units import GAS_CONSTANT

RANGE = {"variable": "d", "start": "0.22 nm", "end": "0.38 nm", "windows": 5, "bootstraps": 30}
RUN = {
    "timestep": "4 fs",
    "friction": "5 /ps",
    "platform": "Reference",
    "report_interval": 20,
    "trajectory_interval": 500,
    "checkpoint_interval": 200,
    "seed": 3,
}
PROTOCOL = {"minimise": 50, "equilibrate": "0.4 ps", "produce": "6 ps"}
#: Two windows in half a second.
BRIEF = {"minimise": 50, "equilibrate": "0.2 ps", "produce": "1.2 ps"}
NARROW = {"windows": 2, "start": "0.22 nm", "end": "0.26 nm", "bins": 6}


def umbrella(folder, *, protocol: dict | None = None, run: dict | None = None, **changes) -> Umbrella:
    return Umbrella(
        pair_hybrid,
        pair_hybrid().built,
        folder,
        UmbrellaOptions(**RANGE | changes),
        ProtocolOptions(**PROTOCOL | (protocol or {})),
        RunOptions(**RUN | (run or {})),
        [distance()],
    )


def sample(one: Umbrella, workers: int = 1):
    with task_runner(workers) as tasks:
        return one.sample(tasks)


def deviation(result) -> np.ndarray:
    """From the exact profile, in standard errors, for every bin but the reference."""
    profile = result.profile
    exact = exact_profile(profile.edges)
    off = profile.values - (exact - exact[profile.landmarks.reactant])
    known = profile.errors > 0
    return off[known] / profile.errors[known]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that was sampled in one go, and its result."""
    folder = tmp_path_factory.mktemp("umbrella") / "whole"
    return folder, sample(umbrella(folder))


def test_the_profile_is_exact_within_its_errors(whole):
    folder, result = whole
    assert np.abs(deviation(result)).max() < 4
    assert result.profile.errors.max() < 4
    assert len(UmbrellaRecord.read(folder).windows) == 5
    facts = json.loads((folder / "result.json").read_text())
    assert facts["barrier"] == list(result.profile.barrier)
    assert all(cost["simulated_ps"] == pytest.approx(6.4) for cost in facts["cost"])
    table = np.genfromtxt(folder / "profile.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["free_energy_kj_per_mol"], result.profile.values, rtol=1e-12)


def test_windows_start_from_their_neighbours(whole):
    """Only the window nearest to the structure as built is minimised; seeds all differ."""
    folder, _ = whole
    record = UmbrellaRecord.read(folder)
    runs = [RunDirectory(record.equilibration(window)).summary for window in record.windows]
    stages = [[stage["name"] for stage in run["stages"]] for run in runs]
    assert [len(names) for names in stages] == [2, 1, 1, 1, 1]
    seeds = {run["seed"] for run in runs}
    seeds |= {RunDirectory(record.production(w)).summary["seed"] for w in record.windows}
    assert len(seeds) == 10
    assert all(run["start"]["velocities"] == "kept" for run in runs[1:])
    assert runs[3]["start"]["run"] == str(record.equilibration(record.windows[2]).resolve())


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    """Profile of two windows that were sampled in one go."""
    folder = tmp_path_factory.mktemp("umbrella") / "brief"
    sample(umbrella(folder, protocol=BRIEF, **NARROW))
    return (folder / "profile.csv").read_bytes()


def test_a_killed_folder_goes_on_to_the_same_numbers(brief, tmp_path, monkeypatch):
    """Killed in an equilibration and in a production: the profile is the same to the last byte."""
    folder = tmp_path / "killed"
    write, calls = EnergyTable.write, [0]

    def dying(self, *arguments):
        calls[0] += 1
        if calls[0] in (4, 16):
            raise KeyboardInterrupt
        return write(self, *arguments)

    monkeypatch.setattr(EnergyTable, "write", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            sample(umbrella(folder, protocol=BRIEF, **NARROW))
        assert UmbrellaRecord.read(folder).state == "running"
    sample(umbrella(folder, protocol=BRIEF, **NARROW))
    assert (folder / "profile.csv").read_bytes() == brief
    assert UmbrellaRecord.read(folder).state == "finished"


def test_a_folder_is_made_longer(brief, tmp_path):
    """More production goes on where the windows are, with the numbers of a longer run from the start."""
    folder = tmp_path / "longer"
    sample(umbrella(folder, protocol=BRIEF | {"produce": "0.8 ps"}, **NARROW))
    assert (folder / "profile.csv").read_bytes() != brief
    sample(umbrella(folder, protocol=BRIEF, **NARROW))
    assert (folder / "profile.csv").read_bytes() == brief


def test_other_windows_are_refused(whole):
    with pytest.raises(ConfigError, match="centres, force constants"):
        sample(umbrella(whole[0], end="0.40 nm"))
    with pytest.raises(ConfigError, match="temperature"):
        sample(umbrella(whole[0], run={"temperature": "310 K"}))


@pytest.mark.slow
def test_exchange_keeps_the_profile(tmp_path):
    """Structures of neighbours are exchanged; the profile stays exact within its errors."""
    folder = tmp_path / "exchange"
    result = sample(umbrella(folder, exchange="1.2 ps"))
    facts = json.loads((folder / "result.json").read_text())
    assert facts["exchange"]["attempts"] == 8
    assert 0 < facts["exchange"]["accepted"] < 8
    assert np.abs(deviation(result)).max() < 4.5
    record = UmbrellaRecord.read(folder)
    for entry in record.exchanges:
        for k, source in enumerate(entry["sources"]):
            run = RunDirectory(record.production(record.windows[k], entry["segment"] + 1))
            before = record.production(record.windows[source], entry["segment"])
            assert run.summary["start"]["run"] == str(before.resolve())
    values = production_values(record.productions(record.windows[0]), "d")
    assert len(values) == 5 * 15


def test_a_missing_window_is_added(tmp_path):
    """Four stiff windows leave a gap at the barrier; what is added closes it."""
    folder = tmp_path / "gap"
    centres = ["0.22 nm", "0.24 nm", "0.26 nm", "0.32 nm", "0.34 nm"]
    changes = {
        "start": "",
        "end": "",
        "windows": 0,
        "centres": centres,
        "force_constant": "12000 kJ/mol/nm^2",
    }
    short = {"produce": "2.4 ps"}
    poor = sample(umbrella(folder, protocol=short, **changes))
    assert [gap[:2] for gap in poor.gaps] == [(0.26, 0.32)]
    result = sample(umbrella(folder, protocol=short, **changes, add=2))
    record = UmbrellaRecord.read(folder)
    assert 1 <= sum(window.added > 0 for window in record.windows) <= 2
    assert result.gaps == ()
    assert len(folder_samples(record)) == len(record.windows)


def test_windows_are_added_to_windows_that_exchange(tmp_path):
    """What older windows exchanged stays as it was; the new ones exchange among themselves only."""
    folder = tmp_path / "both"
    changes = {
        "start": "",
        "end": "",
        "windows": 0,
        "centres": ["0.24 nm", "0.26 nm", "0.32 nm"],
        "force_constant": "12000 kJ/mol/nm^2",
        "exchange": "0.4 ps",
        "protocol": {"minimise": 50, "equilibrate": "0.2 ps", "produce": "1.2 ps"},
    }
    sample(umbrella(folder, **changes))
    before = UmbrellaRecord.read(folder)
    sample(umbrella(folder, **changes, add=1))
    record = UmbrellaRecord.read(folder)
    assert [len(entry["sources"]) for entry in before.exchanges] == [3, 3]
    assert [entry["sources"] for entry in record.exchanges] == [
        [*entry["sources"], 3] for entry in before.exchanges
    ]
    for window in record.windows:
        assert len(record.productions(window)) == 3
        for segment in (2, 3):
            source = record.windows[record.exchanges[segment - 2]["sources"][record.windows.index(window)]]
            run = RunDirectory(record.production(window, segment))
            assert run.summary["start"]["run"] == str(record.production(source, segment - 1).resolve())


def test_analysing_again_changes_bins_only(whole):
    again = analyse_folder(whole[0], UmbrellaOptions(**RANGE | {"bins": 30}))
    assert len(again.profile.values) == 30
    analyse_folder(whole[0], UmbrellaOptions(**RANGE))


def test_structures_along_a_path_are_starts(tmp_path):
    """Each window begins at the model nearest to its centre, so that none has to be drawn there."""
    folder = tmp_path / "path"
    path = tmp_path / "path.pdb"
    from openmm import app

    built = pair_hybrid().built
    with path.open("w") as file:
        app.PDBFile.writeHeader(built.topology, file)
        for k, r in enumerate(np.linspace(0.2, 0.4, 11)):
            places = np.array([[0.0, 0.0, 0.0], [r, 0.0, 0.0]])
            app.PDBFile.writeModel(built.topology, places * 10, file, modelIndex=k + 1)
        app.PDBFile.writeFooter(built.topology, file)
    one = umbrella(folder, structures=str(path), windows=2, protocol={"minimise": 0, "produce": "0.8 ps"})
    sample(one)
    record = UmbrellaRecord.read(folder)
    for window, near in zip(record.windows, (0.22, 0.38), strict=True):
        places = RunDirectory(record.equilibration(window)).built_positions
        assert np.linalg.norm(places[1] - places[0]) == pytest.approx(near, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variable": ""}, "variable in"),
        ({"variable": "e"}, "a variable that is defined"),
        ({"windows": 1}, "two windows or more"),
        ({"centres": ["0.3 nm"]}, "both"),
        ({"start": "", "end": "", "windows": 0}, "neither"),
        ({"start": "-0.1 nm"}, "between 0"),
        ({"start": "1 degree"}, "length"),
        ({"force_constant": "-5 kJ/mol/nm^2"}, "above 0"),
        ({"force_constant": "5 kJ/mol/rad^2"}, "energy per length squared"),
    ],
)
def test_bad_plans_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        planned(UmbrellaOptions(**RANGE | changes), umbrella(tmp_path, **changes).variable, 300.0)


def test_windows_need_lengths(tmp_path):
    with pytest.raises(ConfigError, match="lengths of equilibration"):
        umbrella(tmp_path, protocol={"produce": "0 ps"})


def test_curvature_of_a_scan(tmp_path):
    """A parabola's is exact; a table without the variable is refused."""
    table = tmp_path / "scan.csv"
    rows = [f"{x},{-300 * (x - 0.3) ** 2}" for x in np.linspace(0.2, 0.4, 9)]
    table.write_text("\n".join(["d,energy", *rows]) + "\n")
    np.testing.assert_allclose(scan_curvatures(str(table), "d", np.array([0.25, 0.3])), -600, rtol=1e-6)
    options = UmbrellaOptions(**RANGE | {"scan": str(table)})
    windows = planned(options, distance(), 300.0)
    plain = planned(UmbrellaOptions(**RANGE), distance(), 300.0)
    assert windows[0].force_constant == pytest.approx(plain[0].force_constant + 600)
    with pytest.raises(ConfigError, match="columns e and energy"):
        scan_curvatures(str(table), "e", np.array([0.3]))
    table.write_text("\n".join(["d,energy", *rows[:4]]) + "\n")
    with pytest.raises(ConfigError, match="5 points or more"):
        scan_curvatures(str(table), "d", np.array([0.3]))


def test_curvature_of_a_scan_run(tmp_path):
    """The directory of a relaxed scan; one along another variable is refused."""
    x = np.linspace(0.2, 0.4, 9)
    np.savez(tmp_path / "result.npz", grid=x[:, None], profile=-300 * (x - 0.3) ** 2)
    (tmp_path / "run.json").write_text(json.dumps({"state": "finished", "result": {"variables": ["d"]}}))
    np.testing.assert_allclose(scan_curvatures(str(tmp_path), "d", np.array([0.25])), -600, rtol=1e-6)
    with pytest.raises(ConfigError, match="a scan along e alone"):
        scan_curvatures(str(tmp_path), "e", np.array([0.25]))


def test_variables_of_other_restraints_are_kept(tmp_path):
    """A wall of the run file acts in every window beside its bias."""
    wall = mlmm.Restraint("d", at="0.45 nm", force_constant="1000 kJ/mol/nm^2", shape="upper")
    one = umbrella(tmp_path / "wall", windows=2, protocol={"produce": "0.8 ps"})
    walled = Umbrella(
        one.make_hybrid, one.built, one.out, one.options, one.protocol, one.run, one.variables, [wall]
    )
    sample(walled)
    record = UmbrellaRecord.read(walled.out)
    facts = RunDirectory(record.production(record.windows[0])).summary
    assert "upper" in json.dumps(facts)


def test_exchange_is_that_of_detailed_balance():
    """Exchanged as often as exp(-Delta/kT) says; a favourable exchange always; none shares a window."""
    line = Coordinate("d", "nm")
    windows = [Window(0.1 * k, 500.0, k) for k in range(4)]
    pairs = neighbours(windows, line)
    values = np.array([0.02, 0.11, 0.25, 0.21])
    generator = np.random.default_rng(0)
    accepted = {(0, 1): 0, (1, 2): 0, (2, 3): 0}
    n = 4000
    for k in range(2 * n):
        sources, attempts = exchanged(windows, values, pairs, line, 300.0, generator, k)
        assert sorted(sources) == [0, 1, 2, 3]
        assert [entry["pair"] for entry in attempts] == ([[0, 1], [2, 3]] if k % 2 == 0 else [[1, 2]])
        for entry in attempts:
            accepted[tuple(entry["pair"])] += entry["accepted"]
    kt = GAS_CONSTANT * 300
    for (i, j), count in accepted.items():
        own = 250 * ((values[i] - 0.1 * i) ** 2 + (values[j] - 0.1 * j) ** 2)
        other = 250 * ((values[j] - 0.1 * i) ** 2 + (values[i] - 0.1 * j) ** 2)
        expected = min(1.0, np.exp(-(other - own) / kt))
        assert abs(count / n - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)
    assert accepted[2, 3] == n
    assert 0 < accepted[0, 1] < n


def test_segments_are_in_the_order_of_their_numbers(tmp_path):
    """1000 comes after 999, as it does not in text."""
    record = UmbrellaRecord(tmp_path, Coordinate("x"), 300.0, [Window(0.0, 1.0)])
    for number in (2, 1000, 999, 10):
        record.production(record.windows[0], number).mkdir(parents=True)
    names = [folder.name for folder in record.productions(record.windows[0])]
    assert names == ["production_002", "production_010", "production_999", "production_1000"]
