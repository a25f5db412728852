"""Frames of a run: positions and boxes read one at a time from ``trajectory.dcd``, with their times.

Any frame is found without reading those before it, so that a report of a long run looks at some hundred of
them. A frame that is still being written does not count.
"""

from __future__ import annotations

import json
import logging
import math
import pathlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.report.pdb_file import load_pdb
from mlmm.report.text import as_float, as_list, as_mapping
from mlmm.units import ANGSTROM

__all__ = ["Start", "Trajectory", "read_start"]

logger = logging.getLogger(__name__)
_HEADER = 276  # bytes before the first frame, as OpenMM writes it


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


class Trajectory:
    """Frames of ``trajectory.dcd``.

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
        with path.open("rb") as file:
            header = file.read(_HEADER)
        if len(header) < _HEADER or header[4:8] != b"CORD":
            raise ValueError("no DCD file as OpenMM writes it")
        (found,) = struct.unpack("<i", header[268:272])
        if found != n_atoms:
            raise ValueError(f"frames of {found} atoms instead of {n_atoms}")
        self.periodic = struct.unpack("<i", header[48:52])[0] == 1
        cell = [("", "<i4"), ("cell", "<f8", 6), ("", "<i4")] if self.periodic else []
        axes = [field for axis in "xyz" for field in (("", "<i4"), (axis, "<f4", n_atoms), ("", "<i4"))]
        fields = [(name or f"mark{k}", *rest) for k, (name, *rest) in enumerate([*cell, *axes])]
        frame = np.dtype(fields)
        self._count = (path.stat().st_size - _HEADER) // frame.itemsize
        self._frames: Any = []
        if self._count:
            self._frames = np.memmap(path, frame, "r", _HEADER, (self._count,))
        self.times = _times(run, self._count)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Positions (N, 3) and box vectors (3, 3), or None, of a frame in nm."""
        record = self._frames[k]
        positions = np.stack([record[axis] for axis in "xyz"], axis=1).astype(np.float64) * ANGSTROM
        if not self.periodic:
            return positions, None
        a, gamma, b, beta, alpha, c = map(float, record["cell"])
        return positions, _box(np.array([a, b, c]) * ANGSTROM, (alpha, beta, gamma))

    def spread(self, limit: int) -> list[int]:
        """At most so many frames, evenly spread, the last one among them."""
        if self._count <= limit:
            return list(range(self._count))
        return sorted({round(k) for k in np.linspace(0, self._count - 1, limit)})


def _box(edges: np.ndarray, cosines: tuple[float, float, float]) -> np.ndarray:
    """Box vectors in rows from their lengths and the cosines of alpha, beta and gamma."""
    alpha, beta, gamma = cosines
    sine = math.sqrt(max(1.0 - gamma**2, 1e-12))
    third = (alpha - beta * gamma) / sine
    height = math.sqrt(max(1.0 - beta**2 - third**2, 1e-12))
    return edges[:, None] * np.array([[1.0, 0.0, 0.0], [gamma, sine, 0.0], [beta, third, height]])


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
