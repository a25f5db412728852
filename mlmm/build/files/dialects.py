"""Residue names of other programs (Amber, CHARMM, GROMACS, older PDB entries), read as those of the PDB.

A name alone decides nothing that the atoms can tell: an ion is a residue of one atom, an amino acid has its
backbone, and RNA is told from DNA by O2'.
"""

from __future__ import annotations

from collections import Counter

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import AMINO_ACIDS, AtomRecord, residues

__all__ = ["ION_CHARGES", "ion_of", "settle_dialects"]

_BACKBONE = {"N", "CA", "C"}
#: Protonation variants of amino acids under the names of GROMACS, CHARMM and Amber.
_PROTEIN = {
    **{"HISD": "HID", "HISA": "HID", "HISE": "HIE", "HISB": "HIE", "HISH": "HIP", "HISP": "HIP"},
    **{"LYSH": "LYS", "LYSN": "LYN", "LSN": "LYN", "CYSH": "CYS", "CYS2": "CYX", "CYSD": "CYM"},
    **{"ASPH": "ASH", "ASPP": "ASH", "GLUH": "GLH", "GLUP": "GLH", "ARGN": "ARG", "HIN": "HIS"},
}
_BASES = {
    **{"ADE": "A", "CYT": "C", "GUA": "G", "URA": "U", "URI": "U", "THY": "T"},
    **{base: base for base in "ACGUT"},
}
#: Ions of CHARMM whose name is not that of their element.
_CHARMM_IONS = {
    **{"SOD": "NA", "CLA": "CL", "POT": "K", "CAL": "CA", "CES": "CS", "LIT": "LI", "RUB": "RB"},
    **{"BAR": "BA", "CAD": "CD", "IOD": "I", "FE3": "FE", "ZN2": "ZN", "CIO": "CS"},
}
#: Charge of an ion whose name or columns give none: that of the PDB's chemical components.
ION_CHARGES = {
    **dict.fromkeys(("LI", "NA", "K", "RB", "CS", "AG"), 1),
    **dict.fromkeys(("F", "CL", "BR", "I"), -1),
    **dict.fromkeys(("MG", "CA", "SR", "BA", "MN", "CO", "NI", "CU", "ZN", "CD", "HG", "PB"), 2),
    **dict.fromkeys(("AL", "FE", "GA", "Y", "LA", "GD"), 3),
}
#: Other charges have names of their own in the PDB.
_NAMED_CHARGES = {("FE", 2): "FE2", ("CU", 1): "CU1", ("CO", 3): "3CO", ("MN", 3): "MN3", ("I", -1): "IOD"}


def ion_of(name: str) -> tuple[str, int] | None:
    """Element symbol and charge of a monatomic ion by its name (``"NA+"``, ``"SOD"``, ``"FE2"``), or None."""
    for element, charge in _NAMED_CHARGES:
        if name == _NAMED_CHARGES[element, charge]:
            return element, charge
    name = _CHARMM_IONS.get(name, name)
    letters = name.strip("+-0123456789")
    if letters not in ION_CHARGES:
        return None
    rest = name[len(letters) :]
    digits = "".join(filter(str.isdigit, rest))
    size = int(digits) if digits and int(digits) < 5 else 0
    if not size and ("+" in rest or "-" in rest):
        size = rest.count("+") + rest.count("-")
    charge = ION_CHARGES[letters]
    return letters, (size if charge > 0 else -size) if size else charge


def settle_dialects(atoms: list[AtomRecord]) -> tuple[list[AtomRecord], list[Decision]]:
    """Give residues the names of the PDB; atoms in upper case, elements as in the file."""
    renamed: Counter[tuple[str, str]] = Counter()
    result: list[AtomRecord] = []
    for group in residues(atoms):
        old = group[0].residue_name
        atom = _as_ion(group)
        if atom is not None:
            result.append(atom)
            new = atom.residue_name
        else:
            new = _polymer_name(group)
            result += [member._replace(residue_name=new) for member in group] if new != old else group
        if new != old:
            renamed[old, new] += 1
    if not renamed:
        return result, []
    shown = ", ".join(f"{old} as {new}" for old, new in list(renamed)[:8])
    more = f" and {len(renamed) - 8} more" if len(renamed) > 8 else ""
    text = f"residue names of other programs: {shown}{more}"
    return result, [Decision("read", "names", text, numbers={"residues": sum(renamed.values())})]


def _as_ion(group: list[AtomRecord]) -> AtomRecord | None:
    """The atom of a monatomic ion under the PDB's names, or None for any other residue."""
    if len(group) != 1:
        return None
    atom = group[0]
    found = ion_of(atom.residue_name) or (ion_of(atom.name) if atom.residue_name in ("ION", "IONS") else None)
    if found is None or (atom.element and atom.element != found[0] and atom.residue_name in ION_CHARGES):
        return None
    element, charge = found
    charge = atom.charge if atom.charge else charge
    name = _NAMED_CHARGES.get((element, charge), element)
    if (atom.residue_name, atom.name) == (name, element):
        return atom._replace(charge=charge)  # a blank element is guessed, and said, with all others
    return atom._replace(residue_name=name, name=element, element=element, charge=charge)


def _polymer_name(group: list[AtomRecord]) -> str:
    """Name of an amino acid or nucleotide without what programs add for its end of the chain."""
    name, names = group[0].residue_name, {atom.name for atom in group}
    if len(names & _BACKBONE) >= 2:
        if len(name) == 4 and name[0] in "NC" and (name[1:] in AMINO_ACIDS or name[1:] in _PROTEIN):
            name = name[1:]
        return _PROTEIN.get(name, name)
    if names & {"C1'", "C1*"} and names & {"N1", "N9"}:
        core = name[1:] if len(name) > 1 and name[0] in "DR" else name
        base = _BASES.get(core) or _BASES.get(core.rstrip("35N"))
        if base:
            ribose = bool(names & {"O2'", "O2*"})
            return base if ribose else f"D{base}"
    return name
