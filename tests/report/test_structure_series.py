"""The structure over time: frames as they were written, motions of the whole taken out, bonds that break."""

from __future__ import annotations

import json

import mdtraj
import numpy as np
import pytest
from frames import make_run, make_topology, start_positions
from scipy.spatial.transform import Rotation

from mlmm.report.record import read_record
from mlmm.report.superposition import Superposition, distance_between
from mlmm.report.trajectory import Start, Trajectory

_LEANING = np.array([[4.0, 0.0, 0.0], [1.0, 3.8, 0.0], [-1.2, 1.5, 3.6]])


def _start() -> Start:
    topology = make_topology()
    return Start(mdtraj.Topology.from_openmm(topology), start_positions(topology))


def _moved(positions: np.ndarray, seed: int) -> np.ndarray:
    """Turned and shifted as a whole."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed)
    return turn.apply(positions - positions.mean(axis=0)) + rng.normal(size=3)


def _series(folder, frames, boxes=None, **facts):
    make_run(folder, frames, boxes, **facts)
    return read_record(folder).series


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, np.eye(3) * 5.0, _LEANING])
def test_frames_are_what_was_written(tmp_path, box):
    """Positions to single precision, boxes too, and mdtraj reads the same."""
    start = start_positions(make_topology())
    rng = np.random.default_rng(2)
    frames = start + rng.normal(scale=0.1, size=(4, *start.shape))
    boxes = None if box is None else [box * (1 + 0.01 * k) for k in range(4)]
    run = make_run(tmp_path, frames, boxes)
    found = Trajectory(tmp_path / "trajectory.dcd", len(start), run)
    assert len(found) == 4
    for k in (3, 0, 2):
        positions, cell = found[k]
        np.testing.assert_allclose(positions, frames[k], atol=2e-7)
        if boxes is None:
            assert cell is None
        else:
            np.testing.assert_allclose(cell, boxes[k], atol=1e-6)
    theirs = mdtraj.load_dcd(str(tmp_path / "trajectory.dcd"), str(tmp_path / "topology.pdb"))
    np.testing.assert_allclose(theirs.xyz[3], found[3][0], atol=1e-6)


def test_times_are_those_of_the_production(tmp_path):
    """Heating took 0.5 ps; a frame every 10 steps of 1 fs; an inner time step does not count."""
    start = start_positions(make_topology())
    series = _series(tmp_path, np.repeat(start[None], 5, axis=0))
    np.testing.assert_allclose(series.times, 0.5 + 0.01 * np.arange(1, 6))
    assert series.timed
    run = json.loads((tmp_path / "run.json").read_text())
    run["plan"][2] |= {"step_ps": 0.004}
    found = Trajectory(tmp_path / "trajectory.dcd", len(start), run)
    np.testing.assert_allclose(found.times, 0.5 + 0.04 * np.arange(1, 6))
    (tmp_path / "run.json").write_text(json.dumps(run | {"plan": None}))
    untimed = read_record(tmp_path).series
    assert not untimed.timed and untimed.times.tolist() == [1, 2, 3, 4, 5]


def test_half_a_frame_does_not_count_and_damage_is_named(tmp_path):
    start = start_positions(make_topology())
    run = make_run(tmp_path, np.repeat(start[None], 5, axis=0))
    path = tmp_path / "trajectory.dcd"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    assert len(Trajectory(path, len(start), run)) == 4
    path.write_bytes(content[:300])
    assert read_record(tmp_path).series.frames == 0
    for damaged in (b"", b"no trajectory" * 40):
        path.write_bytes(damaged)
        record = read_record(tmp_path)
        assert "trajectory.dcd could not be read" in " ".join(record.notes)
        assert record.series.bonds is None
    with pytest.raises(ValueError, match="69 atoms instead of 70"):
        path.write_bytes(content)
        Trajectory(path, 70, run)


def test_a_long_run_is_looked_at_here_and_there(tmp_path):
    start = start_positions(make_topology())
    series = _series(tmp_path, np.repeat(start[None], 900, axis=0))
    assert series.frames == 900 and len(series.times) == 400
    assert series.times[-1] == pytest.approx(0.5 + 9.0)  # the last frame is among them


# --- motions of the whole -------------------------------------------------------------------------


def test_rmsd_does_not_see_motions_of_the_whole(tmp_path):
    """Turned and shifted frames have none; a chain that opens has that of mdtraj."""
    start = start_positions(make_topology())
    opened = start.copy()
    opened[:30] *= [1.05, 1.0, 0.9]
    frames = np.array([_moved(start, 1), _moved(start, 2), _moved(opened, 3)])
    series = _series(tmp_path, frames)
    assert series.polymer[:2].max() < 1e-6 and series.region[:2].max() < 1e-6
    backbone = [k for k in range(30) if k % 5 != 4]
    whole = mdtraj.Trajectory(frames, mdtraj.Topology.from_openmm(make_topology()))
    reference = mdtraj.Trajectory(start[None], whole.topology)
    theirs = mdtraj.rmsd(whole, reference, atom_indices=backbone)
    assert series.polymer[2] == pytest.approx(theirs[2], rel=1e-3) and theirs[2] > 0.01  # float32 there
    # Negative control: as they stand in space, the frames are far from the start.
    assert np.sqrt(((frames[0] - start) ** 2).sum(axis=1).mean()) > 0.3


def test_region_moves_against_the_polymer(tmp_path):
    """A ligand 0.2 nm from where it began, however the whole has turned."""
    start = start_positions(make_topology())
    away = start.copy()
    away[30:33] += [0.0, 0.2, 0.0]
    series = _series(tmp_path, np.array([_moved(away, 5)]))
    assert series.region[0] == pytest.approx(0.2, abs=1e-6) and series.polymer[0] < 1e-6


def test_region_alone_is_laid_on_itself(tmp_path):
    """Without a polymer only its own shape counts."""
    start = start_positions(make_topology())
    bent = start.copy()
    bent[32] += [0.0, 0.1, 0.0]
    topology = mdtraj.Topology.from_openmm(make_topology())
    part = list(range(30, len(start)))
    alone = Superposition(Start(topology.subset(part), start[part]), [0, 1, 2])
    assert not len(alone.backbone)
    for frame, expected in ((_moved(start, 4), 0.0), (_moved(bent, 4), None)):
        found = alone.rmsd(alone.place(frame[part], None), alone.region)
        assert found == pytest.approx(0.0, abs=1e-9) if expected == 0.0 else 0.01 < found < 0.1


@pytest.mark.parametrize("box", [np.eye(3) * 3.9, _LEANING])
def test_images_of_the_solute_are_those_of_the_start(box):
    """A ligand that was gathered into another image is put back, in a turned frame too; a control is not."""
    start = _start()
    superposition = Superposition(start, [30, 31, 32])
    for seed in range(6):
        frame = _moved(start.positions, seed)
        frame[:30] += box[seed % 3] - box[(seed + 1) % 3]  # solvent is gathered around the region
        placed = superposition.place(frame, box)
        np.testing.assert_allclose(placed, start.positions, atol=1e-9)
        assert superposition.rmsd(superposition.place(frame, None), superposition.region) > 1.0


def test_distances_are_to_the_nearest_image():
    """Against all images within five boxes, for points anywhere in and around a leaning box."""
    rng = np.random.default_rng(4)
    shifts = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), axis=-1).reshape(-1, 3) @ _LEANING
    plain = []
    for _ in range(200):
        positions = rng.uniform(-1, 2, size=(2, 3)) @ _LEANING
        brute = np.linalg.norm(positions[1] - positions[0] + shifts, axis=1).min()
        assert distance_between(positions, _LEANING, [0], [1]) == pytest.approx(brute, abs=1e-12)
        plain.append(np.linalg.norm(positions[1] - positions[0]) > brute + 1e-6)
    assert sum(plain) > 50


def test_distances_that_were_asked_for(tmp_path):
    """Between centres of groups, across the box; what is damaged in run.json is left out."""
    start = start_positions(make_topology())
    box = np.eye(3) * 6.0
    frames = np.repeat(start[None], 3, axis=0)
    frames[1, 33:36] += [0.0, 0.0, 0.5]
    frames[2, 33:36] -= box[2]
    asked = {
        "ligand..water": {"selections": ["resname LIG", "residue 8"], "atoms": [[30, 31, 32], [33]]},
        "wrong": {"atoms": [[0, 1], [9999]]},
        "half": {"atoms": [[0]]},
        "none": 5,
    }
    series = _series(tmp_path, frames, [box] * 3, distances=asked)
    assert list(series.distances) == ["ligand..water"]
    middle = start[30:33].mean(axis=0)
    expected = [np.linalg.norm(start[33] - middle), np.linalg.norm(start[33] + [0, 0, 0.5] - middle)]
    np.testing.assert_allclose(series.distances["ligand..water"], [*expected, expected[0]], atol=1e-6)


# --- bonds ----------------------------------------------------------------------------------------


def _stretched(pair: tuple[int, int], factor: float) -> np.ndarray:
    """The start with everything from the second atom on moved, so that one bond has another length."""
    start = start_positions(make_topology())
    first, second = pair
    change = (start[second] - start[first]) * (factor - 1.0)
    moved = start.copy()
    moved[second] += change
    return moved


@pytest.mark.parametrize(("factor", "broken"), [(1.49, 0), (1.51, 1), (0.51, 0), (0.49, 1)])
def test_limits_on_the_length_of_a_bond(tmp_path, factor, broken):
    """Of an end atom, the third carbon of the ligand, in the second of three frames."""
    start = start_positions(make_topology())
    usual = max(np.linalg.norm(start[32] - start[31]), 0.152)  # covalent radii of two carbons
    stretched = _stretched((31, 32), factor * usual / np.linalg.norm(start[32] - start[31]))
    bonds = _series(tmp_path, np.array([start, stretched, start])).bonds
    assert bonds.frames == 3 and len(bonds.broken) == broken
    if broken:
        (bond,) = bonds.broken
        assert (bond.name, bond.modelled, bond.frames, bond.where) == ("C2-C3 of LIG7", True, 1, "0.52 ps")
        assert bond.length == pytest.approx(factor * usual, rel=1e-4)
        assert bonds.modelled_share == pytest.approx(0.5)


def test_a_bond_outside_the_potential_comes_first(tmp_path):
    start = start_positions(make_topology())
    frame = _stretched((31, 32), 2.0)
    frame[4] += [0.0, 0.5, 0.0]  # CB of the first alanine
    bonds = _series(tmp_path, np.array([start, frame, frame])).bonds
    assert [(bond.name, bond.modelled, bond.frames) for bond in bonds.broken] == [
        ("CA-CB of ALA1", False, 2),
        ("C2-C3 of LIG7", True, 2),
    ]
    assert read_record(tmp_path).verdict.level == "bad"


def test_a_bond_across_the_box_is_whole(tmp_path):
    """An atom in another image is no broken bond, where there are images."""
    start = start_positions(make_topology())
    box = np.eye(3) * 6.0
    frame = start.copy()
    frame[33 + 1] += box[0]
    assert _series(tmp_path, frame[None], [box]).bonds.broken == ()
    (tmp_path / "open").mkdir()
    assert len(_series(tmp_path / "open", frame[None]).bonds.broken) == 1


@pytest.mark.parametrize(("factor", "new"), [(1.29, 1), (1.31, 0)])
@pytest.mark.parametrize("across", [False, True])
def test_a_bond_is_new_below_a_length(tmp_path, factor, new, across):
    """A carbon of the ligand at one of the protein, in two of three frames, also in another image."""
    start, box = start_positions(make_topology()), np.eye(3) * 6.0
    frame = start.copy()
    frame[30:33] += start[4] + [0.0, factor * 0.146, 0.0] - start[30]  # C1 to CB
    frame[30:33] += box[0] if across else 0.0
    bonds = _series(tmp_path, np.array([start, frame, frame]), [box] * 3).bonds
    assert [(bond.name, bond.frames, bond.where) for bond in bonds.formed] == [
        ("C1-CB of LIG7-ALA1", 2, "0.52 ps")
    ] * new
    if new:
        assert bonds.formed[0].length == pytest.approx(factor * 0.146, rel=1e-4)
        assert read_record(tmp_path).verdict.of("look")[0].name == "bonds"


def test_atoms_at_one_neighbour_and_atoms_of_the_force_field_form_no_bond(tmp_path):
    """A bent angle is no bond before its ends are as close as a bond; two waters are not the potential's."""
    start = start_positions(make_topology())
    direction = (start[32] - start[30]) / np.linalg.norm(start[32] - start[30])
    for factor, new in ((1.2, 0), (1.1, 1)):
        frame = start.copy()
        frame[32] = start[30] + factor * 0.146 * direction
        folder = tmp_path / str(factor)
        folder.mkdir()
        assert len(_series(folder, frame[None]).bonds.formed) == new
    frame = start.copy()
    frame[33:36] += start[36] + [0.0, 0.0, 0.15] - start[33]
    (tmp_path / "waters").mkdir()
    assert _series(tmp_path / "waters", frame[None]).bonds.formed == ()


def test_a_moving_zone_may_break_bonds_of_what_it_describes(tmp_path):
    """A water that had lambda in some frame counts as described by the potential."""
    start = start_positions(make_topology())
    frame = start.copy()
    frame[34] += [0.3, 0.0, 0.0]
    series = _series(tmp_path, frame[None])
    assert not series.bonds.broken[0].modelled
    weights = np.zeros((1, len(start)), dtype=np.float32)
    weights[0, 33:36] = 0.4
    np.save(tmp_path / "lambda.npy", weights)
    assert read_record(tmp_path).series.bonds.broken[0].modelled


def test_the_last_finite_frame_of_a_failed_run_is_looked_at(tmp_path):
    start = start_positions(make_topology())
    run = make_run(tmp_path, None, state="failed", message="NaN")
    frame = start.copy()
    frame[34] += [0.5, 0.0, 0.0]
    topology = mdtraj.Topology.from_openmm(make_topology())
    mdtraj.Trajectory(frame[None], topology).save_pdb(str(tmp_path / "last_finite_frame.pdb"))
    bonds = read_record(tmp_path).series.bonds
    assert bonds.frames == 1 and bonds.broken[0].where == "the last finite frame"
    (tmp_path / "run.json").write_text(json.dumps(run | {"state": "finished"}))
    assert read_record(tmp_path).series.bonds is None
