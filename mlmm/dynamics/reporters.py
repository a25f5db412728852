"""What a simulation writes while it runs: energy table, trajectory, lambda, all made to be resumed."""

from __future__ import annotations

import csv
import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import openmm
from openmm import unit

from mlmm.collective_variables.values import variable_values
from mlmm.dynamics.beside import Beside
from mlmm.dynamics.dcd_frames import DCDWriter
from mlmm.dynamics.frames import as_tensors, positions_and_box
from mlmm.dynamics.imaging import RegionImages
from mlmm.dynamics.integrators import energy_groups, kinetic_energy_needs_forces
from mlmm.dynamics.stability import ADVICE
from mlmm.dynamics.uncertainty import COLUMNS, Uncertainty, UncertaintyMonitor
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.system import HybridSystem
from mlmm.plugin import potential_energies
from mlmm.units import GAS_CONSTANT
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones

__all__ = ["EnergyTable", "LambdaTable", "TrajectoryWriter", "degrees_of_freedom", "energy_columns"]


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
        Whether the uncertainty, and what else follows from positions, is measured while the run goes on: for
        platforms that leave the processor idle. A row is then written a little later, the same numbers in the
        same order; `size` and `close` wait for it.
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
        self._beside: Beside[dict[str, float]] | None = Beside() if beside else None
        self.last_uncertainty = Uncertainty()
        self.columns = energy_columns(hybrid)
        zones = hybrid.zones
        self._weights = AdaptiveWeights(zones) if isinstance(zones, AdaptiveZones) else None
        self._freedom = degrees_of_freedom(hybrid.system)
        if resume_at is None:
            self._file = path.open("w", newline="")
            csv.writer(self._file).writerow(self.columns)
        else:
            self._file = path.open("r+", newline="")
            self._file.truncate(resume_at)
            self._file.seek(0, 2)
        self._writer = csv.writer(self._file)
        self._file.flush()

    def write(self, stage: str, step: int, time: float, context: openmm.Context) -> dict[str, float]:
        """Evaluate and append one row; returns it, without what is measured beside the run.

        Parameters
        ----------
        stage : str
        step : int
            Of that stage.
        time : float
            Since the start of the first dynamics, ps.
        context : openmm.Context

        Raises
        ------
        SimulationError
            An energy that is not finite.
        """
        state, row = self._energies(context)
        # The sum of the groups, not a further evaluation: the columns then add up to the last digit.
        bias = row.get("E_bias", 0.0)
        row["potential"] = math.fsum(value for name, value in row.items() if name != "E_bias")
        row["kinetic"] = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
        row["total"] = row["potential"] + row["kinetic"] + bias
        row["temperature"] = 2 * row["kinetic"] / (self._freedom * GAS_CONSTANT)
        if not math.isfinite(row["total"]):
            raise SimulationError(
                "finite energies", f"{row['total']} kJ/mol at step {step} of stage {stage}", ADVICE
            )
        positions, box = positions_and_box(state, self.hybrid.built.periodic)
        row["volume"] = math.nan if box is None else float(np.prod(np.diag(box)))
        head = (stage, str(step), f"{time:.6f}")
        if self._beside is not None:
            self._beside.submit(
                lambda: self._measured(positions, box), lambda found: self._append(head, row | found)
            )
            return row
        row |= self._measured(positions, box)
        self._append(head, row)
        return row

    def _measured(self, positions: np.ndarray, box: np.ndarray | None) -> dict[str, float]:
        """What follows from the positions alone."""
        self.last_uncertainty = self.monitor.measure(positions, box)
        row = self.last_uncertainty.row()
        if self._weights is not None:
            found = self._weights(*as_tensors(positions, box))
            row["zone_molecules"], row["zone_lambda"] = float((found > 0).sum()), float(found.sum())
        if self.hybrid.biases.variables:
            row |= variable_values(self.hybrid.biases, *as_tensors(positions, box))
        return row

    def _append(self, head: tuple[str, str, str], row: dict[str, float]) -> None:
        numbers = ("" if math.isnan(row[name]) else repr(float(row[name])) for name in self.columns[3:])
        self._writer.writerow([*head, *numbers])
        self._file.flush()

    def _energies(self, context: openmm.Context) -> tuple[openmm.State, dict[str, float]]:
        """State with kinetic energy and positions, and the energy of each group; each is evaluated once.

        The state has the energy of one group where its kinetic energy does not depend on forces.
        """
        groups = {name: energy_groups(name, group) for name, group in self.hybrid.force_groups.items()}
        # Multiple time steps have no kick by this whole set, so that none can take its forces for evaluated.
        last = "nonbonded" if "nonbonded" in groups else next(iter(groups))
        every = kinetic_energy_needs_forces(context.getIntegrator())
        names = [name for name in groups if every or name != last]
        found = dict(zip(names, potential_energies(context, [groups[name] for name in names]), strict=True))
        if every:
            state = context.getState(energy=True, positions=True)
        else:
            state = context.getState(energy=True, positions=True, groups=groups[last])
            found[last] = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        return state, {f"E_{name}": found[name] for name in groups}

    @property
    def size(self) -> int:
        """Bytes written, those of all rows."""
        self.finish()
        return self._file.tell()

    def finish(self) -> None:
        """Write what is still measured beside the run."""
        if self._beside is not None:
            self._beside.finish()

    def close(self) -> None:
        """Close the file, with all rows in it."""
        try:
            self.finish()
        finally:
            if self._beside is not None:
                self._beside.close()
            self._file.close()


class LambdaTable:
    """lambda of every atom in every frame of the trajectory, for a zone that moves: float32 (frames, N), npy.

    Parameters
    ----------
    path : Path
    zones : AdaptiveZones
    resume_at : int, optional
        Frames to which an existing table is cut before going on; a new table otherwise.
    """

    def __init__(self, path: Path, zones: AdaptiveZones, resume_at: int = 0):
        self._zones, self._frames = zones, resume_at
        self._file = path.open("r+b" if resume_at else "wb")
        self._row = 4 * zones.n_atoms
        self._start = self._write_header()
        self._file.truncate(self._start + resume_at * self._row)

    def _write_header(self) -> int:
        """Its length does not depend on the number of frames: numpy leaves room for it."""
        self._file.seek(0)
        shape = (self._frames, self._zones.n_atoms)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()

    def write(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        """Append a frame: positions (N, 3) and box (3, 3), nm."""
        weights = self._zones.weights(*as_tensors(positions, box))
        self._file.seek(self._start + self._frames * self._row)
        self._file.write(weights.numpy().astype("<f4").tobytes())
        self._frames += 1
        self._write_header()
        self._file.flush()

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._start + self._frames * self._row

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TrajectoryWriter:
    """DCD frames centred on the region, every molecule whole and in the cell around it.

    A zone that moves gets a `LambdaTable` beside it, ``lambda.npy``.

    Parameters
    ----------
    path : Path
    hybrid : HybridSystem
    timestep : float
        ps.
    interval : int
        Steps between frames.
    resume_at : tuple of (int, int), optional
        Bytes and frames to which an existing trajectory is cut before going on.
    """

    def __init__(
        self,
        path: Path,
        hybrid: HybridSystem,
        timestep: float,
        interval: int,
        resume_at: tuple[int, int] | None = None,
    ):
        self._path, self._topology = path, hybrid.built.topology
        self._spacing = (timestep * unit.picosecond, 0, interval)
        # Opened with the first frame: a trajectory without frames is no trajectory.
        self._file: BinaryIO | None = None
        self._images = RegionImages(hybrid.built.topology, hybrid.zones.region.atoms)
        self._periodic = hybrid.built.periodic
        self.frames = 0
        if resume_at is not None and resume_at[1] > 0:
            self._continue(*resume_at)
        self._table: LambdaTable | None = None
        if isinstance(hybrid.zones, AdaptiveZones):
            self._table = LambdaTable(path.with_name("lambda.npy"), hybrid.zones, self.frames)

    def _continue(self, size: int, frames: int) -> None:
        self._file = self._path.open("r+b")
        self._file.truncate(size)
        # The header counts the frames: int32 at byte 8.
        self._file.seek(8)
        self._file.write(struct.pack("<i", frames))
        self._dcd = DCDWriter(self._file, self._topology, *self._spacing, append=True)
        self.frames = frames

    def write(self, context: openmm.Context) -> None:
        """Append the current frame."""
        if self._file is None:
            self._file = self._path.open("wb")
            self._dcd = DCDWriter(self._file, self._topology, *self._spacing)
        positions, box = positions_and_box(context.getState(positions=True), self._periodic)
        self._dcd.write(self._images.gather(positions, box), box)
        self._file.flush()
        if self._table is not None:
            self._table.write(positions, box)
        self.frames += 1

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes written, by name of the file."""
        size = 0
        if self._file is not None:
            self._file.seek(0, 2)
            size = self._file.tell()
        found = {self._path.name: size}
        return found if self._table is None else found | {"lambda.npy": self._table.size}

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._table is not None:
            self._table.close()
