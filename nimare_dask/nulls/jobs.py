"""What null iterations are to the driver that runs them: batches of them, and what they leave."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.random import PCG64, SeedSequence
from numpy.typing import NDArray

#: What iterations are drawn for; each has a stream of random numbers of its own.
STEPS = {"null": 0, "fit": 1, "threshold": 2, "difference": 3}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What some iterations leave behind.

    Attributes
    ----------
    maxima
        The largest of everything that is compared, float64 (iteration, maximum).
    sums
        Arrays that add up over iterations, integers (any,), by name.
    """

    maxima: NDArray[np.float64]
    sums: Mapping[str, NDArray[np.integer]]

    def __reduce__(self) -> tuple[Any, ...]:
        """Packed: most bins of a histogram are empty, and all batches go to one process."""
        return _unpacked, (self.maxima, {name: _pack(sum_) for name, sum_ in self.sums.items()})


#: Bytes of an array that adds up, in the narrowest type that holds it; that type; its own type.
_Packed = tuple[bytes, str, str]


def _pack(values: NDArray[np.integer]) -> _Packed:
    least, largest = values.min(initial=0), values.max(initial=0)
    narrow = np.min_scalar_type(largest) if least >= 0 else values.dtype
    return zlib.compress(values.astype(narrow).tobytes(), 1), narrow.str, values.dtype.str


def _unpacked(maxima: NDArray[np.float64], packed: Mapping[str, _Packed]) -> Batch:
    sums = {
        name: np.frombuffer(zlib.decompress(data), narrow).astype(own)
        for name, (data, narrow, own) in packed.items()
    }
    return Batch(maxima=maxima, sums=sums)


class Job(Protocol):
    """All that iterations need, small enough to be sent to every worker once."""

    @property
    def random_state(self) -> int:
        """Seed."""
        ...

    @property
    def step(self) -> int:
        """What the iterations are for, one of `STEPS`."""
        ...

    @property
    def labels(self) -> dict[str, list[Any]]:
        """What there is a maximum of: labels of each dimension, the last moves fastest."""
        ...

    @property
    def lengths(self) -> dict[str, int]:
        """Length of each array that adds up over iterations, by name."""
        ...

    def facts(self) -> dict[str, Any]:
        """Settings of it that people are told, and that another run must share."""
        ...

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`; pure."""
        ...

    def task_bytes(self) -> int:
        """About the memory of a running batch."""
        ...

    def to_dataset(self) -> xr.Dataset:
        """All of it, from which it can be made again."""
        ...


def own_fields(job: Any) -> dict[str, Any]:
    """The fields of a job without what it has built from them: what is worth sending."""
    return {field.name: job.__dict__[field.name] for field in fields(job)}


def n_maxima(job: Job) -> int:
    """Maxima of an iteration."""
    return int(np.prod([len(labels) for labels in job.labels.values()]))


def pack_mask(mask: NDArray[np.bool_]) -> tuple[str, NDArray[np.uint8]]:
    """A mask as a variable of a dataset, a bit for each voxel."""
    return "byte", np.packbits(mask)


def unpack_mask(dataset: xr.Dataset, shape: Sequence[int]) -> NDArray[np.bool_]:
    """The mask that :func:`pack_mask` packed, of its shape."""
    bits = np.unpackbits(dataset["mask_bits"].values, count=int(np.prod(shape)))
    return bits.astype(bool).reshape(tuple(shape))


def raw_numbers(job: Job, iteration: int, count: int) -> NDArray[np.uint64]:
    """The random numbers of an iteration, 64 bits each, (count,).

    numpy promises that the stream of the generator stays as it is, so what is made of these numbers
    here is the same with any version of it.
    """
    seeds = SeedSequence(job.random_state, spawn_key=(job.step, iteration))
    return PCG64(seeds).random_raw(count)


def below(raw: NDArray[np.uint64], n: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """Whole numbers from 0 to below `n`, from 64 random bits each: the upper half of raw * n."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    return ((raw >> half) * n + ((raw & low) * n >> half)) >> half
