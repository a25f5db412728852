"""Surfaces of a hybrid system, of a potential alone and of a method of electronic structure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlmm.build import BuiltSystem
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.options import SurfaceOptions
from mlmm.reactions.surface import Evaluation, Evaluator, ReactionSurface
from mlmm.reference.labels import Molecule
from mlmm.reference.method import ReferenceMethod
from mlmm.reference.methods import written_method

__all__ = ["hybrid_surface", "method_surface", "potential_surface"]

#: Particles up to which the Reference platform is taken by itself.
_SMALL = 2000


def hybrid_surface(
    hybrid: HybridSystem,
    options: SurfaceOptions | None = None,
    *,
    positions: np.ndarray | None = None,
    box_vectors: np.ndarray | None = None,
    platform: str = "",
    threads: int = 0,
) -> ReactionSurface:
    """Surface of some atoms of a hybrid system in their environment, by `mlmm.as_ase`.

    Parameters
    ----------
    hybrid : HybridSystem
    options : SurfaceOptions, optional
        `atoms`, `environment` and its tolerance, `precision` and `workers` are used.
    positions : ndarray, shape (N, 3), nm, optional
        Of the whole system, where the environment is; those of the built system by default.
    box_vectors : ndarray, shape (3, 3), nm, optional
    platform, threads
        Of single precision.

    Raises
    ------
    ConfigError
        Atoms that move with distances that the force field holds constant.
    SelectionError
        Atoms that do not exist.
    """
    from mlmm.dynamics.uncertainty import member_energies
    from mlmm.interfaces.ase import as_ase

    options = options or SurfaceOptions()
    built = hybrid.built
    double = options.precision == "double" or (options.precision == "auto" and built.n_atoms <= _SMALL)
    base = np.array(built.positions if positions is None else positions, dtype=np.float64)
    box = built.box_vectors if box_vectors is None else box_vectors

    def calculator() -> Any:
        return as_ase(
            hybrid,
            options.atoms,
            environment=options.environment if options.atoms != "all" else "frozen",
            positions=base,
            box_vectors=box,
            tolerance=options.environment_tolerance,
            platform="Reference" if double else platform,
            threads=threads,
        )

    atoms = calculator()
    indices = atoms.arrays["system_index"]
    held = [c for c in atoms.constraints if type(c).__name__ == "FixBondLengths"]
    if held:
        pairs = sum(len(c.pairs) for c in held)
        raise ConfigError(
            "atoms that move without constraints",
            f"{pairs} distances among them that the force field holds constant",
            'build with constraints = "none" and rigid_water = false, or let fewer atoms move',
        )
    everything = len(indices) == int((~built.virtual_sites).sum())
    relaxed = options.environment == "relaxed" and not everything

    def make() -> Evaluator:
        own = calculator().calc
        return _OfHybrid(own, relaxed)

    def whole(where: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        found = np.array(base if memory is None else memory)
        found[indices] = where
        return found

    spec = hybrid.potential.spec

    def members(where: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        return member_energies(hybrid, whole(where, memory), box)

    return ReactionSurface(
        numbers=atoms.numbers,
        positions=base[indices],
        masses=atoms.get_masses(),
        make=make,
        free=everything and not built.periodic and not hybrid.biases.restraints,
        labels=[built.labels[i] for i in indices],
        workers=_threads(options),
        whole=whole,
        built=built,
        indices=indices,
        facts={
            "surface": f"hybrid, {spec.name} in scheme {hybrid.scheme}",
            "environment": "none" if everything else options.environment,
            "precision": "double" if double else "single",
            "potential": {"name": spec.name, "citation": spec.citation},
            **_calibration(spec),
        },
        members=members if spec.members > 1 else None,
    )


def potential_surface(
    potential: Any, built: BuiltSystem, options: SurfaceOptions | None = None
) -> ReactionSurface:
    """Surface of a potential alone, for a molecule in a vacuum, in torch and double precision.

    Parameters
    ----------
    potential : PotentialModel
    built : BuiltSystem
        See `mlmm.reactions.molecules.molecule_system`.
    options : SurfaceOptions, optional
        `charge`, `multiplicity` and `workers` are used.

    Raises
    ------
    PotentialError
        Elements, charge or multiplicity that the potential does not know.
    """
    import torch

    from mlmm.potentials.base import check_state, energy_and_forces
    from mlmm.structures import Structure

    options = options or SurfaceOptions()
    numbers = torch.tensor(built.numbers)

    def structure(where: np.ndarray) -> Structure:
        return Structure(numbers, torch.tensor(where), None, options.charge, options.multiplicity)

    check_state(potential.spec, structure(np.array(built.positions)))

    def evaluate(where: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        energy, forces = energy_and_forces(potential, structure(where))
        return Evaluation(energy, forces.numpy())

    def members(where: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        with torch.no_grad():
            found = potential.atom_energies(structure(where)).members
        return np.zeros(0) if found is None else np.asarray(found.sum(dim=1).cpu().numpy(), np.float64)

    spec = potential.spec
    facts = {
        "surface": f"{spec.name} alone",
        "precision": spec.precision,
        "potential": {"name": spec.name, "citation": spec.citation},
        **_calibration(spec),
    }
    return _of_molecule(built, options, lambda: evaluate, facts, members if spec.members > 1 else None)


def method_surface(
    method: str | ReferenceMethod, built: BuiltSystem, options: SurfaceOptions | None = None
) -> ReactionSurface:
    """Surface of a reference method, for a molecule in a vacuum.

    Parameters
    ----------
    method : str or ReferenceMethod
        Such as "gfn2", "aiqm2" or "pyscf:functional=pbe0,basis=def2-svp"; see
        `mlmm.reference.methods.written_method`.
    built : BuiltSystem
        See `mlmm.reactions.molecules.molecule_system`.
    options : SurfaceOptions, optional
        `charge`, `multiplicity` and `workers` are used.

    Raises
    ------
    ConfigError
        An unknown method or option, elements that it does not know, or a number of electrons that cannot
        have the multiplicity.
    MissingPackageError
        Its program is not installed.
    """
    options = options or SurfaceOptions()
    chosen = written_method(method) if isinstance(method, str) else method
    numbers = np.array(built.numbers)

    evaluate = _OfMethod(chosen, numbers, options.charge, options.multiplicity)
    # Refused here: elements, electrons, programs that are not there.
    evaluate(np.array(built.positions), None)
    asked: Any = getattr(chosen, "member_energies", None)

    def members(where: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
        return np.asarray(asked(Molecule(numbers, where, options.charge, options.multiplicity)))

    facts = {"surface": chosen.title, "precision": "double"}
    return _of_molecule(built, options, partial(_same, evaluate), facts, None if asked is None else members)


def _same(evaluator: Evaluator) -> Evaluator:
    return evaluator


@dataclass(frozen=True)
class _OfMethod:
    """Energy and forces of a molecule by a reference method; it can be sent to another process."""

    method: ReferenceMethod
    numbers: np.ndarray
    charge: int
    multiplicity: int

    def __call__(self, positions: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        label = self.method.label(Molecule(self.numbers, np.array(positions), self.charge, self.multiplicity))
        if not label.converged:
            raise SimulationError(
                f"a converged energy of {self.method.title}",
                label.record.get("failure", "none"),
                "look at the structure, and at charge and multiplicity in [surface]",
            )
        if label.forces is None:
            raise ConfigError(
                "a method that gives forces", self.method.title, "choose another one for a search"
            )
        return Evaluation(label.energy, label.forces)


def _of_molecule(
    built: BuiltSystem, options: SurfaceOptions, make: Any, facts: dict[str, Any], members: Any = None
) -> ReactionSurface:
    masses = [atom.element.mass._value for atom in built.topology.atoms()]
    return ReactionSurface(
        numbers=np.array(built.numbers),
        positions=np.array(built.positions),
        masses=np.array(masses),
        make=make,
        labels=list(built.labels),
        workers=_threads(options),
        built=built,
        indices=np.arange(built.n_atoms),
        members=members,
        facts=facts | {"charge": options.charge, "multiplicity": options.multiplicity, "environment": "none"},
    )


def _calibration(spec: Any) -> dict[str, float]:
    """The factor by which errors of forces exceed the spread of the members, where it was measured."""
    return {} if spec.calibration is None else {"calibration": float(spec.calibration.scale)}


def _threads(options: SurfaceOptions) -> int:
    return options.workers if options.parallel == "threads" else 1


class _OfHybrid:
    """Energy and forces of a hybrid by its ASE calculator's surface."""

    def __init__(self, calculator: Any, relaxed: bool):
        self._calculator, self._relaxed = calculator, relaxed

    def __call__(self, positions: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        energy, forces = self._calculator.evaluate(positions, memory)
        return Evaluation(energy, forces, self._calculator.system_positions if self._relaxed else None)
