"""The published networks of AIQM2: where they are looked for, how they are fetched and read.

They are not part of this package: the repository of MLatom (https://github.com/dralgroup/mlatom) states the
Apache License 2.0, the licence file in its wheel is CC BY-NC-ND 4.0. Both are to be read before use.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.cache import cache_folder
from mlmm.errors import PotentialError
from mlmm.potentials.install import fetch_wheel
from mlmm.potentials.known import file_sha256
from mlmm.whole_files import write_whole

__all__ = ["LICENCE", "find_networks", "install_networks", "read_networks"]

LICENCE = (
    "The networks of AIQM2 come from MLatom 3.25.5. Its repository (https://github.com/dralgroup/mlatom) "
    "states the Apache License 2.0; LICENSE.txt in its wheel is CC BY-NC-ND 4.0, which forbids commercial "
    "use and sharing of adapted material. Read both. To cite: AIQM2, doi:10.5281/zenodo.15383333; MLatom, "
    "doi:10.1021/acs.jctc.3c01203."
)
ELEMENTS = ("H", "C", "N", "O")
_WHEEL, _WHEEL_SHA256 = "mlatom==3.25.5", "5faad6801b85639ba41c6045c37454f126e6fec3907d7d8cb7932fc0bee65dbb"
_IN_WHEEL = "mlatom/mlatom_models/aiqm2_model"
_SHA256 = (
    "6333717538b04e869d976858ed500cd1f33dd18e9fbb98ab46c484ed49ac6829",
    "b211e327460a2aeca15038f2772c46621062fc6c9a4735535310ff5bffd5f4de",
    "f3fd0741deeabd760aec47a59f504aea61318221f9209d7ddec60afb2db8d85c",
    "81a6adca75a29bff9588ad5c5fab0882d5a98d0ac38333c3286b0917d4264e29",
    "583f10835e1b6e4328bc5836983035acbc7c1f0ea1b8059d6d65a94929baf7f1",
    "1d73d738486c4999edcc5003ea6b55da1a613122995baf18e5118408036c2c3f",
    "7aa762ddea208280c6ee6c6bf4b07fb498e59b6a49d917568eceb7f46a2003ff",
    "b6f5a6892b87e009c14d37e65034d0427aa083cdf52e06911791074ded12c648",
)
_HIDDEN = (0, 2, 4, 6)  # places of the affine layers in the published sequence


def find_networks(path: str = "") -> Path:
    """Find the folder with ``cv0.pt`` … ``cv7.pt``.

    Looked for in `path`, in ``aiqm2`` and ``aiqm2_model`` of the folders of ``MLMM_MODELS``, in an installed
    mlatom, then in the cache.

    Raises
    ------
    PotentialError
        Not there; the message says how to fetch them.
    """
    places = [Path(path)] if path else []
    if not path:
        for folder in os.environ.get("MLMM_MODELS", "").split(os.pathsep):
            places += [Path(folder) / name for name in ("aiqm2", "aiqm2_model") if folder]
        package = importlib.util.find_spec("mlatom")
        for found in (package.submodule_search_locations or []) if package is not None else []:
            places.append(Path(found) / "mlatom_models/aiqm2_model")
        places.append(cache_folder("models") / "aiqm2")
    for place in places:
        if (place / "cv0.pt").is_file():
            return place
    raise PotentialError(
        "the networks of AIQM2, cv0.pt to cv7.pt" + (f", in {path}" if path else ""),
        "none",
        "mlmm label --install aiqm2, which shows their licence, or copy mlatom/mlatom_models/aiqm2_model of "
        "MLatom's repository to aiqm2 in a folder of MLMM_MODELS",
    )


def install_networks(progress: Callable[[str], None]) -> Path:
    """Fetch the networks into the cache, with the licence file of the wheel beside them, unless there.

    Raises
    ------
    PotentialError
        No answer from the package index, or other files than the published ones.
    """
    try:
        return find_networks()
    except PotentialError:
        pass
    target, downloads = cache_folder("models") / "aiqm2", cache_folder("models") / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    archive = fetch_wheel(_WHEEL, _WHEEL_SHA256, downloads, progress)
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as file:
        licence = next(name for name in file.namelist() if name.endswith("dist-info/LICENSE.txt"))
        # The first network last: a folder that has it is complete.
        members = [(licence, "LICENSE.txt")]
        members += [(f"{_IN_WHEEL}/cv{k}.pt", f"cv{k}.pt") for k in reversed(range(len(_SHA256)))]
        for inside, name in members:
            write_whole(target / name, file.read(inside))
    return target


def read_networks(folder: Path) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Weights (8, outputs, inputs) and biases (8, outputs) of each layer, by element; float32.

    A file also holds a module of the same shape that was never trained; the trained numbers are its ``nn``.

    Raises
    ------
    PotentialError
        A file that is missing or is not the published one.
    """
    states = []
    for k, sha256 in enumerate(_SHA256):
        path = folder / f"cv{k}.pt"
        found = file_sha256(path) if path.is_file() else "no such file"
        if found != sha256:
            raise PotentialError(
                f"{path} as published (sha256 {sha256})", found, "fetch the networks of AIQM2 again"
            )
        states.append(_trained_state(path))
    layers = {}
    for element in ELEMENTS:
        layers[element] = [
            tuple(np.stack([s[f"{element}.{layer}.{kind}"] for s in states]) for kind in ("weight", "bias"))
            for layer in _HIDDEN
        ]
    return layers  # type: ignore[return-value]


class _ArraysOnly(pickle.Unpickler):
    """Reads arrays of a file of ``torch.save`` and nothing else: no class that it names is imported."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str):
        super().__init__(archive.open(f"{prefix}/data.pkl"))
        self._archive, self._prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if name == "OrderedDict":
            return dict
        return {"_rebuild_tensor_v2": _array, "_rebuild_parameter": lambda data, *_: data}.get(name, _Opaque)

    def persistent_load(self, identifier: Any) -> np.ndarray | None:
        content = self._archive.read(f"{self._prefix}/data/{identifier[2]}")
        # Everything else than float32 belongs to the untrained module.
        return np.frombuffer(content, dtype="<f4") if len(content) == 4 * identifier[4] else None


class _Opaque:
    """In place of any class that a file names."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass


def _array(
    storage: np.ndarray | None, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray | None:
    if storage is None:
        return None
    flat = storage[offset:]
    return np.lib.stride_tricks.as_strided(flat, shape, [4 * stride for stride in strides]).copy()


def _trained_state(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        prefix = archive.namelist()[0].partition("/")[0]
        return _ArraysOnly(archive, prefix).load()["nn"]
