"""Scheme `supermolecular`: sums over atoms equal whole energies; what is refused."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from differences import (
    RANGE,
    ContactPotential,
    Messages,
    atoms_of,
    forces_of,
    geometry,
    region_of,
    smooth_weights,
    waters_by_distance,
    whole_energies,
)
from toys import chains

from mlmm.blending.supermolecular import (
    SupermolecularBlend,
    SupermolecularTotal,
    capped_region,
    supermolecular_blend,
)
from mlmm.errors import EmbeddingError, PotentialError
from mlmm.potentials import load_potential
from mlmm.structures import Structure
from mlmm.term_weights import CappedRegion


@pytest.fixture(scope="module")
def ani() -> object:
    """One member of ANI-1x, float64."""
    return load_potential("ani1x", precision="float64", members=[0])


REGIONS = {
    "whole molecule": lambda built, bonds: region_of(range(22), bonds),
    "residue": lambda built, bonds: region_of(range(6, 16), bonds),
    "with waters": lambda built, bonds: capped_region(smooth_weights(built) > 0.2, bonds),
}


def assert_same(blend, expected, positions, cell, relative=1e-10):
    """Energy and forces."""
    energy = blend(positions, cell)
    found, wanted = (torch.autograd.grad(e, positions, retain_graph=True)[0] for e in (energy, expected))
    assert energy.item() == pytest.approx(expected.item(), abs=1e-8)
    largest = float(wanted.abs().max())
    assert largest > 1
    assert float((found - wanted).abs().max()) < relative * largest


@pytest.mark.parametrize("buffer", [None, 1.8])
@pytest.mark.parametrize("box", [3.0, None])
def test_pair_model_gives_every_pair_that_touches_the_region(box, buffer):
    """For a sum over pairs the difference is the sum over pairs with an atom inside, by a plain loop."""
    built = chains(n_molecules=4, n_atoms=5, box=box)
    inside, reach = set(range(5, 10)), 0.9
    positions, cell = geometry(built)
    expected, pairs = 0.0, 0
    for i, j in itertools.combinations(range(built.n_atoms), 2):
        if i in inside or j in inside:
            separation = built.positions[i] - built.positions[j]
            if box is not None:
                separation = separation - box * np.round(separation / box)
            squared = float(separation @ separation)
            if squared < reach**2:
                # 1.25: mean of the two members.
                expected += 1.25 * 0.01 * 36 * (1 - squared / reach**2) ** 3
                pairs += not (i in inside and j in inside)
    numbers, bonds = atoms_of(built)
    blend = supermolecular_blend(
        ContactPotential(reach=reach), numbers, range(built.n_atoms), region_of(inside, bonds), buffer=buffer
    )
    assert blend(positions, cell).item() == pytest.approx(expected, abs=1e-12)
    assert pairs > 0  # some of them reach across the boundary


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("model", ["contacts", "many bodies", "messages", "messages, totals", "ani"])
def test_sums_over_atoms_are_whole_energies(dipeptide_water, ani, model, region):
    """What is evaluated near the region is the difference of the whole system's energies: to 1e-10 of max|F|.

    Lopsided shares, several layers, cut bonds with caps included.
    """
    numbers, bonds = atoms_of(dipeptide_water)
    potential = {
        "contacts": ContactPotential(),
        "many bodies": ContactPotential(many_body=0.1),
        "messages": Messages(),
        "messages, totals": Messages(per_atom=False),
        "ani": ani,
    }[model]
    inside = REGIONS[region](dipeptide_water, bonds)
    visible = range(dipeptide_water.n_atoms)
    blend = supermolecular_blend(potential, numbers, visible, inside)
    assert isinstance(blend, SupermolecularTotal) is (model == "messages, totals")
    positions, cell = geometry(dipeptide_water)
    assert_same(blend, whole_energies(potential, numbers, visible, inside, positions, cell), positions, cell)


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({}, True),
        ({"receptive_field": 1.5 * RANGE}, False),
        ({"per_atom": False}, True),
        ({"per_atom": False, "receptive_field": RANGE}, False),
    ],
)
def test_the_receptive_field_is_needed_in_full(dipeptide_water, changes, right):
    """Negative control: a field declared smaller than two layers reach gives another energy (V12)."""
    numbers, bonds = atoms_of(dipeptide_water)
    positions, _ = geometry(dipeptide_water)
    visible, inside = range(dipeptide_water.n_atoms), region_of(range(22), bonds)
    exact = whole_energies(Messages(), numbers, visible, inside, positions, None).item()
    blend = supermolecular_blend(Messages(**changes), numbers, visible, inside)
    error = abs(blend(positions, None).item() - exact)
    assert error < 1e-9 if right else error > 1e-6


def test_atom_whose_only_neighbour_is_a_cap():
    """A cap may be within reach of an atom that no atom of the region can reach: it counts."""
    outer, inner, far = (0.0, 0.0, 0.0), (0.15, 0.0, 0.0), (0.109 - 0.37, 0.0, 0.0)
    positions = torch.tensor([outer, inner, far], dtype=torch.float64, requires_grad=True)
    assert inner[0] - far[0] > RANGE > 0.109 - far[0]
    inside, numbers = region_of([1], [(0, 1), (0, 2)]), [6, 6, 1]
    for potential in (ContactPotential(many_body=0.1), ContactPotential(many_body=0.1, per_atom=False)):
        blend = supermolecular_blend(potential, numbers, range(3), inside)
        expected = whole_energies(potential, numbers, range(3), inside, positions, None)
        assert_same(blend, expected, positions, None)


@pytest.mark.parametrize("per_atom", [True, False])
def test_invisible_atoms_have_no_effect(dipeptide_water, per_atom):
    """Without the waters of an invisible kind: the energy of the system without them, no force on them."""
    numbers, bonds = atoms_of(dipeptide_water)
    hidden = [atom for water in waters_by_distance(dipeptide_water)[3:9] for atom in water]
    visible = [atom for atom in range(len(numbers)) if atom not in set(hidden)]
    for atom in hidden:
        numbers[atom] = 0
    potential = ContactPotential(many_body=0.1, per_atom=per_atom)
    inside = region_of([*range(6, 16), *hidden[:3]], bonds)
    positions, cell = geometry(dipeptide_water)
    blend = supermolecular_blend(potential, numbers, visible, inside)
    assert_same(blend, whole_energies(potential, numbers, visible, inside, positions, cell), positions, cell)
    assert float(forces_of(blend, positions, cell)[hidden].abs().max()) == 0


@pytest.mark.parametrize("per_atom", [True, False])
@pytest.mark.parametrize("model", [ContactPotential, Messages])
def test_all_inside_and_nothing_near(model, per_atom):
    """S = everything is the model's energy; S alone in space too, with atoms far away that do not matter."""
    built = chains(n_molecules=2, n_atoms=4, box=None)
    numbers, bonds = atoms_of(built)
    positions, _ = geometry(built)
    potential = model(per_atom=per_atom)
    everything = supermolecular_blend(potential, numbers, range(8), region_of(range(8), bonds))
    total = potential.atom_energies(Structure(torch.tensor(numbers), positions)).energies.sum()
    assert everything(positions).item() == pytest.approx(total.item(), abs=1e-12)
    apart = positions.detach().clone()
    apart[4:] += 10.0
    alone = potential.atom_energies(Structure(torch.tensor(numbers[:4]), apart[:4])).energies.sum()
    blend = supermolecular_blend(potential, numbers, range(8), region_of(range(4), bonds))
    assert blend(apart).item() == pytest.approx(alone.item(), abs=1e-12)


def test_the_region_by_its_definition(dipeptide_water):
    """Atoms with lambda above one half, and a cap wherever they cut a bond, the outer end first."""
    _, bonds = atoms_of(dipeptide_water)
    weights = np.random.default_rng(5).uniform(size=dipeptide_water.n_atoms)
    region = capped_region(weights, bonds)
    assert region.atoms == frozenset(np.flatnonzero(weights > 0.5).tolist())
    cut = {bond for bond in bonds if len(region.atoms.intersection(bond)) == 1}
    assert cut and {tuple(sorted(cap)) for cap in region.caps} == {tuple(sorted(bond)) for bond in cut}
    assert all(outer not in region.atoms and inner in region.atoms for outer, inner in region.caps)


def test_impossible_capped_regions_are_rejected(dipeptide_water, ani):
    numbers, bonds = atoms_of(dipeptide_water)
    visible, residue = range(len(numbers)), region_of(range(6, 16), bonds)

    def blend(spec=ani.spec, visible=visible, region=residue, **more):
        model = ContactPotential()
        model.spec = spec
        return supermolecular_blend(model, numbers, visible, region, **more)

    assert isinstance(blend(), SupermolecularBlend)
    changed = dataclasses.replace
    with pytest.raises(EmbeddingError, match=r"finite range .* got ANI-1x, whose interactions have no limit"):
        blend(changed(ani.spec, long_range=True))
    with pytest.raises(EmbeddingError, match="knows hydrogen, for caps"):
        blend(changed(ani.spec, elements=(6, 7, 8)), visible=[i for i in visible if numbers[i] != 1])
    with pytest.raises(PotentialError, match="only elements that ANI-1x knows"):
        blend(changed(ani.spec, elements=(1, 6, 8)))
    with pytest.raises(EmbeddingError, match="a single bond under every cap, but got atom 4–atom 6"):
        blend(is_single=lambda a, b: {a, b} != {4, 6}, label="atom {}".format)
    with pytest.raises(EmbeddingError, match="cut bonds between atoms that ANI-1x knows, but got 4–6"):
        blend(visible=[i for i in visible if i != 4])
    with pytest.raises(EmbeddingError, match="atoms that the potential knows in the region, but got none"):
        blend(visible=range(22, 100))
    with pytest.raises(EmbeddingError, match="atoms that the potential knows in the region, but got none"):
        blend(region=CappedRegion(frozenset()))
    positions, cell = geometry(dipeptide_water)
    with pytest.raises(EmbeddingError, match=r"caps at least 0\.1 nm apart"):
        blend(region=CappedRegion(frozenset({8}), ((6, 8), (14, 8))), positions=positions, cell=cell)
    with pytest.raises(
        EmbeddingError, match=r"atoms with lambda above 1/2, but got a largest lambda of 0\.4"
    ):
        capped_region([0.4, 0.0], [])
