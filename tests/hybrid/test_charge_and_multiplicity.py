"""Net charge and multiplicity of the region: from the arguments of `hybrid_system` to every structure."""

from __future__ import annotations

import dataclasses
import json

import pytest
from toys import PlainSprings, energy_and_forces

from mlmm.dynamics.simulate import simulate
from mlmm.dynamics.stages import Produce
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.region_checks import net_charge, trusted_charge
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import AtomEnergies, load_potential
from mlmm.potentials.known import known_by_name
from mlmm.potentials.training import potentials_for
from mlmm.zones.region import region_from_atoms, select_region
from mlmm.zones.static import hard_zones


class States(PlainSprings):
    """An energy that is the charge plus ten times the multiplicity, and a record of both."""

    def __init__(self, spins: bool = True):
        super().__init__()
        facts = {"elements": (1, 6, 7, 8), "trained_on": "isolated", "charges": True, "spins": spins}
        self.spec, self.seen = dataclasses.replace(self.spec, **facts), set()

    def atom_energies(self, structure) -> AtomEnergies:
        self.seen.add((structure.charge, structure.spin))
        zero = 0.0 * structure.positions.sum(dim=1)
        return AtomEnergies(zero + (structure.charge + 10.0 * structure.spin) / len(zero))


def whole(built):
    return hard_zones(built, select_region(built, "resname ACE ALA NME"))


@pytest.mark.parametrize("selection", ["whole", "capped", "with a tail"])
def test_every_host_of_a_region_gets_its_state(dipeptide_vacuum, selection):
    """The region by itself, with caps, and with a tail: the potential sees the charge and multiplicity."""
    zones, model = whole(dipeptide_vacuum), States()
    if selection == "capped":
        zones = hard_zones(
            dipeptide_vacuum, region_from_atoms(dipeptide_vacuum.topology, range(10, 14), "atoms")
        )
    options = {"scheme": "additive", "mm_tail": selection == "with a tail"}
    hybrid = hybrid_system(dipeptide_vacuum, zones, model, charge=-1, multiplicity=2, **options)
    assert (hybrid.charge, hybrid.multiplicity) == (-1, 2)
    model.seen.clear()
    group = 1 << hybrid.force_groups["ml"]
    energy, _ = energy_and_forces(hybrid.system, dipeptide_vacuum.positions, groups=group)
    assert energy == pytest.approx(19.0, abs=1e-12)
    assert float(hybrid.region_energies(dipeptide_vacuum.positions).energies.sum()) == pytest.approx(19.0)
    assert model.seen == {(-1, 2)}
    structure = hybrid.region_structure(dipeptide_vacuum.positions)
    assert (structure.charge, structure.spin) == (-1, 2)


def test_the_charge_is_that_of_the_force_field_unless_it_is_given(dipeptide_vacuum):
    """Without the argument nothing is warned of; with another charge than the force field's it is."""
    own = hybrid_system(dipeptide_vacuum, whole(dipeptide_vacuum), States(), scheme="additive")
    assert (own.charge, own.multiplicity) == (0, 1) and not own.warnings
    given = hybrid_system(dipeptide_vacuum, whole(dipeptide_vacuum), States(), scheme="additive", charge=2)
    assert given.charge == 2
    assert given.warnings == ("charge +2 of the region is not the force field's +0",)


def test_a_given_charge_stands_in_for_a_group_that_was_cut(dipeptide_vacuum):
    """A capped region with half of a carbonyl group has no charge of its own: it must be given."""
    region = region_from_atoms(dipeptide_vacuum.topology, [5], "atoms")  # O of ACE, −0.57 e
    zones = hard_zones(dipeptide_vacuum, region)
    with pytest.raises(EmbeddingError, match=r"a region of charge -0\.57 e by the force field"):
        net_charge(dipeptide_vacuum, zones, "additive")
    assert net_charge(dipeptide_vacuum, zones, None) == -1


def test_a_multiplicity_that_has_no_meaning_is_refused(dipeptide_vacuum, ani1x):
    """A potential of closed shells, and a scheme under which the potential sees more than the region."""
    zones = whole(dipeptide_vacuum)
    with pytest.raises(PotentialError, match="multiplicity 1 for plain springs, which describes closed"):
        hybrid_system(dipeptide_vacuum, zones, States(spins=False), multiplicity=3)
    with pytest.raises(ConfigError, match="under scheme 'additive' only"):
        hybrid_system(dipeptide_vacuum, zones, ani1x, scheme="per_atom", multiplicity=3)


def test_a_charge_outside_of_the_training_stops_or_is_recorded(dipeptide_vacuum, ani1x, tmp_path):
    """ANI was trained on neutral molecules: refused, or in warnings, record and log."""
    zones = whole(dipeptide_vacuum)
    with pytest.raises(PotentialError, match="neutral molecules alone, but got charge -1") as caught:
        hybrid_system(dipeptide_vacuum, zones, ani1x, charge=-1)
    assert "amp-bms" in caught.value.do and 'outside_training = "warn"' in caught.value.do
    with pytest.raises(ConfigError, match=r"outside_training = stop \| warn"):
        hybrid_system(dipeptide_vacuum, zones, ani1x, outside_training="maybe")
    hybrid = hybrid_system(dipeptide_vacuum, zones, ani1x, charge=-1, outside_training="warn")
    (sentence,) = hybrid.outside_training
    assert sentence in hybrid.warnings and "whose charge is -1" in sentence
    assert hybrid.reassembled(direct_pairs=False).outside_training == (sentence,)
    stages = [Produce("0.001 ps", timestep="0.5 fs")]
    run = simulate(hybrid, tmp_path / "run", stages, platform="Reference")
    facts = json.loads(run.file("run.json").read_text())
    assert facts["region"]["outside_training"] == [sentence] and sentence in facts["warnings"]
    assert sentence in run.file("run.log").read_text()
    neutral = hybrid_system(dipeptide_vacuum, zones, ani1x)
    assert not neutral.outside_training
    # One that takes the charge into account is never outside.
    knows = hybrid_system(dipeptide_vacuum, zones, States(), charge=-1, multiplicity=2)
    assert not knows.outside_training


def test_a_potential_that_does_not_say_what_it_was_trained_on_gives_a_warning(dipeptide_vacuum):
    hybrid = hybrid_system(dipeptide_vacuum, whole(dipeptide_vacuum), PlainSprings(), charge=1)
    assert not hybrid.outside_training
    assert any("which plain springs does not take into account" in said for said in hybrid.warnings)


def test_a_charge_that_a_cut_leaves_is_none(dipeptide_vacuum):
    """Half of a dipole is no charge of a molecule; a rounded remainder does not stop a run."""
    region = region_from_atoms(dipeptide_vacuum.topology, [5], "atoms")  # O of ACE, −0.57 e
    zones = hard_zones(dipeptide_vacuum, region)
    assert not trusted_charge(dipeptide_vacuum, zones, given=False)
    assert trusted_charge(dipeptide_vacuum, zones, given=True)
    assert trusted_charge(dipeptide_vacuum, whole(dipeptide_vacuum), given=False)


def test_potentials_that_know_it_are_named():
    """By elements, charge and spin; every known potential has facts that its file bears out."""
    assert potentials_for([1, 6], charge=1) == ["amp-bms", "aimnet2"]
    assert "ani2x" in potentials_for([1, 6, 16]) and "ani1x" not in potentials_for([1, 6, 16])
    assert potentials_for([1, 92]) == ["sevennet0"]
    assert potentials_for([1], multiplicity=2) == []
    for name in ("ani1x", "amp-bms"):
        known, loaded = known_by_name(name).spec, load_potential(name).spec
        for fact in ("name", "cutoff", "trained_on", "per_atom", "charges", "trained_charges", "long_range"):
            assert getattr(known, fact) == getattr(loaded, fact), fact
        assert set(known.elements) == set(loaded.elements)
        assert known.polarisation_range == pytest.approx(loaded.polarisation_range)
