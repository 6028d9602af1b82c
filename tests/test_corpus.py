"""The corpus: what fits together, what its digest sees, and its store, whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from numpy.testing import assert_array_equal
from scipy import sparse

from nimare_dask import corpus as nd_corpus
from nimare_dask import facts
from nimare_dask.corpus import digest, open_corpus, save_corpus, summary, weights_of
from nimare_dask.errors import SchemaError, SourceFormatError, StoreExistsError
from nimare_dask.facts import Facts
from nimare_dask.metadata import get_metadata
from nimare_dask.selection import select
from nimare_dask.simulate import simulate_corpus
from nimare_dask.wholeness import check
from tests.builders import (
    Draft,
    drafts,
    foci_of,
    listing,
    small_space,
    tiny_corpus,
    weights_by_name,
)

STAMPS = ("kind", "schema_version")
PARTS: dict[str, Any] = {
    "analysis_id": ["a", "b"],
    "study_id": ["a", "b"],
    "n_foci": [1, 2],
    "xyz": [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
    "focus_space": [0, 0, 1],
    "spaces": ["MNI", "TAL"],
}


def facts_of(titles: list[str]) -> Facts:
    found = Facts()
    found.add_column("study.name", titles)
    return found


def unstamped(corpus: xr.Dataset) -> xr.Dataset:
    attributes = {name: value for name, value in corpus.attrs.items() if name not in STAMPS}
    return corpus.drop_attrs(deep=False).assign_attrs(attributes)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_corpus(tiny_corpus(), tmp_path_factory.mktemp("template") / "corpus.zarr")


@pytest.fixture
def stored(tmp_path: Path, template: Path) -> Path:
    """The tiny corpus as it was written, to spoil."""
    return Path(shutil.copytree(template, tmp_path / "corpus.zarr"))


# putting together


def test_build__keeps_foci_and_weights() -> None:
    corpus = tiny_corpus()
    assert foci_of(corpus) == {
        "s1-1": [(0, 0, 0, "MNI"), (8, 0, 0, "MNI")],
        "s1-2": [],
        "s2-1": [(0, -16, 8, "TAL")],
        "s3-1": [(2.5, 3, 4, "UNKNOWN"), (-20, 10, 10, "UNKNOWN"), (400, 0, 0, "UNKNOWN")],
    }
    pain, relief = "terms_abstract__pain", "topics_abstract__pain relief"
    assert weights_by_name(corpus) == {
        ("s1-1", pain): 0.5,
        ("s2-1", pain): 0.25,
        ("s3-1", pain): 0.1,
        ("s1-1", relief): 0.001,
        ("s1-2", relief): 0.2,
        ("s3-1", relief): 0.0005,
    }
    assert corpus["feature_n_weights"].values.tolist() == [3, 0, 3]


def test_build__unsorted_weights_lie_by_feature_and_analysis() -> None:
    unsorted = sparse.csc_matrix(([0.3, 0.2, 0.1], [1, 0, 0], [0, 2, 3]), shape=(2, 2))
    assert not unsorted.has_sorted_indices
    corpus = nd_corpus.build(**PARTS, feature=["f", "g"], weights=unsorted)
    assert corpus["weight_analysis"].values.tolist() == [0, 1, 0]
    assert corpus["weight_value"].values.tolist() == [0.2, 0.3, 0.1]


def test_build__without_foci_or_analyses() -> None:
    corpus = nd_corpus.build(
        analysis_id=[], study_id=[], n_foci=[], xyz=[], focus_space=[], spaces=["MNI"]
    )
    assert (corpus.sizes["analysis"], corpus.sizes["focus"]) == (0, 0)


def test_build__titles_stay_whole() -> None:
    titles = ["", "a" * 1000]
    corpus = nd_corpus.build(**PARTS, facts=facts_of(titles))
    assert get_metadata(corpus, "name").values.tolist() == titles


MATRIX = sparse.csc_matrix(np.eye(2))


@pytest.mark.parametrize(
    "change",
    [
        {"study_id": ["a"]},
        {"n_foci": [1, 2, 0]},
        {"n_foci": [1, 3]},
        {"focus_space": [0, 0]},
        {"focus_space": [0, 0, 2]},
        {"focus_space": [0, 0, 256]},
        {"xyz": [[0, 0], [1, 2], [4, 5]]},
        {"xyz": [[0, 0, 0], [1, 2, 3]]},
        {"n_foci": [1, 1], "xyz": [[0, 0], [1, 2], [4, 5]], "focus_space": [0, 0]},
        {"feature": ["f"], "weights": MATRIX},
        {"feature": ["f", "g"], "weights": MATRIX[:1]},
        {"feature": ["f", "g"], "weights": sparse.csc_matrix(np.ones((3, 2)))},
        {"feature": ["f"]},
        {"facts": facts_of(["one", "two", "three"])},
        {"study": ["a"]},
        {"study": ["a", "b", "a"]},
        {"analysis_id": ["a", "a"]},
    ],
    ids=lambda change: " ".join(f"{name}" for name in change),
)
def test_build__parts_that_do_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        nd_corpus.build(**{**PARTS, **change})


# what check says


def spoilt(name: str, at: Any, value: Any) -> xr.Dataset:
    corpus = tiny_corpus()
    values = corpus[name].values.copy()
    values[at] = value
    return corpus.assign({name: (corpus[name].dims, values)})


@pytest.mark.parametrize(
    ("name", "at", "value", "says"),
    [
        ("analysis_n_foci", 0, 3, r"analysis_n_foci adds up to 7 but focus_xyz has 6 foci"),
        ("analysis_n_foci", slice(0, 2), [3, -1], r"analysis_n_foci"),
        ("focus_space", 0, 3, r"focus_space has codes 0 to 3 but there are 3 names .*`spaces`"),
        ("focus_space", 0, -1, r"focus_space has codes -1 to 2"),
        ("focus_xyz", (2, 1), np.nan, r"focus_xyz .* not finite; remove"),
        ("focus_xyz", (2, 1), np.inf, r"focus_xyz .* not finite; remove"),
        ("analysis_id", 3, "s2-1", r"analysis_id has 1 names more than once \(s2-1\).*unique"),
        ("feature", 1, "terms_abstract__pain", r"feature has 1 names .*\(terms_abstract__pain\)"),
        ("feature_n_weights", 1, 2, r"feature_n_weights adds up to 8 but there are 6 weights"),
        ("feature_n_weights", slice(0, 2), [4, -1], r"feature_n_weights"),
        ("weight_analysis", 0, 4, r"weight_analysis points at an analysis that is not there"),
        ("weight_analysis", 0, -1, r"weight_analysis points at an analysis that is not there"),
        ("weight_value", 0, np.nan, r"weight_value .* not finite"),
    ],
)
def test_check__values_that_do_not_agree(name: str, at: Any, value: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        check(spoilt(name, at, value))


@pytest.mark.parametrize("name", ["analysis_id", "study_id", "analysis_n_foci", "focus_space"])
def test_check__missing_variable(name: str) -> None:
    with pytest.raises(SchemaError, match=rf"{name} \(.*\) is missing .*simulate_corpus\(\)"):
        check(tiny_corpus().drop_vars(name))


@pytest.mark.parametrize("name", ["feature", "feature_n_weights", "weight_analysis"])
def test_check__features_are_whole_or_absent(name: str) -> None:
    with pytest.raises(SchemaError, match=rf"{name} \(.*\) is missing"):
        check(tiny_corpus().drop_vars(name))


def test_check__without_the_names_of_spaces() -> None:
    corpus = tiny_corpus()
    del corpus.attrs["spaces"]
    with pytest.raises(SchemaError, match=r"there are 0 names in the attribute `spaces`"):
        check(corpus)


def test_weights_of__without_features() -> None:
    with pytest.raises(SchemaError, match=r"feature .*is missing.*features=\[\(npz, vocabulary\)"):
        weights_of(nd_corpus.build(**PARTS))


def test_summary__counts() -> None:
    found = summary(tiny_corpus())
    del found["digest"]
    assert found == {
        "analyses": 4,
        "studies": 3,
        "foci": 6,
        "analyses without foci": 1,
        "foci by reported space": {"MNI": 2, "TAL": 1, "UNKNOWN": 3},
        "features": 3,
        "weights": 6,
        "images": 0,
        "fields": 3,
    }


# the digest


def test_digest__same_content_same_digest() -> None:
    assert digest(tiny_corpus()) == digest(tiny_corpus())
    assert len(digest(tiny_corpus())) == 64


def test_digest__does_not_depend_on_chunks() -> None:
    chunked = tiny_corpus().chunk({"analysis": 2, "focus": 1, "weight": 4})
    assert digest(chunked) == digest(tiny_corpus())


def test_digest__does_not_depend_on_storage(stored: Path) -> None:
    opened = open_corpus(stored)
    assert digest(opened) == digest(unstamped(opened)) == digest(tiny_corpus())


def test_digest__does_not_depend_on_the_chunks_of_the_store(tmp_path: Path, stored: Path) -> None:
    rechunked = tmp_path / "rechunked.zarr"
    encoding = {"focus_xyz": {"chunks": (1, 3)}, "analysis_id": {"chunks": (3,)}}
    opened = open_corpus(stored)
    same = opened.assign_attrs(digest=digest(opened))
    same.to_zarr(rechunked, zarr_format=3, consolidated=False, encoding=encoding)
    assert digest(open_corpus(rechunked)) == digest(tiny_corpus())


def test_digest__does_not_depend_on_byte_order() -> None:
    corpus = tiny_corpus()
    turned = corpus.assign(focus_xyz=corpus["focus_xyz"].astype(">f8"))
    assert digest(turned) == digest(corpus)


CHANGES: dict[str, tuple[Any, Any]] = {
    "analysis_id": (0, "s1-9"),
    "study_id": (0, "s9"),
    "analysis_n_foci": (slice(0, 2), [1, 1]),
    "study": (0, "s9"),
    "analysis_study": (0, 1),
    "analysis_contrast": (0, "9"),
    "field": (0, "analysis.nome"),
    "field_n_facts": (slice(0, 2), [2, 3]),
    "fact_row": (0, 1),
    "fact_number": (-1, 1.0),
    "fact_text": (0, 1),
    "text_value": (1, "."),
    "text_is_json": (1, True),
    "focus_xyz": ((5, 2), 1e-9),
    "focus_space": (0, 1),
    "feature": (1, "terms_abstract__fears"),
    "feature_n_weights": (slice(1, 3), [1, 2]),
    "weight_analysis": (0, 1),
    "weight_value": (5, 0.0006),
}


@pytest.mark.parametrize("name", CHANGES)
def test_digest__every_value_changes_it(name: str) -> None:
    assert digest(spoilt(name, *CHANGES[name])) != digest(tiny_corpus())


def test_digest__every_variable_is_in_the_test_above() -> None:
    assert set(map(str, tiny_corpus().variables)) - set(CHANGES) == {"axis"}


def test_digest__names_of_spaces_change_it() -> None:
    assert digest(tiny_corpus().assign_attrs(spaces=["MNI", "TAL", "?"])) != digest(tiny_corpus())


def test_digest__moving_a_letter_to_the_next_title_changes_it() -> None:
    titles = [["ab", "c"], ["a", "bc"]]
    first, second = (nd_corpus.build(**PARTS, facts=facts_of(each)) for each in titles)
    assert digest(first) != digest(second)


def test_digest__a_change_after_opening_changes_it(stored: Path) -> None:
    opened = open_corpus(stored)
    changed = opened.assign(focus_xyz=opened["focus_xyz"] + 1.0)
    assert digest(changed) != digest(opened)


def test_digest__of_selected_analyses_is_another(stored: Path) -> None:
    opened = open_corpus(stored)
    part = select(opened, np.array([True, False, True, True]))
    assert digest(part) != digest(opened)


# the store


def test_save_corpus__opens_identical(stored: Path) -> None:
    opened = open_corpus(stored)
    xr.testing.assert_identical(unstamped(opened), tiny_corpus())
    kinds = {name: variable.dtype for name, variable in tiny_corpus().variables.items()}
    assert {name: variable.dtype for name, variable in opened.variables.items()} == kinds
    assert (opened.attrs["kind"], opened.attrs["schema_version"]) == ("nimare_dask.corpus", 2)


def test_save_corpus__keeps_the_digest_in_the_store_alone(stored: Path) -> None:
    attributes = json.loads((stored / "zarr.json").read_text())["attributes"]
    assert attributes["digest"] == digest(tiny_corpus())
    assert "digest" not in open_corpus(stored).attrs


def test_save_corpus__simulated_opens_identical(tmp_path: Path) -> None:
    corpus = simulate_corpus(30, n_features=3, space=small_space(), random_state=1)
    opened = open_corpus(save_corpus(corpus, tmp_path / "corpus.zarr"))
    xr.testing.assert_identical(unstamped(opened), corpus)


@given(draft=drafts())
@settings(max_examples=12)
def test_save_corpus__any_corpus_opens_identical(draft: Draft) -> None:
    corpus = draft.build()
    with TemporaryDirectory() as folder:
        opened = open_corpus(save_corpus(corpus, Path(folder) / "corpus.zarr"))
    xr.testing.assert_identical(unstamped(opened), corpus)
    assert facts.values(opened, "study.name")[1] == draft.titles
    assert opened["analysis_id"].values.tolist() == draft.ids
    spaces = [draft.spaces[code] for code in draft.space_of_analysis]
    for name, space, foci in zip(draft.ids, spaces, draft.foci, strict=True):
        assert foci_of(opened)[name] == [(*focus, space) for focus in foci]
    if draft.features:
        assert opened["feature"].values.tolist() == draft.features
        assert_array_equal(weights_of(opened).toarray(), draft.weights)


def test_save_corpus__saves_what_was_opened(tmp_path: Path, stored: Path) -> None:
    again = save_corpus(open_corpus(stored), tmp_path / "again.zarr")
    xr.testing.assert_identical(open_corpus(again), open_corpus(stored))


def test_save_corpus__saves_a_part_of_what_was_opened(tmp_path: Path, stored: Path) -> None:
    part = select(open_corpus(stored), np.array([False, False, True, True]))
    opened = open_corpus(save_corpus(part, tmp_path / "part.zarr"))
    assert opened["analysis_id"].values.tolist() == ["s2-1", "s3-1"]


def test_save_corpus__refuses_to_overwrite(stored: Path) -> None:
    with pytest.raises(StoreExistsError, match=r"exists already.*--force.*overwrite=True"):
        save_corpus(tiny_corpus(), stored)
    assert isinstance(open_corpus(stored), xr.Dataset)


def test_save_corpus__overwrites_when_asked(stored: Path) -> None:
    other = nd_corpus.build(**PARTS)
    assert save_corpus(other, stored, overwrite=True) == stored
    assert open_corpus(stored)["analysis_id"].values.tolist() == ["a", "b"]
    assert listing(stored.parent) == ["corpus.zarr", *(f"corpus.zarr/{n}" for n in listing(stored))]
    assert not (stored / "feature").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("folder", [False, True])
def test_save_corpus__leaves_what_is_not_zarr(
    tmp_path: Path, folder: bool, overwrite: bool
) -> None:
    target = tmp_path / "thesis"
    file = target / "chapter.txt" if folder else target
    file.parent.mkdir(exist_ok=True)
    file.write_text("years of work")
    with pytest.raises(StoreExistsError, match=r"thesis exists and is not a zarr group"):
        save_corpus(tiny_corpus(), target, overwrite=overwrite)
    assert file.read_text() == "years of work"


@pytest.mark.parametrize(
    ("kind", "says"),
    [("nimare_dask.result", r"is nimare_dask\.result, not a corpus"), (None, r"is nothing that")],
)
def test_save_corpus__leaves_zarr_of_another_kind(
    stored: Path, kind: str | None, says: str
) -> None:
    edit_attributes(stored, kind=kind) if kind else delete_attribute(stored, "kind")
    before = listing(stored)
    with pytest.raises(StoreExistsError, match=rf"{says}.* not touched\. Give another path"):
        save_corpus(nd_corpus.build(**PARTS), stored, overwrite=True)
    assert listing(stored) == before


def test_save_corpus__relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_corpus(tiny_corpus(), "corpus.zarr")
    assert open_corpus("corpus.zarr").sizes["focus"] == 6


def test_save_corpus__makes_the_folders_above(tmp_path: Path) -> None:
    assert open_corpus(save_corpus(tiny_corpus(), tmp_path / "a" / "b" / "c.zarr")).sizes["focus"]


def test_save_corpus__no_foci(tmp_path: Path) -> None:
    bare = nd_corpus.build(
        analysis_id=["a"], study_id=["a"], n_foci=[0], xyz=[], focus_space=[], spaces=["MNI"]
    )
    with pytest.raises(SourceFormatError, match="no focus"):
        save_corpus(bare, tmp_path / "corpus.zarr")
    assert listing(tmp_path) == []


def test_save_corpus__a_spoilt_corpus_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="not finite"):
        save_corpus(spoilt("focus_xyz", (0, 0), np.nan), tmp_path / "corpus.zarr")
    assert listing(tmp_path) == []


@pytest.fixture(params=[OSError("No space left on device"), KeyboardInterrupt()], ids=str)
def break_writing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """From now on writing a Dataset stops when half of its arrays are there."""
    whole = xr.Dataset.to_zarr

    def to_zarr(self: xr.Dataset, store: Path, **options: Any) -> None:
        half = self[list(self.data_vars)[::2]]
        options.pop("encoding", None)
        whole(half, store, **options)
        assert (Path(store) / "zarr.json").is_file()
        raise request.param

    monkeypatch.setattr(xr.Dataset, "to_zarr", to_zarr)
    error: BaseException = request.param
    return error


def test_save_corpus__stopped_in_the_middle_leaves_nothing(
    tmp_path: Path, break_writing: BaseException
) -> None:
    with pytest.raises(type(break_writing)):
        save_corpus(tiny_corpus(), tmp_path / "corpus.zarr")
    assert listing(tmp_path) == []


def test_save_corpus__stopped_in_the_middle_keeps_the_old_one(
    stored: Path, break_writing: BaseException
) -> None:
    before = listing(stored.parent)
    with pytest.raises(type(break_writing)):
        save_corpus(nd_corpus.build(**PARTS), stored, overwrite=True)
    assert listing(stored.parent) == before
    assert open_corpus(stored)["analysis_id"].values.tolist()[0] == "s1-1"


def test_save_corpus__failed_rename_keeps_the_old_one(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError("Stale file handle")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Stale"):
        save_corpus(nd_corpus.build(**PARTS), stored, overwrite=True)
    assert open_corpus(stored)["analysis_id"].values.tolist()[0] == "s1-1"


# what open_corpus refuses


def edit_attributes(store: Path, **changes: Any) -> None:
    group: Any = zarr.open_group(store, mode="r+")
    group.attrs.update(changes)


def delete_attribute(store: Path, name: str) -> None:
    group: Any = zarr.open_group(store, mode="r+")
    del group.attrs[name]


def test_open_corpus__missing_path(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match=r"none\.zarr does not exist; expected a corpus"):
        open_corpus(tmp_path / "none.zarr")


@pytest.mark.parametrize("folder", [False, True])
def test_open_corpus__not_zarr(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "other"
    target.mkdir() if folder else target.write_text("text")
    with pytest.raises(SourceFormatError, match=r"other is not a zarr version 3 group .*corpus"):
        open_corpus(target)


def test_open_corpus__broken_group(stored: Path) -> None:
    (stored / "zarr.json").write_text("{")
    with pytest.raises(SourceFormatError, match=r"corpus\.zarr could not be opened as a corpus"):
        open_corpus(stored)


def test_open_corpus__another_schema_version(stored: Path) -> None:
    edit_attributes(stored, schema_version=0)
    with pytest.raises(SourceFormatError, match=r"schema version 0; .* reads 2\. Make the corpus"):
        open_corpus(stored)


def test_open_corpus__another_kind(stored: Path) -> None:
    edit_attributes(stored, kind="nimare_dask.result")
    with pytest.raises(SourceFormatError, match=r"is a result; expected a corpus"):
        open_corpus(stored)


def test_open_corpus__group_of_another_origin(tmp_path: Path) -> None:
    target = tmp_path / "other.zarr"
    xr.Dataset({"a": ("b", [1, 2])}).to_zarr(target, zarr_format=3, consolidated=False)
    with pytest.raises(SourceFormatError, match=r"a zarr group of another origin; expected a cor"):
        open_corpus(target)


@pytest.mark.parametrize("name", CHANGES)
def test_open_corpus__changed_value(stored: Path, name: str) -> None:
    at, value = CHANGES[name]
    array: Any = zarr.open_group(stored, mode="r+")[name]
    values = array[:]
    values[at] = value
    array[:] = values
    with pytest.raises(SourceFormatError, match=r"corpus\.zarr .*make the corpus again"):
        open_corpus(stored)


def test_open_corpus__changed_names_of_spaces(stored: Path) -> None:
    edit_attributes(stored, spaces=["MNI", "UNKNOWN", "TAL"])
    with pytest.raises(SourceFormatError, match=r"does not fit its digest"):
        open_corpus(stored)


@pytest.mark.parametrize("digest_of_it", [None, "0" * 64])
def test_open_corpus__changed_digest(stored: Path, digest_of_it: str | None) -> None:
    edit_attributes(stored, digest=digest_of_it)
    with pytest.raises(SourceFormatError, match=r"does not fit its digest"):
        open_corpus(stored)


def _flip(chunk: Path) -> None:
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)


def _cut(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-4])


@pytest.mark.parametrize("spoil", [_flip, _cut, Path.unlink])
@pytest.mark.parametrize("name", ["focus_xyz", "text_value", "weight_value"])
def test_open_corpus__spoilt_chunk(stored: Path, name: str, spoil: Callable[[Path], None]) -> None:
    (chunk,) = [path for path in (stored / name / "c").rglob("*") if path.is_file()]
    spoil(chunk)
    with pytest.raises(SourceFormatError, match=r"corpus\.zarr .*make the corpus again"):
        open_corpus(stored)


@pytest.mark.parametrize("name", ["focus_xyz", "study_id", "weight_value", "text_value"])
def test_open_corpus__missing_array(stored: Path, name: str) -> None:
    shutil.rmtree(stored / name)
    with pytest.raises(SourceFormatError, match=r"corpus\.zarr .*make the corpus again"):
        open_corpus(stored)


def test_open_corpus__no_foci(stored: Path) -> None:
    bare = nd_corpus.build(
        analysis_id=["a"], study_id=["a"], n_foci=[0], xyz=[], focus_space=[], spaces=["MNI"]
    )
    attributes = json.loads((stored / "zarr.json").read_text())["attributes"]
    attributes |= {"digest": digest(bare), "spaces": ["MNI"]}
    target = stored.with_name("bare.zarr")
    bare.assign_attrs(attributes).to_zarr(target, zarr_format=3, consolidated=False)
    with pytest.raises(SourceFormatError, match=r"bare\.zarr has no focus"):
        open_corpus(target)
