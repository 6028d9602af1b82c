"""Looking up what belongs to the level of each of many values: the way back from a sort."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Bits of a float32 that are left out to find its bucket: its exponent and 12 bits of its mantissa
#: remain, so a bucket holds one or two of the 50,000 levels of a map of counts.
_SHIFT = np.uint32(11)
_SENTINELS = 4


@njit(nogil=True, cache=True)
def _look_up(bits, levels, outcome, low, start, out):  # type: ignore[no-untyped-def]
    # `levels` ends with sentinels that are above every value and have no outcome.
    base = np.int64(levels[low] >> _SHIFT)
    last = start.shape[0] - 1
    bucket = 0
    for level in range(low, levels.shape[0] - _SENTINELS):
        while bucket <= np.int64(levels[level] >> _SHIFT) - base:
            start[bucket] = level
            bucket += 1
    while bucket <= last:
        start[bucket] = levels.shape[0] - _SENTINELS
        bucket += 1
    smallest = levels[low]
    for place in range(bits.shape[0]):
        value = max(bits[place], smallest)
        level = start[min(np.int64(value >> _SHIFT) - base, last)]
        # A bucket holds few levels: three steps without a branch that could be guessed wrong.
        level += levels[level] < value
        level += levels[level] < value
        level += levels[level] < value
        while levels[level] < value:
            level += 1
        if levels[level] == value:
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
    # Levels before the last of those that share the first outcome are that one, for all purposes.
    differs = outcome != outcome[0]
    low = int(np.argmax(differs)) - 1 if differs.any() else len(levels) - 1
    # The bits of floats that are not negative are in the order of the floats.
    padded = np.full(len(levels) + _SENTINELS, 0xFFFFFFFF, np.uint32)
    padded[: len(levels)] = levels.view(np.uint32)
    n_buckets = int(padded[len(levels) - 1] >> _SHIFT) - int(padded[low] >> _SHIFT) + 2
    start = np.empty(n_buckets, np.int32)
    _look_up(values.view(np.uint32), padded, outcome, low, start, out)
