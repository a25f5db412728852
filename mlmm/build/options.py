"""The settings of one build, parsed and checked before anything is read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlmm import units
from mlmm.build.files.selection import Selection
from mlmm.build.ligands.definition import Ligand
from mlmm.build.surroundings.droplet import DropletSettings
from mlmm.build.surroundings.solvent import BOX_SHAPES
from mlmm.errors import ConfigError

CONSTRAINTS = ("none", "hbonds")
#: Settings of one word -> what it may be; the first is the default.
_WORDS = {
    "solvent": ("box", "droplet", "none"),
    "protonation": ("modeller", "propka"),
    "gaps": ("refuse", "split", "cap"),
    "tails": ("charged", "cap"),
}


@dataclass(frozen=True)
class BuildOptions:
    """What `mlmm.build_system` takes, with lengths in nm, concentrations in mol/l and masses in amu."""

    download: bool = False
    sha256: str = ""
    chains: Sequence[str] = ()
    assembly: str = ""
    model: int = 0
    waters: str = "all"
    hydrogens: str = "auto"
    remove: Sequence[str] = ()
    forcefield: str | Sequence[str] = "amber14"
    water: str = "tip3p"
    ligands: Sequence[str | os.PathLike[str] | Ligand] = ()
    mutate: Sequence[str] | Mapping[str, str] = ()
    padding: Any = "1.0 nm"
    box_shape: str = "cube"
    ionic_strength: Any = "0.0 M"
    neutralise: bool = True
    ph: float = 7.0
    nonbonded_cutoff: Any = "1.0 nm"
    constraints: str = "hbonds"
    rigid_water: bool = True
    hydrogen_mass: Any = None
    solvate: bool = True
    seed: int = 0
    solvent: str | None = None
    droplet: Mapping[str, Any] | DropletSettings | None = None
    protonation: str = "modeller"
    protonate: Mapping[str, str] = dataclasses.field(default_factory=dict)
    symmetry: bool = True
    gaps: str = "refuse"
    tails: str = "charged"
    relax: int = 0

    @classmethod
    def parse(cls, **given: Any) -> BuildOptions:
        """Quantities in internal units.

        Raises
        ------
        ConfigError
            A value that OpenMM would accept and misuse, or refuse only after minutes.
        """
        quantities = (
            ("padding", "length"),
            ("ionic_strength", "concentration"),
            ("nonbonded_cutoff", "length"),
            ("hydrogen_mass", "mass"),
        )
        options = cls(**given)
        parsed = {
            name: units.parse(value, dimension, name)
            for name, dimension in quantities
            if (value := getattr(options, name)) is not None
        }
        solvent = options.solvent or ("box" if options.solvate else "none")
        options = dataclasses.replace(options, **parsed, solvent=solvent)
        options._check()
        _ = options.selection
        solvate = options.solvent != "none"
        droplet = DropletSettings.parse(options.droplet or {}) if solvent == "droplet" else None
        return dataclasses.replace(options, solvate=solvate, droplet=droplet)

    @property
    def selection(self) -> Selection:
        """What to build of the file."""
        fields = dataclasses.fields(Selection)
        return Selection(**{field.name: getattr(self, field.name) for field in fields})

    def _check(self) -> None:
        for name, example in (("nonbonded_cutoff", "1.0 nm"), ("hydrogen_mass", "1.5 amu")):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"a {name} above zero", f"{value}", f'write {name} = "{example}"')
        for name, example in (("padding", "1.0 nm"), ("ionic_strength", "0.15 M")):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"a {name} of zero or more", f"{getattr(self, name)}", f'write {name} = "{example}"'
                )
        for name, choices in (("constraints", CONSTRAINTS), ("box_shape", tuple(BOX_SHAPES))):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} as one of {', '.join(choices)}",
                    repr(getattr(self, name)),
                    f'write {name} = "{choices[-1]}"',
                )
        self._check_words()
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(
                "a seed that is a whole number of zero or more", repr(self.seed), "write seed = 0"
            )
        if not 0 <= self.ph <= 14:
            raise ConfigError("a ph between 0 and 14", repr(self.ph), "write ph = 7.0")
        if isinstance(self.ligands, (str, os.PathLike)):
            raise ConfigError(
                "a list of ligand files", repr(self.ligands), f'write ligands = ["{self.ligands}"]'
            )

    def _check_words(self) -> None:
        for name, choices in _WORDS.items():
            if getattr(self, name) not in choices:
                extra = ""
                if (name, getattr(self, name)) == ("gaps", "model"):
                    extra = "; loops are not modelled here: do so with MODELLER or a structure predictor"
                raise ConfigError(
                    f"{name} as one of {', '.join(choices)}",
                    repr(getattr(self, name)),
                    f'write {name} = "{choices[-1]}"{extra}',
                )
        if self.solvent != "droplet" and self.droplet:
            raise ConfigError(
                'a droplet with solvent = "droplet" only',
                f"solvent = {self.solvent!r}",
                'write solvent = "droplet", or leave droplet out',
            )
        if isinstance(self.relax, bool) or not isinstance(self.relax, int) or self.relax < 0:
            raise ConfigError("relax as a number of iterations", repr(self.relax), "write relax = 200")

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, with the unit in the name of every quantity."""
        names = {
            "padding": "padding_nm",
            "ionic_strength": "ionic_strength_molar",
            "nonbonded_cutoff": "nonbonded_cutoff_nm",
            "hydrogen_mass": "hydrogen_mass_amu",
        }
        left_out = ("forcefield", "ligands", "mutate", "seed", "download", "sha256")
        fields = (field.name for field in dataclasses.fields(self) if field.name not in left_out)
        values = {names.get(name, name): getattr(self, name) for name in fields}
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        values["protonate"] = dict(self.protonate)
        return values | {"droplet": self.droplet.as_dict() if self.droplet else None}
