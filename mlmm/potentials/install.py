"""Fetching weights: into the cache, with a checksum, going on where an interrupted download stopped."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from mlmm.cache import cache_folder
from mlmm.errors import PotentialError
from mlmm.potentials.known import KnownPotential, check_checksum, file_sha256, find_model, known_potentials
from mlmm.whole_files import write_whole

__all__ = ["contents_digest", "fetch", "fetch_wheel", "install_model"]

logger = logging.getLogger(__name__)
_BLOCK = 1 << 18
_TIMEOUT = 60  # s without a byte


def install_model(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Fetch the weights of a potential into the cache, unless they are there.

    Parameters
    ----------
    name : str
        As ``mlmm models`` lists it.
    progress : callable, optional
        Called with what is done.

    Returns
    -------
    Path
        Where the weights are.

    Raises
    ------
    PotentialError
        An unknown name, nothing that could be fetched, no network, or another checksum.
    """
    entries = {known.name.replace("-", ""): known for known in known_potentials()}
    known = entries.get(name.lower().replace("-", ""))
    if known is None:
        raise PotentialError(
            f"one of {', '.join(k.name for k in known_potentials())}", repr(name), "correct it"
        )
    found = find_model(known)
    if found is not None:
        check_checksum(known, found)
        return found
    if not known.source:
        raise PotentialError(
            f"weights of {known.about['name']} to fetch", "those of its package", f"type {known.install}"
        )
    progress = progress or (lambda _: None)
    target = cache_folder("models") / known.file
    downloads = cache_folder("models") / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    if "wheel" in known.source:
        archive = fetch_wheel(known.source["wheel"], known.source["sha256"], downloads, progress)
    else:
        progress(f"fetching {known.source['url']}")
        archive = fetch(
            known.source["url"], downloads / Path(known.source["url"]).name, known.source.get("sha256")
        )
    if "folder" in known.source:
        progress(f"unpacking {known.source['folder']}")
        _unpack(archive, known, target)
    else:
        write_whole(target, archive.read_bytes())
    if "sha256" not in known.source and "contents" not in known.source:
        logger.warning(
            "%s has no published checksum; that of this file is %s", known.name, file_sha256(archive)
        )
    return target


def fetch(url: str, target: Path, sha256: str | None = None) -> Path:
    """Download a file; what an interrupted call left in ``target.part`` is kept and gone on with.

    Parameters
    ----------
    url : str
    target : Path
    sha256 : str, optional
        Of the whole file; a file that is there with this checksum is not fetched again.

    Raises
    ------
    PotentialError
        No connection, or another checksum: then nothing is left behind.
    """
    if target.exists() and sha256 and file_sha256(target) == sha256:
        return target
    part = target.with_name(target.name + ".part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            # A server without ranges sends everything from the start.
            going_on = done > 0 and answer.status == 206
            with part.open("ab" if going_on else "wb") as file:
                shutil.copyfileobj(answer, file, _BLOCK)
                expected = answer.headers.get("Content-Length")
                got = file.tell() - (done if going_on else 0)
        if expected is not None and got < int(expected):
            raise OSError(f"connection closed after {got} of {expected} bytes")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the part is the whole already
            raise _no_connection(url, error) from error
    except OSError as error:
        raise _no_connection(url, error) from error
    if sha256 and file_sha256(part) != sha256:
        found = file_sha256(part)
        part.unlink()
        raise PotentialError(
            f"a file with sha256 {sha256} at {url}", found, "try again; it may have been cut short"
        )
    os.replace(part, target)
    return target


def contents_digest(folder: Path) -> str:
    """sha256 over names and contents of the files that define a NeuroChem committee."""
    digest = hashlib.sha256()
    wanted = (".params", ".dat", ".nnf", ".wparam", ".bparam")
    for path in sorted(p for p in folder.rglob("*") if p.suffix in wanted and p.name != "cost.dat"):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def fetch_wheel(wheel: str, sha256: str, downloads: Path, progress: Callable[[str], None]) -> Path:
    """Fetch a wheel from PyPI by pip itself, whatever index it is set up for.

    Parameters
    ----------
    wheel : str
        Such as ``torchani==1.2``.
    sha256 : str
        Of the file; one that is among `downloads` is not fetched again.
    downloads : Path
        Folder for it.
    progress : callable
        Called with what is done.

    Raises
    ------
    PotentialError
        No answer from the index, or another checksum.
    """
    for path in downloads.glob("*.whl"):
        if file_sha256(path) == sha256:
            return path
    progress(f"pip download {wheel}")
    # Into a folder of its own first: a file in the cache is a whole file.
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "-d", folder, wheel]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel"]
            raise PotentialError(f"{wheel} from PyPI", lines[-1], "see whether pip reaches its index")
        found = file_sha256(wheels[0])
        if found != sha256:
            raise PotentialError(f"{wheels[0].name} with sha256 {sha256}", found, "try again")
        os.replace(wheels[0], downloads / wheels[0].name)
        return downloads / wheels[0].name


def _unpack(archive: Path, known: KnownPotential, target: Path) -> None:
    """One folder of an archive, checked and then moved into place at once."""
    prefix = known.source["folder"].rstrip("/") + "/"
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        try:
            with zipfile.ZipFile(archive) as file:
                names = [name for name in file.namelist() if name.startswith(prefix)]
                file.extractall(scratch, names)
        except zipfile.BadZipFile as error:
            raise PotentialError(f"an archive in {archive}", str(error), "delete it and try again") from error
        folder = Path(scratch) / prefix
        if not names or ("contents" in known.source and contents_digest(folder) != known.source["contents"]):
            raise PotentialError(
                f"the published folder {prefix} in {archive.name}",
                "another one" if names else "none",
                "try again, or get it by hand and set MLMM_MODELS",
            )
        os.replace(folder, target)


def _no_connection(url: str, error: Exception) -> PotentialError:
    return PotentialError(
        f"an answer from {url}",
        str(error),
        "try again later: what has arrived is kept; or get the file by hand",
    )
