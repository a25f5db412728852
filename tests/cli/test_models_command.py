"""`mlmm models`: what is listed is what is loaded; installation with checksums; names of other packages."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from toys import PlainSprings

import mlmm
from mlmm.cli.program import main
from mlmm.elements import SYMBOLS
from mlmm.errors import PotentialError
from mlmm.potentials import install
from mlmm.potentials import known as entries
from mlmm.potentials.known import KnownPotential, find_model, known_potentials


def entry(name):
    return next(known for known in known_potentials() if known.name == name)


def ran(*arguments, capsys):
    status = main(["models", *arguments])
    return status, capsys.readouterr()


def test_models_table_has_elements_charges_licence_and_state(capsys, monkeypatch):
    monkeypatch.delenv("MLMM_MODELS", raising=False)
    status, printed = ran(capsys=capsys)
    assert status == 0
    lines = {line.split()[0]: line for line in printed.out.splitlines() if line.strip()}
    for name in (
        "ani1x",
        "ani1ccx",
        "ani2x",
        "mace-off23-small",
        "mace-off24-medium",
        "aimnet2",
        "sevennet0",
    ):
        assert f"\n{name} " in printed.out
    assert re.search(
        r"\nani1x +H C N O +0\.52 +yes +no +total +per_atom supermolecular additive +MIT +installed\n",
        printed.out,
    )
    assert re.search(r"\naimnet2 .* inf +no +yes +total +additive +MIT", printed.out)
    assert "pip install mace-torch==0.3.16 && mlmm models install mace-off23-small" in printed.out
    assert "10.1063/1.5023802" in printed.out and "FILE.pt" in lines and "ase:NAME" in lines


def test_the_list_agrees_with_the_models():
    """For what is installed, the table says what the loaded potential says."""
    seen = 0
    for known in known_potentials():
        if known.kind != "ani" or find_model(known) is None:
            continue
        spec = mlmm.load_potential(known.name, members=[0]).spec
        seen += 1
        assert [SYMBOLS[z] for z in spec.elements] == known.about["elements"].split()
        assert (spec.cutoff, spec.receptive_field) == pytest.approx((known.cutoff, known.receptive_field))
        assert (spec.per_atom, spec.charges) == (known.per_atom, known.charges)
        for key in ("name", "trained_on", "level_of_theory", "licence"):
            assert getattr(spec, key) == known.about[key], key
    assert seen >= 1


def test_show_check_and_their_mistakes(capsys, tmp_path):
    status, printed = ran("show", "ani1x", capsys=capsys)
    assert status == 0 and "isolated atoms" in printed.out and "hartree" not in printed.out
    status, printed = ran("show", "mace-off23-large", capsys=capsys)
    assert status == 0 and "academic use only" in printed.out
    assert "state" in printed.out or "weights" in printed.out
    for arguments, message in (
        (("check",), "a name after `mlmm models check`"),
        (("show", "gremlin"), "`mlmm models` lists the names"),
        (("install", "gremlin"), "got 'gremlin'"),
        (("check", str(tmp_path / "none.pt")), "or an existing file"),
    ):
        status, printed = ran(*arguments, capsys=capsys)
        assert status == 2 and message in printed.err and "Traceback" not in printed.err


def test_check_ends_with_the_verdict(capsys, monkeypatch):
    import mlmm.potentials.registry as registry

    load = registry.load_potential

    def single(name, **options):
        return load(name, members=[0], **options)

    monkeypatch.setattr(registry, "load_potential", single)
    status, printed = ran("check", "ani1x", capsys=capsys)
    assert status == 0 and "ANI-1x keeps the contract" in printed.out and "finite differences" in printed.out

    def broken(name, **options):
        model = single(name, **options)
        model.spec = mlmm.PotentialSpec(**{**vars(model.spec), "cutoff": 0.3, "receptive_field": 0.3})
        return model

    monkeypatch.setattr(registry, "load_potential", broken)
    status, printed = ran("check", "ani1x", capsys=capsys)
    assert status == 1 and "ANI-1x BREAKS THE CONTRACT" in printed.out and "FAILED" in printed.out


@pytest.fixture
def server(tmp_path):
    """Files on this machine, with ranges; counts what it sends."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        sent: list[tuple[int, int]] = []  # noqa: RUF012

        def do_GET(self):
            path = folder / self.path.lstrip("/")
            if not path.exists():
                self.send_error(404)
                return
            content = path.read_bytes()
            start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = len(content) if "cut" not in self.path or start else len(content) // 2
            # Before the client can have all of it and look.
            self.sent.append((start, stop))
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(content[start:stop])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}", Handler.sent
        running.shutdown()
        thread.join()


def test_interrupted_download_resumes(server, tmp_path):
    folder, url, sent = server
    content = os.urandom(300_000)
    (folder / "cut.bin").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    target = tmp_path / "got.bin"
    with pytest.raises(PotentialError, match="what has arrived is kept"):
        install.fetch(f"{url}/cut.bin", target, digest)
    assert not target.exists() and (tmp_path / "got.bin.part").stat().st_size == 150_000
    assert install.fetch(f"{url}/cut.bin", target, digest) == target
    assert target.read_bytes() == content and sent == [(0, 150_000), (150_000, 300_000)]
    install.fetch(f"{url}/cut.bin", target, digest)  # nothing is fetched twice
    assert len(sent) == 2


def test_a_wrong_checksum_leaves_nothing_behind(server, tmp_path):
    folder, url, _ = server
    (folder / "a.bin").write_bytes(b"other")
    with pytest.raises(PotentialError, match="a file with sha256 0000"):
        install.fetch(f"{url}/a.bin", tmp_path / "a.bin", "0" * 64)
    assert not list(tmp_path.glob("a.bin*"))
    with pytest.raises(PotentialError, match=r"an answer from .*404"):
        install.fetch(f"{url}/missing.bin", tmp_path / "b.bin")


def test_archive_is_extracted_completely_or_not_at_all(server, tmp_path, monkeypatch):
    folder, url, _ = server
    with zipfile.ZipFile(folder / "zoo.zip", "w") as file:
        file.writestr("zoo-main/net/x.params", "Rcr = 5")
        file.writestr("zoo-main/net/train0/a.nnf", "net")
        file.writestr("zoo-main/other.txt", "no")
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLMM_MODELS", raising=False)
    source = {"url": f"{url}/zoo.zip", "folder": "zoo-main/net"}
    about = {"name": "Zoo", "elements": "H", "trained_on": "total", "licence": "MIT", "citation": "none"}
    known = KnownPotential("zoo", "ani", "zoo_net", about, 0.5, 0.5, source=source)
    monkeypatch.setattr(install, "known_potentials", lambda: [known])
    path = install.install_model("zoo")
    assert path == tmp_path / "cache/models/zoo_net" and (path / "train0/a.nnf").read_text() == "net"
    assert sorted(p.name for p in (tmp_path / "cache/models").iterdir()) == ["downloads", "zoo_net"]
    assert install.install_model("zoo") == path  # it is there
    digest = install.contents_digest(path)
    wrong = KnownPotential("zoo", "ani", "zoo_two", about, 0.5, 0.5, source=source | {"contents": "0" * 64})
    monkeypatch.setattr(install, "known_potentials", lambda: [wrong])
    with pytest.raises(PotentialError, match="the published folder"):
        install.install_model("zoo")
    assert not (tmp_path / "cache/models/zoo_two").exists()
    right = KnownPotential("zoo", "ani", "zoo_two", about, 0.5, 0.5, source=source | {"contents": digest})
    monkeypatch.setattr(install, "known_potentials", lambda: [right])
    assert install.install_model("zoo").name == "zoo_two"


def test_the_folder_of_ani2x_is_the_one_whose_checksum_is_known(models_folder):
    assert install.contents_digest(models_folder / "ani-2x_8x") == entry("ani2x").source["contents"]


def test_folders_of_mlmm_models_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLMM_MODELS", raising=False)
    bundled = find_model(entry("ani1x"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ani1x.safetensors").write_bytes(bundled.read_bytes())
    monkeypatch.setenv("MLMM_MODELS", str(tmp_path / "own"))
    assert find_model(entry("ani1x")) == tmp_path / "own" / "ani1x.safetensors"
    assert find_model(entry("ani1ccx")) is None
    (tmp_path / "cache/models/ani-1ccx_8x").mkdir(parents=True)
    assert find_model(entry("ani1ccx")) == tmp_path / "cache/models/ani-1ccx_8x"


@pytest.mark.slow
def test_ani1ccx_from_pypi(tmp_path, monkeypatch, capsys):
    """With the network: pip fetches the wheel, its checksum is seen, the model keeps the contract."""
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path))
    monkeypatch.delenv("MLMM_MODELS", raising=False)
    reach = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / "probe"), "six"]
    if subprocess.run(reach, capture_output=True).returncode:
        pytest.skip("pip reaches no index")
    assert main(["models", "install", "ani1ccx"]) == 0
    assert "ani-1ccx_8x" in capsys.readouterr().out
    assert main(["models", "check", "ani1ccx"]) == 0
    assert mlmm.load_potential("ani1x+ani1ccx").spec.members == 16


def springs_of_another_package(*, precision, device):
    return PlainSprings()


def nonsense_of_another_package(*, precision, device):
    return object()


@pytest.fixture
def registered(monkeypatch):
    """Entry points as an installed package has them."""
    points = [
        metadata.EntryPoint("springs", f"{__name__}:springs_of_another_package", "mlmm.potentials"),
        metadata.EntryPoint("nonsense", f"{__name__}:nonsense_of_another_package", "mlmm.potentials"),
        metadata.EntryPoint("missing", f"{__name__}:nowhere", "mlmm.potentials"),
    ]
    original = metadata.entry_points

    def found(**wanted):
        if wanted.get("group") != "mlmm.potentials":
            return original(**wanted)
        return metadata.EntryPoints(points).select(**wanted)

    monkeypatch.setattr(metadata, "entry_points", functools.partial(found))


def test_another_package_registers_a_potential(registered, capsys):
    assert entries.plugin_names() == ["missing", "nonsense", "springs"]
    assert mlmm.load_potential("springs").spec.name == "plain springs"
    _, printed = ran(capsys=capsys)
    assert re.search(r"\nsprings +of another package", printed.out)
    with pytest.raises(
        PotentialError, match=r"a potential with spec and atom_energies from .*, but got object"
    ):
        mlmm.load_potential("nonsense")
    with pytest.raises(
        PotentialError, match=r"as a function load\(\*, precision, device\), but got AttributeError"
    ):
        mlmm.load_potential("missing")
    with pytest.raises(PotentialError, match='Did you mean "springs"'):
        mlmm.load_potential("sprigns")


def test_the_five_lines_for_another_package_are_in_the_documentation():
    text = (Path(mlmm.__file__).parents[1] / "examples/guide/potentials.md").read_text()
    assert '[project.entry-points."mlmm.potentials"]' in text and "check_potential" in text
