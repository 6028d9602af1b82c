"""Results as NIfTI images, each with a JSON sidecar that says where it came from."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.errors import UnknownLabelError, find_label
from nimare_dask.parallel.places import refuse_address
from nimare_dask.provenance import steps

if TYPE_CHECKING:
    import nibabel as nib


#: Maps that are computed or read together.
_AT_ONCE = 64


def get_map(maps: xr.Dataset, name: str, **labels: str) -> nib.Nifti1Image:
    """One map of a result as an image.

    Parameters
    ----------
    maps
        A result.
    name
        Name of a map (``"z_desc-association"``) or of a variable (``"z"``).
    **labels
        ``effect=``, ``probability=`` or ``feature=`` where the name leaves a choice.

    Returns
    -------
    image
        float32 in the grid of the mask; 0 outside the mask.

    Raises
    ------
    UnknownLabelError
        When there is no such map, or more than one.
    """
    return _image(maps, results.find_map(maps, name, **labels))


def to_nifti(
    maps: xr.Dataset,
    folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
) -> list[Path]:
    """Write maps as ``<name>.nii.gz``, each beside a ``<name>.json``.

    Names are NiMARE's (``z_desc-association``, ``logp``, ...). The maps of a feature go into a
    folder of its name.

    Parameters
    ----------
    maps
        A result.
    folder
        Where to write; made when it is not there.
    names
        Which maps; all by default.
    features
        Which features; all by default.

    Returns
    -------
    paths
        The images, in the order in which they were written.

    Raises
    ------
    UnknownLabelError
        When a map or feature is not there; nothing is written then.
    """
    known = {key.name: key for key in results.map_keys(maps)}
    names = [names] if isinstance(names, str) else names
    features = [features] if isinstance(features, str) else features
    chosen = list(known) if names is None else [*names]
    chosen = [list(known)[find_label(list(known), name, "map")] for name in chosen]
    has_features = "feature" in maps.dims
    if features is not None and not has_features:
        raise UnknownLabelError("The result is not about features, so none can be chosen.")
    labels = [str(label) for label in maps["feature"].values] if has_features else []
    if features is not None:
        places = [find_label(labels, name, "feature") for name in features]
        labels = [labels[place] for place in dict.fromkeys(places)]
    folders = _feature_folders(labels)
    refuse_address(folder, "images")
    target, paths = Path(folder), []
    for name in chosen:
        key, place = known[name], target
        array = maps[key.variable].sel(key.labels)
        if "feature" not in array.dims:
            paths.append(_write(maps, key, None, array.values, place))
            continue
        # Some maps at a time: a lazy map costs little more together with others of its block.
        for start in range(0, len(labels), _AT_ONCE):
            some = labels[start : start + _AT_ONCE]
            values = array.sel(feature=some).transpose("feature", "voxel").values
            for feature, map_values in zip(some, values, strict=True):
                place = target / folders[feature]
                paths.append(_write(maps, key, feature, map_values, place))
    return paths


def file_safe(label: str) -> str:
    """A label as the name of a file or folder."""
    return re.sub(r"[^\w.+-]+", "_", label).strip("._") or "_"


def _feature_folders(labels: Sequence[str]) -> dict[str, str]:
    """A folder for each feature; where two names would be one, a digest tells them apart."""
    names = {label: file_safe(label) for label in labels}
    count = Counter(name.casefold() for name in names.values())
    return {
        label: name
        if count[name.casefold()] == 1
        else f"{name}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
        for label, name in names.items()
    }


def _image(maps: xr.Dataset, values: NDArray[np.float32]) -> nib.Nifti1Image:
    import nibabel as nib

    volume = results.to_volume(maps, values)
    image = nib.Nifti1Image(volume, np.asarray(maps.attrs["affine"], dtype=np.float64))
    image.header.set_xyzt_units("mm")
    code = "mni" if maps.attrs.get("reference") == "MNI" else "talairach"
    image.set_sform(image.affine, code=code)
    image.set_qform(image.affine, code=code)
    return image


def _write(
    maps: xr.Dataset,
    key: results.MapKey,
    feature: str | None,
    values: NDArray[np.float32],
    folder: Path,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key.name}.nii.gz"
    partial = folder / f".{key.name}.part.nii.gz"
    _image(maps, values).to_filename(partial)
    (folder / f"{key.name}.json").write_text(json.dumps(_sidecar(maps, key, feature), indent=2))
    partial.replace(path)
    return path


def _sidecar(maps: xr.Dataset, key: results.MapKey, feature: str | None) -> dict[str, Any]:
    # A step that says which maps it makes is no part of where the others came from.
    done = [step for step in steps(maps) if key.variable in step.get("makes", [key.variable])]
    sidecar: dict[str, Any] = {"map": key.name, **key.labels}
    if feature is not None:
        sidecar["feature"] = feature
        if "n_selected" in maps:
            at = [str(label) for label in maps["feature"].values].index(feature)
            sidecar["n_selected"] = int(maps["n_selected"].values[at])
    sidecar["description"] = maps[key.variable].attrs.get("long_name", "")
    sidecar["space"] = {
        name: maps.attrs.get(name) for name in ("space", "reference", "shape", "affine")
    }
    sidecar["n_voxels"] = maps.sizes["voxel"]
    sidecar["provenance"] = done
    sidecar["references"] = {
        name: text for step in done for name, text in step.get("references", {}).items()
    }
    return sidecar
