"""environment.yml, pyproject.toml and the pre-commit hooks ask for the same packages."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def by_name(specifiers: list[str]) -> dict[str, str]:
    """Package name -> version bounds, of requirements as pip or conda write them."""
    requirements = [Requirement(text) for text in specifiers]
    names = [canonicalize_name(r.name) for r in requirements]
    assert len(names) == len(set(names)), f"a package is listed twice: {sorted(names)}"
    return {name: str(r.specifier) for name, r in zip(names, requirements, strict=True)}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def conda() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_environment__names_the_packages_of_pyproject(
    project: dict[str, Any], conda: dict[str, Any]
) -> None:
    from_conda = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    from_pip = [
        text for entry in conda["dependencies"] if isinstance(entry, dict) for text in entry["pip"]
    ]
    found = by_name(from_conda + from_pip)
    assert found.pop("python") == project["requires-python"]
    assert found.pop("pip") == ""
    assert found == by_name(project["dependencies"] + project["optional-dependencies"]["test"])


def test_environment__comes_from_conda_forge_only(conda: dict[str, Any]) -> None:
    assert conda["channels"] == ["conda-forge"]


@pytest.mark.parametrize("group", ["core", "cloud", "hpc", "kubernetes", "parquet"])
def test_dependencies__have_a_floor_and_no_cap(project: dict[str, Any], group: str) -> None:
    listed = project["dependencies"] if group == "core" else project["optional-dependencies"][group]
    operators = {text: [bound.operator for bound in Requirement(text).specifier] for text in listed}
    not_floors = [text for text, found in operators.items() if found != [">="]]
    assert not not_floors, f"expected one floor (>=) and nothing else: {not_floors}"


def test_dependencies__are_sorted(project: dict[str, Any]) -> None:
    for listed in (project["dependencies"], *project["optional-dependencies"].values()):
        names = [canonicalize_name(Requirement(text).name) for text in listed]
        assert names == sorted(names)


def test_pre_commit__lints_with_the_ruff_of_the_dev_extra(project: dict[str, Any]) -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    asked = {
        text
        for repo in hooks["repos"]
        for hook in repo["hooks"]
        for text in hook.get("additional_dependencies", [])
        if Requirement(text).name == "ruff"
    }
    wanted = by_name(project["optional-dependencies"]["dev"])["ruff"]
    assert {str(Requirement(text).specifier) for text in asked} == {wanted}
