"""What an estimator is to a null: footprints of whole numbers, and what their sums stand for.

ALE, MKDA and KDA lay footprints of whole numbers over the brain and add them up over analyses (see
``kernels/overlay.py``). A statistic that is never decreasing in that sum is computed, compared,
binned and thresholded on the sum itself, exactly; only what is shown to people is turned into the
statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.kernels import overlay, tally

_HIGHEST = np.iinfo(np.int32).max
#: Larger than any sum.
_BEYOND = 1 << 62
#: No footprint needs finer units than this: 2 ** -36 is below the rounding of float32.
_MOST_BITS = 36
#: Where the largest value of all footprints would have fewer bits than this, sums are int64 and it
#: has as many as float32.
_FEWEST_BITS, _ENOUGH_BITS = 20, 23


@dataclass(frozen=True, kw_only=True)
class StudyValues:
    """How much of the mask each analysis activates, and how strongly.

    Attributes
    ----------
    values
        The values that modelled activation can have, ascending from 0, float32 (value,).
    counts
        Voxels of the mask that have each value, (analysis, value).
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int64]

    @property
    def n_voxels(self) -> int:
        """Voxels of the mask."""
        return int(self.counts[0].sum())

    def maxima(self) -> NDArray[np.float32]:
        """The largest activation of each analysis inside the mask, (analysis,)."""
        last = self.counts.shape[1] - 1 - (self.counts[:, ::-1] > 0).argmax(axis=1)
        maxima: NDArray[np.float32] = self.values[last]
        return maxima


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A sum of footprints and what it stands for.

    Attributes
    ----------
    footprints
        See kernels.overlay.
    footprint_of
        Footprint of each analysis, int32 (analysis,).
    union
        Whether the largest counts where foci of one analysis overlap; else all do.
    scale
        A sum of `scale` stands for 1.
    wide
        Whether sums need int64.
    probability
        Whether sums are -ln of the probability of no activation, so that the statistic is
        ``1 - exp(-sum / scale)``; else it is ``sum / scale``.
    bins
        Centres of the bins of its null histogram, evenly spaced from 0, float64 (bin,).
    """

    footprints: overlay.Footprints
    footprint_of: NDArray[np.int32]
    union: bool
    scale: float
    wide: bool
    probability: bool
    bins: NDArray[np.float64]

    @property
    def sum_type(self) -> np.dtype[np.signedinteger]:
        """Type of the sums."""
        return np.dtype(np.int64) if self.wide else self.footprints.values.dtype

    def sums(
        self,
        ijk: NDArray[np.int32],
        owner: NDArray[np.int32],
        place: overlay.Place,
        out: NDArray[np.signedinteger] | None = None,
    ) -> NDArray[np.signedinteger]:
        """Sum footprints around foci, of :attr:`sum_type`, (voxel,).

        Parameters
        ----------
        ijk
            Voxel indices, (focus, axis), one analysis after the other.
        owner
            Analysis of each focus, (focus,).
        place
            The mask.
        out
            Where to write, when there is such an array already.
        """
        if out is None:
            out = np.empty(int(place.first_voxel[-1]), self.sum_type)
        overlay.sum_footprints(
            ijk, owner, self.footprint_of, self.footprints, self.union, place, out
        )
        return out

    def values(self, sums: NDArray[np.signedinteger]) -> NDArray[np.float32]:
        """The statistic that sums stand for, of their shape."""
        scaled = sums.astype(np.float64) / self.scale
        return (-np.expm1(-scaled) if self.probability else scaled).astype(np.float32)

    def to_variables(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Variables and settings from which :meth:`from_variables` makes it again."""
        footprints = self.footprints
        variables = {
            "footprint_value": ("lane", footprints.values),
            "footprint_plane": (("plane", "plane_part"), footprints.plane),
            "footprint_first_plane": ("footprint", footprints.first_plane),
            "footprint_reach": (("footprint", "axis"), footprints.reach),
            "analysis_footprint": ("analysis", self.footprint_of),
            "bin_center": ("bin", self.bins),
        }
        settings = {
            "union": self.union,
            "scale": self.scale,
            "wide": self.wide,
            "probability": self.probability,
            "largest": footprints.largest,
        }
        return variables, settings

    @staticmethod
    def from_variables(dataset: xr.Dataset, settings: Mapping[str, Any]) -> Statistic:
        """Make a statistic again from what :meth:`to_variables` gave."""
        values = {str(name): dataset[name].values for name in dataset.variables}
        return Statistic(
            footprints=overlay.Footprints(
                values=values["footprint_value"],
                plane=values["footprint_plane"],
                first_plane=values["footprint_first_plane"],
                reach=values["footprint_reach"],
                largest=settings["largest"],
                highest=int(np.iinfo(values["footprint_value"].dtype).max),
            ),
            footprint_of=values["analysis_footprint"],
            union=settings["union"],
            scale=settings["scale"],
            wide=settings["wide"],
            probability=settings["probability"],
            bins=values["bin_center"],
        )

    @cached_property
    def steps(self) -> tally.Steps:
        """The bins as ranges of sums: a statistic is in the nearest bin, ties away from zero."""
        step = self.bins[1] - self.bins[0]
        return self.ranges((np.arange(1, len(self.bins)) - 0.5) * step)

    def ranges(self, heights: NDArray[np.float64]) -> tally.Steps:
        """Ranges of sums that begin where each height is reached; the first is below all."""
        first = self.first_sums(heights)
        # What no sum reaches (bins of ALE go beyond 1) would stretch the table of the ranges.
        return tally.steps_at(np.append(0, first[first < _BEYOND]))

    def first_sums(self, heights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Find the smallest sum whose statistic is at least each height, (height,)."""
        low = np.full(np.shape(heights), -1, np.int64)
        high = np.full(np.shape(heights), _BEYOND, np.int64)
        while (high - low > 1).any():
            middle = (low + high) // 2
            reaches = self.values(middle).astype(np.float64) >= heights
            low, high = np.where(reaches, low, middle), np.where(reaches, middle, high)
        return high

    def last_sum(self, height: float) -> int:
        """Find the largest sum whose statistic is not above a height; -1 when there is none."""
        just_above = np.nextafter(np.float64(height), np.inf)
        return int(self.first_sums(np.array([just_above]))[0]) - 1


def whole_numbers(
    footprints: Sequence[NDArray[np.float64]], footprint_of: NDArray[np.int32]
) -> tuple[list[NDArray[np.signedinteger]], float, bool]:
    """Turn footprints into whole numbers that are as fine as fits.

    Parameters
    ----------
    footprints
        Values that are not negative.
    footprint_of
        Footprint of each analysis or, where the foci of an analysis add up, of each focus.

    Returns
    -------
    footprints
        The same in units of 1 / scale, rounded; int16 or int32.
    scale
        A power of two; counts stay counts.
    wide
        Whether their sum over all analyses needs int64.
    """
    most = np.array([footprint.max() for footprint in footprints])
    largest, total = float(most.max()), float(most[footprint_of].sum())
    whole = all(np.array_equal(footprint, np.rint(footprint)) for footprint in footprints)
    if whole and total <= _HIGHEST:
        kind = np.int16 if total <= np.iinfo(np.int16).max else np.int32
        return [footprint.astype(kind) for footprint in footprints], 1.0, False
    bits = min(_MOST_BITS, int(np.floor(np.log2((_HIGHEST - len(footprint_of)) / total))))
    wide = largest * 2.0**bits < 2.0**_FEWEST_BITS
    if wide:
        bits = int(np.floor(_ENOUGH_BITS - np.log2(largest)))
    scale = float(2.0**bits)
    return [np.rint(footprint * scale).astype(np.int32) for footprint in footprints], scale, wide
