"""The region of a build before it is made: its elements, the bonds that it cuts, its charge."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import numpy as np
from openmm import app

from mlmm.build.files.atoms import AMINO_ACIDS, CAPS, NUCLEOTIDES
from mlmm.build.ligands.molecules import atom_names, formal_charge
from mlmm.build.options import BuildOptions
from mlmm.build.parametrised.amber import amber_topology
from mlmm.build.parametrised.charmm import charmm_topology
from mlmm.build.parametrised.gromacs import gromacs_topology
from mlmm.build.parametrised.serialised import structure_model
from mlmm.build.plan import PlannedStructure
from mlmm.errors import SelectionError
from mlmm.zones.region import Region, region_from_atoms, select_region

__all__ = ["RegionPreview", "preview_parametrised", "preview_region"]

#: Keywords of a selection whose values change while a system is built.
_CHANGING = re.compile(r"\b(index|serial|n_bonds|mass|type|segname)\b")
#: What a selection of solvent has, or a number that solvent may have.
_SOLVENT = re.compile(r"\b(water|waters|is_water|HOH|WAT|SOL|NA|CL|resid)\b", re.IGNORECASE)
#: Names of hydrogens, and patterns that may match one.
_HYDROGEN = re.compile(r"\bname\b.*(['\"\s](H|\d)|=~)|\b(element|symbol)\b.*\bH\b")
_SOLVENT_ATOMS = {"HOH": ("O", "H1", "H2"), "NA": ("NA",), "CL": ("CL",)}
#: Charge of ions and of side chains at pH 7, as model compounds have it, e.
_CHARGES = {
    **dict.fromkeys(("LI", "NA", "K", "RB", "CS", "LYS", "ARG", "HIP"), 1),
    **dict.fromkeys(("MG", "CA", "SR", "BA", "ZN", "MN", "CO", "NI", "CD"), 2),
    **dict.fromkeys(("F", "CL", "BR", "IOD", "OH", "ASP", "GLU"), -1),
}
_TITRATED = ("ASP", "GLU", "HIS", "LYS", "CYS", "TYR")
_NEUTRAL_PH = (6.7, 8.0)


@dataclass(frozen=True)
class RegionPreview:
    """A region as far as it is known before the build.

    Parameters
    ----------
    region : Region
        Its atoms are those of the preview, not of the built system.
    numbers : tuple of int
        Atomic numbers of atoms that the region will have; hydrogens may come on top.
    cuts : bool
        Whether the region cuts bonds.
    charge : int, optional
        Net charge, e; None where a pH, a program or a force-field file decides it.
    there : tuple of int
        Its atoms that the planned structure has already, by their indices there.
    """

    region: Region
    numbers: tuple[int, ...]
    cuts: bool
    charge: int | None
    there: tuple[int, ...] = ()


class SourceSettings(Protocol):
    """The files of a system that was parametrised elsewhere."""

    @property
    def parametrised(self) -> str: ...
    @property
    def prmtop(self) -> str: ...
    @property
    def top(self) -> str: ...
    @property
    def include_dir(self) -> str: ...
    @property
    def psf(self) -> str: ...
    @property
    def pdb(self) -> str: ...


@dataclass(frozen=True)
class _Previewed:
    """What `select_region` asks of a system."""

    topology: app.Topology


def preview_region(
    planned: PlannedStructure, options: BuildOptions, selection: str, complete: str = "residue"
) -> RegionPreview | None:
    """Select the region in the atoms that a build would have.

    Parameters
    ----------
    planned : PlannedStructure
    options : BuildOptions
    selection, complete
        As for `mlmm.select_region`.

    Returns
    -------
    RegionPreview or None
        None where the selection cannot be judged before the build, such as one by index.

    Raises
    ------
    SelectionError
        A selection that is not understood, or that will match nothing.
    """
    topology, certain, places = _topology(planned, options.solvate)
    if _CHANGING.search(selection):
        return None
    try:
        region = select_region(_Previewed(topology), selection, complete)
    except SelectionError:
        by_solvent = options.solvate and _SOLVENT.search(selection)
        of_ligand = bool(planned.ligands.names) and _HYDROGEN.search(selection)
        understood = _understood(topology, selection)
        if understood and (by_solvent or of_ligand):
            return None
        raise
    if not certain.intersection(region.atoms):
        # Solvent alone, or hydrogens of water: what there will be of it.
        return RegionPreview(region, _numbers(topology, region.atoms), bool(region.cut_bonds), None)
    inside = set(region.atoms)
    numbers = _numbers(topology, certain.intersection(region.atoms))
    residues = [residue for residue in topology.residues() if any(a.index in inside for a in residue.atoms())]
    whole = all(
        atom.index in inside
        for residue in residues
        for atom in residue.atoms()
        if atom.index in certain and atom.element is not app.element.hydrogen
    )
    cuts = bool(region.cut_bonds) or not whole
    charge = _charge(residues, certain, planned, options) if whole else None
    there = tuple(atom for atom, place in places.items() if place.index in inside)
    return RegionPreview(region, numbers, cuts, charge, there)


def preview_parametrised(settings: SourceSettings, selection: str, complete: str) -> RegionPreview:
    """The region of a system that has its parameters: the charge is that of its topology.

    Parameters
    ----------
    settings : SourceSettings
        Of a system that has its parameters.
    selection, complete
        As for `mlmm.select_region`.

    Raises
    ------
    StructureError, SelectionError
        Files that cannot be read, or a selection that matches nothing.
    """
    charges: np.ndarray | None = None
    if settings.parametrised == "prmtop":
        topology, charges = amber_topology(settings.prmtop)
    elif settings.parametrised == "top":
        topology, charges = gromacs_topology(settings.top, settings.include_dir or None)
    elif settings.parametrised == "psf":
        topology, charges = charmm_topology(settings.psf)
    else:
        topology = structure_model(settings.pdb).topology
    region = select_region(_Previewed(topology), selection, complete)
    inside = list(region.atoms)
    # Part of a charged group has no charge of its own.
    whole = charges is not None and not region.cut_bonds
    charge = round(float(charges[inside].sum())) if charges is not None and whole else None
    return RegionPreview(region, _numbers(topology, inside), bool(region.cut_bonds), charge)


def _numbers(topology: app.Topology, atoms: Collection[int]) -> tuple[int, ...]:
    """Atomic numbers, without virtual sites."""
    chosen = set(atoms)
    found = (atom.element for atom in topology.atoms() if atom.index in chosen)
    return tuple(element.atomic_number for element in found if element is not None)


def _understood(topology: app.Topology, selection: str) -> bool:
    """Whether mdtraj knows the words of a selection that matches nothing."""
    try:
        region_from_atoms(topology, [0], "atoms")
        select_region(_Previewed(topology), f"({selection}) or all", "atoms")
    except SelectionError:
        return False
    return True


def _topology(
    planned: PlannedStructure, solvated: bool
) -> tuple[app.Topology, set[int], dict[int, app.topology.Atom]]:
    """All atoms that the built system may have, indices of those that it will have, the planned ones."""
    made, certain = app.Topology(), set()
    app.Topology().createStandardBonds()  # loads the table below
    standard = app.Topology._standardBonds  # OpenMM has no public access to it
    molecules = planned.ligands.definitions
    places: dict[int, app.topology.Atom] = {}
    for chain in planned.topology.chains():
        copied = made.addChain(chain.id)
        for residue in chain.residues():
            name = planned.ligands.mutate.get(residue.name, residue.name)
            copy = made.addResidue(name, copied, residue.id, residue.insertionCode)
            if name != residue.name:
                molecule = molecules[name].molecule
                hydrogens_too = atom_names(molecule)
                kinds = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
                for label, number in zip_longest(hydrogens_too, kinds, fillvalue=1):
                    element = app.element.Element.getByAtomicNumber(number)
                    certain.add(made.addAtom(label, element, copy).index)
                continue
            for atom in residue.atoms():
                places[atom.index] = made.addAtom(atom.name, atom.element, copy)
                certain.add(places[atom.index].index)
            there = {atom.name for atom in residue.atoms()}
            for label in planned.missing.get(residue, ()):
                certain.add(made.addAtom(label, _element(label), copy).index)
            known = {label for bond in standard.get(name, ()) for label in bond if label[0] not in "-+"}
            for label in sorted(known - there - set(planned.missing.get(residue, ()))):
                made.addAtom(label, _element(label), copy)
    for first, second in planned.topology.bonds():
        if first.index in places and second.index in places:
            made.addBond(places[first.index], places[second.index])
    if solvated:
        for name, labels in _SOLVENT_ATOMS.items():
            residue = made.addResidue(name, made.addChain(), "0")
            for label in labels:
                symbol = label.capitalize() if name != "HOH" else label[0]
                made.addAtom(label, app.element.get_by_symbol(symbol), residue)
    return made, certain, places


def _element(label: str) -> app.element.Element:
    """Element of an atom of a standard residue."""
    return app.element.get_by_symbol(label.lstrip("0123456789")[0])


def _charge(
    residues: list[app.topology.Residue], certain: set[int], planned: PlannedStructure, options: BuildOptions
) -> int | None:
    """Net charge of whole residues, None where it is not sure."""
    total = 0
    named = options.protonate or options.protonation != "modeller" or planned.named
    usual = _NEUTRAL_PH[0] <= options.ph <= _NEUTRAL_PH[1] and not named
    for residue in residues:
        name = residue.name
        if name in planned.ligands.definitions:
            total += formal_charge(planned.ligands.definitions[name].molecule)
        elif name in AMINO_ACIDS:
            hydrogens = any(a.element is app.element.hydrogen for a in residue.atoms() if a.index in certain)
            if name in _TITRATED and (hydrogens or not usual):
                return None
            links = {frozenset((a.residue.index, b.residue.index)) for a, b in residue.external_bonds()}
            neighbours = {i for link in links for i in link} - {residue.index}
            total += _CHARGES.get(name, 0)
            total += (residue.index - 1 not in neighbours) - (residue.index + 1 not in neighbours)
        elif name in NUCLEOTIDES:
            total -= any(atom.name == "P" for atom in residue.atoms())
        elif name in _CHARGES:
            total += _CHARGES[name]
        elif name not in (*CAPS, "HOH"):
            return None
    return total
