"""The hybrid system equals OpenMM-ML's mechanical embedding with the same region and the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
import torch
from toys import energy_and_forces

from mlmm.hybrid.system import hybrid_system
from mlmm.units import ANGSTROM
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones

ML = 7  # force group of the peer's potential


class DoublePrecision(torch.nn.Module):
    """Takes OpenMM-ML's float32 input to float64: what is compared is the embedding, not the rounding."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, species_coordinates, cell=None, pbc=None):
        species, coordinates = species_coordinates
        cell = None if cell is None else cell.double()
        return self.model((species, coordinates.double()), cell=cell, pbc=pbc)


# OpenMM-ML returns its energy as a tensor; the warning would be swallowed by OpenMM, and the energy with it.
@pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")
@pytest.mark.parametrize("system", ["dipeptide_vacuum", "dipeptide_water"])
@pytest.mark.parametrize("bridge", ["torchforce", "pythonforce"])
def test_equals_create_mixed_system(request, monkeypatch, ani1x, system, bridge):
    openmmml = pytest.importorskip("openmmml", reason="pip install openmmml==1.8 torchani==2.9.0")
    peers = pytest.importorskip("peers", reason="pip install torchani==2.9.0")
    built = request.getfixturevalue(system)
    model = peers.torchani_model(ani1x, "1x", torch.float64)
    # Its symmetry functions keep the constants in float32; both sides get the same numbers.
    monkeypatch.setattr(
        peers.torchani.models, "ANI2x", lambda **_: DoublePrecision(exact_constants(model, ani1x))
    )
    region = select_region(built, "resname ACE ALA NME")
    potential = openmmml.MLPotential("ani2x")
    peer = potential.createMixedSystem(built.topology, built.system, list(region.atoms), forceGroup=ML)
    hybrid = hybrid_system(built, hard_zones(built, region), ani1x, scheme="additive", bridge=bridge)
    # OpenMM-ML reads positions as float32 angstrom: start from positions that are such numbers, inside the
    # box.
    positions = built.positions
    if built.periodic:
        molecule = positions[list(region.atoms)]
        positions = positions + np.diag(built.box_vectors) / 2 - molecule.mean(axis=0)
    positions = (positions / ANGSTROM).astype(np.float32).astype(np.float64) * ANGSTROM
    energy, forces = energy_and_forces(hybrid.system, positions)
    numbers = hybrid.region_structure(positions).numbers.tolist()
    constant = sum(ani1x.spec.reference_energies[z] for z in numbers)
    peer_energy, _ = energy_and_forces(peer, positions)
    assert peer_energy - constant == pytest.approx(energy, rel=tolerances.PEER_RELATIVE)
    _, peer_mm = energy_and_forces(peer, positions, groups=0xFFFFFFFF ^ (1 << ML))
    _, peer_ml = energy_and_forces(peer, positions, groups=1 << ML)
    peer_forces = peer_mm + peer_ml * unit_factor(peer, positions, peer_ml)
    largest = np.abs(forces).max()
    assert np.abs(peer_forces - forces).max() < tolerances.PEER_RELATIVE * largest


def unit_factor(peer, positions: np.ndarray, forces: np.ndarray) -> float:
    """What the peer's forces must be multiplied by to be the gradient of the peer's own energy.

    OpenMM-ML 1.8 returns ANI forces in kJ/mol per angstrom where kJ/mol/nm is expected, so that they are ten
    times too small; the factor is measured here by a central difference, so that a corrected version passes
    as well.
    """
    direction = forces / np.linalg.norm(forces)
    delta = 1e-3
    plus, minus = (
        energy_and_forces(peer, positions + sign * delta * direction, groups=1 << ML)[0] for sign in (1, -1)
    )
    factor = -(plus - minus) / (2 * delta) / np.sum(forces * direction)
    assert factor == pytest.approx(round(factor), rel=0.01)
    assert round(factor) in (1, 10)
    return float(round(factor))


def exact_constants(model: torch.nn.Module, potential) -> torch.nn.Module:
    """torchani's constants in float64 as in the parameter file, not rounded to float32."""
    computer = model.potentials["nnp"].aev_computer
    constants = potential.parameters.constants
    for module, names in (
        (computer.radial, {"eta": "EtaR", "shifts": "ShfR"}),
        (computer.angular, {"eta": "EtaA", "zeta": "Zeta", "shifts": "ShfA", "sections": "ShfZ"}),
    ):
        for attribute, name in names.items():
            getattr(module, attribute).copy_(torch.as_tensor(constants[name]))
    return model
