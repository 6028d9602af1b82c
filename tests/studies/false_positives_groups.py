"""How often family-wise correction finds a difference between groups that chance made.

``python -m tests.studies.false_positives_groups --out table.md``

The studies are real, so foci lie where foci lie; which studies are a group is drawn at random, so
any difference between a group and other studies is a false positive: a group counts when any voxel
has p_fwe < 0.05. Everything but "measured" goes through the public functions, as users do it.

- one null: many groups of a few sizes against the rest of the database, as features of it, all
  corrected with one ``feature_null``.
- pairs: two groups by ``fit`` of MKDAChi2 or ALESubtraction, each with a null of its own.
- measured: very many groups of one pool of studies, measured with the kernel of null iterations
  instead of being fitted; that fits have the same maxima, to the bit, is seen on some of them.
- annotations: features of many sizes at once, each annotation with a ``feature_null`` of its own.

What is expected: p is the share of n null maxima that are at least the observed one. A null of its
own makes each group a coin of known probability (see ``false_positives``). Groups that share a null
share its luck too: where k of its n maxima have p < 0.05 against the others, the number of false
positives of groups is beta-binomial, with k and n + 1 - k. Features of an annotation share one as
well, so over all features the interval is as much wider as annotations scatter more than coins.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import csc_matrix

import nimare_dask as nd
from nimare_dask.kernels import exceed, prefixes
from nimare_dask.nulls.label_counts import LabelCounts
from nimare_dask.nulls.observed import chi2_measures, difference_measures
from nimare_dask.nulls.stored import job_of
from nimare_dask.nulls.subtraction import Subtraction
from nimare_dask.space import Space, load_space
from nimare_dask.stats.empirical import p_of_maxima
from tests.benchmarks.report import machine
from tests.builders import coarse_space
from tests.reference.nulls import poisson_binomial
from tests.studies.false_positives import (
    CONFIDENCE,
    INFERENCE,
    LEVEL,
    Outcome,
    is_below,
)

Report = Callable[[str], None]

EFFECT = "association"
ESTIMATORS: dict[str, Any] = {
    "MKDAChi2": nd.MKDAChi2(),
    "ALESubtraction": nd.ALESubtraction(kernel=nd.ALEKernel(sample_size=20)),
}


@dataclass(frozen=True, kw_only=True)
class Design:
    """Sizes of groups, iterations of nulls and the grid of each part.

    Attributes
    ----------
    sizes, one_null_iters, one_null_mm
        Of the groups that share one null.
    pairs, pair_iters
        Of the two groups of each estimator.
    features, feature_iters
        Of the features of an annotation.
    """

    sizes: tuple[int, ...]
    one_null_iters: int
    one_null_mm: int
    pairs: dict[str, tuple[tuple[int, int], ...]]
    pair_iters: dict[str, int]
    features: tuple[int, ...]
    feature_iters: int


REAL = Design(
    sizes=(50, 200, 700),
    one_null_iters=10_000,
    one_null_mm=2,
    pairs={"MKDAChi2": ((50, 950), (200, 800)), "ALESubtraction": ((20, 20), (50, 50))},
    pair_iters={"MKDAChi2": 199, "ALESubtraction": 500},
    features=tuple(np.geomspace(10, 12_000, 24).round().astype(int).tolist()),
    feature_iters=199,
)
#: For 300 simulated analyses: everything is there, and nothing takes long.
SMALL = Design(
    sizes=(10, 100),
    one_null_iters=499,
    one_null_mm=4,
    pairs={"MKDAChi2": ((10, 50),), "ALESubtraction": ((5, 5),)},
    pair_iters={"MKDAChi2": 39, "ALESubtraction": 39},
    features=(5, 20, 80, 200),
    feature_iters=39,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: false positives among `n`, how many were to be expected, and how sure.

    `low` and `high` are the interval of the rate, `fewest` and `most` that of the number.
    """

    what: str
    sizes: str
    inference: str
    n: int
    count: int
    low: float
    high: float
    expected: float
    fewest: int
    most: int

    @property
    def within(self) -> bool:
        """Whether the number is one of those that are to be expected."""
        return self.fewest <= self.count <= self.most


@dataclass(frozen=True)
class Annotated:
    """What came of some annotations; both (annotation, feature, inference), as in `Outcome`."""

    found: NDArray[np.bool_]
    expected: NDArray[np.float64]


def real_corpus(data: Path) -> xr.Dataset:
    """All analyses of Neurosynth that have foci, from the folder that holds neurosynth/."""
    files = data / "neurosynth" / "data-neurosynth_version-7_"
    corpus = nd.read_neurosynth(f"{files}coordinates.tsv.gz", f"{files}metadata.tsv.gz")
    return nd.select(corpus, corpus["analysis_n_foci"].values > 0)


def small_corpus() -> xr.Dataset:
    """Simulated analyses for `SMALL`."""
    return nd.simulate_corpus(300, n_foci=3000, space=coarse_space())


def random_pair(
    corpus: xr.Dataset, sizes: tuple[int, int], seed: int
) -> tuple[xr.Dataset, xr.Dataset]:
    """Two groups of random analyses that share none."""
    rng = np.random.default_rng([*sizes, seed])
    n = corpus.sizes["analysis"]
    drawn = rng.choice(n, sum(sizes), replace=False)
    first, second = drawn[: sizes[0]], drawn[sizes[0] :]
    everyone = np.arange(n)
    return (
        nd.select(corpus, np.isin(everyone, first)),
        nd.select(corpus, np.isin(everyone, second)),
    )


def annotate(corpus: xr.Dataset, sizes: Sequence[int], seed: int) -> xr.Dataset:
    """The corpus with one feature for each of `sizes`, which random analyses have."""
    rng = np.random.default_rng([len(sizes), seed])
    n = corpus.sizes["analysis"]
    analysis = np.concatenate([rng.choice(n, size, replace=False) for size in sizes])
    feature = np.repeat(np.arange(len(sizes)), sizes)
    annotated: xr.Dataset = nd.corpus.build(
        analysis_id=corpus["analysis_id"].values,
        study_id=corpus["study_id"].values,
        n_foci=corpus["analysis_n_foci"].values,
        xyz=corpus["focus_xyz"].values,
        focus_space=corpus["focus_space"].values,
        spaces=corpus.attrs["spaces"],
        feature=[f"random__{place:05d}" for place in range(len(sizes))],
        weights=csc_matrix((np.ones(len(analysis)), (analysis, feature)), (n, len(sizes))),
    )
    return annotated


def feature_maps(corpus: xr.Dataset, space: Space) -> xr.Dataset:
    """What is needed of the maps of all features, lazy."""
    maps: xr.Dataset = ESTIMATORS["MKDAChi2"].fit_features(corpus, space=space, chunks="feature")
    return maps[["z"]].sel(effect=[EFFECT])


def features_found(maps: xr.Dataset, null: xr.Dataset) -> NDArray[np.bool_]:
    """Whether anything is found for each feature, (feature, inference)."""
    corrected = nd.correct_fwe(maps, null)["p_fwe"].sel(effect=EFFECT)
    assert tuple(corrected["inference"].values.tolist()) == INFERENCE
    found = (corrected < LEVEL).any("voxel").transpose("feature", "inference")
    return np.asarray(found.values)


def one_null(
    corpus: xr.Dataset,
    sizes: Sequence[int],
    space: Space,
    *,
    groups: int,
    n_iters: int,
    seed: int,
    report: Report | None = None,
) -> Iterator[Row]:
    """Correct so many random groups of each size with one null that all of them share."""
    annotated = annotate(corpus, np.repeat(sizes, groups).tolist(), seed)
    null = nd.feature_null(annotated, sizes=sizes, n_iters=n_iters, space=space, random_state=seed)
    if report:
        report(f"one null: {n_iters:,} iterations")
    found = features_found(feature_maps(annotated, space), null)
    if report:
        report(f"one null: {len(found):,} groups")
    for place, size in enumerate(sizes):
        maxima = null["null_max"].sel(size=size, effect=EFFECT).values
        of_size = found[place * groups : (place + 1) * groups]
        rest = corpus.sizes["analysis"] - size
        yield from shared_rows("MKDAChi2, one null", (size, rest), of_size, maxima)


def shared_rows(
    what: str, sizes: tuple[int, int], found: NDArray[np.bool_], maxima: NDArray[np.float64]
) -> Iterator[Row]:
    """Lines of groups (group, inference) that share the maxima (iteration, inference) of a null."""
    n, n_iters, rest = len(found), len(maxima), (1 - CONFIDENCE) / 2
    for column, inference in enumerate(INFERENCE):
        count, k = int(found[:, column].sum()), int(is_below(maxima[:, column]).sum())
        law = stats.betabinom(n, max(k, 1), n_iters + 1 - k)
        yield Row(
            what=what,
            sizes=f"{sizes[0]:,} and {sizes[1]:,}",
            inference=inference,
            n=n,
            count=count,
            **_interval(count, n),
            expected=k / (n_iters + 1),
            fewest=int(law.ppf(rest)),
            most=int(law.ppf(1 - rest)),
        )


def measured_groups(
    corpus: xr.Dataset,
    sizes: tuple[int, int],
    space: Space,
    *,
    groups: int,
    n_iters: int,
    seed: int,
    fits: int = 20,
) -> Iterator[Row]:
    """Measure random groups of one pool as null iterations are, and fit the first of them."""
    chi2, both = ESTIMATORS["MKDAChi2"], random_pair(corpus, sizes, seed)
    null = nd.label_permutation_null(chi2, *both, space=space, n_iters=n_iters, random_state=seed)
    job = job_of(null)
    assert isinstance(job, LabelCounts)
    rng = np.random.default_rng([*sizes, seed, 1])
    drawn = [rng.choice(sum(sizes), sizes[0], replace=False) for _ in range(groups)]
    measured = _measure(job, drawn)
    # Iterations number analyses in the order of their names.
    names = np.sort(np.concatenate([part["analysis_id"].values for part in both]))
    of_pool = np.isin(corpus["analysis_id"].values, names)
    for group, largest in zip(drawn[:fits], measured, strict=False):
        has = np.isin(corpus["analysis_id"].values, names[group])
        first, second = nd.select(corpus, has), nd.select(corpus, of_pool & ~has)
        fitted = observed_maxima(chi2.fit(first, second, space=space), null)
        assert (fitted == largest).all(), "a fit has other maxima than an iteration"
    maxima = null["null_max"].sel(effect=EFFECT).values
    p = [p_of_maxima(*each) for each in zip(measured.T, maxima.T, strict=True)]
    found = (np.array(p).T < LEVEL) & (measured > 0)
    yield from shared_rows("MKDAChi2, measured", sizes, found, maxima)


def _measure(job: LabelCounts, drawn: Sequence[NDArray[np.integer]]) -> NDArray[np.float64]:
    """Maxima of the association of groups, (group, inference)."""
    tables, rooms = job.tables(), exceed.rooms_for(job.mask)
    room = np.empty((3, len(tables.margins.n_active) + 1), np.int32)
    effects = np.array([exceed.EFFECTS.index(EFFECT)])
    maxima = np.zeros((len(drawn), 1, 1, len(INFERENCE)))
    for group, out in zip(drawn, maxima, strict=True):
        order = group.astype(np.int32)
        told = (effects, tables.margins, job.chi2_thresh, True, rooms, room, out)
        prefixes.measure_prefixes(tables.rows, order, job.groups, *told)
    return maxima[:, 0, 0]


def observed_maxima(maps: xr.Dataset, null: xr.Dataset) -> NDArray[np.float64]:
    """The largest of everything that a null has maxima of, (..., inference), of fitted maps."""
    job = job_of(null)
    if isinstance(job, Subtraction):
        measures = difference_measures(job, maps["stat"].values[0])
        return np.array([measures[name].max() for name in INFERENCE])
    assert isinstance(job, LabelCounts)
    z = maps["z"].sel(effect=EFFECT).values
    largest = np.empty((*z.shape[:-1], len(INFERENCE)))
    for column, name in enumerate(INFERENCE):
        measure = chi2_measures(job.mask, job.chi2_thresh, name)
        for at in np.ndindex(z.shape[:-1]):
            largest[(*at, column)] = measure(z[at]).max()
    return largest


def below(
    observed: NDArray[np.float64], maxima: NDArray[np.float64], found: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How probable it was that something is found, (inference,).

    Parameters
    ----------
    observed
        The largest of the fitted maps, (inference,).
    maxima
        Those of the null, (iteration, inference).
    found
        Whether p_fwe says that something is found, (inference,).
    """
    ranked = np.array(
        [is_below(np.append(*both)) for both in zip(maxima.T, observed, strict=True)], bool
    )
    assert (ranked[:, -1] == found).all(), "p_fwe is not the rank of the observed maximum"
    return np.asarray(ranked.mean(axis=1))


def correct_pair(
    estimator: Any, first: xr.Dataset, second: xr.Dataset, space: Space, n_iters: int, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether any difference is found, and how probable that was, both (inference,)."""
    null = nd.label_permutation_null(
        estimator,
        first,
        second,
        space=space,
        n_iters=n_iters,
        random_state=seed,
        batch=-(-n_iters // 2),  # one for each of two threads
    )
    shuffles = {"null": null} if isinstance(estimator, nd.ALESubtraction) else {}
    maps = estimator.fit(first, second, space=space, **shuffles)
    effect = "group1MinusGroup2" if shuffles else EFFECT
    corrected = nd.correct_fwe(maps, null)["p_fwe"].sel(effect=effect)
    assert tuple(corrected["inference"].values.tolist()) == INFERENCE
    found = np.asarray((corrected.values < LEVEL).any(axis=1), bool)
    maxima = null["null_max"] if shuffles else null["null_max"].sel(effect=effect)
    return found, below(observed_maxima(maps, null), maxima.values, found)


def pair_study(
    name: str,
    corpus: xr.Dataset,
    sizes: tuple[int, int],
    space: Space,
    *,
    repeats: int,
    n_iters: int,
    first: int = 0,
    report: Report | None = None,
) -> Outcome:
    """Compare `repeats` pairs of random groups, numbered from `first`."""
    found, expected = [], []
    for seed in range(first, first + repeats):
        group, other = random_pair(corpus, sizes, seed)
        one = correct_pair(ESTIMATORS[name], group, other, space, n_iters, seed)
        found.append(one[0])
        expected.append(one[1])
        if report and len(found) % 50 == 0:
            report(f"{name}, {sizes[0]} and {sizes[1]}: {len(found)} pairs")
    return Outcome(np.array(found), np.array(expected))


def annotation_study(
    corpus: xr.Dataset,
    sizes: Sequence[int],
    space: Space,
    *,
    repeats: int,
    n_iters: int,
    first: int = 0,
    report: Report | None = None,
) -> Annotated:
    """Correct all features of `repeats` random annotations, numbered from `first`."""
    found, expected = [], []
    for seed in range(first, first + repeats):
        annotated = annotate(corpus, sizes, seed)
        maps = feature_maps(annotated, space).compute()
        null = nd.feature_null(
            annotated,
            sizes=sizes,
            n_iters=n_iters,
            space=space,
            random_state=seed,
            batch=-(-n_iters // 2),
        )
        found.append(features_found(maps, null))
        maxima = null["null_max"].sel(size=list(sizes), effect=EFFECT)
        each = zip(
            observed_maxima(maps, null),
            maxima.transpose("size", "iteration", "inference").values,
            found[-1],
            strict=True,
        )
        expected.append([below(*one) for one in each])
        if report and len(found) % 50 == 0:
            report(f"annotations: {len(found)} of {len(sizes)} features")
    return Annotated(np.array(found), np.array(expected))


def _interval(count: int, n: int) -> dict[str, float]:
    rate = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="exact")
    return {"low": float(rate.low), "high": float(rate.high)}


def pair_rows(name: str, sizes: tuple[int, int], outcome: Outcome) -> Iterator[Row]:
    """Lines of pairs that each have a null of their own."""
    for column, inference in enumerate(INFERENCE):
        count, (fewest, most) = outcome.counts()[column], outcome.intervals()[column]
        yield Row(
            what=f"{name}, a null each",
            sizes=f"{sizes[0]:,} and {sizes[1]:,}",
            inference=inference,
            n=outcome.n,
            count=count,
            **_interval(count, outcome.n),
            expected=float(outcome.expected[:, column].mean()),
            fewest=fewest,
            most=most,
        )


def pooled_rows(outcome: Annotated) -> Iterator[Row]:
    """Lines of all features together.

    Features of an annotation share a null, so numbers scatter more than those of independent
    comparisons: by `excess` in variance, as annotations show. Intervals are those of so many fewer.
    """
    repeats, n_features, _ = outcome.found.shape
    n, rest = repeats * n_features, (1 - CONFIDENCE) / 2
    for column, inference in enumerate(INFERENCE):
        probability = outcome.expected[..., column]
        beyond = outcome.found[..., column].sum(axis=1) - probability.sum(axis=1)
        alone = (probability * (1 - probability)).sum()
        excess = max(1.0, repeats * beyond.var(ddof=1) / alone)
        reach = stats.norm.isf(rest) * np.sqrt(excess * alone)
        count, middle = int(outcome.found[..., column].sum()), float(probability.sum())
        yes, no = count / excess, (n - count) / excess
        yield Row(
            what="MKDAChi2, a null for each annotation",
            sizes=f"{n_features} features",
            inference=inference,
            n=n,
            count=count,
            low=float(stats.beta.ppf(rest, yes, no + 1)) if count else 0.0,
            high=float(stats.beta.isf(rest, yes + 1, no)),
            expected=middle / n,
            fewest=max(0, int(np.ceil(middle - reach))),
            most=int(middle + reach),
        )


def features_outside(outcome: Annotated) -> list[tuple[int, int]]:
    """(feature, inference) whose number is not to be expected, 99 % for all of them together."""
    n_features, n_inference = outcome.found.shape[1:]
    rest = (1 - CONFIDENCE) / 2 / (n_features * n_inference)
    outside = []
    for at in np.ndindex(n_features, n_inference):
        law = poisson_binomial(outcome.expected[(slice(None), *at)])
        count = int(outcome.found[(slice(None), *at)].sum())
        if min(law[: count + 1].sum(), law[count:].sum()) < rest:
            outside.append((at[0], at[1]))
    return outside


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a Markdown table."""
    sure = f"{CONFIDENCE:.0%}"
    heads = ["estimator", "analyses", "inference", "comparisons", "false positives", "rate"]
    heads += [f"{sure} interval of the rate", "expected rate", f"expected number, {sure}", "within"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        cells = [row.what, row.sizes, row.inference, f"{row.n:,}", f"{row.count:,}"]
        cells += [f"{row.count / row.n:.1%}", f"{row.low:.1%} to {row.high:.1%}"]
        cells += [f"{row.expected:.1%}", f"{row.fewest} to {row.most}"]
        cells += ["yes" if row.within else "NO"]
        yield f"| {' | '.join(cells)} |"


def feature_table(sizes: Sequence[int], outcome: Annotated) -> Iterator[str]:
    """Lines of a Markdown table of each feature: false positives, and how many were expected."""
    outside = features_outside(outcome)
    yield f"| analyses with the feature | {' | '.join(INFERENCE)} |"
    yield "|" + "---|" * (1 + len(INFERENCE))
    for feature, size in enumerate(sizes):
        cells = [f"{size:,}"]
        for column in range(len(INFERENCE)):
            count = int(outcome.found[:, feature, column].sum())
            middle = outcome.expected[:, feature, column].sum()
            word = " NO" if (feature, column) in outside else ""
            cells.append(f"{count} ({middle:.1f}){word}")
        yield f"| {' | '.join(cells)} |"


def run(
    corpus: xr.Dataset, design: Design, chosen: argparse.Namespace, report: Report
) -> tuple[list[Row], Annotated | None]:
    """Do all parts that were asked for."""
    coarse, annotated = coarse_space(), None
    rows: list[Row] = []
    if chosen.groups:
        rows += one_null(
            corpus,
            design.sizes,
            coarse if design.one_null_mm == 4 else load_space("mni152_2mm"),
            groups=chosen.groups,
            n_iters=design.one_null_iters,
            seed=chosen.seed,
            report=report,
        )
    repeats = {"MKDAChi2": chosen.chi2_pairs, "ALESubtraction": chosen.ale_pairs}
    for name, kinds in design.pairs.items():
        for sizes in kinds if repeats[name] else ():
            asked = {
                "repeats": repeats[name],
                "n_iters": design.pair_iters[name],
                "first": chosen.first,
            }
            outcome = pair_study(name, corpus, sizes, coarse, **asked, report=report)
            rows += pair_rows(name, sizes, outcome)
    for sizes in design.pairs["MKDAChi2"] if chosen.measured else ():
        counts = {"groups": chosen.measured, "n_iters": chosen.measured}
        rows += measured_groups(corpus, sizes, coarse, **counts, seed=chosen.seed)
        report(f"MKDAChi2, {sizes[0]} and {sizes[1]}: {chosen.measured:,} groups measured")
    if chosen.annotations:
        asked = {
            "repeats": chosen.annotations,
            "n_iters": design.feature_iters,
            "first": chosen.first,
        }
        annotated = annotation_study(corpus, design.features, coarse, **asked, report=report)
        rows += pooled_rows(annotated)
    return rows, annotated


def words(design: Design, n_analyses: int, seconds: float) -> str:
    """What was done, and on what."""
    on, iters = machine(), design.pair_iters
    return (
        f"nimare_dask {nd.__version__}, {n_analyses:,} analyses; one null: {design.one_null_mm} mm "
        f"and {design.one_null_iters:,} iterations; all else: 4 mm and {iters['MKDAChi2']} "
        f"(pairs of MKDAChi2), {iters['ALESubtraction']} (ALESubtraction) and "
        f"{design.feature_iters} (annotations) iterations. A false positive is any voxel with "
        f"p_fwe < {LEVEL:g}. {seconds:,.0f} s with 2 threads on {on['cores']} cores of "
        f"{on['processor']}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study, print the tables and write them; 1 where a number is not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.studies.false_positives_groups")
    parser.add_argument("--groups", type=int, default=1000, help="of each size (1000)")
    parser.add_argument("--chi2-pairs", type=int, default=300, help="of each kind (300)")
    parser.add_argument("--measured", type=int, default=50_000, help="of each kind (50000)")
    parser.add_argument("--ale-pairs", type=int, default=200, help="of each kind (200)")
    parser.add_argument("--annotations", type=int, default=150, help="2 at least (150)")
    parser.add_argument("--seed", type=int, default=2026, help="of groups that share a null (2026)")
    parser.add_argument("--first", type=int, default=0, help="number of the first of all else (0)")
    parser.add_argument("--data", type=Path, default=os.environ.get("NIMARE_DASK_DATA"))
    parser.add_argument("--simulated", action="store_true", help="300 analyses, to see it work")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    chosen = parser.parse_args(arguments)
    if chosen.data is None and not chosen.simulated:
        parser.error("set NIMARE_DASK_DATA to the folder that holds neurosynth/, or say --data")
    began = time.perf_counter()

    def report(what: str) -> None:
        print(f"{time.perf_counter() - began:6,.0f} s  {what}", file=sys.stderr, flush=True)

    design = SMALL if chosen.simulated else REAL
    with warnings.catch_warnings(), dask.config.set(scheduler="threads", num_workers=2):
        warnings.simplefilter("ignore", nd.CorpusWarning)  # of unknown spaces, at every call
        corpus = small_corpus() if chosen.simulated else real_corpus(chosen.data)
        rows, annotated = run(corpus, design, chosen, report)
    lines, fine = list(table(rows)), all(row.within for row in rows)
    if annotated is not None:
        fine = fine and not features_outside(annotated)
        said = f"Each feature in {len(annotated.found)} annotations: false positives, and in "
        lines += ["", f"{said}brackets how many were to be expected.", ""]
        lines += feature_table(design.features, annotated)
    lines += ["", words(design, corpus.sizes["analysis"], time.perf_counter() - began)]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(text, encoding="utf-8")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
