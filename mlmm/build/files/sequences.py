"""Alignment of a chain's sequence with the residues that have coordinates."""

from __future__ import annotations

from itertools import pairwise

import gemmi
import numpy as np

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import LONGEST_LINK, AtomRecord, MissingSegment, describe, is_polymer

_LEAST_IDENTITY = 0.7  # of the residues with coordinates; below it the sequence is another molecule's
_UNBROKEN = -20  # score for opening a gap between residues that are bonded


def missing_segments(
    runs: list[list[list[AtomRecord]]],
    sequences: dict[str, tuple[str, ...]],
    parents: dict[str, str],
) -> tuple[list[MissingSegment], list[Decision]]:
    """Residues of the sequences without coordinates, found by alignment.

    Residue numbers say nothing certain about what is missing (chymotrypsin numbering jumps without a gap), so
    that the sequence is aligned and gaps open where the chain is broken in space.

    Parameters
    ----------
    runs : list of list of list of AtomRecord
        Residues by run, see `CheckedStructure`.
    sequences : dict
        Chain id to residue names.
    parents : dict
        Modified residue name to its standard parent.

    Returns
    -------
    list of MissingSegment, list of Decision
    """
    segments: list[MissingSegment] = []
    decisions: list[Decision] = []
    for chain, sequence in sequences.items():
        places = [
            (run, position)
            for run, residues in enumerate(runs)
            for position, residue in enumerate(residues)
            if residue[0].chain == chain and is_polymer(residue)
        ]
        if not places:
            if sequence:
                who = f"chain {chain}" if chain else "a chain without id"
                text = f"{who} of the sequence ({len(sequence)} residues) has no coordinates"
                decisions.append(Decision("read", "sequence", text, warning=True))
            continue
        seen = [runs[run][position] for run, position in places]
        columns = align(sequence, seen, parents)
        same = sum(i is not None and j is not None for i, j in columns)
        equal = sum(
            i is not None and j is not None and sequence[i] == _parent(seen[j][0].residue_name, parents)
            for i, j in columns
        )
        if equal < _LEAST_IDENTITY * len(seen):
            fits = f"{equal} of {len(seen)} agree"
            text = f"the sequence of chain {chain} does not fit its residues ({fits}): ignored"
            decisions.append(Decision("read", "sequence", text, warning=True))
            continue
        differ = [
            f"{describe(seen[j])} is {sequence[i]} in the sequence"
            for i, j in columns
            if i is not None
            and j is not None
            and sequence[i] not in (seen[j][0].residue_name, _parent(seen[j][0].residue_name, parents))
        ]
        if differ:
            text = "; ".join(differ[:5]) + (" ..." if len(differ) > 5 else "")
            decisions.append(Decision("read", "sequence", text, numbers={"aligned": same}, warning=True))
        segments += _segments(sequence, places, columns)
    return sorted(segments), decisions


def align(
    sequence: tuple[str, ...], seen: list[list[AtomRecord]], parents: dict[str, str]
) -> list[tuple[int | None, int | None]]:
    """Columns of the alignment: place in the sequence and place among the residues, None for a gap."""
    gaps = [0, *(0 if _broken(a, b) else _UNBROKEN for a, b in pairwise(seen)), 0]
    names = [_parent(residue[0].residue_name, parents) for residue in seen]
    names = [
        residue[0].residue_name if residue[0].residue_name in sequence else name
        for residue, name in zip(seen, names, strict=True)
    ]
    result = gemmi.align_string_sequences(list(sequence), names, gaps)
    columns: list[tuple[int | None, int | None]] = []
    i = j = 0
    number = ""
    for letter in result.cigar_str():
        if letter.isdigit():
            number += letter
            continue
        for _ in range(int(number)):
            columns.append((i if letter in "MI" else None, j if letter in "MD" else None))
            i += letter in "MI"
            j += letter in "MD"
        number = ""
    return columns


def _parent(name: str, parents: dict[str, str]) -> str:
    return parents.get(name, name)


def _broken(before: list[AtomRecord], after: list[AtomRecord]) -> bool:
    """Whether two residues are certainly not bonded."""
    ends = [
        next((np.array([atom.x, atom.y, atom.z]) for atom in residue if atom.name == name), None)
        for residue, name in ((before, "C"), (after, "N"))
    ]
    if ends[0] is None or ends[1] is None:
        return True
    return bool(np.linalg.norm(ends[0] - ends[1]) > LONGEST_LINK)


def _segments(
    sequence: tuple[str, ...],
    places: list[tuple[int, int]],
    columns: list[tuple[int | None, int | None]],
) -> list[MissingSegment]:
    """Runs of sequence without residues; between two runs of residues they belong to the end of the first."""
    segments: list[MissingSegment] = []
    waiting: list[str] = []
    last = -1

    def close() -> None:
        if waiting:
            if last < 0:
                run, position = places[0]
            else:
                run, position = places[last][0], places[last][1] + 1
            segments.append(MissingSegment(run, position, tuple(waiting)))
            waiting.clear()

    for i, j in columns:
        if j is None and i is not None:
            waiting.append(sequence[i])
        elif j is not None:
            close()
            last = j
    close()
    return segments
