"""A bias that grows along variables: well-tempered metadynamics by OpenMM, OPES by openmm-opes.

Both deposit between steps and apply a table in a `CustomCVForce`; here they are one interface whose state can
be written to disk and taken up again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import openmm
from openmm import app

from mlmm.collective_variables.definitions import BoundVariable
from mlmm.collective_variables.openmm_forces import variable_force
from mlmm.collective_variables.options import Variable
from mlmm.collective_variables.rules import to_number
from mlmm.errors import ConfigError
from mlmm.reactions.sampling_options import MetadynamicsOptions

__all__ = ["Axis", "GrowingBias", "axes_of", "make_bias"]

_GRID = 10  # points of the table in a width


@dataclass(frozen=True)
class Axis:
    """One variable of a bias, in internal units.

    Parameters
    ----------
    variable : BoundVariable
    low, high, width : float
        Ends of the table, and standard deviation of a Gaussian.
    """

    variable: BoundVariable
    low: float
    high: float
    width: float

    @property
    def periodic(self) -> bool:
        """Whether both ends are one place."""
        whole = abs(self.high - self.low - 2 * math.pi) < 1e-6
        return self.variable.kind == "torsion" and whole

    @property
    def period(self) -> float:
        """2 pi for a torsion all around, else 0."""
        return 2 * math.pi if self.periodic else 0.0


class GrowingBias(Protocol):
    """A bias in a System that grows where the system has been."""

    def deposit(self, simulation: app.Simulation) -> None:
        """Add to the bias at the place where the system is."""
        ...

    def values(self, simulation: app.Simulation) -> list[float]:
        """Of the variables."""
        ...

    def energy(self, context: openmm.Context) -> float:
        """Of the bias, kJ/mol."""
        ...

    def state(self) -> dict[str, Any]:
        """All that it holds, as arrays."""
        ...

    def take_up(self, state: dict[str, Any], context: openmm.Context) -> None:
        """Go on from a state."""
        ...


def axes_of(
    options: MetadynamicsOptions, variables: Sequence[Variable], bound: Sequence[BoundVariable]
) -> list[Axis]:
    """Ends and widths of the variables of a bias.

    Raises
    ------
    ConfigError
        Another number of values than of variables, an empty range, a width that is not positive, or torsions
        beside variables that are not periodic.
    """
    count = len(variables)
    if not 1 <= count <= 2:
        raise ConfigError("one or two variables in [metadynamics]", str(count), 'write variables = ["phi"]')
    numbers: dict[str, list[float]] = {}
    for key in ("low", "high", "width"):
        written = getattr(options, key)
        given = [written] if isinstance(written, str) else list(written)
        if len(given) != count:
            raise ConfigError(
                f"{count} in {key} of [metadynamics], one for each variable",
                str(len(given)),
                f"correct {key}",
            )
        where = f"{key} in [metadynamics]"
        numbers[key] = [
            to_number(one, variable.dimension, where) for one, variable in zip(given, variables, strict=True)
        ]
    axes = [
        Axis(variable, *ends)
        for variable, *ends in zip(bound, numbers["low"], numbers["high"], numbers["width"], strict=True)
    ]
    for axis in axes:
        if not (axis.high > axis.low and 0 < axis.width < 0.5 * (axis.high - axis.low)):
            raise ConfigError(
                f"low below high and a width between for {axis.variable.name} in [metadynamics]",
                f"{axis.low:g}, {axis.high:g} and {axis.width:g}",
                "correct them",
            )
        if axis.variable.kind == "position":
            raise ConfigError("a variable with a direction", "position", "take another one")
    if len({axis.periodic for axis in axes}) > 1:
        raise ConfigError(
            "two variables that both go around a circle, or neither, in [metadynamics]",
            " and ".join(axis.variable.name for axis in axes),
            'give torsions low = "-180 degree" and high = "180 degree", or bias one variable',
        )
    return axes


def make_bias(
    system: openmm.System, axes: Sequence[Axis], options: MetadynamicsOptions, temperature: float
) -> GrowingBias:
    """Add a bias to a System.

    Parameters
    ----------
    system : openmm.System
    axes : sequence of Axis
    options : MetadynamicsOptions
    temperature : float
        K.
    """
    variables = [
        app.BiasVariable(
            variable_force(axis.variable),
            axis.low,
            axis.high,
            axis.width,
            axis.periodic,
            max(20, math.ceil(_GRID * (axis.high - axis.low) / axis.width)),
        )
        for axis in axes
    ]
    if options.method == "opes":
        return _OPES(system, variables, options, temperature)
    return _WellTempered(system, variables, options, temperature)


class _WellTempered:
    """`openmm.app.Metadynamics`."""

    def __init__(
        self,
        system: openmm.System,
        variables: list[app.BiasVariable],
        options: MetadynamicsOptions,
        temperature: float,
    ):
        height = options.height
        self._own = app.Metadynamics(
            system, variables, temperature, options.bias_factor, height, options.every
        )

    def deposit(self, simulation: app.Simulation) -> None:
        own = self._own
        energy = self.energy(simulation.context)
        scale = openmm.unit.MOLAR_GAS_CONSTANT_R * own._deltaT
        height = own.height * np.exp(-energy * openmm.unit.kilojoule_per_mole / scale)
        own._addGaussian(own.getCollectiveVariables(simulation), height, simulation.context)

    def values(self, simulation: app.Simulation) -> list[float]:
        return list(self._own.getCollectiveVariables(simulation))

    def energy(self, context: openmm.Context) -> float:
        groups = {self._own._force.getForceGroup()}
        return float(context.getState(energy=True, groups=groups).getPotentialEnergy()._value)

    def state(self) -> dict[str, Any]:
        return {"bias": self._own._selfBias}

    def take_up(self, state: dict[str, Any], context: openmm.Context) -> None:
        own = self._own
        own._selfBias = np.array(state["bias"])
        own._totalBias = own._selfBias.copy()
        table = own._totalBias.flatten()
        sizes = [] if len(own.variables) == 1 else own._widths
        own._table.setFunctionParameters(*sizes, table, *own._limits)
        own._force.updateParametersInContext(context)


class _OPES:
    """`openmm_opes.OPES` with Gaussians of the width that is given."""

    def __init__(
        self,
        system: openmm.System,
        variables: list[app.BiasVariable],
        options: MetadynamicsOptions,
        temperature: float,
    ):
        from openmm_opes import OPES

        self._own = OPES(system, variables, temperature, options.barrier, options.every, None)

    def deposit(self, simulation: app.Simulation) -> None:
        self._own._onInterval(simulation)

    def values(self, simulation: app.Simulation) -> list[float]:
        return list(self._own.getCollectiveVariables(simulation))

    def energy(self, context: openmm.Context) -> float:
        return float(self._own.getBiasEnergy(context)._value)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self._own.getState()
        return found

    def take_up(self, state: dict[str, Any], context: openmm.Context) -> None:
        self._own.setState(state)
        self._own.updateContext(context)
