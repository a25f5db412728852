"""Collective variables and restraints of one system: atoms instead of selections, numbers instead of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlmm import units
from mlmm.collective_variables.rules import force_dimension

__all__ = ["BOX_EDGE", "SWITCHING_START", "Biases", "BoundRestraint", "BoundVariable", "merged"]

#: Global parameter of OpenMM: cube root of the volume of the box, nm. References of positions follow it.
BOX_EDGE = "box_edge"
#: Where the switching function of a coordination number begins, in units of the cutoff, where it ends.
SWITCHING_START = 0.9


@dataclass(frozen=True, eq=False)
class BoundVariable:
    """A collective variable of one system; `mlmm.collective_variables.options.Variable` has the formulas.

    Parameters
    ----------
    name, kind, dimension : str
    groups : tuple of tuple of int
        Atoms.
    weights : tuple of ndarray
        One for each group, adding up to 1: masses of the elements over their sum.
    n_particles : int
        Of the system.
    coefficients : tuple of float
        One for each distance of a sum.
    contact_distance, cutoff : float
        nm.
    exponent : int
    references : ndarray, shape (K, n, 3), nm
        Of the atoms of the group: one reference, or the images of a path.
    sharpness : float
        1/nm^2.
    edge : float
        Cube root of the volume of the box in the built structure, nm; 0 without a box.
    """

    name: str
    kind: str
    dimension: str
    groups: tuple[tuple[int, ...], ...]
    weights: tuple[np.ndarray, ...]
    n_particles: int
    coefficients: tuple[float, ...] = ()
    contact_distance: float = 0.0
    cutoff: float = 0.0
    exponent: int = 0
    references: np.ndarray = field(default_factory=lambda: np.empty(0))
    sharpness: float = 0.0
    edge: float = 0.0

    @property
    def atoms(self) -> tuple[int, ...]:
        """All atoms that it depends on, sorted."""
        return tuple(sorted({atom for group in self.groups for atom in group}))

    @property
    def periodic(self) -> bool:
        """Whether distances are those of nearest periodic images."""
        return self.edge > 0

    @property
    def superposed(self) -> bool:
        """Whether its atoms are superposed on references, so that they have to be whole, not wrapped."""
        return self.kind in ("rmsd", "path_s", "path_z")

    @property
    def unit(self) -> str:
        """Unit of its values; empty for a number."""
        return "" if self.dimension == "number" else units.internal_unit(self.dimension)

    def facts(self) -> dict[str, Any]:
        """All that decides its value, as plain values for a record."""
        found: dict[str, Any] = {"kind": self.kind, "groups": [list(group) for group in self.groups]}
        found["weights"] = [weights.tolist() for weights in self.weights]
        for key in ("coefficients", "contact_distance", "cutoff", "exponent", "sharpness"):
            if getattr(self, key):
                found[key] = getattr(self, key)
        if self.references.size:
            found["references"] = self.references.tolist()
        return found


@dataclass(frozen=True, eq=False)
class BoundRestraint:
    """A restraint in one system; `mlmm.collective_variables.options.Restraint` has the formulas.

    Parameters
    ----------
    name : str
        Of the variable, with a number behind it if that has several restraints. ``<name>_at``,
        ``<name>_force_constant`` and ``<name>_width`` are its global parameters in a Context of OpenMM.
    variable : BoundVariable
    shape : str
    at, force_constant, width : float
        Internal units.
    stages : tuple of str
        Those in which it acts; empty for all.
    """

    name: str
    variable: BoundVariable
    shape: str
    at: float
    force_constant: float
    width: float = 0.0
    stages: tuple[str, ...] = ()

    def parameters(self, stage: str | None = None) -> dict[str, float]:
        """Global parameters and their values, those of one stage if it is named: k is 0 where it is off."""
        found = {f"{self.name}_force_constant": self.force_constant if self.acts_in(stage) else 0.0}
        if self.variable.kind != "position":
            found[f"{self.name}_at"] = self.at
        if self.shape == "flat_bottom":
            found[f"{self.name}_width"] = self.width
        return found

    def acts_in(self, stage: str | None) -> bool:
        """Whether it acts in a stage; None stands for any."""
        return stage is None or not self.stages or stage in self.stages

    def facts(self) -> dict[str, Any]:
        """The restraint as a record of a run states it, with units."""
        dimension = self.variable.dimension
        known = units.internal_unit(force_dimension(dimension))
        found: dict[str, Any] = {
            "name": self.name,
            "variable": self.variable.name,
            "kind": self.variable.kind,
            "shape": self.shape,
            "at": None if self.variable.kind == "position" else self.at,
            "unit": self.variable.unit,
            "force_constant": self.force_constant,
            "force_constant_unit": known,
            "stages": list(self.stages),
        }
        return found | ({"width": self.width} if self.shape == "flat_bottom" else {})

    def describe(self) -> str:
        """The restraint in a line of text."""
        facts = self.facts()
        at = "" if facts["at"] is None else f" at {self._shown(self.at)}"
        width = f", flat within {self._shown(self.width)}" if self.shape == "flat_bottom" else ""
        stages = f", in {', '.join(self.stages)}" if self.stages else ""
        words = self.shape.replace("_", " ")
        constant = f"{self.force_constant:g} {facts['force_constant_unit']}"
        return f"{self.variable.name} ({self.variable.kind}): {words}{at}{width}, {constant}{stages}"

    def _shown(self, number: float) -> str:
        if self.variable.dimension == "angle":
            return f"{math.degrees(number):g}°"
        return f"{number:g} {self.variable.unit}".rstrip()


@dataclass(frozen=True, eq=False)
class Biases:
    """Variables that a run follows, and the restraints on some of them.

    Parameters
    ----------
    variables : tuple of BoundVariable
        Those of the restraints among them.
    restraints : tuple of BoundRestraint
    """

    variables: tuple[BoundVariable, ...] = ()
    restraints: tuple[BoundRestraint, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.variables)

    def __iter__(self) -> Iterator[BoundRestraint]:
        return iter(self.restraints)

    @property
    def atoms(self) -> tuple[int, ...]:
        """All atoms on which a restraint acts, sorted."""
        return tuple(sorted({atom for restraint in self.restraints for atom in restraint.variable.atoms}))

    @property
    def whole(self) -> list[tuple[int, ...]]:
        """Groups whose atoms have to lie in one periodic image, since their centre or shape is looked at."""
        return [
            group for v in self.variables for group in v.groups if v.kind not in ("coordination", "position")
        ]

    def parameters(self, stage: str | None = None) -> dict[str, float]:
        """Global parameters of all restraints, see `BoundRestraint.parameters`."""
        return {name: value for r in self.restraints for name, value in r.parameters(stage).items()}

    def settings(self) -> dict[str, Any]:
        """All that decides values and energies by name, such as ``restraint.d.at``."""
        found = {
            f"variable.{v.name}.{key}": value for v in self.variables for key, value in v.facts().items()
        }
        left_out = ("name", "variable", "kind", "unit", "force_constant_unit")
        for restraint in self.restraints:
            for key, value in restraint.facts().items():
                if key not in left_out:
                    found[f"restraint.{restraint.name}.{key}"] = value
        return found


def merged(sets: Sequence[Sequence[int]], joined: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Unite disjoint sets of atoms, such as molecules, that others have atoms in common with."""
    owner: Mapping[int, int] = {atom: k for k, atoms in enumerate(sets) for atom in atoms}
    root = list(range(len(sets)))

    def find(k: int) -> int:
        while root[k] != k:
            root[k] = root[root[k]]
            k = root[k]
        return k

    for atoms in joined:
        for atom in atoms:
            root[find(owner[atom])] = find(owner[atoms[0]])
    found: dict[int, list[int]] = {}
    for k, atoms in enumerate(sets):
        found.setdefault(find(k), []).extend(atoms)
    return [tuple(atoms) for atoms in found.values()]
