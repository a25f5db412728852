"""Boxes of pure solvent, in which compensations are calibrated."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from openmm import app, unit
from openmm.vec3 import Vec3

from mlmm import units
from mlmm.build.built import BuiltSystem, package_versions
from mlmm.build.checks import with_virtual_sites
from mlmm.build.families import WATER_MODELS, force_field_files, water_box
from mlmm.build.masses import repartition
from mlmm.build.parametrise import load_force_field, retold
from mlmm.errors import ConfigError, StructureError
from mlmm.zones.region import molecules_of

__all__ = ["around_a_point", "build_bulk_water", "scaled_to"]

#: amu
_POINT_MASS = 18.0


def build_bulk_water(
    edge: Any = "1.6 nm",
    *,
    water: str = "tip3p",
    forcefield: str | Sequence[str] = "amber14",
    nonbonded_cutoff: Any = "0.7 nm",
    hydrogen_mass: Any = None,
) -> BuiltSystem:
    """A cube of flexible water from OpenMM's pre-equilibrated boxes.

    Parameters
    ----------
    edge : length
        Of the cube.
    water : str
        A name of `mlmm.build.families.WATER_MODELS`.
    forcefield : str or list of str
        As for `build_system`.
    nonbonded_cutoff : length
        Of PME's direct sum.
    hydrogen_mass : mass, optional
        Mass that hydrogens get at the cost of their oxygen: same averages, a longer time step.

    Raises
    ------
    StructureError
        An edge below twice the cutoff.
    ConfigError
        An unknown water model or force field.
    """
    length = units.parse(edge, "length", "edge")
    cutoff = units.parse(nonbonded_cutoff, "length", "nonbonded_cutoff")
    mass = None if hydrogen_mass is None else units.parse(hydrogen_mass, "mass", "hydrogen_mass")
    if length < 2 * cutoff:
        raise StructureError(
            f"an edge of at least {2 * cutoff:g} nm, twice the cutoff", f"{length:g} nm", "make it longer"
        )
    files = force_field_files(forcefield, water)
    if water not in WATER_MODELS:
        raise ConfigError(f"water as one of {', '.join(WATER_MODELS)}", repr(water), 'write water = "tip3p"')
    force_field = load_force_field(files)
    model = app.Modeller(app.Topology(), unit.Quantity([], unit.nanometer))
    model.addSolvent(
        force_field,
        model=water_box(force_field, water),
        boxSize=Vec3(length, length, length) * unit.nanometer,
    )
    with retold(model.topology, "assigning parameters"):
        system = force_field.createSystem(
            model.topology,
            nonbondedMethod=app.PME,
            nonbondedCutoff=cutoff,
            constraints=None,
            rigidWater=False,
            hydrogenMass=None,
        )
    if mass is not None:
        repartition(system, model.topology, mass)
    positions = np.array(model.positions.value_in_unit(unit.nanometer), dtype=float)
    positions = with_virtual_sites(system, positions)
    provenance: dict[str, object] = {
        "source": f"bulk {water}",
        "forcefield_files": files,
        "options": {"edge_nm": length, "nonbonded_cutoff_nm": cutoff, "hydrogen_mass_amu": mass},
        "versions": package_versions(),
    }
    return BuiltSystem(model.topology, positions, system, provenance)


def scaled_to(bulk: BuiltSystem, density: float) -> BuiltSystem:
    """Scale a box to another density; molecules move as a whole and keep their shape.

    Parameters
    ----------
    bulk : BuiltSystem
        Periodic.
    density : float
        Molecules per nm³.

    Raises
    ------
    ConfigError
        A density that is not above 0, or a system without a box.
    """
    if not density > 0:
        raise ConfigError("a density above 0 molecules per nm³", str(density), "write 33.4 for water")
    molecules = molecules_of(bulk.topology)
    box = bulk.box_vectors
    if box is None:
        raise ConfigError("a liquid in a periodic box", "none", "build one with mlmm.build_bulk_water")
    scale = (len(molecules) / density / abs(np.linalg.det(box))) ** (1 / 3)
    moved = bulk.positions.copy()
    for atoms in map(list, molecules):
        moved[atoms] += (scale - 1) * bulk.positions[atoms].mean(axis=0)
    system = openmm.XmlSerializer.clone(bulk.system)
    system.setDefaultPeriodicBoxVectors(*(box * scale))
    facts = {**bulk.provenance, "density_per_nm3": density}
    return BuiltSystem.from_openmm(bulk.topology, system, moved, facts)


def around_a_point(bulk: BuiltSystem, element: app.Element | None = None) -> BuiltSystem:
    """The liquid with one particle more, its last: without interactions, in its middle.

    Molecules pass through it: around it, a flat density is what is right. It has the mass of a water molecule
    and is moved by a zone around it, but by nothing else: so it does not see the same place of a slow liquid
    all the time.

    Parameters
    ----------
    bulk : BuiltSystem
    element : openmm.app.Element, optional
        What a model sees of it; nothing by default.
    """
    model = app.Modeller(copy.deepcopy(bulk.topology), bulk.positions)
    model.topology.addAtom("PT", element, model.topology.addResidue("PNT", model.topology.addChain()))
    system = openmm.XmlSerializer.clone(bulk.system)
    system.addParticle(_POINT_MASS)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.addParticle(0.0, 0.1, 0.0)
    positions = np.vstack([bulk.positions, bulk.positions.mean(axis=0)])
    return BuiltSystem.from_openmm(model.topology, system, positions, bulk.provenance)
