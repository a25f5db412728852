"""Several runs on one page: what is the same, what differs, and nothing that was not recorded."""

from __future__ import annotations

import html.parser
import json
import re

import numpy as np
import pytest
from frames import make_run, make_topology, start_positions

from mlmm.errors import ConfigError
from mlmm.report import write_comparison, write_report


def _energies(path, shift: float, rows: int = 200) -> None:
    rng = np.random.default_rng(1)
    lines = ["stage,step,time_ps,temperature,volume"]
    for k in range(1, rows + 1):
        stage = "equilibrate" if k <= 50 else "produce"
        values = f"{300 + shift + rng.normal():.4f},{20 + 0.1 * shift + 0.01 * rng.normal():.5f}"
        lines.append(f"{stage},{10 * k},{0.01 * k:.3f},{values}")
    path.write_text("\n".join([*lines, ""]))


def _run(folder, shift: float, **facts):
    """A run of 1.5 ps at 300 K and `shift`, with four frames."""
    folder.mkdir()
    frames = np.repeat(start_positions(make_topology())[None], 4, axis=0)
    run = make_run(folder, frames, **facts)
    _energies(folder / "energies.csv", shift)
    return run


@pytest.fixture
def runs(tmp_path):
    for name, shift, friction in (("one", 0.0, 1.0), ("two", 20.0, 5.0)):
        settings = {"run.seed": 4, "produce.friction": friction, "produce.pressure": None}
        _run(tmp_path / name, shift, settings=settings, potential={"name": f"model {name}"})
    return [tmp_path / "one", tmp_path / "two"]


class _Tables(html.parser.HTMLParser):
    """Rows of the tables, by their first cell."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self._cells, self._open = {}, [], False
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "tr":
            self._cells = []
        elif tag in ("td", "th"):
            self._cells.append("")
            self._open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._open = False
        elif tag == "tr" and self._cells:
            self.rows[self._cells[0]] = self._cells[1:]

    def handle_data(self, data):
        if self._open:
            self._cells[-1] += data


def _page(runs, path):
    return write_comparison(runs, path).read_text(encoding="utf-8")


def test_runs_stand_side_by_side(runs, tmp_path):
    text = _page(runs, tmp_path / "comparison.html")
    tables = _Tables(text)
    assert tables.rows["Potential"] == ["model one", "model two"]
    assert tables.rows["Production"] == ["1.5 ps", "1.5 ps"]
    temperatures = [float(cell.split()[0]) for cell in tables.rows["Temperature"]]
    assert temperatures == pytest.approx([300.0, 320.0], abs=0.5)
    assert "Nothing speaks against this run" in text and "Do not use this run" in text
    assert (
        tables.tags.count("svg") == 2 * 3
    )  # temperature, both RMSD; the volume is no density without a mass


def test_only_settings_that_differ_are_listed(runs, tmp_path):
    rows = _Tables(_page(runs, tmp_path / "c.html")).rows
    assert rows["produce.friction"] == ["1", "5"]
    assert "run.seed" not in rows and "produce.pressure" not in rows


def test_many_settings_are_all_there(tmp_path):
    """The first ones are seen, the others are folded away; none is lost."""
    for k, name in enumerate("ab"):
        _run(tmp_path / name, 0.0, title=name, settings={f"key{n}": n + k for n in range(60)})
    text = _page([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")
    rows = _Tables(text).rows
    assert [rows[f"key{n}"] for n in range(60)] == [[str(n), str(n + 1)] for n in range(60)]
    assert "Further settings that differ (20)" in text


def test_what_no_run_recorded_is_left_out(runs, tmp_path):
    rows = _Tables(_page(runs, tmp_path / "c.html")).rows
    assert "Speed" not in rows and "Density" not in rows and "Energy drift" not in rows
    run = json.loads((runs[0] / "run.json").read_text())
    (runs[0] / "run.json").write_text(json.dumps(run | {"timing": {"ns_per_day": 2.5}}))
    assert _Tables(_page(runs, tmp_path / "c.html")).rows["Speed"] == ["2.5 ns/day", "not recorded"]


def test_the_page_links_to_each_report_that_there_is(runs, tmp_path):
    write_report(runs[0])
    (tmp_path / "pages").mkdir()
    text = _page(runs, tmp_path / "pages" / "c.html")
    assert re.findall(r'href="([^"]+)"', re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)) == [
        "../one/report.html"
    ]
    assert "<script" not in text and "default-src 'none'" in text


def test_runs_with_one_title_are_told_apart(tmp_path):
    for name in ("a", "b"):
        _run(tmp_path / name, 0.0, title="<i>same</i>")
    text = _page([tmp_path / "a", tmp_path / "b"], tmp_path / "c.html")
    assert _Tables(text).rows["State"] == ["finished", "finished"] and "<i>" not in text
    assert re.search(r"<h2>a</h2>", text) and re.search(r"<h2>b</h2>", text)


def test_an_unfinished_run_without_files_is_compared(runs, tmp_path):
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "run.json").write_text('{"state": "running"}')
    rows = _Tables(_page([*runs, tmp_path / "three"], tmp_path / "c.html")).rows
    assert rows["Production"] == ["1.5 ps", "1.5 ps", "none yet"]
    assert rows["State"] == ["finished", "finished", "running"]


def test_other_files_are_not_overwritten(runs, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("<html>mine</html>")
    with pytest.raises(ConfigError, match="something else"):
        write_comparison(runs, mine)
    assert mine.read_text() == "<html>mine</html>"
    with pytest.raises(ConfigError, match="a file for the page"):
        write_comparison(runs, tmp_path)
    with pytest.raises(ConfigError, match="a folder for the page"):
        write_comparison(runs, tmp_path / "nowhere" / "c.html")
    for _ in range(2):
        write_comparison(runs, tmp_path / "c.html")  # its own page is replaced


def test_two_different_runs_are_needed(runs, tmp_path):
    for given in (runs[:1], [runs[0], runs[0]], []):
        with pytest.raises(ConfigError, match="two or more different runs"):
            write_comparison(given, tmp_path / "c.html")
