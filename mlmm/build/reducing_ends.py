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
    if {HYDROXYL, "0YB"} <= graphs.names:
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
                    label = "HO1" if name == HYDROXYL and atom is not apart[0] else atom.name
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
        text = f"{who} has a free reducing end: its O1 becomes {HYDROXYL} {residue.id}, as GLYCAM has it"
        decisions.append(Decision("repair", "glycan", text, who, {"template": HYDROXYL}))
    return made, positions[order], decisions


def _free_hydroxyl(
    residue: app.topology.Residue, bonded: list[list[int]], atoms: list[app.topology.Atom]
) -> list[app.topology.Atom]:
    """O1 and its hydrogen, where it is bonded to C1 alone and C1 to the oxygen of the ring."""
    own = {atom.name: atom for atom in residue.atoms()}
    if not {"C1", "O1", "O5"} <= own.keys():
        return []
    neighbours = [atoms[i] for i in bonded[own["O1"].index]]
    light = [atom for atom in neighbours if atom.element is app.element.hydrogen]
    heavy = [atom for atom in neighbours if atom.element is not app.element.hydrogen]
    if heavy != [own["C1"]] or len(light) > 1 or own["O5"].index not in bonded[own["C1"].index]:
        return []
    return [own["O1"], *light]
