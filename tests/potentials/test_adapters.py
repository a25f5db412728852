"""Adapters: models of other packages by the contract, against their own calculators; bad files by errors."""

from __future__ import annotations

import importlib
import math
from typing import Optional

import numpy as np
import pytest
import torch
from toys import chains, energy_and_forces

import mlmm
from mlmm.errors import EmbeddingError, MissingPackageError, PotentialError
from mlmm.hybrid.rules import choose_scheme
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import ASEPotential, check_potential, save_torchscript
from mlmm.potentials.base import check_state
from mlmm.potentials.contract.probes import random_molecule
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, ELECTRONVOLT, HARTREE
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

CUTOFF = 4.0  # angstrom


class PairsInElectronvolt(torch.nn.Module):
    """What a user brings: eV and angstrom, isolated-atom energies inside."""

    def __init__(self, strength: float = 3.0):
        super().__init__()
        self.cutoff = CUTOFF
        self.strength = torch.nn.Parameter(torch.tensor(strength, dtype=torch.float64))

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], numbers: torch.Tensor
    ) -> torch.Tensor:
        separation = positions.unsqueeze(0) - positions.unsqueeze(1)
        if cell is not None:
            separation = separation - torch.round(separation[..., 2:3] / cell[2, 2]) * cell[2]
            separation = separation - torch.round(separation[..., 1:2] / cell[1, 1]) * cell[1]
            separation = separation - torch.round(separation[..., 0:1] / cell[0, 0]) * cell[0]
        same = torch.eye(positions.shape[0], dtype=positions.dtype)
        squared = separation.square().sum(-1) / self.cutoff**2 + 2.0 * same
        scale = numbers.to(torch.float64).sqrt()
        terms = (
            self.strength * (1.0 - squared).clamp(min=0.0).pow(3) * scale.unsqueeze(0) * scale.unsqueeze(1)
        )
        return terms.sum(dim=1) - 13.0 * numbers.to(torch.float64)


FACTS = {
    "name": "pairs",
    "elements": ["H", "C", "O"],
    "cutoff": CUTOFF,
    "receptive_field": CUTOFF,
    "trained_on": "total",
    "units": {"energy": "eV", "length": "angstrom"},
    "reference_energies": {"H": -13.0, "C": -78.0, "O": -104.0},
    "reference_energies_included": True,
}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "pairs.pt"
    save_torchscript(PairsInElectronvolt(), path, FACTS)
    return path


def test_torchscript_file_keeps_the_contract(script):
    def load():
        return mlmm.load_potential(str(script))

    report = check_potential(load(), reload=load)
    assert report.passed, str(report)
    assert any(result.name == "some atoms less the same among all" for result in report.results)


def test_torchscript_units_and_references(script):
    """Two atoms at a quarter of the cutoff, by hand."""
    model = mlmm.load_potential(str(script))
    assert model.spec.elements == (1, 6, 8) and model.spec.cutoff == pytest.approx(0.4)
    assert model.spec.reference_energies[8] == pytest.approx(-104 * ELECTRONVOLT)
    pair = Structure(torch.tensor([6, 8]), torch.tensor([[0, 0, 0], [0.1, 0, 0]], dtype=torch.float64))
    expected = 2 * 3.0 * math.sqrt(48) * (1 - 1 / 16) ** 3 * ELECTRONVOLT
    energy, forces = mlmm.energy_and_forces(model, pair)
    assert energy == pytest.approx(expected, rel=1e-12)
    slope = 2 * 3.0 * math.sqrt(48) * 6 * (1 - 1 / 16) ** 2 * 0.1 / 0.4**2 * ELECTRONVOLT
    assert float(forces[1, 0]) == pytest.approx(slope, rel=1e-12)
    with pytest.raises(PotentialError, match=r"only elements that pairs knows \(H C O\), but got N"):
        model.atom_energies(Structure(torch.tensor([7]), torch.zeros(1, 3, dtype=torch.float64)))


def test_torchscript_file_in_both_hosts(script):
    """The same energy through a TorchForce and a PythonForce, with a smooth zone."""
    built = chains(n_molecules=3, n_atoms=5)
    region = region_from_atoms(built.topology, range(5))
    energies = []
    for bridge in ("torchforce", "pythonforce"):
        zones = static_zones(built, region, "0 nm", "0.3 nm", "atom")
        hybrid = hybrid_system(
            built, zones, mlmm.load_potential(str(script)), scheme="per_atom", bridge=bridge
        )
        energies.append(energy_and_forces(hybrid.system, built.positions))
    assert energies[0][0] == pytest.approx(energies[1][0], rel=1e-10)
    assert np.abs(energies[0][1] - energies[1][1]).max() < 1e-8 * np.abs(energies[0][1]).max()


class OtherArguments(torch.nn.Module):
    def forward(self, species: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        return coordinates.sum(dim=1)


def test_torchscript_files_that_are_refused(tmp_path, script):
    def message(path, **options):
        with pytest.raises(PotentialError) as caught:
            mlmm.load_potential(str(path), **options)
        return str(caught.value)

    other = tmp_path / "other.pt"
    torch.jit.save(torch.jit.script(OtherArguments()), str(other))
    text = message(other)
    assert "got forward(species: Tensor, coordinates: Tensor)" in text and "save_torchscript" in text
    bare = tmp_path / "bare.pt"
    torch.jit.save(torch.jit.script(PairsInElectronvolt()), str(bare))
    assert "metadata in the extra file mlmm.json" in message(bare)
    for change, expected in (
        ({"units": {"energy": "rydberg", "length": "angstrom"}}, "units of kJ/mol | eV"),
        ({"elements": ["Q"]}, "symbols of elements"),
        ({"colour": "red"}, "unknown ['colour']"),
    ):
        with pytest.raises(PotentialError) as caught:
            save_torchscript(PairsInElectronvolt(), tmp_path / "no.pt", FACTS | change)
        assert expected in str(caught.value)
    with pytest.raises(PotentialError, match="missing \\['cutoff'\\]"):
        save_torchscript(
            PairsInElectronvolt(), tmp_path / "no.pt", {k: FACTS[k] for k in FACTS if k != "cutoff"}
        )
    save_torchscript(PairsInElectronvolt(float("nan")), tmp_path / "nan.pt", FACTS)
    assert "finite weights in" in message(tmp_path / "nan.pt")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(script.read_bytes()[:-200])
    assert "a TorchScript file at" in message(broken)
    assert "members of an ANI committee only" in message(script, members=[0])


@pytest.mark.parametrize("name", ["model.model", "model.pth", "model.pt"])
def test_pickles_need_trust(tmp_path, monkeypatch, name):
    """The code in the pickle does not run."""
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    torch.save(Evil(), tmp_path / name)
    for module in ("mace", "sevenn", "aimnet"):
        monkeypatch.setattr(
            importlib.import_module(f"mlmm.potentials.adapters.{_ADAPTERS[module]}"), "_package", lambda: None
        )
    with pytest.raises(PotentialError, match="a pickle, which runs code when it is read, but got none given"):
        mlmm.load_potential(str(tmp_path / name))
    assert not ran.exists()


_ADAPTERS = {"mace": "mace", "sevenn": "sevennet", "aimnet": "aimnet"}


@pytest.mark.parametrize(
    ("name", "package", "line"),
    [
        ("mace-off23-small", "mace", "pip install mace-torch==0.3.16"),
        ("aimnet2", "aimnet", "pip install aimnet==0.2.5"),
        ("sevennet0", "sevenn", "pip install sevenn==0.13.0"),
    ],
)
def test_missing_packages_end_with_the_line_that_installs_them(name, package, line):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingPackageError) as caught:
        mlmm.load_potential(name)
    assert line in str(caught.value).split(";")[-1]


@pytest.fixture
def lennard_jones():
    ase = pytest.importorskip("ase.calculators.lj", reason="pip install ase")
    return ase.LennardJones(sigma=1.5, epsilon=0.05, rc=4.0, smooth=True)


def lj_potential(calculator, **facts):
    known = {"cutoff": 0.4, "receptive_field": 0.4, "elements": (1, 6, 8)}
    return ASEPotential(calculator, name="LJ", **(known | facts))


def test_ase_calculator_keeps_the_contract(lennard_jones):
    report = check_potential(lj_potential(lennard_jones, reference_energies={6: -100.0}))
    assert report.passed, str(report)


def test_ase_calculator_has_forces_for_whole_energies_only(lennard_jones):
    model = lj_potential(lennard_jones)
    assert not model.spec.per_atom
    built = chains()
    region = region_from_atoms(built.topology, range(4))
    with pytest.raises(EmbeddingError, match="per_atom = False"):
        hybrid_system(built, hard_zones(built, region), model, scheme="per_atom")
    assert hybrid_system(built, hard_zones(built, region), model).scheme == "additive"
    part = region_from_atoms(built.topology, range(2), "atoms")
    assert choose_scheme("auto", hard_zones(built, part), model.spec).name == "supermolecular"
    molecule = random_molecule([1, 6, 8])
    where = molecule.positions.clone().requires_grad_(True)
    energies = model.atom_energies(Structure(molecule.numbers, where)).energies
    with pytest.raises(PotentialError, match="the gradient of a total energy"):
        torch.autograd.grad((energies * torch.arange(len(energies))).sum(), where)


def test_ase_calculators_that_are_refused(lennard_jones):
    with pytest.raises(PotentialError, match="energy and forces for X, but got one without"):
        ASEPotential(object(), name="X", elements=[1])
    with pytest.raises(PotentialError, match="a calculator that ASE knows by name, but got 'nonsense'"):
        mlmm.load_potential("ase:nonsense")
    emt = mlmm.load_potential("ase:emt")
    assert emt.spec.long_range and not emt.spec.per_atom
    with pytest.raises(PotentialError, match=r"energy and forces from EMT, but got .*EMT"):
        emt.atom_energies(random_molecule([54]))
    lennard_jones.parameters["epsilon"] = float("nan")
    with pytest.raises(PotentialError, match="finite energy and forces from LennardJones"):
        lj_potential(lennard_jones).atom_energies(random_molecule([1, 6]))


def test_charge_and_multiplicity_must_fit_the_electrons(lennard_jones):
    plain, charged = lj_potential(lennard_jones), lj_potential(lennard_jones, charges=True, spins=True)
    water = torch.tensor([8, 1, 1])
    where = torch.tensor([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], dtype=torch.float64)
    check_state(charged.spec, Structure(water, where, None, 0, 1))
    check_state(charged.spec, Structure(water, where, None, 1, 2))
    check_state(plain.spec, Structure(water, where, None, 1, 1))  # hybrid_system warns of it
    for charge, spin in ((1, 1), (0, 2), (0, 0)):
        with pytest.raises(PotentialError, match=r"a multiplicity that \d+ electrons can have"):
            charged.atom_energies(Structure(water, where, None, charge, spin))
    with pytest.raises(
        PotentialError, match="multiplicity 1 for LJ, which describes closed shells, but got multiplicity 3"
    ):
        plain.atom_energies(Structure(water, where, None, 0, 3))
    built = chains()
    region = region_from_atoms(built.topology, range(4))
    with pytest.raises(EmbeddingError, match="charges = True"):
        hybrid_system(built, hard_zones(built, region), charged, scheme="supermolecular")


def test_ani_file_with_weights_that_are_not_finite(tmp_path):
    from mlmm.potentials.ani.files import load_ani_file, save_ani_file

    parameters, about = load_ani_file(mlmm.potentials.find_model(mlmm.potentials.known_potentials()[0]))
    parameters.biases["C"][0][0, 0] = np.nan
    save_ani_file(parameters, tmp_path / "nan.safetensors", about)
    with pytest.raises(
        PotentialError, match=r"finite weights in .*nan.safetensors, but got NaN or infinity in C.0.bias"
    ):
        mlmm.load_potential(str(tmp_path / "nan.safetensors"))


def small_mace():
    mace = pytest.importorskip("mace.modules", reason="pip install mace-torch==0.3.16")
    from e3nn import o3

    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    try:
        return mace.models.ScaleShiftMACE(
            atomic_inter_scale=1.3,
            atomic_inter_shift=0.1,
            r_max=4.5,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=mace.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=mace.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=5,
            hidden_irreps=o3.Irreps("16x0e+16x1o"),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.array([-13.6, -1029.0, -1484.0, -2042.0, -10800.0]),
            avg_num_neighbors=8.0,
            atomic_numbers=[1, 6, 7, 8, 16],
            correlation=3,
            gate=torch.nn.functional.silu,
        )
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_mace_keeps_the_contract_and_is_its_own_calculator(tmp_path, precision):
    """A small random model of the real architecture, from its own file format."""
    torch.save(small_mace(), tmp_path / "small.model")

    def load():
        return mlmm.load_potential(str(tmp_path / "small.model"), precision=precision, trust=True)

    report = check_potential(load(), reload=load)
    assert report.passed, str(report)
    names = [result.name for result in report.results]
    assert "forces less the original's / largest force" in names and "receptive field, measured" in names
    assert load().spec.reference_energies[6] == pytest.approx(-1029 * ELECTRONVOLT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sevennet_keeps_the_contract_and_is_its_own_calculator():
    """The published weights, which the package ships."""
    pytest.importorskip("sevenn", reason="pip install sevenn==0.13.0")

    def load():
        return mlmm.load_potential("sevennet0")

    report = check_potential(load(), elements=(1, 6, 7, 8, 16), reload=load)
    assert report.passed, str(report)
    assert "forces less the original's / largest force" in [result.name for result in report.results]
    with pytest.raises(PotentialError, match='precision "float32" for SevenNet'):
        mlmm.load_potential("sevennet0", precision="float64")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_aimnet_keeps_the_contract_and_is_its_own_calculator():
    """A random model of the published architecture with its long-range Coulomb energy."""
    aimnet = pytest.importorskip("aimnet", reason="pip install aimnet==0.2.5 ase")
    import yaml
    from aimnet.calculators import AIMNet2Calculator
    from aimnet.config import build_module

    from mlmm.potentials.adapters.aimnet import AIMNet2Potential

    torch.manual_seed(3)
    folder = importlib.resources.files(aimnet)
    model = build_module(yaml.safe_load((folder / "models/aimnet2.yaml").read_text())).eval()
    for module in model.modules():
        if type(module).__name__ == "AtomicShift":
            module.shifts.double().weight.data.copy_(-30.0 * torch.arange(64).unsqueeze(1))
    potential = AIMNet2Potential(AIMNet2Calculator(model, device="cpu"), [1, 6, 7, 8, 16])
    assert potential.spec.reference_energies[8] == pytest.approx(-240 * ELECTRONVOLT)
    report = check_potential(potential)
    assert report.passed, str(report)
    molecule = random_molecule([1, 6, 8], seed=1, spin_pairs=True)
    for charge in (0, 2, -2):
        charged = Structure(molecule.numbers, molecule.positions, None, charge)
        assert float(potential.atom_energies(charged).charges.sum()) == pytest.approx(charge, abs=1e-3)
    with pytest.raises(PotentialError, match="a multiplicity that"):
        potential.atom_energies(Structure(molecule.numbers, molecule.positions, None, 1))


def test_units_of_adapters_are_the_engines():
    from mlmm.potentials.adapters.graph import ENERGY_UNITS, LENGTH_UNITS

    assert ENERGY_UNITS["eV"] == ELECTRONVOLT and ENERGY_UNITS["hartree"] == HARTREE
    assert LENGTH_UNITS["angstrom"] == ANGSTROM
