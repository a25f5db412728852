"""Chemical elements: the one table of symbols and atomic numbers, which is gemmi's."""

from __future__ import annotations

from collections.abc import Iterable

import gemmi

__all__ = ["SYMBOLS", "element_names"]

#: Symbols by atomic number; number 0 is X, an unknown element or a virtual site.
SYMBOLS: tuple[str, ...] = tuple(gemmi.Element(number).name for number in range(119))


def element_names(numbers: Iterable[int], separator: str = ", ") -> str:
    """Name elements in a message; a number that is no element's is written as one."""
    return separator.join(
        SYMBOLS[number] if 0 < number < len(SYMBOLS) else f"atomic number {number}" for number in numbers
    )
