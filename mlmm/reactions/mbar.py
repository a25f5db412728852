"""Free energies of windows from all samples together: MBAR, and the same for resampled data.

With u_k(x_n) the reduced bias of window k at sample n and N_k its number of samples (Shirts and Chodera, J.
Chem. Phys. 129, 124105 (2008), doi 10.1063/1.2978177),

    f_k = -ln sum_n c_n exp(-u_k(x_n)) / sum_j N_j exp(f_j - u_j(x_n)),

where c_n = 1, in a resampled set the number of times that sample n was drawn, and for correlated samples 1/g
with the number g of them that counts as one: N_k is then the number of independent samples.
"""

from __future__ import annotations

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.samples import load_pymbar

__all__ = ["log_mixture", "overlap_matrix", "resampled", "solve_mbar"]

_PROTOCOL = (
    {"method": "adaptive", "options": {"maxiter": 1000}},
    {"method": "L-BFGS-B", "options": {"maxiter": 2000}},
)
_TOLERANCE, _ITERATIONS = 1e-9, 200


def solve_mbar(reduced: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Reduced free energies of the windows by pymbar, the first one 0.

    Parameters
    ----------
    reduced : ndarray, shape (K, N)
        Bias of each window at every sample over kT.
    counts : ndarray, shape (K,)
        Samples of each window, which follow one another in `reduced`.
    """
    mbar = load_pymbar().MBAR(reduced, np.asarray(counts), solver_protocol=_PROTOCOL)
    return np.asarray(mbar.f_k, dtype=float)


def resampled(
    reduced: np.ndarray, counts: np.ndarray, drawn: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The MBAR equations for samples that count several times or not at all, by Newton's method.

    Parameters
    ----------
    reduced : ndarray, shape (K, N)
    counts : ndarray, shape (K,)
        Sum of c_n over the samples of each window.
    drawn : ndarray, shape (N,)
        c_n.
    start : ndarray, shape (K,)
        Free energies of the whole set.

    Returns
    -------
    free_energies : ndarray, shape (K,)
    log_weights : ndarray, shape (N,)
        ln of c_n / sum_k N_k exp(f_k - u_k(x_n)): weights without bias; -inf where c_n = 0.

    Raises
    ------
    ConfigError
        No solution: windows without any overlap.
    """
    used = drawn > 0
    bias, drawn_used = reduced[:, used], drawn[used].astype(float)
    logs = np.log(np.maximum(counts, 1e-300))[:, None]
    free = start.copy()
    for _ in range(_ITERATIONS):
        exponents = logs + free[:, None] - bias
        top = exponents.max(axis=0)
        shares = np.exp(exponents - top)
        shares /= shares.sum(axis=0)
        # Expected number of samples in each window; at the solution it is N_k.
        weighted = shares * drawn_used
        gradient = weighted.sum(axis=1) - counts
        if np.abs(gradient).max() < _TOLERANCE * counts.sum():
            break
        curvature = np.diag(weighted.sum(axis=1)) - weighted @ shares.T
        step = np.zeros(len(free))
        step[1:] = np.linalg.lstsq(curvature[1:, 1:], -gradient[1:], rcond=None)[0]
        longest = float(np.abs(step).max())
        free += step * min(1.0, 2.0 / longest if longest else 1.0)
    else:
        raise ConfigError(
            "windows whose samples overlap", "MBAR equations without a solution", "add windows in between"
        )
    found = np.full(reduced.shape[1], -np.inf)
    found[used] = np.log(drawn_used) - log_mixture(bias, counts, free)
    return free - free[0], found


def log_mixture(reduced: np.ndarray, counts: np.ndarray, free: np.ndarray) -> np.ndarray:
    """ln sum_k N_k exp(f_k - u_k(x_n)) for every sample; arguments as for `resampled`."""
    with np.errstate(divide="ignore"):
        exponents = np.log(np.asarray(counts, dtype=float))[:, None] + free[:, None] - reduced
    top = exponents.max(axis=0)
    return top + np.log(np.exp(exponents - top).sum(axis=0))


def overlap_matrix(
    reduced: np.ndarray, counts: np.ndarray, free: np.ndarray, drawn: np.ndarray | None = None
) -> np.ndarray:
    """O_kl = sum_n c_n W_nk W_nl N_l: probability that a sample of window k belongs to l; rows add up to 1.

    Klimovich et al., J. Comput.-Aided Mol. Des. 29, 397 (2015), doi 10.1007/s10822-015-9840-9. Arguments as
    for `resampled`.
    """
    weights = np.exp(free[:, None] - reduced - log_mixture(reduced, counts, free))
    return ((weights if drawn is None else weights * drawn) @ weights.T) * np.asarray(counts)[None, :]
