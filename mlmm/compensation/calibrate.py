"""`calibrate`: the free-energy compensation of a solvent, from simulations of its bulk at several lambda."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.build import BuiltSystem
from mlmm.compensation.bulk_runs import BulkRuns, all_molecules
from mlmm.compensation.calibrate_state import BulkSamples, KeptCalibration
from mlmm.compensation.options import SHARED, CalibrationOptions
from mlmm.dynamics.options import RunOptions
from mlmm.hybrid.bridge import choose_bridge
from mlmm.hybrid.spec import HybridSpec
from mlmm.options import split_changes, with_changes
from mlmm.potentials.base import PotentialModel
from mlmm.units import BAR_NM3
from mlmm.zones.compensation import Compensation, natural_spline

__all__ = ["calibrate", "force_field_density"]


def calibrate(
    bulk: BuiltSystem,
    potential: PotentialModel,
    options: CalibrationOptions | None = None,
    run: RunOptions | None = None,
    *,
    partial: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
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
    options : CalibrationOptions, optional
        Mode, lambdas, lengths, time step, friction.
    run : RunOptions, optional
        Temperature, pressure, seed, platform and threads are used.
    partial : path, optional
        A file that keeps each lambda as soon as it is done; an existing one is gone on with.
    progress : callable, optional
        Called with a line of text after each lambda.
    **changes
        Fields of `options`, and those of `run` that are used, such as ``length="10 ps"``.

    Returns
    -------
    compensation : Compensation
    samples : list of BulkSamples

    Raises
    ------
    ConfigError
        An option that is unknown or out of range, a run too short to say its own error, a box with more than
        one kind of molecule, or a partial file of another calibration.
    SimulationError
        Dynamics that is not stable at one lambda.
    """
    progress = progress or (lambda text: None)
    options, run = _asked(options, run, changes)
    zones = all_molecules(bulk)
    spec = HybridSpec(
        bulk, zones, potential, "per_atom", choose_bridge(options.bridge, potential, in_plugin=True)
    )
    runs = BulkRuns(bulk, zones, options, run)
    settings = {
        "mode": options.mode,
        "knots": list(options.knots),
        "equilibration_ps": options.equilibration,
        "length_ps": options.length,
        "density_length_ps": options.density_length,
        "timestep_ps": options.timestep,
        "temperature_K": run.temperature,
        "pressure_bar": run.barostat_pressure,
        "friction_per_ps": options.friction,
        "sample_interval": options.sample_interval,
        "seed": run.seed,
        "molecules": len(zones.molecules),
        "potential": f"{potential.spec.name}, {potential.spec.members} members, {potential.spec.precision}",
        "solvent": bulk.provenance,
    }
    kept = KeptCalibration(partial, json.loads(json.dumps(settings, default=str)))
    found = kept.read()
    if found is not None:
        samples, positions, box = found
        runs.skip(1 + len(samples))
        progress(f"going on from {partial}: {len(samples)} lambdas are done")
    else:
        progress(f"density of the force field at {run.barostat_pressure:g} bar")
        positions, box = runs.at_own_density()
        samples = []
        kept.write(samples, positions, box)
    for weight in options.knots[len(samples) :]:
        sampled, positions, box = runs.sample(spec, weight, positions, box)
        samples.append(sampled)
        kept.write(samples, positions, box)
        progress(_line(sampled, options.mode))
    return _compensation(zones.kinds[0], np.array(options.knots), samples, settings), samples


def force_field_density(
    bulk: BuiltSystem,
    options: CalibrationOptions | None = None,
    run: RunOptions | None = None,
    **changes: Any,
) -> float:
    """Molecules per nm³ of a liquid of the force field under pressure; half of the run is equilibration.

    Parameters
    ----------
    bulk, options, run, **changes
        As for `calibrate`; of the options, `density_length`, `timestep` and `friction` are used.
    """
    options, run = _asked(options, run, changes)
    zones = all_molecules(bulk)
    _, box = BulkRuns(bulk, zones, options, run).at_own_density()
    return len(zones.molecules) / abs(float(np.linalg.det(box)))


def _asked(
    options: CalibrationOptions | None, run: RunOptions | None, changes: dict[str, Any]
) -> tuple[CalibrationOptions, RunOptions]:
    own, shared = split_changes(changes, CalibrationOptions, SHARED)
    return with_changes(CalibrationOptions, options, own), with_changes(RunOptions, run, shared)


def _line(sampled: BulkSamples, mode: str) -> str:
    """What was found at one lambda."""
    text = (
        f"lambda {sampled.weight:.3g}: <Delta> {sampled.difference:.2f} ± "
        f"{sampled.difference_error:.2f} kJ/mol, "
    )
    if mode == "density":
        return text + f"p {sampled.pressure:.0f} ± {sampled.pressure_error:.0f} bar"
    return text + f"rho {sampled.density:.2f} ± {sampled.density_error:.2f} /nm³"


def _compensation(
    kind: str, grid: np.ndarray, samples: list[BulkSamples], settings: dict[str, Any]
) -> Compensation:
    """Integrals of the spline through <Delta>, with the errors of the samples carried through."""
    integrals = natural_spline(grid, np.eye(len(grid))).antiderivative()(grid)
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
