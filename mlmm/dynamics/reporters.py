"""The energy table that a simulation writes while it runs, made to be resumed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openmm

from mlmm.collective_variables.values import variable_values
from mlmm.dynamics.beside import Beside
from mlmm.dynamics.bonded_energies import BondedEnergies
from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.integrators import energy_groups
from mlmm.dynamics.moments import Moment, fetch
from mlmm.dynamics.stability import ADVICE
from mlmm.dynamics.uncertainty import COLUMNS, Uncertainty, UncertaintyMonitor
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.units import GAS_CONSTANT
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones

__all__ = ["EnergyTable", "degrees_of_freedom", "energy_columns"]


def degrees_of_freedom(system: openmm.System) -> int:
    """Degrees of freedom: 3 per moving particle, less constraints and centre of mass."""
    moving = [system.getParticleMass(i)._value > 0 for i in range(system.getNumParticles())]
    constraints = sum(
        moving[a] or moving[b]
        for a, b, _ in (system.getConstraintParameters(i) for i in range(system.getNumConstraints()))
    )
    centre = 3 if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()) else 0
    return 3 * sum(moving) - constraints - centre


def energy_columns(hybrid: HybridSystem) -> list[str]:
    """Columns of the energy table of a hybrid system.

    Raises
    ------
    ConfigError
        A variable with the name of another column.
    """
    columns = [
        *("stage", "step", "time_ps"),
        *(f"E_{name}" for name in hybrid.force_groups),
        *("potential", "kinetic", "total", "temperature", "volume", *COLUMNS),
        *(("zone_molecules", "zone_lambda") if isinstance(hybrid.zones, AdaptiveZones) else ()),
    ]
    names = [variable.name for variable in hybrid.biases.variables]
    for name in names:
        if name in columns:
            raise ConfigError(
                "variables with names that no column of energies.csv has",
                name,
                f"call it {name}_1, for example",
            )
    return columns + names


class EnergyTable:
    """Energies by force group, temperature, volume and uncertainty as CSV, one row per report.

    ``potential`` is the energy of the hybrid without biases, whose energy is ``E_bias``; ``total`` is the
    sum of both and the kinetic energy, which is what a run without thermostat conserves.

    Uncertainty is ``committee_spread`` of the energy and the largest ``atom_spread``, ``force_spread`` and
    ``training_distance``; empty where there is no committee or training set.

    For a zone that moves also ``zone_molecules``, the number of molecules with lambda > 0, and
    ``zone_lambda``, the sum of their lambda.

    Each collective variable has a column of its name, in nm, rad or nm^2.

    Parameters
    ----------
    path : Path
    hybrid : HybridSystem
    resume_at : int, optional
        Length in bytes to which an existing table is cut before going on; a new table otherwise.
    monitor : UncertaintyMonitor, optional
        What is measured of the uncertainty; the spreads of a committee by default.
    beside : bool
        Whether what follows from positions (uncertainty, bonded energies) is found while the run goes on: for
        platforms that leave the processor idle. A row is then written a little later, in the same order, and
        an energy that is not finite is told then; `size` and `close` wait for it.
    """

    def __init__(
        self,
        path: Path,
        hybrid: HybridSystem,
        resume_at: int | None = None,
        monitor: UncertaintyMonitor | None = None,
        *,
        beside: bool = False,
    ):
        self.hybrid, self.monitor = hybrid, monitor or UncertaintyMonitor(hybrid)
        self._groups = {name: energy_groups(name, group) for name, group in hybrid.force_groups.items()}
        self.beside: Beside[str] = Beside(beside)
        self._bonded: BondedEnergies | None = None
        if beside:
            self._bonded = BondedEnergies(hybrid.system, self._groups)
            # Meanwhile the other thread measures the uncertainty of the row before.
            self._terms = ThreadPoolExecutor(1, thread_name_prefix="bonded")
        left = self._bonded.names if self._bonded else ()
        #: Kinds of which a moment has the energy, nonbonded last: multiple time steps have no kick by this
        #: whole set of groups, so that none can take its forces for evaluated.
        self._evaluated = {
            name: self._groups[name]
            for name in sorted(self._groups, key="nonbonded".__eq__)
            if name not in left
        }
        self.last_uncertainty = Uncertainty()
        self.columns = energy_columns(hybrid)
        zones = hybrid.zones
        self._weights = AdaptiveWeights(zones) if isinstance(zones, AdaptiveZones) else None
        self._freedom = degrees_of_freedom(hybrid.system)
        if resume_at is None:
            self._file = path.open("w", newline="", encoding="utf-8")
            csv.writer(self._file).writerow(self.columns)
        else:
            self._file = path.open("r+", newline="", encoding="utf-8")
            self._file.truncate(resume_at)
            self._file.seek(0, 2)
        self._file.flush()

    def moment(self, context: openmm.Context, velocities: bool = False) -> Moment:
        """Evaluate what a row needs from the device; each force group once.

        Parameters
        ----------
        context : openmm.Context
        velocities : bool
            Whether somebody else wants those.

        Returns
        -------
        Moment
            With its kinetic energy and the energies of all kinds that are not found beside the run.
        """
        return fetch(context, self.hybrid.built.periodic, velocities=velocities, kinds=self._evaluated)

    def write(self, stage: str, step: int, time: float, now: Moment) -> None:
        """Append one row.

        Parameters
        ----------
        stage : str
        step : int
            Of that stage.
        time : float
            Since the start of the first dynamics, ps.
        now : Moment
            From `moment`, at this step.

        Raises
        ------
        SimulationError
            An energy that is not finite; beside the run, of an earlier row too.
        """
        head = (stage, str(step), f"{time:.6f}")
        bonded = self._terms.submit(self._bonded, now.positions, now.box) if self._bonded else None
        self.beside.submit(lambda: self._line(head, now, bonded.result() if bonded else {}), self._append)

    def _line(self, head: tuple[str, str, str], now: Moment, bonded: Mapping[str, float]) -> str:
        """The row of a moment."""
        found = {**now.energies, **bonded}
        row = {f"E_{name}": found[name] for name in self._groups}
        row = self._with_sums(head, row, now.kinetic) | self._measured(now.positions, now.box)
        numbers = ("" if math.isnan(row[name]) else repr(float(row[name])) for name in self.columns[3:])
        line = io.StringIO()
        csv.writer(line).writerow([*head, *numbers])
        return line.getvalue()

    def _append(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def _with_sums(
        self, head: tuple[str, str, str], row: dict[str, float], kinetic: float
    ) -> dict[str, float]:
        """The energies of the groups, and what follows from them and the kinetic energy."""
        # The sum of the groups, not a further evaluation: the columns then add up to the last digit.
        potential = math.fsum(value for name, value in row.items() if name != "E_bias")
        total = potential + kinetic + row.get("E_bias", 0.0)
        if not math.isfinite(total):
            raise SimulationError(
                "finite energies", f"{total} kJ/mol at step {head[1]} of stage {head[0]}", ADVICE
            )
        temperature = 2 * kinetic / (self._freedom * GAS_CONSTANT)
        sums = {"potential": potential, "kinetic": kinetic, "total": total, "temperature": temperature}
        return row | sums

    def _measured(self, positions: np.ndarray, box: np.ndarray | None) -> dict[str, float]:
        """What follows from the positions alone."""
        self.last_uncertainty = self.monitor.measure(positions, box)
        row = {"volume": math.nan if box is None else float(np.prod(np.diag(box)))}
        row |= self.last_uncertainty.row()
        if self._weights is not None:
            found = self._weights(*as_tensors(positions, box))
            row["zone_molecules"], row["zone_lambda"] = float((found > 0).sum()), float(found.sum())
        if self.hybrid.biases.variables:
            row |= variable_values(self.hybrid.biases, *as_tensors(positions, box))
        return row

    @property
    def size(self) -> int:
        """Bytes written, those of all rows."""
        self.beside.finish()
        return self._file.tell()

    def close(self) -> None:
        """Close the file, with all rows in it."""
        try:
            self.beside.finish()
        finally:
            self.beside.close()
            if self._bonded:
                self._terms.shutdown(cancel_futures=True)
            self._file.close()
