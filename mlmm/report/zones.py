"""The report's section on zones: atoms by zone and by lambda, scheme, warnings and notes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlmm.report.plots import Plot, Sketch
from mlmm.report.text import as_float, as_list, as_mapping, in_digits, in_words, look_up
from mlmm.report.zone_plots import draw_histogram

__all__ = ["zone_section"]

_SCHEMES = {
    "per_atom": "per_atom: per-atom energies weighted with lambda",
    "supermolecular": "supermolecular: energy with the region less energy without it",
    "additive": "additive: the region by itself",
    "delta": "delta: a correction to the force field",
}
_ELECTROSTATICS = {
    "mechanical": "mechanical embedding: fixed charges of the force field",
    "charges": "charges that the potential predicts at every step",
    "embedded": "electrostatic embedding: the charges around act on the potential",
}
_FAR_FIELDS = {"ewald": "Ewald sum", "reaction_field": "reaction field"}
_MM_SIDES = {
    "openmm": "OpenMM: the force field's part as OpenMM parameters",
    "torch": "torch: the force field's part in torch",
    "plugin": "plugin: the force field's part beside the networks",
}


def zone_section(run: dict) -> dict[str, Any]:
    """Return the tables and the picture of the section, as the template names them."""
    warnings, notes = as_list(run.get("warnings")), as_list(run.get("zone_notes"))  # warnings stand on top
    return {
        "counts": _counts(run),
        "setup": _setup(run),
        "remarks": [note for note in notes if note not in warnings],
        "histogram": _histogram(as_mapping(run.get("histogram"))),
    }


def _counts(run: dict) -> list[dict[str, str]]:
    total, rows = as_float(look_up(run, "system", "atoms")), []
    meaning = {
        "core": ("ml", "λ = 1"),
        "transition": ("transition", "0 < λ < 1"),
        "buffer": ("other", "λ = 0, seen by the potential"),
        "environment": ("mm", "λ = 0"),
    }
    for zone, (swatch, words) in meaning.items():
        count = as_float(look_up(run, "zones", zone))
        share = f"{count / total:.2%}" if total > 0 and math.isfinite(count) else ""
        row = {"swatch": swatch, "zone": zone, "atoms": in_digits(count), "share": share, "meaning": words}
        rows.append(row)
    return rows


def _setup(run: dict) -> list[tuple[str, str]]:
    """How the zones were made, and which side describes which terms."""
    setup, embedding = as_mapping(run.get("zone_setup")), as_mapping(run.get("embedding"))
    names = {key: "Zones" if key == "kind" else key.capitalize() for key in map(str, setup)}
    rows = [(name, in_words(setup[key])) for key, name in names.items()]
    scheme, mm_side = (str(embedding.get(key)) for key in ("scheme", "mm_side"))
    words, reason = _SCHEMES.get(scheme, in_words(embedding.get("scheme"))), embedding.get("scheme_reason")
    rows.append(("Scheme", f"{words} (by default: {in_words(reason)})" if reason else words))
    rows += _electrostatics(embedding, bool(look_up(run, "system", "periodic")))
    rows.append(("Force field in", _MM_SIDES.get(mm_side, in_words(embedding.get("mm_side")))))
    rows.append(("Bridge", in_words(embedding.get("bridge"))))
    graphs = as_mapping(embedding.get("cuda_graphs"))
    if graphs:
        taken = "taken" if graphs.get("taken") is True else "not taken"
        rows.append(("CUDA graphs", f"{taken}: {in_words(graphs.get('reason'))}"))
    compensation = as_mapping(embedding.get("compensation"))
    if compensation:
        parts = [
            f"{kind} {in_digits(value, 'kJ/mol')}"
            for kind, value in as_mapping(compensation.get("alignment")).items()
        ]
        words = f"{in_words(compensation.get('mode'))}: {', '.join(parts)}"
        rows.append(("Compensation", words))
    rows.append(("Removed from MM", in_words(embedding.get("removed"))))
    return rows


def _electrostatics(embedding: dict, periodic: bool) -> list[tuple[str, str]]:
    """How the region feels the charges around it; nothing in records that do not say."""
    kind = embedding.get("electrostatics")
    if kind is None:
        return []
    words = _ELECTROSTATICS.get(str(kind), in_words(kind))
    if kind == "embedded":
        far_field = embedding.get("far_field")
        far = _FAR_FIELDS.get(str(far_field), in_words(far_field)) if periodic else "every pair"
        words = f"{words} ({far})"
    return [("Electrostatics", words)]


def _histogram(record: dict) -> Plot | None:
    """Atoms by lambda at the start; nothing for a hard boundary."""
    names = ("edges", "atoms", "mean", "deviation")
    columns = [np.array([as_float(value) for value in as_list(record.get(name))]) for name in names]
    edges, atoms, mean, deviation = columns
    fits = len(edges) >= 2 and len(atoms) == len(mean) == len(deviation) == len(edges)
    if not fits or not np.isfinite(edges).all() or not np.isfinite(atoms).all():
        return None
    caption = f"Atoms by λ in the built structure, as counted above; {in_digits(atoms.sum())} have λ > 0."
    known = bool(np.isfinite(mean).any())
    if known:
        caption += " Points: what the potential changes, per residue, with its standard deviation."
    return Sketch(
        "histogram",
        "Atoms by lambda",
        caption,
        lambda figure: draw_histogram(figure, edges, atoms, mean, deviation),
        lambda width: 2.8 if width > 4.5 or not known else 5.2,
    ).at(full=known)
