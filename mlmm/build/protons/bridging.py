"""Waters between two metals: an oxygen that close to both has usually lost a proton, which no file says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import BINDING_METALS
from mlmm.build.gaps import describe_residue
from mlmm.build.questions import OpenQuestionError
from mlmm.errors import StructureError
from mlmm.neighbours import pairs_within

__all__ = ["HYDROXIDE", "bridging_oxygens"]

_LOOSE = 0.27  # nm; of both metals: where coordinates are coarse, it may be a hydroxide still
#: Metals to which water has 0.24 nm or more, so that one between two of them is no sign of a hydroxide.
_LARGE = {"CA", "SR", "BA", "CD", "PB", "LA", "CE", "SM", "EU", "GD", "TB", "YB", "LU", "HG"}
#: State of a water that is asked for in `protonate`.
HYDROXIDE = "OH"
_REACH = (
    0.235  # nm; bridging hydroxides at Mn, Zn, Fe, Ni have 0.19 to 0.22 nm, terminal waters at Ca 0.24 nm
)


def bridging_oxygens(
    topology: app.Topology,
    positions: np.ndarray,
    force_field: app.ForceField,
    given: Mapping[int, str],
) -> tuple[dict[int, str], list[Decision]]:
    """Templates of the waters that are hydroxides, as asked for.

    Parameters
    ----------
    topology : openmm.app.Topology
    positions : ndarray, shape (N, 3), nm
    force_field : openmm.app.ForceField
    given : mapping of residue index to str
        ``"HOH"`` or ``"OH"`` by the user.

    Returns
    -------
    templates : dict of residue index to str
        The force field's name of hydroxide.
    decisions : list of Decision

    Raises
    ------
    StructureError
        A water without hydrogens between two metals that the user has not decided about; a hydroxide that
        the force field does not have.
    """
    template = _hydroxide(force_field)
    templates, decisions = {}, []
    undecided: dict[str, tuple[str, str]] = {}
    bridges, loose = _bridges(topology, positions, _REACH), _bridges(topology, positions, _LOOSE)
    for residue in topology.residues():
        if residue.name != "HOH":
            continue
        who, state = describe_residue(residue), given.get(residue.index)
        near = bridges.get(residue, [])
        where = " and ".join(f"{distance:.3f} nm from {describe_residue(metal)}" for metal, distance in near)
        key = f"{residue.chain.id}:HOH{residue.id}{residue.insertionCode.strip()}"
        hydrogens = sum(atom.element is app.element.hydrogen for atom in residue.atoms())
        if state == HYDROXIDE and not template:
            raise StructureError(
                "a force field with a template of hydroxide (one O, one H)",
                f"none for {who}",
                'write forcefield = "charmm36m", which has one, or give parameters in ligands = ["OH.xml"]; '
                f'protonate = {{"{key}" = "HOH"}} makes it a water',
            )
        if near and state is None and hydrogens < 2:
            undecided[key] = who, where
            continue
        if state == HYDROXIDE:
            templates[residue.index] = template
        if not near and state is None and residue in loose:
            decisions.append(_between(who, key, loose[residue]))
        if near:
            kind = "a hydroxide" if state == HYDROXIDE else "a water"
            told = "as asked for" if state else "by its hydrogens in the file"
            numbers = {"distances_nm": [round(distance, 4) for _, distance in near]}
            decisions.append(
                Decision("protonate", "metal", f"{who} is {kind}, {told}: {where}", who, numbers)
            )
    if undecided:
        raise _question(undecided, bool(template))
    return templates, decisions


def _question(undecided: Mapping[str, tuple[str, str]], known: bool) -> OpenQuestionError:
    """About oxygens between two metals, by their keys; `known`: the force field has a hydroxide."""

    def entry(state: str) -> str:
        states = [f'"{key}" = "{state}"' for key in undecided]
        return f"protonate = {{{', '.join(states)}}}"

    hydroxide = (
        f"write {entry(HYDROXIDE)} for a hydroxide"
        if known
        else 'take a force field that has a hydroxide, forcefield = "charmm36m" or a file of ligands'
    )
    names = ", ".join(who for who, _ in undecided.values())
    return OpenQuestionError(
        "an oxygen between two metals that is told as hydroxide or as water, since the charge depends on it",
        "; ".join(f"{who}, {where}" for who, where in undecided.values()),
        f"{hydroxide}; write {entry('HOH')} for a water",
        {"protonate": dict.fromkeys(undecided, "HOH")},
        f"{names} as {'a water' if len(undecided) == 1 else 'waters'}",
    )


def _between(who: str, key: str, near: list[tuple[app.topology.Residue, float]]) -> Decision:
    """A water that is built as such, though it may be a hydroxide."""
    where = " and ".join(f"{distance:.3f} nm from {describe_residue(metal)}" for metal, distance in near)
    small = not all(metal.name.strip("+0123456789") in _LARGE for metal, _ in near)
    numbers = {"distances_nm": [round(distance, 4) for _, distance in near]}
    text = f"{who} is built as a water, {where}"
    if small:
        text += (
            "; an oxygen that bridges two metals is often a hydroxide: "
            f'protonate = {{"{key}" = "{HYDROXIDE}"}}'
        )
    return Decision("protonate", "metal", text, who, numbers, warning=small)


def _bridges(
    topology: app.Topology, positions: np.ndarray, reach: float
) -> dict[app.topology.Residue, list[tuple[app.topology.Residue, float]]]:
    """Waters at two or more metals, with those and the distances in nm."""
    atoms = [atom for atom in topology.atoms() if atom.element is not None]
    metals = [atom for atom in atoms if atom.element.symbol.upper() in BINDING_METALS]
    oxygens = [a for a in atoms if a.residue.name == "HOH" and a.element is app.element.oxygen]
    if len(metals) < 2 or not oxygens:
        return {}
    points = positions[[a.index for a in oxygens]], positions[[a.index for a in metals]]
    found: dict[app.topology.Residue, list[tuple[app.topology.Residue, float]]] = {}
    for i, j in pairs_within(*points, reach):
        distance = float(np.linalg.norm(points[0][i] - points[1][j]))
        found.setdefault(oxygens[i].residue, []).append((metals[j].residue, distance))
    return {residue: near for residue, near in found.items() if len(near) > 1}


def _hydroxide(force_field: app.ForceField) -> str:
    """The template of one oxygen with one hydrogen and no other bond, or nothing."""
    for name, template in force_field._templates.items():  # OpenMM has no public access to templates
        symbols = sorted(atom.element.symbol for atom in template.atoms if atom.element is not None)
        if symbols == ["H", "O"] and not template.externalBonds:
            return str(name)
    return ""
