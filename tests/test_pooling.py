"""One analysis of the several of a study: by hand, for any corpus, and as NiMARE has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings

from nimare_dask import facts
from nimare_dask.corpus import check, open_corpus, save_corpus
from nimare_dask.draft import Draft
from nimare_dask.io.formats import read_studies
from nimare_dask.metadata import mean_sample_sizes
from nimare_dask.pooling import combine_analyses
from nimare_dask.provenance import steps
from tests.builders import foci_of, tiny_corpus, weights_by_name
from tests.studies_made import corpus_with, full_corpora, images_of
from tests.texts import nimare_folder, quietly


def pooled(values: list[Any], field: str = "analysis.metadata.x") -> Any:
    """What several analyses of one study say together."""
    made = combine_analyses(corpus_with(values, field))
    (value,) = facts.values(made, field)[1]
    return value


def two_studies() -> Draft:
    """Analyses of two studies, one after the other: b-1, a-1, b-2, a-2; c has none."""
    draft = Draft()
    for name in ("a", "c", "b"):
        draft.add_study(name)
    for number, (study, contrast) in enumerate([(2, "1"), (0, "1"), (2, "2"), (0, "2")]):
        row = draft.add_analysis(study, contrast)
        draft.add_focus(row, (number, 0, 0), "MNI")
        draft.add_focus(row, (number, 1, 0), "TAL")
        draft.add_image(row, "z", f"{number}.nii", "MNI")
    return draft


def test_combine_analyses__by_hand() -> None:
    draft = two_studies()
    draft.facts.add("focus.kind", 2, "peak")  # the first focus of a-1
    draft.facts.add("image.filename", 2, "of b-2")
    draft.facts.add("study.name", 1, "nothing")
    made = combine_analyses(draft.build())
    check(made)
    assert made["analysis_id"].values.tolist() == ["a-1_2", "b-1_2"]
    assert made["analysis_contrast"].values.tolist() == ["1_2", "1_2"]
    assert made["study"].values.tolist() == ["a", "c", "b"]
    assert [focus[:2] for focus in foci_of(made)["a-1_2"]] == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert [focus[3] for focus in foci_of(made)["b-1_2"]] == ["MNI", "TAL"] * 2
    assert [(image[0], image[2]) for image in images_of(made)] == [
        *(("a-1_2", "1.nii"), ("a-1_2", "3.nii"), ("b-1_2", "0.nii"), ("b-1_2", "2.nii")),
    ]
    assert facts.values(made, "focus.kind")[0].tolist() == [0]
    assert facts.values(made, "image.filename")[0].tolist() == [3]
    assert facts.values(made, "study.name")[0].tolist() == [1]
    assert steps(made)[-1]["n_analyses"] == 2 and steps(made)[-1]["n_before"] == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2], [2, 3]], [1, 2, 2, 3]),
        ([[], [1]], [1]),
        ([[20, 22], 15], [20, 22, 15]),
        (["a", "b", "a"], "a; b"),
        (["a", "a"], "a"),
        ([5, 5], 5),
        ([5, 5, 6], [5, 5, 6]),
        ([True, 1], [True, 1]),
        ([True, True], True),
        ([5, "a", 5], [5, "a"]),
        ([{"a": 1}, {"a": 1}], {"a": 1}),
        ([{"a": 1}, {"a": 2}], [{"a": 1}, {"a": 2}]),
        ([None, "only"], "only"),
    ],
)
def test_combine_analyses__what_several_say_together(values: list[Any], expected: Any) -> None:
    assert repr(pooled(values)) == repr(expected)


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("analysis.metadata.sample_sizes", [[10, 12], [30]], 52 / 3),
        ("analysis.metadata.sample_sizes", [[20, 22], 15], 19.0),
        ("analysis.metadata.sample_size", [20, 20, 30], 70 / 3),
        ("analysis.metadata.sample_size", [20, None], 20.0),
        ("study.metadata.sample_size", [20, None], 20.0),
        ("analysis.metadata.x", [20, 30], None),
    ],
)
def test_combine_analyses__sample_size_is_what_is_read_again(
    field: str, values: list[Any], expected: float | None, tmp_path: Path
) -> None:
    made = combine_analyses(corpus_with(values, field))
    if expected is None:
        assert "analysis_sample_size" not in made
        return
    assert made["analysis_sample_size"].values.tolist() == pytest.approx([expected])
    assert mean_sample_sizes(made).tolist() == made["analysis_sample_size"].values.tolist()
    stored = open_corpus(save_corpus(made, tmp_path / "x.zarr"))
    assert stored["analysis_sample_size"].values.tolist() == pytest.approx([expected])


def test_combine_analyses__sample_sizes_that_are_no_facts() -> None:
    sizes = [10.0, np.nan, 7.0, np.nan]
    corpus = tiny_corpus().drop_dims(["field", "fact", "text"])
    made = combine_analyses(corpus.assign(analysis_sample_size=("analysis", sizes)))
    np.testing.assert_array_equal(made["analysis_sample_size"].values, [10.0, 7.0, np.nan])


def test_combine_analyses__largest_weight_counts() -> None:
    draft = two_studies()
    feature = draft.add_feature(draft.add_annotation({"id": "x", "name": "x"}), "pain")
    draft.add_feature(0, "fear", "boolean")
    for row, weight in ((0, 0.25), (2, 0.5), (1, 0.0), (3, -1.0)):
        draft.add_weight(feature, row, weight)
    made = combine_analyses(draft.build())
    assert weights_by_name(made) == {("a-1_2", "pain"): 0.0, ("b-1_2", "pain"): 0.5}
    assert made["feature"].values.tolist() == ["pain", "fear"]
    assert made["feature_kind"].values.tolist() == ["number", "boolean"]
    assert made.attrs["annotations"] == draft.build().attrs["annotations"]


@settings(max_examples=15)
@given(full_corpora())
def test_combine_analyses__keeps_all_foci_and_twice_is_once(corpus: xr.Dataset) -> None:
    made = combine_analyses(corpus)
    check(made)
    kept = corpus["study"].values.tolist()
    assert made["study"].values.tolist() == kept
    papers = made["study_id"].values.tolist()
    assert papers == [name for name in kept if name in set(corpus["study_id"].values.tolist())]

    def by_study(one: xr.Dataset, found: dict[str, list[Any]]) -> dict[str, list[Any]]:
        paper = dict(
            zip(one["analysis_id"].values.tolist(), one["study_id"].values.tolist(), strict=True)
        )
        joined: dict[str, list[Any]] = {}
        for name, foci in found.items():
            joined.setdefault(paper[name], []).extend(foci)
        return joined

    assert by_study(made, foci_of(made)) == by_study(corpus, foci_of(corpus))
    if "analysis_sample_size" in made:
        np.testing.assert_array_equal(made["analysis_sample_size"], mean_sample_sizes(made))
    again = combine_analyses(made)
    xr.testing.assert_identical(again.drop_attrs(), made.drop_attrs())


@pytest.mark.parametrize(
    "name",
    [
        "resources/neurostore_parquet_studyset",
        "resources/nback_vs_flanker_studyset_2026-07",
        "tests/data/nimads_studyset.json",
        "tests/data/sample_size_nimads_studyset.json",
    ],
)
def test_combine_analyses__as_nimare(name: str) -> None:
    pytest.importorskip("pyarrow", reason="parquet files are read with pyarrow")
    from nimare.studyset import Studyset

    from tests.parity.peer import quiet

    path = nimare_folder() / name
    with quiet():
        theirs = Studyset(str(path), target=None).combine_analyses()
        points = theirs.coordinates
    ours = combine_analyses(quietly(read_studies, path))
    assert sorted(ours["analysis_id"].values.tolist()) == sorted(map(str, theirs.ids))
    points = points[points[["x", "y", "z"]].notna().all(axis=1)]
    assert len(points) == ours.sizes["focus"]
    found = foci_of(ours)
    for each, rows in points.groupby("id"):
        assert [list(focus[:3]) for focus in found[str(each)]] == rows[
            ["x", "y", "z"]
        ].to_numpy().tolist()


def test_combine_analyses__where_nimare_differs() -> None:
    """NiMARE keeps the metadata of the last analysis and drops annotations."""
    pytest.importorskip("nimare", reason="NiMARE is not installed")
    from nimare.studyset import Studyset

    from tests.parity.peer import quiet

    analyses = [
        {"id": str(n), "name": f"n{n}", "points": [{"coordinates": [n, 0, 0], "space": "MNI"}],
         "conditions": [], "weights": [], "images": [], "metadata": {"sample_sizes": [10 * n]}}
        for n in (1, 2)
    ]  # fmt: skip
    study = {"id": "s", "name": "s", "metadata": {}, "analyses": analyses}
    notes = [{"study": "s", "analysis": str(n), "note": {"pain": n / 4}} for n in (1, 2)]
    annotation = {"id": "a", "name": "a", "note_keys": {"pain": "number"}, "notes": notes}
    document = {"id": "x", "name": "x", "studies": [study]}
    with quiet():
        theirs = Studyset(document, target=None, annotations=[annotation]).combine_analyses()
        assert theirs.sample_sizes().tolist() == [20.0]
        assert list(theirs.get_labels()) == []
    from nimare_dask.io.nimads import read_nimads

    ours = combine_analyses(read_nimads(document, [annotation]))
    assert ours["analysis_sample_size"].values.tolist() == [15.0]
    assert weights_by_name(ours) == {("s-1_2", "pain"): 0.5}
