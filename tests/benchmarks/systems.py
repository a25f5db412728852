"""Systems to be timed: the alanine dipeptide in water, more of it, and regions of any size in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build import BuiltSystem, build_system
from mlmm.errors import ConfigError
from mlmm.forcefield.term_catalogue import BONDED, TABULATED, class_of, described, empty_copy
from mlmm.units import FEMTOSECOND
from mlmm.zones.region import Region, region_from_atoms

__all__ = [
    "CUTOFF",
    "dipeptide_alone",
    "dipeptide_in_water",
    "nearest_region",
    "relaxed",
    "replicated",
    "rigid_outside",
]

#: Of PME's direct sum, nm.
CUTOFF = 0.9
_PDB = Path(__file__).parents[2] / "systems/alanine_dipeptide/input.pdb"
_SOLUTE = 22  # atoms; they come first


def dipeptide_in_water(*, rigid: bool = True, padding: float = 1.0, seed: int = 1) -> BuiltSystem:
    """Alanine dipeptide in a cube of TIP3P water under PME, by default some 2,300 atoms.

    Parameters
    ----------
    rigid : bool
        Rigid water and bonds to hydrogen; the same atoms and coordinates either way.
    padding : float
        nm.
    seed : int
    """
    return build_system(
        _PDB,
        padding=padding,
        nonbonded_cutoff=CUTOFF,
        constraints="hbonds" if rigid else "none",
        rigid_water=rigid,
        seed=seed,
    )


def dipeptide_alone() -> BuiltSystem:
    """Alanine dipeptide without water and box, 22 atoms."""
    return build_system(_PDB, solvate=False, constraints="none", rigid_water=False)


def relaxed(built: BuiltSystem, length: float = 2.0, *, iterations: int = 200, seed: int = 1) -> BuiltSystem:
    """The same after minimisation and a short run of the force field at 300 K.

    Parameters
    ----------
    built : BuiltSystem
    length : float
        ps.
    iterations : int
        Of the minimisation.
    seed : int
    """
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, FEMTOSECOND)
    integrator.setRandomNumberSeed(seed)
    # By name: of itself OpenMM takes any OpenCL driver before the processor.
    context = openmm.Context(built.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, iterations)
    context.setVelocitiesToTemperature(300.0, seed)
    integrator.step(round(length / FEMTOSECOND))
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return dataclasses.replace(built, positions=positions)


def replicated(built: BuiltSystem, times: tuple[int, int, int]) -> BuiltSystem:
    """Copies of a rectangular box side by side: the same liquid, more of it.

    Parameters
    ----------
    built : BuiltSystem
        Of the forces that `dipeptide_in_water` has.
    times : tuple of int
        Copies along x, y and z.

    Raises
    ------
    ConfigError
        A box that is not rectangular, or another force.
    """
    box = built.box_vectors
    if box is None or np.any(box != np.diag(np.diag(box))):
        raise ConfigError("a rectangular box to replicate", "another one", 'build with box_shape = "cube"')
    cells = [np.array(cell) for cell in np.ndindex(*times)]
    n = built.n_atoms
    system, topology = openmm.System(), app.Topology()
    for _ in cells:
        for i in range(n):
            system.addParticle(built.system.getParticleMass(i))
        _add_topology(topology, built.topology)
    for k in range(len(cells)):
        for i in range(built.system.getNumConstraints()):
            a, b, distance = built.system.getConstraintParameters(i)
            system.addConstraint(a + k * n, b + k * n, distance)
    for force in built.system.getForces():
        system.addForce(_replicated_force(force, n, len(cells)))
    vectors = [openmm.Vec3(*row) for row in (box * np.array(times)[:, None]).tolist()]
    system.setDefaultPeriodicBoxVectors(*vectors)
    topology.setPeriodicBoxVectors(vectors * unit.nanometer)
    positions = np.concatenate([built.positions + cell @ box for cell in cells])
    return BuiltSystem(topology, positions, system, dict(built.provenance))


def _add_topology(topology: app.Topology, source: app.Topology) -> None:
    """Append chains, residues, atoms and bonds of another topology."""
    atoms = {}
    for chain in source.chains():
        new_chain = topology.addChain()
        for residue in chain.residues():
            new_residue = topology.addResidue(residue.name, new_chain)
            for atom in residue.atoms():
                atoms[atom.index] = topology.addAtom(atom.name, atom.element, new_residue)
    for bond in source.bonds():
        topology.addBond(atoms[bond[0].index], atoms[bond[1].index])


def _replicated_force(force: openmm.Force, n: int, copies: int) -> openmm.Force:
    """The same terms for every copy of n atoms."""
    name = class_of(force)
    if name == "CMMotionRemover":
        return openmm.CMMotionRemover(force.getFrequency())
    if name == "NonbondedForce":
        return _replicated_nonbonded(force, n, copies)
    if name not in TABULATED:
        raise ConfigError(
            f"forces {', '.join(TABULATED)} to replicate", described(force), "use the dipeptide's box"
        )
    new, terms = empty_copy(force), BONDED[name]
    every = terms.parameters(force)
    for k in range(copies):
        for parameters in every:
            terms.add(new, terms.with_atoms(parameters, [atom + k * n for atom in terms.atoms(parameters)]))
    return new


def _replicated_nonbonded(force: openmm.NonbondedForce, n: int, copies: int) -> openmm.NonbondedForce:
    new = openmm.NonbondedForce()
    for name in ("NonbondedMethod", "CutoffDistance", "EwaldErrorTolerance", "UseDispersionCorrection"):
        getattr(new, f"set{name}")(getattr(force, f"get{name}")())
    particles = [force.getParticleParameters(i) for i in range(n)]
    exceptions = [force.getExceptionParameters(i) for i in range(force.getNumExceptions())]
    for k in range(copies):
        for parameters in particles:
            new.addParticle(*parameters)
        for a, b, *parameters in exceptions:
            new.addException(a + k * n, b + k * n, *parameters)
    return new


def nearest_region(built: BuiltSystem, n_atoms: int) -> Region:
    """The dipeptide and its nearest waters, `n_atoms` or up to two more.

    Parameters
    ----------
    built : BuiltSystem
    n_atoms : int
    """
    if n_atoms <= _SOLUTE:
        return region_from_atoms(built.topology, range(_SOLUTE), "atoms", "dipeptide")
    solute = built.positions[:_SOLUTE]
    lengths = np.diag(built.box_vectors)
    oxygens = np.arange(_SOLUTE, built.n_atoms, 3)
    apart = built.positions[oxygens][:, None] - solute[None]
    apart -= lengths * np.round(apart / lengths)
    order = oxygens[np.argsort(np.linalg.norm(apart, axis=2).min(axis=1), kind="stable")]
    waters = order[: max(0, -(-(n_atoms - _SOLUTE) // 3))]
    atoms = [*range(_SOLUTE), *(int(o) + k for o in waters for k in range(3))]
    return region_from_atoms(built.topology, atoms, "atoms", f"dipeptide and {len(waters)} waters")


def rigid_outside(flexible: BuiltSystem, rigid: BuiltSystem, atoms: Collection[int]) -> BuiltSystem:
    """The flexible system with the constraints that the rigid one has outside of some atoms.

    Parameters
    ----------
    flexible, rigid : BuiltSystem
        Of the same atoms.
    atoms : collection of int
        They stay flexible.
    """
    inside = set(atoms)
    system = openmm.XmlSerializer.clone(flexible.system)
    for i in range(rigid.system.getNumConstraints()):
        a, b, distance = rigid.system.getConstraintParameters(i)
        if a not in inside and b not in inside:
            system.addConstraint(a, b, distance)
    return dataclasses.replace(flexible, positions=rigid.positions, system=system)
