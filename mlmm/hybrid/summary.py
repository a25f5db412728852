"""A hybrid system in a few words, for a prompt or a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from mlmm.hybrid.spec import HybridSpec
from mlmm.short_repr import counted

__all__ = ["hybrid_summary"]


def hybrid_summary(spec: HybridSpec, warnings: Sequence[str] = ()) -> dict[str, str]:
    """Atoms by weight, who describes them and how, by name; see `mlmm.short_repr.ShortRepr`."""
    built, zones = spec.built, spec.zones
    state = f"charge {spec.charge:+d} e" if spec.charge else ""
    if spec.multiplicity != 1:
        state += f"{', ' if state else ''}multiplicity {spec.multiplicity}"
    return {
        "atoms": f"{built.n_atoms:,}",
        "region": f"{counted(len(zones.region), 'atom')} ({zones.region.label})",
        "lambda = 1": f"{len(zones.core):,}",
        "0 < lambda < 1": f"{len(zones.transition):,}" if zones.transition else "",
        "may change lambda": counted(len(zones.switchable_atoms), "atom") if zones.moves else "",
        "state": state,
        "potential": spec.potential.spec.name,
        "scheme": spec.scheme,
        "electrostatics": spec.electrostatics,
        "bridge": spec.bridge,
        "box": "periodic" if built.periodic else "none",
        "warnings": str(len(warnings) or ""),
    }
