"""Which scheme does least harm to the atoms that matter? Force errors at an equal number of atoms.

Every scheme gets the same set S of atoms with lambda > 0. Its forces come from the hybrid system that a run
would use, and are compared with F(lambda = 1 everywhere): the potential on all atoms, with the force field's
tail beyond its range.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mlmm.build import BuiltSystem
from mlmm.check_report import aligned
from mlmm.errors import ConfigError, EmbeddingError
from mlmm.forcefield.reference_platform import forces_of, reference_context
from mlmm.hybrid.rules import choose_scheme
from mlmm.hybrid.system import hybrid_system
from mlmm.potentials.base import PotentialModel
from mlmm.units import parse
from mlmm.validation.boundary_error import Surroundings, seen_from
from mlmm.zones.region import Region
from mlmm.zones.static import ZonePartition, static_zones

__all__ = ["SchemeComparison", "SchemeError", "compare_schemes"]


@dataclass(frozen=True)
class SchemeError:
    """Error of the forces on the region under one scheme.

    Parameters
    ----------
    name : str
    errors : ndarray, shape (F, n, 3), kJ/mol/nm
        Force minus the one with the potential on all atoms, by frame; no frames where it is refused.
    percent : ndarray, shape (F,)
        rms over the components, in per cent of the rms force of the frame.
    active : int
        Atoms with lambda > 0.
    inputs : int
        Atoms that the potential is given, in its largest pass, in the built structure; caps included.
    passes : int
        Evaluations of the potential for one force.
    cut_bonds : int
        Bonds whose ends have different lambda.
    refused : str
        Why this scheme cannot be had here; empty if it can.
    """

    name: str
    errors: np.ndarray
    percent: np.ndarray
    active: int
    inputs: int
    passes: int
    cut_bonds: int
    refused: str = ""

    @property
    def mean(self) -> float:
        """Mean of `percent` over the frames; NaN if refused."""
        return float(self.percent.mean()) if len(self.percent) else float("nan")

    @property
    def standard_error(self) -> float:
        """Of `mean`; NaN for one frame. Frames of one short run are alike: a lower bound."""
        n = len(self.percent)
        return float(self.percent.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")

    @property
    def largest(self) -> float:
        """Largest error of one atom in any frame, kJ/mol/nm; NaN if refused."""
        return float(np.linalg.norm(self.errors, axis=2).max()) if len(self.errors) else float("nan")


@dataclass(frozen=True)
class SchemeComparison:
    """All schemes on one set S of atoms; prints as a table.

    Parameters
    ----------
    plateau : float
        S holds what a plateau of this width around the region takes in, nm.
    schemes : tuple of SchemeError
    region : int
        Atoms of the region.
    capped : int
        Atoms of the region that are ends of a cut bond: on those alone `supermolecular` has an error.
    force : float
        rms force on the region with the potential on all atoms, mean over frames, kJ/mol/nm.
    frames : int
    label : str
        Region and potential.
    notes : tuple of str
        What a hybrid system of these atoms warns of.
    """

    plateau: float
    schemes: tuple[SchemeError, ...]
    region: int
    capped: int
    force: float
    frames: int
    label: str = ""
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> SchemeError:
        """The row of that name."""
        return next(row for row in self.schemes if row.name == name)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("scheme", "error / %", "largest", "S", "input", "passes", "cut bonds")
        ]
        for row in self.schemes:
            error, largest = "refused", "–"
            if not row.refused:
                error, largest = _two_digits(row.mean), _two_digits(row.largest)
                if self.frames > 1:
                    error += f" ± {_two_digits(row.standard_error)}"
            sizes = (row.active, row.inputs, row.passes, row.cut_bonds)
            rows.append((row.name, error, largest, *map(str, sizes)))
        note = (
            f"{self.label}: error of the forces on its {self.region} atoms in % of their rms force "
            f"({self.force:.0f} kJ/mol/nm), {self.frames} frames;\nlargest error of one atom in kJ/mol/nm; "
            "S: atoms with lambda > 0; input: atoms that the potential is given in its largest pass"
        )
        if self.capped:
            note += (
                f"\n{self.capped} atoms of the region end a cut bond: 'supermolecular' is exact on the others"
            )
        reasons = [f"{row.name}: {row.refused}" for row in self.schemes if row.refused]
        lines = (f"plateau {self.plateau:g} nm", aligned(rows), note, *reasons, *self.notes)
        return "\n".join(lines)


def _two_digits(value: float) -> str:
    """Two significant digits."""
    if value == 0 or 0.095 <= value < 9.95:
        return f"{value:.2f}" if value < 0.95 else f"{value:.1f}"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1g}"


def compare_schemes(
    built: BuiltSystem,
    region: Region,
    potential: PotentialModel,
    frames: Sequence[np.ndarray] | None = None,
    plateau: str | float = "0.3 nm",
    snap: str = "residue",
    *,
    keep: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> SchemeComparison:
    """Force error on the region under each scheme, all with the same atoms in the potential.

    S are the atoms of a plateau R around the region, snapped. On S:

    - ``per_atom`` with lambda = 1 on all of it; with a plateau of R/2 and a zone of R/2; with a zone of R and
      no plateau at all;
    - ``supermolecular``;
    - ``additive`` with caps on cut bonds, its own pairs beyond the potential's range left to the force field
      (`mm_tail`), or without them: mechanical embedding, as OpenMM-ML does it.

    Parameters
    ----------
    built : BuiltSystem
        With flexible molecules.
    region : Region
        The atoms that matter.
    potential : PotentialModel
        With per-atom energies, best in float64.
    frames : sequence of ndarray, shape (N, 3), nm, optional
        See `mlmm.draw_frames`; the built structure alone by default, which is often strained.
    plateau : str or float
        R, nm.
    snap : {"residue", "molecule", "fragment", "hydrogen", "atom"}
        See `static_zones`.
    keep : collection of str
        See `hybrid_system`.
    progress : callable, optional
        Called with a line of text from time to time.

    Raises
    ------
    ConfigError
        No frame, no plateau, or one that does not fit into the box.
    EmbeddingError
        A potential without energies per atom, or one not trained on total energies: its force on all atoms
        is no reference.
    """
    progress = progress or (lambda text: None)
    frames = [np.asarray(built.positions)] if frames is None else [np.asarray(frame) for frame in frames]
    reach = parse(plateau, "length", "plateau")
    if not frames or reach <= 0:
        raise ConfigError(
            "at least one frame and a plateau above 0 nm",
            f"{len(frames)} and {reach:g} nm",
            'give frames, and a plateau such as "0.3 nm"',
        )
    hard = static_zones(built, region, reach, 0.0, snap)
    choose_scheme("per_atom", hard, potential.spec)
    half = static_zones(built, region, reach / 2, reach / 2, snap)
    wide = static_zones(built, region, 0.0, reach, snap)
    plans: list[tuple[str, ZonePartition, dict]] = [
        ("per_atom, all plateau", hard, {"scheme": "per_atom"}),
        ("per_atom, half plateau, half zone", half, {"scheme": "per_atom"}),
        ("per_atom, all zone", wide, {"scheme": "per_atom"}),
        ("supermolecular", hard, {"scheme": "supermolecular"}),
        ("additive with caps and tail", hard, {"scheme": "additive", "mm_tail": True}),
        ("additive (mechanical)", hard, {"scheme": "additive"}),
    ]
    progress(f"potential on all atoms, {len(frames)} frames")
    surroundings = Surroundings(built, region.atoms, potential, frames, keep=keep)
    exact = np.array([surroundings.at(frame).forces for frame in frames])
    force = np.sqrt(np.mean(exact**2, axis=(1, 2)))
    rows: list[SchemeError] = []
    notes: tuple[str, ...] = ()
    for name, zones, options in plans:
        progress(f"{name}: {len(zones.active)} atoms")
        errors, refused = np.zeros((0, *exact.shape[1:])), ""
        try:
            # For a few frames, the compilation of a TorchForce takes longer than it saves.
            hybrid = hybrid_system(built, zones, potential, bridge="pythonforce", keep=keep, **options)
        except EmbeddingError as error:
            # One scheme may be impossible where the others are not, as a cap on a charged group.
            refused = str(error)
        else:
            zones, notes = hybrid.zones, notes or hybrid.warnings
            context = reference_context(hybrid.system)
            forces = [forces_of(context, frame)[list(region.atoms)] for frame in frames]
            errors = np.array(forces) - exact
        percent = 100.0 * np.sqrt(np.mean(errors**2, axis=(1, 2))) / force[: len(errors)]
        sizes = (len(zones.active), *_work(built, potential, zones, options), len(zones.cut_bonds))
        rows.append(SchemeError(name, errors, percent, *sizes, refused))
    ends = {atom for bond in hard.cut_bonds for atom in bond}
    return SchemeComparison(
        reach,
        tuple(rows),
        len(region),
        len(ends.intersection(region.atoms)),
        float(np.mean(force)),
        len(frames),
        f"{region.label}, {potential.spec.name}",
        notes,
    )


def _work(
    built: BuiltSystem, potential: PotentialModel, zones: ZonePartition, options: dict
) -> tuple[int, int]:
    """Atoms of the largest pass, and number of passes."""
    if options["scheme"] == "additive":
        return len(zones.active) + len(zones.cut_bonds), 1
    (seen,) = seen_from(built, potential, [zones.active])
    if options["scheme"] == "per_atom":
        return len(seen), 1
    # All whose energy changes when S goes are evaluated, and these see as far again.
    (seen,) = seen_from(built, potential, [seen])
    return len(seen), 2
