"""Hartree-Fock and density functionals by PySCF, in a vacuum or among point charges.

PySCF: Sun et al., J. Chem. Phys. 2020, 153, 024109, doi:10.1063/5.0006074. Point charges enter the
one-electron Hamiltonian bare; the gradient is taken on both sides. On a GPU it is gpu4pyscf
(arXiv:2404.09452) that computes, if it is asked for; it was not run by the project.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError, MissingPackageError
from mlmm.options import check_fields, documented, number, setting, word
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import Stopwatch, answered, check_molecule, failed, settings_in_words
from mlmm.units import BOHR

__all__ = ["PySCF"]


@documented
@dataclass(frozen=True)
class PySCF:
    """Hartree-Fock or a density functional by PySCF, restricted for a closed shell, else unrestricted."""

    point_charges: ClassVar[bool] = True

    functional: str = setting(
        "wb97x-d3bj", 'as PySCF names it, dispersion included, such as "b3lyp-d3bj"; "hf" for Hartree-Fock'
    )
    basis: str = setting("6-31+g*", "basis set as PySCF names it")
    dispersion: str = setting("", "d3bj or d4 for a functional that does not name its own", example="d3bj")
    density_fitting: bool = setting(True, "Coulomb and exchange by density fitting")
    auxiliary_basis: str = setting("", "of the density fitting; the one that goes with the basis if empty")
    grid_level: int = number(3, "integration grid of a functional, 0 to 9", least=0, most=9)
    grid_response: bool = setting(
        True, "derivative of the grid's weights in the forces: exact gradients on coarse grids, at a cost"
    )
    convergence: float = number(1e-9, "of the energy, hartree", above=0)
    iterations: int = number(100, "most iterations of the self-consistent field", least=1)
    second_order: bool = setting(True, "go on by Newton's method where the iterations do not converge")
    forces: bool = setting(True, "forces as well as the energy")
    device: str = word("cpu", ("cpu", "gpu"), "gpu: gpu4pyscf, which the project did not run")
    memory: int = number(4000, "memory that PySCF plans with, MB", least=100)

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("functional", "basis"):
            if not getattr(self, name).strip():
                raise ConfigError(f"a {name}", "an empty text", f'write {name} = "…" as PySCF names it')
        if self.basis.strip().lower().startswith("gth"):
            raise ConfigError(
                "a basis for all electrons, or with a core potential",
                f"{self.basis!r}, which goes with a pseudopotential of crystals",
                "correct basis, such as 6-31+g* or def2-tzvp",
            )

    @property
    def title(self) -> str:
        """Level of theory."""
        functional = f"{self.functional.lower()}{'-' if self.dispersion else ''}{self.dispersion.lower()}"
        fitted = ", density fitting" if self.density_fitting else ""
        return f"{functional}/{self.basis.lower()}{fitted} ({self._program})"

    @property
    def _program(self) -> str:
        return "gpu4pyscf" if self.device == "gpu" else "pyscf"

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces on atoms and point charges, meta-Löwdin charges and dipole of one molecule.

        Raises
        ------
        ConfigError
            A functional or a basis that PySCF does not know, or a basis without one of the elements.
        MissingPackageError
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=len(SYMBOLS) - 1)
        try:
            import pyscf
        except ImportError as error:
            raise MissingPackageError(
                "the package pyscf", "none", "pip install pyscf pyscf-dispersion"
            ) from error
        gpu = self.device == "gpu"
        record = {
            "program": self._program,
            "version": _gpu_version() if gpu else pyscf.__version__,
            "settings": settings_in_words(self, ("device", "memory")),
            "charges": "meta-Löwdin",
        }
        field = self._field(molecule, gpu)
        energy = float(field.kernel())
        if not field.converged and self.second_order:
            field = field.newton()
            energy = float(field.kernel())
            record["solver"] = "second order"
        if not field.converged:
            return failed(self, f"not converged in {self.iterations} iterations", record, watch)
        gradients = self._gradients(field, molecule) if self.forces else (None, None)
        host = field.to_cpu() if gpu else field
        density = host.make_rdm1()
        charges = np.asarray(host.mulliken_meta(dm=density, verbose=0)[1])
        dipole = np.asarray(host.dip_moment(dm=density, unit="AU", verbose=0))
        return answered(self, record, watch, energy, *gradients, charges=charges, dipole=dipole)

    def _field(self, molecule: Molecule, gpu: bool) -> Any:
        """The self-consistent field of PySCF, ready to run."""
        from pyscf import dft, gto, qmmm, scf
        from pyscf.gto.basis import BasisNotFoundError

        symbols = [SYMBOLS[number] for number in molecule.numbers]
        try:
            with warnings.catch_warnings():
                # For a basis that it lacks it recommends another package, and raises.
                warnings.simplefilter("ignore", UserWarning)
                core = {symbol: self.basis for symbol in set(symbols) if _has_core(self.basis, symbol)}
                mol = gto.M(
                    atom=list(zip(symbols, molecule.positions / BOHR, strict=True)),
                    unit="Bohr",
                    basis=self.basis,
                    ecp=core,
                    charge=molecule.charge,
                    spin=molecule.multiplicity - 1,
                    verbose=0,
                    max_memory=self.memory,
                )
        except (BasisNotFoundError, KeyError) as error:
            raise ConfigError(
                f"a basis set of PySCF with {', '.join(sorted(set(symbols)))}",
                f"{self.basis!r} ({error})",
                "correct basis, such as 6-31+g* or def2-tzvp",
            ) from error
        closed = molecule.multiplicity == 1
        if self.functional.lower() == "hf":
            field = scf.RHF(mol) if closed else scf.UHF(mol)
        else:
            self._check_functional()
            field = dft.RKS(mol) if closed else dft.UKS(mol)
            field.xc, field.grids.level = self.functional, self.grid_level
        if self.dispersion:
            field.disp = self.dispersion.lower()
        field.conv_tol, field.max_cycle, field.chkfile = self.convergence, self.iterations, None
        if self.density_fitting:
            field = field.density_fit(auxbasis=self.auxiliary_basis or None)
        if gpu:
            field = field.to_gpu()
        if molecule.external is not None:
            external = molecule.external
            field = qmmm.mm_charge(field, external.positions / BOHR, external.charges, unit="Bohr")
        return field

    def _check_functional(self) -> None:
        from pyscf.dft import libxc
        from pyscf.scf.dispersion import parse_dft

        try:
            libxc.parse_xc(parse_dft(self.functional)[0])
        except (KeyError, NotImplementedError, ValueError) as error:
            raise ConfigError(
                "a functional that PySCF knows",
                f"{self.functional!r} ({error})",
                "correct functional, such as wb97x-d3bj, b3lyp-d3bj, pbe0 or hf",
            ) from error

    def _gradients(self, field: Any, molecule: Molecule) -> tuple[np.ndarray, np.ndarray | None]:
        """Gradients on atoms and on point charges, hartree/bohr."""
        gradient = field.nuc_grad_method()
        gradient.verbose = 0
        if self.functional.lower() != "hf":
            gradient.grid_response = self.grid_response
        on_atoms = _on_host(gradient.kernel())
        if molecule.external is None:
            return on_atoms, None
        density = _on_host(field.make_rdm1())
        total = density if density.ndim == 2 else density.sum(axis=0)
        on_charges = _on_host(gradient.grad_nuc_mm()) + _on_host(gradient.grad_hcore_mm(total))
        return on_atoms, on_charges


def _has_core(basis: str, symbol: str) -> bool:
    """Whether a basis goes with a core potential for an element, which PySCF leaves out unless it is told."""
    from pyscf.gto.basis import BasisNotFoundError, load_ecp

    try:
        return bool(load_ecp(basis, symbol))
    except (BasisNotFoundError, KeyError, RuntimeError):
        return False  # all electrons, or no such basis


def _gpu_version() -> str:
    """Version of gpu4pyscf; MissingPackageError without it."""
    try:
        return str(importlib.import_module("gpu4pyscf").__version__)
    except ImportError as error:
        raise MissingPackageError(
            "the package gpu4pyscf and a GPU", str(error), 'write device = "cpu"'
        ) from error


def _on_host(array: Any) -> np.ndarray:
    """An array of numpy, wherever it was computed."""
    return np.asarray(array.get() if hasattr(array, "get") else array)
