"""Which OpenMM platform a simulation gets: OpenCL only by its name, and without TorchForce."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import unit
from runs import chain_hybrid, run_in
from toys import PlainSprings, SpringPotential, chains

from mlmm.build import BuiltSystem
from mlmm.dynamics import platforms
from mlmm.errors import ConfigError
from mlmm.hybrid.system import hybrid_system
from mlmm.plugin import plugin_problem
from mlmm.potentials import load_potential
from mlmm.zones.region import region_from_atoms
from mlmm.zones.static import hard_zones


class Listed:
    """A platform of a machine with a driver, the fastest last."""

    def __init__(self, name, speed):
        self.name, self.speed = name, speed

    def getName(self):  # noqa: N802
        return self.name

    def getSpeed(self):  # noqa: N802
        return self.speed


@pytest.fixture
def machine(monkeypatch):
    """Put platforms into OpenMM's list; `broken` ones are there without a device."""

    def put(names, broken=()):
        listed = [Listed(name, float(speed)) for speed, name in enumerate(names)]
        monkeypatch.setattr(openmm.Platform, "getNumPlatforms", lambda: len(listed))
        monkeypatch.setattr(openmm.Platform, "getPlatform", lambda number: listed[number])
        monkeypatch.setattr(platforms, "_works", lambda name: name not in broken)
        monkeypatch.setattr(platforms, "_computes_in_mixed", lambda name: name != "OpenCL")

    return put


@pytest.mark.parametrize(
    ("names", "broken", "chosen"),
    [
        (("Reference", "CPU", "OpenCL"), (), "CPU"),
        (("Reference", "CPU", "CUDA", "OpenCL"), (), "CUDA"),
        (("Reference", "CPU", "OpenCL", "CUDA"), ("CUDA",), "CPU"),
        (("Reference", "CPU", "HIP", "OpenCL"), ("CUDA",), "HIP"),
        (("Reference", "OpenCL"), (), "Reference"),
    ],
)
def test_opencl_is_not_taken_unasked(machine, names, broken, chosen):
    machine(names, broken)
    assert platforms.choose_platform()[0].getName() == chosen
    assert platforms.platform_arguments()[0].getName() == chosen
    assert platforms.choose_platform("opencl")[0].getName() == "OpenCL"
    # In mixed precision where the device has it.
    assert platforms.choose_platform()[1] == ({"Precision": "mixed"} if chosen in ("CUDA", "HIP") else {})
    assert platforms.choose_platform("opencl", 2)[1] == {}


def test_a_torchforce_on_opencl_is_refused(machine):
    """The System's own forces, and a PythonForce, may run there."""
    torch_force = chain_hybrid()
    assert torch_force.bridge == "torchforce"
    python_force = chain_hybrid(PlainSprings())
    machine(("Reference", "CPU", "OpenCL"))
    with pytest.raises(ConfigError, match="without TorchForce on platform OpenCL"):
        platforms.choose_platform("OpenCL", system=torch_force.system)
    for system in (python_force.system, chains().system):
        assert platforms.choose_platform("OpenCL", system=system)[0].getName() == "OpenCL"


@pytest.mark.skipif(plugin_problem() is not None, reason="the plugin was not built")
def test_the_native_bridge_may_run_on_opencl(machine, dipeptide_vacuum):
    """Its force, too, comes back from OpenMM without a class of its own."""
    region = region_from_atoms(dipeptide_vacuum.topology, range(22), "molecule")
    potential = load_potential("ani1x", members=[0], kernel="native")
    hybrid = hybrid_system(dipeptide_vacuum, hard_zones(dipeptide_vacuum, region), potential)
    assert hybrid.bridge == "native" and any(type(f) is openmm.Force for f in hybrid.system.getForces())
    machine(("Reference", "CPU", "OpenCL"))
    assert platforms.choose_platform("OpenCL", system=hybrid.system)[0].getName() == "OpenCL"


def test_precision_of_a_device_without_double_precision(monkeypatch, caplog):
    platforms._computes_in_mixed.cache_clear()
    given = []

    def refuse(*arguments):
        given.append(arguments[-1])
        raise openmm.OpenMMException("This device does not support double precision")

    monkeypatch.setattr(openmm, "Context", refuse)
    monkeypatch.setattr(openmm.Platform, "getPlatformByName", lambda name: name)
    assert not platforms._computes_in_mixed("OpenCL") and given == [{"Precision": "mixed"}]
    assert "OpenCL computes in single precision here" in caplog.text and "double precision" in caplog.text
    platforms._computes_in_mixed.cache_clear()


def test_a_platform_without_a_device_does_not_work(monkeypatch):
    platforms._works.cache_clear()

    def refuse(*_):
        raise openmm.OpenMMException("No compatible CUDA device is available")

    monkeypatch.setattr(openmm, "Context", refuse)
    monkeypatch.setattr(openmm.Platform, "getPlatformByName", lambda name: name)
    assert not platforms._works("CUDA")
    assert platforms._works("CPU")
    platforms._works.cache_clear()


def test_a_leaning_box_that_is_narrow_is_refused_on_reference_alone(tmp_path):
    """Where pairs would be missed; the advice is followed."""
    cube = chains(box=2.4, cutoff=0.7)
    box = 2.4 * np.array([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, np.sqrt(0.5)]])
    cube.system.setDefaultPeriodicBoxVectors(*box.tolist())
    cube.topology.setPeriodicBoxVectors(box.tolist() * unit.nanometer)
    built = BuiltSystem.from_openmm(cube.topology, cube.system, cube.positions)
    region = region_from_atoms(built.topology, range(4))
    leaning = hybrid_system(built, hard_zones(built, region), SpringPotential())
    with pytest.raises(ConfigError, match=r'1\.7 nm wide, less than three cutoffs.* Write platform = "CPU"'):
        run_in(tmp_path / "run", leaning, "5 fs")
    assert not (tmp_path / "run").exists()
    assert run_in(tmp_path / "run", leaning, "5 fs", platform="CPU", threads=1).state == "finished"
