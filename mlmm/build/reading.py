"""Reading a structure file: what the text says, checked before any reader guesses.

OpenMM's readers take the first alternate location and the first model in silence, and report most other
trouble without a line number. Everything here works on the text, so that a message can name the line.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from pdbfixer.pdbfixer import proteinResidues

from mlmm.build.fixed_columns import AtomLine, parse_atom_line
from mlmm.errors import StructureError

logger = logging.getLogger(__name__)

#: Names that fix a protonation state; PDB readers turn all of them into the parent residue.
_VARIANTS = {
    **{name: name for name in ("HID", "HIE", "HIP", "ASH", "GLH", "LYN")},
    **{"HSD": "HID", "HSE": "HIE", "HSP": "HIP"},
}
_CAPS = {"ACE", "NME", "NMA", "NH2", "NHE"}
_AMINO_ACIDS = {*proteinResidues, "CYX", "CYM", *_VARIANTS}
_KEPT_RECORDS = ("CRYST1", "SEQRES", "MODRES", "CONECT")


class ResidueKey(NamedTuple):
    """A residue as its author numbered it."""

    chain: str
    number: str
    insertion_code: str


@dataclass(frozen=True)
class StructureText:
    """A checked structure file: one model, one location per atom.

    Parameters
    ----------
    name : str
        File name, for messages.
    sha256 : str
        Checksum of the file as it lies on disk.
    format : str
        ``"pdb"`` or ``"mmcif"``.
    text : str
        What the reader gets; for PDB the cleaned lines, for mmCIF the file.
    space_group : str
        As written in the file, or empty.
    protonation : dict
        Residues whose name in the file fixes the protonation, such as HIP.
    decisions : list of str
        What was chosen among alternatives, in words.
    """

    name: str
    sha256: str
    format: str
    text: str
    space_group: str = ""
    protonation: dict[ResidueKey, str] = field(default_factory=dict)
    decisions: list[str] = field(default_factory=list)


def read_structure(path: str | os.PathLike[str]) -> StructureText:
    """Read a PDB or mmCIF file and choose one location for every atom.

    Raises
    ------
    StructureError
        No such file, a directory, an empty, compressed or binary file, no atoms, lines out of columns,
        coordinates that are no finite numbers, duplicate atoms, or more than one model.
    """
    path = Path(path)
    content = _read_bytes(path)
    sha256 = hashlib.sha256(content).hexdigest()
    text = _decode(content, path.name)
    if text.lstrip().startswith("data_") or "\n_atom_site." in text[:200_000]:
        from mlmm.build.mmcif import check_mmcif

        return StructureText(path.name, sha256, "mmcif", text, space_group=check_mmcif(text, path.name))
    return _clean_pdb(text, path.name, sha256)


def _read_bytes(path: Path) -> bytes:
    """The file's bytes, or an error that says what lies at the path instead."""
    expected = "a PDB or mmCIF file"
    if path.is_dir():
        inside = _structure_files(path)
        raise StructureError(expected, f"the directory {str(path)!r}", f"give a file in it{inside}")
    if not path.exists():
        folder = path.parent if path.parent.is_dir() else Path(".")
        raise StructureError(
            expected,
            f"no file at {str(path)!r}",
            f"check the path; {str(folder)!r}{_structure_files(folder)}",
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StructureError(
            expected, f"{path.name} that cannot be read ({error})", "check its permissions"
        ) from error
    if not content.strip():
        raise StructureError(expected, f"{path.name}, which is empty", "download or write the file again")
    if content[:2] == b"\x1f\x8b":
        raise StructureError(
            f"{expected} as plain text",
            f"{path.name}, which is gzip-compressed",
            f"gunzip it: gzip -dc {path.name} > plain.pdb",
        )
    return content


def _structure_files(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in {".pdb", ".ent", ".cif", ".mmcif"})
    return f" holds {', '.join(names[:5])}" if names else " holds no .pdb or .cif file"


def _decode(content: bytes, name: str) -> str:
    """Text without byte-order mark; remarks in another encoding are harmless, control characters are not."""
    control = sum(content.count(bytes([code])) for code in (*range(9), *range(14, 32)))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
        high = sum(byte > 127 for byte in content)
        control += high if high > len(content) // 10 else 0
    if control:
        raise StructureError(
            "a PDB or mmCIF file as plain text",
            f"{name} with {control} bytes that are no text",
            "give the structure file itself, not an archive, trajectory or database",
        )
    return text


def _clean_pdb(text: str, name: str, sha256: str) -> StructureText:
    """Check every atom line and keep one model and one location of each atom."""
    lines = text.splitlines()
    _check_one_model(lines, name)
    atoms = {}
    for number, line in enumerate(lines, start=1):
        if line.upper().startswith(("ATOM", "HETATM")):
            atoms[number] = parse_atom_line(line, number, name)
    if not atoms:
        raise StructureError(
            "ATOM or HETATM records",
            f"none in the {len(lines)} lines of {name}",
            "give a PDB file with coordinates",
        )
    space_group = _check_cell(lines, name)
    decisions: list[str] = []
    protonation: dict[ResidueKey, str] = {}
    kept: dict[int, AtomLine] = {}
    starts_chain: set[int] = set()
    previous_is_polymer, previous_chain = False, None
    for key, residue in _residues(atoms):
        residue, decision = _choose_location(key, residue)
        decisions += decision
        _check_duplicates(key, residue, name)
        polymer = _is_polymer(residue)
        if previous_chain == key.chain and polymer != previous_is_polymer:
            # A ligand written without TER after a protein would hide the protein's end from every later step.
            starts_chain.add(residue[0].line)
        previous_is_polymer, previous_chain = polymer, key.chain
        kept.update({atom.line: atom for atom in residue})
        if polymer and residue[0].residue_name in _VARIANTS:
            protonation[key] = _VARIANTS[residue[0].residue_name]
    cleaned = []
    for number, line in enumerate(lines, start=1):
        if number in kept:
            if number in starts_chain:
                cleaned.append("TER")
            cleaned.append(line[:16] + " " + line[17:])
        elif line.startswith(_KEPT_RECORDS) or line.split()[:1] == ["TER"]:
            cleaned.append(line)
    for decision in decisions:
        logger.info("%s: %s", name, decision)
    return StructureText(
        name, sha256, "pdb", "\n".join([*cleaned, "END", ""]), space_group, protonation, decisions
    )


def _check_one_model(lines: list[str], name: str) -> None:
    """More than one set of coordinates: which one to simulate is for the user to say."""
    models = [number for number, line in enumerate(lines, start=1) if line.split()[:1] == ["MODEL"]]
    if len(models) > 1:
        raise StructureError(
            "one model",
            f"{len(models)} in {name} (MODEL records in lines {models[0]}, {models[1]} ...)",
            "keep the lines of one of them, from its MODEL to its ENDMDL record",
        )
    end = next((n for n, line in enumerate(lines, start=1) if line.rstrip() == "END"), len(lines))
    later = next(
        (n for n, line in enumerate(lines[end:], start=end + 1) if line.startswith(("ATOM", "HETATM"))), None
    )
    if later is not None:
        raise StructureError(
            "one model",
            f"{name} with atoms in line {later}, after the END in line {end}",
            "keep one frame of the file",
        )


def _check_cell(lines: list[str], name: str) -> str:
    """Space group of the CRYST1 record, whose six numbers must be numbers."""
    for number, line in enumerate(lines, start=1):
        if line.startswith("CRYST1"):
            columns = ((6, 15), (15, 24), (24, 33), (33, 40), (40, 47), (47, 54))
            try:
                cell = [float(line[start:end]) for start, end in columns]
            except ValueError:
                cell = [math.nan]
            if not all(math.isfinite(value) and value >= 0 for value in cell):
                raise StructureError(
                    "six numbers a, b, c, alpha, beta, gamma in the CRYST1 record",
                    f"{line.rstrip()!r} in line {number} of {name}",
                    "correct the record or delete the line",
                )
            return line[55:66].strip()
    return ""


def _residues(atoms: dict[int, AtomLine]) -> Iterator[tuple[ResidueKey, list[AtomLine]]]:
    """Runs of neighbouring atom lines with the same chain, number and insertion code."""
    for key, group in groupby(atoms.values(), key=lambda a: ResidueKey(a.chain, a.number, a.insertion_code)):
        yield key, list(group)


def _choose_location(key: ResidueKey, atoms: list[AtomLine]) -> tuple[list[AtomLine], list[str]]:
    """Keep the alternate location with the highest summed occupancy, one letter for the whole residue.

    Mixing letters within a residue would join halves of two conformations. A residue whose locations have
    different residue names (microheterogeneity) is settled by the same rule.
    """
    occupancy: dict[str, float] = {}
    for atom in atoms:
        if atom.location != " ":
            occupancy[atom.location] = occupancy.get(atom.location, 0.0) + atom.occupancy
    if not occupancy:
        return atoms, []
    chosen = min(occupancy, key=lambda letter: (-round(occupancy[letter], 6), letter))
    kept = [atom for atom in atoms if atom.location in (" ", chosen)]
    if len(occupancy) == 1:
        return kept, []
    names = sorted({atom.residue_name for atom in atoms})
    sums = ", ".join(f"{letter} {total:.2f}" for letter, total in sorted(occupancy.items()))
    return kept, [
        f"{'/'.join(names)} {describe(key)}: alternate location {chosen} taken (summed occupancies {sums})"
    ]


def _check_duplicates(key: ResidueKey, atoms: list[AtomLine], name: str) -> None:
    """Two atoms with one name: readers drop the second, or merge two residues with the same number."""
    first: dict[tuple[str, str], AtomLine] = {}
    for atom in atoms:
        identity = (atom.residue_name, atom.name)
        if identity in first:
            raise StructureError(
                "every atom name once per residue",
                f"{atom.name} of {atom.residue_name} {describe(key)} in lines {first[identity].line} and "
                f"{atom.line} of {name}",
                "delete one of the lines, or number the residues so that neighbours differ",
            )
        first[identity] = atom


def _is_polymer(atoms: list[AtomLine]) -> bool:
    """Whether a residue is a link of a protein or nucleic-acid chain, judged by its name or its backbone."""
    names = {atom.name for atom in atoms}
    known = atoms[0].residue_name in _AMINO_ACIDS | _CAPS
    return known or {"N", "CA", "C"} <= names or {"C3'", "O3'"} <= names or {"C3*", "O3*"} <= names


def describe(key: ResidueKey) -> str:
    """``"12A of chain B"``."""
    chain = f" of chain {key.chain}" if key.chain.strip() else ""
    return f"{key.number}{key.insertion_code}{chain}"
