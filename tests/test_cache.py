"""Where downloads are kept: MLMM_CACHE, else the user's cache folder."""

from __future__ import annotations

import sys

import pytest

from mlmm.cache import cache_folder


def test_mlmm_cache_comes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("MLMM_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert cache_folder("models") == tmp_path / "own/models"
    assert not (tmp_path / "own").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
def test_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (None, ""):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("MLMM_CACHE", raising=False)
        if unset is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
            monkeypatch.setenv("MLMM_CACHE", unset)
        assert cache_folder("structures") == tmp_path / ".cache/mlmm/structures"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("ligands") == tmp_path / "xdg/mlmm/ligands"
