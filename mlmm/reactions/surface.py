"""A potential energy surface as paths see it: energy and forces of the atoms that move, every call counted.

Behind it stands a hybrid system, a potential, a method of electronic structure, or any function: whatever
gives an `Evaluation` for positions. ASE and sella get it as `ase.Atoms` with a calculator.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import ase
import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from mlmm.errors import ConfigError, SimulationError
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["Evaluation", "Evaluator", "ReactionSurface", "SurfaceCalculator", "force_norm"]

#: kJ/mol/nm in one eV/Å.
FORCE_OF_ASE = ELECTRONVOLT / ANGSTROM


@dataclass(frozen=True)
class Evaluation:
    """Energy and forces at some positions.

    Parameters
    ----------
    energy : float
        kJ/mol.
    forces : ndarray, shape (n, 3), kJ/mol/nm
    memory : ndarray, optional
        Where an environment came to rest, from which the next energy nearby begins.
    """

    energy: float
    forces: np.ndarray
    memory: np.ndarray | None = None


class Evaluator(Protocol):
    """Anything that gives energy and forces."""

    def __call__(self, positions: np.ndarray, memory: np.ndarray | None, /) -> Evaluation:
        """Energy and forces at positions (n, 3) in nm."""
        ...


@dataclass(eq=False)
class ReactionSurface:
    """E(R) of the atoms that move, in kJ/mol and nm.

    Parameters
    ----------
    numbers : ndarray, shape (n,), int
    positions : ndarray, shape (n, 3), nm
        Where a search begins.
    masses : ndarray, shape (n,), amu
    make : callable
        Gives an `Evaluator`; called once for each worker, since few of them may be shared by threads.
    free : bool
        Whether the energy stays when all atoms are shifted and turned: a molecule in a vacuum.
    labels : sequence of str
        Names of the atoms.
    workers : int
        Evaluations at a time, by threads.
    executor : Executor, optional
        Worker processes that evaluate several structures instead, see `mlmm.ensembles.executors`.
    remote : callable, optional
        Gives an `Evaluator` in a worker process, from a run directory; `make` by default.
    whole : callable, optional
        Positions of the whole system from those of the atoms that move and a memory; those alone by default.
    built : BuiltSystem, optional
        The whole system; collective variables find their atoms in it.
    indices : ndarray, optional
        Places of the atoms in it.
    members : callable, optional
        Energies (K,) in kJ/mol of the members of a committee at positions and memory, each up to a constant.
    facts : mapping
        For the record of a run; `calibration`, where there is one, is the factor from spreads to errors.
    dimensions : {2, 3}
        Of space: in 2, the third coordinate stays where it is.

    Attributes
    ----------
    calls : int
        Evaluations so far.
    """

    numbers: np.ndarray
    positions: np.ndarray
    masses: np.ndarray
    make: Callable[[], Evaluator]
    free: bool = True
    labels: Sequence[str] = ()
    workers: int = 1
    executor: Any = None
    remote: Callable[[str], Evaluator] | None = None
    whole: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None = None
    built: Any = None
    indices: np.ndarray | None = None
    members: Callable[[np.ndarray, np.ndarray | None], np.ndarray] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    dimensions: int = 3
    calls: int = 0

    def __post_init__(self) -> None:
        self._local = threading.local()
        self._counting = threading.Lock()
        self._pool = ThreadPoolExecutor(self.workers) if self.workers > 1 else None
        self._there = _Remote(self.make)

    def __len__(self) -> int:
        return len(self.numbers)

    def evaluate(self, positions: np.ndarray, memory: np.ndarray | None = None) -> Evaluation:
        """Energy and forces.

        Raises
        ------
        SimulationError
            Numbers that are not finite.
        """
        if not hasattr(self._local, "evaluator"):
            self._local.evaluator = self.make()
        return self._checked(self._local.evaluator(np.asarray(positions, dtype=np.float64), memory))

    def _checked(self, found: Evaluation) -> Evaluation:
        """Count an evaluation, and look whether it is one."""
        with self._counting:
            self.calls += 1
        if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
            raise SimulationError(
                "a finite energy and forces", "NaN or infinity", "look for atoms on top of each other"
            )
        if self.dimensions == 2:
            flat = found.forces.copy()
            flat[:, 2] = 0.0
            return Evaluation(found.energy, flat, found.memory)
        return found

    def evaluate_many(
        self, positions: Sequence[np.ndarray], memories: Sequence[np.ndarray | None] | None = None
    ) -> list[Evaluation]:
        """Energies and forces of several structures, some at a time, in their order."""
        given = [None] * len(positions) if memories is None else list(memories)
        if self.executor is not None and len(positions) > 1:
            from mlmm.ensembles.executors import run_all

            tasks = [
                (np.asarray(where, dtype=np.float64), memory)
                for where, memory in zip(positions, given, strict=True)
            ]
            return [self._checked(found) for found in run_all(self.executor, self._there, tasks)]
        if self._pool is None:
            return [self.evaluate(*pair) for pair in zip(positions, given, strict=True)]
        return list(self._pool.map(self.evaluate, positions, given))

    def member_energies(self, positions: np.ndarray, memory: np.ndarray | None = None) -> np.ndarray:
        """Energies of the members of a committee (K,), kJ/mol; none for a surface that is not one."""
        return np.zeros(0) if self.members is None else self.members(np.asarray(positions), memory)

    def send_to(self, executor: Any, folder: str) -> None:
        """Have worker processes evaluate several structures; see `mlmm.ensembles.executors`.

        Parameters
        ----------
        executor : Executor
        folder : str
            Run directory, which `remote` gets.
        """
        self.executor = executor
        self._there = _Remote(self.make if self.remote is None else partial(self.remote, folder))

    def atoms(self, positions: np.ndarray | None = None, memory: np.ndarray | None = None) -> ase.Atoms:
        """`ase.Atoms` with a `SurfaceCalculator` of their own."""
        where = self.positions if positions is None else positions
        atoms = ase.Atoms(numbers=self.numbers, positions=np.asarray(where) / ANGSTROM)
        atoms.set_masses(self.masses)
        if self.dimensions == 2:
            from ase.constraints import FixCartesian

            atoms.set_constraint(FixCartesian(list(range(len(self))), (False, False, True)))
        atoms.calc = SurfaceCalculator(self, memory)
        return atoms

    def whole_positions(self, positions: np.ndarray, memory: np.ndarray | None = None) -> np.ndarray:
        """Positions of the whole system, nm."""
        return positions if self.whole is None else self.whole(positions, memory)

    def check_structure(self, numbers: np.ndarray, where: str) -> None:
        """Refuse atoms of another molecule, or in another order (ConfigError)."""
        if len(numbers) != len(self) or (np.asarray(numbers) != self.numbers).any():
            both = len(numbers) == len(self)
            first = int(np.flatnonzero(np.asarray(numbers) != self.numbers)[0]) if both else 0
            raise ConfigError(
                f"the {len(self)} atoms that move, in their order, in {where}",
                f"another element in place {first + 1}" if both else f"{len(numbers)} atoms",
                "write it with the atoms in the order of the first structure",
            )


class _Remote:
    """Evaluates in a worker process, which keeps its evaluator."""

    def __init__(self, make: Callable[[], Evaluator]):
        self._make = make
        self._evaluator: Evaluator | None = None

    def __call__(self, task: tuple[np.ndarray, np.ndarray | None]) -> Evaluation:
        if self._evaluator is None:
            self._evaluator = self._make()
        return self._evaluator(*task)


class SurfaceCalculator(Calculator):
    """The ASE calculator of a surface, in eV and Å.

    Parameters
    ----------
    surface : ReactionSurface
    memory : ndarray, optional
        See `Evaluation`.
    """

    name = "mlmm reaction surface"
    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, surface: ReactionSurface, memory: np.ndarray | None = None):
        super().__init__()
        self.surface, self.memory = surface, memory

    def __deepcopy__(self, seen: dict[int, Any]) -> SurfaceCalculator:
        return SurfaceCalculator(self.surface, self.memory)

    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces; see ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        now: Any = self.atoms
        self._keep(self.surface.evaluate(now.positions * ANGSTROM, self.memory))

    def take(self, atoms: ase.Atoms, found: Evaluation) -> None:
        """Take over what was evaluated elsewhere for these atoms."""
        self.atoms = atoms.copy()
        self._keep(found)

    def _keep(self, found: Evaluation) -> None:
        self.memory = found.memory
        energy = found.energy / ELECTRONVOLT
        forces = found.forces / FORCE_OF_ASE
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


def force_norm(forces: np.ndarray) -> float:
    """Largest force on an atom."""
    return float(np.linalg.norm(forces, axis=1).max())
