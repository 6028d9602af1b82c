"""Where to run: what can be asked for, what is said, and worker processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.config
import pytest

import nimare_dask as nd
from nimare_dask.parallel import clusters
from nimare_dask.parallel.clusters import KINDS
from nimare_dask.parallel.execute import active_client, n_workers
from nimare_dask.parallel.settings import no_worker_seconds, read_settings


def refused(*words: Any, match: str, **settings: Any) -> None:
    with pytest.raises(nd.SettingsError, match=match), nd.cluster(*words, **settings):
        raise AssertionError("the cluster was started")


def test_cluster__threads_are_no_cluster() -> None:
    with nd.cluster(None) as client:
        assert client is None and active_client() is None


@pytest.mark.parametrize("where", ["slrum", "", "node01:8786"])
def test_cluster__unknown_kind(where: str) -> None:
    refused(where, match="expected local, slurm, .* or the address of a Dask scheduler")


@pytest.mark.parametrize("where", [None, "tcp://127.0.0.1:9", "slurm-runner"])
def test_cluster__number_of_workers_where_it_is_given(where: str | None) -> None:
    refused(where, n_workers=2, match="are as many as they are")
    refused(where, adapt=(1, 2), match="are as many as they are")


def test_cluster__settings_that_cannot_be(tmp_path: Path) -> None:
    refused("local", n_workers=0, match="expected at least 1")
    refused("local", adapt=(3, 2), match="the fewest and then the most")
    refused("local", adapt=(0, 0), match="the fewest and then the most")
    refused("local", n_workers=2, adapt=(1, 2), match="not both")
    refused(None, config=tmp_path / "x.yaml", match="but no cluster")
    refused("local", config=tmp_path / "x.yaml", match="cannot be read")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "are empty"),
        ("- 1\n- 2\n", "are list"),
        ("jobqueue: [1", "are not YAML"),
        ("a\x00b", "are not YAML"),
    ],
    ids=["empty", "list", "torn", "zero"],
)
def test_settings__files_that_are_none(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(nd.SettingsError, match=told):
        read_settings(path)


def test_settings__lie_over_what_dask_has_and_go_again(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "nimare-dask:\n  n-workers: 1\n  no-worker-timeout: 5m\n"
        "distributed:\n  worker:\n    memory:\n      spill: 0.55\n"
    )
    import distributed  # noqa: F401  has settings of its own

    before = dask.config.get("distributed.worker.memory.target")
    with nd.cluster("local", config=path, say=lambda _: None) as client:
        assert no_worker_seconds() == 300
        assert dask.config.get("distributed.worker.memory.spill") == 0.55
        assert dask.config.get("distributed.worker.memory.target") == before
        assert len(client.nthreads()) == 1
    assert no_worker_seconds() == 600
    assert dask.config.get("distributed.worker.memory.spill") != 0.55


def test_timeout__that_is_none() -> None:
    with (
        dask.config.set({"nimare-dask.no-worker-timeout": "soon"}),
        pytest.raises(nd.SettingsError, match="'soon'; expected a time"),
    ):
        no_worker_seconds()


def test_cluster__local_processes_with_one_thread_each() -> None:
    said: list[str] = []
    with nd.cluster("local", n_workers=2, say=said.append) as client:
        client.wait_for_workers(2, timeout=60)
        assert active_client() is client and n_workers() == 2
        assert list(client.nthreads().values()) == [1, 1]
        assert os.getpid() not in client.run(os.getpid).values()
    assert said[0].startswith("Dashboard: http://")
    assert active_client() is None


def test_cluster__no_scheduler_answers() -> None:
    with dask.config.set({"nimare-dask.connect-timeout": "0.5s"}):
        refused("tcp://127.0.0.1:9", match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9")
    refused("bicycle://there", match="No Dask scheduler answers")


def test_cluster__that_is_not_there_leaves_no_default(tmp_path: Path) -> None:
    before = dask.config.get("scheduler", None)
    with dask.config.set({"nimare-dask.connect-timeout": "0.5s"}):
        try:
            with nd.cluster("tcp://127.0.0.1:9"):
                pass
        except nd.SettingsError as held:  # as a notebook holds the last error
            assert dask.config.get("scheduler", None) == before, held
            assert active_client() is None


def test_cluster__without_any_worker(tmp_path: Path) -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, dashboard_address=None) as empty,
        dask.config.set({"nimare-dask.no-worker-timeout": "0.3s"}),
        pytest.raises(nd.WorkerError, match="has had no worker for 0 s; start some: `dask worker"),
        nd.cluster(empty.scheduler_address, say=lambda _: None),
    ):
        raise AssertionError("there was a worker")


@pytest.mark.parametrize("where", [*clusters.BATCH_SYSTEMS])
def test_batch_system__without_cores_says_which_file_to_edit(where: str) -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra hpc is not installed")
    refused(where, match=rf"no jobqueue\.{where}\.cores and no jobqueue\.{where}\.memory; copy dep")


def test_batch_system__leaves_ctrl_c_alone() -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra hpc is not installed")
    code = (
        "import signal, nimare_dask as nd\n"
        "try:\n"
        "    with nd.cluster('slurm'): pass\n"
        "except nd.SettingsError: pass\n"
        "import dask_jobqueue\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(
    ("where", "module", "extra"),
    [
        ("slurm", "dask_jobqueue", "hpc"),
        ("kubernetes", "dask_kubernetes.operator", "kubernetes"),
    ],
)
def test_cluster__extra_that_is_not_installed(
    where: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    refused(where, match=rf"pip install 'nimare-dask\[{extra}\]'")


def test_slurm_runner__outside_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra hpc is not installed")
    for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGINT)
    refused("slurm-runner", match="in the tasks of an allocation of SLURM only")
    assert signal.getsignal(signal.SIGINT) is before


def test_kubernetes__needs_a_manifest(tmp_path: Path) -> None:
    pytest.importorskip("dask_kubernetes", reason="the extra kubernetes is not installed")
    refused("kubernetes", match="needs the manifest of a DaskCluster")


def test_kinds__are_what_the_help_names() -> None:
    from typer.testing import CliRunner

    from nimare_dask.cli.app import app

    shown = CliRunner().invoke(app, ["ale", "--help"], env={"COLUMNS": "200"}).output
    assert all(kind in shown for kind in KINDS)
