"""From a stage to an OpenMM integrator: one time step, or several for forces of different speed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import openmm

from mlmm.dynamics.stages import Dynamics
from mlmm.errors import ConfigError
from mlmm.units import FEMTOSECOND, GAS_CONSTANT

__all__ = [
    "RECIPROCAL",
    "beyond_tested",
    "energy_groups",
    "forget_forces",
    "kinetic_energy_needs_forces",
    "make_integrator",
    "multiple_time_steps",
    "separate_reciprocal",
]

#: Force group of PME's reciprocal sum, where it has one of its own.
RECIPROCAL = 6
_CONSTRAINT_TOLERANCE = 1e-6
#: Of a CustomIntegrator, unless it is given another.
_KINETIC_ENERGY = "m*v*v/2"
#: Longest time step and longest time between two evaluations of any force (ps) that were found stable where
#: the lightest atom that vibrates freely has this mass (amu): tests/benchmarks/TIMESTEPS.md.
_TESTED = ((1.0, 0.001, 0.002), (3.0, 0.0015, 0.003))
#: The same for an adaptive zone.
_TESTED_ADAPTIVE = ((1.0, 0.0005, 0.001),)


def make_integrator(
    stage: Dynamics,
    force_groups: Mapping[str, int],
    seed: int,
    *,
    constrained: bool = True,
    moved_between_steps: bool = False,
) -> openmm.Integrator:
    """The integrator of a stage.

    One time step: Langevin middle, or velocity Verlet in leapfrog form. Several: `multiple_time_steps`.

    Parameters
    ----------
    stage : Dynamics
    force_groups : mapping of str to int
        Of the hybrid system; where ``nonbonded`` is slow, all others are fast.
    seed : int
        Of the thermostat; not 0.
    constrained : bool
        Whether the system has constraints.
    moved_between_steps : bool
        Whether the system holds a barostat of its own.

    Raises
    ------
    ConfigError
        Several time steps without non-bonded forces of the force field.
    """
    temperature = None if stage.ensemble == "NVE" else stage.temperature
    if stage.step_length != stage.timestep:
        if "nonbonded" not in force_groups or len(force_groups) < 2:
            raise ConfigError(
                "non-bonded forces beside others, for nonbonded_every or reciprocal_every above 1",
                f"forces {', '.join(force_groups)}",
                "leave nonbonded_every and reciprocal_every out",
            )
        integrator: openmm.Integrator = multiple_time_steps(
            stage.timestep,
            stage.nonbonded_every,
            stage.reciprocal_every,
            fast=[group for name, group in force_groups.items() if name != "nonbonded"],
            slow=force_groups["nonbonded"],
            temperature=temperature,
            friction=stage.friction,
            constrained=constrained,
            moved_between_steps=moved_between_steps,
        )
    elif temperature is None:
        integrator = openmm.VerletIntegrator(stage.timestep)
    else:
        integrator = openmm.LangevinMiddleIntegrator(temperature, stage.friction, stage.timestep)
    if temperature is not None:
        integrator.setRandomNumberSeed(seed)
    integrator.setConstraintTolerance(_CONSTRAINT_TOLERANCE)
    return integrator


def multiple_time_steps(
    timestep: float,
    nonbonded_every: int,
    reciprocal_every: int = 1,
    *,
    fast: list[int],
    slow: int,
    temperature: float | None = None,
    friction: float = 1.0,
    constrained: bool = True,
    moved_between_steps: bool = False,
) -> openmm.CustomIntegrator:
    """Reversible multiple time steps: each force acts as a kick at the rate at which it changes.

    The fast forces (the machine-learned potential, whose bonds are the stiffest, and what is left of bonded
    terms) act every `timestep`, the slow ones every `nonbonded_every` of them, PME's reciprocal sum, in the
    group `RECIPROCAL`, every nonbonded_every * reciprocal_every (Tuckerman et al., J. Chem. Phys. 97, 1990
    (1992), doi 10.1063/1.463137). A thermostat sits in the middle of the innermost drift (BAOAB-RESPA,
    Lagardère et al., J. Phys. Chem. Lett. 10, 2593 (2019), doi 10.1021/acs.jpclett.9b00901). One step of the
    integrator is nonbonded_every * reciprocal_every time steps. Velocities belong to the same time as
    positions.

    Unlike OpenMM's MTSIntegrator, it keeps each force until atoms have moved: no force is evaluated twice.

    Parameters
    ----------
    timestep : float
        Innermost, ps.
    nonbonded_every, reciprocal_every : int
        1 or more.
    fast : list of int
        Force groups.
    slow : int
        Force group.
    temperature : float, optional
        K; none for NVE.
    friction : float
        1/ps.
    constrained : bool
        Whether the system has constraints.
    moved_between_steps : bool
        Whether a force of the system, such as OpenMM's barostat, moves atoms between steps, so that all
        forces have to be evaluated anew before each one. After a move from outside: `forget_forces`.
    """
    whole = timestep * nonbonded_every * reciprocal_every
    integrator = openmm.CustomIntegrator(whole)
    sums = ["fast", "slow", *(["far"] if reciprocal_every > 1 else [])]
    for name in (*sums, *(["before"] if constrained else [])):
        integrator.addPerDofVariable(name, 0)
    integrator.addGlobalVariable("ready", 0)
    if temperature is not None:
        integrator.addGlobalVariable("keep", math.exp(-friction * timestep))
        integrator.addGlobalVariable("noise", math.sqrt(1 - math.exp(-2 * friction * timestep)))
        integrator.addGlobalVariable("kT", GAS_CONSTANT * temperature)

    def evaluate(name: str) -> None:
        groups = {"fast": fast, "slow": [slow], "far": [RECIPROCAL]}[name]
        for k, group in enumerate(groups):
            integrator.addComputePerDof(name, f"f{group}" if k == 0 else f"{name}+f{group}")

    def kick(name: str, length: float) -> None:
        integrator.addComputePerDof("v", f"v+{0.5 * length!r}*{name}/m")

    def drift() -> None:
        if temperature is None:
            integrator.addComputePerDof("x", f"x+{timestep!r}*v")
        else:
            integrator.addComputePerDof("x", f"x+{0.5 * timestep!r}*v")
            integrator.addComputePerDof("v", "keep*v+noise*sqrt(kT/m)*gaussian")
            integrator.addComputePerDof("x", f"x+{0.5 * timestep!r}*v")
        if constrained:
            integrator.addComputePerDof("before", "x")
            integrator.addConstrainPositions()
            integrator.addComputePerDof("v", f"v+(x-before)/{timestep!r}")
            integrator.addConstrainVelocities()

    integrator.addUpdateContextState()
    if not moved_between_steps:
        integrator.beginIfBlock("ready < 1")
    for name in sums:
        evaluate(name)
    if not moved_between_steps:
        integrator.addComputeGlobal("ready", "1")
        integrator.endBlock()
    if reciprocal_every > 1:
        kick("far", whole)
    for _ in range(reciprocal_every):
        kick("slow", timestep * nonbonded_every)
        for _ in range(nonbonded_every):
            kick("fast", timestep)
            drift()
            evaluate("fast")
            kick("fast", timestep)
        evaluate("slow")
        kick("slow", timestep * nonbonded_every)
    if reciprocal_every > 1:
        evaluate("far")
        kick("far", whole)
    if constrained:
        integrator.addConstrainVelocities()
    return integrator


def beyond_tested(stage: Dynamics, system: openmm.System, *, adaptive: bool = False) -> str | None:
    """What of the steps of a stage is longer than what was found stable; None if nothing is.

    Parameters
    ----------
    stage : Dynamics
    system : openmm.System
    adaptive : bool
        Whether the zone is an adaptive one, where less was tested.
    """
    held = {atom for i in range(system.getNumConstraints()) for atom in system.getConstraintParameters(i)[:2]}
    masses = [system.getParticleMass(i)._value for i in range(system.getNumParticles()) if i not in held]
    lightest = min((mass for mass in masses if mass > 0), default=None)
    if lightest is None:
        return None
    table = _TESTED_ADAPTIVE if adaptive else _TESTED
    # A lighter atom than any tested is held to what the lightest of those bore.
    _, step, whole = max((row for row in table if row[0] <= lightest), default=table[0])
    found = []
    for what, length, limit in (
        ("a time step of", stage.timestep, step),
        ("forces only every", stage.step_length, whole),
    ):
        if length > 1.01 * limit:
            found.append(f"{what} {length / FEMTOSECOND:g} fs (tested up to {limit / FEMTOSECOND:.2g})")
    if not found:
        return None
    return (
        f"stage {stage.name}: {' and '.join(found)}, with atoms of {lightest:.3g} amu that vibrate freely: "
        "mlmm check timestep tells whether that is stable"
    )


def forget_forces(integrator: openmm.Integrator) -> None:
    """Have forces evaluated anew in the next step, as OpenMM's own integrators do, after atoms were moved."""
    if isinstance(integrator, openmm.CustomIntegrator):
        integrator.setGlobalVariableByName("ready", 0)


def separate_reciprocal(system: openmm.System) -> None:
    """Give PME's reciprocal sum the force group `RECIPROCAL`.

    Raises
    ------
    ConfigError
        No PME.
    """
    sums = (openmm.NonbondedForce.PME, openmm.NonbondedForce.Ewald, openmm.NonbondedForce.LJPME)
    found = False
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce) and force.getNonbondedMethod() in sums:
            force.setReciprocalSpaceForceGroup(RECIPROCAL)
            found = True
    if not found:
        raise ConfigError(
            "a periodic system under PME for reciprocal_every above 1", "none", "leave reciprocal_every out"
        )


def kinetic_energy_needs_forces(integrator: openmm.Integrator) -> bool:
    """Whether the kinetic energy follows from velocities at half steps and the forces of all groups."""
    if isinstance(integrator, openmm.CustomIntegrator):
        return bool(integrator.getKineticEnergyExpression() != _KINETIC_ENERGY)
    return not isinstance(integrator, openmm.LangevinMiddleIntegrator)


def energy_groups(name: str, group: int) -> set[int]:
    """Force groups that hold the energy of a kind; the reciprocal sum counts as non-bonded wherever it is."""
    return {group, RECIPROCAL} if name == "nonbonded" else {group}
