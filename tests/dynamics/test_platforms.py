"""Which OpenMM platform a simulation gets: OpenCL only by its name, and without TorchForce."""

from __future__ import annotations

import openmm
import pytest
from runs import chain_hybrid
from toys import PlainSprings, chains

from mlmm.dynamics import platforms
from mlmm.errors import ConfigError


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
        works = getattr(platforms, "_works", None)
        if works is not None:
            monkeypatch.setattr(platforms, "_works", lambda name: name not in broken)

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


def test_a_platform_without_a_device_does_not_work(monkeypatch):
    platforms._works.cache_clear()

    def refuse(*_):
        raise openmm.OpenMMException("No compatible CUDA device is available")

    monkeypatch.setattr(openmm, "Context", refuse)
    monkeypatch.setattr(openmm.Platform, "getPlatformByName", lambda name: name)
    assert not platforms._works("CUDA")
    assert platforms._works("CPU")
    platforms._works.cache_clear()
