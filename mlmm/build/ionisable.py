"""Charge that the ionisable groups of a residue carry at pH 7, from its heavy atoms and bonds."""

from __future__ import annotations

from collections.abc import Sequence

from openmm import app

__all__ = ["group_charge"]

_BACKBONE = {"N", "CA", "C", "O", "OXT"}
_H = app.element.hydrogen


def group_charge(residue: app.topology.Residue, bonded: Sequence[Sequence[int]], atoms: Sequence) -> int:
    """Sum over carboxylates, phosphates, sulfonates, sulfates, amines, ammonium and guanidinium groups.

    Groups of the backbone are left out. Imidazoles, thiols and phenols count as neutral. It is meant for a
    comparison of two residues, in which what it cannot see (tautomers, unusual pKa) falls out.

    Parameters
    ----------
    residue : openmm.app.topology.Residue
    bonded : sequence of sequence of int
        Neighbours of every atom of the topology.
    atoms : sequence of atoms
        All atoms of the topology.
    """
    inside = [a for a in residue.atoms() if a.element not in (None, _H) and a.name not in _BACKBONE]
    total = 0
    for atom in inside:
        neighbours, symbol = _heavy(atom, bonded, atoms), atom.element.symbol
        ends = sum(_is_terminal(n, "O", bonded, atoms) for n in neighbours)
        if symbol == "C" and len(neighbours) == 3 and ends == 2:
            total -= 1  # carboxylate
        elif symbol == "P":
            total -= max(ends - 1, 0)
        elif symbol == "S" and ends >= 2 and (len(neighbours) - ends) == 1:
            total -= 1  # sulfinate, sulfonate, sulfate
        elif symbol == "C" and len(neighbours) == 3 and sum(n.element.symbol == "N" for n in neighbours) == 3:
            total += 1  # guanidinium
        elif symbol == "N" and _is_amine(atom, neighbours, bonded, atoms):
            total += 1
    return total


def _is_terminal(
    atom: app.topology.Atom, symbol: str, bonded: Sequence[Sequence[int]], atoms: Sequence
) -> bool:
    return atom.element.symbol == symbol and len(_heavy(atom, bonded, atoms)) == 1


def _is_amine(
    atom: app.topology.Atom, neighbours: Sequence, bonded: Sequence[Sequence[int]], atoms: Sequence
) -> bool:
    """Nitrogen outside rings whose neighbours are carbons with no other N, O or S."""
    for carbon in neighbours:
        others = [n for n in _heavy(carbon, bonded, atoms) if n is not atom]
        if carbon.element.symbol != "C" or any(o.element.symbol in ("N", "O", "S") for o in others):
            return False
    return bool(neighbours) and not _in_ring(atom, neighbours, bonded, atoms)


def _in_ring(
    atom: app.topology.Atom, neighbours: Sequence, bonded: Sequence[Sequence[int]], atoms: Sequence
) -> bool:
    """Whether a way leads from one neighbour of an atom to another without it."""
    for start in neighbours[:-1]:
        seen, waiting = {atom.index, start.index}, [start]
        while waiting:
            for other in _heavy(waiting.pop(), bonded, atoms):
                if other in neighbours and other is not start:
                    return True
                if other.index not in seen:
                    seen.add(other.index)
                    waiting.append(other)
    return False


def _heavy(atom: app.topology.Atom, bonded: Sequence[Sequence[int]], atoms: Sequence) -> list:
    return [atoms[i] for i in bonded[atom.index] if atoms[i].element not in (None, _H)]
