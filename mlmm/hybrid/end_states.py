"""Between force field and hybrid: U(w) = w U_hybrid + (1 - w) U_MM with one weight w for the whole region.

Under ``additive`` both differ in what the region has by itself alone, so that

    U(w) = U_rest + w E_model(region) + (1 - w) E_MM(region),

with the force field's own terms and pairs inside the region, evaluated as the full system would: plain
Coulomb, which under Ewald's sum is what exceptions leave of a pair, and Lennard-Jones up to the cutoff. w is
the parameter `WEIGHT` of the context: it can be changed while a simulation runs.
"""

from __future__ import annotations

import itertools

import openmm

from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.term_catalogue import BONDED, STAYS_WHOLE, class_of, empty_copy, is_kept
from mlmm.hybrid.hosts import RegionEnergy, WeightedHost
from mlmm.hybrid.spec import HybridSpec
from mlmm.units import COULOMB

__all__ = [
    "WEIGHT",
    "check_weight",
    "own_terms",
    "weighted_energy",
    "weighted_model",
    "weighted_own_terms",
]

#: Name of w among the parameters of a context.
WEIGHT = "model_weight"


def check_weight(spec: HybridSpec, weight: float) -> None:
    """Refuse a hybrid that has no states between, or a weight out of range.

    Raises
    ------
    ConfigError
        Another scheme than ``additive`` with mechanical embedding, a cut bond, or a weight beyond 0 or 1.
    """
    if not 0.0 <= weight <= 1.0:
        raise ConfigError("a weight of the model from 0 to 1", f"{weight:g}", "correct it")
    inside = set(spec.zones.core)
    crossing = any((a in inside) != (b in inside) for a, b in spec.built.bonds.tolist())
    if spec.scheme != "additive" or spec.electrostatics != "mechanical" or spec.mm_tail or crossing:
        raise ConfigError(
            'whole molecules under scheme "additive" with mechanical embedding',
            f'scheme "{spec.scheme}", electrostatics = "{spec.electrostatics}"'
            + (", mm_tail" if spec.mm_tail else "")
            + (", bonds across the boundary" if crossing else ""),
            "sample both ends and join them: mlmm correct RUN --to other.toml --with OTHER",
        )


def weighted_model(model: openmm.Force, weight: float) -> openmm.CustomCVForce:
    """The energy of a force that OpenMM can copy, times w, which begins as `weight`."""
    force = openmm.CustomCVForce(f"{WEIGHT}*model")
    force.addGlobalParameter(WEIGHT, weight)
    force.addCollectiveVariable("model", model)
    force.setName(f"{model.getName()}, weighted")
    return force


def weighted_energy(energy: RegionEnergy, weight: float, periodic: bool, name: str) -> openmm.PythonForce:
    """The energy of a region through Python, times w: OpenMM cannot copy a TorchForce."""
    force = openmm.PythonForce(WeightedHost(energy, periodic, WEIGHT), {WEIGHT: weight})
    force.setParticles(energy.atoms)
    force.setUsesPeriodicBoundaryConditions(periodic)
    force.setName(name)
    return force


def weighted_own_terms(
    system: openmm.System, atoms: list[int], weight: float, keep: tuple[str, ...] = ()
) -> openmm.CustomCVForce | None:
    """The region's own force field times 1 - w; None for a region without any.

    Parameters
    ----------
    system : openmm.System
        The whole force field.
    atoms : list of int
        The region, whole molecules.
    weight : float
        w of the model, as it begins.
    keep : tuple of str
        Forces that stay as they are.

    Raises
    ------
    ConfigError, EmbeddingError
        See `own_terms`.
    """
    terms = own_terms(system, atoms, keep)
    if not terms:
        return None
    names = [f"own{k}" for k in range(len(terms))]
    force = openmm.CustomCVForce(f"(1-{WEIGHT})*({' + '.join(names)})")
    force.addGlobalParameter(WEIGHT, weight)
    for name, term in zip(names, terms, strict=True):
        force.addCollectiveVariable(name, term)
    force.setName("force field of the region, weighted")
    return force


def own_terms(system: openmm.System, atoms: list[int], keep: tuple[str, ...] = ()) -> list[openmm.Force]:
    """The force field of a region by itself, as forces: what ``additive`` takes out of the system.

    Raises
    ------
    EmbeddingError
        Distances held constant for which the force field has no bond term.
    ConfigError
        Pairs that OpenMM damps (reaction field, Ewald's sum of Lennard-Jones), or custom pairs.
    """
    inside = frozenset(atoms)
    found: list[openmm.Force] = []
    bonded: set[frozenset[int]] = set()
    for force in system.getForces():
        name = class_of(force)
        if is_kept(force, keep) or name in STAYS_WHOLE:
            continue
        if name in BONDED:
            terms = BONDED[name]
            own = [one for one in terms.parameters(force) if inside.issuperset(terms.atoms(one))]
            if own:
                smaller = empty_copy(force)
                for one in own:
                    terms.add(smaller, one)
                    bonded.add(frozenset(terms.atoms(one)))
                found.append(smaller)
        elif name == "NonbondedForce":
            found.append(_own_pairs(force, inside))
        elif name == "CustomNonbondedForce":
            raise ConfigError(
                "a force field whose pairs OpenMM's NonbondedForce describes",
                "a CustomNonbondedForce",
                "use another force field for the states in between",
            )
    for i in range(system.getNumConstraints()):
        a, b = system.getConstraintParameters(i)[:2]
        if {a, b} <= inside and frozenset((a, b)) not in bonded:
            raise EmbeddingError(
                "a bond term for every distance in the region that is held constant",
                f"none between the atoms {a} and {b}",
                'build with constraints = "none"',
            )
    return found


def _own_pairs(force: openmm.NonbondedForce, inside: frozenset[int]) -> openmm.CustomBondForce:
    method = force.getNonbondedMethod()
    if method not in (openmm.NonbondedForce.NoCutoff, openmm.NonbondedForce.Ewald, openmm.NonbondedForce.PME):
        raise ConfigError(
            "pairs without cutoff or under PME",
            "a reaction field or Ewald's sum of Lennard-Jones",
            "build a periodic box under PME, or a droplet or a vacuum",
        )  # fmt: skip
    cut = method != openmm.NonbondedForce.NoCutoff
    lennard_jones = "4*epsilon*((sigma/r)^12-(sigma/r)^6)"
    if cut:
        cutoff = force.getCutoffDistance()._value
        factor = f"select(whole, 1, step({cutoff!r}-r)"
        if force.getUseSwitchingFunction():
            start = force.getSwitchingDistance()._value
            x = f"max(0, (r-{start!r})/{cutoff - start!r})"
            factor += f"*(1-10*({x})^3+15*({x})^4-6*({x})^5)"
        lennard_jones = f"{factor})*{lennard_jones}"
    pairs = openmm.CustomBondForce(f"{COULOMB!r}*product/r + {lennard_jones}")
    for name in ("product", "sigma", "epsilon", "whole"):
        pairs.addPerBondParameter(name)
    pairs.setUsesPeriodicBoundaryConditions(cut)
    pairs.setName("pairs inside the region")
    known = {}
    for i in range(force.getNumExceptions()):
        a, b, product, sigma, epsilon = force.getExceptionParameters(i)
        known[min(a, b), max(a, b)] = [product._value, sigma._value, epsilon._value, 1.0]
    single = {i: [one._value for one in force.getParticleParameters(i)] for i in inside}
    for a, b in itertools.combinations(sorted(inside), 2):
        if (a, b) in known:
            own = known[a, b]
        else:
            (charge, sigma, epsilon), (other, wide, deep) = single[a], single[b]
            own = [charge * other, 0.5 * (sigma + wide), (epsilon * deep) ** 0.5, 0.0]
        if own[0] or own[2]:
            pairs.addBond(a, b, own)
    return pairs
