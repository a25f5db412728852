"""Simulations of a pure liquid, for a calibration: its density, and averages at one lambda."""

from __future__ import annotations

import functools

import numpy as np
import openmm
import torch
from openmm import unit

from mlmm.blending.adaptive import AdaptiveBlend
from mlmm.build import BuiltSystem
from mlmm.compensation.calibrate_state import BulkSamples
from mlmm.compensation.options import CalibrationOptions
from mlmm.dynamics.failures import check_temperature, nan_becomes_an_error
from mlmm.dynamics.frames import as_tensors, device_of, positions_and_box
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import platform_arguments
from mlmm.errors import ConfigError
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.hybrid.assemble import adaptive_blend, join
from mlmm.hybrid.spec import HybridSpec
from mlmm.statistics import statistical_inefficiency
from mlmm.zones.adaptive import AdaptiveZones, UniformWeights, molecule_anchors
from mlmm.zones.region import Region

__all__ = ["BulkRuns", "all_molecules"]

_LEAST_SAMPLES = 5


def all_molecules(bulk: BuiltSystem) -> AdaptiveZones:
    """Make zones of every molecule of a pure liquid, whose lambda is up to a calibration.

    Raises
    ------
    ConfigError
        No periodic box, or several kinds of molecules.
    """
    molecules = bulk.molecules
    atoms = list(bulk.topology.atoms())
    kinds = {atoms[molecule[0]].residue.name for molecule in molecules}
    if not bulk.periodic or len(kinds) != 1:
        raise ConfigError(
            "a periodic box of one kind of molecule", ", ".join(sorted(kinds)), "build a box of pure solvent"
        )
    return AdaptiveZones(
        bulk.n_atoms,
        Region((), (), "nothing", ()),
        core=(),
        molecules=molecules,
        kinds=(kinds.pop(),) * len(molecules),
        anchors=molecule_anchors(bulk.topology, molecules),
        centres=(0,),
        plateau=1.0,
        width=1.0,
    )


class BulkRuns:
    """Simulations of a bulk liquid, one after the other, each with random numbers of its own.

    Parameters
    ----------
    bulk : BuiltSystem
    zones : AdaptiveZones
        Of `all_molecules`.
    options : CalibrationOptions
    run : RunOptions
        Temperature, pressure, seed, platform and threads.
    """

    def __init__(self, bulk: BuiltSystem, zones: AdaptiveZones, options: CalibrationOptions, run: RunOptions):
        self.bulk, self.zones, self.options, self.run = bulk, zones, options, run
        self._platform = functools.partial(platform_arguments, run.platform, run.threads)
        self._seeds = iter(np.random.SeedSequence(run.seed).generate_state(1000) & 0x3FFFFFFF)

    def skip(self, simulations: int) -> None:
        """Leave out the random numbers of simulations that are done: barostat, thermostat, velocities."""
        for _ in range(3 * simulations):
            next(self._seeds)

    def _seed(self) -> int:
        return int(next(self._seeds)) + 1

    def _context(
        self, system: openmm.System, constant_pressure: bool
    ) -> tuple[openmm.Context, openmm.Integrator, openmm.MonteCarloBarostat]:
        kelvin = self.run.temperature
        barostat = openmm.MonteCarloBarostat(
            self.run.barostat_pressure, kelvin, 25 if constant_pressure else 0
        )
        barostat.setRandomNumberSeed(self._seed())
        system.addForce(barostat)
        integrator = openmm.LangevinMiddleIntegrator(kelvin, self.options.friction, self.options.timestep)
        integrator.setRandomNumberSeed(self._seed())
        return openmm.Context(system, integrator, *self._platform(system=system)), integrator, barostat

    def at_own_density(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions and box of the force field alone, scaled to its mean density under the pressure."""
        system, _ = remove_zone_pairs(self.bulk.system, ())
        context, integrator, _ = self._context(system, True)
        context.setPositions(self.bulk.positions)
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
        context.setVelocitiesToTemperature(self.run.temperature, self._seed())
        steps = round(self.options.density_length / self.options.timestep)
        volumes = []
        with nan_becomes_an_error("under the force field alone"):
            integrator.step(steps // 2)
            for _ in range(steps // 2 // 50):
                integrator.step(50)
                volumes.append(context.getState().getPeriodicBoxVolume()._value)
        positions, box = positions_and_box(context.getState(positions=True), True)
        scale = (np.mean(volumes) / np.linalg.det(box)) ** (1 / 3)
        moved = positions.copy()
        for molecule in self.zones.molecules:
            atoms = list(molecule)
            moved[atoms] += (scale - 1) * positions[atoms].mean(axis=0)
        return moved, box * scale

    def sample(
        self, spec: HybridSpec, weight: float, positions: np.ndarray, box: np.ndarray
    ) -> tuple[BulkSamples, np.ndarray, np.ndarray]:
        """Average over a simulation at one lambda; returns also where it ended.

        Parameters
        ----------
        spec : HybridSpec
        weight : float
            lambda of every molecule.
        positions, box : ndarray, shapes (N, 3) and (3, 3), nm

        Raises
        ------
        SimulationError
            Dynamics that is not stable: NaN, or a temperature far beyond that of the thermostat.
        ConfigError
            Too few independent samples.
        """
        n = len(self.zones.molecules)
        options, constant_pressure = self.options, self.options.mode == "pressure"
        system, removed = remove_zone_pairs(self.bulk.system, ())
        if weight > 0:
            blend = adaptive_blend(spec, UniformWeights(weight, n))
            system = join(spec, system, removed, blend).system
        probe = adaptive_blend(spec, UniformWeights(1.0, n))
        context, integrator, barostat = self._context(system, constant_pressure)
        context.setPeriodicBoxVectors(*box)
        context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
        context.setVelocitiesToTemperature(self.run.temperature, self._seed())
        where = f"at lambda = {weight:g}"
        differences, pressures, densities = [], [], []
        with nan_becomes_an_error(where):
            integrator.step(round(options.equilibration / options.timestep))
            for _ in range(max(1, round(options.length / options.timestep) // options.sample_interval)):
                integrator.step(options.sample_interval)
                check_temperature(context, self.run.temperature, where)
                positions, box = positions_and_box(context.getState(positions=True), True)
                differences.append(_mean_difference(probe, positions, box))
                densities.append(n / float(np.linalg.det(box)))
                if not constant_pressure:
                    pressures.append(barostat.computeCurrentPressure(context).value_in_unit(unit.bar))
        samples = BulkSamples(
            weight,
            *_mean_and_error(differences),
            *(_mean_and_error(pressures) if pressures else (float("nan"), float("nan"))),
            *(_mean_and_error(densities) if constant_pressure else (densities[0], 0.0)),
        )
        return samples, positions, box


def _mean_difference(probe: AdaptiveBlend, positions: np.ndarray, box: np.ndarray) -> float:
    """<Delta> of one molecule in one frame, kJ/mol."""
    with torch.no_grad():
        _, found = probe.molecule_differences(*as_tensors(positions, box, device_of(probe)))
    return float(found.mean())


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error, from the number of samples that count as one."""
    series = np.array(values)
    independent = len(series) / statistical_inefficiency(series)
    if independent < _LEAST_SAMPLES:
        raise ConfigError(
            f"at least {_LEAST_SAMPLES} independent samples at each lambda",
            f"{independent:.1f} in {len(values)}",
            "calibrate longer: a greater length",
        )
    return float(series.mean()), float(series.std(ddof=1) / np.sqrt(independent))
