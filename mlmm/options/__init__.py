"""One schema for options: the fields of a frozen dataclass carry unit, choices, bounds and a line of help.

Run files, Python keywords, ``--set``, ``mlmm config --explain``, ``mlmm init`` and ``--help`` read it.
"""

from typing import Any, TypeAlias

from mlmm.options.kinds import Option, toml
from mlmm.options.schema import (
    as_written,
    check_fields,
    check_names,
    check_section,
    default_of,
    documented,
    fields_of,
    number,
    options_of,
    quantity,
    rising,
    section,
    setting,
    split_changes,
    with_changes,
    word,
)

#: A number in internal units, a string such as "2 fs", or an OpenMM Quantity; a float once it is checked.
Quantity: TypeAlias = Any

__all__ = [
    "Option",
    "Quantity",
    "as_written",
    "check_fields",
    "check_names",
    "check_section",
    "default_of",
    "documented",
    "fields_of",
    "number",
    "options_of",
    "quantity",
    "rising",
    "section",
    "setting",
    "split_changes",
    "toml",
    "with_changes",
    "word",
]
