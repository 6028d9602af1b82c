"""The manifests of deploy/kubernetes, as Kubernetes and the Dask operator read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
SIZES = ("small", "medium", "large")

Document = dict[str, Any]

#: The schemas of the operator are 1.5 MB; where libyaml is there it reads them ten times faster.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(text: str) -> list[Document]:
    """The documents of a YAML file."""
    return [document for document in yaml.load_all(text, Loader=_LOADER) if document]


def read(path: str) -> Document:
    """The one document of a file of the folder."""
    (document,) = documents((FOLDER / path).read_text(encoding="utf-8"))
    return document


@cache
def _renders() -> bool:
    """Whether there is a kubectl whose kustomize knows components; Debian 12's (1.20) does not."""
    if shutil.which("kubectl") is None:
        return False
    asked = ["kubectl", "version", "--client"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return "Kustomize Version" in done.stdout


def rendered(folder: Path) -> list[Document]:
    """What ``kubectl apply -k`` sends; skips the test where kubectl cannot render it."""
    if not _renders():
        pytest.skip("there is no kubectl of version 1.27 or newer, whose `kustomize` renders this")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def of_kind(found: list[Document], kind: str) -> Document:
    """The only document of a kind."""
    (document,) = (document for document in found if document["kind"] == kind)
    return document


def with_object_store(folder: Path) -> Path:
    """A copy of the manifests in which the lines of the object store are not marked out."""
    copy = folder / "kubernetes"
    shutil.copytree(FOLDER, copy)
    for path in copy.glob("*/kustomization.yaml"):
        text = path.read_text(encoding="utf-8")
        for line in ("components:", "  - ../object-store"):
            text = text.replace(f"# {line}\n", f"{line}\n")
        path.write_text(text, encoding="utf-8")
    return copy


@cache
def custom_schemas() -> dict[str, Document]:
    """The schema of each kind of the Dask operator, as dask-kubernetes ships it."""
    chart = "operator/deployment/helm/dask-kubernetes-operator/crds"
    operator = resources.files("dask_kubernetes").joinpath(chart)
    found: dict[str, Document] = {}
    for file in operator.iterdir():
        if not file.name.endswith(".yaml"):
            continue
        for document in documents(file.read_text(encoding="utf-8")):
            if document.get("kind") == "CustomResourceDefinition":
                spec = document["spec"]
                (version,) = (each for each in spec["versions"] if each["name"] == "v1")
                found[spec["names"]["kind"]] = _strict(version["schema"]["openAPIV3Schema"])
    return found


def _strict(schema: Any) -> Any:
    """Refuse fields that a schema does not know: Kubernetes would drop them and say nothing."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    closed = isinstance(schema.get("properties"), Mapping) and schema.get("type") == "object"
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    return strict


def validate(document: Document) -> None:
    """Raise where a document is not what Kubernetes, or the Dask operator, takes."""
    import kubernetes_validate

    if not document["apiVersion"].startswith("kubernetes.dask.org/"):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        return
    # Every object has these, and the schema of a custom one does not name them.
    body = {name: value for name, value in document.items() if name in ("spec", "status")}
    jsonschema.Draft202012Validator(custom_schemas()[document["kind"]]).validate(body)
    assert set(document) <= {"apiVersion", "kind", "metadata", "spec"}


def pods(document: Document) -> dict[str, Document]:
    """The pods that a document makes, by what they do: metadata and spec."""
    spec = document.get("spec", {})
    if document["kind"] == "Pod":
        return {"pod": document}
    if document["kind"] == "Job":
        return {document["metadata"]["labels"]["nimare-dask/step"]: spec["template"]}
    if document["kind"] == "DaskCluster":
        return {name: spec[name] for name in ("scheduler", "worker")}
    if document["kind"] == "DaskJob":
        cluster = spec["cluster"]["spec"]
        return {"runner": spec["job"], **{name: cluster[name] for name in ("scheduler", "worker")}}
    return {}


def all_pods() -> Iterator[tuple[str, Document]]:
    """Every pod of every file, with a name for it."""
    for path in sorted(FOLDER.glob("*/*.yaml")):
        if path.name == "kustomization.yaml":
            continue
        for name, pod in pods(read(str(path.relative_to(FOLDER)))).items():
            yield f"{path.parent.name}/{path.name}:{name}", pod


@dataclass(frozen=True)
class Program:
    """What a container runs."""

    words: list[str]
    env: dict[str, str]


def program(pod: Document, *, given: Mapping[str, str], places: Mapping[str, str]) -> Program:
    """Command and environment of a pod's only container, with this machine's names in them.

    Parameters
    ----------
    given
        Variables that Kubernetes or the operator sets.
    places
        What stands for folders, names of services and ports.
    """
    (container,) = pod["spec"]["containers"]
    env = {each["name"]: each["value"] for each in container.get("env", [])} | dict(given)
    # As Kubernetes does it: $(NAME) is the value of a variable of the container.
    words = [
        re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], word) for word in container["args"]
    ]

    known = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, places))})(?!\w)")

    def here(text: str) -> str:
        return known.sub(lambda found: places[found[0]], text)

    return Program([here(word) for word in words], {name: here(env[name]) for name in env})
