"""Options of reaction paths as a run file writes them: [surface], [scan], [neb], [ts], [irc] and [freq].

Only the standard library is imported here, since run files are read before any numerical library starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmm.options import Quantity, check_fields, documented, number, quantity, setting, word

__all__ = [
    "FrequencyOptions",
    "IRCOptions",
    "NEBOptions",
    "ScanOptions",
    "SurfaceOptions",
    "TransitionStateOptions",
]

_EXPECTED = "variables along which the molecules react; the imaginary mode is projected on their gradients"


class _Checked:
    """Values are checked, and quantities become internal units, as soon as options are made."""

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True)
class SurfaceOptions(_Checked):
    """The energy surface: a hybrid system, a potential alone, or a method of electronic structure."""

    molecule: str = setting(
        "",
        "structure file of a molecule in a vacuum (xyz, PDB or mmCIF); empty: the hybrid of [system], "
        "[region] and [potential]",
        path=True,
        missing="correct the path",
        example="molecule.xyz",
    )
    method: str = setting(
        "",
        "reference method instead of [potential], for a molecule: gfn2, gfn1, aiqm2, xtb, or with options "
        "as in pyscf:functional=pbe0,basis=def2-svp (mlmm label --methods)",
        example="gfn2",
    )
    charge: int = number(0, "net charge of a molecule; that of a region stands in [region]")
    multiplicity: int = number(1, "spin multiplicity 2S + 1 of a molecule", least=1)
    atoms: str = setting(
        "region", "atoms of a hybrid that move: region, all or a selection", example="region"
    )
    environment: str = word(
        "frozen",
        ("frozen", "relaxed"),
        "what all other atoms do: stay, or go downhill at every energy",
    )
    environment_tolerance: Quantity = quantity(
        "1 kJ/mol/nm", "force", "root mean square force at which the environment counts as relaxed", above=0
    )
    precision: str = word(
        "auto",
        ("auto", "double", "single"),
        "arithmetic of a hybrid: double on OpenMM's Reference platform, as frequencies need it, or single on "
        "the platform of [run]; auto: double up to 2,000 particles",
    )
    nonconservative: str = word(
        "stop",
        ("stop", "warn"),
        "forces that are not the gradient of the energy, which is looked at first: stop, or go on with a "
        "warning",
    )
    workers: int = number(
        1,
        "energies computed at a time where several do not wait for each other (images of a path, "
        "displacements of a Hessian)",
        least=1,
    )
    parallel: str = word(
        "threads",
        ("threads", "processes"),
        "what the workers are: threads, or processes, each with a system of its own",
    )


@documented
@dataclass(frozen=True)
class ScanOptions(_Checked):
    """A relaxed scan: minimise all other coordinates at each point of a line or grid of variables."""

    variables: Sequence[str] = setting(
        (), "one or two names of [variable.NAME]", example=["d_CO"], single=True
    )
    start: Sequence[str] = setting(
        (), "first value of each variable, with its unit", example=["0.14 nm"], single=True
    )
    end: Sequence[str] = setting((), "last value of each variable", example=["0.30 nm"], single=True)
    points: Sequence[int] = setting(
        (), "points along each variable, both ends among them", item=int, example=[15]
    )
    directions: str = word(
        "both",
        ("both", "forward"),
        "both: forth, and back from where that ended, which shows hysteresis; forward: once",
    )
    hold: str = word(
        "constraint",
        ("constraint", "restraint"),
        "how the variables are held: exactly, by projection, or by a stiff harmonic restraint, whose energy "
        "is not counted and whose deviation is reported",
    )
    force_constant: str = setting(
        "", "of hold = restraint; empty: 1e6 kJ/mol/nm^2 or 1e4 kJ/mol/rad^2", example="1e6 kJ/mol/nm^2"
    )
    force_tolerance: Quantity = quantity(
        "10 kJ/mol/nm", "force", "largest force on an atom at which a point counts as relaxed", above=0
    )
    steps: int = number(300, "steps of a minimisation at most", least=1)


@documented
@dataclass(frozen=True)
class NEBOptions(_Checked):
    """Nudged elastic band: the minimum energy path between two minima, its highest image climbing."""

    start: str = setting(
        "", "structure file of the first end", path=True, missing="correct the path", example="r.xyz"
    )
    end: str = setting(
        "", "structure file of the last end", path=True, missing="correct the path", example="p.xyz"
    )
    images: int = number(9, "images between the ends", least=1)
    interpolation: str = word(
        "idpp",
        ("idpp", "linear", "given"),
        "first path: image dependent pair potential (doi 10.1063/1.4878664), straight lines, or the points "
        "of the scan that --from names",
    )
    relax_ends: bool = setting(True, "minimise both ends first")
    climb: bool = setting(True, "drive the highest image to the saddle point (doi 10.1063/1.1329672)")
    spring: Quantity = quantity(
        "1 eV/A^2",
        "energy per length squared",
        "force constant between neighbouring images at the foot of the path",
        above=0,
    )
    spring_top: Quantity = quantity(
        "3 eV/A^2",
        "energy per length squared",
        "force constant at the highest image; stiffer, so that images do not slide off the barrier (doi "
        "10.1021/acs.jctc.1c00462); between foot and top it goes with the energy",
        above=0,
    )
    optimiser: str = word(
        "bfgs",
        ("bfgs", "fire", "gp"),
        "bfgs, which learns curvatures; fire, which is slower and more patient; gp: a Gaussian process "
        "learns the surface, the path is relaxed on it and computed where that is uncertain: a fifth to a "
        "ninth of the energies for molecules of some ten atoms, at a second or less for each",
    )
    force_tolerance: Quantity = quantity(
        "50 kJ/mol/nm", "force", "largest force across the path on an atom of an image", above=0
    )
    steps: int = number(300, "iterations at most", least=1)


@documented
@dataclass(frozen=True)
class TransitionStateOptions(_Checked):
    """Saddle point of first order near a guess, with its modes checked."""

    guess: str = setting(
        "",
        "structure file; empty: the highest point of --from",
        path=True,
        missing="correct the path",
        example="ts.xyz",
    )
    coordinates: str = word(
        "auto",
        ("auto", "internal", "cartesian"),
        "of the search; auto: internal for a molecule in a vacuum, Cartesian in an environment",
    )
    hessian: str = word(
        "full",
        ("full", "iterative"),
        "second derivatives at the guess: all, by central differences, or the lowest mode by iterations "
        "(doi 10.1021/acs.jctc.9b00869)",
    )
    force_tolerance: Quantity = quantity(
        "1 kJ/mol/nm", "force", "largest force on an atom at the saddle point", above=0
    )
    steps: int = number(200, "steps at most", least=1)
    expected: Sequence[str] = setting((), _EXPECTED, example=["d_CO"], single=True)
    displacement: Quantity = quantity("0.0005 nm", "length", "of the central differences", above=0)


@documented
@dataclass(frozen=True)
class IRCOptions(_Checked):
    """Intrinsic reaction coordinate: steepest descent in mass-weighted coordinates from a saddle point."""

    start: str = setting(
        "",
        "structure file of the saddle point; empty: that of --from",
        path=True,
        missing="correct the path",
        example="ts.xyz",
    )
    step: Quantity = quantity(
        "0.01 nm",
        "length",
        "length of a step in mass-weighted coordinates, per square root of 1 amu",
        above=0,
    )
    directions: str = word(
        "both",
        ("both", "forward", "reverse"),
        "forward: the first of the expected variables grows; reverse: it becomes smaller; or both",
    )
    expected: Sequence[str] = setting(
        (),
        "variables along which the molecules react, which say what is forward; empty: those of [ts]; without "
        "any the largest displacement of the mode is positive",
        example=["d_CO"],
        single=True,
    )
    steps: int = number(200, "steps in each direction at most", least=1)
    force_tolerance: Quantity = quantity(
        "20 kJ/mol/nm", "force", "largest force on an atom at which a descent has arrived", above=0
    )
    relax_ends: bool = setting(True, "minimise from the last point of each direction")
    displacement: Quantity = quantity("0.0005 nm", "length", "of the central differences", above=0)


@documented
@dataclass(frozen=True)
class FrequencyOptions(_Checked):
    """Harmonic frequencies of the moving atoms, thermochemistry and isotope effects."""

    structure: str = setting(
        "", "structure file; empty: that of --from", path=True, missing="correct the path", example="ts.xyz"
    )
    displacement: Quantity = quantity("0.0005 nm", "length", "of the central differences", above=0)
    temperatures: Sequence[str] = setting(
        ("298.15 K",), "at which free energies are worked out", example=["300 K"], single=True
    )
    pressure: Quantity = quantity("1 bar", "pressure", "of the ideal gas", above=0)
    symmetry_number: int = number(
        1, "rotations that leave the molecule as it is; that of the reactant is in its own run", least=1
    )
    cutoff: float = number(
        100.0,
        "wavenumber in 1/cm below which the entropy of a mode goes over into that of a rotor "
        "(quasi-RRHO, doi 10.1002/chem.201200497)",
        above=0.0,
    )
    scale: float = number(1.0, "factor of all frequencies", above=0.0)
    isotopes: Mapping[str, float] = setting(
        {}, "mass in amu by selection, for isotope effects", entries="numbers", example={"name C3": 13.00335}
    )
    reference: str = setting(
        "",
        "run of mlmm freq for the reactant: barrier and isotope effects are relative to it",
        example="runs/my-r-freq",
    )
    expected: Sequence[str] = setting((), _EXPECTED, example=["d_CO"], single=True)
    relax: bool = setting(False, "minimise the structure first, for a minimum")


def field_values(options: Any) -> dict[str, Any]:
    """Values of options by name, for a record."""
    return {name: getattr(options, name) for name in options.__dataclass_fields__}
