"""Glycans: the GLYCAM residue of a sugar by its bonds and stereocentres, whatever the file calls it.

NAG, BMA or MAN of a PDB entry become 4YB, VMB or 0MA: bonds and linkage come from the graph of heavy atoms,
the sugar, its series (D, L) and its anomer from the coordinates. Names are never trusted, since a sugar with
the wrong configuration has the same atoms and bonds.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from openmm import app

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import CheckedStructure, ResidueKey
from mlmm.build.gaps import describe_residue
from mlmm.build.templates import Match, TemplateGraphs, bonded_atoms
from mlmm.errors import StructureError

__all__ = [
    "GLYCAM_BY_AMBER",
    "PDB_SUGARS",
    "GlycamName",
    "has_sugars",
    "is_sugar",
    "name_glycans",
    "place_of",
    "places_of",
    "with_names_of_the_file",
]

#: A residue by its place and its GLYCAM name -> its name in the file.
GlycamName = tuple[ResidueKey, str]

# Substituents of a D-pyranose in the Haworth projection at C2, C3, C4, C5 (IUPAC-IUBMB, Nomenclature of
# carbohydrates, 1996, doi 10.1351/pac199668101919): u above the ring, d below; those of the L series are
# mirrored. At C1, alpha is below the ring of a D sugar.
_GLUCO, _MANNO, _GALACTO = "dudu", "uudu", "duuu"
_HAWORTH = {
    **dict.fromkeys("GYZQ", _GLUCO),
    **dict.fromkeys("MWH", _MANNO),
    **dict.fromkeys("LVOF", _GALACTO),
    **{"N": "dddu", "E": "uddu", "K": "dduu", "T": "uuuu", "U": "uduu"},
    **{"R": "ddd", "A": "udd", "X": "dud", "D": "uud"},
}
_SUGARS = {
    **{"G": "Glc", "M": "Man", "L": "Gal", "N": "All", "E": "Alt", "K": "Gul", "T": "Tal"},
    **{"R": "Rib", "A": "Ara", "X": "Xyl", "D": "Lyx", "F": "Fuc", "Q": "Qui", "H": "Rha"},
    **{"Y": "GlcNAc", "W": "ManNAc", "V": "GalNAc", "Z": "GlcA", "O": "GalA", "U": "IdoA", "S": "Neu5Ac"},
}
#: Names of the PDB -> sugar and anomer that they stand for.
PDB_SUGARS = {
    **{
        "NAG": "YB",
        "NDG": "YA",
        "A2G": "VA",
        "NGA": "VB",
        "BMA": "MB",
        "MAN": "MA",
        "GAL": "LB",
        "GLA": "LA",
    },
    **{
        "BGC": "GB",
        "GLC": "GA",
        "FUC": "fA",
        "FUL": "fB",
        "XYP": "XB",
        "XYS": "XA",
        "SIA": "SA",
        "SLB": "SB",
    },
    **{"RAM": "hA", "BDP": "ZB", "GCU": "ZA", "IDR": "uA", "ADA": "OA"},
}
#: Centre of a pyranose -> the ring atoms before and after it, clockwise seen from above.
_RING = {"C1": ("O5", "C2"), "C2": ("C1", "C3"), "C3": ("C2", "C4"), "C4": ("C3", "C5"), "C5": ("C4", "O5")}
# Neuraminic acid: signs of (a - x) . [(b - x) x (c - x)] at each centre x, of the D series; C2 is alpha.
_SIALIC = {
    "C2": ("O6", "C3", "C1"),
    "C4": ("C3", "C5", "O4"),
    "C5": ("C4", "C6", "N5"),
    "C6": ("C5", "O6", "C7"),
    "C7": ("C6", "C8", "O7"),
    "C8": ("C7", "C9", "O8"),
}
_SIALIC_SIGNS = {"C2": 1, "C4": -1, "C5": 1, "C6": -1, "C7": -1, "C8": -1}
#: Carbons that the ether oxygen joins in pyranoses, furanoses, in fructose and in neuraminic acid. The oxygen
#: is O5, O4 or O6, and O in entries of the PDB from before 2020.
_RING_ENDS = (("C1", "C5"), ("C1", "C4"), ("C2", "C5"), ("C2", "C6"))
#: The way on where OpenMM's files have no residue for a sugar.
GLYCAM_BY_AMBER = (
    "build it in AmberTools (tleap, leaprc.GLYCAM_06j-1) and write "
    'prmtop = "…" and inpcrd = "…" instead of pdb'
)
_BOND = 0.175  # nm; C-C has 0.152, C-O 0.143
_FLAT = 2e-4  # nm^3; a tetrahedral carbon has 2e-3
#: Residues of proteins that carry a glycan -> the atom, and their GLYCAM name.
_CARRIERS = {"ASN": ("ND2", "NLN"), "SER": ("OG", "OLS"), "THR": ("OG1", "OLT"), "HYP": ("OD1", "OLP")}


def is_sugar(places: Mapping[str, np.ndarray]) -> bool:
    """Whether atoms are a monosaccharide.

    It has carbons C1 to C5 in a row, an ether oxygen that closes a ring, and three or more O and N.

    Parameters
    ----------
    places : mapping of str to ndarray, shape (3,), nm
        Atoms of one residue by name.
    """
    oxygens = [name for name in places if name.startswith("O")]
    beside = len(oxygens) + len({"N2", "N5"} & places.keys())
    if beside < 3 or not all(_near(places, *pair) for pair in pairwise(("C1", "C2", "C3", "C4", "C5"))):
        return False
    return any(
        _near(places, oxygen, one) and _near(places, oxygen, other)
        for oxygen in oxygens
        for one, other in _RING_ENDS
    )


def places_of(residue: app.topology.Residue, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Positions (3,) in nm of a residue's atoms by name, for `is_sugar`."""
    return {atom.name: positions[atom.index] for atom in residue.atoms()}


def _near(places: Mapping[str, np.ndarray], one: str, other: str) -> bool:
    if one not in places or other not in places:
        return False
    return float(np.linalg.norm(places[one] - places[other])) < _BOND


def has_sugars(structure: CheckedStructure, described: set[str]) -> bool:
    """Whether a structure has a sugar that the user does not describe."""
    residues: dict[tuple[ResidueKey, str], dict[str, np.ndarray]] = {}
    for atom in structure.atoms:
        if atom.residue_name not in described:
            places = residues.setdefault((atom.key, atom.residue_name), {})
            places[atom.name] = np.array([atom.x, atom.y, atom.z])
    return any(is_sugar(places) for places in residues.values())


def name_glycans(
    topology: app.Topology, positions: np.ndarray, graphs: TemplateGraphs, skipped: set[str]
) -> tuple[dict[GlycamName, str], list[Decision]]:
    """Give sugars, and the residues of a protein that carry them, the names of their GLYCAM templates.

    OpenMM chooses GLYCAM's templates by these names, since many have the same graph.

    Parameters
    ----------
    topology : openmm.app.Topology
        Names of residues change.
    positions : ndarray, shape (N, 3), nm
    graphs : TemplateGraphs
        Without GLYCAM's templates nothing is done.
    skipped : set of str
        Residues that the user describes.

    Returns
    -------
    names : dict
        Place and GLYCAM name of each such residue -> its name before.
    decisions : list of Decision

    Raises
    ------
    StructureError
        A sugar with the bonds of GLYCAM residues and the configuration of none.
    """
    renamed: dict[GlycamName, str] = {}
    decisions: list[Decision] = []
    if not graphs.has_glycans:
        return renamed, decisions
    bonded, atoms = bonded_atoms(topology), list(topology.atoms())
    changes: dict[app.topology.Residue, str] = {}
    for residue in topology.residues():
        if residue.name in skipped or not is_sugar(places_of(residue, positions)):
            continue
        matches = graphs.matches(residue, bonded)
        if not matches:
            continue
        pyranoses = [match for match in matches if _is_pyranose(match.template.name)]
        if not pyranoses and residue.name in graphs.names:
            continue  # named by GLYCAM itself
        fitting = {
            match.template.name
            for match in pyranoses
            if _signs(residue, match, bonded, atoms, positions) == _expected(match.template.name)
        }
        if not pyranoses:
            raise _furanose(residue)
        if len(fitting) != 1 or (residue.name in graphs.names and residue.name not in fitting):
            raise _unknown(residue, sorted(fitting))
        changes[residue] = fitting.pop()
        decisions.append(_said(residue, changes[residue]))
    for one, other in topology.bonds():
        for atom, partner in ((one, other), (other, one)):
            end, name = _CARRIERS.get(atom.residue.name, ("", ""))
            if atom.name == end and partner.residue in changes:
                changes[atom.residue] = name
    for residue, name in changes.items():
        if residue.name != name:
            renamed[place_of(residue), name] = residue.name
            residue.name = name
    return renamed, decisions


def with_names_of_the_file(topology: app.Topology, renamed: Mapping[GlycamName, str]) -> None:
    """Give residues back the names that they had before `name_glycans`; the topology is changed."""
    for residue in topology.residues():
        residue.name = renamed.get((place_of(residue), residue.name), residue.name)


def place_of(residue: app.topology.Residue) -> ResidueKey:
    """Chain, number and insertion code of a residue."""
    return ResidueKey(residue.chain.id.strip(), residue.id, residue.insertionCode.strip())


def _is_pyranose(name: str) -> bool:
    """Names of GLYCAM are linkage, sugar (D in upper, L in lower case), and anomer (A, B)."""
    return len(name) == 3 and name[2] in "AB" and name[1].upper() in _SUGARS


def _expected(name: str) -> dict[str, int]:
    """Sign of the signed volume at each stereocentre of a GLYCAM residue."""
    alpha = name[2] == "A"
    mirror = 1 if name[1].isupper() else -1
    if name[1] in "Ss":
        signs = {centre: mirror * sign for centre, sign in _SIALIC_SIGNS.items()}
        return signs if alpha else signs | {"C2": -signs["C2"]}
    ring = zip(("C2", "C3", "C4", "C5"), _HAWORTH[name[1].upper()], strict=False)
    signs = {centre: mirror * (1 if side == "u" else -1) for centre, side in ring}
    return {"C1": mirror * (-1 if alpha else 1), **signs}


def _signs(
    residue: app.topology.Residue,
    match: Match,
    bonded: list[list[int]],
    atoms: list[app.topology.Atom],
    positions: np.ndarray,
) -> dict[str, int]:
    """Sign of the signed volume at each stereocentre, by the atom names of the template; 0 if it is flat."""
    own = {atom.name: atom.index for atom in residue.atoms()}
    index = {ours: own[theirs] for ours, theirs in match.atoms.items()}
    centres: dict[str, tuple[int, int, int]] = {}
    if match.template.name[1] in "Ss":
        for centre, names in _SIALIC.items():
            one, two, three = (index[name] for name in names)
            centres[centre] = (one, two, three)
    else:
        ring = {index["O5"], *(index[name] for name in _RING)}
        for centre, (before, after) in _RING.items():
            beside = [
                i
                for i in bonded[index[centre]]
                if i not in ring and atoms[i].element not in (None, app.element.hydrogen)
            ]
            if len(beside) == 1:
                centres[centre] = (index[before], index[after], beside[0])
    signs = {}
    for centre, places in centres.items():
        a, b, c = positions[list(places)] - positions[index[centre]]
        volume = float(np.dot(c, np.cross(a, b)))
        signs[centre] = 0 if abs(volume) < _FLAT else int(np.sign(volume))
    return signs


def _unknown(residue: app.topology.Residue, fitting: list[str]) -> StructureError:
    who = describe_residue(residue)
    got = f"{who}, whose stereocentres are those of {' or '.join(fitting) or 'none of them'}"
    if residue.name in fitting or not fitting:
        got += ", with the bonds of several"
    return StructureError(
        "pyranoses that GLYCAM describes, by their bonds and stereocentres",
        got,
        f"look at the configuration of {who} in the file; if it is right, {GLYCAM_BY_AMBER}",
    )


def _furanose(residue: app.topology.Residue) -> StructureError:
    who = describe_residue(residue)
    return StructureError(
        "pyranoses, whose residues of GLYCAM are told apart by their stereocentres",
        f"{who}, a furanose or another ring",
        f"{GLYCAM_BY_AMBER}; if it is bonded to nothing, write [system.ligand.{residue.name}] with "
        'smiles = "…"',
    )


def _said(residue: app.topology.Residue, name: str) -> Decision:
    who = describe_residue(residue)
    text = f"{who} is {name} of GLYCAM: {_in_words(name)}, by its bonds and stereocentres"
    expected = PDB_SUGARS.get(residue.name)
    wrong = expected is not None and expected != name[1:]
    if expected is not None and wrong:
        text += f"; {residue.name} means {_in_words('0' + expected)}: look at the file"
    return Decision("repair", "glycan", text, who, {"template": name}, warning=wrong)


def _in_words(name: str) -> str:
    """``"beta-D-GlcNAc"`` of 4YB."""
    series = "D" if name[1].isupper() else "L"
    sugar = _SUGARS[name[1].upper()]
    return f"{'alpha' if name[2] == 'A' else 'beta'}-{series}-{sugar}"
