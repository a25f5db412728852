"""The zero of energy of an adaptive zone: a start from the built structure; does a compensation fit?"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from mlmm.errors import ConfigError
from mlmm.hybrid.assemble import adaptive_blend
from mlmm.hybrid.spec import HybridSpec, built_cell
from mlmm.structures import minimum_image
from mlmm.zones.adaptive import AdaptiveZones, UniformWeights
from mlmm.zones.compensation import Compensation

__all__ = ["check_compensation", "start_alignment", "with_compensation"]

#: kJ/mol per atom between a compensation and the built structure: no strain, another zero of energy.
_MISALIGNED = 100.0


def with_compensation(spec: HybridSpec) -> tuple[HybridSpec, list[str]]:
    """A spec of a zone that moves with a compensation, and what the user should know of it."""
    warnings = []
    if spec.electrostatics == "charges":
        warnings.append("the compensation of the adaptive zone does not contain the predicted charges")
    if spec.compensation is not None:
        return spec, warnings + check_compensation(spec)
    alignment = start_alignment(spec)
    start = ", ".join(f"{k} {a:.2f} kJ/mol" for k, a in alignment.alignment.items())
    warnings.append(
        f"no calibrated compensation: energies are aligned by the built structure ({start}), and "
        "molecules will drift through the adaptive zone; run mlmm calibrate, then set zones.compensation"
    )
    return dataclasses.replace(spec, compensation=alignment), warnings


def start_alignment(spec: HybridSpec, at_most: int = 64) -> Compensation:
    """Mean Delta of the molecules next to the region in the built structure, by kind: a start."""
    by_kind = _built_differences(spec, at_most)
    means = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    return Compensation(means, facts={"mode": "mean of the built structure"})


def check_compensation(spec: HybridSpec, at_most: int = 16) -> list[str]:
    """Whether a compensation may belong to this potential and force field; warnings.

    Raises
    ------
    ConfigError
        An alignment that the built structure contradicts by more than 100 kJ/mol per atom: two conventions of
        the zero of energy, whose difference times d lambda/dr would tear the zone apart.
    """
    zones, compensation = spec.zones, spec.compensation
    assert isinstance(zones, AdaptiveZones) and compensation is not None
    if not set(zones.kinds) <= set(compensation.alignment):
        return []  # named when the energy is made
    for kind, values in _built_differences(spec, at_most).items():
        given, found = compensation.alignment[kind], float(np.median(values))
        n_atoms = len(zones.molecules[zones.kinds.index(kind)])
        if abs(given - found) > _MISALIGNED * n_atoms:
            raise ConfigError(
                f"a compensation of {kind} for {spec.potential.spec.name} and this force field",
                f"an alignment of {given:.6g} kJ/mol where the built structure has {found:.6g}",
                "calibrate with this potential (mlmm calibrate), or leave the compensation out at first",
            )
    whose = str(compensation.facts.get("potential", "")).split(",")[0]
    if whose and whose != spec.potential.spec.name:
        return [f"the compensation was calibrated for {whose}, not for {spec.potential.spec.name}"]
    return []


def _built_differences(spec: HybridSpec, at_most: int) -> dict[str, list[float]]:
    """Delta of the molecules next to the region in the built structure, kJ/mol, by kind."""
    built, zones = spec.built, spec.zones
    assert isinstance(zones, AdaptiveZones)
    positions, cell = torch.tensor(built.positions), built_cell(built)
    first = torch.tensor([molecule[0] for molecule in zones.molecules])
    distance = minimum_image(positions[first] - positions[zones.centres[0]], cell).norm(dim=1)
    near = torch.argsort(distance).tolist()
    sample = [
        m for kind in sorted(set(zones.kinds)) for m in [n for n in near if zones.kinds[n] == kind][:at_most]
    ]
    few = dataclasses.replace(
        zones,
        molecules=tuple(zones.molecules[m] for m in sample),
        kinds=tuple(zones.kinds[m] for m in sample),
        anchors=tuple(zones.anchors[m] for m in sample),
    )
    blend = adaptive_blend(dataclasses.replace(spec, zones=few), UniformWeights(1.0, len(sample)))
    with torch.no_grad():
        device = blend.visible.device
        _, found = blend.molecule_differences(positions.to(device), None if cell is None else cell.to(device))
    by_kind: dict[str, list[float]] = {}
    for kind, difference in zip(few.kinds, found.tolist(), strict=True):
        by_kind.setdefault(kind, []).append(difference)
    return by_kind
