"""Interaction of a region by level of embedding: sums that can be checked, and what moves it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mlmm
from mlmm.build import build_system
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.errors import EmbeddingError, PotentialError
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.units import COULOMB
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
