"""The situations of losing things, and the table of them: `python -m tests.deploy.losing`.

It runs the tests of `test_losing*.py`, which note what happened, and prints deploy/losing.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A file to which tests add what happened, a line of JSON each.
NOTES = "NIMARE_DASK_TEST_LOSSES"

NULL, MAPS = "null iterations", "maps of all features"

#: What is done to a run, by the name of the situation and the kind of work.
SITUATIONS: Mapping[tuple[str, str], str] = {
    ("worker killed", NULL): "SIGKILL of one of two workers; its nanny lives",
    ("worker and nanny killed", NULL): "SIGKILL of all of `dask worker`; it is not started again",
    ("scheduler killed", NULL): "SIGKILL of `dask scheduler`",
    ("driver killed", NULL): "SIGKILL of `nimare-dask`",
    ("worker frozen", NULL): "SIGSTOP of a worker, for good; its nanny lives",
    ("worker frozen for a while", NULL): "SIGSTOP of a worker, SIGCONT after 3 s",
    ("machine frozen, thaws too late", NULL): "SIGSTOP of all of `dask worker`; SIGCONT when the "
    "scheduler has given it up; started in a loop",
    ("cable out for a while", NULL): "link of a worker's host down for 3 s",
    ("loose cable", NULL): "link of a worker's host down and up, ten times in 5 s",
    ("cable out for long", NULL): "link of a worker's host down until the scheduler has given it "
    "up, then up; started in a loop",
    ("driver's cable out", NULL): "link of the driver's host down, for good",
    ("memory once", NULL): "one batch takes more than its worker's limit, at the first attempt",
    ("memory always", NULL): "every batch takes more than the limit of the workers",
    ("memory at the edge", NULL): "workers are above the share at which they pause, and stay there",
    ("scratch full", NULL): "the disk of the workers' `--local-directory` is filled",
    ("scratch full, and used", NULL): "the same, while workers keep what they hold on that disk",
    ("disk full", NULL): "the disk of the store is filled, and later gets room",
    ("worker's clock", NULL): "the clock of one of two workers is an hour ahead",
    ("driver's clock", NULL): "the clock of the driver is an hour behind, and right when going on",
    ("worker killed", MAPS): "SIGKILL of one of two workers; its nanny lives",
    ("all workers killed", MAPS): "SIGKILL of all workers; none is started again",
    ("scheduler killed", MAPS): "SIGKILL of `dask scheduler`",
    ("driver killed", MAPS): "SIGKILL of `nimare-dask`",
    ("worker frozen", MAPS): "SIGSTOP of a worker, for good; its nanny lives",
    ("cable out for long", MAPS): "link of a worker's host down until the scheduler has given it "
    "up, then up",
    ("memory always", MAPS): "every block takes more than the limit of the workers",
    ("disk full", MAPS): "the disk of the result is filled, and later gets room",
    ("worker's clock", MAPS): "the clock of one of two workers is an hour ahead",
}


@dataclass(frozen=True)
class Outcome:
    """What happened in one situation.

    Attributes
    ----------
    situation, work
        A key of `SITUATIONS`.
    happened
        In a few words.
    seconds
        Until another batch was done, or until the run stopped.
    lost
        Batches or blocks that were begun and had to be done again.
    of
        Batches or blocks in all.
    seen
        What the person sees.
    """

    situation: str
    work: str
    happened: str
    seconds: float
    lost: int
    of: int
    seen: str = "progress goes on"

    def note(self) -> None:
        """Keep it for the table, when one is being made."""
        assert (self.situation, self.work) in SITUATIONS
        path = os.environ.get(NOTES)
        if path:
            with Path(path).open("a") as file:
                file.write(json.dumps(asdict(self)) + "\n")


_HEAD = """# What is lost when a part is lost

Made by `python -m tests.deploy.losing > deploy/losing.md` on one machine of two cores. A \
scheduler, two workers and a driver (`nimare-dask ... --cluster ADDRESS`) are processes, each on a \
host of its own (a network namespace) where a cable or a machine is concerned. The settings are \
those of `dask.yaml` with shorter times: worker-ttl 8 s for 2 minutes, connect 8 s for 60 s, tcp \
12 s for 3 minutes, no-worker-timeout 5 s for 10 minutes. What takes seconds below because \
something is waited for takes as many times longer with `dask.yaml`.

In every situation the result was equal to the bit to that of one undisturbed process, and no \
batch in a store was torn. *Until* is the longest time without a finished batch or block after it \
happened, or the time until the run had stopped. *Lost* is what had begun and was done again, of \
all: what a worker that was lost had at work and next, or all workers when scheduler or driver was \
lost; what had just been done and was still on its way to the driver; and, near the end of a run, \
a batch that is given to an idle worker as well when its own says nothing.

"""

_TAIL = """
A run that stops says what is kept, where, and the command that goes on; then why, for example:

```
The cluster did not finish; pain/null.zarr keeps 900 of 5,000 iterations; batches that were at \
work are lost and will be done again. Go on with:
  nimare-dask mkda corpus.zarr pain --cluster tcp://10.0.0.1:8786
Error: The connection to the Dask scheduler was lost; start a cluster again and run this again \
(FuturesCancelledError).
```
"""


def table(outcomes: Mapping[tuple[str, str], Outcome]) -> str:
    """The page, with the situations in order; one that was not tried here says so."""
    rows = []
    for work in (NULL, MAPS):
        rows += [f"\n## {work.capitalize()}\n"]
        rows += [
            "| situation | what was done | what happened | until | lost | what a person sees |"
        ]
        rows += ["|---|---|---|---|---|---|"]
        for (situation, kind), done in SITUATIONS.items():
            if kind != work:
                continue
            found = outcomes.get((situation, kind))
            if found is None:
                rows.append(f"| {situation} | {done} | not tried here | | | |")
                continue
            rows.append(
                f"| {situation} | {done} | {found.happened} | {_seconds(found.seconds)} | "
                f"{found.lost} of {found.of} | {found.seen} |"
            )
    return _HEAD.rstrip("\n") + "\n" + "\n".join(rows) + "\n" + _TAIL


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 3 else f"{seconds:.0f} s"


def situations_in(page: str) -> list[tuple[str, str]]:
    """The situations that a page has, in order."""
    found, work = [], ""
    for line in page.splitlines():
        if line.startswith("## "):
            work = line.removeprefix("## ").lower()
        elif line.startswith("| ") and not line.startswith("| situation "):
            found.append((line.split("|")[1].strip(), work))
    return found


def main() -> None:
    """Run the tests and print the page."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.touch()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/deploy", "-k", "losing", *sys.argv[1:]],
            cwd=ROOT,
            env={**os.environ, NOTES: str(notes)},
            stdout=sys.stderr,
            check=False,
        )
        found = [Outcome(**json.loads(line)) for line in notes.read_text().splitlines()]
    print(table({(outcome.situation, outcome.work): outcome for outcome in found}), end="")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
