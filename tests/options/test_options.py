"""Options: quantities in internal units, limits, names that do not exist, what is written back."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass

import pytest
from openmm import unit

from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.errors import ConfigError
from mlmm.options import as_written, check_fields, number, quantity, split_changes, with_changes, word
from mlmm.units import parse


@dataclass(frozen=True)
class Sample:
    """Options of nothing."""

    length: object = quantity("2 fs", "time", "how long", above=0)
    count: int = number(3, "how many", least=1)
    share: float = number(0.5, "how much", above=0)
    mode: str = word("a", ("a", "b"), "which")

    def __post_init__(self):
        check_fields(self)


def test_quantities_are_internal_and_written_back_exactly():
    options = with_changes(Sample, None, {"length": 0.3 * unit.femtosecond, "share": 1})
    assert options.length == pytest.approx(3e-4, rel=1e-15) and options.count == 3
    written = as_written(options)
    assert parse(written["length"], "time") == options.length
    assert Sample(**written) == options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lenght": "1 fs"}, "Did you mean 'length'"),
        ({"length": "1 K"}, "length as a time"),
        ({"length": "0 fs"}, "length above 0 ps"),
        ({"count": 0}, "count of 1 or more"),
        ({"count": 1.5}, "count as a whole number"),
        ({"count": True}, "count as a whole number"),
        ({"share": float("nan")}, "share above 0"),
        ({"share": "much"}, "share as a number"),
        ({"mode": "c"}, r"mode = a \| b"),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        with_changes(Sample, None, change)


def test_keywords_without_effect_are_rejected():
    shared = Sample(mode="b", count=2)
    assert with_changes(Sample, shared, {"length": "1 fs"}, used=("length",)).mode == "b"
    with pytest.raises(ConfigError, match="'count'"):
        with_changes(Sample, shared, {"count": 4}, used=("length",))
    own, others = split_changes({"count": 4, "seed": 1}, Sample, ("seed",))
    assert own == {"count": 4} and others == {"seed": 1}
    with pytest.raises(ConfigError, match="Did you mean 'seed'"):
        split_changes({"sed": 1}, Sample, ("seed",))
    with pytest.raises(ConfigError, match="of class Sample"):
        with_changes(Sample, RunOptions(), {})


@pytest.mark.parametrize("kind", [RunOptions, ProtocolOptions])
def test_every_option_explains_itself(kind):
    for spec in dataclasses.fields(kind):
        entry = spec.metadata["option"]
        assert entry.help and entry.section in ("run", "report")
    assert kind(**as_written(kind())) == kind()


def test_no_numerical_library_is_needed_to_read_a_run_file():
    code = (
        "import sys, mlmm.dynamics.options; "
        "assert not {'numpy', 'torch', 'openmm', 'mdtraj'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
