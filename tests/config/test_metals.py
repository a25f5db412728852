"""``metals = "restrain"``: metals are held where they are, by the run file alone."""

from pathlib import Path

import numpy as np
import pytest
from toys import PlainSprings, energy_and_forces

from mlmm.build.metal_sites import coordination_bonds
from mlmm.build.plan import plan_system
from mlmm.config.load import load_config
from mlmm.config.metals import METAL_FORCE_CONSTANT, biases_of
from mlmm.config.objects import build_from
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.zones.region import select_region
from mlmm.zones.static import hard_zones

ZINC = Path(__file__).parents[1] / "build" / "cases" / "zncys4.pdb"
SYSTEM = '[system]\npdb = "{pdb}"\nsolvent = "none"\nconstraints = "none"\nmetals = "{metals}"\n'


def config_of(folder, metals="restrain", pdb=ZINC):
    path = folder / "run.toml"
    path.write_text(SYSTEM.format(pdb=pdb, metals=metals) + '[region]\nselect = "chainid 0"\n')
    return load_config(path)


@pytest.fixture(scope="module")
def zinc(tmp_path_factory):
    config = config_of(tmp_path_factory.mktemp("zinc"))
    return config, build_from(config, lambda stage: None)


def made(config, built, select="chainid 0"):
    region = select_region(built, select)
    variables, restraints = biases_of(config, built, region.atoms)
    zones = hard_zones(built, region)
    return hybrid_system(
        built, zones, PlainSprings(), scheme="additive", variables=variables, restraints=restraints
    )


def test_four_sulfurs_hold_the_zinc(zinc, tmp_path):
    """E = sum of k/2 (r - r0)² over the four bonds, and nothing where the metal is; free is the control."""
    config, built = zinc
    bonds = coordination_bonds(built.topology, built.positions)
    assert [bond.donor.name for bond in bonds] == ["SG"] * 4
    assert all(0.22 < bond.distance < 0.24 for bond in bonds)
    free = made(config_of(tmp_path, metals="free"), built)
    held = made(config, built)
    assert not free.biases.restraints and len(held.biases.restraints) == 4
    moved = np.array(built.positions)
    moved[bonds[0].metal.index] += [0.01, -0.02, 0.005]
    away = [np.linalg.norm(moved[b.metal.index] - moved[b.donor.index]) - b.distance for b in bonds]
    expected = 0.5 * METAL_FORCE_CONSTANT * float(np.sum(np.square(away)))
    for places, energy in ((built.positions, 0.0), (moved, expected)):
        with_bias, without = (energy_and_forces(one.system, places)[0] for one in (held, free))
        assert with_bias - without == pytest.approx(energy, abs=1e-3)
    assert expected > 10


def test_names_say_which_atoms(zinc):
    config, built = zinc
    variables, _ = biases_of(config, built, ())
    assert next(variable.name for variable in variables) == "d_ZN301E_ZN_CYS2A_SG"


def test_a_bond_inside_the_region_is_left_to_the_potential(zinc):
    config, built = zinc
    region = select_region(built, "chainid 0 or resname ZN")
    _, restraints = biases_of(config, built, region.atoms)
    assert len(restraints) == 3


def test_a_structure_without_metals_says_so(tmp_path, root):
    config = config_of(tmp_path, pdb=root / "systems" / "alanine_dipeptide" / "input.pdb")
    built = build_from(config, lambda stage: None)
    with pytest.raises(ConfigError, match="none in the built structure"):
        biases_of(config, built, ())


def test_a_dry_run_says_what_the_ion_will_do_and_what_holds_it():
    text = str(plan_system(ZINC))
    assert "tends to open" in text and 'metals = "restrain"' in text
    assert "SG of CYS 2 of chain A (0.233 nm)" in text
    assert text.count("is CYM") == 4
