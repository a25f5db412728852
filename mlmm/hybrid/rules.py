"""Which scheme, potential, zone, bridge and options go together; what cannot be is refused here."""

from __future__ import annotations

from mlmm.build import BuiltSystem
from mlmm.hybrid.bridge import choose_bridge
from mlmm.potentials.base import PotentialModel, PotentialSpec
from mlmm.schemes import SchemeChoice, check_bridge, check_zones, take_scheme, whole_energies
from mlmm.zones.static import ZonePartition

__all__ = ["choose_host", "choose_scheme"]


def choose_scheme(
    scheme: str,
    zones: ZonePartition,
    spec: PotentialSpec,
    *,
    electrostatics: str = "mechanical",
    mm_tail: bool = False,
    multiplicity: int = 1,
) -> SchemeChoice:
    """The scheme that was asked for, or the default, if the zones have an energy under it.

    Parameters
    ----------
    scheme : str
        ``"auto"`` or a key of `mlmm.schemes.SCHEMES`.
    zones : ZonePartition
    spec : PotentialSpec
    electrostatics, mm_tail, multiplicity
        As in `hybrid_system`; some of them need one scheme.

    Raises
    ------
    ConfigError, PotentialError, EmbeddingError
        As `take_scheme`, and `check_zones`.
    """
    choice = take_scheme(
        scheme,
        spec,
        cuts=bool(zones.region.cut_bonds),
        zones=zones.kind,
        electrostatics=electrostatics,
        mm_tail=mm_tail,
        multiplicity=multiplicity,
    )
    between = f"{len(zones.transition)} atoms with lambda between 0 and 1"
    check_zones(choice.name, moves=zones.moves, smooth="" if zones.hard else between)
    return choice


def choose_host(
    bridge: str,
    built: BuiltSystem,
    zones: ZonePartition,
    potential: PotentialModel,
    scheme: str,
    *,
    electrostatics: str = "mechanical",
    mm_tail: bool = False,
) -> str:
    """The bridge that was asked for, or that suits the energy; see `mlmm.hybrid.bridge.choose_bridge`.

    Raises
    ------
    ConfigError
        A TorchForce for charges, or for whole energies of a changing set of atoms; the kernel for an embedded
        region.
    """
    check_bridge(bridge, scheme, electrostatics, per_atom=potential.spec.per_atom)
    if electrostatics == "charges" or whole_energies(scheme, per_atom=potential.spec.per_atom):
        return choose_bridge("pythonforce" if bridge == "auto" else bridge, potential)
    if electrostatics == "embedded":
        return choose_bridge(bridge, potential)
    return choose_bridge(bridge, potential, in_plugin=True)
