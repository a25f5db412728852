"""Repair of heavy atoms: missing atoms and residues, non-standard residues, and what is refused.

PDBFixer finds and mends; every change is put into words, and what it would invent (loops, whole side chains
of a CA trace, a peptide bond across a gap) is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import openmm
import pdbfixer
from openmm import app, unit
from pdbfixer.pdbfixer import ModifiedResidue

from mlmm.build.build_log import Decision
from mlmm.build.described import (
    check_described,
    check_joints,
    five_prime_phosphates,
    replace_residues,
    settle_ions,
)
from mlmm.build.draft import as_quantity, draft_topology
from mlmm.build.files.atoms import CheckedStructure, ResidueKey
from mlmm.build.gaps import describe_residue, mend_chains
from mlmm.build.glycans import GlycamName, name_glycans, place_of
from mlmm.build.joints import Sources, joints, told
from mlmm.build.options import BuildOptions
from mlmm.build.questions import OpenQuestionError
from mlmm.build.reducing_ends import split_reducing_ends
from mlmm.build.stretched import check_bonds_within_residues, check_links
from mlmm.build.templates import TemplateGraphs
from mlmm.build.topology_json import set_topology_box, topology_box
from mlmm.errors import StructureError
from mlmm.short_repr import counted

if TYPE_CHECKING:
    from mlmm.build.ligands.definition import LigandPlan

logger = logging.getLogger(__name__)

_BACKBONE = {"N", "CA", "C"}
_ONE_ATOM = "ATOM      1  CA  GLY A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n"


@dataclass
class Repairs:
    """Missing and replaced parts of a structure, found but not yet mended.

    Parameters
    ----------
    fixer : pdbfixer.PDBFixer
        Holds topology, coordinates, and the atoms to add.
    decisions : list
        What `apply_repairs` will do, in words.
    renamed : dict
        Sugars and their carriers, which bear GLYCAM's names until the end of a build, to their own names.
    """

    fixer: pdbfixer.PDBFixer
    decisions: list[Decision | str]
    renamed: dict[GlycamName, str] = field(default_factory=dict)


def find_repairs(
    source: CheckedStructure, plan: LigandPlan, force_field: app.ForceField, options: BuildOptions
) -> Repairs:
    """Find what is missing or has to be replaced, and refuse what cannot be mended.

    Parameters
    ----------
    source : CheckedStructure
        One model with one location per atom.
    plan : LigandPlan
        Residues that the user describes (never replaced), and those to mutate.
    force_field : openmm.app.ForceField
        Its templates say what can be kept.
    options : BuildOptions
        `gaps` and `tails`.

    Raises
    ------
    StructureError
        Gaps in a chain, unknown residues, or a chain with less than half of its
        heavy atoms.
    """
    fixer, sources = _load(source)
    positions = _positions(fixer)
    gaps, tails, names = options.gaps, options.tails, plan.names
    decisions: list[Decision | str] = []
    decisions += check_bonds_within_residues(fixer.topology, positions, source.name)
    decisions += _missing_residues(fixer, source, gaps, tails)
    if gaps == "refuse":
        check_links(fixer.topology, positions, source.name)
    topology, positions, mended = mend_chains(fixer.topology, positions, source.missing, gaps, tails)
    fixer.topology, fixer.positions = topology, as_quantity(positions)
    decisions += mended
    graphs = TemplateGraphs(force_field)
    decisions += settle_ions(fixer.topology, force_field, names, source.name)
    before = [(place_of(residue), residue.name) for residue in fixer.topology.residues()]
    decisions += replace_residues(fixer, graphs, names, plan.substitute)
    now: dict[ResidueKey, set[str]] = {}
    for residue in fixer.topology.residues():
        now.setdefault(place_of(residue), set()).add(residue.name)
    replaced = {place: name for place, name in before if name not in now.get(place, ())}
    decisions += _drop_phosphates(fixer, graphs)
    topology, positions, ends = split_reducing_ends(fixer.topology, _positions(fixer), graphs, names)
    fixer.topology, fixer.positions = topology, as_quantity(positions)
    decisions += ends
    decisions += _find_missing_atoms(fixer, source.name)
    told_joints = {
        joint: told(joint, _positions(fixer), sources, replaced) for joint in joints(fixer.topology)
    }
    molecules = set(plan.definitions) | set(plan.mutate)
    skipped = {residue for residue in fixer.topology.residues() if residue.name in names - molecules}
    skipped |= {*fixer.missingAtoms, *fixer.missingTerminals}
    check_joints(fixer.topology, _positions(fixer), graphs, skipped, molecules, told_joints, source.name)
    renamed, said = name_glycans(fixer.topology, _positions(fixer), graphs, names)
    decisions += said
    standard = set(fixer.templates)
    decisions += check_described(fixer.topology, _positions(fixer), graphs, names, standard, source.name)
    decisions += [
        Decision("repair", "bond", f"bond between residues: {text}", numbers={})
        for text in told_joints.values()
    ]
    _check_last_residue(fixer, source)
    return Repairs(fixer, decisions, renamed)


def _drop_phosphates(fixer: pdbfixer.PDBFixer, graphs: TemplateGraphs) -> list[Decision]:
    """Leave out phosphates at 5' ends that no template describes: Amber's nucleic acids begin with O5'."""
    atoms = five_prime_phosphates(fixer.topology, graphs)
    if not atoms:
        return []
    decisions = []
    for residue in dict.fromkeys(atom.residue for atom in atoms):
        names = ", ".join(atom.name for atom in atoms if atom.residue is residue)
        who = describe_residue(residue)
        text = f"{who}: 5' phosphate ({names}) left out, the force field begins a chain with O5'"
        decisions.append(Decision("repair", "5' phosphate", text, who, warning=True))
    model = app.Modeller(fixer.topology, fixer.positions)
    model.delete(atoms)
    fixer.topology, fixer.positions = model.topology, model.positions
    return decisions


def apply_repairs(repairs: Repairs, seed: int) -> tuple[app.Topology, np.ndarray]:
    """Topology and coordinates (N, 3) in nm with all heavy atoms of the residues that are present.

    Parameters
    ----------
    repairs : Repairs
        Used up by this call.
    seed : int
        Of the dynamics by which PDBFixer moves new atoms out of the way.
    """
    fixer = repairs.fixer
    if fixer.missingAtoms or fixer.missingTerminals or fixer.missingResidues:
        box = topology_box(fixer.topology)
        # Zero would ask OpenMM for a random seed.
        fixer.addMissingAtoms(seed=1 + seed % (2**31 - 2))
        # PDBFixer carries over only the edge lengths of the cell, which makes it rectangular.
        set_topology_box(fixer.topology, box)
    return fixer.topology, _positions(fixer)


def _list(items: list[str], limit: int = 8) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def _load(structure: CheckedStructure) -> tuple[pdbfixer.PDBFixer, Sources]:
    """PDBFixer around our topology; the Reference platform makes every later minimisation repeatable."""
    platform = openmm.Platform.getPlatformByName("Reference")
    # PDBFixer wants a file; it holds one atom that is replaced at once.
    fixer = pdbfixer.PDBFixer(platform=platform, pdbfile=StringIO(_ONE_ATOM))
    topology, positions, sources = draft_topology(structure)
    fixer.topology, fixer.positions = topology, as_quantity(positions)
    fixer.sequences = []
    fixer.modifiedResidues = [
        ModifiedResidue(key.chain, key.number, name, parent)
        for (key, name), parent in structure.replacements.items()
    ]
    return fixer, sources


def _positions(fixer: pdbfixer.PDBFixer) -> np.ndarray:
    positions = np.array(fixer.positions.value_in_unit(unit.nanometer), dtype=float).reshape(-1, 3)
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        atom = list(fixer.topology.atoms())[bad[0]]
        raise StructureError(
            "finite coordinates",
            f"{positions[bad[0]].tolist()} for atom {atom.name} of {describe_residue(atom.residue)}",
            "correct the coordinates or delete the atom",
        )
    return positions


def _missing_residues(
    fixer: pdbfixer.PDBFixer, structure: CheckedStructure, policy: str, tails: str
) -> list[str]:
    """Residues of the SEQRES sequence without coordinates: refused inside a chain, left out at its ends."""
    fixer.missingResidues = {(run, place): list(names) for run, place, names in structure.missing}
    chains = list(fixer.topology.chains())
    gaps, decisions = [], []
    for (chain_index, position), missing in sorted(fixer.missingResidues.items()):
        chain = chains[chain_index]
        residues = list(chain.residues())
        if 0 < position < len(residues):
            before, after = describe_residue(residues[position - 1]), describe_residue(residues[position])
            gaps.append(f"{'-'.join(missing)} between {before} and {after}")
        elif tails == "charged":
            end = "start" if position == 0 else "end"
            decisions.append(
                f"{counted(len(missing), 'residue')} of SEQRES without coordinates at the {end} of chain "
                f"{chain.id} ({'-'.join(missing)}) not modelled; the chain {end}s with a charged terminus"
            )
    if gaps and policy == "refuse":
        raise OpenQuestionError(
            "chains without gaps",
            f"no coordinates for {_list(gaps)} in {structure.name}",
            'write gaps = "cap" (neutral ends) or gaps = "split" (charged ends), or model the missing '
            "residues (for example with MODELLER)",
            {"gaps": "split"},
            'gaps = "split"',
        )
    fixer.missingResidues = {}
    return decisions


def _find_missing_atoms(fixer: pdbfixer.PDBFixer, name: str) -> list[Decision]:
    """Heavy atoms that a residue lacks; refuse where most of a chain would be invented."""
    fixer.findMissingAtoms()
    _leave_joined_atoms(fixer)
    for chain in fixer.topology.chains():
        missing = sum(len(fixer.missingAtoms.get(residue, ())) for residue in chain.residues())
        present = sum(
            atom.element not in (None, app.element.hydrogen)
            for residue in chain.residues()
            if residue.name in fixer.templates
            for atom in residue.atoms()
        )
        if missing > present:
            raise StructureError(
                "at least half of the heavy atoms of every chain",
                f"{present} of {present + missing} in chain {chain.id} of {name}"
                + (" (a trace of CA atoms)" if present <= len(chain) else ""),
                "rebuild backbone and side chains first (for example with PULCHRA or MODELLER)",
            )
    decisions = []
    for residue, atoms in fixer.missingAtoms.items():
        names, who = [atom.name for atom in atoms], describe_residue(residue)
        text = f"{who}: missing {', '.join(names)} added"
        numbers, backbone = {"atoms": names}, not _BACKBONE.isdisjoint(names)
        decisions.append(Decision("repair", "missing atoms", text, who, numbers, warning=backbone))
    for residue, names in fixer.missingTerminals.items():
        who = describe_residue(residue)
        decisions.append(Decision("repair", "terminus", f"{who}: terminal {', '.join(names)} added", who))
    return decisions


def _leave_joined_atoms(fixer: pdbfixer.PDBFixer) -> None:
    """Add nothing to an atom that is bonded to another residue in place of what is missing."""
    joined = {(atom.residue, atom.name) for joint in joints(fixer.topology) for atom in joint}
    for residue, missing in list(fixer.missingAtoms.items()):
        bonds = [(one.name, other.name) for one, other in fixer.templates[residue.name].topology.bonds()]
        beside = {atom.name: {n for pair in bonds for n in pair if atom.name in pair} for atom in missing}
        kept = [atom for atom in missing if not any((residue, name) in joined for name in beside[atom.name])]
        fixer.missingAtoms[residue] = kept
        if not kept:
            del fixer.missingAtoms[residue]
    for residue in list(fixer.missingTerminals):
        if (residue, "C") in joined:
            del fixer.missingTerminals[residue]


def _check_last_residue(fixer: pdbfixer.PDBFixer, structure: CheckedStructure) -> None:
    """Refuse a file without END that ends within a residue: it was cut off."""
    chains = [
        chain for chain in fixer.topology.chains() if any(r.name in fixer.templates for r in chain.residues())
    ]
    last = list(chains[-1].residues())[-1] if chains else None
    if last in fixer.missingAtoms and not structure.ended:
        raise StructureError(
            "a file that ends with TER or END",
            f"{structure.name}, which ends within {describe_residue(last)} "
            f"({', '.join(atom.name for atom in fixer.missingAtoms[last])} are missing)",
            "download or copy the file again; if it is complete, write END as its last line",
        )
