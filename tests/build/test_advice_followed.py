"""What a refusal advises is done word by word, and the build goes on."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from mlmm.build import build_system
from mlmm.build.ligands.definition import Ligand
from mlmm.build.plan import plan_system
from mlmm.errors import StructureError

CASES = Path(__file__).parent / "cases"


def hetatm(name, residue, number, place, element, chain="W"):
    x, y, z = place
    column = f"{name:<4s}" if len(element) == 2 else f" {name:<3s}"
    return (
        f"HETATM{number:5d} {column} {residue:>3s} {chain}{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
        f"  1.00  0.00          {element:>2s}"
    )


def peptide():
    """Lines of the case, and places of its atoms in angstrom."""
    lines = [line for line in (CASES / "af.pdb").read_text().splitlines() if line.startswith(("ATOM", "TER"))]
    places = {
        (int(line[22:26]), line[12:16].strip()): np.array([float(line[s : s + 8]) for s in (30, 38, 46)])
        for line in lines
        if line.startswith("ATOM")
    }
    return lines, places


def outwards(places, residue, atom, distance):
    centre = np.mean([*places.values()], axis=0)
    way = places[residue, atom] - centre
    return places[residue, atom] + distance * way / np.linalg.norm(way)


def water_on_an_atom(lines, places):
    return [*lines, hetatm("O", "HOH", 301, outwards(places, 6, "OE1", 1.5), "O")]


def bridged_metals(lines, places):
    site = [(("ZN", "ZN", 301), 2.0), (("O", "HOH", 501), 4.0), (("ZN", "ZN", 302), 6.0)]
    far = outwards(places, 1, "N", 12.0)
    return [
        *lines,
        *(hetatm(*who, far + np.array([0, 0, z]), "ZN" if who[0] == "ZN" else "O") for who, z in site),
    ]


def unknown_ligand(lines, places):
    far = outwards(places, 1, "N", 12.0)
    atoms = [("C1", 0.0, "C"), ("C2", 1.5, "C"), ("O1", 2.9, "O")]
    return [*lines, *(hetatm(n, "LIG", 201, far + np.array([0, 0, z]), e) for n, z, e in atoms)]


def gap(lines, places):
    return [line for line in lines if line[22:26].strip() not in ("3", "4")]


def copper_of_charge_one(lines, places):
    return [*lines, hetatm("CU", "CU1", 301, outwards(places, 1, "N", 12.0), "CU")]


def two_models(lines, places):
    return ["MODEL        1", *lines, "ENDMDL", "MODEL        2", *lines, "ENDMDL"]


def followed(text):
    """Options of each complete `key = value` of an advice, in its order; files that are left open are not."""
    found = re.findall(r"\w+ = (?:\[[^\]]*\]|\{[^}]*\}|\"[^\"]*\"|\d+)", text)
    return [tomllib.loads(line) for line in found if "…" not in line]


#: What is wrong, words of the refusal, the options that it advises, residues of the system that comes.
WRONG = [
    (water_on_an_atom, "waters and ions beside", [{"remove": ["W:HOH301"]}], 6),
    (bridged_metals, "two metals", [{"forcefield": "charmm36m"}, {"protonate": {"W:HOH501": "HOH"}}], 9),
    (unknown_ligand, "unknown LIG 201", [{"remove": ["LIG"]}], 6),
    (gap, "between ALA 2 of chain A and SER 5", [{"gaps": "cap"}, {"gaps": "split"}], 4),
    (two_models, "one model", [{"model": 1}], 6),
]


@pytest.mark.parametrize(("change", "words", "options", "n"), WRONG, ids=[row[0].__name__ for row in WRONG])
def test_a_refused_structure_builds_as_advised(tmp_path, change, words, options, n):
    path = tmp_path / "wrong.pdb"
    path.write_text("\n".join([*change(*peptide()), "END"]) + "\n")
    with pytest.raises(StructureError, match=words) as caught:
        build_system(path, solvate=False)
    assert followed(caught.value.do) == options
    assert words in str(plan_system(path, solvate=False).problem)
    for chosen in options:
        if "forcefield" not in chosen:  # it takes a minute to load
            built = build_system(path, solvate=False, **chosen)
            residues = [residue.name for residue in built.topology.residues()]
            assert len(residues) == n + 2 * (chosen == {"gaps": "cap"})


def test_a_ligand_of_a_smiles_as_advised(tmp_path):
    path = tmp_path / "wrong.pdb"
    path.write_text("\n".join([*unknown_ligand(*peptide()), "END"]) + "\n")
    assert "[system.ligand.LIG] with smiles" in str(plan_system(path, solvate=False).problem)
    plan = plan_system(path, solvate=False, ligands=[Ligand("LIG", smiles="CCO")])
    assert plan.problem is None


def test_a_cap_without_room_leads_to_charged_ends(tmp_path):
    """Where one residue is missing, two caps find no room."""
    lines, _ = peptide()
    path = tmp_path / "wrong.pdb"
    path.write_text("\n".join([*(line for line in lines if line[22:26].strip() != "3"), "END"]) + "\n")
    with pytest.raises(StructureError, match="room for ACE on LEU 4") as caught:
        build_system(path, solvate=False, gaps="cap")
    assert followed(caught.value.do) == [{"gaps": "split"}]
    assert build_system(path, solvate=False, gaps="split").topology.getNumResidues() == 5


def test_a_chain_that_ends_where_advised(tmp_path):
    lines, path = gap(*peptide()), tmp_path / "wrong.pdb"
    path.write_text("\n".join([*lines, "END"]) + "\n")
    with pytest.raises(StructureError) as caught:
        build_system(path, solvate=False)
    assert "a TER line after ALA 2 of chain A" in caught.value.do
    last = max(i for i, line in enumerate(lines) if line[17:26] == "ALA A   2")
    path.write_text("\n".join([*lines[: last + 1], "TER", *lines[last + 1 :], "END"]) + "\n")
    assert [chain.id for chain in build_system(path, solvate=False).topology.chains()] == ["A", "A"]


def test_an_ion_under_the_name_as_advised(tmp_path):
    path = tmp_path / "wrong.pdb"
    text = "\n".join([*copper_of_charge_one(*peptide()), "END"]) + "\n"
    path.write_text(text)
    with pytest.raises(StructureError, match=r"an ion Cu that .*it has CU \(\+2\)") as caught:
        build_system(path, solvate=False)
    assert "residue name of the ion that is meant" in caught.value.do
    path.write_text(text.replace("CU1", " CU"))
    assert [r.name for r in build_system(path, solvate=False).topology.residues()][-1] == "CU"
