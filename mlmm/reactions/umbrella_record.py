"""What a folder of umbrella windows says about itself: ``umbrella.json``, written in one move."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlmm.dynamics.run_directory import timestamp, versions
from mlmm.errors import ConfigError
from mlmm.reactions.windows import Coordinate, Window
from mlmm.whole_files import write_json

__all__ = ["UmbrellaRecord", "read_json"]

_NAME = "umbrella.json"


@dataclass
class UmbrellaRecord:
    """Windows of a folder and where it has come to.

    Parameters
    ----------
    path : Path
        Folder.
    coordinate : Coordinate
    temperature : float
        K.
    windows : list of Window
    segments : int
        Runs that the production of a window is divided into.
    exchanges : list of dict
        One for each round of exchanges: ``sources`` and ``attempts``.
    state : str
        ``running`` or ``finished``.
    facts : dict
        Whatever else a report says.
    """

    path: Path
    coordinate: Coordinate
    temperature: float
    windows: list[Window]
    segments: int = 1
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    state: str = "running"
    facts: dict[str, Any] = field(default_factory=dict)

    def folder(self, window: Window) -> Path:
        """Folder of a window."""
        return self.path / "windows" / f"{window.number:03d}"

    def equilibration(self, window: Window) -> Path:
        """Run that brings a window into equilibrium."""
        return self.folder(window) / "equilibration"

    def production(self, window: Window, segment: int = 1) -> Path:
        """Run that is sampled."""
        return self.folder(window) / f"production_{segment:03d}"

    def productions(self, window: Window) -> list[Path]:
        """All of them that there are."""
        found = self.folder(window).glob("production_*")
        # By number: of text, 1000 comes before 999.
        return sorted(found, key=lambda folder: int(folder.name.partition("_")[2]))

    def write(self) -> None:
        """Write it, whole or not at all."""
        content = {
            "variable": {
                "name": self.coordinate.name,
                "unit": self.coordinate.unit,
                "period": self.coordinate.period,
            },
            "temperature": self.temperature,
            "segments": self.segments,
            "windows": [window.facts() for window in self.windows],
            "exchanges": self.exchanges,
            "state": self.state,
            "written": timestamp(),
            "versions": versions(),
            "facts": self.facts,
        }
        write_json(self.path / _NAME, content, nan=True)

    @classmethod
    def read(cls, path: Path) -> UmbrellaRecord:
        """Read the record of a folder.

        Raises
        ------
        ConfigError
            None there, or one that cannot be read.
        """
        content = read_json(path / _NAME, "a folder of umbrella windows", "give the --out of mlmm pmf")
        try:
            return cls(
                path,
                Coordinate(**content["variable"]),
                float(content["temperature"]),
                [Window(**facts) for facts in content["windows"]],
                int(content["segments"]),
                list(content["exchanges"]),
                str(content["state"]),
                dict(content["facts"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"a record of umbrella windows in {path / _NAME}", repr(error), "put it back from a copy"
            ) from error

    @classmethod
    def there(cls, path: Path) -> bool:
        """Whether a folder has a record."""
        return (path / _NAME).exists()


def read_json(path: Path, expected: str, do: str) -> dict[str, Any]:
    """Read a JSON object (ConfigError if there is none)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(expected, f"{path}: {error}", do) from error
    if not isinstance(content, dict):
        raise ConfigError(expected, f"{path}: a JSON {type(content).__name__}", do)
    return content
