"""Imports go downward only, kernels stay bare, dask stays where it belongs, modules stay short.

Everything is read with `ast`; nothing is imported. An import counts wherever it stands: in a
function, under `TYPE_CHECKING`, or as `importlib.import_module("...")`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nimare_dask"
NAME = "nimare_dask"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "schema", "config", "provenance", "_version"}),
    frozenset({"kernels"}),
    frozenset({"stats"}),
    frozenset({"parallel"}),
    frozenset(
        {
            "space",
            "corpus",
            "draft",
            "facts",
            "merging",
            "metadata",
            "pooling",
            "nearby",
            "selection",
            "subset",
            "wholeness",
            "expressions",
            "grammar",
            "footprint",
            "activation",
            "statistic",
            "counting",
            "results",
            "simulate",
            "targets",
        }
    ),
    frozenset(
        {
            "coactivations",
            "estimators",
            "nulls",
            "correct",
            "fwe",
            "contrasts",
            "decode",
            "annotate",
            "diagnostics",
        }
    ),
    frozenset({"io", "report"}),
    frozenset(
        {""}
    ),  # nimare_dask/__init__.py, the public names; only the command line stands above
    frozenset({"cli", "__main__"}),
)
LAYER_OF = {part: number for number, layer in enumerate(LAYERS) for part in layer}

#: llvmlite is what numba compiles with; vectors are written in it.
KERNELS_MAY_IMPORT = frozenset(
    {"numpy", "numba", "llvmlite", "math", "__future__", "collections", "typing", "os", "itertools"}
)
DASK = frozenset({"dask", "distributed", "dask_jobqueue", "dask_kubernetes"})
DASK_MAY_STAND_IN = frozenset({"parallel", "corpus", "activation", "io", "cli"})
MOST_LINES = 400


def part_of(module: str) -> str:
    """The top-level part that a module is in: nimare_dask.io.nifti -> io; nimare_dask -> ''."""
    return module.removeprefix(NAME).removeprefix(".").partition(".")[0]


def imports_of(source: str, module: str, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported; `from a import b` gives `a.b`."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                above = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{above}.{base}" if base else above
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def part_imported(name: str, parts: frozenset[str]) -> str | None:
    """The part of the package that an imported name is in; None for other packages.

    `nimare_dask.ALE` is a public name of the root, `nimare_dask.kernels` a part.
    """
    if name != NAME and not name.startswith(f"{NAME}."):
        return None
    part = part_of(name)
    return part if part in parts else ""


def violations(
    source: str, module: str, *, is_package: bool = False, parts: frozenset[str] = frozenset()
) -> list[str]:
    """What one module's imports break, as sentences that start with their line."""
    own = part_of(module)
    if own not in LAYER_OF:
        return [f"1: {module} is in no layer; add {own!r} to LAYERS in tests/test_layers.py"]
    found = []
    for line, name in imports_of(source, module, is_package=is_package):
        outside = name.partition(".")[0]
        part = part_imported(name, parts | LAYER_OF.keys())
        if part is not None and LAYER_OF.get(part, -1) > LAYER_OF[own]:
            found.append(
                f"{line}: {module} (layer {LAYER_OF[own]}) imports {name} "
                f"(layer {LAYER_OF[part]}); move what both need down, or the caller up"
            )
        bare = part == "kernels" if part is not None else outside in KERNELS_MAY_IMPORT
        if own == "kernels" and not bare:
            found.append(
                f"{line}: {module} imports {name}; kernels know numpy, numba, math and other "
                "kernels only: arrays in, arrays out"
            )
        if outside in DASK and own not in DASK_MAY_STAND_IN:
            found.append(
                f"{line}: {module} imports {name}; only {', '.join(sorted(DASK_MAY_STAND_IN))} "
                "know dask: use one of the three shapes of nimare_dask.parallel"
            )
    return found


def modules() -> Iterator[tuple[Path, str]]:
    """Every module of the package: its file and its dotted name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        dotted = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield path, ".".join(dotted[:-1] if dotted[-1] == "__init__" else dotted)


def test_layers__imports_go_downward_only() -> None:
    parts = frozenset(part_of(module) for _, module in modules())
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{sentence}"
        for path, module in modules()
        for sentence in violations(
            path.read_text(encoding="utf-8"),
            module,
            is_package=path.name == "__init__.py",
            parts=parts,
        )
    ]
    assert not found, "\n" + "\n".join(found)


def test_layers__cover_every_top_level_module() -> None:
    parts = {part_of(module) for _, module in modules()}
    assert parts, f"no modules under {PACKAGE}"
    unknown = sorted(parts - LAYER_OF.keys())
    assert not unknown, f"in no layer: {unknown}; add them to LAYERS in tests/test_layers.py"


def test_modules__stay_within_400_lines() -> None:
    long = {
        str(path.relative_to(PACKAGE.parent)): lines
        for path, _ in modules()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long, f"over {MOST_LINES} lines, split them by subject: {long}"


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("stats.p", "from nimare_dask.io import nifti", "layer 2) imports nimare_dask.io.nifti"),
        ("stats.p", "def f():\n    import nimare_dask.cli.app", "2: nimare_dask.stats.p"),
        ("stats.p", "if TYPE_CHECKING:\n    from ..nulls.x import Null", "(layer 5)"),
        ("stats.p", "from .. import io", "imports nimare_dask.io "),
        ("stats.p", "import importlib as i\ni.import_module('nimare_dask.io')", "2: "),
        ("estimators.ale", "from nimare_dask import ALE", "imports nimare_dask.ALE (layer 7)"),
        ("estimators.ale", "import nimare_dask as nd", "(layer 7)"),
        ("kernels.ale", "import scipy.special", "kernels know numpy"),
        ("kernels.ale", "from nimare_dask.errors import E", "kernels know numpy"),
        ("estimators.ale", "def f():\n    from dask import delayed", "know dask"),
        ("nulls.x", "from distributed import Client", "know dask"),
        ("helpers", "", "add 'helpers' to LAYERS"),
    ],
)
def test_violations__are_found(module: str, source: str, said: str) -> None:
    (found,) = violations(source, f"{NAME}.{module}")
    assert said in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "kernels.ale",
            "import math\nimport numpy as np\nfrom numba import njit\nfrom . import bits",
        ),
        ("stats.p", "from ..kernels import tails\nimport scipy.special\nfrom .z import to_z"),
        ("estimators.ale", "from nimare_dask.nulls.relocate import draw"),
        ("parallel.shapes", "import dask.array as da\nfrom distributed import get_client"),
        ("cli.app", "import nimare_dask as nd\nfrom nimare_dask import ALE"),
        ("io.nifti", "import nimare_dask_other"),
    ],
)
def test_violations__leave_downward_imports_alone(module: str, source: str) -> None:
    assert violations(source, f"{NAME}.{module}") == []


def test_violations__resolve_relative_imports_of_a_package() -> None:
    source = "from .ale import ALE\nfrom ..kernels import bits"
    assert violations(source, f"{NAME}.estimators", is_package=True) == []
    assert violations("from .estimators import ALE", NAME, is_package=True) == []


def test_violations__leave_an_unlisted_import_to_the_cover_test() -> None:
    source = "from nimare_dask import helpers"
    assert violations(source, f"{NAME}.stats.p", parts=frozenset({"helpers"})) == []
