"""Nearest foci against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.kernels import nearest

EYE = np.eye(4)[None]


def by_hand(xyz, space, matrices, points, n_foci):  # type: ignore[no-untyped-def]
    """Distances one by one."""
    found, at = [], 0
    for n in n_foci:
        best = np.inf
        for row in range(at, at + n):
            place = matrices[space[row]] @ np.append(xyz[row], 1.0)
            for point in points:
                best = min(best, float(np.linalg.norm(place[:3] - point)))
        found.append(best)
        at += n
    return np.array(found)


def test_nearest_distance__hand_computed() -> None:
    xyz = np.array([[3.0, 4, 0], [0, 0, 10], [1, 2, 2]])
    found = nearest.nearest_distance(
        xyz, np.zeros(3, np.int8), EYE, np.zeros((1, 3)), np.array([2, 0, 1], np.int32)
    )
    assert_array_equal(found, [5, np.inf, 3])


@pytest.mark.parametrize("farthest", [np.inf, 0.0, 8.0, 25.0])
@pytest.mark.parametrize("n_points", [1, 4])
def test_nearest_distance__equals_a_plain_loop(farthest: float, n_points: int) -> None:
    rng = np.random.default_rng(n_points)
    n_foci = rng.integers(0, 6, 40).astype(np.int32)
    xyz = rng.integers(-40, 40, (n_foci.sum(), 3)).astype(float)
    space = rng.integers(0, 3, len(xyz)).astype(np.int8)
    matrices = np.array([np.eye(4), np.eye(4), np.eye(4)])
    matrices[1:, :3] += rng.normal(0, 0.1, (2, 3, 4))
    points = rng.integers(-40, 40, (n_points, 3)).astype(float)
    points[0] = xyz[7]
    expected = by_hand(xyz, space, matrices, points, n_foci)
    found = nearest.nearest_distance(xyz, space, matrices, points, n_foci, farthest)
    within = expected <= farthest
    assert_allclose(found[within], expected[within], rtol=1e-12, atol=1e-12)
    assert (found[~within] > farthest).all() or not np.isfinite(farthest)
    plain = getattr(nearest._nearest, "py_func", nearest._nearest)  # without JIT it is plain
    out = np.empty(len(n_foci))
    plain(xyz, space, matrices, points, np.full(3, -np.inf), np.full(3, np.inf), n_foci, out)
    assert_allclose(out, expected, rtol=1e-12, atol=1e-12)
