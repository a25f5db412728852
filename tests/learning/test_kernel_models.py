"""Kernel models: conservative, exactly symmetric, known functions found again, coverage in sigma."""

import dataclasses

import numpy as np
import pytest
import torch
from labelled_molecules import NUMBERS, POSITIONS, shaken, springs

from mlmm.errors import ConfigError, PotentialError
from mlmm.learning.training.gaussian_process import fit_gaussian_process, inducing_covariance
from mlmm.learning.training.gdml import fit_gdml, permutation_group
from mlmm.learning.training.options import KernelOptions
from mlmm.learning.uncertainty.calibrate import calibrate_forces, with_coverage
from mlmm.learning.uncertainty.predict import predict
from mlmm.potentials import load_potential
from mlmm.potentials.base import energy_and_forces
from mlmm.potentials.kernel_models.gdml import GDMLPotential
from mlmm.potentials.kernel_models.sparse_gp import SparseGPPotential, kernel_rows, prior_variances
from mlmm.reference.labels import Molecule
from mlmm.structures import Structure

#: Hydrogens of the methyl group, exchanged in a circle and in pairs.
METHYL = [[0, 1, 3, 4, 2, 5], [0, 1, 3, 2, 4, 5]]


def labelled(count, seed, **facts):
    return [(molecule, springs(molecule)) for molecule in shaken(count, seed, **facts)]


def structure_of(molecule):
    return Structure(torch.tensor(molecule.numbers), torch.tensor(molecule.positions))


def numerical_forces(model, molecule, step=5e-4):
    """By differences of fourth order: the large weights of a long kernel leave rounding in the energy."""
    found = np.zeros_like(molecule.positions)
    for atom, axis in np.ndindex(found.shape):
        energies = []
        for steps in (-2.0, -1.0, 1.0, 2.0):
            moved = molecule.positions.copy()
            moved[atom, axis] += steps * step
            energies.append(energy_and_forces(model, structure_of(Molecule(NUMBERS, moved)))[0])
        slope = energies[0] - 8.0 * energies[1] + 8.0 * energies[2] - energies[3]
        found[atom, axis] = -slope / (12.0 * step)
    return found


@pytest.fixture(scope="module")
def gdml():
    samples = labelled(40, 1)
    return GDMLPotential(fit_gdml(samples[:34], samples[34:]), {"name": "methanol"})


@pytest.fixture(scope="module")
def process():
    options = KernelOptions(inducing=180)
    return fit_gaussian_process(labelled(30, 1), options, {"trained_charges": [0]})


@pytest.mark.parametrize("kind", ["gdml", "process"])
def test_forces_are_the_gradient_of_the_energy(kind, request):
    """Central differences in float64; control: another structure's forces are not."""
    model = request.getfixturevalue(kind)
    molecule, other = shaken(2, 9)
    _, forces = energy_and_forces(model, structure_of(molecule))
    size = float(forces.abs().max())
    exact = numerical_forces(model, molecule)
    assert np.abs(forces.numpy() - exact).max() < 1e-6 * size
    assert np.abs(energy_and_forces(model, structure_of(other))[1].numpy() - exact).max() > 0.05 * size


def test_gdml_goes_through_its_labels_and_learns(gdml):
    """Training forces to rounding, unseen ones to a tenth; control: with 6 labels it is three times worse."""
    samples, unseen = labelled(40, 1)[:34], labelled(20, 2)
    few = GDMLPotential(fit_gdml(samples[:6], samples[6:12]), {})

    def error(model, some):
        found = predict(model, [molecule for molecule, _ in some])
        energies = np.array([label.energy for _, label in some])
        forces = np.concatenate([label.forces for _, label in some])
        return np.abs(found.energies - energies).mean(), np.abs(np.concatenate(found.forces) - forces).mean()

    size = np.abs(np.concatenate([label.forces for _, label in unseen])).mean()
    assert error(gdml, samples)[1] < 1e-4 * size
    assert error(gdml, unseen)[1] < 0.15 * size
    assert error(few, unseen)[1] > 2.0 * error(gdml, unseen)[1]
    assert error(few, unseen)[0] > 2.0 * error(gdml, unseen)[0]


def test_permutations_of_equivalent_atoms_leave_the_energy_to_rounding(gdml):
    """All six of a methyl group, from two of them; control: without them the energy changes."""
    samples = labelled(30, 1)
    model = GDMLPotential(fit_gdml(samples[:24], samples[24:], METHYL), {})
    assert len(permutation_group(METHYL, NUMBERS)) == 6
    molecule = shaken(1, 11)[0]
    energy, forces = energy_and_forces(model, structure_of(molecule))
    plain, changes = energy_and_forces(gdml, structure_of(molecule))[0], []
    for order in permutation_group(METHYL, NUMBERS)[1:]:
        moved = structure_of(Molecule(NUMBERS, molecule.positions[order]))
        found, pulled = energy_and_forces(model, moved)
        assert abs(found - energy) < 1e-8
        assert np.allclose(pulled.numpy(), forces.numpy()[order], atol=1e-6)
        changes.append(abs(energy_and_forces(gdml, moved)[0] - plain))
    assert max(changes) > 1e-3


def test_permutations_that_cannot_be_are_refused():
    for wrong, match in (
        ([[0, 1, 2]], "permutations of 0 to 5"),
        ([[2, 1, 0, 3, 4, 5]], "one element"),
    ):
        with pytest.raises(ConfigError, match=match):
            permutation_group(wrong, NUMBERS)


def test_gdml_is_of_one_molecule(gdml):
    other = Structure(torch.tensor([6, 1, 1, 1, 1]), torch.tensor(POSITIONS[:5]))
    with pytest.raises(PotentialError, match="the molecule of methanol"):
        gdml.atom_energies(other)
    samples = labelled(12, 1)
    samples[3] = (
        Molecule(NUMBERS[:5], POSITIONS[:5]),
        dataclasses.replace(samples[3][1], forces=np.zeros((5, 3))),
    )
    with pytest.raises(ConfigError, match="labels of one molecule"):
        fit_gdml(samples[:10], samples[10:])


def test_a_gaussian_process_finds_a_function_and_its_calibrated_error(process):
    """Its own sigma is on the safe side; scaled on 20 structures it covers 40 others within 6 %.

    Control: a third of that sigma covers far less.
    """
    unseen = labelled(60, 5)
    labels = [label for _, label in unseen]
    found = predict(process, [molecule for molecule, _ in unseen])
    forces = np.concatenate([label.forces for label in labels])
    deviations = np.concatenate([process.deviations(structure_of(m))[1] for m, _ in unseen])
    errors = np.abs(np.concatenate(found.forces) - forces)
    assert errors.mean() < 0.35 * np.abs(forces).mean()
    assert (errors < deviations).mean() > 0.66
    first, second = found.against(labels, range(20)), found.against(labels, range(20, 60))
    calibration = with_coverage(calibrate_forces(first, "predictive deviation"), second)
    assert calibration.coverage68 == pytest.approx(0.68, abs=0.06)
    assert calibration.coverage95 == pytest.approx(0.954, abs=0.06)
    narrow = dataclasses.replace(calibration, factor68=calibration.factor68 / 3.0)
    assert with_coverage(narrow, second).coverage68 < 0.4


def test_the_covariance_of_the_weights_is_exact_for_functions_of_the_prior(process):
    """Functions drawn from the prior that the inducing points span: (f − mean)²/variance is 1 within 4 sigma.

    Control: half the noise in the posterior is too sure of itself.
    """
    random = np.random.default_rng(3)
    molecules = shaken(8, 21)
    rows, probe = [], []
    for k, molecule in enumerate(molecules):
        described = process.descriptor(molecule.numbers.tolist(), torch.tensor(molecule.positions))
        energy, forces = kernel_rows(process.parameters, molecule.numbers, *described)
        (rows if k < 5 else probe).append(np.vstack([energy.numpy(), forces.numpy()]))
    rows, probe = np.concatenate(rows), np.concatenate(probe)
    covariance = inducing_covariance(process.parameters)
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    noise = 0.2 * np.sqrt(np.square(rows @ root).sum(axis=1))

    def squares(assumed):
        found = []
        spread = np.linalg.inv(covariance + rows.T @ (rows / assumed[:, None] ** 2))
        variance = np.einsum("pm,mn,pn->p", probe, spread, probe)
        for _ in range(200):
            weights = root @ random.standard_normal(len(root))
            labels = rows @ weights + noise * random.standard_normal(len(rows))
            mean = spread @ (rows.T @ (labels / assumed**2))
            found.append(((probe @ (weights - mean)) ** 2 / variance).mean())
        return np.mean(found), np.std(found) / np.sqrt(len(found))

    value, error = squares(noise)
    assert abs(value - 1.0) < 4.0 * error < 0.4
    wrong, wrong_error = squares(0.5 * noise)
    assert wrong - 1.0 > 4.0 * wrong_error


def test_variances_of_forces_are_mixed_differences_of_the_covariance_of_energies(process):
    """Var F = d²k(x, x')/dx dx' at x' = x, by four energies; control: the next component has another."""
    molecule, step = shaken(1, 13)[0], 1e-4
    # A length at which atoms of one element are neither the same nor strangers.
    parameters = dataclasses.replace(process.parameters, length=1.0)

    def covariance(one, other):
        """Of the energies of two structures, the atoms of one as inducing environments."""
        values, _, _ = process.descriptor(NUMBERS.tolist(), torch.tensor(other))
        points = {
            z: values[torch.tensor(z == NUMBERS)].numpy() / parameters.widths[z] for z in parameters.points
        }
        described = process.descriptor(NUMBERS.tolist(), torch.tensor(one))
        return float(
            kernel_rows(dataclasses.replace(parameters, points=points), NUMBERS, *described)[0].sum()
        )

    described = process.descriptor(NUMBERS.tolist(), torch.tensor(molecule.positions))
    found = prior_variances(parameters, NUMBERS, *described)
    assert found[0] == pytest.approx(covariance(molecule.positions, molecule.positions), rel=1e-10)
    variances = found[1].numpy()
    for component in (0, 4, 11):
        above, below = molecule.positions.copy(), molecule.positions.copy()
        above.flat[component] += step
        below.flat[component] -= step
        same = covariance(above, above) + covariance(below, below)
        mixed = (same - 2.0 * covariance(above, below)) / (4.0 * step**2)
        assert variances[component] == pytest.approx(mixed, rel=1e-4)
        assert variances[component + 1] != pytest.approx(mixed, rel=1e-2)


def test_its_variance_is_small_at_labels_and_grows_to_the_prior(process):
    """At a label a fraction of that of separate atoms, never above the prior's; control: the prior."""
    inside, outside = shaken(1, 1)[0], Molecule(NUMBERS, 8.0 * POSITIONS)
    found, prior = {}, {}
    for name, molecule in (("inside", inside), ("outside", outside)):
        described = process.descriptor(molecule.numbers.tolist(), torch.tensor(molecule.positions))
        found[name] = process.deviations(structure_of(molecule))[0]
        prior[name] = prior_variances(process.parameters, molecule.numbers, *described)[0] ** 0.5
    assert found["inside"] < 0.05 * found["outside"]
    assert found["inside"] < 0.05 * prior["inside"]
    assert found["outside"] <= prior["outside"] * (1.0 + 1e-9)


@pytest.mark.parametrize("kind", ["gdml", "process"])
def test_a_file_is_the_same_potential(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    molecule = shaken(1, 12)[0]
    model.save(tmp_path / "model.safetensors")
    loaded = load_potential(str(tmp_path / "model.safetensors"))
    assert type(loaded) is type(model) and isinstance(loaded, GDMLPotential | SparseGPPotential)
    a, b = (energy_and_forces(m, structure_of(molecule)) for m in (model, loaded))
    assert a[0] == pytest.approx(b[0], abs=1e-8) and torch.allclose(a[1], b[1], atol=1e-8)
    assert loaded.spec == model.spec
