"""``mlmm ligand``: parameters of one molecule, as a file to keep."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mlmm.cli.progress import say
from mlmm.errors import ConfigError

__all__ = ["EPILOG", "HELP", "add_options", "run"]

HELP = "Force-field parameters of a small molecule, from its SMILES."
EPILOG = """what it writes:
  An OpenMM force-field file with one residue: GAFF2 parameters and AM1-BCC charges from AmberTools
  (pip install "mlmm[ligands]"), the SMILES with stereocentres, programs and versions. Keep it beside the run
  file or in forcefields/ and name it in [system] ligands: later builds then need no AmberTools.

which molecule: with the charges and hydrogens that are written, and every stereocentre.

  mlmm ligand "NC(=[NH2+])c1ccccc1" --name BEN --out benzamidinium.xml
  mlmm ligand benzamidine.sdf --name BEN --charge 1 --out benzamidinium.xml
"""


def add_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    verb.add_argument("molecule", help="SMILES, or an SDF or mol2 file")
    verb.add_argument("--name", default="LIG", help='residue name (default "LIG")')
    verb.add_argument("--out", metavar="FILE", help="XML file to write (default: NAME.xml)")
    verb.add_argument("--overwrite", action="store_true", help="replace FILE")
    verb.add_argument("--charge", type=int, metavar="E", help="net charge, compared with the molecule's")
    verb.add_argument(
        "--charges",
        default="am1bcc",
        metavar="METHOD",
        help='"am1bcc", or "file" for those of the mol2 file (default "am1bcc")',
    )
    verb.add_argument(
        "--atoms", default="", metavar="NAMES", help="of the heavy atoms, in the order of the SMILES"
    )


def run(options: argparse.Namespace) -> int:
    """Write force-field parameters of one molecule."""
    print(_ligand(options, say))
    return 0


def _ligand(options: argparse.Namespace, progress: Callable[[str], None]) -> str:
    """Parametrise, write, and say what was written.

    Raises
    ------
    ConfigError
        The file exists or cannot be written.
    """
    from mlmm.build import Ligand, parametrise_ligand

    out = Path(options.out or f"{options.name}.xml")
    if out.exists() and not options.overwrite:
        raise ConfigError("a new file", f"{out}, which exists", "add --overwrite, or choose another --out")
    molecule = options.molecule
    is_file = Path(molecule).suffix.lower() in (".sdf", ".mol", ".mol2")
    ligand = Ligand(
        options.name,
        smiles="" if is_file else molecule,
        file=molecule if is_file else "",
        charge=options.charge,
        charges=options.charges,
        atoms=options.atoms.split(),
    )
    xml = parametrise_ligand(ligand, progress)
    try:
        out.write_text(xml, encoding="utf-8")
    except OSError as error:
        raise ConfigError("a writable file", f"{out}: {error}", "choose another --out") from error
    return f'{out}: use it with ligands = ["{out.name}"] in [system]'
