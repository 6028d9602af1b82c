"""Random numbers of iterations, and masks in bits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import PCG64, SeedSequence
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.nulls.jobs import (
    STEPS,
    Batch,
    below,
    n_maxima,
    pack_mask,
    raw_numbers,
    unpack_mask,
)
from tests.group_pairs import pair

MOST = 2**64 - 1


@given(raw=st.lists(st.integers(0, MOST), min_size=1, max_size=20), n=st.integers(1, 2**32 - 1))
def test_below__is_the_upper_half_of_a_product(raw: list[int], n: int) -> None:
    numbers = np.array([0, MOST, *raw], np.uint64)
    wanted = [(int(number) * n) >> 64 for number in numbers]
    assert below(numbers, np.uint64(n)).tolist() == wanted
    assert wanted[0] == 0 and max(wanted) <= n - 1
    each = np.full(len(numbers), n, np.uint64)
    assert below(numbers, each).tolist() == wanted


def test_raw_numbers__are_those_of_seed_step_and_iteration() -> None:
    job = pair().label_counts(seed=7)
    seeds = SeedSequence(7, spawn_key=(0, 12))
    assert_array_equal(raw_numbers(job, 12, 9), PCG64(seeds).random_raw(9))
    assert_array_equal(raw_numbers(job, 12, 4), raw_numbers(job, 12, 9)[:4])
    # Written down once; a run that was begun with another version must be able to go on.
    assert raw_numbers(job, 0, 2).tolist() == GOLDEN


GOLDEN = [7233101070458666047, 2820918838249670645]


def test_steps__are_apart() -> None:
    assert STEPS["null"] == 0 and STEPS["fit"] == 1
    assert len(set(STEPS.values())) == len(STEPS)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (7, 8, 9), (1, 1, 64)])
def test_pack_mask__there_and_back(shape: tuple[int, int, int]) -> None:
    for holes in (0.0, 0.5, 1.0):
        mask = np.random.default_rng(0).uniform(size=shape) >= holes
        dims, bits = pack_mask(mask)
        assert dims == "byte" and bits.dtype == np.uint8 and len(bits) == -(-mask.size // 8)
        found = unpack_mask(xr.Dataset({"mask_bits": (dims, bits)}), list(shape))
        assert found.dtype == bool
        assert_array_equal(found, mask)


def test_n_maxima__is_the_product_of_labels() -> None:
    assert n_maxima(pair().label_counts()) == n_maxima(pair().redraw()) == 9
    assert n_maxima(pair().subtraction()) == 3


# What goes from workers to the driver.


@pytest.mark.parametrize(
    "values",
    [
        np.arange(300),
        np.array([0, 2**32 - 1]),
        np.array([5, 0, 2**62]),
        np.array([-1, 2**40]),
        np.array([-(2**63), 2**63 - 1]),
        np.array([3, 2**63 + 1], np.uint64),
        np.array([], np.int64),
        np.array([7, 200], np.uint8),
    ],
    ids=str,
)
def test_batch__arrives_as_it_was(values: NDArray[np.integer]) -> None:
    sent = Batch(maxima=np.array([[0.1, np.nan]]), sums={"counts": values})
    came = pickle.loads(pickle.dumps(sent))
    assert_array_equal(came.maxima, sent.maxima)
    assert came.sums["counts"].dtype == values.dtype
    assert_array_equal(came.sums["counts"], values)
    came.sums["counts"] += 1


def test_batch__is_sent_small() -> None:
    histogram = np.bincount(np.random.default_rng(0).poisson(300, 10_000), minlength=100_001)
    sent = pickle.dumps(Batch(maxima=np.zeros((10, 3)), sums={"null_histogram": histogram}))
    assert histogram.nbytes == 800_008
    assert len(sent) < 5_000
