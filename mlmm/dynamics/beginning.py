"""The first state of a run that begins where another run of the same system is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from mlmm.build import BuiltSystem
from mlmm.build.foreign_xml import read_serialised
from mlmm.dynamics.dcd_frames import DCDFrames
from mlmm.dynamics.frames import has_velocities, positions_and_box
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.stages import Dynamics, Minimise
from mlmm.dynamics.start import Start
from mlmm.errors import ConfigError

__all__ = ["Beginning", "begin"]


@dataclass(frozen=True)
class Beginning:
    """The first state of a run, and what its record says about it.

    Parameters
    ----------
    state : openmm.State
        Positions, box, and velocities where they are kept.
    facts : dict
        Run, stage and step or frame, seed and creation of the run that it comes from.
    warnings : list of str
    """

    state: openmm.State
    facts: dict[str, Any]
    warnings: list[str]


def begin(
    start: Start, built: BuiltSystem, stages: Sequence[Minimise | Dynamics], options: RunOptions
) -> Beginning:
    """Read the first state of a run from another run.

    Parameters
    ----------
    start : Start
    built : BuiltSystem
        Of the new run.
    stages : sequence of Minimise or Dynamics
        Of the new run, with everything filled in.
    options : RunOptions
        Of the new run.

    Raises
    ------
    ConfigError
        No such run or frame, a run of another system, or velocities that cannot be kept.
    """
    source = RunDirectory(Path(start.run))
    summary = source.summary
    theirs = BuiltSystem.load(source.built_folder)
    _check_same_system(source, theirs, built)
    if start.velocities == "kept":
        _check_velocities(source, theirs, built, stages)
    facts: dict[str, Any] = {"run": str(source.path.resolve()), "frame": None}
    velocities = None
    if start.frame is not None:
        number, positions, box = _frame(source, theirs, start.frame)
        facts |= {"frame": number}
    else:
        checkpoint = source.read_checkpoint(put_aside=False)
        if not checkpoint.state:
            raise ConfigError(
                "a run that has come to the end of its minimisation",
                f"{source.path}, which is {source.state}",
                "wait until it has, or start from its run file",
            )
        state = read_serialised(checkpoint.state, "State", f"state.xml of the checkpoint in {source.path}")
        positions, box = positions_and_box(state, built.periodic)
        if start.velocities == "kept":
            if not has_velocities(state):
                raise ConfigError(
                    "a run whose last checkpoint holds velocities",
                    f"{source.path}, which was minimised only",
                    "take new velocities",
                )
            velocities = state.getVelocities(asNumpy=True)._value
        at = min(checkpoint.stage, len(summary["plan"]) - 1)
        facts |= {"stage": summary["plan"][at]["name"], "step": checkpoint.step}
    facts |= {"velocities": start.velocities}
    facts |= {name: summary.get(name) for name in ("title", "created", "seed", "state")}
    thermostats = [s.name for s in stages if isinstance(s, Dynamics) and s.ensemble != "NVE"]
    warnings = []
    if thermostats and summary.get("seed") == options.seed:
        warnings.append(
            f"seed {options.seed} is that of {source.path}, from which this run starts: the noise of the "
            "thermostat repeats, and both runs are correlated; give another seed"
        )
    return Beginning(_as_state(positions, velocities, box), facts, warnings)


def _check_same_system(source: RunDirectory, theirs: BuiltSystem, built: BuiltSystem) -> None:
    """Atoms, elements, bonds and periodic boundaries have to agree; parameters and potential may differ."""
    problem = None
    if theirs.n_atoms != built.n_atoms:
        problem = f"{theirs.n_atoms} atoms there, {built.n_atoms} here"
    elif theirs.labels != built.labels or not np.array_equal(theirs.numbers, built.numbers):
        pairs = enumerate(zip(theirs.labels, built.labels, theirs.numbers, built.numbers, strict=True))
        first = next(i for i, (a, b, x, y) in pairs if a != b or x != y)
        problem = f"atom {first} is {theirs.label(first)} there, {built.label(first)} here"
    elif not np.array_equal(theirs.bonds, built.bonds):
        problem = "other bonds"
    elif theirs.periodic != built.periodic:
        problem = "one has a periodic box, the other none"
    if problem:
        raise ConfigError(
            "a run of the same system to start from",
            f"{source.path}: {problem}",
            "start from a run of this system, or build the new one as that run did",
        )


def _check_velocities(
    source: RunDirectory, theirs: BuiltSystem, built: BuiltSystem, stages: Sequence[Minimise | Dynamics]
) -> None:
    """Velocities mean the same only with equal masses and constraints, and are lost in a minimisation."""
    first = stages[0]
    if isinstance(first, Minimise):
        raise ConfigError(
            "a first stage of dynamics where velocities are kept",
            f"{first.name}",
            "set run.minimise = 0 (--set run.minimise=0), or take new velocities",
        )
    for what, own, other in (
        ("masses", _masses(built), _masses(theirs)),
        ("constraints", _constraints(built), _constraints(theirs)),
    ):
        if own != other:
            raise ConfigError(
                f"equal {what} in {source.path} for velocities that are kept",
                f"other {what}",
                "take new velocities",
            )


def _masses(built: BuiltSystem) -> list[float]:
    return [built.system.getParticleMass(i)._value for i in range(built.n_atoms)]


def _constraints(built: BuiltSystem) -> set[tuple[int, ...]]:
    found = (built.system.getConstraintParameters(i) for i in range(built.system.getNumConstraints()))
    return {tuple(sorted(pair[:2])) for pair in found}


def _frame(
    source: RunDirectory, theirs: BuiltSystem, number: int
) -> tuple[int, np.ndarray, np.ndarray | None]:
    """Number from 1, positions (N, 3) and box (3, 3), nm, of a frame of the trajectory."""
    path, expected = source.file("trajectory.dcd"), f"a trajectory with frames in {source.path}"
    try:
        frames = DCDFrames(path, theirs.n_atoms)
    except (OSError, ValueError) as error:
        found = str(error) if path.exists() else "none"
        raise ConfigError(expected, found, "leave the frame out") from error
    total = len(frames)
    if not total:
        raise ConfigError(expected, "none yet", "wait for one, or leave the frame out")
    place = number - 1 if number > 0 else total + number
    if number == 0 or not 0 <= place < total:
        raise ConfigError(
            f"a frame from 1 to {total} of {path}, or from -1 backwards", str(number), "give another"
        )
    positions, found_box = frames[place]
    box = theirs.box_vectors
    if box is not None and found_box is not None:
        # A barostat keeps the shape of the box; its cosines, rounded, might leave the reduced form.
        box = box * float(np.mean(np.linalg.norm(found_box, axis=1) / np.linalg.norm(box, axis=1)))
    return place + 1, positions, box


def _as_state(positions: np.ndarray, velocities: np.ndarray | None, box: np.ndarray | None) -> openmm.State:
    """A State of given numbers, which OpenMM makes of a Context only."""
    system = openmm.System()
    for _ in positions:
        system.addParticle(1.0)
    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    if velocities is not None:
        context.setVelocities(velocities)
    return context.getState(positions=True, velocities=velocities is not None)
