"""A droplet: the part of a system around a point, with a frozen outer shell and a wall for its water.

The whole solute is parametrised and relaxed first; then whole residues beyond a radius are deleted with every
term that touches them. Only frozen atoms may lose bonded terms that way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import openmm
from openmm import app, unit
from openmm.vec3 import Vec3

from mlmm.build.build_log import Decision
from mlmm.build.checks import cpu_context, relaxed
from mlmm.build.draft import as_quantity
from mlmm.build.families import water_box
from mlmm.build.options import DropletOptions
from mlmm.build.parametrise import chosen_templates, retold
from mlmm.build.subset import subset_system, subset_topology
from mlmm.build.surroundings.walls import spherical_wall
from mlmm.errors import SelectionError, StructureError
from mlmm.zones.region import select_region

__all__ = ["add_water_sphere", "cut_droplet", "droplet_centre", "relaxed_whole"]

logger = logging.getLogger(__name__)
_RELAX_CUTOFF = 1.2  # nm
_WATER = "HOH"


def droplet_centre(topology: app.Topology, positions: np.ndarray, settings: DropletOptions) -> np.ndarray:
    """Mean position (3,) in nm of the atoms of the centre.

    Raises
    ------
    SelectionError
        No atoms, or atoms of which some lie outside the mobile part: several copies of a molecule.
    """
    chosen = list(select_region(SimpleNamespace(topology=topology), settings.centre, "atoms").atoms)
    centre = positions[chosen].mean(axis=0)
    if np.linalg.norm(positions[chosen] - centre, axis=1).max() > settings.mobile:
        atoms = list(topology.atoms())
        places = list(dict.fromkeys(_place(atoms[i].residue) for i in chosen))
        raise SelectionError(
            f"a centre that fits into the mobile radius of {settings.mobile:g} nm",
            f"{settings.centre!r}: {', '.join(places[:4])}" + (" …" if len(places) > 4 else ""),
            'choose one of them, such as centre = "resname LIG and chainid 0"',
        )
    return centre


def _place(residue: app.topology.Residue) -> str:
    return f"{residue.name} {residue.id} of chain {residue.chain.id} (chainid {residue.chain.index})"


def add_water_sphere(
    model: app.Modeller, force_field: app.ForceField, water: str, centre: np.ndarray, radius: float
) -> None:
    """Water within a radius of a point, around a solute that stays whole; no box and no ions remain."""
    positions = _positions(model)
    low, high = positions.min(axis=0), positions.max(axis=0)
    low, high = np.minimum(low, centre - radius), np.maximum(high, centre + radius)
    # Half a nanometre: no water is left out because of an image of the solute.
    edges = high - low + 0.5
    shift = 0.5 * edges - 0.5 * (low + high)
    model.positions = as_quantity(positions + shift)
    with retold(model.topology, "adding water"):
        model.addSolvent(
            force_field,
            model=water_box(force_field, water),
            boxVectors=unit.Quantity([Vec3(*row) for row in np.diag(edges).tolist()], unit.nanometer),
            ionicStrength=0 * unit.molar,
            neutralize=False,
            residueTemplates=chosen_templates(model.topology, force_field),
        )
    model.positions = as_quantity(_positions(model) - shift)
    positions = _positions(model)
    outside = [
        residue
        for residue in model.topology.residues()
        if residue.name == _WATER and np.linalg.norm(positions[_oxygen(residue)] - centre) > radius
    ]
    model.delete(outside)
    model.topology.setPeriodicBoxVectors(None)


def relaxed_whole(
    topology: app.Topology,
    positions: np.ndarray,
    system: openmm.System,
    force_field: app.ForceField,
    iterations: int,
) -> tuple[np.ndarray, list[Decision]]:
    """Positions (N, 3) in nm of the whole solute in its water, minimised with every atom free to move.

    Without constraints, which make a minimiser five times slower; those of the system are met at the end.
    """
    if iterations == 0:
        return positions, []
    with retold(topology, "assigning parameters"):
        flexible = force_field.createSystem(
            topology,
            nonbondedMethod=app.CutoffNonPeriodic,
            nonbondedCutoff=_RELAX_CUTOFF,
            constraints=None,
            rigidWater=False,
            residueTemplates=chosen_templates(topology, force_field),
        )
    context = cpu_context(flexible, positions, steady=True)
    before = context.getState(energy=True).getPotentialEnergy()._value
    positions = relaxed(context, iterations)
    after = context.getState(energy=True).getPotentialEnergy()._value
    if system.getNumConstraints():
        rigid = cpu_context(system, positions, steady=True)
        rigid.applyConstraints(1e-6)
        positions = rigid.getState(positions=True).getPositions(asNumpy=True)._value.astype(np.float64)
    text = (
        f"whole solute in its water relaxed before freezing: {before:.0f} to {after:.0f} kJ/mol in "
        f"{iterations} iterations (cutoff {_RELAX_CUTOFF:g} nm)"
    )
    return positions, [Decision("solvate", "relaxation", text, numbers={"before": before, "after": after})]


def cut_droplet(
    topology: app.Topology,
    positions: np.ndarray,
    system: openmm.System,
    centre: np.ndarray,
    settings: DropletOptions,
) -> tuple[app.Topology, np.ndarray, openmm.System, list[Decision]]:
    """Delete whole residues beyond the radius, freeze the shell, and put a wall around the mobile water.

    Parameters
    ----------
    topology, positions (N, 3) nm, system
        Of the whole solute in its water, without a box; not changed.
    centre : ndarray, shape (3,), nm
    settings : DropletOptions

    Returns
    -------
    topology, positions, system, decisions

    Raises
    ------
    StructureError
        Nothing to delete from, or a force that cannot be cut.
    """
    distance = np.linalg.norm(positions - centre, axis=1)
    reach = np.empty(len(positions))
    for residue in topology.residues():
        atoms = [atom.index for atom in residue.atoms()]
        # Water by its oxygen: its hydrogens turn in picoseconds.
        reach[atoms] = distance[_oxygen(residue)] if residue.name == _WATER else distance[atoms].min()
    keep = reach <= settings.radius
    mobile = reach[keep] <= settings.mobile
    smaller, lost = subset_system(system, keep)
    small_topology = subset_topology(topology, keep)
    small_positions = positions[keep]
    decisions = [_size_decision(topology, small_topology, len(positions), settings)]
    mobile, pinned = _pinned(small_topology, mobile, lost)
    if pinned:
        text = f"{len(pinned)} residues inside the mobile radius lose terms to deleted ones and are frozen: "
        more = " …" if len(pinned) > 6 else ""
        decisions.append(Decision("solvate", "frozen", text + ", ".join(pinned[:6]) + more, warning=True))
    if not mobile.any():
        raise StructureError("a droplet with mobile atoms", "none", "choose a larger mobile radius")
    freeze(smaller, np.flatnonzero(~mobile))
    oxygens = [
        _oxygen(residue)
        for residue in small_topology.residues()
        if residue.name == _WATER and mobile[_oxygen(residue)]
    ]
    if oxygens:
        smaller.addForce(spherical_wall(oxygens, centre, settings.mobile))
    text = (
        f"{int((~mobile).sum())} of {len(mobile)} atoms frozen beyond {settings.mobile:g} nm; "
        f"half-harmonic wall there on {len(oxygens)} oxygens of water"
    )
    decisions.append(Decision("solvate", "frozen", text, numbers={"mobile_atoms": int(mobile.sum())}))
    return small_topology, small_positions, smaller, decisions


def freeze(system: openmm.System, atoms: np.ndarray) -> None:
    """Give atoms the mass 0, which no integrator moves, and free the constraints that touch them."""
    still = np.zeros(system.getNumParticles(), dtype=bool)
    still[atoms] = True
    for atom in atoms:
        system.setParticleMass(int(atom), 0.0)
    for index in reversed(range(system.getNumConstraints())):
        first, second, _ = system.getConstraintParameters(index)
        if still[first] or still[second]:
            system.removeConstraint(index)


def _pinned(
    topology: app.Topology, mobile: np.ndarray, lost: Mapping[int, int]
) -> tuple[np.ndarray, list[str]]:
    """Freeze residues whose atoms lose bonded terms; return the names of those that would have moved."""
    mobile, names = mobile.copy(), []
    for residue in topology.residues():
        atoms = [atom.index for atom in residue.atoms()]
        if mobile[atoms].any() and any(atom in lost for atom in atoms):
            mobile[atoms] = False
            names.append(f"{residue.name} {residue.id} of chain {residue.chain.id}")
    return mobile, names


def _size_decision(
    before: app.Topology, after: app.Topology, n_atoms: int, settings: DropletOptions
) -> Decision:
    kept = [residue.name == _WATER for residue in after.residues()]
    removed = sum(residue.name != _WATER for residue in before.residues()) - kept.count(False)
    pairs = (
        "every pair is computed"
        if settings.cutoff is None
        else f"pairs to {settings.cutoff:g} nm, with a reaction field beyond"
    )
    text = (
        f"droplet of radius {settings.radius:g} nm around {settings.centre!r}: {after.getNumAtoms()} of "
        f"{n_atoms} atoms, {kept.count(True)} water molecules; {removed} whole residues of the solute "
        f"deleted after parametrising; no box, no ions added; {pairs}"
    )
    return Decision("solvate", "droplet", text, numbers=settings.as_dict() | {"atoms": after.getNumAtoms()})


def _oxygen(residue: app.topology.Residue) -> int:
    return next(atom.index for atom in residue.atoms() if atom.element == app.element.oxygen)


def _positions(model: app.Modeller) -> np.ndarray:
    return np.array(model.positions.value_in_unit(unit.nanometer), dtype=float)
