"""The loop with real parts: GFN2-xTB labels in worker processes, networks trained, dynamics by the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from labelled_pairs import METHOD, WATER, labelled_pairs

from mlmm.ensembles.executors import open_executor
from mlmm.errors import ConfigError
from mlmm.learning.active.backends import learning_steps, read_structures
from mlmm.learning.active.config import load_learning
from mlmm.learning.active.loop import learn
from mlmm.learning.dataset.store import Dataset
from mlmm.reference.tblite import TBLite

TEXT = """
[explore]
kind = "distortion"
structures = "water.xyz"
count = 60
size = "0.006 nm"

[method]
name = "tblite"

[choice]
start = 14
batch = 6
by = "spread"

[loop]
held_out = 8
seed = 2

[stop]
rounds = 2

[model]
kind = "networks"

[networks]
start = "scratch"
hidden = [12, 8]
members = 2

[fit]
epochs = 4
"""


@pytest.fixture
def file(tmp_path):
    rows = "\n".join(
        f"{symbol} {' '.join(map(str, 10 * row))}" for symbol, row in zip("OHH", WATER, strict=True)
    )
    (tmp_path / "water.xyz").write_text(f"3\n\n{rows}\n")
    (tmp_path / "learn.toml").write_text(TEXT)
    return tmp_path / "learn.toml"


class StopError(Exception):
    """An interruption."""


def _run(file, out, overrides=(), stop_at: str = ""):
    config = load_learning(file, overrides)

    def say(text: str) -> None:
        if stop_at and stop_at in text:
            raise StopError

    with open_executor(config.executor, workers=1) as executor:
        steps = learning_steps(config, TBLite(), executor)
        return learn(out, steps, config.loop, config.choice, config.stop, settings=config.settings(), say=say)


def test_two_rounds_and_an_interruption(file, tmp_path):
    """Labels, models and errors of a loop that was interrupted are the same, bit for bit."""
    rounds = _run(file, tmp_path / "whole")
    assert [r["labels"] for r in rounds] == [14, 20] and rounds[1]["chosen"]["spread"] == 4
    data = Dataset(tmp_path / "whole/data")
    assert data.method == TBLite().title and data[0][1].record
    for moment in ("round 0: training", "round 1: exploring"):
        with pytest.raises(StopError):
            _run(file, tmp_path / "cut", stop_at=moment)
    assert _run(file, tmp_path / "cut") == rounds
    for number in range(2):
        name = f"round_{number:03d}/model/model.safetensors"
        one, two = (_without_seconds(tmp_path / folder / name) for folder in ("whole", "cut"))
        assert one == two


def _without_seconds(path) -> tuple:
    """Tensors and facts of a model without the time that it took."""
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as content:
        tensors = {key: content.get_tensor(key).tobytes() for key in content.keys()}  # noqa: SIM118
        facts = {key: json.loads(value) for key, value in (content.metadata() or {}).items()}
    for fact in facts.values():
        if isinstance(fact, dict):
            fact.get("training", {}).pop("seconds", None)
    return tensors, facts


@pytest.mark.slow
def test_dynamics_by_the_model_of_the_round_before(file, tmp_path):
    overrides = ["explore.kind=dynamics", "explore.count=30", "explore.interval=10", "loop.held_out=6"]
    overrides += ["explore.first=ani1x", "choice.by=passive"]
    rounds = _run(file, tmp_path / "run", overrides)
    first, second = (Dataset(tmp_path / f"run/round_{k:03d}/candidates") for k in range(2))
    assert len(rounds) == 2 and len(first) == 30
    assert first.origins[3] == {"run": "round 0 start 0", "frame": "3", "window": "0"} | {
        key: first.origins[3][key] for key in ("seed",)
    }
    assert second.origins[0]["run"] == "round 1 start 0"
    assert not np.allclose(first[0][0].positions, second[0][0].positions)


def test_pools_of_data_sets_and_charges_of_files(file, tmp_path):
    Dataset.create(tmp_path / "set", METHOD).append(labelled_pairs(14))
    config = load_learning(file, ["explore.structures=set", "explore.kind=pool"])
    pool = read_structures(config)
    assert len(pool) == 14 and len(pool[3].external) == 5
    with (
        open_executor(workers=1) as executor,
        pytest.raises(ConfigError, match="a reference method that takes point charges"),
    ):
        learning_steps(config, TBLite(), executor)
    config = load_learning(file, ["explore.charge=-1", "explore.multiplicity=2"])
    (molecule,) = read_structures(config)
    assert (molecule.charge, molecule.multiplicity) == (-1, 2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["choice.by=spreads"], "choice|by = spread"),
        (["explore.structures=[]"], "structures to start from"),
        (["explore.kind=run"], "the run file of kind"),
        (["method.name=3"], r"name in .* \[method\]"),
        (["data.validation=2"], "validation in"),
        (["networks.member=3"], "members"),
        (["chose.by=passive"], "choice"),
        (["choice"], "--set section.key=value"),
    ],
)
def test_files_that_are_wrong(file, overrides, said):
    with pytest.raises(ConfigError, match=said):
        load_learning(file, overrides)


def test_structures_that_cannot_be_read(file, tmp_path):
    (tmp_path / "bad.xyz").write_text("no structure")
    with pytest.raises(ConfigError, match=r"a file with structures"):
        read_structures(load_learning(file, ["explore.structures=bad.xyz"]))
    with pytest.raises(ConfigError, match="template"):
        load_learning(tmp_path / "none.toml")
