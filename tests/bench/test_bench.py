"""`mlmm bench` in its quick form, and the figures that it derives."""

from __future__ import annotations

import filecmp
import json

import numpy as np
import pytest
from toys import energy_and_forces

from mlmm.bench.measure import Timing, interleaved
from mlmm.bench.report import BenchReport, Target
from mlmm.bench.systems import dipeptide_in_water, nearest_region, replicated, rigid_outside
from mlmm.bench.variants import network_flops
from mlmm.cli.program import main

ROW = {"system", "variant", "members", "ml_atoms", "atoms", "cpu_ms", "wall_ms", "wall_ms_p10", "rss_mb"}


@pytest.fixture(scope="module")
def small():
    return dipeptide_in_water(padding=0.5)


def test_quick_bench_writes_its_table_json_picture_and_page(tmp_path, capsys, monkeypatch):
    from mlmm.bench import suites

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suites, "relaxed", lambda built, *_, **__: built)
    files = ["--json", "b.json", "--plot", "b.png", "--markdown", "B.md"]
    assert main(["bench", "--quick", "--systems", "kernel", "--variants", "mlmm,mlmm-torch", *files]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "b.json").read_text())
    assert [(row["system"], row["variant"]) for row in content["rows"]] == [
        (system, variant) for system in ("kernel_22", "kernel_300") for variant in ("mlmm", "mlmm-torch")
    ]
    for row in content["rows"]:
        assert set(row) >= ROW
        assert 0 < row["cpu_ms_min"] <= row["cpu_ms"] and 0 < row["wall_ms_p10"] <= row["wall_ms"]
        assert row["cpu_ms"] > row["limit_cpu_ms"] > 0
        assert row["members"] == 8
        assert f"{row['cpu_ms']:.3g}" in printed
    page = (tmp_path / "B.md").read_text()
    assert "mlmm bench --systems kernel" in page and "![" in page and "| kernel_300 | mlmm |" in page
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_another_platform_is_timed_by_the_clock(tmp_path, capsys, monkeypatch, small):
    """Whole steps, no limits of the processor, variants of a GPU; the Reference platform stands in."""
    from mlmm.bench import suites

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suites, "relaxed", lambda built, *_, **__: built)
    monkeypatch.setattr(suites, "dipeptide_in_water", lambda **_: small)
    asked = ["--systems", "dipeptide", "--variants", "mm,mlmm-lists,mlmm-graphs", "--json", "b.json"]
    assert main(["bench", "--quick", "--platform", "Reference", *asked, "--plot", "b.png"]) == 0
    assert "platform Reference, by the clock" in capsys.readouterr().out
    content = json.loads((tmp_path / "b.json").read_text())
    assert [row["variant"] for row in content["rows"]] == ["mm", "mlmm-lists", "mlmm-graphs"]
    assert all(row["limit_cpu_ms"] is None and row["wall_ms"] > 0 for row in content["rows"])
    assert content["targets"] == [] and content["machine"]["platform"] == "Reference"


def test_variants_of_a_gpu_differ_in_lists_and_graphs_alone(small):
    """The same energy and forces."""
    from mlmm.bench.variants import load, make

    found = {}
    region = nearest_region(small, 22)
    for variant in ("mlmm-lists", "mlmm-graphs"):
        timed = make(variant, small, region, load(variant, "ani1x"))
        found[variant] = energy_and_forces(timed.system, small.positions, groups=1 << timed.ml_group)
    (energy, forces), (other, others) = found.values()
    assert other == pytest.approx(energy, rel=1e-6)
    assert np.abs(others - forces).max() < 1e-5 * np.abs(forces).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--platform", "CUDAA"], "platform = Reference"),
        (["--platform", "Reference", "--systems", "kernel"], "on platform Reference"),
    ],
)
def test_a_platform_that_is_not_there_or_a_suite_of_the_processor_is_refused(capsys, options, message):
    assert main(["bench", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--systems", "--variants"])
def test_unknown_names_are_refused_before_any_work(capsys, option):
    assert main(["bench", option, "mlmm,nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_a_peer_that_is_missing_is_skipped_by_name(monkeypatch):
    from mlmm.bench import suites

    monkeypatch.setattr(suites, "missing_peer", lambda: "torchani not installed: pip install …")
    monkeypatch.setattr(suites, "relaxed", lambda built, *_, **__: built)
    report = suites.run_bench(suites=["kernel"], variants=["openmm-ml"], quick=True)
    assert report.rows == () and "openmm-ml left out: torchani" in str(report)


def test_the_bundled_structure_is_that_of_the_systems_folder(root):
    assert filecmp.cmp(
        root / "mlmm/data/alanine_dipeptide.pdb", root / "systems/alanine_dipeptide/input.pdb", False
    )


def test_copies_side_by_side_have_the_forces_of_one_box(small):
    twice = replicated(small, (2, 1, 1))
    energy, forces = energy_and_forces(small.system, small.positions)
    double, both = energy_and_forces(twice.system, twice.positions)
    # PME's grid differs between the boxes.
    assert double == pytest.approx(2 * energy, rel=2e-4)
    assert np.abs(both.reshape(2, -1, 3) - forces).max() < 2e-3 * np.abs(forces).max()
    assert twice.topology.getNumBonds() == 2 * small.topology.getNumBonds()
    assert twice.system.getNumConstraints() == 2 * small.system.getNumConstraints()


def test_region_of_nearest_waters_is_whole_and_nearest(small):
    region = nearest_region(small, 100)
    assert 100 <= len(region) <= 102 and not region.cut_bonds
    lengths = np.diag(small.box_vectors)
    apart = small.positions[22::3][:, None] - small.positions[None, :22]
    apart -= lengths * np.round(apart / lengths)
    distance = np.linalg.norm(apart, axis=2).min(axis=1)
    inside = np.isin(np.arange(22, small.n_atoms, 3), region.atoms)
    assert distance[inside].max() <= distance[~inside].min()


def test_constraints_go_inside_and_stay_outside(small):
    flexible = dipeptide_in_water(padding=0.5, rigid=False)
    atoms = set(nearest_region(small, 60).atoms)
    mixed = rigid_outside(flexible, small, atoms).system
    pairs = [mixed.getConstraintParameters(i)[:2] for i in range(mixed.getNumConstraints())]
    assert not atoms.intersection(atom for pair in pairs for atom in pair)
    inside = sum(
        not atoms.isdisjoint(small.system.getConstraintParameters(i)[:2])
        for i in range(small.system.getNumConstraints())
    )
    assert 0 < inside == small.system.getNumConstraints() - len(pairs)


def test_operations_of_the_networks_by_hand(small, ani1x):
    # 384 in, hydrogen 160-128-96-1, oxygen 128-112-96-1; a pass forward and one back, 2 operations each.
    hydrogen = 384 * 160 + 160 * 128 + 128 * 96 + 96
    oxygen = 384 * 128 + 128 * 112 + 112 * 96 + 96
    more = nearest_region(small, 25)
    water = network_flops(ani1x, small, more) - network_flops(ani1x, small, nearest_region(small, 22))
    assert len(more) == 25 and water == 4 * 8 * (2 * hydrogen + oxygen)


def test_blocks_in_turn_find_a_task_of_twice_the_work():
    import time

    def busy(n):
        until = time.process_time() + 2e-3 * n
        while time.process_time() < until:
            pass

    found = interleaved({"one": busy, "two": lambda n: busy(2 * n)}, 3)
    assert found["two"].ratio(found["one"]) == pytest.approx(2, rel=0.1)
    assert found["one"].facts()["cpu_ms"] == pytest.approx(2, rel=0.1)


def test_ratios_are_taken_round_by_round():
    """A machine that slows down in the middle changes no ratio."""
    slow = np.array([1.0, 1.0, 5.0, 5.0, 5.0])
    one, two = Timing(slow, slow), Timing(2 * slow, 2 * slow)
    assert two.ratio(one) == 2 and two.excess(one) == 5
    assert two.fastest_ratio(one) == 2


def test_a_figure_that_is_not_reached_says_so():
    assert Target("a", 1.6, 1.5).cells()[-1] == "NO" and Target("a", 1.4, 1.5).reached
    assert Target("b", 3.6, 3.5, at_least=True).reached and not Target("b", 3.4, 3.5, at_least=True).reached
    machine = dict.fromkeys(
        (
            "processor",
            "cores",
            "load_average",
            "openmm_threads",
            "torch_threads",
            "kernel",
            "openmm",
            "torch",
            "potential",
        ),
        1,
    )
    report = BenchReport(machine | {"matrix_gflops": 1.0}, (), (Target("a", 1.6, 1.5, "x"),))
    assert "1.6 x" in str(report) and "NO" in str(report)


@pytest.mark.slow
def test_memory_does_not_grow_over_a_hundred_thousand_steps(tmp_path):
    """The dipeptide alone: what could leak is the potential and its bridge."""
    from mlmm.bench.process import in_own_process
    from mlmm.bench.systems import dipeptide_alone

    dipeptide_alone().save(tmp_path)
    found = in_own_process("mlmm", "ani1x", tmp_path, 22, 100_000)
    assert found["growth_mb"] < 5 + 2 * found["growth_error"] and found["growth_steps"] == 100_000
    assert found["rss_mb"] < 1200


def test_a_variant_that_fails_in_its_own_process_says_why(tmp_path):
    from mlmm.bench.process import in_own_process
    from mlmm.errors import SimulationError

    with pytest.raises(SimulationError, match=r"StructureError.*no file"):
        in_own_process("mlmm", "ani1x", tmp_path, 22, 1)
