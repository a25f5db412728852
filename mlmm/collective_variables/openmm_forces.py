"""Collective variables and the energies of restraints as forces of OpenMM."""

from __future__ import annotations

import itertools
import math

import numpy as np
import openmm

from mlmm.collective_variables.definitions import (
    BOX_EDGE,
    SWITCHING_START,
    Biases,
    BoundRestraint,
    BoundVariable,
)

__all__ = ["bias_forces", "follow_box", "restraint_force", "set_parameters", "variable_force"]

#: Values as functions of centres of mass.
_OF_CENTRES = {
    "distance": "distance(g1,g2)",
    "angle": "angle(g1,g2,g3)",
    "torsion": "dihedral(g1,g2,g3,g4)",
    "difference": "distance(g1,g2)-distance(g3,g4)",
    "axis": "(distance(g1,g3)^2+distance(g1,g2)^2-distance(g2,g3)^2)/(2*distance(g1,g2))",
}
#: Energies as functions of off = x - x_0.
_SHAPES = {
    "harmonic": "0.5*{k}*off^2",
    "flat_bottom": "0.5*{k}*max(0,abs(off)-{width})^2",
    "lower": "0.5*{k}*min(0,off)^2",
    "upper": "0.5*{k}*max(0,off)^2",
}


def variable_force(variable: BoundVariable) -> openmm.Force:
    """A force whose energy in kJ/mol is the value of the variable in its internal unit.

    It goes into a `CustomCVForce`, or into `openmm.app.metadynamics.BiasVariable`.

    Parameters
    ----------
    variable : BoundVariable
    """
    force = _host(variable, "value")
    force.setName(variable.name)
    return force


def restraint_force(restraint: BoundRestraint) -> openmm.Force:
    """The energy of a restraint, with its numbers as global parameters; see `BoundRestraint.parameters`."""
    variable, name = restraint.variable, restraint.name
    if variable.kind == "position":
        # Of the root where it is not 0 only: its gradient has no value there.
        off = f"off=sqrt(max(squared,{name}_width^2))-{name}_width"
        harmonic = restraint.shape == "harmonic"
        squared = "squared" if harmonic else "off^2"
        force = _displacements(
            variable, f"0.5*{name}_force_constant*{squared}" + ("" if harmonic else f";{off}")
        )
    else:
        energy = _SHAPES[restraint.shape].format(k=f"{name}_force_constant", width=f"{name}_width")
        if variable.kind == "torsion":
            turn = repr(2 * math.pi)
            energy += f";off=raw-{turn}*floor(raw/{turn}+0.5);raw=value-{name}_at"
        else:
            energy += f";off=value-{name}_at"
        force = _host(variable, energy)
    for parameter, number in restraint.parameters().items():
        force.addGlobalParameter(parameter, number)
    force.setName(f"restraint {name}")
    return force


def bias_forces(biases: Biases) -> list[openmm.Force]:
    """The forces of all restraints, and bonds without energy that keep what has to be whole in one image.

    OpenMM wraps molecules into the box, and knows them by their bonds.
    """
    forces = [restraint_force(restraint) for restraint in biases]
    joints = openmm.CustomBondForce("0*r")
    joints.setName("joints of variables")
    joints.setUsesPeriodicBoundaryConditions(True)
    for restraint in biases:
        if restraint.variable.superposed and restraint.variable.periodic:
            atoms = restraint.variable.atoms
            for a, b in itertools.pairwise(atoms):
                joints.addBond(a, b, [])
    return [*forces, joints] if joints.getNumBonds() else forces


def set_parameters(context: openmm.Context, biases: Biases, stage: str | None = None) -> None:
    """Set the numbers of all restraints in a context as they are in a stage, and follow its box."""
    for name, number in biases.parameters(stage).items():
        context.setParameter(name, number)
    follow_box(context)


def follow_box(context: openmm.Context) -> None:
    """Move the references of positions with the box: to be called after every change of it."""
    if BOX_EDGE in context.getParameters():
        box = context.getState().getPeriodicBoxVectors(asNumpy=True)._value
        context.setParameter(BOX_EDGE, float(np.linalg.det(box)) ** (1 / 3))


def _host(variable: BoundVariable, energy: str) -> openmm.Force:
    """A force with an energy that is a function of ``value``."""
    if variable.kind in (*_OF_CENTRES, "sum"):
        expression = _OF_CENTRES.get(variable.kind) or "+".join(
            f"{factor!r}*distance(g{2 * k + 1},g{2 * k + 2})"
            for k, factor in enumerate(variable.coefficients)
        )
        force = openmm.CustomCentroidBondForce(len(variable.groups), f"{energy};value={expression}")
        for atoms, weights in zip(variable.groups, variable.weights, strict=True):
            force.addGroup(list(atoms), weights.tolist())
        force.addBond(list(range(len(variable.groups))), [])
        force.setUsesPeriodicBoundaryConditions(variable.periodic)
        return force
    expression, inner = _of_forces(variable)
    force = openmm.CustomCVForce(f"{energy};value={expression}")
    for name, part in inner.items():
        force.addCollectiveVariable(name, part)
    return force


def _of_forces(variable: BoundVariable) -> tuple[str, dict[str, openmm.Force]]:
    """A value as a function of the energies of forces."""
    if variable.kind == "coordination":
        return "pairs", {"pairs": _contacts(variable)}
    if variable.kind == "position":
        return f"sqrt(squares/{len(variable.groups[0])})", {"squares": _displacements(variable, "squared")}
    forces: dict[str, openmm.Force] = {}
    for k, reference in enumerate(variable.references):
        places = np.zeros((variable.n_particles, 3))
        places[list(variable.groups[0])] = reference
        forces[f"d{k}"] = openmm.RMSDForce(places, list(variable.groups[0]))
    if variable.kind == "rmsd":
        return "d0", forces
    return _path(variable, list(forces)), forces


def _path(variable: BoundVariable, names: list[str]) -> str:
    """Progress along a path, or distance from it; exponents are taken from the nearest image on."""
    nearest = f"{names[0]}^2"
    for name in names[1:]:
        nearest = f"min({nearest},{name}^2)"
    terms = [f"exp({-variable.sharpness!r}*({name}^2-nearest))" for name in names]
    whole = f"whole={'+'.join(terms)};nearest={nearest}"
    if variable.kind == "path_z":
        return f"nearest-log(whole)/{variable.sharpness!r};{whole}"
    last = len(names) - 1
    parts = "+".join(f"{k / last!r}*{term}" for k, term in enumerate(terms) if k)
    return f"({parts})/whole;{whole}"


def _contacts(variable: BoundVariable) -> openmm.Force:
    """Pairs of atoms of two groups; a force of pairs, which joins no molecules, unlike one of bonds."""
    n, r0 = variable.exponent, variable.contact_distance
    force = openmm.CustomNonbondedForce(f"1/(1+(r/{r0!r})^{n})")
    for _ in range(variable.n_particles):
        force.addParticle([])
    force.addInteractionGroup(*map(list, variable.groups))
    kinds = (force.CutoffNonPeriodic, force.CutoffPeriodic)
    force.setNonbondedMethod(kinds[variable.periodic])
    force.setCutoffDistance(variable.cutoff)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCHING_START * variable.cutoff)
    return force


def _displacements(variable: BoundVariable, energy: str) -> openmm.CustomExternalForce:
    """A sum over atoms of a function of ``squared``, the squared distance of each from its place."""
    distance = "(x-x0)^2+(y-y0)^2+(z-z0)^2"
    if variable.periodic:
        places = ",".join(f"{axis}0+(box_edge/{variable.edge!r}-1)*{axis}c" for axis in "xyz")
        distance = f"periodicdistance(x,y,z,{places})^2"
    force = openmm.CustomExternalForce(f"{energy};squared={distance}")
    centre = variable.references[0].mean(axis=0).tolist() if variable.periodic else []
    for name in [f"{axis}0" for axis in "xyz"] + [f"{axis}c" for axis in "xyz" if centre]:
        force.addPerParticleParameter(name)
    if variable.periodic:
        force.addGlobalParameter(BOX_EDGE, variable.edge)
    for atom, place in zip(variable.groups[0], variable.references[0].tolist(), strict=True):
        force.addParticle(atom, place + centre)
    return force
