"""Compiled networks where they run: the plugin, a TorchForce and a PythonForce, under every kind of zone."""

from __future__ import annotations

import copy
import io
import threading

import numpy as np
import openmm
import pytest
import torch
from ani_contexts import context_of, picked
from toys import energy_and_forces

from mlmm.build.surroundings.bulk import build_bulk_water
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.plugin import plugin_problem
from mlmm.potentials import load_potential
from mlmm.potentials.ani.native import instruction_set
from mlmm.zones.adaptive import adaptive_zones
from mlmm.zones.compensation import Compensation
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones, static_zones

pytestmark = pytest.mark.skipif(
    instruction_set() is None or plugin_problem() is not None, reason="built without a compiler or the plugin"
)


@pytest.fixture(scope="module")
def water():
    """Some 130 flexible water molecules."""
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")


@pytest.fixture(scope="module", params=["hard", "static", "adaptive", "additive", "supermolecular"])
def kind(request) -> str:
    return request.param


def make(built, kind, potential, bridge):
    """A hybrid system around the first molecule."""
    region = region_from_atoms(built.topology, range(3), "molecule")
    zones, compensation = hard_zones(built, region), None
    if kind == "static":
        zones = static_zones(built, region, "0.2 nm", "0.25 nm")
    if kind == "adaptive":
        zones, compensation = adaptive_zones(built, region, "0.25 nm", "0.3 nm"), Compensation({"HOH": 0.0})
    scheme = kind if kind in ("additive", "supermolecular") else "per_atom"
    return hybrid_system(built, zones, potential, scheme=scheme, compensation=compensation, bridge=bridge)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_both_hosts_equal_torch(water, kind, precision):
    """TorchForce and PythonForce with the kernel give the energy and forces of torch in float64."""
    reference = make(water, kind, load_potential("ani1x", precision="float64", kernel="torch"), "pythonforce")
    group = 1 << reference.force_groups["ml"]
    energy, forces = energy_and_forces(reference.system, water.positions, groups=group)
    largest = np.abs(forces).max()
    assert largest > 100
    relative = 1e-6 if precision == "float32" else 1e-7
    found = {}
    hosts = ("torchforce", "pythonforce", "native")
    for bridge in hosts:
        potential = load_potential("ani1x", precision=precision, kernel="native")
        hybrid = make(water, kind, potential, bridge)
        found[bridge] = energy_and_forces(hybrid.system, water.positions, groups=group)
        assert found[bridge][0] == pytest.approx(energy, rel=1e-6)
        assert np.abs(found[bridge][1] - forces).max() < relative * largest
    for bridge in hosts[1:]:
        difference = np.abs(found["torchforce"][1] - found[bridge][1]).max()
        assert difference < 1e-9 * largest


@pytest.mark.parametrize("bridge", ["torchforce", "native"])
def test_steps_in_two_contexts_at_once_end(dipeptide_vacuum, bridge):
    """The operator takes Python's lock while OpenMM has given it away: no dead end, the same trajectory."""
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", kernel="native", members=[0])
    contexts = []
    for _ in range(3):
        hybrid = hybrid_system(
            dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential, bridge=bridge
        )
        context = openmm.Context(
            hybrid.system,
            openmm.VerletIntegrator(0.0005),
            openmm.Platform.getPlatformByName("Reference"),
        )
        context.setPositions(dipeptide_vacuum.positions)
        contexts.append(context)
    threads = [threading.Thread(target=c.getIntegrator().step, args=(40,), daemon=True) for c in contexts[1:]]
    for thread in threads:
        thread.start()
    contexts[0].getIntegrator().step(40)
    for thread in threads:
        thread.join(timeout=600)
        assert not thread.is_alive()
    ends = [c.getState(positions=True).getPositions(asNumpy=True)._value for c in contexts]
    assert np.abs(ends[0] - dipeptide_vacuum.positions).max() > 1e-4
    np.testing.assert_array_equal(ends[1], ends[0])
    np.testing.assert_array_equal(ends[2], ends[0])


def test_a_frozen_or_saved_module_finds_its_weights():
    """A TorchForce compiles, freezes and copies what it gets; packed weights belong to the process."""
    numbers = [8, 1, 1]
    positions = torch.tensor([[0.0, 0, 0], [0.096, 0, 0], [-0.024, 0.093, 0]], dtype=torch.float64)
    module = load_potential("ani1x", kernel="native").scriptable(numbers)
    expected = module(positions, None)
    frozen = torch.jit.freeze(torch.jit.script(module).eval())
    memory = io.BytesIO()
    torch.jit.save(torch.jit.script(module), memory)
    memory.seek(0)
    copied = torch.jit.load(memory)
    del module
    for other in (frozen, copied):
        for _ in range(3):
            x = positions.clone().requires_grad_(True)
            energies = other(x, None)
            assert torch.equal(energies.detach(), expected)
            (gradient,) = torch.autograd.grad(energies.mean(dim=0).sum(), x)
            assert gradient.abs().max() > 1


@pytest.mark.parametrize("bridge", ["torchforce", "native"])
def test_nan_position_ends_the_run(dipeptide_vacuum, bridge):
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", kernel="native", members=[0])
    hybrid = hybrid_system(dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential, bridge=bridge)
    context = openmm.Context(
        hybrid.system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
    )
    positions = np.array(dipeptide_vacuum.positions)
    positions[3] = np.nan
    context.setPositions(positions)
    groups = 1 << hybrid.force_groups["ml"]
    if bridge == "native":
        with pytest.raises(openmm.OpenMMException, match="finite energies"):
            context.getState(energy=True, groups=groups)
    else:
        assert np.isnan(context.getState(energy=True, groups=groups).getPotentialEnergy()._value)


@pytest.mark.parametrize("platform", picked("GPU-mixed"))
def test_on_a_gpu_it_is_what_it_is_on_reference(water, kind, platform):
    """Force field, subtracted pairs and networks, in OpenMM's mixed precision.

    Compared where the platform has the atoms: it moves molecules into the box, which costs 2e-7 nm.
    """
    hybrid = make(water, kind, load_potential("ani1x", kernel="native", members=[0, 1]), "native")
    context = context_of(hybrid.system, platform)
    context.setPositions(water.positions)
    for groups in (1 << hybrid.force_groups["ml"], -1):
        state = context.getState(energy=True, forces=True, positions=True, groups=groups)
        where = state.getPositions(asNumpy=True)._value
        energy, forces = energy_and_forces(hybrid.system, where, groups=groups)
        assert state.getPotentialEnergy()._value == pytest.approx(energy, rel=1e-5, abs=0.05)
        difference = state.getForces(asNumpy=True)._value - forces
        assert np.abs(difference).max() < (1e-5 if groups > 0 else 5e-5) * np.abs(forces).max()


def test_auto_takes_the_plugin_where_it_is_all_that_the_potential_adds(water, kind, monkeypatch, caplog):
    """In every zone and under every scheme, on a GPU too; never for networks in torch or without it."""
    compiled = load_potential("ani1x", kernel="native", members=[0])
    assert make(water, kind, compiled, "auto").bridge == "native"
    networks = load_potential("ani1x", kernel="torch", members=[0])
    assert make(water, kind, networks, "auto").bridge == "torchforce"
    with pytest.raises(ConfigError, match="not in torch, and fixed charges"):
        make(water, kind, networks, "native")
    with monkeypatch.context() as patch:
        patch.setattr("mlmm.hybrid.system.has_gpu", lambda: True)
        assert make(water, kind, compiled, "auto").bridge == "native"
    monkeypatch.setattr("mlmm.hybrid.bridge.plugin_problem", lambda: "for OpenMM 8.5")
    assert make(water, kind, compiled, "auto").bridge == "torchforce"
    assert "not by OpenMM's plugin: for OpenMM 8.5" in caplog.text


def test_the_kernel_conserves_energy(dipeptide_vacuum):
    """Verlet steps of 0.25 fs: the total energy stays while the potential energy moves."""
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", kernel="native", members=[0, 1])
    hybrid = hybrid_system(dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential)
    assert hybrid.bridge == "native"
    integrator = openmm.VerletIntegrator(0.00025)
    context = openmm.Context(hybrid.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(dipeptide_vacuum.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    totals, potentials = [], []
    for _ in range(60):
        integrator.step(10)
        state = context.getState(energy=True)
        potentials.append(state.getPotentialEnergy()._value)
        totals.append(potentials[-1] + state.getKineticEnergy()._value)
    assert np.std(potentials) > 5
    assert np.std(totals) < 0.02 * np.std(potentials)


def test_a_serialized_kernel_gives_the_same_numbers(water):
    """Unlike a TorchForce, a System with the kernel can be copied."""
    hybrid = make(water, "static", load_potential("ani1x", kernel="native", members=[0]), "native")
    group = 1 << hybrid.force_groups["ml"]
    energy, forces = energy_and_forces(hybrid.system, water.positions, groups=group)
    copied = energy_and_forces(copy.deepcopy(hybrid.system), water.positions, groups=group)
    assert copied[0] == energy
    np.testing.assert_array_equal(copied[1], forces)
