"""Tables of a run file of which there may be several: [variable.NAME] and [[restraint]].

Only the standard library is imported here, see `mlmm.config.load`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlmm.collective_variables.options import Restraint, Variable
from mlmm.collective_variables.rules import STAGES
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError
from mlmm.options import check_names, check_section, options_of

__all__ = [
    "check_references",
    "check_tables",
    "find_files",
    "groups_of",
    "set_in_table",
    "variables_and_restraints",
]


def check_tables(content: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Check the tables of variables and restraints; returns them as `RunConfig` takes them.

    Parameters
    ----------
    content : mapping
        Of the run file.
    path : str
        For messages.

    Raises
    ------
    ConfigError
        Tables of another form, an unknown key, a restraint on a variable that is not there or in units of
        another dimension, or a stage that no run has.
    """
    given, listed = content.get("variable", {}), content.get("restraint", [])
    if not isinstance(given, Mapping) or not all(isinstance(table, Mapping) for table in given.values()):
        raise ConfigError(
            f"tables of variables by name in {path}", repr(given), "write [variable.d] above the keys of one"
        )
    if not isinstance(listed, list) or not all(isinstance(table, Mapping) for table in listed):
        raise ConfigError(
            f"tables of restraints in {path}",
            repr(listed),
            'write [[restraint]] in double brackets above the keys of one, with variable = "…"',
        )
    listing = "mlmm config --explain {}, which lists the keys"
    variables = {
        name: check_section(Variable, table, f" in {path} [variable.{name}]", listing.format("variable"))
        for name, table in given.items()
    }
    restraints = [
        check_section(Restraint, table, f" in {path} [[restraint]]", listing.format("restraint"))
        for table in listed
    ]
    found: dict[str, Any] = {"variable": variables, "restraint": tuple(restraints)}
    made, asked = variables_and_restraints(RunConfig(**found))
    by_name = {variable.name: variable for variable in made}
    for restraint in asked:
        define = f"define it in a table [variable.{restraint.name}]"
        check_names([restraint.name], by_name, f"a variable of {path} for each restraint", define)
        restraint.numbers(by_name[restraint.name])
        stages = f"stages of the restraint on {restraint.name} in {path}"
        check_names(restraint.stages, STAGES, stages)
    return found


def variables_and_restraints(config: RunConfig) -> tuple[list[Variable], list[Restraint]]:
    """The variables and restraints of a run file."""
    variables = [Variable(name, **table) for name, table in config.variable.items()]
    return variables, [Restraint(**table) for table in config.restraint]


def groups_of(config: RunConfig) -> list[str]:
    """The selections of all variables, each once."""
    return list(dict.fromkeys(group for table in config.variable.values() for group in table["groups"]))


def check_references(config: RunConfig) -> None:
    """Refuse reference structures that are not there (ConfigError)."""
    for name, table in config.variable.items():
        for key in ("reference", "images"):
            path = table.get(key)
            if path and not Path(path).is_file():
                raise ConfigError(
                    f"{key} of variable {name}, a structure file", f"no file {path}", "correct its path"
                )


def find_files(config: RunConfig, find: Callable[[str], str]) -> dict[str, Any]:
    """The tables with every file that they name replaced by `find(name)`."""
    known = options_of(Variable)
    variables = {
        name: {key: known[key].located(value, find) for key, value in table.items()}
        for name, table in config.variable.items()
    }
    return {"variable": variables, "restraint": config.restraint}


def set_in_table(content: dict[str, Any], section: str, key: str, value: Any) -> bool:
    """Apply ``--set variable.NAME.KEY=VALUE`` or ``restraint.NAME.KEY=VALUE``; NAME is that of the variable.

    Returns
    -------
    bool
        False for any other section.

    Raises
    ------
    ConfigError
        No table of that name, or several restraints on one variable.
    """
    if section not in ("variable", "restraint"):
        return False
    name, dot, field = key.partition(".")
    if not dot:
        raise ConfigError(
            f"--set {section}.NAME.KEY=VALUE", f"{section}.{key}", 'try --set restraint.d.at="0.3 nm"'
        )
    if section == "variable":
        tables = [content.setdefault("variable", {}).setdefault(name, {})]
    else:
        given = content.get("restraint", [])
        listed = [table for table in given if isinstance(table, dict)] if isinstance(given, list) else []
        tables = [table for table in listed if table.get("variable") == name]
    if len(tables) != 1:
        raise ConfigError(
            f"one restraint on {name} for --set restraint.{key}",
            f"{len(tables)}",
            "change the run file",
        )
    tables[0][field] = value
    return True
