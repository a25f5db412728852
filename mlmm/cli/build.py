"""``mlmm build``: a structure or a run file becomes a parametrised system on disk, with its build log."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mlmm.config.load import RunConfig, load_config, structure_config
from mlmm.config.objects import build_from, system_options
from mlmm.errors import ConfigError

__all__ = ["BUILD_EPILOG", "add_build_options", "build_file", "config_of", "plan_text"]

BUILD_EPILOG = """what is written:
  built/               the system, as BuiltSystem.load reads it
  build_log.txt        every decision that was taken for you; build_log.json the same as data
  structure.cif, .pdb  the atoms with the ids of the file

[system] of the run file, or --set:
  pdb = "2CHT"         a path, or a PDB id: folders of MLMM_STRUCTURES, cache, wwPDB with download = true
  sha256 = "…"         the checksum that the file must have
  chains = ["A", "B"]  author chain ids; or assembly = "1"; neither: everything in the file
  model = 1            which of several models
  waters = "0.5 nm"    crystal waters near what is kept; or "all", "none"
  hydrogens = "strip"  take those of proteins and waters away and place them anew; "keep"; or "auto":
                       strip what a refinement program placed (polar ones only)
  remove = ["SO4", "A:301"]

examples:
  mlmm build 2CHT --dry-run                                  look at a structure, build nothing
  mlmm build 2CHT --set system.chains='["A","B","C"]' --set system.waters="0.5 nm"
  mlmm build my/run.toml --out builds/my
"""

_FILES = ("built", "build_log.json", "build_log.txt", "structure.cif", "structure.pdb")


def add_build_options(verb: argparse.ArgumentParser) -> None:
    """Options of the verb beside ``--set``."""
    verb.add_argument("--out", metavar="DIR", help="folder of the result (default: builds/NAME)")
    verb.add_argument("--dry-run", action="store_true", help="show what is there and what would be done")
    verb.add_argument("--download", action="store_true", help="fetch a PDB id that is found nowhere")
    verb.add_argument("--overwrite", action="store_true", help="replace the build that is there")


def config_of(options: argparse.Namespace) -> RunConfig:
    """Settings of a run file, or the defaults for a structure that is named directly."""
    overrides = [*options.set, *(["system.download=true"] if options.download else [])]
    if options.config.endswith(".toml"):
        return load_config(options.config, overrides, needs=("system.pdb",))
    return structure_config(options.config, overrides)


def plan_text(config: RunConfig) -> tuple[str, bool]:
    """The page of a dry run, and whether the build would go through."""
    from mlmm.build import plan_system

    if config.system.prmtop or config.system.xml:
        raise ConfigError(
            "a structure to be built for --dry-run",
            "a system that has its parameters",
            "leave --dry-run out: such a system is checked in seconds",
        )
    plan = plan_system(config.system.pdb, **system_options(config))
    return str(plan), plan.problem is None


def build_file(config: RunConfig, options: argparse.Namespace, progress: Callable[[str], None]) -> str:
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
    built = build_from(config, progress)
    progress("save")
    try:
        out.mkdir(parents=True, exist_ok=True)
        built.save(out / "built")
        write_build_log(built.provenance, out)
        positions = unit.Quantity(built.positions, unit.nanometer)
        for name, kind in (("structure.cif", app.PDBxFile), ("structure.pdb", app.PDBFile)):
            with open(out / name, "w", encoding="utf-8") as file:
                kind.writeFile(built.topology, positions, file, keepIds=True)
    except OSError as error:
        raise ConfigError(f"a writable folder {str(out)!r}", str(error), "choose another --out") from error
    count = len(built.provenance.get("log", []))
    charge = built.provenance["net_charge"]
    return (
        f"{built.n_atoms} atoms, net charge {charge} e, {count} decisions in {out / 'build_log.txt'}\n{out}/"
    )
