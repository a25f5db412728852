"""Refinement of G(lambda): the solvent's density around a point is measured, and taken back, until flat."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch

from mlmm.build import BuiltSystem
from mlmm.build.surroundings.bulk import around_a_point, scaled_to
from mlmm.compensation.calibrate import force_field_density
from mlmm.compensation.linear_response import corrected, density_response
from mlmm.compensation.refine_state import (
    Iteration,
    KeptRefinement,
    RefinementState,
    flatness,
    gain_of,
    iteration_table,
    profile_of,
    zone_shells,
)
from mlmm.dynamics.reporters import positions_and_box
from mlmm.errors import ConfigError, SimulationError
from mlmm.hybrid.assemble import HybridSpec, assemble, check_compensation
from mlmm.hybrid.bridge import choose_bridge
from mlmm.potentials.base import PotentialModel
from mlmm.units import parse
from mlmm.zones.adaptive import AdaptiveWeights, adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms

__all__ = ["KNOTS", "WEIGHT_EDGES", "refine"]

logger = logging.getLogger(__name__)
#: Bins of lambda, and knots of G that go with them: close together where lambda hardly changes with distance.
WEIGHT_EDGES = (0.0, 0.06, 0.2, 0.4, 0.6, 0.8, 0.94, 1.0)
KNOTS = (0.0, 0.01, 0.04, 0.12, 0.3, 0.5, 0.7, 0.88, 0.97, 1.0)
#: Time between two states in the file of what is done, ps.
_PIECE = 5.0
#: Least distance from the outer end of the zone to half of the box, nm.
_ROOM = 0.05
#: Facts of an earlier refinement that this one replaces.
_STALE = ("zone", "steps_ps", "timestep_ps", "final_run_ps", "final_density", "refinement")


def refine(
    bulk: BuiltSystem,
    start: Compensation,
    potential: PotentialModel,
    *,
    plateau: str | float,
    width: str | float,
    walls: str | float | None = "0.125 nm",
    density: float | None = None,
    iterations: int = 6,
    length: str | float = "60 ps",
    check_length: str | float = "180 ps",
    equilibration: str | float = "3 ps",
    gain: float = 0.7,
    compressibility: float = 0.09,
    tolerance: float = 0.05,
    timestep: str | float = "2 fs",
    temperature: str | float = "300 K",
    pressure: str | float = "1 bar",
    friction: str | float = "2 /ps",
    sample_interval: int = 25,
    weight_edges: Sequence[float] = WEIGHT_EDGES,
    knots: Sequence[float] = KNOTS,
    bridge: str = "auto",
    platform: str | None = None,
    seed: int = 0,
    partial: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
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
    plateau, width, walls
        Of the zone, see `adaptive_zones`.
    density : float, optional
        Molecules per nm³; that of the force field at `pressure` by default, from a run of 50 ps.
    iterations : int
        At most; fewer if one finds the density flat. With 0, only the check of `start`.
    length, check_length, equilibration : str or float
        Sampled in each iteration and in the check ("0 ps": no check), and dropped before, ps.
    gain : float
        Share of the first corrections that is taken; see `gain_of`.
    compressibility : float
        rho kT kappa of the solvent: the least answer.
    tolerance : float
        Of `flatness`.
    timestep, temperature, pressure, friction : str or float
        ps, K, bar, 1/ps.
    sample_interval : int
        Steps between samples.
    weight_edges, knots : sequence of float
        Bins of lambda; knots of G, also those of `start` from then on.
    bridge : {"auto", "torchforce", "pythonforce"}
    platform : str, optional
    seed : int
    partial : path, optional
        A file that keeps every iteration, and the present one every 5 ps; an existing one is gone on with.
    progress : callable, optional
        Called with a line, or a table, of text.

    Returns
    -------
    compensation : Compensation
        Its facts hold the profile of the check.
    iterations : list of Iteration

    Raises
    ------
    ConfigError
        A start for other molecules, settings out of range, a box too small for the zone, a bin of lambda
        without molecules, or a partial file of another refinement.
    SimulationError
        Positions that are not finite.
    """
    progress = progress or (lambda text: None)
    step = parse(timestep, "time", "timestep")
    lengths = {
        "length_ps": parse(length, "time", "length"),
        "check_length_ps": parse(check_length, "time", "check_length"),
        "equilibration_ps": parse(equilibration, "time", "equilibration"),
    }
    _check_settings(lengths, step, iterations, gain, tolerance, sample_interval)
    kinds = sorted({atom.residue.name for atom in bulk.topology.atoms()})
    missing = sorted(set(kinds) - set(start.alignment))
    if missing or len(kinds) != 1:
        raise ConfigError(
            f"a start for {', '.join(kinds)}",
            f"one for {', '.join(start.alignment)}",
            "refine a compensation of the same solvent",
        )
    kept = KeptRefinement(partial)
    if density is None:
        density = kept.setting("density_per_nm3")
    if density is None:
        progress("density of the force field, 50 ps")
        density = force_field_density(
            bulk,
            potential,
            timestep=step,
            temperature=temperature,
            pressure=pressure,
            platform=platform,
            seed=seed,
        )
    built = around_a_point(scaled_to(bulk, density))
    point = region_from_atoms(built.topology, [built.n_atoms - 1], "molecule")
    zones = adaptive_zones(built, point, plateau, width, molecules=kinds, walls=walls)
    # The point is no atom that a model could describe: nothing has lambda = 1 for good.
    zones = dataclasses.replace(zones, core=())
    half = 0.5 * float(np.diagonal(built.box_vectors).min())
    if zones.plateau + zones.width > half - _ROOM:
        raise ConfigError(
            f"plateau + width at least {_ROOM:g} nm below half of the box",
            f"{zones.plateau + zones.width:g} nm in a box of {2 * half:.3f} nm",
            f"give an edge of {2 * (zones.plateau + zones.width) + 6 * _ROOM:.2f} nm",
        )
    settings = {
        "iterations": iterations,
        **lengths,
        "gain": gain,
        "compressibility": compressibility,
        "tolerance": tolerance,
        "timestep_ps": step,
        "temperature_K": parse(temperature, "temperature", "temperature"),
        "friction_per_ps": parse(friction, "rate", "friction"),
        "sample_interval": sample_interval,
        "weight_edges": [float(edge) for edge in weight_edges],
        "knots": [float(knot) for knot in knots],
        "plateau_nm": zones.plateau,
        "width_nm": zones.width,
        "walls_nm": str(zones.walls),
        "density_per_nm3": density,
        "molecules": len(zones.molecules),
        "seed": seed,
        "potential": f"{potential.spec.name}, {potential.spec.members} members, {potential.spec.precision}",
        "start": [
            start.alignment[kinds[0]],
            *np.asarray(start.values.get(kinds[0], ()), dtype=float).tolist(),
        ],
    }
    kept.settings = json.loads(json.dumps(settings))
    spec = HybridSpec(
        built, zones, potential, "per_atom", choose_bridge(bridge, potential), compensation=start
    )
    for warning in check_compensation(spec):
        progress(warning)
    run = _Run(spec, platform, settings, kept)
    return run.refine(start.at_knots(knots), zone_shells(zones.plateau, zones.width, half), progress)


class _Run:
    """The simulations of a refinement, one after the other."""

    def __init__(
        self,
        spec: HybridSpec,
        platform: str | None,
        settings: Mapping[str, Any],
        kept: KeptRefinement,
    ):
        self.spec, self.built, self.zones = spec, spec.built, spec.zones
        self.platform = [] if platform is None else [openmm.Platform.getPlatformByName(platform)]
        self.settings, self.kept = settings, kept
        self.weights_of = AdaptiveWeights(self.zones)
        self.cell = torch.tensor(self.built.box_vectors)

    def refine(
        self, start: Compensation, shells: np.ndarray, progress: Callable[[str], None]
    ) -> tuple[Compensation, list[Iteration]]:
        settings, tolerance = self.settings, self.settings["tolerance"]
        facts = {name: value for name, value in start.facts.items() if name not in _STALE}
        state = self.kept.read() or RefinementState(
            [], dataclasses.replace(start, facts=facts), 0, np.array(self.built.positions), None, []
        )
        if state.done or state.steps:
            progress(
                f"going on from {self.kept.path}: {len(state.done)} iterations are done, "
                f"{state.steps * settings['timestep_ps']:g} ps of the next"
            )
        while not (state.done and state.done[-1].check):
            flat = bool(state.done) and flatness(state.done[-1].profile, tolerance) == "flat"
            check = flat or len(state.done) >= settings["iterations"]
            length = settings["check_length_ps" if check else "length_ps"]
            if length <= 0:
                break
            name = "check" if check else f"iteration {len(state.done) + 1}"
            self.sample(state, length, name, progress)
            distances, box = np.array(state.distances), self.built.box_vectors
            profile = profile_of(self.zones, distances, box, shells, settings["weight_edges"])
            done = Iteration(state.compensation, profile, length, check)
            verdict = flatness(profile, tolerance)
            progress(iteration_table(done, name, verdict, tolerance))
            # A check of a poor start may find a bin empty: that is its result, not its failure.
            if not check or (profile.weight_density > 0).all():
                response = density_response(self.zones, distances, profile, box, settings["compressibility"])
                changed = corrected(
                    state.compensation,
                    profile,
                    response,
                    temperature=settings["temperature_K"],
                    gain=gain_of(settings["gain"], len(state.done) + 1),
                )
                if check or verdict == "flat":
                    changed = dataclasses.replace(state.compensation, errors=changed.errors)
                state.compensation = changed
            state.done, state.steps, state.distances = [*state.done, done], 0, []
            self.kept.write(state)
        return self.result(state), state.done

    def result(self, state: RefinementState) -> Compensation:
        """The last compensation, with the check's errors and profile."""
        found, settings = state.compensation, self.settings
        facts = {
            **{
                key: value for key, value in settings.items() if key not in ("weight_edges", "knots", "start")
            },
            "iterations": sum(not done.check for done in state.done),
            "lengths_ps": [done.length for done in state.done if not done.check],
            "excess": [round(done.profile.excess, 5) for done in state.done if not done.check],
        }
        if state.done and state.done[-1].check:
            last = state.done[-1]
            profile = last.profile
            facts["check"] = {
                "length_ps": last.length,
                "flatness": flatness(profile, settings["tolerance"]),
                "lambda": _rounded(profile.weights),
                "density": _rounded(profile.weight_density),
                "errors": _rounded(profile.weight_errors),
                "shells_nm": _rounded(profile.edges),
                "density_by_distance": _rounded(profile.density),
                "errors_by_distance": _rounded(profile.errors),
                "excess": round(profile.excess, 5),
                "excess_error": round(profile.zone_error, 5),
                "bulk_per_nm3": round(profile.bulk, 4),
            }
        return dataclasses.replace(found, facts={**found.facts, "refinement": facts})

    def sample(
        self, state: RefinementState, length: float, name: str, progress: Callable[[str], None]
    ) -> None:
        """Simulate what is left of one iteration, in pieces that are kept one by one.

        Each piece begins with a new Context and its own random numbers: then a refinement that was
        interrupted goes on as one that was not.
        """
        settings, number = self.settings, len(state.done)
        step, interval = settings["timestep_ps"], settings["sample_interval"]
        dropped = round(settings["equilibration_ps"] / step / interval)
        total = dropped + max(2, round(length / step / interval))
        piece = max(1, round(_PIECE / step / interval))
        system = assemble(dataclasses.replace(self.spec, compensation=state.compensation)).system
        began, first = time.monotonic(), state.steps
        while state.steps < total * interval:
            samples = min(piece, total - state.steps // interval)
            seeds = np.random.SeedSequence([settings["seed"], number, state.steps]).generate_state(2)
            integrator = openmm.LangevinMiddleIntegrator(
                settings["temperature_K"], settings["friction_per_ps"], step
            )
            integrator.setRandomNumberSeed(int(seeds[0] & 0x3FFFFFFF) + 1)
            context = openmm.Context(system, integrator, *self.platform)
            context.setPositions(state.positions)
            try:
                if state.velocities is None:
                    openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
                    context.setVelocitiesToTemperature(
                        settings["temperature_K"], int(seeds[1] & 0x3FFFFFFF) + 1
                    )
                else:
                    context.setVelocities(state.velocities)
                for _ in range(samples):
                    integrator.step(interval)
                    state.steps += interval
                    positions, _ = positions_and_box(context.getState(positions=True), True)
                    if not np.isfinite(positions).all():
                        raise _not_finite(name, state.steps * step)
                    if state.steps > dropped * interval:
                        state.distances.append(self.distances(positions))
            except openmm.OpenMMException as error:
                if "nan" in str(error).lower():
                    raise _not_finite(name, state.steps * step) from error
                raise
            state.positions = np.array(positions)
            velocities = context.getState(velocities=True).getVelocities(asNumpy=True)
            state.velocities = np.array(velocities._value)
            del context, integrator
            self.kept.write(state)
            each = (time.monotonic() - began) / (state.steps - first)
            left = each * (total * interval - state.steps)
            progress(
                f"{name}: {state.steps * step:g} of {total * interval * step:g} ps, "
                f"{1e3 * each:.1f} ms/step, {left // 60:.0f}:{left % 60:02.0f} left"
            )

    def distances(self, positions: np.ndarray) -> np.ndarray:
        """Of every anchor from the point, (M,), nm."""
        with torch.no_grad():
            found = self.weights_of.distances(torch.tensor(positions), self.cell)
        return found[:, 0].numpy().astype(np.float32)


def _check_settings(
    lengths: Mapping[str, float], step: float, iterations: int, gain: float, tolerance: float, interval: int
) -> None:
    for right, expected, got, do in (
        (step > 0, "a timestep above 0", f"{step:g} ps", 'write "2 fs"'),
        (iterations >= 0, "0 iterations or more", str(iterations), "write 6"),
        (
            lengths["length_ps"] > 0 and min(lengths.values()) >= 0,
            "a length above 0, the others not below",
            ", ".join(f"{value:g} ps" for value in lengths.values()),
            'write "60 ps"',
        ),
        (
            iterations > 0 or lengths["check_length_ps"] > 0,
            "an iteration or a check",
            "neither",
            "give check_length above 0",
        ),
        (0 < gain <= 1, "a gain above 0, 1 at most", f"{gain:g}", "write 0.7"),
        (tolerance > 0, "a tolerance above 0", f"{tolerance:g}", "write 0.05"),
        (interval > 0, "a sample_interval of 1 or more", str(interval), "write 25"),
    ):
        if not right:
            raise ConfigError(expected, got, do)


def _not_finite(name: str, at: float) -> SimulationError:
    return SimulationError(
        "finite positions", f"NaN in {name} after {at:g} ps", "try a smaller time step, or another seed"
    )


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
