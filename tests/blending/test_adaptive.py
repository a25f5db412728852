"""Adaptive zones: identities for any lambda(r), its force, smoothness, conservation, compensation."""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np
import openmm
import pytest
import tolerances
import torch
from adaptive_water import NOTHING, around_one, hybrid_of, relaxed_water
from energy_noise import energy_noise
from openmm import app, unit
from toys import ForceFieldPotential, PlainSprings, energy_and_forces, evaluate, reference_context

import mlmm
from mlmm.errors import ConfigError, EmbeddingError, SelectionError
from mlmm.forcefield.remove_terms import remove_zone_pairs
from mlmm.hybrid.assemble import assemble, join
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import energy_drift
from mlmm.zones.adaptive import AdaptiveWeights, UniformWeights, adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import molecules_of, region_from_atoms

SHIFT = 7.0  # kJ/mol


class Shifted(torch.nn.Module):
    """Another module with a constant on every atom."""

    def __init__(self, module):
        super().__init__()
        self.module, self.shift = module, SHIFT

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], centres: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        return self.module(positions, cell, centres) + self.shift


@pytest.fixture(scope="module")
def water():
    return relaxed_water()


def without_force_of_weights(hybrid):
    """Negative control: the same energy, its force without d lambda / dr."""
    # A TorchForce freezes its module, which throws every detach() away.
    spec = dataclasses.replace(hybrid.spec, bridge="pythonforce")
    blend = assemble(spec).blend
    blend.weight_forces = False
    system, embedding = remove_zone_pairs(hybrid.built.system, hybrid.zones.core)
    return join(spec, system, embedding, blend).system


def worst_difference(system, built, coordinates, delta=1e-5):
    """Largest error of forces against central differences, in units of the largest force.

    Of what differs from the force field, whose own energy jumps where a pair crosses its cutoff.
    """
    contexts = [reference_context(one) for one in (system, built.system)]

    def added(positions):
        (energy, forces), (mm, mm_forces) = (evaluate(context, positions) for context in contexts)
        return energy - mm, forces - mm_forces

    worst, (_, forces) = 0.0, added(built.positions)
    for atom, k in coordinates:
        energies = []
        for sign in (1, -1):
            moved = built.positions.copy()
            moved[atom, k] += sign * delta
            energies.append(added(moved)[0])
        worst = max(worst, abs(-(energies[0] - energies[1]) / (2 * delta) - forces[atom, k]))
    return worst / np.abs(forces).max()


def zone_coordinates(hybrid, n=18, seed=0):
    """Coordinates of the centre, of molecules in the zone, inside and outside of it."""
    positions = torch.tensor(hybrid.built.positions)
    weights = hybrid.zones.weights(positions, torch.tensor(hybrid.built.box_vectors)).numpy()
    generator = np.random.default_rng(seed)
    zone = (weights > 0) & (weights < 1)
    kinds = (np.arange(3), *(np.flatnonzero(mask) for mask in (weights == 1, zone, weights == 0)))
    assert all(len(kind) for kind in kinds)
    return [
        (int(generator.choice(kind)), int(generator.integers(3))) for kind in kinds for _ in range(n // 4)
    ]


def test_adaptive_weights_equal_their_definition(water):
    """1 − prod_a (1 − s(d_a)) with d_a from the oxygen to each centre over the nearest image."""
    zones = around_one(water, molecules=2)
    assert zones.centres == (0, 3)
    weights = zones.weights(torch.tensor(water.positions), torch.tensor(water.box_vectors)).numpy()
    box = np.diag(water.box_vectors)
    assert (weights[:6] == 1).all()
    for molecule in molecules_of(water.topology)[2:]:
        outside = 1.0
        for centre in zones.centres:
            separation = water.positions[molecule[0]] - water.positions[centre]
            distance = np.linalg.norm(separation - np.round(separation / box) * box)
            x = np.clip((distance - 0.25) / 0.3, 0, 1)
            outside *= x**3 * (10 - 15 * x + 6 * x**2)
        np.testing.assert_allclose(weights[list(molecule)], 1 - outside, atol=1e-12)


@pytest.mark.parametrize("bridge", ["torchforce", "pythonforce"])
def test_force_field_as_model_gives_the_force_field(water, bridge):
    """eps^ML = eps^MM gives the force field back for lambda(r), forces of lambda included (V2)."""
    hybrid = hybrid_of(water, around_one(water), ForceFieldPotential(water), bridge=bridge)
    expected, forces = energy_and_forces(water.system, water.positions)
    energy, found = energy_and_forces(hybrid.system, water.positions)
    assert energy == pytest.approx(expected, abs=tolerances.IDENTITY)
    assert np.abs(found - forces).max() < 1e-9 * np.abs(forces).max() + 1e-8


def test_forces_are_the_gradient_and_need_lambda(water):
    """Central differences for centre, zone, inside and outside (V1); without d lambda / dr they fail."""
    hybrid = hybrid_of(water, around_one(water), ForceFieldPotential(water, scale=1.2))
    coordinates = zone_coordinates(hybrid)
    assert worst_difference(hybrid.system, water, coordinates) < tolerances.FINITE_DIFFERENCE
    control = without_force_of_weights(hybrid)
    assert worst_difference(control, water, coordinates) > 1e-3


def test_finite_differences_with_ani_and_a_calibrated_curve(water, ani1x):
    curve = Compensation({"HOH": -4.0}, np.array([0, 0.3, 1]), {"HOH": np.array([0, 1.5, -2.0])})
    hybrid = hybrid_of(water, around_one(water), ani1x, curve)
    # Their error falls with the square of the displacement: 1.5e-6 at 1e-5 nm, 1.6e-8 at 1e-6 nm.
    assert (
        worst_difference(hybrid.system, water, zone_coordinates(hybrid), 3e-6) < tolerances.FINITE_DIFFERENCE
    )


def test_bridges_and_plain_models_agree(water, ani1x):
    class Plain:
        spec = ani1x.spec
        atom_energies = staticmethod(ani1x.atom_energies)

    zones = around_one(water)
    energy, forces = energy_and_forces(hybrid_of(water, zones, ani1x).system, water.positions)
    for potential in (ani1x, Plain()):
        hybrid = hybrid_of(water, zones, potential, bridge="pythonforce")
        other, found = energy_and_forces(hybrid.system, water.positions)
        assert other == pytest.approx(energy, abs=1e-8)
        assert np.abs(found - forces).max() < 1e-9 * np.abs(forces).max() + 1e-8


def test_no_net_force_no_torque_and_any_image(water, ani1x):
    """The zone's centre takes the recoil (V15); molecules moved by box vectors change nothing (V10)."""
    hybrid = hybrid_of(water, around_one(water), ani1x)
    group = 1 << hybrid.force_groups["ml"]
    energy, forces = energy_and_forces(hybrid.system, water.positions, groups=group)
    assert np.abs(forces.sum(axis=0)).max() < 1e-9 * np.abs(forces).sum()
    generator = np.random.default_rng(1)
    moved = np.array(water.positions)
    for molecule in molecules_of(water.topology):
        moved[list(molecule)] += generator.integers(-2, 3, 3) @ water.box_vectors
    after, found = energy_and_forces(hybrid.system, moved, groups=group)
    assert after == pytest.approx(energy, abs=1e-8)
    assert np.abs(found - forces).max() < 1e-8 * np.abs(forces).max()
    # Atom by atom the blend alone is periodic too: its host may wrap atoms one by one.
    cell, positions = torch.tensor(water.box_vectors), torch.tensor(water.positions)
    weights = AdaptiveWeights(hybrid.zones)
    shifts = torch.tensor(generator.integers(-2, 3, water.positions.shape)).double() @ cell
    assert torch.allclose(weights(positions, cell), weights(positions + shifts, cell), rtol=0, atol=1e-11)


def test_identical_molecules_may_change_places(water, ani1x):
    """Two waters swapped: the energy is the same (V11)."""
    hybrid = hybrid_of(water, around_one(water), ani1x)
    swapped = np.array(water.positions)
    weights = hybrid.zones.weights(torch.tensor(water.positions), torch.tensor(water.box_vectors)).numpy()
    near = int(np.flatnonzero((weights > 0.2) & (weights < 1) & (np.arange(len(weights)) % 3 == 0))[0])
    far = int(np.flatnonzero((weights == 0) & (np.arange(len(weights)) % 3 == 0))[-1])
    swapped[[near, near + 1, near + 2, far, far + 1, far + 2]] = water.positions[
        [far, far + 1, far + 2, near, near + 1, near + 2]
    ]
    before, _ = energy_and_forces(hybrid.system, water.positions)
    after, _ = energy_and_forces(hybrid.system, swapped)
    assert after == pytest.approx(before, abs=1e-8)


@pytest.fixture(scope="module")
def two_waters(water):
    """The first molecule and another one, without a box."""
    model = app.Modeller(water.topology, water.positions * unit.nanometer)
    model.delete([residue for residue in list(model.topology.residues())[2:]])
    model.topology.setPeriodicBoxVectors(None)
    force_field = app.ForceField("amber14/tip3p.xml")
    system = force_field.createSystem(model.topology, rigidWater=False)
    return mlmm.BuiltSystem.from_openmm(model.topology, system, water.positions[:6])


def jump_of_the_slope(system, positions, step):
    """Largest change of dF/dr from one step to the next as the second molecule is pulled out of the zone."""
    direction = np.array([0.6, 0.0, 0.8])
    forces, context = [], reference_context(system)
    for distance in np.arange(0.33, 0.65, step):
        moved = positions.copy()
        moved[3:] += positions[0] + distance * direction - positions[3]
        forces.append(evaluate(context, moved)[1][3:].sum(axis=0) @ direction)
    return np.abs(np.diff(np.gradient(forces, step))[2:-2]).max()


def test_a_molecule_leaves_the_zone_smoothly(two_waters):
    """dF/dr is continuous from core to surroundings: half the step, half the largest change (V13)."""
    zones = around_one(two_waters, "0.35 nm", "0.25 nm")
    hybrid = hybrid_of(two_waters, zones, ForceFieldPotential(two_waters, scale=1.3))
    coarse, fine = (jump_of_the_slope(hybrid.system, two_waters.positions, step) for step in (2e-3, 1e-3))
    assert coarse / fine > 1.6
    # Negative control: a zone so thin that it jumps between two steps.
    thin = hybrid_of(
        two_waters, around_one(two_waters, "0.45 nm", "1e-5 nm"), ForceFieldPotential(two_waters, scale=1.3)
    )
    coarse, fine = (jump_of_the_slope(thin.system, two_waters.positions, step) for step in (2e-3, 1e-3))
    assert coarse / fine < 1.0


def test_a_constant_difference_is_compensated_exactly(water):
    """eps^ML = eps^MM + c per atom, alignment 3c: energy and forces of the force field (V16)."""

    class Constant(ForceFieldPotential):
        def scriptable(self, numbers, centres=None):
            return Shifted(super().scriptable(numbers, centres))

    zones = around_one(water)
    expected, forces = energy_and_forces(water.system, water.positions)
    found = {}
    for alignment in (0.0, 3 * SHIFT):
        hybrid = hybrid_of(water, zones, Constant(water), Compensation({"HOH": alignment}))
        energy, now = energy_and_forces(hybrid.system, water.positions)
        found[alignment] = energy - expected, np.abs(now - forces).max()
    # The core's own three atoms keep their constant: it is the same at any time.
    assert found[3 * SHIFT][0] == pytest.approx(3 * SHIFT, abs=1e-8)
    assert found[3 * SHIFT][1] < 1e-9 * np.abs(forces).max()
    assert found[0.0][0] > 10 * SHIFT and found[0.0][1] > 10


def test_the_start_alignment_is_the_mean_of_the_built_structure(water, ani1x):
    hybrid = hybrid_system(water, around_one(water), ani1x, scheme="per_atom")
    assert any("mlmm calibrate" in warning for warning in hybrid.warnings)
    everything = assemble(dataclasses.replace(hybrid.spec, compensation=NOTHING)).blend
    everything.zone_weights = UniformWeights(1.0, len(hybrid.zones.molecules))
    _, differences = everything.molecule_differences(
        torch.tensor(water.positions), torch.tensor(water.box_vectors)
    )
    distance = np.linalg.norm(
        (lambda d: d - np.round(d / np.diag(water.box_vectors)) * np.diag(water.box_vectors))(
            water.positions[3::3] - water.positions[0]
        ),
        axis=1,
    )
    nearest = differences.detach().numpy()[np.argsort(distance)[:64]]
    assert hybrid.spec.compensation.alignment["HOH"] == pytest.approx(nearest.mean(), abs=1e-9)


@pytest.mark.slow
def test_energy_is_conserved_and_only_with_the_force_of_lambda(water):
    """20 ps at 0.25 fs with a moving zone: no drift; without d lambda / dr over 50 times as much (V14)."""
    potential = ForceFieldPotential(water, scale=1.15)
    hybrid = hybrid_of(water, around_one(water), potential, Compensation({"HOH": 20.0}))
    settings = {"equilibration": 0.5, "timestep": 0.00025, "platform": "CPU"}
    drift, error, _ = energy_drift(hybrid.system, water.positions, length=20.0, **settings)
    # What heats up by itself needs no long run.
    control, _, _ = energy_drift(without_force_of_weights(hybrid), water.positions, length=2.0, **settings)
    assert abs(drift) < 0.02
    assert abs(control) > 50 * max(abs(drift), error)


def test_energy_error_is_of_second_order(two_waters):
    """A molecule that swings through the zone: halving the step quarters the energy error."""
    hybrid = hybrid_of(
        two_waters, around_one(two_waters, "0.2 nm", "0.15 nm"), ForceFieldPotential(two_waters, scale=1.2)
    )
    coarse, fine = (
        energy_noise(hybrid.system, two_waters.positions, step, 0.1) for step in (0.0005, 0.00025)
    )
    assert coarse / fine == pytest.approx(4.0, abs=0.8)


def test_bad_adaptive_zones_are_rejected(water, dipeptide_water, ani1x):
    zones = around_one(water)
    region = zones.region
    for arguments, error, message in (
        ({"width": "0 nm"}, ConfigError, "give it a width"),
        ({"plateau": "0 nm"}, ConfigError, "plateau and width above 0"),
        (
            {"molecules": ("SOL",)},
            ConfigError,
            "molecules called SOL outside the region, but got none. Name some of: HOH",
        ),
        ({"centre": (77,)}, SelectionError, "centres among the atoms of the region"),
    ):
        with pytest.raises(error, match=message):
            adaptive_zones(water, region, **arguments)
    cut = region_from_atoms(dipeptide_water.topology, [8], "residue")
    with pytest.raises(SelectionError, match="a region of whole molecules in an adaptive zone"):
        adaptive_zones(dipeptide_water, cut)
    with pytest.raises(EmbeddingError, match=r"a box at least 1\.80 nm wide \(twice plateau"):
        hybrid_of(water, around_one(water, "0.5 nm", "0.4 nm"), ani1x)
    with pytest.raises(
        EmbeddingError, match="stays with its atoms under scheme 'additive', but got an adaptive zone"
    ):
        hybrid_system(water, zones, ani1x, scheme="additive")
    with pytest.raises(EmbeddingError, match=r"a scheme for plain springs .*: additive"):
        hybrid_of(water, zones, PlainSprings())
    with pytest.raises(ConfigError, match="a compensation for HOH, but got none for HOH"):
        hybrid_of(water, zones, ani1x, Compensation({"MOH": 1.0}))
    rigid = mlmm.BuiltSystem.from_openmm(
        water.topology, openmm.XmlSerializer.clone(water.system), water.positions
    )
    rigid.system.addConstraint(30, 31, 0.09572)
    with pytest.raises(EmbeddingError, match="flexible molecules in an adaptive zone"):
        hybrid_of(rigid, around_one(rigid), ani1x)


def test_walls_hold_bonds_of_both_descriptions(water):
    """Out of reach at rest; the same energy at any lambda; a proton that leaves is pulled back."""
    zones = around_one(water)
    hybrid = hybrid_of(water, zones, ForceFieldPotential(water))
    expected, _ = energy_and_forces(water.system, water.positions)
    energy, _ = energy_and_forces(hybrid.system, water.positions)
    assert energy == pytest.approx(expected, abs=tolerances.IDENTITY)
    outside = next(atoms for atoms in reversed(zones.molecules))
    for oxygen in (zones.molecules[0][0], outside[0]):
        stretched = np.array(water.positions)
        bond = stretched[oxygen + 1] - stretched[oxygen]
        stretched[oxygen + 1] = stretched[oxygen] + 0.145 * bond / np.linalg.norm(bond)
        without, _ = energy_and_forces(water.system, stretched)
        energy, _ = energy_and_forces(hybrid.system, stretched)
        assert energy - without == pytest.approx(0.5 * 5e5 * 0.02**2, abs=1e-7)


def proton_transfer(hybrid, positions, distances):
    """Energies along the way of the first molecule's proton to the second one's oxygen, kJ/mol."""
    context, energies = reference_context(hybrid.system), []
    direction = (positions[3] - positions[0]) / np.linalg.norm(positions[3] - positions[0])
    for distance in distances:
        moved = positions.copy()
        moved[1] = positions[0] + distance * direction
        energies.append(evaluate(context, moved)[0])
    return np.array(energies) - energies[0]


def test_a_narrow_zone_lets_protons_pass_and_walls_hold_them(two_waters, ani1x):
    """A donor with lambda = 1, an acceptor with lambda = 0, 0.26 nm apart: a leak of the blend, its cure."""
    positions = np.array(two_waters.positions)
    arm, angle = 0.0957, np.deg2rad(104.5)
    positions[0], positions[3] = [0.5, 0.5, 0.5], [0.757, 0.5, 0.5]
    positions[1] = positions[0] + [arm, 0, 0]
    positions[2] = positions[0] + arm * np.array([np.cos(angle), np.sin(angle), 0])
    away = arm * np.array([np.cos(angle / 2), 0, np.sin(angle / 2)])
    positions[4], positions[5] = positions[3] + away, positions[3] + away * [1, 1, -1]
    way = np.array([0.0957, 0.125, 0.145, 0.16])
    found = {}
    region = region_from_atoms(two_waters.topology, range(3), "molecule")
    for name, plateau, width, walls in (
        ("narrow", "0.2 nm", "0.05 nm", None),
        ("model", "0.4 nm", "9 nm", None),
        ("walled", "0.2 nm", "0.05 nm", "0.125 nm"),
    ):
        zones = adaptive_zones(two_waters, region, plateau, width, walls=walls)
        hybrid = hybrid_of(two_waters, zones, ani1x)
        found[name] = proton_transfer(hybrid, positions, way)
    assert found["model"][-1] > 80.0
    assert found["narrow"][-1] < 20.0
    assert found["walled"][1] == pytest.approx(found["narrow"][1], abs=1e-7)
    assert found["walled"][2:].min() > found["narrow"][1:].max() + 50.0
