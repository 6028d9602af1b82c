"""All formats behind one door: told apart, there and back, whole or with a sentence."""

from __future__ import annotations

import gzip
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings

from nimare_dask import facts
from nimare_dask.corpus import digest
from nimare_dask.draft import Draft
from nimare_dask.errors import (
    CorpusWarning,
    SettingsError,
    SourceFormatError,
    StoreExistsError,
)
from nimare_dask.io.formats import (
    FORMATS,
    WRITERS,
    format_of,
    read_studies,
    validate,
    write_studies,
)
from nimare_dask.io.problems import MOST, Problem, Problems, settle, show
from nimare_dask.space import SPELLINGS
from tests.builders import listing, tiny_corpus
from tests.studies_made import corpus_with, full_corpora
from tests.texts import nimare_folder, quietly

pytest.importorskip("pyarrow", reason="parquet files are read with pyarrow")

#: A name for each format that is written; what of the name says nothing needs the format too.
NAMES = {
    **{name: None for name in ("x.zarr", "x.json", "x.json.gz", "x.txt", "x.csv", "x.tsv")},
    **{"x.xlsx": None, "x.parquet": None, "nsdata": "neurosynth"},
}
#: Formats that hold the space and every digit of each coordinate, and studies without analyses.
WHOLE = ("x.zarr", "x.json", "x.json.gz", "x.parquet")


def write(corpus: xr.Dataset, folder: Path, name: str) -> tuple[list[Path], list[str]]:
    """Write in the format that a name says; what was written, and what was said to be lost."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CorpusWarning)
        paths = write_studies(corpus, folder / name, format=NAMES[name], overwrite=True)
    return paths, [str(each.message) for each in caught]


def read(paths: Sequence[Path], name: str) -> xr.Dataset:
    """Read what was written."""
    if name == "nsdata":
        return quietly(read_studies, paths[0].parent)
    notes = paths[1:] if ".json" in name else []
    return quietly(read_studies, paths[0], annotations=notes)


def counts(corpus: xr.Dataset) -> dict[str, int]:
    sizes = {dim: corpus.sizes.get(dim, 0) for dim in ("study", "analysis", "focus", "image")}
    known = corpus.get("analysis_sample_size", xr.DataArray([np.nan]))
    return sizes | {"feature": corpus.sizes.get("feature", 0), "size": int(known.notnull().sum())}


# told apart


def test_format_of__what_is_written(tmp_path: Path) -> None:
    for name in NAMES:
        paths, _ = write(tiny_corpus(), tmp_path, name)
        target = paths[0].parent if name == "nsdata" else paths[0]
        expected = {"x.zarr": "corpus", "x.txt": "sleuth", "nsdata": "neurosynth"}
        known = {"x.json": "nimads", "x.json.gz": "nimads", "x.parquet": "parquet"}
        assert format_of(target) == (expected | known).get(name, "table")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.json", b'{"a": {"contrasts": {}}}', "dataset"),
        ("x.json", b'{"note_keys": {}, "notes": []}', "annotation"),
        ("x.json", b'\xef\xbb\xbf {"id": "x", "studies": []}', "nimads"),
        ("x.JSON.gz", gzip.compress(b'{"a": {"contrasts": {}}}', mtime=0), "dataset"),
        ("x", b' {"studies": []}', "nimads"),
        ("x", gzip.compress(b'{"studies": []}', mtime=0), "nimads"),
        ("x.json", b"", "nimads"),
        ("x.txt", b"", "sleuth"),
        ("foci", b"\n//Reference=MNI\n", "sleuth"),
        ("X.CSV", b"", "table"),
        ("x.tsv.gz", b"", "table"),
        ("x", b"a,b", None),
        ("x.nii", b"\0", None),
        ("x", b"\x1f\x8b\x08", None),
    ],
)
def test_format_of__by_name_and_beginning(
    tmp_path: Path, name: str, content: bytes, expected: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if expected is None:
        with pytest.raises(SourceFormatError, match=r"no format that is known.*--from"):
            format_of(path)
    else:
        assert format_of(path) == expected


def test_format_of__nothing_and_strange_folders(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match="is not there"):
        format_of(tmp_path / "absent")
    with pytest.raises(SourceFormatError, match="holds none of what is known"):
        format_of(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "coordinates.csv").write_text("")
    assert format_of(tmp_path) == "pubget"


def test_read_studies__settings_that_cannot_work(tmp_path: Path) -> None:
    (paths, _), sleuth = write(tiny_corpus(), tmp_path, "x.csv"), tmp_path / "x.txt"
    with pytest.raises(SettingsError, match=r"format is 'excel'; expected one of corpus"):
        read_studies(paths[0], format="excel")
    with pytest.raises(SettingsError, match="only a NIMADS studyset takes annotations"):
        read_studies(paths[0], annotations=[sleuth])
    with pytest.raises(SettingsError, match="does not take per"):
        read_studies(paths[0], per="table")
    notes = tmp_path / "notes.json"
    notes.write_text('{"note_keys": {}, "notes": []}')
    with pytest.raises(SourceFormatError, match="This is an annotation"):
        read_studies(notes)
    with pytest.raises(SettingsError, match="does not say what to write"):
        write_studies(tiny_corpus(), tmp_path / "x.doc")
    for name in ("dataset", "pubget", "doc"):
        with pytest.raises(SettingsError, match="expected one of corpus, nimads, sleuth"):
            write_studies(tiny_corpus(), tmp_path / "new.json", format=name)
    assert listing(tmp_path) == ["notes.json", "x.csv"]
    assert set(WRITERS) < set(FORMATS)


@pytest.mark.parametrize("name", NAMES)
def test_write_studies__what_is_there_stays(tmp_path: Path, name: str) -> None:
    write(tiny_corpus(), tmp_path, name)
    before = {each: (tmp_path / each).stat().st_mtime_ns for each in listing(tmp_path)}
    with pytest.raises(StoreExistsError, match="exists already"):
        quietly(write_studies, tiny_corpus(), tmp_path / name, format=NAMES[name])
    assert {each: (tmp_path / each).stat().st_mtime_ns for each in listing(tmp_path)} == before


# there and back


def placed(corpus: xr.Dataset) -> Counter[Any]:
    """Foci by study, to 2 decimals; studies without a name are called so by some formats."""
    owner = np.repeat(corpus["study_id"].values, corpus["analysis_n_foci"].values)
    rounded = np.round(corpus["focus_xyz"].values, 2) + 0.0
    return Counter(zip(owner.tolist(), map(tuple, rounded.tolist()), strict=True))


def sizes_of(corpus: xr.Dataset) -> dict[str, float]:
    if "analysis_sample_size" not in corpus:
        return {}
    ids = corpus["analysis_id"].values.tolist()
    sizes = corpus["analysis_sample_size"].values.tolist()
    return {name: n for name, n in zip(ids, sizes, strict=True) if n == n}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4)
@given(corpus=full_corpora())
def test_write_studies__there_and_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, corpus: xr.Dataset
) -> None:
    """All of it in the formats that hold all; foci, analyses and sizes in those for people."""
    corpus = corpus.assign(focus_space=corpus["focus_space"] * 0).assign_attrs(spaces=["MNI"])
    assume((corpus["analysis_n_foci"].values > 0).any())
    folder = tmp_path_factory.getbasetemp() / "there"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    paths, lost = write(corpus, folder, name)
    found = read(paths, name)
    assert placed(found) == placed(corpus)
    with_foci = {
        each
        for each, n in zip(
            corpus["analysis_id"].values.tolist(),
            corpus["analysis_n_foci"].values.tolist(),
            strict=True,
        )
        if n
    }
    ids = set(found["analysis_id"].values.tolist())
    if name != "nsdata":
        assert with_foci <= ids <= set(corpus["analysis_id"].values.tolist())
        sizes = {k: n for k, n in sizes_of(corpus).items() if k in ids}
        if name == "x.txt" and any(n % 1 for n in sizes.values()):
            assert "sample sizes are rounded" in " ".join(lost)
            rounded = sizes_of(found)
            assert all(abs(rounded.get(key, 0) - n) <= 0.5 for key, n in sizes.items())
            sizes = rounded
        assert sizes_of(found) == sizes
        assert len(ids) == corpus.sizes["analysis"] or lost
    if name in WHOLE:
        assert lost == [] and counts(found) == counts(corpus)
        again, _ = write(found, folder, name)
        assert digest(read(again, name)) == digest(found)


def real_files() -> list[str]:
    """Every file of studies in NiMARE's wheel, by its place in it."""
    try:
        root = nimare_folder()
    except pytest.skip.Exception:
        return []
    patterns = ("*_studyset.json", "*dset.json", "test_pain_dataset*.json", "*sleuth_file*.txt")
    found = [
        path
        for folder in ("resources", "tests/data")
        for pattern in (*patterns, "*_studies.json")
        for path in (root / folder).glob(pattern)
    ]
    folders = [path.parent for path in (root / "resources").glob("*/studies.parquet")]
    once = {path.name: path for path in (*found, *folders)}  # some lie in both folders
    return sorted(str(path.relative_to(root)) for path in once.values())


#: Files that are wrong on purpose, and where.
WRONG = {
    "test_sleuth_file3.txt": "line 5: found '10  20  dog'",
    "test_sleuth_file4.txt": "line 5: found '10  20'",
    "test_sleuth_file5.txt": "line 1: the reference is 'Dog'",
}


@pytest.mark.skipif(not real_files(), reason="NiMARE is not installed")
@pytest.mark.parametrize("name", real_files())
def test_read_studies__real_files_to_every_format_and_back(name: str, tmp_path: Path) -> None:
    path = nimare_folder() / name
    problems = validate(path)
    errors = [str(each) for each in problems if each.severity == "error"]
    if path.name in WRONG:
        assert len(errors) == 1 and errors[0].startswith(WRONG[path.name])
        with pytest.raises(SourceFormatError, match=r"line \d"):
            read_studies(path)
        return
    assert errors == []
    corpus = quietly(read_studies, path)
    expected = counts(corpus)
    for out in NAMES:
        if out in ("x.xlsx", "x.json.gz", "x.tsv") and expected["focus"] > 1000:
            continue  # what x.csv and x.json show already takes seconds there
        paths, lost = write(corpus, tmp_path, out)
        found = counts(read(paths, out))
        said = " ".join(lost)
        assert found["focus"] == expected["focus"]
        if out == "nsdata":
            assert found["study"] == found["analysis"]
            assert found["study"] == expected["study"] or "studies" in said
            assert expected["analysis"] == expected["study"] or "pooled" in said
            continue
        empty = int((corpus["analysis_n_foci"].values == 0).sum())
        if out == "x.txt" and empty:
            assert found["analysis"] == expected["analysis"] - empty
            assert f"{empty} analyses without foci are left out" in said
        else:
            assert found["analysis"] == expected["analysis"]
            assert found["size"] == expected["size"]
        gone = {dim for dim in expected if found[dim] != expected[dim]} - {"analysis", "size"}
        words = {"study": "studies without", "image": "images are left", "feature": "features are"}
        assert all(words[dim] in said or (dim == "study" and empty) for dim in gone)
        assert not (gone and out in WHOLE)


@pytest.mark.parametrize("number", [2.0**53, 2.0**63, -(2.0**63), 1e300, 0.1])
@pytest.mark.parametrize("name", WHOLE)
def test_write_studies__large_numbers(tmp_path: Path, name: str, number: float) -> None:
    corpus = corpus_with([number, number])
    paths, _ = write(corpus, tmp_path, name)
    assert facts.values(read(paths, name), "analysis.metadata.x")[1] == [number, number]


# what is wrong


def test_validate__what_is_seldom_meant(tmp_path: Path) -> None:
    paths, _ = write(tiny_corpus(), tmp_path, "x.json")
    found = validate(paths[0])
    assert [each.severity for each in found] == ["warning", "warning"]
    assert str(found[0]).startswith("1 of 4 analyses have no focus")
    assert str(found[1]).startswith("3 foci have a space that is not known (UNKNOWN; known are ")
    assert all(spelling in str(found[1]) for spelling in SPELLINGS)
    empty = Draft()
    empty.add_analysis(empty.add_study("s"), "1")
    paths, _ = write(empty.build(), tmp_path, "x.json")
    assert [str(each) for each in validate(paths[0])] == [
        "no analysis has a focus; there is nothing to analyse."
    ]


def test_validate__warnings_of_a_neurosynth_folder_are_in_the_list(tmp_path: Path) -> None:
    write(tiny_corpus(), tmp_path, "nsdata")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = validate(tmp_path / "nsdata")
    assert all(each.severity == "warning" for each in found)


def test_validate__annotations(tmp_path: Path) -> None:
    (studyset, notes), _ = write(tiny_corpus(), tmp_path, "x.json")
    assert len(validate(studyset, annotations=[notes])) == 2
    document = json.loads(notes.read_text())
    document["notes"][0]["analysis"] = "stranger"
    notes.write_text(json.dumps(document))
    found = [str(each) for each in validate(studyset, annotations=[notes])]
    assert len(found) == 3 and any("stranger" in each for each in found)
    (error,) = validate(notes)
    assert error.severity == "error" and "This is an annotation" in error.message


# problems


def test_problems__are_kept_up_to_a_number_and_all_counted() -> None:
    problems = Problems(Path("x.csv"))
    for line in range(MOST + 5):
        problems.error(f"line {line}", "wrong.")
    assert len(problems.found) == MOST and problems.n_errors == MOST + 5
    with pytest.raises(SourceFormatError) as error:
        settle(problems)
    assert "10,005 errors" in str(error.value) and "10,000 more" in str(error.value)
    assert "nimare-dask validate x.csv lists them all" in str(error.value)


def test_problems__an_error_that_comes_after_many_warnings() -> None:
    problems = Problems(Path("x.csv"))
    for line in range(MOST + 5):
        problems.warn(f"line {line}", "odd.")
    problems.error("line 99", "wrong.")
    with pytest.raises(SourceFormatError, match="line 99: wrong"):
        settle(problems)
    assert any(each.severity == "error" for each in problems.found)


def test_settle__one_several_and_none() -> None:
    problems = Problems(Path("x.csv"))
    settle(problems)
    problems.warn("line 2", "odd.")
    with pytest.warns(CorpusWarning, match=r"^x\.csv, line 2: odd\.$"):
        settle(problems)
    problems.warn("", "odd too.")
    with pytest.warns(CorpusWarning, match=r"^x\.csv: 2 notes\. \(1\) line 2: odd\. \(2\) odd too"):
        settle(problems)
    problems.error("line 3", "y" * 10**6)
    with pytest.raises(SourceFormatError) as error:
        settle(problems)
    assert len(str(error.value)) < 1000


def test_show__short_and_on_one_line() -> None:
    assert show("a\nb\x1b") == "'a\\nb\\x1b'"
    assert len(show("x" * 10**6)) < 70 and len(show(list(range(10**4)))) < 70
    assert str(Problem("", "error", "m")) == "m" and str(Problem("p", "error", "m")) == "p: m"
