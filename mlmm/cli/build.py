"""``mlmm build``: a structure or a run file becomes a parametrised system on disk, with its build log."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlmm.cli.progress import Stages
from mlmm.cli.session import add_config, start
from mlmm.config.checks import outlook
from mlmm.config.explain import key_lines
from mlmm.config.load import load_config, structure_config
from mlmm.config.objects import build_from, build_options
from mlmm.config.schema import RunConfig
from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Build the system of a run file, or of a structure, and save it with its log."
EPILOG = f"""what is written:
  built/               the system, as BuiltSystem.load reads it
  build_log.txt        every decision that was taken for you; build_log.json the same as data
  structure.cif, .pdb  the atoms with the ids of the file

examples:
  mlmm build 2CHT --dry-run                                  look at a structure, build nothing
  mlmm build 2CHT --set system.chains='["A","B","C"]' --set system.waters="0.5 nm"
  mlmm build my/run.toml --out builds/my

keys of [system] with their defaults, each as --set takes it:

{key_lines("system")}
"""

_FILES = ("built", "build_log.json", "build_log.txt", "structure.cif", "structure.pdb")


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_config(verb, "run file in TOML, structure file, or PDB id")
    verb.add_argument("--out", metavar="DIR", help="folder of the result (default: builds/NAME)")
    verb.add_argument("--dry-run", action="store_true", help="show what is there and what would be done")
    verb.add_argument("--download", action="store_true", help="fetch a PDB id that is found nowhere")
    verb.add_argument("--overwrite", action="store_true", help="replace the build that is there")


def run(options: argparse.Namespace) -> int:
    """Build a system and save it, or show what would be done; 2 where that would stop."""
    config = _config(options)
    start(config, options, build=True)
    if options.dry_run:
        text, possible = _plan(config)
        print(text)
        if possible and config.region.select:
            print(outlook(config))
        return 0 if possible else 2
    print(_build(config, options))
    return 0


def _config(options: argparse.Namespace) -> RunConfig:
    """Settings of a run file, or the defaults for a structure that is named directly."""
    overrides = [*options.set, *(["system.download=true"] if options.download else [])]
    if options.config.endswith(".toml"):
        return load_config(options.config, overrides, needs=("system.pdb",))
    return structure_config(options.config, overrides)


def _plan(config: RunConfig) -> tuple[str, bool]:
    """The page of a dry run, and whether the build would go through."""
    from mlmm.build import plan_system

    if config.system.parametrised:
        raise ConfigError(
            "a structure to be built for --dry-run",
            "a system that has its parameters",
            "leave --dry-run out: such a system is checked in seconds",
        )
    plan = plan_system(config.system.pdb, build_options(config))
    return str(plan), plan.problem is None


def _build(config: RunConfig, options: argparse.Namespace) -> str:
    """Build, save, and say what was written.

    Raises
    ------
    ConfigError
        A folder that holds a build already.
    """
    from openmm import app, unit

    from mlmm.build.build_log import write_build_log

    out = Path(options.out) if options.out else Path("builds") / Path(options.config).stem.lower()
    if any((out / name).exists() for name in _FILES) and not options.overwrite:
        raise ConfigError(f"no build in {out}", "one that is there", "choose another --out, or --overwrite")
    with Stages() as stages:
        built = build_from(config, stages.show)
        stages.show("save")
        try:
            out.mkdir(parents=True, exist_ok=True)
            built.save(out / "built")
            write_build_log(built.provenance, out)
            positions = unit.Quantity(built.positions, unit.nanometer)
            for name, kind in (("structure.cif", app.PDBxFile), ("structure.pdb", app.PDBFile)):
                with open(out / name, "w", encoding="utf-8") as file:
                    kind.writeFile(built.topology, positions, file, keepIds=True)
        except OSError as error:
            raise ConfigError(
                f"a writable folder {str(out)!r}", str(error), "choose another --out"
            ) from error
    log = built.provenance.get("log", [])
    count = len(log) if isinstance(log, list) else 0
    charge = built.provenance["net_charge"]
    return (
        f"{built.n_atoms} atoms, net charge {charge} e, {count} decisions in {out / 'build_log.txt'}\n{out}/"
    )
