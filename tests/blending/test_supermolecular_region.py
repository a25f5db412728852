"""Scheme `supermolecular` with a real model: exact region, errors at cuts, no steps, forces, both bridges."""

from __future__ import annotations

import logging

import numpy as np
import openmm
import pytest
import tolerances
import torch
from differences import (
    atoms_of,
    forces_of,
    geometry,
    model_forces,
    region_of,
    smooth_weights,
    waters_by_distance,
)
from toys import energy_and_forces

from mlmm.blending.supermolecular import capped_region, supermolecular_blend
from mlmm.hybrid.bridge import make_force
from mlmm.potentials import load_potential
from mlmm.term_weights import make_term_weights
from mlmm.zones.region import molecules_of


@pytest.fixture(scope="module")
def ani() -> object:
    """One member of ANI-1x, float64."""
    return load_potential("ani1x", precision="float64", members=[0])


@pytest.mark.parametrize("region", ["whole molecule", "with waters"])
def test_the_core_has_exactly_the_models_force(dipeptide_water, ani, region):
    """No bond is cut: on every atom of the region the force is that of the model on all atoms."""
    numbers, bonds = atoms_of(dipeptide_water)
    weights = np.zeros(dipeptide_water.n_atoms)
    weights[:22] = 1.0
    for water in waters_by_distance(dipeptide_water)[:10]:
        weights[list(water)] = {"whole molecule": 0.0, "with waters": 1.0}[region]
    inside = capped_region(weights, bonds)
    assert not inside.caps
    positions, cell = geometry(dipeptide_water)
    forces = forces_of(supermolecular_blend(ani, numbers, range(len(numbers)), inside), positions, cell)
    exact = model_forces(ani, numbers, positions, cell)
    core, largest = sorted(inside.atoms), float(exact.abs().max())
    assert float((forces - exact)[core].abs().max()) < 1e-11 * largest
    # Atoms outside have another force: it is no copy of the model.
    near = list(set(waters_by_distance(dipeptide_water)[11]))
    assert float((forces - exact)[near].abs().max()) > 1e-3 * largest


def kept_forces(built, region) -> np.ndarray:
    """Forces of the bonded terms that touch the region and stay with the force field, from OpenMM."""
    weights = np.zeros(built.n_atoms)
    weights[list(region.atoms)] = 1.0
    term_weights = make_term_weights(
        "supermolecular", weights, np.ones(built.n_atoms, dtype=bool), None, region.caps
    )
    system, found = openmm.System(), 0
    for _ in range(built.n_atoms):
        system.addParticle(1.0)
    for force in built.system.getForces():
        if isinstance(force, openmm.HarmonicAngleForce):
            copy, n, get = openmm.HarmonicAngleForce(), 3, force.getAngleParameters
            number, add = force.getNumAngles(), copy.addAngle
        elif isinstance(force, openmm.PeriodicTorsionForce):
            copy, n, get = openmm.PeriodicTorsionForce(), 4, force.getTorsionParameters
            number, add = force.getNumTorsions(), copy.addTorsion
        else:
            continue
        for index in range(number):
            term = get(index)
            touches = not region.atoms.isdisjoint(term[:n])
            if touches and term_weights.bonded(np.array([term[:n]]))[0] < 1:
                add(*term)
                found += 1
        system.addForce(copy)
    assert found
    return energy_and_forces(system, built.positions)[1]


CUTS = {
    "residue, two peptide bonds": (range(6, 16), (6, 14)),
    "methyl, CA–CB": (range(10, 14), (10,)),
    "half, CA–C": (range(14), (8,)),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_bond_leaves_an_error_on_its_inner_end_alone(dipeptide_water, ani, cut):
    """The force is the model's on every atom inside but the one that a cap points to, whatever its depth."""
    atoms, inner = CUTS[cut]
    numbers, bonds = atoms_of(dipeptide_water)
    inside = region_of(atoms, bonds)
    assert tuple(sorted(b for _, b in inside.caps)) == inner
    positions, cell = geometry(dipeptide_water)
    blend = supermolecular_blend(ani, numbers, range(len(numbers)), inside, positions=positions, cell=cell)
    exact = model_forces(ani, numbers, positions, cell).numpy()
    error = forces_of(blend, positions, cell).numpy() + kept_forces(dipeptide_water, inside) - exact
    others = sorted(inside.atoms - set(inner))
    largest = np.abs(exact).max()
    assert np.abs(error[others]).max() < 1e-11 * largest
    at_the_cut = np.linalg.norm(error[list(inner)], axis=1).max()
    assert 1 < at_the_cut < 0.3 * largest


@pytest.fixture(scope="module")
def approach(dipeptide_water):
    """(numbers, bonds, function): positions with the oxygen of a water at a distance from the molecule.

    The function moves it further by a shift. Open boundary; other waters near the dipeptide.
    """
    numbers, bonds = atoms_of(dipeptide_water)
    positions, box = dipeptide_water.positions, np.diag(dipeptide_water.box_vectors)
    solute = positions[:22]
    chosen = [solute]
    for water in waters_by_distance(dipeptide_water)[:40]:
        where = positions[list(water)]
        nearest = solute[np.linalg.norm(wrapped(where[0] - solute, box), axis=1).argmin()]
        chosen.append(nearest + wrapped(where[0] - nearest, box) + where - where[0])
    still = np.concatenate(chosen)
    mover = positions[list(water)] - positions[water[0]]
    direction = np.array([0.3, 0.8, -0.52])
    direction /= np.linalg.norm(direction)
    along = np.linspace(0, 3, 30001)
    path = solute.mean(axis=0) + along[:, None] * direction
    distances = np.linalg.norm(path[:, None] - solute[None], axis=-1).min(axis=1)
    # Other waters out of the way.
    clear = [still[:22]]
    for first in range(22, len(still), 3):
        if np.linalg.norm(path - still[first], axis=1).min() > 0.22:
            clear.append(still[first : first + 3])
    still = np.concatenate(clear)
    n_waters = (len(still) - 22) // 3 + 1

    def place(distance: float, shift: float) -> torch.Tensor:
        begin = path[int(np.flatnonzero(distances < distance)[-1])]
        return torch.tensor(np.concatenate([still, begin + shift * direction + mover]))

    return numbers[:22] + [8, 1, 1] * n_waters, bonds[:21], place


def wrapped(separation: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Shortest image in a rectangular box."""
    return separation - box * np.round(separation / box)


def largest_step(blend, place, distance: float) -> tuple[float, float]:
    """Largest and median second difference of the energy: a water crosses a distance in steps of 1e-4 nm."""
    with torch.no_grad():
        energies = [blend(place(distance, 1e-4 * (k - 11.5)), None).item() for k in range(24)]
    second = np.abs(np.diff(energies, 2))
    return float(second.max()), float(np.median(second))


@pytest.mark.parametrize("buffer", [None, 1.04])
@pytest.mark.parametrize("multiple", [1.0, 1.5, 2.0])
def test_the_energy_has_no_step(approach, ani, buffer, multiple):
    """A water crosses one receptive field, one and a half, two: no step in 1e-4 nm stands out (V13)."""
    numbers, bonds, place = approach
    inside = region_of(range(22), bonds)
    blend = supermolecular_blend(ani, numbers, range(len(numbers)), inside, buffer=buffer)
    largest, median = largest_step(blend, place, multiple * ani.spec.receptive_field)
    assert largest < 3 * median + 1e-8


@pytest.mark.parametrize("buffer", [0.51, 0.7])
def test_a_thin_buffer_has_steps(approach, ani, buffer, caplog):
    """Negative control: totals over less than two receptive fields jump when an atom enters; a warning."""
    numbers, bonds, place = approach
    with caplog.at_level(logging.WARNING):
        blend = supermolecular_blend(
            ani, numbers, range(len(numbers)), region_of(range(22), bonds), buffer=buffer
        )
    assert "below twice the receptive field of ANI-1x (1.04 nm): the energy has steps" in caplog.text
    largest, median = largest_step(blend, place, buffer)
    assert largest > 100 * median


def test_a_buffer_of_two_receptive_fields_is_exact(dipeptide_water, ani):
    """Error on the core of totals over a buffer: falls with its thickness, nothing at twice the field."""
    numbers, bonds = atoms_of(dipeptide_water)
    positions, _ = geometry(dipeptide_water)
    exact = model_forces(ani, numbers, positions, None)
    largest, errors = float(exact.abs().max()), []
    for buffer in (0.51, 0.7, 1.04):
        blend = supermolecular_blend(
            ani, numbers, range(len(numbers)), region_of(range(22), bonds), buffer=buffer
        )
        seen = blend.seen(positions.detach(), None)
        assert len(seen) < len(numbers)
        errors.append(float((forces_of(blend, positions, None) - exact)[:22].square().mean().sqrt()))
    assert errors[0] > errors[1] > 1e-4 * largest > 1e-9 * largest > errors[2]


def cut_with_waters(built, bonds):
    """Alanine without its neighbours in the chain, and twelve waters."""
    weights = smooth_weights(built)
    return capped_region((weights == 1.0) | (weights == 0.3), bonds)


@pytest.fixture(scope="module")
def cut(dipeptide_water, ani1x):
    """Cut bonds, waters in the region, all members."""
    numbers, bonds = atoms_of(dipeptide_water)
    inside = cut_with_waters(dipeptide_water, bonds)
    assert len(inside.caps) == 2
    return supermolecular_blend(ani1x, numbers, range(len(numbers)), inside)


def test_finite_differences(dipeptide_water, ani):
    """Central differences of the whole module: inside, both ends of cuts, outside."""
    numbers, bonds = atoms_of(dipeptide_water)
    inside = cut_with_waters(dipeptide_water, bonds)
    waters = waters_by_distance(dipeptide_water)
    positions, cell = geometry(dipeptide_water)
    blend = supermolecular_blend(ani, numbers, range(len(numbers)), inside)
    forces = forces_of(blend, positions, cell)
    # Smaller than elsewhere: what is left of the third derivative falls with its square.
    step, largest = 3e-6, float(forces.abs().max())
    with torch.no_grad():
        for atom in (8, 6, 4, 14, 16, waters[0][0], waters[11][1], waters[13][0]):
            for axis in (0, 2):
                shift = torch.zeros_like(positions)
                shift[atom, axis] = step
                down, up = (blend(positions + sign * shift, cell).item() for sign in (-1, 1))
                error = abs((down - up) / (2 * step) - float(forces[atom, axis]))
                assert error < tolerances.FINITE_DIFFERENCE * largest


def test_both_bridges_agree(dipeptide_water, cut):
    """TorchForce and PythonForce, and the module called without OpenMM."""
    results = []
    for bridge in ("torchforce", "pythonforce"):
        system = openmm.System()
        system.setDefaultPeriodicBoxVectors(*dipeptide_water.box_vectors)
        for _ in range(dipeptide_water.n_atoms):
            system.addParticle(1.0)
        system.addForce(make_force(cut, bridge=bridge, periodic=True, name="supermolecular"))
        results.append(energy_and_forces(system, dipeptide_water.positions))
    positions, cell = geometry(dipeptide_water)
    results.append((cut(positions, cell).item(), forces_of(cut, positions, cell).numpy()))
    largest = np.abs(results[0][1]).max()
    for energy, forces in results[1:]:
        assert energy == pytest.approx(results[0][0], abs=1e-8)
        assert np.abs(forces - results[0][1]).max() < tolerances.BRIDGES * largest


def test_members_average_to_the_energy(dipeptide_water, cut):
    """Each member's difference; their spread is that of the hybrid energy, not of the passes."""
    positions, cell = geometry(dipeptide_water)
    members = cut.members(positions, cell).detach()
    assert members.shape == (8,)
    assert float(members.mean()) == pytest.approx(cut(positions, cell).item(), abs=1e-10)
    alone = load_potential("ani1x", precision="float64", members=[3])
    numbers, bonds = atoms_of(dipeptide_water)
    inside = cut_with_waters(dipeptide_water, bonds)
    single = supermolecular_blend(alone, numbers, range(len(numbers)), inside)(positions, cell).item()
    assert float(members[3]) == pytest.approx(single, abs=1e-9)
    assert float(members.std()) > 1e-3


def test_no_net_force_and_any_image(dipeptide_water, cut):
    """Only relative vectors count (T6); molecules may stand in any image (V10)."""
    positions, cell = geometry(dipeptide_water)
    forces = forces_of(cut, positions, cell)
    assert float(forces.sum(dim=0).abs().max()) < 1e-9 * float(forces.abs().sum())
    moved, generator = np.array(dipeptide_water.positions), np.random.default_rng(4)
    for molecule in molecules_of(dipeptide_water.topology):
        moved[list(molecule)] += generator.integers(-2, 3, 3) @ dipeptide_water.box_vectors
    assert cut(torch.tensor(moved), cell).item() == pytest.approx(
        cut(positions, cell).item(), abs=tolerances.IMAGES
    )
