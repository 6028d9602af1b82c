"""What NiMARE does in each job of one group of analyses: one fresh process, one thread.

It gets the analyses and the mask that ours gets. Foci of its iterations are drawn before the clock
starts, which is to its advantage: our time includes the draw.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import nimare_dask as nd
from tests.benchmarks.amounts import (
    KINDS,
    SAMPLE_SIZE,
    VOXEL_THRESH,
    Kind,
    Size,
    amounts_of,
    corpus_of,
)
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.measure import begin_peak, peak_mb
from tests.parity.peer import image_of, studyset_of
from tests.parity.peer_cbma import peer_iteration_seconds

#: Sizes at which the peer is measured; the whole database is too much for it.
SIZES: tuple[Size, ...] = ("few", "many")


def settings_of(kind: Kind) -> dict[str, Any]:
    """What is set of the kernel."""
    return {"sample_size": SAMPLE_SIZE} if kind == "ale" else {}


def iteration(inputs: Inputs, size: Size, studyset: Any, space: nd.Space) -> dict[str, Any]:
    """Median of single iterations of the Monte Carlo FWE of each estimator."""
    n, found = amounts_of(inputs).peer_each[size], {}
    for kind in KINDS:
        begin_peak()
        seconds = peer_iteration_seconds(
            kind, studyset, space, n, voxel_thresh=VOXEL_THRESH, **settings_of(kind)
        )
        found[kind] = {"seconds": seconds, "peak_mb": peak_mb()}
    return found


def approximate(
    inputs: Inputs, size: Size, studyset: Any, space: nd.Space, folder: Path
) -> dict[str, Any]:
    """Fits of ALE with the approximate null, after a small one that compiles."""
    from nimare.meta.cbma.ale import ALE

    def fit(group: Any) -> Any:
        return ALE(kernel__sample_size=SAMPLE_SIZE, mask=image_of(space)).fit(group)

    fit(studyset.slice(list(studyset.ids[:5])))
    begin_peak()
    seconds = []
    for _ in range(amounts_of(inputs).peer_fits[size]):
        began = time.perf_counter()
        result = fit(studyset)
        seconds.append(time.perf_counter() - began)
    z_file = folder / f"peer_group_{size}_z.npy"
    np.save(z_file, result.get_map("z", return_type="array"))
    return {"seconds": seconds, "peak_mb": peak_mb(), "z": str(z_file)}


def measure(inputs: Inputs, jobs: list[str], folder: Path) -> dict[str, Any]:
    """What `jobs` asks for: "iteration", "approximate"; for "command" the file that it reads."""
    found: dict[str, Any] = {job: {} for job in jobs}
    space = nd.load_space(inputs.mask)
    for size in SIZES:
        if jobs == ["command"] and size != "few":
            continue
        corpus = nd.open_corpus(corpus_of(inputs, size))
        studyset = studyset_of([corpus])
        if "iteration" in jobs:
            found["iteration"][size] = iteration(inputs, size, studyset, space)
        if "approximate" in jobs:
            found["approximate"][size] = approximate(inputs, size, studyset, space, folder)
        if "command" in jobs and size == "few":
            found["command"]["studyset"] = str(folder / "few.json")
            studyset.to_nimads(found["command"]["studyset"])
    return found


def main() -> None:
    """Answer one request."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    answer = measure(Inputs(**request["inputs"]), request["jobs"], Path(request["folder"]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
