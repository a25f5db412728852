"""``mlmm pmf``: a free-energy profile along a collective variable."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.cli.pmf_residues import residues
from mlmm.cli.session import add_config, build_shown, checked_potential, run_name
from mlmm.cli.session import start as set_up
from mlmm.config.explain import key_lines
from mlmm.config.load import load_config
from mlmm.config.sampling import asked_sampling
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.build import BuiltSystem

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Free-energy profile along a collective variable, with its barrier, rate constant and errors."
EPILOG = f"""examples:
  mlmm pmf my/run.toml --workers 4              into runs/my-pmf, with a report
  mlmm pmf my/run.toml --resume                 after Ctrl-C, a crash or a kill: finished windows stay
  mlmm pmf my/run.toml --resume --set umbrella.add=3      add windows where neighbours do not overlap
  mlmm pmf my/run.toml --resume --set run.produce="20 ps" make every window longer
  mlmm pmf --analyse runs/my-pmf                the profile of what has been sampled so far
  mlmm pmf --residues runs/my-pmf               which residues hold the reactant, and which the top
  mlmm pmf runs/enzyme --compare runs/water     difference of barriers, with its error and the ratio of rates

The run file is that of mlmm run with a variable and a section [umbrella]:

  [variable.d]
  groups = ["resname LIG and name C1", "resname LIG and name C2"]

  [umbrella]
  variable = "d"
  start = "0.15 nm"
  end = "0.35 nm"
  windows = 12

Every window is a run of its own: minimise (the first one only), equilibrate, produce, as [run] says. Windows
start one after the other from their neighbours, or with structures = "path.pdb" from the nearest model of a
path, and are sampled in parallel. MBAR joins them. Errors come from resampling as many samples as are
independent, and from five successive parts of the data; the larger is reported.

In the folder: report.html (the page to look at), profile.csv, result.json (all numbers), umbrella.json (the
windows), windows/NNN/equilibration and windows/NNN/production_NNN (run directories), built/, resolved.toml.

with [metadynamics] instead of [umbrella] a bias grows until it has filled the valleys, to explore where they
are; then it is held and sampled for a profile with its error. For two variables there is map.csv besides:

  [metadynamics]
  variables = ["phi", "psi"]
  low = ["-180 degree", "-180 degree"]
  high = ["180 degree", "180 degree"]
  width = ["20 degree", "20 degree"]

{key_lines("umbrella", "metadynamics")}
"""


#: Sections that decide the energy, and keys that do not.
_ENERGY = ("system", "region", "zones", "potential", "embedding", "variable", "restraint")
_MACHINE = {"bridge", "device", "download", "kernel", "trust"}


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb, "run file in TOML with [umbrella] or [metadynamics]; with --analyse a folder of windows")
    verb.add_argument("--out", metavar="DIR", help="folder (default: runs/NAME-pmf)")
    how = verb.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    how.add_argument("--overwrite", action="store_true", help="replace what is in the folder")
    how.add_argument("--analyse", action="store_true", help="analyse the windows of a folder, run nothing")
    how.add_argument(
        "--residues",
        action="store_true",
        help="energies of the residues of a folder with the embedded region, at the reactant and on the top",
    )
    how.add_argument(
        "--compare",
        metavar="FOLDER",
        help="compare a folder with another one, enzyme with water or mutant with wild type: comparison.html "
        "and comparison.json in the first one, or in --out",
    )
    verb.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that run windows at a time (default 1)"
    )


def run(options: argparse.Namespace) -> int:
    """Sample, analyse and report."""
    if options.analyse:
        return _analyse(options)
    if options.residues:
        return residues(Path(options.config))
    if options.compare:
        return _compare(Path(options.config), Path(options.compare), options.out)
    if options.workers < 1:
        raise ConfigError("--workers 1 or more", str(options.workers), "write --workers 2")
    out = Path(options.out) if options.out else Path("runs") / f"{run_name(options.config)}-pmf"
    config = load_config(options.config, options.set)
    section = asked_sampling(config, "umbrella", "metadynamics")
    check_folder(out, options, f"{section}.json")
    set_up(config, options)
    checked_potential(config)
    built = built_in(config, out)
    try:
        if section == "umbrella":
            return _umbrella(config, built, out, options)
        return _metadynamics(config, built, out, options)
    except (KeyboardInterrupt, SystemExit):
        print(f"interrupted; go on with: mlmm pmf {options.config} --out {out} --resume", file=sys.stderr)
        raise


def check_folder(out: Path, options: argparse.Namespace, record: str) -> None:
    """Refuse a folder that holds something else, or windows that are neither to go on nor to be replaced."""
    if not out.exists() or not any(out.iterdir()):
        if options.resume and not out.exists():
            raise ConfigError("a folder to go on with", f"no folder {out}", "leave --resume out")
        return
    ours = (out / record).exists() or (out / "built").is_dir()
    if not ours:
        raise ConfigError("a new or empty folder", f"{out} with other files", "choose another --out")
    if options.overwrite:
        from mlmm.dynamics.lock import check_unlocked

        check_unlocked(out)
        shutil.rmtree(out)
    elif not options.resume:
        raise ConfigError(
            "a new folder",
            f"{out}, which holds earlier ones",
            "add --resume to go on with it, --overwrite to replace it, or choose another --out",
        )


def built_in(config: RunConfig, out: Path) -> BuiltSystem:
    """The system of a folder, or a new one that is saved there."""
    from mlmm.build import BuiltSystem

    folder = out / "built"
    if folder.is_dir():
        _check_settings(config, out)
        return BuiltSystem.load(folder)
    built = build_shown(config)
    out.mkdir(parents=True, exist_ok=True)
    draft = out / "built.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    built.save(draft)
    draft.rename(folder)
    import tomli_w

    (out / "resolved.toml").write_text(tomli_w.dumps(config.as_dict()), encoding="utf-8")
    return BuiltSystem.load(folder)


def _check_settings(config: RunConfig, out: Path) -> None:
    """Refuse another system or potential than the one that the folder was begun with (ConfigError)."""
    import tomllib

    path = out / "resolved.toml"
    if not path.exists():
        return
    import tomli_w

    before = tomllib.loads(path.read_text(encoding="utf-8"))
    now = tomllib.loads(tomli_w.dumps(config.as_dict()))
    other = [
        f"{section}.{key}" if key else section
        for section in _ENERGY
        for key in _changed(before.get(section), now.get(section))
    ]
    if other:
        raise ConfigError(
            f"the energy that {out} was begun with",
            f"other {', '.join(other)}",
            f"leave them as they are in {path}, or choose another --out",
        )


def _changed(before: Any, now: Any) -> list[str]:
    """Keys of a section that differ and are not about where it is evaluated; "" where it is no table."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [""]
    return [key for key in sorted({*before, *now} - _MACHINE) if before.get(key) != now.get(key)]


def _umbrella(config: RunConfig, built: BuiltSystem, out: Path, options: argparse.Namespace) -> int:
    from mlmm.config.sampling import umbrella_from
    from mlmm.reactions.window_runs import task_runner

    umbrella = umbrella_from(config, built, out)
    umbrella.facts = {
        "title": config.run.title or run_name(options.config),
        "potential": config.potential.name,
    }
    print(f"{out}/")
    with task_runner(options.workers, config.run.ml_threads or 1) as tasks:
        umbrella.sample(tasks, say_line)
    return _report(out)


def _metadynamics(config: RunConfig, built: BuiltSystem, out: Path, options: argparse.Namespace) -> int:
    from mlmm.config.sampling import metadynamics_from

    if options.workers > 1:
        raise ConfigError(
            "one process under [metadynamics], whose bias grows step by step",
            f"--workers {options.workers}",
            "leave it out",
        )
    metadynamics = metadynamics_from(config, built, out, run_name(options.config))
    print(f"{out}/")
    metadynamics.sample(say_line)
    return _analysed_held(out, metadynamics.options, config.run.seed)


def _analysed_held(folder: Path, options: Any, seed: int) -> int:
    from mlmm.reactions.reweighted_profile import analyse_metadynamics
    from mlmm.report.metadynamics_page import judge_held, write_metadynamics_report
    from mlmm.report.reading import read_run

    analyse_metadynamics(folder, bins=options.bins, bootstraps=options.bootstraps, seed=seed)
    result = read_run(folder / "result.json")
    for line in result_lines(result):
        print(line)
    verdict = judge_held(result)
    print(verdict.line)
    for line in verdict.lines:
        print(f"  {line}")
    print(f"report: {write_metadynamics_report(folder)}")
    return 0


def _analyse(options: argparse.Namespace) -> int:
    from mlmm.reactions.umbrella_folder import analyse_folder

    folder = Path(options.config)
    if (folder / "metadynamics.json").exists():
        config = load_config(folder / "resolved.toml", options.set)
        return _analysed_held(folder, _options_in(folder, "metadynamics", options.set), config.run.seed)
    analyse_folder(folder, _options_in(folder, "umbrella", options.set))
    return _report(folder)


def _compare(first: Path, second: Path, out: str | None) -> int:
    from mlmm.reactions.profile_comparison import compare_folders
    from mlmm.report.profile_comparison_page import write_profile_comparison
    from mlmm.report.text import with_error
    from mlmm.whole_files import write_json

    facts = compare_folders(first, second)
    folder = Path(out) if out else first
    folder.mkdir(parents=True, exist_ok=True)
    page, verdict = write_profile_comparison(facts, folder / "comparison.html")
    write_json(folder / "comparison.json", facts, nan=True)
    print(f"barrier of {first} less that of {second}: {with_error(*facts['barrier'])} kJ/mol")
    factor = f"a standard error is a factor of {facts['rate_factor']:.2g}"
    print(f"ratio of rates {facts['rate_ratio']:.2g}, {factor}")
    print(verdict.line)
    for line in verdict.lines:
        print(f"  {line}")
    print(f"report: {page}")
    return 0


def _options_in(folder: Path, section: str, changes: list[str]) -> Any:
    """The options that a folder was sampled with, changed for the analysis."""
    from mlmm.config.search_sections import REACTIONS

    own = folder / "resolved.toml"
    if not own.exists():
        return None
    return REACTIONS[section](**load_config(own, changes).reactions[section])


def _report(folder: Path) -> int:
    from mlmm.report.free_energy_page import read_profile, write_profile_report

    _, result, verdict = read_profile(folder)
    for line in result_lines(result):
        print(line)
    print(verdict.line)
    for line in verdict.lines:
        print(f"  {line}")
    print(f"report: {write_profile_report(folder)}")
    return 0


def result_lines(result: dict[str, Any]) -> list[str]:
    """Barrier, rate constant and reaction free energy in lines of text."""
    from mlmm.reactions.rate import eyring_rate
    from mlmm.report.text import with_error

    lines = []
    if result["barrier"]:
        value, error = result["barrier"][0], result["error"]
        rate = eyring_rate(value, error, result["temperature"])
        lines.append(f"barrier {with_error(value, error)} kJ/mol")
        lines.append(
            f"rate constant {rate.value:.2g} 1/s (Eyring, transmission 1), a factor of {rate.factor:.2g}"
        )
    lines.append("reaction free energy {} kJ/mol".format(with_error(*result["reaction"])))
    return lines


def say_line(text: str) -> None:
    """A line on standard error."""
    print(f"  {text}", file=sys.stderr, flush=True)
