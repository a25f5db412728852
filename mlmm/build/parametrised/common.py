"""What is common to systems with parameters of their own: files read, forces made, checks, the record."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build.build_log import Decision
from mlmm.build.built import BuiltSystem, package_versions
from mlmm.build.checks import charge_of, check_clashes, check_energy, check_extent
from mlmm.build.options import ForceOptions
from mlmm.build.surroundings.solvent import check_width
from mlmm.build.topology_json import topology_box
from mlmm.errors import StructureError

__all__ = ["checked", "create_system", "file_sha256", "log_entries", "read_text", "same_atoms", "taken_over"]

logger = logging.getLogger(__name__)
_CONSTRAINTS = {"none": None, "hbonds": app.HBonds}


def read_text(path: Path) -> str:
    """Text of a file, whatever its bytes.

    Raises
    ------
    StructureError
        No such file, or one that may not be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise StructureError(
            f"a file at {str(path)!r}", error.strerror or str(error), "check the path"
        ) from error


def file_sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def same_atoms(here: int, there: int, topology: str, coordinates: str) -> None:
    """Make sure that a topology and coordinates are of as many atoms.

    Raises
    ------
    StructureError
        Different numbers of atoms.
    """
    if here != there:
        raise StructureError(
            "a topology and coordinates of the same atoms",
            f"{here} atoms in {topology} and {there} in {coordinates}",
            "give the coordinates that were written with this topology",
        )


def create_system(
    make: Callable[..., openmm.System],
    topology: app.Topology,
    options: ForceOptions,
    periodic: bool,
    failure: tuple[str, str, str],
) -> openmm.System:
    """Forces from the parameters of a topology: PME in a box, every pair without one.

    Parameters
    ----------
    make : callable
        ``createSystem`` of OpenMM's reader.
    topology : Topology
        With its box, which is taken away where `periodic` is false.
    options : ForceOptions
    periodic : bool
    failure : tuple of str
        Name of the file, what was expected and what to do, where OpenMM gives up.

    Raises
    ------
    StructureError
        A box narrower than twice the cutoff, or a topology that OpenMM cannot turn into forces.
    """
    name, expected, advice = failure
    shape = topology_box(topology)
    if periodic and shape is not None:
        check_width(shape, options.nonbonded_cutoff)
    if not periodic:
        topology.setPeriodicBoxVectors(None)
    mass = options.hydrogen_mass
    try:
        return make(
            nonbondedMethod=app.PME if periodic else app.NoCutoff,
            nonbondedCutoff=options.nonbonded_cutoff * unit.nanometer,
            constraints=_CONSTRAINTS[options.constraints],
            rigidWater=options.rigid_water,
            hydrogenMass=None if mass is None else mass * unit.dalton,
        )
    except Exception as error:  # the readers raise bare Exception, KeyError, ValueError ...
        raise StructureError(expected, f"{type(error).__name__} in {name}: {error}", advice) from error


def log_entries(decisions: Sequence[str]) -> list[dict[str, Any]]:
    """Decisions as the build log has them."""
    return [Decision("check", "note", text)._asdict() for text in decisions]


def checked(system: openmm.System, positions: np.ndarray, topology: app.Topology, name: str) -> list[str]:
    """Geometry and energy as they are; what was prepared elsewhere is not changed."""
    check_extent(positions, name)
    check_clashes(topology, positions, name)
    return check_energy(system, positions, topology)[1]


def taken_over(
    topology: app.Topology,
    system: openmm.System,
    positions: np.ndarray,
    options: ForceOptions,
    files: Mapping[str, Path],
    decisions: Sequence[str],
    periodic: bool,
) -> BuiltSystem:
    """Check a system that was parametrised elsewhere and write down where it comes from.

    Parameters
    ----------
    topology : Topology
    system : openmm.System
    positions : ndarray, shape (N, 3), nm
    options : ForceOptions
    files : mapping of str to Path
        "source" and "coordinates", and further files of parameters by any other word.
    decisions : sequence of str
        What was decided on the way.
    periodic : bool

    Raises
    ------
    StructureError
        A system that fails the checks.
    """
    source, coordinates = files["source"], files["coordinates"]
    charge, remarks = charge_of(system)
    remarks += checked(system, positions, topology, coordinates.name)
    decisions = [
        *decisions,
        *([] if periodic else ["no box: every pair is computed, without cutoff"]),
        *remarks,
    ]
    for decision in decisions:
        logger.info("%s: %s", source.name, decision)
    provenance: dict[str, object] = {
        "source": source.name,
        "coordinates": coordinates.name,
        "sha256": file_sha256(source),
        **{f"sha256_{word}": file_sha256(path) for word, path in files.items() if word != "source"},
        "forcefield_files": [path.name for word, path in files.items() if word != "coordinates"],
        "options": {
            "nonbonded_cutoff_nm": options.nonbonded_cutoff,
            "nonbonded_method": "PME" if periodic else "NoCutoff",
            "constraints": options.constraints,
            "rigid_water": options.rigid_water,
            "hydrogen_mass_amu": options.hydrogen_mass,
        },
        "net_charge": charge,
        "decisions": decisions,
        "log": log_entries(decisions),
        "versions": package_versions(),
    }
    return BuiltSystem.from_openmm(topology, system, positions, provenance)
