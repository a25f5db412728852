"""Frames are written as OpenMM writes them, byte for byte; checkpoints come as often as they are worth."""

from __future__ import annotations

import io

import numpy as np
import pytest
from openmm import Vec3, app, unit
from toys import PlainSprings, chains

from mlmm.bench.measure import Timing
from mlmm.bench.table import _steps_between_checkpoints
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.dynamics.dcd_frames import DCDWriter
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.run_directory import RunDirectory
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Produce
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials.committee import force_spread
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

BOXES = {
    "cube": 1.62 * np.eye(3),
    "leaning": np.array([[1.7, 0.0, 0.0], [0.3, 1.6, 0.0], [-0.4, 0.2, 1.65]]),
    "none": None,
}


@pytest.fixture(scope="module")
def topology():
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm").topology


@pytest.mark.parametrize("shape", [*BOXES, "left out"])
@pytest.mark.parametrize("interval", [5, 1_000_000_000])
def test_the_file_is_that_of_openmm(topology, shape, interval, monkeypatch):
    """Also where the number of steps leaves 32 bits. Control: another frame makes another file.

    "left out": an open system whose topology has a cell, such as that of a crystal.
    """
    given = "leaning" if shape == "left out" else shape
    box, whole = BOXES[given], BOXES[given]
    whole = None if whole is None else [Vec3(*row) for row in whole] * unit.nanometer
    topology.setPeriodicBoxVectors(whole)
    if shape == "left out":
        box, whole = None, None
    random = np.random.default_rng(1)
    frames = random.normal(size=(4, topology.getNumAtoms(), 3))
    monkeypatch.setattr("openmm.app.dcdfile.time.asctime", lambda _: "now")
    files = {name: io.BytesIO() for name in ("openmm", "own", "other")}
    spacing = 0.5 * unit.femtosecond, 0, interval
    theirs = app.DCDFile(files["openmm"], topology, *spacing)
    for frame in frames:
        theirs.writeModel(frame * unit.nanometer, periodicBoxVectors=whole)
    for name, seen in (("own", frames), ("other", frames[::-1])):
        writer = DCDWriter(files[name], topology, *spacing)
        for frame in seen:
            writer.write(frame, box)
    assert files["own"].getvalue() == files["openmm"].getvalue()
    assert files["other"].getvalue() != files["openmm"].getvalue()


@pytest.mark.parametrize("broken", ["nan", "short"])
def test_broken_frames_are_refused(topology, broken):
    """Before a byte of them is written."""
    file = io.BytesIO()
    writer = DCDWriter(file, topology, 0.5 * unit.femtosecond, 0, 5)
    frame = np.zeros((topology.getNumAtoms(), 3))
    if broken == "nan":
        frame[3, 1] = np.nan
    before = file.getvalue()
    with pytest.raises(ValueError, match="not finite"):
        writer.write(frame if broken == "nan" else frame[:-1], None)
    assert file.getvalue() == before


def test_checkpoints_take_their_share_of_the_time():
    """2 % where no interval is given: 250 ms beside steps of 0.25 ms are due every 50,000 steps."""
    timings = {
        "checkpoint": Timing(np.array([250.0]), np.array([250.0])),
        "whole step": Timing(np.array([0.25]), np.array([0.25])),
    }
    assert _steps_between_checkpoints(RunOptions(), timings) == 50_000
    assert _steps_between_checkpoints(RunOptions(checkpoint_interval=1000), timings) == 1000
    timings["whole step"] = Timing(np.array([35.0]), np.array([35.0]))
    assert _steps_between_checkpoints(RunOptions(), timings) == 1000


def test_the_spread_of_forces_is_that_of_the_atoms_that_feel_them():
    """Zero elsewhere, and the standard deviation of the members where any of them pushes."""
    torch = pytest.importorskip("torch")
    forces = torch.zeros((3, 50, 3), dtype=torch.float64)
    forces[:, 7:11] = torch.randn((3, 4, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    forces[1:, 8] = 0.0
    found = force_spread(forces).numpy()
    expected = np.sqrt((forces.numpy().std(axis=0, ddof=1) ** 2).sum(axis=1))
    assert found == pytest.approx(expected, rel=1e-13)
    assert (found[:7] == 0).all() and (found[7:11] > 0).all()


@pytest.mark.parametrize(("share", "checkpoints"), [(1e9, 4), (1e-9, 0)])
def test_a_run_writes_checkpoints_within_their_share(tmp_path, monkeypatch, share, checkpoints):
    """Every 1,000 steps of 5,000, or none where, by the one that began the run, it would take too long."""
    found = []
    written = RunDirectory.write_checkpoint

    def counted(run, checkpoint):
        found.append(checkpoint.step)
        written(run, checkpoint)

    monkeypatch.setattr(RunDirectory, "write_checkpoint", counted)
    monkeypatch.setattr("mlmm.dynamics.runner.CHECKPOINT_SHARE", share)
    options = RunOptions(timestep="0.5 fs", platform="Reference", seed=1, report_interval=5000)
    built = chains(box=None)
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    hybrid = hybrid_system(built, zones, PlainSprings(), scheme="additive")
    simulate(hybrid, tmp_path / "run", [Produce("2.5 ps")], options)
    assert [step for step in found if 0 < step < 5000] == [1000, 2000, 3000, 4000][:checkpoints]
