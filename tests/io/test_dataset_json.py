"""NiMARE's Dataset files: every one of its wheel, and every way to be wrong."""

from __future__ import annotations

import gzip
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nimare_dask import facts
from nimare_dask.corpus import weights_of
from nimare_dask.errors import CorpusWarning, SourceFormatError
from nimare_dask.io.dataset_json import parse, read_nimare_dataset
from nimare_dask.io.problems import Problems
from nimare_dask.provenance import steps
from tests.builders import foci_of, weights_by_name

COORDS = {"space": "TAL", "x": [1, 2.5], "y": [3, 4], "z": [5, -6], "z_stat": [3.5, None]}
CONTRAST = {
    "coords": COORDS,
    "images": {"z": "a/z.nii", "beta": None, "space": "MNI152"},
    "metadata": {"sample_sizes": [20, 22], "authors": "A"},
    "labels": {"V__pain": 0.5, "V__fear": 0, "V__none": None, "V__yes": True, "V__word": "maybe"},
    "text": {"abstract": "Ärger 痛み"},
    "connmats": {"aal": "c.mat"},
}
STUDY = {
    "metadata": {"title": "A title", "journal": "J", "year": 2006, "n": 3},
    "authors": "A B",
    "contrasts": {"1": CONTRAST, "a-b": {}},
}
DOCUMENT = {"10-x": STUDY, "20": {"contrasts": {}}}

_SPEC = find_spec("nimare")
_NIMARE = Path(_SPEC.origin).parent if _SPEC is not None and _SPEC.origin else None


def _is_dataset(path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    studies = found.values() if isinstance(found, dict) else ()
    return any(isinstance(study, dict) and "contrasts" in study for study in studies)


def _files() -> list[Path]:
    if _NIMARE is None:
        return []
    found = [*_NIMARE.glob("resources/*.json"), *_NIMARE.glob("tests/data/*.json")]
    once = {path.name: path for path in found if _is_dataset(path)}  # some are there twice
    return [once[name] for name in sorted(once)]


FILES = _files()


def written(folder: Path, content: Any, name: str = "dataset.json") -> Path:
    path = folder / name
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(folder: Path, content: Any = DOCUMENT, name: str = "dataset.json") -> xr.Dataset:
    return read_nimare_dataset(written(folder, content, name))


def problems_of(folder: Path, content: Any, severity: str = "error") -> list[str]:
    problems = Problems(folder / "dataset.json")
    corpus = parse(written(folder, content), problems)
    assert (corpus is None) == bool(problems.n_errors)
    return [str(each) for each in problems.found if each.severity == severity]


# what is read


@pytest.mark.skipif(not FILES, reason="NiMARE, or its data, is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
def test_read_nimare_dataset__as_nimare_reads_its_files(path: Path) -> None:
    from nimare.dataset import Dataset

    corpus = read_nimare_dataset(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Dataset(str(path), target=None)
    assert sorted(corpus["analysis_id"].values.tolist()) == sorted(theirs.ids)
    assert corpus.sizes["study"] == theirs.metadata["study_id"].nunique()
    assert corpus.sizes.get("feature", 0) == len(theirs.get_labels())
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in theirs.ids}
    for row in theirs.coordinates[["id", "x", "y", "z", "space"]].itertuples(index=False):
        found[row.id].append((*map(float, tuple(row)[1:4]), row.space))
    assert found == foci_of(corpus)
    taken = ("id", "study_id", "contrast_id", "space")
    images = theirs.images[[each for each in theirs.images if each not in taken]].notna()
    # Without a folder of images NiMARE keeps relative paths in columns of their own.
    images.columns = [each.removesuffix("__relative") for each in images]
    assert corpus.sizes.get("image", 0) == int(images.T.groupby(level=0).any().sum().sum())
    if "feature" in corpus.dims:
        order, names = corpus["analysis_id"].values.tolist(), corpus["feature"].values.tolist()
        table = theirs.annotations.set_index("id").loc[order, names]
        ours = weights_of(corpus).toarray()
        np.testing.assert_array_equal(table.fillna(0).to_numpy(float), ours)


def test_read_nimare_dataset__ids_and_foci(tmp_path: Path) -> None:
    corpus = read(tmp_path)
    assert foci_of(corpus) == {"10-x-1": [(1, 3, 5, "TAL"), (2.5, 4, -6, "TAL")], "10-x-a-b": []}
    assert corpus["study"].values.tolist() == ["10-x", "20"]
    assert corpus["analysis_contrast"].values.tolist() == ["1", "a-b"]
    assert [step["step"] for step in steps(corpus)] == ["read_nimare_dataset"]


def test_read_nimare_dataset__what_is_known(tmp_path: Path) -> None:
    corpus = read(tmp_path)
    found = {name: facts.values(corpus, name)[1] for name in facts.fields(corpus)}
    assert found == {
        "study.name": ["A title"],
        "study.publication": ["J"],
        "study.year": [2006],
        "study.authors": ["A B"],
        "study.metadata.n": [3],
        "analysis.metadata.sample_sizes": [[20, 22]],
        "analysis.metadata.authors": ["A"],
        "analysis.texts.abstract": ["Ärger 痛み"],
        "analysis.connmats": [{"aal": "c.mat"}],
        "focus.values": [[{"kind": "z", "value": 3.5}]],
        "note.0.note.V__word": ["maybe"],
    }
    np.testing.assert_array_equal(corpus["analysis_sample_size"].values, [21, np.nan])


def test_read_nimare_dataset__labels_and_images(tmp_path: Path) -> None:
    corpus = read(tmp_path)
    assert weights_by_name(corpus) == {
        ("10-x-1", "V__pain"): 0.5,
        ("10-x-1", "V__fear"): 0,
        ("10-x-1", "V__yes"): 1,
    }
    assert corpus["feature"].values.tolist() == ["V__pain", "V__fear", "V__none", "V__yes"]
    assert corpus["feature_kind"].values.tolist()[3] == "boolean"
    image = [corpus[f"image_{name}"].values.tolist() for name in ("type", "path", "space")]
    assert image == [["z"], ["a/z.nii"], ["MNI152"]]


def test_read_nimare_dataset__compressed_and_with_a_mark(tmp_path: Path) -> None:
    plain = foci_of(read(tmp_path))
    marked = b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode()
    assert foci_of(read(tmp_path, marked)) == plain
    assert foci_of(read(tmp_path, DOCUMENT, "dataset.json.gz")) == plain


def test_read_nimare_dataset__coordinates_that_are_none(tmp_path: Path) -> None:
    coords = {
        "space": None,
        "x": [None, 1, 2, 3],
        "y": [1, 1, 1e9, 1],
        "z": [1, float("nan"), 1, 3],
    }
    with pytest.warns(CorpusWarning, match="3 notes") as caught:
        corpus = read(tmp_path, {"a": {"contrasts": {"1": {"coords": coords}}}})
    assert "a.contrasts.1.coords[0]: found [None, 1, 1]" in str(caught[0].message)
    assert foci_of(corpus) == {"a-1": [(3, 1, 3, "UNKNOWN")]}


def test_read_nimare_dataset__a_key_twice(tmp_path: Path) -> None:
    text = b'{"a": {"contrasts": {"1": {}, "1": {}}}}'
    with pytest.warns(CorpusWarning, match=r"the key '1' is there more than once"):
        assert read(tmp_path, text).sizes["analysis"] == 1


# what is wrong


@pytest.mark.parametrize(
    ("coords", "said"),
    [
        ({"x": [1], "y": [1, 2], "z": [1]}, "coords: x, y and z have 1, 2 and 1 values"),
        ({"x": [1], "y": [1]}, "coords: found {'z': None}; expected lists x, y and z"),
        ({"x": 1, "y": [1], "z": [1]}, "coords: found {'x': 1}; expected lists"),
        ({"x": ["1"], "y": [1], "z": [1]}, "coords[0].x: found '1'; expected a number"),
        ({"x": [True], "y": [1], "z": [1]}, "coords[0].x: found True; expected a number"),
        ({"x": [[1]], "y": [1], "z": [1]}, "coords[0].x: found [1]; expected a number"),
        ({"x": [1], "y": [1], "z": [1], "space": 3}, "coords.space: found 3"),
        ({"x": [1], "y": [1], "z": [1], "z_stat": []}, "coords.z_stat: 0 values of 1 foci"),
        ([1], "coords: found [1]; expected an object"),
    ],
)
def test_parse__coordinates_that_are_wrong(tmp_path: Path, coords: Any, said: str) -> None:
    (found,) = problems_of(tmp_path, {"s": {"contrasts": {"c": {"coords": coords}}}})
    assert found.startswith(f"s.contrasts.c.{said}")


@pytest.mark.parametrize("part", ["metadata", "images", "labels", "text", "coords"])
@pytest.mark.parametrize("value", [3, "a", [1], True])
def test_parse__parts_that_are_no_objects(tmp_path: Path, part: str, value: Any) -> None:
    (found,) = problems_of(tmp_path, {"s": {"contrasts": {"c": {part: value}}}})
    assert found.startswith(f"s.contrasts.c.{part}: found ")


def test_parse__says_everything_at_once(tmp_path: Path) -> None:
    document = {
        "a": 3,
        "b": {"contrasts": [1]},
        "": {"contrasts": {"": {"labels": {"l": [1]}, "images": {"z": 3}}}},
        "c": {"metadata": 3},
    }
    assert [each.partition(":")[0] for each in problems_of(tmp_path, document)] == [
        *("a", "a.contrasts", "b.contrasts"),
        "the id of the study is empty; give it one.",
        *(".contrasts.", ".contrasts..images.z", ".contrasts..labels.l"),
        *("c.metadata", "c.contrasts"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"   ", b"{", b"[]", b"null", b"3", b'"a"', b'{"a": 3}', b"{}"),
        *(b"\xff\xfe{}", b'{"a": "\xff"}', b"\x1f\x8b\x08\x00", b"[" * 200_000, b'{"a":' * 200_000),
        *(b'{"studies": []}', b"not json", b"1" * 1_000_000, b'"' + b"a" * 1_000_000),
    ],
)
def test_parse__no_dataset(tmp_path: Path, content: bytes) -> None:
    (found,) = problems_of(tmp_path, content)
    assert len(found) < 500


def test_parse__cut_anywhere(tmp_path: Path) -> None:
    whole = json.dumps(DOCUMENT).encode()
    for end in range(1, len(whole), 37):
        assert len(problems_of(tmp_path, whole[:end])) == 1


@pytest.mark.parametrize("number", ["1e400", "-" + "9" * 400, "9" * 5000])
def test_parse__huge_numbers(tmp_path: Path, number: str) -> None:
    text = json.dumps(DOCUMENT)
    for place in ("2.5", "3.5", "0.5", "2006", "22"):
        problems_of(tmp_path, text.replace(place, number, 1).encode())  # never a traceback


def test_parse__long_texts(tmp_path: Path) -> None:
    long = "x" * 1_000_000
    found = problems_of(tmp_path, {long: {"contrasts": {long: {"coords": {"x": long}}}}})
    assert len(found) == 1
    assert read(tmp_path, {long: STUDY}).sizes["analysis"] == 2


def test_read_nimare_dataset__raises_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"dataset\.json, s\.contrasts: it is not there"):
        read(tmp_path, {"s": {}, "t": {"contrasts": {}}})
    with pytest.raises(SourceFormatError, match="could not be read"):
        read_nimare_dataset(tmp_path / "nowhere.json")
