"""How far an atom's surroundings are from those that a potential was trained on.

Surroundings are compared by symmetry functions (Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017), doi
10.1039/C6SC05720A, eqs. 3 and 4, with the constants of ANI-1x), whatever the potential. The distance of an
atom is that to the nearest one of its element in the training set, in units of how far those are from each
other: 1 is as far as most training structures are from the rest, larger is outside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.potentials.ani.files import load_ani_file
from mlmm.potentials.ani.neurochem import ANIParameters
from mlmm.potentials.ani.symmetry_functions import SymmetryFunctions
from mlmm.potentials.safetensors_files import write_safetensors
from mlmm.structures import Structure
from mlmm.units import ANGSTROM

__all__ = ["TrainingSet", "read_xyz"]

_CONSTANTS = Path(__file__).parent.parent / "data" / "ani1x.safetensors"
_MOST = 2000  # surroundings kept for each element
_QUANTILE = 0.95
_EXACT = "donot_use_mm_for_euclid_dist"  # a matrix product loses small distances between long vectors


class TrainingSet:
    """Surroundings of the atoms of a training set, by element.

    Made by `from_structures`, `load` or `open`.

    Parameters
    ----------
    elements : tuple of int
        Atomic numbers, sorted.
    surroundings : dict of int to torch.Tensor
        Symmetry functions (M, length), float32.
    scales : dict of int to float
        Distance within which 95 % of them have another structure's atom.
    """

    def __init__(
        self, elements: tuple[int, ...], surroundings: dict[int, torch.Tensor], scales: dict[int, float]
    ):
        self.elements, self.surroundings, self.scales = elements, surroundings, scales
        constants = load_ani_file(_CONSTANTS)[0].constants
        symbols = tuple(SYMBOLS[z] for z in elements)
        self._parameters = ANIParameters(symbols, constants, np.zeros(len(symbols)), {}, {})
        self._bound: tuple[tuple, SymmetryFunctions] | None = None

    @classmethod
    def from_structures(cls, structures: Sequence[Structure], seed: int = 0) -> TrainingSet:
        """Take up to 2000 atoms of each element.

        Parameters
        ----------
        structures : sequence of Structure
            Two or more.
        seed : int
            Of the choice where there are more.

        Raises
        ------
        PotentialError
            Fewer than two structures: a distance needs something to be measured by.
        """
        if len(structures) < 2:
            raise PotentialError(
                "two training structures or more", f"{len(structures)}", "give the whole training set"
            )
        elements = tuple(sorted({int(z) for s in structures for z in s.numbers}))
        empty = cls(elements, {}, {})
        numbers = torch.cat([s.numbers for s in structures])
        owner = torch.cat([torch.full((len(s),), k) for k, s in enumerate(structures)])
        vectors = torch.cat([empty.vectors(s, range(len(s))) for s in structures])
        random = torch.Generator().manual_seed(seed)
        surroundings, scales = {}, {}
        for z in elements:
            rows = (numbers == z).nonzero().squeeze(1)
            rows = rows[torch.randperm(len(rows), generator=random)[:_MOST]].sort().values
            kept = vectors[rows]
            apart = torch.cdist(kept, kept, compute_mode=_EXACT)
            # Another structure's: the hydrogens of one methyl group do not tell how wide the set is.
            apart[owner[rows].unsqueeze(0) == owner[rows].unsqueeze(1)] = float("inf")
            nearest = apart.min(dim=1).values
            nearest = nearest[torch.isfinite(nearest)]
            scale = float(nearest.quantile(_QUANTILE)) if len(nearest) else 0.0
            surroundings[z] = kept
            # An element of one structure only, or always in the same place, has rounding for a scale.
            scales[z] = max(scale, 1e-3 * float(kept.norm(dim=1).mean()))
        return cls(elements, surroundings, scales)

    @classmethod
    def open(cls, path: str | Path) -> TrainingSet:
        """Read a file of `save`, or make it from structures in (extended) xyz format.

        Raises
        ------
        PotentialError
            A file of neither kind.
        """
        if Path(path).suffix == ".safetensors":
            return cls.load(path)
        return cls.from_structures(read_xyz(path))

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        tensors = {str(z): self.surroundings[z] for z in self.elements}
        facts = {"elements": self.elements, "scales": [self.scales[z] for z in self.elements]}
        write_safetensors(path, "training_set", tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> TrainingSet:
        """Read a file of `save`."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {})["training_set"])
                elements = tuple(facts["elements"])
                surroundings = {z: file.get_tensor(str(z)) for z in elements}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise PotentialError(
                f"a training set in {path}", f"{type(error).__name__}: {error}", "write it again from its xyz"
            ) from error
        return cls(elements, surroundings, dict(zip(elements, facts["scales"], strict=True)))

    def vectors(self, structure: Structure, centres: Sequence[int]) -> torch.Tensor:
        """Symmetry functions (C, length), float32, of atoms whose elements are all in the set."""
        key = (tuple(structure.numbers.tolist()), tuple(centres))
        if self._bound is None or self._bound[0] != key:
            species = torch.tensor([self.elements.index(z) for z in key[0]])
            functions = SymmetryFunctions(self._parameters, species, torch.tensor(key[1]), torch.float32)
            self._bound = (key, functions)
        cell = None if structure.cell is None else structure.cell / ANGSTROM
        with torch.no_grad():
            return self._bound[1](structure.positions.detach() / ANGSTROM, cell)

    def distances(self, structure: Structure, centres: Sequence[int] | None = None) -> torch.Tensor:
        """Distance of atoms to the training set, (C,); infinite for an element that does not occur in it.

        Parameters
        ----------
        structure : Structure
            Atoms of elements outside the set are not seen as neighbours.
        centres : sequence of int, optional
            All atoms by default.
        """
        wanted = list(range(len(structure))) if centres is None else [int(c) for c in centres]
        known = torch.isin(structure.numbers, torch.tensor(self.elements))
        place = known.cumsum(0) - 1
        inside = [k for k, atom in enumerate(wanted) if known[atom]]
        found = torch.full((len(wanted),), float("inf"))
        if inside:
            seen = Structure(structure.numbers[known], structure.positions.detach()[known], structure.cell)
            vectors = self.vectors(seen, [int(place[wanted[k]]) for k in inside])
            for z in self.elements:
                rows = [k for k, place_ in enumerate(inside) if int(structure.numbers[wanted[place_]]) == z]
                if rows:
                    nearest = (
                        torch.cdist(vectors[rows], self.surroundings[z], compute_mode=_EXACT)
                        .min(dim=1)
                        .values
                    )
                    found[[inside[k] for k in rows]] = nearest / self.scales[z]
        return found


def read_xyz(path: str | Path) -> list[Structure]:
    """Structures of an xyz or extended xyz file (angstrom), with ``Lattice`` and ``charge`` where given.

    Raises
    ------
    PotentialError
        A file that is missing or not in that format: names the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PotentialError(f"an xyz file at {path}", str(error), "give structures in xyz format") from error
    structures, at = [], 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        try:
            count = int(lines[at])
            comment, rows = lines[at + 1], [line.split() for line in lines[at + 2 : at + 2 + count]]
            if len(rows) < count or count < 1:
                raise ValueError("fewer atoms than announced")
            numbers = [SYMBOLS.index(row[0]) for row in rows]
            positions = ANGSTROM * np.array([[float(x) for x in row[1:4]] for row in rows])
            lattice = re.search(r'Lattice="([^"]*)"', comment)
            charge = re.search(r"\bcharge=([-+]?\d+)", comment)
            cell = None
            if lattice:
                cell = ANGSTROM * torch.tensor([float(x) for x in lattice[1].split()], dtype=torch.float64)
            structures.append(
                Structure(
                    torch.tensor(numbers),
                    torch.tensor(positions),
                    None if cell is None else cell.reshape(3, 3),
                    int(charge[1]) if charge else 0,
                )
            )
        except (ValueError, IndexError, RuntimeError) as error:
            raise PotentialError(
                f"structures in xyz format in {path}", f"{error} after line {at + 1}", "correct the file"
            ) from error
        at += 2 + count
    return structures
