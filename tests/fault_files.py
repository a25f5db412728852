"""Files of strangers whose code must not run, for `fault_table.py`: each makes a folder if it does."""

from __future__ import annotations

import hashlib
import importlib.machinery
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import openmm
import torch
from openmm import app, unit
from test_foreign_files import Writes, made
from test_foreign_xml import CODE, PDB, Harm, force_field, with_harm
from toys import chains

import mlmm
from mlmm.build.foreign_xml import read_serialised
from mlmm.build.parametrised.serialised import load_openmm
from mlmm.errors import MLMMError
from mlmm.potentials import known_potentials


def foreign_files(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Fault, what was said, exit status and the harm that was done, for each kind of file."""
    place = folder / "foreign"
    place.mkdir()
    for fault, use in (
        ("<Script> in a ligand's XML", _script("script")),
        ("<InitializationScript> in a ligand's XML", _script("at the start")),
        ("Python in useDispersionCorrection", _script("evaluated")),
        ("pickled PythonForce in [system] xml", _system),
        ("TorchForce in a System's XML", _torchforce),
        ("PythonForce in a saved build", _built),
        ("PythonForce in a checkpoint's State", _state),
        ("TorchScript with aten::save", _torchscript),
        ("AIMNet2's name, another checksum", _named),
    ):
        ran = place / "ran"
        said, status = "not refused", "0"
        try:
            use(place, ran)
        except MLMMError as error:
            said, status = str(error), "2"
        except Exception as error:
            said, status = f"TRACEBACK {type(error).__name__}: {error}", "1"
        harmed = "code ran" if ran.exists() else "" if status == "2" else "not refused"
        if ran.exists():
            ran.rmdir() if ran.is_dir() else ran.unlink()
        yield fault, said, status, harmed


def _script(kind: str) -> Callable[[Path, Path], object]:
    def use(place: Path, ran: Path) -> object:
        bad = force_field(CODE[kind][0].format(str(ran)), place / "bad.xml")
        return mlmm.build_system(PDB, solvate=False, ligands=[bad])

    return use


def _model(place: Path) -> Path:
    built = chains(box=None)
    with open(place / "model.cif", "w", encoding="utf-8") as file:
        app.PDBxFile.writeFile(built.topology, built.positions * unit.nanometer, file)
    return place / "model.cif"


def _system(place: Path, ran: Path) -> object:
    (place / "system.xml").write_text(with_harm(chains(box=None).system, ran))
    return load_openmm(place / "system.xml", _model(place))


def _torchforce(place: Path, ran: Path) -> object:
    text = openmm.XmlSerializer.serialize(chains(box=None).system)
    force = f'<Force type="TorchForce" version="2" file="{ran}" encodedFile="00"/></Forces>'
    (place / "system.xml").write_text(text.replace("</Forces>", force))
    return load_openmm(place / "system.xml", _model(place))


def _built(place: Path, ran: Path) -> object:
    folder = chains(box=None).save(place / "built")
    bad = with_harm(chains(box=None).system, ran)
    (folder / "system.xml").write_text(bad)
    index = json.loads((folder / "built.json").read_text())
    index["sha256"]["system.xml"] = hashlib.sha256(bad.encode()).hexdigest()
    (folder / "built.json").write_text(json.dumps(index))
    return mlmm.BuiltSystem.load(folder)


def _state(place: Path, ran: Path) -> object:
    harm = openmm.XmlSerializer.serialize(openmm.PythonForce(Harm(ran)))
    return read_serialised(harm, "State", "state.xml of the checkpoint")


def _torchscript(place: Path, ran: Path) -> object:
    return mlmm.load_potential(str(made(Writes(), place / "bad.pt", ran)))


def _named(place: Path, ran: Path) -> object:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(ran),))

    known = next(entry for entry in known_potentials() if entry.name == "aimnet2")
    torch.save(Evil(), place / known.file)
    package, calculators = types.ModuleType("aimnet"), types.ModuleType("aimnet.calculators")
    package.__spec__ = importlib.machinery.ModuleSpec("aimnet", None)
    calculators.AIMNet2Calculator = lambda file, device: torch.load(file, weights_only=False)  # type: ignore
    sys.modules |= {"aimnet": package, "aimnet.calculators": calculators}
    before = os.environ.get("MLMM_MODELS")
    os.environ["MLMM_MODELS"] = str(place)
    try:
        return mlmm.load_potential("aimnet2")
    finally:
        os.environ.pop("MLMM_MODELS")
        if before is not None:
            os.environ["MLMM_MODELS"] = before
