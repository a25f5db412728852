"""``mlmm init``: a commented run file to start from."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mlmm.config.checks import outlook
from mlmm.config.explain import start_file
from mlmm.config.load import load_config
from mlmm.errors import ConfigError

if TYPE_CHECKING:
    from mlmm.build import Inspection

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Write a commented run file to start from."
EPILOG = """With a structure, it suggests a region: the largest ligand, or else the first chain.

examples:
  mlmm init                                 run.toml with places to fill in
  mlmm init 3PTB --download                 a PDB id, fetched once where no folder of MLMM_STRUCTURES has it
  mlmm init my/input.pdb --out my/run.toml
then:
  mlmm build my/run.toml --dry-run          what would be built of the file
  mlmm config --explain                     every key that may be set
  mlmm run my/run.toml
"""
_SMALLEST = 4  # heavy atoms; ions and most of what crystals were grown from have fewer or as many
_SCHEME = (
    "How both energies are combined. auto: additive for a region of whole molecules without a zone, such as "
    "the one above: it is by itself in the potential, which goes with rigid water. per_atom, where bonds are "
    "cut or a zone is asked for, and supermolecular let the potential see what is around; they need flexible "
    'molecules: constraints = "none" and rigid_water = false in [system].'
)
_VALUES: dict[str, object] = {
    "system.pdb": "input.pdb",
    "region.select": "resname LIG",
    "potential.name": "ani1x",
    "run.produce": "10 ps",
}


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("pdb", nargs="?", help="structure file, or PDB id")
    verb.add_argument("--out", default="run.toml", metavar="FILE", help='file to write (default "run.toml")')
    verb.add_argument("--download", action="store_true", help="fetch a PDB id that is found nowhere")


def run(options: argparse.Namespace) -> int:
    """Write the file and say what to do next."""
    out = Path(options.out)
    if out.exists():
        raise ConfigError(f"no file {out} yet", "one that is there", "choose another --out, or remove it")
    values, notes, remarks = dict(_VALUES), {"embedding.scheme": _SCHEME}, []
    if options.pdb:
        from mlmm.build import inspect_structure

        inspection = inspect_structure(options.pdb, download=options.download)
        found, more = suggestion(inspection)
        notes |= more
        values |= found | {"system.pdb": _beside(options.pdb, out)}
        if options.download:
            values["system.download"] = True
        remarks = [f"would stop a build: {problem}" for problem in inspection.problems]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(start_file(values, notes), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"a writable file {out}", str(error), "choose another --out") from error
    if options.pdb and not remarks:
        remarks = [outlook(load_config(out))]
    print("\n".join([f"written: {out}, region {values['region.select']!r}", *remarks]))
    print(f"next: look it over, then  mlmm build {out} --dry-run  and  mlmm run {out}")
    return 0


def suggestion(inspection: Inspection) -> tuple[dict[str, object], dict[str, str]]:
    """Values of keys for a structure, and the comments above them, both by "section.key"."""
    values: dict[str, object] = {"system.model": inspection.models[0]} if len(inspection.models) > 1 else {}
    ligands = [ligand for ligand in inspection.ligands if ligand.heavy_atoms >= _SMALLEST]
    if not ligands:
        chain = inspection.chains[0] if inspection.chains else None
        what = f"chain {chain.chain} ({chain.residues} residues)" if chain else "the first chain of the file"
        note = (
            f"Atoms in the potential, in mdtraj's language. Suggested: {what}; choose a part of a large one."
        )
        return values | {"region.select": "chainid 0"}, {"region.select": note}
    largest = max(ligands, key=lambda ligand: ligand.heavy_atoms)
    copies = Counter(ligand.name for ligand in inspection.ligands)[largest.name]
    number = largest.residue.split()[1]
    select = f"resname {largest.name}" + (f" and resSeq {number}" if copies > 1 else "")
    others = sorted({ligand.residue for ligand in ligands} - {largest.residue})
    note = f"Atoms in the potential, in mdtraj's language. Suggested: {largest.residue}, the largest ligand"
    note += f" of {', '.join(others[:6])} and itself." if others else "."
    chemistry = (
        "Structure file or PDB id. A ligand needs parameters: name an OpenMM XML file in ligands, or say "
        f'what it is below [system.ligand.{largest.name}], with a line such as smiles = "…".'
    )
    return values | {"region.select": select}, {"region.select": note, "system.pdb": chemistry}


def _beside(pdb: str, out: Path) -> str:
    """A file as the run file has to name it; an id as it is."""
    path = Path(pdb)
    return Path(os.path.relpath(path, out.parent)).as_posix() if path.exists() else pdb
