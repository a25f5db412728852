"""Reader of PDB text; every error names the line."""

from __future__ import annotations

import logging
import math

import gemmi
import numpy as np

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import Assembly, AtomRecord, Connection, ResidueKey, StructureFile
from mlmm.build.files.fixed_columns import parse_atom_line
from mlmm.build.files.links import read_links
from mlmm.errors import StructureError

logger = logging.getLogger(__name__)

_MANY = 0.02  # share of impossible occupancies that no refinement program writes


def parse_pdb(text: str, name: str, sha256: str) -> StructureFile:
    """Read PDB text.

    Raises
    ------
    StructureError
        No atoms, lines out of columns, coordinates that are no finite numbers, atoms after END, a CRYST1
        record without numbers, or charges and radii (PQR) in place of occupancies.
    """
    lines = text.splitlines()
    _check_end(lines, name)
    atoms = _atoms(lines, name)
    if not atoms:
        raise StructureError(
            "ATOM or HETATM records",
            f"none in the {len(lines)} lines of {name}",
            "give a PDB file with coordinates",
        )
    _check_pqr(atoms, name)
    cell, space_group = _cell(lines, name)
    connections, notes = _connections(lines, atoms)
    links, remarks = read_links(lines, atoms)
    notes += remarks
    last = atoms[-1].line
    ended = any(
        line.split()[:1] for line in lines[last:] if line.startswith(("END", "TER", "MASTER", "CONECT"))
    )
    assemblies, more = _assemblies(lines)
    return StructureFile(
        name=name,
        sha256=sha256,
        format="pdb",
        atoms=tuple(atoms),
        cell=cell,
        space_group=space_group,
        sequences=_sequences(lines),
        replacements=_replacements(lines),
        connections=(*connections, *links),
        assemblies=assemblies,
        ended=ended,
        notes=(*notes, *more, *_count_note(lines, atoms)),
    )


def _check_end(lines: list[str], name: str) -> None:
    """Refuse atoms after END: a trajectory as frames, of which a reader would take the first or all."""
    end = next((n for n, line in enumerate(lines, start=1) if line.rstrip() == "END"), len(lines))
    later = next(
        (
            n
            for n, line in enumerate(lines[end:], start=end + 1)
            if line.upper().startswith(("ATOM", "HETATM"))
        ),
        None,
    )
    if later is not None:
        raise StructureError(
            "one model",
            f"{name} with atoms in line {later}, after the END in line {end}",
            "keep one frame of the file",
        )


def _atoms(lines: list[str], name: str) -> list[AtomRecord]:
    atoms, part, model, models = [], 0, 1, 0
    for number, line in enumerate(lines, start=1):
        record = line[:6].upper()
        if record.startswith(("ATOM", "HETATM")):
            atoms.append(parse_atom_line(line, number, name)._replace(model=model, part=part))
        elif record.split()[:1] == ["TER"]:
            part += 1
        elif record.split()[:1] == ["MODEL"]:
            models += 1
            number_given = line[6:].split()[:1]
            model = int(number_given[0]) if number_given and number_given[0].isdecimal() else models
    return atoms


def _check_pqr(atoms: list[AtomRecord], name: str) -> None:
    """Refuse a PQR file, whose charges and radii would be read as occupancies and B-factors."""
    impossible = [atom for atom in atoms if not 0 <= atom.occupancy <= 1.0]
    if name.lower().endswith(".pqr") or len(impossible) > max(1, _MANY * len(atoms)):
        shown = f" (occupancy {impossible[0].occupancy:g} in line {impossible[0].line})" if impossible else ""
        raise StructureError(
            "occupancies between 0 and 1 in columns 55-60",
            f"{name} with charges and radii there{shown}: a PQR file",
            "give the PDB file from which it was made; charges come from the force field",
        )


def _cell(lines: list[str], name: str) -> tuple[tuple[float, ...] | None, str]:
    """Cell (nm, degrees) and space group of the CRYST1 record, whose six numbers must be numbers."""
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
            return (*(0.1 * edge for edge in cell[:3]), *cell[3:]), line[55:66].strip()
    return None, ""


def _sequences(lines: list[str]) -> dict[str, tuple[str, ...]]:
    sequences: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if line.startswith("SEQRES"):
            chain = line[11:12].strip()
            sequences[chain] = sequences.get(chain, ()) + tuple(line[19:70].upper().split())
    return sequences


def _replacements(lines: list[str]) -> dict[tuple[ResidueKey, str], str]:
    found = {}
    for line in lines:
        if line.startswith("MODRES") and line[24:27].strip():
            key = ResidueKey(line[16:17].strip(), line[18:22].strip(), line[22:23].strip())
            found[key, line[12:15].strip().upper()] = line[24:27].strip().upper()
    return found


def _connections(lines: list[str], atoms: list[AtomRecord]) -> tuple[list[Connection], list[Decision]]:
    """Pairs of atoms from CONECT records; serial numbers that stand for no or several atoms are left out."""
    first = atoms[0].model
    places: dict[str, int | None] = {}
    for index, atom in enumerate(atoms):
        if atom.model == first:
            places[atom.serial] = None if atom.serial in places else index
    pairs: set[tuple[int, int]] = set()
    bad: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.startswith("CONECT"):
            continue
        serials = [line[start : start + 5].strip() for start in range(6, 31, 5)]
        indices = [places.get(serial) for serial in serials if serial]
        if not indices or None in indices or len(indices) == 1:
            bad.append(number)
        if indices and indices[0] is not None:
            pairs |= {
                (min(indices[0], i), max(indices[0], i)) for i in indices[1:] if i not in (None, indices[0])
            }
    notes = []
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")
        notes.append(
            Decision(
                "read",
                "CONECT",
                f"{len(bad)} CONECT records (lines {shown}) name atoms that are not in the file or "
                "share their serial number with another: those bonds are ignored",
                numbers={"lines": bad[:20]},
                warning=True,
            )
        )
    return [Connection(*pair, "CONECT") for pair in sorted(pairs)], notes


def _assemblies(lines: list[str]) -> tuple[tuple[Assembly, ...], list[Decision]]:
    """Biological units of REMARK 350."""
    remarks = [line for line in lines if line.startswith("REMARK 350")]
    if not remarks:
        return (), []
    try:
        described = gemmi.read_pdb_string("\n".join(remarks) + "\n")
        return tuple(assembly_of(assembly) for assembly in described.assemblies), []
    except (RuntimeError, ValueError) as error:
        return (), [
            Decision("read", "assembly", f"REMARK 350 cannot be read ({error}): no assemblies", warning=True)
        ]


def assembly_of(assembly: gemmi.Assembly) -> Assembly:
    """Biological unit with its shifts converted to nm."""
    copies = []
    by_label = False
    for generator in assembly.generators:
        by_label = by_label or bool(generator.subchains)
        for operator in generator.operators:
            rotation = np.array(operator.transform.mat.tolist(), dtype=float)
            shift = 0.1 * np.array(operator.transform.vec.tolist(), dtype=float)
            copies.append((tuple(generator.subchains or generator.chains), rotation, shift))
    return Assembly(assembly.name, assembly.oligomeric_details.lower(), tuple(copies), by_label)


def _count_note(lines: list[str], atoms: list[AtomRecord]) -> list[Decision]:
    """The MASTER record counts the atoms: fewer mean a file that was edited or cut.

    More mean nothing: wwPDB leaves alternate locations out of the count, and sometimes hydrogens or models.
    """
    for line in lines:
        if line.startswith("MASTER") and line[50:55].strip().isdecimal():
            counted = int(line[50:55])
            if len(atoms) < counted:
                return [
                    Decision(
                        "read",
                        "atoms",
                        f"{len(atoms)} atoms where the MASTER record counts {counted}: the file was edited",
                        numbers={"atoms": len(atoms), "master": counted},
                    )
                ]
    return []
