"""Any ASE calculator as a potential: total energy and forces, no shares of atoms.

A calculator gives the gradient of the total energy only, so that weights on its per-atom energies would have
no forces: such a potential describes capped regions, under scheme ``supermolecular`` or ``additive``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["ASEPotential", "ase_atoms", "ase_calculator", "calculator_energy_and_forces", "total_energy"]


class _Total(torch.autograd.Function):
    """Shares of a total energy whose gradient is known: differentiable in their sum only."""

    @staticmethod
    def forward(
        ctx: Any, positions: torch.Tensor, shares: torch.Tensor, forces: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(forces)
        return shares.clone()

    @staticmethod
    def backward(ctx: Any, outer: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (forces,) = ctx.saved_tensors
        if not bool((outer == outer[0]).all()):
            raise PotentialError(
                "the gradient of a total energy from an ASE calculator",
                "one of weighted per-atom energies",
                'use scheme = "supermolecular" or "additive"',
            )
        return -forces * outer[0], None, None


class ASEPotential(ShortOfSpec):
    """An ASE calculator as a potential; eV and angstrom are converted here.

    Parameters
    ----------
    calculator : ase.calculators.calculator.Calculator
        Of energy and forces.
    name : str
    elements : sequence of int
        Atomic numbers that it knows.
    trained_on : {"total", "isolated", "correction"}
    cutoff, receptive_field : float, nm
        Infinite by default: then only scheme ``additive`` is possible.
    layers : int
        Message-passing depth.
    reference_energies : mapping of int to float, optional
        Isolated-atom energies in kJ/mol, removed from every energy; zero by default.
    charges, spins : bool
        Whether it reads ``charge`` and ``spin`` (multiplicity) in ``atoms.info``.
    precision, deterministic, level_of_theory, licence, citation
        See `PotentialSpec`.

    Raises
    ------
    PotentialError
        A calculator without energy or forces.
    """

    def __init__(
        self,
        calculator: Any,
        *,
        name: str,
        elements: Sequence[int],
        trained_on: str = "total",
        cutoff: float = float("inf"),
        receptive_field: float = float("inf"),
        layers: int = 1,
        reference_energies: Mapping[int, float] | None = None,
        charges: bool = False,
        spins: bool = False,
        precision: str = "float64",
        deterministic: bool = True,
        level_of_theory: str = "not stated",
        licence: str = "not stated",
        citation: str = "not stated",
    ):
        lacking = {"energy", "forces"} - set(getattr(calculator, "implemented_properties", ()))
        if lacking:
            raise PotentialError(
                f"an ASE calculator of energy and forces for {name}",
                f"one without {' and '.join(sorted(lacking))}",
                "use another calculator",
            )
        self.calculator = calculator
        self.spec = PotentialSpec(
            name=name,
            elements=tuple(int(z) for z in elements),
            cutoff=cutoff,
            receptive_field=receptive_field,
            trained_on=trained_on,
            per_atom=False,
            charges=charges,
            spins=spins,
            long_range=not np.isfinite(receptive_field),
            reference_energies=dict(reference_energies or {}),
            precision=precision,
            native_units=("eV", "angstrom"),
            layers=layers,
            deterministic=deterministic,
            level_of_theory=level_of_theory,
            licence=licence,
            citation=citation,
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """The total energy in equal shares, or in the calculator's own where it has them; see the module."""
        check_state(self.spec, structure)
        energy, forces = self.own_energy_and_forces(structure)
        numbers = structure.numbers.tolist()
        references = torch.tensor(
            [self.spec.reference_energies.get(z, 0.0) for z in numbers], dtype=torch.float64
        )
        shares = self._shares(energy, len(numbers)) - references
        energies = total_energy(structure.positions, shares.to(structure.positions.device), forces)
        return AtomEnergies(energies, charges=self._charges())

    def own_energy_and_forces(self, structure: Structure) -> tuple[float, torch.Tensor]:
        """Total energy, kJ/mol, and forces (N, 3), kJ/mol/nm, as the calculator gives them."""
        energy, forces = calculator_energy_and_forces(self.calculator, ase_atoms(structure))
        return energy, forces.to(structure.positions.device)

    def _shares(self, energy: float, n: int) -> torch.Tensor:
        own = self.calculator.results.get("energies")
        shares = torch.full((n,), energy / n, dtype=torch.float64)
        if own is None or np.shape(own) != (n,):
            return shares
        own = torch.as_tensor(np.array(own, dtype=np.float64)) * ELECTRONVOLT
        # Single-precision shares need not add up to the total, whose gradient the forces are.
        return own + (energy - own.sum()) / n

    def _charges(self) -> torch.Tensor | None:
        found = self.calculator.results.get("charges") if self.spec.charges else None
        return None if found is None else torch.as_tensor(np.array(found, dtype=np.float64))


def total_energy(positions: torch.Tensor, shares: torch.Tensor, forces: torch.Tensor) -> torch.Tensor:
    """Shares (N,) of an energy as a function of positions (N, 3) whose gradient is minus the forces (N, 3).

    Only their sum can be differentiated (PotentialError for anything else).
    """
    return _Total.apply(positions, shares, forces)


def ase_atoms(structure: Structure) -> Any:
    """The structure as `ase.Atoms`, with charge and multiplicity in ``info``."""
    ase = _ase()
    cell = None if structure.cell is None else structure.cell.detach().cpu().numpy() / ANGSTROM
    return ase.Atoms(
        numbers=structure.numbers.cpu().numpy(),
        positions=structure.positions.detach().cpu().numpy() / ANGSTROM,
        cell=cell,
        pbc=cell is not None,
        info={"charge": structure.charge, "spin": structure.spin},
    )


def calculator_energy_and_forces(calculator: Any, atoms: Any) -> tuple[float, torch.Tensor]:
    """kJ/mol and kJ/mol/nm of an ASE calculator; an error of it is retold (PotentialError)."""
    try:
        calculator.calculate(atoms, ["energy", "forces"], ["positions", "numbers", "cell", "pbc", "info"])
        energy = float(np.asarray(calculator.results["energy"]).item())
        forces = np.array(calculator.results["forces"], dtype=np.float64)
    except Exception as error:  # a calculator may raise anything
        raise PotentialError(
            f"energy and forces from {type(calculator).__name__}",
            f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            "see what the calculator needs",
        ) from error
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise PotentialError(
            f"finite energy and forces from {type(calculator).__name__}",
            "NaN or infinity",
            "look at the atoms",
        )
    return energy * ELECTRONVOLT, torch.as_tensor(forces) * (ELECTRONVOLT / ANGSTROM)


def ase_calculator(name: str) -> Callable[[], Any]:
    """The class of a calculator that ASE knows by name, such as ``emt``.

    Raises
    ------
    PotentialError
        An unknown name.
    MissingPackageError
        ASE is not installed.
    """
    _ase()
    from ase.calculators.calculator import get_calculator_class
    from ase.calculators.names import names

    if name not in names:
        raise PotentialError(
            "a calculator that ASE knows by name",
            repr(name),
            f"choose one of {', '.join(sorted(names)[:12])} …",
        )
    try:
        return get_calculator_class(name)
    except ImportError as error:
        raise MissingPackageError(f"the package of {name}", str(error), f"pip install {name}") from error


def _ase() -> Any:
    try:
        import ase
    except ImportError as error:
        raise MissingPackageError("ASE", str(error), "pip install ase") from error
    return ase
