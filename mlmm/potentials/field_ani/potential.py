"""Field-aware ANI as a potential: it knows the total charge and answers to the field of the surroundings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.field_ani.native import choose_field_kernel
from mlmm.potentials.field_ani.network import FieldANIModule
from mlmm.potentials.field_ani.parameters import FieldANIParameters, load_field_ani
from mlmm.potentials.multipoles import potential_of_charges
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure, minimum_image
from mlmm.units import ANGSTROM, HARTREE

__all__ = ["FieldANIPotential"]

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class FieldANIPotential(ShortOfSpec):
    """ANI networks whose charges equilibrate in the potential of charges around; see `equilibration`.

    Parameters
    ----------
    parameters : FieldANIParameters
    name, trained_on, level_of_theory, licence, citation : str
        See `PotentialSpec`.
    precision : {"float32", "float64"}
        Arithmetic of symmetry functions and networks; geometry, charges and sums are float64.
    device : str
    kernel : {"auto", "torch", "native"}
        In torch or in C++; both give the same numbers.
    """

    def __init__(
        self,
        parameters: FieldANIParameters,
        *,
        name: str,
        trained_on: str = "total",
        level_of_theory: str = "not stated",
        licence: str = "not stated",
        citation: str = "not stated",
        precision: str = "float32",
        device: str = "cpu",
        kernel: str = "auto",
    ):
        if precision not in _DTYPES:
            raise PotentialError(f"precision = {' | '.join(_DTYPES)}", repr(precision), "choose one of them")
        self.parameters, self.device = parameters, torch.device(device)
        self.compiled = choose_field_kernel(kernel, parameters, self.device)
        ani = parameters.ani
        cutoff = float(ani.constants["Rcr"]) * ANGSTROM
        self.spec = PotentialSpec(
            name=name,
            elements=tuple(SYMBOLS.index(symbol) for symbol in ani.elements),
            cutoff=cutoff,
            receptive_field=float("inf"),
            trained_on=trained_on,
            per_atom=False,
            charges=True,
            external="potential",
            long_range=True,
            reference_energies={
                SYMBOLS.index(symbol): float(energy) * HARTREE
                for symbol, energy in zip(ani.elements, ani.self_energies, strict=True)
            },
            precision=precision,
            level_of_theory=level_of_theory,
            licence=licence,
            citation=citation,
        )
        self._bound: tuple[tuple, FieldANIModule] | None = None

    @property
    def kernel(self) -> str:
        """Where it is evaluated: "native" or "torch"."""
        return "native" if self.compiled else "torch"

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> FieldANIPotential:
        """Read a file of `save_field_ani`; options as for the class, in place of what the file says."""
        parameters, about = load_field_ani(path)
        facts = ("name", "trained_on", "level_of_theory", "licence", "citation")
        told = {key: about[key] for key in facts if key in about}
        return cls(parameters, **{"name": Path(path).stem, **told, **options})

    def scriptable(
        self, numbers: Sequence[int], centres: Sequence[int] | None = None, charge: int = 0
    ) -> FieldANIModule:
        """The module for a region of these elements and this charge."""
        module = FieldANIModule(
            self.parameters, numbers, _DTYPES[self.spec.precision], charge, centres, self.compiled
        )
        return module.to(self.device)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol, and multipoles; among charges with Coulomb's law of these included.

        Raises
        ------
        PotentialError
            What `check_state` raises.
        """
        check_state(self.spec, structure)
        key = (tuple(structure.numbers.tolist()), structure.charge)
        if self._bound is None or self._bound[0] != key:
            self._bound = (key, self.scriptable(key[0], charge=structure.charge))
        module, home = self._bound[1], structure.positions.device
        moved = structure.to(self.device)
        x, external = moved.positions, moved.external
        if external is None:
            nothing = torch.zeros(len(x), 3, 3, dtype=torch.float64, device=x.device)
            around = (nothing[:, 0, 0], nothing[:, 0], nothing)
        else:
            vectors = minimum_image(external.positions.unsqueeze(0) - x.unsqueeze(1), moved.cell)
            charges = external.charges.to(torch.float64)
            around = potential_of_charges(vectors.to(torch.float64), charges, external.width)
        members, *multipoles = module.in_potential(x, moved.cell, *around)
        return AtomEnergies(members[0].to(home), None, *(part.to(home) for part in multipoles))
