"""Reference charges: a force field that had them from the start, under every scheme."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
import tolerances
import torch
from charged_models import charges_of, first_molecule, quick, small, state_of
from toys import ChargedContacts, PlainSprings, energy_and_forces, random_zones, toy_spec

import mlmm
from mlmm.electrostatics.fixed_charges import exception_factors, original_charges, read_charges
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system


def built_with(built, charges: np.ndarray):
    """A force field that had these charges from the start: 1-4 pairs get 0.8333 of their product."""
    system = openmm.XmlSerializer.clone(built.system)
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    for i, charge in enumerate(charges.tolist()):
        force.setParticleParameters(i, charge, *force.getParticleParameters(i)[1:])
    for i in range(force.getNumExceptions()):
        a, b, product, sigma, epsilon = force.getExceptionParameters(i)
        new = 0.8333 * charges[a] * charges[b] if product._value else 0.0
        force.setExceptionParameters(i, a, b, new, sigma, epsilon)
    return mlmm.BuiltSystem.from_openmm(built.topology, system, built.positions)


@pytest.mark.parametrize("scheme", ["additive", "per_atom", "supermolecular", "delta"])
def test_reference_charges_are_a_force_field_with_these_charges(scheme):
    """Energy and forces of every scheme equal those of a system built with the charges from the start."""
    built = quick(n_molecules=3, n_atoms=5, seed=4)
    zones = first_molecule(built, 5) if scheme != "per_atom" else random_zones(built, 8, 3)
    weights = np.zeros(built.n_atoms)
    weights[list(zones.active)] = zones.active_weights
    before = charges_of(built)
    generator = np.random.default_rng(0)
    wanted = before + generator.normal(0, 0.05, built.n_atoms)
    wanted[list(zones.active)] -= (wanted - before)[list(zones.active)].mean()
    change = weights * (wanted - before)
    expected = before + change - weights**2 / (weights**2).sum() * change.sum()
    potential = ChargedContacts(before, trained_on="correction" if scheme == "delta" else "total")
    potential.own = torch.zeros(1)
    if scheme != "per_atom":
        potential = PlainSprings()
        trained = {"additive": "isolated", "delta": "correction"}.get(scheme, "total")
        potential.spec = toy_spec("springs", trained_on=trained)
    one = hybrid_system(built, zones, potential, scheme=scheme, charges=wanted)
    other = hybrid_system(built_with(built, expected), zones, potential, scheme=scheme)
    assert abs(charges_of(one.built).sum()) < 1e-10
    np.testing.assert_allclose(charges_of(one.built), expected, atol=1e-14)
    energy, forces = energy_and_forces(one.system, built.positions)
    found, same = energy_and_forces(other.system, built.positions)
    assert energy == pytest.approx(found, abs=tolerances.IDENTITY_MESH)
    assert np.abs(forces - same).max() < 1e-8
    plain = hybrid_system(built, zones, potential, scheme=scheme)
    assert abs(energy_and_forces(plain.system, built.positions)[0] - energy) > 1e-3
    # A system that was saved with them and is loaded again: not applied to themselves.
    again = hybrid_system(one.built, zones, potential, scheme=scheme, charges=wanted)
    np.testing.assert_allclose(charges_of(again.built), expected, atol=1e-14)


def test_reference_charges_predicted_once(tmp_path):
    """charges = "model": those of the built structure; there, predicted ones then change nothing."""
    built = quick(n_molecules=3, n_atoms=5, seed=2)
    zones = first_molecule(built, 5)
    potential = ChargedContacts(charges_of(built)[:5], 0.1)
    fixed = hybrid_system(built, zones, potential, scheme="additive", charges="model")
    expected = potential.charges(torch.tensor(built.positions[:5]), torch.tensor(built.box_vectors)).numpy()
    np.testing.assert_allclose(charges_of(fixed.built)[:5], expected, atol=1e-12)
    fixed.built.save(tmp_path)
    loaded = mlmm.BuiltSystem.load(tmp_path)
    np.testing.assert_allclose(original_charges(loaded), charges_of(built), atol=1e-14)
    resumed = hybrid_system(loaded, zones, potential, scheme="additive", charges="model")
    np.testing.assert_allclose(charges_of(resumed.built), charges_of(fixed.built), atol=1e-14)
    both = hybrid_system(
        built,
        zones,
        potential,
        scheme="additive",
        charges="model",
        electrostatics="charges",
        charge_range=1.2,
    )
    assert np.abs(state_of(both)[0]).max() < 1e-12
    moved = built.positions + np.random.default_rng(0).normal(0, 0.01, built.positions.shape)
    assert np.abs(state_of(both, moved)[0]).max() > 1e-4


def test_factors_of_exceptions_with_a_charge_of_zero():
    """The product says nothing; a pair with a well is a 1-4 pair, one without is excluded."""
    built = quick(n_molecules=1, n_atoms=5)
    charges = charges_of(built)
    charges[0] = 0.0
    tables = read_charges(built_with(built, charges).system)
    factors = exception_factors(tables)
    distance = np.abs(np.diff(tables.exception_atoms, axis=1))[:, 0]
    np.testing.assert_allclose(factors, np.where(distance == 3, 0.8333, 0.0), atol=1e-12)


def test_a_run_is_resumed_with_the_same_charges_only(tmp_path):
    from mlmm.dynamics.run_directory import RunDirectory
    from mlmm.dynamics.simulate import simulate
    from mlmm.dynamics.stages import Produce

    stages = [Produce("0.01 ps", timestep="1 fs")]
    hybrid = small("additive")
    run = simulate(hybrid, tmp_path / "run", stages, platform="Reference", report_interval=5)
    summary = RunDirectory(run.path).summary
    assert summary["embedding"]["electrostatics"] == "charges"
    run.write_summary(summary | {"state": "interrupted"})
    for other, what in (
        (small("additive", electrostatics="mechanical"), "electrostatics"),
        (small("additive", charge_range=1.2), "charge_range"),
        (small("additive", charges="model"), "reference_charges"),
    ):
        with pytest.raises(ConfigError, match=rf"got embedding\.{what} = "):
            simulate(other, run.path, stages, platform="Reference", report_interval=5, resume=True)
