"""Options of a calibration and of a refinement of G(lambda); no numerical library is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from mlmm.errors import ConfigError
from mlmm.options import Quantity, check_fields, number, quantity, rising, setting, word

__all__ = ["KNOTS", "MODES", "SHARED", "WEIGHT_EDGES", "CalibrationOptions", "RefinementOptions"]

MODES = ("density", "pressure")
#: Bins of lambda, and knots of G that go with them: close together where lambda hardly changes with distance.
WEIGHT_EDGES = (0.0, 0.06, 0.2, 0.4, 0.6, 0.8, 0.94, 1.0)
KNOTS = (0.0, 0.01, 0.04, 0.12, 0.3, 0.5, 0.7, 0.88, 0.97, 1.0)
#: Fields of `RunOptions` that calibrations and refinements make use of.
SHARED = ("temperature", "pressure", "seed", "platform", "threads")


@dataclass(frozen=True)
class CalibrationOptions:
    """How the bulk is simulated at each lambda; numbers in ps and 1/ps once the options are made.

    Parameters
    ----------
    mode : {"density", "pressure"}
        Equal density on both sides of a zone, with the pressure term; or each lambda at its own density.
    knots : sequence of float
        lambda of the simulations, from 0 to 1.
    equilibration, length : str or float
        Dropped and sampled at each lambda, ps.
    density_length : str or float
        Of the constant-pressure run of the force field that finds its density, half of it equilibration, ps.
    timestep, friction : str or float
        ps, 1/ps.
    sample_interval : int
        Steps between samples.
    bridge : {"auto", "torchforce", "pythonforce", "native"}
        Host of the potential.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    mode: str = word("density", MODES, "what is equal on both sides of a zone")
    knots: tuple[float, ...] = rising((0.0, 0.25, 0.5, 0.75, 1.0), "lambda of the simulations")
    equilibration: Quantity = quantity("1 ps", "time", "before sampling at each lambda", least=0)
    length: Quantity = quantity("4 ps", "time", "sampled at each lambda", above=0)
    density_length: Quantity = quantity(
        "50 ps", "time", "run of the force field alone that finds its density", above=0
    )
    timestep: Quantity = quantity("1 fs", "time", "of all runs", above=0)
    friction: Quantity = quantity("5 /ps", "rate", "of the thermostat", least=0)
    sample_interval: int = number(20, "steps between samples", least=1)
    bridge: str = setting("auto", "host of the potential: auto, torchforce, pythonforce or native")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class RefinementOptions:
    """How G(lambda) is refined; numbers in ps and 1/ps once the options are made.

    Parameters
    ----------
    plateau, width, walls : float or str
        Of the zone for which it is refined, nm; see `mlmm.zones.adaptive.adaptive_zones`.
    iterations : int
        At most; fewer if one finds the density flat. With 0, only the check of the start.
    length, check_length, equilibration : str or float
        Sampled in each iteration and in the check ("0 ps": no check), and dropped before, ps.
    gain : float
        Share of the first corrections that is taken; see `mlmm.compensation.refine_state.gain_of`.
    compressibility : float
        rho kT kappa of the solvent: the least answer.
    tolerance : float
        Deviation from the bulk that counts as flat.
    density : float
        Molecules per nm³; 0 for that of the force field at the pressure, from a run of 50 ps.
    timestep, friction : str or float
        ps, 1/ps.
    sample_interval : int
        Steps between samples.
    weight_edges, knots : sequence of float
        Bins of lambda; knots of G, also those of the start from then on.
    bridge : {"auto", "torchforce", "pythonforce", "native"}
        Host of the potential.

    Raises
    ------
    ConfigError
        A value out of range, or neither an iteration nor a check.
    """

    plateau: Quantity = quantity("0.4 nm", "length", "lambda = 1 up to here", above=0)
    width: Quantity = quantity("0.5 nm", "length", "of the zone beyond, where lambda falls to 0", above=0)
    walls: Quantity = quantity("0.125 nm", "length", "wall for bonds to hydrogen", above=0, none=True)
    iterations: int = number(6, "corrections at most; 0: only the check", least=0)
    length: Quantity = quantity("60 ps", "time", "sampled in each iteration", above=0)
    check_length: Quantity = quantity(
        "180 ps", "time", 'sampled in the run after the last correction; "0 ps": none', least=0
    )
    equilibration: Quantity = quantity("3 ps", "time", "before sampling", least=0)
    gain: float = number(0.7, "share of a correction that is taken", above=0, most=1)
    compressibility: float = number(0.09, "rho kT kappa of the solvent", above=0)
    tolerance: float = number(0.05, "deviation from the bulk that counts as flat", above=0)
    density: float = number(0.0, "molecules per nm³; 0: that of the force field", least=0)
    timestep: Quantity = quantity("2 fs", "time", "of all runs", above=0)
    friction: Quantity = quantity("2 /ps", "rate", "of the thermostat", least=0)
    sample_interval: int = number(25, "steps between samples", least=1)
    weight_edges: tuple[float, ...] = rising(WEIGHT_EDGES, "bins of lambda")
    knots: tuple[float, ...] = rising(KNOTS, "knots of G(lambda)")
    bridge: str = setting("auto", "host of the potential: auto, torchforce, pythonforce or native")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.iterations == 0 and self.check_length == 0:
            raise ConfigError("an iteration or a check", "neither", "give check_length above 0")
