"""Psi4 by its files: an input that writes energy and gradients as JSON, and the reader of that.

Psi4: Smith et al., J. Chem. Phys. 2020, 152, 184108, doi:10.1063/5.0006002. Written from its manual (1.7 and
later); it was not run by the project, only the files were tested.
"""

from __future__ import annotations

import json
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
from mlmm.units import BOHR

__all__ = ["Psi4", "input_text", "read_answer"]

_SITE = "https://psicode.org (conda-forge: psi4)"
_INPUT = """memory {memory} MB
molecule mol {{
  units bohr
  no_com
  no_reorient
  symmetry c1
  {charge} {multiplicity}
{atoms}
}}
set {{
  basis {basis}
  reference {reference}
  scf_type {scf_type}
  maxiter {iterations}
{settings}}}
import json
import numpy as np
answer = {{"version": psi4.__version__, "converged": True}}
try:
    field = {field}
    keywords = {{}} if field is None else {{"external_potentials": field}}
    slope, wfn = gradient("{method}", return_wfn=True, **keywords)
    answer["energy"] = wfn.energy()
    answer["gradient"] = np.asarray(slope).tolist()
    if field is not None and len(field):
        answer["on_charges"] = np.asarray(wfn.external_pot().gradient_on_charges()).tolist()
    oeprop(wfn, "MULLIKEN_CHARGES")
    answer["charges"] = np.asarray(wfn.atomic_point_charges()).tolist()
except psi4.ConvergenceError as error:
    answer = {{"version": psi4.__version__, "converged": False, "failure": str(error)}}
with open("answer.json", "w") as file:
    json.dump(answer, file)
"""


@documented
@dataclass(frozen=True)
class Psi4:
    """Any method of Psi4 that has an analytic gradient, in a vacuum or among point charges."""

    point_charges: ClassVar[bool] = True

    functional: str = setting("wb97x-d3bj", "functional or method as Psi4 names it")
    basis: str = setting("def2-svp", "basis set as Psi4 names it")
    density_fitting: bool = setting(True, "Coulomb and exchange by density fitting")
    settings: tuple[str, ...] = setting(
        (), "further lines of Psi4's set block", example=("dft_spherical_points 590",)
    )
    iterations: int = number(100, "most iterations of the self-consistent field", least=1)
    program: str = setting("", "full path of psi4; the first on PATH if empty", path=True)
    memory: int = number(2000, "memory, MB", least=100)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """Level of theory."""
        fitted = ", density fitting" if self.density_fitting else ""
        further = "".join(f", {line}" for line in self.settings)
        return f"{self.functional.lower()}/{self.basis.lower()}{fitted}{further} (Psi4)"

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces on atoms and point charges, and Mulliken charges of one molecule.

        Raises
        ------
        ConfigError
            A program that cannot be run, or an answer of it that is not understood.
        MissingPackageError
            No Psi4 on PATH.
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=len(SYMBOLS) - 1)
        program = find_program("psi4", self.program, _SITE)
        record = {
            "program": "Psi4",
            "version": "unknown",
            "settings": settings_in_words(self, ("program", "memory")),
            "charges": "Mulliken",
        }
        with tempfile.TemporaryDirectory(prefix="mlmm-psi4-") as name:
            folder = Path(name)
            files = {"job.in": input_text(self, molecule)}
            _, failure = run_program([program, "-n", "1", "job.in", "job.out"], folder, files)
            answer_file = folder / "answer.json"
            if not answer_file.is_file():
                return failed(self, failure or "no answer was written", record, watch)
            return read_answer(self, answer_file.read_text(encoding="utf-8"), molecule, record, watch)


def input_text(method: Psi4, molecule: Molecule) -> str:
    """Input of Psi4 for energy and gradient, which writes ``answer.json``; coordinates in bohr."""
    places = zip(molecule.numbers, molecule.positions / BOHR, strict=True)
    atoms = [f"  {SYMBOLS[z]:2} {x:18.12f} {y:18.12f} {w:18.12f}" for z, (x, y, w) in places]
    field = None
    if molecule.external is not None:
        external = molecule.external
        field = np.column_stack([external.charges, external.positions / BOHR]).tolist()
    return _INPUT.format(
        memory=method.memory,
        charge=molecule.charge,
        multiplicity=molecule.multiplicity,
        atoms="\n".join(atoms),
        basis=method.basis,
        reference="rks" if molecule.multiplicity == 1 else "uks",
        scf_type="df" if method.density_fitting else "direct",
        iterations=method.iterations,
        settings="".join(f"  {line}\n" for line in method.settings),
        field=field,
        method=method.functional,
    )


def read_answer(
    method: Psi4, text: str, molecule: Molecule, record: dict[str, str], watch: Stopwatch
) -> Label:
    """The label in ``answer.json``.

    Raises
    ------
    ConfigError
        Numbers for other atoms or charges than those of the molecule, or another file.
    """
    around = 0 if molecule.external is None else len(molecule.external)
    try:
        answer = json.loads(text)
        record = {**record, "version": str(answer["version"])}
        if not answer["converged"]:
            return failed(method, str(answer["failure"]), record, watch)
        gradient = np.array(answer["gradient"], dtype=np.float64).reshape(len(molecule), 3)
        on_charges = np.array(answer.get("on_charges", []), dtype=np.float64).reshape(around, 3)
        energy, charges = float(answer["energy"]), np.array(answer["charges"], dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Psi4's answer for {len(molecule)} atoms and {around} point charges",
            f"{type(error).__name__}: {error}",
            "look whether this version of Psi4 is 1.7 or later",
        ) from error
    among = None if molecule.external is None else on_charges
    return answered(method, record, watch, energy, gradient, among, charges=charges)
