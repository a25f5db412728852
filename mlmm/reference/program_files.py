"""Programs that are run with files: found, and run in a folder of their own on one thread."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mlmm.errors import ConfigError, MissingPackageError

__all__ = ["find_program", "run_program"]


def find_program(name: str, path: str, site: str) -> str:
    """Full path of a program: `path`, or the first of that name on PATH.

    Parameters
    ----------
    name : str
    path : str
        A file to use; looked for if empty.
    site : str
        Where the program comes from, for the message.

    Raises
    ------
    ConfigError
        `path` is no program.
    MissingPackageError
        There is none on PATH.
    """
    if path:
        found = shutil.which(path)
        if found is None:
            raise ConfigError(f"the program {name}", f"{path}, which cannot be run", "correct program")
        return str(Path(found).resolve())
    found = shutil.which(name)
    if found is None:
        raise MissingPackageError(
            f"the program {name} on PATH", "none", f"install it from {site}, or write program = its full path"
        )
    # Programs that start others by their own folder want to be called by their full path.
    return str(Path(found).resolve())


def run_program(command: list[str], folder: Path, files: Mapping[str, str]) -> tuple[str, str]:
    """Write input files, run a program there on one thread, and return its output and why it failed.

    Parameters
    ----------
    command : list of str
    folder : Path
        That exists and is empty.
    files : mapping of str to str
        Text by name.

    Returns
    -------
    output, failure : str
        What it printed; a sentence if it ended with an error, else empty.
    """
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise ConfigError(f"a program that runs, {command[0]}", str(error), "correct program") from error
    last = next((line for line in reversed((done.stderr or done.stdout).splitlines()) if line.strip()), "")
    failure = f"exit status {done.returncode}: {last.strip()}" if done.returncode else ""
    return done.stdout, failure
