"""Reference methods by name: which there are, what they need, and how one is made with its options."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlmm.errors import ConfigError, MLMMError
from mlmm.options import check_names, with_changes
from mlmm.options.files import check_table, set_value
from mlmm.reference.method import ReferenceMethod

__all__ = [
    "METHODS",
    "SHORT_NAMES",
    "KnownMethod",
    "is_written_method",
    "method_class",
    "missing",
    "reference_method",
    "written_method",
]


@dataclass(frozen=True)
class KnownMethod:
    """A method that has a name.

    Parameters
    ----------
    place : str
        Module and class.
    about : str
        What it is, in one line.
    licence : str
        Of the program, and of weights.
    install : str
        How to get it.
    """

    place: str
    about: str
    licence: str
    install: str


METHODS: Mapping[str, KnownMethod] = {
    "xtb": KnownMethod(
        "mlmm.reference.xtb:XTB",
        "GFN2-xTB among true point charges",
        "LGPL-3",
        "pip install xtb==22.1 tblite, with Python 3.11, or libxtb6 of Debian, or xtb of conda-forge",
    ),
    "tblite": KnownMethod(
        "mlmm.reference.tblite:TBLite", "GFN2-xTB, GFN1-xTB; ALPB", "LGPL-3", "pip install tblite"
    ),
    "aiqm2": KnownMethod(
        "mlmm.reference.aiqm2:AIQM2",
        "GFN2-xTB, eight networks and D4; H C N O; point charges",
        "xtb, dftd4: LGPL-3; networks: Apache-2.0 or CC BY-NC-ND 4.0",
        "mlmm label --install aiqm2; pip install dftd4, and what xtb needs",
    ),
    "pyscf": KnownMethod(
        "mlmm.reference.pyscf:PySCF",
        "Hartree-Fock, density functionals; point charges; gpu4pyscf",
        "Apache-2.0",
        "pip install pyscf pyscf-dispersion",
    ),
    "ase": KnownMethod(
        "mlmm.reference.ase_method:ASEMethod", "any calculator of ASE", "the calculator's", "pip install ase"
    ),
    "potential": KnownMethod(
        "mlmm.reference.potential:PotentialMethod",
        "a potential of mlmm, for another to learn from; point charges",
        "the potential's",
        "mlmm models, which lists them",
    ),
    "orca": KnownMethod(
        "mlmm.reference.orca:Orca", "ORCA by files; point charges", "academic", "https://www.faccts.de/orca"
    ),
    "psi4": KnownMethod(
        "mlmm.reference.psi4:Psi4", "Psi4 by files; point charges", "LGPL-3", "conda install psi4"
    ),
}  # fmt: skip

#: Names of levels of theory -> method and options in a vacuum, and among point charges where that is another.
SHORT_NAMES: Mapping[str, tuple[str, str]] = {
    "gfn2": ("tblite", "xtb"),
    "gfn1": ("tblite:hamiltonian=GFN1-xTB", "tblite:hamiltonian=GFN1-xTB"),
}


def method_class(name: str) -> Any:
    """The class of a method, which is also the schema of its options. ConfigError for an unknown name."""
    check_names([name], METHODS, "a reference method")
    module, _, kind = METHODS[name].place.partition(":")
    return getattr(importlib.import_module(module), kind)


def reference_method(method: str | ReferenceMethod, **options: Any) -> ReferenceMethod:
    """Make a method.

    Parameters
    ----------
    method : str or ReferenceMethod
        One of `METHODS`, or one that is made already.
    **options
        Fields of its class.

    Raises
    ------
    ConfigError
        An unknown name or option, or a value out of range.
    """
    if isinstance(method, str):
        made: ReferenceMethod = with_changes(method_class(method), None, options)
        return made
    made = with_changes(type(method), method, options)
    return made


def is_written_method(text: str) -> bool:
    """Whether a text names a reference method, with options or without, rather than a potential or a file."""
    name, colon, options = text.strip().partition(":")
    return name in METHODS or name in SHORT_NAMES if not colon else name in METHODS and "=" in options


def written_method(text: str, *, point_charges: bool = False) -> ReferenceMethod:
    """Make the method that a text names: ``gfn2``, or ``pyscf:functional=wb97x-d3bj,basis=6-31+g*``.

    Parameters
    ----------
    text : str
        One of `METHODS` or `SHORT_NAMES`; options after a colon, with commas between.
    point_charges : bool
        Whether the molecule will stand among point charges.

    Raises
    ------
    ConfigError
        An unknown name or option, a value out of range, or a method that takes no point charges among them.
    """
    name, colon, written = text.strip().partition(":")
    if not colon and name in SHORT_NAMES:
        return written_method(SHORT_NAMES[name][int(point_charges)], point_charges=point_charges)
    check_names([name], [*SHORT_NAMES, *METHODS], "a reference method")
    content: dict[str, Any] = {}
    # A comma inside a value, as of a basis 6-31g(d,p), is followed by no key.
    for entry in re.split(r",(?=\s*\w+\s*=)", written) if colon else ():
        set_value(content, f"{name}.{entry.strip()}", f"{name}:key=value")
    listing = f"mlmm label --explain {name}, which lists the options"
    made = reference_method(
        name, **check_table(method_class(name), content.get(name, {}), repr(text), name, listing)
    )
    if point_charges and not made.point_charges:
        able = ", ".join(known for known in METHODS if method_class(known).point_charges)
        raise ConfigError(
            "a method that takes point charges, for an embedded region", made.title, f"choose among {able}"
        )
    return made


def missing(name: str) -> str:
    """Why a method cannot be used here, in a sentence; empty where it can."""
    import numpy as np

    from mlmm.reference.labels import Molecule

    if name == "ase":
        return "" if importlib.util.find_spec("ase") else METHODS[name].install
    hydrogen = Molecule(np.array([1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.074]]))
    if name in ("orca", "psi4"):
        return "" if shutil.which(name) else METHODS[name].install
    options = {"functional": "hf", "basis": "sto-3g"} if name == "pyscf" else {}
    try:
        label = reference_method(name, **options).label(hydrogen)
    except MLMMError as error:
        return str(error.do)
    return "" if label.converged else "it does not converge for a molecule of hydrogen"
