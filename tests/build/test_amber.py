"""Systems parametrised elsewhere: the same energy as by ParmEd, caps, and what is refused."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from mlmm.build.parametrised.amber import _numbers, _sections, load_amber
from mlmm.build.parametrised.serialised import load_openmm
from mlmm.config.load import load_config
from mlmm.config.objects import build_from, build_options
from mlmm.errors import ConfigError, StructureError

parmed = pytest.importorskip("parmed")


def terms(system, positions):
    """Energy of every class of forces, kJ/mol, on the Reference platform."""
    for group, force in enumerate(system.getForces()):
        force.setForceGroup(group)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    energies: dict[str, float] = {}
    for group, force in enumerate(system.getForces()):
        energy = context.getState(energy=True, groups={group}).getPotentialEnergy()._value
        energies[force.__class__.__name__] = energies.get(force.__class__.__name__, 0.0) + energy
    energies.pop("CMMotionRemover", None)
    return energies


@pytest.fixture(scope="module")
def files(tmp_path_factory, dipeptide_water):
    """Alanine dipeptide in water as prmtop and inpcrd, without its box, written by ParmEd."""
    folder = tmp_path_factory.mktemp("amber")
    built = dipeptide_water
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.openmm.load_topology(
            built.topology, built.system, built.positions * unit.nanometer
        )
        near = [r.idx + 1 for r in structure.residues if r.idx < 30]
        structure = structure[f"(:{near[0]}-{near[-1]})"]
        structure.box = None
        structure.save(str(folder / "system.parm7"), overwrite=True)
        structure.save(str(folder / "system.rst7"), overwrite=True)
    return folder


def edited(folder: Path, target: Path, section: str, change) -> Path:
    """The topology with other numbers in one section."""
    text = (folder / "system.parm7").read_text()
    start, end = _sections(text)[section]
    header = [line for line in text[start:end].splitlines() if line.startswith("%")]
    entries = change(_numbers(text, (start, end)))
    width, per_line = (8, 10) if "I8" in header[-1] else (16, 5)
    rows = [
        "".join(f"{entry:>{width}}" for entry in entries[i : i + per_line])
        for i in range(0, len(entries), per_line)
    ]
    path = target / "changed.parm7"
    path.write_text(text[:start] + "\n".join([*header, *rows, ""]) + text[end:])
    return path


def test_energy_terms_equal_those_of_parmed(files):
    built = load_amber(files / "system.parm7", files / "system.rst7", constraints="none", rigid_water=False)
    assert built.n_atoms == 22 + 27 * 3 and not built.periodic
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = parmed.load_file(str(files / "system.parm7"), str(files / "system.rst7"))
    expected = terms(peer.createSystem(), peer.positions)
    ours = terms(built.system, built.positions)
    assert (
        set(ours)
        == set(expected)
        == {
            "HarmonicBondForce",
            "HarmonicAngleForce",
            "PeriodicTorsionForce",
            "NonbondedForce",
        }
    )
    for name, energy in expected.items():
        assert abs(energy) > 0.1
        assert ours[name] == pytest.approx(energy, rel=1e-6), name
    assert "without cutoff" in "".join(built.provenance["decisions"])
    assert built.provenance["net_charge"] == 0


def test_enzyme_prepared_with_amber_has_the_energy_terms_of_parmed():
    """Chorismate mutase with chorismate, 6788 atoms, own parameters."""
    folder = next(
        (
            Path(name) / "chorismate_mutase_amber"
            for name in os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep)
            if name and (Path(name) / "chorismate_mutase_amber").is_dir()
        ),
        None,
    )
    if folder is None:
        pytest.skip("set MLMM_STRUCTURES to a folder that holds chorismate_mutase_amber")
    paths = folder / "wt.sp20.nocap.parm7", folder / "md1.rst7"
    built = load_amber(*paths, constraints="none", rigid_water=False)
    assert built.n_atoms == 6788 and built.provenance["net_charge"] == -11
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = parmed.load_file(*map(str, paths))
    expected, ours = terms(peer.createSystem(), peer.positions), terms(built.system, built.positions)
    assert set(ours) == set(expected)
    for name, energy in expected.items():
        assert ours[name] == pytest.approx(energy, rel=1e-6), name
    assert {residue.name for residue in built.topology.residues()} >= {"CHO", "HOH", "ARG"}


def capped(files, folder, kind="1"):
    """A cap that holds every water, 0.3 nm around the first atom."""
    changed = edited(files, folder, "POINTERS", lambda p: [*p[:29], kind, *p[30:]])
    atom = app.AmberInpcrdFile(str(files / "system.rst7")).positions[0].value_in_unit(unit.angstrom)
    cap = "".join(f"{value:16.8E}" for value in (3.0, *atom))
    text = f"%FLAG CAP_INFO\n%FORMAT(10I8)\n{22:8d}\n%FLAG CAP_INFO2\n%FORMAT(5E16.8)\n{cap}\n"
    changed.write_text(changed.read_text().rstrip("\n") + "\n" + text)
    return changed


def test_cap_of_water_becomes_a_wall(files, tmp_path):
    options = {"constraints": "none", "rigid_water": False}
    with_cap = load_amber(capped(files, tmp_path), files / "system.rst7", **options)
    ours = terms(with_cap.system, with_cap.positions)
    plain = load_amber(files / "system.parm7", files / "system.rst7", **options)
    wall = ours.pop("CustomExternalForce")
    assert ours == terms(plain.system, plain.positions)
    oxygens = [a.index for a in plain.topology.atoms() if a.residue.name == "HOH" and a.name == "O"]
    beyond = np.linalg.norm(plain.positions[oxygens] - plain.positions[0], axis=1) - 0.3
    # sander: fcap/2 (r - cutcap)^2, fcap = 1.5 kcal/mol/angstrom^2
    expected = 0.5 * 1.5 * 4.184 * 100 * (np.maximum(beyond, 0) ** 2).sum()
    assert expected > 1.0 and wall == pytest.approx(expected, rel=1e-9)
    assert "wall at 0.300 nm on 27 oxygens" in "".join(with_cap.provenance["decisions"])
    with pytest.raises(StructureError, match=r"IFCAP 0 or 1.*IFCAP 5.*solvateCap"):
        load_amber(capped(files, tmp_path, "5"), files / "system.rst7")


def test_charges_that_do_not_sum_to_an_integer_are_reported_and_kept(files, tmp_path):
    def change(charges):
        return [f"{float(charges[0]) + 0.1 * 18.2223:.8E}", *charges[1:]]

    built = load_amber(edited(files, tmp_path, "CHARGE", change), files / "system.rst7")
    assert "0.1000 e, not a whole number" in "".join(built.provenance["decisions"])
    assert built.provenance["net_charge"] == pytest.approx(0.1, abs=1e-5)


def test_box_of_the_coordinates_without_a_box_in_the_topology_is_ignored(files, tmp_path):
    with_box = tmp_path / "box.rst7"
    text = (files / "system.rst7").read_text().rstrip("\n")
    with_box.write_text(text + "\n" + "".join(f"{v:12.7f}" for v in (30, 30, 30, 90, 90, 90)) + "\n")
    built = load_amber(files / "system.parm7", with_box)
    assert not built.periodic and "was ignored" in "".join(built.provenance["decisions"])


def test_files_that_cannot_be_used_are_refused(files, tmp_path):
    parm, coordinates = files / "system.parm7", files / "system.rst7"
    (tmp_path / "old.prmtop").write_text("an old format\n 1 2 3\n")
    (tmp_path / "half.rst7").write_text("title\n    2\n   1.0 2.0\n")
    short = tmp_path / "short.rst7"
    short.write_text("title\n    1\n" + "".join(f"{v:12.7f}" for v in (1, 2, 3)) + "\n")
    perturbed = edited(files, tmp_path, "POINTERS", lambda p: [*p[:20], "1", *p[21:]])
    for first, second, words in (
        (tmp_path / "none.parm7", coordinates, "none.parm7.*Check the path"),
        (parm, tmp_path / "none.rst7", "none.rst7.*Check the path"),
        (tmp_path / "old.prmtop", coordinates, "no %FLAG POINTERS.*ParmEd"),
        (parm, tmp_path / "half.rst7", "Amber coordinates.*half.rst7"),
        (parm, short, "103 atoms in system.parm7 and 1 in short.rst7"),
        (perturbed, coordinates, "perturbation"),
    ):
        with pytest.raises(StructureError, match=words):
            load_amber(first, second)
    with pytest.raises(ConfigError, match="constraints"):
        load_amber(parm, coordinates, constraints="all")


def test_system_as_xml_with_a_structure_keeps_every_force(dipeptide_water, tmp_path):
    built = dipeptide_water
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(built.system))
    with open(tmp_path / "model.cif", "w", encoding="utf-8") as file:
        app.PDBxFile.writeFile(built.topology, built.positions * unit.nanometer, file)
    taken = load_openmm(tmp_path / "system.xml", tmp_path / "model.cif")
    assert openmm.XmlSerializer.serialize(taken.system) == openmm.XmlSerializer.serialize(built.system)
    np.testing.assert_allclose(taken.positions, built.positions, atol=1e-5)
    assert taken.topology.getNumBonds() == built.topology.getNumBonds()
    (tmp_path / "state.xml").write_text(openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)))
    with pytest.raises(StructureError, match=r"OpenMM System as XML.*VerletIntegrator.*serialize"):
        load_openmm(tmp_path / "state.xml", tmp_path / "model.cif")
    with pytest.raises(StructureError, match="atoms in the topology"):
        load_openmm(
            tmp_path / "system.xml", Path(__file__).parents[2] / "systems/alanine_dipeptide/input.pdb"
        )


def run_file(folder: Path, system: str) -> Path:
    path = folder / "run.toml"
    path.write_text(f'[system]\n{system}\n[region]\nselect = "resname ALA"\n')
    return path


def test_run_file_takes_amber_files_from_beside_it(files, tmp_path):
    for name in ("system.parm7", "system.rst7"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    path = run_file(tmp_path, 'prmtop = "system.parm7"\ninpcrd = "system.rst7"\nconstraints = "none"')
    stages: list[str] = []
    built = build_from(load_config(path), stages.append)
    assert built.n_atoms == 103 and stages == ["read", "parametrise", "check"]
    assert built.provenance["options"]["constraints"] == "none"
    assert built.provenance["source"] == "system.parm7"


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ('prmtop = "a.parm7"', "prmtop and inpcrd"),
        ('inpcrd = "a.rst7"\npdb = "a.pdb"', "prmtop and inpcrd"),
        ('prmtop = "a.parm7"\ninpcrd = "a.rst7"\npdb = "a.pdb"', "files of one system"),
        ('prmtop = "a.parm7"\ninpcrd = "a.rst7"\nph = 5.0', "no ph .*has its parameters"),
        ('pdb = "a.pdb"\nxml = "a.xml"\nconstraints = "none"', "no constraints .*has its parameters"),
        ('pdb = "a.pdb"\nprotonate = {"A:HIS5" = 3}', "protonate"),
        ('pdb = "a.pdb"\nsolvent = "drop"', r"solvent = box \| droplet \| none"),
    ],
)
def test_run_file_names_one_source(tmp_path, system, words):
    with pytest.raises(ConfigError, match=words):
        load_config(run_file(tmp_path, system))


def test_run_file_holds_tables_of_droplet_and_protonation(tmp_path):
    text = 'pdb = "a.pdb"\nsolvent = "droplet"\nprotonate = {"A:HIS5" = "HIE"}\n'
    text += 'droplet = {centre = "resname LIG", radius = "2 nm", relax = 10}'
    options = build_options(load_config(run_file(tmp_path, text)))
    assert options.solvent == "droplet" and options.protonate == {"A:HIS5": "HIE"}
    droplet = {"centre": "resname LIG", "radius_nm": 2.0, "mobile_nm": 1.6, "cutoff_nm": None, "relax": 10}
    assert options.droplet.as_dict() == pytest.approx(droplet)
