"""Tautomers of neutral histidine, chosen by the hydrogen bonds of their surroundings."""

from __future__ import annotations

import numpy as np
from openmm import app

__all__ = ["tautomer_score"]

_LONGEST = 0.35  # nm between the heavy atoms of a hydrogen bond
_FULL = 0.30  # nm: nearer ones count in full
_METAL = 0.28  # nm from a nitrogen to a metal ion that it binds
_METAL_WEIGHT = 10.0
_RING = {"ND1": ("CG", "CE1"), "NE2": ("CD2", "CE1")}
#: Atoms of amino acids that only give, and that give or take; all other oxygens and nitrogens take.
_GIVERS = {"N", "NZ", "NE", "NH1", "NH2", "ND2", "NE1"}
_BOTH = {"OG", "OG1", "OH"}
_METALS = {"Zn", "Fe", "Mg", "Ca", "Mn", "Co", "Ni", "Cu", "Cd", "Na", "K"}


def tautomer_score(topology: app.Topology, positions: np.ndarray, residue: app.topology.Residue) -> float:
    """How much better a histidine's neighbours suit a hydrogen on ND1 (HID) than on NE2 (HIE).

    Each neighbour within 0.35 nm counts by distance and by the square of the cosine to the direction in
    which a hydrogen would point: acceptors for a hydrogen on that nitrogen, donors and metals against it.
    Hydroxyl groups and water can do both and count nothing.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    residue : Residue
        A histidine with its ring complete.

    Returns
    -------
    float
        Above zero for HID.
    """
    return _wish(topology, positions, residue, "ND1") - _wish(topology, positions, residue, "NE2")


def _wish(topology: app.Topology, positions: np.ndarray, residue: app.topology.Residue, name: str) -> float:
    """Weighted number of acceptors minus donors around one nitrogen."""
    own = {atom.name: positions[atom.index] for atom in residue.atoms()}
    place = own[name]
    outwards = 2 * place - own[_RING[name][0]] - own[_RING[name][1]]
    outwards = outwards / np.linalg.norm(outwards)
    distances = np.linalg.norm(positions - place, axis=1)
    atoms = list(topology.atoms())
    wish = 0.0
    for index in np.flatnonzero(distances < _LONGEST):
        atom, distance = atoms[index], float(distances[index])
        if atom.residue is residue or atom.element is None:
            continue
        cosine = float(np.dot(positions[index] - place, outwards)) / distance
        if cosine <= 0:
            continue
        if atom.element.symbol in _METALS:
            wish -= _METAL_WEIGHT * (distance < _METAL)
        else:
            near = min(1.0, (_LONGEST - distance) / (_LONGEST - _FULL))
            wish += _role(atom) * near * cosine**2
    return wish


def _role(atom: app.topology.Atom) -> int:
    """1 for an acceptor, −1 for a donor, 0 for what is neither or both."""
    symbol, residue = atom.element.symbol, atom.residue.name
    if symbol not in ("O", "N") or residue == "HOH":
        return 0
    amino_acid = any(other.name == "CA" for other in atom.residue.atoms())
    if not amino_acid:
        return 1 if symbol == "O" else 0
    if (
        atom.name in _BOTH
        or (residue, atom.name) == ("PRO", "N")
        or (residue == "HIS" and atom.name in _RING)
    ):
        return 0
    if atom.name in _GIVERS or (residue == "GLN" and atom.name == "NE2"):
        return -1
    return 1
