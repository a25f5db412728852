"""Where not to believe the potential: spread of its members, distance to its training set, limits on both.

A frame beyond a limit can be warned of, saved for labelling, or end the run.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlmm.dynamics.frames import as_tensors, device_of
from mlmm.dynamics.imaging import RegionImages
from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError, PotentialError
from mlmm.hybrid.native_force import member_evaluation
from mlmm.hybrid.spec import atom_labels, atomic_numbers, model_atoms
from mlmm.hybrid.system import HybridSystem
from mlmm.plugin import MemberEvaluation
from mlmm.potentials.committee import force_spread, member_forces
from mlmm.potentials.descriptors import TrainingSet
from mlmm.structures import Structure
from mlmm.units import ANGSTROM, parse

__all__ = [
    "ACTIONS",
    "Uncertainty",
    "UncertaintyLimits",
    "UncertaintyMonitor",
    "measure_uncertainty",
    "member_energies",
]

logger = logging.getLogger(__name__)
ACTIONS = ("warn", "save", "stop")
#: Columns of the energy table, in this order.
COLUMNS = ("committee_spread", "atom_spread", "force_spread", "training_distance")
_UNITS = {
    "committee_spread": "kJ/mol",
    "atom_spread": "kJ/mol",
    "force_spread": "kJ/mol/nm",
    "training_distance": "",
}
_NAMED = 10  # frames that are named in the log; the others are counted


@dataclass(frozen=True)
class Uncertainty:
    """What is known about the error of one frame; None or NaN where there is no measure.

    Parameters
    ----------
    energy : float
        Standard deviation of the region's energy over the members, kJ/mol.
    atoms : ndarray, shape (A,), optional
        Of the per-atom energies of the zone's atoms (times lambda), kJ/mol.
    forces : ndarray, shape (N,), optional
        Of the potential's force on every atom of the system, kJ/mol/nm.
    distances : ndarray, shape (A,), optional
        Of the zone's atoms to the training set; see `mlmm.potentials.descriptors`.
    """

    energy: float = math.nan
    atoms: np.ndarray | None = None
    forces: np.ndarray | None = None
    distances: np.ndarray | None = None

    def row(self) -> dict[str, float]:
        """The largest of each, by the name of its column in the energy table; NaN where there is none."""
        largest = {
            "atom_spread": self.atoms,
            "force_spread": self.forces,
            "training_distance": self.distances,
        }
        row = {"committee_spread": self.energy}
        return row | {
            name: math.nan if values is None or not len(values) else float(np.max(values))
            for name, values in largest.items()
        }


@dataclass(frozen=True)
class UncertaintyLimits:
    """What is too much, and what happens then; a limit of None is not looked at.

    Parameters
    ----------
    energy, atom : float or str, optional
        Spread of the region's energy and of one atom's, kJ/mol.
    force : float or str, optional
        Spread of the force on one atom, kJ/mol/nm.
    distance : float, optional
        To the training set, in its own units.
    action : {"warn", "save", "stop"}
        ``save`` also warns and writes the frame; ``stop`` does both and ends the run with a checkpoint.
    frames : int
        At most so many are saved.
    """

    energy: float | str | None = None
    atom: float | str | None = None
    force: float | str | None = None
    distance: float | None = None
    action: str = "warn"
    frames: int = 50

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ConfigError(f"action = {' | '.join(ACTIONS)}", repr(self.action), 'write action = "warn"')
        for name, dimension in (("energy", "energy"), ("atom", "energy"), ("force", "force")):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, parse(value, dimension, f"uncertainty.{name}"))

    def by_column(self) -> dict[str, float]:
        """The limits that are set, by the column that they belong to."""
        limits = zip(COLUMNS, (self.energy, self.atom, self.force, self.distance), strict=True)
        return {name: float(limit) for name, limit in limits if limit is not None}


def measure_uncertainty(
    hybrid: HybridSystem,
    positions: np.ndarray,
    box: np.ndarray | None,
    *,
    forces: bool = True,
    training: TrainingSet | None = None,
    native: MemberEvaluation | None = None,
) -> Uncertainty:
    """Spread of the members and distance to the training set of one frame.

    Energies cost one pass of the model without gradients, forces one backward pass for each member. Under the
    native bridge both are those of the plugin's force, on the processor and without torch.

    Parameters
    ----------
    hybrid : HybridSystem
    positions : ndarray, shape (N, 3), nm
    box : ndarray, shape (3, 3), nm, optional
    forces : bool
    training : TrainingSet, optional
    native : MemberEvaluation, optional
        Of the hybrid, kept from another frame.
    """
    found = Uncertainty()
    if hybrid.potential.spec.members > 1:
        members, spread = _members(hybrid, positions, box, forces, native)
        totals = members.sum(dim=1)
        if spread is not None and hybrid.potential.spec.calibration is not None:
            # Atoms on which no member exerts a force have no error.
            spread = np.where(spread > 0.0, hybrid.potential.spec.calibration.deviation(spread), 0.0)
        # Whole energies of scheme "supermolecular" are no atom's.
        whole = not (hybrid.spec.rules.has_shares or hybrid.spec.rules.isolated)
        atoms = None if whole else members.std(dim=0).cpu().numpy()
        found = Uncertainty(float(totals.std()), atoms, spread)
    if training is not None:
        seen, centres = _seen(hybrid, positions, box)
        found = dataclasses.replace(found, distances=training.distances(seen, centres).numpy())
    return found


def member_energies(hybrid: HybridSystem, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Energy of the region by each member of a committee (K,), kJ/mol; arguments as `measure_uncertainty`."""
    return np.asarray(_members(hybrid, positions, box, False, None)[0].sum(dim=1).cpu().numpy(), np.float64)


def _members(
    hybrid: HybridSystem,
    positions: np.ndarray,
    box: np.ndarray | None,
    forces: bool,
    native: MemberEvaluation | None,
) -> tuple[torch.Tensor, np.ndarray | None]:
    """Energies of the zone's atoms by each member, (members, A), and if wanted the spread of forces (N,)."""
    native = member_evaluation(hybrid.system) if native is None else native
    if native is not None:
        found = native(positions, box, forces=forces)
        spread = None
        if found.forces is not None:
            spread = np.zeros(len(positions))
            spread[found.acting] = force_spread(torch.from_numpy(found.forces)).numpy()
        return torch.from_numpy(found.energies), spread
    where, cell = as_tensors(positions, box)
    where.requires_grad_(forces)
    with torch.set_grad_enabled(forces):
        members = _contributions(hybrid, where, cell)
    by_member = member_forces(members.sum(dim=1), where) if forces else None
    return members.detach(), None if by_member is None else force_spread(by_member).cpu().numpy()


def _contributions(hybrid: HybridSystem, where: torch.Tensor, cell: torch.Tensor | None) -> torch.Tensor:
    """Energies of the zone's atoms by each member, (members, A), attached to the positions."""
    blend: Any = hybrid.blend
    if blend is not None:
        device = device_of(blend)
        cell = None if cell is None else cell.to(device)
        found: torch.Tensor = blend.contributions(where.to(device), cell)
        return found.to(where.device)
    atoms = model_atoms(hybrid.spec)
    numbers = torch.tensor(atomic_numbers(hybrid.built, atoms))
    energies = hybrid.potential.atom_energies(Structure(numbers, where[atoms], cell, hybrid.charge))
    if energies.members is None:
        spec = hybrid.potential.spec
        raise PotentialError(
            f"energies of each of the {spec.members} members of {spec.name}",
            "their mean alone",
            "return AtomEnergies with members, or state members = 1",
        )
    return energies.members


def _seen(hybrid: HybridSystem, positions: np.ndarray, box: np.ndarray | None) -> tuple[Structure, list[int]]:
    """What the model sees, and where in it the zone's atoms stand."""
    where, cell = as_tensors(positions, box)
    weights = hybrid.zones.weights(where, cell)
    active = [i for i in weights.nonzero().squeeze(1).tolist() if not hybrid.built.virtual_sites[i]]
    blend: Any = hybrid.blend
    capped = getattr(blend, "capped", None)
    if capped is not None:
        atoms = capped.atoms.tolist()
        numbers = [*atomic_numbers(hybrid.built, atoms), *[1] * len(capped.lengths)]
        places = capped(*as_tensors(positions, box, device_of(capped))).cpu()
    else:
        atoms = model_atoms(hybrid.spec) if blend is None else blend.visible.tolist()
        numbers, places = atomic_numbers(hybrid.built, atoms), where[atoms]
    place = {atom: k for k, atom in enumerate(atoms)}
    return Structure(torch.tensor(numbers), places, cell), [place[i] for i in active if i in place]


class UncertaintyMonitor:
    """Measures the uncertainty of a run and acts on its limits.

    Parameters
    ----------
    hybrid : HybridSystem
    limits : UncertaintyLimits, optional
    interval : int, optional
        Steps between looks; with the rows of the energy table by default.
    forces : bool
        Whether the spread of the forces is measured.
    training : TrainingSet, optional
    """

    def __init__(
        self,
        hybrid: HybridSystem,
        limits: UncertaintyLimits | None = None,
        *,
        interval: int | None = None,
        forces: bool = True,
        training: TrainingSet | None = None,
    ):
        self.hybrid, self.limits, self.interval = hybrid, limits or UncertaintyLimits(), interval
        self.forces, self.training = forces, training
        self.facts: dict[str, Any] = {
            "limits": self.limits.by_column(),
            "action": self.limits.action,
            "flagged": 0,
            "saved": [],
            "bytes": 0,
        }
        calibration = hybrid.potential.spec.calibration
        if calibration is not None:
            self.facts["calibration"] = calibration.sentence()
        self._native: MemberEvaluation | None = None
        self._images = RegionImages(hybrid.built.topology, hybrid.zones.region.atoms)
        self._check()

    def _check(self) -> None:
        """A limit on what cannot be measured is a mistake."""
        limits = self.limits.by_column()
        if limits and self.hybrid.potential.spec.members < 2 and set(limits) - {"training_distance"}:
            raise ConfigError(
                "a committee for limits on a spread",
                f"{self.hybrid.potential.spec.name} with one member",
                'name several potentials, such as name = "ani1x + ani1ccx", or leave the limits out',
            )
        if "force_spread" in limits and not self.forces:
            raise ConfigError("forces = true for a limit on them", "forces = false", "leave forces out")
        if "training_distance" in limits and self.training is None:
            raise ConfigError(
                "a training set for a limit on the distance to it", "none", 'add training_set = "set.xyz"'
            )

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes written, by name of the file."""
        return {"to_label.xyz": int(self.facts["bytes"])} if self.facts["bytes"] else {}

    def resume(self, facts: Mapping[str, Any] | None, run: Path) -> None:
        """Take up the counts of a checkpoint and drop frames that were saved after it."""
        if facts:
            self.facts |= {key: facts[key] for key in ("flagged", "saved", "bytes") if key in facts}
        frames = run / "to_label.xyz"
        if frames.exists():
            with frames.open("r+b") as file:
                file.truncate(int(self.facts["bytes"]))

    def measure(self, positions: np.ndarray, box: np.ndarray | None) -> Uncertainty:
        """Of one frame: positions (N, 3) and box (3, 3), nm."""
        if self._native is None and self.hybrid.potential.spec.members > 1:
            self._native = member_evaluation(self.hybrid.system)
        return measure_uncertainty(
            self.hybrid, positions, box, forces=self.forces, training=self.training, native=self._native
        )

    def judge(
        self, found: Uncertainty, positions: np.ndarray, box: np.ndarray | None, where: str, run: Path
    ) -> str | None:
        """Act on a frame beyond a limit; returns why the run should stop, or None.

        Parameters
        ----------
        found : Uncertainty
        positions : ndarray, shape (N, 3), nm
        box : ndarray, shape (3, 3), nm, optional
        where : str
            Stage and step.
        run : Path
            The run directory.
        """
        row = found.row()
        # What is not a number is beyond every limit.
        beyond = {name: limit for name, limit in self.limits.by_column().items() if not row[name] <= limit}
        if not beyond:
            return None
        reason = "; ".join(
            f"{name.replace('_', ' ')} {row[name]:.3g} > {limit:.3g} {_UNITS[name]}".rstrip()
            + self._culprit(name, found)
            for name, limit in beyond.items()
        )
        self.facts["flagged"] += 1
        if self.facts["flagged"] <= _NAMED:
            logger.warning("%s: %s", where, reason)
        elif self.facts["flagged"] == _NAMED + 1:
            logger.warning("more frames beyond the limits: see uncertainty in run.json")
        if self.limits.action != "warn" and len(self.facts["saved"]) < self.limits.frames:
            self._save(found, positions, box, where, reason, run)
        return f"{reason} at {where}" if self.limits.action == "stop" else None

    def _culprit(self, name: str, found: Uncertainty) -> str:
        """The atom with the largest value, by name."""
        values = {
            "atom_spread": found.atoms,
            "force_spread": found.forces,
            "training_distance": found.distances,
        }.get(name)
        if values is None:
            return ""
        worst = int(np.argmax(values))
        if name != "force_spread":
            atoms = model_atoms(self.hybrid.spec)
            if len(atoms) != len(values):
                return ""
            worst = atoms[worst]
        return f" on {atom_labels(self.hybrid.built)(worst)}"

    def _save(
        self,
        found: Uncertainty,
        positions: np.ndarray,
        box: np.ndarray | None,
        where: str,
        reason: str,
        run: Path,
    ) -> None:
        """The zone's atoms to one extended xyz file, angstrom, each with the spread of its force."""
        gathered = self._images.gather(positions, box)
        weights = self.hybrid.zones.weights(*as_tensors(positions, box))
        sites = self.hybrid.built.virtual_sites
        atoms = [i for i in weights.nonzero().squeeze(1).tolist() if not sites[i]]
        symbols = [SYMBOLS[z] for z in atomic_numbers(self.hybrid.built, atoms)]
        columns = "species:S:1:pos:R:3" + (":force_spread:R:1" if found.forces is not None else "")
        text = [
            str(len(atoms)),
            f'Properties={columns} pbc="F F F" charge={self.hybrid.charge} frame="{where}" reason="{reason}"',
        ]
        for symbol, i in zip(symbols, atoms, strict=True):
            place = " ".join(f"{x / ANGSTROM:.6f}" for x in gathered[i])
            extra = f" {found.forces[i]:.4f}" if found.forces is not None else ""
            text.append(f"{symbol:2} {place}{extra}")
        path = run / "to_label.xyz"
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(text) + "\n")
            self.facts["bytes"] = file.tell()
        self.facts["saved"] = [*self.facts["saved"], {"frame": where, "reason": reason}]
