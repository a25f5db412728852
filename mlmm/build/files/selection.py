"""Selection of what is built: model, alternate locations, chains or assembly, waters, hydrogens."""

from __future__ import annotations

import numpy as np

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import (
    AtomRecord,
    StructureFile,
    coordinates,
    describe,
    is_hydrogen,
    is_polymer,
    residues,
)
from mlmm.build.files.contacts import chain_contacts
from mlmm.build.options import Selection
from mlmm.build.questions import NothingLeftError, OpenQuestionError
from mlmm.errors import StructureError
from mlmm.neighbours import has_neighbour
from mlmm.short_repr import counted

_CHAIN_IDS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: Hydrogens that a full set has in almost every residue.
_ON_CARBON = {"HA", "HA2", "HA3", "HB", "HB1", "HB2", "HB3"}
_SAME_PLACE = 0.05  # nm; copies of a molecule on a symmetry axis


def choose_model(file: StructureFile, atoms: list[AtomRecord], model: int) -> list[AtomRecord]:
    """Atoms of one model; if there are several, the user has to choose.

    Raises
    ------
    StructureError
        Several models and none chosen, or one that does not exist.
    """
    models = sorted({atom.model for atom in atoms})
    shown = ", ".join(map(str, models[:6])) + (" ..." if len(models) > 6 else "")
    if len(models) > 1 and not model:
        second = next(atom for atom in atoms if atom.model != atoms[0].model)
        raise OpenQuestionError(
            "one model",
            f"{len(models)} in {file.name} (numbers {shown}; the second begins in {file.where(second)})",
            f"write model = {models[0]} to take the first, or keep the lines of one of them",
            {"model": models[0]},
            f"model {models[0]}",
        )
    if model and model not in models:
        raise StructureError(f"model {model}", f"models {shown} in {file.name}", f"write model = {models[0]}")
    return [atom for atom in atoms if not model or atom.model == model]


def choose_locations(file: StructureFile, atoms: list[AtomRecord]) -> tuple[list[AtomRecord], list[Decision]]:
    """Keep the alternate location with the highest summed occupancy, one letter for the whole residue.

    Mixing letters within a residue would join halves of two conformations. A residue whose locations have
    different residue names (microheterogeneity) is settled by the same rule.

    Raises
    ------
    StructureError
        An atom name twice in a residue, or one residue number for neighbours with different names.
    """
    kept: list[AtomRecord] = []
    decisions: list[Decision] = []
    for group in residues(atoms):
        occupancy: dict[str, float] = {}
        for atom in group:
            if atom.location != " ":
                occupancy[atom.location] = occupancy.get(atom.location, 0.0) + atom.occupancy
        if occupancy:
            chosen = min(occupancy, key=lambda letter: (-round(occupancy[letter], 6), letter))
            names = sorted({atom.residue_name for atom in group})
            group = [atom for atom in group if atom.location in (" ", chosen)]
            if len(occupancy) > 1:
                sums = ", ".join(f"{letter} {total:.2f}" for letter, total in sorted(occupancy.items()))
                who = f"{'/'.join(names)} {describe(group).split(' ', 1)[1]}"
                text = f"{who}: alternate location {chosen} taken (summed occupancies {sums})"
                decisions.append(Decision("select", "altloc", text, describe(group), dict(occupancy)))
        _check_one_residue(file, group)
        kept += [atom._replace(location=" ") for atom in group]
    return kept, decisions


def _check_one_residue(file: StructureFile, group: list[AtomRecord]) -> None:
    """Two atoms with one name: readers drop the second, or merge two residues with the same number."""
    first: dict[str, AtomRecord] = {}
    for atom in group:
        if atom.residue_name != group[0].residue_name:
            raise StructureError(
                "one residue name per residue number",
                f"{describe(group)} and {atom.residue_name} with the same number in "
                f"{_lines(file, group[0], atom)} of {file.name}",
                "number the residues so that neighbours differ, or give alternate locations their letters",
            )
        if atom.name in first:
            raise StructureError(
                "every atom name once per residue",
                f"{atom.name} of {describe(group)} in {_lines(file, first[atom.name], atom)} of {file.name}",
                "delete one of the lines, or number the residues so that neighbours differ",
            )
        first[atom.name] = atom


def _lines(file: StructureFile, one: AtomRecord, other: AtomRecord) -> str:
    word = "lines" if file.format == "pdb" else "atom_site rows"
    return f"{word} {one.line} and {other.line}"


def choose_chains(
    file: StructureFile, atoms: list[AtomRecord], selection: Selection
) -> tuple[list[AtomRecord], list[Decision]]:
    """Keep the chains of the selection, or make the copies of an assembly.

    Raises
    ------
    StructureError
        A chain or an assembly that the file does not have.
    """
    chains = list(dict.fromkeys(atom.chain for atom in atoms))
    polymers = list(dict.fromkeys(g[0].chain for g in residues(atoms) if is_polymer(g)))
    if selection.assembly:
        return _assemble(file, atoms, selection.assembly)
    if not selection.chains:
        return atoms, _about_all_chains(file, atoms, polymers)
    unknown = [chain for chain in selection.chains if chain not in chains]
    if unknown:
        labels = sorted({atom.chain for atom in atoms if atom.label_chain in unknown})
        also = f" (label_asym_id {', '.join(unknown)} belongs to chain {', '.join(labels)})" if labels else ""
        raise StructureError(
            f"chains {', '.join(chains)} of {file.name}",
            f"chain {', '.join(unknown)}{also}",
            "write the author's chain ids; mlmm build --dry-run lists them",
        )
    kept = [atom for atom in atoms if atom.chain in selection.chains]
    left = [chain for chain in polymers if chain not in selection.chains]
    text = f"chains kept: {', '.join(selection.chains)}" + (f"; left out: {', '.join(left)}" if left else "")
    decisions = [Decision("select", "chains", text)]
    for (one, other), count in chain_contacts(atoms).items():
        if (one in selection.chains) != (other in selection.chains) and one in polymers and other in polymers:
            inside, outside = (one, other) if one in selection.chains else (other, one)
            text = f"chain {inside} touches chain {outside} ({count} pairs of residues), which is left out"
            decisions.append(Decision("select", "chains", text, numbers={"pairs": count}, warning=True))
    return kept, decisions


def _about_all_chains(file: StructureFile, atoms: list[AtomRecord], polymers: list[str]) -> list[Decision]:
    """Remarks for a build of everything in the file."""
    decisions = []
    if len(polymers) > 1:
        text = f"all {len(polymers)} chains of the file kept: {', '.join(polymers)}"
        if not file.assemblies:
            text += "; the file describes no biological assembly, look at the contacts between chains"
        decisions.append(Decision("select", "chains", text))
    for assembly in file.assemblies[:1]:
        names = {atom.label_chain if assembly.by_label else atom.chain for atom in atoms} - {""}
        inside = [chain for chain in dict.fromkeys(c for copy in assembly.copies for c in copy[0])]
        identity = all(
            np.allclose(rotation, np.eye(3)) and not shift.any() for _, rotation, shift in assembly.copies
        )
        if identity and not names - set(inside):
            continue
        kind, count = assembly.kind or "unnamed", len(assembly.copies)
        if identity:
            others = [other.name for other in file.assemblies[1:]]
            beside = f", beside {', '.join(others)}" if others else ""
            text = (
                f"the file's assembly {assembly.name} ({kind}) is a part of what stands in the file{beside}; "
                f'all of it is built, assembly = "{assembly.name}" takes that part alone'
            )
        else:
            text = (
                f"the file's assembly {assembly.name} ({kind}) takes {count} "
                f"{'copy' if count == 1 else 'copies'} of what stands in the file, moved by symmetry; the "
                f'coordinates as they stand are built, assembly = "{assembly.name}" makes it'
            )
        decisions.append(Decision("select", "assembly", text, warning=True))
    return decisions


def _assemble(
    file: StructureFile, atoms: list[AtomRecord], name: str
) -> tuple[list[AtomRecord], list[Decision]]:
    """Copies of chains by the operations of an assembly; copies beyond the first get free chain ids."""
    by_name = {assembly.name: assembly for assembly in file.assemblies}
    if name not in by_name:
        known = ", ".join(f"{a.name} ({a.kind or 'unnamed'})" for a in file.assemblies) or "none"
        raise StructureError(
            f"an assembly that {file.name} describes: {known}",
            repr(name),
            'leave assembly out and choose chains = ["A", ...]',
        )
    assembly = by_name[name]
    free = (letter for letter in _CHAIN_IDS if letter not in {atom.chain for atom in atoms})
    used: set[str] = set()
    result: list[AtomRecord] = []
    decisions: list[Decision] = []
    for number, (chains, rotation, shift) in enumerate(assembly.copies, start=1):
        members = [a for a in atoms if (a.label_chain if assembly.by_label else a.chain) in chains]
        ids = {chain: chain for chain in dict.fromkeys(a.chain for a in members)}
        if used & set(ids):
            ids = {chain: next(free, f"{chain}{number}") for chain in ids}
        used |= set(ids.values())
        moved = coordinates(members) @ rotation.T + shift
        copies = [
            atom._replace(x=x, y=y, z=z, chain=ids[atom.chain], part=atom.part + 1000 * number)
            for atom, (x, y, z) in zip(members, moved.tolist(), strict=True)
        ]
        copies, dropped = _without_repeats(result, copies)
        result += copies
        text = f"assembly {name}, copy {number}: chains {', '.join(f'{a} as {b}' for a, b in ids.items())}"
        if dropped:
            text += f"; {dropped} small molecules on a symmetry axis stand there already"
        decisions.append(Decision("select", "assembly", text, numbers={"atoms": len(copies)}))
    return result, decisions


def _without_repeats(before: list[AtomRecord], copies: list[AtomRecord]) -> tuple[list[AtomRecord], int]:
    """Leave out copies of small molecules that coincide with others (special positions)."""
    if not before:
        return copies, 0
    kept, dropped = [], 0
    close = has_neighbour(coordinates(copies), coordinates(before), _SAME_PLACE)
    index = 0
    for group in residues(copies):
        span = close[index : index + len(group)]
        index += len(group)
        if span.any() and not is_polymer(group):
            dropped += 1
        else:
            kept += group
    return kept, dropped


def leave_out(
    file: StructureFile, atoms: list[AtomRecord], selection: Selection
) -> tuple[list[AtomRecord], list[Decision]]:
    """Remove named residues, waters and hydrogens.

    Raises
    ------
    StructureError
        A residue to remove that is not there, or nothing left.
    """
    decisions: list[Decision] = []
    groups = list(residues(atoms))
    for entry in selection.remove:
        before = len(groups)
        groups = [group for group in groups if not _is_named(group, entry)]
        if len(groups) == before:
            names = sorted({g[0].residue_name for g in residues(atoms) if not is_polymer(g)})
            raise StructureError(
                f"residues in {file.name} to remove, by name or as CHAIN:NUMBER or CHAIN:NAMENUMBER",
                f"{entry!r}, which is not there (besides chains it has {', '.join(names) or 'nothing'})",
                "correct or delete the entry of remove",
            )
        text = f"{counted(before - len(groups), 'residue')} {entry} left out"
        decisions.append(Decision("select", "remove", text, numbers={"residues": before - len(groups)}))
    groups, more = _choose_waters(groups, selection)
    decisions += more
    placed = selection.hydrogens == "auto" and _placed_by_refinement(groups)
    if selection.hydrogens == "strip" or placed:
        count = 0
        for i, group in enumerate(groups):
            if group[0].residue_name == "HOH" or is_polymer(group):
                groups[i] = [atom for atom in group if not is_hydrogen(atom)]
                count += len(group) - len(groups[i])
        text = f"{count} hydrogens of proteins, nucleic acids and waters left out, to be placed anew"
        if placed:
            text += (
                ": they stand on polar atoms only and on both nitrogens of every histidine, as a refinement "
                'program places them (hydrogens = "keep" takes them as they are)'
            )
        decisions.append(Decision("select", "hydrogens", text, numbers={"atoms": count}, warning=placed))
    kept = [atom for group in groups for atom in group]
    if not kept:
        raise NothingLeftError("atoms to build", f"none left of {file.name}", "remove less")
    return kept, decisions


def _placed_by_refinement(groups: list[list[AtomRecord]]) -> bool:
    """Polar hydrogens alone, histidines all doubly protonated: a topology's default, not an observation."""
    names = [{a.name.lstrip("123") for a in group} for group in groups if is_polymer(group)]
    hydrogens = set().union(*names) & _ON_CARBON if names else set()
    histidines = [
        {a.name for a in group} for group in groups if group[0].residue_name in ("HIS", "HIP", "HSP")
    ]
    return bool(histidines) and not hydrogens and all({"HD1", "HE2"} <= atoms for atoms in histidines)


def _is_named(group: list[AtomRecord], entry: str) -> bool:
    chain, colon, number = entry.partition(":")
    key = group[0].key
    if colon:
        place = key.number + key.insertion_code
        return chain == key.chain and number in (place, group[0].residue_name + place)
    return group[0].residue_name == entry.upper()


def _choose_waters(
    groups: list[list[AtomRecord]], selection: Selection
) -> tuple[list[list[AtomRecord]], list[Decision]]:
    """Waters within the chosen distance of any heavy atom that is no water."""
    waters = [i for i, group in enumerate(groups) if group[0].residue_name == "HOH"]
    if not waters:
        return groups, []
    kept = set(waters)
    if selection.waters == "none":
        kept = set()
    elif selection.waters != "all":
        others = [a for i, g in enumerate(groups) if i not in kept for a in g if not is_hydrogen(a)]
        oxygens = np.array([coordinates(groups[i])[0] for i in waters])
        close = has_neighbour(oxygens, coordinates(others), selection.water_distance)
        kept = {i for i, inside in zip(waters, close, strict=True) if inside}
    rule = "" if selection.waters in ("all", "none") else f" within {selection.waters} of the solute"
    text = f"{len(kept)} of {len(waters)} waters kept{rule}"
    drop = set(waters) - kept
    decision = Decision("select", "waters", text, numbers={"kept": len(kept), "present": len(waters)})
    return [group for i, group in enumerate(groups) if i not in drop], [decision]
