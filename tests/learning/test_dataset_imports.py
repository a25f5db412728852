"""Data sets of others: formats by their layout, exact conversions, and other units refused by name."""

from __future__ import annotations

import dataclasses

import ase
import ase.io
import h5py
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from labelled_pairs import METHOD, labelled_pairs

from mlmm.errors import ConfigError
from mlmm.learning.dataset.imports import import_labels
from mlmm.learning.dataset.store import Dataset
from mlmm.units import ANGSTROM, BOHR, ELECTRONVOLT, HARTREE, KILOCALORIE

FACTORS = {"eV": ELECTRONVOLT, "hartree": HARTREE, "kcal/mol": KILOCALORIE}
PAIRS = labelled_pairs(12, charges=0)


def _write_ase(path, energy: float = ELECTRONVOLT, length: float = ANGSTROM, sign: float = 1.0, **info):
    """Frames as ASE writes them, in units of the given size."""
    frames = []
    for molecule, label in PAIRS:
        atoms = ase.Atoms(numbers=molecule.numbers, positions=molecule.positions / length)
        atoms.info.update(info)
        forces = sign * label.forces / (energy / length)
        atoms.calc = SinglePointCalculator(atoms, energy=label.energy / energy, forces=forces)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def _check(found, forces: bool = True) -> None:
    assert len(found) == len(PAIRS)
    for (molecule, label), (molecule_, label_) in zip(found, PAIRS, strict=True):
        np.testing.assert_allclose(molecule.positions, molecule_.positions, atol=2e-9)
        np.testing.assert_allclose(label.energy, label_.energy, rtol=1e-9)
        if forces:
            np.testing.assert_allclose(label.forces, label_.forces, atol=2e-3)


def test_extended_xyz_of_ase(tmp_path):
    _write_ase(tmp_path / "a.xyz", charge=1, multiplicity=2, config_type="md")
    found = import_labels(tmp_path / "a.xyz", "B3LYP")
    _check(found)
    assert found[3][0].origin == {"run": "a.xyz", "frame": "3", "window": "md"}
    assert (found[0][0].charge, found[0][0].multiplicity, found[0][1].method) == (1, 2, "B3LYP")
    assert len(import_labels(tmp_path / "a.xyz", "B3LYP", most=5)) == 5


def test_export_is_read_again(tmp_path):
    made = Dataset.create(tmp_path / "set", METHOD)
    made.append(PAIRS)
    made.export(tmp_path / "b.xyz")
    found = import_labels(tmp_path / "b.xyz")
    _check(found)
    assert found[0][1].method == METHOD and found[4][0].origin["run"] == "runs/a"
    _check(import_labels(tmp_path / "set"))


@pytest.mark.parametrize("energy", FACTORS)
@pytest.mark.parametrize("length", ["angstrom", "bohr"])
def test_stated_units(tmp_path, energy, length):
    _write_ase(tmp_path / "a.xyz", FACTORS[energy], {"angstrom": ANGSTROM, "bohr": BOHR}[length])
    _check(import_labels(tmp_path / "a.xyz", "x", energy_unit=energy, length_unit=length))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        # The energies of the springs are those of water, -76 hartree.
        ({"energy": HARTREE}, "energies look like hartree; they were taken to be in eV"),
        ({"energy": KILOCALORIE}, "energies look like kcal/mol; they were taken to be in eV"),
        ({"length": 1.0}, "positions look like nm; they were taken to be in angstrom"),
        ({"length": BOHR}, "positions look like bohr; they were taken to be in angstrom"),
        ({"sign": -1.0}, "gradients in place of forces"),
    ],
)
def test_wrong_units_are_named(tmp_path, wrong, said):
    _write_ase(tmp_path / "a.xyz", **wrong)
    with pytest.raises(ConfigError, match=said):
        import_labels(tmp_path / "a.xyz", "x")
    import_labels(tmp_path / "a.xyz", "x", check=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.set_pbc(True), "molecules without periodic images in frame 0"),
        (lambda a: setattr(a, "calc", None), "energy=… in frame 0"),
        (lambda a: None, "a level of theory in frame 0"),
    ],
)
def test_frames_that_cannot_be_used(tmp_path, change, said):
    atoms = ase.Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], cell=[9, 9, 9])
    atoms.calc = SinglePointCalculator(atoms, energy=-31.0)
    change(atoms)
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    with pytest.raises(ConfigError, match=said):
        import_labels(tmp_path / "a.xyz", "x" if "theory" not in said else "")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="Correct the path"):
        import_labels(tmp_path / "none.xyz", "x")
    (tmp_path / "bad.xyz").write_text("2\nenergy=1\nH 0 0 0\n")
    with pytest.raises(ConfigError, match="extended XYZ in"):
        import_labels(tmp_path / "bad.xyz", "x")
    (tmp_path / "bad.h5").write_text("no")
    with pytest.raises(ConfigError, match="an HDF5 file at"):
        import_labels(tmp_path / "bad.h5")
    (tmp_path / "a.dat").write_text("no")
    with pytest.raises(ConfigError, match=r"\.extxyz, \.h5"):
        import_labels(tmp_path / "a.dat")


def _arrays():
    positions = np.array([molecule.positions for molecule, _ in PAIRS])
    energies = np.array([label.energy for _, label in PAIRS])
    return positions, energies, np.array([label.forces for _, label in PAIRS])


def test_layout_of_ani_1x(tmp_path):
    """Groups by formula, levels side by side, NaN where a structure was not computed at one."""
    positions, energies, forces = _arrays()
    cc = energies / HARTREE
    cc[3] = np.nan
    with h5py.File(tmp_path / "ani.h5", "w") as file:
        group = file.create_group("H2O1")
        group["atomic_numbers"] = np.array([8, 1, 1], dtype=np.uint8)
        group["coordinates"] = positions / ANGSTROM
        group["wb97x_dz.energy"] = energies / HARTREE
        group["wb97x_dz.forces"] = forces / (HARTREE / ANGSTROM)
        group["ccsd(t)_cbs.energy"] = cc
    found = import_labels(tmp_path / "ani.h5")
    _check(found)
    assert found[5][0].origin == {"run": "ani.h5", "window": "H2O1", "frame": "5"}
    assert found[0][1].method == "wb97x_dz"
    others = import_labels(tmp_path / "ani.h5", level="ccsd(t)_cbs")
    assert len(others) == 11 and others[3][0].origin["frame"] == "4" and others[0][1].forces is None
    with pytest.raises(ConfigError, match=r"mp2\.energy in"):
        import_labels(tmp_path / "ani.h5", level="mp2")


def test_older_layout_of_ani(tmp_path):
    positions, energies, _ = _arrays()
    with h5py.File(tmp_path / "ani.h5", "w") as file:
        group = file.create_group("gdb11/water")
        group["species"] = np.array([b"O", b"H", b"H"])
        group["coordinates"] = positions / ANGSTROM
        group["energies"] = energies / HARTREE
    _check(import_labels(tmp_path / "ani.h5", "wB97X/6-31G*"), forces=False)


@pytest.mark.parametrize("with_charges", [True, False])
def test_layout_of_spice(tmp_path, with_charges):
    positions, energies, forces = _arrays()
    with h5py.File(tmp_path / "spice.hdf5", "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"] = np.array([8, 1, 1])
        group["conformations"] = positions / BOHR
        group["dft_total_energy"] = energies / HARTREE
        group["dft_total_gradient"] = -forces / (HARTREE / BOHR)
        group["smiles"] = np.array([b"[O-2:1]([H:2])[NH3+:3]"])
        if with_charges:
            group["mbis_charges"] = np.tile([-1.2, 0.1, 0.1], (12, 1))[:, :, None]
    found = import_labels(tmp_path / "spice.hdf5")
    _check(found)
    assert found[0][0].charge == -1 and found[0][1].method.startswith("wB97M")
    # Negative control: forces in place of gradients.
    with h5py.File(tmp_path / "spice.hdf5", "a") as file:
        file["water/dft_total_gradient"][...] = forces / (HARTREE / BOHR)
    with pytest.raises(ConfigError, match="gradients in place of forces"):
        import_labels(tmp_path / "spice.hdf5")


def test_import_goes_into_a_set(tmp_path):
    made = Dataset.create(tmp_path / "set", METHOD)
    pairs = [(m, dataclasses.replace(label, method=METHOD)) for m, label in PAIRS]
    made.append(pairs)
    other = Dataset.create(tmp_path / "other", METHOD)
    other.append(import_labels(tmp_path / "set"))
    assert len(other) == 12
