"""Bonded metal sites with what AmberTools ships: LEaP's files are loaded, and hold under a potential.

The inputs of LEaP are those of the guide (`builder.md`), with the folder of AmberTools for $AMBERHOME.
"""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

parmed = pytest.importorskip("parmed")

import amber_reference as reference  # noqa: E402
from toys import PlainSprings  # noqa: E402

from mlmm.build.parametrised.amber import load_amber  # noqa: E402
from mlmm.hybrid.system import hybrid_system  # noqa: E402
from mlmm.validation.check import check_energy  # noqa: E402
from mlmm.zones.region import select_region  # noqa: E402
from mlmm.zones.static import hard_zones  # noqa: E402

GUIDE = Path(__file__).resolve().parents[2] / "examples/guide/builder.md"
CONTRIB = Path(sys.prefix) / "dat/contrib"
pytestmark = pytest.mark.skipif(
    reference.program("sander") is None or not CONTRIB.is_dir(), reason="AmberTools is not installed"
)


def leap(folder, name):
    """Run the input of LEaP that the guide gives for a file of this name."""
    text = re.search(rf"```text\n# {re.escape(name)}\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    (folder / name).write_text(text.replace("$AMBERHOME", sys.prefix))
    done = subprocess.run(
        [reference.program("tleap"), "-f", name], cwd=folder, check=True, capture_output=True, text=True
    )
    assert "Errors = 0" in done.stdout
    return load_amber(folder / "site.prmtop", folder / "site.inpcrd", constraints="none", rigid_water=False)


def pdb_line(name, residue, number, place):
    column = name if len(name) == 4 else f" {name:<3s}"
    x, y, z = place
    return f"ATOM      1 {column} {residue:<3s} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"


def p450(folder):
    """The cysteine and the heme of the published model, between caps that LEaP completes."""
    parts = {}
    for name in ("CYP", "HEM"):
        text = (CONTRIB / f"Shahrokh_heme/IC6/{name}.mol2").read_text()
        rows = [line.split() for line in text.split("ATOM\n")[1].split("@")[0].splitlines() if line.strip()]
        parts[name] = {row[1]: np.array([float(x) for x in row[2:5]]) for row in rows}
    at = parts["CYP"]

    def opposite(atom, *neighbours):
        away = sum((at[atom] - at[n]) / np.linalg.norm(at[atom] - at[n]) for n in neighbours)
        return at[atom] + 1.335 * away / np.linalg.norm(away)

    lines = [pdb_line("C", "ACE", 1, opposite("N", "H", "CA"))]
    lines += [pdb_line(name, "CYP", 2, place) for name, place in at.items()]
    lines += [pdb_line("N", "NME", 3, opposite("C", "CA", "O")), "TER"]
    lines += [pdb_line(name, "HEM", 4, place) for name, place in parts["HEM"].items()]
    (folder / "p450.pdb").write_text("\n".join([*lines, "END"]) + "\n")


def same_as_sander(folder, built):
    """Every term of the loaded system is that of sander from LEaP's files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.load_file(str(folder / "site.prmtop"))
    positions = np.round(built.positions, 8)
    bonded = {frozenset((bond.atom1.idx, bond.atom2.idx)) for bond in structure.bonds}
    found = reference.by_openmm(built.system, positions, bonded)
    expected = reference.by_sander(folder, structure, positions, reference.AMBER)
    assert {name: found[name] for name in reference.TERMS} == pytest.approx(expected, rel=1e-6, abs=1e-6)
    return found


@pytest.mark.parametrize(
    ("region", "complete"),
    [("all", "residue"), ("resname HEM or (resname CYP and name CB HB2 HB3 SG)", "atoms")],
)
def test_a_heme_of_p450_with_the_parameters_of_ambertools(tmp_path, region, complete):
    p450(tmp_path)
    built = leap(tmp_path, "p450.leap")
    found = same_as_sander(tmp_path, built)
    assert found["bonds"] > 1 and np.isfinite(list(found.values())).all()
    iron = next(atom for atom in built.topology.atoms() if atom.element.symbol == "Fe")
    partners = {b.name for pair in built.topology.bonds() for a, b in (pair, pair[::-1]) if a == iron}
    assert partners == {"NA", "NB", "NC", "ND", "SG"}
    chosen = select_region(built, region, complete)
    report = check_energy(hybrid_system(built, hard_zones(built, chosen), PlainSprings(), scheme="additive"))
    assert report.passed, report


def test_an_iron_sulfur_cluster_with_the_parameters_of_ambertools(tmp_path):
    # LEaP calls the carbon of NME C, and takes bonds twice that CONECT records repeat.
    text = (CONTRIB / "fe4s4/hpi3.pdb").read_text().replace(" CH3 NME", " C   NME")
    lines = [line for line in text.splitlines() if not line.startswith("CONECT")]
    (tmp_path / "cluster.pdb").write_text("\n".join(lines) + "\n")
    built = leap(tmp_path, "cluster.leap")
    same_as_sander(tmp_path, built)
    elements = [atom.element.symbol for atom in built.topology.atoms()]
    assert elements.count("Fe") == 4 and built.provenance["net_charge"] == -1
    chosen = select_region(built, "all")
    report = check_energy(hybrid_system(built, hard_zones(built, chosen), PlainSprings(), scheme="additive"))
    assert report.passed, report


def test_a_zinc_ion_of_the_12_6_4_model_keeps_its_third_term(tmp_path):
    """LEaP and ParmEd as the guide says; -C4/r^4 over the oxygens by hand."""
    (tmp_path / "ion.pdb").write_text(
        pdb_line("ZN", "ZN", 1, (0, 0, 0)).replace("ATOM  ", "HETATM") + "\nEND\n"
    )
    plain = leap(tmp_path, "ion.leap")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.load_file(str(tmp_path / "site.prmtop"), str(tmp_path / "site.inpcrd"))
        polarisabilities = str(Path(sys.prefix) / "dat/leap/parm/lj_1264_pol.dat")
        parmed.tools.add12_6_4(structure, ":ZN", "watermodel", "TIP3P", "polfile", polarisabilities).execute()
        structure.save(str(tmp_path / "c4.prmtop"))
    built = load_amber(
        tmp_path / "c4.prmtop", tmp_path / "site.inpcrd", constraints="none", rigid_water=False
    )
    bonded = {frozenset((one.index, other.index)) for one, other in built.topology.bonds()}
    with_c4, without = (reference.by_openmm(b.system, built.positions, bonded) for b in (built, plain))
    oxygens = [atom.index for atom in built.topology.atoms() if atom.element.symbol == "O"]
    distances = 10 * np.linalg.norm(built.positions[oxygens] - built.positions[0], axis=1)
    c4 = max(structure.parm_data["LENNARD_JONES_CCOEF"])  # kcal/mol A^4
    expected = -4.184 * c4 * (distances**-4.0).sum()
    assert 200 < c4 < 300
    assert with_c4["lennard_jones"] - without["lennard_jones"] == pytest.approx(expected, rel=1e-6)
    assert expected < -10 and {**with_c4, "lennard_jones": 0} == pytest.approx(
        {**without, "lennard_jones": 0}
    )
    region = select_region(built, "resname ZN or resid 1 2")
    report = check_energy(hybrid_system(built, hard_zones(built, region), PlainSprings(), scheme="additive"))
    assert report.passed, report
