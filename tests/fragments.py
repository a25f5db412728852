"""Structures that are not shipped, and ways to spoil the lines of a PDB file."""

import os
from pathlib import Path

FOLDERS = [Path(folder) for folder in os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep) if folder]


def structure_file(name):
    """Path of a structure in the folders of MLMM_STRUCTURES, or None."""
    return next((folder / name for folder in FOLDERS if (folder / name).is_file()), None)


def put(line, column, text):
    """The line with other text from a column, counted from 1."""
    line = line.ljust(80)
    return (line[: column - 1] + text + line[column - 1 + len(text) :]).rstrip()


def moved(line, x=0.0, y=0.0, z=0.0, factor=1.0, signs=(1, 1, 1)):
    """The line with changed coordinates, angstrom."""
    old = [float(line[start : start + 8]) for start in (30, 38, 46)]
    new = [s * factor * value + shift for value, shift, s in zip(old, (x, y, z), signs, strict=True)]
    return put(line, 31, "".join(f"{value:8.3f}" for value in new))


def number(line):
    """Residue number of a line."""
    return int(line[22:26])


def name(line):
    """Atom name of a line."""
    return line[12:16].strip()


def hetatm(serial, atom, residue, chain, residue_number, place, element):
    """A HETATM line; `atom` with its four columns, place in angstrom."""
    x, y, z = place
    return (
        f"HETATM{serial:5d} {atom:4s} {residue:>3s} {chain}{residue_number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"  1.00  0.00          {element:>2s}"
    )
