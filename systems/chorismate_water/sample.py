"""Labels of chorismate(2-) in water along its Claisen rearrangement: QM/MM dynamics in umbrella windows.

GFN2-xTB for chorismate among the true point charges of 255 TIP3P waters, Lennard-Jones by GAFF2, 350 K; the
coordinate is C5–O7 (breaking) minus C1–C9 (forming). Windows are visited from the transition state outwards,
each from the last frame of the one before. Every frame is stored with energy, forces, forces on the charges.

    python sample.py SET --side reactant        # windows -0.2 to -1.8 Å, about 200 s of one idle core
    python sample.py SET --side product         # windows  0.1 to  1.7 Å
    python sample.py SET --side top             # -0.40 and 0.13 Å, stiffer, where others slide away
"""

from __future__ import annotations

import argparse
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openmm
from openmm import app, unit

from mlmm.learning.dataset.store import Dataset
from mlmm.reference.labels import Molecule, PointCharges
from mlmm.reference.xtb import XTB

HERE = Path(__file__).parent
PARAMETERS = HERE.parent.parent / "forcefields" / "chorismate.xml"
KCAL = 418.4  # kcal/mol/Å² in kJ/mol/nm²
CENTRES = np.linspace(-0.18, 0.17, 12)  # nm
#: Window, centre in nm and spring constant in kcal/mol/Å² of each side, in the order of the visits.
SIDES = {
    "reactant": [(k, CENTRES[k], 100.0) for k in range(5, -1, -1)],
    "product": [(k, CENTRES[k], 100.0) for k in range(6, 12)],
    "top": [(100, -0.040, 250.0), (101, 0.013, 200.0)],
}
TEMPERATURE, FRICTION, STEP = 350.0, 5.0, 0.0005  # K, 1/ps, ps
DRAG, SETTLE, BETWEEN, FRAMES = 300, 300, 40, 40  # steps; frames of a window


def main() -> None:
    """Sample the windows of one side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="folder of the data set; more is added to one that is there")
    parser.add_argument("--side", choices=list(SIDES), required=True)
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each window")
    options = parser.parse_args()
    method = XTB()
    dataset = Dataset.create(options.set, method.title)
    solute = Solute(method)
    context, integrator = solute.context(seed=11 + list(SIDES).index(options.side))
    before = SIDES[options.side][0][1]
    for window, centre, spring in SIDES[options.side]:
        context.setParameter("spring", spring * KCAL)
        for share in np.linspace(0.05, 1.0, 20):
            context.setParameter("centre", before + share * (centre - before))
            integrator.step(DRAG // 20)
        integrator.step(SETTLE)
        pairs = []
        for frame in range(options.frames):
            integrator.step(BETWEEN)
            positions = context.getState(positions=True).getPositions(asNumpy=True)
            origin = {"run": options.side, "window": str(window), "frame": str(frame)}
            molecule = solute.molecule(positions.value_in_unit(unit.nanometer), origin)
            pairs.append((molecule, method.label(molecule)))
        dataset.append(pairs)
        values = [solute.coordinate(molecule.positions) for molecule, _ in pairs]
        print(f"window {window}: {10 * np.mean(values):+.2f} ± {10 * np.std(values):.2f} Å", flush=True)
        before = centre


class Solute:
    """Chorismate by a reference method in its droplet.

    Parameters
    ----------
    method : XTB
    """

    def __init__(self, method: XTB):
        self.method = method
        pdb = app.PDBFile(str(HERE / "start.pdb"))
        forcefield = app.ForceField("amber14/tip3p.xml", str(PARAMETERS))
        topology = pdb.topology
        chorismate = next(residue for residue in topology.residues() if residue.name == "CHA")
        atoms = {atom.name: atom.index for atom in chorismate.atoms()}
        # Bonds by name: a PDB file has none for this residue.
        handles = {atom.name: atom for atom in chorismate.atoms()}
        for bond in ElementTree.parse(PARAMETERS).iterfind("Residues/Residue/Bond"):
            topology.addBond(handles[bond.get("atomName1")], handles[bond.get("atomName2")])
        self.count = len(atoms)
        self.numbers = [atom.element.atomic_number for atom in chorismate.atoms()]
        self.pairs = [(atoms["C5"], atoms["O7"]), (atoms["C1"], atoms["C9"])]
        self.start = np.array(pdb.positions.value_in_unit(unit.nanometer))
        system = forcefield.createSystem(topology, nonbondedMethod=app.NoCutoff, rigidWater=True)
        self.charges = self._alone(system)
        self.system = system

    def _alone(self, system: openmm.System) -> np.ndarray:
        """Take from the force field what the reference method describes; returns the charges of the water."""
        inside = range(self.count)
        charges = []
        for k in reversed(range(system.getNumForces())):
            force = system.getForce(k)
            if isinstance(force, openmm.NonbondedForce):
                for i in range(system.getNumParticles()):
                    charge, sigma, epsilon = force.getParticleParameters(i)
                    if i in inside:
                        force.setParticleParameters(i, 0.0, sigma, epsilon)
                    else:
                        charges.append(charge.value_in_unit(unit.elementary_charge))
                for i in inside:
                    for j in range(i):
                        force.addException(i, j, 0.0, 0.1, 0.0, True)
            else:
                system.removeForce(k)  # bonded terms; the water is rigid
        wall = openmm.CustomExternalForce("4000*max(0, sqrt(x^2+y^2+z^2) - 1.35)^2")
        for i in range(self.count, system.getNumParticles(), 3):
            wall.addParticle(i, [])
        middle = openmm.CustomCentroidBondForce(1, "2500*(x1^2+y1^2+z1^2)")
        middle.addGroup(list(inside))
        middle.addBond([0], [])
        bias = openmm.CustomCompoundBondForce(4, "0.5*spring*(distance(p1,p2) - distance(p3,p4) - centre)^2")
        bias.addGlobalParameter("spring", 100.0 * KCAL)
        bias.addGlobalParameter("centre", -0.02)
        bias.addBond([i for pair in self.pairs for i in pair], [])
        for force in (wall, middle, bias, openmm.PythonForce(self._forces)):
            system.addForce(force)
        return np.array(charges)

    def molecule(self, positions: np.ndarray, origin: dict[str, str]) -> Molecule:
        """Chorismate among the charges of the water."""
        positions = np.asarray(positions, dtype=np.float64)
        around = PointCharges(positions[self.count :], self.charges)
        return Molecule(np.array(self.numbers), positions[: self.count], -2, 1, around, origin)

    def coordinate(self, positions: np.ndarray) -> float:
        """Breaking minus forming bond, nm."""
        breaking, forming = (np.linalg.norm(positions[i] - positions[j]) for i, j in self.pairs)
        return float(breaking - forming)

    def _forces(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        label = self.method.label(self.molecule(positions, {}))
        return label.energy, np.vstack([label.forces, label.external_forces])

    def context(self, seed: int) -> tuple[openmm.Context, openmm.Integrator]:
        """Relaxed for 75 fs with strong friction."""
        integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 50.0, STEP)
        integrator.setRandomNumberSeed(seed)
        platform = openmm.Platform.getPlatformByName("CPU")
        context = openmm.Context(self.system, integrator, platform, {"Threads": "1"})
        context.setPositions(self.start)
        context.applyConstraints(1e-6)
        context.setVelocitiesToTemperature(TEMPERATURE, seed)
        integrator.step(150)
        integrator.setFriction(FRICTION)
        return context, integrator


if __name__ == "__main__":
    main()
