"""``mlmm freq``: frequencies, free energies, barriers and isotope effects."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmm.cli.search import Search, add_search_options, epilog, run_verb
from mlmm.config.reactions import from_run
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.reactions.progress import Progress

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Harmonic frequencies, thermochemistry, barriers of free energy and isotope effects."
EPILOG = epilog(
    """  mlmm freq my/run.toml --set freq.structure=runs/my-irc/minimum_reverse.xyz --out runs/my-r-freq
  mlmm freq my/run.toml --from runs/my-ts --set freq.reference=runs/my-r-freq    barrier above it
""",
    "freq",
    """
Second derivatives of the atoms that move, by central differences with all others where they are.
Translation, rotation and their free energies belong to a molecule in a vacuum alone; in an environment there
are vibrations only. Free energies are given with harmonic modes, and with modes below freq.cutoff as rotors
(quasi-RRHO). A barrier has an error: of the second derivatives, by their asymmetry and by twice the
displacement along the lowest modes; of structures that still feel a force; of low modes; and, for a committee
of networks, their spread, which is a lower bound. That of the method itself is not in it.
""",
)


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_search_options(verb, "the structure of mlmm ts, with its second derivatives")


def run(options: argparse.Namespace) -> int:
    """Differentiate and report."""
    return run_verb(options, "freq", _begin)


def _begin(search: Search) -> tuple[dict[str, Any], Any]:
    from mlmm.reactions.frequencies import frequency_result, substituted, temperatures_of
    from mlmm.reactions.hessian import Hessian, hessian, normal_modes
    from mlmm.reactions.minimise import minimise
    from mlmm.reactions.results import write_xyz
    from mlmm.reactions.transition_state import oriented

    options, surface, earlier = search.options, search.surface, search.earlier
    where = search.structure(options.structure) if options.structure else earlier.get("positions")
    if where is None:
        where = surface.positions
    if earlier and "positions" not in earlier and not options.structure:
        raise ConfigError(
            "a run of mlmm ts or mlmm freq with --from",
            "one with several structures",
            'write structure = "…" in [freq], such as minimum_reverse.xyz of an IRC',
        )
    temperatures_of(options)
    if options.isotopes:
        substituted(surface, options.isotopes)
    expected = search.variables(options.expected, "freq.expected")
    reference = None
    if options.reference:
        reference = from_run(surface, Path(options.reference), "frequencies of the reactant")
        if not {"symmetry_number", "doubled"} <= reference.keys():
            raise ConfigError(
                "a run of mlmm freq as freq.reference",
                f"{options.reference}",
                "run mlmm freq for the reactant",
            )
    memory = earlier.get("memory")

    def work(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
        positions = where
        if options.relax:
            kept = progress.get("relaxed")
            if kept is None:
                end = minimise(surface, positions, tolerance=0.5, steps=2000, memory=memory)
                kept = end.positions
                progress.keep(f"minimised in {end.steps} steps", relaxed=kept)
            positions = kept
        if {"hessian", "antisymmetric"} <= earlier.keys() and not options.structure and not options.relax:
            found = surface.evaluate(positions, memory)
            asymmetry = float(earlier.get("asymmetry", 0.0))
            second = Hessian(
                positions,
                earlier["hessian"],
                asymmetry,
                found.energy,
                found.forces,
                earlier["antisymmetric"],
            )
        else:
            second = hessian(surface, positions, options.displacement, memory=memory, progress=progress)
        modes = normal_modes(
            second.matrix, surface.masses, positions, free=surface.free, dimensions=surface.dimensions
        )
        modes, overlaps = oriented(modes, expected, positions, surface.masses)
        facts, arrays = frequency_result(surface, second, modes, overlaps, options, reference, memory)
        facts["variables"] = search.all_values(positions)
        write_xyz(search.run.file("path.xyz"), surface.numbers, arrays["movie"], arrays["movie_labels"])
        write_xyz(search.run.file("structure.xyz"), surface.numbers, [positions], ["structure"])
        return facts, arrays

    return {"structure": where}, work
