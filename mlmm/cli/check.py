"""``mlmm check``: one verb for each question about a hybrid system; without one, its energy is checked."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from mlmm.cli import check_embedding, check_energy, check_frames, check_schemes, check_timestep, check_zones

__all__ = ["EPILOG", "HELP", "VerbParser", "add_options"]

HELP = "Check a hybrid system: energy and forces, zones, schemes, time steps, embedding, frames of a run."
_VERBS = {
    "energy": check_energy,
    "zones": check_zones,
    "schemes": check_schemes,
    "timestep": check_timestep,
    "embedding": check_embedding,
    "frames": check_frames,
}
EPILOG = """examples:
  mlmm check my/run.toml               the same as mlmm check energy my/run.toml
  mlmm check energy my/run.toml        are forces the gradient of the energy, and is it conserved?
  mlmm check zones my/run.toml         how wide must a smooth zone be?
  mlmm check schemes my/run.toml       which scheme leaves the smallest error on the region?
  mlmm check timestep my/run.toml      which time steps are stable?
  mlmm check embedding my/run.toml     which residues hold the region, and what embedding changes
  mlmm check frames runs/my            does anything still drive molecules across an adaptive zone?

each of them explains itself: mlmm check zones --help
exit status: 0 all is well, 1 a check failed, 2 something to correct in the input
"""


class VerbParser(argparse.ArgumentParser):
    """A parser whose verbs below it, if it has `below`, begin with the one that may be left out."""

    below: Sequence[str] = ()

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse as argparse does, with the first verb filled in where something else stands first."""
        if self.below and args and args[0] not in (*self.below, "-h", "--help"):
            args = [self.below[0], *args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end with status 2; for an unknown verb or choice, name the closest one."""
        wrong = re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong is None:
            super().error(message)
        what, word, choices = wrong.groups()
        names = re.findall(r"[\w-]+", choices)
        near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
        command = what if what.startswith("-") else self.prog
        what = "a verb" if what == "VERB" else what
        do = f"Did you mean `{command} {near[0]}`?" if near else f"`{self.prog} --help` explains them."
        self.exit(2, f"{self.prog}: error: Expected {what} ({', '.join(names)}), but got {word!r}. {do}\n")


def add_options(verb: VerbParser) -> None:
    """Add the verbs below ``mlmm check``."""
    verb.below = tuple(_VERBS)
    below = verb.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, module in _VERBS.items():
        parser = below.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(parser)
        parser.set_defaults(verb=module.run)
