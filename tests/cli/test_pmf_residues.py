"""``mlmm pmf --residues``: energies of residues in the frames of windows, each in the box of its frame."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import openmm.app
import pytest
from wells import TEMPERATURE, double_well, metropolis

import mlmm
from mlmm.build import BuiltSystem, build_system
from mlmm.cli import main
from mlmm.reactions.umbrella_record import UmbrellaRecord
from mlmm.reactions.windows import Coordinate, plan_windows
from mlmm.validation.embedding_levels import embedding_levels

pytest.importorskip("rdkit", reason='pip install "mlmm[ligands]"')
pytest.importorskip("parmed", reason='pip install "mlmm[ligands]"')

_MIDDLE = 0.6  # nm; the wells lie 0.1 nm to both sides
_FRAMES = 4  # of each window, of 300 samples
_SETTINGS = """
[system]
pdb = "acetate.pdb"
[region]
select = "resid 0"
[potential]
name = "amp-bms"
[embedding]
scheme = "additive"
electrostatics = "embedded"
[variable.x]
groups = ["resid 0 and name C1", "resname NA"]
[umbrella]
variable = "x"
start = "0.47 nm"
end = "0.73 nm"
windows = 13
bootstraps = 20
"""


@pytest.fixture(scope="module")
def acetate() -> BuiltSystem:
    return build_system(smiles="CC(=O)[O-]", padding="0.7 nm", nonbonded_cutoff="0.8 nm")


def placed(built: BuiltSystem, distance: float) -> np.ndarray:
    """Positions with the sodium ion at a distance from the first carbon."""
    found = np.array(built.positions)
    (ion,) = (atom.index for atom in built.topology.atoms() if atom.residue.name == "NA")
    (carbon,) = (atom.index for atom in built.topology.atoms() if atom.name == "C1")
    found[ion] = found[carbon] + distance * np.array([0.0, 0.6, 0.8])
    return found


def sampled(folder: Path, built: BuiltSystem, box: np.ndarray) -> list[float]:
    """A folder of windows as `mlmm pmf` leaves it under a barostat; returns the distance in every frame.

    Residues lie in other images of the frames' own box, as they do after diffusion.
    """
    windows = plan_windows(np.linspace(-0.13, 0.13, 13), None, TEMPERATURE, curvatures=np.full(13, -4000.0))
    values = metropolis(double_well, windows, [0], 300)[0] + _MIDDLE
    windows = [
        dataclasses.replace(one, centre=one.centre + _MIDDLE, number=k) for k, one in enumerate(windows)
    ]
    built.save(folder / "built")
    (folder / "resolved.toml").write_text(_SETTINGS)
    record = UmbrellaRecord(folder, Coordinate("x", "nm"), TEMPERATURE, windows, state="finished")
    record.write()
    residue = np.array([atom.residue.index for atom in built.topology.atoms()])
    generator = np.random.default_rng(0)
    found = []
    for window, own in zip(windows, values, strict=True):
        run = record.production(window)
        run.mkdir(parents=True)
        rows = "".join(f"produce,{x!r}\n" for x in own.tolist())
        (run / "energies.csv").write_text("stage,x\n" + rows)
        with (run / "trajectory.dcd").open("wb") as file:
            trajectory = openmm.app.DCDFile(file, built.topology, 0.001)
            for x in own[-_FRAMES:].tolist():
                found.append(x)
                shifts = generator.integers(-1, 2, (residue[-1] + 1, 3)) @ box
                shifts[0] = 0.0
                trajectory.writeModel(placed(built, x) + shifts[residue], periodicBoxVectors=box)
    return found


def test_every_frame_is_taken_in_its_own_box(tmp_path, acetate, capsys):
    """Under a barostat: energies are those of frames that no image was taken of.

    The control: the box of the built system in place of the frames' own, 8 % shorter, is far off.
    """
    box = 1.08 * np.array(acetate.box_vectors)
    distances = np.array(sampled(tmp_path, acetate, box))
    assert main(["pmf", "--residues", str(tmp_path)]) == 0
    assert "within the region" in capsys.readouterr().out
    with (tmp_path / "residues.csv").open(newline="") as file:
        rows = {row["residue"].split()[0]: row for row in csv.DictReader(file)}
    marks = json.loads((tmp_path / "result.json").read_text())
    region = mlmm.select_region(acetate, "resid 0")
    potential = mlmm.load_potential("amp-bms", precision="float64")
    for name, mark in (("reactant", "reactant"), ("top", "transition_state")):
        near = distances[np.abs(distances - marks[mark]) < 0.5 * 0.26 / 13]
        frames = [placed(acetate, x) for x in near]
        for own, wrong in ((box, False), (acetate.box_vectors, True)):
            shifted = [frame + (np.arange(len(frame)) > 6)[:, None] * box[0] for frame in frames]
            levels = embedding_levels(acetate, region, potential, shifted, boxes=[own] * len(frames))
            for row, energy in zip(levels.names, levels.energies[:, :, 2].mean(axis=0), strict=True):
                off = abs(float(rows[row.split()[0]][name]) - energy)
                assert off > 1.0 if wrong else off < 0.02, (row, off)
