"""Everything that a page needs to know of one run, read and worked out once."""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlmm.report.pdb_file import load_pdb
from mlmm.report.reading import read_energies, read_run
from mlmm.report.structure import last_structure, read_weights
from mlmm.report.structure_series import Frames, StructureSeries, open_frames, structure_series
from mlmm.report.text import as_list, look_up
from mlmm.report.verdict import Verdict, judge

__all__ = ["RunRecord", "read_record", "verdict_of"]


@dataclass(frozen=True)
class RunRecord:
    """A run as its files have it.

    Parameters
    ----------
    directory : Path
    run : dict
        ``run.json``.
    energies : dict of str to ndarray
        ``energies.csv`` by column; empty without rows.
    frames : Frames or None
    series : StructureSeries or None
    verdict : Verdict
    notes : list of str
        What is missing or could not be read.
    """

    directory: pathlib.Path
    run: dict[str, Any]
    energies: dict[str, np.ndarray]
    frames: Frames | None
    series: StructureSeries | None
    verdict: Verdict
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Title of the run, else the name of its directory."""
        return str(look_up(self.run, "title") or self.directory.resolve().name)


def read_record(run_directory: str | os.PathLike) -> RunRecord:
    """Read a run directory and judge it.

    Parameters
    ----------
    run_directory : str or path

    Raises
    ------
    ConfigError
        ``run.json`` is missing or is not a JSON object.
    """
    directory = pathlib.Path(run_directory)
    run = read_run(directory / "run.json")
    notes: list[str] = []
    energies = read_energies(directory / "energies.csv", notes)
    frames = open_frames(directory, run, notes)
    series = None
    if frames is not None:
        n_atoms = len(frames.start.positions)
        weights = read_weights(directory / "topology.pdb", n_atoms, as_list(look_up(run, "region", "atoms")))
        series = structure_series(frames, run, weights, _last_finite(directory, run, n_atoms))
    verdict = judge(run, energies, None if series is None else series.bonds)
    return RunRecord(directory, run, energies, frames, series, verdict, notes)


def verdict_of(run_directory: str | os.PathLike) -> Verdict:
    """Judge a run by the files of its directory (ConfigError without a readable ``run.json``)."""
    return read_record(run_directory).verdict


def _last_finite(directory: pathlib.Path, run: dict[str, Any], n_atoms: int) -> np.ndarray | None:
    """Positions of the last finite frame of a run that failed, nm; None if there is none to read."""
    path, _ = last_structure(directory, run)
    if path is None or path.name != "last_finite_frame.pdb":
        return None
    try:
        positions = load_pdb(path).xyz[0].astype(np.float64)
    # Atoms that flew away may not even fit into the columns of the file.
    except Exception:
        return None
    return positions if positions.shape == (n_atoms, 3) else None
