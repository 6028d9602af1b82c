"""Looking up what belongs to the level of each of many values: the way back from a sort."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Bits of a float32 that are left out to find its bucket: its exponent and 12 bits of its mantissa
#: remain, so a bucket holds one or two of the 50,000 levels of a map of counts.
_SHIFT = np.uint32(11)


@njit(nogil=True, cache=True)
def _look_up(bits, levels, outcome, first, base, start, out):  # type: ignore[no-untyped-def]
    # Levels before `first` share one outcome; only those from there on are in the table.
    n = levels.shape[0]
    n_buckets = start.shape[0]
    bucket = 0
    for level in range(first, n):
        while bucket <= np.int64(levels[level] >> _SHIFT) - base:
            start[bucket] = level
            bucket += 1
    while bucket < n_buckets:
        start[bucket] = n
        bucket += 1
    plateau = levels[first]
    for place in range(bits.shape[0]):
        if bits[place] < plateau:
            out[place] = outcome[0]
            continue
        level = start[min(np.int64(bits[place] >> _SHIFT) - base, n_buckets - 1)]
        while level < n and levels[level] < bits[place]:
            level += 1
        if level < n and levels[level] == bits[place]:
            out[place] = outcome[level]
        else:
            out[place] = np.nan


def look_up(
    values: NDArray[np.float32],
    levels: NDArray[np.float32],
    outcome: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write, for each value, the outcome of the level that equals it.

    The smallest levels of a corrected map often share one outcome, and hold most of its voxels;
    those are not looked up at all.

    Parameters
    ----------
    values
        Each equal to a level, or NaN, which stays NaN, (value,).
    levels
        Distinct, ascending, not negative, (level,).
    outcome
        What belongs to each level, (level,).
    out
        Where to write, (value,).
    """
    if len(levels) == 0:
        out[:] = np.nan
        return
    # The bits of floats that are not negative are in the order of the floats.
    bits, level_bits = values.view(np.uint32), levels.view(np.uint32)
    differs = outcome != outcome[0]
    first = int(np.argmax(differs)) if differs.any() else len(levels) - 1
    base = int(level_bits[first] >> _SHIFT)
    start = np.empty(int(level_bits[-1] >> _SHIFT) - base + 2, np.int32)
    _look_up(bits, level_bits, outcome, first, base, start, out)
