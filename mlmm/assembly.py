"""From a recipe to an OpenMM System: what the force field keeps, and what the bridge evaluates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
import torch

from mlmm.adaptive import AdaptiveWeights, AdaptiveZones
from mlmm.adaptive_blend import AdaptiveBlend
from mlmm.blend import LocalBlend, Subtraction, WeightedModel, zone_energies
from mlmm.bridge import make_blend_force, make_force
from mlmm.build import BuiltSystem
from mlmm.caps import CappedModel, cap_lengths, check_cap_distances
from mlmm.compensation import Compensation, CompensationEnergy
from mlmm.compiled import embed_compiled
from mlmm.compiled_pairs import INSIDE
from mlmm.core_pairs import CorePairs
from mlmm.cuts import atom_labels as labels_of
from mlmm.cuts import judge_bonds
from mlmm.difference import difference_blend, levels_of
from mlmm.embedding import WITHOUT_ENERGY, Embedding, embed_intra, embed_local
from mlmm.errors import EmbeddingError
from mlmm.handed_over import HandedOver
from mlmm.mm_tables import MMTables, read_mm_tables
from mlmm.mm_terms import ShortRangeEnergies
from mlmm.ownership import SCHEMES, Level, Ownership, ownership_of
from mlmm.potentials.base import PotentialModel
from mlmm.regions import molecules_of
from mlmm.zones import ZonePartition

__all__ = [
    "HANDOVER_START",
    "Parts",
    "Recipe",
    "adaptive_blend",
    "assemble",
    "atom_labels",
    "atomic_numbers",
    "blend_of",
]

#: Where the handover of contacts begins, in units of the model's cutoff, where it ends.
HANDOVER_START = 0.7
_GROUPS = {
    "nonbonded": 0,
    "bonds": 1,
    "angles": 2,
    "torsions": 3,
    "other": 4,
    "ml": 5,
}
_GROUP_OF = {
    "NonbondedForce": "nonbonded",
    "CustomNonbondedForce": "nonbonded",  # some platforms want all non-bonded forces in one group
    "HarmonicBondForce": "bonds",
    "CustomBondForce": "bonds",
    "HarmonicAngleForce": "angles",
    "CustomAngleForce": "angles",
    "PeriodicTorsionForce": "torsions",
    "RBTorsionForce": "torsions",
    "CMAPTorsionForce": "torsions",
    "CustomTorsionForce": "torsions",
}


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that decides what a hybrid system is.

    Parameters
    ----------
    built : BuiltSystem
        The pure force field.
    zones : ZonePartition
    potential : PotentialModel
    scheme : str
        Who owns which interaction.
    bridge : {"torchforce", "pythonforce"}
    charge : int
        Net charge of the region, e.
    keep : tuple of str
        Forces that the embedding leaves alone at the user's wish.
    route : {"compiled", "subtractive"}
        Where the force field's side of a static blend is evaluated: in OpenMM's own parameters, or in torch.
    levels : int
        Nested sets of scheme ``difference``.
    tail : bool
        Under ``intra``, leave pairs inside the region to the force field beyond the model's range.
    compensation : Compensation, optional
        Of an adaptive zone.
    """

    built: BuiltSystem
    zones: ZonePartition
    potential: PotentialModel
    scheme: str
    bridge: str
    charge: int = 0
    keep: tuple[str, ...] = ()
    route: str = "compiled"
    levels: int = 1
    tail: bool = False
    compensation: Compensation | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """What a recipe gives.

    Parameters
    ----------
    system : openmm.System
    embedding : Embedding
        What was removed from the force field.
    force_groups : dict of str to int
        Energy by kind: ``nonbonded bonds angles torsions other ml``, those that are present.
    blend : torch.nn.Module, optional
        What the bridge evaluates, where that is more than the potential on the region alone.
    """

    system: openmm.System
    embedding: Embedding
    force_groups: dict[str, int]
    blend: torch.nn.Module | None = None


def assemble(recipe: Recipe) -> Parts:
    """Build the System of a recipe; every call makes another one."""
    if isinstance(recipe.zones, AdaptiveZones):
        return _assemble_adaptive(recipe)
    if recipe.scheme == "intra":
        return _assemble_intra(recipe)
    tables = read_mm_tables(recipe.built.system, keep=kept_whole(recipe))
    ownership = ownership_of_recipe(recipe, tables)
    if recipe.route == "subtractive" and recipe.scheme == "local":
        return _assemble_local_by_subtraction(recipe, tables)
    added = _model_energy(recipe, tables, ownership)
    if recipe.route == "subtractive" and recipe.scheme != "delta":
        return _assemble_by_subtraction(recipe, tables, ownership, added)
    system, embedding = embed_compiled(
        recipe.built.system, ownership, keep=recipe.keep, label=atom_labels(recipe.built)
    )
    return with_blend(recipe, system, embedding, added)


def _assemble_intra(recipe: Recipe) -> Parts:
    """The force field without the region's own terms, and the model on the region alone, capped where cut."""
    built, atoms, label = recipe.built, recipe.zones.core, atom_labels(recipe.built)
    numbers = atomic_numbers(built, range(built.n_atoms))
    bonds = [(bond[0].index, bond[1].index) for bond in built.topology.bonds()]
    inside = set(atoms)
    caps = [(a, b) if a in inside else (b, a) for a, b in bonds if (a in inside) != (b in inside)]
    if recipe.tail:
        tables = read_mm_tables(built.system, keep=recipe.keep)
        ownership = ownership_of_recipe(recipe, tables)
        system, embedding = embed_compiled(built.system, ownership, keep=recipe.keep, label=label)
    else:
        known = () if caps else bonds
        system, embedding = embed_intra(
            built.system, atoms, bonds=known, capped=bool(caps), keep=recipe.keep, label=label
        )
    if not caps and not recipe.tail:
        force = make_force(
            recipe.potential,
            [numbers[i] for i in atoms],
            atoms,
            bridge=recipe.bridge,
            periodic=built.periodic,
            charge=recipe.charge,
        )
        return Parts(system, embedding, _grouped(system, force))
    may_cut = {frozenset((cut.first, cut.second)): cut for cut in judge_bonds(built.topology)}
    lengths = cap_lengths(
        caps,
        numbers,
        recipe.potential.spec,
        is_single=lambda a, b: may_cut[frozenset((a, b))].reason not in ("ring", "double bond", "metal"),
        label=label,
    )
    check_cap_distances(caps, lengths, torch.tensor(built.positions), built_cell(built), label=label)
    model = CappedModel(
        recipe.potential, [numbers[i] for i in atoms], atoms, caps, lengths, charge=recipe.charge
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
    visible = visible_atoms(built, potential, tables)
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


def ownership_of_recipe(recipe: Recipe, tables: MMTables) -> Ownership:
    """Who owns which term under the recipe's scheme, zones and potential."""
    built, spec = recipe.built, recipe.potential.spec
    visible = visible_atoms(built, recipe.potential, tables)
    weights = np.zeros(built.n_atoms)
    weights[list(recipe.zones.active)] = recipe.zones.active_weights
    levels: tuple[Level, ...] = ()
    if recipe.scheme == "difference":
        bonds = [(bond[0].index, bond[1].index) for bond in built.topology.bonds()]
        levels = levels_of(weights, bonds, recipe.levels)
        weights = np.zeros(built.n_atoms)
        for level in levels:
            weights[list(level.atoms)] += level.weight
    handover = None
    if SCHEMES[recipe.scheme][2] != "none":
        handover = (HANDOVER_START * spec.cutoff, spec.cutoff)
    return ownership_of(recipe.scheme, weights, visible, handover, levels)


def kept_whole(recipe: Recipe) -> tuple[str, ...]:
    """Forces that no table has to hold: the user's, and all of them where the scheme touches none."""
    if recipe.scheme != "delta":
        return recipe.keep
    return tuple(force.__class__.__name__ for force in recipe.built.system.getForces())


def _assemble_adaptive(recipe: Recipe) -> Parts:
    """The same for molecules whose lambda follows their positions; only the core's pairs leave OpenMM."""
    built, zones = recipe.built, recipe.zones
    system, embedding = embed_local(built.system, zones.core, label=atom_labels(built))
    solvent = [atom for molecule in zones.molecules for atom in molecule]
    _refuse_constraints(system, set(solvent), atom_labels(built))
    return with_blend(recipe, system, embedding, adaptive_blend(recipe, AdaptiveWeights(zones)))


def adaptive_blend(recipe: Recipe, weights: torch.nn.Module) -> AdaptiveBlend:
    """The blend of an adaptive zone, with lambda of its molecules from the module `weights`."""
    built, zones = recipe.built, recipe.zones
    tables = read_mm_tables(built.system, keep=recipe.keep)
    solvent = [atom for molecule in zones.molecules for atom in molecule]
    visible = visible_atoms(built, recipe.potential, tables)
    seen = np.flatnonzero(visible)
    end = recipe.potential.spec.cutoff
    blend = AdaptiveBlend(
        zone_energies(recipe.potential, atomic_numbers(built, seen)),
        seen.tolist(),
        built.n_atoms,
        zones.core,
        zones.molecules,
        weights,
        ShortRangeEnergies(tables, [*zones.core, *solvent], visible, HANDOVER_START * end, end),
        CorePairs(tables, zones.core),
        CompensationEnergy(recipe.compensation or Compensation(dict.fromkeys(zones.kinds, 0.0)), zones.kinds),
    )
    return blend.to(getattr(recipe.potential, "device", "cpu"))


def with_blend(recipe: Recipe, system: openmm.System, embedding: Embedding, blend: torch.nn.Module) -> Parts:
    name = f"{recipe.potential.spec.name} blend"
    force = make_blend_force(blend, bridge=recipe.bridge, periodic=recipe.built.periodic, name=name)
    return Parts(system, embedding, _grouped(system, force), blend)


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
    visible = visible_atoms(built, potential, tables)
    seen = np.flatnonzero(visible)
    model = zone_energies(potential, atomic_numbers(built, seen), np.searchsorted(seen, atoms).tolist())
    end = potential.spec.cutoff
    short_range = ShortRangeEnergies(tables, atoms, visible, HANDOVER_START * end, end)
    pairs = CorePairs(tables, []) if core_pairs is None else core_pairs
    blend = LocalBlend(model, seen.tolist(), weights, short_range, pairs)
    return blend.to(getattr(potential, "device", "cpu"))


def visible_atoms(built: BuiltSystem, potential: PotentialModel, tables: MMTables) -> np.ndarray:
    """Which atoms the model sees, (N,) bool: real atoms of elements that it knows."""
    numbers = atomic_numbers(built, range(built.n_atoms))
    return np.isin(numbers, potential.spec.elements) & ~tables.virtual


def atom_labels(built: BuiltSystem) -> Callable[[int], str]:
    """Index to a name such as TMP163:C1."""
    return labels_of(built.topology)


def built_cell(built: BuiltSystem) -> torch.Tensor | None:
    """Box vectors of the built structure in rows, nm; None without a box."""
    return None if built.box_vectors is None else torch.tensor(built.box_vectors)


def atomic_numbers(built: BuiltSystem, atoms: Collection[int]) -> list[int]:
    """Atomic numbers of some atoms; 0 for a particle without element, which no potential knows."""
    elements = [atom.element for atom in built.topology.atoms()]
    return [0 if elements[i] is None else elements[i].atomic_number for i in atoms]


def _grouped(system: openmm.System, force: openmm.Force) -> dict[str, int]:
    """Put each force in the group of its kind, and the potential's with them; returns the groups."""
    names = set()
    for mm_force in system.getForces():
        if mm_force.__class__.__name__ in WITHOUT_ENERGY:
            continue
        # Pairs that were compiled into a bond force are pairs all the same.
        pairs = mm_force.getName() == INSIDE
        name = "nonbonded" if pairs else _GROUP_OF.get(mm_force.__class__.__name__, "other")
        mm_force.setForceGroup(_GROUPS[name])
        names.add(name)
    force.setForceGroup(_GROUPS["ml"])
    system.addForce(force)
    return {name: group for name, group in _GROUPS.items() if name in names | {"ml"}}
