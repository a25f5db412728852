"""The page in a browser: nothing to complain about, something to see, a trajectory to play, at any width."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from chromium import Browser, browser, find_chromium
from frames import make_run, make_topology, start_positions
from matplotlib.image import imread

from mlmm.report import write_comparison, write_report

_CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(
    _CHROMIUM is None, reason="no Chromium or Chrome on this machine: the page was not seen by a browser"
)


def _energies(shift: float) -> str:
    rng = np.random.default_rng(6)
    names = "stage,step,time_ps,E_bonds,E_ml,potential,total,temperature,volume,committee_spread,pull $F_1$"
    rows = []
    for k in range(1, 161):
        stage = "equilibrate" if k <= 50 else "produce"
        noise = rng.normal(size=8)
        values = np.array([50, -250, -200, -100, 300 + shift, 60, 2, 0.3]) + noise
        rows.append(",".join([stage, str(10 * k), f"{0.01 * k:.3f}", *(f"{x:.4f}" for x in values)]))
    return "\n".join([names, *rows, ""])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two runs with their reports, and the comparison of both."""
    folder = tmp_path_factory.mktemp("pages")
    start = start_positions(make_topology())
    runs = []
    for k, title in enumerate(
        ("a run with a long_title_that_has_no_place_to_break_in_it" * 2, "<b>other</b>")
    ):
        frames = np.repeat(start[None], 12, axis=0)
        frames[:, 30:33] += np.linspace(0, 0.4, 12)[:, None, None] * np.array([0.0, 1.0, 0.3])
        run = folder / f"run{k}"
        run.mkdir()
        make_run(
            run,
            frames,
            title=title,
            warnings=["a_warning_that_is_one_very_long_word" * 8],
            distances={"C1..O": {"selections": ["a", "b"], "atoms": [[30], [33]]}},
            settings={"run.seed": k, "produce.friction": 1.0},
        )
        (run / "energies.csv").write_text(_energies(0.3 * k))
        write_report(run)
        runs.append(run)
    write_comparison(runs, folder / "comparison.html")
    return {"report": runs[0] / "report.html", "comparison": folder / "comparison.html"}


@pytest.fixture(scope="module")
def chrome():
    with browser(_CHROMIUM) as page:
        yield page


def _picture(chrome: Browser, selector: str) -> np.ndarray:
    """Pixels (H, W, 3) of an element, 0 to 1."""
    chrome.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
    chrome.draw()
    box = chrome.run(
        f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}; })()"
    )
    return imread(io.BytesIO(chrome.picture(box)))[:, :, :3]


def _drawn(picture: np.ndarray) -> float:
    """Part of the pixels that differ from the one in the corner."""
    return float((np.abs(picture - picture[2, 2]).max(axis=2) > 0.1).mean())


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_nothing_to_complain_about_and_no_page_wider_than_the_window(chrome, pages, name, width):
    chrome.complaints.clear()
    chrome.open(pages[name], width)
    assert chrome.run("document.documentElement.scrollWidth") <= width
    assert chrome.complaints == []


def test_complaints_and_overflow_are_seen(chrome, pages, tmp_path):
    """Control: a script that fails and a block that is too wide."""
    wrong = tmp_path / "wrong.html"
    text = pages["report"].read_text()
    broken = '<div style="width:900px">x</div></main><script>no()</script>'
    wrong.write_text(text.replace("</main>", broken))
    chrome.complaints.clear()
    chrome.open(wrong, 390)
    assert chrome.complaints and chrome.run("document.documentElement.scrollWidth") > 390
    chrome.complaints.clear()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_3d_view_is_not_empty(chrome, pages, width):
    chrome.open(pages["report"], width)
    chrome.wait_for("document.querySelector('#viewer canvas') !== null")
    assert _drawn(_picture(chrome, "#viewer")) > 0.004
    # Control: a place of the same size without anything in it.
    chrome.run("document.querySelector('#viewer canvas').style.visibility = 'hidden'")
    assert _drawn(_picture(chrome, "#viewer")) < 0.001


def test_a_view_that_cannot_start_says_so(chrome, pages, tmp_path):
    """Control: without a viewer there is no canvas, and hardly a pixel."""
    wrong = tmp_path / "wrong.html"
    wrong.write_text(pages["report"].read_text().replace(".createViewer(box", ".createNothing(box"))
    chrome.open(wrong, 1280)
    assert chrome.run("document.querySelector('#viewer canvas') === null")
    assert "could not start" in chrome.run("document.getElementById('viewer').textContent")


def test_the_player_advances_and_can_be_worked_from_the_keyboard(chrome, pages):
    chrome.open(pages["report"], 1280)
    frame, when = "+document.getElementById('frame').value", "document.getElementById('when').value"
    assert chrome.run("document.getElementById('player').hidden") is False
    assert chrome.run(frame) == 12 and chrome.run(when) == "the starting structure"
    chrome.run("document.getElementById('frame').focus()")
    chrome.press("ArrowLeft")
    chrome.draw()
    assert chrome.run(frame) == 11 and chrome.run(when) == "0.62 ps"
    late = _picture(chrome, "#viewer")
    chrome.run("document.getElementById('frame').value = 0")
    chrome.press("ArrowRight")
    chrome.draw()
    assert chrome.run(when) == "0.52 ps"
    early = _picture(chrome, "#viewer")
    assert (np.abs(late - early).max(axis=2) > 0.1).mean() > 0.002
    chrome.run("document.getElementById('play').focus()")
    chrome.press(" ")
    assert chrome.run("document.getElementById('play').textContent") == "Pause"
    chrome.wait_for(f"{frame} >= 4")
    chrome.press("Enter")
    stopped = chrome.run(frame)
    chrome.run("new Promise(done => setTimeout(done, 500))")
    assert chrome.run(frame) == stopped < 12
    assert chrome.run("document.getElementById('play').getAttribute('aria-pressed')") == "false"


@pytest.mark.parametrize(("width", "shown"), [(1280, "wide"), (390, "narrow")])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_plots_are_drawn_for_the_width(chrome, pages, name, width, shown):
    """One of both drawings is seen; its text is as high as text has to be, on a phone too."""
    chrome.open(pages[name], width)
    heights = chrome.run(
        """(() => {
          const height = (text) => { const box = text.getBoundingClientRect();
            return Math.min(box.height, box.width); };  // some stand upright
          const highest = (plot, kind) =>
            Math.max(0, ...[...plot.querySelectorAll("." + kind + " text")].map(height));
          return [...document.querySelectorAll(".plot")].map(
            plot => ({wide: highest(plot, "wide"), narrow: highest(plot, "narrow")}));
        })()"""
    )
    assert len(heights) >= 5
    for plot in heights:
        assert plot[shown] >= 9 and plot["narrow" if shown == "wide" else "wide"] == 0


def test_the_verdict_is_seen_first(chrome, pages):
    """Before anything else, and above the fold of a phone."""
    chrome.open(pages["report"], 390, 844)
    order = chrome.run("[...document.querySelectorAll('main > section')].map(part => part.className)")
    assert order[0].startswith("verdict") and order[1] == "warnings"
    assert chrome.run("document.querySelector('.verdict h2').getBoundingClientRect().bottom") < 844


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_background(chrome, pages, dark):
    """Contrast of marks, findings and captions by WCAG 2: 4.5 or more."""
    chrome.open(pages["report"], 1280, dark=dark)
    found = chrome.run(
        """(() => {
          const channel = (x) => (x /= 255) <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
          const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
          const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
          const behind = (e) => { for (; e; e = e.parentElement) {
            const c = numbers(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] > 0) { return c; } } return [255, 255, 255]; };
          return [...document.querySelectorAll(
            ".mark, .finding, .advice, figcaption, .remark, .warnings li, th")]
            .map(e => { const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort();
              return [e.className || e.tagName, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; });
        })()"""
    )
    assert len(found) > 20 and min(found, key=lambda pair: pair[1])[1] >= 4.5
