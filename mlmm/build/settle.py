"""Minimisation of residues that were changed in place, within rigid surroundings."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.checks import cpu_context, relaxed
from mlmm.build.gaps import describe_residue
from mlmm.build.parametrise import chosen_templates, retold

__all__ = ["settle_in_place"]

_CUTOFF = 1.0  # nm
_ITERATIONS = 200


def settle_in_place(
    topology: app.Topology, positions: np.ndarray, force_field: app.ForceField, names: Collection[str]
) -> tuple[np.ndarray, list[Decision]]:
    """Minimise residues of some names, and all hydrogens, while every other atom stays where it is.

    A molecule that was made from another one starts far from its own geometry (a bond that is none any more
    has 0.15 nm): minimised with everything else free, it would push its neighbours through each other, which
    can turn an alpha carbon into its mirror image.

    Parameters
    ----------
    topology : openmm.app.Topology
        With all hydrogens, without a box.
    positions : ndarray, shape (N, 3), nm
    force_field : openmm.app.ForceField
    names : collection of str
        Residue names.

    Returns
    -------
    positions (N, 3) nm, decisions
    """
    residues = [residue for residue in topology.residues() if residue.name in names]
    if not residues:
        return positions, []
    with retold(topology, "assigning parameters"):
        system = force_field.createSystem(
            topology,
            nonbondedMethod=app.CutoffNonPeriodic,
            nonbondedCutoff=_CUTOFF,
            constraints=None,
            rigidWater=False,
            residueTemplates=chosen_templates(topology, force_field),
        )
    for atom in topology.atoms():
        if atom.residue.name not in names and atom.element != app.element.hydrogen:
            system.setParticleMass(atom.index, 0.0)
    context = cpu_context(system, positions, steady=True)
    before = context.getState(energy=True).getPotentialEnergy()._value
    moved = relaxed(context, _ITERATIONS)
    after = context.getState(energy=True).getPotentialEnergy()._value
    farthest = max(
        float(np.linalg.norm(moved[atom.index] - positions[atom.index]))
        for residue in residues
        for atom in residue.atoms()
    )
    # What was frozen comes back rounded; leave it as it was.
    still = [i for i in range(topology.getNumAtoms()) if system.getParticleMass(i)._value == 0]
    moved[still] = positions[still]
    who = ", ".join(describe_residue(residue) for residue in residues[:4])
    text = (
        f"{who} and all hydrogens relaxed in rigid surroundings: {before:.0f} to {after:.0f} kJ/mol, "
        f"atoms moved up to {farthest:.3f} nm"
    )
    return moved, [Decision("ligands", "relaxation", text, numbers={"before": before, "after": after})]
