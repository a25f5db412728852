"""An oxygen between two metals: hydroxide or water is asked, not guessed."""

from pathlib import Path

import pytest

from mlmm.build import build_system
from mlmm.build.plan import plan_system
from mlmm.errors import StructureError

CASES = Path(__file__).parent / "cases"
#: The word that the build takes, and a file of its own for Amber's force fields.
HYDROXIDE = """<ForceField><AtomTypes>
<Type name="OH-O" class="OHO" element="O" mass="15.999"/>
<Type name="OH-H" class="OHH" element="H" mass="1.008"/>
</AtomTypes><Residues><Residue name="OH"><Atom name="O" type="OH-O" charge="-1.32"/>
<Atom name="H" type="OH-H" charge="0.32"/><Bond atomName1="O" atomName2="H"/></Residue></Residues>
<HarmonicBondForce><Bond class1="OHO" class2="OHH" length="0.097" k="400000"/></HarmonicBondForce>
<NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">
<UseAttributeFromResidue name="charge"/>
<Atom type="OH-O" sigma="0.315" epsilon="0.5"/>
<Atom type="OH-H" sigma="0.04" epsilon="0.19"/></NonbondedForce>
</ForceField>"""


def site(folder, distance=0.205, hydrogens=(), metal="MN"):
    """The six residues of the cases, and beside them two metals with an oxygen between them."""
    lines = [line for line in (CASES / "af.pdb").read_text().splitlines() if line.startswith(("ATOM", "TER"))]
    atoms = [
        (metal, metal, 301, (-distance, 0)),
        (metal, metal, 302, (distance, 0)),
        ("O", "HOH", 501, (0, 0)),
    ]
    atoms += [
        (name, "HOH", 501, (0.0757 * sign, 0.0586)) for name, sign in zip(hydrogens, (1, -1), strict=False)
    ]
    for name, residue, number, (x, y) in atoms:
        column = f"{name:<4s}" if len(name) == 2 and residue != "HOH" else f" {name:<3s}"
        place = f"{10 * x + 5:8.3f}{10 * y + 20:8.3f}{0:8.3f}"
        symbol = name[0] if residue == "HOH" else name
        place += f"  1.00  0.00          {symbol:>2s}"
        lines.append(f"HETATM{number:5d} {column} {residue:>3s} B{number:4d}    {place}")
    path = folder / "bridge.pdb"
    path.write_text("\n".join([*lines, "END"]) + "\n")
    return path


def oxygen(built):
    residue = next(r for r in built.topology.residues() if r.id == "501")
    return residue.name, sorted(atom.element.symbol for atom in residue.atoms() if atom.element is not None)


@pytest.mark.parametrize("make", [build_system, plan_system])
def test_an_oxygen_between_two_metals_is_a_question(tmp_path, make):
    """The advice says which files have a hydroxide, and the key that decides."""
    path = site(tmp_path)
    try:
        problem = make(path, solvate=False).problem
    except StructureError as error:
        problem = error
    assert "hydroxide or as water" in problem.expected
    assert "HOH 501 of chain B, 0.205 nm from MN 301 of chain B and 0.205 nm from MN 302" in problem.got
    assert 'forcefield = "charmm36m"' in problem.do and 'protonate = {"B:HOH501" = "HOH"}' in problem.do


def test_a_water_is_taken_as_asked(tmp_path):
    built = build_system(site(tmp_path), solvate=False, protonate={"B:HOH501": "HOH"})
    assert oxygen(built) == ("HOH", ["H", "H", "O"])
    assert any(
        "HOH 501 of chain B is a water, as asked for" in text for text in built.provenance["decisions"]
    )


@pytest.mark.parametrize("water", ["tip3p", "opc"])
@pytest.mark.parametrize("word", ["OH", "OH-"])
def test_a_hydroxide_with_parameters_is_built(tmp_path, water, word):
    (tmp_path / "OH.xml").write_text(HYDROXIDE)
    options = {"solvate": False, "water": water, "ligands": [tmp_path / "OH.xml"]}
    path = site(tmp_path)
    as_water = build_system(path, **options, protonate={"B:HOH501": "HOH"})
    built = build_system(path, **options, protonate={"B:501": word})
    assert oxygen(built) == ("OH", ["H", "O"])
    assert built.provenance["net_charge"] == as_water.provenance["net_charge"] - 1
    plan = plan_system(path, **options, protonate={"B:501": word})
    assert plan.problem is None and "HOH 501 of chain B is a hydroxide, as asked for" in str(plan)


def test_a_hydroxide_without_parameters_is_refused(tmp_path):
    with pytest.raises(StructureError, match=r"template of hydroxide .* none for HOH 501") as caught:
        build_system(site(tmp_path), solvate=False, protonate={"B:HOH501": "OH"})
    assert 'forcefield = "charmm36m"' in caught.value.do


@pytest.mark.slow
def test_the_force_field_of_the_advice_has_a_hydroxide(tmp_path):
    options = {"solvate": False, "forcefield": ["charmm36.xml", "charmm36/water.xml"]}
    built = build_system(site(tmp_path, metal="ZN"), **options, protonate={"B:HOH501": "OH-"})
    assert oxygen(built) == ("OH", ["H", "O"])
    plan = plan_system(site(tmp_path, metal="ZN"), solvate=False, forcefield="charmm36m")
    assert 'protonate = {"B:HOH501" = "OH"} for a hydroxide' in plan.problem.do


@pytest.mark.parametrize("changes", [{"distance": 0.25}, {"hydrogens": ("H1", "H2")}, {"metal": "NA"}])
def test_other_waters_are_no_question(tmp_path, changes):
    """Controls: further away, with both hydrogens in the file, between sodium ions."""
    assert oxygen(build_system(site(tmp_path, **changes), solvate=False)) == ("HOH", ["H", "H", "O"])


@pytest.mark.parametrize(("metal", "warning"), [("MN", True), ("CA", False)])
def test_an_oxygen_a_little_further_from_two_metals_is_built_as_water_and_said(tmp_path, metal, warning):
    """Coordinates of 2 angstrom resolution are not good to 0.02 nm; between calciums water is usual."""
    plan = plan_system(site(tmp_path, distance=0.25, metal=metal), solvate=False)
    said = [d for d in plan.decisions if "HOH 501 of chain B is built as a water, 0.250 nm from" in d.text]
    assert plan.problem is None and [d.warning for d in said] == [warning]
    assert ('protonate = {"B:HOH501" = "OH"}' in said[0].text) == warning
    far = plan_system(site(tmp_path, distance=0.28, metal=metal), solvate=False)
    assert "is built as a water" not in str(far)


def test_all_open_oxygens_are_one_question(tmp_path):
    lines = site(tmp_path).read_text().splitlines()
    there = [line for line in lines if line.startswith("HETATM")]
    shifted = [f"{line[:21]}C{line[22:30]}{float(line[30:38]) + 20:8.3f}{line[38:]}" for line in there]
    (tmp_path / "two.pdb").write_text("\n".join([*lines[:-1], *shifted, "END"]) + "\n")
    plan = plan_system(tmp_path / "two.pdb", solvate=False)
    assert len(plan.problems) == 1 and plan.assumptions == "HOH 501 of chain B, HOH 501 of chain C as waters"
    assert 'protonate = {"B:HOH501" = "HOH", "C:HOH501" = "HOH"} for a water' in plan.problem.do
    chosen = {"B:HOH501": "HOH", "C:HOH501": "HOH"}
    assert plan_system(tmp_path / "two.pdb", solvate=False, protonate=chosen).problem is None
