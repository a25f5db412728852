"""What every reference method is: options that can be sent to another process, and one answer a molecule."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from mlmm.elements import element_names
from mlmm.errors import ConfigError
from mlmm.options import as_written
from mlmm.reference.labels import Label, Molecule
from mlmm.units import BOHR, HARTREE

__all__ = [
    "ReferenceMethod",
    "Stopwatch",
    "answered",
    "check_molecule",
    "electrons_in_words",
    "failed",
    "settings_in_words",
]

_USUAL = 300.0  # K


@runtime_checkable
class ReferenceMethod(Protocol):
    """A level of theory in a program: options as fields of a frozen dataclass, labels one by one.

    An instance can be pickled: libraries are loaded where `label` runs. The answer depends on the molecule
    alone, never on the one before, so that an interrupted set comes out the same when it is resumed.

    Attributes
    ----------
    title : str
        Level of theory in one line, the same for all labels of a set.
    point_charges : bool
        Whether the molecule may stand among point charges.
    """

    point_charges: ClassVar[bool]

    @property
    def title(self) -> str: ...

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces and charges of one molecule; one that does not converge is returned as such."""
        ...


def electrons_in_words(temperature: float) -> str:
    """What a title says of the temperature of the electrons: nothing at 300 K, which is usual."""
    return "" if temperature == _USUAL else f", electrons at {temperature:g} K"


class Stopwatch:
    """Seconds since it was made, as they stand in a record."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __str__(self) -> str:
        return f"{time.perf_counter() - self._start:.3f}"


def settings_in_words(options: Any, without: Collection[str] = ()) -> str:
    """Settings of a method for the record: "accuracy 0.1, iterations 250"; empty ones are left out."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in as_written(options).items()
        if name not in without and value not in ("", [], {})
    )


def failed(method: ReferenceMethod, reason: str, record: Mapping[str, str], watch: Stopwatch) -> Label:
    """The label of a molecule whose self-consistent field did not converge: no number, and the reason."""
    facts = {**record, "seconds": str(watch), "failure": " ".join(reason.split())}
    return Label(float("nan"), converged=False, method=method.title, record=facts)


def answered(
    method: ReferenceMethod,
    record: Mapping[str, str],
    watch: Stopwatch,
    energy: float,
    gradient: np.ndarray | None = None,
    on_charges: np.ndarray | None = None,
    *,
    charges: np.ndarray | None = None,
    dipole: np.ndarray | None = None,
) -> Label:
    """The label of a molecule from what a program gave in atomic units; `failed` if that is not finite.

    Parameters
    ----------
    method : ReferenceMethod
    record : mapping of str to str
    watch : Stopwatch
    energy : float, hartree
    gradient : ndarray, shape (N, 3), hartree/bohr, optional
    on_charges : ndarray, shape (M, 3), hartree/bohr, optional
        Gradient with respect to the positions of the point charges; None in a vacuum.
    charges : ndarray, shape (N,), e, optional
    dipole : ndarray, shape (3,), e bohr, optional
    """
    force = -HARTREE / BOHR
    numbers = {"energy": energy, "gradient": gradient, "gradient on the point charges": on_charges}
    wrong = [name for name, value in numbers.items() if value is not None and not np.isfinite(value).all()]
    if wrong:
        return failed(method, f"not finite: {', '.join(wrong)}", record, watch)
    return Label(
        energy=energy * HARTREE,
        forces=None if gradient is None else gradient * force,
        external_forces=None if on_charges is None else on_charges * force,
        charges=charges,
        dipole=None if dipole is None else dipole * BOHR,
        method=method.title,
        record={**record, "seconds": str(watch)},
    )


def check_molecule(
    method: ReferenceMethod, molecule: Molecule, *, most: int, elements: Collection[int] = ()
) -> None:
    """Refuse what a method cannot describe.

    Parameters
    ----------
    method : ReferenceMethod
    molecule : Molecule
    most : int
        Highest atomic number.
    elements : collection of int
        The only atomic numbers, if there are some.

    Raises
    ------
    ConfigError
        No atoms, another element, point charges where the method takes none, or a multiplicity that does not
        go with the number of electrons.
    """
    if not len(molecule):
        raise ConfigError("at least one atom", "a molecule without atoms", "leave it out")
    if molecule.external is not None and not method.point_charges:
        raise ConfigError(
            f"a molecule without point charges for {method.title}",
            f"one among {len(molecule.external):,} of them",
            'leave them out (external=None), or take the method "xtb", "aiqm2" or "pyscf"',
        )
    allowed = set(elements) or range(1, most + 1)
    unknown = sorted({int(number) for number in molecule.numbers} - set(allowed))
    if unknown:
        raise ConfigError(
            f"elements that {method.title} knows",
            element_names(unknown),
            "choose another method for this molecule",
        )
    electrons = int(molecule.numbers.sum()) - molecule.charge
    unpaired = molecule.multiplicity - 1
    if electrons < 0 or unpaired < 0 or unpaired > electrons or (electrons - unpaired) % 2:
        raise ConfigError(
            "a charge and a multiplicity that go with the number of electrons",
            f"{electrons} electrons at charge {molecule.charge:+d} with multiplicity {molecule.multiplicity}",
            "correct the charge, or set multiplicity = 2 for one unpaired electron",
        )
