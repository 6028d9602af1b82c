"""Results as NIfTI images, each with a JSON sidecar that says where it came from."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from nimare_dask import results
from nimare_dask.errors import UnknownLabelError, find_label
from nimare_dask.provenance import steps

if TYPE_CHECKING:
    import nibabel as nib


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
    import nibabel as nib

    volume = results.to_volume(maps, results.find_map(maps, name, **labels))
    image = nib.Nifti1Image(volume, np.asarray(maps.attrs["affine"], dtype=np.float64))
    image.header.set_xyzt_units("mm")
    code = "mni" if maps.attrs.get("reference") == "MNI" else "talairach"
    image.set_sform(image.affine, code=code)
    image.set_qform(image.affine, code=code)
    return image


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
    chosen = list(known) if names is None else [*names]
    chosen = [list(known)[find_label(list(known), name, "map")] for name in chosen]
    has_features = "feature" in maps.dims
    if features is not None and not has_features:
        raise UnknownLabelError("The result is not about features, so none can be chosen.")
    labels = [str(label) for label in maps["feature"].values] if has_features else []
    if features is not None:
        labels = [labels[find_label(labels, name, "feature")] for name in features]
    target, paths = Path(folder), []
    for name in chosen:
        per_feature = has_features and "feature" in maps[known[name].variable].dims
        for feature in labels if per_feature else [None]:
            place = target / file_safe(feature) if feature is not None else target
            paths.append(_write(maps, known[name], feature, place))
    return paths


def file_safe(label: str) -> str:
    """A label as the name of a file or folder."""
    return re.sub(r"[^\w.+-]+", "_", label).strip("._") or "_"


def _write(maps: xr.Dataset, key: results.MapKey, feature: str | None, folder: Path) -> Path:
    labels = dict(key.labels) | ({"feature": feature} if feature is not None else {})
    image = get_map(maps, key.variable, **labels)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key.name}.nii.gz"
    partial = folder / f".{key.name}.part.nii.gz"
    image.to_filename(partial)
    (folder / f"{key.name}.json").write_text(json.dumps(_sidecar(maps, key, feature), indent=2))
    partial.replace(path)
    return path


def _sidecar(maps: xr.Dataset, key: results.MapKey, feature: str | None) -> dict[str, Any]:
    done = steps(maps)
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
