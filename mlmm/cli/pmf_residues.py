"""``mlmm pmf --residues``: what residues around an embedded region do to a barrier."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from mlmm.config.load import load_config
from mlmm.errors import ConfigError
from mlmm.units import parse

__all__ = ["residues"]

_MOST = 40  # frames at each place


def residues(folder: Path) -> int:
    """Print and write the energies of residues with the region at the reactant and on the top.

    Raises
    ------
    ConfigError
        A profile without barrier, a region that is not embedded, or too few frames.
    """
    own = folder / "resolved.toml"
    if not own.exists():
        raise ConfigError("a folder of mlmm pmf", f"{folder} without resolved.toml", "give its --out")
    config = load_config(own)
    if config.embedding.electrostatics != "embedded":
        raise ConfigError(
            'a region under electrostatics = "embedded", which the surroundings polarise',
            f'electrostatics = "{config.embedding.electrostatics}"',
            "sample with a potential that sees charges, such as amp-bms",
        )
    from mlmm.build import BuiltSystem
    from mlmm.collective_variables.bind import bind_variable
    from mlmm.config.objects import potential_from
    from mlmm.config.sampling import asked_sampling
    from mlmm.config.search_sections import REACTIONS
    from mlmm.config.tables import variables_and_restraints
    from mlmm.reactions.contributions import draw_frames, residue_contributions
    from mlmm.reactions.correction import frame_chunks, frame_values
    from mlmm.reactions.umbrella_folder import analyse_folder
    from mlmm.reactions.umbrella_plan import the_variable
    from mlmm.reactions.umbrella_record import UmbrellaRecord
    from mlmm.validation.embedding_levels import embedding_levels
    from mlmm.zones.region import select_region

    asked_sampling(config, "umbrella")
    options = REACTIONS["umbrella"](**config.reactions["umbrella"])
    record = UmbrellaRecord.read(folder)
    result = analyse_folder(folder, options, record=record)
    marks, places = result.profile.landmarks, result.profile.centres
    if marks.transition_state is None:
        raise ConfigError("a profile with a barrier", "none", "sample a range with both sides of it")
    built = BuiltSystem.load(folder / "built")
    variable = bind_variable(built, the_variable(options.variable, variables_and_restraints(config)[0]))
    chunks = [
        [
            chunk
            for run in record.productions(entry.window)
            for chunk in frame_chunks(run / "trajectory.dcd", built.n_atoms, folder, "unused")
        ]
        for entry in result.samples
    ]
    values = [frame_values(own_chunks, variable) for own_chunks in chunks]
    width = 0.5 * float(result.profile.edges[-1] - result.profile.edges[0]) / len(result.samples)
    region = select_region(built, config.region.select, config.region.complete)
    potential = potential_from(config, "float64")
    tables, windows = [], []
    for place in (places[marks.reactant], places[marks.transition_state]):
        drawn = draw_frames(chunks, values, float(place), width, _MOST)
        number = len(drawn.positions)
        print(f"  {number} frames near {record.coordinate.shown(float(place))}", file=sys.stderr)
        tables.append(
            embedding_levels(
                built,
                region,
                potential,
                drawn.positions,
                boxes=drawn.boxes,
                charge=config.region.charge,
                charge_width=parse(config.embedding.charge_width, "length", "embedding.charge_width"),
            )
        )
        windows.append(drawn.windows)
    found = residue_contributions(tables[0], tables[1], (windows[0], windows[1]))
    print("\n".join(found.lines()))
    with (folder / "residues.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "residue",
                *(f"{name}{what}" for name in ("reactant", "top", "difference") for what in ("", "_error")),
            ]
        )
        for name, *pairs in zip(found.names, found.reactant, found.top, found.differences, strict=True):
            writer.writerow([name, *(repr(float(number)) for pair in pairs for number in pair)])
    print(f"written: {folder / 'residues.csv'}")
    return 0
