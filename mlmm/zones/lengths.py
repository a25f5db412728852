"""Plateau and width of a zone as users write them: in nm or in bonds."""

from __future__ import annotations

import re

from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["lengths"]


def lengths(plateau: str | float, width: str | float) -> tuple[float, float, bool]:
    """Plateau and width as numbers (nm or bonds), and whether they are numbers of bonds.

    Raises
    ------
    ConfigError
        Different units, a negative number, half a bond.
    """
    found = [
        re.match(r"^\s*(\S+?)\s*bonds?\s*$", value) if isinstance(value, str) else None
        for value in (plateau, width)
    ]
    if any(found) and not all(found):
        raise ConfigError(
            "plateau and width in one unit",
            f"{plateau!r} and {width!r}",
            'write both in nm, or both as "2 bonds"',
        )
    in_bonds = [match[1] for match in found if match is not None]
    if in_bonds:
        if not all(re.match(r"^[-+]?\d+$", number) for number in in_bonds):
            raise ConfigError("whole numbers of bonds", f"{plateau!r} and {width!r}", 'write "2 bonds"')
        reach, zone = (float(number) for number in in_bonds)
    else:
        reach, zone = parse(plateau, "length", "plateau"), parse(width, "length", "width")
    if reach < 0 or zone < 0:
        raise ConfigError("plateau and width not negative", f"{plateau} and {width}", "correct the zones")
    return reach, zone, all(found)
