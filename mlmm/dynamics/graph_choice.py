"""Whether a run records its model as a CUDA graph: measured once for a model on a device, then remembered.

A graph replays what the device was told when it was recorded. Where a module is not what it says of itself,
or a version of torch or openmm-torch has a fault, replays are wrong without a word; and a large model gains
nothing. So both ways are evaluated beside each other before the first step of a run, and the graph is taken
if its energies and forces are right and it is faster. Only TorchForces on CUDA are asked about.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import openmm

from mlmm.dynamics.graph_memory import (
    GraphChoice,
    digest_of,
    module_digest,
    program_versions,
    recall,
    remember,
)
from mlmm.dynamics.platforms import device_name, precision_of
from mlmm.hybrid.assemble import model_energy
from mlmm.hybrid.cuda_graphs import MEASURED
from mlmm.hybrid.hosts import RegionEnergy
from mlmm.hybrid.system import HybridSystem
from mlmm.potentials.base import is_capturable

__all__ = ["choose_graphs", "measure_graphs"]

logger = logging.getLogger(__name__)

#: The only platform of OpenMM on which openmm-torch records anything.
GRAPH_PLATFORM = "CUDA"
#: A graph that saves less is not worth its memory, and may be none that saves anything.
_WORTH = 0.05
_ROUNDS, _EVALUATIONS = 4, 20
_SHIFT, _SEED = 2e-3, 1  # nm: far more than rounding, far less than a bond

Platform = tuple[openmm.Platform, dict[str, str]]


def choose_graphs(
    hybrid: HybridSystem, platform: Platform, record: Mapping[str, Any] | None = None
) -> tuple[HybridSystem, dict[str, Any] | None]:
    """Find out whether CUDA graphs are right and faster for a hybrid, and have it use them if so.

    Parameters
    ----------
    hybrid : HybridSystem
    platform : tuple of (openmm.Platform, dict)
        Of the run, with its properties.
    record : mapping, optional
        What a run that goes on has recorded as its ``embedding``: its choice is kept on the same device with
        the same programs. One of an earlier version, which had no graphs, goes on without.

    Returns
    -------
    hybrid : HybridSystem
        The same, or one with the same energy whose TorchForce records a graph.
    facts : dict or None
        For the record, as ``cuda_graphs``: ``taken``, ``reason``, ``without_ms``, ``with_ms``, ``key``; what
        it holds already, or None, where there is nothing to choose.
    """
    key = _key(hybrid, platform) if platform[0].getName() == GRAPH_PLATFORM else None
    if key is None:
        return hybrid, None if record is None else record.get("cuda_graphs")
    digest = digest_of(key)
    choice = _recorded(record, digest)
    source = "as the run began"
    if choice is None:
        choice, source = recall(key), "remembered"
    graphs = None
    if choice is None:
        source = "measured now"
        choice, graphs, lasting = measure_graphs(hybrid, platform)
        if lasting:
            remember(key, choice)
    words = "taken" if choice.taken else "not taken"
    # What is slower is as it should be; what is wrong is worth a look, once.
    wrong = graphs is not None and choice.with_ms is None
    level = logging.WARNING if wrong else logging.INFO
    logger.log(level, "CUDA graphs %s (%s): %s", words, source, choice.reason)
    facts = dataclasses.asdict(choice) | {"key": digest}
    if not choice.taken:
        return hybrid, facts
    return graphs or hybrid.reassembled(cuda_graphs="on"), facts


def measure_graphs(hybrid: HybridSystem, platform: Platform) -> tuple[GraphChoice, HybridSystem | None, bool]:
    """Evaluate a hybrid without and with a CUDA graph on a platform, and choose.

    Parameters
    ----------
    hybrid : HybridSystem
        Without a graph, of a module that can be recorded.
    platform : tuple of (openmm.Platform, dict)
        Any; where there is no CUDA, nothing is recorded and both ways are one.

    Returns
    -------
    choice : GraphChoice
    graphs : HybridSystem or None
        The hybrid with a graph, if it could be made.
    lasting : bool
        Whether the next run may rely on it: not where the usual way has failed, or memory was short.
    """
    graphs = None
    try:
        usual = _Side(hybrid, platform)
    except openmm.OpenMMException as error:
        return GraphChoice(False, f"the model fails without them: {_line(error)}"), None, False
    try:
        graphs = hybrid.reassembled(cuda_graphs="on")
        recorded = _Side(graphs, platform)
        problem, lasting = _difference(usual, recorded, hybrid, tolerance_for(hybrid, platform))
        if problem is not None:
            return GraphChoice(False, problem), graphs, lasting
        without_ms, with_ms = evaluation_times((usual, recorded))
    # Whatever recording a module raises, the run can do without.
    except Exception as error:
        reason = _line(error)
        return GraphChoice(False, f"recording fails: {reason}"), graphs, "memory" not in reason.lower()
    faster = with_ms < (1.0 - _WORTH) * without_ms
    reason = f"{with_ms:.3g} ms with, {without_ms:.3g} ms without, for the forces of the model"
    return GraphChoice(faster, reason, without_ms, with_ms), graphs, True


def tolerance_for(hybrid: HybridSystem, platform: Platform) -> float:
    """Largest difference that is rounding, as a part of max|F| and of the energy.

    Both ways add the same numbers, but a GPU in any order: it is the coarser of the arithmetic of the model
    and that in which OpenMM takes its forces.
    """
    fine = precision_of(*platform) == "double" and hybrid.potential.spec.precision == "float64"
    return 1e-8 if fine else 1e-5


class _Side:
    """One of the two ways to evaluate a model, in a context of its own."""

    def __init__(self, hybrid: HybridSystem, platform: Platform):
        group = hybrid.force_groups["ml"]
        self.groups = 1 << group
        # Only an integrator asks for an energy without forces, as a barostat of OpenMM's does: openmm-torch
        # has a graph of its own for that. This one moves nothing.
        self.integrator = openmm.CustomIntegrator(0.001)
        self.integrator.addGlobalVariable("alone", 0.0)
        self.integrator.addComputeGlobal("alone", f"energy{group}")
        self.context = openmm.Context(hybrid.system, self.integrator, *platform)
        self.move(hybrid.built.positions)

    def move(self, positions: np.ndarray) -> None:
        """Put the atoms somewhere, (N, 3), nm."""
        self.context.setPositions(positions)
        self.context.computeVirtualSites()

    def forces(self) -> None:
        """Evaluate the forces of the model, and wait for them."""
        self.context.getState(forces=True, groups=self.groups)

    def energy_and_forces(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol and forces (N, 3) in kJ/mol/nm."""
        self.move(positions)
        state = self.context.getState(energy=True, forces=True, groups=self.groups)
        return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value

    def energy_alone(self, positions: np.ndarray) -> float:
        """Energy in kJ/mol, without forces."""
        self.move(positions)
        self.integrator.step(1)
        return self.integrator.getGlobalVariableByName("alone")


def evaluation_times(sides: Sequence[Any]) -> list[float]:
    """Median milliseconds of an evaluation of forces by each side, in turn: what disturbs meets all alike.

    Parameters
    ----------
    sides : sequence
        Each with a method ``forces()``.
    """
    for side in sides:
        side.forces()
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(_EVALUATIONS):
        for side, taken in zip(sides, times, strict=True):
            started = time.perf_counter()
            side.forces()
            taken.append(1e3 * (time.perf_counter() - started))
    return [statistics.median(taken) for taken in times]


def _difference(
    usual: _Side, recorded: _Side, hybrid: HybridSystem, tolerance: float
) -> tuple[str | None, bool]:
    """What is wrong with a graph, or None, and whether that is the graph's fault.

    Either graph, with forces and for the energy alone, is recorded in the first round and replayed in the
    others, in turn and never twice at the same positions.
    """
    built = hybrid.built
    random = np.random.default_rng(_SEED)
    for _ in range(_ROUNDS):
        first, second = (built.positions + random.normal(0.0, _SHIFT, (built.n_atoms, 3)) for _ in range(2))
        energy, forces = usual.energy_and_forces(first)
        alone = usual.energy_alone(second)
        if not np.isfinite([energy, alone]).all() or not np.isfinite(forces).all():
            return "the energy is not finite without them", False
        found, found_forces = recorded.energy_and_forces(first)
        found_alone = recorded.energy_alone(second)
        largest = max(float(np.abs(forces).max()), 1e-6)
        error = float(np.abs(found_forces - forces).max()) / largest
        # Written so that NaN is too much as well.
        if not error <= tolerance:
            return f"forces differ by {error:.1e} of the largest", True
        for what, expected, got in (("energy", energy, found), ("energy alone", alone, found_alone)):
            if not abs(got - expected) <= tolerance * max(1.0, abs(expected)):
                return f"{what} {got:.6g} instead of {expected:.6g} kJ/mol", True
    return None, True


def _key(hybrid: HybridSystem, platform: Platform) -> dict[str, Any] | None:
    """All that decides whether a graph is right and what it saves; None for what is not asked about."""
    spec = hybrid.spec
    if spec.cuda_graphs != MEASURED or spec.bridge != "torchforce" or spec.model_weight is not None:
        return None
    energy = hybrid.blend if hybrid.blend is not None else model_energy(spec)
    module = energy.bound() if isinstance(energy, RegionEnergy) else energy
    if not is_capturable(module):
        return None
    return {
        "potential": spec.potential.spec.name,
        "module": module_digest(module),
        "particles": hybrid.built.n_atoms,
        "model_atoms": len(hybrid.zones.active),
        "scheme": spec.scheme,
        "precision": precision_of(*platform),
        "device": device_name(platform[0]),
        **program_versions(),
    }


def _recorded(record: Mapping[str, Any] | None, digest: str) -> GraphChoice | None:
    """The choice of a run that goes on, if it was made for the same key."""
    if record is not None and "cuda_graphs" not in record:
        return GraphChoice(False, "the run began with a version that had none")
    facts = None if record is None else record["cuda_graphs"]
    if facts is None or facts["key"] != digest:
        return None
    return GraphChoice(**{name: value for name, value in facts.items() if name != "key"})


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TorchScript begins with where it was, and ends with what was wrong.
    return f"{lines[0]} {lines[-1]}"[:300] if len(lines) > 1 else (lines or [type(error).__name__])[0][:300]
