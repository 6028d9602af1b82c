"""Contrasts of two groups by way of their main effects, and what two maps have in common."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.correct import correct_bonferroni, correct_fdr
from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.ale_subtraction import EFFECT, ALESubtraction
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.estimators.mkda_density import MKDADensity
from nimare_dask.estimators.two_groups import pool
from nimare_dask.fwe import correct_fwe
from nimare_dask.nulls.label_permutation import label_permutation_null
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.nulls.scheme import check_asked
from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.places import AnyPath, place
from nimare_dask.provenance import with_step
from nimare_dask.results import find_map
from nimare_dask.schema import describe
from nimare_dask.space import Space, load_space

Correction = Literal["fdr", "bonferroni", "fwe"]

#: Effects that a contrast adds to those of its estimator.
MAIN_EFFECTS = ("group1MainEffect", "group2MainEffect", "conjunction", "contrast")


def contrast(
    group1: xr.Dataset,
    group2: xr.Dataset,
    *,
    pairwise: ALESubtraction | MKDAChi2 | None = None,
    main: ALE | MKDADensity | None = None,
    correct: Correction = "fdr",
    alpha: float = 0.05,
    space: Space | str = "mni152_2mm",
    n_iters: int = 5000,
    voxel_thresh: float | None = 0.001,
    random_state: int | None = None,
    store: str | AnyPath | None = None,
    report: Report | None = None,
) -> xr.Dataset:
    """Find where each group is active, and compare the groups there only.

    Main effects come first: each group is fitted and corrected by itself. Then group 1 is asked to
    be higher only where its own main effect is significant, and group 2 likewise, so that a
    difference is not found where neither group is active.

    Parameters
    ----------
    group1, group2
        Corpora with no analysis in common.
    pairwise
        What compares the groups: ALESubtraction (by default) or MKDAChi2.
    main
        What each group is fitted with; by default ALE for ALESubtraction and MKDADensity for
        MKDAChi2, with the same kernel.
    correct
        How main effects are corrected: ``"fdr"`` (Benjamini-Hochberg), ``"bonferroni"``, or
        ``"fwe"``, by the size of clusters.
    alpha
        Largest corrected p of a main effect, and largest uncorrected p of the contrast.
    space
        See :func:`~nimare_dask.load_space`.
    n_iters, random_state
        Of the shuffles of ALESubtraction, and of the nulls of main effects with ``"fwe"`` (that of
        group 2 has the next seed).
    voxel_thresh
        Uncorrected p that voxels of clusters are below, with ``"fwe"``.
    store
        A folder for the stores of the nulls, to go on from when interrupted.
    report
        Called with the number of iterations that are done and of all, null after null.

    Returns
    -------
    maps
        The maps of `pairwise`, one-sided for ALESubtraction, and as further effects of ``z``:
        ``group1MainEffect`` and ``group2MainEffect`` (corrected z, 0 where not significant),
        ``conjunction`` (the smaller of the two), and ``contrast`` (z where its p is at most alpha,
        0 elsewhere), the last with ``p`` and ``logp`` too. As in NiMARE's ContrastWorkflow the
        contrast itself is not corrected for the number of voxels.

    Raises
    ------
    SelectionError
        When a group has no foci, or the groups share an analysis.
    SettingsError
        For settings that cannot be, or when neither group has a significant main effect.

    References
    ----------
    Laird AR et al. (2005), doi:10.1002/hbm.20136.
    Nichols T et al. (2005), doi:10.1016/j.neuroimage.2004.12.005.
    """
    space = load_space(space)
    pairwise = pairwise or ALESubtraction()
    if not isinstance(pairwise, ALESubtraction | MKDAChi2):
        raise SettingsError(f"pairwise is {pairwise!r}; expected ALESubtraction or MKDAChi2.")
    main = main or _main_of(pairwise)
    if not isinstance(main, ALE | MKDADensity):
        raise SettingsError(f"main is {main!r}; expected ALE or MKDADensity.")
    if correct not in ("fdr", "bonferroni", "fwe"):
        raise SettingsError(f"correct is {correct!r}; expected 'fdr', 'bonferroni' or 'fwe'.")
    if not 0 < alpha < 1:
        raise SettingsError(f"alpha is {alpha!r}; expected a p value.")
    check_asked(n_iters=n_iters, voxel_thresh=voxel_thresh, random_state=random_state)
    if correct == "fwe" and voxel_thresh is None:
        raise SettingsError("voxel_thresh is None; main effects are corrected by cluster size.")
    pool(group1, group2, space)  # what cannot be compared is refused before anything is computed
    stores = None if store is None else place(store)
    iterations: dict[str, Any] = {"space": space, "n_iters": n_iters, "report": report}
    effects, seeds = [], []
    for number, corpus in enumerate((group1, group2)):
        effect, seed = _main_effect(
            main,
            corpus,
            correct,
            alpha,
            store=None if stores is None else stores / f"group{number + 1}.null.zarr",
            voxel_thresh=voxel_thresh,
            random_state=None if random_state is None else random_state + number,
            **iterations,
        )
        effects.append(effect)
        seeds.append(seed)
    if not any(effect.any() for effect in effects):
        raise SettingsError(
            f"Neither group has a significant main effect (corrected by {correct}, alpha "
            f"{alpha:g}), so there is nowhere to compare them; use a higher alpha, or compare "
            "them everywhere."
        )
    gates: Any = {"inference_map1": effects[0], "inference_map2": effects[1]}
    if isinstance(pairwise, ALESubtraction):
        null = label_permutation_null(
            pairwise,
            group1,
            group2,
            voxel_thresh=None,
            random_state=random_state,
            store=None if stores is None else stores / "contrast.null.zarr",
            **iterations,
        )
        maps = pairwise.fit(group1, group2, space=space, null=null, **gates)
        tested = EFFECT
    else:
        maps = pairwise.fit(group1, group2, space=space, **gates)
        tested = "association"
    settings = {"main": type(main).__name__, "correct": correct, "alpha": alpha}
    if correct == "fwe":
        settings |= {"n_iters": n_iters, "voxel_thresh": voxel_thresh, "random_state": seeds}
    return with_step(
        _with_effects(maps, effects, tested, alpha),
        "contrast",
        settings=settings,
        references=["laird2005", "nichols2005"],
    )


def _main_of(pairwise: ALESubtraction | MKDAChi2) -> ALE | MKDADensity:
    if isinstance(pairwise, ALESubtraction):
        return ALE(kernel=pairwise.kernel)
    return MKDADensity(kernel=pairwise.kernel)


def _main_effect(
    main: ALE | MKDADensity,
    corpus: xr.Dataset,
    correct: Correction,
    alpha: float,
    *,
    space: Space,
    **null_settings: Any,
) -> tuple[NDArray[np.float32], int | None]:
    """Corrected z of a group, 0 where its corrected p is above alpha, and the seed."""
    maps, seed = main.fit(corpus, space=space), None
    if correct == "fwe":
        null = monte_carlo_null(main, corpus, space=space, maps=maps, **null_settings)
        seed = int(null.attrs["random_state"])
        corrected = correct_fwe(maps, null).sel(inference="size")
        suffix = "fwe"
    elif correct == "fdr":
        corrected, suffix = correct_fdr(maps), "fdr_indep"
    else:
        corrected, suffix = correct_bonferroni(maps), "bonferroni"
    p, z = corrected[f"p_{suffix}"].values, corrected[f"z_{suffix}"].values
    # z of a corrected p above one half is 0 where it is one-sided; such voxels do not count.
    return np.where(p <= alpha, z, np.float32(0)), seed


def _with_effects(
    maps: xr.Dataset, effects: list[NDArray[np.float32]], effect: str, alpha: float
) -> xr.Dataset:
    """Add the main effects, what they have in common and the contrast to the maps of a pair."""
    found = maps.sel(effect=effect)
    significant = (found["p"].values <= alpha) & (found["z"].values != 0)
    contrast_z = np.where(significant, found["z"].values, 0)
    added = {
        "z": [*effects, minimum_statistic(*effects), contrast_z],
        "p": [np.where(significant, found["p"].values, 1)],
        "logp": [np.where(significant, found["logp"].values, 0)],
    }
    before = maps["effect"].values.tolist()
    labels = np.array([*before, *MAIN_EFFECTS], dtype=np.dtypes.StringDType())
    wider = maps.reindex(effect=labels)
    for name in (name for name in maps.data_vars if "effect" in maps[name].dims):
        values = wider[name].transpose("effect", "voxel").values
        rows = added.get(str(name), [])
        if rows:
            values[len(labels) - len(rows) :] = rows
        have = [*before, *(MAIN_EFFECTS[-len(rows) :] if rows else ())]
        wider[name] = (("effect", "voxel"), values.astype(np.float32), {"effects": have})
    return describe(wider.assign_attrs(maps.attrs))


def minimum_statistic(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.float32]:
    """The one that is nearer to 0 where two statistics have the same sign, and 0 elsewhere."""
    same = np.sign(one) == np.sign(two)
    smaller = np.where(np.abs(one) <= np.abs(two), one, two)
    return np.where(same, smaller, 0).astype(np.float32)


def conjunction(maps1: xr.Dataset, maps2: xr.Dataset, name: str = "z", **labels: str) -> xr.Dataset:
    """Find what two results have in common: at each voxel the weaker of two maps.

    Parameters
    ----------
    maps1, maps2
        Two results in the same space.
    name
        Name of the map in both, such as ``z`` or
        ``z_desc-size_level-cluster_corr-FWE_method-montecarlo``; thresholded or not.
    **labels
        ``effect=`` or ``feature=`` where the name leaves a choice.

    Returns
    -------
    maps
        ``z`` (effect, voxel) with the effect ``conjunction``: the value that is nearer to 0 where
        both have the same sign, and 0 elsewhere (the minimum statistic, tested against the
        conjunction null).

    Raises
    ------
    SchemaError
        When the results are of different masks.
    UnknownLabelError
        When one of them has no such map.

    References
    ----------
    Nichols T et al. (2005), doi:10.1016/j.neuroimage.2004.12.005.
    """
    if name == "p" or name.startswith(("p_", "prob")):
        raise SettingsError(
            f"name is {name!r}; a conjunction is of maps whose larger values are the stronger, "
            "such as z or logp."
        )
    for maps in (maps1, maps2):
        results.check(maps)
    places = ("voxel_i", "voxel_j", "voxel_k")
    same = all(
        maps1.attrs.get(key) == maps2.attrs.get(key) for key in ("shape", "affine", "reference")
    )
    if not same or any(not np.array_equal(maps1[place], maps2[place]) for place in places):
        raise SchemaError(
            f"The two results have different masks ({maps1.sizes['voxel']:,} and "
            f"{maps2.sizes['voxel']:,} voxels); make both with the same space."
        )
    values = minimum_statistic(find_map(maps1, name, **labels), find_map(maps2, name, **labels))
    made = xr.Dataset(
        {"z": (("effect", "voxel"), values[None])},
        coords={
            "effect": ("effect", np.array(["conjunction"], dtype=np.dtypes.StringDType())),
            **{place: maps1[place].variable for place in places},
        },
        attrs={
            key: maps1.attrs[key]
            for key in ("space", "reference", "shape", "affine", "space_digest", "provenance")
            if key in maps1.attrs
        },
    )
    return with_step(
        describe(made),
        "conjunction",
        settings={"map": name, **labels},
        references=["nichols2005"],
        other_provenance=maps2.attrs.get("provenance", "[]"),
    )
