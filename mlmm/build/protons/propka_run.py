"""pKa values from propka, ligands and ions included."""

from __future__ import annotations

import io
import string
from collections.abc import Iterable

import numpy as np
from openmm import app

from mlmm.errors import MissingPackageError, StructureError

__all__ = ["pka_values"]

_WATER = {"HOH"}
_GROUPS = ("ASP", "GLU", "HIS", "LYS", "CYS", "TYR", "ARG", "N+", "C-")
_BONDED = 90.0  # propka's mark for a group that is bonded, such as a disulfide, is 99.99
_PROTEIN = frozenset(
    [
        *("ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE"),
        *("LEU", "LYS", "MET", "PHE", "PRO", "SER", "THR", "TRP", "TYR", "VAL"),
    ]
)


def pka_values(topology: app.Topology, positions: np.ndarray) -> dict[tuple[int, str], float]:
    """pKa of every titratable group of a protein by PROPKA 3 (Olsson et al., J. Chem. Theory Comput. 7, 525
    (2011), doi 10.1021/ct100578z; ligands: Søndergaard et al., ibid. 2284, doi 10.1021/ct200133y).

    Parameters
    ----------
    topology : openmm.app.Topology
        Hydrogens and water are left out.
    positions : ndarray, shape (N, 3), nm

    Returns
    -------
    dict
        (residue index, group) to pKa; groups are ``ASP GLU HIS LYS CYS TYR ARG N+ C-``.

    Raises
    ------
    MissingPackageError
        propka is not installed.
    StructureError
        propka cannot work with the structure.
    """
    try:
        import propka.run
    except ImportError as error:
        raise MissingPackageError(
            'the package propka for protonation = "propka"',
            f"no such package ({error})",
            'pip install "mlmm[protonation]", or write protonation = "modeller"',
        ) from error
    text, residues = _as_pdb(topology, positions)
    try:
        molecule = propka.run.single("structure.pdb", ["-q"], stream=io.StringIO(text), write_pka=False)
        groups = molecule.conformations["AVR"].groups
    except (Exception, SystemExit) as error:  # propka raises many kinds and may call sys.exit
        raise StructureError(
            "a structure that propka can work with",
            f"{type(error).__name__}: {error}",
            'write protonation = "modeller", and protonate for single residues',
        ) from error
    values = {}
    for group in groups:
        if group.residue_type in _GROUPS and group.pka_value < _BONDED:
            index = residues[group.atom.chain_id, group.atom.res_num]
            values[index, group.residue_type] = round(float(group.pka_value), 2)
    return values


def _as_pdb(topology: app.Topology, positions: np.ndarray) -> tuple[str, dict[tuple[str, int], int]]:
    """Heavy atoms as PDB text with letters and numbers of our own, and where each residue comes from.

    Numbers in the file may repeat between a chain and its ligands, and chains may have long names.
    """
    letters = iter(string.ascii_uppercase + string.ascii_lowercase + string.digits)
    lines: list[str] = []
    residues: dict[tuple[str, int], int] = {}
    for chain in topology.chains():
        kept = [residue for residue in chain.residues() if residue.name not in _WATER]
        if not kept:
            continue
        letter = next(letters, None)
        if letter is None or len(kept) > 9999:
            raise StructureError(
                "at most 62 chains of 9999 residues for propka", "more", 'write protonation = "modeller"'
            )
        for number, residue in enumerate(kept, start=1):
            residues[letter, number] = residue.index
            record = "ATOM" if residue.name in _PROTEIN else "HETATM"
            lines += _atom_lines(residue.atoms(), record, residue.name, letter, number, positions)
        lines.append("TER")
    return "\n".join([*lines, "END", ""]), residues


def _atom_lines(
    atoms: Iterable[app.topology.Atom],
    record: str,
    residue: str,
    letter: str,
    number: int,
    positions: np.ndarray,
) -> Iterable[str]:
    for atom in atoms:
        if atom.element is None or atom.element == app.element.hydrogen:
            continue
        symbol = atom.element.symbol.upper()
        # A name that starts with an element of one letter begins in the second column.
        name = f"{atom.name[:4]:<4}" if len(symbol) == 2 or len(atom.name) > 3 else f" {atom.name:<3}"
        x, y, z = (10 * positions[atom.index]).tolist()
        serial = (atom.index + 1) % 100000
        yield (
            f"{record:<6}{serial:5d} {name} {residue[:3]:>3} {letter}{number:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}{1.0:6.2f}{0.0:6.2f}          {symbol:>2}"
        )
