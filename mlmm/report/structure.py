"""The structure of the report's 3-D view: how a run ended, thinned, and the frames before it."""

from __future__ import annotations

import logging
import pathlib
import tempfile
from typing import Any

import numpy as np

from mlmm.report.pdb_file import load_pdb
from mlmm.report.player import packed_frames
from mlmm.report.structure_series import Frames
from mlmm.report.text import as_float, as_list, look_up

logger = logging.getLogger(__name__)

#: Residues with an atom this close to the region (nm) are drawn atom by atom, and only such waters are drawn.
_NEAR = 0.5
#: Atoms of polymers above which side chains far from the region are left out.
_MANY = 25_000
_BROKEN_OFF = "the last finite frame"
#: What an atom of the 3-D view may be; an atom may have several roles.
_ROLES = ("ml", "transition", "near", "polymer", "other", "water", "ions")


def structure_view(
    directory: pathlib.Path, run: dict[str, Any], frames: Frames | None, notes: list[str]
) -> dict[str, Any] | None:
    """Thin the last structure to what the 3-D view draws, with frames to play; None, with a note, if none.

    Parameters
    ----------
    directory : Path
    run : dict
        Contents of ``run.json``.
    frames : Frames or None
    notes : list of str
        What a reader has to know about what is missing is added.
    """
    path, source = last_structure(directory, run)
    if path is None:
        notes.append("topology.pdb is missing: there is no 3-D view.")
        return None
    region = as_list(look_up(run, "region", "atoms"))
    try:
        frame = load_pdb(path)[0]
        weights = read_weights(path, frame.n_atoms, region)
        fits = frames is not None and frame.n_atoms == len(frames.start.positions)
        playing = frames.trajectory if frames is not None and fits else None
        if playing and run.get("state") not in ("finished", "interrupted") and source != _BROKEN_OFF:
            # final.pdb is written at the end of a stage: of a run that was killed, the last frame is later.
            positions, box = playing[len(playing) - 1]
            frame.xyz[0] = positions
            if box is not None:
                frame.unitcell_vectors = box[None].astype(np.float32)
            source = "the last frame of the trajectory"
        if frames is not None and fits:
            cell = frame.unitcell_vectors
            box = None if cell is None else cell[0].astype(np.float64)
            frame.xyz[0] = frames.superposition.place(frame.xyz[0].astype(np.float64), box)
        view, kept = thinned(frame, weights)
        played = packed_frames(frames if fits else None, np.array(kept, dtype=int), region)
        return {**view, "source": source, "played": played}
    # mdtraj reports damaged files with whatever its parsers raise; a picture is no reason to lose the page.
    except Exception as problem:
        logger.warning("no 3-D view: %s", problem)
        notes.append(f"{path.name} could not be drawn ({problem}): there is no 3-D view.")
        return None


def last_structure(directory: pathlib.Path, run: dict[str, Any]) -> tuple[pathlib.Path | None, str]:
    """The structure file that shows how a run ended, and what it is in words."""
    broken = directory / "last_finite_frame.pdb"
    if run.get("state") == "failed" and broken.is_file():
        return broken, _BROKEN_OFF
    for name, source in (("final.pdb", "the last frame"), ("topology.pdb", "the starting structure")):
        if (directory / name).is_file():
            return directory / name, source
    return None, ""


def read_weights(path: pathlib.Path, n_atoms: int, region_atoms: list) -> np.ndarray:
    """ML weight of each atom (n_atoms,) from the B-factor column, or 1 for the atoms of the region."""
    column: list[float] = []
    if path.is_file():
        lines = path.read_text(encoding="utf-8").split("\nENDMDL")[0].splitlines()
        column = [as_float(line[60:66]) for line in lines if line.startswith(("ATOM", "HETATM"))]
    if n_atoms and len(column) == n_atoms and np.nanmax(column) > 0:
        return np.nan_to_num(np.array(column)).clip(0.0, 1.0)
    weights = np.zeros(n_atoms)
    weights[[atom for atom in region_atoms if type(atom) is int and 0 <= atom < n_atoms]] = 1.0
    return weights


def thinned(frame: Any, weights: np.ndarray) -> tuple[dict[str, Any], list[int]]:
    """Choose the atoms to draw and sort them into roles, which count the atoms of the thinned PDB text.

    Returns
    -------
    view : dict
    kept : list of int
        The atoms that are drawn.
    """
    import mdtraj

    topology = frame.topology
    region = np.flatnonzero(weights > 0)
    near = mdtraj.compute_neighbors(frame, _NEAR, region, periodic=False)[0] if region.size else []
    near_residues = {topology.atom(i).residue.index for i in [*near, *region]}
    pairs = [pair for bond in topology.bonds for pair in ((bond[0], bond[1]), (bond[1], bond[0]))]
    on_carbon = {atom.index for atom, partner in pairs if partner.element.symbol == "C"}
    solvent = [residue.is_water or residue.n_atoms == 1 for residue in topology.residues]
    small = solvent.count(False) < 5
    polymers = sum(r.n_atoms for r in topology.residues if r.is_protein or r.is_nucleic)
    bare = polymers > _MANY
    roles: dict[str, list[int]] = {name: [] for name in _ROLES}
    kept: list[int] = []
    for atom in topology.atoms:
        residue, hydrogen = atom.residue, atom.element.symbol == "H"
        close, polymer = residue.index in near_residues, residue.is_protein or residue.is_nucleic
        if weights[atom.index] == 0:
            if solvent[residue.index] and not close:
                continue
            # Far hydrogens show nothing in a cartoon; those on carbon only hide the neighbours of the region.
            in_the_way = hydrogen and (not close or atom.index in on_carbon)
            if in_the_way and not small and not solvent[residue.index]:
                continue
            if bare and polymer and not close and not atom.is_backbone and residue.is_protein:
                continue
        index = len(kept)
        kept.append(atom.index)
        if residue.is_water:
            roles["water"].append(index)
        elif solvent[residue.index]:
            roles["ions"].append(index)
        else:
            roles["polymer" if polymer else "other"].append(index)
            if close and polymer:
                roles["near"].append(index)
        if weights[atom.index] > 0:
            roles["ml" if weights[atom.index] > 0.995 else "transition"].append(index)
    lit = [kept[index] for index in roles["ml"] + roles["transition"]]
    part = frame.atom_slice(kept)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "part.pdb"
        part.save_pdb(str(path), bfactors=weights[kept])
        text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    cartoon = not small and bool(roles["polymer"])
    counts = {"atoms": frame.n_atoms, "drawn": len(kept)}
    place = {atom: index for index, atom in enumerate(kept)}
    focus = [place[atom] for atom in _together(frame.xyz[0], lit)]
    return {
        "pdb": text,
        "focus": focus,
        "small": small,
        "cartoon": cartoon,
        "bare": bare,
        **counts,
        **roles,
    }, kept


def _together(positions: np.ndarray, atoms: list[int]) -> list[int]:
    """Atoms without those that flew away, which would make the rest a dot."""
    if not atoms:
        return atoms
    distances = np.linalg.norm(positions[atoms] - np.median(positions[atoms], axis=0), axis=1)
    limit = 3.0 * np.median(distances) + _NEAR
    return [atom for atom, distance in zip(atoms, distances, strict=True) if distance <= limit]


def viewer_texts(view: dict[str, Any] | None) -> dict[str, Any]:
    """Label, message, caption and legend (swatch, words) of the 3-D view."""
    if view is None:
        message = "There is no structure to show."
        return {"label": message, "message": message, "caption": "", "legend": []}
    count = len(view["ml"]) + len(view["transition"])
    label = (
        f"3-D structure, {view['source']}: {count:,} atoms of the region highlighted among {view['atoms']:,}"
    )
    caption = f"Drawn from {view['source']}: {view['drawn']:,} of {view['atoms']:,} atoms. "
    if not view["small"]:
        caption += f"Within {_NEAR} nm of the region residues are shown in full, less hydrogens on carbon; "
        caption += "waters and ions are shown only there. "
    if view["bare"]:
        caption += "Side chains farther away are left out. "
    if view["played"]:
        played = view["played"]
        caption += f"Played: {len(played['numbers'])} of {played['of']:,} frames of the production, laid on "
        caption += "the starting structure, then the view's own. "
    region = set(view["ml"]) | set(view["transition"])
    legend = []
    for role, swatch, name in (
        ("ml", "ml", "ML region"),
        ("transition", "transition", "partly ML, by λ"),
        ("near", "mm", "MM residues near the region"),
        ("other", "other", "other MM molecules"),
        ("water", "solvent", "water near the region"),
        ("ions", "ion", "ions near the region"),
    ):
        if (role in ("ml", "transition") and view[role]) or set(view[role]) - region:
            legend.append((swatch, name))
    message = "The 3-D view is drawn by JavaScript, which is switched off in this browser."
    return {
        "label": label,
        "message": message,
        "caption": caption + "Drag to turn, scroll to zoom.",
        "legend": legend,
    }
