"""What a reference method is asked, and what it answers: molecules among point charges, and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from mlmm.elements import element_names
from mlmm.errors import ConfigError
from mlmm.short_repr import ShortRepr
from mlmm.structures import ExternalCharges, Structure

__all__ = ["Label", "Molecule", "PointCharges"]


@dataclass(frozen=True, repr=False)
class PointCharges(ShortRepr):
    """Charges of the surroundings of a molecule.

    Parameters
    ----------
    positions : ndarray, shape (M, 3), float64, nm
    charges : ndarray, shape (M,), float64, e

    Raises
    ------
    ConfigError
        Shapes that do not belong together, or numbers that are not finite.
    """

    positions: np.ndarray
    charges: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.float64).reshape(-1, 3))
        object.__setattr__(self, "charges", np.asarray(self.charges, dtype=np.float64).reshape(-1))
        if len(self.positions) != len(self.charges):
            raise ConfigError(
                "one position for each point charge",
                f"{len(self.positions):,} positions and {len(self.charges):,} charges",
                "pass arrays of shapes (M, 3) and (M,)",
            )
        if not (np.isfinite(self.positions).all() and np.isfinite(self.charges).all()):
            raise ConfigError(
                "finite point charges", "NaN or infinity among them", "look at where they come from"
            )

    def __len__(self) -> int:
        return len(self.charges)

    @classmethod
    def of(cls, external: ExternalCharges) -> PointCharges:
        """What a potential sees as charges around it; a width is refused, which no reference method knows.

        Raises
        ------
        ConfigError
        """
        if external.width:
            raise ConfigError(
                "point charges",
                f"Gaussian ones, {external.width:g} nm wide",
                "pass ExternalCharges without a width",
            )
        return cls(external.positions.detach().cpu().numpy(), external.charges.detach().cpu().numpy())

    def external(self, width: float = 0.0) -> ExternalCharges:
        """As a potential takes them, with a standard deviation in nm or as points."""
        return ExternalCharges(torch.tensor(self.positions), torch.tensor(self.charges), width)

    def _summary(self) -> dict[str, str]:
        return {"charges": f"{len(self):,}", "sum": f"{float(self.charges.sum()):+.3f} e"}


@dataclass(frozen=True, repr=False)
class Molecule(ShortRepr):
    """Atoms that a reference method describes, with an open boundary, among point charges or alone.

    Parameters
    ----------
    numbers : ndarray, shape (N,), int64
        Atomic numbers.
    positions : ndarray, shape (N, 3), float64, nm
    charge : int
        Net charge, e.
    multiplicity : int
        1 for a closed shell.
    external : PointCharges, optional
        Surroundings; None for a vacuum.
    origin : mapping of str to str
        Where it comes from, for the record and for splits: ``run``, ``frame``, ``window``, ``time``.

    Raises
    ------
    ConfigError
        Shapes that do not belong together, or positions that are not finite.
    """

    numbers: np.ndarray
    positions: np.ndarray
    charge: int = 0
    multiplicity: int = 1
    external: PointCharges | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", np.asarray(self.numbers, dtype=np.int64).reshape(-1))
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.float64))
        if self.positions.shape != (len(self.numbers), 3):
            raise ConfigError(
                "one position for each atom",
                f"{len(self.numbers)} atoms and positions of shape {self.positions.shape}",
                "pass arrays of shapes (N,) and (N, 3)",
            )
        if not np.isfinite(self.positions).all():
            raise ConfigError(
                "finite positions", "NaN or infinity among them", "look at where the structure comes from"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def structure(self, width: float = 0.0) -> Structure:
        """As a potential sees it, among its charges, of that width in nm."""
        return Structure(
            torch.tensor(self.numbers),
            torch.tensor(self.positions),
            None,
            self.charge,
            self.multiplicity,
            None if self.external is None else self.external.external(width),
        )

    def _summary(self) -> dict[str, str]:
        kinds, counts = np.unique(self.numbers, return_counts=True)
        return {
            "atoms": f"{len(self):,}",
            "elements": " ".join(
                f"{element_names([int(kind)])}{count}" for kind, count in zip(kinds, counts, strict=True)
            ),
            "charge": f"{self.charge:+d} e" if self.charge else "0 e",
            "multiplicity": str(self.multiplicity),
            "point charges": f"{len(self.external):,}" if self.external is not None else "",
        }


@dataclass(frozen=True, repr=False)
class Label(ShortRepr):
    """Answer of a reference method for one molecule.

    Parameters
    ----------
    energy : float
        Total energy of the method, kJ/mol: its own zero, Coulomb's law with the point charges included, the
        energy of the point charges among themselves not.
    forces : ndarray, shape (N, 3), kJ/mol/nm, optional
        None where only the energy was asked for.
    external_forces : ndarray, shape (M, 3), kJ/mol/nm, optional
        On the point charges; None in a vacuum.
    charges : ndarray, shape (N,), e, optional
        Atomic charges, by the partition that the record names.
    dipole : ndarray, shape (3,), e nm, optional
        Of the atoms alone, about the origin of the coordinates.
    converged : bool
        Whether the self-consistent field converged; a label that did not is kept and never used.
    method : str
        Level of theory in one line, such as "GFN2-xTB, true point charges"; the same words for all of a set.
    record : mapping of str to str
        Program, version, settings, seconds.
    """

    energy: float
    forces: np.ndarray | None = None
    external_forces: np.ndarray | None = None
    charges: np.ndarray | None = None
    dipole: np.ndarray | None = None
    converged: bool = True
    method: str = "not stated"
    record: Mapping[str, str] = field(default_factory=dict)

    def _summary(self) -> dict[str, str]:
        return {
            "method": self.method,
            "energy": f"{self.energy:.3f} kJ/mol",
            "converged": "" if self.converged else "no",
        }
