"""Bonds between residues in the LINK, LINKR and SSBOND records of a PDB file."""

from __future__ import annotations

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import METALS, AtomRecord, Connection, ResidueKey

__all__ = ["linked_pairs", "read_links"]

#: Columns of (atom, residue name, chain, number, insertion code) of both partners.
_LINK = (
    ((12, 16), (17, 21), (21, 22), (22, 26), (26, 27)),
    ((42, 46), (47, 51), (51, 52), (52, 56), (56, 57)),
)
_SSBOND = (((11, 14), (15, 16), (17, 21), (21, 22)), ((25, 28), (29, 30), (31, 35), (35, 36)))
_SYMMETRY = ((59, 65), (66, 72))


def read_links(lines: list[str], atoms: list[AtomRecord]) -> tuple[list[Connection], list[Decision]]:
    """Pairs of atoms that LINK and SSBOND records name, in one asymmetric unit.

    Coordination of metals is left out: it is no bond of these force fields.
    """
    places = _places(atoms)
    found: list[Connection] = []
    absent: list[int] = []
    for number, line in enumerate(lines, start=1):
        record = line[:6].rstrip()
        if record in ("LINK", "LINKR"):
            keys = [_partner(line, columns) for columns in _LINK]
        elif record == "SSBOND":
            keys = [_partner(line, ((0, 0), *columns), "SG") for columns in _SSBOND]
        else:
            continue
        here, there = (line[start:end].strip() or "1555" for start, end in _SYMMETRY)
        if here != there:
            continue
        ends = [places.get(key, []) for key in keys]
        if not all(ends):
            absent.append(number)
            continue
        found += linked_pairs(atoms, ends[0], ends[1], record.removesuffix("R"))
    if not absent:
        return found, []
    shown = ", ".join(map(str, absent[:5])) + (" ..." if len(absent) > 5 else "")
    text = f"{len(absent)} LINK or SSBOND records (lines {shown}) name absent atoms: ignored"
    return found, [Decision("read", "LINK", text, numbers={"lines": absent[:20]}, warning=True)]


def linked_pairs(
    atoms: list[AtomRecord], ones: list[int], others: list[int], source: str
) -> list[Connection]:
    """Connections of the same alternate location between two lists of places; none to a metal."""
    pairs = []
    for i in ones:
        for j in others:
            letters = {atoms[i].location, atoms[j].location} - {" "}
            metal = {atoms[i].element, atoms[j].element} & METALS
            if i != j and len(letters) < 2 and not metal:
                pairs.append(Connection(min(i, j), max(i, j), source))
    return pairs


def _places(atoms: list[AtomRecord]) -> dict[tuple[str, str, ResidueKey], list[int]]:
    first = atoms[0].model
    places: dict[tuple[str, str, ResidueKey], list[int]] = {}
    for index, atom in enumerate(atoms):
        if atom.model == first:
            places.setdefault((atom.name, atom.residue_name, atom.key), []).append(index)
    return places


def _partner(line: str, columns: tuple[tuple[int, int], ...], atom: str = "") -> tuple[str, str, ResidueKey]:
    name, residue, chain, number, code = (line[start:end].strip() for start, end in columns)
    return (atom or name, residue, ResidueKey(chain, number.lstrip("0") or number, code))
