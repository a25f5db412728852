"""Sections of a run file for searches on an energy surface and free energies, which dynamics leave alone.

Only the standard library is imported here, see `mlmm.config.load`.
"""

from mlmm.reactions.options import (
    FrequencyOptions,
    IRCOptions,
    NEBOptions,
    ScanOptions,
    SurfaceOptions,
    TransitionStateOptions,
)
from mlmm.reactions.sampling_options import EndStateOptions, MetadynamicsOptions, UmbrellaOptions

__all__ = ["REACTIONS"]

#: Section -> its schema.
REACTIONS: dict[str, type] = {
    "surface": SurfaceOptions,
    "scan": ScanOptions,
    "neb": NEBOptions,
    "ts": TransitionStateOptions,
    "irc": IRCOptions,
    "freq": FrequencyOptions,
    "umbrella": UmbrellaOptions,
    "metadynamics": MetadynamicsOptions,
    "endstate": EndStateOptions,
}
