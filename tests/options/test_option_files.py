"""Files of options: what is no TOML, no section or no override is a sentence, whoever reads the file."""

import pytest

from mlmm.config.label_file import load_label_file
from mlmm.config.load import load_config
from mlmm.errors import ConfigError
from mlmm.learning.active.config import load_learning
from mlmm.learning.training.config import load_training
from mlmm.options.files import beside, override_entry

READERS = {
    load_config: "run.timestep",
    load_label_file: "executor.workers",
    load_learning: "choice.by",
    load_training: "fit.epochs",
}


@pytest.mark.parametrize("load", READERS, ids=lambda load: load.__name__)
def test_every_reader_says_what_is_wrong(load, tmp_path):
    path, key = tmp_path / "own.toml", READERS[load]
    section = key.partition(".")[0]
    with pytest.raises(ConfigError, match=r"in TOML.*own.toml"):
        load(path)
    for text, overrides, words in (
        ("a = = 1\n", (), "TOML in .*own.toml.*correct that line"),
        (f"{section} = 3\n", (), rf"section \[{section}\].*above its keys"),
        (f"{section} = 3\n", (f"{key}=1",), rf"section \[{section}\].*above its keys"),
        ("", ("nonsense",), "--set section.key=value.*'nonsense'"),
        ("[nowhere]\n", (), "sections .*nowhere"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"(?i){words}"):
            load(path, overrides)


def test_values_of_overrides_are_toml_or_text():
    assert override_entry("fit.epochs=3", "") == ("fit", "epochs", 3)
    assert override_entry('run.timestep="1 fs"', "") == ("run", "timestep", "1 fs")
    assert override_entry("run.timestep=1 fs", "") == ("run", "timestep", "1 fs")
    assert override_entry("zones.residues.A=0.5", "") == ("zones", "residues.A", 0.5)


def test_files_are_looked_for_in_the_folder_first(tmp_path):
    (tmp_path / "set.xyz").touch()
    assert beside("set.xyz", tmp_path) == str((tmp_path / "set.xyz").resolve())
    assert beside("other.xyz", tmp_path) == "other.xyz" and beside("", tmp_path) == ""
