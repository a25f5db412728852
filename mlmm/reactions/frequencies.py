"""Frequencies of one structure, its free energies, and barriers and isotope effects beside a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.reactions.barrier_error import PointError, committee_error, doubled_step, joined, point_error
from mlmm.reactions.hessian import Hessian, Modes, normal_modes
from mlmm.reactions.options import FrequencyOptions
from mlmm.reactions.rate import eyring_rate
from mlmm.reactions.results import mode_movie
from mlmm.reactions.surface import ReactionSurface
from mlmm.reactions.thermochemistry import (
    Thermochemistry,
    isotope_effect,
    thermochemistry,
    wigner_factor,
)
from mlmm.units import parse

__all__ = ["Barrier", "barriers", "frequency_result", "substituted", "temperatures_of"]

#: Imaginary modes up to this are within the error of differences, 1/cm.
_SMALL = -30.0


@dataclass(frozen=True)
class Barrier:
    """A saddle point above its reactant at one temperature; kJ/mol, 1/s.

    Parameters
    ----------
    temperature : float
        K.
    energy, zero_point, enthalpy, gibbs, quasi_gibbs : float
        ΔE, ΔE with zero-point energy, ΔH, ΔG and ΔG with modes of low wavenumber as rotors.
    rate : float
        By Eyring from `quasi_gibbs`, transmission coefficient 1.
    wigner : float
        Factor for tunnelling, not in the rate.
    isotopes : float, optional
        k(light)/k(heavy).
    error : float
        Of `quasi_gibbs`, without that of the method itself; see `mlmm.reactions.barrier_error`.
    error_parts : dict of str to float
    """

    temperature: float
    energy: float
    zero_point: float
    enthalpy: float
    gibbs: float
    quasi_gibbs: float
    rate: float
    wigner: float
    isotopes: float | None = None
    error: float = float("nan")
    error_parts: Mapping[str, float] = field(default_factory=dict)


def temperatures_of(options: FrequencyOptions) -> list[float]:
    """Temperatures in K."""
    given = [options.temperatures] if isinstance(options.temperatures, str) else options.temperatures
    return [parse(text, "temperature", "freq.temperatures") for text in given]


def substituted(surface: ReactionSurface, isotopes: Mapping[str, float]) -> np.ndarray:
    """Masses (n,) with isotopes by selection.

    Raises
    ------
    SelectionError
        A selection that matches nothing.
    ConfigError
        One that matches no atom that moves.
    """
    from mlmm.zones.region import select_atoms

    masses = np.array(surface.masses, dtype=np.float64)
    assert surface.indices is not None
    place = {int(atom): k for k, atom in enumerate(surface.indices)}
    for selection, mass in isotopes.items():
        chosen = [place[atom] for atom in select_atoms(surface.built, selection) if atom in place]
        if not chosen:
            raise ConfigError(
                "isotopes of atoms that move", f"{selection!r}, none of which does", "correct freq.isotopes"
            )
        masses[chosen] = mass
    return masses


def thermal(
    wavenumbers: np.ndarray,
    positions: np.ndarray,
    masses: np.ndarray,
    free: bool,
    multiplicity: int,
    symmetry_number: int,
    options: FrequencyOptions,
) -> list[Thermochemistry]:
    """Thermal contributions at each temperature."""
    gas: dict[str, Any] = {"masses": masses, "positions": positions} if free else {}
    return [
        thermochemistry(
            wavenumbers * options.scale,
            temperature,
            pressure=options.pressure,
            symmetry_number=symmetry_number,
            multiplicity=multiplicity,
            cutoff=options.cutoff,
            **gas,
        )
        for temperature in temperatures_of(options)
    ]


def barriers(
    saddle: Hessian,
    modes: Modes,
    own: Sequence[Thermochemistry],
    reference: Mapping[str, np.ndarray],
    errors: Sequence[tuple[PointError, PointError]],
    options: FrequencyOptions,
    *,
    free: bool = True,
    heavy: np.ndarray | None = None,
    potential: float | None = None,
) -> list[Barrier]:
    """A saddle point beside its reactant, whose arrays are `reference`, at each temperature.

    Parameters
    ----------
    saddle : Hessian
    modes : Modes
    own : sequence of Thermochemistry
    reference : mapping of str to ndarray
        Result of `mlmm freq` for the reactant, which has a symmetry number and a multiplicity of its own.
    errors : sequence of pairs of PointError
        Of the saddle point and of the reactant, at each temperature.
    options : FrequencyOptions
    free : bool
        Whether translation and rotation count.
    heavy : ndarray, shape (n,), optional
        Masses with isotopes.
    potential : float, optional
        Error of the barrier of energy by the members of a committee.
    """
    masses, where = reference["masses"], reference["positions"]
    states = int(reference["multiplicity"]), int(reference["symmetry_number"])
    other = thermal(reference["wavenumbers"], where, masses, free, *states, options)
    found = []
    for mine, theirs, points in zip(own, other, errors, strict=True):
        rise = saddle.energy - float(reference["energy"])
        gibbs = rise + mine.gibbs - theirs.gibbs
        quasi = rise + mine.quasi_gibbs - theirs.quasi_gibbs
        error, parts = joined(points, gibbs - quasi, potential)
        effect = None
        if heavy is not None:
            pairs = []
            for matrix, places, light in (
                (reference["hessian"], where, reference["wavenumbers"]),
                (saddle.matrix, saddle.positions, modes.wavenumbers),
            ):
                replaced = normal_modes(matrix, heavy, places, free=free).wavenumbers
                pairs.append((light * options.scale, replaced * options.scale))
            effect = isotope_effect(pairs[0], pairs[1], mine.temperature)
        found.append(
            Barrier(
                temperature=mine.temperature,
                energy=rise,
                zero_point=rise + mine.zero_point - theirs.zero_point,
                enthalpy=rise + mine.enthalpy - theirs.enthalpy,
                gibbs=gibbs,
                quasi_gibbs=quasi,
                rate=eyring_rate(quasi, 0.0, mine.temperature).value,
                wigner=wigner_factor(modes.wavenumbers[0] * options.scale, mine.temperature),
                isotopes=effect,
                error=error,
                error_parts=parts,
            )
        )
    return found


def frequency_result(
    surface: ReactionSurface,
    found: Any,
    modes: Modes,
    overlaps: Mapping[str, float],
    options: FrequencyOptions,
    reference: Mapping[str, np.ndarray] | None,
    memory: np.ndarray | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and arrays of frequencies; `found` is the `Hessian`, `memory` an environment at rest."""
    from mlmm.reactions.surface import force_norm

    multiplicity = int(surface.facts.get("multiplicity", 1))
    states = multiplicity, options.symmetry_number
    own = thermal(modes.wavenumbers, found.positions, surface.masses, surface.free, *states, options)
    heavy = substituted(surface, options.isotopes) if options.isotopes else None
    doubled = doubled_step(surface, found.positions, modes, options.displacement, memory)
    members = surface.member_energies(found.positions, memory)
    treated = {"scale": options.scale, "cutoff": options.cutoff}
    facts: dict[str, Any] = {
        "energy": found.energy,
        "force": force_norm(found.forces),
        "imaginary": [float(x) for x in modes.imaginary],
        "wavenumbers": [float(x) for x in modes.wavenumbers],
        "removed": modes.removed,
        "asymmetry": found.asymmetry,
        "overlaps": dict(overlaps),
        "free": surface.free,
        "clear_imaginary": int((modes.wavenumbers < _SMALL).sum()),
        "thermochemistry": [
            {
                "temperature": one.temperature,
                "zero_point": one.zero_point,
                "enthalpy": one.enthalpy,
                "entropy": one.entropy,
                "quasi_entropy": one.quasi_entropy,
                "gibbs": one.gibbs,
                "quasi_gibbs": one.quasi_gibbs,
                "parts": one.parts,
            }
            for one in own
        ],
    }
    if reference is not None:
        second, their_modes = _of_reference(reference, surface.free)
        their_doubled, their_masses = reference["doubled"], reference["masses"]
        errors = [
            (
                point_error(found, modes, doubled, surface.masses, warmth, **treated),
                point_error(second, their_modes, their_doubled, their_masses, warmth, **treated),
            )
            for warmth in temperatures_of(options)
        ]
        spread = committee_error(members, reference["members"], float(surface.facts.get("calibration", 1.0)))
        rows = barriers(
            found, modes, own, reference, errors, options, free=surface.free, heavy=heavy, potential=spread
        )
        facts["barriers"] = [dict(row.__dict__) for row in rows]
    elif heavy is not None:
        replaced = normal_modes(found.matrix, heavy, found.positions, free=surface.free)
        facts["isotope_wavenumbers"] = [float(x) for x in replaced.wavenumbers]
    arrays = {
        "numbers": surface.numbers,
        "indices": surface.indices,
        "masses": surface.masses,
        "positions": found.positions,
        "highest": found.positions,
        "hessian": found.matrix,
        "antisymmetric": found.antisymmetric,
        "doubled": doubled,
        "forces": found.forces,
        "members": members,
        "energy": found.energy,
        "wavenumbers": modes.wavenumbers,
        "vectors": modes.vectors,
        "reduced_masses": modes.reduced_masses,
        "multiplicity": multiplicity,
        "symmetry_number": options.symmetry_number,
        "movie": mode_movie(found.positions, modes.vectors[0]),
        "movie_labels": [f"lowest mode, {modes.wavenumbers[0]:.0f} 1/cm".replace("-", "imaginary ")] * 20,
    }
    return facts, arrays


def _of_reference(reference: Mapping[str, np.ndarray], free: bool) -> tuple[Hessian, Modes]:
    """Second derivatives and modes of the reactant."""
    second = Hessian(
        reference["positions"],
        reference["hessian"],
        float("nan"),
        float(reference["energy"]),
        reference["forces"],
        reference["antisymmetric"],
    )
    return second, normal_modes(second.matrix, reference["masses"], second.positions, free=free)
