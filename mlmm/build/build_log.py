"""What was decided on the user's behalf while a system was built: one entry per decision, in order."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

logger = logging.getLogger(__name__)


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


def log_decisions(name: str, decisions: Iterable[Decision]) -> None:
    """Tell the log of the program, warnings as such."""
    for decision in decisions:
        logger.log(logging.WARNING if decision.warning else logging.INFO, "%s: %s", name, decision.text)


def write_build_log(provenance: Mapping[str, Any], folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write ``build_log.json`` and ``build_log.txt`` from the provenance of a built system.

    Parameters
    ----------
    provenance : mapping
        Of `mlmm.BuiltSystem`: source, checksum, options, versions and ``log``.
    folder : path
        Made if it is not there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = [Decision(**entry) for entry in provenance.get("log", [])]
    paths = folder / "build_log.json", folder / "build_log.txt"
    paths[0].write_text(json.dumps(dict(provenance), indent=1) + "\n", encoding="utf-8")
    head = str(provenance.get("source", "not stated"))
    if "sha256" in provenance:
        head += f", sha256 {provenance['sha256']}"
    if "net_charge" in provenance:
        head += f"\nnet charge {provenance['net_charge']} e"
    paths[1].write_text(f"{head}\n{log_text(entries)}\n", encoding="utf-8")
    return paths
