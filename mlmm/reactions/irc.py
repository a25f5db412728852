"""Intrinsic reaction coordinate: steepest descent in mass-weighted coordinates from a saddle point.

Fukui, Acc. Chem. Res. 14, 363 (1981), doi 10.1021/ar00072a001; the integrator is that of sella, constrained
optimisations on spheres (Gonzalez and Schlegel, J. Chem. Phys. 90, 2154 (1989), doi 10.1063/1.456010).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlmm.errors import MissingPackageError, SimulationError
from mlmm.reactions.hessian import hessian, normal_modes
from mlmm.reactions.minimise import minimise
from mlmm.reactions.options import IRCOptions
from mlmm.reactions.progress import Progress
from mlmm.reactions.surface import FORCE_OF_ASE, ReactionSurface, force_norm
from mlmm.reactions.transition_state import oriented
from mlmm.reactions.variables import SurfaceVariables
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = ["IRCResult", "follow_reaction_coordinate"]

#: kJ/mol by which the energy may rise from one point to the next: rounding.
_NOISE = 1e-3


@dataclass(frozen=True)
class IRCResult:
    """Path from one minimum over the saddle point to the other, K points.

    Parameters
    ----------
    positions : ndarray, shape (K, n, 3), nm
    energies : ndarray, shape (K,), kJ/mol
    coordinate : ndarray, shape (K,)
        Arc length in mass-weighted coordinates, nm √amu; 0 at the saddle point.
    saddle : int
        Place of the saddle point.
    arrived : tuple of bool
        Whether the reverse and the forward direction came to where the force vanishes.
    rises : float
        Largest rise of the energy from one point to the next on the way down, kJ/mol.
    ends : tuple of (ndarray, float, bool), or of None
        Minimum beyond each end: positions, energy, whether it has converged.
    """

    positions: np.ndarray
    energies: np.ndarray
    coordinate: np.ndarray
    saddle: int
    arrived: tuple[bool, bool]
    rises: float
    ends: tuple[Any, Any]

    @property
    def monotone(self) -> bool:
        """Whether the energy falls all the way in both directions."""
        return self.rises <= _NOISE


def follow_reaction_coordinate(
    surface: ReactionSurface,
    saddle: np.ndarray,
    options: IRCOptions | None = None,
    *,
    expected: SurfaceVariables | None = None,
    second_derivatives: np.ndarray | None = None,
    memory: np.ndarray | None = None,
    progress: Progress | None = None,
) -> IRCResult:
    """Follow the path downhill from a saddle point, in both directions or one.

    Parameters
    ----------
    surface : ReactionSurface
    saddle : ndarray, shape (n, 3), nm
    options : IRCOptions, optional
    expected : SurfaceVariables, optional
        The first of them grows in the direction that is called forward.
    second_derivatives : ndarray, shape (3n, 3n), kJ/mol/nm², optional
        At the saddle point; computed by default.
    memory : ndarray, optional
        Environment at rest.
    progress : Progress, optional
        Kept after each direction.

    Raises
    ------
    SimulationError
        A structure that is no saddle point of first order.
    """
    options, progress = options or IRCOptions(), progress or Progress()
    if second_derivatives is None:
        part = progress.part("hessian")
        second_derivatives = hessian(
            surface, saddle, options.displacement, memory=memory, progress=part
        ).matrix
    modes = normal_modes(
        second_derivatives, surface.masses, saddle, free=surface.free, dimensions=surface.dimensions
    )
    modes, _ = oriented(modes, expected, saddle, surface.masses)
    if len(modes.imaginary) == 0:
        raise SimulationError(
            "a saddle point, with an imaginary mode, to begin from",
            f"a structure whose lowest mode has {modes.wavenumbers[0]:.0f} 1/cm",
            "search for one first: mlmm ts",
        )
    found: dict[str, dict[str, np.ndarray]] = {}
    ends: dict[str, Any] = {}
    for direction in ("reverse", "forward"):
        if options.directions not in ("both", direction):
            continue
        part = progress.part(direction)
        names = ("positions", "energies", "arrived")
        kept = {name: part.get(name) for name in names}
        if kept["arrived"] is None:
            kept = dict(
                _descent(surface, saddle, direction, options, second_derivatives, modes, memory, part)
            )
        found[direction] = kept  # type: ignore[assignment]
        ends[direction] = _end(surface, found[direction]["positions"][-1], options, part)
    return _joined(surface, found, ends)


def _descent(
    surface: ReactionSurface,
    saddle: np.ndarray,
    direction: str,
    options: IRCOptions,
    second_derivatives: np.ndarray,
    modes: Any,
    memory: np.ndarray | None,
    progress: Progress,
) -> dict[str, np.ndarray]:
    """Positions and energies from the saddle point on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from sella import IRC
    except ImportError as error:
        raise MissingPackageError("sella", str(error), "pip install 'mlmm[reactions]'") from error
    atoms = surface.atoms(saddle, memory)
    matrix = second_derivatives * (ANGSTROM**2 / ELECTRONVOLT)
    step = options.step / ANGSTROM
    positions = [np.array(saddle)]
    energies = [atoms.get_potential_energy() * ELECTRONVOLT]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given: Any = {"logfile": None, "keep_going": True, "hessian_function": lambda _: matrix}
        walk: Any = IRC(atoms, dx=step, **given)
        # The direction is the mode that was found, not one that is searched for again.
        walk.v0ts = (step * modes.mass_weighted[0] / np.sqrt(surface.masses)[:, None]).reshape(-1)
        walk.H0 = matrix
        walk.pes.get_g()
        walk.pes.set_H(matrix.copy(), initialized=True)
        walk.pescurr, walk.peslast = walk.pes.curr.copy(), walk.pes.last.copy()
        arrived = False
        tolerance = options.force_tolerance / FORCE_OF_ASE
        for _ in walk.irun(fmax=tolerance, steps=options.steps, direction=direction):
            now = atoms.positions * ANGSTROM
            if np.abs(now - positions[-1]).max() < 1e-9:
                continue
            positions.append(now)
            energies.append(atoms.get_potential_energy() * ELECTRONVOLT)
            force = force_norm(atoms.get_forces())
            progress.keep(
                f"{direction}: {len(positions) - 1} points, {energies[-1] - energies[0]:.1f} kJ/mol"
            )
            arrived = force <= tolerance
            if arrived and energies[-1] < energies[0] - _NOISE:
                break
    result = {
        "positions": np.array(positions),
        "energies": np.array(energies),
        "arrived": np.array(arrived),
    }
    progress.keep(f"{direction}: {'arrived' if arrived else 'not arrived'}", **result)
    return result


def _end(surface: ReactionSurface, last: np.ndarray, options: IRCOptions, progress: Progress) -> Any:
    """The minimum beyond the last point of a direction."""
    if not options.relax_ends:
        return None
    kept = progress.get("end")
    if kept is None:
        end = minimise(surface, last, tolerance=min(1.0, options.force_tolerance), steps=1000)
        kept = np.append(end.positions.reshape(-1), [end.energy, end.converged])
        progress.keep(f"minimum: {end.energy:.2f} kJ/mol after {end.steps} steps", end=kept)
    return kept[:-2].reshape(-1, 3), float(kept[-2]), bool(kept[-1])


def _joined(
    surface: ReactionSurface, found: dict[str, dict[str, np.ndarray]], ends: dict[str, Any]
) -> IRCResult:
    """One path from the end of the reverse direction to that of the forward one."""
    empty = {"positions": np.empty((0, len(surface), 3)), "energies": np.empty(0), "arrived": np.array(True)}
    some = next(iter(found.values()))
    back, forth = found.get("reverse", empty), found.get("forward", empty)
    rises = [0.0]
    for part in found.values():
        rises.append(float(np.diff(part["energies"]).max(initial=0.0)))
    top_position, top_energy = some["positions"][:1], some["energies"][:1]
    positions = np.concatenate([back["positions"][:0:-1], top_position, forth["positions"][1:]])
    energies = np.concatenate([back["energies"][:0:-1], top_energy, forth["energies"][1:]])
    place = max(len(back["positions"]) - 1, 0)
    steps = np.diff(positions, axis=0) * np.sqrt(surface.masses)[:, None]
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(steps.reshape(len(steps), -1), axis=1))])
    return IRCResult(
        positions=positions,
        energies=energies,
        coordinate=length - length[place],
        saddle=place,
        arrived=(bool(back["arrived"]), bool(forth["arrived"])),
        rises=max(rises),
        ends=(ends.get("reverse"), ends.get("forward")),
    )
