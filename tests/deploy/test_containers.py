"""The recipes of the image: they agree, and their steps make an environment that works.

No container engine is at hand. The very install steps are run here, into a folder that stands for
the image, and programs are started from it as the image would, without rights to write to it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nimare_dask as nd
from nimare_dask._version import __version__
from tests.command import run
from tests.deploy import processes, recipes
from tests.deploy.processes import Processes, answer, free_ports, wait_for
from tests.deploy.recipes import LOCK, ROOT

EXTRAS = ("hpc", "kubernetes", "parquet")
ALE = ("--sample-size", "20", "--n-iters", "60", "--seed", "1")


# --- the recipes agree


def test_recipes__have_one_base_and_the_same_steps() -> None:
    docker, apptainer = recipes.dockerfile(), recipes.definition()
    assert docker.base == apptainer.base
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", docker.base)
    assert [*docker.steps, "rm -rf /build"] == apptainer.steps
    assert docker.files == apptainer.files
    assert docker.building == apptainer.building
    # Where scratch is differs: Apptainer sees that of the machine.
    there = {"HOME", "TMPDIR", "NUMBA_CACHE_DIR", "DASK_TEMPORARY_DIRECTORY"}
    assert {name: docker.running[name] for name in docker.running.keys() - there} == (
        apptainer.running
    )
    assert f"image.version {__version__}" in apptainer.rest["labels"]


def test_dockerfile__is_of_a_user_without_rights() -> None:
    from tests.deploy.manifests import all_pods

    docker = recipes.dockerfile()
    users = {pod["spec"]["securityContext"]["runAsUser"] for _, pod in all_pods()}
    (user,) = users
    assert user > 0 and docker.rest["USER"] == f"{user}:{user}"
    assert docker.rest["WORKDIR"] == "/scratch"
    assert all((ROOT / source).exists() for source in docker.files if "lock" not in source)


def test_dockerignore__sends_all_that_is_copied() -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{source}" for source in recipes.dockerfile().files} <= set(sent)


def test_environment__is_that_of_the_manifests() -> None:
    """What the image sets, the manifests set too, for images that others make."""
    from tests.deploy.manifests import all_pods

    running = recipes.dockerfile().running
    for where, pod in all_pods():
        (container,) = pod["spec"]["containers"]
        for each in container.get("env", []):
            assert running.get(each["name"], each["value"]) == each["value"], where


# --- the lock


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def asked() -> list[Requirement]:
    """What the package and its extras ask for, and what the image has besides."""
    described: dict[str, object] = project()
    extras = described["optional-dependencies"]
    assert isinstance(extras, dict) and isinstance(described["dependencies"], list)
    texts = [*described["dependencies"], *(text for name in EXTRAS for text in extras[name])]
    texts += extras.get("cloud", [])
    own = (ROOT / "deploy" / "docker" / "requirements.in").read_text(encoding="utf-8")
    lines = (line.partition("#")[0].strip() for line in own.splitlines())
    return [Requirement(text) for text in [*texts, *(line for line in lines if line)]]


def test_lock__is_at_least_what_the_package_asks_for() -> None:
    locked = recipes.locked()
    for requirement in asked():
        found = locked.get(canonicalize_name(requirement.name))
        assert found, f"{requirement.name} is not in the lock; make it again (requirements.in)"
        for exact in found:
            (bound,) = exact.specifier
            assert bound.operator == "=="
            assert requirement.specifier.contains(bound.version), f"{requirement}: {exact}"


def test_lock__has_exact_versions_with_checksums() -> None:
    entries = re.split(r"\n(?=\w)", LOCK.read_text(encoding="utf-8").strip())
    for entry in entries:
        assert re.match(r"[\w.-]+(\[[\w,]+\])?==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]
    assert len(entries) > 60


# --- the steps


@dataclass
class Image:
    """A folder that stands for the image."""

    folder: Path

    def here(self, text: str) -> str:
        """A path of the image as one of this machine."""
        places = {"/opt/nimare-dask": "opt", "/build": "build", "/scratch": "scratch"}
        known = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, places))})(?!\w)")
        return known.sub(lambda found: str(self.folder / places[found[0]]), text)

    @property
    def kernels(self) -> Path:
        return self.folder / "opt" / "kernels"

    def build(self) -> None:
        """Run the steps of the Dockerfile."""
        recipe = recipes.dockerfile()
        for source, target in recipe.files.items():
            to = Path(self.here(target))
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / source, to)
        # What `python` is in the base image.
        (self.folder / "bin").mkdir()
        python = self.folder / "bin" / "python"
        base = getattr(sys, "_base_executable", sys.executable)
        python.write_text(f'#!/bin/sh\nexec "{base}" "$@"\n')
        python.chmod(0o755)
        # pip keeps to the settings of this machine: where packages come from, and its cache.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        kept |= recipe.building | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        del kept["PIP_NO_CACHE_DIR"]
        kept.pop("NUMBA_CACHE_DIR", None)
        for step in recipe.steps:
            done = subprocess.run(
                ["sh", "-euc", self.here(step)],
                env=kept,
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def env(self, name: str) -> dict[str, str]:
        """Environment of a container, with a scratch folder of its own."""
        scratch = self.folder / "scratch" / name
        if not scratch.exists():
            scratch.mkdir(parents=True)
        running = {
            name: value.replace("/scratch", str(scratch))
            for name, value in recipes.dockerfile().running.items()
        }
        path = processes.path_of(self.folder / "opt" / "bin")
        return {name: self.here(value) for name, value in running.items()} | {"PATH": path}


@pytest.fixture
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    made = Image(tmp_path_factory.mktemp("image"))
    try:
        made.build()
        protect(made.folder / "opt", writable=False)
        yield made
    finally:
        protect(made.folder / "opt", writable=True)
        shutil.rmtree(made.folder, ignore_errors=True)


def protect(folder: Path, *, writable: bool) -> None:
    """Take or give the right to write to a folder and all that is in it."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o200 if writable else mode & ~0o222)


@pytest.fixture
def started(image: Image, tmp_path: Path) -> Iterator[Processes]:
    """Processes as in a container: without capabilities, by which root writes anywhere."""
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
    with processes.processes(tmp_path, prefix=drop if os.getuid() == 0 else ()) as made:
        yield made


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its checksum."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


needs_setpriv = pytest.mark.skipif(
    os.name != "posix" or (os.getuid() == 0 and shutil.which("setpriv") is None),
    reason="root writes to a read-only folder, and there is no setpriv to give that up",
)


@needs_setpriv
@pytest.mark.slow
def test_image__computes_with_locked_versions_and_the_kernels_that_it_brings(
    image: Image, started: Processes, tmp_path: Path
) -> None:
    """One test, since an image takes minutes to make."""
    has_the_versions_of_the_lock(image, started)
    compiled = contents(image.kernels)
    assert sum(name.endswith(".nbi") for name in compiled) > 40
    compute(image, started, tmp_path)
    for name in ("worker", "threads", "cluster"):
        cache = Path(image.env(name)["NUMBA_CACHE_DIR"])
        assert contents(cache) == compiled, f"{name} compiled a kernel again"
    assert contents(image.kernels) == compiled

    # Kernels for any processor, and those for this one: the same maps.
    run("ale", tmp_path / "corpus.zarr", tmp_path / "here", *ALE)
    for name in ("threads", "cluster"):
        found = tmp_path / name / "result.zarr"
        processes.assert_same_result(found, tmp_path / "here" / "result.zarr")


def has_the_versions_of_the_lock(image: Image, started: Processes) -> None:
    said = started.run(["nimare-dask", "--version"], image.env("version"))
    assert said.strip() == f"nimare-dask {__version__}"
    listed = started.run(["python", "-m", "pip", "list", "--format=freeze"], image.env("version"))
    installed = dict(line.split("==") for line in listed.splitlines() if "==" in line)
    versions = {canonicalize_name(name): version for name, version in installed.items()}
    for name, found in recipes.locked().items():
        for exact in found:
            if exact.marker is None or exact.marker.evaluate():
                assert exact.specifier.contains(versions[name]), name
    with pytest.raises(AssertionError, match="Permission denied"):
        started.run(["touch", str(image.kernels / "mine")], image.env("version"))


def compute(image: Image, started: Processes, data: Path) -> None:
    """On threads, and on a cluster of the image's own scheduler and worker."""
    nd.save_corpus(processes.make_corpus(), data / "corpus.zarr")
    scheduler, page = free_ports(2)
    address = f"tcp://127.0.0.1:{scheduler}"
    serve = ["--host", "127.0.0.1", "--port", str(scheduler), "--dashboard-address", f":{page}"]
    started.start(["dask", "scheduler", *serve], image.env("scheduler"))
    worker = ["--nthreads", "1", "--memory-limit", "0.5", "--no-dashboard"]
    started.start(["dask", "worker", address, *worker], image.env("worker"))
    wait_for("the scheduler", lambda: answer(page, "/health") is not None)

    ale = ["nimare-dask", "ale", str(data / "corpus.zarr")]
    there = ["--cluster", address]
    started.run([*ale, str(data / "threads"), *ALE], image.env("threads"))
    started.run([*ale, str(data / "cluster"), *ALE, *there], image.env("cluster"))
    features = ["nimare-dask", "associate", str(data / "corpus.zarr"), str(data / "terms.zarr")]
    told = ["--fdr", "--fwe", "--n-iters", "20", "--seed", "1"]
    started.run([*features, *told, *there], image.env("cluster"))
