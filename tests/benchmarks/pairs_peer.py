"""What NiMARE does in each job of two groups of analyses: one fresh process each, one thread.

It gets the analyses and the mask that ours gets. Iterations are measured in whole calls of two
numbers of them, so that what a call does once can be told from what an iteration costs.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest.mock import patch

import nimare_dask as nd
from tests.benchmarks.amounts import SAMPLE_SIZE, VOXEL_THRESH, amounts_of
from tests.benchmarks.inputs import Inputs
from tests.benchmarks.jobs import groups
from tests.benchmarks.measure import begin_peak, peak_mb
from tests.parity.peer import image_of, studyset_of


def shuffles(inputs: Inputs) -> dict[str, Any]:
    """One fit of chi-square, and its Monte Carlo FWE of shuffled labels.

    ``watched_seconds`` is the median of single iterations, to hold beside the difference.
    """
    from nimare.correct import FWECorrector
    from nimare.meta.cbma.mkda import MKDAChi2

    amounts, watched = amounts_of(inputs), []
    image = image_of(nd.load_space(inputs.mask))
    iteration = MKDAChi2._run_label_perm_fwe_permutation

    def watch(*args: Any, **settings: Any) -> Any:
        began = time.perf_counter()
        found = iteration(*args, **settings)
        watched.append(time.perf_counter() - began)
        return found

    def fit(*corpora: Any) -> Any:
        return MKDAChi2(mask=image).fit(*(studyset_of([corpus]) for corpus in corpora))

    def correct(result: Any, n_iters: int) -> Any:
        settings = {"voxel_thresh": VOXEL_THRESH, "n_iters": n_iters, "n_cores": 1}
        return FWECorrector(method="montecarlo", **settings).transform(result)

    # The first of everything compiles; a small one is enough for that.
    correct(fit(nd.open_corpus(inputs.few), nd.open_corpus(inputs.other)), 1)
    result = fit(*groups(nd.open_corpus(inputs.corpus), inputs.topic))
    begin_peak()
    with patch.object(MKDAChi2, "_run_label_perm_fwe_permutation", watch):
        by_iterations = _times(lambda n: correct(result, n), amounts.peer_shuffles, 1)
    return {
        "n_selected": len(result.estimator.inputs_["id1"]),
        "n_iters": amounts.pair_null,
        "by_iterations": by_iterations,
        "watched_seconds": median(watched),
        "peak_mb": peak_mb(),
    }


def differences(inputs: Inputs) -> dict[str, Any]:
    """Fits of ALE subtraction, with clusters and without, which is its default."""
    from nimare.meta.cbma.ale import ALESubtraction

    amounts, found = amounts_of(inputs), {}
    image = image_of(nd.load_space(inputs.mask))
    pair = [studyset_of([nd.open_corpus(path)]) for path in (inputs.few, inputs.other)]
    for name, only_voxels in (("clusters", False), ("voxels", True)):
        settings: dict[str, Any] = {"kernel__sample_size": SAMPLE_SIZE, "mask": image, "n_cores": 1}
        settings |= {"voxel_thresh": VOXEL_THRESH, "vfwe_only": only_voxels}

        def fit(n_iters: int, settings: dict[str, Any] = settings) -> Any:
            return ALESubtraction(n_iters=n_iters, **settings).fit(*pair)

        fit(2)
        begin_peak()
        by_iterations = _times(fit, amounts.peer_differences, amounts.peer_pair_runs)
        found[name] = {"by_iterations": by_iterations, "peak_mb": peak_mb()}
    return found


def _times(
    action: Callable[[int], object], counts: tuple[int, int], runs: int
) -> dict[str, dict[str, list[float]]]:
    """Seconds of calls with each number of iterations, in turn."""
    seconds: dict[str, dict[str, list[float]]] = {str(n): {"seconds": []} for n in counts}
    for _ in range(runs):
        for n in counts:
            began = time.perf_counter()
            action(n)
            seconds[str(n)]["seconds"].append(time.perf_counter() - began)
    return seconds


def measure(inputs: Inputs, jobs: list[str]) -> dict[str, Any]:
    """What `jobs` asks for: "permutation", "subtraction"."""
    does = {"permutation": shuffles, "subtraction": differences}
    return {job: does[job](inputs) for job in jobs}


def main() -> None:
    """Answer one request."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    print(json.dumps(measure(Inputs(**request["inputs"]), request["jobs"])))


if __name__ == "__main__":
    main()
