"""Static zones: weights by their definition, snapping on a protein, periodic boxes, messages."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import chains

from mlmm.build import build_system
from mlmm.errors import ConfigError, SelectionError
from mlmm.zones.cut_bonds import classify_bonds, named_cuts, snap_groups
from mlmm.zones.region import Region, select_region
from mlmm.zones.static import ZonePartition, hard_zones, residue_zones, static_zones

SNAPS = ["residue", "molecule", "fragment", "hydrogen", "atom"]


@pytest.fixture(scope="module")
def lysozyme(root):
    """T4 lysozyme with p-xylene in vacuum, flexible."""
    pdb = root / "systems/lysozyme_xylene/input.pdb"
    options = {"solvate": False, "constraints": "none", "rigid_water": False}
    return build_system(pdb, ligands=["p-xylene.xml"], **options)


def weights_of(zones: ZonePartition) -> np.ndarray:
    return zones.weights(torch.zeros(1, 3)).numpy()


def switch(d: float, plateau: float, width: float) -> float:
    if width == 0:
        return float(d <= plateau)
    x = min(max((d - plateau) / width, 0.0), 1.0)
    return 1 - 10 * x**3 + 15 * x**4 - 6 * x**5


def all_images(box: np.ndarray, n: int = 2) -> np.ndarray:
    return np.array(list(itertools.product(range(-n, n + 1), repeat=3))) @ box


def slow_distances(built, region, shape: str) -> np.ndarray:
    """Over all atoms, points and images; the centre from coordinates that are whole already."""
    positions, inside = built.positions, built.positions[list(region.atoms)]
    images = np.zeros((1, 3)) if built.box_vectors is None else all_images(built.box_vectors)
    points = inside if shape == "skin" else inside.mean(axis=0)[None]
    distances = np.empty(len(positions))
    for i, position in enumerate(positions):
        separations = position - points[:, None] + images[None]
        distances[i] = np.sqrt((separations**2).sum(axis=-1)).min()
    distances[list(region.atoms)] = 0
    return distances


def slow_bond_distances(built, region) -> np.ndarray:
    distances = np.full(built.n_atoms, np.inf)
    distances[list(region.atoms)] = 0
    bonds = [(bond[0].index, bond[1].index) for bond in built.topology.bonds()]
    for _ in range(60):
        for a, b in bonds:
            distances[a], distances[b] = (
                min(distances[a], distances[b] + 1),
                min(distances[b], distances[a] + 1),
            )
    return distances


def snapped(groups: np.ndarray, distances: np.ndarray) -> np.ndarray:
    return np.array([distances[groups == group].min() for group in groups])


@pytest.mark.parametrize("snap", SNAPS)
@pytest.mark.parametrize("shape", ["skin", "sphere"])
def test_static_weights_equal_their_definition(dipeptide_water, shape, snap):
    """The switch at the shape's distance over all periodic images, group by group, against slow loops."""
    region = select_region(dipeptide_water, "resname ALA and name CA CB", complete="atoms")
    zones = static_zones(dipeptide_water, region, "0.2 nm", "0.3 nm", snap=snap, shape=shape)
    distances = slow_distances(dipeptide_water, region, shape)
    groups = snap_groups(dipeptide_water.topology, snap)
    expected = np.array([switch(d, 0.2, 0.3) for d in snapped(groups, distances)])
    weights = weights_of(zones)
    np.testing.assert_allclose(weights, expected, atol=1e-12)
    assert 0 < len(zones.transition) < dipeptide_water.n_atoms
    assert weights[list(region.atoms)].min() == 1 and set(region.atoms) <= set(zones.core)
    bonds = [(bond[0].index, bond[1].index) for bond in dipeptide_water.topology.bonds()]
    assert zones.cut_bonds == tuple((a, b) for a, b in bonds if weights[a] != weights[b])


@pytest.mark.parametrize("snap", SNAPS)
def test_weights_in_bonds_by_their_definition(dipeptide_water, snap):
    region = select_region(dipeptide_water, "resname ALA and name CB HB1 HB2 HB3", complete="atoms")
    zones = static_zones(dipeptide_water, region, "1 bond", "3bonds", snap=snap)
    groups = snap_groups(dipeptide_water.topology, snap)
    distances = snapped(groups, slow_bond_distances(dipeptide_water, region))
    np.testing.assert_allclose(weights_of(zones), [switch(d, 1, 3) for d in distances], atol=1e-12)
    assert not any(
        atom.residue.name == "HOH" and atom.index in zones.active for atom in dipeptide_water.topology.atoms()
    )
    if snap == "atom":
        # n − 1 shells between 1 and 0.
        assert len(set(zones.transition_weights)) == 2


@pytest.mark.parametrize("width", ["0 bonds", "1 bond"])
def test_a_width_of_one_bond_is_a_hard_boundary(dipeptide_water, width):
    region = select_region(dipeptide_water, "resname ALA and name CA", complete="atoms")
    zones = static_zones(dipeptide_water, region, "1 bond", width, snap="atom")
    names = {atom.name for atom in dipeptide_water.topology.atoms() if atom.index in zones.core}
    assert not zones.transition and names == {"CA", "HA", "CB", "C", "N"}


@pytest.mark.parametrize("snap", ["residue", "fragment"])
@pytest.mark.parametrize(
    ("selection", "plateau", "width", "shape"),
    [
        ("resname TMP", "0.3 nm", "0.3 nm", "skin"),
        ("resname TMP", "0.5 nm", "0.6 nm", "sphere"),
        ("resSeq 99", "3 bonds", "20 bonds", "skin"),
    ],
)
def test_cuts_in_lysozyme_are_good(lysozyme, snap, selection, plateau, width, shape):
    """No cut bond is an amide or double bond, in a ring, or holds H: CA–C and sp3–sp3 carbons only."""
    region = select_region(lysozyme, selection)
    zones = static_zones(lysozyme, region, plateau, width, snap=snap, shape=shape)
    assert len(zones.cut_bonds) >= 2 and zones.transition
    atoms = list(lysozyme.topology.atoms())
    neighbours = [0] * len(atoms)
    for bond in lysozyme.topology.bonds():
        neighbours[bond[0].index] += 1
        neighbours[bond[1].index] += 1
    for a, b in zones.cut_bonds:
        assert {atoms[a].element.symbol, atoms[b].element.symbol} == {"C"}
        by_name = {atoms[a].name, atoms[b].name} == {"CA", "C"}
        assert by_name or neighbours[a] == neighbours[b] == 4
        assert by_name or snap == "fragment"
    assert not named_cuts(lysozyme.topology, zones.cut_bonds)
    assert not any("instead" in note for note in zones.notes)


def test_unsnapped_cuts_in_lysozyme_are_named(lysozyme):
    """Negative control: atom by atom, bad bonds are cut, and the notes say which."""
    region = select_region(lysozyme, "resname TMP")
    zones = static_zones(lysozyme, region, "0.3 nm", "0.3 nm", snap="atom")
    named = named_cuts(lysozyme.topology, zones.cut_bonds)
    for text in (
        "is an amide bond; cut CA–C instead",
        "is in a ring",
        "is a bond to hydrogen",
        "double bond",
    ):
        assert any(text in sentence for sentence in named), text
    bad = {frozenset((c.first, c.second)) for c in classify_bonds(lysozyme.topology) if not c.allowed}
    assert len(named) == sum(frozenset(bond) in bad for bond in zones.cut_bonds)
    assert zones.notes[:20] == named[:20]
    assert zones.notes[20] == f"and {len(named) - 20} more bonds that should not be cut"
    by_hydrogen = static_zones(lysozyme, region, "0.3 nm", "0.3 nm", snap="hydrogen")
    kinds = named_cuts(lysozyme.topology, by_hydrogen.cut_bonds)
    assert kinds and not any("hydrogen" in sentence for sentence in kinds)


def test_notes_say_what_snapping_took_in(dipeptide_water):
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, "0 nm", "0 nm")
    assert zones.core == tuple(range(22))
    assert zones.notes == ("snap = 'residue' raised lambda of 12 atoms, 12 of them to 1: ACE1 NME3",)
    assert zones.cut_bonds == ()
    assert static_zones(dipeptide_water, region, "0 nm", "0 nm", snap="atom").core == region.atoms


def test_hard_zones_name_their_bad_cuts(dipeptide_water):
    region = select_region(dipeptide_water, "resname ALA")
    zones = hard_zones(dipeptide_water, region)
    assert len(zones.notes) == 2
    assert "ALA2:C–NME3:N is an amide bond; cut CA–C instead" in zones.notes
    assert hard_zones(dipeptide_water, select_region(dipeptide_water, "resname ACE ALA NME")).notes == ()


def test_hard_static_zone(dipeptide_water):
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, plateau="0.4 nm", width="0 nm")
    assert not zones.transition and len(zones.core) > 22


def test_a_region_out_of_its_sphere_is_noted(dipeptide_water):
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    zones = static_zones(dipeptide_water, region, "0.2 nm", "0.1 nm", snap="atom", shape="sphere")
    assert "out of its plateau of 0.2 nm" in zones.notes[0]
    assert set(range(22)) <= set(zones.core)
    assert not static_zones(dipeptide_water, region, "0.7 nm", "0 nm", shape="sphere").notes[1:]


def spread(built, seed: int):
    """The same system with every atom in any periodic image."""
    moves = np.random.default_rng(seed).integers(-2, 3, (built.n_atoms, 3)) @ built.box_vectors
    return SimpleNamespace(
        topology=built.topology, positions=built.positions + moves, box_vectors=built.box_vectors
    )


@pytest.mark.parametrize("shape", ["skin", "sphere"])
def test_periodic_images_do_not_matter(dipeptide_water, shape):
    """A region across the faces, its atoms in different images, has the same centre and skin."""
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    here = weights_of(static_zones(dipeptide_water, region, "0.35 nm", "0.2 nm", shape=shape))
    there = weights_of(static_zones(spread(dipeptide_water, 3), region, "0.35 nm", "0.2 nm", shape=shape))
    np.testing.assert_allclose(there, here, atol=1e-9)
    assert 0 < here.mean() < 1


def test_named_residues(lysozyme):
    """1 on region and plateau, the given weight on shifted residues, 0 elsewhere; only CA–C is cut."""
    region = select_region(lysozyme, "resname TMP")
    zones = residue_zones(
        lysozyme, region, {"resSeq 99": 0.5, "resSeq 102 103": 0.25}, plateau="resSeq 100 101"
    )
    weights = weights_of(zones)
    given = {98: 0.5, 99: 1.0, 100: 1.0, 101: 0.25, 102: 0.25}  # by index
    last = max(atom.residue.index for atom in lysozyme.topology.atoms() if atom.residue.name != "TMP")
    for atom in lysozyme.topology.atoms():
        home = atom.residue.index + (atom.name in ("C", "O") and atom.residue.index < last)
        assert weights[atom.index] == (1.0 if atom.residue.name == "TMP" else given.get(home, 0.0))
    atoms = list(lysozyme.topology.atoms())
    assert sorted(
        (atoms[a].residue.id, *sorted((atoms[a].name, atoms[b].name))) for a, b in zones.cut_bonds
    ) == [(number, "C", "CA") for number in ("101", "103", "98", "99")]
    assert not any("instead" in note for note in zones.notes)


def test_named_residues_around_a_region_in_the_chain(lysozyme):
    """The region comes first: its C and O take the next residue's group along, and that is noted."""
    region = select_region(lysozyme, "resSeq 50")
    zones = residue_zones(lysozyme, region, {"resSeq 48 to 52": 0.5})
    weights = weights_of(zones)
    by_name = {
        (atom.residue.id, atom.name): weights[atom.index]
        for atom in lysozyme.topology.atoms()
        if atom.name != "H"
    }
    assert by_name["50", "CA"] == by_name["51", "CA"] == by_name["50", "O"] == by_name["49", "C"] == 1
    assert by_name["49", "CA"] == by_name["52", "CA"] == 0.5 and by_name["53", "CA"] == 0
    assert any("51" in note for note in zones.notes)


def test_named_atoms_without_snapping(lysozyme):
    region = select_region(lysozyme, "resname TMP")
    zones = residue_zones(lysozyme, region, {"resSeq 99": 0.5}, snap="atom")
    expected = [atom.index for atom in lysozyme.topology.atoms() if atom.residue.id == "99"]
    assert list(zones.transition) == expected
    assert sum("is an amide bond" in note for note in zones.notes) == 2


@pytest.mark.parametrize(
    ("transition", "plateau", "error", "message"),
    [
        ({"resSeq 10": 1.5}, None, ConfigError, "weights above 0 and up to 1, but got 1.5 for 'resSeq 10'"),
        ({"resSeq 10": 0.0}, None, ConfigError, "weights above 0"),
        ({"resSeq 10": float("nan")}, None, ConfigError, "weights above 0"),
        ({"resSeq 10": 0.5, "resSeq 9 10": 0.2}, None, SelectionError, "got 0.5 and 0.2 for"),
        ({"resSeq 10 and name C O": 0.5}, None, SelectionError, "whose atoms go with another one"),
        ({"resSeq 1000": 0.5}, None, SelectionError, "matches none"),
        ({}, "resname ==", SelectionError, "mdtraj's language"),
    ],
)
def test_bad_residue_lists_are_rejected(lysozyme, transition, plateau, error, message):
    with pytest.raises(error) as caught:
        residue_zones(lysozyme, select_region(lysozyme, "resname TMP"), transition, plateau)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plateau": "-0.1 nm"}, "not negative"),
        ({"width": -0.1}, "not negative"),
        ({"plateau": "-1 bonds", "width": "1 bond"}, "not negative"),
        ({"width": "3 fs"}, "Units for a length"),
        ({"plateau": "2 bonds"}, "plateau and width in one unit, but got '2 bonds' and '0.2 nm'"),
        ({"plateau": "2 bonds", "width": 0.0}, "plateau and width in one unit"),
        ({"plateau": "1.5 bonds", "width": "1 bond"}, "whole numbers of bonds"),
        ({"plateau": "2 bonds", "width": "1 bond", "shape": "sphere"}, "Give both lengths in nm"),
        ({"snap": "chain"}, "snap = residue"),
        ({"shape": "cube"}, "shape = skin | sphere, but got 'cube'"),
        ({"plateau": "5 nm"}, "meets its own periodic image"),
    ],
)
def test_bad_static_zones_are_rejected(dipeptide_water, arguments, message):
    with pytest.raises(ConfigError) as caught:
        static_zones(dipeptide_water, select_region(dipeptide_water, "resname ALA"), **arguments)
    assert message in str(caught.value)


def test_regions_that_do_not_fit(dipeptide_water):
    small = chains(n_molecules=2)
    nothing = Region((), (), "nothing", ())
    large = select_region(dipeptide_water, "index 100")
    for make in (hard_zones, static_zones, lambda built, region: residue_zones(built, region, {})):
        with pytest.raises(SelectionError, match="a region with atoms, but got none"):
            make(small, nothing)
        with pytest.raises(SelectionError, match="a region of a system with 8 atoms, but got atom index"):
            make(small, large)


def test_weights_take_a_cell_and_stay(dipeptide_water):
    """A static zone gives the same weights for any positions and box; zones that move will not."""
    zones = static_zones(dipeptide_water, select_region(dipeptide_water, "resname ALA"))
    positions = torch.tensor(dipeptide_water.positions)
    before = zones.weights(positions)
    after = zones.weights(positions + 1.0, cell=torch.eye(3, dtype=torch.float64))
    assert torch.equal(before, after) and before.dtype == torch.float64
    assert dataclasses.replace(zones, notes=()).active == zones.active
