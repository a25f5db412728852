"""Better fixed charges for a region, written into OpenMM's own NonbondedForce at set-up.

q_i^0 = q_i^MM + lambda_i (q_i^ref − q_i^MM), neutralised so that the total charge stays what it was. PME then
carries q^0 at no cost per step, and every scheme divides the force field with these charges as it does with
any others.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import openmm

from mlmm.build.built import BuiltSystem
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.tables import MMTables, read_mm_tables
from mlmm.forcefield.term_catalogue import CHARGED, class_of

__all__ = [
    "check_total",
    "exception_factors",
    "neutral_changes",
    "original_charges",
    "read_charges",
    "requested_charges",
    "with_reference_charges",
]

#: e; a sum of charges farther from the region's own belongs to another state of charge.
LARGEST_DIFFERENCE = {"closed": 0.05, "open": 0.3}
_RECORD = "reference charges"


def read_charges(system: openmm.System) -> MMTables:
    """Charges, exceptions and periodicity of a system, all bonded terms left out.

    Raises
    ------
    EmbeddingError
        Charges in other forces than one NonbondedForce, a reaction field, parameter offsets, or a mesh for
        Lennard-Jones.
    """
    others = {class_of(force) for force in system.getForces()} - {"NonbondedForce"}
    for name in sorted(others):
        if name in CHARGED:
            raise EmbeddingError(
                "charges in one NonbondedForce alone",
                f"a {name}, which has charges of its own",
                'write electrostatics = "mechanical" without charges, or build without that force',
            )
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce) and force.getNonbondedMethod() in (
            openmm.NonbondedForce.CutoffNonPeriodic,
            openmm.NonbondedForce.CutoffPeriodic,
        ):
            raise EmbeddingError(
                "charges under PME, Ewald or without cutoff",
                "a NonbondedForce with a cutoff and a reaction field",
                "build the system with PME, or without cutoff",
            )
    return read_mm_tables(system, keep=others)


def exception_factors(tables: MMTables) -> np.ndarray:
    """Coulomb energy of every exception over K q q/r, (X,): 0 of an exclusion, 1/1.2 of an Amber 1-4 pair.

    Where one of the two charges is zero the product does not tell: such a pair with a well of its own is a
    1-4 pair and gets the factor that most of the others have; without one it is an exclusion.
    """
    product = tables.charge[tables.exception_atoms].prod(axis=1)
    known = product != 0
    factors = np.zeros(len(product))
    factors[known] = tables.exception_charge[known] / product[known]
    others = factors[known & (factors != 0)]
    if len(others):
        factors[~known & (tables.exception_epsilon != 0)] = np.median(others)
    return factors


def original_charges(built: BuiltSystem) -> np.ndarray:
    """Charges before any reference charges replaced them, e, (N,)."""
    charges = read_charges(built.system).charge.copy()
    record = built.provenance.get(_RECORD)
    if isinstance(record, dict):
        charges[record["atoms"]] = record["before"]
    return charges


def neutral_changes(differences: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """d_i = lambda_i c_i − u_i sum_j lambda_j c_j with u_i = lambda_i²/sum lambda², e: the sum of d is zero.

    Parameters
    ----------
    differences, weights : ndarray, shape (S,)
        c in e; lambda, at least one of them above zero.
    """
    changes = weights * differences
    shares = weights**2 / (weights**2).sum()
    return changes - shares * changes.sum()


def requested_charges(
    charges: Mapping[int, float] | Sequence[float] | np.ndarray,
    region: Sequence[int],
    zone: Sequence[int],
    n_atoms: int,
    label: Callable[[int], str] = str,
) -> dict[int, float]:
    """Charges as a caller may give them -> atom to charge, e.

    Parameters
    ----------
    charges : mapping of int to float, or sequence of float
        By atom; or one for each atom of the region in its order; or one for each atom of the system, of which
        the zone's are taken.
    region, zone : sequence of int
        Atoms of the region; atoms with lambda > 0 for good.
    n_atoms : int
        Of the system.
    label : callable
        Index to a name of the atom, for messages.

    Raises
    ------
    ConfigError
        Another number of values, values that are not finite, or atoms outside the zone.
    """
    if isinstance(charges, Mapping):
        wanted = {int(atom): float(value) for atom, value in charges.items()}
    else:
        values = np.asarray(charges, dtype=np.float64)
        if values.shape == (len(region),):
            wanted = dict(zip(map(int, region), values.tolist(), strict=True))
        elif values.shape == (n_atoms,):
            wanted = {int(atom): float(values[atom]) for atom in zone}
        else:
            raise ConfigError(
                f"one charge for each of the {len(region)} atoms of the region",
                f"charges of shape {values.shape}",
                "pass them in the order of region.atoms, or as {atom: charge}",
            )
    outside = sorted(set(wanted).difference(int(atom) for atom in zone))
    if outside or not wanted:
        name = label(outside[0]) if outside and 0 <= outside[0] < n_atoms else str(outside[:1])
        raise ConfigError(
            "charges of atoms with lambda > 0",
            f"charges of {name} and {len(outside) - 1} more" if outside else "none",
            "leave out what does not belong to the zone",
        )
    wrong = [atom for atom, value in wanted.items() if not np.isfinite(value)]
    if wrong:
        raise ConfigError("finite charges", f"{wanted[wrong[0]]} of {label(wrong[0])}", "correct the charges")
    return wanted


def check_total(predicted: float, expected: float, what: str, closed: bool) -> None:
    """Refuse charges of another state of charge.

    Parameters
    ----------
    predicted, expected : float
        Sums over the same atoms, e.
    what : str
        Whose charges these are.
    closed : bool
        No bond is cut and nothing flows to a neighbour: then the sums must agree well.

    Raises
    ------
    ConfigError
    """
    limit = LARGEST_DIFFERENCE["closed" if closed else "open"]
    if not abs(predicted - expected) <= limit:
        raise ConfigError(
            f"charges that add up to {expected:+.2f} e, the charge of these atoms in the force field",
            f"{predicted:+.2f} e of {what}",
            "use charges of the same protonation state and the same atoms",
        )


def with_reference_charges(
    built: BuiltSystem,
    weights: Mapping[int, float],
    charges: Mapping[int, float],
    *,
    source: str = "given",
) -> BuiltSystem:
    """The same force field with other charges on some atoms; total charge and 1-4 factors stay.

    A system that has such charges already starts again from those of its force field: applying them twice is
    the same as once.

    Parameters
    ----------
    built : BuiltSystem
        Not changed.
    weights : mapping of int to float
        lambda of these atoms.
    charges : mapping of int to float
        Wanted charges, e.
    source : str
        For the record.

    Raises
    ------
    EmbeddingError
        As `read_charges`.
    """
    tables = read_charges(built.system)
    factors = exception_factors(tables)
    atoms = np.array(sorted(charges), dtype=np.int64)
    new = original_charges(built)
    before = new[atoms].copy()
    wanted = np.array([charges[atom] for atom in atoms.tolist()])
    new[atoms] += neutral_changes(wanted - before, np.array([weights[atom] for atom in atoms.tolist()]))
    system = copy.deepcopy(built.system)
    changed = np.flatnonzero(new != tables.charge)
    for force in system.getForces():
        if not isinstance(force, openmm.NonbondedForce):
            continue
        for atom in changed.tolist():
            force.setParticleParameters(atom, new[atom], tables.sigma[atom], tables.epsilon[atom])
        touched = np.flatnonzero(np.isin(tables.exception_atoms, changed).any(axis=1))
        products = factors * new[tables.exception_atoms].prod(axis=1)
        for i in touched.tolist():
            a, b = tables.exception_atoms[i].tolist()
            force.setExceptionParameters(
                i, a, b, products[i], tables.exception_sigma[i], tables.exception_epsilon[i]
            )
    facts = {
        "source": source,
        "atoms": atoms.tolist(),
        "before": before.tolist(),
        "after": new[atoms].tolist(),
    }
    return dataclasses.replace(built, system=system, provenance={**built.provenance, _RECORD: facts})
