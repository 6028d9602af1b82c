"""Null histograms without iterations: every analysis activates a voxel anywhere in the mask.

If foci fell anywhere, the activation of each analysis at a voxel would be a random draw from the
values that it has over the mask, independent of other analyses. The histogram of the statistic
follows from theirs. NiMARE calls this ``null_method="approximate"``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from nimare_dask.kernels.fold import fold_histograms
from nimare_dask.statistic import StudyValues

#: Step of the histograms of ALE.
ALE_STEP = 1e-5

#: Steps of -ln(1 - activation) of the convolution in log space, and where it ends: there the
#: statistic is within 1e-6 of 1.
_LOG_STEP = ALE_STEP / 2
_LOG_END = 14.0
#: Smaller tails are lost in the rounding of the transform.
_LEAST_TAIL = 1e-11


def ale_bins(maxima: NDArray[np.float32]) -> NDArray[np.float64]:
    """Centres of the bins of ALE, from 0 to what all maxima together give, (bin,)."""
    rounded = (np.ceil(maxima.astype(np.float64) / ALE_STEP) * ALE_STEP).astype(np.float32)
    top = 1.0 - float(np.prod(np.float32(1.0) - rounded))
    bins: NDArray[np.float64] = np.round(np.arange(0.0, top + 1.5 * ALE_STEP, ALE_STEP), 5)
    return bins


def ale_fold(
    study: StudyValues, bins: NDArray[np.float64], order: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Null histogram of ALE, folded analysis by analysis.

    Parameters
    ----------
    study
        What each analysis activates.
    bins
        Centres of the bins of ALE, (bin,).
    order
        The order of analyses; the result is put into bins again after each, so it matters.
    """
    scaled = study.values.astype(np.float64) / (bins[1] - bins[0])
    nearest = np.minimum(np.floor(scaled + 0.5).astype(np.int64), len(bins) - 1)
    histograms = np.zeros((len(order), int(nearest[-1]) + 1))
    used, first = np.unique(nearest, return_index=True)
    histograms[:, used] = np.add.reduceat(study.counts[order], first, axis=1) / study.n_voxels
    return fold_histograms(histograms, bins)


def ale_fft(study: StudyValues, bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Null histogram of ALE by convolution in log space, for thousands of analyses.

    -ln(1 - ALE) is a sum over analyses, so its law is the convolution of theirs: pairs of
    analyses, then pairs of pairs, by fast Fourier transform. Nothing is put into bins between, and
    the order does not matter.

    Notes
    -----
    The transform leaves an absolute error of about 1e-15 in every bin, so tails below 1e-11 are
    not known and have that p. Above, p agrees with that of the fold within 1 % for 100 analyses and
    more (2 % for 20); ``tests/nulls/test_approximate.py`` measures it.
    """
    log_values = -np.log1p(-study.values.astype(np.float64)) / _LOG_STEP
    low = np.floor(log_values).astype(np.int64)
    above = log_values - low
    # A value between two steps is shared out so that the mean is kept.
    laws = []
    for counts in study.counts:
        some = np.flatnonzero(counts)
        share = counts[some] / study.n_voxels
        law = np.zeros(int(low[some[-1]]) + 2)
        np.add.at(law, low[some], share * (1.0 - above[some]))
        np.add.at(law, low[some] + 1, share * above[some])
        laws.append(law)
    law = _convolve_all(laws, int(_LOG_END / _LOG_STEP))
    # Each step of the law is spread over its width, since edges of bins fall within steps.
    ends = (np.arange(len(bins)) + 0.5) * (bins[1] - bins[0])
    edges = -np.log1p(-np.minimum(ends, -np.expm1(-_LOG_END)))
    below = np.append(0.0, np.cumsum(law))
    reached = np.interp(np.minimum(edges / _LOG_STEP, len(law)) + 0.5, np.arange(len(below)), below)
    reached[-1] = below[-1]
    weights: NDArray[np.float64] = np.maximum(np.diff(reached, prepend=0.0), 0.0)
    last = int(np.flatnonzero(np.cumsum(weights[::-1])[::-1] >= _LEAST_TAIL)[-1])
    weights[last] = weights[last:].sum()
    weights[last + 1 :] = 0.0
    return weights


def _convolve_all(laws: list[NDArray[np.float64]], most: int) -> NDArray[np.float64]:
    """Convolve laws in pairs; what lies beyond `most` is kept at the end."""
    laws = sorted(laws, key=len)
    while len(laws) > 1:
        alone = laws[-1:] if len(laws) % 2 else []
        pairs = zip(laws[::2], laws[1::2], strict=False)
        laws = [_convolve(one, other, most) for one, other in pairs] + alone
    return laws[0]


def _convolve(
    one: NDArray[np.float64], other: NDArray[np.float64], most: int
) -> NDArray[np.float64]:
    length = len(one) + len(other) - 1
    size = fft.next_fast_len(length, real=True)
    both = fft.irfft(fft.rfft(one, size) * fft.rfft(other, size), size)[:length]
    law: NDArray[np.float64] = np.maximum(both, 0.0)
    if length > most:
        law[most - 1] = law[most - 1 :].sum()
        law = law[:most]
    return law


def poisson_binomial(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Law of the number of active analyses, each with its own probability `q`, (analysis + 1,)."""
    law = np.ones(1)
    for share in q:
        law = np.append(law, 0.0) * (1.0 - share) + np.append(0.0, law) * share
    return law


def weighted_bins(weights: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Centres of the bins of a weighted sum of activations, (bin,)."""
    step = weights.sum() / (n_bins - 1)
    steps = _weight_steps(weights, step)
    n = max(int(steps.sum()), int(np.ceil(weights.sum() / step))) + 1
    bins: NDArray[np.float64] = np.arange(n) * step
    return bins


def weighted_poisson_binomial(
    q: NDArray[np.float64], weights: NDArray[np.float64], bins: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Law of the sum of the weights of active analyses, weights rounded to bins, (bin,)."""
    steps = _weight_steps(weights, bins[1])
    law = np.zeros(len(bins))
    law[0] = 1.0
    end = 1
    for share, step in zip(q, steps, strict=True):
        moved = law[:end] * share
        law[:end] *= 1.0 - share
        law[step : step + end] += moved
        end += int(step)
    return law


def _weight_steps(weights: NDArray[np.float64], step: float) -> NDArray[np.int64]:
    return np.maximum(np.rint(weights / step), 1.0).astype(np.int64)


def sum_fold(study: StudyValues, n_bins: int) -> NDArray[np.float64]:
    """Law of the sum over analyses of whole numbers, (bin,)."""
    law = np.ones(1)
    for counts in study.counts:
        last = int(np.flatnonzero(counts)[-1])
        law = np.convolve(law, counts[: last + 1] / study.n_voxels)
    weights = np.zeros(n_bins)
    weights[: min(len(law), n_bins)] = law[:n_bins]
    return weights
