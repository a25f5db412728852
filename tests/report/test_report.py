"""The report states what the files say, stands alone, and never fails on an unfinished run."""

from __future__ import annotations

import gc
import html
import html.parser
import json
import math
import re

import numpy as np
import pytest

from mlmm.errors import ConfigError
from mlmm.report import write_report
from mlmm.statistics import block_standard_error

_VOID = {"meta", "img", "br", "hr", "link", "input"}
_STAGES = [("equilibrate", 80), ("produce", 300), ("nve", 60)]


def _pdb(waters: int = 40, residues: int = 8) -> str:
    """A zigzag of alanines, a two-carbon ligand LIG above its middle, a column of waters leading away."""
    atoms = []
    for k in range(residues):
        x, y = 3.4 * k, 0.9 * (-1) ** k
        offsets = {
            "N": (0, 0, 0),
            "CA": (1.2, 0.8, 0),
            "C": (2.4, 0, 0),
            "O": (2.4, -1.2, 0.2),
            "CB": (1.2, 1.6, 1.3),
        }
        offsets |= {"H": (-0.3, -0.9, 0), "HA": (1.2, 1.4, -0.9)}
        atoms += [(name, "ALA", k + 1, x + a, y + b, c, 0.0) for name, (a, b, c) in offsets.items()]
    middle = 1.7 * residues
    atoms += [
        ("C1", "LIG", residues + 1, middle, 0.0, 5.0, 1.0),
        ("C2", "LIG", residues + 1, middle, 1.5, 5.0, 0.5),
    ]
    for k in range(waters):
        z = 8.0 + 1.0 * k
        site = residues + 2 + k
        atoms += [
            ("O", "HOH", site, middle, 3.0 * (k % 2), z, 0.0),
            ("H1", "HOH", site, middle + 0.9, 3.0 * (k % 2), z, 0.0),
        ]
    lines = ["CRYST1   60.000   60.000   60.000  90.00  90.00  90.00 P 1           1"]
    for number, (name, residue, index, x, y, z, weight) in enumerate(atoms, 1):
        lines.append(
            f"ATOM  {number:5d}  {name:<3s} {residue} A{index:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
            f"  1.00{weight:6.2f}           {name[0]}"
        )
    first = 7 * residues + 1
    return "\n".join([*lines, f"CONECT{first:5d}{first + 1:5d}", "END", ""])


def _energies(rng: np.random.Generator) -> str:
    """Three stages with noise around 300 K, a committee spread; the NVE stage drifts by 0.5 kJ/mol/ps."""
    rows = [
        "stage,step,time_ps,E_bonds,E_nonbonded,E_ml,potential,kinetic,total,temperature,volume,committee_spread"
    ]
    step = 0
    for stage, count in _STAGES:
        for k in range(count):
            step += 10
            temperature = 300.0 + 5.0 * rng.normal()
            total = -1000.0 + 0.5 * 0.01 * k if stage == "nve" else -1000.0 + rng.normal()
            row = [stage, step, 0.001 * step, 50 + rng.normal(), -900 + rng.normal(), -250.0 + rng.normal()]
            row += [-1100.0, 100.0, total, temperature, "", 1.5 + 0.1 * rng.normal()]
            rows.append(",".join(str(x) for x in row))
    return "\n".join(rows) + "\n"


def _run() -> dict:
    return {
        "state": "finished",
        "message": None,
        "stage": "nve",
        "step": 4400,
        "created": "2026-01-01T00:00:00Z",
        "title": "alanine_ligand",
        "versions": {
            "mlmm": "0.1.0",
            "openmm": "8.6.1",
            "torch": "2.9.0",
            "numpy": "2.4.0",
            "platform": "Linux-6",
        },
        "seed": 7341,
        "platform": "CPU",
        "threads": 2,
        "system": {
            "atoms": 138,
            "residues": 49,
            "periodic": True,
            "box_nm": [[6.0, 0, 0], [0, 6.0, 0], [0, 0, 6.0]],
            "constraints": 57,
            "degrees_of_freedom": 250,
            "provenance": {"source": "made by hand", "decisions": ["histidine 4 is neutral <delta>"]},
        },
        "region": {
            "selection": "resname LIG",
            "atoms": [56, 57],
            "residues": ["LIG9"],
            "notes": ["no bond is cut"],
        },
        "zones": {"core": 2, "transition": 0, "buffer": 0, "environment": 136},
        "zone_setup": {"kind": "hard"},
        "zone_notes": ["a cut & a note"],
        "histogram": None,
        "potential": {
            "name": "ANI-1x",
            "members": 8,
            "level_of_theory": "wB97X/6-31G*",
            "citation": "Smith et al., J. Chem. Phys. 148, 241733 (2018), doi:10.1063/1.5023802.",
            "licence": "MIT",
            "precision": "float32",
        },
        "embedding": {
            "scheme": "additive",
            "mm_side": "openmm",
            "mm_tail": False,
            "compensation": None,
            "bridge": "torchforce",
            "removed": {"HarmonicBondForce": 18},
        },
        "stages": [
            {"name": "minimise", "energy_before": 5123.4, "energy_after": -8123.4, "seconds": 12.3},
            {
                "name": "equilibrate",
                "ensemble": "NVT",
                "steps": 800,
                "timestep_ps": 0.001,
                "temperature": 300.0,
                "seconds": 48,
            },
            {
                "name": "produce",
                "ensemble": "NVT",
                "steps": 3000,
                "timestep_ps": 0.001,
                "temperature": 300.0,
                "seconds": 200,
            },
            {"name": "nve", "ensemble": "NVE", "steps": 600, "timestep_ps": 0.0005, "seconds": 36.0},
        ],
        "timing": {"ms_per_step": 60.1, "ml_ms": 12.0, "mm_ms": 48.0, "ns_per_day": 1.44},
        "drift": {"kj_per_mol_per_ns_per_dof": -0.013, "standard_error": 0.021, "length_ps": 0.3},
        "warnings": ["a long bond & a short one"],
    }


def _make(directory):
    (directory / "run.json").write_text(json.dumps(_run()))
    (directory / "energies.csv").write_text(_energies(np.random.default_rng(5)))
    (directory / "topology.pdb").write_text(_pdb())
    return directory


@pytest.fixture
def run_directory(tmp_path):
    return _make(tmp_path)


@pytest.fixture(scope="module")
def finished_page(tmp_path_factory):
    return _page(_make(tmp_path_factory.mktemp("finished")))


def _change(directory, **changes):
    record = _run() | changes
    (directory / "run.json").write_text(
        json.dumps({key: value for key, value in record.items() if value != "absent"})
    )


class _Page(html.parser.HTMLParser):
    """Checks nesting while it collects the visible text, attributes, ids and the scripts."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.words, self.scripts, self.ids, self.attributes, self.tags = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open}"
        self.open.pop()

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)

    def view(self):
        return json.loads(next(text for text in self.scripts if text.lstrip().startswith(("{", "null"))))


def _page(directory) -> _Page:
    return _Page(write_report(directory).read_text(encoding="utf-8"))


# --- the page -------------------------------------------------------------------------------------


def test_page_is_well_formed_and_small(run_directory):
    path = write_report(run_directory)
    page = _Page(path.read_text(encoding="utf-8"))
    assert path == run_directory / "report.html" and path.stat().st_size < 3e6
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("h1") == 1 and page.tags.count("main") == 1
    # Temperature, conservation, spread, force groups, each for wide and for narrow; the cost bar.
    assert page.tags.count("svg") == 2 * 4 + 1
    assert [path.name for path in run_directory.glob("*.part")] == []


def test_page_needs_no_other_file(run_directory):
    page = _page(run_directory)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "data", "srcset", "action"):
            assert value.startswith("#") or (tag == "a" and value.startswith("https://doi.org/")), (
                tag,
                name,
                value,
            )
    source = (run_directory / "report.html").read_text(encoding="utf-8")
    assert "@import" not in source and "link rel" not in source
    assert not re.search(r"url\((?!#)", re.sub(r"<script>.*?</script>", "", source, flags=re.DOTALL))
    # The browser is told to refuse every request, so that nothing in the library can make one either.
    policy = dict((value, name) for tag, name, value in page.attributes if tag == "meta")
    assert any("default-src 'none'" in value for value in policy if value)
    assert "Redistribution and use in source and binary forms" in source


def test_pictures_and_tables_can_be_read_aloud(run_directory):
    page = _page(run_directory)
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 9 and all(len(label) > 20 for label in labels)
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == page.tags.count("th") and set(scopes) == {"col", "row"}


@pytest.mark.parametrize(
    "fact",
    [
        "alanine_ligand",
        "finished",
        "2026-01-01T00:00:00Z",
        "seed 7341",
        "OpenMM platform CPU, threads: 2",
        "openmm 8.6.1",
        "2 of 138 atoms",
        "resname LIG",
        "LIG9",
        "no bond is cut",
        "ANI-1x",
        "Committee members 8",
        "wB97X/6-31G*",
        "10.1063/1.5023802",
        "Licence MIT",
        "Scheme additive: the region by itself",
        "Force field in OpenMM: the force field's part as OpenMM parameters",
        "Zones hard",
        "a cut & a note",
        "Bridge torchforce",
        "Removed from MM HarmonicBondForce: 18",
        "ML 12 ms (20%)",
        "MM 48 ms (80%)",
        "total 60.1 ms per step, 1.44 ns/day",
        "-0.013 ± 0.021",
        "kJ/mol/ns per degree of freedom over 0.3 ps; 0.6 standard errors from zero",
        "target 300 K; 300 samples",
        "5,123 kJ/mol -8,123 kJ/mol",
        "produce NVT 3,000 1 fs 3 ps 300 K",
        "nve NVE 600 0.5 fs 0.3 ps",
        "6.00 × 6.00 × 6.00 nm",
        "Degrees of freedom 250",
        "environment 136 98.55%",
        "a long bond & a short one",
        "histidine 4 is neutral <delta>",
        "made by hand",
    ],
)
def test_report_states_every_fact(finished_page, fact):
    assert fact in finished_page.text


def test_a_run_on_a_gpu_names_its_precision(run_directory):
    run = json.loads((run_directory / "run.json").read_text())
    del run["threads"]
    (run_directory / "run.json").write_text(json.dumps(run | {"platform": "CUDA", "precision": "mixed"}))
    text = _page(run_directory).text
    assert "OpenMM platform CUDA, mixed precision" in text and "threads" not in text


def test_mean_temperature_is_that_of_production(run_directory):
    rows = [line.split(",") for line in (run_directory / "energies.csv").read_text().splitlines()[1:]]
    samples = np.array([float(row[9]) for row in rows if row[0] == "produce"])
    found = re.search(r"Mean temperature in production ([\d.]+) ± ([\d.]+) K", _page(run_directory).text)
    assert float(found[1]) == pytest.approx(samples.mean(), abs=0.006)
    assert float(found[2]) == pytest.approx(block_standard_error(samples), rel=0.05)


def test_fitted_line_has_the_slope_of_the_energies(run_directory):
    text = _page(run_directory).text
    assert "fitted line, 0.5 kJ/mol/ps (2 kJ/mol/ns per degree of freedom)" in text


# --- zones ----------------------------------------------------------------------------------------


_MOVING = {
    "zones": {"core": 2, "transition": 9, "buffer": 20, "environment": 107},
    "zone_setup": {"kind": "adaptive", "plateau": "0.4 nm", "width": "0.3 nm"},
    "histogram": {
        "edges": [0.0, 0.5, 1.0],
        "atoms": [6, 3, 2],
        "residues": [2, 1, 1],
        "mean": [1.5, None, -20.0],
        "deviation": [0.5, None, 0.0],
    },
    "embedding": {
        "scheme": "per_atom",
        "mm_side": "torch",
        "compensation": {"mode": "density", "alignment": {"HOH": -4.25}},
        "bridge": "torchforce",
        "removed": {},
    },
}


def test_a_smooth_zone_is_shown(run_directory):
    """Atoms by lambda as a picture; sizes, scheme, route and compensation in words."""
    _change(run_directory, **_MOVING)
    page = _page(run_directory)
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 11 and "Atoms by lambda. Atoms by λ in the built structure" in " ".join(labels)
    assert "11 have λ > 0" in page.text
    for fact in (
        "Zones adaptive",
        "Plateau 0.4 nm",
        "transition 9 6.52% 0 < λ < 1",
        "Scheme per_atom: per-atom energies weighted with lambda",
        "Force field in torch: the force field's part in torch",
        "Compensation density: HOH -4.25 kJ/mol",
    ):
        assert fact in page.text, fact


@pytest.mark.parametrize(
    "embedding, words",
    [
        ({"electrostatics": "mechanical"}, "mechanical embedding: fixed charges of the force field"),
        ({"electrostatics": "charges"}, "charges that the potential predicts at every step"),
        (
            {"electrostatics": "embedded", "far_field": "ewald"},
            "electrostatic embedding: the charges around act on the potential (Ewald sum)",
        ),
        (
            {"electrostatics": "embedded", "far_field": "reaction_field"},
            "electrostatic embedding: the charges around act on the potential (reaction field)",
        ),
    ],
)
def test_how_the_region_feels_the_charges_around_is_said(run_directory, embedding, words):
    """In every scheme; an embedded region was once called mechanical."""
    _change(run_directory, embedding={"scheme": "additive", "mm_side": "openmm"} | embedding)
    text = _page(run_directory).text
    assert f"Electrostatics {words}" in text
    assert text.count("mechanical embedding") == (embedding["electrostatics"] == "mechanical")


def test_an_embedded_droplet_has_no_ewald_sum(run_directory):
    embedding = {"scheme": "additive", "electrostatics": "embedded", "far_field": "ewald"}
    _change(run_directory, embedding=embedding, system=_run()["system"] | {"periodic": False})
    text = _page(run_directory).text
    assert "the charges around act on the potential (every pair)" in text and "Ewald" not in text


def test_energies_that_are_unknown_leave_their_panel_out(run_directory):
    empty = [None] * 3
    unknown = _MOVING["histogram"] | {"mean": empty, "deviation": empty}
    _change(run_directory, **_MOVING | {"histogram": unknown})
    text = _page(run_directory).text
    assert "11 have λ > 0" in text and "what the potential changes" not in text


@pytest.mark.parametrize(
    "histogram", [5, [], {"edges": [0, 1]}, {"edges": ["a", 1], "atoms": [1, 2]}, {"atoms": None}]
)
def test_a_damaged_histogram_is_left_out(run_directory, histogram):
    _change(run_directory, **_MOVING | {"histogram": histogram})
    assert "have λ > 0" not in _page(run_directory).text


def test_molecules_in_a_moving_zone_are_plotted(run_directory):
    path = run_directory / "energies.csv"
    header, *rows = path.read_text().splitlines()
    rows = [f"{row},{12 + k % 3},{7.5}" for k, row in enumerate(rows)]
    path.write_text("\n".join([f"{header},zone_molecules,zone_lambda", *rows, ""]))
    text = _page(run_directory).text
    assert "Molecules in the adaptive zone" in text
    assert "molecules with λ > 0, mean 13; orange: sum of their λ, mean 7.5" in text


def test_the_view_colours_by_lambda(run_directory):
    """The viewer gets lambda as B-factor and mixes the colours of both zones with it."""
    page = _page(run_directory)
    factors = {
        line[12:16].strip(): float(line[60:66]) for line in page.view()["pdb"].splitlines() if "LIG" in line
    }
    assert factors == {"C1": 1.0, "C2": 0.5}
    assert "mixed(mm, ml, atom.b)" in page.scripts[-1] and "partly ML, by λ" in page.text


# --- escaping -------------------------------------------------------------------------------------


def test_markup_in_user_text_is_inert(run_directory):
    attack = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    _change(run_directory, title=attack, message=attack, state="failed", warnings=[attack], stage=attack)
    clean, page = _Page(write_report(run_directory).read_text(encoding="utf-8")), None
    assert html.unescape(attack) in clean.text
    assert clean.tags.count("script") == 3 and clean.tags.count("img") == 1
    for key in ("region", "potential", "embedding", "versions"):
        poisoned = {
            name: attack for name in _run()[key] if name not in ("atoms", "residues", "notes", "removed")
        }
        _change(run_directory, **{key: poisoned})
        page = _page(run_directory)
        assert page.tags.count("script") == 3 and page.tags.count("img") == 1, key


def test_column_names_cannot_break_out_of_a_plot(run_directory):
    path = run_directory / "energies.csv"
    path.write_text(path.read_text().replace("E_bonds", "E_<script>alert(1)</script>"))
    assert _page(run_directory).tags.count("script") == 3


@pytest.mark.parametrize("name", ["pro$duce", "$x_1$", "$\\frac{1$", "100 %$", "a $\\notacommand$ b"])
def test_a_dollar_is_a_dollar(run_directory, name):
    """In names of stages, columns and distances; matplotlib would read mathematics, or give up."""
    path = run_directory / "energies.csv"
    text = path.read_text().replace("produce", name).replace("E_bonds", f"E_{name}")
    path.write_text(text.replace("committee_spread", f"pull {name}"))
    plan = [{"name": "equilibrate"}, {"name": name, "trajectory": True, "temperature": 300.0}]
    _change(run_directory, plan=plan, stages=[])
    page = _page(run_directory)
    assert page.text.count(name) >= 5 and f"Column pull {name} of energies.csv" in page.text
    assert "300 samples" in page.text


def test_warnings_stand_on_top_and_open(run_directory):
    _change(
        run_directory,
        warnings=["a long bond", "twice", "charge +1"],
        region={"outside_training": ["charge +1"]},
        system={
            "provenance": {
                "log": [
                    {"text": "no hydrogens in the input", "warning": True},
                    {"text": "twice", "warning": True},
                    {"text": "nothing to see", "warning": False},
                    "damaged",
                ]
            }
        },
    )
    page = _page(run_directory)
    top = page.text[: page.text.index("Mean temperature")]
    assert all(said in top for said in ("a long bond", "no hydrogens in the input"))
    assert [page.text.count(said) for said in ("twice", "charge +1", "nothing to see")] == [1, 1, 0]
    _change(run_directory, warnings=[])
    assert "Warnings" not in _page(run_directory).text


def test_variables_and_their_restraints_are_drawn(run_directory):
    """What the energy table has beyond the engine's own columns, with what run.json says about it."""
    path = run_directory / "energies.csv"
    header, *rows = path.read_text().splitlines()
    rows = [f"{row},{0.3 + 0.001 * (k % 5)},{math.pi * (-1) ** k},{k}" for k, row in enumerate(rows)]
    path.write_text("\n".join([f"{header},C-O,phi,pull <b>", *rows, ""]))
    names = {"C-O": ("distance", "nm"), "phi": ("torsion", "rad")}
    variables = [{"name": name, "kind": kind, "unit": unit} for name, (kind, unit) in names.items()]
    constant = {"force_constant": 1000.0, "force_constant_unit": "kJ/mol/nm^2"}
    restraint = {"name": "C-O", "variable": "C-O", "shape": "flat_bottom", "at": 0.31} | constant
    _change(run_directory, variables=variables, restraints=[restraint, 5])
    page = _page(run_directory)
    labels = " ".join(value for tag, name, value in page.attributes if name == "aria-label")
    assert "Column C-O of energies.csv, a distance; production 0.30" in labels
    assert "Restrained, flat bottom at 0.31 nm (dashed), 1,000 kJ/mol/nm^2." in labels
    assert "Column phi of energies.csv, a torsion." in labels and "phi / °" in page.text
    assert "pull <b>" in page.text and page.tags.count("b") == 0


def test_averages_are_of_the_production_alone(run_directory):
    """Heating and checks are shaded; they count in no mean."""
    path = run_directory / "energies.csv"
    header, *rows = path.read_text().splitlines()
    rows = [
        ",".join([*row.split(",")[:-1], "900.0"]) if not row.startswith("produce") else row for row in rows
    ]
    path.write_text("\n".join([header, *rows, ""]))
    found = re.search(
        r"members; production ([\d.]+) ± [\d.]+ kJ/mol on average, [\d.]+ to ([\d.]+)\.",
        _page(run_directory).text,
    )
    assert float(found[1]) == pytest.approx(1.5, abs=0.05) and float(found[2]) < 2.0


def test_structure_cannot_end_its_script_element(run_directory):
    path = run_directory / "topology.pdb"
    path.write_text(path.read_text().replace("LIG A", "</S A"))
    assert _page(run_directory).tags.count("script") == 3


# --- unfinished and damaged runs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "not finished"), ("interrupted", "interrupted in"), ("failed", "failed in")],
)
def test_unfinished_run_says_so_at_the_top(run_directory, state, words):
    _change(
        run_directory,
        state=state,
        message="energy became NaN",
        stage="produce",
        step=4000,
        drift=None,
        timing=None,
    )
    text = _page(run_directory).text
    top = text[: text.index("Mean temperature")]
    assert words in top and "energy became NaN" in top and "stage produce, step 4,000" in top
    assert "not measured" in text and "no NVE stage was analysed" in text


@pytest.mark.parametrize("key", sorted(_run()))
def test_any_key_may_be_missing_or_of_another_kind(tmp_path, key):
    for value in ("absent", None, [1], "text", {}, 3.5):
        _change(tmp_path, **{key: value})
        _page(tmp_path)


@pytest.mark.parametrize("value", [None, "text", [None], [[1]], {"a": 1}, math.nan, True])
def test_any_inner_key_may_be_of_another_kind(tmp_path, value):
    for key, record in _run().items():
        if isinstance(record, dict):
            _change(tmp_path, **{key: dict.fromkeys(record, value)})
            _page(tmp_path)
    _change(tmp_path, stages=[dict.fromkeys(_run()["stages"][1], value), value])
    _page(tmp_path)


def test_plots_and_structure_do_without_run_json(run_directory):
    (run_directory / "run.json").write_text("{}")
    page = _page(run_directory)
    assert page.tags.count("svg") == 8 and page.view()["ml"]
    assert "does not say whether it finished" in page.text
    _change(run_directory, stages=[{"name": ["produce"], "temperature": "warm"}, 5], system=3)
    assert _page(run_directory).tags.count("svg") == 9


def test_report_of_a_run_with_only_its_state(tmp_path):
    (tmp_path / "run.json").write_text('{"state": "running"}')
    page = _page(tmp_path)
    assert "energies.csv is missing" in page.text and "topology.pdb is missing" in page.text
    assert page.view() is None


@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]"])
def test_run_json_must_be_there_and_valid(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=r"Expected a run directory with a run\.json, but got .*run\.json"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "stage,step,time_ps,potential,kinetic,total,temperature\n", "nonsense\n1\n"]
)
def test_report_without_energy_rows(run_directory, content):
    (run_directory / "energies.csv").write_text(content)
    assert "energies.csv has no rows yet" in _page(run_directory).text


def test_report_reads_energies_truncated_within_a_line(run_directory):
    path = run_directory / "energies.csv"
    text = path.read_text().splitlines()
    path.write_text("\n".join([*text[:100], "produce,5", text[101], text[102][:-4]]))
    page = _page(run_directory)
    assert "1 incomplete rows were left out" in page.text and "; 20 samples" in page.text


def test_one_row_and_no_committee(run_directory):
    path = run_directory / "energies.csv"
    header, *_ = path.read_text().splitlines()
    path.write_text(header + "\nproduce,10,0.01,1,2,3,6,1,7,301.5,,\n")
    text = _page(run_directory).text
    assert "301.5 K" in text and "too few for a standard error" in text and "Committee spread" not in text


def test_long_series_stays_small(run_directory):
    rng, path = np.random.default_rng(2), run_directory / "energies.csv"
    rows = [
        f"produce,{k},{0.001 * k:.3f},{rng.normal():.3f},-5.0,{300 + rng.normal():.2f}" for k in range(50_000)
    ]
    path.write_text("\n".join(["stage,step,time_ps,E_ml,total,temperature", *rows, ""]))
    assert write_report(run_directory).stat().st_size < 1.2e6


# mdtraj leaves a file that it cannot parse to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_damaged_structure_is_named(run_directory):
    (run_directory / "topology.pdb").write_text("ATOM  what is this\n")
    page = _page(run_directory)
    gc.collect()
    assert "topology.pdb could not be drawn" in page.text and page.view() is None


# --- the structure --------------------------------------------------------------------------------


def test_view_keeps_the_region_and_what_is_near(run_directory):
    view = _page(run_directory).view()
    lines = [line for line in view["pdb"].splitlines() if line.startswith(("ATOM", "HETATM"))]
    names = [(line[12:16].strip(), line[17:20]) for line in lines]
    assert len(lines) == view["drawn"] and view["cartoon"] and not view["small"]
    assert [names[i] for i in view["ml"]] == [("C1", "LIG")]
    assert [names[i] for i in view["transition"]] == [("C2", "LIG")]
    # Waters start 0.3 nm above the ligand, one every 0.1 nm: only the first few are within 0.5 nm.
    assert 2 <= len(view["water"]) // 2 <= 4
    assert sum(name == "CA" for name, _ in names) == 8
    assert "HA" not in [name for name, _ in names]


def test_view_shows_the_last_frame(run_directory):
    before = _page(run_directory).view()
    (run_directory / "final.pdb").write_text(
        re.sub("(LIG.*) 13.600", r"\1 13.777", (run_directory / "topology.pdb").read_text())
    )
    page = _page(run_directory)
    assert before["source"] == "the starting structure"
    assert page.view()["source"] == "the last frame" and "the last frame" in page.text
    assert "13.777" in page.view()["pdb"] and "13.777" not in before["pdb"]


def test_region_comes_from_run_json_when_no_weights_are_written(run_directory):
    path = run_directory / "topology.pdb"
    path.write_text(re.sub(r"(?m)^(ATOM.{56}).{6}", r"\g<1>  0.00", path.read_text()))
    assert len(_page(run_directory).view()["ml"]) == 2


def test_small_molecule_is_drawn_whole(run_directory):
    (run_directory / "topology.pdb").write_text(_pdb(waters=0, residues=2))
    view = _page(run_directory).view()
    assert view["small"] and not view["cartoon"] and view["drawn"] == view["atoms"] == 16
