"""GROMACS's top and gro, parameters and all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit

from mlmm.build.built import BuiltSystem
from mlmm.build.options import ForceOptions
from mlmm.build.parametrised.common import create_system, read_text, same_atoms, taken_over
from mlmm.errors import StructureError
from mlmm.options import with_changes

__all__ = ["gromacs_topology", "load_gromacs"]

#: Sections that OpenMM's reader turns into particles and forces; what else has lines is not in its energy.
_READ = {
    *("defaults", "system", "molecules", "moleculetype", "atoms", "bonds", "angles", "dihedrals", "pairs"),
    *(
        "exclusions",
        "constraints",
        "settles",
        "cmap",
        "virtual_sites2",
        "virtual_sites3",
        "dummies2",
        "dummies3",
    ),
    *("atomtypes", "bondtypes", "angletypes", "dihedraltypes", "pairtypes", "cmaptypes", "nonbond_params"),
    *("constrainttypes", "implicit_genborn_params"),
}
_TYPE, _NUMBER, _MASS, _CHARGE = 1, 2, 3, 4  # places in a line of [ atomtypes ], as the reader fills it up
_MASS_TOLERANCE = 0.6  # amu; a hydrogen that is part of a united atom weighs 1


class _Topology(app.GromacsTopFile):
    """OpenMM's reader, which also remembers sections that it passes over, and the line that it failed at."""

    def __init__(self, path: Path, box: Any, include_dir: str | None):
        self.passed_over: dict[str, str] = {}
        self.line = ""
        super().__init__(str(path), periodicBoxVectors=box, includeDir=include_dir)

    def _processFile(self, file: str) -> None:  # noqa: N802 - OpenMM's name; its own leaves the file open
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in re.sub(r"\\[ \t]*\n", " ", lines.read()).splitlines(keepends=True):
                self._processLine(line, file)

    def _processLine(self, line: str, file: str) -> None:  # noqa: N802 - OpenMM's name
        self.line = f"{Path(file).name}: {line.strip()}"
        super()._processLine(line, file)
        section, words = self._currentCategory, line.split(";")[0].strip()
        data = bool(words) and words[0] not in "#[*" and all(self._ifStack)
        if data and section is not None and section not in _READ:
            self.passed_over.setdefault(section, self.line)


def load_gromacs(
    top: str | os.PathLike[str],
    gro: str | os.PathLike[str],
    options: ForceOptions | None = None,
    *,
    include_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> BuiltSystem:
    """Take over a system with the parameters of a GROMACS topology, nothing re-derived.

    With a box in the coordinates PME, without one every pair. Elements are those of the atomic numbers in
    ``[ atomtypes ]``, or of the masses; united atoms are refused, since a potential needs every hydrogen.

    Parameters
    ----------
    top : path
        GROMACS topology (``.top``), as ``gmx grompp`` takes it.
    gro : path
        Coordinates (``.gro``) and, in their last line, the box.
    options : ForceOptions, optional
        Cutoff, constraints, rigid water and mass of hydrogens; see `mlmm.build.options.ForceOptions`.
    include_dir : path, optional
        GROMACS's ``share/gromacs/top``, for ``#include "amber99sb-ildn.ff/forcefield.itp"`` and the like;
        that of an installed GROMACS by default.
    progress : callable, optional
        Called with one word at each start of a stage.
    **changes
        Single options by name, such as ``constraints="none"``.

    Raises
    ------
    StructureError
        Files that cannot be read or do not belong together, terms that are not read, united atoms, or a
        system that fails the checks.
    ConfigError
        A setting that cannot be used.
    """
    progress = progress or (lambda stage: None)
    options = with_changes(ForceOptions, options, changes)
    progress("read")
    top, gro = Path(top), Path(gro)
    coordinates, box = _coordinates(gro)
    progress("parametrise")
    reader = _reader(top, box, include_dir)
    elements, _ = _atoms(reader, top.name)
    reader.topology = _with_elements(reader, elements)
    positions = np.array(coordinates.positions.value_in_unit(unit.nanometer), dtype=float).reshape(-1, 3)
    same_atoms(reader.topology.getNumAtoms(), len(positions), top.name, gro.name)
    _check_names(reader, coordinates.atomNames, top.name, gro.name)
    failure = (
        top.name,
        "a GROMACS topology that OpenMM can turn into forces",
        "write it again without the term that is named, or as Amber files by ParmEd (prmtop, inpcrd)",
    )
    system = create_system(reader.createSystem, reader.topology, options, box is not None, failure)
    progress("check")
    files = {"source": top, "coordinates": gro}
    return taken_over(reader.topology, system, positions, options, files, [], box is not None)


def gromacs_topology(
    top: str | os.PathLike[str], include_dir: str | os.PathLike[str] | None = None
) -> tuple[app.Topology, np.ndarray]:
    """Topology and charges, e, of a GROMACS topology, without its forces.

    Raises
    ------
    StructureError
        A file that cannot be read, or united atoms.
    """
    path = Path(top)
    reader = _reader(path, None, include_dir)
    elements, charges = _atoms(reader, path.name)
    return _with_elements(reader, elements), charges


def _coordinates(path: Path) -> tuple[app.GromacsGroFile, Any]:
    """Coordinates as OpenMM reads them, and box vectors; None for a box of no volume."""
    read_text(path)
    try:
        coordinates = app.GromacsGroFile(str(path))
        box = coordinates.getPeriodicBoxVectors()
    except Exception as error:  # the reader raises bare Exception, ValueError, IndexError ...
        raise StructureError(
            "GROMACS coordinates (.gro)",
            f"{type(error).__name__} in {path.name}: {error}",
            "write them again with gmx editconf",
        ) from error
    lengths = [vector[k].value_in_unit(unit.nanometer) for k, vector in enumerate(box)]
    return coordinates, box if min(lengths) > 0 else None


def _reader(path: Path, box: Any, include_dir: str | os.PathLike[str] | None) -> _Topology:
    """The topology with its includes.

    Raises
    ------
    StructureError
        A file that is not found or not understood, or with terms that would be missing from the energy.
    """
    read_text(path)
    reader = _Topology.__new__(_Topology)
    try:
        reader.__init__(path, box, None if not include_dir else str(include_dir))  # type: ignore[misc]
    except Exception as error:  # the reader raises bare Exception, ValueError, IndexError ...
        if isinstance(error, KeyError):
            raise StructureError(
                f"only types of atoms that {path.name} or its includes define",
                f"an atom of type {error.args[0]}",
                "include the force field's files before the molecules, and those of ligands after them",
            ) from error
        missing = "Could not locate #include" in str(error)
        raise StructureError(
            f"a GROMACS topology and the files that it includes ({path.name})",
            f"{error} (at {reader.line})",
            'write include_dir = "…/share/gromacs/top", GROMACS\'s folder of force fields, or put the file '
            "beside the topology"
            if missing
            else "mend that line, or let gmx grompp -pp write the topology as one file",
        ) from error
    if reader.passed_over:
        section, line = next(iter(reader.passed_over.items()))
        raise StructureError(
            f"sections of {path.name} that OpenMM reads",
            f"[ {section} ], which would be missing from the energy ({line})",
            "take that section out if you do not need it; write restraints as [[restraint]] in the run file",
        )
    return reader


def _atoms(reader: _Topology, name: str) -> tuple[list[app.Element | None], np.ndarray]:
    """Element and charge of every atom, by the lines of the topology.

    Raises
    ------
    StructureError
        Masses that are not those of an element.
    """
    elements: list[app.Element | None] = []
    charges: list[float] = []
    for molecule, count in reader._molecules:
        ours, theirs = [], []
        for line in reader._moleculeTypes[molecule].atoms:
            kind = reader._atomTypes[line[1]]
            ours.append(_element(line, kind, molecule, name))
            theirs.append(float(line[6] if len(line) > 6 else kind[_CHARGE]))
        elements += ours * count
        charges += theirs * count
    return elements, np.array(charges)


def _element(line: list[str], kind: list[str], molecule: str, name: str) -> app.Element | None:
    """Element of one atom; None for a virtual site."""
    mass = float(line[7] if len(line) > 7 else kind[_MASS])
    number = int(kind[_NUMBER]) if kind[_NUMBER] is not None else 0
    if mass == 0 and number == 0:
        return None
    found = app.Element.getByAtomicNumber(number) if number else app.Element.getByMass(mass)
    weight = found.mass.value_in_unit(unit.dalton) if found is not None else 0.0
    # Lighter than its element: mass was moved to its hydrogens. Without a number the name has to agree.
    united = found is not None and found.atomic_number > 1 and mass > weight + _MASS_TOLERANCE
    guessed = number == 0 and (
        found is None or abs(mass - weight) > _MASS_TOLERANCE or found.symbol[0] != line[4][:1].upper()
    )
    if united or guessed:
        raise StructureError(
            f"atoms of known elements in {name}",
            f"atom {line[4]} of molecule {molecule}, type {kind[0]}, with a mass of {mass:g} amu",
            "give [ atomtypes ] their atomic numbers"
            if not united
            else "use a force field with all hydrogens: united atoms are none that a potential knows",
        )
    return found


def _with_elements(reader: _Topology, elements: list[app.Element | None]) -> app.Topology:
    """The reader's topology with these elements, numbers of residues, and rigid bonds as bonds.

    Molecules of one residue that follow each other, such as water, share a chain.
    """
    read, made = reader.topology, app.Topology()
    made.setPeriodicBoxVectors(read.getPeriodicBoxVectors())
    chains = iter(read.chains())
    for molecule, count in reader._molecules:
        kind = reader._moleculeTypes[molecule]
        lines, shared = kind.atoms, None
        single = len({line[2] for line in lines}) == 1
        for _ in range(count):
            chain = shared if shared is not None else made.addChain()
            shared = chain if single else None
            atoms: list[app.topology.Atom] = []
            for residue in next(chains).residues():
                number = str(len(list(chain.residues())) + 1) if single else lines[len(atoms)][2]
                copy = made.addResidue(residue.name, chain, number)
                for atom in residue.atoms():
                    atoms.append(made.addAtom(atom.name, elements[made.getNumAtoms()], copy))
            pairs = {tuple(sorted(int(word) - 1 for word in bond[:2])) for bond in kind.bonds}
            pairs |= {
                (first, second)
                for first, second in (
                    sorted(int(word) - 1 for word in rigid[:2]) for rigid in kind.constraints
                )
                if not all(atoms[k].element is app.element.hydrogen for k in (first, second))
            }
            for first, second in sorted(pairs):
                made.addBond(atoms[first], atoms[second])
    return made


def _check_names(reader: _Topology, names: list[str], top: str, gro: str) -> None:
    """Make sure that both files have their atoms in one order.

    Raises
    ------
    StructureError
        The first atom with different names.
    """
    written = (
        line[4]
        for molecule, count in reader._molecules
        for line in reader._moleculeTypes[molecule].atoms * count
    )
    for place, (here, there) in enumerate(zip(written, names, strict=True), start=1):
        # Columns of a .gro hold five letters.
        if here[:5] != there[:5]:
            raise StructureError(
                "atoms in one order in topology and coordinates",
                f"atom {place} is {here} in {top} and {there} in {gro}",
                "give the coordinates that belong to the topology, in the order of its [ molecules ]",
            )
