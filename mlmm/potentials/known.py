"""Potentials that can be asked for by name: what each of them is, where its weights come from."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path

from mlmm.cache import cache_folder
from mlmm.elements import SYMBOLS
from mlmm.errors import MissingPackageError, PotentialError
from mlmm.potentials.spec import PotentialSpec
from mlmm.potentials.trained_files import model_folders, trained_models

__all__ = [
    "KINDS",
    "KnownPotential",
    "check_checksum",
    "existing_file",
    "facts_by_name",
    "file_sha256",
    "find_model",
    "installed_file",
    "known_by_name",
    "known_potentials",
    "parts_of",
    "plugin_names",
]

_BUNDLED = Path(__file__).parent.parent / "data"
_GROUP = "mlmm.potentials"
_ANI_WHEEL = "7bc9a0847cce136f7bdc92c2416321a8d6c9c28542d842387c3fa3854f502d88"
_ANI_2X = "https://github.com/aiqm/ani-model-zoo/archive/refs/heads/ani-2x.zip"
_OFF = "https://raw.githubusercontent.com/ACEsuit/mace-off/main"

#: What is not a name but can be given to `load_potential` all the same.
KINDS: Mapping[str, str] = {
    "FILE.safetensors": "what `mlmm train` wrote, or an ANI committee in the same format (`save_ani_file`)",
    "FOLDER": "ANI committee as published, in NeuroChem format",
    "FILE.pt": "TorchScript: forward(positions, cell, numbers) -> per-atom energies, metadata mlmm.json",
    "FILE.model, FILE.pth": "MACE or SevenNet of its package; a pickle: --trust, or trust = true",
    "tblite:GFN2-xTB": "semiempirical tight binding of the package tblite; also GFN1-xTB",
    "ase:NAME": "ASE's own calculator of that name; any other in Python: mlmm.potentials.ASEPotential",
    "NAME+NAME": "the committee of several of these",
}


@dataclass(frozen=True)
class KnownPotential:
    """A potential that can be asked for by name.

    Parameters
    ----------
    name : str
        As typed.
    kind : {"ani", "amp", "mace", "aimnet", "sevennet"}
    file : str
        File or folder that is looked for in the folders of ``MLMM_MODELS``, in the package and in the cache.
    about : mapping of str to str
        ``name elements trained_on level_of_theory licence citation``, where not in the file itself.
    cutoff, receptive_field : float
        nm.
    per_atom, charges : bool
        See `PotentialSpec`. One that does not know charges was trained on neutral molecules.
    polarisation_range : float
        The same.
    package : str
        That has to be importable; empty for none.
    install : str
        The line that makes it ready; empty where nothing is needed.
    source : mapping of str to str
        For `install_model`: ``url``, or ``wheel`` and its ``folder``, and ``sha256`` of what is fetched or
        ``contents`` of the folder that comes out.
    """

    name: str
    kind: str
    file: str
    about: Mapping[str, str]
    cutoff: float
    receptive_field: float
    per_atom: bool = True
    charges: bool = False
    polarisation_range: float = 0.0
    package: str = ""
    install: str = ""
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> PotentialSpec:
        """Facts that are known before the weights are read."""
        return PotentialSpec(
            self.about["name"],
            self._numbers(),
            self.cutoff,
            self.receptive_field,
            self.about["trained_on"],
            per_atom=self.per_atom,
            charges=self.charges,
            trained_charges=() if self.charges else (0,),
            external="charges" if self.polarisation_range else "none",
            polarisation_range=self.polarisation_range,
            long_range=self.charges,
        )

    def _numbers(self) -> tuple[int, ...]:
        """Atomic numbers of the elements."""
        symbols = self.about["elements"].split()
        if symbols[1:2] == ["elements,"]:
            return tuple(n for n in range(1, 95) if SYMBOLS[n] not in ("Po", "At", "Rn", "Fr", "Ra"))
        return tuple(sorted(SYMBOLS.index(symbol) for symbol in symbols))

    @property
    def package_found(self) -> bool:
        """Whether the package that it needs is installed."""
        return not self.package or util.find_spec(self.package) is not None


def _mace(name: str, file: str, title: str, cutoff: float, folder: str) -> KnownPotential:
    return KnownPotential(
        name,
        "mace",
        file,
        {
            "name": title,
            "elements": "H C N O F P S Cl Br I",
            "trained_on": "total",
            "level_of_theory": "wB97M-D3(BJ)/def2-TZVPPD",
            "licence": "ASL (academic use only)",
            "citation": "D. P. Kovács et al., J. Am. Chem. Soc. 147, 17598 (2025), doi 10.1021/jacs.4c07099",
        },
        cutoff,
        2 * cutoff,
        package="mace",
        install=f"pip install mace-torch==0.3.16 && mlmm models install {name}",
        source={"url": f"{_OFF}/{folder}/{file}"},
    )


_KNOWN = [
    KnownPotential(
        "ani1x",
        "ani",
        "ani1x.safetensors",
        {
            "name": "ANI-1x",
            "elements": "H C N O",
            "trained_on": "total",
            "level_of_theory": "wB97X/6-31G(d)",
            "licence": "MIT",
            "citation": "J. S. Smith et al., J. Chem. Phys. 148, 241733 (2018), doi 10.1063/1.5023802",
        },
        0.52,
        0.52,
    ),
    KnownPotential(
        "amp-bms",
        "amp",
        "amp_bms.safetensors",
        {
            "name": "AMP-BMS",
            "elements": "H C N O F P S Cl Br I",
            "trained_on": "total",
            "level_of_theory": "see doi 10.1021/jacs.6c00217",
            "licence": "MIT",
            "citation": "M. Thürlemann et al., J. Am. Chem. Soc. 148, 28133 (2026), doi 10.1021/jacs.6c00217",
        },
        0.4,
        float("inf"),
        per_atom=False,
        charges=True,
        polarisation_range=0.8,
    ),
    KnownPotential(
        "ani1ccx",
        "ani",
        "ani-1ccx_8x",
        {
            "name": "ANI-1ccx",
            "elements": "H C N O",
            "trained_on": "total",
            "level_of_theory": "CCSD(T)*/CBS",
            "licence": "MIT",
            "citation": "J. S. Smith et al., Nat. Commun. 10, 2903 (2019), doi 10.1038/s41467-019-10827-4",
        },
        0.52,
        0.52,
        install="mlmm models install ani1ccx",
        source={"wheel": "torchani==1.2", "folder": "torchani/resources/ani-1ccx_8x", "sha256": _ANI_WHEEL},
    ),
    KnownPotential(
        "ani2x",
        "ani",
        "ani-2x_8x",
        {
            "name": "ANI-2x",
            "elements": "H C N O S F Cl",
            "trained_on": "total",
            "level_of_theory": "wB97X/6-31G(d)",
            "licence": "MIT",
            "citation": "C. Devereux et al., J. Chem. Theory Comput. 16, 4192 (2020), "
            "doi 10.1021/acs.jctc.0c00121",
        },
        0.51,
        0.51,
        install="mlmm models install ani2x",
        source={
            "url": _ANI_2X,
            "folder": "ani-model-zoo-ani-2x/resources/ani-2x_8x",
            "contents": "31c03c6e2d8628f1492b953fff267c9356a11e8f06e48b2fc66489bd3cbc2df2",
        },
    ),
    _mace("mace-off23-small", "MACE-OFF23_small.model", "MACE-OFF23 small", 0.45, "mace_off23"),
    _mace("mace-off23-medium", "MACE-OFF23_medium.model", "MACE-OFF23 medium", 0.5, "mace_off23"),
    _mace("mace-off23-large", "MACE-OFF23_large.model", "MACE-OFF23 large", 0.5, "mace_off23"),
    _mace("mace-off24-medium", "MACE-OFF24_medium.model", "MACE-OFF24 medium", 0.6, "mace_off24"),
    KnownPotential(
        "aimnet2",
        "aimnet",
        "aimnet2_wb97m_d3_0.pt",
        {
            "name": "AIMNet2",
            "elements": "H B C N O F Si P S Cl As Se Br I",
            "trained_on": "total",
            "level_of_theory": "wB97M-D3/def2-TZVPP",
            "licence": "MIT",
            "citation": "D. M. Anstine et al., Chem. Sci. 16, 10228 (2025), doi 10.1039/D4SC08572H",
        },
        0.5,
        float("inf"),
        per_atom=False,
        charges=True,
        package="aimnet",
        install="pip install aimnet==0.2.5 ase && mlmm models install aimnet2",
        source={
            "url": "https://storage.googleapis.com/aimnetcentral/aimnet2v2/AIMNet2/aimnet2_wb97m_d3_0.pt",
            "sha256": "f0f7c054539ad3261bd36f9b11c56d12f87cb723e25bea7521755bbd3ec24e28",
        },
    ),
    KnownPotential(
        "sevennet0",
        "sevennet",
        "7net-0",
        {
            "name": "SevenNet-0",
            "elements": "89 elements, H to Pu",
            "trained_on": "total",
            "level_of_theory": "PBE(+U), crystals of the Materials Project",
            "licence": "as the package sevenn (MIT)",
            "citation": "Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024), "
            "doi 10.1021/acs.jctc.4c00190",
        },
        0.5,
        2.5,
        package="sevenn",
        install="pip install sevenn==0.13.0",
    ),
]


def known_potentials() -> list[KnownPotential]:
    """Every potential that has a name, installed or not."""
    return list(_KNOWN)


def plugin_names() -> list[str]:
    """Names that installed packages register as entry points of the group ``mlmm.potentials``."""
    return sorted(point.name for point in metadata.entry_points(group=_GROUP))


def find_model(known: KnownPotential) -> Path | None:
    """Where the potential's file lies, or None if it is not installed."""
    if known.kind == "sevennet":
        if not known.package_found:
            return None
        import sevenn.util

        return Path(sevenn.util.pretrained_name_to_path(known.file))
    *given, cache = model_folders()
    places = [folder / known.file for folder in (*given, _BUNDLED, cache)]
    return next((place for place in places if place.exists()), None)


def check_checksum(known: KnownPotential, path: Path) -> bool:
    """Compare a file that was found by its name with the published one.

    Returns
    -------
    bool
        Whether it is that file; not so where no checksum of the file itself was published.

    Raises
    ------
    PotentialError
        Another file under this name.
    """
    sha256 = "" if "folder" in known.source else known.source.get("sha256", "")
    if not sha256:
        return False
    found = file_sha256(path)
    if found != sha256:
        raise PotentialError(
            f"{known.about['name']} as published in {path} (sha256 {sha256})",
            f"another file of that name (sha256 {found})",
            f"delete it and type `mlmm models install {known.name}`; if you trust its source: trust=True in "
            "Python, --trust, or trust = true in [potential]",
        )
    return True


def file_sha256(path: Path) -> str:
    """Checksum of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_by_name(name: str) -> KnownPotential | None:
    """The potential of a name, in any case and with or without hyphens; None where it is no name."""
    names = {known.name.replace("-", ""): known for known in _KNOWN}
    return names.get(name.lower().replace("-", ""))


def parts_of(name: str) -> list[str]:
    """Names of a committee's potentials, which are joined by ``+``; a file may have that in its name."""
    return [name] if Path(name).exists() else [part.strip() for part in name.split("+")]


def installed_file(known: KnownPotential) -> Path:
    """Where the potential's file lies.

    Raises
    ------
    MissingPackageError, PotentialError
        Its package, or the file, is not there.
    """
    if not known.package_found:
        raise MissingPackageError(
            f"the package {known.package} for {known.about['name']}", "not installed", known.install
        )
    path = find_model(known)
    if path is None:
        raise PotentialError(
            f"{known.file} in a folder of MLMM_MODELS ({os.environ.get('MLMM_MODELS') or 'not set'}) "
            f"or in {cache_folder('models')}",
            "no such file",
            f"fetch it with `{known.install}`, or set MLMM_MODELS to the folder that holds it",
        )
    return path


def existing_file(name: str) -> Path:
    """A potential's file.

    Raises
    ------
    PotentialError
        No such file; the message has names that are close.
    """
    path = Path(name)
    if path.exists():
        return path
    trained = trained_models()
    if name in trained:
        return trained[name]
    names = [*(entry.name for entry in _KNOWN), *trained, *plugin_names()]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    raise PotentialError(
        f"a potential's name ({', '.join(names)}) or an existing file",
        repr(name),
        f'did you mean "{near[0]}"?' if near else "`mlmm models` lists the names",
    )


def facts_by_name(name: str) -> PotentialSpec | None:
    """Make sure that a potential is there, without reading it; its facts, or None where only reading tells.

    Raises
    ------
    MissingPackageError, PotentialError
        As `installed_file` and `existing_file`.
    """
    facts = []
    for part in parts_of(name):
        known = known_by_name(part)
        if known is not None:
            installed_file(known)
            facts.append(known.spec)
        elif part not in plugin_names() and not part.startswith(("ase:", "tblite:")):
            existing_file(part)
    return facts[0] if len(facts) == len(parts_of(name)) == 1 else None
