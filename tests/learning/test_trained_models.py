"""A trained file is a potential like any other: kernel, plugin, schemes, uncertainty, lists, bases."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import openmm
import pytest
import torch
from labelled_molecules import by_potential, shaken, springs
from safetensors.numpy import load_file
from toys import energy_and_forces as hybrid_energy_and_forces

from mlmm.cli.program import main
from mlmm.dynamics.uncertainty import UncertaintyMonitor, measure_uncertainty
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.system import hybrid_system
from mlmm.learning.active.backends import TrainedModel
from mlmm.learning.active.measure import measure
from mlmm.learning.training.base import minus_base
from mlmm.learning.training.config import DataOptions, ModelOptions, TrainConfig
from mlmm.learning.training.options import FitOptions, KernelOptions, NetworkOptions
from mlmm.learning.training.train import Divided, train_model
from mlmm.learning.uncertainty.calibrate import with_coverage
from mlmm.plugin import plugin_problem
from mlmm.potentials import load_potential
from mlmm.potentials.ani.files import load_ani_file, save_ani_file
from mlmm.potentials.ani.native import instruction_set
from mlmm.potentials.base import energy_and_forces
from mlmm.potentials.calibration import Calibration
from mlmm.potentials.difference import DifferencePotential
from mlmm.potentials.training import check_training
from mlmm.reference.labels import Molecule
from mlmm.structures import Structure
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones

QUICK = FitOptions(epochs=2, batch=4)
NETWORKS = NetworkOptions(start="ani1x", members=2)


def config_of(**facts):
    model = {"name": "trained", "trained_on": "total", "licence": "CC0"} | facts
    return TrainConfig(
        data=DataOptions(labels="made.xyz"),
        model=ModelOptions(**model),
        networks=NETWORKS,
        kernel=KernelOptions(),
        fit=QUICK,
    )


@pytest.fixture(scope="module")
def frames(dipeptide_vacuum):
    """Alanine dipeptide, shaken."""
    numbers = np.array([atom.element.atomic_number for atom in dipeptide_vacuum.topology.atoms()])
    random = np.random.default_rng(0)
    places = dipeptide_vacuum.positions
    return [Molecule(numbers, places + 0.004 * random.standard_normal(places.shape)) for _ in range(22)]


@pytest.fixture(scope="module")
def trained(frames, tmp_path_factory):
    """Two networks of ANI-1x, two epochs towards ANI-1x's last four."""
    teacher = load_potential("ani1x", members=[4, 5, 6, 7])
    samples = [(molecule, by_potential(teacher, molecule)) for molecule in frames]
    path = tmp_path_factory.mktemp("trained") / "trained.safetensors"
    return train_model(config_of(), Divided(samples[:10], samples[10:16], samples[16:]), path)


def whole_of(built):
    return region_from_atoms(built.topology, range(22), "molecule")


def structure_of(molecule):
    return Structure(torch.tensor(molecule.numbers), torch.tensor(molecule.positions))


def test_the_file_says_what_it_is(trained, frames, capsys, monkeypatch):
    """Spec, metrics, hash and licence; listed and loaded by its name from a folder of models."""
    spec = load_potential(str(trained.path)).spec
    assert (spec.name, spec.trained_on, spec.trained_charges, spec.members) == ("trained", "total", (0,), 2)
    assert spec.elements == (1, 6, 7, 8) and "CC0 (start: ANI-1x, MIT)" in spec.licence
    assert isinstance(spec.calibration, Calibration) and spec.calibration.tested == 6
    facts = load_ani_file(trained.path)[1]
    assert len(facts["training"]["data_sha256"]) == 64 and facts["metrics"]["held out"]["force"] > 0
    monkeypatch.setenv("MLMM_MODELS", str(trained.path.parent))
    assert main(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("trained "))
    assert "H C N O" in line and "per_atom" in line and line.endswith("trained")
    assert main(["models", "show", "trained"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert facts["training"]["data_sha256"] in shown and "6 held-out structures" in shown
    by_name = energy_and_forces(load_potential("trained"), structure_of(frames[0]))
    assert by_name[0] == energy_and_forces(trained.model, structure_of(frames[0]))[0]


@pytest.mark.skipif(instruction_set() is None, reason="built without a compiler")
def test_the_compiled_kernel_runs_it(trained, frames):
    """Equal to torch in float64 to rounding; control: the start of the training differs."""
    found = {
        kernel: energy_and_forces(
            load_potential(str(trained.path), precision="float64", kernel=kernel), structure_of(frames[0])
        )
        for kernel in ("native", "torch")
    }
    assert found["native"][0] == pytest.approx(found["torch"][0], abs=1e-7)
    assert torch.allclose(found["native"][1], found["torch"][1], atol=1e-6)
    start = energy_and_forces(load_potential("ani1x", members=[0, 1]), structure_of(frames[0]))
    assert float((start[1] - found["torch"][1]).abs().max()) > 1.0


@pytest.mark.usefixtures("kernels_by_default")
@pytest.mark.parametrize("scheme", ["additive", "per_atom"])
def test_hybrid_systems_hold_it(trained, dipeptide_vacuum, scheme):
    """By the plugin where it is built: energies and forces of torch in float64."""
    size = 22 if scheme == "additive" else 10
    region = region_from_atoms(dipeptide_vacuum.topology, range(size), "atoms")
    zones = hard_zones(dipeptide_vacuum, region)
    found = []
    bridges = ["pythonforce"] if plugin_problem() is not None else ["native", "pythonforce"]
    for bridge in bridges:
        kernel = "torch" if bridge == "pythonforce" else "auto"
        model = load_potential(str(trained.path), precision="float64", kernel=kernel)
        hybrid = hybrid_system(dipeptide_vacuum, zones, model, scheme=scheme, bridge=bridge)
        found.append(hybrid_energy_and_forces(hybrid.system, dipeptide_vacuum.positions))
    energy, forces = found[0]
    assert np.isfinite(energy) and np.isfinite(forces).all()
    assert energy == pytest.approx(found[-1][0], abs=1e-5)
    assert np.abs(forces - found[-1][1]).max() < 1e-4


def test_one_of_isolated_molecules_is_refused_where_bonds_are_cut(trained, dipeptide_vacuum, tmp_path):
    parameters, about = load_ani_file(trained.path)
    save_ani_file(parameters, tmp_path / "alone.safetensors", about | {"trained_on": "isolated"})
    zones = hard_zones(dipeptide_vacuum, region_from_atoms(dipeptide_vacuum.topology, range(10), "atoms"))
    with pytest.raises((EmbeddingError, PotentialError), match="isolated"):
        hybrid_system(
            dipeptide_vacuum, zones, load_potential(str(tmp_path / "alone.safetensors")), scheme="per_atom"
        )


def test_a_run_measures_the_calibrated_spread_and_says_so(trained, dipeptide_vacuum):
    """Forces of the region in units of their error; control: without a calibration it is the plain spread."""
    zones = hard_zones(dipeptide_vacuum, whole_of(dipeptide_vacuum))
    hybrid = hybrid_system(dipeptide_vacuum, zones, trained.model, scheme="additive")
    calibrated = measure_uncertainty(hybrid, dipeptide_vacuum.positions, None).forces
    calibration = trained.model.spec.calibration
    assert "force spread of the committee, scaled by" in UncertaintyMonitor(hybrid).facts["calibration"]
    plain_model = load_potential(str(trained.path))
    plain_model.spec = dataclasses.replace(plain_model.spec, calibration=None)
    plain_hybrid = hybrid_system(dipeptide_vacuum, zones, plain_model, scheme="additive")
    plain = measure_uncertainty(plain_hybrid, dipeptide_vacuum.positions, None).forces
    assert "calibration" not in UncertaintyMonitor(plain_hybrid).facts
    assert np.allclose(calibrated, calibration.deviation(plain), rtol=1e-4)
    assert not np.allclose(calibrated, plain, rtol=1e-2)


def test_a_loop_reads_the_calibrated_deviation_of_a_component(trained, tmp_path):
    """Coverage of one and two standard deviations is that of the calibration; control: of the whole force."""
    shutil.copy(trained.path, tmp_path / "model.safetensors")
    samples = trained.divided.held_out
    model = TrainedModel(tmp_path)
    spreads = trained.predicted.against([s for _, s in samples_of(trained)], range(16, 22))
    gaussian = dataclasses.replace(trained.calibration, factor68=1.0, factor95=2.0)
    expected = with_coverage(gaussian, spreads)
    found = measure(model, samples)
    assert (found.coverage68, found.coverage95) == pytest.approx(
        (expected.coverage68, expected.coverage95), abs=0.01
    )
    answers = model.predict([molecule for molecule, _ in samples])
    whole = np.concatenate(answers.deviations) * np.sqrt(3.0)
    assert np.allclose(whole, trained.calibration.deviation(spreads.spreads), rtol=1e-4)


@pytest.mark.parametrize("kind", ["networks", "gp", "gdml"])
def test_held_out_labels_change_nothing_but_what_is_measured(kind, tmp_path):
    """Other forces in them: the same arrays and constants to the bit; control: other errors and coverage."""
    samples = [(molecule, springs(molecule)) for molecule in shaken(30, 6)]
    config = dataclasses.replace(config_of(kind=kind), kernel=KernelOptions(inducing=60))
    wrong = [(m, dataclasses.replace(s, forces=-3.0 * s.forces, energy=s.energy + 9.0)) for m, s in samples]
    one, two = (
        train_model(config, Divided(samples[:14], samples[14:22], held_out), tmp_path / f"{k}.safetensors")
        for k, held_out in enumerate((samples[22:], wrong[22:]))
    )
    arrays = [load_file(found.path) for found in (one, two)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])
    assert two.errors["held out"].force > 1.1 * one.errors["held out"].force
    for name in ("training", "validation"):
        assert one.errors[name].as_facts() == two.errors[name].as_facts()
    if kind != "gdml":
        first, second = one.calibration, two.calibration
        assert (first.scale, first.floor, first.labels) == (second.scale, second.floor, 8)
        assert first.coverage68 != second.coverage68


def samples_of(trained):
    divided = trained.divided
    return [*divided.train, *divided.validation, *divided.held_out]


def test_validation_labels_calibrate_a_gaussian_process_which_never_sees_them(tmp_path):
    """Errors on them are those on held-out labels; control: those on training labels are much smaller."""
    samples = [(molecule, springs(molecule)) for molecule in shaken(60, 6)]
    config = dataclasses.replace(config_of(kind="gp"), kernel=KernelOptions(inducing=100))
    divided = Divided(samples[:25], samples[25:40], samples[40:])
    trained = train_model(config, divided, tmp_path / "process.safetensors")
    errors = {name: found.force for name, found in trained.errors.items()}
    assert errors["validation"] > 2.0 * errors["training"]
    assert errors["validation"] == pytest.approx(errors["held out"], rel=0.5)
    assert (trained.calibration.labels, trained.calibration.tested) == (15, 20)
    assert 0.5 < trained.calibration.coverage68 < 0.85


def test_charges_outside_of_the_training_are_refused(trained):
    spec = dataclasses.replace(trained.model.spec, trained_charges=(-2,))
    assert check_training(spec, [1, 6], -2, 1) == []
    with pytest.raises(PotentialError, match=r"charge -2 for trained, .* but got charge \+0"):
        check_training(spec, [1, 6], 0, 1)


def test_a_difference_to_a_base(tmp_path):
    """Labels are ANI-1x plus springs: the sum finds both, and its file names the base; control: the base."""
    base = load_potential("ani1x", precision="float64")
    samples = []
    for molecule in shaken(60, 4):
        a, b = by_potential(base, molecule), springs(molecule)
        label = dataclasses.replace(b, energy=a.energy + b.energy, forces=a.forces + b.forces, method="sum")
        samples.append((molecule, label))
    config = dataclasses.replace(
        config_of(base="ani1x"),
        networks=NetworkOptions(start="scratch", members=2, hidden=(16, 8)),
        fit=FitOptions(epochs=60, learning_rate=5e-3, batch=10),
    )
    divided = Divided(samples[:40], samples[40:48], samples[48:])
    trained = train_model(config, divided, tmp_path / "sum.safetensors")
    model = load_potential(str(trained.path), precision="float64")
    assert isinstance(model, DifferencePotential) and model.base.spec.name == "ANI-1x"
    assert load_ani_file(trained.path)[1]["base"] == "ani1x"
    molecule, label = samples[-1]
    assert trained.predicted.energies[-1] == pytest.approx(by_potential(model, molecule).energy, abs=0.1)
    missing = np.abs(by_potential(base, molecule).forces - label.forces).mean()
    assert trained.errors["held out"].force < 0.6 * missing
    # Total energies, those of isolated atoms once; the base alone is off even with the best constant.
    off = np.array([by_potential(base, m).energy - s.energy for m, s in divided.held_out])
    assert trained.errors["held out"].energy < 0.4 * np.abs(off - off.mean()).mean()
    module = torch.jit.script(model.scriptable(molecule.numbers.tolist()))
    positions = torch.tensor(molecule.positions, requires_grad=True)
    (slope,) = torch.autograd.grad(module(positions, None).mean(dim=0).sum(), positions)
    assert torch.allclose(-slope, energy_and_forces(model, structure_of(molecule))[1], atol=1e-6)


@pytest.mark.parametrize("kind", ["networks", "gp"])
def test_a_correction_to_the_force_field_keeps_it_whole(kind, frames, dipeptide_vacuum, tmp_path):
    """Labels minus an OpenMM System; under scheme "delta" the hybrid is the sum of both.

    Control: no other scheme takes a correction.
    """
    xml = tmp_path / "alone.xml"
    xml.write_text(openmm.XmlSerializer.serialize(dipeptide_vacuum.system))
    teacher = load_potential("ani1x", members=[4, 5, 6, 7])
    samples = [(molecule, by_potential(teacher, molecule)) for molecule in frames]
    divided = Divided(samples[:10], samples[10:16], samples[16:])
    rests, _ = minus_base(samples, str(xml))
    for (molecule, label), (_, rest) in zip(samples[:3], rests, strict=False):
        energy, forces = hybrid_energy_and_forces(dipeptide_vacuum.system, molecule.positions)
        assert rest.energy + energy == pytest.approx(label.energy, abs=1e-6)
        assert np.abs(rest.forces + forces - label.forces).max() < 1e-6
    trained = train_model(config_of(kind=kind, base=str(xml)), divided, tmp_path / "correction.safetensors")
    model = load_potential(str(trained.path), precision="float64")
    assert model.spec.trained_on == "correction" and "minus force field" not in model.spec.level_of_theory
    with pytest.raises(ConfigError, match="which has no energies of atoms"):
        train_model(config_of(kind="gdml", base=str(xml)), divided, tmp_path / "other.safetensors")
    zones = hard_zones(dipeptide_vacuum, whole_of(dipeptide_vacuum))
    with pytest.raises((EmbeddingError, PotentialError), match="correction"):
        hybrid_system(dipeptide_vacuum, zones, model, scheme="additive")
    hybrid = hybrid_system(dipeptide_vacuum, zones, model, scheme="delta")
    energy, forces = hybrid_energy_and_forces(hybrid.system, dipeptide_vacuum.positions)
    force_field, mm_forces = hybrid_energy_and_forces(dipeptide_vacuum.system, dipeptide_vacuum.positions)
    added, pulled = energy_and_forces(
        model, structure_of(Molecule(frames[0].numbers, dipeptide_vacuum.positions))
    )
    assert energy - force_field == pytest.approx(added, abs=1e-4)
    assert np.abs(forces - mm_forces - pulled.numpy()).max() < 1e-3
