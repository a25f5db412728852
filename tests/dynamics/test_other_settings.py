"""A run goes on with its own settings only, and its last stage may become longer."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import openmm
import pytest
from runs import INTERVALS, CrashError, chain_hybrid, crash_at, results, run_in, stages
from toys import SpringPotential, chains

import mlmm
from mlmm.dynamics.fingerprint import _FREE_OPTIONS, _FREE_SPEC, differences, same_force_field, settings_of
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Equilibrate, Minimise, NVECheck, Produce
from mlmm.dynamics.uncertainty import UncertaintyLimits, UncertaintyMonitor
from mlmm.errors import ConfigError
from mlmm.hybrid.spec import HybridSpec

#: Another value for every option; an option that is missing here fails the test below.
OTHER = {
    "timestep": "0.4 fs",
    "nonbonded_every": 2,
    "reciprocal_every": 2,
    "temperature": "310 K",
    "friction": "5 /ps",
    "ensemble": "NVE",
    "pressure": "2 bar",
    "seed": 5,
    "platform": "CPU",
    "threads": 1,
    "unstable": "warn",
    "distances": {"ends": ("index 0", "index 3")},
    "report_interval": 5,
    "trajectory_interval": 11,
    "checkpoint_interval": 26,
    "title": "another title",
}


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crashed") / "run"
    with pytest.raises(CrashError):
        run_in(folder, progress=crash_at("produce", 30))
    return RunDirectory(folder)


@pytest.mark.parametrize("name", [entry.name for entry in dataclasses.fields(RunOptions)])
def test_every_option_is_compared(crashed, name):
    """Each one that decides the result is refused by name; how it is carried out is free."""
    hybrid = chain_hybrid()
    given = {"platform": "Reference", "timestep": "0.5 fs"} | INTERVALS
    if name == "pressure":  # without NPT it is refused as such
        given["ensemble"] = "NPT"
    found = []
    for changes in (given, given | {name: OTHER[name]}):
        options = RunOptions(**changes)
        filled = [stages()[0], *(stage.under(options) for stage in stages()[1:])]
        monitor = UncertaintyMonitor(hybrid)
        found.append(settings_of(hybrid, filled, options, monitor, hybrid.built.positions))
    assert differences(found[0], json.loads(json.dumps(found[0]))) == []
    assert bool(differences(*found)) is (name not in _FREE_OPTIONS)
    if name not in _FREE_OPTIONS:
        refusal = "pressure" if name == "pressure" else rf"Expected the settings of the run.*\.{name} = "
        with pytest.raises(ConfigError, match=refusal):
            run_in(crashed.path, resume=True, **{name: OTHER[name]})


def test_every_field_of_a_hybrid_is_compared_or_free():
    hybrid = chain_hybrid()
    options = RunOptions()
    found = settings_of(hybrid, [], options, UncertaintyMonitor(hybrid), hybrid.built.positions)
    # Restraints are compared by name: test_restraints_in_runs.
    elsewhere = {"built", "zones", "potential", "compensation", "biases"}
    for entry in dataclasses.fields(HybridSpec):
        assert f"embedding.{entry.name}" in found or entry.name in elsewhere | _FREE_SPEC
    for entry in dataclasses.fields(hybrid.potential.spec):
        assert f"potential.{entry.name}" in found or entry.name in ("licence", "citation")


class Renamed(SpringPotential):
    def __init__(self):
        super().__init__()
        self.spec = dataclasses.replace(self.spec, name="other springs")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: chain_hybrid(Renamed()), "potential.name = other springs"),
        (lambda: chain_hybrid(SpringPotential(k=1001.0)), "potential.energy"),
        (lambda: chain_hybrid(cutoff=0.9, box=3.0), "another force field"),
        (lambda: chain_hybrid(n_molecules=3), "another force field"),
    ],
)
def test_another_potential_or_force_field_is_refused(crashed, other, named):
    with pytest.raises(ConfigError, match=named):
        run_in(crashed.path, other(), resume=True)


def test_limits_on_the_uncertainty_are_compared(crashed):
    hybrid = chain_hybrid()
    monitor = UncertaintyMonitor(hybrid, UncertaintyLimits(action="save"), interval=3)
    with pytest.raises(ConfigError, match=r"uncertainty.action = save.*uncertainty.interval = 3"):
        run_in(crashed.path, hybrid, resume=True, monitor=monitor)


def test_members_of_a_committee_are_told_apart(tmp_path, dipeptide_vacuum):
    """Two members of eight, the same number, the same name: their weights differ."""
    region = mlmm.select_region(dipeptide_vacuum, "all")
    zones = mlmm.hard_zones(dipeptide_vacuum, region)
    hybrids = [
        mlmm.hybrid_system(
            dipeptide_vacuum, zones, mlmm.load_potential("ani1x", members=members), scheme="additive"
        )
        for members in ([0, 1], [0, 2])
    ]
    with pytest.raises(CrashError):
        run_in(tmp_path, hybrids[0], progress=crash_at("produce", 1))
    with pytest.raises(ConfigError, match=r"got potential.energy = [^;]*. Resume without changes"):
        run_in(tmp_path, hybrids[1], resume=True)


def test_a_force_field_is_the_same_within_rounding(tmp_path):
    built = chains()
    built.save(tmp_path)
    assert same_force_field(tmp_path, built.system)
    for change, same in ((1e-9, True), (1e-3, False)):
        system = openmm.XmlSerializer.deserialize((tmp_path / "system.xml").read_text())
        (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
        charge, sigma, epsilon = force.getParticleParameters(1)
        force.setParticleParameters(1, charge._value + change, sigma, epsilon)
        assert same_force_field(tmp_path, system) is same


@pytest.mark.parametrize(
    ("report_interval", "changes"),
    [(4, {}), (7, {}), (7, {"ensemble": "NPT", "checkpoint_interval": 9})],
)
def test_a_finished_run_made_longer_equals_a_longer_run(tmp_path, report_interval, changes):
    """Bit for bit on Reference: rows, frames, last state; a stage's last row off the interval is dropped."""
    npt = "ensemble" in changes
    hybrid = chain_hybrid(box=2.1 if npt else None)
    short, middle, long = ("10 fs", "13 fs", "16 fs") if npt else ("15 fs", "45 fs", "60 fs")
    changes = changes | {"report_interval": report_interval}
    whole = run_in(tmp_path / "whole", hybrid, long, **changes)
    part = run_in(tmp_path / "part", hybrid, short, **changes)
    assert part.state == "finished"
    # Twice, the second time with a crash on the way.
    run_in(part.path, hybrid, middle, resume=True, **changes)
    at = 28 if npt else 105
    with pytest.raises(CrashError):
        run_in(part.path, hybrid, long, resume=True, progress=crash_at("produce", at), **changes)
    longer = run_in(part.path, hybrid, long, resume=True, **changes)
    assert results(longer) == results(whole)
    facts = [run.summary for run in (longer, whole)]
    assert facts[0]["plan"] == facts[1]["plan"] and facts[0]["state"] == "finished"
    assert [stage["name"] for stage in facts[0]["stages"]] == ["minimise", "equilibrate", "produce"]
    assert facts[0]["stages"][-1]["steps"] == facts[1]["stages"][-1]["steps"] == (32 if npt else 120)


def test_what_may_not_become_longer_or_shorter(tmp_path):
    run = run_in(tmp_path / "run")
    with pytest.raises(ConfigError, match=r'finished. See its report.html; .*--set run.produce="…"'):
        run_in(run.path, resume=True)
    with pytest.raises(ConfigError, match=r"produce.length = 0.02 \(the run: 0.04\)"):
        run_in(run.path, length="20 fs", resume=True)
    options = {"platform": "Reference", "timestep": "0.5 fs", "resume": True} | INTERVALS
    for plan, named in (
        ([Minimise(max_iterations=5), Equilibrate("20 fs"), Produce("40 fs")], "equilibrate.length"),
        ([*stages(), NVECheck("10 fs")], "stages = "),
    ):
        with pytest.raises(ConfigError, match=named):
            simulate(chain_hybrid(), run.path, plan, **options)
    assert run.state == "finished"


def test_settings_and_title_of_a_longer_run_are_recorded(tmp_path):
    run_in(tmp_path / "run")
    settings = {"run": {"produce": "50 fs"}}
    run = run_in(RunDirectory(tmp_path / "run", settings), length="50 fs", resume=True, title="Longer")
    assert run.file("resolved.toml").read_text() == '[run]\nproduce = "50 fs"\n'
    assert run.summary["title"] == "Longer"
    assert run.summary["settings"]["produce.length"] == pytest.approx(0.05)
    assert np.isfinite(run.built_positions).all()
