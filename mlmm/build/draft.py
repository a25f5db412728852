"""OpenMM topology from atom records, with the names and bonds of OpenMM's own readers."""

from __future__ import annotations

from math import radians

import numpy as np
from openmm import app, unit
from openmm.app.internal.unitcell import computePeriodicBoxVectors
from openmm.vec3 import Vec3

from mlmm.build.files.atoms import METALS, CheckedStructure
from mlmm.build.joints import Sources, bond_backbone, bond_by_distance, bond_inside, name_of


def draft_topology(structure: CheckedStructure) -> tuple[app.Topology, np.ndarray, Sources]:
    """Topology and coordinates (N, 3) in nm, in the order of the file, and the sources of joints.

    Residues and atoms get OpenMM's names (HSD becomes HIS, WAT becomes HOH); bonds come from OpenMM's table
    of standard residues, from sulfurs near each other, from the file's own connections, and from distances.

    Raises
    ------
    StructureError
        A water or ion on top of another atom.
    """
    app.PDBFile._loadNameReplacementTables()  # OpenMM has no public access to them
    residue_names, atom_names = app.PDBFile._residueNameReplacements, app.PDBFile._atomNameReplacements
    topology = app.Topology()
    atoms = []
    for run in structure.residues_of_runs():
        chain = topology.addChain(run[0][0].chain)
        for group in run:
            first = group[0]
            name = residue_names.get(first.residue_name, first.residue_name)
            residue = topology.addResidue(name, chain, first.number, first.insertion_code)
            for atom in group:
                element = app.element.get_by_symbol(atom.element.capitalize())
                atoms.append(
                    topology.addAtom(
                        atom_names.get(name, {}).get(atom.name, atom.name),
                        element,
                        residue,
                        atom.serial,
                        formalCharge=atom.charge,
                    )
                )
    positions = np.array([(atom.x, atom.y, atom.z) for atom in structure.atoms], dtype=float)
    if structure.cell is not None and min(structure.cell) > 0:
        edges, angles = structure.cell[:3], structure.cell[3:]
        topology.setPeriodicBoxVectors(
            computePeriodicBoxVectors(*edges, *(radians(angle) for angle in angles))
        )
    topology.createStandardBonds()
    topology.createDisulfideBonds(as_quantity(positions))
    bond_backbone(topology, positions)
    bonded = {frozenset((one.index, other.index)) for one, other in topology.bonds()}
    sources: Sources = {}
    for i, j, record in structure.bonds:
        if _metal_on_protein(atoms[i], atoms[j]):
            continue
        if atoms[i].residue is not atoms[j].residue:
            records = sources.setdefault(frozenset((name_of(atoms[i]), name_of(atoms[j]))), [])
            records += [record] if record not in records else []
        if frozenset((i, j)) not in bonded:
            topology.addBond(atoms[i], atoms[j])
            bonded.add(frozenset((i, j)))
    bond_inside(topology, positions)
    sources |= bond_by_distance(topology, positions, structure.name)
    return topology, positions, sources


def as_quantity(positions: np.ndarray) -> unit.Quantity:
    """Coordinates (N, 3) in nm as OpenMM's modellers take them."""
    return unit.Quantity([Vec3(*row) for row in positions.tolist()], unit.nanometer)


def _metal_on_protein(one: app.topology.Atom, other: app.topology.Atom) -> bool:
    """Coordination of a metal by a standard residue is no bond of the force field (OpenMM's own rule)."""
    return any(
        metal.element.symbol.upper() in METALS and partner.residue.name in app.PDBFile._standardResidues
        for metal, partner in ((one, other), (other, one))
    )
