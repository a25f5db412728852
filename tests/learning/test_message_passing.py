"""Message-passing networks of graph-pes: smooth, local, conservative, trained by the engine's own loop."""

import dataclasses
import importlib.util
import sys

import numpy as np
import pytest
import torch
from labelled_molecules import shaken, springs

from mlmm.errors import MissingPackageError, PotentialError
from mlmm.learning.training.config import DataOptions, ModelOptions, TrainConfig
from mlmm.learning.training.message_passing import TrainableGraphs, train_message_passing
from mlmm.learning.training.options import FitOptions, GraphOptions
from mlmm.learning.training.train import Divided, train_model
from mlmm.learning.uncertainty.predict import predict
from mlmm.potentials import check_potential, load_potential
from mlmm.potentials.adapters import graph_pes as adapter
from mlmm.potentials.adapters.graph_pes import ARCHITECTURES, GraphArchitecture, GraphPESPotential
from mlmm.potentials.safetensors_files import write_safetensors
from mlmm.structures import Structure

with_package = pytest.mark.skipif(
    importlib.util.find_spec("graph_pes") is None, reason="graph-pes is not installed"
)


def network(name, *, layers=2, cutoff=0.5):
    """A potential with random weights, float64."""
    architecture = GraphArchitecture(name, 8, layers, cutoff)
    weights = {
        key: p.detach().numpy() for key, p in adapter.build_network(architecture, 1).named_parameters()
    }
    return GraphPESPotential(
        architecture, weights, {"elements": [1, 6, 8], "name": name}, precision="float64"
    )


def line(*places):
    positions = torch.tensor([[0.0, 0.0, x] for x in places], dtype=torch.float64)
    return Structure(torch.full((len(places),), 6), positions)


def total(model, structure):
    return float(model.atom_energies(structure).energies.sum().detach())


def labelled(count, seed):
    return [(molecule, springs(molecule)) for molecule in shaken(count, seed)]


def test_without_the_package_the_line_that_installs_it_is_shown(monkeypatch):
    """Control: a file of another kind of model is refused before the package is asked for."""
    monkeypatch.setitem(sys.modules, "graph_pes", None)
    with pytest.raises(MissingPackageError, match="pip install graph-pes"):
        adapter.build_network(GraphArchitecture("painn", 8, 2, 0.5))


@pytest.mark.parametrize(
    "about, match",
    [
        ({}, "an architecture in"),
        ({"architecture": {"name": "schnet", "channels": 8, "layers": 2, "cutoff": 0.5}}, "painn, tensornet"),
        ({"architecture": {"name": "painn", "channels": 8, "layers": 2, "cutoff": 0.5}}, "atomic numbers"),
    ],
)
def test_files_that_are_no_network_are_refused(tmp_path, about, match):
    write_safetensors(tmp_path / "m.safetensors", "graph_pes", {"w": np.zeros(2)}, about)
    with pytest.raises(PotentialError, match=match):
        load_potential(str(tmp_path / "m.safetensors"))


@with_package
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_contract_of_potentials_holds(name):
    """Forces by differences, translation, rotation, exchange of like atoms, boxes, extensivity."""
    molecule = shaken(1, 3)[0]
    structure = Structure(torch.tensor(molecule.numbers), torch.tensor(molecule.positions))
    report = check_potential(network(name, layers=1), structure)
    assert report.passed, str(report)


@with_package
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_energy_is_continuous_at_the_cutoff(name, monkeypatch):
    """Control: the package's SchNet, whose filters do not vanish there, jumps."""

    def jump(model):
        return abs(total(model, line(0.0, 0.5 - 1e-9)) - total(model, line(0.0, 0.5 + 1e-9)))

    assert jump(network(name)) < 1e-9
    monkeypatch.setitem(adapter._CLASSES, "schnet", ("SchNet", 0))
    monkeypatch.setitem(adapter._CITATIONS, "schnet", "")
    assert jump(network("schnet")) > 1e-5


@with_package
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_atom_is_seen_beyond_the_receptive_field(name):
    """A chain of atoms 0.2 nm apart, cutoff 0.35 nm; control: the last atom within is seen."""
    model = network(name, layers=2, cutoff=0.35)
    reach = round(model.spec.receptive_field / 0.35)
    places = [0.2 * k for k in range(reach + 2)]

    def first(last):
        moved = line(*places[:last], places[last] + 0.02, *places[last + 1 :])
        return float(model.atom_energies(moved).energies[0].detach())

    unmoved = float(model.atom_energies(line(*places)).energies[0].detach())
    assert first(reach + 1) == unmoved
    assert abs(first(reach) - unmoved) > 1e-12


@with_package
def test_training_predicts_as_the_file_does_learns_and_goes_on_after_a_stop(tmp_path):
    """Forces of the fit equal those of the file; control: of the untrained network they are far off."""
    samples = labelled(40, 1)
    options, graph = FitOptions(epochs=30, batch=8, learning_rate=5e-3), GraphOptions(channels=8, layers=2)
    config = TrainConfig(
        data=DataOptions(labels=("made",)),
        model=ModelOptions(kind="message-passing", device="cpu"),
        graph=graph,
        fit=options,
    )
    path = tmp_path / "m.safetensors"
    trained = train_model(config, Divided(samples[:28], samples[28:34], samples[34:]), path)
    untrained = train_model(
        dataclasses.replace(config, fit=dataclasses.replace(options, epochs=1, learning_rate=1e-9)),
        Divided(samples[:28], samples[28:34], samples[34:]),
        tmp_path / "untrained.safetensors",
    )
    assert trained.errors["held out"].force < 0.5 * untrained.errors["held out"].force
    architecture, weights, about = adapter.read_graph_file(path)
    assert about["training"]["start"] == "scratch" and about["training"]["range"] == "1.00"
    molecules = [molecule for molecule, _ in samples[34:]]
    built = adapter.build_network(architecture)
    adapter.set_weights(built, weights)
    inside = TrainableGraphs(built, molecules, architecture.cutoff)(torch.arange(len(molecules)))
    found = predict(load_potential(str(path)), molecules)
    assert np.abs(inside.forces[0].detach().numpy() - np.concatenate(found.forces)).max() < 0.05
    assert trained.errors["held out"].force > 5.0

    def fit(**changes):
        return train_message_passing(
            samples[:28],
            samples[28:34],
            graph,
            dataclasses.replace(options, epochs=4),
            device="cpu",
            **changes,
        )

    class StopError(Exception):
        pass

    def stop(report):
        if report.epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        fit(checkpoint=tmp_path / "fit.safetensors", progress=stop)
    resumed, whole = fit(checkpoint=tmp_path / "fit.safetensors"), fit()
    assert all(np.array_equal(resumed.weights[key], whole.weights[key]) for key in whole.weights)


@with_package
def test_a_fit_goes_on_from_an_earlier_file_and_foreign_weights_are_refused(tmp_path):
    """The architecture is that of the file; control: weights of a wider network do not fit."""
    model = network("tensornet")
    architecture = model.architecture
    weights = {key: p.numpy().astype(np.float32) for key, p in model._network.named_parameters()}
    path = tmp_path / "start.safetensors"
    adapter.save_graph_file(path, architecture, weights, {"elements": [1, 6, 8]})
    samples = labelled(12, 2)
    found = train_message_passing(
        samples[:10], samples[10:], GraphOptions(start=str(path)), FitOptions(epochs=1, learning_rate=1e-7)
    )
    assert found.architecture == architecture
    assert max(np.abs(found.weights[key] - weights[key]).max() for key in weights) < 1e-5
    adapter.save_graph_file(
        path, dataclasses.replace(architecture, channels=9), weights, {"elements": [1, 6, 8]}
    )
    with pytest.raises(PotentialError, match="weights of this architecture"):
        load_potential(str(path))
