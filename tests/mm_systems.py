"""Small systems with every class of force-field terms, and a plain loop over pairs."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import openmm
from openmm import app, unit

import mlmm
from mlmm.units import COULOMB

CUBIC = np.eye(3) * 2.2
TRICLINIC = np.array([[2.4, 0, 0], [0.7, 2.2, 0], [-0.8, 0.9, 2.3]])


def random_force(name: str, rng: np.random.Generator) -> openmm.Force:
    """Random terms of one kind among nine particles."""
    force = {
        "bond": openmm.HarmonicBondForce,
        "angle": openmm.HarmonicAngleForce,
        "torsion": openmm.PeriodicTorsionForce,
        "improper": openmm.PeriodicTorsionForce,
        "RB": openmm.RBTorsionForce,
        "CMAP": openmm.CMAPTorsionForce,
        "1-4": openmm.NonbondedForce,
    }[name]()

    def draw(n: int) -> list[int]:
        return [int(i) for i in rng.choice(9, n, replace=False)]

    if name == "CMAP":
        for size in (8, 24, 5):
            force.addMap(size, rng.normal(0, 5, size * size).tolist())
        force.addTorsion(1, *draw(4), *draw(4))
    if name == "1-4":
        for q in rng.normal(0, 0.5, 9):
            force.addParticle(q, 0.3, 0.5)
        for a, b in itertools.combinations(range(9), 2):
            own = (rng.normal(0, 0.2), 0.25, 0.6) if rng.random() < 0.5 else (0.0, 1.0, 0.0)
            force.addException(a, b, *own)
        return force
    for _ in range(12):
        if name == "bond":
            force.addBond(*draw(2), rng.uniform(0.1, 0.3), rng.uniform(10, 500))
        elif name == "angle":
            force.addAngle(*draw(3), rng.uniform(1, 3), rng.uniform(10, 500))
        elif name == "torsion":
            force.addTorsion(*draw(4), int(rng.integers(1, 7)), rng.uniform(-3, 3), rng.normal(0, 9))
        elif name == "improper":
            force.addTorsion(0, 1, 2, int(rng.integers(3, 9)), 2, np.pi, rng.uniform(1, 9))
        elif name == "RB":
            force.addTorsion(*draw(4), *rng.normal(0, 9, 6))
        elif name == "CMAP":
            five = draw(5)
            force.addTorsion(int(rng.integers(3)), *five[:4], *five[1:])
    return force


def one_class(name: str, seed: int = 5) -> openmm.System:
    """Nine particles and random terms of one kind; Urey-Bradley and CMAP in two forces of one class."""
    rng = np.random.default_rng(seed)
    system = openmm.System()
    for _ in range(9):
        system.addParticle(1.0)
    for kind in {"Urey-Bradley": ("bond", "bond"), "CMAP": ("CMAP", "CMAP")}.get(name, (name,)):
        system.addForce(random_force(kind, rng))
    return system


CLASSES = ("bond", "Urey-Bradley", "angle", "torsion", "improper", "RB", "CMAP", "1-4")


def nonbonded(cell, seed=2, n=48, switch=0.55) -> tuple[openmm.System, np.ndarray]:
    """Charged particles on a jittered grid with some exclusions and 1-4 pairs."""
    rng = np.random.default_rng(seed)
    system, force = openmm.System(), openmm.NonbondedForce()
    grid = np.array(list(itertools.product(range(4), range(4), range(3)))) * 0.45
    for q, s, e in zip(rng.normal(0, 0.5, n), rng.uniform(0.2, 0.35, n), rng.uniform(0, 0.8, n), strict=True):
        system.addParticle(1.0)
        force.addParticle(q, s, e)
    for a, b in itertools.combinations(range(n), 2):
        if rng.random() < 0.1:
            own = (rng.normal(0, 0.2), 0.27, 0.4) if rng.random() < 0.5 else (0.0, 1.0, 0.0)
            force.addException(a, b, *own)
    if cell is None:
        force.setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    else:
        force.setNonbondedMethod(openmm.NonbondedForce.PME)
        force.setEwaldErrorTolerance(1e-6)
        force.setCutoffDistance(1.0)
        force.setUseSwitchingFunction(True)
        force.setSwitchingDistance(switch)
        force.setExceptionsUsePeriodicBoundaryConditions(True)
        system.setDefaultPeriodicBoxVectors(*cell)
    system.addForce(force)
    positions = grid + rng.normal(0, 0.04, (n, 3))
    if cell is not None:  # spread over images: pairs must find each other
        positions = positions + rng.integers(-1, 2, (n, 3)) @ cell
    return system, positions


def pair_loop(system, positions, cell, visible, r_on, r_off, coulomb="split"):
    """f LJ + v_sr of all visible pairs by a plain loop, half on either atom; the image by trying many."""
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    switched = cell is not None and force.getUseSwitchingFunction()
    cutoff, switch = force.getCutoffDistance()._value, force.getSwitchingDistance()._value
    images = (
        np.zeros((1, 3)) if cell is None else np.array(list(itertools.product(range(-4, 5), repeat=3))) @ cell
    )
    exceptions = {}
    for i in range(force.getNumExceptions()):
        a, b, *own = force.getExceptionParameters(i)
        exceptions[min(a, b), max(a, b)] = [p._value for p in own]
    smooth = lambda x: 1 - 10 * x**3 + 15 * x**4 - 6 * x**5  # noqa: E731
    result = np.zeros(len(positions))
    for a, b in itertools.combinations(np.flatnonzero(visible), 2):
        r = np.linalg.norm(positions[b] - positions[a] + images, axis=1).min()
        if r >= r_off:
            continue
        own = exceptions.get((a, b))
        if own is None:
            (qa, sa, ea), (qb, sb, eb) = (
                [p._value for p in force.getParticleParameters(int(i))] for i in (a, b)
            )
            product, sigma, epsilon = qa * qb, (sa + sb) / 2, np.sqrt(ea * eb)
        else:
            product, sigma, epsilon = own
        lj = 4 * epsilon * ((sigma / r) ** 12 - (sigma / r) ** 6)
        f = 1.0 if r < r_on else smooth((r - r_on) / (r_off - r_on))
        if own is None and switched and r > switch:
            lj *= smooth((r - switch) / (cutoff - switch))
        p = r / r_off
        tail = (35 - 35 * p**2 + 21 * p**4 - 5 * p**6) / 16 / r_off
        v = COULOMB * product * (1 / r - tail if coulomb == "split" else f / r)
        result[[a, b]] += 0.5 * (f * lj + v)
    return result


def mixed_system():
    """All classes of terms on nine charged atoms under PME."""
    system = one_class("1-4")
    force = system.getForce(0)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(1.0)
    system.setDefaultPeriodicBoxVectors(*CUBIC)
    for name in CLASSES[:-1]:
        source = one_class(name)
        for other in source.getForces():
            system.addForce(copy.deepcopy(other))
    return system, np.random.default_rng(4).normal(0, 0.25, (9, 3))


def four_site_water():
    """A small box of TIP4P-Ew with flexible bonds between its real atoms."""
    model = app.Modeller(app.Topology(), [] * unit.nanometer)
    force_field = app.ForceField("amber14/tip4pew.xml")
    model.addSolvent(force_field, model="tip4pew", boxSize=openmm.Vec3(1.7, 1.7, 1.7) * unit.nanometer)
    system = force_field.createSystem(
        model.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.8 * unit.nanometer,
        constraints=None,
        rigidWater=False,
    )
    return mlmm.BuiltSystem.from_openmm(
        model.topology, system, np.array(model.positions.value_in_unit(unit.nanometer))
    )
