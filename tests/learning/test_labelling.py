"""Labels into a data set: order, failures, deaths, interruptions."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from slow_calculator import Springs

from mlmm.ensembles.executors import open_executor
from mlmm.errors import ConfigError
from mlmm.learning.dataset.store import Dataset
from mlmm.learning.labelling import label_into
from mlmm.reference import Molecule, PointCharges, label
from mlmm.reference.ase_method import ASEMethod
from mlmm.reference.labelling import LOST

ROOT = Path(__file__).parent.parent


def springs(**arguments: float) -> ASEMethod:
    return ASEMethod("slow_calculator:Springs", arguments, level="springs")


def molecules(count: int, seed: int = 0) -> list[Molecule]:
    rng = np.random.default_rng(seed)
    places = np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]])
    noise = rng.normal(0, 0.01, (count, 3, 3))
    return [Molecule([8, 1, 1], places + noise[k], origin={"frame": str(k)}) for k in range(count)]


def distance(molecule: Molecule) -> float:
    return 10 * float(np.linalg.norm(molecule.positions[0] - molecule.positions[1]))


@pytest.fixture(scope="module")
def executor():
    """Two processes."""
    with open_executor(workers=2) as opened:
        yield opened


def test_labels_come_in_order_from_two_processes(executor):
    many = molecules(12)
    found = list(label(many, springs(), executor=executor))
    alone = list(label(many, springs()))
    assert [one.energy for one in found] == [one.energy for one in alone]
    assert len({one.energy for one in alone}) == 12
    seen = []
    assert len(list(label(many, springs(), progress=lambda *counts: seen.append(counts)))) == 12
    assert seen[-1] == (12, 12)


def test_the_same_set_however_it_was_made(tmp_path, executor):
    many = molecules(12)
    first = label_into(tmp_path / "one", many, springs())
    label_into(tmp_path / "two", many[:5], springs())
    second = label_into(tmp_path / "two", many, springs(), executor=executor)
    assert (second.new, second.there) == (7, 5)
    assert first.dataset.content_hash == second.dataset.content_hash
    again = label_into(tmp_path / "two", [*many, many[0]], springs())
    assert again.new == 0 and again.dataset.content_hash == first.dataset.content_hash
    other = label_into(tmp_path / "three", molecules(12, seed=1), springs())
    assert other.dataset.content_hash != first.dataset.content_hash


def test_what_does_not_converge_is_kept_and_never_used(tmp_path):
    many = molecules(30)
    limit = sorted(distance(one) for one in many)[-2] - 1e-9  # the two longest fail
    report = label_into(tmp_path / "set", many, springs(failing=limit))
    assert (report.new, report.failed) == (30, 2)
    pairs = report.dataset.pairs()
    assert len(report.dataset) == 30 and len(pairs) == 28
    assert max(distance(molecule) for molecule, _ in pairs) < limit
    # Nothing is tried again that failed.
    assert label_into(tmp_path / "set", many, springs(failing=limit)).new == 0


def test_too_many_failures_stop_with_a_sentence_and_lose_nothing(tmp_path):
    many = molecules(40)
    limit = sorted(distance(one) for one in many)[20] - 1e-9
    with pytest.raises(ConfigError, match=r"no more than 10% of the molecules.*springs do not converge"):
        label_into(tmp_path / "set", many, springs(failing=limit))
    done = Dataset(tmp_path / "set")
    assert 3 <= len(done) < 40 and len(done.usable) == len(done) - 3
    report = label_into(tmp_path / "set", many, springs(failing=limit), failure_limit=1.0)
    assert len(report.dataset) == 40 and len(report.dataset.usable) == 20


def test_a_worker_that_dies_loses_one_label_which_is_made_later(tmp_path):
    many = molecules(10)
    worst = int(np.argmax([distance(one) for one in many]))
    limit = distance(many[worst]) - 1e-9
    with open_executor(workers=2, retries=0) as executor:
        found = list(label(many, springs(deadly=limit), executor=executor))
        assert [LOST in one.record for one in found] == [k == worst for k in range(10)]
        report = label_into(tmp_path / "set", many, springs(deadly=limit), executor=executor)
    assert report.lost == 1 and many[worst] not in report.dataset and len(report.dataset) == 9
    assert label_into(tmp_path / "set", many, springs()).new == 1


def test_a_structure_that_is_refused_is_named_and_those_before_it_stay(tmp_path):
    many = molecules(6)
    many[4] = Molecule([8, 1, 1], many[4].positions, 1, origin={"frame": "4"})
    with pytest.raises(ConfigError, match=r"charge \+1.*structure 4, counted from 0 \(frame 4\)"):
        label_into(tmp_path / "set", many, springs())
    assert len(Dataset(tmp_path / "set")) == 4


def test_refusals_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="a reference method"):
        label(molecules(1), "gfn3")
    with pytest.raises(ConfigError, match="an option of XTB"):
        label(molecules(1), "xtb", acuracy=1.0)
    with pytest.raises(ConfigError, match="point charges for each structure"):
        label(molecules(2), "xtb", [PointCharges([[1, 0, 0]], [1.0])])
    with pytest.raises(ConfigError, match="molecules to be labelled"):
        label(["water"], "xtb")
    label_into(tmp_path / "set", molecules(1), springs())
    with pytest.raises(ConfigError, match="two methods have two zeros"):
        label_into(tmp_path / "set", molecules(2), ASEMethod("slow_calculator:Springs", level="others"))
    assert len(Dataset(tmp_path / "set")) == 1
    with pytest.raises(ConfigError, match="keywords that slow_calculator"):
        label_into(tmp_path / "new", molecules(1), springs(colour=1))
    assert not (tmp_path / "new").exists()


def test_springs_have_the_forces_of_their_energy():
    # The control of the tests above: an energy whose forces are known to be right.
    from reference_molecules import worst_difference

    assert worst_difference(springs(), molecules(1)[0], range(3)) < 1e-4
    assert set(Springs().implemented_properties) == {"energy", "free_energy", "forces"}
    # The energy of hot electrons is another one.
    hot = next(label(molecules(1), springs(electrons=0.5)))
    assert hot.energy == next(label(molecules(1), springs())).energy


def test_atoms_of_ase_and_charges_for_all(tmp_path):
    import ase

    atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], info={"charge": -1})
    around = PointCharges([[0.3, 0, 0]], [0.5])
    pytest.importorskip("tblite")
    (alone,) = label([atoms], "tblite")
    with pytest.raises(ConfigError, match="without point charges"):
        list(label([atoms], "tblite", around))
    assert alone.charges.sum() == pytest.approx(-1)
    with pytest.raises(ConfigError, match="without periodic boundaries"):
        label([ase.Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], cell=[9, 9, 9], pbc=True)], "tblite")


@pytest.mark.slow
def test_killed_at_any_time_it_gives_the_same_set(tmp_path):
    ase_io = pytest.importorskip("ase.io")
    import ase

    many = molecules(60)
    frames = [ase.Atoms(one.numbers, 10 * one.positions) for one in many]
    ase_io.write(tmp_path / "frames.xyz", frames, format="extxyz")
    command = [sys.executable, "-m", "mlmm.cli", "label", "label.toml", "--set"]
    (tmp_path / "label.toml").write_text(
        '[structures]\nfiles = ["frames.xyz"]\n[executor]\nworkers = 2\n[method]\nname = "ase"\n'
        'calculator = "slow_calculator:Springs"\nlevel = "springs"\narguments = {seconds = 0.1}\n'
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT.parent), str(ROOT)])}
    kills = 0
    for _ in range(2):
        before = _size(tmp_path / "killed")
        process = subprocess.Popen(
            [*command, "output.dataset=killed"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and _size(tmp_path / "killed") == before:
            time.sleep(0.02)
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert kills and 0 < len(Dataset(tmp_path / "killed")) < 60
    for name in ("killed", "whole"):
        done = subprocess.run(
            [*command, f"output.dataset={name}", "--set", "method.arguments={}"],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    killed, whole = Dataset(tmp_path / "killed"), Dataset(tmp_path / "whole")
    assert len(killed) == 60 and killed.content_hash == whole.content_hash
    assert killed[7][1].energy == whole[7][1].energy


def _size(folder: Path) -> int:
    path = folder / "structures.xyz"
    return path.stat().st_size if path.exists() else 0
