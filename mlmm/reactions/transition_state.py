"""Saddle points of first order: search by sella, then the modes, and whether they are those of the reaction.

Hermes, Sargsyan, Najm and Zádor, J. Chem. Theory Comput. 18, 6974 (2022), doi 10.1021/acs.jctc.2c00395.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlmm.errors import MissingPackageError
from mlmm.reactions.hessian import Hessian, Modes, hessian, normal_modes
from mlmm.reactions.options import TransitionStateOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import FORCE_OF_ASE, ReactionSurface, force_norm
from mlmm.reactions.variables import SurfaceVariables
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["SaddleResult", "SaddleVerdict", "find_saddle", "judge_saddle", "mode_overlaps", "oriented"]

#: Imaginary modes above this (1/cm) are within the error of differences: floppy motions, not reactions.
SMALL_IMAGINARY = -30.0
#: Part of the variables' gradients that the imaginary mode has to contain.
_ALONG = 0.3


@dataclass(frozen=True)
class SaddleResult:
    """A stationary point with its modes.

    Parameters
    ----------
    positions : ndarray, shape (n, 3), nm
    energy : float
        kJ/mol.
    force : float
        Largest force on an atom, kJ/mol/nm.
    converged : bool
    steps : int
    hessian : Hessian
    modes : Modes
    overlaps : dict of str to float
        See `mode_overlaps`.
    memory : ndarray, optional
    """

    positions: np.ndarray
    energy: float
    force: float
    converged: bool
    steps: int
    hessian: Hessian
    modes: Modes
    overlaps: dict[str, float] = field(default_factory=dict)
    memory: np.ndarray | None = None


@dataclass(frozen=True)
class SaddleVerdict:
    """Whether a stationary point is a saddle point of the reaction that was meant, and what to do if not."""

    level: str
    finding: str
    advice: str = ""


def find_saddle(
    surface: ReactionSurface,
    guess: np.ndarray,
    options: TransitionStateOptions | None = None,
    *,
    expected: SurfaceVariables | None = None,
    memory: np.ndarray | None = None,
    progress: Progress | None = None,
) -> SaddleResult:
    """Walk uphill along one mode and downhill along all others, then differentiate twice.

    Parameters
    ----------
    surface : ReactionSurface
    guess : ndarray, shape (n, 3), nm
    options : TransitionStateOptions, optional
    expected : SurfaceVariables, optional
        Along which the imaginary mode should point.
    memory : ndarray, optional
        Environment at rest.
    progress : Progress, optional
        Kept after each step, and after each batch of displacements.

    Raises
    ------
    MissingPackageError
        sella is not installed.
    """
    options, progress = options or TransitionStateOptions(), progress or Progress()
    where, done = progress.get("positions"), progress.get("steps")
    steps = 0 if done is None else int(done)
    if not progress.get("arrived"):
        begin = guess if where is None else where
        where, steps, memory = _search(surface, begin, options, memory, steps, progress)
        progress.keep("search ended", positions=where, steps=steps, arrived=True)
    assert where is not None
    second = hessian(surface, where, options.displacement, memory=memory, progress=progress.part("hessian"))
    modes = normal_modes(
        second.matrix, surface.masses, where, free=surface.free, dimensions=surface.dimensions
    )
    force = force_norm(second.forces)
    modes, overlaps = oriented(modes, expected, where, surface.masses)
    return SaddleResult(
        positions=where,
        energy=second.energy,
        force=force,
        converged=force <= 1.5 * options.force_tolerance,
        steps=steps,
        hessian=second,
        modes=modes,
        overlaps=overlaps,
        memory=memory,
    )


def _search(
    surface: ReactionSurface,
    guess: np.ndarray,
    options: TransitionStateOptions,
    memory: np.ndarray | None,
    done: int,
    progress: Progress,
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Positions, steps and memory at the end of sella's search."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sella import Sella
    except ImportError as error:
        raise MissingPackageError("sella", str(error), "pip install 'mlmm[reactions]'") from error
    atoms = surface.atoms(guess, memory)
    internal = options.coordinates == "internal" or (
        options.coordinates == "auto" and surface.free and len(surface) > 3
    )
    given: dict[str, Any] = {}
    if options.hessian == "full":
        part = progress.part("guess")
        first = hessian(surface, guess, options.displacement, memory=memory, progress=part)
        given = {"hessian_function": _Derivatives(surface, options.displacement, first.matrix)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not internal:
            # An environment, or a field, holds translation and rotation: they are coordinates like others.
            given |= {"proj_trans": surface.free, "proj_rot": surface.free}
        given |= {"order": 1, "internal": internal, "logfile": None}
        search = Sella(atoms, **given)
        tolerance = options.force_tolerance / FORCE_OF_ASE
        steps = done
        for _ in search.irun(fmax=tolerance, steps=max(options.steps - done, 0)):
            steps = done + int(search.nsteps)
            now = atoms.positions * ANGSTROM
            force = force_norm(atoms.get_forces()) * FORCE_OF_ASE
            progress.keep(f"step {steps}: largest force {force:.1f} kJ/mol/nm", positions=now, steps=steps)
    assert atoms.calc is not None
    return atoms.positions * ANGSTROM, steps, atoms.calc.memory


class _Derivatives:
    """Second derivatives for sella, eV/Å²: those of the guess first, computed anew when asked again."""

    def __init__(self, surface: ReactionSurface, displacement: float, first: np.ndarray):
        self._surface, self._displacement = surface, displacement
        self._first: np.ndarray | None = first

    def __call__(self, atoms: Any) -> np.ndarray:
        matrix, self._first = self._first, None
        if matrix is None:
            where, memory = atoms.positions * ANGSTROM, atoms.calc.memory
            matrix = hessian(self._surface, where, self._displacement, memory=memory).matrix
        return matrix * (ANGSTROM**2 / ELECTRONVOLT)


def oriented(
    modes: Modes, variables: SurfaceVariables | None, positions: np.ndarray, masses: np.ndarray
) -> tuple[Modes, dict[str, float]]:
    """Modes whose lowest one lets the first variable grow, and its cosines with all of them.

    Diagonalisation gives a mode in any of its two directions; this one has a meaning. Arguments as of
    `mode_overlaps`; without variables modes stay as they are.
    """
    if variables is None:
        return modes, {}
    overlaps = mode_overlaps(modes, variables, positions, masses)
    if next(iter(overlaps.values())) >= 0.0:
        return modes, overlaps
    return modes.turned(), {name: -value for name, value in overlaps.items()}


def mode_overlaps(
    modes: Modes, variables: SurfaceVariables, positions: np.ndarray, masses: np.ndarray
) -> dict[str, float]:
    """Cosine between the lowest mode and the gradient of each variable, in mass-weighted coordinates.

    The gradient ∂ξ/∂q = m^(−1/2) ∂ξ/∂R is the direction in which ξ changes at the least kinetic energy. 1 or
    −1: the mode is motion along the variable; 0: the mode leaves it as it is.

    Parameters
    ----------
    modes : Modes
    variables : SurfaceVariables
    positions : ndarray, shape (n, 3), nm
    masses : ndarray, shape (n,), amu
    """
    gradients = variables.values_and_gradients(positions)[1] / np.sqrt(masses)[:, None]
    return {
        name: float((gradient * modes.mass_weighted[0]).sum() / np.linalg.norm(gradient))
        for name, gradient in zip(variables.names, gradients, strict=True)
    }


def judge_saddle(
    modes: Modes, overlaps: dict[str, float], converged: bool, command: str = "mlmm ts"
) -> SaddleVerdict:
    """Say whether a stationary point is a saddle point of first order, along the variables that were meant.

    Parameters
    ----------
    modes : Modes
    overlaps : dict of str to float
    converged : bool
    command : str
        The verb that is advised to be run again.
    """
    imaginary = modes.imaginary
    clear = imaginary[imaginary < SMALL_IMAGINARY]
    shown = ", ".join(f"{abs(value):.0f}i" for value in imaginary) or "none"
    if not converged:
        return SaddleVerdict(
            "bad",
            f"the search has not converged; imaginary modes so far: {shown} 1/cm",
            f"go on with more steps ({command} … --resume --set ts.steps=…), or begin nearer: from a path "
            "whose highest image has climbed",
        )
    if len(clear) == 0:
        return SaddleVerdict(
            "bad",
            f"no imaginary mode beyond {abs(SMALL_IMAGINARY):.0f}i 1/cm (imaginary: {shown}): a minimum",
            "begin from the highest image of a path (mlmm neb … and --from), not from a minimum",
        )
    if len(clear) > 1:
        return SaddleVerdict(
            "bad",
            f"{len(clear)} imaginary modes, {shown} 1/cm: a saddle point of higher order",
            "go down the second mode: its two displaced structures are second_mode_plus.xyz and "
            f"second_mode_minus.xyz; begin {command} from one of them with ts.guess",
        )
    if overlaps:
        part = max(abs(value) for value in overlaps.values())
        along = ", ".join(f"{value:+.2f} along {name}" for name, value in overlaps.items())
        if part < _ALONG:
            return SaddleVerdict(
                "look",
                f"one imaginary mode, {shown} 1/cm, that hardly moves the variables ({along})",
                "look at the movie of the mode: this may be the saddle point of another motion; begin from a "
                "scan or path along the variables",
            )
        return SaddleVerdict("ok", f"one imaginary mode, {shown} 1/cm, {along}")
    return SaddleVerdict("ok", f"one imaginary mode, {shown} 1/cm")
