"""The OpenMM platform of a simulation: the one asked for, or the first of CUDA, HIP and CPU that works."""

from __future__ import annotations

import functools
import logging

import openmm

from mlmm.errors import ConfigError
from mlmm.plugin.members import is_of_plugin
from mlmm.units import FEMTOSECOND

__all__ = ["choose_platform", "device_name", "leaves_processor_idle", "platform_arguments", "precision_of"]

logger = logging.getLogger(__name__)

#: OpenCL is not among them: OpenMM finds it with the driver of any laptop's graphics, where double precision
#: and TorchForce may be missing; a kernel that cannot be loaded there ends the process.
_BY_ITSELF = ("CUDA", "HIP", "CPU", "Reference")


def leaves_processor_idle(platform: openmm.Platform) -> bool:
    """Whether forces are evaluated on a GPU.

    Parameters
    ----------
    platform : openmm.Platform
    """
    return platform.getName() in ("CUDA", "HIP", "OpenCL")


def choose_platform(
    name: str = "", threads: int = 0, system: openmm.System | None = None
) -> tuple[openmm.Platform, dict[str, str]]:
    """Find a platform by its name, in any case, and its properties.

    A GPU computes in mixed precision: forces in single, their sums, velocities, energies in more. In single
    precision alone, OpenMM's default, energies are known to some 1e-7 of themselves, and drift.

    Parameters
    ----------
    name : str
        If empty, the first of CUDA, HIP and CPU that works on this machine; OpenCL only by its name.
    threads : int
        Of the CPU platform; 0 for as many as the environment or the machine has.
    system : openmm.System, optional
        What will run there.

    Raises
    ------
    ConfigError
        A platform that OpenMM does not have here, or OpenCL for a System with a TorchForce.
    """
    count = openmm.Platform.getNumPlatforms()
    available = {p.getName(): p for p in (openmm.Platform.getPlatform(i) for i in range(count))}
    if name:
        found = [p for known, p in available.items() if known.lower() == name.lower()]
        if not found:
            raise ConfigError(f"platform = {' | '.join(available)}", repr(name), "choose one of these")
        platform = found[0]
    else:
        platform = next(available[known] for known in _BY_ITSELF if known in available and _works(known))
    if platform.getName() == "OpenCL" and system is not None and _has_foreign_force(system):
        raise ConfigError(
            "a System without TorchForce on platform OpenCL",
            "one, which ends the process there",
            'leave platform out for CUDA or CPU, or write bridge = "pythonforce"',
        )
    if platform.getName() == "CPU":
        return platform, {"Threads": str(threads)} if threads > 0 else {}
    mixed = leaves_processor_idle(platform) and _computes_in_mixed(platform.getName())
    return platform, {"Precision": "mixed"} if mixed else {}


def platform_arguments(name: str = "", threads: int = 0, system: openmm.System | None = None) -> list[object]:
    """List what ``openmm.Context`` takes after System and integrator; arguments as for `choose_platform`."""
    return [*choose_platform(name, threads, system)]


def device_name(platform: openmm.Platform) -> str:
    """Name of the device that a platform runs on; empty for a platform that has no devices."""
    if "DeviceName" not in platform.getPropertyNames():
        return ""
    return platform.getPropertyValue(_context_on(platform), "DeviceName")


def precision_of(platform: openmm.Platform, properties: dict[str, str]) -> str:
    """Arithmetic of a platform with some properties: ``single``, ``mixed`` or ``double``.

    Parameters
    ----------
    platform : openmm.Platform
    properties : dict of str to str
        As a context gets them.
    """
    if platform.getName() == "Reference":
        return "double"
    if "Precision" not in platform.getPropertyNames():
        return "single"
    return (properties.get("Precision") or platform.getPropertyDefaultValue("Precision")).lower()


def _context_on(platform: openmm.Platform, properties: dict[str, str] | None = None) -> openmm.Context:
    """A context of one particle."""
    system = openmm.System()
    system.addParticle(1.0)
    return openmm.Context(system, openmm.VerletIntegrator(FEMTOSECOND), platform, properties or {})


@functools.cache
def _works(name: str) -> bool:
    """Whether a platform can run one particle; a GPU platform is there without a GPU as well."""
    if name in ("CPU", "Reference"):
        return True
    try:
        _context_on(openmm.Platform.getPlatformByName(name))
    except openmm.OpenMMException:
        return False
    return True


@functools.cache
def _computes_in_mixed(name: str) -> bool:
    """Whether a platform has double precision for sums, which some graphics for laptops have not."""
    try:
        _context_on(openmm.Platform.getPlatformByName(name), {"Precision": "mixed"})
    except openmm.OpenMMException as error:
        logger.warning("%s computes in single precision here: in mixed it said %s", name, error)
        return False
    return True


def _has_foreign_force(system: openmm.System) -> bool:
    """Whether a force is of another plugin, as TorchForce: OpenMM hands it back without its own class."""
    bare = [force for force in system.getForces() if type(force) is openmm.Force]
    # Without this plugin none can be its own.
    return not all(map(is_of_plugin, bare))
