"""Time steps that were tested: figures of each, which is the largest, which costs least; the table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlmm.check_report import aligned
from mlmm.units import FEMTOSECOND

__all__ = ["StepTest", "TimeStepScan"]


@dataclass(frozen=True)
class StepTest:
    """One setting and what came of it.

    Parameters
    ----------
    timestep : float
        ps.
    nonbonded_every, reciprocal_every : int
        As in `mlmm.dynamics.stages.Dynamics`.
    drift, error : float
        Of the total energy and its standard error, kJ/mol/ns per degree of freedom.
    fluctuation : float
        Standard deviation around that line, kJ/mol.
    temperature, region_temperature : float
        Mean of the NVE run, K.
    heating, heating_error : float
        By how many K a thermostat of 1/ps would let the zone warm, if what this setting gains more than the
        smallest one came from there.
    cpu_ms_per_fs : float
        Processor time.
    verdict : {"stable", "unstable", "too short"}
    """

    timestep: float
    nonbonded_every: int
    reciprocal_every: int
    drift: float
    error: float
    fluctuation: float
    temperature: float
    region_temperature: float
    heating: float
    heating_error: float
    cpu_ms_per_fs: float
    verdict: str

    @property
    def whole(self) -> float:
        """Time between two evaluations of the slowest force, ps."""
        return self.timestep * self.nonbonded_every * self.reciprocal_every

    def toml(self) -> str:
        """Lines for [run]."""
        lines = [f'timestep = "{self.timestep / FEMTOSECOND:g} fs"']
        lines += [f"nonbonded_every = {self.nonbonded_every}"] if self.nonbonded_every > 1 else []
        return "\n".join(
            [*lines, *([f"reciprocal_every = {self.reciprocal_every}"] if self.reciprocal_every > 1 else [])]
        )


@dataclass(frozen=True)
class TimeStepScan:
    """Every setting that was tested; prints as a table.

    Parameters
    ----------
    tests : tuple of StepTest
        The first one is what the others are judged by.
    length : float
        Of each run, ps.
    limit : float
        Heating that is accepted, K.
    """

    tests: tuple[StepTest, ...]
    length: float
    limit: float

    def largest(self) -> StepTest | None:
        """The largest time step that is stable with every force at each of them."""
        plain = [
            t for t in self.tests if t.verdict == "stable" and t.nonbonded_every == t.reciprocal_every == 1
        ]
        return max(plain, key=lambda t: t.timestep, default=None)

    def cheapest(self) -> StepTest | None:
        """The stable setting that costs least processor time for a given length."""
        stable = [t for t in self.tests if t.verdict == "stable"]
        return min(stable, key=lambda t: t.cpu_ms_per_fs, default=None)

    def __str__(self) -> str:
        head = (
            "step fs",
            "nonbonded_every",
            "reciprocal_every",
            "drift kJ/mol/ns/dof",
            "fluctuation kJ/mol",
            "T K",
        )
        rows = [(*head, "T region K", "heating of the zone K", "cpu ms/fs", "")]
        for t in self.tests:
            rows.append(
                (
                    f"{t.timestep / FEMTOSECOND:g}",
                    str(t.nonbonded_every),
                    str(t.reciprocal_every),
                    f"{t.drift:.2f} ± {t.error:.2f}" if math.isfinite(t.drift) else "-",
                    f"{t.fluctuation:.2f}" if math.isfinite(t.fluctuation) else "-",
                    f"{t.temperature:.0f}" if math.isfinite(t.temperature) else "-",
                    f"{t.region_temperature:.0f}" if math.isfinite(t.region_temperature) else "-",
                    f"{t.heating:.1f} ± {t.heating_error:.1f}" if math.isfinite(t.heating) else "-",
                    f"{t.cpu_ms_per_fs:.3g}" if math.isfinite(t.cpu_ms_per_fs) else "-",
                    t.verdict,
                )
            )
        return aligned(rows, left=0)
