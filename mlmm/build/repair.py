"""Repair of heavy atoms: missing atoms and residues, non-standard residues, and what is refused.

PDBFixer finds and mends; every change is put into words, and what it would invent (loops, whole side chains
of a CA trace, a peptide bond across a gap) is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from io import StringIO

import numpy as np
import openmm
import pdbfixer
from openmm import app, unit
from pdbfixer.pdbfixer import ModifiedResidue

from mlmm.build.build_log import Decision
from mlmm.build.draft import as_quantity, draft_topology
from mlmm.build.files.atoms import CheckedStructure
from mlmm.build.files.stretched import check_bonds_within_residues, check_peptide_bonds
from mlmm.build.gaps import describe_residue, mend_chains
from mlmm.build.topology_json import set_topology_box, topology_box
from mlmm.errors import StructureError

logger = logging.getLogger(__name__)

_BACKBONE = {"N", "CA", "C"}
_ONE_ATOM = "ATOM      1  CA  GLY A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n"
_WATER = {"HOH"}


@dataclass
class Repairs:
    """Missing and replaced parts of a structure, found but not yet mended.

    Parameters
    ----------
    fixer : pdbfixer.PDBFixer
        Holds topology, coordinates, and the atoms to add.
    decisions : list
        What `apply_repairs` will do, in words.
    """

    fixer: pdbfixer.PDBFixer
    decisions: list[Decision | str]


def find_repairs(
    source: CheckedStructure,
    ligand_names: set[str],
    known_names: set[str],
    *,
    gaps: str = "refuse",
    tails: str = "charged",
) -> Repairs:
    """Find what is missing or has to be replaced, and refuse what cannot be mended.

    Parameters
    ----------
    source : CheckedStructure
        One model with one location per atom.
    ligand_names : set of str
        Residues that the user's ligand files describe; never replaced.
    known_names : set of str
        Residues that the force field describes, ligands included.
    gaps : {"refuse", "split", "cap"}
        What to do where residues are missing inside a chain.
    tails : {"charged", "cap"}
        What to do where they are missing at an end.

    Raises
    ------
    StructureError
        Gaps in a chain, unknown residues, or a chain with less than half of its
        heavy atoms.
    """
    fixer = _load(source)
    positions = _positions(fixer)
    decisions: list[Decision | str] = []
    decisions += check_bonds_within_residues(fixer.topology, positions, source.name)
    decisions += _missing_residues(fixer, source, gaps, tails)
    if gaps == "refuse":
        check_peptide_bonds(fixer.topology, positions, source.name)
    topology, positions, mended = mend_chains(fixer.topology, positions, source.missing, gaps, tails)
    fixer.topology, fixer.positions = topology, as_quantity(positions)
    decisions += mended
    decisions += _replace_nonstandard(fixer, ligand_names)
    _check_known(fixer.topology, known_names, source.name)
    decisions += _find_missing_atoms(fixer, source.name)
    _check_last_residue(fixer, source)
    return Repairs(fixer, decisions)


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


def _load(structure: CheckedStructure) -> pdbfixer.PDBFixer:
    """PDBFixer around our topology; the Reference platform makes every later minimisation repeatable."""
    platform = openmm.Platform.getPlatformByName("Reference")
    # PDBFixer wants a file; it holds one atom that is replaced at once.
    fixer = pdbfixer.PDBFixer(platform=platform, pdbfile=StringIO(_ONE_ATOM))
    topology, positions = draft_topology(structure)
    fixer.topology, fixer.positions = topology, as_quantity(positions)
    fixer.sequences = []
    fixer.modifiedResidues = [
        ModifiedResidue(key.chain, key.number, name, parent)
        for (key, name), parent in structure.replacements.items()
    ]
    return fixer


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
                f"{len(missing)} residues of SEQRES without coordinates at the {end} of chain {chain.id} "
                f"({'-'.join(missing)}) not modelled; the chain {end}s with a charged terminus"
            )
    if gaps and policy == "refuse":
        raise StructureError(
            "chains without gaps",
            f"no coordinates for {_list(gaps)} in {structure.name}",
            'write gaps = "cap" (neutral ends) or gaps = "split" (charged ends), or model the missing '
            "residues (for example with MODELLER)",
        )
    fixer.missingResidues = {}
    return decisions


def _replace_nonstandard(fixer: pdbfixer.PDBFixer, ligand_names: set[str]) -> list[Decision]:
    """Modified residues (MSE, CSO ...) become the standard one, unless a ligand file describes them."""
    fixer.findNonstandardResidues()
    fixer.nonstandardResidues = [
        pair for pair in fixer.nonstandardResidues if pair[0].name not in ligand_names
    ]
    decisions = [
        Decision("repair", "modified residue", f"{who} replaced by {new}", who, {"parent": new}, warning=True)
        for residue, new in fixer.nonstandardResidues
        if (who := describe_residue(residue))
    ]
    fixer.replaceNonstandardResidues()
    return decisions


def _check_known(topology: app.Topology, known_names: set[str], name: str) -> None:
    """Refuse residues without parameters, all at once and before anything slow begins."""
    unknown = [residue for residue in topology.residues() if residue.name not in known_names]
    if unknown:
        first = unknown[0].name
        raise StructureError(
            "residues that the force field or a ligand file describes",
            f"unknown {_list([describe_residue(residue) for residue in unknown])} in {name}",
            f'write [system.ligand.{first}] with smiles = "…"; or make a file with `mlmm ligand "SMILES" '
            f'--name {first}` and name it in [system] ligands; or leave it out: remove = ["{first}"]',
        )
    if all(residue.name in _WATER for residue in topology.residues()):
        raise StructureError(
            "a molecule besides water", f"only water in {name}", "give a file that holds the solute"
        )


def _find_missing_atoms(fixer: pdbfixer.PDBFixer, name: str) -> list[Decision]:
    """Heavy atoms that a residue lacks; refuse where most of a chain would be invented."""
    fixer.findMissingAtoms()
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
