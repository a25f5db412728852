"""The four ways to divide the energy between a force field and a potential, and which of them is taken.

What a scheme does to each term of the force field is in `mlmm.term_weights`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mlmm.errors import ConfigError, EmbeddingError, PotentialError

__all__ = [
    "ELECTROSTATICS",
    "FAR_FIELDS",
    "SCHEMES",
    "SMOOTH",
    "PotentialFacts",
    "Scheme",
    "SchemeChoice",
    "check_bridge",
    "check_far_field",
    "check_options",
    "check_zones",
    "suitable_schemes",
    "take_scheme",
    "whole_energies",
]

#: What `electrostatics` may be.
ELECTROSTATICS = ("mechanical", "charges", "embedded")
#: How an embedded region meets the charges beyond some distance.
FAR_FIELDS = ("ewald", "reaction_field")
#: Kinds of zones in which lambda may be between 0 and 1.
SMOOTH = ("static", "residues", "adaptive")


@dataclass(frozen=True)
class Scheme:
    """How a scheme divides the energy between the force field and the potential.

    Parameters
    ----------
    bonded, one_four, pairs : {"share", "any", "all", "none"}
        Share W of bonded terms, of 1-4 pairs and of all other pairs: the mean lambda of the atoms, their
        largest, their smallest, or 0.
    trained_on : tuple of str
        What a potential must have been trained on, so that no interaction is counted twice.
    caps : bool
        Hydrogen caps stand on the bonds that the region cuts.
    needs_hard : bool
        Only zones without lambda between 0 and 1 have an energy.
    allows_adaptive : bool
        Molecules may enter and leave the zone.
    isolated : bool
        The potential sees the region by itself: one molecule of its own charge and multiplicity, for any
        potential, and pairs inside at every distance.
    has_shares : bool
        The potential's energy is a sum over atoms, each times its lambda.
    predicted_charges : bool
        Charges that the potential predicts at every step have an energy.
    """

    bonded: str
    one_four: str
    pairs: str
    trained_on: tuple[str, ...]
    caps: bool = False
    needs_hard: bool = False
    allows_adaptive: bool = False
    isolated: bool = False
    has_shares: bool = False
    predicted_charges: bool = False

    @property
    def takes_pairs(self) -> bool:
        """Whether pairs other than 1-4 pairs change their owner."""
        return self.pairs != "none"

    @property
    def takes_terms(self) -> bool:
        """Whether any term of the force field changes its owner."""
        return {self.bonded, self.one_four, self.pairs} != {"none"}


#: The first that suits a potential is its default where bonds are cut or a zone is asked for.
SCHEMES = {
    "per_atom": Scheme(
        "share",
        "share",
        "share",
        ("total",),
        allows_adaptive=True,
        has_shares=True,
        predicted_charges=True,
    ),
    "supermolecular": Scheme("any", "any", "any", ("total",), caps=True),
    "additive": Scheme(
        "all",
        "all",
        "all",
        ("total", "isolated"),
        caps=True,
        needs_hard=True,
        isolated=True,
        predicted_charges=True,
    ),
    "delta": Scheme("none", "none", "none", ("correction",), has_shares=True),
}


@dataclass(frozen=True)
class SchemeChoice:
    """A scheme and why it was taken.

    Parameters
    ----------
    name : str
        A key of `SCHEMES`.
    reason : str
        In words; empty where the scheme was named.
    """

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} (by default: {self.reason})" if self.reason else self.name


def suitable_schemes(trained_on: str, *, per_atom: bool, long_range: bool, charges: bool) -> list[str]:
    """Schemes for a potential of these facts of its spec, in the order of `SCHEMES`; none may suit."""
    suitable = [name for name, rules in SCHEMES.items() if trained_on in rules.trained_on]
    # A global charge state makes every atom depend on the whole: neither shares nor differences are local.
    if long_range or charges:
        suitable = [name for name in suitable if SCHEMES[name].isolated]
    if not per_atom:
        suitable = [name for name in suitable if not SCHEMES[name].has_shares]
    return suitable


class PotentialFacts(Protocol):
    """Facts of a potential that decide its scheme; see `mlmm.potentials.PotentialSpec`."""

    @property
    def name(self) -> str: ...
    @property
    def trained_on(self) -> str: ...
    @property
    def per_atom(self) -> bool: ...
    @property
    def long_range(self) -> bool: ...
    @property
    def charges(self) -> bool: ...


def take_scheme(
    scheme: str,
    potential: PotentialFacts,
    *,
    cuts: bool,
    zones: str = "",
    electrostatics: str = "mechanical",
    mm_tail: bool = False,
    multiplicity: int = 1,
) -> SchemeChoice:
    """Take the scheme that was asked for, or choose one where that is "auto".

    A region of whole molecules without a zone is the potential's own, as in OpenMM-ML: ``additive``. Where
    bonds are cut, or a zone is asked for, atoms on either side of the boundary have to be told apart:
    ``per_atom``, or the first that suits the potential. What other keys need goes before both.

    Parameters
    ----------
    scheme : str
        ``"auto"`` or a key of `SCHEMES`.
    potential : PotentialFacts
    cuts : bool
        Whether the region cuts bonds.
    zones : str
        Kind of zone that was asked for; one of `SMOOTH`, else there is none.
    electrostatics, mm_tail, multiplicity
        See `mlmm.hybrid_system`.

    Raises
    ------
    ConfigError
        An unknown word.
    PotentialError
        A potential that does not say what it was trained on.
    EmbeddingError
        A scheme that counts interactions twice, or that the potential cannot do.
    """
    if scheme != "auto" and scheme not in SCHEMES:
        raise ConfigError(f"scheme = auto | {' | '.join(SCHEMES)}", repr(scheme), 'write scheme = "auto"')
    known = dict.fromkeys(word for rules in SCHEMES.values() for word in rules.trained_on)
    trained_on = potential.trained_on
    if trained_on not in known:
        raise PotentialError(
            f"trained_on = {' | '.join(known)}", repr(trained_on), f"correct the spec of {potential.name}"
        )
    facts = {key: getattr(potential, key) for key in ("per_atom", "long_range", "charges")}
    suitable = suitable_schemes(trained_on, **facts)
    if not suitable or scheme not in ("auto", *suitable):
        words = ", ".join(f"{key} = {value}" for key, value in facts.items())
        raise EmbeddingError(
            f"a scheme for {potential.name} (trained_on = {trained_on!r}, {words}): "
            f"{' or '.join(suitable) or 'there is none'}",
            repr(scheme),
            f'use scheme = "{suitable[0]}"' if suitable else "choose another potential",
        )
    if scheme != "auto":
        return SchemeChoice(scheme)
    if len(suitable) == 1:
        return SchemeChoice(suitable[0], f"the only one that suits {potential.name}")
    isolated = next((name for name in suitable if SCHEMES[name].isolated), suitable[0])
    needs = {
        'electrostatics = "embedded"': electrostatics == "embedded",
        "mm_tail = true": mm_tail,
        f"multiplicity = {multiplicity}": multiplicity != 1,
    }
    for key, needed in needs.items():
        if needed:
            return SchemeChoice(isolated, f"{key} needs it")
    if cuts:
        return SchemeChoice(suitable[0], "the region cuts bonds")
    if zones in SMOOTH:
        return SchemeChoice(suitable[0], f"a zone of kind {zones} is asked for")
    return SchemeChoice(isolated, "the region is whole molecules, without a zone")


def check_zones(scheme: str, *, moves: bool, smooth: str = "") -> None:
    """Refuse zones that a scheme has no energy for.

    Parameters
    ----------
    scheme : str
        A key of `SCHEMES`.
    moves : bool
        Whether molecules may enter and leave.
    smooth : str
        What lies between lambda 0 and 1, in words; empty for a hard boundary.

    Raises
    ------
    EmbeddingError
    """
    if moves and not SCHEMES[scheme].allows_adaptive:
        raise EmbeddingError(
            f"a zone that stays with its atoms under scheme {scheme!r}",
            "an adaptive zone",
            'use scheme = "per_atom", or a static zone',
        )
    if SCHEMES[scheme].needs_hard and smooth:
        raise EmbeddingError(
            f"a hard region under scheme {scheme!r}",
            smooth,
            'use mlmm.hard_zones (kind = "hard" in [zones]), or scheme = "per_atom"',
        )


def check_far_field(far_field: str, permittivity: float | None, electrostatics: str) -> None:
    """Refuse an unknown far field, and the permittivity of a medium where there is none or that none has.

    Parameters
    ----------
    far_field : {"ewald", "reaction_field"}
    permittivity : float or None
        None: not asked for.
    electrostatics : {"mechanical", "charges", "embedded"}

    Raises
    ------
    ConfigError
    """
    if far_field not in FAR_FIELDS:
        raise ConfigError(f"far_field = {' | '.join(FAR_FIELDS)}", repr(far_field), "choose one of them")
    if permittivity is None:
        return
    if electrostatics != "embedded" or far_field != "reaction_field":
        raise ConfigError(
            'far_permittivity with electrostatics = "embedded" and far_field = "reaction_field"',
            f"electrostatics = {electrostatics!r} and far_field = {far_field!r}, which has no such medium",
            "leave far_permittivity out",
        )
    if not permittivity >= 1.0:
        raise ConfigError(
            "far_permittivity of 1 (no medium) or more", f"{permittivity:g}", "write 78.4, that of water"
        )


def check_options(
    scheme: str, electrostatics: str = "mechanical", mm_tail: bool = False, multiplicity: int = 1
) -> None:
    """Refuse options that mean nothing under a scheme.

    Parameters
    ----------
    scheme : str
        A key of `SCHEMES`.
    electrostatics : {"mechanical", "charges", "embedded"}
    mm_tail : bool
    multiplicity : int

    Raises
    ------
    ConfigError
        An unknown level of electrostatics, a tail, a multiplicity or electrostatic embedding under another
        scheme than ``additive``.
    EmbeddingError
        Predicted charges where their energy is not defined.
    """
    rules = SCHEMES[scheme]
    if electrostatics not in ELECTROSTATICS:
        raise ConfigError(
            f"electrostatics = {' | '.join(ELECTROSTATICS)}",
            repr(electrostatics),
            'write electrostatics = "mechanical"',
        )
    if mm_tail and not rules.isolated:
        raise ConfigError(
            "mm_tail = true under scheme 'additive' only",
            f"scheme {scheme!r}, which always leaves a tail to the force field",
            "leave mm_tail out",
        )
    if multiplicity != 1 and not rules.isolated:
        raise ConfigError(
            "a multiplicity under scheme 'additive' only, where the potential sees the region by itself",
            f"multiplicity {multiplicity} under scheme {scheme!r}",
            "leave multiplicity out",
        )
    if electrostatics == "embedded" and (mm_tail or not rules.isolated):
        what = "a tail of the force field within it" if mm_tail else f"scheme {scheme!r}"
        raise ConfigError(
            "scheme 'additive' for electrostatic embedding, with a region that is the potential's alone",
            what,
            'write scheme = "additive" and leave mm_tail out',
        )
    if electrostatics == "charges" and not rules.predicted_charges:
        raise EmbeddingError(
            "scheme 'per_atom' or 'additive' for charges that the potential predicts",
            f"scheme {scheme!r}",
            'write electrostatics = "mechanical" and pass fixed charges, or change the scheme',
        )


def whole_energies(scheme: str, *, per_atom: bool) -> bool:
    """Whether a scheme takes the whole energy of a set of atoms from a potential, `per_atom` or not."""
    return not (SCHEMES[scheme].has_shares or SCHEMES[scheme].isolated or per_atom)


def check_bridge(bridge: str, scheme: str, electrostatics: str, *, per_atom: bool) -> None:
    """Refuse a bridge that cannot host the energy.

    Parameters
    ----------
    bridge : {"auto", "torchforce", "pythonforce", "native"}
    scheme : str
        A key of `SCHEMES`.
    electrostatics : {"mechanical", "charges", "embedded"}
    per_atom : bool
        Of the potential.

    Raises
    ------
    ConfigError
        A TorchForce for charges, or for whole energies of a changing set of atoms; the kernel for an embedded
        region.
    """
    whole = whole_energies(scheme, per_atom=per_atom)
    if bridge == "torchforce" and (electrostatics == "charges" or whole):
        what = 'electrostatics = "charges": a TorchForce gets energies alone'
        raise ConfigError(
            f"bridge = pythonforce for {f'whole energies under scheme {scheme!r}' if whole else what}",
            repr(bridge),
            'write bridge = "auto"',
        )
    if bridge == "native" and electrostatics == "embedded":
        raise ConfigError(
            "bridge = torchforce or pythonforce for electrostatic embedding, which looks at all charges",
            repr(bridge),
            'write bridge = "auto"',
        )
