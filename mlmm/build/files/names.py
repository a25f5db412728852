"""Normalisation of names, elements and chain ids, with a reason for each change."""

from __future__ import annotations

from collections.abc import Iterable

import gemmi

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import (
    AMINO_ACIDS,
    CAPS,
    METALS,
    NUCLEOTIDES,
    WATERS,
    AtomRecord,
    ResidueKey,
    StructureFile,
    coordinates,
    describe,
    describe_key,
    is_polymer,
    residues,
)
from mlmm.build.files.dialects import settle_dialects
from mlmm.errors import StructureError
from mlmm.neighbours import nearest

_STANDARD = AMINO_ACIDS | NUCLEOTIDES | CAPS | WATERS
_ORGANIC = {"H", "C", "N", "O", "S", "P"}
_TWO_LETTERS = METALS | {"CL", "BR", "SE", "SI", "AS", "TE", "HE", "NE", "AR", "KR", "XE"}
_CHAIN_IDS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def settle_names(file: StructureFile) -> tuple[list[AtomRecord], list[Decision]]:
    """Write names in upper case, deuterium as hydrogen, and find an element for every atom.

    In a standard residue the name decides: a CA of isoleucine is carbon whatever the element columns say.
    """
    atoms: list[AtomRecord] = []
    lower, heavy_hydrogens, sites = 0, 0, 0
    guessed: list[AtomRecord] = []
    corrected: list[tuple[AtomRecord, str]] = []
    odd: list[AtomRecord] = []
    upper: list[AtomRecord] = []
    for atom in file.atoms:
        name, residue_name = atom.name.upper(), atom.residue_name.upper()
        if residue_name in WATERS and (name.startswith(("LP", "EP", "MW")) or name in ("M", "OM")):
            sites += 1  # lone pairs and charge sites of another water model
            continue
        lower += (name, residue_name) != (atom.name, atom.residue_name)
        residue_name = "HOH" if residue_name in WATERS else residue_name
        upper.append(atom._replace(name=name, residue_name=residue_name))
    upper, decisions = settle_dialects(upper)
    for atom in upper:
        name, residue_name = atom.name, atom.residue_name
        element = atom.element
        if residue_name in _STANDARD:
            element = _first_letter(name)
            if atom.element and atom.element != element and not (element == "H" and atom.element == "D"):
                corrected.append((atom, element))
        elif not element:
            element = _guess(atom)
            guessed.append(atom._replace(element=element))
        elif not name.lstrip("0123456789").startswith(element) and element != "D":
            odd.append(atom)
        if atom.element == "D" or (residue_name in _STANDARD and name.lstrip("0123456789").startswith("D")):
            heavy_hydrogens += 1
            element = "H"
            name = name.replace("D", "H", 1) if name.lstrip("0123456789").startswith("D") else name
        if not element:
            raise StructureError(
                "an element for every atom",
                f"{_who(atom)} in {file.where(atom)} of {file.name} without one",
                "write the element symbol in columns 77-78 (mmCIF: type_symbol)",
            )
        atoms.append(atom._replace(name=name, element=element))
    if lower:
        decisions.append(Decision("read", "names", f"names of {lower} atoms put in upper case"))
    if sites:
        decisions.append(Decision("read", "waters", f"{sites} sites of water without mass left out"))
    if heavy_hydrogens:
        text = f"{heavy_hydrogens} deuterium atoms treated as hydrogen"
        decisions.append(Decision("read", "deuterium", text, numbers={"atoms": heavy_hydrogens}))
    if corrected:
        atom, element = corrected[0]
        text = (
            f"elements of {len(corrected)} atoms contradict their names in standard residues and were "
            f"corrected ({_who(atom)} in {file.where(atom)}: {atom.element.capitalize()} is {element})"
        )
        decisions.append(Decision("read", "element", text, numbers={"atoms": len(corrected)}, warning=True))
    if guessed:
        kinds = sorted({f"{a.residue_name} {a.name} {a.element.capitalize()}" for a in guessed})
        shown = ", ".join(kinds[:6]) + (" ..." if len(kinds) > 6 else "")
        text = f"elements of {len(guessed)} atoms without one taken from their names ({shown})"
        decisions.append(Decision("read", "element", text, numbers={"atoms": len(guessed)}, warning=True))
    if odd:
        atom = odd[0]
        text = (
            f"{len(odd)} atoms have an element that their name does not begin with ({_who(atom)} is "
            f"{atom.element.capitalize()}): the element is used"
        )
        decisions.append(Decision("read", "element", text, numbers={"atoms": len(odd)}, warning=True))
    return atoms, decisions


def _who(atom: AtomRecord) -> str:
    return f"{atom.name} of {describe_key(atom.residue_name, atom.key)}"


def _first_letter(name: str) -> str:
    """Element of a standard residue's atom: digits in front stand for the number of a hydrogen."""
    letter = name.lstrip("0123456789*'")[:1]
    if name.startswith("SE"):
        return "SE"
    return "H" if letter == "D" else letter if letter in _ORGANIC else ""


def _guess(atom: AtomRecord) -> str:
    """Element of any other atom: an ion is named as its residue; symbols of one letter start in column 14."""
    name = atom.name.lstrip("0123456789")
    two = name[:2]
    if atom.name.rstrip("+-0123456789") == atom.residue_name.rstrip("+-0123456789") and two in _TWO_LETTERS:
        return two
    first_column = atom.column[:1]
    four_letters = len(atom.name) == len(atom.column.strip()) == len(atom.column) and first_column in "HCNO"
    if first_column.isalpha() and not four_letters and two in _TWO_LETTERS:
        return two
    one = name[:1]
    return one if one and gemmi.Element(one).atomic_number else two if two in _TWO_LETTERS else ""


def settle_chains(atoms: list[AtomRecord], name: str) -> tuple[list[AtomRecord], list[Decision]]:
    """Give every atom a chain id: new letters for polymers without one, the nearest polymer's for the rest.

    Entries before 1996 leave the chain of ligands and waters blank.

    Raises
    ------
    StructureError
        Two polymers with one chain id that nothing separates.
    """
    decisions: list[Decision] = []
    groups = list(residues(atoms))
    polymer = [is_polymer(group) for group in groups]
    taken = {atom.chain for atom in atoms}
    free = (letter for letter in _CHAIN_IDS if letter not in taken)
    ids: dict[tuple, str] = {}
    for group, link in zip(groups, polymer, strict=True):
        if link and not group[0].chain and (part := (group[0].part, group[0].label_chain)) not in ids:
            ids[part] = next(free, "A")
            decisions.append(
                Decision(
                    "read", "chains", f"the chain that begins with {describe(group)} has no id: {ids[part]}"
                )
            )
    groups = [
        [atom._replace(chain=ids[atom.part, atom.label_chain]) for atom in group]
        if link and not group[0].chain
        else group
        for group, link in zip(groups, polymer, strict=True)
    ]
    groups, more = _separate(groups, polymer, free, name)
    decisions += more
    blank = [i for i, group in enumerate(groups) if not polymer[i] and not group[0].chain]
    if blank:
        solid = [group for group, link in zip(groups, polymer, strict=True) if link]
        chains = _nearest_chains([groups[i] for i in blank], solid)
        waters = sum(groups[i][0].residue_name == "HOH" for i in blank)
        for i, chain in zip(blank, chains, strict=True):
            if groups[i][0].residue_name != "HOH":
                text = f"{describe(groups[i])} has no chain id: nearest to chain {chain}"
                decisions.append(Decision("read", "chains", text, describe(groups[i])))
            groups[i] = [atom._replace(chain=chain) for atom in groups[i]]
        # One run of small molecules per chain, as in a file that gives their chains.
        order = {chain: place for place, chain in enumerate(dict.fromkeys(chains_of(groups)))}
        moved = sorted(blank, key=lambda i: order[groups[i][0].chain])
        left = set(blank)
        groups = [group for i, group in enumerate(groups) if i not in left] + [groups[i] for i in moved]
        if waters:
            text = f"{waters} waters without chain id assigned to the nearest chain"
            decisions.append(Decision("read", "chains", text, numbers={"waters": waters}))
    return [atom for group in groups for atom in group], decisions


def chains_of(groups: list[list[AtomRecord]]) -> list[str]:
    """Chain id of every residue."""
    return [group[0].chain for group in groups]


def _separate(
    groups: list[list[AtomRecord]], polymer: list[bool], free: Iterable[str], name: str
) -> tuple[list[list[AtomRecord]], list[Decision]]:
    """New ids for polymers that repeat the residue numbers of an earlier one behind a TER record."""
    decisions: list[Decision] = []
    seen: dict[tuple[int, ResidueKey], tuple[tuple, int]] = {}
    renamed: dict[tuple, str] = {}
    result = []
    free = iter(free)
    for group, link in zip(groups, polymer, strict=True):
        first = group[0]
        part = (first.model, first.part, first.label_chain, first.chain)
        if link and part not in renamed:
            before = seen.get((first.model, first.key))
            if before is not None and before[0] != part:
                renamed[part] = next(free, first.chain + "2")
                text = (
                    f"a second chain {first.chain} begins with {describe(group)} in line {first.line}: "
                    f"it is chain {renamed[part]} from now on"
                )
                decisions.append(Decision("read", "chains", text, warning=True))
            elif before is not None:
                raise StructureError(
                    "every residue number once per chain",
                    f"{describe(group)} in line {first.line} of {name} again after line {before[1]}",
                    "give the second molecule another chain id, or end the first with a TER line",
                )
            else:
                seen[first.model, first.key] = (part, first.line)
        result.append([atom._replace(chain=renamed[part]) for atom in group] if part in renamed else group)
    return result, decisions


def _nearest_chains(groups: list[list[AtomRecord]], polymers: list[list[AtomRecord]]) -> list[str]:
    """Chain of the polymer atom that is nearest to any atom of each group."""
    if not polymers:
        return ["A"] * len(groups)
    solid = [atom for group in polymers for atom in group]
    distances, indices = nearest(coordinates(atom for group in groups for atom in group), coordinates(solid))
    chains, start = [], 0
    for group in groups:
        closest = start + int(distances[start : start + len(group)].argmin())
        chains.append(solid[indices[closest]].chain)
        start += len(group)
    return chains
