"""The sections of a run file: every key, its default, its unit.

Only the standard library is imported here, see `mlmm.config.load`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

#: What [zones] kind may be -> its keys and their defaults; "auto" is hard under "additive", else static.
ZONE_KINDS: dict[str, dict[str, Any]] = {
    "auto": {"plateau": "", "width": "", "snap": "", "shape": ""},
    "hard": {},
    "static": {"plateau": "0.3 nm", "width": "0.2 nm", "snap": "residue", "shape": "skin"},
    "residues": {"residues": {}, "plateau_select": "", "snap": "residue"},
    "adaptive": {
        "plateau": "0.4 nm",
        "width": "0.5 nm",
        "molecules": ["HOH"],
        "centre": "",
        "walls": "0.125 nm",
        "compensation": "",
    },
}
SCHEMES = ("auto", "per_atom", "supermolecular", "additive", "delta")


def _quantity(
    default: Any, dimension: str, example: str = "", bonds: bool = False, none: bool = False
) -> Any:
    """A field that is written with its unit; `bonds`: or as a number of bonds; `none`: or as "none"."""
    facts = {"dimension": dimension, "example": example or default, "bonds": bonds, "none": none}
    return field(default=default, metadata=facts)


def _choice(default: str, *choices: str) -> Any:
    """A field with one of some words."""
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True)
class LigandSettings:
    """[system.ligand.NAME]: what the residue NAME is; see `mlmm.Ligand`."""

    smiles: str = ""
    file: str = ""
    charge: int = 0
    charges: str = _choice("am1bcc", "am1bcc", "file")
    parameters: str = "gaff2"
    atoms: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SystemSettings:
    """[system]: where the structure comes from and how it is parametrised; see `mlmm.build_system`."""

    pdb: str = ""
    prmtop: str = ""
    inpcrd: str = ""
    xml: str = ""
    smiles: str = ""
    download: bool = False
    sha256: str = ""
    chains: list[str] = field(default_factory=list)
    assembly: str = ""
    model: int = 0
    waters: str = "all"
    hydrogens: str = _choice("auto", "auto", "keep", "strip")
    remove: list[str] = field(default_factory=list)
    forcefield: str = "amber14"
    water: str = "tip3p"
    ligands: list[str] = field(default_factory=list)
    ligand: dict[str, dict[str, Any]] = field(
        default_factory=dict, metadata={"table": LigandSettings, "example": 'smiles = "CC(=O)[O-]"'}
    )
    mutate: list[str] = field(default_factory=list)
    solvate: bool = True
    padding: str = _quantity("1.0 nm", "length")
    box_shape: str = "cube"
    ionic_strength: str = _quantity("0.0 M", "concentration")
    neutralise: bool = True
    solvent: str = _choice("", "", "box", "droplet", "none")
    droplet: dict[str, Any] = field(default_factory=dict)
    gaps: str = _choice("refuse", "refuse", "split", "cap")
    tails: str = _choice("charged", "charged", "cap")
    ph: float = 7.0
    protonation: str = _choice("modeller", "modeller", "propka")
    protonate: dict[str, str] = field(default_factory=dict)
    symmetry: bool = True
    relax: int = 0
    nonbonded_cutoff: str = _quantity("1.0 nm", "length")
    constraints: str = "hbonds"
    rigid_water: bool = True
    hydrogen_mass: str = _quantity("", "mass")


@dataclass(frozen=True)
class RegionSettings:
    """[region]: which atoms the potential describes."""

    select: str = ""
    complete: str = "residue"
    hydrogen_mass: str = _quantity("", "mass", "3 amu")


@dataclass(frozen=True)
class ZoneSettings:
    """[zones]: where lambda goes from 1 to 0; a key belongs to the kinds that `ZONE_KINDS` gives it to."""

    kind: str = _choice("auto", *ZONE_KINDS)
    plateau: str = _quantity("", "length", "0.3 nm", bonds=True)
    width: str = _quantity("", "length", "0.2 nm", bonds=True)
    snap: str = _choice("", "residue", "molecule", "fragment", "hydrogen", "atom")
    shape: str = _choice("", "skin", "sphere")
    residues: dict[str, float] = field(default_factory=dict)
    plateau_select: str = ""
    molecules: list[str] = field(default_factory=list)
    centre: str = ""
    walls: str = _quantity("", "length", "0.125 nm", none=True)
    compensation: str = ""

    def of_kind(self, kind: str) -> ZoneSettings:
        """The same as another kind, with that kind's defaults for what is not given."""
        defaults = {key: value for key, value in ZONE_KINDS[kind].items() if not getattr(self, key)}
        return dataclasses.replace(self, kind=kind, **defaults)

    def given(self) -> dict[str, Any]:
        """Kind and keys that are not empty."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}


@dataclass(frozen=True)
class PotentialSettings:
    """[potential]: the machine-learned potential and its host."""

    name: str = "ani1x"
    members: list[int] = field(default_factory=list)
    precision: str = "float32"
    device: str = "cpu"
    kernel: str = _choice("auto", "auto", "torch", "native")
    bridge: str = "auto"
    trust: bool = False


@dataclass(frozen=True)
class EmbeddingSettings:
    """[embedding]: who owns which interaction, and where it is evaluated; see `mlmm.hybrid_system`."""

    scheme: str = _choice("auto", *SCHEMES)
    mm_tail: bool = False
    keep: list[str] = field(default_factory=list)
    electrostatics: str = _choice("mechanical", "mechanical", "charges")
    charges: str = _choice("force field", "force field", "model")
    charge_range: str = _quantity("1.2 nm", "length")


@dataclass(frozen=True)
class RunSettings:
    """[run]: stages, conditions, machine. A stage of length "0 ps" (or 0 iterations) is left out."""

    seed: int = 0
    minimise: int = 500
    equilibrate: str = _quantity("10 ps", "time")
    produce: str = _quantity("100 ps", "time")
    nve: str = _quantity("0 ps", "time")
    timestep: str = _quantity("0.5 fs", "time")
    nonbonded_every: int = 1
    reciprocal_every: int = 1
    temperature: str = _quantity("300 K", "temperature")
    friction: str = _quantity("1 /ps", "rate")
    equilibrate_friction: str = _quantity("10 /ps", "rate")
    ensemble: str = "NVT"
    pressure: str = _quantity("1 bar", "pressure")
    platform: str = ""
    threads: int = 0
    ml_threads: int = 1


@dataclass(frozen=True)
class ReportSettings:
    """[report]: steps between rows of the energy table, frames, checkpoints."""

    interval: int = 100
    trajectory_interval: int = 500
    checkpoint_interval: int = 1000


@dataclass(frozen=True)
class UncertaintySettings:
    """[uncertainty]: limits on a committee's spread and on the distance to a training set; "" is no limit."""

    energy: str = _quantity("", "energy", "5 kJ/mol")
    atom: str = _quantity("", "energy", "2 kJ/mol")
    force: str = _quantity("", "force", "200 kJ/mol/nm")
    distance: float = 0.0
    action: str = _choice("warn", "warn", "save", "stop")
    interval: int = 0
    frames: int = 50
    forces: bool = True
    training_set: str = ""


@dataclass(frozen=True)
class RunConfig:
    """A whole file, defaults filled in."""

    system: SystemSettings = field(default_factory=SystemSettings)
    region: RegionSettings = field(default_factory=RegionSettings)
    zones: ZoneSettings = field(default_factory=ZoneSettings)
    potential: PotentialSettings = field(default_factory=PotentialSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    run: RunSettings = field(default_factory=RunSettings)
    uncertainty: UncertaintySettings = field(default_factory=UncertaintySettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The resolved settings, as they are written to the run directory."""
        return dataclasses.asdict(self) | {"zones": self.zones.given()}
