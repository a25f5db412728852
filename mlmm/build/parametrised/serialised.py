"""An OpenMM System written as XML, with the structure that it was made for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build.built import BuiltSystem
from mlmm.build.checks import charge_of
from mlmm.build.foreign_xml import read_serialised
from mlmm.build.parametrised.common import checked, file_sha256, log_entries, read_text
from mlmm.errors import StructureError

__all__ = ["load_openmm", "structure_model"]


def load_openmm(
    system: str | os.PathLike[str],
    structure: str | os.PathLike[str],
    *,
    progress: Callable[[str], None] | None = None,
) -> BuiltSystem:
    """Take over an OpenMM System written as XML, with topology and coordinates from a PDB or mmCIF file.

    Parameters
    ----------
    system : path
        What ``openmm.XmlSerializer.serialize(system)`` gave; its forces and box are taken as they are.
    structure : path
        The same particles in the same order; bonds as OpenMM's reader finds them (standard residues and
        CONECT records).

    Raises
    ------
    StructureError
        Files that cannot be read or do not belong together, or a system that fails the checks.
    """
    progress = progress or (lambda stage: None)
    progress("read")
    system_path, path = Path(system), Path(structure)
    text = read_text(system_path)
    try:
        forces = read_serialised(text, "System", system_path.name)
    except openmm.OpenMMException as error:
        raise StructureError(
            "an OpenMM System as XML",
            f"{system_path.name}: {error}",
            "write it with openmm.XmlSerializer.serialize(system)",
        ) from error
    model = structure_model(path)
    positions = np.array(model.positions.value_in_unit(unit.nanometer), dtype=float)
    facts: dict[str, object] = {
        "source": path.name,
        "sha256": file_sha256(path),
        "sha256_system": file_sha256(system_path),
        "forcefield_files": [system_path.name],
    }
    built = BuiltSystem.from_openmm(model.topology, forces, positions, facts)
    charge, remarks = charge_of(built.system)
    progress("check")
    remarks += checked(built.system, built.positions, built.topology, path.name)
    decisions = [*built.provenance["decisions"], *remarks]  # type: ignore[misc]
    provenance = built.provenance | {
        "net_charge": charge,
        "decisions": decisions,
        "log": log_entries(decisions),
    }
    return BuiltSystem(built.topology, built.positions, built.system, provenance)


def structure_model(structure: str | os.PathLike[str]) -> Any:
    """A PDB or mmCIF file as OpenMM reads it, with topology and positions.

    Raises
    ------
    StructureError
        No such file, or one that OpenMM cannot read.
    """
    path = Path(structure)
    read_text(path)
    reader = app.PDBxFile if path.suffix.lower() in (".cif", ".mmcif", ".pdbx") else app.PDBFile
    try:
        return reader(str(path))
    except Exception as error:  # OpenMM's readers raise exceptions of many kinds
        raise StructureError(
            "a PDB or mmCIF file that OpenMM can read",
            f"{type(error).__name__} in {path.name}: {error}",
            "write it with openmm.app.PDBxFile.writeFile from the topology of the system",
        ) from error
