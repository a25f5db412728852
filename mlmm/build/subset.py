"""Subset of a parametrised system: terms that touch another atom are left out."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app

from mlmm.errors import StructureError
from mlmm.forcefield.term_catalogue import BONDED, TABULATED, class_of, described, empty_copy

__all__ = ["subset_system", "subset_topology"]


def subset_system(system: openmm.System, keep: np.ndarray) -> tuple[openmm.System, dict[int, int]]:
    """A system of the atoms in `keep` with the terms among them, parameters unchanged.

    Parameters
    ----------
    system : openmm.System
        Without a box; not changed.
    keep : ndarray, shape (N,), bool

    Returns
    -------
    system : openmm.System
        Without remover of the centre of mass's motion.
    lost : dict of int to int
        New index of an atom to the number of its bonded terms that were left out.

    Raises
    ------
    StructureError
        A force of another kind, a virtual site that loses an atom, or a periodic system.
    """
    if system.usesPeriodicBoundaryConditions():
        raise StructureError("a system without a box", "a periodic one", "build it without a box")
    new = np.full(len(keep), -1)
    new[keep] = np.arange(int(keep.sum()))
    smaller = openmm.System()
    for atom in np.flatnonzero(keep):
        smaller.addParticle(system.getParticleMass(int(atom)))
    for atom in np.flatnonzero(keep):
        if system.isVirtualSite(int(atom)):
            smaller.setVirtualSite(int(new[atom]), _moved_site(system.getVirtualSite(int(atom)), new))
    for index in range(system.getNumConstraints()):
        first, second, length = system.getConstraintParameters(index)
        if keep[first] and keep[second]:
            smaller.addConstraint(int(new[first]), int(new[second]), length)
    lost: dict[int, int] = {}
    for force in system.getForces():
        name = class_of(force)
        if name == "CMMotionRemover":
            continue
        if name == "NonbondedForce":
            smaller.addForce(_nonbonded(force, keep, new))
        elif name in TABULATED:
            smaller.addForce(_bonded(force, keep, new, lost))
        else:
            raise StructureError(
                f"forces that can be cut into a droplet (NonbondedForce, {', '.join(TABULATED)})",
                described(force),
                'use another force field, or solvent = "box"',
            )
    return smaller, lost


def _bonded(force: openmm.Force, keep: np.ndarray, new: np.ndarray, lost: dict[int, int]) -> openmm.Force:
    smaller, terms = empty_copy(force), BONDED[class_of(force)]
    for parameters in terms.parameters(force):
        atoms = terms.atoms(parameters)
        if all(keep[atom] for atom in atoms):
            terms.add(smaller, terms.with_atoms(parameters, [int(new[atom]) for atom in atoms]))
        else:
            for atom in atoms:
                if keep[atom]:
                    lost[int(new[atom])] = lost.get(int(new[atom]), 0) + 1
    return smaller


def _nonbonded(force: openmm.NonbondedForce, keep: np.ndarray, new: np.ndarray) -> openmm.NonbondedForce:
    empty = openmm.NonbondedForce()
    # Settings stay those of the full system; only particles and exceptions are listed anew.
    empty.setName(force.getName())
    empty.setNonbondedMethod(force.getNonbondedMethod())
    empty.setCutoffDistance(force.getCutoffDistance())
    empty.setReactionFieldDielectric(force.getReactionFieldDielectric())
    empty.setUseSwitchingFunction(force.getUseSwitchingFunction())
    empty.setSwitchingDistance(force.getSwitchingDistance())
    empty.setUseDispersionCorrection(False)
    for atom in np.flatnonzero(keep):
        empty.addParticle(*force.getParticleParameters(int(atom)))
    for index in range(force.getNumExceptions()):
        first, second, *parameters = force.getExceptionParameters(index)
        if keep[first] and keep[second]:
            empty.addException(int(new[first]), int(new[second]), *parameters)
    return empty


def _moved_site(site: openmm.VirtualSite, new: np.ndarray) -> openmm.VirtualSite:
    """Virtual site with the new indices of its atoms."""
    atoms = [int(new[site.getParticle(k)]) for k in range(site.getNumParticles())]
    if min(atoms) < 0 or not isinstance(site, openmm.ThreeParticleAverageSite):
        raise StructureError(
            "virtual sites of whole water molecules",
            f"a {site.__class__.__name__}",
            "use a force field without such sites",
        )
    return openmm.ThreeParticleAverageSite(*atoms, *(site.getWeight(k) for k in range(3)))


def subset_topology(topology: app.Topology, keep: np.ndarray) -> app.Topology:
    """The atoms in `keep` under their names, numbers and chains, with the bonds among them; without a box."""
    smaller = app.Topology()
    atoms = {}
    for chain in topology.chains():
        kept_chain = None
        for residue in chain.residues():
            inside = [atom for atom in residue.atoms() if keep[atom.index]]
            if not inside:
                continue
            kept_chain = kept_chain or smaller.addChain(chain.id)
            kept = smaller.addResidue(residue.name, kept_chain, residue.id, residue.insertionCode)
            for atom in inside:
                atoms[atom] = smaller.addAtom(atom.name, atom.element, kept, atom.id, atom.formalCharge)
    for bond in topology.bonds():
        if bond[0] in atoms and bond[1] in atoms:
            smaller.addBond(atoms[bond[0]], atoms[bond[1]], bond.type, bond.order)
    return smaller
