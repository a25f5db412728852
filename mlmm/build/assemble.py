"""The path from a structure file to a solvated, parametrised system, stage by stage."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build.build_log import Decision, as_decisions, log_decisions
from mlmm.build.built import BuiltSystem, package_versions
from mlmm.build.checks import check_built, check_templates, handedness, with_virtual_sites
from mlmm.build.draft import as_quantity
from mlmm.build.families import force_field_files, lacking_impropers
from mlmm.build.files.atoms import CheckedStructure, ResidueKey
from mlmm.build.files.reading import read_structure
from mlmm.build.files.sources import find_structure
from mlmm.build.glycans import has_sugars, with_names_of_the_file
from mlmm.build.ligands.alone import structure_from_smiles
from mlmm.build.ligands.definition import LigandPlan, plan_ligands
from mlmm.build.ligands.settling import settle_ligands
from mlmm.build.options import BuildOptions
from mlmm.build.parametrise import (
    check_charge,
    chosen_templates,
    complete_ligands,
    load_force_field,
    retold,
)
from mlmm.build.protons.available import available_states, check_available
from mlmm.build.protons.bridging import bridging_oxygens
from mlmm.build.protons.by_template import hydrogens_by_template
from mlmm.build.protons.hydrogens import mend_hydrogens
from mlmm.build.protons.metals import metal_states
from mlmm.build.protons.protonation import TITRATED, choose_states, named_by_user
from mlmm.build.repair import apply_repairs, find_repairs
from mlmm.build.settle import settle_in_place
from mlmm.build.surroundings.droplet import add_water_sphere, cut_droplet, droplet_centre, relaxed_whole
from mlmm.build.surroundings.solvent import add_solvent, check_width, widths
from mlmm.build.surroundings.water_sites import add_water_sites
from mlmm.build.templates import patches_made_once
from mlmm.build.topology_json import set_topology_box, topology_box
from mlmm.errors import ConfigError
from mlmm.options import with_changes

logger = logging.getLogger(__name__)

#: OpenMM's definitions place the hydrogens of a thiolate as those of a cysteine in a disulfide.
_THIOLATE = {"CYM": "CYX"}
_WATER_PERMITTIVITY = 78.5
_ROOM_TEMPERATURE = 298.15  # K
_LEAST_CELL = 1.0  # nm; smaller CRYST1 cells (1 angstrom in many NMR entries) are place-holders


@patches_made_once()
def build_system(
    pdb: str | os.PathLike[str] | None = None,
    options: BuildOptions | None = None,
    *,
    smiles: str = "",
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> BuiltSystem:
    """Build a solvated MM system from a structure file.

    Same file, options and seed give the same atoms and coordinates: hydrogens are placed and relaxed on
    OpenMM's Reference platform, and the state of Python's ``random`` is put back afterwards.

    Parameters
    ----------
    pdb : path or str, optional
        PDB or mmCIF file, gzip-compressed or not; or a PDB id such as ``"2CHT"``, which is looked for in the
        folders of ``MLMM_STRUCTURES`` and in the cache.
    options : BuildOptions, optional
        How to build; the defaults if left out.
    smiles : str
        A molecule instead of a file; coordinates come from distance geometry.
    progress : callable, optional
        Called with one word (``read``, ``repair``, ``ligands``, ``charges``, ``hydrogens``, ``settle``,
        ``solvent``, ``relax``, ``parametrise``, ``check``) at each start.
    **changes
        Single options by name, such as ``padding="0.8 nm"``; `BuildOptions` explains each of them.

    Returns
    -------
    BuiltSystem

    Raises
    ------
    StructureError
        A file or molecule that cannot be built; the message names line, residue or atom, and the next step.
    ConfigError
        An option that does not exist, or a value, force-field or ligand file that cannot be used.
    """
    options = with_changes(BuildOptions, options, changes)
    progress = progress or (lambda stage: None)

    progress("read")
    if (pdb is None) == (not smiles):
        got = "neither" if pdb is None else "both"
        raise ConfigError("a structure file or a SMILES", got, 'write pdb = "file.pdb", or smiles = "…"')
    plan = plan_ligands(options.ligands, options.mutate)
    # A word that is none is said before the file is read.
    force_field_files(options.forcefield, options.water, implicit=options.implicit)
    if pdb is None:
        source = structure_from_smiles(smiles, plan)
    else:
        path = find_structure(pdb, download=options.download, sha256=options.sha256)
        source = read_structure(path, options)
    decisions = as_decisions("read", source.decisions)
    names = {atom.residue_name for atom in source.atoms}
    sugars = has_sugars(source, plan.names)
    files = force_field_files(
        options.forcefield, options.water, names, sugars=sugars, implicit=options.implicit
    )
    force_field = load_force_field([*files, *plan.files], options.trust)

    progress("repair")
    repairs = find_repairs(source, plan, force_field, options)
    decisions += as_decisions("repair", repairs.decisions)
    topology, positions = apply_repairs(repairs, options.seed)
    decisions += as_decisions("repair", _settle_cell(topology, source, options.solvate))
    if plan.definitions:
        progress("ligands")
    settled = settle_ligands(topology, positions, plan, progress)
    topology, positions = settled.topology, settled.positions
    for xml in settled.templates.values():
        force_field.loadFile(StringIO(xml))
    decisions += settled.decisions
    model, hands = app.Modeller(topology, as_quantity(positions)), handedness(topology, positions)

    with _seeded(options.seed):
        progress("hydrogens")
        added = _add_hydrogens(model, force_field, source, plan, options)
        decisions += as_decisions("protonate", added)
        check_templates(force_field, model.topology)
        decisions += _in_implicit_solvent(model.topology, options)
        # Water comes around the shape that a changed molecule really has.
        if plan.mutate:
            progress("settle")
        settled_positions, entries = settle_in_place(
            model.topology, _coordinates(model), force_field, set(plan.mutate.values())
        )
        model.positions = as_quantity(settled_positions)
        decisions += entries
        if options.solvent == "droplet":
            progress("solvent")
            centre = droplet_centre(model.topology, _coordinates(model), options.droplet)
            add_water_sphere(model, force_field, options.water, centre, options.droplet.radius)
        elif options.solvent == "box":
            progress("solvent")
            add_solvent(
                model,
                force_field,
                options.water,
                options.padding,
                options.box_shape,
                options.nonbonded_cutoff,
                options.ionic_strength,
                options.neutralise,
            )

    topology, coordinates = model.topology, _coordinates(model)
    progress("parametrise")
    system = _parametrised(topology, force_field, options)
    decisions += lacking_impropers(files, topology)
    coordinates = with_virtual_sites(system, coordinates)
    charge = check_charge(system)
    if options.solvent == "droplet":
        progress("relax")
        coordinates, entries = relaxed_whole(
            topology, coordinates, system, force_field, options.droplet.relax
        )
        decisions += entries
        topology, coordinates, system, entries = cut_droplet(
            topology, coordinates, system, centre, options.droplet
        )
        text = f"net charge {round(check_charge(system)):+d} e, of {round(charge):+d} e before"
        decisions += [*entries, Decision("solvate", "charge", text)]
        charge = check_charge(system)
    with_names_of_the_file(topology, repairs.renamed)
    progress("check")
    coordinates, entries = check_built(topology, coordinates, system, source.name, hands, options.relax)
    decisions += entries
    log_decisions(source.name, decisions)
    provenance = {
        "source": source.name,
        "sha256": source.sha256,
        "forcefield_files": files,
        "ligand_files": [file.name for file in plan.files],
        "ligands": settled.molecules,
        "seed": options.seed,
        "options": {
            **options.as_dict(),
            "nonbonded_method": _method(topology, options).__class__.__name__,
        },
        "net_charge": round(charge),
        "decisions": [decision.text for decision in decisions],
        "log": [decision._asdict() for decision in decisions],
        "versions": package_versions(),
    }
    logger.info("%s: %d atoms, net charge %d", source.name, len(coordinates), round(charge))
    return BuiltSystem(topology, coordinates, system, provenance, settled.templates)


def _coordinates(model: app.Modeller) -> np.ndarray:
    return np.array(model.positions.value_in_unit(unit.nanometer), dtype=float)


def _method(topology: app.Topology, options: BuildOptions) -> Any:
    """With a box PME; without one every pair, but for a droplet with a cutoff of its own."""
    if topology_box(topology) is not None:
        return app.PME
    limited = options.droplet is not None and options.droplet.cutoff is not None
    return app.CutoffNonPeriodic if limited else app.NoCutoff


def _parametrised(
    topology: app.Topology, force_field: app.ForceField, options: BuildOptions
) -> openmm.System:
    """The force field's System."""
    cutoff = options.nonbonded_cutoff
    if options.droplet is not None and options.droplet.cutoff is not None:
        cutoff = options.droplet.cutoff
    box = topology_box(topology)
    if box is not None:
        check_width(box, options.nonbonded_cutoff)
    with retold(topology, "assigning parameters"):
        return force_field.createSystem(
            topology,
            nonbondedMethod=_method(topology, options),
            nonbondedCutoff=cutoff,
            constraints=app.HBonds if options.constraints == "hbonds" else None,
            rigidWater=options.rigid_water,
            hydrogenMass=options.hydrogen_mass,
            residueTemplates=chosen_templates(topology, force_field),
            **({"implicitSolventKappa": _screening(options.ionic_strength)} if options.implicit else {}),
        )


def _screening(strength: float) -> float:
    """Inverse Debye length in 1/nm of a salt in mol/l, scaled by 0.73 as in Amber.

    Srinivasan, Trevathan, Beroza and Case, Theor. Chem. Acc. 101, 426 (1999), doi 10.1007/s002140050460.
    """
    return 7.3 * 50.33355 * math.sqrt(strength / _WATER_PERMITTIVITY / _ROOM_TEMPERATURE)


def _in_implicit_solvent(topology: app.Topology, options: BuildOptions) -> list[Decision]:
    if not options.implicit:
        return []
    salt = f", {options.ionic_strength:g} M of salt" if options.ionic_strength else ""
    text = f"implicit solvent {options.implicit}{salt}, with OpenMM's radii; no water and no ions are added"
    decisions = [Decision("solvate", "implicit solvent", text)]
    waters = sum(residue.name == "HOH" for residue in topology.residues())
    if waters:
        text = f'{waters} waters of the file stay in the implicit solvent; waters = "none" leaves them out'
        decisions.append(Decision("solvate", "implicit solvent", text, warning=True))
    return decisions


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Modeller draws from Python's global generator: seed it, and give the caller's state back."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _settle_cell(topology: app.Topology, source: CheckedStructure, solvate: bool) -> list[str]:
    """Decide what the cell in the file means; changes the topology's box.

    A crystal's cell without its symmetry mates is no periodic system, and solvation makes a box of its own.
    """
    box = topology_box(topology)
    if box is None:
        return []
    if solvate:
        set_topology_box(topology, None)
        return []
    if widths(box).min() < _LEAST_CELL:
        set_topology_box(topology, None)
        return ["the cell in the file is a place-holder and was ignored: no box"]
    if source.space_group.replace(" ", "") not in ("", "P1"):
        set_topology_box(topology, None)
        return [f"crystal symmetry {source.space_group} is not applied, so its cell was ignored: no box"]
    return []


def _add_hydrogens(
    model: app.Modeller,
    force_field: app.ForceField,
    source: CheckedStructure,
    plan: LigandPlan,
    options: BuildOptions,
) -> list[Decision | str]:
    """Add missing hydrogens with the force field; those in the file stay where they are."""
    given = named_by_user(model.topology, options.protonate)
    residues = list(model.topology.residues())
    model.delete(
        [a for i in given for a in residues[i].atoms() if a.name in TITRATED.get(residues[i].name, ())]
    )
    hydroxides, bridging = bridging_oxygens(model.topology, _coordinates(model), force_field, given)
    given = {index: state for index, state in given.items() if residues[index].name != "HOH"}
    for index, residue in enumerate(model.topology.residues()):
        residue.name = hydroxides.get(index, residue.name)
    add_water_sites(model, force_field)
    ligand_hydrogens, notes = complete_ligands(model.topology, force_field, plan.by_name)
    named = {}
    for residue in model.topology.residues():
        key = ResidueKey(residue.chain.id.strip(), residue.id, residue.insertionCode.strip())
        name = source.protonation.get(key)
        if name is not None and residue.name[:2] == name[:2] and residue.index not in given:
            named[residue.index] = name
    at_metals, metal_notes = metal_states(
        model.topology, _coordinates(model), force_field, {**named, **given}
    )
    states, chosen = choose_states(
        model.topology,
        _coordinates(model),
        ph=options.ph,
        method=options.protonation,
        given=given,
        named=named | at_metals,
        symmetry=options.symmetry,
    )
    check_available(model.topology, force_field, given)
    states, kept = available_states(model.topology, force_field, states, options.ph)
    chosen += kept
    user = plan.names | set(plan.mutate.values())
    described = {i for i, residue in enumerate(residues) if residue.name in user}
    listed = ligand_hydrogens | hydrogens_by_template(model.topology, force_field, described, states)
    spelled = {i: _THIOLATE.get(state, state) for i, state in states.items()}
    variants: list[Any] = [listed.get(i, spelled.get(i)) for i in range(len(residues))]
    before = model.topology.getNumAtoms()
    with retold(model.topology, "adding hydrogens"):
        actual = model.addHydrogens(
            force_field,
            pH=options.ph,
            variants=variants,
            platform=openmm.Platform.getPlatformByName("Reference"),
            residueTemplates=chosen_templates(model.topology, force_field),
        )
    positions, mended = mend_hydrogens(model.topology, _coordinates(model))
    model.positions = as_quantity(positions)
    chosen = [entry for entry in chosen if entry.residue not in {note.residue for note in metal_notes}]
    entries: list[Decision | str] = [*notes, *bridging, *metal_notes, *chosen, *mended]
    entries.append(f"{model.topology.getNumAtoms() - before} hydrogens added at pH {options.ph:g}")
    for residue, variant in zip(model.topology.residues(), actual, strict=True):
        if isinstance(variant, str) and variant != residue.name and residue.index not in states:
            where = f"{residue.name} {residue.id} of chain {residue.chain.id}"
            entries.append(f"{where} is {variant}, from its hydrogens, bonds or surroundings")
    return entries
