"""Maps of all features on a cluster that loses something, whose workers write what they compute."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.deploy import hosts as hosts_module
from tests.deploy.hosts import Hosts
from tests.deploy.losing import MAPS
from tests.deploy.runs import SLOW, Files, begin, started_on_two
from tests.deploy.started import Cluster, Disk, can_mount, until, wrong_clock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]

#: A run on two workers, of which some is done.
started = partial(started_on_two, MAPS, done=20)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, slow=SLOW) as made:
        made.scheduler()
        yield made


def test_losing__a_worker(shared: Cluster, files: Files) -> None:
    run = started("worker killed", shared, files, done=30)
    shared.worker_process("one").kill()
    run.finished(most=1, happened="finished; the nanny started another worker").note()


@pytest.mark.long
def test_losing__all_workers(cluster: Cluster, files: Files) -> None:
    run = started("all workers killed", cluster, files)
    for name in ("one", "two"):
        cluster.commands[name].kill()
    outcome = run.stopped("stopped; went on")
    assert "The Dask cluster has had no worker for 5 s" in run.driver.error
    run.go_on(run.driver.goes_on)
    outcome.note()


def test_losing__the_scheduler(cluster: Cluster, files: Files) -> None:
    run = started("scheduler killed", cluster, files)
    cluster.commands["scheduler"].kill()
    outcome = run.stopped("stopped; went on")
    assert "The connection to the Dask scheduler was lost" in run.driver.error
    run.go_on(run.driver.goes_on)
    outcome.note()


def test_losing__the_driver(shared: Cluster, files: Files) -> None:
    run = started("driver killed", shared, files)
    run.driver.kill()
    seen = "nothing; the same command goes on"
    outcome = run.stopped("stopped; went on", code=-signal.SIGKILL, seen=seen)
    run.go_on()
    outcome.note()


@pytest.mark.long
def test_losing__a_worker_that_freezes(tmp_path: Path, files: Files) -> None:
    with Cluster(tmp_path, slow=SLOW, scheduler__worker_ttl="8s") as cluster:
        cluster.scheduler()
        run = started("worker frozen", cluster, files)
        cluster.worker_process("one").suspend()
        happened = "finished; the nanny killed it after worker-ttl and started another"
        run.finished(most=2, happened=happened).note()


@pytest.mark.long
def test_losing__a_cable_for_long(tmp_path: Path, files: Files) -> None:
    if reason := hosts_module.why_not():
        pytest.skip(reason)
    names = ["scheduler", "one", "two", "driver"]
    with (
        Hosts(names) as hosts,
        Cluster(tmp_path, hosts=hosts, slow=SLOW, scheduler__worker_ttl="8s") as cluster,
    ):
        cluster.scheduler()
        run = started("cable out for long", cluster, files)
        hosts.cut("one")
        log = cluster.commands["scheduler"]
        until(lambda: "Remove worker" in log.said, "the worker is given up")
        hosts.heal("one")
        run.finished(most=2, happened="finished on the other worker").note()


@pytest.mark.long
def test_losing__memory_always(tmp_path: Path, files: Files) -> None:
    settings = {"scheduler__allowed_failures": 1, "no_worker_timeout": "60s"}
    with Cluster(tmp_path, **settings) as cluster:
        cluster.scheduler()
        cluster.workers("one", "two", options=["--memory-limit", "220MB"])
        run = begin("memory always", MAPS, cluster, files)
        outcome = run.stopped("stopped; went on with more memory")
    assert "most often for want of memory; give workers more memory" in run.driver.error
    run.go_on(run.driver.goes_on)
    outcome.note()


def test_losing__room_for_the_result(tmp_path: Path, shared: Cluster, files: Files) -> None:
    if not can_mount(tmp_path / "disk"):
        pytest.skip("needs the right to mount a small disk")
    with Disk(tmp_path / "disk", "12m") as disk:
        run = begin("disk full", MAPS, shared, files, out=disk.folder / "out")
        run.done(5)
        disk.fill()
        run.at = time.time()
        outcome = run.stopped("stopped; went on when there was room")
        assert "The disk is full; " in run.driver.said
        assert "No space left on device" in run.driver.error
        disk.grow("200m")
        (disk.folder / "full").unlink()
        run.go_on(run.driver.goes_on)
    outcome.note()


def test_losing__the_time(cluster: Cluster, files: Files) -> None:
    wrong = wrong_clock("+1h")
    if not wrong:
        pytest.skip("needs faketime (Debian's package of that name)")
    cluster.workers("two")
    cluster.workers("one", prefix=wrong)
    run = begin("worker's clock", MAPS, cluster, files)
    run.done(1)
    run.finished(most=1, happened="finished").note()
