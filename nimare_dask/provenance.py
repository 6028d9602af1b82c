"""Where a result came from: content digests, settings, versions and papers."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import xarray as xr

from nimare_dask._version import __version__

#: What each result rests on, by key.
REFERENCES = {
    "wager2007": "Wager TD, Lindquist M, Kaplan L (2007). Meta-analysis of functional neuroimaging "
    "data: current and future directions. SCAN 2(2):150-158. doi:10.1093/scan/nsm015",
    "yarkoni2011": "Yarkoni T, Poldrack RA, Nichols TE, Van Essen DC, Wager TD (2011). Large-scale "
    "automated synthesis of human functional neuroimaging data. Nature Methods 8:665-670. "
    "doi:10.1038/nmeth.1635",
    "lancaster2007": "Lancaster JL, et al. (2007). Bias between MNI and Talairach coordinates "
    "analyzed using the ICBM-152 brain template. Human Brain Mapping 28(11):1194-1205. "
    "doi:10.1002/hbm.20345",
    "turkeltaub2002": "Turkeltaub PE, Eden GF, Jones KM, Zeffiro TA (2002). Meta-analysis of the "
    "functional neuroanatomy of single-word reading: method and validation. NeuroImage "
    "16(3):765-780. doi:10.1006/nimg.2002.1131",
    "laird2005": "Laird AR, et al. (2005). ALE meta-analysis: controlling the false discovery rate "
    "and performing statistical contrasts. Human Brain Mapping 25(1):155-164. "
    "doi:10.1002/hbm.20136",
    "nichols2005": "Nichols T, Brett M, Andersson J, Wager T, Poline JB (2005). Valid conjunction "
    "inference with the minimum statistic. NeuroImage 25(3):653-660. "
    "doi:10.1016/j.neuroimage.2004.12.005",
    "jale": "Frahm L, Hoffstaedter F, et al. JALE, software for ALE meta-analysis: balanced "
    "contrasts of groups of different size.",
    "eickhoff2012": "Eickhoff SB, Bzdok D, Laird AR, Kurth F, Fox PT (2012). Activation likelihood "
    "estimation meta-analysis revisited. NeuroImage 59(3):2349-2361. "
    "doi:10.1016/j.neuroimage.2011.09.017",
    "eickhoff2016": "Eickhoff SB, et al. (2016). Behavior, sensitivity, and power of activation "
    "likelihood estimation characterized by massive empirical simulation. NeuroImage 137:70-85. "
    "doi:10.1016/j.neuroimage.2016.04.072",
    "wager2003": "Wager TD, Phan KL, Liberzon I, Taylor SF (2003). Valence, gender, and "
    "lateralization of functional brain anatomy in emotion. NeuroImage 19(3):513-531. "
    "doi:10.1016/S1053-8119(03)00078-8",
    "wager2004": "Wager TD, Jonides J, Reading S (2004). Neuroimaging studies of shifting "
    "attention: a meta-analysis. NeuroImage 22(4):1679-1693. doi:10.1016/j.neuroimage.2004.03.052",
    "wager2009": "Wager TD, Lindquist MA, Nichols TE, Kober H, Van Snellenberg JX (2009). "
    "Evaluating the consistency and specificity of neuroimaging data using meta-analysis. "
    "NeuroImage 45(1 Suppl):S210-S221. doi:10.1016/j.neuroimage.2008.10.061",
    "robinson2010": "Robinson JL, Laird AR, Glahn DC, Lovallo WR, Fox PT (2010). Metaanalytic "
    "connectivity modeling: delineating the functional connectivity of the human amygdala. Human "
    "Brain Mapping 31(2):173-184. doi:10.1002/hbm.20854",
    "langner2014": "Langner R, Rottschy C, Laird AR, Fox PT, Eickhoff SB (2014). Meta-analytic "
    "connectivity modeling revisited: controlling for activation base rates. NeuroImage "
    "99:559-570. doi:10.1016/j.neuroimage.2014.06.007",
    "benjamini1995": "Benjamini Y, Hochberg Y (1995). Controlling the false discovery rate. JRSS B "
    "57(1):289-300. doi:10.1111/j.2517-6161.1995.tb02031.x",
    "benjamini2001": "Benjamini Y, Yekutieli D (2001). The control of the false discovery rate in "
    "multiple testing under dependency. Annals of Statistics 29(4):1165-1188. "
    "doi:10.1214/aos/1013699998",
}

_ATTRIBUTE = "provenance"


def digest_values(values: np.ndarray[Any, Any]) -> str:
    """SHA-256 of an array: its shape, type and values, not how they are stored."""
    hasher = hashlib.sha256(str(values.shape).encode())
    if values.dtype.kind in "UOT":
        # Lengths first, so that moving a character from one string to the next changes the digest.
        texts = [str(text) for text in values.ravel().tolist()]
        lengths = np.fromiter((len(text) for text in texts), "<i8", len(texts))
        hasher.update(b"text" + lengths.tobytes())
        hasher.update("".join(texts).encode("utf-8", "surrogatepass"))
    else:
        little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
        hasher.update(little.dtype.str.encode() + b"|")
        hasher.update(little.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def digest_dataset(dataset: xr.Dataset, attributes: Iterable[str] = ()) -> str:
    """SHA-256 of all variables of `dataset` and of the attributes named."""
    parts = {str(name): digest_values(dataset[name].values) for name in dataset.variables}
    kept = {name: dataset.attrs.get(name) for name in attributes}
    return hashlib.sha256(json.dumps([parts, kept], sort_keys=True).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of what computes a result; looked up once."""
    found = {"nimare_dask": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "numba", "dask", "xarray", "zarr"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # pragma: no cover - an unusual installation
            found[name] = "unknown"
    return found


def steps(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The steps that led to `dataset`, oldest first."""
    return list(json.loads(dataset.attrs.get(_ATTRIBUTE, "[]")))


def _plain(value: Any) -> Any:
    """What JSON can hold of a numpy number or array, or of a path."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def plain(value: Any) -> Any:
    """The same value as JSON has it: numbers of numpy, paths and tuples become plain ones."""
    return json.loads(json.dumps(value, default=_plain))


def with_step(
    dataset: xr.Dataset,
    name: str,
    *,
    settings: Mapping[str, Any] | None = None,
    references: Iterable[str] = (),
    **facts: Any,
) -> xr.Dataset:
    """Add one step to the provenance of `dataset` (a shallow copy).

    Parameters
    ----------
    dataset
        Any dataset.
    name
        What was done, in a word or two.
    settings
        Parameters of the step; must survive JSON.
    references
        Keys of :data:`REFERENCES`.
    **facts
        Anything else to keep: counts, digests, seeds.
    """
    step = {"step": name, "settings": dict(settings or {}), **facts, "versions": versions()}
    step["references"] = {key: REFERENCES[key] for key in references}
    return dataset.assign_attrs({_ATTRIBUTE: json.dumps([*steps(dataset), step], default=_plain)})
