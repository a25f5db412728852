"""Choices that only the user can make: what stops a build, and how a dry run looks at what lies behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlmm.build.options import BuildOptions
from mlmm.errors import StructureError
from mlmm.options import with_changes

__all__ = ["NothingLeftError", "OpenQuestionError", "removal_key", "without"]


class OpenQuestionError(StructureError):
    """A structure that leaves a choice open; a dry run goes on under an assumption.

    Parameters
    ----------
    expected, got, do : str
        As for `MLMMError`.
    changes : mapping of str to value
        Options of a build that settle it for the rest of a dry run: values of lists and mappings are added.
    assumption : str
        The same in words, after "if": ``'gaps = "split"'``.
    """

    def __init__(self, expected: str, got: str, do: str, changes: Mapping[str, Any], assumption: str):
        super().__init__(expected, got, do)
        self.changes, self.assumption = dict(changes), assumption

    def __reduce__(self) -> tuple[type[OpenQuestionError], tuple[Any, ...]]:
        return type(self), (self.expected, self.got, self.do, self.changes, self.assumption)

    def assumed(self, options: BuildOptions) -> BuildOptions:
        """Options with the assumption."""
        values: dict[str, Any] = {}
        for name, value in self.changes.items():
            before = getattr(options, name)
            if isinstance(value, Mapping) and isinstance(before, Mapping):
                values[name] = {**before, **value}
            elif isinstance(value, Mapping):
                values[name] = [*before, *(f"{key} -> {new}" for key, new in value.items())]
            elif isinstance(value, Sequence) and not isinstance(value, str):
                values[name] = [*before, *(entry for entry in value if entry not in before)]
            else:
                values[name] = value
        return with_changes(BuildOptions, options, values)


class NothingLeftError(StructureError):
    """A selection that leaves nothing to build; behind an assumption there is then nothing to see."""


def removal_key(name: str, chain: str, number: str, insertion_code: str) -> str:
    """A residue as `remove` takes it: ``"A:HOH277"``."""
    return f"{chain.strip()}:{name}{number}{insertion_code.strip()}"


def without(names: Sequence[str]) -> str:
    """``"remove = [\\"SO4\\", \\"FMT\\"]"``."""
    quoted = [f'"{name}"' for name in dict.fromkeys(names)]
    return f"remove = [{', '.join(quoted)}]"
