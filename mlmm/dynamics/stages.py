"""The stages of a simulation: what is done, for how long, under which conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlmm.dynamics.options import ENSEMBLES, ProtocolOptions, RunOptions
from mlmm.errors import ConfigError, check_kind
from mlmm.options import Quantity, with_changes
from mlmm.units import parse

__all__ = [
    "Dynamics",
    "Equilibrate",
    "Minimise",
    "NVECheck",
    "Produce",
    "check_pressure",
    "check_stages",
    "standard_stages",
]

_FROM_OPTIONS = ("temperature", "timestep", "friction", "nonbonded_every", "reciprocal_every")
_LONGEST = 0.012  # ps between two evaluations of any force
_DIMENSIONS = {
    "length": "time",
    "temperature": "temperature",
    "timestep": "time",
    "friction": "rate",
    "pressure": "pressure",
}


def _convert(stage: object, dimensions: dict[str, str]) -> None:
    """Convert the quantities of a frozen stage that are given to internal units, once, at entry."""
    for name, dimension in dimensions.items():
        given = getattr(stage, name)
        if given is not None:
            value = parse(given, dimension, f"{type(stage).__name__}.{name}")
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

    tolerance: Quantity = 10.0
    max_iterations: int = 500
    name: str = "minimise"

    def __post_init__(self) -> None:
        _convert(self, {"tolerance": "force"})
        if self.max_iterations < 0 or self.tolerance <= 0:
            raise ConfigError(
                "a positive tolerance and max_iterations >= 0",
                f"{self.tolerance} and {self.max_iterations}",
                "correct the minimisation",
            )


@dataclass(frozen=True)
class Dynamics:
    """Molecular dynamics for some time; what is not given here is as the options of the run say.

    NVT and NPT use the Langevin middle integrator (Zhang et al., J. Phys. Chem. A 123, 6056 (2019), doi
    10.1021/acs.jpca.9b02771), NPT with a Monte Carlo barostat between every 25 steps, NVE velocity
    Verlet in leapfrog form.

    Parameters
    ----------
    length : float or str
        Time to simulate, ps.
    temperature, timestep, friction, ensemble, pressure, nonbonded_every, reciprocal_every
        For this stage alone; see `mlmm.dynamics.options.RunOptions`.
    name : str
        As it stands in the energy table.
    trajectory : bool
        Whether frames are written.
    """

    length: Quantity
    temperature: Quantity = None
    timestep: Quantity = None
    friction: Quantity = None
    ensemble: str | None = None
    pressure: Quantity = None
    # None until `under` has filled it in, an int from then on.
    nonbonded_every: Any = None
    reciprocal_every: Any = None
    name: str = "dynamics"
    trajectory: bool = True

    def __post_init__(self) -> None:
        _convert(self, _DIMENSIONS)
        if self.ensemble not in (None, *ENSEMBLES):
            raise ConfigError(
                f"ensemble = {' | '.join(ENSEMBLES)}", repr(self.ensemble), 'write ensemble = "NVT"'
            )
        if self.timestep is not None and not 0 < self.timestep <= 0.005:
            raise ConfigError(
                "a time step between 0 and 5 fs", f"{self.timestep * 1e3:g} fs", 'write "0.5 fs" or "1 fs"'
            )
        # What is not known yet is one step or more.
        multiples = [1 if n is None else n for n in (self.nonbonded_every, self.reciprocal_every)]
        whole = (self.timestep or 0.0) * multiples[0] * multiples[1]
        if min(multiples) < 1 or whole > _LONGEST:
            raise ConfigError(
                "nonbonded_every and reciprocal_every of 1 or more, and forces at least every "
                f"{_LONGEST * 1e3:g} fs",
                f"nonbonded_every = {multiples[0]}, reciprocal_every = {multiples[1]}: "
                f"every {whole * 1e3:g} fs",
                "write nonbonded_every = 2",
            )
        if self.length < whole or min(self.length, self.temperature or 0.0, self.friction or 0.0) < 0:
            raise ConfigError(
                "a length of at least one step, temperature and friction not negative",
                f"{self.length} ps, {self.temperature} K, {self.friction} /ps",
                f"correct stage {self.name}",
            )

    def under(self, options: RunOptions) -> Dynamics:
        """Fill in from the options of a run what the stage itself leaves open.

        Raises
        ------
        ConfigError
            A stage shorter than a step, steps that are too long, or a pressure that nothing holds constant.
        """
        ensemble = self.ensemble or options.ensemble
        if self.pressure is not None and ensemble != "NPT":
            raise _idle_pressure(self.pressure, f"stage {self.name} under {ensemble}")
        values = {name: getattr(options, name) for name in _FROM_OPTIONS}
        values |= {"ensemble": ensemble, "pressure": options.barostat_pressure if ensemble == "NPT" else None}
        missing = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    @property
    def steps(self) -> int:
        """Number of steps of the integrator, each of `step_length`."""
        return round(self.length / self.step_length)

    @property
    def step_length(self) -> float:
        """Time of a whole step, in which every force has acted, ps; known once `under` has filled in all."""
        return self.timestep * self.nonbonded_every * self.reciprocal_every

    def facts(self) -> dict[str, Any]:
        """What a report says about the stage."""
        facts = {
            "name": self.name,
            "ensemble": self.ensemble,
            "steps": self.steps,
            "timestep_ps": self.timestep,
            "temperature": self.temperature,
            "trajectory": self.trajectory,
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

    friction: Quantity = 10.0
    name: str = "equilibrate"
    trajectory: bool = False


@dataclass(frozen=True)
class Produce(Dynamics):
    """Dynamics that is kept."""

    name: str = "produce"


@dataclass(frozen=True)
class NVECheck(Dynamics):
    """Dynamics without thermostat at the end of a run, to show how well its energy is conserved."""

    ensemble: str | None = "NVE"
    name: str = "nve"
    trajectory: bool = False


def check_stages(stages: object) -> None:
    """Refuse what is no list of stages (ConfigError)."""
    do = 'write a list such as [mlmm.Minimise(), mlmm.Equilibrate("10 ps"), mlmm.Produce("100 ps")]'
    check_kind(stages, (list, tuple), "a list of stages", do)
    for stage in stages if isinstance(stages, list | tuple) else ():
        check_kind(stage, (Minimise, Dynamics), "stages such as Minimise() and Produce()", do)
    if not stages:
        raise ConfigError("at least one stage", "none", do)


def check_pressure(stages: Sequence[Minimise | Dynamics], options: RunOptions) -> None:
    """Refuse a pressure that no stage holds constant.

    Raises
    ------
    ConfigError
    """
    ensembles = [stage.ensemble or options.ensemble for stage in stages if isinstance(stage, Dynamics)]
    if options.pressure is not None and "NPT" not in ensembles:
        raise _idle_pressure(
            options.pressure, f"a run under {' and '.join(sorted(set(ensembles))) or 'none'}"
        )


def _idle_pressure(pressure: float, where: str) -> ConfigError:
    return ConfigError(
        'a pressure with ensemble = "NPT" only',
        f"pressure = {pressure:g} bar for {where}",
        'write ensemble = "NPT", or leave the pressure out',
    )


def standard_stages(protocol: ProtocolOptions | None = None, **changes: Any) -> list[Minimise | Dynamics]:
    """List the usual stages: minimise, equilibrate, produce, check the energy; none of length 0.

    Parameters
    ----------
    protocol : ProtocolOptions, optional
    **changes
        Fields of `ProtocolOptions`.

    Raises
    ------
    ConfigError
        No stage at all, or an unknown field.
    """
    asked = with_changes(ProtocolOptions, protocol, changes)
    stages: list[Minimise | Dynamics] = []
    if asked.minimise:
        stages.append(Minimise(max_iterations=asked.minimise))
    if asked.equilibrate:
        stages.append(Equilibrate(asked.equilibrate, friction=asked.equilibrate_friction))
    if asked.produce:
        stages.append(Produce(asked.produce))
    if asked.nve:
        stages.append(NVECheck(asked.nve))
    if not stages:
        raise ConfigError("at least one stage", "none", 'set produce = "1 ps" or more')
    return stages
