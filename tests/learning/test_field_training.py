"""Models that see the charges around are fitted: predictions are those of the potentials, files hold what was
fitted, and a fit that is stopped goes on to the same bits.

Labels are those of another potential on methylammonium among water charges, so that nothing has to be
computed first.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from field_networks import field_parameters, field_potential

import mlmm
from mlmm.cli import main
from mlmm.cli.train_templates import TEMPLATES
from mlmm.errors import ConfigError, PotentialError
from mlmm.learning.dataset.store import Dataset
from mlmm.learning.training.amp_bms import fine_tune_amp
from mlmm.learning.training.amp_model import AMPModel
from mlmm.learning.training.field_ani import train_field_ani
from mlmm.learning.training.field_model import TrainableFieldANI
from mlmm.learning.training.field_options import AMPOptions, FieldANIOptions
from mlmm.learning.training.loss import Predictions, losses
from mlmm.learning.training.options import FitOptions
from mlmm.learning.training.targets import targets_of
from mlmm.learning.uncertainty.predict import predict
from mlmm.potentials.amp_bms.potential import AMPPotential
from mlmm.potentials.amp_bms.weights import read_amp_weights, save_amp_weights
from mlmm.potentials.base import PotentialModel, energy_and_all_forces
from mlmm.potentials.committee import committee_of
from mlmm.potentials.field_ani.parameters import save_field_ani
from mlmm.potentials.field_ani.potential import FieldANIPotential
from mlmm.reference.labels import Label, Molecule, PointCharges
from mlmm.structures import ExternalCharges, Structure

DATA = np.load(Path(__file__).parents[1] / "potentials" / "amp_bms_reference.npz")
WEIGHTS = Path(mlmm.__file__).parent / "data/amp_bms.safetensors"
NUMBERS = DATA["methylammonium/numbers"]
QUICK = FitOptions(
    epochs=2,
    batch=4,
    learning_rate=5e-4,
    warmup=2,
    averaging=0.0,
    energy_weight="0.01 1/A^2",
    bootstrap=False,
)


def molecules(count: int = 8, seed: int = 0) -> list[Molecule]:
    """Methylammonium among the 30 nearest water charges, shaken by 5 pm; one is in a vacuum."""
    random = np.random.default_rng(seed)
    x, px, pq = (DATA[f"methylammonium/{name}"] for name in ("x", "px", "pq"))
    near = np.argsort(np.linalg.norm(px - x.mean(0), axis=1))[:30]
    found = []
    for k in range(count):
        places = 0.1 * (x + 0.05 * random.standard_normal(x.shape))
        external = PointCharges(0.1 * (px[near] + 0.05 * random.standard_normal((30, 3))), pq[near])
        found.append(Molecule(NUMBERS, places, 1, external=None if k == 1 else external))
    return found


def structure_of(molecule: Molecule) -> Structure:
    around = molecule.external
    external = None
    if around is not None:
        external = ExternalCharges(torch.tensor(around.positions), torch.tensor(around.charges))
    numbers, positions = torch.tensor(molecule.numbers), torch.tensor(molecule.positions)
    return Structure(numbers, positions, None, molecule.charge, external=external)


def labelled(potential: PotentialModel, count: int = 8, seed: int = 0) -> list[tuple[Molecule, Label]]:
    samples = []
    for molecule in molecules(count, seed):
        energy, forces, outer = energy_and_all_forces(potential, structure_of(molecule))
        external = None if molecule.external is None else outer.numpy()
        samples.append((molecule, Label(energy, forces.numpy(), external, method="another potential")))
    return samples


def teacher() -> FieldANIPotential:
    return FieldANIPotential(field_parameters(NUMBERS, 4), name="teacher", precision="float64")


def student(kind: str, bound: list[Molecule]) -> tuple[torch.nn.Module, PotentialModel]:
    if kind == "amp-bms":
        potential = AMPPotential.from_file(WEIGHTS, precision="float64", polarisation_scaling=1.0)
        return AMPModel(read_amp_weights(WEIGHTS), bound), potential
    parameters = field_parameters(NUMBERS)
    return (
        TrainableFieldANI(parameters, bound),
        FieldANIPotential(parameters, name="qeq", precision="float64"),
    )


@pytest.mark.parametrize("kind", ["amp-bms", "qeq-ani"])
def test_what_is_fitted_is_the_potential(kind):
    """Energies, forces and forces on the charges to single precision, those in a vacuum too."""
    bound = molecules(4)
    model, potential = student(kind, bound)
    with torch.no_grad():
        found = model(torch.arange(4))
    energies, forces, outer = [], [], []
    for molecule in bound:
        energy, on_atoms, on_charges = energy_and_all_forces(potential, structure_of(molecule))
        energies.append(energy)
        forces.append(on_atoms)
        outer.append(on_charges)
    largest = float(torch.cat(forces).abs().max())
    assert np.abs(found.energies[0].numpy() - np.array(energies)).max() < 1e-6 * np.abs(energies).max()
    assert float((found.forces[0] - torch.cat(forces)).abs().max()) < 2e-5 * largest
    assert float((found.external_forces[0] - torch.cat(outer)).abs().max()) < 2e-5 * largest
    # Control: without the answer to the charges those of the vacuum would do.
    vacuum = [
        energy_and_all_forces(potential, structure_of(dataclasses.replace(m, external=None))) for m in bound
    ]
    assert float((torch.cat([v[1] for v in vacuum]) - torch.cat(forces)).abs().max()) > 1e-2 * largest


@pytest.mark.parametrize("kind", ["amp-bms", "qeq-ani"])
def test_gradient_of_the_loss_is_that_of_its_finite_difference(kind):
    """Along a random direction of the weights; with forces in the loss this needs second derivatives."""
    samples = labelled(teacher(), 4)
    model, _ = student(kind, [molecule for molecule, _ in samples])
    targets, chosen = targets_of(samples), torch.arange(4)
    weights = [w for name, w in model.named_parameters() if w.requires_grad and name != "zero"]
    generator = torch.Generator().manual_seed(1)
    directions = [
        torch.randn(w.shape, generator=generator).to(w.dtype) * w.detach().abs().mean() for w in weights
    ]

    def loss(energy: bool = False) -> torch.Tensor:
        found = model(chosen)
        if energy:
            found = found._replace(
                forces=found.forces.detach(), external_forces=found.external_forces.detach()
            )
        return losses(found, targets, chosen, QUICK, centred=True).mean()

    def slope(value: torch.Tensor) -> float:
        gradients = torch.autograd.grad(value, weights, allow_unused=True)
        pairs = zip(gradients, directions, strict=True)
        return sum(float((g.double() * d.double()).sum()) for g, d in pairs if g is not None)

    def moved(step: float) -> float:
        with torch.no_grad():
            for w, d in zip(weights, directions, strict=True):
                w += step * d
            value = float(loss())
            for w, d in zip(weights, directions, strict=True):
                w -= step * d
        return value

    step = 1e-4
    expected = (moved(step) - moved(-step)) / (2.0 * step)
    assert slope(loss()) == pytest.approx(expected, rel=2e-2)
    # Control: the energies' share of it alone.
    assert slope(loss(energy=True)) != pytest.approx(expected, rel=0.2)


def test_a_tuned_file_runs_in_the_compiled_kernel(tmp_path):
    """Fewer errors than before, and the file in the kernel predicts what the fit did."""
    samples = labelled(teacher(), 12)
    train, validation = samples[:8], samples[8:]
    before = errors(AMPPotential.from_file(WEIGHTS, polarisation_scaling=1.0), validation)
    tuned = fine_tune_amp(train, validation, options=dataclasses.replace(QUICK, epochs=4))
    file = tmp_path / "tuned.safetensors"
    save_amp_weights(tuned.weights, file, {"name": "tuned"})
    assert tuned.fit.best[0] < 0.5 * before
    native = mlmm.load_potential(str(file), kernel="native")
    assert native.spec.name == "tuned" and native.spec.level_of_theory == "another potential"
    assert native.polarisation_scaling == 1.0
    assert errors(native, validation) == pytest.approx(tuned.fit.best[0], rel=1e-2)
    # References make total energies of labels out of those of the model.
    own = [float(native.atom_energies(structure_of(m)).energies.detach().sum()) for m, _ in train]
    added = sum(native.spec.reference_energies[int(z)] for z in NUMBERS)
    assert np.mean(own) + added == pytest.approx(np.mean([label.energy for _, label in train]), abs=0.1)


def errors(potential: PotentialModel, samples: list[tuple[Molecule, Label]]) -> float:
    """The loss of a fit, by the potential itself."""
    targets = targets_of(samples)
    found = [energy_and_all_forces(potential, structure_of(molecule)) for molecule, _ in samples]
    predictions = Predictions(
        torch.tensor([[energy for energy, _, _ in found]]),
        torch.cat([forces for _, forces, _ in found]).unsqueeze(0),
        torch.cat([outer for _, _, outer in found]).unsqueeze(0),
    )
    return float(losses(predictions, targets, torch.arange(len(samples)), QUICK, centred=True).mean())


def test_a_trained_field_model_is_in_its_file(tmp_path):
    samples = labelled(teacher(), 12)
    options = dataclasses.replace(QUICK, epochs=6, learning_rate=2e-3)
    start = train_field_ani(
        samples[:8], samples[8:], FieldANIOptions(hidden=(16,)), dataclasses.replace(options, epochs=1)
    )
    trained = train_field_ani(samples[:8], samples[8:], FieldANIOptions(hidden=(16,)), options)
    assert trained.fit.best[0] < 0.7 * start.fit.best[0]
    file = tmp_path / "field.safetensors"
    save_field_ani(trained.parameters, file, {"name": "field", "level_of_theory": "another potential"})
    found = mlmm.load_potential(str(file))
    assert found.spec.external == "potential"
    assert errors(found, samples[8:]) == pytest.approx(trained.fit.best[0], rel=1e-2)


def test_a_training_starts_from_an_earlier_one(tmp_path):
    """Little is lost with few labels more; control: the same steps from published networks."""
    samples = labelled(teacher(), 12)
    long = dataclasses.replace(QUICK, epochs=8, learning_rate=2e-3)
    short = dataclasses.replace(QUICK, epochs=1, learning_rate=1e-6)
    first = train_field_ani(samples[:8], samples[8:], FieldANIOptions(hidden=(16,)), long)
    file = tmp_path / "first.safetensors"
    save_field_ani(first.parameters, file, {"name": "first"})
    again = train_field_ani(samples[:4], samples[8:], FieldANIOptions(start=str(file), hidden=(8,)), short)
    fresh = train_field_ani(samples[:4], samples[8:], FieldANIOptions(hidden=(16,)), short)
    assert again.fit.best[0] == pytest.approx(first.fit.best[0], rel=0.02)
    assert fresh.fit.best[0] > 1.3 * first.fit.best[0]
    for element, layers in first.parameters.weights.items():  # widths of the file, not those of the options
        assert [layer.shape for layer in again.parameters.weights[element]] == [x.shape for x in layers]


def test_a_start_that_lacks_an_element_is_refused(tmp_path):
    samples = labelled(teacher(), 4)
    file = tmp_path / "first.safetensors"
    save_field_ani(field_parameters(np.array([8, 1])), file, {"name": "water"})
    with pytest.raises(PotentialError, match="C, N"):
        train_field_ani(samples[:3], samples[3:], FieldANIOptions(start=str(file)), QUICK)


@pytest.mark.parametrize("kind", ["amp-bms", "qeq-ani"])
def test_a_stopped_fit_goes_on_to_the_same_bits(kind, tmp_path):
    samples = labelled(teacher(), 6)
    train, validation = samples[:4], samples[4:]

    class StoppedError(Exception):
        pass

    def fitted(checkpoint: Path, stop: int = 0) -> dict[str, np.ndarray]:
        def progress(report) -> None:
            if report.epoch == stop:
                raise StoppedError

        if kind == "amp-bms":
            done = fine_tune_amp(train, validation, None, QUICK, checkpoint=checkpoint, progress=progress)
            return {name: value.numpy() for name, value in done.weights.tensors.items()}
        options = FieldANIOptions(hidden=(8,))
        found = train_field_ani(train, validation, options, QUICK, checkpoint=checkpoint, progress=progress)
        layers = found.parameters.ani.weights | {f"field {e}": w for e, w in found.parameters.weights.items()}
        return {f"{e} {k}": value for e, values in layers.items() for k, value in enumerate(values)}

    whole = fitted(tmp_path / "whole.safetensors")
    with pytest.raises(StoppedError):
        fitted(tmp_path / "part.safetensors", stop=1)
    again = fitted(tmp_path / "part.safetensors")
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


def test_the_last_layers_alone():
    """What makes features stays as it was."""
    samples = labelled(teacher(), 6)
    tuned = fine_tune_amp(samples[:4], samples[4:], AMPOptions(trained="last"), QUICK).weights.tensors
    start = read_amp_weights(WEIGHTS).tensors
    changed = {name.rsplit(".", 2)[0] for name in start if not torch.equal(start[name], tuned[name])}
    assert "V.potential" in changed and "edge_embedding" not in changed
    assert "node_embedding.embedding" not in changed and "eq_message_layers.0" not in changed


def test_several_molecules_are_refused():
    samples = labelled(teacher(), 4)
    other = dataclasses.replace(samples[3][0], charge=-1)
    for fitted in (fine_tune_amp, train_field_ani):
        with pytest.raises(ConfigError, match="one molecule"):
            fitted(samples[:3], [(other, samples[3][1])])


def test_the_verb_trains_among_charges(tmp_path, capsys):
    """A data set in, a file with its errors out; networks that do not see charges refuse such labels."""
    samples = labelled(teacher(), 24)
    for k, (molecule, _) in enumerate(samples):
        object.__setattr__(molecule, "origin", {"run": "a", "window": str(k // 8)})
    Dataset.create(tmp_path / "set", "another potential").append(samples)
    (tmp_path / "train.toml").write_text(
        TEMPLATES["qeq-ani"] + "\n".join(["bootstrap = false", ""]), encoding="utf-8"
    )
    folder = tmp_path / "run"
    command = ["train", str(tmp_path / "train.toml"), "--out", str(folder), "--set", "fit.epochs=2"]
    assert main([*command, "--set", "field.hidden=[8]"]) == 0
    assert "F on charges" in capsys.readouterr().out
    potential = mlmm.load_potential(str(folder / "model.safetensors"))
    assert potential.spec.level_of_theory == "another potential" and potential.spec.external == "potential"
    report = json.loads((folder / "report.json").read_text())
    assert 0.0 < report["errors"]["held out"]["external_force"] < 1e4
    assert main([*command, "--overwrite", "--set", "model.base=ani1x"]) == 2
    assert 'no base for kind = "qeq-ani"' in capsys.readouterr().err
    assert main([*command, "--overwrite", "--set", "model.kind=networks"]) == 2
    assert 'write kind = "qeq-ani" or "amp-bms"' in capsys.readouterr().err


def test_a_committee_among_charges_is_measured_on_the_charges_too():
    """Forces on charges are the mean of the members'; control: those of one member are not."""
    bound = molecules(3)
    members = [field_potential(NUMBERS, seed) for seed in (1, 2)]
    alone = [predict(member, bound).external_forces for member in members]
    together = predict(committee_of(members), bound).external_forces
    among = [
        k for k, molecule in enumerate(bound) if molecule.external is not None and len(molecule.external)
    ]
    assert among and set(among) <= set(together)
    for k in among:
        mean = (alone[0][k] + alone[1][k]) / 2
        size = np.abs(mean).max()
        assert np.abs(together[k] - mean).max() < 1e-10 * size
        assert np.abs(together[k] - alone[0][k]).max() > 1e-3 * size
