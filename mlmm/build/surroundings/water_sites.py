"""Sites without mass of waters that stand in the structure file (OPC, TIP4P)."""

from __future__ import annotations

import numpy as np
from openmm import app, unit

from mlmm.build.draft import as_quantity
from mlmm.build.families import water_templates
from mlmm.build.topology_json import set_topology_box, topology_box

__all__ = ["add_water_sites"]


def add_water_sites(model: app.Modeller, force_field: app.ForceField) -> int:
    """Give waters the sites that the force field's water has beside its atoms; they start at the oxygen.

    OpenMM puts them where they belong as soon as it computes forces.

    Returns
    -------
    int
        Number of waters that were changed.
    """
    templates = water_templates(force_field)
    names = [atom.name for atom in templates[0].atoms if atom.element is None] if templates else []
    old = model.topology
    bare = [r for r in old.residues() if r.name == "HOH" and all(a.element is not None for a in r.atoms())]
    if not names or not bare:
        return 0
    places = np.array(model.positions.value_in_unit(unit.nanometer), dtype=float).reshape(-1, 3)
    changed = {residue.index for residue in bare}
    new, rows, partner = app.Topology(), [], {}
    for chain in old.chains():
        new_chain = new.addChain(chain.id)
        for residue in chain.residues():
            added = new.addResidue(residue.name, new_chain, residue.id, residue.insertionCode)
            for atom in residue.atoms():
                partner[atom] = new.addAtom(atom.name, atom.element, added, atom.id, atom.formalCharge)
                rows.append(places[atom.index])
            if residue.index in changed:
                oxygen = next(a for a in residue.atoms() if a.element == app.element.oxygen)
                for name in names:
                    new.addAtom(name, None, added)
                    rows.append(places[oxygen.index])
    for bond in old.bonds():
        new.addBond(partner[bond[0]], partner[bond[1]], bond.type, bond.order)
    set_topology_box(new, topology_box(old))
    model.topology, model.positions = new, as_quantity(np.array(rows))
    return len(bare)
