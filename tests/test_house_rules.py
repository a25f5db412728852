"""The house rules that a program can check: lengths, arguments, stray numbers, tests, error texts."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

import mlmm
from mlmm import errors
from mlmm.build.options import BuildOptions, DropletOptions, LigandOptions
from mlmm.cli.program import _VERBS, _parser
from mlmm.config.schema import SystemSettings

PACKAGE = Path(mlmm.__file__).parent
TESTS = Path(__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "data" not in path.parts)
LONGEST_FILE = 400
MOST_ARGUMENTS = 8


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_quiet_and_without_stray_constants(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    if path.parent.name != "cli":
        assert not re.search(r"^\s*print\(", text, re.MULTILINE)
    if path.name != "units.py":
        assert not re.search(r"\b(96\.48|627\.5|4\.184|0\.5291|27\.211|2625\.|138\.93)", text)


def without_encoding(text: str) -> list[int]:
    """Lines where a text file is read or written as whatever encoding the process has just now."""
    calls = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    return [
        call.lineno
        for call in calls
        if getattr(call.func, "attr", "") in ("read_text", "write_text")
        and all(keyword.arg != "encoding" for keyword in call.keywords)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_text_files_are_utf_8(path):
    """OpenMM's OpenCL platform leaves a process in the C locale, where Python would take them for ASCII."""
    assert without_encoding(path.read_text()) == []


def test_files_without_encoding_are_detected():
    assert without_encoding(
        "a.read_text()\nb.write_text(\n  'x', encoding='utf-8'\n)\nb.write_text('x')"
    ) == [1, 5]


def public_functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions, methods and constructors without a leading underscore, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{inside}{child.name}.")
        elif isinstance(child, ast.FunctionDef) and (
            not child.name.startswith("_") or (inside and child.name == "__init__")
        ):
            yield inside + child.name, child


def arguments(function: ast.FunctionDef) -> list[str]:
    """All but options, which have to be named and have a default."""
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    named = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return names + [argument.arg for argument, default in named if default is None]


def test_public_functions_take_few_arguments_beside_options():
    crowded = {
        f"{path.relative_to(PACKAGE)}: {name}": len(arguments(function))
        for path in FILES
        for name, function in public_functions(ast.parse(path.read_text()))
        if len(arguments(function)) > MOST_ARGUMENTS
    }
    assert not crowded


def test_too_many_arguments_are_detected():
    """Control: one too many is seen, by place or by name; options and private functions are not."""
    many = ", ".join("abcdefghi")
    text = f"def f({many}): ...\ndef g(*, {many}): ...\ndef _h({many}): ...\n"
    text += f"def i(*, {many.replace(',', '=0,')}=0): ...\n"
    text += f"class A:\n    def __init__(self, {many}): ...\n    def m(self, {many[3:]}): ...\n"
    counts = {name: len(arguments(function)) for name, function in public_functions(ast.parse(text))}
    assert counts == {"f": 9, "g": 9, "i": 0, "A.__init__": 9, "A.m": 8}


def test_every_room_has_a_folder_of_tests():
    rooms = {path.parent for path in FILES if path.name == "__init__.py"} - {PACKAGE}
    rooms = {path.name for path in rooms if path.parent == PACKAGE}
    assert rooms and all(list((TESTS / room).glob("test_*.py")) for room in rooms), rooms


def test_no_folder_of_tests_is_passed_over(pytestconfig):
    """Pytest's own list of folders to leave out holds the name of a room, "build"."""
    folders = {part for path in TESTS.rglob("test_*.py") for part in path.relative_to(TESTS).parts[:-1]}
    patterns = pytestconfig.getini("norecursedirs")
    assert "build" in folders and patterns
    assert not [folder for folder in folders if any(fnmatch(folder, pattern) for pattern in patterns)]


def test_public_names_are_importable_and_documented():
    for name in mlmm.__all__:
        value = getattr(mlmm, name)
        assert value.__doc__ and value.__doc__.strip(), name
    # A submodule of the same name would take the place of the function as soon as somebody imports it.
    assert not set(mlmm.__all__) & {path.stem for path in PACKAGE.iterdir()}
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mlmm.nonsense  # noqa: B018


def test_error_classes_derive_from_builtin_exceptions():
    children = errors.MLMMError.__subclasses__()
    assert len(children) <= 7
    builtin = (ValueError, ArithmeticError, ImportError)
    assert all(issubclass(child, builtin) for child in children)


def test_errors_are_sentences_and_commands_stand_in_backquotes():
    for do, end in (
        ("write a = 1", "Write a = 1."),
        ("did you mean 'a'?", "Did you mean 'a'?"),
        ("pip install a==1.0", "Type `pip install a==1.0`."),
        ("pip install a, or leave it out", "Type `pip install a`, or leave it out."),
        ("--frames 3", "Write --frames 3."),
        ("`mlmm models` lists the names", "`mlmm models` lists the names."),
    ):
        assert str(errors.ConfigError("a", "none.", do)) == f"Expected a, but got none. {end}"
    unstable = str(errors.SimulationError("finite positions", "NaN", "try a smaller time step"))
    assert (
        unstable == "The simulation failed: expected finite positions, but got NaN. Try a smaller time step."
    )


def advice(tree: ast.AST) -> Iterator[str]:
    """Texts that begin with a command and that an error is made with; X stands for what is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            texts = [*node.args, *(k.value for k in node.keywords)]
            texts = texts if name.endswith("Error") or name in ("read_toml", "check_table") else []
        else:
            named = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "listing"
            texts = [node.value] if named else []
        for text in texts:
            if isinstance(text, ast.IfExp):
                text = text.body
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            words = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in parts)
            if re.match(r"(mlmm|pip) [a-z]", words):
                yield words


def is_command(text: str) -> bool:
    """Whether what an error would put in backquotes can be typed."""
    command = text.partition(", ")[0].partition(" > ")[0].replace("{}", "X")
    try:
        program, *words = shlex.split(command)
        if program == "pip":
            return words[0] == "install" and all(re.fullmatch(r"[\w.\[\]=<>-]+", word) for word in words)
        _parser().parse_args(words)
    except (SystemExit, ValueError):
        return False
    return True


def test_commands_that_errors_advise_can_be_typed():
    told = {
        f"{path.relative_to(PACKAGE)}: {text}": text
        for path in FILES
        for text in advice(ast.parse(path.read_text()))
    }
    assert len(told) > 20 and not [where for where, text in told.items() if not is_command(text)]


def verbs_in(text: str) -> set[str]:
    """Verbs of the program that a text tells to type."""
    return set(re.findall(r"(?:[:,(`]\s*|\b(?:type|with|run|or)\s+)mlmm ([a-z]+)\b(?!\.)", text))


def test_verbs_that_texts_name_exist():
    """Also inside of sentences, such as the advice of a verdict; the control is a verb that is none."""
    known = {*_VERBS, "bench"}
    told = {
        f"{path.relative_to(PACKAGE)}: {node.value}": verbs_in(node.value)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sum(map(len, told.values())) > 100
    assert not [where for where, verbs in told.items() if verbs - known]
    assert verbs_in("sample states in between: mlmm switch") == {"switch"}


def test_sentences_that_begin_with_a_command_are_detected():
    """Control: a sentence would stand in backquotes as a whole."""
    text = 'listing = f"mlmm config --explain {name} lists the keys"\n'
    text += 'raise ConfigError("a", "b", "pip install a (new)")'
    found = list(advice(ast.parse(text)))
    assert len(found) == 2 and not any(map(is_command, found))
    assert is_command("mlmm config --explain X, which lists the keys") and not is_command("mlmm simulate")


def test_an_error_survives_pickling():
    import pickle

    error = errors.ConfigError("a", "b", "c")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "Expected a, but got b. C."
    assert (again.expected, again.got, again.do) == ("a", "b", "c")


def keys_in(text: str) -> set[str]:
    """Keys of a run file that a text tells to write, such as `gaps = "cap"`."""
    return set(re.findall(r"\b([a-z_0-9]+) = (?=[\"'\[{…]|true\b|false\b|\d)", text))


def test_keys_that_the_builder_advises_exist():
    """The control is a key that is none."""
    known = {
        field.name
        for options in (SystemSettings, BuildOptions, LigandOptions, DropletOptions)
        for field in dataclasses.fields(options)
    }
    told = {
        f"{path.relative_to(PACKAGE)}: {node.value}": keys_in(node.value)
        for path in FILES
        if path.is_relative_to(PACKAGE / "build")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sum(map(len, told.values())) > 50
    assert not [where for where, keys in told.items() if keys - known]
    assert keys_in('write water_model = "opc"') - known == {"water_model"}
