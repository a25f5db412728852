"""One ATOM line of a PDB file: fixed columns, finite coordinates, and the line number in every complaint."""

from __future__ import annotations

import math
from typing import NamedTuple

from mlmm.errors import StructureError

#: Where the decimal points of x, y and z stand in a PDB line (counted from 0).
_POINTS = {34, 42, 50}


class AtomLine(NamedTuple):
    """The fields of one line that decide which atom it is; coordinates stay in the text (angstrom)."""

    line: int
    name: str
    location: str
    residue_name: str
    chain: str
    number: str
    insertion_code: str
    occupancy: float


def parse_atom_line(line: str, number: int, file: str) -> AtomLine:
    """Read one ATOM or HETATM line.

    Parameters
    ----------
    line : str
        The line as it stands in the file.
    number : int
        Its number, counted from 1.
    file : str
        File name, for messages.

    Raises
    ------
    StructureError
        Fields outside their columns, a line that ends early, or coordinates that are no finite numbers.
    """
    if line[:6] not in ("ATOM  ", "HETATM") or "\t" in line:
        raise _out_of_columns(line, number, file)
    coordinates = _coordinates(line, number, file)
    if not all(math.isfinite(value) for value in coordinates):
        raise StructureError(
            "finite coordinates",
            f"{line[30:54]!r} in line {number} of {file}",
            "correct the line or delete the atom",
        )
    name, residue_name = line[12:16].strip(), line[17:21].strip()
    if not name or not residue_name:
        raise _out_of_columns(line, number, file)
    try:
        occupancy = float(line[54:60])
    except ValueError:
        occupancy = 1.0  # many programs leave the columns blank
    return AtomLine(
        number, name, line[16], residue_name, line[21], line[22:26].strip(), line[26].strip(), occupancy
    )


def _coordinates(line: str, number: int, file: str) -> list[float]:
    """x, y, z in angstrom from columns 31-54, or the reason why they cannot be read."""
    try:
        if len(line.rstrip()) >= 54 or _points(line) >= _POINTS:
            return [float(line[start : start + 8]) for start in (30, 38, 46)]
    except ValueError:
        if "*" in line[30:54]:
            raise StructureError(
                "coordinates between -999.999 and 9999.999 angstrom",
                f"{line[30:54]!r} in line {number} of {file}",
                "move the molecule to the origin and write the file again",
            ) from None
        if _points(line) <= _POINTS:
            raise StructureError(
                "three numbers in columns 31-54",
                f"{line[30:54]!r} in line {number} of {file}",
                "correct the line",
            ) from None
    if _points(line) <= _POINTS:
        raise StructureError(
            "ATOM lines of at least 54 columns",
            f"line {number} of {file}, which ends after {len(line.rstrip())}: {line.rstrip()!r}",
            "the file looks truncated: download or write it again",
        )
    raise _out_of_columns(line, number, file)


def _points(line: str) -> set[int]:
    return {index for index in range(27, min(len(line), 54)) if line[index] == "."}


def _out_of_columns(line: str, number: int, file: str) -> StructureError:
    return StructureError(
        "ATOM lines in the fixed columns of the PDB format (x, y, z in columns 31-54)",
        f"line {number} of {file} with its fields elsewhere: {line.strip()[:80]!r}",
        "write the file again with a program that keeps the columns, such as OpenMM's PDBFile.writeFile",
    )
