"""Structures along the rearrangement for a student: dynamics by a trained potential, which labels them too.

    python pool.py pool --teacher run/model.safetensors --legs 4 --seed 1     280 frames and 60 s a leg

A harmonic window slides from reactant to product and back, 7 ps each way at 350 K, in a box of TIP3P water;
every 25 fs a frame with the 255 nearest waters. Hydrogens weigh 2 amu, taken from their neighbours, for steps
of 1 fs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

import mlmm
from mlmm.learning.dataset.store import Dataset
from mlmm.reference import Molecule, PointCharges, reference_method

HERE = Path(__file__).parent
ATOMS = 24
COORDINATE = (14, 16, 0, 21)  # C5 O7 C1 C9
SPRING = 100.0 * 418.4  # kJ/mol/nm², 100 kcal/mol/Å²
ENDS = (-0.200, 0.195)  # nm
TEMPERATURE, FRICTION, STEP, BETWEEN, LEG = 350.0, 10.0, 0.001, 25, 7.0  # K, 1/ps, ps, steps, ps
WATERS = 255
HYDROGEN = 2.016  # amu
CHARGES = np.tile([-0.834, 0.417, 0.417], WATERS)


def main() -> None:
    """Sample and label."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="folder of the data set; more is added to one that is there")
    parser.add_argument("--teacher", required=True, help="potential that sees charges, by name or file")
    parser.add_argument("--legs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=float, default=LEG, help="of a leg, ps")
    options = parser.parse_args()
    method = reference_method("potential", potential=options.teacher)
    dataset = Dataset.create(options.set, method.title)
    context, integrator, numbers = start(options.teacher, options.seed)
    frames = max(1, round(options.length / STEP / BETWEEN))
    for leg in range(options.legs):
        begin, end = ENDS[leg % 2], ENDS[1 - leg % 2]
        pairs = []
        for frame in range(frames):
            context.setParameter("centre", begin + (end - begin) * (frame + 1) / frames)
            integrator.step(BETWEEN)
            origin = {"run": f"pool {options.seed}", "window": str(leg), "frame": str(frame)}
            molecule = nearest_waters(context, numbers, origin)
            pairs.append((molecule, method.label(molecule)))
        dataset.append(pairs)
        print(f"leg {leg}: {len(dataset):,} structures", flush=True)


def start(teacher: str, seed: int) -> tuple[openmm.Context, openmm.Integrator, np.ndarray]:
    """The solute near its transition state in relaxed water, its window at the reactant."""
    built = mlmm.build_system(
        HERE / "start.pdb",
        waters="none",
        ligands=["chorismate.xml"],
        padding="0.9 nm",
        nonbonded_cutoff="0.9 nm",
        neutralise=False,
    )
    region = mlmm.select_region(built, "resname CHA")
    positions = relaxed(built, seed)
    hybrid = mlmm.hybrid_system(
        built,
        mlmm.hard_zones(built, region),
        mlmm.load_potential(teacher),
        scheme="additive",
        electrostatics="embedded",
    )
    system = hybrid.system
    window = openmm.CustomCompoundBondForce(4, "0.5*spring*(distance(p1,p2)-distance(p3,p4)-centre)^2")
    window.addGlobalParameter("spring", SPRING)
    window.addGlobalParameter("centre", ENDS[0])
    window.addBond(COORDINATE)
    system.addForce(window)
    numbers = np.array([atom.element.atomic_number for atom in built.topology.atoms()][:ATOMS])
    bonds = [(a.index, b.index) for a, b in built.topology.bonds() if max(a.index, b.index) < ATOMS]
    for a, b in bonds:
        for hydrogen, heavy in ((a, b), (b, a)):
            if numbers[hydrogen] == 1:
                both = system.getParticleMass(hydrogen) + system.getParticleMass(heavy)
                system.setParticleMass(hydrogen, HYDROGEN)
                system.setParticleMass(heavy, both - HYDROGEN * unit.dalton)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, STEP)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(positions)
    context.applyConstraints(1e-6)
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    integrator.step(300)
    return context, integrator, numbers


def relaxed(built: mlmm.BuiltSystem, seed: int) -> openmm.unit.Quantity:
    """Positions with the water moved by the force field around the solute, which stays."""
    system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(built.system))
    for atom in range(ATOMS):
        system.setParticleMass(atom, 0.0)
    for k in reversed(range(system.getNumConstraints())):
        first, second, _ = system.getConstraintParameters(k)
        if min(first, second) < ATOMS:
            system.removeConstraint(k)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, STEP)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 300)
    context.setVelocitiesToTemperature(TEMPERATURE, seed)
    integrator.step(2000)
    return context.getState(positions=True).getPositions(asNumpy=True)


def nearest_waters(context: openmm.Context, numbers: np.ndarray, origin: dict[str, str]) -> Molecule:
    """The solute among the nearest waters, each whole, in its nearest image."""
    state = context.getState(positions=True)
    places = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    box = np.diag(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
    solute, waters = places[:ATOMS], places[ATOMS:].reshape(-1, 3, 3)
    middle = solute.mean(axis=0)
    waters = waters - (np.round((waters[:, 0] - middle) / box) * box)[:, None]
    near = np.sort(np.argsort(np.linalg.norm(waters[:, 0] - middle, axis=1))[:WATERS])
    around = PointCharges(waters[near].reshape(-1, 3), CHARGES)
    return Molecule(numbers, np.array(solute), -2, external=around, origin=origin)


if __name__ == "__main__":
    main()
