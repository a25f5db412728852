"""Twelve first run files of at most six lines: each runs, or a sentence says how it would.

Those that are refused are so before anything is built. The runs are shorter than the files say; one of them
goes through the command line to its report.
"""

from __future__ import annotations

import shutil
import warnings

import openmm
import parmed
import pytest
from ligands import needs_ambertools
from openmm import app, unit

from mlmm.build import build_system
from mlmm.cli import main
from mlmm.config.checks import check_keys, check_structure
from mlmm.config.load import load_config
from mlmm.config.objects import build_from, hybrid_from, potential_from
from mlmm.dynamics.platforms import platform_arguments
from mlmm.errors import MLMMError

_ANI = 'potential.name = "ani1x"\nrun.produce = "10 ps"\n'
_FLEXIBLE = 'system.constraints = "none"\nsystem.rigid_water = false\n'

#: Name -> lines of the file.
FILES = {
    "solute in water": 'system.pdb = "dipeptide.pdb"\nregion.select = "resname ACE ALA NME"\n' + _ANI,
    "ligand in protein": 'system.pdb = "lysozyme.pdb"\nsystem.ligands = ["p-xylene.xml"]\n'
    'region.select = "resname TMP"\n' + _ANI,
    "whole molecule in vacuum": 'system.pdb = "dipeptide.pdb"\nsystem.solvate = false\n'
    'region.select = "all"\n' + _ANI,
    "cut side chain": 'system.pdb = "dipeptide.pdb"\nregion.select = "resname ALA and sidechain"\n' + _ANI,
    "ion": 'system.pdb = "chloride.pdb"\nregion.select = "resname CL"\n' + _ANI,
    "peptide": 'system.pdb = "peptide.pdb"\nregion.select = "protein"\n' + _ANI,
    "two molecules": 'system.pdb = "two_dipeptides.pdb"\nregion.select = "chainid 0 1"\n' + _ANI,
    "nucleic acid": 'system.pdb = "dna.pdb"\nregion.select = "resname DA DT"\n' + _ANI,
    "Amber files": 'system.prmtop = "system.parm7"\nsystem.inpcrd = "system.rst7"\n'
    'system.nonbonded_cutoff = "0.9 nm"\nregion.select = "resname ACE ALA NME"\n' + _ANI,
    "own System": 'system.pdb = "own.pdb"\nsystem.xml = "own.xml"\nregion.select = "resname ACE ALA NME"\n'
    + _ANI,
    "SMILES alone": 'system.smiles = "CCO"\nregion.select = "resname LIG"\n' + _ANI,
    "mutant": 'system.pdb = "peptide.pdb"\nsystem.mutate = ["SER -> ALA"]\nregion.select = "protein"\n'
    + _ANI,
}
#: Name -> part of the sentence, and the file that follows its advice.
REFUSED = {
    "cut side chain": (
        'the region cuts bonds, but got constraints = "hbonds". Write constraints = "none" and rigid_water',
        lambda text: _FLEXIBLE + text,
    ),
    "ion": ("use amp-bms", lambda text: text.replace("ani1x", "amp-bms")),
    "nucleic acid": ("use amp-bms", lambda text: text.replace("ani1x", "amp-bms")),
}
_SCHEMES = {"cut side chain": "per_atom"}
_MARKS = {"ligand in protein": pytest.mark.slow, "SMILES alone": needs_ambertools()}


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory, dipeptide_water):
    """The structures that the run files name."""
    folder = tmp_path_factory.mktemp("first")
    for path in (root / "tests/first_runs").glob("*.pdb"):
        shutil.copy(path, folder)
    shutil.copy(root / "systems/alanine_dipeptide/input.pdb", folder / "dipeptide.pdb")
    shutil.copy(root / "systems/lysozyme_xylene/input.pdb", folder / "lysozyme.pdb")
    built = dipeptide_water
    positions = built.positions * unit.nanometer
    (folder / "own.xml").write_text(openmm.XmlSerializer.serialize(built.system))
    with (folder / "own.pdb").open("w") as file:
        app.PDBFile.writeFile(built.topology, positions, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = parmed.openmm.load_topology(built.topology, built.system, positions)
        structure.save(str(folder / "system.parm7"), overwrite=True)
        structure.save(str(folder / "system.rst7"), overwrite=True)
    return folder


def runs(path, scheme):
    """Check, build, join and move the system of a run file."""
    config = load_config(path)
    check_keys(config)
    choice = check_structure(config)
    assert choice is None or choice.name == scheme
    hybrid = hybrid_from(config, build_from(config, lambda stage: None), potential=potential_from(config))
    assert hybrid.scheme == scheme and hybrid.spec.scheme_reason
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
    context = openmm.Context(hybrid.system, integrator, *platform_arguments("CPU", 1))
    context.setPositions(hybrid.built.positions)
    integrator.step(2)
    assert abs(context.getState(energy=True).getPotentialEnergy()._value) < 1e7


@pytest.mark.parametrize("name", [pytest.param(name, marks=_MARKS.get(name, ())) for name in FILES])
def test_first_run_files_run_or_lead_on(name, folder, monkeypatch):
    text = FILES[name]
    assert len(text.splitlines()) <= 6
    path = folder / f"{name.replace(' ', '_')}.toml"
    path.write_text(text)
    if name not in REFUSED:
        runs(path, _SCHEMES.get(name, "additive"))
        return
    sentence, advised = REFUSED[name]
    config = load_config(path)
    with pytest.raises(MLMMError) as caught:
        check_keys(config)
        check_structure(config)
    assert sentence in str(caught.value)
    path.write_text(advised(text))
    assert len(path.read_text().splitlines()) <= 6
    runs(path, _SCHEMES.get(name, "additive"))


def test_the_shortest_run_file_reaches_its_report(folder, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(FILES["whole molecule in vacuum"].replace('"dipeptide.pdb"', f'"{folder}/dipeptide.pdb"'))
    short_stages = ["run.minimise=0", "run.equilibrate=0 ps", "run.produce=0.002 ps"]
    arguments = [part for setting in short_stages for part in ("--set", setting)]
    assert main(["run", str(path), "--out", str(tmp_path / "out"), *arguments]) == 0
    said = capsys.readouterr().out
    assert "scheme additive (by default: the region is whole molecules, without a zone)" in said
    assert (tmp_path / "out/report.html").exists()


def test_a_dianion_in_amber_files_leads_on(tmp_path, root):
    """ANI is refused by the charge of the region; the potential that the sentence names runs."""
    lines = (root / "systems/chorismate_water/start.pdb").read_text().splitlines(keepends=True)
    solute = [line for line in lines if line[17:20] == "CHA" or line.startswith("CONECT")]
    (tmp_path / "chorismate.pdb").write_text("".join(solute))
    built = build_system(
        tmp_path / "chorismate.pdb",
        ligands=["chorismate.xml"],
        padding="0.9 nm",
        nonbonded_cutoff="0.9 nm",
        constraints="none",
        rigid_water=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        positions = built.positions * unit.nanometer
        structure = parmed.openmm.load_topology(built.topology, built.system, positions)
        structure.save(str(tmp_path / "system.parm7"))
        structure.save(str(tmp_path / "system.rst7"))
    path = tmp_path / "run.toml"
    text = FILES["Amber files"].replace("resname ACE ALA NME", "resname CHA")
    path.write_text(text)
    config = load_config(path)
    with pytest.raises(MLMMError, match=r"but got charge -2. Use amp-bms"):
        check_keys(config)
        check_structure(config)
    path.write_text(text.replace("ani1x", "amp-bms"))
    runs(path, "additive")


def test_a_cutoff_beyond_half_of_an_amber_box_leads_on(folder, tmp_path):
    """OpenMM would end in a traceback of its own."""
    path = folder / "cutoff.toml"
    path.write_text(FILES["Amber files"].replace('system.nonbonded_cutoff = "0.9 nm"\n', ""))
    with pytest.raises(
        MLMMError, match=r"twice the cutoff.* Write nonbonded_cutoff = \"0\.9\d nm\""
    ) as caught:
        build_from(load_config(path), lambda stage: None)
    advised = caught.value.do.split('"')[1]
    build_from(load_config(path, [f"system.nonbonded_cutoff={advised}"]), lambda stage: None)
