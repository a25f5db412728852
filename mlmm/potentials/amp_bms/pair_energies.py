"""Pair energies of AMP-BMS within a region: Coulomb, dispersion, repulsion of nuclei.

Thürlemann et al., J. Am. Chem. Soc. 148, 28133 (2026), doi 10.1021/jacs.6c00217. Angstrom, kJ/mol and e.
Everything in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlmm.modules import Module
from mlmm.potentials.amp_bms.weights import AMPWeights
from mlmm.units import ANGSTROM, COULOMB, HARTREE

__all__ = ["PAIR_CUTOFF", "PairEnergies", "reaction_field", "smooth_step"]

#: Reach of Coulomb's law and of dispersion within the region, angstrom.
PAIR_CUTOFF = 14.0
_PERMITTIVITY, _M, _N = 78.4, 4, 6
#: Weights and exponents of the screening of nuclei by Ziegler, Biersack and Littmark.
_SCREENED = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
#: Damping of the dispersion: s8, a1, a2 (bohr).
_DAMPING = (0.7761, 0.7514, 2.7099)


def smooth_step(t: torch.Tensor) -> torch.Tensor:
    """S(t) = 6t⁵ − 15t⁴ + 10t³ between 0 and 1, constant beyond."""
    t = t.clamp(0.0, 1.0)
    return t * t * t * (10.0 - t * (15.0 - 6.0 * t))


def reaction_field(cutoff: float) -> tuple[float, float, float, float]:
    """A, B, G and F of 1/r + A r² + B r⁴ + G r⁶ − F, which vanishes at the cutoff (angstrom)."""
    whole = 1.0 + 2.0 * _PERMITTIVITY
    a = (_PERMITTIVITY - 1.0) / (whole * cutoff**3)
    b = 3.0 * (2.0 * _PERMITTIVITY + _N - 1.0) / (_M * (_N - _M) * whole * cutoff ** (_M + 1))
    g = 3.0 * (2.0 * _PERMITTIVITY + _M - 1.0) / (_N * (_M - _N) * whole * cutoff ** (_N + 1))
    return a, b, g, 3.0 * _PERMITTIVITY / (whole * cutoff) + b * cutoff**4 + g * cutoff**6


class PairEnergies(Module):
    """Energies of the pairs of atoms of a region.

    Parameters
    ----------
    weights : AMPWeights
        For the tables of the dispersion and the model's own bohr.
    numbers : sequence of int
        Atomic numbers of the region.
    """

    def __init__(self, weights: AMPWeights, numbers: Sequence[int]):
        super().__init__()
        species = torch.tensor([int(number) for number in numbers], dtype=torch.int64)
        z = species.to(torch.float64)
        self.register_buffer("first", torch.triu_indices(len(species), len(species), 1)[0])
        self.register_buffer("second", torch.triu_indices(len(species), len(species), 1)[1])
        i, j = self.first, self.second
        bohr = weights.bohr
        root = weights.tensor("D4.sqrt_r4r2", torch.float64).flatten()[species]
        c6 = weights.tensor("D4.C6_0", torch.float64).flatten()[species]
        product = root[i] * root[j]
        s8, a1, a2 = _DAMPING
        radius = (a1 * product + a2) * bohr
        # In angstrom: C6 in kJ/mol Å⁶, radii in Å.
        self.register_buffer("c6", (c6[i] * c6[j]).sqrt() * HARTREE * bohr**6)
        self.register_buffer("eighth", s8 * product.square() * bohr**2)
        self.register_buffer("sixth_of_radius", radius.pow(6))
        self.register_buffer("eighth_of_radius", radius.pow(8))
        scale = z.pow(0.23)
        self.register_buffer("screening", (scale[i] + scale[j]) / (0.8854 * bohr))
        self.coulomb_constant = COULOMB / ANGSTROM
        self.register_buffer("nuclei", self.coulomb_constant * z[i] * z[j])
        self.cutoff = PAIR_CUTOFF
        self.field = reaction_field(PAIR_CUTOFF)
        self.screened = _SCREENED

    def forward(self, r: torch.Tensor, charges: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """Energy of each pair i < j, kJ/mol, of one geometry or of several at once.

        Parameters
        ----------
        r : torch.Tensor, shape (P,) or (B, P), float64, angstrom
        charges, factors : torch.Tensor, shape (N,) or (B, N), float64
            Charges (e) and factors of C6 of the atoms.
        """
        i, j = self.first, self.second
        square = r.square()
        fourth = square.square()
        sixth = fourth * square
        inverse = 1.0 / r
        # Coulomb's law, switched on up to 4 Å, with a generalised reaction field.
        a, b, g, f = self.field
        bare = inverse + a * square + b * fourth + g * sixth - f
        product = charges.index_select(-1, i) * charges.index_select(-1, j)
        energy = self.coulomb_constant * product * smooth_step(r / 4.0) * bare
        # Dispersion with rational damping.
        strength = (factors.index_select(-1, i) * factors.index_select(-1, j)).sqrt() * self.c6
        damped = 1.0 / (sixth + self.sixth_of_radius)
        damped = damped + self.eighth / (fourth * fourth + self.eighth_of_radius)
        energy = (energy - strength * damped) * (r < self.cutoff)
        # Screened nuclei, switched off between 3 and 4 Å.
        x = r * self.screening
        screening = torch.zeros_like(r)
        for weight, exponent in self.screened:
            screening = screening + weight * torch.exp(-exponent * x)
        return energy + self.nuclei * inverse * screening * (1.0 - smooth_step(r - 3.0))
