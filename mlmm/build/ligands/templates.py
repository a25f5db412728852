"""OpenMM force-field files of ligands: written from parameters, and read back as molecules.

A file that this project writes says in ``<Info><Molecule residue= smiles=>`` which molecule its residue is;
the atom-map numbers of the SMILES count the residue's atoms. So bond orders, protonation and stereocentres
survive, and a structure can be compared with them.
"""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.build.ligands.molecules import canonical, order_in_canonical, plain_smiles, require_rdkit
from mlmm.build.ligands.parameters import LigandParameters
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

logger = logging.getLogger(__name__)

_REFERENCES = {
    "gaff": "Wang, J., Wolf, R. M., Caldwell, J. W., Kollman, P. A. and Case, D. A. (2004). Development and "
    "testing of a general Amber force field. J. Comput. Chem. 25, 1157-1174.",
    "AM1-BCC": "Jakalian, A., Jack, D. B. and Bayly, C. I. (2002). Fast, efficient generation of "
    "high-quality atomic charges. AM1-BCC model: II. Parameterization and validation. J. Comput. Chem. 23, "
    "1623-1641.",
}
_SCALES = {"coulomb14scale": "0.8333333333333334", "lj14scale": "0.5"}  # digit by digit as in amber14


def template_xml(parameters: LigandParameters, complete: Mol, names: Sequence[str], residue: str) -> str:
    """An OpenMM force-field file with one residue, to be loaded beside amber14.

    Types are called after residue and atom, classes after residue and GAFF2 type, so that several ligands and
    a protein force field can be loaded together. Impropers go by type: their order of atoms, which OpenMM
    would otherwise choose, is that of LEaP.

    Parameters
    ----------
    parameters : LigandParameters
    complete : Mol
        The same molecule, all atoms, in the order that the file shall have.
    names : sequence of str
        Of its atoms.
    residue : str
    """
    order = order_in_canonical(parameters.smiles, complete)
    place = {index: position for position, index in enumerate(order)}
    n_atoms = len(order)

    def kind(position: int) -> str:
        return f"{residue}-{parameters.types[position]}"

    root = ElementTree.Element("ForceField")
    root.append(ElementTree.Comment(_header(parameters, complete, residue)))
    info = ElementTree.SubElement(root, "Info")
    source = f"mlmm {version('mlmm')}: GAFF2 and {parameters.charge_method}"
    ElementTree.SubElement(info, "Source").text = source
    ElementTree.SubElement(info, "Reference").text = _REFERENCES["gaff"]
    if parameters.charge_method in _REFERENCES:
        ElementTree.SubElement(info, "Reference").text = _REFERENCES[parameters.charge_method]
    facts = {"residue": residue, "smiles": _mapped_smiles(complete)}
    facts |= {"parameters": "GAFF2", "charges": parameters.charge_method}
    ElementTree.SubElement(info, "Molecule", facts)
    types = ElementTree.SubElement(root, "AtomTypes")
    residues = ElementTree.SubElement(root, "Residues")
    template = ElementTree.SubElement(residues, "Residue", name=residue)
    for index in range(n_atoms):
        position, name = place[index], f"{residue}-{names[index]}"
        element = complete.GetAtomWithIdx(index).GetSymbol()
        mass = repr(parameters.masses[position])
        ElementTree.SubElement(
            types, "Type", {"name": name, "class": kind(position), "element": element, "mass": mass}
        )
        charge = f"{parameters.charges[position]:.8f}"
        ElementTree.SubElement(template, "Atom", name=names[index], type=name, charge=charge)
    pairs = sorted(tuple(sorted((order[i], order[j]))) for i, j, *_ in parameters.bonds)
    for first, second in pairs:
        ElementTree.SubElement(template, "Bond", atomName1=names[first], atomName2=names[second])
    _add_terms(root, "HarmonicBondForce", "Bond", parameters.bonds, 2, ("length", "k"), kind)
    _add_terms(root, "HarmonicAngleForce", "Angle", parameters.angles, 3, ("angle", "k"), kind)
    _add_torsions(root, parameters, kind, [f"{residue}-{names[order[i]]}" for i in range(n_atoms)])
    nonbonded = ElementTree.SubElement(root, "NonbondedForce", _SCALES)
    ElementTree.SubElement(nonbonded, "UseAttributeFromResidue", name="charge")
    lines = {
        kind(i): {"sigma": repr(parameters.sigmas[i]), "epsilon": repr(parameters.epsilons[i])}
        for i in range(n_atoms)
    }
    for name in sorted(lines):
        ElementTree.SubElement(nonbonded, "Atom", {"class": name, **lines[name]})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _header(parameters: LigandParameters, complete: Mol, residue: str) -> str:
    lines = [
        f"{residue}: {plain_smiles(complete)}",
        "for use together with amber14/protein.ff14SB.xml.",
        "",
        f"Parameters  GAFF2; {parameters.facts.get('force field', '')}",
        f"Charges     {parameters.facts.get('charges', parameters.charge_method)}",
        f"Programs    AmberTools {parameters.facts.get('AmberTools', 'of unknown version')}:",
        "            antechamber, sqm, parmchk2, tleap",
        "Conversion  kcal/mol to kJ/mol, angstrom to nm; force constants doubled because OpenMM writes",
        "            k/2 (x - x0)^2; R_min/2 to sigma with 2^(5/6)/10; torsions of zero height left out.",
    ]
    # Two hyphens would end the comment.
    return "\n" + "\n".join(line.replace("--", "- -") for line in lines) + "\n"


def _mapped_smiles(complete: Mol) -> str:
    chem = require_rdkit()
    copy = chem.Mol(complete)
    copy.RemoveAllConformers()
    for atom in copy.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    return chem.MolToSmiles(copy)


def _add_terms(
    root: ElementTree.Element,
    force: str,
    tag: str,
    terms: Iterable[Sequence],
    n_atoms: int,
    values: tuple[str, ...],
    kind: Callable[[int], str],
) -> None:
    """One element for each combination of classes."""
    lines = {}
    for term in terms:
        classes = tuple(kind(index) for index in term[:n_atoms])
        lines[min(classes, classes[::-1])] = term[n_atoms:]
    parent = ElementTree.SubElement(root, force)
    for classes in sorted(lines):
        attributes = {f"class{n}": name for n, name in enumerate(classes, start=1)}
        attributes |= {name: repr(value) for name, value in zip(values, lines[classes], strict=True)}
        ElementTree.SubElement(parent, tag, attributes)


def _add_torsions(
    root: ElementTree.Element,
    parameters: LigandParameters,
    kind: Callable[[int], str],
    type_names: list[str],
) -> None:
    parent = ElementTree.SubElement(root, "PeriodicTorsionForce", ordering="amber")
    # Classes in the order of the first torsion that has them: both directions mean the same term.
    lines: dict[tuple[str, ...], set[tuple]] = defaultdict(set)
    for term in parameters.torsions:
        classes = tuple(kind(index) for index in term[:4])
        lines[min(classes, classes[::-1])].add(tuple(term[4:]))
    for classes in sorted(lines):
        attributes = {f"class{n}": name for n, name in enumerate(classes, start=1)}
        ElementTree.SubElement(parent, "Proper", attributes | _waves(sorted(lines[classes])))
    for i, j, centre, last, *wave in sorted(parameters.impropers):
        names = [type_names[index] for index in (centre, i, j, last)]
        attributes = {f"type{n}": name for n, name in enumerate(names, start=1)}
        ElementTree.SubElement(parent, "Improper", attributes | _waves([wave]))


def _waves(waves: Iterable[Sequence]) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for number, (periodicity, phase, k) in enumerate(waves, start=1):
        attributes |= {f"periodicity{number}": str(periodicity), f"phase{number}": repr(phase)}
        attributes[f"k{number}"] = repr(k)
    return attributes


def molecules_of_template(path: Path) -> dict[str, Mol]:
    """Residue name -> molecule with atom names, for the residues of a file that says what they are.

    Raises
    ------
    ConfigError
        A SMILES whose atom-map numbers are not those of the residue's atoms.
    """
    root = ElementTree.parse(path).getroot()
    found = {}
    for entry in root.iterfind("Info/Molecule"):
        residue = root.find(f"Residues/Residue[@name='{entry.get('residue', '')}']")
        names = [] if residue is None else [atom.get("name", "") for atom in residue.iterfind("Atom")]
        chem = require_rdkit()
        settings = chem.SmilesParserParams()
        settings.removeHs = False
        molecule = chem.MolFromSmiles(entry.get("smiles", ""), settings)
        numbers = [] if molecule is None else [atom.GetAtomMapNum() for atom in molecule.GetAtoms()]
        if not names or sorted(numbers) != [*range(1, len(names) + 1)]:
            raise ConfigError(
                f"<Molecule residue= smiles=> in {path.name} with one mapped atom per atom of that residue",
                f"{len(names)} atoms, {len(numbers)} in {entry.get('smiles', '')!r}",
                "write the file again with mlmm ligand, or delete the <Molecule> line",
            )
        for atom in molecule.GetAtoms():
            atom.SetProp("name", names[atom.GetAtomMapNum() - 1])
        for atom in molecule.GetAtoms():
            light = [n.GetProp("name") for n in atom.GetNeighbors() if n.GetAtomicNum() == 1]
            atom.SetProp("hydrogens", " ".join(light))
            atom.SetAtomMapNum(0)
        molecule = chem.RemoveHs(molecule)
        chem.AssignStereochemistry(molecule, cleanIt=True, force=True)
        found[entry.get("residue", "")] = molecule
    return found


def shipped_template(smiles: str, folder: Path) -> Path | None:
    """Find the force-field file in a folder that describes a given molecule with GAFF2 and AM1-BCC."""
    for path in sorted(folder.glob("*.xml")):
        entries = ElementTree.parse(path).getroot().iterfind("Info/Molecule")
        if any((e.get("parameters"), e.get("charges")) == ("GAFF2", "AM1-BCC") for e in entries):
            molecules = molecules_of_template(path)
            if any(canonical(molecule) == smiles for molecule in molecules.values()):
                return path
    return None
