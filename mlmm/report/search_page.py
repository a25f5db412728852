"""The page of a search: verdict, key numbers, profile, movie of the path or of the mode, and the record."""

from __future__ import annotations

import io
import logging
import os
import pathlib
from typing import Any

import numpy as np

from mlmm.errors import ConfigError
from mlmm.report.page import save_page
from mlmm.report.pdb_file import load_pdb
from mlmm.report.player import packed_coordinates
from mlmm.report.plots import lay_out
from mlmm.report.reading import read_run
from mlmm.report.search_plots import search_sketches
from mlmm.report.search_tables import search_cards, search_tables
from mlmm.report.search_verdict import judge_search
from mlmm.report.structure import thinned, viewer_texts
from mlmm.report.template import inline_script, render
from mlmm.report.text import as_list, as_mapping, in_words, look_up

__all__ = ["is_search", "judge_search", "write_search_report"]

logger = logging.getLogger(__name__)
_FRAMES = 120
_TITLES = {
    "scan": "Structures of the scan",
    "neb": "The path",
    "ts": "The imaginary mode",
    "irc": "The reaction",
    "freq": "The lowest mode",
}


def is_search(directory: str | os.PathLike) -> bool:
    """Whether a directory holds a search, not dynamics (ConfigError without ``run.json``)."""
    return str(read_run(pathlib.Path(directory) / "run.json").get("kind")) in _TITLES


def write_search_report(directory: str | os.PathLike) -> pathlib.Path:
    """Write ``report.html`` of a search, a page without external files.

    Parameters
    ----------
    directory : str or path
        Run directory of `mlmm scan`, `neb`, `ts`, `irc` or `freq`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ConfigError
        No readable ``run.json``, or one of another kind of run.
    """
    folder = pathlib.Path(directory)
    run = read_run(folder / "run.json")
    kind = str(run.get("kind"))
    notes: list[str] = []
    if kind not in _TITLES:
        raise ConfigError(
            "the directory of a search", f"{folder}, a run of dynamics", f"mlmm report {folder}"
        )
    result, arrays = as_mapping(run.get("result")), _arrays(folder / "result.npz", notes)
    view = _view(folder, run, arrays, notes)
    texts = _texts(view, kind)
    page = render(
        "search.html",
        run,
        title=str(run.get("title") or folder.resolve().name),
        verdict=judge_search(run),
        warnings=[in_words(text) for text in as_list(run.get("warnings"))],
        notes=notes,
        cards=search_cards(kind, run, result),
        tables=search_tables(kind, run, result),
        plots=lay_out(search_sketches(kind, result, arrays)) if arrays and result else [],
        settings=[(key, in_words(value)) for key, value in as_mapping(run.get("settings")).items()],
        software=[(key, in_words(value)) for key, value in as_mapping(run.get("versions")).items()],
        view=view,
        view_title=_TITLES[kind],
        viewer=texts,
        library=inline_script("3Dmol-min.js"),
        library_licence=inline_script("3Dmol-LICENSE.txt"),
    )
    return save_page(folder / "report.html", page)


def _arrays(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        notes.append("result.npz is not there yet: the search has not come to its end.")
    except Exception as problem:  # a damaged archive raises many kinds; the rest of the page is worth having
        notes.append(f"result.npz cannot be read ({problem}).")
    return {}


def _view(
    folder: pathlib.Path, run: dict[str, Any], arrays: dict[str, np.ndarray], notes: list[str]
) -> dict[str, Any] | None:
    """The structure with its movie; None, with a note, where there is none."""
    try:
        frame = load_pdb(folder / "topology.pdb")[0]
        moving = np.array(as_list(look_up(run, "moving", "indices")), dtype=int)
        weights = np.zeros(frame.n_atoms)
        weights[moving] = 1.0
        here = arrays.get("highest")
        if here is not None:
            frame.xyz[0, moving] = here
        view, kept = thinned(frame, weights)
        view["source"] = _source(str(run.get("kind"))) if here is not None else "the start of the search"
        view["reacts"] = True
        view["loops"] = run.get("kind") in ("ts", "freq")
        view["played"] = None
        movie = arrays.get("movie")
        if movie is not None and len(movie) > 1:
            shown = np.unique(np.linspace(0, len(movie) - 1, min(_FRAMES, len(movie))).round().astype(int))
            whole = np.repeat(frame.xyz[:1].astype(np.float64), len(shown), axis=0)
            whole[:, moving] = movie[shown]
            labels = arrays["movie_labels"]
            view["played"] = {
                "times": [None] * len(shown),
                "labels": [str(labels[k]) for k in shown],
                "numbers": [int(k) + 1 for k in shown],
                "of": len(movie),
                **packed_coordinates(10.0 * whole[:, kept]),
                "weights": None,
            }
        return view
    # mdtraj reports damaged files with whatever its parsers raise; a picture is no reason to lose the page.
    except Exception as problem:
        logger.warning("no 3-D view: %s", problem)
        notes.append(f"topology.pdb could not be drawn ({problem}): there is no 3-D view.")
        return None


def _source(kind: str) -> str:
    return {
        "scan": "the highest point",
        "neb": "the highest image",
        "ts": "the transition state",
        "irc": "the transition state",
        "freq": "the structure",
    }[kind]


def _texts(view: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """Texts of the viewer, with what is played here."""
    texts = viewer_texts(None if view is None else {**view, "played": None})
    if view is not None and view["played"]:
        played = view["played"]
        words = (
            "one oscillation"
            if kind in ("ts", "freq")
            else f"{len(played['numbers'])} of {played['of']} structures"
        )
        caption: str = texts["caption"]
        texts["caption"] = caption.replace(
            "Drag to turn", f"Played: {words}. Bonds are drawn by distance. Drag to turn"
        )
        texts["legend"] = [
            (swatch, "atoms that move" if swatch == "ml" else name) for swatch, name in texts["legend"]
        ]
    return texts
