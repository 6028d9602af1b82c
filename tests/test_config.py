"""Where things lie on a machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from nimare_dask import config


def test_cache_folder__follows_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMARE_DASK_CACHE", "~/elsewhere")
    assert config.cache_folder() == Path.home() / "elsewhere"


def test_cache_folder__else_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NIMARE_DASK_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.cache_folder() == tmp_path / "nimare_dask"


def test_data_folder__unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIMARE_DASK_DATA", raising=False)
    assert config.data_folder() is None


@pytest.mark.parametrize(
    ("writable", "scratch"), [(False, "/scratch/job"), (False, ""), (True, "")]
)
def test_choose_numba_cache__only_when_nothing_else_can_be_written(
    monkeypatch: pytest.MonkeyPatch, writable: bool, scratch: str
) -> None:
    monkeypatch.delitem(config.sys.modules, "numba", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.setenv("SLURM_TMPDIR", scratch)
    monkeypatch.setattr(os, "access", lambda *_: writable)
    config.choose_numba_cache()
    wanted = str(Path(scratch or tempfile.gettempdir()) / "nimare_dask_numba")
    assert os.environ["NUMBA_CACHE_DIR"] == ("" if writable else wanted)
