"""Parquet releases: NiMARE's own, what either side writes, and every way to be broken."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from numpy.testing import assert_array_equal

from nimare_dask import facts
from nimare_dask.corpus import annotations_of, digest, weights_of
from nimare_dask.draft import Draft
from nimare_dask.errors import CorpusWarning, SettingsError, SourceFormatError, StoreExistsError
from nimare_dask.io import parquet_tables
from nimare_dask.io.parquet import parse, read_parquet
from nimare_dask.io.parquet_write import write_parquet
from nimare_dask.io.problems import Problems
from nimare_dask.metadata import get_metadata
from nimare_dask.simulate import simulate_corpus
from tests.builders import foci_of, listing, tiny_corpus, weights_by_name
from tests.corpora import assert_same_corpus, corpora

pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
pq = pytest.importorskip("pyarrow.parquet")

RELEASES = ("nback_vs_flanker_studyset_2026-07", "neurostore_parquet_studyset")


def release(name: str) -> Path:
    """A release in the wheel of NiMARE."""
    pytest.importorskip("nimare")
    folder = Path(str(resources.files("nimare"))) / "resources" / name
    if not folder.is_dir():
        pytest.skip(f"this NiMARE has no {name}")
    return folder


def peer(folder: Path) -> Any:
    """A release as NiMARE reads it, with coordinates as reported."""
    studyset = pytest.importorskip("nimare.studyset").Studyset
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return studyset.from_parquet(str(folder)).with_context(space=None)


def assert_as_the_peer_reads(folder: Path, corpus: xr.Dataset) -> Any:
    """Analyses, coordinates and values of labels are those that NiMARE reads."""
    theirs = peer(folder)
    assert sorted(theirs.ids) == sorted(corpus["analysis_id"].values.tolist())
    assert sorted(theirs.study_ids) == sorted(set(corpus["study_id"].values.tolist()))
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in theirs.ids}
    for row in theirs.coordinates[["id", "x", "y", "z", "space"]].itertuples(index=False):
        found[row.id].append(tuple(row)[1:])
    assert found == foci_of(corpus)
    if "feature" in corpus.dims:
        table = theirs.annotations_df.set_index("id")
        columns = {name: table[name].to_dict() for name in corpus["feature"].values.tolist()}
        for (analysis, feature), value in weights_by_name(corpus).items():
            assert columns[feature][analysis] == value
    return theirs


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_parquet(tiny_corpus(), tmp_path / "release")


# what is read


@pytest.mark.parametrize("name", RELEASES)
def test_read_parquet__as_nimare_reads_its_releases(name: str) -> None:
    corpus = read_parquet(release(name))
    theirs = assert_as_the_peer_reads(release(name), corpus)
    (document,) = annotations_of(corpus)
    assert len(document["note_keys"]) == len(theirs.get_labels())
    assert document["id"] == next(iter(theirs.annotations)).id
    names = theirs.metadata.set_index("id")["analysis_name"]
    ours = get_metadata(corpus, "analysis.metadata.analysis_name")
    assert [names[each] for each in corpus["analysis_id"].values.tolist()] == ours.values.tolist()


def test_read_parquet__texts_and_sample_sizes_of_a_release() -> None:
    corpus = read_parquet(release(RELEASES[0]))
    theirs = peer(release(RELEASES[0]))
    expected = dict(zip(theirs.ids, theirs.sample_sizes(), strict=True))
    sizes = corpus["analysis_sample_size"].values
    found = dict(zip(corpus["analysis_id"].values.tolist(), sizes.tolist(), strict=True))
    both = [(found[name], float(expected[name])) for name in found]
    known = [(ours, other) for ours, other in both if np.isfinite(ours)]
    assert known
    assert all(ours == other for ours, other in known)
    groups = "note.0.note.ParticipantDemographicsExtractor.groups[0].group_name"
    rows, values = facts.values(corpus, groups)
    table = theirs.annotations_df.set_index("id")[groups.removeprefix("note.0.note.")]
    ids = corpus["analysis_id"].values[rows].tolist()
    assert [table[each] for each in ids] == values


def test_read_parquet__values_of_points_are_nimads_lists() -> None:
    corpus = read_parquet(release(RELEASES[0]))
    table = pq.read_table(release(RELEASES[0]) / "coordinates.parquet")
    rows, values = facts.values(corpus, "focus.values")
    n_stated = sum(
        len(table[name]) - table[name].null_count
        for name in table.column_names
        if name.endswith("_stat") or name.startswith("value_") or name == "p"
    )
    assert sum(map(len, values)) == n_stated
    z = {
        row: each["value"]
        for row, all_ in zip(rows.tolist(), values, strict=True)
        for each in all_
        if each["kind"] == "z"
    }
    assert sorted(z.values()) == sorted(v for v in table["z_stat"].to_pylist() if v is not None)


@pytest.mark.parametrize("name", ["nidm_pain_studyset.json", "nimads_studyset.json"])
def test_read_parquet__reads_what_nimare_writes(name: str, tmp_path: Path) -> None:
    module = pytest.importorskip("nimare.studyset")
    source = Path(str(resources.files("nimare"))) / "tests" / "data" / name
    if not source.is_file():
        pytest.skip(f"this NiMARE has no {name}")
    studyset = module.Studyset(str(source), target=None)
    studyset.to_parquet(str(tmp_path / "theirs"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        corpus = read_parquet(tmp_path / "theirs")
    assert sorted(corpus["analysis_id"].values.tolist()) == sorted(studyset.ids)
    coordinates = studyset.coordinates.dropna(subset=["x"])
    assert corpus.sizes["focus"] == len(coordinates)
    assert_array_equal(
        np.sort(corpus["focus_xyz"].values, axis=0), np.sort(coordinates[["x", "y", "z"]], axis=0)
    )
    kinds = [each for each in studyset.images if each not in ("id", "study_id", "contrast_id")]
    kinds = [each for each in kinds if each != "space" and not each.endswith("__relative")]
    assert corpus.sizes.get("image", 0) == int(studyset.images[kinds].notna().sum().sum())


def test_read_parquet__an_empty_cell_is_no_weight_and_a_zero_is_one(tmp_path: Path) -> None:
    draft = Draft()
    study = draft.add_study("s")
    rows = [draft.add_analysis(study, f"{number}") for number in range(3)]
    draft.add_annotation({"id": "notes"})
    draft.add_weight(draft.add_feature(0, "a"), rows[0], 0.0)
    draft.add_weight(draft.add_feature(0, "a"), rows[2], 2.5)
    draft.add_weight(draft.add_feature(0, "b", "boolean"), rows[1], 0.0)
    corpus = read_parquet(write_parquet(draft.build(), tmp_path / "release"))
    assert weights_by_name(corpus) == {("s-0", "a"): 0.0, ("s-2", "a"): 2.5, ("s-1", "b"): 0.0}
    table = pq.read_table(tmp_path / "release" / "annotations.parquet")
    assert table["a"].to_pylist() == [0.0, None, 2.5]
    assert table["b"].to_pylist() == [None, False, None]


def test_read_parquet__rows_of_no_analysis_are_counted(written: Path) -> None:
    rewrite(written, "coordinates", lambda t: t.set_column(0, "id", ids_with(t, "stranger", 2)))
    rewrite(written, "metadata", lambda t: t.set_column(0, "id", ids_with(t, "stranger", 1)))
    with pytest.warns(CorpusWarning, match=r"'stranger' is no analysis") as caught:
        corpus = read_parquet(written)
    message = str(caught[0].message)
    assert "coordinates.parquet, row 1" in message
    assert "2 rows are like this" in message
    assert "metadata.parquet, row 1" in message
    assert corpus.sizes["focus"] == tiny_corpus().sizes["focus"] - 2


def test_read_parquet__foci_in_any_order_of_rows(written: Path) -> None:
    (written / "studyset.json").unlink()
    rewrite(written, "coordinates", lambda t: t.take([5, 2, 0, 4, 1, 3]))
    corpus = read_parquet(written)
    expected = {name: sorted(foci) for name, foci in foci_of(tiny_corpus()).items()}
    assert {name: sorted(foci) for name, foci in foci_of(corpus).items()} == expected


def test_read_parquet__foci_without_place_are_counted(written: Path) -> None:
    def spoil(table: Any) -> Any:
        x = table["x"].to_pylist()
        return table.set_column(3, "x", pa.array([None, float("nan"), 1e9, *x[3:]], pa.float64()))

    rewrite(written, "coordinates", spoil)
    with pytest.warns(CorpusWarning, match="3 rows are like this"):
        corpus = read_parquet(written)
    assert corpus["analysis_n_foci"].values.tolist() == [0, 0, 0, 3]


def test_read_parquet__the_last_of_several_rows_counts(written: Path) -> None:
    (written / "studyset.json").unlink()
    rewrite(written, "annotations", lambda t: pa.concat_tables([t, t.slice(0, 1)]))
    with pytest.warns(CorpusWarning, match="of several rows the last counts"):
        corpus = read_parquet(written)
    assert_array_equal(weights_of(corpus).toarray(), weights_of(tiny_corpus()).toarray())


def test_read_parquet__any_types_of_columns(written: Path) -> None:
    import datetime
    from decimal import Decimal

    (written / "studyset.json").unlink()
    columns = {
        "category": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "day": pa.array([datetime.date(2020, 1, 2), None, None, None]),
        "exact": pa.array([Decimal("1.25"), None, None, None]),
        "flag": pa.array([True, None, False, None]),
        "nested": pa.array([{"when": datetime.date(2020, 1, 2)}, None, None, None]),
        "small": pa.array([1, None, 2, None], pa.int8()),
        "nothing": pa.nulls(4),
        "bytes": pa.array([b"\xff", None, None, None]),
    }
    rewrite(written, "metadata", lambda t: add_columns(t, columns))
    with pytest.warns(CorpusWarning, match="column bytes: binary is neither text nor number"):
        corpus = read_parquet(written)
    found = {name: facts.values(corpus, f"analysis.metadata.{name}")[1] for name in columns}
    assert found == {
        "category": ["a", "b", "a"],
        "day": ["2020-01-02"],
        "exact": [1.25],
        "flag": [True, False],
        "nested": [{"when": "2020-01-02"}],
        "small": [1, 2],
        "nothing": [],
        "bytes": [],
    }


def test_read_parquet__whole_numbers_as_ids(tmp_path: Path) -> None:
    ids = {"id": [1, 2], "study_id": [7, 8], "contrast_id": [1, 1]}
    folder = tmp_path / "release"
    folder.mkdir()
    pq.write_table(pa.table({"study_id": [7, 8]}), folder / "studies.parquet")
    pq.write_table(pa.table(ids), folder / "analyses.parquet")
    places = {"id": [2, 1], "x": [1, 2], "y": [1, 2], "z": [1, 2]}
    pq.write_table(pa.table(places), folder / "coordinates.parquet")
    corpus = read_parquet(folder)
    assert foci_of(corpus) == {"1": [(2, 2, 2, "UNKNOWN")], "2": [(1, 1, 1, "UNKNOWN")]}


# what is written


@given(corpus=corpora())
@settings(max_examples=40, deadline=None)
def test_write_parquet__loses_nothing(corpus: xr.Dataset) -> None:
    with TemporaryDirectory() as folder:
        write_parquet(corpus, Path(folder) / "release")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_same_corpus(read_parquet(Path(folder) / "release"), corpus)


def test_write_parquet__plain_corpora_have_the_same_digest(written: Path) -> None:
    assert digest(read_parquet(written)) == digest(tiny_corpus())
    assert "nimare_dask_facts.parquet" not in listing(written)


@pytest.mark.parametrize("name", RELEASES)
def test_write_parquet__releases_come_back(name: str, tmp_path: Path) -> None:
    corpus = read_parquet(release(name))
    write_parquet(corpus, tmp_path / "release")
    assert digest(read_parquet(tmp_path / "release")) == digest(corpus)
    theirs, ours = peer(release(name)), peer(tmp_path / "release")
    assert_as_the_peer_reads(tmp_path / "release", corpus)
    assert ours.get_labels() == theirs.get_labels()
    for label in ("z_stat", "t_stat"):
        if label in theirs.coordinates:
            first, second = (
                set(zip(each.coordinates["id"], each.coordinates[label].fillna(-99), strict=True))
                for each in (ours, theirs)
            )
            assert first == second


def test_write_parquet__nimare_reads_a_simulated_corpus(tmp_path: Path) -> None:
    corpus = simulate_corpus(12, n_features=3).drop_vars(["truth_xyz", "truth_feature"])
    corpus = corpus.assign(analysis_sample_size=("analysis", np.arange(12) + 10.0))
    theirs = assert_as_the_peer_reads(write_parquet(corpus, tmp_path / "release"), corpus)
    assert list(theirs.sample_sizes()) == (np.arange(12) + 10.0).tolist()
    assert_same_corpus(read_parquet(tmp_path / "release"), corpus)


def test_write_parquet__images_of_one_type_reach_nimare(tmp_path: Path) -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("s"), "1")
    draft.add_focus(row, (0, 0, 0), "MNI")
    for kind, path in (("z", "one.nii"), ("beta", "b.nii"), ("z", "two.nii")):
        draft.add_image(row, kind, path, "MNI152")
    theirs = peer(write_parquet(draft.build(), tmp_path / "release"))
    rows = theirs.image_rows
    assert sorted(zip(rows["value_type"], rows["filename"], strict=True)) == [
        ("beta", "b.nii"),
        ("z", "one.nii"),
        ("z", "two.nii"),
    ]


def test_write_parquet__statistics_of_one_spelling_stand_in_columns_alone(tmp_path: Path) -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("s"), "1")
    for z, t in ((3.0, 4), (2.5, 5)):
        focus = draft.add_focus(row, (0, 0, 0), "MNI")
        values = [{"kind": "t", "value": t}, {"kind": "z", "value": z}]
        draft.facts.add("focus.values", focus, values)
    folder = write_parquet(draft.build(), tmp_path / "release")
    assert "nimare_dask_facts.parquet" not in listing(folder)
    assert_same_corpus(read_parquet(folder), draft.build())
    assert peer(folder).coordinates["z_stat"].tolist() == [3.0, 2.5]
    assert peer(folder).coordinates["t_stat"].tolist() == [4, 5]


def test_write_parquet__wide_annotations_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = simulate_corpus(30, n_features=7, features_per_analysis=3)
    corpus = corpus.drop_vars(["truth_xyz", "truth_feature"])
    for module in ("nimare_dask.io.parquet_write", "nimare_dask.io.parquet_tables"):
        monkeypatch.setattr(f"{module}.MOST_CELLS", 40)
    write_parquet(corpus, tmp_path / "release")
    file = pq.ParquetFile(tmp_path / "release" / "annotations.parquet")
    assert file.num_row_groups == 6
    assert_same_corpus(read_parquet(tmp_path / "release"), corpus)


def test_write_parquet__says_what_has_no_place(tmp_path: Path) -> None:
    with pytest.warns(CorpusWarning, match="holds no variable truth_xyz, truth_feature"):
        write_parquet(simulate_corpus(5), tmp_path / "release")


def test_write_parquet__replaces_releases_only(written: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreExistsError, match="exists already"):
        write_parquet(tiny_corpus(), written)
    write_parquet(tiny_corpus(), written, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(StoreExistsError, match=r"holds no studyset\.json"):
        write_parquet(tiny_corpus(), tmp_path / "mine", overwrite=True)
    assert listing(tmp_path / "mine") == ["thesis.txt"]


def test_write_parquet__leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_parquet(tiny_corpus(), tmp_path / "release")
    assert listing(tmp_path) == []


def test_read_parquet__facts_of_a_release_that_was_changed(tmp_path: Path) -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("s"), "1")
    focus = draft.add_focus(row, (0, 0, 0), "MNI")
    draft.add_focus(row, (1, 0, 0), "MNI")
    draft.facts.add("focus.odd", focus, {"a": 1})
    folder = write_parquet(draft.build(), tmp_path / "release")
    rewrite(folder, "coordinates", lambda t: t.slice(1))
    with pytest.warns(CorpusWarning, match=r"field 'focus\.odd'.* other rows"):
        corpus = read_parquet(folder)
    assert facts.fields(corpus) == []


# what is wrong


def rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a table of a release."""
    path = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def ids_with(table: Any, name: str, n: int) -> Any:
    return pa.array([name] * n + table["id"].to_pylist()[n:])


def add_columns(table: Any, columns: dict[str, Any]) -> Any:
    for name, values in columns.items():
        table = table.append_column(name, values)
    return table


def problems_of(folder: Path) -> list[str]:
    problems = Problems(folder)
    assert (parse(folder, problems) is None) == bool(problems.n_errors)
    return [str(each) for each in problems.found if each.severity == "error"]


def test_parse__not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert problems_of(tmp_path / "file") == [
        "it is a file; expected a folder with studies.parquet and others."
    ]
    (said,) = problems_of(tmp_path / "nowhere")
    assert said.startswith("it is not there")


@pytest.mark.parametrize("name", ["studies", "analyses"])
def test_parse__a_table_is_not_there(written: Path, name: str) -> None:
    (written / f"{name}.parquet").unlink()
    (said,) = problems_of(written)
    assert said == f"{name}.parquet: it is not there; every release has one."


@pytest.mark.parametrize("name", ["coordinates", "metadata", "texts", "annotations"])
def test_parse__does_without_other_tables(written: Path, name: str) -> None:
    (written / f"{name}.parquet").unlink()
    assert problems_of(written) == []


TABLES = ["studies", "analyses", "coordinates", "metadata", "texts", "annotations"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("content", [b"", b"id\tx\ty\n", b"PAR1", b"PAR1" + bytes(200) + b"PAR1"])
def test_parse__not_parquet(written: Path, name: str, content: bytes) -> None:
    (written / f"{name}.parquet").write_bytes(content)
    (said,) = problems_of(written)
    assert said.startswith(f"{name}.parquet: it could not be read as a parquet table (")


@pytest.mark.parametrize("name", TABLES)
def test_parse__damaged_anywhere(written: Path, name: str) -> None:
    path = written / f"{name}.parquet"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:cut])
        (said,) = problems_of(written)
        assert said.startswith(f"{name}.parquet: it could not be read")
    for _ in range(15):
        broken = bytearray(whole)
        broken[rng.integers(4, len(whole) - 8)] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        problems_of(written)  # an error, or read; never a traceback


@pytest.mark.parametrize(
    ("name", "column"),
    [("studies", "study_id"), ("analyses", "contrast_id"), ("coordinates", "y"), ("texts", "id")],
)
def test_parse__a_column_is_missing(written: Path, name: str, column: str) -> None:
    rewrite(written, name, lambda t: t.drop_columns([column]))
    (said,) = problems_of(written)
    assert said.startswith(f"{name}.parquet: no column {column}; found ")


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("coordinates", "x", "found string; expected numbers"),
        ("coordinates", "id", "found list<element: int64>; expected text or whole numbers"),
        ("analyses", "id", "found list<element: int64>; expected text or whole numbers"),
    ],
)
def test_parse__a_column_of_another_type(
    written: Path, name: str, column: str, expected: str
) -> None:
    def spoil(table: Any) -> Any:
        values = ["a"] * len(table) if "string" in expected else [[1]] * len(table)
        return table.set_column(table.column_names.index(column), column, pa.array(values))

    rewrite(written, name, spoil)
    assert any(expected in said and f"column {column}" in said for said in problems_of(written))


def test_parse__ids_twice_or_missing(written: Path) -> None:
    rewrite(written, "analyses", lambda t: t.set_column(0, "id", pa.array(["a", "a", None, "b"])))
    said = problems_of(written)
    assert said == [
        "analyses.parquet, column id: 1 rows (the first is 3) have no id.",
        "analyses.parquet, column id: 'a' is there 2 times; each id must be there once.",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": "other"}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "[" * 100_000,
    ],
)
def test_parse__manifest_that_is_none(written: Path, content: str) -> None:
    (written / "studyset.json").write_bytes(content.encode("latin-1"))
    (said,) = problems_of(written)
    assert len(said) < 400


@pytest.mark.parametrize(
    "own",
    [
        {"spaces": 3, "skip": [], "rows": 1, "features": {"column": 1}},
        {"features": {"column": ["x"], "name": []}, "skip": {"metadata": 1}},
        {"spaces": [None], "studyset": [1], "provenance": {}},
        {"features": {key: [["x"]] for key in ("column", "name", "annotation", "label", "kind")}},
        {
            "features": {
                key: ["terms_abstract__pain"]
                for key in ("column", "name", "annotation", "label", "kind")
            },
            "is_annotated": True,
        },
        3,
    ],
)
def test_parse__our_part_of_the_manifest_is_spoilt(written: Path, own: Any) -> None:
    manifest = json.loads((written / "studyset.json").read_text(encoding="utf-8"))
    manifest |= {"nimare_dask": own, "annotations": [{"id": "a"}, 3]}
    (written / "studyset.json").write_text(json.dumps(manifest), encoding="utf-8")
    problems_of(written)  # an error, or read; never a traceback


def test_read_parquet__raises_with_the_table(written: Path) -> None:
    shutil.copy(written / "studyset.json", written / "analyses.parquet")
    with pytest.raises(SourceFormatError, match=r"release, analyses\.parquet: it could not"):
        read_parquet(written)


def test_pyarrow__says_what_to_install(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(parquet_tables, "import_module", missing)
    for action in (lambda: read_parquet(written), lambda: write_parquet(tiny_corpus(), tmp_path)):
        with pytest.raises(SettingsError, match=r"pip install 'nimare-dask\[parquet\]'"):
            action()
