"""Active learning: errors fall, targets end it, a killed loop comes to the same, nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learning_loop import METHOD, explore, label_of, load, steps

from mlmm.errors import ConfigError
from mlmm.learning.active.loop import learn
from mlmm.learning.active.measure import Answers
from mlmm.learning.active.options import ChoiceOptions, LoopOptions, StopOptions
from mlmm.learning.dataset.splits import block_names
from mlmm.learning.dataset.store import Dataset

OPTIONS = LoopOptions(seed=3, held_out=20)
CHOICE = ChoiceOptions(start=8, batch=6)
STOP = StopOptions(rounds=3, energy="0.001 kJ/mol", force="0.01 kJ/mol/nm", coverage=1.0)


class CrashError(Exception):
    """A crash at a chosen moment."""


def _learn(path, event=lambda name: None, choice=CHOICE, stop=STOP, fails=0.0, options=OPTIONS):
    return learn(path, steps(event, fails), options, choice, stop)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("loop") / "run"
    return path, _learn(path)


def test_rounds_and_their_files(finished):
    path, rounds = finished
    assert [r["labels"] for r in rounds] == [8, 14, 20]
    assert rounds[0]["chosen"] == {"distance": 6, "random": 2}
    assert rounds[1]["chosen"] == {"random": 2, "spread": 4}
    assert len(Dataset(path / "data")) == 20 and Dataset(path / "data").method == METHOD
    result = json.loads((path / "result.json").read_text())
    assert not result["met"] and "above 0.001" in result["why"] and result["rounds"] == 3


def test_errors_fall(finished):
    _, rounds = finished
    assert rounds[2]["force"] < 0.7 * rounds[0]["force"]


def test_held_out_structures_are_never_trained_on(finished):
    path, _ = finished
    data, held = Dataset(path / "data"), Dataset(path / "held_out")
    assert len(held) == 20 and not set(data.keys) & set(held.keys)
    windows = [origin["window"] for origin in held.origins]
    assert windows.count("mild") == windows.count("wild") == 10


def test_targets_that_are_met_end_the_loop(tmp_path, finished):
    force = finished[1][1]["force"] * 4
    stop = StopOptions(rounds=9, energy="50 kJ/mol", force=f"{force} kJ/mol/nm", coverage=1.0)
    rounds = _learn(tmp_path / "run", stop=stop)
    assert len(rounds) < 9 and json.loads((tmp_path / "run/result.json").read_text())["met"]


def test_goes_on_with_more_rounds(tmp_path, finished):
    """Two rounds and then a third: what three at once give."""
    _learn(tmp_path / "run", stop=StopOptions(rounds=2, energy="0.001 kJ/mol"))
    rounds = _learn(tmp_path / "run")
    assert rounds == finished[1]


def test_passive_control_is_one_key_away(tmp_path, finished):
    rounds = _learn(tmp_path / "run", choice=ChoiceOptions(start=8, batch=6, by="passive"))
    assert [r["labels"] for r in rounds] == [r["labels"] for r in finished[1]]
    assert all(list(r["chosen"]) == ["random"] for r in rounds)
    # The same structures are held out: both are measured by the same labels.
    assert Dataset(tmp_path / "run/held_out").keys == Dataset(finished[0] / "held_out").keys


@pytest.mark.parametrize("by", ["distance", "determinant", "cur"])
def test_other_criteria(tmp_path, by):
    rounds = _learn(tmp_path / "run", choice=ChoiceOptions(start=8, batch=6, by=by))
    assert rounds[1]["chosen"] == {by: 4, "random": 2} and rounds[2]["labels"] == 20


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_crash_at_every_event(tmp_path, finished, every):
    """Exploring, each label, training, loading: a loop that is resumed has the same data and models."""
    path, rounds = finished
    seen: list[str] = []
    _learn(tmp_path / "count", seen.append)
    places = sorted({*range(0, len(seen), 5), *(k for k, name in enumerate(seen) if name != "label")})
    for place in places[1::every]:
        left = [place]

        def event(_: str, left=left) -> None:
            if left[0] == 0:
                left[0] = -1
                raise CrashError
            left[0] -= 1

        folder = tmp_path / f"crash{place}"
        with pytest.raises(CrashError):
            _learn(folder, event)
        assert _learn(folder) == rounds
        for one in sorted(path.glob("round_*/model/model.npy")):
            assert (folder / one.relative_to(path)).read_bytes() == one.read_bytes()
        assert Dataset(folder / "data").content_hash == Dataset(path / "data").content_hash


@pytest.mark.parametrize("moment", [33, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 26, 45))])
def test_killed_process(tmp_path, finished, moment):
    """SIGKILL, no cleaning up; twice in one loop."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    program = (
        f"import sys; sys.path[:0] = {folders!r}\n"
        "import torch; torch.set_num_threads(1)\n"
        "from learning_loop import kill_at, steps\n"
        "from mlmm.learning.active.loop import learn\n"
        "from test_active_loop import CHOICE, OPTIONS, STOP\n"
        f"learn({str(tmp_path / 'run')!r}, steps(kill_at(int(sys.argv[1]))), OPTIONS, CHOICE, STOP)\n"
    )
    for count in (moment, 7):
        ended = subprocess.run([sys.executable, "-c", program, str(count)], capture_output=True)
        assert ended.returncode == -9, ended.stderr.decode()
    assert _learn(tmp_path / "run") == finished[1]


def test_neighbours_of_held_out_frames_are_never_trained_on(tmp_path):
    """Two trajectories explored again in every round; control: such neighbours are among the candidates."""

    def trajectories(number, model, seed, folder):
        found = explore(0, None, 1, folder)
        return [replace(m, origin={"run": "ab"[k % 2], "frame": str(k // 2)}) for k, m in enumerate(found)]

    made = replace(steps(), explore=trajectories)
    learn(tmp_path / "run", made, LoopOptions(seed=3, held_out=12, block=20), CHOICE, STOP)
    held, data, all_of_them = (
        block_names(Dataset(tmp_path / "run" / name).origins, 20)
        for name in ("held_out", "data", "round_002/candidates")
    )
    assert len(held) == 12 and len(data) == 20 and not set(held) & set(data)
    assert sum(name in set(held) for name in all_of_them) > 12


def test_held_out_labels_need_forces(tmp_path):
    """Errors of forces that nobody knows would be none."""

    def labelled(molecules):
        for index, molecule in enumerate(molecules):
            yield index, replace(label_of(molecule), forces=None)

    with pytest.raises(ConfigError, match="forces in every held-out label"):
        learn(tmp_path / "run", replace(steps(), label=labelled), OPTIONS, CHOICE, STOP)


def test_failed_labels_above_the_rate(tmp_path):
    with pytest.raises(ConfigError, match=r"at most 20 % of the labels .* such as: no SCF"):
        _learn(tmp_path / "run", fails=0.5)
    held = Dataset(tmp_path / "run/held_out")
    assert len(held) == 20 and len(held.usable) == 10
    # With the limit raised it goes on; failed labels are kept and not trained on.
    stop = StopOptions(rounds=1, failures=0.7)
    rounds = _learn(tmp_path / "run", stop=stop, fails=0.5)
    data = Dataset(tmp_path / "run/data")
    assert rounds[0]["failed"] == len(data) - len(data.usable) > 0
    assert rounds[0]["labels"] == len(data.usable)


def test_other_settings_are_refused(finished):
    path, _ = finished
    with pytest.raises(ConfigError, match="others for choice"):
        _learn(path, choice=ChoiceOptions(start=9, batch=6))
    with pytest.raises(ConfigError, match="others for loop"):
        _learn(path, options=LoopOptions(seed=4, held_out=20))


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="but got other files"):
        _learn(tmp_path)


def test_pool_that_runs_out(tmp_path):
    """The same few structures explored every time."""
    few = replace(steps(), explore=lambda number, model, seed, folder: explore(0, None, 1, folder)[48:72])
    with pytest.raises(ConfigError, match="all labelled or held out"):
        learn(tmp_path / "run", few, LoopOptions(held_out=10), CHOICE, STOP)
    assert len(Dataset(tmp_path / "run/data")) == 14


def test_one_block_cannot_be_divided(tmp_path):
    def one(number, model, seed, folder):
        found = explore(number, model, seed, folder)
        return [replace(m, origin={"run": "a", "frame": str(k % 5)}) for k, m in enumerate(found)]

    with pytest.raises(ConfigError, match=r"two blocks.*in a basin \(the window.*got 1 basin of one block"):
        learn(tmp_path / "run", replace(steps(), explore=one), OPTIONS, CHOICE, STOP)


def test_spread_needs_a_model_that_has_one(tmp_path):
    class Silent:
        def __init__(self, folder):
            self.model = load(folder)

        def predict(self, molecules):
            found = self.model.predict(molecules)
            return Answers(found.energies, found.forces)

    with pytest.raises(ConfigError, match="a model that knows its uncertainty"):
        learn(tmp_path / "run", replace(steps(), load=Silent), OPTIONS, CHOICE, STOP)
    assert np.load(tmp_path / "run/round_000/model/model.npy").shape == (3, 10)
