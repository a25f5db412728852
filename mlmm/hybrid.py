"""Force field and machine-learned potential joined into one OpenMM System."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import openmm
import torch

from mlmm.bridge import choose_bridge, make_force
from mlmm.build import BuiltSystem
from mlmm.embedding import WITHOUT_ENERGY, Embedding, embed_intra
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec, check_elements
from mlmm.structures import Structure
from mlmm.zones import ZonePartition

__all__ = ["SCHEMES", "HybridSystem", "hybrid_system"]

logger = logging.getLogger(__name__)
SCHEMES = ("intra",)
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

    @property
    def spec(self) -> PotentialSpec:
        """What the potential is."""
        return self.potential.spec

    def create_system(self) -> openmm.System:
        """Another System with the same forces, built anew."""
        return _assemble(self.built, self.zones, self.potential, self.bridge, self.charge, self.keep)[0]

    def region_structure(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> Structure:
        """The region as the potential sees it.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
            Of the whole system.
        box_vectors : ndarray, shape (3, 3), nm, optional
            The system's own box by default; ignored for an open system.
        """
        atoms = list(self.zones.core)
        cell = None
        if self.built.periodic:
            cell = torch.tensor(
                self.built.box_vectors if box_vectors is None else box_vectors, dtype=torch.float64
            )
        numbers = torch.tensor(_atomic_numbers(self.built, atoms))
        return Structure(numbers, torch.tensor(positions[atoms], dtype=torch.float64), cell, self.charge)

    def region_energies(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> AtomEnergies:
        """Per-atom energies of the region with the spread of a committee; see `region_structure`."""
        with torch.no_grad():
            return self.potential.atom_energies(self.region_structure(positions, box_vectors))


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

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
        From `hard_zones`.
    potential : PotentialModel
        From `load_potential`, or any object with `spec` and `atom_energies(structure)`.
    scheme : {"intra"}
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
    atoms = list(zones.core)
    check_elements(potential.spec, _atomic_numbers(built, atoms))
    _check_box(built, potential.spec)
    charge, warnings = _region_charge(built, atoms, potential.spec)
    host = choose_bridge(bridge, potential)
    system, embedding, groups = _assemble(built, zones, potential, host, charge, tuple(keep))
    hybrid = HybridSystem(
        built, zones, potential, embedding, host, system, groups, charge, tuple(keep), tuple(warnings)
    )
    _check_contract(hybrid)
    for warning in warnings:
        logger.warning(warning)
    return hybrid


def _assemble(
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    bridge: str,
    charge: int,
    keep: tuple[str, ...],
) -> tuple[openmm.System, Embedding, dict[str, int]]:
    """The embedded force field plus a newly made force of the region, each in its force group."""
    labels = list(built.topology.atoms())
    system, embedding = embed_intra(
        built.system,
        zones.core,
        bonds=[(bond[0].index, bond[1].index) for bond in built.topology.bonds()],
        keep=keep,
        label=lambda i: f"{labels[i].residue.name}{labels[i].residue.id}:{labels[i].name}",
    )
    force = make_force(
        potential,
        _atomic_numbers(built, zones.core),
        zones.core,
        bridge=bridge,
        periodic=built.periodic,
        charge=charge,
    )
    names = set()
    for mm_force in system.getForces():
        if mm_force.__class__.__name__ in WITHOUT_ENERGY:
            continue
        name = _GROUP_OF.get(mm_force.__class__.__name__, "other")
        mm_force.setForceGroup(_GROUPS[name])
        names.add(name)
    force.setForceGroup(_GROUPS["ml"])
    system.addForce(force)
    return system, embedding, {name: group for name, group in _GROUPS.items() if name in names | {"ml"}}


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
    n = len(hybrid.zones.core)
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
