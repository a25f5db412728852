"""Forces of the hybrid system: the negative gradient of its energy, the same through both bridges."""

from __future__ import annotations

import numpy as np
import pytest
import tolerances
from toys import PlainSprings, SpringPotential, WrongForces, chains, energy_and_forces

from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import finite_difference_error
from mlmm.zones.region import region_from_atoms, select_region
from mlmm.zones.static import hard_zones

BRIDGES = ["torchforce", "pythonforce"]


def hybrid_dipeptide(built, potential, bridge):
    return hybrid_system(
        built,
        hard_zones(built, select_region(built, "resname ACE ALA NME")),
        potential,
        scheme="additive",
        bridge=bridge,
    )


@pytest.mark.parametrize("bridge", BRIDGES)
@pytest.mark.parametrize("system", ["dipeptide_vacuum", "dipeptide_water"])
def test_finite_differences_with_ani(request, ani1x, system, bridge):
    hybrid = hybrid_dipeptide(request.getfixturevalue(system), ani1x, bridge)
    assert finite_difference_error(hybrid, n_coordinates=30) < tolerances.FINITE_DIFFERENCE


@pytest.mark.parametrize("box", [None, 3.0])
@pytest.mark.parametrize("potential", [SpringPotential(), PlainSprings()], ids=["script", "plain"])
def test_finite_differences_with_springs(potential, box):
    built = chains(box=box)
    hybrid = hybrid_system(built, hard_zones(built, region_from_atoms(built.topology, range(4))), potential)
    assert finite_difference_error(hybrid) < tolerances.FINITE_DIFFERENCE


def test_finite_differences_find_a_wrong_force():
    """Negative control."""
    built = chains()
    zones = hard_zones(built, region_from_atoms(built.topology, range(4)))
    hybrid = hybrid_system(built, zones, WrongForces(), bridge="pythonforce")
    assert finite_difference_error(hybrid) > 1000 * tolerances.FINITE_DIFFERENCE


@pytest.mark.parametrize("system", ["dipeptide_vacuum", "dipeptide_water"])
def test_bridges_agree(request, ani1x, system):
    built = request.getfixturevalue(system)
    (energy, forces), (other_energy, other_forces) = (
        energy_and_forces(hybrid_dipeptide(built, ani1x, bridge).system, built.positions)
        for bridge in BRIDGES
    )
    assert other_energy == pytest.approx(energy, rel=tolerances.BRIDGES)
    assert np.abs(forces - other_forces).max() < tolerances.BRIDGES * np.abs(forces).max()


def test_springs_have_their_exact_energy():
    """Two atoms at a known distance: 1/2 k (r - r0)^2, through region, embedding and bridge."""
    built = chains(n_molecules=1, n_atoms=2, box=None)
    zones = hard_zones(built, region_from_atoms(built.topology, [0, 1]))
    hybrid = hybrid_system(built, zones, SpringPotential(k=500.0, length=0.2))
    distance = np.linalg.norm(built.positions[1] - built.positions[0])
    energy, _ = energy_and_forces(hybrid.system, built.positions)
    assert energy == pytest.approx(0.5 * 500.0 * (distance - 0.2) ** 2, rel=1e-12)
