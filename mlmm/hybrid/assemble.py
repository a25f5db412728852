"""From a recipe to an OpenMM System: what the force field keeps, and what the bridge evaluates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import openmm
import torch

from mlmm.blending.adaptive import AdaptiveBlend
from mlmm.blending.full_pairs import CorePairs
from mlmm.blending.link_atoms import CappedModel, cap_lengths, check_cap_distances
from mlmm.blending.replaced_terms import HandedOver
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.blending.static import LocalBlend, Subtraction, WeightedModel, zone_energies
from mlmm.blending.supermolecular import difference_blend
from mlmm.build import BuiltSystem
from mlmm.build.surroundings.walls import bond_walls
from mlmm.electrostatics.fixed_charges import exception_factors, read_charges
from mlmm.electrostatics.predicted_charges import ChargeCorrection, ChargedBlend, EagerModel, FixedZone
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.remove_terms import Embedding, embed_intra, embed_local
from mlmm.forcefield.scale_terms import embed_compiled
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.bridge import make_blend_force, make_force, make_pair_force
from mlmm.hybrid.cuda_graphs import has_cuda_graphs
from mlmm.hybrid.direct_pairs import hosted_region, hosted_zone
from mlmm.hybrid.force_groups import grouped, join_molecules
from mlmm.hybrid.spec import (
    HANDOVER_START,
    Parts,
    Recipe,
    atom_labels,
    atomic_numbers,
    built_cell,
    handed_over_atoms,
    kept_whole,
    model_atoms,
    recipe_ownership,
    visible_atoms,
)
from mlmm.kernels.direct_pairs import HANDED, REGION
from mlmm.potentials.base import PotentialModel
from mlmm.structures import minimum_image
from mlmm.term_weights import Ownership
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones, UniformWeights
from mlmm.zones.compensation import Compensation, CompensationEnergy
from mlmm.zones.cut_bonds import judge_bonds
from mlmm.zones.region import molecules_of

__all__ = [
    "adaptive_blend",
    "assemble",
    "blend_of",
    "check_compensation",
    "start_alignment",
    "with_blend",
]
#: kJ/mol per atom between a compensation and the built structure: no strain, another zero of energy.
_MISALIGNED = 100.0

# Verdicts of `judge_bonds` on bonds for which no hydrogen stands in.
_NEVER_CAPPED = frozenset(["bond to hydrogen", "disulfide", "double bond", "metal", "ring", "virtual site"])


def assemble(recipe: Recipe) -> Parts:
    """Build the System of a recipe; every call makes another one."""
    if recipe.electrostatics == "charges":
        recipe = dataclasses.replace(recipe, potential=EagerModel(recipe.potential))
    if isinstance(recipe.zones, AdaptiveZones):
        return _assemble_adaptive(recipe)
    if recipe.scheme == "intra":
        return _assemble_intra(recipe)
    tables = read_mm_tables(recipe.built.system, keep=kept_whole(recipe))
    ownership = recipe_ownership(recipe)
    if recipe.route == "subtractive" and recipe.scheme == "local":
        return _assemble_local_by_subtraction(recipe, tables)
    added = _model_energy(recipe, tables, ownership)
    if recipe.route == "subtractive" and recipe.scheme != "delta":
        return _assemble_by_subtraction(recipe, tables, ownership, added)
    hosted = hosted_zone(recipe, tables, ownership)
    near = None if hosted is None else hosted.emptied
    system, embedding = embed_compiled(
        recipe.built.system, ownership, keep=recipe.keep, label=atom_labels(recipe.built), near=near
    )
    if hosted is not None:
        system.addForce(make_pair_force(hosted, hosted.atoms.tolist(), periodic=hosted.periodic, name=HANDED))
    return with_blend(recipe, system, embedding, added)


def _assemble_intra(recipe: Recipe) -> Parts:
    """The force field without the region's own terms, and the model on the region alone, capped where cut."""
    built, atoms, label = recipe.built, recipe.zones.core, atom_labels(recipe.built)
    numbers = atomic_numbers(built, range(built.n_atoms))
    bonds = [(bond[0].index, bond[1].index) for bond in built.topology.bonds()]
    inside, real = set(atoms), model_atoms(recipe)
    caps = [(a, b) if a in inside else (b, a) for a, b in bonds if (a in inside) != (b in inside)]
    hosted = hosted_region(recipe)
    if recipe.tail:
        ownership = recipe_ownership(recipe)
        system, embedding = embed_compiled(built.system, ownership, keep=recipe.keep, label=label)
    else:
        known = () if caps else bonds
        emptied = None if hosted is None else hosted.emptied.tolist()
        system, embedding = embed_intra(
            *(built.system, atoms),
            bonds=known,
            capped=bool(caps),
            keep=recipe.keep,
            label=label,
            emptied=emptied,
        )
    if hosted is not None:
        system.addForce(make_pair_force(hosted, hosted.atoms.tolist(), periodic=hosted.periodic, name=REGION))
    if not caps and not recipe.tail and recipe.electrostatics == "mechanical":
        force = make_force(
            recipe.potential,
            [numbers[i] for i in real],
            real,
            bridge=recipe.bridge,
            periodic=built.periodic,
            charge=recipe.charge,
            cuda_graphs=recipe.cuda_graphs,
            n_particles=built.n_atoms,
        )
        join_molecules(system, built, atoms)
        return Parts(system, embedding, grouped(system, force), None, has_cuda_graphs(force))
    reasons = {frozenset((cut.first, cut.second)): cut.reason for cut in judge_bonds(built.topology)}
    lengths = cap_lengths(
        caps,
        numbers,
        recipe.potential.spec,
        is_single=lambda a, b: reasons[frozenset((a, b))] not in _NEVER_CAPPED,
        label=label,
    )
    check_cap_distances(caps, lengths, torch.tensor(built.positions), built_cell(built), label=label)
    model = CappedModel(
        recipe.potential, [numbers[i] for i in real], real, caps, lengths, charge=recipe.charge
    )
    return with_blend(recipe, system, embedding, model)


def _assemble_local_by_subtraction(recipe: Recipe, tables: MMTables) -> Parts:
    """The whole force field, less the pairs inside the zone, and the blend of per-atom energies."""
    built, zones = recipe.built, recipe.zones
    system, embedding = embed_local(built.system, zones.active, label=atom_labels(built))
    core_pairs = CorePairs(tables, zones.active)
    blend = blend_of(built, tables, recipe.potential, zones.active, zones.active_weights, core_pairs)
    return with_blend(recipe, system, embedding, blend)


def _assemble_by_subtraction(
    recipe: Recipe, tables: MMTables, ownership: Ownership, added: torch.nn.Module
) -> Parts:
    """Any other scheme in the same way."""
    built, active = recipe.built, ownership.active.tolist()
    takes_pairs = ownership.rules[2] != "none"
    label = atom_labels(built)
    system, embedding = embed_local(
        built.system, active, pairs=takes_pairs, scheme=recipe.scheme, label=label
    )
    blend = Subtraction(
        added, CorePairs(tables, active if takes_pairs else []), HandedOver(tables, ownership)
    )
    return with_blend(recipe, system, embedding, blend.to(getattr(recipe.potential, "device", "cpu")))


def _model_energy(recipe: Recipe, tables: MMTables, ownership: Ownership) -> torch.nn.Module:
    """What the model adds, whatever the force field gives up for it."""
    built, zones, potential = recipe.built, recipe.zones, recipe.potential
    visible = visible_atoms(built, potential.spec)
    numbers = atomic_numbers(built, range(built.n_atoms))
    if recipe.scheme == "difference":
        return difference_blend(
            potential,
            numbers,
            np.flatnonzero(visible).tolist(),
            ownership.levels,
            positions=torch.tensor(built.positions),
            cell=built_cell(built),
            label=atom_labels(built),
        )
    if recipe.scheme == "bonded":
        # Its energies know bonds and what hangs on them; contacts are the force field's.
        inside = set(zones.active)
        touched = [molecule for molecule in molecules_of(built.topology) if inside.intersection(molecule)]
        visible &= np.isin(np.arange(built.n_atoms), [atom for molecule in touched for atom in molecule])
    seen = np.flatnonzero(visible)
    atoms = [atom for atom in zones.active if visible[atom]]
    weights = ownership.weights[atoms]
    model = zone_energies(potential, [numbers[i] for i in seen], np.searchsorted(seen, atoms).tolist())
    return WeightedModel(model, seen.tolist(), weights.tolist()).to(getattr(potential, "device", "cpu"))


def _assemble_adaptive(recipe: Recipe) -> Parts:
    """The same for molecules whose lambda follows their positions; only the core's pairs leave OpenMM."""
    built, zones = recipe.built, recipe.zones
    system, embedding = embed_local(built.system, zones.core, label=atom_labels(built))
    solvent = [atom for molecule in zones.molecules for atom in molecule]
    _refuse_constraints(system, set(solvent), atom_labels(built))
    if math.isfinite(zones.walls):
        # Of the same kind in the core too: what is solvent shall stay solvent.
        kinds = set(zones.kinds)
        same = [atom.index for atom in built.topology.atoms() if atom.residue.name in kinds]
        system.addForce(bond_walls(built.topology, same, zones.walls, built.periodic))
    return with_blend(recipe, system, embedding, adaptive_blend(recipe, AdaptiveWeights(zones)))


def adaptive_blend(recipe: Recipe, weights: torch.nn.Module) -> AdaptiveBlend:
    """The blend of an adaptive zone, with lambda of its molecules from the module `weights`."""
    built, zones = recipe.built, recipe.zones
    tables = read_mm_tables(built.system, keep=recipe.keep)
    solvent = [atom for molecule in zones.molecules for atom in molecule]
    seen = np.flatnonzero(visible_atoms(built, recipe.potential.spec))
    owned = handed_over_atoms(built, recipe.potential.spec)
    end = recipe.potential.spec.cutoff
    blend = AdaptiveBlend(
        zone_energies(recipe.potential, atomic_numbers(built, seen)),
        seen.tolist(),
        built.n_atoms,
        zones.core,
        zones.molecules,
        weights,
        ShortRangeEnergies(tables, [*zones.core, *solvent], owned, HANDOVER_START * end, end),
        CorePairs(tables, zones.core),
        CompensationEnergy(recipe.compensation or Compensation(dict.fromkeys(zones.kinds, 0.0)), zones.kinds),
    )
    return blend.to(getattr(recipe.potential, "device", "cpu"))


def start_alignment(recipe: Recipe, at_most: int = 64) -> Compensation:
    """Mean Delta of the molecules next to the region in the built structure, by kind: a start."""
    by_kind = _built_differences(recipe, at_most)
    means = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    return Compensation(means, facts={"mode": "mean of the built structure"})


def check_compensation(recipe: Recipe, at_most: int = 16) -> list[str]:
    """Whether a compensation may belong to this potential and force field; warnings.

    Raises
    ------
    ConfigError
        An alignment that the built structure contradicts by more than 100 kJ/mol per atom: two conventions of
        the zero of energy, whose difference times d lambda/dr would tear the zone apart.
    """
    if not set(recipe.zones.kinds) <= set(recipe.compensation.alignment):
        return []  # named when the energy is made
    for kind, values in _built_differences(recipe, at_most).items():
        given, found = recipe.compensation.alignment[kind], float(np.median(values))
        n_atoms = len(recipe.zones.molecules[recipe.zones.kinds.index(kind)])
        if abs(given - found) > _MISALIGNED * n_atoms:
            raise ConfigError(
                f"a compensation of {kind} for {recipe.potential.spec.name} and this force field",
                f"an alignment of {given:.6g} kJ/mol where the built structure has {found:.6g}",
                "calibrate with this potential (mlmm calibrate), or leave the compensation out at first",
            )
    whose = str(recipe.compensation.facts.get("potential", "")).split(",")[0]
    if whose and whose != recipe.potential.spec.name:
        return [f"the compensation was calibrated for {whose}, not for {recipe.potential.spec.name}"]
    return []


def _built_differences(recipe: Recipe, at_most: int) -> dict[str, list[float]]:
    """Delta of the molecules next to the region in the built structure, kJ/mol, by kind."""
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
    return by_kind


def with_blend(recipe: Recipe, system: openmm.System, embedding: Embedding, blend: torch.nn.Module) -> Parts:
    """The bridge's force on top of an embedded force field."""
    if recipe.electrostatics == "charges":
        blend = _charged(recipe, blend)
    name = f"{recipe.potential.spec.name} blend"
    force = make_blend_force(
        blend,
        bridge=recipe.bridge,
        periodic=recipe.built.periodic,
        name=name,
        cuda_graphs=recipe.cuda_graphs,
        n_particles=recipe.built.n_atoms,
    )
    join_molecules(system, recipe.built, recipe.zones.active)
    return Parts(system, embedding, grouped(system, force), blend, has_cuda_graphs(force))


def _charged(recipe: Recipe, blend: torch.nn.Module) -> ChargedBlend:
    """The blend with the energy of the charges that its model predicts."""
    built, spec = recipe.built, recipe.potential.spec
    tables = read_charges(built.system)
    intra = recipe.scheme == "intra"
    correction = ChargeCorrection(
        tables.charge,
        tables.exception_atoms,
        exception_factors(tables),
        handed_over_atoms(built, spec),
        rule="all" if intra else "share",
        # An open system has no truncation to smooth.
        charge_range=recipe.charge_range if built.periodic else math.inf,
        handover_end=None if intra and not recipe.tail else spec.cutoff,
    )
    model = (blend.added if isinstance(blend, Subtraction) else blend).model
    model.keeps_charges = True
    if isinstance(blend, AdaptiveBlend):
        zone = blend.real_zone
    else:
        weights = dict(zip(recipe.zones.active, recipe.zones.active_weights, strict=True))
        seen = visible_atoms(built, spec)
        atoms = [atom for atom in recipe.zones.active if seen[atom]]
        zone = FixedZone(atoms, [weights[atom] for atom in atoms])
        zone = zone.to(getattr(recipe.potential, "device", "cpu"))
    charged = ChargedBlend(blend, model, zone, correction, spec.name)
    return charged.to(getattr(recipe.potential, "device", "cpu"))


def _refuse_constraints(system: openmm.System, atoms: set[int], label: Callable[[int], str]) -> None:
    """Molecules that may enter the zone have all their degrees of freedom at any time."""
    for i in range(system.getNumConstraints()):
        a, b, _ = system.getConstraintParameters(i)
        if a in atoms or b in atoms:
            raise EmbeddingError(
                "flexible molecules in an adaptive zone",
                f"the constraint {label(a)}–{label(b)}",
                'build with constraints = "none" and rigid_water = false',
            )


def blend_of(
    built: BuiltSystem,
    tables: MMTables,
    potential: PotentialModel,
    atoms: Sequence[int],
    weights: Sequence[float],
    core_pairs: torch.nn.Module | None = None,
) -> LocalBlend:
    """sum_i w_i (eps_i^ML − eps_i^MM,sr) over some atoms, with the handover of scheme ``local``.

    Parameters
    ----------
    built : BuiltSystem
    tables : MMTables
        Of its force field.
    potential : PotentialModel
    atoms, weights : sequence of int, of float
    core_pairs : torch.nn.Module, optional
        Further energy; none by default.
    """
    seen = np.flatnonzero(visible_atoms(built, potential.spec))
    places = np.flatnonzero(np.isin(atoms, seen))
    real = np.asarray(atoms, dtype=np.int64)[places]
    model = zone_energies(potential, atomic_numbers(built, seen), np.searchsorted(seen, real).tolist())
    end = potential.spec.cutoff
    owned = handed_over_atoms(built, potential.spec)
    short_range = ShortRangeEnergies(tables, atoms, owned, HANDOVER_START * end, end)
    pairs = CorePairs(tables, []) if core_pairs is None else core_pairs
    blend = LocalBlend(model, seen.tolist(), weights, places.tolist(), short_range, pairs)
    return blend.to(getattr(potential, "device", "cpu"))
