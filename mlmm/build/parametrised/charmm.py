"""CHARMM's psf with its parameter files, parameters and all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from mlmm import units
from mlmm.build.built import BuiltSystem
from mlmm.build.options import ForceOptions
from mlmm.build.parametrised.common import create_system, read_text, same_atoms, taken_over
from mlmm.errors import ConfigError, StructureError
from mlmm.options import Quantity, with_changes

__all__ = ["charmm_topology", "load_charmm"]

_PARAMETERS = (".rtf", ".top", ".par", ".prm", ".str", ".inp")


def load_charmm(
    psf: str | os.PathLike[str],
    coordinates: str | os.PathLike[str],
    parameters: Sequence[str | os.PathLike[str]],
    options: ForceOptions | None = None,
    *,
    box: Sequence[Quantity] = (),
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> BuiltSystem:
    """Take over a system with the parameters of CHARMM files, nothing re-derived.

    With a box PME, without one every pair. Lennard-Jones ends at the cutoff, without CHARMM's switch.

    Parameters
    ----------
    psf : path
        Structure file of CHARMM, NAMD or CHARMM-GUI.
    coordinates : path
        The same atoms in the same order: CHARMM card (``.crd``, ``.cor``), PDB or mmCIF.
    parameters : sequence of path
        All parameter, topology and stream files of the force field (``.prm``, ``.par``, ``.rtf``, ``.str``).
    options : ForceOptions, optional
        Cutoff, constraints, rigid water and mass of hydrogens; see `mlmm.build.options.ForceOptions`.
    box : sequence of str or float
        Three lengths of a rectangular box, nm; by default that of the coordinates (CRYST1), or none.
    progress : callable, optional
        Called with one word at each start of a stage.
    **changes
        Single options by name, such as ``constraints="none"``.

    Raises
    ------
    StructureError
        Files that cannot be read or do not belong together, missing parameters, or a system that fails the
        checks.
    ConfigError
        A setting that cannot be used.
    """
    progress = progress or (lambda stage: None)
    options = with_changes(ForceOptions, options, changes)
    lengths = _lengths(box)
    progress("read")
    psf, coordinates = Path(psf), Path(coordinates)
    positions, vectors = _coordinates(coordinates)
    if lengths is not None:
        vectors = np.diag(lengths)
    reader = _reader(psf)
    same_atoms(len(reader.atom_list), len(positions), psf.name, coordinates.name)
    progress("parametrise")
    files = [Path(name) for name in parameters]
    known = _parameters(files)
    if vectors is not None:
        reader.box_vectors = vectors * unit.nanometer
    failure = (
        psf.name,
        f"parameters for every term of {psf.name} in {', '.join(file.name for file in files)}",
        "add the file that has them to parameters; those of water and ions are in toppar_water_ions.str",
    )
    topology = reader.topology
    system = create_system(
        lambda **settings: reader.createSystem(known, **settings),
        topology,
        options,
        vectors is not None,
        failure,
    )
    progress("check")
    sources = {"source": psf, "coordinates": coordinates}
    sources |= {f"parameters_{place}": file for place, file in enumerate(files, start=1)}
    return taken_over(topology, system, positions, options, sources, [], vectors is not None)


def charmm_topology(psf: str | os.PathLike[str]) -> tuple[app.Topology, np.ndarray]:
    """Topology and charges, e, of a psf, without its forces; elements by mass.

    Raises
    ------
    StructureError
        A file that cannot be read.
    """
    reader = _reader(Path(psf))
    return reader.topology, np.array([float(atom.charge) for atom in reader.atom_list])


def _lengths(box: Sequence[Quantity]) -> list[float] | None:
    if not len(box):
        return None
    lengths = [units.parse(length, "length", "box") for length in box]
    if len(lengths) != 3 or min(lengths) <= 0:
        raise ConfigError(
            "box = three lengths of a rectangular box",
            ", ".join(str(length) for length in box),
            'write box = ["6.2 nm", "6.2 nm", "6.2 nm"]',
        )
    return lengths


def _coordinates(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Coordinates (N, 3) and box vectors (3, 3), nm, or None."""
    read_text(path)
    kinds = {".cif": app.PDBxFile, ".mmcif": app.PDBxFile, ".pdb": app.PDBFile, ".ent": app.PDBFile}
    kind = kinds.get(path.suffix.lower(), app.CharmmCrdFile)
    try:
        if kind is app.CharmmCrdFile:
            read, box = kind(str(path)).positions, None
        else:
            model = kind(str(path))
            read, box = model.positions, model.topology.getPeriodicBoxVectors()
        positions = np.array(read.value_in_unit(unit.nanometer), dtype=float).reshape(-1, 3)
    except Exception as error:  # the readers raise exceptions of many kinds
        raise StructureError(
            "coordinates as CHARMM card (.crd), PDB or mmCIF",
            f"{type(error).__name__} in {path.name}: {error}",
            "write them again as .crd with CHARMM, or as PDB with VMD",
        ) from error
    return positions, None if box is None else np.array(box.value_in_unit(unit.nanometer), dtype=float)


def _reader(path: Path) -> app.CharmmPsfFile:
    read_text(path)
    try:
        return app.CharmmPsfFile(str(path))
    except Exception as error:
        raise StructureError(
            "a psf as CHARMM, NAMD or CHARMM-GUI write it",
            f"{type(error).__name__} in {path.name}: {error}",
            "write it again with psfgen or CHARMM's WRITE PSF CARD",
        ) from error


def _parameters(files: Sequence[Path]) -> app.CharmmParameterSet:
    """All parameters of some files.

    Raises
    ------
    ConfigError
        No file, or one whose ending CHARMM does not use.
    StructureError
        A file that cannot be read.
    """
    strange = [file.name for file in files if file.suffix.lower() not in _PARAMETERS]
    if strange or not files:
        raise ConfigError(
            f"parameters = [CHARMM files ending in {', '.join(_PARAMETERS)}]",
            ", ".join(strange) or "none",
            'write parameters = ["par_all36m_prot.prm", "toppar_water_ions.str"]',
        )
    for file in files:
        read_text(file)
    try:
        return app.CharmmParameterSet(*(str(file) for file in files))
    except Exception as error:
        raise StructureError(
            "CHARMM parameter files that OpenMM can read",
            f"{type(error).__name__}: {error}",
            "give them in the order of the toppar folder: topologies, parameters, streams",
        ) from error
