"""From variables and restraints as they are written to those of one system."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from openmm import app

from mlmm.build import BuiltSystem
from mlmm.collective_variables.checks import check_groups, check_start, check_start_energy
from mlmm.collective_variables.definitions import Biases, BoundRestraint, BoundVariable
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.collective_variables.rules import is_empty
from mlmm.collective_variables.values import squared_deviations
from mlmm.elements import element_names
from mlmm.errors import ConfigError, SelectionError
from mlmm.zones.region import select_atoms

__all__ = ["bind", "bind_variable"]

_CUTOFF = 3.0  # of a coordination number, in contact distances
_OVERLAP = 2.3  # -ln 0.1: the weight of an image at the place of its neighbour


def bind(built: BuiltSystem, restraints: Sequence[Restraint], variables: Sequence[Variable] = ()) -> Biases:
    """Find the atoms of variables and restraints, and refuse what is not defined.

    Parameters
    ----------
    built : BuiltSystem
    restraints : sequence of Restraint
        On one of `variables` by name, or with a variable of their own.
    variables : sequence of Variable
        Further ones that a run follows, without restraint.

    Raises
    ------
    ConfigError
        Two variables of one name, a restraint on an unknown one, a quantity of another dimension, files of
        another number of atoms, or a variable that is not defined in the built structure.
    SelectionError
        A selection that is not understood or matches nothing, or indices of no atoms.
    """
    written = {variable.name: variable for variable in variables}
    if len(written) < len(variables):
        raise ConfigError("variables with names of their own", "two of one name", "rename one of them")
    for restraint in restraints:
        own = restraint.variable
        if isinstance(own, Variable) and written.setdefault(own.name, own) is not own:
            raise ConfigError(
                "variables with names of their own", f"two that are called {own.name}", "rename one of them"
            )
        if restraint.name not in written:
            raise ConfigError(
                "a restraint on a variable that is defined",
                f"one on {restraint.name!r}",
                f"choose {', '.join(written)}" if written else f"define [variable.{restraint.name}]",
            )
    bound = {name: bind_variable(built, variable) for name, variable in written.items()}
    found: list[BoundRestraint] = []
    names = set(bound)
    for restraint in restraints:
        numbers = restraint.numbers(written[restraint.name])
        name, k = restraint.name, 2
        while any(other.name == name for other in found) or (name != restraint.name and name in names):
            name, k = f"{restraint.name}_{k}", k + 1
        stages = tuple(restraint.stages)
        found.append(BoundRestraint(name, bound[restraint.name], restraint.shape, *numbers, stages))
    check_start_energy(found, built)
    return Biases(tuple(bound.values()), tuple(found))


def bind_variable(built: BuiltSystem, variable: Variable) -> BoundVariable:
    """Find the atoms of a variable; parameters and errors as for `bind`."""
    groups = tuple(_atoms(built, group, variable.name) for group in variable.groups)
    edge = 0.0 if built.box_vectors is None else float(np.linalg.det(built.box_vectors)) ** (1 / 3)
    facts: dict[str, Any] = {}
    if variable.kind == "sum":
        facts["coefficients"] = tuple(map(float, variable.coefficients or [1.0] * (len(groups) // 2)))
    if variable.kind == "coordination":
        contact = variable.contact_distance
        facts = {"contact_distance": contact, "exponent": variable.exponent}
        facts["cutoff"] = variable.cutoff or _CUTOFF * contact
    if variable.kind in ("rmsd", "position"):
        facts["references"] = _coordinates(variable.reference, groups[0], built, variable.name)[:1]
    if variable.kind.startswith("path"):
        facts["references"] = _coordinates(variable.images, groups[0], built, variable.name)
        facts["sharpness"] = variable.sharpness or _sharpness(facts["references"], variable.name)
    weights = tuple(_weights(built, group) for group in groups)
    bound = BoundVariable(
        variable.name,
        variable.kind,
        variable.dimension,
        groups,
        weights,
        built.n_atoms,
        edge=edge,
        **facts,
    )
    check_groups(bound, built)
    check_start(bound, built)
    return bound


def _atoms(built: BuiltSystem, group: Any, name: str) -> tuple[int, ...]:
    if isinstance(group, str):
        return tuple(select_atoms(built, group))
    try:
        atoms = [int(atom) for atom in ([group] if isinstance(group, int) else group)]
    except (TypeError, ValueError) as error:
        raise SelectionError(
            f"groups of variable {name} as selections or lists of indices", repr(group), "write [5, 6]"
        ) from error
    if not atoms or min(atoms) < 0 or max(atoms) >= built.n_atoms or len(set(atoms)) < len(atoms):
        raise SelectionError(
            f"different atom indices between 0 and {built.n_atoms - 1} in variable {name}",
            f"{atoms[:4]}",
            "correct the group",
        )
    return tuple(atoms)


def _weights(built: BuiltSystem, atoms: Sequence[int]) -> np.ndarray:
    """Masses of the elements over their sum: heavier hydrogens leave a variable as it is."""
    elements = list(built.topology.atoms())
    sites = built.virtual_sites
    masses = []
    for atom in atoms:
        element = elements[atom].element
        own = built.system.getParticleMass(atom) if element is None else element.mass
        masses.append(0.0 if sites[atom] else own._value)
    total = sum(masses)
    return np.array(masses) / total if total else np.zeros(len(masses))


def _coordinates(source: Any, atoms: Sequence[int], built: BuiltSystem, name: str) -> np.ndarray:
    """Places of the atoms of a group, (K, n, 3) in nm, from a file, an array or the built structure."""
    if is_empty(source):
        return np.array(built.positions)[None, list(atoms)]
    found, elements = _read(source, name) if isinstance(source, str) else (source, None)
    found = np.array(found, dtype=np.float64)
    found = found[None] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[2] != 3 or found.shape[1] not in (len(atoms), built.n_atoms):
        raise ConfigError(
            f"coordinates of the {len(atoms)} selected or of all {built.n_atoms} atoms for variable {name}",
            f"{len(elements)} in {source}" if elements else f"an array of shape {found.shape}",
            "give a structure of these atoms",
        )
    if not np.isfinite(found).all():
        raise ConfigError(f"finite coordinates for variable {name}", "NaN or infinity", "correct them")
    if found.shape[1] != len(atoms):
        found, elements = found[:, list(atoms)], elements and [elements[atom] for atom in atoms]
    for atom, number in zip(atoms, elements or (), strict=False):
        if number not in (0, built.numbers[atom]):
            raise ConfigError(
                f"the atoms of variable {name} in the order of the system in {source}",
                f"{element_names([number])} in the place of {built.label(atom)}",
                "write it from a structure that mlmm built",
            )
    return found


def _read(path: str, name: str) -> tuple[np.ndarray, list[int]]:
    """Coordinates (K, n, 3) in nm of every model of a PDB or mmCIF file, and atomic numbers, 0 if unknown."""
    kind = app.PDBxFile if path.lower().endswith((".cif", ".mmcif")) else app.PDBFile
    try:
        with open(path, encoding="utf-8") as file:
            found = kind(file)
        frames = [found.getPositions(asNumpy=True, frame=k)._value for k in range(found.getNumFrames())]
        elements = [atom.element.atomic_number if atom.element else 0 for atom in found.topology.atoms()]
        return np.array(frames), elements
    except OSError as error:
        raise ConfigError(
            f"a structure file for variable {name}", f"{path}: {error.strerror}", "correct its path"
        ) from error
    except Exception as error:  # OpenMM's readers raise many kinds; all of them mean the same to the user
        raise ConfigError(
            f"a structure file for variable {name} in PDB or mmCIF", f"{path}: {error}", "write it as PDB"
        ) from error


def _sharpness(images: np.ndarray, name: str) -> float:
    """Of a path: an image has a tenth of its weight at the place of its neighbour, on average."""
    if len(images) < 2:
        raise ConfigError(
            f"two images or more for variable {name}", f"{len(images)}", "add models to the file"
        )
    between = [
        float(squared_deviations(torch.tensor(one), torch.tensor(other)[None])[0])
        for one, other in itertools.pairwise(images)
    ]
    if min(between) < 1e-12:
        raise ConfigError(
            f"images of variable {name} that differ from one to the next",
            f"image {between.index(min(between)) + 2}, which is the one before",
            "leave it out",
        )
    return _OVERLAP / float(np.mean(between))
