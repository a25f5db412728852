"""From a PDB file to ML/MM dynamics and a report: alanine dipeptide in ANI-1x, in water.

python examples/01_dipeptide_in_water.py [--quick] [--out DIR]
"""

import argparse
from pathlib import Path

import mlmm

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--quick", action="store_true", help="a small box and a few steps")
parser.add_argument("--out", default="runs/example_01", help="run directory")
options = parser.parse_args()

pdb = Path(__file__).parent.parent / "systems/alanine_dipeptide/input.pdb"
built = mlmm.build_system(
    pdb,
    padding="0.5 nm" if options.quick else "1.0 nm",
    nonbonded_cutoff="0.9 nm",
    constraints="none",
    rigid_water=False,
)
print(f"{built.n_atoms} atoms; {'; '.join(built.provenance['decisions'])}")

region = mlmm.select_region(built, "resname ACE ALA NME")
potential = mlmm.load_potential("ani1x")
hybrid = mlmm.hybrid_system(built, mlmm.hard_zones(built, region), potential, scheme="additive")
print(f"{len(region)} atoms in {potential.spec.name} ({hybrid.bridge}); left MM: {hybrid.removed.counts}")

energies = hybrid.region_energies(built.positions)
print(f"region: {float(energies.energies.sum()):.1f} ± {float(energies.total_spread):.1f} kJ/mol (committee)")

length = "0.02 ps" if options.quick else "2 ps"
run = mlmm.simulate(
    hybrid,
    options.out,
    [mlmm.Minimise(max_iterations=50), mlmm.Equilibrate(length), mlmm.Produce(length), mlmm.NVECheck(length)],
    seed=7,
    report_interval=10,
    overwrite=True,
    progress=lambda now: print(f"{now.stage} {now.done}/{now.total}"),
)
print(f"report: {mlmm.write_report(run.path)}")
