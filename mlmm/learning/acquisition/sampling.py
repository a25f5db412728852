"""New structures around known ones: dynamics at a temperature, random distortion, structures along a path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlmm.errors import ConfigError, SimulationError
from mlmm.learning.acquisition.surfaces import Surface, ase_atoms, surface_of
from mlmm.options import Quantity
from mlmm.potentials.base import PotentialModel
from mlmm.reference.labels import Molecule
from mlmm.reference.method import ReferenceMethod
from mlmm.units import ANGSTROM, ELECTRONVOLT, GAS_CONSTANT, parse

__all__ = ["distorted", "minimised", "sample_dynamics"]

Method = PotentialModel | ReferenceMethod | Surface
_TRIES = 100  # per structure
_CLASH = 0.05  # nm


def sample_dynamics(
    molecule: Molecule,
    method: Method,
    count: int,
    *,
    temperature: Quantity = "300 K",
    timestep: Quantity = "0.5 fs",
    friction: Quantity = "10 /ps",
    interval: int = 40,
    equilibration: int = 400,
    seed: int = 0,
    run: str = "dynamics",
    tolerant: bool = False,
) -> list[Molecule]:
    """Frames of Langevin dynamics of a molecule at a temperature (ASE).

    Parameters
    ----------
    molecule : Molecule
        Its point charges stay where they are.
    method : PotentialModel, ReferenceMethod or callable
        As for `mlmm.learning.acquisition.surfaces.surface_of`.
    count : int
        Frames.
    temperature, timestep, friction : str or float
        K, ps, 1/ps.
    interval, equilibration : int
        Steps between two frames, and before the first.
    seed : int
        Of velocities and noise: it and the molecule determine the frames.
    run : str
        Name for the origin of the frames.
    tolerant : bool
        Return the frames before the dynamics became unstable, or two atoms came nearer than 0.05 nm: with a
        model that is being trained this is no error.

    Raises
    ------
    SimulationError
        Positions that are not finite any more, or atoms that left.
    """
    from ase import units as ase_units
    from ase.md.langevin import Langevin

    kelvin = parse(temperature, "temperature", "temperature")
    step_fs = parse(timestep, "time", "timestep") * 1e3
    rate = parse(friction, "rate", "friction")
    atoms = ase_atoms(molecule, surface_of(method, molecule))
    random = np.random.default_rng(seed)
    widths = np.sqrt(atoms.get_masses() * ase_units.kB * kelvin)[:, None]
    atoms.set_momenta(widths * random.normal(size=(len(atoms), 3)))
    dynamics = Langevin(
        atoms,
        step_fs * ase_units.fs,
        temperature_K=kelvin,
        friction=rate * 1e-3 / ase_units.fs,
        fixcm=False,  # held fixed, the temperature would not be sampled
        rng=random,
    )
    found = []
    for frame in range(count):
        with np.errstate(over="ignore", invalid="ignore"):  # said below
            dynamics.run(interval if frame else max(1, equilibration))
        positions = atoms.positions * ANGSTROM
        size = float(np.abs(positions - positions.mean(axis=0)).max())
        bad = not np.isfinite(positions).all() or size > 100.0
        if tolerant and (bad or _shortest(positions) < _CLASH):
            break
        if bad:
            raise SimulationError(
                "dynamics that stays together",
                f"positions out of bounds at frame {frame}",
                "reduce the time step or the temperature, or start from a minimum",
            )
        origin = {"run": run, "frame": str(frame), "seed": str(seed)}
        found.append(replace(molecule, positions=positions.copy(), origin=dict(molecule.origin) | origin))
    return found


def minimised(molecule: Molecule, method: Method, *, force: float = 5.0, steps: int = 500) -> Molecule:
    """The nearest minimum, by BFGS.

    Parameters
    ----------
    molecule : Molecule
    method : PotentialModel, ReferenceMethod or callable
    force : float
        Largest force that may remain, kJ/mol/nm.
    steps : int
        At most.

    Raises
    ------
    SimulationError
        Not reached in so many steps.
    """
    from ase.optimize import BFGS

    atoms = ase_atoms(molecule, surface_of(method, molecule))
    with BFGS(atoms, logfile=None) as search:
        reached = search.run(fmax=force * ANGSTROM / ELECTRONVOLT, steps=steps)
    if not reached:
        raise SimulationError(
            f"forces below {force:g} kJ/mol/nm after {steps} steps",
            "larger ones",
            "give more steps, or start nearer to a minimum",
        )
    return replace(molecule, positions=atoms.positions * ANGSTROM)


def distorted(
    molecule: Molecule,
    count: int,
    size: Quantity = "0.005 nm",
    *,
    seed: int = 0,
    shortest: Quantity = "0.06 nm",
    run: str = "distortion",
) -> list[Molecule]:
    """Structures with every atom moved at random, Gaussian in each direction.

    Parameters
    ----------
    molecule : Molecule
    count : int
    size : str or float
        Standard deviation, nm.
    seed : int
    shortest : str or float
        Structures with two atoms nearer than this are drawn again, nm.
    run : str
        Name for the origin.

    Raises
    ------
    ConfigError
        Distortions so large that atoms are nearly always on top of each other.
    """
    spread, least = parse(size, "length", "size"), parse(shortest, "length", "shortest")
    random = np.random.default_rng(seed)
    found: list[Molecule] = []
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        positions = molecule.positions + random.normal(0.0, spread, molecule.positions.shape)
        if _shortest(positions) >= least:
            # Drawn one by one: each is a block of its own where sets are split.
            origin = {"run": f"{run} {seed}.{len(found)}"}
            found.append(replace(molecule, positions=positions, origin=dict(molecule.origin) | origin))
    if len(found) < count:
        raise ConfigError(
            f"{count} structures without atoms nearer than {least:g} nm",
            f"{len(found)} in {count * _TRIES} tries",
            "reduce the size of the distortion",
        )
    return found


def thermal_energy(temperature: Quantity) -> float:
    """RT in kJ/mol."""
    return GAS_CONSTANT * parse(temperature, "temperature", "temperature")


def _shortest(positions: np.ndarray) -> float:
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    return float(apart[np.triu_indices(len(positions), k=1)].min()) if len(positions) > 1 else np.inf
