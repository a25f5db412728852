"""What runs inside an OpenMM Force: two hosts, torch and Python, and the energies that they evaluate.

Positions and box vectors are converted here and nowhere else: energies get float64 tensors in nm on their
own device, or float64 arrays where the C++ kernel evaluates pairs. A torch host is TorchScript inside a
TorchForce; a Python host is the callable of a PythonForce, and calls either torch or the kernel of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import openmm
import torch

from mlmm.modules import Module
from mlmm.potentials.base import PotentialModel, bound_module, energy_and_forces
from mlmm.potentials.training import check_elements
from mlmm.structures import Structure

__all__ = [
    "BlendEnergy",
    "PairEnergy",
    "PythonHost",
    "RegionEnergy",
    "RegionModule",
    "WeightedHost",
    "WholeModule",
]

#: ``evaluate(positions (n, 3), cell (3, 3) or None) -> (energy, forces (n, 3))``, arrays in nm, kJ/mol.
Evaluation = Callable[[np.ndarray, np.ndarray | None], tuple[float, np.ndarray]]


class PythonHost:
    """The callable of a PythonForce: a State with the positions of its particles to energy and forces.

    Parameters
    ----------
    evaluate : callable
        See `Evaluation`.
    periodic : bool
        Whether it gets the box vectors.
    """

    def __init__(self, evaluate: Evaluation, periodic: bool):
        self.evaluate, self.periodic = evaluate, periodic

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        # A State is in nm; value_in_unit would cost as much as all the rest here.
        positions = np.asarray(state.getPositions(asNumpy=True)._value, dtype=np.float64)
        cell = None
        if self.periodic:
            cell = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value, dtype=np.float64)
        return self.evaluate(positions, cell)


class WeightedHost(PythonHost):
    """An energy times a parameter of the context.

    Parameters
    ----------
    evaluate, periodic
        See `PythonHost`.
    parameter : str
    """

    def __init__(self, evaluate: Evaluation, periodic: bool, parameter: str):
        super().__init__(evaluate, periodic)
        self.parameter = parameter

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        energy, forces = super().__call__(state)
        weight = state.getParameters()[self.parameter]
        return weight * energy, weight * forces


class RegionEnergy:
    """The energy of some atoms by themselves.

    Parameters
    ----------
    model : PotentialModel
    numbers : sequence of int
        Atomic numbers of the atoms.
    atoms : sequence of int
        Their indices in the System.
    charge, multiplicity : int
        Net charge (e) and spin multiplicity of the atoms, for a model that asks.

    Raises
    ------
    PotentialError
        An element that the model does not know.
    """

    def __init__(
        self,
        model: PotentialModel,
        numbers: Sequence[int],
        atoms: Sequence[int],
        charge: int = 0,
        multiplicity: int = 1,
    ):
        check_elements(model.spec, numbers)
        self.model, self.atoms = model, list(atoms)
        self.numbers = torch.tensor(list(numbers), dtype=torch.int64)
        self.charge, self.multiplicity = charge, multiplicity

    def bound(self) -> torch.nn.Module:
        """The model in TorchScript form, bound to the atoms' elements."""
        module = bound_module(self.model, self.numbers.tolist(), self.charge, self.multiplicity)
        assert module is not None  # `choose_bridge` asks
        return module

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None) -> tuple[float, np.ndarray]:
        """See `Evaluation`."""
        box = None if cell is None else torch.from_numpy(cell)
        structure = Structure(self.numbers, torch.from_numpy(positions), box, self.charge, self.multiplicity)
        energy, forces = energy_and_forces(self.model, structure)
        return energy, forces.detach().cpu().numpy()


class BlendEnergy:
    """The energy of a torch module of the positions of the whole system.

    Parameters
    ----------
    blend : torch.nn.Module
        ``forward(positions, box) -> energy`` in kJ/mol, with a buffer or property `visible` on its device.
    """

    atoms: list[int] | None = None

    def __init__(self, blend: torch.nn.Module):
        self.blend, self.device = blend, device_of(blend)

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None) -> tuple[float, np.ndarray]:
        """See `Evaluation`."""
        where = torch.tensor(positions, device=self.device, requires_grad=True)
        energy = self.blend(where, None if cell is None else torch.tensor(cell, device=self.device))
        (gradient,) = torch.autograd.grad(energy, where)
        return float(energy.detach()), -gradient.cpu().numpy()


class PairEnergy:
    """The energy of force-field pairs by the C++ kernel, such as `mlmm.kernels.direct_pairs.ZonePairs`.

    Parameters
    ----------
    pairs : callable
        ``pairs(positions, cell) -> energy, gradient``, with `atoms`, whose positions it gets.
    """

    def __init__(self, pairs: Any):
        self.pairs, self.atoms = pairs, pairs.atoms.tolist()

    def __call__(self, positions: np.ndarray, cell: np.ndarray | None) -> tuple[float, np.ndarray]:
        """See `Evaluation`."""
        energy, gradient = self.pairs(positions, cell)
        return energy, -gradient


def device_of(blend: Any) -> torch.device:
    """Where a blend's buffers lie."""
    return torch.device(blend.visible.device)


class WholeModule(Module):
    """The torch host of a blend: positions of the whole system to energy, kJ/mol.

    Parameters
    ----------
    blend : torch.nn.Module
        See `BlendEnergy`.
    """

    def __init__(self, blend: torch.nn.Module):
        super().__init__()
        self.blend = blend
        self.register_buffer("place", torch.zeros(1, dtype=torch.float64, device=device_of(blend)))

    def forward(self, positions: torch.Tensor, box: Optional[torch.Tensor] = None) -> torch.Tensor:
        """For positions (N, 3) and box vectors (3, 3), nm, in any precision on any device."""
        # Outside of the CUDA platform OpenMM's tensors stay in main memory wherever the module is.
        positions = positions.to(self.place.device, torch.float64)
        if box is not None:
            box = box.to(self.place.device, torch.float64)
        return self.blend(positions, box)


class RegionModule(Module):
    """The torch host of a region: positions of the whole system to energy, kJ/mol, and forces of all atoms.

    The gradient is taken in the region's own coordinates: by TorchForce itself it would be in all of them.

    Parameters
    ----------
    model : torch.nn.Module
        ``forward(positions, cell) -> (members, n)`` of the region's atoms.
    atoms : torch.Tensor, shape (n,), int64
    """

    def __init__(self, model: torch.nn.Module, atoms: torch.Tensor):
        super().__init__()
        self.model = model
        self.register_buffer("atoms", atoms)

    def forward(
        self, positions: torch.Tensor, box: Optional[torch.Tensor] = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `WholeModule.forward`; forces in the precision and on the device of the positions."""
        where = positions.to(self.atoms.device)
        if box is not None:
            box = box.to(self.atoms.device)
        inside = where.index_select(0, self.atoms).to(torch.float64)
        inside.requires_grad_(True)
        energy = self.model(inside, box).mean(dim=0).sum()
        gradient = torch.autograd.grad([energy], [inside])[0]
        assert gradient is not None
        forces = torch.zeros_like(where)
        forces.index_copy_(0, self.atoms, -gradient.to(positions.dtype))
        return energy, forces.to(positions.device)
