"""The reactive region: atoms from a selection, completed to residues or molecules; bonds it cuts."""

from __future__ import annotations

import difflib
import itertools
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlmm.errors import SelectionError
from mlmm.short_repr import ShortRepr, shortened

__all__ = [
    "Region",
    "check_selection",
    "molecules_of",
    "region_from_atoms",
    "select_atoms",
    "select_region",
]

logger = logging.getLogger(__name__)
_LONG = 50  # characters
_KEYWORDS = (
    *("all", "none", "and", "or", "not", "to", "backbone", "sidechain", "protein", "nucleic", "water"),
    *(
        "name",
        "index",
        "element",
        "mass",
        "type",
        "symbol",
        "resname",
        "resid",
        "resSeq",
        "residue",
        "rescode",
    ),
    *("chainid", "segname", "n_bonds"),
)
#: Keywords that take values, side by side: mdtraj reads a misspelt "and" as one value more.
_WITH_VALUES = (
    *("name", "index", "element", "mass", "symbol", "resname", "resn", "resid", "resi", "resSeq", "residue"),
    *("chainid", "segname", "segment_id"),
)
_VALUES = re.compile(rf"\b({'|'.join(_WITH_VALUES)})\s+((?:(?!(?:and|or|not|to)\b)\w+'*\s*)+)")
_COMPLETIONS = ("atoms", "residue", "molecule")


@dataclass(frozen=True, repr=False)
class Region(ShortRepr):
    """The atoms that the machine-learned potential describes.

    Parameters
    ----------
    atoms : tuple of int
        Sorted indices.
    cut_bonds : tuple of (int, int)
        Covalent bonds of the topology with one end inside (first) and one outside (second).
    selection : str
        What the user asked for.
    residues : tuple of str
        Residues that have atoms inside, as name + number.
    notes : tuple of str
        What was added to complete it.
    """

    atoms: tuple[int, ...]
    cut_bonds: tuple[tuple[int, int], ...]
    selection: str
    residues: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def _summary(self) -> dict[str, str]:
        return {
            "atoms": f"{len(self.atoms):,}",
            "selection": shortened(self.selection),
            "residues": shortened(", ".join(self.residues)),
            "cut bonds": str(len(self.cut_bonds) or ""),
        }

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def label(self) -> str:
        """The selection, or the first of its residues where it is too long for a caption."""
        if len(self.selection) <= _LONG:
            return self.selection
        more = f" and {len(self.residues) - 3} more residues" if len(self.residues) > 3 else ""
        return f"{', '.join(self.residues[:3])}{more}"


def select_region(built: Any, selection: str, complete: str = "residue") -> Region:
    """Choose the region with an mdtraj selection.

    Parameters
    ----------
    built : BuiltSystem
    selection : str
        mdtraj's selection language, for instance ``"resname TMP"`` or ``"chainid 0 and resSeq 99"``.
    complete : {"residue", "molecule", "atoms"}
        Grow the selection to whole residues (default), to whole molecules, or take it as it is.

    Raises
    ------
    SelectionError
        A selection that mdtraj does not understand, or one that matches nothing.
    """
    return region_from_atoms(built.topology, select_atoms(built, selection), complete, selection)


def select_atoms(built: Any, selection: str) -> list[int]:
    """Indices of the atoms of an mdtraj selection, sorted; arguments and errors as for `select_region`."""
    import mdtraj

    picked = _select(mdtraj.Topology.from_openmm(built.topology), selection)
    _warn_of_absent_names(built.topology, selection)
    if len(picked) == 0:
        names = sorted({residue.name for residue in built.topology.residues()})
        raise SelectionError(
            "a selection that matches atoms",
            f"{selection!r}, which matches none",
            f"residue names here: {' '.join(names[:40])}",
        )
    return [int(atom) for atom in picked]


def check_selection(selection: str) -> None:
    """Make sure that mdtraj understands a selection, without any atoms.

    Raises
    ------
    SelectionError
    """
    import mdtraj

    _select(mdtraj.Topology(), selection)


def _select(topology: Any, selection: str) -> Any:
    """Indices of the selected atoms of an mdtraj topology."""
    for keyword, values in _lists_of_values(selection):
        for before, word in itertools.pairwise(values):
            if word in _WITH_VALUES:
                raise SelectionError(
                    "a selection in mdtraj's language",
                    f"{selection!r}, where {before!r} and {word!r} are read as values of {keyword!r}",
                    f"write 'and' or 'or' before {word!r}",
                )
    try:
        return topology.select(selection)
    except Exception as error:  # mdtraj's parser raises many kinds; all of them mean the same to the user
        raise SelectionError(
            "a selection in mdtraj's language",
            f"{selection!r}, {_misunderstood(selection, str(error))}",
            _closest(selection) + 'write for example "resname LIG" or "chainid 0 and resSeq 10 to 20"',
        ) from error


def region_from_atoms(
    topology: Any, atoms: Iterable[int], complete: str = "residue", selection: str = "atom indices"
) -> Region:
    """Make a region of atom indices, completed as asked.

    Parameters
    ----------
    topology : openmm.app.Topology
    atoms : iterable of int
    complete : {"residue", "molecule", "atoms"}
    selection : str
        How the atoms were chosen, for the record.

    Raises
    ------
    SelectionError
        No atoms, an index outside the topology, or an unknown `complete`.
    """
    if complete not in _COMPLETIONS:
        raise SelectionError(
            f"complete = {' | '.join(_COMPLETIONS)}", repr(complete), 'write complete = "residue"'
        )
    chosen = {int(atom) for atom in atoms}
    total = topology.getNumAtoms()
    if not chosen or min(chosen) < 0 or max(chosen) >= total:
        raise SelectionError(
            f"atom indices between 0 and {total - 1}",
            f"{sorted(chosen)[:3]} …" if chosen else "none",
            "choose at least one atom of this topology",
        )
    asked = len(chosen)
    if complete == "residue":
        for residue in topology.residues():
            inside = {atom.index for atom in residue.atoms()}
            if inside & chosen:
                chosen |= inside
    elif complete == "molecule":
        for members in molecules_of(topology):
            if chosen.intersection(members):
                chosen.update(members)
    notes = (f"{len(chosen) - asked} atoms added to complete each {complete}",) if len(chosen) > asked else ()
    cut = tuple(
        (a, b) if a in chosen else (b, a)
        for a, b in ((bond[0].index, bond[1].index) for bond in topology.bonds())
        if (a in chosen) != (b in chosen)
    )
    residues = tuple(
        dict.fromkeys(
            f"{atom.residue.name}{atom.residue.id}" for atom in topology.atoms() if atom.index in chosen
        )
    )
    logger.info("region %r: %d atoms, %d cut bonds %s", selection, len(chosen), len(cut), "; ".join(notes))
    return Region(tuple(sorted(chosen)), cut, selection, residues, notes)


def _lists_of_values(selection: str) -> list[tuple[str, list[str]]]:
    """Keywords of a selection with the values that stand side by side behind them."""
    return [(found[1], found[2].split()) for found in _VALUES.finditer(selection)]


def _warn_of_absent_names(topology: Any, selection: str) -> None:
    """A name that no residue or atom has adds nothing to a selection, which may be a slip of the pen."""
    known = {
        "resname": {residue.name for residue in topology.residues()},
        "name": {atom.name for atom in topology.atoms()},
    }
    for keyword, values in _lists_of_values(selection):
        absent = [value for value in values if keyword in known and value not in known[keyword]]
        if absent and len(values) > 1:
            what = "residue" if keyword == "resname" else "atom"
            logger.warning("the selection %r: no %s here is called %s", selection, what, " or ".join(absent))


def _misunderstood(selection: str, said: str) -> str:
    """Where mdtraj's parser stopped; what it expected there is its whole grammar."""
    place = re.search(r"\(at char (\d+)\)", said)
    if not selection.strip():
        return "which is empty"
    if not place:
        return "which compares what cannot be compared"
    rest = selection[int(place[1]) :].strip()
    return f"which is not understood from {rest!r} on" if rest else "which ends too early"


def _closest(selection: str) -> str:
    """A keyword that was meant, for a word that is close to one."""
    if re.search(r"(?<![=!<>])=(?![=~])", selection):
        return "write == where two things are compared; "
    for word in re.findall(r"[A-Za-z_]\w*", selection):
        near = difflib.get_close_matches(word.lower(), _KEYWORDS, n=1, cutoff=0.75)
        if near and word not in _KEYWORDS:
            return f"did you mean {near[0]!r} by {word!r}? Or "
    return ""


def molecules_of(topology: Any) -> list[Sequence[int]]:
    """Atom indices of each molecule (connected part of the bond graph), by first atom.

    A virtual site, which often has no bond, belongs to the first atom of its residue.
    """
    root = list(range(topology.getNumAtoms()))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for bond in topology.bonds():
        a, b = find(bond[0].index), find(bond[1].index)
        root[max(a, b)] = min(a, b)
    for residue in topology.residues():
        atoms = list(residue.atoms())
        for atom in atoms:
            if atom.element is None:
                a, b = find(atoms[0].index), find(atom.index)
                root[max(a, b)] = min(a, b)
    molecules: dict[int, list[int]] = {}
    for i in range(len(root)):
        molecules.setdefault(find(i), []).append(i)
    return list(molecules.values())
