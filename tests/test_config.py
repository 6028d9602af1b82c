"""Where things lie on a machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from nimare_dask import config
from nimare_dask._version import __version__


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
    monkeypatch.delenv("NIMARE_DASK_KERNELS", raising=False)
    monkeypatch.setenv("SLURM_TMPDIR", scratch)
    monkeypatch.setattr(os, "access", lambda *_: writable)
    config.choose_numba_cache()
    user = os.getuid() if hasattr(os, "getuid") else ""
    name = f"nimare_dask_numba_{__version__}_{user}"
    wanted = str(Path(scratch or tempfile.gettempdir()) / name)
    assert os.environ["NUMBA_CACHE_DIR"] == ("" if writable else wanted)


@pytest.mark.parametrize("chosen", ["", "mine"])
def test_choose_numba_cache__takes_the_kernels_that_an_image_brings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str
) -> None:
    image = tmp_path / "image"
    (image / "kernels_1").mkdir(parents=True)
    (image / "kernels_1" / "one.nbi").write_bytes(b"compiled")
    (image / "kernels_1").chmod(0o555)
    monkeypatch.delitem(config.sys.modules, "numba", raising=False)
    monkeypatch.setenv("NIMARE_DASK_KERNELS", str(image))
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", chosen and str(tmp_path / chosen))
    config.choose_numba_cache()
    cache = Path(os.environ["NUMBA_CACHE_DIR"])
    assert cache.parent == tmp_path and cache != image
    copied = cache / "kernels_1" / "one.nbi"
    assert copied.read_bytes() == b"compiled"
    assert copied.parent.stat().st_mode & 0o200, "numba reads no cache that it cannot write to"
    (image / "kernels_1").chmod(0o755)

    copied.write_bytes(b"newer")
    config.choose_numba_cache()
    assert copied.read_bytes() == b"newer", "what a process compiled since then stays"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_choose_numba_cache__goes_on_without_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NIMARE_DASK_KERNELS", str(tmp_path / "none"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    config.choose_numba_cache()
    assert not (tmp_path / "cache").exists()
