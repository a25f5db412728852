"""Parameters of GFN2-xTB for the xtb library, with an element that is a true point charge.

xtb screens the Coulomb interaction between an atom and a point charge with the mean of two hardnesses,
gamma = 1/sqrt(R^2 + 1/eta^2), eta = (eta_atom + eta_charge)/2, where the hardness of a charge is that of an
element which the caller names. An element's own hardness spreads the charge over an angstrom (the interaction
of acetate with water is off by more than 100 kJ/mol), and a hardness as such cannot be given. Hence the
parameters name one: element 86, radon, becomes as hard as a point, which no molecule then may contain.

The numbers are those of Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 2019, 15, 1652,
doi:10.1021/acs.jctc.8b01176. They are written from tblite, if it is installed, or read from xtb's own file
``param_gfn2-xtb.txt``, which wheels of xtb lack; both give the same energies.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlmm.errors import ConfigError, MissingPackageError

__all__ = ["POINT_CHARGE", "own_file", "parameter_file", "parameter_text", "point_charge_parameters"]

#: Atomic number that stands for a point charge.
POINT_CHARGE = 86
#: Its hardness, hartree: a Coulomb law that is bare beyond 0.02 bohr.
HARDNESS = 99.0
_FILE = "param_gfn2-xtb.txt"
_ORBITAL = re.compile(r"(\d)([spdf])")


def own_file(path: str = "") -> Path | None:
    """Find xtb's parameter file: `path`, ``MLMM_XTB_PARAMETERS``, ``XTBPATH``, or beside an installed xtb.

    Raises
    ------
    ConfigError
        `path` or ``MLMM_XTB_PARAMETERS`` names a file that does not exist.
    """
    named, said = path, "the option `parameters`"
    if not named:
        named, said = os.environ.get("MLMM_XTB_PARAMETERS", ""), "MLMM_XTB_PARAMETERS"
    if named:
        found = Path(named) / _FILE if Path(named).is_dir() else Path(named)
        if not found.is_file():
            raise ConfigError(f"{said} to name {_FILE}", f"{found}, which does not exist", "correct the path")
        return found
    folders = [Path(folder) for folder in os.environ.get("XTBPATH", "").split(os.pathsep) if folder]
    program = shutil.which("xtb")
    if program:
        folders.append(Path(program).resolve().parent.parent / "share/xtb")
    if os.environ.get("CONDA_PREFIX"):
        folders.append(Path(os.environ["CONDA_PREFIX"]) / "share/xtb")
    folders += [Path("/usr/share/xtb"), Path("/usr/local/share/xtb")]
    return next((folder / _FILE for folder in folders if (folder / _FILE).is_file()), None)


def parameter_text(path: str = "") -> tuple[str, str]:
    """Return the parameters of GFN2-xTB in xtb's format, unchanged, and where they come from.

    Parameters
    ----------
    path : str
        A file to use; looked for if empty.

    Raises
    ------
    MissingPackageError
        Neither tblite nor the file is there.
    """
    if not path and not os.environ.get("MLMM_XTB_PARAMETERS"):
        exported = _from_tblite()
        if exported:
            return exported, "tblite"
    found = own_file(path)
    if found is None:
        raise MissingPackageError(
            f"a tblite that exports its parameters (0.8 does), or {_FILE} of xtb, for true point charges",
            "neither of them",
            f"pip install 'tblite>=0.8', or take {_FILE} from a package of xtb (Debian: xtb; conda-forge: "
            "xtb; releases on GitHub) and set MLMM_XTB_PARAMETERS to its path",
        )
    return found.read_text(encoding="utf-8"), _FILE


def point_charge_parameters(text: str, dispersion: bool = True) -> str:
    """Make element 86 a point charge, and switch off the D4 term where it is not wanted.

    Parameters
    ----------
    text : str
        As `parameter_text` gives it.
    dispersion : bool
        False: a2 = 1e6 bohr damps the pair terms away and s9 = 0 leaves out those of three atoms.

    Raises
    ------
    ConfigError
        Text that is not in the format of xtb's parameter file of GFN2-xTB.
    """
    changed, count = re.subn(
        rf"(?m)(^\$Z={POINT_CHARGE}\b(?:(?!^\$end)[\s\S])*?^ GAM= *)\S+", rf"\g<1>{HARDNESS:.6f}", text
    )
    if not dispersion:
        for key, value in (("a2", "1000000.0"), ("s9", "0.0")):
            changed, found = re.subn(rf"(?m)^({key} +)\S+", rf"\g<1>{value}", changed)
            count = min(count, found)
    if count != 1 or "name GFN2-xTB" not in text:
        raise ConfigError(
            "parameters of GFN2-xTB in xtb's format, with element 86 and the keys a2 and s9",
            "another text",
            f"use {_FILE} of xtb 6",
        )
    return changed


@functools.lru_cache(maxsize=8)
def parameter_file(path: str = "", dispersion: bool = True) -> tuple[Path, str]:
    """Write changed parameters into a temporary file of this process; returns it and its source.

    Errors as `parameter_text` and `point_charge_parameters`.
    """
    text, source = parameter_text(path)
    target = Path(_folder().name) / f"gfn2-{len(list(Path(_folder().name).iterdir()))}.txt"
    target.write_text(point_charge_parameters(text, dispersion), encoding="utf-8")
    return target, source


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mlmm-xtb-")


@functools.lru_cache(maxsize=1)
def _from_tblite() -> str:
    """Parameters of GFN2-xTB that tblite exports, in xtb's format; empty without a tblite that can."""
    try:
        from tblite import library
    except ImportError:
        return ""
    if not hasattr(library, "export_gfn2_param"):
        return ""
    parameters, table = library.new_param(), library.new_table()
    library.export_gfn2_param(parameters)
    library.dump_param(parameters, table)
    return _in_format_of_xtb(library.table_to_dict(table))


def _in_format_of_xtb(table: Mapping[str, Any]) -> str:
    """Write tblite's table as xtb's file: the same numbers, in xtb's units and powers of ten."""
    hamiltonian, d4 = table["hamiltonian"]["xtb"], table["dispersion"]["d4"]
    shells, third = hamiltonian["shell"], table["thirdorder"]["shell"]
    multipole, repulsion = table["multipole"]["damped"], table["repulsion"]["effective"]
    general = {
        "ks": shells["ss"], "kp": shells["pp"], "kd": shells["dd"], "ksd": shells["sd"], "kpd": shells["pd"],
        "kdiff": hamiltonian["kpol"], "enscale": 100 * hamiltonian["enscale"],
        "gam3s": third["s"], "gam3p": third["p"], "gam3d1": third["d"], "gam3d2": third["d"],
        "aesshift": multipole["shift"], "aesexp": multipole["kexp"], "aesrmax": multipole["rmax"],
        "alphaj": table["charge"]["effective"]["gexp"],
        "a1": d4["a1"], "a2": d4["a2"], "s8": d4["s8"], "s9": d4["s9"],
        "aesdmp3": multipole["dmp3"], "aesdmp5": multipole["dmp5"],
        "kexp": repulsion["kexp"], "kexplight": repulsion["klight"],
    }  # fmt: skip
    lines = ["$info", "level 2", "name GFN2-xTB", "doi 10.1021/acs.jctc.8b01176", "$globpar"]
    lines += [f"{key} {value:.8f}" for key, value in general.items()]
    lines += ["$end", "$pairpar", "$end"]
    for number, element in enumerate(table["element"].values(), 1):
        lines += [f"$Z={number:2d}", *(f" {key}= {value}" for key, value in _element(element)), "$end"]
    return "\n".join(lines) + "\n"


def _element(element: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("ao", "".join(element["shells"])),
        ("lev", " ".join(f"{level:.6f}" for level in element["levels"])),
        ("exp", " ".join(f"{exponent:.6f}" for exponent in element["slater"])),
        ("GAM", f"{element['gam']:.6f}"),
        ("GAM3", f"{10 * element['gam3']:.6f}"),
    ]
    momenta = [_ORBITAL.fullmatch(shell)[2].upper() for shell in element["shells"]]  # type: ignore[index]
    rows += [(f"KCN{of}", f"{10 * value:.6f}") for of, value in zip(momenta, element["kcn"], strict=True)]
    rows += [("DPOL", f"{100 * element['dkernel']:.6f}"), ("QPOL", f"{100 * element['qkernel']:.6f}")]
    rows += [("REPA", f"{element['arep']:.6f}"), ("REPB", f"{element['zeff']:.6f}")]
    rows += [
        (f"POLY{of}", f"{100 * value:.6f}") for of, value in zip(momenta, element["shpoly"], strict=True)
    ]
    relative = [(of, 10 * (value - 1)) for of, value in zip(momenta, element["lgam"], strict=True)]
    return rows + [(f"LPAR{of}", f"{value:.6f}") for of, value in relative if of != "S"]
