"""Arrays that are lazy or not, put together the same way."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nimare_dask.parallel import shapes

ONE, OTHER = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones((3, 4), np.float32)


def lazy(array: Any, chunks: Any = (2, 3)) -> Any:
    return da.from_array(array, chunks=chunks)


@pytest.mark.parametrize("arrays", [[ONE], [ONE, OTHER], [ONE, OTHER, ONE]])
def test_stack__is_lazy_where_one_of_them_is(arrays: list[Any]) -> None:
    wanted = np.stack(arrays)
    plain = shapes.stack(arrays)
    assert type(plain) is np.ndarray
    assert_array_equal(plain, wanted)
    for place in range(len(arrays)):
        mixed = [lazy(array) if at == place else array for at, array in enumerate(arrays)]
        found = shapes.stack(mixed)
        assert isinstance(found, da.Array) and found.dtype == np.float32
        assert_array_equal(found.compute(), wanted)
    whole = shapes.stack([lazy(array) for array in arrays])
    assert whole.chunks == ((1,) * len(arrays), (2, 1), (3, 1))


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.5])
def test_filled_like__has_shape_type_and_blocks(value: float) -> None:
    plain = shapes.filled_like(ONE, value)
    assert type(plain) is np.ndarray and plain.dtype == np.float32
    assert_array_equal(plain, np.full((3, 4), value, np.float32))
    found = shapes.filled_like(lazy(ONE), value)
    assert isinstance(found, da.Array) and found.dtype == np.float32
    assert found.chunks == lazy(ONE).chunks
    assert_array_equal(found.compute(), plain)


def test_apply_to_whole_maps__shares_what_is_large() -> None:
    def add(offset: Any, block: Any, *, table: Any, factor: float) -> Any:
        assert block.shape[-1] == 4, "whole maps"
        return ((block + offset) * factor + table[0]).astype(np.float32)

    offset, table = np.arange(3)[:, None], np.array([100.0])
    wanted = (ONE + offset) * 2 + 100
    found = shapes.apply_to_whole_maps(add, offset, ONE, shared={"table": table}, factor=2.0)
    assert_array_equal(found, wanted)
    array = shapes.apply_to_whole_maps(add, offset, lazy(ONE), shared={"table": table}, factor=2.0)
    assert isinstance(array, da.Array) and array.dtype == np.float32
    assert_array_equal(array.compute(scheduler="synchronous"), wanted)
