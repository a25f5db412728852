"""[variable.NAME] and [[restraint]] of a run file: read, changed with --set, written, refused."""

from __future__ import annotations

import math

import pytest
import tomli_w

from mlmm.cli.program import main
from mlmm.config.load import load_config
from mlmm.config.objects import hybrid_from
from mlmm.config.tables import variables_and_restraints
from mlmm.errors import ConfigError
from mlmm.options import options_of

START = '[system]\npdb = "x.pdb"\n[region]\nselect = "all"\n'
D = '[variable.d]\ngroups = ["name CA", "name CB"]\n'
RESTRAINT = '[[restraint]]\nvariable = "d"\nat = "3 A"\nforce_constant = "1 kcal/mol/A^2"\n'


@pytest.fixture
def load(tmp_path):
    def load(text: str, *overrides: str):
        path = tmp_path / "run.toml"
        path.write_text(START + text)
        return load_config(path, overrides)

    return load


def test_tables_are_read_in_internal_units(load):
    config = load(
        D
        + RESTRAINT
        + '[[restraint]]\nvariable = "d"\nat = "1 nm"\nshape = "upper"\nforce_constant = "5 kJ/mol/nm²"\n'
    )
    (variable,), (harmonic, wall) = variables_and_restraints(config)
    assert (variable.name, variable.kind, variable.groups) == ("d", "distance", ("name CA", "name CB"))
    assert harmonic.numbers(variable) == pytest.approx((0.3, 418.4, 0.0))
    assert wall.numbers(variable) == (1.0, 5.0, 0.0) and wall.shape == "upper"


def test_targets_have_the_unit_of_their_variable(load):
    torsion = '[variable.t]\nkind = "torsion"\ngroups = ["a", "b", "c", "d"]\n'
    contact = '[variable.n]\nkind = "coordination"\ngroups = ["a", "b"]\ncontact_distance = "0.3 nm"\n'
    for table, at, constant, expected in (
        (torsion, '"-60 degree"', '"1 kJ/mol/rad^2"', (-math.pi / 3, 1.0)),
        (torsion, '"1 rad"', '"1 kJ/mol/deg^2"', (1.0, (180 / math.pi) ** 2)),
        (contact, "4.5", '"2 kcal/mol"', (4.5, 8.368)),
        (contact, '"4.5"', '"2 kJ/mol"', (4.5, 2.0)),
    ):
        name = table[10]
        text = f'{table}[[restraint]]\nvariable = "{name}"\nat = {at}\nforce_constant = {constant}\n'
        (variable,), (restraint,) = variables_and_restraints(load(text))
        assert restraint.numbers(variable)[:2] == pytest.approx(expected)


def test_a_window_is_one_setting(load):
    config = load(D + RESTRAINT, "restraint.d.at=0.35 nm", 'variable.d.groups=["name N", "name C"]')
    assert config.restraint[0]["at"] == "0.35 nm" and config.variable["d"]["groups"] == ("name N", "name C")
    for override, message in (
        ("restraint.e.at=0.3 nm", "one restraint on e for --set restraint.e.at, but got 0"),
        ("restraint.at=0.3 nm", r"Try --set restraint\.d\.at"),
        ("restraint.d.att=0.3 nm", "Did you mean 'at'"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(D + RESTRAINT, override)
    with pytest.raises(ConfigError, match=r"but got 2\. Change the run file"):
        load(D + RESTRAINT + RESTRAINT, "restraint.d.at=0.3 nm")


def test_what_is_written_is_read_again(load, tmp_path):
    config = load(D + RESTRAINT)
    (tmp_path / "resolved.toml").write_text(tomli_w.dumps(config.as_dict()))
    again = load_config(tmp_path / "resolved.toml")
    assert again.restraint == config.restraint and again.variable == config.variable
    plain = load("")
    assert not plain.restraint and "restraint" not in plain.as_dict()


def test_files_are_found_beside_the_run_file(load, tmp_path):
    (tmp_path / "path.pdb").write_text("END\n")
    config = load('[variable.s]\nkind = "path_s"\ngroups = ["all"]\nimages = "path.pdb"\n')
    assert config.variable["s"]["images"] == str((tmp_path / "path.pdb").resolve())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[variable]\nd = 1\n", r"Write \[variable.d\] above the keys of one"),
        ('[restraint]\nvariable = "d"\n', r"Write \[\[restraint\]\] in double brackets"),
        (
            D.replace("groups", "group"),
            r"a known key in .* \[variable.d\], but got 'group'. Did you mean 'groups'",
        ),
        (D + RESTRAINT.replace("at =", "att ="), r"\[\[restraint\]\], but got 'att'. Did you mean 'at'"),
        (D + RESTRAINT.replace('"d"', '"e"'), "a variable of .* for each restraint, but got 'e'"),
        (D.replace(".d]", '."my d"]'), "a variable whose name is a letter"),
        (D + RESTRAINT.replace("3 A", "3 K"), "at of the restraint on d as a length"),
        (D + RESTRAINT.replace("/A^2", ""), 'as an energy per length squared, such as "1 kJ/mol/nm\\^2"'),
        (D + RESTRAINT + 'stages = ["heat"]\n', "stages of the restraint on d in .*, but got 'heat'"),
        (D + RESTRAINT + "width = true\n", "width as a number with the unit of the variable"),
        ("[variables.d]\n", "Did you mean 'variable'"),
        ("[restraints]\n", "Did you mean 'restraint'"),
    ],
)
def test_mistakes_are_sentences(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_the_pages_name_every_key(capsys):
    from mlmm.config.schema import TABLES

    for name, schema in TABLES.items():
        assert main(["config", "--explain", name]) == 0
        page = capsys.readouterr().out
        for key, entry in options_of(schema).items():
            assert f"\n  {key} = " in page and entry.help
            if entry.example is not None:
                entry.check(key, entry.example)
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "restraint.NAME.force_constant" in capsys.readouterr().out


def test_a_run_file_gives_a_restrained_hybrid(load, dipeptide_vacuum):
    text = (
        '[potential]\nmembers = [0]\n[embedding]\nscheme = "additive"\n[variable.phi]\nkind = "torsion"\n'
        'groups = ["name C and resname ACE", "name N and resname ALA", "name CA", "name C and resname ALA"]\n'
        '[variable.d]\ngroups = ["resname ACE", "resname NME"]\n'
        '[[restraint]]\nvariable = "phi"\nat = "-60 degree"\nforce_constant = "100 kJ/mol/rad^2"\n'
    )
    hybrid = hybrid_from(load(text), dipeptide_vacuum)
    assert [variable.name for variable in hybrid.biases.variables] == ["phi", "d"]
    (restraint,) = hybrid.biases
    labels = [dipeptide_vacuum.label(atom) for atom in restraint.variable.atoms]
    assert labels == ["ACE1:C", "ALA2:N", "ALA2:CA", "ALA2:C"]
    assert restraint.describe() == "phi (torsion): harmonic at -60°, 100 kJ/mol/rad^2"


def test_runs_are_windows_and_go_on(root, tmp_path, capsys):
    """From the command line: a window by --set, resumed with its own target; another target is refused."""
    text = (
        f'[system]\npdb = "{root}/systems/alanine_dipeptide/input.pdb"\nsolvate = false\n'
        'constraints = "none"\nrigid_water = false\n[region]\nselect = "all"\n[potential]\nmembers = [0]\n'
        '[embedding]\nscheme = "additive"\n'
        '[run]\nminimise = 5\nequilibrate = "0 ps"\nproduce = "5 fs"\n[report]\ninterval = 2\n'
        '[variable.d]\ngroups = ["name CB", "name N and resname NME"]\n' + RESTRAINT
    )
    (tmp_path / "window.toml").write_text(text)
    run = ["run", str(tmp_path / "window.toml"), "--out", str(tmp_path / "out")]
    assert main([*run, "--set", "restraint.d.at=0.25 nm"]) == 0
    printed = capsys.readouterr().out
    assert "bias   d (distance): harmonic at 0.25 nm, 418.4 kJ/mol/nm^2" in printed
    header = (tmp_path / "out/energies.csv").read_text().splitlines()[0].split(",")
    assert header[-1] == "d" and "E_bias" in header
    assert main([*run, "--resume", "--set", 'run.produce="8 fs"']) == 0
    assert main([*run, "--resume", "--set", 'run.produce="9 fs"', "--set", "restraint.d.at=0.3 nm"]) == 2
    assert "restraint.d.at = 0.3 (the run: 0.25)" in capsys.readouterr().err
