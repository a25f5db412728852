"""A molecule in a vacuum as a system without force field: its file, its atoms' names, its topology."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build import BuiltSystem
from mlmm.errors import StructureError
from mlmm.units import ANGSTROM

__all__ = ["molecule_system", "read_positions"]


def molecule_system(path: str | Path) -> BuiltSystem:
    """Read a molecule, without parameters: selections and collective variables find its atoms in it.

    Parameters
    ----------
    path : path
        xyz, PDB or mmCIF; the last structure of several. Atoms of an xyz file are called by their element
        and their number among the atoms of that element, C1, C2, H1, in one residue MOL.

    Raises
    ------
    StructureError
        A file that cannot be read, or an atom without element.
    """
    topology, positions = _read(Path(path))
    system = openmm.System()
    for atom in topology.atoms():
        if atom.element is None:
            raise StructureError(
                f"an element for every atom of {path}",
                f"none for {atom.name}",
                "fill in the columns of elements",
            )
        system.addParticle(atom.element.mass)
    return BuiltSystem.from_openmm(topology, system, positions, {"source": str(path)})


def read_positions(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n,) and positions (n, 3) in nm of a structure file; errors as `molecule_system`."""
    topology, positions = _read(Path(path))
    numbers = [0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()]
    return np.array(numbers), positions


def _read(path: Path) -> tuple[app.Topology, np.ndarray]:
    kinds = {".pdb": app.PDBFile, ".cif": app.PDBxFile, ".mmcif": app.PDBxFile}
    try:
        if path.suffix.lower() in kinds:
            found = kinds[path.suffix.lower()](str(path))
            last = found.getNumFrames() - 1
            return found.topology, found.getPositions(asNumpy=True, frame=last).value_in_unit(unit.nanometer)
        return _read_xyz(path)
    except OSError as error:
        raise StructureError(
            f"a structure file {path}", str(error.strerror or error), "correct the path"
        ) from error
    except Exception as error:  # parsers raise many kinds; all of them mean the same to the user
        raise StructureError(
            f"a structure in {path} (xyz, PDB or mmCIF)",
            str(error) or type(error).__name__,
            "look at the file",
        ) from error


def _read_xyz(path: Path) -> tuple[app.Topology, np.ndarray]:
    from ase.io import read

    atoms: Any = read(str(path), index=-1, format="extxyz")
    topology, seen = app.Topology(), Counter[str]()
    residue = topology.addResidue("MOL", topology.addChain())
    for symbol in atoms.get_chemical_symbols():
        seen[symbol] += 1
        topology.addAtom(f"{symbol}{seen[symbol]}", app.Element.getBySymbol(symbol), residue)
    return topology, atoms.positions * ANGSTROM
