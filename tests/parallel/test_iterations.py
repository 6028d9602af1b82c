"""``map_iterations``: every batch is taken once, nothing is kept, and an error ends it."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import dask
import pytest

from nimare_dask.errors import WorkerError
from nimare_dask.parallel import iterations
from nimare_dask.parallel.iterations import map_iterations

LOCAL = ["synchronous", "one thread", "two threads"]
EVERYWHERE = [*LOCAL, "cluster"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A client of two workers that are threads of this process, so that objects can be watched."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def on(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """A context in which iterations run in some way."""

    def choose(where: str) -> Any:
        if where == "cluster":
            return request.getfixturevalue("cluster").as_current()
        if where == "synchronous":
            return dask.config.set(scheduler="synchronous")
        return dask.config.set(scheduler="threads", num_workers=1 + (where == "two threads"))

    return choose


class Big:
    """A result that can be watched."""

    alive: ClassVar[weakref.WeakSet[Big]] = weakref.WeakSet()

    def __init__(self, number: int) -> None:
        self.number = number
        Big.alive.add(self)


def add(shared: int, batch: int) -> int:
    return shared + batch


def add_slowly(shared: int, batch: int) -> int:
    time.sleep(0.02)
    return shared + batch


def make_big(shared: int, batch: int) -> Big:
    return Big(batch)


class Bad:
    """The batch that was the sixth to begin is bad, each time."""

    begun: ClassVar[list[int]] = []


def fail_sixth(shared: int, batch: int) -> int:
    time.sleep(0.01)
    Bad.begun.append(batch)
    if batch == Bad.begun[min(5, len(Bad.begun) - 1)] and len(Bad.begun) > 5:
        raise ArithmeticError(f"batch {batch} is bad")
    return batch


class AtOnce:
    """How many batches run, and the most that ever did."""

    now, most, lock = 0, 0, threading.Lock()


def count_at_once(shared: int, batch: int) -> int:
    with AtOnce.lock:
        AtOnce.now += 1
        AtOnce.most = max(AtOnce.most, AtOnce.now)
    time.sleep(0.05)
    with AtOnce.lock:
        AtOnce.now -= 1
    return batch


def die_at(shared: int, batch: int) -> int:
    if batch == shared:
        os._exit(1)
    return batch


def wait_until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("batches", [[], [3], list(range(50)), [9, 2, 40, 7, 1000, 0]], ids=len)
def test_map__takes_every_batch_once(
    batches: list[int], where: str, on: Callable[[str], Any]
) -> None:
    taken: list[tuple[int, int]] = []
    with on(where):
        map_iterations(add, 100, batches, lambda batch, result: taken.append((batch, result)))
    assert sorted(taken) == sorted((batch, 100 + batch) for batch in batches)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_map__takes_one_at_a_time(where: str, on: Callable[[str], Any]) -> None:
    inside, most = 0, 0

    def take(batch: int, result: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1

    with on(where):
        map_iterations(add, 0, range(30), take)
    assert most == 1


def test_map__runs_on_all_threads(on: Callable[[str], Any]) -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(shared: None, batch: int) -> None:
        both.wait()  # breaks unless two batches run at the same time

    with on("two threads"):
        map_iterations(meet, None, range(6), lambda batch, result: None)


@pytest.mark.parametrize("where", EVERYWHERE)
def test_map__keeps_no_result(where: str, on: Callable[[str], Any]) -> None:
    Big.alive.clear()
    most = n_taken = 0

    def take(batch: int, result: Big) -> None:
        nonlocal most, n_taken
        assert result.number == batch
        n_taken += 1
        if n_taken % 60 == 0:
            gc.collect()
            # The scheduler of a cluster frees results a moment later.
            wait_until(lambda: len(Big.alive) <= 6)
            most = max(most, len(Big.alive))

    with on(where):
        map_iterations(make_big, 0, range(130), take)
    assert 1 <= most <= 6
    gc.collect()
    wait_until(lambda: len(Big.alive) == 0)
    assert len(Big.alive) == 0


class Begun:
    """Batches that workers began; of the class, since a list in a function would be copied."""

    batches: ClassVar[list[int]] = []


def note(_shared: int, batch: int) -> None:
    Begun.batches.append(batch)


def most_ahead(cluster: Any, n_batches: int) -> int:
    """Batches that were begun and not taken yet, at most, while taking is slow."""
    Begun.batches.clear()
    ahead: list[int] = []

    def take(_batch: int, _result: None) -> None:
        time.sleep(0.05)
        ahead.append(len(Begun.batches) - len(ahead))

    with cluster.as_current():
        map_iterations(note, 0, range(n_batches), take)
    assert len(ahead) == n_batches
    return max(ahead)


def test_map__a_cluster_has_few_batches_on_their_way(cluster: Any) -> None:
    # Two workers, two batches for each, and one more while one is taken.
    assert 1 < most_ahead(cluster, 40) <= 2 * 2 + 1


def test_map__a_cluster_that_grows_sees_work_for_all_its_workers(cluster: Any) -> None:
    with dask.config.set({"nimare-dask.growing": True, "nimare-dask.expected-workers": 8}):
        assert 10 < most_ahead(cluster, 60) <= 2 * 8 + 1


def until(end: float, batch: int) -> int:
    Begun.batches.append(batch)
    time.sleep(max(0.0, end - time.time()))
    return batch


@pytest.mark.parametrize("together", [1, 16])
def test_map__both_runs_of_a_batch_that_was_started_again_are_done(
    together: int, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_done = iterations._some_done

    def all_done(futures: list[Any]) -> list[Any]:
        if some_done(futures):
            time.sleep(0.3)
        return [future for future in futures if future.done()]

    monkeypatch.setattr(iterations, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(iterations, "_some_done", all_done)
    monkeypatch.setattr(iterations, "_TOGETHER", together)
    Begun.batches.clear()
    taken: list[int] = []
    with cluster.as_current():
        map_iterations(until, time.time() + 1.0, [0], lambda batch, result: taken.append(batch))
    assert taken == [0] and Begun.batches == [0, 0]


@pytest.mark.parametrize("where", EVERYWHERE)
def test_map__an_error_in_a_batch_is_raised_and_ends_it(
    where: str, on: Callable[[str], Any]
) -> None:
    Bad.begun.clear()
    taken: list[int] = []
    with on(where), pytest.raises(ArithmeticError, match=r"batch .* is bad"):
        map_iterations(fail_sixth, 0, range(200), lambda batch, result: taken.append(batch))
    at_end = len(taken)
    time.sleep(0.3)
    assert len(taken) <= at_end + 1, "only what had begun may still end"
    assert Bad.begun[5] not in taken and len(taken) < 60


def test_map__nothing_is_taken_after_the_error(on: Callable[[str], Any]) -> None:
    """Whoever caught the error may have deleted the store, or begun again."""
    both, taken = threading.Barrier(2, timeout=20), list[int]()

    def run(shared: None, batch: int) -> int:
        both.wait()
        if batch == 0:
            raise ArithmeticError
        time.sleep(0.3)
        return batch

    with on("two threads"), pytest.raises(ArithmeticError):
        map_iterations(run, None, [0, 1], lambda batch, result: taken.append(batch))
    assert taken == []
    time.sleep(0.6)
    assert taken == []


@pytest.mark.parametrize("where", EVERYWHERE)
def test_map__an_error_of_who_takes_is_raised_and_ends_it(
    where: str, on: Callable[[str], Any]
) -> None:
    taken: list[int] = []

    def take(batch: int, result: int) -> None:
        taken.append(batch)
        if len(taken) == 3:
            raise OSError(28, "No space left on device")

    with on(where), pytest.raises(OSError, match="No space left on device"):
        map_iterations(add_slowly, 0, range(200), take)
    time.sleep(0.3)
    assert 3 <= len(taken) <= 4
    again: list[int] = []
    with on(where):  # what was called off does not stand in the way of the next run
        map_iterations(add, 0, range(5), lambda batch, result: again.append(batch))
    assert sorted(again) == list(range(5))


@pytest.mark.parametrize("where", EVERYWHERE)
def test_map__ctrl_c_ends_it(where: str, on: Callable[[str], Any]) -> None:
    taken: list[int] = []

    def take(batch: int, result: int) -> None:
        taken.append(batch)
        if len(taken) == 3:
            raise KeyboardInterrupt

    with on(where), pytest.raises(KeyboardInterrupt):
        map_iterations(add_slowly, 0, range(200), take)
    time.sleep(0.3)
    assert 3 <= len(taken) <= 4


def test_map__more_workers_later_get_work_too() -> None:
    """A queue of a computing centre gives workers one after the other."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as small,
        Client(small, set_as_default=False) as client,
        client.as_current(),
    ):

        def take(batch: int, result: int) -> None:
            if batch == 2:
                small.scale(6)
                client.wait_for_workers(6, timeout=20)

        map_iterations(count_at_once, 0, range(50), take)
    assert AtOnce.most >= 5


def hang_first(seen: list[int], batch: int) -> int:
    """Hang over batch 7 the first time, as on a worker that is frozen."""
    if batch == 7:
        seen.append(batch)
        if len(seen) == 1:
            Frozen.thaws.wait(20)
    return batch


class Frozen:
    """When the batch that hangs goes on."""

    thaws: ClassVar[threading.Event] = threading.Event()


def test_map__the_last_batch_does_not_wait_for_a_frozen_worker(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iterations, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(Frozen, "thaws", threading.Event())
    seen, taken = list[int](), list[int]()
    began = time.monotonic()
    with cluster.as_current():
        map_iterations(hang_first, seen, range(12), lambda batch, result: taken.append(result))
    took = time.monotonic() - began
    Frozen.thaws.set()
    assert sorted(taken) == list(range(12)), "every batch is taken once"
    assert took < 10


@pytest.mark.slow
def test_map__a_batch_that_kills_its_workers_is_said() -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        client.as_current(),
        pytest.raises(WorkerError, match=r"died several times .* give workers more memory"),
    ):
        map_iterations(die_at, 1, range(6), lambda batch, result: None)
