"""``mlmm endstate``: free energy from the force field to the hybrid, by states between or by switching."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlmm.cli.pmf import built_in, check_folder, say_line
from mlmm.cli.session import add_config, checked_potential, run_name
from mlmm.cli.session import start as set_up
from mlmm.config.explain import key_lines
from mlmm.config.load import load_config
from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Free energy from the force field to the hybrid: the correction of an end point, with its error."
EPILOG = f"""examples:
  mlmm endstate my/run.toml                       into runs/my-endstate, with a report
  mlmm endstate my/run.toml --resume              after Ctrl-C, a crash or a kill: finished states stay
  mlmm endstate my/run.toml --resume --set run.produce="50 ps"     every state longer
  mlmm endstate my/run.toml --workers 4           states at a time
  mlmm endstate my/run.toml --set endstate.method=switching        both ends, and short runs between them

A free energy of hydration or binding by the force field becomes that of the hybrid by the free energy of
changing the potential at both end points; of hydration: dG_hybrid = dG_MM + dF(in water) - dF(in a vacuum).
This verb gives each dF, from force field to hybrid: run it on the solute in water, and on the solute alone.

U(w) = w U_hybrid + (1 - w) U_MM is sampled at weights w from 0 to 1 (states, or weights one by one, in
[endstate]), each state a run of its own: minimise (the first one only), equilibrate, produce, as [run] says.
MBAR joins the frames of all states; errors come from resampling as many as are independent. With method =
"switching" both ends are sampled, and from frames of each the weight goes to the other end in switch_length;
the work of both directions gives the free energy by Crooks' theorem (Bennett's acceptance ratio).

Both take scheme "additive", whole molecules and mechanical embedding; build with constraints = "none", since
the bonds of the region vibrate in all states. For other hybrids sample both ends:
mlmm correct RUN --to other.toml --with OTHER.

In the folder: report.html (the page to look at), result.json (all numbers), endstate.json, states/NNN (run
directories), differences/ or switches/, built/, resolved.toml.

{key_lines("endstate")}
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb, "run file in TOML; [endstate] may be left out")
    verb.add_argument("--out", metavar="DIR", help="folder (default: runs/NAME-endstate)")
    how = verb.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    how.add_argument("--overwrite", action="store_true", help="replace what is in the folder")
    verb.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")


def run(options: argparse.Namespace) -> int:
    """Sample, analyse and report."""
    if options.workers < 1:
        raise ConfigError("--workers 1 or more", str(options.workers), "write --workers 2")
    out = Path(options.out) if options.out else Path("runs") / f"{run_name(options.config)}-endstate"
    config = load_config(options.config, options.set)
    check_folder(out, options, "endstate.json")
    set_up(config, options)
    checked_potential(config)
    built = built_in(config, out)
    from mlmm.config.sampling import end_states_from
    from mlmm.reactions.end_states import weighted
    from mlmm.reactions.window_runs import task_runner
    from mlmm.report.end_state_page import read_end_states, write_end_state_report
    from mlmm.report.text import with_error

    states = end_states_from(config, built, out)
    states.facts = {
        "title": config.run.title or run_name(options.config),
        "potential": config.potential.name,
    }
    # What has no states between is refused before anything runs.
    weighted(states.make_hybrid(), 0.0)
    print(f"{out}/")
    try:
        with task_runner(options.workers, config.run.ml_threads or 1) as tasks:
            found = states.sample(tasks, built.n_atoms, say_line)
    except (KeyboardInterrupt, SystemExit):
        again = f"mlmm endstate {options.config} --out {out} --resume"
        print(f"interrupted; go on with: {again}", file=sys.stderr)
        raise
    value, error = float(found.free_energies[-1]), float(found.errors[-1])
    print(f"free energy of the hybrid less that of the force field: {with_error(value, error)} kJ/mol")
    verdict = read_end_states(out)[2]
    print(verdict.line)
    for line in verdict.lines:
        print(f"  {line}")
    print(f"report: {write_end_state_report(out)}")
    return 0
