"""Double counting: pairs and terms of a blend by zone, against sums and counts made in other ways."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from toys import chains, energy_and_forces, toy_spec

from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.errors import EmbeddingError
from mlmm.forcefield.tables import read_mm_tables
from mlmm.hybrid.spec import SWITCHING_START
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import AtomEnergies
from mlmm.structures import minimum_image
from mlmm.term_weights import make_term_weights
from mlmm.units import COULOMB
from mlmm.validation.double_counting import check_term_weights, double_counting
from mlmm.zones.region import region_from_atoms, select_region
from mlmm.zones.static import ZonePartition, hard_zones, static_zones

CUTOFF = 0.9


class Nothing:
    """A potential of zero energy that sees `elements`: only who owns what matters here."""

    def __init__(self, elements: tuple[int, ...] = tuple(range(1, 119))):
        self.spec = toy_spec(elements=elements, cutoff=CUTOFF, receptive_field=CUTOFF, trained_on="total")

    def atom_energies(self, structure):
        return AtomEnergies(0.0 * structure.positions.sum(dim=1))


def random_blend(built, n: int, seed: int):
    """Random weights on random atoms."""
    generator = np.random.default_rng(seed)
    atoms = generator.choice(built.n_atoms, n, replace=False)
    weights = np.where(generator.uniform(size=n) < 0.4, 1.0, generator.uniform(0.05, 0.95, n))
    core = tuple(sorted(atoms[weights == 1].tolist()))
    between = dict(sorted(zip(atoms[weights < 1].tolist(), weights[weights < 1].tolist(), strict=True)))
    region = region_from_atoms(built.topology, core, "atoms")
    zones = ZonePartition(built.n_atoms, region, core, tuple(between), tuple(between.values()))
    return hybrid_system(built, zones, Nothing(), scheme="per_atom")


def handed_over(hybrid) -> float:
    """sum_i lambda_i eps_i^MM,sr, from the shares of the atoms instead of the shares of the terms."""
    built = hybrid.built
    visible = np.array(
        [a.element.atomic_number in hybrid.potential.spec.elements for a in built.topology.atoms()]
    )
    energies = ShortRangeEnergies(
        read_mm_tables(built.system), hybrid.zones.active, visible, SWITCHING_START * CUTOFF, CUTOFF
    )
    cell = torch.tensor(built.box_vectors) if built.periodic else None
    weights = torch.tensor(hybrid.zones.active_weights, dtype=torch.float64)
    return float((weights * energies(torch.tensor(built.positions), cell)).sum())


@pytest.mark.parametrize("box", [3.0, None])
@pytest.mark.parametrize("seed", range(3))
def test_energy_balance(box, seed):
    """sum_t W_t f_t V_t over terms = sum_i lambda_i eps_i over atoms: nothing twice, nothing lost."""
    hybrid = random_blend(chains(n_molecules=4, n_atoms=6, box=box, seed=seed), 14, seed)
    assert double_counting(hybrid).given_up == pytest.approx(handed_over(hybrid), abs=1e-8)
    assert abs(handed_over(hybrid)) > 1.0


def test_energy_balance_of_a_cut_peptide_in_water(dipeptide_water):
    """ff14SB and flexible water under PME, bonds, angles, torsions, 1-4 pairs and pairs cut by the zone."""
    region = select_region(dipeptide_water, "resname ALA")
    zones = static_zones(dipeptide_water, region, "0.1 nm", "0.3 nm", snap="hydrogen")
    hybrid = hybrid_system(dipeptide_water, zones, Nothing(), scheme="per_atom")
    classes = double_counting(hybrid)
    assert classes.given_up == pytest.approx(handed_over(hybrid), abs=1e-8)
    for bonded in classes.bonded:
        if bonded.name in ("bonds", "angles", "torsions", "1-4 pairs"):
            assert bonded.inside > 0 and bonded.crossing > 0
    assert all(p.pairs > 0 for p in classes.pairs if p.name not in ("C–E", "T–E"))


def test_energy_balance_of_scheme_supermolecular():
    """What the force field gave up is E_MM − E for a potential of no energy; every touching pair is whole."""
    built = chains(n_molecules=4, n_atoms=6)
    core, between = tuple(range(0, 24, 3)), tuple(range(1, 24, 3))
    region = region_from_atoms(built.topology, core, "atoms")
    zones = ZonePartition(built.n_atoms, region, core, between, (0.5,) * 8)
    hybrid = hybrid_system(built, zones, Nothing(), scheme="supermolecular")
    whole, _ = energy_and_forces(built.system, built.positions)
    rest, _ = energy_and_forces(hybrid.system, built.positions)
    classes = double_counting(hybrid)
    assert classes.given_up == pytest.approx(whole - rest, abs=1e-7)
    assert abs(classes.given_up) > 1.0
    shares = {p.name: p.share for p in classes.pairs if p.pairs}
    assert shares["C–B"] == 1.0  # not one half, as under scheme per_atom


@pytest.mark.parametrize("scheme", ["additive", "supermolecular", "delta"])
def test_weights_of_another_scheme_break_the_balance(scheme):
    """Negative control: shares of any other rule leave energy unaccounted for."""
    hybrid = random_blend(chains(n_molecules=4, n_atoms=6), 14, 0)
    built = hybrid.built
    weights = hybrid.zones.weights(torch.zeros(1, 3)).numpy()
    visible = np.ones(built.n_atoms, dtype=bool)
    tables, box = read_mm_tables(built.system), built.box_vectors
    switching = (SWITCHING_START * CUTOFF, CUTOFF)
    right = make_term_weights("per_atom", weights, visible, switching)
    wrong = dataclasses.replace(right, scheme=scheme)
    arguments = (built.positions, box, CUTOFF)
    assert check_term_weights(tables, right, *arguments).given_up == pytest.approx(
        handed_over(hybrid), abs=1e-8
    )
    assert abs(check_term_weights(tables, wrong, *arguments).given_up - handed_over(hybrid)) > 1e-2


def test_pairs_by_class_against_a_double_loop():
    """Numbers, shares and energies of every class from a loop over all pairs."""
    hybrid = random_blend(chains(n_molecules=4, n_atoms=6), 8, 1)
    built, tables = hybrid.built, read_mm_tables(hybrid.built.system)
    classes = double_counting(hybrid)
    weights = hybrid.zones.weights(torch.zeros(1, 3)).numpy()
    x, box = torch.tensor(built.positions), torch.tensor(built.box_vectors)
    distance = minimum_image(x[None] - x[:, None], box).norm(dim=2).numpy()
    seen = (distance[weights > 0] < CUTOFF).any(axis=0)
    letter = [
        "C" if w == 1 else "T" if w > 0 else "B" if s else "E" for w, s in zip(weights, seen, strict=True)
    ]
    excluded = {frozenset(pair) for pair in tables.exception_atoms.tolist()}
    found: dict[str, list] = {}
    for i in range(built.n_atoms):
        for j in range(i + 1, built.n_atoms):
            if (
                distance[i, j] < CUTOFF
                and frozenset((i, j)) not in excluded
                and {letter[i], letter[j]} != {"E"}
            ):
                r, sigma = distance[i, j], (tables.sigma[i] + tables.sigma[j]) / 2
                well = (
                    4
                    * np.sqrt(tables.epsilon[i] * tables.epsilon[j])
                    * ((sigma / r) ** 12 - (sigma / r) ** 6)
                )
                energy = well + COULOMB * tables.charge[i] * tables.charge[j] / r
                name = "–".join(sorted((letter[i], letter[j]), key="CTBE".index))
                found.setdefault(name, []).append(((weights[i] + weights[j]) / 2, energy))
    assert sum(len(rows) for rows in found.values()) == sum(p.pairs for p in classes.pairs)
    assert len(found) >= 5
    for p in classes.pairs:
        rows = np.array(found.get(p.name, np.zeros((0, 2))))
        assert p.pairs == len(rows)
        if len(rows):
            assert p.share == pytest.approx(rows[:, 0].mean(), abs=1e-12)
            assert p.kept + p.given_up == pytest.approx(rows[:, 1].sum(), abs=1e-8)


def test_shares_of_a_hard_zone(dipeptide_water):
    """C–C belongs to the potential, half of C–B, nothing of B–B."""
    region = select_region(dipeptide_water, "resname ALA")
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), Nothing(), scheme="per_atom")
    share = {p.name: p.share for p in double_counting(hybrid).pairs if p.pairs}
    assert share == {"C–C": 1.0, "C–B": 0.5, "B–B": 0.0, "B–E": 0.0}


def test_atoms_that_the_potential_does_not_see_stay_with_the_force_field(dipeptide_water):
    """Without nitrogen in the model its pairs are whole MM, and the energy balance still holds."""
    region = select_region(dipeptide_water, "resname ALA and name CB HB1 HB2 HB3", complete="atoms")
    potential = Nothing(elements=(1, 6, 8))
    hybrid = hybrid_system(dipeptide_water, hard_zones(dipeptide_water, region), potential, scheme="per_atom")
    classes = double_counting(hybrid)
    pairs = {p.name: p for p in classes.pairs}
    assert pairs["C–E"].pairs > 0 and pairs["C–E"].share == 0 and pairs["C–E"].given_up == 0
    assert classes.given_up == pytest.approx(handed_over(hybrid), abs=1e-8)


def test_classes_are_printed():
    text = str(double_counting(random_blend(chains(n_molecules=4, n_atoms=6), 14, 0)))
    for word in ("C–C", "C–T", "ML share W", "MM gave up", "bonds", "1-4 pairs", "kJ/mol"):
        assert word in text
    assert "CMAP" not in text  # there is none


def test_double_counting_needs_a_scheme_that_shares_pairs(dipeptide_water):
    region = select_region(dipeptide_water, "resname ACE ALA NME")
    zones = hard_zones(dipeptide_water, region)
    hybrid = hybrid_system(dipeptide_water, zones, Nothing(), scheme="additive")
    with pytest.raises(
        EmbeddingError, match=r"hands contacts over \(per_atom or supermolecular\), but got additive"
    ):
        double_counting(hybrid)
