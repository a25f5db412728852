"""The command line as a user meets it: runs, resumes, refuses bad input in one line."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from mlmm.cli.mean_force import mean_force_tables
from mlmm.cli.program import _parser, main
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.errors import ConfigError

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
    found = (
        mean_force_tables("adaptive", Namespace(run=str(out)), lambda text: None)
        if name == "adaptive"
        else ()
    )
    # Four frames of the run, six bins of lambda: its own system, whatever the check was made of.
    assert [len(table.splitlines()) for table in found] == ([9] if name == "adaptive" else [])
    assert all("4 frames; out of the zone in all" in table for table in found)


def test_frames_of_an_adaptive_run_where_there_are_some(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mean_force_tables("nothing", Namespace(run=None), print) == ()
    with pytest.raises(ConfigError, match="frames of an adaptive zone in elsewhere; got none; run it with"):
        mean_force_tables("nothing", Namespace(run="elsewhere"), print)
    folder = tmp_path / "runs/still"
    folder.mkdir(parents=True)
    text = '[system]\npdb = "x.pdb"\n[region]\nselect = "all"\n[zones]\nkind = "static"\n'
    (folder / "resolved.toml").write_text(text)
    (folder / "trajectory.dcd").write_bytes(b"")
    assert mean_force_tables("still", Namespace(run=None), print) == ()
    with pytest.raises(ConfigError, match="got zones of kind static"):
        mean_force_tables("still", Namespace(run="runs/still"), print)


def test_interrupted_run_resumes(tmp_path, run_file):
    """SIGTERM leaves a resumable run and says how to go on; --resume finishes it with the same rows."""
    out = tmp_path / "run"
    long = [*QUICK, "--set", "run.produce=100 fs", "--set", "run.platform=Reference"]
    whole = subprocess.run(
        command("run", run_file, "--out", str(tmp_path / "whole"), *long), capture_output=True
    )
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command("run", run_file, "--out", str(out), *long), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    table = out / "energies.csv"
    deadline = time.monotonic() + 600
    while not (table.exists() and "produce" in table.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 143
    assert b"--resume" in printed
    assert RunDirectory(out).state == "interrupted"
    assert "not finished" in (out / "report.html").read_text()
    again = subprocess.run(command("run", run_file, "--out", str(out)), capture_output=True, text=True)
    assert again.returncode == 2
    assert "a run that is interrupted; add --resume" in again.stderr
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


@pytest.mark.parametrize("verb", ["", "run", "check", "calibrate", "report", "models"])
def test_help_teaches(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"] if verb else ["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert len(printed) > 100
    # The examples of the first page are commands that exist.
    for line in printed.splitlines() if not verb else []:
        if line.startswith("  mlmm "):
            words = shlex.split(line.split("  ")[1])
            assert callable(_parser().parse_args(words[1:]).verb)


def test_help_of_run_names_every_setting_of_the_time_step(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    printed = capsys.readouterr().out
    for word in (
        "timestep",
        "nonbonded_every",
        "reciprocal_every",
        "region.hydrogen_mass",
        "system.hydrogen_mass",
    ):
        assert f"  {word} = " in printed
    assert "--timestep tests them" in printed


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
    "missing pdb": (["--set", "system.pdb=nowhere.pdb"], "expected a PDB or mmCIF file; got no file at"),
    "empty pdb": (["--set", "system.pdb=EMPTY"], "which is empty; download or write the file again"),
    "binary pdb": (["--set", "system.pdb=BINARY"], "bytes that are no text; give the structure file itself"),
    "unknown residue": (["--set", "system.pdb=UNKNOWN"], "LIG"),
    "selection that matches nothing": (
        ["--set", "region.select=resname XYZ"],
        "which matches none; residue names",
    ),
    "selection with a mistake": (["--set", "region.select=resname =="], "a selection in mdtraj's language"),
    "element that the potential lacks": (
        ["--set", "system.pdb=CYSTEINE", "--set", "region.select=resname CYS"],
        "got S;",
    ),
    "region that cuts a charged group": (
        ["--set", "region.select=resname ALA and name O", "--set", "region.complete=atoms"],
        "whole charged groups on one side of the boundary; got a region of charge -0.57 e",
    ),
    "region that cuts a bond to hydrogen": (
        ["--set", "region.select=resname ALA and name CB HB1 HB2", "--set", "region.complete=atoms"],
        "a single bond under every cap; got ALA2:CB–ALA2:HB3, which is none",
    ),
    "unknown key": (["--set", "run.timestp=1 fs"], "did you mean 'timestep'?"),
    "unknown section": (["--set", "runs.timestep=1 fs"], "did you mean 'run'?"),
    "wrong unit": (["--set", "run.timestep=1 nm"], "units for a time: ps, fs"),
    "no unit": (["--set", "run.timestep=1"], "with its unit; got 1; write it in quotes"),
    "wrong type": (["--set", 'run.seed="one"'], "seed as int; got 'one'"),
    "box too small for the cutoff": (["--set", "system.padding=0.1 nm"], "twice the cutoff; got"),
    "unknown potential": (["--set", "potential.name=ani1y"], 'did you mean "ani1x"?'),
    "unknown scheme": (
        ["--set", "embedding.scheme=magic"],
        "scheme = auto | per_atom | supermolecular | additive | delta in",
    ),
    "unknown zones": (["--set", "zones.kind=soft"], "kind = auto | hard | static | residues | adaptive in"),
    "key of another kind": (
        ["--set", "zones.kind=hard", "--set", "zones.width=0.2 nm"],
        'write kind = "static"',
    ),
    "sizes of a hard zone": (
        ["--set", "zones.width=0.2 nm"],
        "under scheme 'additive', whose region is hard; got width",
    ),
    "key that is gone": (["--set", "embedding.mm_side=torch"], "mm_side"),
    "tail of another scheme": (
        ["--set", "embedding.scheme=per_atom", "--set", "embedding.mm_tail=true"],
        "leave mm_tail out, or write scheme",
    ),
    "missing compensation": (
        ["--set", "zones.kind=adaptive", "--set", "zones.compensation=none.json"],
        "no file none.json; write one with mlmm calibrate",
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
        'use mlmm.hard_zones, or scheme = "per_atom"',
    ),
    "unknown bridge": (
        ["--set", "potential.bridge=magic"],
        "bridge = auto | torchforce | pythonforce | native; got 'magic'",
    ),
    "unknown platform": (["--set", "run.platform=magic"], "choose one of these"),
    "time step too long": (["--set", "run.timestep=20 fs"], "between 0 and 5 fs; got 20 fs"),
    "member that does not exist": (["--set", "potential.members=[8]"], "between 0 and 7; got [8]"),
    "broken --set": (["--set", "timestep"], "--set section.key=value; got 'timestep'"),
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
            cysteine.append(
                f"ATOM     98  SG  CYS A   2    {x - 1:8.3f}{y:8.3f}{z + 1.5:8.3f}  1.00  0.00           S  "
            )
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
    assert lines[0].startswith("mlmm: error: expected ") and "; got " in lines[0]
    assert message in lines[0]
    if case == "NaN during dynamics":
        assert RunDirectory(out).state == "failed"
        assert (out / "last_finite_frame.pdb").stat().st_size > 0
        assert "failed" in (out / "report.html").read_text()
    else:
        assert not (out / "run.json").exists()  # nothing that could be taken for a run


def test_missing_run_file(tmp_path, capsys):
    assert main(["run", str(tmp_path / "none.toml")]) == 2
    assert "a run file in TOML" in capsys.readouterr().err


def test_broken_toml_names_the_line(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("[system\npdb = 1\n")
    assert main(["run", str(tmp_path / "run.toml")]) == 2
    assert "line 1" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path, run_file, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["run", run_file, "--out", str(tmp_path), "--overwrite", *QUICK]) == 2
    assert "with other files; choose another --out" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_report_of_no_run(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "expected a run directory" in capsys.readouterr().err


def test_resume_refuses_a_damaged_checkpoint(tmp_path, run_file, capsys):
    out = tmp_path / "run"
    assert main(["run", run_file, "--out", str(out), *QUICK]) == 0
    (out / "checkpoint.zip").write_bytes(b"not a zip")
    assert main(["run", run_file, "--out", str(out), "--resume"]) == 2
    assert "expected a checkpoint in" in capsys.readouterr().err


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
