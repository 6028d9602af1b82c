"""Every map of the MKDA chi-square against NiMARE 0.22.1; README.md says what is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.activation import activation_maps
from nimare_dask.correct import correct_fdr
from nimare_dask.errors import SelectionError, UnknownLabelError
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.footprint import MKDAKernel
from nimare_dask.parallel.execute import active_client
from nimare_dask.selection import has_label, select
from nimare_dask.space import Space, load_space
from tests.foci import draw_foci, make_corpus, make_space
from tests.parity.peer import (
    ONE_FLOAT32,
    PREFIX,
    Database,
    assert_maps_agree,
    image_of,
    maps_of,
    open_database,
    peer_fit,
    peer_maps,
    peer_space,
    quiet,
    real_subset,
    simulated_database,
    studyset_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")

TOPIC = "32_pain_somatosensory_stimulation"
OTHERS = ["9_memory_working_wm", "26_emotional_amygdala_negative"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return open_database(simulated_database(tmp_path_factory.mktemp("simulated")))


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Database:
    folder = tmp_path_factory.mktemp("subset")
    return open_database(real_subset(folder, data_folder / "neurosynth", TOPIC, 150, 250))


@pytest.fixture(scope="module")
def theirs_2mm() -> Space:
    return peer_space()


def our_maps(database: Database, mask: xr.DataArray, space: Space, r: float = 10) -> dict[str, Any]:
    return pair_maps(select(database.corpus, mask), select(database.corpus, ~mask), space, r)


def pair_maps(first: xr.Dataset, second: xr.Dataset, space: Space, r: float) -> dict[str, Any]:
    maps = MKDAChi2(kernel=MKDAKernel(r=r)).fit(first, second, space=space)
    for method in ("indep", "negcorr"):
        maps = correct_fdr(maps, method=method)  # type: ignore[arg-type]
    return maps_of(maps)


def test_peer__is_the_version_that_is_compared_with() -> None:
    with quiet():
        import nimare

    assert nimare.__version__ == "0.22.1"


# simulated, so that parity is held without the database


@pytest.mark.parametrize(("grid", "r"), [("ours", 6), ("theirs", 10)])
def test_fit__simulated(simulated: Database, theirs_2mm: Space, grid: str, r: float) -> None:
    space = load_space("mni152_2mm") if grid == "ours" else theirs_2mm
    mask = has_label(simulated.corpus, "1_b", 0.5)
    peers = peer_fit(simulated, mask.values, space, r)
    assert_maps_agree(our_maps(simulated, mask, space, r), peers)


def test_fit__flipped_grid(simulated: Database) -> None:
    # Same voxels as mni152_2mm, other order: x runs from right to left.
    space = peer_space("ale_2mm")
    assert space.affine[0, 0] == -2
    mask = has_label(simulated.corpus, "2_c", 0.5)
    assert_maps_agree(our_maps(simulated, mask, space), peer_fit(simulated, mask.values, space))


@pytest.mark.parametrize(
    ("shape", "zooms", "r"),
    [
        ((9, 9, 9), (4, 4, 4), 10),
        ((12, 9, 20), (2, 3, 1.5), 6),
        ((5, 5, 70), (2, 2, 2), 10),
        ((30, 4, 6), (1, 4, 3), 7.3),
    ],
)
def test_fit__small_grids_with_every_space_and_analyses_without_foci(
    shape: Any, zooms: Any, r: float
) -> None:
    # What has no focus counts on neither side.
    space = make_space(shape, zooms)
    corpora = []
    for seed, prefix, empty in ((1, "a", [2, 5]), (2, "b", [0])):
        foci = draw_foci(seed, space, 20, empty=empty)
        codes = np.random.default_rng(seed).integers(0, 4, size=sum(map(len, foci)))
        spaces = ("MNI", "TAL", "Talairach", "UNKNOWN")
        corpora.append(make_corpus(foci, spaces=spaces, codes=codes, prefix=prefix))
    studyset = studyset_of(corpora)
    with quiet():
        groups = [
            studyset.slice(corpus["analysis_id"].values.astype(object).tolist())
            for corpus in corpora
        ]
    ours = pair_maps(*corpora, space, r)
    assert_allclose(ours["prob_desc-AgF"] * 18 % 1, 0, atol=1e-4)
    assert_maps_agree(ours, peer_maps(*groups, space, r))


def test_fit__another_radius_does_not_agree(simulated: Database, theirs_2mm: Space) -> None:
    # The comparison above can fail.
    mask = has_label(simulated.corpus, "1_b", 0.5)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_maps_agree(
            our_maps(simulated, mask, theirs_2mm, 8),
            peer_fit(simulated, mask.values, theirs_2mm, 10),
        )


def test_fit__a_slightly_wrong_correction_does_not_agree(
    simulated: Database, theirs_2mm: Space
) -> None:
    mask = has_label(simulated.corpus, "1_b", 0.5)
    ours = our_maps(simulated, mask, theirs_2mm)
    peers = peer_fit(simulated, mask.values, theirs_2mm)
    for end in ("group1_level-voxel_corr-FDR_method-indep", "group2_corr-FDR_method-negcorr"):
        for kind in ("p", "z", "logp"):
            name = f"{kind}_desc-{end}"
            wrong = {**ours, name: ours[name] * np.float32(1 + 1e-5)}
            with pytest.raises(AssertionError, match=f"{name}: Not equal to tolerance"):
                assert_maps_agree(wrong, peers)


def test_activation_maps__simulated(simulated: Database, theirs_2mm: Space) -> None:
    check_activation(simulated, np.ones(60, dtype=bool), theirs_2mm)


def check_activation(database: Database, mask: np.ndarray, space: Space) -> None:
    """Exact support, dense and sparse; the peer sorts analyses by their ids."""
    from nimare.meta.kernel import MKDAKernel as PeerKernel
    from nimare.utils import get_masker

    order = np.argsort(np.array(database.ids(mask)))
    chosen = database.slice(mask)
    for r in (4, 10):
        ours = activation_maps(select(database.corpus, mask), MKDAKernel(r=r), space).values[order]
        with quiet():
            kernel, masker = PeerKernel(r=r), get_masker(image_of(space))
            dense = kernel.transform(chosen, masker=masker, return_type="array")
            sparse = kernel.transform(chosen, masker=masker, return_type="sparse")
        assert_array_equal(ours, dense)
        assert_array_equal(ours, np.asarray(sparse.todense()))
        assert ours.sum() > 1000


# where the two differ on purpose


def test_space__ours_has_other_voxels(theirs_2mm: Space) -> None:
    ours = load_space("mni152_2mm")
    assert (ours.n_voxels, theirs_2mm.n_voxels) == (235_375, 228_483)
    assert_array_equal(ours.affine, theirs_2mm.affine)


def test_fit__shared_analyses_are_refused_here_only(simulated: Database, theirs_2mm: Space) -> None:
    from nimare.meta.cbma.mkda import MKDAChi2 as PeerEstimator

    some, more = np.arange(60) < 20, np.arange(60) < 40
    with quiet():
        peer = PeerEstimator(mask=image_of(theirs_2mm))
        maps = peer.fit(simulated.slice(some), simulated.slice(more)).maps
    assert "z_desc-association" in maps
    with pytest.raises(SelectionError, match="20 analyses are in both groups"):
        MKDAChi2().fit(
            select(simulated.corpus, some), select(simulated.corpus, more), space=theirs_2mm
        )


def test_fit_features__unknown_feature_is_refused_by_both(
    simulated: Database, theirs_2mm: Space
) -> None:
    from nimare.decode.continuous import CorrelationDecoder

    with quiet(), pytest.raises(KeyError):
        CorrelationDecoder(features=[f"{PREFIX}0_x"]).fit(simulated.studyset)
    with pytest.raises(UnknownLabelError, match="No feature is called '0_x'"):
        MKDAChi2().fit_features(simulated.corpus, features=["0_x"], space=theirs_2mm)


# a part of Neurosynth


@pytest.mark.realdata
@pytest.mark.parametrize("grid", ["ours", "theirs"])
def test_fit__real_subset(subset: Database, theirs_2mm: Space, grid: str) -> None:
    space = load_space("mni152_2mm") if grid == "ours" else theirs_2mm
    mask = has_label(subset.corpus, TOPIC, 0.1)
    assert int(mask.sum()) == 150
    assert set(subset.corpus.attrs["spaces"]) == {"MNI", "TAL", "UNKNOWN"}
    assert_maps_agree(our_maps(subset, mask, space), peer_fit(subset, mask.values, space))


@pytest.mark.realdata
def test_activation_maps__real_studies_of_every_space(subset: Database, theirs_2mm: Space) -> None:
    first = np.append(0, np.cumsum(subset.corpus["analysis_n_foci"].values)[:-1])
    codes = subset.corpus["focus_space"].values[first]
    mask = np.zeros(400, dtype=bool)
    for code in range(3):
        mask[np.flatnonzero(codes == code)[:15]] = True
    assert mask.sum() == 45
    check_activation(subset, mask, theirs_2mm)
    check_activation(subset, mask, load_space("mni152_2mm"))


@pytest.mark.realdata
def test_fit_features__real_subset_equals_correlation_decoder(
    subset: Database, theirs_2mm: Space
) -> None:
    # The decoder makes its maps in the mask of the studyset, whatever its estimator's is.
    with quiet():
        from nimare.decode.continuous import CorrelationDecoder
        from nimare.meta.cbma.mkda import MKDAChi2 as PeerEstimator

        features = [PREFIX + name for name in (TOPIC, *OTHERS)]
        decoder = CorrelationDecoder(
            features=features, frequency_threshold=0.1, meta_estimator=PeerEstimator()
        )
        decoder.fit(subset.studyset)
    peers = decoder.results_.maps
    ours = MKDAChi2().fit_features(
        subset.corpus, features=features, threshold=0.1, space=theirs_2mm
    )
    assert set(peers) == set(features)
    z = ours["z"].sel(effect="association").compute()
    for feature in features:
        assert_allclose(z.sel(feature=feature), peers[feature], rtol=ONE_FLOAT32, err_msg=feature)


# thousands of studies; z of all of Neurosynth is held beside NiMARE's by tests/benchmarks


@pytest.mark.slow
@pytest.mark.realdata
def test_fit__thousands_of_studies(data_folder: Path, theirs_2mm: Space, tmp_path: Path) -> None:
    assert active_client() is None
    database = open_database(real_subset(tmp_path, data_folder / "neurosynth", TOPIC, 700, 2500))
    mask = has_label(database.corpus, TOPIC, 0.1)
    ours = our_maps(database, mask, theirs_2mm)
    assert_maps_agree(ours, peer_fit(database, mask.values, theirs_2mm))
    features = MKDAChi2().fit_features(
        database.corpus, features=[TOPIC], threshold=0.1, space=theirs_2mm
    )
    z = features["z"].sel(effect="association").compute().values[0]
    assert_array_equal(z, ours["z_desc-association"])
