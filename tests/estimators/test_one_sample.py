"""ALE, MKDA density, KDA and SCALE against whole fits by the slow reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.errors import SchemaError, SelectionError, SettingsError
from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.kda import KDA
from nimare_dask.estimators.mkda_density import MKDADensity
from nimare_dask.estimators.scale import SCALE
from nimare_dask.footprint import ALEKernel, KDAKernel, MKDAKernel
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.nulls.relocation import from_dataset
from nimare_dask.provenance import steps
from nimare_dask.space import Space
from tests import slow
from tests.foci import make_corpus
from tests.groups import SPACE, anywhere, group, with_foci
from tests.reference import summary
from tests.reference.gaussian import ale_fwhm


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


# against the reference


@pytest.mark.parametrize("kernel", [ALEKernel(fwhm=24), ALEKernel(sample_size=1), ALEKernel()])
def test_ale__equals_reference(kernel: ALEKernel) -> None:
    corpus = group(1, 7)
    if kernel == ALEKernel():
        sizes = np.array([1.0, 0.7, 1, 9, 1, 0.7, 1.1])  # wide Gaussians: few bins to fold
        corpus = corpus.assign(analysis_sample_size=("analysis", sizes))
    some = with_foci(corpus)
    if kernel.fwhm is not None:
        widths = [kernel.fwhm] * some.sizes["analysis"]
    elif kernel.sample_size is not None:
        widths = [ale_fwhm(kernel.sample_size)] * some.sizes["analysis"]
    else:
        widths = [ale_fwhm(size) for size in some["analysis_sample_size"].values]
    volumes = slow.ale_volumes(some, SPACE, widths)
    expected = slow.fit_ale(volumes, some["analysis_id"].values.tolist(), SPACE)
    slow.check(ALE(kernel=kernel).fit(corpus, space=SPACE), expected)


@pytest.mark.parametrize("r", [4, 10, 24])
def test_mkda_density__equals_reference(r: float) -> None:
    corpus = group(2)
    expected = slow.fit_mkda(slow.mkda_volumes(with_foci(corpus), SPACE, r), SPACE)
    found = MKDADensity(kernel=MKDAKernel(r=r)).fit(corpus, space=SPACE)
    slow.check(found, expected)
    assert_array_equal(found["stat"], expected.stat)


@pytest.mark.parametrize("r", [4, 10, 24])
def test_kda__equals_reference(r: float) -> None:
    corpus = group(3)
    some = with_foci(corpus)
    expected = slow.fit_kda(slow.kda_volumes(some, SPACE, r), some.sizes["focus"], SPACE)
    found = KDA(kernel=KDAKernel(r=r)).fit(corpus, space=SPACE)
    slow.check(found, expected)
    assert_array_equal(found["stat"], expected.stat)


# kernels that do not fit


@pytest.mark.parametrize(
    ("make", "fitting"),
    [(ALE, ALEKernel), (MKDADensity, MKDAKernel), (KDA, KDAKernel), (SCALE, ALEKernel)],
)
def test_estimators__refuse_other_kernels(make: Any, fitting: type) -> None:
    more = {"xyz": [[0.0, 0, 0]]} if make is SCALE else {}
    for kernel in (ALEKernel(fwhm=10), MKDAKernel(), KDAKernel()):
        if isinstance(kernel, fitting):
            make(kernel=kernel, **more)
        else:
            said = f"kernel of {make.__name__} is a {type(kernel).__name__}; .*{fitting.__name__}"
            with pytest.raises(SettingsError, match=said):
                make(kernel=kernel, **more)


# analyses and foci that do not matter


ESTIMATORS: list[Any] = [
    ALE(kernel=ALEKernel(fwhm=24)),
    MKDADensity(kernel=MKDAKernel(r=14)),
    MKDADensity(kernel=MKDAKernel(r=14), weighting="sample_size", n_histogram_bins=500),
    KDA(kernel=KDAKernel(r=14)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fit__analyses_without_foci_do_not_count(estimator: Any) -> None:
    corpus = group(8)
    found = estimator.fit(corpus, space=SPACE)
    without = estimator.fit(with_foci(corpus), space=SPACE)
    for name in found.data_vars:
        assert_array_equal(found[name], without[name], err_msg=str(name))
    step = steps(found)[-1]
    assert (step["n_analyses"], step["n_analyses_without_foci"]) == (7, 2)
    assert step["settings"]["null_method"] == "approximate"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fit__without_any_focus_is_refused(estimator: Any) -> None:
    nothing: list[Any] = [[], []]
    sizes = ("analysis", np.array([20.0, 20.0]))
    with pytest.raises(SelectionError, match="no focus at all"):
        estimator.fit(make_corpus(nothing).assign(analysis_sample_size=sizes), space=SPACE)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fit__foci_out_of_reach_activate_nothing(estimator: Any) -> None:
    # They count as an analysis and as foci, but are active nowhere.
    corpus = make_corpus([[[900.0, 0, 0], [0, -900, 0]], [[0, 0, 1e5]]])
    corpus = corpus.assign(analysis_sample_size=("analysis", np.array([20.0, 30])))
    found = estimator.fit(corpus, space=SPACE)
    assert not found["stat"].any()
    assert_array_equal(found["p"], 1)
    assert_array_equal(found["z"], 0)
    assert_array_equal(found["logp"], 0)
    assert steps(found)[-1]["n_foci_outside_volume"] == 3


def test_fit__order_of_analyses_does_not_matter() -> None:
    corpus = with_foci(group(9))
    n_foci = corpus["analysis_n_foci"].values
    order = np.random.default_rng(0).permutation(len(n_foci))
    first = np.append(0, np.cumsum(n_foci))
    foci = np.concatenate([np.arange(first[place], first[place + 1]) for place in order])
    mixed = corpus.isel(analysis=order, focus=foci)
    for estimator in ESTIMATORS:
        one, other = (estimator.fit(part, space=SPACE) for part in (corpus, mixed))
        assert_array_equal(one["stat"], other["stat"])
        if isinstance(estimator, ALE):  # folded in the order of ids
            for name in one.data_vars:
                assert_array_equal(one[name], other[name])
        else:
            assert_allclose(one["null_weight"], other["null_weight"], rtol=1e-12)


# ways to a null


def test_fit__null_methods_of_ale() -> None:
    corpus = group(10)
    estimator = ALE(kernel=ALEKernel(fwhm=24))
    fits = {
        name: estimator.fit(corpus, space=SPACE, null_method=name)
        for name in ("approximate", "fold", "fft")
    }
    assert_array_equal(fits["approximate"]["p"], fits["fold"]["p"])
    assert (fits["fft"]["p"] != fits["fold"]["p"]).any()
    likely = fits["fold"]["p"].values > 1e-6
    assert_allclose(fits["fft"]["p"].values[likely], fits["fold"]["p"].values[likely], rtol=0.05)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fit__monte_carlo_is_like_the_approximate_null(estimator: Any) -> None:
    corpus = anywhere(11)
    plain = estimator.fit(corpus, space=SPACE)
    drawn = estimator.fit(
        corpus, space=SPACE, null_method="montecarlo", n_iters=100, random_state=1
    )
    assert_array_equal(drawn["stat"], plain["stat"])
    # Correlations are 0.999 and more, and p values of 0.05 or more are right to a factor of 1.7.
    assert np.corrcoef(drawn["logp"], plain["logp"])[0, 1] > 0.995
    likely = (plain["p"].values > 0.05) & (plain["p"].values < 0.5)
    assert np.abs(np.log(drawn["p"] / plain["p"]))[likely].max() < np.log(2)
    assert drawn["null_weight"].sum() == 100 * SPACE.n_voxels
    assert steps(drawn)[-1]["settings"]["n_iters"] == 100


def test_fit__monte_carlo_histogram_is_that_of_all_iterations() -> None:
    corpus = with_foci(group(12))
    estimator = MKDADensity(kernel=MKDAKernel(r=14))
    null = monte_carlo_null(estimator, corpus, space=SPACE, n_iters=6, random_state=3)
    fit = estimator.fit(corpus, space=SPACE, null_method="montecarlo", null=null)
    job = from_dataset(null)
    counts = np.zeros(corpus.sizes["analysis"] + 1)
    for iteration in range(6):
        foci = np.split(job.draw(iteration), np.cumsum(job.n_foci)[:-1])
        zooms = SPACE.zooms.tolist()
        volumes = [summary.mkda_modelled_activation(ijk, SPACE.shape, zooms, 14) for ijk in foci]
        counts += np.bincount(summary.mkda(volumes)[SPACE.mask].astype(int), minlength=len(counts))
    assert_array_equal(fit["null_weight"], counts)


def test_fit__monte_carlo_has_iterations_of_its_own() -> None:
    # Not those of a correction with the same seed, which would compare a map with itself.
    corpus, estimator = group(12), KDA(kernel=KDAKernel(r=14))
    fit = estimator.fit(corpus, space=SPACE, null_method="montecarlo", n_iters=5, random_state=3)
    null = monte_carlo_null(estimator, corpus, space=SPACE, n_iters=5, random_state=3)
    assert (fit["null_weight"] != null["null_histogram"]).any()


def test_fit__other_null_methods_are_refused() -> None:
    with pytest.raises(SettingsError, match="null_method is 'exact'"):
        KDA().fit(group(), space=SPACE, null_method="exact")  # type: ignore[arg-type]
    null = monte_carlo_null(KDA(), group(), space=SPACE, n_iters=2, random_state=0)
    with pytest.raises(SettingsError, match="A null is given and null_method is 'approximate'"):
        KDA().fit(group(), space=SPACE, null=null)


@pytest.mark.parametrize("other", ["corpus of another size", "corpus", "radius", "mask"])
def test_fit__null_of_something_else_is_refused(other: str) -> None:
    estimator, corpus = MKDADensity(kernel=MKDAKernel(r=14)), group(13)
    space = SPACE
    if other == "mask":
        mask = SPACE.mask.copy()
        mask[4:8] = False
        space = Space("half", mask, SPACE.affine)
    null = monte_carlo_null(
        MKDADensity(kernel=MKDAKernel(r=20 if other == "radius" else 14)),
        {"corpus of another size": group(13, 8), "corpus": group(14)}.get(other, corpus),
        space=space,
        n_iters=3,
        random_state=0,
    )
    with pytest.raises(SchemaError, match=r"together: one was made with (corpus|r|mask) "):
        estimator.fit(corpus, space=SPACE, null_method="montecarlo", null=null)
