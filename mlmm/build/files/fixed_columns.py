"""Fixed columns of the ATOM records of a PDB file; every error names the line."""

from __future__ import annotations

import math
from functools import cache

from openmm.app.element import get_by_symbol

from mlmm.build.files.atoms import AtomRecord
from mlmm.errors import StructureError

#: Where the decimal points of x, y and z stand in a PDB line (counted from 0).
_POINTS = {34, 42, 50}
FARTHEST = 1e6  # angstrom; columns hold 9999.999, but also 1e300
_WIDTH = 4  # columns of a residue number


def parse_atom_line(line: str, number: int, file: str) -> AtomRecord:
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
    if line[:6].upper() not in ("ATOM  ", "HETATM") or "\t" in line:
        raise _out_of_columns(line, number, file)
    position = _coordinates(line, number, file)
    if not all(abs(value) < FARTHEST for value in position):  # nan is not below anything
        raise StructureError(
            "finite coordinates",
            f"{line[30:54]!r} in line {number} of {file}",
            "correct the line or delete the atom",
        )
    name, residue_name = line[12:16].strip(), line[17:21].strip()
    if not name or not residue_name:
        raise _out_of_columns(line, number, file)
    x, y, z = (0.1 * value for value in position)
    residue_number, insertion_code = _residue_number(line, number, file)
    return AtomRecord(
        line=number,
        hetero=line[:6].upper() == "HETATM",
        serial=line[6:11].strip(),
        name=name,
        location=line[16],
        residue_name=residue_name,
        chain=line[21].strip(),
        number=residue_number,
        insertion_code=insertion_code,
        x=x,
        y=y,
        z=z,
        occupancy=_occupancy(line[54:60]),
        element=_element(line[76:78]),
        charge=_charge(line[78:80]),
        column=line[12:16],
    )


def _residue_number(line: str, number: int, file: str) -> tuple[str, str]:
    """Columns 23-27: a number of four digits (above 9999 in base 36), then the insertion code."""
    text, code = line[22:26].strip(), line[26].strip()
    if len(text) == _WIDTH and text[0].isalpha() and text.isalnum():
        text = str(_hybrid36(text))
    elif len(text) == _WIDTH and text.isdigit() and code.isdigit():
        text, code = text + code, ""  # five digits, the last in the column of the insertion code
    digits = text[1:] if text.startswith("-") else text
    if not digits.isascii() or not digits.isdigit():
        raise StructureError(
            "a whole residue number in columns 23-26",
            f"{line[22:27]!r} in line {number} of {file}",
            "number the residues; several identical molecules may share a number in different chains",
        )
    return str(int(text)), code


def _hybrid36(text: str) -> int:
    """Four characters above 9999: A000 is 10000, a000 follows ZZZZ (cci.lbl.gov/hybrid_36)."""
    start = 10 ** len(text) - 10 * 36 ** (len(text) - 1)
    shift = 0 if text[0].isupper() else 26 * 36 ** (len(text) - 1)
    return int(text, 36) + start + shift


def _occupancy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 1.0  # many programs leave the columns blank
    return value if math.isfinite(value) else 1.0


@cache
def _element(columns: str) -> str:
    """Element symbol in columns 77-78; other text (an entry name in files before 1996) is ignored."""
    try:
        return get_by_symbol(columns.strip().upper()).symbol.upper()
    except KeyError:
        return ""


def _charge(text: str) -> int | None:
    """Formal charge written as ``2-`` or ``-2``; None for anything else."""
    digits, sign = text.strip("+-"), text.strip("0123456789")
    return int(digits) * (-1 if sign == "-" else 1) if digits.isdigit() and sign in ("+", "-") else None


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
