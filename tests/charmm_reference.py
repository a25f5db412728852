"""A structure with the parameters of CHARMM's own files, by ParmEd: nothing of OpenMM's force fields."""

from __future__ import annotations

import itertools
import sys
import warnings
from pathlib import Path

import parmed

#: CHARMM36 of 2012 as AmberTools ships it.
FOLDER = Path(sys.prefix) / "dat" / "chamber"
FILES = ("top_all36_prot.rtf", "par_all36_prot.prm", "toppar_water_ions.str")


def topology_tables() -> dict[str, dict]:
    """Residues and patches of the topology files: types and charges, impropers, maps."""
    found: dict[str, dict] = {}
    for name in (FILES[0], FILES[2]):
        current = None
        for line in (FOLDER / name).read_text(encoding="latin-1").splitlines():
            words = line.split("!")[0].split()
            key = words[0].upper() if words else ""
            if key in ("RESI", "PRES"):
                current = found[words[1]] = {"atoms": {}, "impropers": [], "maps": []}
            elif current is None or not key:
                continue
            elif key == "ATOM":
                current["atoms"][words[1]] = (words[2], float(words[3]))
            elif key[:4] in ("IMPR", "IMPH"):
                current["impropers"] += [tuple(words[i : i + 4]) for i in range(1, len(words), 4)]
            elif key == "CMAP":
                current["maps"].append(tuple(words[1:9]))
    return found


def by_charmm(built, rows, pairs=()) -> parmed.charmm.CharmmPsfFile:
    """The built system's atoms and bonds with CHARMM's types, charges, impropers and maps.

    Parameters
    ----------
    built : BuiltSystem
    rows : list of Named
        Its residues with the names of CHARMM.
    pairs : sequence of tuple
        Types of two atoms with a Lennard-Jones pair of their own: depth in kcal/mol, minimum in angstrom.
    """
    tables, psf = topology_tables(), parmed.charmm.CharmmPsfFile()
    # Patches of OpenMM's files count their residues: NTER_1.
    parts = [[name.split("_")[0] for name in row.template.split("-")] for row in rows]
    where = {}
    for row, names in zip(rows, parts, strict=True):
        known = {atom: values for name in names for atom, values in tables[name]["atoms"].items()}
        for atom in row.residue.atoms():
            kind, charge = known[row.atoms[atom.index]]
            element = atom.element
            made = parmed.Atom(
                name=row.atoms[atom.index],
                type=kind,
                charge=charge,
                mass=element.mass._value,
                atomic_number=element.atomic_number,
            )
            psf.add_atom(made, names[0], row.residue.index + 1, "A")
            where[row.residue.index, made.name] = made
    for one, other in built.topology.bonds():
        psf.bonds.append(parmed.Bond(psf.atoms[one.index], psf.atoms[other.index]))
    for atom in psf.atoms:
        for one, other in itertools.combinations(atom.bond_partners, 2):
            psf.angles.append(parmed.Angle(one, atom, other))
    for bond in list(psf.bonds):
        for one, other in itertools.product(bond.atom1.bond_partners, bond.atom2.bond_partners):
            if one is not bond.atom2 and other is not bond.atom1 and one is not other:
                psf.dihedrals.append(parmed.Dihedral(one, bond.atom1, bond.atom2, other))
    for row, names in zip(rows, parts, strict=True):
        for name, kind in itertools.product(names, ("impropers", "maps")):
            for spelled in tables[name][kind]:
                atoms = [where.get(_place(row.residue.index, atom)) for atom in spelled]
                if all(atoms) and kind == "impropers":
                    psf.impropers.append(parmed.Improper(*atoms))
                elif all(atoms):
                    psf.cmaps.append(parmed.Cmap(*atoms[:4], atoms[7]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parameters = parmed.charmm.CharmmParameterSet(*(str(FOLDER / name) for name in FILES))
        for one, other, depth, minimum in pairs:
            parameters.nbfix_types[one, other] = parameters.nbfix_types[other, one] = (-depth, minimum)
            known = parameters.atom_types_str
            known[one].add_nbfix(other, minimum, depth, minimum, depth)
            known[other].add_nbfix(one, minimum, depth, minimum, depth)
        psf.load_parameters(parameters)
    return psf


def _place(residue: int, atom: str) -> tuple[int, str]:
    """Residue and name of an atom such as +N, in the next residue."""
    shift = {"+": 1, "-": -1}.get(atom[0], 0)
    return residue + shift, atom.lstrip("+-")
