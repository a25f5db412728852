"""SevenNet models: equivariant message passing of NequIP's kind, trained on crystals of 89 elements.

Park, Kim, Hwang, Han, J. Chem. Theory Comput. 20, 4857 (2024), doi 10.1021/acs.jctc.4c00190. The package
``sevenn`` holds the architecture and ships the weights of SevenNet-0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.adapters.ase import ase_atoms, calculator_energy_and_forces
from mlmm.potentials.adapters.graph import check_finite, edges
from mlmm.potentials.adapters.pickles import check_trust
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["SevenNetPotential", "load_sevennet"]

INSTALL = "pip install sevenn==0.13.0"


class SevenNetPotential(ShortOfSpec):
    """A SevenNet model as a potential; five layers of 0.5 nm see 2.5 nm.

    Parameters
    ----------
    build : callable
        Makes the model anew, as ``sevenn.util.model_from_checkpoint`` builds it, without modalities: it
        cannot be copied, and is changed here.
    layers : int
        Convolutions of the model.
    name, trained_on, level_of_theory, licence, citation : str
        See `PotentialSpec`.
    precision : {"float32"}
    device : str

    Raises
    ------
    PotentialError
        A model of several modalities, another precision, or weights that are not finite.
    """

    def __init__(
        self,
        build: Callable[[], torch.nn.Module],
        layers: int,
        *,
        name: str = "SevenNet",
        trained_on: str = "total",
        level_of_theory: str = "not stated",
        licence: str = "not stated",
        citation: str = "not stated",
        precision: str = "float32",
        device: str = "cpu",
    ):
        model: Any = build()  # of a package without types
        rescale = getattr(model, "_modules", {}).get("rescale_atomic_energy")
        if getattr(model, "modal_map", None) or getattr(rescale, "shift", None) is None:
            raise PotentialError(
                "a SevenNet model of one modality with a shift of its energies",
                type(model).__name__,
                "use its ASE calculator: mlmm.potentials.ASEPotential",
            )
        if precision != "float32":
            raise PotentialError(
                'precision "float32" for SevenNet, whose layers are written in it',
                repr(precision),
                'write precision = "float32"',
            )
        self.device = torch.device(device)
        check_finite(model, name)
        # Forces come from the engine's own gradient: the model's last layer would take it a second time.
        self._build = build
        self._model: Any = model.to(self.device).eval()
        self._model.delete_module_by_key("force_output")
        self._model.key_grad = None
        self._model.set_is_batch_data(False)
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        shift = self._model._modules["rescale_atomic_energy"].shift
        by_kind = shift.detach().to(torch.float64).expand(len(model.type_map)).tolist()
        shift.zero_()
        cutoff = float(model.cutoff) * ANGSTROM
        self.spec = PotentialSpec(
            name=name,
            elements=tuple(sorted(int(z) for z in model.type_map)),
            cutoff=cutoff,
            receptive_field=layers * cutoff,
            trained_on=trained_on,
            reference_energies={int(z): by_kind[k] * ELECTRONVOLT for z, k in sorted(model.type_map.items())},
            precision=precision,
            native_units=("eV", "angstrom"),
            layers=layers,
            level_of_theory=level_of_theory,
            licence=licence,
            citation=citation,
        )

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol, less the shift of each element."""
        check_state(self.spec, structure)
        moved = structure.to(self.device)
        first, second, vectors = edges(moved, self.spec.cutoff)
        if len(first) == 0:
            # Nothing but isolated atoms: their energies are the shifts, which are removed.
            return AtomEnergies(0.0 * structure.positions.sum(dim=1))
        data = {
            "x": moved.numbers,
            "atomic_numbers": moved.numbers,
            "pos": (moved.positions / ANGSTROM).to(torch.float32),
            "edge_index": torch.stack([first, second]),
            "edge_vec": vectors.to(torch.float32),
            "num_atoms": torch.tensor(len(moved), device=self.device),
        }
        found = self._model(data)["atomic_energy"].flatten()
        return AtomEnergies(found.to(structure.positions.device, torch.float64) * ELECTRONVOLT)

    def own_energy_and_forces(self, structure: Structure) -> tuple[float, torch.Tensor]:
        """By the package's own ASE calculator: kJ/mol, kJ/mol/nm."""
        _package()
        from sevenn.calculator import SevenNetCalculator

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            original = self._build().to(self.device).eval()
            calculator = SevenNetCalculator(original, file_type="model_instance", device=self.device)
            return calculator_energy_and_forces(calculator, ase_atoms(structure))


def load_sevennet(
    path: str | Path, *, trust: bool, precision: str, device: str, **facts: Any
) -> SevenNetPotential:
    """Read a checkpoint of the package, a pickle.

    Raises
    ------
    MissingPackageError
        ``sevenn`` is not installed.
    PotentialError
        A pickle that is not trusted, or no checkpoint.
    """
    _package()
    check_trust(path, trust)
    import sevenn.util

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = sevenn.util.load_checkpoint(str(path))
            layers = int(checkpoint.config["num_convolution_layer"])
    except Exception as error:  # a pickle may raise anything
        text = str(error).strip().partition("\n")[0]
        raise PotentialError(
            f"a SevenNet checkpoint in {path}", f"{type(error).__name__}: {text}", "get the file again"
        ) from error

    def build() -> torch.nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return checkpoint.build_model()

    return SevenNetPotential(build, layers, precision=precision, device=device, **facts)


def _package() -> None:
    try:
        import sevenn  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("the package sevenn", str(error), INSTALL) from error
