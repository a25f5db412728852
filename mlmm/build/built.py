"""A parametrised molecular system without machine learning: the hand-over from building to all else."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import os
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build.foreign_xml import read_serialised
from mlmm.build.topology_json import set_topology_box, topology_box, topology_from_dict, topology_to_dict
from mlmm.errors import ConfigError, StructureError
from mlmm.forcefield.term_catalogue import refuse_uncopyable
from mlmm.short_repr import ShortRepr, shortened
from mlmm.whole_files import write_whole
from mlmm.zones.bond_graph import bond_pairs
from mlmm.zones.cut_bonds import atom_labels
from mlmm.zones.region import molecules_of

logger = logging.getLogger(__name__)

_FORMAT = 1
_SYSTEM, _POSITIONS, _INDEX = "system.xml", "positions.npy", "built.json"


@dataclass(frozen=True, eq=False, repr=False)
class BuiltSystem(ShortRepr):
    """Topology, coordinates and pure-MM force field of one system.

    Elements, bonds, virtual sites, molecules and labels are read once. To add bonds or sites, make another
    one with `dataclasses.replace`.

    Parameters
    ----------
    topology : openmm.app.Topology
        Chains, residues, atoms and bonds; its box equals the system's default box, or is None.
    positions : numpy.ndarray (N, 3), float64
        Coordinates in nm; kept as a read-only copy.
    system : openmm.System
        The MM forces, with the box vectors set when periodic.
    provenance : dict
        Where all of it came from, as JSON-able data: file and checksum, force-field files, seed, options,
        versions, and every decision that was taken on the user's behalf, in words.
    ligands : dict
        Residue name -> OpenMM XML of the ligands that were parametrised for this system, so that they can be
        kept; `save` writes them to ``ligands/``.

    Raises
    ------
    StructureError
        Numbers of atoms that disagree, coordinates that are not finite, a box smaller than twice the cutoff,
        or a topology and a system of which only one is periodic. `from_openmm` repairs the last.
    """

    topology: app.Topology
    positions: np.ndarray
    system: openmm.System
    provenance: dict[str, object] = field(default_factory=dict)
    ligands: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positions = np.array(self.positions, dtype=np.float64)
        n_topology, n_system = self.topology.getNumAtoms(), self.system.getNumParticles()
        if positions.ndim != 2 or positions.shape[1:] != (3,) or not len(positions) == n_topology == n_system:
            raise StructureError(
                "one position (x, y, z) and one particle per atom of the topology",
                f"{n_topology} atoms in the topology, {n_system} particles in the system, "
                f"positions of shape {positions.shape}",
                "pass the topology, system and positions of the same molecule (one Modeller gives all three)",
            )
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
        if len(bad):
            raise StructureError(
                "finite coordinates",
                f"{positions[bad[0]].tolist()} for atom {bad[0]} and {len(bad) - 1} more",
                "look for nan or inf in the coordinates, or build the system again",
            )
        if (
            self.topology.getPeriodicBoxVectors() is not None
        ) != self.system.usesPeriodicBoundaryConditions():
            raise StructureError(
                "a topology and a system that are both periodic or both not",
                "only one of the two has periodic boundaries",
                "use BuiltSystem.from_openmm(topology, system, positions), which takes the box of the system",
            )
        _check_box(self.system)
        positions.setflags(write=False)
        object.__setattr__(self, "positions", positions)

    def _summary(self) -> dict[str, str]:
        edges = [] if self.box_vectors is None else np.linalg.norm(self.box_vectors, axis=1).tolist()
        return {
            "atoms": f"{self.n_atoms:,}",
            "residues": f"{self.topology.getNumResidues():,}",
            "box": " × ".join(f"{edge:.2f}" for edge in edges) + " nm" if edges else "none",
            "constraints": f"{self.system.getNumConstraints():,}",
            "source": shortened(str(self.provenance.get("source", ""))),
        }

    @property
    def n_atoms(self) -> int:
        """Number of particles N, extra particles included."""
        return len(self.positions)

    @property
    def periodic(self) -> bool:
        """Whether the MM forces use periodic boundary conditions."""
        return self.system.usesPeriodicBoundaryConditions()

    @property
    def box_vectors(self) -> np.ndarray | None:
        """Box vectors (3, 3) in nm, one per row, or None without periodic boundaries."""
        return _system_box(self.system) if self.periodic else None

    @cached_property
    def numbers(self) -> np.ndarray:
        """Atomic numbers (N,), int64; 0 for a particle without element, which no potential knows."""
        elements = (atom.element for atom in self.topology.atoms())
        return _constant([0 if element is None else element.atomic_number for element in elements], np.int64)

    @cached_property
    def bonds(self) -> np.ndarray:
        """Bonds of the topology as pairs of atoms, (B, 2), int64, in its order."""
        return _constant(bond_pairs(self.topology), np.int64)

    @cached_property
    def virtual_sites(self) -> np.ndarray:
        """Whether each particle is a virtual site, (N,), bool."""
        return _constant([self.system.isVirtualSite(i) for i in range(self.n_atoms)], np.bool_)

    @cached_property
    def molecules(self) -> tuple[tuple[int, ...], ...]:
        """Atoms of each molecule (connected part of the bond graph), by first atom.

        A virtual site without bond belongs to the first atom of its residue.
        """
        return tuple(tuple(members) for members in molecules_of(self.topology))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the atoms such as ALA5:CA, for messages."""
        label = atom_labels(self.topology)
        return tuple(label(i) for i in range(self.n_atoms))

    def label(self, atom: int) -> str:
        """Name of one atom such as ALA5:CA."""
        return self.labels[atom]

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: facts that follow from them are read again."""
        return {own.name: getattr(self, own.name) for own in fields(self)}

    @classmethod
    def from_openmm(
        cls,
        topology: app.Topology,
        system: openmm.System,
        positions: Any,
        provenance: dict[str, object] | None = None,
    ) -> BuiltSystem:
        """Take over a system that was built with plain OpenMM.

        An OpenMM Context starts from the default box of the *system* and never looks at the topology's. The
        same holds here: a box of the topology that differs is replaced, and dropped where no force is
        periodic. All arguments are copied.

        Parameters
        ----------
        topology, system
            Of the same N atoms.
        positions : Quantity, list of Vec3, or array (N, 3)
            Bare numbers are in nm.
        provenance : dict, optional
            JSON-able facts about the origin.

        Raises
        ------
        StructureError
            As for the class itself, or positions that are no (N, 3) table of numbers.
        """
        refuse_uncopyable(system)
        facts: dict[str, object] = {
            "source": "OpenMM objects",
            "versions": package_versions(),
            "decisions": [],
        }
        facts.update(copy.deepcopy(provenance or {}))
        own_topology = topology_from_dict(topology_to_dict(topology))
        before = topology_box(own_topology)
        after = _system_box(system) if system.usesPeriodicBoundaryConditions() else None
        if before is not after if before is None or after is None else not np.array_equal(before, after):
            had = "no box" if before is None else f"the box {before.tolist()} nm"
            has = (
                "no force is periodic"
                if after is None
                else f"the system's default box is {after.tolist()} nm"
            )
            decision = f"the topology had {had}, but {has}: the system's setting is used"
            facts["decisions"] = [*facts.get("decisions", []), decision]  # type: ignore[misc]
            logger.info(decision)
            set_topology_box(own_topology, after)
        return cls(own_topology, _as_nanometers(positions), copy.deepcopy(system), facts)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the system to a folder so that `load` gives it back bit by bit.

        ``system.xml`` is OpenMM's own XML, ``positions.npy`` float64 in nm, and ``built.json`` the topology,
        the provenance and the checksums of the other two. It is written last: a folder without it is not
        finished.

        Raises
        ------
        ConfigError
            The folder cannot be made or written to, or a force cannot be serialised.
        """
        folder = Path(folder)
        try:
            xml = openmm.XmlSerializer.serialize(self.system)
        except openmm.OpenMMException as error:
            raise ConfigError(
                "a system whose forces OpenMM can write as XML",
                str(error),
                "save it before adding such a force",
            ) from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _INDEX).unlink(missing_ok=True)
            write_whole(folder / _SYSTEM, xml)
            array = io.BytesIO()
            np.save(array, self.positions)
            write_whole(folder / _POSITIONS, array.getvalue())
            for name, xml in self.ligands.items():
                (folder / "ligands").mkdir(exist_ok=True)
                write_whole(folder / "ligands" / f"{name}.xml", xml)
            index = {
                "format": _FORMAT,
                "ligands": self.ligands,
                "sha256": {name: _sha256(folder / name) for name in (_SYSTEM, _POSITIONS)},
                "provenance": self.provenance,
                "topology": topology_to_dict(self.topology),
            }
            write_whole(folder / _INDEX, json.dumps(index))
        except (OSError, TypeError) as error:
            raise ConfigError(
                f"a writable folder {str(folder)!r} and JSON-able provenance",
                str(error),
                "choose another folder or value",
            ) from error
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> BuiltSystem:
        """Read what `save` wrote.

        Raises
        ------
        StructureError
            Files that are missing, half-written, changed since, or of another format.
        """
        folder = Path(folder)
        expected = f"a folder written by BuiltSystem.save at {str(folder)!r}"
        again = "build the system again, or give the folder of a finished build"
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            checksums = {name: _sha256(folder / name) for name in (_SYSTEM, _POSITIONS)}
            if index["format"] != _FORMAT:
                raise StructureError(expected, f"format {index['format']} instead of {_FORMAT}", again)
            for name, checksum in checksums.items():
                if index["sha256"][name] != checksum:
                    raise StructureError(
                        expected, f"{name} that is not the file described in {_INDEX}", again
                    )
            system = read_serialised(
                (folder / _SYSTEM).read_text(encoding="utf-8"), "System", str(folder / _SYSTEM)
            )
            positions = np.load(folder / _POSITIONS, allow_pickle=False)
            topology = topology_from_dict(index["topology"])
            return cls(topology, positions, system, index["provenance"], index.get("ligands", {}))
        except FileNotFoundError as error:
            raise StructureError(expected, f"no file {Path(error.filename).name} there", again) from error
        except (OSError, KeyError, IndexError, TypeError, openmm.OpenMMException) as error:
            raise StructureError(expected, f"{type(error).__name__}: {error}", again) from error
        except json.JSONDecodeError as error:
            raise StructureError(expected, f"{_INDEX} that is not JSON ({error})", again) from error


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide what is built."""
    versions = {}
    for name in ("mlmm", "openmm", "pdbfixer", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def _constant(values: Any, kind: type) -> np.ndarray:
    """A read-only array of its own."""
    array: np.ndarray = np.array(values, dtype=kind)
    array.setflags(write=False)
    return array


def _system_box(system: openmm.System) -> np.ndarray:
    return np.array(
        [row.value_in_unit(unit.nanometer) for row in system.getDefaultPeriodicBoxVectors()], dtype=float
    )


def _check_box(system: openmm.System) -> None:
    """Refuse a box in which a pair within the cutoff could meet twice: OpenMM makes no Context of it."""
    if not system.usesPeriodicBoundaryConditions():
        return
    width = float(np.diag(_system_box(system)).min())
    for force in system.getForces():
        if hasattr(force, "getCutoffDistance") and force.usesPeriodicBoundaryConditions():
            cutoff = force.getCutoffDistance().value_in_unit(unit.nanometer)
            if width < 2 * cutoff:
                raise StructureError(
                    f"a box at least {2 * cutoff:.3g} nm wide, twice the cutoff of {force.getName()}",
                    f"{width:.3g} nm",
                    "build a larger box (more padding), or set a shorter nonbonded_cutoff",
                )


def _as_nanometers(positions: Any) -> np.ndarray:
    """Coordinates in nm from a Quantity, a list of Quantity or Vec3, or an array."""
    try:
        if not unit.is_quantity(positions) and len(positions) and unit.is_quantity(positions[0]):
            positions = [row.value_in_unit(unit.nanometer) for row in positions]
        if unit.is_quantity(positions):
            positions = positions.value_in_unit(unit.nanometer)
        return np.array(positions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StructureError(
            "positions as an array (N, 3) in nm or as a Quantity of length",
            f"{type(positions).__name__} ({error})",
            "pass for example simulation.context.getState(positions=True).getPositions()",
        ) from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
