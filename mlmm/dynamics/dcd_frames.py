"""Frames of a DCD file as OpenMM writes it: any of them without reading those before, and written quickly."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from openmm import Vec3, app, unit
from openmm.app.internal.unitcell import computeLengthsAndAngles

from mlmm.units import ANGSTROM

__all__ = ["DCDFrames", "DCDWriter"]

_HEADER = 276  # bytes before the first frame


class DCDFrames:
    """Frames of a file; one that is still being written does not count.

    Parameters
    ----------
    path : Path
    n_atoms : int

    Raises
    ------
    ValueError
        Not a DCD file as OpenMM writes it, or of another number of atoms.
    OSError
        It cannot be read.
    """

    def __init__(self, path: Path, n_atoms: int):
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


class DCDWriter(app.DCDFile):
    """OpenMM's own file, to the byte, whose coordinates do not pass through Python one by one.

    See `openmm.app.DCDFile` for how it is made.
    """

    def write(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        """Append a frame: positions (N, 3) and box vectors in rows (3, 3), nm.

        Raises
        ------
        ValueError
            Positions that are not finite, or of another number of atoms.
        """
        own = self._topology.getPeriodicBoxVectors()
        vectors = own.value_in_unit(unit.nanometer) if own is not None else None
        if own is not None and box is not None:
            vectors = [Vec3(*row) for row in box.tolist()]
        if self._interval > 1 and self._firstStep + (self._modelCount + 1) * self._interval > 1 << 31:
            # OpenMM then writes longer steps into the header.
            boxed = None if vectors is None else vectors * unit.nanometer
            self.writeModel(positions * unit.nanometer, periodicBoxVectors=boxed)
            return
        if positions.shape != (self._topology.getNumAtoms(), 3) or not np.isfinite(positions).all():
            raise ValueError(f"positions of shape {positions.shape}, or some that are not finite")
        self._modelCount += 1
        file = self._file
        file.seek(8)
        file.write(struct.pack("<i", self._modelCount))
        file.seek(20)
        file.write(struct.pack("<i", self._firstStep + (self._modelCount - 1) * self._interval))
        file.seek(0, 2)
        # A header that names a box wants one in every frame.
        if vectors is not None:
            a, b, c, alpha, beta, gamma = computeLengthsAndAngles(vectors)
            first, second, third = (math.sin(math.pi / 2 - angle) for angle in (gamma, beta, alpha))
            file.write(struct.pack("<i6di", 48, 10.0 * a, first, 10.0 * b, second, third, 10.0 * c, 48))
        length = struct.pack("<i", 4 * len(positions))
        for column in (10 * positions.T).astype("<f4"):
            file.write(length + column.tobytes() + length)


def _box(edges: np.ndarray, cosines: tuple[float, float, float]) -> np.ndarray:
    """Box vectors in rows from their lengths and the cosines of alpha, beta and gamma."""
    alpha, beta, gamma = cosines
    sine = math.sqrt(max(1.0 - gamma**2, 1e-12))
    third = (alpha - beta * gamma) / sine
    height = math.sqrt(max(1.0 - beta**2 - third**2, 1e-12))
    return edges[:, None] * np.array([[1.0, 0.0, 0.0], [gamma, sine, 0.0], [beta, third, height]])
