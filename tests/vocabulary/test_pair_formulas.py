"""Every text of the pair formulas (numpy, torch, TorchScript, Lepton, C++) against one table of values."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import openmm
import pytest
import torch
from toys import energy_and_forces

from mlmm import pair_formulas
from mlmm.blending.full_pairs import FullPairs
from mlmm.blending.functions import short_range_inverse, short_range_pair, switching_function
from mlmm.blending.short_range import ShortRangeEnergies
from mlmm.electrostatics.predicted_charges import ChargeCorrection
from mlmm.errors import MissingPackageError
from mlmm.forcefield.scale_pairs import INSIDE, SURROUNDINGS
from mlmm.forcefield.scale_terms import scale_terms
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.kernels.direct_pairs import RegionPairs, ZonePairs, _library
from mlmm.term_weights import make_term_weights
from mlmm.units import COULOMB
from mlmm.zones.adaptive import AdaptiveWeights
from mlmm.zones.shapes import switch

# q q = −0.28 e², sigma 0.32 nm, epsilon sqrt(0.4) kJ/mol; switching function from 0.4 to 0.7 nm; the force
# field's own from 0.6 nm to its cutoff of 0.8 nm; PME with alpha = 3.2/nm. Values from the definitions with
# 40 digits.
CHARGES, SIGMAS, EPSILONS = (0.4, -0.7), (0.30, 0.34), (0.5, 0.8)
R_ON, R_OFF, SWITCH_ON, CUTOFF, ALPHA = 0.4, 0.7, 0.6, 0.8, 3.2
# r / nm, f, T (1/nm), v_sr, the whole pair, v_sr of a 1-4 pair (kJ/mol)
TABLE = """
0.1 1.0 3.062001619830416 2913700.057016075 2913580.9392490946 2913700.057016075
0.25 1.0 2.7559815177949116 -10.587116348710333 -117.8001113103128 -10.587116348710333
0.4 1.0 2.2889659374191753 -8.698961576778775 -97.74414999014456 -8.698961576778775
0.400001 0.9999999999999997 2.2889626014060247 -8.698843485458102 -97.74390212148002 -8.698843485458102
0.45 0.9645061728395061 2.1222645131879876 -4.163263914863679 -86.73355506175528 -4.163263914863679
0.55 0.5 1.8053492344775866 -0.546375295020158 -70.82510452894417 -0.546375295020158
0.6 0.20987654320987653 1.664119997377186 -0.11100842862566362 -64.89342835466675 -0.11100842862566362
0.65 0.035493827160493825 1.5383009063999997 -0.0073786349929412355 -59.880949358410525 -0.007509084052046764
0.699 3.68520987654321e-07 1.4306151644947205 -5.343576047551194e-09 -55.66544129552855 -9.515370876577377e-09
0.7 0.0 1.4285714285714286 0.0 -55.58562210271482 0.0
0.75 0.0 1.3333333333333333 0.0 -51.87080788394276 0.0
0.799999 0.0 1.2500015625019532 0.0 -48.6274709598724 0.0
0.800001 0.0 1.249998437501953 0.0 -48.613045273572894 0.0
1.2 0.0 0.8333333333333334 0.0 -32.41827162938356 0.0
"""
DISTANCES, FALLING, TAIL, SHORT, WHOLE, ONE_FOUR = np.array(
    [line.split() for line in TABLE.split("\n")[1:-1]], dtype=float
).T
INNER = DISTANCES <= R_OFF
# Of a value, or of 1 kJ/mol (1/nm).
TOLERANCE = 2e-12


def matches(found, expected) -> bool:
    return bool((np.abs(np.asarray(found) - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))).all())


def two_atoms(exception: bool = False) -> openmm.System:
    system, force = openmm.System(), openmm.NonbondedForce()
    for numbers in zip(CHARGES, SIGMAS, EPSILONS, strict=True):
        system.addParticle(12.0)
        force.addParticle(*numbers)
    if exception:
        force.addException(0, 1, CHARGES[0] * CHARGES[1], 0.32, math.sqrt(0.4))
    system.setDefaultPeriodicBoxVectors(*(4.0 * np.eye(3)).tolist())
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setPMEParameters(ALPHA, 32, 32, 32)
    force.setCutoffDistance(CUTOFF)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCH_ON)
    system.addForce(force)
    return system


def tables(exception: bool = False) -> MMTables:
    return read_mm_tables(two_atoms(exception))


def places(r: float) -> np.ndarray:
    return np.array([[1.0, 1.0, 1.0], [1.0 + r, 1.0, 1.0]]) - [1.0, 0.0, 0.0]


CELL = 4.0 * np.eye(3)
BOTH = np.array([True, True])


def torch_values(module, *arguments) -> np.ndarray:
    cell = torch.tensor(CELL)
    return np.array([float(module(torch.tensor(places(r)), cell, *arguments).sum()) for r in DISTANCES])


def short_range_module(exception: bool = False, native: bool = False) -> ShortRangeEnergies:
    module = ShortRangeEnergies(tables(exception), [0, 1], BOTH, R_ON, R_OFF)
    module.compiled = native
    return module


def formulas_in_torch() -> np.ndarray:
    r = torch.tensor(DISTANCES)
    wells = pair_formulas.lennard_jones(r, 0.32, math.sqrt(0.4))
    wells = wells * switching_function(r, SWITCH_ON, CUTOFF)
    charge = torch.tensor(CHARGES[0] * CHARGES[1], dtype=torch.float64)
    return short_range_pair(r, wells, charge, R_ON, R_OFF, COULOMB).numpy()


def formulas_in_numpy() -> np.ndarray:
    def falling(start: float, end: float) -> np.ndarray:
        return 1 - pair_formulas.smooth_step(np.clip((DISTANCES - start) / (end - start), 0, 1))

    wells = pair_formulas.lennard_jones(DISTANCES, 0.32, math.sqrt(0.4)) * falling(SWITCH_ON, CUTOFF)
    inverse = np.where(INNER, 1 / DISTANCES - pair_formulas.inverse_tail(DISTANCES, R_OFF), 0.0)
    return wells * falling(R_ON, R_OFF) + COULOMB * CHARGES[0] * CHARGES[1] * inverse


def scaled(weights: list[float], name: str, exception: bool = False) -> openmm.System:
    """One of the custom forces that take over the pairs, alone."""
    term_weights = make_term_weights("per_atom", np.array(weights), BOTH, (R_ON, R_OFF))
    system = scale_terms(two_atoms(exception), term_weights)[0]
    for index in reversed(range(system.getNumForces())):
        if system.getForce(index).getName() != name:
            system.removeForce(index)
    assert system.getNumForces() == 1
    return system


def openmm_values(system: openmm.System) -> np.ndarray:
    return np.array([energy_and_forces(system, places(r))[0] for r in DISTANCES])


def native_shared() -> np.ndarray:
    weights = make_term_weights("per_atom", np.array([1.0, 1.0]), BOTH, (R_ON, R_OFF))
    pairs = ZonePairs(tables(), weights, np.zeros((0, 2)))
    return np.array([-pairs(places(r), CELL)[0] for r in DISTANCES])


def native_region() -> np.ndarray:
    pairs = RegionPairs(tables(), np.array([0, 1]), np.zeros((0, 2)))
    return np.array([-pairs(places(r), CELL)[0] for r in DISTANCES])


def _compiled() -> bool:
    try:
        _library()
    except MissingPackageError:
        return False
    return True


# (values, expected); the second part needs the compiled library
TEXTS = {
    "numpy": (formulas_in_numpy, SHORT),
    "torch": (formulas_in_torch, SHORT),
    "pairs searched in torch": (lambda: torch_values(short_range_module()), SHORT),
    "the same in TorchScript": (lambda: torch_values(torch.jit.script(short_range_module())), SHORT),
    "1-4 pairs in torch": (lambda: torch_values(short_range_module(exception=True)), ONE_FOUR),
    "full pairs in torch": (lambda: torch_values(FullPairs(tables(), [0, 1])), WHOLE),
    "Lepton, W = 1": (lambda: openmm_values(scaled([1.0, 1.0], INSIDE)), WHOLE - SHORT),
    "Lepton, W = 0.3": (lambda: openmm_values(scaled([0.2, 0.4], INSIDE)), WHOLE - 0.3 * SHORT),
    "Lepton, surroundings": (lambda: openmm_values(scaled([1.0, 0.0], SURROUNDINGS)), -0.5 * SHORT),
}
NATIVE = {
    "C++ operator": (lambda: torch_values(short_range_module(native=True)), SHORT),
    "C++ pairs of a zone": (native_shared, SHORT),
    "C++ pairs of a region": (native_region, WHOLE),
}
needs_compiler = pytest.mark.skipif(not _compiled(), reason="the package was built without a compiler")


@pytest.mark.parametrize("name", TEXTS)
def test_pair_formulas_of_all_codes_equal_one_table(name):
    values, expected = TEXTS[name]
    assert matches(values(), expected)


@needs_compiler
@pytest.mark.parametrize("name", NATIVE)
def test_native_pairs(name):
    values, expected = NATIVE[name]
    assert matches(values(), expected)


def wrong_coefficients(monkeypatch, which: str, place: int) -> None:
    """One coefficient changed by a millionth, in the functions and in the expressions of OpenMM."""
    numbers = list(getattr(pair_formulas, which))
    numbers[place] *= 1 + 1e-6
    monkeypatch.setattr(pair_formulas, which, tuple(numbers))
    function = pair_formulas.smooth_step if which == "SMOOTH_STEP" else pair_formulas.inverse_tail
    monkeypatch.setattr(function, "__defaults__", (tuple(numbers),))


PLACES = [("SMOOTH_STEP", k) for k in range(3)] + [("TAIL", k) for k in range(5)]


@pytest.mark.parametrize(("which", "place"), PLACES)
def test_a_changed_coefficient_fails(which, place, monkeypatch):
    """Negative control: a millionth in any coefficient is seen in every text, compiled ones included."""
    compiled = {name: values() for name, (values, _) in NATIVE.items()} if _compiled() else {}
    wrong_coefficients(monkeypatch, which, place)
    for name in set(TEXTS) - {"the same in TorchScript"}:
        values, expected = TEXTS[name]
        # The whole pair has no tail in it, only the force field's own switching function.
        if not (which == "TAIL" and name == "full pairs in torch"):
            assert not matches(values(), expected), name
    for name in set(compiled) - {"C++ pairs of a region"}:
        assert not matches(compiled[name], formulas_in_numpy()), name


@needs_compiler
def test_the_region_kernel_has_the_force_fields_switching_function():
    """Negative control of the only formula that the two other kernels do not share."""
    pairs = RegionPairs(dataclasses.replace(tables(), switch=0.6 + 1e-7), np.array([0, 1]), np.zeros((0, 2)))
    assert not matches([-pairs(places(r), CELL)[0] for r in DISTANCES], WHOLE)


def test_switching_function():
    """f in torch, numpy and the two kinds of zones; exact at both ends."""
    r = torch.tensor(DISTANCES)
    zone = SimpleNamespace(
        molecules=((0,),), anchors=((1.0,),), centres=(1,), plateau=R_ON, width=R_OFF - R_ON
    )
    for values in (
        switching_function(r, R_ON, R_OFF).numpy(),
        AdaptiveWeights(zone).at(r.unsqueeze(1)).numpy(),
        switch(DISTANCES, R_ON, R_OFF - R_ON),
        1 - pair_formulas.smooth_step(np.clip((DISTANCES - R_ON) / (R_OFF - R_ON), 0, 1)),
    ):
        assert matches(values, FALLING)
        assert (values[DISTANCES <= R_ON] == 1).all() and (values[DISTANCES >= R_OFF] == 0).all()


def test_smooth_tail():
    """T in numpy and torch, at the origin, and in the kernel of predicted charges."""
    assert matches(pair_formulas.inverse_tail(DISTANCES[INNER], R_OFF), TAIL[INNER])
    short = short_range_inverse(torch.tensor(DISTANCES), R_OFF).numpy()
    assert matches(short, 1 / DISTANCES - TAIL)
    assert (short[DISTANCES >= R_OFF] == 0).all()
    assert pair_formulas.inverse_tail(0.0, R_OFF) == 35 / (16 * R_OFF)
    correction = ChargeCorrection(
        np.zeros(2), np.zeros((0, 2)), np.zeros(0), BOTH, rule="all", charge_range=R_OFF, switching_end=None
    )
    one = torch.ones(len(DISTANCES), dtype=torch.float64)
    kernel = correction.kernel(torch.tensor(DISTANCES), one, one).numpy()
    assert matches(kernel / COULOMB, 1 / DISTANCES - TAIL)
