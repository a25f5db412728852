"""Every file of a potential: the mode is that of the umask, and an interruption leaves the old file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from field_networks import field_parameters

import mlmm
from mlmm.potentials.amp_bms.weights import read_amp_weights, save_amp_weights
from mlmm.potentials.ani.files import find_parameters, save_ani_file
from mlmm.potentials.descriptors import TrainingSet
from mlmm.potentials.field_ani.parameters import save_field_ani
from mlmm.potentials.kernel_models.gdml import GDMLParameters, GDMLPotential
from mlmm.potentials.safetensors_files import write_safetensors

AMP = Path(mlmm.__file__).parent / "data/amp_bms.safetensors"
WRITERS = {
    "ani": lambda path: save_ani_file(find_parameters("ani1x"), path, {"name": "x"}),
    "amp": lambda path: save_amp_weights(read_amp_weights(AMP), path),
    "field": lambda path: save_field_ani(field_parameters(np.array([6, 1])), path, {"name": "x"}),
    "kernel": lambda path: GDMLPotential(
        GDMLParameters((1, 1), np.ones((1, 1)), np.ones((1, 1)), 1.0, 0.0), {}
    ).save(path),
    "training set": lambda path: TrainingSet((1,), {1: torch.ones(2, 3)}, {1: 1.0}).save(path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_mode_is_that_of_the_umask(kind, tmp_path):
    """Colleagues of a group may read what the umask lets them; control: another umask, another mode."""
    before = os.umask(0o027)
    try:
        modes = []
        for mask in (0o027, 0o077):
            os.umask(mask)
            WRITERS[kind](tmp_path / "model.safetensors")
            modes.append((tmp_path / "model.safetensors").stat().st_mode & 0o777)
    finally:
        os.umask(before)
    assert modes == [0o640, 0o600] and len(list(tmp_path.iterdir())) == 1


def test_an_interruption_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, "x", {"a": np.arange(3.0)}, {"b": 1})
    old = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_safetensors(path, "x", {"a": np.arange(4.0)}, {"b": 2})
    assert path.read_bytes() == old
