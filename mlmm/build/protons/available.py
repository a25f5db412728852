"""Protonation states that the force field has at a place: no GLH, ASH, LYN or CYM ends a chain of Amber."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue
from mlmm.build.templates import TemplateGraphs, bonded_atoms
from mlmm.errors import ConfigError

__all__ = ["available_states", "check_available"]

#: State -> protons on the atoms that it decides about.
_PROTONS = {
    "ASP": {"OD1": 0, "OD2": 0},
    "GLU": {"OE1": 0, "OE2": 0},
    "LYS": {"NZ": 3},
    "LYN": {"NZ": 2},
    "CYS": {"SG": 1},
    "CYM": {"SG": 0},
    "HID": {"ND1": 1, "NE2": 0},
    "HIE": {"ND1": 0, "NE2": 1},
    "HIP": {"ND1": 1, "NE2": 1},
}
#: Either oxygen of an acid may have the proton.
_ACIDS = {"ASH": "ASP", "GLH": "GLU"}
#: What a residue has where nothing else is there.
_USUAL = {"ASP": "ASP", "GLU": "GLU", "LYS": "LYS", "CYS": "CYS"}
#: Names of these states, by the residue that has them.
_OF = {"ASP": ("ASP", "ASH"), "GLU": ("GLU", "GLH"), "LYS": ("LYS", "LYN"), "CYS": ("CYS", "CYM")}


def check_available(topology: app.Topology, force_field: app.ForceField, given: Mapping[int, str]) -> None:
    """Refuse states that the user asks for and that the force field does not have at their place.

    Parameters
    ----------
    topology : openmm.app.Topology
    force_field : openmm.app.ForceField
    given : mapping of residue index to str

    Raises
    ------
    ConfigError
    """
    for residue, state, choices in _lacking(topology, force_field, given):
        raise ConfigError(
            f"a state of {describe_residue(residue)} that the force field has at its place in the chain: "
            f"{', '.join(choices) or 'none'}",
            repr(state),
            f'correct protonate, or write forcefield = "charmm36m", which has {state} there too',
        )


def available_states(
    topology: app.Topology, force_field: app.ForceField, states: Mapping[int, str], ph: float
) -> tuple[dict[int, str], list[Decision]]:
    """States that the force field has at the ends of chains, in place of those that it lacks there.

    Parameters
    ----------
    topology : openmm.app.Topology
    force_field : openmm.app.ForceField
    states : mapping of residue index to str
        Decided ones. Ends of chains that are not among them follow OpenMM's rule for the pH, and keep their
        usual state where the force field lacks the other.
    ph : float

    Returns
    -------
    states : dict
        All that were given, and those of ends of chains that may have no other.
    decisions : list of Decision
        With a warning where a state is another than the pKa or the pH wants.
    """
    result, decisions = dict(states), []
    undecided = {
        residue.index: _OF[residue.name][1]
        for residue in topology.residues()
        if residue.name in ("ASP", "GLU", "LYS") and residue.index not in states and _is_end(residue)
    }
    for residue, state, choices in _lacking(topology, force_field, {**states, **undecided}):
        usual = _USUAL.get(residue.name, "")
        if usual not in choices:
            continue
        result[residue.index] = usual
        # OpenMM's rule for what nothing decides: acids below 4.4, lysine above 10.4.
        wanted = residue.index in states or (ph > 10.4 if residue.name == "LYS" else ph < 4.4)
        if wanted:
            who = describe_residue(residue)
            text = f"{who} stays {usual}: the force field has no {state} for its place in the chain"
            decisions.append(Decision("protonate", "state", text, who, warning=True))
    return result, decisions


def _lacking(
    topology: app.Topology, force_field: app.ForceField, states: Mapping[int, str]
) -> list[tuple[app.topology.Residue, str, list[str]]]:
    """Residues whose state no template has, with that state and those that there are."""
    graphs = TemplateGraphs(force_field)
    # CHARMM makes its states by patches, which go with every place in a chain.
    if graphs.has_patches or not states:
        return []
    bonded, found = bonded_atoms(topology), []
    for residue in topology.residues():
        state = states.get(residue.index)
        if state not in (*_PROTONS, *_ACIDS):
            continue
        on_atoms = [[parent for _, parent in match.hydrogens] for match in graphs.matches(residue, bonded)]
        # Without a match atoms are missing still, or the user describes the residue.
        if on_atoms and not any(_has(parents, str(state)) for parents in on_atoms):
            choices = _OF.get(residue.name, ("HID", "HIE", "HIP"))
            there = [other for other in choices if any(_has(parents, other) for parents in on_atoms)]
            found.append((residue, str(state), there))
    return found


def _has(parents: Sequence[str], state: str) -> bool:
    if state in _ACIDS:
        return sum(parents.count(atom) for atom in _PROTONS[_ACIDS[state]]) == 1
    return all(parents.count(atom) == count for atom, count in _PROTONS[state].items())


def _is_end(residue: app.topology.Residue) -> bool:
    """Whether an amino acid has a free N or C."""
    bonded = {atom.name for bond in residue.external_bonds() for atom in bond if atom.residue is residue}
    return not {"N", "C"} <= bonded
