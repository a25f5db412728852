"""Free reducing ends of sugars: GLYCAM keeps the hydroxyl at the anomeric carbon in a residue of its own."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue
from mlmm.build.glycans import is_sugar, places_of
from mlmm.build.templates import TemplateGraphs, bonded_atoms

__all__ = ["HYDROXYL", "split_reducing_ends"]

#: GLYCAM's residue of one hydroxyl.
HYDROXYL = "ROH"


def split_reducing_ends(
    topology: app.Topology, positions: np.ndarray, graphs: TemplateGraphs, skipped: Collection[str]
) -> tuple[app.Topology, np.ndarray, list[Decision]]:
    """Give the free hydroxyl O1 of each sugar a residue ROH of its own, as GLYCAM has it.

    The new residue follows its sugar and has its chain and number, so that a selection by number finds both.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    graphs : TemplateGraphs
        Without GLYCAM's templates nothing is done.
    skipped : collection of str
        Residues that the user describes.

    Returns
    -------
    topology, positions
        New ones, or those given where there is no free end.
    decisions : list of Decision
    """
    ends: dict[app.topology.Residue, list[app.topology.Atom]] = {}
    if graphs.has_glycans and HYDROXYL in graphs.names:
        bonded, atoms = bonded_atoms(topology), list(topology.atoms())
        for residue in topology.residues():
            if residue.name not in skipped and is_sugar(places_of(residue, positions)):
                found = _free_hydroxyl(residue, bonded, atoms)
                if found:
                    ends[residue] = found
    if not ends:
        return topology, positions, []
    made, order = app.Topology(), []
    copies: dict[app.topology.Atom, app.topology.Atom] = {}
    for chain in topology.chains():
        chain_copy = made.addChain(chain.id)
        for residue in chain.residues():
            apart = ends.get(residue, [])
            parts = [(residue.name, [atom for atom in residue.atoms() if atom not in apart])]
            parts += [(HYDROXYL, apart)] if apart else []
            for name, members in parts:
                copy = made.addResidue(name, chain_copy, residue.id, residue.insertionCode)
                for atom in members:
                    label = atom.name if name != HYDROXYL else "O1" if atom is apart[0] else "HO1"
                    copies[atom] = made.addAtom(
                        label, atom.element, copy, atom.id, formalCharge=atom.formalCharge
                    )
                    order.append(atom.index)
    for bond in topology.bonds():
        made.addBond(copies[bond[0]], copies[bond[1]], bond.type, bond.order)
    made.setPeriodicBoxVectors(topology.getPeriodicBoxVectors())
    decisions = []
    for residue in ends:
        who = describe_residue(residue)
        text = (
            f"{who} has a free reducing end: its hydroxyl becomes {HYDROXYL} {residue.id}, as GLYCAM has it"
        )
        decisions.append(Decision("repair", "glycan", text, who, {"template": HYDROXYL}))
    return made, positions[order], decisions


def _free_hydroxyl(
    residue: app.topology.Residue, bonded: list[list[int]], atoms: list[app.topology.Atom]
) -> list[app.topology.Atom]:
    """An oxygen that is bonded to C1 alone, and its hydrogen, where C1 is in the ring.

    It is O1, and O1L in entries of the PDB from before 2020, whose oxygen of the ring is O.
    """
    own = {atom.name: atom for atom in residue.atoms()}
    if "C1" not in own:
        return []
    neighbours = {
        atom: [atoms[i] for i in bonded[atom.index]]
        for atom in (atoms[i] for i in bonded[own["C1"].index])
        if atom.element is app.element.oxygen
    }
    heavy = {a: [n for n in near if n.element is not app.element.hydrogen] for a, near in neighbours.items()}
    closing = [a for a, near in heavy.items() if {"C1"} < {n.name for n in near if n.residue is residue}]
    ends = [a for a, near in heavy.items() if near == [own["C1"]] and len(neighbours[a]) <= 2]
    if len(closing) != 1 or len(ends) != 1:
        return []
    return [ends[0], *(n for n in neighbours[ends[0]] if n.element is app.element.hydrogen)]
