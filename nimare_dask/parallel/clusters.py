"""Where to run: this machine, a batch system, Kubernetes, or a Dask cluster that is there."""

from __future__ import annotations

import asyncio
import logging
import shlex
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dask.config

from nimare_dask.errors import SettingsError, WorkerError
from nimare_dask.parallel.settings import connect_seconds, flat, no_worker_seconds, read_settings

#: dask-jobqueue's class for each batch system.
BATCH_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
}

#: Names that `cluster` knows; anything else is the address of a scheduler.
KINDS = ("local", *BATCH_SYSTEMS, "slurm-runner", "kubernetes")

#: Seconds between two sentences while there is no worker yet.
_SAY_EVERY = 60.0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def cluster(
    where: str | None = "local",
    *,
    n_workers: int | None = None,
    adapt: tuple[int, int] | None = None,
    config: str | Path | None = None,
    say: Callable[[str], None] = _say,
) -> Iterator[Any]:
    """Run what is inside the ``with`` block on a cluster.

    Parameters
    ----------
    where
        ``"local"``: worker processes on this machine, one thread each. ``"slurm"``, ``"pbs"``,
        ``"sge"``, ``"lsf"``: each worker is a job of the batch system (dask-jobqueue, extra
        ``hpc``). ``"slurm-runner"``: this very program was started by ``srun`` in an allocation of
        at least three tasks; one becomes the scheduler, one goes on here, the others work.
        ``"kubernetes"``: pods of the Dask operator (extra ``kubernetes``). An address
        (``tcp://host:8786``): the Dask cluster that is there. None: threads of this process.
    n_workers
        Worker processes. By default as many as this machine has cores (local), what `config` says
        (Kubernetes), or one. Jobs that end or are lost are submitted again, up to this number.
    adapt
        The fewest and the most workers, in place of `n_workers`: they come and go with the work.
    config
        A YAML file with settings of Dask, such as those in the folder ``deploy``; for Kubernetes
        the manifest of a DaskCluster. Without one Dask's own configuration holds
        (``~/.config/dask/*.yaml``).
    say
        Gets sentences for people; standard error by default.

    Yields
    ------
    client
        The ``distributed.Client``, which all of nimare_dask uses inside the block; None for
        threads.

    Raises
    ------
    SettingsError
        When the cluster cannot be started as it is asked for.
    WorkerError
        When no worker comes.

    Notes
    -----
    In a script, call it under ``if __name__ == "__main__":``, since worker processes import the
    script.
    """
    _check(where, n_workers, adapt, config)
    if where is None:
        yield None
        return
    from distributed import Client

    if where in BATCH_SYSTEMS:
        _jobqueue()  # before settings are laid over, which takes all that is newer with it
    with ExitStack() as stack:
        settings = read_settings(config) if config is not None else {}
        if settings.get("kind") != "DaskCluster":
            stack.enter_context(dask.config.set(flat(settings)))
        stack.enter_context(_quiet_when_lost())
        if where in KINDS:
            count = n_workers or int(dask.config.get("nimare-dask.n-workers", 0))
            most = adapt[1] if adapt else count
            expected = {"nimare-dask.expected-workers": most, "nimare-dask.growing": bool(adapt)}
            stack.enter_context(dask.config.set(expected))
            started = stack.enter_context(_start(where, most, config, settings, say))
            _size(started, where, count, adapt)
            client = stack.enter_context(Client(started))
        else:
            started, client = None, stack.enter_context(_connect(where))
        stack.push(_hush)
        say(f"Dashboard: {client.dashboard_link}")
        # With 0 as the fewest, workers come when there is work.
        if adapt is None or adapt[0]:
            _wait_for_worker(client, where, say, getattr(started, "troubles", None))
        yield client


@contextmanager
def _quiet_when_lost() -> Iterator[None]:
    """Let Dask not tell with tracebacks, when its client is lost or closed, what an error says."""
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "batched")]
    before = [logger.level for logger in loggers]
    logging.getLogger("distributed.batched").setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _hush(kind: type[BaseException] | None, *_: object) -> None:
    if kind is not None and issubclass(kind, WorkerError):
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)


def _check(
    where: str | None,
    n_workers: int | None,
    adapt: tuple[int, int] | None,
    config: str | Path | None,
) -> None:
    if where is not None and where not in KINDS and "://" not in where:
        raise SettingsError(
            f"The cluster is {where!r}; expected {', '.join(KINDS)}, or the address of a Dask "
            "scheduler such as tcp://host:8786."
        )
    fixed = {None: "threads", "slurm-runner": "workers of an allocation"}
    told = fixed.get(where, None if where in KINDS else "workers of a cluster that is there")
    if told and not (n_workers is None and adapt is None):
        raise SettingsError(
            f"The number of workers is given, but {told} are as many as they are; leave it out, or "
            f"choose one of {', '.join(kind for kind in KINDS if kind != 'slurm-runner')}."
        )
    if where is None and config is not None:
        raise SettingsError("Settings of a cluster are given, but no cluster; choose one.")
    if n_workers is not None and adapt is not None:
        raise SettingsError("Expected a number of workers or the fewest and the most, not both.")
    if n_workers is not None and n_workers < 1:
        raise SettingsError(f"n_workers is {n_workers}; expected at least 1.")
    if adapt is not None and not (0 <= adapt[0] <= adapt[1] and adapt[1] >= 1):
        raise SettingsError(
            f"Workers are to be from {adapt[0]} to {adapt[1]}; expected the fewest and then the "
            "most, which is at least 1."
        )


def _start(
    where: str,
    count: int,
    config: str | Path | None,
    settings: Mapping[str, Any],
    say: Callable[[str], None],
) -> Any:
    """Start what can have workers."""
    if where == "local":
        from distributed import LocalCluster

        with warnings.catch_warnings():
            # Dask takes another port then, and the address is said in any case.
            warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
            return LocalCluster(
                n_workers=0, threads_per_worker=1, memory_limit=_share_of_memory(count)
            )
    if where == "kubernetes":
        return _start_on_kubernetes(settings)
    if where == "slurm-runner":
        from nimare_dask.parallel import allocation

        return allocation.start()
    return _start_on_batch_system(where, config, say)


def _share_of_memory(count: int) -> int:
    """Bytes of each of so many workers of this machine, 0 for as many as it has cores."""
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT // max(count, CPU_COUNT))


def _start_on_batch_system(
    where: str, config: str | Path | None, say: Callable[[str], None]
) -> Any:
    section = f"jobqueue.{where}"
    from nimare_dask.parallel.batch_jobs import Troubles, watched

    missing = [
        name for name in ("cores", "memory") if not dask.config.get(f"{section}.{name}", None)
    ]
    if missing:
        there = f"{config} has" if config is not None else "Dask's configuration has"
        raise SettingsError(
            f"{there} no {' and no '.join(f'{section}.{name}' for name in missing)}; copy "
            f"deploy/{where}/{where}.yaml, edit it, and give its path (config=, --cluster-config)."
        )
    of_system = getattr(_jobqueue(), BATCH_SYSTEMS[where])
    command = of_system.job_cls.submit_command
    if shutil.which(command) is None:
        raise SettingsError(
            f"There is no {command} here; run this where jobs of {where.upper()} are submitted, "
            "such as a login node."
        )
    prologue = list(dask.config.get(f"{section}.job-script-prologue", None) or [])
    if config is not None:
        # Workers are processes on other machines; this is how they get the settings too.
        prologue.insert(0, f"export DASK_CONFIG={shlex.quote(str(Path(config).absolute()))}")
    troubles = Troubles(command, dask.config.get(f"{section}.log-directory", None), say)
    try:
        started = of_system(
            job_cls=watched(of_system.job_cls, troubles),
            job_script_prologue=prologue,
            # Given here too, since dask-jobqueue counts workers of a job by this only.
            processes=int(dask.config.get(f"{section}.processes", None) or 1),
        )
    except (ValueError, TypeError, OSError) as error:
        raise SettingsError(
            f"The settings {section} are not taken by dask-jobqueue: {error}"
        ) from error
    started.troubles = troubles
    return started


def _jobqueue() -> Any:
    """dask-jobqueue, whose settings by default stand in Dask's configuration from then on."""
    with _own_interrupt():
        try:
            import dask_jobqueue
        except ImportError as error:
            raise SettingsError(
                "Jobs of a batch system need dask-jobqueue; install nimare_dask with the extra "
                "hpc: pip install 'nimare-dask[hpc]'."
            ) from error
    return dask_jobqueue


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Keep Ctrl-C as it is: importing dask-jobqueue makes it end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_on_kubernetes(settings: Mapping[str, Any]) -> Any:
    try:
        from dask_kubernetes.operator import KubeCluster
    except ImportError as error:
        raise SettingsError(
            "Pods need dask-kubernetes; install nimare_dask with the extra kubernetes: pip install "
            "'nimare-dask[kubernetes]'."
        ) from error
    if settings.get("kind") != "DaskCluster":
        raise SettingsError(
            "Kubernetes needs the manifest of a DaskCluster as its settings; copy "
            "deploy/kubernetes/base/cluster.yaml, edit it, and give its path (config=, "
            "--cluster-config)."
        )
    # dask-kubernetes does not read the namespace of a manifest.
    namespace = (settings.get("metadata") or {}).get("namespace")
    try:
        return KubeCluster(custom_cluster_spec=dict(settings), namespace=namespace, quiet=True)
    except Exception as error:  # whatever the client of Kubernetes raises
        raise SettingsError(
            f"The cluster cannot be made on Kubernetes ({type(error).__name__}: {error}); look "
            "whether `kubectl get daskclusters` works here and the Dask operator is installed."
        ) from error


def _size(started: Any, where: str, count: int, adapt: tuple[int, int] | None) -> None:
    """Ask for workers; a count of 0 says nothing about how many."""
    from dask.system import CPU_COUNT

    if where in BATCH_SYSTEMS:
        from nimare_dask.parallel import batch_jobs

        # Adaptive, since only so are jobs submitted again that have ended or were lost.
        fewest, most = adapt or (max(count, 1), max(count, 1))
        batch_jobs.adapt(started, where, fewest=fewest, most=most)
    elif adapt is not None:
        started.adapt(minimum=adapt[0], maximum=adapt[1])
    elif where == "local" or (where == "kubernetes" and count):
        started.scale(count or CPU_COUNT)


def _connect(address: str) -> Any:
    from distributed import Client

    try:
        _reach(address)
        return Client(address, timeout=connect_seconds())
    except (OSError, ValueError, TimeoutError) as error:
        raise SettingsError(
            f"No Dask scheduler answers at {address} ({error}); start one with `dask scheduler` "
            "and give its address (tcp://host:8786), or leave --cluster out to use this machine."
        ) from error


def _reach(address: str) -> None:
    """Raise what Dask raises when nobody answers at an address.

    A `Client` that finds nobody would do so too, but would have become Dask's default scheduler,
    and stay it until it is collected.
    """
    from distributed.comm.core import connect
    from distributed.security import Security

    async def reach() -> None:
        settings = Security().get_connection_args("client")
        comm = await connect(address, timeout=connect_seconds(), **settings)
        await comm.close()

    # A notebook has a loop that runs in this thread.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(reach())).result()


def _wait_for_worker(
    client: Any, where: str, say: Callable[[str], None], troubles: Any = None
) -> None:
    """Wait for the first worker, and say what is waited for; not when jobs keep failing."""
    if troubles is not None:
        troubles.waited_for = True
    patience, began, said = no_worker_seconds(), time.monotonic(), time.monotonic()
    hint = f"`dask worker {where}`" if where not in KINDS else "look at its queue and its logs"
    while not _has_worker(client):
        now = time.monotonic()
        if troubles is not None and (why := troubles.hopeless()):
            raise WorkerError(f"No worker comes. {why}.")
        if now - began > patience:
            raise WorkerError(
                f"The cluster ({where}) has had no worker for {now - began:.0f} s; start some: "
                f"{hint}. `nimare-dask: no-worker-timeout:` in the settings is how long to wait."
            )
        if now - said > _SAY_EVERY:
            said = now
            say(f"Waiting for the first worker since {(now - began) / 60:.0f} min ({where}).")
        time.sleep(0.1)


def _has_worker(client: Any) -> bool:
    from nimare_dask.parallel.execute import lost_connection

    try:
        return bool(client.nthreads())
    except OSError as error:
        raise lost_connection(error) from error
