"""The compiled kernel where it runs: inside a TorchForce and a PythonForce, under every kind of zone."""

from __future__ import annotations

import io
import threading

import numpy as np
import openmm
import pytest
import torch
from toys import energy_and_forces

from mlmm.adaptive import adaptive_zones
from mlmm.build.bulk import build_bulk_water
from mlmm.compensation import Compensation
from mlmm.hybrid import hybrid_system
from mlmm.potentials import load_potential
from mlmm.potentials.ani_kernel import kernel_level
from mlmm.regions import region_from_atoms
from mlmm.zones import hard_zones, static_zones

pytestmark = pytest.mark.skipif(kernel_level() is None, reason="the package was built without a compiler")


@pytest.fixture(scope="module")
def water():
    """Some 130 flexible water molecules."""
    return build_bulk_water("1.62 nm", nonbonded_cutoff="0.8 nm")


@pytest.fixture(scope="module", params=["hard", "static", "adaptive", "intra"])
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
    scheme = "intra" if kind == "intra" else "local"
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
    for bridge in ("torchforce", "pythonforce"):
        potential = load_potential("ani1x", precision=precision, kernel="compiled")
        hybrid = make(water, kind, potential, bridge)
        found[bridge] = energy_and_forces(hybrid.system, water.positions, groups=group)
        assert found[bridge][0] == pytest.approx(energy, rel=1e-6)
        assert np.abs(found[bridge][1] - forces).max() < relative * largest
    difference = np.abs(found["torchforce"][1] - found["pythonforce"][1]).max()
    assert difference < 1e-9 * largest


def test_steps_in_two_contexts_at_once_end(dipeptide_vacuum):
    """The operator takes Python's lock while OpenMM has given it away: no dead end, the same trajectory."""
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", kernel="compiled", members=[0])
    contexts = []
    for _ in range(3):
        hybrid = hybrid_system(
            dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential, bridge="torchforce"
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
        thread.join(timeout=60)
        assert not thread.is_alive()
    ends = [c.getState(positions=True).getPositions(asNumpy=True)._value for c in contexts]
    assert np.abs(ends[0] - dipeptide_vacuum.positions).max() > 1e-4
    np.testing.assert_array_equal(ends[1], ends[0])
    np.testing.assert_array_equal(ends[2], ends[0])


def test_a_frozen_or_saved_module_finds_its_weights():
    """A TorchForce compiles, freezes and copies what it gets; packed weights belong to the process."""
    numbers = [8, 1, 1]
    positions = torch.tensor([[0.0, 0, 0], [0.096, 0, 0], [-0.024, 0.093, 0]], dtype=torch.float64)
    module = load_potential("ani1x", kernel="compiled").scriptable(numbers)
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


def test_a_broken_position_stops_the_host(dipeptide_vacuum):
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", kernel="compiled", members=[0])
    hybrid = hybrid_system(
        dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential, bridge="torchforce"
    )
    context = openmm.Context(
        hybrid.system, openmm.VerletIntegrator(0.0005), openmm.Platform.getPlatformByName("Reference")
    )
    positions = np.array(dipeptide_vacuum.positions)
    positions[3] = np.nan
    context.setPositions(positions)
    energy = context.getState(energy=True, groups=1 << hybrid.force_groups["ml"]).getPotentialEnergy()
    assert np.isnan(energy._value)
