"""Truncated, shuffled and corrupted files end in a structure or in a sentence, never in a traceback."""

import gzip

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peptides import peptide, peptide_mmcif

from mlmm.build.files.dialects import ION_CHARGES
from mlmm.build.files.inspection import inspect_file
from mlmm.build.files.reading import read_file, settle
from mlmm.build.files.selection import Selection
from mlmm.build.plan import plan_system
from mlmm.errors import MLMMError

REMARKS = [
    "CRYST1   54.890   58.520   67.630  90.00  90.00  90.00 P 21 21 21    4",
    "REMARK 350 BIOMOLECULE: 1",
    "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
    "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
    "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
    "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
    "SEQRES   1 A    6  ILE VAL GLY GLY TYR THR",
    "MODRES 3PTB VAL A   17  VAL",
    "LINK         NZ  LYS A   2                 CG  ASP A   4     1555   1555  1.33",
    "SSBOND   1 CYS A   22    CYS A  157                          1555   1555  2.04",
]
LINES = [
    *REMARKS,
    *peptide(5),
    "TER",
    "CONECT    1    2",
    "END",
]
TEXT = "\n".join(LINES)


CIF = peptide_mmcif(5, joined=True)
BOUNDS = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
COLUMNS = [(6, 5), (12, 4), (16, 1), (17, 3), (21, 1), (22, 4), (26, 1), (30, 8), (54, 6), (76, 2)]
PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126)


def ends_well(folder, content):
    """Read, inspect and settle; only a problem that the user can solve may come out."""
    path = folder / "case.pdb"
    path.write_bytes(content)
    try:
        file = read_file(path)
        assert str(inspect_file(file))
        structure = settle(file, Selection(waters="0.5 nm", hydrogens="strip"))
        assert len(structure.atoms) > 0
    except MLMMError as error:
        assert error.expected and error.got and error.do


@BOUNDS
@given(data=st.data())
def test_changed_characters_are_built_or_rejected(tmp_path, data):
    text = data.draw(st.sampled_from([TEXT, CIF]))
    places = data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=8))
    letters = list(text)
    for place in places:
        letters[place] = data.draw(PRINTABLE)
    ends_well(tmp_path, "".join(letters).encode())


@BOUNDS
@given(data=st.data())
def test_truncated_files_are_built_or_rejected(tmp_path, data):
    content = data.draw(st.sampled_from([TEXT.encode(), CIF.encode(), gzip.compress(TEXT.encode())]))
    ends_well(tmp_path, content[: data.draw(st.integers(0, len(content)))])


@BOUNDS
@given(data=st.data())
def test_shuffled_repeated_and_lost_lines(tmp_path, data):
    lines = data.draw(st.sampled_from([LINES, CIF.splitlines()]))
    chosen = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=2 * len(lines)))
    ends_well(tmp_path, "\n".join(lines[i] for i in chosen).encode())


@BOUNDS
@given(data=st.data())
def test_columns_with_other_content(tmp_path, data):
    """One field of many lines replaced: what a program writes that has another idea of the format."""
    start, width = data.draw(
        st.sampled_from(
            [(6, 5), (12, 4), (16, 1), (17, 3), (21, 1), (22, 4), (26, 1), (30, 8), (54, 6), (76, 2)]
        )
    )
    text = data.draw(st.text(PRINTABLE, min_size=width, max_size=width))
    every = data.draw(st.integers(1, 5))
    lines = [
        line[:start] + text + line[start + width :] if line.startswith("ATOM") and i % every == 0 else line
        for i, line in enumerate(LINES)
    ]
    ends_well(tmp_path, "\n".join(lines).encode())


@BOUNDS
@given(content=st.binary(max_size=400), head=st.sampled_from([b"", b"data_x\n", b"ATOM  ", b"\x1f\x8b"]))
def test_random_bytes_are_rejected(tmp_path, content, head):
    ends_well(tmp_path, head + content)


_PROTEIN = "HISD HISH HSE NGLY CALA LYSH CYM CYX HYP SEP KCX MSE CSO ACE NH2 NLN"
_OTHERS = "DA5 RU3 ADE U HOH TIP3 SOL WAT SOD CLA POT FE2 ZN2+ NA+ CL- UNK LIG HEM NAG"
NAMES = [*_PROTEIN.split(), *_OTHERS.split(), *ION_CHARGES]
ATOMS = st.sampled_from(["N", "CA", "C", "O", "CB", "SG", "NZ", "P", "FE", "XX"])
PLACES = st.integers(-1, 8)


@settings(BOUNDS, max_examples=30)
@given(data=st.data())
def test_any_names_and_records_of_bonds_are_planned_or_rejected(tmp_path, data):
    """Residues and ions under any name, bonded by records to anything, up to the plan of a build."""
    lines = peptide(5)
    chosen, name = data.draw(PLACES), data.draw(st.sampled_from(NAMES))
    lines = [
        f"{line[:17]}{name[:4]:<4s}{line[21:]}" if line[22:26].strip() == str(chosen) else line
        for line in lines
    ]
    ion, x = data.draw(st.sampled_from(NAMES)), data.draw(st.floats(-20, 20))
    extra = f"HETATM  900 {ion[:4]:<4s} {ion[:4]:<4s}B 301    {x:8.3f}   5.000   5.000  1.00  0.00"
    ends = [(data.draw(ATOMS), data.draw(st.sampled_from([*NAMES, "ALA"])), data.draw(PLACES)) for _ in "12"]
    (a, one, i), (b, other, j) = ends
    records = [
        f"LINK        {a:^4s} {one[:3]:>3s} A{i:4d}{'':16s}{b:^4s} {other[:3]:>3s} A{j:4d}     1555   1555",
        f"SSBOND   1 CYS A {i:4d}    CYS A {j:4d}                          1555   1555  2.04",
    ]
    bond = f"CONECT{data.draw(st.integers(0, 40)):5d}{data.draw(st.sampled_from([900, 1, 7])):5d}"
    path = tmp_path / "case.pdb"
    path.write_text("\n".join([*records, *lines, "TER", extra, bond, "END"]) + "\n")
    try:
        assert str(plan_system(path, solvate=False))
    except MLMMError as error:
        assert error.expected and error.got and error.do
