"""Definitions of ligands, read and checked before the structure."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pdbfixer.pdbfixer import proteinResidues

from mlmm.build.build_log import Decision
from mlmm.build.files.atoms import AMINO_ACIDS
from mlmm.build.ligands.molecules import formal_charge, molecule_from_file, molecule_from_smiles, plain_smiles
from mlmm.build.ligands.templates import molecules_of_template
from mlmm.build.options import LigandOptions
from mlmm.build.parametrise import find_ligand_file, ligand_residue_names
from mlmm.errors import ConfigError, MissingPackageError
from mlmm.options import documented

if TYPE_CHECKING:
    from rdkit.Chem import Mol

logger = logging.getLogger(__name__)

_MOLECULE_FILES = (".sdf", ".mol", ".mol2")


@documented
@dataclass(frozen=True)
class Ligand(LigandOptions):
    """The chemistry of a residue, where the structure file does not say."""

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"ligand {self.name}"
        if bool(self.smiles) == bool(self.file):
            got = "both" if self.smiles else "neither"
            raise ConfigError(
                f"smiles or file for {what}", got, 'write smiles = "…", or file = "name.sdf" (or .mol2)'
            )
        if not self.name or len(self.name) > 5 or not self.name.isalnum():
            raise ConfigError(
                "a residue name of one to five letters or digits", repr(self.name), 'write for example "LIG"'
            )

    @property
    def xml(self) -> str:
        """The XML file of `parameters`, or nothing."""
        return "" if os.fspath(self.parameters) == "gaff2" else os.fspath(self.parameters)

    def molecule(self) -> tuple[Mol, np.ndarray | None]:
        """Its heavy atoms, and the partial charges of a mol2 file where these are wanted.

        Raises
        ------
        ConfigError
            Nothing that can be read, or another net charge than `charge`.
        """
        what, charges = f"ligand {self.name}", None
        if self.smiles:
            molecule = molecule_from_smiles(self.smiles, self.atoms, what)
        else:
            molecule, charges = molecule_from_file(Path(self.file), what)
        net = formal_charge(molecule)
        if self.charge is not None and self.charge != net:
            raise ConfigError(
                f"net charge {self.charge:+d} e for {what}",
                f"{net:+d} e in {plain_smiles(molecule)}",
                "correct the charge, or write the protonation state that is meant",
            )
        if self.charges == "file" and charges is None:
            raise ConfigError(
                f"a mol2 file with a partial charge for every atom, hydrogens included, for {what}",
                "no such charges",
                'write charges = "am1bcc", or give a mol2 file with charges',
            )
        return molecule, charges if self.charges == "file" else None


@dataclass(frozen=True)
class Definition:
    """A residue whose molecule is known; `template`: an XML file has parameters for it."""

    name: str
    molecule: Mol
    charges: np.ndarray | None = None
    template: bool = False
    required: bool = True


@dataclass
class LigandPlan:
    """Definitions, templates and mutations of ligands, known before the structure is read.

    Parameters
    ----------
    files : list of Path
        OpenMM XML files to load.
    definitions : dict
        By residue name.
    mutate : dict
        Residue name in the file -> the name in `definitions` that it turns into.
    substitute : dict
        Residue name, or ``"A:ARG90"`` -> the standard residue that it turns into.
    by_name : set of str
        Residues of XML files that do not say which molecule they are: matched by OpenMM alone.
    decisions : list
    """

    files: list[Path]
    definitions: dict[str, Definition]
    mutate: dict[str, str]
    by_name: set[str]
    decisions: list[Decision] = field(default_factory=list)
    substitute: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Residue names that need no template of the protein's force field."""
        return self.by_name | set(self.definitions) | set(self.mutate)


def plan_ligands(
    entries: Iterable[str | os.PathLike[str] | Ligand], mutate: Mapping[str, str] | Sequence[str] = ()
) -> LigandPlan:
    """Read ligand files and definitions.

    Parameters
    ----------
    entries : iterable of paths and `Ligand`
        An SDF or mol2 file describes the residue that has its name: ``BEN.sdf``.
    mutate : mapping or sequence of str
        ``{"TSA": "CHA"}`` or ``["TSA -> CHA"]``; a standard amino acid as target is a mutation of the
        protein, ``["A:ARG90 -> ALA"]``, or stands for a modified residue, ``["SEP -> SER"]``.

    Raises
    ------
    ConfigError
        Files or definitions that cannot be used.
    """
    files: list[Path] = []
    ligands: list[Ligand] = []
    for entry in entries:
        if isinstance(entry, Ligand):
            ligands.append(entry)
        elif Path(entry).suffix.lower() in _MOLECULE_FILES:
            ligands.append(Ligand(Path(entry).stem.upper(), file=entry))
        else:
            files.append(find_ligand_file(entry))
    files += [find_ligand_file(ligand.xml) for ligand in ligands if ligand.xml]
    mutations = _mutations(mutate)
    standard = {old: new for old, new in mutations.items() if new.upper() in proteinResidues}
    changed = {old: new for old, new in mutations.items() if old not in standard}
    plan = LigandPlan(
        files, {}, changed, set(), substitute={old: new.upper() for old, new in standard.items()}
    )
    for ligand in ligands:
        if ligand.name in plan.definitions:
            raise ConfigError("one definition per ligand", f"two of {ligand.name}", "leave one out")
        molecule, charges = ligand.molecule()
        plan.definitions[ligand.name] = Definition(ligand.name, molecule, charges, bool(ligand.xml))
    for file in files:
        names = ligand_residue_names(file)
        plan.by_name |= names
        try:
            molecules = molecules_of_template(file)
        except MissingPackageError:
            plan.decisions.append(
                Decision(
                    "ligands",
                    "stereo",
                    f"{file.name}: stereo not compared, RDKit is not installed",
                    warning=True,
                )
            )
            continue
        for name, molecule in molecules.items():
            plan.definitions.setdefault(name, Definition(name, molecule, template=True, required=False))
    plan.by_name -= set(plan.definitions)
    for old, new in plan.mutate.items():
        if new in AMINO_ACIDS:
            raise ConfigError(
                "mutations of one ligand into another with the same heavy atoms",
                f"{old} -> {new}, which changes a protein",
                "change the residue in a structure editor or with PDBFixer (applyMutations), name the file "
                "that it writes, and leave mutate out",
            )
        if new not in plan.definitions:
            raise ConfigError(
                f"a ligand {new} that {old} is turned into",
                f"definitions of {', '.join(sorted(plan.definitions)) or 'none'}",
                f'add [system.ligand.{new}] with smiles = "…", or an XML file that names its molecule',
            )
    return plan


def _mutations(mutate: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    if isinstance(mutate, Mapping):
        return dict(mutate)
    entries = [mutate] if isinstance(mutate, str) else mutate
    pairs = {}
    for entry in entries:
        old, arrow, new = (part.strip() for part in str(entry).partition("->"))
        if not (old and arrow and new):
            raise ConfigError(
                "mutations such as TSA -> CHA or A:ARG90 -> ALA",
                repr(entry),
                'write mutate = ["TSA -> CHA"] for a ligand, mutate = ["A:ARG90 -> ALA"] for the protein',
            )
        pairs[old] = new
    return pairs
