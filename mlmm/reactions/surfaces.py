"""Surfaces of a hybrid system, of a potential alone and of a method of electronic structure."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmm.build import BuiltSystem
from mlmm.errors import ConfigError, MissingPackageError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.reactions.options import SurfaceOptions
from mlmm.reactions.surface import Evaluation, Evaluator, ReactionSurface
from mlmm.units import BOHR, HARTREE

__all__ = ["METHODS", "hybrid_surface", "method_surface", "potential_surface"]

#: Methods as they are typed -> as tblite calls them.
METHODS = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}
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
        },
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

    spec = potential.spec
    facts = {
        "surface": f"{spec.name} alone",
        "precision": spec.precision,
        "potential": {"name": spec.name, "citation": spec.citation},
    }
    return _of_molecule(built, options, lambda: evaluate, facts)


def method_surface(method: str, built: BuiltSystem, options: SurfaceOptions | None = None) -> ReactionSurface:
    """Surface of a method of electronic structure, for a molecule in a vacuum.

    Parameters
    ----------
    method : {"gfn2", "gfn1"}
        Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019), doi 10.1021/acs.jctc.8b01176;
        Grimme, Bannwarth, Shushkov, ibid. 13, 1989 (2017), doi 10.1021/acs.jctc.7b00118.
    built : BuiltSystem
        See `mlmm.reactions.molecules.molecule_system`.
    options : SurfaceOptions, optional
        `charge`, `multiplicity` and `workers` are used.

    Raises
    ------
    MissingPackageError
        tblite is not installed.
    ConfigError
        A number of electrons that cannot have the multiplicity.
    """
    try:
        from tblite.interface import Calculator
    except ImportError as error:
        raise MissingPackageError("tblite", str(error), "pip install 'mlmm[qm]'") from error
    options = options or SurfaceOptions()
    numbers = np.array(built.numbers)
    electrons, unpaired = int(numbers.sum()) - options.charge, options.multiplicity - 1
    if (electrons - unpaired) % 2:
        raise ConfigError(
            f"a multiplicity that {electrons} electrons can have",
            f"multiplicity {options.multiplicity}",
            "correct charge or multiplicity in [surface]",
        )

    def make() -> Evaluator:
        calculator = Calculator(
            METHODS[method], numbers, np.array(built.positions) / BOHR, options.charge, unpaired
        )
        calculator.set("verbosity", 0)
        calculator.set("accuracy", 0.1)

        def evaluate(where: np.ndarray, memory: np.ndarray | None) -> Evaluation:
            calculator.update(where / BOHR)
            try:
                found = calculator.singlepoint()
            except RuntimeError as error:
                raise SimulationError(
                    f"a converged energy of {METHODS[method]}",
                    str(error),
                    "look at the structure, and at charge and multiplicity in [surface]",
                ) from error
            return Evaluation(
                float(found.get("energy")) * HARTREE, -np.array(found.get("gradient")) * (HARTREE / BOHR)
            )

        return evaluate

    facts = {"surface": f"{METHODS[method]} (tblite)", "precision": "double"}
    return _of_molecule(built, options, make, facts)


def _of_molecule(
    built: BuiltSystem, options: SurfaceOptions, make: Any, facts: dict[str, Any]
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
        facts=facts | {"charge": options.charge, "multiplicity": options.multiplicity, "environment": "none"},
    )


def _threads(options: SurfaceOptions) -> int:
    return options.workers if options.parallel == "threads" else 1


class _OfHybrid:
    """Energy and forces of a hybrid by its ASE calculator's surface."""

    def __init__(self, calculator: Any, relaxed: bool):
        self._calculator, self._relaxed = calculator, relaxed

    def __call__(self, positions: np.ndarray, memory: np.ndarray | None) -> Evaluation:
        energy, forces = self._calculator.evaluate(positions, memory)
        return Evaluation(energy, forces, self._calculator.system_positions if self._relaxed else None)
