"""Parts of a corpus: what belongs to what stays follows it, and nothing else does."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.corpus import analysis_of_focus, check, digest
from nimare_dask.draft import Draft
from nimare_dask.errors import CorpusWarning
from nimare_dask.io.formats import read_studies, write_studies
from nimare_dask.selection import select
from nimare_dask.subset import take, take_analyses
from tests.builders import foci_of, tiny_corpus
from tests.studies_made import full_corpora, said_of


def drawn_mask(data: st.DataObject, corpus: xr.Dataset) -> np.ndarray:
    n = corpus.sizes["analysis"]
    return np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)


@settings(max_examples=20)
@given(full_corpora(), st.data())
def test_take_analyses__all_that_belongs_to_them(corpus: xr.Dataset, data: st.DataObject) -> None:
    chosen = drawn_mask(data, corpus)
    before = said_of(corpus)
    taken = take_analyses(corpus, chosen)
    check(taken)
    found = said_of(taken)
    ids = set(corpus["analysis_id"].values[chosen].tolist())
    studies = set(corpus["study_id"].values[chosen].tolist())

    def stays(kind: str, key: object) -> bool:
        level = kind.partition(".")[0]
        if level in ("studies", "study"):
            return key in studies
        if level in ("analyses", "foci", "analysis", "note"):
            return key in ids
        return isinstance(key, tuple) and key[0] in ids  # foci, images and weights

    expected = {
        kind: {key: value for key, value in of.items() if stays(kind, key)}
        for kind, of in before.items()
    }
    kept = {kind: of for kind, of in expected.items() if of or "." not in kind}
    assert found == kept
    assert list(found["analyses"]) == [each for each in before["analyses"] if each in ids]
    assert taken.attrs == corpus.attrs


@settings(max_examples=20)
@given(full_corpora(), st.data())
def test_take_analyses__in_two_steps_as_in_one(corpus: xr.Dataset, data: st.DataObject) -> None:
    first = drawn_mask(data, corpus)
    assume(first.any())
    once = take_analyses(corpus, first)
    second = drawn_mask(data, once)
    both = first.copy()
    both[first] = second
    assert digest(take_analyses(once, second)) == digest(take_analyses(corpus, both))


@settings(max_examples=20)
@given(full_corpora(), st.data())
def test_take__foci(corpus: xr.Dataset, data: st.DataObject) -> None:
    n = corpus.sizes["focus"]
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    taken = take(corpus, {"focus": kept})
    check(taken)
    assert taken["analysis_id"].values.tolist() == corpus["analysis_id"].values.tolist()
    owner = analysis_of_focus(corpus)[kept]
    assert analysis_of_focus(taken).tolist() == owner.tolist()
    assert taken["focus_xyz"].values.tolist() == corpus["focus_xyz"].values[kept].tolist()
    rows, values = facts.values(corpus, "focus.values")
    stay = [repr(value) for row, value in zip(rows, values, strict=True) if kept[row]]
    assert list(map(repr, facts.values(taken, "focus.values")[1])) == stay


def test_take_analyses__of_none_of_them() -> None:
    corpus = tiny_corpus()
    taken = take_analyses(corpus, np.zeros(4, bool))
    check(taken)
    assert taken.sizes["study"] == taken.sizes["focus"] == taken.sizes["weight"] == 0
    assert taken.sizes["feature"] == 3 and "field" not in taken.dims


def test_take__what_is_given_is_as_it_was() -> None:
    corpus = tiny_corpus()
    before = digest(corpus)
    take(corpus, {"focus": np.array([True, False, True, False, True, True])})
    take_analyses(corpus, np.array([False, True, True, False]))
    assert digest(corpus) == before


def test_take_analyses__a_study_without_analyses_goes() -> None:
    draft = Draft()
    for name in ("empty", "a", "b"):
        draft.add_study(name)
    for study in (1, 2):
        draft.add_focus(draft.add_analysis(study, "1"), (study, 0, 0), "MNI")
    corpus = draft.build()
    everything = take_analyses(corpus, np.ones(2, bool))
    assert everything["study"].values.tolist() == ["a", "b"]
    assert take(corpus, {})["study"].values.tolist() == ["empty", "a", "b"]
    second = take_analyses(corpus, np.array([False, True]))
    assert foci_of(second) == {"b-1": [(2.0, 0.0, 0.0, "MNI")]}


@pytest.mark.parametrize("name", ["x.json", "x.parquet", "x.zarr"])
@settings(max_examples=4)
@given(corpus=full_corpora(), data=st.data())
def test_select__then_write_as_write_then_select(
    tmp_path_factory: pytest.TempPathFactory, name: str, corpus: xr.Dataset, data: st.DataObject
) -> None:
    mask = drawn_mask(data, corpus)
    assume(mask.any() and (corpus["analysis_n_foci"].values[mask] > 0).any())
    folder = tmp_path_factory.getbasetemp() / "select"
    chosen = again(select(corpus, mask), folder, name)
    read = again(corpus, folder, name)
    names = set(corpus["analysis_id"].values[mask].tolist())
    of_read = np.array([each in names for each in read["analysis_id"].values.tolist()])
    assert of_read.sum() == mask.sum()
    first, second = said_of(chosen), said_of(select(read, of_read))
    assert first == second


def again(corpus: xr.Dataset, folder: Path, name: str) -> xr.Dataset:
    """What is read of what is written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        folder.mkdir(exist_ok=True)
        for stale in folder.glob("*_annotation-*"):
            stale.unlink()
        first, *notes = write_studies(corpus, folder / name, overwrite=True)
        return read_studies(first, annotations=notes)
