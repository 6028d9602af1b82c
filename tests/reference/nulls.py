"""Null distributions of the summary statistics, p-values from them, clusters and study weights.

A histogram null is ``weights`` (bin,) over ``bins`` (bin,): equally spaced bin *centres* from 0.
Bonferroni correction is the one of ``pvalues``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .pvalues import bonferroni as bonferroni

FloatArray = npt.NDArray[np.float64]
NullTail = Literal["upper", "lower", "two"]
ClusterTail = Literal["upper", "two"]
Transform = Literal["sqrt", "linear", "none"]

#: Width of a bin of the ALE histograms.
ALE_STEP = 1e-5
#: What a study weight is multiplied with when the study made a fixed-effects inference.
FIXED_EFFECTS_DISCOUNT = 0.75
FIXED_EFFECTS_NAMES = ("fixed", "ffx", "fixed-effects", "fixed effects", "fe")


# histograms


def nearest(x: float) -> int:
    """Nearest integer of ``x`` >= 0, halves upwards (away from zero)."""
    whole = math.floor(x)
    return whole + 1 if x - whole >= 0.5 else whole


def _step(bins: FloatArray) -> float:
    """Width of the ``bins`` (bin,), of which there must be two at least."""
    if bins.ndim != 1 or bins.size < 2:
        raise ValueError("bins must be one-dimensional, two at least")
    return float(bins[1] - bins[0])


def ale_bins(maxima: npt.ArrayLike) -> FloatArray:
    """ALE bin centres (bin,) of studies with largest in-mask values ``maxima`` (study,).

    Each maximum is rounded up to a whole number of steps. That and the product are in float32,
    study after study; the centres go one step or more past the largest possible ALE value.
    """
    inverse = np.float32(1e5)
    remaining = np.float32(1.0)
    for maximum in np.asarray(maxima).astype(np.float32):
        remaining *= np.float32(1.0) - np.ceil(maximum * inverse) / inverse
    top = float(np.float32(1.0) - remaining)
    return np.round(np.arange(0.0, top + 1.5 * ALE_STEP, ALE_STEP), 5)


def kda_bins(value: float, n_foci: int) -> FloatArray:
    """KDA bin centres (``n_foci`` + 2,) of sphere sums of ``value``, one bin past all the foci."""
    return np.array([value * count for count in range(n_foci + 2)], dtype=np.float64)


def study_histogram(
    values_in_mask: npt.ArrayLike, n_voxels: int, bins: npt.ArrayLike
) -> FloatArray:
    """Share (bin,) of the ``n_voxels`` of the mask with a modelled activation near each centre.

    ``values_in_mask`` (value,) are all of one study's, or only those that are not zero. Values
    past the last bin count in it.
    """
    centres = np.asarray(bins, dtype=np.float64)
    inverse = 1.0 / _step(centres)
    counts = np.zeros(centres.size)
    n_zero = n_voxels
    for value in np.asarray(values_in_mask).ravel():
        if value != 0:
            index = nearest(float(value) * inverse)
            counts[max(0, min(index, centres.size - 1))] += 1
            n_zero -= 1
    if n_zero < 0:
        raise ValueError("more values than voxels")
    counts[0] += n_zero
    return counts / n_voxels


def _fold(
    histograms: Sequence[npt.NDArray[Any]],
    bins: npt.ArrayLike,
    combine: Callable[[float, FloatArray], FloatArray],
) -> FloatArray:
    """Left fold (bin,) of study ``histograms``, in their order; bins past the last count in it.

    ``combine`` gives the real-valued bin index of one accumulated value and all study values.
    """
    centres = np.asarray(bins, dtype=np.float64)
    if len(histograms) == 0 or any(h.shape != centres.shape for h in histograms):
        raise ValueError("need at least one histogram, each of the shape of the bins")
    accumulated = np.asarray(histograms[0], dtype=np.float64).copy()
    for histogram in histograms[1:]:
        folded = np.zeros_like(accumulated)
        study = np.flatnonzero(histogram > 0)
        for a in np.flatnonzero(accumulated > 0):
            x = combine(float(centres[a]), centres[study])
            whole = np.floor(x)
            index = np.where(x - whole >= 0.5, whole + 1, whole).astype(np.int64)
            index = np.minimum(index, centres.size - 1)
            np.add.at(folded, index, accumulated[a] * histogram[study])
        accumulated = folded
    return accumulated


def ale_fold(histograms: Sequence[npt.NDArray[Any]], bins: npt.ArrayLike) -> FloatArray:
    """ALE null (bin,): study ``histograms`` (study of (bin,)) folded in order with the union.

    Not associative: every step rounds to the nearest centre.
    """
    inverse = 1.0 / _step(np.asarray(bins, dtype=np.float64))

    def combine(a: float, b: FloatArray) -> FloatArray:
        return (1.0 - (1.0 - b) * (1.0 - a)) * inverse

    return _fold(histograms, bins, combine)


def kda_fold(histograms: Sequence[npt.NDArray[Any]], bins: npt.ArrayLike) -> FloatArray:
    """KDA null (bin,): study ``histograms`` (study of (bin,)) folded in order with the sum."""
    step = _step(np.asarray(bins, dtype=np.float64))

    def combine(a: float, b: FloatArray) -> FloatArray:
        return (b + a) / step

    return _fold(histograms, bins, combine)


# Poisson-binomial nulls


def poisson_binomial(q: npt.ArrayLike) -> FloatArray:
    """Probability (study + 1,) of each number of successes of trials with probabilities ``q``."""
    probability = [1.0]
    for p in np.asarray(q, dtype=np.float64):
        longer = [0.0] * (len(probability) + 1)
        for count, mass in enumerate(probability):
            longer[count] += mass * (1.0 - float(p))
            longer[count + 1] += mass * float(p)
        probability = longer
    return np.array(probability)


def weight_shifts(weights: npt.ArrayLike, step: float) -> list[int]:
    """Whole number of bins, 1 at least, of each of the ``weights`` (study,); halves to even."""
    return [max(round(float(weight) / step), 1) for weight in np.asarray(weights)]


def mkda_weighted_bins(weights: npt.ArrayLike, n_bins: int) -> FloatArray:
    """Bin centres (bin,) of sums of ``weights`` (study,): ``n_bins`` wide, or more for rounding.

    The step is the sum of the weights over ``n_bins`` - 1.
    """
    total = float(np.sum(np.asarray(weights, dtype=np.float64)))
    step = total / (n_bins - 1)
    count = max(sum(weight_shifts(weights, step)), math.ceil(total / step)) + 1
    return np.array([step * index for index in range(count)])


def weighted_poisson_binomial(
    q: npt.ArrayLike, weights: npt.ArrayLike, bins: npt.ArrayLike
) -> FloatArray:
    """Probability (bin,) of each sum of the ``weights`` (study,) of the successful trials.

    ``q`` (study,) are the probabilities; ``bins`` (bin,) as ``mkda_weighted_bins`` gives them.
    """
    centres = np.asarray(bins, dtype=np.float64)
    shifts = weight_shifts(weights, _step(centres))
    probability = [0.0] * centres.size
    probability[0] = 1.0
    for p, shift in zip(np.asarray(q, dtype=np.float64), shifts, strict=True):
        shifted = [0.0] * centres.size
        for index, mass in enumerate(probability):
            if mass > 0:  # raises IndexError where the bins are too few
                shifted[index] += mass * (1.0 - float(p))
                shifted[index + shift] += mass * float(p)
        probability = shifted
    return np.array(probability)


# p-values


def _tail(weights: FloatArray) -> FloatArray:
    """Upper-tail share (bin,) of ``weights`` (bin,), summed from the top; exactly 1 at bin 0."""
    share = weights / weights.sum()
    tail = np.zeros_like(share)
    running = 0.0
    for index in range(share.size - 1, -1, -1):
        running += float(share[index])
        tail[index] = running
    normalised: FloatArray = tail / tail.max()
    return normalised


def nullhist_to_p(t: npt.ArrayLike, weights: npt.ArrayLike, bins: npt.ArrayLike) -> FloatArray:
    """One-sided upper p (shape of ``t``) from a histogram null.

    ``weights`` are (bin,), or (bin, voxel) with ``t`` (voxel,): one null for each voxel. p is 1
    for t <= 0 and never below the smallest non-zero tail (of any voxel).
    """
    values = np.asarray(t, dtype=np.float64)
    mass = np.asarray(weights, dtype=np.float64)
    centres = np.asarray(bins, dtype=np.float64)
    inverse = 1.0 / _step(centres)
    if np.isnan(values).any():
        raise ValueError("t cannot be NaN")
    if mass.shape[0] != centres.size or mass.ndim > 2:
        raise ValueError("weights must be (bin,) or (bin, voxel)")
    if mass.ndim == 2 and values.shape != mass.shape[1:]:
        raise ValueError("t must be (voxel,) when weights are (bin, voxel)")

    columns = [mass] if mass.ndim == 1 else [mass[:, voxel] for voxel in range(mass.shape[1])]
    tails = [_tail(column) for column in columns]
    floor = min(float(tail[tail > 0].min()) for tail in tails)
    p = np.ones(values.shape)
    for position in np.ndindex(values.shape):
        tail = tails[0] if mass.ndim == 1 else tails[position[0]]
        value = float(values[position])
        if value > 0:
            scaled = min(value * inverse, float(centres.size))  # so that infinity has an index
            index = min(nearest(scaled), centres.size - 1)
            p[position] = max(floor, min(float(tail[index]), 1.0))
    return p


def threshold_of_p(p: float, weights: npt.ArrayLike, bins: npt.ArrayLike) -> float:
    """Statistic threshold: the last bin centre with a tail above ``p``, before any at most ``p``.

    To be compared with strictly (statistic > threshold). The top centre if no tail is at most
    ``p``; the first centre if all are.
    """
    centres = np.asarray(bins, dtype=np.float64)
    tail = _tail(np.asarray(weights, dtype=np.float64))
    for index in range(centres.size):
        if tail[index] <= p:
            return float(centres[max(0, index - 1)])
    return float(centres[-1])


def null_to_p(
    t: npt.ArrayLike, null: npt.ArrayLike, tail: NullTail, symmetric: bool = False
) -> FloatArray:
    """Empirical p (shape of ``t``) against a ``null`` (value,); ties count as exceedances.

    p is clipped to [1/n, 1 - 1/n]. Two-tailed is twice the smaller tail; with ``symmetric`` it
    is the share of the null at least as far from 0.
    """
    if tail not in ("upper", "lower", "two"):
        raise ValueError(f"tail must be 'upper', 'lower' or 'two', got {tail!r}")
    values = np.asarray(t, dtype=np.float64)
    sample = np.asarray(null, dtype=np.float64)
    n = sample.size
    if n == 0:
        raise ValueError("null cannot be empty")
    p = np.empty(values.shape)
    for position in np.ndindex(values.shape):
        value = float(values[position])
        upper = int(np.count_nonzero(sample >= value)) / n
        lower = int(np.count_nonzero(sample <= value)) / n
        if tail == "upper":
            one = upper
        elif tail == "lower":
            one = lower
        elif symmetric:
            one = int(np.count_nonzero(np.abs(sample) >= abs(value))) / n
        else:
            one = 2.0 * min(upper, lower)
        p[position] = min(max(one, 1.0 / n), 1.0 - 1.0 / n)
    return p


# clusters


def _label(active: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], int]:
    """Face-connected components of ``active`` (x, y, z): labels from 1, and how many."""
    faces = np.zeros((3, 3, 3), dtype=bool)
    faces[:, 1, 1] = faces[1, :, 1] = faces[1, 1, :] = True
    labels, count = ndimage.label(active, structure=faces)
    return np.asarray(labels).astype(np.int64), int(count)


def cluster_measures(
    volume: npt.NDArray[Any], threshold: float, tail: ClusterTail = "upper"
) -> tuple[list[tuple[int, float]], tuple[int, float]]:
    """(size, mass) of each cluster of ``volume`` (x, y, z), and (largest size, largest mass).

    A cluster is face-connected and strictly above ``threshold`` >= 0; its mass is the sum of the
    excess. The largest size and mass may be of different clusters, and are (0, 0.0) where there
    are none. Two-tailed, clusters below minus the threshold are added after the positive ones.
    """
    if threshold < 0:
        raise ValueError("threshold cannot be negative")
    values = np.asarray(volume).astype(np.float64)
    clusters = []
    for signed in (values, -values) if tail == "two" else (values,):
        labels, count = _label(signed > threshold)
        for label in range(1, count + 1):
            members = signed[labels == label]
            mass = math.fsum(float(member) - threshold for member in members)
            clusters.append((members.size, mass))
    largest_size = max((size for size, _ in clusters), default=0)
    largest_mass = max((mass for _, mass in clusters), default=0.0)
    return clusters, (largest_size, largest_mass)


def tfce(volume: npt.NDArray[Any], E: float, H: float, step: float) -> FloatArray:
    """Threshold-free cluster enhancement (x, y, z) of the positive values of ``volume``.

    At each height h = step, 2 step, ... up to the maximum, each voxel at least h high gains
    size^E h^H step, with the size in voxels of its face-connected component at that height.
    """
    if step <= 0:
        raise ValueError("step must be positive")
    values = np.asarray(volume).astype(np.float64)
    enhanced = np.zeros(values.shape)
    k = 1
    while k * step <= values.max():
        h = k * step
        labels, count = _label(values >= h)
        for label in range(1, count + 1):
            members = labels == label
            enhanced[members] += int(np.count_nonzero(members)) ** E * h**H * step
        k += 1
    return enhanced


# study weights


def inference_discount(name: str) -> float:
    """Return 0.75 for any ``name`` of a fixed-effects inference, whatever its case; otherwise 1."""
    return FIXED_EFFECTS_DISCOUNT if name.lower() in FIXED_EFFECTS_NAMES else 1.0


def study_weights(
    sample_sizes: Sequence[float],
    transform: Transform = "sqrt",
    discounts: Sequence[float] | None = None,
) -> FloatArray:
    """Weights (study,), which sum to the number of studies; exactly 1 where all are equal.

    ``sample_sizes`` (study,) must be positive; ``discounts`` (study,) are factors of the
    transformed sizes, 1 where there are none. With 'none', sizes are not looked at further.
    """
    if transform not in ("sqrt", "linear", "none"):
        raise ValueError(f"transform must be 'sqrt', 'linear' or 'none', got {transform!r}")
    factors = [1.0] * len(sample_sizes) if discounts is None else [float(d) for d in discounts]
    raw = []
    for size, factor in zip(sample_sizes, factors, strict=True):
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"sample size must be positive, got {size}")
        transformed = {"sqrt": math.sqrt(size), "linear": float(size), "none": 1.0}[transform]
        raw.append(transformed * factor)
    if all(weight == raw[0] for weight in raw):
        return np.ones(len(raw))
    total = math.fsum(raw)
    return np.array([len(raw) * weight / total for weight in raw])
