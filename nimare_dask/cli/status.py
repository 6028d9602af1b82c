"""The verb status: how far the iterations of a null are."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from nimare_dask.cli.options import ZarrPath, path


def status(
    store: Annotated[ZarrPath, typer.Argument(help="A store of null iterations.", parser=path)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say how many null iterations of a store are done, how fast they go and what is left.

    Reads the store only, so it works while a job runs anywhere, and after it.
    """
    facts = _facts(store)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:<22} {value:,}" if isinstance(value, int) else f"{name:<22} {value}")


def _facts(store: ZarrPath) -> dict[str, Any]:
    from nimare_dask.cli.console import say_rate
    from nimare_dask.parallel import checkpoints
    from nimare_dask.parallel.plan import say_seconds

    opened = checkpoints.open_checkpoint(store)
    found = checkpoints.progress(opened)
    left = opened.n_iters - found.n_done
    facts: dict[str, Any] = {
        "estimator": opened.facts["run"]["estimator"],
        "seed": opened.fingerprint["random_state"],
        "iterations done": found.n_done,
        "iterations to do": left,
        "batches done": len(found.done),
        "batches in all": opened.n_batches,
        "torn batches": found.n_torn,
    }
    rate = found.rate(opened.batch)
    if rate is None:
        facts["rate"] = "not known yet"
    else:
        facts["rate"] = say_rate(rate, "iterations")
        facts["remaining"] = say_seconds(left / rate) if left else "nothing"
    failed = checkpoints.failures(opened)
    facts["runs that failed"] = len(failed)
    if failed:
        when = datetime.fromtimestamp(failed[-1]["when"]).isoformat(" ", "minutes")
        facts["last failure"] = f"{when} {failed[-1]['error']}"
    if found.n_torn:
        facts["note"] = "torn batches are computed again when the run goes on"
    return facts
