"""The house rules that a program can check: lengths, stray numbers, error texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mlmm
from mlmm import errors

PACKAGE = Path(mlmm.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "data" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_quiet_and_without_stray_constants(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 420
    if path.parent.name != "cli":
        assert not re.search(r"^\s*print\(", text, re.MULTILINE)
    if path.name != "units.py":
        assert not re.search(r"\b(96\.48|627\.5|4\.184|0\.5291|27\.211|2625\.|138\.93)", text)


def test_public_names_are_importable_and_documented():
    for name in mlmm.__all__:
        value = getattr(mlmm, name)
        assert value.__doc__ and value.__doc__.strip(), name
    # A submodule of the same name would take the place of the function as soon as somebody imports it.
    assert not set(mlmm.__all__) & {path.stem for path in PACKAGE.iterdir()}
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mlmm.nonsense  # noqa: B018


def test_errors_are_few_and_also_built_in():
    children = errors.MLMMError.__subclasses__()
    assert len(children) <= 7
    builtin = (ValueError, ArithmeticError, ImportError)
    assert all(issubclass(child, builtin) for child in children)


def test_an_error_survives_pickling():
    import pickle

    error = errors.ConfigError("a", "b", "c")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "expected a; got b; c"
    assert (again.expected, again.got, again.do) == ("a", "b", "c")
