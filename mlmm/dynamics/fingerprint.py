"""All that decides what a run gives, as plain values: a run goes on only with the same.

Every field of `RunOptions`, of the stages, of `HybridSpec`, of the zones and of the potential's description
is taken over as it is declared, so that a new one is compared from the day it exists.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.stages import Dynamics, Minimise
from mlmm.dynamics.uncertainty import UncertaintyMonitor
from mlmm.hybrid.system import HybridSystem

__all__ = ["differences", "same_force_field", "settings_of"]

#: How a run is carried out, what it is called, and what its report follows: may differ.
_FREE_OPTIONS = {"platform", "threads", "title", "unstable", "distances"}
_FREE_SPEC = {"scheme_reason", "bridge", "mm_side", "direct_pairs", "cuda_graphs"}
_FREE_ZONES = {"region", "notes", "setup", "cut_bonds"}
_FREE_POTENTIAL = {"licence", "citation"}
#: Largest difference of numbers that are computed anew in a resumed run.
_TOLERANCES = {
    "embedding.compensation": 1e-3,  # kJ/mol: a mean over the built structure is summed again
    "embedding.reference_charges": 1e-5,  # e: predicted twice
    "potential.energy": 1e-3,  # kJ/mol, and a part of 1e-5: single precision, another machine
}
_LONG = 200  # characters beyond which a value is kept as its checksum


def settings_of(
    hybrid: HybridSystem,
    stages: Sequence[Minimise | Dynamics],
    options: RunOptions,
    monitor: UncertaintyMonitor,
    positions: np.ndarray,
) -> dict[str, Any]:
    """Collect the settings of a run by name, such as ``produce.friction`` or ``embedding.scheme``.

    Parameters
    ----------
    hybrid : HybridSystem
    stages : sequence of Minimise or Dynamics
        With everything filled in.
    options : RunOptions
    monitor : UncertaintyMonitor
    positions : ndarray, shape (N, 3), nm
        Where the energy of the potential is evaluated: weights under one name can be told apart by it only.
    """
    spec, zones = hybrid.spec, hybrid.zones
    found: dict[str, Any] = {"stages": [[type(stage).__name__, stage.name] for stage in stages]}
    in_stages = {entry.name for entry in dataclasses.fields(Dynamics)}
    found |= _fields("run", options, _FREE_OPTIONS | in_stages)
    for number, stage in enumerate(stages, 1):
        unique = sum(other.name == stage.name for other in stages) == 1
        found |= _fields(stage.name if unique else f"{stage.name} (stage {number})", stage)
    found |= _fields(
        "embedding", spec, {"built", "zones", "potential", "compensation", "biases"} | _FREE_SPEC
    )
    found |= spec.biases.settings()
    curve = spec.compensation
    if curve is not None:
        found["embedding.compensation"] = [dict(curve.alignment), curve.knots, dict(curve.values)]
    found |= _fields("zones", zones, _FREE_ZONES)
    found["region.atoms"] = zones.region.atoms
    found |= _fields("potential", spec.potential.spec, _FREE_POTENTIAL)
    found["potential.energy"] = float(hybrid.region_energies(positions).energies.double().sum())
    found |= _fields("uncertainty", monitor.limits)
    found |= {"uncertainty.interval": monitor.interval, "uncertainty.forces": monitor.forces}
    if monitor.training is not None:
        found["uncertainty.training_set"] = {
            str(z): [len(rows), float(rows.double().sum())]
            for z, rows in monitor.training.surroundings.items()
        }
    return {name: _plain(value, name not in _TOLERANCES) for name, value in found.items()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any], may_grow: Collection[str] = ()) -> list[str]:
    """Describe what differs between two sets of settings.

    Parameters
    ----------
    then, now : mapping
        As `settings_of` returns them.
    may_grow : collection of str
        Names of lengths that may be longer now.
    """
    found = []
    for name in [*then, *(name for name in now if name not in then)]:
        old, new = then.get(name), now.get(name)
        if name in may_grow and old is not None and new is not None and new > old:
            continue
        if not _same(old, new, _TOLERANCES.get(name, 0.0)):
            found.append(f"{name} = {_shown(new)} (the run: {_shown(old)})")
    return found


def same_force_field(folder: Path, system: openmm.System) -> bool:
    """Whether a built System is that of a file, up to the rounding of numbers that were computed anew.

    Parameters
    ----------
    folder : Path
        Where `BuiltSystem.save` wrote it.
    system : openmm.System
    """
    then, now = (folder / "system.xml").read_text(encoding="utf-8"), openmm.XmlSerializer.serialize(system)
    if then == now:
        return True
    # Numbers on their own, and whatever stands between them.
    pattern = re.compile(r"(?<=\")(-?\d*\.?\d+(?:e[-+]?\d+)?)(?=\")")
    old, new = pattern.split(then), pattern.split(now)
    if len(old) != len(new) or old[::2] != new[::2]:
        return False
    first, second = (np.array(parts[1::2], dtype=np.float64) for parts in (old, new))
    return bool(np.allclose(first, second, rtol=1e-6, atol=1e-5))


def _fields(prefix: str, settings: Any, without: set[str] | None = None) -> dict[str, Any]:
    names = [entry.name for entry in dataclasses.fields(settings)]
    return {f"{prefix}.{name}": getattr(settings, name) for name in names if name not in (without or set())}


def _plain(value: Any, short: bool = True) -> Any:
    """A value as JSON holds it; a long one as its checksum."""
    plain = json.loads(json.dumps(value, default=_listed))
    text = json.dumps(_rounded(plain))
    return (
        f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}" if short and len(text) > _LONG else plain
    )


def _listed(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else list(value)


def _rounded(value: Any) -> Any:
    """Numbers with six digits: weights of a zone are computed anew."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return {key: _rounded(part) for key, part in value.items()} if isinstance(value, dict) else value


def _same(then: Any, now: Any, tolerance: float) -> bool:
    if isinstance(then, list) and isinstance(now, list):
        same_length = len(then) == len(now)
        return same_length and all(_same(a, b, tolerance) for a, b in zip(then, now, strict=True))
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() == now.keys() and all(_same(then[key], now[key], tolerance) for key in then)
    if isinstance(then, float) and isinstance(now, int | float):
        relative = 1e-5 if tolerance else 1e-9
        return math.isclose(then, now, rel_tol=relative, abs_tol=tolerance) or then == now
    return bool(then == now)


def _shown(value: Any) -> str:
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
