"""Choosing analyses and foci by place, against plain loops over foci."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nimare_dask import corpus as nd_corpus
from nimare_dask.errors import CorpusWarning, SchemaError, SelectionError, SettingsError
from nimare_dask.nearby import (
    FocusFilter,
    focus_filter,
    has_focus_in,
    has_focus_near,
    nearest_analyses,
)
from nimare_dask.provenance import steps
from nimare_dask.selection import has_label, select
from nimare_dask.space import Space
from tests.builders import Draft, drafts, foci_of, small_space, tiny_corpus
from tests.foci import draw_foci, make_corpus
from tests.reference.space import lancaster_mni2tal, lancaster_tal2mni, mm_to_voxel

quiet = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")


def placed(corpus: xr.Dataset, reference: str = "MNI") -> dict[str, list[Any]]:
    """Foci by analysis in the coordinates of `reference`, one by one."""
    found: dict[str, list[Any]] = {}
    for name, foci in foci_of(corpus).items():
        found[name] = []
        for x, y, z, space in foci:
            point = np.array([[x, y, z]])
            if (reported := "TAL" if space in ("TAL", "Talairach") else "MNI") != reference:
                turn = lancaster_tal2mni if reported == "TAL" else lancaster_mni2tal
                point = turn(point)
            found[name].append(point[0])
    return found


def inside(space: Space, point: Any) -> bool:
    """Whether the voxel of one point is in the mask."""
    i, j, k = mm_to_voxel(point[None], space.affine)[0]
    there = all(0 <= at < length for at, length in zip((i, j, k), space.shape, strict=True))
    return there and bool(space.mask[i, j, k])


def mixed_corpus(seed: int = 0, n: int = 40) -> xr.Dataset:
    """Foci of all spaces in and around the small space; two analyses have none."""
    foci = draw_foci(seed, small_space(), n, empty=[3, n - 1])
    total = sum(map(len, foci))
    codes = np.random.default_rng(seed).integers(0, 4, total)
    weights = np.random.default_rng(seed).uniform(size=(n, 3))
    return make_corpus(
        foci, weights, spaces=["MNI", "TAL", "Talairach", "UNKNOWN"], codes=codes.tolist()
    )


# has_focus_in


@quiet
@pytest.mark.parametrize("reference", ["MNI", "TAL"])
def test_has_focus_in__equals_a_loop_over_foci(reference: Any) -> None:
    corpus, space = mixed_corpus(), small_space(reference)
    expected = [
        any(inside(space, point) for point in foci) for foci in placed(corpus, reference).values()
    ]
    found = has_focus_in(corpus, space)
    assert found.values.tolist() == expected
    assert 0 < sum(expected) < len(expected)
    assert_array_equal(found["analysis_id"], corpus["analysis_id"])


def test_has_focus_in__hand_computed() -> None:
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[2, 2, 2] = 7
    image = nib.Nifti1Image(mask, np.diag([2.0, 2, 2, 1]))
    # Voxel 2 is at 4 mm; 5 mm is half way to 3, and goes to the even one.
    foci = [[4, 4, 4]], [[5, 4, 4]], [[3, 4, 4]], [[5.1, 4, 4]], [[-400, 4, 4], [4, 4, 5]], []
    found = has_focus_in(make_corpus(foci), image)
    assert found.values.tolist() == [True, True, True, False, True, False]


def test_has_focus_in__outside_the_volume_does_not_wrap_round() -> None:
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.diag([2.0, 2, 2, 1]))
    corpus = make_corpus([[[-2, 0, 0]], [[0, 0, 6]], [[1e6, 0, 0]], [[0, 0, 0]]])
    assert has_focus_in(corpus, image).values.tolist() == [False, False, False, True]


def test_has_focus_in__file_image_and_space_are_one(tmp_path: Any) -> None:
    corpus, space = make_corpus(draw_foci(1, small_space(), 20)), small_space()
    image = nib.Nifti1Image(space.mask.astype(np.uint8), space.affine)
    nib.save(image, tmp_path / "roi.nii.gz")
    expected = has_focus_in(corpus, space)
    for roi in (image, tmp_path / "roi.nii.gz", str(tmp_path / "roi.nii.gz")):
        xr.testing.assert_identical(has_focus_in(corpus, roi), expected)
    talairach = has_focus_in(corpus, image, space="TAL")
    xr.testing.assert_identical(talairach, has_focus_in(corpus, small_space("TAL")))


def test_has_focus_in__blocks_of_foci_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(CorpusWarning):
        whole = has_focus_in(mixed_corpus(), small_space())
    monkeypatch.setattr("nimare_dask.nearby._BLOCK", 7)
    with pytest.warns(CorpusWarning):
        xr.testing.assert_identical(has_focus_in(mixed_corpus(), small_space()), whole)


def test_has_focus_in__tells_of_unknown_spaces_at_the_line_of_the_caller() -> None:
    with pytest.warns(CorpusWarning, match=r"3 of 6 foci have a space that is not known") as told:
        has_focus_in(tiny_corpus(), small_space())
    assert [warning.filename for warning in told] == [__file__]


def test_has_focus_in__refuses_what_is_no_corpus_or_region() -> None:
    with pytest.raises(SchemaError):
        has_focus_in(tiny_corpus().drop_vars("focus_space"), small_space())
    with pytest.raises(SettingsError, match="neither the path"):
        has_focus_in(tiny_corpus(), "nowhere.nii")


# has_focus_near


def test_has_focus_near__distance_is_inclusive() -> None:
    corpus = make_corpus([[[3, 4, 0]], [[0, 0, 5.000001]], [[9, 9, 9], [0, 0, -5]], []])
    assert has_focus_near(corpus, [0, 0, 0], 5).values.tolist() == [True, False, True, False]
    assert not has_focus_near(corpus, [0, 0, 0], 0).any()
    assert has_focus_near(corpus, [3, 4, 0], 0).values.tolist() == [True, False, False, False]
    assert has_focus_near(corpus, [0, 0, 0], np.inf).values.tolist() == [True] * 3 + [False]


@quiet
@given(
    draft=drafts(min_foci=0),
    points=st.lists(st.tuples(*[st.integers(-90, 90)] * 3), min_size=1, max_size=4),
    r=st.sampled_from([0.0, 5.0, 30.0, 80.0]),
)
@settings(max_examples=40)
def test_has_focus_near__equals_a_loop_over_foci(draft: Draft, points: Any, r: float) -> None:
    corpus = draft.build()
    expected = [
        min([float(np.linalg.norm(focus - p)) for focus in foci for p in points], default=np.inf)
        for foci in placed(corpus).values()
    ]
    # A distance that rounding may have on either side of r says nothing.
    clear = np.abs(np.array(expected) - r) > 1e-9
    found = has_focus_near(corpus, points, r).values
    assert_array_equal(found[clear], (np.array(expected) <= r)[clear])


def test_has_focus_near__tells_of_unknown_spaces() -> None:
    with pytest.warns(CorpusWarning, match="3 of 6 foci"):
        has_focus_near(tiny_corpus(), (0, 0, 0), 8)


@pytest.mark.parametrize(
    ("xyz", "r", "says"),
    [
        ([0, 0], 5, r"xyz has shape \(2,\)"),
        ([[0, 0, 0, 0]], 5, r"shape \(1, 4\)"),
        ([], 5, r"shape \(0,\)"),
        (np.zeros((0, 3)), 5, r"shape \(0, 3\)"),
        ([0, 0, np.nan], 5, "not finite"),
        (["a", 0, 0], 5, "expected three numbers"),
        ([0, 0, 0], -1, "r is -1; expected a distance"),
        ([0, 0, 0], np.nan, "r is nan"),
        ([0, 0, 0], "far", "r is 'far'"),
    ],
)
def test_has_focus_near__refuses(xyz: Any, r: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        has_focus_near(make_corpus([[[0, 0, 0]]]), xyz, r)


# nearest_analyses


def test_nearest_analyses__ties_go_by_order() -> None:
    corpus = make_corpus([[[0, 0, 9]], [[0, 5, 0]], [], [[5, 0, 0], [50, 0, 0]], [[0, 0, 5]]])
    found = [nearest_analyses(corpus, (0, 0, 0), n).values.tolist() for n in (1, 2, 3, 4)]
    assert [np.flatnonzero(mask).tolist() for mask in found] == [
        [1],
        [1, 3],
        [1, 3, 4],
        [0, 1, 3, 4],
    ]


def test_nearest_analyses__nearest_of_several_points() -> None:
    corpus = make_corpus([[[0, 0, 0]], [[40, 0, 0]], [[70, 0, 0]]])
    assert nearest_analyses(corpus, [[50, 0, 0], [71, 0, 0]], 1).values.tolist() == [0, 0, 1]


def test_nearest_analyses__fewer_than_asked_for() -> None:
    corpus = make_corpus([[[0, 0, 0]], [], [[40, 0, 0]]])
    with pytest.warns(CorpusWarning, match="5 analyses are asked for and 2 have a focus"):
        found = nearest_analyses(corpus, (0, 0, 0), 5)
    assert found.values.tolist() == [True, False, True]


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None])
def test_nearest_analyses__refuses(n: Any) -> None:
    with pytest.raises(SettingsError, match="expected a number of analyses"):
        nearest_analyses(tiny_corpus(), (0, 0, 0), n)


# with other masks


@quiet
def test_masks__combine_with_those_of_labels() -> None:
    corpus = mixed_corpus()
    near, label = has_focus_near(corpus, (0, 0, 0), 30), has_label(corpus, "0001", 0.5)
    chosen = select(corpus, near & ~label)
    assert chosen["analysis_id"].values.tolist() == [
        name
        for name, a, b in zip(
            corpus["analysis_id"].values.tolist(), near.values, label.values, strict=True
        )
        if a and not b
    ]
    other = mixed_corpus(n=39)
    with pytest.raises(SchemaError, match="another corpus"):
        select(other, has_focus_near(corpus, (0, 0, 0), 30))


# focus_filter


@quiet
def test_focus_filter__keeps_foci_inside_and_every_analysis() -> None:
    corpus, space = mixed_corpus(), small_space()
    number = np.arange(corpus.sizes["focus"])
    corpus = corpus.assign(focus_number=("focus", number))
    filtered = focus_filter(corpus, space)
    nd_corpus.check(filtered)
    keeps = {
        name: [inside(space, point) for point in foci] for name, foci in placed(corpus).items()
    }
    whole = foci_of(corpus)
    assert foci_of(filtered) == {
        name: [focus for focus, keep in zip(whole[name], keeps[name], strict=True) if keep]
        for name in whole
    }
    flat = np.array([keep for kept in keeps.values() for keep in kept])
    assert_array_equal(filtered["focus_number"], number[flat])
    assert filtered["analysis_n_foci"].attrs == corpus["analysis_n_foci"].attrs
    assert filtered["analysis_n_foci"].dtype == corpus["analysis_n_foci"].dtype
    for name in ("analysis_id", "study_id", "weight_value", "weight_analysis", "feature"):
        xr.testing.assert_identical(filtered[name], corpus[name])


def test_focus_filter__counts_the_analyses_that_it_empties() -> None:
    corpus = make_corpus([[[0, 0, 0]], [[500, 0, 0]], [], [[0, 0, 0], [900, 0, 0]]])
    said = r"1 of 4 analyses have no focus inside small; they are kept"
    with pytest.warns(CorpusWarning, match=said) as told:
        filtered = focus_filter(corpus, small_space())
    assert [warning.filename for warning in told] == [__file__]
    assert filtered["analysis_n_foci"].values.tolist() == [1, 0, 0, 1]
    step = steps(filtered)[-1]
    assert (step["step"], step["n_foci"], step["n_foci_before"]) == ("focus_filter", 2, 4)
    assert step["n_analyses_emptied"] == 1
    with pytest.warns(CorpusWarning, match=said) as told:
        again = FocusFilter(mask=small_space()).transform(corpus)
    assert [warning.filename for warning in told] == [__file__]
    xr.testing.assert_identical(again, filtered)


def test_focus_filter__leaves_the_corpus_alone_and_does_nothing_twice() -> None:
    corpus = make_corpus([[[0, 0, 0], [500, 0, 0]], [[8, 0, 0]]])
    before = corpus.copy(deep=True)
    once = focus_filter(corpus, small_space())
    xr.testing.assert_identical(corpus, before)
    xr.testing.assert_equal(focus_filter(once, small_space()), once)


def test_focus_filter__nothing_inside() -> None:
    with pytest.raises(SelectionError, match="None of 1 foci is inside small; use another mask"):
        focus_filter(make_corpus([[[500, 0, 0]]]), small_space())
