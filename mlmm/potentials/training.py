"""What a potential was trained on: elements, charges and multiplicities outside of that are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlmm.elements import element_names
from mlmm.errors import ConfigError, PotentialError
from mlmm.potentials.known import find_model, known_potentials
from mlmm.potentials.spec import PotentialSpec

__all__ = [
    "OUTSIDE_TRAINING",
    "check_electrons",
    "check_elements",
    "check_polarisable",
    "check_polarisation_scaling",
    "check_training",
    "potentials_for",
]

#: What `outside_training` may be.
OUTSIDE_TRAINING = ("stop", "warn")


def potentials_for(
    numbers: Iterable[int], charge: int = 0, multiplicity: int = 1, without: str = ""
) -> list[str]:
    """Names of the known potentials for some elements, a net charge and a multiplicity; installed ones first.

    Parameters
    ----------
    numbers : iterable of int
        Atomic numbers.
    charge, multiplicity : int
        Of the region.
    without : str
        Name of a potential, as its spec has it, that is left out.
    """
    wanted = set(numbers)
    found = [
        known
        for known in known_potentials()
        if wanted <= set(known.spec.elements)
        and (charge == 0 or known.charges)
        and (multiplicity == 1 or known.spec.spins)
        and known.about["name"] != without
    ]
    ready = {}
    for known in found:
        # SevenNet's package ships its weights, and takes seconds to say where.
        ready[known.name] = known.package_found and (known.kind == "sevennet" or bool(find_model(known)))
    return sorted(ready, key=lambda name: not ready[name])


def check_elements(spec: PotentialSpec, numbers: Sequence[int], charge: int = 0) -> None:
    """Make sure that the model knows every element of the region.

    Parameters
    ----------
    spec : PotentialSpec
    numbers : sequence of int
        Atomic numbers.
    charge : int
        Of the region, for the potentials that are named instead.

    Raises
    ------
    PotentialError
        Names the elements that are missing, the potential's own, and potentials that know them.
    """
    wanted = set(int(n) for n in numbers)
    unknown = sorted(wanted - set(spec.elements))
    if unknown:
        raise PotentialError(
            f"only elements that {spec.name} knows ({element_names(spec.elements, ' ')})",
            element_names(unknown),
            f"choose a smaller region, or {_others(potentials_for(wanted, charge), 'all of it')}",
        )


def check_electrons(
    spec: PotentialSpec, electrons: int, charge: int, multiplicity: int, whose: str = ""
) -> None:
    """Make sure that a multiplicity goes with a number of electrons, where the model takes one of them.

    Parameters
    ----------
    spec : PotentialSpec
    electrons : int
        Their number, or a number that is even where theirs is.
    charge, multiplicity : int
    whose : str
        For the message, instead of their number.

    Raises
    ------
    PotentialError
    """
    if (spec.charges or spec.spins) and (multiplicity < 1 or (electrons + multiplicity) % 2 == 0):
        raise PotentialError(
            f"a multiplicity that {whose or electrons} electrons can have "
            f"({'odd' if electrons % 2 == 0 else 'even'})",
            f"multiplicity {multiplicity} at charge {charge:+d}",
            "correct charge or multiplicity in [region], or look for a missing hydrogen",
        )


def check_polarisable(spec: PotentialSpec, *, scriptable: bool = True) -> None:
    """Refuse electrostatic embedding for a potential that does not see charges around the region.

    Raises
    ------
    PotentialError
    """
    if spec.external == "none" or not scriptable:
        raise PotentialError(
            'a potential that sees the charges around it for electrostatics = "embedded"',
            f"{spec.name}, which does not",
            'use amp-bms, or write electrostatics = "mechanical"',
        )


def check_polarisation_scaling(scaling: float | None, name: str, *, known: bool) -> None:
    """Refuse a scaled polarisation for a potential without one to scale.

    Parameters
    ----------
    scaling : float or None
        None: not asked for.
    name : str
        Of the potential.
    known : bool
        Whether it knows the factor.

    Raises
    ------
    PotentialError
    """
    if scaling is not None and not known:
        raise PotentialError(
            "polarisation_scaling for amp-bms, or a model trained from it",
            f"{scaling:g} for {name}, which has no such factor",
            "leave polarisation_scaling out",
        )


def check_training(
    spec: PotentialSpec,
    numbers: Sequence[int],
    charge: int,
    multiplicity: int,
    outside_training: str = "stop",
) -> list[str]:
    """Refuse a charge or a multiplicity that the model was not trained on, or say what that means.

    Parameters
    ----------
    spec : PotentialSpec
    numbers : sequence of int
        Atomic numbers of the region.
    charge, multiplicity : int
        Of the region.
    outside_training : {"stop", "warn"}

    Returns
    -------
    list of str
        What is outside, in sentences; empty where nothing is.

    Raises
    ------
    ConfigError
        An unknown word.
    PotentialError
        Something outside, under "stop".
    """
    if outside_training not in OUTSIDE_TRAINING:
        raise ConfigError(
            f"outside_training = {' | '.join(OUTSIDE_TRAINING)}",
            repr(outside_training),
            'write outside_training = "stop"',
        )
    found: list[tuple[str, str, str]] = []
    if spec.trained_charges and charge not in spec.trained_charges:
        known = " or ".join(f"{trained:+d}" for trained in spec.trained_charges)
        found.append(
            (
                f"a neutral region for {spec.name}, which was trained on neutral molecules alone"
                if spec.trained_charges == (0,)
                else f"charge {known} for {spec.name}, which was trained on such molecules alone",
                f"charge {charge:+d}",
                f"{spec.name} does not know charges: energies and forces of this region, whose charge is "
                f"{charge:+d}, are outside of what it was trained on",
            )
        )
    if multiplicity != 1 and not spec.spins:
        found.append(
            (
                f"multiplicity 1 for {spec.name}, which describes closed shells",
                f"multiplicity {multiplicity}",
                f"{spec.name} does not know open shells: multiplicity {multiplicity} of the region is not "
                "taken into account",
            )
        )
    if found and outside_training == "stop":
        expected, got = found[0][0], " and ".join(got for _, got, _ in found)
        names = potentials_for(numbers, charge, multiplicity, spec.name)
        what = f"{'charges' if charge and multiplicity == 1 else 'such states'} and these elements"
        raise PotentialError(
            expected,
            got,
            f'{_others(names, what)}; or write outside_training = "warn" in [region] to go on, with a red '
            "line in the report",
        )
    return [sentence for *_, sentence in found]


def _others(names: Sequence[str], what: str) -> str:
    """A clause that names potentials."""
    if not names:
        return f"choose a potential of another source (none that `mlmm models` lists knows {what})"
    verb = "knows" if len(names) == 1 else "know"
    more = f" or {len(names) - 3} others" if len(names) > 3 else ""
    return f"use {' or '.join(names[:3])}{more}, which {verb} {what} (`mlmm models` lists them)"
