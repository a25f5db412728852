"""What the force field can describe: residues kept, replaced by their parent, or refused with the way on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pdbfixer
from openmm import app
from pdbfixer.pdbfixer import proteinResidues

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import METALS, NUCLEOTIDES
from mlmm.build.files.dialects import ion_of
from mlmm.build.gaps import describe_residue
from mlmm.build.glycans import PDB_SUGARS, is_sugar, places_of
from mlmm.build.ionisable import group_charge
from mlmm.build.joints import Joint, joints
from mlmm.build.templates import Match, TemplateGraphs, bonded_atoms, ion_templates
from mlmm.errors import ConfigError, StructureError

__all__ = ["check_described", "check_joints", "five_prime_phosphates", "replace_residues", "settle_ions"]

_BY_AMBER = 'or build it with AmberTools and write prmtop = "…" and inpcrd = "…" instead of pdb'
_GLYCAN_BY_AMBER = (
    'for a glycan, take the force field with GLYCAM, forcefield = "amber14"; where that lacks the residue (a '
    "free end of a sialic acid, furanoses), build it in AmberTools (tleap, leaprc.GLYCAM_06j-1) and write "
    'prmtop = "…" and inpcrd = "…" instead of pdb'
)
_HALOGENS = {"F", "CL", "BR", "I"}
_PHOSPHATE = {"P", "OP1", "OP2", "OP3", "HOP2", "HOP3"}


def replace_residues(
    fixer: pdbfixer.PDBFixer, graphs: TemplateGraphs, ligand_names: set[str], wanted: Mapping[str, str]
) -> list[Decision]:
    """Give residues that the force field lacks their standard parent, and mutate those that the user names.

    Parameters
    ----------
    fixer : pdbfixer.PDBFixer
        Its topology is changed.
    graphs : TemplateGraphs
    ligand_names : set of str
        Residues that the user describes; left alone.
    wanted : mapping of str to str
        Residue name, or ``"A:ARG90"``, to a standard residue.

    Raises
    ------
    ConfigError
        A residue to mutate that is not there.
    StructureError
        A parent with another charge, which only the user can want.
    """
    fixer.findNonstandardResidues()
    bonded, atoms = bonded_atoms(fixer.topology), list(fixer.topology.atoms())
    asked = _asked_for(fixer.topology, wanted)
    changes: list[tuple[app.topology.Residue, str]] = []
    decisions = []
    for residue in fixer.topology.residues():
        who = describe_residue(residue)
        if residue in asked:
            changes.append((residue, asked[residue]))
            text = f"{who} turned into {asked[residue]}, as asked for"
            decisions.append(Decision("repair", "mutation", text, who, {"parent": asked[residue]}))
    for residue, parent in fixer.nonstandardResidues:
        if residue in asked or residue.name in ligand_names:
            continue
        who = describe_residue(residue)
        matches = [
            match for match in graphs.matches(residue, bonded) if not _truncated(fixer, residue, match)
        ]
        if matches:
            text = f"{who} kept: the force field has a template for its atoms ({matches[0].template.name})"
            decisions.append(Decision("repair", "modified residue", text, who))
            continue
        before, after = group_charge(residue, bonded, atoms), _standard_charge(fixer, parent)
        if before != after:
            raise StructureError(
                "residues that the force field describes",
                f"{who}, which it lacks; {parent} in its place would change the charge of the side chain "
                f"from {before:+d} to {after:+d} e",
                f'give its parameters (ligands = ["{residue.name}.xml"]), {_BY_AMBER}; or write '
                f'mutate = ["{residue.name} -> {parent}"] if {parent} is what you want',
            )
        changes.append((residue, parent))
        text = f"{who} replaced by {parent}: the force field has no template of its own for it"
        decisions.append(Decision("repair", "modified residue", text, who, {"parent": parent}, warning=True))
    fixer.nonstandardResidues = changes
    fixer.replaceNonstandardResidues()
    return decisions


def _truncated(fixer: pdbfixer.PDBFixer, residue: app.topology.Residue, match: Match) -> bool:
    """Whether a modified residue looks like a standard one as atoms are missing (MSE cut at CB)."""
    name = match.template.name.partition("-")[0]
    base = name if name in proteinResidues else name[1:]
    if base not in proteinResidues or match.template.name == residue.name:
        return False
    whole = {a.name for a in fixer.templates[base].topology.atoms() if a.element != app.element.hydrogen}
    heavy = {a.name for a in residue.atoms() if a.element not in (None, app.element.hydrogen)}
    return len(heavy - {"OXT"}) <= len(whole - {"OXT"})


def _asked_for(topology: app.Topology, wanted: Mapping[str, str]) -> dict[app.topology.Residue, str]:
    found: dict[app.topology.Residue, str] = {}
    for key, new in wanted.items():
        chain, colon, rest = key.upper().rpartition(":")
        matching = [
            residue
            for residue in topology.residues()
            if (residue.name == rest and not colon)
            or (
                f"{residue.name}{residue.id}{residue.insertionCode.strip()}".upper() == rest
                and (not colon or residue.chain.id.upper() == chain)
            )
        ]
        if not matching:
            raise ConfigError(
                'a residue of the structure as "A:ARG90", or a residue name, before -> in mutate',
                repr(key),
                "look at the residues with mlmm build --dry-run",
            )
        found.update(dict.fromkeys(matching, new))
    return found


def _standard_charge(fixer: pdbfixer.PDBFixer, name: str) -> int:
    topology = fixer.templates[name].topology
    return group_charge(next(topology.residues()), bonded_atoms(topology), list(topology.atoms()))


def settle_ions(
    topology: app.Topology, force_field: app.ForceField, ligand_names: set[str], name: str
) -> list[Decision]:
    """Give monatomic ions the name of the template with their element and charge.

    Raises
    ------
    StructureError
        An ion that the force field lacks, or has with another charge only.
    """
    decisions = []
    for residue in topology.residues():
        atoms = [atom for atom in residue.atoms() if atom.element is not None]
        if len(atoms) != 1 or residue.name == "HOH" or residue.name in ligand_names:
            continue
        symbol, who = atoms[0].element.symbol, describe_residue(residue)
        if symbol.upper() not in METALS | _HALOGENS:
            continue
        templates = ion_templates(force_field, symbol)
        named = ion_of(residue.name)
        charge = atoms[0].formalCharge or (named[1] if named else None)
        fitting = sorted(t for t, value in templates.items() if charge in (None, round(value)))
        if not fitting:
            has = ", ".join(f"{t} ({value:+.0f})" for t, value in sorted(templates.items())) or "none"
            raise StructureError(
                f"an ion {symbol} that the force field describes (it has {has})",
                f"{who} with charge {charge:+d} e in {name}" if charge else f"{who} in {name}",
                "give it the residue name of the ion that is meant, or a force-field file that has it"
                if templates
                else f'give a force-field file that has it, or leave it out: remove = ["{residue.name}"]',
            )
        chosen = residue.name if residue.name in fitting else fitting[0]
        if len(templates) > 1:
            residue.name = chosen
            text = f"{who} has the charge {templates[chosen]:+.0f} e (template {chosen})"
            decisions.append(Decision("repair", "ion", text, who, {"charge": templates[chosen]}))
    return decisions


def five_prime_phosphates(topology: app.Topology, graphs: TemplateGraphs) -> list[app.topology.Atom]:
    """Atoms of phosphates at 5' ends that the force field cannot describe, while it can the nucleoside."""
    bonded = bonded_atoms(topology)
    found: list[app.topology.Atom] = []
    for residue in topology.residues():
        if residue.name not in NUCLEOTIDES:
            continue
        phosphate = [atom for atom in residue.atoms() if atom.name in _PHOSPHATE]
        phosphorus = next((atom for atom in phosphate if atom.name == "P"), None)
        if phosphorus is None or any(
            neighbour not in {a.index for a in residue.atoms()} for neighbour in bonded[phosphorus.index]
        ):
            continue
        if not graphs.matches(residue, bonded) and graphs.matches(residue, bonded, phosphate):
            found += phosphate
    return found


def check_joints(
    topology: app.Topology,
    positions: np.ndarray,
    graphs: TemplateGraphs,
    skipped: Collection[app.topology.Residue],
    molecules: set[str],
    told: Mapping[Joint, str],
    name: str,
) -> None:
    """Refuse bonds between residues for which the force field has no template, by the name of the bond.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    graphs : TemplateGraphs
    skipped : collection of residues
        Not looked at yet: described by a file of the user, or incomplete.
    molecules : set of str
        Residues that the user describes as molecules of their own.
    told : mapping of Joint to str
        Each bond in words.
    name : str
        Of the file.

    Raises
    ------
    StructureError
    """
    bonded = bonded_atoms(topology)
    wrong: dict[Joint, list[str]] = {}
    for joint in joints(topology):
        ends = [atom.residue for atom in joint]
        if any(_is_single(residue) for residue in ends):
            continue
        for residue in ends:
            own = residue.name in molecules
            if own or (residue not in skipped and not graphs.matches(residue, bonded)):
                wrong.setdefault(joint, []).append(residue.name)
    if not wrong:
        return
    joint, names = next(iter(wrong.items()))
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    raise StructureError(
        "bonds between residues that the force field describes",
        f"{_kind(joint)} {told[joint]}{more} in {name}, without a template of {' and '.join(names)} for it",
        _GLYCAN_BY_AMBER
        if any(is_sugar(places_of(atom.residue, positions)) for atom in joint)
        else "describe the joined residues in an OpenMM XML file with <ExternalBond> and give it as "
        f'ligands = ["file.xml"], {_BY_AMBER}; if the atoms are not bonded, correct their coordinates and '
        "records",
    )


def _kind(joint: Joint) -> str:
    symbols = {joint.one.element.symbol, joint.other.element.symbol}
    protein = all({"N", "CA", "C"} <= {a.name for a in atom.residue.atoms()} for atom in joint)
    if protein and symbols == {"C", "N"}:
        return "the isopeptide bond"
    return "the covalent bond"


def _is_single(residue: app.topology.Residue) -> bool:
    return residue.name == "HOH" or sum(a.element is not None for a in residue.atoms()) == 1


def check_described(
    topology: app.Topology,
    positions: np.ndarray,
    graphs: TemplateGraphs,
    ligand_names: set[str],
    standard: set[str],
    name: str,
) -> list[Decision]:
    """Refuse residues without parameters, all at once and before anything slow begins.

    Returns
    -------
    list of Decision
        Residues that have the atoms and bonds of a template with another name, and take its parameters.

    Raises
    ------
    StructureError
    """
    bonded = bonded_atoms(topology)
    unknown, decisions = [], []
    for residue in topology.residues():
        usual = residue.name in standard and _has_family(residue.name, graphs)
        if residue.name in ligand_names or residue.name in graphs.names or usual:
            continue
        matches = graphs.matches(residue, bonded)
        if not matches:
            unknown.append(residue)
        elif residue.name != "HOH" and not _is_single(residue):
            who, template = describe_residue(residue), matches[0].template.name
            text = f"{who} has the heavy atoms and bonds of {template}, and takes its parameters"
            decisions.append(Decision("repair", "template", text, who, {"template": template}, warning=True))
    if unknown:
        shown = ", ".join(describe_residue(residue) for residue in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise StructureError(
            "residues that the force field or a ligand file describes",
            f"unknown {shown}{more} in {name}",
            _advice(unknown[0], positions),
        )
    if all(residue.name == "HOH" for residue in topology.residues()):
        raise StructureError(
            "a molecule besides water", f"only water in {name}", "give a file that holds the solute"
        )
    return decisions


def _has_family(name: str, graphs: TemplateGraphs) -> bool:
    """Whether the force field has amino acids, or nucleotides, at all: what is missing is then mended."""
    if name in NUCLEOTIDES:
        return bool({"DA", "A", "ADE"} & graphs.names) and (name in graphs.names or "ADE" in graphs.names)
    return "ALA" in graphs.names


def _advice(first: app.topology.Residue, positions: np.ndarray) -> str:
    if first.name in NUCLEOTIDES:
        return 'add a nucleic-acid force field: forcefield = ["amber14-all.xml", "amber14/tip3p.xml"]'
    if first.name in app.Topology._standardBonds:
        return 'add a force field of proteins, such as "amber14/protein.ff14SB.xml", to forcefield'
    if any(a.element is not None and a.element.symbol.upper() in METALS for a in first.atoms()):
        return (
            "build it with bonded parameters in AmberTools (its dat/contrib has hemes and Fe4S4 clusters: "
            "inputs of LEaP are in the guide, builder.md, Metals with bonds; MCPB.py for others) "
            'and write prmtop = "…" and inpcrd = "…" instead of pdb'
        )
    if first.name in PDB_SUGARS or is_sugar(places_of(first, positions)):
        return (
            f"{_GLYCAN_BY_AMBER}; for a sugar that is bonded to nothing, write "
            f'[system.ligand.{first.name}] with smiles = "…"; or leave it out: remove = ["{first.name}"]'
        )
    return (
        f'write [system.ligand.{first.name}] with smiles = "…"; or make a file with `mlmm ligand "SMILES" '
        f'--name {first.name}` and name it in [system] ligands; or leave it out: remove = ["{first.name}"]'
    )
