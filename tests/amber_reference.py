"""Topologies by other programs (LEaP of AmberTools, CHARMM's own files by ParmEd), energies by sander."""

from __future__ import annotations

import copy
import itertools
import math
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
import parmed
from openmm import app, unit

from mlmm.build.parametrise import load_force_field

#: Coulomb's constant, kcal/mol A/e^2: of Amber (18.2223^2) and of CHARMM files in sander.
AMBER, CHARMM = 18.2223**2, 332.0716
OPENMM = 138.93545764438198 / 0.4184  # kJ/mol nm/e^2 of openmm 8, in these units
LEAP_PI = 3.141594  # LEaP turns degrees into radians with it
KCAL = 4.184

TERMS = ("bonds", "angles", "torsions", "lennard_jones", "coulomb", "others")
OTHERS = ("urey_bradley", "impropers", "cmap")
_TERM = {
    "HarmonicBondForce": "bonds",
    "HarmonicAngleForce": "angles",
    "PeriodicTorsionForce": "torsions",
    "RBTorsionForce": "torsions",
    "uncharged": "lennard_jones",
    "LennardJones": "lennard_jones",
    "LennardJones14": "lennard_jones",
    "CustomNonbondedForce": "lennard_jones",  # ParmEd's, where pairs have parameters of their own
    "NonbondedForce": "coulomb",
    "springs": "urey_bradley",
    "CMAPTorsionForce": "cmap",
    "CustomTorsionForce": "impropers",
}

MDIN = """energies of one structure, every pair
 &cntrl
  imin=0, nstlim=0, ntb=0, cut=9999.0, igb=6,
 /
 &debugf
  do_debugf=1, dumpfrc=1,
 /
"""
#: Caps of chains: OpenMM's names of atoms -> LEaP's.
_CAP = {"HH31": "H1", "HH32": "H2", "HH33": "H3"}
_CAPS = {"ACE": _CAP, "NME": _CAP | {"CH3": "C"}}


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


@dataclass(frozen=True)
class Named:
    """A residue with the name of its template and of that template's atoms, by index."""

    residue: app.topology.Residue
    template: str
    atoms: dict[int, str]


def named_residues(built, chosen=None) -> list[Named]:
    """The templates that OpenMM's force-field files have for a built system."""
    force_field = load_force_field(built.provenance["forcefield_files"])
    data = app.ForceField._SystemData(built.topology)
    templates = force_field._matchAllResiduesToTemplates(data, built.topology, chosen or {}, False)
    found = []
    for residue in built.topology.residues():
        template = templates[residue] if isinstance(templates, dict) else templates[residue.index]
        places = {a.index: data.atomTemplateIndexes[a] for a in residue.atoms()}
        found.append(Named(residue, template.name, {i: template.atoms[j].name for i, j in places.items()}))
    return found


def geometry(built) -> np.ndarray:
    """Positions with the geometry of rigid water, to the digits of a coordinate file."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(built.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(built.positions)
    context.applyConstraints(1e-12)
    places = context.getState(positions=True).getPositions(asNumpy=True)._value
    context.setPositions(np.round(places, 8))
    context.computeVirtualSites()
    return context.getState(positions=True).getPositions(asNumpy=True)._value


def by_leap(folder: Path, built, sources, chosen=None) -> tuple[parmed.amber.AmberParm, np.ndarray]:
    """What LEaP makes of the same residues, from a PDB file as users load it.

    Returns the topology, with pi in its angles and phases, and the index of each of its atoms in `built`.
    """
    rows = named_residues(built, chosen)
    told = {residue.index for residue in chosen or {}}
    joined = set()
    for one, other in built.topology.bonds():
        ends = (one.name, other.name)
        if ends in (("C", "N"), ("O3'", "P")) and one.residue.index + 1 == other.residue.index:
            joined.add(other.residue.index)
    lines, leap = [], [f"source {source}" for source in sources]
    names: dict[tuple[int, str], int] = {}
    for row in rows:
        number, name = row.residue.index, row.template
        if number not in joined:
            lines.append("TER")
        if len(name) == 4 and number not in told:
            name = name[1:]  # NGLY, CGLU: LEaP sees where a chain ends
        name = {"HOH": "WAT"}.get(name, name)
        for index, atom in row.atoms.items():
            atom = _CAPS.get(row.template, {}).get(atom, atom)
            names[number, atom] = index
            if atom == "M":  # LEaP adds it
                names[number, "EPW"] = index
                continue
            column = atom if len(atom) == 4 else f" {atom:<3s}"
            x, y, z = 10 * built.positions[index]
            place = f"{x:8.3f}{y:8.3f}{z:8.3f}"
            lines.append(f"ATOM  {1:5d} {column} {name:<3s} A{number + 1:4d}    {place}  1.00  0.00")
    leap.append("system = loadpdb in.pdb")
    spelled = {index: name for (_, name), index in names.items()}
    for one, other in built.topology.bonds():
        numbers = sorted((one.residue.index, other.residue.index))
        if numbers[0] != numbers[1] and not (numbers[0] + 1 == numbers[1] and numbers[1] in joined):
            ends = (f"system.{a.residue.index + 1}.{spelled[a.index]}" for a in (one, other))
            leap.append(f"bond {' '.join(ends)}")
    leap += ["saveamberparm system leap.parm7 leap.rst7", "quit"]
    (folder / "in.pdb").write_text("\n".join([*lines[1:], "END"]) + "\n")
    (folder / "leap.in").write_text("\n".join(leap) + "\n")
    subprocess.run([program("tleap"), "-f", "leap.in"], cwd=folder, check=True, capture_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.load_file(str(folder / "leap.parm7"))
    for kind in structure.angle_types:
        kind.theteq *= math.pi / LEAP_PI
    for kind in structure.dihedral_types:
        kind.phase *= math.pi / LEAP_PI
    order = np.array([names[atom.residue.idx, atom.name] for atom in structure.atoms])
    assert sorted(order) == list(range(built.n_atoms))
    return structure, order


def torsions(system, bonded, order=None) -> tuple[Counter, Counter, dict]:
    """Proper torsions; impropers as centre and set of its three neighbours; the order of those."""
    force = next(f for f in system.getForces() if isinstance(f, openmm.PeriodicTorsionForce))
    proper, improper, orders = Counter(), Counter(), {}
    for i in range(force.getNumTorsions()):
        *atoms, period, phase, k = force.getTorsionParameters(i)
        if abs(k._value) < 1e-9:
            continue
        atoms = tuple(int(order[a]) if order is not None else a for a in atoms)
        values = (period, round(phase._value % (2 * math.pi), 5), round(k._value, 5))
        if all(frozenset(pair) in bonded for pair in itertools.pairwise(atoms)):
            proper[min(atoms, atoms[::-1]), *values] += 1
        else:
            centre = next(a for a in atoms if all(frozenset((a, b)) in bonded for b in atoms if b != a))
            key = (centre, frozenset(atoms))
            improper[key, *values] += 1
            orders[key] = atoms
    return proper, improper, orders


def reordered(structure, order, wanted: dict) -> int:
    """Give LEaP's impropers the order of atoms of `wanted`; returns how many had another one."""
    back = {int(ours): atom for ours, atom in zip(order, structure.atoms, strict=True)}
    changed = 0
    for term in structure.dihedrals:
        if term.improper:
            atoms = tuple(int(order[a.idx]) for a in (term.atom1, term.atom2, term.atom3, term.atom4))
            new = wanted.get((atoms[2], frozenset(atoms)), atoms)  # some have no energy
            changed += atoms not in (new, new[::-1])
            term.atom1, term.atom2, term.atom3, term.atom4 = (back[i] for i in new)
    return changed


def by_sander(folder: Path, structure, positions: np.ndarray, constant: float) -> dict[str, float]:
    """Energies in kJ/mol by sander, with OpenMM's Coulomb constant; `others` is all that is not listed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure.coordinates = 10 * positions
        structure.save(str(folder / "sander.parm7"), overwrite=True)
        structure.save(str(folder / "sander.rst7"), format="rst7", overwrite=True)
    (folder / "mdin").write_text(MDIN)
    (folder / "forcedump.dat").unlink(missing_ok=True)
    command = "-O -i mdin -p sander.parm7 -c sander.rst7 -o sander.out"
    subprocess.run([program("sander"), *command.split()], cwd=folder, check=True, capture_output=True)
    lines = (folder / "forcedump.dat").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "START of Energies" in line)
    total, lj, coulomb, _, bonds, angles, dihedrals, lj14, coulomb14 = map(
        float, lines[start + 1 : start + 10]
    )
    known = lj + coulomb + bonds + angles + dihedrals + lj14 + coulomb14
    return {
        "bonds": bonds * KCAL,
        "angles": angles * KCAL,
        "torsions": dihedrals * KCAL,
        "lennard_jones": (lj + lj14) * KCAL,
        "coulomb": (coulomb + coulomb14) * KCAL * OPENMM / constant,
        "others": (total - known) * KCAL,
    }


def by_openmm(system, positions: np.ndarray, bonded) -> dict[str, float]:
    """The same terms of an OpenMM System, every pair counted, kJ/mol; `others` are also given one by one."""
    system = openmm.XmlSerializer.clone(system)
    springs, uncharged = openmm.HarmonicBondForce(), None
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
            uncharged = copy.deepcopy(force)
        elif isinstance(force, openmm.HarmonicBondForce):
            for i in range(force.getNumBonds()):
                first, second, length, k = force.getBondParameters(i)
                if frozenset((first, second)) not in bonded:
                    springs.addBond(first, second, length, k)
                    force.setBondParameters(i, first, second, length, 0.0)
    for i in range(uncharged.getNumParticles()):
        uncharged.setParticleParameters(i, 0.0, *uncharged.getParticleParameters(i)[1:])
    for i in range(uncharged.getNumExceptions()):
        first, second, _, sigma, epsilon = uncharged.getExceptionParameters(i)
        uncharged.setExceptionParameters(i, first, second, 0.0, sigma, epsilon)
    springs.setName("springs")
    uncharged.setName("uncharged")
    system.addForce(springs)
    system.addForce(uncharged)
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions * unit.nanometer)
    found = dict.fromkeys((*TERMS, *OTHERS), 0.0)
    for group, force in enumerate(system.getForces()):
        energy = context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        name = _TERM.get(force.getName(), "")
        if name:
            found[name] += energy
            found["others"] += energy if name in OTHERS else 0.0
        else:
            assert isinstance(force, openmm.CMMotionRemover), force
        if force.getName() == "uncharged":
            found["coulomb"] -= energy
    return found
