"""ORCA by its files: input, gradient file, file of gradients on point charges, output.

ORCA: Neese, WIREs Comput. Mol. Sci. 2022, 12, e1606, doi:10.1002/wcms.1606. Written from its manual (versions
5 and 6); it was not run by the project, only the files were tested.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError
from mlmm.options import check_fields, documented, number, setting
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import Stopwatch, answered, check_molecule, failed, settings_in_words
from mlmm.reference.program_files import find_program, run_program
from mlmm.units import ANGSTROM

__all__ = ["Orca", "input_text", "read_charges", "read_gradient", "read_point_charge_gradient"]

_SITE = "https://www.faccts.de/orca"
# ORCA goes on to the gradient from orbitals that are nearly converged, if its input lets it.
_NOT_CONVERGED = ("scf not converged", "did not converge", "not fully converged")
_NORMAL_END = "ORCA TERMINATED NORMALLY"
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


@documented
@dataclass(frozen=True)
class Orca:
    """Any method of ORCA that has an analytic gradient, in a vacuum or among point charges."""

    point_charges: ClassVar[bool] = True

    keywords: str = setting(
        "wB97X-D3BJ def2-TZVP TightSCF", "the line after ! in ORCA's input, without EnGrad"
    )
    blocks: str = setting("", "further input, such as %scf MaxIter 300 end", example="%scf MaxIter 300 end")
    program: str = setting("", "full path of orca; the first on PATH if empty", path=True)
    memory: int = number(2000, "%maxcore, MB", least=100)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """Level of theory."""
        return f"{' '.join([*self.keywords.split(), *self.blocks.split()])} (ORCA)"

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces on atoms and point charges, and Mulliken charges of one molecule.

        Raises
        ------
        ConfigError
            A program that cannot be run, or files of it that are not understood.
        MissingPackageError
            No ORCA on PATH.
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=len(SYMBOLS) - 1)
        program = find_program("orca", self.program, _SITE)
        files = {"job.inp": input_text(molecule, self.keywords, self.blocks, self.memory)}
        if molecule.external is not None:
            files["charges.pc"] = point_charge_text(molecule)
        with tempfile.TemporaryDirectory(prefix="mlmm-orca-") as name:
            folder = Path(name)
            output, failure = run_program([program, "job.inp"], folder, files)
            version = re.search(r"Program Version (\S+)", output)
            record = {
                "program": "ORCA",
                "version": version[1] if version else "unknown",
                "settings": settings_in_words(self, ("program", "memory")),
                "charges": "Mulliken",
            }
            gradient_file = folder / "job.engrad"
            if any(words in output.lower() for words in _NOT_CONVERGED):
                return failed(self, "the self-consistent field did not converge", record, watch)
            if failure or not gradient_file.is_file():
                return failed(self, failure or "no gradient file was written", record, watch)
            if _NORMAL_END not in output:
                return failed(self, f"its output ends without {_NORMAL_END!r}", record, watch)
            energy, gradient = read_gradient(gradient_file.read_text(encoding="utf-8"), len(molecule))
            on_charges = None
            if molecule.external is not None:
                charge_file = folder / "job.pcgrad"
                text = charge_file.read_text(encoding="utf-8") if charge_file.is_file() else "0"
                on_charges = read_point_charge_gradient(text, len(molecule.external))
        charges = read_charges(output, len(molecule))
        return answered(self, record, watch, energy, gradient, on_charges, charges=charges)


def input_text(molecule: Molecule, keywords: str, blocks: str, memory: int) -> str:
    """Input of ORCA for energy and gradient; coordinates in angstrom."""
    lines = [f"! {' '.join(keywords.split())} EnGrad", f"%maxcore {memory}", "%pal nprocs 1 end"]
    lines += [blocks.strip()] if blocks.strip() else []
    if molecule.external is not None and len(molecule.external):
        lines.append('%pointcharges "charges.pc"')
    lines.append(f"* xyz {molecule.charge} {molecule.multiplicity}")
    for element, place in zip(molecule.numbers, molecule.positions / ANGSTROM, strict=True):
        lines.append(f"{SYMBOLS[element]:2} {place[0]:18.12f} {place[1]:18.12f} {place[2]:18.12f}")
    return "\n".join([*lines, "*", ""])


def point_charge_text(molecule: Molecule) -> str:
    """File of point charges: their number, then charge and position in angstrom."""
    assert molecule.external is not None
    external = molecule.external
    rows = zip(external.charges, external.positions / ANGSTROM, strict=True)
    lines = [f"{charge:16.10f} {x:18.12f} {y:18.12f} {z:18.12f}" for charge, (x, y, z) in rows]
    return "\n".join([str(len(external)), *lines, ""])


def read_gradient(text: str, atoms: int) -> tuple[float, np.ndarray]:
    """Energy (hartree) and gradient (N, 3) of a file ``.engrad``, hartree/bohr.

    Raises
    ------
    ConfigError
        Another number of atoms, or a file that is cut short.
    """
    values = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    numbers = [word for row in values for word in row]
    found = int(numbers[0]) if numbers and numbers[0].isdigit() else -1
    if found != atoms or len(numbers) < 2 + 3 * atoms:
        raise ConfigError(
            f"ORCA's gradient file with {atoms} atoms", f"one with {found}" if found >= 0 else "another file",
            "look whether ORCA ended normally",
        )  # fmt: skip
    gradient = np.array(numbers[2 : 2 + 3 * atoms], dtype=np.float64).reshape(atoms, 3)
    return float(numbers[1]), gradient


def read_point_charge_gradient(text: str, count: int) -> np.ndarray:
    """Gradient (M, 3) of a file ``.pcgrad``, hartree/bohr. ConfigError for another number of charges."""
    numbers = _NUMBER.findall(text)
    if not numbers or int(numbers[0]) != count or len(numbers) != 1 + 3 * count:
        raise ConfigError(
            f"ORCA's gradient on {count} point charges",
            f"{(len(numbers) - 1) // 3} rows",
            "look whether ORCA ended normally",
        )
    return np.array(numbers[1:], dtype=np.float64).reshape(count, 3)


def read_charges(output: str, atoms: int) -> np.ndarray | None:
    """Mulliken charges of the last population analysis in ORCA's output; None without one."""
    blocks = re.findall(r"MULLIKEN ATOMIC CHARGES.*\n-+\n((?:\s*\d+\s+\w+\s*:.*\n)+)", output)
    if not blocks:
        return None
    rows = [line.partition(":")[2].split() for line in blocks[-1].splitlines() if ":" in line]
    return np.array([float(row[0]) for row in rows]) if len(rows) == atoms else None
