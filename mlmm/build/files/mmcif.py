"""Reader of mmCIF text: tables become the atom records that PDB text gives."""

from __future__ import annotations

import math

import gemmi
from gemmi import cif

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import (
    AMINO_ACIDS,
    NUCLEOTIDES,
    Assembly,
    AtomRecord,
    Connection,
    ResidueKey,
    StructureFile,
)
from mlmm.build.files.fixed_columns import FARTHEST
from mlmm.build.files.links import linked_pairs
from mlmm.build.files.pdb_text import assembly_of
from mlmm.errors import StructureError

_NOTHING = {"", ".", "?"}


def parse_mmcif(text: str, name: str, sha256: str) -> StructureFile:
    """Read mmCIF text; chain, residue and atom names are the author's, the label chain is kept beside.

    Raises
    ------
    StructureError
        A file that is no CIF, or without atoms or with coordinates that are no finite numbers.
    """
    try:
        blocks = [block for block in cif.read_string(text) if block.find_loop("_atom_site.id")]
    except Exception as error:  # gemmi raises ValueError and RuntimeError, with the line in the message
        raise StructureError(
            "an mmCIF file", f"{name} that cannot be read ({error})", "download it again"
        ) from error
    atoms = _atoms(blocks[0], name) if blocks else []
    if not atoms:
        raise StructureError("an _atom_site table", f"none in {name}", "give an mmCIF file with coordinates")
    block = blocks[0]
    assemblies, notes = _assemblies(block)
    return StructureFile(
        name=name,
        sha256=sha256,
        format="mmcif",
        atoms=tuple(atoms),
        cell=_cell(block, name),
        space_group=_single(block, "_symmetry.space_group_name_H-M", "_space_group.name_H-M_alt"),
        sequences=_sequences(block, atoms),
        replacements=_replacements(block),
        connections=_connections(block, atoms),
        assemblies=assemblies,
        # Archives end every table with "#"; a file whose last line is an atom may have been cut there.
        ended=not text.rstrip().rpartition("\n")[2].startswith(("ATOM", "HETATM")),
        notes=tuple(notes),
    )


def _column(block: cif.Block, *tags: str) -> list[str]:
    """Values of the first tag that exists, unquoted, empty where the file has . or ?"""
    for tag in tags:
        found = block.find_values(tag)
        if found:
            return ["" if value in _NOTHING else cif.as_string(value) for value in found]
    return []


def _single(block: cif.Block, *tags: str) -> str:
    for tag in tags:
        value = block.find_value(tag)
        if value is not None and value not in _NOTHING:
            return cif.as_string(value)
    return ""


def _atoms(block: cif.Block, name: str) -> list[AtomRecord]:
    count = len(_column(block, "_atom_site.id"))

    def column(*labels: str, needed: bool = False) -> list[str]:
        values = _column(block, *(f"_atom_site.{label}" for label in labels))
        if needed and not values:
            raise StructureError(
                f"a column _atom_site.{labels[0]}", f"none in {name}", "download the file again"
            )
        return values or [""] * count

    positions = [column(f"Cartn_{axis}", needed=True) for axis in "xyz"]
    names = column("auth_atom_id", "label_atom_id", needed=True)
    residue_names = column("auth_comp_id", "label_comp_id", needed=True)
    chains, label_chains = column("auth_asym_id", "label_asym_id"), column("label_asym_id")
    numbers, codes = column("auth_seq_id", "label_seq_id"), column("pdbx_PDB_ins_code")
    locations, models = column("label_alt_id"), column("pdbx_PDB_model_num")
    groups, symbols = column("group_PDB"), column("type_symbol")
    occupancies, charges, serials = column("occupancy"), column("pdbx_formal_charge"), column("id")
    atoms = []
    for row in range(count):
        x, y, z = (0.1 * _coordinate(values[row], row, name) for values in positions)
        atoms.append(
            AtomRecord(
                line=row + 1,
                hetero=groups[row] == "HETATM",
                serial=serials[row],
                name=names[row],
                location=locations[row] or " ",
                residue_name=residue_names[row],
                chain=chains[row],
                number=str(_integer(numbers[row] or "1", "auth_seq_id", row, name)),
                insertion_code=codes[row],
                x=x,
                y=y,
                z=z,
                occupancy=_number(occupancies[row], 1.0),
                element=symbols[row].upper() if gemmi.Element(symbols[row]).atomic_number else "",
                charge=int(charges[row]) if charges[row].lstrip("+-").isdecimal() else None,
                model=_integer(models[row] or "1", "pdbx_PDB_model_num", row, name),
                label_chain=label_chains[row],
            )
        )
        if not (names[row] and residue_names[row]):
            raise StructureError(
                "an atom name and a residue name in every row",
                f"none in atom_site row {row + 1} of {name}",
                "correct the row",
            )
    return atoms


def _coordinate(text: str, row: int, name: str) -> float:
    value = _number(text, math.nan)
    if not abs(value) < FARTHEST:  # nan is not below anything
        raise StructureError(
            "finite coordinates",
            f"{text!r} in atom_site row {row + 1} of {name}",
            "correct or delete the atom",
        )
    return value


def _number(text: str, otherwise: float) -> float:
    """A CIF number; a standard deviation in brackets is left away."""
    try:
        value = float(text.partition("(")[0])
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def _integer(text: str, tag: str, row: int, name: str) -> int:
    if text.lstrip("-").isdecimal() and text.isascii():
        return int(text)
    raise StructureError(
        f"whole numbers as {tag}", f"{text!r} in atom_site row {row + 1} of {name}", "correct the row"
    )


def _cell(block: cif.Block, name: str) -> tuple[float, ...] | None:
    tags = [f"_cell.length_{edge}" for edge in "abc"] + [
        f"_cell.angle_{a}" for a in ("alpha", "beta", "gamma")
    ]
    texts = [_single(block, tag) for tag in tags]
    if not all(texts):
        return None
    cell = [_number(text, math.nan) for text in texts]
    if not all(math.isfinite(value) and value >= 0 for value in cell):
        raise StructureError(
            "six numbers in the _cell category", f"{', '.join(texts)} in {name}", "correct or delete them"
        )
    return (*(0.1 * edge for edge in cell[:3]), *cell[3:])


def _sequences(block: cif.Block, atoms: list[AtomRecord]) -> dict[str, tuple[str, ...]]:
    """By author chain; of residues that vary the first name."""
    entities, numbers, names = (
        _column(block, f"_entity_poly_seq.{tag}") for tag in ("entity_id", "num", "mon_id")
    )
    by_entity: dict[str, dict[str, str]] = {}
    for entity, number, residue in zip(entities, numbers, names, strict=False):
        by_entity.setdefault(entity, {}).setdefault(number, residue.upper())
    entity_of = dict(
        zip(_column(block, "_struct_asym.id"), _column(block, "_struct_asym.entity_id"), strict=False)
    )
    sequences: dict[str, tuple[str, ...]] = {}
    for label, chain in {atom.label_chain: atom.chain for atom in atoms}.items():
        found = by_entity.get(entity_of.get(label, ""))
        if found and chain not in sequences:
            sequences[chain] = tuple(found.values())
    return sequences


def _replacements(block: cif.Block) -> dict[tuple[ResidueKey, str], str]:
    columns = [
        _column(block, f"_pdbx_struct_mod_residue.{tag}")
        for tag in ("auth_asym_id", "auth_seq_id", "PDB_ins_code", "auth_comp_id", "parent_comp_id")
    ]
    columns[2] = columns[2] or [""] * len(columns[0])
    return {
        (ResidueKey(chain, number, code), residue.upper()): parent.upper()
        for chain, number, code, residue, parent in zip(*columns, strict=False)
        if parent
    }


def _connections(block: cif.Block, atoms: list[AtomRecord]) -> tuple[Connection, ...]:
    """Covalent bonds of struct_conn within the asymmetric unit, and chem_comp_bond within ligands."""
    places: dict[tuple[str, ...], list[int]] = {}
    for index, atom in enumerate(atoms):
        if atom.model == atoms[0].model:
            key = (atom.label_chain, atom.residue_name, atom.number, atom.insertion_code, atom.name)
            places.setdefault(key, []).append(index)

    def partner(which: int) -> list[tuple[str, ...]]:
        tags = (
            f"ptnr{which}_label_asym_id",
            f"ptnr{which}_label_comp_id",
            f"ptnr{which}_auth_seq_id",
            f"pdbx_ptnr{which}_PDB_ins_code",
            f"ptnr{which}_label_atom_id",
        )
        columns = [_column(block, f"_struct_conn.{tag}") for tag in tags]
        columns[3] = columns[3] or [""] * len(columns[0])
        return list(zip(*columns, strict=False))

    kinds = _column(block, "_struct_conn.conn_type_id")
    symmetry = [
        _column(block, f"_struct_conn.ptnr{which}_symmetry") or ["1_555"] * len(kinds) for which in (1, 2)
    ]
    found: list[Connection] = []
    for kind, one, other, here, there in zip(kinds, partner(1), partner(2), *symmetry, strict=False):
        bond = kind.lower().startswith(("covale", "disulf", "modres"))
        if bond and (here or "1_555") == (there or "1_555"):
            found += linked_pairs(atoms, places.get(one, []), places.get(other, []), "struct_conn")
    components = zip(
        *(_column(block, f"_chem_comp_bond.{tag}") for tag in ("comp_id", "atom_id_1", "atom_id_2")),
        strict=False,
    )
    bonds: dict[str, list[tuple[str, str]]] = {}
    for residue, one, other in components:
        if residue not in AMINO_ACIDS and residue not in NUCLEOTIDES:
            bonds.setdefault(residue, []).append((one, other))
    inside: set[tuple[int, int]] = set()
    for identity in {key[:4] for key in places if key[1] in bonds}:
        for one, other in bonds[identity[1]]:
            for i in places.get((*identity, one), []):
                inside |= {(min(i, j), max(i, j)) for j in places.get((*identity, other), [])}
    return tuple(sorted({*found, *(Connection(*pair, "chem_comp_bond") for pair in inside)}))


def _assemblies(block: cif.Block) -> tuple[tuple[Assembly, ...], list[Decision]]:
    if not _column(block, "_pdbx_struct_assembly.id"):
        return (), []
    try:
        described = gemmi.make_structure_from_block(block)
        return tuple(assembly_of(assembly) for assembly in described.assemblies), []
    except (RuntimeError, ValueError) as error:
        text = f"the assemblies in the file cannot be read ({error}): none are offered"
        return (), [Decision("read", "assembly", text, warning=True)]
