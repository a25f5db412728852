"""Partition functions of an ideal gas of rigid rotors and harmonic oscillators, and rates from them.

McQuarrie and Simon, Molecular Thermodynamics (1999), chapters 3 and 4; modes of low wavenumber after Grimme,
Chem. Eur. J. 18, 9955 (2012), doi 10.1002/chem.201200497; isotope effects after Bigeleisen and Mayer, J.
Chem. Phys. 15, 261 (1947), doi 10.1063/1.1746492. Atoms in an environment that stays have vibrations alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlmm.units import BAR_NM3, GAS_CONSTANT, LIGHT_SPEED, PLANCK

__all__ = [
    "Thermochemistry",
    "isotope_effect",
    "moments_of_inertia",
    "thermochemistry",
    "wigner_factor",
]

#: Average moment of inertia that bounds that of a rotor of low wavenumber: 1e-44 kg m² (Grimme), amu nm².
_ROTOR = 6.02214076
_LINEAR = 1e-6  # smallest moment of inertia over the largest, below which a molecule is linear


@dataclass(frozen=True)
class Thermochemistry:
    """Contributions beside the electronic energy, kJ/mol and kJ/mol/K.

    Parameters
    ----------
    temperature : float
        K.
    zero_point : float
        Zero-point energy.
    thermal : float
        Thermal energy with the zero-point energy.
    enthalpy : float
        `thermal` + RT for a gas; the same as `thermal` in an environment.
    entropy, quasi_entropy : float
        With harmonic modes, and with modes of low wavenumber as hindered rotors.
    parts : dict of str to float
        Entropy of translation, rotation, vibration, electrons.
    """

    temperature: float
    zero_point: float
    thermal: float
    enthalpy: float
    entropy: float
    quasi_entropy: float
    parts: dict[str, float]

    @property
    def gibbs(self) -> float:
        """H − TS with harmonic modes, to be added to the electronic energy."""
        return self.enthalpy - self.temperature * self.entropy

    @property
    def quasi_gibbs(self) -> float:
        """H − TS with modes of low wavenumber as rotors."""
        return self.enthalpy - self.temperature * self.quasi_entropy


def thermochemistry(
    wavenumbers: np.ndarray,
    temperature: float,
    *,
    masses: np.ndarray | None = None,
    positions: np.ndarray | None = None,
    pressure: float = 1.0,
    symmetry_number: int = 1,
    multiplicity: int = 1,
    cutoff: float = 100.0,
) -> Thermochemistry:
    """Thermal contributions of real modes and, for a molecule in a gas, of translation and rotation.

    Parameters
    ----------
    wavenumbers : ndarray, 1/cm
        Imaginary ones (negative) are left out.
    temperature : float
        K.
    masses, positions : ndarray, optional
        amu and nm, of a free molecule; without them vibrations alone.
    pressure : float
        bar.
    symmetry_number, multiplicity : int
    cutoff : float
        ω₀ of the quasi-RRHO entropy, 1/cm: S = w S_vib + (1 − w) S_rot with w = 1/(1 + (ω₀/ω)⁴).
    """
    real = np.asarray(wavenumbers, dtype=np.float64)
    real = real[real > 0]
    rt = GAS_CONSTANT * temperature
    quanta = PLANCK * LIGHT_SPEED * real  # kJ/mol
    x = quanta / rt
    zero_point = float(quanta.sum() / 2)
    vibrating = zero_point + float((quanta / np.expm1(x)).sum())
    each = GAS_CONSTANT * (x / np.expm1(x) - np.log1p(-np.exp(-x)))
    weights = 1.0 / (1.0 + (cutoff / real) ** 4)
    moments = PLANCK / (8.0 * math.pi**2 * LIGHT_SPEED * real)  # h/(8π²ν), amu nm²
    moments = moments * _ROTOR / (moments + _ROTOR)
    turning = GAS_CONSTANT * (0.5 + np.log(np.sqrt(8.0 * math.pi**3 * moments * rt) / PLANCK))
    parts = {
        "translation": 0.0,
        "rotation": 0.0,
        "vibration": float(each.sum()),
        "electrons": GAS_CONSTANT * math.log(multiplicity),
    }
    thermal, enthalpy = vibrating, vibrating
    if masses is not None and positions is not None:
        total = float(np.sum(masses))
        # Sackur and Tetrode: the volume of a molecule is RT/p.
        volume = rt / (pressure * BAR_NM3)
        parts["translation"] = GAS_CONSTANT * (
            math.log((2.0 * math.pi * total * rt) ** 1.5 / PLANCK**3 * volume) + 2.5
        )
        rotational, parts["rotation"] = _rotation(masses, positions, temperature, symmetry_number)
        thermal += 1.5 * rt + rotational
        enthalpy = thermal + rt
    entropy = sum(parts.values())
    quasi = entropy - parts["vibration"] + float((weights * each + (1.0 - weights) * turning).sum())
    return Thermochemistry(temperature, zero_point, thermal, enthalpy, entropy, quasi, parts)


def moments_of_inertia(masses: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Principal moments of inertia (3,), amu nm², the smallest first."""
    centred = positions - np.average(positions, axis=0, weights=masses)
    squares = (masses[:, None] * centred**2).sum()
    return np.linalg.eigvalsh(squares * np.eye(3) - (masses[:, None] * centred).T @ centred)


def _rotation(
    masses: np.ndarray, positions: np.ndarray, temperature: float, symmetry_number: int
) -> tuple[float, float]:
    """Energy and entropy of a classical rigid rotor."""
    moments = moments_of_inertia(masses, positions)
    rt = GAS_CONSTANT * temperature
    if len(masses) == 1 or moments[2] <= 0:
        return 0.0, 0.0
    # kT over rotational quanta: 8π² I kT/h² for each axis.
    ratios = 8.0 * math.pi**2 * moments * rt / PLANCK**2
    if moments[0] < _LINEAR * moments[2]:
        return rt, GAS_CONSTANT * (math.log(ratios[2] / symmetry_number) + 1.0)
    partition = math.sqrt(math.pi * float(np.prod(ratios))) / symmetry_number
    return 1.5 * rt, GAS_CONSTANT * (math.log(partition) + 1.5)


def wigner_factor(wavenumber: float, temperature: float) -> float:
    """Tunnelling correction 1 + u²/24 of an imaginary mode, u = hν/kT (doi 10.1515/zpch-1932-1919)."""
    u = PLANCK * LIGHT_SPEED * abs(wavenumber) / (GAS_CONSTANT * temperature)
    return 1.0 + u**2 / 24.0


def isotope_effect(
    reactant: tuple[np.ndarray, np.ndarray], saddle: tuple[np.ndarray, np.ndarray], temperature: float
) -> float:
    """Kinetic isotope effect k(light)/k(heavy) of Bigeleisen and Mayer, without tunnelling.

    (ν‡_L/ν‡_H) f_R/f_‡ with f = Π (u_H/u_L) [exp(−u_H/2)/(1 − exp(−u_H))] / [exp(−u_L/2)/(1 − exp(−u_L))]
    over the real modes, u = hν/kT.

    Parameters
    ----------
    reactant, saddle : pair of ndarray
        Wavenumbers with light and with heavy isotopes, 1/cm; those of a saddle point begin with the imaginary
        one.
    temperature : float
        K.
    """
    light, heavy = saddle
    ratio = float(abs(light[0]) / abs(heavy[0]))
    return (
        ratio * _partition_ratio(*reactant, temperature) / _partition_ratio(light[1:], heavy[1:], temperature)
    )


def _partition_ratio(light: np.ndarray, heavy: np.ndarray, temperature: float) -> float:
    """Reduced partition function ratio f of heavy over light isotopes."""
    factor = PLANCK * LIGHT_SPEED / (GAS_CONSTANT * temperature)
    low, high = factor * light, factor * heavy
    terms = np.log(high / low) - (high - low) / 2 - np.log(-np.expm1(-high)) + np.log(-np.expm1(-low))
    return float(np.exp(terms.sum()))
