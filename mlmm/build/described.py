"""What the force field can describe: residues kept, replaced by their parent, or refused with the way on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pdbfixer
from openmm import app
from pdbfixer.pdbfixer import proteinResidues

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import AMINO_ACIDS, CAPS, METALS, NUCLEOTIDES
from mlmm.build.files.dialects import ion_of
from mlmm.build.gaps import describe_residue
from mlmm.build.glycans import is_sugar, places_of
from mlmm.build.ionisable import group_charge
from mlmm.build.joints import Joint, joints
from mlmm.build.questions import NothingLeftError, OpenQuestionError, removal_key
from mlmm.build.templates import Match, TemplateGraphs, bonded_atoms, ion_templates
from mlmm.build.unknown import (
    BY_AMBER,
    METAL_BY_AMBER,
    glycan_advice,
    holds_metal,
    is_alone,
    is_in_chain,
    unknown_residues,
)
from mlmm.errors import ConfigError, StructureError

__all__ = ["check_described", "check_joints", "five_prime_phosphates", "replace_residues", "settle_ions"]

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
            usual, has = group_charge(residue, bonded, atoms), _charge(matches[0])
            other = usual != 0 and has is not None and has != usual
            if other:
                text += f", with a charge of {has:+d} e, where its groups have {usual:+d} e at pH 7"
            decisions.append(Decision("repair", "modified residue", text, who, warning=other))
            continue
        before, after = group_charge(residue, bonded, atoms), _standard_charge(fixer, parent)
        if before != after:
            was, would_be = (f"{charge:+d}" if charge else "0" for charge in (before, after))
            raise OpenQuestionError(
                "residues that the force field describes",
                f"{who}, which it lacks; {parent} in its place would change the charge of the side chain "
                f"from {was} to {would_be} e",
                f'give its parameters (ligands = ["{residue.name}.xml"]), {BY_AMBER}; or write '
                f'mutate = ["{residue.name} -> {parent}"] if {parent} is what you want',
                {"mutate": {residue.name: parent}},
                f"{residue.name} as {parent}",
            )
        changes.append((residue, parent))
        text = f"{who} replaced by {parent}: the force field has no template of its own for it"
        decisions.append(Decision("repair", "modified residue", text, who, {"parent": parent}, warning=True))
    fixer.nonstandardResidues = changes
    fixer.replaceNonstandardResidues()
    return decisions


def _charge(match: Match) -> int | None:
    """Of a template inside a chain; None where charges go by types, or it ends a chain."""
    template = match.template
    charges = [atom.parameters.get("charge") for atom in template.atoms]
    if len(template.externalBonds) != 2 or None in charges:
        return None
    return round(sum(float(charge) for charge in charges))


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
            raise OpenQuestionError(
                f"an ion {symbol} that the force field describes (it has {has})",
                f"{who} with charge {charge:+d} e in {name}" if charge else f"{who} in {name}",
                "give it the residue name of the ion that is meant, or a force-field file that has it"
                if templates
                else f'give a force-field file that has it, or leave it out: remove = ["{residue.name}"]',
                {"remove": [residue.name]},
                f"without {residue.name}",
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
    expected = "bonds between residues that the force field describes"
    names = list(dict.fromkeys(names))
    got = f"{_kind(joint)} {told[joint]}{more} in {name}, without a template of {' and '.join(names)} for it"
    do = (
        METAL_BY_AMBER
        if any(holds_metal(atom.residue) for atom in joint)
        else glycan_advice(graphs.has_glycans)
        if any(is_sugar(places_of(atom.residue, positions)) for atom in joint)
        else "describe the joined residues in an OpenMM XML file with <ExternalBond> and give it as "
        f'ligands = ["file.xml"], {BY_AMBER}; if the atoms are not bonded, correct their coordinates and '
        "records"
    )
    # Without the molecule that hangs on a chain, the rest can be looked at; a bond within chains stays.
    beside = [residue for bond in wrong for residue in _beside_chains(bond)]
    if not all(_beside_chains(bond) for bond in wrong):
        raise StructureError(expected, got, do)
    keys = [removal_key(r.name, r.chain.id, r.id, r.insertionCode) for r in dict.fromkeys(beside)]
    assumption = f"without {', '.join(describe_residue(residue) for residue in dict.fromkeys(beside))}"
    raise OpenQuestionError(expected, got, do, {"remove": keys}, assumption)


def _beside_chains(joint: Joint) -> list[app.topology.Residue]:
    """Residues of a bond that are no links of a protein or nucleic acid."""
    known = AMINO_ACIDS | NUCLEOTIDES | CAPS
    return [
        residue
        for residue in (atom.residue for atom in joint)
        if residue.name not in known and not is_in_chain(residue)
    ]


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
        if usual and is_alone(residue) and not _zwitterion(residue, graphs, bonded):
            unknown.append(residue)
            continue
        if residue.name in ligand_names or residue.name in graphs.names or usual:
            continue
        matches = graphs.matches(residue, bonded)
        if not matches:
            unknown.append(residue)
        elif residue.name != "HOH" and not _is_single(residue):
            who, template = describe_residue(residue), matches[0].template.name
            text = f"{who} has the heavy atoms and bonds of {template}, and takes its parameters"
            decisions.append(Decision("repair", "template", text, who, {"template": template}, warning=True))
    # Molecules first: a dry run looks at the rest without them, which it cannot do without a link of a chain.
    unknown = [r for r in unknown if not is_in_chain(r)] or unknown
    if unknown:
        raise unknown_residues(unknown, positions, name, graphs.has_glycans)
    if all(residue.name == "HOH" for residue in topology.residues()):
        raise NothingLeftError(
            "a molecule besides water", f"only water in {name}", "give a file that holds the solute"
        )
    return decisions


def _zwitterion(
    residue: app.topology.Residue, graphs: TemplateGraphs, bonded: Sequence[Sequence[int]]
) -> bool:
    """Whether the force field describes an amino acid with both ends free; CHARMM does by patches."""
    whole = any(atom.name == "OXT" for atom in residue.atoms())
    return bool(graphs.matches(residue, bonded)) if whole else graphs.has_patches


def _has_family(name: str, graphs: TemplateGraphs) -> bool:
    """Whether the force field has amino acids, or nucleotides, at all: what is missing is then mended."""
    if name in NUCLEOTIDES:
        return bool({"DA", "A", "ADE"} & graphs.names) and (name in graphs.names or "ADE" in graphs.names)
    return "ALA" in graphs.names
