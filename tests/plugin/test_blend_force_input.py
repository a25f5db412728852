"""What `AdaptiveANIForce` and `SupermolecularANIForce` refuse, and how: a sentence with the next step."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from adaptive_water import around_one, hybrid_of
from ani_contexts import context_of, force_of, parameters, system_of

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.errors import PotentialError
from mlmm.hybrid.adaptive_arrays import adaptive_arrays
from mlmm.plugin import AdaptiveANIForce, MemberEvaluation, SupermolecularANIForce, plugin_problem
from mlmm.potentials import load_potential

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built"),
]

REFERENCE = ("Reference", {})
NUMBERS = [6, 1, 1, 8, 1]


@pytest.fixture(scope="module")
def water():
    """A box of flexible water, and the arrays of an adaptive zone in it."""
    built = build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")
    hybrid = hybrid_of(built, around_one(built), load_potential("ani1x", members=[0]), bridge="pythonforce")
    return built, *adaptive_arrays(hybrid.spec)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("molecule_start", None, "got none for 'molecule_start'"),
        ("molecule_start", lambda x: x[:-1], "another number of atoms for 'molecule_start'"),
        ("molecule_start", lambda x: np.r_[x[:1], x[:1], x[2:]], "a molecule without atoms"),
        ("molecule_atoms", lambda x: np.r_[x[:-1], x[0]], "particle 3 twice for 'molecule_atoms'"),
        ("molecule_atoms", lambda x: np.r_[x[:-1], 9999], "got 9999 for 'molecule_atoms'"),
        ("owned", lambda x: np.r_[x, x[:1]], "particle 0 twice for 'owned'"),
        ("kinds", lambda x: x + 1, "got 1 for 'kinds'"),
        ("centres", lambda x: x[:0], "a zone without width, plateau or centre"),
        ("zone", lambda x: [0.3, 0.0], "a zone without width, plateau or centre"),
        ("uniform", lambda x: [1.5], "no lambda for 'uniform'"),
        ("anchors", lambda x: x[:-1], "numbers instead of"),
        ("special_other", lambda x: x[:-1], "another number of partners for 'special_start'"),
        ("bond_wraps", lambda x: x[:-1], "another number of terms for 'bond_wraps'"),
        ("angle_numbers", lambda x: np.where(x > 0, np.nan, x), "got NaN for 'angle_numbers'"),
        ("cmap_place", lambda x: [0, 4], "got 4 for 'cmap_place'"),
        ("knots", lambda x: x[:1], "too few for 'knots'"),
        ("parameters", lambda x: x[1:], "numbers instead of"),
    ],
)
def test_arrays_of_a_zone_that_do_not_belong_together(water, name, change, message):
    """Each of them is looked at when a Context is made; without the change there is one."""
    built, integers, numbers = water
    integers, numbers = dict(integers), dict(numbers)
    given = integers if name in integers else numbers
    if change is None:
        del given[name]
    else:
        given[name] = change(np.asarray(given[name]))
    networks, atoms = parameters(), list(range(built.n_atoms))
    force = AdaptiveANIForce(networks, built.numbers.tolist(), atoms, integers, numbers, periodic=True)
    system = system_of(built.n_atoms, force, cell=np.array(built.box_vectors))
    with pytest.raises(openmm.OpenMMException, match=f"arrays that belong together.*{message}"):
        context_of(system, REFERENCE)
    with pytest.raises(openmm.OpenMMException, match="arrays that belong together"):
        MemberEvaluation(force, built.n_atoms)
    good = AdaptiveANIForce(networks, built.numbers.tolist(), atoms, *water[1:], periodic=True)
    context_of(system_of(built.n_atoms, good, cell=np.array(built.box_vectors)), REFERENCE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": [17, 1, 1, 8, 1]}, "elements H, C, N, O of the ANI networks, but got Cl"),
        ({"numbers": [6, 1]}, "2 numbers, 5 particles, 2 in the region"),
        ({"region": [7]}, "a region among them, but got 5 numbers, 5 particles, 0 in the region"),
        ({"precision": "half"}, "precision = float32"),
        ({"parameters": 3}, "a name, a file or ANIParameters"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    given = {"parameters": parameters(), "numbers": NUMBERS, "particles": range(5), "region": [3, 4]}
    with pytest.raises(PotentialError, match=message):
        SupermolecularANIForce(**(given | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particles": [0, 1, 1, 3, 4]}, "particle 1 twice for 'seen'"),
        ({"particles": [0, 1, 2, 3, 5]}, "got 5 for 'seen'"),
        ({"caps": [(0, 0, 0.1)]}, "a cap on no bond for 'caps'"),
        ({"caps": [(0, 3, 0.0)]}, "a cap on no bond for 'caps'"),
        ({"caps": [(0, 9, 0.1)]}, "got 9 for 'caps'"),
    ],
)
def test_a_context_is_refused(options, message):
    given = {"numbers": NUMBERS, "particles": [0, 1, 2, 3, 4], "region": [3, 4]} | options
    force = SupermolecularANIForce(parameters(), **given)
    with pytest.raises(openmm.OpenMMException, match=message):
        context_of(system_of(5, force), REFERENCE)


def test_xml_of_another_version_or_kind_or_damaged():
    force = SupermolecularANIForce("ani1x", NUMBERS, range(5), [3, 4])
    xml = openmm.XmlSerializer.serialize(force)
    for old, new, message in (
        ('version="1"', 'version="7"', "version 1 of the XML of an ANIBlendForce, but got 7"),
        ('name="inside" values="', 'name="inside" values="?', "base64"),
    ):
        assert xml.count(old) >= 1
        with pytest.raises(openmm.OpenMMException, match=message):
            openmm.XmlSerializer.deserialize(xml.replace(old, new))
    other = openmm.XmlSerializer.deserialize(xml.replace('kind="supermolecular"', 'kind="mean"'))
    with pytest.raises(TypeError, match="SupermolecularANIForce, but got"):
        SupermolecularANIForce.cast(other)
    with pytest.raises(openmm.OpenMMException, match=r"adaptive or supermolecular .* but got 'mean'"):
        context_of(system_of(5, other), REFERENCE)


def test_only_its_own_kind_is_cast():
    difference = SupermolecularANIForce("ani1x", NUMBERS, range(5), [3, 4])
    for force in (openmm.HarmonicBondForce(), force_of(NUMBERS), difference):
        with pytest.raises(TypeError, match="AdaptiveANIForce, but got"):
            AdaptiveANIForce.cast(force)
    assert SupermolecularANIForce.cast(difference).getNumMembers() == 8


def test_positions_of_another_system_and_a_missing_box():
    members = MemberEvaluation(SupermolecularANIForce("ani1x", NUMBERS, range(5), [3], periodic=True), 5)
    with pytest.raises(PotentialError, match=r"positions of shape \(5, 3\)"):
        members(np.zeros((4, 3)))
    with pytest.raises(openmm.OpenMMException, match="box vectors for a periodic force, but got none"):
        members(np.random.default_rng(0).uniform(size=(5, 3)))
