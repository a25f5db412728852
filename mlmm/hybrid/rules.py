"""Which scheme, potential, zone, bridge and options go together; what cannot be is refused here."""

from __future__ import annotations

from mlmm.build import BuiltSystem
from mlmm.electrostatics.predicted_charges import ELECTROSTATICS
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.bridge import choose_bridge
from mlmm.hybrid.spec import bonds_of
from mlmm.potentials.base import PotentialModel, PotentialSpec
from mlmm.term_weights import SCHEMES
from mlmm.zones.static import ZonePartition

__all__ = [
    "check_options",
    "choose_host",
    "choose_scheme",
    "suitable_schemes",
]


def choose_scheme(scheme: str, zones: ZonePartition, spec: PotentialSpec) -> str:
    """The scheme that was asked for, or that suits what the potential was trained on.

    Parameters
    ----------
    scheme : str
        ``"auto"`` or a key of `mlmm.term_weights.SCHEMES`.
    zones : ZonePartition
    spec : PotentialSpec

    Raises
    ------
    ConfigError
        An unknown word.
    EmbeddingError
        A combination that counts interactions twice, or that the model cannot do.
    """
    if scheme != "auto" and scheme not in SCHEMES:
        raise ConfigError(f"scheme = auto | {' | '.join(SCHEMES)}", repr(scheme), 'write scheme = "auto"')
    known = dict.fromkeys(word for rules in SCHEMES.values() for word in rules.trained_on)
    if spec.trained_on not in known:
        raise PotentialError(
            f"trained_on = {' | '.join(known)}", repr(spec.trained_on), f"correct the spec of {spec.name}"
        )
    suitable = suitable_schemes(
        spec.trained_on, per_atom=spec.per_atom, long_range=spec.long_range, charges=spec.charges
    )
    if scheme == "auto" and suitable:
        return _checked(suitable[0], zones)
    if scheme not in suitable:
        raise EmbeddingError(
            f"a scheme for {spec.name} (trained_on = {spec.trained_on!r}, per_atom = {spec.per_atom}, "
            f"long_range = {spec.long_range}, charges = {spec.charges}): "
            f"{' or '.join(suitable) or 'there is none'}",
            repr(scheme),
            f'use scheme = "{suitable[0]}"' if suitable else "choose another potential",
        )
    return _checked(scheme, zones)


def suitable_schemes(trained_on: str, *, per_atom: bool, long_range: bool, charges: bool) -> list[str]:
    """Schemes for a potential of these facts of its spec, the default first; none may suit."""
    suitable = [name for name, rules in SCHEMES.items() if trained_on in rules.trained_on]
    # A global charge state makes every atom depend on the whole: neither shares nor differences are local.
    if long_range or charges:
        suitable = [name for name in suitable if SCHEMES[name].isolated]
    if not per_atom:
        suitable = [name for name in suitable if not SCHEMES[name].has_shares]
    return suitable


def _checked(scheme: str, zones: ZonePartition) -> str:
    """Refuse zones that the scheme has no energy for."""
    if zones.moves and not SCHEMES[scheme].allows_adaptive:
        raise EmbeddingError(
            f"a zone that stays with its atoms under scheme {scheme!r}",
            "an adaptive zone",
            'use scheme = "per_atom", or a static zone',
        )
    if SCHEMES[scheme].needs_hard and not zones.hard:
        raise EmbeddingError(
            f"a hard region under scheme {scheme!r}",
            f"{len(zones.transition)} atoms with lambda between 0 and 1",
            'use mlmm.hard_zones, or scheme = "per_atom"',
        )
    return scheme


def check_options(
    scheme: str, electrostatics: str = "mechanical", mm_tail: bool = False, multiplicity: int = 1
) -> None:
    """Refuse options that mean nothing under a scheme.

    Parameters
    ----------
    scheme : str
        As `choose_scheme` returns it.
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


def choose_host(
    bridge: str,
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    scheme: str,
    *,
    electrostatics: str = "mechanical",
    mm_tail: bool = False,
    on_gpu: bool = False,
) -> str:
    """The bridge that was asked for, or that suits the energy; see `mlmm.hybrid.bridge.choose_bridge`.

    Raises
    ------
    ConfigError
        A TorchForce for charges, or for whole energies of a changing set of atoms; the kernel for an embedded
        region.
    """
    whole = not (SCHEMES[scheme].has_shares or SCHEMES[scheme].isolated or potential.spec.per_atom)
    if electrostatics == "charges" or whole:
        if bridge == "torchforce":
            what = 'electrostatics = "charges": a TorchForce gets energies alone'
            raise ConfigError(
                f"bridge = pythonforce for {f'whole energies under scheme {scheme!r}' if whole else what}",
                repr(bridge),
                'write bridge = "auto"',
            )
        return choose_bridge("pythonforce" if bridge == "auto" else bridge, potential)
    if electrostatics == "embedded":
        if bridge == "native":
            raise ConfigError(
                "bridge = torchforce or pythonforce for electrostatic embedding, which looks at all charges",
                repr(bridge),
                'write bridge = "auto"',
            )
        return choose_bridge(bridge, potential)
    constant = _has_constant_weights(built, zones, scheme, mm_tail)
    return choose_bridge(bridge, potential, constant_weights=constant, on_gpu=on_gpu)


def _has_constant_weights(built: BuiltSystem, zones: ZonePartition, scheme: str, mm_tail: bool) -> bool:
    """Whether the potential adds sum_i lambda_i eps_i with constant lambda_i, and nothing else."""
    if SCHEMES[scheme].isolated:
        inside = set(zones.core)
        return not mm_tail and all((a in inside) == (b in inside) for a, b in bonds_of(built))
    return SCHEMES[scheme].has_shares and not zones.moves
