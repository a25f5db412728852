"""Net charge and multiplicity of the region: from the arguments of `hybrid_system` to every structure."""

from __future__ import annotations

import dataclasses

import pytest
from toys import PlainSprings, energy_and_forces

from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.region_checks import net_charge
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import AtomEnergies
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
