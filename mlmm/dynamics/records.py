"""What a run records about itself: facts for the report, structures, timing, the log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app

from mlmm.dynamics.frames import as_tensors
from mlmm.dynamics.lambda_histogram import lambda_histogram
from mlmm.dynamics.reporters import degrees_of_freedom
from mlmm.dynamics.run_directory import timestamp, versions
from mlmm.dynamics.stages import Dynamics
from mlmm.errors import SelectionError
from mlmm.hybrid.system import HybridSystem
from mlmm.units import NANOSECOND
from mlmm.zones.region import select_atoms

__all__ = [
    "distance_facts",
    "embedding_facts",
    "log_to",
    "measure_timing",
    "muted",
    "run_facts",
    "write_pdb",
]


def run_facts(hybrid: HybridSystem, plan: list[dict[str, Any]], seed: int, title: str) -> dict[str, Any]:
    """What the report states about the run, apart from its results."""
    built, region, spec = hybrid.built, hybrid.zones.region, hybrid.potential.spec
    return {
        "title": title,
        "created": timestamp(),
        "versions": versions(),
        "seed": seed,
        "plan": plan,
        "system": {
            "atoms": built.n_atoms,
            "residues": built.topology.getNumResidues(),
            "periodic": built.periodic,
            "box_nm": None if built.box_vectors is None else built.box_vectors.tolist(),
            "constraints": hybrid.system.getNumConstraints(),
            "degrees_of_freedom": degrees_of_freedom(hybrid.system),
            **_mass_facts(hybrid),
            "provenance": built.provenance,
        },
        "region": {
            "selection": region.selection,
            "atoms": list(region.atoms),
            "residues": list(region.residues),
            "notes": list(region.notes),
            "charge": hybrid.charge,
            "outside_training": list(hybrid.outside_training),
        },
        "zones": hybrid.zone_counts(),
        "zone_setup": dict(hybrid.zones.setup),
        "zone_notes": list(hybrid.zones.notes),
        "histogram": _histogram_facts(hybrid),
        "potential": {
            "name": spec.name,
            "members": spec.members,
            "level_of_theory": spec.level_of_theory,
            "citation": spec.citation,
            "licence": spec.licence,
            "precision": spec.precision,
            "polarisation_scaling": spec.polarisation_scaling if spec.external == "charges" else None,
            # Other potentials than ANI, field-aware ANI and AMP-BMS have one way only.
            "kernel": getattr(hybrid.potential, "kernel", "torch"),
        },
        "embedding": {
            **embedding_facts(hybrid),
            "scheme_reason": hybrid.spec.scheme_reason,
            "bridge": hybrid.bridge,
            "removed": hybrid.removed.counts,
        },
        "variables": [
            {"name": v.name, "kind": v.kind, "unit": v.unit, "groups": [list(group) for group in v.groups]}
            for v in hybrid.biases.variables
        ],
        "restraints": [restraint.facts() for restraint in hybrid.biases],
        "stages": [],
        "timing": None,
        "drift": None,
        "warnings": list(hybrid.warnings),
    }


def distance_facts(hybrid: HybridSystem, asked: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Atoms of the distances that the report follows, by name: {"selections": [a, b], "atoms": [[…], […]]}.

    Parameters
    ----------
    hybrid : HybridSystem
    asked : mapping of str to (str, str)
        Two selections for each.

    Raises
    ------
    SelectionError
        A selection that is not understood or matches nothing.
    """
    found = {}
    for name, selections in asked.items():
        try:
            atoms = [select_atoms(hybrid.built, selection) for selection in selections]
        except SelectionError as error:
            raise SelectionError(f"{error.expected} for distance {name!r}", error.got, error.do) from error
        found[name] = {"selections": list(selections), "atoms": atoms}
    return found


def _mass_facts(hybrid: HybridSystem) -> dict[str, float]:
    """Mass of everything, amu, and the part of it that is water: what a density is made of."""
    total = water = 0.0
    for residue in hybrid.built.topology.residues():
        elements = [atom.element for atom in residue.atoms() if atom.element is not None]
        mass = sum(element.mass._value for element in elements)
        total += mass
        if sorted(element.symbol for element in elements) == ["H", "H", "O"]:
            water += mass
    return {"mass_amu": total, "water_mass_fraction": water / total if total else 0.0}


def embedding_facts(hybrid: HybridSystem) -> dict[str, Any]:
    """What decides the energy besides zones and potential: a run is resumed with the same."""
    spec, compensation = hybrid.spec, hybrid.spec.compensation
    medium = spec.electrostatics == "embedded" and spec.far_field == "reaction_field"
    facts: dict[str, Any] = {
        "scheme": hybrid.scheme,
        "mm_side": hybrid.mm_side,
        "mm_tail": spec.mm_tail,
        "compensation": None,
        "electrostatics": spec.electrostatics,
        "charge_range": spec.charge_range if spec.electrostatics == "charges" else None,
        "charge_width": spec.charge_width if spec.electrostatics == "embedded" else None,
        "far_field": spec.far_field if spec.electrostatics == "embedded" else None,
        "far_permittivity": spec.far_permittivity if medium else None,
        "reference_charges": {str(atom): charge for atom, charge in spec.reference_charges.items()},
    }
    if compensation is not None:
        facts["compensation"] = {
            "mode": str(compensation.facts.get("mode", "unknown")),
            "alignment": {kind: float(value) for kind, value in compensation.alignment.items()},
            "knots": [float(knot) for knot in compensation.knots],
            "values": {kind: [float(v) for v in row] for kind, row in compensation.values.items()},
        }
    return facts


def _histogram_facts(hybrid: HybridSystem) -> dict[str, Any] | None:
    """Atoms and mean Delta by lambda in the built structure; None for a hard boundary."""
    if hybrid.zones.hard:
        return None
    histogram = lambda_histogram(hybrid)
    columns = {name: getattr(histogram, name) for name in ("edges", "atoms", "residues", "mean", "deviation")}
    return {
        name: [None if np.isnan(value) else value for value in column.tolist()]
        for name, column in columns.items()
    }


def write_pdb(path: Path, hybrid: HybridSystem, positions: np.ndarray, box: np.ndarray | None) -> None:
    """A PDB file with lambda of each atom in the B-factor column; that of a moving zone as it is here.

    Where names and numbers of the structure do not fit a PDB file, mmCIF stands beside it with all of them.

    Parameters
    ----------
    path : Path
    hybrid : HybridSystem
    positions : ndarray, shape (N, 3), nm
    box : ndarray, shape (3, 3), nm, optional
    """
    import mdtraj

    topology = mdtraj.Topology.from_openmm(hybrid.built.topology)
    frame = mdtraj.Trajectory(positions[None].astype(np.float32), topology)
    if box is not None:
        frame.unitcell_vectors = box[None].astype(np.float32)
    weights = hybrid.zones.weights(*as_tensors(positions, box)).numpy()
    frame.save_pdb(str(path), bfactors=weights)
    _keep_insertion_codes(path, hybrid.built.topology)
    if not _fits_pdb(hybrid.built.topology):
        where = openmm.unit.Quantity(positions, openmm.unit.nanometer)
        with open(path.with_suffix(".cif"), "w", encoding="utf-8") as file:
            app.PDBxFile.writeFile(hybrid.built.topology, where, file, keepIds=True)


def _keep_insertion_codes(path: Path, topology: app.Topology) -> None:
    """Write the insertion codes, which mdtraj does not know, into column 27 of the lines of atoms."""
    codes = [atom.residue.insertionCode.strip() for atom in topology.atoms()]
    if not any(codes):
        return
    lines, rest = path.read_text(encoding="utf-8").splitlines(keepends=True), iter(codes)
    for k, line in enumerate(lines):
        if line.startswith(("ATOM", "HETATM")):
            lines[k] = line[:26] + f"{next(rest):1.1s}" + line[27:]
    path.write_text("".join(lines), encoding="utf-8")


def _fits_pdb(topology: app.Topology) -> bool:
    """Whether chains, residues and atoms keep their ids in fixed columns; water is counted, not named."""
    return all(
        len(residue.chain.id) <= 1
        and len(residue.name) <= 3
        and len(residue.id) <= 4
        and len(residue.insertionCode) <= 1
        and all(len(atom.name) <= 4 for atom in residue.atoms())
        for residue in topology.residues()
        if residue.name != "HOH"
    )


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Everything the package logs also goes to the run's own log."""
    handler = logging.FileHandler(path)
    complain = handler.handleError

    def quiet(record: logging.LogRecord) -> None:
        # On a full disk the run ends with its own error, not with one of the log.
        if not isinstance(sys.exc_info()[1], OSError):
            complain(record)

    handler.handleError = quiet  # type: ignore[method-assign]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package = logging.getLogger("mlmm")
    level = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.setLevel(level)
        package.removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def muted(name: str) -> Iterator[None]:
    """Keep what one logger says off the terminal, as long as this lasts.

    Parameters
    ----------
    name : str
        Of the logger, such as "mlmm.hybrid.system".
    """

    def others(record: logging.LogRecord) -> bool:
        return record.name != name

    handlers = list(logging.getLogger("mlmm").handlers)
    for handler in handlers:
        handler.addFilter(others)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(others)


def measure_timing(
    hybrid: HybridSystem, stage: Dynamics, context: openmm.Context, seconds: float
) -> dict[str, float]:
    """Milliseconds per step, and of one force evaluation of either side (the shortest of seven)."""
    ml = 1 << hybrid.force_groups["ml"]
    measured = {}
    for name, groups in (("ml_ms", ml), ("mm_ms", 0xFFFFFFFF ^ ml)):
        times = []
        for _ in range(7):
            started = time.perf_counter()
            context.getState(forces=True, groups=groups)
            times.append(1e3 * (time.perf_counter() - started))
        measured[name] = min(times)
    per_step = seconds / stage.steps
    return measured | {
        "ms_per_step": 1e3 * per_step,
        "ns_per_day": stage.step_length / NANOSECOND * 86400 / per_step,
    }
