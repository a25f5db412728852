"""Interaction of a region by level of embedding: sums that can be checked, and what moves it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json

import numpy as np
import openmm
import pytest
import torch
from field_models import Equilibrated

import mlmm
from mlmm.build import build_system
from mlmm.cli.program import main
from mlmm.electrostatics.embedded_region import EmbeddedRegion
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.errors import EmbeddingError, PotentialError
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.report.embedding_plots import LEVELS_FILE, draw_levels, embedding_sketch
from mlmm.units import COULOMB
from mlmm.validation import embedding_diagnostics as embedding_diagnostics_module
from mlmm.validation.embedding_diagnostics import embedding_diagnostics
from mlmm.validation.embedding_levels import LEVELS, embedding_levels
from mlmm.zones.region import select_region

pytest.importorskip("rdkit", reason='pip install "mlmm[ligands]"')
pytest.importorskip("parmed", reason='pip install "mlmm[ligands]"')


@pytest.fixture(scope="module")
def acetate():
    return build_system(smiles="CC(=O)[O-]", padding="0.7 nm", nonbonded_cutoff="0.8 nm")


@pytest.fixture(scope="module")
def amp():
    return mlmm.load_potential("amp-bms", precision="float64")


def test_levels_add_up_to_sums_over_all_charges(acetate, amp):
    """Rows against the plain double sum of fixed charges, and the multipoles' own formula."""
    region = select_region(acetate, "resid 0")
    levels = embedding_levels(acetate, region, amp, [acetate.positions, acetate.positions + 0.3])
    water, *others = levels.names
    assert water.startswith("HOH (") and others == ["NA"] and levels.energies.shape == (2, 2, len(LEVELS))
    # In other images the same, and for all frames that are one structure.
    assert np.allclose(levels.energies[0], levels.energies[1], atol=1e-8)
    inside = list(region.atoms)
    outside = np.setdiff1d(np.arange(acetate.n_atoms), inside)
    residue = np.array([atom.residue.index for atom in acetate.topology.atoms()])
    where, cell = np.array(acetate.positions), np.diag(acetate.box_vectors)
    centre = where[inside].mean(0)
    for index in np.unique(residue[outside]):
        own = np.flatnonzero(residue == index)
        where[own] += np.round((centre - where[own[0]]) / cell) * cell
    charge = read_charges(acetate.system).charge
    distances = np.linalg.norm(where[inside][:, None] - where[outside][None], axis=2)
    exact = COULOMB * (charge[inside][:, None] * charge[outside][None] / distances).sum()
    assert levels.totals[0, 0] == pytest.approx(exact, abs=1e-6)
    module = amp.scriptable([int(acetate.numbers[i]) for i in inside], charge=-1)
    x, sources = torch.tensor(where[inside]), torch.tensor(where[outside])
    charges = torch.tensor(charge[outside])
    energies, *multipoles = module.in_field(x, torch.tensor(acetate.box_vectors), sources, charges, 0.03)
    vectors = sources.unsqueeze(0) - x.unsqueeze(1)
    whole = (energies + multipole_energies(*multipoles, *potential_of_charges(vectors, charges))).sum()
    vacuum = module(x, None).sum()
    assert levels.totals[0, 2] == pytest.approx(float(whole - vacuum), abs=1e-6)
    # Control: the levels are three different numbers, and so are the energies within the region.
    assert min(abs(np.diff(levels.totals[0]))) > 0.1 and abs(levels.polarisation[0]) > 0.01


def test_levels_of_a_model_that_takes_the_potential(acetate):
    """All residues and the region itself: its own energy in the potential, less that in vacuum."""
    region, model = select_region(acetate, "resid 0"), Equilibrated()
    system = openmm.XmlSerializer.clone(acetate.system)
    (pairs,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    pairs.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    topology = copy.deepcopy(acetate.topology)
    topology.setPeriodicBoxVectors(None)
    in_the_open = dataclasses.replace(acetate, system=system, topology=topology)
    levels = embedding_levels(in_the_open, region, model, [acetate.positions])
    inside = list(region.atoms)
    outside = np.setdiff1d(np.arange(acetate.n_atoms), inside)
    x = torch.tensor(acetate.positions[inside])
    vectors = torch.tensor(acetate.positions[outside]).unsqueeze(0) - x.unsqueeze(1)
    around = potential_of_charges(vectors, torch.tensor(read_charges(acetate.system).charge[outside]), 0.03)
    module = model.scriptable([int(acetate.numbers[i]) for i in inside], charge=-1)
    exact = module.in_potential(x, None, *around)[0].sum() - module(x, None).sum()
    assert levels.totals[0, 2] == pytest.approx(float(exact), abs=1e-2)
    # What it costs the region to be polarised is no small part of it.
    assert levels.polarisation[0] > 1.0


def test_table_names_what_matters(acetate, amp):
    region = select_region(acetate, "resid 0")
    levels = embedding_levels(acetate, region, amp, [acetate.positions])
    text = str(levels)
    assert all(level in text for level in LEVELS) and "within the region" in text
    assert "±" not in text.splitlines()[2] and "NA" in text


def test_what_cannot_be_embedded_is_refused(acetate, amp, ani1x, dipeptide_vacuum):
    region = select_region(acetate, "resid 0")
    with pytest.raises(PotentialError, match="sees the charges around it"):
        embedding_levels(acetate, region, ani1x, [acetate.positions])
    with pytest.raises(EmbeddingError, match="one structure or more"):
        embedding_levels(acetate, region, amp, [])
    with pytest.raises(EmbeddingError, match="whole molecules"):
        part = select_region(dipeptide_vacuum, "resname ALA")
        embedding_levels(dipeptide_vacuum, part, amp, [dipeptide_vacuum.positions])


def test_numbers_are_kept_for_the_report(acetate, amp, tmp_path):
    """Strongest first, with errors; the report draws them, and says where it cannot read them."""
    region, notes = select_region(acetate, "resid 0"), []
    frames = [acetate.positions, acetate.positions + np.array([0.0, 0.0, 1e-3])]
    levels = embedding_levels(acetate, region, amp, frames, boxes=[acetate.box_vectors] * 2)
    facts = json.loads(levels.save(tmp_path / LEVELS_FILE).read_text(encoding="utf-8"))
    assert [row["name"] for row in facts["residues"]] == [levels.names[k] for k in levels.strongest]
    assert facts["all"]["mean"] == pytest.approx(levels.totals.mean(axis=0), abs=1e-3)
    assert facts["frames"] == 2 and len(facts["all"]["error"]) == len(LEVELS)
    sketch = embedding_sketch(tmp_path, notes)
    drawn = str(sketch.at(full=True).wide)
    assert not notes and all(level in drawn for level in LEVELS) and "HOH" in drawn
    assert "2 frames with standard errors" in sketch.caption
    assert draw_levels(facts, tmp_path / "levels.png").stat().st_size > 5000
    (tmp_path / LEVELS_FILE).write_text('{"label": "x"}')
    assert embedding_sketch(tmp_path, notes) is None and "run mlmm check embedding again" in notes[0]
    assert embedding_sketch(tmp_path / "elsewhere", notes) is None


@pytest.mark.parametrize("model", ["amp-bms", "in the potential"])
def test_diagnostics_of_a_sound_embedding_pass(acetate, amp, model):
    """Both kinds of model; a coarse sum and charges that are too many are found."""
    potential = amp if model == "amp-bms" else Equilibrated()
    region = select_region(acetate, "resid 0")
    report = embedding_diagnostics(acetate, region, potential)
    assert report.passed, str(report)
    values = {result.name: result.value for result in report.results}
    assert (
        values["waves of the reciprocal sum"] > 50 and values["spread of the potential over the atoms"] > 1.0
    )
    assert 0.0 < values["spread of the potential at a tenth of the tolerance less that"] < 0.42


def test_diagnostics_find_a_coarse_sum_and_foreign_charges(acetate, amp, monkeypatch):
    region = select_region(acetate, "resid 0")
    coarse = functools.partial(EmbeddedRegion, tolerance=0.05)
    monkeypatch.setattr(embedding_diagnostics_module, "EmbeddedRegion", coarse)
    report = embedding_diagnostics(acetate, region, amp)
    assert any("tenth of the tolerance" in r.name and not r.passed for r in report.results)
    monkeypatch.undo()
    whole = EmbeddedRegion.multipoles
    more = lambda *arguments: (whole(*arguments)[0] + 1e-3, *whole(*arguments)[1:])  # noqa: E731
    monkeypatch.setattr(EmbeddedRegion, "multipoles", more)
    report = embedding_diagnostics(acetate, region, amp)
    assert [r.name for r in report.results if not r.passed] == ["sum of q − q0"]


def test_frames_of_a_run_reach_its_report(acetate, tmp_path, capsys, monkeypatch):
    """The verb on a run directory: its own system, frames and settings; what is none is a sentence."""
    monkeypatch.chdir(tmp_path)
    stages = [mlmm.Minimise(max_iterations=1), mlmm.Produce("0.004 ps", timestep="0.5 fs")]
    zones = mlmm.hard_zones(acetate, select_region(acetate, "resid 0"))
    hybrid = mlmm.hybrid_system(acetate, zones, mlmm.load_potential("amp-bms"), electrostatics="embedded")
    run = mlmm.simulate(hybrid, tmp_path / "run", stages, trajectory_interval=2)
    settings = (
        '[system]\nsmiles = "CC(=O)[O-]"\n[region]\nselect = "resid 0"\n[potential]\nname = "amp-bms"\n'
    )
    (run.path / "resolved.toml").write_text(settings)
    assert main(["check", "embedding", str(run.path), "--frames", "2"]) == 0
    said = capsys.readouterr()
    assert "mean of 2 frames" in said.out and "2 of " in said.err + said.out and "net force" in said.out
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Surroundings of the region" in page and "Who holds the region" in page
    assert (tmp_path / "embedding.png").exists() and (run.path / LEVELS_FILE).exists()
    assert main(["check", "embedding", str(tmp_path)]) == 2
    assert "a run with frames" in capsys.readouterr().err
