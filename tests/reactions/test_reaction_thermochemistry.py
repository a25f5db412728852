"""Partition functions against formulas and against ASE's; isotope effects in their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from model_surfaces import springs

from mlmm.reactions.frequencies import frequency_result
from mlmm.reactions.hessian import hessian, normal_modes
from mlmm.reactions.options import FrequencyOptions
from mlmm.reactions.rate import eyring_rate
from mlmm.reactions.thermochemistry import (
    isotope_effect,
    moments_of_inertia,
    thermochemistry,
    wigner_factor,
)
from mlmm.units import ANGSTROM, ELECTRONVOLT, GAS_CONSTANT, LIGHT_SPEED, PLANCK

WATER = (
    np.array([15.999, 1.008, 1.008]),
    np.array([[0.0, 0.0, 0.0119], [0.0, 0.0763, -0.0477], [0.0, -0.0763, -0.0477]]),
    np.array([1595.0, 3657.0, 3756.0]),
)
HYDROGEN_CHLORIDE = (np.array([1.008, 34.969]), np.array([[0.0, 0, 0], [0, 0, 0.12746]]), np.array([2886.0]))


def test_a_diatomic_has_the_entropy_of_the_tables():
    """HCl at 298.15 K and 1 bar: 186.90 J/mol/K (NIST-JANAF), with 35Cl alone and a rigid rotor."""
    masses, where, modes = HYDROGEN_CHLORIDE
    found = thermochemistry(modes, 298.15, masses=masses, positions=where)
    assert found.entropy * 1e3 == pytest.approx(186.9, abs=0.4)
    doubled = thermochemistry(modes, 298.15, masses=masses, positions=where, symmetry_number=2)
    assert found.entropy - doubled.entropy == pytest.approx(GAS_CONSTANT * math.log(2), rel=1e-12)


def test_a_diatomic_follows_the_formulas():
    masses, where, modes = HYDROGEN_CHLORIDE
    t, rt = 500.0, GAS_CONSTANT * 500.0
    found = thermochemistry(modes, t, masses=masses, positions=where, pressure=2.0)
    moment = masses.prod() / masses.sum() * 0.12746**2
    assert moments_of_inertia(masses, where)[1:] == pytest.approx([moment, moment], rel=1e-12)
    rotation = GAS_CONSTANT * (math.log(8 * math.pi**2 * moment * rt / PLANCK**2) + 1)
    quantum = PLANCK * LIGHT_SPEED * modes[0]
    x = quantum / rt
    vibration = GAS_CONSTANT * (x / (math.exp(x) - 1) - math.log(1 - math.exp(-x)))
    assert found.parts["rotation"] == pytest.approx(rotation, rel=1e-12)
    assert found.parts["vibration"] == pytest.approx(vibration, rel=1e-10)
    assert found.zero_point == pytest.approx(quantum / 2, rel=1e-12)
    assert found.enthalpy == pytest.approx(quantum / 2 + quantum / (math.exp(x) - 1) + 3.5 * rt, rel=1e-12)
    single = thermochemistry(modes, t, masses=masses, positions=where, pressure=1.0)
    assert single.entropy - found.entropy == pytest.approx(GAS_CONSTANT * math.log(2), rel=1e-12)


@pytest.mark.parametrize(
    "molecule, geometry, symmetry", [(WATER, "nonlinear", 2), (HYDROGEN_CHLORIDE, "linear", 1)]
)
def test_equals_the_ideal_gas_of_ase(molecule, geometry, symmetry):
    from ase import Atoms
    from ase.thermochemistry import IdealGasThermo
    from ase.units import invcm

    masses, where, modes = molecule
    atoms = Atoms("H" * len(masses), where / ANGSTROM)
    atoms.set_masses(masses)
    theirs = IdealGasThermo(modes * invcm, geometry, atoms=atoms, symmetrynumber=symmetry, spin=0.5)
    found = thermochemistry(
        modes, 350.0, masses=masses, positions=where, symmetry_number=symmetry, multiplicity=2
    )
    assert found.enthalpy == pytest.approx(theirs.get_enthalpy(350.0, verbose=False) * ELECTRONVOLT, abs=1e-4)
    entropy = theirs.get_entropy(350.0, 1e5, verbose=False) * ELECTRONVOLT
    assert found.entropy == pytest.approx(entropy, rel=1e-6)
    assert found.gibbs == pytest.approx(
        theirs.get_gibbs_energy(350.0, 1e5, verbose=False) * ELECTRONVOLT, abs=1e-3
    )


def test_modes_of_low_wavenumber_become_rotors():
    """High modes stay as they are; a mode at the cutoff is half of each; entropy stays finite towards 0."""
    high = thermochemistry(np.array([3000.0]), 300.0)
    assert high.quasi_entropy == pytest.approx(high.entropy, abs=1e-8)
    low = [thermochemistry(np.array([w]), 300.0) for w in (1e-4, 1e-6)]
    assert low[1].entropy - low[0].entropy == pytest.approx(GAS_CONSTANT * math.log(100), rel=1e-3)
    assert abs(low[1].quasi_entropy - low[0].quasi_entropy) < 1e-4
    # Grimme's rotor at 1e-44 kg m²: a free rotor of that moment.
    limit = GAS_CONSTANT * (
        0.5 + math.log(math.sqrt(8 * math.pi**3 * 6.02214076 * GAS_CONSTANT * 300) / PLANCK)
    )
    assert low[1].quasi_entropy == pytest.approx(limit, rel=1e-3)
    half, off = (
        thermochemistry(np.array([100.0]), 300.0),
        thermochemistry(np.array([100.0]), 300.0, cutoff=1e-6),
    )
    assert off.quasi_entropy == pytest.approx(off.entropy, rel=1e-12)
    assert half.quasi_entropy < half.entropy


def test_atoms_in_an_environment_vibrate_only():
    found = thermochemistry(np.array([-500.0, 400.0, 900.0]), 300.0)
    assert found.parts["translation"] == found.parts["rotation"] == 0.0
    assert found.enthalpy == found.thermal
    assert found.zero_point == pytest.approx(PLANCK * LIGHT_SPEED * 650.0, rel=1e-12)


def test_tunnelling_is_that_of_wigner():
    """u = hν/kT with hc/k = 1.4387769 cm K."""
    u = 1.4387769 * 1000.0 / 300.0
    assert wigner_factor(-1000.0, 300.0) == pytest.approx(1 + u**2 / 24, rel=1e-7)


def test_isotope_effects_in_their_limits():
    reactant, saddle = np.array([2900.0, 1400.0]), np.array([-1200.0, 1300.0])
    heavy = np.array([2130.0, 1050.0]), np.array([-900.0, 1000.0])
    assert isotope_effect((reactant, reactant), (saddle, saddle), 300.0) == pytest.approx(1.0, rel=1e-12)
    # Zero-point energies alone where it is cold.
    cold = 30.0
    pairs = (reactant, heavy[0]), (saddle, heavy[1])
    points = (reactant - heavy[0]).sum() - (saddle[1:] - heavy[1][1:]).sum()
    ratio = (1200 / 900) * (heavy[1][1] / saddle[1]) ** -1 * (heavy[0] / reactant).prod()
    exact = ratio * math.exp(PLANCK * LIGHT_SPEED * points / 2 / (GAS_CONSTANT * cold))
    assert isotope_effect(*pairs, cold) == pytest.approx(exact, rel=1e-6)
    # Classical where it is hot: only the ratio of imaginary frequencies is left.
    assert isotope_effect(*pairs, 1e7) == pytest.approx(1200 / 900, rel=1e-6)
    assert isotope_effect(*pairs, 300.0) > 2.0


def test_a_barrier_is_that_of_two_ideal_gases():
    """Each with its own modes and symmetry number: 2 for the reactant lowers the barrier by RT ln 2."""
    bent = np.array([[-0.1, 0.05, 0], [0, 0, 0], [0.1, 0.05, 0]])
    line = np.array([[-0.11, 0, 0], [0, 0, 0], [0.11, 0, 0]])
    t = 400.0

    def run(where, symmetry, reference=None):
        surface = springs(where, [16.0] * 3, [(0, 1), (1, 2), (0, 2)], [9e5, 9e5, 4e5], [0.11, 0.11, 0.2])
        found = hessian(surface, where, 1e-5)
        modes = normal_modes(found.matrix, surface.masses, where, free=True)
        options = FrequencyOptions(temperatures=[f"{t} K"], symmetry_number=symmetry)
        facts, arrays = frequency_result(surface, found, modes, {}, options, reference)
        gas = {"masses": surface.masses, "positions": where, "symmetry_number": symmetry}
        return facts, arrays, thermochemistry(modes.wavenumbers, t, **gas)

    one, two = run(bent, 1), run(bent, 2)
    facts, _, gas = run(line, 1, two[1])
    (row,) = facts["barriers"]
    assert row["energy"] == pytest.approx(facts["energy"] - two[0]["energy"], abs=1e-9)
    assert row["energy"] > 1.0
    for name in ("zero_point", "enthalpy", "gibbs", "quasi_gibbs"):
        rise = getattr(gas, name) - getattr(two[2], name)
        assert row[name] == pytest.approx(row["energy"] + rise, abs=1e-9), name
    (plain,) = run(line, 1, one[1])[0]["barriers"]
    assert row["gibbs"] == pytest.approx(plain["gibbs"] - GAS_CONSTANT * t * math.log(2), abs=1e-9)
    assert row["rate"] == pytest.approx(2 * plain["rate"], rel=1e-9)
    assert row["rate"] == pytest.approx(eyring_rate(row["quasi_gibbs"], 0.0, t).value, rel=1e-12)
