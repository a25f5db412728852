"""AMP-BMS as a potential of the engine: total charge and point charges in, energies and multipoles out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import torch

from mlmm.errors import PotentialError
from mlmm.modules import Module
from mlmm.potentials.amp_bms.native import choose_amp_kernel, load_amp_weights
from mlmm.potentials.amp_bms.network import MESSAGE_CUTOFF, POLARISATION_CUTOFF, AMPNetwork
from mlmm.potentials.amp_bms.pair_energies import PairEnergies
from mlmm.potentials.amp_bms.weights import AMPWeights, read_amp_weights
from mlmm.potentials.base import AtomEnergies, PotentialSpec, check_state
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.potentials.spec import ShortOfSpec
from mlmm.structures import Structure, minimum_image
from mlmm.units import ANGSTROM, COULOMB

__all__ = ["ELEMENTS", "AMPModule", "AMPPotential"]

#: H C N O F P S Cl Br I: the rows of the embedding that were trained.
ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
_SHORTEST_EDGE = 0.1
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class AMPModule(Module):
    """Per-atom energies of a whole region, kJ/mol; TorchScript can compile it.

    Parameters
    ----------
    weights : AMPWeights
    numbers : sequence of int
        Atomic numbers of the region.
    dtype : torch.dtype
        Arithmetic of the networks.
    charge : int
        Total charge of the region, e.
    centres : sequence of int, optional
        Atoms whose energies are wanted; all by default. Each costs the whole region.
    polarisation_scaling : float
        See `AMPNetwork`.
    compiled : bool
        Evaluate the network by the compiled kernel where the positions lie on the processor.
    """

    def __init__(
        self,
        weights: AMPWeights,
        numbers: Sequence[int],
        dtype: torch.dtype,
        charge: int = 0,
        centres: Sequence[int] | None = None,
        polarisation_scaling: float = 0.35,
        compiled: bool = False,
    ):
        super().__init__()
        species = torch.tensor([int(number) for number in numbers], dtype=torch.int64)
        self.network = AMPNetwork(weights, dtype, polarisation_scaling)
        self.register_buffer("species", species)
        self.register_buffer("charge", torch.tensor(float(charge), dtype=torch.float64))
        self.pairs = PairEnergies(weights, numbers)
        wanted = range(len(species)) if centres is None else centres
        self.register_buffer("centres", torch.tensor([int(c) for c in wanted], dtype=torch.int64))
        self.angstrom, self.root_coulomb = ANGSTROM, math.sqrt(COULOMB / ANGSTROM)
        self.message_cutoff, self.shortest = MESSAGE_CUTOFF, _SHORTEST_EDGE
        self.polarisation_cutoff = POLARISATION_CUTOFF
        self.compiled, self.model = compiled, 0
        if compiled:
            self.model = load_amp_weights(weights, dtype == torch.float64, polarisation_scaling)

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        """Energies (1, C), kJ/mol, for positions (N, 3) and cell (3, 3) in nm, without charges around."""
        energies, _, _, _ = self.in_field(positions, cell, positions[:0], self.charge.new_zeros(0), 0.0)
        chosen = self.centres if centres is None else centres
        return energies.index_select(1, chosen)

    @torch.jit.export
    def in_field(
        self,
        positions: torch.Tensor,
        cell: Optional[torch.Tensor],
        external_positions: torch.Tensor,
        external_charges: torch.Tensor,
        charge_width: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Energies within a region that point charges polarise, and its multipoles; without Coulomb's law.

        The energy of the multipoles in the potential of the charges is the caller's: bare, or by Ewald sums.

        Parameters
        ----------
        positions : torch.Tensor, shape (N, 3), nm
        cell : torch.Tensor, shape (3, 3), nm, optional
            For the shortest images of all displacements; the region has to be smaller than half of it.
        external_positions : torch.Tensor, shape (M, 3), nm
            Charges further than 0.8 nm from every atom have no part in this.
        external_charges : torch.Tensor, shape (M,), e
        charge_width : float
            Standard deviation of Gaussian charges, nm; 0: points. A charge polarises an atom by the square
            of the share of it that is nearer than the atom, so that nothing diverges on top of it.

        Returns
        -------
        energies : torch.Tensor, shape (1, N), kJ/mol
            Node energies and half of each pair's.
        charges, dipoles, quadrupoles : torch.Tensor, shapes (N,), (N, 3), (N, 3, 3)
            e, e nm, e nm²; traceless quadrupoles, half of a second moment.
        """
        x = positions.to(torch.float64)
        i, j = self.pairs.first, self.pairs.second
        vectors = minimum_image(x.index_select(0, j) - x.index_select(0, i), cell) / self.angstrom
        r = vectors.square().sum(1).sqrt()
        outside, strengths = external_positions.to(torch.float64), external_charges.to(torch.float64)
        if self.compiled and x.device.type == "cpu":
            scaled: Optional[torch.Tensor] = None
            if cell is not None:
                scaled = cell / self.angstrom
            out = torch.ops.mlmm.amp_network(
                x / self.angstrom,
                outside / self.angstrom,
                strengths,
                scaled,
                self.species,
                charge_width / self.angstrom,
                self.model,
            )
            node, raw, factors = out[:, 0], out[:, 1], out[:, 2]
            dipoles, quadrupoles = out[:, 3:6], out[:, 6:].unflatten(1, (3, 3))
        else:
            node, raw, dipoles, quadrupoles, factors = self._in_torch(
                x, cell, vectors, r, outside, strengths, charge_width
            )
        charges = raw / self.root_coulomb
        charges = charges - (charges.sum() - self.charge) / charges.shape[0]
        by_pair = self.pairs(r, charges, factors)
        energies = node.index_add(0, i, 0.5 * by_pair).index_add(0, j, 0.5 * by_pair)
        unit = self.angstrom / self.root_coulomb
        return energies.unsqueeze(0), charges, dipoles * unit, quadrupoles * (unit * self.angstrom)

    def _in_torch(
        self,
        x: torch.Tensor,
        cell: Optional[torch.Tensor],
        vectors: torch.Tensor,
        r: torch.Tensor,
        outside: torch.Tensor,
        strengths: torch.Tensor,
        charge_width: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The network in torch: energies, charges, dipoles, quadrupoles and factors of C6."""
        i, j = self.pairs.first, self.pairs.second
        near = ((r < self.message_cutoff) & (r > self.shortest)).nonzero().squeeze(1)
        bonds, u, v = vectors.index_select(0, near), i.index_select(0, near), j.index_select(0, near)
        field = minimum_image(outside.unsqueeze(0) - x.unsqueeze(1), cell) / self.angstrom
        close = (field.detach().square().sum(2) < self.polarisation_cutoff**2).nonzero()
        atom, source = close[:, 0], close[:, 1]
        return self.network(
            self.species,
            torch.cat([u, v]),
            torch.cat([v, u]),
            torch.cat([bonds, -bonds]),
            atom,
            field[atom, source],
            strengths.index_select(0, source),
            charge_width / self.angstrom,
        )


class AMPPotential(ShortOfSpec):
    """AMP-BMS: a potential that knows the total charge, and the field of point charges around a region.

    Parameters
    ----------
    weights : AMPWeights
    precision : {"float32", "float64"}
        Arithmetic of the networks; geometry and sums are float64.
    device : str
    polarisation_scaling : float, optional
        See `AMPNetwork`; by default what the weights were fitted with, else 0.35 as shipped.
    kernel : {"auto", "torch", "native"}
        Networks in torch or in C++; both give the same numbers.
    """

    def __init__(
        self,
        weights: AMPWeights,
        *,
        precision: str = "float32",
        device: str = "cpu",
        polarisation_scaling: float | None = None,
        kernel: str = "auto",
    ):
        if precision not in _DTYPES:
            raise PotentialError(f"precision = {' | '.join(_DTYPES)}", repr(precision), "choose one of them")
        self.device = torch.device(device)
        if polarisation_scaling is None:
            polarisation_scaling = float(weights.about.get("polarisation_scaling", 0.35))
        if not 0.0 <= polarisation_scaling <= 1.0:
            raise PotentialError(
                "polarisation_scaling between 0 (no polarisation) and 1 (the fit to DFT)",
                f"{polarisation_scaling:g}",
                "write 0.35, with which AMP-BMS was published for simulations in water, or leave it out",
            )
        self.polarisation_scaling = float(polarisation_scaling)
        self._weights, self._dtype = weights, _DTYPES[precision]
        self.compiled = choose_amp_kernel(kernel, self.device)
        self._modules: dict[tuple, AMPModule] = {}
        self.spec = PotentialSpec(
            name=weights.about.get("name", "AMP-BMS"),
            elements=ELEMENTS,
            cutoff=MESSAGE_CUTOFF * ANGSTROM,
            receptive_field=float("inf"),
            trained_on="total",
            per_atom=False,
            charges=True,
            external="charges",
            polarisation_range=POLARISATION_CUTOFF * ANGSTROM,
            polarisation_scaling=self.polarisation_scaling,
            long_range=True,
            reference_energies=weights.reference_energies,
            precision=precision,
            native_units=("kJ/mol", "angstrom"),
            layers=2,
            level_of_theory=weights.about.get("level_of_theory", "not stated"),
            licence=weights.about.get("licence", "MIT"),
            citation=weights.about.get("citation", "not stated"),
        )

    @property
    def kernel(self) -> str:
        """Where it is evaluated: "native" or "torch"."""
        return "native" if self.compiled else "torch"

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> AMPPotential:
        """Read a weight file; options as for the class."""
        return cls(read_amp_weights(path), **options)

    def scriptable(
        self, numbers: Sequence[int], centres: Sequence[int] | None = None, charge: int = 0
    ) -> AMPModule:
        """The module for a region of these elements and this charge."""
        module = AMPModule(
            self._weights,
            numbers,
            self._dtype,
            charge,
            centres,
            self.polarisation_scaling,
            self.compiled,
        )
        return module.to(self.device)

    def atom_energies(self, structure: Structure) -> AtomEnergies:
        """Per-atom energies, kJ/mol, and multipoles; among charges with Coulomb's law of these included.

        Lennard-Jones with the surroundings is no part of it: that stays with the force field.

        Raises
        ------
        PotentialError
            What `check_state` raises.
        """
        check_state(self.spec, structure)
        key = (tuple(structure.numbers.tolist()), structure.charge)
        if key not in self._modules:
            self._modules = {key: self.scriptable(key[0], charge=structure.charge)}
        moved, home, external = structure.to(self.device), structure.positions.device, structure.external
        x, cell = moved.positions, moved.cell
        where, strengths, width = x[:0], x.new_zeros(0, dtype=torch.float64), 0.0
        if external is not None:
            where = external.positions.to(self.device)
            strengths, width = external.charges.to(self.device, torch.float64), external.width
        members, q, mu, theta = self._modules[key].in_field(x, cell, where, strengths, width)
        energies = members[0]
        if external is not None:
            vectors = minimum_image(where.unsqueeze(0) - x.unsqueeze(1), cell).to(torch.float64)
            around = potential_of_charges(vectors, strengths, width)
            energies = energies + multipole_energies(q, mu, theta, *around)
        multipoles = (q.to(home), mu.to(home), theta.to(home))
        return AtomEnergies(energies.to(home), None, *multipoles)
