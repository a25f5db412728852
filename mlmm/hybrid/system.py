"""Force field and machine-learned potential joined into one OpenMM System."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import openmm
import torch

from mlmm.build import BuiltSystem
from mlmm.errors import ConfigError, PotentialError
from mlmm.forcefield.remove_terms import Embedding
from mlmm.hybrid.assemble import assemble, check_compensation, start_alignment
from mlmm.hybrid.bridge import choose_bridge
from mlmm.hybrid.charges import Charges, check_predicted, predicted_charges, with_charges
from mlmm.hybrid.direct_pairs import may_host
from mlmm.hybrid.rules import (
    check_box,
    check_electrostatics,
    check_room,
    choose_scheme,
    net_charge,
    seen_zones,
    zone_warnings,
)
from mlmm.hybrid.spec import ROUTES, Parts, Recipe, atomic_numbers, built_cell, model_atoms
from mlmm.potentials.base import AtomEnergies, PotentialModel, PotentialSpec
from mlmm.structures import Structure, neighbour_pairs
from mlmm.units import parse
from mlmm.zones.adaptive import AdaptiveZones
from mlmm.zones.compensation import Compensation
from mlmm.zones.static import ZonePartition

__all__ = ["HybridSystem", "hybrid_system"]

logger = logging.getLogger(__name__)
#: Pairs of zone and system above which torch hands over faster than OpenMM on its CPU platform (17 ns each,
#: all of them at every step; GPU platforms keep a neighbour list).
_MANY_PAIRS = 1_000_000


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
        """Host of the potential: ``torchforce``, ``pythonforce`` or ``kernel``."""
        return self.recipe.bridge

    @property
    def cuda_graphs(self) -> bool:
        """Whether the potential is recorded as a CUDA graph where OpenMM runs on CUDA."""
        return self.parts.cuda_graphs

    @property
    def scheme(self) -> str:
        """Who owns which interaction."""
        return self.recipe.scheme

    @property
    def route(self) -> str:
        """Where the force field's side is evaluated; that of a zone that moves always in torch."""
        return "subtractive" if isinstance(self.zones, AdaptiveZones) else self.recipe.route

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
        """Number of atoms by zone in the built structure; buffer: lambda = 0, seen by the model."""
        positions, cell = torch.tensor(self.built.positions), built_cell(self.built)
        weights = self.zones.weights(positions, cell)
        active = (weights > 0).nonzero().squeeze(1)
        core, buffer = int((weights == 1).sum()), 0
        if self.blend is not None:
            _, seen, _ = neighbour_pairs(positions, cell, self.spec.receptive_field, active)
            buffer = len(set(seen.tolist()) & set(self.blend.visible.tolist()) - set(active.tolist()))
        counts = {"core": core, "transition": len(active) - core, "buffer": buffer}
        return counts | {"environment": self.built.n_atoms - sum(counts.values())}

    def region_structure(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> Structure:
        """The zone's atoms (the region, under scheme ``intra``) alone.

        Parameters
        ----------
        positions : ndarray, shape (N, 3), nm
            Of the whole system.
        box_vectors : ndarray, shape (3, 3), nm, optional
            The system's own box by default; ignored for an open system.
        """
        atoms = model_atoms(self.recipe)
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
    scheme: str = "auto",
    route: str = "auto",
    bridge: str = "auto",
    keep: Collection[str] = (),
    levels: int = 1,
    tail: bool = False,
    compensation: Compensation | None = None,
    electrostatics: str = "mechanical",
    charges: Charges | None = None,
    charge_range: str | float = "1.2 nm",
    cuda_graphs: str = "off",
) -> HybridSystem:
    """Replace the force field inside the region by a machine-learned potential, with one conserved energy.

    - ``local``: E = E_MM + sum_i lambda_i (eps_i^ML − eps_i^MM,sr). The potential also sees the atoms around
      the zone and owns contacts within its range; bonds may join atoms of different lambda, without caps. For
      per-atom energies trained on total energies.
    - ``difference``: E = E_MM + [E_ML(all) − E_ML(all but the region)] − (force-field terms that touch the
      region): exact forces on the region but where a bond is cut; two passes of the model, caps on cut bonds.
    - ``intra``: E = E_MM − E_MM(inside the region) + E_ML(region), mechanical embedding; caps on cut bonds.
    - ``bonded``: the potential owns bonded terms, the force field all contacts. For models trained on
      energies without the force field's non-bonded part.
    - ``delta``: E = E_MM + sum_i lambda_i eps_i^ML, for models trained on a correction to the force field.

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
        From `hard_zones`, `static_zones`, `residue_zones` or `adaptive_zones`.
    potential : PotentialModel
        From `load_potential`, or any object with `spec` and `atom_energies(structure)`.
    scheme : {"auto", "local", "difference", "intra", "bonded", "delta"}
        By default what suits the energies on which the potential was trained.
    route : {"auto", "compiled", "subtractive"}
        Where the force field's side of a static blend is evaluated: in OpenMM's own parameters, or in torch,
        which is faster for a large zone on the CPU platform. Both give the same numbers.
    bridge : {"auto", "torchforce", "pythonforce", "kernel"}
        Host of the potential; all give the same numbers. "kernel" hands positions straight to compiled
        networks: ``delta``, ``intra`` without caps, ``local`` and ``bonded`` by the compiled route.
    keep : collection of str
        Names of forces that stay whole although they act inside the region (biases, restraints).
    levels : int
        Nested sets of scheme ``difference``, one more pass of the model each.
    tail : bool
        Under ``intra``, leave pairs inside the region to the force field beyond the model's range.
    compensation : Compensation, optional
        Of an adaptive zone, from `calibrate`; without it, the mean difference of the two descriptions in the
        built structure is taken as alignment, and a warning says so.
    electrostatics : {"mechanical", "charges"}
        The force field's fixed charges, or those that the potential predicts at every step: their difference
        acts on all atoms within `charge_range`, forces of dq/dR included. PME keeps the fixed ones. Schemes
        ``local`` and ``intra``.
    charges : mapping of int to float, array, or "model", optional
        Better fixed charges of atoms of the zone, e, written into the force field's PME before all else: by
        atom, one for each atom of the region, or predicted once in the built structure. Between lambda = 0
        and 1 they are mixed with the force field's; the total charge stays.
    charge_range : str or float
        Where predicted charges cease to act in a periodic system, nm.
    cuda_graphs : {"off", "auto", "on"}
        Record ANI in a static zone once as a CUDA graph and replay it, on OpenMM's CUDA platform: one launch
        instead of hundreds. "auto": where that is possible; "on": or else an error. Not measured.

    Raises
    ------
    ConfigError
        An unknown scheme, route or bridge, a compensation that lacks a kind of molecule or is of another zero
        of energy, or charges that do not belong to the zone or add up to another charge.
    PotentialError
        An element that the potential does not know, a model that breaks its contract, or one that predicts no
        charges where they are asked for; more neighbours of an atom than lists of fixed length hold.
    EmbeddingError
        A scheme that does not suit the potential or the zone, a bond or charged group that must not be cut, a
        force that cannot be divided, a box smaller than twice the potential's cutoff or `charge_range`.
    """
    spec = potential.spec
    scheme = choose_scheme(scheme, zones, spec)
    reach = parse(charge_range, "length", "charge_range")
    _check_options(scheme, levels, tail)
    zones, warnings = seen_zones(built, zones, spec)
    check_box(built, zones, spec)
    check_electrostatics(electrostatics, reach, built, zones, scheme, spec)
    charge = net_charge(built, zones, scheme)
    static = not isinstance(zones, AdaptiveZones)
    hosted = static and scheme == "local" and not _on_gpu()
    hosted = hosted and electrostatics == "mechanical" and may_host(potential, bridge)
    route = _route(route, built, zones, hosted)
    warnings += zone_warnings(built, zones, charge, spec)
    recipe = Recipe(
        built,
        zones,
        potential,
        scheme,
        _host(
            bridge,
            scheme,
            potential,
            electrostatics,
            _has_constant_weights(built, zones, scheme, route, tail),
        ),
        charge,
        tuple(keep),
        route,
        levels,
        tail,
        compensation,
        electrostatics,
        reach,
        cuda_graphs,
    )
    check_room(built, zones, scheme, potential, _on_gpu())
    if charges is not None:
        recipe = with_charges(recipe, charges)
    if isinstance(zones, AdaptiveZones) and electrostatics == "charges":
        warnings.append("the compensation of the adaptive zone does not contain the predicted charges")
    if isinstance(zones, AdaptiveZones) and compensation is None:
        recipe = dataclasses.replace(recipe, compensation=start_alignment(recipe))
        start = ", ".join(f"{k} {a:.2f} kJ/mol" for k, a in recipe.compensation.alignment.items())
        warnings.append(
            f"no calibrated compensation: energies are aligned by the built structure ({start}), and "
            "molecules will drift through the adaptive zone; run mlmm calibrate, then set zones.compensation"
        )
    elif isinstance(zones, AdaptiveZones):
        warnings += check_compensation(recipe)
    hybrid = HybridSystem(recipe, assemble(recipe), tuple(warnings))
    _check_contract(hybrid)
    if electrostatics == "charges":
        found, total = predicted_charges(hybrid.recipe, hybrid.blend)
        check_predicted(hybrid.recipe, found, total)
    for warning in warnings:
        logger.warning(warning)
    return hybrid


def _route(route: str, built: BuiltSystem, zones: ZonePartition, hosted: bool) -> str:
    """OpenMM's own parameters, unless its CPU platform has to look through too many pairs.

    Pairs that the kernel's host subtracts (`hosted`) are not among those.
    """
    if route not in ("auto", *ROUTES):
        raise ConfigError(f"route = auto | {' | '.join(ROUTES)}", repr(route), 'write route = "auto"')
    if route != "auto":
        return route
    few = hosted or len(zones.active) * built.n_atoms < _MANY_PAIRS
    return "compiled" if few or _on_gpu() else "subtractive"


def _on_gpu() -> bool:
    """Whether OpenMM can run on a GPU here."""
    names = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
    return not names.isdisjoint(("CUDA", "HIP", "OpenCL"))


def _has_constant_weights(
    built: BuiltSystem, zones: ZonePartition, scheme: str, route: str, tail: bool
) -> bool:
    """Whether the potential adds sum_i lambda_i eps_i with constant lambda_i, and nothing else."""
    if isinstance(zones, AdaptiveZones) or scheme == "difference":
        return False
    if scheme == "intra":
        inside = set(zones.core)
        return not tail and all((a.index in inside) == (b.index in inside) for a, b in built.topology.bonds())
    return route == "compiled" or scheme == "delta"


def _check_options(scheme: str, levels: int, tail: bool) -> None:
    """Options that mean nothing under a scheme are a mistake."""
    if levels < 1 or (levels > 1 and scheme != "difference"):
        raise ConfigError(
            "levels = 1, or more under scheme 'difference'",
            f"{levels} under scheme {scheme!r}",
            'leave levels out, or use scheme = "difference"',
        )
    if tail and scheme != "intra":
        raise ConfigError(
            "tail = true under scheme 'intra' only",
            f"scheme {scheme!r}, which always leaves a tail to the force field",
            "leave tail out",
        )


def _host(
    bridge: str, scheme: str, potential: PotentialModel, electrostatics: str, constant_weights: bool
) -> str:
    """Whole energies of a changing set of atoms, and charges, cannot come from a TorchForce."""
    if electrostatics == "charges":
        if bridge == "torchforce":
            raise ConfigError(
                'bridge = pythonforce for electrostatics = "charges": a TorchForce gets energies alone',
                repr(bridge),
                'write bridge = "auto"',
            )
        return choose_bridge("pythonforce" if bridge == "auto" else bridge, potential)
    if scheme == "difference" and not potential.spec.per_atom:
        if bridge == "torchforce":
            raise ConfigError(
                "bridge = pythonforce for whole energies under scheme 'difference'",
                repr(bridge),
                'write bridge = "auto"',
            )
        return "pythonforce"
    return choose_bridge(bridge, potential, constant_weights=constant_weights, on_gpu=_on_gpu())


def _check_contract(hybrid: HybridSystem) -> None:
    """Evaluate the model once, so that a broken one fails here and not inside a simulation."""
    n = len(model_atoms(hybrid.recipe))
    result = hybrid.region_energies(hybrid.built.positions)
    energies = getattr(result, "energies", None)
    shape = tuple(energies.shape) if isinstance(energies, torch.Tensor) else None
    # Caps, whole energies and zones that move come in other numbers.
    if shape is None or (hybrid.blend is None and shape != (n,)):
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
