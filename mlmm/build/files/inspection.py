"""Inspection of a structure file: chains, ligands, metals and problems, before anything is built."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import (
    AMINO_ACIDS,
    CAPS,
    CHAIN_LINKS,
    LONGEST_LINK,
    METALS,
    NUCLEOTIDES,
    AtomRecord,
    StructureFile,
    coordinates,
    describe,
    is_hydrogen,
    is_polymer,
    residues,
)
from mlmm.build.files.contacts import CONTACT, bonded_residues, chain_contacts
from mlmm.build.files.free_residues import mark_free
from mlmm.build.files.names import settle_chains, settle_names
from mlmm.build.files.reading import read_file
from mlmm.build.files.sanity import check_place, look_over
from mlmm.build.files.selection import choose_locations, choose_model
from mlmm.build.files.sequences import missing_segments
from mlmm.build.files.sources import find_structure
from mlmm.errors import StructureError
from mlmm.neighbours import pairs_within
from mlmm.short_repr import ShortRepr, shortened

_SAME_GROUP = 0.2  # of the strongest contact in the file; below it a crystal contact


@dataclass(frozen=True)
class ChainFacts:
    """One polymer chain.

    Parameters
    ----------
    chain : str
        Author's id.
    labels : tuple of str
        Its label_asym ids in mmCIF.
    kind : str
        ``protein`` or ``nucleic acid``.
    residues : int
    first, last : str
        Residues at its ends.
    missing : tuple of str
        Residues of the sequence without coordinates, with their place.
    gaps : tuple of str
        Neighbours that are too far apart for a bond of the chain.
    """

    chain: str
    labels: tuple[str, ...]
    kind: str
    residues: int
    first: str
    last: str
    missing: tuple[str, ...]
    gaps: tuple[str, ...]


@dataclass(frozen=True)
class LigandFacts:
    """One molecule that is neither polymer nor water.

    Parameters
    ----------
    residue : str
        ``"BEN 1 of chain A"``.
    name : str
    label : str
        label_asym id in mmCIF, or empty.
    heavy_atoms : int
    elements : tuple of str
    touches : dict
        Polymer chain to its residues within 0.45 nm.
    bonded : tuple of str
        Residues that it is bonded to, by distance.
    free : bool
        Whether it is an amino acid or nucleotide that is no link of a chain.
    """

    residue: str
    name: str
    label: str
    heavy_atoms: int
    elements: tuple[str, ...]
    touches: dict[str, int]
    bonded: tuple[str, ...] = ()
    free: bool = False

    @property
    def metal(self) -> bool:
        """True for a single metal ion."""
        return self.heavy_atoms == 1 and self.elements[0] in METALS


@dataclass(frozen=True, repr=False)
class Inspection(ShortRepr):
    """Facts about a structure file; `str` gives a page to read.

    Parameters
    ----------
    name, sha256, format, space_group : str
    models : tuple of int
    atoms, hydrogens, waters : int
        Of the first model, one location per atom.
    chains : tuple of ChainFacts
    contacts : dict
        Pair of chains to pairs of residues within 0.45 nm.
    groups : tuple of tuple of str
        Chains that hold together, by contacts well above the weakest.
    ligands : tuple of LigandFacts
    modified : tuple of str
        Links of a chain with another name than the standard ones.
    assemblies : tuple of str
    decisions : tuple of Decision
        What would be chosen or corrected; those with `warning` deserve a look.
    problems : tuple of str
        What would stop a build.
    """

    name: str
    sha256: str
    format: str
    space_group: str
    models: tuple[int, ...]
    atoms: int
    hydrogens: int
    waters: int
    chains: tuple[ChainFacts, ...]
    contacts: dict[tuple[str, str], int]
    groups: tuple[tuple[str, ...], ...]
    ligands: tuple[LigandFacts, ...]
    modified: tuple[str, ...]
    assemblies: tuple[str, ...]
    decisions: tuple[Decision, ...]
    problems: tuple[str, ...]

    def _summary(self) -> dict[str, str]:
        return {
            "file": self.name,
            "atoms": f"{self.atoms:,}",
            "chains": shortened(", ".join(chain.chain for chain in self.chains)),
            "ligands": shortened(", ".join(dict.fromkeys(ligand.name for ligand in self.ligands))),
            "waters": str(self.waters or ""),
            "problems": shortened("; ".join(self.problems)),
        }

    def _repr_html_(self) -> str:
        return f'<pre style="white-space: pre-wrap">{escape(str(self))}</pre>'

    def __str__(self) -> str:
        from mlmm.build.files.inspection_page import page

        return page(self)


def inspect_structure(path: str | os.PathLike[str], *, download: bool = False) -> Inspection:
    """Inspect a PDB or mmCIF file, or a PDB id, without building anything.

    Parameters
    ----------
    path : path or str
        As for `mlmm.build_system`.
    download : bool
        Fetch an id that is found nowhere.

    Raises
    ------
    StructureError
        A file that cannot be read at all; what would only stop a build is among the `problems`.
    """
    return inspect_file(read_file(find_structure(path, download=download)))


def inspect_file(file: StructureFile) -> Inspection:
    """Inspect the records of a structure file."""
    decisions: list[Decision] = list(file.notes)
    problems: list[str] = []
    models = tuple(sorted({atom.model for atom in file.atoms}))
    if len(models) > 1:
        problems.append(f"{len(models)} models: write model = {models[0]}")

    def attempt(step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except StructureError as error:
            problems.append(str(error))
            return None

    atoms, more = attempt(settle_names, file) or (list(file.atoms), [])
    decisions += more
    atoms = choose_model(file, atoms, models[0])
    atoms, more = attempt(choose_locations, file, atoms) or (atoms, [])
    decisions += more
    atoms, more = attempt(settle_chains, atoms, file.name) or (atoms, [])
    decisions += more
    atoms = mark_free(atoms)
    attempt(check_place, file, atoms)
    decisions += attempt(look_over, file, atoms) or []
    groups = list(residues(atoms))
    chains, more = _chains(file, groups)
    contacts = chain_contacts(atoms) if not problems else {}
    return Inspection(
        name=file.name,
        sha256=file.sha256,
        format=file.format,
        space_group=file.space_group,
        models=models,
        atoms=len(atoms),
        hydrogens=sum(is_hydrogen(atom) for atom in atoms),
        waters=sum(group[0].residue_name == "HOH" for group in groups),
        chains=chains,
        contacts=contacts,
        groups=_groups([facts.chain for facts in chains], contacts),
        ligands=_ligands(groups),
        modified=_modified(file, groups),
        assemblies=tuple(
            f"{a.name} ({a.kind or 'unnamed'}): "
            + "; ".join(f"{'label ' if a.by_label else ''}{', '.join(chains)}" for chains, *_ in a.copies)
            for a in file.assemblies
        ),
        decisions=(*decisions, *more),
        problems=tuple(problems),
    )


def _chains(
    file: StructureFile, groups: list[list[AtomRecord]]
) -> tuple[tuple[ChainFacts, ...], list[Decision]]:
    polymer = [group for group in groups if is_polymer(group)]
    ids = list(dict.fromkeys(group[0].chain for group in polymer))
    runs = [[group for group in polymer if group[0].chain == chain] for chain in ids]
    parents = {name: parent for (_, name), parent in file.replacements.items()}
    sequences = {chain: s for chain, s in file.sequences.items() if chain in ids}
    segments, decisions = missing_segments(runs, sequences, parents)
    facts = []
    for index, (chain, run) in enumerate(zip(ids, runs, strict=True)):
        missing = []
        for segment in segments:
            if segment.run == index:
                place = f"after {describe(run[segment.position - 1])}" if segment.position else "at the start"
                names = "-".join(segment.names[:8]) + ("-…" if len(segment.names) > 8 else "")
                missing.append(f"{len(segment.names)} {place} ({names})")
        nucleic = sum(group[0].residue_name in NUCLEOTIDES for group in run) > len(run) / 2
        facts.append(
            ChainFacts(
                chain,
                tuple(dict.fromkeys(group[0].label_chain for group in run if group[0].label_chain)),
                "nucleic acid" if nucleic else "protein",
                len(run),
                describe(run[0]),
                describe(run[-1]),
                tuple(missing),
                tuple(_gaps(run)),
            )
        )
    return tuple(facts), decisions


def _gaps(run: list[list[AtomRecord]]) -> list[str]:
    found = []
    for before, after in pairwise(run):
        for last, first in CHAIN_LINKS:
            ends = [a for a in before if a.name == last][:1] + [a for a in after if a.name == first][:1]
            if len(ends) == 2 and before[0].part == after[0].part:
                distance = float(np.linalg.norm(np.diff(coordinates(ends), axis=0)))
                if distance > LONGEST_LINK:
                    found.append(f"{describe(before)} - {describe(after)} {distance:.2f} nm")
    return found


def _groups(chains: list[str], contacts: dict[tuple[str, str], int]) -> tuple[tuple[str, ...], ...]:
    """Connected sets of chains; contacts below a fifth of the strongest are taken for crystal contacts."""
    strongest = max(contacts.values(), default=0)
    group = {chain: {chain} for chain in chains}
    for (one, other), count in contacts.items():
        if count >= _SAME_GROUP * strongest and group[one] is not group[other]:
            merged = group[one] | group[other]
            for chain in merged:
                group[chain] = merged
    return tuple(dict.fromkeys(tuple(c for c in chains if c in group[chain]) for chain in chains))


def _ligands(groups: list[list[AtomRecord]]) -> tuple[LigandFacts, ...]:
    polymer = [atom for group in groups if is_polymer(group) for atom in group if not is_hydrogen(atom)]
    points = coordinates(polymer)
    bonds = bonded_residues(groups)
    ligands = []
    for place, group in enumerate(groups):
        heavy = [atom for atom in group if not is_hydrogen(atom)]
        if is_polymer(group) or group[0].residue_name == "HOH" or not heavy:
            continue
        near = {polymer[j].key for _, j in pairs_within(coordinates(heavy), points, CONTACT)}
        touches: dict[str, int] = {}
        for key in sorted(near):
            touches[key.chain] = touches.get(key.chain, 0) + 1
        ligands.append(
            LigandFacts(
                describe(group),
                group[0].residue_name,
                group[0].label_chain,
                len(heavy),
                tuple(sorted({atom.element for atom in heavy})),
                touches,
                tuple(dict.fromkeys(describe(groups[other]) for other in bonds.get(place, ()))),
                group[0].free,
            )
        )
    return tuple(ligands)


def _modified(file: StructureFile, groups: list[list[AtomRecord]]) -> tuple[str, ...]:
    known = AMINO_ACIDS | CAPS | NUCLEOTIDES
    parents = {name: parent for (_, name), parent in file.replacements.items()}
    return tuple(
        describe(group) + (f" (from {parents[name]})" if (name := group[0].residue_name) in parents else "")
        for group in groups
        if is_polymer(group) and group[0].residue_name not in known
    )
