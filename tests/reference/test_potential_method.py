"""A potential as a reference method: its own energies and forces, and what it would not see is refused."""

from __future__ import annotations

import numpy as np
import pytest
from field_networks import field_parameters

import mlmm
from mlmm.cli import main
from mlmm.errors import ConfigError
from mlmm.learning.dataset.store import Dataset
from mlmm.learning.uncertainty.predict import predict
from mlmm.potentials.field_ani.parameters import save_field_ani
from mlmm.reference import Molecule, PointCharges, reference_method, written_method

WATER = Molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.076, 0.059, 0.0], [-0.076, 0.059, 0.0]])
AMONG = Molecule(WATER.numbers, WATER.positions, external=PointCharges([[0.0, -0.25, 0.05]], [0.8]))


@pytest.fixture
def teacher(tmp_path):
    file = tmp_path / "teacher.safetensors"
    save_field_ani(field_parameters(WATER.numbers), file, {"name": "teacher", "level_of_theory": "none"})
    return file


def test_labels_are_the_predictions_of_the_potential(teacher):
    """Isolated atoms included; forces are those of the energy, and all of them sum to zero."""
    method = reference_method("potential", potential=str(teacher))
    label = method.label(AMONG)
    found = predict(mlmm.load_potential(str(teacher), precision="float64"), [AMONG])
    assert label.energy == pytest.approx(found.energies[0], rel=1e-12)
    assert np.allclose(label.forces, found.forces[0], rtol=0, atol=1e-8)
    assert np.allclose(label.external_forces, found.external_forces[0], rtol=0, atol=1e-8)
    size = np.abs(label.forces).max()
    assert np.abs(label.forces.sum(0) + label.external_forces.sum(0)).max() < 1e-8 * size
    energies = []
    for sign in (1, -1):
        x = np.array(AMONG.positions)
        x[1, 0] += sign * 1e-5
        energies.append(method.label(Molecule(AMONG.numbers, x, external=AMONG.external)).energy)
    slope = (energies[0] - energies[1]) / 2e-5
    assert label.forces[1, 0] == pytest.approx(-slope, abs=1e-5 * size)
    assert method.label(WATER).external_forces is None


def test_the_title_tells_one_file_from_another(teacher):
    method = reference_method("potential", potential=str(teacher))
    before = method.title
    assert before.startswith("potential teacher.safetensors ")
    save_field_ani(field_parameters(WATER.numbers, seed=2), teacher, {"name": "teacher"})
    assert method.title != before
    assert written_method("potential:potential=ani1x").title == "potential ani1x"


@pytest.mark.parametrize(
    ("molecule", "said"),
    [
        (AMONG, "sees point charges"),
        (Molecule([14, 1, 1, 1, 1], np.eye(5, 3)), "Si"),
        (Molecule([8, 1], np.eye(2, 3), -1), "a neutral|charge"),
        (Molecule([8, 1], np.eye(2, 3), 0, 2), "closed shells"),
    ],
)
def test_what_the_potential_would_not_see_is_refused(molecule, said):
    with pytest.raises(ConfigError, match=said):
        reference_method("potential").label(molecule)


def test_the_verb_labels_by_a_teacher(teacher, tmp_path, capsys):
    """A data set among charges is labelled again, by another level of theory, for a student."""
    Dataset.create(tmp_path / "set", "first").append([(AMONG, _label(AMONG, "first"))])
    command = ["label", str(tmp_path / "set"), "--method", "potential", "--option", f"potential={teacher}"]
    assert main([*command, "--out", str(tmp_path / "again"), "--workers", "1"]) == 0
    ((molecule, label),) = Dataset(tmp_path / "again").pairs()
    expected = reference_method("potential", potential=str(teacher)).label(AMONG)
    assert len(molecule.external) == 1 and label.energy == expected.energy
    assert np.array_equal(label.external_forces, expected.external_forces)


def _label(molecule: Molecule, method: str):
    from mlmm.reference.labels import Label

    return Label(0.0, np.zeros((len(molecule), 3)), np.zeros((1, 3)), method=method)
