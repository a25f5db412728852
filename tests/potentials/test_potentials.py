"""Loading potentials: bundled file, NeuroChem folder, round trip, damaged files."""

from __future__ import annotations

import bz2
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import mlmm
from mlmm.errors import PotentialError
from mlmm.potentials.ani.files import load_ani_file, save_ani_file
from mlmm.potentials.ani.neurochem import read_neurochem
from mlmm.structures import Structure

DATA = Path(mlmm.__file__).parent / "data"


def test_bundled_data_are_the_files_that_are_described():
    described = (DATA / "README.md").read_text()
    for name in ("ani1x.safetensors", "3Dmol-min.js"):
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() in described
        assert (DATA / f"{name.split('.')[0].split('-')[0]}-LICENSE.txt").exists()


def test_spec_of_the_bundled_potential():
    spec = mlmm.load_potential("ANI-1x").spec
    assert spec.name == "ANI-1x" and spec.elements == (1, 6, 7, 8) and spec.members == 8
    assert spec.cutoff == spec.receptive_field == pytest.approx(0.52)
    assert spec.licence == "MIT" and "10.1063/1.5023802" in spec.citation
    assert spec.reference_energies[6] == pytest.approx(-38.08316124 * 2625.4996394798)


def test_file_round_trip_is_exact(tmp_path):
    parameters, about = load_ani_file(DATA / "ani1x.safetensors")
    for name in ("first", "second"):
        save_ani_file(parameters, tmp_path / name, about)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    again, about_again = load_ani_file(tmp_path / "first")
    assert about_again == about and again.elements == parameters.elements
    for element in parameters.elements:
        for old, new in zip(parameters.weights[element], again.weights[element], strict=True):
            assert np.array_equal(old, new) and new.dtype == np.float32
    for name, value in parameters.constants.items():
        assert np.array_equal(value, again.constants[name]) and value.dtype == np.float64
    by_path = mlmm.load_potential(str(tmp_path / "first"))
    water = Structure(
        torch.tensor([8, 1, 1]), torch.tensor([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], dtype=torch.float64)
    )
    expected = mlmm.load_potential("ani1x").atom_energies(water).energies
    assert torch.equal(by_path.atom_energies(water).energies, expected)


def test_ani2x_knows_its_elements(models_folder):
    potential = mlmm.load_potential("ani2x")
    assert potential.spec.elements == (1, 6, 7, 8, 16, 9, 17)
    assert potential.spec.receptive_field == pytest.approx(0.51)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ani1y"}, 'Did you mean "ani1x"?'),
        ({"name": "gremlin"}, "`mlmm models` lists the names"),
        ({"name": "ani1x", "precision": "half"}, 'precision "float32" or "float64"'),
        ({"name": "ani1x", "members": []}, "different members between 0 and 7"),
        ({"name": "ani1x", "members": [0, 0]}, "different members between 0 and 7"),
        ({"name": "ani1x", "members": [-1]}, "different members between 0 and 7"),
    ],
)
def test_bad_potential_requests_are_rejected(arguments, message):
    with pytest.raises(PotentialError) as caught:
        mlmm.load_potential(**arguments)
    assert message in str(caught.value)


def test_missing_weights_name_the_folder_and_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("MLMM_MODELS", str(tmp_path))
    with pytest.raises(
        PotentialError, match=r"ani-2x_8x in a folder of MLMM_MODELS.*set MLMM_MODELS to the folder"
    ):
        mlmm.load_potential("ani2x")


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\x10" + b"\0" * 7 + b'{"a": 1}' + b" " * 8])
def test_damaged_weights_file_is_rejected(tmp_path, content):
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(PotentialError, match="Expected an ANI committee in"):
        mlmm.load_potential(str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: next(f.glob("*.params")).unlink(), "one .params file"),
        (lambda f: next(f.glob("*.params")).write_text("Rcr = x"), "ANI constants"),
        (lambda f: (f / "sae_linfit.dat").unlink(), "sae_linfit.dat"),
        (lambda f: (f / "sae_linfit.dat").write_text("H,0=-0.5\n"), "self energies"),
        (
            lambda f: (f / "train1/networks/ANN-H.nnf").write_bytes(b"12=\nnot bzip2"),
            "a NeuroChem network in",
        ),
        (
            lambda f: (f / "train1/networks/ANN-H.nnf").write_bytes(b"12=\n" + bz2.compress(b"nodes=1;")),
            "inputsize=… in",
        ),
        (lambda f: (f / "train1/networks/ANN-C.nnf-l2.wparam").write_bytes(b"1234"), "finite numbers in"),
        (lambda f: (f / "train1/networks/ANN-C.nnf-l2.bparam").unlink(), "the weight file"),
        (lambda f: [shutil.rmtree(p) for p in f.glob("train*")], "folders train0, train1"),
    ],
)
def test_damaged_neurochem_folder(models_folder, tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(models_folder / "ani-2x_8x", folder, ignore=shutil.ignore_patterns("train[2-7]"))
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    damage(folder)
    with pytest.raises(PotentialError) as caught:
        read_neurochem(folder)
    assert message.replace("one .params", "one *.params") in str(caught.value)
