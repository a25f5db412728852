"""Where structures come from: folders, the cache, a server; each with its checksum."""

import gzip
import hashlib
import http.server
import json
import threading

import pytest

from mlmm.build import build_system
from mlmm.build.files.sources import find_structure, is_entry
from mlmm.cache import cache_folder
from mlmm.errors import StructureError

CIF = "data_1ABC\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1 0.0\n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of structures and an empty cache."""
    folder = tmp_path / "structures"
    folder.mkdir()
    monkeypatch.setenv("MLMM_STRUCTURES", f"{tmp_path / 'empty'}:{folder}")
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def server(monkeypatch):
    """An archive on this machine; `pages` holds what it answers, by path."""
    pages = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body, length = pages.get(self.path, (404, b"", None))
            if status == "hang":
                pages["release"].wait(10)
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    pages["release"] = threading.Event()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("MLMM_STRUCTURE_SERVER", f"http://127.0.0.1:{httpd.server_port}/archive")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield pages
    pages["release"].set()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_an_entry_is_a_digit_and_three_letters():
    assert [is_entry(name) for name in ("2CHT", "3ptb", "CHT2", "2CHTX", "2CH", "a/2CHT")] == [
        *(True, True, False, False, False, False)
    ]


def test_paths_take_precedence_over_folders_and_pdb_over_mmcif(places, tmp_path, monkeypatch):
    (places / "1ABC.cif").write_text(CIF)
    assert find_structure("1ABC") == places / "1ABC.cif"
    (places / "pdb1abc.ent.gz").write_bytes(b"")
    assert find_structure("1ABC") == places / "pdb1abc.ent.gz"
    (places / "1abc.pdb").write_text("")
    assert find_structure("1ABC") == places / "1abc.pdb"
    assert find_structure("1ABC.cif") == places / "1ABC.cif"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1ABC").write_text("")
    assert str(find_structure("1ABC")) == "1ABC"


def test_missing_pdb_id_lists_the_searched_folders(places):
    with pytest.raises(StructureError, match=r"1ABC\.pdb.*structures.*--download of mlmm.*MLMM_STRUCTURES"):
        build_system("1ABC")


def test_a_download_is_kept_with_its_checksum(places, server):
    packed = gzip.compress(CIF.encode())
    server["/archive/ab/1abc.cif.gz"] = (200, packed, None)
    path = find_structure("1ABC", download=True)
    assert path == cache_folder("structures") / "1abc.cif.gz" and path.read_bytes() == packed
    facts = json.loads((cache_folder("structures") / "1abc.cif.gz.json").read_text())
    assert facts["sha256"] == hashlib.sha256(packed).hexdigest() and facts["url"].startswith(
        "http://127.0.0.1"
    )
    assert sorted(p.name for p in cache_folder("structures").iterdir()) == ["1abc.cif.gz", "1abc.cif.gz.json"]
    server.pop("/archive/ab/1abc.cif.gz")
    assert find_structure("1abc") == path
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(StructureError, match=r"another checksum.*Delete"):
        find_structure("1ABC")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b"", None), "404.*Check the id"),
        ((503, b"", None), "503.*Try again later"),
        ((200, gzip.compress(CIF.encode())[:-6], None), "whole compressed mmCIF"),
        ((200, b"<html>not found</html>", None), "whole compressed mmCIF"),
        ((200, gzip.compress(b"data_x"), None), "whole compressed mmCIF"),
        ((200, gzip.compress(CIF.encode()), 10_000), "IncompleteRead|whole compressed mmCIF"),
        (("hang", b"", None), "Try again later"),
    ],
)
def test_a_download_that_fails_leaves_nothing_behind(places, server, answer, words):
    server["/archive/ab/1abc.cif.gz"] = answer
    timeout = 0.5 if answer[0] == "hang" else 60.0  # the others answer, however slow the machine
    with pytest.raises(StructureError, match=words):
        find_structure("1ABC", download=True, timeout=timeout)
    assert not cache_folder("structures").exists()


def test_download_needs_http_or_https(places, monkeypatch, tmp_path):
    monkeypatch.setenv("MLMM_STRUCTURE_SERVER", f"file://{tmp_path}")
    with pytest.raises(StructureError, match="http or https"):
        find_structure("1ABC", download=True)


def test_checksum_of_the_run_file_is_enforced(places):
    (places / "1ABC.pdb").write_text("END\n")
    right = hashlib.sha256(b"END\n").hexdigest()
    assert find_structure("1ABC", sha256=right.upper()) == places / "1ABC.pdb"
    with pytest.raises(StructureError, match="another version"):
        find_structure("1ABC", sha256="0" * 64)
