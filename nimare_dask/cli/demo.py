"""The verb demo: from the real Neurosynth, or a simulation, to maps, pictures and peaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.io.fetch import NeurosynthFiles

#: Topics shown when they are there, by a part of their names.
_SHOWN = ("pain_somato", "motor_cortex", "visual_cortex", "language_reading")
_TOPIC_THRESHOLD = 0.1


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    data: Annotated[
        Path | None, typer.Option(help="Folder with the files of Neurosynth 7, if you have them.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate a corpus; look for no data.")
    ] = False,
) -> None:
    """Make term maps of the whole Neurosynth database: images, pictures and a table of peaks."""
    import time

    from nimare_dask.cli.associate import save_features
    from nimare_dask.cli.console import peak_memory, say, sentences_for_warnings
    from nimare_dask.corpus import save_corpus
    from nimare_dask.estimators.mkda_chi2 import MKDAChi2
    from nimare_dask.parallel.places import refuse_address

    start = time.perf_counter()
    refuse_address(out, "images and tables")
    files = None if simulate else _find(data)
    with sentences_for_warnings():
        if files is not None:
            corpus, shown, threshold = _real(files)
        else:
            corpus, shown, threshold = _simulated()
        save_corpus(corpus, out / "corpus.zarr", overwrite=True)
        say(
            f"{corpus.sizes['analysis']:,} analyses and {corpus.sizes['focus']:,} foci in "
            f"{out / 'corpus.zarr'} after {time.perf_counter() - start:.1f} s."
        )
        maps = MKDAChi2().fit_features(corpus, threshold=threshold, chunks="feature")
        maps = save_features(
            maps.sel(effect=["association"]), out / "terms.zarr", fdr_method="indep", force=True
        )
    _show(maps, shown, out, corpus)
    say(
        f"Done in {time.perf_counter() - start:.0f} s, peak memory {peak_memory() / 1e9:.1f} GB: "
        f"images, pictures and peaks.tsv in {out.resolve()}"
    )


def _find(data: Path | None) -> NeurosynthFiles | None:
    """The real files: named, in $NIMARE_DASK_DATA, in the cache, or downloaded; or None."""
    from nimare_dask.cli.console import progress, say
    from nimare_dask.config import DATA_VARIABLE, cache_folder, data_folder
    from nimare_dask.errors import SourceFormatError
    from nimare_dask.io.fetch import describe_download, fetch_neurosynth, find_neurosynth

    if data is not None:
        found = find_neurosynth(data)
        if found is None:
            raise SourceFormatError(
                f"{data} does not hold all files of Neurosynth 7 (coordinates, metadata, LDA50 "
                "features and vocabulary, under their published names); leave --data out to "
                "download them."
            )
        return found
    for folder in (data_folder(), cache_folder()):
        found = find_neurosynth(folder) if folder is not None else None
        if found is not None:
            say(f"Neurosynth 7 from {folder} (Open Database License; cite Neurosynth).")
            return found
    say(describe_download())
    try:
        with progress("Downloading", "bytes") as report:
            return fetch_neurosynth(
                cache_folder(), on_progress=lambda _, done, total: report(done, total or done)
            )
    except OSError as error:  # DownloadError, or a cache folder that cannot be written
        say(
            f"No download: {error} Simulating a corpus of the same size instead; set "
            f"{DATA_VARIABLE} or --data to use the real one."
        )
        return None


def _real(files: NeurosynthFiles) -> tuple[xr.Dataset, list[str], float]:
    from nimare_dask.io.neurosynth import read_neurosynth

    corpus = read_neurosynth(
        files.coordinates, files.metadata, [(files.features, files.vocabulary)]
    )
    names = [str(name) for name in corpus["feature"].values]
    shown = [name for part in _SHOWN for name in names if part in name]
    return corpus, shown or names[:4], _TOPIC_THRESHOLD


def _simulated() -> tuple[xr.Dataset, list[str], float]:
    from nimare_dask.simulate import simulate_corpus

    # As large as Neurosynth 7.
    corpus = simulate_corpus(14_371, n_foci=507_891, n_features=50)
    return corpus, [str(name) for name in corpus["feature"].values[:4]], _TOPIC_THRESHOLD


def _show(maps: xr.Dataset, shown: list[str], out: Path, corpus: xr.Dataset) -> None:
    """Write images, pictures and peaks of a few features, and print the highest peaks."""
    import pandas as pd

    from nimare_dask.cli.console import progress, say
    from nimare_dask.io.nifti import file_safe, to_nifti
    from nimare_dask.report.figures import save_picture
    from nimare_dask.report.peaks import peak_table, significant_z, write_tsv

    to_nifti(maps, out / "maps", features=shown)
    tables = []
    with progress("Drawing", "pictures") as report:
        report(0, len(shown))
        for done, feature in enumerate(shown, start=1):
            image = significant_z(maps, effect="association", feature=feature)
            short = feature.rpartition("__")[2]
            save_picture(
                image,
                out / "pictures" / f"{file_safe(short)}.png",
                title=f"{short}: association z, FDR q < 0.05",
            )
            table = peak_table(image)
            table.insert(0, "feature", short)
            tables.append(table)
            report(done, len(shown))
    peaks = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    write_tsv(peaks, out / "peaks.tsv")
    print(peaks.groupby("feature", sort=False).head(4).to_string(index=False))
    if "truth_xyz" in corpus:
        _compare_with_truth(corpus, shown, peaks)
    say(f"{len(peaks):,} peaks of {len(shown)} features in {out / 'peaks.tsv'}.")


def _compare_with_truth(corpus: xr.Dataset, shown: list[str], peaks: object) -> None:
    """Say how far each planted place is from the nearest peak of its feature."""
    import numpy as np
    import pandas as pd

    assert isinstance(peaks, pd.DataFrame)
    names = [str(name) for name in corpus["feature"].values]
    distances = []
    for place, feature in zip(
        corpus["truth_xyz"].values, corpus["truth_feature"].values, strict=True
    ):
        if names[feature] not in shown:
            continue
        own = peaks[peaks["feature"] == names[feature].rpartition("__")[2]]
        away = np.sqrt(((own[["x", "y", "z"]].to_numpy(float) - place) ** 2).sum(axis=1))
        distances.append(float(away.min()) if len(away) else np.inf)
    found = sum(distance <= 10 for distance in distances)
    print(
        f"{found} of {len(distances)} planted places have a peak within 10 mm; the farthest is "
        f"{max(distances):.1f} mm away."
    )
