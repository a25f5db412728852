"""Labels as arrays that a fit can use, and the checks that a set of labels has to pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mlmm.elements import element_names
from mlmm.errors import ConfigError
from mlmm.learning.dataset.label_checks import check_label
from mlmm.reference.labels import Label, Molecule

__all__ = ["Sample", "Targets", "check_samples", "check_split", "data_sha256", "targets_of"]

#: A molecule and its label.
Sample = tuple[Molecule, Label]
_LEAST = 10
# Forces of molecules near room temperature are some hundred kJ/mol/nm; hartree/bohr and eV/Å are far below.
_SMALLEST_FORCE, _LARGEST_FORCE = 20.0, 2e4  # kJ/mol/nm, root of the mean square
_CLOSEST = 0.04  # nm; positions in angstrom would have no pair below 0.5, in metre all
_FARTHEST = 0.4  # nm to the nearest atom of the molecule


@dataclass(frozen=True)
class Targets:
    """What a fit compares its predictions with; float64.

    Parameters
    ----------
    energies : torch.Tensor, shape (S,), kJ/mol
    forces : torch.Tensor, shape (A, 3), kJ/mol/nm
        Of all structures one after the other; NaN where a label has none.
    atoms : torch.Tensor, shape (S + 1,), int64
        Where the atoms of each structure begin.
    external_forces : torch.Tensor, shape (M, 3), kJ/mol/nm, optional
        On the point charges around, NaN where a label has none.
    charges : torch.Tensor, shape (S + 1,), int64, optional
        Where the point charges of each structure begin.
    """

    energies: torch.Tensor
    forces: torch.Tensor
    atoms: torch.Tensor
    external_forces: torch.Tensor | None = None
    charges: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.energies)

    def shifted(self, shifts: torch.Tensor) -> Targets:
        """Return targets whose energies (S,) have had some subtracted, in float64."""
        return replace(self, energies=self.energies - shifts)


def targets_of(samples: Sequence[Sample]) -> Targets:
    """Collect labels in float64, in their order."""
    forces = [
        np.full((len(molecule), 3), np.nan) if label.forces is None else np.asarray(label.forces)
        for molecule, label in samples
    ]
    atoms = np.concatenate([[0], np.cumsum([len(molecule) for molecule, _ in samples])])
    external = charges = None
    if any(molecule.external is not None for molecule, _ in samples):
        counts = [0 if molecule.external is None else len(molecule.external) for molecule, _ in samples]
        charges = torch.as_tensor(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        rows = [
            np.full((count, 3), np.nan) if label.external_forces is None else label.external_forces
            for count, (_, label) in zip(counts, samples, strict=True)
        ]
        external = torch.as_tensor(np.concatenate(rows).reshape(-1, 3).astype(np.float64))
    return Targets(
        torch.tensor([float(label.energy) for _, label in samples], dtype=torch.float64),
        torch.as_tensor(np.concatenate(forces).astype(np.float64)),
        torch.as_tensor(atoms.astype(np.int64)),
        external,
        charges,
    )


def check_samples(samples: Sequence[Sample], *, least: int = _LEAST) -> list[Sample]:
    """Leave out labels that did not converge and refuse a set that cannot be learned from.

    Parameters
    ----------
    samples : sequence of (Molecule, Label)
    least : int
        Labels that there have to be.

    Raises
    ------
    ConfigError
        Too few labels, several levels of theory, NaN, forces of another shape, or numbers whose magnitude
        tells of another unit.
    """
    good = [(molecule, label) for molecule, label in samples if label.converged]
    if len(good) < least:
        lost = len(samples) - len(good)
        more = f" ({lost} did not converge)" if lost else ""
        raise ConfigError(
            f"{least} labels or more to train on", f"{len(good)}{more}", "label more structures first"
        )
    methods = sorted({label.method for _, label in good})
    if len(methods) > 1:
        raise ConfigError(
            "labels of one level of theory",
            " and ".join(methods),
            "train on one of them; the other may be the base",
        )
    for k, (molecule, label) in enumerate(good):
        origin = f" ({', '.join(molecule.origin.values())})" if molecule.origin else ""
        check_label(molecule, label, f"label {k + 1}{origin}")
    _check_magnitudes(good)
    return good


def _check_magnitudes(samples: Sequence[Sample]) -> None:
    """Units by magnitude: lengths by the nearest neighbour, forces by their root mean square."""
    for k, (molecule, _) in enumerate(samples):
        if len(molecule) < 2:
            continue
        apart = np.linalg.norm(molecule.positions[:, None] - molecule.positions[None], axis=2)
        nearest = (apart + np.diag(np.full(len(molecule), np.inf))).min(axis=1)
        if not (nearest.min() > _CLOSEST and np.median(nearest) < _FARTHEST):
            raise ConfigError(
                "positions of molecules in nm",
                f"nearest neighbours at {nearest.min():.3g} to {nearest.max():.3g} in structure {k + 1}",
                "convert them; angstrom is 0.1 nm, bohr 0.0529 nm",
            )
    squares = [np.square(label.forces).mean() for _, label in samples if label.forces is not None]
    if squares:
        size = float(np.sqrt(np.mean(squares)))
        if not _SMALLEST_FORCE < size < _LARGEST_FORCE:
            raise ConfigError(
                "forces of molecules in kJ/mol/nm, some hundred to thousand in the mean",
                f"a root mean square of {size:.3g}",
                "convert them; 1 eV/Å is 965 kJ/mol/nm, 1 hartree/bohr 49,614, 1 kcal/mol/Å 41.84",
            )


def data_sha256(samples: Sequence[Sample]) -> str:
    """Checksum of structures and labels, in their order."""
    digest = hashlib.sha256()
    for molecule, label in samples:
        digest.update(
            f"{label.method} {molecule.charge} {molecule.multiplicity} {float(label.energy)!r}".encode()
        )
        arrays = [molecule.numbers, molecule.positions, label.forces, label.external_forces]
        if molecule.external is not None:
            arrays += [molecule.external.positions, molecule.external.charges]
        for array in arrays:
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_split(parts: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse a split in which a structure stands on both sides, or an element in one alone.

    Parameters
    ----------
    parts : mapping of str to sequence of (Molecule, Label)
        By name; the first is what the model learns from.

    Raises
    ------
    ConfigError
    """
    names = list(parts)
    seen: dict[bytes, str] = {}
    for name in names:
        for molecule, _ in parts[name]:
            key = molecule.numbers.tobytes() + np.round(molecule.positions, 6).tobytes()
            if molecule.external is not None:
                key += np.round(molecule.external.positions, 6).tobytes()
            other = seen.setdefault(key, name)
            if other != name:
                raise ConfigError(
                    f"different structures in {other} and {name}",
                    "one that is in both, so that its error would tell nothing",
                    "split by block of trajectory, without duplicates",
                )
    known = {int(z) for molecule, _ in parts[names[0]] for z in molecule.numbers}
    for name in names[1:]:
        lacking = sorted({int(z) for molecule, _ in parts[name] for z in molecule.numbers} - known)
        if lacking:
            raise ConfigError(
                f"elements in {name} that are also in {names[0]}",
                element_names(lacking),
                f"add labels with {element_names(lacking)} to {names[0]}",
            )
