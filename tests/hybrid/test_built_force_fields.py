"""Force fields from the builder under a potential: each force class is divided or refused by name."""

from pathlib import Path

import numpy as np
import pytest
from toys import ForceFieldPotential, PlainSprings, energy_and_forces

from mlmm.build import build_system
from mlmm.errors import EmbeddingError
from mlmm.forcefield.term_catalogue import CATALOGUE
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import check_energy
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones

CASES = Path(__file__).parents[1] / "build" / "cases"
#: Classes whose terms `per_atom` cannot share out among atoms; `additive` divides them.
UNSHARED = {"CustomTorsionForce", "CustomNonbondedForce", "CustomBondForce", "CustomAngleForce"}
SYSTEMS = [
    pytest.param("af", {"forcefield": "amber19", "water": "opc"}, "resSeq 1 2", id="ff19SB"),
    pytest.param("dna", {}, "resSeq 1 2", id="OL15"),
    pytest.param("n_glycan", {}, "resname NAG", id="GLYCAM"),
    pytest.param("zncys4", {}, "resname ZN or chainid 0", id="zinc"),
    pytest.param(
        "af",
        {"forcefield": ["charmm36.xml", "charmm36/water.xml"]},
        "resSeq 1 2",
        id="CHARMM36",
        marks=pytest.mark.slow,
    ),
    pytest.param("cyclic", {"forcefield": "charmm36m"}, "resSeq 1 2", id="CHARMM36m", marks=pytest.mark.slow),
]


def built(name, options):
    return build_system(
        CASES / f"{name}.pdb", solvate=False, constraints="none", rigid_water=False, **options
    )


@pytest.mark.parametrize(("name", "options", "region"), SYSTEMS)
def test_every_force_class_is_divided_or_named_and_the_check_passes(name, options, region):
    """`per_atom` with the force field as its own model is the force field; of another scale it is not."""
    system = built(name, options)
    classes = {type(force).__name__ for force in system.system.getForces()}
    assert classes <= set(CATALOGUE)
    chosen = select_region(system, region)
    # Nucleotides and linked sugars carry a fraction of a charge each.
    apart = select_region(system, "all" if name in ("dna", "n_glycan") else region)
    whole = hybrid_system(system, hard_zones(system, apart), PlainSprings(), scheme="additive")
    report = check_energy(whole)
    assert report.passed, report
    unshared = classes & UNSHARED
    if unshared:
        with pytest.raises(EmbeddingError, match="|".join(sorted(unshared))):
            ForceFieldPotential(system)
        return
    zones = static_zones(system, chosen)
    own, other = (
        hybrid_system(system, zones, ForceFieldPotential(system, scale=scale), scheme="per_atom")
        for scale in (1.0, 1.3)
    )
    expected, forces = energy_and_forces(system.system, system.positions)
    found, found_forces = energy_and_forces(own.system, system.positions)
    assert found == pytest.approx(expected, abs=1e-8 * max(1.0, abs(expected)))
    np.testing.assert_allclose(found_forces, forces, atol=1e-8 * np.abs(forces).max())
    assert abs(energy_and_forces(other.system, system.positions)[0] - expected) > 1
    report = check_energy(other)
    assert report.passed, report
