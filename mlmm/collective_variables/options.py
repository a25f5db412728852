"""Collective variables and restraints as they are written, in a run file or in Python.

Only the standard library is imported here, since run files are read before any numerical library starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmm.collective_variables.rules import (
    KINDS,
    RANGES,
    SHAPES,
    STAGES,
    Coordinates,
    Measure,
    Numbers,
    force_dimension,
    is_empty,
    to_number,
    unit_advice,
)
from mlmm.errors import ConfigError
from mlmm.options import Quantity, check_fields, number, quantity, setting, word
from mlmm.options.kinds import Text, toml

__all__ = ["Restraint", "Variable"]


_EXPONENT = 6
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class _VariableName(Text):
    """The name of a variable; in Python also the variable itself."""

    def parse(self, name: str, value: Any) -> Any:
        return value if isinstance(value, Variable) else super().parse(name, value)


@dataclass(frozen=True)
class Variable:
    """A collective variable: a number that follows from the positions of some atoms.

    Groups are selections in mdtraj's language or, in Python, lists of atom indices; each stands for the
    centre of mass of its atoms, with the masses of the elements. Distances are those of nearest periodic
    images. With r_ij the distance of groups i and j:

    - ``distance``: r_12; ``angle``: at the second group; ``torsion``: from -180 to 180 degrees, IUPAC sign;
    - ``difference``: r_12 - r_34; ``sum``: sum_k c_k r_k over pairs of groups, c_k = `coefficients` or 1;
    - ``axis``: position of the third group along the line from the first to the second,
      (r_13^2 + r_12^2 - r_23^2) / (2 r_12);
    - ``coordination``: sum over pairs of atoms of the two groups of S(r) / (1 + (r/r_0)^n), the rational
      function (1 - x^n) / (1 - x^2n); S falls smoothly from 1 to 0 over the last tenth before `cutoff`;
    - ``rmsd``: root mean square distance of the atoms from a reference, superposed on it;
    - ``position``: root mean square distance of the atoms from their places in a reference, which move with
      the box: all together, as their centre does when everything is scaled;
    - ``path_s``, ``path_z``: progress from 0 to 1 along the images i = 0 ... K - 1 of a path, and squared
      distance from it (Branduardi et al., J. Chem. Phys. 126, 054103 (2007), doi 10.1063/1.2432340):
      s = sum_i i/(K-1) exp(-a d_i^2) / sum_i exp(-a d_i^2), z = -1/a ln sum_i exp(-a d_i^2), with d_i the
      ``rmsd`` from image i and a the `sharpness`.

    Parameters
    ----------
    name : str
        As it stands in the energy table: letters, digits and underscores.
    kind : str
        One of the above.
    groups : sequence of str, or of sequences of int
    coefficients : sequence of float
        Of the distances of a ``sum``.
    contact_distance : float or str
        r_0 of ``coordination``, where a pair counts half, nm.
    exponent : int
        n of ``coordination``.
    cutoff : float or str
        Of ``coordination``, nm; 3 r_0 by default.
    reference : path or array (N, 3) in nm
        Of ``rmsd`` and ``position``; the structure as built by default.
    images : path or array (K, N, 3) in nm
        Of a path: a structure file with several models.
    sharpness : float or str
        Of a path, 1/nm^2; by default 2.3 over the mean squared rmsd of neighbouring images.

    Raises
    ------
    ConfigError
        A name that cannot be one, another number of groups, a key of another kind, or a value out of range.
    """

    name: str
    kind: str = word(
        "distance",
        tuple(KINDS),
        "what is measured",
        instead={"dihedral": 'write kind = "torsion"', "path": 'write kind = "path_s" or kind = "path_z"'},
    )
    groups: Sequence[Any] = setting(
        (),
        "selections, each for the centre of mass of its atoms: 2 of a distance, 3 of an angle or an axis "
        "(from, to, what moves), 4 of a torsion or a difference (r12 - r34), pairs of a sum; 2 whose atoms a "
        "coordination counts, 1 of the other kinds",
        objects=True,
        example=["resname LIG and name C1", "resid 10 and name OG"],
    )
    coefficients: Sequence[float] = setting(
        (), "kind sum: factor of each distance; empty: 1", kind=Numbers, example=[1.0, -1.0]
    )
    contact_distance: Quantity = quantity(
        "",
        "length",
        "kind coordination: distance at which a pair counts half",
        optional=True,
        above=0,
        example="0.35 nm",
    )
    exponent: int = number(_EXPONENT, "kind coordination: how sharply pairs cease to count", least=2)
    cutoff: Quantity = quantity(
        "",
        "length",
        "kind coordination: where pairs cease to count; empty: three times contact_distance",
        optional=True,
        above=0,
        example="1 nm",
    )
    reference: Any = setting(
        "",
        "kinds rmsd and position: structure of the selected or of all atoms; empty: as built",
        kind=Coordinates,
        path=True,
        example="start.pdb",
    )
    images: Any = setting(
        "",
        "kinds path_s and path_z: structure file with one model for each image",
        kind=Coordinates,
        path=True,
        example="path.pdb",
    )
    sharpness: Quantity = quantity(
        "",
        "inverse area",
        "kinds path_s and path_z: how sharply images are told apart; empty: by their distances",
        optional=True,
        above=0,
        example="100 1/nm^2",
    )

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ConfigError(
                "a variable whose name is a letter and then letters, digits or underscores",
                repr(self.name),
                "write for example [variable.d_CO]",
            )
        check_fields(self, f"variable.{self.name}.")
        rules = KINDS[self.kind]
        for key in (
            "coefficients",
            "contact_distance",
            "exponent",
            "cutoff",
            "reference",
            "images",
            "sharpness",
        ):
            value = getattr(self, key)
            given = not is_empty(value) and not (key == "exponent" and value == _EXPONENT)
            if given and key not in rules.keys:
                kinds = " or ".join(name for name, other in KINDS.items() if key in other.keys)
                raise ConfigError(
                    f"{key} with kind {kinds} only in variable {self.name}",
                    f"kind {self.kind}",
                    "leave it out, or correct the kind",
                )
        if isinstance(self.groups, Mapping) or not rules.count(len(self.groups)):
            raise ConfigError(
                f"{rules.groups} in variable {self.name} of kind {self.kind}",
                str(len(self.groups)),
                'write groups = ["…", "…"], one selection for each',
            )
        if rules.needs and is_empty(getattr(self, rules.needs)):
            raise ConfigError(
                f"{rules.needs} in variable {self.name} of kind {self.kind}",
                "none",
                f"write {rules.needs} = {toml(_example(rules.needs))}",
            )
        if len(self.coefficients) not in (0, len(self.groups) // 2):
            raise ConfigError(
                f"{len(self.groups) // 2} coefficients in variable {self.name}, one for each pair of groups",
                str(len(self.coefficients)),
                "correct them",
            )

    @property
    def dimension(self) -> str:
        """Dimension of its value; "number" for none."""
        return KINDS[self.kind].dimension


@dataclass(frozen=True)
class Restraint:
    """A bias energy that keeps a collective variable near a value.

    With x the variable, x_0 its value `at` and k the `force_constant`:

    - ``harmonic``: E = k/2 (x - x_0)^2, with the factor of one half that Amber's restraints lack;
    - ``flat_bottom``: E = k/2 max(0, \\|x - x_0\\| - w)^2, zero within the `width` w on either side;
    - ``lower``, ``upper``: a wall, E = k/2 min(0, x - x_0)^2 or k/2 max(0, x - x_0)^2.

    The difference of two torsions is taken on the shorter way around. A variable of kind ``position`` has no
    `at`; there E is the sum over its atoms, with x - x_0 the distance of each from its place.

    Parameters
    ----------
    variable : str or Variable
    at : float, str or Quantity
        x_0, in the unit of the variable; internal units (nm, rad) without one.
    force_constant : float, str or Quantity
        kJ/mol per squared unit of the variable.
    shape : {"harmonic", "flat_bottom", "lower", "upper"}
    width : float, str or Quantity
        Of a flat bottom.
    stages : sequence of str
        Names of the stages in which it acts; all by default.

    Raises
    ------
    ConfigError
        A value of another type, an unknown shape, or a width without flat bottom.
    """

    variable: Any = setting("", "name of a variable", kind=_VariableName, example="d")
    at: Any = setting("", "value at which the variable is kept", kind=Measure, example="0.3 nm")
    force_constant: Any = setting(
        "", "k of the energy k/2 (x - x0)²", kind=Measure, example="1000 kJ/mol/nm^2"
    )
    shape: str = word(
        "harmonic",
        SHAPES,
        "harmonic; flat_bottom: zero within width on either side; lower, upper: a wall that keeps the "
        "variable above or below",
        instead={
            "flat-bottom": 'write shape = "flat_bottom"',
            "wall": 'write shape = "lower" or shape = "upper"',
        },
    )
    width: Any = setting(
        "", "shape flat_bottom: half the width of the flat part", kind=Measure, example="0.05 nm"
    )
    stages: Sequence[str] = setting(
        (), f"stages in which it acts, of {', '.join(STAGES)}; empty: all", example=["equilibrate"]
    )

    def __post_init__(self) -> None:
        check_fields(self, "restraint.")
        where = f"in the restraint on {self.name}"
        if not self.name:
            raise ConfigError("variable in a restraint", "none", 'write variable = "…", the name of one')
        if is_empty(self.force_constant):
            raise ConfigError(f"force_constant {where}", "none", 'write force_constant = "1000 kJ/mol/nm^2"')
        if is_empty(self.width) == (self.shape == "flat_bottom"):
            advice = (
                'write width = "0.05 nm"'
                if is_empty(self.width)
                else 'leave it out, or write shape = "flat_bottom"'
            )
            raise ConfigError(
                f"width {where} with shape flat_bottom, and only there",
                f"shape {self.shape}" + ("" if is_empty(self.width) else f" and width = {self.width}"),
                advice,
            )

    @property
    def name(self) -> str:
        """Name of its variable."""
        return self.variable.name if isinstance(self.variable, Variable) else str(self.variable)

    def numbers(self, variable: Variable) -> tuple[float, float, float]:
        """x_0, k and w in internal units.

        Raises
        ------
        ConfigError
            A unit of another dimension, a value that the variable cannot take, or a shape that it cannot
            have.
        """
        kind, dimension, where = variable.kind, variable.dimension, f" of the restraint on {self.name}"
        if kind == "position" and not is_empty(self.at):
            raise ConfigError(
                f"no at{where}, which is of kind position",
                f"at = {self.at}",
                "leave it out: at is the reference",
            )
        if kind != "position" and is_empty(self.at):
            raise ConfigError(
                f"at{where}", "none", f'write at = "…" with the unit of {unit_advice(dimension)}'
            )
        walls = self.shape in ("lower", "upper")
        if walls and kind in ("torsion", "position"):
            raise ConfigError(
                f"a shape{where} that kind {kind} can have",
                self.shape,
                'write shape = "flat_bottom" and a width',
            )
        at = 0.0 if kind == "position" else to_number(self.at, dimension, f"at{where}")
        constant = to_number(self.force_constant, force_dimension(dimension), f"force_constant{where}")
        width = 0.0 if is_empty(self.width) else to_number(self.width, dimension, f"width{where}")
        if constant < 0:
            raise ConfigError(
                f"force_constant{where} of 0 or more", str(self.force_constant), "correct its sign"
            )
        if width <= 0 and not is_empty(self.width):
            raise ConfigError(f"width{where} above 0", str(self.width), "correct it")
        low, high = RANGES.get(kind, (None, None))
        if (low is not None and at < low) or (high is not None and at > high + 1e-9):
            raise ConfigError(
                f"at{where} between {low:g} and {high or float('inf'):g}", f"{at:g}", "correct it"
            )
        return at, constant, width


def _example(key: str) -> Any:
    spec = Variable.__dataclass_fields__[key]
    return spec.metadata["option"].example
