"""A ligand without a structure file: coordinates and parameters from its SMILES alone."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mlmm.build.files.atoms import AtomRecord, CheckedStructure, Connection
from mlmm.build.ligands.definition import Definition, Ligand, LigandPlan
from mlmm.build.ligands.matching import set_positions
from mlmm.build.ligands.molecules import (
    atom_names,
    canonical,
    from_canonical,
    order_in_canonical,
    plain_smiles,
    reference_conformer,
    require_rdkit,
    with_hydrogens,
)
from mlmm.build.ligands.parameters import gaff_parameters
from mlmm.build.ligands.templates import template_xml
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

logger = logging.getLogger(__name__)


def molecule_model(ligand: Ligand) -> tuple[Mol, list[str]]:
    """All atoms of a ligand without a structure file, with coordinates in angstrom, and their names.

    Raises
    ------
    ConfigError
        A stereocentre that is left open: no coordinates could settle it.
    """
    chem = require_rdkit()
    molecule, _ = ligand.molecule()
    unspecified = chem.StereoSpecified.Unspecified
    names = atom_names(molecule)
    places = [info for info in chem.FindPotentialStereo(molecule) if info.specified == unspecified]
    if places:
        open_ = [
            names[p.centeredOn]
            if p.type == chem.StereoType.Atom_Tetrahedral
            else "=".join(
                names[i]
                for i in (
                    molecule.GetBondWithIdx(p.centeredOn).GetBeginAtomIdx(),
                    molecule.GetBondWithIdx(p.centeredOn).GetEndAtomIdx(),
                )
            )
            for p in places
        ]
        raise ConfigError(
            f"every stereocentre of ligand {ligand.name} without coordinates",
            f"none at {', '.join(open_)} of {plain_smiles(molecule)}",
            "write them with @, @@, / and \\ in the SMILES",
        )
    complete = with_hydrogens(molecule)
    smiles = canonical(molecule)
    positions = np.empty((complete.GetNumAtoms(), 3))
    positions[order_in_canonical(smiles, complete)] = reference_conformer(from_canonical(smiles))
    set_positions(complete, positions / 10)
    return complete, names


def parametrise_ligand(ligand: Ligand, progress: Callable[[str], None] | None = None) -> str:
    """OpenMM XML with GAFF2 parameters and AM1-BCC charges of a molecule, to be kept beside a run file.

    Parameters
    ----------
    ligand : Ligand
        Its name is the name of the residue in the file.
    progress : callable, optional

    Raises
    ------
    ConfigError, StructureError, MissingPackageError
        As `gaff_parameters` and `molecule_model`.
    """
    complete, names = molecule_model(ligand)
    _, charges = ligand.molecule()
    smiles = canonical(complete)
    if charges is None:
        parameters = gaff_parameters(smiles, progress=progress)
    else:
        order = order_in_canonical(smiles, complete)
        parameters = gaff_parameters(smiles, charges[order], "charges of the mol2 file", progress)
    return template_xml(parameters, complete, names, ligand.name)


def structure_from_smiles(smiles: str, plan: LigandPlan) -> CheckedStructure:
    """A structure of one molecule, as if it had been read from a file.

    The residue gets the name of a ligand that is the same molecule, else LIG, which is added to `plan`.

    Parameters
    ----------
    smiles : str
        With every stereocentre.
    plan : LigandPlan
        Extended in place.
    """
    ligand = Ligand("LIG", smiles=smiles)
    complete, names = molecule_model(ligand)
    wanted = canonical(complete)
    same = [d for d in plan.definitions.values() if canonical(d.molecule) == wanted]
    if same:
        name, names = same[0].name, atom_names(same[0].molecule)
        complete = _like(same[0].molecule, complete)
    else:
        name = ligand.name
        plan.definitions[name] = Definition(name, ligand.molecule()[0])
    records = []
    rows = zip(complete.GetAtoms(), names, complete.GetConformer().GetPositions() / 10, strict=True)
    for number, (atom, label, place) in enumerate(rows, start=1):
        records.append(
            AtomRecord(
                line=number,
                hetero=True,
                serial=str(number),
                name=label,
                location=" ",
                residue_name=name,
                chain="A",
                number="1",
                insertion_code="",
                x=float(place[0]),
                y=float(place[1]),
                z=float(place[2]),
                occupancy=1.0,
                element=atom.GetSymbol().upper(),
            )
        )
    bonds = tuple(
        Connection(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), "SMILES") for bond in complete.GetBonds()
    )
    return CheckedStructure(
        f"SMILES {plain_smiles(complete)}",
        hashlib.sha256(smiles.encode()).hexdigest(),
        "smiles",
        tuple(records),
        bonds=bonds,
    )


def _like(molecule: Mol, complete: Mol) -> Mol:
    """Molecule with its atoms in another order and unchanged coordinates."""
    ordered = with_hydrogens(molecule)
    smiles = canonical(complete)
    source, target = order_in_canonical(smiles, complete), order_in_canonical(smiles, ordered)
    positions = np.empty((ordered.GetNumAtoms(), 3))
    positions[target] = complete.GetConformer().GetPositions()[source]
    set_positions(ordered, positions / 10)
    return ordered
