"""Vectors of 32 bytes, the instructions that the overlay of footprints is made of.

Plain loops over a few lanes are not reliably turned into one instruction each: the compiler cannot
know that two slices of arrays do not overlap. These say it outright, for int32 (8 lanes) and int16
(16 lanes).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

#: Bytes of a vector, which every x86 of the last ten years has (two vectors on ARM).
VECTOR_BYTES = 32

if os.environ.get("NUMBA_DISABLE_JIT", "0") not in (
    "",
    "0",
):  # the kernels as plain Python, for tests and debuggers

    def n_lanes(array: NDArray[Any]) -> int:
        """Lanes of a vector of values of `array`."""
        return VECTOR_BYTES // array.itemsize

    def add_lanes(target: NDArray[Any], at: int, source: NDArray[Any], start: int) -> None:
        """Add the lanes of `source` from `start` to those of `target` from `at`."""
        n = n_lanes(target)
        target[at : at + n] += source[start : start + n]

    def raise_lanes(
        own: NDArray[Any],
        total: NDArray[Any],
        base: int,
        at: int,
        source: NDArray[Any],
        start: int,
    ) -> None:
        """Raise the lanes of `own` from `at` to `base` + `source`; add what that adds to `total`.

        What is below `base` in `own` counts as `base`.
        """
        n = n_lanes(own)
        old = np.maximum(own[at : at + n], own.dtype.type(base))
        higher = np.maximum(old, source[start : start + n] + own.dtype.type(base))
        total[at : at + n] += higher - old
        own[at : at + n] = higher

else:
    from llvmlite import ir

    def _vector(kind: Any) -> Any:
        bits = kind.dtype.bitwidth
        return ir.VectorType(ir.IntType(bits), 8 * VECTOR_BYTES // bits)

    def _larger(builder: Any, one: Any, other: Any) -> Any:
        return builder.select(builder.icmp_signed(">", one, other), one, other)

    def _splat(builder: Any, kind: Any, value: Any) -> Any:
        """A vector with `value` in every lane."""
        narrow = builder.trunc(value, kind.element)
        first = builder.insert_element(
            ir.Constant(kind, ir.Undefined), narrow, ir.Constant(ir.IntType(32), 0)
        )
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
        return builder.shuffle_vector(first, first, everywhere)

    class _Lanes:
        """The lanes of one array from one place on; rows begin anywhere, so nothing is aligned."""

        def __init__(self, context: Any, builder: Any, kind: Any, array: Any, at: Any) -> None:
            data = context.make_array(kind)(context, builder, array).data
            self.type, self.builder = _vector(kind), builder
            self.align = kind.dtype.bitwidth // 8
            self.pointer = builder.bitcast(builder.gep(data, [at]), self.type.as_pointer())

        def load(self) -> Any:
            return self.builder.load(self.pointer, align=self.align)

        def store(self, value: Any) -> None:
            self.builder.store(value, self.pointer, align=self.align)

    @intrinsic
    def n_lanes(typing_context: Any, array: Any) -> Any:
        """Lanes of a vector of values of `array`."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            count = _vector(signature.args[0]).count
            return context.get_constant(types.intp, count)

        return types.intp(array), generate

    @intrinsic
    def add_lanes(typing_context: Any, target: Any, at: Any, source: Any, start: Any) -> Any:
        """Add the lanes of `source` from `start` to those of `target` from `at`."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            into = _Lanes(context, builder, signature.args[0], args[0], args[1])
            more = _Lanes(context, builder, signature.args[2], args[2], args[3])
            into.store(builder.add(into.load(), more.load()))
            return context.get_dummy_value()

        return types.void(target, types.intp, source, types.intp), generate

    @intrinsic
    def raise_lanes(
        typing_context: Any, own: Any, total: Any, base: Any, at: Any, source: Any, start: Any
    ) -> Any:
        """Raise the lanes of `own` from `at` to `base` + `source`; add what that adds to `total`.

        What is below `base` in `own` counts as `base`.
        """

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kinds = signature.args
            raised = _Lanes(context, builder, kinds[0], args[0], args[3])
            summed = _Lanes(context, builder, kinds[1], args[1], args[3])
            new = _Lanes(context, builder, kinds[4], args[4], args[5]).load()
            floor = _splat(builder, raised.type, args[2])
            old = _larger(builder, raised.load(), floor)
            higher = _larger(builder, old, builder.add(new, floor))
            summed.store(builder.add(summed.load(), builder.sub(higher, old)))
            raised.store(higher)
            return context.get_dummy_value()

        return types.void(own, total, types.intp, types.intp, source, types.intp), generate
