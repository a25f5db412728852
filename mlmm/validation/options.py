"""Options of the scans that choose time steps and zones; no numerical library is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from mlmm.options import Quantity, check_fields, number, quantity, setting

__all__ = ["PLATEAUS", "WIDTHS", "TimeStepOptions", "ZoneScanOptions"]

PLATEAUS = ("0 nm", "0.1 nm", "0.2 nm", "0.3 nm", "0.4 nm", "0.5 nm")
WIDTHS = ("0 nm", "0.1 nm", "0.2 nm", "0.3 nm", "0.4 nm")


@dataclass(frozen=True)
class TimeStepOptions:
    """Time steps to test, and for how long; numbers in ps and K once the options are made.

    Parameters
    ----------
    timesteps : sequence of float or str
        ps.
    nonbonded_every_values, reciprocal_every_values : sequence of int
        As in `mlmm.dynamics.options.RunOptions`.
    length, equilibration : float or str
        Of each run, and of one thermostatted run at the smallest step before all of them, ps.
    max_heating : float
        By how much a thermostat of 1/ps may let the zone warm, K.
    """

    timesteps: tuple[float, ...] = quantity(
        ("0.5 fs", "1 fs", "1.5 fs", "2 fs"), "time", "time steps to test", several=True
    )
    nonbonded_every_values: tuple[int, ...] = number(
        (1, 2, 4), "time steps between the force field's non-bonded forces", several=True
    )
    reciprocal_every_values: tuple[int, ...] = number(
        (1,), "non-bonded evaluations between two of PME's reciprocal sum", several=True
    )
    length: Quantity = quantity("1 ps", "time", "of each NVE run", above=0)
    equilibration: Quantity = quantity("0.5 ps", "time", "before all of them", least=0)
    max_heating: float = number(5.0, "heating of the zone that counts as stable, K", above=0)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ZoneScanOptions:
    """Zones to compare; lengths in nm once the options are made.

    Parameters
    ----------
    plateaus, widths : sequence of float or str
        Each plateau with each width, nm.
    snap : {"residue", "molecule", "fragment", "hydrogen", "atom"}
        See `mlmm.zones.static.static_zones`.
    keep : sequence of str
        See `mlmm.hybrid_system`.
    """

    plateaus: tuple[float, ...] = quantity(PLATEAUS, "length", "plateaus to scan", several=True)
    widths: tuple[float, ...] = quantity(WIDTHS, "length", "widths to scan", several=True)
    snap: str = setting("residue", "what is never cut by the end of a zone")
    keep: tuple[str, ...] = setting((), "force-field forces that stay in the zone")

    def __post_init__(self) -> None:
        check_fields(self)
