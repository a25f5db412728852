"""Hydrogens of residues that OpenMM's definitions do not know, from the force field's own templates."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from openmm import app

from mlmm.build.joints import joints
from mlmm.build.templates import TemplateGraphs, bonded_atoms

__all__ = ["hydrogens_by_template"]

_CHARMM_STATES = {"HID": "HSD", "HIE": "HSE", "HIP": "HSP"}


def hydrogens_by_template(
    topology: app.Topology, force_field: app.ForceField, skip: Collection[int], states: Mapping[int, str]
) -> dict[int, list[tuple[str, str]]]:
    """Hydrogens, with their heavy atoms, of residues for which OpenMM's own rules do not hold.

    These are residues outside its definitions (HYP, SEP), and ends of chains that are bonded elsewhere,
    as in a cyclic peptide. Hydrogens that the file has take the names of the template.

    Parameters
    ----------
    topology : openmm.app.Topology
        Names of hydrogens may change.
    force_field : openmm.app.ForceField
    skip : collection of int
        Residue indices that are left alone: described by the user.
    states : mapping of int to str
        Protonation states that are decided.
    """
    app.Modeller._loadStandardHydrogenDefinitions()
    graphs, bonded = TemplateGraphs(force_field), bonded_atoms(topology)
    atoms = list(topology.atoms())
    joined = {atom for joint in joints(topology) for atom in joint}
    found = {}
    for residue in topology.residues():
        ends = any(atom in joined and atom.name in ("N", "C") for atom in residue.atoms())
        known = residue.name in app.Modeller._residueHydrogens
        if residue.index in skip or (known and not ends):
            continue
        matches = graphs.matches(residue, bonded)
        if not matches:
            continue
        present = sum(atom.element == app.element.hydrogen for atom in residue.atoms())
        state = states.get(residue.index, "HIE")
        wanted = {residue.name, state, _CHARMM_STATES.get(state, "")}
        match = min(
            matches,
            key=lambda m: (m.template.name not in wanted, bool(present) and len(m.hydrogens) != present),
        )
        hydrogens = match.hydrogens
        if hydrogens:
            _rename_hydrogens(residue, hydrogens, bonded, atoms)
            found[residue.index] = hydrogens
    return found


def _rename_hydrogens(
    residue: app.topology.Residue, hydrogens: list[tuple[str, str]], bonded: Sequence, atoms: Sequence
) -> None:
    """Give the hydrogens on each heavy atom the template's names for that atom."""
    for atom in residue.atoms():
        names = [name for name, parent in hydrogens if parent == atom.name]
        light = [atoms[i] for i in bonded[atom.index] if atoms[i].element == app.element.hydrogen]
        kept = {hydrogen.name for hydrogen in light} & set(names)
        free = [name for name in names if name not in kept]
        for hydrogen in light:
            if hydrogen.name not in kept and free:
                hydrogen.name = free.pop(0)
