"""How often family-wise correction finds something where there is nothing.

``python -m tests.studies.false_positives --repeats 1000 --out table.md``

Foci of each corpus fall anywhere in the mask, so whatever is found is a false positive. Every
corpus gets its own fit, its own null and its own correction, as a user would do it, and counts as a
false positive when any voxel has p_fwe < 0.05.

What is expected: p is the share of n null maxima that are at least the observed one, which under
the null is one of n + 1 that might as well have been any of them. So p < 0.05 has probability
(b + 1) / (n + 1), where b maxima at most leave p < 0.05: 10 / 200 with 199 iterations, 5 / 100 with
99. Where maxima tie (counts do), fewer of the n + 1 have p < 0.05; how many is counted for each
corpus, and the number of false positives is that of as many coins, each with its own probability.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

import nimare_dask as nd
from nimare_dask.nulls.observed import observed_measures
from nimare_dask.nulls.relocation import from_dataset
from nimare_dask.space import Space, load_space, voxel_to_mm
from tests.builders import coarse_space
from tests.foci import make_corpus
from tests.reference.nulls import poisson_binomial

#: A false positive is a p below this.
LEVEL = 0.05
#: Share of all outcomes that the interval of counts covers, and that of the rate.
CONFIDENCE = 0.99
#: Foci of an analysis, at least and at most.
FOCI = (8, 12)
INFERENCE = ("voxel", "size", "mass")

ESTIMATORS: dict[str, Any] = {
    "ALE": nd.ALE(kernel=nd.ALEKernel(sample_size=20)),
    "MKDADensity": nd.MKDADensity(),
    "KDA": nd.KDA(),
}


@dataclass(frozen=True)
class Outcome:
    """What came of some corpora, by inference.

    Attributes
    ----------
    found
        Whether something was found, (corpus, inference).
    expected
        How probable that was, (corpus, inference).
    """

    found: NDArray[np.bool_]
    expected: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Corpora."""
        return len(self.found)

    def counts(self) -> list[int]:
        """False positives of each inference."""
        return [int(count) for count in self.found.sum(axis=0)]

    def intervals(self) -> list[tuple[int, int]]:
        """Numbers of false positives that are to be expected, for each inference."""
        return [expected_counts(column) for column in self.expected.T]


def null_corpus(n_analyses: int, space: Space, seed: int) -> xr.Dataset:
    """Analyses of 8 to 12 foci that fall anywhere in the mask, as those of the null do."""
    rng = np.random.default_rng([n_analyses, seed])
    sizes = rng.integers(*FOCI, size=n_analyses, endpoint=True)
    voxels = space.voxel_ijk[rng.integers(space.n_voxels, size=sizes.sum())]
    return make_corpus(np.split(voxel_to_mm(voxels, space.affine), np.cumsum(sizes)[:-1]))


def is_below(maxima: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each of n + 1 maxima, held against the n others, has p < LEVEL, (maximum,).

    A maximum of 0 is no cluster at all, which has p = 1.
    """
    ascending = np.sort(maxima)
    n = len(maxima) - 1
    others = n - np.searchsorted(ascending, maxima, side="left")  # that are at least as large
    return (np.maximum(others, 1) / n < LEVEL) & (maxima > 0)


def expected_counts(probabilities: NDArray[np.float64]) -> tuple[int, int]:
    """The fewest and the most of independent events, outside of which is 1 - CONFIDENCE at most."""
    below = np.cumsum(poisson_binomial(probabilities))
    rest = (1.0 - CONFIDENCE) / 2
    fewest = int(np.searchsorted(below, rest, side="right"))
    return fewest, int(np.searchsorted(below, 1.0 - rest, side="left"))


def correct_one(
    estimator: Any, corpus: xr.Dataset, space: Space, n_iters: int, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether anything is found in a corpus, and how probable that was, both (inference,)."""
    maps = estimator.fit(corpus, space=space)
    null = nd.monte_carlo_null(
        estimator,
        corpus,
        space=space,
        n_iters=n_iters,
        random_state=seed,
        maps=maps,
        batch=-(-n_iters // 2),  # one for each of two threads
    )
    corrected = nd.correct_fwe(maps, null)
    assert tuple(corrected["inference"].values.tolist()) == INFERENCE
    found = (corrected["p_fwe"].values < LEVEL).any(axis=1)
    measures = observed_measures(from_dataset(null), maps)
    below = np.array(
        [
            is_below(np.append(null["null_max"].values[:, row], measures[name].max()))
            for row, name in enumerate(INFERENCE)
        ]
    )
    assert (below[:, -1] == found).all(), "p_fwe is not the rank of the observed maximum"
    return found, below.mean(axis=1)


def study(
    name: str,
    n_analyses: int,
    space: Space,
    *,
    repeats: int,
    n_iters: int,
    report: Callable[[int], None] | None = None,
) -> Outcome:
    """Correct `repeats` corpora in which there is nothing, numbered from 0."""
    found, expected = [], []
    with dask.config.set(scheduler="threads", num_workers=2):
        for seed in range(repeats):
            corpus = null_corpus(n_analyses, space, seed)
            one = correct_one(ESTIMATORS[name], corpus, space, n_iters, seed)
            found.append(one[0])
            expected.append(one[1])
            if report:
                report(seed + 1)
    return Outcome(np.array(found), np.array(expected))


def table(outcomes: dict[tuple[str, int], Outcome]) -> Iterator[str]:
    """Lines of a Markdown table."""
    sure = f"{CONFIDENCE:.0%}"
    heads = ["estimator", "analyses", "inference", "corpora", "false positives", "rate"]
    heads += [f"{sure} interval of the rate", "expected rate", f"expected number, {sure}", "within"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for (name, n_analyses), outcome in outcomes.items():
        for row, inference in enumerate(INFERENCE):
            count, (fewest, most) = outcome.counts()[row], outcome.intervals()[row]
            test = stats.binomtest(count, outcome.n)
            rate = test.proportion_ci(CONFIDENCE, method="exact")
            cells = [name, n_analyses, inference, outcome.n, count]
            cells += [f"{count / outcome.n:.1%}", f"{rate.low:.1%} to {rate.high:.1%}"]
            cells += [f"{outcome.expected[:, row].mean():.1%}", f"{fewest} to {most}"]
            cells += ["yes" if fewest <= count <= most else "NO"]
            yield f"| {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study, print the table and write it; 1 where a count is not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.false_positives")
    parser.add_argument("--repeats", type=int, default=1000, help="corpora of each kind (1000)")
    parser.add_argument("--n-iters", type=int, default=199, help="null iterations of each (199)")
    parser.add_argument("--analyses", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--estimators", nargs="+", choices=list(ESTIMATORS), default=[*ESTIMATORS])
    parser.add_argument("--mm", type=int, choices=[2, 4], default=4, help="grid (4)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    chosen = parser.parse_args(arguments)
    space = coarse_space() if chosen.mm == 4 else load_space("mni152_2mm")
    began = time.perf_counter()
    outcomes = {}
    for name in chosen.estimators:
        for n_analyses in chosen.analyses:

            def report(done: int, name: str = name, n_analyses: int = n_analyses) -> None:
                if done % 50 == 0 or done == chosen.repeats:
                    print(f"{name}, {n_analyses} analyses: {done} corpora", file=sys.stderr)

            outcomes[name, n_analyses] = study(
                name,
                n_analyses,
                space,
                repeats=chosen.repeats,
                n_iters=chosen.n_iters,
                report=report,
            )
    lines = [
        *table(outcomes),
        "",
        f"nimare_dask {nd.__version__}, {space.n_voxels:,} voxels of {chosen.mm} mm, analyses of "
        f"{FOCI[0]} to {FOCI[1]} foci anywhere in the mask, {chosen.n_iters} iterations, a false "
        f"positive being any voxel with p_fwe < {LEVEL:g}; {time.perf_counter() - began:,.0f} s. "
        "Where maxima are whole numbers and tie, the test is the stricter, and the expected rate "
        "says by how much.",
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text, encoding="utf-8")
    return int(any("| NO |" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
