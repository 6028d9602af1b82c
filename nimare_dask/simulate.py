"""Simulated corpora whose truth is known, of any size up to a whole literature."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from nimare_dask import corpus as _corpus
from nimare_dask.errors import SettingsError
from nimare_dask.provenance import with_step
from nimare_dask.schema import describe
from nimare_dask.space import Space, load_space, voxel_to_mm


def simulate_corpus(
    n_analyses: int,
    *,
    n_foci: int | None = None,
    n_features: int = 10,
    features_per_analysis: float = 1.0,
    effects_per_feature: int = 2,
    foci_per_effect: float = 1.5,
    spread: float = 4.0,
    space: Space | str = "mni152_2mm",
    random_state: int = 0,
) -> xr.Dataset:
    """Simulate a corpus with planted effects.

    Each feature has some places in the brain. An analysis that has a feature reports foci around
    its places; all other foci fall anywhere in the mask. Analyses without signal are like the many
    of a real database whose topic is another one.

    Parameters
    ----------
    n_analyses
        Number of analyses.
    n_foci
        Number of foci in all, about 35 an analysis by default; each analysis has at least one.
    n_features
        Number of features, named ``simulated__000`` and so on.
    features_per_analysis
        Features that an analysis has, on average.
    effects_per_feature
        Places of each feature.
    foci_per_effect
        Foci that an analysis with the feature reports around each place, on average.
    spread
        Standard deviation of those foci around the place, in mm on each axis.
    space
        Where foci can be, see :func:`~nimare_dask.space.load_space`.
    random_state
        Seed; the same seed gives the same corpus.

    Returns
    -------
    corpus
        With ``truth_xyz`` (truth, axis) in mm and ``truth_feature`` (truth), the planted places.

    Raises
    ------
    SettingsError
        When there are fewer foci than analyses, or a number cannot be.
    """
    total = 35 * n_analyses if n_foci is None else n_foci
    counts = {
        "n_analyses": n_analyses,
        "n_foci": total,
        "n_features": n_features,
        "effects_per_feature": effects_per_feature,
    }
    amounts = {
        "features_per_analysis": features_per_analysis,
        "foci_per_effect": foci_per_effect,
        "spread": spread,
        "random_state": random_state,
    }
    _check(counts, amounts)
    volume = load_space(space)
    rng = np.random.default_rng(np.random.SeedSequence(random_state))
    centres = voxel_to_mm(volume.voxel_ijk, volume.affine)
    truth = _apart(centres, n_features * effects_per_feature, rng)
    truth_feature = np.repeat(np.arange(n_features), effects_per_feature)
    size = rng.binomial(n_analyses, min(1.0, features_per_analysis / n_features), n_features)
    feature = np.repeat(np.arange(n_features), size)
    analysis = np.concatenate([_draw(rng, n_analyses, count) for count in size])

    # Foci that each analysis with a feature has at each of its places.
    per_effect = rng.poisson(foci_per_effect, (len(feature), effects_per_feature))
    place = feature[:, None] * effects_per_feature + np.arange(effects_per_feature)
    signal_owner, signal_place, noise_owner = _share_out(
        np.repeat(np.repeat(analysis, effects_per_feature), per_effect.ravel()),
        np.repeat(place.ravel(), per_effect.ravel()),
        n_analyses,
        total,
        rng,
    )
    noise = centres[rng.integers(len(centres), size=len(noise_owner))]
    signal = truth[signal_place] + rng.normal(0.0, spread, (len(signal_owner), 3))

    owner = np.concatenate([signal_owner, noise_owner])
    order = np.argsort(owner, kind="stable")
    xyz = np.round(np.concatenate([signal, noise])[order])
    weight = rng.uniform(0.1, 1.0, len(feature))
    weights = csc_matrix((weight, (analysis, feature)), shape=(n_analyses, n_features))
    ids = np.array([f"simulated{index:06d}" for index in range(n_analyses)], dtype=object)
    corpus = _corpus.build(
        analysis_id=ids + "-1",
        study_id=ids,
        n_foci=np.bincount(owner, minlength=n_analyses),
        xyz=xyz,
        focus_space=np.zeros(len(xyz), np.int8),
        spaces=[volume.reference],
        feature=[f"simulated__{index:03d}" for index in range(n_features)],
        weights=weights,
    )
    corpus = corpus.assign(
        truth_xyz=(("truth", "axis"), truth), truth_feature=("truth", truth_feature)
    )
    settings = {**counts, "space": volume.name, **amounts}
    return with_step(describe(corpus), "simulate_corpus", settings=settings)


def _check(counts: dict[str, int], amounts: dict[str, float]) -> None:
    if any(int(count) != count for count in counts.values()):
        raise SettingsError("The numbers of analyses, foci, features and effects must be whole.")
    for name in ("n_analyses", "n_features", "effects_per_feature"):
        if counts[name] < 1:
            raise SettingsError(f"{name} is {counts[name]}; it must be at least 1.")
    for name, amount in amounts.items():
        if not (np.isfinite(amount) and amount >= 0):
            raise SettingsError(f"{name} is {amount}; expected a number that is at least 0.")
    if counts["n_foci"] < counts["n_analyses"]:
        raise SettingsError(
            f"n_foci is {counts['n_foci']:,} for {counts['n_analyses']:,} analyses; each analysis "
            "needs at least one."
        )


def _share_out(
    owner: NDArray[np.int64],
    place: NDArray[np.int64],
    n_analyses: int,
    total: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Fit signal foci into the number of all foci, and give the rest away as noise.

    Returns the analysis and the place of each signal focus, and the analysis of each noise focus.
    Noise fills up to the number asked for; an analysis without signal has one at least.
    """
    everyone = np.arange(n_analyses)
    bare = np.setdiff1d(everyone, owner)
    room = max(0, total - len(bare))
    if len(owner) > room:
        kept = np.sort(rng.choice(len(owner), room, replace=False))
        owner, place = owner[kept], place[kept]
        bare = np.setdiff1d(everyone, owner)
        owner, place = _trim(owner, place, total - len(bare))
    n_noise = max(0, total - len(owner) - len(bare))
    return owner, place, np.concatenate([bare, rng.integers(n_analyses, size=n_noise)])


def _draw(rng: np.random.Generator, n: int, size: int) -> NDArray[np.int64]:
    return np.sort(rng.choice(n, size, replace=False, shuffle=False))


def _trim(
    owner: NDArray[np.int64], place: NDArray[np.int64], room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Drop foci of analyses that have several until `room` are left; none loses its last."""
    first = np.zeros(len(owner), bool)
    first[np.unique(owner, return_index=True)[1]] = True
    extra = np.flatnonzero(~first)
    drop = extra[: max(0, len(owner) - room)]
    return np.delete(owner, drop), np.delete(place, drop)


def _apart(
    centres: NDArray[np.float64], n: int, rng: np.random.Generator, distance: float = 20.0
) -> NDArray[np.float64]:
    """Draw places at least `distance` mm apart, as long as there is room for that."""
    free = np.ones(len(centres), bool)
    chosen = np.empty((n, 3))
    for index in range(n):
        candidates = np.flatnonzero(free) if free.any() else np.arange(len(centres))
        chosen[index] = centres[candidates[rng.integers(len(candidates))]]
        free &= ((centres - chosen[index]) ** 2).sum(axis=1) >= distance**2
    return chosen
