"""Frames that a simulation writes while it runs, and lambda in each of them, made to be resumed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import openmm
from openmm import unit

from mlmm.dynamics.beside import Beside
from mlmm.dynamics.dcd_frames import DCDWriter
from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.imaging import RegionImages
from mlmm.dynamics.moments import Moment, fetch
from mlmm.hybrid.system import HybridSystem
from mlmm.zones.adaptive import AdaptiveZones

__all__ = ["LambdaTable", "TrajectoryWriter"]


class LambdaTable:
    """lambda of every atom in every frame of the trajectory, for a zone that moves: float32 (frames, N), npy.

    Parameters
    ----------
    path : Path
    zones : AdaptiveZones
    resume_at : int, optional
        Frames to which an existing table is cut before going on; a new table otherwise.
    """

    def __init__(self, path: Path, zones: AdaptiveZones, resume_at: int = 0):
        self._zones, self._frames = zones, resume_at
        self._file = path.open("r+b" if resume_at else "wb")
        self._row = 4 * zones.n_atoms
        self._start = self._write_header()
        self._file.truncate(self._start + resume_at * self._row)

    def _write_header(self) -> int:
        """Its length does not depend on the number of frames: numpy leaves room for it."""
        self._file.seek(0)
        shape = (self._frames, self._zones.n_atoms)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def write(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        """Append a frame: positions (N, 3) and box (3, 3), nm."""
        weights = self._zones.weights(*as_tensors(positions, box))
        self._file.seek(self._start + self._frames * self._row)
        self._file.write(weights.numpy().astype("<f4").tobytes())
        self._frames += 1
        self._write_header()
        self._file.flush()

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._start + self._frames * self._row

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TrajectoryWriter:
    """DCD frames centred on the region, every molecule whole and in the cell around it.

    A zone that moves gets a `LambdaTable` beside it, ``lambda.npy``.

    Parameters
    ----------
    path : Path
    hybrid : HybridSystem
    timestep : float
        ps.
    interval : int
        Steps between frames.
    resume_at : tuple of (int, int), optional
        Bytes and frames to which an existing trajectory is cut before going on.
    beside : bool
        Whether frames are imaged and written while the run goes on, for platforms that leave the processor
        idle: the same bytes a little later; `sizes`, `frames` and `close` wait for them.
    """

    def __init__(
        self,
        path: Path,
        hybrid: HybridSystem,
        timestep: float,
        interval: int,
        resume_at: tuple[int, int] | None = None,
        *,
        beside: bool = False,
    ):
        self._path, self._topology = path, hybrid.built.topology
        self._spacing = (timestep * unit.picosecond, 0, interval)
        # Opened with the first frame: a trajectory without frames is no trajectory.
        self._file: BinaryIO | None = None
        self._images = RegionImages(hybrid.built.topology, hybrid.zones.region.atoms)
        self._periodic = hybrid.built.periodic
        self._frames = 0
        self.beside: Beside[None] = Beside(beside)
        if resume_at is not None and resume_at[1] > 0:
            self._continue(*resume_at)
        self._table: LambdaTable | None = None
        if isinstance(hybrid.zones, AdaptiveZones):
            self._table = LambdaTable(path.with_name("lambda.npy"), hybrid.zones, self._frames)

    def _continue(self, size: int, frames: int) -> None:
        self._file = self._path.open("r+b")
        self._file.truncate(size)
        # The header counts the frames: int32 at byte 8.
        self._file.seek(8)
        self._file.write(struct.pack("<i", frames))
        self._dcd = DCDWriter(self._file, self._topology, *self._spacing, append=True)
        self._frames = frames

    def write(self, context: openmm.Context) -> None:
        """Append the current frame; raises as `append`."""
        self.append(fetch(context, self._periodic))

    def append(self, now: Moment) -> None:
        """Append the frame of a moment.

        Raises
        ------
        OSError
            It cannot be written; beside the run, an earlier one could not.
        """
        self.beside.submit(lambda: self._append(now.positions, now.box), lambda _: None)

    def _append(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
            self._dcd = DCDWriter(self._file, self._topology, *self._spacing)
        self._dcd.write(self._images.gather(positions, box), box)
        self._file.flush()
        if self._table is not None:
            self._table.write(positions, box)
        self._frames += 1

    @property
    def frames(self) -> int:
        """Frames written, those before a resumed run with them."""
        self.beside.finish()
        return self._frames

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes written, by name of the file."""
        self.beside.finish()
        size = 0
        if self._file is not None:
            self._file.seek(0, 2)
            size = self._file.tell()
        found = {self._path.name: size}
        return found if self._table is None else found | {"lambda.npy": self._table.size}

    def close(self) -> None:
        """Close the files, with all frames in them."""
        try:
            self.beside.finish()
        finally:
            self.beside.close()
            if self._file is not None:
                self._file.close()
            if self._table is not None:
                self._table.close()
