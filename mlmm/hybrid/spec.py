"""All that decides what a hybrid system is, and what follows from it before OpenMM is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import openmm
import torch

from mlmm.blending.supermolecular import capped_region
from mlmm.build import BuiltSystem
from mlmm.collective_variables.definitions import Biases
from mlmm.electrostatics.reaction_field import WATER_PERMITTIVITY
from mlmm.forcefield.remove_terms import RemovedTerms
from mlmm.hybrid.cuda_graphs import MEASURED
from mlmm.modules import Module
from mlmm.potentials.base import PotentialModel, PotentialSpec
from mlmm.schemes import SCHEMES, Scheme
from mlmm.structures import Structure, neighbour_pairs
from mlmm.term_weights import TermWeights, make_term_weights
from mlmm.zones.compensation import Compensation
from mlmm.zones.static import ZonePartition

__all__ = [
    "SWITCHING_START",
    "AssembledSystem",
    "HybridSpec",
    "atom_labels",
    "atomic_numbers",
    "bonds_of",
    "built_cell",
    "hybrid_term_weights",
    "kept_whole",
    "model_atoms",
    "region_structure",
    "replaceable_atoms",
    "visible_atoms",
    "zone_counts",
]

#: Where the switching function of contacts begins, in units of the model's cutoff, where it ends.
SWITCHING_START = 0.7


@dataclass(frozen=True, eq=False)
class HybridSpec:
    """All that decides what a hybrid system is.

    Parameters
    ----------
    built : BuiltSystem
        The pure force field.
    zones : ZonePartition
    potential : PotentialModel
    scheme : str
        Who owns which interaction.
    scheme_reason : str
        Why this scheme was taken; empty where it was named.
    bridge : {"torchforce", "pythonforce", "native"}
    charge, multiplicity : int
        Net charge, e, and spin multiplicity of the region.
    keep : tuple of str
        Forces left alone at the user's wish.
    mm_side : {"openmm", "torch"}
        Where the force field's side of a static blend is evaluated: in OpenMM, as always in a simulation, or
        in torch, a second implementation with the same energy against which the first is tested.
    direct_pairs : bool
        Whether the C++ kernel subtracts the force field's pairs of a static zone in a force of their own, as
        far as it can; otherwise OpenMM does it, by exceptions and custom forces, with the same energy.
    mm_tail : bool
        Under ``additive``, leave pairs inside the region to the force field beyond the model's range.
    compensation : Compensation, optional
        Of an adaptive zone.
    electrostatics : {"mechanical", "charges", "embedded"}
        Fixed charges, those that the potential predicts at every step, or electrostatic embedding.
    charge_range : float
        Up to which predicted charges act, nm.
    charge_width : float
        Standard deviation of the Gaussian charges around an embedded region, nm.
    far_field : {"ewald", "reaction_field"}
        How an embedded region meets charges beyond some distance.
    far_permittivity : float
        Of the medium beyond a reaction field.
    cuda_graphs : {"measured", "off", "on"}
        Whether a TorchForce records CUDA graphs: by default where a run on CUDA finds them right and faster,
        see `mlmm.dynamics.graph_choice`, and not in the System that is made of this spec.
    reference_charges : dict of int to float
        What replaced the force field's own charges of these atoms, e; `built` has them already.
    biases : Biases
        Restraints, and variables that a run follows.
    model_weight : float, optional
        Weight w of the model between the force field (0) and the hybrid (1), see `mlmm.hybrid.end_states`.
    """

    built: BuiltSystem
    zones: ZonePartition
    potential: PotentialModel
    scheme: str
    bridge: str
    charge: int = 0
    multiplicity: int = 1
    scheme_reason: str = ""
    keep: tuple[str, ...] = ()
    mm_side: str = "openmm"
    direct_pairs: bool = True
    mm_tail: bool = False
    compensation: Compensation | None = None
    electrostatics: str = "mechanical"
    charge_range: float = 1.2
    charge_width: float = 0.03
    far_field: str = "ewald"
    far_permittivity: float = WATER_PERMITTIVITY
    cuda_graphs: str = MEASURED
    reference_charges: Mapping[int, float] = field(default_factory=dict)
    biases: Biases = field(default_factory=Biases)
    model_weight: float | None = None

    @property
    def rules(self) -> Scheme:
        """How the scheme divides the energy."""
        return SCHEMES[self.scheme]

    @property
    def subtracts_in_torch(self) -> bool:
        """Whether torch subtracts the terms that a static zone replaces."""
        divides = self.rules.takes_terms and not self.rules.isolated
        return self.mm_side == "torch" and divides and not self.zones.moves


@dataclass(frozen=True, eq=False)
class AssembledSystem:
    """What a spec gives.

    Parameters
    ----------
    system : openmm.System
    removed : RemovedTerms
        What was removed from the force field.
    force_groups : dict of str to int
        Energy by kind: ``nonbonded bonds angles torsions other ml bias``, those that are present.
    blend : Module, optional
        What the bridge evaluates, where that is more than the potential on the region alone.
    cuda_graphs : bool
        Whether that is recorded as a CUDA graph where there is CUDA.
    """

    system: openmm.System
    removed: RemovedTerms
    force_groups: dict[str, int]
    blend: Module | None = None
    cuda_graphs: bool = False


def model_atoms(spec: HybridSpec) -> list[int]:
    """Atoms of a static zone whose energies the model gives: no virtual sites."""
    sites = spec.built.virtual_sites
    return [atom for atom in spec.zones.active if not sites[atom]]


def hybrid_term_weights(spec: HybridSpec) -> TermWeights:
    """Who owns which term under the spec's scheme, zones and potential."""
    built, potential_spec = spec.built, spec.potential.spec
    weights = np.zeros(built.n_atoms)
    weights[list(spec.zones.active)] = spec.zones.active_weights
    caps: tuple[tuple[int, int], ...] = ()
    if spec.scheme == "supermolecular":
        region = capped_region(weights, bonds_of(built))
        weights, caps = np.zeros(built.n_atoms), region.caps
        weights[list(region.atoms)] = 1.0
    switching = None
    if spec.rules.takes_pairs:
        switching = (SWITCHING_START * potential_spec.cutoff, potential_spec.cutoff)
    visible = replaceable_atoms(built, potential_spec)
    return make_term_weights(spec.scheme, weights, visible, switching, caps)


def kept_whole(spec: HybridSpec) -> tuple[str, ...]:
    """Forces that no table has to hold: the user's, and all of them where the scheme touches none."""
    if spec.rules.takes_terms:
        return spec.keep
    return tuple(force.__class__.__name__ for force in spec.built.system.getForces())


def visible_atoms(built: BuiltSystem, spec: PotentialSpec) -> np.ndarray:
    """Which atoms the model sees, (N,) bool: real atoms of elements that it knows."""
    return np.isin(built.numbers, spec.elements) & ~built.virtual_sites


def replaceable_atoms(built: BuiltSystem, spec: PotentialSpec) -> np.ndarray:
    """Whose force-field terms the model may take over, (N,) bool: what it sees, and the sites on that.

    The charges of a water model with four sites belong to its molecule, which the model describes whole.
    """
    visible, system = visible_atoms(built, spec), built.system
    owned = visible.copy()
    for i in np.flatnonzero(built.virtual_sites).tolist():
        site = system.getVirtualSite(i)
        owned[i] = all(visible[site.getParticle(k)] for k in range(site.getNumParticles()))
    return owned


def atom_labels(built: BuiltSystem) -> Callable[[int], str]:
    """Index to a name such as TMP163:C1."""
    return built.label


def bonds_of(built: BuiltSystem) -> list[tuple[int, int]]:
    """Both atoms of every bond of the topology."""
    return [(a, b) for a, b in built.bonds.tolist()]


def built_cell(built: BuiltSystem) -> torch.Tensor | None:
    """Box vectors of the built structure in rows, nm; None without a box."""
    return None if built.box_vectors is None else torch.tensor(built.box_vectors)


def atomic_numbers(built: BuiltSystem, atoms: Collection[int]) -> list[int]:
    """Atomic numbers of some atoms; 0 for a particle without element, which no potential knows."""
    return [int(built.numbers[i]) for i in atoms]


def zone_counts(spec: HybridSpec, visible: Collection[int] | None) -> dict[str, int]:
    """Number of atoms by zone in the built structure.

    Parameters
    ----------
    spec : HybridSpec
    visible : collection of int, optional
        Atoms that the model sees beside the region; none by default.

    Returns
    -------
    dict of str to int
        ``core transition buffer environment``; buffer: lambda = 0, seen by the model.
    """
    built, positions, cell = spec.built, torch.tensor(spec.built.positions), built_cell(spec.built)
    weights = spec.zones.weights(positions, cell)
    active = (weights > 0).nonzero().squeeze(1)
    core, buffer = int((weights == 1).sum()), 0
    if visible is not None:
        _, seen, _ = neighbour_pairs(positions, cell, spec.potential.spec.receptive_field, active)
        buffer = len(set(seen.tolist()) & set(visible) - set(active.tolist()))
    counts = {"core": core, "transition": len(active) - core, "buffer": buffer}
    return counts | {"environment": built.n_atoms - sum(counts.values())}


def region_structure(
    spec: HybridSpec, positions: np.ndarray, box_vectors: np.ndarray | None = None
) -> Structure:
    """The zone's atoms (the region, under scheme ``additive``) alone.

    Parameters
    ----------
    spec : HybridSpec
    positions : ndarray, shape (N, 3), nm
        Of the whole system.
    box_vectors : ndarray, shape (3, 3), nm, optional
        The system's own box by default; ignored for an open system.
    """
    built, atoms = spec.built, model_atoms(spec)
    cell = None
    if built.periodic:
        cell = torch.tensor(built.box_vectors if box_vectors is None else box_vectors, dtype=torch.float64)
    numbers = torch.tensor(atomic_numbers(built, atoms))
    where = torch.tensor(positions[atoms], dtype=torch.float64)
    return Structure(numbers, where, cell, spec.charge, spec.multiplicity)
