"""Stretched bonds: atoms that were moved or belong elsewhere, and unmentioned gaps of chains."""

from __future__ import annotations

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import LONGEST_LINK, NUCLEOTIDES
from mlmm.build.gaps import describe_residue, long_links
from mlmm.build.questions import OpenQuestionError
from mlmm.errors import StructureError

_TORN = 0.3  # nm; the longest bond of a standard residue is S-S with 0.205
_LONG = 0.23  # nm
_SHOWN = 4


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


def check_links(topology: app.Topology, positions: np.ndarray, name: str) -> None:
    """Refuse bonds of a backbone longer than 0.2 nm: readers bond neighbours across unmentioned gaps.

    Raises
    ------
    StructureError
        Names the residues and the distances.
    """
    links = long_links(topology, positions)
    if not links:
        return
    first = links[0][0]
    kinds = " and ".join(dict.fromkeys(f"{one.name}-{other.name}" for one, other, _ in links))
    shown = ", ".join(
        f"{distance:.3f} nm between {describe_residue(one.residue)} and {describe_residue(other.residue)}"
        for one, other, distance in links[:_SHOWN]
    )
    more = f" and {len(links) - _SHOWN} more" if len(links) > _SHOWN else ""
    protein = first.residue.name not in NUCLEOTIDES
    write = 'gaps = "cap" (neutral ends) or gaps = "split" (charged ends)' if protein else 'gaps = "split"'
    raise OpenQuestionError(
        f"bonds {kinds} of a chain shorter than {LONGEST_LINK} nm",
        f"{shown}{more} in {name}",
        f"write {write}, or model the missing residues; a TER line after {describe_residue(first.residue)} "
        "ends the chain there",
        {"gaps": "split"},
        'gaps = "split"',
    )
