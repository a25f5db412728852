"""Residues without parameters: one question about all of them, with the way on for each kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from openmm import app

from mlmm.build.files.atoms import AMINO_ACIDS, METALS, NUCLEOTIDES
from mlmm.build.gaps import describe_residue, is_link
from mlmm.build.glycans import GLYCAM_BY_AMBER, PDB_SUGARS, is_sugar, places_of
from mlmm.build.questions import OpenQuestionError, removal_key, without
from mlmm.errors import StructureError

__all__ = [
    "BY_AMBER",
    "METAL_BY_AMBER",
    "glycan_advice",
    "holds_metal",
    "is_alone",
    "is_in_chain",
    "unknown_residues",
]

BY_AMBER = 'or build it with AmberTools and write prmtop = "…" and inpcrd = "…" instead of pdb'
METAL_BY_AMBER = (
    "build it with bonded parameters in AmberTools (its dat/contrib has hemes and Fe4S4 clusters: "
    "inputs of LEaP are in the guide, builder.md, Metals with bonds; MCPB.py for others) "
    'and write prmtop = "…" and inpcrd = "…" instead of pdb'
)
_SHOWN = 8


def glycan_advice(glycam: bool) -> str:
    """The way on for a glycan without templates; `glycam`: the force field has those of GLYCAM."""
    if glycam:
        return (
            "GLYCAM has no such residue in OpenMM's files (they lack free ends of sialic acids, furanoses, "
            f"sulfates): {GLYCAM_BY_AMBER}"
        )
    return (
        'for a glycan, take the force field with GLYCAM, forcefield = "amber14"; where that lacks the '
        f"residue (a free end of a sialic acid, furanoses), {GLYCAM_BY_AMBER}"
    )


def is_alone(residue: app.topology.Residue) -> bool:
    """Whether an amino acid is bonded to nothing: a ligand, or what is left between two gaps."""
    return residue.name in AMINO_ACIDS and not any(True for _ in residue.external_bonds())


def is_in_chain(residue: app.topology.Residue) -> bool:
    """Whether a bond of a backbone joins it to a neighbour."""
    return any(is_link(*bond) for bond in residue.external_bonds())


def holds_metal(residue: app.topology.Residue) -> bool:
    """Whether one of its atoms is a metal."""
    return any(a.element is not None and a.element.symbol.upper() in METALS for a in residue.atoms())


def unknown_residues(
    residues: Sequence[app.topology.Residue], positions: np.ndarray, name: str, glycam: bool
) -> StructureError:
    """What residues without a template raise: a question, unless a chain would break without them.

    Parameters
    ----------
    residues : sequence of openmm residues
    positions : ndarray, shape (N, 3), nm
    name : str
        Of the file.
    glycam : bool
        The force field has the residues of GLYCAM.
    """
    shown = ", ".join(describe_residue(residue) for residue in residues[:_SHOWN])
    more = f" and {len(residues) - _SHOWN} more" if len(residues) > _SHOWN else ""
    kinds: dict[str, list[app.topology.Residue]] = {}
    for residue in residues:
        kinds.setdefault(_kind(residue, positions), []).append(residue)
    advice = []
    for kind, members in kinds.items():
        names = list(dict.fromkeys(residue.name for residue in members))
        before = f"for {', '.join(names)}: " if len(kinds) > 1 else ""
        advice.append(before + _advice(kind, names, members[0], glycam))
    expected = "residues that the force field or a ligand file describes"
    got = f"unknown {shown}{more} in {name}"
    links = [residue for residue in residues if is_in_chain(residue)]
    if links:
        return StructureError(expected, got, "; ".join(advice))
    keys = dict.fromkeys(_key(residue) if is_alone(residue) else residue.name for residue in residues)
    return OpenQuestionError(
        expected,
        got,
        "; ".join(advice),
        {"remove": list(keys)},
        f"without {', '.join(dict.fromkeys(_in_words(residue) for residue in residues))}",
    )


def _kind(residue: app.topology.Residue, positions: np.ndarray) -> str:
    if residue.name in NUCLEOTIDES:
        return "nucleotide"
    if is_alone(residue):
        return "free"
    if residue.name in app.Topology._standardBonds:
        return "protein"
    if holds_metal(residue):
        return "metal"
    if is_in_chain(residue):
        return "link"
    if residue.name in PDB_SUGARS or is_sugar(places_of(residue, positions)):
        return "sugar"
    return "molecule"


def _advice(kind: str, names: list[str], first: app.topology.Residue, glycam: bool) -> str:
    """The next step for residues of one kind."""
    if kind == "nucleotide":
        return 'add a nucleic-acid force field: forcefield = ["amber14-all.xml", "amber14/tip3p.xml"]'
    if kind == "protein":
        return 'add a force field of proteins, such as "amber14/protein.ff14SB.xml", to forcefield'
    if kind == "free":
        return (
            "a free amino acid has two charged ends, which charmm36m describes and Amber's force fields do "
            f'not: write forcefield = "charmm36m"; or rename {describe_residue(first)} in the file, to LIG '
            'for example, and write [system.ligand.LIG] with smiles = "…"; or leave it out: '
            f'{without([_key(first)])}; if it stands between two gaps, write gaps = "cap"'
        )
    if kind == "link":
        files = ", ".join(f'"{name}.xml"' for name in names)
        return (
            "describe it in an OpenMM XML file with an <ExternalBond> to each neighbour in the chain and "
            f"write ligands = [{files}], {BY_AMBER}"
        )
    if kind == "metal":
        return METAL_BY_AMBER
    tables = " and ".join(f"[system.ligand.{name}]" for name in names)
    if kind == "sugar":
        return (
            f"{glycan_advice(glycam)}; for a sugar that is bonded to nothing, write "
            f'{tables} with smiles = "…"; or leave it out: {without(names)}'
        )
    them, files, others = ("it", "a file", "") if len(names) == 1 else ("them", "files", " and so on")
    return (
        f'write {tables} with smiles = "…"; or make {files} with `mlmm ligand "SMILES" --name {names[0]}`'
        f"{others} and name {them} in [system] ligands; or leave {them} out: {without(names)}"
    )


def _in_words(residue: app.topology.Residue) -> str:
    return describe_residue(residue) if is_alone(residue) else str(residue.name)


def _key(residue: app.topology.Residue) -> str:
    return removal_key(residue.name, residue.chain.id, residue.id, residue.insertionCode)
