"""The manifests of deploy/kubernetes: valid, safe, rendered, and run as processes of this machine.

No cluster is at hand. What pods would run (commands, arguments, environment, as the Dask operator
would start them) is run here, with folders in place of volumes and 127.0.0.1 for every service.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import jsonschema
import pytest

import nimare_dask as nd
from nimare_dask._version import __version__
from tests.command import run
from tests.deploy import manifests, processes
from tests.deploy.manifests import FOLDER, ROOT, SIZES, Document, of_kind, read, rendered
from tests.deploy.processes import Processes, answer, free_ports, wait_for
from tests.null_runs import n_done

pytest.importorskip("kubernetes_validate", reason="the extra test is not installed")
pytest.importorskip("dask_kubernetes", reason="the extra kubernetes is not installed")

FILES = sorted(
    str(path.relative_to(FOLDER))
    for path in FOLDER.glob("*/*.yaml")
    if path.name != "kustomization.yaml"
)
PODS = dict(manifests.all_pods())
#: What a person edits: fewer iterations and shares, and one thread.
ITERATIONS, SHARES = "400", "3"


# --- valid


@pytest.mark.parametrize("path", FILES)
def test_manifest__is_what_kubernetes_takes(path: str) -> None:
    manifests.validate(read(path))


def test_validate__refuses_fields_that_kubernetes_would_drop() -> None:
    job = read("base/job.yaml")
    job["spec"]["cluster"]["spec"]["worker"]["spec"]["containers"][0]["memory"] = "3Gi"
    with pytest.raises(jsonschema.ValidationError, match="memory"):
        manifests.validate(job)
    batches = read("indexed/batches.yaml")
    batches["spec"]["shares"] = 20
    with pytest.raises(Exception, match="shares"):
        manifests.validate(batches)


def test_manifests__are_all_there() -> None:
    base = ["autoscaler", "cluster", "copy", "job", "network-policy", "storage"]
    indexed = ["batches", "merge", "network-policy", "prepare", "storage"]
    wanted = [f"base/{name}.yaml" for name in base] + [f"indexed/{name}.yaml" for name in indexed]
    assert sorted(wanted) == FILES
    assert len(PODS) == 2 + 3 + 3 + 1


def test_job__starts_the_cluster_of_cluster_yaml() -> None:
    job, cluster = read("base/job.yaml"), read("base/cluster.yaml")
    assert job["spec"]["cluster"]["spec"] == cluster["spec"]
    assert read("base/storage.yaml") == read("indexed/storage.yaml")


def test_names__lead_to_each_other() -> None:
    job = read("base/job.yaml")
    name = job["metadata"]["name"]
    assert read("base/cluster.yaml")["metadata"]["name"] == name
    assert read("base/autoscaler.yaml")["spec"]["cluster"] == name
    service = job["spec"]["cluster"]["spec"]["scheduler"]["service"]
    assert service["selector"]["dask.org/cluster-name"] == name
    policy = read("base/network-policy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"] == {"dask.org/cluster-name": name}
    claim = read("base/storage.yaml")["metadata"]["name"]
    for where, pod in PODS.items():
        for volume in pod["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] == claim, where
    pods_of_policy = read("indexed/network-policy.yaml")["spec"]["podSelector"]["matchLabels"]
    for step in ("prepare", "batches", "merge"):
        labels = read(f"indexed/{step}.yaml")["spec"]["template"]["metadata"]["labels"]
        assert pods_of_policy.items() <= labels.items()


def test_shares__are_as_many_as_there_are_indices() -> None:
    spec = read("indexed/batches.yaml")["spec"]
    words = spec["template"]["spec"]["containers"][0]["args"]
    assert int(words[words.index("--of") + 1]) == spec["completions"]
    # The exit code that is not tried again is that of wrong usage.
    (rule,) = (rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    run("run-batch", "null.zarr", "--tusk", 1, code=rule["onExitCodes"]["values"][0])


# --- safe


@pytest.mark.parametrize("where", PODS)
def test_pod__has_no_rights_that_it_does_not_need(where: str) -> None:
    spec = PODS[where]["spec"]
    (container,) = spec["containers"]
    pod, own = spec["securityContext"], container["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0 and pod["runAsGroup"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
    assert not any("hostPath" in volume for volume in spec["volumes"])


@pytest.mark.parametrize("where", PODS)
def test_pod__has_limits_and_one_image_of_a_version(where: str) -> None:
    (container,) = PODS[where]["spec"]["containers"]
    assert container["image"] == f"nimare-dask:{__version__}"
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    assert set(limits) == set(requests) == {"cpu", "memory", "ephemeral-storage"}
    assert limits["memory"] == requests["memory"], "what is not asked for may be taken away"


@pytest.mark.parametrize("where", [where for where in PODS if "copy" not in where])
def test_pod__writes_to_scratch_and_uses_one_thread(where: str) -> None:
    spec = PODS[where]["spec"]
    (container,) = spec["containers"]
    env = {each["name"]: each["value"] for each in container["env"]}
    assert all(isinstance(value, str) for value in env.values())
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    assert "sizeLimit" in mounts["/scratch"]["emptyDir"]
    for name in ("HOME", "TMPDIR", "DASK_TEMPORARY_DIRECTORY"):
        assert env[name] == "/scratch"
    if where.endswith(":scheduler"):
        return
    assert env["NUMBA_CACHE_DIR"].startswith("/scratch/")
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        assert env[f"{library}_NUM_THREADS"] == "1"
    assert "persistentVolumeClaim" in mounts["/data"]


def test_network__lets_in_the_cluster_and_the_operator_only() -> None:
    policy = read("base/network-policy.yaml")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule.get("from") for rule in policy["ingress"])
    assert all(rule.get("to") for rule in policy["egress"])
    alone = read("indexed/network-policy.yaml")["spec"]
    assert alone["ingress"] == alone["egress"] == []


# --- rendered


WORKER = "/spec/cluster/spec/worker"


@pytest.mark.parametrize(
    ("size", "workers", "adapt", "worker", "scheduler", "runner"),
    [
        ("small", 2, (1, 4), ("1", "2Gi"), ("500m", "1Gi"), "2Gi"),
        ("medium", 16, (2, 32), ("1", "3Gi"), ("1", "2Gi"), "3Gi"),
        ("large", 100, (10, 200), ("1", "4Gi"), ("2", "8Gi"), "8Gi"),
    ],
)
def test_size__is_rendered(
    size: str,
    workers: int,
    adapt: tuple[int, int],
    worker: tuple[str, str],
    scheduler: tuple[str, str],
    runner: str,
) -> None:
    found = rendered(FOLDER / size)
    for document in found:
        manifests.validate(document)
    assert len(found) == 4
    job = of_kind(found, "DaskJob")
    pods = manifests.pods(job)
    assert pods["worker"]["replicas"] == workers
    for pod, (cpu, memory) in (
        ("worker", worker),
        ("scheduler", scheduler),
        ("runner", ("1", runner)),
    ):
        resources = pods[pod]["spec"]["containers"][0]["resources"]
        for bound in (resources["requests"], resources["limits"]):
            assert (bound["cpu"], bound["memory"]) == (cpu, memory)
    autoscaler = of_kind(found, "DaskAutoscaler")["spec"]
    assert (autoscaler["minimum"], autoscaler["maximum"]) == adapt
    # A volume that is there already cannot get another size.
    assert of_kind(found, "PersistentVolumeClaim") == read("base/storage.yaml")


def test_indexed__is_rendered_in_three_steps() -> None:
    found = rendered(FOLDER / "indexed")
    for document in found:
        manifests.validate(document)
    by_step: dict[str, list[str]] = {}
    for document in found:
        step = document["metadata"]["labels"]["nimare-dask/step"]
        by_step.setdefault(step, []).append(document["kind"])
    assert {step: sorted(kinds) for step, kinds in by_step.items()} == {
        "prepare": ["Job", "NetworkPolicy", "PersistentVolumeClaim"],
        "batches": ["Job"],
        "merge": ["Job"],
    }


@pytest.mark.parametrize("folder", [*SIZES, "indexed"])
def test_object_store__takes_the_place_of_the_volume(folder: str, tmp_path: Path) -> None:
    found = rendered(manifests.with_object_store(tmp_path) / folder)
    for document in found:
        manifests.validate(document)
        assert document["kind"] != "PersistentVolumeClaim"
        for name, pod in manifests.pods(document).items():
            spec = pod["spec"]
            (container,) = spec["containers"]
            volumes = [volume["name"] for volume in spec["volumes"]]
            assert volumes == [mount["name"] for mount in container["volumeMounts"]] == ["scratch"]
            assert not any(word.startswith("/data") for word in container["args"])
            if name != "scheduler":
                (source,) = container["envFrom"]
                assert source["secretRef"]["name"] == "nimare-dask-object-store"
            if name in ("runner", "prepare"):
                assert container["args"][2:4] == [
                    "s3://BUCKET/corpus.zarr",
                    f"s3://BUCKET/pain{'-batches' if name == 'prepare' else ''}.zarr",
                ]
            if name in ("batches", "merge"):
                assert container["args"][2] == "s3://BUCKET/pain-batches.null.zarr"
    ports = [
        port["port"]
        for rule in of_kind(found, "NetworkPolicy")["spec"]["egress"]
        for port in rule.get("ports", [])
    ]
    assert 443 in ports and 53 in ports


def test_readme__names_files_that_are_there() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"deploy/[\w./-]*\w", text))
    assert {f"deploy/kubernetes/{size}" for size in (*SIZES, "indexed")} <= named
    for path in named:
        assert (ROOT / path).exists(), path


# --- from Python


def test_cluster__is_made_of_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    from dask_kubernetes import operator
    from distributed import LocalCluster

    asked: list[dict[str, Any]] = []

    def start(**given: Any) -> LocalCluster:
        asked.append(given)
        return LocalCluster(n_workers=0, processes=False, dashboard_address=":0")

    monkeypatch.setattr(operator, "KubeCluster", start)
    path = FOLDER / "base" / "cluster.yaml"
    with nd.cluster("kubernetes", n_workers=2, config=path, say=lambda _: None) as client:
        client.wait_for_workers(2, timeout=30)
    (given,) = asked
    assert given["custom_cluster_spec"] == read("base/cluster.yaml")
    assert given["namespace"] is None


@pytest.mark.parametrize(
    ("given", "said"), [("1 s", "No Dask scheduler answers"), ("soon", "soon")]
)
def test_connect_timeout__is_how_long_a_scheduler_is_looked_for(given: str, said: str) -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    with (
        dask.config.set({"nimare-dask.connect-timeout": given}),
        pytest.raises(nd.SettingsError, match=said),
        nd.cluster(f"tcp://127.0.0.1:{port}"),
    ):
        pass
    assert time.monotonic() - began < 8


def test_cluster__other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("distributed: {}\n")
    with (
        pytest.raises(nd.SettingsError, match=r"manifest of a DaskCluster.*cluster\.yaml"),
        nd.cluster("kubernetes", config=path),
    ):
        pass


# --- run


def as_the_operator_makes_it(job: Document) -> dict[str, Document]:
    """The pods of a DaskJob, by the operator's own functions, which set more variables."""
    from dask_kubernetes.operator.controller import controller

    name, spec = job["metadata"]["name"], job["spec"]
    cluster, known = spec["cluster"]["spec"], ({}, dict(job["metadata"]["labels"]))
    scheduler = controller.build_scheduler_deployment_spec(
        name, cluster["scheduler"]["spec"], *known
    )
    worker = controller.build_worker_deployment_spec(
        f"{name}-default", "default", name, "0a1b2c", cluster["worker"]["spec"], *known
    )
    runner = controller.build_job_pod_spec(name, name, "default", spec["job"]["spec"], *known)
    for made in (scheduler, worker, runner):
        manifests.validate(made)
    return {
        "scheduler": scheduler["spec"]["template"],
        "worker": worker["spec"]["template"],
        "runner": runner,
    }


class Machine:
    """Where pods run in these tests: folders for volumes, ports of this machine for services."""

    def __init__(self, folder: Path, run: Processes) -> None:
        self.run, self.folder = run, folder
        self.data = folder / "volume"
        self.data.mkdir()
        nd.save_corpus(processes.make_corpus(), self.data / "corpus.zarr")
        self.scheduler, self.dashboard = free_ports(2)

    def program(
        self, pod: Document, given: Mapping[str, str] | None = None
    ) -> tuple[manifests.Program, int, Path]:
        """What a pod runs, the port of its own page, and its scratch folder."""
        scratch = self.folder / f"emptydir{len(self.run.started)}"
        scratch.mkdir(exist_ok=True)
        (page,) = free_ports(1)
        places = {
            "/data": str(self.data),
            "/scratch": str(scratch),
            "nimare-dask-scheduler.default.svc.cluster.local": "127.0.0.1",
            "0.0.0.0": "127.0.0.1",
            "8786": str(self.scheduler),
            "8787": str(self.dashboard),
            "8788": str(page),
            "10000": ITERATIONS,
        }
        made = manifests.program(pod, given=given or {}, places=places)
        # Nothing else is in the environment of a pod. The image has its kernels compiled; here
        # they are where they always are.
        env = {
            **made.env,
            "PATH": processes.path_of(Path(sys.executable).parent),
            "PYTHONPATH": str(ROOT),
        }
        env.pop("NUMBA_CACHE_DIR", None)
        return manifests.Program(made.words, env), page, scratch

    def start(self, pod: Document, given: Mapping[str, str] | None = None) -> tuple[Any, int]:
        """Start what a pod runs; the process and the port of its own page."""
        made, page, scratch = self.program(pod, given)
        return self.run.start(made.words, made.env, cwd=scratch), page

    def plain(self, name: str, pod: Document) -> Path:
        """The result of the same command without any cluster."""
        words = self.program(pod, {"DASK_SCHEDULER_ADDRESS": "none"})[0].words
        if "--cluster" in words:
            at = words.index("--cluster")
            words = words[:at] + words[at + 2 :]
        words = [word for word in words if word != "--prepare"]
        words[3] = str(self.folder / name)
        run(*words[1:])
        return Path(words[3])


@pytest.mark.slow
def test_job__runs_and_equals_a_plain_run(tmp_path: Path) -> None:
    pods = as_the_operator_makes_it(read("base/job.yaml"))
    with processes.processes(tmp_path) as started:
        machine = Machine(tmp_path, started)
        # First, so that kernels are compiled once and not by three processes at a time.
        plain = machine.plain("plain", pods["runner"])
        # The runner may come first: it waits for the scheduler.
        runner, _ = machine.start(pods["runner"])
        machine.start(pods["scheduler"])
        probe = pods["scheduler"]["spec"]["containers"][0]["livenessProbe"]["httpGet"]
        wait_for("health", lambda: answer(machine.dashboard, probe["path"]) is not None)
        pages = [machine.start(pods["worker"], {"DASK_WORKER_NAME": f"w{i}"})[1] for i in (0, 1)]
        probe = pods["worker"]["spec"]["containers"][0]["livenessProbe"]["httpGet"]
        for page in pages:
            wait_for("health", lambda page=page: answer(page, probe["path"]) is not None)
        assert runner.wait(timeout=processes.HANGS) == 0, started.said(runner)
        workers = json.loads(str(answer(machine.dashboard, "/api/v1/get_workers")))
        assert {worker["name"] for worker in workers["workers"]} == {"w0", "w1"}
    out = machine.data / "pain"
    processes.assert_same_result(out / "result.zarr", plain / "result.zarr")
    images = sorted(path.name for path in plain.glob("*.nii.gz"))
    assert images and sorted(path.name for path in out.glob("*.nii.gz")) == images


@pytest.mark.slow
def test_autoscaler__is_told_of_more_work_than_there_are_workers(tmp_path: Path) -> None:
    """Batches are handed out two for each worker, which is work for twice as many."""
    from distributed import Client

    pods = as_the_operator_makes_it(read("base/job.yaml"))
    with processes.processes(tmp_path) as started:
        machine = Machine(tmp_path, started)
        machine.start(pods["scheduler"])
        machine.start(pods["worker"], {"DASK_WORKER_NAME": "only"})
        with Client(f"tcp://127.0.0.1:{machine.scheduler}", timeout="60s") as client:
            client.wait_for_workers(1, timeout=60)
            naps = [client.submit(time.sleep, 2, pure=False) for _ in range(2)]

            def wanted() -> int:
                return int(
                    json.loads(str(answer(machine.dashboard, "/api/v1/adaptive_target")))["workers"]
                )

            wait_for("two workers are wanted", lambda: wanted() == 2, 10)
            client.gather(naps)
            wait_for("fewer are wanted", lambda: wanted() <= 1, 10)


@pytest.mark.slow
def test_indexed__a_share_fails_and_is_tried_again(tmp_path: Path) -> None:
    steps = {
        name: manifests.pods(read(f"indexed/{name}.yaml"))[name]
        for name in ("prepare", "batches", "merge")
    }
    words = steps["batches"]["spec"]["containers"][0]["args"]
    words[words.index("--of") + 1] = SHARES
    with processes.processes(tmp_path) as started:
        machine = Machine(tmp_path, started)
        plain = machine.plain("plain", steps["prepare"])
        process, _ = machine.start(steps["prepare"])
        assert process.wait(timeout=processes.HANGS) == 0, started.said(process)
        store = machine.data / "pain-batches" / "null.zarr"
        assert n_done(store) == 0

        failed = 0
        for index in range(int(SHARES)):
            process, _ = machine.start(steps["batches"], {"JOB_COMPLETION_INDEX": str(index)})
            if index == 1:
                done = n_done(store)
                wait_for("a batch", lambda done=done: n_done(store) > done)
                process.kill()
                assert process.wait(timeout=30) < 0, "the share was over before it could be killed"
                failed += 1
                process, _ = machine.start(steps["batches"], {"JOB_COMPLETION_INDEX": "1"})
            assert process.wait(timeout=processes.HANGS) == 0, started.said(process)
        assert failed == 1 and n_done(store) == int(ITERATIONS)

        process, _ = machine.start(steps["merge"])
        assert process.wait(timeout=processes.HANGS) == 0, started.said(process)
    processes.assert_same_result(store.with_name("result.zarr"), plain / "result.zarr")
