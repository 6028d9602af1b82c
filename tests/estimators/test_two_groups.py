"""Two groups that are about to be compared: pooled in the order of their ids, whoever has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask import activation
from nimare_dask.activation import LocatedFoci
from nimare_dask.errors import SchemaError, SelectionError
from nimare_dask.estimators.two_groups import pool, refuse_shared, with_foci
from tests import slow
from tests.foci import make_corpus
from tests.group_pairs import featured, of_feature, pair
from tests.groups import SPACE

# foci in another order


def located(n_foci: list[int]) -> LocatedFoci:
    """Foci whose number can be read off."""
    total = sum(n_foci)
    ijk = np.column_stack([np.arange(total), -np.arange(total), np.arange(total) % 3])
    return LocatedFoci(
        ijk=ijk.astype(np.int16),
        n_foci=np.array(n_foci, np.int32),
        n_by_space={"MNI": total},
        n_outside_mask=1,
        n_outside_volume=0,
    )


@given(
    n_foci=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_take__analyses_keep_their_foci(n_foci: list[int], seed: int) -> None:
    foci, order = located(n_foci), np.random.default_rng(seed).permutation(len(n_foci))
    found = foci.take(order)
    parts = np.split(foci.ijk, np.cumsum(n_foci)[:-1])
    assert_array_equal(found.n_foci, np.array(n_foci)[order])
    assert_array_equal(found.ijk, np.concatenate([parts[place] for place in order]))
    assert found.ijk.dtype == np.int16 and found.n_foci.dtype == np.int32
    assert found.report() == foci.report()
    # The owner is that of the new order, also where the old one was asked for.
    assert len(foci.owner) == sum(n_foci)
    assert_array_equal(np.bincount(found.owner, minlength=len(n_foci)), found.n_foci)
    back = found.take(np.argsort(order))
    assert_array_equal(back.ijk, foci.ijk)


def test_take__some_analyses_and_some_twice() -> None:
    foci = located([2, 0, 1, 3])
    found = foci.take(np.array([3, 1, 3]))
    assert_array_equal(found.ijk[:, 0], [3, 4, 5, 3, 4, 5])
    assert_array_equal(found.n_foci, [3, 0, 3])


# groups


def test_pool__is_in_the_order_of_ids() -> None:
    groups = pair()
    pooled = pool(groups.first, groups.second, SPACE)
    assert pooled.sizes == (7, 11)
    ids = np.concatenate([part["analysis_id"].values for part in pooled.corpora])[pooled.order]
    assert ids.tolist() == sorted(ids.tolist()) == groups.some["analysis_id"].values.tolist()
    assert_array_equal(np.flatnonzero(pooled.in_first), groups.rows)
    parts = np.split(pooled.foci.ijk, np.cumsum(pooled.foci.n_foci)[:-1])
    for found, wanted in zip(parts, slow.voxels_by_analysis(groups.some, SPACE), strict=True):
        assert_array_equal(found, wanted)


def test_pool__does_not_depend_on_how_groups_are_divided() -> None:
    corpus = featured()
    whole = activation.locate([with_foci(corpus, "corpus")], SPACE)
    for feature in range(6):
        groups = of_feature(corpus, feature)
        for one in (groups, groups.swapped):
            pooled = pool(one.first, one.second, SPACE)
            assert_array_equal(pooled.foci.ijk, whole.ijk)
            assert_array_equal(pooled.foci.n_foci, whole.n_foci)
        assert_array_equal(pool(groups.first, groups.second, SPACE).in_first, ~pooled.in_first)


def test_pool__says_what_it_is_of() -> None:
    groups = pair()
    facts = pool(groups.first, groups.second, SPACE).facts()
    digests = [nd.corpus.digest(part) for part in (groups.first, groups.second)]
    assert facts["corpus_digests"] == digests and facts["space_digest"] == SPACE.digest
    assert (facts["n_analyses"], facts["n_selected"]) == (18, 7)
    assert facts["n_analyses_without_foci"] == 2
    assert facts["n_foci"] == groups.corpus.sizes["focus"]


def test_pool__footprints_are_those_of_each_analysis() -> None:
    groups, kernel = pair(), nd.ALEKernel()
    pooled = pool(groups.first, groups.second, SPACE)
    dense, which = pooled.footprints(kernel)
    wanted, of_pooled = kernel.footprints(groups.some, SPACE)
    for analysis in range(18):
        assert_array_equal(dense[which[analysis]], wanted[of_pooled[analysis]])


def test_with_foci__leaves_a_corpus_as_it_is_where_all_have_some() -> None:
    some = with_foci(pair().corpus, "corpus")
    assert some.sizes["analysis"] == 18
    assert with_foci(some, "corpus") is some
    with pytest.raises(SelectionError, match=r"The second analyses have no focus at all \(2 anal"):
        with_foci(make_corpus([[], []]), "second")
    with pytest.raises(SchemaError, match="analysis_n_foci"):
        with_foci(xr.Dataset(), "first")


def test_refuse_shared__names_some() -> None:
    groups = pair()
    refuse_shared(groups.first, groups.second)
    with pytest.raises(
        SelectionError, match=r"20 analyses are in both groups \(study0000-1, .* 15"
    ):
        refuse_shared(groups.corpus, groups.corpus)


def test_pool__is_frozen() -> None:
    pooled: Any = pair().pooled
    assert replace(pooled, space=pooled.space).sizes == (7, 11)
    with pytest.raises(AttributeError):
        pooled.order = None
