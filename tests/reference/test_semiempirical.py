"""tblite and AIQM2: values, parts, differences, what they refuse."""

import numpy as np
import pytest
from reference_molecules import VALUES, force_by_differences, molecule, water_among_charges, worst_difference

from mlmm.errors import ConfigError, MissingPackageError, PotentialError
from mlmm.reference.aiqm2 import AIQM2, D4_DAMPING, dispersion_energy
from mlmm.reference.aiqm2_files import find_networks, install_networks, read_networks
from mlmm.reference.labels import Molecule
from mlmm.reference.tblite import TBLite
from mlmm.reference.xtb import XTB
from mlmm.reference.xtb_library import find_xtb
from mlmm.units import BOHR, HARTREE, KILOCALORIE

AMONG_CHARGES = ("acetate", "n_methylacetamide", "chorismate_TS")


@pytest.fixture(scope="module")
def xtb():
    try:
        find_xtb()
    except MissingPackageError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def networks(xtb):
    """The published networks; they are never shipped."""
    try:
        return find_networks()
    except PotentialError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", ["water", "acetate", "methylammonium", "chorismate_TS"])
def test_tblite_has_the_values_of_xtb(name):
    pytest.importorskip("tblite")
    label = TBLite(accuracy=0.01).label(molecule(name, charges=False))
    assert label.energy / HARTREE == pytest.approx(VALUES[f"{name}/gfn2/E_vacuum"], abs=1e-7)


def test_charges_and_dipole_of_two_programs_agree(xtb):
    pytest.importorskip("tblite")
    start = molecule("acetate", charges=False)
    one, other = TBLite(accuracy=0.01).label(start), XTB(accuracy=0.01).label(start)
    np.testing.assert_allclose(one.charges, other.charges, atol=1e-6)
    np.testing.assert_allclose(one.dipole, other.dipole, atol=1e-6)
    np.testing.assert_allclose(one.forces, other.forces, atol=5e-3)
    assert one.method != other.method


def test_unpaired_and_hot_electrons_are_those_of_xtb(xtb):
    pytest.importorskip("tblite")
    start = molecule("acetate", charges=False)
    triplet = Molecule(start.numbers, start.positions, -1, 3)
    energies = []
    for one, kelvin in ((start, 300.0), (start, 8000.0), (triplet, 300.0)):
        options = {"accuracy": 0.01, "electronic_temperature": f"{kelvin} K"}
        energies.append(TBLite(**options).label(one).energy)
        assert energies[-1] == pytest.approx(XTB(**options).label(one).energy, abs=0.01)
    # Both count: hot electrons lower the free energy, the triplet lies far above.
    assert energies[1] < energies[0] - 1.0 and energies[2] > energies[0] + 100.0


@pytest.mark.parametrize("options", [{}, {"solvent": "water"}, {"hamiltonian": "GFN1-xTB"}])
def test_forces_of_tblite_are_the_gradient(options):
    pytest.importorskip("tblite")
    method, start = TBLite(accuracy=1e-3, **options), molecule("acetate", charges=False)
    assert worst_difference(method, start, range(3)) < 5e-3
    other = TBLite(accuracy=1e-3, hamiltonian="GFN1-xTB" if "hamiltonian" not in options else "GFN2-xTB")
    assert abs(force_by_differences(other, start, 2, 2) - method.label(start).forces[2, 2]) > 1.0


def test_a_solvent_lowers_the_energy_of_an_ion():
    pytest.importorskip("tblite")
    start = molecule("acetate", charges=False)
    # Born's energy of a sphere of 0.2 nm is -340 kJ/mol.
    gain = TBLite(solvent="water").label(start).energy - TBLite().label(start).energy
    assert -400 < gain < -200


def test_what_tblite_refuses():
    pytest.importorskip("tblite")
    with pytest.raises(ConfigError, match="without point charges"):
        TBLite().label(water_among_charges())
    with pytest.raises(ConfigError, match="a solvent that ALPB"):
        TBLite(solvent="watr").label(molecule("water", charges=False))
    label = TBLite(iterations=2).label(molecule("acetate", charges=False))
    assert not label.converged and "2 cycles" in label.record["failure"]


@pytest.mark.parametrize("name", ["allyl_vinyl_ether", "allyl_vinyl_ether_TS", "water_dimer", "chorismate_R"])
def test_aiqm2_in_its_parts(networks, name):
    torch = pytest.importorskip("torch")
    from mlmm.reference.aiqm2_networks import AIQM2Networks

    key, start = f"aiqm2/{name}", molecule(f"aiqm2/{name}", charges=False)
    correction = AIQM2Networks(networks)
    energies, gradient = correction(start.numbers, start.positions)
    np.testing.assert_allclose(energies, VALUES[f"{key}/E_nets"], atol=1e-12)
    np.testing.assert_allclose(gradient, VALUES[f"{key}/grad_nets"], atol=1e-12)
    np.testing.assert_allclose(AIQM2().member_energies(start) / HARTREE, energies, atol=1e-12)
    _, dispersion, slope = dispersion_energy(start)
    assert dispersion == pytest.approx(VALUES[f"{key}/E_d4"], abs=1e-12)
    np.testing.assert_allclose(slope, VALUES[f"{key}/grad_d4"], atol=1e-12)
    label = AIQM2().label(start)
    assert label.energy / HARTREE == pytest.approx(VALUES[f"{key}/E_total_with_shift"], abs=1e-9)
    np.testing.assert_allclose(-label.forces * BOHR / HARTREE, VALUES[f"{key}/grad"], atol=1e-7)
    if f"{key}/aev" in VALUES:
        found = correction.environments(start.numbers, torch.tensor(VALUES[f"{key}/x"]))
        np.testing.assert_allclose(found[:4], VALUES[f"{key}/aev"], atol=1e-13)


@pytest.mark.parametrize("name", AMONG_CHARGES)
def test_aiqm2_among_point_charges(networks, name):
    key, label = f"aiqm2/{name}/tip3p_droplet", AIQM2().label(molecule(name))
    assert label.energy / HARTREE == pytest.approx(VALUES[f"{key}/E_total_with_shift"], abs=1e-8)
    np.testing.assert_allclose(-label.forces * BOHR / HARTREE, VALUES[f"{key}/grad"], atol=1e-7)
    on_charges = -label.external_forces * BOHR / HARTREE
    np.testing.assert_allclose(on_charges, VALUES[f"{key}/grad_mm"], atol=1e-7)


def test_d4_by_the_name_of_the_functional_is_another_one():
    interface = pytest.importorskip("dftd4.interface")
    start = molecule("aiqm2/chorismate_R", charges=False)
    model = interface.DispersionModel(start.numbers, start.positions / BOHR, charge=-2.0)
    by_name = model.get_dispersion(interface.DampingParam(method="wb97x"), grad=False)["energy"]
    assert by_name == pytest.approx(VALUES["aiqm2/chorismate_R/E_d4_by_name"], abs=1e-10)
    difference = (by_name - dispersion_energy(start)[1]) * HARTREE / KILOCALORIE
    assert abs(difference) > 30 and D4_DAMPING["s8"] < 0


def test_forces_of_aiqm2_are_the_gradient_on_both_sides(networks):
    method, start = AIQM2(accuracy=1e-3), water_among_charges()
    assert worst_difference(method, start, range(3), range(3)) < 5e-3
    label = method.label(start)
    assert np.abs(label.forces.sum(axis=0) + label.external_forces.sum(axis=0)).max() < 1e-6
    # control: without the correction of the networks.
    plain = XTB(dispersion=False, accuracy=1e-3).label(start).forces
    assert np.abs(plain - label.forces).max() > 1.0


def test_what_aiqm2_refuses(tmp_path):
    with pytest.raises(ConfigError, match="elements that AIQM2"):
        AIQM2().label(Molecule([9, 1], [[0, 0, 0], [0, 0, 0.09]]))
    with pytest.raises(PotentialError, match="mlmm label --install aiqm2"):
        find_networks(str(tmp_path))
    (tmp_path / "cv0.pt").write_bytes(b"nothing")
    with pytest.raises(PotentialError, match="as published"):
        read_networks(find_networks(str(tmp_path)))


def test_networks_come_out_of_the_wheel_with_its_licence(tmp_path, monkeypatch, networks):
    import zipfile

    wheel = tmp_path / "mlatom.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for k in range(8):
            file.write(networks / f"cv{k}.pt", f"mlatom/mlatom_models/aiqm2_model/cv{k}.pt")
        file.writestr("mlatom-3.25.5.dist-info/LICENSE.txt", "a licence")
    for name in ("MLMM_MODELS", "MLMM_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("mlmm.reference.aiqm2_files.fetch_wheel", lambda *_: wheel)
    target = install_networks(lambda _: None)
    assert (target / "LICENSE.txt").read_text() == "a licence" and find_networks() == target
    assert read_networks(target)["H"][0][0].shape == (8, 160, 384)
