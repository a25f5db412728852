"""`mlmm build`: what it writes, what it shows, where it stops."""

import json
from pathlib import Path

import numpy as np
import pytest
from fragments import structure_file
from peptides import peptide

from mlmm.build import BuiltSystem, build_system
from mlmm.cli.program import main
from mlmm.config.load import load_config, structure_config
from mlmm.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DIPEPTIDE = ROOT / "systems/alanine_dipeptide/input.pdb"
trypsin = pytest.mark.skipif(structure_file("3PTB.pdb") is None, reason="no 3PTB.pdb in MLMM_STRUCTURES")


def test_a_build_is_saved_with_its_log_and_loads_again(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["build", str(DIPEPTIDE), "--out", str(out), "--set", "system.solvate=false"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "22 atoms, net charge 0 e" in shown.out and "repair …" in shown.err
    built = BuiltSystem.load(out / "built")
    direct = build_system(DIPEPTIDE, solvate=False)
    np.testing.assert_array_equal(built.positions, direct.positions)
    log = json.loads((out / "build_log.json").read_text())
    assert log["sha256"] == direct.provenance["sha256"]
    assert [entry["text"] for entry in log["log"]] == direct.provenance["decisions"]
    assert {"stage", "kind", "text", "residue", "numbers", "warning"} == set(log["log"][0])
    page = (out / "build_log.txt").read_text()
    assert "protonate" in page and direct.provenance["decisions"][0] in page
    assert (out / "structure.pdb").read_text().count("ATOM") == (out / "structure.cif").read_text().count(
        "\nATOM"
    )
    assert main(arguments) == 2
    assert "one that is there" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_a_dry_run_shows_and_decides_but_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case.pdb").write_text("\n".join([*peptide(), "END", ""]))
    assert main(["build", "case.pdb", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "protein, 30 residues, ILE 16 to ILE 47" in shown and "nothing is in the way" in shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.pdb"]


@trypsin
def test_a_dry_run_of_an_entry_by_its_id_names_its_chains(capsys):
    assert main(["build", "3PTB", "--dry-run", "--set", 'system.chains=["B"]']) == 2
    assert "the build would stop: Expected chains A of 3PTB.pdb" in capsys.readouterr().out


def test_missing_pdb_id_mentions_the_download(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLMM_STRUCTURES", str(tmp_path))
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path))
    assert main(["build", "9XYZ", "--out", str(tmp_path / "out")]) == 2
    assert "--download" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_file_for_building_needs_no_region(tmp_path):
    (tmp_path / "build.toml").write_text('[system]\npdb = "2CHT"\nchains = ["A"]\nwaters = "0.5 nm"\n')
    config = load_config(tmp_path / "build.toml", needs=("system.pdb",))
    assert (config.system.pdb, config.system.chains, config.system.waters) == ("2CHT", ("A",), "0.5 nm")
    with pytest.raises(ConfigError, match=r"region\.select"):
        load_config(tmp_path / "build.toml")
    (tmp_path / "2CHT").write_text("")
    beside = load_config(tmp_path / "build.toml", needs=("system.pdb",))
    assert beside.system.pdb == str((tmp_path / "2CHT").resolve())


def test_settings_given_with_a_structure_are_checked_as_in_a_run_file():
    config = structure_config("1ABC", ['system.remove=["SO4"]', "system.model=2", "system.hydrogens=strip"])
    assert (config.system.remove, config.system.model, config.system.hydrogens) == (("SO4",), 2, "strip")
    for wrong in ("system.hydrogens=some", "system.model=-1", "system.chain=A", "system.chains=A"):
        with pytest.raises(ConfigError):
            structure_config("1ABC", [wrong])


def test_the_same_input_and_seed_give_the_same_coordinates(tmp_path):
    (tmp_path / "case.pdb").write_text("\n".join([*peptide(12)[:-4], "END", ""]))
    one, two = (build_system(tmp_path / "case.pdb", solvate=False, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.positions, two.positions)
    other = build_system(tmp_path / "case.pdb", solvate=False, seed=4)
    assert np.abs(one.positions - other.positions).max() > 1e-6
