"""The folder of a loop: one folder for each round, one data set, facts written in one move each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlmm.dynamics.run_directory import timestamp, versions
from mlmm.errors import ConfigError
from mlmm.learning.dataset.store import Dataset
from mlmm.reference.labels import Label, Molecule
from mlmm.whole_files import write_json

__all__ = ["LoopFolder", "keep_candidates", "kept_candidates", "read_facts"]

_CANDIDATES = "candidates, without labels"


class LoopFolder:
    """Where a loop keeps everything.

    - ``settings.json``: what it was started with; another start with other settings is refused.
    - ``run.json``: when, and by which versions.
    - ``data/``, ``held_out/``: data sets of the level of theory.
    - ``round_000/`` and so on: ``candidates/``, ``chosen.json``, ``labels/``, ``model/``, ``measured.json``.

    Parameters
    ----------
    path : path
    settings : dict
        Everything that results depend on.

    Raises
    ------
    ConfigError
        A loop of other settings is there.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]):
        self.path = Path(path)
        written = json.loads(json.dumps(settings))
        if (self.path / "settings.json").exists():
            found = read_facts(self.path / "settings.json")
            changed = sorted(key for key in {*found, *written} if found.get(key) != written.get(key))
            if changed:
                raise ConfigError(
                    f"the settings that the loop in {path} was started with",
                    f"others for {', '.join(changed)}",
                    "choose another --out, or put the settings back",
                )
        elif self.path.exists() and any(entry.name != "run.json" for entry in self.path.iterdir()):
            raise ConfigError(
                f"a new folder or that of a loop at {path}", "other files", "choose another --out"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / "run.json").exists():
            write_json(
                self.path / "run.json", {"kind": "learn", "created": timestamp(), "versions": versions()}
            )
        write_json(self.path / "settings.json", written)

    def round(self, number: int) -> Path:
        """Folder of a round."""
        folder = self.path / f"round_{number:03d}"
        folder.mkdir(exist_ok=True)
        return folder

    def rounds(self) -> list[dict[str, Any]]:
        """Facts of the rounds that are done."""
        return [read_facts(path) for path in sorted(self.path.glob("round_*/done.json"))]


def keep_candidates(folder: Path, molecules: Sequence[Molecule]) -> list[Molecule]:
    """Write explored structures, and return them as they are read: the same bits however often."""
    store = Dataset.create(folder / "candidates", _CANDIDATES)
    unlabelled = Label(float("nan"), converged=False, method=_CANDIDATES)
    store.append([(molecule, unlabelled) for molecule in molecules])
    write_json(folder / "explored.json", {"candidates": len(store)})
    return [molecule for molecule, _ in store]


def kept_candidates(folder: Path) -> list[Molecule] | None:
    """Explored structures; None where the exploration did not come to its end."""
    if not (folder / "explored.json").exists():
        return None
    return [molecule for molecule, _ in Dataset(folder / "candidates")]


def read_facts(path: Path) -> Any:
    """Read JSON (ConfigError where it cannot be read)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"readable facts in {path}", str(error), "delete the folder of that round and resume"
        ) from error
