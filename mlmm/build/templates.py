"""Residue templates of a force field as graphs: which residues it can describe, whatever they are called.

Heavy atoms, their bonds and their bonds to other residues are compared; hydrogens and sites without mass,
which a build adds, are left out. Patches (CHARMM's ends of chains, disulfides, protonation) are applied.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from openmm import app
from openmm.app import forcefield as openmm_forcefield
from openmm.app.internal import compiled

__all__ = [
    "Match",
    "TemplateGraphs",
    "bonded_atoms",
    "ion_templates",
    "patches_made_once",
    "template_charge",
    "unmatched_residues",
]

_HYDROGEN = app.element.hydrogen


_one_thread = threading.RLock()


@dataclass(frozen=True)
class Match:
    """A template with the same heavy atoms and bonds as a residue.

    Parameters
    ----------
    template : openmm's template
    atoms : dict of str to str
        Template's atom name to the residue's, for heavy atoms.
    """

    template: Any
    atoms: dict[str, str]

    @property
    def hydrogens(self) -> list[tuple[str, str]]:
        """Hydrogens of the template with the residue's name of the atom that they sit on."""
        found = []
        for one, other in self.template.bonds:
            pair = self.template.atoms[one], self.template.atoms[other]
            for light, heavy in (pair, pair[::-1]):
                if light.element == _HYDROGEN and heavy.name in self.atoms:
                    found.append((light.name, self.atoms[heavy.name]))
        return sorted(found)


@dataclass(frozen=True)
class _View:
    """Some atoms of a residue, in the form that OpenMM's matcher reads."""

    members: Sequence[Any]

    def atoms(self) -> Iterator[Any]:
        return iter(self.members)


class TemplateGraphs:
    """Heavy-atom graphs of all templates of a force field.

    Parameters
    ----------
    force_field : openmm.app.ForceField
        Templates that it loads later are not seen.
    """

    def __init__(self, force_field: app.ForceField) -> None:
        self._force_field = force_field
        self.names = frozenset(force_field._templates)  # OpenMM has no public access to templates
        self.has_patches = bool(force_field._patches)
        self.has_glycans = "0YB" in self.names  # N-acetylglucosamine at an end, which GLYCAM's files all have
        self._plain = _by_elements(force_field._templates.values())
        self._patched: dict[tuple, list[Any]] | None = None
        self._graphs: dict[int, Any] = {}

    def matches(
        self,
        residue: app.topology.Residue,
        bonded: Sequence[Sequence[int]],
        without: Iterable[app.topology.Atom] = (),
    ) -> list[Match]:
        """Templates of the residue's heavy-atom graph, those with its name first.

        Parameters
        ----------
        residue : openmm.app.topology.Residue
        bonded : sequence of sequence of int
            `bonded_atoms` of its topology.
        without : iterable of atoms
            Atoms of the residue that are not looked at.
        """
        left_out = set(without)
        atoms = [
            atom for atom in residue.atoms() if atom.element not in (None, _HYDROGEN) and atom not in left_out
        ]
        if not atoms:
            return []
        hidden = {atom.index for atom in residue.atoms()} - {atom.index for atom in atoms}
        reduced = _Reduced(bonded, hidden)
        elements = _elements(atoms)
        found = self._compare(self._plain.get(elements, ()), atoms, reduced)
        if not found and self.has_patches:
            if self._patched is None:
                self._patched = _by_elements(_patched_templates(self._force_field))
            found = self._compare(self._patched.get(elements, ()), atoms, reduced)
        return sorted(found, key=lambda match: match.template.name != residue.name)

    def _compare(self, candidates: Iterable[Any], atoms: list[Any], bonded: Any) -> list[Match]:
        found = []
        for template in candidates:
            # A force field has thousands of templates, and a structure needs the graphs of a few.
            if id(template) not in self._graphs:
                self._graphs[id(template)] = _heavy(template)
            heavy = self._graphs[id(template)]
            order = compiled.matchResidueToTemplate(_View(atoms), heavy, bonded, False, False)
            if order is not None:
                names = {heavy.atoms[j].name: atom.name for atom, j in zip(atoms, order, strict=True)}
                found.append(Match(template, names))
        return found


class _Reduced(list):
    """Bonds of every atom, without those to some hidden atoms."""

    def __init__(self, bonded: Sequence[Sequence[int]], hidden: set[int]) -> None:
        super().__init__(bonded)
        self._hidden = hidden

    def __getitem__(self, index: Any) -> Any:
        return [i for i in super().__getitem__(index) if i not in self._hidden]


def bonded_atoms(topology: app.Topology) -> list[list[int]]:
    """Indices of the atoms bonded to each atom."""
    neighbours: list[list[int]] = [[] for _ in range(topology.getNumAtoms())]
    for one, other in topology.bonds():
        neighbours[one.index].append(other.index)
        neighbours[other.index].append(one.index)
    return [sorted(set(entry)) for entry in neighbours]


def unmatched_residues(
    force_field: app.ForceField, topology: app.Topology, chosen: dict[app.topology.Residue, str]
) -> list[app.topology.Residue]:
    """Residues that no template describes with all their atoms, patches included."""
    unmatched = force_field.getUnmatchedResidues(topology, chosen)
    if unmatched and force_field._patches:
        data = app.ForceField._SystemData(topology)
        unmatched = openmm_forcefield._applyPatchesToMatchResidues(
            force_field, data, unmatched, {}, data.bondedToAtom, False, False
        )
    return unmatched


def ion_templates(force_field: app.ForceField, symbol: str) -> dict[str, float]:
    """Templates of one atom of an element (``"Fe"``), with their charges in e."""
    return {
        name: template_charge(force_field, template)
        for name, template in force_field._templates.items()
        if len(template.atoms) == 1
        and template.atoms[0].element is not None
        and template.atoms[0].element.symbol == symbol
    }


def template_charge(force_field: app.ForceField, template: Any) -> float:
    """Net charge of a template in e."""
    total = 0.0
    for generator in force_field.getGenerators():
        if isinstance(generator, openmm_forcefield.NonbondedGenerator):
            by_type = generator.params.paramsForType
            for atom in template.atoms:
                values = atom.parameters if "charge" in atom.parameters else by_type.get(atom.type, {})
                total += float(values.get("charge", 0.0))
            break
    return total


def _elements(atoms: Iterable[Any]) -> tuple:
    numbers = [atom.element.atomic_number for atom in atoms if atom.element not in (None, _HYDROGEN)]
    return tuple(sorted(numbers))


def _by_elements(templates: Iterable[Any]) -> dict[tuple, list[Any]]:
    """Templates by the sorted atomic numbers of their heavy atoms."""
    found: dict[tuple, list[Any]] = {}
    for template in templates:
        found.setdefault(_elements(template.atoms), []).append(template)
    return found


def _heavy(template: Any) -> Any:
    reduced = app.ForceField._TemplateData(template.name)
    for atom in template.atoms:
        if atom.element not in (None, _HYDROGEN):
            reduced.addAtom(app.ForceField._TemplateAtomData(atom.name, atom.type, atom.element))
    kept = {atom.name for atom in reduced.atoms}
    for one, other in template.bonds:
        names = template.atoms[one].name, template.atoms[other].name
        if kept.issuperset(names):
            reduced.addBondByName(*names)
    for index in template.externalBonds:
        if template.atoms[index].name in kept:
            reduced.addExternalBondByName(template.atoms[index].name)
    return reduced


def _patched_templates(force_field: app.ForceField) -> Iterator[Any]:
    """Templates with every combination of patches of one residue, and with one of several residues."""
    templates, patches = force_field._templates, force_field._patches
    for name, given in sorted(force_field._templatePatches.items()):
        if name not in templates:
            continue
        single = sorted(patches[patch] for patch, _ in given if patches[patch].numResidues == 1)
        variants: list[Any] = []
        if single:
            combine = openmm_forcefield._generatePatchedSingleResidueTemplates
            combine(templates[name], single, 0, variants, set())
        yield from variants
        for patch, place in given:
            if patches[patch].numResidues > 1:
                for template in (templates[name], *variants):
                    yield from _one_of_several(patches[patch], place, template)


@contextmanager
def patches_made_once() -> Iterator[None]:
    """Keep the patched templates of a force field, which OpenMM makes anew at every assignment of templates.

    CHARMM36m has so many that each time costs 20 s of processor time. What is assigned stays the same:
    templates are only read. Another thread waits, since a function of OpenMM is replaced meanwhile.
    """
    with _one_thread:
        yield from _patches_made_once()


def _patches_made_once() -> Iterator[None]:
    original = openmm_forcefield._generatePatchedSingleResidueTemplates
    made: dict[int, tuple[Any, list[str], list[Any]]] = {}

    def kept(template: Any, patches: list[Any], index: int, found: list[Any], altered: set[str]) -> None:
        if index:  # OpenMM's own recursion
            original(template, patches, index, found, altered)
            return
        names = [patch.name for patch in patches]
        # The template is held too, so that its id stays its own.
        if id(template) not in made or made[id(template)][1] != names:
            fresh: list[Any] = []
            original(template, patches, index, fresh, altered)
            made[id(template)] = template, names, fresh
        found += made[id(template)][2]

    openmm_forcefield._generatePatchedSingleResidueTemplates = kept
    try:
        yield
    finally:
        openmm_forcefield._generatePatchedSingleResidueTemplates = original


def _one_of_several(patch: Any, place: int, template: Any) -> Iterator[Any]:
    """The template as a patch of several residues changes it in one place; the others are not asked."""
    try:
        yield patch.createPatchedTemplates([template] * patch.numResidues)[place]
    except Exception:  # OpenMM raises bare exceptions where a patch names atoms that the template lacks
        return
