"""Null iterations on a cluster that loses something: they go on, or stop with a sentence.

Each test is a situation of `losing.SITUATIONS`, with real processes. Those about cables and frozen
machines are on hosts of their own, where these can be made.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.deploy import hosts as hosts_module
from tests.deploy.hosts import Hosts
from tests.deploy.losing import NULL, SITUATIONS, Outcome, situations_in, table
from tests.deploy.runs import BATCH, Files, begin, started_on_two
from tests.deploy.started import (
    ROOT,
    Cluster,
    Disk,
    can_mount,
    family,
    quick_settings,
    send,
    until,
    wrong_clock,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

NAMES = ["scheduler", "one", "two", "driver"]

#: A run on two workers, of which some is done.
started = partial(started_on_two, NULL, done=3)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if reason := hosts_module.why_not():
        pytest.skip(reason)
    with Hosts(NAMES) as made:
        yield made


@pytest.fixture
def apart(tmp_path: Path, hosts: Hosts) -> Iterator[Cluster]:
    """A cluster whose parts are each on a host of their own."""
    with Cluster(tmp_path, hosts=hosts, scheduler__worker_ttl="8s") as made:
        made.scheduler()
        yield made


def loop(cluster: Cluster, name: str) -> None:
    """A worker that is started again whenever it ends, as deploy/dask.yaml has it."""
    words = shlex.join(cluster.worker_words(name))
    cluster.start(name, name, ["sh", "-c", f"while true; do {words}; sleep 1; done"])


def given_up(cluster: Cluster, name: str) -> bool:
    """Whether the scheduler has removed a worker of that name."""
    log = cluster.commands["scheduler"].said
    return any("Remove worker" in line and f"name: {name} " in line for line in log.splitlines())


# killed


@pytest.mark.slow
def test_losing__a_worker(shared: Cluster, files: Files) -> None:
    run = started("worker killed", shared, files)
    shared.worker_process("one").kill()
    outcome = run.finished(most=1, happened="finished; the nanny started another worker")
    until(lambda: shared.lines("made", worker="one"), "another worker is there")
    outcome.note()


@pytest.mark.slow
def test_losing__a_worker_and_its_nanny(apart: Cluster, files: Files) -> None:
    run = started("worker and nanny killed", apart, files)
    apart.commands["one"].kill()
    run.finished(most=1, happened="finished on the other worker").note()


@pytest.mark.slow
def test_losing__the_scheduler(apart: Cluster, files: Files) -> None:
    run = started("scheduler killed", apart, files)
    apart.commands["scheduler"].kill()
    outcome = run.stopped("stopped; went on on a new cluster")
    assert "The connection to the Dask scheduler was lost" in run.driver.error
    assert f"{run.store} keeps {BATCH * run.is_whole():,} of 1,600 iterations; " in run.driver.said
    assert outcome.seconds < 20
    # What a person does: start it again, and give the command that was told, as it was told.
    apart.scheduler()
    apart.workers("one", "two")
    apart.start("driver", "driver", [sys.executable, "-m", "nimare_dask", *run.driver.goes_on])
    apart.commands["driver"].end()
    assert "iterations were done before" in apart.commands["driver"].said
    run.check()
    outcome.note()


@pytest.mark.slow
def test_losing__the_driver(shared: Cluster, files: Files) -> None:
    run = started("driver killed", shared, files)
    run.driver.kill()
    seen = "nothing; the same command goes on"
    outcome = run.stopped("stopped; went on", code=-signal.SIGKILL, seen=seen)
    begun = run.cluster.begun(run.task).total()
    time.sleep(2)
    assert run.cluster.begun(run.task).total() <= begun + 2, "the workers go on for nobody"
    run.go_on()
    outcome.note()


# frozen


@pytest.mark.slow
@pytest.mark.long
def test_losing__a_worker_that_freezes(tmp_path: Path, files: Files) -> None:
    with Cluster(tmp_path, scheduler__worker_ttl="8s") as cluster:
        cluster.scheduler()
        run = started("worker frozen", cluster, files, done=2)
        cluster.worker_process("one").suspend()
        happened = "finished; the nanny killed it after worker-ttl and started another"
        run.finished(most=1, happened=happened).note()


@pytest.mark.slow
def test_losing__a_worker_that_freezes_and_thaws(shared: Cluster, files: Files) -> None:
    run = started("worker frozen for a while", shared, files)
    worker = shared.worker_process("one")
    worker.suspend()
    time.sleep(3)
    worker.resume()
    run.finished(most=0, happened="finished; the worker went on").note()


@pytest.mark.slow
@pytest.mark.long
def test_losing__a_machine_that_freezes_and_thaws_too_late(apart: Cluster, files: Files) -> None:
    loop(apart, "one")
    apart.workers("two")
    until(lambda: apart.lines("made", worker="one"), "the first worker is there")
    run = begin("machine frozen, thaws too late", NULL, apart, files)
    run.done(2)
    frozen = family(apart.commands["one"].process)
    send(frozen, signal.SIGSTOP)
    try:
        until(lambda: given_up(apart, "one"), "the worker is given up")
    finally:
        send(frozen, signal.SIGCONT)
    outcome = run.finished(most=3, happened="finished on the other worker; the machine came back")
    assert outcome.seconds < 20, "the end waited until the worker was given up"
    until(lambda: len(apart.lines("made", worker="one")) >= 2, "the loop starts a new worker")
    outcome.note()


# cables


@pytest.mark.slow
def test_losing__a_cable_for_a_while(apart: Cluster, hosts: Hosts, files: Files) -> None:
    run = started("cable out for a while", apart, files)
    hosts.cut("one")
    time.sleep(3)
    hosts.heal("one")
    run.finished(most=0, happened="finished; the worker went on").note()
    assert not given_up(apart, "one")


@pytest.mark.slow
@pytest.mark.long
def test_losing__a_loose_cable(apart: Cluster, hosts: Hosts, files: Files) -> None:
    run = started("loose cable", apart, files)
    for _ in range(10):
        hosts.cut("one")
        time.sleep(0.25)
        hosts.heal("one")
        time.sleep(0.25)
    run.finished(most=0, happened="finished; the worker went on").note()


@pytest.mark.slow
def test_losing__a_cable_for_long(apart: Cluster, hosts: Hosts, files: Files) -> None:
    loop(apart, "one")
    apart.workers("two")
    until(lambda: apart.lines("made", worker="one"), "the first worker is there")
    run = begin("cable out for long", NULL, apart, files)
    run.done(2)
    hosts.cut("one")
    until(lambda: given_up(apart, "one"), "the worker is given up")
    hosts.heal("one")
    # What a worker that is cut off has at work and next, and one that is given twice at the end.
    outcome = run.finished(most=3, happened="finished on the other worker; the worker came back")
    until(lambda: len(apart.lines("made", worker="one")) >= 2, "the loop starts a new worker")
    outcome.note()


@pytest.mark.slow
@pytest.mark.long
def test_losing__the_cable_of_the_driver(apart: Cluster, hosts: Hosts, files: Files) -> None:
    run = started("driver's cable out", apart, files)
    hosts.cut("driver")
    outcome = run.stopped("stopped; went on")
    assert "The connection to the Dask scheduler was lost" in run.driver.error
    run.go_on(run.driver.goes_on)
    outcome.note()


# memory


@pytest.mark.slow
def test_losing__memory_at_the_first_attempt(shared: Cluster, files: Files) -> None:
    run = begin("memory once", NULL, shared, files)
    run.done(3)
    shared.greed.touch()
    outcome = run.finished(most=1, happened="finished; the nanny started another worker")
    assert not shared.greed.exists() and "memory budget" in "".join(
        shared.commands[name].said for name in ("one", "two")
    )
    outcome.note()


@pytest.mark.slow
def test_losing__memory_always(tmp_path: Path, files: Files) -> None:
    settings = {"scheduler__allowed_failures": 1, "no_worker_timeout": "60s"}
    with Cluster(tmp_path, **settings) as cluster:
        cluster.scheduler()
        cluster.workers("one", "two", options=["--memory-limit", "220MB"])
        run = begin("memory always", NULL, cluster, files)
        outcome = run.stopped("stopped; went on with more memory")
    assert "most often for want of memory; give workers more memory" in run.driver.error
    run.go_on(run.driver.goes_on)
    outcome.note()


@pytest.mark.slow
@pytest.mark.long
def test_losing__memory_at_the_edge(tmp_path: Path, files: Files) -> None:
    with Cluster(tmp_path, worker__memory__pause=0.01) as cluster:
        cluster.scheduler()
        cluster.workers("one", "two")
        run = begin("memory at the edge", NULL, cluster, files)
        outcome = run.stopped("stopped; went on with more memory")
    assert "All 2 workers of the Dask cluster have been short of memory" in run.driver.error
    run.go_on(run.driver.goes_on)
    outcome.note()


# disks


@pytest.mark.slow
@pytest.mark.parametrize(
    "situation",
    [pytest.param("scratch full", marks=pytest.mark.long), "scratch full, and used"],
)
def test_losing__room_for_scratch(situation: str, tmp_path: Path, files: Files) -> None:
    if not can_mount(tmp_path / "disk"):
        pytest.skip("needs the right to mount a small disk")
    used = situation == "scratch full, and used"
    # By the second all that a worker holds goes to the disk, which small results would not do.
    settings = {"worker__memory__target": 2e-9} if used else {}
    with Disk(tmp_path / "disk", "2m") as disk, Cluster(tmp_path, **settings) as cluster:
        cluster.scheduler()
        options = ["--local-directory", disk.folder, "--memory-limit", "1GB"]
        cluster.workers("one", "two", options=options)
        run = begin(situation, NULL, cluster, files)
        run.done(3)
        disk.fill()
        if used:
            outcome = run.stopped("stopped; went on when there was room")
        else:
            outcome = run.finished(most=0, happened="finished; nothing goes to scratch")
    if used:
        assert "A worker has no room left on its disk for scratch" in run.driver.error
        run.go_on(run.driver.goes_on)
    outcome.note()


@pytest.mark.slow
def test_losing__room_for_the_store(tmp_path: Path, shared: Cluster, files: Files) -> None:
    if not can_mount(tmp_path / "disk"):
        pytest.skip("needs the right to mount a small disk")
    with Disk(tmp_path / "disk", "4m") as disk:
        run = begin("disk full", NULL, shared, files, out=disk.folder / "out")
        run.done(3)
        disk.fill()
        run.at = time.time()
        outcome = run.stopped("stopped; went on when there was room")
        assert f"The disk is full; {run.store} keeps " in run.driver.said
        assert f"{run.store}: No space left on device; make room there" in run.driver.error
        disk.grow("200m")
        run.go_on(run.driver.goes_on)
    outcome.note()


# clocks


@pytest.mark.slow
@pytest.mark.long
def test_losing__the_time_of_a_worker(tmp_path: Path, files: Files) -> None:
    if not (wrong := wrong_clock("+1h")):
        pytest.skip("needs faketime (Debian's package of that name)")
    with Cluster(tmp_path) as cluster:
        cluster.scheduler()
        cluster.workers("one", prefix=wrong)
        cluster.workers("two")
        assert float(cluster.notes.read_text().split()[0]) > time.time() + 3000
        run = begin("worker's clock", NULL, cluster, files)
        run.done(1)
        run.finished(most=1, happened="finished").note()


@pytest.mark.slow
@pytest.mark.long
def test_losing__the_time_of_the_driver(shared: Cluster, files: Files) -> None:
    if not (wrong := wrong_clock("-1h")):
        pytest.skip("needs faketime (Debian's package of that name)")
    run = begin("driver's clock", NULL, shared, files, prefix=wrong)
    run.done(3)
    run.driver.process.send_signal(signal.SIGINT)
    happened = "finished, also when stopped by Ctrl-C and gone on with"
    outcome = run.stopped(happened, code=130, seen="what is kept, and the command that goes on")
    assert f"Stopped; {run.store} keeps " in run.driver.said
    run.go_on(run.driver.goes_on)
    outcome.note()


# what stands around it, without a cluster


def test_hosts__reach_each_other_and_leave_nothing(hosts: Hosts) -> None:
    import subprocess

    code = "import socket, sys; print(socket.create_server(('', 7)).accept()[1][0])"
    answer = subprocess.Popen(
        hosts.on("two", [sys.executable, "-c", code]), stdout=subprocess.PIPE, text=True
    )
    ask = f"import socket; socket.create_connection(('{hosts.address('two')}', 7), timeout=1)"

    def reached() -> bool:
        words = hosts.on("one", [sys.executable, "-c", ask])
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    hosts.cut("one")
    assert not reached()
    hosts.heal("one")
    until(reached, "the hosts reach each other", seconds=20)
    assert answer.communicate(timeout=20)[0].strip() == hosts.address("one")
    hosts.close()
    there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert hosts._own not in there.stdout


def test_settings__are_those_that_dask_knows(tmp_path: Path) -> None:
    """A name that is spelled wrong is not an error to Dask, but does nothing."""
    import dask
    import distributed  # noqa: F401  (its defaults)

    from nimare_dask.parallel.settings import no_worker_seconds, read_settings

    settings = read_settings(ROOT / "deploy" / "dask.yaml")

    def names(part: dict[str, object], known: dict[str, object]) -> Iterator[str]:
        for name, value in part.items():
            if name not in known:
                yield name
            elif isinstance(value, dict):
                yield from names(value, known[name])  # type: ignore[arg-type]

    assert set(settings) == {"distributed", "nimare-dask"}
    assert list(names(settings["distributed"], dask.config.get("distributed"))) == []
    with dask.config.set(settings):
        assert no_worker_seconds() == 600
    quick = read_settings(quick_settings(tmp_path / "quick.yaml", worker__memory__pause=0.5))
    assert quick["distributed"]["worker"]["memory"]["pause"] == 0.5


def test_table__has_the_situations_of_the_tests() -> None:
    page = (ROOT / "deploy" / "losing.md").read_text()
    assert situations_in(page) == list(SITUATIONS)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_losing*.py"))
    assert [name for name, _ in SITUATIONS if f'"{name}"' not in tests] == []
    some = Outcome("worker killed", NULL, "finished", 0.25, 1, 16)
    made = table({("worker killed", NULL): some})
    assert situations_in(made) == list(SITUATIONS)
    assert "| finished | 0.2 s | 1 of 16 | progress goes on |" in made
