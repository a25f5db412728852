"""Objects of another class, where Python would end with an AttributeError, are refused with the next line."""

from __future__ import annotations

import numpy as np
import pytest
from toys import SpringPotential, chains

import mlmm
from mlmm.errors import ConfigError, StructureError

BUILT = chains()
REGION = mlmm.select_region(BUILT, "resid 0")
ZONES = mlmm.hard_zones(BUILT, REGION)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mlmm.hybrid_system(BUILT, REGION, SpringPotential()), r"a Region\. .*hard_zones\(built"),
        (lambda: mlmm.hybrid_system(BUILT, "all", SpringPotential()), r"a str \('all'\)"),
        (lambda: mlmm.hybrid_system(BUILT.system, ZONES, SpringPotential()), "a System.*from_openmm"),
        (lambda: mlmm.hybrid_system(BUILT, ZONES, "ani1x"), r"'ani1x'.*load_potential\(\"ani1x\"\)"),
        (lambda: mlmm.hard_zones(BUILT, [0, 1]), r"a list\. .*select_region"),
        (lambda: mlmm.static_zones(BUILT, ZONES), "a ZonePartition.*select_region"),
        (lambda: mlmm.residue_zones(BUILT, "resid 0", {}), "a str.*select_region"),
        (lambda: mlmm.adaptive_zones(BUILT, ZONES), "a ZonePartition.*select_region"),
        (lambda: mlmm.check(BUILT), "a BuiltSystem.*hybrid_system"),
        (lambda: mlmm.simulate(BUILT.system, "never", []), "a System.*hybrid_system"),
    ],
)
def test_arguments_of_another_class_lead_on(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


@pytest.mark.parametrize("stages", [mlmm.Produce("1 ps"), ["minimise"], [], [mlmm.Minimise]])
def test_stages_that_are_none(tmp_path, stages):
    hybrid = mlmm.hybrid_system(BUILT, ZONES, SpringPotential())
    with pytest.raises(ConfigError, match=r"Write a list such as \[mlmm.Minimise\(\)"):
        mlmm.simulate(hybrid, tmp_path / "run", stages)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("box", "enough"), [(1.99, False), (2.0, True)])
def test_a_box_below_twice_the_cutoff_is_refused_where_it_comes_in(box, enough):
    if enough:
        assert np.isclose(chains(box=box, cutoff=1.0).box_vectors[0, 0], box)
        return
    with pytest.raises(StructureError, match=r"2 nm wide, twice the cutoff of NonbondedForce.*1\.99 nm"):
        chains(box=box, cutoff=1.0)
