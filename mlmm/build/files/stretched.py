"""Stretched bonds: atoms that were moved or belong elsewhere, and unmentioned gaps of chains."""

from __future__ import annotations

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue
from mlmm.errors import StructureError

_TORN = 0.3  # nm; the longest bond of a standard residue is S-S with 0.205
_LONG = 0.23  # nm
_LONGEST_PEPTIDE_BOND = 0.2  # nm; 0.133 at equilibrium


def check_bonds_within_residues(topology: app.Topology, positions: np.ndarray, name: str) -> list[Decision]:
    """Refuse bonds within residues that are longer than any molecule's.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : numpy.ndarray (N, 3), nm
    name : str
        File name, for the message.

    Returns
    -------
    list of Decision
        Bonds above 0.23 nm, which a minimisation may mend.

    Raises
    ------
    StructureError
        A bond above 0.3 nm.
    """
    inside = [(a, b) for a, b in topology.bonds() if a.residue is b.residue]
    if not inside:
        return []
    pairs = np.array([(a.index, b.index) for a, b in inside])
    lengths = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    decisions = []
    for place in np.argsort(-lengths, kind="stable"):
        if lengths[place] <= _LONG:
            break
        one, other = inside[place]
        residue = f"{one.residue.name} {one.residue.id}{one.residue.insertionCode.strip()}"
        who = f"{residue} of chain {one.residue.chain.id}"
        if lengths[place] > _TORN:
            raise StructureError(
                f"bonds shorter than {_TORN} nm within a residue",
                f"{lengths[place]:.3f} nm between {one.name} and {other.name} of {who} in {name}",
                "correct the coordinates, or delete the atom so that it is placed anew",
            )
        text = f"{who}: bond {one.name}-{other.name} of {lengths[place]:.3f} nm"
        decisions.append(
            Decision("read", "bond", text, who, {"length_nm": round(float(lengths[place]), 4)}, warning=True)
        )
    return decisions


def check_peptide_bonds(topology: app.Topology, positions: np.ndarray, name: str) -> None:
    """Refuse peptide bonds longer than 0.2 nm: readers bond neighbours across unmentioned gaps.

    Raises
    ------
    StructureError
        Names both residues and the distance.
    """
    for first, second in topology.bonds():
        if first.residue is second.residue or {first.name, second.name} != {"C", "N"}:
            continue
        distance = np.linalg.norm(positions[first.index] - positions[second.index])
        if distance > _LONGEST_PEPTIDE_BOND:
            one, other = sorted((first.residue, second.residue), key=lambda residue: residue.index)
            raise StructureError(
                f"peptide bonds C-N shorter than {_LONGEST_PEPTIDE_BOND} nm",
                f"{distance:.3f} nm between {describe_residue(one)} and {describe_residue(other)} in {name}",
                'write gaps = "cap" (neutral ends) or gaps = "split" (charged ends), or model the missing '
                f"residues; a TER line after {describe_residue(one)} ends the chain there",
            )
