"""What a calibration of G(lambda) has found so far: averages at each lambda, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.whole_files import write_whole

__all__ = ["BulkSamples", "KeptCalibration"]

#: What may differ between the beginning of a calibration and its end: each lambda has its own error.
_MAY_CHANGE = ("equilibration_ps", "length_ps")


@dataclass(frozen=True)
class BulkSamples:
    """Averages over the bulk at one lambda.

    Parameters
    ----------
    weight : float
        lambda of every molecule.
    difference, difference_error : float
        <Delta> of one molecule and its standard error, kJ/mol.
    pressure, pressure_error : float
        bar; NaN at constant pressure.
    density, density_error : float
        Molecules per nm³.
    """

    weight: float
    difference: float
    difference_error: float
    pressure: float
    pressure_error: float
    density: float
    density_error: float


class KeptCalibration:
    """What is done of a calibration, in a file: nothing is lost when it is interrupted.

    Parameters
    ----------
    path : path, optional
        Nothing is kept without.
    settings : dict
        Of the calibration; a file with others is refused.
    """

    def __init__(self, path: str | Path | None, settings: dict[str, Any]):
        self.path, self.settings = None if path is None else Path(path), settings

    def read(self) -> tuple[list[BulkSamples], np.ndarray, np.ndarray] | None:
        """Read averages, positions (N, 3) and box (3, 3) in nm; None without a file."""
        if self.path is None or not self.path.exists():
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            then = content["settings"]
            names = [k for k, v in self.settings.items() if then.get(k) != v and k not in _MAY_CHANGE]
            if names:
                raise ValueError(f"other {', '.join(names)}")
            samples = [BulkSamples(**sample) for sample in content["samples"]]
            return samples, np.array(content["positions"]), np.array(content["box"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} as the beginning of this calibration",
                f"{type(error).__name__}: {error}",
                "calibrate with the same settings, or remove that file",
            ) from error

    def write(self, samples: list[BulkSamples], positions: np.ndarray, box: np.ndarray) -> None:
        """Replace the file in one go."""
        if self.path is None:
            return
        content = {
            "settings": self.settings,
            "samples": [dataclasses.asdict(sample) for sample in samples],
            "positions": positions.tolist(),
            "box": box.tolist(),
        }
        write_whole(self.path, json.dumps(content))
