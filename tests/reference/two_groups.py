"""Two groups of studies compared: chi-square and ALE differences, their nulls and corrections.

A map is a vector (voxel,) over the voxels of a boolean ``mask`` (x, y, z), in C order. Null maxima
are (iteration, 3): largest voxel, largest cluster size, largest cluster mass (``INFERENCES``).

Observed values tie with null values all the time here, and a tie counts. So that a tie is one in
floating point too, chi-square is an exact fraction rounded once, cluster masses are exact sums
rounded once, and an ALE value does not depend on the order of its studies.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage, stats

from .kernel import mkda_maps
from .pvalues import p_to_z

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Effects of the chi-square analysis, in the order of the null maxima.
EFFECTS = ("uniformity", "association", "group2")
#: Inferences, in the order of the null maxima.
INFERENCES = ("voxel", "size", "mass")


# chi-square


def _counts(counts: npt.ArrayLike, n: int) -> list[int]:
    """Check ``counts`` (voxel,) of studies out of ``n``; return Python (unbounded) integers."""
    values = np.asarray(counts)
    if values.ndim != 1 or values.size == 0 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError("counts must be integers in one dimension")
    if n < 1 or values.min() < 0 or values.max() > n:
        raise ValueError(f"counts must be within 0 and n = {n}, which must be positive")
    return [int(value) for value in values]


def association_chi2(
    active_1: npt.ArrayLike, active_2: npt.ArrayLike, n_1: int, n_2: int, degenerate: float = 2.0
) -> tuple[FloatArray, FloatArray]:
    """Association chi2 (voxel,) and sign of its z (voxel,): +1 where group 1 is the more active.

    ``active_1`` and ``active_2`` (voxel,) count the active studies out of ``n_1`` and ``n_2``.
    chi2 is ``degenerate``, and the sign 0, where no study is active, or all are.
    """
    chi2, sign = [], []
    n = n_1 + n_2
    for a, b in zip(_counts(active_1, n_1), _counts(active_2, n_2), strict=True):
        difference = a * n_2 - b * n_1
        denominator = (a + b) * (n - a - b) * n_1 * n_2
        # Python divides integers of any size with one rounding.
        chi2.append(n * difference**2 / denominator if denominator != 0 else degenerate)
        sign.append(float(np.sign(difference)))
    return np.array(chi2, dtype=np.float64), np.array(sign, dtype=np.float64)


def uniformity_chi2(active: npt.ArrayLike, n: int) -> tuple[FloatArray, FloatArray]:
    """Uniformity chi2 (voxel,) and sign of its z (voxel,): +1 where above the mean over voxels.

    ``active`` (voxel,) counts the active studies out of ``n``. With their mean e, chi2 is
    (x - e)^2 n / (e (n - e)); it is 0 everywhere, and the sign too, where e is 0 or n.
    """
    counts = _counts(active, n)
    total, n_voxels = sum(counts), len(counts)
    chi2, sign = [], []
    for x in counts:
        # The formula with e = total / n_voxels, times n_voxels^2 above and below.
        difference = x * n_voxels - total
        denominator = total * (n * n_voxels - total)
        chi2.append(n * difference**2 / denominator if denominator != 0 else 0.0)
        sign.append(float(np.sign(difference)))
    return np.array(chi2, dtype=np.float64), np.array(sign, dtype=np.float64)


# clusters


def clusters_above(values: npt.ArrayLike, mask: npt.ArrayLike, threshold: float) -> list[IntArray]:
    """Voxels (positions in the mask vector) of each face-connected cluster above ``threshold``.

    ``values`` are (voxel,). The comparison is strict, and voxels out of the mask are in no
    cluster.
    """
    inside = np.asarray(mask, dtype=bool)
    above = np.zeros(inside.shape, dtype=bool)
    above[inside] = np.asarray(values, dtype=np.float64) > threshold
    labels, count = ndimage.label(above, structure=ndimage.generate_binary_structure(3, 1))
    labels_in_mask = np.asarray(labels)[inside]
    return [np.flatnonzero(labels_in_mask == label) for label in range(1, count + 1)]


def cluster_mass(magnitude: FloatArray, members: IntArray, threshold: float) -> float:
    """Sum over ``members`` of the excess of ``magnitude`` (voxel,) over ``threshold``."""
    return math.fsum(float(magnitude[voxel]) - threshold for voxel in members)


def _maxima(magnitude: FloatArray, clusters: list[IntArray], threshold: float) -> FloatArray:
    """Largest (3,) voxel, cluster size and cluster mass of one map; the last two 0 with none."""
    sizes = [members.size for members in clusters]
    masses = [cluster_mass(magnitude, members, threshold) for members in clusters]
    return np.array([magnitude.max(), max(sizes, default=0), max(masses, default=0.0)])


# corrected p-values


def share_at_least(null: npt.ArrayLike, value: float) -> float:
    """p of ``value``: share of the ``null`` (iteration,) that is at least as large, 1/n at least.

    It can be 1: there is no clip at 1 - 1/n.
    """
    sample = np.asarray(null, dtype=np.float64)
    return max(int(np.count_nonzero(sample >= value)), 1) / sample.size


def _fwe(
    magnitude: FloatArray,
    clusters: list[IntArray],
    threshold: float,
    sign: npt.ArrayLike,
    maxima: npt.ArrayLike,
) -> dict[str, FloatArray]:
    """Return p, z and logp maps of each inference, keyed ``p_voxel``, ``z_size``, and so on."""
    null = np.asarray(maxima, dtype=np.float64)
    if null.ndim != 2 or null.shape[1] != len(INFERENCES):
        raise ValueError("maxima must be (iteration, 3)")
    p = {inference: np.ones(magnitude.size) for inference in INFERENCES}
    for voxel, value in enumerate(magnitude):
        p["voxel"][voxel] = share_at_least(null[:, 0], float(value))
    for members in clusters:
        mass = cluster_mass(magnitude, members, threshold)
        p["size"][members] = share_at_least(null[:, 1], members.size)
        p["mass"][members] = share_at_least(null[:, 2], mass)

    maps = {}
    for inference in INFERENCES:
        maps[f"p_{inference}"] = p[inference]
        maps[f"z_{inference}"] = p_to_z(p[inference], "two") * np.sign(np.asarray(sign))
        maps[f"logp_{inference}"] = np.abs(np.log10(p[inference]))  # p <= 1; abs avoids -0.0
    return maps


# the null of chi-square


def chi2_maxima(
    counts_1: npt.ArrayLike,
    counts_2: npt.ArrayLike,
    n_1: int,
    n_2: int,
    mask: npt.ArrayLike,
    voxel_thresh: float,
    degenerate: float = 2.0,
) -> FloatArray:
    """Maxima (effect, inference) of the chi2 maps of two groups; see EFFECTS and INFERENCES.

    ``counts_1`` and ``counts_2`` (voxel,) are as for ``association_chi2``. Clusters are of
    chi2 > u, where u has the p ``voxel_thresh``: of either sign of z, and of both together.
    """
    u = float(stats.chi2.isf(voxel_thresh, 1))
    maps = {
        "uniformity": uniformity_chi2(counts_1, n_1)[0],
        "association": association_chi2(counts_1, counts_2, n_1, n_2, degenerate)[0],
        "group2": uniformity_chi2(counts_2, n_2)[0],
    }
    return np.array([_maxima(maps[e], clusters_above(maps[e], mask, u), u) for e in EFFECTS])


def chosen_rows(n: int, n_1: int, seeds: Sequence[int]) -> IntArray:
    """Rows (iteration, ``n_1``) out of ``n`` that are group 1: the first of a shuffle by seed."""
    chosen = []
    for seed in seeds:
        rows = np.arange(n)
        np.random.default_rng(seed).shuffle(rows)
        chosen.append(rows[:n_1])
    return np.array(chosen, dtype=np.int64).reshape(len(seeds), n_1)


def _other_rows(n: int, rows: npt.ArrayLike) -> list[int]:
    """Rows out of ``n``, in order, that are not ``rows``, which must be distinct and not all."""
    first = [int(row) for row in np.asarray(rows)]
    others = [row for row in range(n) if row not in first]
    if len(first) + len(others) != n or len(first) == 0 or len(others) == 0:
        raise ValueError("rows must be distinct, within the studies, and leave both groups some")
    return others


def label_permutation_maxima(
    active: npt.ArrayLike,
    chosen: npt.ArrayLike,
    mask: npt.ArrayLike,
    voxel_thresh: float,
    degenerate: float = 2.0,
) -> FloatArray:
    """Null maxima (iteration, effect, inference) of chi2 over relabellings of the studies.

    ``active`` is bool (analysis, voxel); ``chosen`` (iteration, n_1) are the rows of it that are
    group 1 in each iteration, the others being group 2.
    """
    studies = np.asarray(active)
    if studies.dtype != np.bool_ or studies.ndim != 2:
        raise ValueError("active must be bool (analysis, voxel)")
    maxima = []
    for rows in np.asarray(chosen):
        others = _other_rows(len(studies), rows)
        counts_1 = studies[rows].sum(axis=0, dtype=np.int64)
        counts_2 = studies[others].sum(axis=0, dtype=np.int64)
        n_1, n_2 = len(rows), len(others)
        maxima.append(chi2_maxima(counts_1, counts_2, n_1, n_2, mask, voxel_thresh, degenerate))
    return np.array(maxima)


def random_foci_maxima(
    foci_1: Sequence[npt.ArrayLike],
    foci_2: Sequence[npt.ArrayLike],
    mask: npt.ArrayLike,
    zooms: Sequence[float],
    r: float,
    voxel_thresh: float,
    degenerate: float = 2.0,
) -> FloatArray:
    """Null maxima (effect, inference) of chi2 of ONE iteration of the random-foci null.

    ``foci_1`` and ``foci_2`` hold, for each study of a group, the voxel indices (focus, 3) to
    which its foci were moved. A study is active within ``r`` mm of any of them.
    """
    counts_1 = mkda_maps(foci_1, mask, zooms, r).sum(axis=0, dtype=np.int64)
    counts_2 = mkda_maps(foci_2, mask, zooms, r).sum(axis=0, dtype=np.int64)
    n_1, n_2 = len(foci_1), len(foci_2)
    return chi2_maxima(counts_1, counts_2, n_1, n_2, mask, voxel_thresh, degenerate)


def chi2_fwe(
    observed: npt.ArrayLike,
    sign: npt.ArrayLike,
    maxima: npt.ArrayLike,
    mask: npt.ArrayLike,
    voxel_thresh: float,
) -> dict[str, FloatArray]:
    """FWE-corrected maps (voxel,) of one effect, keyed {p, z, logp}_{voxel, size, mass}.

    ``observed`` (voxel,) is chi2, ``sign`` (voxel,) that of its z; ``maxima`` (iteration, 3) are
    of the same effect. p is 1 in no cluster; z is two-tailed times the sign.
    """
    u = float(stats.chi2.isf(voxel_thresh, 1))
    chi2 = np.asarray(observed, dtype=np.float64)
    return _fwe(chi2, clusters_above(chi2, mask, u), u, sign, maxima)


# ALE differences


def ale_of(activation: npt.ArrayLike, rows: npt.ArrayLike) -> FloatArray:
    """ALE (voxel,) 1 - prod(1 - M) of the ``rows`` of modelled ``activation`` (analysis, voxel).

    The factors of each voxel are multiplied from the smallest to the largest, so that studies in
    another order, or others with the same values, give the same bits.
    """
    studies = np.asarray(activation, dtype=np.float64)[np.asarray(rows, dtype=np.int64)]
    if studies.ndim != 2 or len(studies) == 0 or studies.min() < 0 or studies.max() > 1:
        raise ValueError("need at least one row, of values in [0, 1]")
    remaining = np.ones(studies.shape[1])
    for factors in np.sort(1.0 - studies, axis=0):
        remaining = remaining * factors
    ale: FloatArray = 1.0 - remaining
    return ale


def subtraction_difference(activation: npt.ArrayLike, rows: npt.ArrayLike) -> FloatArray:
    """ALE (voxel,) of the ``rows`` of ``activation`` (analysis, voxel) minus that of the others."""
    others = _other_rows(len(np.asarray(activation)), rows)
    return ale_of(activation, rows) - ale_of(activation, others)


def subtraction_permutations(activation: npt.ArrayLike, chosen: npt.ArrayLike) -> FloatArray:
    """Null differences (iteration, voxel): group 1 are the ``chosen`` (iteration, n_1) rows."""
    return np.array([subtraction_difference(activation, rows) for rows in np.asarray(chosen)])


def tail_counts(observed: npt.ArrayLike, differences: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """How many null ``differences`` (iteration, voxel) are >= ``observed`` (voxel,), and <=."""
    value = np.asarray(observed, dtype=np.float64)
    null = np.asarray(differences, dtype=np.float64)
    up, lo = np.zeros(value.size, dtype=np.int64), np.zeros(value.size, dtype=np.int64)
    for difference in null:
        up += difference >= value
        lo += difference <= value
    return up, lo


def subtraction_p_z(
    observed: npt.ArrayLike, differences: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Two-sided p and z (voxel,) of ``observed`` (voxel,) in ``differences`` (iteration, voxel).

    p is twice the smaller tail, within [1/n, 1]. z is positive where fewer null differences are
    above than below.
    """
    n = len(np.asarray(differences))
    up, lo = tail_counts(observed, differences)
    p = np.clip(2.0 * np.minimum(up, lo) / n, 1.0 / n, 1.0)
    return p, p_to_z(p, "two") * np.sign(lo - up)


def subtraction_inference_p_z(
    observed: npt.ArrayLike,
    differences: npt.ArrayLike,
    inference_1: npt.ArrayLike,
    inference_2: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """One-sided p and z (voxel,), only where a group's inference mask and the sign agree.

    ``inference_1`` and ``inference_2`` (voxel,) are boolean. p is the upper tail where the first
    holds and ``observed`` > 0, the lower tail where the second holds and ``observed`` < 0, at
    least 1/n; elsewhere p is 1 and z is 0. z is one-tailed, so also 0 for p >= 0.5.
    """
    value = np.asarray(observed, dtype=np.float64)
    n = len(np.asarray(differences))
    up, lo = tail_counts(value, differences)
    above = np.asarray(inference_1, dtype=bool)
    below = np.asarray(inference_2, dtype=bool)
    p, sign = np.ones(value.size), np.zeros(value.size)
    for voxel in range(value.size):
        if above[voxel] and value[voxel] > 0:
            p[voxel], sign[voxel] = max(up[voxel], 1) / n, 1.0
        elif below[voxel] and value[voxel] < 0:
            p[voxel], sign[voxel] = max(lo[voxel], 1) / n, -1.0
    return p, p_to_z(p, "one") * sign


def subtraction_threshold(differences: npt.ArrayLike, voxel_thresh: float) -> float:
    """Quantile 1 - ``voxel_thresh`` of |difference| over all iterations and voxels (linear)."""
    magnitude = np.abs(np.asarray(differences, dtype=np.float64))
    return float(np.quantile(magnitude, 1.0 - voxel_thresh, method="linear"))


def two_sided_clusters(
    values: npt.ArrayLike, mask: npt.ArrayLike, threshold: float
) -> list[IntArray]:
    """Clusters of ``values`` (voxel,) above ``threshold`` >= 0, then those below minus it."""
    if threshold < 0:
        raise ValueError("threshold cannot be negative")
    signed = np.asarray(values, dtype=np.float64)
    return clusters_above(signed, mask, threshold) + clusters_above(-signed, mask, threshold)


def subtraction_maxima(
    differences: npt.ArrayLike, mask: npt.ArrayLike, threshold: float
) -> FloatArray:
    """Null maxima (iteration, 3) of |difference|, from ``differences`` (iteration, voxel).

    Clusters are of |difference| > ``threshold``, positive and negative voxels labelled apart.
    """
    maxima = []
    for difference in np.asarray(differences, dtype=np.float64):
        clusters = two_sided_clusters(difference, mask, threshold)
        maxima.append(_maxima(np.abs(difference), clusters, threshold))
    return np.array(maxima)


def subtraction_fwe(
    observed: npt.ArrayLike,
    sign: npt.ArrayLike,
    maxima: npt.ArrayLike,
    mask: npt.ArrayLike,
    threshold: float,
) -> dict[str, FloatArray]:
    """FWE-corrected maps (voxel,), keyed {p, z, logp}_{voxel, size, mass}.

    ``observed`` (voxel,) is the difference, whose sign parts the clusters; ``sign`` (voxel,) is
    that of the uncorrected z (or the z map itself), which z takes. p is 1 in no cluster.
    """
    value = np.asarray(observed, dtype=np.float64)
    clusters = two_sided_clusters(value, mask, threshold)
    return _fwe(np.abs(value), clusters, threshold, sign, maxima)


# conjunction


def minimum_statistic(first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """Conjunction (voxel,) of two maps (Nichols 2005): the nearer to 0 where their signs agree.

    0 where the signs differ or a map is 0. For maps that are never negative (z of a one-sided
    test, probabilities) this is the minimum. Where both are negative it is *not* the minimum,
    which would be the stronger of the two and no conjunction.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    conjunction = np.zeros(a.shape)
    for index, (x, y) in enumerate(zip(a, b, strict=True)):
        if x > 0 and y > 0:
            conjunction[index] = min(x, y)
        elif x < 0 and y < 0:
            conjunction[index] = max(x, y)
    return conjunction


# groups of equal size (balanced subtraction)


def subset_schedule(
    n: int, size: int, n_samples: int | None, exhaustive_limit: int, seed: int
) -> IntArray:
    """Subsets (subset, ``size``) of ``n`` studies, each of sorted rows.

    One less than ``n``: all, dropping each study in turn, whatever ``n_samples``. Otherwise all,
    in lexicographic order, if there are at most ``n_samples`` (None: no limit but
    ``exhaustive_limit``, beyond which there is an error). Otherwise ``n_samples`` distinct ones,
    drawn by RandomState(``seed``), then sorted.
    """
    if not 1 <= size <= n:
        raise ValueError(f"size must be within 1 and {n}, got {size}")
    if size == n - 1:
        return np.array([[row for row in range(n) if row != dropped] for dropped in range(n)])
    n_subsets = math.comb(n, size)
    if n_samples is None:
        if n_subsets > exhaustive_limit:
            raise ValueError(f"{n_subsets} subsets are more than the limit of {exhaustive_limit}")
        n_samples = n_subsets
    # Past the limit, drawing until all are found and sorting them would give the same.
    if n_samples >= n_subsets:
        return np.array(list(itertools.combinations(range(n), size)))

    rng = np.random.RandomState(seed)
    drawn: set[tuple[int, ...]] = set()
    while len(drawn) < n_samples:
        drawn.add(tuple(sorted(int(row) for row in rng.permutation(n)[:size])))
    return np.array(sorted(drawn)).reshape(n_samples, size)


def cluster_size_threshold(
    z_maps: npt.ArrayLike, mask: npt.ArrayLike, z_thresh: float, alpha: float
) -> float:
    """c*: percentile 100 (1 - ``alpha``) of the largest cluster sizes of null ``z_maps``.

    ``z_maps`` are (iteration, voxel); clusters are of z > ``z_thresh``. Linear percentile.
    """
    sizes = []
    for z in np.asarray(z_maps, dtype=np.float64):
        clusters = clusters_above(z, mask, z_thresh)
        sizes.append(max((members.size for members in clusters), default=0))
    return float(np.percentile(sizes, 100.0 * (1.0 - alpha)))


def probability_of_clusters(
    z_maps: npt.ArrayLike, mask: npt.ArrayLike, z_thresh: float, c_star: float
) -> FloatArray:
    """Share (voxel,) of the ``z_maps`` (subset, voxel) with the voxel in a cluster that survives.

    A cluster is of z > ``z_thresh`` >= 0 and survives if it has more than ``c_star`` voxels.
    """
    if z_thresh < 0:
        raise ValueError("z_thresh cannot be negative")
    maps = np.asarray(z_maps, dtype=np.float64)
    survived = np.zeros(maps.shape[1])
    for z in maps:
        for members in clusters_above(z, mask, z_thresh):
            if members.size > c_star:
                survived[members] += 1
    return survived / len(maps)


def mean_difference(
    activation_1: npt.ArrayLike,
    activation_2: npt.ArrayLike,
    subsets_1: npt.ArrayLike,
    subsets_2: npt.ArrayLike,
) -> FloatArray:
    """Mean (voxel,) over draws of the ALE of a subset of group 1 minus that of one of group 2.

    Activations are (analysis, voxel) for each group; subsets are (draw, target_n) rows, of the
    two groups in pairs.
    """
    first, second = np.asarray(subsets_1), np.asarray(subsets_2)
    total = np.zeros(np.asarray(activation_1).shape[1])
    for rows_1, rows_2 in zip(first, second, strict=True):
        total = total + (ale_of(activation_1, rows_1) - ale_of(activation_2, rows_2))
    return total / len(first)


def balanced_p_z(
    observed: npt.ArrayLike, null_min: npt.ArrayLike, null_max: npt.ArrayLike, alpha: float
) -> tuple[FloatArray, FloatArray]:
    """p and z (voxel,) of the mean difference ``observed`` (voxel,), where it is significant.

    ``null_min`` and ``null_max`` (iteration,) are the extremes over voxels. A voxel is
    significant above percentile 100 (1 - alpha/2) of the maxima, or below 100 alpha/2 of the
    minima, strictly; its p is then one-sided against the same null, 1/n at least, and z one-tailed
    with the sign. Elsewhere p is 1 and z is 0.
    """
    value = np.asarray(observed, dtype=np.float64)
    lowest, highest = np.asarray(null_min, dtype=np.float64), np.asarray(null_max, dtype=np.float64)
    top = float(np.percentile(highest, 100.0 * (1.0 - alpha / 2.0)))
    bottom = float(np.percentile(lowest, 100.0 * alpha / 2.0))
    p, sign = np.ones(value.size), np.zeros(value.size)
    for voxel, difference in enumerate(value):
        if difference > top:
            p[voxel], sign[voxel] = share_at_least(highest, float(difference)), 1.0
        elif difference < bottom:
            p[voxel], sign[voxel] = share_at_least(-lowest, -float(difference)), -1.0
    return p, p_to_z(p, "one") * sign
