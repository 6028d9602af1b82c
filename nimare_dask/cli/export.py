"""The verb export: maps as images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimare_dask.cli.options import ZarrPath
from nimare_dask.cli.options import path as path_or_address


def export(
    result: Annotated[
        ZarrPath,
        typer.Argument(help="A result, such as terms.zarr.", parser=path_or_address),
    ],
    folder: Annotated[Path, typer.Argument(help="Where to write.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="A feature; may be repeated. All by default.")
    ] = None,
    map_name: Annotated[
        list[str] | None,
        typer.Option("--map", help="A map, such as z_desc-association. All by default."),
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="A picture of each map too.")] = False,
) -> None:
    """Write maps as NIfTI images with NiMARE's names, each beside a JSON file.

    Images of the same names in FOLDER are replaced.
    """
    from nimare_dask.cli.console import progress, say
    from nimare_dask.io.nifti import to_nifti
    from nimare_dask.io.results import open_result

    opened = open_result(result)
    paths = to_nifti(opened, folder, names=map_name or None, features=feature or None)
    if png:
        from nibabel import Nifti1Image

        from nimare_dask.report.figures import save_picture

        with progress("Drawing", "pictures") as report:
            report(0, len(paths))
            for done, path in enumerate(paths, start=1):
                name = path.name.removesuffix(".nii.gz")
                title = f"{path.parent.name}: {name}" if path.parent != folder else name
                save_picture(
                    Nifti1Image.from_filename(path), path.with_name(f"{name}.png"), title=title
                )
                report(done, len(paths))
    for path in paths:
        print(path)
    say(f"{len(paths):,} maps in {folder}.")
