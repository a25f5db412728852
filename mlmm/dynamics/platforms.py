"""The OpenMM platform of a simulation: the one asked for, or the fastest, with its properties."""

from __future__ import annotations

import openmm

from mlmm.errors import ConfigError

__all__ = ["choose_platform", "platform_arguments"]


def choose_platform(name: str = "", threads: int = 0) -> tuple[openmm.Platform, dict[str, str]]:
    """Find a platform by its name, in any case, and its properties.

    Parameters
    ----------
    name : str
        The fastest if empty.
    threads : int
        Of the CPU platform; 0 for as many as the environment or the machine has.

    Raises
    ------
    ConfigError
        A platform that OpenMM does not have here.
    """
    available = [openmm.Platform.getPlatform(i) for i in range(openmm.Platform.getNumPlatforms())]
    if name:
        found = [p for p in available if p.getName().lower() == name.lower()]
        if not found:
            names = " | ".join(p.getName() for p in available)
            raise ConfigError(f"platform = {names}", repr(name), "choose one of these")
        platform = found[0]
    else:
        platform = max(available, key=lambda p: p.getSpeed())
    several = threads > 0 and platform.getName() == "CPU"
    return platform, {"Threads": str(threads)} if several else {}


def platform_arguments(name: str = "", threads: int = 0) -> list[object]:
    """List what ``openmm.Context`` takes after System and integrator; nothing where OpenMM chooses.

    With neither name nor threads OpenMM itself tries the platforms in turn and leaves out those that fail.
    """
    return [*choose_platform(name, threads)] if name or threads else []
