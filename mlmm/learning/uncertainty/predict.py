"""Predictions of a potential for labelled molecules, with what it says of its own error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mlmm.learning.uncertainty.calibrate import SpreadsAndErrors
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.committee import force_spread, member_forces
from mlmm.reference.labels import Label, Molecule
from mlmm.structures import ExternalCharges, Structure

__all__ = ["Predicted", "predict"]


@dataclass(frozen=True)
class Predicted:
    """Energies and forces by a potential.

    Parameters
    ----------
    energies : ndarray, shape (S,), kJ/mol
        Isolated atoms included.
    forces : list of ndarray, (N, 3), kJ/mol/nm
    spreads : list of ndarray, (N,), kJ/mol/nm, optional
        Of the force on each atom; None for a model that does not know its error.
    external_forces : dict of int to ndarray, (M, 3), kJ/mol/nm
        On the point charges around those structures that have some.
    """

    energies: np.ndarray
    forces: list[np.ndarray]
    spreads: list[np.ndarray] | None
    external_forces: dict[int, np.ndarray] = field(default_factory=dict)

    def against(self, labels: Sequence[Label], chosen: Sequence[int]) -> SpreadsAndErrors | None:
        """Spreads and errors of some structures; None without spreads or forces."""
        rows = [k for k in chosen if labels[k].forces is not None]
        if self.spreads is None or not rows:
            return None
        errors = [self.forces[k] - np.asarray(labels[k].forces) for k in rows]
        return SpreadsAndErrors(
            np.concatenate([self.spreads[k] for k in rows]), np.concatenate(errors), len(rows)
        )


def predict(model: PotentialModel, molecules: Sequence[Molecule]) -> Predicted:
    """Evaluate a potential: spreads by its members, or by a method ``force_spread(structure)`` of its own."""
    own = getattr(model, "force_spread", None)
    committee = model.spec.members > 1
    energies: list[float] = []
    forces: list[np.ndarray] = []
    spreads: list[np.ndarray] = []
    external: dict[int, np.ndarray] = {}
    for molecule in molecules:
        positions = torch.tensor(molecule.positions, requires_grad=True)
        numbers = torch.tensor(molecule.numbers)
        around, sources = None, positions[:0]
        if molecule.external is not None:
            sources = torch.tensor(molecule.external.positions, requires_grad=True)
            around = ExternalCharges(sources, torch.tensor(molecule.external.charges))
        structure = Structure(
            numbers, positions, None, molecule.charge, molecule.multiplicity, external=around
        )
        found = model.atom_energies(structure)
        reference = sum(model.spec.reference_energies.get(int(z), 0.0) for z in molecule.numbers)
        energies.append(float(found.energies.detach().sum()) + reference)
        if committee and found.members is not None:
            if around is not None:
                (pull,) = torch.autograd.grad(found.energies.sum(), [sources], retain_graph=True)
                external[len(forces)] = -pull.numpy()
            by_member = member_forces(found.members.sum(dim=1), positions)
            forces.append(by_member.mean(dim=0).numpy())
            spreads.append(force_spread(by_member).numpy())
            continue
        wanted = [positions] if around is None else [positions, sources]
        gradients = torch.autograd.grad(found.energies.sum(), wanted)
        forces.append(-gradients[0].numpy())
        if around is not None:
            external[len(forces) - 1] = -gradients[1].numpy()
        if own is not None:
            spreads.append(own(structure))
    known = spreads if len(spreads) == len(forces) and spreads else None
    return Predicted(np.array(energies), forces, known, external)
