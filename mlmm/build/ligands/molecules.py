"""Ligands as chemical graphs: bond orders, formal charges and stereocentres, from SMILES, SDF or mol2.

A molecule here is an RDKit ``Mol`` of its heavy atoms, sanitised, without atom-map numbers. The name of an
atom is its property ``name``; the names of its hydrogens, where known, are ``hydrogens``, with spaces.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmm.errors import ConfigError, MissingPackageError, StructureError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

logger = logging.getLogger(__name__)

_CONFORMERS = 50
_SEED = 2718  # of conformers; charges must not depend on the seed of a run


def require_rdkit() -> Any:
    """The module ``rdkit.Chem``.

    Raises
    ------
    MissingPackageError
        RDKit is not installed.
    """
    try:
        from rdkit import Chem
    except ImportError as error:
        raise MissingPackageError(
            "RDKit, which reads SMILES and compares stereocentres",
            "no package rdkit",
            'pip install "mlmm[ligands]"',
        ) from error
    return Chem


def molecule_from_smiles(smiles: str, names: Sequence[str] = (), what: str = "") -> Mol:
    """The molecule that a SMILES describes.

    Parameters
    ----------
    smiles : str
        One molecule; its charges and hydrogens are taken as they are written. Atom-map numbers are dropped:
        with them, RDKit's CIP labels would be wrong.
    names : sequence of str
        Names of the heavy atoms in the order of the SMILES; made from elements where not given.
    what : str
        For messages, such as ``"ligand BEN"``.

    Raises
    ------
    ConfigError
        No SMILES, several molecules, an open shell, or another number of names than atoms.
    """
    chem = require_rdkit()
    from rdkit import rdBase

    with rdBase.CaptureErrorLog() as log:
        molecule = chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        reason = " ".join(log.messages.split()) or "no atoms"
        raise ConfigError(
            f"a SMILES that RDKit can read for {what or 'the ligand'}",
            f"{smiles!r} ({reason})",
            "correct the SMILES, or copy it from PubChem or the PDB's ligand page",
        )
    return _checked(molecule, names, f"{what or 'the ligand'} {smiles!r}")


def molecule_from_file(path: Path, what: str = "") -> tuple[Mol, np.ndarray | None]:
    """The molecule of an SDF (MDL mol) or mol2 file, and its partial charges if it is a mol2 file with some.

    Returns
    -------
    molecule : Mol
        With a conformer in angstrom.
    charges : ndarray, shape (N,), or None
        In e, of all atoms with hydrogens, in the order of `with_hydrogens(molecule)`.

    Raises
    ------
    ConfigError
        No such file, another format, a file that RDKit cannot read, or a valence that cannot be.
    """
    chem = require_rdkit()
    from rdkit import rdBase

    what = what or f"ligand file {path.name}"
    readers = {
        ".sdf": chem.MolFromMolBlock,
        ".mol": chem.MolFromMolBlock,
        ".mol2": chem.MolFromMol2Block,
    }
    if path.suffix.lower() not in readers:
        raise ConfigError(
            f"a file .sdf, .mol or .mol2 for {what}", path.name, "convert it, or give the SMILES"
        )
    try:
        block = path.read_text(encoding="utf-8").split("$$$$")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"a readable text file for {what}", f"{path}: {error}", "check the path") from error
    with rdBase.CaptureErrorLog() as log:
        try:
            molecule = readers[path.suffix.lower()](block, sanitize=False, removeHs=False)
        except RuntimeError as error:
            raise _unreadable(path, what, str(error)) from error
    if molecule is None or not molecule.GetNumAtoms():
        raise _unreadable(path, what, log.messages or "no atoms")
    problems = [problem.Message() for problem in chem.DetectChemistryProblems(molecule)]
    if problems:
        raise _unreadable(path, what, "; ".join(problems))
    chem.SanitizeMol(molecule)
    names = [
        atom.GetProp("_TriposAtomName") if atom.HasProp("_TriposAtomName") else ""
        for atom in molecule.GetAtoms()
    ]
    if molecule.GetNumConformers() and molecule.GetConformer().Is3D():
        chem.AssignStereochemistryFrom3D(molecule)
    charges = None
    if all(atom.HasProp("_TriposPartialCharge") for atom in molecule.GetAtoms()):
        charges = np.array([float(atom.GetProp("_TriposPartialCharge")) for atom in molecule.GetAtoms()])
    for atom, name in zip(molecule.GetAtoms(), names, strict=True):
        if name and atom.GetAtomicNum() != 1:
            atom.SetProp("name", name)
            light = [n.GetIdx() for n in atom.GetNeighbors() if n.GetAtomicNum() == 1]
            atom.SetProp("hydrogens", " ".join(names[index] for index in light))
    order = [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() != 1]
    order += [
        n.GetIdx() for i in order for n in molecule.GetAtomWithIdx(i).GetNeighbors() if n.GetAtomicNum() == 1
    ]
    if charges is not None:
        complete = len(order) == len(charges) == with_hydrogens(_heavy(molecule)).GetNumAtoms()
        charges = charges[order] if complete and charges.any() else None
    return _checked(_heavy(molecule), (), what), charges


def _unreadable(path: Path, what: str, reason: str) -> ConfigError:
    return ConfigError(
        f"a complete {path.suffix[1:]} file for {what}",
        f"{path.name}: {' '.join(reason.split())}",
        "write it again with every atom, bond order and formal charge, or give the SMILES instead",
    )


def _heavy(molecule: Mol) -> Mol:
    """Without any hydrogen; their numbers stay as properties of the heavy atoms."""
    chem = require_rdkit()
    settings = chem.RemoveHsParameters()
    # A hydrogen that defines an imine's double bond cannot be compared with a crystal structure.
    settings.removeDefiningBondStereo = True
    return chem.RemoveHs(molecule, settings)


def _checked(molecule: Mol, names: Sequence[str], what: str) -> Mol:
    chem = require_rdkit()
    molecule = _heavy(molecule)
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(0)
    chem.AssignStereochemistry(molecule, cleanIt=True, force=True)
    if len(chem.GetMolFrags(molecule)) != 1:
        raise ConfigError(
            f"one molecule for {what}",
            f"{len(chem.GetMolFrags(molecule))} (parts separated by dots, or not bonded)",
            "give one ligand per residue, and ions or water as residues of their own",
        )
    radicals = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    if radicals:
        raise ConfigError(
            f"closed shells in {what}",
            f"{radicals} unpaired electrons",
            "write the missing hydrogens or charges",
        )
    if names and len(names) != molecule.GetNumAtoms():
        raise ConfigError(
            f"{molecule.GetNumAtoms()} atom names for {what}, one per heavy atom",
            f"{len(names)}: {' '.join(names)}",
            "give the names in the order of the SMILES",
        )
    for atom, name in zip(molecule.GetAtoms(), names, strict=False):
        atom.SetProp("name", name)
    return molecule


def formal_charge(molecule: Mol) -> int:
    """Sum of formal charges in e."""
    return require_rdkit().GetFormalCharge(molecule)


def with_hydrogens(molecule: Mol) -> Mol:
    """All atoms: first the heavy ones in their order, then hydrogens atom by atom, placed where there are
    coordinates."""
    chem = require_rdkit()
    return chem.AddHs(molecule, addCoords=molecule.GetNumConformers() > 0)


def canonical(molecule: Mol) -> str:
    """Canonical isomeric SMILES with every hydrogen written as an atom.

    The standard InChIKey would not do: it is the same for some tautomers.
    """
    chem = require_rdkit()
    bare = chem.Mol(with_hydrogens(molecule))
    bare.RemoveAllConformers()
    return chem.MolToSmiles(bare)


def from_canonical(smiles: str) -> Mol:
    """All atoms, hydrogens included, in the order of a SMILES made by `canonical`."""
    chem = require_rdkit()
    settings = chem.SmilesParserParams()
    settings.removeHs = False
    return chem.MolFromSmiles(smiles, settings)


def order_in_canonical(smiles: str, complete: Mol) -> list[int]:
    """For each atom of a canonical SMILES the index of the same atom in a molecule with hydrogens.

    Raises
    ------
    StructureError
        They are different molecules or stereoisomers.
    """
    match = complete.GetSubstructMatch(from_canonical(smiles), useChirality=True)
    if len(match) != complete.GetNumAtoms():
        chem = require_rdkit()
        raise StructureError(
            f"the molecule {plain_smiles(from_canonical(smiles))}",
            plain_smiles(chem.RemoveHs(complete)),
            "give the parameters of this very molecule",
        )
    return list(match)


def plain_smiles(molecule: Mol) -> str:
    """Canonical isomeric SMILES without hydrogens, for messages and records."""
    chem = require_rdkit()
    return chem.MolToSmiles(chem.RemoveHs(molecule))


def atom_names(molecule: Mol, taken: Sequence[str] = ()) -> list[str]:
    """Names of all atoms, hydrogens last, unique and at most four characters where that is possible.

    Heavy atoms keep their property ``name``; hydrogens theirs, else they are called after their atom: the
    hydrogen of C3 is H3, those of C9 are H91 and H92, that of O5 is HO5.
    """
    used = set(taken)
    heavy = list(molecule.GetAtoms())
    used.update(atom.GetProp("name") for atom in heavy if atom.HasProp("name"))

    def free(*wishes: str, element: str) -> str:
        for wish in wishes:
            if wish not in used and len(wish) <= 4:
                break
        else:
            wish = next(f"{element}{n}" for n in range(1, 10_000) if f"{element}{n}" not in used)
        used.add(wish)
        return wish

    names = [
        atom.GetProp("name") if atom.HasProp("name") else free(element=atom.GetSymbol().upper())
        for atom in heavy
    ]
    for atom, name in zip(heavy, list(names), strict=True):
        count = atom.GetTotalNumHs()
        known = atom.GetProp("hydrogens").split() if atom.HasProp("hydrogens") else []
        if len(known) == count and len(set(known)) == count and not used.intersection(known):
            names += known
            used.update(known)
            continue
        symbol = atom.GetSymbol().upper()
        stem = "H" + (name[1:] if symbol == "C" and name.startswith("C") else name)
        for number in range(1, count + 1):
            names.append(free(stem if count == 1 else f"{stem}{number}", element="H"))
    return names


def reference_conformer(complete: Mol) -> np.ndarray:
    """Coordinates (N, 3) in angstrom of the conformer whose groups interact least with one another.

    AM1 in vacuo folds ions onto themselves, and charges follow. Of several conformers the one with the lowest
    Coulomb energy of the *absolute* charges is taken: polar groups stay apart, whatever their sign (the idea
    of ELF conformers, electrostatically least-interacting functional groups, C. I. Bayly, OpenEye). The seed
    is fixed, so that charges depend on the molecule alone.

    Raises
    ------
    StructureError
        No conformer can be embedded.
    """
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdmolops, rdPartialCharges

    molecule = require_rdkit().Mol(complete)
    settings = rdDistGeom.ETKDGv3()
    # RDKit's stubs give these three settings the type of the class that holds them.
    settings.randomSeed = _SEED  # type: ignore[assignment]  # wrong stub
    settings.numThreads = 1  # type: ignore[assignment]  # wrong stub
    conformers = list(rdDistGeom.EmbedMultipleConfs(molecule, _CONFORMERS, settings))
    if not conformers:
        settings.useRandomCoords = True  # type: ignore[assignment]  # wrong stub
        conformers = list(rdDistGeom.EmbedMultipleConfs(molecule, _CONFORMERS, settings))
    if not conformers:
        raise StructureError(
            f"a molecule with a three-dimensional shape: {plain_smiles(molecule)}",
            "no conformer from distance geometry",
            "check rings and stereocentres of the SMILES; impossible combinations have no conformer",
        )
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    if properties is not None:
        charges = np.array([properties.GetMMFFPartialCharge(i) for i in range(molecule.GetNumAtoms())])
    else:
        rdPartialCharges.ComputeGasteigerCharges(molecule)
        charges = np.array([atom.GetDoubleProp("_GasteigerCharge") for atom in molecule.GetAtoms()])
    far = rdmolops.GetDistanceMatrix(molecule) >= 3
    products = np.triu(np.abs(np.outer(charges, charges)) * far)
    energies = []
    for index in conformers:
        positions = molecule.GetConformer(index).GetPositions()
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        energies.append((products / np.where(far, distances, 1.0)).sum())
    best = conformers[int(np.argmin(np.round(energies, 6)))]
    return np.array(molecule.GetConformer(best).GetPositions())
