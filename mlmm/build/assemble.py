"""The path from a structure file to a solvated, parametrised system, stage by stage."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import openmm
from openmm import app, unit
from openmm.vec3 import Vec3

from mlmm import units
from mlmm.build.built import BuiltSystem, package_versions
from mlmm.build.parametrise import (
    WATER_MODELS,
    check_charge,
    complete_ligands,
    find_ligand_file,
    force_field_files,
    known_residues,
    ligand_residue_names,
    load_force_field,
    retold,
)
from mlmm.build.reading import ResidueKey, StructureText, read_structure
from mlmm.build.repair import repaired_model
from mlmm.build.topology_json import set_topology_box, topology_box
from mlmm.errors import ConfigError, StructureError

logger = logging.getLogger(__name__)

_CONSTRAINTS = {"none": None, "hbonds": app.HBonds}
#: Lattice vectors for images at distance 1; volumes 1, 0.71 and 0.77.
_BOX_SHAPES = {
    "cube": np.eye(3),
    "dodecahedron": np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),
    "octahedron": np.array([[1, 0, 0], [1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]]),
}
_LEAST_CELL = 1.0  # nm; smaller CRYST1 cells (1 angstrom in many NMR entries) are place-holders


def build_system(
    pdb: str | os.PathLike[str],
    *,
    forcefield: str | Sequence[str] = "amber14",
    water: str = "tip3p",
    ligands: Sequence[str | os.PathLike[str]] = (),
    padding: Any = "1.0 nm",
    box_shape: str = "cube",
    ionic_strength: Any = "0.0 M",
    neutralise: bool = True,
    ph: float = 7.0,
    nonbonded_cutoff: Any = "1.0 nm",
    constraints: str = "hbonds",
    rigid_water: bool = True,
    hydrogen_mass: Any = None,
    solvate: bool = True,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> BuiltSystem:
    """Build a solvated MM system from a structure file.

    Same file, options and seed give the same atoms and coordinates: hydrogens are placed and relaxed on
    OpenMM's Reference platform, and the state of Python's ``random`` is put back afterwards.

    Parameters
    ----------
    pdb : path
        PDB or mmCIF file.
    forcefield : str or list of str
        ``"amber14"`` (ff14SB with the water model below), or OpenMM XML files, which then include the water.
    water : str
        ``tip3p``, ``tip3pfb`` or ``spce``.
    ligands : list of paths
        OpenMM XML files for other residues; also looked for in the project's ``forcefields`` folder.
    padding : length
        Least distance from the solute's bounding sphere to the faces of the box: periodic images of the
        solute stay at least twice as far apart. (OpenMM's ``addSolvent(padding=...)`` counts the distance
        between images.)
    box_shape : str
        ``cube``, ``dodecahedron`` (71 % of the volume) or ``octahedron`` (77 %).
    ionic_strength : concentration
        NaCl, besides the ions that neutralise.
    neutralise : bool
        Add ions until the net charge is zero.
    ph : float
        For the protonation of residues whose name and hydrogens leave it open.
    nonbonded_cutoff : length
        Of PME's direct sum; without a box every pair is computed.
    constraints : str
        ``none`` or ``hbonds``.
    rigid_water : bool
        Hold water molecules rigid.
    hydrogen_mass : mass, optional
        Mass that hydrogens get at the cost of the atom they are bonded to.
    solvate : bool
        Without solvent, a box is kept only if the file has one of space group P 1.
    seed : int
        Of the places of ions and the first places of hydrogens.
    progress : callable, optional
        Called with one word (``read``, ``repair``, ``hydrogens``, ``solvent``, ``parametrise``) at each
        start.

    Returns
    -------
    BuiltSystem

    Raises
    ------
    StructureError
        A file or molecule that cannot be built; the message names line, residue or atom, and the next step.
    ConfigError
        A setting, quantity, force-field or ligand file that cannot be used.
    """
    tell = progress or (lambda stage: None)
    cutoff = units.parse(nonbonded_cutoff, "length", "nonbonded_cutoff")
    margin = units.parse(padding, "length", "padding")
    strength = units.parse(ionic_strength, "concentration", "ionic_strength")
    mass = None if hydrogen_mass is None else units.parse(hydrogen_mass, "mass", "hydrogen_mass")
    _check_settings(cutoff, margin, strength, mass, constraints, box_shape, ph, seed, ligands)

    tell("read")
    ligand_files = [find_ligand_file(name) for name in ligands]
    ligand_names = {name for file in ligand_files for name in ligand_residue_names(file)}
    files = force_field_files(forcefield, water)
    force_field = load_force_field([*files, *ligand_files])
    source = read_structure(pdb)

    tell("repair")
    topology, positions, decisions = repaired_model(source, ligand_names, known_residues(force_field), seed)
    decisions = [*source.decisions, *decisions, *_settle_cell(topology, source, solvate)]
    model = app.Modeller(topology, unit.Quantity([Vec3(*row) for row in positions.tolist()], unit.nanometer))
    with _seeded(seed):
        tell("hydrogens")
        decisions += _add_hydrogens(model, force_field, source, ligand_names, ph)
        if solvate:
            tell("solvent")
            _add_solvent(model, force_field, water, margin, box_shape, cutoff, strength, neutralise)

    tell("parametrise")
    box = topology_box(model.topology)
    if box is not None:
        _check_width(box, cutoff)
    with retold(model.topology, "assigning parameters"):
        system = force_field.createSystem(
            model.topology,
            nonbondedMethod=app.NoCutoff if box is None else app.PME,
            nonbondedCutoff=cutoff,
            constraints=_CONSTRAINTS[constraints],
            rigidWater=rigid_water,
            hydrogenMass=mass,
        )
    charge = check_charge(system)
    provenance = {
        "source": source.name,
        "sha256": source.sha256,
        "forcefield_files": files,
        "ligand_files": [file.name for file in ligand_files],
        "seed": seed,
        "options": {
            "water": water,
            "padding_nm": margin,
            "box_shape": box_shape,
            "ionic_strength_molar": strength,
            "neutralise": neutralise,
            "ph": ph,
            "nonbonded_cutoff_nm": cutoff,
            "nonbonded_method": "NoCutoff" if box is None else "PME",
            "constraints": constraints,
            "rigid_water": rigid_water,
            "hydrogen_mass_amu": mass,
            "solvate": solvate,
        },
        "net_charge": round(charge),
        "decisions": decisions,
        "versions": package_versions(),
    }
    coordinates = np.array(model.positions.value_in_unit(unit.nanometer), dtype=float)
    logger.info("%s: %d atoms, net charge %d", source.name, len(coordinates), round(charge))
    return BuiltSystem(model.topology, coordinates, system, provenance)


def _check_settings(
    cutoff: float,
    padding: float,
    strength: float,
    mass: float | None,
    constraints: str,
    box_shape: str,
    ph: float,
    seed: int,
    ligands: Sequence[str | os.PathLike[str]],
) -> None:
    """Values that OpenMM would accept and misuse, or refuse only after minutes."""
    for value, name, example in ((cutoff, "nonbonded_cutoff", "1.0 nm"), (mass, "hydrogen_mass", "1.5 amu")):
        if value is not None and value <= 0:
            raise ConfigError(f"a {name} above zero", f"{value}", f'write {name} = "{example}"')
    for value, name, example in ((padding, "padding", "1.0 nm"), (strength, "ionic_strength", "0.15 M")):
        if value < 0:
            raise ConfigError(f"a {name} of zero or more", f"{value}", f'write {name} = "{example}"')
    for value, name, table in (
        (constraints, "constraints", _CONSTRAINTS),
        (box_shape, "box_shape", _BOX_SHAPES),
    ):
        if value not in table:
            raise ConfigError(
                f"{name} as one of {', '.join(table)}", repr(value), f'write {name} = "{[*table][-1]}"'
            )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError("a seed that is a whole number of zero or more", repr(seed), "write seed = 0")
    if not 0 <= ph <= 14:
        raise ConfigError("a ph between 0 and 14", repr(ph), "write ph = 7.0")
    if isinstance(ligands, (str, os.PathLike)):
        raise ConfigError("a list of ligand files", repr(ligands), f'write ligands = ["{ligands}"]')


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Modeller draws from Python's global generator: seed it, and give the caller's state back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _settle_cell(topology: app.Topology, source: StructureText, solvate: bool) -> list[str]:
    """Decide what the cell in the file means; changes the topology's box.

    A crystal's cell without its symmetry mates is no periodic system, and solvation makes a box of its own.
    """
    box = topology_box(topology)
    if box is None:
        return []
    if solvate:
        set_topology_box(topology, None)
        return []
    if _widths(box).min() < _LEAST_CELL:
        set_topology_box(topology, None)
        return ["the cell in the file is a place-holder and was ignored: no box"]
    if source.space_group.replace(" ", "") not in ("", "P1"):
        set_topology_box(topology, None)
        return [f"crystal symmetry {source.space_group} is not applied, so its cell was ignored: no box"]
    return []


def _add_hydrogens(
    model: app.Modeller, force_field: app.ForceField, source: StructureText, ligand_names: set[str], ph: float
) -> list[str]:
    """Add missing hydrogens with the force field; those in the file stay where they are."""
    ligand_hydrogens, decisions = complete_ligands(model.topology, force_field, ligand_names)
    residues = list(model.topology.residues())
    variants: list[Any] = [ligand_hydrogens.get(residue.index) for residue in residues]
    for index, residue in enumerate(residues):
        key = ResidueKey(residue.chain.id.strip(), residue.id, residue.insertionCode.strip())
        named = source.protonation.get(key)
        if named is not None and residue.name[:2] == named[:2]:
            variants[index] = named
    before = model.topology.getNumAtoms()
    with retold(model.topology, "adding hydrogens"):
        chosen = model.addHydrogens(
            force_field, pH=ph, variants=variants, platform=openmm.Platform.getPlatformByName("Reference")
        )
    decisions.append(f"{model.topology.getNumAtoms() - before} hydrogens added at pH {ph:g}")
    for residue, variant in zip(model.topology.residues(), chosen, strict=True):
        if isinstance(variant, str) and variant != residue.name:
            why = (
                "as named in the file"
                if variants[residue.index]
                else "from its hydrogens, bonds or surroundings"
            )
            decisions.append(f"{residue.name} {residue.id} of chain {residue.chain.id} is {variant}, {why}")
    return decisions


def _add_solvent(
    model: app.Modeller,
    force_field: app.ForceField,
    water: str,
    padding: float,
    box_shape: str,
    cutoff: float,
    strength: float,
    neutralise: bool,
) -> None:
    """Fill a box around the solute with water and ions."""
    radius = _bounding_radius(np.array(model.positions.value_in_unit(unit.nanometer), dtype=float))
    shape = _BOX_SHAPES[box_shape]
    box = 2 * (radius + padding) * shape
    if _widths(box).min() < 2 * cutoff:
        needed = cutoff / _widths(shape).min() - radius
        raise StructureError(
            f"a box at least {2 * cutoff:.3f} nm wide, twice the cutoff",
            f"{_widths(box).min():.3f} nm: padding {padding:g} nm around a solute of radius {radius:.3f} nm",
            f'write padding = "{np.ceil(100 * needed) / 100:.2f} nm" or a smaller nonbonded_cutoff',
        )
    with retold(model.topology, "adding water and ions"):
        model.addSolvent(
            force_field,
            model=WATER_MODELS[water][1],
            boxVectors=unit.Quantity([Vec3(*row) for row in box.tolist()], unit.nanometer),
            ionicStrength=strength * unit.molar,
            neutralize=neutralise,
        )


def _bounding_radius(positions: np.ndarray) -> float:
    """Radius in nm of the smallest sphere around positions (N, 3), to about 0.1 % and never too small.

    Badoiu and Clarkson (2003): step towards the farthest point, by ever less. The sphere around the middle of
    the extents, which OpenMM takes, is 3 % larger for T4 lysozyme and costs 8 % more atoms.
    """
    centre = positions.mean(axis=0)
    smallest = np.inf
    for step in range(1, 1001):
        distances = np.linalg.norm(positions - centre, axis=1)
        farthest = int(distances.argmax())
        smallest = min(smallest, float(distances[farthest]))
        centre = centre + (positions[farthest] - centre) / (step + 1)
    return smallest


def _widths(box: np.ndarray) -> np.ndarray:
    """Distances (3,) between opposite faces of the box, in the units of its vectors (3, 3)."""
    normals = np.cross(box[[1, 2, 0]], box[[2, 0, 1]])
    return abs(np.linalg.det(box)) / np.linalg.norm(normals, axis=1)


def _check_width(box: np.ndarray, cutoff: float) -> None:
    width = _widths(box).min()
    if width < 2 * cutoff * (1 - 1e-9):
        raise StructureError(
            f"a box at least {2 * cutoff:.3f} nm wide, twice the cutoff",
            f"{width:.3f} nm",
            f'write nonbonded_cutoff = "{np.floor(50 * width) / 100:.2f} nm" or use a larger box',
        )
