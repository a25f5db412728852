"""Names of hydrogens in standard residues, by their heavy atom: PyMOL, Maestro and others number them."""

from __future__ import annotations

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import AtomRecord, StructureFile, coordinates, describe, is_hydrogen, residues
from mlmm.errors import StructureError
from mlmm.neighbours import nearest

__all__ = ["settle_hydrogen_names"]

_LONGEST = 0.15  # nm between a hydrogen and its atom; S-H has 0.134
_STRIP = 'correct the line, or write hydrogens = "strip" so that they are placed anew'


def settle_hydrogen_names(
    file: StructureFile, atoms: list[AtomRecord]
) -> tuple[list[AtomRecord], list[Decision]]:
    """Give hydrogens of standard residues the names that OpenMM's definitions know.

    A name that OpenMM's table of synonyms covers is left to that table. Any other hydrogen takes a free name
    of its heavy atom, the nearest one.

    Raises
    ------
    StructureError
        A hydrogen far from every heavy atom, or more hydrogens on an atom than the residue can have.
    """
    app.Modeller._loadStandardHydrogenDefinitions()  # OpenMM has no public access to them
    app.PDBFile._loadNameReplacementTables()
    result: list[AtomRecord] = []
    changed = 0
    for group in residues(atoms):
        names = _new_names(file, group)
        changed += len(names)
        result += [atom._replace(name=names.get(atom.name, atom.name)) for atom in group] if names else group
    if not changed:
        return result, []
    text = f"{changed} hydrogens with names of another program took the name that belongs to their atom"
    return result, [Decision("read", "hydrogens", text, numbers={"atoms": changed})]


def _new_names(file: StructureFile, group: list[AtomRecord]) -> dict[str, str]:
    """Old name -> new name of the hydrogens of one residue whose names are not known."""
    light = [atom for atom in group if is_hydrogen(atom)]
    standard = app.PDBFile._residueNameReplacements.get(group[0].residue_name, group[0].residue_name)
    definition = app.Modeller._residueHydrogens.get(standard)
    if definition is None or not light:
        return {}
    synonyms = app.PDBFile._atomNameReplacements.get(standard, {})
    known: dict[str, list[str]] = {}
    for hydrogen in definition.hydrogens:
        known.setdefault(hydrogen.parent, []).append(hydrogen.name)
    defined = {name for names in known.values() for name in names}
    now = [synonyms.get(atom.name, atom.name) for atom in light]
    if set(now) <= defined and len(set(now)) == len(now):
        return {}
    heavy = [atom for atom in group if not is_hydrogen(atom)]
    if not heavy:
        return {}
    distances, parents = nearest(coordinates(light), coordinates(heavy))
    if distances.max() > _LONGEST:
        far = light[int(np.argmax(distances))]
        raise StructureError(
            f"every hydrogen within {_LONGEST} nm of an atom of its residue",
            f"{distances.max():.3f} nm from {far.name} of {describe(group)}, {file.where(far)}",
            _STRIP,
        )
    found: dict[str, list[int]] = {}
    for index, parent in enumerate(parents):
        name = synonyms.get(heavy[parent].name, heavy[parent].name)
        found.setdefault(name, []).append(index)
    new: dict[str, str] = {}
    for parent, members in found.items():
        names = known.get(parent, [])
        if len(members) > len(names):
            shown = ", ".join(light[i].name for i in members)
            acid = " (a carboxylic acid; ends of chains are built charged)" if parent in ("O", "OXT") else ""
            raise StructureError(
                f"{f'at most {len(names)}' if names else 'no'} hydrogens on {parent} of {describe(group)}",
                f"{shown} in {file.where(light[members[0]])} of {file.name}{acid}",
                _STRIP,
            )
        kept = {now[i] for i in members if now[i] in names}
        free = [name for name in names if name not in kept]
        for i in members:
            if now[i] in kept:
                kept.discard(now[i])  # a second atom of that name takes a free one
                if light[i].name != now[i]:
                    new[light[i].name] = now[i]
            else:
                new[light[i].name] = free.pop(0)
    return new
