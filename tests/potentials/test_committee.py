"""Committees: mean, spread of energies and forces, one zero of energy, limits that a run acts on."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from toys import PlainSprings, toy_spec

import mlmm
from mlmm.dynamics.uncertainty import UncertaintyLimits, UncertaintyMonitor, measure_uncertainty
from mlmm.errors import ConfigError, PotentialError
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import (
    AlignedPotential,
    AtomEnergies,
    Committee,
    TrainingSet,
    align_energies,
    check_potential,
    committee_of,
    committee_spread,
)
from mlmm.potentials.contract.probes import random_molecule
from mlmm.potentials.descriptors import read_xyz
from mlmm.report import write_report
from mlmm.structures import Structure
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones

MOLECULE = random_molecule([1, 6, 7, 8], 12, seed=4)


def member(*members, precision="float64"):
    return mlmm.load_potential("ani1x", members=members, precision=precision)


def test_mean_and_spread_are_those_of_the_members_by_hand():
    models = [member(0), member(3), member(6)]
    together = Committee(models)
    energies = torch.stack([model.atom_energies(MOLECULE).energies for model in models])
    forces = torch.stack([mlmm.energy_and_forces(model, MOLECULE)[1] for model in models])
    found = together.atom_energies(MOLECULE)
    assert torch.equal(found.members, energies) and torch.allclose(found.energies, energies.mean(dim=0))
    spread = committee_spread(together, MOLECULE)
    assert spread.energy == pytest.approx(float(energies.sum(dim=1).std()), rel=1e-12)
    assert torch.allclose(spread.atoms, energies.std(dim=0))
    variance = (forces - forces.mean(dim=0)).square().sum(dim=(0, 2)) / 2
    assert torch.allclose(spread.forces, variance.sqrt(), rtol=1e-9)
    assert torch.allclose(mlmm.energy_and_forces(together, MOLECULE)[1], forces.mean(dim=0))
    assert committee_spread(together, MOLECULE, forces=False).forces is None


def test_models_of_one_kind_become_one_call():
    """Members 0–3 and 4–7 joined are the whole committee again, in one network pass."""
    halves = committee_of([member(0, 1, 2, 3), member(4, 5, 6, 7)])
    whole = mlmm.load_potential("ani1x", precision="float64")
    assert type(halves) is type(whole) and halves.spec.members == 8
    expected = whole.atom_energies(MOLECULE).members
    assert torch.allclose(halves.atom_energies(MOLECULE).members, expected, rtol=1e-12, atol=1e-9)
    assert halves.spec.reference_energies == pytest.approx(whole.spec.reference_energies)
    ions = [member(0), member(1)]
    for one in ions:
        one.spec = dataclasses.replace(one.spec, trained_charges=(-2, 0))
    assert committee_of(ions).spec.trained_charges == (-2, 0) != halves.spec.trained_charges
    by_name = mlmm.load_potential("ani1x + ani1x", members=[0])
    assert by_name.spec.members == 2 and by_name.spec.name == "ANI-1x + ANI-1x"


def test_models_of_unequal_size_count_the_same():
    mixed = Committee([member(0), member(1, 2)])
    first, second = (m.atom_energies(MOLECULE).energies for m in mixed.models)
    assert mixed.spec.members == 2
    assert torch.allclose(mixed.atom_energies(MOLECULE).energies, (first + second) / 2)


def test_a_committee_keeps_the_contract():
    report = check_potential(Committee([member(0), member(1, 2)]), elements=(1, 6, 8))
    assert report.passed, str(report)
    assert any(result.name == "TorchScript less eager" for result in report.results)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (lambda: [member(0)], "two models or more in a committee, but got 1"),
        (
            lambda: [member(0), PlainSprings()],
            "models of one trained_on in a committee, but got ANI-1x: 'total'",
        ),
        (lambda: [_Constant({6: 0.0}), _Constant({8: 0.0})], "models with elements in common"),
    ],
)
def test_incompatible_committees_are_rejected(models, message):
    with pytest.raises(PotentialError) as caught:
        Committee(models())
    assert message in str(caught.value)
    with pytest.raises(PotentialError, match="a committee of two members or more, but got ANI-1x"):
        committee_spread(member(0), MOLECULE)


class _Constant:
    """Springs with a constant on each element."""

    def __init__(self, constants):
        self.constants = constants
        self.spec = toy_spec("constants", elements=tuple(constants), trained_on="total")

    def atom_energies(self, structure):
        energies = PlainSprings().atom_energies(structure).energies
        return AtomEnergies(energies + torch.tensor([self.constants[int(z)] for z in structure.numbers]))


def test_alignment_finds_the_zero_of_another_model_and_the_spread_vanishes():
    reference, other = _Constant({1: 3.0, 6: -7.0, 8: 0.25}), _Constant({1: 103.0, 6: -7.0, 8: -49.0})
    molecules = [random_molecule(e, n, seed=n) for n, e in ((5, [1, 6]), (6, [1, 8]), (8, [1, 6, 8]))]
    assert committee_spread(Committee([reference, other]), MOLECULE_CHO).energy > 100
    aligned = align_energies(other, reference, molecules)
    assert aligned.spec.alignment == pytest.approx({1: -100.0, 6: 0.0, 8: 49.25}, abs=1e-9)
    assert committee_spread(Committee([reference, aligned]), MOLECULE_CHO).energy < 1e-9
    # On a second alignment nothing is left to do, and what is stored adds up.
    again = align_energies(aligned, reference, molecules)
    assert again.spec.alignment == pytest.approx(aligned.spec.alignment, abs=1e-9)
    with pytest.raises(PotentialError, match="structures to align energies on"):
        align_energies(other, reference, [])
    with pytest.raises(
        PotentialError, match="an alignment for every element of constants, but got none for C O"
    ):
        AlignedPotential(other, {1: 0.0})


MOLECULE_CHO = random_molecule([1, 6, 8], 9, seed=2)


def test_an_aligned_model_compiles_and_keeps_the_contract():
    aligned = AlignedPotential(member(0), {1: 1.0, 6: 2.0, 7: 3.0, 8: 4.0})
    report = check_potential(aligned, elements=(1, 6, 8))
    assert report.passed, str(report)


def hybrid_dipeptide(built, potential, scheme="additive", zones=None):
    region = select_region(built, "all" if scheme == "additive" else "resname ALA")
    return hybrid_system(built, (zones or hard_zones)(built, region), potential, scheme=scheme)


@pytest.mark.parametrize("bridge", ["additive", "per_atom"])
def test_spread_of_a_hybrid_system(dipeptide_vacuum, bridge):
    """Whole molecule: that of the model itself. Blend: buffer atoms feel the disagreement too."""
    hybrid = hybrid_dipeptide(
        dipeptide_vacuum,
        member(0, 1, 2),
        bridge,
        None if bridge == "additive" else lambda b, r: static_zones(b, r, "0.0 nm", "0.15 nm", "hydrogen"),
    )
    found = measure_uncertainty(hybrid, dipeptide_vacuum.positions, None)
    assert found.forces.shape == (22,) and found.row()["force_spread"] == found.forces.max()
    if bridge == "additive":
        alone = committee_spread(hybrid.potential, hybrid.region_structure(dipeptide_vacuum.positions))
        assert found.energy == pytest.approx(alone.energy)
        assert np.allclose(found.atoms, alone.atoms) and np.allclose(found.forces, alone.forces)
    else:
        outside = sorted(set(range(22)) - set(hybrid.zones.active))
        assert (found.forces[outside] > 0).any()
        numeric = _total_members(hybrid, dipeptide_vacuum.positions, outside[0])
        assert np.isclose(found.forces[outside[0]], numeric, rtol=1e-4)


def _total_members(hybrid, positions, atom, step=1e-5):
    """Force spread on one atom by finite differences of the members' energies."""
    forces = []
    for axis in range(3):
        slopes = []
        for sign in (1, -1):
            moved = positions.copy()
            moved[atom, axis] += sign * step
            with torch.no_grad():
                slopes.append(sign * hybrid.blend.contributions(torch.tensor(moved), None).sum(dim=1))
        forces.append(-(slopes[0] + slopes[1]) / (2 * step))
    return float(torch.stack(forces).std(dim=1).square().sum().sqrt())


def short_run(hybrid, out, monitor, **options):
    return mlmm.simulate(
        hybrid,
        out,
        [mlmm.Produce("0.01 ps", timestep="0.5 fs")],
        platform="Reference",
        report_interval=10,
        checkpoint_interval=4,
        monitor=monitor,
        **options,
    )


def test_limits_warn_save_and_stop(dipeptide_vacuum, tmp_path, caplog):
    hybrid = hybrid_dipeptide(dipeptide_vacuum, member(0, 1, precision="float32"))
    run = short_run(
        hybrid, tmp_path / "warn", UncertaintyMonitor(hybrid, UncertaintyLimits(force="1 kJ/mol/nm"))
    )
    assert run.state == "finished" and run.summary["uncertainty"]["flagged"] == 2
    assert "force spread" in caplog.text and not (run.path / "to_label.xyz").exists()
    rows = list(csv.DictReader((run.path / "energies.csv").read_text().splitlines()))
    assert float(rows[0]["force_spread"]) > 1 and float(rows[0]["atom_spread"]) > 0
    assert rows[0]["training_distance"] == ""

    limits = UncertaintyLimits(force="1 kJ/mol/nm", action="save", frames=3)
    saved = short_run(hybrid, tmp_path / "save", UncertaintyMonitor(hybrid, limits, interval=5))
    facts = saved.summary["uncertainty"]
    assert facts["flagged"] == 4 and len(facts["saved"]) == 3
    frames = read_xyz(saved.path / "to_label.xyz")
    assert (
        len(frames) == 3
        and frames[0].numbers.tolist() == hybrid.region_structure(dipeptide_vacuum.positions).numbers.tolist()
    )
    assert "TMP" not in facts["saved"][0]["reason"] and "kJ/mol/nm on " in facts["saved"][0]["reason"]

    limits = dataclasses.replace(limits, action="stop")
    stopped = short_run(hybrid, tmp_path / "stop", UncertaintyMonitor(hybrid, limits, interval=5))
    assert stopped.state == "interrupted" and "uncertainty: force spread" in stopped.summary["message"]
    assert stopped.summary["step"] == 5
    # Frames that were written after the checkpoint from which a run goes on are not there twice.
    again = short_run(hybrid, stopped.path, UncertaintyMonitor(hybrid, limits, interval=5), resume=True)
    assert again.summary["step"] == 10 and len(read_xyz(again.path / "to_label.xyz")) == 2
    page = write_report(again.path).read_text()
    assert "Uncertainty" in page and "stage produce, step 5" in page
    json.dumps(again.summary)


def test_stable_run_exceeds_no_uncertainty_limit(dipeptide_vacuum, tmp_path):
    """Negative control."""
    hybrid = hybrid_dipeptide(dipeptide_vacuum, member(0, 1, precision="float32"))
    limits = UncertaintyLimits(force="1e6 kJ/mol/nm", energy="1e6 kJ/mol", atom=1e6, action="stop")
    run = short_run(hybrid, tmp_path / "run", UncertaintyMonitor(hybrid, limits))
    assert run.state == "finished" and run.summary["uncertainty"]["flagged"] == 0


@pytest.mark.parametrize(
    ("members", "limits", "options", "message"),
    [
        ((0,), {"energy": 1.0}, {}, "a committee for limits on a spread, but got ANI-1x with one member"),
        ((0, 1), {"force": 1.0}, {"forces": False}, "forces = true for a limit on them"),
        ((0, 1), {"distance": 1.0}, {}, "a training set for a limit on the distance"),
        ((0, 1), {"action": "panic"}, {}, "action = warn | save | stop, but got 'panic'"),
        ((0, 1), {"energy": "5 nm"}, {}, "uncertainty.energy as an energy"),
    ],
)
def test_limits_without_a_committee_are_rejected(dipeptide_vacuum, members, limits, options, message):
    hybrid = hybrid_dipeptide(dipeptide_vacuum, member(*members))
    with pytest.raises(ConfigError) as caught:
        UncertaintyMonitor(hybrid, UncertaintyLimits(**limits), **options)
    assert message in str(caught.value)


def _jiggled(n, seed=0, size=0.003):
    random = torch.Generator().manual_seed(seed)
    noise = (torch.randn(MOLECULE.positions.shape, generator=random, dtype=torch.float64) for _ in range(n))
    return [Structure(MOLECULE.numbers, MOLECULE.positions + size * shift) for shift in noise]


def test_distance_to_the_training_set(tmp_path):
    """About 1 for more of the same, 0 for the set itself, far for a stretched bond, infinite for sulfur."""
    training = TrainingSet.from_structures(_jiggled(40))
    assert float(training.distances(_jiggled(40)[7]).max()) < 1e-3
    fresh = torch.stack([training.distances(s) for s in _jiggled(10, seed=1)])
    assert 0.3 < float(fresh.mean()) < 1.1 and float(fresh.max()) < 2.5
    positions = MOLECULE.positions.clone()
    atom = int((MOLECULE.numbers == 1).nonzero()[0])
    nearest = (positions - positions[atom]).norm(dim=1).argsort()[1]
    positions[atom] += 0.5 * (positions[atom] - positions[nearest])
    far = training.distances(Structure(MOLECULE.numbers, positions))
    assert float(far[atom]) > 5 * float(fresh.max())
    strange = Structure(
        torch.cat([MOLECULE.numbers, torch.tensor([16])]), torch.cat([positions, positions[:1] + 2])
    )
    found = training.distances(strange)
    assert torch.isinf(found[-1]) and torch.allclose(found[:-1], far, rtol=1e-5)
    assert torch.equal(training.distances(strange, [2, 0]), found[[2, 0]])
    training.save(tmp_path / "set.safetensors")
    again = TrainingSet.open(tmp_path / "set.safetensors")
    assert torch.allclose(again.distances(strange)[:-1], far, rtol=1e-6)


def test_distance_in_a_run_is_that_of_the_zone(dipeptide_vacuum):
    hybrid = hybrid_dipeptide(dipeptide_vacuum, member(0, 1))
    structure = hybrid.region_structure(dipeptide_vacuum.positions)
    noise = np.random.default_rng(3).normal(size=(4, 22, 3))
    frames = [Structure(structure.numbers, structure.positions + 0.002 * torch.tensor(n)) for n in noise]
    training = TrainingSet.from_structures(frames)
    found = measure_uncertainty(hybrid, dipeptide_vacuum.positions, None, forces=False, training=training)
    assert np.allclose(found.distances, training.distances(structure).numpy()) and found.distances.max() < 5
    assert found.forces is None and np.isnan(found.row()["force_spread"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\nwater\nO 0 0 0\nH 0 0 1\n", "fewer atoms than announced after line 1"),
        ("1\n\nQq 0 0 0\n", "structures in xyz format"),
        ("1\n\nH 0 0 zero\n", "structures in xyz format"),
        ("1\n\nH 0 0 0\n", "two training structures or more, but got 1"),
    ],
)
def test_training_sets_that_cannot_be_read(tmp_path, text, message):
    (tmp_path / "set.xyz").write_text(text)
    with pytest.raises(PotentialError) as caught:
        TrainingSet.open(tmp_path / "set.xyz")
    assert message in str(caught.value)
    (tmp_path / "set.safetensors").write_text(text)
    with pytest.raises(PotentialError, match="a training set in"):
        TrainingSet.open(tmp_path / "set.safetensors")
    with pytest.raises(PotentialError, match="an xyz file at"):
        TrainingSet.open(tmp_path / "none.xyz")
