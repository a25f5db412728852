"""Interaction energies of solutes with water: DFT among point charges against every level of embedding.

    python -m benchmarks.solute_water frames FILE [SOLUTE …]   molecular dynamics, TIP3P; droplets of 0.6 nm
    python -m benchmarks.solute_water windows FILE SET         chorismate along its reaction, see below
    python -m benchmarks.solute_water dft FILE        energies that FILE lacks, one by one, written at once
    python -m benchmarks.solute_water other FILE SOLUTE NAME MODEL   energies of a model that is not shipped,
                                                      or with MODEL "gfn2" of GFN2-xTB: kept in FILE
    python -m benchmarks.solute_water table FILE      mean absolute errors

run in `tests/`. The energy is that of the solute in the charges less that of the solute alone, at one
geometry: Coulomb's law and polarisation, without Lennard-Jones. `tests/validation/solute_water.json` is the
FILE of the guide's table. SET is the data set of `systems/chorismate_water/sample.py`; the frames are two of
each window that the trainings there do not see, from chorismate over the transition state to prephenate.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mlmm.reference.labels import Molecule, PointCharges
from mlmm.units import HARTREE

SOLUTES = {
    "acetate": ("CC(=O)[O-]", 62),
    "methylammonium": ("C[NH3+]", 62),
    "N-methylacetamide": ("CC(=O)NC", 64),
}
HIDDEN_WINDOWS, WINDOW_FRAMES = (1, 3, 5, 7, 9, 11), (19, 39)
METHOD = "RKS wB97X-D3BJ/6-31+G*, density fitting, grids level 2, conv_tol 1e-7, bare point charges"
RADIUS, SPACING, TIMESTEP, EQUILIBRATION = 0.6, 2.0, 2e-3, 5.0  # nm, ps
_SOLUTE_UNIT, _WATER_UNIT = 1e-4, 1e-3  # nm; integers in the file
LEVELS = ("force field", "fixed AMP-BMS charges", "predicted charges", "AMP-BMS 0.35", "AMP-BMS 1.0")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"about": {}, "solutes": {}}


def write(path: Path, data: dict) -> None:
    """Whole or not at all: a run that is stopped loses nothing."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(data, separators=(",", ":")).replace('},{"x"', '},\n{"x"') + "\n")
    os.replace(beside, path)


def make_frames(name: str, progress=print) -> dict:
    """Solute and the waters within `RADIUS` of it, in frames of one run at 300 K."""
    import openmm
    from openmm import unit

    from mlmm.build import build_system
    from mlmm.electrostatics.fixed_charges import read_charges
    from mlmm.neighbours import minimum_images

    smiles, count = SOLUTES[name]
    built = build_system(smiles=smiles, padding="0.9 nm", nonbonded_cutoff="0.9 nm", constraints="hbonds")
    residues = list(built.topology.residues())
    solute = [atom.index for atom in residues[0].atoms()]
    charge = read_charges(built.system).charge
    integrator = openmm.LangevinMiddleIntegrator(300.0 * unit.kelvin, 1.0 / unit.picosecond, TIMESTEP)
    integrator.setRandomNumberSeed(7)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(built.system, integrator, platform, {"Threads": "1"})
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=200)
    context.setVelocitiesToTemperature(300.0 * unit.kelvin, 7)
    integrator.step(round(EQUILIBRATION / TIMESTEP))
    water = next([a.index for a in r.atoms()] for r in residues[1:] if len(list(r.atoms())) == 3)
    frames = []
    for k in range(count):
        integrator.step(round(SPACING / TIMESTEP))
        state = context.getState(positions=True)
        where = state.getPositions(asNumpy=True)._value
        cell = state.getPeriodicBoxVectors(asNumpy=True)._value
        inside = where[solute[0]] + minimum_images(where[solute] - where[solute[0]], cell)
        waters, ions, ion_charges = [], [], []
        for residue in residues[1:]:
            members = [atom.index for atom in residue.atoms()]
            first = inside.mean(0) + minimum_images(where[members[0]] - inside.mean(0), cell)
            if np.linalg.norm(inside - first, axis=1).min() > RADIUS:
                continue
            places = first + minimum_images(where[members] - where[members[0]], cell)
            if len(members) == 3:
                waters.append(places)
            else:
                ions.append(places)
                ion_charges += charge[members].tolist()
        sources = np.concatenate([*waters, *ions])
        frames.append(
            {
                "x": np.rint(inside / _SOLUTE_UNIT).astype(int).ravel().tolist(),
                "sources": np.rint(sources / _WATER_UNIT).astype(int).ravel().tolist(),
                "ions": ion_charges,
            }
        )
        progress(f"{name}: frame {k + 1} of {count}, {len(waters)} waters")
    return {
        "smiles": smiles,
        "charge": round(float(charge[solute].sum())),
        "numbers": [int(z) for z in built.numbers[solute]],
        "fixed_charges": [round(float(q), 6) for q in charge[solute]],
        "water_charges": [float(q) for q in charge[water]],
        "frames": frames,
    }


def frames_of_windows(folder: Path) -> dict:
    """Chorismate among the waters within `RADIUS` of it, in frames of QM/MM dynamics along its reaction."""
    from xml.etree import ElementTree

    from mlmm.learning.dataset.store import Dataset

    root = Path(__file__).parents[2]
    residue = ElementTree.parse(root / "forcefields/chorismate.xml").find("Residues/Residue")
    charges = {atom.get("name"): float(atom.get("charge")) for atom in residue.iterfind("Atom")}
    lines = (root / "systems/chorismate_water/start.pdb").read_text().splitlines()
    names = [line[12:16].strip() for line in lines if line[17:20] == "CHA"]
    found, frames = {}, []
    for molecule, _ in Dataset(folder):
        found[molecule.origin["window"], molecule.origin["frame"]] = molecule
    # Window by window, so that a stopped run covers the reaction.
    for frame in WINDOW_FRAMES:
        for window in HIDDEN_WINDOWS:
            molecule = found[str(window), str(frame)]
            waters = molecule.external.positions.reshape(-1, 3, 3)
            apart = np.linalg.norm(waters[:, :1] - molecule.positions[None], axis=2).min(1)
            frames.append(
                {
                    "x": np.rint(molecule.positions / _SOLUTE_UNIT).astype(int).ravel().tolist(),
                    "sources": np.rint(waters[apart < RADIUS] / _WATER_UNIT).astype(int).ravel().tolist(),
                    "ions": [],
                    "window": window,
                }
            )
    return {
        "smiles": "C=C(C(=O)[O-])O[C@@H]1C=C(C=C[C@H]1O)C(=O)[O-]",
        "charge": molecule.charge,
        "numbers": [int(z) for z in molecule.numbers],
        "fixed_charges": [round(charges[name], 6) for name in names],
        "water_charges": molecule.external.charges[:3].tolist(),
        "frames": frames,
    }


def molecules(solute: dict) -> list[Molecule]:
    """Frames of a solute among charges."""
    found = []
    for frame in solute["frames"]:
        places = _WATER_UNIT * np.array(frame["sources"], dtype=float).reshape(-1, 3)
        n_waters = (len(places) - len(frame["ions"])) // 3
        charges = np.array([*(solute["water_charges"] * n_waters), *frame["ions"]])
        positions = _SOLUTE_UNIT * np.array(frame["x"], dtype=float).reshape(-1, 3)
        around = PointCharges(places, charges)
        found.append(Molecule(solute["numbers"], positions, solute["charge"], external=around))
    return found


def dft_energies(molecule: Molecule) -> dict[str, float]:
    """Total energies in the charges, without that of these among themselves, and in vacuum, Hartree.

    Empty where a self-consistent field did not converge.
    """
    from pyscf import dft, gto, qmmm

    atoms = [(int(z), tuple(10 * x)) for z, x in zip(molecule.numbers, molecule.positions, strict=True)]
    mol = gto.M(atom=atoms, charge=molecule.charge, basis="6-31+g*", verbose=0, unit="Angstrom")

    def field(charges: bool):
        mean_field = dft.RKS(mol, xc="wb97x-d3bj").density_fit()
        mean_field.grids.level, mean_field.conv_tol = 2, 1e-7
        if charges:
            around = molecule.external
            mean_field = qmmm.mm_charge(mean_field, 10 * around.positions, around.charges)
        return mean_field

    polarised, vacuum = field(True), field(False)
    energies = {"in_charges": float(polarised.kernel())}
    energies["vacuum"] = float(vacuum.kernel(dm0=polarised.make_rdm1()))
    return energies if polarised.converged and vacuum.converged else {}


def label(path: Path, progress=print) -> None:
    """Energies that the file lacks; it is written after each."""
    data = read(path)
    data["about"] |= {
        "method": METHOD,
        "unit": "Hartree, without the energy of the charges among themselves",
        "programs": {name: version(name) for name in ("pyscf", "pyscf-dispersion", "openmm")},
        "frames": f"TIP3P, 300 K, every {SPACING:g} ps; waters and ions within {RADIUS:g} nm of the solute; "
        "x in 1e-4 nm, sources in 1e-3 nm, O H H of each water first, then ions",
    }
    # Frame by frame through all solutes, so that a stopped run is balanced.
    for k in range(max(len(s["frames"]) for s in data["solutes"].values())):
        for name, solute in data["solutes"].items():
            if k >= len(solute["frames"]) or "in_charges" in solute["frames"][k]:
                continue
            molecule, begin = molecules(solute)[k], time.process_time()
            energies = dft_energies(molecule)
            if not energies:
                progress(f"{name} {k}: the self-consistent field did not converge; left out")
                continue
            solute["frames"][k] |= energies | {"cpu_s": round(time.process_time() - begin, 1)}
            write(path, data)
            shift = (energies["in_charges"] - energies["vacuum"]) * HARTREE / 4.184
            progress(f"{name} {k}: {shift:.2f} kcal/mol, {solute['frames'][k]['cpu_s']} s")


def interactions(solute: dict) -> tuple[np.ndarray, np.ndarray]:
    """Energies of a solute with the charges by DFT (F,), and by each of `LEVELS` (F, L), kJ/mol."""
    import torch

    import mlmm
    from mlmm.potentials.amp_bms.potential import AMPPotential
    from mlmm.potentials.multipoles import potential_of_charges

    weights = Path(mlmm.__file__).parent / "data/amp_bms.safetensors"
    models = {
        scaling: AMPPotential.from_file(weights, precision="float64", polarisation_scaling=scaling)
        for scaling in (0.35, 1.0)
    }
    frames = [
        (molecule, frame)
        for molecule, frame in zip(molecules(solute), solute["frames"], strict=True)
        if "in_charges" in frame
    ]
    exact = HARTREE * np.array([frame["in_charges"] - frame["vacuum"] for _, frame in frames])
    alone = [dataclasses.replace(molecule, external=None).structure() for molecule, _ in frames]
    vacuum = {key: [model.atom_energies(s) for s in alone] for key, model in models.items()}
    # Charges that the model would give to a force field: of the first frame.
    fixed = {"force field": torch.tensor(solute["fixed_charges"], dtype=torch.float64)}
    fixed["fixed AMP-BMS charges"] = vacuum[0.35][0].charges
    found = []
    for k, (molecule, _) in enumerate(frames):
        structure = molecule.structure()
        around = structure.external
        vectors = around.positions.unsqueeze(0) - structure.positions.unsqueeze(1)
        potential = potential_of_charges(vectors, around.charges)[0]
        row = [float(charges @ potential) for charges in fixed.values()]
        row.append(float(vacuum[0.35][k].charges @ potential))
        for key, model in models.items():
            energy = model.atom_energies(structure).energies.sum() - vacuum[key][k].energies.sum()
            row.append(float(energy))
        found.append(row)
    return exact, np.array(found)


def other_energies(solute: dict, model: str) -> dict:
    """Energies of the frames with the charges by a model of `mlmm train` or by GFN2-xTB, and its facts."""
    from mlmm.potentials import load_potential
    from mlmm.potentials.trained_files import learned_facts
    from mlmm.reference.xtb import XTB

    method = XTB() if model == "gfn2" else load_potential(model, precision="float64")

    def energy(molecule: Molecule) -> float:
        if model == "gfn2":
            return method.label(molecule).energy
        return float(method.atom_energies(molecule.structure()).energies.double().sum())

    values = [energy(m) - energy(dataclasses.replace(m, external=None)) for m in molecules(solute)]
    facts = {"title": method.title} if model == "gfn2" else method_facts(learned_facts(Path(model)))
    return {"unit": "kJ/mol", "values": [round(value, 3) for value in values], "about": facts}


def method_facts(facts: dict) -> dict:
    """Of a trained file: kind, level of theory, how it was trained."""
    ((kind, about),) = facts.items()
    chosen = {key: about[key] for key in ("name", "level_of_theory") if key in about}
    training = {k: v for k, v in about.get("training", {}).items() if isinstance(v, (str, int, float))}
    return {"kind": kind, **chosen, "training": training}


def other_errors(solute: dict) -> dict[str, np.ndarray]:
    """Errors of `other_energies` against DFT in the frames that have it, kcal/mol, by name."""
    known = [k for k, frame in enumerate(solute["frames"]) if "in_charges" in frame]
    exact = np.array(
        [HARTREE * (f["in_charges"] - f["vacuum"]) for f in map(solute["frames"].__getitem__, known)]
    )
    others = solute.get("others", {})
    return {name: (np.array(entry["values"])[known] - exact) / 4.184 for name, entry in others.items()}


def table(data: dict) -> str:
    """Mean absolute errors and mean errors, kcal/mol."""
    lines = ["| solute | frames | DFT | " + " | ".join(LEVELS) + " |", "|---" * (3 + len(LEVELS)) + "|"]
    for name, solute in data["solutes"].items():
        exact, found = interactions(solute)
        errors = (found - exact[:, None]) / 4.184
        cells = [f"{np.abs(e).mean():.1f} ({e.mean():+.1f})" for e in errors.T]
        spread = f"{exact.mean() / 4.184:.1f} ± {exact.std() / 4.184:.1f}"
        lines.append(f"| {name} | {len(exact)} | {spread} | " + " | ".join(cells) + " |")
        for other, e in other_errors(solute).items():
            lines.append(f"{name}, {other}: {np.abs(e).mean():.1f} ({e.mean():+.1f}), spread {e.std():.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    command, file = sys.argv[1], Path(sys.argv[2])
    if command == "frames":
        everything = read(file)
        for solute_name in sys.argv[3:] or SOLUTES:
            if solute_name not in everything["solutes"]:
                everything["solutes"][solute_name] = make_frames(solute_name)
                write(file, everything)
    elif command == "windows":
        everything = read(file)
        everything["solutes"]["chorismate"] = frames_of_windows(Path(sys.argv[3]))
        write(file, everything)
    elif command == "other":
        everything, (solute_name, called, model) = read(file), sys.argv[3:6]
        entry = everything["solutes"][solute_name]
        entry.setdefault("others", {})[called] = other_energies(entry, model)
        write(file, everything)
    elif command == "dft":
        label(file)
    else:
        print(table(read(file)))
