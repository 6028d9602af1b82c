"""The MKDA chi-square: by hand, against the slow reference, and as a lazy graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask import counting, results
from nimare_dask.activation import activation_maps
from nimare_dask.correct import correct_fdr
from nimare_dask.errors import (
    CorpusWarning,
    SchemaError,
    SelectionError,
    SettingsError,
    UnknownLabelError,
)
from nimare_dask.estimators import features
from nimare_dask.estimators import mkda_chi2 as module
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.footprint import MKDAKernel
from nimare_dask.parallel import shapes
from nimare_dask.provenance import steps
from nimare_dask.selection import has_label, select
from nimare_dask.space import Space
from nimare_dask.stats import chi2 as stats_chi2
from nimare_dask.stats.pz import P_FLOOR
from tests.foci import draw_corpus, draw_foci, make_corpus, make_space, reference_active
from tests.reference import chi2 as reference

#: One rounding to float32.
ONE_FLOAT32 = float(np.finfo(np.float32).eps)
ESTIMATOR = MKDAChi2(kernel=MKDAKernel(r=5))


def refuse(*args: Any, **kwargs: Any) -> Any:
    """A scheduler, or a block's work, that must not be asked."""
    raise AssertionError("something was computed")


class Computes(Callback):
    """Counts how often a local scheduler is asked, and the tasks it did."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked = 0
        self.tasks: list[Any] = []

    def _start(self, dsk: Any) -> None:
        self.asked += 1

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        self.tasks.append(key)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def space() -> Space:
    return make_space((7, 8, 9))


@pytest.fixture
def corpus(space: Space) -> xr.Dataset:
    return draw_corpus(1, space)


def map_of(result: xr.Dataset, name: str) -> np.ndarray:
    return results.find_map(result, name)


# by hand


def test_fit__hand_computed() -> None:
    # A line of five voxels at 0 2 4 6 8 mm from its end; a focus reaches its neighbours.
    line = make_space((1, 1, 5), seed=None)
    selected = make_corpus([[0, 0, -4], [0, 0, -2]], prefix="selected")
    others = make_corpus([[0, 0, 4], [0, 0, 4], [0, 0, 2]], prefix="other")
    result = MKDAChi2(kernel=MKDAKernel(r=2)).fit(selected, others, space=line)
    # Active selected: 2 2 1 0 0 of 2; others: 0 0 1 3 3 of 3.
    assert_array_equal(result["n_active"], [2, 2, 2, 3, 3])
    # 5 (a n2 - b n1)^2 / ((a + b) (5 - a - b) n1 n2): 5 * 36 / 36, 5 * 1 / 36, 5 * 36 / 36.
    association = np.array([5, 5, 5 / 36, 5, 5])
    assert_allclose(map_of(result, "chi2_desc-association"), association, rtol=ONE_FLOAT32)
    signed = np.sqrt(association) * [1, 1, 1, -1, -1]
    assert_allclose(map_of(result, "z_desc-association"), signed, rtol=ONE_FLOAT32)
    # Mean 1 of 2: (x - 1)^2 * 2 / (1 * 1). Mean 7/5 of 3: (x - 7/5)^2 * 3 / (7/5 * 8/5).
    for name in ("uniformity", "group1"):
        assert_allclose(map_of(result, f"chi2_desc-{name}"), [2, 2, 0, 2, 2], rtol=ONE_FLOAT32)
        z = np.sqrt(2) * np.array([1, 1, 0, -1, -1])
        assert_allclose(map_of(result, f"z_desc-{name}"), z, rtol=ONE_FLOAT32)
    group2 = np.array([21 / 8, 21 / 8, 3 / 14, 24 / 7, 24 / 7])
    assert_allclose(map_of(result, "chi2_desc-group2"), group2, rtol=ONE_FLOAT32)
    assert_array_equal(np.sign(map_of(result, "z_desc-group2")), [-1, -1, -1, 1, 1])
    probabilities = {
        "A": [0.4, 0.4, 0.4, 0.6, 0.6],
        "AgF": [1, 1, 0.5, 0, 0],
        "AgU": [0, 0, 1 / 3, 1, 1],
        "FgA": [1, 1, 0.5, 0, 0],
        "AgF_prior": [0.5, 0.5, 5 / 12, 0.5, 0.5],
        "FgA_prior": [1, 1, 0.6, 0, 0],
    }
    for name, values in probabilities.items():
        assert_allclose(map_of(result, f"prob_desc-{name}"), values, rtol=ONE_FLOAT32)
    assert_array_equal(map_of(result, "prob_desc-group1"), map_of(result, "prob_desc-AgF"))
    assert_array_equal(map_of(result, "prob_desc-group2"), map_of(result, "prob_desc-AgU"))


def test_fit__nothing_active_has_chi2_two_and_z_zero() -> None:
    line = make_space((1, 1, 9), seed=None)
    groups = [make_corpus([[0, 0, -8]], prefix=name) for name in ("one", "two")]
    result = MKDAChi2(kernel=MKDAKernel(r=2)).fit(*groups, space=line)
    assert_array_equal(result["chi2"].sel(effect="association"), np.full(9, 2))
    assert_array_equal(result["z"].sel(effect="association"), np.zeros(9))
    assert_allclose(result["p"].sel(effect="association"), 0.1573, atol=1e-5)
    nowhere = result["n_active"].values == 0
    assert nowhere.sum() == 7
    for name in ("FgA", "FgA_prior"):
        assert_array_equal(np.isnan(map_of(result, f"prob_desc-{name}")), nowhere)


# against the reference


def check_against_reference(
    found: dict[str, np.ndarray], selected: np.ndarray, others: np.ndarray, prior: float = 0.5
) -> None:
    expected = reference.mkda_chi2(selected, others, prior)
    for name, values in found.items():
        wanted = expected[name]
        if name.startswith("p_"):
            wanted = np.clip(wanted, P_FLOOR, 1)
        # One rounding to float32. Counts equal to their mean give 0 exactly in the reference.
        assert_allclose(values, wanted, rtol=ONE_FLOAT32, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "zooms", "r"),
    [((7, 8, 9), (2, 2, 2), 5), ((6, 5, 70), (3, 2, 1.5), 6), ((5, 5, 5), (4, 4, 4), 10)],
)
@pytest.mark.parametrize("prior", [0.5, 0.2])
def test_fit__equals_reference(shape: Any, zooms: Any, r: float, prior: float) -> None:
    volume = make_space(shape, zooms)
    selected = make_corpus(draw_foci(2, volume, 9), prefix="selected")
    others = make_corpus(draw_foci(3, volume, 22), prefix="other")
    result = MKDAChi2(kernel=MKDAKernel(r=r), prior=prior).fit(selected, others, space=volume)
    active = [reference_active(part, volume, r) for part in (selected, others)]
    found = {key.name: map_of(result, key.name) for key in results.map_keys(result)}
    assert set(found) == set(reference.mkda_chi2(*active))
    check_against_reference(found, *active, prior=prior)
    assert all(values.dtype == np.float32 for values in found.values())
    assert_array_equal(result["n_active"], np.concatenate(active).sum(axis=0))


@pytest.mark.parametrize("target", ["MNI", "TAL"])
def test_fit__foci_of_several_spaces_equal_reference(target: Any) -> None:
    volume = make_space((9, 9, 9), (4, 4, 4), reference=target)
    parts = []
    for seed, prefix in ((4, "selected"), (5, "other")):
        foci = draw_foci(seed, volume, 12)
        codes = np.random.default_rng(seed).integers(0, 3, size=sum(map(len, foci)))
        spaces = ("MNI", "TAL", "Talairach")
        parts.append(make_corpus(foci, spaces=spaces, codes=codes, prefix=prefix))
    result = MKDAChi2(kernel=MKDAKernel(r=8)).fit(*parts, space=volume)
    active = [reference_active(part, volume, 8) for part in parts]
    found = {key.name: map_of(result, key.name) for key in results.map_keys(result)}
    check_against_reference(found, *active)


def test_fit__analyses_without_foci_do_not_count(space: Space) -> None:
    foci, more = draw_foci(6, space, 10), draw_foci(7, space, 15)
    plain = ESTIMATOR.fit(make_corpus(foci, prefix="a"), make_corpus(more, prefix="b"), space=space)
    mixed = ESTIMATOR.fit(
        make_corpus([[], *foci[:4], [], *foci[4:]], prefix="a"),
        make_corpus([*more, []], prefix="b"),
        space=space,
    )
    xr.testing.assert_identical(plain.drop_attrs(), mixed.drop_attrs())
    assert steps(mixed)[-1]["n_analyses"] == 25
    assert steps(mixed)[-1]["n_selected"] == 10


def test_fit__without_prior(space: Space) -> None:
    groups = [make_corpus(draw_foci(8, space, 6), prefix=name) for name in ("a", "b")]
    result = MKDAChi2(prior=None).fit(*groups, space=space)
    assert result["probability"].values.tolist() == ["A", "AgF", "AgU", "FgA", "group1", "group2"]


@pytest.mark.parametrize("chunk", [1, 17, 100, 4096])
def test_fit__same_bits_in_any_blocks(
    space: Space, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [make_corpus(draw_foci(9, space, 6), prefix=name) for name in ("a", "b")]
    whole = ESTIMATOR.fit(*groups, space=space)
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", chunk)
    xr.testing.assert_identical(ESTIMATOR.fit(*groups, space=space), whole)


# features


@pytest.mark.parametrize("chunks", ["voxel", "feature"])
@pytest.mark.parametrize(
    ("voxel_chunk", "task_bytes", "feature_chunk"),
    [(4096, 200_000_000, 64), (64, 200_000_000, 1), (100, 200_000_000, 2), (4096, 1, 4)],
)
def test_fit_features__equals_fit_for_each_feature(
    space: Space,
    chunks: module.Chunks,
    voxel_chunk: int,
    task_bytes: int,
    feature_chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", voxel_chunk)
    monkeypatch.setattr(shapes, "TASK_BYTES", task_bytes)
    monkeypatch.setattr(features, "FEATURE_CHUNK", feature_chunk)
    corpus = draw_corpus(10, space, empty=[3, 17])
    lazy = ESTIMATOR.fit_features(corpus, space=space, threshold=0.8, chunks=chunks)
    if chunks == "voxel" and (voxel_chunk < 4096 or task_bytes == 1):
        assert lazy["z"].data.numblocks[-1] > 1
    if chunks == "feature":
        assert lazy["z"].data.numblocks[-1] == 1
        assert max(lazy["z"].data.chunks[1]) <= feature_chunk
    every = lazy.compute()
    assert every.sizes["feature"] == 6
    for feature in every["feature"].values.tolist():
        mask = has_label(corpus, feature, 0.8)
        pair = ESTIMATOR.fit(select(corpus, mask), select(corpus, ~mask), space=space)
        one = every.sel(feature=feature)
        for name in ("z", "chi2", "p", "logp"):
            wanted = pair[name].sel(effect=["uniformity", "association"])
            assert_array_equal(one[name], wanted, err_msg=name)
            assert one[name].dtype == np.float32
        wanted = pair["prob"].sel(probability=every["probability"].values)
        assert_array_equal(one["prob"], wanted)
        assert_array_equal(one["n_active"], pair["n_active"])
        assert int(one["n_selected"]) == steps(pair)[-1]["n_selected"]


@pytest.mark.parametrize("chunks", ["voxel", "feature"])
def test_fit_features__equals_reference(space: Space, chunks: module.Chunks) -> None:
    corpus = draw_corpus(11, space, empty=[5])
    every = ESTIMATOR.fit_features(corpus, space=space, chunks=chunks).compute()
    some = corpus["analysis_n_foci"].values > 0
    active = reference_active(corpus, space, 5)
    for feature in every["feature"].values.tolist():
        mask = has_label(corpus, feature).values
        one = every.sel(feature=feature)
        found = {
            key.name: one[key.variable].sel(key.labels).values for key in results.map_keys(every)
        }
        check_against_reference(found, active[mask & some], active[~mask & some])


def test_fit_features__chosen_features_in_their_order(space: Space, corpus: xr.Dataset) -> None:
    every = ESTIMATOR.fit_features(corpus, space=space).compute()
    some = ESTIMATOR.fit_features(corpus, space=space, features=["0004", "set__0001"])
    assert some["feature"].values.tolist() == ["set__0004", "set__0001"]
    same = every.sel(feature=some["feature"].values)
    xr.testing.assert_identical(some.compute().drop_attrs(), same.drop_attrs())


def test_fit_features__threshold_is_inclusive(space: Space) -> None:
    weights = [[0.5], [0.25], [0.0], [0.1]]
    corpus = make_corpus(draw_foci(12, space, 4), weights)
    counts = [
        int(ESTIMATOR.fit_features(corpus, space=space, threshold=at)["n_selected"][0])
        for at in (0.1, 0.11, 0.25, 0.5)
    ]
    assert counts == [3, 2, 2, 1]


def test_fit_features__dropped_features_are_counted_and_said(space: Space) -> None:
    weights = np.zeros((8, 5))
    weights[:, 0] = 1  # had by all
    weights[0, 1] = 1  # had by one
    weights[:4, 2] = weights[2:, 3] = 1
    corpus = make_corpus(draw_foci(13, space, 8), weights)
    with pytest.warns(CorpusWarning) as caught:
        maps = ESTIMATOR.fit_features(corpus, space=space, min_analyses=2)
    message = str(caught[0].message)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert message == (
        "3 of 5 features are dropped: at threshold 0.001 they have fewer than 2 analyses or leave "
        "none to compare with (set__0000, set__0001, set__0004)."
    )
    assert maps["feature"].values.tolist() == ["set__0002", "set__0003"]
    assert maps["n_selected"].values.tolist() == [4, 6]
    step = steps(maps)[-1]
    assert step["n_features_dropped"] == 3
    assert (step["threshold"], step["min_analyses"]) == (0.001, 2)


def test_fit_features__analyses_without_foci_do_not_make_a_feature(space: Space) -> None:
    foci = draw_foci(14, space, 6, empty=[0, 1])
    weights = np.zeros((6, 2))
    weights[[0, 1], 0] = 1  # only analyses without foci have it
    weights[[1, 2, 3], 1] = 1
    with pytest.warns(CorpusWarning, match="1 of 2 features are dropped"):
        maps = ESTIMATOR.fit_features(make_corpus(foci, weights), space=space)
    assert maps["n_selected"].values.tolist() == [2]


# laziness


def test_fit_features__computes_nothing_before_it_is_asked(
    space: Space, corpus: xr.Dataset
) -> None:
    with dask.config.set(scheduler=refuse):
        for chunks in ("voxel", "feature"):
            maps = ESTIMATOR.fit_features(corpus, space=space, chunks=chunks)  # type: ignore[arg-type]
            for method in ("indep", "negcorr"):
                maps = correct_fdr(maps, method=method)  # type: ignore[arg-type]
            list(results.map_keys(maps))
            repr(maps)
            maps.sel(effect="association").isel(feature=0)
        activation_maps(corpus, space=space)
        with pytest.raises(AssertionError, match="something was computed"):
            maps["z"].compute()


def test_fit_features__one_ask_is_one_compute(space: Space, corpus: xr.Dataset) -> None:
    with Computes() as counted:
        maps = ESTIMATOR.fit_features(corpus, space=space)
        assert counted.asked == 0
        maps.compute()
        assert counted.asked == 1


@pytest.mark.parametrize("chunk", [64, 200])
def test_fit_features__tasks_do_not_grow_with_features(
    space: Space, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", chunk)
    sizes = {}
    for n in (50, 1000):
        maps = ESTIMATOR.fit_features(draw_corpus(15, space, 40, n), space=space)
        assert maps.sizes["feature"] == n
        with Computes() as counted:
            maps["z"].compute()
        sizes[n] = (
            len(counted.tasks),
            len(dict(maps["z"].__dask_graph__())),
            len(dict(maps.__dask_graph__())),
        )
    assert sizes[50] == sizes[1000]
    blocks = -(-space.n_voxels // chunk)
    assert sizes[50][1] <= 12 * blocks + 12


def test_fit_features__association_z_computes_only_what_it_needs(
    space: Space, corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    original = stats_chi2.association

    def association(counts: Any, **settings: Any) -> Any:
        names.append(settings["name"])
        return original(counts, **settings)

    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 64)
    monkeypatch.setattr(stats_chi2, "association", association)
    for name in ("uniformity", "probability"):
        monkeypatch.setattr(stats_chi2, name, refuse)
    for name in ("_extent_block", "_expected", "_all_runs"):
        monkeypatch.setattr(counting, name, refuse)
    maps = ESTIMATOR.fit_features(corpus, space=space)
    maps["z"].sel(effect="association").compute()
    assert set(names) == {"z"}
    assert len(names) == maps["z"].data.numblocks[-1] > 1
    with pytest.raises(AssertionError):
        maps["z"].sel(effect="uniformity").compute()


def test_fit_features__counts_once_for_all_maps(
    space: Space, corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []
    original = counting._count_block

    def count_block(voxel_ijk: Any, **shared: Any) -> Any:
        called.append(len(voxel_ijk))
        return original(voxel_ijk, **shared)

    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 100)
    monkeypatch.setattr(counting, "_count_block", count_block)
    ESTIMATOR.fit_features(corpus, space=space).compute()
    assert sum(called) == space.n_voxels


def test_fit_features__feature_blocks_build_activation_once(
    space: Space, corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []
    original = counting._all_runs
    monkeypatch.setattr(
        counting, "_all_runs", lambda *parts: (called.append(1), original(*parts))[1]
    )
    monkeypatch.setattr(features, "FEATURE_CHUNK", 1)
    ESTIMATOR.fit_features(corpus, space=space, chunks="feature").compute()
    assert called == [1]


# what is refused


def test_fit__group_without_foci_is_refused(space: Space) -> None:
    some, none = make_corpus(draw_foci(16, space, 3)), make_corpus([[], []], prefix="none")
    expected = r"The (un)?selected analyses have no focus at all \(2 analyses\); choose others\."
    with pytest.raises(SelectionError, match=expected.replace("(un)?", "")):
        ESTIMATOR.fit(none, some, space=space)
    with pytest.raises(SelectionError, match=expected.replace("(un)?", "un")):
        ESTIMATOR.fit(some, none, space=space)


def test_fit__shared_analyses_are_refused(space: Space, corpus: xr.Dataset) -> None:
    first = np.arange(30) < 10
    with pytest.raises(SelectionError) as caught:
        ESTIMATOR.fit(select(corpus, first), corpus, space=space)
    assert str(caught.value) == (
        "10 analyses are in both groups (study0000-1, study0001-1, study0002-1, study0003-1, "
        "study0004-1 and 5 more); an analysis can be selected or not. Use nd.select(corpus, ~mask) "
        "for the others."
    )


def test_fit_features__no_feature_left_is_refused(space: Space, corpus: xr.Dataset) -> None:
    expected = "No feature of 6 has at least 1 analyses with a weight of 2 or more"
    with pytest.raises(SelectionError, match=expected):
        ESTIMATOR.fit_features(corpus, space=space, threshold=2)
    with pytest.raises(SelectionError, match="No feature of 0"):
        ESTIMATOR.fit_features(corpus, space=space, features=[])


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_fit_features__threshold_of_zero_is_refused(
    space: Space, corpus: xr.Dataset, threshold: float
) -> None:
    expected = f"threshold is {threshold:g}; weights are at least 0, so expected a number above 0"
    with pytest.raises(SettingsError, match=expected):
        ESTIMATOR.fit_features(corpus, space=space, threshold=threshold)


def test_fit_features__chunks_of_other_names_are_refused(space: Space, corpus: xr.Dataset) -> None:
    with pytest.raises(SettingsError, match="chunks is 'auto'; expected 'voxel' or 'feature'"):
        ESTIMATOR.fit_features(corpus, space=space, chunks="auto")  # type: ignore[arg-type]


def test_fit_features__unknown_features_are_refused(space: Space, corpus: xr.Dataset) -> None:
    with pytest.raises(UnknownLabelError, match=r"No feature is called 'set__001'. Did you mean"):
        ESTIMATOR.fit_features(corpus, space=space, features=["set__001"])


def test_fit_features__corpus_without_features_is_refused(space: Space) -> None:
    with pytest.raises(SchemaError, match=r"feature .* is missing"):
        ESTIMATOR.fit_features(make_corpus(draw_foci(17, space, 3)), space=space)


@pytest.mark.parametrize("prior", [0, 1, -0.1, float("nan")])
def test_mkda_chi2__prior_must_be_a_probability(prior: float) -> None:
    with pytest.raises(SettingsError, match=f"prior is {prior}; expected a probability, or None"):
        MKDAChi2(prior=prior)


def test_mkda_chi2__kernel_must_be_mkda() -> None:
    with pytest.raises(SettingsError, match="kernel is a str; chi-square counts active analyses"):
        MKDAChi2(kernel="mkda")  # type: ignore[arg-type]


@pytest.mark.parametrize("r", [0, -1, float("nan"), float("inf")])
def test_mkda_kernel__radius_must_be_positive(r: float) -> None:
    with pytest.raises(SettingsError, match=f"r is {r}; expected a radius in mm above 0"):
        MKDAKernel(r=r)


# what is said


def unknown_corpus(space: Space, prefix: str = "study") -> xr.Dataset:
    foci = draw_foci(18, space, 8)
    codes = np.arange(sum(map(len, foci))) % 4
    weights = np.eye(8)[:, :2]
    spaces = ("MNI", "UNKNOWN", "TAL", "talairach")
    return make_corpus(foci, weights, spaces=spaces, codes=codes, prefix=prefix)


def check_unknown_warning(caught: list[warnings.WarningMessage], n_corpora: int) -> None:
    assert len(caught) == 1
    assert caught[0].category is CorpusWarning
    assert caught[0].filename == __file__
    corpus = unknown_corpus(make_space((7, 8, 9)))
    each = [n * n_corpora for n in np.bincount(corpus["focus_space"].values).tolist()]
    assert str(caught[0].message) == (
        f"{each[1] + each[3]} of {sum(each)} foci have a space that is not known ({each[1]} of "
        f"space 'UNKNOWN', {each[3]} of space 'talairach'; known are MNI, TAL, Talairach); they "
        "are taken as MNI."
    )


def test_unknown_space__is_counted_once_per_call(space: Space) -> None:
    corpus = unknown_corpus(space)
    other = unknown_corpus(space, "other")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pair = ESTIMATOR.fit(corpus, other, space=space)
    check_unknown_warning(caught, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        maps = ESTIMATOR.fit_features(corpus, space=space)
        maps.compute()
    check_unknown_warning(caught, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        activation_maps(corpus, space=space)
    check_unknown_warning(caught, 1)
    each = np.bincount(corpus["focus_space"].values).tolist()
    by_space = dict(zip(corpus.attrs["spaces"], each, strict=True))
    assert steps(maps)[-1]["n_foci_by_space"] == by_space
    assert steps(pair)[-1]["n_foci_by_space"] == {key: 2 * n for key, n in by_space.items()}


def test_provenance__foci_outside_are_counted() -> None:
    line = make_space((1, 1, 5), seed=None)
    line.mask[0, 0, 4] = False
    first = make_corpus([[[0, 0, 0], [0, 0, 4], [0, 0, 6]], [0, 0, -5.5]], prefix="a")
    second = make_corpus([[[2, 0, 0], [0, 0, 2]]], prefix="b")
    step = steps(MKDAChi2(kernel=MKDAKernel(r=2)).fit(first, second, space=line))[-1]
    assert step["n_foci"] == 6
    assert step["n_foci_outside_volume"] == 3
    assert step["n_foci_outside_mask"] == 4
    assert step["n_analyses"] == 3


def test_provenance__says_what_was_done(space: Space, corpus: xr.Dataset) -> None:
    step = steps(ESTIMATOR.fit_features(corpus, space=space))[-1]
    assert step["step"] == "MKDAChi2"
    assert step["settings"] == {
        "estimator": "MKDAChi2",
        "prior": 0.5,
        "kernel": "MKDAKernel",
        "r": 5,
    }
    assert step["space_digest"] == space.digest
    assert set(step["references"]) == {"wager2007", "yarkoni2011", "lancaster2007"}


def test_activation_maps__equals_reference(space: Space, corpus: xr.Dataset) -> None:
    maps = activation_maps(corpus, MKDAKernel(r=5), space, analysis_chunk=7)
    assert maps.data.numblocks == (5, 1)
    assert maps.dtype == np.uint8
    assert_array_equal(maps, reference_active(corpus, space, 5))
