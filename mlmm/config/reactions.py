"""From a run file to a search on an energy surface: the surface, its variables, where the search begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.config.schema import RunConfig
from mlmm.config.search_sections import REACTIONS
from mlmm.config.tables import variables_and_restraints
from mlmm.errors import ConfigError
from mlmm.options import check_names

if TYPE_CHECKING:
    import numpy as np

    from mlmm.collective_variables.options import Variable
    from mlmm.reactions.surface import Evaluator, ReactionSurface

__all__ = ["from_run", "options_from", "search_settings", "surface_from", "variables_from", "workers_of"]


def options_from(config: RunConfig, section: str) -> Any:
    """The options of a section, with defaults where it is not there."""
    return REACTIONS[section](**config.reactions.get(section, {}))


def surface_from(
    config: RunConfig, progress: Callable[[str], None], start: Path | None = None
) -> ReactionSurface:
    """The energy surface of [surface]: a molecule with a potential or a method, or a hybrid.

    Parameters
    ----------
    config : RunConfig
    progress : callable
        Gets the name of each stage of a build.
    start : path, optional
        Run directory whose built system is taken over.

    Raises
    ------
    ConfigError
        Neither a molecule nor a system, or a method for a hybrid.
    """
    options = options_from(config, "surface")
    if not options.molecule:
        return _hybrid(config, options, progress, start)
    if config.system.pdb or config.system.smiles or config.system.parametrised:
        raise ConfigError(
            "molecule in [surface], or a structure in [system]", "both", "leave one of them out"
        )
    from mlmm.reactions.molecules import molecule_system
    from mlmm.reactions.surfaces import method_surface, potential_surface

    built = molecule_system(options.molecule)
    if options.method:
        return method_surface(options.method, built, options)
    from mlmm.config.objects import potential_from

    return potential_surface(potential_from(config, "float64"), built, options)


def _hybrid(
    config: RunConfig, options: Any, progress: Callable[[str], None], start: Path | None
) -> ReactionSurface:
    from mlmm.config.objects import build_from, hybrid_from

    if options.method:
        raise ConfigError(
            "molecule in [surface] with a method of electronic structure",
            f'method = "{options.method}" and no molecule',
            'write molecule = "molecule.xyz", or leave method out for the hybrid of [potential]',
        )
    if not (config.system.pdb or config.system.smiles or config.system.parametrised):
        raise ConfigError(
            "a structure: molecule in [surface], or [system] and [region]",
            "neither",
            'write [surface] with molecule = "molecule.xyz" and method = "gfn2", or [system] with pdb = "…"',
        )
    if not config.region.select:
        raise ConfigError("region.select", "nothing", 'add select = "…" to [region]')
    from mlmm.reactions.surfaces import hybrid_surface

    built = None
    if start is not None and (start / "built" / "built.json").is_file():
        from mlmm.build import BuiltSystem

        built = BuiltSystem.load(start / "built")
    built = build_from(config, progress) if built is None else built
    hybrid = hybrid_from(config, built, precision="float64" if options.precision != "single" else None)
    surface = hybrid_surface(hybrid, options, platform=config.run.platform, threads=config.run.threads)
    surface.remote = partial(_remote_hybrid, config)
    return surface


def _remote_hybrid(config: RunConfig, folder: str) -> Evaluator:
    """An evaluator of a hybrid in a worker process, from the system that the run has saved."""
    return _hybrid(config, options_from(config, "surface"), lambda _: None, Path(folder)).make()


@contextmanager
def workers_of(config: RunConfig, surface: ReactionSurface, folder: Path) -> Iterator[None]:
    """Worker processes for a surface while this lasts, if [surface] asks for them.

    Parameters
    ----------
    config : RunConfig
    surface : ReactionSurface
    folder : Path
        Run directory, where a hybrid is saved when the first structures are sent.
    """
    options = options_from(config, "surface")
    if options.parallel != "processes" or options.workers < 2:
        yield
        return
    from mlmm.ensembles.executors import open_executor

    with open_executor(workers=options.workers) as executor:
        surface.send_to(executor, str(folder))
        yield


def variables_from(config: RunConfig, names: Sequence[str], where: str) -> list[Variable]:
    """Variables by name.

    Raises
    ------
    ConfigError
        One that is not defined.
    """
    made = {variable.name: variable for variable in variables_and_restraints(config)[0]}
    listing = "define it in a table [variable.NAME] with kind and groups"
    chosen = (names,) if isinstance(names, str) else tuple(names)
    check_names(chosen, made, f"a variable of the run file for each in {where}", "" if made else listing)
    return [made[name] for name in chosen]


def search_settings(
    config: RunConfig, section: str, surface: ReactionSurface, **begin: Any
) -> dict[str, Any]:
    """All that decides the result of a search, by name."""
    from mlmm.reactions.options import field_values

    options = field_values(options_from(config, section))
    free = {"steps", "reference", "guess", "start", "end", "structure"} - (
        {"start", "end"} if section == "scan" else set()
    )
    found = {f"{section}.{name}": value for name, value in options.items() if name not in free}
    found |= {f"surface.{name}": value for name, value in surface.facts.items() if name != "potential"}
    found |= {"surface.numbers": surface.numbers, "surface.masses": surface.masses}
    # Weights under one name are told apart by an energy only.
    found["surface.energy"] = round(surface.evaluate(surface.positions).energy, 2)
    for name in _used(config, section):
        found |= {f"variable.{name}.{key}": value for key, value in config.variable[name].items()}
    return found | {f"begin.{name}": value for name, value in begin.items()}


def _used(config: RunConfig, section: str) -> list[str]:
    options = options_from(config, section)
    names: Any = getattr(options, "variables", None) or getattr(options, "expected", ())
    return [names] if isinstance(names, str) else list(names)


def from_run(surface: ReactionSurface, path: Path, wanted: str) -> dict[str, np.ndarray]:
    """Arrays of the result of an earlier search: its path, its highest point, its second derivatives.

    Parameters
    ----------
    surface : ReactionSurface
        Of the same atoms.
    path : Path
        Run directory.
    wanted : str
        What is looked for, in words.

    Raises
    ------
    ConfigError
        No run there, one that has not finished, or one of other atoms.
    """
    from mlmm.dynamics.run_directory import RunDirectory
    from mlmm.reactions.run import RESULT, load_arrays

    run = RunDirectory(path)
    summary = run.summary
    if summary.get("kind") not in REACTIONS or not run.file(RESULT).exists():
        raise ConfigError(
            f"a run that has finished, with {wanted}, in {path}",
            f"one of mlmm {summary.get('kind', 'run')} that is {summary.get('state')}",
            "finish it with --resume, or give another run",
        )
    arrays = load_arrays(run.file(RESULT))
    surface.check_structure(arrays["numbers"], str(path))
    return arrays
