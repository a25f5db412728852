"""``mlmm run --resume``: longer runs, runs that were killed early, settings that may not change, Ctrl-C."""

from __future__ import annotations

import signal

import pytest

from mlmm.cli.program import main
from mlmm.cli.progress import ProgressLine
from mlmm.dynamics.run_directory import RunDirectory

SHORT = {
    "system.solvate": "false",
    "run.minimise": "5",
    "run.equilibrate": "5 fs",
    "run.produce": "10 fs",
    "run.nve": "0 ps",
    "run.platform": "Reference",
    "report.interval": "4",
    "report.trajectory_interval": "5",
    "potential.members": "[0]",
}


@pytest.fixture
def run(root, tmp_path):
    """Run alanine dipeptide in vacuum into a folder by name; returns the exit status."""

    def begin(name, *arguments, **changes):
        sets = {} if "--resume" in arguments else dict(SHORT)
        sets |= {key.replace("__", "."): value for key, value in changes.items()}
        given = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        file = str(root / "systems/alanine_dipeptide/run.toml")
        return main(["run", file, "--out", str(tmp_path / name), *arguments, *given])

    return begin


def results(folder):
    return (folder / "energies.csv").read_bytes(), (folder / "trajectory.dcd").read_bytes()[276:]


def test_a_finished_run_is_made_longer(run, tmp_path, capsys):
    assert run("whole", run__produce="30 fs") == 0
    assert run("part") == 0
    assert run("part", "--resume") == 2
    assert 'to make it longer: --resume --set run.produce="…"' in capsys.readouterr().err
    assert run("part", "--resume", run__produce="30 fs") == 0
    assert results(tmp_path / "part") == results(tmp_path / "whole")
    # The record says so, and a copy of it gives the same run again.
    assert 'produce = "30 fs"' in (tmp_path / "part/resolved.toml").read_text()


def test_what_was_built_stays(run, capsys):
    assert run("run") == 0
    assert run("run", "--resume", run__produce="30 fs", system__constraints="hbonds") == 2
    assert "[system] as in" in capsys.readouterr().err
    assert run("run", "--resume", run__produce="30 fs", potential__members="[1]") == 2
    assert "but got potential.energy = " in capsys.readouterr().err


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_a_run_killed_before_its_first_checkpoint(run, tmp_path, how):
    class KilledError(Exception):
        pass

    def kill(*_):
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "write_settings", kill)
        with pytest.raises(KilledError):
            run("run")
    assert not (tmp_path / "run/resolved.toml").exists()
    changes = {key.replace(".", "__"): value for key, value in SHORT.items()}
    assert run("run", how, **changes) == 0
    assert run("whole") == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(run, tmp_path, monkeypatch, capsys):
    def press(_, now):
        if now.stage == "produce":
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "show", press)
        assert run("run") == 130
    assert "interrupted; go on with: mlmm run" in capsys.readouterr().out
    assert (tmp_path / "run/report.html").exists()
    assert run("run", "--resume") == 0
    assert run("whole") == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_branch_takes_the_system_of_its_source(run, tmp_path, capsys):
    """Another seed, with which a build would differ; velocities kept; the record says where it began."""
    assert run("first") == 0
    more = {"run__seed": "2", "run__minimise": "0", "run__equilibrate": "0 ps"}
    source = str(tmp_path / "first")
    assert run("second", "--from", source, "--velocities", "kept", **more) == 0
    first, second = (RunDirectory(tmp_path / name) for name in ("first", "second"))
    assert (second.file("built/system.xml")).read_bytes() == first.file("built/system.xml").read_bytes()
    facts = second.summary["start"]
    assert (facts["run"], facts["velocities"], facts["seed"]) == (source, "kept", 1)
    assert second.summary["seed"] == 2 and not second.summary["warnings"]
    assert run("third", "--from", source, "--frame", "2", **more) == 0
    capsys.readouterr()
    for arguments, changes, said in (
        (["--from", source, "--velocities", "kept"], {"run__seed": "2"}, "--set run.minimise=0"),
        (["--from", source, "--frame", "2", "--velocities", "kept"], more, "which holds none"),
        (["--from", source], {"system__constraints": "hbonds"}, "constraints = 'hbonds' (there: "),
        (["--frame", "2"], {}, "--from RUN with --frame"),
        (["--from", str(tmp_path / "none")], more, "run.json"),
    ):
        assert run("refused", *arguments, **changes) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "refused").exists()
    assert run("first", "--from", source, "--overwrite", **more) == 2
    assert "another folder" in capsys.readouterr().err and first.state == "finished"
    assert run("second", "--resume", "--from", source) == 2
    assert "no start for a run that is resumed" in capsys.readouterr().err
