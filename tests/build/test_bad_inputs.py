"""Files as users have them: each is built as a careful person would, or refused with place and next step.

One row per way to spoil a file. Most of these are read without complaint, and wrongly, by common readers.
"""

import gzip
from typing import NamedTuple

import numpy as np
import pytest
from fragments import hetatm, moved, name, number, put
from peptides import peptide, peptide_mmcif

from mlmm.build import build_system
from mlmm.build.files.atoms import coordinates, is_hydrogen
from mlmm.build.files.reading import read_structure
from mlmm.build.files.selection import Selection
from mlmm.errors import MLMMError, StructureError

GOOD = peptide()


class Reads(NamedTuple):
    """The file is settled: number of atoms, words of the log, a question about the structure."""

    atoms: int = 216
    words: tuple = ()
    holds: object = None
    selection: Selection = Selection()


class Builds(NamedTuple):
    """The whole path goes through: number of atoms, words of the log."""

    atoms: int = 421
    words: tuple = ()


class Stops(NamedTuple):
    """Refused, with these words in the message."""

    words: tuple


# ---- ways to spoil the fragment ----


def each(change, when=lambda line: True):
    return [change(line) if when(line) else line for line in GOOD]


def without(residue, *names):
    return [x for x in GOOD if number(x) != residue or (names and name(x) not in names)]


def alternate(residue, names, other_residue_name=None):
    """Locations A (occupancy 0.3) and B (0.7, moved by 0.5 angstrom) of some atoms."""
    lines = []
    for line in GOOD:
        if number(line) == residue and name(line) in names:
            lines.append(put(put(line, 17, "A"), 57, "0.30"))
            second = put(put(moved(line, x=0.5), 17, "B"), 57, "0.70")
            lines.append(put(second, 18, other_residue_name) if other_residue_name else second)
        else:
            lines.append(line)
    return lines


def renumbered(change):
    return each(lambda line: put(line, 23, f"{change(number(line)):4d}"))


def shifted_columns():
    """Residue numbers of five digits push everything behind them by one column."""
    return each(lambda line: f"{line[:22]}{number(line) + 10000:5d}{line[26:]}")


def five_digits():
    """Residue numbers of five digits that reach into the column of the insertion code."""
    return each(lambda line: put(line, 23, f"{number(line) + 10000:5d}"))


def sequence_lines(names):
    rows = [names[i : i + 13] for i in range(0, len(names), 13)]
    return [f"SEQRES{i:4d} A {len(names):4d}  {' '.join(row)}" for i, row in enumerate(rows, start=1)]


def full_sequence():
    return list(dict.fromkeys((line[17:20], line[22:27]) for line in GOOD))


def with_sequence(lines):
    return [*sequence_lines([residue for residue, _ in full_sequence()]), *lines]


def hybrid36(value, width=5):
    """A number too long for its columns in base 36, upper case."""
    value += 10 * 36 ** (width - 1) - 10**width
    text = ""
    while value:
        value, last = divmod(value, 36)
        text = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[last] + text
    return text


def atom(structure, residue, atom_name):
    return next(a for a in structure.atoms if a.number == str(residue) and a.name == atom_name)


def same_as_good(structure):
    return np.abs(coordinates(structure.atoms) - coordinates(good().atoms)).max() < 1e-9


_CACHE = {}


def good(tmp=None):
    if tmp is not None:
        _CACHE["good"] = read_structure(tmp)
    return _CACHE["good"]


def mirrored(lines):
    return [moved(line, signs=(-1, 1, 1)) for line in lines]


CASES = {
    "00 control": lambda: (GOOD, Reads(holds=lambda s: s.missing == () and len(s.runs) == 1)),
    "01 no hydrogens": lambda: ([*GOOD, "END"], Builds(words=("205 hydrogens added",))),
    "02 side chain cut": lambda: (
        [*without(20, "CG", "CD1", "CD2", "CE1", "CE2", "CZ", "OH"), "END"],
        # TYR 20 keeps N, CA, C, O, CB only.
        Builds(words=("TYR 20 of chain A: missing CG, CD1, CE1, CZ, OH, CE2, CD2 added",)),
    ),
    "03 backbone atoms missing": lambda: (
        [*without(24, "N", "CA"), "END"],
        Builds(words=("ALA 24 of chain A: missing N, CA added",)),
    ),
    "04 three residues missing": lambda: (
        [line for line in GOOD if number(line) not in (24, 25, 26)],
        Stops(("GLY 23 of chain A", "VAL 27 of chain A", "nm", "TER")),
    ),
    "05 atom name twice": lambda: (
        [*GOOD[:3], put(GOOD[2], 13, " CA "), *GOOD[3:]],
        Stops(("CA of ILE 16 of chain A", "lines 2 and 4", "Delete one")),
    ),
    "06 alternate side chain": lambda: (
        alternate(33, ("CG", "CD1", "CD2")),
        Reads(
            words=("LEU 33 of chain A: alternate location B taken", "A 0.90, B 2.10"),
            holds=lambda s: abs(atom(s, 33, "CG").x - atom(good(), 33, "CG").x - 0.05) < 1e-9,
        ),
    ),
    "07 two residues in one place": lambda: (
        alternate(17, ("N", "CA", "C", "O", "CB", "CG1", "CG2"), "ILE"),
        Reads(
            words=("ILE/VAL 17 of chain A: alternate location B taken",),
            holds=lambda s: atom(s, 17, "CA").residue_name == "ILE",
        ),
    ),
    "08 unknown residue": lambda: (
        [*GOOD, "TER", hetatm(900, " C1 ", "LIG", "B", 1, (30.0, 30.0, 30.0), "C"), "END"],
        Stops(("unknown LIG 1 of chain B", "[system.ligand.LIG]", 'smiles = "…"', "mlmm ligand", "ligands")),
    ),
    "09 selenomethionine": lambda: (
        [*each(lambda x: put(put(x, 1, "HETATM"), 18, "MSE"), lambda x: number(x) == 33), "END"],
        Builds(419, ("MSE 33 of chain A replaced by MET", "MET 33 of chain A: missing SD, CE added")),
    ),
    "10 two models": lambda: (
        ["MODEL        1", *GOOD, "ENDMDL", "MODEL        2", *GOOD, "ENDMDL"],
        Stops(("one model", "2 in", "line 220", "model = 1")),
    ),
    "10 the second of two models": lambda: (
        ["MODEL        1", *GOOD, "ENDMDL", "MODEL        2", *[moved(x, x=1) for x in GOOD], "ENDMDL"],
        Reads(
            words=("model 2 taken",),
            selection=Selection(model=2),
            holds=lambda s: abs(s.atoms[0].x - good().atoms[0].x - 0.1) < 1e-9,
        ),
    ),
    "11 occupancy zero": lambda: (
        each(lambda x: put(x, 57, "0.00"), lambda x: number(x) == 33 and name(x) == "CD1"),
        Reads(words=("1 atoms with occupancy zero", "LEU 33 of chain A")),
    ),
    "12 alpha carbons as calcium": lambda: (
        each(lambda x: put(x, 77, "CA"), lambda x: name(x) == "CA"),
        Reads(
            words=("elements of 30 atoms contradict", "CA of ILE 16 of chain A in line 2: Ca is C"),
            holds=lambda s: {a.element for a in s.atoms if a.name == "CA"} == {"C"},
        ),
    ),
    "13 no elements": lambda: (
        [*(x[:76].rstrip() for x in GOOD), hetatm(900, "CA  ", "CA", "A", 480, (30, 30, 30), "")],
        Reads(217, ("elements of 1 atoms", "CA CA Ca"), lambda s: s.atoms[-1].element == "CA"),
    ),
    "14 entry name in the element columns": lambda: (
        [put(x, 73, f"2CHT{i:4d}") for i, x in enumerate(GOOD, start=389)],
        Reads(holds=lambda s: [a.element for a in s.atoms] == [a.element for a in good().atoms]),
    ),
    "15 serial numbers in base 36": lambda: (
        [put(x, 7, f"{hybrid36(100000 + i):>5s}") for i, x in enumerate(GOOD)],
        Reads(holds=same_as_good),
    ),
    "16 serial numbers as stars": lambda: (each(lambda x: put(x, 7, "*****")), Reads(holds=same_as_good)),
    "17 negative residue numbers": lambda: (
        renumbered(lambda n: n - 30),
        Reads(holds=lambda s: s.atoms[0].number == "-14" and same_as_good(s)),
    ),
    "18 insertion codes": lambda: (
        each(lambda x: put(x, 23, "  17A"), lambda x: number(x) == 18),
        Reads(holds=lambda s: [a.insertion_code for a in s.atoms if a.number == "17"].count("A") == 4),
    ),
    "19 one number for all residues": lambda: (
        renumbered(lambda n: 1),
        Stops(("ILE 1 of chain A and VAL", "lines")),
    ),
    "20 only water": lambda: (
        [hetatm(i, " O  ", "HOH", "A", i, (3.0 * i, 0, 0), "O") for i in range(1, 6)],
        Stops(("only water", "holds the solute")),
    ),
    "21 empty": lambda: (b"", Stops(("which is empty", "again"))),
    "22 header only": lambda: (["HEADER    HYDROLASE", "END"], Stops(("none in the 2 lines", "coordinates"))),
    "23 cut within a line": lambda: ([*GOOD[:99], GOOD[99][:40]], Stops(("line 100", "truncated"))),
    "24 binary": lambda: (bytes(range(256)) * 9, Stops(("no text", "not an archive"))),
    "25 mmCIF named .pdb": lambda: (
        peptide_mmcif().encode(),
        Reads(holds=lambda s: s.format == "mmcif" and same_as_good(s)),
    ),
    "26 gzip named .pdb": lambda: (gzip.compress("\n".join(GOOD).encode()), Reads(holds=same_as_good)),
    "27 nan": lambda: (
        [put(GOOD[0], 31, "     nan"), *GOOD[1:]],
        Stops(("finite", "line 1", "delete the atom")),
    ),
    "28 overflow": lambda: (
        [put(GOOD[0], 39, "********"), *GOOD[1:]],
        Stops(("line 1", "Move the molecule")),
    ),
    "29 far from the origin": lambda: (
        [moved(x, x=9900, y=-900) for x in GOOD],
        Reads(
            words=("nm from the origin and was moved",),
            holds=lambda s: (
                np.abs(np.diff(coordinates(s.atoms) - coordinates(good().atoms), axis=0)).max() < 2e-4
            ),
        ),
    ),
    "30 all at the origin": lambda: (
        each(lambda x: moved(x, factor=0.0)),
        Stops(("all 216 atoms", "place-holders")),
    ),
    "31 two atoms in one place": lambda: (
        [*GOOD[:7], put(GOOD[7], 31, GOOD[5][30:54]), *GOOD[8:]],
        Stops(("0.05 nm", "CG1 of ILE 16", "line 6", "line 8")),
    ),
    "32 one chain id for two molecules": lambda: (
        [*GOOD, *(moved(x, x=60) for x in GOOD)],
        Stops(("ILE 16 of chain A in line 217", "line 1", "TER")),
    ),
    "32 the same with TER": lambda: (
        [*GOOD, "TER", *(moved(x, x=60) for x in GOOD), "TER"],
        Reads(432, ("it is chain B from now on",), lambda s: len(s.runs) == 2),
    ),
    "33 water without TER": lambda: (
        [*GOOD, hetatm(900, " O  ", "HOH", "A", 401, (30.0, 30.0, 30.0), "O"), "END"],
        Builds(424, ("1 of 1 waters kept",)),
    ),
    "34 fields between blanks": lambda: (
        [" ".join(x.split()) for x in GOOD],
        Stops(("fixed columns", "line 1")),
    ),
    "34 tabs": lambda: (["\t".join(x.split()) for x in GOOD], Stops(("fixed columns", "line 1"))),
    "35 line ends of Windows": lambda: ("\r\n".join(GOOD).encode(), Reads(holds=same_as_good)),
    "36 byte-order mark": lambda: (
        b"\xef\xbb\xbf" + "\n".join(["REMARK   1 \xc5ngstr\xf6m", *GOOD]).encode(),
        Reads(holds=same_as_good),
    ),
    "37 CONECT to nowhere": lambda: (
        [*GOOD, "CONECT    199998", "CONECT    1   90"],
        Reads(
            words=("1 CONECT records (lines 217)", "longer than 0.26 nm left out"),
            holds=lambda s: s.bonds == (),
        ),
    ),
    "38 alpha carbons only": lambda: (
        [x for x in GOOD if name(x) == "CA"],
        Stops(("half of the heavy atoms", "trace of CA atoms", "Rebuild")),
    ),
    "39 HIP without hydrogens": lambda: (
        [*each(lambda x: put(x, 18, "HIP"), lambda x: number(x) == 40), "END"],
        Builds(422, ("HIS 40 of chain A is HIP",)),
    ),
    "39 CYX without partner": lambda: (
        each(lambda x: put(x, 18, "CYX"), lambda x: number(x) == 22),
        Stops(("CYX", "CYS", "22 of chain A", "line")),
    ),
    "40 zinc": lambda: (
        [*GOOD, "TER", hetatm(900, "ZN  ", "ZN", "B", 1, (30.0, 30.0, 30.0), "ZN"), "END"],
        Builds(422, ("ZN 1 of chain B is held by charge alone",)),
    ),
    "41 lower case": lambda: (
        [x.lower() for x in GOOD],
        Reads(words=("upper case",), holds=lambda s: s.atoms[1].name == "CA" and same_as_good(s)),
    ),
    "42 charges and radii": lambda: (
        each(lambda x: put(x, 55, " -0.30" if name(x) in "NO" else "  0.20")[:60] + "1.8500"),
        Stops(("PQR", "line 1", "PDB file from which it was made")),
    ),
    "43 no chain id": lambda: (
        each(lambda x: put(x, 22, " ")),
        Reads(words=("has no id: A",), holds=lambda s: {a.chain for a in s.atoms} == {"A"}),
    ),
    "44 cell of 1 angstrom": lambda: (
        ["CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1", *GOOD, "END"],
        Builds(words=("place-holder and was ignored",)),
    ),
    "45 deuterium": lambda: (
        [GOOD[0], put(put(moved(GOOD[0], z=1.01), 13, " D1 "), 77, " D"), *GOOD[1:], "END"],
        Builds(421, ("1 deuterium atoms treated as hydrogen",)),
    ),
    "46 mirror image": lambda: (mirrored(GOOD), Stops(("D configuration", "mirror image", "ILE 16"))),
    "46 one residue of the other hand": lambda: (
        [*GOOD[:1], *GOOD[1:4], put(GOOD[4], 31, _reflected_cb()), *GOOD[5:]],
        Reads(words=("ILE 16 of chain A has D configuration",)),
    ),
    "47 nanometres": lambda: (each(lambda x: moved(x, factor=0.1)), Stops(("angstrom", "nm", "Multiply"))),
    "48 cut at the end of a line": lambda: (
        with_sequence(GOOD[:100]),
        Stops(("still to come", "TER or END")),
    ),
    "48 the same without sequence": lambda: (GOOD[:100], Stops(("ends within", "TER or END"))),
    "48 cut before the second chain": lambda: (
        ["SEQRES   1 B    3  ALA GLY SER", *with_sequence(GOOD)],
        Stops(("without atoms of chain B", "TER or END")),
    ),
    "48 a chain without atoms in a whole file": lambda: (
        ["SEQRES   1 B    3  ALA GLY SER", *with_sequence(GOOD), "END"],
        Reads(words=("no atoms of chain B of the sequence",)),
    ),
    "48 cut behind a residue": lambda: (
        [x for x in GOOD if number(x) < 30],
        Reads(98, ("if the file was cut, the rest is missing",)),
    ),
    "50 an atom torn away": lambda: (
        each(lambda x: moved(x, x=9), lambda x: number(x) == 33 and name(x) == "CD1"),
        Stops(("nm between CD1 and CG of LEU 33 of chain A", "delete the atom")),
    ),
    "49 residue numbers above 9999": lambda: (shifted_columns(), Stops(("fixed columns", "line 1"))),
    "49 the same in five columns": lambda: (
        five_digits(),
        Reads(holds=lambda s: s.atoms[0].number == "10016" and s.atoms[0].insertion_code == ""),
    ),
    "49 residue numbers in base 36": lambda: (
        each(lambda x: put(x, 23, hybrid36(number(x) + 10000, width=4))),
        Reads(holds=lambda s: s.atoms[0].number == "10016"),
    ),
}


def _reflected_cb():
    """CB of ILE 16 behind the plane of N, CA and C."""
    at = {name(x): np.array([float(x[k : k + 8]) for k in (30, 38, 46)]) for x in GOOD if number(x) == 16}
    normal = np.cross(at["N"] - at["CA"], at["C"] - at["CA"])
    normal /= np.linalg.norm(normal)
    place = at["CB"] - 2 * np.dot(at["CB"] - at["CA"], normal) * normal
    return "".join(f"{value:8.3f}" for value in place)


def write(folder, content):
    path = folder / "case.pdb"
    path.write_bytes(content if isinstance(content, bytes) else ("\n".join(content) + "\n").encode())
    return path


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_repaired_and_logged_or_rejected(tmp_path, case):
    good(write(tmp_path, GOOD))
    content, outcome = CASES[case]()
    path = write(tmp_path, content)
    if isinstance(outcome, Stops):
        with pytest.raises(StructureError) as caught:
            build_system(path, solvate=False)
        message = str(caught.value)
        assert not [word for word in outcome.words if word not in message], message
        assert caught.value.do
        return
    if isinstance(outcome, Reads):
        structure = read_structure(path, outcome.selection)
        texts = "\n".join(decision.text for decision in structure.decisions)
        assert len(structure.atoms) == outcome.atoms
        assert outcome.holds is None or outcome.holds(structure)
    else:
        built = build_system(path, solvate=False)
        texts = "\n".join(built.provenance["decisions"])
        assert built.n_atoms == outcome.atoms
    assert not [word for word in outcome.words if word not in texts], texts


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(StructureError, match=r"no file at .*none\.pdb.*case\.pdb"):
        build_system(tmp_path / "none.pdb")
    with pytest.raises(StructureError, match=r"the directory .*Give a file in it"):
        build_system(tmp_path)


def test_reading_the_fragment_changes_nothing(tmp_path):
    """The control: what is written is what stands in the file, atom by atom."""
    structure = read_structure(write(tmp_path, GOOD))
    places = np.array([[float(line[k : k + 8]) for k in (30, 38, 46)] for line in GOOD])
    np.testing.assert_allclose(coordinates(structure.atoms), 0.1 * places, atol=1e-12)
    assert [a.name for a in structure.atoms] == [name(line) for line in GOOD]
    assert not any(is_hydrogen(a) for a in structure.atoms)
    assert issubclass(StructureError, MLMMError)


def test_the_guide_counts_the_kinds_of_bad_input(root):
    controls = [case for case in CASES if case.startswith("00")]
    text = (root / "examples/guide/builder.md").read_text()
    assert f"{len(CASES) - len(controls)} kinds of bad input" in text
