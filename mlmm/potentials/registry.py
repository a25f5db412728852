"""Potentials by name: bundled files first, then the folders of MLMM_MODELS."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlmm.errors import PotentialError
from mlmm.potentials.ani import ANIPotential, load_ani_file
from mlmm.potentials.base import PotentialModel
from mlmm.potentials.neurochem import read_neurochem

__all__ = ["KnownPotential", "find_model", "known_potentials", "load_potential"]

_BUNDLED = Path(__file__).parent.parent / "data"


@dataclass(frozen=True)
class KnownPotential:
    """A potential that can be asked for by name.

    Parameters
    ----------
    name : str
        As typed.
    file : str
        File or folder name that is looked for in the package, then in each folder of ``MLMM_MODELS``.
    about : dict of str to str
        Title, elements and origin; for a folder without metadata of its own it also feeds the spec.
    """

    name: str
    file: str
    about: dict[str, str]


_KNOWN = {
    "ani1x": KnownPotential(
        "ani1x",
        "ani1x.safetensors",
        {"name": "ANI-1x", "elements": "H C N O", "origin": "bundled"},
    ),
    "ani2x": KnownPotential(
        "ani2x",
        "ani-2x_8x",
        {
            "name": "ANI-2x",
            "elements": "H C N O S F Cl",
            "origin": "NeuroChem folder ani-2x_8x of the ANI model zoo, in a folder of MLMM_MODELS",
            "trained_on": "total",
            "level_of_theory": "wB97X/6-31G(d)",
            "licence": "MIT",
            "citation": "C. Devereux et al., J. Chem. Theory Comput. 16, 4192 (2020), "
            "doi 10.1021/acs.jctc.0c00121",
        },
    ),
}


def known_potentials() -> list[KnownPotential]:
    """Every potential that has a name, installed or not."""
    return list(_KNOWN.values())


def find_model(known: KnownPotential) -> Path | None:
    """Where the potential's file lies, or None if it is not installed."""
    folders = [_BUNDLED, *(Path(f) for f in os.environ.get("MLMM_MODELS", "").split(os.pathsep) if f)]
    return next((folder / known.file for folder in folders if (folder / known.file).exists()), None)


def load_potential(
    name: str,
    *,
    members: Sequence[int] | None = None,
    precision: str = "float32",
    device: str = "cpu",
    kernel: str = "auto",
) -> PotentialModel:
    """Load a pretrained potential.

    Parameters
    ----------
    name : str
        ``"ani1x"`` (bundled), ``"ani2x"`` (from a folder of the environment variable ``MLMM_MODELS``), or the
        path of an ANI file or NeuroChem folder. Case and hyphens do not matter in a name.
    members : sequence of int, optional
        Members of the committee to use; all by default.
    precision : {"float32", "float64"}
        Arithmetic of the networks.
    device : str
        A torch device.
    kernel : {"auto", "torch", "compiled"}
        See `ANIPotential`.

    Raises
    ------
    PotentialError
        Unknown name, or weights that are not installed.
    """
    known = _KNOWN.get(name.lower().replace("-", ""))
    if known is not None:
        path, about = find_model(known), known.about
        if path is None:
            raise PotentialError(
                f"{known.file} in a folder of MLMM_MODELS ({os.environ.get('MLMM_MODELS') or 'not set'})",
                "no such file",
                f"download it ({known.about['origin']}) and set MLMM_MODELS to the folder that holds it",
            )
    else:
        path, about = Path(name), {"name": Path(name).stem}
        if not path.exists():
            near = difflib.get_close_matches(name.lower(), _KNOWN, n=1)
            raise PotentialError(
                f"a potential's name ({', '.join(_KNOWN)}) or an existing file",
                repr(name),
                f'did you mean "{near[0]}"?' if near else "`mlmm models` lists the names",
            )
    if path.is_dir():
        parameters = read_neurochem(path)
    else:
        parameters, own = load_ani_file(path)
        about = about | own
    text = {
        key: about[key]
        for key in ("name", "trained_on", "level_of_theory", "licence", "citation")
        if key in about
    }
    return ANIPotential(
        parameters, members=members, precision=precision, device=device, kernel=kernel, **text
    )
