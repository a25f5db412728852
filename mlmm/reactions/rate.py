"""Rate constant of a reaction from its free energy of activation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlmm.errors import ConfigError
from mlmm.units import GAS_CONSTANT, PLANCK

__all__ = ["PER_SECOND", "Rate", "eyring_rate"]

#: 1/s per 1/ps.
PER_SECOND = 1e12


@dataclass(frozen=True)
class Rate:
    """A rate constant.

    Parameters
    ----------
    value : float
        1/s.
    factor : float
        One standard error of the barrier multiplies or divides it by this.
    transmission : float
        Transmission coefficient that was assumed.
    """

    value: float
    factor: float
    transmission: float = 1.0


def eyring_rate(barrier: float, error: float, temperature: float, transmission: float = 1.0) -> Rate:
    """k = kappa (RT / N_A h) exp(-barrier/RT) of a reaction of first order (Eyring, doi 10.1063/1.1749604).

    Parameters
    ----------
    barrier, error : float
        Free energy of activation and its standard error, kJ/mol.
    temperature : float
        K.
    transmission : float
        kappa; 1 means that no trajectory turns back and none tunnels.

    Raises
    ------
    ConfigError
        A temperature that is not above 0.
    """
    if not temperature > 0:
        raise ConfigError("a temperature above 0 K", f"{temperature:g} K", "correct it")
    thermal = GAS_CONSTANT * temperature
    value = transmission * thermal / PLANCK * PER_SECOND * math.exp(-barrier / thermal)
    return Rate(value, math.exp(error / thermal), transmission)
