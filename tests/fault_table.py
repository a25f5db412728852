"""Print what happens to runs that are killed, damaged, starved, doubled and lied to: the fault table.

python tests/fault_table.py [--kills N] [--seed N]

A row passes where nothing is lost, the exit status says what happened, and the run, resumed once the fault is
gone, equals an uninterrupted one bit for bit (Reference platform). The exit status is 1 where a row does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "build"), str(HERE / "potentials")]

from fault_files import foreign_files  # noqa: E402
from fault_runs import (  # noqa: E402
    Process,
    as_nobody,
    compared,
    full_disk,
    interrupted,
    kill_at_call,
    prepare,
    results,
    sums,
    toy,
    verb,
    wait_for,
)

FILES = (
    *("energies.csv", "trajectory.dcd", "checkpoint.zip", "checkpoint.previous.zip", "run.json"),
    *("topology.pdb", "final.pdb", "resolved.toml", "run.log"),
    *("built/system.xml", "built/positions.npy", "built/built.json"),
)
SETTINGS = (
    'run.friction="5 /ps"',
    'run.timestep="0.4 fs"',
    'run.temperature="310 K"',
    "run.seed=5",
    'run.equilibrate="20 fs"',
    'run.produce="50 fs"',
    "report.interval=5",
    "uncertainty.interval=3",
    'system.smiles="CCC"',
)


def has_finished(folder: Path) -> bool:
    """Whether the record says so: a process can be killed after that, while it ends."""
    try:
        return json.loads((folder / "run.json").read_text())["state"] == "finished"
    except (OSError, ValueError, KeyError):
        return False


class Row(NamedTuple):
    """One line of the table."""

    fault: str
    happened: str
    status: str
    lost: str
    equal: str


class Table:
    """The faults, one after the other, in a folder of their own."""

    def __init__(self, folder: Path, kills: int, seed: int):
        self.folder, self.kills, self.random = folder, kills, random.Random(seed)
        self.file, self.out = prepare(folder), folder / "run"
        started = time.monotonic()
        assert Process(self.file, folder / "whole").end()[0] == "0"
        self.seconds = time.monotonic() - started
        self.whole = results(folder / "whole")
        self.largest = max(p.stat().st_size for p in (folder / "whole").rglob("*") if p.is_file())

    def resumed(self, fault: str, happened: str, status: str, lost: str = "") -> Row:
        """The row of a fault that is gone now: go on and compare."""
        said = Process(self.file, self.out, "--resume").end()
        if said[0] != "0":
            return Row(fault, f"{happened}; resume: {said[1]}", status, "the run", "no")
        more, equal = compared(self.out, self.whole)
        return Row(fault, happened, status, ", ".join(part for part in (lost, more) if part), equal)

    def refused(self, fault: str, *arguments: str, first: object = None) -> Row:
        """A resume that has to be refused and leave every file as it was; without the fault it goes on."""
        before = sums(self.out)
        status, said = Process(self.file, self.out, "--resume", *arguments, first=first).end()
        after = sums(self.out)
        lost = ", ".join(name for name in before if after.get(name) != before[name])
        if status != "2":
            return Row(fault, f"not refused: {said}", status, lost, "no")
        return self.resumed(fault, said, status, lost)

    def killed(self) -> Iterator[Row]:
        """At random times; and at the calls by which checkpoints and records come about."""
        for number in range(self.kills):
            times, status = 0, ""
            while not times:  # anew where the run ended before its kill
                shutil.rmtree(self.out, ignore_errors=True)
                # Up to three kills of one run, each but the first in what was resumed.
                for _ in range(3):
                    resume = ("--resume",) if self.out.is_dir() else ()
                    process = Process(self.file, self.out, *resume)
                    time.sleep(self.random.uniform(0.0, self.seconds))
                    process.kill()
                    status, _ = process.end()
                    if status != "SIGKILL":
                        break
                    times += 1
            fault, happened = f"SIGKILL at random times {number + 1}", f"killed {times} times"
            if status != "SIGKILL":
                yield Row(fault, f"{happened}, then finished", "SIGKILL", *compared(self.out, self.whole))
            elif not self.out.is_dir():
                yield Row(fault, f"{happened}, before there was a folder", status, "", "-")
            elif has_finished(self.out):
                yield Row(
                    fault, f"{happened}, at last after its end", status, *compared(self.out, self.whole)
                )
            else:
                yield self.resumed(fault, happened, status)
        calls = ((os, "replace", 60), (os, "fsync", 90), (zipfile.ZipFile, "writestr", 55))
        for number in range(self.kills):
            owner, name, most = calls[number % 3]
            count = self.random.randint(1, most)
            shutil.rmtree(self.out, ignore_errors=True)
            process = Process(self.file, self.out, first=kill_at_call(owner, name, count))
            status, _ = process.end()
            what = f"SIGKILL in checkpoints: call {count} of {name}"
            if status == "SIGKILL":
                yield self.resumed(what, "killed", status)
            else:
                yield Row(what, "no such call: finished", status, *compared(self.out, self.whole))

    def starved(self) -> Iterator[Row]:
        """No room, no right to write, no such place."""
        for share in (0.0, 0.05, 0.3, 0.6, 0.9):
            shutil.rmtree(self.out, ignore_errors=True)
            status, said = Process(self.file, self.out, first=full_disk(int(share * self.largest))).end()
            yield self.resumed(f"disk full at {share:.0%} of the largest file", said, status)
        interrupted(self.file, self.out)
        yield self.refused("run directory read-only", first=as_nobody)
        closed = self.folder / "closed"
        closed.mkdir(mode=0o755)
        status, said = Process(self.file, closed / "run", first=as_nobody).end()
        yield Row("new run in a read-only folder", said, status, "", "-")
        status, said = Process(self.file, self.file / "run").end()
        yield Row("new run below a file", said, status, "", "-")

    def damaged(self) -> Iterator[Row]:
        """Each file of an interrupted run cut in half, with a flipped byte, deleted."""
        template = self.folder / "template"
        interrupted(self.file, template)
        for name in FILES:
            for how in ("cut", "flipped", "deleted"):
                shutil.rmtree(self.out, ignore_errors=True)
                shutil.copytree(template, self.out)
                path = self.out / name
                if path.exists():
                    yield self._damage(path, name, how)

    def _damage(self, path: Path, name: str, how: str) -> Row:
        content = path.read_bytes()
        middle = len(content) // 2
        path.unlink()
        if how == "cut":
            path.write_bytes(content[:middle])
        if how == "flipped":
            path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        before = sums(self.out)
        status, said = Process(self.file, self.out, "--resume").end()
        fault = f"{name} {how}"
        if status == "0":
            return Row(fault, "goes on", status, *compared(self.out, self.whole))
        lost = ", ".join(part for part, value in before.items() if sums(self.out).get(part) != value)
        path.write_bytes(content)
        return self.resumed(fault, f"refused: {said}", status, lost)

    def doubled(self) -> Row:
        """Two processes on one directory: the first is halted while it holds the lock."""
        interrupted(self.file, self.out)
        (self.out / "lock.json").unlink(missing_ok=True)  # what the killed process left
        first = Process(self.file, self.out, "--resume")
        wait_for(self.out / "lock.json")
        first.kill(signal.SIGSTOP)
        status, said = Process(self.file, self.out, "--resume").end()
        first.kill(signal.SIGCONT)
        ended, _ = first.end()
        lost, equal = compared(self.out, self.whole)
        if status != "2" or ended != "0" or f"process {first.pid} " not in said:
            lost = ", ".join(part for part in ("the lock", lost) if part)
        return Row("two processes on one directory", said, f"{ended} and {status}", lost, equal)

    def signalled(self) -> Iterator[Row]:
        """Signals that ask a run to end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            shutil.rmtree(self.out, ignore_errors=True)
            process = Process(self.file, self.out)
            wait_for(self.out / "checkpoint.previous.zip")
            process.kill(number)
            status, said = process.end()
            yield self.resumed(number.name, said, status)

    def exploded(self) -> Row:
        """Stiff springs and long steps."""
        shutil.rmtree(self.out, ignore_errors=True)
        made, verb.hybrid_from = verb.hybrid_from, toy(stiffness=3e6)
        status, said = Process(self.file, self.out, "--set", 'run.timestep="2 fs"').end()
        verb.hybrid_from = made
        kept = (self.out / "last_finite_frame.pdb").exists() and (self.out / "energies.csv").exists()
        return Row("exploding run", said, status, "" if kept else "the frame", "-")

    def rows(self) -> Iterator[Row]:
        """The whole table."""
        yield from self.killed()
        yield from self.starved()
        yield from self.damaged()
        yield self.doubled()
        yield from self.signalled()
        yield self.exploded()
        for setting in SETTINGS:
            interrupted(self.file, self.out)
            yield self.refused(f"resumed with {setting}", "--set", setting)
        for fault, said, status, harmed in foreign_files(self.folder):
            yield Row(fault, said, status, harmed, "-")


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12, help="at random times, and as many in checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    folder.chmod(0o755)
    bad = 0
    print(f"{'fault':<48} {'exit':<8} {'lost':<12} {'equal':<5} what happened", flush=True)
    try:
        for row in Table(folder, options.kills, options.seed).rows():
            wrong = bool(row.lost) or row.equal == "no" or "TRACEBACK" in row.happened
            bad += wrong
            said = row.happened.replace(str(folder), "…")
            print(
                f"{row.fault:<48} {row.status:<8} {row.lost or '-':<12} {row.equal:<5} {said[:230]}"
                + ("  <-- WRONG" if wrong else ""),
                flush=True,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{bad} rows are wrong" if bad else "nothing lost, everything equal")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
