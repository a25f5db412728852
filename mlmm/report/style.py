"""Colours and style of all figures, on the page (SVG) and in picture files (PNG)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

__all__ = [
    "ACCENT",
    "INK",
    "MM",
    "SERIES",
    "SOFT",
    "file_style",
    "new_figure",
    "new_page_figure",
    "page_style",
]

#: Model, force field, axes and captions, text. The colours of the page itself stand in templates/style.css.
ACCENT, MM, SOFT, INK = "#d9480f", "#3d6a94", "#6b7785", "#1c2530"
#: Colour and line of one curve among several; told apart without colour too.
SERIES = (
    (MM, "-"),
    (ACCENT, "--"),
    ("#00795c", "-."),
    ("#8e4a86", ":"),
    ("#a06a00", (0, (5, 1, 1, 1, 1, 1))),
    (SOFT, (0, (1, 1))),
)

_COMMON: dict[Any, Any] = {
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text: searchable, in the font of the page
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), SOFT),
}
_PAGE: dict[Any, Any] = {
    "text.parse_math": False,  # names of a user's stages and molecules may hold dollar signs
    "svg.hashsalt": "mlmm",  # ids do not change from one report to the next
    "axes.grid": True,
    "grid.color": "#e3e7ec",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def page_style() -> AbstractContextManager[None]:
    """Return matplotlib's settings for the plots of the page."""
    import matplotlib

    return matplotlib.rc_context(_COMMON | _PAGE)


def file_style() -> AbstractContextManager[None]:
    """Return matplotlib's settings for pictures in files of their own."""
    import matplotlib

    return matplotlib.rc_context(_COMMON)


def new_page_figure(width: float, height: float) -> Any:
    """Return a figure for SVG, outside pyplot's list of open figures, sized in inches."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def new_figure(width: float, height: float, columns: int, **grid: Any) -> tuple[Any, Any]:
    """Return a figure for a file and its row of axes, outside pyplot's list of open figures, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(ncols=columns, squeeze=False, **grid)[0]
