"""Checks of a finished system: geometry, handedness, charge, energy and forces."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build.bounds import check_bounds
from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue
from mlmm.build.parametrise import chosen_templates
from mlmm.build.stretched import check_links
from mlmm.build.templates import unmatched_residues
from mlmm.errors import StructureError
from mlmm.neighbours import closest_pair

__all__ = [
    "charge_of",
    "check_built",
    "check_clashes",
    "check_energy",
    "check_extent",
    "check_handedness",
    "check_templates",
    "cpu_context",
    "handedness",
    "relaxed",
    "with_virtual_sites",
]

logger = logging.getLogger(__name__)
_CLASH = 0.05  # nm; half a C-H bond
_WHOLE_CHARGE = 1e-3  # e
#: Stereocentres of amino acids -> their neighbours.
_HANDED = {"CA": ("N", "C", "CB"), "ILE CB": ("CA", "CG1", "CG2"), "THR CB": ("CA", "OG1", "CG2")}
_LARGEST_EXTENT = 100.0  # nm; ten times a ribosome: coordinates in another unit, or a stray atom


def cpu_context(system: openmm.System, positions: np.ndarray, steady: bool = False) -> openmm.Context:
    """A context on the CPU platform, or on Reference where OpenMM lacks it.

    Parameters
    ----------
    system : openmm.System
    positions : ndarray, shape (N, 3), nm
    steady : bool
        One thread: the same numbers for the same input. Several threads finish in another order each time,
        which changes the last digits of a force, and a minimiser makes them the fourth digit of a position.
    """
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    platform = openmm.Platform.getPlatformByName("CPU" if "CPU" in names else "Reference")
    properties = {"Threads": "1"} if steady and platform.getName() == "CPU" else {}
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform, properties)
    context.setPositions(positions)
    return context


def with_virtual_sites(system: openmm.System, positions: np.ndarray) -> np.ndarray:
    """Positions (N, 3) in nm with virtual sites where the system's rules put them."""
    if not any(system.isVirtualSite(index) for index in range(system.getNumParticles())):
        return positions
    context = cpu_context(system, positions)
    context.computeVirtualSites()
    return context.getState(positions=True).getPositions(asNumpy=True)._value.astype(np.float64)


def handedness(topology: app.Topology, positions: np.ndarray) -> dict[tuple[str, str, str], float]:
    """Signed volumes at every CA, and at CB of ILE and THR, nm³; that of CA is positive for L amino acids.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm

    Returns
    -------
    dict
        (chain, residue number with insertion code, residue name and atom) to (a − x) · [(b − x) × (c − x)],
        with N, C, CB for a, b, c at x = CA.
    """
    volumes = {}
    for residue in topology.residues():
        at = {atom.name: positions[atom.index] for atom in residue.atoms()}
        number = f"{residue.id}{residue.insertionCode.strip()}"
        for centre, others in _HANDED.items():
            name, _, atom = centre.rpartition(" ")
            if name not in ("", residue.name) or not {atom, *others} <= at.keys():
                continue
            one, two, three = (at[other] - at[atom] for other in others)
            key = (residue.chain.id, number, f"{residue.name} {atom}")
            volumes[key] = float(np.dot(one, np.cross(two, three)))
    return volumes


def check_handedness(
    before: Mapping[tuple[str, str, str], float], after: Mapping[tuple[str, str, str], float], name: str
) -> None:
    """Refuse a build that turned a stereocentre into its mirror image.

    Raises
    ------
    StructureError
    """
    turned = [key for key, volume in after.items() if key in before and volume * before[key] <= 0]
    if turned:
        places = ", ".join(
            f"{what.split()[1]} of {what.split()[0]} {number} of chain {chain}"
            for chain, number, what in turned[:6]
        )
        raise StructureError(
            "stereocentres as they were in the file",
            f"{len(turned)} that turned into their mirror image while building {name}: {places}",
            "look for atoms too close to each other there, and correct the structure",
        )


def check_clashes(topology: app.Topology, positions: np.ndarray, name: str) -> None:
    """Refuse particles nearer than 0.05 nm to each other, virtual sites aside.

    Raises
    ------
    StructureError
        A duplicate, or coordinates that are not in the unit of the format.
    """
    atoms = list(topology.atoms())
    real = np.array([atom.index for atom in atoms if atom.element is not None], dtype=int)
    if len(real) < 2:
        return
    *pair, distance = closest_pair(positions[real])
    if distance < _CLASH:
        first, second = real[pair]
        raise StructureError(
            f"atoms at least {_CLASH} nm apart",
            f"{distance:.4f} nm between {atoms[first].name} of {describe_residue(atoms[first].residue)} "
            f"and {atoms[second].name} of {describe_residue(atoms[second].residue)} in {name}",
            "delete one of them, or place that molecule elsewhere",
        )


def check_built(
    topology: app.Topology,
    positions: np.ndarray,
    system: openmm.System,
    name: str,
    hands: Mapping[tuple[str, str, str], float],
    iterations: int = 0,
) -> tuple[np.ndarray, list[Decision]]:
    """Check a finished system: extent, bonds, handedness, clashes, energy and forces.

    Parameters
    ----------
    topology, positions (N, 3) nm, system
    name : str
        Of the file, for messages.
    hands : mapping
        `handedness` of the structure before building.
    iterations : int
        Of minimisation before the energy is looked at; 0 leaves the positions as they are.

    Returns
    -------
    positions (N, 3) nm, decisions

    Raises
    ------
    StructureError
    """
    check_extent(positions, name)
    check_links(topology, positions, name)
    positions, remarks = check_energy(system, positions, topology, iterations, bounds=True)
    # After the minimisation, which resolves the clashes that hydrogens may have.
    check_clashes(topology, positions, name)
    check_handedness(hands, handedness(topology, positions), name)
    return positions, [Decision("check", "energy", remark) for remark in remarks]


def check_extent(positions: np.ndarray, name: str) -> None:
    """Refuse a system larger than 100 nm.

    Raises
    ------
    StructureError
    """
    extent = np.ptp(positions, axis=0)
    if extent.max() > _LARGEST_EXTENT:
        raise StructureError(
            f"a system below {_LARGEST_EXTENT:g} nm",
            f"{extent.max():.1f} nm along {'xyz'[int(extent.argmax())]} in {name}",
            "look for a stray atom, or for coordinates that are not in angstrom",
        )


def check_templates(force_field: app.ForceField, topology: app.Topology) -> None:
    """Check that every residue has a template by its atoms and bonds; all that have none are named at once.

    Raises
    ------
    StructureError
    """
    unmatched = unmatched_residues(force_field, topology, chosen_templates(topology, force_field))
    if unmatched:
        names = ", ".join(describe_residue(residue) for residue in unmatched[:6])
        more = f" and {len(unmatched) - 6} more" if len(unmatched) > 6 else ""
        first = describe_residue(unmatched[0])
        raise StructureError(
            "residues with exactly the atoms and bonds of a force-field template",
            f"none for {names}{more}",
            f"compare {first} with its template: complete it, correct names and CONECT records, or give "
            'ligands = ["file.xml"] for it',
        )


def charge_of(system: openmm.System) -> tuple[float, list[str]]:
    """Net charge in e, and a remark where it is not a whole number (kept as its author made it)."""
    total = sum(
        force.getParticleParameters(index)[0].value_in_unit(unit.elementary_charge)
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce)
        for index in range(force.getNumParticles())
    )
    if abs(total - round(total)) <= _WHOLE_CHARGE:
        return round(total), []
    remark = f"the net charge is {total:.4f} e, not a whole number; charges kept as they are"
    logger.warning("%s", remark)
    return round(total, 6), [remark]


def check_energy(
    system: openmm.System,
    positions: np.ndarray,
    topology: app.Topology,
    iterations: int = 0,
    *,
    bounds: bool = False,
) -> tuple[np.ndarray, list[str]]:
    """Check that energy and largest force are finite, after some steps of minimisation if asked.

    Parameters
    ----------
    system : openmm.System
    positions : ndarray, shape (N, 3), nm
    topology : openmm.app.Topology
    iterations : int
        Of L-BFGS, before; 0 leaves the positions as they are.
    bounds : bool
        Also refuse what `check_bounds` does.

    Returns
    -------
    positions (N, 3) nm, remarks in words

    Raises
    ------
    StructureError
        Energy or a force that is not finite.
    """
    remarks = []
    context = cpu_context(system, positions, steady=iterations > 0)
    if iterations:
        before = context.getState(energy=True).getPotentialEnergy()._value
        positions = relaxed(context, iterations)
        remarks.append(f"relaxed by {iterations} iterations from {before:.0f} kJ/mol")
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy()._value
    forces = np.linalg.norm(state.getForces(asNumpy=True)._value, axis=1)
    bad = np.flatnonzero(~np.isfinite(forces))
    worst = int(bad[0]) if len(bad) else int(forces.argmax())
    atom = list(topology.atoms())[worst]
    where = f"{atom.name} of {describe_residue(atom.residue)}"
    if not np.isfinite(energy) or len(bad):
        raise StructureError(
            "finite energy and forces",
            f"{energy:g} kJ/mol, and {forces[worst]:g} kJ/mol/nm on {where}",
            f"look for overlapping atoms around {where}",
        )
    if bounds:
        check_bounds(topology, positions, system, forces)
    remarks.append(f"energy {energy:.1f} kJ/mol, largest force {forces[worst]:.3g} kJ/mol/nm on {where}")
    return positions, remarks


def relaxed(context: openmm.Context, iterations: int) -> np.ndarray:
    """Positions (N, 3) in nm after some iterations of L-BFGS."""
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, iterations)
    return context.getState(positions=True).getPositions(asNumpy=True)._value.astype(np.float64)
