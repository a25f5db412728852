"""Bonded energies that a run on a GPU takes from the processor: those of one platform, and no others."""

from __future__ import annotations

import contextlib

import numpy as np
import openmm
import pytest
from runs import chain_hybrid
from test_energy_rows import STAGES, moving
from test_restraints_in_runs import RESTRAINTS, SMALL
from toys import chains

from mlmm.dynamics.bonded_energies import BondedEnergies
from mlmm.dynamics.integrators import energy_groups
from mlmm.dynamics.moments import fetch
from mlmm.dynamics.reporters import EnergyTable

BOX = 2.4 * np.array([[1.0, 0, 0], [0.2, 1.0, 0], [-0.3, 0.1, 0.9]])
KINDS = {"nonbonded": {0, 6}, "bonds": {1}, "angles": {2}, "torsions": {3}, "other": {4}, "bias": {7}}


def every_bonded_force() -> openmm.System:
    """Chains with one term of each further kind across the box, a virtual site, and a force of a bias."""
    system = chains(n_molecules=3).system
    site = system.addParticle(0.0)
    system.setVirtualSite(site, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    rb, custom_bond = openmm.RBTorsionForce(), openmm.CustomBondForce("k*(r-0.1)^4")
    rb.addTorsion(0, 1, 2, 7, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    custom_bond.addPerBondParameter("k")
    custom_bond.addBond(site, 9, [30.0])
    angle, torsion = openmm.CustomAngleForce("3*theta^2"), openmm.CustomTorsionForce("2*cos(theta-0.4)")
    angle.addAngle(0, 5, 10, [])
    torsion.addTorsion(0, 4, 8, 11, [])
    compound = openmm.CustomCompoundBondForce(3, "distance(p1,p2)*angle(p1,p2,p3)")
    compound.addBond([1, 6, 10], [])
    cmap = openmm.CMAPTorsionForce()
    cmap.addMap(4, np.random.default_rng(3).normal(size=16))
    cmap.addTorsion(0, 0, 1, 2, 3, 1, 2, 3, 5)
    for force in (rb, custom_bond, angle, torsion, compound, cmap):
        force.setUsesPeriodicBoundaryConditions(True)
        force.setForceGroup(4)
        system.addForce(force)
    bias = openmm.CustomBondForce("k*r")
    bias.addGlobalParameter("k", 2.0)
    bias.addBond(0, 5, [])
    bias.setForceGroup(7)
    system.addForce(bias)
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.addParticle(0.0, 0.3, 0.0)
    for group, kind in enumerate(("NonbondedForce", "HarmonicBond", "HarmonicAngle", "PeriodicTorsion")):
        for force in system.getForces():
            if force.getName().startswith(kind):
                force.setForceGroup(group)
                if group:
                    force.setUsesPeriodicBoundaryConditions(True)
    return system


def as_one(system: openmm.System, positions: np.ndarray, box: np.ndarray | None) -> dict[str, float]:
    """The energies in a Context of the whole System, and where its virtual sites are."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    if box is not None:
        context.setPeriodicBoxVectors(*box)
    context.setPositions(positions)
    context.computeVirtualSites()
    positions[:] = context.getState(positions=True).getPositions(asNumpy=True)._value
    found = {}
    for name, groups in KINDS.items():
        found[name] = context.getState(energy=True, groups=groups).getPotentialEnergy()._value
    return found


def test_energies_are_those_of_one_platform():
    """All kinds of forces, in a box that has changed; without one force, or in the old box, they differ."""
    system = every_bonded_force()
    bonded = BondedEnergies(system, KINDS)
    assert bonded.names == ("bonds", "angles", "torsions", "other")
    positions = np.random.default_rng(1).uniform(0, 2.0, (system.getNumParticles(), 3))
    expected = as_one(system, positions, BOX)
    found = bonded(positions, BOX)
    for name in bonded.names:
        assert abs(expected[name]) > 1.0
        assert found[name] == pytest.approx(expected[name], rel=1e-9), name
    assert as_one(system, positions, None)["other"] != pytest.approx(expected["other"], rel=1e-6)
    left_out = next(k for k, force in enumerate(system.getForces()) if "CMAP" in force.getName())
    system.removeForce(left_out)
    fewer = BondedEnergies(system, KINDS)(positions, BOX)
    assert fewer["other"] != pytest.approx(expected["other"], rel=1e-6)
    assert fewer["bonds"] == found["bonds"]


@pytest.mark.parametrize("added", ["parameter", "external", "nonbonded"])
def test_a_kind_with_one_uncertain_force_stays_on_the_device(added):
    system = chains(box=None).system
    for group, force in enumerate(system.getForces()):
        force.setForceGroup((1, 2, 3, 0)[group])
    assert BondedEnergies(system, KINDS).names == ("bonds", "angles", "torsions")
    force = {
        "parameter": lambda: openmm.CustomBondForce("k*r"),
        "external": lambda: openmm.CustomExternalForce("x"),
        "nonbonded": lambda: openmm.CustomNonbondedForce("r"),
    }[added]()
    if added == "parameter":
        force.addGlobalParameter("k", 1.0)
    if added == "nonbonded":
        for _ in range(system.getNumParticles()):
            force.addParticle([])
    force.setForceGroup(2)
    system.addForce(force)
    assert BondedEnergies(system, KINDS).names == ("bonds", "torsions")


def test_nothing_bonded_is_no_energy():
    system = openmm.System()
    system.addParticle(1.0)
    assert BondedEnergies(system, KINDS)(np.zeros((1, 3)), None) == {}


@pytest.fixture(scope="module")
def hybrid():
    return chain_hybrid(**SMALL).restrained(RESTRAINTS)


def rows(path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", STAGES)
def test_a_row_beside_a_run_is_that_of_the_device(tmp_path, kind, hybrid):
    """Every column to 1e-9, by each integrator; the bonded energies of a step later are others."""
    context = moving(kind, hybrid)
    for beside in (False, True):
        path = tmp_path / f"{beside}.csv"
        with contextlib.closing(EnergyTable(path, hybrid, beside=beside)) as table:
            table.write("produce", 6, 0.003, table.moment(context))
    names, usual = rows(tmp_path / "False.csv")
    found = rows(tmp_path / "True.csv")[1]
    for name, one, other in zip(names, usual, found, strict=True):
        if name.startswith(("E_", "potential", "kinetic", "total", "temperature")):
            assert float(one) == pytest.approx(float(other), rel=1e-9), name
        else:
            assert one == other, name
    groups = {name: energy_groups(name, group) for name, group in hybrid.force_groups.items()}
    bonded = BondedEnergies(hybrid.system, groups)
    assert {"bonds", "angles", "torsions"} == set(bonded.names)
    context.getIntegrator().step(1)
    later = fetch(context, True)
    for name, value in bonded(later.positions, later.box).items():
        assert value != pytest.approx(float(usual[names.index(f"E_{name}")]), rel=1e-6)
