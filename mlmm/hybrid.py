"""Force field and machine-learned potential joined into one OpenMM System."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import openmm
import torch

from mlmm.blend import LocalBlend, zone_energies
from mlmm.bridge import choose_bridge, make_blend_force, make_force
from mlmm.build import BuiltSystem
from mlmm.core_pairs import CorePairs
from mlmm.embedding import WITHOUT_ENERGY, Embedding, embed_intra, embed_local
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.mm_tables import MMTables, read_mm_tables
from mlmm.mm_terms import ShortRangeEnergies
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec, check_elements
from mlmm.structures import Structure, neighbour_pairs
from mlmm.zones import ZonePartition

__all__ = ["SCHEMES", "HybridSystem", "blend_of", "hybrid_system"]

logger = logging.getLogger(__name__)
SCHEMES = ("intra", "local")
#: Where the handover of scheme `local` begins, in units of the model's cutoff, where it ends.
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


@dataclass(frozen=True)
class HybridSystem:
    """A force field whose region is described by a machine-learned potential.

    Parameters
    ----------
    built : BuiltSystem
        The pure force field.
    zones : ZonePartition
    potential : PotentialModel
    embedding : Embedding
        What was removed from the force field.
    bridge : {"torchforce", "pythonforce"}
    system : openmm.System
        Ready for a `Context` or `Simulation`. Do not copy it (a TorchForce cannot be copied): `create_system`
        makes another one.
    force_groups : dict of str to int
        Energy by kind: ``nonbonded bonds angles torsions other ml``, those that are present.
    charge : int
        Net charge of the region, e.
    keep : tuple of str
        Forces that the embedding left alone at the user's wish.
    warnings : tuple of str
        What the user should know.
    blend : LocalBlend, optional
        What the bridge evaluates under scheme ``local``.
    """

    built: BuiltSystem
    zones: ZonePartition
    potential: PotentialModel
    embedding: Embedding
    bridge: str
    system: openmm.System
    force_groups: dict[str, int]
    charge: int = 0
    keep: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    blend: LocalBlend | None = None

    @property
    def spec(self) -> PotentialSpec:
        """What the potential is."""
        return self.potential.spec

    @property
    def scheme(self) -> str:
        """Who owns which interaction: ``intra`` or ``local``."""
        return self.embedding.scheme

    def create_system(self) -> openmm.System:
        """Another System with the same forces, built anew."""
        assemble = _assemble_intra if self.scheme == "intra" else _assemble_local
        return assemble(self.built, self.zones, self.potential, self.bridge, self.charge, self.keep)[0]

    def zone_counts(self) -> dict[str, int]:
        """Number of atoms by zone; the buffer (lambda = 0, seen by the model) as in the built structure."""
        counts = self.zones.counts()
        environment, buffer = counts.pop("environment"), 0
        if self.blend is not None:
            positions = torch.tensor(self.built.positions)
            cell = None if self.built.box_vectors is None else torch.tensor(self.built.box_vectors)
            active = torch.tensor(self.zones.active)
            _, seen, _ = neighbour_pairs(positions, cell, self.spec.receptive_field, active)
            buffer = len(set(seen.tolist()) & set(self.blend.visible.tolist()) - set(self.zones.active))
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
        numbers = torch.tensor(_atomic_numbers(self.built, atoms))
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
            device = self.blend.weights.device
            cell = None if structure.cell is None else structure.cell.to(device)
            members = self.blend.members(torch.tensor(positions, dtype=torch.float64, device=device), cell)
            members = (members * self.blend.weights).cpu()
            return AtomEnergies(members.mean(dim=0), members if len(members) > 1 else None)


def hybrid_system(
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    *,
    scheme: str = "intra",
    bridge: str = "auto",
    keep: Collection[str] = (),
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
        From `hard_zones` or `static_zones`.
    potential : PotentialModel
        From `load_potential`, or any object with `spec` and `atom_energies(structure)`.
    scheme : {"intra", "local"}
    bridge : {"auto", "torchforce", "pythonforce"}
        Host of the potential; both give the same numbers.
    keep : collection of str
        Names of forces that stay whole although they act inside the region (biases, restraints).

    Raises
    ------
    ConfigError
        An unknown scheme or bridge.
    PotentialError
        An element that the potential does not know, or a model that breaks its contract.
    EmbeddingError
        A region that cuts a bond, a force that cannot be divided, a box smaller than twice the potential's
        cutoff.
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"scheme = {' | '.join(SCHEMES)}", repr(scheme), 'write scheme = "intra"')
    _check_scheme(scheme, zones, potential.spec)
    check_elements(potential.spec, _atomic_numbers(built, zones.active))
    _check_box(built, potential.spec)
    charge, warnings = _region_charge(built, list(zones.active), potential.spec)
    warnings += _boundary_warnings(built, zones)
    host = choose_bridge(bridge, potential)
    assemble = _assemble_intra if scheme == "intra" else _assemble_local
    system, embedding, groups, blend = assemble(built, zones, potential, host, charge, tuple(keep))
    hybrid = HybridSystem(
        built, zones, potential, embedding, host, system, groups, charge, tuple(keep), tuple(warnings), blend
    )
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
    label = _labels(built)
    names = ", ".join(f"{label(a)}–{label(b)}" for a, b in zones.cut_bonds[:4])
    more = f" and {len(zones.cut_bonds) - 4} more" if len(zones.cut_bonds) > 4 else ""
    return [f"bonds join atoms of different lambda: {names}{more}; forces near them are neither ML nor MM"]


_Parts = tuple[openmm.System, Embedding, dict[str, int], LocalBlend | None]


def _assemble_intra(
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    bridge: str,
    charge: int,
    keep: tuple[str, ...],
) -> _Parts:
    """The force field without the region's own terms, and the model on the region alone."""
    system, embedding = embed_intra(
        built.system,
        zones.core,
        bonds=[(bond[0].index, bond[1].index) for bond in built.topology.bonds()],
        keep=keep,
        label=_labels(built),
    )
    force = make_force(
        potential,
        _atomic_numbers(built, zones.core),
        zones.core,
        bridge=bridge,
        periodic=built.periodic,
        charge=charge,
    )
    return system, embedding, _grouped(system, force), None


def _assemble_local(
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    bridge: str,
    charge: int,
    keep: tuple[str, ...],
) -> _Parts:
    """The whole force field, less the pairs inside the zone, and the blend."""
    system, embedding = embed_local(built.system, zones.active, label=_labels(built))
    tables = read_mm_tables(built.system, keep=keep)
    core_pairs = CorePairs(tables, zones.active)
    blend = blend_of(built, tables, potential, zones.active, zones.active_weights, core_pairs)
    force = make_blend_force(
        blend, bridge=bridge, periodic=built.periodic, name=f"{potential.spec.name} blend"
    )
    return system, embedding, _grouped(system, force), blend


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
    numbers = _atomic_numbers(built, range(built.n_atoms))
    visible = np.isin(numbers, potential.spec.elements) & ~tables.virtual
    seen = np.flatnonzero(visible)
    model = zone_energies(potential, [numbers[i] for i in seen], np.searchsorted(seen, atoms).tolist())
    end = potential.spec.cutoff
    short_range = ShortRangeEnergies(tables, atoms, visible, HANDOVER_START * end, end)
    pairs = CorePairs(tables, []) if core_pairs is None else core_pairs
    blend = LocalBlend(model, seen.tolist(), weights, short_range, pairs)
    return blend.to(getattr(potential, "device", "cpu"))


def _labels(built: BuiltSystem) -> Callable[[int], str]:
    """Index to a name such as TMP163:C1."""
    atoms = list(built.topology.atoms())
    return lambda i: f"{atoms[i].residue.name}{atoms[i].residue.id}:{atoms[i].name}"


def _grouped(system: openmm.System, force: openmm.Force) -> dict[str, int]:
    """Put each force in the group of its kind, and the potential's with them; returns the groups."""
    names = set()
    for mm_force in system.getForces():
        if mm_force.__class__.__name__ in WITHOUT_ENERGY:
            continue
        name = _GROUP_OF.get(mm_force.__class__.__name__, "other")
        mm_force.setForceGroup(_GROUPS[name])
        names.add(name)
    force.setForceGroup(_GROUPS["ml"])
    system.addForce(force)
    return {name: group for name, group in _GROUPS.items() if name in names | {"ml"}}


def _atomic_numbers(built: BuiltSystem, atoms: Collection[int]) -> list[int]:
    """Atomic numbers of some atoms; 0 for a particle without element, which no potential knows."""
    elements = [atom.element for atom in built.topology.atoms()]
    return [0 if elements[i] is None else elements[i].atomic_number for i in atoms]


def _check_box(built: BuiltSystem, spec: PotentialSpec) -> None:
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
