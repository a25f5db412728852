"""The hybrid system as `ase.Atoms` with a calculator, for optimisers, paths and dynamics of ASE.

ASE is imported when first asked for, so that mlmm works without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlmm.errors import ConfigError, MissingPackageError
from mlmm.hybrid.system import HybridSystem
from mlmm.options import Quantity
from mlmm.zones.region import Region

__all__ = ["as_ase"]


def as_ase(
    hybrid: HybridSystem,
    atoms: str | Region | Sequence[int] = "all",
    *,
    environment: str = "frozen",
    positions: np.ndarray | None = None,
    box_vectors: np.ndarray | None = None,
    tolerance: Quantity = "1 kJ/mol/nm",
    platform: str = "",
    threads: int = 0,
) -> Any:
    """Give the hybrid potential energy surface to ASE: E(R) of all atoms, or of some in their environment.

    - All atoms: E(R), forces −∂E/∂R and, in a periodic system without constraints, stress.
    - Some atoms, ``environment="frozen"``: E(R, x₀), everything else where it is.
    - Some atoms, ``environment="relaxed"``: min over x of E(R, x), by micro-iterations; at the minimum its
      gradient is the partial derivative ∂E/∂R (Hellmann-Feynman), here exact up to `tolerance`.

    Parameters
    ----------
    hybrid : HybridSystem
    atoms : "all", "region", selection, Region or sequence of int
        Which atoms ASE gets; "region" are those of the region, any other word is a selection in mdtraj's
        language. Virtual sites are never among them: they follow their atoms.
    environment : {"frozen", "relaxed"}
        What all other atoms do.
    positions : ndarray, shape (N, 3), nm, optional
        Of the whole system, virtual sites included; those of the built system by default.
    box_vectors : ndarray, shape (3, 3), nm, optional
        The built system's by default.
    tolerance : str or float
        Root-mean-square force on the environment at which it counts as relaxed, kJ/mol/nm.
    platform : str
        OpenMM platform; CUDA, HIP or CPU, the first that works, if empty. "Reference" is slow and in double
        precision, as second differences of the energy (frequencies) need it.
    threads : int
        Of the CPU platform; 0 for as many as the environment or the machine has.

    Returns
    -------
    ase.Atoms
        With a `mlmm.interfaces.calculator.HybridCalculator`; positions and cell in Å, the masses of the
        System (repartitioned ones too), tags 1 for lambda = 1, 2 for lambda between 0 and 1, 0 for the
        environment, names and numbers of residues, and the place of each atom in the System as array
        ``system_index``. Where the force field holds distances constant (rigid water, bonds to hydrogen), ASE
        holds them too, by `ase.constraints.FixBondLengths`.

    Raises
    ------
    ConfigError
        Another word for the environment, or positions and box of another system.
    SelectionError
        Atoms that do not exist, or that are none of matter (virtual sites).
    EmbeddingError
        A constraint between an atom that ASE gets and one that it does not get.
    MissingPackageError
        ASE is not installed.

    References
    ----------
    Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017), doi 10.1088/1361-648X/aa680e.
    """
    if environment not in ("frozen", "relaxed"):
        raise ConfigError(
            "environment = frozen | relaxed",
            repr(environment),
            'write environment = "frozen"; with atoms = "all" everything is free',
        )
    try:
        import ase  # noqa: F401
    except ImportError as error:
        raise MissingPackageError("ASE", str(error), "pip install 'mlmm[ase]'") from error
    from mlmm.interfaces.calculator import HybridCalculator

    calculator = HybridCalculator(
        hybrid,
        atoms,
        relaxed=environment == "relaxed",
        positions=positions,
        box_vectors=box_vectors,
        tolerance=tolerance,
        platform=platform,
        threads=threads,
    )
    return calculator.new_atoms()
