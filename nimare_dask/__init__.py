"""Meta-analysis of the neuroimaging literature as a distributed dataflow on Dask, xarray and zarr.

.. code-block:: python

    import nimare_dask as nd

    corpus = nd.read_neurosynth(coordinates, metadata, features=[(npz, vocabulary)])
    terms = nd.MKDAChi2(kernel=nd.MKDAKernel(r=10)).fit_features(corpus, threshold=0.001)
    nd.save_result(terms[["z"]], "terms.zarr")

Names are loaded when they are first used, so that importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nimare_dask._version import __version__
from nimare_dask.config import choose_numba_cache

choose_numba_cache()

if TYPE_CHECKING:
    from nimare_dask import corpus
    from nimare_dask.activation import MKDAKernel, activation_maps
    from nimare_dask.corpus import open_corpus, save_corpus
    from nimare_dask.correct import correct_fdr
    from nimare_dask.errors import (
        CorpusWarning,
        DownloadError,
        NimareDaskError,
        SchemaError,
        SelectionError,
        SettingsError,
        SourceFormatError,
        StoreExistsError,
        UnknownLabelError,
        WorkerError,
    )
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.io.neurosynth import read_neurosynth
    from nimare_dask.io.nifti import get_map, to_nifti
    from nimare_dask.io.results import open_result, save_result
    from nimare_dask.selection import has_label, select
    from nimare_dask.simulate import simulate_corpus
    from nimare_dask.space import Space, load_space

#: Where each public name lives.
_HOME = {
    "CorpusWarning": "errors",
    "DownloadError": "errors",
    "MKDAChi2": "estimators.mkda_chi2",
    "MKDAKernel": "activation",
    "NimareDaskError": "errors",
    "SchemaError": "errors",
    "SelectionError": "errors",
    "SettingsError": "errors",
    "SourceFormatError": "errors",
    "Space": "space",
    "StoreExistsError": "errors",
    "UnknownLabelError": "errors",
    "WorkerError": "errors",
    "activation_maps": "activation",
    "correct_fdr": "correct",
    "get_map": "io.nifti",
    "has_label": "selection",
    "load_space": "space",
    "open_corpus": "corpus",
    "open_result": "io.results",
    "read_neurosynth": "io.neurosynth",
    "save_corpus": "corpus",
    "save_result": "io.results",
    "select": "selection",
    "simulate_corpus": "simulate",
    "to_nifti": "io.nifti",
}

__all__ = [
    "CorpusWarning",
    "DownloadError",
    "MKDAChi2",
    "MKDAKernel",
    "NimareDaskError",
    "SchemaError",
    "SelectionError",
    "SettingsError",
    "SourceFormatError",
    "Space",
    "StoreExistsError",
    "UnknownLabelError",
    "WorkerError",
    "__version__",
    "activation_maps",
    "corpus",
    "correct_fdr",
    "get_map",
    "has_label",
    "load_space",
    "open_corpus",
    "open_result",
    "read_neurosynth",
    "save_corpus",
    "save_result",
    "select",
    "simulate_corpus",
    "to_nifti",
]


def __getattr__(name: str) -> Any:
    if name == "corpus":
        value = import_module("nimare_dask.corpus")
    elif name in _HOME:
        value = getattr(import_module(f"nimare_dask.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'nimare_dask' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
