"""Interaction of a region with its surroundings by level of embedding, residue by residue.

Coulomb energy of the region with the charges of a residue, for three descriptions of the region in the same
structures: the fixed charges of the force field (mechanical embedding), the charges that the potential
predicts for the region by itself, and its charges, dipoles and quadrupoles in the field of all charges
(electrostatic embedding). The energy within the region changes too when it is polarised, which belongs to no
residue. Plain sums over shortest images of whole residues: an analysis of who
holds whom, not the energy of the simulation, whose far field is Ewald's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.build import BuiltSystem
from mlmm.check_report import aligned
from mlmm.electrostatics.embedded_region import CHARGE_WIDTH
from mlmm.electrostatics.fixed_charges import read_charges
from mlmm.errors import EmbeddingError
from mlmm.hybrid.region_checks import check_embedding, net_charge
from mlmm.hybrid.spec import atomic_numbers
from mlmm.modules import Module
from mlmm.neighbours import minimum_images
from mlmm.potentials.base import PotentialModel, field_module
from mlmm.potentials.multipoles import multipole_energies, potential_of_charges
from mlmm.units import COULOMB
from mlmm.zones.region import Region
from mlmm.zones.static import hard_zones

__all__ = ["LEVELS", "EmbeddingLevels", "embedding_levels"]

#: Descriptions of the region, in the order of the energies.
LEVELS = ("fixed charges", "predicted charges", "embedded")


@dataclass(frozen=True)
class EmbeddingLevels:
    """Interaction energies of a region, kJ/mol; prints as a table of the strongest.

    Parameters
    ----------
    names : tuple of str
        Residues; molecules of one residue that there are several of stand together.
    energies : ndarray, shape (F, R, 3)
        By frame, residue and level, see `LEVELS`.
    polarisation : ndarray, shape (F,)
        Energy within the region in the field, less that by itself.
    label : str
        Region and potential.
    rows : int
        Residues that are printed.
    """

    names: tuple[str, ...]
    energies: np.ndarray
    polarisation: np.ndarray
    label: str = ""
    rows: int = 12

    @property
    def totals(self) -> np.ndarray:
        """Sum over residues, (F, 3); the last with the energy within the region."""
        whole = self.energies.sum(axis=1)
        whole[:, 2] += self.polarisation
        return whole

    @property
    def strongest(self) -> np.ndarray:
        """Places of the residues, (R,), that with the largest energy of any level first."""
        return np.argsort(-np.abs(self.energies.mean(axis=0)).max(axis=1))

    def save(self, path: str | Path) -> Path:
        """Write means and standard errors, the strongest residue first, as JSON; the report draws them."""

        def row(name: str, energies: np.ndarray) -> dict[str, Any]:
            errors = _standard_errors(energies)
            return {
                "name": name,
                "mean": np.round(energies.mean(axis=0), 3).tolist(),
                "error": None if errors is None else np.round(errors, 3).tolist(),
            }

        facts = {
            "label": self.label,
            "levels": list(LEVELS),
            "frames": len(self.polarisation),
            "unit": "kJ/mol",
            "residues": [row(self.names[k], self.energies[:, k]) for k in self.strongest],
            "all": row("all", self.totals),
            "within the region": row("within the region", self.polarisation[:, None]),
        }
        path = Path(path)
        path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def __str__(self) -> str:
        order = self.strongest
        shown, rest = order[: self.rows], order[self.rows :]
        lines: list[tuple[str, ...]] = [("residue", *LEVELS, "embedded − fixed")]
        lines += [self._row(self.names[k], self.energies[:, k]) for k in shown]
        if len(rest):
            lines.append(self._row(f"{len(rest)} others", self.energies[:, rest].sum(axis=1)))
        own = self.polarisation
        lines.append(("within the region", "", "", _with_error(own), _with_error(own)))
        lines.append(self._row("all", self.totals))
        note = (
            f"{self.label}: Coulomb energy with its surroundings in kJ/mol, mean of {len(own)} frames ± "
            "standard error;\nframes of one short run are alike: the true error is larger"
        )
        return "\n".join((aligned(lines), note))

    @staticmethod
    def _row(name: str, energies: np.ndarray) -> tuple[str, ...]:
        """One line: three levels and the difference that embedding makes."""
        columns = [*energies.T, energies[:, 2] - energies[:, 0]]
        return (name, *(_with_error(column) for column in columns))


def _standard_errors(values: np.ndarray) -> np.ndarray | None:
    """Of the mean over frames, along the first axis; None for a single frame."""
    errors: np.ndarray = values.std(axis=0, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
    return None if len(values) < 2 else errors


def _with_error(values: np.ndarray) -> str:
    """Mean and standard error over the frames."""
    mean, error = f"{values.mean():.1f}", _standard_errors(values)
    return mean if error is None else f"{mean} ± {error:.1f}"


def embedding_levels(
    built: BuiltSystem,
    region: Region,
    potential: PotentialModel,
    frames: Sequence[np.ndarray],
    *,
    boxes: Sequence[np.ndarray] | None = None,
    charge: int | None = None,
    charge_width: float = CHARGE_WIDTH,
    progress: Callable[[str], None] | None = None,
) -> EmbeddingLevels:
    """Energies of a region with each residue around it, in some structures.

    Parameters
    ----------
    built : BuiltSystem
    region : Region
        Whole molecules.
    potential : PotentialModel
        One that sees the charges around it.
    frames : sequence of ndarray, shape (N, 3), nm
    boxes : sequence of ndarray, shape (3, 3), nm, optional
        One for each frame; that of the built system by default.
    charge : int, optional
        Of the region, e; that of the force field by default.
    charge_width : float
        Of the Gaussian charges that polarise the region, nm.
    progress : callable, optional
        Takes a line of text.

    Raises
    ------
    EmbeddingError, PotentialError
        A region or a potential that cannot be embedded, or no frame.
    """
    if not len(frames):
        raise EmbeddingError("one structure or more", "none", "draw some frames")
    zones = hard_zones(built, region)
    total = net_charge(built, zones, None) if charge is None else charge
    check_embedding(built, zones, potential, total)
    inside = list(zones.core)
    module = field_module(potential, atomic_numbers(built, inside), total)
    takes, fixed = potential.spec.external, read_charges(built.system).charge
    outside = np.setdiff1d(np.arange(built.n_atoms), inside)
    names, places = _residues(built, outside)
    energies, polarisation = [], []
    for k, frame in enumerate(frames):
        if progress is not None:
            progress(f"frame {k + 1} of {len(frames)}")
        cell = None
        if built.periodic:
            cell = built.box_vectors if boxes is None else np.asarray(boxes[k], dtype=np.float64)
        where, around = (
            np.asarray(frame, dtype=np.float64)[inside],
            _images(built, frame, inside, outside, cell),
        )
        x, sources = torch.tensor(where), torch.tensor(around)
        charges = torch.tensor(fixed[outside])
        box = None if cell is None else torch.tensor(cell)
        with torch.no_grad():
            alone, predicted, *_ = _evaluate(module, takes, x, box, sources[:0], charges[:0], 0.0)
            field = _evaluate(module, takes, x, box, sources, charges, charge_width)
        nothing = np.zeros((len(inside), 3)), np.zeros((len(inside), 3, 3))
        levels = [
            _potential(where, around, q, mu, theta) * fixed[outside]
            for q, mu, theta in (
                (fixed[inside], *nothing),
                (predicted.numpy(), *nothing),
                tuple(part.numpy() for part in field[1:]),
            )
        ]
        energies.append([np.bincount(places, level, len(names)) for level in levels])
        polarisation.append(float(field[0] - alone))
    label = f"{', '.join(region.residues[:4])} in {potential.spec.name}"
    return EmbeddingLevels(names, np.array(energies).transpose(0, 2, 1), np.array(polarisation), label)


def _evaluate(
    module: Module,
    takes: str,
    x: torch.Tensor,
    box: torch.Tensor | None,
    sources: torch.Tensor,
    charges: torch.Tensor,
    width: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energy within a region among charges without Coulomb's law with them, a scalar, and its multipoles."""
    if takes == "charges":
        energies, q, mu, theta = module.in_field(x, box, sources, charges, width)
        return energies.mean(dim=0).sum(), q, mu, theta
    around = potential_of_charges(sources.unsqueeze(0) - x.unsqueeze(1), charges, width)
    energies, q, mu, theta = module.in_potential(x, box, *around)
    outer = multipole_energies(q, mu, theta, *around)
    return (energies.mean(dim=0) - outer).sum(), q, mu, theta


def _residues(built: BuiltSystem, outside: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the rows, and the row of each atom around: molecules of one residue stand together by name."""
    atoms = list(built.topology.atoms())
    bonded = {
        atoms[i].residue.index
        for pair in built.bonds.tolist()
        if atoms[pair[0]].residue is not atoms[pair[1]].residue
        for i in pair
    }
    found: Counter[str] = Counter()
    keys = []
    for i in outside:
        residue = atoms[i].residue
        own = residue.index in bonded
        keys.append(f"{residue.name} {residue.id} {residue.chain.id}".strip() if own else residue.name)
        if atoms[i] is next(residue.atoms()) and not own:
            found[residue.name] += 1
    rows = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    names = tuple(f"{key} ({found[key]})" if found[key] > 1 else key for key in rows)
    return names, np.array([rows[key] for key in keys], dtype=np.int64)


def _images(
    built: BuiltSystem, frame: np.ndarray, inside: list[int], outside: np.ndarray, cell: np.ndarray | None
) -> np.ndarray:
    """Positions of the atoms around, each residue whole and in the image that is nearest to the region."""
    if cell is None:
        return np.asarray(frame, dtype=np.float64)[outside]
    residue = np.array([atom.residue.index for atom in built.topology.atoms()])[outside]
    around = np.asarray(frame, dtype=np.float64)[outside]
    _, first, place = np.unique(residue, return_index=True, return_inverse=True)
    centre = np.asarray(frame, dtype=np.float64)[inside].mean(axis=0)
    anchors = around[first]
    near = centre + minimum_images(anchors - centre, cell)
    return near[place] + minimum_images(around - anchors[place], cell)


def _potential(
    atoms: np.ndarray, sources: np.ndarray, charges: np.ndarray, dipoles: np.ndarray, quadrupoles: np.ndarray
) -> np.ndarray:
    """Potential of the multipoles of atoms at some places, kJ/mol/e (M,)."""
    total = np.zeros(len(sources))
    for x, q, mu, theta in zip(atoms, charges, dipoles, quadrupoles, strict=True):
        vectors = sources - x
        square = (vectors**2).sum(axis=1)
        along, twice = vectors @ mu, ((vectors @ theta) * vectors).sum(axis=1)
        total += (q + (along + 3.0 * twice / square) / square) / np.sqrt(square)
    return COULOMB * total
