"""``mlmm models``: the list of potentials, one of them in full, its installation, its contract."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.cli.progress import say

if TYPE_CHECKING:
    from mlmm.potentials import PotentialModel

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "List the potentials; show, install or check one."
EPILOG = """examples:
  mlmm models                           all of them, and which are installed
  mlmm models show mace-off23-small     everything about one
  mlmm models install ani1ccx           fetch its weights
  mlmm models check ani2x               does it keep the contract; exit status 1 if not
  mlmm models check my.model --trust    the same for a file that is a pickle, from a source that you trust

Weights are looked for in the folders of MLMM_MODELS, in the package, then in the cache (MLMM_CACHE/models or
~/.cache/mlmm/models). Other packages add names by an entry point of the group "mlmm.potentials".
"""
_COLUMNS = (
    "name",
    "elements",
    "range/nm",
    "per atom",
    "charges",
    "trained on",
    "schemes",
    "licence",
    "ready",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "show", "install", "check"),
        help="default: list",
    )
    parser.add_argument("name", nargs="?", help="of a potential, or a file")
    parser.add_argument(
        "--trust", action="store_true", help="read pickles, and TorchScript that touches files: they run code"
    )
    parser.add_argument(
        "--precision", default="", choices=("", "float32", "float64"), help="check: float64 where possible"
    )
    parser.add_argument("--seed", type=int, default=0, help="check: of the random structures")


def run(options: argparse.Namespace) -> int:
    """Print what was asked for; 1 if a potential breaks its contract."""
    text, passed = _models(options, say)
    print(text)
    return 0 if passed else 1


def _models(options: argparse.Namespace, progress: Callable[[str], None]) -> tuple[str, bool]:
    """What the verb prints, and whether all is well.

    Raises
    ------
    ConfigError
        No name where one is needed.
    PotentialError, MissingPackageError
        As `load_potential` and `install_model`.
    """
    from mlmm.errors import ConfigError

    if options.action == "list":
        return _table(), True
    if not options.name:
        raise ConfigError(
            f"a name after `mlmm models {options.action}`", "none", "`mlmm models` lists the names"
        )
    if options.action == "show":
        return _facts(options.name, options.trust), True
    if options.action == "install":
        from mlmm.potentials.install import install_model

        return f"{options.name}: {install_model(options.name, progress=progress)}", True
    return _check(options, progress)


def _table() -> str:
    from mlmm.check_report import aligned
    from mlmm.potentials.known import KINDS, find_model, known_potentials, plugin_names
    from mlmm.potentials.trained_files import trained_models
    from mlmm.schemes import suitable_schemes

    rows: list[tuple[str, ...]] = [_COLUMNS]
    missing = []
    for known in known_potentials():
        path = find_model(known) if known.package_found else None
        elements = known.about["elements"]
        schemes = suitable_schemes(
            known.about["trained_on"],
            per_atom=known.per_atom,
            long_range=known.charges,
            charges=known.charges,
        )
        rows.append(
            (
                known.name,
                elements if len(elements) < 28 else elements[:26].rsplit(" ", 1)[0] + " …",
                f"{known.receptive_field:.2f}",
                "yes" if known.per_atom else "no",
                "yes" if known.charges else "no",
                known.about["trained_on"],
                " ".join(schemes),
                known.about["licence"].partition(" (")[0],
                "installed" if path else "no",
            )
        )
        if not path:
            missing.append((known.name, known.install))
    rows += [(name, *[""] * 7, "of another package") for name in plugin_names()]
    rows += [_trained_row(name, path) for name, path in trained_models().items()]
    others = "\n".join(f"  {kind:22} {text}" for kind, text in KINDS.items())
    parts = [aligned(rows, left=9)]
    if missing:
        parts.append("to install:\n" + textwrap.indent(aligned(missing, left=2), "  "))
    cited = [(known.name, known.about["citation"]) for known in known_potentials()]
    parts.append("to cite:\n" + textwrap.indent(aligned(cited, left=2), "  "))
    return "\n\n".join([*parts, f"and by what they are:\n{others}"])


def _trained_row(name: str, path: Path) -> tuple[str, ...]:
    """A file of `mlmm train` in a folder of models, by its header."""
    from mlmm.potentials.trained_files import learned_facts
    from mlmm.schemes import suitable_schemes

    kind, about = next((k, a) for k, a in learned_facts(path).items() if "training" in a)
    per_atom = kind != "gdml"
    trained_on = about.get("trained_on", "isolated")
    schemes = suitable_schemes(trained_on, per_atom=per_atom, long_range=kind == "gdml", charges=False)
    facts = about["training"]
    return (
        name,
        facts.get("elements", ""),
        facts.get("range", ""),
        "yes" if per_atom and not about.get("base", "").startswith(("tblite", "ase")) else "no",
        "no",
        trained_on,
        " ".join(schemes),
        about.get("licence", "not stated").partition(" (")[0],
        "trained",
    )


def _facts(name: str, trust: bool) -> str:
    """Everything about one: from the table if it is not installed, else from the potential itself."""
    from mlmm.elements import SYMBOLS, element_names
    from mlmm.errors import MissingPackageError, PotentialError
    from mlmm.potentials.known import find_model, known_potentials
    from mlmm.potentials.registry import load_potential
    from mlmm.schemes import suitable_schemes

    entries = {known.name.replace("-", ""): known for known in known_potentials()}
    known = entries.get(name.lower().replace("-", ""))
    try:
        spec = load_potential(name, trust=trust).spec
    except (PotentialError, MissingPackageError):
        if known is None:
            raise
        rows = dict(known.about) | {
            "receptive field": f"{known.receptive_field:g} nm",
            "per-atom energies": "yes" if known.per_atom else "no",
            "charges": "yes" if known.charges else "no",
            "state": f"not installed: {known.install}",
        }
        return _lines(rows)
    schemes = suitable_schemes(
        spec.trained_on, per_atom=spec.per_atom, long_range=spec.long_range, charges=spec.charges
    )
    references = [f"{SYMBOLS[z]} {e:.3f}" for z, e in list(spec.reference_energies.items())[:10]]
    rows = {
        "name": spec.name,
        "elements": element_names(spec.elements, " "),
        "cutoff": f"{spec.cutoff:g} nm, {spec.layers} layer{'s' if spec.layers > 1 else ''}",
        "receptive field": f"{spec.receptive_field:g} nm",
        "per-atom energies": "yes" if spec.per_atom else "no",
        "charges, spins": f"{'yes' if spec.charges else 'no'}, {'yes' if spec.spins else 'no'}",
        "members": str(spec.members),
        "trained on": f"{spec.trained_on} ({spec.level_of_theory})",
        "schemes": " ".join(schemes),
        "units": f"{spec.native_units[0]}, {spec.native_units[1]} (converted)",
        "precision": spec.precision,
        "deterministic": "yes" if spec.deterministic else "no",
        "isolated atoms": (", ".join(references) + " kJ/mol") if references else "none removed",
        "licence": spec.licence,
        "citation": spec.citation,
    }
    if spec.external == "charges":
        rows["polarisation"] = f"by charges within {spec.polarisation_range:g} nm, times "
        rows["polarisation"] += f"{spec.polarisation_scaling:g} (polarisation_scaling in [potential])"
    if spec.calibration is not None:
        rows["uncertainty"] = spec.calibration.sentence()
    rows |= _training_of(name)
    if known is not None:
        rows["weights"] = str(find_model(known))
    return _lines(rows)


def _training_of(name: str) -> dict[str, str]:
    """How a file of `mlmm train` came about; nothing for others."""
    from mlmm.potentials.trained_files import learned_facts, trained_models

    path = Path(name) if Path(name).exists() else trained_models().get(name)
    found = [about for about in learned_facts(path).values() if "training" in about] if path else []
    if not found:
        return {}
    about = found[0]
    rows = {key: str(text) for key, text in about["training"].items() if isinstance(text, (str, int))}
    return rows | ({"base": about["base"]} if about.get("base") else {})


def _lines(rows: dict[str, str]) -> str:
    return "\n".join(
        textwrap.fill(text, 100, initial_indent=f"{key.replace('_', ' '):18}", subsequent_indent=" " * 18)
        for key, text in rows.items()
    )


def _check(options: argparse.Namespace, progress: Callable[[str], None]) -> tuple[str, bool]:
    from mlmm.errors import PotentialError
    from mlmm.potentials.contract.check import check_potential
    from mlmm.potentials.registry import load_potential

    def load(precision: str) -> PotentialModel:
        return load_potential(options.name, precision=precision, trust=options.trust)

    precision = options.precision or "float64"
    try:
        model = load(precision)
    except PotentialError as error:
        if options.precision or "precision" not in str(error):
            raise
        precision = "float32"
        model = load(precision)
    report = check_potential(model, reload=lambda: load(precision), seed=options.seed, progress=progress)
    verdict = "keeps the contract" if report.passed else "BREAKS THE CONTRACT"
    return f"{model.spec.name}, {precision}\n{report}\n{model.spec.name} {verdict}", report.passed
