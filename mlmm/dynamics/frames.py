"""Positions and box vectors: from an OpenMM State to arrays, from arrays to tensors; once, here."""

from __future__ import annotations

from typing import Literal, overload

import numpy as np
import openmm
import torch
from openmm import unit

__all__ = ["as_tensors", "device_of", "has_velocities", "positions_and_box"]


@overload
def positions_and_box(state: openmm.State, periodic: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def positions_and_box(state: openmm.State, periodic: bool) -> tuple[np.ndarray, np.ndarray | None]: ...
def positions_and_box(state: openmm.State, periodic: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions (N, 3) and box vectors (3, 3) of a State in nm; no box for an open system."""
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    if not periodic:
        return positions, None
    return positions, state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)


def has_velocities(state: openmm.State | None) -> bool:
    """Whether a State holds velocities; a minimised structure has none."""
    return state is not None and (state.getDataTypes() & openmm.State.Velocities) != 0


def as_tensors(
    positions: np.ndarray, box: np.ndarray | None = None, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Positions (N, 3) and box vectors (3, 3) in nm as float64 tensors of their own."""
    where = torch.tensor(np.asarray(positions), dtype=torch.float64, device=device)
    cell = None if box is None else torch.tensor(np.asarray(box), dtype=torch.float64, device=device)
    return where, cell


def device_of(module: torch.nn.Module) -> torch.device:
    """Device on which a blend is evaluated: that of its buffers; the processor if it has none."""
    return next((buffer.device for buffer in module.buffers()), torch.device("cpu"))
