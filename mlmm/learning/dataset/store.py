"""A data set: a folder to which labelled structures are appended, safe to kill at any byte.

- ``set.json``: the level of theory, one for the whole set.
- ``structures.xyz``: one frame of extended XYZ for each structure (Å, eV), with a checksum; ASE reads it.
- ``point_charges.bin``: the charges around them and the forces on those (float64, nm, e, kJ/mol/nm).

A frame counts once its checksum is in the file; its point charges are on the disk before. What a killed
process leaves behind is an incomplete frame at the end, which readers leave out and the next append cuts off.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mlmm.dynamics.lock import locked
from mlmm.errors import ConfigError
from mlmm.learning.dataset.frames import (
    frame_content,
    frame_end,
    frame_head,
    frame_text,
    molecule_key,
    parse_frame,
    point_charge_bytes,
    side_length,
    side_range,
    with_point_charges,
)
from mlmm.learning.dataset.label_checks import check_label
from mlmm.reference.labels import Label, Molecule
from mlmm.short_repr import ShortRepr, counted
from mlmm.whole_files import sync, write_json

__all__ = ["Dataset"]

logger = logging.getLogger(__name__)
Pair = tuple[Molecule, Label]
_FORMAT = "mlmm labelled structures, version 1"


class Dataset(ShortRepr):
    """Labelled structures of one level of theory.

    Parameters
    ----------
    path : path
        Folder of a data set; `create` makes one.

    Attributes
    ----------
    path : Path
    method : str
        Level of theory, as `Label.method` has it.
    keys : list of str
        `molecule_key` of each structure, in order.
    origins : list of dict
        Where each comes from, as `Molecule.origin` has it.

    Raises
    ------
    ConfigError
        There is none, or it is damaged anywhere but at its end.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            facts = json.loads((self.path / "set.json").read_text(encoding="utf-8"))
            if facts["format"] != _FORMAT:
                raise ValueError(f"the format {facts['format']!r}")
            self.method: str = facts["method"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"a data set in the folder {path}, with its set.json",
                str(error) or type(error).__name__,
                "correct the path, or label structures into it first",
            ) from error
        self.keys: list[str] = []
        self.origins: list[dict[str, str]] = []
        self._converged: list[bool] = []
        self._starts: list[int] = [0]  # of each frame, and the end of the last
        self._side_end = 0
        self.refresh()

    @classmethod
    def create(cls, path: str | Path, method: str) -> Dataset:
        """Make a data set, or open the one that is there.

        Parameters
        ----------
        path : path
        method : str
            Level of theory.

        Raises
        ------
        ConfigError
            One of another level of theory is there, or another file.
        """
        folder = Path(path)
        if not (folder / "set.json").exists():
            if folder.exists() and (not folder.is_dir() or (folder / "structures.xyz").exists()):
                raise ConfigError(
                    f"a new folder or a data set at {folder}", "other files there", "choose another path"
                )
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "set.json", {"format": _FORMAT, "method": method})
        dataset = cls(folder)
        if dataset.method != method:
            raise _mixed(dataset, method)
        return dataset

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Pair:
        """The molecule and its label; negative indices count from the end."""
        place = range(len(self))[index]
        with (self.path / "structures.xyz").open("rb") as file:
            file.seek(self._starts[place])
            frame = parse_frame(file.read(self._starts[place + 1] - self._starts[place]))
        if frame.side is None:
            return frame.molecule, frame.label
        with (self.path / "point_charges.bin").open("rb") as file:
            file.seek(frame.side[0])
            return with_point_charges(frame, file.read(side_length(*frame.side[1:])))

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def __contains__(self, molecule: object) -> bool:
        """Whether a molecule has a label already, converged or not."""
        return isinstance(molecule, Molecule) and self.index_of(molecule) is not None

    def _summary(self) -> dict[str, str]:
        return {"path": str(self.path), "structures": f"{len(self):,}", "method": self.method}

    @property
    def usable(self) -> np.ndarray:
        """Indices of the structures whose label converged, int64, in order."""
        return np.flatnonzero(self._converged)

    def pairs(self, indices: Iterable[int] | None = None) -> list[Pair]:
        """Structures with their labels, those that did not converge left out.

        Parameters
        ----------
        indices : iterable of int, optional
            All of them by default.
        """
        chosen = range(len(self)) if indices is None else indices
        return [self[int(k)] for k in chosen if self._converged[int(k)]]

    def index_of(self, molecule: Molecule) -> int | None:
        """Where a molecule is in the set; None where it is not."""
        return self._places.get(molecule_key(molecule))

    @property
    def content_hash(self) -> str:
        """SHA-256 of level of theory, structures and labels in their order, without the record of how.

        Two runs that label the same structures by the same method have the same one, whatever the seconds.
        """
        digest = hashlib.sha256(self.method.encode())
        side = self.path / "point_charges.bin"
        with (self.path / "structures.xyz").open("rb") if len(self) else open(os.devnull, "rb") as file:
            for start, end in zip(self._starts, self._starts[1:], strict=False):
                file.seek(start)
                text = file.read(end - start)
                digest.update(frame_content(text))
                place = side_range(text)
                if place is not None:
                    with side.open("rb") as charges:
                        charges.seek(place[0])
                        digest.update(charges.read(side_length(*place[1:3])))
        return digest.hexdigest()

    def append(self, pairs: Sequence[Pair]) -> list[int]:
        """Append labelled structures in their order; one that is there already is left as it is.

        They are on the disk when this returns. Nothing is written where one of them is refused.

        Parameters
        ----------
        pairs : sequence of (Molecule, Label)

        Returns
        -------
        list of int
            Index of each in the set.

        Raises
        ------
        ConfigError
            A label of another level of theory, one that says it converged and has numbers that are not
            finite or of another shape, or a set that another process is writing to.
        """
        for number, (molecule, label) in enumerate(pairs):
            if label.method != self.method:
                raise _mixed(self, label.method)
            check_label(molecule, label, f"structure {number} to be appended")
        keys = [molecule_key(molecule) for molecule, _ in pairs]
        with locked(self.path):
            self.refresh()
            self._cut()
            new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self._places}
            texts, contents, at = [], [], self._side_end
            for molecule, label in new.values():
                texts.append(frame_text(molecule, label, at))
                contents.append(point_charge_bytes(molecule, label))
                at += len(contents[-1])
            # Whoever finds a frame finds its point charges.
            _write(self.path / "point_charges.bin", b"".join(contents))
            _write(self.path / "structures.xyz", b"".join(texts))
            for text, content in zip(texts, contents, strict=True):
                self._add(text, self._starts[-1] + len(text), len(content))
        return [self._places[key] for key in keys]

    def export(self, path: str | Path, indices: Iterable[int] | None = None) -> int:
        """Write structures that converged as one file of extended XYZ, without point charges.

        Parameters
        ----------
        path : path
        indices : iterable of int, optional
            All by default.

        Returns
        -------
        int
            How many.
        """
        pairs = self.pairs(indices)
        Path(path).write_bytes(b"".join(frame_text(*pair, side=False) for pair in pairs))
        return len(pairs)

    def refresh(self) -> None:
        """Read on where another process has appended.

        Raises
        ------
        ConfigError
            Damage in the middle of a file: nothing after it could be trusted to be what it was.
        """
        path = self.path / "structures.xyz"
        data = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._starts[-1])
                data = file.read()
        self._places = {key: k for k, key in enumerate(self.keys)}
        at, base = 0, self._starts[-1]
        while at < len(data):
            end = frame_end(data, at)
            content = None if end is None else self._side_content(data[at:end])
            if end is None or content is None:
                self._check_tail(data, at)
                logger.warning(
                    "%s ends with %s that were not written completely: left out",
                    path,
                    counted(len(data) - at, "byte"),
                )
                return
            self._add(data[at:end], base + end, content)
            at = end

    def _side_content(self, text: bytes) -> int | None:
        """Bytes of a frame's point charges; None where they are not on the disk as they were written."""
        place = side_range(text)
        if place is None:
            return 0
        offset, count, forces, checksum = place
        length = side_length(count, forces)
        side = self.path / "point_charges.bin"
        if offset != self._side_end or not side.exists():
            return None
        with side.open("rb") as file:
            file.seek(offset)
            content = file.read(length)
        return length if len(content) == length and f"{zlib.crc32(content):08x}" == checksum else None

    def _check_tail(self, data: bytes, at: int) -> None:
        """Refuse damage after which there are whole frames: that is no write that was cut short."""
        line = data.find(b"\n", at)
        while line >= 0:
            if frame_end(data, line + 1) is not None:
                raise ConfigError(
                    f"whole frames in {self.path / 'structures.xyz'}",
                    f"damage in frame {len(self)} (counted from 0) or in its point charges, before others "
                    "that are whole",
                    "put the folder back from a copy, or take that frame out of structures.xyz with an "
                    "editor and import the rest",
                )
            line = data.find(b"\n", line + 1)

    def _add(self, text: bytes, end: int, side: int) -> None:
        head = frame_head(text)
        self._places[head.key] = len(self.keys)
        self.keys.append(head.key)
        self.origins.append(head.origin)
        self._converged.append(head.converged)
        self._starts.append(end)
        self._side_end += side

    def _cut(self) -> None:
        """Take an incomplete frame off the end of both files."""
        for name, size in (("structures.xyz", self._starts[-1]), ("point_charges.bin", self._side_end)):
            path = self.path / name
            if path.exists() and path.stat().st_size > size:
                logger.warning("%s: %s cut off", path, counted(path.stat().st_size - size, "byte"))
                os.truncate(path, size)
                sync(path)


def _mixed(dataset: Dataset, method: str) -> ConfigError:
    return ConfigError(
        f"labels by {dataset.method} for {dataset.path}",
        f"labels by {method}",
        "append them to a data set of their own: energies of two methods have two zeros, and a model trained "
        "on both learns neither",
    )


def _write(path: Path, content: bytes) -> None:
    """Append, and have it on the disk."""
    if content:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
