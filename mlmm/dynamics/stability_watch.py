"""Looks at frames of a run for what no stable simulation shows, and keeps the last good one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm

from mlmm.dynamics.beside import Beside
from mlmm.dynamics.failures import broken_positions
from mlmm.dynamics.frames import positions_and_box
from mlmm.dynamics.moments import Moment
from mlmm.dynamics.stability import ADVICE, StabilityCheck
from mlmm.dynamics.stages import Dynamics
from mlmm.errors import SimulationError
from mlmm.hybrid.system import HybridSystem

__all__ = ["StabilityWatch"]

logger = logging.getLogger(__name__)


class StabilityWatch:
    """Ends a run that explodes, or warns once in a stage.

    Parameters
    ----------
    hybrid : HybridSystem
    unstable : {"stop", "warn"}
        What happens where something but broken molecules is wrong.
    summary : dict
        Of the run; warnings are added to it.
    beside : bool
        Whether frames are looked at while the run goes on, for platforms that leave the processor idle: a run
        then ends at its next look, or before its next checkpoint, with the same words.
    """

    def __init__(self, hybrid: HybridSystem, unstable: str, summary: dict[str, Any], *, beside: bool = False):
        self.hybrid, self.unstable, self.summary = hybrid, unstable, summary
        #: The last good frame, nm.
        self.positions: np.ndarray = hybrid.built.positions
        self.box: np.ndarray | None = hybrid.built.box_vectors
        self._check = StabilityCheck(hybrid)
        self._seen = self.positions
        self.beside: Beside[tuple[str | None, str | None]] = Beside(beside)

    def start_from(self, state: openmm.State) -> None:
        """A frame that needs no look, with which a stage begins."""
        self.positions, self.box = positions_and_box(state, self.hybrid.built.periodic)
        self._seen = self.positions

    def begin(self, stage: Dynamics, step: int) -> None:
        """A stage begins or goes on at a step."""
        friction = 0.0 if stage.ensemble == "NVE" else float(stage.friction)
        self._check.begin(stage.temperature, friction, step * stage.step_length)

    def look(
        self,
        stage: Dynamics,
        step: int,
        moment: Moment,
        then: Callable[[Moment], None] = lambda _: None,
    ) -> None:
        """At what a step has left.

        Parameters
        ----------
        stage : Dynamics
        step : int
        moment : Moment
            With velocities.
        then : callable
            Takes the moment over once it was found good, or has been warned of; beside a run that is later.

        Raises
        ------
        SimulationError
            For this frame; beside a run, for an earlier one too.
        """
        positions, box, velocities = moment.positions, moment.box, moment.velocities
        if velocities is None:
            raise ValueError("a moment without velocities")
        before, self._seen = self._seen, positions
        now = step * stage.step_length

        def problems() -> tuple[str | None, str | None]:
            broken = broken_positions(positions, before, self.hybrid.built.label)
            if broken is not None:
                return broken, None
            return None, self._check.problem(positions, velocities, box, stage.temperature, now)

        def tell(found: tuple[str | None, str | None]) -> None:
            broken, unstable = found
            if broken is not None:
                where = f"step {step} of stage {stage.name}"
                raise SimulationError("atoms that stay together", f"{broken} at {where}", ADVICE)
            self.positions, self.box = positions, box
            if unstable is not None:
                self._tell_unstable(stage, step, unstable)
            then(moment)

        self.beside.submit(problems, tell)

    def _tell_unstable(self, stage: Dynamics, step: int, what: str) -> None:
        if self.unstable == "stop":
            where = f"step {step} of stage {stage.name}"
            raise SimulationError("a simulation that is stable", f"{what} at {where}", ADVICE)
        said = f"stage {stage.name} is not stable"
        if not any(warning.startswith(said) for warning in self.summary["warnings"]):
            self.summary["warnings"] += [f"{said}: {what} at step {step}"]
            logger.warning("%s", self.summary["warnings"][-1])
