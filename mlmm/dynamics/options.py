"""Options of a simulation: time step, thermostat, pressure, machine, seed, reporting intervals.

`RunOptions` is shared by everything that simulates, and is the schema of [run] and [report] of a run file
together with `ProtocolOptions`, the lengths of the usual stages. No numerical library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmm.options import Quantity, check_fields, number, quantity, setting, word

__all__ = ["CHECKPOINT_EVERY", "CHECKPOINT_SHARE", "ENSEMBLES", "ProtocolOptions", "RunOptions"]

ENSEMBLES = ("NVT", "NPT", "NVE")
#: Least steps between checkpoints, and the share of the time that they may take, where no interval is given.
CHECKPOINT_EVERY, CHECKPOINT_SHARE = 1000, 0.02
_RUN: dict[str, Any] = {"section": "run"}
_REPORT: dict[str, Any] = {"section": "report"}


@dataclass(frozen=True)
class RunOptions:
    """How a system is simulated; numbers are in ps, K, 1/ps and bar once the options are made.

    Parameters
    ----------
    timestep : float or str
        Time step of the potential and of bonded terms, ps. Bonds inside the region are never constrained:
        keep it at 1 fs or below. `mlmm check timestep` finds how far a system can go.
    nonbonded_every : int
        Time steps between evaluations of the force field's non-bonded forces, which change slowly.
    reciprocal_every : int
        Evaluations of the non-bonded forces between two of PME's reciprocal sum.
    temperature : float or str
        Of the thermostat, and of the first velocities, K.
    friction : float or str
        Of the Langevin thermostat, 1/ps.
    ensemble : {"NVT", "NPT", "NVE"}
    pressure : float or str
        Of the Monte Carlo barostat, bar; given for a run without a stage under NPT it is refused.
    seed : int
        Of velocities, thermostat and barostat.
    platform : str
        OpenMM platform; CUDA, HIP or CPU, the first that works, if empty.
    threads : int
        Threads of OpenMM's CPU platform; 0 for as many as the environment or the machine has.
    unstable : {"stop", "warn"}
        What to do where temperatures, speeds, bonds or distances leave what matter can have
        (`mlmm.dynamics.stability`): end the run with an error and a saved frame, or warn and go on.
    report_interval, trajectory_interval, checkpoint_interval : int
        Steps between rows of the energy table, frames, and checkpoints; of checkpoints 0: `CHECKPOINT_EVERY`,
        and rarer where they would take more than `CHECKPOINT_SHARE` of the time.
    title : str
        Of the report; the name of the run directory if empty.
    distances : mapping of str to (str, str)
        Distances that the report follows: a name, and the two selections between whose centres it is.

    Raises
    ------
    ConfigError
        A value out of range, or of another dimension.
    """

    timestep: Quantity = quantity(
        "0.5 fs", "time", "time step of the potential and of bonded terms", above=0, **_RUN
    )
    nonbonded_every: int = number(
        1, "time steps between the force field's non-bonded forces", least=1, **_RUN
    )
    reciprocal_every: int = number(
        1, "non-bonded evaluations between two of PME's reciprocal sum", least=1, **_RUN
    )
    temperature: Quantity = quantity(
        "300 K", "temperature", "temperature of the thermostat and of the first velocities", least=0, **_RUN
    )
    friction: Quantity = quantity("1 /ps", "rate", "friction of the Langevin thermostat", least=0, **_RUN)
    ensemble: str = word(
        "NVT", ENSEMBLES, "what is held constant: N, V and T, N, p and T, or N, V and E", **_RUN
    )
    pressure: Quantity = quantity(
        "",
        "pressure",
        "pressure of the barostat, with ensemble NPT only; empty: 1 bar",
        optional=True,
        example="1 bar",
        **_RUN,
    )
    seed: int = number(
        0,
        "random seed of velocities, thermostat and barostat; in a run file, of the build too",
        least=0,
        **_RUN,
    )
    platform: str = setting("", "OpenMM platform; empty: CUDA, HIP or CPU, the first that works", **_RUN)
    threads: int = number(
        0,
        "threads of OpenMM's CPU platform and of the native bridge; 0: as many as the machine has",
        least=0,
        **_RUN,
    )
    unstable: str = word(
        "stop",
        ("stop", "warn"),
        "where temperatures, speeds, bonds or distances leave what matter can have (an exploding run): "
        "stop with an error, or warn and go on",
        **_RUN,
    )
    report_interval: int = number(
        100, "steps between rows of the energy table", least=1, key="interval", **_REPORT
    )
    trajectory_interval: int = number(500, "steps between frames", least=1, **_REPORT)
    checkpoint_interval: int = number(
        0,
        "steps between checkpoints; 0: every 1000 steps, rarer where that would take 2 % of the time",
        least=0,
        **_REPORT,
    )
    title: str = setting("", "title of the report; empty: the name of the run", **_REPORT)
    distances: Mapping[str, Sequence[str]] = setting(
        {},
        "distances that the report follows: a name, and two selections in mdtraj's language, between whose "
        "centres each is measured",
        entries="pairs",
        example={"ligand to residue 99": ["resname LIG", "resSeq 99 and name CA"]},
        **_REPORT,
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def checkpoint_every(self) -> int:
        """Least number of steps between checkpoints."""
        return self.checkpoint_interval or CHECKPOINT_EVERY

    @property
    def barostat_pressure(self) -> float:
        """Pressure of a barostat, bar: 1 where none was given."""
        return 1.0 if self.pressure is None else self.pressure


@dataclass(frozen=True)
class ProtocolOptions:
    """The usual stages of a run and how long each is: minimise, equilibrate, produce, check the energy.

    Parameters
    ----------
    minimise : int
        Iterations of the minimisation at most; 0 leaves it out.
    equilibrate, produce, nve : float or str
        Lengths, ps; a stage of length 0 is left out.
    equilibrate_friction : float or str
        Of the thermostat while equilibrating, 1/ps: strong friction reaches the temperature soon.
    """

    minimise: int = number(500, "iterations of the minimisation at most; 0: none", least=0, **_RUN)
    equilibrate: Quantity = quantity("10 ps", "time", "length of the equilibration", least=0, **_RUN)
    produce: Quantity = quantity("100 ps", "time", "length of the production", least=0, **_RUN)
    nve: Quantity = quantity(
        "0 ps",
        "time",
        "length of a run without thermostat that shows the energy's drift, beside that of the force field",
        least=0,
        **_RUN,
    )
    equilibrate_friction: Quantity = quantity(
        "10 /ps", "rate", "friction of the thermostat while equilibrating", least=0, **_RUN
    )

    def __post_init__(self) -> None:
        check_fields(self)
