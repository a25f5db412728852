"""Zones of every kind from run file to record: what is built, written by frame, resumed and shown."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal

import numpy as np
import openmm
import pytest
import torch
from differences import ContactPotential
from toys import ForceFieldPotential, chains, reference_context

import mlmm
from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.cli.program import main
from mlmm.config.load import load_config
from mlmm.config.objects import describe, hybrid_from, resolved, zones_from
from mlmm.dynamics.imaging import RegionImages
from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Produce
from mlmm.dynamics.trajectory import LambdaTable
from mlmm.errors import ConfigError, PotentialError, SelectionError
from mlmm.forcefield.reference_platform import forces_of, potential_of
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import finite_difference_error
from mlmm.zones.adaptive import AdaptiveZones, adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms, select_region

pytestmark = pytest.mark.usefixtures("kernels_by_default")


class Toy(ContactPotential):
    """With a TorchScript form for chosen atoms, too."""

    def scriptable(self, numbers, centres=None):
        module = super().scriptable(numbers)
        if centres is not None:
            module.all_atoms = torch.tensor(list(centres))
        return module


@pytest.fixture
def configured(root):
    """The dipeptide's run file with other settings."""

    def loaded(*overrides: str):
        return load_config(root / "systems/alanine_dipeptide/run.toml", ["potential.members=[0]", *overrides])

    return loaded


@pytest.fixture(scope="module")
def water():
    """57 flexible waters."""
    return build_bulk_water("1.2 nm", nonbonded_cutoff="0.55 nm")


def moving_hybrid(built, compensation=None):
    region = region_from_atoms(built.topology, range(3), "molecule")
    zones = adaptive_zones(built, region, "0.2 nm", "0.25 nm")
    return hybrid_system(built, zones, Toy(), compensation=compensation or Compensation({"HOH": 1.0}))


# --- what a run file makes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "scheme", "setup"),
    [
        ((), "additive", {"kind": "hard"}),
        (
            (),
            "per_atom",
            {"kind": "static", "plateau": "0.3 nm", "width": "0.2 nm", "snap": "residue", "shape": "skin"},
        ),
        (("zones.kind=hard",), "per_atom", {"kind": "hard"}),
        (
            ("zones.kind=static", "zones.plateau=2 bonds", "zones.width=2 bonds", "zones.snap=hydrogen"),
            "per_atom",
            {"kind": "static", "plateau": "2 bonds", "width": "2 bonds", "snap": "hydrogen", "shape": "skin"},
        ),
        (
            ("zones.kind=static", "zones.shape=sphere", "zones.plateau=0.6 nm"),
            "per_atom",
            {
                "kind": "static",
                "plateau": "0.6 nm",
                "width": "0.2 nm",
                "snap": "residue",
                "shape": "sphere",
            },
        ),
        (
            (
                "zones.kind=residues",
                'zones.residues={"resid 5" = 0.5, "resid 7" = 0.25}',
            ),
            "per_atom",
            {
                "kind": "residues",
                "snap": "residue",
                "plateau": "the region",
                "lambda of resid 5": "0.5",
                "lambda of resid 7": "0.25",
            },
        ),
        (
            ("zones.kind=adaptive", "zones.centre=name CB", "zones.plateau=0.3 nm"),
            "per_atom",
            {
                "kind": "adaptive",
                "plateau": "0.3 nm",
                "width": "0.5 nm",
                "molecules": "HOH",
                "walls": "0.125 nm",
                "centre": "1 atoms",
            },
        ),
    ],
)
def test_zones_of_a_run_file(configured, dipeptide_water, overrides, scheme, setup):
    config = configured(*overrides)
    region = select_region(dipeptide_water, config.region.select, config.region.complete)
    zones = zones_from(config, dipeptide_water, region, scheme)
    assert dict(zones.setup) == setup
    assert isinstance(zones, AdaptiveZones) == (setup["kind"] == "adaptive")
    if setup["kind"] == "residues":
        assert set(zones.transition_weights) == {0.5, 0.25}
    if setup["kind"] == "adaptive":
        name = [atom.name for atom in dipeptide_water.topology.atoms()][zones.centres[0]]
        assert name == "CB"


def test_sizes_do_not_go_with_a_hard_region(configured, dipeptide_water):
    config = configured("zones.width=0.2 nm")
    region = select_region(dipeptide_water, config.region.select)
    with pytest.raises(ConfigError, match="under scheme 'additive', whose region is hard, but got width"):
        zones_from(config, dipeptide_water, region, "additive")
    config = configured("zones.kind=adaptive", "zones.centre=name O")
    with pytest.raises(SelectionError, match=r"zones\.centre inside the region"):
        zones_from(config, dipeptide_water, region, "per_atom")


def test_auto_is_resolved_for_the_record(configured, dipeptide_water, tmp_path):
    """What came out is written down, so that a resumed run does not depend on defaults or on the machine."""
    import tomli_w

    config = configured("embedding.scheme=auto", "zones.plateau=0 nm")
    hybrid = hybrid_from(config, dipeptide_water)
    written = resolved(config, hybrid)
    assert written.embedding.scheme == hybrid.scheme == "per_atom"
    sizes = {"plateau": "0 nm", "width": "0.2 nm"}
    assert written.zones.given() == {
        "kind": "static",
        **sizes,
        "snap": "residue",
        "shape": "skin",
    }
    (tmp_path / "resolved.toml").write_text(tomli_w.dumps(written.as_dict()))
    assert load_config(tmp_path / "resolved.toml") == written
    text = describe(hybrid)
    assert "scheme per_atom (by default: a zone of kind static is asked for), bridge native" in text
    assert "static: plateau 0 nm, width 0.2 nm, snap residue, shape skin" in text


def test_the_tail_needs_its_scheme(configured, dipeptide_water):
    config = configured("embedding.scheme=auto", "embedding.mm_tail=true")
    hybrid = hybrid_from(config, dipeptide_water)
    assert (hybrid.scheme, hybrid.spec.scheme_reason) == ("additive", "mm_tail = true needs it")
    config = configured("embedding.scheme=per_atom", "embedding.mm_tail=true")
    with pytest.raises(ConfigError, match="mm_tail"):
        hybrid_from(config, dipeptide_water)


def test_charge_and_multiplicity_of_the_region(configured, dipeptide_water, monkeypatch):
    """From the run file to what the potential is told."""
    import mlmm.potentials

    told = configured("region.charge=-1", "region.multiplicity=3")
    with pytest.raises(
        PotentialError, match=r"neutral molecules alone, but got charge -1 and multiplicity 3\."
    ):
        hybrid_from(told, dipeptide_water)
    toy = Toy(trained_on="isolated")
    toy.spec = dataclasses.replace(toy.spec, spins=True)
    monkeypatch.setattr(mlmm.potentials, "load_potential", lambda *_, **__: toy)
    hybrid = hybrid_from(told, dipeptide_water)
    structure = hybrid.region_structure(dipeptide_water.positions)
    assert (structure.charge, structure.spin) == (-1, 3)
    assert any("charge -1 of the region is not the force field's +0" in text for text in hybrid.warnings)
    structure = hybrid_from(configured(), dipeptide_water).region_structure(dipeptide_water.positions)
    assert (structure.charge, structure.spin) == (0, 1)


def test_zone_counts_follow_the_built_structure(water):
    hybrid = moving_hybrid(water)
    weights = hybrid.zones.weights(torch.tensor(water.positions), torch.tensor(water.box_vectors)).numpy()
    counts = hybrid.zone_counts()
    assert (
        counts["core"] == (weights == 1).sum()
        and counts["transition"] == ((weights > 0) & (weights < 1)).sum()
    )
    assert counts["transition"] > 0 and sum(counts.values()) == water.n_atoms


# --- finite differences -------------------------------------------------------------------------------


def test_a_pair_at_the_cutoff_does_not_fail_the_check():
    """The force field's energy jumps there; what the hybrid adds does not."""
    built = chains(n_molecules=2, n_atoms=4, seed=2)
    for force in built.system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setEwaldErrorTolerance(1e-3)  # a coarse mesh, quick
    positions = np.array(built.positions)
    direction = positions[5] - positions[1]
    # Atom 5 of the surroundings half a displacement beyond the cutoff of atom 1 of the region.
    positions[4:] += direction / np.linalg.norm(direction) * (1.0 + 2e-6) - direction
    built = mlmm.BuiltSystem.from_openmm(built.topology, built.system, positions)
    zones = mlmm.hard_zones(built, region_from_atoms(built.topology, range(4)))
    hybrid = hybrid_system(built, zones, Toy(trained_on="isolated"), scheme="additive")
    coordinates = 12
    assert finite_difference_error(hybrid, n_coordinates=coordinates, delta=1e-5) < 1e-6
    context = reference_context(hybrid.system)
    forces = forces_of(context, positions)
    along = direction / np.linalg.norm(direction)
    energies = []
    for sign in (1, -1):
        moved = positions.copy()
        moved[1] += sign * 1e-5 * along
        energies.append(potential_of(context, moved))
    jump = abs(-(energies[0] - energies[1]) / 2e-5 - forces[1] @ along) / np.abs(forces).max()
    assert jump > 1e-6  # negative control: the whole energy would fail


def test_finite_differences_reach_the_moving_molecules(water, monkeypatch):
    """A zone without the force of lambda is found out; only coordinates of passing molecules can tell."""
    hybrid = moving_hybrid(water, Compensation({"HOH": 300.0}))
    assert finite_difference_error(hybrid, n_coordinates=12) < 1e-6
    from mlmm.forcefield.remove_terms import remove_zone_pairs
    from mlmm.hybrid.assemble import join

    spec = dataclasses.replace(hybrid.spec, bridge="pythonforce")
    blend = hybrid.blend
    blend.weight_forces = False
    system, embedding = remove_zone_pairs(water.system, hybrid.zones.core)
    wrong = dataclasses.replace(hybrid, assembled=join(spec, system, embedding, blend))
    assert finite_difference_error(wrong, n_coordinates=12) > 1e-3


# --- what a run writes --------------------------------------------------------------------------------


def test_a_run_with_a_moving_zone_and_its_resumption(water, tmp_path):
    """Molecules by row, lambda by frame and in the last structure; resumed: the same bytes."""
    hybrid = moving_hybrid(water)
    settings = {"seed": 3, "platform": "Reference", "report_interval": 5, "trajectory_interval": 5}
    settings |= {"checkpoint_interval": 10}
    stages = [Produce("20 fs", timestep="0.5 fs")]
    whole = simulate(hybrid, tmp_path / "whole", stages, **settings)
    rows = list(csv.DictReader(whole.file("energies.csv").read_text().splitlines()))
    frames = np.load(whole.file("lambda.npy"))
    assert frames.shape == (8, water.n_atoms) and frames.dtype == np.float32
    for row, frame in zip(rows, frames, strict=True):
        solvent = frame[3::3].astype(float)
        assert float(row["zone_molecules"]) == (solvent > 0).sum() > 0
        assert float(row["zone_lambda"]) == pytest.approx(solvent.sum(), abs=1e-5)
    assert (frames[0] != frames[-1]).any() and (frames[:, :3] == 1).all()
    text = whole.file("final.pdb").read_text().splitlines()
    factors = np.array([float(line[60:66]) for line in text if line.startswith(("ATOM", "HETATM"))])
    np.testing.assert_allclose(factors, frames[-1], atol=0.006)  # the column has two decimals

    def stop(progress):
        if progress.done >= 20:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        simulate(hybrid, tmp_path / "run", stages, progress=stop, **settings)
    stopped = np.load(tmp_path / "run/lambda.npy")
    assert 4 <= len(stopped) < 8
    resumed = simulate(hybrid, tmp_path / "run", stages, resume=True, **settings)
    for name in ("energies.csv", "lambda.npy"):
        assert resumed.file(name).read_bytes() == whole.file(name).read_bytes(), name


def test_resumption_with_another_compensation_is_refused(water, tmp_path):
    def stop(progress):
        if progress.done >= 4:
            signal.raise_signal(signal.SIGTERM)

    settings = {"platform": "Reference", "report_interval": 4}
    stages = [Produce("20 fs", timestep="0.5 fs")]
    with pytest.raises(SystemExit):
        simulate(moving_hybrid(water), tmp_path / "run", stages, progress=stop, **settings)
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert facts["embedding"]["compensation"]["alignment"] == {"HOH": 1.0}
    assert facts["zone_setup"]["kind"] == "adaptive" and facts["embedding"]["mm_side"] == "torch"
    assert sum(facts["histogram"]["atoms"]) == facts["zones"]["core"] + facts["zones"]["transition"]
    with pytest.raises(ConfigError, match=r"got embedding\.compensation = "):
        other = moving_hybrid(water, Compensation({"HOH": 2.0}))
        simulate(other, tmp_path / "run", stages, resume=True, **settings)
    region = region_from_atoms(water.topology, range(3), "molecule")
    wider = adaptive_zones(water, region, "0.2 nm", "0.2501 nm")
    other = hybrid_system(water, wider, Toy(), compensation=Compensation({"HOH": 1.0}))
    with pytest.raises(ConfigError, match=r"zones\.width = 0\.2501"):
        simulate(other, tmp_path / "run", stages, resume=True, **settings)


def test_lambda_table_is_cut_and_gone_on_with(water, tmp_path):
    zones = moving_hybrid(water).zones
    frames = [water.positions + 0.01 * k for k in range(3)]
    for positions in frames[1:]:
        positions[::7] += 0.05
    whole, cut = tmp_path / "whole.npy", tmp_path / "cut.npy"
    for path in (whole, cut):
        table = LambdaTable(path, zones)
        assert np.load(path).shape == (0, water.n_atoms)
        for positions in frames:
            table.write(positions, water.box_vectors)
        table.close()
    table = LambdaTable(cut, zones, resume_at=1)
    for positions in frames[1:]:
        table.write(positions, water.box_vectors)
    table.close()
    assert cut.read_bytes() == whole.read_bytes()
    for row, positions in zip(np.load(whole), frames, strict=True):
        expected = zones.weights(torch.tensor(positions), torch.tensor(water.box_vectors)).numpy()
        np.testing.assert_allclose(row, expected, atol=1e-7)


def test_lambda_of_the_last_structure_minds_the_box(water):
    """Gathered around the region or not, the nearest image counts."""
    hybrid = moving_hybrid(water)
    gathered = RegionImages(water.topology, hybrid.zones.region.atoms).gather(
        np.array(water.positions), np.array(water.box_vectors)
    )
    box = torch.tensor(water.box_vectors)
    weights = [hybrid.zones.weights(torch.tensor(x), box) for x in (water.positions, gathered)]
    assert torch.allclose(*weights, atol=1e-12)


# --- the verb calibrate -------------------------------------------------------------------------------


CALIBRATE = ["--edge", "1.4 nm", "--knots", "0,1", "--density-length", "0.1 ps", "--equilibration", "5 fs"]
CALIBRATE += ["--length", "0.1 ps", "--sample-interval", "8"]


@pytest.fixture(scope="module")
def bound():
    """The force field of the box that the verb builds, times 1.2: a liquid that stays one at every lambda."""
    return ForceFieldPotential(build_bulk_water("1.4 nm", nonbonded_cutoff="0.616 nm"), 1.2)


@pytest.fixture
def bound_for_ani(monkeypatch, bound):
    import mlmm.potentials

    monkeypatch.setattr(mlmm.potentials, "load_potential", lambda *_, **__: bound)


def test_calibrate_writes_a_file_that_a_run_file_takes(root, tmp_path, capsys, bound_for_ani, monkeypatch):
    """Interrupted after the first lambda, it goes on from there; the file and the picture lie beside."""
    import mlmm.compensation.bulk_runs as bulk_runs

    # Such a short run has no error bars worth the name; what happens to its numbers is the same.
    monkeypatch.setattr(bulk_runs, "_LEAST_SAMPLES", 1)
    monkeypatch.setenv("OPENMM_CPU_THREADS", "1")
    run_file = tmp_path / "run.toml"
    text = (root / "systems/alanine_dipeptide/run.toml").read_text()
    run_file.write_text(text.replace("input.pdb", str(root / "systems/alanine_dipeptide/input.pdb")))
    out = tmp_path / "water.json"
    command = [
        "calibrate",
        str(run_file),
        "--out",
        str(out),
        *CALIBRATE,
        "--set",
        "potential.bridge=pythonforce",
    ]
    sample, calls = bulk_runs.BulkRuns.sample, []

    def interrupted(self, spec, weight, *rest):
        calls.append(weight)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(self, spec, weight, *rest)

    monkeypatch.setattr(bulk_runs.BulkRuns, "sample", interrupted)
    assert main(command) == 130
    assert calls == [0.0, 1.0] and not out.exists() and (tmp_path / "water.partial.json").exists()
    assert "each is kept in" in capsys.readouterr().err
    assert main([*command, "--timestep", "0.5 fs"]) == 2
    assert "other timestep_ps. Calibrate with the same settings" in capsys.readouterr().err
    assert main(command) == 0
    printed = capsys.readouterr()
    assert calls == [0.0, 1.0, 1.0] and "1 lambdas are done" in printed.err
    assert "<Delta>" in printed.err and " bar" in printed.err
    assert 'compensation = "water.json"' in printed.out
    assert not (tmp_path / "water.partial.json").exists()
    assert (tmp_path / "water.png").stat().st_size > 5000
    compensation = Compensation.load(out)
    first, last = compensation.facts["samples"]
    # Two knots: the trapezium of <Delta> and the pressure term.
    expected = 0.5 * (first["difference"] + last["difference"])
    expected += (last["pressure"] - first["pressure"]) * 0.0602214076 / first["density"]
    assert compensation.alignment["HOH"] == pytest.approx(expected, rel=1e-9)
    assert compensation.facts["mode"] == "density" and compensation.facts["molecules"] > 50
    assert main(command) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    run_file.write_text(
        run_file.read_text().replace('scheme = "additive"', 'scheme = "per_atom"')
        + '\n[zones]\nkind = "adaptive"\ncompensation = "water.json"\n'
    )
    assert load_config(run_file).zones.compensation == str(out.resolve())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "water.txt"], "--out FILE.json in a folder that exists"),
        (["--out", "nowhere/water.json"], "--out FILE.json in a folder that exists"),
        (["--out", "water.json", "--knots", "0;1"], "--knots as numbers with commas"),
        (["--out", "water.json", "--knots", "0,0.5"], "knots that rise from 0 to 1"),
        (["--out", "water.json", "--edge", "1.4"], "without a unit"),
    ],
)
def test_calibrate_refuses_before_it_works(
    root, tmp_path, monkeypatch, capsys, bound_for_ani, arguments, message
):
    monkeypatch.chdir(tmp_path)
    run_file = str(root / "systems/alanine_dipeptide/run.toml")
    assert main(["calibrate", run_file, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))
