"""What was decided on the user's behalf while a system was built: one entry per decision, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Decision(NamedTuple):
    """One thing that a careful person would want to know.

    Parameters
    ----------
    stage : str
        ``read``, ``select``, ``repair``, ``ligands``, ``protonate``, ``solvate``, ``parametrise``, ``check``.
    kind : str
        One word or two to search for: ``altloc``, ``chains``, ``pKa``, ``disulfide`` …
    text : str
        The sentence that is shown.
    residue : str
        ``"ALA 12A of chain B"``, or empty where the whole structure is meant.
    numbers : dict
        JSON-able figures: occupancies, distances in nm, pKa.
    warning : bool
        Whether the user should look at it before any run.
    """

    stage: str
    kind: str
    text: str
    residue: str = ""
    numbers: Mapping[str, Any] = {}
    warning: bool = False


def as_decisions(stage: str, entries: Iterable[Decision | str]) -> list[Decision]:
    """Entries of one stage; a bare sentence becomes a note."""
    return [entry if isinstance(entry, Decision) else Decision(stage, "note", entry) for entry in entries]


def log_text(decisions: Iterable[Decision]) -> str:
    """A readable page: stages as headings, ``!`` before what the user should look at."""
    lines, stage = [], None
    for decision in decisions:
        if decision.stage != stage:
            stage = decision.stage
            lines.append(f"{stage}")
        lines.append(f"  {'!' if decision.warning else ' '} {decision.text}")
    return "\n".join(lines)
