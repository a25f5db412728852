"""What a refinement of G(lambda) has found so far: its iterations, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.compensation.density import DensityProfile, distance_profile
from mlmm.errors import ConfigError
from mlmm.whole_files import write_whole
from mlmm.zones.adaptive import AdaptiveZones
from mlmm.zones.compensation import Compensation

__all__ = [
    "Iteration",
    "KeptRefinement",
    "RefinementState",
    "flatness",
    "gain_of",
    "iteration_table",
    "profile_of",
    "zone_shells",
]

_SHELL, _INNERMOST = 0.1, 0.3  # nm
_ROUNDING = 1e-9  # nm
#: What may differ between the beginning of a refinement and its end: no iteration knows of it but by its own.
_MAY_CHANGE = ("iterations", "length_ps", "check_length_ps", "gain", "tolerance")


@dataclass(frozen=True, eq=False)
class Iteration:
    """One simulation of a refinement.

    Parameters
    ----------
    compensation : Compensation
        Under which it ran.
    profile : DensityProfile
    length : float
        Sampled, ps.
    check : bool
        The last one, after which G stays.
    """

    compensation: Compensation
    profile: DensityProfile
    length: float
    check: bool


def profile_of(
    zones: AdaptiveZones,
    distances: np.ndarray,
    box: np.ndarray,
    shells: np.ndarray,
    weight_edges: Sequence[float],
) -> DensityProfile:
    """Density in one iteration; errors are wider where its halves differ by more than they say.

    The autocorrelation of a short run does not know of memory as long as the run. The mean square, over the
    bins of lambda, of half the difference of two halves is an estimate of sigma² of its own.

    Parameters
    ----------
    zones : AdaptiveZones
        Around one centre, of one kind of molecule.
    distances : ndarray, shape (F, M)
        nm.
    box : ndarray, shape (3, 3)
        nm.
    shells : ndarray
        Edges, nm.
    weight_edges : sequence of float
    """
    profile = distance_profile(zones, distances, box, shells, weight_edges)
    half = len(distances) // 2
    if half < 2:
        return profile
    first, second = (
        distance_profile(zones, some, box, shells, weight_edges)
        for some in (distances[:half], distances[half:])
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 0.5 * (first.weight_density - second.weight_density) / profile.weight_errors
    ratio = ratio[np.isfinite(ratio)]
    factor = max(1.0, float(np.sqrt(np.mean(ratio**2)))) if len(ratio) else 1.0
    return dataclasses.replace(
        profile,
        errors=factor * profile.errors,
        weight_errors=factor * profile.weight_errors,
        zone_error=factor * profile.zone_error,
    )


def gain_of(gain: float, number: int) -> float:
    """Share of the correction after iteration `number` (from 1): the whole gain twice, then gain·2/number.

    With a gain that falls as 1/number the noise of the iterations averages out whatever their errors are
    thought to be: H. Robbins and S. Monro, Ann. Math. Stat. 22, 400 (1951), doi 10.1214/aoms/1177729586.
    """
    return gain * min(1.0, 2.0 / number)


def flatness(profile: DensityProfile, tolerance: float) -> str:
    """``flat``, ``not flat``, or ``too noisy`` to say, of the bins of lambda and the shells of the zone.

    Flat: no deviation from the bulk exceeds the tolerance by more than its standard error, and no standard
    error exceeds the tolerance.
    """
    shells = (profile.edges[:-1] > profile.plateau - _ROUNDING) & (
        profile.edges[1:] < profile.plateau + profile.width + _ROUNDING
    )
    density = np.concatenate([profile.weight_density, profile.density[shells]])
    errors = np.concatenate([profile.weight_errors, profile.errors[shells]])
    if (np.abs(density - 1.0) > tolerance + errors).any():
        return "not flat"
    return "flat" if (errors <= tolerance).all() else "too noisy"


def zone_shells(plateau: float, width: float, end: float) -> np.ndarray:
    """Edges of shells of about 0.1 nm that end where plateau and zone do; the last one at `end`, nm."""
    inner = [0.0] if plateau <= _INNERMOST else [0.0, *_steps(_INNERMOST, plateau)[:-1]]
    reach = plateau + width
    outer = _steps(reach, end)[1:] if end > reach + 1e-6 else np.empty(0)
    return np.array([*inner, *_steps(plateau, reach), *outer])


@dataclass
class RefinementState:
    """How far a refinement is: finished iterations, the present G, and the present iteration."""

    done: list[Iteration]
    compensation: Compensation
    steps: int
    positions: np.ndarray
    velocities: np.ndarray | None
    distances: list[np.ndarray]


class KeptRefinement:
    """The state of a refinement in a file: nothing but some picoseconds is lost when it is interrupted."""

    def __init__(self, path: str | Path | None):
        self.path = None if path is None else Path(path)
        self.settings: dict[str, Any] = {}

    def setting(self, name: str) -> Any:
        """One setting of the refinement in the file; None without a file."""
        if self.path is None or not self.path.exists():
            return None
        return self._content(self.path)[0]["settings"].get(name)

    def _content(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                content = json.loads(str(file["text"]))
                arrays = {name: file[name] for name in ("positions", "velocities", "distances")}
            return content | {"settings": dict(content["settings"])}, arrays
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"{self.path} as the beginning of this refinement",
            f"{type(error).__name__}: {error}",
            "refine with the same settings, or remove that file",
        )

    def read(self) -> RefinementState | None:
        """What is done; None without a file."""
        if self.path is None or not self.path.exists():
            return None
        content, arrays = self._content(self.path)
        try:
            then = content["settings"]
            names = [k for k, v in self.settings.items() if then.get(k) != v and k not in _MAY_CHANGE]
            if names:
                raise ValueError(f"other {', '.join(names)}")
            done = [
                Iteration(
                    Compensation.from_dict(entry["compensation"]),
                    _profile_from(entry["profile"]),
                    entry["length"],
                    entry["check"],
                )
                for entry in content["done"]
            ]
            present = Compensation.from_dict(content["compensation"])
            return RefinementState(
                done,
                present,
                int(content["steps"]),
                arrays["positions"],
                arrays["velocities"],
                list(arrays["distances"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._refusal(error) from error

    def write(self, state: RefinementState) -> None:
        """Replace the file in one go; velocities are known once a piece of a simulation has ended."""
        if self.path is None or state.velocities is None:
            return
        content = {
            "settings": self.settings,
            "done": [
                {
                    "compensation": done.compensation.as_dict(),
                    "profile": {
                        name: value.tolist() if isinstance(value, np.ndarray) else value
                        for name, value in vars(done.profile).items()
                    },
                    "length": done.length,
                    "check": done.check,
                }
                for done in state.done
            ],
            "compensation": state.compensation.as_dict(),
            "steps": state.steps,
        }
        file = io.BytesIO()
        np.savez(
            file,
            text=json.dumps(content),
            positions=state.positions,
            velocities=state.velocities,
            distances=np.array(state.distances, dtype=np.float32),
        )
        write_whole(self.path, file.getvalue())


def _profile_from(content: dict[str, Any]) -> DensityProfile:
    """A profile as `KeptRefinement.write` wrote it."""
    values: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return DensityProfile(**values)


def iteration_table(done: Iteration, name: str, verdict: str, tolerance: float) -> str:
    """Density and G by lambda, density by distance, the excess of the whole zone."""
    profile, compensation = done.profile, done.compensation
    curve = compensation.at_knots([0.0, *profile.weights, 1.0]).values[profile.kind][1:-1]
    lines = [
        f"{name}: {done.length:g} ps, {verdict} to {tolerance:g}",
        f"{'lambda':>8} {'density':>16} {'G':>8}",
    ]
    for weight, density, error, value in zip(
        profile.weights, profile.weight_density, profile.weight_errors, curve, strict=True
    ):
        lines.append(f"{weight:8.3f} {density:8.3f} ± {error:.3f} {value:8.3f}")
    lines.append(f"{'r / nm':>8} {'density':>16}")
    for left, right, density, error in zip(
        profile.edges, profile.edges[1:], profile.density, profile.errors, strict=False
    ):
        lines.append(f"{left:.2f}-{right:.2f} {density:7.3f} ± {error:.3f}")
    lines.append(f"excess of the whole zone {profile.excess:+.4f} ± {profile.zone_error:.4f}")
    return "\n".join(lines)


def _steps(left: float, right: float) -> np.ndarray:
    return np.linspace(left, right, max(1, round((right - left) / _SHELL)) + 1)
