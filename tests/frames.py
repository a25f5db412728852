"""Run directories with frames, made without a simulation: a peptide, a ligand, waters, a box."""

from __future__ import annotations

import json

import mdtraj
import numpy as np
from openmm import app, unit

from mlmm.build.topology_json import topology_to_dict

STEP, INTERVAL = 0.001, 10  # ps, steps


def make_topology(residues: int = 6, waters: int = 12) -> app.Topology:
    """A chain of alanines without hydrogens, a ligand of three carbons, waters."""
    topology = app.Topology()
    chain, last = topology.addChain(), None
    for _ in range(residues):
        residue = topology.addResidue("ALA", chain)
        atoms = {
            name: topology.addAtom(name, app.Element.getBySymbol(name[0]), residue)
            for name in ("N", "CA", "C", "O", "CB")
        }
        for pair in (("N", "CA"), ("CA", "C"), ("C", "O"), ("CA", "CB")):
            topology.addBond(*(atoms[name] for name in pair))
        if last is not None:
            topology.addBond(last, atoms["N"])
        last = atoms["C"]
    ligand = topology.addResidue("LIG", topology.addChain())
    carbons = [topology.addAtom(f"C{k}", app.element.carbon, ligand) for k in (1, 2, 3)]
    for pair in ((0, 1), (1, 2)):
        topology.addBond(*(carbons[k] for k in pair))
    chain = topology.addChain()
    for _ in range(waters):
        water = topology.addResidue("HOH", chain)
        oxygen = topology.addAtom("O", app.element.oxygen, water)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, water))
    return topology


def start_positions(topology: app.Topology) -> np.ndarray:
    """Places (N, 3) in nm: a bent chain, the ligand above its middle, waters in a column above that."""
    places = []
    for residue_number, residue in enumerate(topology.residues()):
        if residue.name == "ALA":
            k = residue_number
            base = np.array([0.34 * k, 0.09 * (-1) ** k, 0.03 * k * k])
            offsets = [(0, 0, 0), (0.12, 0.08, 0), (0.24, 0, 0), (0.24, -0.12, 0.02), (0.12, 0.16, 0.13)]
        elif residue.name == "LIG":
            base, offsets = np.array([1.0, 0.1, 1.3]), [(0, 0, 0), (0.13, 0.08, 0), (0.26, 0, 0)]
        else:
            base = np.array([1.0 + 0.1 * (residue_number % 2), 0.2, 1.7 + 0.25 * (residue_number - 6)])
            offsets = [(0, 0, 0), (0.096, 0, 0), (-0.024, 0.093, 0)]
        places += [base + np.array(offset) for offset in offsets]
    return np.array(places)


def write_frames(path, topology: app.Topology, frames, boxes=None) -> None:
    """Write frames (F, N, 3) in nm as a run does, with OpenMM."""
    if boxes is not None:
        topology.setPeriodicBoxVectors(boxes[0] * unit.nanometer)
    with path.open("wb") as file:
        dcd = app.DCDFile(file, topology, STEP * unit.picosecond, 0, INTERVAL)
        for k, frame in enumerate(frames):
            box = None if boxes is None else boxes[k] * unit.nanometer
            dcd.writeModel(frame * unit.nanometer, periodicBoxVectors=box)


def make_run(folder, frames, boxes=None, *, start=None, region=(30, 31, 32), **facts) -> dict:
    """Write a run directory with frames of the production, whose heating took 0.5 ps; returns run.json."""
    topology = make_topology()
    start = start_positions(topology) if start is None else start
    built = folder / "built"
    built.mkdir(exist_ok=True)
    (built / "built.json").write_text(json.dumps({"topology": topology_to_dict(topology)}))
    np.save(built / "positions.npy", start)
    frame = mdtraj.Trajectory(start[None], mdtraj.Topology.from_openmm(topology))
    factors = np.zeros(len(start))
    factors[list(region)] = 1.0
    if boxes is not None:
        frame.unitcell_vectors = np.asarray(boxes[0])[None]
    frame.save_pdb(str(folder / "topology.pdb"), bfactors=factors)
    if frames is not None:
        write_frames(folder / "trajectory.dcd", topology, frames, boxes)
    stage = {"ensemble": "NVT", "timestep_ps": STEP, "temperature": 300.0}
    run = {
        "state": "finished",
        "title": folder.name,
        "region": {"selection": "resname LIG", "atoms": list(region)},
        "system": {"atoms": len(start), "degrees_of_freedom": 100},
        "zones": {"core": len(region), "transition": 0},
        "plan": [
            {"name": "minimise"},
            stage | {"name": "equilibrate", "steps": 500, "trajectory": False},
            stage | {"name": "produce", "steps": 100_000, "trajectory": True},
        ],
        "trajectory_interval": INTERVAL,
    } | facts
    (folder / "run.json").write_text(json.dumps(run))
    return run
