"""Simulations of a refinement of G(lambda): iterate, correct, check, in pieces that can be taken up again."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openmm
import torch

from mlmm.compensation.linear_response import corrected, density_response
from mlmm.compensation.refine_state import (
    Iteration,
    KeptRefinement,
    RefinementState,
    flatness,
    gain_of,
    iteration_table,
    profile_of,
)
from mlmm.dynamics.failures import check_temperature, nan_becomes_an_error
from mlmm.dynamics.frames import as_tensors, positions_and_box
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import platform_arguments
from mlmm.hybrid.assemble import assemble
from mlmm.hybrid.spec import HybridSpec
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones
from mlmm.zones.compensation import Compensation

__all__ = ["RefinementRuns"]

#: Time between two states in the file of what is done, ps.
_PIECE = 5.0
#: Facts of an earlier refinement that this one replaces.
_STALE = ("zone", "steps_ps", "timestep_ps", "final_run_ps", "final_density", "refinement")


class RefinementRuns:
    """The simulations of a refinement, one after the other.

    Parameters
    ----------
    spec : HybridSpec
        Of a periodic box.
    zones : AdaptiveZones
        Those of `spec`, around one point.
    run : RunOptions
        Platform and threads.
    settings : mapping
        What decides the result, as it is written to the file of what is done.
    kept : KeptRefinement
    """

    def __init__(
        self,
        spec: HybridSpec,
        zones: AdaptiveZones,
        run: RunOptions,
        settings: Mapping[str, Any],
        kept: KeptRefinement,
    ):
        self.spec, self.zones, self.settings, self.kept = spec, zones, settings, kept
        self.positions, self.box = np.array(spec.built.positions), np.array(spec.built.box_vectors)
        self._platform = functools.partial(platform_arguments, run.platform, run.threads)
        self._weights_of = AdaptiveWeights(zones)

    def refine(
        self, start: Compensation, shells: np.ndarray, progress: Callable[[str], None]
    ) -> tuple[Compensation, list[Iteration]]:
        """Iterate until the density is flat or the iterations are used up, then check.

        Parameters
        ----------
        start : Compensation
            At the knots of the refinement.
        shells : ndarray
            Edges by distance, nm.
        progress : callable
        """
        settings, tolerance = self.settings, self.settings["tolerance"]
        facts = {name: value for name, value in start.facts.items() if name not in _STALE}
        state = self.kept.read() or RefinementState(
            [], dataclasses.replace(start, facts=facts), 0, self.positions, None, []
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
            distances, box = np.array(state.distances), self.box
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
            context = openmm.Context(system, integrator, *self._platform(system=system))
            context.setPositions(state.positions)
            if state.velocities is None:
                openmm.LocalEnergyMinimizer.minimize(context, 50.0, 20)
                context.setVelocitiesToTemperature(settings["temperature_K"], int(seeds[1] & 0x3FFFFFFF) + 1)
            else:
                context.setVelocities(state.velocities)
            for _ in range(samples):
                state.steps += interval
                where = f"in {name} after {state.steps * step:g} ps"
                with nan_becomes_an_error(where):
                    integrator.step(interval)
                check_temperature(context, settings["temperature_K"], where)
                positions, _ = positions_and_box(context.getState(positions=True), True)
                if state.steps > dropped * interval:
                    state.distances.append(self.distances(positions))
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
            found = self._weights_of.distances(*as_tensors(positions, self.box))
        return found[:, 0].numpy().astype(np.float32)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
