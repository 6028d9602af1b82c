"""NIMADS studysets and annotations: read, written, read again; every way to be wrong."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.corpus import digest, open_corpus, save_corpus
from nimare_dask.errors import CorpusWarning, SourceFormatError, StoreExistsError
from nimare_dask.io.nimads import parse, read_nimads
from nimare_dask.io.nimads_write import write_nimads
from nimare_dask.io.problems import Problems
from nimare_dask.metadata import get_metadata, has_images, where_metadata
from nimare_dask.selection import has_label, select
from tests.builders import TEXT, foci_of, tiny_corpus, weights_by_name

POINTS: list[dict[str, Any]] = [
    {"coordinates": [1, 2.5, -3], "space": "MNI", "values": [{"kind": "z", "value": 3.5}]},
    {"coordinates": None, "space": "MNI", "label_id": "lost"},
    {"coordinates": [4, 5, 6], "space": "TAL", "kind": "peak", "values": []},
]
STUDYSET: dict[str, Any] = {
    "id": "set-1",
    "name": "Fear",
    "publication": None,
    "studies": [
        {
            "id": "a-b",
            "name": "First",
            "authors": "A, B",
            "pmid": "123",
            "year": 2010,
            "metadata": {"sample_size": 30, "scanner": "None", "list": [1, {"deep": None}]},
            "analyses": [
                {
                    "id": "c-d",
                    "name": "faces > houses",
                    "conditions": [{"name": "faces", "description": ""}, {"name": "houses"}],
                    "weights": [1.0, -1.0],
                    "points": POINTS,
                    "metadata": {"sample_sizes": [10, 12]},
                    "texts": {"abstract": "Words."},
                    "images": [
                        {"url": "https://x.org/1.nii.gz", "filename": "1.nii.gz",
                         "value_type": "T map", "space": "MNI", "add_date": "2020"},
                        {"filename": "z.nii.gz", "value_type": "z"},
                    ],
                },
                {"id": 7, "name": "rest", "points": [], "conditions": [], "weights": []},
            ],
        },
        {"id": "empty", "name": "None", "analyses": []},
        {"id": "s3", "analyses": [{"id": "c-d", "points": [{"coordinates": [0, 0, 0]}]}]},
    ],
}  # fmt: skip
ANNOTATION: dict[str, Any] = {
    "id": "ann",
    "name": "coding",
    "note_keys": {
        "fear": {"type": "number", "order": 1, "default": 0},
        "include": "boolean",
        "task": "string",
    },
    "notes": [
        {"study": "a-b", "analysis": "c-d", "study_name": "First",
         "note": {"fear": 0.5, "include": True, "task": "nback"}},
        {"study": "a-b", "analysis": "7", "note": {"fear": 0, "include": False, "task": "None"}},
        {"study": "s3", "analysis": "c-d", "note": {"fear": None, "include": "maybe"}},
    ],
}  # fmt: skip


def read(studyset: Any = STUDYSET, annotations: Any = ANNOTATION) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        return read_nimads(studyset, annotations)


def again(corpus: xr.Dataset, name: str = "set.json") -> xr.Dataset:
    """What is read of what is written."""
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        studyset, *annotations = write_nimads(corpus, Path(folder) / name)
        return read_nimads(studyset, annotations)


def assert_same(first: xr.Dataset, second: xr.Dataset) -> None:
    kept = ("spaces", "annotations", "studyset")
    for name in kept:
        assert first.attrs.get(name) == second.attrs.get(name)
    xr.testing.assert_identical(first.drop_attrs(deep=False), second.drop_attrs(deep=False))


# what is read


def test_read_nimads__ids_with_hyphens_are_not_split() -> None:
    corpus = read()
    assert corpus["analysis_id"].values.tolist() == ["a-b-c-d", "a-b-7", "s3-c-d"]
    assert corpus["study_id"].values.tolist() == ["a-b", "a-b", "s3"]
    assert corpus["analysis_contrast"].values.tolist() == ["c-d", "7", "c-d"]
    assert corpus["study"].values.tolist() == ["a-b", "empty", "s3"]


def test_read_nimads__points() -> None:
    assert foci_of(read()) == {
        "a-b-c-d": [(1, 2.5, -3, "MNI"), (4, 5, 6, "TAL")],
        "a-b-7": [],
        "s3-c-d": [(0, 0, 0, "UNKNOWN")],
    }


def test_read_nimads__a_point_without_coordinates_is_said() -> None:
    with pytest.warns(CorpusWarning, match=r"studies\[0\]\.analyses\[0\]\.points\[1\].*None.*kept"):
        read_nimads(STUDYSET)


def test_read_nimads__values_of_points_stay_with_them() -> None:
    corpus = read()
    rows, values = facts.values(corpus, "focus.values")
    assert (rows.tolist(), values) == ([0], [[{"kind": "z", "value": 3.5}]])
    rows, values = facts.values(corpus, "focus.kind")
    assert (rows.tolist(), values) == ([1], ["peak"])


def test_read_nimads__metadata() -> None:
    corpus = read()
    assert get_metadata(corpus, "year").values.tolist()[:2] == [2010, 2010]
    assert np.isnan(get_metadata(corpus, "year").values[2])
    assert get_metadata(corpus, "study.name").values.tolist() == ["First", "First", ""]
    assert where_metadata(corpus, "name", "contains", "FACES").values.tolist() == [1, 0, 0]
    assert where_metadata(corpus, "sample_sizes", ">=", 12).values.tolist() == [1, 0, 0]
    assert "study.metadata.scanner" not in facts.fields(corpus)


def test_read_nimads__sample_sizes_in_the_order_of_precedence() -> None:
    sizes = read()["analysis_sample_size"].values
    assert sizes.tolist()[:2] == [11, 30]
    assert np.isnan(sizes[2])


def test_read_nimads__images() -> None:
    corpus = read()
    assert corpus["image_path"].values.tolist() == ["https://x.org/1.nii.gz", "z.nii.gz"]
    assert has_images(corpus, "t").values.tolist() == [True, False, False]
    assert has_images(corpus, "beta").values.tolist() == [False, False, False]


def test_read_nimads__notes() -> None:
    corpus = read()
    assert weights_by_name(corpus) == {
        ("a-b-c-d", "fear"): 0.5,
        ("a-b-7", "fear"): 0.0,
        ("a-b-c-d", "include"): 1.0,
        ("a-b-7", "include"): 0.0,
    }
    assert facts.values(corpus, "note.0.note.task")[1] == ["nback"]
    assert facts.values(corpus, "note.0.note.include")[1] == ["maybe"]


def test_read_nimads__labels_of_two_annotations_do_not_collide() -> None:
    corpus = read(annotations=[ANNOTATION, ANNOTATION | {"id": "other"}])
    assert corpus["feature"].values.tolist() == [
        "ann__fear", "ann__include", "other__fear", "other__include",
    ]  # fmt: skip
    assert has_label(corpus, "ann__fear").values.tolist() == [True, False, False]


def test_read_nimads__notes_within_analyses() -> None:
    analysis = {"id": "1", "points": [], "annotations": {"pain": 0.25, "kind": "x"}}
    studyset = {"studies": [{"id": "s", "analyses": [analysis]}]}
    corpus = read(studyset, [])
    assert weights_by_name(corpus) == {("s-1", "pain"): 0.25}
    assert_same(again(corpus), corpus)


def test_read_nimads__a_note_of_an_analysis_that_is_not_there_is_said() -> None:
    notes = [*ANNOTATION["notes"], {"study": "s9", "analysis": "1", "note": {"fear": 1}}]
    with pytest.warns(CorpusWarning, match=r"notes\[3\].*'1' of study 's9' is not in the studyset"):
        read_nimads(STUDYSET, ANNOTATION | {"notes": notes})


def test_read_nimads__a_note_without_its_study_needs_an_analysis_that_is_alone() -> None:
    alone = ANNOTATION | {"notes": [{"analysis": "7", "note": {"fear": 1}}]}
    assert weights_by_name(read(annotations=alone)) == {("a-b-7", "fear"): 1.0}
    shared = ANNOTATION | {"notes": [{"analysis": "c-d", "note": {"fear": 1}}]}
    with pytest.raises(SourceFormatError, match=r"several studies have an analysis 'c-d'"):
        read(annotations=shared)


# what is written


@pytest.mark.parametrize("name", ["set.json", "set.json.gz", "set.JSON", "set"])
def test_write_nimads__reads_the_same(name: str) -> None:
    assert_same(again(read(), name), read())


def test_write_nimads__several_annotations(tmp_path: Path) -> None:
    corpus = read(annotations=[ANNOTATION, {"id": "second", "name": None, "notes": []}])
    paths = write_nimads(corpus, tmp_path / "set.json")
    names = ["set.json", "set_annotation-1.json", "set_annotation-2.json"]
    assert [path.name for path in paths] == names
    assert_same(read(paths[0], paths[1:]), corpus)


def test_write_nimads__documents_say_the_same(tmp_path: Path) -> None:
    paths = write_nimads(read(), tmp_path / "set.json")
    written = [json.loads(path.read_text()) for path in paths]
    assert [plain(each) for each in written] == [plain(STUDYSET), plain(ANNOTATION)]


def test_write_nimads__the_same_file_each_time(tmp_path: Path) -> None:
    paths = [write_nimads(read(), tmp_path / folder / "a.json.gz")[0] for folder in "xy"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_write_nimads__features_of_no_annotation() -> None:
    corpus = tiny_corpus()
    made = again(corpus)
    assert weights_by_name(made) == weights_by_name(corpus)
    assert foci_of(made) == foci_of(corpus)


def test_write_nimads__refuses_to_replace(tmp_path: Path) -> None:
    write_nimads(read(), tmp_path / "a.json")
    with pytest.raises(StoreExistsError, match=r"a\.json exists already"):
        write_nimads(read(), tmp_path / "a.json")
    write_nimads(read(), tmp_path / "a.json", overwrite=True)


def test_write_nimads__a_selection_keeps_what_belongs_to_it() -> None:
    corpus = read()
    part = select(corpus, np.array([True, False, True]))
    assert_same(again(part), part)
    assert part["study"].values.tolist() == ["a-b", "s3"]


def test_save_corpus__keeps_all(tmp_path: Path) -> None:
    corpus = read()
    opened = open_corpus(save_corpus(corpus, tmp_path / "c.zarr"))
    assert digest(opened) == digest(corpus)
    assert_same(again(opened), corpus)


# any document: what it says is what is written

_KEY = TEXT.filter(lambda key: key not in ("id", "analyses", "points", "images", "annotations"))
_SCALAR = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
_JSON = st.recursive(
    _SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
_MORE = st.dictionaries(_KEY, _JSON, max_size=3)
_ID = st.text("ab-1", min_size=1, max_size=4)
_PLACE = st.one_of(st.none(), st.tuples(*[st.floats(-200, 200)] * 3).map(list))
_SPACE = st.sampled_from(["MNI", "TAL", "Talairach", "UNKNOWN", "x"])
_POINT = st.builds(
    lambda more, place, space: more | {"coordinates": place, "space": space}, _MORE, _PLACE, _SPACE
)
_IMAGE = st.builds(
    lambda more, own: more | own,
    _MORE,
    st.fixed_dictionaries(
        {}, optional={key: TEXT for key in ("url", "filename", "value_type", "space")}
    ),
)


@st.composite
def studysets(draw: st.DrawFn) -> dict[str, Any]:
    studies = []
    for name in draw(st.lists(_ID, max_size=3, unique=True)):
        analyses = [
            draw(_MORE)
            | {"metadata": draw(st.dictionaries(TEXT, _JSON, max_size=2)), "id": f"{number}"}
            | {"points": draw(st.lists(_POINT, max_size=3))}
            | {"images": draw(st.lists(_IMAGE, max_size=2))}
            for number in range(draw(st.integers(0, 3)))
        ]
        studies.append(draw(_MORE) | {"id": name, "analyses": analyses})
    return draw(_MORE) | {"id": draw(_ID), "studies": studies}


def plain(document: Any) -> Any:
    """A document without what says nothing: null, "None", empty lists and objects, kinds of ids."""
    if isinstance(document, dict):
        items = {
            key: str(value) if key == "id" and isinstance(value, int) else plain(value)
            for key, value in document.items()
            if (key, value) != ("space", "UNKNOWN")
        }
        return {k: v for k, v in items.items() if v not in (None, "None", "", [], {})}
    if isinstance(document, list):
        return [plain(each) for each in document]
    return document


@given(document=studysets())
@settings(max_examples=150, deadline=None)
def test_write_nimads__loses_nothing_of_any_document(document: dict[str, Any]) -> None:
    corpus = read(document, [])
    with TemporaryDirectory() as folder:
        (path,) = write_nimads(corpus, Path(folder) / "set.json")
        written = json.loads(path.read_text())
        assert_same(read(path, []), corpus)
    assert plain(written) == plain(document)


# what is wrong


def problems_of(document: Any, annotations: Any = ()) -> list[str]:
    problems = Problems(Path("set.json"))
    assert (parse(document, annotations, problems) is None) == bool(problems.n_errors)
    return [f"{problem.severity} {problem}" for problem in problems.found]


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(STUDYSET))
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return dict(document)


_FIRST = ["studies", 0, "analyses", 0]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (["studies"], {}, r"error .*expected a NIMADS studyset"),
        (["studies", 1], 3, r"error studies\[1\]: found 3; expected an object"),
        (["studies", 1, "id"], None, r"error studies\[1\]\.id: found None; each study must have"),
        (["studies", 1, "id"], "a-b", r"error studies\[1\]\.id: found 'a-b'; .*of its own"),
        (["studies", 1, "analyses"], "x", r"error studies\[1\]\.analyses: found 'x'; .* list"),
        ([*_FIRST[:3], 1, "id"], "c-d", r"error studies\[0\]\.analyses\[1\]\.id: 'c-d' is the id"),
        ([*_FIRST[:3], 1, "id"], True, r"warning .*found True; it is called analysis-1"),
        ([*_FIRST, "points"], 5, r"error .*points: found 5; expected a list"),
        ([*_FIRST, "points", 0], "x", r"error .*points\[0\]: found 'x'; expected an object"),
        ([*_FIRST, "points", 0, "coordinates"], [1, 2], r"error .*three numbers"),
        ([*_FIRST, "points", 0, "coordinates"], ["1", 2, 3], r"error .*three numbers"),
        ([*_FIRST, "points", 0, "coordinates"], [1, 2, 10**400], r"warning .*no place in a head"),
        ([*_FIRST, "points", 0, "coordinates"], [1, 2, 1e9], r"warning .*no place in a head"),
        ([*_FIRST, "points", 0, "coordinates"], [1, 2, float("nan")], r"warning .*no place"),
        ([*_FIRST, "points", 0, "space"], 4, r"error .*space: found 4; expected the name"),
        ([*_FIRST, "weights"], [1.0], r"warning .*weights: 1 weights of 2 conditions"),
        ([*_FIRST, "images", 1, "filename"], None, r"warning .*images\[1\]: .*neither url nor"),
        ([*_FIRST, "images", 1], 3, r"error .*images\[1\]: found 3; expected an object"),
    ],
)  # fmt: skip
def test_parse__says_what_is_wrong(path: list[Any], value: Any, says: str) -> None:
    found = problems_of(changed(path, value))
    assert any(re.match(says, each) for each in found), found


def test_parse__says_all_at_once() -> None:
    document = changed(["studies", 1], 3)
    document["studies"][0]["analyses"][0]["points"][0]["coordinates"] = "x"
    document["studies"].append({"id": "a-b"})
    assert len([each for each in problems_of(document) if each.startswith("error")]) == 3


@pytest.mark.parametrize("notes", [3, [3], [{"note": 5}], [{"analysis": [], "note": {}}], "x"])
def test_parse__annotations_that_are_none(notes: Any) -> None:
    (found,) = [e for e in problems_of(STUDYSET, [{"notes": notes}]) if e.startswith("error")]
    assert "expected" in found


SPOILT: dict[str, bytes] = {
    "nothing": b"",
    "blank": b" \n",
    "cut": json.dumps(STUDYSET).encode()[:-20],
    "not UTF-8": b'{"studies": [{"id": "\xff"}]}',
    "not gzip": b"\x1f\x8b and more",
    "cut gzip": gzip.compress(json.dumps(STUDYSET).encode())[:-9],
    "deep": b"[" * 100_000,
    "deep object": b'{"studies":' * 100_000 + b"1" + b"}" * 100_000,
    "a list": b"[]",
    "a number": b"1e999",
    "digits": b'{"studies": ' + b"9" * 5000 + b"}",
    "words": b"These are no studies.",
    "half a letter": b'{"studies": "\\ud800"}',
}


@pytest.mark.parametrize("name", SPOILT)
def test_read_nimads__spoilt_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "set.json"
    path.write_bytes(SPOILT[name])
    with pytest.raises(SourceFormatError, match=r"set\.json"):
        read_nimads(path)


def test_read_nimads__not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"could not be read \(No such file"):
        read_nimads(tmp_path / "none.json")
    with pytest.raises(SourceFormatError, match=r"could not be read \(Is a directory"):
        read_nimads(tmp_path)


def test_read_nimads__keys_that_are_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text('{"studies": [{"id": "a", "id": "b", "analyses": []}]}')
    with pytest.warns(CorpusWarning, match=r"the key 'id' is there more than once"):
        corpus = read_nimads(path)
    assert corpus["study"].values.tolist() == ["b"]


def test_read_nimads__numbers_that_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(changed(["studies", 0, "year"], float("nan"))))
    assert "study.year" not in facts.fields(read(path))


def test_read_nimads__a_byte_order_mark_and_long_texts(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    long = "x" * 1_000_000
    path.write_text("\ufeff" + json.dumps(changed(["studies", 0, "name"], long)))
    assert facts.values(read(path), "study.name")[1] == [long]


_ANY = st.recursive(
    st.none() | _SCALAR | st.sampled_from(["None", "id", float("nan"), float("inf"), 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def _paths(document: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield (*so_far, key)
            yield from _paths(value, (*so_far, key))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_parse__anything_anywhere_is_read_or_said(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(_paths(STUDYSET))))
    problems_of(changed(list(path), data.draw(_ANY)), [ANNOTATION])


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_parse__anything_in_an_annotation_is_read_or_said(data: st.DataObject) -> None:
    document = json.loads(json.dumps(ANNOTATION))
    path = list(data.draw(st.sampled_from(list(_paths(ANNOTATION)))))
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = data.draw(_ANY)
    problems_of(STUDYSET, [document])


# real files, as NiMARE reads them

_SPEC = find_spec("nimare")
_NIMARE = Path(_SPEC.origin).parent if _SPEC is not None and _SPEC.origin else None
#: Manifests of parquet releases are called studyset.json too.
_FILES = sorted(_NIMARE.rglob("*_studyset.json")) if _NIMARE else []


@pytest.mark.skipif(not _FILES, reason="nimare is not installed")
@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.parametrize("rewritten", [False, True])
def test_read_nimads__as_nimare_reads(path: Path, rewritten: bool, tmp_path: Path) -> None:
    from nimare.studyset import Studyset

    notes = (
        [path.with_name("nimads_annotation.json")] if path.name == "nimads_studyset.json" else []
    )
    corpus = read(path, notes)
    used = path
    if rewritten:  # what we write is what NiMARE reads
        used, *notes = write_nimads(corpus, tmp_path / "set.json")
    theirs = Studyset(
        str(used), target=None, annotations=[json.loads(n.read_text()) for n in notes]
    )
    points = theirs.coordinates
    assert sorted(corpus["analysis_id"].values.tolist()) == sorted(map(str, theirs.ids))
    assert set(corpus["study_id"].values.tolist()) == set(map(str, theirs.study_ids))
    placed = points[points[["x", "y", "z"]].notna().all(axis=1)]
    assert corpus.sizes["focus"] == len(placed)
    ours = foci_of(corpus)
    for name, rows in placed.groupby("id"):
        expected = rows[["x", "y", "z"]].to_numpy().tolist()
        assert [list(focus[:3]) for focus in ours[str(name)]] == expected
    assert set(corpus["feature"].values.tolist() if "feature" in corpus.dims else []) == {
        label for label in theirs.get_labels()
    }


@pytest.mark.parametrize("number", [2**64, -(2**64), 10**30])
def test_write_nimads__whole_numbers_beyond_64_bits(number: int) -> None:
    analysis = {"id": "1", "points": [{"coordinates": [0, 0, 0]}], "metadata": {"m": [number]}}
    study = {"id": "s", "metadata": {"n": number}, "analyses": [analysis]}
    studyset = {"id": "x", "studies": [study]}
    assert facts.values(again(read(studyset, ())), "study.metadata.n")[1] == [float(number)]


@pytest.mark.parametrize("text", [None, "", "null", "{", "[1]"])
def test_read_nimads__an_annotation_that_is_none_is_named(text: str | None, tmp_path: Path) -> None:
    studyset, notes = tmp_path / "set.json", tmp_path / "notes.json"
    studyset.write_text(json.dumps(STUDYSET))
    if text is not None:
        notes.write_text(text)
    with pytest.raises(SourceFormatError, match=r"notes\.json"):
        read_nimads(studyset, notes)


def test_read_nimads__null_is_no_studyset(tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text("null")
    with pytest.raises(SourceFormatError, match="found null"):
        read_nimads(tmp_path / "set.json")
