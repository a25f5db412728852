"""The HTML template of the report: jinja2 with every value escaped, so that text of a run stays text."""

from __future__ import annotations

import pathlib
import re
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mlmm.report.text import in_words, look_up

__all__ = ["inline_script", "render"]

_FOLDER = pathlib.Path(__file__).with_name("templates")
_DATA = pathlib.Path(__file__).parents[1] / "data"


def render(name: str, run: dict[str, Any], **values: Any) -> str:
    """Fill a template of ``mlmm/report/templates``.

    Parameters
    ----------
    name : str
        File name of the template.
    run : dict
        Contents of ``run.json``; the template looks facts up by their path, ``fact("potential.name")``.
    **values
        Everything else that the template names. A name that is missing is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["fact"] = lambda path: in_words(look_up(run, *path.split(".")))
    return environment.get_template(name).render(**values)


def inline_script(name: str) -> Markup:
    """Return a file of ``mlmm/data`` for use inside a script element, which its text must not end."""
    text = (_DATA / name).read_text(encoding="utf-8")
    return Markup(re.sub(r"<(/script|script|!--)", r"\\x3c\1", text, flags=re.IGNORECASE))
