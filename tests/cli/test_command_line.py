"""The command line as a user meets it: runs, resumes, refuses bad input in one line."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlmm.cli.check_frames import _config, mean_force_tables
from mlmm.cli.program import _parser, main
from mlmm.dynamics.run_directory import RunDirectory

QUICK = [
    "--set",
    "system.padding=0.5 nm",
    "--set",
    "run.minimise=10",
    "--set",
    "run.equilibrate=5 fs",
    "--set",
    "run.produce=20 fs",
    "--set",
    "run.nve=10 fs",
    "--set",
    "report.interval=5",
    "--set",
    "report.trajectory_interval=10",
    "--set",
    "potential.members=[0, 1]",
]


@pytest.fixture(scope="module")
def run_file(root) -> str:
    return str(root / "systems/alanine_dipeptide/run.toml")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mlmm.cli", *arguments]


def test_run_writes_a_complete_directory(tmp_path, run_file, capsys):
    out = tmp_path / "run"
    assert main(["run", run_file, "--out", str(out), *QUICK]) == 0
    printed = capsys.readouterr()
    assert f"report: {out}/report.html" in printed.out
    assert "ms per step" in printed.out and "ns/day" in printed.err
    assert sum(line.startswith("verdict: ") for line in printed.out.splitlines()) == 1
    for name in [
        "resolved.toml",
        "topology.pdb",
        "final.pdb",
        "trajectory.dcd",
        "energies.csv",
        "report.html",
        "checkpoint.zip",
        "run.log",
    ]:
        assert (out / name).stat().st_size > 0, name
    summary = json.loads((out / "run.json").read_text())
    assert summary["state"] == "finished"
    assert [stage["name"] for stage in summary["stages"]] == ["minimise", "equilibrate", "produce", "nve"]
    assert summary["zones"] == {
        "core": 22,
        "transition": 0,
        "buffer": 0,
        "environment": summary["system"]["atoms"] - 22,
    }
    rows = list(csv.DictReader((out / "energies.csv").read_text().splitlines()))
    assert [float(row["time_ps"]) for row in rows] == pytest.approx(
        [0.0025, 0.005, *np.arange(0.0075, 0.0251, 0.0025), *np.arange(0.0275, 0.0351, 0.0025)]
    )
    for row in rows:
        groups = sum(float(value) for name, value in row.items() if name.startswith("E_"))
        assert groups == pytest.approx(float(row["potential"]), abs=1e-6)
        assert float(row["total"]) == pytest.approx(float(row["potential"]) + float(row["kinetic"]), abs=1e-6)
        assert float(row["committee_spread"]) > 0
    import mdtraj

    trajectory = mdtraj.load(str(out / "trajectory.dcd"), top=str(out / "topology.pdb"))
    assert trajectory.n_frames == 4
    final = mdtraj.load(str(out / "final.pdb"))
    moved = np.abs(final.xyz[0] - trajectory.xyz[-1]).max(axis=1)
    assert moved[:22].max() < 0.1  # 10 fs later, the region in the middle
    assert (moved < 0.1).mean() > 0.95  # a few waters at the faces have changed sides
    weights = [
        float(line[60:66]) for line in (out / "topology.pdb").read_text().splitlines() if line[:4] == "ATOM"
    ]
    assert sum(weights) == 22


def test_run_with_a_smooth_zone(tmp_path, root, capsys):
    """Scheme "per_atom" through the whole command: zones counted, weights in the structure, report."""
    out = tmp_path / "run"
    assert main(["run", str(root / "systems/alanine_dipeptide/zone.toml"), "--out", str(out), *QUICK]) == 0
    printed = capsys.readouterr()
    assert "zones  core 14, transition" in printed.out
    assert "ALA2:C–ALA2:CA" in printed.err
    summary = json.loads((out / "run.json").read_text())
    assert summary["embedding"]["scheme"] == "per_atom"
    assert summary["zones"]["transition"] > 0 and summary["zones"]["buffer"] > 0
    assert sum(summary["zones"].values()) == summary["system"]["atoms"]
    weights = [
        float(line[60:66]) for line in (out / "final.pdb").read_text().splitlines() if line[:4] == "ATOM"
    ]
    assert sum(0 < weight < 1 for weight in weights) > 0
    assert sum(weight == 1 for weight in weights) >= 14
    assert "partly ML" in (out / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adaptive", "supermolecular"])
def test_runs_and_checks_of_the_other_schemes(tmp_path, root, capsys, name):
    """Their run files as they stand, but short: report with the section on zones, figures of the check."""
    run_file, out = str(root / f"systems/alanine_dipeptide/{name}.toml"), tmp_path / "run"
    assert main(["run", run_file, "--out", str(out), *QUICK]) == 0
    scheme = "supermolecular" if name == "supermolecular" else "per_atom"
    assert f"scheme {scheme}, " in capsys.readouterr().out
    summary = json.loads((out / "run.json").read_text())
    assert summary["embedding"]["scheme"] == scheme
    assert sum(summary["zones"].values()) == summary["system"]["atoms"]
    page = (out / "report.html").read_text()
    assert "Atoms per zone" in page and ("Molecules in the adaptive zone" in page) == (name == "adaptive")
    assert (out / "lambda.npy").exists() == (name == "adaptive")
    small = ["--set", "system.padding=0.5 nm", "--set", "potential.members=[0]"]
    assert main(["check", run_file, "--nve", "0 ps", *small]) == 0
    printed = capsys.readouterr().out
    for figure in ("forces vs finite differences", "TorchForce vs PythonForce", "moving molecules by box"):
        assert " ok" in next(line for line in printed.splitlines() if line.startswith(figure))
    assert ("energy counted twice or lost" in printed) == (name == "supermolecular")
    found = mean_force_tables(out, _config(out)) if name == "adaptive" else []
    # Four frames of the run, six bins of lambda: its own system, whatever the check was made of.
    assert [len(table.splitlines()) for table in found] == ([9] if name == "adaptive" else [])
    assert all("4 frames; out of the zone in all" in table for table in found)


def test_frames_of_an_adaptive_run_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "frames", "elsewhere"]) == 2
    assert (
        "frames of an adaptive zone in elsewhere, but got none. Make some with mlmm run"
        in capsys.readouterr().err
    )
    folder = tmp_path / "runs/still"
    folder.mkdir(parents=True)
    text = '[system]\npdb = "x.pdb"\n[region]\nselect = "all"\n[zones]\nkind = "static"\n'
    (folder / "resolved.toml").write_text(text)
    (folder / "trajectory.dcd").write_bytes(b"")
    assert main(["check", "frames", "runs/still"]) == 2
    assert "got zones of kind static" in capsys.readouterr().err


#: The command line in a process that gets SIGTERM after the first row of production, however fast it runs.
STOPPED = """
import os, signal, sys
from mlmm.cli import main
from mlmm.dynamics.reporters import EnergyTable

write = EnergyTable.write

def write_and_stop(table, stage, *row):
    values = write(table, stage, *row)
    if stage == "produce":
        EnergyTable.write = write
        os.kill(os.getpid(), signal.SIGTERM)
    return values

EnergyTable.write = write_and_stop
sys.exit(main(sys.argv[1:]))
"""


def test_interrupted_run_resumes(tmp_path, run_file):
    """SIGTERM leaves a resumable run and says how to go on; --resume finishes it with the same rows."""
    out = tmp_path / "run"
    long = [*QUICK, "--set", "run.produce=30 fs", "--set", "run.platform=Reference"]
    whole = subprocess.run(
        command("run", run_file, "--out", str(tmp_path / "whole"), *long), capture_output=True
    )
    assert whole.returncode == 0, whole.stderr
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, "run", run_file, "--out", str(out), *long], capture_output=True
    )
    assert stopped.returncode == 143, stopped.stderr
    assert b"--resume" in stopped.stdout
    table = out / "energies.csv"
    assert RunDirectory(out).state == "interrupted"
    assert "interrupted in " in (out / "report.html").read_text()
    again = subprocess.run(command("run", run_file, "--out", str(out)), capture_output=True, text=True)
    assert again.returncode == 2
    assert "a run that is interrupted. Add --resume" in again.stderr
    resumed = subprocess.run(command("run", run_file, "--out", str(out), "--resume"), capture_output=True)
    assert resumed.returncode == 0, resumed.stderr
    assert RunDirectory(out).state == "finished"
    assert table.read_bytes() == (tmp_path / "whole/energies.csv").read_bytes()
    finished = subprocess.run(
        command("run", run_file, "--out", str(out), "--resume"), capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert "which is finished" in finished.stderr


def test_check_prints_the_figures(run_file, capsys):
    assert main(["check", run_file, "--nve", "0 ps", "--set", "system.padding=0.5 nm"]) == 0
    printed = capsys.readouterr().out
    for name in (
        "forces vs finite differences",
        "TorchForce vs PythonForce",
        "moving molecules by box vectors",
    ):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert " ok" in line


def test_check_ends_with_1_when_a_check_fails(run_file, capsys, monkeypatch):
    import mlmm.validation.check

    monkeypatch.setattr(mlmm.validation.check, "finite_difference_error", lambda *_, **__: 1e-3)
    assert main(["check", run_file, "--nve", "0 ps", "--set", "system.padding=0.5 nm"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_models_lists_every_potential(capsys, monkeypatch):
    monkeypatch.delenv("MLMM_MODELS", raising=False)
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "installed" in printed.split("ani1x", 1)[1].splitlines()[0]
    assert "mlmm models install ani2x" in printed and "aimnet2" in lines


VERBS = ["", "init", "config", "build", "run", "check", "calibrate", "report", "ligand", "models", "bench"]
CHECKS = [f"check {verb}" for verb in ("energy", "zones", "schemes", "timestep", "frames")]


@pytest.mark.parametrize("verb", [*VERBS, *CHECKS])
def test_help_names_examples_and_keys(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert len(printed) > 100
    # The examples are commands that exist.
    examples = [line for line in printed.splitlines() if re.match(r"  mlmm \S", line)]
    assert examples
    for line in examples:
        words = shlex.split(line.strip().split("  ")[0])
        assert callable(_parser().parse_args(words[1:]).verb), line


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("rum my/run.toml", "got 'rum'. Did you mean `mlmm run`?"),
        ("models instal ani2x", "got 'instal'. Did you mean `mlmm models install`?"),
        ("calibrate my/run.toml --out G.json --mode densty", "got 'densty'. Did you mean `--mode density`?"),
        ("xyzzy", "got 'xyzzy'. `mlmm --help` explains them."),
        ("run", "the following arguments are required: config"),
    ],
)
def test_a_slip_of_the_pen_is_answered_with_the_closest_word(capsys, typed, said):
    with pytest.raises(SystemExit) as caught:
        main(typed.split())
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_check_without_a_verb_checks_the_energy():
    from mlmm.cli import check_energy, check_zones

    def parsed(*words):
        return _parser().parse_args(["check", *words])

    assert parsed("my/run.toml").verb is parsed("energy", "my/run.toml").verb is check_energy.run
    assert parsed("--nve", "0 ps", "my/run.toml").nve == "0 ps"
    assert parsed("zones", "my/run.toml").verb is check_zones.run


def test_help_of_run_names_every_setting_of_the_time_step(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    printed = capsys.readouterr().out
    for word in (
        "run.timestep",
        "run.nonbonded_every",
        "run.reciprocal_every",
        "region.hydrogen_mass",
    ):
        assert f"  {word} = " in printed
    assert "mlmm check timestep my/run.toml tests some on your system" in printed


def test_help_is_quick():
    """Nothing numerical is imported before it is needed: thread settings come first, and help is instant."""
    code = "import sys, mlmm.cli; print(sorted({'torch', 'openmm', 'numpy', 'mdtraj'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
    code = "import os, mlmm; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert printed.stdout.strip() == "passive"


BAD_INPUT = {
    "missing pdb": (["--set", "system.pdb=nowhere.pdb"], "Expected a PDB or mmCIF file, but got no file at"),
    "empty pdb": (["--set", "system.pdb=EMPTY"], "which is empty. Download or write the file again"),
    "binary pdb": (["--set", "system.pdb=BINARY"], "bytes that are no text. Give the structure file itself"),
    "unknown residue": (["--set", "system.pdb=UNKNOWN"], "LIG"),
    "selection that matches nothing": (
        ["--set", "region.select=resname XYZ"],
        "which matches none. Residue names",
    ),
    "selection with a mistake": (["--set", "region.select=resname =="], "a selection in mdtraj's language"),
    "element that the potential lacks": (
        ["--set", "system.pdb=CYSTEINE", "--set", "region.select=resname CYS"],
        "got S.",
    ),
    "region that cuts a charged group": (
        ["--set", "region.select=resname ALA and name O", "--set", "region.complete=atoms"],
        "whole charged groups on one side of the boundary, but got a region of charge -0.57 e",
    ),
    "region that cuts a bond to hydrogen": (
        ["--set", "region.select=resname ALA and name CB HB1 HB2", "--set", "region.complete=atoms"],
        "a single bond under every cap, but got ALA2:CB–ALA2:HB3, which is none",
    ),
    "unknown key": (["--set", "run.timestp=1 fs"], "Did you mean 'timestep'?"),
    "unknown section": (["--set", "runs.timestep=1 fs"], "Did you mean 'run'?"),
    "wrong unit": (["--set", "run.timestep=1 nm"], "Units for a time: ps, fs"),
    "no unit": (["--set", "run.timestep=1"], "timestep with its unit in"),
    "wrong type": (["--set", 'run.seed="one"'], "seed as a whole number in"),
    "box too small for the cutoff": (["--set", "system.padding=0.1 nm"], "twice the cutoff, but got"),
    "unknown potential": (["--set", "potential.name=ani1y"], 'Did you mean "ani1x"?'),
    "unknown scheme": (
        ["--set", "embedding.scheme=magic"],
        "scheme = auto | per_atom | supermolecular | additive | delta in",
    ),
    "unknown zones": (["--set", "zones.kind=soft"], "kind = auto | hard | static | residues | adaptive in"),
    "key of another kind": (
        ["--set", "zones.kind=hard", "--set", "zones.width=0.2 nm"],
        'Write kind = "static"',
    ),
    "sizes of a hard zone": (
        ["--set", "zones.width=0.2 nm"],
        "under scheme 'additive', whose region is hard, but got width",
    ),
    "mechanical is no scheme": (["--set", "embedding.scheme=mechanical"], 'Write scheme = "additive"'),
    "tail of another scheme": (
        ["--set", "embedding.scheme=per_atom", "--set", "embedding.mm_tail=true"],
        "mm_tail = true under scheme 'additive' only",
    ),
    "multiplicity of another scheme": (
        ["--set", "embedding.scheme=per_atom", "--set", "region.multiplicity=2"],
        "Leave multiplicity out",
    ),
    "key that is gone": (
        ["--set", "embedding.mm_side=torch"],
        "`mlmm config --explain embedding`, which lists the keys",
    ),
    "charge of a run file": (["--set", "region.charge=0.5"], "charge as a whole number in"),
    "multiplicity of a run file": (["--set", "region.multiplicity=0"], "multiplicity of 1 or more in"),
    "missing compensation": (
        ["--set", "zones.kind=adaptive", "--set", "zones.compensation=none.json"],
        "no file none.json. Write one with mlmm calibrate",
    ),
    "rigid water in an adaptive zone": (
        [
            "--set",
            "zones.kind=adaptive",
            "--set",
            "embedding.scheme=per_atom",
            "--set",
            "system.rigid_water=true",
        ],
        "flexible molecules in an adaptive zone",
    ),
    "smooth zone under additive": (
        ["--set", "zones.kind=static", "--set", "region.select=resname ALA"],
        'Use mlmm.hard_zones (kind = "hard" in [zones]), or scheme = "per_atom"',
    ),
    "unknown bridge": (
        ["--set", "potential.bridge=magic"],
        "bridge = auto | torchforce | pythonforce | native in",
    ),
    "unknown platform": (["--set", "run.platform=magic"], "Choose one of these"),
    "time step too long": (["--set", "run.timestep=20 fs"], "between 0 and 5 fs, but got 20 fs"),
    "member that does not exist": (["--set", "potential.members=[8]"], "between 0 and 7, but got [8]"),
    "broken --set": (["--set", "timestep"], "--set section.key=value, but got 'timestep'"),
    "NaN during dynamics": (
        ["--set", "run.timestep=5 fs", "--set", "run.produce=50 ps", "--set", "run.temperature=3000 K"],
        "last finite frame",
    ),
}


@pytest.fixture
def bad_files(tmp_path, root) -> dict[str, str]:
    good = (root / "systems/alanine_dipeptide/input.pdb").read_text()
    (tmp_path / "empty.pdb").write_text("")
    (tmp_path / "binary.pdb").write_bytes(bytes(range(256)) * 20)
    ligand = "HETATM   99  C1  LIG B   9      30.000  30.000  30.000  1.00  0.00           C  \n"
    (tmp_path / "unknown.pdb").write_text(good.replace("END\n", "") + ligand + "END\n")
    cysteine = []
    for line in good.splitlines():
        if line[17:20] == "ALA" and line[12:16].strip() in ("HB1", "HB2", "HB3"):
            continue
        cysteine.append(line.replace("ALA", "CYS"))
        if line[17:20] == "ALA" and line[12:16].strip() == "CB":
            x, y, z = (float(line[30 + 8 * k : 38 + 8 * k]) for k in range(3))
            place = f"{x - 0.893:8.3f}{y + 0.498:8.3f}{z - 1.493:8.3f}"  # where HB1 was, at 1.81 angstrom
            cysteine.append(f"ATOM     98  SG  CYS A   2    {place}  1.00  0.00           S  ")
    (tmp_path / "cysteine.pdb").write_text("\n".join(cysteine) + "\n")
    return {
        name.upper(): str(tmp_path / f"{name}.pdb") for name in ("empty", "binary", "unknown", "cysteine")
    }


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_status_2(tmp_path, run_file, bad_files, case, capsys):
    arguments, message = BAD_INPUT[case]
    for word, path in bad_files.items():
        arguments = [argument.replace(word, path) for argument in arguments]
    if case == "element that the potential lacks":
        arguments += ["--set", "region.complete=molecule"]
    out = tmp_path / "run"
    assert main(["run", run_file, "--out", str(out), *QUICK, *arguments]) == 2
    printed = capsys.readouterr().err
    lines = [line for line in printed.splitlines() if line.startswith("mlmm: error")]
    assert len(lines) == 1 and "Traceback" not in printed
    opening = "The simulation failed: expected " if case == "NaN during dynamics" else "Expected "
    assert lines[0].startswith(f"mlmm: error: {opening}") and ", but got " in lines[0]
    assert message in lines[0]
    if case == "NaN during dynamics":
        assert RunDirectory(out).state == "failed"
        assert (out / "last_finite_frame.pdb").stat().st_size > 0
        assert "failed" in (out / "report.html").read_text()
    else:
        assert not (out / "run.json").exists()  # nothing that could be taken for a run


def test_missing_run_file_is_reported(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml")]) == 2
    assert "a run file in TOML" in capsys.readouterr().err


def test_broken_toml_names_the_line(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("[system\npdb = 1\n")
    assert main(["run", str(tmp_path / "run.toml")]) == 2
    assert "line 1" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path, run_file, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["run", run_file, "--out", str(tmp_path), "--overwrite", *QUICK]) == 2
    assert "with other files. Choose another --out" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_report_without_a_run_is_rejected(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "Expected a run directory" in capsys.readouterr().err


def test_resume_refuses_a_damaged_checkpoint(tmp_path, run_file, capsys):
    out = tmp_path / "run"
    assert main(["run", run_file, "--out", str(out), *QUICK]) == 0
    for name in ("checkpoint.zip", "checkpoint.previous.zip"):
        (out / name).write_bytes(b"not a zip")
    assert main(["run", run_file, "--out", str(out), "--resume"]) == 2
    assert "Expected a checkpoint in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "alanine_dipeptide/run.toml",
        "alanine_dipeptide/zone.toml",
        "alanine_dipeptide/adaptive.toml",
        "alanine_dipeptide/supermolecular.toml",
        "lysozyme_xylene/run.toml",
    ],
)
def test_every_run_file_is_valid_and_resolved_settings_are_a_fixed_point(root, tmp_path, name):
    import tomli_w

    from mlmm.config.load import load_config

    config = load_config(root / "systems" / name)
    again = tmp_path / "resolved.toml"
    again.write_text(tomli_w.dumps(config.as_dict()))
    assert load_config(again) == config


def test_executable_is_installed():
    assert shutil.which("mlmm", path=str(Path(sys.executable).parent))


def test_a_terminal_without_greek_letters_gets_their_numbers():
    """In the C locale with Python's help against it turned off."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment.pop("PYTHONIOENCODING", None)
    call = command("config", "--explain", "zones")
    printed = subprocess.run(call, capture_output=True, env=environment)
    assert printed.returncode == 0 and b"\\xc5" in printed.stdout
    printed = subprocess.run(call, capture_output=True, env={**os.environ, "PYTHONUTF8": "1"})
    assert "Å" in printed.stdout.decode()
