"""What the schema says as text: `mlmm config`, the listings of ``--help``, the file of `mlmm init`."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from mlmm.cli.program import main
from mlmm.config.explain import explain, key_lines
from mlmm.config.load import load_config
from mlmm.config.schema import SECTIONS
from mlmm.options import options_of, toml


def test_every_key_is_explained_with_its_values():
    page = explain()
    for section, (schema, _) in SECTIONS.items():
        for key, entry in options_of(schema, section).items():
            assert f"\n  {key} = " in page or f"\n  {key}    (not set)" in page
            assert entry.help and entry.values
            # A value to write is one that the key takes.
            if entry.example is not None:
                entry.check(key, entry.example)
    for unit in ("nm", "ps", "K", "bar", "/ps", "amu", "kJ/mol"):
        assert unit in page


def test_one_section_is_explained(capsys):
    assert main(["config", "--explain", "run"]) == 0
    printed = capsys.readouterr().out
    assert 'timestep = "0.5 fs"' in printed and "A time (ps, fs, ns, us) above 0 ps." in printed
    assert "[zones]" not in printed
    assert main(["config", "--explain", "zone"]) == 2
    assert "Did you mean 'zones'?" in capsys.readouterr().err
    assert main(["config"]) == 2
    assert "Try mlmm config --explain" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "sections"), [("run", ("zones", "run", "report")), ("build", ("system",))])
def test_help_lists_the_keys_of_the_schema(capsys, verb, sections):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    printed = capsys.readouterr().out
    for section in sections:
        assert key_lines(section) in printed
        for key in options_of(SECTIONS[section][0], section):
            assert f"  {section}.{key}" in printed


def test_lines_of_help_can_be_given_to_set(root):
    """Every line `section.key = default` is a setting that changes nothing."""
    run_file = root / "systems/alanine_dipeptide/run.toml"
    lines = [line.strip() for line in key_lines("potential", "report", "uncertainty").splitlines()]
    keys = [line.partition("  ")[0] for line in lines]
    settings = [key.replace(" = ", "=", 1) for key in keys if " = " in key]
    assert len(settings) > 15
    for setting in settings:
        load_config(run_file, [setting])


def test_settings_of_a_run_file_with_all_defaults(root, capsys):
    run_file = root / "systems/alanine_dipeptide/run.toml"
    assert main(["config", str(run_file), "--set", "run.produce=3 ps"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert printed["run"]["produce"] == "3 ps" and printed["run"]["friction"] == "1 /ps"


# --- mlmm init -----------------------------------------------------------------------------------------


def test_the_file_of_init_is_a_run_file(tmp_path, monkeypatch, capsys):
    """As written, and with every commented key in force."""
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    text = (tmp_path / "run.toml").read_text()
    assert load_config("run.toml").region.select == "resname LIG"
    keys = [line for line in text.splitlines() if re.match(r"# \w+ = ", line)]
    assert len(keys) > 10
    live = [line.removeprefix("# ") if line in keys else line for line in text.splitlines()]
    (tmp_path / "live.toml").write_text("\n".join(live).replace('kind = "auto"', 'kind = "static"'))
    load_config("live.toml")
    assert main(["init"]) == 2
    assert "no file run.toml yet, but got one that is there. Choose another --out" in capsys.readouterr().err
    assert (tmp_path / "run.toml").read_text() == text


def test_init_with_a_structure_suggests_a_ligand_or_a_chain(root, tmp_path, capsys):
    lysozyme = root / "systems/lysozyme_xylene/input.pdb"
    assert main(["init", str(lysozyme), "--out", str(tmp_path / "my/run.toml")]) == 0
    config = load_config(tmp_path / "my/run.toml")
    assert config.region.select == "resname TMP" and config.system.pdb == str(lysozyme)
    assert "[system.ligand.TMP]" in (tmp_path / "my/run.toml").read_text()
    assert "region 'resname TMP'" in capsys.readouterr().out
    dipeptide = root / "systems/alanine_dipeptide/input.pdb"
    assert main(["init", str(dipeptide), "--out", str(tmp_path / "chain.toml")]) == 0
    assert load_config(tmp_path / "chain.toml").region.select == "chainid 0"
    assert main(["init", str(tmp_path / "nothing.pdb"), "--out", str(tmp_path / "no.toml")]) == 2
    assert not (tmp_path / "no.toml").exists()


def test_the_file_of_init_runs(root, tmp_path):
    """Built, simulated and reported as it stands, but for its length and its box."""
    dipeptide = root / "systems/alanine_dipeptide/input.pdb"
    assert main(["init", str(dipeptide), "--out", str(tmp_path / "run.toml")]) == 0
    short = ["system.padding=0.5 nm", "potential.members=[0]", "run.minimise=5", "run.equilibrate=2 fs"]
    short += ["run.produce=2 fs", "system.nonbonded_cutoff=0.9 nm", "system.constraints=none"]
    options = [word for setting in short for word in ("--set", setting)]
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "run.toml"), "--out", str(out), *options]) == 0
    assert (out / "report.html").exists()


def test_no_numerical_library_is_needed_for_a_run_file(root):
    code = (
        "import sys, mlmm.config.load as load, mlmm.config.explain as text; "
        f"load.load_config({str(root / 'systems/alanine_dipeptide/run.toml')!r}); text.explain(); "
        "print(sorted({'numpy', 'torch', 'openmm', 'mdtraj', 'scipy'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (("A", "B"), '["A", "B"]'),
        ({"resid 3": 0.5, "b": "c"}, '{"resid 3" = 0.5, b = "c"}'),
        ("0.5 nm", '"0.5 nm"'),
    ],
)
def test_values_are_written_as_toml(value, text):
    assert toml(value) == text
    read = tomllib.loads(f"value = {text}")["value"]
    assert (tuple(read) if isinstance(read, list) else read) == value
