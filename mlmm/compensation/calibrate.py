"""`calibrate`: the free-energy compensation of a solvent, from simulations of its bulk at several lambda."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from mlmm.build import BuiltSystem
from mlmm.dynamics.reporters import positions_and_box
from mlmm.errors import ConfigError, SimulationError
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.hybrid.assemble import HybridSpec, adaptive_blend, with_blend
from mlmm.hybrid.bridge import choose_bridge
from mlmm.potentials.base import PotentialModel
from mlmm.statistics import statistical_inefficiency
from mlmm.units import BAR_NM3, parse
from mlmm.zones.adaptive import AdaptiveZones, UniformWeights, molecule_anchors
from mlmm.zones.compensation import Compensation, spline_integrals
from mlmm.zones.region import Region, molecules_of

__all__ = ["BulkSamples", "calibrate", "force_field_density"]

logger = logging.getLogger(__name__)
_MODES = ("density", "pressure")
_LEAST_SAMPLES = 5
#: What may differ between the beginning of a calibration and its end: each lambda has its own error.
_MAY_CHANGE = ("equilibration_ps", "length_ps")


@dataclass(frozen=True)
class BulkSamples:
    """Averages over the bulk at one lambda.

    Parameters
    ----------
    weight : float
        lambda of every molecule.
    difference, difference_error : float
        <Delta> of one molecule and its standard error, kJ/mol.
    pressure, pressure_error : float
        bar; NaN at constant pressure.
    density, density_error : float
        Molecules per nm³.
    """

    weight: float
    difference: float
    difference_error: float
    pressure: float
    pressure_error: float
    density: float
    density_error: float


def calibrate(
    bulk: BuiltSystem,
    potential: PotentialModel,
    *,
    mode: str = "density",
    knots: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    equilibration: str | float = "1 ps",
    length: str | float = "4 ps",
    density_length: str | float = "50 ps",
    timestep: str | float = "1 fs",
    temperature: str | float = "300 K",
    pressure: str | float = "1 bar",
    friction: str | float = "5 /ps",
    sample_interval: int = 20,
    bridge: str = "auto",
    platform: str | None = None,
    seed: int = 0,
    partial: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Compensation, list[BulkSamples]]:
    """G(lambda) of one molecule from <Delta>_lambda in the bulk, with error bars.

    - density: G = int_0^lambda <Delta> dl + [p(lambda) − p(0)]/rho at the common density rho that the force
      field has at the pressure: equal chemical potentials at equal density, a flat profile.
    - pressure: G = int_0^lambda <Delta> dl, each lambda at its own density under the pressure.

    H-AdResS: Potestio et al., Phys. Rev. Lett. 110, 108301 (2013), doi 10.1103/PhysRevLett.110.108301.

    Parameters
    ----------
    bulk : BuiltSystem
        A flexible periodic box of one kind of molecule; see `mlmm.build.surroundings.bulk`.
    potential : PotentialModel
    mode : {"density", "pressure"}
    knots : sequence of float
        lambda of the simulations, from 0 to 1.
    equilibration, length : str or float
        At each lambda, ps.
    density_length : str or float
        Of the constant-pressure run of the force field that finds its density (half of it is equilibration).
    timestep, temperature, pressure, friction : str or float
        ps, K, bar, 1/ps.
    sample_interval : int
        Steps between samples.
    bridge : {"auto", "torchforce", "pythonforce"}
        "native" is refused: this energy has the force field's pairs in it.
    platform : str, optional
    seed : int
    partial : path, optional
        A file that keeps each lambda as soon as it is done; an existing one is gone on with.
    progress : callable, optional
        Called with a line of text after each lambda.

    Returns
    -------
    compensation : Compensation
    samples : list of BulkSamples

    Raises
    ------
    ConfigError
        An unknown mode or bridge, knots that do not rise from 0 to 1, a run too short to say its own error, a
        box with more than one kind of molecule, or a partial file of another calibration.
    """
    progress = progress or (lambda text: None)
    if mode not in _MODES:
        raise ConfigError("mode = density | pressure", repr(mode), 'write mode = "density"')
    grid = np.asarray(knots, dtype=np.float64)
    if len(grid) < 2 or grid[0] != 0 or grid[-1] != 1 or (np.diff(grid) <= 0).any():
        raise ConfigError(
            "knots that rise from 0 to 1", str(list(knots)), "write knots = (0, 0.25, 0.5, 0.75, 1)"
        )
    step, kelvin = parse(timestep, "time", "timestep"), parse(temperature, "temperature", "temperature")
    bar = parse(pressure, "pressure", "pressure")
    zones = _all_molecules(bulk)
    spec = HybridSpec(bulk, zones, potential, "per_atom", choose_bridge(bridge, potential))
    run = _Run(spec, step, kelvin, bar, parse(friction, "rate", "friction"), platform, seed, sample_interval)
    settings = {
        "mode": mode,
        "knots": grid.tolist(),
        "equilibration_ps": parse(equilibration, "time", "equilibration"),
        "length_ps": parse(length, "time", "length"),
        "density_length_ps": parse(density_length, "time", "density_length"),
        "timestep_ps": step,
        "temperature_K": kelvin,
        "pressure_bar": bar,
        "friction_per_ps": run.friction,
        "sample_interval": sample_interval,
        "seed": seed,
        "molecules": len(zones.molecules),
        "potential": f"{potential.spec.name}, {potential.spec.members} members, {potential.spec.precision}",
        "solvent": bulk.provenance,
    }
    kept = _Partial(partial, json.loads(json.dumps(settings, default=str)))
    if kept.found:
        samples, positions, box = kept.read()
        run.skip(1 + len(samples))
        progress(f"going on from {partial}: {len(samples)} lambdas are done")
    else:
        progress(f"density of the force field at {bar:g} bar")
        positions, box = run.at_own_density(settings["density_length_ps"])
        samples = []
        kept.write(samples, positions, box)
    for weight in grid[len(samples) :]:
        found, positions, box = run.sample(
            float(weight),
            positions,
            box,
            settings["equilibration_ps"],
            settings["length_ps"],
            mode == "pressure",
        )
        samples.append(found)
        kept.write(samples, positions, box)
        progress(
            f"lambda {weight:.3g}: <Delta> {found.difference:.2f} ± {found.difference_error:.2f} kJ/mol, "
            + (f"p {found.pressure:.0f} ± {found.pressure_error:.0f} bar" if mode == "density"
               else f"rho {found.density:.2f} ± {found.density_error:.2f} /nm³")
        )  # fmt: skip
    return _compensation(zones.kinds[0], grid, samples, settings), samples


def force_field_density(
    bulk: BuiltSystem,
    potential: PotentialModel,
    *,
    length: str | float = "50 ps",
    timestep: str | float = "1 fs",
    temperature: str | float = "300 K",
    pressure: str | float = "1 bar",
    friction: str | float = "5 /ps",
    platform: str | None = None,
    seed: int = 0,
) -> float:
    """Molecules per nm³ of a liquid of the force field under pressure; half of the run is equilibration.

    Parameters
    ----------
    bulk, potential, length, timestep, temperature, pressure, friction, platform, seed
        As `calibrate` has them; the potential is not evaluated.
    """
    zones = _all_molecules(bulk)
    run = _Run(
        HybridSpec(bulk, zones, potential, "per_atom", "pythonforce"),
        parse(timestep, "time", "timestep"),
        parse(temperature, "temperature", "temperature"),
        parse(pressure, "pressure", "pressure"),
        parse(friction, "rate", "friction"),
        platform,
        seed,
        1,
    )
    _, box = run.at_own_density(parse(length, "time", "length"))
    return len(zones.molecules) / abs(float(np.linalg.det(box)))


class _Partial:
    """What is done of a calibration, in a file: nothing is lost when it is interrupted."""

    def __init__(self, path: str | Path | None, settings: dict[str, Any]):
        self.path, self.settings = None if path is None else Path(path), settings
        self.found = self.path is not None and self.path.exists()

    def read(self) -> tuple[list[BulkSamples], np.ndarray, np.ndarray]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            then = content["settings"]
            names = [k for k, v in self.settings.items() if then.get(k) != v and k not in _MAY_CHANGE]
            if names:
                raise ValueError(f"other {', '.join(names)}")
            samples = [BulkSamples(**sample) for sample in content["samples"]]
            return samples, np.array(content["positions"]), np.array(content["box"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} as the beginning of this calibration",
                f"{type(error).__name__}: {error}",
                "calibrate with the same settings, or remove that file",
            ) from error

    def write(self, samples: list[BulkSamples], positions: np.ndarray, box: np.ndarray) -> None:
        if self.path is None:
            return
        content = {
            "settings": self.settings,
            "samples": [dataclasses.asdict(sample) for sample in samples],
            "positions": positions.tolist(),
            "box": box.tolist(),
        }
        draft = self.path.with_name(self.path.name + ".tmp")
        draft.write_text(json.dumps(content), encoding="utf-8")
        os.replace(draft, self.path)


def _compensation(
    kind: str, grid: np.ndarray, samples: list[BulkSamples], settings: dict[str, Any]
) -> Compensation:
    """Integrals of the spline through <Delta>, with the errors of the samples carried through."""
    integrals = spline_integrals(grid)
    mean = np.array([s.difference for s in samples])
    error = np.array([s.difference_error for s in samples])
    total = integrals @ mean
    variance = integrals**2 @ error**2
    if settings["mode"] == "density":
        volume = BAR_NM3 / samples[0].density
        pressure = np.array([s.pressure for s in samples])
        spread = np.array([s.pressure_error for s in samples])
        total = total + (pressure - pressure[0]) * volume
        variance = variance + (spread**2 + spread[0] ** 2) * volume**2 * (grid > 0)
    alignment = float(total[-1])
    facts = settings | {"samples": [dataclasses.asdict(s) for s in samples]}
    return Compensation(
        {kind: alignment}, grid, {kind: total - alignment * grid}, {kind: np.sqrt(variance)}, facts
    )


def _all_molecules(bulk: BuiltSystem) -> AdaptiveZones:
    """Every molecule of a pure liquid."""
    molecules = tuple(tuple(int(i) for i in atoms) for atoms in molecules_of(bulk.topology))
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


class _Run:
    """Simulations of the bulk, one after the other."""

    def __init__(
        self,
        spec: HybridSpec,
        timestep: float,
        temperature: float,
        pressure: float,
        friction: float,
        platform: str | None,
        seed: int,
        interval: int,
    ):
        self.spec, self.timestep, self.interval = spec, timestep, interval
        self.temperature, self.pressure, self.friction = temperature, pressure, friction
        self.platform = [] if platform is None else [openmm.Platform.getPlatformByName(platform)]
        self.seeds = iter(np.random.SeedSequence(seed).generate_state(1000) & 0x3FFFFFFF)

    def skip(self, simulations: int) -> None:
        """Leave out the random numbers of simulations that are done: three each, see `context`."""
        for _ in range(3 * simulations):
            next(self.seeds)

    def context(
        self, system: openmm.System, constant_pressure: bool
    ) -> tuple[openmm.Context, openmm.Integrator, openmm.MonteCarloBarostat]:
        barostat = openmm.MonteCarloBarostat(self.pressure, self.temperature, 25 if constant_pressure else 0)
        barostat.setRandomNumberSeed(int(next(self.seeds)) + 1)
        system.addForce(barostat)
        integrator = openmm.LangevinMiddleIntegrator(self.temperature, self.friction, self.timestep)
        integrator.setRandomNumberSeed(int(next(self.seeds)) + 1)
        return openmm.Context(system, integrator, *self.platform), integrator, barostat

    def at_own_density(self, length: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and box of the force field alone, scaled to its mean density under the pressure."""
        system, _ = remove_zone_pairs(self.spec.built.system, ())
        context, integrator, _ = self.context(system, True)
        context.setPositions(self.spec.built.positions)
        openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
        context.setVelocitiesToTemperature(self.temperature, int(next(self.seeds)) + 1)
        steps = round(length / self.timestep)
        integrator.step(steps // 2)
        volumes = []
        for _ in range(steps // 2 // 50):
            integrator.step(50)
            volumes.append(context.getState().getPeriodicBoxVolume()._value)
        positions, box = positions_and_box(context.getState(positions=True), True)
        scale = (np.mean(volumes) / np.linalg.det(box)) ** (1 / 3)
        moved = positions.copy()
        for molecule in self.spec.zones.molecules:
            atoms = list(molecule)
            moved[atoms] += (scale - 1) * positions[atoms].mean(axis=0)
        return moved, box * scale

    def sample(
        self,
        weight: float,
        positions: np.ndarray,
        box: np.ndarray,
        equilibration: float,
        length: float,
        constant_pressure: bool,
    ) -> tuple[BulkSamples, np.ndarray, np.ndarray]:
        """Averages at one lambda, and where the run ended."""
        n = len(self.spec.zones.molecules)
        system, removed = remove_zone_pairs(self.spec.built.system, ())
        if weight > 0:
            blend = adaptive_blend(self.spec, UniformWeights(weight, n))
            system = with_blend(self.spec, system, removed, blend).system
        probe = adaptive_blend(self.spec, UniformWeights(1.0, n))
        context, integrator, barostat = self.context(system, constant_pressure)
        context.setPeriodicBoxVectors(*box)
        context.setPositions(positions)
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
        context.setVelocitiesToTemperature(self.temperature, int(next(self.seeds)) + 1)
        integrator.step(round(equilibration / self.timestep))
        differences, pressures, densities = [], [], []
        for _ in range(max(1, round(length / self.timestep) // self.interval)):
            integrator.step(self.interval)
            positions, box = positions_and_box(context.getState(positions=True), True)
            if not np.isfinite(positions).all():
                raise SimulationError(
                    "finite positions", f"NaN at lambda = {weight:g}", "try a smaller time step"
                )
            with torch.no_grad():
                device = probe.visible.device
                found = probe.molecule_differences(
                    torch.tensor(positions, device=device), torch.tensor(box, device=device)
                )[1]
            differences.append(float(found.mean()))
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
