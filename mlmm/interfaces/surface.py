"""Energy and forces of a hybrid system as a function of some atoms, the others fixed or relaxed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm
from openmm import unit

from mlmm.collective_variables.openmm_forces import follow_box
from mlmm.dynamics.platforms import platform_arguments
from mlmm.errors import ConfigError, EmbeddingError, SelectionError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.interfaces.cells import WholeMolecules, reduced_box
from mlmm.interfaces.relaxing import FIREIntegrator, relax
from mlmm.zones.region import Region, select_region

__all__ = ["Surface", "constraints_among", "selected_atoms"]

#: Strain of the central differences behind a stress: wide, since the energy of a force field has a small step
#: for every pair that crosses the cutoff, and single precision rounds it. Its error is 1e-6 eV/Å³ in water.
_STRAIN = 1e-3
_HELD = 0.01  # relative deviation of a constrained distance that is no rounding


def selected_atoms(hybrid: HybridSystem, atoms: str | Region | Sequence[int]) -> np.ndarray:
    """Indices of the chosen atoms, sorted, without virtual sites; see `mlmm.interfaces.ase.as_ase`."""
    built = hybrid.built
    if isinstance(atoms, str) and atoms not in ("all", "region"):
        atoms = select_region(built, atoms, complete="atoms")
    if isinstance(atoms, str):
        chosen = np.arange(built.n_atoms) if atoms == "all" else np.array(hybrid.zones.region.atoms)
    else:
        given = atoms.atoms if isinstance(atoms, Region) else atoms
        chosen = np.unique(np.asarray(given, dtype=np.int64))
    if len(chosen) == 0 or chosen[0] < 0 or chosen[-1] >= built.n_atoms:
        raise SelectionError(
            f"atom indices between 0 and {built.n_atoms - 1}",
            "none" if len(chosen) == 0 else f"{chosen[0]} to {chosen[-1]}",
            'choose at least one atom of this system, or write atoms = "region"',
        )
    real = chosen[~built.virtual_sites[chosen]]
    odd = real[built.numbers[real] == 0]
    if len(real) == 0 or len(odd):
        raise SelectionError(
            "atoms with an element",
            f"{built.label(int(odd[0]))}, which has none" if len(odd) else "virtual sites only",
            "choose atoms; virtual sites follow them by themselves",
        )
    return real


def constraints_among(
    system: openmm.System, atoms: np.ndarray, label: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Distances that the force field holds constant between some atoms.

    Returns
    -------
    pairs : ndarray, shape (C, 2), int
    lengths : ndarray, shape (C,), nm
    places : list of int
        Their numbers in the System.

    Raises
    ------
    EmbeddingError
        A constraint between one of the atoms and another.
    """
    inside, found = set(atoms.tolist()), []
    for i in range(system.getNumConstraints()):
        a, b, length = system.getConstraintParameters(i)
        if (a in inside) != (b in inside):
            raise EmbeddingError(
                "constraints between free atoms, or between atoms of the environment",
                f"one of {label[a]}–{label[b]}, of which only one is free",
                "choose the whole molecule, or build without constraints "
                '(constraints = "none", rigid_water = false)',
            )
        if a in inside:
            found.append((a, b, length.value_in_unit(unit.nanometer), i))
    pairs = np.array([row[:2] for row in found], dtype=np.int64).reshape(-1, 2)
    return pairs, np.array([row[2] for row in found]), [row[3] for row in found]


class Surface:
    """E(R) of some atoms of a hybrid system, nm and kJ/mol; all others stay, or follow downhill.

    Parameters
    ----------
    hybrid : HybridSystem
    atoms : ndarray, int
        See `selected_atoms`.
    positions : ndarray, shape (N, 3), nm
        Of the whole system, where the environment starts.
    box_vectors : ndarray, shape (3, 3), nm, optional
    tolerance : float
        Root-mean-square force at which the environment counts as relaxed, kJ/mol/nm; 0: it stays.
    platform : str
    threads : int

    Attributes
    ----------
    positions : ndarray, shape (N, 3), nm
        Of the whole system, as last evaluated.
    """

    def __init__(
        self,
        hybrid: HybridSystem,
        atoms: np.ndarray,
        positions: np.ndarray,
        box_vectors: np.ndarray | None,
        *,
        tolerance: float = 0.0,
        platform: str = "",
        threads: int = 0,
    ):
        built = hybrid.built
        self.atoms, self.positions, self.box_vectors = atoms, np.array(positions), box_vectors
        self.pairs, self.lengths, places = constraints_among(hybrid.system, atoms, built.labels)
        self._tolerance, self._labels, self._sites = tolerance, built.labels, built.virtual_sites
        self._whole = WholeMolecules(built.n_atoms, built.bonds)
        system = hybrid.system
        integrator = openmm.VerletIntegrator(0.001)
        if tolerance:
            integrator = FIREIntegrator()
            system = hybrid.create_system()
            for place in reversed(places):
                system.removeConstraint(place)
            for atom in atoms.tolist():
                system.setParticleMass(atom, 0.0)  # which the minimiser leaves where they are
            if hybrid.blend is None and set(hybrid.zones.active) <= set(atoms.tolist()):
                # The model sees the frozen atoms alone: a constant while the environment moves.
                integrator.setIntegrationForceGroups(~(1 << hybrid.force_groups["ml"]) & 0xFFFFFFFF)
        machine = platform_arguments(platform, threads, system)
        self._context = openmm.Context(system, integrator, *machine)
        self.platform = self._context.getPlatform().getName()
        self._free = np.array([mass != 0.0 for mass in _masses(system)]) & ~self._sites

    def energy_and_forces(
        self, where: np.ndarray, cell: np.ndarray | None = None
    ) -> tuple[float, np.ndarray]:
        """E in kJ/mol and −dE/dR (n, 3) in kJ/mol/nm at positions (n, 3) of the atoms, in a cell (3, 3), nm.

        Raises
        ------
        ConfigError
            A distance that the force field holds constant and that is another here, or a box that is too
            small for its cutoff.
        SimulationError
            Energies that are not finite, or an environment that does not come to rest.
        """
        rotation = self._place(where, cell)
        if self._tolerance:
            relax(self._context, self._free, self._tolerance)
            self.positions = self._now() @ rotation.T
        state = self._state(forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = _forces(state)[self.atoms] @ rotation.T
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise SimulationError(
                "a finite energy and forces", "NaN or infinity", "look for atoms on top of each other"
            )
        return energy, forces

    def stress(self, where: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """σ = (1/V) ∂E/∂ε (3, 3), kJ/mol/nm³: cell and all atoms strained alike, by central differences.

        The virial of single atoms, without kinetic part. Arguments as for `energy_and_forces`; twelve
        energies.
        """
        stress = np.empty((3, 3))
        for i in range(3):
            for j in range(i, 3):
                energies = []
                for sign in (1.0, -1.0):
                    strain = np.eye(3)
                    strain[i, j] += sign * _STRAIN
                    strain[j, i] = strain[i, j]
                    self._place(where @ strain, cell @ strain)
                    state = self._state()
                    energies.append(state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole))
                slope = (energies[0] - energies[1]) / (2.0 * _STRAIN)
                # A shear counts twice: strain ij is strain ji.
                stress[i, j] = stress[j, i] = slope if i == j else slope / 2.0
        return stress / np.linalg.det(cell)

    def _place(self, where: np.ndarray, cell: np.ndarray | None) -> np.ndarray:
        """Positions and box into the Context; returns the rotation into its frame."""
        self._check_held(where, cell)
        positions, rotation = self.positions.copy(), np.eye(3)
        positions[self.atoms] = where
        if cell is not None:
            box, rotation = reduced_box(cell)
            positions = self._whole.join(positions @ rotation, box)
            try:
                self._context.setPeriodicBoxVectors(*box.tolist())
            except openmm.OpenMMException as error:
                raise _too_small(error) from error
            follow_box(self._context)
        self._context.setPositions(positions)
        if self._sites.any():
            self._context.computeVirtualSites()
            positions = self._now()
        self.positions = positions @ rotation.T
        return rotation

    def _check_held(self, where: np.ndarray, cell: np.ndarray | None) -> None:
        if len(self.pairs) == 0:
            return
        index = np.searchsorted(self.atoms, self.pairs)
        vectors = where[index[:, 1]] - where[index[:, 0]]
        if cell is not None:
            fractional = vectors @ np.linalg.inv(cell)
            vectors = (fractional - np.round(fractional)) @ cell
        distances = np.linalg.norm(vectors, axis=1)
        worst = int(np.argmax(np.abs(distances / self.lengths - 1.0)))
        if abs(distances[worst] / self.lengths[worst] - 1.0) > _HELD:
            a, b = self.pairs[worst]
            raise ConfigError(
                f"{self.lengths[worst]:.4f} nm between {self._labels[a]} and {self._labels[b]}, which the "
                "force field holds constant and has no energy for",
                f"{distances[worst]:.4f} nm",
                'build without constraints (constraints = "none", rigid_water = false), or keep the '
                "FixBondLengths of the atoms that as_ase returns",
            )

    def _state(self, forces: bool = False) -> openmm.State:
        try:
            return self._context.getState(energy=True, forces=forces)
        except openmm.OpenMMException as error:
            if "cutoff" in str(error):
                raise _too_small(error) from error
            raise

    def _now(self) -> np.ndarray:
        state = self._context.getState(positions=True)
        return state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def _too_small(error: Exception) -> ConfigError:
    return ConfigError(
        "a cell at least twice as wide as the cutoff of the force field",
        str(error).strip().partition("\n")[0],
        "keep the cell larger, or build with a smaller nonbonded_cutoff",
    )


def _masses(system: openmm.System) -> list[float]:
    return [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(system.getNumParticles())]


def _forces(state: openmm.State) -> np.ndarray:
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    return np.array(forces)
