"""Options of free-energy sampling as a run file writes them: [umbrella] and [metadynamics].

Only the standard library is imported here, since run files are read before any numerical library starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlmm.collective_variables.rules import Measure
from mlmm.options import Quantity, check_fields, documented, number, quantity, setting, word

__all__ = ["EndStateOptions", "MetadynamicsOptions", "UmbrellaOptions"]

_VARIABLE = "name of a [variable.NAME]"


@documented
@dataclass(frozen=True)
class UmbrellaOptions:
    """Umbrella windows along a variable; minimise, equilibrate and produce in [run] are those of a window."""

    variable: str = setting("", _VARIABLE, example="d")
    start: Any = setting("", "centre of the first window", kind=Measure, example="0.15 nm")
    end: Any = setting("", "centre of the last window", kind=Measure, example="0.35 nm")
    windows: int = number(0, "windows from start to end, both among them", least=0, example=12)
    centres: Sequence[str] = setting(
        (), "centres one by one, instead of start, end and windows", example=["0.15 nm", "0.17 nm"]
    )
    force_constant: Any = setting(
        "auto",
        "k of the bias k/2 (x - x0)² of every window; auto: chosen for each, so that neighbours are "
        "`spacing` widths apart",
        kind=Measure,
        example="auto",
    )
    spacing: float = number(
        1.5, "distance of neighbours in widths of a window, which force_constant = auto aims at", above=0.0
    )
    scan: str = setting(
        "",
        "directory of mlmm scan along this variable, or a table (CSV) with columns of the variable and "
        "energy: its curvature makes windows on a barrier stiffer",
        path=True,
        missing="write one with mlmm scan, or leave scan out",
        example="runs/scan",
    )
    structures: str = setting(
        "",
        "structure file (PDB or mmCIF) with models along the path, all atoms in each: every window starts "
        "from the nearest; empty: from its neighbour",
        path=True,
        missing="correct the path, or leave structures out",
        example="path.pdb",
    )
    exchange: Quantity = quantity(
        "0 ps", "time", "between attempts to exchange the structures of neighbours; 0: none", least=0
    )
    add: int = number(0, "windows that may be added where neighbours do not overlap", least=0)
    least_overlap: float = number(
        0.03, "overlap of neighbours (MBAR) below which a window is missing", above=0.0, most=0.3
    )
    bins: int = number(0, "bins of the profile; 0: three for each window", least=0)
    bootstraps: int = number(200, "resampled sets from which errors are taken", least=10)

    def __post_init__(self) -> None:
        check_fields(self, "umbrella.")


@documented
@dataclass(frozen=True)
class EndStateOptions:
    """States from force field to hybrid; minimise, equilibrate and produce in [run] are those of a state."""

    method: str = word(
        "states",
        ("states", "switching"),
        "states: states between both ends, joined by MBAR; switching: both ends alone, and from frames of "
        "each short runs in which the weight goes to the other end, joined by their work (Crooks' theorem)",
    )
    states: int = number(6, "states from weight 0 (force field) to 1 (hybrid), both among them", least=2)
    weights: Sequence[float] = setting(
        (), "weights of the model one by one, instead of states", item=float, example=[0.0, 0.3, 1.0]
    )
    every: int = number(1, "frames between two that are evaluated", least=1)
    switches: int = number(50, "switching runs in each direction, from as many frames of each end", least=10)
    switch_length: Quantity = quantity("1 ps", "time", "of a switching run", above=0)
    update_every: int = number(5, "steps between two changes of the weight in a switching run", least=1)
    bootstraps: int = number(200, "resampled sets from which errors are taken", least=10)

    def __post_init__(self) -> None:
        check_fields(self, "endstate.")


@documented
@dataclass(frozen=True)
class MetadynamicsOptions:
    """A bias that grows along one or two variables, to explore; produce in [run] is its length."""

    variables: Sequence[str] = setting(
        (), "one or two names of [variable.NAME]", single=True, example=["phi"]
    )
    low: Sequence[str] = setting((), "lower end of each variable", single=True, example=["-180 degree"])
    high: Sequence[str] = setting((), "upper end of each variable", single=True, example=["180 degree"])
    method: str = word(
        "well_tempered",
        ("well_tempered", "opes"),
        "well_tempered: Gaussians that become lower (doi 10.1103/PhysRevLett.100.020603); opes: on-the-fly "
        "probability enhanced sampling (doi 10.1021/acs.jpclett.0c00497)",
    )
    width: Sequence[str] = setting(
        (), "standard deviation of a Gaussian in each variable", single=True, example=["20 degree"]
    )
    height: Quantity = quantity("1 kJ/mol", "energy", "of the first Gaussians (well_tempered)", above=0)
    bias_factor: float = number(
        10.0, "factor by which the temperature of the variables is raised (well_tempered)", above=1.0
    )
    barrier: Quantity = quantity(
        "60 kJ/mol", "energy", "highest barrier that is to be crossed (opes)", above=0
    )
    every: int = number(500, "steps between two Gaussians", least=1)
    bins: int = number(50, "bins of the profile along each variable", least=5)
    build: float = number(
        0.5,
        "part of production in which the bias grows; for the rest it is held, and sampled for the profile",
        above=0.0,
        most=0.9,
    )
    bootstraps: int = number(200, "resampled sets from which errors are taken", least=10)

    def __post_init__(self) -> None:
        check_fields(self, "metadynamics.")
