"""A peptide of thirty residues written by code: heavy atoms of a stretched chain with ideal geometry.

Sequence and numbers are those at the head of bovine trypsin (no 35 and 36), the coordinates are not.
Backbone: bond lengths and angles of Engh and Huber, Acta Cryst. A47, 392 (1991), doi
10.1107/S0108767391001071, phi −75 and psi 145 degrees; side chains: the residue templates of pdbfixer.
"""

from pathlib import Path

import gemmi
import numpy as np
import pdbfixer

# fmt: off
SEQUENCE = [
    "ILE", "VAL", "GLY", "GLY", "TYR", "THR", "CYS", "GLY", "ALA", "ASN", "THR", "VAL", "PRO", "TYR", "GLN",
    "VAL", "SER", "LEU", "ASN", "SER", "GLY", "TYR", "HIS", "PHE", "CYS", "GLY", "GLY", "SER", "LEU", "ILE",
]
# fmt: on
NUMBERS = [*range(16, 35), *range(37, 48)]
_PHI, _PSI = -75.0, 145.0
_TEMPLATES = Path(pdbfixer.__file__).parent / "templates"


def place(a, b, c, length, angle, dihedral):
    """The point at a distance from c, with an angle at c and a dihedral around b–c (degrees, angstrom)."""
    angle, dihedral = np.radians([angle, dihedral])
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, along)
    return c + length * (
        -np.cos(angle) * along + np.sin(angle) * (np.cos(dihedral) * across + np.sin(dihedral) * normal)
    )


def backbone(n):
    """N, CA, C, O of n residues, and N of the one that would follow: (n + 1) rows of places."""
    first = np.array([[0.0, 0.0, 0.0], [1.458, 0.0, 0.0], [1.458 + 0.546, 1.424, 0.0]])
    rows = []
    for _ in range(n):
        nitrogen, alpha, carbon = first
        oxygen = place(nitrogen, alpha, carbon, 1.231, 120.1, _PSI + 180.0)
        rows.append([nitrogen, alpha, carbon, oxygen])
        nitrogen = place(nitrogen, alpha, carbon, 1.329, 117.2, _PSI)
        alpha = place(rows[-1][1], carbon, nitrogen, 1.458, 121.7, 180.0)
        first = [nitrogen, alpha, place(carbon, nitrogen, alpha, 1.525, 111.0, _PHI)]
    return rows, first[0]


def side_chain(residue, nitrogen, alpha, carbon):
    """Names and places of the heavy atoms beyond the backbone, by superposing the residue's template."""
    atoms = gemmi.read_pdb(str(_TEMPLATES / f"{residue}.pdb"))[0][0][0]
    named = {a.name: np.array(a.pos.tolist()) for a in atoms if a.element.name not in ("H", "D")}
    frame, own = (
        _frame(*three) for three in ((nitrogen, alpha, carbon), (named[x] for x in ("N", "CA", "C")))
    )
    beyond = [x for x in named if x not in ("N", "CA", "C", "O", "OXT")]
    beyond.sort(key=lambda x: ("BGDEZH".index(x[1]), x[2:]))
    return [(x, alpha + (named[x] - named["CA"]) @ own.T @ frame) for x in beyond]


def _frame(nitrogen, alpha, carbon):
    """Three unit vectors in rows: along CA–C, in the plane with N, and across."""
    x = (carbon - alpha) / np.linalg.norm(carbon - alpha)
    z = np.cross(x, nitrogen - alpha)
    z /= np.linalg.norm(z)
    return np.array([x, np.cross(z, x), z])


def peptide(count=30):
    """The first residues as ATOM lines of chain A; the last has OXT where the next residue's N would be."""
    rows, following = backbone(count)
    atoms = []
    for residue, number, (nitrogen, alpha, carbon, oxygen) in zip(SEQUENCE, NUMBERS, rows, strict=False):
        main = zip(("N", "CA", "C", "O"), (nitrogen, alpha, carbon, oxygen), strict=True)
        atoms += [
            (x, residue, number, at) for x, at in (*main, *side_chain(residue, nitrogen, alpha, carbon))
        ]
    atoms.append(("OXT", SEQUENCE[count - 1], NUMBERS[count - 1], following))
    middle = np.mean([at for *_, at in atoms], axis=0)
    lines = []
    for serial, (atom, residue, number, at) in enumerate(atoms, start=1):
        x, y, z = at - middle
        lines.append(
            f"ATOM  {serial:5d}  {atom:3s} {residue:3s} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
            f"  1.00 20.00           {atom[0]}"
        )
    return lines


def peptide_mmcif(count=30, joined=False):
    """The same as mmCIF; with a table of connections, from the first N to the last O, if `joined`."""
    structure = gemmi.read_pdb_string("\n".join([*peptide(count), "TER", "END"]))
    structure.setup_entities()
    structure.cell = gemmi.UnitCell(150.0, 150.0, 150.0, 90.0, 90.0, 90.0)
    if joined:
        chain, link = structure[0][0], gemmi.Connection()
        link.name, link.type = "covale1", gemmi.ConnectionType.Covale
        link.partner1 = gemmi.make_address(chain, chain[0], chain[0]["N"][0])
        link.partner2 = gemmi.make_address(chain, chain[-1], chain[-1]["O"][0])
        structure.connections.append(link)
    return structure.make_mmcif_document().as_string()
