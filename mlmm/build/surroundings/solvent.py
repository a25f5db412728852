"""Solvation: boxes of water and ions around a solute, and their least width."""

from __future__ import annotations

import numpy as np
from openmm import app, unit
from openmm.vec3 import Vec3

from mlmm.build.families import water_box
from mlmm.build.parametrise import chosen_templates, retold
from mlmm.errors import StructureError

#: Lattice vectors for images at distance 1; volumes 1, 0.71 and 0.77.
BOX_SHAPES = {
    "cube": np.eye(3),
    "dodecahedron": np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, np.sqrt(0.5)]]),
    "octahedron": np.array([[1, 0, 0], [1 / 3, np.sqrt(8) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]]),
}


def add_solvent(
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
    radius = bounding_radius(np.array(model.positions.value_in_unit(unit.nanometer), dtype=float))
    shape = BOX_SHAPES[box_shape]
    box = 2 * (radius + padding) * shape
    if widths(box).min() < 2 * cutoff * (1 - 1e-9):
        needed = cutoff / widths(shape).min() - radius
        raise StructureError(
            f"a box at least {2 * cutoff:.3f} nm wide, twice the cutoff",
            f"{widths(box).min():.3f} nm: padding {padding:g} nm around a solute of radius {radius:.3f} nm",
            f'write padding = "{np.ceil(100 * needed) / 100:.2f} nm" or a smaller nonbonded_cutoff',
        )
    with retold(model.topology, "adding water and ions"):
        model.addSolvent(
            force_field,
            model=water_box(force_field, water),
            boxVectors=unit.Quantity([Vec3(*row) for row in box.tolist()], unit.nanometer),
            ionicStrength=strength * unit.molar,
            neutralize=neutralise,
            residueTemplates=chosen_templates(model.topology, force_field),
        )


def bounding_radius(positions: np.ndarray) -> float:
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


def widths(box: np.ndarray) -> np.ndarray:
    """Distances (3,) between opposite faces of the box, in the units of its vectors (3, 3)."""
    normals = np.cross(box[[1, 2, 0]], box[[2, 0, 1]])
    return abs(np.linalg.det(box)) / np.linalg.norm(normals, axis=1)


def check_width(box: np.ndarray, cutoff: float) -> None:
    width = widths(box).min()
    if width < 2 * cutoff * (1 - 1e-9):
        raise StructureError(
            f"a box at least {2 * cutoff:.3f} nm wide, twice the cutoff",
            f"{width:.3f} nm",
            f'write nonbonded_cutoff = "{np.floor(50 * width) / 100:.2f} nm" or use a larger box',
        )
