"""What can be refused of a run file before a system is built, in the order of what it costs.

`check_keys` needs no numerical library: names of potentials and their weights, the keys together, the
language of selections. `check_structure` reads the structure: whether the region has atoms, elements that the
potential knows, and a charge that it was trained on. The rules are those of the objects that are made later.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.config.objects import build_options, check_sizes, potential_from, scheme_of
from mlmm.config.schema import RunConfig, ZoneSettings
from mlmm.config.tables import check_references, groups_of
from mlmm.errors import ConfigError, EmbeddingError, MLMMError
from mlmm.schemes import (
    SCHEMES,
    SchemeChoice,
    check_bridge,
    check_far_field,
    check_options,
    check_zones,
)

if TYPE_CHECKING:
    from mlmm.build.plan import PlannedStructure
    from mlmm.build.preview import RegionPreview
    from mlmm.potentials.spec import PotentialSpec

__all__ = ["check_keys", "check_structure", "outlook"]


def check_keys(config: RunConfig) -> None:
    """Check all of a run file that needs neither its structure nor its potential.

    Raises
    ------
    MissingPackageError, PotentialError
        A potential that is unknown or not installed, or a charge that it was not trained on.
    SelectionError
        A selection that is not understood.
    ConfigError, EmbeddingError
        Keys that do not go together, or a file that is not there.
    """
    from mlmm.potentials.known import facts_by_name
    from mlmm.potentials.training import check_training

    region = config.region
    facts = facts_by_name(config.potential.name)
    if facts is not None:
        _checked_scheme(config, facts, None)
        check_training(facts, (), region.charge or 0, region.multiplicity, region.outside_training)
    elif config.embedding.scheme != "auto":
        _check_together(config, config.embedding.scheme)
    training_set = config.uncertainty.training_set
    if training_set and not Path(training_set).exists():
        raise ConfigError(
            "a training_set that is there", f"no file {training_set}", "correct the path, or leave it out"
        )
    check_references(config)
    _check_selections(config)


def check_structure(config: RunConfig, facts: PotentialSpec | None = None) -> SchemeChoice | None:
    """Check the region of a run file in the structure that would be built.

    Parameters
    ----------
    config : RunConfig
    facts : PotentialSpec, optional
        Of its potential; read from it by default, where its name does not tell.

    Returns
    -------
    SchemeChoice or None
        The scheme that will be taken; None where only the built system tells.

    Raises
    ------
    StructureError
        What would stop the build.
    SelectionError
        A selection that will match nothing.
    PotentialError, EmbeddingError, ConfigError
        A region that the potential or the scheme cannot describe.
    """
    from mlmm.potentials.known import facts_by_name

    if facts is None:
        facts = facts_by_name(config.potential.name) or potential_from(config).spec
    _check_machine(config)
    preview, planned = _preview(config)
    if preview is None:
        return _checked_scheme(config, facts, None)
    choice = _checked_scheme(config, facts, preview.cuts)
    _check_region(config, facts, preview)
    if choice is not None:
        _check_flexible(config, choice, preview, planned)
    return choice


def outlook(config: RunConfig) -> str:
    """Say which scheme a run would take and why, or what would stop it, in one line."""
    try:
        check_keys(config)
        choice = check_structure(config)
    except MLMMError as error:
        return f"mlmm run would stop: {error}"
    if choice is None:
        return (
            "scheme: additive if the region is whole molecules, else per_atom, as far as the potential "
            "allows; the built system decides"
        )
    return f"scheme: {choice}"


def _checked_scheme(config: RunConfig, facts: PotentialSpec, cuts: bool | None) -> SchemeChoice | None:
    """The scheme under which all keys go together; None where it depends on whether bonds are cut."""
    found: list[SchemeChoice] = []
    problem: MLMMError | None = None
    for cut in (False, True) if cuts is None else (cuts,):
        try:
            choice = scheme_of(config, facts, cuts=cut)
            _check_together(config, choice.name, facts)
            found.append(choice)
        except MLMMError as error:
            problem = problem or error
    if not found and problem is not None:
        raise problem
    return found[0] if len({choice.name for choice in found}) == 1 and problem is None else None


def _check_together(config: RunConfig, scheme: str, facts: PotentialSpec | None = None) -> None:
    """Refuse keys that mean nothing under a scheme, or that the potential cannot do."""
    embedding, zones = config.embedding, config.zones
    check_options(scheme, embedding.electrostatics, embedding.mm_tail, config.region.multiplicity)
    check_sizes(zones, scheme)
    check_zones(scheme, moves=zones.kind == "adaptive", smooth=_smooth(zones))
    check_far_field(embedding.far_field, embedding.far_permittivity, embedding.electrostatics)
    scaling = config.potential.polarisation_scaling
    if scaling is not None and embedding.electrostatics != "embedded":
        raise ConfigError(
            'polarisation_scaling with electrostatics = "embedded", where charges around polarise the region',
            f"{scaling:g} with electrostatics = {embedding.electrostatics!r}",
            'leave it out, or write electrostatics = "embedded"',
        )
    if facts is None:
        return
    check_bridge(config.potential.bridge, scheme, embedding.electrostatics, per_atom=facts.per_atom)
    if embedding.electrostatics == "embedded":
        from mlmm.potentials.training import check_polarisable, check_polarisation_scaling

        check_polarisable(facts)
        check_polarisation_scaling(scaling, facts.name, known=facts.external == "charges")


def _preview(config: RunConfig) -> tuple[RegionPreview | None, PlannedStructure | None]:
    """The region in the structure that would be built, and that one; or in files that have parameters."""
    from mlmm.build.plan import plan_structure
    from mlmm.build.preview import preview_parametrised, preview_region

    system, region = config.system, config.region
    if system.parametrised:
        for group in groups_of(config):
            preview_parametrised(system, group, "atoms")
        return preview_parametrised(system, region.select, region.complete), None
    options = build_options(config)
    planned = plan_structure(system.pdb or None, options, smiles=system.smiles)
    _check_ensemble(config, planned)
    for group in groups_of(config):
        preview_region(planned, options, group, "atoms")
    return preview_region(planned, options, region.select, region.complete), planned


def _smooth(zones: ZoneSettings) -> str:
    """What is asked for between lambda 0 and 1, in words."""
    if zones.kind == "static":
        value, unit = float(zones.width.split()[0]), zones.width.split()[-1]
        return f"a static zone of width {zones.width}" if value > ("bond" in unit) else ""
    if zones.kind == "residues":
        return "residues with lambda below 1" if any(x < 1 for x in zones.residues.values()) else ""
    return "an adaptive zone" if zones.kind == "adaptive" else ""


def _check_selections(config: RunConfig) -> None:
    from mlmm.zones.region import check_selection

    zones, droplet = config.zones, config.system.droplet
    centre = droplet.get("centre", "") if isinstance(droplet, dict) else ""
    of_zones = (zones.centre, zones.plateau_select, *zones.residues, centre)
    for selection in (config.region.select, *of_zones, *groups_of(config)):
        if selection:
            check_selection(selection)


def _check_machine(config: RunConfig) -> None:
    """Refuse a platform that OpenMM does not have here, and a compensation that cannot be read."""
    if config.run.platform:
        from mlmm.dynamics.platforms import choose_platform

        choose_platform(config.run.platform)
    if config.zones.compensation:
        from mlmm.zones.compensation import Compensation

        Compensation.load(config.zones.compensation)


def _check_ensemble(config: RunConfig, planned: PlannedStructure) -> None:
    """Refuse constant pressure where there will be no box."""
    options = build_options(config)
    boxed = options.solvent == "box" or (options.solvent == "none" and planned.cell)
    if config.run.ensemble == "NPT" and not boxed:
        raise ConfigError(
            "a periodic system for ensemble NPT",
            f"solvent = {options.solvent!r}",
            'write ensemble = "NVT", or solvent = "box"',
        )


def _check_region(config: RunConfig, facts: PotentialSpec, preview: RegionPreview) -> None:
    """Elements, charge and multiplicity, as far as the structure tells."""
    from mlmm.potentials.training import check_electrons, check_elements, check_training

    region = config.region
    charge = preview.charge if region.charge is None else region.charge
    check_elements(facts, preview.numbers, charge or 0)
    check_training(facts, preview.numbers, charge or 0, region.multiplicity, region.outside_training)
    if preview.charge is not None and charge is not None and not preview.cuts:
        # Whole molecules of a structure file have closed shells at their formal charge.
        check_electrons(facts, abs(charge - preview.charge), charge, region.multiplicity, "the region's")


def _check_flexible(
    config: RunConfig, choice: SchemeChoice, preview: RegionPreview, planned: PlannedStructure | None
) -> None:
    """Refuse rigid molecules where lambda is above 0, unless the potential has the region by itself."""
    from mlmm.build.nearby_water import water_will_be_near

    rules, system = SCHEMES[choice.name], config.system
    if not rules.takes_terms or rules.isolated or len(preview.numbers) < 2:
        return
    if system.xml:
        return  # what it holds rigid is its own
    held = 'constraints = "hbonds"' if system.constraints == "hbonds" else ""
    moves = config.zones.kind == "adaptive"
    reach = _static_reach(config)
    if not held and system.rigid_water:
        if moves:
            held = "rigid_water = true"
        elif planned is not None and water_will_be_near(planned, build_options(config), preview.there, reach):
            held = f"rigid_water = true, and there will be water within the {reach:.2g} nm of the zone"
    if held:
        reason = f", which is taken because {choice.reason}" if choice.reason else ""
        zone = "an adaptive zone" if moves else "the zone"
        raise EmbeddingError(
            f"flexible molecules in {zone} under scheme {choice.name!r}{reason}",
            held,
            'write constraints = "none" and rigid_water = false in [system]',
        )


def _static_reach(config: RunConfig) -> float:
    """Distance from the region at which lambda of a smooth zone that stays with its atoms is 0, nm."""
    from mlmm.zones.lengths import lengths

    zones = config.zones.of_kind("static") if config.zones.kind == "auto" else config.zones
    if zones.kind != "static":
        return 0.0
    plateau, width, in_bonds = lengths(zones.plateau, zones.width)
    return 0.0 if in_bonds or zones.shape == "sphere" else plateau + width
