"""Data sets on disk: what is written is read, nothing is lost, one level of theory."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from labelled_pairs import METHOD, labelled_pairs

from mlmm.dynamics.lock import locked
from mlmm.errors import ConfigError
from mlmm.learning.dataset.frames import molecule_key
from mlmm.learning.dataset.store import Dataset
from mlmm.reference.labels import Label, Molecule
from mlmm.units import ANGSTROM, ELECTRONVOLT


@pytest.fixture
def dataset(tmp_path):
    made = Dataset.create(tmp_path / "set", METHOD)
    made.append(labelled_pairs(6))
    return made


def _same(found, expected, exact: bool = False) -> None:
    (molecule, label), (molecule_, label_) = found, expected
    close = np.testing.assert_array_equal if exact else _close
    close(molecule.numbers, molecule_.numbers)
    close(molecule.positions, molecule_.positions)
    assert (molecule.charge, molecule.multiplicity) == (molecule_.charge, molecule_.multiplicity)
    assert dict(molecule.origin) == dict(molecule_.origin)
    assert (molecule.external is None) == (molecule_.external is None)
    if molecule_.external is not None:
        # In binary: the same bits.
        np.testing.assert_array_equal(molecule.external.positions, molecule_.external.positions)
        np.testing.assert_array_equal(molecule.external.charges, molecule_.external.charges)
        np.testing.assert_array_equal(label.external_forces, label_.external_forces)
    close(label.energy, label_.energy)
    for name in ("forces", "charges", "dipole"):
        if getattr(label_, name) is None:
            assert getattr(label, name) is None
        else:
            close(getattr(label, name), getattr(label_, name))
    assert (label.converged, label.method) == (label_.converged, label_.method)
    assert dict(label.record) == dict(label_.record)


def _close(found, expected) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)


def test_what_is_written_is_read(dataset):
    for found, expected in zip(dataset, labelled_pairs(6), strict=True):
        _same(found, expected)
    _same(dataset[-1], labelled_pairs(6)[-1])
    # Read again: the same bits.
    for found, expected in zip(Dataset(dataset.path), dataset, strict=True):
        _same(found, expected, exact=True)


def test_awkward_texts_and_missing_parts(tmp_path):
    """Words that look like entries of the format, labels of the energy alone, ions, point charges alone."""
    words = {"run": 'a "b" \\ crc=x00 key=7 point_charges="1 2', "note": "", "frame": "12"}
    method = 'B3LYP key=1 record_x="1" crc=x12345678'
    numbers, positions = np.array([17]), np.array([[0.1, -0.2, 1e-17]])
    pairs = [
        (Molecule(numbers, positions, -1, origin=words), Label(-1.0, method=method, record=words)),
        (Molecule(numbers, positions + 1.0, 0, 2), Label(-2.0, method=method, converged=False)),
    ]
    charged = labelled_pairs(2, method=method)
    pairs += [(charged[0][0], dataclasses.replace(charged[0][1], external_forces=None)), charged[1]]
    Dataset.create(tmp_path / "set", method).append(pairs)
    found = Dataset(tmp_path / "set")
    for one, other in zip(found, pairs, strict=True):
        _same(one, other)
    assert found.origins[0] == words


def test_ase_reads_the_file_as_it_is(dataset):
    frames = ase.io.read(dataset.path / "structures.xyz", ":")
    for atoms, (molecule, label) in zip(frames, labelled_pairs(6), strict=True):
        np.testing.assert_allclose(atoms.positions * ANGSTROM, molecule.positions, rtol=1e-14)
        _close(atoms.get_potential_energy() * ELECTRONVOLT, label.energy)
        np.testing.assert_allclose(atoms.get_forces() * ELECTRONVOLT / ANGSTROM, label.forces, rtol=1e-14)
        np.testing.assert_allclose(atoms.get_charges(), label.charges, rtol=1e-14)
        assert atoms.info["origin_window"] == 0 and atoms.info["method"] == METHOD


def test_killed_at_any_byte(tmp_path):
    """Files cut at every length hold whole structures before the cut, and appending again restores all."""
    pairs = labelled_pairs(3, charges=2)
    whole = Dataset.create(tmp_path / "whole", METHOD)
    ends = [0]
    for pair in pairs:
        whole.append([pair])
        ends.append((whole.path / "structures.xyz").stat().st_size)
    text = (whole.path / "structures.xyz").read_bytes()
    side = (whole.path / "point_charges.bin").read_bytes()
    torn = Dataset.create(tmp_path / "torn", METHOD).path
    for length in range(0, len(text), 17):
        (torn / "structures.xyz").write_bytes(text[:length])
        (torn / "point_charges.bin").write_bytes(side)
        found = Dataset(torn)
        assert len(found) == sum(end <= length for end in ends[1:])
        for one, other in zip(found, pairs, strict=False):
            _same(one, other)
        if length % 5 == 0:
            assert found.append(pairs) == [0, 1, 2]
            assert (torn / "structures.xyz").read_bytes() == text
            assert (torn / "point_charges.bin").read_bytes() == side
    # A machine that lost power may have kept less of the side file than of the text.
    for length in range(0, len(side), 11):
        (torn / "structures.xyz").write_bytes(text)
        (torn / "point_charges.bin").write_bytes(side[:length])
        if length >= 2 * len(side) // 3:
            assert len(Dataset(torn)) == 2
            Dataset(torn).append(pairs)
            assert (torn / "point_charges.bin").read_bytes() == side
    assert len(Dataset(torn)) == 3


def test_torn_end_is_said(dataset, caplog):
    path = dataset.path / "structures.xyz"
    path.write_bytes(path.read_bytes()[:-3])
    again = Dataset(dataset.path)
    assert len(again) == 5 and "not written completely: left out" in caplog.text
    assert path.stat().st_size > again._starts[-1]  # reading changes nothing
    again.append(labelled_pairs(6))
    assert "cut off" in caplog.text and len(Dataset(dataset.path)) == 6


def test_killed_process(tmp_path):
    """SIGKILL while a process appends: a prefix of what it wrote is there, and a new append ends it."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from labelled_pairs import METHOD, labelled_pairs\n"
        "from mlmm.learning.dataset.store import Dataset\n"
        f"dataset = Dataset.create({str(tmp_path / 'set')!r}, METHOD)\n"
        "pairs = labelled_pairs(400)\n"
        "for pair in pairs:\n"
        "    dataset.append([pair])\n"
        "    print('one', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(20):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = Dataset(tmp_path / "set")
    assert 20 <= len(found) < 400
    pairs = labelled_pairs(400)
    found.append(pairs)
    other = Dataset.create(tmp_path / "other", METHOD)
    other.append(pairs)
    for name in ("structures.xyz", "point_charges.bin"):
        assert (found.path / name).read_bytes() == (other.path / name).read_bytes()
    assert found.content_hash == other.content_hash


@pytest.mark.parametrize("name", ["structures.xyz", "point_charges.bin"])
def test_damage_in_the_middle_is_refused(dataset, name):
    path = dataset.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="damage in frame"):
        Dataset(dataset.path)


def test_nothing_twice(dataset):
    pairs = labelled_pairs(8)
    assert dataset.append([pairs[7], *pairs[:6], pairs[7], pairs[6]]) == [6, 0, 1, 2, 3, 4, 5, 6, 7]
    assert len(Dataset(dataset.path)) == 8
    assert pairs[0][0] in dataset and labelled_pairs(1, seed=9)[0][0] not in dataset
    assert dataset.index_of(pairs[6][0]) == 7


def test_key_tells_what_matters():
    """Every part of a molecule changes its key, where it comes from does not."""
    molecule = labelled_pairs(1)[0][0]
    external = molecule.external
    moved = external.positions + 1e-15
    others = [
        dataclasses.replace(molecule, positions=np.nextafter(molecule.positions, 9)),
        dataclasses.replace(molecule, charge=1),
        dataclasses.replace(molecule, multiplicity=3),
        dataclasses.replace(molecule, numbers=[8, 1, 9]),
        dataclasses.replace(molecule, external=None),
        dataclasses.replace(molecule, external=dataclasses.replace(external, positions=moved)),
        dataclasses.replace(molecule, external=dataclasses.replace(external, charges=external.charges * 2)),
    ]
    assert len({molecule_key(other) for other in [molecule, *others]}) == 8
    assert molecule_key(dataclasses.replace(molecule, origin={})) == molecule_key(molecule)


def test_hash_is_of_the_content(tmp_path, dataset):
    """Seconds change nothing, one bit of a force does."""
    pairs = labelled_pairs(6)
    timed = [(m, dataclasses.replace(label, record={"seconds": "9"})) for m, label in pairs]
    other = Dataset.create(tmp_path / "other", METHOD)
    other.append(timed)
    assert other.content_hash == dataset.content_hash == Dataset(dataset.path).content_hash
    forces = pairs[3][1].forces.copy()
    forces[1, 2] *= 1 + 1e-12
    pairs[3] = (pairs[3][0], dataclasses.replace(pairs[3][1], forces=forces))
    changed = Dataset.create(tmp_path / "changed", METHOD)
    changed.append(pairs)
    assert changed.content_hash != dataset.content_hash


def test_levels_are_not_mixed(dataset):
    size = (dataset.path / "structures.xyz").stat().st_size
    pairs = labelled_pairs(9)[6:]
    pairs[2] = (pairs[2][0], dataclasses.replace(pairs[2][1], method="GFN2-xTB"))
    with pytest.raises(ConfigError, match=r"labels by harmonic springs, exact for .*set, but got .*GFN2-xTB"):
        dataset.append(pairs)
    assert (dataset.path / "structures.xyz").stat().st_size == size
    with pytest.raises(ConfigError, match="GFN2-xTB"):
        Dataset.create(dataset.path, "GFN2-xTB")


def test_what_did_not_converge_is_kept_and_not_used(dataset, tmp_path):
    molecule, label = labelled_pairs(7)[6]
    bad = dataclasses.replace(label, converged=False, energy=math.nan, forces=np.full((3, 3), np.nan))
    dataset.append([(molecule, bad)])
    again = Dataset(dataset.path)
    assert len(again) == 7 and molecule in again and not again[6][1].converged
    assert math.isnan(again[6][1].energy) and again[6][1].forces is None
    assert again.usable.tolist() == [0, 1, 2, 3, 4, 5] and len(again.pairs()) == 6
    assert again.pairs([5, 6])[0][1].energy == again[5][1].energy and len(again.pairs([6])) == 0
    assert again.export(tmp_path / "out.xyz") == 6
    assert len(ase.io.read(tmp_path / "out.xyz", ":")) == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"energy": math.nan}, "a finite energy in structure 1"),
        ({"forces": np.full((3, 3), math.inf)}, "finite forces in structure 1"),
        ({"forces": np.zeros((2, 3))}, r"forces of shape \(3, 3\)"),
        ({"external_forces": np.zeros((3, 3))}, "forces on the point charges of shape"),
        ({"charges": np.array([0.0, 0.0, math.nan])}, "NaN or infinity at place 2"),
    ],
)
def test_labels_that_cannot_be_right(dataset, changes, said):
    pairs = labelled_pairs(8)[6:]
    pairs[1] = (pairs[1][0], dataclasses.replace(pairs[1][1], **changes))
    with pytest.raises(ConfigError, match=said):
        dataset.append(pairs)
    assert len(Dataset(dataset.path)) == 6


def test_one_writer_at_a_time(dataset):
    with locked(dataset.path), pytest.raises(ConfigError, match="no other process is writing to"):
        dataset.append(labelled_pairs(7))
    # Two objects on one folder: each sees what the other wrote.
    other = Dataset(dataset.path)
    other.append(labelled_pairs(8)[6:7])
    assert dataset.append(labelled_pairs(8)[6:]) == [6, 7]
    other.refresh()
    assert len(other) == len(dataset) == 8


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(ConfigError, match="label structures into it first"):
        Dataset(tmp_path / "none")
    (tmp_path / "set.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ConfigError, match="the format 'other'"):
        Dataset(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "structures.xyz").write_text("3\n")
    with pytest.raises(ConfigError, match="other files there"):
        Dataset.create(tmp_path / "full", METHOD)


def test_empty_set(tmp_path):
    made = Dataset.create(tmp_path / "set", METHOD)
    assert len(made) == 0 and len(made.content_hash) == 64 and made.append([]) == []
    assert list(Dataset(made.path)) == [] and made.usable.tolist() == []
