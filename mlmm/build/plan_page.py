"""What a build would make, in words: residues and ends of each chain, ionisable groups, net charge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from openmm import app

from mlmm.build.files.atoms import AMINO_ACIDS, CAPS, NUCLEOTIDES
from mlmm.build.ionisable import group_charge
from mlmm.build.templates import bonded_atoms
from mlmm.build.unknown import is_alone, is_in_chain
from mlmm.short_repr import counted

__all__ = ["system_page"]

#: Charge of a side chain by its state, e; of a residue without a state by its name.
_STATES = {"HIP": 1, "CYM": -1, "OH": -1, "LYS": 1, "ARG": 1, "ASP": -1, "GLU": -1}
_NEUTRAL = {"HID", "HIE", "LYN", "ASH", "GLH", "CYX", "CYS", "HOH"}
_SHOWN = 8


def system_page(
    topology: app.Topology,
    missing: Mapping[app.topology.Residue, Sequence[str]],
    states: Mapping[int, str],
    molecules: Mapping[str, int],
) -> list[str]:
    """Lines of a page about the system that a build would make.

    Parameters
    ----------
    topology : openmm.app.Topology
        Before heavy atoms and hydrogens are added.
    missing : mapping of residue to names
        Heavy atoms to add.
    states : mapping of residue index to str
        Protonation states that the user, the file or a metal decides.
    molecules : mapping of str to int
        Charge in e of the ligands that are described, and of residues that take a template of another name,
        by name.
    """
    lines, total = [], 0
    bonded, atoms = bonded_atoms(topology), list(topology.atoms())
    open_states: list[str] = []
    for chain in topology.chains():
        members = [residue for residue in chain.residues() if residue.name != "HOH"]
        polymer = [r for r in members if _is_link(r)]
        if polymer:
            lines.append(_chain_line(chain.id, polymer))
        for residue in members:
            total += _charge(residue, states, molecules, bonded, atoms)
            if residue.name == "HIS" and residue.index not in states:
                open_states.append(f"{residue.id}{residue.insertionCode.strip()}{_of(chain)}")
    total += sum(_STATES.get(state, 0) for index, state in states.items() if state == "OH")
    groups = Counter(
        states.get(r.index, r.name) for r in topology.residues() if r.name in (*_STATES, "HIS", "CYS")
    )
    pairs = sum(one.name == other.name == "SG" for one, other in topology.bonds())
    sides = [f"{groups[name]} {name}" for name in sorted(groups) if name not in ("CYS", "CYX")]
    sides += [f"{2 * pairs} CYS in disulfides"] if pairs else []
    sides += [counted(groups["CYS"] - 2 * pairs, "thiol")] if groups["CYS"] > 2 * pairs else []
    if sides:
        lines.append(f"  side chains: {', '.join(sides)}")
    if open_states:
        lines.append(f"  histidines whose protons are still open: {_few(open_states)}")
    modified = Counter(
        r.name for r in topology.residues() if _is_link(r) and r.name not in AMINO_ACIDS | NUCLEOTIDES
    )
    if modified:
        lines.append(f"  modified residues: {', '.join(f'{n} {name}' for name, n in modified.items())}")
    others = Counter(r.name for r in topology.residues() if not _is_link(r) and r.name != "HOH")
    if others:
        lines.append(f"  besides: {', '.join(f'{n} {name}' for name, n in others.items())}")
    added = sum(len(names) for names in missing.values())
    where = [f"{r.name} {r.id}{_of(r.chain)}" for r in missing]
    lines.append(f"  heavy atoms to add: {f'{added}, in {_few(where)}' if added else 'none'}")
    charge = f"{total:+d}" if total else "0"
    lines.append(f"  charge at pH 7 with neutral histidines, before ions of the solvent: {charge} e")
    return ["would be built", *lines]


def _is_link(residue: app.topology.Residue) -> bool:
    """Whether a residue belongs to a chain: modified ones do, caps and free amino acids do not."""
    if residue.name in AMINO_ACIDS:
        return not is_alone(residue)
    return residue.name in NUCLEOTIDES or (residue.name not in CAPS and is_in_chain(residue))


def _chain_line(name: str, residues: Sequence[app.topology.Residue]) -> str:
    inserted = [f"{r.id}{r.insertionCode.strip()}" for r in residues if r.insertionCode.strip()]
    first, last = residues[0], residues[-1]
    text = f"  {name.strip() or 'chain without id'}: {counted(len(residues), 'residue')}, "
    text += f"{first.name} {first.id} to "
    text += f"{last.name} {last.id}"
    ends = [f"{r.name} {r.id} ({kind})" for r in residues for kind in _free_ends(r)]
    protein = any(r.name in AMINO_ACIDS for r in residues)
    text += f"; charged ends {_few(ends)}" if ends else "; no free ends" if protein else ""
    return text + (f"; insertion codes {_few(inserted)}" if inserted else "")


def _free_ends(residue: app.topology.Residue) -> list[str]:
    """``"N"`` and ``"C"`` of an amino acid that no other residue is bonded to."""
    outside = {a.name for bond in residue.external_bonds() for a in bond if a.residue is residue}
    own = {atom.name for atom in residue.atoms()}
    if residue.name not in AMINO_ACIDS and not (_is_link(residue) and {"N", "CA", "C"} <= own):
        return []
    return [name for name in ("N", "C") if name in own and name not in outside]


def _charge(
    residue: app.topology.Residue,
    states: Mapping[int, str],
    molecules: Mapping[str, int],
    bonded: Sequence[Sequence[int]],
    atoms: Sequence[app.topology.Atom],
) -> int:
    name = states.get(residue.index, residue.name)
    if residue.name in molecules:
        return molecules[residue.name]
    if residue.name in AMINO_ACIDS or (residue.name not in NUCLEOTIDES and _is_link(residue)):
        ends = {"N": 1, "C": -1}
        side = 0 if name in _NEUTRAL else _STATES.get(name)
        if side is None:
            side = group_charge(residue, bonded, atoms)
        return side + sum(ends[end] for end in _free_ends(residue))
    own = list(residue.atoms())
    if len(own) == 1 and own[0].formalCharge is not None:
        return int(own[0].formalCharge)
    if residue.name in NUCLEOTIDES:
        return -sum(atom.element is app.element.phosphorus for atom in own)
    return group_charge(residue, bonded, atoms)


def _of(chain: app.topology.Chain) -> str:
    return f" of chain {chain.id}" if chain.id.strip() else ""


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
