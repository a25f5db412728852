"""Whether a zone and a potential fit the built system: elements, box, room in neighbour lists, net charge."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import torch

from mlmm.build import BuiltSystem
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.elements import element_names
from mlmm.errors import ConfigError, EmbeddingError, PotentialError, check_kind
from mlmm.hybrid.spec import atom_labels, atomic_numbers, built_cell, visible_atoms
from mlmm.neighbours import minimum_images, pairs_within
from mlmm.potentials.base import AtomEnergies, PotentialModel, scriptable_module
from mlmm.potentials.spec import PotentialSpec
from mlmm.potentials.training import check_elements, check_polarisable, check_training
from mlmm.schemes import SCHEMES
from mlmm.structures import Structure, minimum_image
from mlmm.zones.static import ZonePartition

__all__ = [
    "check_arguments",
    "check_box",
    "check_charges",
    "check_contract",
    "check_embedding",
    "check_room",
    "net_charge",
    "outside_of_training",
    "seen_zones",
    "trusted_charge",
    "zone_warnings",
]

_ON_TOP = 0.05  # nm; a charge nearer than half a bond is none that a potential was trained with
_WHOLE = 0.3  # e; a fragment farther from an integer charge has lost part of a charged group


def check_arguments(built: object, zones: object, potential: object) -> None:
    """Refuse arguments of another class, with the line that makes one of the right class (ConfigError)."""
    check_kind(
        built,
        BuiltSystem,
        "a BuiltSystem as built",
        "use mlmm.build_system(pdb), or mlmm.BuiltSystem.from_openmm(topology, system, positions)",
    )
    do = "make them of a region: zones = mlmm.hard_zones(built, region), or static_zones, residue_zones, …"
    check_kind(zones, ZonePartition, "a ZonePartition as zones", do)
    if not (hasattr(potential, "spec") and hasattr(potential, "atom_energies")):
        raise ConfigError(
            "a potential with spec and atom_energies",
            f"{potential!r}"[:60],
            'load one: potential = mlmm.load_potential("ani1x")',
        )


def seen_zones(
    built: BuiltSystem, zones: ZonePartition, spec: PotentialSpec
) -> tuple[ZonePartition, list[str]]:
    """The zone without atoms that the model does not know: those stay with the force field, by name.

    Raises
    ------
    PotentialError
        An unknown element in the region itself, or bonded to an atom of the zone.
    ConfigError
        A zone without core.
    """
    numbers, sites = built.numbers, built.virtual_sites
    active = zones.active
    check_elements(spec, [int(numbers[i]) for i in zones.region.atoms if not sites[i]])
    if not zones.core and not zones.transition:
        raise ConfigError("a zone with atoms", "an empty one", "select a region")
    unknown = {i for i in active if numbers[i] not in spec.elements and not sites[i]}
    label = atom_labels(built)
    for a, b in built.bonds.tolist():
        if (a in unknown) != (b in unknown) and {a, b}.issubset(active):
            stranger = a if a in unknown else b
            element = element_names([int(numbers[stranger])])
            raise PotentialError(
                f"only elements that {spec.name} knows in the zone",
                f"{label(stranger)} ({element}), bonded to an atom of the zone",
                "make the zone smaller, or choose a potential that knows it (`mlmm models` lists them)",
            )
    if not unknown:
        return zones, []
    weights = dict(zip(zones.transition, zones.transition_weights, strict=True))
    kept = dataclasses.replace(
        zones,
        core=tuple(i for i in zones.core if i not in unknown),
        transition=tuple(i for i in zones.transition if i not in unknown),
        transition_weights=tuple(w for i, w in weights.items() if i not in unknown),
    )
    names = ", ".join(label(i) for i in sorted(unknown)[:6]) + (" …" if len(unknown) > 6 else "")
    return kept, [
        f"{len(unknown)} atoms of the zone stay with the force field: {spec.name} does not know {names}"
    ]


def check_box(built: BuiltSystem, zones: ZonePartition, spec: PotentialSpec) -> None:
    """Minimum image is exact only while model and zone reach less than half of the smallest box width.

    Raises
    ------
    EmbeddingError
    """
    if built.box_vectors is None:
        return
    width = float(np.diag(built.box_vectors).min())
    needs = [(2 * spec.cutoff, f"twice the cutoff of {spec.name}", "build a larger one")]
    if spec.long_range and not zones.moves:
        # A whole region interacts with itself once: the shortest image of each pair has to be its own.
        inside = torch.tensor(built.positions[list(zones.core)])
        offsets = minimum_image(inside - inside[0], built_cell(built))
        extent = float((offsets.amax(0) - offsets.amin(0)).max())
        needs.append((2 * extent, f"twice the extent of the region, for {spec.name}", "build a larger one"))
    if zones.moves:
        needs.append((2 * zones.reach, "twice plateau + width", "make the zone smaller, or the box larger"))
    for needed, what, advice in needs:
        if width < needed:
            raise EmbeddingError(
                f"a box at least {needed:.2f} nm wide ({what})",
                f"{width:.2f} nm",
                f'{advice}: set system.padding = "1.0 nm" or more',
            )


def check_embedding(built: BuiltSystem, zones: ZonePartition, potential: PotentialModel, charge: int) -> None:
    """Refuse electrostatic embedding where the potential or the region is not made for it.

    Raises
    ------
    PotentialError
        A potential that does not see charges around.
    EmbeddingError
        Bonds between the region and its surroundings, fixed charges of the region that add up to another
        charge than the region's, a region or a range of polarisation beyond half of the box, or a charge on
        top of an atom.
    """
    spec = potential.spec
    check_polarisable(spec, scriptable=scriptable_module(potential) is not None)
    if zones.cut_bonds:
        label = atom_labels(built)
        a, b = zones.cut_bonds[0]
        raise EmbeddingError(
            "a region of whole molecules for electrostatic embedding",
            f"a bond between {label(a)} and {label(b)} that the region cuts",
            'select whole molecules, or write electrostatics = "mechanical"',
        )
    fixed = float(read_charges(built.system).charge[list(zones.core)].sum())
    if abs(fixed - charge) > 1e-4:
        raise EmbeddingError(
            f"fixed charges of the region that add up to its charge, {charge:+d} e",
            f"{fixed:+.4f} e",
            "correct region.charge, or the charges of the force field",
        )
    _check_field(built, list(zones.core), spec.polarisation_range)


def _check_field(built: BuiltSystem, region: list[int], reach: float) -> None:
    """Whether images and distances in the built structure are those that the sums are made for."""
    cell = built.box_vectors if built.periodic else None
    inside = built.positions[region]
    whole = minimum_images(inside - inside[0], cell)
    extent = float(np.sqrt(((whole[:, None] - whole[None]) ** 2).sum(2)).max())
    if cell is not None:
        width = float(np.diag(cell).min())
        needed = max(2.0 * reach, 2.0 * extent)
        if width < needed:
            raise EmbeddingError(
                f"a box at least {needed:.2f} nm wide (twice the {reach:g} nm within which charges polarise, "
                "and twice the region)",
                f"{width:.2f} nm",
                'set system.padding = "1.0 nm" or more',
            )
    charges = read_charges(built.system).charge
    outside = np.setdiff1d(np.flatnonzero(charges), region)
    pairs = pairs_within(inside, built.positions[outside], _ON_TOP, cell)
    if len(pairs):
        label = atom_labels(built)
        atom, other = region[pairs[0, 0]], int(outside[pairs[0, 1]])
        raise EmbeddingError(
            f"charges at least {_ON_TOP:g} nm from the atoms of an embedded region",
            f"{label(other)} on top of {label(atom)}",
            "move it away, or minimise the structure with the force field first",
        )


def check_charges(charge_range: float, built: BuiltSystem, zones: ZonePartition, spec: PotentialSpec) -> None:
    """Refuse predicted charges where a zone or a box leaves their energy undefined.

    Raises
    ------
    ConfigError
        A range below that of the switching function.
    EmbeddingError
        A virtual site in the zone, or a box less than twice the range wide.
    """
    sites = [atom for atom in (*zones.active, *zones.switchable_atoms) if built.virtual_sites[atom]]
    if sites:
        raise EmbeddingError(
            "a zone without virtual sites, whose charges no model predicts",
            f"{len(sites)} of them, the first {atom_labels(built)(sites[0])}",
            "build with a water model of three sites, or keep such water out of the zone",
        )
    if charge_range < spec.cutoff:
        raise ConfigError(
            f"charge_range of at least {spec.cutoff:g} nm, the range of {spec.name}",
            f"{charge_range:g} nm",
            'write charge_range = "1.2 nm"',
        )
    if built.box_vectors is not None:
        width = float(np.diag(built.box_vectors).min())
        if width < 2 * charge_range:
            raise EmbeddingError(
                f"a box at least {2 * charge_range:.2f} nm wide (twice charge_range)",
                f"{width:.2f} nm",
                'set system.padding = "1.0 nm" or more, or make charge_range smaller',
            )


def check_room(
    built: BuiltSystem, zones: ZonePartition, scheme: str, potential: PotentialModel, on_gpu: bool
) -> None:
    """Whether lists of fixed length, as networks on a GPU have them, hold the neighbours in the structure.

    Raises
    ------
    PotentialError
        An atom of a static zone with more neighbours than there is room for.
    """
    # Atoms that come and go have lists that are as long as they have to be.
    used = ("auto", "fixed") if on_gpu else ("fixed",)
    models = [m for m in getattr(potential, "models", [potential]) if getattr(m, "shapes", "lists") in used]
    if zones.moves or not (SCHEMES[scheme].has_shares or SCHEMES[scheme].isolated) or not models:
        return
    seen = np.flatnonzero(visible_atoms(built, potential.spec))
    atoms = np.intersect1d(zones.active, seen)
    structure = Structure(
        torch.tensor(atomic_numbers(built, seen)), torch.tensor(built.positions[seen]), built_cell(built)
    )
    for model in models:
        model.check_room(structure, np.searchsorted(seen, atoms).tolist())


def net_charge(built: BuiltSystem, zones: ZonePartition, scheme: str | None) -> int:
    """Net charge of the zone's atoms by the force field, rounded, e.

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
    scheme : str, optional
        That describes the region by this charge; None where another one is given.

    Raises
    ------
    EmbeddingError
        A capped region that has lost part of a charged group: no closed-shell molecule has such a charge.
    """
    charges = [
        force.getParticleParameters(i)[0]._value
        for force in built.system.getForces()
        if isinstance(force, openmm.NonbondedForce)
        for i in zones.active
    ]
    total = sum(charges)
    capped = scheme is not None and SCHEMES[scheme].caps
    if zones.cut_bonds and capped and abs(total - round(total)) > _WHOLE:
        raise EmbeddingError(
            "whole charged groups on one side of the boundary",
            f"a region of charge {total:+.2f} e by the force field",
            "move the cut away from the charged group",
        )
    return round(total)


def trusted_charge(built: BuiltSystem, zones: ZonePartition, *, given: bool) -> bool:
    """Whether the net charge of a zone is one of molecules, and not what a cut through them leaves.

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
    given : bool
        Whether the user named the charge.
    """
    if given or not zones.cut_bonds:
        return True
    total = float(read_charges(built.system).charge[list(zones.active)].sum())
    return abs(total - round(total)) <= _WHOLE


def outside_of_training(
    built: BuiltSystem,
    zones: ZonePartition,
    spec: PotentialSpec,
    state: tuple[int, int],
    outside_training: str,
    *,
    given: bool,
) -> list[str]:
    """What of the region the potential was not trained on, see `mlmm.potentials.training.check_training`.

    Parameters
    ----------
    built : BuiltSystem
    zones : ZonePartition
    spec : PotentialSpec
    state : (int, int)
        Charge and multiplicity of the region.
    outside_training : {"stop", "warn"}
    given : bool
        Whether the user named the charge; else it counts only where it is one of molecules.
    """
    charge, multiplicity = state
    numbers = atomic_numbers(built, zones.region.atoms)
    if not trusted_charge(built, zones, given=given):
        charge = 0 if 0 in spec.trained_charges or not spec.trained_charges else spec.trained_charges[0]
    return check_training(spec, numbers, charge, multiplicity, outside_training)


def zone_warnings(built: BuiltSystem, zones: ZonePartition, charge: int, spec: PotentialSpec) -> list[str]:
    """What a user should know of a zone that is charged or runs through molecules."""
    warnings = []
    if charge != 0 and not spec.charges and not spec.trained_charges:
        warnings.append(f"the region has charge {charge:+d}, which {spec.name} does not take into account")
    if zones.cut_bonds:
        label = atom_labels(built)
        names = ", ".join(f"{label(a)}–{label(b)}" for a, b in zones.cut_bonds[:4])
        more = f" and {len(zones.cut_bonds) - 4} more" if len(zones.cut_bonds) > 4 else ""
        warnings.append(
            f"bonds join atoms of different lambda: {names}{more}; forces near them are neither ML nor MM"
        )
    return warnings + list(zones.notes)


def check_contract(result: AtomEnergies, count: int | None) -> None:
    """Refuse what a broken model gives for the built structure, here and not inside a simulation.

    Parameters
    ----------
    result : AtomEnergies
        What it gives; by a broken model anything else.
    count : int, optional
        Energies that there have to be.

    Raises
    ------
    PotentialError
    """
    energies = getattr(result, "energies", None)
    shape = tuple(energies.shape) if isinstance(energies, torch.Tensor) else None
    if energies is None or shape is None or (count is not None and shape != (count,)):
        expected = "" if count is None else f" of shape ({count},)"
        raise PotentialError(
            f"atom_energies(structure) to return AtomEnergies with energies{expected}",
            f"{type(result).__name__} with energies of shape {shape}",
            "return mlmm.AtomEnergies(energies=…)",
        )
    if not bool(torch.isfinite(energies).all()):
        raise PotentialError(
            "finite energies on the built structure",
            "NaN or infinity",
            "look at the region for clashing atoms",
        )
