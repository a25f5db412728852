"""Zeros of energy in an adaptive zone: constants on elements act by their sum over a molecule alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import openmm
import pytest
from adaptive_water import around_one, hybrid_of, relaxed_water
from toys import ForceFieldPotential, energy_and_forces

from mlmm.errors import ConfigError
from mlmm.hybrid.assemble import assemble
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials.alignment import AlignedPotential
from mlmm.units import GAS_CONSTANT
from mlmm.zones.compensation import Compensation

#: Self energies as a model trained on total energies may keep them, kJ/mol.
TOTALS = {1: -1571.3, 8: -197_043.7}


@pytest.fixture(scope="module")
def water():
    return relaxed_water()


def on_every_element(model, shifts):
    return AlignedPotential(model, {z: shifts.get(z, 0.0) for z in model.spec.elements})


@pytest.mark.parametrize("kind", ["toy", "ANI"])
def test_self_energies_of_elements_change_nothing_once_aligned(water, ani1x, kind):
    """A constant on each element is one on each kind of molecule: same forces, energy shifted by the core's.

    lambda_m (c_O + 2 c_H) − lambda_m a: the alignment of the built structure takes it out, to the rounding of
    2e5 kJ/mol. Negative control: with the alignment of the unshifted model molecules fly apart.
    """
    model = ani1x if kind == "ANI" else ForceFieldPotential(water, scale=1.2)
    zones = around_one(water)
    plain, shifted = (
        hybrid_system(water, zones, potential, scheme="per_atom", bridge="pythonforce")
        for potential in (model, on_every_element(model, TOTALS))
    )
    constant = TOTALS[8] + 2 * TOTALS[1]
    alignments = [hybrid.spec.compensation.alignment["HOH"] for hybrid in (plain, shifted)]
    assert alignments[1] - alignments[0] == pytest.approx(constant, abs=1e-8)
    (energy, forces), (other, found) = (
        energy_and_forces(hybrid.system, water.positions) for hybrid in (plain, shifted)
    )
    assert other - energy == pytest.approx(constant, abs=1e-7)
    assert np.abs(found - forces).max() < 1e-9 * np.abs(forces).max()
    wrong = dataclasses.replace(shifted.spec, compensation=plain.spec.compensation)
    _, torn = energy_and_forces(assemble(wrong).system, water.positions)
    assert np.abs(torn - forces).max() > 1e5


def test_trajectories_do_not_see_self_energies(water):
    """20 steps with and without them: the same to 1e-9 nm."""
    zones, model = around_one(water), ForceFieldPotential(water, scale=1.2)
    ends = []
    for potential in (model, on_every_element(model, TOTALS)):
        hybrid = hybrid_system(water, zones, potential, scheme="per_atom")
        context = openmm.Context(
            hybrid.system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(water.positions)
        context.setVelocitiesToTemperature(300, 4)
        context.getIntegrator().step(20)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.abs(ends[1] - ends[0]).max() < 1e-9
    assert np.abs(ends[0] - water.positions).max() > 1e-3


def test_a_compensation_of_another_zero_of_energy_is_refused(water):
    """Calibrated with isolated atoms removed, used with total energies, or the other way round."""
    zones, model = around_one(water), ForceFieldPotential(water, scale=1.2)
    totals = on_every_element(model, TOTALS)
    calibrated = Compensation({"HOH": -4.0}, facts={"potential": "force field, 1 members, float64"})
    with pytest.raises(
        ConfigError, match=r"an alignment of -4 kJ/mol where the built structure has -2001\d\d"
    ):
        hybrid_of(water, zones, totals, calibrated)
    with pytest.raises(ConfigError, match="a compensation of HOH for force field and this force field"):
        hybrid_of(water, zones, model, Compensation({"HOH": -200_000.0}))
    assert not hybrid_of(water, zones, model, calibrated).warnings
    other = dataclasses.replace(calibrated, facts={"potential": "ANI-1x"})
    assert hybrid_of(water, zones, model, other).warnings == (
        "the compensation was calibrated for ANI-1x, not for force field",
    )


def test_first_correction_without_compensation_is_bounded(water):
    """Total energies as they are, nothing calibrated: a warning with the numbers, and 0.2 ps that hold."""
    potential = on_every_element(ForceFieldPotential(water, scale=1.2), TOTALS)
    hybrid = hybrid_system(water, around_one(water), potential, scheme="per_atom")
    (warning,) = hybrid.warnings
    assert "HOH -2001" in warning and "mlmm calibrate" in warning and "zones.compensation" in warning
    integrator = openmm.LangevinMiddleIntegrator(300, 5.0, 0.0005)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(water.positions)
    context.setVelocitiesToTemperature(300, 1)
    integrator.step(400)
    kinetic = context.getState(energy=True).getKineticEnergy()._value
    assert 200 < 2 * kinetic / (3 * water.n_atoms * GAS_CONSTANT) < 400
