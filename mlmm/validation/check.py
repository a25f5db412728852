"""Does the hybrid system do what it says? Finite differences, both bridges, images, energy drift."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mlmm.check_report import CheckReport, CheckResult
from mlmm.collective_variables.definitions import merged
from mlmm.dynamics.drift import USED, energy_drift
from mlmm.dynamics.options import RunOptions
from mlmm.errors import ConfigError
from mlmm.forcefield.reference_platform import forces_of, potential_of, reference_context
from mlmm.hybrid.bridge import torchforce_problem
from mlmm.hybrid.spec import built_cell
from mlmm.hybrid.system import HybridSystem, check_hybrid
from mlmm.kernels.direct_pairs import REGION_PAIRS, ZONE_PAIRS
from mlmm.options import Quantity, with_changes
from mlmm.potentials.base import scriptable_module
from mlmm.statistics import drift_limit
from mlmm.units import FEMTOSECOND, parse
from mlmm.validation.zone_checks import check_zones

__all__ = [
    "CheckReport",
    "CheckResult",
    "check",
    "check_drift",
    "check_energy",
    "finite_difference_error",
]

logger = logging.getLogger(__name__)
_LIMITS = {
    "float64": {"forces": 1e-6, "bridges": 1e-9, "images": 1e-8},
    "float32": {"forces": 1e-2, "bridges": 1e-5, "images": 1e-3},
}


def check(
    hybrid: HybridSystem,
    run: RunOptions | None = None,
    *,
    nve_length: Quantity = "1 ps",
    equilibration: Quantity = "0.5 ps",
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> CheckReport:
    """Check a hybrid system with numbers: `check_energy`, then `check_drift`; see there.

    Parameters
    ----------
    hybrid : HybridSystem
        Make its potential with ``precision="float64"`` for sharp limits.
    run : RunOptions, optional
        Time step, temperature, seed, platform and threads are used; all but the seed for the drift only.
    nve_length, equilibration : str or float
        ps; a length of 0 leaves the drift out.
    progress : callable, optional
        Called with a line of text at the start of each part.
    **changes
        Fields of `run` that are used, such as ``timestep="1 fs"``.
    """
    check_hybrid(hybrid)
    run = with_changes(RunOptions, run, changes, USED)
    report = check_energy(hybrid, seed=run.seed, progress=progress)
    results = report.results
    if parse(nve_length, "time", "nve_length"):
        results += check_drift(
            hybrid, run, nve_length=nve_length, equilibration=equilibration, progress=progress
        ).results
    return CheckReport(results, report.tables)


def check_energy(
    hybrid: HybridSystem, *, seed: int = 0, progress: Callable[[str], None] | None = None
) -> CheckReport:
    """Forces, bridges and periodic images on the Reference platform.

    - forces: the force against central differences of the energy, relative to the largest force;
    - bridges: TorchForce against PythonForce, where both are possible, and the kernel, where it is the host;
    - images: energy change when every molecule is moved by whole box vectors;
    - what the zones do to the forces and who owns which energy, as far as the scheme has such a thing, see
      `check_zones`.

    The limits are those of the potential's precision.
    """
    progress = progress or (lambda text: None)
    limits = _LIMITS[hybrid.potential.spec.precision]
    progress("finite differences")
    # A large system costs seconds per energy here; its region is as large as a small one's.
    n_coordinates = 24 if hybrid.built.n_atoms < 5000 else 6
    worst = finite_difference_error(hybrid, seed=seed, n_coordinates=n_coordinates)
    results = [_limited("forces vs finite differences", worst, "of max|F|", limits["forces"])]
    if _has_both_bridges(hybrid):
        progress("both bridges")
        worst = _bridge_difference(hybrid)
        results.append(_limited("TorchForce vs PythonForce", worst, "of max|F|", limits["bridges"]))
    if hybrid.bridge == "native":
        worst = _bridge_difference(hybrid, ("native", "pythonforce"))
        results.append(_limited("kernel vs PythonForce", worst, "of max|F|", limits["bridges"]))
    elif _has_direct_pairs(hybrid) and not _has_both_bridges(hybrid):
        worst = _bridge_difference(hybrid, (hybrid.bridge, hybrid.bridge))
        results.append(_limited("pairs by the kernel vs OpenMM", worst, "of max|F|", limits["bridges"]))
    if hybrid.built.periodic:
        progress("periodic images")
        change, energy = _image_change(hybrid, seed)
        # Sums over many pairs carry rounding in proportion to the energy.
        limit = limits["images"] * max(1.0, abs(energy) / 1e5)
        results.append(_limited("moving molecules by box vectors", change, "kJ/mol", limit))
    zones = check_zones(hybrid, images=limits["images"], progress=progress)
    return CheckReport((*results, *zones.results), zones.tables)


def check_drift(
    hybrid: HybridSystem,
    run: RunOptions | None = None,
    *,
    nve_length: Quantity = "1 ps",
    equilibration: Quantity = "0.5 ps",
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> CheckReport:
    """Energy drift in NVE of the hybrid and of the pure force field, started and run in the same way.

    The hybrid passes if it drifts at most twice as much as the force field, within two standard errors of
    that difference: |d| <= 2 |d_MM| + 2 sqrt(s^2 + 4 s_MM^2), and its energy fluctuates at most ten times as
    much. Parameters as for `check`.

    Raises
    ------
    ConfigError
        Fewer than 100 steps.
    """
    progress = progress or (lambda text: None)
    run = with_changes(RunOptions, run, changes, USED)
    length, step = parse(nve_length, "time", "nve_length"), run.timestep
    before = parse(equilibration, "time", "equilibration")
    if length / step < 100:
        raise ConfigError("an NVE run of at least 100 steps", f"{length / step:.0f}", "make it longer, or 0")
    measured = {}
    for name, system in (("pure MM", hybrid.built.system), ("hybrid", hybrid.system)):
        progress(f"energy drift of the {name} system, {length:g} ps")
        measured[name] = energy_drift(
            system, hybrid.built.positions, run, equilibration=before, length=length
        )
    (mm, mm_error, mm_noise), (ml, ml_error, ml_noise) = measured["pure MM"], measured["hybrid"]
    limit = drift_limit(mm, mm_error, ml_error)
    passed = abs(ml) <= limit
    what = f"{length:g} ps at {step / FEMTOSECOND:g} fs"
    rate = "kJ/mol/ns/dof"
    return CheckReport(
        (
            CheckResult("NVE drift, pure MM", mm, rate, None, mm_error, True, what),
            CheckResult("NVE drift, hybrid", ml, rate, limit, ml_error, passed, what),
            CheckResult("fluctuation around it, pure MM", mm_noise, "kJ/mol"),
            # An energy that runs away hides its drift in a large error; it shows here.
            _limited("fluctuation around it, hybrid", ml_noise, "kJ/mol", 10 * mm_noise),
        )
    )


def _limited(name: str, value: float, unit_name: str, limit: float) -> CheckResult:
    return CheckResult(name, value, unit_name, limit, None, value < limit)


def finite_difference_error(
    hybrid: HybridSystem,
    *,
    n_coordinates: int = 24,
    delta: float | None = None,
    seed: int = 0,
) -> float:
    """Largest difference between force and central difference of the energy, relative to the largest force.

    Both are those of hybrid − pure force field, whose own energy jumps where a Lennard-Jones pair crosses its
    cutoff: in water one coordinate in 200 would fail by chance.

    Parameters
    ----------
    hybrid : HybridSystem
    n_coordinates : int
        Random coordinates of atoms in the zone, and a third as many of others and of restrained ones. Of a
        zone that moves, half of them belong to molecules with lambda between 0 and 1.
    delta : float, optional
        Displacement, nm: 1e-5, for a zone that moves 3e-6, for a float32 model, whose energies are too coarse
        for less, 1e-4.
    seed : int
    """
    if delta is None:
        delta = 3e-6 if hybrid.zones.moves else 1e-5
    if hybrid.potential.spec.precision == "float32":
        delta = max(delta, 1e-4)
    positions = np.array(hybrid.built.positions)
    context = reference_context(hybrid.system)
    plain = reference_context(hybrid.built.system)

    def added(where: np.ndarray) -> float:
        return potential_of(context, where) - potential_of(plain, where)

    forces = forces_of(context, positions)
    largest = np.abs(forces).max()
    forces = forces - forces_of(plain, positions)
    worst = 0.0
    for atom, k in _coordinates(hybrid, n_coordinates, np.random.default_rng(seed)):
        energies = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[atom, k] += sign * delta
            energies.append(added(moved))
        slope = -(energies[0] - energies[1]) / (2 * delta)
        worst = max(worst, abs(slope - forces[atom, k]))
    return worst / largest


def _coordinates(hybrid: HybridSystem, n: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Coordinates of atoms inside, of moving molecules on their way, a third as many of all others."""
    core = np.array(hybrid.zones.active)
    weights = hybrid.zones.weights(torch.tensor(hybrid.built.positions), built_cell(hybrid.built)).numpy()
    passing = np.flatnonzero((weights > 0) & ~np.isin(np.arange(len(weights)), core))
    coordinates: list[tuple[int, int]] = []
    share = n // 2 if len(passing) else n
    others, restrained = np.flatnonzero(weights == 0), np.array(hybrid.biases.atoms)
    third = max(1, n // 3)
    for atoms, count in ((core, share), (passing, n - share), (others, third), (restrained, third)):
        places = generator.permutation(3 * len(atoms))[:count]
        coordinates += [(int(atoms[place // 3]), int(place % 3)) for place in places]
    return coordinates


def _has_both_bridges(hybrid: HybridSystem) -> bool:
    """Whether TorchForce and PythonForce can both host the potential under this scheme."""
    rules = hybrid.spec.rules
    whole = not (rules.has_shares or rules.isolated or hybrid.potential.spec.per_atom)
    whole = whole or hybrid.spec.electrostatics == "charges"
    return scriptable_module(hybrid.potential) is not None and torchforce_problem() is None and not whole


def _has_direct_pairs(hybrid: HybridSystem) -> bool:
    """Whether the C++ kernel subtracts pairs of the force field."""
    return any(force.getName() in (REGION_PAIRS, ZONE_PAIRS) for force in hybrid.system.getForces())


def _bridge_difference(
    hybrid: HybridSystem, bridges: tuple[str, str] = ("torchforce", "pythonforce")
) -> float:
    """Largest difference of the potential's forces between the two hosts, relative to the largest force.

    With those of the force field's pairs where the C++ kernel subtracts them: in the second system OpenMM
    does. Not in a box that leans: there OpenMM's Reference platform overlooks some pairs within the cutoff,
    unless they are exceptions.
    """
    group = 1 << hybrid.force_groups["ml"]
    box = hybrid.built.box_vectors
    straight = box is None or not np.any(box - np.diag(np.diag(box)))
    if straight and _has_direct_pairs(hybrid):
        group |= 1 << hybrid.force_groups["nonbonded"]
    found = []
    for bridge, direct in zip(bridges, (hybrid.spec.direct_pairs, False), strict=True):
        system = hybrid.create_system(bridge, direct_pairs=direct)
        found.append(forces_of(reference_context(system), hybrid.built.positions, group))
    return float(np.abs(found[0] - found[1]).max() / np.abs(found[0]).max())


def _image_change(hybrid: HybridSystem, seed: int) -> tuple[float, float]:
    """Energy change when every molecule is moved by random box vectors, and the energy, kJ/mol."""
    box = np.array(hybrid.built.box_vectors)
    generator = np.random.default_rng(seed)
    context = reference_context(hybrid.system)
    positions = np.array(hybrid.built.positions)
    before = potential_of(context, positions, -1)
    # What has one centre, or is superposed as a whole, stays together.
    for molecule in merged(hybrid.built.molecules, hybrid.biases.whole):
        positions[list(molecule)] += generator.integers(-2, 3, size=3) @ box
    return abs(potential_of(context, positions, -1) - before), before
