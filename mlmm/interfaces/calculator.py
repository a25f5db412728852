"""The ASE calculator of a hybrid system: eV, Å; made by `mlmm.interfaces.ase.as_ase`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ase
import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.constraints import FixAtoms, FixBondLengths
from openmm import unit

from mlmm.errors import ConfigError, StructureError
from mlmm.hybrid.spec import built_cell
from mlmm.hybrid.system import HybridSystem
from mlmm.interfaces.surface import Surface, selected_atoms
from mlmm.options import Quantity
from mlmm.units import ANGSTROM, ELECTRONVOLT, parse
from mlmm.zones.region import Region

__all__ = ["HybridCalculator"]

_SAME_CELL = 1e-6  # nm


class HybridCalculator(Calculator):
    """Energy and forces of a hybrid system, and stress where all atoms of a periodic box are free.

    One calculator for one set of atoms at a time: it remembers where a relaxed environment was. For the
    images of a path, take a `copy` for each.

    Parameters
    ----------
    hybrid : HybridSystem
    atoms : "all", "region", selection, Region or sequence of int
    relaxed : bool
        Whether all other atoms go downhill until they are at rest, for every energy.
    positions, box_vectors, tolerance, platform, threads
        See `mlmm.interfaces.ase.as_ase`.
    """

    name = "mlmm"
    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        hybrid: HybridSystem,
        atoms: str | Region | Sequence[int] = "all",
        *,
        relaxed: bool = False,
        positions: np.ndarray | None = None,
        box_vectors: np.ndarray | None = None,
        tolerance: Quantity = "1 kJ/mol/nm",
        platform: str = "",
        threads: int = 0,
    ):
        super().__init__()
        built = hybrid.built
        self.hybrid, self.relaxed = hybrid, relaxed
        self.indices = selected_atoms(hybrid, atoms)
        self._platform, self._threads = platform, threads
        self._tolerance = parse(tolerance, "force", "tolerance")
        real = int((~built.virtual_sites).sum())
        self.everything = len(self.indices) == real
        if relaxed and (self.everything or self._tolerance <= 0.0):
            raise ConfigError(
                'an environment to relax and a positive tolerance for environment = "relaxed"',
                f"all {real} atoms free" if self.everything else f"{tolerance}",
                'choose some atoms, such as atoms = "region"',
            )
        where = np.array(built.positions if positions is None else positions, dtype=np.float64)
        box = built.box_vectors if box_vectors is None else np.array(box_vectors, dtype=np.float64)
        if where.shape != (built.n_atoms, 3) or (box is not None) != built.periodic:
            raise ConfigError(
                f"positions of {built.n_atoms} particles "
                + ("and box vectors of a periodic system" if built.periodic else "and no box"),
                f"positions of shape {where.shape}" + ("" if box is None else f" and the box {box.tolist()}"),
                "give positions of the whole system in nm, as a trajectory or State has them",
            )
        self._surface = Surface(
            hybrid,
            self.indices,
            where,
            box,
            tolerance=self._tolerance if relaxed else 0.0,
            platform=platform,
            threads=threads,
        )
        self._box = box

    @property
    def system_positions(self) -> np.ndarray:
        """Positions (N, 3) of the whole system as last evaluated, its relaxed environment included, nm."""
        return self._surface.positions.copy()

    def evaluate(self, positions: np.ndarray, whole: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (n, 3) in kJ/mol/nm at positions (n, 3) of its atoms in nm.

        Parameters
        ----------
        positions : ndarray, shape (n, 3), nm
        whole : ndarray, shape (N, 3), nm, optional
            Where an environment that relaxes begins; where it was last by default.
        """
        if whole is not None:
            self._surface.positions = np.array(whole)
        return self._surface.energy_and_forces(positions, self._box)

    def copy(self) -> HybridCalculator:
        """Another calculator of the same energy with a memory of its own, from where this one is now."""
        return HybridCalculator(
            self.hybrid,
            self.indices.tolist(),
            relaxed=self.relaxed,
            positions=self._surface.positions,
            box_vectors=self._box,
            tolerance=self._tolerance,
            platform=self._platform,
            threads=self._threads,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> HybridCalculator:
        return self.copy()

    def new_atoms(self, *, whole: bool = False) -> ase.Atoms:
        """Atoms at the positions last evaluated; see `mlmm.interfaces.ase.as_ase`.

        Parameters
        ----------
        whole : bool
            All atoms of the system, without calculator: to look at, or to write.
        """
        built, system = self.hybrid.built, self.hybrid.system
        picked = np.flatnonzero(~built.virtual_sites) if whole else self.indices
        weights = self.hybrid.zones.weights(_tensor(built.positions), built_cell(built)).numpy()[picked]
        masses = np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in picked.tolist()])
        cell = None if self._box is None else self._box / ANGSTROM
        atoms = ase.Atoms(
            numbers=built.numbers[picked],
            positions=self._surface.positions[picked] / ANGSTROM,
            cell=cell,
            pbc=cell is not None,
            tags=np.where(weights == 1.0, 1, np.where(weights > 0.0, 2, 0)),
        )
        # No mass means that the atom stays where it is.
        atoms.set_masses([mass or None for mass in masses.tolist()])
        names = list(built.topology.atoms())
        for array, values in (
            ("system_index", picked),
            ("atomtypes", [names[i].name for i in picked]),
            ("residuenames", [names[i].residue.name for i in picked]),
            ("residuenumbers", [names[i].residue.index + 1 for i in picked]),
        ):
            atoms.set_array(array, np.array(values))
        if whole:
            return atoms
        held: list[Any] = [FixAtoms(mask=masses == 0.0)] if (masses == 0.0).any() else []
        if len(self._surface.pairs):
            pairs = np.searchsorted(self.indices, self._surface.pairs)
            lengths = self._surface.lengths / ANGSTROM
            held.append(FixBondLengths(pairs.tolist(), tolerance=1e-10, bondlengths=lengths))
        atoms.set_constraint(held)
        atoms.calc = self
        return atoms

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces, and stress if it is among the properties; see ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        now: Any = self.atoms
        self._check_atoms(now)
        problem = self._no_stress() if "stress" in properties else None
        if problem:
            raise PropertyNotImplementedError(problem)
        where = now.positions * ANGSTROM
        cell = np.array(now.cell) * ANGSTROM if self.hybrid.built.periodic else None
        energy, forces = self._surface.energy_and_forces(where, cell)
        if self.everything and cell is not None:
            self._box = cell
        self.results = {
            "energy": energy / ELECTRONVOLT,
            "free_energy": energy / ELECTRONVOLT,
            "forces": forces * (ANGSTROM / ELECTRONVOLT),
        }
        if "stress" in properties:
            assert cell is not None
            stress = self._surface.stress(where, cell) * (ANGSTROM**3 / ELECTRONVOLT)
            self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def _check_atoms(self, atoms: Any) -> None:
        """Refuse atoms of another system."""
        built = self.hybrid.built
        expected = built.numbers[self.indices]
        if len(atoms) != len(expected):
            raise StructureError(
                f"the {len(expected)} atoms that this calculator was made for",
                f"{len(atoms)}",
                "use the atoms that as_ase returns, or make a calculator for these",
            )
        wrong = np.flatnonzero(atoms.numbers != expected)
        if len(wrong):
            place = int(wrong[0])
            raise StructureError(
                f"{built.label(int(self.indices[place]))} as atom {place}",
                f"the element {atoms.symbols[place]}",
                "keep the order and the elements of the atoms that as_ase returns",
            )
        if not (atoms.pbc == built.periodic).all():
            raise ConfigError(
                f"pbc = {built.periodic}, as the force field is {'' if built.periodic else 'not '}periodic",
                f"pbc = {atoms.pbc.tolist()}",
                f"type atoms.pbc = {built.periodic}",
            )
        if built.periodic and not self.everything:
            assert self._box is not None
            if np.abs(np.array(atoms.cell) * ANGSTROM - self._box).max() > _SAME_CELL:
                raise ConfigError(
                    "the cell of the environment, which stays",
                    f"{np.array(atoms.cell).round(4).tolist()} Å",
                    'change the cell with atoms = "all" only',
                )

    def _no_stress(self) -> str | None:
        """Why there is no stress."""
        reason = way_out = ""
        fixed_in_space = any(
            type(f).__name__ == "CustomExternalForce" for f in self.hybrid.system.getForces()
        )
        if not self.hybrid.built.periodic:
            reason, way_out = "an open one", "build with solvent in a box"
        elif not self.everything:
            reason, way_out = f"{len(self.indices)} atoms in an environment that stays", 'use atoms = "all"'
        elif len(self._surface.pairs):
            reason = f"{len(self._surface.pairs)} constraints, whose forces no energy contains"
            way_out = 'build with constraints = "none" and rigid_water = false'
        elif fixed_in_space:
            reason, way_out = "a force that acts at fixed places", "leave the restraint out"
        if not reason:
            return None
        return str(ConfigError("a periodic system of free atoms for a stress", reason, way_out))


def _tensor(positions: np.ndarray) -> Any:
    import torch

    return torch.tensor(positions)
