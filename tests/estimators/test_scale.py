"""SCALE against brute force, and the pools and nulls that it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.scale import SCALE
from nimare_dask.footprint import ALEKernel
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.nulls.relocation import from_dataset
from nimare_dask.space import voxel_to_mm
from tests import slow
from tests.foci import make_corpus
from tests.groups import SPACE, group, with_foci
from tests.reference import summary
from tests.reference.gaussian import ale_kernel, ale_modelled_activation
from tests.slow import FLOAT32

# SCALE


def pool_of(seed: int, n: int) -> NDArray[np.float64]:
    """Places in mm, some of them twice, some outside the mask."""
    rng = np.random.default_rng(seed)
    xyz = voxel_to_mm(rng.integers(2, 11, size=(n, 3)), SPACE.affine)
    return np.concatenate([xyz, xyz[: n // 2]])


def test_scale__equals_brute_force() -> None:
    corpus = group(15, 6)
    some = with_foci(corpus)
    estimator = SCALE(xyz=pool_of(0, 20), kernel=ALEKernel(fwhm=24))
    null = monte_carlo_null(estimator, corpus, space=SPACE, n_iters=40, random_state=5)
    found = estimator.fit(corpus, space=SPACE, null=null)
    again = estimator.fit(corpus, space=SPACE, n_iters=40, random_state=5)
    kernel = ale_kernel(24.0, SPACE.zooms.tolist())

    def ale(foci: list[NDArray[Any]]) -> NDArray[np.float64]:
        volumes = [ale_modelled_activation(ijk, kernel, SPACE.shape) for ijk in foci]
        return summary.ale(volumes)[SPACE.mask]

    observed = ale(slow.voxels_by_analysis(some, SPACE))
    assert_allclose(found["stat"], observed, rtol=FLOAT32, atol=1e-8)
    job = from_dataset(null)
    places = {tuple(row) for row in np.argwhere(np.ones((13, 14, 12))).tolist()}
    low, high = np.zeros(SPACE.n_voxels), np.zeros(SPACE.n_voxels)
    for iteration in range(40):
        drawn = job.draw(iteration)
        assert set(map(tuple, drawn.tolist())) <= places
        relocated = ale(np.split(drawn, np.cumsum(some["analysis_n_foci"].values)[:-1]))
        low += relocated >= observed + 1e-8
        high += relocated >= observed - 1e-8
    assert (low == high).mean() > 0.9
    assert low.max() > 20 and low.min() == 0
    n_reaching = null["null_reaching"].values
    assert ((n_reaching >= low) & (n_reaching <= high)).all()
    assert_allclose(found["p"], np.maximum(n_reaching, 1) / 40, rtol=FLOAT32)
    for name in ("stat", "p", "z", "logp"):
        assert_array_equal(found[name], again[name])


def test_scale__draws_from_the_pool_only_and_twice_as_often_where_it_is_twice() -> None:
    xyz = voxel_to_mm(np.array([[5, 5, 5], [5, 5, 5], [8, 8, 8]]), SPACE.affine)
    estimator = SCALE(xyz=xyz, kernel=ALEKernel(fwhm=24))
    corpus = group(16)
    null = monte_carlo_null(estimator, corpus, space=SPACE, n_iters=1, random_state=1)
    drawn = np.concatenate([from_dataset(null).draw(iteration) for iteration in range(100)])
    assert {tuple(row) for row in drawn.tolist()} == {(5, 5, 5), (8, 8, 8)}
    n = len(drawn)
    assert abs((drawn[:, 0] == 5).sum() - 2 * n / 3) < 4 * np.sqrt(n * 2 / 9)


def test_scale__everything_is_chance_where_the_pool_is_the_corpus() -> None:
    # All foci at one place, and the pool that place: each iteration is the observed map.
    focus = voxel_to_mm(np.array([[6, 6, 6]]), SPACE.affine)
    corpus = make_corpus([focus, np.repeat(focus, 3, axis=0)])
    found = SCALE(xyz=focus, kernel=ALEKernel(fwhm=24)).fit(corpus, space=SPACE, n_iters=7)
    assert_array_equal(found["p"], 1)
    assert_array_equal(found["z"], 0)


def test_scale__pool_of_another_estimator_is_refused() -> None:
    corpus = group(17)
    one, other = (SCALE(xyz=pool_of(seed, 15), kernel=ALEKernel(fwhm=24)) for seed in (1, 2))
    null = monte_carlo_null(one, corpus, space=SPACE, n_iters=3, random_state=0)
    one.fit(corpus, space=SPACE, null=null)
    with pytest.raises(SchemaError, match=r"together|monte_carlo_null"):
        other.fit(corpus, space=SPACE, null=null)


def test_scale__null_of_something_else_is_refused() -> None:
    estimator = SCALE(xyz=pool_of(1, 15), kernel=ALEKernel(fwhm=24))
    null = monte_carlo_null(estimator, group(17), space=SPACE, n_iters=2, random_state=0)
    with pytest.raises(SchemaError, match=r"They do not belong together"):
        estimator.fit(group(18), space=SPACE, null=null)
    other = monte_carlo_null(
        ALE(kernel=estimator.kernel), group(17), space=SPACE, n_iters=2, random_state=0
    )
    with pytest.raises(SchemaError, match="They do not belong together"):
        estimator.fit(group(17), space=SPACE, null=other)


@pytest.mark.parametrize("xyz", [[], [0.0, 0, 0], [[0.0, 0]], [[0, 0, np.nan]], [[0, np.inf, 0]]])
def test_scale__pool_that_cannot_be(xyz: Any) -> None:
    with pytest.raises(SettingsError, match=r"^xyz has .*expected points in mm"):
        SCALE(xyz=xyz)
