"""Protonation of cysteines and histidines that bind a metal: the atom at the metal carries no proton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import BINDING_METALS
from mlmm.build.gaps import describe_residue
from mlmm.build.metal_sites import REACH as ELEMENT_REACH
from mlmm.build.templates import TemplateGraphs, bonded_atoms
from mlmm.errors import StructureError
from mlmm.neighbours import pairs_within

__all__ = ["REACH", "metal_states"]

#: nm: thiolates and imidazoles at a metal.
REACH = {"SG": ELEMENT_REACH["S"], "ND1": ELEMENT_REACH["N"], "NE2": ELEMENT_REACH["N"]}
#: Atom at the metal -> state in which it has no proton.
_STATES = {"SG": "CYM", "ND1": "HIE", "NE2": "HID"}


def metal_states(
    topology: app.Topology,
    positions: np.ndarray,
    force_field: app.ForceField,
    decided: Mapping[int, str],
) -> tuple[dict[int, str], list[Decision]]:
    """States of the cysteines and histidines at metals, by the atom near it: CYM, HIE (ND1), HID (NE2).

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    force_field : openmm.app.ForceField
        Where it has no thiolate, as at the ends of Amber's chains, the cysteine stays neutral.
    decided : mapping of residue index to str
        By the user or by names in the file; these stay, with a warning if they put a proton at the metal.

    Raises
    ------
    StructureError
        A histidine between two metals, whose state only the user can decide.
    """
    atoms = list(topology.atoms())
    known = [atom for atom in atoms if atom.element is not None]
    metals = [atom for atom in known if atom.element.symbol.upper() in BINDING_METALS]
    donors = [
        atom
        for atom in atoms
        if (atom.name, atom.residue.name) in (("SG", "CYS"), ("ND1", "HIS"), ("NE2", "HIS"))
    ]
    if not metals or not donors:
        return {}, []
    bonded = bonded_atoms(topology)
    points = positions[[a.index for a in metals]], positions[[a.index for a in donors]]
    near: dict[app.topology.Residue, dict[str, tuple[app.topology.Atom, float]]] = {}
    for i, j in pairs_within(*points, max(REACH.values())):
        distance = float(np.linalg.norm(points[0][i] - points[1][j]))
        if distance <= REACH[donors[j].name]:
            near.setdefault(donors[j].residue, {})[donors[j].name] = (metals[i], distance)
    states: dict[int, str] = {}
    decisions = []
    graphs = TemplateGraphs(force_field)
    for residue, ends in sorted(near.items(), key=lambda item: item[0].index):
        who = describe_residue(residue)
        if len(ends) > 1 and residue.index not in decided:
            raise StructureError(
                "a histidine with one nitrogen at a metal",
                f"{who} between {' and '.join(describe_residue(m.residue) for m, _ in ends.values())}",
                "an imidazolate needs parameters of its own (prmtop = …); to accept a proton at one of them, "
                f'write protonate = {{"{residue.chain.id}:{residue.name}{residue.id}" = "HIE"}}',
            )
        name, (metal, distance) = next(iter(ends.items()))
        where = f"{name} {distance:.3f} nm from {describe_residue(metal.residue)}"
        state, now = _STATES[name], decided.get(residue.index)
        proton = _has_proton(residue, name, bonded, atoms)
        problem = ""
        if now is not None and now not in (state, "CYX"):
            problem = f"stays {now}, which puts a proton at the metal"
        elif now is None and proton:
            problem = "keeps the proton that the file has at the metal"
        elif now is None and state == "CYM" and not _has_thiolate(graphs, residue, bonded):
            problem = "stays neutral: the force field has no thiolate for its place in the chain"
        elif now is None and not (name == "SG" and _bonded_outside(residue, name, bonded)):
            states[residue.index] = state
        numbers = {"distance_nm": round(distance, 4)}
        if problem:
            text = f"{who} {problem} ({where})"
            decisions.append(Decision("protonate", "metal", text, who, numbers, warning=True))
        elif residue.index in states:
            decisions.append(Decision("protonate", "metal", f"{who} is {state}: {where}", who, numbers))
    return states, decisions


def _atom(residue: app.topology.Residue, name: str) -> app.topology.Atom:
    return next(atom for atom in residue.atoms() if atom.name == name)


def _has_proton(residue: app.topology.Residue, name: str, bonded: Sequence, atoms: Sequence) -> bool:
    neighbours = (atoms[i] for i in bonded[_atom(residue, name).index])
    return any(atom.element == app.element.hydrogen for atom in neighbours)


def _bonded_outside(residue: app.topology.Residue, name: str, bonded: Sequence) -> bool:
    inside = {atom.index for atom in residue.atoms()}
    return any(i not in inside for i in bonded[_atom(residue, name).index])


def _has_thiolate(graphs: TemplateGraphs, residue: app.topology.Residue, bonded: Sequence) -> bool:
    matches = graphs.matches(residue, bonded)
    return any(all(parent != "SG" for _, parent in match.hydrogens) for match in matches)
