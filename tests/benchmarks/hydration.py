"""Hydration structure of an ion from runs: first peak of g(r), and water around, with errors of blocks.

    python -m benchmarks.hydration CENTRES AROUND RUN …

run in `tests/`; CENTRES and AROUND are selections of mdtraj, such as "resid 0 and element O" and
"water and element O". Errors of the peak are those of a mean over `BLOCKS` blocks of each run; that of the
number is by blocks that are longer than the memory.

The runs of the guide, with electrostatics = "embedded" or "mechanical", and C[NH3+] beside acetate:

    [system]
    smiles = "CC(=O)[O-]"
    padding = "0.9 nm"
    [region]
    select = "resid 0"
    [potential]
    name = "amp-bms"
    [embedding]
    scheme = "additive"
    electrostatics = "embedded"
    [run]
    seed = 3
    timestep = "1 fs"
    equilibrate = "5 ps"
    produce = "50 ps"
    [report]
    trajectory_interval = 50
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mlmm.statistics import block_standard_error

BLOCKS = 10
WIDTH, FARTHEST = 0.004, 0.8  # nm; bins of 0.04 angstrom, within half of the smallest box
NEAR = 0.34  # nm: for comparisons, where minima lie elsewhere in each run
SMOOTH = 5  # bins that a peak and a minimum are found in


def histogram(run: Path, centres: str, around: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Pairs by distance of each frame (F, B), density of those around (F,), 1/nm^3, number of centres."""
    import mdtraj

    frames = mdtraj.load(str(run / "trajectory.dcd"), top=str(run / "topology.pdb"))
    inner, outer = frames.topology.select(centres), frames.topology.select(around)
    if not len(inner) or not len(outer):
        sys.exit(f"{run}: '{centres}' selects {len(inner)} atoms, '{around}' {len(outer)}.")
    pairs = np.array([(i, j) for i in inner for j in outer if i != j])
    distances = mdtraj.compute_distances(frames, pairs, periodic=True)
    edges = WIDTH * np.arange(round(FARTHEST / WIDTH) + 1)
    counts = np.array([np.histogram(row, edges)[0] for row in distances])
    return counts, len(outer) / frames.unitcell_volumes, len(inner)


def distribution(counts: np.ndarray, density: np.ndarray, n_centres: int) -> tuple[np.ndarray, np.ndarray]:
    """g(r), and the number within r of a centre, of the mean over frames (B,)."""
    edges = WIDTH * np.arange(counts.shape[1] + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    mean = counts.mean(0) / n_centres
    return mean / (shells * density.mean()), mean.cumsum()


def first_shell(g: np.ndarray) -> tuple[int, int]:
    """Bins of the first peak and of the minimum after it, of a curve smoothed by a moving mean."""
    smooth = np.convolve(g, np.ones(SMOOTH) / SMOOTH, mode="same")
    begin = int(np.argmax(smooth > 1.0))
    peak = begin + int(np.argmax(smooth[begin : begin + round(0.1 / WIDTH)]))
    minimum = peak + int(np.argmin(smooth[peak : peak + round(0.15 / WIDTH)]))
    return peak, minimum


def shell_of_runs(runs: list[Path], centres: str, around: str) -> dict[str, tuple[float, float]]:
    """Place and height of the first peak, number to the minimum behind it, with errors, and this minimum."""
    counts, density, numbers = zip(*(histogram(run, centres, around) for run in runs), strict=True)
    number = numbers[0]
    g, _ = distribution(np.concatenate(counts), np.concatenate(density), number)
    peak, minimum = first_shell(g)
    near = slice(max(peak - 2 * SMOOTH, 0), peak + 2 * SMOOTH + 1)
    middle = WIDTH * (np.arange(near.start, near.stop) + 0.5)
    tops = []
    for of_run, around_it in zip(counts, density, strict=True):
        blocks = zip(np.array_split(of_run, BLOCKS), np.array_split(around_it, BLOCKS), strict=True)
        for part, dense in blocks:
            of_block, _ = distribution(part, dense, number)
            a, b, c = np.polyfit(middle, of_block[near], 2)  # a block's own highest bin jumps
            tops.append((-b / (2 * a), c - b * b / (4 * a)))
    places, heights = np.array(tops).T

    def within(bins: int) -> tuple[float, float]:
        inside = [part[:, :bins].sum(1) / number for part in counts]
        errors = np.array([block_standard_error(series) for series in inside])
        return float(np.concatenate(inside).mean()), float(np.sqrt((errors**2).mean() / len(runs)))

    return {
        "peak, nm": (float(places.mean()), float(places.std(ddof=1) / np.sqrt(len(places)))),
        "height": (float(heights.mean()), float(heights.std(ddof=1) / np.sqrt(len(heights)))),
        "number": within(minimum + 1),
        "up to, nm": (WIDTH * (minimum + 1), 0.0),
        f"in {NEAR:g} nm": within(round(NEAR / WIDTH)),
    }


if __name__ == "__main__":
    found = shell_of_runs([Path(name) for name in sys.argv[3:]], sys.argv[1], sys.argv[2])
    for key, (value, error) in found.items():
        print(f"{key:12s} {value:8.3f} +- {error:.3f}")
