"""Amber's prmtop and inpcrd, parameters and all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm import units
from mlmm.build.built import BuiltSystem
from mlmm.build.options import ForceOptions
from mlmm.build.parametrised.common import create_system, read_text, same_atoms, taken_over
from mlmm.build.surroundings.walls import spherical_wall
from mlmm.errors import StructureError
from mlmm.options import with_changes

__all__ = ["amber_topology", "load_amber"]

_FLAG = re.compile(r"^%FLAG +(\S+)", re.MULTILINE)
_IFCAP = 29  # place in POINTERS


def load_amber(
    prmtop: str | os.PathLike[str],
    inpcrd: str | os.PathLike[str],
    options: ForceOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> BuiltSystem:
    """Take over a system with the parameters of an Amber topology, nothing re-derived.

    With a box (IFBOX in the topology) PME, without one every pair. A cap of water (IFCAP) becomes a
    half-harmonic wall on its oxygens with sander's default force constant.

    Parameters
    ----------
    prmtop : path
        Amber topology (``.prmtop``, ``.parm7``).
    inpcrd : path
        Coordinates or restart (``.inpcrd``, ``.rst7``), formatted or NetCDF; its box, if any, is taken.
    options : ForceOptions, optional
        Cutoff, constraints, rigid water and mass of hydrogens; see `mlmm.build.options.ForceOptions`.
    progress : callable, optional
        Called with one word at each start of a stage.
    **changes
        Single options by name, such as ``constraints="none"``.

    Raises
    ------
    StructureError
        Files that cannot be read or do not belong together, or a system that fails the checks.
    ConfigError
        A setting that cannot be used.
    """
    progress = progress or (lambda stage: None)
    options = with_changes(ForceOptions, options, changes)
    progress("read")
    prmtop, inpcrd = Path(prmtop), Path(inpcrd)
    text, cap = _without_cap(read_text(prmtop), prmtop.name)
    positions, box = _coordinates(inpcrd)
    progress("parametrise")
    parm = _parm(text, prmtop.name, box)
    same_atoms(parm.topology.getNumAtoms(), len(positions), prmtop.name, inpcrd.name)
    periodic = bool(parm._prmtop.getIfBox())
    decisions = []
    if box is not None and not periodic:
        decisions.append(f"the box in {inpcrd.name} was ignored: {prmtop.name} has none (IFBOX 0)")
    failure = (
        prmtop.name,
        "an Amber topology that OpenMM can turn into forces",
        "write it again with tleap or ParmEd, without perturbation, polarisation or 10-12 terms",
    )
    system = create_system(parm.createSystem, parm.topology, options, periodic, failure)
    if cap is not None:
        decisions.append(_add_cap(system, parm.topology, *cap))
    progress("check")
    files = {"source": prmtop, "coordinates": inpcrd}
    return taken_over(parm.topology, system, positions, options, files, decisions, periodic)


def amber_topology(prmtop: str | os.PathLike[str]) -> tuple[app.Topology, np.ndarray]:
    """Topology and charges, e, of an Amber topology, without its forces.

    Raises
    ------
    StructureError
        A file that cannot be read.
    """
    path = Path(prmtop)
    text, _ = _without_cap(read_text(path), path.name)
    parm = _parm(text, path.name, None)
    return parm.topology, np.array(parm._prmtop.getCharges(), dtype=float)


def _sections(text: str) -> dict[str, tuple[int, int]]:
    """Where each %FLAG section stands in the text."""
    starts = [(match[1], match.start()) for match in _FLAG.finditer(text)]
    ends = [start for _, start in starts[1:]] + [len(text)] * bool(starts)
    return {name: (start, end) for (name, start), end in zip(starts, ends, strict=True)}


def _numbers(text: str, section: tuple[int, int]) -> list[str]:
    """Entries of a section of numbers, whose lines are %FLAG, perhaps %COMMENT, %FORMAT and then numbers."""
    lines = [line for line in text[slice(*section)].splitlines() if not line.startswith("%")]
    return " ".join(lines).split()


def _without_cap(text: str, name: str) -> tuple[str, tuple[int, list[float]] | None]:
    """The text without its cap of water, which OpenMM does not read; last atom before it, radius and centre.

    Raises
    ------
    StructureError
        No topology, or a cap of another kind than a sphere of water.
    """
    sections = _sections(text)
    if "POINTERS" not in sections:
        raise StructureError(
            "an Amber topology with %FLAG sections",
            f"{name}, which has no %FLAG POINTERS",
            "give a .prmtop or .parm7 file; old ones are brought up to date by ParmEd",
        )
    start, end = sections["POINTERS"]
    pointers = _numbers(text, (start, end))
    kind = int(pointers[_IFCAP]) if len(pointers) > _IFCAP else 0
    if kind == 0:
        return text, None
    if kind != 1 or not {"CAP_INFO", "CAP_INFO2"} <= set(sections):
        raise StructureError(
            "no cap of water, or a spherical one (IFCAP 0 or 1)",
            f"IFCAP {kind} in {name}",
            'build the system again with tleap\'s solvateCap, or from its PDB file with solvent = "droplet"',
        )
    last = int(_numbers(text, sections["CAP_INFO"])[0])
    sphere = [float(value) * units.ANGSTROM for value in _numbers(text, sections["CAP_INFO2"])[:4]]
    header = [line for line in text[start:end].splitlines() if line.startswith("%")]
    pointers[_IFCAP] = "0"
    rows = [
        "".join(f"{int(value):8d}" for value in pointers[i : i + 10]) for i in range(0, len(pointers), 10)
    ]
    pieces = []
    for flag, (first, stop) in sections.items():
        if flag == "POINTERS":
            pieces.append("\n".join([*header[:1], "%FORMAT(10I8)", *rows, ""]))
        elif flag not in ("CAP_INFO", "CAP_INFO2"):
            pieces.append(text[first:stop])
    return text[: min(first for first, _ in sections.values())] + "".join(pieces), (last, sphere)


def _add_cap(system: openmm.System, topology: app.Topology, last: int, sphere: list[float]) -> str:
    radius, *centre = sphere
    oxygens = [
        atom.index
        for atom in topology.atoms()
        if atom.index >= last and atom.residue.name == "HOH" and atom.element == app.element.oxygen
    ]
    system.addForce(spherical_wall(oxygens, centre, radius))
    return (
        f"cap of water: half-harmonic wall at {radius:.3f} nm on {len(oxygens)} oxygens, "
        "with sander's default force constant of 1.5 kcal/mol/Å²"
    )


def _coordinates(path: Path) -> tuple[np.ndarray, Any]:
    """Coordinates (N, 3) in nm and box vectors or None."""
    read_text(path)
    try:
        restart = app.AmberInpcrdFile(str(path))
        positions = np.array(restart.positions.value_in_unit(unit.nanometer), dtype=float).reshape(-1, 3)
    except Exception as error:  # the reader raises TypeError, ImportError and others
        raise StructureError(
            "Amber coordinates (.inpcrd, .rst7 or NetCDF)",
            f"{type(error).__name__} in {path.name}: {error}",
            "write them again with cpptraj or ParmEd",
        ) from error
    return positions, restart.boxVectors


def _parm(text: str, name: str, box: Any) -> app.AmberPrmtopFile:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "system.prmtop"
        path.write_text(text, encoding="utf-8")
        try:
            return app.AmberPrmtopFile(str(path), periodicBoxVectors=box)
        except Exception as error:
            raise StructureError(
                "an Amber topology that OpenMM can read",
                f"{type(error).__name__} in {name}: {error}",
                "write it again with tleap or ParmEd",
            ) from error
