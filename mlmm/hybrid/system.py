"""Force field and machine-learned potential joined into one OpenMM System."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch

from mlmm.build import BuiltSystem
from mlmm.collective_variables.bind import bind
from mlmm.collective_variables.definitions import Biases
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.electrostatics.reaction_field import WATER_PERMITTIVITY
from mlmm.errors import check_kind
from mlmm.forcefield.remove_terms import RemovedTerms
from mlmm.hybrid.alignment import with_compensation
from mlmm.hybrid.assemble import assemble
from mlmm.hybrid.bridge import choose_bridge, has_gpu
from mlmm.hybrid.charges import Charges, check_predicted, predicted_charges, with_charges
from mlmm.hybrid.mm_tail import tail_warning
from mlmm.hybrid.region_checks import (
    check_arguments,
    check_box,
    check_charges,
    check_contract,
    check_embedding,
    check_room,
    net_charge,
    outside_of_training,
    seen_zones,
    zone_warnings,
)
from mlmm.hybrid.rules import choose_host, choose_scheme
from mlmm.hybrid.spec import (
    AssembledSystem,
    HybridSpec,
    model_atoms,
    region_structure,
    zone_counts,
)
from mlmm.hybrid.summary import hybrid_summary
from mlmm.modules import Module
from mlmm.potentials.base import AtomEnergies, PotentialModel
from mlmm.schemes import check_far_field, check_options
from mlmm.short_repr import ShortRepr
from mlmm.structures import Structure
from mlmm.units import parse
from mlmm.zones.compensation import Compensation
from mlmm.zones.static import ZonePartition

__all__ = ["HybridSystem", "check_hybrid", "hybrid_system"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class HybridSystem(ShortRepr):
    """A force field whose region is described by a machine-learned potential.

    Parameters
    ----------
    spec : HybridSpec
        All that went into it.
    assembled : AssembledSystem
        What came out: the OpenMM System first of all.
    warnings : tuple of str
        What the user should know.
    outside_training : tuple of str
        Those that say what of the region the potential was not trained on.
    """

    spec: HybridSpec
    assembled: AssembledSystem
    warnings: tuple[str, ...] = ()
    outside_training: tuple[str, ...] = ()

    def _summary(self) -> dict[str, str]:
        return hybrid_summary(self.spec, self.warnings)

    @property
    def built(self) -> BuiltSystem:
        """The pure force field."""
        return self.spec.built

    @property
    def zones(self) -> ZonePartition:
        """Which atoms, with which lambda."""
        return self.spec.zones

    @property
    def potential(self) -> PotentialModel:
        """The machine-learned potential."""
        return self.spec.potential

    @property
    def bridge(self) -> str:
        """Host of the potential: ``torchforce``, ``pythonforce`` or ``native``."""
        return self.spec.bridge

    @property
    def cuda_graphs(self) -> bool:
        """Whether the potential is recorded as a CUDA graph where OpenMM runs on CUDA."""
        return self.assembled.cuda_graphs

    @property
    def scheme(self) -> str:
        """Who owns which interaction."""
        return self.spec.scheme

    @property
    def mm_side(self) -> str:
        """Where the force field's side is evaluated; that of a zone that moves always in torch."""
        return "torch" if self.zones.moves else self.spec.mm_side

    @property
    def charge(self) -> int:
        """Net charge of the region, e."""
        return self.spec.charge

    @property
    def multiplicity(self) -> int:
        """Spin multiplicity of the region."""
        return self.spec.multiplicity

    @property
    def keep(self) -> tuple[str, ...]:
        """Forces left alone at the user's wish."""
        return self.spec.keep

    @property
    def system(self) -> openmm.System:
        """Ready for a `Context` or `Simulation`.

        A TorchForce in it cannot be copied (OpenMM raises an error): `create_system` makes another one.
        """
        return self.assembled.system

    @property
    def removed(self) -> RemovedTerms:
        """What was removed from the force field."""
        return self.assembled.removed

    @property
    def force_groups(self) -> dict[str, int]:
        """Energy by kind: ``nonbonded bonds angles torsions other ml bias``, those that are present."""
        return self.assembled.force_groups

    @property
    def blend(self) -> Module | None:
        """What the bridge evaluates; None where that is the potential on the region alone."""
        return self.assembled.blend

    @property
    def biases(self) -> Biases:
        """Restraints, and variables that a run follows."""
        return self.spec.biases

    def restrained(
        self, restraints: Sequence[Restraint] = (), variables: Sequence[Variable] = ()
    ) -> HybridSystem:
        """The same hybrid with other restraints and variables instead of its own, built anew.

        Arguments and errors as for `mlmm.collective_variables.bind.bind`.
        """
        return self.reassembled(self.bridge, biases=bind(self.built, restraints, variables))

    def create_system(self, bridge: str | None = None, **changes: Any) -> openmm.System:
        """Another System with the same energy, built anew, as `reassembled` makes it."""
        return assemble(self._changed(bridge, changes)).system

    def reassembled(self, bridge: str | None = None, **changes: Any) -> HybridSystem:
        """The same energy by another implementation, for comparison.

        Parameters
        ----------
        bridge : {"torchforce", "pythonforce", "native"}, optional
        changes
            Fields of `HybridSpec`: ``direct_pairs=False`` leaves all pairs to OpenMM, ``mm_side="torch"``
            evaluates the force field's side of a static zone in torch.
        """
        spec = self._changed(bridge, changes)
        return HybridSystem(spec, assemble(spec), self.warnings, self.outside_training)

    def _changed(self, bridge: str | None, changes: dict[str, Any]) -> HybridSpec:
        if bridge is None:
            bridge = self.bridge
            if changes.get("mm_side") == "torch" and bridge == "native" and not self.spec.rules.isolated:
                # The native bridge evaluates sum_i lambda_i eps_i alone.
                bridge = choose_bridge("auto", self.potential)
        return dataclasses.replace(self.spec, bridge=bridge, **changes)

    def zone_counts(self) -> dict[str, int]:
        """Number of atoms by zone in the built structure; buffer: lambda = 0, seen by the model."""
        return zone_counts(self.spec, None if self.blend is None else self.blend.visible.tolist())

    def region_structure(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> Structure:
        """The zone's atoms alone; arguments as for `mlmm.hybrid.spec.region_structure`."""
        return region_structure(self.spec, positions, box_vectors)

    def region_energies(self, positions: np.ndarray, box_vectors: np.ndarray | None = None) -> AtomEnergies:
        """Energies of the zone's atoms by the model, times lambda, with the spread of a committee.

        Under ``per_atom`` they are those of the atoms among their neighbours, under ``additive`` of the
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


def check_hybrid(hybrid: object) -> None:
    """Refuse what is no `HybridSystem` (ConfigError)."""
    do = "make one: hybrid = mlmm.hybrid_system(built, zones, potential)"
    check_kind(hybrid, HybridSystem, "a HybridSystem", do)


def hybrid_system(
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    *,
    scheme: str = "auto",
    bridge: str = "auto",
    keep: Collection[str] = (),
    charge: int | None = None,
    multiplicity: int = 1,
    mm_tail: bool = False,
    compensation: Compensation | None = None,
    electrostatics: str = "mechanical",
    charges: Charges | None = None,
    charge_range: str | float = "1.2 nm",
    restraints: Sequence[Restraint] = (),
    variables: Sequence[Variable] = (),
    outside_training: str = "stop",
    charge_width: str | float = "0.03 nm",
    far_field: str = "ewald",
    far_permittivity: float | None = None,
) -> HybridSystem:
    """Replace the force field inside the region by a machine-learned potential, with one conserved energy.

    - ``per_atom``: E = E_MM + sum_i lambda_i (eps_i^ML − eps_i^MM,sr). The potential also sees the atoms
      around the zone and owns contacts within its range; bonds may join atoms of different lambda, without
      caps. For per-atom energies trained on total energies.
    - ``supermolecular``: E = E_MM + [E_ML(all) − E_ML(all but the region)] − (force-field terms that touch
      the region): exact forces on the region but where a bond is cut; two passes of the model, caps on cut
      bonds.
    - ``additive``: E = E_MM − E_MM(inside the region) + E_ML(region), mechanical embedding; caps on cut
      bonds.
    - ``delta``: E = E_MM + sum_i lambda_i eps_i^ML, for models trained on a correction to the force field.

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
        From `hard_zones`, `static_zones`, `residue_zones` or `adaptive_zones`.
    potential : PotentialModel
        From `load_potential`, or any object with `spec` and `atom_energies(structure)`.
    scheme : {"auto", "per_atom", "supermolecular", "additive", "delta"}
        By default ``additive`` for a region of whole molecules with a hard boundary, as OpenMM-ML has it;
        ``per_atom``, or what suits the energies on which the potential was trained, where the region cuts
        bonds or there is a static, residue or adaptive zone; `HybridSystem.spec` holds the reason.
    bridge : {"auto", "torchforce", "pythonforce", "native"}
        Host of the potential; all give the same numbers. "native" is a force of OpenMM's own kind, for ANI
        networks under ``delta``, ``additive``, and ``per_atom`` in a static zone.
    keep : collection of str
        Names of forces that stay whole although they act inside the region (biases, restraints).
    charge : int, optional
        Net charge of the region, e; what the force field's charges add up to by default.
    multiplicity : int
        Spin multiplicity of the region under ``additive``, for a potential with spins.
    mm_tail : bool
        Under ``additive``, leave pairs inside the region to the force field beyond the model's range.
    compensation : Compensation, optional
        Of an adaptive zone, from `calibrate`; without it, the mean difference of the two descriptions in the
        built structure is taken as alignment, and a warning says so.
    electrostatics : {"mechanical", "charges", "embedded"}
        The force field's fixed charges; or those that the potential predicts at every step: their difference
        acts on all atoms within `charge_range`, forces of dq/dR included, PME keeps the fixed ones, schemes
        ``per_atom`` and ``additive``; or electrostatic embedding under ``additive``: the potential is
        polarised by the charges around, and its multipoles meet all of them, under PME by Ewald insertion.
    charges : mapping of int to float, array, or "model", optional
        Better fixed charges of atoms of the zone, e, written into the force field's PME before all else: by
        atom, one for each atom of the region, or predicted once in the built structure. Between lambda = 0
        and 1 they are mixed with the force field's; the total charge stays.
    charge_range : str or float
        Where predicted charges cease to act in a periodic system, nm.
    restraints, variables : sequence of Restraint, of Variable
        Biases in a force group of their own, and further collective variables that a run follows.
    outside_training : {"stop", "warn"}
        A charge or multiplicity of the region that the potential was not trained on is refused, or gives a
        warning that the run's record and report repeat.
    charge_width : str or float
        Standard deviation of the Gaussian charges around an embedded region, nm, at most 0.05: as points
        beyond a bond's length, and finite on top of an atom. 0: points.
    far_field : {"ewald", "reaction_field"}
        All charges around an embedded region by Ewald's sum, or those within 1.2 nm and a medium beyond.
    far_permittivity : float, optional
        Relative permittivity of that medium, 1 (none) or more; that of water by default.

    Raises
    ------
    ConfigError
        An unknown scheme or bridge, options that mean nothing under the scheme, a compensation that lacks a
        kind of molecule or is of another zero of energy, or charges that do not belong to the zone or add up
        to another charge.
    PotentialError
        An element that the potential does not know, a model that breaks its contract, or one that predicts no
        charges where they are asked for; a charge or multiplicity that it was not trained on; more neighbours
        of an atom than lists of fixed length hold.
    EmbeddingError
        A scheme that does not suit the potential or the zone, a bond or charged group that must not be cut, a
        force that cannot be divided, a box smaller than twice the potential's cutoff or `charge_range`.
    """
    check_arguments(built, zones, potential)
    facts = potential.spec
    choice = choose_scheme(
        scheme, zones, facts, electrostatics=electrostatics, mm_tail=mm_tail, multiplicity=multiplicity
    )
    scheme = choice.name
    reach = parse(charge_range, "length", "charge_range")
    width = parse(charge_width, "length", "charge_width")
    check_far_field(far_field, far_permittivity, electrostatics)
    check_options(scheme, electrostatics, mm_tail, multiplicity)
    zones, warnings = seen_zones(built, zones, facts)
    check_box(built, zones, facts)
    if electrostatics == "charges":
        check_charges(reach, built, zones, facts)
    by_force_field = net_charge(built, zones, scheme if charge is None else None)
    if charge is not None and charge != by_force_field:
        warnings.append(f"charge {charge:+d} of the region is not the force field's {by_force_field:+d}")
    given, charge = charge is not None, by_force_field if charge is None else charge
    if electrostatics == "embedded":
        check_embedding(built, zones, potential, charge)
    outside = outside_of_training(built, zones, facts, (charge, multiplicity), outside_training, given=given)
    warnings += [*outside, *zone_warnings(built, zones, charge, facts)]
    on_gpu = has_gpu()
    host = choose_host(
        bridge,
        built,
        zones,
        potential,
        scheme,
        electrostatics=electrostatics,
        mm_tail=mm_tail,
    )
    spec = HybridSpec(
        built,
        zones,
        potential,
        scheme,
        host,
        charge,
        multiplicity,
        keep=tuple(keep),
        scheme_reason=choice.reason,
        # A GPU platform keeps a neighbour list for the custom forces, and would wait for the processor.
        direct_pairs=not on_gpu,
        mm_tail=mm_tail,
        compensation=compensation,
        electrostatics=electrostatics,
        charge_range=reach,
        biases=bind(built, restraints, variables),
        charge_width=width,
        far_field=far_field,
        far_permittivity=WATER_PERMITTIVITY if far_permittivity is None else float(far_permittivity),
    )
    # The plugin's lists of neighbours grow.
    check_room(built, zones, scheme, potential, on_gpu and host != "native")
    if charges is not None:
        spec = with_charges(spec, charges)
    if zones.moves:
        spec, more = with_compensation(spec)
        warnings += more
    assembled, tail = assemble(spec), tail_warning(spec)
    warnings += [tail] if tail else []
    hybrid = HybridSystem(spec, assembled, tuple(warnings), tuple(outside))
    # Caps, whole energies and zones that move come in other numbers.
    count = len(model_atoms(spec)) if hybrid.blend is None else None
    check_contract(hybrid.region_energies(built.positions), count)
    if electrostatics == "charges":
        found, total = predicted_charges(hybrid.spec, hybrid.blend)
        check_predicted(hybrid.spec, found, total)
    logger.info("scheme %s", choice)
    for warning in warnings:
        logger.warning(warning)
    return hybrid
