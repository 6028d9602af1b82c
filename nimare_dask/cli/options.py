"""Options of the verbs ale, mkda, kda and scale, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Correct(StrEnum):
    """What corrected maps there are."""

    fwe = "fwe"
    fdr = "fdr"
    bonferroni = "bonferroni"
    none = "none"


class CoverageChoice(StrEnum):
    """Where foci fall under the null."""

    brain = "brain"
    gm = "gm"


class NullChoice(StrEnum):
    """Where uncorrected p values come from."""

    approximate = "approximate"
    fold = "fold"
    fft = "fft"
    montecarlo = "montecarlo"


class Weighting(StrEnum):
    """How much analyses count."""

    uniform = "uniform"
    sample_size = "sample_size"


Corpus = Annotated[Path, typer.Argument(help="A corpus.")]
Out = Annotated[
    Path,
    typer.Argument(
        help="Folder for images and result.zarr; or, when it ends in .zarr, the result alone."
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option(
        help="Analyses with a weight of a feature, such as 'pain>=0.1'; may be repeated, then all "
        "must hold. All analyses by default."
    ),
]
SampleSize = Annotated[
    float | None, typer.Option(help="Subjects of every analysis, which give the Gaussian's width.")
]
Fwhm = Annotated[float | None, typer.Option(help="Width of the Gaussian in mm (half maximum).")]
Radius = Annotated[float, typer.Option("--r", help="Radius of the sphere in mm.")]
NIters = Annotated[int, typer.Option(min=1, help="Null iterations.")]
Seed = Annotated[
    int | None, typer.Option(help="Seed of the iterations; drawn and kept when not given.")
]
Correction = Annotated[
    Correct,
    typer.Option(
        help="fwe: family-wise, by null iterations; fdr: Benjamini-Hochberg; bonferroni; none."
    ),
]
Store = Annotated[
    Path | None,
    typer.Option(
        help="Where null iterations are kept as they are done (.zarr), to go on from; beside the "
        "result by default."
    ),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Say tasks, memory and time, from one iteration; then stop.")
]
VoxelThresh = Annotated[
    float, typer.Option(help="Uncorrected p that voxels of clusters are below.")
]
CoverageOption = Annotated[
    CoverageChoice, typer.Option(help="Where foci fall under the null: mask, or grey matter of it.")
]
NullOption = Annotated[
    NullChoice,
    typer.Option(
        "--null",
        help="Uncorrected p values: approximate (fold up to 20,000 analyses, fft beyond), or "
        "montecarlo (from the iterations).",
    ),
]
Tfce = Annotated[
    bool, typer.Option("--tfce", help="Add threshold-free cluster enhancement to fwe.")
]
StopAfter = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Stop early when this many null maxima have reached the largest of the map, by every "
        "inference: nothing can be significant then.",
    ),
]
Mask = Annotated[str, typer.Option(help="A mask image, or mni152_2mm or mni152_1mm.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a running Dask scheduler; else threads here.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the result if it is there.")]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the four verbs have in common."""

    corpus: Path
    out: Path
    select: list[str] | None
    n_iters: int
    seed: int | None
    correct: Correct
    store: Path | None
    plan: bool
    voxel_thresh: float | None
    coverage: str
    null: str
    tfce: bool
    stop_after: int | None
    mask: str
    scheduler: str | None
    force: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Job:
        """Take what the verbs have in common from the options of one of them; SCALE lacks some."""
        lacking = {"voxel_thresh": None, "coverage": "brain", "null": "montecarlo", "tfce": False}
        given = {**lacking, **options}
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    @property
    def result(self) -> Path:
        """Where the result goes."""
        return self.out if self.out.suffix == ".zarr" else self.out / "result.zarr"

    @property
    def null_store(self) -> Path:
        """Where the iterations go."""
        return self.store or self.result.with_name(
            "null.zarr" if self.out != self.result else f"{self.out.stem}.null.zarr"
        )

    @property
    def fit_store(self) -> Path:
        """Where the iterations go that uncorrected p values come from."""
        return self.null_store.with_name(f"{self.null_store.stem}.fit.zarr")
