"""Gaps in chains: split with charged ends or capped (ACE, NME), never bonded across."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import CHAIN_LINKS, LONGEST_LINK
from mlmm.build.topology_json import set_topology_box, topology_box
from mlmm.errors import StructureError
from mlmm.short_repr import counted

__all__ = [
    "describe_residue",
    "is_link",
    "long_links",
    "mend_chains",
    "place_atom",
]

_ROOM = 0.25  # nm between a cap and what is not bonded to it; a hydrogen bond has 0.28
_WATER = "HOH"
# Ideal geometry of a peptide group (Engh and Huber, Acta Cryst. A47, 392 (1991), doi
# 10.1107/S0108767391001071), nm and degrees.
_C_N, _N_CA, _C_O, _CA_C = 0.1329, 0.1458, 0.1231, 0.1525
_C_N_CA, _CA_C_N, _N_C_O = 121.7, 116.2, 123.0
#: Torsions C-N-CA-C at which an acetyl group is tried, the usual ones first.
_PHI = (-65.0, -80.0, -95.0, -120.0, -140.0, -160.0, 60.0, 180.0, 90.0, 0.0)
#: name -> (atoms and elements, bonds inside, atom bonded to the chain)
_CAPS = {
    "ACE": ((("CH3", "C"), ("C", "C"), ("O", "O")), (("CH3", "C"), ("C", "O")), "C"),
    "NME": ((("N", "N"), ("C", "C")), (("N", "C"),), "N"),
}


@dataclass
class _Plan:
    """Where chains end and what is put there, by residue index."""

    starts: set[int] = field(default_factory=set)
    acetyl: dict[int, np.ndarray] = field(default_factory=dict)
    methylamide: dict[int, np.ndarray] = field(default_factory=dict)


def describe_residue(residue: app.topology.Residue) -> str:
    """``"ALA 12A of chain B"``."""
    chain = f" of chain {residue.chain.id}" if str(residue.chain.id).strip() else ""
    return f"{residue.name} {residue.id}{residue.insertionCode.strip()}{chain}"


def mend_chains(
    topology: app.Topology,
    positions: np.ndarray,
    missing: Iterable[tuple[int, int, Sequence[str]]],
    gaps: str,
    tails: str,
) -> tuple[app.Topology, np.ndarray, list[Decision]]:
    """End chains at their gaps; the input is not changed.

    A gap is where the sequence has residues without coordinates, or where C and N (O3' and P) of neighbours
    are further apart than 0.2 nm. No bond is drawn across. Caps (ACE before, NME after; none for nucleic
    acids) are built from ideal geometry on the residue that they belong to, an acetyl group at the torsion
    that leaves it most room.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    missing : iterable of (chain index, place in the chain, residue names)
    gaps : {"refuse", "split", "cap"}
        Under "refuse" gaps have been refused before, and none is looked for.
    tails : {"charged", "cap"}

    Returns
    -------
    topology, positions (N, 3) nm, decisions

    Raises
    ------
    StructureError
        No room for a cap, or a residue without backbone next to it.
    """
    chains = [list(chain.residues()) for chain in topology.chains()]
    inside: dict[int, str] = {}
    ends: list[tuple[app.topology.Residue, str, str]] = []
    for chain, place, names in missing:
        residues, text = chains[chain], f"{counted(len(names), 'residue')} ({'-'.join(names)})"
        if 0 < place < len(residues):
            inside[residues[place].index] = text
        elif tails == "cap":
            ends.append((residues[0], "ACE", text) if place == 0 else (residues[-1], "NME", text))
    residues = list(topology.residues())
    if gaps == "refuse":
        inside = {}
    else:
        for index in _long_bonds(topology, positions):
            inside.setdefault(index, "an unknown number of residues")
    if not inside and not ends:
        return topology, positions, []
    plan, decisions, placed = _Plan(starts=set(inside)), [], []
    for index, text in sorted(inside.items()):
        before, after = residues[index - 1], residues[index]
        nucleic = any(atom.name == "O3'" for atom in before.atoms())
        what = "two chains" if nucleic else "two chains with charged ends"
        # Nothing caps a nucleic acid.
        if gaps == "cap" and not nucleic:
            what = "two chains, capped with NME and ACE"
            placed += [(before, "NME"), (after, "ACE")]
        line = f"{text} missing between {describe_residue(before)} and {describe_residue(after)}: {what}"
        decisions.append(Decision("repair", "gap", line, describe_residue(after), warning=True))
    for residue, cap, text in ends:
        placed.append((residue, cap))
        line = f"{text} missing beyond {describe_residue(residue)}: capped with {cap}"
        decisions.append(Decision("repair", "tail", line, describe_residue(residue)))
    obstacles = _obstacles(topology, positions)
    for residue, cap in placed:
        points = _cap(residue, cap, positions, obstacles)
        (plan.acetyl if cap == "ACE" else plan.methylamide)[residue.index] = points
        obstacles = (
            np.concatenate([obstacles[0], points]),
            [*obstacles[1], *[f"another {cap}"] * len(points)],
        )
    return *_rebuilt(topology, positions, plan), decisions


def place_atom(
    one: np.ndarray, two: np.ndarray, three: np.ndarray, length: float, angle: float, torsion: float
) -> np.ndarray:
    """Position (3,) of an atom bonded to `three`, from bond length, angle to `two` and torsion to `one`.

    Parameters
    ----------
    one, two, three : ndarray, shape (3,), nm
    length : float
        nm.
    angle, torsion : float
        Degrees.
    """
    theta, phi = np.radians(angle), np.radians(torsion)
    along = (three - two) / np.linalg.norm(three - two)
    normal = np.cross(two - one, along)
    normal /= np.linalg.norm(normal)
    side = np.cross(normal, along)
    return three + length * (
        -np.cos(theta) * along + np.sin(theta) * (np.cos(phi) * side + np.sin(phi) * normal)
    )


def _long_bonds(topology: app.Topology, positions: np.ndarray) -> list[int]:
    """Residues whose bond to the one before is no bond."""
    return [second.residue.index for _, second, _ in long_links(topology, positions)]


def long_links(
    topology: app.Topology, positions: np.ndarray
) -> list[tuple[app.topology.Atom, app.topology.Atom, float]]:
    """Bonds between neighbours of a chain that are no bonds by their length in nm, in the order of the chain.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    """
    found = []
    for bond in topology.bonds():
        first, second = sorted(bond, key=lambda atom: atom.residue.index)
        if first.residue is second.residue or not is_link(first, second):
            continue
        distance = float(np.linalg.norm(positions[first.index] - positions[second.index]))
        if distance > LONGEST_LINK:
            found.append((first, second, distance))
    return sorted(found, key=lambda entry: entry[1].residue.index)


def is_link(one: app.topology.Atom, other: app.topology.Atom) -> bool:
    """Whether two atoms of neighbours are those that join a chain, by their names."""
    return any({one.name, other.name} == {*names} for names in CHAIN_LINKS)


def _obstacles(topology: app.Topology, positions: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Heavy atoms that a cap must not touch (water gives way), and who they are."""
    atoms = [
        atom
        for atom in topology.atoms()
        if atom.element not in (None, app.element.hydrogen) and atom.residue.name != _WATER
    ]
    names = [f"{atom.name} of {describe_residue(atom.residue)}" for atom in atoms]
    return positions[[atom.index for atom in atoms]], names


def _cap(
    residue: app.topology.Residue, cap: str, positions: np.ndarray, obstacles: tuple[np.ndarray, list[str]]
) -> np.ndarray:
    """Positions (M, 3) of a cap's heavy atoms on a residue.

    Raises
    ------
    StructureError
    """
    at = {atom.name: positions[atom.index] for atom in residue.atoms()}
    if not {"N", "CA", "C", "O"} <= at.keys() or "OXT" in at:
        raise StructureError(
            f"N, CA, C and O, and no OXT, in {describe_residue(residue)}, to build {cap} on it",
            " ".join(sorted(at)),
            'write gaps = "split" and tails = "charged", or complete the residue',
        )
    others = [
        i for i, name in enumerate(obstacles[1]) if not name.endswith(f" of {describe_residue(residue)}")
    ]
    best, clearance, nearest = None, -1.0, ""
    for points in _candidates(residue.name, cap, at):
        distances = np.linalg.norm(points[:, None] - obstacles[0][others][None], axis=2)
        closest = float(distances.min()) if distances.size else np.inf
        if closest > clearance:
            name = obstacles[1][others[int(distances.min(axis=0).argmin())]] if distances.size else ""
            best, clearance, nearest = points, closest, name
        if clearance > 2 * _ROOM:
            break
    if best is None or clearance < _ROOM:
        raise StructureError(
            f"room for {cap} on {describe_residue(residue)}",
            f"{clearance:.3f} nm to {nearest}",
            'write gaps = "split" (charged ends), or model the missing residues',
        )
    return best


def _candidates(name: str, cap: str, at: dict[str, np.ndarray]) -> Iterable[np.ndarray]:
    """Places of the cap's atoms: one for NME, whose plane the carbonyl group fixes, several for ACE."""
    if cap == "NME":
        nitrogen = at["C"] + _C_N * _opposite(at["C"], at["CA"], at["O"])
        yield np.array([nitrogen, place_atom(at["CA"], at["C"], nitrogen, _N_CA, _C_N_CA, 180.0)])
        return
    carbons = [place_atom(at["C"], at["CA"], at["N"], _C_N, _C_N_CA, phi) for phi in _PHI]
    if name == "PRO" and "CD" in at:
        carbons = [at["N"] + _C_N * _opposite(at["N"], at["CA"], at["CD"])]
    for carbon in carbons:
        methyl = place_atom(at["CA"], at["N"], carbon, _CA_C, _CA_C_N, 180.0)
        oxygen = place_atom(at["CA"], at["N"], carbon, _C_O, _N_C_O, 0.0)
        yield np.array([methyl, carbon, oxygen])


def _opposite(centre: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Unit vector from a trigonal atom away from its two neighbours."""
    one, other = one - centre, other - centre
    away = -(one / np.linalg.norm(one) + other / np.linalg.norm(other))
    return away / np.linalg.norm(away)


def _rebuilt(topology: app.Topology, positions: np.ndarray, plan: _Plan) -> tuple[app.Topology, np.ndarray]:
    """The topology with its chains ended and capped as planned."""
    new = app.Topology()
    atoms: dict[app.topology.Atom, app.topology.Atom] = {}
    places: list[np.ndarray] = []
    joints = []

    def add_cap(name: str, chain: app.topology.Chain, number: str, points: np.ndarray) -> app.topology.Atom:
        elements, bonds, joint = _CAPS[name]
        residue = new.addResidue(name, chain, number)
        added = {}
        for (atom, symbol), point in zip(elements, points, strict=True):
            added[atom] = new.addAtom(atom, app.element.get_by_symbol(symbol), residue)
            places.append(point)
        for one, other in bonds:
            new.addBond(added[one], added[other])
        return added[joint]

    for old_chain in topology.chains():
        chain = new.addChain(old_chain.id)
        for position, old in enumerate(old_chain.residues()):
            if old.index in plan.starts and position:
                chain = new.addChain(old_chain.id)
            if old.index in plan.acetyl:
                joint = add_cap("ACE", chain, _neighbour(old.id, -1), plan.acetyl[old.index])
                joints.append((joint, old, "N"))
            residue = new.addResidue(old.name, chain, old.id, old.insertionCode)
            for atom in old.atoms():
                atoms[atom] = new.addAtom(atom.name, atom.element, residue, atom.id, atom.formalCharge)
                places.append(positions[atom.index])
            if old.index in plan.methylamide:
                joint = add_cap("NME", chain, _neighbour(old.id, 1), plan.methylamide[old.index])
                joints.append((joint, old, "C"))
    for bond in topology.bonds():
        first, second = sorted((bond[0].residue.index, bond[1].residue.index))
        across = first != second and second in plan.starts and is_link(*bond)
        if not across:
            new.addBond(atoms[bond[0]], atoms[bond[1]], bond.type, bond.order)
    for joint, old, name in joints:
        new.addBond(joint, atoms[next(atom for atom in old.atoms() if atom.name == name)])
    set_topology_box(new, topology_box(topology))
    return new, np.array(places)


def _neighbour(number: str, step: int) -> str:
    try:
        return str(int(number) + step)
    except ValueError:
        return number
