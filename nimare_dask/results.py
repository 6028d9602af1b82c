"""Results: flat Datasets of maps over ``voxel`` that know their mask, and how maps are called.

A map is one vector over the voxels of the mask, in C order of the volume. What else tells maps
apart are dimensions with text labels: ``effect`` and ``probability`` become part of the name of a
map, as NiMARE writes it (``z_desc-association``); ``feature`` stays beside the name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import schema
from nimare_dask.errors import SchemaError, UnknownLabelError, find_label, suggest
from nimare_dask.space import Space

#: Dimensions whose labels are part of the name of a map.
_NAMED = ("effect", "probability", "inference")

#: Corrected maps by the end of their variable's name: what NiMARE appends to a map with a
#: description, and to one without. Its chi-square estimator has an FDR of its own ("indep") that
#: says the level; the generic correctors do not.
_SUFFIXES = {
    "_fdr_indep": ("_level-voxel_corr-FDR_method-indep", "_corr-FDR_method-indep"),
    "_fdr_negcorr": ("_corr-FDR_method-negcorr", "_corr-FDR_method-negcorr"),
    "_bonferroni": ("_corr-FWE_method-bonferroni", "_corr-FWE_method-bonferroni"),
}

#: Maps that null iterations corrected, by what they compare.
_INFERENCES = {
    "voxel": "_level-voxel",
    "size": "_desc-size_level-cluster",
    "mass": "_desc-mass_level-cluster",
    "tfce": "_desc-tfce_level-voxel",
}

#: The same where a map has a description.
_EFFECT_INFERENCES = {
    "voxel": "_level-voxel",
    "size": "Size_level-cluster",
    "mass": "Mass_level-cluster",
    "tfce": "Tfce_level-voxel",
}
_VOXEL = ("voxel_i", "voxel_j", "voxel_k")
_MADE_BY = "an estimator's fit() or open_result()"


def voxel_coords(space: Space) -> dict[str, tuple[str, NDArray[np.int16]]]:
    """Where each voxel is: one coordinate an axis, so that they stay with any choice of maps."""
    return {name: ("voxel", space.voxel_ijk[:, axis]) for axis, name in enumerate(_VOXEL)}


def as_result(variables: Mapping[str, Any], space: Space, coords: Mapping[str, Any]) -> xr.Dataset:
    """Make a result of map variables: adds the voxels, the mask and the affine."""
    result = xr.Dataset(
        dict(variables),
        coords={
            **coords,
            **voxel_coords(space),
        },
        attrs={
            "space": space.name,
            "reference": space.reference,
            "shape": list(space.shape),
            "affine": space.affine.tolist(),
            "space_digest": space.digest,
        },
    )
    return schema.describe(result)


def check(maps: xr.Dataset) -> None:
    """Raise SchemaError unless `maps` is a result that knows its mask."""
    schema.check(maps, _VOXEL, made_by=_MADE_BY)
    missing = [name for name in ("shape", "affine") if name not in maps.attrs]
    if missing:
        raise SchemaError(
            f"The result has no attribute {' and '.join(missing)}, so its maps have no place in "
            f"the brain. Take it from {_MADE_BY}."
        )


@dataclass(frozen=True)
class MapKey:
    """Which vector of which variable a map is."""

    name: str
    variable: str
    labels: Mapping[str, str]


def map_keys(maps: xr.Dataset) -> Iterator[MapKey]:
    """Every map of a result, features aside, with the name that NiMARE gives it."""
    for variable in map(str, maps.data_vars):
        array = maps[variable]
        if "voxel" not in array.dims or array.dtype.kind != "f":
            continue
        named = [dim for dim in array.dims if dim in _NAMED]
        if not named:
            yield MapKey(_map_name(variable), variable, {})
        # Maps of some effects may not be defined; then they are NaN, and have no name.
        defined = array.attrs.get("effects")
        for labels in product(*(maps[dim].values.tolist() for dim in named)) if named else []:
            key = dict(zip(map(str, named), labels, strict=True))
            if defined is None or key.get("effect") in defined:
                yield MapKey(_map_name(variable, **key), variable, key)


def _map_name(
    variable: str,
    *,
    effect: str | None = None,
    probability: str | None = None,
    inference: str | None = None,
) -> str:
    label = effect or probability
    if inference is not None:
        kind, what = variable.removesuffix("_fwe"), _INFERENCES[inference]
        if label is not None:
            what = f"_desc-{label}{_EFFECT_INFERENCES[inference]}"
        return f"{kind}{what}_corr-FWE_method-montecarlo"
    described, plain = "", ""
    for ours, theirs in _SUFFIXES.items():
        if variable.endswith(ours):
            variable, (described, plain) = variable.removesuffix(ours), theirs
    return f"{variable}{plain}" if label is None else f"{variable}_desc-{label}{described}"


def find_map(maps: xr.Dataset, name: str, **labels: str) -> NDArray[np.float32]:
    """Find one map by its name (``z_desc-association``) or by variable and labels.

    Parameters
    ----------
    maps
        A result.
    name
        Name of a map, or of a variable.
    **labels
        ``effect=``, ``probability=`` or ``feature=`` where the name leaves a choice.

    Returns
    -------
    values
        float32, (voxel,).

    Raises
    ------
    UnknownLabelError
        When there is no such map, or more than one.
    """
    keys = list(map_keys(maps))
    wanted = dict(labels)
    variable = name
    for key in keys:
        if key.name == name and name not in maps.data_vars:
            variable, wanted = key.variable, {**key.labels, **wanted}
            if any(wanted[dim] != label for dim, label in key.labels.items()):
                raise UnknownLabelError(
                    f"{name!r} is not a map of {labels}; leave one of them out."
                )
    if variable not in maps.data_vars:
        raise UnknownLabelError(
            f"The result has no map {name!r}. {suggest(name, [key.name for key in keys])}"
        )
    array = maps[variable]
    strange = [dim for dim in labels if dim not in array.dims]
    if strange:
        dims = ", ".join(str(dim) for dim in array.dims if dim != "voxel") or "no labels"
        raise UnknownLabelError(f"{name!r} has no {strange[0]} to choose by; it has {dims}.")
    for dim in [str(dim) for dim in array.dims if dim != "voxel"]:
        known = [str(label) for label in maps[dim].values]
        if dim not in wanted and len(known) == 1:
            wanted[dim] = known[0]
        if dim not in wanted:
            raise UnknownLabelError(
                f"{name!r} has one map for each {dim}; say {dim}=. {suggest('', known)}"
            )
        array = array.isel({dim: find_label(known, wanted[dim], dim)})
    return np.asarray(array.values, dtype=np.float32)


def to_volume(maps: xr.Dataset, values: NDArray[Any]) -> NDArray[np.float32]:
    """Put a vector over ``voxel`` into the volume; 0 outside the mask."""
    check(maps)
    volume = np.zeros(tuple(maps.attrs["shape"]), np.float32)
    volume[tuple(maps[name].values for name in _VOXEL)] = values
    return volume
