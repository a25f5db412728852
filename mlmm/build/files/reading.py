"""Reading a structure file: bytes, text, records; then the choice of what to build.

OpenMM's readers take the first alternate location and the first model in silence, and report most other
trouble without a line number. Everything here works on the text, so that a message can name the line.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import (
    VARIANTS,
    AtomRecord,
    CheckedStructure,
    Connection,
    ResidueKey,
    StructureFile,
    coordinates,
    describe_key,
    is_polymer,
    residues,
)
from mlmm.build.files.free_residues import mark_free
from mlmm.build.files.hydrogen_names import settle_hydrogen_names
from mlmm.build.files.mmcif import parse_mmcif
from mlmm.build.files.names import settle_chains, settle_names
from mlmm.build.files.pdb_text import parse_pdb
from mlmm.build.files.sanity import check_all_chains, check_ended, check_place, look_over
from mlmm.build.files.selection import Selection, choose_chains, choose_locations, choose_model, leave_out
from mlmm.build.files.sequences import missing_segments
from mlmm.errors import StructureError
from mlmm.short_repr import counted

logger = logging.getLogger(__name__)

_SUFFIXES = {".pdb", ".ent", ".cif", ".mmcif", ".gz"}
_LONGEST_BOND = 0.26  # nm; I-I is 0.267, everything else in a biomolecule is shorter
_OTHER_FORMATS = {
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ": "xz-compressed",
    b"PK\x03\x04": "a zip archive",
    b"%PDF": "a PDF document",
}


def read_structure(path: str | os.PathLike[str], selection: Selection | None = None) -> CheckedStructure:
    """Read a PDB or mmCIF file (gzip or not) and settle what it leaves open.

    Raises
    ------
    StructureError
        No such file, a directory, an empty or binary file, no atoms, lines out of columns, coordinates that
        are no finite numbers, duplicate atoms, several models and none chosen, or no molecule to be seen.
    """
    return settle(read_file(path), selection or Selection())


def read_file(path: str | os.PathLike[str]) -> StructureFile:
    """Read the records of a file; nothing is chosen yet.

    Raises
    ------
    StructureError
    """
    path = Path(path)
    content, sha256 = _read_bytes(path)
    text = _decode(content, path.name)
    if text.lstrip().startswith("data_") or "\n_atom_site." in text[:200_000]:
        return parse_mmcif(text, path.name, sha256)
    return parse_pdb(text, path.name, sha256)


def settle(file: StructureFile, selection: Selection) -> CheckedStructure:
    """Choose model, locations, chains, waters and hydrogens, and check that the rest is a molecule.

    Raises
    ------
    StructureError
        The message names the line (mmCIF: the row of atom_site) and the next step.
    """
    atoms, decisions = settle_names(file)
    decisions = [*file.notes, *decisions]
    atoms = choose_model(file, atoms, selection.model)
    if selection.model:
        decisions.append(Decision("select", "model", f"model {selection.model} taken"))
    atoms, more = choose_locations(file, atoms)
    decisions += more
    atoms, more = settle_chains(atoms, file.name)
    decisions += more
    atoms = mark_free(atoms)
    atoms, more = choose_chains(file, atoms, selection)
    decisions += more
    atoms, more = leave_out(file, atoms, selection)
    decisions += more
    atoms, more = settle_hydrogen_names(file, atoms)
    decisions += more
    atoms, more = check_place(file, atoms)
    decisions += more
    decisions += look_over(file, atoms)
    runs = _runs(atoms)
    bonds, more = _bonds(file, atoms)
    decisions += more
    structure = CheckedStructure(
        name=file.name,
        sha256=file.sha256,
        format=file.format,
        atoms=tuple(atoms),
        runs=runs,
        bonds=bonds,
        cell=file.cell,
        space_group=file.space_group,
        replacements=file.replacements,
        protonation=_protonation(atoms),
        ended=file.ended,
        decisions=decisions,
    )
    return _with_missing(file, structure)


def _read_bytes(path: Path) -> tuple[bytes, str]:
    """The file's bytes, unpacked, and its checksum; or an error that says what lies at the path instead."""
    expected = "a PDB or mmCIF file"
    try:
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
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path, or our own
        if isinstance(error, StructureError):
            raise
        raise StructureError(
            expected, f"{path.name} that cannot be read ({error})", "check its permissions"
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise StructureError(
                f"{expected}, gzip-compressed or not",
                f"{path.name}, which cannot be unpacked ({error})",
                "download it again",
            ) from error
    if not content.strip():
        raise StructureError(expected, f"{path.name}, which is empty", "download or write the file again")
    return content, sha256


def _structure_files(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES)
    return f" holds {', '.join(names[:5])}" if names else " holds no .pdb or .cif file"


def _decode(content: bytes, name: str) -> str:
    """Text without byte-order mark; remarks in another encoding are harmless, control characters are not."""
    other = next((kind for start, kind in _OTHER_FORMATS.items() if content.startswith(start)), "")
    control = sum(content.count(bytes([code])) for code in (*range(9), *range(14, 32), 127))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
        high = sum(byte > 127 for byte in content)
        control += high if high > len(content) // 10 else 0
    if control or other:
        raise StructureError(
            "a PDB or mmCIF file as plain text or gzip",
            f"{name}, {other}" if other else f"{name} with {control} bytes that are no text",
            "give the structure file itself, not an archive, trajectory or database",
        )
    return text


def _runs(atoms: list[AtomRecord]) -> tuple[int, ...]:
    """Starts of the topology's chains: a new id, a TER, and between polymer and everything else.

    A ligand written without TER after a protein would hide the protein's end from every later step.
    """
    starts, before, index = [], None, 0
    for group in residues(atoms):
        first = group[0]
        link = is_polymer(group)
        # What stands behind the polymers of a chain (ions, ligands, waters) is one run in both formats;
        # OpenMM would join two free amino acids that follow each other.
        place = (first.part, first.label_chain) if link else first.key if first.free else None
        now = (first.chain, link, place)
        if now != before:
            starts.append(index)
        before = now
        index += len(group)
    return tuple(starts)


def _bonds(file: StructureFile, atoms: list[AtomRecord]) -> tuple[tuple[Connection, ...], list[Decision]]:
    """The file's connections between atoms that are kept, without those that are too long for a bond."""
    places: dict[int, list[int]] = {}
    for index, atom in enumerate(atoms):
        places.setdefault(atom.line, []).append(index)
    points = coordinates(atoms)
    bonds: list[Connection] = []
    long: list[tuple[int, int, float, str]] = []
    for one, other, source in file.connections:
        for i, j in zip(
            places.get(file.atoms[one].line, []), places.get(file.atoms[other].line, []), strict=False
        ):
            distance = float(np.linalg.norm(points[i] - points[j]))
            if distance <= _LONGEST_BOND:
                bonds.append(Connection(i, j, source))
            else:
                long.append((i, j, distance, source))
    decisions = []
    if long:
        i, j, distance, source = max(long, key=lambda entry: (entry[3] != "CONECT", entry[2]))
        ends = " and ".join(
            f"{atom.name} of {describe_key(atom.residue_name, atom.key)}" for atom in (atoms[i], atoms[j])
        )
        text = (
            f"{counted(len(long), 'connection')} longer than {_LONGEST_BOND} nm left out, as no bonds ("
            f"{distance:.3f} nm, {ends}, {source})"
        )
        numbers, warning = {"connections": len(long)}, source != "CONECT"
        decisions.append(Decision("read", "CONECT", text, numbers=numbers, warning=warning))
    return tuple(bonds), decisions


def _protonation(atoms: list[AtomRecord]) -> dict[ResidueKey, str]:
    return {
        group[0].key: VARIANTS[group[0].residue_name]
        for group in residues(atoms)
        if group[0].residue_name in VARIANTS
    }


def _with_missing(file: StructureFile, structure: CheckedStructure) -> CheckedStructure:
    """Add the residues of the sequence that have no coordinates."""
    runs = structure.residues_of_runs()
    present = {group[0].chain for run in runs for group in run}
    sequences = {c: s for c, s in file.sequences.items() if c in present or len(file.sequences) == 1}
    if len(sequences) == 1 and not set(sequences) & present:
        sequences = {runs[0][0][0].chain: next(iter(sequences.values()))}  # a sequence without chain id
    parents = {name: parent for (_, name), parent in file.replacements.items()}
    segments, decisions = missing_segments(runs, sequences, parents)
    polymers = [i for i, run in enumerate(runs) if is_polymer(run[0])]
    if polymers:
        run = runs[polymers[-1]]
        chain = run[0][0].chain
        at_end = sum(len(s.names) for s in segments if (s.run, s.position) == (polymers[-1], len(run)))
        decisions += check_ended(file, run[-1], len(sequences.get(chain, ())), at_end)
    decisions += check_all_chains(file)
    return replace(structure, missing=tuple(segments), decisions=[*structure.decisions, *decisions])
