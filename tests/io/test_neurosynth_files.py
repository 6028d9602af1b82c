"""Writing a Neurosynth database: it is read again, by both sides, and what is lost is said."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from scipy.sparse import csc_matrix

from nimare_dask import facts
from nimare_dask.corpus import build, digest
from nimare_dask.draft import Draft
from nimare_dask.errors import SettingsError, StoreExistsError
from nimare_dask.io.neurosynth import read_neurosynth
from nimare_dask.io.neurosynth_files import NeurosynthFiles, write_neurosynth
from nimare_dask.simulate import simulate_corpus
from nimare_dask.space import tal2mni
from tests.builders import Draft as Parts
from tests.builders import drafts, foci_of, listing, tiny_corpus, weights_by_name
from tests.corpora import corpora, facts_of

TERMS = ("terms_abstract_tfidf__pain", "terms_abstract_tfidf__working memory", "LDA50_a_weight__0")


@contextmanager
def nothing_said() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def database() -> xr.Dataset:
    """What Neurosynth is like: one analysis a study, in one space."""
    draft = Draft()
    titles = {"10": 'The "what" of Ärger', "20": "NA", "3-x": "  None "}
    for place, (name, title) in enumerate(titles.items()):
        study = draft.add_study(name)
        row = draft.add_analysis(study, "1")
        draft.facts.add("study.name", study, title)
        draft.facts.add("study.year", study, 1999 + place)
        for number in range(place + 1):
            draft.add_focus(row, (number, -0.1, 1 / 3), ["MNI", "TAL", "UNKNOWN"][place])
    draft.facts.add("study.pmid", 0, "10")
    draft.facts.add("study.pmid", 1, "20")
    corpus = draft.build()
    weights = np.array([[0.5, 0, 0], [0, 0, 2], [0.25, 0.125, 0]])
    return with_features(corpus, TERMS, weights)


def with_features(corpus: xr.Dataset, names: tuple[str, ...], weights: Any) -> xr.Dataset:
    """A corpus with other features."""
    return build(
        analysis_id=corpus["analysis_id"].values,
        study_id=corpus["study_id"].values,
        study=corpus["study"].values,
        contrast=corpus["analysis_contrast"].values,
        n_foci=corpus["analysis_n_foci"].values,
        xyz=corpus["focus_xyz"].values,
        focus_space=corpus["focus_space"].values,
        spaces=corpus.attrs["spaces"],
        feature=names,
        weights=csc_matrix(weights),
        facts=_facts(corpus),
    )


def _facts(corpus: xr.Dataset) -> facts.Facts:
    found = facts.Facts()
    for name in facts.fields(corpus):
        rows, values = facts.values(corpus, name)
        found.extend(name, rows.tolist(), values)
    return found


def test_write_neurosynth__reads_the_same(tmp_path: Path) -> None:
    with nothing_said():
        files = write_neurosynth(database(), tmp_path / "out")
        again = read_neurosynth(*files)
    assert digest(again) == digest(database())
    assert foci_of(again) == foci_of(database())
    assert weights_by_name(again) == weights_by_name(database())


def test_write_neurosynth__names_of_files(tmp_path: Path) -> None:
    files = write_neurosynth(database(), tmp_path / "out", name="data-neurosynth_version-9")
    begin = "data-neurosynth_version-9"
    assert listing(tmp_path / "out") == [
        f"{begin}_coordinates.tsv.gz",
        f"{begin}_metadata.tsv.gz",
        f"{begin}_vocab-LDA50_source-a_type-weight_features.npz",
        f"{begin}_vocab-LDA50_vocabulary.txt",
        f"{begin}_vocab-terms_source-abstract_type-tfidf_features.npz",
        f"{begin}_vocab-terms_vocabulary.txt",
    ]
    assert files.coordinates == tmp_path / "out" / f"{begin}_coordinates.tsv.gz"
    header = gzip.decompress(files.coordinates.read_bytes()).splitlines()[0]
    assert header == b"id\ttable_id\ttable_num\tpeak_id\tx\ty\tz"
    header = gzip.decompress(files.metadata.read_bytes()).splitlines()[0]
    assert header == b"id\tdoi\tspace\ttitle\tauthors\tyear\tjournal"


def test_write_neurosynth__the_same_files_each_time(tmp_path: Path) -> None:
    first, second = (write_neurosynth(database(), tmp_path / name) for name in "ab")
    for one, two in ((first.coordinates, second.coordinates), (first.metadata, second.metadata)):
        assert one.read_bytes() == two.read_bytes()


def test_write_neurosynth__a_vocabulary_of_two_sources(tmp_path: Path) -> None:
    names = ("terms_abstract_tfidf__a", "terms_title_tfidf__a", "terms_title_tfidf__b")
    corpus = with_features(database(), names, np.eye(3))
    again = read_neurosynth(*write_neurosynth(corpus, tmp_path / "out"))
    assert weights_by_name(again) == weights_by_name(corpus)


def peer(files: NeurosynthFiles) -> Any:
    io = pytest.importorskip("nimare.io")
    pairs = [{"features": str(npz), "vocabulary": str(terms)} for npz, terms in files.features]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return io.convert_neurosynth_to_studyset(
            str(files.coordinates), str(files.metadata), pairs, target=None
        )


def test_write_neurosynth__nimare_reads_the_same(tmp_path: Path) -> None:
    corpus = simulate_corpus(8, n_features=2)
    names = tuple(f"terms_abstract_tfidf__{name}" for name in ("pain", "working memory"))
    weights = np.arange(16).reshape(8, 2) / 7
    corpus = with_features(corpus, names, weights)
    theirs = peer(write_neurosynth(corpus, tmp_path / "out"))
    found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in theirs.ids}
    for row in theirs.coordinates[["id", "x", "y", "z", "space"]].itertuples(index=False):
        found[row.id].append(tuple(row)[1:])
    assert found == foci_of(corpus)
    table = theirs.annotations_df.set_index("id")[list(names)]
    order = corpus["analysis_id"].values.tolist()
    np.testing.assert_array_equal(table.loc[order].fillna(0).to_numpy(float), weights)


def read_again(corpus: xr.Dataset) -> tuple[xr.Dataset, str]:
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        files = write_neurosynth(corpus, Path(folder) / "out")
        said = " ".join(str(each.message) for each in caught)
        warnings.simplefilter("ignore")
        return read_neurosynth(*files, allow_empty=True), said


@given(parts=drafts().filter(lambda parts: all(name.strip() for name in parts.ids)))
@settings(max_examples=40, deadline=None)
def test_write_neurosynth__keeps_foci_weights_and_titles(parts: Parts) -> None:
    corpus = parts.build()
    try:
        again, said = read_again(corpus)
    except SettingsError:
        assert any(set(name) & set("\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029") for name in parts.ids)
        return
    assert again["study"].values.tolist() == parts.ids
    assert [foci[:3] for all_ in foci_of(again).values() for foci in all_] == [
        foci[:3] for all_ in foci_of(corpus).values() for foci in all_
    ]
    n = np.array([value for _, value in sorted(_values(again).items())])
    np.testing.assert_array_equal(np.sort(n), np.sort(list(_values(corpus).values())))
    rows, values = facts.values(again, "study.name")
    kept = {row: name for row, name in enumerate(parts.titles) if name}
    if "no plain title" not in said:
        assert dict(zip(rows.tolist(), values, strict=True)) == kept
    else:
        assert set(rows.tolist()) <= set(kept)


def _values(corpus: xr.Dataset) -> dict[Any, float]:
    return weights_by_name(corpus) if "feature" in corpus.dims else {}


@given(corpus=corpora().filter(lambda corpus: corpus.sizes["focus"] and corpus.sizes["study"]))
@settings(max_examples=30, deadline=None)
def test_write_neurosynth__says_what_any_corpus_loses(corpus: xr.Dataset) -> None:
    if any(
        not name.strip() or set(name) & set("\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
        for name in corpus["study"].values.tolist()
    ):
        with TemporaryDirectory() as folder, pytest.raises(SettingsError):
            write_neurosynth(corpus, Path(folder) / "out")
        return
    again, said = read_again(corpus)
    assert again.sizes["focus"] == corpus.sizes["focus"]
    assert again["study"].values.tolist() == corpus["study"].values.tolist()
    if not said:
        expected = {name: each for name, each in facts_of(corpus).items() if name != "study.pmid"}
        found = {name: each for name, each in facts_of(again).items() if name != "study.pmid"}
        assert set(found) <= set(expected)
    for name in facts.fields(corpus):
        held = ("study.name", "study.year", "study.authors")
        assert name in held or "fields that are left out" in said


# what is said


def said_of(corpus: xr.Dataset) -> str:
    return read_again(corpus)[1]


def test_write_neurosynth__analyses_of_a_study_are_pooled() -> None:
    again, said = read_again(tiny_corpus())
    assert "2 analyses of 1 studies are pooled" in said
    assert "fields that are left out: analysis.metadata.sample_sizes (1), analysis.name (4)" in said
    assert "3 features get names" in said
    assert again["analysis_id"].values.tolist() == ["s1-1", "s2-1", "s3-1"]
    assert again["analysis_n_foci"].values.tolist() == [2, 1, 3]
    weights = weights_by_name(again)
    assert weights["s1-1", "corpus_features_weight__terms_abstract__pain"] == 0.5
    assert weights["s1-1", "corpus_features_weight__topics_abstract__pain relief"] == 0.2


def test_write_neurosynth__a_study_in_several_spaces_becomes_mni() -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("s"), "1")
    draft.add_focus(row, (1, 2, 3), "TAL")
    draft.add_focus(row, (4, 5, 6), "MNI")
    other = draft.add_analysis(draft.add_study("t"), "1")
    draft.add_focus(other, (7, 8, 9), "TAL")
    again, said = read_again(draft.build())
    assert "1 studies report in several spaces" in said
    assert "1 of them transformed" in said
    moved = tuple(tal2mni([[1.0, 2, 3]])[0])
    assert foci_of(again) == {
        "s-1": [(*moved, "MNI"), (4, 5, 6, "MNI")],
        "t-1": [(7, 8, 9, "TAL")],
    }


def test_write_neurosynth__names_and_empty_studies_and_line_ends() -> None:
    draft = Draft()
    row = draft.add_analysis(draft.add_study("s"), "a-b")
    draft.add_focus(row, (1, 2, 3), "MNI")
    draft.add_image(row, "z", "z.nii")
    draft.add_study("empty")
    draft.facts.add("study.name", 0, "two\nlines\tof it")
    draft.facts.add("study.year", 0, "in press")
    draft.facts.add("study.pmid", 0, "777")
    said = said_of(draft.build())
    for part in (
        "1 analyses lose their name",
        "1 studies have no foci; read them with allow_empty=True",
        "1 facts study.name are no plain title",
        "1 facts study.year are no plain year",
        "study.pmid (1)",
        "1 images are left out",
    ):
        assert part in said


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "  "])
def test_write_neurosynth__ids_that_no_table_holds(name: str, tmp_path: Path) -> None:
    draft = Draft()
    draft.add_focus(draft.add_analysis(draft.add_study(name), "1"), (1, 2, 3), "MNI")
    with pytest.raises(SettingsError, match="1 ids of studies are blank or have a tab"):
        write_neurosynth(draft.build(), tmp_path / "out")
    assert listing(tmp_path) == []


def test_write_neurosynth__refuses(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected the beginning of names"):
        write_neurosynth(database(), tmp_path / "out", name="../x")
    write_neurosynth(database(), tmp_path / "out")
    with pytest.raises(StoreExistsError, match="exists already"):
        write_neurosynth(database(), tmp_path / "out")
    write_neurosynth(database(), tmp_path / "out", overwrite=True, name="new")
    assert len(listing(tmp_path / "out")) == 6
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(StoreExistsError, match="is not touched"):
        write_neurosynth(database(), tmp_path / "mine", overwrite=True)
