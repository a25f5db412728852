"""Force field and machine-learned potential joined into one OpenMM System."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import openmm
import torch

from mlmm.adaptive import AdaptiveZones, UniformWeights
from mlmm.assembly import Parts, Recipe, adaptive_blend, assemble, atom_labels, atomic_numbers, built_cell
from mlmm.bridge import choose_bridge
from mlmm.build import BuiltSystem
from mlmm.compensation import Compensation
from mlmm.embedding import Embedding
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec, check_elements
from mlmm.structures import Structure, minimum_image, neighbour_pairs
from mlmm.zones import ZonePartition

__all__ = ["SCHEMES", "HybridSystem", "hybrid_system"]

logger = logging.getLogger(__name__)
SCHEMES = ("intra", "local")


@dataclass(frozen=True, eq=False)
class HybridSystem:
    """A force field whose region is described by a machine-learned potential.

    Parameters
    ----------
    recipe : Recipe
        All that went into it.
    parts : Parts
        What came out: the OpenMM System first of all.
    warnings : tuple of str
        What the user should know.
    """

    recipe: Recipe
    parts: Parts
    warnings: tuple[str, ...] = ()

    @property
    def built(self) -> BuiltSystem:
        """The pure force field."""
        return self.recipe.built

    @property
    def zones(self) -> ZonePartition:
        """Which atoms, with which lambda."""
        return self.recipe.zones

    @property
    def potential(self) -> PotentialModel:
        """The machine-learned potential."""
        return self.recipe.potential

    @property
    def bridge(self) -> str:
        """Host of the potential: ``torchforce`` or ``pythonforce``."""
        return self.recipe.bridge

    @property
    def scheme(self) -> str:
        """Who owns which interaction."""
        return self.recipe.scheme

    @property
    def charge(self) -> int:
        """Net charge of the region, e."""
        return self.recipe.charge

    @property
    def keep(self) -> tuple[str, ...]:
        """Forces that the embedding left alone at the user's wish."""
        return self.recipe.keep

    @property
    def spec(self) -> PotentialSpec:
        """What the potential is."""
        return self.potential.spec

    @property
    def system(self) -> openmm.System:
        """Ready for a `Context` or `Simulation`.

        Do not copy it (a TorchForce cannot be copied): `create_system` makes another one.
        """
        return self.parts.system

    @property
    def embedding(self) -> Embedding:
        """What was removed from the force field."""
        return self.parts.embedding

    @property
    def force_groups(self) -> dict[str, int]:
        """Energy by kind: ``nonbonded bonds angles torsions other ml``, those that are present."""
        return self.parts.force_groups

    @property
    def blend(self) -> torch.nn.Module | None:
        """What the bridge evaluates; None where that is the potential on the region alone."""
        return self.parts.blend

    def create_system(self, bridge: str | None = None) -> openmm.System:
        """Another System with the same forces, built anew, for the other bridge if asked."""
        return assemble(dataclasses.replace(self.recipe, bridge=bridge or self.bridge)).system

    def zone_counts(self) -> dict[str, int]:
        """Number of atoms by zone; the buffer (lambda = 0, seen by the model) as in the built structure."""
        counts = self.zones.counts()
        environment, buffer = counts.pop("environment"), 0
        if self.blend is not None:
            positions, cell = torch.tensor(self.built.positions), built_cell(self.built)
            active = (self.zones.weights(positions, cell) > 0).nonzero().squeeze(1)
            _, seen, _ = neighbour_pairs(positions, cell, self.spec.receptive_field, active)
            buffer = len(set(seen.tolist()) & set(self.blend.visible.tolist()) - set(active.tolist()))
        return counts | {"buffer": buffer, "environment": environment - buffer}

    def region_structure(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> Structure:
        """The zone's atoms (the region, under scheme ``intra``) alone.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
            Of the whole system.
        box_vectors : ndarray, shape (3, 3), nm, optional
            The system's own box by default; ignored for an open system.
        """
        atoms = list(self.zones.active)
        cell = None
        if self.built.periodic:
            cell = torch.tensor(
                self.built.box_vectors if box_vectors is None else box_vectors, dtype=torch.float64
            )
        numbers = torch.tensor(atomic_numbers(self.built, atoms))
        return Structure(numbers, torch.tensor(positions[atoms], dtype=torch.float64), cell, self.charge)

    def region_energies(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> AtomEnergies:
        """Energies of the zone's atoms by the model, times lambda, with the spread of a committee.

        Under scheme ``local`` they are those of the atoms among their neighbours, under ``intra`` of the
        region alone. Arguments as for `region_structure`.
        """
        with torch.no_grad():
            structure = self.region_structure(positions, box_vectors)
            if self.blend is None:
                return self.potential.atom_energies(structure)
            device = self.blend.visible.device
            cell = None if structure.cell is None else structure.cell.to(device)
            where = torch.tensor(positions, dtype=torch.float64, device=device)
            members = self.blend.contributions(where, cell).cpu()
            return AtomEnergies(members.mean(dim=0), members if len(members) > 1 else None)


def hybrid_system(
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    *,
    scheme: str = "intra",
    bridge: str = "auto",
    keep: Collection[str] = (),
    compensation: Compensation | None = None,
) -> HybridSystem:
    """Replace the force field inside the region by a machine-learned potential.

    Scheme ``intra``: E = E_MM − E_MM(inside the region) + E_ML(region); Coulomb and Lennard-Jones between the
    region and its surroundings stay with the force field (mechanical embedding), PME included.

    Scheme ``local``: E = E_MM + sum_i lambda_i (eps_i^ML − eps_i^MM,sr); the potential also sees the atoms
    around the zone, and owns contacts within its range; bonds may join atoms of different lambda, without
    link atoms. For potentials that were trained on total energies and give per-atom energies.

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
        From `hard_zones`, `static_zones` or `adaptive_zones`.
    potential : PotentialModel
        From `load_potential`, or any object with `spec` and `atom_energies(structure)`.
    scheme : {"intra", "local"}
    bridge : {"auto", "torchforce", "pythonforce"}
        Host of the potential; both give the same numbers.
    keep : collection of str
        Names of forces that stay whole although they act inside the region (biases, restraints).

    compensation : Compensation, optional
        Of an adaptive zone, from `calibrate`; without it, the mean difference of the two descriptions in the
        built structure is taken as alignment, and a warning says so.

    Raises
    ------
    ConfigError
        An unknown scheme or bridge, or a compensation that lacks a kind of molecule.
    PotentialError
        An element that the potential does not know, or a model that breaks its contract.
    EmbeddingError
        A region that cuts a bond, a force that cannot be divided, a box smaller than twice the potential's
        cutoff.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme = {' | '.join(SCHEMES)}", repr(scheme), 'write scheme = "intra"')
    _check_scheme(scheme, zones, potential.spec)
    check_elements(potential.spec, atomic_numbers(built, zones.active))
    _check_box(built, zones, potential.spec)
    charge, warnings = _region_charge(built, list(zones.active), potential.spec)
    warnings += _boundary_warnings(built, zones)
    host = choose_bridge(bridge, potential)
    recipe = Recipe(built, zones, potential, scheme, host, charge, tuple(keep), compensation)
    if isinstance(zones, AdaptiveZones) and compensation is None:
        recipe = dataclasses.replace(recipe, compensation=_alignment(recipe))
        warnings.append(
            "no calibrated compensation: molecules will drift through the adaptive zone (see mlmm calibrate)"
        )
    hybrid = HybridSystem(recipe, assemble(recipe), tuple(warnings))
    _check_contract(hybrid)
    for warning in warnings:
        logger.warning(warning)
    return hybrid


def _check_scheme(scheme: str, zones: ZonePartition, spec: PotentialSpec) -> None:
    """Which combinations make sense."""
    if scheme == "intra" and zones.transition:
        raise EmbeddingError(
            "a hard region under scheme 'intra'",
            f"{len(zones.transition)} atoms with lambda between 0 and 1",
            'use mlmm.hard_zones, or scheme = "local"',
        )
    if scheme == "intra" and isinstance(zones, AdaptiveZones):
        raise EmbeddingError("a hard region under scheme 'intra'", "an adaptive zone", 'use scheme = "local"')
    if scheme == "local" and (not spec.per_atom or spec.long_range or spec.trained_on != "total"):
        raise EmbeddingError(
            "a potential for scheme 'local': per-atom energies, no long range, trained on total energies",
            f"{spec.name} (per_atom = {spec.per_atom}, long_range = {spec.long_range}, "
            f"trained_on = {spec.trained_on!r})",
            'use scheme = "intra"',
        )


def _boundary_warnings(built: BuiltSystem, zones: ZonePartition) -> list[str]:
    """What a user should know of a zone that cuts through molecules."""
    if not zones.cut_bonds:
        return []
    label = atom_labels(built)
    names = ", ".join(f"{label(a)}–{label(b)}" for a, b in zones.cut_bonds[:4])
    more = f" and {len(zones.cut_bonds) - 4} more" if len(zones.cut_bonds) > 4 else ""
    return [f"bonds join atoms of different lambda: {names}{more}; forces near them are neither ML nor MM"]


def _alignment(recipe: Recipe, at_most: int = 64) -> Compensation:
    """Mean Delta of the molecules next to the region in the built structure, by kind: a start."""
    built, zones = recipe.built, recipe.zones
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
    blend = adaptive_blend(dataclasses.replace(recipe, zones=few), UniformWeights(1.0, len(sample)))
    with torch.no_grad():
        device = blend.visible.device
        _, found = blend.molecule_differences(positions.to(device), None if cell is None else cell.to(device))
    by_kind: dict[str, list[float]] = {}
    for kind, difference in zip(few.kinds, found.tolist(), strict=True):
        by_kind.setdefault(kind, []).append(difference)
    means = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    return Compensation(means, facts={"mode": "mean of the built structure"})


def _check_box(built: BuiltSystem, zones: ZonePartition, spec: PotentialSpec) -> None:
    """Minimum image is exact only while the model's cutoff is below half of the smallest box width."""
    if not built.periodic:
        return
    width = float(np.diag(built.box_vectors).min())
    if width < 2 * spec.cutoff:
        raise EmbeddingError(
            f"a box at least {2 * spec.cutoff:.2f} nm wide (twice the cutoff of {spec.name})",
            f"{width:.2f} nm",
            'build a larger one: set system.padding = "1.0 nm" or more',
        )
    if isinstance(zones, AdaptiveZones) and width <= 2 * (zones.plateau + zones.width):
        raise EmbeddingError(
            f"a box more than {2 * (zones.plateau + zones.width):.2f} nm wide (twice plateau + width)",
            f"{width:.2f} nm",
            'make the zone smaller, or the box larger: system.padding = "1.0 nm" or more',
        )


def _region_charge(built: BuiltSystem, atoms: list[int], spec: PotentialSpec) -> tuple[int, list[str]]:
    """Net charge of the region by the force field, and a warning where the potential cannot know it."""
    for force in built.system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            total = sum(force.getParticleParameters(i)[0]._value for i in atoms)
            charge = round(total)
            if charge != 0 and not spec.charges:
                text = f"the region has charge {charge:+d}, which {spec.name} does not take into account"
                return charge, [text]
            return charge, []
    return 0, []


def _check_contract(hybrid: HybridSystem) -> None:
    """Evaluate the model once, so that a broken one fails here and not inside a simulation."""
    n = len(hybrid.zones.active)
    if isinstance(hybrid.zones, AdaptiveZones):
        weights = hybrid.zones.weights(torch.tensor(hybrid.built.positions), built_cell(hybrid.built))
        n = int((weights > 0).sum())
    result = hybrid.region_energies(hybrid.built.positions)
    energies = getattr(result, "energies", None)
    shape = tuple(energies.shape) if isinstance(energies, torch.Tensor) else None
    if shape != (n,):
        raise PotentialError(
            f"atom_energies(structure) to return AtomEnergies with energies of shape ({n},)",
            f"{type(result).__name__} with energies of shape {shape}",
            "return mlmm.AtomEnergies(energies=…)",
        )
    if not bool(torch.isfinite(energies).all()):
        raise PotentialError(
            "finite energies on the built structure",
            "NaN or infinity",
            "look at the region for clashing atoms",
        )
