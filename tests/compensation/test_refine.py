"""Refinement of G(lambda) by simulations: repeatable, resumable, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toys import ForceFieldPotential

import mlmm.compensation.refine
import mlmm.compensation.refine_runs
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.compensation.refine import refine
from mlmm.errors import ConfigError, SimulationError
from mlmm.zones.compensation import Compensation

# G of this start is uneven on purpose: the first correction is not small.
START = Compensation({"HOH": 0.0}, np.array([0.0, 0.5, 1.0]), {"HOH": np.array([0.0, 3.0, -1.0])})
SHORT = {
    "plateau": "0.3 nm",
    "width": "0.2 nm",
    "walls": None,
    "density": 33.0,
    "iterations": 2,
    "length": "0.06 ps",
    "check_length": "0.08 ps",
    "equilibration": "0.01 ps",
    "sample_interval": 5,
    "weight_edges": (0.0, 0.5, 1.0),
    "knots": (0.0, 0.3, 0.7, 1.0),
    "platform": "Reference",
    "bridge": "pythonforce",
    "seed": 5,
}


@pytest.fixture(scope="module")
def bulk():
    return build_bulk_water("1.2 nm", nonbonded_cutoff="0.5 nm", hydrogen_mass="3 amu")


def refined_from(bulk, start=START, **changes):
    return refine(bulk, start, ForceFieldPotential(bulk, 1.2), **(SHORT | changes))


class Interruption:
    """Stops at the n-th message, as Ctrl-C does between two pieces."""

    def __init__(self, after: int):
        self.left, self.said = after, []

    def __call__(self, text: str) -> None:
        self.said.append(text)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(bulk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlmm.compensation.refine_runs, "_PIECE", 0.03)
        return refined_from(bulk)


def test_a_refinement_measures_corrects_and_checks(uninterrupted):
    found, iterations = uninterrupted
    assert [done.check for done in iterations] == [False, False, True]
    assert [done.profile.n_frames for done in iterations] == [6, 6, 8]
    first, second, check = (done.compensation.values["HOH"] for done in iterations)
    np.testing.assert_allclose(first, START.at_knots(SHORT["knots"]).values["HOH"])
    assert np.abs(second - first).max() > 0.01 and np.abs(check - second).max() > 0.01
    np.testing.assert_array_equal(found.values["HOH"], check)
    facts = found.facts["refinement"]
    profile = iterations[-1].profile
    assert facts["check"]["density"] == [round(float(x), 4) for x in profile.weight_density]
    assert facts["check"]["length_ps"] == 0.08 and facts["iterations"] == 2 and facts["seed"] == 5
    assert facts["check"]["flatness"] == "not flat" and found.facts["refinements"] == 2
    assert (found.errors["HOH"][1:] > 0).all()


@pytest.mark.parametrize("messages", [1, 4, 6])
def test_an_interrupted_refinement_goes_on_bit_by_bit(bulk, uninterrupted, tmp_path, monkeypatch, messages):
    """Within an iteration, after one, in the next: the same G, profiles and facts as without interruption."""
    monkeypatch.setattr(mlmm.compensation.refine_runs, "_PIECE", 0.03)
    partial = tmp_path / "a.partial.npz"
    stop = Interruption(messages)
    with pytest.raises(KeyboardInterrupt):
        refined_from(bulk, partial=partial, progress=stop)
    again = []
    found, iterations = refined_from(bulk, partial=partial, progress=again.append)
    assert again[0].startswith("going on from")
    expected, others = uninterrupted
    np.testing.assert_array_equal(found.values["HOH"], expected.values["HOH"])
    assert found.facts == expected.facts
    for done, other in zip(iterations, others, strict=True):
        np.testing.assert_array_equal(done.profile.density, other.profile.density)
        np.testing.assert_array_equal(done.profile.weight_errors, other.profile.weight_errors)
    # Nothing is left to do: a third call gives the same without a step.
    third, _ = refined_from(bulk, partial=partial, progress=again.append)
    np.testing.assert_array_equal(third.values["HOH"], expected.values["HOH"])


def test_another_seed_or_zone_is_another_refinement(bulk, uninterrupted, tmp_path):
    partial = tmp_path / "a.partial.npz"
    with pytest.raises(KeyboardInterrupt):
        refined_from(bulk, partial=partial, progress=Interruption(1))
    for changes, name in (({"seed": 6}, "seed"), ({"width": "0.15 nm"}, "width_nm")):
        with pytest.raises(ConfigError, match=rf"other {name}\. Refine with the same settings"):
            refined_from(bulk, partial=partial, **changes)
    other = dataclasses.replace(START, alignment={"HOH": 1.0})
    with pytest.raises(ConfigError, match="other start"):
        refined_from(bulk, other, partial=partial)


def test_flat_profile_ends_the_refinement_early(bulk):
    """Any density passes a tolerance of 10: one iteration, the check, and G as it was."""
    found, iterations = refined_from(bulk, tolerance=10.0)
    assert [done.check for done in iterations] == [False, True]
    np.testing.assert_array_equal(found.values["HOH"], START.at_knots(SHORT["knots"]).values["HOH"])
    assert found.facts["refinement"]["check"]["flatness"] == "flat"


def test_zero_iterations_leave_the_compensation_unchanged(bulk):
    found, (only,) = refined_from(bulk, iterations=0)
    assert only.check
    np.testing.assert_array_equal(found.values["HOH"], only.compensation.values["HOH"])
    assert "refinements" not in found.facts and found.facts["refinement"]["iterations"] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerance": 0.0}, "tolerance above 0"),
        ({"gain": 1.5}, "gain above 0 and at most 1"),
        ({"iterations": -1}, "iterations of 0 or more"),
        ({"length": "0 ps"}, "length above 0 ps"),
        ({"timestep": "0 fs"}, "timestep above 0 ps"),
        ({"plateau": "0.5 nm"}, "below half of the box, but got 0.7 nm in a box of"),
        ({"iterations": 0, "check_length": "0 ps"}, "an iteration or a check"),
        ({"density": -1.0}, "density of 0 or more"),
        ({"friction": "2 fs"}, "friction as a rate"),
        ({"iteration": 2}, "Did you mean 'iterations'"),
        ({"start": Compensation({"MOH": 0.0})}, "a start for HOH, but got one for MOH"),
    ],
)
def test_refusals_say_what_to_do(bulk, changes, message):
    with pytest.raises(ConfigError, match=message):
        refined_from(bulk, **changes)


def test_nan_positions_end_the_refinement(bulk, tmp_path):
    with pytest.raises(
        SimulationError, match=r"got (NaN|\S+ K) in iteration 1 after .* ps\. Try a smaller time step"
    ):
        refined_from(bulk, timestep="50 fs", length="5 ps", partial=tmp_path / "a.partial.npz")
    assert not list(tmp_path.iterdir())


def test_the_density_is_measured_if_it_is_not_given(bulk, monkeypatch, tmp_path):
    """Once: what goes on from a file takes it from there."""
    calls = []

    def measured(bulk, run, **arguments):
        calls.append(run.barostat_pressure)
        return 33.0

    monkeypatch.setattr(mlmm.compensation.refine, "force_field_density", measured)
    partial = tmp_path / "a.partial.npz"
    with pytest.raises(KeyboardInterrupt):
        refined_from(bulk, density=0.0, partial=partial, progress=Interruption(2))
    _, (_, last) = refined_from(bulk, density=0.0, partial=partial, iterations=1)
    assert calls == [1.0] and last.check


def test_the_force_field_has_a_density_of_its_own(bulk):
    """Flexible TIP3P in a small box, from OpenMM's 30 per nm³ and for a short time: near its 33."""
    from mlmm.compensation.calibrate import force_field_density

    found = force_field_density(bulk, density_length="8 ps", timestep="2 fs", platform="CPU", seed=1)
    assert found == pytest.approx(33.0, rel=0.1)
