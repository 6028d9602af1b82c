"""The decorator `verb`: commands from the fields of `Job` and the options of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from nimare_dask.cli.options import Correct, CoverageChoice, Job, NullChoice, verb

told: list[tuple[Job, str, int]] = []


@verb(fixed={"select": None, "null": NullChoice.montecarlo, "tfce": True})
def contrast(
    job: Job,
    *,
    group1: Annotated[str, typer.Option(help="One group.")],
    size: Annotated[int, typer.Option(min=1, help="A number.")] = 3,
) -> None:
    """Compare two groups."""
    told.append((job, group1, size))


def run(*words: str, code: int = 0) -> str:
    app = typer.Typer()
    app.command()(contrast)
    done = CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == code, done.output
    return done.output


def test_verb__gives_a_job_and_its_own_options() -> None:
    told.clear()
    run("c.zarr", "out", "--group1", "pain", "--seed", "4", "--coverage", "gm", "--force")
    (job, group1, size) = told[0]
    assert (group1, size) == ("pain", 3)
    assert job == Job(
        corpus=Path("c.zarr"),
        out=Path("out"),
        seed=4,
        coverage=CoverageChoice.gm,
        null=NullChoice.montecarlo,
        tfce=True,
        force=True,
    )
    assert (job.n_iters, job.correct, job.voxel_thresh) == (5000, Correct.fwe, 0.001)
    assert job.result == Path("out/result.zarr") and job.fit_store == Path("out/null.fit.zarr")


@pytest.mark.parametrize("word", ["--select", "--null", "--tfce"])
def test_verb__does_not_have_what_is_fixed(word: str) -> None:
    run("c.zarr", "out", "--group1", "pain", word, "fold", code=2)


def test_verb__help_is_in_order() -> None:
    text = run("--help")
    places = [text.index(f"--{name} ") for name in ("group1", "size", "n-iters", "seed", "force")]
    assert places == sorted(places) and "Compare two groups." in text
    assert "--select" not in text and "--tfce" not in text


def test_verb__refuses_an_option_that_is_there_twice() -> None:
    with pytest.raises(ValueError, match="duplicate parameter name: 'seed'"):

        @verb()
        def command(job: Job, *, seed: Annotated[int, typer.Option()] = 1) -> None: ...
