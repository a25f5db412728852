"""Minimise, equilibrate, produce: dynamics of a hybrid system that can be interrupted and resumed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from mlmm.dynamics.barostat import own_barostats
from mlmm.dynamics.integrators import beyond_tested
from mlmm.dynamics.lock import locked
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import choose_platform
from mlmm.dynamics.records import embedding_facts, log_to, run_facts, write_pdb
from mlmm.dynamics.resuming import check_files
from mlmm.dynamics.run_directory import Checkpoint, RunDirectory
from mlmm.dynamics.runner import Progress, Runner
from mlmm.dynamics.stages import Dynamics, Minimise, check_pressure
from mlmm.dynamics.uncertainty import UncertaintyMonitor
from mlmm.errors import ConfigError
from mlmm.hybrid.system import HybridSystem
from mlmm.options import with_changes

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
    monitor: UncertaintyMonitor | None = None,
    progress: Callable[[Progress], None] | None = None,
    **changes: Any,
) -> RunDirectory:
    """Run the stages one after the other and write a run directory.

    SIGINT and SIGTERM end the run after the current steps with a checkpoint; ``resume=True`` goes on from it
    and, on the Reference platform, gives the same numbers bit for bit as a run that was never interrupted, at
    constant pressure too. Not so where the System holds a barostat of its own: OpenMM's checkpoints leave
    out how far that one is from its next move, and how large.

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
    monitor : UncertaintyMonitor, optional
        Measures the uncertainty of the potential and holds it against limits; the spreads of a committee
        without limits by default.
    progress : callable, optional
        Called with `Progress` about twice a second.
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
        A directory that is taken, another run to resume, an option that is unknown or out of range, an
        unknown platform, NPT without a box or beside a barostat of the System's own, a thermostat in the
        System, or a pressure without NPT.
    SimulationError
        Energies or positions that are not finite: the last finite frame is in ``last_finite_frame.pdb``.
    """
    options = with_changes(RunOptions, options, changes)
    check_pressure(stages, options)
    stages = [stage.under(options) if isinstance(stage, Dynamics) else stage for stage in stages]
    _check_forces(hybrid, stages)
    chosen = choose_platform(options.platform, options.threads)
    plan = [stage.facts() if isinstance(stage, Dynamics) else {"name": stage.name} for stage in stages]
    run = out if isinstance(out, RunDirectory) else RunDirectory(Path(out))
    if resume:
        run.check_resumable()
    else:
        run.check_free(run.path, overwrite)
        run.path.mkdir(parents=True, exist_ok=True)
    with locked(run.path):
        checkpoint = None
        if resume:
            checkpoint = run.read_checkpoint()
            _check_same_run(run, checkpoint, plan, options.seed, hybrid)
            check_files(run, checkpoint)
        else:
            # Once more: another process may have begun a run here, and ended, in between.
            run.check_free(run.path, overwrite, held=True)
            run.make()
            hybrid.built.save(run.built_folder)
            write_pdb(run.file("topology.pdb"), hybrid, hybrid.built.positions, hybrid.built.box_vectors)
        with log_to(run.file("run.log")):
            title = options.title or run.path.name
            summary = checkpoint.summary if checkpoint else run_facts(hybrid, plan, options.seed, title)
            summary |= {"state": "running", "message": None, **_platform_facts(*chosen)}
            for said in _untested(hybrid, stages):
                logger.warning("%s", said)
                summary["warnings"] += [] if said in summary["warnings"] else [said]
            observer = monitor or UncertaintyMonitor(hybrid)
            runner = Runner(hybrid, run, stages, options, chosen, summary, observer, progress)
            return runner.run_from(checkpoint)


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


def _untested(hybrid: HybridSystem, stages: Sequence[Minimise | Dynamics]) -> list[str]:
    """Stages whose time steps are longer than what was tested."""
    moving = hybrid.zones.moves
    dynamics = [stage for stage in stages if isinstance(stage, Dynamics)]
    found = [beyond_tested(stage, hybrid.system, adaptive=moving) for stage in dynamics]
    return [said for said in found if said is not None]


def _platform_facts(platform: openmm.Platform, properties: dict[str, str]) -> dict[str, str]:
    """Name and number of threads, which is the environment's or the machine's where none was asked for."""
    facts = {"platform": platform.getName()}
    if platform.getName() == "CPU":
        facts["threads"] = properties.get("Threads") or platform.getPropertyDefaultValue("Threads")
    return facts


def _check_same_run(
    run: RunDirectory, checkpoint: Checkpoint, plan: list[dict[str, Any]], seed: int, hybrid: HybridSystem
) -> None:
    if run.state == "finished":
        raise ConfigError(
            "an unfinished run to resume", f"{run.path}, which is finished", "see its report.html"
        )
    old, embedding = checkpoint.summary, embedding_facts(hybrid)
    before = old["embedding"]
    for what, then, now in (
        ("stages", old["plan"], plan),
        ("seed", old["seed"], seed),
        ("region", old["region"]["atoms"], list(hybrid.zones.region.atoms)),
        ("zones", old["zones"], hybrid.zone_counts()),
        ("zones", old.get("zone_setup"), dict(hybrid.zones.setup)),
        *((key, before.get(key), embedding[key]) for key in ("scheme", "mm_tail")),
        ("electrostatics", before.get("electrostatics", "mechanical"), embedding["electrostatics"]),
        ("charge_range", before.get("charge_range"), embedding["charge_range"]),
        ("number of atoms", old["system"]["atoms"], hybrid.built.n_atoms),
    ):
        if then != now:
            raise ConfigError(
                f"the same {what} as in {run.path}", "another", "resume without changes, or start anew"
            )
    if not _same_charges(before.get("reference_charges", {}), embedding["reference_charges"]):
        raise ConfigError(
            f"the same reference charges as in {run.path}", "others", "resume without changes, or start anew"
        )
    if not _same_curve(before.get("compensation"), embedding["compensation"]):
        raise ConfigError(
            f"the same compensation as in {run.path}", "another", "resume with its file, or start anew"
        )


def _same_charges(then: Mapping[str, float], now: Mapping[str, float]) -> bool:
    """Whether two sets of charges are one within the rounding of a model that predicted them twice."""
    return then.keys() == now.keys() and all(abs(then[atom] - now[atom]) < 1e-5 for atom in now)


def _same_curve(then: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    """Whether two compensations are one within rounding: a mean over the built structure is summed anew."""
    if then is None or now is None:
        return then is now
    pairs = [(then["knots"], now["knots"])]
    for name in ("alignment", "values"):
        if then[name].keys() != now[name].keys():
            return False
        pairs += [(then[name][kind], now[name][kind]) for kind in now[name]]
    return all(np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=0, atol=1e-3) for a, b in pairs)
