"""The splitting of 1/r: psi_0 is its own transform, and it needs fewer waves than a Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import legendre, polynomial
from scipy.special import erfc, erfcinv

from mlmm.electrostatics.boxes import half_space
from mlmm.electrostatics.ewald_insertion import EwaldInsertion
from mlmm.electrostatics.prolate_splitting import bandwidth, prolate_function, smooth_part
from mlmm.errors import EmbeddingError

TOLERANCES = (0.05, 1e-3, 1e-4, 1e-6, 1e-9)
#: Where both series are compared.
X = np.linspace(0.0, 1.0, 21)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_the_transform_of_psi_is_psi(tolerance):
    """∫ psi(x) cos(c x y) dx = lambda psi(y): the defining equation, which no Gaussian fulfils."""
    c = bandwidth(tolerance)
    psi = prolate_function(c)
    node, weight = legendre.leggauss(120)

    def deviation(values: np.ndarray, at: np.ndarray) -> float:
        transform = np.cos(c * np.multiply.outer(X, node)) @ (weight * values)
        return float(np.abs(transform / transform[0] - at / at[0]).max())

    assert deviation(legendre.legval(node, psi), legendre.legval(X, psi)) < 1e-13
    assert legendre.legval(1.0, psi) == pytest.approx(2.0 * tolerance, rel=1e-4)
    # Control: a Gaussian of the same curvature ends and is not its own transform.
    assert deviation(np.exp(-0.5 * c * node**2), np.exp(-0.5 * c * X**2)) > tolerance


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_smooth_part_is_the_mean_of_psi(tolerance):
    """F = Phi(x)/x with Phi(1) = 1, and F + 2 u F' is psi; no coefficient is large."""
    c = bandwidth(tolerance)
    smooth = smooth_part(c, tolerance)
    psi = prolate_function(c)
    integral = legendre.legint(psi, lbnd=0.0)
    x = X[1:]
    t = 2.0 * x**2 - 1.0
    exact = legendre.legval(x, integral) / legendre.legval(1.0, integral) / x
    assert np.abs(polynomial.polyval(t, smooth) - exact).max() < 1e-2 * tolerance + 1e-13
    slope = 4.0 * x**2 * polynomial.polyval(t, polynomial.polyder(smooth))
    found = (polynomial.polyval(t, smooth) + slope) / polynomial.polyval(-1.0, smooth)
    assert np.abs(found - legendre.legval(x, psi)).max() < 1e-2 * tolerance + 1e-13
    assert np.abs(smooth).max() < 1.5
    # Control: with one power less it is another function.
    assert np.abs(polynomial.polyval(t, smooth[:-1]) - exact).max() > 1e-4 * tolerance


def gaussian_sum(region, outside, charges, cell, tolerance: float, cutoff: float) -> tuple[np.ndarray, int]:
    """Gradient of the potential by Ewald's own splitting, with its number of waves up to 2 a (a r_c)."""
    a = float(erfcinv(tolerance)) / cutoff
    d = outside[None] - region[:, None]
    d -= np.round(d / cell.diagonal()) * cell.diagonal()
    r = np.linalg.norm(d, axis=2)
    force = (erfc(a * r) / r + 2.0 * a / np.sqrt(np.pi) * np.exp(-((a * r) ** 2))) / r**2
    gradient = ((charges * force * (r < cutoff))[..., None] * d).sum(1)
    n = half_space(torch.tensor(cell), 2.0 * a * a * cutoff).numpy()
    k = 2.0 * np.pi * n / cell.diagonal()
    square = (k**2).sum(1)
    weight = 8.0 * np.pi / np.prod(cell.diagonal()) * np.exp(-square / (4.0 * a * a)) / square
    whole = np.exp(1j * outside @ k.T).T @ charges
    return gradient + (np.exp(-1j * region @ k.T) * whole * weight).imag @ k, len(n)


@pytest.mark.parametrize(("tolerance", "share"), [(1e-3, 0.50), (1e-4, 0.37), (1e-5, 0.32)])
def test_the_same_field_takes_fewer_waves_than_a_gaussian(tolerance, share):
    """Among charges of molecules, one cutoff: a field no worse with a share of the waves."""
    generator = np.random.default_rng(7)
    cell, cutoff = np.diag([3.0, 3.0, 3.0]), 1.2
    centres = generator.random((900, 3)) @ cell
    region = 1.5 + 0.15 * generator.standard_normal((8, 3))
    apart = centres[None] - region[:, None]
    apart -= 3.0 * np.round(apart / 3.0)
    centres = centres[np.linalg.norm(apart, axis=2).min(0) > 0.3]
    arms = generator.standard_normal((len(centres), 2, 3))
    arms *= 0.1 / np.linalg.norm(arms, axis=2, keepdims=True)
    outside = np.concatenate([centres, centres + arms[:, 0], centres + arms[:, 1]])
    charges = np.repeat([-0.8, 0.4, 0.4], len(centres))
    reference = torch.full((8,), 0.125, dtype=torch.float64)

    def prolate(tolerance: float) -> tuple[np.ndarray, int]:
        sum_ = EwaldInsertion(reference, torch.tensor(charges), torch.tensor(cell), tolerance, cutoff)
        found = sum_.potentials(torch.tensor(region), torch.tensor(outside), torch.tensor(cell))
        potentials.append(found[1].numpy() / sum_.coulomb)
        return found[2].numpy() / sum_.coulomb, len(sum_.triples)

    potentials: list[np.ndarray] = []

    exact, _ = gaussian_sum(region, outside, charges, cell, 1e-10, 1.5)
    assert np.abs(prolate(1e-9)[0] - exact).max() < 1e-6 * np.abs(exact).max()
    errors, waves = zip(
        *(
            (np.square(field - exact).mean() ** 0.5, n)
            for field, n in (
                prolate(tolerance),
                gaussian_sum(region, outside, charges, cell, tolerance, cutoff),
            )
        ),
        strict=True,
    )
    assert errors[0] < errors[1] and waves[0] / waves[1] == pytest.approx(share, abs=0.005)
    # The tolerance is what differences of the potential are off by, in units of 1 e at 1 nm.
    assert 0.3 * tolerance < np.std(potentials[1] - potentials[0]) < tolerance
    # Control: as few waves of a Gaussian leave a larger error.
    fewer, n = gaussian_sum(region, outside, charges, cell, 20.0 * tolerance, cutoff)
    assert n < 1.5 * waves[0] and np.square(fewer - exact).mean() ** 0.5 > 3.0 * errors[0]


@pytest.mark.parametrize("native", [True, False])
def test_a_gaussian_charge_ends_before_the_cutoff_and_with_a_box_that_shrinks(native):
    """Field among wide charges in a small box, against that of eight copies in a box of twice the size."""
    generator = np.random.default_rng(21)
    box = 0.92 * torch.eye(3, dtype=torch.float64)
    region, outside = (torch.tensor(generator.random((n, 3))) for n in (4, 20))
    charges = torch.tensor(generator.permutation([0.5, -0.5] * 10))
    reference = torch.zeros(4, dtype=torch.float64)
    copies = torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)
    small = EwaldInsertion(reference, charges, box, 1e-8, width=0.05)
    small.native = small.native and native

    def deviation(scale: float) -> float:
        cell = scale * box
        places = (outside @ cell).unsqueeze(0) + (copies @ cell).unsqueeze(1)
        large = EwaldInsertion(reference, charges.repeat(8), 2.0 * cell, 1e-8, width=0.05)
        exact = large.potentials(region @ cell, places.flatten(0, 1), 2.0 * cell)[2]
        found = small.potentials(region @ cell, outside @ cell, cell)[2]
        return float((found - exact).abs().max() / exact.abs().max())

    assert deviation(1.0) < 1e-6
    # Its cutoff is then below the reach of a charge, 8.5 widths.
    assert small.cutoff(0.75 * box) < 8.0 * 0.05 and deviation(0.75) < 1e-6
    with pytest.raises(EmbeddingError, match=r"from 0\.447 nm, nine widths of a charge"):
        EwaldInsertion(reference, charges, box, cutoff=0.4, width=0.05)
    with pytest.raises(EmbeddingError, match="narrower charges"):
        EwaldInsertion(reference, charges, 0.9 * box, width=0.05)
