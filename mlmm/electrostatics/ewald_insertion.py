"""Ewald insertion: what a region's flexible multipoles add to fixed charges under PME, with all forces.

OpenMM's PME carries fixed charges q0 on the atoms of the region. Their flexible charges q, dipoles mu and
quadrupoles Q (traceless, half of a second moment) add

    E = K sum_i [(q_i − q0_i) Phi_i + mu_i·∇Phi_i + Q_i:∇∇Phi_i] + E_images,

Phi the potential of all other charges c of the periodic system, by Ewald's sum with a splitting of its own:

    E_direct = K sum_(i,m) c_m [Dq_i B0 + (mu_i·D) B1 + (D·Q_i·D) B2],    D = x_m − r_i, |D| < r_c,
    E_reciprocal = K (8 pi/V) sum_(half of k) w(k)/k² Re[S_L* S_M],
    S_L = sum_i (Dq_i + i k·mu_i − k·Q_i·k) exp(i k·r_i),    S_M = sum_m c_m exp(i k·x_m).

B0 = 1/r − F(r²/r_c²)/r_c with the smooth part F of `mlmm.electrostatics.prolate_splitting`, B(k+1) =
−B(k)'/r, and w = psi_0(k r_c/c)/psi_0(0) up to k = c/r_c, where both sums end.
There is no self term, since the two sets are disjoint, and no background, since the charges Dq add up to
zero. q0 drops out of the energy up to E_images, the region's interaction with its own images beyond that of
q0, to leading order in a cube: K (2 pi/3V) [Q Theta − (|d|² − |d0|²)], d = sum(q r + mu), d0 = sum q0 r,
Theta = sum(Dq r² + 2 mu·r). The energy is one function of the positions: charges that answer to the field are
differentiated with everything else, which is where truncated sums go wrong.

In an open system r_c is infinite and nothing is reciprocal. In a box r_c is a fixed share of its smallest
width and k are all vectors up to c/r_c *of that box*, so that the sum follows one that a barostat changes:
with all lengths scaled, its error is what it was, and with one length scaled no k is lost that the others
need.

The charges c may be Gaussians of a small width, c erf(b r)/r with b = 1/(sqrt(2) width): beyond 8.5 widths
points to the last digit, yet of finite potential on top of an atom, where a point charge without a repulsive
wall of its own (a hydrogen of most water models) would pull without limit. The bare q0 c/r of the force field
is taken out there.
"""

from __future__ import annotations

import math
from typing import Optional

import torch
from numpy.polynomial import polynomial

from mlmm.electrostatics.boxes import box_widths, half_space
from mlmm.electrostatics.insertion import Insertion
from mlmm.electrostatics.prolate_splitting import bandwidth, smooth_part
from mlmm.errors import EmbeddingError
from mlmm.kernels.ewald import native_ewald_wanted
from mlmm.potentials.multipoles import multipole_energies, smeared_potentials, traceless
from mlmm.structures import minimum_image

__all__ = ["EwaldInsertion"]

#: Where the end of the direct sum is made smooth, as a share of its cutoff.
_TAPER = 0.95
#: Cost of a pair in units of that of a charge and a wave, as measured with the compiled kernel.
_PAIR_COST = 50.0
#: 1/b beyond which a Gaussian charge is a point: erfc(6) = 2e-17.
_REACH = 6.0


class EwaldInsertion(Insertion):
    """Energy of flexible multipoles among fixed charges, beyond that of q0; TorchScript can compile it.

    Parameters
    ----------
    reference_charges : torch.Tensor, shape (n,), e
        q0 of the region's atoms in OpenMM.
    external_charges : torch.Tensor, shape (M,), e
        Of all other particles.
    cell : torch.Tensor, shape (3, 3), nm, optional
        Box when the sum is set up; None for an open system.
    tolerance : float
        Error of differences of the potential, in units of that of 1 e at 1 nm; half of what w has fallen to
        where the sums end.
    cutoff : float, optional
        r_c in this box, nm, at least nine widths; by default such that both sums together cost least.
    width : float
        Standard deviation of Gaussian charges, nm; 0: points.

    Raises
    ------
    EmbeddingError
        A cutoff beyond half of the box or below nine widths of a charge, a tolerance that is none, or charges
        wider than a bond is long.
    """

    def __init__(
        self,
        reference_charges: torch.Tensor,
        external_charges: torch.Tensor,
        cell: torch.Tensor | None,
        tolerance: float = 1e-4,
        cutoff: float | None = None,
        width: float = 0.0,
    ):
        super().__init__(reference_charges, external_charges, cell, width)
        if not 1e-12 < tolerance < 0.1:
            raise EmbeddingError(
                "a tolerance of the Ewald sum between 1e-12 and 0.1", f"{tolerance:g}", "write 1e-4"
            )
        self.share = 0.0
        self.bandwidth, self.tolerance = bandwidth(tolerance), float(tolerance)
        smooth = smooth_part(self.bandwidth, tolerance)
        # (−2 d/du)^k F in t = 2u − 1, of which −(1/r d/dr)^k F(r²/r_c²)/r_c is made.
        self.smooth = [((-4.0) ** k * polynomial.polyder(smooth, k)).tolist() for k in range(3)]
        triples = torch.zeros(0, 3, dtype=torch.float64)
        if cell is not None:
            cell = cell.to(torch.float64).cpu()
            smallest = float(box_widths(cell).min())
            # A Gaussian charge is a point before the taper begins.
            least = _REACH * math.sqrt(2.0) * self.width / _TAPER
            if cutoff is None:
                volume, n = float(torch.linalg.det(cell)), max(len(reference_charges), 1)
                cutoff = min(max(_cheapest_cutoff(volume, n, self.bandwidth), least), 0.5 * smallest)
            if not (least <= cutoff <= 0.5 * smallest and cutoff > 0.0):
                raise EmbeddingError(
                    f"a cutoff of the direct sum from {least:.3g} nm, nine widths of a charge, up to half of "
                    f"the box, {0.5 * smallest:.3g} nm",
                    f"{cutoff:g} nm",
                    "leave it out, use narrower charges (charge_width), or a larger box",
                )
            self.share = cutoff / smallest
            triples = half_space(cell, self.bandwidth / cutoff)
        self.register_buffer("triples", triples)
        self.register_buffer("coefficients", torch.from_numpy(smooth))
        self.register_buffer("built", torch.zeros(3, 3, dtype=torch.float64) if cell is None else cell)
        self.taper, self.pi, self.reach = _TAPER, math.pi, _REACH
        self.native = native_ewald_wanted()

    @torch.jit.export
    def cutoff(self, cell: Optional[torch.Tensor]) -> float:
        """r_c in a box, nm; it is never more than half of its smallest width."""
        if cell is None:
            return float("inf")
        return self.share * float(box_widths(cell.detach()).min())

    def forward(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        charges: torch.Tensor,
        dipoles: torch.Tensor,
        quadrupoles: torch.Tensor,
        cell: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """As `Insertion`, in one pass of the compiled kernel where there is one."""
        if self.native and positions.device.type == "cpu":
            energies = torch.ops.mlmm.ewald_energies(
                positions,
                external_positions,
                charges,
                dipoles,
                quadrupoles,
                cell,
                self.external,
                self.reference,
                self.waves(cell),
                self.coefficients,
                self._ranges(cell),
            )
        else:
            offset, potential, gradient, curvature = self._in_torch(positions, external_positions, cell)
            energies = offset + multipole_energies(
                charges, dipoles, quadrupoles, potential, gradient, curvature
            )
        return energies + self.own_energy(positions, charges, dipoles, cell)

    @torch.jit.export
    def potentials(
        self, positions: torch.Tensor, external_positions: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a model takes that makes its own multipoles out of it.

        Returns
        -------
        offset : torch.Tensor, shape (n,), kJ/mol
            What the atoms' energies lack beside multipoles times potential: −q0 Phi of the fixed charges.
        potential, gradient, curvature : torch.Tensor, shapes (n,), (n, 3) and (n, 3, 3)
            Phi in kJ/mol/e, ∇Phi and the traceless part of ∇∇Phi; differentiable in the positions.
        """
        if self.native and positions.device.type == "cpu":
            found = torch.ops.mlmm.ewald_potentials(
                positions,
                external_positions,
                cell,
                self.external,
                self.reference,
                self.waves(cell),
                self.coefficients,
                self._ranges(cell),
            )
            curvature = traceless(found[:, 5:].unflatten(1, (3, 3)))
            return found[:, 0], found[:, 1], found[:, 2:5], curvature
        offset, potential, gradient, curvature = self._in_torch(positions, external_positions, cell)
        return offset, potential, gradient, traceless(curvature)

    @torch.jit.export
    def own_energy(
        self,
        positions: torch.Tensor,
        charges: torch.Tensor,
        dipoles: torch.Tensor,
        cell: Optional[torch.Tensor],
    ) -> torch.Tensor:
        """Share of each atom in E_images, kJ/mol (n,); zero without a cubic box."""
        own = self.image_energy(positions, charges, dipoles, cell)
        return (self.coulomb * own / charges.shape[0]).expand(charges.shape[0])

    @torch.jit.export
    def waves(self, cell: Optional[torch.Tensor]) -> torch.Tensor:
        """Integers n (K, 3) of the reciprocal vectors 2 pi H⁻¹ n of the sum in a box, one of each pair ±n."""
        if cell is None or bool(torch.equal(cell.detach(), self.built)):
            return self.triples
        return half_space(cell.detach(), self.bandwidth / self.cutoff(cell))

    def _ranges(self, cell: Optional[torch.Tensor]) -> list[float]:
        """Bandwidth, cutoff and constants, for the kernel."""
        return [self.bandwidth, self.cutoff(cell), self.taper, self.width, self.coulomb]

    def _smooth_part(self, u: torch.Tensor, order: int) -> torch.Tensor:
        """(−2 d/du)^order F."""
        t = 2.0 * u - 1.0
        value = torch.zeros_like(t)
        for coefficient in self.smooth[order][::-1]:
            value = value * t + coefficient
        return value

    def _smooth_parts(
        self, square: torch.Tensor, cutoff: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """S = F(r²/r_c²)/r_c, −S'/r and (S'/r)'/r."""
        inverse = 1.0 / cutoff
        u = square * inverse**2
        first, second = self._smooth_part(u, 1) * inverse**3, self._smooth_part(u, 2) * inverse**5
        return self._smooth_part(u, 0) * inverse, first, second

    def _in_torch(
        self, positions: torch.Tensor, external_positions: torch.Tensor, cell: Optional[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `potentials`, the second derivatives with a trace that traceless quadrupoles do not see."""
        cutoff = self.cutoff(cell)
        bare, potential, gradient, curvature = self._direct(positions, external_positions, cell, cutoff)
        if cell is not None:
            more, slope, bend = self._reciprocal(positions, external_positions, cell, cutoff)
            bare, potential = bare + more, potential + more
            gradient, curvature = gradient + slope, curvature + bend
        offset = -self.coulomb * self.reference * bare
        return offset, self.coulomb * potential, self.coulomb * gradient, self.coulomb * curvature

    def _direct(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        cell: Optional[torch.Tensor],
        cutoff: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Screened part within the cutoff, in units of K: the potential of points, which the fixed charges
        meet in the force field, and that of the charges with its derivatives, whose trace is left out.
        """
        # The smooth part is no polynomial beyond the cutoff, which a box that shrinks takes with it.
        blurred = min(self.reach * math.sqrt(2.0) * self.width, cutoff)
        # Detached, not under no_grad: TorchScript would share its subexpressions with what has a gradient.
        between = external_positions.detach().unsqueeze(0) - positions.detach().unsqueeze(1)
        squares = minimum_image(between, cell).square().sum(2)
        # What is not a number stays among the pairs, so that their energy is none either.
        near = (~((squares >= cutoff**2) | (squares < blurred**2))).nonzero()
        close = (squares < blurred**2).nonzero()
        i, m = near[:, 0], near[:, 1]
        vectors = external_positions.index_select(0, m) - positions.index_select(0, i)
        vectors = minimum_image(vectors, cell)
        square = vectors.square().sum(1)
        distance = square.sqrt()
        s0, s1, s2 = self._smooth_parts(square, cutoff)
        b0 = 1.0 / distance
        b1 = b0 / square
        b0, b1, b2 = b0 - s0, b1 - s1, 3.0 * b1 / square - s2
        # What is left at the cutoff is of the size of the tolerance; it ends smoothly all the same.
        t = ((distance / cutoff - self.taper) / (1.0 - self.taper)).clamp(0.0, 1.0)
        strength = self.external.index_select(0, m) * (1.0 - t * t * t * (10.0 - t * (15.0 - 6.0 * t)))
        n = positions.shape[0]
        potential = torch.zeros_like(positions[:, 0]).index_add(0, i, strength * b0)
        slopes = vectors * (strength * b1).unsqueeze(1)
        bends = (vectors * (strength * b2).unsqueeze(1)).unsqueeze(2) * vectors.unsqueeze(1)
        gradient = torch.zeros_like(positions).index_add(0, i, slopes)
        curvature = torch.zeros_like(positions).unsqueeze(2).expand(n, 3, 3).index_add(0, i, bends)
        if self.width == 0.0 or close.shape[0] == 0:
            return potential, potential, gradient, curvature
        i, m = close[:, 0], close[:, 1]
        vectors = external_positions.index_select(0, m) - positions.index_select(0, i)
        vectors = minimum_image(vectors, cell)
        square = vectors.square().sum(1)
        f0, f1, f2 = smeared_potentials(math.sqrt(0.5) / self.width, square)
        s0, s1, s2 = self._smooth_parts(square, cutoff)
        strength = self.external.index_select(0, m)
        bare = potential.index_add(0, i, strength * (square.rsqrt() - s0))
        potential = potential.index_add(0, i, strength * (f0 - s0))
        slopes = vectors * (strength * (f1 - s1)).unsqueeze(1)
        bends = (vectors * (strength * (f2 - s2)).unsqueeze(1)).unsqueeze(2) * vectors.unsqueeze(1)
        return bare, potential, gradient.index_add(0, i, slopes), curvature.index_add(0, i, bends)

    def _reciprocal(
        self,
        positions: torch.Tensor,
        external_positions: torch.Tensor,
        cell: torch.Tensor,
        cutoff: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Smooth part and its derivatives, in units of K."""
        inverse, triples = torch.linalg.inv(cell), self.waves(cell)
        vectors = 2.0 * self.pi * triples @ inverse.t()
        square = vectors.square().sum(1)
        # psi_0 = F + 2 u F' up to a factor.
        u = square * (cutoff / self.bandwidth) ** 2
        psi = self._smooth_part(u, 0) - u * self._smooth_part(u, 1)
        strength = psi / self._smooth_part(torch.zeros_like(u[:1]), 0) / square
        strength = strength * (8.0 * self.pi / torch.linalg.det(cell))
        of_all = self._structure_factor(external_positions @ inverse, triples)
        own = positions @ vectors.t()
        real, imaginary = strength * of_all[0], strength * of_all[1]
        cosine, sine = torch.cos(own), torch.sin(own)
        even = cosine * real + sine * imaginary
        odd = cosine * imaginary - sine * real
        products = (vectors.unsqueeze(2) * vectors.unsqueeze(1)).flatten(1)
        return even.sum(1), odd @ vectors, -(even @ products).unflatten(1, (3, 3))

    def _structure_factor(self, coordinates: torch.Tensor, triples: torch.Tensor) -> torch.Tensor:
        """Real and imaginary part of sum_m c_m exp(2 pi i n·s_m) of all triples, (2, K)."""
        most = triples.abs().amax(0).to(torch.int64)
        x, y, z = int(most[0]), int(most[1]), int(most[2])
        angles = 2.0 * self.pi * coordinates
        steps = torch.arange(x + 1, dtype=torch.float64, device=angles.device)
        first = angles[:, 0:1] * steps
        second = angles[:, 1:2] * torch.arange(-y, y + 1, dtype=torch.float64, device=angles.device)
        third = angles[:, 2:3] * torch.arange(-z, z + 1, dtype=torch.float64, device=angles.device)
        # One product for each pair of numbers along x and y, and a product of matrices over all charges.
        plane = (first.unsqueeze(2) + second.unsqueeze(1)).flatten(1)
        real = torch.cos(plane) * self.external.unsqueeze(1)
        imaginary = torch.sin(plane) * self.external.unsqueeze(1)
        cosine, sine = torch.cos(third), torch.sin(third)
        whole_real = real.t() @ cosine - imaginary.t() @ sine
        whole_imaginary = real.t() @ sine + imaginary.t() @ cosine
        n = triples.to(torch.int64)
        places = (n[:, 0] * (2 * y + 1) + n[:, 1] + y) * (2 * z + 1) + n[:, 2] + z
        return torch.stack([whole_real.flatten(), whole_imaginary.flatten()]).index_select(1, places)


def _cheapest_cutoff(volume: float, n: int, bandwidth: float) -> float:
    """r_c that minimises N K + `_PAIR_COST` n N (4 pi/3) r_c³/V with K waves up to c/r_c, nm."""
    waves = volume * bandwidth**3 / (12.0 * math.pi**2)
    pairs = _PAIR_COST * n * 4.0 * math.pi / (3.0 * volume)
    return float((waves / pairs) ** (1.0 / 6.0))
