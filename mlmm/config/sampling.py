"""From a run file to free energies: the hybrid as worker processes make it, umbrella windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.config.metals import biases_of
from mlmm.config.objects import hybrid_from, run_options
from mlmm.config.schema import RunConfig
from mlmm.config.search_sections import REACTIONS
from mlmm.dynamics.options import ProtocolOptions
from mlmm.errors import ConfigError
from mlmm.options import fields_of

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem
    from mlmm.collective_variables.options import Restraint, Variable
    from mlmm.hybrid.system import HybridSystem
    from mlmm.reactions.end_states import EndStates
    from mlmm.reactions.metadynamics import Metadynamics
    from mlmm.reactions.umbrella import Umbrella

__all__ = [
    "asked_sampling",
    "end_states_from",
    "hybrid_maker",
    "metadynamics_from",
    "protocol_of",
    "umbrella_from",
]


def asked_sampling(config: RunConfig, *sections: str) -> str:
    """The one of some sections that a run file has.

    Raises
    ------
    ConfigError
        None of them, or several.
    """
    there = [section for section in sections if section in config.reactions]
    if len(there) != 1:
        names = " or ".join(f"[{section}]" for section in sections)
        raise ConfigError(
            f"one section {names} in the run file",
            " and ".join(f"[{section}]" for section in there) or "none",
            f"mlmm config --explain {sections[0]}, which lists its keys",
        )
    return there[0]


def hybrid_maker(config: RunConfig, built_folder: Path) -> Callable[[], HybridSystem]:
    """A function that makes the hybrid of a run file from a built system on disk, in any process."""
    return partial(_hybrid, config, str(built_folder))


def _hybrid(config: RunConfig, built_folder: str) -> HybridSystem:
    from mlmm.build import BuiltSystem

    return hybrid_from(config, BuiltSystem.load(Path(built_folder)))


def protocol_of(config: RunConfig) -> ProtocolOptions:
    """Lengths of the stages in [run]."""
    return ProtocolOptions(
        **{name: getattr(config.run, name) for name in fields_of(ProtocolOptions).values()}
    )


def _biases(config: RunConfig, built: BuiltSystem) -> tuple[list[Variable], list[Restraint]]:
    from mlmm.zones.region import select_region

    region = select_region(built, config.region.select, config.region.complete)
    return biases_of(config, built, region.atoms)


def umbrella_from(config: RunConfig, built: BuiltSystem, out: Path) -> Umbrella:
    """The windows of [umbrella].

    Parameters
    ----------
    config : RunConfig
    built : BuiltSystem
        Which is in the folder ``built`` of `out`.
    out : Path
    """
    from mlmm.reactions.umbrella import Umbrella

    variables, restraints = _biases(config, built)
    options: Any = REACTIONS["umbrella"](**config.reactions["umbrella"])
    return Umbrella(
        hybrid_maker(config, out / "built"),
        built,
        out,
        options,
        protocol_of(config),
        run_options(config),
        variables,
        restraints,
    )


def end_states_from(config: RunConfig, built: BuiltSystem, out: Path) -> EndStates:
    """The states of [endstate], of the built system, which is in the folder ``built`` of `out`."""
    from mlmm.config.corrections import difference_maker
    from mlmm.reactions.end_states import EndStates
    from mlmm.reactions.switching import SwitchedEnds

    variables, restraints = _biases(config, built)
    options: Any = REACTIONS["endstate"](**config.reactions.get("endstate", {}))
    kind = SwitchedEnds if options.method == "switching" else EndStates
    return kind(
        hybrid_maker(config, out / "built"),
        difference_maker(config, out / "built", "mm"),
        out,
        options,
        protocol_of(config),
        run_options(config),
        variables,
        restraints,
    )


def metadynamics_from(config: RunConfig, built: BuiltSystem, out: Path, title: str) -> Metadynamics:
    """The run of [metadynamics]; arguments as for `umbrella_from`, and the title of its report."""
    from mlmm.reactions.metadynamics import Metadynamics

    variables, restraints = _biases(config, built)
    by_name = {variable.name: variable for variable in variables}
    options: Any = REACTIONS["metadynamics"](**config.reactions["metadynamics"])
    facts = {"title": config.run.title or title, "potential": config.potential.name}
    return Metadynamics(
        hybrid_from(config, built),
        out,
        options,
        protocol_of(config),
        run_options(config),
        variables,
        [dataclasses.replace(one, variable=by_name[one.name]) for one in restraints],
        facts,
    )
