"""From a run and the name of another description to the difference of their energies in a frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.config.objects import hybrid_from, potential_from
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError
from mlmm.reference.methods import is_written_method, written_method

if TYPE_CHECKING:
    import numpy as np

    from mlmm.build import BuiltSystem

__all__ = ["difference_maker"]

_RADIUS = 1.2  # nm: charges around an embedded region that both descriptions see


def difference_maker(config: RunConfig, built_folder: Path, to: str) -> Callable[[], Any]:
    """A function that makes U_other - U_own of a frame, in any process.

    Parameters
    ----------
    config : RunConfig
        Of the run that was sampled.
    built_folder : Path
    to : str
        "mm" for the force field alone, a run file of the same system, a reference method
        (`mlmm.reference.methods.written_method`), or the name or file of a potential. The last two replace
        the potential of the region, in the same surroundings.

    Raises
    ------
    ConfigError
        A reference method or potential under another scheme than ``additive``, or a method without point
        charges for an embedded region.
    """
    if to != "mm" and not to.endswith(".toml"):
        if config.embedding.scheme != "additive":
            raise ConfigError(
                'a run under scheme "additive", whose region is described by itself',
                f'scheme = "{config.embedding.scheme}"',
                "give a run file with --to, or sample under scheme additive",
            )
        if config.embedding.electrostatics == "charges":
            raise ConfigError(
                "mechanical or electrostatic embedding",
                'electrostatics = "charges"',
                "give a run file with --to",
            )
        if is_written_method(to):
            written_method(to, point_charges=config.embedding.electrostatics == "embedded")
    return partial(_difference, config, str(built_folder), to)


def _difference(config: RunConfig, built_folder: str, to: str) -> Any:
    from mlmm.build import BuiltSystem

    built = BuiltSystem.load(Path(built_folder))
    if to == "mm" or to.endswith(".toml"):
        return _of_systems(config, built, to)
    return _of_regions(config, built, to)


def _of_systems(config: RunConfig, built: BuiltSystem, to: str) -> Callable[[Any, Any], float]:
    """Differences of the energies of whole systems."""
    import openmm

    from mlmm.config.load import load_config
    from mlmm.dynamics.platforms import choose_platform

    def without_bias(other: RunConfig) -> openmm.System:
        bare = dataclasses.replace(other, restraint=(), variable={})
        return hybrid_from(bare, built).system

    other = built.system if to == "mm" else without_bias(load_config(to))
    contexts = []
    for system in (without_bias(config), other):
        platform = choose_platform(config.run.platform, config.run.threads, system)
        contexts.append(openmm.Context(system, openmm.VerletIntegrator(0.001), *platform))

    def difference(positions: np.ndarray, box: np.ndarray | None) -> float:
        found = []
        for context in contexts:
            if box is not None and built.periodic:
                context.setPeriodicBoxVectors(*box)
            context.setPositions(positions)
            context.computeVirtualSites()
            found.append(context.getState(energy=True).getPotentialEnergy()._value)
        return float(found[1] - found[0])

    return difference


def _of_regions(config: RunConfig, built: BuiltSystem, to: str) -> Callable[[Any, Any], float]:
    """Differences of the energies of the region alone, or among the charges around it if it is embedded."""
    from mlmm.learning.acquisition.region_frames import RegionInCharges
    from mlmm.reference.method import ReferenceMethod
    from mlmm.zones.region import select_region

    region = select_region(built, config.region.select, config.region.complete)
    embedded = config.embedding.electrostatics == "embedded"
    charge = config.region.charge
    if charge is None:
        from mlmm.hybrid.region_checks import net_charge
        from mlmm.zones.static import hard_zones

        charge = net_charge(built, hard_zones(built, region), "additive")
    radius = _RADIUS if embedded else 0.0
    multiplicity = config.region.multiplicity
    cutter = RegionInCharges(built, region.atoms, radius, charge, multiplicity)
    own = potential_from(config, "float64")
    other: Any
    if is_written_method(to):
        other = written_method(to, point_charges=embedded)
    else:
        settings = dataclasses.replace(config.potential, name=to, members=(), polarisation_scaling=None)
        other = potential_from(dataclasses.replace(config, potential=settings), "float64")
    width = _charge_width(config) if embedded else 0.0

    def difference(positions: np.ndarray, box: np.ndarray | None) -> float:
        molecule = cutter.molecule(positions, box if built.periodic else None)
        structure = molecule.structure(width)
        sampled = float(own.atom_energies(structure).energies.double().sum())
        if isinstance(other, ReferenceMethod):
            label = other.label(molecule)
            return label.energy - sampled if label.converged else float("nan")
        return float(other.atom_energies(structure).energies.double().sum()) - sampled

    return difference


def _charge_width(config: RunConfig) -> float:
    from mlmm.units import parse

    return parse(config.embedding.charge_width, "length", "charge_width")
