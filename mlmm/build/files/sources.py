"""Sources of structure files: a path, folders of structures, the cache, wwPDB's file server."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import re
import urllib.error
import urllib.request
import zlib
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path

from mlmm.cache import cache_folder
from mlmm.errors import StructureError
from mlmm.whole_files import write_whole

logger = logging.getLogger(__name__)

#: wwPDB's archive; another mirror with the same layout can be named by MLMM_STRUCTURE_SERVER.
SERVER = "https://files.wwpdb.org/pub/pdb/data/structures/divided/mmCIF"
_ENTRY = re.compile(r"[0-9][A-Za-z0-9]{3}")
_ENDINGS = (".pdb", ".ent", ".pdb.gz", ".ent.gz", ".cif", ".cif.gz")
_LARGEST = 500_000_000  # bytes; the largest entries are a tenth of that


def is_entry(name: str | os.PathLike[str]) -> bool:
    """Return True if a name has the form of a PDB id: a digit and three letters or digits."""
    return bool(_ENTRY.fullmatch(str(name)))


def find_structure(
    name: str | os.PathLike[str], *, download: bool = False, sha256: str = "", timeout: float = 30.0
) -> Path:
    """Find a structure file by path or PDB id, and download it if that is allowed.

    A path is taken as it stands. A bare file name or a PDB id is looked for in the folders of
    ``MLMM_STRUCTURES``, then in the cache (`mlmm.cache.cache_folder`), and an id is fetched as mmCIF from
    wwPDB if `download` allows it.

    Parameters
    ----------
    name : path or str
        ``"my/input.pdb"``, ``"3PTB.cif"`` or ``"3PTB"``.
    download : bool
        Ask the server for an id that is found nowhere.
    sha256 : str
        Checksum that the file must have; empty for any.
    timeout : float
        Seconds without an answer after which a download is given up.

    Raises
    ------
    StructureError
        An id that is found nowhere, a download that failed, or a file with another checksum.
    """
    path = _locate(name, download, timeout)
    if sha256:
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
        if found != sha256.lower():
            raise StructureError(
                f"the checksum {sha256[:12]}… of [system] sha256",
                f"{found[:12]}… for {path}",
                "the file is another version: compare, then correct the checksum or the file",
            )
    return path


def _locate(name: str | os.PathLike[str], download: bool, timeout: float) -> Path:
    path = Path(name)
    try:
        if path.exists() or path.name != str(name):
            return path
    except (OSError, ValueError):
        return path
    folders = [Path(folder) for folder in os.environ.get("MLMM_STRUCTURES", "").split(os.pathsep) if folder]
    names = _file_names(str(name))
    for folder in folders:
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    if not is_entry(name):
        return path  # the reader says what lies beside it
    cached = cache_folder("structures") / f"{str(name).lower()}.cif.gz"
    if cached.is_file():
        _check_cached(cached)
        return cached
    if download:
        return _download(str(name).lower(), cached, timeout)
    looked = ", ".join(str(folder) for folder in [*folders, cache_folder("structures")])
    raise StructureError(
        f"the structure {name}",
        f"no file {', '.join(names[:3])} … in {looked}",
        "allow the download by --download of mlmm init or mlmm build, or by download = true in [system]; or "
        "put the file into a folder and name that folder in MLMM_STRUCTURES",
    )


def _file_names(name: str) -> list[str]:
    """Files that an entry may lie in, PDB format first: its messages name lines."""
    if not is_entry(name):
        return [name]
    stems = [name, name.upper(), name.lower(), f"pdb{name.lower()}"]
    return list(dict.fromkeys(stem + ending for ending in _ENDINGS for stem in stems))


def _facts_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _check_cached(path: Path) -> None:
    """Compare a cached file with the checksum that was written after its download."""
    again = f"delete {path} and download it again"
    try:
        expected = json.loads(_facts_of(path).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StructureError(
            "a download with its checksum beside it", f"{path} without ({error})", again
        ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise StructureError(f"{path.name} as it was downloaded", "another checksum: it was changed", again)


def _download(entry: str, target: Path, timeout: float) -> Path:
    """Fetch one entry, check that it is whole, and write it under its name at once."""
    server = os.environ.get("MLMM_STRUCTURE_SERVER", SERVER).rstrip("/")
    url = f"{server}/{entry[1:3]}/{entry}.cif.gz"
    expected, by_hand = (
        f"an answer from {url}",
        "try again later, or put the file into a folder of MLMM_STRUCTURES",
    )
    if not url.startswith(("http://", "https://")):
        raise StructureError("a server with http or https", repr(server), "correct MLMM_STRUCTURE_SERVER")
    logger.info("downloading %s", url)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            content = answer.read(_LARGEST + 1)
            announced = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        advice = "check the id" if error.code == 404 else by_hand
        raise StructureError(expected, f"{error.code} {error.reason}", advice) from error
    except (OSError, HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
        raise StructureError(expected, f"{type(error).__name__}: {error}", by_hand) from error
    try:
        whole = b"_atom_site." in gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        whole = False
    if not whole or len(content) > _LARGEST or (announced and int(announced) != len(content)):
        raise StructureError(
            f"a whole compressed mmCIF file from {url}", f"{len(content)} bytes that are none", by_hand
        )
    facts = {
        "url": url,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Facts first: a file under its own name always has its checksum beside it.
        for path, data in ((_facts_of(target), json.dumps(facts, indent=1).encode()), (target, content)):
            write_whole(path, data)
    except OSError as error:
        raise StructureError(
            f"a writable cache folder {target.parent}", str(error), "set MLMM_CACHE to a folder of yours"
        ) from error
    return target
