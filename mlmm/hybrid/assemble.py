"""From a spec to an OpenMM System: what the force field keeps, and what the bridge evaluates."""

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
from mlmm.blending.supermolecular import supermolecular_blend
from mlmm.build import BuiltSystem
from mlmm.build.surroundings.walls import bond_walls
from mlmm.electrostatics.fixed_charges import exception_factors, read_charges
from mlmm.electrostatics.predicted_charges import ChargeCorrection, ChargedBlend, EagerModel, FixedZone
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.remove_terms import RemovedTerms, remove_region_terms, remove_zone_pairs
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.hybrid.bridge import make_blend_force, make_force, make_pair_force
from mlmm.hybrid.cuda_graphs import has_cuda_graphs
from mlmm.hybrid.direct_pairs import region_direct_pairs, zone_direct_pairs
from mlmm.hybrid.force_groups import grouped, join_molecules
from mlmm.hybrid.spec import (
    SWITCHING_START,
    AssembledSystem,
    HybridSpec,
    atom_labels,
    atomic_numbers,
    built_cell,
    hybrid_term_weights,
    kept_whole,
    model_atoms,
    replaceable_atoms,
    visible_atoms,
)
from mlmm.kernels.direct_pairs import REGION_PAIRS, ZONE_PAIRS, RegionPairs, ZonePairs
from mlmm.potentials.base import PotentialModel
from mlmm.structures import minimum_image
from mlmm.term_weights import TermWeights
from mlmm.zones.adaptive import AdaptiveWeights, AdaptiveZones, UniformWeights
from mlmm.zones.compensation import Compensation, CompensationEnergy
from mlmm.zones.cut_bonds import classify_bonds

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

# Verdicts of `classify_bonds` on bonds for which no hydrogen stands in.
_NEVER_CAPPED = frozenset(["bond to hydrogen", "disulfide", "double bond", "metal", "ring", "virtual site"])


def assemble(spec: HybridSpec) -> AssembledSystem:
    """Build the System of a spec; every call makes another one."""
    if spec.electrostatics == "charges":
        spec = dataclasses.replace(spec, potential=EagerModel(spec.potential))
    if isinstance(spec.zones, AdaptiveZones):
        return _assemble_adaptive(spec)
    if spec.scheme == "additive":
        return _assemble_additive(spec)
    tables = read_mm_tables(spec.built.system, keep=kept_whole(spec))
    term_weights = hybrid_term_weights(spec)
    if spec.mm_side == "torch" and spec.scheme == "per_atom":
        return _assemble_per_atom_by_subtraction(spec, tables)
    added = _model_energy(spec, tables, term_weights)
    if spec.mm_side == "torch" and spec.scheme != "delta":
        return _assemble_by_subtraction(spec, tables, term_weights, added)
    direct = zone_direct_pairs(spec, tables, term_weights)
    near = None if direct is None else direct.emptied
    system, removed = scale_terms(
        spec.built.system, term_weights, keep=spec.keep, label=atom_labels(spec.built), near=near
    )
    if direct is not None:
        system.addForce(
            make_pair_force(direct, direct.atoms.tolist(), periodic=direct.periodic, name=ZONE_PAIRS)
        )
    return with_blend(spec, system, removed, added)


def _assemble_additive(spec: HybridSpec) -> AssembledSystem:
    """The force field without the region's own terms, and the model on the region alone, capped where cut."""
    built, atoms, label = spec.built, spec.zones.core, atom_labels(spec.built)
    numbers = built.numbers.tolist()
    bonds = [(a, b) for a, b in built.bonds.tolist()]
    inside, real = set(atoms), model_atoms(spec)
    caps = [(a, b) if a in inside else (b, a) for a, b in bonds if (a in inside) != (b in inside)]
    direct: RegionPairs | ZonePairs | None
    if spec.mm_tail:
        term_weights = hybrid_term_weights(spec)
        direct = zone_direct_pairs(spec, read_mm_tables(built.system, keep=spec.keep), term_weights)
        near = None if direct is None else direct.emptied
        system, removed = scale_terms(built.system, term_weights, keep=spec.keep, label=label, near=near)
    else:
        direct = region_direct_pairs(spec)
        known = () if caps else bonds
        emptied = None if direct is None else direct.emptied.tolist()
        system, removed = remove_region_terms(
            *(built.system, atoms),
            bonds=known,
            capped=bool(caps),
            keep=spec.keep,
            label=label,
            emptied=emptied,
        )
    if direct is not None:
        system.addForce(
            make_pair_force(
                direct,
                direct.atoms.tolist(),
                periodic=direct.periodic,
                name=ZONE_PAIRS if spec.mm_tail else REGION_PAIRS,
            )
        )
    if not caps and not spec.mm_tail and spec.electrostatics == "mechanical":
        force = make_force(
            spec.potential,
            [numbers[i] for i in real],
            real,
            bridge=spec.bridge,
            periodic=built.periodic,
            charge=spec.charge,
            cuda_graphs=spec.cuda_graphs,
            n_particles=built.n_atoms,
        )
        join_molecules(system, built, atoms)
        return AssembledSystem(system, removed, grouped(system, force), None, has_cuda_graphs(force))
    reasons = {frozenset((cut.first, cut.second)): cut.reason for cut in classify_bonds(built.topology)}
    lengths = cap_lengths(
        caps,
        numbers,
        spec.potential.spec,
        is_single=lambda a, b: reasons[frozenset((a, b))] not in _NEVER_CAPPED,
        label=label,
    )
    check_cap_distances(caps, lengths, torch.tensor(built.positions), built_cell(built), label=label)
    model = CappedModel(spec.potential, [numbers[i] for i in real], real, caps, lengths, charge=spec.charge)
    return with_blend(spec, system, removed, model)


def _assemble_per_atom_by_subtraction(spec: HybridSpec, tables: MMTables) -> AssembledSystem:
    """The whole force field, less the pairs inside the zone, and the blend of per-atom energies."""
    built, zones = spec.built, spec.zones
    system, removed = remove_zone_pairs(built.system, zones.active, label=atom_labels(built))
    full_pairs = FullPairs(tables, zones.active)
    blend = blend_of(built, tables, spec.potential, zones.active, zones.active_weights, full_pairs)
    return with_blend(spec, system, removed, blend)


def _assemble_by_subtraction(
    spec: HybridSpec, tables: MMTables, term_weights: TermWeights, added: torch.nn.Module
) -> AssembledSystem:
    """Any other scheme in the same way."""
    built, active = spec.built, term_weights.active.tolist()
    takes_pairs = term_weights.rules[2] != "none"
    label = atom_labels(built)
    system, removed = remove_zone_pairs(
        built.system, active, pairs=takes_pairs, scheme=spec.scheme, label=label
    )
    blend = Subtraction(
        added, FullPairs(tables, active if takes_pairs else []), ReplacedTerms(tables, term_weights)
    )
    return with_blend(spec, system, removed, blend.to(getattr(spec.potential, "device", "cpu")))


def _model_energy(spec: HybridSpec, tables: MMTables, term_weights: TermWeights) -> torch.nn.Module:
    """What the model adds, whatever the force field gives up for it."""
    built, zones, potential = spec.built, spec.zones, spec.potential
    visible = visible_atoms(built, potential.spec)
    numbers = built.numbers.tolist()
    if spec.scheme == "supermolecular":
        return supermolecular_blend(
            potential,
            numbers,
            np.flatnonzero(visible).tolist(),
            term_weights.levels,
            positions=torch.tensor(built.positions),
            cell=built_cell(built),
            label=atom_labels(built),
        )
    if spec.scheme == "bonded":
        # Its energies know bonds and what hangs on them; contacts are the force field's.
        inside = set(zones.active)
        touched = [molecule for molecule in built.molecules if inside.intersection(molecule)]
        visible &= np.isin(np.arange(built.n_atoms), [atom for molecule in touched for atom in molecule])
    seen = np.flatnonzero(visible)
    atoms = [atom for atom in zones.active if visible[atom]]
    weights = term_weights.weights[atoms]
    model = zone_energies(potential, [numbers[i] for i in seen], np.searchsorted(seen, atoms).tolist())
    return WeightedModel(model, seen.tolist(), weights.tolist()).to(getattr(potential, "device", "cpu"))


def _assemble_adaptive(spec: HybridSpec) -> AssembledSystem:
    """The same for molecules whose lambda follows their positions; only the core's pairs leave OpenMM."""
    built, zones = spec.built, spec.zones
    system, removed = remove_zone_pairs(built.system, zones.core, label=atom_labels(built))
    solvent = [atom for molecule in zones.molecules for atom in molecule]
    _refuse_constraints(system, set(solvent), atom_labels(built))
    if math.isfinite(zones.walls):
        # Of the same kind in the core too: what is solvent shall stay solvent.
        kinds = set(zones.kinds)
        same = [atom.index for atom in built.topology.atoms() if atom.residue.name in kinds]
        system.addForce(bond_walls(built.topology, same, zones.walls, built.periodic))
    return with_blend(spec, system, removed, adaptive_blend(spec, AdaptiveWeights(zones)))


def adaptive_blend(spec: HybridSpec, weights: torch.nn.Module) -> AdaptiveBlend:
    """The blend of an adaptive zone, with lambda of its molecules from the module `weights`."""
    built, zones = spec.built, spec.zones
    tables = read_mm_tables(built.system, keep=spec.keep)
    solvent = [atom for molecule in zones.molecules for atom in molecule]
    seen = np.flatnonzero(visible_atoms(built, spec.potential.spec))
    owned = replaceable_atoms(built, spec.potential.spec)
    end = spec.potential.spec.cutoff
    blend = AdaptiveBlend(
        zone_energies(spec.potential, atomic_numbers(built, seen)),
        seen.tolist(),
        zones.core,
        zones.molecules,
        weights,
        ShortRangeEnergies(tables, [*zones.core, *solvent], owned, SWITCHING_START * end, end),
        FullPairs(tables, zones.core),
        CompensationEnergy(spec.compensation or Compensation(dict.fromkeys(zones.kinds, 0.0)), zones.kinds),
    )
    return blend.to(getattr(spec.potential, "device", "cpu"))


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
    if not set(spec.zones.kinds) <= set(spec.compensation.alignment):
        return []  # named when the energy is made
    for kind, values in _built_differences(spec, at_most).items():
        given, found = spec.compensation.alignment[kind], float(np.median(values))
        n_atoms = len(spec.zones.molecules[spec.zones.kinds.index(kind)])
        if abs(given - found) > _MISALIGNED * n_atoms:
            raise ConfigError(
                f"a compensation of {kind} for {spec.potential.spec.name} and this force field",
                f"an alignment of {given:.6g} kJ/mol where the built structure has {found:.6g}",
                "calibrate with this potential (mlmm calibrate), or leave the compensation out at first",
            )
    whose = str(spec.compensation.facts.get("potential", "")).split(",")[0]
    if whose and whose != spec.potential.spec.name:
        return [f"the compensation was calibrated for {whose}, not for {spec.potential.spec.name}"]
    return []


def _built_differences(spec: HybridSpec, at_most: int) -> dict[str, list[float]]:
    """Delta of the molecules next to the region in the built structure, kJ/mol, by kind."""
    built, zones = spec.built, spec.zones
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


def with_blend(
    spec: HybridSpec, system: openmm.System, removed: RemovedTerms, blend: torch.nn.Module
) -> AssembledSystem:
    """The bridge's force on top of an embedded force field."""
    if spec.electrostatics == "charges":
        blend = _charged(spec, blend)
    name = f"{spec.potential.spec.name} blend"
    force = make_blend_force(
        blend,
        bridge=spec.bridge,
        periodic=spec.built.periodic,
        name=name,
        cuda_graphs=spec.cuda_graphs,
        n_particles=spec.built.n_atoms,
    )
    join_molecules(system, spec.built, spec.zones.active)
    return AssembledSystem(system, removed, grouped(system, force), blend, has_cuda_graphs(force))


def _charged(spec: HybridSpec, blend: torch.nn.Module) -> ChargedBlend:
    """The blend with the energy of the charges that its model predicts."""
    built, potential_spec = spec.built, spec.potential.spec
    tables = read_charges(built.system)
    additive = spec.scheme == "additive"
    correction = ChargeCorrection(
        tables.charge,
        tables.exception_atoms,
        exception_factors(tables),
        replaceable_atoms(built, potential_spec),
        rule="all" if additive else "share",
        # An open system has no truncation to smooth.
        charge_range=spec.charge_range if built.periodic else math.inf,
        switching_end=None if additive and not spec.mm_tail else potential_spec.cutoff,
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
    full_pairs: torch.nn.Module | None = None,
) -> PerAtomBlend:
    """sum_i w_i (eps_i^ML − eps_i^MM,sr) over some atoms, with the switching function of scheme ``per_atom``.

    Parameters
    ----------
    built : BuiltSystem
    tables : MMTables
        Of its force field.
    potential : PotentialModel
    atoms, weights : sequence of int, of float
    full_pairs : torch.nn.Module, optional
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
