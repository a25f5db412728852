"""The scan over plateau and width: its numbers, what it recommends, its picture, its command."""

from __future__ import annotations

import re
import tomllib

import numpy as np
import pytest
from matplotlib.figure import Figure
from toys import toy_spec

from mlmm.build import BuiltSystem
from mlmm.cli.program import main
from mlmm.dynamics.lambda_histogram import lambda_histogram
from mlmm.errors import ConfigError, EmbeddingError, PotentialError
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials import AtomEnergies
from mlmm.report.style import file_style
from mlmm.report.zone_plots import draw_histogram, draw_scan
from mlmm.units import parse
from mlmm.validation.boundary_error import boundary_error
from mlmm.validation.scan_zones import ZoneScan, draw_frames, scan_zones
from mlmm.zones.region import select_region
from mlmm.zones.static import static_zones


class Contacts:
    """eps_i = sum_j (1 − r²/r_c²)³ within r_c: smooth, of short range, unlike any force field."""

    def __init__(self, **changes: object):
        facts = {"cutoff": 0.4, "receptive_field": 0.4, "trained_on": "total"} | changes
        self.spec = toy_spec("contacts", **facts)

    def atom_energies(self, structure):
        separation = structure.positions.unsqueeze(0) - structure.positions.unsqueeze(1)
        if structure.cell is not None:
            from mlmm.structures import minimum_image

            separation = minimum_image(separation, structure.cell)
        inside = (1 - separation.square().sum(-1) / self.spec.cutoff**2).clamp(min=0.0)
        return AtomEnergies(50.0 * inside.pow(3).sum(dim=1))


@pytest.fixture(scope="module")
def region(dipeptide_water):
    return select_region(dipeptide_water, "resname ALA")


def two_frames(built) -> list[np.ndarray]:
    """The built structure, and one with every atom moved a little."""
    ripple = 0.003 * np.sin(np.arange(3 * built.n_atoms)).reshape(-1, 3)
    return [built.positions, built.positions + ripple]


@pytest.fixture(scope="module")
def scan(dipeptide_water, region) -> ZoneScan:
    frames = two_frames(dipeptide_water)
    zones = {"plateaus": ("0 nm", "0.15 nm", "0.6 nm"), "widths": ("0 nm", "0.2 nm")}
    return scan_zones(dipeptide_water, region, Contacts(), frames, **zones)


def test_every_cell_is_the_boundary_error_of_that_zone(dipeptide_water, region, scan):
    """Forces of each hybrid system, built on its own, against the linear formula with one forward pass."""
    frames = two_frames(dipeptide_water)
    for (p, plateau), (w, width) in [((1, "0.15 nm"), (0, "0 nm")), ((0, "0 nm"), (1, "0.2 nm"))]:
        zones = static_zones(dipeptide_water, region, plateau, width)
        hybrid = hybrid_system(dipeptide_water, zones, Contacts(), scheme="per_atom")
        errors = [boundary_error(hybrid, frame) for frame in frames]
        assert scan.percent[:, p, w] == pytest.approx([e.percent for e in errors], rel=1e-9)
        assert scan.largest[p, w] == pytest.approx(max(e.largest for e in errors), rel=1e-9)
        assert scan.active[p, w] == len(zones.active)
        counts = hybrid.zone_counts()
        assert scan.inputs[p, w] == counts["core"] + counts["transition"] + counts["buffer"]
    assert scan.mean[0, 0] > 1.0


def test_a_deep_plateau_has_no_error_and_a_hard_region_the_largest(scan):
    assert scan.mean[2, 0] < 1e-9 < scan.mean[1, 1] < scan.mean[0, 0]
    assert scan.best().percent < 1e-9
    active = scan.active[:2]
    assert (np.diff(active, axis=0) >= 0).all() and (np.diff(active, axis=1) >= 0).all()
    assert (scan.cost[scan.possible] > 0).all()
    cost = scan.cost[scan.possible] / scan.active[scan.possible]
    np.testing.assert_allclose(cost, scan.cost[0, 0] / scan.active[0, 0])


def test_a_zone_that_meets_its_own_image_is_left_out(dipeptide_water, region, scan, tmp_path):
    """It has neither numbers nor colour, is never recommended, and table and picture say why."""
    assert scan.possible.tolist() == [[True, True], [True, True], [True, False]]
    assert 0.6 < scan.room < 0.8
    assert static_zones(dipeptide_water, region, scan.room - 0.2, 0.1999).active
    with pytest.raises(ConfigError, match="meets its own periodic image"):
        static_zones(dipeptide_water, region, scan.room - 0.2, 0.2001)
    assert np.isnan(scan.percent[:, 2, 1]).all() and scan.active[2, 1] == scan.inputs[2, 1] == 0
    assert scan.recommend(1e9).active > 0 and scan.best().active > 0
    assert sum(line.split()[-5:] == ["–"] * 5 for line in str(scan).splitlines()) == 1
    assert "meets its own periodic image" in str(scan)
    words = re.findall(r"<text[^>]*>([^<]*)</text>", draw_scan(scan, tmp_path / "scan.svg").read_text())
    assert words.count("0") == 4 and "nan" not in words  # the ticks of both maps
    assert "own periodic image" in " ".join(words)
    assert "image" not in str(made_scan([[[9, 7, 4], [6, 3, 1]]], SIZES))


def test_a_scan_without_any_zone_that_fits(dipeptide_water, region):
    with pytest.raises(ConfigError, match="meets its own periodic image"):
        scan_zones(dipeptide_water, region, Contacts(), plateaus=("2 nm",), widths=("0 nm",))


def made_scan(percent: list, active: list) -> ZoneScan:
    """A scan with given numbers, two plateaus and three widths."""
    percent = np.array(percent, dtype=float)
    active = np.array(active)
    return ZoneScan(
        np.array([0.0, 0.3]),
        np.array([0.0, 0.1, 0.2]),
        percent,
        percent.max(axis=0),
        active,
        2 * active,
        active / 10,
        10,
        "residue",
        900.0,
        "resname LIG, toy",
    )


SIZES = [[10, 20, 30], [25, 25, 50]]


def test_the_cheapest_zone_below_the_target_is_recommended():
    scan = made_scan([[[9, 7, 4], [6, 3, 1]]], SIZES)
    assert (scan.recommend(5.0).plateau, scan.recommend(5.0).width) == (0.3, 0.1)  # 25 atoms, not 30
    assert scan.recommend(5.0).active == 25
    assert (scan.recommend(8.0).plateau, scan.recommend(8.0).width) == (0.0, 0.1)
    assert scan.recommend(1.0) is None and scan.best().percent == 1.0
    # Equal size: the smaller error.
    assert made_scan([[[9, 9, 9], [3, 2, 1]]], SIZES).recommend(5.0).width == 0.1


def test_mean_and_standard_error_over_frames():
    scan = made_scan([[[1, 2, 3], [4, 5, 6]], [[3, 2, 3], [4, 5, 6]]], SIZES)
    assert scan.mean[0, 0] == 2.0
    assert scan.standard_error[0, 0] == pytest.approx(1.0)  # sqrt(2) / sqrt(2)
    assert scan.standard_error[0, 1] == 0.0
    assert np.isnan(made_scan([[[1, 2, 3], [4, 5, 6]]], SIZES).standard_error).all()
    assert "2.00 ± 1.00" in str(scan) and "0.3 nm" in str(scan)


def test_the_choice_is_two_lines_of_toml(dipeptide_water, region):
    choice = made_scan([[[9, 7, 4], [6, 3, 1]]], SIZES).recommend(5.0)
    zones = tomllib.loads(choice.toml())
    assert {name: parse(text, "length") for name, text in zones.items()} == {"plateau": 0.3, "width": 0.1}
    assert static_zones(dipeptide_water, region, **zones).active


def test_picture_shows_every_number(tmp_path):
    """As SVG its text can be read: errors, atoms, axes, the frame around the recommended cell."""
    scan = made_scan([[[9.4, 7, 4], [6, 3.3, 0.001]], [[9.6, 7, 4], [6, 3.3, 0.001]]], SIZES)
    text = draw_scan(scan, tmp_path / "scan.svg", 5.0).read_text()
    words = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for word in ("9.5", "± 0.1", "3.3", "&lt; 0.01", "10", "50", "0.3", "0.2"):
        assert word in words, word
    assert any("fewest atoms below 5\u00a0%" in word for word in words)
    marked = text.count("stroke: #d9480f")
    without = draw_scan(scan, tmp_path / "none.svg", 0.0001).read_text()
    assert marked == 2 and "stroke: #d9480f" not in without
    assert "No zone reaches" in without
    png = draw_scan(scan, tmp_path / "scan.png").read_bytes()
    assert png[1:4] == b"PNG" and int.from_bytes(png[16:20], "big") == 1350


def test_picture_of_the_histogram(dipeptide_water, region, tmp_path):
    zones = static_zones(dipeptide_water, region, "0.1 nm", "0.3 nm")
    histogram = lambda_histogram(hybrid_system(dipeptide_water, zones, Contacts(), scheme="per_atom"))
    figure = Figure(figsize=(9.0, 2.8))
    draw_histogram(figure, histogram.edges, histogram.atoms, histogram.mean, histogram.deviation)
    with file_style():
        figure.savefig(tmp_path / "histogram.svg")
    text = (tmp_path / "histogram.svg").read_text()
    for number in histogram.atoms:
        assert f">{number}</text>" in text


def test_frames_repeat_with_their_seed(dipeptide_vacuum):
    one, again = (draw_frames(dipeptide_vacuum, 3, length="0.05 ps", platform="Reference") for _ in range(2))
    other = draw_frames(dipeptide_vacuum, 3, length="0.05 ps", platform="Reference", seed=5)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one[0] - other[0]).max() > 1e-3 and np.abs(one[0] - one[2]).max() > 1e-3
    for frame in one:
        assert 1e-3 < np.abs(frame - dipeptide_vacuum.positions).max() < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plateaus": ()}, "at least one plateau"),
        ({"frames": []}, "at least one plateau, one width and one frame"),
        ({"widths": ("3 fs",)}, "Units for a length"),
        ({"snap": "chain"}, "snap = residue"),
    ],
)
def test_bad_scans_are_rejected(dipeptide_water, region, arguments, message):
    with pytest.raises(ConfigError, match=message):
        scan_zones(dipeptide_water, region, Contacts(), **arguments)


def test_more_frames_than_steps(dipeptide_vacuum):
    with pytest.raises(ConfigError, match="1 to 10 frames, but got 11"):
        draw_frames(dipeptide_vacuum, 11, length="10 fs")


def test_a_zone_that_could_not_be_built_is_refused(dipeptide_water, region):
    """Unknown elements within reach of the largest zone, and rigid molecules."""
    with pytest.raises(PotentialError, match="only elements that contacts knows"):
        scan_zones(dipeptide_water, region, Contacts(elements=(1, 6)), plateaus=(0,), widths=(0,))
    import openmm

    system = openmm.XmlSerializer.clone(dipeptide_water.system)
    atoms = list(region.atoms)
    system.addConstraint(atoms[0], atoms[-1], 0.5)
    built = BuiltSystem.from_openmm(dipeptide_water.topology, system, dipeptide_water.positions)
    with pytest.raises(EmbeddingError, match='Build with constraints = "none"'):
        scan_zones(built, region, Contacts(), plateaus=(0,), widths=(0,))


QUICK = ["--set", "system.padding=0.5 nm", "--set", "potential.members=[0]"]


def test_scan_on_the_command_line(root, tmp_path, capsys):
    """One axis, one frame: table, lines to paste, picture; progress elsewhere."""
    picture = tmp_path / "zones.png"
    zone_file = str(root / "systems/alanine_dipeptide/zone.toml")
    options = ["--vary", "plateau", "--frames", "1", "--target", "8", "--picture", str(picture)]
    assert main(["check", "zones", zone_file, *options, *QUICK]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert sum(line.startswith("0") for line in lines) == 6  # six plateaus, the width of the file
    assert all("0.2 nm" in line for line in lines if line.startswith("0"))
    start = next(k for k, line in enumerate(lines) if line.endswith("for [zones]:"))
    zones = tomllib.loads("\n".join(lines[start + 1 : start + 3]))
    assert set(zones) == {"plateau", "width"} and zones["width"] == "0.2 nm"
    assert f"picture: {picture}" in printed.out and picture.stat().st_size > 10_000
    assert "frame 1 of 1" in printed.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vary", "radius"], "--vary plateau,width, but got 'radius'"),
        (["--picture", "nowhere/zones.png"], "in a folder that exists"),
        (["--picture", "zones.txt"], "a .png, .svg or .pdf file"),
        (["--frames", "0"], "--frames 1 or more"),
    ],
)
def test_bad_options_are_rejected(root, capsys, options, message):
    assert main(["check", "zones", str(root / "systems/alanine_dipeptide/zone.toml"), *options]) == 2
    assert message in capsys.readouterr().err


def test_scan_in_an_open_boundary(dipeptide_vacuum):
    """Without a box; the whole molecule as the zone is exact."""
    region = select_region(dipeptide_vacuum, "resname ALA and name CB HB1 HB2 HB3", complete="atoms")
    scan = scan_zones(dipeptide_vacuum, region, Contacts(), plateaus=(0, 0.4), widths=(0,))
    # All up to CA; C and O of alanine go with the N of the next residue.
    assert scan.active.ravel().tolist() == [14, 22] and scan.inputs.ravel().tolist()[1] == 22
    assert scan.mean[0, 0] > 1.0 > 1e-9 > scan.mean[1, 0]
