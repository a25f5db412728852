"""Hydrogen mass repartitioning: slower vibrations and longer time steps at unchanged averages."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Collection
from typing import Any

import openmm
from openmm import app

from mlmm import units
from mlmm.build.built import BuiltSystem
from mlmm.errors import ConfigError

__all__ = ["heavier_hydrogens", "repartition"]

logger = logging.getLogger(__name__)


def heavier_hydrogens(built: BuiltSystem, atoms: Collection[int], hydrogen_mass: Any) -> BuiltSystem:
    """Give the hydrogens of a region another mass, at the cost of the atom that they are bonded to.

    Positions are distributed as before: a classical configuration integral does not know masses. Waters are
    included where they belong to `atoms`, unlike in OpenMM's own option: those of a region are flexible.

    Parameters
    ----------
    built : BuiltSystem
    atoms : collection of int
        The region, or all atoms with lambda > 0.
    hydrogen_mass : mass
        amu, for example "3 amu".

    Raises
    ------
    ConfigError
        A mass that leaves a heavy atom lighter than its hydrogens.
    """
    mass = units.parse(hydrogen_mass, "mass", "hydrogen_mass")
    system = copy.deepcopy(built.system)
    changed = repartition(system, built.topology, mass, atoms)
    logger.info("%d hydrogens of %g amu in the region", changed, mass)
    note = f"{changed} hydrogens of the region have {mass:g} amu, taken from the atoms they are bonded to"
    facts = dict(built.provenance)
    facts["decisions"] = [*facts.get("decisions", []), note]  # type: ignore[misc]
    return dataclasses.replace(built, system=system, provenance=facts)


def repartition(
    system: openmm.System,
    topology: app.Topology,
    hydrogen_mass: float,
    atoms: Collection[int] | None = None,
) -> int:
    """Move mass to hydrogens within a System; returns how many have changed.

    Parameters
    ----------
    system : openmm.System
        Changed in place.
    topology : openmm.app.Topology
    hydrogen_mass : float
        amu.
    atoms : collection of int, optional
        Bonds with both ends among them; all by default.

    Raises
    ------
    ConfigError
        A mass that leaves a heavy atom lighter than its hydrogens.
    """
    chosen = None if atoms is None else set(atoms)
    changed = 0
    for bond in topology.bonds():
        if any(atom.element is None or (chosen is not None and atom.index not in chosen) for atom in bond):
            continue
        light, heavy = sorted(bond, key=lambda atom: atom.element.mass._value)
        if light.element is not app.element.hydrogen or heavy.element is app.element.hydrogen:
            continue
        taken = hydrogen_mass - system.getParticleMass(light.index)._value
        left = system.getParticleMass(heavy.index)._value - taken
        if hydrogen_mass <= 0 or left < hydrogen_mass:
            raise ConfigError(
                f"a hydrogen mass that leaves more to {heavy.residue.name}{heavy.residue.id}:{heavy.name}",
                f"{hydrogen_mass:g} amu, which leaves {left:.3g} amu",
                'write hydrogen_mass = "3 amu" or less',
            )
        system.setParticleMass(light.index, hydrogen_mass)
        system.setParticleMass(heavy.index, left)
        changed += taken != 0
    return changed
