"""An implicit solvent stays whole around the force field's charges: solvation of the region counts once."""

import numpy as np
import openmm
import pytest
from toys import ForceFieldPotential, energy_and_forces

from mlmm.build import build_system
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.hybrid.system import hybrid_system
from mlmm.validation.check import check_energy
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones, static_zones

MODELS = ["hct", "obc1", "obc2", "gbn", "gbn2"]
SCHEMES = {"additive": "all", "per_atom": "resname ACE or resname ALA"}


def dipeptide(root, **options):
    path = root / "systems" / "alanine_dipeptide" / "input.pdb"
    return build_system(path, solvate=False, constraints="none", rigid_water=False, **options)


@pytest.fixture(scope="module")
def vacuum(root):
    return dipeptide(root)


@pytest.fixture(scope="module")
def solvated(root):
    return dipeptide(root, implicit="obc2")


def born_energy(built):
    """Energy of the solvent's force alone, on Reference."""
    system = openmm.XmlSerializer.clone(built.system)
    for index in reversed(range(system.getNumForces())):
        if not isinstance(system.getForce(index), openmm.CustomGBForce):
            system.removeForce(index)
    assert system.getNumForces() == 1
    return energy_and_forces(system, built.positions)


def hybrid(built, potential, scheme):
    region = select_region(built, SCHEMES[scheme])
    zones = hard_zones(built, region) if scheme == "additive" else static_zones(built, region)
    return hybrid_system(built, zones, potential, scheme=scheme)


def test_the_build_has_the_solvent_of_openmm(vacuum, solvated):
    assert solvated.provenance["forcefield_files"][-1] == "implicit/obc2.xml"
    assert "implicit solvent obc2" in "\n".join(solvated.provenance["decisions"])
    assert np.array_equal(solvated.positions, vacuum.positions) and not solvated.periodic
    energy, _ = born_energy(solvated)
    assert -150 < energy < -30  # kJ/mol; capped alanine in water


@pytest.mark.parametrize("scheme", SCHEMES)
def test_solvation_is_added_once_whatever_the_model_says(vacuum, solvated, ani1x, scheme):
    """Energy and forces with solvent, less those without, are those of the solvent for all charges."""
    with_solvent, without = (hybrid(built, ani1x, scheme) for built in (solvated, vacuum))
    (energy, forces), (bare, bare_forces) = (
        energy_and_forces(made.system, solvated.positions) for made in (with_solvent, without)
    )
    born, born_forces = born_energy(solvated)
    assert energy - bare == pytest.approx(born, abs=1e-6) and abs(born) > 30
    np.testing.assert_allclose(forces - bare_forces, born_forces, atol=1e-6 * np.abs(forces).max())


def test_the_force_field_as_its_own_model_leaves_the_solvated_force_field(solvated):
    """`per_atom` with the force field in vacuum as the model; a model of another scale is the control."""
    expected, expected_forces = energy_and_forces(solvated.system, solvated.positions)
    found, forces = energy_and_forces(
        hybrid(solvated, ForceFieldPotential(solvated), "per_atom").system, solvated.positions
    )
    assert found == pytest.approx(expected, abs=1e-8)
    np.testing.assert_allclose(forces, expected_forces, atol=1e-8 * np.abs(expected_forces).max())
    other = hybrid(solvated, ForceFieldPotential(solvated, scale=1.5), "per_atom")
    assert abs(energy_and_forces(other.system, solvated.positions)[0] - expected) > 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_check_passes(solvated, ani1x, scheme):
    report = check_energy(hybrid(solvated, ani1x, scheme))
    assert report.passed, report


def test_better_charges_are_refused_beside_an_implicit_solvent(solvated, ani1x):
    zones = hard_zones(solvated, select_region(solvated, "all"))
    charges = np.zeros(solvated.n_atoms)
    with pytest.raises(EmbeddingError, match="a CustomGBForce, which has charges of its own"):
        hybrid_system(solvated, zones, ani1x, scheme="additive", charges=charges)


def test_salt_screens(root, solvated):
    salted, _ = born_energy(dipeptide(root, implicit="obc2", ionic_strength="0.5 M"))
    assert 1e-3 < abs(salted - born_energy(solvated)[0]) < 2


@pytest.mark.parametrize("model", [name for name in MODELS if name != "obc2"])
def test_models_of_implicit_solvent(root, model):
    energy, _ = born_energy(dipeptide(root, implicit=model))
    assert -150 < energy < -30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solvent": "box"}, 'solvent = "none"'),
        ({"forcefield": "charmm36m"}, 'forcefield = "amber14"'),
        ({"implicit": "obc3"}, "obc2"),
    ],
)
def test_what_does_not_go_with_an_implicit_solvent(root, options, words):
    with pytest.raises(ConfigError) as caught:
        build_system(root / "systems" / "alanine_dipeptide" / "input.pdb", **({"implicit": "obc2"} | options))
    assert words in str(caught.value)
