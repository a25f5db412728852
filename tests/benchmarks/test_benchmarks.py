"""The benchmark program in its quick form, peers that fail, and the systems that it times."""

from __future__ import annotations

import json

import numpy as np
import openmm
import pytest
import torch
from toys import energy_and_forces

from benchmarks import gpu, hydration, suites, variants
from benchmarks.process import in_own_process
from benchmarks.report import BenchReport, Target
from benchmarks.run import main
from benchmarks.systems import (
    dipeptide_alone,
    dipeptide_in_water,
    nearest_region,
    replicated,
    rigid_outside,
)
from mlmm.errors import MissingPackageError, SimulationError

NAMES = {openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())}
ROW = {"system", "variant", "members", "ml_atoms", "atoms", "cpu_ms", "wall_ms", "wall_ms_p10", "rss_mb"}


@pytest.fixture(scope="module")
def small():
    return dipeptide_in_water(padding=0.5)


@pytest.fixture
def in_a_hurry(monkeypatch, tmp_path):
    """The built structure without a relaxation, and a folder to write into."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(suites, "relaxed", lambda built, *_, **__: built)


def test_quick_run_writes_its_table_json_picture_and_page(tmp_path, capsys, in_a_hurry):
    files = ["--json", "b.json", "--plot", "b.png", "--markdown", "B.md"]
    assert main(["--quick", "--systems", "kernel", "--variants", "mlmm,mlmm-torch", *files]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "b.json").read_text())
    assert [(row["system"], row["variant"]) for row in content["rows"]] == [
        (system, variant) for system in ("kernel_22", "kernel_300") for variant in ("mlmm", "mlmm-torch")
    ]
    for row in content["rows"]:
        assert set(row) >= ROW
        assert 0 < row["cpu_ms_min"] <= row["cpu_ms"] and 0 < row["wall_ms_p10"] <= row["wall_ms"]
        assert row["members"] == 8
        assert f"{row['cpu_ms']:.3g}" in printed
    page = (tmp_path / "B.md").read_text()
    assert "python tests/benchmarks/run.py --systems kernel" in page
    assert "![" in page and "| kernel_300 | mlmm |" in page
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_another_platform_is_timed_by_the_clock(tmp_path, capsys, monkeypatch, small, in_a_hurry):
    """Whole steps and variants of a GPU; the Reference platform stands in."""
    monkeypatch.setattr(suites, "dipeptide_in_water", lambda **_: small)
    asked = ["--systems", "dipeptide", "--variants", "mm,mlmm-lists,mlmm-graphs", "--json", "b.json"]
    assert main(["--quick", "--platform", "Reference", *asked, "--plot", "b.png"]) == 0
    assert "platform Reference, by the clock" in capsys.readouterr().out
    content = json.loads((tmp_path / "b.json").read_text())
    assert [row["variant"] for row in content["rows"]] == ["mm", "mlmm-lists", "mlmm-graphs"]
    assert all(row["wall_ms"] > 0 for row in content["rows"])
    assert content["targets"] == [] and content["machine"]["platform"] == "Reference"


def test_variants_of_a_gpu_differ_in_lists_and_graphs_alone(small):
    """Both give one energy and one set of forces."""
    found = {}
    region = nearest_region(small, 22)
    for variant in ("mlmm-lists", "mlmm-graphs"):
        timed = variants.make(variant, small, region, variants.load(variant, "ani1x"))
        found[variant] = energy_and_forces(timed.system, small.positions, groups=1 << timed.ml_group)
    (energy, forces), (other, others) = found.values()
    assert other == pytest.approx(energy, rel=1e-6)
    assert np.abs(others - forces).max() < 1e-5 * np.abs(forces).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--platform", "CUDAA"], "platform = Reference"),
        (["--platform", "Reference", "--systems", "kernel"], "on platform Reference"),
        (["--systems", "kernel,nonsense"], "nonsense"),
        (["--variants", "mlmm,nonsense"], "nonsense"),
        (["--plot", "cost.txt"], "cost.txt"),
        (["--growth", "-1"], "negative"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_any_work(capsys, options, message):
    assert main(options) == 2
    assert message in capsys.readouterr().err


class NaNPeer(torch.nn.Module):
    """Stands in for torchani; its energy is not a number."""

    def forward(self, species_and_positions, **_):
        species, positions = species_and_positions
        return species, torch.nan * positions.square().sum().reshape(1)


class HungryPeer(torch.nn.Module):
    """Asks for more memory than any machine has."""

    def forward(self, species_and_positions, **_):
        return torch.zeros(2**60)


def missing(*_):
    raise MissingPackageError("OpenMM-ML with torchani", "torchani not installed", "pip install torchani")


@pytest.mark.parametrize(
    ("peer", "why"),
    [
        (lambda *_: NaNPeer(), "nan"),
        (lambda *_: HungryPeer(), "RuntimeError"),
        (missing, "pip install torchani"),
    ],
    ids=["nan", "memory", "missing"],
)
def test_a_peer_that_fails_loses_its_row_and_no_other(monkeypatch, capsys, in_a_hurry, peer, why):
    monkeypatch.setattr(variants, "torchani_model", peer)
    monkeypatch.setattr(suites, "missing_peer", lambda: None)
    report = suites.run_suites(suites=["kernel"], variants=["mlmm", "openmm-ml"], quick=True)
    assert {row["variant"] for row in report.rows} == {"mlmm"} and len(report.rows) == 2
    assert [lost[:2] for lost in report.lost] == [("kernel_22", "openmm-ml"), ("kernel_300", "openmm-ml")]
    assert all(why in lost[2] for lost in report.lost)
    assert "kernel_22: openmm-ml is left out: " in str(report)
    assert report.own_failures == [] and report.targets == ()


def test_a_peer_whose_step_gives_nan_loses_its_row(monkeypatch, in_a_hurry, small):
    def exploding(built, *_):
        import openmm

        system = openmm.XmlSerializer.clone(built.system)
        force = openmm.CustomExternalForce("sqrt(-1-x^2)")
        force.addParticle(0, [])
        system.addForce(force)
        return system

    monkeypatch.setattr(variants, "openmm_ml_system", exploding)
    monkeypatch.setattr(suites, "missing_peer", lambda: None)
    monkeypatch.setattr(suites, "dipeptide_in_water", lambda **_: small)
    report = suites.run_suites(suites=["dipeptide"], variants=["mm", "openmm-ml"], quick=True)
    assert [row["variant"] for row in report.rows] == ["mm"]
    assert report.lost[0][:2] == ("alanine_dipeptide", "openmm-ml") and "NaN" in report.lost[0][2]


def test_a_peer_that_is_not_installed_is_named_before_any_work(monkeypatch, in_a_hurry):
    monkeypatch.setattr(suites, "missing_peer", lambda: "torchani not installed: pip install …")
    report = suites.run_suites(suites=["kernel"], variants=["openmm-ml"], quick=True)
    assert report.rows == () and "openmm-ml is left out: torchani" in str(report)


def test_a_variant_of_the_project_that_fails_ends_with_exit_status_1(monkeypatch, capsys, in_a_hurry):
    def broken(name, *arguments):
        raise SimulationError("a kernel", "none", "build it")

    monkeypatch.setattr(suites, "bare_call", broken)
    assert main(["--quick", "--systems", "kernel", "--variants", "mlmm"]) == 1
    assert "Build it" in capsys.readouterr().out


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
    report = BenchReport(machine, (), (Target("a", 1.6, 1.5, "x"),))
    assert "1.6 x" in str(report) and "NO" in str(report)


@pytest.mark.skipif("CUDA" in NAMES, reason="there is a GPU")
def test_gpu_program_without_a_gpu_says_what_is_missing(capsys):
    assert gpu.main([]) == 2
    assert "Expected OpenMM's platform CUDA, but got Reference" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif("OpenCL" not in NAMES, reason="no OpenCL driver: tests/README.md says how to have one")
def test_gpu_program_runs_on_opencl_and_tells_a_wrong_force(capsys, monkeypatch):
    """In its quick form, on whatever device that is."""
    assert gpu.main(["OpenCL", "--quick"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "native" in line]
    assert len(rows) == 2 and all(float(row.split("|")[-2]) > 1.0 for row in rows)
    monkeypatch.setattr(gpu, "force_error", lambda *_: 1e-3)
    monkeypatch.setattr(gpu, "timed", lambda *_: (1.0, 1.0))
    assert gpu.main(["OpenCL", "--quick"]) == 1


@pytest.mark.slow
def test_memory_does_not_grow_over_a_hundred_thousand_steps(tmp_path):
    """The dipeptide alone: what could leak is the potential and its bridge."""
    dipeptide_alone().save(tmp_path)
    found = in_own_process("mlmm", "ani1x", tmp_path, 22, 100_000)
    assert found["growth_mb"] < 5 + 2 * found["growth_error"] and found["growth_steps"] == 100_000
    assert found["rss_mb"] < 1200


def test_a_variant_that_fails_in_its_own_process_says_why(tmp_path):

    with pytest.raises(SimulationError, match=r"StructureError.*no file"):
        in_own_process("mlmm", "ani1x", tmp_path, 22, 1)


def test_distribution_of_an_ideal_gas_is_one_and_a_shell_is_found():
    """Points without interaction: g = 1, number = 4/3 pi r^3 density; a shell of six is counted as six."""
    generator, density, box = np.random.default_rng(1), 30.0, 2.0
    edges = hydration.WIDTH * np.arange(round(hydration.FARTHEST / hydration.WIDTH) + 1)
    points = generator.uniform(-box / 2, box / 2, (400, round(density * box**3), 3))
    counts = np.array([np.histogram(np.linalg.norm(frame, axis=1), edges)[0] for frame in points])
    g, number = hydration.distribution(counts, np.full(400, density), 1)
    inside = 4 / 3 * np.pi * density * edges[1:] ** 3
    assert abs(g[100:].mean() - 1) < 0.01 and abs(number[-1] / inside[-1] - 1) < 0.01
    middle = edges[:-1] + hydration.WIDTH / 2
    shell = 6 * np.exp(-(((middle - 0.28) / 0.01) ** 2) / 2)
    shell *= 6 / shell.sum()
    outside = np.where(middle > 0.36, np.diff(4 / 3 * np.pi * density * edges**3), 0.0)
    g, number = hydration.distribution((shell + outside)[None], np.array([density]), 1)
    peak, minimum = hydration.first_shell(g)
    assert middle[peak] == pytest.approx(0.28, abs=0.003) and number[minimum] == pytest.approx(6, abs=0.01)
