"""Hartree-Fock and density functionals by PySCF: values, differences on both sides, what is refused."""

import numpy as np
import pytest
from reference_molecules import VALUES, force_by_differences, molecule, water_among_charges, worst_difference

from mlmm.errors import ConfigError, MissingPackageError
from mlmm.reference.labels import Molecule, PointCharges
from mlmm.reference.pyscf import PySCF
from mlmm.units import BOHR, HARTREE, KILOCALORIE

pytest.importorskip("pyscf")
SMALL = {"basis": "sto-3g", "grid_level": 1}


@pytest.mark.parametrize(
    "options",
    [
        {"functional": "hf", "density_fitting": False},
        {"functional": "pbe-d3bj"},
        pytest.param({"functional": "b3lyp", "dispersion": "d4"}, marks=pytest.mark.slow),
    ],
    ids=lambda options: options["functional"],
)
def test_forces_are_the_gradient_on_both_sides(options):
    method, start = PySCF(**SMALL, convergence=1e-11, **options), water_among_charges()
    assert worst_difference(method, start, [0, 2], [1, 2], step=1e-3) < 0.1
    label = method.label(start)
    assert np.abs(label.forces.sum(axis=0) + label.external_forces.sum(axis=0)).max() < 1e-4
    larger = PointCharges(start.external.positions, 1.01 * start.external.charges)
    other = method.label(Molecule(start.numbers, start.positions, external=larger))
    assert np.abs(other.forces - label.forces).max() > 1.0
    assert np.abs(other.external_forces - label.external_forces).max() > 1.0


def test_a_coarse_grid_without_its_response_is_seen():
    start = water_among_charges()
    label = PySCF(functional="pbe", **SMALL, grid_response=False).label(start)
    assert np.abs(label.forces.sum(axis=0) + label.external_forces.sum(axis=0)).max() > 0.01


def test_an_open_shell():
    start = water_among_charges()
    radical = Molecule(start.numbers, start.positions, 1, 2, start.external)
    method = PySCF(functional="hf", **SMALL)
    label = method.label(radical)
    assert abs(force_by_differences(method, radical, 1, 0, step=1e-3) - label.forces[1, 0]) < 0.2
    by_charge = force_by_differences(method, radical, 1, 0, external=True, step=1e-3)
    assert abs(by_charge - label.external_forces[1, 0]) < 0.2


def test_charges_sum_to_that_of_the_molecule_and_oxygen_is_negative():
    label = PySCF(functional="hf", **SMALL).label(Molecule([8, 1], [[0, 0, 0], [0, 0, 0.096]], -1))
    assert label.charges.sum() == pytest.approx(-1.0, abs=1e-8) and label.charges[0] < -0.5


def test_dispersion_and_density_fitting_are_what_they_say():
    start = molecule("water", charges=False)

    def energy(functional, **options):
        return PySCF(functional=functional, **SMALL, forces=False, **options).label(start).energy

    plain, named = energy("pbe"), energy("pbe-d3bj")
    assert energy("pbe", dispersion="d3bj") == pytest.approx(named, abs=1e-5) and named < plain - 0.01
    # The error of the fit is small, and is there.
    exact, fitted = (energy("hf", density_fitting=fit) for fit in (False, True))
    assert 1e-4 < abs(exact - fitted) < 5.0


def test_a_core_potential_comes_with_its_basis():
    # 46 electrons of iodine are in the core of LANL2DZ, 28 in that of def2: the energy is that of the rest.
    iodide = Molecule([53], [[0.0, 0.0, 0.0]], -1)
    for basis, least in (("lanl2dz", -12.0), ("def2-svp", -300.0)):
        energy = PySCF(functional="hf", basis=basis, density_fitting=False).label(iodide).energy / HARTREE
        assert least < energy < -10.0
    # control: all electrons.
    all_of_them = PySCF(functional="hf", basis="3-21g", density_fitting=False).label(iodide)
    assert all_of_them.energy / HARTREE < -6000.0


def test_a_gpu_is_never_taken_unless_it_is_asked_for(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gpu4pyscf", None)
    hydrogen = Molecule([1, 1], [[0, 0, 0], [0, 0, 0.074]])
    assert PySCF(functional="hf", **SMALL).label(hydrogen).record["program"] == "pyscf"
    asked = PySCF(functional="hf", **SMALL, device="gpu")
    assert asked.title.endswith("(gpu4pyscf)")
    with pytest.raises(MissingPackageError, match='device = "cpu"'):
        asked.label(hydrogen)


def test_energy_of_hydrogen_by_hand():
    # Szabo and Ostlund: H2 at 1.4 bohr in STO-3G, -1.1167 hartree.
    label = PySCF(functional="hf", basis="sto-3g").label(Molecule([1, 1], [[0, 0, 0], [0, 0, 1.4 * BOHR]]))
    assert label.energy / HARTREE == pytest.approx(-1.1167, abs=1e-4)


def test_the_dipole_is_the_derivative_with_respect_to_a_field():
    # Two opposite charges far away make a field of 2 q / (4 pi eps0 d^2) along z.
    start, far = water_among_charges(), 50.0
    method = PySCF(functional="hf", basis="6-31g", convergence=1e-12)
    alone = method.label(Molecule(start.numbers, start.positions))

    def energy(charge: float) -> float:
        external = PointCharges([[0, 0, far], [0, 0, -far]], [charge, -charge])
        return method.label(Molecule(start.numbers, start.positions, external=external)).energy

    charge = 500.0
    slope = (energy(charge) - energy(-charge)) / (2 * charge)
    assert alone.dipole[2] * 2 * HARTREE * BOHR / far**2 == pytest.approx(slope, rel=1e-3, abs=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["acetate", "methylammonium", "n_methylacetamide"])
def test_interactions_with_water_are_those_of_the_reference(name):
    method = PySCF(grid_level=2, convergence=1e-7, forces=False)
    alone, among = (method.label(molecule(name, charges)).energy for charges in (False, True))
    assert (among - alone) / KILOCALORIE == pytest.approx(VALUES[f"dft/{name}/kcal"][0], abs=0.06)


def test_not_converged_is_said():
    label = PySCF(**SMALL, iterations=1, second_order=False).label(water_among_charges())
    assert not label.converged and np.isnan(label.energy) and "1 iterations" in label.record["failure"]


def test_newtons_method_goes_on():
    # Three iterations are too few for the plain ones.
    start = water_among_charges()
    plain = PySCF(functional="hf", **SMALL).label(start)
    label = PySCF(functional="hf", **SMALL, iterations=4, convergence=1e-10).label(start)
    assert label.converged and label.record["solver"] == "second order"
    assert label.energy == pytest.approx(plain.energy, abs=1e-5)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"functional": "wb97y"}, "a functional that PySCF knows"),
        ({"functional": "wb97x-d"}, "a functional that PySCF knows"),
        ({"basis": "6-32g"}, "a basis set of PySCF"),
        ({"basis": " "}, "a basis"),
        ({"basis": "gth-dzvp"}, "a pseudopotential of crystals"),
        ({"grid_level": 12}, "grid_level"),
    ],
)
def test_names_that_do_not_exist(options, said):
    with pytest.raises(ConfigError, match=said):
        PySCF(**options).label(molecule("water", charges=False))
