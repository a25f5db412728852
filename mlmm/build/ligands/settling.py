"""Placement of ligands in the structure: identity, bonds, hydrogens, parameters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue
from mlmm.build.ligands.definition import LigandPlan
from mlmm.build.ligands.matching import Placement, ResidueAtoms, place
from mlmm.build.ligands.molecules import canonical, from_canonical, order_in_canonical, plain_smiles
from mlmm.build.ligands.parameters import AM1BCC, gaff_parameters
from mlmm.build.ligands.templates import shipped_template, template_xml
from mlmm.build.parametrise import forcefields_folder
from mlmm.build.topology_json import set_topology_box, topology_box
from mlmm.errors import StructureError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SettledLigands:
    """Structure whose ligands are complete.

    Parameters
    ----------
    topology, positions
        As given, with names, bonds and hydrogens of the ligands; positions (N, 3) in nm.
    templates : dict
        Residue name -> OpenMM XML, for those that had to be parametrised.
    molecules : dict
        Residue name -> SMILES, with the stereochemistry of the coordinates.
    decisions : list
    """

    topology: app.Topology
    positions: np.ndarray
    templates: dict[str, str]
    molecules: dict[str, str]
    decisions: list[Decision]


def settle_ligands(
    topology: app.Topology,
    positions: np.ndarray,
    plan: LigandPlan,
    progress: Callable[[str], None] | None = None,
) -> SettledLigands:
    """Lay every ligand onto its atoms, compare, add bonds and hydrogens, and find parameters.

    Raises
    ------
    StructureError
        A ligand that is not in the structure, is bonded to something else, or is another molecule.
    """
    placements: dict[int, Placement] = {}
    by_name: dict[str, list[Placement]] = {}
    renamed: dict[int, str] = {}
    decisions = list(plan.decisions)
    for residue in topology.residues():
        name = plan.mutate.get(residue.name, residue.name)
        if name not in plan.definitions:
            continue
        atoms = _residue_atoms(topology, positions, residue)
        decisions += _foreign_bonds(topology, residue)
        mutated = residue.name in plan.mutate
        placement = place(plan.definitions[name].molecule, atoms, mutate=mutated)
        if mutated:
            decisions.append(Decision("ligands", "mutate", f"{atoms.label} turned into {name}", atoms.label))
        decisions += [
            Decision("ligands", "placed", text, atoms.label, warning="stereo" in text)
            for text in placement.decisions
        ]
        placements[residue.index] = placement
        renamed[residue.index] = name
        by_name.setdefault(name, []).append(placement)
    _check_all_found(topology, plan, by_name)
    templates, molecules = {}, {}
    for name, copies in by_name.items():
        smiles = _one_molecule(name, copies)
        molecules[name] = plain_smiles(from_canonical(smiles))
        if plan.definitions[name].template:
            continue
        xml, origin = _template(name, copies[0], smiles, plan.definitions[name].charges, progress)
        templates[name] = xml
        decisions.append(Decision("ligands", "parameters", f"{name}: {origin}"))
    if placements:
        topology, positions = _rebuilt(topology, positions, placements, renamed)
    return SettledLigands(topology, positions, templates, molecules, decisions)


def _template(
    name: str,
    placement: Placement,
    smiles: str,
    charges: np.ndarray | None,
    progress: Callable[[str], None] | None,
) -> tuple[str, str]:
    """XML of one ligand, and where its parameters come from."""
    if charges is None:
        shipped = shipped_template(smiles, forcefields_folder())
        if shipped is not None:
            return shipped.read_text(encoding="utf-8"), f"parameters of the same molecule in {shipped.name}"
        parameters = gaff_parameters(smiles, progress=progress)
    else:
        order = order_in_canonical(smiles, placement.molecule)
        parameters = gaff_parameters(smiles, charges[order], "charges of the mol2 file", progress)
    xml = template_xml(parameters, placement.molecule, placement.names, name)
    return xml, f"GAFF2, {parameters.facts.get('charges', AM1BCC)}"


def _one_molecule(name: str, copies: list[Placement]) -> str:
    """Canonical SMILES of all residues of one name."""
    found = {canonical(copy.molecule) for copy in copies}
    if len(found) > 1:
        kinds = sorted(plain_smiles(from_canonical(smiles)) for smiles in found)
        raise StructureError(
            f"one stereoisomer for all residues {name}",
            f"{len(kinds)} in the coordinates: {', '.join(kinds)}",
            "write the stereocentres into the SMILES, and give the others another residue name",
        )
    return found.pop()


def _check_all_found(topology: app.Topology, plan: LigandPlan, found: Mapping[str, Any]) -> None:
    present = {residue.name for residue in topology.residues()}
    wanted = {name for name, definition in plan.definitions.items() if definition.required}
    for name in sorted((wanted - set(found)) | (set(plan.mutate) - present)):
        raise StructureError(
            f"a residue {name} in the structure",
            f"residues {', '.join(sorted(present))}",
            "use the residue name of the file, or leave the ligand out",
        )


def _residue_atoms(
    topology: app.Topology, positions: np.ndarray, residue: app.topology.Residue
) -> ResidueAtoms:
    atoms = list(residue.atoms())
    label = describe_residue(residue)
    unknown = [atom.name for atom in atoms if atom.element is None]
    if unknown:
        raise StructureError(
            f"an element for every atom of {label}", f"none for {', '.join(unknown)}", "fill columns 77-78"
        )
    number = {atom.index: n for n, atom in enumerate(atoms)}
    bonds = [(number[bond[0].index], number[bond[1].index]) for bond in residue.internal_bonds()]
    return ResidueAtoms(
        label,
        [atom.name for atom in atoms],
        [atom.element.atomic_number for atom in atoms],
        positions[[atom.index for atom in atoms]],
        bonds,
    )


def _foreign_bonds(topology: app.Topology, residue: app.topology.Residue) -> list[Decision]:
    """Bonds to single ions and water are dropped, as force fields have them; others are refused."""
    decisions = []
    for bond in residue.external_bonds():
        inner, outer = bond if bond[0].residue is residue else (bond[1], bond[0])
        ends = [f"{atom.name} of {describe_residue(atom.residue)}" for atom in (inner, outer)]
        where = " and ".join(ends)
        if len(list(outer.residue.atoms())) > 1 and outer.residue.name != "HOH":
            raise StructureError(
                "ligands that are molecules of their own",
                f"a bond between {where}",
                "parametrise the bound residue as a whole in an OpenMM XML file, or delete CONECT and LINK",
            )
        decisions.append(
            Decision(
                "ligands", "bond", f"the bond between {where} is left to non-bonded forces", warning=True
            )
        )
    return decisions


def _rebuilt(
    topology: app.Topology,
    positions: np.ndarray,
    placements: dict[int, Placement],
    renamed: dict[int, str],
) -> tuple[app.Topology, np.ndarray]:
    """Structure with the atoms, names and bonds of the placed ligands."""
    new = app.Topology()
    rows: list[np.ndarray] = []
    partner: dict[int, app.topology.Atom] = {}
    for chain in topology.chains():
        new_chain = new.addChain(chain.id)
        for residue in chain.residues():
            name = renamed.get(residue.index, residue.name)
            added = new.addResidue(name, new_chain, residue.id, residue.insertionCode)
            placement = placements.get(residue.index)
            old = list(residue.atoms())
            if placement is None:
                for atom in old:
                    partner[atom.index] = new.addAtom(
                        atom.name, atom.element, added, atom.id, atom.formalCharge
                    )
                    rows.append(positions[atom.index])
            else:
                rows += _add_placed(new, added, placement, [atom.id for atom in old])
    for bond in topology.bonds():
        if bond[0].index in partner and bond[1].index in partner:
            new.addBond(partner[bond[0].index], partner[bond[1].index], bond.type, bond.order)
    set_topology_box(new, topology_box(topology))
    return new, np.array(rows)


def _add_placed(
    topology: app.Topology, residue: app.topology.Residue, placement: Placement, ids: list[str]
) -> list[np.ndarray]:
    """Atoms in the order of the file, new hydrogens last."""
    molecule = placement.molecule
    coordinates = np.array(molecule.GetConformer().GetPositions()) / 10
    origin = placement.origin
    order = sorted(
        range(len(origin)), key=lambda i: (origin[i] is None, i if origin[i] is None else origin[i])
    )
    atoms: dict[int, app.topology.Atom] = {}
    for index in order:
        atom = molecule.GetAtomWithIdx(index)
        element = app.Element.getByAtomicNumber(atom.GetAtomicNum())
        source = origin[index]
        identity = None if source is None else ids[source]
        atoms[index] = topology.addAtom(
            placement.names[index], element, residue, identity, atom.GetFormalCharge()
        )
    for bond in molecule.GetBonds():
        topology.addBond(atoms[bond.GetBeginAtomIdx()], atoms[bond.GetEndAtomIdx()])
    return [coordinates[index] for index in order]
