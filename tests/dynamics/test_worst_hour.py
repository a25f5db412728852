"""Runs that are killed early, damaged, out of space or interrupted: always one way on, and nothing lost."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
from pathlib import Path

import pytest
from runs import CrashError, chain_hybrid, crash_at, results, run_in

import mlmm.dynamics.simulate as simulation
from mlmm.build import BuiltSystem
from mlmm.cli.program import main
from mlmm.dynamics.lock import LOCK
from mlmm.dynamics.records import log_to
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError


def killed(*_args, **_facts):
    raise CrashError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return results(run_in(tmp_path_factory.mktemp("whole") / "run"))


# --- killed before the first checkpoint ---------------------------------------------------------------

EARLY = [
    (RunDirectory, "write_summary"),
    (RunDirectory, "make"),
    (BuiltSystem, "save"),
    (simulation, "write_pdb"),
    (RunDirectory, "write_settings"),
    (RunDirectory, "write_checkpoint"),
]


@pytest.mark.parametrize("how", ["resume", "overwrite"])
@pytest.mark.parametrize(("where", "name"), EARLY)
@pytest.mark.parametrize("first", [True, False])
def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, whole, where, name, how, first):
    """At every step between the empty folder and the first checkpoint, of a new run and of one replaced."""
    if not first:
        run_in(tmp_path / "run", seed=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(CrashError):
            run_in(tmp_path / "run", overwrite=not first)
    (tmp_path / "run" / LOCK).write_text("of a process that was killed")
    if not first and name in ("write_summary", "make") and how == "resume":
        return  # the run that was there is still whole
    assert results(run_in(tmp_path / "run", **{how: True})) == whole


def test_there_is_no_run_to_resume(tmp_path):
    with pytest.raises(ConfigError, match=r"no folder .*Leave --resume out"):
        run_in(tmp_path / "run", resume=True)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="with other files"):
        run_in(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# --- damaged checkpoints ------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "text"])
def test_the_checkpoint_before_is_kept_and_used(tmp_path, whole, damage, caplog):
    with pytest.raises(CrashError):
        run_in(tmp_path / "run", progress=crash_at("produce", 60))
    newest = tmp_path / "run/checkpoint.zip"
    content = newest.read_bytes()
    middle = len(content) // 3
    {
        "cut": lambda: newest.write_bytes(content[:-40]),
        "flipped": lambda: newest.write_bytes(
            content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        ),
        "gone": newest.unlink,
        "text": lambda: newest.write_bytes(b"not a zip"),
    }[damage]()
    # Twice: a crash soon after must not leave the damaged one as the one before.
    with caplog.at_level(logging.WARNING), pytest.raises(CrashError):
        run_in(tmp_path / "run", resume=True, progress=crash_at("produce", 51))
    assert "going on from the checkpoint before, step 25 of stage 3" in caplog.text
    newest.write_bytes(b"damaged again")
    assert results(run_in(tmp_path / "run", resume=True)) == whole


def test_advice_on_damaged_checkpoints_deletes_nothing(tmp_path):
    run = run_in(tmp_path / "run")
    before = run.file("trajectory.dcd").read_bytes()
    for name in ("checkpoint.zip", "checkpoint.previous.zip"):
        run.file(name).write_bytes(b"")
    with pytest.raises(ConfigError, match="Put one of them back from a copy") as refused:
        run_in(run.path, length="50 fs", resume=True)
    assert "overwrite" not in str(refused.value)
    assert run.file("trajectory.dcd").read_bytes() == before


@pytest.mark.parametrize("damage", ["deleted", "cut"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_run_without_its_record_goes_on_from_its_checkpoint(tmp_path, whole, damage, finished):
    """The checkpoint holds the facts of run.json; nothing is replaced by a new run, and nothing is lost."""
    run = RunDirectory(tmp_path / "run")
    if finished:
        run_in(run.path)
    else:
        with pytest.raises(CrashError):
            run_in(run.path, progress=crash_at("produce", 60))
    record = run.file("run.json")
    content = record.read_text()
    record.unlink() if damage == "deleted" else record.write_text(content[: len(content) // 2])
    assert run.summary["seed"] == 4
    for refused in ({}, {"start": run.path}):
        with pytest.raises(ConfigError, match=r"add --resume|another folder|Add --resume"):
            run_in(run.path, **refused)
    with pytest.raises(ConfigError, match=r"run\.friction|friction = 5"):
        run_in(run.path, resume=True, friction="5 /ps")
    resumed = run_in(run.path, resume=True)
    assert results(resumed) == whole and resumed.state == "finished"
    assert json.loads(record.read_text())["state"] == "finished"


def test_a_run_without_record_and_checkpoint_is_no_run(tmp_path):
    run = run_in(tmp_path / "run")
    for path in (run.file("run.json"), *run.path.glob("checkpoint*.zip")):
        path.unlink()
    for how in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ConfigError, match="with other files"):
            run_in(run.path, **how)


# --- file systems that fail ---------------------------------------------------------------------------


@pytest.fixture
def no_room():
    """Files of this process cannot grow beyond some bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_full_disk_is_a_sentence_and_the_run_goes_on_later(tmp_path, whole, no_room, share, capfd):
    run = tmp_path / "run"
    largest = max(path.stat().st_size for path in run_in(tmp_path / "other").path.iterdir())
    no_room(int(share * largest))
    with pytest.raises(ConfigError):
        run_in(run)
    no_room(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert "Logging error" not in capfd.readouterr().err
    assert results(run_in(run, resume=True)) == whole


def test_a_log_that_cannot_grow_says_nothing_and_other_faults_do(capfd):
    """A full disk ends the run with its own error; a log line that is wrong is told as ever."""
    with log_to(Path("/dev/full")):
        logging.getLogger("mlmm.dynamics").info("a line")
        assert "Logging error" not in capfd.readouterr().err
        wrong = logging.LogRecord("mlmm", logging.INFO, "", 0, "%d", ("no number",), None)
        logging.getLogger("mlmm").handlers[-1].emit(wrong)
    assert "Logging error" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["energies.csv", "trajectory.dcd", "run.log", "built"])
def test_a_file_that_cannot_be_opened_is_a_sentence(tmp_path, whole, name):
    with pytest.raises(CrashError):
        run_in(tmp_path / "run", progress=crash_at("produce", 60))
    path = tmp_path / "run" / name
    aside = path.rename(tmp_path / "aside")
    if name != "built":
        path.mkdir()
    with pytest.raises(ConfigError):
        run_in(tmp_path / "run", resume=True)
    if name != "built":
        path.rmdir()
    aside.rename(path)
    assert results(run_in(tmp_path / "run", resume=True)) == whole


def test_output_below_a_file_or_in_a_closed_folder(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"notes.txt, a file. Choose another --out"):
        run_in(tmp_path / "notes.txt/run")
    # Root may write anywhere: the answer of the system is put in.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="a folder that may not be written to"):
        run_in(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_errors_of_files_end_the_command_line_with_a_sentence(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "report.html"))

    import mlmm.cli.report as verb

    monkeypatch.setattr(verb, "run", full)
    assert main(["report", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed == f"mlmm: error: No space left on device: {tmp_path / 'report.html'}\n"


# --- signals ------------------------------------------------------------------------------------------


def loop_over_seeds(folder, hybrid, number, begun):
    """What a user's script does; a signal arrives in the first run."""

    def press(now):
        if now.stage == "produce" and now.done >= 30 and begun == [4]:
            signal.raise_signal(number)

    for seed in (4, 5):
        begun.append(seed)
        run_in(folder / str(seed), hybrid, seed=seed, progress=press)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_a_loop_over_runs_once_the_run_is_saved(tmp_path, whole, number, raised):
    hybrid, begun = chain_hybrid(), []
    with pytest.raises(raised) as ended:
        loop_over_seeds(tmp_path, hybrid, number, begun)
    assert begun == [4]
    assert raised is KeyboardInterrupt or ended.value.code == 143
    run = RunDirectory(tmp_path / "4")
    assert run.state == "interrupted" and not run.file(LOCK).exists()
    assert results(run_in(run.path, hybrid, resume=True)) == whole


def test_a_program_that_handles_sigterm_itself_is_told(tmp_path):
    """A queue's handler, which decides itself whether to end: it is called once, and the loop goes on."""
    told, begun = [], []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        loop_over_seeds(tmp_path, chain_hybrid(), signal.SIGTERM, begun)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM] and begun == [4, 5]
    states = [RunDirectory(tmp_path / str(seed)).state for seed in begun]
    assert states == ["interrupted", "finished"]
