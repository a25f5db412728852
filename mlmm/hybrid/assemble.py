"""From a spec to an OpenMM System: what the force field keeps, what the model adds, and their sum."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import openmm
import torch

from mlmm.blending.adaptive import AdaptiveBlend
from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.link_atoms import CappedModel, cap_lengths, check_cap_distances
from mlmm.blending.replaced_terms import ReplacedTerms
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.blending.static import PerAtomBlend, Subtraction, WeightedModel, zone_energies
from mlmm.blending.supermolecular import capped_region, supermolecular_blend
from mlmm.build import BuiltSystem
from mlmm.build.surroundings.walls import bond_walls
from mlmm.collective_variables.openmm_forces import bias_forces
from mlmm.electrostatics.embedded_region import EmbeddedRegion
from mlmm.electrostatics.fixed_charges import exception_factors, read_charges
from mlmm.electrostatics.predicted_charges import ChargeCorrection, ChargedBlend, EagerModel, FixedZone
from mlmm.errors import EmbeddingError
from mlmm.forcefield.remove_terms import RemovedTerms, remove_region_terms, remove_zone_pairs
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.bridge import make_force
from mlmm.hybrid.cuda_graphs import has_cuda_graphs
from mlmm.hybrid.direct_pairs import pair_correction
from mlmm.hybrid.end_states import weighted_energy, weighted_model, weighted_own_terms
from mlmm.hybrid.force_groups import grouped, join_molecules
from mlmm.hybrid.hosts import PairEnergy, RegionEnergy
from mlmm.hybrid.native_force import native_force
from mlmm.hybrid.spec import (
    SWITCHING_START,
    AssembledSystem,
    HybridSpec,
    atom_labels,
    atomic_numbers,
    bonds_of,
    built_cell,
    hybrid_term_weights,
    model_atoms,
    replaceable_atoms,
    visible_atoms,
)
from mlmm.kernels.direct_pairs import RegionPairs, ZonePairs
from mlmm.modules import Module
from mlmm.plugin import plugin_problem
from mlmm.plugin.blend_force import pair_force
from mlmm.potentials.base import PotentialModel, field_module
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones
from mlmm.zones.compensation import Compensation, CompensationEnergy
from mlmm.zones.cut_bonds import classify_bonds

__all__ = ["adaptive_blend", "assemble", "blend_of", "join", "model_energy", "remove_mm"]

# Verdicts of `classify_bonds` on bonds for which no hydrogen stands in.
_NEVER_CAPPED = frozenset(["bond to hydrogen", "disulfide", "double bond", "metal", "ring", "virtual site"])


def assemble(spec: HybridSpec) -> AssembledSystem:
    """Build the System of a spec; every call makes another one."""
    if spec.electrostatics == "charges":
        spec = dataclasses.replace(spec, potential=EagerModel(spec.potential))
    pairs = pair_correction(spec)
    system, removed = remove_mm(spec, pairs)
    energy = model_energy(spec)
    return join(spec, system, removed, energy, pairs)


def remove_mm(
    spec: HybridSpec, pairs: RegionPairs | ZonePairs | None = None
) -> tuple[openmm.System, RemovedTerms]:
    """The force field less what OpenMM itself leaves out of it.

    Parameters
    ----------
    spec : HybridSpec
    pairs : RegionPairs or ZonePairs, optional
        Pairs that stay in OpenMM, because another force subtracts them.
    """
    built, zones, label = spec.built, spec.zones, atom_labels(spec.built)
    emptied = None if pairs is None else pairs.emptied
    if isinstance(zones, AdaptiveZones):
        system, removed = remove_zone_pairs(built.system, zones.core, label=label)
        _refuse_constraints(system, set(zones.switchable_atoms), label)
        if math.isfinite(zones.walls):
            # Of the same kind in the core too: what is solvent shall stay solvent.
            kinds = set(zones.kinds)
            same = [atom.index for atom in built.topology.atoms() if atom.residue.name in kinds]
            system.addForce(bond_walls(built.topology, same, zones.walls, built.periodic))
        return system, removed
    if spec.subtracts_in_torch:
        active = hybrid_term_weights(spec).active.tolist()
        return remove_zone_pairs(built.system, active, scheme=spec.scheme, label=label)
    if spec.rules.isolated and not spec.mm_tail:
        capped = bool(_cut_bonds(spec))
        return remove_region_terms(
            built.system,
            zones.core,
            bonds=() if capped else bonds_of(built),
            capped=capped,
            keep=spec.keep,
            label=label,
            emptied=None if emptied is None else [(int(a), int(b)) for a, b in emptied],
        )
    return scale_terms(built.system, hybrid_term_weights(spec), keep=spec.keep, label=label, near=emptied)


def model_energy(spec: HybridSpec) -> RegionEnergy | Module:
    """What the bridge evaluates: the model, and what is left to torch of the force field's side."""
    built, zones, potential = spec.built, spec.zones, spec.potential
    if isinstance(zones, AdaptiveZones):
        return adaptive_blend(spec, AdaptiveWeights(zones))
    if spec.electrostatics == "embedded":
        return _embedded_region(spec)
    if spec.rules.isolated:
        return _region_energy(spec)
    if spec.subtracts_in_torch and spec.scheme == "per_atom":
        tables = read_mm_tables(built.system, keep=spec.keep)
        pairs = FullPairs(tables, zones.active)
        return blend_of(built, tables, potential, zones.active, zones.active_weights, pairs)
    added = _all_atoms_energy(spec)
    if not spec.subtracts_in_torch:
        return added
    tables, term_weights = read_mm_tables(built.system, keep=spec.keep), hybrid_term_weights(spec)
    pairs = FullPairs(tables, term_weights.active.tolist())
    blend = Subtraction(added, pairs, ReplacedTerms(tables, term_weights))
    return blend.to(getattr(potential, "device", "cpu"))


def join(
    spec: HybridSpec,
    system: openmm.System,
    removed: RemovedTerms,
    energy: RegionEnergy | Module,
    pairs: RegionPairs | ZonePairs | None = None,
) -> AssembledSystem:
    """The model's energy and the pairs that are subtracted, on top of what the force field keeps.

    Parameters
    ----------
    spec : HybridSpec
    system : openmm.System
        As `remove_mm` left it; the forces are added to it.
    removed : RemovedTerms
    energy : RegionEnergy or Module
        See `model_energy`.
    pairs : RegionPairs or ZonePairs, optional
        See `pair_correction`.
    """
    built, name = spec.built, spec.potential.spec.name
    if pairs is not None:
        system.addForce(_pair_force(pairs))
    blend = None
    if not isinstance(energy, RegionEnergy):
        energy = blend = _charged(spec, energy) if spec.electrostatics == "charges" else energy
    label = f"{name} region" if blend is None else f"{name} blend"
    weight = spec.model_weight
    if spec.bridge == "native":
        force = native_force(spec, energy, label)
        force = force if weight is None else weighted_model(force, weight)
    elif weight is not None:
        assert isinstance(energy, RegionEnergy)  # `check_weight` asks for whole molecules
        force = weighted_energy(energy, weight, built.periodic, label)
    else:
        force = make_force(
            energy,
            bridge=spec.bridge,
            periodic=built.periodic,
            name=label,
            cuda_graphs=spec.cuda_graphs,
            n_particles=built.n_atoms,
        )
    join_molecules(system, built, spec.zones.active)
    groups = grouped(system, force, bias_forces(spec.biases))
    own = None
    if weight is not None:
        own = weighted_own_terms(built.system, list(spec.zones.core), weight, spec.keep)
    if own is not None:
        own.setForceGroup(groups["ml"])
        system.addForce(own)
    return AssembledSystem(system, removed, groups, blend, has_cuda_graphs(force))


def _pair_force(pairs: RegionPairs | ZonePairs) -> openmm.Force:
    """Without Python in a step, where the plugin is there."""
    if plugin_problem() is None:
        return pair_force(pairs)
    return make_force(PairEnergy(pairs), bridge="pythonforce", periodic=pairs.periodic, name=pairs.name)


def _cut_bonds(spec: HybridSpec) -> list[tuple[int, int]]:
    """Bonds across the boundary of a hard zone, the atom inside first."""
    inside = set(spec.zones.core)
    return [
        (a, b) if a in inside else (b, a) for a, b in bonds_of(spec.built) if (a in inside) != (b in inside)
    ]


def _region_energy(spec: HybridSpec) -> RegionEnergy | CappedModel:
    """The model on the region by itself, with hydrogen caps where bonds are cut."""
    built, label, potential = spec.built, atom_labels(spec.built), spec.potential
    numbers = built.numbers.tolist()
    real, caps = model_atoms(spec), _cut_bonds(spec)
    state = {"charge": spec.charge, "multiplicity": spec.multiplicity}
    if not caps and not spec.mm_tail and spec.electrostatics == "mechanical":
        return RegionEnergy(potential, [numbers[i] for i in real], real, **state)
    reasons = {frozenset((cut.first, cut.second)): cut.reason for cut in classify_bonds(built.topology)}
    lengths = cap_lengths(
        caps,
        numbers,
        potential.spec,
        is_single=lambda a, b: reasons[frozenset((a, b))] not in _NEVER_CAPPED,
        label=label,
    )
    check_cap_distances(caps, lengths, torch.tensor(built.positions), built_cell(built), label=label)
    return CappedModel(potential, [numbers[i] for i in real], real, caps, lengths, **state)


def _embedded_region(spec: HybridSpec) -> EmbeddedRegion:
    """The model on the region in the field of all charges of the force field around it."""
    built, potential, atoms = spec.built, spec.potential, model_atoms(spec)
    module = field_module(potential, atomic_numbers(built, atoms), spec.charge, spec.multiplicity)
    charges = read_charges(built.system).charge
    region = EmbeddedRegion(
        module,
        atoms,
        charges,
        potential.spec.polarisation_range,
        spec.charge,
        built_cell(built),
        charge_width=spec.charge_width,
        far_field=spec.far_field,
        far_permittivity=spec.far_permittivity,
    )
    return region.to(getattr(potential, "device", "cpu"))


def _all_atoms_energy(spec: HybridSpec) -> Module:
    """The model on the region among all atoms that it sees."""
    built, zones, potential = spec.built, spec.zones, spec.potential
    numbers = built.numbers.tolist()
    seen = np.flatnonzero(visible_atoms(built, potential.spec))
    weights = np.zeros(built.n_atoms)
    weights[list(zones.active)] = zones.active_weights
    if not spec.rules.has_shares:
        return supermolecular_blend(
            potential,
            numbers,
            seen.tolist(),
            capped_region(weights, bonds_of(built)),
            positions=torch.tensor(built.positions),
            cell=built_cell(built),
            label=atom_labels(built),
        )
    atoms = np.intersect1d(zones.active, seen)
    model = zone_energies(potential, [numbers[i] for i in seen], np.searchsorted(seen, atoms).tolist())
    blend = WeightedModel(model, seen.tolist(), weights[atoms].tolist())
    return blend.to(getattr(potential, "device", "cpu"))


def adaptive_blend(spec: HybridSpec, weights: Module) -> AdaptiveBlend:
    """The blend of an adaptive zone, with lambda of its molecules from the module `weights`."""
    built, zones = spec.built, spec.zones
    assert isinstance(zones, AdaptiveZones)
    tables = read_mm_tables(built.system, keep=spec.keep)
    seen = np.flatnonzero(visible_atoms(built, spec.potential.spec))
    owned = replaceable_atoms(built, spec.potential.spec)
    end = spec.potential.spec.cutoff
    blend = AdaptiveBlend(
        zone_energies(spec.potential, atomic_numbers(built, seen)),
        seen.tolist(),
        zones.core,
        zones.molecules,
        weights,
        ShortRangeEnergies(tables, [*zones.core, *zones.switchable_atoms], owned, SWITCHING_START * end, end),
        FullPairs(tables, zones.core),
        CompensationEnergy(spec.compensation or Compensation(dict.fromkeys(zones.kinds, 0.0)), zones.kinds),
    )
    return blend.to(getattr(spec.potential, "device", "cpu"))


def _charged(spec: HybridSpec, blend: Module) -> ChargedBlend:
    """The blend with the energy of the charges that its model predicts."""
    built, potential_spec = spec.built, spec.potential.spec
    tables = read_charges(built.system)
    isolated = spec.rules.isolated
    correction = ChargeCorrection(
        tables.charge,
        tables.exception_atoms,
        exception_factors(tables),
        replaceable_atoms(built, potential_spec),
        rule="all" if isolated else "share",
        # An open system has no truncation to smooth.
        charge_range=spec.charge_range if built.periodic else math.inf,
        switching_end=None if isolated and not spec.mm_tail else potential_spec.cutoff,
    )
    model = (blend.added if isinstance(blend, Subtraction) else blend).model
    model.keeps_charges = True
    if isinstance(blend, AdaptiveBlend):
        zone = blend.real_zone
    else:
        weights = dict(zip(spec.zones.active, spec.zones.active_weights, strict=True))
        seen = visible_atoms(built, potential_spec)
        atoms = [atom for atom in spec.zones.active if seen[atom]]
        zone = FixedZone(atoms, [weights[atom] for atom in atoms])
        zone = zone.to(getattr(spec.potential, "device", "cpu"))
    charged = ChargedBlend(blend, model, zone, correction, potential_spec.name)
    return charged.to(getattr(spec.potential, "device", "cpu"))


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
    full_pairs: FullPairs | None = None,
) -> PerAtomBlend:
    """sum_i w_i (eps_i^ML − eps_i^MM,sr) over some atoms, with the switching function of scheme ``per_atom``.

    Parameters
    ----------
    built : BuiltSystem
    tables : MMTables
        Of its force field.
    potential : PotentialModel
    atoms, weights : sequence of int, of float
    full_pairs : FullPairs, optional
        Further energy; none by default.
    """
    seen = np.flatnonzero(visible_atoms(built, potential.spec))
    places = np.flatnonzero(np.isin(atoms, seen))
    real = np.asarray(atoms, dtype=np.int64)[places]
    model = zone_energies(potential, atomic_numbers(built, seen), np.searchsorted(seen, real).tolist())
    end = potential.spec.cutoff
    owned = replaceable_atoms(built, potential.spec)
    short_range = ShortRangeEnergies(tables, atoms, owned, SWITCHING_START * end, end)
    pairs = FullPairs(tables, []) if full_pairs is None else full_pairs
    blend = PerAtomBlend(model, seen.tolist(), weights, places.tolist(), short_range, pairs)
    return blend.to(getattr(potential, "device", "cpu"))
