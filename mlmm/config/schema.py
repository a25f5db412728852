"""The sections of a run file: every key with its default, unit, choices and a line of help.

Only the standard library is imported here, see `mlmm.config.load`. A section keeps what was written,
quantities as text; the objects that are made of it convert them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlmm.build.options import BuildOptions, LigandOptions
from mlmm.collective_variables.options import Restraint, Variable
from mlmm.config.potential_sections import EmbeddingSettings, PotentialSettings
from mlmm.dynamics.options import ProtocolOptions, RunOptions
from mlmm.options import Quantity, default_of, fields_of, number, options_of, quantity, section, setting, word

__all__ = [
    "FILES_OF",
    "SECTIONS",
    "TABLES",
    "EmbeddingSettings",
    "PotentialSettings",
    "RegionSettings",
    "RunConfig",
    "RunSettings",
    "SourceSettings",
    "SystemSettings",
    "UncertaintySettings",
    "ZoneSettings",
]

#: Files of a system that has its parameters, by the key of the first: what belongs to it, what may.
FILES_OF: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "prmtop": (("inpcrd",), ()),
    "top": (("gro",), ("include_dir",)),
    "psf": (("coordinates", "parameters"), ("box",)),
    "xml": (("pdb",), ()),
}
_ZONE_KINDS = ("auto", "hard", "static", "residues", "adaptive")
_SNAPS = ("residue", "molecule", "fragment", "hydrogen", "atom")


@dataclass(frozen=True)
class SourceSettings:
    """Where the atoms come from."""

    pdb: str = setting(
        "", "PDB or mmCIF file, or a PDB id: folders of MLMM_STRUCTURES, cache, wwPDB", example="input.pdb"
    )
    prmtop: str = setting(
        "", "Amber topology, with inpcrd, instead of pdb", path=True, example="system.prmtop"
    )
    inpcrd: str = setting("", "its coordinates", path=True, example="system.inpcrd")
    top: str = setting("", "GROMACS topology, with gro, instead of pdb", path=True, example="topol.top")
    gro: str = setting("", "its coordinates, and its box", path=True, example="conf.gro")
    include_dir: str = setting(
        "",
        "folder of the files that top includes; that of an installed GROMACS by default",
        path=True,
        example="/usr/share/gromacs/top",
    )
    psf: str = setting(
        "",
        "CHARMM structure file, with coordinates and parameters, instead of pdb",
        path=True,
        example="x.psf",
    )
    coordinates: str = setting("", "its coordinates: .crd, PDB or mmCIF", path=True, example="x.crd")
    parameters: Sequence[str] = setting(
        (), "its .rtf, .prm and .str files", path=True, example=["par_all36m_prot.prm"]
    )
    box: Sequence[str] = setting(
        (),
        "three lengths of its rectangular box, where coordinates has none",
        example=["6.2 nm", "6.2 nm", "6.2 nm"],
    )
    xml: str = setting("", "OpenMM System as XML, of the atoms in pdb", path=True, example="system.xml")
    smiles: str = setting("", "one molecule instead of a file", example="CCO")

    @property
    def parametrised(self) -> str:
        """Key of the file that brings parameters: prmtop, top, psf or xml; empty for a structure alone."""
        return next((key for key in FILES_OF if getattr(self, key)), "")


@dataclass(frozen=True)
class SystemSettings(BuildOptions, SourceSettings):
    """Where the structure comes from and how it is built and parametrised."""

    ligand: Mapping[str, Mapping[str, Any]] = section(
        LigandOptions,
        "the chemistry of residue NAME, as a table [system.ligand.NAME]",
        named=True,
        example={"LIG": {"smiles": "CC(=O)[O-]"}},
    )
    metals: str = word(
        "free",
        ("free", "restrain"),
        "restrain: hold each metal at its distances from the N, O and S that bind it in the built structure, "
        "unless the region has both; free: only charge holds it",
    )

    def __post_init__(self) -> None:
        """A run file keeps what was written."""


@dataclass(frozen=True)
class RegionSettings:
    """Which atoms the potential describes."""

    select: str = setting("", "selection in mdtraj's language", example="resname LIG")
    complete: str = word(
        "residue",
        ("residue", "molecule", "atoms"),
        "what the selection is filled up to; atoms: nothing is added",
    )
    charge: int | None = number(
        None,
        "net charge of the region in e; left out: that of the force field, rounded",
        optional=True,
        example=0,
    )
    multiplicity: int = number(
        1,
        "spin multiplicity 2S + 1 of the region, with scheme additive and a potential that knows spins",
        least=1,
    )
    outside_training: str = word(
        "stop",
        ("stop", "warn"),
        "a charge or multiplicity of the region that the potential was not trained on: stop, or go on with a "
        "warning in record and report",
    )
    hydrogen_mass: Quantity = quantity(
        "",
        "mass",
        "mass of hydrogens where lambda is above 0 or may become so, water included",
        above=0,
        optional=True,
        example="3 amu",
    )


@dataclass(frozen=True)
class ZoneSettings:
    """Where lambda goes from 1 (potential) to 0 (force field)."""

    kind: str = word(
        "auto",
        _ZONE_KINDS,
        "hard: lambda ends at the region; static: a smooth zone that stays with its atoms; residues: lambda "
        "by name; adaptive: molecules get the lambda of their place; auto: hard under additive, else static",
    )
    plateau: Quantity = quantity(
        "",
        "length",
        "distance from the region within which lambda is 1",
        bonds=True,
        optional=True,
        least=0,
        kinds={"static": "0.3 nm", "adaptive": "0.4 nm"},
        example="0.3 nm",
    )
    width: Quantity = quantity(
        "",
        "length",
        "distance over which lambda then falls to 0",
        bonds=True,
        optional=True,
        least=0,
        kinds={"static": "0.2 nm", "adaptive": "0.5 nm"},
        example="0.2 nm",
    )
    snap: str = word(
        "",
        ("", *_SNAPS),
        "atoms that share one lambda: those of a residue, a molecule, a fragment between bonds that may be "
        "cut, a heavy atom with its hydrogens, or each atom by itself",
        kinds={"static": "residue", "residues": "residue"},
    )
    shape: str = word(
        "",
        ("", "skin", "sphere"),
        "distance from the nearest atom of the region, or from its centre",
        kinds={"static": "skin"},
    )
    residues: Mapping[str, float] = setting(
        {},
        "lambda by selection",
        entries="weights",
        kinds={"residues": {}},
        example={"resid 3": 0.5},
    )
    plateau_select: str = setting(
        "", "selection where lambda is 1 besides the region", kinds={"residues": ""}, example="resid 4"
    )
    molecules: Sequence[str] = setting(
        (), "residue names of the molecules that pass through", kinds={"adaptive": ("HOH",)}, example=["HOH"]
    )
    centre: str = setting(
        "",
        "atoms of the region that distances are measured from; empty: all heavy ones",
        kinds={"adaptive": ""},
        example="name CA",
    )
    walls: Quantity = quantity(
        "",
        "length",
        "half-harmonic walls at this O-H distance keep protons on their molecules; none lets them pass",
        words=("none",),
        optional=True,
        above=0,
        kinds={"adaptive": "0.125 nm"},
        example="0.125 nm",
    )
    compensation: str = setting(
        "",
        "free-energy compensation G(lambda), a file from mlmm calibrate",
        path=True,
        missing="write one with mlmm calibrate, or leave compensation out",
        kinds={"adaptive": ""},
        example="water.json",
    )

    @classmethod
    def keys_of(cls, kind: str) -> dict[str, Any]:
        """Keys that a kind of zone has besides `kind`, with their defaults; "auto" has those of static."""
        options = options_of(cls)
        if kind == "auto":
            return {key: default_of(cls, key) for key, entry in options.items() if "static" in entry.kinds}
        return {key: entry.kinds[kind] for key, entry in options.items() if kind in entry.kinds}

    def of_kind(self, kind: str) -> ZoneSettings:
        """Change the kind and fill in its defaults for what is not given."""
        defaults = {key: value for key, value in self.keys_of(kind).items() if not getattr(self, key)}
        return dataclasses.replace(self, kind=kind, **defaults)

    def given(self) -> dict[str, Any]:
        """Kind and keys that are not empty."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}


@dataclass(frozen=True)
class RunSettings(RunOptions, ProtocolOptions):
    """Stages, conditions and machine of a run."""

    ml_threads: int = number(
        1,
        "threads of a potential that torch evaluates; the native bridge takes those of OpenMM",
        least=0,
        section="run",
    )

    def __post_init__(self) -> None:
        """A run file keeps what was written."""


@dataclass(frozen=True)
class UncertaintySettings:
    """Limits on a committee's spread and on the distance to a training set."""

    energy: Quantity = quantity(
        "", "energy", "standard deviation of the region's energy", optional=True, above=0, example="5 kJ/mol"
    )
    atom: Quantity = quantity(
        "", "energy", "standard deviation of one atom's energy", optional=True, above=0, example="2 kJ/mol"
    )
    force: Quantity = quantity(
        "",
        "force",
        "standard deviation of the force on one atom",
        optional=True,
        above=0,
        example="200 kJ/mol/nm",
    )
    distance: float = number(0.0, "distance to the training set, in its units; 0: no limit", least=0)
    action: str = word(
        "warn",
        ("warn", "save", "stop"),
        "beyond a limit: warn, also save the frame, or also stop with a checkpoint",
    )
    interval: int = number(0, "steps between looks; 0: at every row of the energy table", least=0)
    frames: int = number(50, "frames that are saved at most", least=0)
    forces: bool = setting(True, "measure the spread of forces, one backward pass for each member")
    training_set: str = setting(
        "", "file of the training set that distances are measured to", path=True, example="training.npz"
    )


@dataclass(frozen=True)
class RunConfig:
    """A whole file, defaults filled in; [report] is the part of `run` that says how often to write.

    `reactions` holds the sections of searches and free energies, [scan], [umbrella] and so on, as far as they
    are there and as they were written.
    """

    system: SystemSettings = field(default_factory=SystemSettings)
    region: RegionSettings = field(default_factory=RegionSettings)
    zones: ZoneSettings = field(default_factory=ZoneSettings)
    potential: PotentialSettings = field(default_factory=PotentialSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    run: RunSettings = field(default_factory=RunSettings)
    uncertainty: UncertaintySettings = field(default_factory=UncertaintySettings)
    variable: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    restraint: Sequence[Mapping[str, Any]] = ()
    reactions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The resolved settings by section, as they are written to the run directory."""
        sections: dict[str, dict[str, Any]] = {}
        for name, (schema, attribute) in SECTIONS.items():
            settings = getattr(self, attribute)
            values = {key: getattr(settings, field) for key, field in fields_of(schema, name).items()}
            sections[name] = {key: value for key, value in values.items() if value is not None}
        sections["zones"] = self.zones.given()
        tables = {"variable": dict(self.variable), "restraint": [dict(table) for table in self.restraint]}
        tables |= {name: dict(table) for name, table in self.reactions.items()}
        return sections | {name: table for name, table in tables.items() if table}


#: Section of a run file -> its schema and the attribute of `RunConfig` that holds it.
SECTIONS: dict[str, tuple[type, str]] = {
    "system": (SystemSettings, "system"),
    "region": (RegionSettings, "region"),
    "zones": (ZoneSettings, "zones"),
    "potential": (PotentialSettings, "potential"),
    "embedding": (EmbeddingSettings, "embedding"),
    "run": (RunSettings, "run"),
    "uncertainty": (UncertaintySettings, "uncertainty"),
    "report": (RunSettings, "run"),
}
#: Tables of which there may be several -> their schema: [variable.NAME] by name, [[restraint]] in a row.
TABLES: dict[str, type] = {"variable": Variable, "restraint": Restraint}
