"""MACE models (MACE-OFF and others): higher-order equivariant message passing with per-atom energies.

Batatia, Kovács, Simm, Ortner, Csányi, NeurIPS 35, 11423 (2022), arXiv:2206.07697. The package ``mace-torch``
holds the architecture; its files are pickles of Python objects.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.adapters.ase import ase_atoms, calculator_energy_and_forces
from mlmm.potentials.adapters.graph import check_finite, edges
from mlmm.potentials.adapters.pickles import load_pickle
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["MACEPotential", "load_mace"]

INSTALL = "pip install mace-torch==0.3.16"


class MACEPotential(ShortOfSpec):
    """A MACE model as a potential.

    Every layer passes messages: an atom sees ``num_interactions`` times the cutoff.

    Parameters
    ----------
    model : torch.nn.Module
        A ``MACE`` or ``ScaleShiftMACE`` of the package; left as it is.
    name, trained_on, level_of_theory, licence, citation : str
        See `PotentialSpec`.
    head : str, optional
        Of a model with several; its only one by default.
    precision : {"float32", "float64"}
    device : str

    Raises
    ------
    PotentialError
        Another kind of model, a head that it does not have, or weights that are not finite.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        name: str = "MACE",
        trained_on: str = "total",
        level_of_theory: str = "not stated",
        licence: str = "not stated",
        citation: str = "not stated",
        head: str | None = None,
        precision: str = "float64",
        device: str = "cpu",
    ):
        given: Any = model  # of a package without types
        if not hasattr(model, "atomic_energies_fn") or hasattr(model, "joint_embedding"):
            raise PotentialError(
                "a MACE model of per-atom energies without further inputs",
                type(model).__name__,
                "use its ASE calculator: mlmm.potentials.ASEPotential",
            )
        self._dtype = {"float32": torch.float32, "float64": torch.float64}[precision]
        self.device = torch.device(device)
        # A copy: energies of isolated atoms are taken out of it, and precision may change.
        self._model: Any = copy.deepcopy(given).to(self.device, self._dtype).eval()
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        check_finite(self._model, name)
        heads = list(getattr(given, "heads", None) or ["Default"])
        self._head = _head_index(heads, head, name)
        self._head_name = heads[self._head]
        self._isolated = self._model.atomic_energies_fn.atomic_energies.detach().clone()
        self._model.atomic_energies_fn.atomic_energies.zero_()
        self._numbers = [int(z) for z in given.atomic_numbers]
        energies = torch.atleast_2d(given.atomic_energies_fn.atomic_energies).to(torch.float64)[self._head]
        cutoff, layers = float(given.r_max) * ANGSTROM, int(given.num_interactions)
        self.spec = PotentialSpec(
            name=name,
            elements=tuple(self._numbers),
            cutoff=cutoff,
            receptive_field=layers * cutoff,
            trained_on=trained_on,
            reference_energies={
                z: float(e) * ELECTRONVOLT for z, e in zip(self._numbers, energies.tolist(), strict=True)
            },
            precision=precision,
            native_units=("eV", "angstrom"),
            layers=layers,
            level_of_theory=level_of_theory,
            licence=licence,
            citation=citation,
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol, isolated-atom energies removed."""
        check_state(self.spec, structure)
        moved = structure.to(self.device)
        first, second, vectors = edges(moved, self.spec.cutoff)
        places = moved.positions / ANGSTROM
        n = len(moved)
        kinds = torch.tensor([self._numbers.index(int(z)) for z in moved.numbers], device=self.device)
        # The model takes positions and adds shifts: with these, its edge is the shortest image, in float64.
        shifts = (vectors - (places[second] - places[first])).detach()
        data = {
            "positions": places.to(self._dtype),
            "node_attrs": torch.nn.functional.one_hot(kinds, len(self._numbers)).to(self._dtype),
            "edge_index": torch.stack([first, second]),
            "shifts": shifts.to(self._dtype),
            "unit_shifts": torch.zeros_like(shifts).to(self._dtype),
            "cell": torch.zeros(3, 3, dtype=self._dtype, device=self.device),
            "batch": torch.zeros(n, dtype=torch.int64, device=self.device),
            "ptr": torch.tensor([0, n], device=self.device),
            "head": torch.tensor([self._head], device=self.device),
        }
        with torch.enable_grad():  # the model itself asks its positions for gradients
            data["positions"] = (
                data["positions"] if data["positions"].requires_grad else data["positions"].clone()
            )
            found = self._model(data, training=False, compute_force=False)["node_energy"]
        energies = found.to(structure.positions.device, torch.float64) * ELECTRONVOLT
        return AtomEnergies(energies if structure.positions.requires_grad else energies.detach())

    def own_energy_and_forces(self, structure: Structure) -> tuple[float, torch.Tensor]:
        """By the package's own ASE calculator, isolated-atom energies included: kJ/mol, kJ/mol/nm."""
        _package()
        from mace.calculators import MACECalculator

        model = copy.deepcopy(self._model)
        model.atomic_energies_fn.atomic_energies.copy_(self._isolated)
        calculator = MACECalculator(
            models=[model], device=str(self.device), default_dtype=self.spec.precision, head=self._head_name
        )
        return calculator_energy_and_forces(calculator, ase_atoms(structure))


def load_mace(path: str | Path, *, trust: bool, precision: str, device: str, **facts: Any) -> MACEPotential:
    """Read a model file of the package, a pickle.

    Raises
    ------
    MissingPackageError
        ``mace-torch`` is not installed.
    PotentialError
        A pickle that is not trusted, or no MACE model.
    """
    _package()
    return MACEPotential(load_pickle(path, trust, device), precision=precision, device=device, **facts)


def _head_index(heads: list[str], head: str | None, name: str) -> int:
    if head is None and len(heads) == 1:
        return 0
    if head is None:
        head = next((h for h in heads if h.lower() == "default"), None)
    if head not in heads:
        raise PotentialError(f"a head of {name}: {', '.join(heads)}", repr(head), "name one of them")
    return heads.index(head)


def _package() -> None:
    try:
        import mace  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("the package mace-torch", str(error), INSTALL) from error
