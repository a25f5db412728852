"""Labelled structures of a file in extended XYZ: energies in eV, forces in eV/Å, as ASE writes them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError
from mlmm.learning.dataset.store import Dataset
from mlmm.learning.training.targets import Sample
from mlmm.reference.labels import Label, Molecule
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["read_labels", "write_labels"]

_ENTRY = re.compile(r'(\w+)=("[^"]*"|\S+)')
_FORCE = ELECTRONVOLT / ANGSTROM


def read_labels(path: str | Path) -> list[Sample]:
    """Read structures with ``energy`` and ``forces``; a folder is a data set.

    Entries ``charge``, ``multiplicity``, ``method``, ``converged`` and ``origin_…`` are taken over.

    Raises
    ------
    ConfigError
        No such file, or a frame that is cut short or has no energy: names its line.
    """
    path = Path(path)
    if path.is_dir():
        return Dataset(path).pairs()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"labels in extended XYZ in {path}",
            str(error),
            "give a file with energy and forces of each frame",
        ) from error
    found, at = [], 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        try:
            count = int(lines[at])
            rows = [line.split() for line in lines[at + 2 : at + 2 + count]]
            if len(rows) < count or count < 1:
                raise ValueError("fewer atoms than announced")
            found.append(_frame(lines[at + 1], rows))
        except (ValueError, IndexError, KeyError) as error:
            what = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"labelled structures in extended XYZ in {path}",
                f"{what} in the frame of line {at + 1}",
                "correct the file; every frame needs energy=… in eV",
            ) from error
        at += 2 + count
    return found


def _frame(comment: str, rows: list[list[str]]) -> Sample:
    """Molecule and label of one frame."""
    entries = {name: value.strip('"') for name, value in _ENTRY.findall(comment)}
    properties = entries.get("Properties", "species:S:1:pos:R:3").split(":")
    at, columns = 0, {}
    for k in range(0, len(properties), 3):
        columns[properties[k]] = slice(at, at + int(properties[k + 2]))
        at += int(properties[k + 2])
    if any(len(row) < at for row in rows):
        raise ValueError(f"rows of fewer than {at} columns")

    def numbers_of(name: str) -> np.ndarray:
        return np.array([[float(x) for x in row[columns[name]]] for row in rows])

    origin = {name[7:]: value for name, value in entries.items() if name.startswith("origin_")}
    molecule = Molecule(
        np.array([SYMBOLS.index(row[columns["species"]][0]) for row in rows]),
        numbers_of("pos") * ANGSTROM,
        int(entries.get("charge", 0)),
        int(entries.get("multiplicity", 1)),
        origin=origin,
    )
    label = Label(
        float(entries["energy"]) * ELECTRONVOLT,
        numbers_of("forces") * _FORCE if "forces" in columns else None,
        converged=entries.get("converged", "T") in ("T", "True", "true", "1"),
        method=entries.get("method", "not stated"),
    )
    return molecule, label


def write_labels(path: str | Path, samples: list[Sample]) -> None:
    """Write structures and labels as `read_labels` reads them; all digits are kept."""
    lines = []
    for molecule, label in samples:
        entries = ["Properties=species:S:1:pos:R:3" + (":forces:R:3" if label.forces is not None else "")]
        entries += [f"energy={label.energy / ELECTRONVOLT!r}", f"charge={molecule.charge}"]
        entries += [f"multiplicity={molecule.multiplicity}", f"converged={'T' if label.converged else 'F'}"]
        entries += [f'method="{label.method}"', 'pbc="F F F"']
        entries += [f'origin_{name}="{value}"' for name, value in molecule.origin.items()]
        table = molecule.positions / ANGSTROM
        if label.forces is not None:
            table = np.hstack([table, np.asarray(label.forces) / _FORCE])
        lines += [str(len(molecule)), " ".join(entries)]
        for z, row in zip(molecule.numbers, table.tolist(), strict=True):
            lines.append(f"{SYMBOLS[z]} " + " ".join(map(repr, row)))
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
