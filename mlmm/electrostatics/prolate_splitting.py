"""Splitting of 1/r whose two sums end soonest: the prolate spheroidal wave function of order zero.

Ewald's sum writes 1/r = [1 − Phi(r/r_c)]/r + Phi(r/r_c)/r. The first part is summed over pairs up to r_c, the
second over waves. With Phi the integral of a function psi on [0, 1], normalised to Phi(1) = 1, nothing of the
first part is left at r_c, and the waves of the second have the weights of Coulomb's law times the cosine
transform of psi. Among all functions that end at 1, the prolate spheroidal wave function psi_0 of bandwidth c
has the least transform beyond c; up to there the transform is psi_0 itself (Slepian and Pollak,
doi 10.1002/j.1538-7305.1961.tb03976.x). So

    waves up to k = c/r_c,    weights times psi_0(k r_c/c)/psi_0(0).

A Gaussian (Ewald's choice) that leaves as little at both ends needs two to three times as many waves. Prolate
functions for Ewald sums in molecular dynamics: Liang, Lu, Barnett, Greengard and Jiang, arXiv 2505.09727.

Here everything is one polynomial F(u) = Phi(x)/x, u = x²: the smooth part is F(r²/r_c²)/r_c, and
psi_0(x) = F + 2 u F' up to a factor.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev, legendre
from scipy.optimize import brentq

__all__ = ["bandwidth", "prolate_function", "smooth_part"]

#: Bandwidths between which tolerances from 0.2 to 1e-13 lie.
_NARROWEST, _WIDEST = 0.5, 36.0
#: Of quadrature and interpolation: enough for the widest band.
_NODES = 40


def prolate_function(c: float) -> np.ndarray:
    """Legendre series of the prolate spheroidal wave function psi_0 of a bandwidth, 1 in the middle.

    The eigenfunction of the least eigenvalue of −d/dx (1 − x²) d/dx + c² x² on [−1, 1], as an eigenvector
    among normalised even Legendre polynomials (Xiao, Rokhlin and Yarvin, doi 10.1088/0266-5611/17/4/315).

    Parameters
    ----------
    c : float
        Bandwidth.

    Returns
    -------
    np.ndarray, shape (M,)
        Coefficients of P_0, P_1 and so on; those of odd polynomials are 0.
    """
    k = np.arange(0.0, 60.0 + 2.0 * c, 2.0)
    diagonal = k * (k + 1) + c**2 * (2 * k * (k + 1) - 1) / ((2 * k + 3) * (2 * k - 1))
    beside = c**2 * (k + 1) * (k + 2) / ((2 * k + 3) * np.sqrt((2 * k + 1) * (2 * k + 5)))
    matrix = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    series = np.zeros(2 * len(k))
    series[::2] = np.linalg.eigh(matrix)[1][:, 0] * np.sqrt(k + 0.5)
    return series / legendre.legval(0.0, series)


def bandwidth(tolerance: float) -> float:
    """Bandwidth c of the prolate function that has fallen to 2·tolerance of its middle at its end.

    With it differences of the potential between atoms among molecules are right to about the tolerance times
    that of 1 e at 1 nm (0.01 kJ/mol/e for 1e-4), and forces are closer than those of a Gaussian splitting
    with erfc(a r_c) = tolerance.

    Parameters
    ----------
    tolerance : float
        From 1e-13 to 0.1.
    """

    def above(c: float) -> float:
        return float(np.log(abs(legendre.legval(1.0, prolate_function(c))) / (2.0 * tolerance)))

    return float(brentq(above, _NARROWEST, _WIDEST, xtol=1e-6))


def smooth_part(c: float, tolerance: float) -> np.ndarray:
    """Polynomial F of the smooth part F(r²/r_c²)/r_c, with derivatives to far below the tolerance.

    Parameters
    ----------
    c : float
        Bandwidth.
    tolerance : float
        Of the sum.

    Returns
    -------
    np.ndarray, shape (D + 1,)
        Coefficients of powers of t = 2u − 1, u = r²/r_c² from 0 to 1. Around the middle of its range none is
        larger than the function, so that no digit is lost in their sum.
    """
    psi = prolate_function(c)
    share, weight = legendre.leggauss(_NODES)
    share, weight = 0.5 * (share + 1.0), 0.5 * weight
    whole = weight @ legendre.legval(share, psi)

    def smooth(t: np.ndarray) -> np.ndarray:
        # Phi(x)/x is the mean of psi up to x.
        x = np.sqrt(0.5 * (t + 1.0))
        return np.asarray(legendre.legval(np.multiply.outer(x, share), psi) @ weight / whole)

    points = chebyshev.chebpts1(_NODES)
    series = np.asarray(chebyshev.chebfit(points, smooth(points), _NODES - 1))
    # A term T_j is left out where even its second derivative, up to j⁴/3, is small, or nothing but rounding.
    size = np.abs(series)
    size[size < 1e-14] = 0.0
    lost = np.cumsum((size * np.arange(len(series)) ** 4.0)[::-1])[::-1]
    kept = int(np.nonzero(lost > 0.1 * tolerance)[0].max()) + 1
    return np.asarray(chebyshev.cheb2poly(series[:kept]))
