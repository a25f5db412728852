"""Labelled structures of others: extended XYZ, the HDF5 files of ANI-1x and of SPICE, an mlmm data set.

Nothing is guessed silently: units are those of the format or those that are stated, and numbers whose size
tells of other units are refused.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlmm.elements import SYMBOLS
from mlmm.errors import ConfigError, MissingPackageError
from mlmm.learning.dataset.inspection import check_units, refuse_units
from mlmm.learning.dataset.store import Dataset
from mlmm.reference.labels import Label, Molecule
from mlmm.units import ANGSTROM, BOHR, ELECTRONVOLT, HARTREE, KILOCALORIE

__all__ = ["KINDS", "import_labels"]

Pair = tuple[Molecule, Label]
KINDS = ("auto", "set", "extxyz", "ani", "spice")
_ENERGIES = {"kJ/mol": 1.0, "kcal/mol": KILOCALORIE, "eV": ELECTRONVOLT, "hartree": HARTREE}
_LENGTHS = {"nm": 1.0, "angstrom": ANGSTROM, "bohr": BOHR}
_CHARGE = re.compile(r"([+-])(\d*|[+-]*)\]")


def import_labels(
    path: str | Path,
    method: str = "",
    *,
    kind: str = "auto",
    level: str = "wb97x_dz",
    energy_unit: str = "eV",
    length_unit: str = "angstrom",
    energy_key: str = "energy",
    forces_key: str = "forces",
    most: int = 0,
    check: bool = True,
) -> list[Pair]:
    """Read labelled structures that somebody else made.

    Parameters
    ----------
    path : path
    method : str
        Level of theory; needed for extended XYZ without it, otherwise that of the file.
    kind : {"auto", "set", "extxyz", "ani", "spice"}
        By the name and content of the file: a folder is a data set of mlmm.
    level : str
        Which of several labels of an ANI file, such as "wb97x_dz", "wb97x_tz" or "ccsd(t)_cbs".
    energy_unit, length_unit : str
        Of extended XYZ: kJ/mol, kcal/mol, eV, hartree; nm, angstrom, bohr. Forces are energy over length.
    energy_key, forces_key : str
        Of extended XYZ, such as "REF_energy".
    most : int
        Read no more than that; 0 for all.
    check : bool
        False takes numbers as they are, whatever unit they look like.

    Returns
    -------
    list of (Molecule, Label)
        Each with its origin: file, group of the file, number of the frame.

    Raises
    ------
    ConfigError
        No such file, another format, a periodic structure, no level of theory, or other units.
    MissingPackageError
        h5py or ASE is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError("a file or folder with labelled structures", f"no {path}", "correct the path")
    if kind not in KINDS:
        raise ConfigError(f"kind = {' | '.join(KINDS)}", repr(kind), 'write kind = "auto"')
    kind = _kind(path) if kind == "auto" else kind
    energy, length = "hartree", {"ani": "angstrom", "spice": "bohr"}.get(kind, length_unit)
    if kind == "set":
        return list(itertools.islice(Dataset(path), most or None))
    pairs: Iterator[Pair]
    if kind == "extxyz":
        energy = energy_unit
        for value, known, what in ((energy, _ENERGIES, "energy_unit"), (length, _LENGTHS, "length_unit")):
            if value not in known:
                raise ConfigError(f"{what} = {' | '.join(known)}", repr(value), f'write {what} = "eV"')
        scale = (_ENERGIES[energy], _LENGTHS[length])
        pairs = _extxyz(path, method, scale, energy_key, forces_key)
    elif kind == "ani":
        pairs = _ani(path, method or level, level)
    else:
        pairs = _spice(path, method or "wB97M-D3(BJ)/def2-TZVPPD (SPICE)")
    found = list(itertools.islice(pairs, most or None))
    if not found:
        raise ConfigError(f"labelled structures in {path}", "none", "look at what is in the file")
    if check:
        # Gradients over angstrom in ANI files, over bohr in those of SPICE.
        findings = check_units(found[:: max(1, len(found) // 500)], energy, f"{energy}/{length}", length)
        do = "state energy_unit and length_unit as they are, or check = False if the numbers are right"
        refuse_units(findings, str(path), do)
    return found


def _kind(path: Path) -> str:
    if path.is_dir():
        return "set"
    if path.suffix.lower() in (".xyz", ".extxyz"):
        return "extxyz"
    if path.suffix.lower() in (".h5", ".hdf5"):
        with _opened(path) as file:
            return "spice" if any("conformations" in group for group in _groups(file)[:1]) else "ani"
    raise ConfigError(
        "a folder with a data set, .xyz, .extxyz, .h5 or .hdf5", str(path), 'write kind = "extxyz"'
    )


def _extxyz(
    path: Path, method: str, scale: tuple[float, float], energy_key: str, forces_key: str
) -> Iterator[Pair]:
    try:
        import ase.io
    except ImportError as error:
        raise MissingPackageError("ASE", str(error), "pip install 'mlmm[ase]'") from error
    energy_factor, length_factor = scale
    try:
        frames = enumerate(ase.io.iread(path, ":", format="extxyz"))
        for number, atoms in frames:
            where = f"frame {number} of {path}"
            if atoms.pbc.any():
                raise ConfigError(
                    f"molecules without periodic images in {where}",
                    f"pbc = {atoms.pbc.tolist()}",
                    'write pbc="F F F" where the images are of no meaning, or leave such frames out',
                )
            info: dict[str, Any] = atoms.info
            results = atoms.calc.results if atoms.calc is not None else {}
            energy = info.get(energy_key, results.get(energy_key))
            forces = atoms.arrays.get(forces_key, results.get(forces_key))
            level = method or str(info.get("method", ""))
            if energy is None or not level:
                known = ", ".join([*info, *results, *atoms.arrays])
                what = f"{energy_key}=…" if energy is None else "a level of theory"
                raise ConfigError(
                    f"{what} in {where}",
                    f"only {known}",
                    "name the entry with energy_key" if energy is None else "give it as method",
                )
            origin = {"run": path.name, "frame": str(number)}
            origin |= {k[7:]: str(v) for k, v in info.items() if k.startswith("origin_")}
            if "config_type" in info and "window" not in origin:
                origin["window"] = str(info["config_type"])
            molecule = Molecule(
                atoms.numbers,
                atoms.positions * length_factor,
                round(float(info.get("charge", info.get("total_charge", 0)))),
                int(info.get("multiplicity", info.get("spin", 1))),
                origin=origin,
            )
            label = Label(
                float(energy) * energy_factor,
                None if forces is None else np.asarray(forces) * (energy_factor / length_factor),
                converged=bool(info.get("converged", True)),
                method=level,
                record={"imported": path.name},
            )
            yield molecule, label
    except (ValueError, KeyError, IndexError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"extended XYZ in {path}", f"{type(error).__name__}: {error}", "correct the file"
        ) from error


def _ani(path: Path, method: str, level: str) -> Iterator[Pair]:
    """ANI-1x (groups by formula, several levels) or the older files (species, energies)."""
    with _opened(path) as file:
        for group in _groups(file):
            if "atomic_numbers" in group:
                numbers, names = group["atomic_numbers"][()], (f"{level}.energy", f"{level}.forces")
            elif "species" in group:
                numbers, names = _species(group["species"][()]), ("energies", "forces")
            else:
                continue
            if names[0] not in group:
                raise ConfigError(
                    f"{names[0]} in {path}{group.name}",
                    ", ".join(group),
                    'name one of these levels, such as level = "wb97x_dz"',
                )
            positions, energies = group["coordinates"], group[names[0]]
            forces = group.get(names[1])
            for k in range(len(energies)):
                # Structures that were not computed at this level have NaN.
                if math.isfinite(energies[k]):
                    of_forces = None if forces is None else forces[k] * (HARTREE / ANGSTROM)
                    if of_forces is not None and not np.isfinite(of_forces).all():
                        of_forces = None
                    yield _pair(
                        path,
                        group.name,
                        k,
                        numbers if numbers.ndim == 1 else numbers[k],
                        positions[k] * ANGSTROM,
                        0,
                        Label(float(energies[k]) * HARTREE, of_forces, method=method),
                    )


def _spice(path: Path, method: str) -> Iterator[Pair]:
    with _opened(path) as file:
        for group in _groups(file):
            if "dft_total_energy" not in group:
                continue
            energies, gradients = group["dft_total_energy"], group.get("dft_total_gradient")
            charges = group.get("mbis_charges")
            text = group["smiles"][()].reshape(-1)[0] if "smiles" in group else b""
            for k in range(len(energies)):
                if not math.isfinite(energies[k]):
                    continue
                around = None if charges is None else np.asarray(charges[k], dtype=float).reshape(-1)
                charge = _formal_charge(text) if around is None else round(float(around.sum()))
                gradient = None if gradients is None else gradients[k]
                yield _pair(
                    path,
                    group.name,
                    k,
                    group["atomic_numbers"][()],
                    group["conformations"][k] * BOHR,
                    charge,
                    Label(
                        float(energies[k]) * HARTREE,
                        None if gradient is None else -gradient * (HARTREE / BOHR),
                        charges=around,
                        method=method,
                    ),
                )


def _pair(
    path: Path, group: str, frame: int, numbers: Any, positions: Any, charge: int, label: Label
) -> Pair:
    origin = {"run": path.name, "window": group.strip("/"), "frame": str(frame)}
    record = {"imported": path.name}
    molecule = Molecule(numbers, np.asarray(positions, dtype=float), charge, origin=origin)
    return molecule, Label(
        label.energy,
        None if label.forces is None else np.asarray(label.forces, dtype=float),
        charges=label.charges,
        method=label.method,
        record=record,
    )


def _opened(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError("h5py", str(error), "pip install 'mlmm[learning]'") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(f"an HDF5 file at {path}", str(error), "fetch the file again") from error


def _groups(file: Any) -> list[Any]:
    """All groups that hold data, in the order of their names."""
    import h5py

    found: list[Any] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and any(isinstance(part, h5py.Dataset) for part in item.values()):
            found.append(item)

    visit("", file)
    file.visititems(visit)
    return found


def _species(values: Any) -> np.ndarray:
    """Atomic numbers from symbols or numbers."""
    table = np.asarray(values)
    if table.dtype.kind in "iu":
        return table
    symbols = [s.decode() if isinstance(s, bytes) else str(s) for s in table.reshape(-1).tolist()]
    return np.array([SYMBOLS.index(symbol) for symbol in symbols]).reshape(table.shape)


def _formal_charge(smiles: bytes | str) -> int:
    """Sum of the charges in brackets of a SMILES."""
    text = smiles.decode() if isinstance(smiles, bytes) else smiles
    total = 0
    for sign, more in _CHARGE.findall(re.sub(r":\d+", "", text)):
        size = int(more) if more.isdigit() else 1 + len(more)
        total += size if sign == "+" else -size
    return total
