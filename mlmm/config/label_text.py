"""A commented file for ``mlmm label`` to start from."""

from __future__ import annotations

from typing import Any

from mlmm.config.label_file import OutputOptions, StructureOptions
from mlmm.ensembles.options import ExecutorOptions
from mlmm.options import default_of, fields_of, options_of, toml
from mlmm.reference.methods import METHODS, method_class

__all__ = ["label_template"]


def label_template(method: str) -> str:
    """A TOML file for one method: every key, those that have a default as comments.

    Raises
    ------
    ConfigError
        An unknown method.
    """
    schema = method_class(method)
    lines = [f"# mlmm label: {METHODS[method].about}.", "# Lines that begin with # show defaults.", ""]
    lines += ["[structures]", *_keys(StructureOptions, {"files": ["frames.xyz"]})]
    lines += ["", "[method]", f'name = "{method}"', *_keys(schema, {})]
    lines += ["", "[executor]", *_keys(ExecutorOptions, {})]
    lines += ["", "[output]", *_keys(OutputOptions, {"dataset": "labels"})]
    return "\n".join(lines) + "\n"


def _keys(schema: type, values: dict[str, Any]) -> list[str]:
    lines = []
    names = fields_of(schema)
    for key, entry in options_of(schema).items():
        lines.append(f"# {entry.help}")
        default = default_of(schema, names[key])
        shown = entry.example if default in (None, "", (), {}) and entry.example is not None else default
        lines.append(f"{key} = {toml(values[key])}" if key in values else f"# {key} = {toml(shown)}")
    return lines
