"""Labels for many molecules by one call: in their order, on any number of processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlmm.ensembles.executors import Executor, TaskFailure
from mlmm.ensembles.tasks import ProgressHook
from mlmm.errors import ConfigError, MLMMError
from mlmm.reference.labels import Label, Molecule, PointCharges
from mlmm.reference.method import ReferenceMethod, Stopwatch, failed
from mlmm.reference.methods import reference_method
from mlmm.short_repr import counted

__all__ = ["FAILURE_LIMIT", "LOST", "label"]

logger = logging.getLogger(__name__)
#: Share of molecules that may fail to converge.
FAILURE_LIMIT = 0.1
_FEWEST = 20  # molecules that the share is taken of at least
#: In the record of a label whose worker died: it says nothing about the molecule.
LOST = "worker"


def label(
    structures: Sequence[Molecule],
    method: str | ReferenceMethod,
    external: PointCharges | Sequence[PointCharges] | None = None,
    *,
    executor: Executor | None = None,
    failure_limit: float = FAILURE_LIMIT,
    progress: ProgressHook | None = None,
    **options: Any,
) -> Iterator[Label]:
    """Label molecules by electronic structure, one after another or on many processes.

    Parameters
    ----------
    structures : sequence of Molecule
        Or `ase.Atoms`, whose charge and multiplicity are ``info["charge"]`` and ``info["spin"]``.
    method : str or ReferenceMethod
        One of `mlmm.reference.methods.METHODS`, such as "xtb".
    external : PointCharges or sequence of PointCharges, optional
        Surroundings of all, or of each, in place of their own.
    executor : Executor, optional
        As `mlmm.ensembles.executors.open_executor` gives it; this process alone by default.
    failure_limit : float
        Share of molecules that may fail to converge, of 20 at least; 1 for any.
    progress : callable, optional
        Called with the number of molecules done and of all.
    **options
        Of the method.

    Yields
    ------
    Label
        In the order of the structures, each as soon as it and those before are there. Where the
        self-consistent field does not converge it says so, and has no numbers.

    Raises
    ------
    ConfigError
        An unknown method or option, a molecule that the method cannot describe, whose number is named, or
        more molecules that fail to converge than `failure_limit`.

    Examples
    --------
    >>> from mlmm.reference import Molecule, label
    >>> water = Molecule([8, 1, 1], [[0, 0, 0], [0.076, 0.059, 0], [-0.076, 0.059, 0]])
    >>> [answer.energy for answer in label([water], "xtb", accuracy=0.01)]
    """
    made = reference_method(method, **options)
    molecules = _molecules(structures, external)
    # Checked before anything runs; what follows is a generator of its own.
    return _labels(molecules, made, executor, failure_limit, progress)


@dataclass(frozen=True)
class _Task:
    """One molecule for one method, in a worker: refusals come back as what they are."""

    method: ReferenceMethod

    def __call__(self, molecule: Molecule) -> Label:
        return self.method.label(molecule)


def _labels(
    molecules: Sequence[Molecule],
    method: ReferenceMethod,
    executor: Executor | None,
    failure_limit: float,
    progress: ProgressHook | None,
) -> Iterator[Label]:
    waiting: dict[int, Label] = {}
    following, failures, last = 0, 0, ""
    outcomes = _outcomes(molecules, method, executor, progress)
    for done, (index, outcome) in enumerate(outcomes, 1):
        if isinstance(outcome, TaskFailure):
            outcome = _lost(outcome, molecules[index], method)
        if not outcome.converged:
            failures += 1
            last = outcome.record.get("failure", "no reason given")
        waiting[index] = outcome
        while following in waiting:
            yield waiting.pop(following)
            following += 1
        if failures > failure_limit * max(done, _FEWEST):
            raise ConfigError(
                f"no more than {failure_limit:.0%} of the molecules to fail to converge by {method.title}",
                f"{failures} of {done}; the last said: {last}",
                "look at the structures and their charge and multiplicity, give the method more iterations, "
                "or raise failure_limit; those that failed are recorded and never used",
            )


def _lost(failure: TaskFailure, molecule: Molecule, method: ReferenceMethod) -> Label:
    """The label of a molecule whose worker died; what the method raised is raised, with its number."""
    if failure.error is not None:
        origin = ", ".join(f"{key} {value}" for key, value in molecule.origin.items())
        where = f"structure {failure.index}, counted from 0{f' ({origin})' if origin else ''}"
        if isinstance(failure.error, MLMMError):
            error = failure.error
            raise type(error)(error.expected, f"{error.got} ({where})", error.do) from error
        failure.error.add_note(where)
        raise failure.error
    logger.warning("%s", failure.sentence)
    return failed(method, failure.sentence, {LOST: "died"}, Stopwatch())


def _outcomes(
    molecules: Sequence[Molecule],
    method: ReferenceMethod,
    executor: Executor | None,
    progress: ProgressHook | None,
) -> Iterator[tuple[int, Any]]:
    """Index and label, or TaskFailure, in any order."""
    if executor is not None:
        yield from executor.run(_Task(method), list(molecules), progress=progress)
        return
    for index, molecule in enumerate(molecules):
        try:
            outcome: Any = method.label(molecule)
        except Exception as error:
            outcome = TaskFailure.of_error(index, error, "", 1)
        if progress is not None:
            progress(index + 1, len(molecules))
        yield index, outcome


def _molecules(
    structures: Sequence[Any], external: PointCharges | Sequence[PointCharges] | None
) -> list[Molecule]:
    molecules = [_molecule(structure) for structure in structures]
    if external is None:
        return molecules
    around = [external] * len(molecules) if isinstance(external, PointCharges) else list(external)
    if len(around) != len(molecules):
        raise ConfigError(
            "point charges for each structure",
            f"{counted(len(molecules), 'structure')} and {len(around)} sets of charges",
            "give one PointCharges for all, or as many as structures",
        )
    return [replace(one, external=charges) for one, charges in zip(molecules, around, strict=True)]


def _molecule(structure: Any) -> Molecule:
    if isinstance(structure, Molecule):
        return structure
    if hasattr(structure, "get_atomic_numbers"):
        from mlmm.reference.ase_calculator import molecule_of

        return molecule_of(structure)
    raise ConfigError(
        "molecules to be labelled", f"{type(structure).__name__}", "pass Molecule or ase.Atoms objects"
    )
