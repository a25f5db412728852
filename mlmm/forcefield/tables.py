"""A force field as plain arrays: every term that can be shared out among atoms, read from an OpenMM System.

The other side of the fence (`mm_terms`) evaluates these arrays without OpenMM. What cannot be written as a
sum of bonded terms and pairs is refused here by name, so that nothing is lost in silence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import openmm

from mlmm.errors import EmbeddingError
from mlmm.forcefield.remove_terms import WITHOUT_ENERGY

__all__ = ["MMTables", "read_mm_tables"]

# No part of the force field: restraints to points in space stay whole under every scheme.
_IGNORED = WITHOUT_ENERGY | {"CustomExternalForce"}
# What scheme `additive` divides although its energy is a formula that only OpenMM can read.
_LEFT_TO_INTRA = frozenset(
    [
        "CustomBondForce",
        "CustomAngleForce",
        "CustomTorsionForce",
        "CustomCompoundBondForce",
        "CustomNonbondedForce",
    ]
)
_MESH = (openmm.NonbondedForce.PME, openmm.NonbondedForce.Ewald)


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

    Constraints are no terms: a bond that exists only as a constraint has no energy.

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
    terms: dict[str, list[tuple[list, list, bool]]] = {name: [] for name in _BONDED}
    maps: list[np.ndarray] = []
    nonbonded: openmm.NonbondedForce | None = None
    for force in system.getForces():
        name = force.__class__.__name__
        if name in _IGNORED or name in keep or force.getName() in keep:
            continue
        if name == "NonbondedForce":
            if nonbonded is not None:
                raise EmbeddingError(
                    "one NonbondedForce",
                    f"a second one ({force.getName()!r})",
                    "join the two, or build the system with one force field",
                )
            nonbonded = force
        elif name in _BONDED:
            read = _BONDED[name][0]
            # Several forces of one class may bring CMAP tables each.
            first_map = len(maps)
            if name == "CMAPTorsionForce":
                maps.extend(_read_maps(force))
            images = force.usesPeriodicBoundaryConditions()
            terms[name].extend((*read(parameters, first_map), images) for parameters in _parameters(force))
        else:
            raise _refusal(force)
    columns: dict[str, np.ndarray] = {}
    for name, (_, prefix, width, fields) in _BONDED.items():
        columns |= _columns(prefix, width, fields, terms[name])
    columns["cmap_map"] = columns["cmap_map"].astype(np.int64)
    rb = [columns.pop(f"rb_c{m}") for m in range(6)]
    n_atoms = system.getNumParticles()
    return MMTables(
        n_atoms=n_atoms,
        virtual=np.array([system.isVirtualSite(i) for i in range(n_atoms)], dtype=bool),
        rb_coefficients=np.stack(rb, axis=1),
        cmap_energies=tuple(maps),
        **columns,
        **_read_nonbonded(nonbonded, n_atoms),
    )


def _bare(values: Sequence) -> list[float]:
    """Numbers in OpenMM's own units, which are ours."""
    return [float(value._value) if hasattr(value, "_value") else float(value) for value in values]


# class -> (parameters of one term, first map -> atoms, numbers), prefix, atoms per term, names of the numbers
_BONDED = {
    "HarmonicBondForce": (lambda p, _: (p[:2], _bare(p[2:])), "bond", 2, ("length", "k")),
    "HarmonicAngleForce": (lambda p, _: (p[:3], _bare(p[3:])), "angle", 3, ("value", "k")),
    "PeriodicTorsionForce": (lambda p, _: (p[:4], _bare(p[4:])), "torsion", 4, ("n", "phase", "k")),
    "RBTorsionForce": (lambda p, _: (p[:4], _bare(p[4:])), "rb", 4, tuple(f"c{m}" for m in range(6))),
    "CMAPTorsionForce": (lambda p, first: (p[1:9], [p[0] + first]), "cmap", 8, ("map",)),
}


def _parameters(force: openmm.Force) -> list:
    """The parameters of every term of a bonded force."""
    term = {"HarmonicBondForce": "Bond", "HarmonicAngleForce": "Angle"}.get(
        force.__class__.__name__, "Torsion"
    )
    get = getattr(force, f"get{term}Parameters")
    return [get(i) for i in range(getattr(force, f"getNum{term}s")())]


def _columns(
    prefix: str, width: int, fields: Sequence[str], terms: list[tuple[list, list, bool]]
) -> dict[str, np.ndarray]:
    """Terms of one class as arrays, with the right shapes also for no term at all."""
    atoms = np.array([term[0] for term in terms], dtype=np.int64).reshape(len(terms), width)
    numbers = np.array([term[1] for term in terms], dtype=np.float64).reshape(len(terms), len(fields))
    columns = {f"{prefix}_{name}": numbers[:, k].copy() for k, name in enumerate(fields)}
    columns[f"{prefix}_atoms"] = atoms
    columns[f"{prefix}_periodic"] = np.array([term[2] for term in terms], dtype=bool)
    return columns


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
    # Second derivatives M of a periodic cubic spline, knots at distance 1: M_(i-1) + 4 M_i + M_(i+1) =
    # 6 (y_(i+1) − 2 y_i + y_(i-1)); its slope at a knot is y_(i+1) − y_i − (2 M_i + M_(i+1)) / 6.
    one = np.eye(size)
    after, before = np.roll(one, -1, axis=0), np.roll(one, 1, axis=0)
    second = np.linalg.solve(after + 4.0 * one + before, 6.0 * (after - 2.0 * one + before))
    slope = after - one - (2.0 * second + after @ second) / 6.0
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


def _read_nonbonded(force: openmm.NonbondedForce | None, n_atoms: int) -> dict[str, object]:
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
    name = force.__class__.__name__
    if name in _LEFT_TO_INTRA:
        advice = f'write scheme = "additive", which divides it, or keep=[{force.getName()!r}] if it is a bias'
    else:
        advice = f'remove it, or write scheme = "additive" and keep=[{force.getName()!r}] to leave it whole'
    return EmbeddingError(
        f"forces that can be shared out among atoms (NonbondedForce, {', '.join(_BONDED)})",
        f"a {name} ({force.getName()!r})",
        advice,
    )
