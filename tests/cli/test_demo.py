"""Where the demo takes its data from."""

from __future__ import annotations

from pathlib import Path

import pytest

from nimare_dask.cli import demo
from nimare_dask.errors import DownloadError, SourceFormatError
from nimare_dask.io import fetch


def put_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in fetch.NEUROSYNTH_NAMES.values():
        (folder / name).write_bytes(b"")
    return folder


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No data named, an empty cache."""
    monkeypatch.delenv("NIMARE_DASK_DATA", raising=False)
    monkeypatch.setenv("NIMARE_DASK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_find__named_folder_comes_first(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIMARE_DASK_DATA", str(put_files(nowhere / "data")))
    found = demo._find(put_files(nowhere / "named"))
    assert found is not None and found.coordinates.parent == nowhere / "named"
    with pytest.raises(SourceFormatError, match="does not hold all files of Neurosynth 7"):
        demo._find(nowhere)


def test_find__variable_before_cache(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_files(nowhere / "cache")
    found = demo._find(None)
    assert found is not None and found.metadata.parent == nowhere / "cache"
    monkeypatch.setenv("NIMARE_DASK_DATA", str(put_files(nowhere / "data")))
    found = demo._find(None)
    assert found is not None and found.metadata.parent == nowhere / "data"


def test_find__downloads_and_shows_address_checksum_and_licence(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(folder: Path, **_: object) -> fetch.NeurosynthFiles | None:
        return fetch.find_neurosynth(put_files(folder))

    monkeypatch.setattr(fetch, "fetch_neurosynth", download)
    found = demo._find(None)
    assert found is not None and found.features.parent == nowhere / "cache"
    said = capsys.readouterr().err
    assert fetch.NEUROSYNTH_URL in said and "Open Database License" in said
    assert all(checksum in said for checksum in fetch.NEUROSYNTH_SHA256.values())


@pytest.mark.parametrize("error", [DownloadError("no answer."), PermissionError("read-only")])
def test_find__no_network_is_one_line_and_no_files(
    nowhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fetch, "fetch_neurosynth", fail)
    assert demo._find(None) is None
    lines = [line for line in capsys.readouterr().err.splitlines() if "No download" in line]
    assert len(lines) == 1 and "Simulating a corpus of the same size instead" in lines[0]
