"""The null histogram of ALE: the histograms of all analyses, folded one after the other.

Two independent activations a and b of different analyses combine to 1 - (1 - a)(1 - b), which is
put into the nearest bin again before the next analysis comes. That makes the result depend on the
order, which is that of sorted ids (NiMARE's).

For one bin b, the bin of the result grows by one as that of a does, except that now and then it
stays: between such places a whole stretch of bins is one multiply-and-add of vectors. Where the
places are depends on the bins alone, so they are found once for all analyses.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Bins that are combined with all bins of an analysis before the next ones are, so that they stay
#: in the nearest cache.
_BLOCK = 2048


@njit(nogil=True, cache=True)
def _combined(a, b, bins, inverse_step):  # type: ignore[no-untyped-def]
    """The bin of two bins together, nearest, ties away from zero."""
    scaled = (1.0 - (1.0 - bins[b]) * (1.0 - bins[a])) * inverse_step
    whole = np.floor(scaled)
    found = np.int64(whole) + (scaled - whole >= 0.5)
    return min(found, bins.shape[0] - 1)


@njit(nogil=True, cache=True)
def _stretches(bins, used):  # type: ignore[no-untyped-def]
    """For each bin that analyses use: where stretches begin whose result is a plus a constant.

    Returns
    -------
    start
        Where the stretches of each bin begin, (bin + 1,).
    begin, offset
        First a of each stretch, and what is added to it, (stretch,).
    """
    inverse_step = 1.0 / (bins[1] - bins[0])
    n_bins, n_study_bins = bins.shape[0], used.shape[0]
    start = np.zeros(n_study_bins + 1, np.int64)
    capacity = 4 * n_study_bins + n_bins
    begin, offset = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    n = 0
    for b in range(n_study_bins):
        a = 0 if used[b] else n_bins
        while a < n_bins:
            if n == begin.shape[0]:
                begin = np.concatenate((begin, np.empty_like(begin)))
                offset = np.concatenate((offset, np.empty_like(offset)))
            shift = _combined(a, b, bins, inverse_step) - a
            begin[n], offset[n] = a, shift
            n += 1
            # Gallop to past the end of the stretch, then bisect: the offset never grows.
            width = 1
            while (
                a + width < n_bins
                and _combined(a + width, b, bins, inverse_step) - a - width == shift
            ):
                width *= 2
            low, high = a + width // 2, min(a + width, n_bins)
            while low + 1 < high:
                middle = (low + high) // 2
                if _combined(middle, b, bins, inverse_step) - middle == shift:
                    low = middle
                else:
                    high = middle
            a = high if width > 1 or high > a + 1 else a + 1
        start[b + 1] = n
    return start, begin[:n], offset[:n]


@njit(nogil=True, cache=True)
def _fold_one(folded, low, high, histogram, start, begin, offset, now, out):  # type: ignore[no-untyped-def]
    """Combine bins `low` to `high` of `folded` with one analysis into `out`, which is zeros."""
    for b in range(histogram.shape[0]):
        now[b] = start[b]
    for block in range(low, high, _BLOCK):
        block_end = min(block + _BLOCK, high)
        for b in range(histogram.shape[0]):
            weight = histogram[b]
            if weight <= 0.0:
                continue
            last = start[b + 1]
            stretch = now[b]
            while stretch + 1 < last and begin[stretch + 1] <= block:
                stretch += 1
            a = block
            while a < block_end:
                end = min(block_end, begin[stretch + 1]) if stretch + 1 < last else block_end
                source = folded[a:end]
                target = out[a + offset[stretch] : end + offset[stretch]]
                for at in range(source.shape[0]):
                    target[at] += weight * source[at]
                a = end
                if a < block_end:
                    stretch += 1
            now[b] = stretch


@njit(nogil=True, cache=True)
def _fold_all(histograms, bins, start, begin, offset):  # type: ignore[no-untyped-def]
    n_bins = bins.shape[0]
    folded, out = np.zeros(n_bins), np.zeros(n_bins)
    folded[: histograms.shape[1]] = histograms[0]
    now = np.empty(histograms.shape[1], np.int64)
    low, high = 0, n_bins
    for analysis in range(1, histograms.shape[0]):
        while low < high and folded[low] == 0.0:
            low += 1
        while high > low and folded[high - 1] == 0.0:
            high -= 1
        _fold_one(folded, low, high, histograms[analysis], start, begin, offset, now, out)
        folded[low:high] = 0.0
        folded, out = out, folded
        low, high = low, n_bins
    return folded


def fold_histograms(
    histograms: NDArray[np.float64], bins: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Fold the histograms of all analyses into that of ALE, in their order.

    Parameters
    ----------
    histograms
        Share of the voxels in each bin, (analysis, bin); bins after the last that any analysis
        needs may be left out.
    bins
        Centres of the bins of ALE, evenly spaced from 0, (bin,).

    Returns
    -------
    weights
        (bin,).

    References
    ----------
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    """
    histograms = np.ascontiguousarray(histograms, np.float64)
    bins = np.ascontiguousarray(bins, np.float64)
    weights: NDArray[np.float64] = _fold_all(
        histograms, bins, *_stretches(bins, (histograms > 0).any(axis=0))
    )
    return weights
