"""Potentials of strangers: code that touches files is refused before it is loaded, wherever it hides."""

import hashlib
import importlib.machinery
import os
import shutil
import sys
import types
import zipfile
from typing import Optional

import pytest
import torch
from test_adapters import FACTS, PairsInElectronvolt

import mlmm
from mlmm.errors import PotentialError
from mlmm.potentials import known_potentials, save_torchscript
from mlmm.potentials.contract.probes import random_molecule
from mlmm.potentials.install import install_model

PLACE = "/nowhere/harm"  # in the compiled code; the tests write their own in its place


class Writes(PairsInElectronvolt):
    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], numbers: torch.Tensor
    ) -> torch.Tensor:
        torch.save(positions, "/nowhere/harm")
        return positions.sum(dim=1)


class Maps(PairsInElectronvolt):
    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], numbers: torch.Tensor
    ) -> torch.Tensor:
        return positions.sum(dim=1) + torch.from_file("/nowhere/harm", True, 3).sum()


def helper(positions: torch.Tensor) -> torch.Tensor:
    torch.save(positions, "/nowhere/harm")
    return positions.sum(dim=1)


class Forks(PairsInElectronvolt):
    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], numbers: torch.Tensor
    ) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(helper, positions))


class Below(PairsInElectronvolt):
    """The harm is done by a module inside."""

    def __init__(self):
        super().__init__()
        self.inner = Writes()

    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], numbers: torch.Tensor
    ) -> torch.Tensor:
        return self.inner(positions, cell, numbers)


class WhileLoading(torch.nn.Module):
    def forward(
        self, positions: torch.Tensor, cell: Optional[torch.Tensor], numbers: torch.Tensor
    ) -> torch.Tensor:
        return positions.sum(dim=1)

    @torch.jit.export
    def __getstate__(self):
        return (torch.zeros(1), self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.training = state[1]
        torch.save(state[0], "/nowhere/harm")


def made(module, target, place, change=None):
    """A file of the module, its code written by hand where the compiler would not write it so."""
    save_torchscript(module, target.with_suffix(".first"), FACTS)
    with zipfile.ZipFile(target.with_suffix(".first")) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(".py"):
                text = content.decode().replace(PLACE, str(place))
                content = (change(text) if change else text).encode()
            new.writestr(entry.filename, content)
    return target


HARM = {
    "forward": (Writes, None, r"reads or writes files \(\.save\) in code/.*py, line \d+"),
    "from_file": (Maps, None, r"reads or writes files \(\.from_file\)"),
    "fork": (Forks, None, r"\(\.save\)"),
    "submodule": (Below, None, r"\(\.save\)"),
    "loading": (WhileLoading, None, "runs while the file is loaded|reads or writes"),
    "by another name": (
        Writes,
        lambda text: text.replace("torch.save(", "f = torch.  save\n    f("),
        r"\(\.  save\)",
    ),
    "by text": (
        Writes,
        lambda text: text.replace("torch.save(", 'getattr(torch, "save")('),
        "looked up by text",
    ),
    "by library": (Writes, lambda text: text.replace("torch.save(", "(ops.aten).save("), r"\(\.save\)"),
}


@pytest.mark.parametrize("kind", HARM)
def test_code_that_touches_files_is_refused_before_it_is_loaded(tmp_path, kind):
    module, change, words = HARM[kind]
    marker = tmp_path / "ran"
    path = made(module(), tmp_path / "bad.pt", marker, change)
    problem = None
    try:
        use(path)
    except PotentialError as error:
        problem = error
    assert not marker.exists()
    with pytest.raises(PotentialError, match=f"Expected trust in .*{words}.*trust = true"):
        raise problem
    # Negative control: whoever trusts the file has the harm.
    use(path, trust=True)
    assert marker.exists()


def use(path, **options):
    return mlmm.load_potential(str(path), **options).atom_energies(random_molecule([1, 6, 8]))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("x = ops.quantized.add", "an operator of another library"),
        ("x = ops", "an operator of another library"),
        ("x = __torch__.torch.classes.quantized.Conv2dPackedParamsBase", "a class of a compiled library"),
        ("x = rpc_sync", "an operator that runs on other machines"),
    ],
)
def test_what_cannot_be_judged_from_its_source_is_refused(tmp_path, line, words):
    def change(text):
        return text.replace("    torch.save", f"    {line}\n    torch.save").replace("torch.save", "print")

    with pytest.raises(PotentialError, match=words):
        mlmm.load_potential(str(made(Writes(), tmp_path / "bad.pt", PLACE, change)))


def test_a_class_of_a_library_among_the_weights_is_refused(tmp_path):
    path = made(PairsInElectronvolt(), tmp_path / "bad.pt", PLACE)
    with zipfile.ZipFile(path, "a") as archive:
        root = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{root}/more.pkl", b"\x80\x02c__torch__.torch\nclasses.quantized.X\n.")
    with pytest.raises(PotentialError, match=r"a class of a compiled library in more\.pkl"):
        mlmm.load_potential(str(path))


def test_words_alone_are_no_harm(tmp_path):
    """A file of arithmetic passes, also rewritten by another program and under another name."""
    path = made(PairsInElectronvolt(), tmp_path / "good.pt", PLACE)
    shutil.copy(path, tmp_path / "save.pt")
    assert use(tmp_path / "save.pt").energies.isfinite().all()


def test_a_file_with_a_known_name_is_trusted_by_its_checksum_alone(tmp_path, monkeypatch):
    """AIMNet2's package reads pickles: another file of that name in MLMM_MODELS never reaches it."""
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(ran),))

    known = next(entry for entry in known_potentials() if entry.name == "aimnet2")
    path = tmp_path / known.file
    torch.save(Evil(), path)
    package = types.ModuleType("aimnet")
    package.__spec__ = importlib.machinery.ModuleSpec("aimnet", None)
    calculators = types.ModuleType("aimnet.calculators")
    calculators.AIMNet2Calculator = lambda file, device: torch.load(file, weights_only=False)
    monkeypatch.setitem(sys.modules, "aimnet", package)
    monkeypatch.setitem(sys.modules, "aimnet.calculators", calculators)
    monkeypatch.setenv("MLMM_MODELS", str(tmp_path))
    for load in (mlmm.load_potential, install_model):
        problem = None
        try:
            load("aimnet2")
        except (PotentialError, AttributeError) as error:
            problem = error
        assert not ran.exists()
        assert "another file of that name" in str(problem) and known.source["sha256"] in str(problem)
    # Negative control: with trust, or with the checksum of this very file, it is read.
    with pytest.raises(AttributeError):
        mlmm.load_potential("aimnet2", trust=True)
    assert ran.exists()
    ran.rmdir()
    monkeypatch.setitem(known.source, "sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    assert install_model("aimnet2") == path
    with pytest.raises(AttributeError):
        mlmm.load_potential("aimnet2")
    assert ran.exists()
