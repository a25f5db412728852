"""AIMNet2 models: neutral and charged organic molecules, with charges that are equilibrated over the whole.

Anstine, Zubatyuk, Isayev, Chem. Sci. 16, 10228 (2025), doi 10.1039/D4SC08572H. The package ``aimnet`` holds
the architecture, its long-range Coulomb energy and dispersion. Every atom depends on the charge of the whole:
only whole, capped regions can be described.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.adapters.ase import ase_atoms, calculator_energy_and_forces, total_energy
from mlmm.potentials.adapters.graph import check_finite
from mlmm.potentials.adapters.pickles import check_trust
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure, minimum_image
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["AIMNet2Potential", "load_aimnet"]

INSTALL = "pip install aimnet==0.2.5 ase"


class AIMNet2Potential(ShortOfSpec):
    """An AIMNet2 model as a potential: total energy with net charge and multiplicity, and atomic charges.

    Parameters
    ----------
    calculator : aimnet.calculators.AIMNet2Calculator
        With its long-range parts.
    elements : sequence of int, optional
        What the model's metadata say, by default.
    name, trained_on, level_of_theory, licence, citation : str
        See `PotentialSpec`.

    Raises
    ------
    PotentialError
        A model without known elements, or with weights that are not finite.
    """

    def __init__(
        self,
        calculator: Any,
        elements: list[int] | None = None,
        *,
        name: str = "AIMNet2",
        trained_on: str = "total",
        level_of_theory: str = "not stated",
        licence: str = "not stated",
        citation: str = "not stated",
    ):
        self._calculator = calculator
        self.device = torch.device(calculator.device)
        known = elements or (getattr(calculator.model, "_metadata", None) or {}).get("implemented_species")
        if not known:
            raise PotentialError(f"the elements of {name}", "none in its metadata", "give them: elements=[…]")
        check_finite(calculator.model, name)
        self._isolated = _isolated_energies(calculator.model, known)
        cutoff = float(calculator.cutoff) * ANGSTROM
        layers = len(getattr(calculator.model, "mlps", ())) or 3
        self.spec = PotentialSpec(
            name=name,
            elements=tuple(sorted(int(z) for z in known)),
            cutoff=cutoff,
            receptive_field=float("inf"),
            trained_on=trained_on,
            per_atom=False,
            charges=True,
            spins=bool(getattr(calculator, "is_nse", False)),
            long_range=True,
            reference_energies=self._isolated,
            precision="float32",
            native_units=("eV", "angstrom"),
            layers=layers,
            level_of_theory=level_of_theory,
            licence=licence,
            citation=citation,
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """The total energy in equal shares, kJ/mol, isolated-atom energies removed, and charges in e."""
        check_state(self.spec, structure)
        found = self._evaluate(structure)
        numbers = structure.numbers.tolist()
        # In float64, in the model's own unit: a difference of two large numbers.
        energy = float(found["energy"].to(torch.float64).sum()) * ELECTRONVOLT
        energy -= sum(self._isolated[z] for z in numbers)
        forces = found["forces"].detach().reshape(len(numbers), 3).to(torch.float64) * (
            ELECTRONVOLT / ANGSTROM
        )
        shares = torch.full((len(numbers),), energy / len(numbers), dtype=torch.float64)
        device = structure.positions.device
        energies = total_energy(structure.positions, shares.to(device), forces.to(device))
        return AtomEnergies(energies, charges=found["charges"].detach().flatten().to(device, torch.float64))

    def own_energy_and_forces(self, structure: Structure) -> tuple[float, torch.Tensor]:
        """By the package's own ASE calculator: kJ/mol, kJ/mol/nm."""
        from aimnet.calculators import AIMNet2ASE

        calculator = AIMNet2ASE(self._calculator, charge=structure.charge, mult=structure.spin)
        return calculator_energy_and_forces(calculator, ase_atoms(structure))

    def _evaluate(self, structure: Structure) -> dict[str, torch.Tensor]:
        moved = structure.to(self.device)
        data = {
            "coord": (_gathered(moved) / ANGSTROM).to(torch.float32).unsqueeze(0),
            "numbers": moved.numbers.unsqueeze(0),
            "charge": torch.tensor([float(structure.charge)], device=self.device),
            "mult": torch.tensor([float(structure.spin)], device=self.device),
        }
        with torch.enable_grad():
            return self._calculator(data, forces=True)


def _gathered(structure: Structure) -> torch.Tensor:
    """Positions of one image, nm: a whole region interacts with itself once, not with its images."""
    positions = structure.positions.detach()
    if structure.cell is None:
        return positions
    offsets = minimum_image(positions - positions[0], structure.cell)
    extent = offsets.amax(dim=0) - offsets.amin(dim=0)
    width = 0.5 * torch.diagonal(structure.cell)
    if bool((extent >= width).any()):
        raise PotentialError(
            "a region smaller than half of the box for AIMNet2",
            f"{float(extent.max()):.2f} nm in a box of {2 * float(width.min()):.2f} nm",
            "use a larger box or a smaller region",
        )
    return positions[0] + offsets


def _isolated_energies(model: torch.nn.Module, elements: list[int]) -> dict[int, float]:
    """Isolated-atom energies inside the model, kJ/mol, float64."""
    total = {int(z): 0.0 for z in elements}
    for module in model.modules():
        if type(module).__name__ == "AtomicShift":
            shift: Any = module  # of a package without types
            weight = shift.shifts.weight.detach().to(torch.float64).flatten().cpu()
            total = {z: e + float(weight[z]) * ELECTRONVOLT for z, e in total.items()}
    return total


def load_aimnet(
    path: str | Path, *, trust: bool, precision: str, device: str, **facts: Any
) -> AIMNet2Potential:
    """Read a model file of the package.

    Raises
    ------
    MissingPackageError
        ``aimnet`` is not installed.
    PotentialError
        A file that is not trusted or not readable, or another precision.
    """
    _package()
    check_trust(path, trust)
    if precision != "float32":
        raise PotentialError(
            'precision "float32" for AIMNet2, whose calculator is written in it',
            repr(precision),
            'write precision = "float32"',
        )
    from aimnet.calculators import AIMNet2Calculator

    try:
        calculator = AIMNet2Calculator(str(Path(path).resolve()), device=device)
    except Exception as error:  # a package may raise anything
        text = str(error).strip().partition("\n")[0]
        raise PotentialError(
            f"an AIMNet2 model in {path}", f"{type(error).__name__}: {text}", "get the file again"
        ) from error
    return AIMNet2Potential(calculator, **facts)


def _package() -> None:
    try:
        import aimnet.calculators  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("the package aimnet", str(error), INSTALL) from error
