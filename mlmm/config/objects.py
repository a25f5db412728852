"""From the settings of a run file to the objects of the library: system, zones, hybrid system, stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlmm.build.options import BuildOptions, ForceOptions
from mlmm.config.metals import biases_of
from mlmm.config.schema import RunConfig, ZoneSettings
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.errors import ConfigError, SelectionError
from mlmm.options import fields_of

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem
    from mlmm.dynamics.stages import Dynamics, Minimise
    from mlmm.dynamics.uncertainty import UncertaintyMonitor
    from mlmm.hybrid.system import HybridSystem
    from mlmm.potentials import PotentialModel
    from mlmm.schemes import PotentialFacts, SchemeChoice
    from mlmm.zones.region import Region
    from mlmm.zones.static import ZonePartition

__all__ = [
    "build_from",
    "build_options",
    "check_sizes",
    "describe",
    "hybrid_from",
    "monitor_from",
    "potential_from",
    "resolved",
    "run_options",
    "scheme_of",
    "stages_from",
    "zones_from",
]


def build_from(config: RunConfig, progress: Callable[[str], None]) -> BuiltSystem:
    """The force field of [system]."""
    from mlmm.build import build_system

    system = config.system
    if system.parametrised:
        return _taken_over(config, progress)
    return build_system(system.pdb or None, build_options(config), smiles=system.smiles, progress=progress)


def build_options(config: RunConfig) -> BuildOptions:
    """The options of `mlmm.build_system` in [system], with the tables of ligands and the seed of [run]."""
    from mlmm.build import Ligand

    system = config.system
    options = _fields_of(BuildOptions, system)
    tables = [Ligand(name, **entry) for name, entry in system.ligand.items()]
    return BuildOptions(**options | {"ligands": [*system.ligands, *tables], "seed": config.run.seed})


def _taken_over(config: RunConfig, progress: Callable[[str], None]) -> BuiltSystem:
    """A system that was parametrised elsewhere."""
    from mlmm.build.parametrised.amber import load_amber
    from mlmm.build.parametrised.charmm import load_charmm
    from mlmm.build.parametrised.gromacs import load_gromacs
    from mlmm.build.parametrised.serialised import load_openmm

    files = config.system
    if files.parametrised == "xml":
        return load_openmm(files.xml, files.pdb, progress=progress)
    options = ForceOptions(**_fields_of(ForceOptions, files))
    if files.parametrised == "top":
        folder = files.include_dir or None
        return load_gromacs(files.top, files.gro, options, include_dir=folder, progress=progress)
    if files.parametrised == "psf":
        return load_charmm(
            files.psf, files.coordinates, files.parameters, options, box=files.box, progress=progress
        )
    return load_amber(files.prmtop, files.inpcrd, options, progress=progress)


def potential_from(config: RunConfig, precision: str | None = None) -> PotentialModel:
    """The potential of [potential], with another precision if asked."""
    from mlmm.potentials import load_potential

    settings = config.potential
    return load_potential(
        settings.name,
        members=settings.members or None,
        precision=precision or settings.precision,
        device=settings.device,
        trust=settings.trust,
        kernel=settings.kernel,
        polarisation_scaling=settings.polarisation_scaling,
    )


def monitor_from(config: RunConfig, hybrid: HybridSystem) -> UncertaintyMonitor:
    """What [uncertainty] looks at and acts on."""
    from mlmm.dynamics.uncertainty import UncertaintyLimits, UncertaintyMonitor
    from mlmm.potentials.descriptors import TrainingSet

    settings = config.uncertainty
    limits = UncertaintyLimits(
        energy=settings.energy or None,
        atom=settings.atom or None,
        force=settings.force or None,
        distance=settings.distance or None,
        action=settings.action,
        frames=settings.frames,
    )
    training = TrainingSet.open(settings.training_set) if settings.training_set else None
    return UncertaintyMonitor(
        hybrid, limits, interval=settings.interval or None, forces=settings.forces, training=training
    )


def scheme_of(config: RunConfig, facts: PotentialFacts, *, cuts: bool) -> SchemeChoice:
    """The scheme of a run file, before there are zones.

    Parameters
    ----------
    config : RunConfig
    facts : PotentialFacts
        Of the potential.
    cuts : bool
        Whether the region cuts bonds.

    Raises
    ------
    EmbeddingError, ConfigError
        A scheme that does not suit the potential, the zones or the other keys.
    """
    from mlmm.schemes import take_scheme

    embedding, zones = config.embedding, config.zones
    kind = "static" if zones.kind == "auto" and len(zones.given()) > 1 else zones.kind
    return take_scheme(
        embedding.scheme,
        facts,
        cuts=cuts,
        zones=kind,
        electrostatics=embedding.electrostatics,
        mm_tail=embedding.mm_tail,
        multiplicity=config.region.multiplicity,
    )


def zones_from(config: RunConfig, built: BuiltSystem, region: Region, scheme: str) -> ZonePartition:
    """The zones of [zones] around a region.

    Parameters
    ----------
    config : RunConfig
    built : BuiltSystem
    region : Region
    scheme : str
        As `scheme_of` gives it: zones of kind "auto" are hard under ``additive``, else static.

    Raises
    ------
    ConfigError
        Sizes of a smooth zone where kind "auto" means a hard one.
    """
    from mlmm.zones.adaptive import adaptive_zones
    from mlmm.zones.static import hard_zones, residue_zones, static_zones

    zones = config.zones
    if zones.kind == "auto":
        check_sizes(zones, scheme)
        zones = zones.of_kind("hard" if scheme == "additive" else "static")
    if zones.kind == "hard":
        return hard_zones(built, region)
    if zones.kind == "residues":
        return residue_zones(built, region, zones.residues, zones.plateau_select or None, zones.snap)
    if zones.kind == "static":
        return static_zones(built, region, zones.plateau, zones.width, zones.snap, shape=zones.shape)
    centre = None
    if zones.centre:
        from mlmm.zones.region import select_region

        centre = select_region(built, zones.centre, complete="atoms").atoms
        outside = set(centre).difference(region.atoms)
        if outside:
            raise SelectionError(
                "zones.centre inside the region",
                f"{zones.centre!r}, with {len(outside)} atoms outside",
                "select atoms of the region",
            )
    walls = None if zones.walls == "none" else zones.walls
    return adaptive_zones(
        built, region, zones.plateau, zones.width, molecules=zones.molecules, centre=centre, walls=walls
    )


def check_sizes(zones: ZoneSettings, scheme: str) -> None:
    """Refuse sizes of a smooth zone where kind "auto" means a hard one.

    Raises
    ------
    ConfigError
    """
    if zones.kind == "auto" and scheme == "additive" and len(zones.given()) > 1:
        raise ConfigError(
            "no sizes in [zones] under scheme 'additive', whose region is hard",
            ", ".join(key for key in zones.given() if key != "kind"),
            'leave them out, or write scheme = "per_atom" where the potential allows it',
        )


def hybrid_from(
    config: RunConfig,
    built: BuiltSystem,
    precision: str | None = None,
    potential: PotentialModel | None = None,
) -> HybridSystem:
    """The hybrid system of a run file.

    Parameters
    ----------
    config : RunConfig
    built : BuiltSystem
    precision : {"float32", "float64"}, optional
        Of the networks, instead of the file's.
    potential : PotentialModel, optional
        The file's, where it is loaded already.
    """
    from mlmm.hybrid.system import hybrid_system
    from mlmm.zones.compensation import Compensation
    from mlmm.zones.region import select_region

    region = select_region(built, config.region.select, config.region.complete)
    potential = potential_from(config, precision) if potential is None else potential
    embedding = config.embedding
    variables, restraints = biases_of(config, built, region.atoms)
    path = config.zones.compensation
    scheme = scheme_of(config, potential.spec, cuts=bool(region.cut_bonds))
    zones = zones_from(config, built, region, scheme.name)
    if config.region.hydrogen_mass:
        from mlmm.build.masses import heavier_hydrogens

        moving = (atom for molecule in getattr(zones, "molecules", ()) for atom in molecule)
        built = heavier_hydrogens(built, {*zones.active, *moving}, config.region.hydrogen_mass)
    return hybrid_system(
        built,
        zones,
        potential,
        scheme=embedding.scheme,
        bridge=config.potential.bridge,
        keep=embedding.keep,
        mm_tail=embedding.mm_tail,
        compensation=Compensation.load(path) if path else None,
        electrostatics=embedding.electrostatics,
        charges="model" if embedding.charges == "model" else None,
        charge_range=embedding.charge_range,
        charge_width=embedding.charge_width,
        far_field=embedding.far_field,
        far_permittivity=embedding.far_permittivity,
        charge=config.region.charge,
        multiplicity=config.region.multiplicity,
        variables=variables,
        restraints=restraints,
        outside_training=config.region.outside_training,
    )


def describe(hybrid: HybridSystem) -> str:
    """Region, scheme, zones and notes as lines of text."""
    from mlmm.schemes import SchemeChoice

    region, spec = hybrid.zones.region, hybrid.spec
    residues = ", ".join(region.residues[:6]) + (" …" if len(region.residues) > 6 else "")
    scheme = f"scheme {SchemeChoice(spec.scheme, spec.scheme_reason)}, bridge {hybrid.bridge}"
    if spec.mm_tail:
        scheme += ", pairs beyond the model's range stay MM"
    charges = "fixed charges of the force field"
    if spec.reference_charges:
        charges = f"fixed reference charges on {len(spec.reference_charges)} atoms"
    if spec.electrostatics == "charges":
        reach = f"within {spec.charge_range:g} nm" if hybrid.built.periodic else "at any distance"
        charges += f", charges predicted by {hybrid.potential.spec.name} on top, {reach}"
    if spec.electrostatics == "embedded":
        charges = f"{hybrid.potential.spec.name} polarised by all charges around"
        if hybrid.potential.spec.external == "charges":
            charges += f" (scaled by {hybrid.potential.spec.polarisation_scaling:g})"
        if hybrid.built.periodic and spec.far_field == "ewald":
            charges += ", Ewald sums"
        elif hybrid.built.periodic:
            charges += f", reaction field with permittivity {spec.far_permittivity:g} beyond it"
    counts = ", ".join(f"{name} {count}" for name, count in hybrid.zone_counts().items())
    setup = dict(hybrid.zones.setup)
    made = ", ".join(f"{key} {value}" for key, value in setup.items() if key != "kind")
    lines = [
        f"region {len(region)} atoms ({residues}) in {hybrid.potential.spec.name}, "
        f"{hybrid.potential.spec.members} members, {hybrid.potential.spec.precision}",
        scheme,
        f"       electrostatics: {charges}",
        f"zones  {counts}",
        f"       {setup.get('kind', 'given')}" + (f": {made}" if made else ""),
    ]
    if spec.compensation is not None:
        parts = [f"{kind} {value:.2f} kJ/mol" for kind, value in spec.compensation.alignment.items()]
        mode = spec.compensation.facts.get("mode", "unknown")
        lines.append(f"       compensation ({mode}): {', '.join(parts)}")
    lines += [f"bias   {restraint.describe()}" for restraint in hybrid.biases]
    return "\n".join([*lines, *(f"note   {note}" for note in region.notes)])


def resolved(config: RunConfig, hybrid: HybridSystem) -> RunConfig:
    """The settings with every "auto" of zones and embedding replaced by what came out, for a run's record."""
    zones = config.zones
    if zones.kind == "auto":
        zones = zones.of_kind(dict(hybrid.zones.setup)["kind"])
    embedding = dataclasses.replace(config.embedding, scheme=hybrid.scheme)
    return dataclasses.replace(config, zones=zones, embedding=embedding)


def run_options(config: RunConfig) -> RunOptions:
    """The options of a simulation in [run] and [report]."""
    return RunOptions(**_fields_of(RunOptions, config.run))


def stages_from(config: RunConfig) -> list[Minimise | Dynamics]:
    """The stages of [run]; one of length zero is left out. What they leave open is as `run_options` say.

    Raises
    ------
    ConfigError
        No stage, or a pressure that none of them holds constant.
    """
    from mlmm.dynamics.stages import check_pressure, standard_stages

    stages = standard_stages(ProtocolOptions(**_fields_of(ProtocolOptions, config.run)))
    check_pressure(stages, run_options(config))
    return stages


def _fields_of(schema: type, settings: Any) -> dict[str, Any]:
    """The part of a section that belongs to a class of options."""
    return {name: getattr(settings, name) for name in fields_of(schema).values()}
