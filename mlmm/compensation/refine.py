"""Refinement of G(lambda): the solvent's density around a point is measured, and taken back, until flat."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.build import BuiltSystem
from mlmm.build.surroundings.bulk import around_a_point, scaled_to
from mlmm.compensation.calibrate import force_field_density
from mlmm.compensation.options import SHARED, RefinementOptions
from mlmm.compensation.refine_runs import RefinementRuns
from mlmm.compensation.refine_state import Iteration, KeptRefinement, zone_shells
from mlmm.dynamics.options import RunOptions
from mlmm.errors import ConfigError
from mlmm.hybrid.alignment import check_compensation
from mlmm.hybrid.bridge import choose_bridge
from mlmm.hybrid.spec import HybridSpec
from mlmm.options import split_changes, with_changes
from mlmm.potentials.base import PotentialModel
from mlmm.zones.adaptive import AdaptiveZones, adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms

__all__ = ["refine"]

#: Least distance from the outer end of the zone to half of the box, nm.
_ROOM = 0.05


def refine(
    bulk: BuiltSystem,
    start: Compensation,
    potential: PotentialModel,
    options: RefinementOptions | None = None,
    run: RunOptions | None = None,
    *,
    partial: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> tuple[Compensation, list[Iteration]]:
    """G(lambda) under which the density around a point is flat, by iteration, and how flat it is.

    Around a particle without interactions the solvent has no structure of its own: whatever the density
    does by lambda is the zone's. Each iteration simulates under the present G and corrects it by what the
    density answers to G, which its fluctuations tell: see `mlmm.compensation.linear_response`. The
    gain falls, so that noise averages out. A last and longer run checks and does not correct.

    Parameters
    ----------
    bulk : BuiltSystem
        A periodic box of one kind of flexible molecule; see `mlmm.build.surroundings.bulk`.
    start : Compensation
        Of `calibrate`, or refined before.
    potential : PotentialModel
    options : RefinementOptions, optional
        Zone, lengths, iterations, gain, tolerance, time step.
    run : RunOptions, optional
        Temperature, pressure, seed, platform and threads are used.
    partial : path, optional
        A file that keeps every iteration, and the present one every 5 ps; an existing one is gone on with.
    progress : callable, optional
        Called with a line, or a table, of text.
    **changes
        Fields of `options`, and those of `run` that are used, such as ``plateau="0.5 nm"``.

    Returns
    -------
    compensation : Compensation
        Its facts hold the profile of the check.
    iterations : list of Iteration

    Raises
    ------
    ConfigError
        A start for other molecules, an option that is unknown or out of range, a box too small for the zone,
        a bin of lambda without molecules, or a partial file of another refinement.
    SimulationError
        Dynamics that is not stable.
    """
    progress = progress or (lambda text: None)
    own, shared = split_changes(changes, RefinementOptions, SHARED)
    options, run = with_changes(RefinementOptions, options, own), with_changes(RunOptions, run, shared)
    kinds = sorted({atom.residue.name for atom in bulk.topology.atoms()})
    missing = sorted(set(kinds) - set(start.alignment))
    if missing or len(kinds) != 1:
        raise ConfigError(
            f"a start for {', '.join(kinds)}",
            f"one for {', '.join(start.alignment)}",
            "refine a compensation of the same solvent",
        )
    kept = KeptRefinement(partial)
    density = options.density or kept.setting("density_per_nm3")
    if not density:
        progress("density of the force field, 50 ps")
        density = force_field_density(bulk, run=run, density_length="50 ps", timestep=options.timestep)
    built = around_a_point(scaled_to(bulk, density))
    zones, half = _zones_around_the_point(built, kinds, options)
    settings = {
        "iterations": options.iterations,
        "length_ps": options.length,
        "check_length_ps": options.check_length,
        "equilibration_ps": options.equilibration,
        "gain": options.gain,
        "compressibility": options.compressibility,
        "tolerance": options.tolerance,
        "timestep_ps": options.timestep,
        "temperature_K": run.temperature,
        "friction_per_ps": options.friction,
        "sample_interval": options.sample_interval,
        "weight_edges": list(options.weight_edges),
        "knots": list(options.knots),
        "plateau_nm": zones.plateau,
        "width_nm": zones.width,
        "walls_nm": str(zones.walls),
        "density_per_nm3": density,
        "molecules": len(zones.molecules),
        "seed": run.seed,
        "potential": f"{potential.spec.name}, {potential.spec.members} members, {potential.spec.precision}",
        "start": [
            start.alignment[kinds[0]],
            *np.asarray(start.values.get(kinds[0], ()), dtype=float).tolist(),
        ],
    }
    kept.settings = json.loads(json.dumps(settings))
    bridge = choose_bridge(options.bridge, potential, in_plugin=True)
    spec = HybridSpec(built, zones, potential, "per_atom", bridge, compensation=start)
    for warning in check_compensation(spec):
        progress(warning)
    runs = RefinementRuns(spec, zones, run, settings, kept)
    return runs.refine(start.at_knots(options.knots), zone_shells(zones.plateau, zones.width, half), progress)


def _zones_around_the_point(
    built: BuiltSystem, kinds: list[str], options: RefinementOptions
) -> tuple[AdaptiveZones, float]:
    """Make the zone around the last particle, a point; returns half of the box too, nm."""
    point = region_from_atoms(built.topology, [built.n_atoms - 1], "molecule")
    zones = adaptive_zones(built, point, options.plateau, options.width, molecules=kinds, walls=options.walls)
    # The point is no atom that a model could describe: nothing has lambda = 1 for good.
    zones = dataclasses.replace(zones, core=())
    half = 0.5 * float(np.diagonal(np.array(built.box_vectors)).min())
    if zones.plateau + zones.width > half - _ROOM:
        raise ConfigError(
            f"plateau + width at least {_ROOM:g} nm below half of the box",
            f"{zones.plateau + zones.width:g} nm in a box of {2 * half:.3f} nm",
            f"give an edge of {2 * (zones.plateau + zones.width) + 6 * _ROOM:.2f} nm",
        )
    return zones, half
