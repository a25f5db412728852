"""Minimise, equilibrate, produce: dynamics of a hybrid system that can be interrupted and resumed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openmm

from mlmm.build.build_log import write_build_log
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.beginning import begin
from mlmm.dynamics.biases import check_biases
from mlmm.dynamics.failures import disk_errors
from mlmm.dynamics.fingerprint import settings_of
from mlmm.dynamics.frames import positions_and_box
from mlmm.dynamics.graph_choice import choose_graphs
from mlmm.dynamics.integrators import beyond_tested
from mlmm.dynamics.lock import locked
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import choose_platform, precision_of
from mlmm.dynamics.progress import Progress
from mlmm.dynamics.records import distance_facts, log_to, muted, run_facts, write_pdb
from mlmm.dynamics.resuming import check_files, take_up
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.runner import Runner
from mlmm.dynamics.stages import Dynamics, Minimise, check_pressure, check_stages
from mlmm.dynamics.start import Start, check_start
from mlmm.dynamics.uncertainty import UncertaintyMonitor
from mlmm.errors import ConfigError
from mlmm.forcefield.reference_platform import box_with_missed_pairs
from mlmm.hybrid.system import HybridSystem, check_hybrid
from mlmm.options import with_changes
from mlmm.plugin import plugin_problem
from mlmm.schemes import SchemeChoice

__all__ = ["simulate"]

logger = logging.getLogger(__name__)


def simulate(
    hybrid: HybridSystem,
    out: str | Path | RunDirectory,
    stages: Sequence[Minimise | Dynamics],
    options: RunOptions | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    restraints: Sequence[Restraint] | None = None,
    variables: Sequence[Variable] = (),
    monitor: UncertaintyMonitor | None = None,
    progress: Callable[[Progress], None] | None = None,
    start: Start | str | Path | None = None,
    **changes: Any,
) -> RunDirectory:
    """Run the stages one after the other and write a run directory.

    SIGINT (Ctrl-C) and SIGTERM end the run after the current steps with a checkpoint, and then a loop over
    runs too: with KeyboardInterrupt and SystemExit(143). ``resume=True`` goes on from the checkpoint and, on
    the Reference platform, gives the same numbers bit for bit as a run that was never interrupted, at
    constant pressure too. Not so where the System holds a barostat of its own: OpenMM's checkpoints leave
    out how far that one is from its next move, and how large. A longer last stage with ``resume=True`` makes
    a run longer, a finished one too, with the numbers that it would have had from the start; NVE checks at
    the end are repeated after the stage before them has become longer.

    Parameters
    ----------
    hybrid : HybridSystem
    out : path or RunDirectory
        New or empty, unless `resume` or `overwrite`; a `RunDirectory` may bring settings to be written there.
    stages : sequence of Minimise, Equilibrate, Produce, NVECheck
        What they leave open is as `options` say; `mlmm.dynamics.stages.standard_stages` lists the usual ones.
    options : RunOptions, optional
        Time step, thermostat, barostat, platform, seed, intervals.
    resume, overwrite : bool
        Go on with the run in `out`, or replace it.
    restraints : sequence of Restraint, optional
        Biases on collective variables instead of those of the hybrid.
    variables : sequence of Variable
        Further collective variables whose values are recorded; also instead of those of the hybrid.
    monitor : UncertaintyMonitor, optional
        Measures the uncertainty of the potential and holds it against limits; the spreads of a committee
        without limits by default.
    progress : callable, optional
        Called with `Progress` twice a second or more often.
    start : Start or path, optional
        Another run of the same system: this one begins where that one is, or at one of its frames, with new
        velocities or the same ones; see `mlmm.dynamics.start.Start`. The built structure by default.
    **changes
        Fields of `options`, such as ``timestep="1 fs"``.

    Returns
    -------
    RunDirectory
        Its `state` is ``finished`` or ``interrupted``. Among the warnings of its `summary` are time steps
        longer than those that were tested.

    Raises
    ------
    ConfigError
        A directory that is taken or in use, another run to resume, a file that cannot be read or written
        (the run can be resumed), a start in a run of another system, an option that
        is unknown or out of range, an unknown platform, NPT without a box or beside a barostat of the
        System's own, a thermostat in the System, or a pressure without NPT.
    SimulationError
        Energies or positions that are not finite: the last finite frame is in ``last_finite_frame.pdb``.
    """
    check_hybrid(hybrid)
    check_stages(stages)
    options = with_changes(RunOptions, options, changes)
    if restraints is None and variables and hybrid.biases.restraints:
        raise ConfigError(
            "restraints beside variables for a hybrid that has restraints of its own",
            "variables alone",
            "write restraints=[…] as well; an empty list leaves them out",
        )
    if restraints is not None or variables:
        hybrid = hybrid.restrained(restraints or (), variables)
    check_pressure(stages, options)
    stages = [stage.under(options) if isinstance(stage, Dynamics) else stage for stage in stages]
    _check_forces(hybrid, stages)
    if start is not None and not isinstance(start, Start):
        start = Start(start)
    check_biases(hybrid, stages, start)
    chosen = choose_platform(options.platform, options.threads, hybrid.system)
    _check_box(hybrid, chosen[0])
    plan = [stage.facts() if isinstance(stage, Dynamics) else {"name": stage.name} for stage in stages]
    run = out if isinstance(out, RunDirectory) else RunDirectory(Path(out))
    observer = monitor or UncertaintyMonitor(hybrid)
    untested = _untested(hybrid, stages)
    followed = distance_facts(hybrid, options.distances)
    with disk_errors(run.path):
        check_start(start, run, resume)
        beginning = begin(start, hybrid.built, stages, options) if start else None
        if resume:
            run.check_resumable()
        else:
            run.check_free(run.path, overwrite)

        def begun_anew() -> tuple[dict[str, Any], dict[str, Any]]:
            settings = settings_of(hybrid, stages, options, observer, hybrid.built.positions)
            return settings, run_facts(hybrid, plan, options.seed, options.title or run.path.name)

        # Before the folder is there: it has its record at once, also when the process is killed.
        new = None if resume and run.begun else begun_anew()
        run.path.mkdir(parents=True, exist_ok=True)
        with locked(run.path):
            checkpoint, rewound = None, False
            if resume and run.begun:
                settings = settings_of(hybrid, stages, options, observer, run.built_positions)
                checkpoint, rewound = take_up(run, settings, hybrid, stages)
                check_files(run, checkpoint)
                summary = checkpoint.summary
            else:
                # Once more: another process may have begun a run here, and ended, in between.
                run.check_free(run.path, overwrite or resume, held=True)
                settings, summary = new or begun_anew()
                if resume and (recorded := Start.recorded(run)):
                    beginning = begin(recorded, hybrid.built, stages, options)
            summary |= {"message": None, "plan": plan, "settings": settings, **_platform_facts(*chosen)}
            summary |= {"distances": followed, "trajectory_interval": options.trajectory_interval}
            summary["title"] = options.title or summary["title"]
            summary["warnings"] += [said for said in untested if said not in summary["warnings"]]
            positions, box = hybrid.built.positions, hybrid.built.box_vectors
            if beginning is not None:
                positions, box = positions_and_box(beginning.state, hybrid.built.periodic)
                summary["start"] = beginning.facts
                summary["warnings"] += beginning.warnings
            if checkpoint is None:
                run.make(summary)
                hybrid.built.save(run.built_folder)
                if hybrid.built.provenance.get("log"):
                    write_build_log(hybrid.built.provenance, run.path)
            elif rewound:
                run.rewind(dataclasses.replace(checkpoint, summary=dict(summary)))
            if checkpoint is None or "start" not in summary:
                # Again in a resumed run, whose file may be damaged; that of a branch is all there is.
                write_pdb(run.file("topology.pdb"), hybrid, positions, box)
            run.write_settings()
            if checkpoint is None:
                # On the terminal they stand since the hybrid system was made.
                with muted(__name__), log_to(run.file("run.log")):
                    _log_hybrid(hybrid)
            with log_to(run.file("run.log")):
                for said in [*untested, *(beginning.warnings if beginning else ())]:
                    logger.warning("%s", said)
                embedding = summary["embedding"]
                record = None if checkpoint is None else embedding
                hybrid, graphs = choose_graphs(hybrid, chosen, record)
                summary["embedding"] = embedding | {"cuda_graphs": graphs}
                runner = Runner(hybrid, run, stages, options, chosen, summary, observer, progress)
                runner.run_from(checkpoint, beginning.state if beginning else None)
    runner.stop.pass_on()
    return run


def _log_hybrid(hybrid: HybridSystem) -> None:
    """The scheme and what the user should know of the hybrid system, for the log of a run."""
    logger.info("scheme %s", SchemeChoice(hybrid.scheme, hybrid.spec.scheme_reason))
    problem = plugin_problem()
    if problem is not None and hybrid.bridge != "native" and getattr(hybrid.potential, "in_openmm", False):
        logger.warning(
            "%s by %s, not by OpenMM's plugin: %s", hybrid.potential.spec.name, hybrid.bridge, problem
        )
    for said in hybrid.warnings:
        logger.warning("%s", said)


def _check_forces(hybrid: HybridSystem, stages: Sequence[Minimise | Dynamics]) -> None:
    """A constant pressure needs a box, and no second barostat; no stage goes with a second thermostat."""
    names = [force.__class__.__name__ for force in hybrid.system.getForces()]
    thermostats = [name for name in names if "Thermostat" in name]
    if thermostats and any(isinstance(stage, Dynamics) for stage in stages):
        raise ConfigError(
            "a System without a thermostat: the integrator is one under NVT and NPT, and NVE has none",
            ", ".join(thermostats),
            "remove it from the System",
        )
    if not any(isinstance(stage, Dynamics) and stage.ensemble == "NPT" for stage in stages):
        return
    if not hybrid.built.periodic:
        raise ConfigError("a periodic system for ensemble NPT", "none", 'write ensemble = "NVT"')
    own = own_barostats(hybrid.system)
    if own:
        raise ConfigError(
            "a System without a barostat for ensemble NPT",
            ", ".join(own),
            'remove it, or write ensemble = "NVT" and leave the pressure to it',
        )


def _check_box(hybrid: HybridSystem, platform: openmm.Platform) -> None:
    """Refuse a box in which the Reference platform would miss pairs."""
    narrow = box_with_missed_pairs(hybrid.built.system, hybrid.built.box_vectors)
    if narrow and platform.getName() == "Reference":
        raise ConfigError(
            "a cube, or a box wider than three cutoffs, on OpenMM's Reference platform, which misses pairs "
            "elsewhere",
            narrow,
            'write platform = "CPU", or build a cube',
        )


def _untested(hybrid: HybridSystem, stages: Sequence[Minimise | Dynamics]) -> list[str]:
    """Stages whose time steps are longer than what was tested."""
    moving = hybrid.zones.moves
    dynamics = [stage for stage in stages if isinstance(stage, Dynamics)]
    found = [beyond_tested(stage, hybrid.system, adaptive=moving) for stage in dynamics]
    return [said for said in found if said is not None]


def _platform_facts(platform: openmm.Platform, properties: dict[str, str]) -> dict[str, str]:
    """Name; precision of a GPU; number of threads, that of the machine where none was given."""
    facts = {"platform": platform.getName()}
    if "Precision" in properties:
        facts["precision"] = precision_of(platform, properties)
    if platform.getName() == "CPU":
        facts["threads"] = properties.get("Threads") or platform.getPropertyDefaultValue("Threads")
    return facts
