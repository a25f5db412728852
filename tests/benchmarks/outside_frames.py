"""Structures unlike those of a training, with labels: how far does an uncertainty hold?

    python tests/benchmarks/outside_frames.py test.xyz OUT [--stretched 100] [--hot 700 K] [--frames 100]

``OUT/stretched.xyz``: frames of the file in which one bond to a hydrogen is 0.2 to 0.4 Å longer.
``OUT/hot.xyz``: dynamics from frames of the file at a higher temperature.
``OUT/turned.xyz``: dynamics at 300 K of other conformers: single bonds outside rings turned by 60 to 300
degrees, then relaxed. GFN2-xTB by tblite labels all of them; the file has labels of it too.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlmm.errors import SimulationError
from mlmm.learning.acquisition.sampling import minimised, sample_dynamics
from mlmm.learning.dataset.frames import frame_text
from mlmm.learning.dataset.imports import import_labels
from mlmm.reference.labels import Molecule
from mlmm.reference.tblite import TBLite

_HYDROGEN_BOND = 0.13  # nm, longer than any bond to a hydrogen
_HEAVY_BOND = (0.138, 0.165)  # nm: single bonds between heavy atoms, a breaking one left out


def stretched(molecule: Molecule, random: np.random.Generator) -> Molecule:
    """One hydrogen farther from its atom."""
    x = np.array(molecule.positions)
    hydrogen = int(random.choice(np.flatnonzero(molecule.numbers == 1)))
    apart = np.linalg.norm(x - x[hydrogen], axis=1)
    apart[molecule.numbers == 1] = np.inf
    atom = int(apart.argmin())
    longer = random.uniform(0.02, 0.04)
    x[hydrogen] += longer * (x[hydrogen] - x[atom]) / apart[atom]
    return replace(molecule, positions=x, origin={"run": "stretched"})


def single_bonds(molecule: Molecule) -> list[tuple[int, int, np.ndarray]]:
    """Single bonds between heavy atoms that are in no ring, and the atoms that turn with the second."""
    x, heavy = np.asarray(molecule.positions), molecule.numbers > 1
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    limit = np.where(heavy[:, None] & heavy[None], _HEAVY_BOND[1], _HYDROGEN_BOND)
    bonded = (apart < limit) & ~np.eye(len(x), dtype=bool) & (heavy[:, None] | heavy[None])
    found = []
    for a, b in np.argwhere(
        np.triu(bonded & heavy[:, None] & heavy[None] & (apart > _HEAVY_BOND[0]))
    ).tolist():
        without = bonded.copy()
        without[a, b] = without[b, a] = False
        side, new = {b}, [b]
        while new:
            near = set(np.flatnonzero(without[new.pop()]).tolist()) - side
            side |= near
            new += near
        if a not in side and len(side) > 1:
            found.append((a, b, np.array(sorted(side))))
    return found


def turned(molecule: Molecule, random: np.random.Generator) -> Molecule | None:
    """Another conformer, relaxed by the method; None where no bond can turn."""
    parts = single_bonds(molecule)
    if not parts:
        return None
    x = np.array(molecule.positions)
    for a, b, side in parts:
        axis = (x[b] - x[a]) / np.linalg.norm(x[b] - x[a])
        angle = np.radians(random.uniform(60.0, 300.0))
        r = x[side] - x[b]
        along = np.outer(r @ axis, axis)
        x[side] = x[b] + along + np.cos(angle) * (r - along) + np.sin(angle) * np.cross(axis, r)
    return minimised(replace(molecule, positions=x, origin={"run": "turned"}), TBLite())


def write(path: Path, molecules: list[Molecule]) -> None:
    """Label and write; structures without an answer of the method are left out."""
    method, texts = TBLite(), []
    for molecule in molecules:
        label = method.label(molecule)
        if label.converged:
            texts.append(frame_text(molecule, label, side=False))
    path.write_bytes(b"".join(texts))
    print(f"{path}: {len(texts)} structures")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--stretched", type=int, default=100)
    parser.add_argument("--hot", default="700 K")
    parser.add_argument("--frames", type=int, default=100, help="of the hot and of the turned ones")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(options.seed)
    known = [molecule for molecule, _ in import_labels(options.file)]
    order = random.permutation(len(known))
    write(options.out / "stretched.xyz", [stretched(known[k], random) for k in order[: options.stretched]])
    hot: list[Molecule] = []
    cold: list[Molecule] = []
    for k in order.tolist():
        seed = int(random.integers(2**31))
        if len(hot) < options.frames:
            hot += sample_dynamics(
                known[k], TBLite(), 5, temperature=options.hot, seed=seed, run=f"hot {k}", tolerant=True
            )
        if len(cold) < options.frames:
            try:
                other = turned(known[k], random)
            except SimulationError:  # atoms on top of each other after the turn
                continue
            if other is not None:
                cold += sample_dynamics(other, TBLite(), 5, seed=seed, run=f"turned {k}", tolerant=True)
        if min(len(hot), len(cold)) >= options.frames:
            break
    write(options.out / "hot.xyz", hot)
    write(options.out / "turned.xyz", cold)


if __name__ == "__main__":
    main()
