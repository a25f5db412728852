"""Options of the builders: the one list of the keys of [system] and of the keywords of `build_system`.

No numerical library is imported here: a run file is checked against these fields before one starts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmm import units
from mlmm.errors import ConfigError
from mlmm.options import (
    Quantity,
    check_fields,
    documented,
    number,
    quantity,
    section,
    setting,
    with_changes,
    word,
)

__all__ = ["BuildOptions", "DropletOptions", "ForceOptions", "LigandOptions", "Selection"]

_SHELL = 0.4  # nm of frozen shell where `mobile` is not given
_THINNEST_SHELL = 0.3  # nm: thinner than one water molecule, it would hold nothing


@documented
@dataclass(frozen=True)
class Selection:
    """Which part of a structure file is built."""

    chains: Sequence[str] = setting((), "chains to build, by author id; empty: all", example=["A", "B"])
    assembly: str = setting(
        "", "biological unit that the file describes; empty: the coordinates as they stand", example="1"
    )
    model: int = number(0, "which of several models; 0 where the file has only one", least=0, example=1)
    waters: Quantity = quantity(
        "all",
        "length",
        "crystal waters to keep: those within a distance of what else is kept, all, or none",
        words=("all", "none"),
        least=0,
        example="0.5 nm",
    )
    hydrogens: str = word(
        "auto",
        ("auto", "keep", "strip"),
        "strip: those of proteins, nucleic acids and water are placed anew; auto: only where a refinement "
        "program placed them (on polar atoms only, or on both nitrogens of every histidine)",
    )
    remove: Sequence[str] = setting(
        (), "residue names or single residues to leave out", example=["SO4", "A:301", "A:HOH277"]
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.chains and self.assembly:
            raise ConfigError(
                "either chains or an assembly",
                f"chains {', '.join(self.chains)} and assembly {self.assembly!r}",
                "leave one of them out",
            )

    @property
    def water_distance(self) -> float:
        """Greatest distance in nm of a water that is kept: infinite for all, 0 for none."""
        if self.waters in ("all", "none"):
            return math.inf if self.waters == "all" else 0.0
        return units.parse(self.waters, "length", "waters")


@documented
@dataclass(frozen=True)
class ForceOptions:
    """How parameters become forces: all that `load_amber` takes. Lengths in nm, masses in amu."""

    nonbonded_cutoff: Quantity = quantity(
        "1.0 nm", "length", "cutoff of PME's direct sum; without a box every pair is computed", above=0
    )
    constraints: str = word("hbonds", ("none", "hbonds"), "bonds held rigid: those to hydrogen, or none")
    rigid_water: bool = setting(True, "hold water molecules rigid")
    hydrogen_mass: Quantity = quantity(
        "",
        "mass",
        "mass of hydrogens but those of rigid water, taken from the atom each is bonded to",
        above=0,
        optional=True,
        example="3 amu",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True)
class DropletOptions:
    """A sphere of the system around a selection, frozen in its outer shell. Lengths in nm."""

    centre: str = setting(
        "", "selection (mdtraj); the sphere is around the mean position of its atoms", example="resname LIG"
    )
    radius: Quantity = quantity(
        "2.0 nm", "length", "residues with an atom, and waters with their oxygen, inside it are kept", above=0
    )
    mobile: Quantity = quantity(
        "",
        "length",
        "those inside it move, the others are frozen (mass 0); empty: radius - 0.4 nm",
        optional=True,
        example="1.6 nm",
    )
    cutoff: Quantity = quantity(
        "none",
        "length",
        "cutoff of non-bonded pairs, with a reaction field beyond; none: every pair is computed",
        words=("none",),
        optional=True,
        above=0,
        example="1.2 nm",
    )
    relax: int = number(
        200,
        "iterations of minimisation of the whole solute in water before anything is cut or frozen",
        least=0,
    )

    def __post_init__(self) -> None:
        check_fields(self, "droplet.")
        given = self.cutoff not in ("none", "", None)
        cutoff = units.parse(self.cutoff, "length", "droplet.cutoff") if given else None
        object.__setattr__(self, "cutoff", cutoff)
        if self.mobile is None:
            object.__setattr__(self, "mobile", max(self.radius - _SHELL, 0.0))
        object.__setattr__(self, "centre", self.centre.strip())
        if not self.centre:
            raise ConfigError(
                "the centre of a droplet as a selection",
                "none",
                'write droplet = {centre = "resname LIG", radius = "2.0 nm", mobile = "1.6 nm"}',
            )
        if not 0 < self.mobile <= self.radius - _THINNEST_SHELL + 1e-9:
            raise ConfigError(
                f"0 < mobile <= radius - {_THINNEST_SHELL} nm, so that a frozen shell holds the water",
                f"radius {self.radius:g} nm and mobile {self.mobile:g} nm",
                f'write mobile = "{max(self.radius - _SHELL, 0.1):.1f} nm"',
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with units in the names."""
        return {
            "centre": self.centre,
            "radius_nm": self.radius,
            "mobile_nm": self.mobile,
            "cutoff_nm": self.cutoff,
            "relax": self.relax,
        }


@documented
@dataclass(frozen=True)
class LigandOptions:
    """The chemistry of a residue, where the structure file does not say."""

    name: str = setting("", "residue name in the structure file", section="none")
    smiles: str = setting(
        "",
        "the molecule, with its charges and hydrogens; stereocentres may be left open where there are "
        "coordinates",
        example="CC(=O)[O-]",
    )
    file: Any = setting(
        "",
        "SDF or mol2 file instead of the SMILES; its coordinates are not used",
        path=True,
        example="LIG.sdf",
    )
    charge: int | None = number(
        None, "net charge in e, to be compared with that of the molecule", optional=True, example=0
    )
    charges: str = word("am1bcc", ("am1bcc", "file"), "partial charges: AM1-BCC, or those of the mol2 file")
    parameters: Any = setting("gaff2", "gaff2, or an OpenMM XML file", path=True)
    atoms: Sequence[str] = setting(
        (), "names of the heavy atoms in the order of the SMILES", example=["C1", "C2", "O1"]
    )

    def __post_init__(self) -> None:
        check_fields(self)


@documented
@dataclass(frozen=True)
class BuildOptions(ForceOptions, Selection):
    """All that `mlmm.build_system` takes beside the structure, and the keys of [system] of a run file.

    A quantity is text with its unit (``"1.0 nm"``), an OpenMM quantity, or a number in nm, mol/l or amu; it
    becomes such a number. A value that OpenMM would misuse, or refuse only after minutes, is a `ConfigError`.
    """

    forcefield: str | Sequence[str] = setting(
        "amber14",
        "amber14 (ff14SB, OL15, OL3), amber19 (ff19SB, OL21, OL3) or charmm36m, with the model of the key "
        "water; or OpenMM XML files, water included",
        single=True,
        example=["amber14/protein.ff14SB.xml", "amber14/tip3p.xml"],
    )
    water: str = word(
        "tip3p",
        ("tip3p", "tip3pfb", "spce", "opc3", "opc", "tip4pew", "tip4pfb"),
        "water model; opc, tip4pew and tip4pfb have a fourth site, amber19 was made for opc",
    )
    trust: bool = setting(False, "load force-field files with <Script>, which run code when they are loaded")
    ligands: Sequence[Any] = setting(
        (),
        "other residues: OpenMM XML files, also looked for in forcefields/, or SDF and mol2 files named "
        "after the residue; in Python also mlmm.Ligand objects",
        objects=True,
        path=True,
        example=["ligand.xml"],
    )
    mutate: Any = setting(
        (),
        "residues to turn into others: one of the protein into another amino acid (a mutant), or a ligand "
        "into one with the same heavy atoms",
        objects=True,
        example=["A:ARG90 -> ALA"],
    )
    solvate: bool = setting(True, "where solvent is empty: a box of water, or none")
    solvent: str = word(
        "",
        ("", "box", "droplet", "none"),
        "box: a periodic box of water; droplet: see the key droplet; none: a box only if the file has one of "
        "space group P 1",
    )
    implicit: str = word(
        "",
        ("", "hct", "obc1", "obc2", "gbn", "gbn2"),
        "implicit solvent (generalised Born with a surface term) instead of water, for amber14 and amber19; "
        "every scheme keeps it whole, around the force field's charges; ionic_strength screens it",
    )
    padding: Quantity = quantity(
        "1.0 nm",
        "length",
        "least distance from the bounding sphere of the solute to the faces of the box, half of that between "
        "its periodic images (OpenMM's addSolvent counts the whole)",
        least=0,
    )
    box_shape: str = word(
        "cube",
        ("cube", "dodecahedron", "octahedron"),
        "with one distance between images, a dodecahedron has 71 % of a cube's volume, an octahedron 77 %",
    )
    ionic_strength: Quantity = quantity(
        "0.0 M",
        "concentration",
        "NaCl, besides the ions that neutralise; screens an implicit solvent",
        least=0,
        example="0.15 M",
    )
    neutralise: bool = setting(True, "add ions until the net charge is zero")
    droplet: Any = section(
        DropletOptions,
        'centre and size of a droplet, with solvent = "droplet"',
        example={"centre": "resname LIG", "radius": "2.0 nm", "mobile": "1.6 nm"},
    )
    gaps: str = word(
        "refuse",
        ("refuse", "split", "cap"),
        "residues missing inside a chain: stop, charged ends, or caps (ACE, NME)",
        instead={
            "model": 'write gaps = "cap"; loops are not modelled here, as those of PDBFixer often have D '
            "amino acids and cis peptides: do so with MODELLER or a structure predictor"
        },
    )
    tails: str = word(
        "charged", ("charged", "cap"), "residues missing at an end of a chain: charged end, or cap"
    )
    ph: float = number(
        7.0, "pH, for residues whose name and hydrogens leave their protonation open", least=0, most=14
    )
    protonation: str = word(
        "modeller",
        ("modeller", "propka"),
        "pKa of model compounds (OpenMM), or of each residue in its surroundings, ligands included (PROPKA)",
    )
    protonate: Mapping[str, str] = setting(
        {}, "protonation state by residue, before any other rule", example={"A:HIS54": "HIE"}
    )
    symmetry: bool = setting(
        True, "one protonation state and tautomer for equal positions of chains with equal sequence"
    )
    relax: int = number(
        0, "iterations of minimisation at the end; 0 leaves all heavy atoms of a box where they were", least=0
    )
    download: bool = setting(False, "fetch a PDB id that is found nowhere from wwPDB")
    sha256: str = setting("", "checksum that the structure file must have; empty: any", example="9f86d0…")
    seed: int = number(
        0, "random seed for the places of ions and the first places of hydrogens", least=0, section="none"
    )

    def __post_init__(self) -> None:
        Selection.__post_init__(self)
        if self.implicit and self.solvent in ("box", "droplet"):
            raise ConfigError(
                "an implicit solvent, or water",
                f"implicit = {self.implicit!r} and solvent = {self.solvent!r}",
                'leave one of them out; solvent = "none" goes with an implicit solvent',
            )
        solvent = self.solvent or ("box" if self.solvate and not self.implicit else "none")
        object.__setattr__(self, "solvent", solvent)
        object.__setattr__(self, "solvate", solvent != "none")
        if solvent != "droplet" and self.droplet:
            raise ConfigError(
                'a droplet with solvent = "droplet" only',
                f"solvent = {solvent!r}",
                'write solvent = "droplet", or leave droplet out',
            )
        droplet = self.droplet if solvent == "droplet" else None
        if isinstance(droplet, Mapping):
            droplet = with_changes(DropletOptions, None, droplet)
        object.__setattr__(self, "droplet", droplet)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the unit in the name of every quantity."""
        names = {
            "padding": "padding_nm",
            "ionic_strength": "ionic_strength_molar",
            "nonbonded_cutoff": "nonbonded_cutoff_nm",
            "hydrogen_mass": "hydrogen_mass_amu",
        }
        left_out = ("forcefield", "ligands", "mutate", "seed", "download", "sha256")
        fields = (spec.name for spec in dataclasses.fields(self) if spec.name not in left_out)
        values = {names.get(name, name): getattr(self, name) for name in fields}
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        values["protonate"] = dict(self.protonate)
        return values | {"droplet": self.droplet.as_dict() if self.droplet else None}
