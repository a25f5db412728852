"""Exploration in ML/MM for a loop of active learning: a run file with the model of the round before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlmm.build import BuiltSystem
from mlmm.config.load import load_config
from mlmm.config.objects import build_from, hybrid_from, potential_from, run_options, stages_from
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.errors import SimulationError
from mlmm.learning.acquisition.region_frames import frames_of_run
from mlmm.learning.active.backends import RunExplorer
from mlmm.learning.active.options import ExploreOptions
from mlmm.reference.labels import Molecule

__all__ = ["run_explorer"]

logger = logging.getLogger(__name__)


def run_explorer(explore: ExploreOptions, out: Path) -> RunExplorer:
    """Explore by the dynamics of a run file.

    The system is built once. The first round runs with the potential of the run file, later ones with the
    model that was trained. A run that is killed goes on from its checkpoint; one that becomes unstable with a
    model that is not good yet gives the frames before.

    Parameters
    ----------
    explore : ExploreOptions
        With ``kind = "run"``.
    out : Path
        Folder of the loop.
    """

    def frames(model: Path | None, seed: int, folder: Path) -> Sequence[Molecule]:
        changes = [f"run.seed={seed % 2**31}"]
        if model is not None:
            changes.append(f'potential.name="{model.resolve()}"')
        config = load_config(explore.run, changes)
        system = out / "system"
        if not (system / "done").exists():
            build_from(config, logger.info).save(system)
            (system / "done").touch()
        built = BuiltSystem.load(system)
        hybrid = hybrid_from(config, built, potential=potential_from(config))
        run = RunDirectory(folder / "run", config.as_dict())
        begun = run.file("run.json").exists() and run.begun
        if not begun or run.state not in ("finished", "failed"):
            try:
                simulate(
                    hybrid,
                    run,
                    stages_from(config),
                    run_options(config),
                    resume=begun,
                    overwrite=not begun and run.path.exists(),
                )
            except SimulationError as error:
                logger.warning("%s", error)
        name = folder.parent.name
        found = frames_of_run(run.path, radius=explore.radius, every=explore.every, window=explore.run)
        return [
            replace(molecule, origin={"run": name, "window": "run", "frame": molecule.origin["frame"]})
            for molecule in found
        ]

    return frames
