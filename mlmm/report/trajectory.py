"""Frames of a run with their times, of which a report of a long run looks at some hundred, and its start."""

from __future__ import annotations

import json
import logging
import math
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.report.pdb_file import load_pdb
from mlmm.report.text import as_float, as_list, as_mapping

__all__ = ["Start", "Trajectory", "read_start"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The structure that a run began with.

    Parameters
    ----------
    topology : mdtraj.Topology
    positions : ndarray, shape (N, 3), nm
    """

    topology: Any
    positions: np.ndarray


def read_start(directory: pathlib.Path) -> Start | None:
    """Read the starting structure from ``built/``, which has every bond, else from ``topology.pdb``."""
    try:
        import mdtraj

        built = directory / "built"
        if (built / "built.json").is_file():
            from mlmm.build.topology_json import topology_from_dict

            index = json.loads((built / "built.json").read_text(encoding="utf-8"))
            topology = mdtraj.Topology.from_openmm(topology_from_dict(index["topology"]))
            positions = np.load(built / "positions.npy", allow_pickle=False)
        elif (directory / "topology.pdb").is_file():
            frame = load_pdb(directory / "topology.pdb")[0]
            topology, positions = frame.topology, frame.xyz[0]
        else:
            return None
        if positions.shape != (topology.n_atoms, 3):
            raise ValueError(f"{len(positions)} positions of {topology.n_atoms} atoms")
        return Start(topology, positions.astype(np.float64))
    # Damaged files raise whatever their parsers do; a page without structure is better than none.
    except Exception as problem:
        logger.warning("no structure to follow: %s", problem)
        return None


class Trajectory(DCDFrames):
    """Frames of ``trajectory.dcd``, with their times.

    Parameters
    ----------
    path : Path
    n_atoms : int
    run : dict
        Contents of ``run.json``: stages and interval give the times.

    Attributes
    ----------
    times : ndarray, shape (F,)
        ps since the start of the first dynamics, as in the energy table; NaN where ``run.json`` does not say.

    Raises
    ------
    ValueError
        Not a DCD file as OpenMM writes it, or of another number of atoms.
    OSError
        It cannot be read.
    """

    def __init__(self, path: pathlib.Path, n_atoms: int, run: dict[str, Any]):
        super().__init__(path, n_atoms)
        self.times = _times(run, len(self))

    def spread(self, limit: int) -> list[int]:
        """At most so many frames, evenly spread, the last one among them."""
        if len(self) <= limit:
            return list(range(len(self)))
        return sorted({round(k) for k in np.linspace(0, len(self) - 1, limit)})


def _times(run: dict[str, Any], count: int) -> np.ndarray:
    """Times of the frames, from the stages that write some and the interval between two."""
    times: list[float] = []
    interval, start = as_float(run.get("trajectory_interval")), 0.0
    for stage in map(as_mapping, as_list(run.get("plan"))):
        steps, step = as_float(stage.get("steps")), as_float(stage.get("step_ps", stage.get("timestep_ps")))
        if not (math.isfinite(steps) and math.isfinite(step)):
            continue  # a minimisation
        if stage.get("trajectory") is True and interval >= 1:
            # As many as there are: a plan may be much longer than what was done.
            done = min(int(steps // interval), count - len(times))
            times += [start + (k + 1) * interval * step for k in range(done)]
        start += steps * step
    return np.array(times[:count] + [math.nan] * (count - len(times)))
