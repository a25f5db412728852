"""Force-field parameters of a small molecule: GAFF2 with AM1-BCC charges, from AmberTools programs.

The programs (antechamber, sqm, parmchk2, tleap) are run one after another in a folder of their own; what they
find is kept in a cache, because the charges take seconds to minutes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.build.ligands.ambertools import find_programs, read_log, run_program, tool_versions
from mlmm.build.ligands.molecules import from_canonical, plain_smiles, reference_conformer, require_rdkit
from mlmm.cache import cache_folder
from mlmm.errors import MissingPackageError, StructureError
from mlmm.whole_files import write_whole

logger = logging.getLogger(__name__)

_FORMAT = 1
_GAFF_ELEMENTS = {"H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I"}
AM1BCC = "AM1-BCC"


@dataclass(frozen=True)
class LigandParameters:
    """Bonded and non-bonded parameters of one molecule, in the units of OpenMM (nm, kJ/mol, e, amu, rad).

    Parameters
    ----------
    smiles : str
        With every hydrogen as an atom; atom i of all tables is atom i of this SMILES.
    charge_method : str
    facts : dict
        Program versions and remarks.
    types : list of str
        GAFF2 atom types.
    masses, charges, sigmas, epsilons : list of float
        Charges sum to the formal charge.
    bonds : list of (i, j, length, k)
    angles : list of (i, j, k, angle, k)
    torsions, impropers : list of (i, j, k, l, periodicity, phase, k)
        The centre of an improper is its third atom.
    """

    smiles: str
    charge_method: str
    facts: dict[str, str]
    types: list[str]
    masses: list[float]
    charges: list[float]
    sigmas: list[float]
    epsilons: list[float]
    bonds: list[list[Any]]
    angles: list[list[Any]]
    torsions: list[list[Any]]
    impropers: list[list[Any]]


def gaff_parameters(
    smiles: str,
    charges: Sequence[float] | np.ndarray | None = None,
    charge_method: str = AM1BCC,
    progress: Callable[[str], None] | None = None,
) -> LigandParameters:
    """GAFF2 parameters, from the cache or from AmberTools.

    J. Wang et al., J. Comput. Chem. 25, 1157 (2004), doi:10.1002/jcc.20035; charges: A. Jakalian, D. B. Jack
    and C. I. Bayly, J. Comput. Chem. 23, 1623 (2002), doi:10.1002/jcc.10128.

    Parameters
    ----------
    smiles : str
        As `ligand_molecules.canonical` writes it.
    charges : sequence of float, optional
        Partial charges in e in the order of the SMILES, instead of AM1-BCC.
    charge_method : str
        What these charges are, for the record.
    progress : callable, optional
        Called with ``charges`` when AmberTools starts.

    Raises
    ------
    MissingPackageError
        AmberTools or ParmEd is not installed, and the cache does not know the molecule.
    StructureError
        Elements that GAFF does not know, a program that failed, or parameters that it could only guess.
    """
    key = json.dumps([_FORMAT, smiles, charge_method, None if charges is None else [*map(float, charges)]])
    path = cache_folder("ligands") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    found = _cached(path, smiles)
    if found is not None:
        logger.info("parameters of %s from the cache (%s)", smiles, path)
        return found
    _check_elements(smiles)
    programs = find_programs()
    if progress is not None:
        progress("charges")
    parameters = _run_amber(smiles, charges, charge_method, programs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(dataclasses.asdict(parameters), indent=1))
    except OSError as error:
        logger.warning("parameters of %s not kept in the cache: %s", smiles, error)
    return parameters


def _cached(path: Path, smiles: str) -> LigandParameters | None:
    try:
        found = LigandParameters(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        logger.warning("cache file %s is not used: %s", path, error)
        return None
    return found if found.smiles == smiles else None


def _check_elements(smiles: str) -> None:
    foreign = sorted({atom.GetSymbol() for atom in from_canonical(smiles).GetAtoms()} - _GAFF_ELEMENTS)
    if foreign:
        raise StructureError(
            f"a ligand of the elements of GAFF ({', '.join(sorted(_GAFF_ELEMENTS))})",
            f"{', '.join(foreign)} in {plain_smiles(from_canonical(smiles))}",
            "give an OpenMM XML file with parameters for it",
        )


def _run_amber(
    smiles: str, charges: Sequence[float] | np.ndarray | None, charge_method: str, programs: dict[str, str]
) -> LigandParameters:
    chem = require_rdkit()
    molecule = from_canonical(smiles)
    what = plain_smiles(molecule)
    net = chem.GetFormalCharge(molecule)
    positions = reference_conformer(molecule)
    conformer = chem.Conformer(molecule.GetNumAtoms())
    conformer.SetPositions(np.ascontiguousarray(positions))
    molecule.AddConformer(conformer)
    with tempfile.TemporaryDirectory(prefix="mlmm-ligand-") as name:
        folder = Path(name)
        (folder / "in.sdf").write_text(chem.MolToMolBlock(molecule) + "$$$$\n", encoding="utf-8")
        arguments = ["-i", "in.sdf", "-fi", "sdf", "-o", "typed.mol2", "-fo", "mol2", "-at", "gaff2"]
        arguments += ["-rn", "LIG", "-dr", "no", "-pf", "no", "-nc", str(net)]
        arguments += ["-c", "bcc"] if charges is None else []
        run_program(programs["antechamber"], arguments, folder, "typed.mol2", what)
        if charges is None:
            _check_same_molecule(molecule, read_log(folder, "sqm.pdb"), what)
        arguments = ["-i", "typed.mol2", "-f", "mol2", "-s", "gaff2", "-o", "extra.frcmod"]
        run_program(programs["parmchk2"], arguments, folder, "extra.frcmod", what)
        guessed = [line.strip() for line in read_log(folder, "extra.frcmod").splitlines() if "ATTN" in line]
        if guessed:
            raise StructureError(
                f"GAFF2 parameters for {what}",
                f"none similar enough: {'; '.join(guessed[:5])}",
                "give an OpenMM XML file with parameters of your own",
            )
        (folder / "leap.in").write_text(
            "source leaprc.gaff2\nloadamberparams extra.frcmod\nLIG = loadmol2 typed.mol2\n"
            "saveamberparm LIG out.prmtop out.inpcrd\nquit\n",
            encoding="utf-8",
        )
        run_program(programs["tleap"], ["-f", "leap.in"], folder, "out.prmtop", what)
        (folder / "tleap.out").replace(folder / "leap.out")
        tables = _read_prmtop(folder / "out.prmtop", molecule)
        facts = tool_versions(folder)
    raw = np.array(tables.pop("charges") if charges is None else charges, dtype=float)
    tables.pop("charges", None)
    sum_found = raw.sum()
    raw = _symmetric(raw, molecule)
    whole, shift = whole_charges(raw, net)
    facts["charges"] = (
        f"{charge_method}, sum {sum_found:+.6f} e; each atom moved by {shift:+.6f} e "
        f"so that they sum to {net:+d}"
    )
    return LigandParameters(smiles, charge_method, facts, charges=whole, **tables)


def whole_charges(charges: np.ndarray, net: int) -> tuple[list[float], float]:
    """Charges in e moved by one and the same amount so that they sum to a whole number.

    Equal charges of equivalent atoms stay equal.

    Raises
    ------
    StructureError
        They are further from that number than rounding can explain.
    """
    excess = float(charges.sum()) - net
    if abs(excess) > 0.05:
        raise StructureError(
            f"partial charges that sum to {net:+d} e",
            f"{charges.sum():+.4f} e",
            "correct the formal charges of the ligand, or the charges in its file",
        )
    shift = -excess / len(charges)
    return [round(float(charge + shift), 8) for charge in charges], shift


def _symmetric(charges: np.ndarray, molecule: Any) -> np.ndarray:
    """Mean charge of atoms that the graph of bonds cannot tell apart, as in both nitrogens of an amidinium.

    Templates are matched by that graph, so only such charges do not depend on which match is found.
    """
    chem = require_rdkit()
    graph = chem.RWMol()
    for atom in molecule.GetAtoms():
        bare = chem.Atom(atom.GetAtomicNum())
        bare.SetNoImplicit(True)
        graph.AddAtom(bare)
    for bond in molecule.GetBonds():
        graph.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), chem.BondType.SINGLE)
    graph.UpdatePropertyCache(strict=False)
    chem.FastFindRings(graph)
    classes = np.array(chem.CanonicalRankAtoms(graph, breakTies=False))
    return np.array([charges[classes == label].mean() for label in classes])


def _check_same_molecule(molecule: Any, pdb: str, what: str) -> None:
    """AM1 in vacuo may move a proton to another group; the charges would be those of another molecule."""
    rows = [line for line in pdb.splitlines() if line.startswith(("ATOM", "HETATM"))]
    positions = np.array([[float(line[start : start + 8]) for start in (30, 38, 46)] for line in rows])
    if len(positions) != molecule.GetNumAtoms():
        return
    heavy = np.array([atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() > 1])
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum() == 1:
            nearest = heavy[np.linalg.norm(positions[heavy] - positions[atom.GetIdx()], axis=1).argmin()]
            parent = atom.GetNeighbors()[0]
            if nearest != parent.GetIdx():
                raise StructureError(
                    f"a molecule that is stable in vacuo for AM1 charges: {what}",
                    f"a proton that left its {parent.GetSymbol()} for a "
                    f"{molecule.GetAtomWithIdx(int(nearest)).GetSymbol()} in the AM1 geometry",
                    "give a mol2 file with charges from elsewhere, or an OpenMM XML file",
                )


def _read_prmtop(path: Path, molecule: Any) -> dict[str, list]:
    """Tables of an Amber topology; kcal/mol and angstrom become kJ/mol and nm, k/2 instead of k.

    LEaP writes angles as if pi were 3.141594; three decimals of a degree are what GAFF gives.
    """
    try:
        import parmed
        from openmm import unit
    except ImportError as error:
        raise MissingPackageError(
            "ParmEd, which reads AMBER files", "no package parmed", 'pip install "mlmm[ligands]"'
        ) from error
    structure = parmed.load_file(str(path))
    elements = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    if [atom.atomic_number for atom in structure.atoms] != elements:
        raise StructureError(
            "atoms in one order in all AMBER programs", f"another order in {path.name}", "report this ligand"
        )
    kcal = unit.kilocalorie_per_mole.conversion_factor_to(unit.kilojoule_per_mole)

    def rounded(value: float) -> float:
        return float(f"{value:.10g}")

    def phase(degrees: float) -> float:
        return float(np.radians(round(degrees, 3)))

    tables: dict[str, list] = {
        "types": [atom.type for atom in structure.atoms],
        "masses": [atom.mass for atom in structure.atoms],
        "charges": [atom.charge for atom in structure.atoms],
        "sigmas": [rounded(round(atom.rmin, 5) * 2 ** (5 / 6) / 10) for atom in structure.atoms],
        "epsilons": [rounded(round(atom.epsilon, 7) * kcal) for atom in structure.atoms],
        "bonds": [
            [b.atom1.idx, b.atom2.idx, rounded(b.type.req / 10), rounded(2 * kcal * 100 * b.type.k)]
            for b in structure.bonds
        ],
        "angles": [
            [a.atom1.idx, a.atom2.idx, a.atom3.idx, phase(a.type.theteq), rounded(2 * kcal * a.type.k)]
            for a in structure.angles
        ],
    }
    for name, improper in (("torsions", False), ("impropers", True)):
        tables[name] = [
            [
                *(d.atom1.idx, d.atom2.idx, d.atom3.idx, d.atom4.idx),
                *(int(d.type.per), phase(d.type.phase), rounded(kcal * d.type.phi_k)),
            ]
            for d in structure.dihedrals
            if d.improper is improper and d.type.phi_k != 0
        ]
    return tables
