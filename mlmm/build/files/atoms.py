"""Data model of a structure file, common to PDB and mmCIF: atom records, chains, sequences, assemblies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
from pdbfixer.pdbfixer import dnaResidues, proteinResidues, rnaResidues

from mlmm.build.build_log import Decision

#: Names that fix a protonation state; PDB readers turn all of them into the parent residue.
VARIANTS = {
    **{name: name for name in ("HID", "HIE", "HIP", "ASH", "GLH", "LYN", "CYX", "CYM")},
    **{"HSD": "HID", "HSE": "HIE", "HSP": "HIP"},
}
CAPS = {"ACE", "NME", "NMA", "NH2", "NHE"}
AMINO_ACIDS = {*proteinResidues, *VARIANTS}
NUCLEOTIDES = {*rnaResidues, *dnaResidues}
_WATER_NAMES = (
    "HOH WAT H2O DOD SOL TIP TIP3 TIP4 TIP5 TP3 TP4 TP5 T3P T4P T5P T3H TIP3P TIP4P TIP5P SPC SPCE OPC OPC3"
)
WATERS = set(_WATER_NAMES.split())
_METAL_SYMBOLS = (
    "LI NA K RB CS BE MG CA SR BA AL SC TI V CR MN FE CO NI CU ZN GA Y ZR MO RU RH PD AG CD IN SN LA CE SM "
    "EU GD TB YB LU W RE OS IR PT AU HG TL PB BI U"
)
METALS = frozenset(_METAL_SYMBOLS.split())
#: Those that bind their ligands in places, unlike the ions of lithium, sodium and potassium.
BINDING_METALS = METALS - {"LI", "NA", "K", "RB", "CS"}
#: Atoms that join neighbours in a chain of amino acids, and of nucleotides by today's name and the older one.
CHAIN_LINKS = (("C", "N"), ("O3'", "P"), ("O3*", "P"))
LONGEST_LINK = 0.2  # nm; a peptide bond has 0.133, O3'-P 0.161


class ResidueKey(NamedTuple):
    """A residue as its author numbered it."""

    chain: str
    number: str
    insertion_code: str


class AtomRecord(NamedTuple):
    """One atom of the file; coordinates in nm, names and numbers as the author wrote them."""

    line: int
    hetero: bool
    serial: str
    name: str
    location: str
    residue_name: str
    chain: str
    number: str
    insertion_code: str
    x: float
    y: float
    z: float
    occupancy: float
    element: str
    charge: int | None = None
    model: int = 1
    #: Grows at each TER record; in mmCIF zero.
    part: int = 0
    #: Columns 13-16 of a PDB line: whether a name starts in 13 tells calcium from an alpha carbon.
    column: str = ""
    label_chain: str = ""
    #: Of an amino acid or nucleotide that is no link of a chain but a ligand.
    free: bool = False

    @property
    def key(self) -> ResidueKey:
        """Chain, number and insertion code."""
        return ResidueKey(self.chain, self.number, self.insertion_code)


class Connection(NamedTuple):
    """Two atoms that a record of the file bonds: their places in its list of atoms, and the record's name."""

    one: int
    other: int
    source: str


class Assembly(NamedTuple):
    """One biological unit: copies of chains, each by rotation (3, 3) and shift (3,) in nm."""

    name: str
    kind: str
    copies: tuple[tuple[tuple[str, ...], np.ndarray, np.ndarray], ...]
    #: Whether the chains are label_asym ids of mmCIF rather than author ids.
    by_label: bool = False


@dataclass(frozen=True, eq=False)
class StructureFile:
    """Content of a structure file before models, chains or locations are chosen.

    Parameters
    ----------
    name, sha256 : str
        File name for messages; checksum of the file as it lies on disk.
    format : str
        ``"pdb"`` or ``"mmcif"``.
    atoms : tuple of AtomRecord
        All models and all alternate locations.
    cell : tuple of 6 float, optional
        a, b, c in nm and three angles in degrees.
    space_group : str
        As written in the file, or empty.
    sequences : dict
        Author chain id to the residue names of SEQRES (mmCIF: entity_poly_seq).
    replacements : dict
        Residue and its name to its standard parent, from MODRES.
    connections : tuple of Connection
        Places in `atoms`, from CONECT, LINK and SSBOND (mmCIF: struct_conn, chem_comp_bond).
    assemblies : tuple of Assembly
    ended : bool
        Whether something in the file says that it is complete (END, MASTER, CONECT after the atoms).
    notes : tuple of Decision
        What was corrected while reading.
    """

    name: str
    sha256: str
    format: str
    atoms: tuple[AtomRecord, ...]
    cell: tuple[float, ...] | None = None
    space_group: str = ""
    sequences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    replacements: dict[tuple[ResidueKey, str], str] = field(default_factory=dict)
    connections: tuple[Connection, ...] = ()
    assemblies: tuple[Assembly, ...] = ()
    ended: bool = True
    notes: tuple[Decision, ...] = ()

    def where(self, atom: AtomRecord) -> str:
        """``"line 12"``, for messages."""
        return f"line {atom.line}" if self.format == "pdb" else f"atom_site row {atom.line}"


class MissingSegment(NamedTuple):
    """Residues of the sequence without coordinates, in front of one place of a run of residues."""

    run: int
    position: int
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CheckedStructure:
    """A structure that is settled: one model, one location per atom, the chosen chains.

    Parameters
    ----------
    name, sha256, format, cell, space_group, replacements
        As in `StructureFile`.
    atoms : tuple of AtomRecord
    runs : tuple of int
        Where in `atoms` a new chain of the topology begins; the first is 0.
    bonds : tuple of Connection
        Places in `atoms`, as the file connects them.
    protonation : dict
        Residues whose name in the file fixes the protonation, such as HIP.
    missing : tuple of MissingSegment
        Residues of the sequence without coordinates; `run` counts `runs`, `position` its residues.
    ended : bool
        As in `StructureFile`.
    decisions : list of Decision
        What was chosen among alternatives.
    """

    name: str
    sha256: str
    format: str
    atoms: tuple[AtomRecord, ...]
    runs: tuple[int, ...] = (0,)
    bonds: tuple[Connection, ...] = ()
    cell: tuple[float, ...] | None = None
    space_group: str = ""
    replacements: dict[tuple[ResidueKey, str], str] = field(default_factory=dict)
    protonation: dict[ResidueKey, str] = field(default_factory=dict)
    missing: tuple[MissingSegment, ...] = ()
    ended: bool = True
    decisions: list[Decision] = field(default_factory=list)

    def residues_of_runs(self) -> list[list[list[AtomRecord]]]:
        """Atoms by residue by run."""
        ends = [*self.runs[1:], len(self.atoms)]
        return [list(residues(self.atoms[start:end])) for start, end in zip(self.runs, ends, strict=True)]


def residues(atoms: Iterable[AtomRecord]) -> Iterator[list[AtomRecord]]:
    """Runs of neighbouring atoms of one residue.

    Small molecules in sloppy files share a number; only for a link of a chain does a change of name within
    one number mean something else (two conformations, or numbers that were lost).
    """
    for _, group in groupby(atoms, key=_identity):
        yield list(group)


def _identity(atom: AtomRecord) -> tuple:
    link = atom.residue_name in AMINO_ACIDS or atom.residue_name in NUCLEOTIDES or atom.location != " "
    return (atom.model, atom.part, atom.key, "" if link else atom.residue_name)


def is_polymer(atoms: Iterable[AtomRecord]) -> bool:
    """Return True if a residue belongs to a protein or nucleic-acid chain, by its name or its backbone.

    Those that `mark_free` found to be ligands do not.
    """
    atoms = list(atoms)
    if atoms[0].free:
        return False
    names = {atom.name for atom in atoms}
    known = atoms[0].residue_name in AMINO_ACIDS | CAPS | NUCLEOTIDES
    return known or {"N", "CA", "C"} <= names or {"C3'", "O3'"} <= names or {"C3*", "O3*"} <= names


def is_hydrogen(atom: AtomRecord) -> bool:
    """True for hydrogen and deuterium."""
    return atom.element in ("H", "D")


def coordinates(atoms: Iterable[AtomRecord]) -> np.ndarray:
    """Positions (N, 3) in nm."""
    return np.array([(atom.x, atom.y, atom.z) for atom in atoms], dtype=float).reshape(-1, 3)


def describe_key(name: str, key: ResidueKey) -> str:
    """``"ALA 12A of chain B"``."""
    chain = f" of chain {key.chain}" if key.chain.strip() else ""
    return f"{name} {key.number}{key.insertion_code}{chain}".strip()


def describe(atoms: list[AtomRecord]) -> str:
    """``"ALA 12A of chain B"`` for the atoms of a residue."""
    return describe_key(atoms[0].residue_name, atoms[0].key)
