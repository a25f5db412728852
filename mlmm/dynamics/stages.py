"""The stages of a simulation: what is done, for how long, under which conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["Dynamics", "Equilibrate", "Minimise", "NVECheck", "Produce"]

_ENSEMBLES = ("NVT", "NPT", "NVE")
_LONGEST = 0.012  # ps between two evaluations of any force


def _converted(stage: object, dimensions: dict[str, str]) -> None:
    """Convert the quantities of a frozen stage to internal units, once, at entry."""
    for name, dimension in dimensions.items():
        value = parse(getattr(stage, name), dimension, f"{type(stage).__name__}.{name}")
        object.__setattr__(stage, name, value)


@dataclass(frozen=True)
class Minimise:
    """Go downhill in energy (L-BFGS) until the force is small or the iterations are used up.

    Parameters
    ----------
    tolerance : float or str
        Root-mean-square force at which to stop, kJ/mol/nm.
    max_iterations : int
        0 for no limit.
    """

    tolerance: float | str = 10.0
    max_iterations: int = 500
    name: str = "minimise"

    def __post_init__(self):
        _converted(self, {"tolerance": "force"})
        if self.max_iterations < 0 or self.tolerance <= 0:
            raise ConfigError(
                "a positive tolerance and max_iterations >= 0",
                f"{self.tolerance} and {self.max_iterations}",
                "correct the minimisation",
            )


@dataclass(frozen=True)
class Dynamics:
    """Molecular dynamics.

    NVT and NPT use the Langevin middle integrator (Zhang et al., J. Phys. Chem. A 123, 6056 (2019), doi
    10.1021/acs.jpca.9b02771), NPT with a Monte Carlo barostat between every 25 steps, NVE velocity
    Verlet in leapfrog form.

    Parameters
    ----------
    length : float or str
        Time to simulate, ps.
    temperature : float or str
        K; of the thermostat, and of the first velocities.
    timestep : float or str
        ps. Bonds inside the region are never constrained: keep it at 1 fs or below. `mlmm check --timestep`
        finds how far a system can go.
    nonbonded_every : int
        Time steps between evaluations of the force field's non-bonded forces, which change slowly; the
        potential and bonded terms act at every one.
    reciprocal_every : int
        The same, in units of `nonbonded_every`, for PME's reciprocal sum.
    friction : float or str
        1/ps.
    ensemble : {"NVT", "NPT", "NVE"}
    pressure : float or str
        bar, for NPT.
    name : str
        As it stands in the energy table.
    trajectory : bool
        Whether frames are written.
    """

    length: float | str
    temperature: float | str = 300.0
    timestep: float | str = 0.0005
    friction: float | str = 1.0
    ensemble: str = "NVT"
    pressure: float | str = 1.0
    nonbonded_every: int = 1
    reciprocal_every: int = 1
    name: str = "dynamics"
    trajectory: bool = True

    def __post_init__(self):
        _converted(
            self,
            {
                "length": "time",
                "temperature": "temperature",
                "timestep": "time",
                "friction": "rate",
                "pressure": "pressure",
            },
        )
        if self.ensemble not in _ENSEMBLES:
            raise ConfigError(
                f"ensemble = {' | '.join(_ENSEMBLES)}", repr(self.ensemble), 'write ensemble = "NVT"'
            )
        if not 0 < self.timestep <= 0.005:
            raise ConfigError(
                "a time step between 0 and 5 fs", f"{self.timestep * 1e3:g} fs", 'write "0.5 fs" or "1 fs"'
            )
        if min(self.nonbonded_every, self.reciprocal_every) < 1 or self.step_length > _LONGEST:
            raise ConfigError(
                "nonbonded_every and reciprocal_every of 1 or more, and forces at least every "
                f"{_LONGEST * 1e3:g} fs",
                f"nonbonded_every = {self.nonbonded_every}, reciprocal_every = {self.reciprocal_every}: "
                f"every {self.step_length * 1e3:g} fs",
                "write nonbonded_every = 2",
            )
        if self.length < self.step_length or self.temperature < 0 or self.friction < 0:
            raise ConfigError(
                "a length of at least one step, temperature and friction not negative",
                f"{self.length} ps, {self.temperature} K, {self.friction} /ps",
                f"correct stage {self.name}",
            )

    @property
    def steps(self) -> int:
        """Number of steps of the integrator, each of `step_length`."""
        return round(self.length / self.step_length)

    @property
    def step_length(self) -> float:
        """Time of a whole step, in which every force has acted, ps."""
        return self.timestep * self.nonbonded_every * self.reciprocal_every

    def facts(self) -> dict[str, Any]:
        """What a report says about the stage."""
        facts = {
            "name": self.name,
            "ensemble": self.ensemble,
            "steps": self.steps,
            "timestep_ps": self.timestep,
            "temperature": self.temperature,
        }
        if self.step_length == self.timestep:
            return facts
        return facts | {
            "nonbonded_every": self.nonbonded_every,
            "reciprocal_every": self.reciprocal_every,
            "step_ps": self.step_length,
        }


@dataclass(frozen=True)
class Equilibrate(Dynamics):
    """Dynamics that is not analysed: no trajectory; strong friction reaches the temperature soon."""

    friction: float | str = 10.0
    name: str = "equilibrate"
    trajectory: bool = False


@dataclass(frozen=True)
class Produce(Dynamics):
    """Dynamics that is kept."""

    name: str = "produce"


@dataclass(frozen=True)
class NVECheck(Dynamics):
    """Dynamics without thermostat at the end of a run, to show how well its energy is conserved."""

    ensemble: str = "NVE"
    name: str = "nve"
    trajectory: bool = False
