"""Energy surfaces whose stationary points are known: Müller and Brown's, and springs between atoms."""

from __future__ import annotations

import numpy as np

from mlmm.reactions.surface import Evaluation, ReactionSurface
from mlmm.units import ANGSTROM

#: Minima and saddle points of Müller and Brown's surface (Theor. Chim. Acta 53, 75 (1979)), and energies.
MINIMA = {
    "deep": ((-0.558223634633, 1.441725841805), -146.699517209),
    "middle": ((-0.050010822998, 0.466694104872), -80.767818067),
    "right": ((0.623499404931, 0.028037758529), -108.166724105),
}
SADDLES = {
    "high": ((-0.822001559333, 0.624312802814), -40.664843510),
    "low": ((0.212486582001, 0.292988325107), -72.248940096),
}
_A, _B, _C, _D = (
    np.array(row)
    for row in (
        (-200.0, -100.0, -170.0, 15.0),
        (-1.0, -1.0, -6.5, 0.7),
        (0.0, 0.0, 11.0, 0.6),
        (-10.0, -10.0, -6.5, 0.7),
    )
)
_X, _Y = np.array([1.0, 0.0, -0.5, -1.0]), np.array([0.0, 0.5, 1.5, 1.0])


def mueller_brown(x: float, y: float) -> tuple[float, np.ndarray]:
    """Energy and gradient (2,) in the units of the paper."""
    dx, dy = x - _X, y - _Y
    terms = _A * np.exp(_B * dx**2 + _C * dx * dy + _D * dy**2)
    gradient = [(terms * (2 * _B * dx + _C * dy)).sum(), (terms * (_C * dx + 2 * _D * dy)).sum()]
    return float(terms.sum()), np.array(gradient)


def mueller_brown_surface(
    start: tuple[float, float] = (-0.558, 1.442), wrong: float = 0.0, **options
) -> ReactionSurface:
    """One atom of 1 amu in the plane: a unit of the paper is 1 Å and 1 kJ/mol; `wrong` adds a curl."""

    def evaluate(positions, memory):
        x, y = positions[0, :2] / ANGSTROM
        energy, gradient = mueller_brown(x, y)
        forces = np.zeros((1, 3))
        forces[0, :2] = -gradient / ANGSTROM + wrong * np.array([-y, x]) / ANGSTROM
        return Evaluation(energy, forces)

    return ReactionSurface(
        numbers=np.array([1]),
        positions=at(start),
        masses=np.ones(1),
        make=lambda: evaluate,
        free=False,
        dimensions=2,
        **options,
    )


def at(point: tuple[float, float]) -> np.ndarray:
    """A point of Müller and Brown's surface as positions (1, 3), nm."""
    return np.array([[point[0], point[1], 0.0]]) * ANGSTROM


def springs(positions: np.ndarray, masses: np.ndarray, pairs, constants, lengths) -> ReactionSurface:
    """Atoms joined by harmonic springs, E = Σ k/2 (r − r₀)², nm and kJ/mol."""

    def evaluate(where, memory):
        energy, forces = 0.0, np.zeros_like(where)
        for (a, b), k, length in zip(pairs, constants, lengths, strict=True):
            vector = where[b] - where[a]
            r = np.linalg.norm(vector)
            energy += 0.5 * k * (r - length) ** 2
            pull = k * (r - length) * vector / r
            forces[a] += pull
            forces[b] -= pull
        return Evaluation(energy, forces)

    return ReactionSurface(
        numbers=np.full(len(masses), 1),
        positions=np.array(positions),
        masses=np.array(masses),
        make=lambda: evaluate,
    )
