"""The run file: kinds of zones with their own keys, defaults filled in, mistakes answered in full."""

from __future__ import annotations

import pytest
import tomli_w

from mlmm.config.load import load_config
from mlmm.config.schema import EmbeddingSettings, SystemSettings, UncertaintySettings, ZoneSettings
from mlmm.errors import ConfigError
from mlmm.options import default_of, options_of

START = '[system]\npdb = "input.pdb"\n[region]\nselect = "resname ALA"\n'


@pytest.fixture
def load(tmp_path):
    def loaded(text: str = "", *overrides: str):
        path = tmp_path / "run.toml"
        path.write_text(START + text)
        return load_config(path, overrides)

    return loaded


def test_choices_of_the_schema_are_those_of_the_package():
    """The file is read without the numerical libraries, so it has its own copy of the words."""
    import inspect

    from mlmm.build.families import WATER_MODELS
    from mlmm.build.surroundings.solvent import BOX_SHAPES
    from mlmm.dynamics.uncertainty import ACTIONS
    from mlmm.hybrid.system import hybrid_system
    from mlmm.schemes import ELECTROSTATICS, FAR_FIELDS, SCHEMES
    from mlmm.zones.adaptive import adaptive_zones
    from mlmm.zones.cut_bonds import SNAPS
    from mlmm.zones.shapes import SHAPES
    from mlmm.zones.static import static_zones

    zones, embedding = options_of(ZoneSettings), options_of(EmbeddingSettings)
    assert zones["snap"].choices == ("", *SNAPS)
    assert zones["shape"].choices == ("", *SHAPES)
    assert {*embedding["scheme"].choices} - {"auto"} == {*SCHEMES}
    for key, default in ZoneSettings.keys_of("static").items():
        assert inspect.signature(static_zones).parameters[key].default == default
    for key in ("plateau", "width", "walls", "molecules"):
        default = inspect.signature(adaptive_zones).parameters[key].default
        assert default == ZoneSettings.keys_of("adaptive")[key]
    assert embedding["electrostatics"].choices == ELECTROSTATICS
    assert embedding["far_field"].choices == FAR_FIELDS
    for key in ("charge_range", "charge_width", "far_field"):
        default = inspect.signature(hybrid_system).parameters[key].default
        assert default_of(EmbeddingSettings, key) == default
    assert options_of(UncertaintySettings)["action"].choices == ACTIONS
    assert options_of(SystemSettings)["water"].choices == tuple(WATER_MODELS)
    assert options_of(SystemSettings)["box_shape"].choices == tuple(BOX_SHAPES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"kind": "auto"}),
        ('[zones]\nplateau = "0.1 nm"', {"kind": "auto", "plateau": "0.1 nm"}),
        ('[zones]\nkind = "hard"', {"kind": "hard"}),
        (
            '[zones]\nkind = "static"\nwidth = "0.4 nm"',
            {
                "kind": "static",
                "plateau": "0.3 nm",
                "width": "0.4 nm",
                "snap": "residue",
                "shape": "skin",
            },
        ),
        (
            '[zones]\nkind = "static"\nplateau = "2 bonds"\nwidth = "1 bond"\nsnap = "hydrogen"',
            {
                "kind": "static",
                "plateau": "2 bonds",
                "width": "1 bond",
                "snap": "hydrogen",
                "shape": "skin",
            },
        ),
        (
            '[zones]\nkind = "residues"\n[zones.residues]\n"resid 3" = 0.5\n"resid 5" = 0.25',
            {"kind": "residues", "residues": {"resid 3": 0.5, "resid 5": 0.25}, "snap": "residue"},
        ),
        (
            '[zones]\nkind = "residues"\nplateau_select = "resid 4"\n'
            'residues = {"resid 3" = 0.5, "resid 5" = 1}',
            {
                "kind": "residues",
                "residues": {"resid 3": 0.5, "resid 5": 1},
                "plateau_select": "resid 4",
                "snap": "residue",
            },
        ),
        (
            '[zones]\nkind = "adaptive"\nmolecules = ["HOH", "MOH"]',
            {
                "kind": "adaptive",
                "plateau": "0.4 nm",
                "width": "0.5 nm",
                "molecules": ("HOH", "MOH"),
                "walls": "0.125 nm",
            },
        ),
    ],
)
def test_zones_and_their_defaults(load, tmp_path, text, expected):
    """Only keys of the kind are filled in and written down; what is written reads back as the same."""
    config = load(text)
    assert config.zones.given() == expected
    assert config.as_dict()["zones"] == expected
    (tmp_path / "resolved.toml").write_text(tomli_w.dumps(config.as_dict()))
    assert load_config(tmp_path / "resolved.toml") == config


def test_settings_of_the_embedding(load):
    settings = load('[embedding]\nscheme = "additive"\nkeep = ["CustomCVForce"]').embedding
    assert (settings.scheme, settings.mm_tail, settings.keep) == ("additive", False, ("CustomCVForce",))
    assert load("", "embedding.scheme=additive", "embedding.mm_tail=true").embedding.mm_tail


def test_a_charge_is_written_only_where_it_is_given(load):
    assert "charge" not in load().as_dict()["region"]
    region = load("", "region.charge=-1", "region.multiplicity=2").as_dict()["region"]
    assert (region["charge"], region["multiplicity"]) == (-1, 2)


def test_walls_of_an_adaptive_zone_are_a_length_or_none(load):
    assert load('[zones]\nkind = "adaptive"\nwalls = "none"').zones.walls == "none"
    assert load('[zones]\nkind = "adaptive"\nwalls = "1.3 A"').zones.walls == "1.3 A"
    with pytest.raises(ConfigError, match=r"walls.*'off'"):
        load('[zones]\nkind = "adaptive"\nwalls = "off"')


def test_the_compensation_lies_beside_the_run_file(load, tmp_path, monkeypatch):
    text = '[zones]\nkind = "adaptive"\ncompensation = "water.json"'
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError, match=r"no file water\.json\. Write one with mlmm calibrate"):
        load(text)
    (tmp_path / "water.json").write_text("{}")
    assert load(text).zones.compensation == str((tmp_path / "water.json").resolve())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "soft"', r"kind = auto \| hard \| static \| residues \| adaptive in .*, but got 'soft'"),
        ('kind = "statik"', r'Write kind = "static"'),
        ('kind = "hard"\nplateau = "0.3 nm"', r"plateau with static or adaptive zones .* got kind 'hard'"),
        ('molecules = ["HOH"]', r'no kind, which means "auto"\. Write kind = "adaptive", or leave it out'),
        ('kind = "adaptive"\nsnap = "atom"', r'Write kind = "static" or kind = "residues"'),
        ('kind = "static"\ncompensation = "x.json"', r'Write kind = "adaptive"'),
        ('kind = "static"\n[zones.residues]\n"resid 1" = 0.5', r'Write kind = "residues"'),
        ('kind = "residues"', r"residues in .*, but got none\. Add the table \[zones\.residues\]"),
        ('kind = "residues"\n[zones.residues]\n"resid 1" = 1.5', r"weights above 0 and up to 1"),
        ('kind = "residues"\n[zones.residues]\n"resid 1" = "half"', r"weights above 0 and up to 1"),
        ('kind = "residues"\nresidues = ["resid 1"]', r'Write residues = \{"resid 3" = 0\.5\}'),
        ('snap = "helix"', r"snap = residue \| molecule \| fragment \| hydrogen \| atom"),
        ('kind = "static"\nshape = "cube"', r"shape = skin \| sphere in"),
        ('kind = "static"\nplatau = "0.3 nm"', r"Did you mean 'plateau'"),
        ('kind = "static"\nplateau = "-0.1 nm"', r"plateau of 0 nm or more in"),
        ('kind = "static"\nheight = 1', r"mlmm config --explain zones`, which lists the keys"),
        ('kind = "static"\nplateau = 0.3', r'in quotes, such as plateau = "0\.3 nm"'),
        ('kind = "static"\nplateau = "0.3"', r"without a unit"),
        ('kind = "static"\nplateau = "2 bonds"', r"Write both in nm, or both as"),
        ('kind = "adaptive"\nplateau = "2 bonds"\nwidth = "2 bonds"', r"adaptive zone in nm"),
    ],
)  # fmt: skip
def test_bad_zone_settings_are_rejected_with_the_line_to_write(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(f"[zones]\n{text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('scheme = "magic"', r"scheme = auto \| per_atom \| supermolecular \| additive \| delta in"),
        ('scheme = "mechanical"', r'Write scheme = "additive" and electrostatics = "mechanical"'),
        ("mm_tail = 1", r"mm_tail as true or false"),
        ('electrostatics = "emle"', r"electrostatics = mechanical \| charges \| embedded in"),
        ('charge_range = "1.2 ps"', "'1.2 ps'"),
        ('charges = "modell"', 'Write charges = "model"'),
    ],
)
def test_bad_embedding_settings_are_rejected_with_the_line_to_write(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(f"[embedding]\n{text}")
