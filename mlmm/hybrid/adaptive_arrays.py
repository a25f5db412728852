"""An adaptive zone as the arrays of `mlmm.plugin.AdaptiveANIForce`: zone, replaced terms, G(lambda)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.spec import SWITCHING_START, HybridSpec, replaceable_atoms
from mlmm.kernels.torch_pairs import partners
from mlmm.term_weights import cmap_shares
from mlmm.units import COULOMB
from mlmm.zones.adaptive import AdaptiveZones
from mlmm.zones.compensation import Compensation, natural_spline

__all__ = ["adaptive_arrays"]

#: Of each class of bonded terms: its name in the tables and in the force, and its parameters.
_BONDED = (
    ("bond", ("length", "k")),
    ("angle", ("value", "k")),
    ("torsion", ("n", "phase", "k")),
    ("rb", ("coefficients",)),
)


def adaptive_arrays(
    spec: HybridSpec, uniform: float | None = None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All of `mlmm.hybrid.assemble.adaptive_blend` but the networks: integers and float64 numbers by name.

    Parameters
    ----------
    spec : HybridSpec
        With `AdaptiveZones`.
    uniform : float, optional
        lambda of every molecule, wherever it is, as a calibration in a bulk liquid has it.
    """
    zones = spec.zones
    assert isinstance(zones, AdaptiveZones)
    tables = read_mm_tables(spec.built.system, keep=spec.keep)
    owned = replaceable_atoms(spec.built, spec.potential.spec)
    start, other = partners(tables.exception_atoms, tables.n_atoms)
    end = spec.potential.spec.cutoff
    # A switch that starts beyond the switching function is 1 wherever anything is evaluated.
    switched = tables.switch is not None and tables.switch < end
    ranges = (SWITCHING_START * end, end, float(switched), tables.switch or 0.0, tables.cutoff, COULOMB)
    integers = {"owned": np.flatnonzero(owned), "special_start": start, "special_other": other}
    numbers = {
        "parameters": np.column_stack([tables.charge, tables.sigma / 2, np.sqrt(tables.epsilon)]),
        "ranges": np.array(ranges),
        "pairs_periodic": np.array([float(tables.periodic)]),
        "uniform": np.array([] if uniform is None else [uniform]),
    }
    for part in (
        _zone(zones),
        _terms(tables, owned, {*zones.core, *zones.switchable_atoms}),
        _core_pairs(tables, np.array(zones.core, dtype=np.int64)),
        _compensation(spec.compensation, zones.kinds),
    ):
        integers |= part[0]
        numbers |= part[1]
    return integers, numbers


def _zone(zones: AdaptiveZones) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    sizes = [len(molecule) for molecule in zones.molecules]
    integers = {
        "core": np.array(zones.core),
        "molecule_start": np.concatenate([[0], np.cumsum(sizes)]),
        "molecule_atoms": np.array(zones.switchable_atoms),
        "centres": np.array(zones.centres),
    }
    anchors = np.array([share for shares in zones.anchors for share in shares])
    return integers, {"anchors": anchors, "zone": np.array([zones.plateau, zones.width])}


def _terms(
    tables: MMTables, owned: np.ndarray, atoms: set[int]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Terms with fixed atoms that are all visible, at least one of which may have lambda > 0."""
    wanted = np.zeros(tables.n_atoms, dtype=bool)
    wanted[sorted(atoms)] = True

    def chosen(members: np.ndarray) -> np.ndarray:
        return owned[members].all(axis=1) & wanted[members].any(axis=1)

    integers: dict[str, np.ndarray] = {}
    numbers: dict[str, np.ndarray] = {}
    for name, columns in _BONDED:
        members = getattr(tables, f"{name}_atoms")
        kept = chosen(members)
        integers |= {
            f"{name}_atoms": members[kept],
            f"{name}_wraps": getattr(tables, f"{name}_periodic")[kept],
        }
        values = [np.atleast_1d(getattr(tables, f"{name}_{column}")[kept]) for column in columns]
        numbers[f"{name}_numbers"] = values[0] if values[0].ndim > 1 else np.column_stack(values)
    kept = chosen(tables.cmap_atoms)
    sizes = np.array([len(energies) for energies in tables.cmap_energies], dtype=np.int64)
    maps = tables.cmap_map[kept]
    first = np.cumsum(np.concatenate([[0], sizes**2]))[maps]
    integers |= {"cmap_atoms": tables.cmap_atoms[kept], "cmap_wraps": tables.cmap_periodic[kept]}
    integers["cmap_place"] = np.column_stack([first, sizes[maps] if len(maps) else maps])
    numbers["cmap_numbers"] = cmap_shares(tables.cmap_atoms[kept])
    numbers["cmap_patches"] = np.concatenate([np.zeros((0, 4, 4)), *tables.cmap_patches()])
    kept = chosen(tables.exception_atoms)
    kept &= (tables.exception_charge != 0) | (tables.exception_epsilon != 0)
    integers["pair_atoms"] = tables.exception_atoms[kept]
    integers["pair_wraps"] = np.full(int(kept.sum()), tables.exceptions_periodic)
    columns_of_pairs = (tables.exception_charge, tables.exception_sigma, tables.exception_epsilon)
    numbers["pair_numbers"] = np.column_stack(columns_of_pairs)[kept]
    return integers, numbers


def _core_pairs(tables: MMTables, core: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What leaves OpenMM when exceptions empty all pairs of the core: see `mlmm.blending.full_pairs`."""
    place = np.full(tables.n_atoms, -1)
    place[core] = np.arange(len(core))
    inside = (place[tables.exception_atoms] >= 0).all(axis=1)
    start, other = partners(place[tables.exception_atoms[inside]], len(core))
    alive = inside & ((tables.exception_charge != 0) | (tables.exception_epsilon != 0))
    integers = {
        "core_special_start": start,
        "core_special_other": other,
        "core_pair_atoms": tables.exception_atoms[alive],
        "core_pair_wraps": np.full(int(alive.sum()), tables.periodic and tables.exceptions_periodic),
    }
    columns = (tables.exception_charge, tables.exception_sigma, tables.exception_epsilon)
    ranges = (tables.cutoff, tables.alpha, float(tables.switch is not None), tables.switch or 0.0, COULOMB)
    return integers, {
        "core_pair_numbers": np.column_stack(columns)[alive],
        "core_ranges": np.array(ranges),
    }


def _compensation(
    compensation: Compensation | None, kinds: tuple[str, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """G(lambda) of each kind of molecule as knots, values and slopes."""
    given = compensation or Compensation(dict.fromkeys(kinds, 0.0))
    names = sorted(set(kinds))
    knots = np.asarray(given.knots, dtype=np.float64)
    values: list[Any] = [np.asarray(given.values.get(name, np.zeros(len(knots)))) for name in names]
    return {"kinds": np.array([names.index(kind) for kind in kinds])}, {
        "alignment": np.array([given.alignment[name] for name in names]),
        "knots": knots,
        "values": np.array(values),
        "slopes": np.array([natural_spline(knots, row)(knots, 1) for row in values]),
    }
