"""Downhill to rest on a Context of which some atoms are frozen: L-BFGS, then FIRE where that stops early.

A cutoff without switching function makes small steps in the energy, at which a line search gives up; FIRE
looks at forces alone, and takes constraints as every integrator does: with them it goes all the way.
"""

from __future__ import annotations

import numpy as np
import openmm
from openmm import unit
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from mlmm.errors import SimulationError

__all__ = ["FIREIntegrator", "relax", "residual_force"]

_ROUNDS = 2  # calls of L-BFGS
_ITERATIONS = 5000
_STEPS, _CHUNK = 20000, 100  # of FIRE
_FIRST_STEP, _LONGEST_STEP = 0.0005, 0.002  # ps: the second is a fifth of the period of an O-H bond


class FIREIntegrator(openmm.CustomIntegrator):
    """Fast inertial relaxation: dynamics that is turned towards the force and stops when it goes uphill.

    Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), doi 10.1103/PhysRevLett.97.170201, with its parameters.
    Particles without mass stay where they are.
    """

    def __init__(self) -> None:
        super().__init__(_FIRST_STEP)
        for name, value in (("h", _FIRST_STEP), ("mix", 0.1), ("downhill", 0.0), ("P", 0.0), ("ratio", 0.0)):
            self.addGlobalVariable(name, value)
        for name in ("ff", "vv"):
            self.addGlobalVariable(name, 0.0)
        self.addPerDofVariable("x0", 0.0)
        self.addComputePerDof("v", "v + h*f/m")
        self.addConstrainVelocities()
        for name, product in (("P", "f*v"), ("ff", "f*f"), ("vv", "v*v")):
            self.addComputeSum(name, product)
        self.beginIfBlock("P > 0")
        self.addComputeGlobal("ratio", "mix*sqrt(vv/ff)")
        self.addComputePerDof("v", "(1 - mix)*v + ratio*f")
        self.addComputeGlobal("downhill", "downhill + 1")
        self.beginIfBlock("downhill > 5")
        self.addComputeGlobal("h", f"min(1.1*h, {_LONGEST_STEP})")
        self.addComputeGlobal("mix", "0.99*mix")
        self.endBlock()
        self.endBlock()
        self.beginIfBlock("P <= 0")
        for name, again in (("downhill", "0"), ("h", "0.5*h"), ("mix", "0.1")):
            self.addComputeGlobal(name, again)
        self.addComputePerDof("v", "0")
        self.endBlock()
        self.addComputePerDof("x0", "x")
        self.addComputePerDof("x", "x + h*v")
        self.addConstrainPositions()
        self.addComputePerDof("v", "(x - x0)/h")

    def start(self) -> None:
        """Forget the last relaxation."""
        for name, value in (("h", _FIRST_STEP), ("mix", 0.1), ("downhill", 0.0)):
            self.setGlobalVariableByName(name, value)


def relax(context: openmm.Context, free: np.ndarray, tolerance: float) -> None:
    """Move the free atoms of a Context with a `FIREIntegrator` downhill until they are at rest.

    Parameters
    ----------
    context : openmm.Context
        At the positions to start from; all other atoms have no mass.
    free : ndarray, shape (N,), bool
    tolerance : float
        Root-mean-square force, less what constraints carry, kJ/mol/nm.

    Raises
    ------
    SimulationError
        Forces that stay above the tolerance.
    """
    residual = residual_force(context, free)
    # OpenMM's L-BFGS holds constraints by stiff springs, and is slower than FIRE with rigid water.
    for _ in range(0 if context.getSystem().getNumConstraints() else _ROUNDS):
        if residual > tolerance:
            openmm.LocalEnergyMinimizer.minimize(context, tolerance, _ITERATIONS)
            residual = residual_force(context, free)
    integrator = context.getIntegrator()
    integrator.start()
    context.setVelocities(np.zeros((len(free), 3)))
    for _ in range(_STEPS // _CHUNK):
        if residual <= tolerance:
            return
        integrator.step(_CHUNK)
        residual = residual_force(context, free)
    if not residual <= tolerance:
        raise SimulationError(
            f"an environment at rest, with forces below {tolerance:g} kJ/mol/nm (rms)",
            f"{residual:.3g} after {_STEPS} steps",
            "start from a minimised structure, or ask for a larger tolerance",
        )


def residual_force(context: openmm.Context, free: np.ndarray) -> float:
    """Root-mean-square force on the free atoms, less what constraints carry, kJ/mol/nm."""
    if not free.any():
        return 0.0
    groups = context.getIntegrator().getIntegrationForceGroups()
    state = context.getState(forces=True, positions=True, groups=groups)
    forces = np.array(state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer))
    forces[~free] = 0.0
    positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    forces = _without_constraint_forces(context.getSystem(), positions, forces)
    return float(np.sqrt(np.mean(forces[free] ** 2)))


def _without_constraint_forces(
    system: openmm.System, positions: np.ndarray, forces: np.ndarray
) -> np.ndarray:
    """Forces less their part along constrained distances: what is left can move an atom."""
    n = system.getNumConstraints()
    if n == 0:
        return forces
    pairs = np.array([system.getConstraintParameters(i)[:2] for i in range(n)])
    along = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    along /= np.linalg.norm(along, axis=1)[:, None]
    rows = np.repeat(np.arange(n), 6)
    columns = (pairs[:, :, None] * 3 + np.arange(3)).reshape(-1)
    values = np.concatenate([along, -along], axis=1).reshape(-1)
    slopes = csr_array((values, (rows, columns)), shape=(n, forces.size))
    carried = lsqr(slopes.T, forces.reshape(-1), atol=1e-10, btol=1e-10)[0]
    return forces - (slopes.T @ carried).reshape(forces.shape)
