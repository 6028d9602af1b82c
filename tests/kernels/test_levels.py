"""Looking levels up against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal
from numpy.typing import ArrayLike, NDArray

from nimare_dask.kernels.levels import look_up

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def found(values: ArrayLike, levels: ArrayLike) -> NDArray[np.float32]:
    """Outcomes of `values` where the outcome of a level is its place."""
    values, levels = np.asarray(values, np.float32), np.asarray(levels, np.float32)
    out = np.full(len(values), -1, np.float32)
    look_up(values, levels, np.arange(len(levels), dtype=np.float32), out)
    return out


def expected(values: ArrayLike, levels: ArrayLike) -> NDArray[np.float32]:
    """The same by a dictionary."""
    place = {float(level): at for at, level in enumerate(np.asarray(levels, np.float32))}
    # What is below the first level is taken as the first.
    smallest = min(place, default=-np.inf)
    return np.array(
        [
            0 if value < smallest else place.get(float(value), np.nan)
            for value in np.asarray(values, np.float32)
        ]
    )


def test_look_up__hand_computed() -> None:
    assert_array_equal(found([3, 0, 1, 2, 3], [0, 1, 3]), [2, 0, 1, np.nan, 2])


def test_look_up__levels_that_share_an_outcome() -> None:
    levels = np.array([0, 1, 2, 3, 4, 5], np.float32)
    for outcome in ([7, 7, 7, 8, 8, 9], [7, 7, 7, 7, 7, 7], [1, 2, 2, 2, 2, 2]):
        wanted = np.array(outcome, np.float32)
        out = np.empty(12, np.float32)
        look_up(np.repeat(levels, 2), levels, wanted, out)
        assert_array_equal(out, np.repeat(wanted, 2))


def test_look_up__nan_is_nan() -> None:
    for nan in (np.float32(np.nan), -np.float32(np.nan)):
        assert np.isnan(found([nan], [0, 1])).all()


@pytest.mark.parametrize(
    "levels",
    [
        [0],
        [5],
        [0, SMALLEST],
        [SMALLEST, LARGEST],
        [0, SMALLEST, 1e-40, 1, LARGEST, np.inf],
        [np.inf],
        [1, 1 + 2**-23, 1 + 2**-22],
    ],
)
def test_look_up__extreme_levels(levels: list[float]) -> None:
    values = [*levels, 0, 0.5, 2, SMALLEST, LARGEST, np.inf, np.nan]
    assert_array_equal(found(values, levels), expected(values, levels))


def test_look_up__no_levels() -> None:
    assert np.isnan(found([0, 1, np.nan], [])).all()


def test_look_up__no_values() -> None:
    assert len(found([], [0, 1])) == 0


def test_look_up__many_levels_in_one_bucket() -> None:
    levels = (1 + np.arange(5000) * 2.0**-23).astype(np.float32)
    order = np.random.default_rng(0).permutation(5000)
    assert_array_equal(found(levels[order], levels), order)


@given(
    values=hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(0, width=32)),
    drop=st.integers(1, 5),
)
def test_look_up__drawn(values: NDArray[np.float32], drop: int) -> None:
    values = np.abs(values)  # no -0, whose bits are not in order
    levels = np.unique(values[~np.isnan(values)])
    assert_array_equal(found(values, levels), expected(values, levels))
    fewer = np.delete(levels, slice(None, None, drop))
    assert_array_equal(found(values, fewer), expected(values, fewer))
