"""Labels by GFN2-xTB, a potential trained on them, its errors, and what it says of its own error.

python examples/04_train_a_potential.py [--quick] [--out runs/training]       five minutes; --quick: seconds
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from mlmm.cli import main
from mlmm.learning.dataset.store import Dataset
from mlmm.potentials import committee_spread, energy_and_forces, load_potential
from mlmm.reference.labels import Label, Molecule
from mlmm.structures import Structure

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few labels and epochs")
parser.add_argument("--out", default="runs/training")
options = parser.parse_args()
out = Path(options.out)
labels, epochs = (40, 3) if options.quick else (300, 150)

# Ethanol, nm, shaken: for a molecule of your own take frames of a run at the temperature of interest.
numbers = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
heavy = [-1.17, -0.38, 0.00], [0.10, 0.45, 0.00], [1.20, -0.45, 0.00]
methyl = [-1.20, -1.02, 0.88], [-1.20, -1.02, -0.88], [-2.05, 0.27, 0.00]
rest = 0.1 * np.array([*heavy, *methyl, [0.13, 1.10, 0.88], [0.13, 1.10, -0.88], [2.02, 0.06, 0.00]])
gfn2 = load_potential("tblite:GFN2-xTB")
random, dataset = np.random.default_rng(1), Dataset.create(out / "labels", "GFN2-xTB")
for k in range(len(dataset), labels):
    places = rest + 0.003 * random.standard_normal(rest.shape)
    molecule = Molecule(numbers, places, origin={"window": str(10 * k // labels)})
    energy, forces = gfn2.own_energy_and_forces(Structure(torch.tensor(numbers), torch.tensor(places)))
    dataset.append([(molecule, Label(energy, forces.numpy(), method="GFN2-xTB"))])

# Four networks of ANI-1x, fine-tuned; a fifth of the labels is held out. The same as mlmm train in a shell.
(out / "train.toml").write_text(
    f'[data]\nlabels = "labels"\n[networks]\nmembers = 4\n[fit]\nepochs = {epochs}\n'
)
status = main(["train", str(out / "train.toml"), "--out", str(out / "model"), "--overwrite"])
assert status == 0

# The file is a potential like any other: in mlmm.hybrid_system, in [potential] of a run file, in ASE.
model = load_potential(str(out / "model/model.safetensors"))
structure = Structure(torch.tensor(numbers), torch.tensor(rest))
energy, forces = energy_and_forces(model, structure)
spread = committee_spread(model, structure).forces.numpy()
print(f"{energy:.1f} kJ/mol without isolated atoms, largest force {forces.norm(dim=1).max():.0f} kJ/mol/nm")
if model.spec.calibration is not None:
    error = model.spec.calibration.deviation(spread)
    print(f"expected error of a force, kJ/mol/nm: {error.min():.0f} to {error.max():.0f}")
