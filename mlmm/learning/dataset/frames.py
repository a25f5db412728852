"""One labelled structure as a frame in extended XYZ (Å, eV, e), with a checksum of its own.

Point charges stand in a side file, in binary: hundreds of them for a frame would make the text ten times as
long as the molecule. Every frame is plain extended XYZ, so that ASE and the trainers that read it do.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError
from mlmm.reference.labels import Label, Molecule, PointCharges
from mlmm.units import ANGSTROM, ELECTRONVOLT

__all__ = [
    "Frame",
    "FrameHead",
    "frame_content",
    "frame_end",
    "frame_head",
    "frame_text",
    "molecule_key",
    "parse_frame",
    "point_charge_bytes",
    "side_length",
    "side_range",
    "with_point_charges",
]

_ENTRY = re.compile(r'(\w+)=("(?:\\.|[^"\\])*"|\S+)')
_NAME = re.compile(r"[A-Za-z_]\w*")
_CHECKSUM = b" crc="
_FORCE = ELECTRONVOLT / ANGSTROM  # kJ/mol/nm per eV/Å
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}


@dataclass(frozen=True)
class Frame:
    """A frame that was parsed.

    Parameters
    ----------
    molecule : Molecule
        Without its point charges.
    label : Label
        Without the forces on them.
    key : str
        See `molecule_key`.
    side : tuple of (int, int, bool), optional
        Where the point charges are in the side file, how many, and whether forces on them follow.
    """

    molecule: Molecule
    label: Label
    key: str
    side: tuple[int, int, bool] | None


def molecule_key(molecule: Molecule) -> str:
    """A molecule's identity: elements, positions, charge, multiplicity and point charges, bit by bit.

    Where it comes from is no part of it. 32 hexadecimal digits of a SHA-256.
    """
    parts = [molecule.numbers.astype("<i8"), molecule.positions.astype("<f8")]
    if molecule.external is not None:
        parts += [molecule.external.positions.astype("<f8"), molecule.external.charges.astype("<f8")]
    digest = hashlib.sha256(struct.pack("<qqq", len(molecule), molecule.charge, molecule.multiplicity))
    for part in parts:
        digest.update(part.tobytes())
    return digest.hexdigest()[:32]


def point_charge_bytes(molecule: Molecule, label: Label) -> bytes:
    """Point charges as the side file holds them: positions (nm), charges (e), forces (kJ/mol/nm) if any."""
    if molecule.external is None:
        return b""
    parts = [molecule.external.positions, molecule.external.charges]
    if label.external_forces is not None:
        parts.append(np.asarray(label.external_forces))
    return b"".join(np.ascontiguousarray(part, dtype="<f8").tobytes() for part in parts)


def frame_text(molecule: Molecule, label: Label, offset: int = 0, *, side: bool = True) -> bytes:
    """Write a frame.

    Parameters
    ----------
    molecule : Molecule
    label : Label
    offset : int
        Of its point charges in the side file.
    side : bool
        False leaves them out, for a file that stands alone.

    Raises
    ------
    ConfigError
        Names of `origin` or `record` that are none.
    """
    columns = [molecule.positions / ANGSTROM]
    properties = "species:S:1:pos:R:3"
    if label.forces is not None and np.isfinite(label.forces).all():
        columns.append(np.asarray(label.forces) / _FORCE)
        properties += ":forces:R:3"
    if label.charges is not None:
        columns.append(np.asarray(label.charges, dtype=float).reshape(-1, 1))
        properties += ":charges:R:1"
    # The key first: no text that a user gives comes before it.
    entries = [f"Properties={properties}", f"key={molecule_key(molecule)}"]
    if math.isfinite(label.energy):
        entries.append(f"energy={float(label.energy) / ELECTRONVOLT!r}")
    if label.dipole is not None:
        entries.append('dipole="' + " ".join(map(repr, (np.asarray(label.dipole) / ANGSTROM).tolist())) + '"')
    entries += [
        f"charge={molecule.charge}",
        f"multiplicity={molecule.multiplicity}",
        f"converged={'T' if label.converged else 'F'}",
        f"method={_quoted(label.method)}",
        'pbc="F F F"',
    ]
    for prefix, facts in (("origin", molecule.origin), ("record", label.record)):
        for name, text in facts.items():
            if not _NAME.fullmatch(f"{prefix}_{name}"):
                raise ConfigError(
                    f"names of letters, digits and _ in the {prefix} of a structure", repr(name), "rename it"
                )
            entries.append(f"{prefix}_{name}={_quoted(str(text))}")
    if side and molecule.external is not None:
        content = point_charge_bytes(molecule, label)
        forces = "T" if label.external_forces is not None else "F"
        entries.append(
            f'point_charges="{offset} {len(molecule.external)} {forces} {zlib.crc32(content):08x}"'
        )
    rows = np.hstack(columns).tolist()
    lines = [
        f"{SYMBOLS[number]} {' '.join(map(repr, row))}"
        for number, row in zip(molecule.numbers.tolist(), rows, strict=True)
    ]
    head = f"{len(molecule)}\n{' '.join(entries)}".encode()
    tail = ("\n" + "\n".join(lines) + "\n").encode()
    return head + _CHECKSUM + f"x{zlib.crc32(tail, zlib.crc32(head)):08x}".encode() + tail


def frame_end(data: bytes, start: int) -> int | None:
    """Where the frame ends that begins at `start`; None where there is no whole frame with its checksum."""
    newline = data.find(b"\n", start)
    if newline < 0 or not data[start:newline].isdigit():
        return None
    comment = data.find(b"\n", newline + 1)
    if comment < 0:
        return None
    end = comment
    for _ in range(int(data[start:newline])):
        end = data.find(b"\n", end + 1)
        if end < 0:
            return None
    mark = data.rfind(_CHECKSUM, newline, comment)
    if mark < 0:
        return None
    expected = zlib.crc32(data[comment : end + 1], zlib.crc32(data[start:mark]))
    return end + 1 if data[mark + len(_CHECKSUM) : comment] == f"x{expected:08x}".encode() else None


def side_range(text: bytes) -> tuple[int, int, bool, str] | None:
    """Offset, number, whether forces follow, and checksum of the point charges of a frame."""
    found = re.search(rb' point_charges="(\d+) (\d+) ([TF]) (\w+)"', text)
    if found is None:
        return None
    return int(found[1]), int(found[2]), found[3] == b"T", found[4].decode()


def side_length(count: int, forces: bool) -> int:
    """Bytes of so many point charges in the side file."""
    return 8 * count * (7 if forces else 4)


def frame_content(text: bytes) -> bytes:
    """What was computed: a frame without record, place in the side file and checksum."""
    comment = text.index(b"\n", text.index(b"\n") + 1)
    head, tail = text[: text.rindex(_CHECKSUM, 0, comment)], text[comment:]
    head = re.sub(rb' record_\w+="(?:\\.|[^"\\])*"', b"", head)
    head = re.sub(rb' point_charges="\d+ ', b' point_charges="', head)
    return head + tail


@dataclass(frozen=True)
class FrameHead:
    """The part of a frame that is read without its atoms: `key`, `converged` and `origin`."""

    key: str
    converged: bool
    origin: dict[str, str]


def frame_head(text: bytes) -> FrameHead:
    """Read the comment of a frame."""
    entries = _entries(text.split(b"\n", 2)[1].decode())
    return FrameHead(entries["key"], entries["converged"] == "T", _facts(entries, "origin"))


def parse_frame(text: bytes) -> Frame:
    """Read a frame that `frame_text` wrote."""
    first, comment, rows = text.decode().split("\n", 2)
    entries = _entries(comment)
    properties = entries["Properties"].split(":")
    widths = {properties[k]: int(properties[k + 2]) for k in range(0, len(properties), 3)}
    table = np.array(rows.split()).reshape(int(first), sum(widths.values()))
    numbers = np.array([_NUMBERS[symbol] for symbol in table[:, 0]])
    values = table[:, 1:].astype(float)
    at, columns = 0, {}
    for name, width in list(widths.items())[1:]:
        columns[name], at = values[:, at : at + width], at + width
    molecule = Molecule(
        numbers,
        columns["pos"] * ANGSTROM,
        int(entries["charge"]),
        int(entries["multiplicity"]),
        origin=_facts(entries, "origin"),
    )
    label = Label(
        float(entries["energy"]) * ELECTRONVOLT if "energy" in entries else math.nan,
        columns["forces"] * _FORCE if "forces" in columns else None,
        charges=columns["charges"][:, 0] if "charges" in columns else None,
        dipole=np.array(entries["dipole"].split(), dtype=float) * ANGSTROM if "dipole" in entries else None,
        converged=entries["converged"] == "T",
        method=entries["method"],
        record=_facts(entries, "record"),
    )
    side = side_range(text)
    return Frame(molecule, label, entries["key"], None if side is None else side[:3])


def with_point_charges(frame: Frame, content: bytes) -> tuple[Molecule, Label]:
    """Add the point charges of the side file to a frame."""
    assert frame.side is not None
    _, count, forces = frame.side
    values = np.frombuffer(content, dtype="<f8").astype(float)
    positions, charges = values[: 3 * count].reshape(count, 3), values[3 * count : 4 * count]
    on_charges = values[4 * count :].reshape(count, 3) if forces else None
    molecule = replace(frame.molecule, external=PointCharges(positions, charges))
    return molecule, replace(frame.label, external_forces=on_charges)


def _entries(comment: str) -> dict[str, str]:
    return {name: _unquoted(value) for name, value in _ENTRY.findall(comment)}


def _facts(entries: dict[str, str], prefix: str) -> dict[str, str]:
    start = f"{prefix}_"
    return {name[len(start) :]: value for name, value in entries.items() if name.startswith(start)}


def _quoted(text: str) -> str:
    flat = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{flat}"'


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
