"""The structure of the report's 3-D view: the last frame of a run, thinned."""

from __future__ import annotations

import logging
import pathlib
import tempfile
from typing import Any

import numpy as np

from mlmm.report.text import as_float

logger = logging.getLogger(__name__)

#: Residues with an atom this close to the region (nm) are drawn atom by atom, and only such waters are drawn.
_NEAR = 0.5
#: What an atom of the 3-D view may be; an atom may have several roles.
_ROLES = ("ml", "transition", "near", "polymer", "other", "water", "ions")


def structure_view(directory: pathlib.Path, region_atoms: list, notes: list[str]) -> dict[str, Any] | None:
    """Thin the last frame to what the 3-D view draws; None, with a note, if no structure is readable."""
    last, first = directory / "final.pdb", directory / "topology.pdb"
    path, source = (last, "the last frame") if last.is_file() else (first, "the starting structure")
    if not path.is_file():
        notes.append("topology.pdb is missing: there is no 3-D view.")
        return None
    try:
        import mdtraj

        frame = mdtraj.load_pdb(str(path))[0]
        weights = _weights(path, frame.n_atoms, region_atoms)
        return {**_thinned(frame, weights), "source": source}
    # mdtraj reports damaged files with whatever its parsers raise; a picture is no reason to lose the page.
    except Exception as problem:
        logger.warning("no 3-D view: %s", problem)
        notes.append(f"{path.name} could not be drawn ({problem}): there is no 3-D view.")
        return None


def _weights(path: pathlib.Path, n_atoms: int, region_atoms: list) -> np.ndarray:
    """ML weight of each atom (n_atoms,) from the B-factor column, or 1 for the atoms of the region."""
    lines = path.read_text(encoding="utf-8").split("\nENDMDL")[0].splitlines()
    column = [as_float(line[60:66]) for line in lines if line.startswith(("ATOM", "HETATM"))]
    if len(column) == n_atoms and np.nanmax(column) > 0:
        return np.nan_to_num(np.array(column)).clip(0.0, 1.0)
    weights = np.zeros(n_atoms)
    weights[[atom for atom in region_atoms if isinstance(atom, int) and 0 <= atom < n_atoms]] = 1.0
    return weights


def _thinned(frame: Any, weights: np.ndarray) -> dict[str, Any]:
    """Choose the atoms to draw and sort them into roles; indices count the atoms of the thinned PDB text."""
    import mdtraj

    topology = frame.topology
    region = np.flatnonzero(weights > 0)
    near = mdtraj.compute_neighbors(frame, _NEAR, region, periodic=False)[0] if region.size else []
    near_residues = {topology.atom(i).residue.index for i in [*near, *region]}
    pairs = [pair for bond in topology.bonds for pair in ((bond[0], bond[1]), (bond[1], bond[0]))]
    on_carbon = {atom.index for atom, partner in pairs if partner.element.symbol == "C"}
    solvent = [residue.is_water or residue.n_atoms == 1 for residue in topology.residues]
    small = solvent.count(False) < 5
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
    part = frame.atom_slice(kept)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "part.pdb"
        part.save_pdb(str(path), bfactors=weights[kept])
        text = "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    cartoon = not small and bool(roles["polymer"])
    counts = {"atoms": frame.n_atoms, "drawn": len(kept)}
    return {"pdb": text, "small": small, "cartoon": cartoon, **counts, **roles}


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
