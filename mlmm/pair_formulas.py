"""Formulas of pairs and of the switching polynomial: one text for torch, numpy and OpenMM's expressions.

A pair at distance r that a machine-learned potential replaces has, with x = (r − r_on)/(r_off − r_on),

    v_sr = f(x) 4 eps [(sigma/r)¹² − (sigma/r)⁶] + K q q [1/r − T(r)],

f = 1 − g falls from 1 at r_on to 0 at r_off, and T is the smooth tail of 1/r, which equals 1/r from r_off on.
The functions are plain arithmetic on floats, numpy arrays and torch tensors (also in TorchScript); the
`lepton_…` functions write the same coefficients as OpenMM's custom forces read them. The C++ kernels have
their own text; ``tests/vocabulary/test_pair_formulas.py`` holds all of them to one table of values.
"""

from __future__ import annotations

__all__ = [
    "SMOOTH_STEP",
    "TAIL",
    "inverse_tail",
    "lennard_jones",
    "lepton_smooth_step",
    "lepton_tail",
    "smooth_step",
]

#: a, b, c of g(x) = x³ (a − b x + c x²): 0 at x = 0 and 1 at x = 1, C2 at both ends.
SMOOTH_STEP = (10.0, 15.0, 6.0)
#: a, b, c, d, n of T(r) = (a − b p + c p² − d p³)/(n r_off), p = (r/r_off)²; joins 1/r at r_off, C3.
TAIL = (35.0, 35.0, 21.0, 5.0, 16.0)


# TorchScript reads no constants of a module but those that are default arguments, and takes an argument
# without annotation for a tensor.
def smooth_step(x, c: tuple[float, float, float] = SMOOTH_STEP):  # type: ignore[no-untyped-def]
    """g(x) = x³ (10 − 15 x + 6 x²) for x from 0 to 1; OpenMM's switching function is 1 − g.

    Parameters
    ----------
    x : float, ndarray or torch.Tensor
        Between 0 and 1.
    c : tuple of float
        Coefficients, see `SMOOTH_STEP`.
    """
    return x * x * x * (c[0] - x * (c[1] - c[2] * x))


def inverse_tail(  # type: ignore[no-untyped-def]
    r, r_off: float, c: tuple[float, float, float, float, float] = TAIL
):
    """Smooth tail T of 1/r for r below r_off, 1/nm; at r = 0 it is 35/(16 r_off).

    Parameters
    ----------
    r : float, ndarray or torch.Tensor
        nm, at most r_off.
    r_off : float
        nm.
    c : tuple of float
        Coefficients, see `TAIL`.
    """
    u = r / r_off
    p = u * u
    return (c[0] - p * (c[1] - p * (c[2] - c[3] * p))) / (c[4] * r_off)


def lennard_jones(r, sigma, epsilon):  # type: ignore[no-untyped-def]
    """4 eps [(sigma/r)¹² − (sigma/r)⁶], kJ/mol for r and sigma in nm, epsilon in kJ/mol."""
    ratio = sigma / r
    square = ratio * ratio
    sixth = square * square * square
    return 4.0 * epsilon * (sixth * sixth - sixth)


def lepton_smooth_step(x: str) -> str:
    """g of a variable, as an expression of OpenMM's custom forces."""
    a, b, c = SMOOTH_STEP
    return f"{x}^3*({a!r}-{x}*({b!r}-{c!r}*{x}))"


def lepton_tail(p: str, r_off: float) -> str:
    """T of the variable p = (r/r_off)², as an expression of OpenMM's custom forces, 1/nm."""
    a, b, c, d, n = TAIL
    return f"({a!r}-{p}*({b!r}-{p}*({c!r}-{d!r}*{p})))*{1 / (n * r_off)!r}"
