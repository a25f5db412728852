"""An OpenMM topology as JSON data, exactly; a PDB file would lose bonds, long names and digits of the box."""

from __future__ import annotations

from typing import Any

import numpy as np
from openmm import app, unit
from openmm.app import topology as bond_types
from openmm.vec3 import Vec3

_BOND_TYPES = ("Single", "Double", "Triple", "Aromatic", "Amide")


def topology_to_dict(topology: app.Topology) -> dict[str, Any]:
    """Chains, residues, atoms, bonds and box of a topology as JSON-able data.

    Returns
    -------
    dict
        ``box`` is (3, 3) in nm or None; ``chains`` nests residues and atoms as
        ``[id, [[name, id, insertion code, [[name, element, id, formal charge], ...]], ...]]``; ``bonds``
        holds ``[index, index, type, order]``. An extra particle has element None.
    """
    chains = []
    for chain in topology.chains():
        residues = []
        for residue in chain.residues():
            atoms = [
                [atom.name, None if atom.element is None else atom.element.symbol, atom.id, atom.formalCharge]
                for atom in residue.atoms()
            ]
            residues.append([residue.name, residue.id, residue.insertionCode, atoms])
        chains.append([chain.id, residues])
    bonds = [
        [bond[0].index, bond[1].index, None if bond.type is None else repr(bond.type), bond.order]
        for bond in topology.bonds()
    ]
    box = topology_box(topology)
    return {"box": None if box is None else box.tolist(), "chains": chains, "bonds": bonds}


def topology_from_dict(data: dict[str, Any]) -> app.Topology:
    """The topology that `topology_to_dict` described, with every id, order and bit of the box as it was."""
    topology, atoms = app.Topology(), []
    for chain_id, residues in data["chains"]:
        chain = topology.addChain(chain_id)
        for name, residue_id, insertion_code, residue_atoms in residues:
            residue = topology.addResidue(name, chain, residue_id, insertion_code)
            for atom_name, symbol, atom_id, formal_charge in residue_atoms:
                element = None if symbol is None else app.Element.getBySymbol(symbol)
                atoms.append(topology.addAtom(atom_name, element, residue, atom_id, formal_charge))
    for first, second, kind, order in data["bonds"]:
        bond_type = getattr(bond_types, kind) if kind in _BOND_TYPES else None
        topology.addBond(atoms[first], atoms[second], bond_type, order)
    set_topology_box(topology, data["box"])
    return topology


def topology_box(topology: app.Topology) -> np.ndarray | None:
    """Box vectors (3, 3) in nm, one per row, or None."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        return None
    # OpenMM accepts one Quantity or a list of three, and gives back what it was given.
    rows = [row.value_in_unit(unit.nanometer) if unit.is_quantity(row) else row for row in vectors]
    return np.array(rows, dtype=float)


def set_topology_box(topology: app.Topology, box: Any) -> None:
    """Give a topology the box vectors (3, 3) in nm, or take its box away with None."""
    if box is None:
        topology.setPeriodicBoxVectors(None)
    else:
        topology.setPeriodicBoxVectors(unit.Quantity([Vec3(*map(float, row)) for row in box], unit.nanometer))
