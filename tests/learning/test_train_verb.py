"""``mlmm train``: from a file of labels to a potential; bad input in sentences, with nothing lost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from labelled_molecules import shaken, springs

from mlmm.cli.program import main
from mlmm.config.label_file import load_label_file
from mlmm.errors import ConfigError
from mlmm.learning.dataset.frames import frame_text
from mlmm.learning.training.config import load_training
from mlmm.learning.training.targets import check_samples, check_split
from mlmm.learning.training.train import divide
from mlmm.potentials import load_potential
from mlmm.reference.labels import Molecule

TOML = """
[data]
labels = "labels.xyz"
held_out = 0.2
validation = 0.2

[networks]
start = "scratch"
members = 2
hidden = [12, 8]

[fit]
epochs = 3
"""


@pytest.fixture
def samples():
    return [(molecule, springs(molecule)) for molecule in shaken(50, 1)]


@pytest.fixture
def folder(tmp_path, samples):
    write_labels(tmp_path / "labels.xyz", samples)
    (tmp_path / "train.toml").write_text(TOML)
    return tmp_path


def write_labels(path, samples):
    path.write_bytes(b"".join(frame_text(*pair, side=False) for pair in samples))


def trained(*arguments, capsys):
    status = main(["train", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_training_writes_model_report_and_picture(folder, capsys):
    status, out, err = trained(folder / "train.toml", "--out", folder / "run", capsys=capsys)
    assert status == 0, err
    assert "held out" in out and "kcal/mol/Å" in out and "uncertainty: force spread of the committee" in out
    assert "32 labels to train on, 8 to validate, 10 held out: Morse pairs" in err
    report = json.loads((folder / "run/report.json").read_text())
    assert report["errors"]["held out"]["structures"] == 10 and len(report["blocks"]) == 5
    assert (folder / "run/parity.png").stat().st_size > 10_000
    assert load_potential(str(folder / "run/model.safetensors")).spec.members == 2
    assert not (folder / "run/fit.safetensors").exists()
    status, _, err = trained(folder / "train.toml", "--out", folder / "run", capsys=capsys)
    assert status == 2 and "Add --overwrite" in err
    status, out, _ = trained(
        folder / "train.toml",
        "--out",
        folder / "run",
        "--overwrite",
        "--set",
        "model.kind=gdml",
        capsys=capsys,
    )
    assert status == 0 and load_potential(str(folder / "run/model.safetensors")).spec.per_atom is False


def test_help_explains_every_key_and_the_template_is_valid(folder, capsys):
    _, out, _ = trained("--explain", capsys=capsys)
    for key in ("energy_weight", "held_out", "permutations", "freeze", "base"):
        assert f"  {key} = " in out
    _, template, _ = trained("--template", capsys=capsys)
    (folder / "new.toml").write_text(template, encoding="utf-8")
    assert load_training(folder / "new.toml").networks.start == "ani1x"
    status, _, err = trained("--explain", "nothing", capsys=capsys)
    assert status == 2 and "a section data, model, networks, graph, kernel" in err


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("epochs = 3", "epochs = 0"), "epochs of 1 or more"),
        (("epochs = 3", "epoch = 3"), "did you mean 'epochs'|Did you mean 'epochs'"),
        (("epochs = 3", 'energy_weight = "2 kcal/mol"'), "energy_weight"),
        (
            ('"labels.xyz"', '"nothing.xyz"'),
            "a file or folder with labelled structures, but got no nothing.xyz",
        ),
        (("[fit]", "[fitting]"), "Did you mean 'fit'|did you mean 'fit'"),
        (("members = 2", 'start2 = "x"'), "start"),
    ],
)
def test_mistakes_in_the_file_are_sentences(folder, capsys, change, match):
    (folder / "train.toml").write_text(TOML.replace(*change))
    status, _, err = trained(folder / "train.toml", "--out", folder / "run", capsys=capsys)
    assert status == 2 and any(part in err for part in match.split("|")), err
    assert "Traceback" not in err and not (folder / "run/model.safetensors").exists()


def broken(samples, what):
    molecule, label = samples[3]
    if what == "mixed":
        label = dataclasses.replace(label, method="another")
    elif what == "nan":
        label = dataclasses.replace(
            label, forces=np.where(np.arange(18).reshape(6, 3) == 4, np.nan, label.forces)
        )
    elif what == "shape":
        label = dataclasses.replace(label, forces=label.forces[:5])
    elif what == "angstrom":
        return [(Molecule(m.numbers, 10.0 * m.positions), s) for m, s in samples]
    elif what == "hartree/bohr":
        return [(m, dataclasses.replace(s, forces=s.forces / 49_614.0)) for m, s in samples]
    elif what == "few":
        return samples[:4]
    elif what == "unconverged":
        return [(m, dataclasses.replace(s, converged=k < 5)) for k, (m, s) in enumerate(samples)]
    return [*samples[:3], (molecule, label), *samples[4:]]


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("mixed", "one level of theory, but got Morse pairs and another"),
        ("nan", "NaN or infinity"),
        ("shape", r"forces of shape \(6, 3\)"),
        ("angstrom", "positions of molecules in nm"),
        ("hartree/bohr", "forces of molecules in kJ/mol/nm"),
        ("few", "10 labels or more to train on, but got 4"),
        ("unconverged", r"but got 5 \(45 did not converge\)"),
    ],
)
def test_labels_that_cannot_be_learned_from_are_refused(samples, what, match):
    assert len(check_samples(samples)) == 50  # control: as they are, they pass
    with pytest.raises(ConfigError, match=match):
        check_samples(broken(samples, what))


def test_a_split_that_leaks_is_refused(samples):
    check_split({"training": samples[:40], "held out": samples[40:]})
    with pytest.raises(ConfigError, match="different structures in training and held out"):
        check_split({"training": samples[:40], "held out": samples[39:]})
    sulphur = Molecule(np.array([16, 8, 1, 1, 1, 1]), samples[0][0].positions)
    with pytest.raises(ConfigError, match="elements in held out that are also in training, but got S"):
        check_split({"training": samples[:40], "held out": [(sulphur, samples[0][1])]})


def test_labels_are_looked_at_before_they_train(folder, samples, capsys):
    """Two energies of one structure stop it; "warn" prints and goes on; control: neither in sound labels."""
    odd = dataclasses.replace(samples[0][1], energy=samples[0][1].energy + 500.0)
    write_labels(folder / "labels.xyz", [(samples[0][0], odd), *samples])
    status, _, err = trained(folder / "train.toml", "--out", folder / "run", capsys=capsys)
    assert status == 2 and "1 pair of equal structures with different energies" in err
    assert not (folder / "run" / "model.safetensors").exists()
    write_labels(folder / "labels.xyz", [samples[0], *samples])
    arguments = (folder / "train.toml", "--out", folder / "run", "--set", "fit.epochs=1")
    arguments += ("--set", "data.held_out=0.0")
    status, _, err = trained(*arguments, capsys=capsys)
    assert status == 0 and "look at this: 1 structure a second time" in err
    assert "a second time" in json.loads((folder / "run" / "report.json").read_text())["findings"][0]
    write_labels(folder / "labels.xyz", samples)
    _, _, err = trained(*arguments, "--overwrite", capsys=capsys)
    assert "look at this" not in err


def test_whole_windows_are_held_out_where_that_is_asked_for(folder):
    """Control: by default every window is on both sides."""

    def windows(*changes):
        divided = divide(load_training(folder / "train.toml", changes))
        return [{m.origin["window"] for m, _ in part} for part in (divided.train, divided.held_out)]

    train, held_out = windows('data.held_out_by="windows"')
    assert held_out and not train & held_out
    assert windows()[0] == windows()[1]


def test_a_section_of_another_kind_is_refused_and_the_advice_works(folder, capsys):
    """Nothing would read it: a start in [field] is no start of amp-bms. Both ways that the sentence names."""
    path = folder / "train.toml"
    path.write_text(TOML + '[model]\nkind = "amp-bms"\n')
    status, _, err = trained(path, "--out", folder / "run", capsys=capsys)
    assert status == 2 and not (folder / "run").exists()
    assert (
        'section [amp] for kind = "amp-bms"' in err
        and 'got [networks]. Write [amp], or write kind = "networks"' in err
    )
    path.write_text(TOML + '[model]\nkind = "networks"\n')
    assert load_training(path).networks.members == 2
    path.write_text('[data]\nlabels = "labels.xyz"\n[amp]\ntrained = "last"\n[model]\nkind = "amp-bms"\n')
    assert load_training(path).amp.trained == "last"
    # One file serves several kinds, but an override of what nothing reads is a mistake.
    assert load_training(path, ["model.kind=gdml", "kernel.noise=0.1"]).kernel.noise == 0.1
    with pytest.raises(ConfigError, match=r'got \[field\]. Leave it out, or write kind = "qeq-ani" in \[mod'):
        load_training(path, ["field.start=ani2x"])
    # Of a file with its own section and another one, the other has to go.
    whole = path.read_text()
    path.write_text(whole + '[field]\nstart = "ani2x"\n')
    with pytest.raises(ConfigError, match=r"got \[field\]. Leave it out"):
        load_training(path)
    path.write_text(whole)
    assert load_training(path).model.kind == "amp-bms"


def test_shipped_files_of_trainings_are_valid():
    """Chorismate in water: the fit, its student, the transfer to a density functional and its labels."""
    folder = Path(__file__).parents[2] / "systems/chorismate_water"
    kinds = {
        name: load_training(folder / f"{name}.toml").model.kind for name in ("train", "student", "transfer")
    }
    assert kinds == {"train": "amp-bms", "student": "qeq-ani", "transfer": "amp-bms"}
    transfer = load_training(folder / "transfer.toml")
    assert transfer.amp.start == "amp-bms" and transfer.data.held_out_labels
    job = load_label_file(folder / "dft.toml", [])
    assert (job.structures.first, job.structures.every) == (8, 40) and job.method == "pyscf"
    with pytest.raises(ConfigError, match=r"got \[field\]"):
        load_training(folder / "transfer.toml", ["field.start=ani1x"])
