"""Options that several verbs share, declared once: the fields of `Place` and of `Job`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer

if TYPE_CHECKING:
    from nimare_dask.parallel.places import AnyPath

    ZarrPath: TypeAlias = AnyPath
else:

    class ZarrPath:
        """What typer sees of a path or address, which `path` makes of what is given."""


def path(text: Any) -> AnyPath:
    """A path or an address of zarr, as it is given on the command line."""
    from nimare_dask.parallel.places import place

    return place(text)


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


SampleSize = Annotated[
    float | None, typer.Option(help="Subjects of every analysis, which give the Gaussian's width.")
]
Fwhm = Annotated[float | None, typer.Option(help="Width of the Gaussian in mm (half maximum).")]
Radius = Annotated[float, typer.Option("--r", help="Radius of the sphere in mm.")]


Prepare = Annotated[
    bool,
    typer.Option(
        "--prepare",
        help="Make the store of null iterations and stop: `run-batch` computes them, as in a job "
        "array, and `merge` makes the result.",
    ),
]

#: Heading of these options in the help.
_WHERE = "Where to compute"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a verb computes; each field is an option."""

    cluster: Annotated[
        str | None,
        typer.Option(
            help="local (worker processes of this machine), slurm, pbs, sge, lsf, slurm-runner, "
            "kubernetes, or the address of a Dask scheduler; threads of this process by default.",
            rich_help_panel=_WHERE,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="With --cluster: worker processes.", rich_help_panel=_WHERE),
    ] = None
    adapt: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:MAX",
            help="With --cluster: the fewest and the most workers, as there is work.",
            rich_help_panel=_WHERE,
        ),
    ] = None
    cluster_config: Annotated[
        Path | None,
        typer.Option(
            help="With --cluster: settings (.yaml), see the folder deploy.", rich_help_panel=_WHERE
        ),
    ] = None

    @contextmanager
    def started(self) -> Iterator[None]:
        """Compute there, and tell warnings as sentences."""
        from nimare_dask.cli.console import say, sentences_for_warnings
        from nimare_dask.parallel.clusters import cluster

        with (
            sentences_for_warnings(),
            cluster(
                self.cluster,
                n_workers=self.workers,
                adapt=_range(self.adapt),
                config=self.cluster_config,
                say=say,
            ),
        ):
            yield


def _range(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    fewest, _, most = text.partition(":")
    if not (fewest.isdecimal() and most.isdecimal()):
        raise typer.BadParameter(f"--adapt is {text!r}; expected such as 2:20.")
    return int(fewest), int(most)


@dataclass(frozen=True, kw_only=True)
class Job(Place):
    """What a verb is told beside its own options; each field is an option, in the order of help."""

    corpus: Annotated[ZarrPath, typer.Argument(help="A corpus.", parser=path)]
    out: Annotated[
        ZarrPath,
        typer.Argument(
            help="Folder for images and result.zarr; or, when it ends in .zarr, the result alone.",
            parser=path,
        ),
    ]
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Analyses with a weight of a feature, such as 'pain>=0.1', or an expression such "
            "as 'emo* &~ (reward* | pain*)'; may be repeated, then all must hold. All analyses by "
            "default."
        ),
    ] = None
    n_iters: Annotated[int, typer.Option(min=1, help="Null iterations.")] = 5000
    seed: Annotated[
        int | None, typer.Option(help="Seed of the iterations; drawn and kept when not given.")
    ] = None
    correct: Annotated[
        Correct,
        typer.Option(
            help="fwe: family-wise, by null iterations; fdr: Benjamini-Hochberg; bonferroni; none."
        ),
    ] = Correct.fwe
    store: Annotated[
        ZarrPath | None,
        typer.Option(
            help="Where null iterations are kept as they are done (.zarr), to go on from; beside "
            "the result by default.",
            parser=path,
        ),
    ] = None
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say tasks, memory and time, from one iteration; then stop."),
    ] = False
    voxel_thresh: Annotated[
        float | None, typer.Option(help="Uncorrected p that voxels of clusters are below.")
    ] = 0.001
    coverage: Annotated[
        CoverageChoice,
        typer.Option(help="Where foci fall under the null: mask, or grey matter of it."),
    ] = CoverageChoice.brain
    null: Annotated[
        NullChoice,
        typer.Option(
            "--null",
            help="Uncorrected p values: approximate (fold up to 20,000 analyses, fft beyond), or "
            "montecarlo (from the iterations).",
        ),
    ] = NullChoice.approximate
    tfce: Annotated[
        bool, typer.Option("--tfce", help="Add threshold-free cluster enhancement to fwe.")
    ] = False
    stop_after: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Stop early when this many null maxima have reached the largest of the map, by "
            "every inference: nothing can be significant then.",
        ),
    ] = None
    mask: Annotated[str, typer.Option(help="A mask image, or mni152_2mm or mni152_1mm.")] = (
        "mni152_2mm"
    )
    prepare: Prepare = False
    force: Annotated[bool, typer.Option("--force", help="Replace the result if it is there.")] = (
        False
    )

    def __post_init__(self) -> None:
        from nimare_dask.parallel.places import refuse_address

        if self.out.suffix != ".zarr":
            refuse_address(self.out, "images")

    @property
    def result(self) -> AnyPath:
        """Where the result goes."""
        return self.out if self.out.suffix == ".zarr" else self.out / "result.zarr"

    @property
    def null_store(self) -> AnyPath:
        """Where the iterations go."""
        return self.store or self.result.with_name(
            "null.zarr" if self.out != self.result else f"{self.out.stem}.null.zarr"
        )

    @property
    def fit_store(self) -> AnyPath:
        """Where the iterations go that uncorrected p values come from."""
        return self.null_store.with_name(f"{self.null_store.stem}.fit.zarr")


#: Fields of a Job that the help shows before a verb's own options: what is analysed.
_BEFORE_OWN = frozenset({"corpus", "out", "select"})


def verb(
    *, of: type[Place] = Job, fixed: Mapping[str, Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of ``run(job, *, own options)``: typer sees the shared options and its own.

    Parameters
    ----------
    of
        What holds the shared options.
    fixed
        Shared options that the verb does not have, and what its job has instead.
    """
    fixed = dict(fixed or {})
    hints = get_type_hints(of, include_extras=True)
    offered = {
        field.name: Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(of)
        if field.name not in fixed
    }

    def command_of(run: Callable[..., None]) -> Callable[..., None]:
        _, *own = inspect.signature(run, eval_str=True).parameters.values()
        before = [option for name, option in offered.items() if name in _BEFORE_OWN]
        after = [option for name, option in offered.items() if name not in _BEFORE_OWN]

        @functools.wraps(run)
        def command(**given: Any) -> None:
            shared = {name: given.pop(name) for name in offered}
            run(of(**shared, **fixed), **given)

        command.__signature__ = Signature([*before, *own, *after])  # type: ignore[attr-defined]
        return command

    return command_of
