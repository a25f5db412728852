"""A force field as plain arrays: every term that can be shared out among atoms, read from an OpenMM System.

The other side of the fence (`mm_terms`) evaluates these arrays without OpenMM. What cannot be written as a
sum of bonded terms and pairs is refused here by name, so that nothing is lost in silence.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import openmm
from scipy.interpolate import CubicSpline

from mlmm.errors import EmbeddingError
from mlmm.forcefield.term_catalogue import (
    BONDED,
    CATALOGUE,
    STAYS_WHOLE,
    TABULATED,
    BondedTerms,
    Columns,
    class_of,
    described,
    is_kept,
)

__all__ = ["MMTables", "read_mm_tables"]

_MESH = (openmm.NonbondedForce.PME, openmm.NonbondedForce.Ewald)
# Tables of the last few systems, by their content: one hybrid system asks for the same ones many times, and
# reading them costs several times what writing the System as XML does.
_READ: OrderedDict[tuple[bytes, tuple[int, ...]], MMTables] = OrderedDict()
_MOST_READ = 4


@dataclass(frozen=True)
class MMTables:
    """Terms of a force field with fixed charges; nm, kJ/mol, e, radian; indices int64, parameters float64.

    A bonded term is measured without periodic images unless its `..._periodic` is set, as in OpenMM.

    Parameters
    ----------
    n_atoms : int
        Particles of the system, N.
    virtual : ndarray, shape (N,), bool
        Virtual sites.
    bond_atoms, bond_length, bond_k, bond_periodic : ndarray, shapes (B, 2), (B,), (B,), (B,)
        V = k/2 (r − length)². Urey–Bradley springs stand here too.
    angle_atoms, angle_value, angle_k, angle_periodic : ndarray, shapes (A, 3), (A,), (A,), (A,)
        V = k/2 (theta − value)², the second atom in the middle.
    torsion_atoms, torsion_n, torsion_phase, torsion_k, torsion_periodic : ndarray, shapes (T, 4), (T,), …
        V = k (1 + cos(n phi − phase)), impropers included.
    rb_atoms, rb_coefficients, rb_periodic : ndarray, shapes (R, 4), (R, 6), (R,)
        V = sum_m C_m cos^m(phi − pi) (Ryckaert–Bellemans).
    cmap_atoms, cmap_map, cmap_periodic : ndarray, shapes (C, 8), (C,), (C,)
        Atoms of the first, then of the second dihedral; index into `cmap_energies`.
    cmap_energies : tuple of ndarray, shape (size, size)
        Energies at multiples of 2 pi / size, first dihedral in rows.
    charge, sigma, epsilon : ndarray, shape (N,)
        Of the non-bonded force; all zero without one.
    exception_atoms, exception_charge, exception_sigma, exception_epsilon : ndarray, shapes (X, 2), (X,), …
        Pairs with a charge product (e²), sigma and epsilon of their own: 1-4 pairs, and exclusions (zero).
    exceptions_periodic : bool
        Exceptions are measured by minimum image.
    periodic : bool
        Pairs are measured by minimum image.
    cutoff : float
        Of Lennard-Jones; infinite without one. Coulomb has none here (a mesh sums the rest).
    alpha : float
        Ewald's splitting parameter, 1/nm: beyond the cutoff a pair has K q q erf(alpha r)/r. 0 without Ewald.
    switch : float or None
        Where OpenMM's switching function for Lennard-Jones starts.
    """

    n_atoms: int
    virtual: np.ndarray
    bond_atoms: np.ndarray
    bond_length: np.ndarray
    bond_k: np.ndarray
    bond_periodic: np.ndarray
    angle_atoms: np.ndarray
    angle_value: np.ndarray
    angle_k: np.ndarray
    angle_periodic: np.ndarray
    torsion_atoms: np.ndarray
    torsion_n: np.ndarray
    torsion_phase: np.ndarray
    torsion_k: np.ndarray
    torsion_periodic: np.ndarray
    rb_atoms: np.ndarray
    rb_coefficients: np.ndarray
    rb_periodic: np.ndarray
    cmap_atoms: np.ndarray
    cmap_map: np.ndarray
    cmap_energies: tuple[np.ndarray, ...]
    cmap_periodic: np.ndarray
    charge: np.ndarray
    sigma: np.ndarray
    epsilon: np.ndarray
    exception_atoms: np.ndarray
    exception_charge: np.ndarray
    exception_sigma: np.ndarray
    exception_epsilon: np.ndarray
    exceptions_periodic: bool
    periodic: bool
    cutoff: float
    alpha: float
    switch: float | None

    def terms(self, columns: Columns, name: str) -> np.ndarray:
        """One array of a bonded class; `name` is ``"atoms"``, ``"periodic"`` or one of `Columns.names`."""
        return np.asarray(getattr(self, f"{columns.prefix}_{name}"))

    def pair_parameters(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Parameters of pairs of atoms, those of exceptions included.

        Parameters
        ----------
        first, second : ndarray of int, shape (P,)

        Returns
        -------
        charge, sigma, epsilon : ndarray, shape (P,)
            Charge product, e²; nm; kJ/mol.
        own : ndarray, shape (P,), bool
            Exceptions: 1-4 pairs and exclusions.
        """
        charge = self.charge[first] * self.charge[second]
        sigma = 0.5 * (self.sigma[first] + self.sigma[second])
        epsilon = np.sqrt(self.epsilon[first] * self.epsilon[second])
        index = self.exception_index(first, second)
        own = index >= 0
        charge[own], sigma[own] = self.exception_charge[index[own]], self.exception_sigma[index[own]]
        epsilon[own] = self.exception_epsilon[index[own]]
        return charge, sigma, epsilon, own

    def exception_index(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Which exception each pair of atoms is, −1 for none; arrays of one shape, in either order."""
        if not len(self.exception_atoms):
            return np.full(np.shape(first), -1)
        own = np.sort(self.exception_atoms, axis=1) @ np.array([self.n_atoms, 1])
        order = np.argsort(own)
        keys = np.minimum(first, second) * self.n_atoms + np.maximum(first, second)
        place = order[np.searchsorted(own, keys, sorter=order).clip(max=len(own) - 1)]
        return np.where(own[place] == keys, place, -1)

    def cmap_patches(self) -> list[np.ndarray]:
        """Bicubic periodic spline of every map, as OpenMM draws it.

        Returns
        -------
        list of ndarray, shape (size², 4, 4), kJ/mol
            Patch i · size + j holds c of sum_mn c_mn x^m y^n, x and y in [0, 1] from knot (i, j) to the next.
        """
        return [_bicubic(energies) for energies in self.cmap_energies]


def read_mm_tables(system: openmm.System, *, keep: Collection[str] = ()) -> MMTables:
    """All force-field terms of a system.

    Constraints are no terms: a bond that exists only as a constraint has no energy. A system of the same
    content is read once: the same tables come back, and their arrays are read-only.

    Parameters
    ----------
    system : openmm.System
        Not changed.
    keep : collection of str
        Names or class names of forces that stay whole (biases, restraints); they are not read.

    Raises
    ------
    EmbeddingError
        A force that is no sum of known bonded terms and pairs, a second NonbondedForce, parameter offsets,
        Lennard-Jones by a mesh, or a reaction field.
    """
    forces = system.getForces()
    whole = tuple(
        i for i, force in enumerate(forces) if class_of(force) in STAYS_WHOLE or is_kept(force, keep)
    )
    try:
        content = openmm.XmlSerializer.serialize(system)
    except openmm.OpenMMException:  # a force that stays whole and cannot be written
        return _read(system, whole)
    key = hashlib.sha256(content.encode()).digest(), whole
    tables = _READ.get(key)
    if tables is None:
        tables = _READ[key] = _read(system, whole)
    _READ.move_to_end(key)
    while len(_READ) > _MOST_READ:
        _READ.popitem(last=False)
    return tables


def _read(system: openmm.System, whole: Collection[int]) -> MMTables:
    """The tables of all forces but those at some places."""
    found: dict[str, list[tuple[openmm.Force, int]]] = {name: [] for name in TABULATED}
    maps: list[np.ndarray] = []
    nonbonded: openmm.NonbondedForce | None = None
    for place, force in enumerate(system.getForces()):
        name = class_of(force)
        if place in whole:
            continue
        if name == "NonbondedForce":
            if nonbonded is not None:
                raise EmbeddingError(
                    "one NonbondedForce",
                    f"a second one ({force.getName()!r})",
                    "join the two, or build the system with one force field",
                )
            nonbonded = force
        elif name in TABULATED:
            # Several forces of one class may bring CMAP tables each.
            found[name].append((force, len(maps)))
            if name == "CMAPTorsionForce":
                maps.extend(_read_maps(force))
        else:
            raise _refusal(force)
    columns: dict[str, Any] = {}
    for name, own in found.items():
        columns |= _columns(BONDED[name], TABULATED[name], own)
    n_atoms = system.getNumParticles()
    tables = MMTables(
        n_atoms=n_atoms,
        virtual=np.array([system.isVirtualSite(i) for i in range(n_atoms)], dtype=bool),
        cmap_energies=tuple(maps),
        **columns,
        **_read_nonbonded(nonbonded, n_atoms),
    )
    for field in fields(tables):
        value = getattr(tables, field.name)
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
    return tables


def _columns(
    terms: BondedTerms, columns: Columns, forces: list[tuple[openmm.Force, int]]
) -> dict[str, np.ndarray]:
    """Terms of one class as arrays, with the right shapes also for no term at all.

    Parameters
    ----------
    terms : BondedTerms
    columns : Columns
    forces : list of (Force, int)
        Of this class, each with the number of CMAP tables before its own.
    """
    atoms, numbers, images = [], [], []
    for force, first_map in forces:
        every = terms.parameters(force)
        atoms += [terms.atoms(one) for one in every]
        numbers += [terms.numbers(one) for one in every]
        images += [bool(force.usesPeriodicBoundaryConditions())] * len(every)
        if columns.names == (("map", 1),):
            for row in numbers[len(numbers) - len(every) :]:
                row[0] += first_map
    widths = [width for _, width in columns.names]
    matrix = np.array(numbers, dtype=np.float64).reshape(len(numbers), sum(widths))
    arrays = {
        f"{columns.prefix}_atoms": np.array(atoms, dtype=np.int64).reshape(len(atoms), terms.n_atoms or 0),
        f"{columns.prefix}_periodic": np.array(images, dtype=bool),
    }
    parts = np.split(matrix, np.cumsum(widths)[:-1], axis=1)
    for (name, width), part in zip(columns.names, parts, strict=True):
        kind = np.int64 if name == "map" else np.float64
        arrays[f"{columns.prefix}_{name}"] = (part if width > 1 else part[:, 0]).astype(kind)
    return arrays


def _bare(values: Collection[Any]) -> list[float]:
    """Numbers in OpenMM's own units, which are ours."""
    return [float(value._value) if hasattr(value, "_value") else float(value) for value in values]


def _read_maps(force: openmm.CMAPTorsionForce) -> list[np.ndarray]:
    maps = []
    for i in range(force.getNumMaps()):
        size, energies = force.getMapParameters(i)
        # OpenMM runs through the first dihedral fastest.
        maps.append(np.array(_bare(energies), dtype=np.float64).reshape(size, size).T.copy())
    return maps


def _bicubic(energies: np.ndarray) -> np.ndarray:
    """Hermite patches; the slopes at the knots come from periodic cubic splines along rows and columns."""
    size = len(energies)
    # Slopes at the knots, at distance 1, are linear in the energies; the first knot closes the circle.
    circle = np.vstack([np.eye(size), np.eye(size)[:1]])
    slope = CubicSpline(np.arange(size + 1), circle, bc_type="periodic")(np.arange(size), 1)
    along_x, along_y, across = slope @ energies, energies @ slope.T, slope @ energies @ slope.T

    def ends(values: np.ndarray) -> np.ndarray:
        """Values at the four corners of each patch, shape (2, 2, size, size)."""
        return np.array([[np.roll(values, (-i, -j), axis=(0, 1)) for j in (0, 1)] for i in (0, 1)])

    corners = np.concatenate(
        [
            np.concatenate([ends(energies), ends(along_y)], axis=1),
            np.concatenate([ends(along_x), ends(across)], axis=1),
        ]
    )
    # Values and slopes at 0 and 1 -> coefficients of a cubic.
    hermite = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [-3, 3, -2, -1], [2, -2, 1, 1]], dtype=np.float64)
    return np.einsum("mi,ijxy,nj->xymn", hermite, corners, hermite).reshape(size * size, 4, 4)


def _read_nonbonded(force: openmm.NonbondedForce | None, n_atoms: int) -> dict[str, Any]:
    """Charges, Lennard-Jones parameters, exceptions and cutoffs."""
    if force is None:
        force = openmm.NonbondedForce()
        for _ in range(n_atoms):
            force.addParticle(0.0, 1.0, 0.0)
    particles = np.array([_bare(force.getParticleParameters(i)) for i in range(n_atoms)]).reshape(-1, 3)
    _check_nonbonded(force, bool(particles[:, 0].any()))
    exceptions = [force.getExceptionParameters(i) for i in range(force.getNumExceptions())]
    numbers = np.array([_bare(p[2:]) for p in exceptions], dtype=np.float64).reshape(-1, 3)
    method = force.getNonbondedMethod()
    limited = method != openmm.NonbondedForce.NoCutoff
    periodic = method in (*_MESH, openmm.NonbondedForce.CutoffPeriodic)
    return {
        "charge": particles[:, 0].copy(),
        "sigma": particles[:, 1].copy(),
        "epsilon": particles[:, 2].copy(),
        "exception_atoms": np.array([p[:2] for p in exceptions], dtype=np.int64).reshape(-1, 2),
        "exception_charge": numbers[:, 0].copy(),
        "exception_sigma": numbers[:, 1].copy(),
        "exception_epsilon": numbers[:, 2].copy(),
        "exceptions_periodic": periodic and bool(force.getExceptionsUsePeriodicBoundaryConditions()),
        "periodic": periodic,
        "cutoff": force.getCutoffDistance()._value if limited else math.inf,
        "alpha": _splitting(force) if method in _MESH else 0.0,
        "switch": force.getSwitchingDistance()._value
        if limited and force.getUseSwitchingFunction()
        else None,
    }


def _splitting(force: openmm.NonbondedForce) -> float:
    """Ewald's alpha in 1/nm: as set, or as OpenMM derives it from the error tolerance and the cutoff."""
    chosen = float(force.getPMEParameters()[0]._value)
    tolerance = force.getEwaldErrorTolerance()
    return chosen or math.sqrt(-math.log(2 * tolerance)) / force.getCutoffDistance()._value


def _check_nonbonded(force: openmm.NonbondedForce, charged: bool) -> None:
    """Refuse what makes a pair of atoms anything else than K q q / r and Lennard-Jones."""
    method = force.getNonbondedMethod()
    if method == openmm.NonbondedForce.LJPME:
        raise EmbeddingError(
            "Lennard-Jones with a cutoff", "the nonbonded method LJPME", "build the system with PME"
        )
    if charged and method in (openmm.NonbondedForce.CutoffNonPeriodic, openmm.NonbondedForce.CutoffPeriodic):
        raise EmbeddingError(
            "charges under PME, Ewald or without cutoff",
            "a NonbondedForce with a cutoff and a reaction field",
            'build the system with PME (or without cutoff), or write scheme = "additive"',
        )
    if force.getNumParticleParameterOffsets() or force.getNumExceptionParameterOffsets():
        raise EmbeddingError(
            "fixed charges and Lennard-Jones parameters",
            "parameter offsets in the NonbondedForce",
            'remove the offsets, or write scheme = "additive"',
        )
    if method != openmm.NonbondedForce.NoCutoff and not force.getIncludeDirectSpace():
        raise EmbeddingError(
            "a NonbondedForce with its direct space part",
            "includeDirectSpace = False",
            "call setIncludeDirectSpace(True)",
        )


def _refusal(force: openmm.Force) -> EmbeddingError:
    if class_of(force) in CATALOGUE:
        advice = f'write scheme = "additive", which divides it, or keep=[{force.getName()!r}] if it is a bias'
    else:
        advice = f'remove it, or write scheme = "additive" and keep=[{force.getName()!r}] to leave it whole'
    return EmbeddingError(
        f"forces that can be shared out among atoms (NonbondedForce, {', '.join(TABULATED)})",
        described(force),
        advice,
    )
