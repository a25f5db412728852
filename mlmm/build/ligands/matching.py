"""Matching of a molecule to the atoms of a residue: atom correspondence, hydrogens, stereochemistry.

A structure file gives elements and places; bond orders, charges and hydrogens come from the molecule. Both
are compared as graphs of heavy atoms, and stereocentres in space. CIP labels are for messages only: they
depend on atom-map numbers, on the version of the rules, and on neighbours that mutation changes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mlmm.build.ligands.molecules import atom_names, plain_smiles, require_rdkit, with_hydrogens
from mlmm.errors import StructureError
from mlmm.neighbours import nearest

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Bond, Mol

logger = logging.getLogger(__name__)

_BOND_SLACK = (
    0.045  # nm above the sum of covalent radii that still counts as a bond (Cambridge database: 0.04)
)
_MATCHES = 5000  # ways to lay a symmetric molecule onto its atoms that are tried


@dataclass(frozen=True)
class ResidueAtoms:
    """A residue as the structure file gives it.

    Parameters
    ----------
    label : str
        ``"BEN 1 of chain A"``, for messages.
    names : list of str
    numbers : list of int
        Atomic numbers.
    positions : ndarray, shape (N, 3)
        In nm.
    bonds : list of pairs
        Known from CONECT records; where they do not hold the heavy atoms together, distances decide.
    """

    label: str
    names: list[str]
    numbers: list[int]
    positions: np.ndarray
    bonds: list[tuple[int, int]] = field(default_factory=list)

    @property
    def heavy(self) -> list[int]:
        """Indices of the atoms that are no hydrogens."""
        return [index for index, number in enumerate(self.numbers) if number != 1]


@dataclass(frozen=True)
class Placement:
    """Molecule whose atoms all have coordinates.

    Parameters
    ----------
    molecule : Mol
        All atoms, heavy ones first, with coordinates in angstrom and the stereochemistry of these.
    names : list of str
    origin : list of int or None
        Index of the same atom in the file's residue; None for a new hydrogen.
    decisions : list of str
    """

    molecule: Mol
    names: list[str]
    origin: list[int | None]
    decisions: list[str]


def place(molecule: Mol, residue: ResidueAtoms, mutate: bool = False) -> Placement:
    """Lay a molecule onto the atoms of a residue.

    Parameters
    ----------
    molecule : Mol
        Heavy atoms. Stereocentres that it leaves open are taken from the coordinates.
    residue : ResidueAtoms
    mutate : bool
        The residue is another molecule with the same heavy atoms and more bonds between them, such as a
        bicyclic transition-state analogue of a rearrangement: surplus bonds are cut, hydrogens are made anew,
        and names come from the molecule if it has any.

    Raises
    ------
    StructureError
        Atoms missing or left over, other bonds, other numbers of hydrogens, or a mirrored stereocentre.
    """
    heavy = residue.heavy
    if not heavy:
        raise StructureError(
            f"{residue.label} as {plain_smiles(molecule)}", "no heavy atoms", "add the missing atoms"
        )
    bonds = _heavy_bonds(residue)
    target = _graph([residue.numbers[i] for i in heavy], bonds)
    query = _graph(
        [atom.GetAtomicNum() for atom in molecule.GetAtoms()],
        [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()],
    )
    matches: Sequence[tuple[int, ...]] = ()
    if query.GetNumAtoms() == target.GetNumAtoms() and (
        query.GetNumBonds() == target.GetNumBonds() or (mutate and query.GetNumBonds() < target.GetNumBonds())
    ):
        matches = target.GetSubstructMatches(query, uniquify=False, maxMatches=_MATCHES)
    if not matches:
        raise _other_atoms(molecule, query, target, residue, mutate)
    hydrogens = {} if mutate else _hydrogens(residue)
    lengths = np.linalg.norm(residue.positions[heavy][:, None] - residue.positions[heavy][None], axis=-1)
    best: tuple[int, list[str]] | None = None
    for match in sorted(matches, key=lambda m: (round(_strain(molecule, m, lengths), 6), m)):
        atoms = [heavy[i] for i in match]
        problems = _wrong_hydrogens(molecule, atoms, hydrogens, residue)
        problems += wrong_stereo(molecule, residue.positions[atoms], [residue.names[i] for i in atoms])
        if not problems:
            break
        if best is None or len(problems) < best[0]:
            best = len(problems), problems
    else:
        assert best is not None
        raise StructureError(
            f"{residue.label} as {plain_smiles(molecule)}",
            "; ".join(best[1]),
            "correct the SMILES (stereo, protonation), or the coordinates",
        )
    cut = [
        f"{residue.names[heavy[i]]}–{residue.names[heavy[j]]} ({lengths[i, j]:.3f} nm)"
        for i, j in bonds
        if molecule.GetBondBetweenAtoms(match.index(i), match.index(j)) is None
    ]
    return _placed(molecule, residue, atoms, hydrogens, cut, mutate)


def _placed(
    molecule: Mol,
    residue: ResidueAtoms,
    atoms: list[int],
    hydrogens: dict[int, list[int]],
    cut: list[str],
    mutate: bool,
) -> Placement:
    chem = require_rdkit()
    placed = chem.Mol(molecule)
    set_positions(placed, residue.positions[atoms])
    before = {atom.GetIdx() for atom in placed.GetAtoms() if _is_centre(atom)}
    open_bonds = {bond.GetIdx() for bond in placed.GetBonds() if not _is_stereo(bond)}
    chem.AssignStereochemistryFrom3D(placed)
    for atom, index in zip(placed.GetAtoms(), atoms, strict=True):
        own = atom.GetProp("name") if atom.HasProp("name") else ""
        if not (mutate and own):
            atom.SetProp("name", residue.names[index])
        found = hydrogens.get(index, [])
        if found:
            atom.SetProp("hydrogens", " ".join(residue.names[i] for i in found))
        elif own != atom.GetProp("name"):
            atom.ClearProp("hydrogens")
    names = atom_names(placed)
    complete = with_hydrogens(placed)
    positions = np.array(complete.GetConformer().GetPositions()) / 10
    origin: list[int | None] = [*atoms, *[None] * (complete.GetNumAtoms() - len(atoms))]
    light = len(atoms)
    for atom, index in zip(placed.GetAtoms(), atoms, strict=True):
        found = hydrogens.get(index, [])
        for offset, hydrogen in enumerate(found):
            origin[light + offset] = hydrogen
            positions[light + offset] = residue.positions[hydrogen]
        light += atom.GetTotalNumHs()
    set_positions(complete, positions)
    decisions = []
    centres = [a for a in placed.GetAtoms() if _is_centre(a) and a.GetIdx() not in before]
    doubles = [b for b in placed.GetBonds() if _is_stereo(b) and b.GetIdx() in open_bonds]
    taken = [_label(placed, atom.GetIdx(), names[atom.GetIdx()]) for atom in centres]
    taken += [
        f"{names[b.GetBeginAtomIdx()]}={names[b.GetEndAtomIdx()]} {b.GetStereo().name[6:]}" for b in doubles
    ]
    if taken:
        decisions.append(f"{residue.label}: stereochemistry from the coordinates: {', '.join(taken)}")
    if cut:
        decisions.append(
            f"{residue.label}: bond {', '.join(cut)} cut; the atoms move apart in the minimisation"
        )
    new = origin.count(None)
    if new:
        decisions.append(f"{residue.label}: {new} hydrogens added as in {plain_smiles(molecule)}")
    return Placement(complete, names, origin, decisions)


def set_positions(molecule: Mol, positions: np.ndarray) -> None:
    """Give a molecule one conformer; positions (N, 3) in nm."""
    chem = require_rdkit()
    conformer = chem.Conformer(molecule.GetNumAtoms())
    conformer.SetPositions(np.ascontiguousarray(10 * positions, dtype=np.float64))
    conformer.Set3D(True)
    molecule.RemoveAllConformers()
    molecule.AddConformer(conformer, assignId=True)


def wrong_stereo(molecule: Mol, positions: np.ndarray, names: Sequence[str]) -> list[str]:
    """Stereocentres and double bonds of a molecule that coordinates contradict, in words.

    Chirality tags of one molecule refer to one order of neighbours, so tags from the molecule and from the
    coordinates compare directly, centre by centre.

    Parameters
    ----------
    molecule : Mol
        Heavy atoms.
    positions : ndarray, shape (N, 3)
        In nm, in the order of the molecule.
    names : sequence of str
    """
    chem = require_rdkit()
    seen = chem.Mol(molecule)
    set_positions(seen, positions)
    chem.AssignAtomChiralTagsFromStructure(seen)
    problems = []
    for atom, found in zip(molecule.GetAtoms(), seen.GetAtoms(), strict=True):
        if _is_centre(atom) and found.GetChiralTag() != atom.GetChiralTag():
            name = names[atom.GetIdx()]
            if not _is_centre(found):
                problems.append(f"{name} is flat in the coordinates, a stereocentre in the SMILES")
                continue
            given, seen_label = _cip(molecule, atom.GetIdx()), _cip(seen, atom.GetIdx())
            if given and seen_label and given != seen_label:
                problems.append(f"{name} is {seen_label} in the coordinates, {given} in the SMILES")
            else:
                problems.append(f"{name} is the mirror image of that in the SMILES")
    for bond in molecule.GetBonds():
        if not _is_stereo(bond):
            continue
        first, last = bond.GetStereoAtoms()
        chain = [first, bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), last]
        a, b, c, d = positions[chain]
        normals = np.cross(b - a, c - b), np.cross(c - b, d - c)
        kinds = chem.BondStereo
        cis = bond.GetStereo() in (kinds.STEREOZ, kinds.STEREOCIS)
        if (float(normals[0] @ normals[1]) > 0) != cis:
            labels = [names[i] for i in chain]
            problems.append(
                f"{labels[0]} and {labels[3]} are {'trans' if cis else 'cis'} at {labels[1]}={labels[2]} "
                f"in the coordinates, {'cis' if cis else 'trans'} in the SMILES"
            )
    return problems


def _is_centre(atom: Atom) -> bool:
    tags = require_rdkit().ChiralType
    return atom.GetChiralTag() in (tags.CHI_TETRAHEDRAL_CW, tags.CHI_TETRAHEDRAL_CCW)


def _is_stereo(bond: Bond) -> bool:
    kinds = require_rdkit().BondStereo
    return bond.GetStereo() in (kinds.STEREOE, kinds.STEREOZ, kinds.STEREOCIS, kinds.STEREOTRANS)


def _cip(molecule: Mol, index: int) -> str:
    """R, S, r or s, or nothing; molecules carry no atom-map numbers, which would falsify it."""
    from rdkit.Chem import rdCIPLabeler

    copy = require_rdkit().Mol(molecule)
    rdCIPLabeler.AssignCIPLabels(copy)
    atom = copy.GetAtomWithIdx(index)
    return atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else ""


def _label(molecule: Mol, index: int, name: str) -> str:
    return f"{name} {_cip(molecule, index)}".strip()


def _strain(molecule: Mol, match: Sequence[int], lengths: np.ndarray) -> float:
    """Bond orders times lengths: least where the shorter of two bonds is the double one."""
    return sum(
        bond.GetBondTypeAsDouble() * lengths[match[bond.GetBeginAtomIdx()], match[bond.GetEndAtomIdx()]]
        for bond in molecule.GetBonds()
    )


def _heavy_bonds(residue: ResidueAtoms) -> list[tuple[int, int]]:
    """Bonds between heavy atoms, numbered among themselves."""
    chem = require_rdkit()
    number = {index: n for n, index in enumerate(residue.heavy)}
    pairs = [(number[i], number[j]) for i, j in residue.bonds if i in number and j in number]
    known = sorted({(min(pair), max(pair)) for pair in pairs})
    if known and len(chem.GetMolFrags(_graph([residue.numbers[i] for i in number], known))) == 1:
        return known
    table = chem.GetPeriodicTable()
    radii = [table.GetRcovalent(residue.numbers[i]) / 10 for i in residue.heavy]
    positions = residue.positions[residue.heavy]
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    limit = np.add.outer(radii, radii) + _BOND_SLACK
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(distances < limit, k=1))]


def _graph(numbers: Sequence[int], bonds: Sequence[tuple[int, int]]) -> Mol:
    """Graph of elements and bonds, without bond orders, charges or hydrogens."""
    chem = require_rdkit()
    graph = chem.RWMol()
    for number in numbers:
        atom = chem.Atom(int(number))
        atom.SetNoImplicit(True)
        graph.AddAtom(atom)
    for first, second in bonds:
        graph.AddBond(int(first), int(second), chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    chem.FastFindRings(graph)
    return graph.GetMol()


def _hydrogens(residue: ResidueAtoms) -> dict[int, list[int]]:
    """Heavy atom -> its hydrogens in the file, each given to the nearest."""
    heavy = np.array(residue.heavy)
    hydrogens = np.flatnonzero(np.array(residue.numbers) == 1)
    found: dict[int, list[int]] = {}
    _, partners = nearest(residue.positions[hydrogens], residue.positions[heavy])
    for hydrogen, partner in zip(hydrogens.tolist(), heavy[partners].tolist(), strict=True):
        found.setdefault(partner, []).append(hydrogen)
    return found


def _wrong_hydrogens(
    molecule: Mol, atoms: list[int], hydrogens: dict[int, list[int]], residue: ResidueAtoms
) -> list[str]:
    """Atoms with another number of hydrogens than the molecule has.

    Many files hold hydrogens on N and O only, or none: carbon is compared only if some carbon has one.
    """
    on_carbon = any(residue.numbers[index] == 6 for index in hydrogens)
    problems = []
    for atom, index in zip(molecule.GetAtoms(), atoms, strict=True):
        count = len(hydrogens.get(index, []))
        shown = on_carbon or (hydrogens and residue.numbers[index] != 6)
        if shown and count != atom.GetTotalNumHs():
            problems.append(
                f"hydrogens on {residue.names[index]}: {count} in the file, "
                f"{atom.GetTotalNumHs()} in the SMILES"
            )
    return problems


def _other_atoms(
    molecule: Mol, query: Mol, target: Mol, residue: ResidueAtoms, mutate: bool
) -> StructureError:
    """Atoms and bonds that differ, outside the largest common substructure."""
    from rdkit.Chem import rdFMCS

    chem = require_rdkit()
    names = [residue.names[i] for i in residue.heavy]
    settings = rdFMCS.MCSParameters()
    settings.Timeout = 5  # type: ignore[assignment]  # RDKit's stub gives it the type of its class
    settings.BondTyper = rdFMCS.BondCompare.CompareAny
    common = chem.MolFromSmarts(rdFMCS.FindMCS([query, target], settings).smartsString)
    in_query, in_target = query.GetSubstructMatch(common), target.GetSubstructMatch(common)
    partner = dict(zip(in_query, in_target, strict=True))
    missing = []
    for atom in molecule.GetAtoms():
        if atom.GetIdx() not in partner:
            near = [names[partner[n.GetIdx()]] for n in atom.GetNeighbors() if n.GetIdx() in partner]
            own = atom.GetProp("name") if atom.HasProp("name") else atom.GetSymbol()
            missing.append(own + (f" on {' and '.join(near)}" if near else ""))
    extra = [name for index, name in enumerate(names) if index not in in_target]
    wrong = []
    back = {seen: asked for asked, seen in partner.items()}
    for bond in target.GetBonds():
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if (
            not mutate
            and {first, second} <= set(back)
            and not query.GetBondBetweenAtoms(back[first], back[second])
        ):
            length = np.linalg.norm(
                residue.positions[residue.heavy[first]] - residue.positions[residue.heavy[second]]
            )
            wrong.append(f"{names[first]}–{names[second]} ({length:.3f} nm)")
    parts = [f"missing {', '.join(missing)}"] if missing else []
    parts += [f"left over {', '.join(extra)}"] if extra else []
    parts += [f"bonds that the SMILES does not have: {', '.join(wrong)}"] if wrong else []
    if not parts or Counter(residue.numbers[i] for i in residue.heavy) == Counter(
        atom.GetAtomicNum() for atom in molecule.GetAtoms()
    ):
        parts.append("the same elements, but bonded in another way")
    advice = "add the missing atoms, delete the others, or correct the SMILES"
    if mutate:
        advice = "mutate needs the same heavy atoms, and every bond of the new molecule in the old one"
    return StructureError(f"{residue.label} as {plain_smiles(molecule)}", "; ".join(parts), advice)
