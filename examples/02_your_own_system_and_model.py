"""Plain OpenMM: your own System, your own model, your own Simulation; mlmm only joins them.

python examples/02_your_own_system_and_model.py [--quick]
"""

import argparse
import sys

import openmm
import torch
from openmm import app, unit

import mlmm


class MorsePairs:
    """A model is any object with `spec` and `atom_energies(structure)`: here Morse bonds of all pairs."""

    spec = mlmm.PotentialSpec(
        name="Morse pairs", elements=(1, 8), cutoff=0.3, receptive_field=0.3, trained_on="isolated"
    )
    depth, width = 400.0, 22.0  # kJ/mol, 1/nm

    def atom_energies(self, structure: mlmm.Structure) -> mlmm.AtomEnergies:
        mlmm.potentials.check_state(self.spec, structure)
        first, second = torch.triu_indices(len(structure), len(structure), offset=1)
        distance = (structure.positions[first] - structure.positions[second]).norm(dim=1)
        # O-H bonds at 0.096 nm, the H-H distance at 0.152 nm; half of each pair belongs to either atom.
        rest = torch.where(structure.numbers[first] == structure.numbers[second], 0.152, 0.096)
        pair = self.depth * (1 - torch.exp(-self.width * (distance - rest))) ** 2
        energies = torch.zeros(len(structure), dtype=torch.float64)
        return mlmm.AtomEnergies(energies.index_add(0, first, pair / 2).index_add(0, second, pair / 2))


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--quick", action="store_true", help="a few steps")
steps = 20 if parser.parse_args().quick else 2000

force_field = app.ForceField("amber14/tip3p.xml")
modeller = app.Modeller(app.Topology(), [] * unit.nanometer)
modeller.addSolvent(force_field, boxSize=openmm.Vec3(2.0, 2.0, 2.0) * unit.nanometer)
system = force_field.createSystem(
    modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
)

built = mlmm.BuiltSystem.from_openmm(modeller.topology, system, modeller.positions)
region = mlmm.select_region(built, "resSeq 1 and water")
hybrid = mlmm.hybrid_system(built, mlmm.hard_zones(built, region), MorsePairs())

integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.0005)
# Name the platform: left alone, OpenMM may take OpenCL, where no TorchForce works. On such a GPU: "CUDA".
platform = openmm.Platform.getPlatformByName("CPU")
simulation = app.Simulation(modeller.topology, hybrid.system, integrator, platform)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=50)
simulation.reporters.append(
    app.StateDataReporter(sys.stdout, max(1, steps // 10), step=True, temperature=True)
)
simulation.step(steps)
