"""A loop of active learning on water with an exact energy: its steps take milliseconds and can be stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from labelled_pairs import WATER, springs

from mlmm.learning.acquisition.sampling import distorted
from mlmm.learning.active.loop import Steps
from mlmm.learning.active.measure import Answers
from mlmm.reference.labels import Label, Molecule

METHOD = "anharmonic springs, exact"
PAIRS = [(1, 0), (2, 0), (2, 1)]
_CUBIC = -4.0e5


def energy_and_forces(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Springs with a cubic and a quartic term in each distance, kJ/mol, kJ/mol/nm."""
    energy, forces = springs(positions)
    for i, j in PAIRS:
        apart = positions[i] - positions[j]
        length = np.linalg.norm(apart)
        off = length - np.linalg.norm(WATER[i] - WATER[j])
        energy += _CUBIC * off**3 - 10.0 * _CUBIC * off**4
        pull = -(3 * _CUBIC * off**2 - 40.0 * _CUBIC * off**3) * apart / length
        forces[i] += pull
        forces[j] -= pull
    return float(energy), forces


def _terms(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the three distances up to the third, and minus their gradients."""
    values, gradients = [1.0], [np.zeros((3, 3))]
    for i, j in PAIRS:
        apart = positions[i] - positions[j]
        length = np.linalg.norm(apart)
        scaled = length / 0.1 - 1.0
        for power in (1, 2, 3):
            values.append(scaled**power)
            slope = np.zeros((3, 3))
            slope[i], slope[j] = apart / length, -apart / length
            gradients.append(-power * scaled ** (power - 1) / 0.1 * slope)
    return np.array(values), np.array(gradients)


class Polynomials:
    """A committee of three polynomials in the distances."""

    def __init__(self, coefficients: np.ndarray):
        self.coefficients = coefficients

    def predict(self, molecules: Sequence[Molecule]) -> Answers:
        energies, forces, deviations = [], [], []
        for molecule in molecules:
            values, gradients = _terms(molecule.positions)
            by_member = np.einsum("mt,tnk->mnk", self.coefficients, gradients)
            energies.append(float((self.coefficients @ values).mean()))
            forces.append(by_member.mean(axis=0))
            deviations.append(np.sqrt(by_member.var(axis=0, ddof=1).mean(axis=1)) + 1e-3)
        return Answers(np.array(energies), forces, deviations)


def train(pairs: Sequence[tuple[Molecule, Label]], seed: int, folder: Path) -> None:
    """Least squares on energies and forces, each member on its own draw."""
    random = np.random.default_rng(seed)
    members = []
    for _ in range(3):
        drawn = random.integers(0, len(pairs), len(pairs))
        rows, wanted = [], []
        for k in drawn:
            molecule, label = pairs[k]
            values, gradients = _terms(molecule.positions)
            rows += [values[None], 0.1 * gradients.reshape(len(values), -1).T]
            wanted += [[label.energy], 0.1 * label.forces.reshape(-1)]
        members.append(np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0])
    np.save(folder / "model.npy", np.array(members))


def load(folder: Path) -> Polynomials:
    return Polynomials(np.load(folder / "model.npy"))


def label_of(molecule: Molecule) -> Label:
    energy, forces = energy_and_forces(molecule.positions)
    return Label(energy, forces, method=METHOD, record={"seconds": str(os.getpid())})


def explore(number: int, model: Path | None, seed: int, folder: Path) -> list[Molecule]:
    """Mild and wild distortions: two basins."""
    water = Molecule([8, 1, 1], WATER)
    found = []
    for window, size in (("mild", "0.004 nm"), ("wild", "0.01 nm")):
        for molecule in distorted(water, 60, size, seed=seed, run=f"round {number} {window}"):
            found.append(
                Molecule(
                    molecule.numbers, molecule.positions, origin=dict(molecule.origin) | {"window": window}
                )
            )
    return found


def steps(event: Callable[[str], None] = lambda name: None, fails: float = 0.0) -> Steps:
    """The steps; `event` is told before and after everything, and may end it. `fails`: share of labels."""

    def exploring(*arguments):
        event("explore")
        return explore(*arguments)

    def labelling(molecules):
        # In an order that depends on what else is to be done, as a cluster might answer.
        for index in np.random.default_rng(len(molecules)).permutation(len(molecules)).tolist():
            event("label")
            found = label_of(molecules[index])
            if (index % 10) < 10 * fails:
                found = Label(float("nan"), converged=False, method=METHOD, record={"failure": "no SCF"})
            yield index, found

    def training(pairs, seed, folder):
        event("train")
        train(pairs, seed, folder)
        event("trained")

    def loading(folder):
        event("load")
        return load(folder)

    return Steps(METHOD, exploring, labelling, training, loading)


def kill_at(count: int) -> Callable[[str], None]:
    """An event that kills the own process the n-th time."""
    left = [count]

    def event(_: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return event
