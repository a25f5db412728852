"""Force-field files and what OpenMM says about them, retold with residue names and the next step."""

from __future__ import annotations

import logging
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from mlmm.build.families import CHARMM_CAPS
from mlmm.build.foreign_xml import check_force_field_files
from mlmm.build.gaps import describe_residue
from mlmm.errors import ConfigError, StructureError

logger = logging.getLogger(__name__)

_WHOLE_CHARGE = 1e-3  # e


def forcefields_folder() -> Path:
    """The project's folder of force-field files for ligands."""
    return Path(__file__).resolve().parents[2] / "forcefields"


def find_ligand_file(name: str | os.PathLike[str]) -> Path:
    """A ligand's XML file: the path as given, else that file name in the project's ``forcefields`` folder.

    Raises
    ------
    ConfigError
        Neither exists.
    """
    path, shipped = Path(name), forcefields_folder()
    for candidate in (path, shipped / path.name):
        if candidate.is_file():
            return candidate
    available = ", ".join(sorted(file.name for file in shipped.glob("*.xml"))) if shipped.is_dir() else ""
    raise ConfigError(
        "an OpenMM force-field file for every ligand",
        f"no file {str(path)!r}" + (f" (the forcefields folder holds {available})" if available else ""),
        "check the path, or give it relative to the folder in which you run",
    )


def ligand_residue_names(path: Path) -> set[str]:
    """Names of the residues that a ligand file describes.

    Raises
    ------
    ConfigError
        No XML, or no residue in it.
    """
    try:
        names = {
            residue.get("name", "")
            for residue in ElementTree.parse(path).getroot().iterfind("Residues/Residue")
        }
    except ElementTree.ParseError as error:
        raise ConfigError(
            "an OpenMM force-field file (XML)",
            f"{path.name}: {error}",
            "write it with ParmEd or openmmforcefields",
        ) from error
    if not names:
        raise ConfigError(
            "a ligand file with <Residues><Residue name=...>",
            f"none in {path.name}",
            "give a complete OpenMM ffxml file",
        )
    return names


def load_force_field(files: Sequence[str | Path], trust: bool = False) -> app.ForceField:
    """Load force-field files together.

    Parameters
    ----------
    files : sequence of path
    trust : bool
        Load also those that run Python code.

    Raises
    ------
    ConfigError
        A file that is missing or runs code, or files that contradict each other.
    """
    own = Path(__file__).resolve().parents[1] / "data"
    # The package's own file goes by its name alone, so that a build is recorded alike on every machine.
    names = [str(own / file) if str(file) == CHARMM_CAPS else str(file) for file in files]
    check_force_field_files(names, trust)
    try:
        return app.ForceField(*names)
    except Exception as error:  # ForceField raises ValueError, KeyError, ParseError and bare Exception
        raise ConfigError(
            "force-field files that OpenMM can load together",
            f"{type(error).__name__}: {error} (files: {', '.join(names)})",
            "correct the file names; types must be unique and the 1-4 scale factors equal in all files",
        ) from error


def residue_templates(force_field: app.ForceField) -> dict[str, Any]:
    """Residue templates by name; OpenMM has no public access to them."""
    return force_field._templates


def chosen_templates(topology: app.Topology, force_field: app.ForceField) -> dict[app.topology.Residue, str]:
    """Templates by the name of the residue where several have its graph: ions of several charges (FE, FE2).

    GLYCAM has an acetyl group for sugars beside the cap of a protein (ACE), and a hydroxyl of its own (ROH).
    """
    counts: dict[str, int] = {}
    counted: set[str] = set()
    for template in residue_templates(force_field).values():
        if len(template.atoms) == 1 and template.atoms[0].element is not None:
            symbol = template.atoms[0].element.symbol
            counts[symbol] = counts.get(symbol, 0) + 1
            counted.add(template.name)
    chosen = {}
    for residue in topology.residues():
        atoms = list(residue.atoms())
        ion = len(atoms) == 1 and atoms[0].element is not None
        if residue.name == "ACE" and {"ACE", "ACX"} <= residue_templates(force_field).keys():
            chosen[residue] = "ACE"
        elif residue.name == "ROH" and "ROH" in residue_templates(force_field):
            chosen[residue] = "ROH"
        elif ion and counts.get(atoms[0].element.symbol, 0) > 1 and residue.name in counted:
            chosen[residue] = residue.name
    return chosen


def complete_ligands(
    topology: app.Topology, force_field: app.ForceField, ligand_names: set[str]
) -> tuple[dict[int, list[tuple[str, str]]], list[str]]:
    """Give ligands the bonds of their template, and find the hydrogens they lack.

    A PDB file holds a ligand's bonds only in CONECT records, which many programs leave out. Where the heavy
    atoms have the names of the template, its bonds are added to `topology`.

    Returns
    -------
    hydrogens : dict
        Residue index to all its ``(hydrogen, parent)`` names, for residues with missing hydrogens.
    decisions : list of str
    """
    bonded = {frozenset((bond[0].index, bond[1].index)) for bond in topology.bonds()}
    hydrogens: dict[int, list[tuple[str, str]]] = {}
    decisions = []
    for residue in topology.residues():
        if residue.name not in ligand_names:
            continue
        template = residue_templates(force_field)[residue.name]
        light = {atom.name for atom in template.atoms if atom.element == app.element.hydrogen}
        heavy = {atom.name for atom in template.atoms} - light
        atoms = {atom.name: atom for atom in residue.atoms()}
        if heavy != {atom.name for atom in atoms.values() if atom.element != app.element.hydrogen}:
            continue  # other names: OpenMM compares the graphs, and complains if they differ
        pairs = [(template.atoms[i].name, template.atoms[j].name) for i, j in template.bonds]
        added = 0
        for one, other in pairs:
            if one in atoms and other in atoms:
                pair = frozenset((atoms[one].index, atoms[other].index))
                if pair not in bonded:
                    topology.addBond(atoms[one], atoms[other])
                    bonded.add(pair)
                    added += 1
        if added:
            decisions.append(f"{describe_residue(residue)}: {added} bonds taken from its template")
        missing = light - set(atoms)
        if missing and set(atoms) <= heavy | light:
            parents = {**dict(pairs), **{other: one for one, other in pairs}}
            hydrogens[residue.index] = [(name, parents[name]) for name in sorted(light)]
            decisions.append(f"{describe_residue(residue)}: {len(missing)} hydrogens added from its template")
    return hydrogens, decisions


@contextmanager
def retold(topology: app.Topology, step: str) -> Iterator[None]:
    """Turn OpenMM's complaints about residues into ones that give name, number and chain.

    Raises
    ------
    StructureError
        In place of any exception from OpenMM.
    """
    try:
        yield
    except (StructureError, ConfigError):
        raise
    except Exception as error:  # Modeller and ForceField raise exceptions of many kinds
        match = re.search(
            r"residue (\d+) \((\w+)\)\.?\s*(.*?)(?:\s*For more information.*)?$", str(error), flags=re.DOTALL
        )
        match = match or re.search(r"HIS residue \((\d+)\)()(.*)$", str(error))
        residues = list(topology.residues())
        if match and int(match[1]) < len(residues):
            residue = residues[int(match[1])]
            raise StructureError(
                "residues with exactly the atoms and bonds of a force-field template",
                f"{describe_residue(residue)} while {step}: {' '.join(match[3].split()) or error}",
                f"compare {describe_residue(residue)} with its template: complete it, correct names and "
                'CONECT records, or give ligands = ["file.xml"] for it',
            ) from error
        raise StructureError(
            f"a structure that OpenMM can handle while {step}",
            f"{type(error).__name__}: {error}",
            "look at the residues named above, or build a smaller part to find the one at fault",
        ) from error


def check_charge(system: openmm.System) -> float:
    """Net charge in e, which must be a whole number.

    Raises
    ------
    StructureError
        A fraction remains: a ligand whose partial charges were rounded, or half a molecule.
    """
    forces = [force for force in system.getForces() if isinstance(force, openmm.NonbondedForce)]
    charges = [
        force.getParticleParameters(index)[0].value_in_unit(unit.elementary_charge)
        for force in forces[:1]
        for index in range(force.getNumParticles())
    ]
    total = float(np.sum(charges))
    if abs(total - round(total)) > _WHOLE_CHARGE:
        raise StructureError(
            f"a net charge that is a whole number to {_WHOLE_CHARGE} e",
            f"{total:.6f} e",
            "correct the charges in the ligand file so that each molecule has a whole charge",
        )
    return total
