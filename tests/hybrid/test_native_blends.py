"""Adaptive zones and scheme ``supermolecular`` without torch in the loop: the plugin against torch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import openmm
import pytest
from adaptive_water import around_one, relaxed_water
from ani_contexts import context_of, picked
from native_blends import (
    CURVE,
    adaptive,
    by_mass,
    cases,
    crowded,
    model,
    networks,
    supermolecular,
    without_force_of_weights,
)
from toys import energy_and_forces, evaluate, reference_context

from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.uncertainty import _contributions, measure_uncertainty
from mlmm.hybrid.native_force import member_evaluation
from mlmm.hybrid.system import hybrid_system
from mlmm.plugin import AdaptiveANIForce, SupermolecularANIForce, plugin_problem
from mlmm.plugin.members import as_force
from mlmm.potentials.ani.native import instruction_set
from mlmm.potentials.committee import member_forces
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

pytestmark = [
    pytest.mark.usefixtures("kernels_by_default"),
    pytest.mark.skipif(
        instruction_set() is None or plugin_problem() is not None,
        reason="built without a compiler or the plugin",
    ),
]

#: Of max|F|: the same networks in float64, and those in torch, whose constants are rounded otherwise.
EXACT, IN_TORCH = 1e-11, 2e-8


@pytest.fixture(scope="module")
def water():
    return relaxed_water()


@pytest.mark.parametrize("case", ["adaptive", "every term", "by mass", "supermolecular"])
def test_they_equal_torch(water, case, monkeypatch):
    """Reference and CPU in float64 against terms, pairs and zone in torch, and networks in torch too."""
    built, make = cases(water)[case]
    with monkeypatch.context() as patch:
        patch.setenv("MLMM_KERNEL", "torch")
        energy, forces, _ = model(make(built, "pythonforce", networks()), built.positions)
        in_torch = model(make(built, "pythonforce", networks(kernel="torch")), built.positions)
    native = make(built, "native", networks())
    largest = np.abs(forces).max()
    assert largest > 500 and native.bridge == "native"
    for platform in (("Reference", {}), ("CPU", {"Threads": "2"})):
        found = model(native, built.positions, platform)
        assert found[0] == pytest.approx(energy, rel=EXACT, abs=1e-8)
        assert np.abs(found[1] - forces).max() < EXACT * largest
        assert found[0] == pytest.approx(in_torch[0], rel=1e-7)
        assert np.abs(found[1] - in_torch[1]).max() < IN_TORCH * largest
        # Whatever acts on the zone acts back: the networks, lambda and its centres, replaced terms.
        assert np.abs(found[1].sum(axis=0)).max() < 1e-11 * np.abs(forces).sum()
    single, other = (
        model(make(built, bridge, networks("float32")), built.positions)
        for bridge in ("native", "pythonforce")
    )
    assert np.abs(single[1] - other[1]).max() < EXACT * largest
    assert 0 < np.abs(single[1] - forces).max() < 5e-6 * largest


def test_forces_of_an_adaptive_zone_are_the_gradient(water):
    """Finite differences over atoms of the core, its centres and every depth of the zone; controls fail."""
    built = crowded(water)
    hybrid = adaptive(built, "native", networks(), by_mass(around_one(built, "0.2 nm", "0.3 nm", 2)))
    groups = 1 << hybrid.force_groups["ml"]
    context = reference_context(hybrid.system)
    _, forces = evaluate(context, built.positions, groups)
    _, other = energy_and_forces(without_force_of_weights(hybrid), built.positions, groups)
    lam = hybrid.zones.weights(*as_tensors(built.positions, np.array(built.box_vectors))).numpy()
    inside = np.flatnonzero((lam > 0.05) & (lam < 0.95))
    assert len(inside) > 10
    worst, missed = 0.0, 0.0
    for atom in [0, 4, 5, 7, *inside[:: len(inside) // 8]]:
        energies = []
        for shift in (2, 1, -1, -2):
            moved = built.positions.copy()
            moved[atom, atom % 3] += shift * 2e-5
            energies.append(evaluate(context, moved, groups)[0])
        slope = (-energies[0] + 8 * energies[1] - 8 * energies[2] + energies[3]) / (12 * 2e-5)
        worst = max(worst, abs(slope + forces[atom, atom % 3]))
        missed = max(missed, abs(slope + other[atom, atom % 3]))
    largest = np.abs(forces).max()
    assert worst < 2e-7 * largest
    assert missed > 1e-3 * largest


def test_an_adaptive_zone_conserves_energy(water):
    """NVE of 50 fs while molecules cross the zone, as of the force field alone; not without that force.

    A steep G makes that force as large as others in so short a time.
    """
    steep, spreads = Compensation({"HOH": -2.5}, values={"HOH": np.array([0.0, -400.0])}), []
    hybrid = adaptive(water, "native", networks("float32", members=(0,)), compensation=steep)
    for system in (water.system, hybrid.system, without_force_of_weights(hybrid)):
        integrator = openmm.VerletIntegrator(0.00025)
        context = context_of(system, ("CPU", {"Threads": "1"}), integrator)
        context.setPositions(water.positions)
        context.setVelocitiesToTemperature(400.0, 3)
        totals = []
        for _ in range(25):
            integrator.step(8)
            state = context.getState(energy=True)
            totals.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
        spreads.append(np.std(totals))
    assert spreads[1] < 3 * spreads[0]
    assert spreads[2] > 5 * spreads[1], spreads


def test_supermolecular_with_caps_equals_torch(dipeptide_water, monkeypatch):
    """A side chain and its neighbours, two bonds cut, all others seen within a cutoff or not."""
    built = dipeptide_water
    names = {atom.name: atom.index for atom in built.topology.atoms() if atom.residue.name == "ALA"}
    atoms = [names[name] for name in ("CB", "HB1", "HB2", "HB3")]
    with monkeypatch.context() as patch:
        patch.setenv("MLMM_KERNEL", "torch")
        expected = supermolecular(built, "pythonforce", networks(members=[0]), atoms)
        energy, forces, _ = model(expected, built.positions)
    hybrid = supermolecular(built, "native", networks(members=[0]), atoms)
    own = SupermolecularANIForce.cast(
        next(f for f in hybrid.system.getForces() if isinstance(as_force(f), SupermolecularANIForce))
    )
    assert len(own.getCaps()) == 1 and own.getRegion().tolist() == sorted(atoms)
    found = model(hybrid, built.positions)
    largest = np.abs(forces).max()
    assert found[0] == pytest.approx(energy, abs=1e-7)
    assert np.abs(found[1] - forces).max() < EXACT * largest
    without = SupermolecularANIForce(
        hybrid.potential.parameters,
        built.numbers.tolist(),
        list(range(built.n_atoms)),
        atoms,
        periodic=True,
        precision="float64",
    )
    system = openmm.System()
    for _ in range(built.n_atoms):
        system.addParticle(1.0)
    system.setDefaultPeriodicBoxVectors(*np.array(built.box_vectors))
    system.addForce(without)
    assert abs(energy_and_forces(system, built.positions)[0] - energy) > 1.0


def static(built, bridge, potential):
    region = region_from_atoms(built.topology, range(3), "molecule")
    return hybrid_system(
        built, static_zones(built, region, "0.2 nm", "0.25 nm"), potential, scheme="per_atom", bridge=bridge
    )


def on_all(found, n_atoms: int) -> np.ndarray:
    """Forces by each member on all atoms."""
    forces = np.zeros((len(found.forces), n_atoms, 3))
    forces[:, found.acting] = found.forces
    return forces


@pytest.mark.parametrize("case", ["static", "adaptive", "supermolecular"])
def test_members_are_those_of_torch(water, case):
    """Energies and forces of each member, and what a report says of their spread; without a torch module."""
    make = {"static": static, "adaptive": adaptive, "supermolecular": supermolecular}[case]
    native, other = (make(water, bridge, networks()) for bridge in ("native", "pythonforce"))
    box = np.array(water.box_vectors)
    found = member_evaluation(native.system)(water.positions, box)
    where, cell = as_tensors(water.positions, box)
    where.requires_grad_(True)
    members = _contributions(other, where, cell)
    forces = member_forces(members.sum(dim=1), where).numpy()
    scale = np.abs(forces).max()
    assert np.abs(found.energies - members.detach().numpy()).max() < 1e-8
    assert np.abs(on_all(found, water.n_atoms) - forces).max() < EXACT * scale
    assert np.abs(forces[0] - forces[1]).max() > 1e-3 * scale
    assert member_evaluation(other.system) is None
    reports = [measure_uncertainty(hybrid, water.positions, box) for hybrid in (native, other)]
    assert reports[0].energy == pytest.approx(reports[1].energy, rel=1e-9) and reports[0].energy > 0.01
    np.testing.assert_allclose(reports[0].forces, reports[1].forces, rtol=0, atol=EXACT * scale)
    if case == "supermolecular":
        assert reports[0].atoms is None and reports[1].atoms is None
    else:
        np.testing.assert_allclose(reports[0].atoms, reports[1].atoms, rtol=0, atol=1e-9)


def test_members_of_a_capped_region(dipeptide_vacuum):
    """Scheme additive with hydrogens on cut bonds: the caps' energies count, their forces go to the atoms."""
    names = {
        atom.name: atom.index for atom in dipeptide_vacuum.topology.atoms() if atom.residue.name == "ALA"
    }
    atoms = [names[name] for name in ("CB", "HB1", "HB2", "HB3")]
    zones = hard_zones(dipeptide_vacuum, region_from_atoms(dipeptide_vacuum.topology, atoms, "atoms"))
    native, other = (
        hybrid_system(dipeptide_vacuum, zones, networks(), scheme="additive", bridge=bridge)
        for bridge in ("native", "pythonforce")
    )
    found = member_evaluation(native.system)(dipeptide_vacuum.positions)
    where, _ = as_tensors(dipeptide_vacuum.positions, None)
    where.requires_grad_(True)
    members = _contributions(other, where, None)
    forces = member_forces(members.sum(dim=1), where).numpy()
    assert found.particles.tolist() == [*sorted(atoms), -1]
    assert np.abs(found.energies - members.detach().numpy()).max() < 1e-8
    assert np.abs(on_all(found, 22) - forces).max() < EXACT * np.abs(forces).max()
    assert found.acting.tolist() == sorted([*atoms, names["CA"]])


@pytest.mark.parametrize("kind", ["adaptive", "supermolecular"])
def test_copies_and_checkpoints(water, kind):
    """By deepcopy, XML and pickle bit for bit; a checkpoint leads to the same place; groups; two Contexts."""
    make, cls = {
        "adaptive": (adaptive, AdaptiveANIForce),
        "supermolecular": (supermolecular, SupermolecularANIForce),
    }[kind]
    hybrid = make(water, "native", networks("float32", members=(0,)))
    group = hybrid.force_groups["ml"]
    expected = energy_and_forces(hybrid.system, water.positions, groups=1 << group)
    xml = openmm.XmlSerializer.serialize(hybrid.system)
    # Those of OpenMM's platform, not of torch.
    assert xml.count('threads="0"') == xml.count('type="ANIBlendForce"') > 0
    for other in (
        copy.deepcopy(hybrid.system),
        openmm.XmlSerializer.deserialize(xml),
        pickle.loads(pickle.dumps(hybrid.system)),
    ):
        again = energy_and_forces(other, water.positions, groups=1 << group)
        assert again[0] == expected[0] and np.array_equal(again[1], expected[1])
        own = next(f for f in other.getForces() if isinstance(as_force(f), cls))
        assert own.getForceGroup() == group and cls.cast(own).getNumMembers() == 1
        assert cls.cast(own).getPrecision() == "float32" and cls.cast(own).usesPeriodicBoundaryConditions()
        assert isinstance(copy.deepcopy(cls.cast(own)), cls)
    none = energy_and_forces(hybrid.system, water.positions, groups=1 << 30)
    assert none[0] == 0.0 and not none[1].any()
    integrator = openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005)
    integrator.setRandomNumberSeed(4)
    context, ends = context_of(hybrid.system, ("Reference", {}), integrator), []
    context.setPositions(water.positions)
    context.setVelocitiesToTemperature(300.0, 5)
    integrator.step(2)
    checkpoint = context.createCheckpoint()
    for _ in range(2):
        context.loadCheckpoint(checkpoint)
        integrator.step(5)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert np.array_equal(ends[0], ends[1]) and np.abs(ends[0] - water.positions).max() > 1e-4


@pytest.mark.parametrize("platform", picked("Reference", "CPU", "GPU-mixed"))
@pytest.mark.parametrize("kind", ["adaptive", "supermolecular"])
def test_what_is_no_number_and_a_small_box_reach_the_host(water, kind, platform):
    """Of an atom far from the zone too; a sentence and not the end of the process for a box that shrank."""
    make = {"adaptive": adaptive, "supermolecular": supermolecular}[kind]
    hybrid = make(water, "native", networks("float32", members=(0,)))
    groups = 1 << hybrid.force_groups["ml"]
    context = context_of(hybrid.system, platform)
    for atom in (0, water.n_atoms - 1):
        positions = water.positions.copy()
        positions[atom, 1] = np.nan
        context.setPositions(positions)
        with pytest.raises(openmm.OpenMMException, match="NaN"):
            context.getState(energy=True, groups=groups)
    small = openmm.System()
    for _ in range(water.n_atoms):
        small.addParticle(1.0)
    small.setDefaultPeriodicBoxVectors(*(0.9 * np.eye(3)))
    small.addForce(copy.deepcopy(next(f for f in hybrid.system.getForces() if as_force(f) is not None)))
    context = context_of(small, platform)
    context.setPositions(water.positions)
    with pytest.raises(openmm.OpenMMException, match="periodic box of at least"):
        context.getState(energy=True)
    members = member_evaluation(small)
    with pytest.raises(openmm.OpenMMException, match="periodic box of at least"):
        members(water.positions, 0.9 * np.eye(3))


def test_any_adaptive_zone_of_networks_is_native_by_default(water):
    """Nothing of torch is left in the System; charges that follow the atoms still need it."""
    zones = adaptive_zones(
        water, region_from_atoms(water.topology, range(3), "molecule"), "0.25 nm", "0.3 nm"
    )
    hybrid = hybrid_system(water, zones, networks(members=(0,)), compensation=CURVE)
    assert (hybrid.bridge, hybrid.mm_side) == ("native", "plugin")
    assert "TorchForce" not in {type(force).__name__ for force in hybrid.system.getForces()}
    assert supermolecular(water, "auto", networks(members=(0,))).bridge == "native"
