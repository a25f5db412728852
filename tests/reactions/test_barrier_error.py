"""The error of a barrier of free energy: each part against what is known of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from model_surfaces import springs

import mlmm
from mlmm.reactions.barrier_error import committee_error, doubled_step, joined, point_error
from mlmm.reactions.frequencies import frequency_result
from mlmm.reactions.hessian import hessian, normal_modes
from mlmm.reactions.molecules import molecule_system
from mlmm.reactions.options import FrequencyOptions, SurfaceOptions
from mlmm.reactions.surface import Evaluation, ReactionSurface
from mlmm.reactions.surfaces import hybrid_surface, potential_surface
from mlmm.reactions.thermochemistry import thermochemistry
from mlmm.report.search_tables import search_cards, search_tables
from mlmm.report.search_verdict import judge_search
from mlmm.units import LIGHT_SPEED

TEMPERATURE = 400.0
BENT = np.array([[0.0, 0, 0], [0.15, 0, 0], [0.2, 0.14, 0], [0.3, 0.1, 0.12]])
PAIRS = [(a, b) for b in range(4) for a in range(b)]


def molecule(stiff: float = 1e5, noise: float = 0.0, seed: int = 0) -> ReactionSurface:
    """Four atoms on springs at rest, with a random error of that size on each component of a force."""
    lengths = [float(np.linalg.norm(BENT[a] - BENT[b])) for a, b in PAIRS]
    constants = [stiff * (1 + k / 10) for k in range(len(PAIRS))]
    surface = springs(BENT, [12.0, 16.0, 14.0, 1.0], PAIRS, constants, lengths)
    evaluate, random = surface.make(), np.random.default_rng(seed)

    def noisy(where, memory):
        found = evaluate(where, memory)
        return Evaluation(found.energy, found.forces + noise * random.standard_normal(where.shape))

    surface.make = lambda: noisy
    return surface


def differentiated(surface: ReactionSurface, step: float = 5e-4):
    second = hessian(surface, surface.positions, step)
    free = surface.free
    return second, normal_modes(second.matrix, surface.masses, surface.positions, free=free)


def in_its_place(force, masses, start) -> ReactionSurface:
    """Atoms that the outside holds, each component by itself: force(x) gives energy and force."""

    def evaluate(where, memory):
        energy, forces = force(where)
        return Evaluation(float(energy.sum()), forces)

    return ReactionSurface(
        numbers=np.ones(len(start), int),
        positions=np.array(start),
        masses=np.array(masses),
        make=lambda: evaluate,
        free=False,
    )


def test_noise_of_forces_becomes_the_error_of_the_free_energy():
    """Free energies of sixty noisy Hessians scatter by what each of them says of itself."""
    told, values = [], []
    for seed in range(60):
        surface = molecule(noise=0.3, seed=seed)
        second, modes = differentiated(surface)
        nothing = np.full(len(modes.wavenumbers), np.nan)
        told.append(point_error(second, modes, nothing, surface.masses, TEMPERATURE).derivatives)
        values.append(thermochemistry(modes.wavenumbers, TEMPERATURE).quasi_gibbs)
    # Sixty values know their own scatter to a tenth.
    assert np.std(values, ddof=1) == pytest.approx(np.sqrt(np.mean(np.square(told))), rel=0.3)
    surface = molecule()
    second, modes = differentiated(surface)
    nothing = np.full(len(modes.wavenumbers), np.nan)
    assert point_error(second, modes, nothing, surface.masses, TEMPERATURE).derivatives < np.mean(told) / 100


def test_twice_the_step_shows_what_is_not_quadratic():
    """E = k x²/2 + q x⁴: central differences give k + 4 q h², the check k + 16 q h²; without q the same."""
    k, step = np.array([[2e4, 5e4, 9e4]]), 2e-3
    for q in (1e7, 0.0):
        surface = in_its_place(
            lambda x, q=q: (k * x**2 / 2 + q * x**4, -k * x - 4 * q * x**3), [20.0], np.zeros((1, 3))
        )
        second, modes = differentiated(surface, step)
        doubled = doubled_step(surface, surface.positions, modes, step)
        for found, factor in ((modes.wavenumbers, 4), (doubled, 16)):
            exact = np.sqrt((k[0] + factor * q * step**2) / 20.0) / (2 * math.pi * LIGHT_SPEED)
            np.testing.assert_allclose(found, exact, rtol=1e-9)
        error = point_error(second, modes, doubled, surface.masses, TEMPERATURE)
        rises = [
            thermochemistry(np.array([b]), TEMPERATURE).quasi_gibbs
            - thermochemistry(np.array([a]), TEMPERATURE).quasi_gibbs
            for a, b in zip(modes.wavenumbers, doubled, strict=True)
        ]
        assert error.step == pytest.approx(np.linalg.norm(rises), rel=0.05, abs=1e-9)
        assert (error.step > 1e-3) == (q > 0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_force_that_is_left_is_worth_what_minimising_would_gain(sign):
    """Off a minimum, and off a saddle point, in every direction; nothing at the point itself."""
    k = np.array([[2e4, 5e4, 9e4 * sign]])
    off = np.array([[1e-3, -2e-3, 5e-4]])

    def errors(start):
        surface = in_its_place(lambda x: (k * x**2 / 2, -k * x), [20.0], start)
        second, modes = differentiated(surface)
        return point_error(second, modes, np.full(3, np.nan), surface.masses, TEMPERATURE).stationary

    assert errors(off) == pytest.approx(0.5 * (np.abs(k) * off**2).sum(), rel=1e-6)
    assert errors(np.zeros((1, 3))) == pytest.approx(0.0, abs=1e-12)


def run(stiff: float, members: list[float] | None, reference=None, **facts):
    surface = molecule(stiff)
    given = None if members is None else lambda where, memory: np.array(members)
    surface = dataclasses.replace(surface, members=given, facts=facts, indices=np.arange(4))
    second, modes = differentiated(surface)
    options = FrequencyOptions(temperatures=["300 K", "500 K"])
    return frequency_result(surface, second, modes, {}, options, reference)


def test_a_committee_says_how_far_its_members_differ_about_the_barrier():
    reactant = run(1e5, [-5.0, 1.0, 4.0, 0.0])[1]
    facts, _ = run(2e4, [10.0, 20.0, 18.0, 16.0], reactant, calibration=2.0)
    spread = np.std([15.0, 19.0, 14.0, 16.0], ddof=1)
    for row in facts["barriers"]:
        parts = row["error_parts"]
        assert parts["potential"] == pytest.approx(2.0 * spread)
        assert parts["low_modes"] == pytest.approx(abs(row["gibbs"] - row["quasi_gibbs"]))
        assert row["error"] == pytest.approx(np.linalg.norm(list(parts.values())))
    # Alone, and where all members differ by a constant of their own, there is nothing to tell.
    alone = run(2e4, None, run(1e5, None)[1])[0]["barriers"][0]
    assert "potential" not in alone["error_parts"] and alone["error"] < row["error"]
    assert committee_error(np.array([1.0, 5.0]), np.array([0.0, 4.0])) == pytest.approx(0.0)
    assert committee_error(np.array([1.0]), np.array([0.0])) is None


def test_a_page_shows_the_barrier_with_its_error_and_what_to_do_about_it():
    reactant = run(1e5, [0.0, 0.0])[1]
    for members, level in (([0.0, 20.0], "look"), ([0.0, 0.1], "ok")):
        result, _ = run(2e4, members, reactant)
        judged = {
            j.name: j
            for j in judge_search({"kind": "freq", "state": "finished", "result": result}).judgements
        }
        assert judged["barrier"].level == level
        row = result["barriers"][0]
        assert f"{row['quasi_gibbs']:.1f} ± {row['error']:.1f} kJ/mol" in judged["barrier"].finding
        assert "without the error of the method itself" in judged["barrier"].finding
        assert ("train again" in judged["barrier"].advice) == (level == "look")
    card = search_cards("freq", {}, result)[0]
    assert card[1] == f"{row['quasi_gibbs']:.1f} ± {row['error']:.1f}" and "±" in card[3]
    table = next(t for t in search_tables("freq", {}, result) if t["title"] == "Above the reactant")
    assert [cells[0] for cells in table["rows"]][5:7] == ["its error", "– second derivatives"]


def test_parts_add_in_squares():
    surface = molecule(noise=1.0)
    second, modes = differentiated(surface)
    one = point_error(second, modes, modes.wavenumbers + 1.0, surface.masses, TEMPERATURE)
    total, parts = joined((one, one), -3.0, 4.0)
    assert parts["low_modes"] == 3.0 and parts["potential"] == 4.0
    assert total**2 == pytest.approx(2 * (one.derivatives**2 + one.step**2 + one.stationary**2) + 25.0)
    assert set(joined((one, one), 0.0, None)[1]) == {"derivatives", "stationary", "low_modes"}


def test_members_of_a_potential_alone_and_in_a_hybrid(tmp_path):
    """Their mean is the energy; alone and as the whole of a system they are the same; one member has none."""
    path = tmp_path / "peroxide.xyz"
    path.write_text("4\n\nH -0.9 0.8 0.4\nO -0.72 -0.05 -0.03\nO 0.72 0.05 0.02\nH 0.95 -0.8 0.45\n")
    built = molecule_system(path)
    where = np.array(built.positions)
    two = mlmm.load_potential("ani1x", members=[0, 1], precision="float64")
    alone = potential_surface(two, built)
    members = alone.member_energies(where)
    assert len(members) == 2 and abs(members[0] - members[1]) > 1e-3
    assert members.mean() == pytest.approx(alone.evaluate(where).energy, abs=1e-6)
    zones = mlmm.hard_zones(built, mlmm.select_region(built, "all"))
    hybrid = mlmm.hybrid_system(built, zones, two, scheme="additive")
    whole = hybrid_surface(hybrid, SurfaceOptions(atoms="all"))
    np.testing.assert_allclose(np.diff(whole.member_energies(where)), np.diff(members), atol=1e-6)
    one = potential_surface(mlmm.load_potential("ani1x", members=[0], precision="float64"), built)
    assert len(one.member_energies(where)) == 0
