"""Names too long to be kept in place (over 15 bytes), of two corpora put together.

numpy 2.4 dies sorting such an array, with its default sort.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask.estimators.two_groups import refuse_shared
from nimare_dask.wholeness import refuse_duplicates
from tests.builders import small_space


def put_together(n: int) -> NDArray[np.str_]:
    """Names of two arrays, mixed."""
    corpus = nd.simulate_corpus(n, n_foci=n, space=small_space())
    first = np.random.default_rng(0).uniform(size=n) < 0.5
    names = corpus["analysis_id"].values
    return np.concatenate([names[first], names[~first]])


def test_refuse_duplicates__of_long_names() -> None:
    names = put_together(3000)
    refuse_duplicates("analysis_id", names)
    with pytest.raises(nd.SchemaError, match=r"1 names more than once \(simulated000007-1\)"):
        refuse_duplicates("analysis_id", np.append(names, names[names == "simulated000007-1"]))


def test_refuse_shared__of_long_names() -> None:
    n = 3000
    corpus = nd.simulate_corpus(n, n_foci=n, space=small_space())
    first = np.random.default_rng(0).uniform(size=n) < 0.5
    refuse_shared(nd.select(corpus, first), nd.select(corpus, ~first))
    with pytest.raises(nd.SelectionError, match=rf"{first.sum():,} analyses are in both"):
        refuse_shared(nd.select(corpus, first), corpus)
