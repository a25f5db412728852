"""ORCA and Psi4 by files that were written by hand; calculators of ASE."""

import json
import stat
import sys

import numpy as np
import pytest
from reference_molecules import molecule, water_among_charges

from mlmm.errors import ConfigError, MissingPackageError
from mlmm.reference import orca, psi4
from mlmm.reference.ase_calculator import ReferenceCalculator
from mlmm.reference.ase_method import ASEMethod
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.tblite import TBLite
from mlmm.units import ANGSTROM, BOHR, ELECTRONVOLT, HARTREE

ENGRAD = """#
# Number of atoms
#
 3
#
# The current total energy in Eh
#
    -76.323456789012
#
# The current gradient in Eh/bohr
#
       0.000000000100
      -0.000000000200
       0.012345678900
       0.001000000000
       0.002000000000
       0.003000000000
      -0.001000000000
      -0.002000000000
      -0.015345678900
#
# The atomic numbers and current coordinates in Bohr
#
   8     0.0000000    0.0000000    0.2217971
"""
OUTPUT = """
                         Program Version 6.0.1  -  RELEASE  -

-----------------------
MULLIKEN ATOMIC CHARGES
-----------------------
   0 O :   -0.700000
   1 H :    0.340000
   2 H :    0.360000
Sum of atomic charges:    0.0000000

                             ****ORCA TERMINATED NORMALLY****
"""
PCGRAD = "3\n  0.1  0.2 -0.3\n 1e-3 2E-3 3e-03\n 0 0 0\n"


def program(folder, name, script):
    """A program of that name that runs a Python script in its working folder."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path)


def test_orca_is_asked_and_answers(tmp_path):
    script = (
        "import sys\n"
        "text = open('job.inp').read()\n"
        "assert '! HF def2-SVP EnGrad' in text and '%pointcharges \"charges.pc\"' in text, text\n"
        "assert '* xyz 0 1' in text and '%scf MaxIter 300 end' in text\n"
        "atom = text.partition('* xyz 0 1')[2].splitlines()[2].split()\n"
        "assert atom[0] == 'H' and abs(float(atom[1]) - 0.76) < 1e-9, atom\n"
        "rows = open('charges.pc').read().split('\\n')\n"
        "assert rows[0] == '3' and float(rows[1].split()[0]) == 0.5, rows\n"
        "assert abs(float(rows[1].split()[1]) - 2.5) < 1e-9, rows\n"
        f"open('job.engrad', 'w').write('''{ENGRAD}''')\n"
        f"open('job.pcgrad', 'w').write('''{PCGRAD}''')\n"
        f"print('''{OUTPUT}''')\n"
    )
    method = orca.Orca("HF  def2-SVP", "%scf MaxIter 300 end", program(tmp_path, "orca", script))
    label = method.label(water_among_charges())
    assert label.energy == pytest.approx(-76.323456789012 * HARTREE)
    assert label.forces[0, 2] == pytest.approx(-0.0123456789 * HARTREE / BOHR)
    np.testing.assert_allclose(label.external_forces[0], np.array([-0.1, -0.2, 0.3]) * HARTREE / BOHR)
    assert label.charges.tolist() == [-0.7, 0.34, 0.36]
    assert label.record["version"] == "6.0.1" and label.method == "HF def2-SVP %scf MaxIter 300 end (ORCA)"


WRITES = f"open('job.engrad', 'w').write('''{ENGRAD}''')\n"


@pytest.mark.parametrize(
    "script, said",
    [
        ("print('ERROR: SCF NOT CONVERGED AFTER 125 CYCLES')", "did not converge"),
        (
            f"{WRITES}print('ENERGY (SCF not fully converged!) -76.3')\nprint('''{OUTPUT}''')",
            "did not converge",
        ),
        (f"{WRITES}print('aborting the run')", "ends without"),
        (f"{WRITES.replace('0.012345678900', 'nan')}print('''{OUTPUT}''')", "not finite: gradient"),
        ("import sys; print('UNRECOGNIZED KEYWORD'); sys.exit(2)", "exit status 2: UNRECOGNIZED KEYWORD"),
        ("", "no gradient file"),
    ],
)
def test_orca_that_fails_gives_no_numbers(tmp_path, script, said):
    method = orca.Orca(program=program(tmp_path, "orca", script))
    label = method.label(molecule("water", charges=False))
    assert not label.converged and said in label.record["failure"] and label.forces is None


def test_orca_without_the_gradient_on_point_charges(tmp_path):
    script = f"{WRITES}print('''{OUTPUT}''')"
    with pytest.raises(ConfigError, match="gradient on 3 point charges"):
        orca.Orca(program=program(tmp_path, "orca", script)).label(water_among_charges())


def test_files_of_orca_that_are_cut_short():
    with pytest.raises(ConfigError, match="gradient file with 3 atoms"):
        orca.read_gradient(ENGRAD[:200], 3)
    with pytest.raises(ConfigError, match="one with 3"):
        orca.read_gradient(ENGRAD, 4)
    with pytest.raises(ConfigError, match="4 point charges"):
        orca.read_point_charge_gradient(PCGRAD, 4)
    assert orca.read_charges("nothing", 3) is None


def test_psi4_is_asked_and_answers(tmp_path):
    answer = {
        "version": "1.9",
        "converged": True,
        "energy": -76.1,
        "gradient": [[0, 0, 0.1]] * 3,
        "on_charges": [[0.2, 0, 0]] * 3,
        "charges": [-0.6, 0.3, 0.3],
    }
    script = (
        "text = open('job.in').read()\n"
        "assert 'gradient(\"pbe\"' in text and 'reference rks' in text and 'basis sto-3g' in text, text\n"
        "compile(text.split('}\\nimport')[1].join(['import', '']), 'job', 'exec')\n"
        "atom = text.partition('  0 1\\n')[2].splitlines()[1].split()\n"
        f"assert atom[0] == 'H' and abs(float(atom[1]) - {0.076 / BOHR}) < 1e-9, atom\n"
        f"assert '[0.5, {0.25 / BOHR:.7f}' in text and 'dft_spherical_points 590' in text\n"
        f"open('answer.json', 'w').write('''{json.dumps(answer)}''')\n"
    )
    method = psi4.Psi4(
        functional="pbe", basis="sto-3g", settings=("dft_spherical_points 590",),
        program=program(tmp_path, "psi4", script),
    )  # fmt: skip
    label = method.label(water_among_charges())
    assert label.energy == pytest.approx(-76.1 * HARTREE)
    assert label.forces[2, 2] == pytest.approx(-0.1 * HARTREE / BOHR)
    assert label.external_forces[1, 0] == pytest.approx(-0.2 * HARTREE / BOHR)
    assert label.record["version"] == "1.9" and label.charges[0] == -0.6


def test_charge_and_multiplicity_reach_the_input():
    cation = Molecule([8, 1], [[0, 0, 0], [0, 0, 0.1]], 1, 3)
    assert "* xyz 1 3\n" in orca.input_text(cation, "HF", "", 100)
    text = psi4.input_text(psi4.Psi4(), cation)
    assert "\n  1 3\n" in text and "reference uks" in text


def test_psi4_that_fails(tmp_path):
    words = json.dumps({"version": "1.9", "converged": False, "failure": "Could not converge SCF"})
    method = psi4.Psi4(program=program(tmp_path, "psi4", f"open('answer.json', 'w').write('''{words}''')"))
    label = method.label(molecule("water", charges=False))
    assert not label.converged and "Could not converge" in label.record["failure"]
    method = psi4.Psi4(program=program(tmp_path, "psi4", "open('answer.json', 'w').write('{}')"))
    with pytest.raises(ConfigError, match="Psi4's answer for 3 atoms"):
        method.label(molecule("water", charges=False))


@pytest.mark.parametrize("method, name", [(orca.Orca, "orca"), (psi4.Psi4, "psi4")])
def test_programs_that_are_not_there(method, name, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match=f"the program {name} on PATH"):
        method().label(molecule("water", charges=False))
    with pytest.raises(ConfigError, match="cannot be run"):
        method(program=str(tmp_path / "nothing")).label(molecule("water", charges=False))


def test_a_calculator_of_ase_is_what_it_is():
    pytest.importorskip("tblite")
    start = molecule("acetate", charges=False)
    method = ASEMethod(
        "tblite.ase:TBLite",
        {"method": "GFN2-xTB", "accuracy": 0.1, "verbosity": 0, "electronic_temperature": 300.0},
        charge_argument="charge",
        multiplicity_argument="multiplicity",
    )
    label, direct = method.label(start), TBLite().label(start)
    assert label.energy == pytest.approx(direct.energy, abs=1e-3)  # ASE's hartree is older
    np.testing.assert_allclose(label.forces, direct.forces, atol=1e-2)
    np.testing.assert_allclose(label.charges, direct.charges, atol=1e-5)
    np.testing.assert_allclose(label.dipole, direct.dipole, atol=1e-6)
    assert "tblite 0" in label.record["version"]


def test_a_reference_method_as_a_calculator_of_ase():
    ase = pytest.importorskip("ase")
    pytest.importorskip("tblite")
    start = molecule("acetate", charges=False)
    atoms = ase.Atoms(start.numbers, start.positions / ANGSTROM, info={"charge": -1})
    atoms.calc = ReferenceCalculator(TBLite())
    label = TBLite().label(start)
    assert atoms.get_potential_energy() * ELECTRONVOLT == pytest.approx(label.energy, abs=1e-6)
    np.testing.assert_allclose(atoms.get_forces() * ELECTRONVOLT / ANGSTROM, label.forces, atol=1e-3)
    np.testing.assert_allclose(atoms.get_dipole_moment() * ANGSTROM, label.dipole, atol=1e-8)
    atoms.calc = ReferenceCalculator(TBLite(iterations=2), charge=-1)
    with pytest.raises(ase.calculators.calculator.SCFError, match="2 cycles"):
        atoms.get_potential_energy()


def test_forces_on_point_charges_come_through_ase_too():
    ase = pytest.importorskip("ase")
    start, unit = water_among_charges(), ELECTRONVOLT / ANGSTROM

    class Known:
        def label(self, asked):
            assert asked.external is start.external
            np.testing.assert_allclose(asked.positions, start.positions)
            return Label(2 * ELECTRONVOLT, np.full((3, 3), 3 * unit), np.full((3, 3), 4 * unit))

    atoms = ase.Atoms(start.numbers, start.positions / ANGSTROM)
    atoms.calc = ReferenceCalculator(Known(), external=start.external)
    assert atoms.get_potential_energy() == pytest.approx(2.0) and atoms.get_forces()[0, 0] == pytest.approx(
        3.0
    )
    np.testing.assert_allclose(atoms.calc.results["external_forces"], 4.0)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"calculator": ""}, "a calculator of ASE"),
        ({"calculator": "emtt"}, "can be imported"),
        ({"calculator": "tblite.ase:TB"}, "can be imported"),
        ({"calculator": "json:JSONDecoder", "arguments": {"colour": 1}}, "keywords that json"),
        ({"calculator": "emt", "arguments": {"colour": [1]}}, "a table from text"),
    ],
)
def test_calculators_that_cannot_be_made(options, said):
    with pytest.raises(ConfigError, match=said):
        ASEMethod(**options).label(molecule("water", charges=False))


def test_a_calculator_that_is_not_told_the_charge_is_refused():
    with pytest.raises(ConfigError, match="told the charge"):
        ASEMethod("emt").label(molecule("acetate", charges=False))
    with pytest.raises(ConfigError, match="told the multiplicity"):
        ASEMethod("emt", charge_argument="info").label(Molecule([8, 1], [[0, 0, 0], [0, 0, 0.1]], 0, 2))
