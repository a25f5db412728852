"""Calibration in the bulk: an unstable run ends with an error, never with numbers; options."""

from __future__ import annotations

import openmm
import pytest
from differences import ContactPotential
from toys import ForceFieldPotential

import mlmm.compensation.bulk_runs
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.compensation.calibrate import calibrate
from mlmm.dynamics.failures import check_temperature, nan_becomes_an_error
from mlmm.dynamics.options import RunOptions
from mlmm.errors import ConfigError, SimulationError
from mlmm.plugin import plugin_problem
from mlmm.potentials import load_potential
from mlmm.potentials.ani.native import instruction_set

SHORT = {"knots": (0, 1), "density_length": "0.1 ps", "equilibration": "5 fs", "length": "0.1 ps"}
SHORT |= {"sample_interval": 8, "bridge": "pythonforce"}


@pytest.fixture(scope="module")
def bulk():
    return build_bulk_water("1.2 nm", nonbonded_cutoff="0.5 nm", hydrogen_mass="3 amu")


@pytest.fixture
def few_samples(monkeypatch):
    """Such short runs have no error bars worth the name."""
    monkeypatch.setattr(mlmm.compensation.bulk_runs, "_LEAST_SAMPLES", 0)
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_potential_without_a_stable_liquid_gives_no_compensation(bulk, few_samples, tmp_path, seed):
    """Atoms of this one fall upon each other: the kinetic energy explodes, mostly without reaching NaN.

    After 0.1 ps that of seed 0 had not done so on one processor.
    """
    partial, longer = tmp_path / "partial.json", SHORT | {"length": "0.3 ps"}
    with pytest.raises(SimulationError, match=r"at lambda = 1\. Try a smaller time step"):
        calibrate(bulk, ContactPotential(), seed=seed, platform="CPU", partial=partial, **longer)
    # What was sound is kept.
    assert partial.read_text().count('"weight"') == 1


def test_options_of_a_run_are_shared(bulk, few_samples):
    """Temperature, seed and platform come from the run, time step and friction from the calibration."""
    potential = ForceFieldPotential(bulk, 1.2)
    run = RunOptions(temperature="310 K", seed=2, platform="Reference", timestep="4 fs")
    short = SHORT | {"length": "40 fs"}
    found, samples = calibrate(bulk, potential, run=run, **short)
    assert found.facts["temperature_K"] == 310.0 and found.facts["timestep_ps"] == 0.001
    again, others = calibrate(bulk, potential, temperature=310, seed=2, platform="reference", **short)
    assert samples == others and again.facts == found.facts
    for change, message in (
        ({"temprature": 1}, "Did you mean 'temperature'"),
        ({"report_interval": 1}, "'report_interval'"),
        ({"knots": (0, 0.5)}, "knots that rise from 0 to 1"),
        ({"mode": "volume"}, "mode = density"),
        ({"platform": "CUDA9"}, "CUDA9"),
    ):
        with pytest.raises(ConfigError, match=message):
            calibrate(bulk, potential, run=run, **(short | change))


def test_exploding_temperature_is_detected():
    system = openmm.System()
    for mass in (1.0, 16.0, 0.0):
        system.addParticle(mass)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    # 0.5 m v² = 150 kJ/mol over six degrees of freedom: 6014 K.
    for speed, hot in ((0.0, False), (300.0**0.5, True), (float("nan"), True)):
        context.setVelocities([[speed, 0, 0], [0, 0, 0], [0, 0, 0]])
        if hot:
            with pytest.raises(SimulationError, match=r"got (6014|6\.01e\+03|nan) K here"):
                check_temperature(context, 300.0, "here")
        else:
            check_temperature(context, 300.0, "here")
    with pytest.raises(SimulationError, match="NaN here"), nan_becomes_an_error("here"):
        raise openmm.OpenMMException("Particle coordinate is NaN.")
    with pytest.raises(openmm.OpenMMException, match="another"), nan_becomes_an_error("here"):
        raise openmm.OpenMMException("another problem")


def test_the_native_bridge_calibrates_as_python_does(bulk, few_samples, monkeypatch):
    """Every molecule with one lambda, by the plugin without torch; it is taken by itself."""
    monkeypatch.delenv("MLMM_KERNEL", raising=False)
    if plugin_problem() is not None or instruction_set() is None:
        pytest.skip("the plugin or the kernels were not built")
    bulk = build_bulk_water("1.2 nm", nonbonded_cutoff="0.55 nm", hydrogen_mass="3 amu")
    potential = load_potential("ani1x", members=[0], precision="float64", kernel="native")
    short, seen = SHORT | {"knots": (0, 0.5, 1), "length": "40 fs", "seed": 3, "platform": "Reference"}, []
    real = mlmm.compensation.bulk_runs.join

    def watched(spec, *rest):
        seen.append(spec.bridge)
        return real(spec, *rest)

    monkeypatch.setattr(mlmm.compensation.bulk_runs, "join", watched)
    found, samples = calibrate(bulk, potential, **(short | {"bridge": "auto"}))
    other, others = calibrate(bulk, potential, **(short | {"bridge": "pythonforce"}))
    assert seen == ["native"] * 2 + ["pythonforce"] * 2
    assert found.alignment["HOH"] == pytest.approx(other.alignment["HOH"], rel=1e-6)
    for one, two in zip(samples, others, strict=True):
        assert one.difference == pytest.approx(two.difference, rel=1e-6)
    assert abs(samples[0].difference - samples[2].difference) > 0.1
