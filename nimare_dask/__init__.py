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
    from nimare_dask.activation import activation_maps, foci_pool
    from nimare_dask.coactivations import coactivation
    from nimare_dask.contrasts import conjunction, contrast
    from nimare_dask.corpus import open_corpus, save_corpus
    from nimare_dask.correct import correct_bonferroni, correct_fdr
    from nimare_dask.errors import (
        CorpusWarning,
        DownloadError,
        NimareDaskError,
        SchemaError,
        SelectionError,
        SettingsError,
        SourceFormatError,
        StoreAccessError,
        StoreExistsError,
        UnknownLabelError,
        WorkerError,
    )
    from nimare_dask.estimators.ale import ALE
    from nimare_dask.estimators.ale_subtraction import ALESubtraction
    from nimare_dask.estimators.balanced import BalancedALESubtraction
    from nimare_dask.estimators.kda import KDA
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.estimators.mkda_density import MKDADensity, StudyWeights
    from nimare_dask.estimators.scale import SCALE
    from nimare_dask.expressions import expression
    from nimare_dask.footprint import ALEKernel, KDAKernel, MKDAKernel
    from nimare_dask.fwe import correct_fwe
    from nimare_dask.io.dataset_json import read_nimare_dataset
    from nimare_dask.io.formats import read_studies, validate, write_studies
    from nimare_dask.io.neurostore import NeuroStore
    from nimare_dask.io.neurosynth import read_neurosynth
    from nimare_dask.io.neurosynth_files import write_neurosynth
    from nimare_dask.io.neurovault import NeuroVault, NeuroVaultImage
    from nimare_dask.io.nifti import get_map, to_nifti
    from nimare_dask.io.nimads import read_nimads
    from nimare_dask.io.nimads_write import write_nimads
    from nimare_dask.io.parquet import read_parquet
    from nimare_dask.io.parquet_write import write_parquet
    from nimare_dask.io.pubget import read_pubget
    from nimare_dask.io.results import open_result, save_result
    from nimare_dask.io.sleuth import read_sleuth
    from nimare_dask.io.sleuth_writer import write_sleuth
    from nimare_dask.io.table import read_table
    from nimare_dask.io.table_writer import write_table
    from nimare_dask.merging import merge
    from nimare_dask.metadata import get_metadata, has_images, has_sample_size, where_metadata
    from nimare_dask.nearby import (
        FocusFilter,
        focus_filter,
        has_focus_in,
        has_focus_near,
        nearest_analyses,
    )
    from nimare_dask.nulls.label_permutation import (
        feature_null,
        label_permutation_null,
        random_foci_null,
    )
    from nimare_dask.nulls.monte_carlo import monte_carlo_null
    from nimare_dask.nulls.relocation import Enhancement
    from nimare_dask.nulls.stored import extend_null, open_null, run_batches
    from nimare_dask.parallel.clusters import cluster
    from nimare_dask.pooling import combine_analyses
    from nimare_dask.selection import has_label, is_analysis, is_study, select
    from nimare_dask.simulate import simulate_corpus
    from nimare_dask.space import Space, load_space
    from nimare_dask.targets import Targets, grid_targets, parcel_targets, voxel_targets

#: Where each public name lives.
_HOME = {
    "ALE": "estimators.ale",
    "ALEKernel": "footprint",
    "ALESubtraction": "estimators.ale_subtraction",
    "BalancedALESubtraction": "estimators.balanced",
    "CorpusWarning": "errors",
    "DownloadError": "errors",
    "Enhancement": "nulls.relocation",
    "FocusFilter": "nearby",
    "KDA": "estimators.kda",
    "KDAKernel": "footprint",
    "MKDAChi2": "estimators.mkda_chi2",
    "MKDADensity": "estimators.mkda_density",
    "MKDAKernel": "footprint",
    "NeuroStore": "io.neurostore",
    "NeuroVault": "io.neurovault",
    "NeuroVaultImage": "io.neurovault",
    "NimareDaskError": "errors",
    "SCALE": "estimators.scale",
    "SchemaError": "errors",
    "SelectionError": "errors",
    "SettingsError": "errors",
    "SourceFormatError": "errors",
    "Space": "space",
    "StoreAccessError": "errors",
    "StoreExistsError": "errors",
    "StudyWeights": "estimators.mkda_density",
    "Targets": "targets",
    "UnknownLabelError": "errors",
    "WorkerError": "errors",
    "activation_maps": "activation",
    "cluster": "parallel.clusters",
    "coactivation": "coactivations",
    "combine_analyses": "pooling",
    "conjunction": "contrasts",
    "contrast": "contrasts",
    "correct_bonferroni": "correct",
    "correct_fdr": "correct",
    "correct_fwe": "fwe",
    "expression": "expressions",
    "extend_null": "nulls.stored",
    "feature_null": "nulls.label_permutation",
    "foci_pool": "activation",
    "focus_filter": "nearby",
    "get_map": "io.nifti",
    "get_metadata": "metadata",
    "grid_targets": "targets",
    "has_focus_in": "nearby",
    "has_focus_near": "nearby",
    "has_images": "metadata",
    "has_label": "selection",
    "has_sample_size": "metadata",
    "is_analysis": "selection",
    "is_study": "selection",
    "label_permutation_null": "nulls.label_permutation",
    "load_space": "space",
    "merge": "merging",
    "monte_carlo_null": "nulls.monte_carlo",
    "nearest_analyses": "nearby",
    "open_corpus": "corpus",
    "open_null": "nulls.stored",
    "open_result": "io.results",
    "parcel_targets": "targets",
    "random_foci_null": "nulls.label_permutation",
    "read_neurosynth": "io.neurosynth",
    "read_nimads": "io.nimads",
    "read_nimare_dataset": "io.dataset_json",
    "read_parquet": "io.parquet",
    "read_pubget": "io.pubget",
    "read_sleuth": "io.sleuth",
    "read_studies": "io.formats",
    "read_table": "io.table",
    "run_batches": "nulls.stored",
    "save_corpus": "corpus",
    "save_result": "io.results",
    "select": "selection",
    "simulate_corpus": "simulate",
    "to_nifti": "io.nifti",
    "validate": "io.formats",
    "voxel_targets": "targets",
    "where_metadata": "metadata",
    "write_neurosynth": "io.neurosynth_files",
    "write_nimads": "io.nimads_write",
    "write_parquet": "io.parquet_write",
    "write_sleuth": "io.sleuth_writer",
    "write_studies": "io.formats",
    "write_table": "io.table_writer",
}

__all__ = [
    "ALE",
    "ALEKernel",
    "ALESubtraction",
    "BalancedALESubtraction",
    "CorpusWarning",
    "DownloadError",
    "Enhancement",
    "FocusFilter",
    "KDA",
    "KDAKernel",
    "MKDAChi2",
    "MKDADensity",
    "MKDAKernel",
    "NeuroStore",
    "NeuroVault",
    "NeuroVaultImage",
    "NimareDaskError",
    "SCALE",
    "SchemaError",
    "SelectionError",
    "SettingsError",
    "SourceFormatError",
    "Space",
    "StoreAccessError",
    "StoreExistsError",
    "StudyWeights",
    "Targets",
    "UnknownLabelError",
    "WorkerError",
    "__version__",
    "activation_maps",
    "cluster",
    "coactivation",
    "combine_analyses",
    "conjunction",
    "contrast",
    "corpus",
    "correct_bonferroni",
    "correct_fdr",
    "correct_fwe",
    "expression",
    "extend_null",
    "feature_null",
    "foci_pool",
    "focus_filter",
    "get_map",
    "get_metadata",
    "grid_targets",
    "has_focus_in",
    "has_focus_near",
    "has_images",
    "has_label",
    "has_sample_size",
    "is_analysis",
    "is_study",
    "label_permutation_null",
    "load_space",
    "merge",
    "monte_carlo_null",
    "nearest_analyses",
    "open_corpus",
    "open_null",
    "open_result",
    "parcel_targets",
    "random_foci_null",
    "read_neurosynth",
    "read_nimads",
    "read_nimare_dataset",
    "read_parquet",
    "read_pubget",
    "read_sleuth",
    "read_studies",
    "read_table",
    "run_batches",
    "save_corpus",
    "save_result",
    "select",
    "simulate_corpus",
    "to_nifti",
    "validate",
    "voxel_targets",
    "where_metadata",
    "write_neurosynth",
    "write_nimads",
    "write_parquet",
    "write_sleuth",
    "write_studies",
    "write_table",
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
