"""Sanity checks of a structure: units, clashes, handedness, occupancies, metals, disulfides, truncation."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import (
    BINDING_METALS,
    METALS,
    AtomRecord,
    StructureFile,
    coordinates,
    describe,
    describe_key,
    is_hydrogen,
    is_polymer,
    residues,
)
from mlmm.build.questions import OpenQuestionError, removal_key, without
from mlmm.errors import StructureError
from mlmm.neighbours import pairs_within

_CLASH = 0.05  # nm; half a C-H bond, so only a duplicate or a broken file comes closer
_LARGEST = 100.0  # nm; no builder fills a box of this size, and float32 coordinates become coarse
_BONDED = 0.06  # nm; neighbours in a file are bonded, 0.1 to 0.2 nm
_METAL_BOND = 0.3  # nm
_COORDINATION = 0.28  # nm; Zn-S has 0.23, atoms beyond the first shell begin at 0.29
_WILL_OPEN = "; such a site of four tends to open, as an ion without bonds takes up water"
_MAY_CHANGE = "; its coordination may change in a simulation"
_TETRAHEDRAL = ("ZN", "CD", "HG", "FE", "CO", "NI", "CU")
_DISULFIDE = 0.3  # nm; 0.205 at equilibrium
_MANY = 0.5


def check_place(file: StructureFile, atoms: list[AtomRecord]) -> tuple[list[AtomRecord], list[Decision]]:
    """Check that coordinates are in angstrom, near the origin, and that no two atoms coincide.

    Returns
    -------
    atoms, decisions
        The atoms moved to the origin where they lay further than 100 nm from it.

    Raises
    ------
    StructureError
    """
    positions = coordinates(atoms)
    if len(atoms) > 1 and not np.ptp(positions, axis=0).any():
        raise StructureError(
            "atoms at different places",
            f"all {len(atoms)} atoms of {file.name} at {np.round(10 * positions[0], 3).tolist()} angstrom",
            "give a file with coordinates; this one has place-holders",
        )
    _check_unit(file, atoms, positions)
    extent = np.ptp(positions, axis=0)
    if extent.max() > _LARGEST:
        centre = np.median(positions, axis=0)
        far = int(((positions - centre) ** 2).sum(axis=1).argmax())
        raise StructureError(
            f"a structure smaller than {_LARGEST:g} nm",
            f"{extent.max():.1f} nm from end to end in {file.name}; {_who(atoms[far])} in "
            f"{file.where(atoms[far])} is {np.linalg.norm(positions[far] - centre):.1f} nm from the middle",
            "correct the coordinates, or choose the chains that lie together",
        )
    _check_clashes(file, atoms, positions)
    centre = positions.mean(axis=0)
    if np.linalg.norm(centre) <= _LARGEST:
        return atoms, []
    shift = -np.round(centre, 4)
    moved = [
        atom._replace(x=x, y=y, z=z)
        for atom, (x, y, z) in zip(atoms, (positions + shift).tolist(), strict=True)
    ]
    text = (
        f"the structure lay {np.linalg.norm(centre):.1f} nm from the origin and was moved there by "
        f"{shift.tolist()} nm: single precision is too coarse so far out"
    )
    return moved, [Decision("read", "place", text, numbers={"shift_nm": shift.tolist()}, warning=True)]


def _who(atom: AtomRecord) -> str:
    return f"{atom.name} of {describe_key(atom.residue_name, atom.key)}"


def _check_unit(file: StructureFile, atoms: list[AtomRecord], positions: np.ndarray) -> None:
    """Neighbours in a residue are about a bond apart; ten times less means nanometres."""
    steps = [
        float(np.linalg.norm(positions[i + 1] - positions[i]))
        for i, (one, other) in enumerate(pairwise(atoms))
        if one.key == other.key and one.residue_name == other.residue_name
    ]
    if len(steps) >= 3 and np.median(steps) < _BONDED:
        raise StructureError(
            "coordinates in angstrom",
            f"{file.name} with neighbouring atoms {10 * np.median(steps):.3f} angstrom apart, like one in nm",
            "multiply the coordinates by 10",
        )


def _check_clashes(file: StructureFile, atoms: list[AtomRecord], positions: np.ndarray) -> None:
    """Two atoms nearer than 0.05 nm: a duplicate, or a broken file."""
    order = np.argsort(positions[:, 0], kind="stable")
    swept = positions[order]
    for shift in range(1, len(swept)):
        difference = swept[shift:] - swept[:-shift]
        if not (difference[:, 0] < _CLASH).any():
            return
        close = np.flatnonzero((difference**2).sum(axis=1) < _CLASH**2)
        if len(close):
            first, second = sorted((order[close[0]], order[close[0] + shift]))
            distance = np.linalg.norm(positions[first] - positions[second])
            expected = f"atoms at least {_CLASH} nm apart"
            got = (
                f"{distance:.4f} nm between {_who(atoms[first])} in {file.where(atoms[first])} and "
                f"{_who(atoms[second])} in {file.where(atoms[second])} of {file.name}"
            )
            water = next((a for a in (atoms[second], atoms[first]) if a.residue_name == "HOH"), None)
            if water is None:
                raise StructureError(expected, got, "delete one of them or correct its coordinates")
            key, who = removal_key(water.residue_name, *water.key), describe_key("HOH", water.key)
            do = f"leave the water out: {without([key])}, or correct the coordinates"
            raise OpenQuestionError(expected, got, do, {"remove": [key]}, f"without {who}")


def look_over(file: StructureFile, atoms: list[AtomRecord]) -> list[Decision]:
    """Check handedness and disulfides; report zero occupancies and metals.

    Raises
    ------
    StructureError
        A mirror image, or a cysteine named CYX without a partner.
    """
    groups = list(residues(atoms))
    return [
        *_handedness(file, groups),
        *_occupancies(file, atoms),
        *_metals(atoms),
        *_disulfides(file, groups),
    ]


def handedness(group: list[AtomRecord]) -> float:
    """Signed volume of N, C and CB about CA, nm³: positive for L amino acids, 0 without those atoms.

    The triple product (N - CA) · [(C - CA) × (CB - CA)], 0.0026 nm³ for an ideal L residue.
    """
    at = {atom.name: np.array([atom.x, atom.y, atom.z]) for atom in group}
    if not {"N", "CA", "C", "CB"} <= set(at):
        return 0.0
    return float(np.dot(at["N"] - at["CA"], np.cross(at["C"] - at["CA"], at["CB"] - at["CA"])))


def _handedness(file: StructureFile, groups: list[list[AtomRecord]]) -> list[Decision]:
    """Refuse a mirror image and report D residues: force fields do not see handedness."""
    volumes = [(group, handedness(group)) for group in groups if is_polymer(group)]
    volumes = [(group, volume) for group, volume in volumes if volume]
    wrong = [group for group, volume in volumes if volume < 0]
    if len(wrong) > _MANY * len(volumes):
        raise StructureError(
            "L amino acids",
            f"{len(wrong)} of {len(volumes)} alpha carbons in {file.name} with D configuration, a mirror "
            f"image (first {describe(wrong[0])} in {file.where(wrong[0][0])})",
            "change the sign of one coordinate of every atom, or name D residues as such with a ligand file",
        )
    return [
        Decision(
            "read",
            "chirality",
            f"{describe(group)} has D configuration at its alpha carbon ({file.where(group[0])})",
            describe(group),
            warning=True,
        )
        for group in wrong
    ]


def _occupancies(file: StructureFile, atoms: list[AtomRecord]) -> list[Decision]:
    """Report atoms of occupancy zero: placed by a program, not seen in the density."""
    heavy = [atom for atom in atoms if not is_hydrogen(atom)]
    zero = [atom for atom in heavy if atom.occupancy <= 0]
    if not zero:
        return []
    if len(zero) == len(heavy):
        return [Decision("read", "occupancy", "all occupancies are zero: taken as not given")]
    names = list(dict.fromkeys(describe_key(atom.residue_name, atom.key) for atom in zero))
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    text = f"{len(zero)} atoms with occupancy zero, modelled but not observed, in {shown}"
    return [Decision("read", "occupancy", text, numbers={"atoms": len(zero)}, warning=True)]


def _metals(atoms: list[AtomRecord]) -> list[Decision]:
    """Report metals, which are charged spheres in these force fields: only charge holds their ligands."""
    decisions = []
    metals = [atom for atom in atoms if atom.element in METALS]
    donors = [atom for atom in atoms if atom.element in ("N", "O", "S", "SE", "F", "CL")]
    pairs = pairs_within(coordinates(metals), coordinates(donors), _METAL_BOND)
    sizes = Counter((atom.key, atom.residue_name) for atom in atoms)
    for index, metal in enumerate(metals):
        partners = [donors[j] for i, j in pairs if i == index and donors[j].key != metal.key]
        if not partners and metal.element not in BINDING_METALS:
            continue
        bound = sum(_apart(metal, partner) < _COORDINATION for partner in partners)
        shown = [f"{_who(partner)} ({_apart(metal, partner):.3f} nm)" for partner in partners[:8]]
        names = ", ".join(shown) or "nothing within 0.3 nm"
        who = describe_key(metal.residue_name, metal.key)
        if sizes[metal.key, metal.residue_name] > 1:
            text = f"{metal.name} of {who}, near it {names}: it needs parameters of its own, as prmtop"
        else:
            text = f"{who} is held by charge alone, without bonds; near it {names}"
            if partners and metal.element in BINDING_METALS:
                text += _WILL_OPEN if bound == 4 and metal.element in _TETRAHEDRAL else _MAY_CHANGE
                text += ': write metals = "restrain" in [system], or give a bonded model as prmtop'
        decisions.append(Decision("read", "metal", text, who, {"partners": len(partners)}, warning=True))
    return decisions


def _apart(one: AtomRecord, other: AtomRecord) -> float:
    return float(np.linalg.norm([one.x - other.x, one.y - other.y, one.z - other.z]))


def _disulfides(file: StructureFile, groups: list[list[AtomRecord]]) -> list[Decision]:
    """Sulfurs of cysteines that are bonded, by distance; a residue named CYX must have a partner."""
    sulfurs = [
        (group, atom)
        for group in groups
        if group[0].residue_name in ("CYS", "CYX", "CYM")
        for atom in group
        if atom.name == "SG"
    ]
    points = coordinates(atom for _, atom in sulfurs)
    decisions, bonded = [], set()
    for i, j in pairs_within(points, points, _DISULFIDE):
        if i != j:
            bonded.add(int(i))
        if i < j:
            distance = float(np.linalg.norm(points[i] - points[j]))
            one, other = describe(sulfurs[i][0]), describe(sulfurs[j][0])
            text = f"disulfide {one} - {other}, {distance:.3f} nm"
            decisions.append(Decision("read", "disulfide", text, one, {"distance_nm": round(distance, 4)}))
    for index, (group, _) in enumerate(sulfurs):
        if group[0].residue_name == "CYX" and index not in bonded:
            raise StructureError(
                f"another sulfur within {_DISULFIDE} nm of a cysteine named CYX",
                f"none near {describe(group)} in {file.where(group[0])} of {file.name}",
                "name the residue CYS, or keep the chain with its partner",
            )
    return decisions


def check_ended(
    file: StructureFile, last: list[AtomRecord], expected: int, missing_at_end: int
) -> list[Decision]:
    """Refuse a file that ends early: without END and without the rest of its sequence.

    Parameters
    ----------
    file : StructureFile
    last : list of AtomRecord
        Last residue of the last chain in the file.
    expected, missing_at_end : int
        Residues in the sequence of that chain, and how many of them have no coordinates behind the last.

    Raises
    ------
    StructureError
        Nothing ends the file and a fifth of the sequence or more is missing behind its last residue.
    """
    if file.ended:
        return []
    if missing_at_end > max(1, 0.2 * expected):
        raise StructureError(
            "a file that ends with TER or END",
            f"{file.name}, which ends in {file.where(last[-1])} with {describe(last)} where {missing_at_end} "
            f"of {expected} residues of its sequence are still to come",
            "download or copy the file again; if it is complete, write END as its last line",
        )
    where = f"{describe(last)} in {file.where(last[-1])}"
    text = f"no TER or END behind {where}: if the file was cut, the rest is missing"
    return [Decision("read", "end", text, warning=True)]


def check_all_chains(file: StructureFile) -> list[Decision]:
    """Refuse a file without any atom of a chain of its sequence.

    Raises
    ------
    StructureError
        There are some, and nothing ends the file.
    """
    present = {atom.chain for atom in file.atoms}
    absent = [chain for chain in file.sequences if chain and chain not in present]
    if not absent or present == {""}:
        return []
    shown = ", ".join(absent)
    if not file.ended:
        raise StructureError(
            "a file that ends with TER or END",
            f"{file.name} without atoms of chain {shown} of its sequence",
            "download or copy the file again; if it is complete, write END as its last line",
        )
    return [
        Decision("read", "sequence", f"no atoms of chain {shown} of the sequence in the file", warning=True)
    ]
