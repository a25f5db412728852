"""Labels minus a base: another potential, or the force field of a molecule by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlmm.errors import ConfigError
from mlmm.learning.descriptors import structure_of
from mlmm.learning.training.targets import Sample
from mlmm.potentials.base import energy_and_forces
from mlmm.potentials.registry import load_potential
from mlmm.reference.labels import Molecule

__all__ = ["minus_base"]


def minus_base(samples: Sequence[Sample], base: str) -> tuple[list[Sample], str]:
    """Subtract energies and forces of a base from labels.

    Parameters
    ----------
    samples : sequence of (Molecule, Label)
    base : str
        A potential as `load_potential` takes it, or FILE.xml: an OpenMM System of the molecule by itself, to
        which scheme ``delta`` then adds the difference.

    Returns
    -------
    differences : list of (Molecule, Label)
    name : str
        Of the base.

    Raises
    ------
    ConfigError
        A System of other atoms.
    PotentialError
        As `load_potential`.
    """
    if base.endswith(".xml"):
        values, name = _by_force_field([molecule for molecule, _ in samples], Path(base)), "force field"
    else:
        model = load_potential(base, precision="float64")
        name = model.spec.name
        values = []
        for molecule, _ in samples:
            energy, forces = energy_and_forces(model, structure_of(molecule))
            # Isolated atoms included, as in labels: those of the sum are those of base and difference.
            isolated = sum(model.spec.reference_energies.get(int(z), 0.0) for z in molecule.numbers)
            values.append((energy + isolated, forces.numpy()))
    found = []
    for (molecule, label), (energy, of_base) in zip(samples, values, strict=True):
        rest = None if label.forces is None else np.asarray(label.forces) - of_base
        method = f"{label.method} minus {name}"
        found.append(
            (molecule, dataclasses.replace(label, energy=label.energy - energy, forces=rest, method=method))
        )
    return found, name


def _by_force_field(molecules: Sequence[Molecule], path: Path) -> list[tuple[float, np.ndarray]]:
    """Energy and forces by an OpenMM System, on the Reference platform."""
    import openmm
    from openmm import unit

    try:
        system = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
    except (OSError, openmm.OpenMMException) as error:
        raise ConfigError(
            f"an OpenMM System in {path}", str(error), "write it with openmm.XmlSerializer"
        ) from error
    if not isinstance(system, openmm.System) or any(len(m) != system.getNumParticles() for m in molecules):
        raise ConfigError(
            f"a System of the molecule of the labels ({len(molecules[0])} atoms) in {path}",
            "another object, or one of other atoms",
            "build the System of the molecule by itself, with its atoms in the order of the labels",
        )
    context = openmm.Context(
        system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference")
    )
    found = []
    for molecule in molecules:
        context.setPositions(molecule.positions)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        found.append((float(energy), np.asarray(forces)))
    return found
