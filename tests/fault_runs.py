"""Runs in processes of their own through `mlmm run`, and what happens to them, for `fault_table.py`.

The system is a chain of springs beside another one, so that a run takes a moment; all else is the command
line's own. Processes are forks: a kill is a kill, and nothing is imported anew.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import mdtraj  # noqa: F401  (now: who gave up root's rights may not be able to read where it lies)
from toys import SpringPotential, chains

import mlmm.report
from mlmm.cli import program
from mlmm.cli import run as verb
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.hybrid.system import HybridSystem, hybrid_system
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

RUN_FILE = """
[system]
smiles = "CCCC"
[region]
select = "resid 0"
[run]
seed = 4
minimise = 5
equilibrate = "10 fs"
produce = "100 fs"
nve = "20 fs"
timestep = "0.5 fs"
platform = "Reference"
[report]
interval = 4
trajectory_interval = 10
checkpoint_interval = 25
"""
NOBODY = 65534


def toy(stiffness: float = 1000.0) -> Callable[..., HybridSystem]:
    """What stands for the system of a run file."""

    def make(_config: object, built: object, **_options: object) -> HybridSystem:
        zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
        return hybrid_system(built, zones, SpringPotential(k=stiffness), scheme="additive")

    return make


def prepare(folder: Path) -> Path:
    """Put the toy in the place of what a run file builds; returns the run file."""
    verb.build_shown = lambda _config: chains(box=None)
    verb.checked_potential = verb.potential_from = lambda _config: None
    verb.hybrid_from = toy()
    mlmm.report.write_report = lambda record: record.directory / "report.html"
    file = folder / "run.toml"
    file.write_text(RUN_FILE)
    return file


class Process:
    """`mlmm run` in a fork.

    Parameters
    ----------
    file, out : Path
        Run file and run directory.
    arguments : str
        More of the command line.
    first : callable, optional
        Called in the fork before all else: sets limits, or a trap that kills it.
    """

    def __init__(self, file: Path, out: Path, *arguments: str, first: Callable[[], None] | None = None):
        # A pipe: a file would be full too, on a full disk. It holds all that these runs print.
        self.printed, end = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(end)
            return
        status = 1
        try:
            os.dup2(end, 1)
            os.dup2(end, 2)
            if first:
                first()
            status = program.main(["run", str(file), "--out", str(out), *arguments])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self) -> tuple[str, str]:
        """Wait; returns exit status and the last line that was printed."""
        _, status = os.waitpid(self.pid, 0)
        with open(self.printed, encoding="utf-8", errors="replace") as pipe:
            lines = pipe.read().strip().splitlines() or [""]
        if os.WIFSIGNALED(status):
            return signal.Signals(os.WTERMSIG(status)).name, "killed"
        said = "TRACEBACK " + lines[-1] if any("Traceback" in line for line in lines) else lines[-1]
        return str(os.WEXITSTATUS(status)), said.removeprefix("mlmm: error: ")


def results(out: Path) -> dict[str, object]:
    """All that a run gives: rows, frames (the header before them holds the time of day), last state."""
    run = RunDirectory(out)
    return {
        "state": run.state,
        "rows": run.file("energies.csv").read_bytes(),
        "frames": run.file("trajectory.dcd").read_bytes()[276:],
        "topology": run.file("topology.pdb").read_bytes(),
        "final": run.file("final.pdb").read_bytes(),
        "last state": run.read_checkpoint().state,
        "stages": [(stage["name"], stage.get("steps")) for stage in run.summary["stages"]],
    }


def compared(out: Path, whole: dict[str, object]) -> tuple[str, str]:
    """What is lost against an uninterrupted run, and whether all is equal to it bit for bit."""
    found = results(out)
    lost = [name for name, value in whole.items() if found[name] != value]
    return ", ".join(lost), "no" if lost else "yes"


def sums(out: Path) -> dict[str, str]:
    """Checksums of all files, but for the log, and the lock that a killed process left."""
    free = ("run.log", "lock.json")
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in free)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_at_call(owner: object, name: str, count: int) -> Callable[[], None]:
    """A trap: the process kills itself at the n-th call of a function, halfway through where it writes."""

    def arm() -> None:
        before, calls = getattr(owner, name), [0]

        def trap(*args: object, **options: object) -> object:
            calls[0] += 1
            if calls[0] == count:
                if owner is zipfile.ZipFile:
                    args[0].fp.write(b"PK half an entry")
                    args[0].fp.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*args, **options)

        setattr(owner, name, trap)

    return arm


def full_disk(size: int) -> Callable[[], None]:
    """Files of the process cannot grow beyond some bytes, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def as_nobody() -> None:
    """Give up the right to write everywhere, which root has."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def interrupted(file: Path, out: Path) -> None:
    """A run that was killed in its production, with two checkpoints there, and one that closes a stage."""
    shutil.rmtree(out, ignore_errors=True)
    Process(file, out, first=kill_at_call(zipfile.ZipFile, "writestr", 20)).end()
    assert RunDirectory(out).read_checkpoint().step > 0 and (out / "checkpoint.zip").exists()


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Wait for a file of another process."""
    until = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.002)
