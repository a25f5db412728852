"""Errors that a user can solve, one class per place where they have to act.

Every error has three parts, printed as sentences: what was expected, what was found, what to do next. The
command line prints them without a traceback and ends with status 2; in a script they are ordinary exceptions
that also belong to a built-in type.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "EmbeddingError",
    "MLMMError",
    "MissingPackageError",
    "PotentialError",
    "SelectionError",
    "SimulationError",
    "StructureError",
    "check_kind",
]


class MLMMError(Exception):
    """A problem that the user can solve.

    Parameters
    ----------
    expected : str
        What would have been right.
    got : str
        What was found instead: file, line, residue or value.
    do : str
        The next step, if possible as something to type: a clause in the imperative, or a command.
    """

    _opening = "Expected"

    def __init__(self, expected: str, got: str, do: str):
        self.expected, self.got, self.do = expected, got, do
        super().__init__(f"{self._opening} {expected}, but got {got.rstrip('.')}. {_instruction(do)}")

    def __reduce__(self) -> tuple[type[MLMMError], tuple[str, str, str]]:
        # Exception's own rule would rebuild it from the joined message alone.
        return type(self), (self.expected, self.got, self.do)


def _instruction(do: str) -> str:
    """The next step as a sentence; a command to type stands in backquotes, so that its end is seen."""
    if do.startswith(("pip ", "mlmm ")):
        command, comma, otherwise = do.partition(", ")
        do = f"Type `{command}`{comma}{otherwise}"
    elif do.startswith("--"):
        do = f"Write {do}"
    else:
        do = do[:1].upper() + do[1:]
    return do if do.endswith((".", "?", "!", "…")) else f"{do}."


class ConfigError(MLMMError, ValueError):
    """A setting, quantity, unit or run directory that cannot be used."""


class StructureError(MLMMError, ValueError):
    """A structure file that cannot be read, or a system that cannot be parametrised from it."""


class SelectionError(MLMMError, ValueError):
    """A selection that is not understood or matches nothing."""


class PotentialError(MLMMError, ValueError):
    """A machine-learned potential that is unknown, or that cannot describe the region."""


class EmbeddingError(MLMMError, ValueError):
    """A region or a force that the chosen embedding scheme cannot handle."""


class SimulationError(MLMMError, ArithmeticError):
    """Dynamics that left the range of finite numbers."""

    _opening = "The simulation failed: expected"


class MissingPackageError(MLMMError, ImportError):
    """An optional package that is not installed; the message ends with the line that installs it."""


def check_kind(value: object, kind: type | tuple[type, ...], expected: str, do: str) -> None:
    """Refuse an object of another class where the next step can be named.

    Parameters
    ----------
    value : object
    kind : type or tuple of types
    expected : str
        The argument, and what belongs there.
    do : str
        How to make one.

    Raises
    ------
    ConfigError
    """
    if not isinstance(value, kind):
        name = type(value).__name__
        shown = f" ({value!r:.60})" if isinstance(value, str | int | float) else ""
        raise ConfigError(expected, f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}{shown}", do)
