"""Mass moved to the hydrogens of a region: where, how much, and what it does not change."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.systems import nearest_region

from mlmm.build.masses import heavier_hydrogens
from mlmm.config.load import load_config
from mlmm.config.objects import hybrid_from
from mlmm.errors import ConfigError


def masses(built) -> np.ndarray:
    return np.array([built.system.getParticleMass(i)._value for i in range(built.n_atoms)])


def test_mass_moves_inside_the_region_alone_and_none_is_lost(dipeptide_water):
    region = nearest_region(dipeptide_water, 52)
    heavier = heavier_hydrogens(dipeptide_water, region.atoms, "3 amu")
    before, after = masses(dipeptide_water), masses(heavier)
    changed = np.flatnonzero(before != after)
    assert set(changed) <= set(region.atoms) and after.sum() == pytest.approx(before.sum(), abs=1e-9)
    elements = np.array([atom.element.symbol for atom in dipeptide_water.topology.atoms()])
    hydrogens = np.array([i for i in region.atoms if elements[i] == "H"])
    assert np.all(after[hydrogens] == 3.0)
    oxygen = next(i for i in region.atoms if i >= 22)
    assert after[oxygen] == pytest.approx(before[oxygen] - 2 * (3.0 - before[oxygen + 1]))
    assert "amu" in heavier.provenance["decisions"][-1]


def test_the_slowest_step_of_a_bond_to_hydrogen_grows(dipeptide_vacuum):
    """omega^2 = k / mu of C–H bonds: mu goes from 0.93 to 2.2 (methyl: 3 amu of 12 + 3 - 9) or more."""
    heavier = heavier_hydrogens(dipeptide_vacuum, range(22), 3.0)
    reduced = []
    for built in (dipeptide_vacuum, heavier):
        mass = masses(built)
        reduced.append(
            [
                mass[a.index] * mass[b.index] / (mass[a.index] + mass[b.index])
                for a, b in built.topology.bonds()
                if "H" in (a.element.symbol, b.element.symbol)
            ]
        )
    assert np.min(reduced[1]) / np.min(reduced[0]) > 2.0


def test_hydrogen_mass_repartitioning_is_idempotent(dipeptide_vacuum):
    once = heavier_hydrogens(dipeptide_vacuum, range(22), 2.0)
    assert np.array_equal(masses(heavier_hydrogens(once, range(22), 2.0)), masses(once))


@pytest.mark.parametrize("mass", ["5 amu", "0 amu"])
def test_masses_that_leave_too_little_are_refused(dipeptide_vacuum, mass):
    with pytest.raises(ConfigError, match="3 amu"):
        heavier_hydrogens(dipeptide_vacuum, range(22), mass)


def test_key_of_the_run_file(dipeptide_water, root):
    path = root / "systems/alanine_dipeptide/run.toml"
    config = load_config(path, ["region.hydrogen_mass=2 amu"])
    hybrid = hybrid_from(config, dipeptide_water)
    found = [hybrid.system.getParticleMass(i)._value for i in range(hybrid.built.n_atoms)]
    assert found[0] == 2.0 and found[-1] == masses(dipeptide_water)[-1]
