"""Options that are tables from text to entries of one kind. Only the standard library is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlmm.options.kinds import Option

__all__ = ["Table"]

#: What a table leads to: how it is called, and whether an entry is of that kind.
_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "texts": ("from text to text", lambda entry: isinstance(entry, str)),
    "values": (
        "from text to text, numbers or true and false",
        lambda entry: isinstance(entry, (str, int, float)),
    ),
    "weights": (
        "of weights above 0 and up to 1",
        lambda entry: isinstance(entry, (int, float)) and not isinstance(entry, bool) and 0 < entry <= 1,
    ),
    "numbers": (
        "from text to a number above 0",
        lambda entry: isinstance(entry, (int, float)) and not isinstance(entry, bool) and entry > 0,
    ),
    "pairs": (
        "from a name to two texts",
        lambda entry: isinstance(entry, (list, tuple)) and [type(text) for text in entry] == [str, str],
    ),
}


@dataclass(frozen=True, kw_only=True)
class Table(Option):
    """A table from text to one kind of `entries`: "texts", "numbers", "values", "weights" or "pairs"."""

    entries: str = "texts"

    @property
    def values(self) -> str:
        return f"a table {_ENTRIES[self.entries][0]}"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, Mapping) and all(map(_ENTRIES[self.entries][1], value.values()))

    def check(self, name: str, value: Any, where: str = "") -> Any:
        return dict(super().check(name, value, where))

    def parse(self, name: str, value: Any) -> Any:
        return self.check(name, {} if value is None else value)
