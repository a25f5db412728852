"""Protonation states and tautomers, from the user, names in the file, propka's pKa or hydrogen bonds."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.gaps import describe_residue
from mlmm.build.protons.bridging import HYDROXIDE
from mlmm.build.protons.propka_run import pka_values
from mlmm.build.protons.tautomers import tautomer_score
from mlmm.errors import ConfigError

__all__ = ["choose_states", "named_by_user", "related_positions"]

logger = logging.getLogger(__name__)
#: Residue -> (state below its pKa, state above); histidine's neutral state has two tautomers.
_STATES = {
    "ASP": ("ASH", "ASP"),
    "GLU": ("GLH", "GLU"),
    "HIS": ("HIP", "neutral"),
    "LYS": ("LYS", "LYN"),
}
_ALIASES = {"HSD": "HID", "HSE": "HIE", "HSP": "HIP", "OH-": HYDROXIDE}
#: What may be asked for each residue.
VARIANTS = {
    "HIS": ("HID", "HIE", "HIP"),
    "ASP": ("ASP", "ASH"),
    "GLU": ("GLU", "GLH"),
    "LYS": ("LYS", "LYN"),
    "CYS": ("CYS", "CYX", "CYM"),
    "HOH": ("HOH", HYDROXIDE),
}
#: Hydrogens that a protonation state decides about.
TITRATED = {
    "HIS": ("HD1", "HE2"),
    "ASP": ("HD2",),
    "GLU": ("HE2",),
    "LYS": ("HZ1", "HZ2", "HZ3"),
    "CYS": ("HG",),
    "HOH": ("H1", "H2"),
}
#: Groups of propka with one state in the force field: the state, and whether it holds below the pKa.
_FIXED = {"CYS": ("SH", True), "TYR": ("OH", True), "ARG": ("+", True), "N+": ("+", True), "C-": ("-", False)}
_CLOSE = 1.0  # pH units: an error of propka that is not unusual
_LEAST_COMMON = 0.8  # share of residue numbers that two copies of a chain have in common
_TIE = 0.05


@dataclass(frozen=True)
class _Position:
    """One residue, or the same place in several copies of a chain."""

    residues: tuple[app.topology.Residue, ...]

    @property
    def text(self) -> str:
        first = self.residues[0]
        if len(self.residues) == 1:
            return describe_residue(first)
        chains = ", ".join(residue.chain.id for residue in self.residues)
        return f"{first.name} {first.id}{first.insertionCode.strip()} of chains {chains}"


def choose_states(
    topology: app.Topology,
    positions: np.ndarray,
    *,
    ph: float,
    method: str,
    given: Mapping[int, str],
    named: Mapping[int, str],
    symmetry: bool = True,
) -> tuple[dict[int, str], list[Decision]]:
    """Protonation state of every residue that has a choice; residues that are left out follow OpenMM's rules.

    What the user asks for comes first, then names in the file (HIP, HID, CYX, GLH ...) and hydrogens that
    the file has, then propka's pKa against the pH; equal positions of copies of one chain get one state, by
    the mean of their pKa. The tautomer of a neutral histidine is the one with the better hydrogen bonds,
    summed over the copies.

    Parameters
    ----------
    topology : openmm.app.Topology
        Heavy atoms of everything, ligands included, and perhaps some hydrogens.
    positions : ndarray, shape (N, 3), nm
    ph : float
    method : {"modeller", "propka"}
    given, named : mapping of residue index to str
        By the user, by names in the file.
    symmetry : bool
        Treat copies of a chain alike.

    Returns
    -------
    states : dict of residue index to str
    decisions : list of Decision

    Raises
    ------
    MissingPackageError
        propka is wanted and not installed.
    StructureError
        propka cannot read the structure.
    """
    states = {**named, **given}
    decisions = [
        Decision(
            "protonate",
            "state",
            f"{describe_residue(residue)} is {states[residue.index]}, "
            + ("as asked for" if residue.index in given else "as named in the file"),
            describe_residue(residue),
        )
        for residue in topology.residues()
        if residue.index in states
    ]
    with_hydrogens = _residues_with_titrated_hydrogens(topology)
    pka = pka_values(topology, positions) if method == "propka" else {}
    if pka:
        decisions.append(_summary(topology, pka, ph))
        decisions += _unsupported(topology, pka, ph)
    for position in related_positions(topology, symmetry):
        open_residues = tuple(
            residue
            for residue in position
            if residue.index not in states and residue.index not in with_hydrogens
        )
        if not open_residues:
            continue
        place, name = _Position(open_residues), open_residues[0].name
        values = [pka[residue.index, name] for residue in open_residues if (residue.index, name) in pka]
        state, why = "", ""
        if values:
            below, above = _STATES[name]
            state = below if float(np.mean(values)) > ph else above
            shown = ", ".join(f"{value:.2f}" for value in values)
            why = f"pKa {shown} at pH {ph:g}"
        elif method == "modeller" and name == "HIS" and len(open_residues) > 1 and ph > 6.5:
            state = "neutral"  # OpenMM's own rule, but one tautomer for all copies
        if not state:
            continue
        if state == "neutral":
            score = float(sum(tautomer_score(topology, positions, residue) for residue in open_residues))
            state = "HID" if score > _TIE else "HIE"
            bonds = (
                f"hydrogen bonds favour {state} by {abs(score):.2f}" if abs(score) > _TIE else "no preference"
            )
            why = f"{why}; {bonds}" if why else bonds
        states.update({residue.index: state for residue in open_residues})
        close = bool(values) and min(abs(value - ph) for value in values) < _CLOSE
        if state not in ("ASP", "GLU", "LYS") or close:
            text = f"{place.text}: {state} ({why})" + (", close to the pH" if close else "")
            numbers = {"pKa": values} if values else {}
            decisions.append(
                Decision("protonate", "pKa" if values else "tautomer", text, place.text, numbers, close)
            )
    return states, decisions


def named_by_user(topology: app.Topology, given: Mapping[str, str]) -> dict[int, str]:
    """Residue indices for keys such as ``A:HIS54``, ``A:54``, ``*:HIS54`` (every chain) or ``HIS54``.

    Raises
    ------
    ConfigError
        A key that matches no residue or, without a chain, several; a state that the residue cannot have.
    """
    labels: dict[str, list[app.topology.Residue]] = {}
    for residue in topology.residues():
        number = f"{residue.id}{residue.insertionCode.strip()}"
        chain = residue.chain.id.strip()
        for label in (f"{residue.name}{number}", number):
            for prefix in (f"{chain}:", "*:", ""):
                labels.setdefault((prefix + label).upper(), []).append(residue)
    chosen: dict[int, str] = {}
    for key, value in given.items():
        found = labels.get(str(key).replace(" ", "").upper(), [])
        found = [residue for residue in found if residue.name in VARIANTS] or found
        if not found:
            candidates = [label for label in labels if ":" in label and not label.startswith("*")]
            near = difflib.get_close_matches(str(key).upper(), candidates, n=3, cutoff=0.5)
            raise ConfigError(
                'a residue as "CHAIN:NAMENUMBER", such as "A:HIS54", in protonate',
                repr(key),
                f"write one such as {', '.join(near)}" if near else "look at the residue numbers of the file",
            )
        if len(found) > 1 and not str(key).startswith("*:"):
            names = ", ".join(f'"{r.chain.id}:{r.name}{r.id}{r.insertionCode.strip()}"' for r in found[:4])
            raise ConfigError(
                "one residue for each key of protonate",
                f"{key!r}, which is {len(found)} residues",
                f'write {names}, or "*:{str(key).split(":")[-1]}" for all of them',
            )
        state = _ALIASES.get(str(value).upper(), str(value).upper())
        for residue in found:
            if state not in VARIANTS.get(residue.name, ()):
                choices = ", ".join(VARIANTS.get(residue.name, ())) or "nothing else"
                raise ConfigError(
                    f"a state of {describe_residue(residue)}: {choices}", repr(value), "correct protonate"
                )
            if state == "CYX" and not _sulfur_is_bonded(residue):
                raise ConfigError(
                    f"another sulfur bonded to {describe_residue(residue)} for CYX, half of a disulfide",
                    "none",
                    'write "CYM" for a thiolate, as at a metal, or "CYS"',
                )
            chosen[residue.index] = state
    return chosen


def _sulfur_is_bonded(residue: app.topology.Residue) -> bool:
    return any("SG" in (one.name, other.name) for one, other in residue.external_bonds())


def related_positions(topology: app.Topology, symmetry: bool) -> list[tuple[app.topology.Residue, ...]]:
    """Residues with a choice, those at equal positions of copies of a chain together.

    Chains are copies if the residue numbers that they have in common are most of the shorter one's and carry
    the same names.
    """
    chains = []
    for chain in topology.chains():
        names = {(r.id, r.insertionCode): r for r in chain.residues() if {"N", "CA", "C"} <= _names(r)}
        if names:
            chains.append(names)
    families: list[list[dict]] = []
    for names in chains:
        for family in families:
            if symmetry and _copies(family[0], names):
                family.append(names)
                break
        else:
            families.append([names])
    together = []
    for family in families:
        places = dict.fromkeys(place for names in family for place in names)
        for place in places:
            residues = tuple(names[place] for names in family if place in names)
            if residues[0].name in _STATES:
                together.append(residues)
    return together


def _names(residue: app.topology.Residue) -> set[str]:
    return {atom.name for atom in residue.atoms()}


def _copies(first: dict, second: dict) -> bool:
    common = first.keys() & second.keys()
    if len(common) < _LEAST_COMMON * min(len(first), len(second)):
        return False
    return all(first[place].name == second[place].name for place in common)


def _residues_with_titrated_hydrogens(topology: app.Topology) -> set[int]:
    """Residues whose hydrogens in the file say what they are, or that have all the others."""
    found = set()
    for residue in topology.residues():
        hydrogens = {a.name for a in residue.atoms() if a.element == app.element.hydrogen}
        if hydrogens & set(TITRATED.get(residue.name, ())) or {"HA", "HB2"} <= hydrogens:
            found.add(residue.index)
    return found


def _summary(topology: app.Topology, pka: Mapping[tuple[int, str], float], ph: float) -> Decision:
    residues = list(topology.residues())
    numbers = {f"{describe_residue(residues[i])} {group}": value for (i, group), value in pka.items()}
    text = f"propka gave {len(pka)} pKa values for the protein with what is bound to it (pH {ph:g})"
    return Decision("protonate", "pKa", text, numbers=numbers)


def _unsupported(topology: app.Topology, pka: Mapping[tuple[int, str], float], ph: float) -> list[Decision]:
    """Groups that propka would charge, or neutralise, and the force field cannot."""
    residues, found = list(topology.residues()), []
    for (index, group), value in pka.items():
        if group not in _FIXED:
            continue
        state, holds_below = _FIXED[group]
        if (value > ph) != holds_below:
            where = describe_residue(residues[index])
            text = f"{where}: pKa {value:.2f} of its {group} group at pH {ph:g}, but it is kept as {state}"
            found.append(Decision("protonate", "pKa", text, where, {"pKa": [value]}, warning=True))
    return found
