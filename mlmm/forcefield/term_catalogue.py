"""The OpenMM force classes: how to list, copy, empty and scale the terms of each, and which are refused.

This table is the only place that knows a class of bonded forces by name. To handle one more class, write a
row in `CATALOGUE` here and one in ``tests/forcefield/test_term_catalogue.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import openmm

from mlmm.errors import EmbeddingError

__all__ = [
    "BONDED",
    "CATALOGUE",
    "CHARGED",
    "COLLECTIVE",
    "FORMULAS",
    "PAIRS",
    "REFUSED",
    "STAYS_WHOLE",
    "TABULATED",
    "WITHOUT_ENERGY",
    "BondedTerms",
    "Columns",
    "ForceClass",
    "bonded_pairs",
    "class_of",
    "described",
    "empty_copy",
    "is_kept",
    "refuse_uncopyable",
]


@dataclass(frozen=True)
class Columns:
    """Arrays of `mlmm.forcefield.tables.MMTables` that hold the terms of a class: ``<prefix>_<name>``.

    Parameters
    ----------
    label : str
        The terms in words.
    prefix : str
    names : tuple of (str, int)
        Name of each array and its numbers per term, in the order of OpenMM's parameters.
    energies : int
        How many numbers at the end the energy is proportional to: these are scaled.
    """

    label: str
    prefix: str
    names: tuple[tuple[str, int], ...]
    energies: int


@dataclass(frozen=True)
class BondedTerms:
    """How OpenMM lists the terms of one class of bonded forces.

    Parameters
    ----------
    word : str
        The X of ``getNumXs``, ``getXParameters`` and ``addX``.
    n_atoms : int, optional
        Atoms of one term; None where each term has a list of atoms.
    first : int
        Place of the first atom among the parameters of a term.
    formula : bool
        The energy is an expression: each term has a list of numbers for it behind its atoms.
    columns : Columns, optional
        Where the tables hold these terms; None for an energy that only OpenMM can read.
    """

    word: str
    n_atoms: int | None
    first: int = 0
    formula: bool = False
    columns: Columns | None = None

    def count(self, force: openmm.Force) -> int:
        """Number of terms of a force of this class."""
        return int(getattr(force, f"getNum{self.word}s")())

    def parameters(self, force: openmm.Force) -> list[list[Any]]:
        """The parameters of every term, atoms included, as ``addX`` takes them."""
        get = getattr(force, f"get{self.word}Parameters")
        return [list(get(i)) for i in range(self.count(force))]

    def atoms(self, parameters: Sequence[Any]) -> list[int]:
        """The atoms among the parameters of one term."""
        if self.n_atoms is None:
            return list(parameters[self.first])
        return list(parameters[self.first : self.first + self.n_atoms])

    def with_atoms(self, parameters: Sequence[Any], atoms: Sequence[int]) -> list[Any]:
        """The parameters of one term for other atoms."""
        last = self.first + (1 if self.n_atoms is None else self.n_atoms)
        changed = [list(atoms)] if self.n_atoms is None else list(atoms)
        return [*parameters[: self.first], *changed, *parameters[last:]]

    def numbers(self, parameters: Sequence[Any]) -> list[float]:
        """All but the atoms of one term, in OpenMM's units; for a class without formula."""
        others = self.with_atoms(parameters, ())
        return [float(value._value) if hasattr(value, "_value") else float(value) for value in others]

    def add(self, force: openmm.Force, parameters: Sequence[Any]) -> None:
        """Append one term to a force of this class."""
        getattr(force, f"add{self.word}")(*parameters)

    def formula_parameters(self, force: openmm.Force) -> list[str]:
        """Names of the numbers that each term brings into the formula."""
        count = getattr(force, f"getNumPer{self.word}Parameters")()
        return [getattr(force, f"getPer{self.word}ParameterName")(i) for i in range(count)]

    def add_formula_parameter(self, force: openmm.Force, name: str) -> None:
        """Declare one more number of each term."""
        getattr(force, f"addPer{self.word}Parameter")(name)


@dataclass(frozen=True)
class ForceClass:
    """What mlmm does with one class of forces.

    Parameters
    ----------
    kind : str
        ``bonded``; ``pairs``; ``solvent``, an implicit one around all charges of the force field, which a
        model of isolated molecules does not have; ``restraint``, which acts on single atoms and is no part of
        a force field; or ``no energy``, which acts on the whole box.
    group : str
        Force group of its energy: ``nonbonded bonds angles torsions other``.
    terms : BondedTerms, optional
        Of a bonded class.
    """

    kind: str
    group: str = "other"
    terms: BondedTerms | None = None


_BOND = Columns("bonds", "bond", (("length", 1), ("k", 1)), 1)
_ANGLE = Columns("angles", "angle", (("value", 1), ("k", 1)), 1)
_TORSION = Columns("torsions", "torsion", (("n", 1), ("phase", 1), ("k", 1)), 1)
_RB = Columns("RB torsions", "rb", (("coefficients", 6),), 6)
_CMAP = Columns("CMAP", "cmap", (("map", 1),), 0)

#: class name -> what is done with it; tables list their terms in this order
CATALOGUE: dict[str, ForceClass] = {
    "HarmonicBondForce": ForceClass("bonded", "bonds", BondedTerms("Bond", 2, columns=_BOND)),
    "HarmonicAngleForce": ForceClass("bonded", "angles", BondedTerms("Angle", 3, columns=_ANGLE)),
    "PeriodicTorsionForce": ForceClass("bonded", "torsions", BondedTerms("Torsion", 4, columns=_TORSION)),
    "RBTorsionForce": ForceClass("bonded", "torsions", BondedTerms("Torsion", 4, columns=_RB)),
    "CMAPTorsionForce": ForceClass("bonded", "torsions", BondedTerms("Torsion", 8, 1, columns=_CMAP)),
    "CustomBondForce": ForceClass("bonded", "bonds", BondedTerms("Bond", 2, formula=True)),
    "CustomAngleForce": ForceClass("bonded", "angles", BondedTerms("Angle", 3, formula=True)),
    "CustomTorsionForce": ForceClass("bonded", "torsions", BondedTerms("Torsion", 4, formula=True)),
    "CustomCompoundBondForce": ForceClass("bonded", "other", BondedTerms("Bond", None, formula=True)),
    "NonbondedForce": ForceClass("pairs", "nonbonded"),
    # Some platforms want all non-bonded forces in one group.
    "CustomNonbondedForce": ForceClass("pairs", "nonbonded"),
    "CustomGBForce": ForceClass("solvent"),
    "GBSAOBCForce": ForceClass("solvent"),
    "LCPOForce": ForceClass("solvent"),
    "CustomExternalForce": ForceClass("restraint"),
    "CMMotionRemover": ForceClass("no energy"),
    "AndersenThermostat": ForceClass("no energy"),
    "MonteCarloBarostat": ForceClass("no energy"),
    "MonteCarloAnisotropicBarostat": ForceClass("no energy"),
    "MonteCarloMembraneBarostat": ForceClass("no energy"),
    "MonteCarloFlexibleBarostat": ForceClass("no energy"),
}

_POLARISABLE = "charges or dipoles that respond to all others"
_SOLVENT = "an implicit solvent, in which every pair depends on all atoms"
_MANY = "terms of many atoms at once"
_COLLECTIVE = "a collective variable of many atoms"
#: class name -> why its energy cannot be divided into bonded terms and pairs
REFUSED: dict[str, str] = {
    "AmoebaGeneralizedKirkwoodForce": _SOLVENT,
    "AmoebaMultipoleForce": _POLARISABLE,
    "AmoebaTorsionTorsionForce": "torsion maps of the AMOEBA force field, whose other terms are polarisable",
    "AmoebaVdwForce": "pairs of the AMOEBA force field, whose other terms are polarisable",
    "AmoebaWcaDispersionForce": _SOLVENT,
    "ATMForce": "another system's energy inside",
    "ConstantPotentialForce": _POLARISABLE,
    "CustomCentroidBondForce": _COLLECTIVE,
    "CustomCVForce": _COLLECTIVE,
    "CustomHbondForce": _MANY,
    "CustomManyParticleForce": _MANY,
    "CustomVolumeForce": "an energy of the box",
    "DrudeForce": _POLARISABLE,
    "GayBerneForce": "pairs of ellipsoids",
    "HippoNonbondedForce": _POLARISABLE,
    "OrientationRestraintForce": _COLLECTIVE,
    "PythonForce": "code that only its author knows",
    "RGForce": _COLLECTIVE,
    "RMSDForce": _COLLECTIVE,
    "RPMDMonteCarloBarostat": "a barostat of path integrals",
}

#: bonded class -> its terms
BONDED: dict[str, BondedTerms] = {name: row.terms for name, row in CATALOGUE.items() if row.terms}
#: bonded class -> columns of its terms in the tables
TABULATED: dict[str, Columns] = {name: terms.columns for name, terms in BONDED.items() if terms.columns}
#: Bonded classes whose energy is an expression.
FORMULAS = frozenset(name for name, terms in BONDED.items() if terms.formula)
#: Classes of pair forces.
PAIRS = tuple(name for name, row in CATALOGUE.items() if row.kind == "pairs")
#: They act on the whole box and add no energy.
WITHOUT_ENERGY = frozenset(name for name, row in CATALOGUE.items() if row.kind == "no energy")
#: Whole under every scheme: no part of a force field, or a solvent that is counted once so.
STAYS_WHOLE = frozenset(
    name for name, row in CATALOGUE.items() if row.kind in ("no energy", "restraint", "solvent")
)
#: Refused classes that act on a collective variable, as biases and restraints do.
COLLECTIVE = frozenset(name for name, reason in REFUSED.items() if reason == _COLLECTIVE)
#: Refused classes that bring charges of their own, or belong to force fields that do.
CHARGED = frozenset(
    [
        *(name for name in REFUSED if name.startswith("Amoeba")),
        *(name for name, row in CATALOGUE.items() if row.kind == "solvent"),
        "ConstantPotentialForce",
        "DrudeForce",
        "HippoNonbondedForce",
    ]
)


def class_of(force: openmm.Force) -> str:
    """Name of a force's class, the key of `CATALOGUE`."""
    return str(force.__class__.__name__)


def is_kept(force: openmm.Force, keep: Collection[str]) -> bool:
    """Whether a user asked for a force, by its name or its class, to stay whole."""
    return class_of(force) in keep or force.getName() in keep


def described(force: openmm.Force) -> str:
    """Class and name of a force that is refused, and why where that is known; for messages."""
    reason = REFUSED.get(class_of(force))
    return f"a {class_of(force)} ({force.getName()!r})" + (f", which is {reason}" if reason else "")


def bonded_pairs(system: openmm.System) -> set[frozenset[int]]:
    """Pairs of atoms with a harmonic bond term, Urey-Bradley springs included."""
    terms = BONDED["HarmonicBondForce"]
    return {
        frozenset(terms.atoms(parameters))
        for force in system.getForces()
        if isinstance(force, openmm.HarmonicBondForce)
        for parameters in terms.parameters(force)
    }


def empty_copy(force: openmm.Force) -> openmm.Force:
    """A bonded force of the same class, name, group, formula and maps without any term."""
    terms = BONDED[class_of(force)]
    if not terms.formula:
        empty = type(force)()
    elif isinstance(force, openmm.CustomCompoundBondForce):
        empty = openmm.CustomCompoundBondForce(force.getNumParticlesPerBond(), force.getEnergyFunction())
        for i in range(force.getNumTabulatedFunctions()):
            table = copy.deepcopy(force.getTabulatedFunction(i))
            empty.addTabulatedFunction(force.getTabulatedFunctionName(i), table)
    else:
        empty = type(force)(force.getEnergyFunction())
    if terms.formula:
        for name in terms.formula_parameters(force):
            terms.add_formula_parameter(empty, name)
        for i in range(force.getNumGlobalParameters()):
            empty.addGlobalParameter(force.getGlobalParameterName(i), force.getGlobalParameterDefaultValue(i))
        for i in range(force.getNumEnergyParameterDerivatives()):
            empty.addEnergyParameterDerivative(force.getEnergyParameterDerivativeName(i))
    if isinstance(force, openmm.CMAPTorsionForce):
        for i in range(force.getNumMaps()):
            empty.addMap(*force.getMapParameters(i))
    empty.setForceGroup(force.getForceGroup())
    empty.setName(force.getName())
    empty.setUsesPeriodicBoundaryConditions(force.usesPeriodicBoundaryConditions())
    return empty


def refuse_uncopyable(system: openmm.System) -> None:
    """Refuse forces that hold code: a TorchForce cannot be copied, a copied PythonForce shares its callable.

    Raises
    ------
    EmbeddingError
        Names the force.
    """
    for force in system.getForces():
        # A plugin's force, such as a TorchForce, comes back from a System as the base class.
        if type(force) in (openmm.Force, openmm.PythonForce):
            kind = (
                "PythonForce" if isinstance(force, openmm.PythonForce) else "TorchForce or other plugin force"
            )
            raise EmbeddingError(
                "a System of the force field alone",
                f"a {kind} ({force.getName()!r}) in it, which cannot be copied safely",
                "build the hybrid system first and add that force to `hybrid.system`",
            )
