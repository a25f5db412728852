"""Which plateau and which width? The boundary error on the region for every pair of them, before any run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from mlmm.build import BuiltSystem
from mlmm.check_report import aligned
from mlmm.dynamics.options import RunOptions
from mlmm.dynamics.platforms import platform_arguments
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.term_catalogue import bonded_pairs
from mlmm.options import Quantity, with_changes
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.training import check_elements
from mlmm.units import parse
from mlmm.validation.boundary_error import Surroundings, seen_from
from mlmm.validation.options import ZoneScanOptions
from mlmm.zones.region import Region
from mlmm.zones.shapes import room_around
from mlmm.zones.static import static_zones

__all__ = ["ZoneChoice", "ZoneScan", "draw_frames", "scan_zones"]

logger = logging.getLogger(__name__)
_USED = ("timestep", "temperature", "seed", "platform", "threads")


@dataclass(frozen=True)
class ZoneChoice:
    """One pair of plateau and width out of a scan.

    Parameters
    ----------
    plateau, width : float
        nm.
    percent, standard_error : float
        Boundary error in per cent of the rms force on the region.
    active : int
        Atoms with lambda > 0.
    """

    plateau: float
    width: float
    percent: float
    standard_error: float
    active: int

    def toml(self) -> str:
        """The two lines for [zones] of a run file."""
        return f'plateau = "{self.plateau:g} nm"\nwidth = "{self.width:g} nm"'


@dataclass(frozen=True)
class ZoneScan:
    """Boundary error and size of static zones by plateau (P of them) and width (W); prints as a table.

    A zone that would meet its own periodic image has no atoms here, and no error (NaN).

    Parameters
    ----------
    plateaus, widths : ndarray, shapes (P,), (W,)
        nm.
    percent : ndarray, shape (F, P, W)
        For each frame, rms error of the forces on the region in per cent of their rms value with the
        potential on all atoms.
    largest : ndarray, shape (P, W)
        Largest error of one atom in any frame, kJ/mol/nm.
    active : ndarray, shape (P, W)
        Atoms with lambda > 0, whose energies are wanted.
    inputs : ndarray, shape (P, W)
        Atoms that the potential is given: those and all visible ones within its receptive field.
    cost : ndarray, shape (P, W)
        Milliseconds per energy and force of the blend, in proportion to `active`, from the time that the scan
        itself needed on this machine with this precision.
    region : int
        Atoms of the region.
    snap : str
    force : float
        rms force on the region with the potential on all atoms, mean over frames, kJ/mol/nm.
    label : str
        What was scanned, for the picture.
    room : float
        Largest plateau + width before a zone meets its own periodic image, nm.
    """

    plateaus: np.ndarray
    widths: np.ndarray
    percent: np.ndarray
    largest: np.ndarray
    active: np.ndarray
    inputs: np.ndarray
    cost: np.ndarray
    region: int
    snap: str
    force: float
    label: str = ""
    room: float = np.inf

    @property
    def possible(self) -> np.ndarray:
        """Which zones fit into the box, (P, W)."""
        return self.active > 0

    @property
    def mean(self) -> np.ndarray:
        """Mean of `percent` over the frames, (P, W)."""
        return self.percent.mean(axis=0)

    @property
    def standard_error(self) -> np.ndarray:
        """Of `mean`, (P, W); NaN for one frame. Frames of one short run are alike: a lower bound."""
        n = len(self.percent)
        if n < 2:
            return np.full(self.active.shape, np.nan)
        return self.percent.std(axis=0, ddof=1) / np.sqrt(n)

    def choice(self, p: int, w: int) -> ZoneChoice:
        """The pair at places `p` and `w`."""
        return ZoneChoice(
            float(self.plateaus[p]),
            float(self.widths[w]),
            float(self.mean[p, w]),
            float(self.standard_error[p, w]),
            int(self.active[p, w]),
        )

    def recommend(self, target_percent: float = 5.0) -> ZoneChoice | None:
        """The cheapest zone whose error lies below a target: fewest atoms with lambda > 0, then least error.

        Parameters
        ----------
        target_percent : float
            Of the rms force on the region.

        Returns
        -------
        ZoneChoice or None
            None if no zone of the scan reaches the target.
        """
        places = [tuple(place) for place in np.argwhere(self.mean < target_percent)]
        if not places:
            return None
        return self.choice(*min(places, key=lambda place: (self.active[place], self.mean[place], place)))

    def best(self) -> ZoneChoice:
        """The zone with the smallest error, the cheapest among equals."""
        places = [tuple(place) for place in np.argwhere(self.possible)]
        return self.choice(*min(places, key=lambda place: (self.mean[place], self.active[place])))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("plateau", "width", "error / %", "largest", "S", "input", "ms")]
        for p, w in np.ndindex(self.active.shape):
            lengths = (f"{self.plateaus[p]:g} nm", f"{self.widths[w]:g} nm")
            if not self.possible[p, w]:
                rows.append((*lengths, *"–––––"))
                continue
            error = f"{self.mean[p, w]:.2f}"
            if len(self.percent) > 1:
                error += f" ± {self.standard_error[p, w]:.2f}"
            sizes = (self.active[p, w], self.inputs[p, w])
            rows.append(
                (
                    *lengths,
                    error,
                    f"{self.largest[p, w]:.0f}",
                    *(str(n) for n in sizes),
                    f"{self.cost[p, w]:.0f}",
                )
            )
        note = (
            f"error of the forces on {self.region} atoms in % of their rms force "
            f"({self.force:.0f} kJ/mol/nm), {len(self.percent)} frames; largest error of one atom in "
            "kJ/mol/nm;\nS: atoms with lambda > 0; input: atoms that the potential is given; ms: estimated "
            "time of one force evaluation"
        )
        if not self.possible.all():
            note += (
                f"\n–: plateau + width above {self.room:.3g} nm, where the zone meets its own periodic image"
            )
        return aligned(rows, left=2) + "\n" + note


def scan_zones(
    built: BuiltSystem,
    region: Region,
    potential: PotentialModel,
    frames: Sequence[np.ndarray] | None = None,
    options: ZoneScanOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> ZoneScan:
    """Boundary error on the region for static zones of every plateau and width, scheme ``per_atom``.

    The potential is evaluated once per frame on all atoms that the region depends on; each zone takes one
    backward pass more. Zones are made from the built structure, as for a run, and frames measured with them;
    a zone that would meet its own periodic image is left out.

    Parameters
    ----------
    built : BuiltSystem
        With flexible molecules, as scheme ``per_atom`` needs.
    region : Region
        The atoms that matter: their forces are compared.
    potential : PotentialModel
        Best in float64.
    frames : sequence of ndarray, shape (N, 3), nm, optional
        See `draw_frames`; the built structure alone by default, which is often strained.
    options : ZoneScanOptions, optional
        Plateaus, widths, snap.
    progress : callable, optional
        Called with a line of text from time to time.
    **changes
        Fields of `options`, such as ``plateaus=("0.2 nm", "0.3 nm")``.

    Raises
    ------
    ConfigError
        No plateau, width or frame, bad zones, or none that fits into the box.
    EmbeddingError
        Constraints without bond terms on atoms that would be in a zone.
    PotentialError
        An element in a zone that the potential does not know.
    """
    progress = progress or (lambda text: None)
    frames = [np.asarray(built.positions)] if frames is None else [np.asarray(frame) for frame in frames]
    options = with_changes(ZoneScanOptions, options, changes)
    reach, depth = np.array(sorted(set(options.plateaus))), np.array(sorted(set(options.widths)))
    if not frames or not len(reach) or not len(depth):
        raise ConfigError(
            "at least one plateau, one width and one frame",
            f"{len(reach)}, {len(depth)} and {len(frames)}",
            "give at least one of each",
        )
    shape = (len(reach), len(depth))
    cell = torch.tensor(built.box_vectors) if built.periodic else None
    room = room_around(torch.tensor(built.positions), cell, region.atoms)
    # The first one is made in any case: if not even that fits, its message says why.
    grid = {
        place: static_zones(built, region, float(reach[place[0]]), float(depth[place[1]]), options.snap)
        for place in np.ndindex(shape)
        if place == (0, 0) or reach[place[0]] + depth[place[1]] <= room
    }
    _check_zones(built, potential, [zones.active for zones in grid.values()])
    unused = torch.zeros(1, 3, dtype=torch.float64)
    weights = {place: zones.weights(unused).numpy() for place, zones in grid.items()}
    active, inputs = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
    seen = seen_from(built, potential, [zones.active for zones in grid.values()])
    for (place, zones), atoms in zip(grid.items(), seen, strict=True):
        active[place], inputs[place] = len(zones.active), len(atoms)
    surroundings = Surroundings(built, region.atoms, potential, frames, keep=options.keep)
    near = list(surroundings.wide)
    percent = np.full((len(frames), *shape), np.nan)
    largest = np.where(active > 0, 0.0, np.nan)
    force = []
    for f, frame in enumerate(frames):
        progress(f"frame {f + 1} of {len(frames)}: {len(near)} atoms in {potential.spec.name}")
        field = surroundings.at(frame)
        force.append(np.sqrt(np.mean(field.forces**2)))
        known: dict[bytes, Any] = {}
        for place in grid:
            # Zones that differ only where nothing depends on it have one error.
            key = weights[place][near].tobytes()
            if key not in known:
                known[key] = field.error(weights[place])
            percent[(f, *place)] = known[key].percent
            largest[place] = max(largest[place], known[key].largest)
    milliseconds = np.where(active > 0, 1000.0 * surroundings.seconds / len(near) * active, np.nan)
    label = f"{region.label}, {potential.spec.name}"
    return ZoneScan(
        reach,
        depth,
        percent,
        largest,
        active,
        inputs,
        milliseconds,
        len(region),
        options.snap,
        float(np.mean(force)),
        label,
        room,
    )


def draw_frames(
    built: BuiltSystem,
    n_frames: int = 5,
    run: RunOptions | None = None,
    *,
    length: Quantity = "0.5 ps",
    **changes: Any,
) -> list[np.ndarray]:
    """Structures of a short run of the pure force field: minimised, Langevin, the second half of the run.

    Parameters
    ----------
    built : BuiltSystem
    n_frames : int
        At equal intervals; the last one is the end of the run.
    run : RunOptions, optional
        Time step, temperature, seed, platform and threads are used.
    length : str or float
        ps.
    **changes
        Fields of `run` that are used, such as ``seed=1``.

    Returns
    -------
    list of ndarray, shape (N, 3), nm

    Raises
    ------
    ConfigError
        No frame, or more frames than half the run has steps.
    """
    run = with_changes(RunOptions, run, changes, _USED)
    half = round(parse(length, "time", "length") / run.timestep / 2)
    if not 1 <= n_frames <= half:
        raise ConfigError(f"1 to {half} frames", str(n_frames), "ask for another number, or a longer run")
    # Strong friction: half a run of 0.5 ps must take up the heat that the minimised bonds lack.
    integrator = openmm.LangevinMiddleIntegrator(run.temperature, 20.0, run.timestep)
    integrator.setRandomNumberSeed(run.seed + 1)
    context = openmm.Context(built.system, integrator, *platform_arguments(run.platform, run.threads))
    context.setPositions(built.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(run.temperature, run.seed + 1)
    integrator.step(half)
    frames = []
    for k in range(n_frames):
        integrator.step(half * (k + 1) // n_frames - half * k // n_frames)
        positions = context.getState(positions=True).getPositions(asNumpy=True)
        frames.append(np.array(positions.value_in_unit(unit.nanometer)))
    return frames


def _check_zones(built: BuiltSystem, potential: PotentialModel, zones: list[tuple[int, ...]]) -> None:
    """Elements and constraints of all atoms that may get a weight."""
    atoms = set().union(*zones)
    check_elements(potential.spec, [int(built.numbers[i]) for i in atoms])
    springs = bonded_pairs(built.system)
    for i in range(built.system.getNumConstraints()):
        pair = built.system.getConstraintParameters(i)[:2]
        if atoms.intersection(pair) and frozenset(pair) not in springs:
            raise EmbeddingError(
                "flexible molecules in the zones of a scan (scheme 'per_atom')",
                f"a constraint without a bond term between atoms {pair[0]} and {pair[1]}",
                'build with constraints = "none" and rigid_water = false',
            )
