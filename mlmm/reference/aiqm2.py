"""AIQM2: GFN2-xTB without its dispersion, a correction by eight networks, and D4 of wB97X.

E = E_GFN2*(R; Q, charges) + (1/8) sum_k sum_i N_k(AEV_i) + E_D4(R; Q) + sum_i e(Z_i). GFN2* is GFN2-xTB
without D4; N_k are networks on the symmetry functions of ANI-1x with another angular part; D4 has the damping
of wB97X in dftd4 3, which version 4 keeps under no name, hence by its numbers. Point charges act on GFN2*
alone, so that forces on them come from there. For H, C, N, O; the networks learned neutral molecules, and
their spread, which is in the record, is several times larger for anions.

AIQM2: doi:10.5281/zenodo.15383333; MLatom: doi:10.1021/acs.jctc.3c01203; D4: doi:10.1063/1.5090222.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from mlmm.errors import MissingPackageError
from mlmm.options import check_fields, documented, number, setting
from mlmm.reference.aiqm2_files import find_networks
from mlmm.reference.aiqm2_networks import AIQM2Networks
from mlmm.reference.labels import Label, Molecule
from mlmm.reference.method import Stopwatch, check_molecule, settings_in_words
from mlmm.reference.xtb import XTB
from mlmm.units import BOHR, HARTREE

__all__ = ["AIQM2", "D4_DAMPING"]

#: Damping of D4 for wB97X in dftd4 3; version 4 has other numbers under that name, wrong by up to 150 kJ/mol.
D4_DAMPING: Mapping[str, float] = {
    "s6": 1.0, "s8": -0.07519516, "s9": 1.0, "a1": 0.45094893, "a2": 6.78425255, "alp": 16.0,
}  # fmt: skip
#: Isolated-atom energies that belong to the absolute energy, hartree.
_SELF_ENERGIES = {1: -0.09447746, 6: -35.91187756, 7: -51.77523702, 8: -71.10796886}
_FORCE = -HARTREE / BOHR


@documented
@dataclass(frozen=True)
class AIQM2:
    """AIQM2, in a vacuum or among true point charges; its networks are fetched, never shipped."""

    point_charges: ClassVar[bool] = True

    accuracy: float = number(0.1, "xtb's factor for all thresholds; smaller is tighter", above=0)
    iterations: int = number(250, "most iterations of the self-consistent charges", least=1)
    networks: str = setting("", "folder with cv0.pt to cv7.pt of MLatom; looked for if empty", path=True)
    parameters: str = setting(
        "", "param_gfn2-xtb.txt of xtb; written from tblite, or found, if empty", path=True
    )
    library: str = setting("", "libxtb.so; that of the wheel, conda or the system if empty", path=True)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def title(self) -> str:
        """Level of theory."""
        return "AIQM2, true point charges in its GFN2-xTB"

    def label(self, molecule: Molecule) -> Label:
        """Energy, forces, forces on the point charges, charges and dipole of GFN2-xTB of one molecule.

        Raises
        ------
        ConfigError
            An element other than H, C, N, O, or electrons that do not go with the multiplicity.
        PotentialError
            Without the published networks.
        MissingPackageError
            Without dftd4, the library of xtb, or parameters for true point charges.
        """
        watch = Stopwatch()
        check_molecule(self, molecule, most=8, elements=tuple(_SELF_ENERGIES))
        tight_binding = XTB(
            dispersion=False,
            accuracy=self.accuracy,
            iterations=self.iterations,
            parameters=self.parameters,
            library=self.library,
        )
        base = tight_binding.label(molecule)
        version, dispersion, dispersion_gradient = dispersion_energy(molecule)
        record = {
            **base.record,
            "program": "xtb, dftd4 and the networks of MLatom",
            "version": f"xtb {base.record['version']}, dftd4 {version}, networks of mlatom 3.25.5",
            "settings": settings_in_words(self, ("networks", "parameters", "library")),
        }
        if not base.converged or base.forces is None:
            return replace(base, method=self.title, record=record)
        energies, gradient = _networks(str(find_networks(self.networks)))(
            molecule.numbers, molecule.positions
        )
        shift = sum(_SELF_ENERGIES[int(number)] for number in molecule.numbers)
        record["network_spread"] = f"{np.std(energies, ddof=1) * HARTREE:.3f} kJ/mol"
        record["seconds"] = str(watch)
        return Label(
            energy=base.energy + HARTREE * (float(energies.mean()) + dispersion + shift),
            forces=base.forces + _FORCE * (gradient + dispersion_gradient),
            external_forces=base.external_forces,
            charges=base.charges,
            dipole=base.dipole,
            method=self.title,
            record=record,
        )

    def member_energies(self, molecule: Molecule) -> np.ndarray:
        """Corrections of the eight networks (8,), kJ/mol; all else in the energy is the same for each.

        Raises
        ------
        PotentialError
            Without the published networks.
        """
        check_molecule(self, molecule, most=8, elements=tuple(_SELF_ENERGIES))
        networks = _networks(str(find_networks(self.networks)))
        return HARTREE * networks(molecule.numbers, molecule.positions)[0]


def dispersion_energy(molecule: Molecule) -> tuple[str, float, np.ndarray]:
    """D4 with the damping of wB97X in AIQM2: version of dftd4, hartree, gradient (N, 3) in hartree/bohr.

    Raises
    ------
    MissingPackageError
    """
    try:
        from dftd4.interface import DampingParam, DispersionModel
        from dftd4.library import get_api_version
    except ImportError as error:
        raise MissingPackageError("the package dftd4", "none", "pip install dftd4") from error
    model = DispersionModel(molecule.numbers, molecule.positions / BOHR, charge=float(molecule.charge))
    found = model.get_dispersion(DampingParam(**D4_DAMPING), grad=True)
    return str(get_api_version()), float(found["energy"]), np.array(found["gradient"])


@functools.lru_cache(maxsize=2)
def _networks(folder: str) -> AIQM2Networks:
    return AIQM2Networks(Path(folder))
