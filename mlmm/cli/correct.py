"""``mlmm correct``: free energies of another description from frames that were sampled."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.cli.session import add_verbose
from mlmm.cli.session import start as set_up
from mlmm.config.load import load_config
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from mlmm.reactions.correction import FrameChunk
    from mlmm.reactions.window_runs import TaskRunner

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Reweight sampled frames to a better method: free energies, profiles and the error of the potential."
EPILOG = """examples:
  mlmm correct runs/my-pmf --to aiqm2           the profile of umbrella windows, with another method
  mlmm correct runs/my-pmf --to pyscf:functional=pbe0,basis=def2-svp --every 10
  mlmm correct runs/my --to mm                  free energy of the force field, relative to the hybrid
  mlmm correct runs/my --to ani2x --every 5     with another potential, from every fifth frame
  mlmm correct runs/my --to other/run.toml      any other hybrid of the same system
  mlmm correct runs/a --to b/run.toml --with runs/b    both sides sampled: Bennett's acceptance ratio

--to: mm, the force field alone; a run file (.toml) of the same system; a reference method, gfn2, gfn1, aiqm2,
xtb, or one with options as above (mlmm label --methods lists them, --explain NAME their options); or the name
or file of a potential. Methods and potentials replace that of the region, in the same surroundings: alone, or
among the charges within 1.2 nm where the region is embedded; scheme "additive" only.

In every frame the energy by both is computed, and frames get the weight exp(-difference/kT). The number of
effective samples tells whether that can be: with fewer than 10 the answer rests on a few frames, whatever its
error says. Then sample states in between, or train the potential on frames of this run.

Into --out (default RUN-to-METHOD): report.html, the page to look at; correction.json, for windows also
corrected.csv; and differences by frame in differences/. After an interruption the same command goes on;
frames that are done stay.
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("run", metavar="RUN", help="directory of mlmm run or mlmm pmf")
    verb.add_argument(
        "--to", required=True, metavar="METHOD", help="mm, a reference method, a potential or a run file"
    )
    verb.add_argument(
        "--with", dest="other", metavar="RUN", help="a run that was sampled with METHOD, a run file"
    )
    verb.add_argument("--every", type=int, default=1, metavar="N", help="every N-th frame (default 1)")
    verb.add_argument("--out", metavar="DIR", help="folder of the results (default: RUN-to-METHOD)")
    verb.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    add_verbose(verb)


def run(options: argparse.Namespace) -> int:
    """Evaluate frames, reweight, and say what came out."""
    folder = Path(options.run)
    if options.every < 1 or options.workers < 1:
        raise ConfigError(
            "--every and --workers of 1 or more", f"{options.every} and {options.workers}", "correct them"
        )
    config = _config(folder)
    if (folder / "metadynamics.json").exists():
        raise ConfigError(
            "frames of a run, or of windows whose bias is known",
            f"{folder}, sampled under a bias that grew",
            "sample umbrella windows between the valleys that it found, and correct these",
        )
    set_up(config, options)
    name = re.sub(r"[^A-Za-z0-9]+", "_", options.to).strip("_")
    out = Path(options.out) if options.out else folder.with_name(f"{folder.name}-to-{name}")
    (out / "differences").mkdir(parents=True, exist_ok=True)
    _check_same(out, options)
    from mlmm.dynamics.run_directory import versions
    from mlmm.reactions.window_runs import task_runner
    from mlmm.report.correction_page import judge_correction, write_correction_report
    from mlmm.whole_files import write_json

    with task_runner(options.workers, config.run.ml_threads or 1) as tasks:
        if (folder / "umbrella.json").exists():
            if options.other:
                raise ConfigError("--with for a single run", f"windows in {folder}", "leave --with out")
            found = _windows(config, folder, out, options, tasks)
        else:
            found = _single(config, folder, out, options, tasks)
    found |= {"run": str(folder), "to": options.to, "method": _method(config, options.to)}
    found["versions"] = versions()
    write_json(out / "correction.json", found, nan=True)
    verdict = judge_correction(found)
    print(verdict.line)
    for line in verdict.lines:
        print(f"  {line}")
    print(f"report: {write_correction_report(out)}")
    return 0


def _method(config: RunConfig, to: str) -> str:
    """Level of theory of a reference method; what was typed for anything else."""
    from mlmm.reference.methods import is_written_method, written_method

    embedded = config.embedding.electrostatics == "embedded"
    return written_method(to, point_charges=embedded).title if is_written_method(to) else to


def _config(folder: Path) -> RunConfig:
    path = folder / "resolved.toml"
    if not path.exists():
        raise ConfigError(
            "a directory of mlmm run or mlmm pmf", f"{folder} without resolved.toml", "give its --out"
        )
    return load_config(path)


def _check_same(out: Path, options: argparse.Namespace) -> None:
    """Differences that are there belong to the same run and method (ConfigError)."""
    asked = {"run": str(Path(options.run).resolve()), "to": options.to, "with": options.other or ""}
    path = out / "asked.json"
    # A method that failed before its first frame has left nothing behind.
    begun = any((out / "differences").glob("*.npy"))
    if begun and path.exists() and json.loads(path.read_text(encoding="utf-8")) != asked:
        raise ConfigError(
            f"differences of this run and method in {out}",
            f"others, of {path}",
            "choose another --out",
        )
    path.write_text(json.dumps(asked), encoding="utf-8")


def _evaluated(make: Any, chunks: list[FrameChunk], tasks: TaskRunner, what: str) -> None:
    from mlmm.reactions.correction import DifferenceRunner

    def told(done: int, total: int) -> None:
        print(f"  {what}: {done} of {total} pieces", file=sys.stderr, flush=True)

    tasks(DifferenceRunner(make), chunks, told)


def _loaded(chunks: list[FrameChunk]) -> np.ndarray:
    import numpy as np

    return np.concatenate([np.load(chunk.result) for chunk in chunks]) if chunks else np.empty(0)


def _single(
    config: RunConfig, folder: Path, out: Path, options: argparse.Namespace, tasks: TaskRunner
) -> dict[str, Any]:
    """A run of dynamics; with another one sampled with the method, both sides."""
    from mlmm.build import BuiltSystem
    from mlmm.config.corrections import difference_maker
    from mlmm.reactions.correction_results import run_facts, without_failures
    from mlmm.reactions.reweighting import exponential_average, two_sided
    from mlmm.report.text import with_error
    from mlmm.units import parse

    temperature = parse(config.run.temperature, "temperature", "temperature")
    make = difference_maker(config, folder / "built", options.to)
    n_atoms = BuiltSystem.load(folder / "built").n_atoms
    chunks = _chunks(folder, n_atoms, out, "frames", options.every)
    _evaluated(make, chunks, tasks, "frames")
    (differences,), _, failed = without_failures([_loaded(chunks)])
    found = exponential_average(differences, temperature)
    print(f"free energy by {options.to} less that of the run: {with_error(found.value, found.error)} kJ/mol")
    counts = f"{found.samples} frames, {found.independent:.1f} independent"
    print(f"{found.effective:.1f} effective samples ({counts})")
    print(f"difference of energies {found.mean:.2f} ± {found.spread:.2f} kJ/mol (standard deviation)")
    result = run_facts(found, differences, temperature) | {"failed": failed}
    if options.other:
        if not options.to.endswith(".toml"):
            raise ConfigError("a run file in --to with --with", options.to, "give that of the other run")
        others = _chunks(Path(options.other), n_atoms, out, "other", options.every)
        _evaluated(make, others, tasks, "frames of the other run")
        value, error, overlap = two_sided(differences, -_loaded(others), temperature)
        print(f"from both sides (BAR): {with_error(value, error)} kJ/mol, overlap {overlap:.2f}")
        result["two_sided"] = {"value": value, "error": error, "overlap": overlap}
    return result


def _chunks(folder: Path, n_atoms: int, out: Path, name: str, every: int) -> list[FrameChunk]:
    from mlmm.reactions.correction import frame_chunks

    chunks = frame_chunks(folder / "trajectory.dcd", n_atoms, out / "differences", name, every)
    if not chunks:
        raise ConfigError(
            "a run with frames", f"none in {folder}", "shorten trajectory_interval in [report] and run longer"
        )
    return chunks


def _windows(
    config: RunConfig, folder: Path, out: Path, options: argparse.Namespace, tasks: TaskRunner
) -> dict[str, Any]:
    """Umbrella windows: the change of their profile."""
    from mlmm.build import BuiltSystem
    from mlmm.collective_variables.bind import bind_variable
    from mlmm.config.corrections import difference_maker
    from mlmm.config.search_sections import REACTIONS
    from mlmm.config.tables import variables_and_restraints
    from mlmm.reactions.correction import correct_profile, frame_chunks, frame_values
    from mlmm.reactions.correction_results import profile_facts, without_failures, write_corrected
    from mlmm.reactions.umbrella_folder import analyse_folder
    from mlmm.reactions.umbrella_plan import the_variable
    from mlmm.reactions.umbrella_record import UmbrellaRecord
    from mlmm.report.text import with_error

    record = UmbrellaRecord.read(folder)
    umbrella = REACTIONS["umbrella"](**config.reactions["umbrella"])
    result = analyse_folder(folder, umbrella, record=record)
    make = difference_maker(config, folder / "built", options.to)
    built = BuiltSystem.load(folder / "built")
    variable = bind_variable(built, the_variable(umbrella.variable, variables_and_restraints(config)[0]))
    by_window = [
        [
            chunk
            for run in record.productions(entry.window)
            for chunk in frame_chunks(
                run / "trajectory.dcd",
                built.n_atoms,
                out / "differences",
                f"{entry.window.number:03d}_{run.name}",
                options.every,
            )
        ]
        for entry in result.samples
    ]
    if not any(by_window):
        raise ConfigError(
            "windows with frames", f"none in {folder}", "shorten trajectory_interval in [report]"
        )
    _evaluated(make, [chunk for chunks in by_window for chunk in chunks], tasks, "frames")
    places = [frame_values(chunks, variable) for chunks in by_window]
    differences, values, failed = without_failures([_loaded(chunks) for chunks in by_window], places)
    found = correct_profile(result, values, differences)
    facts = profile_facts(result, found, differences) | {"failed": failed}
    write_corrected(out / "corrected.csv", facts)
    for name, label in (("barrier", "barrier"), ("reaction", "reaction free energy")):
        if facts.get(name):
            own = {key: with_error(*pair) for key, pair in facts[name].items()}
            print(
                f"{label}: sampled {own['sampled']}, change {own['change']}, "
                f"by {options.to} {own['corrected']} kJ/mol"
            )
    print(f"{found.effective.min():.1f} effective samples or more in each of {len(found.places)} bins")
    return facts
