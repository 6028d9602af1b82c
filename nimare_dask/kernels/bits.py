"""The two machine instructions on bits that numpy and numba do not offer by name."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

if os.environ.get("NUMBA_DISABLE_JIT", "0") not in (
    "",
    "0",
):  # the kernels as plain Python, for tests and debuggers

    def count_trailing_zeros(word: np.uint64) -> np.uint64:
        """Position of the lowest bit that is set in `word`, which is not zero."""
        number = int(word)
        return np.uint64((number & -number).bit_length() - 1)

    def count_ones(word: np.uint64) -> np.uint64:
        """Number of bits that are set in `word`."""
        return np.uint64(int(word).bit_count())

else:

    @intrinsic
    def count_trailing_zeros(typing_context: Any, word: Any) -> Any:
        """Position of the lowest bit that is set in `word`, which is not zero."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], context.get_constant(types.boolean, True))

        return types.uint64(types.uint64), generate

    @intrinsic
    def count_ones(typing_context: Any, word: Any) -> Any:
        """Number of bits that are set in `word`."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ctpop(args[0])

        return types.uint64(types.uint64), generate
