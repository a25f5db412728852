"""How far a run is, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """How far a run is; handed to the `progress` callable twice a second or more often.

    Parameters
    ----------
    stage : str
    done, total : int
        Steps of the stage (iterations of a minimisation, total 0 without limit).
    ns_per_day : float
        0 while unknown.
    seconds_left : float or None
        Of the stage.
    energy : float or None
        kJ/mol; while minimising.
    """

    stage: str
    done: int
    total: int
    ns_per_day: float = 0.0
    seconds_left: float | None = None
    energy: float | None = None
