"""Every variable is declared once, and datasets are held to it; provenance survives JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from nimare_dask import schema
from nimare_dask.correct import correct_fdr
from nimare_dask.errors import SchemaError
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.footprint import MKDAKernel
from nimare_dask.io.neurosynth import read_neurosynth
from nimare_dask.provenance import REFERENCES, digest_values, steps, versions, with_step
from nimare_dask.schema import VARIABLES, Variable
from nimare_dask.selection import has_label, select
from nimare_dask.simulate import simulate_corpus
from tests.builders import small_space, tiny_corpus, write_features, write_text

KINDS_BY_WORD: dict[str, Any] = {
    "integer": np.int32,
    "float": np.float32,
    "text": "U3",
    "boolean": bool,
}


# what is declared


@pytest.mark.parametrize("name", VARIABLES)
def test_variables__are_declared_whole(name: str) -> None:
    declared = VARIABLES[name]
    assert declared.kind in schema.KINDS
    assert declared.text and declared.text == declared.text.strip()
    assert not declared.text.endswith(".")
    assert not set(declared.dims) & set(declared.leading)
    with pytest.raises(AttributeError):
        declared.kind = "text"  # type: ignore[misc]


def simulated() -> xr.Dataset:
    return simulate_corpus(60, n_foci=300, n_features=2, space=small_space(), random_state=4)


def from_neurosynth(folder: Path) -> xr.Dataset:
    return read_neurosynth(
        write_text(folder / "coordinates.tsv", "id\tx\ty\tz\n1\t0\t0\t0\n2\t4\t4\t4\n"),
        write_text(folder / "metadata.tsv", "id\tspace\tyear\ttitle\n1\tMNI\t\ta\n2\tTAL\t1\tb\n"),
        [write_features(folder, np.array([[0.5], [0.0]]), ["pain"])],
    )


def pair_of_groups() -> xr.Dataset:
    corpus = simulated()
    mask = has_label(corpus, "000")
    return MKDAChi2().fit(select(corpus, mask), select(corpus, ~mask), space=small_space())


def all_features() -> xr.Dataset:
    return MKDAChi2().fit_features(simulated(), space=small_space())


PRODUCTS = ["simulated", "read", "selected", "pair", "features", "fdr_indep", "fdr_negcorr"]


@pytest.fixture
def product(request: pytest.FixtureRequest, tmp_path: Path) -> xr.Dataset:
    name = request.param
    if name == "simulated":
        return simulated()
    if name == "read":
        return from_neurosynth(tmp_path)
    if name == "selected":
        return select(simulated(), np.arange(60) > 30)
    if name == "pair":
        return pair_of_groups()
    if name == "features":
        return all_features()
    return correct_fdr(all_features(), method=name.removeprefix("fdr_"))


@pytest.mark.parametrize("product", PRODUCTS, indirect=True)
def test_variables__what_the_package_makes_is_declared(product: xr.Dataset) -> None:
    undeclared = {str(name) for name in product.variables} - set(VARIABLES)
    assert undeclared == set()


@pytest.mark.parametrize("product", PRODUCTS, indirect=True)
def test_variables__what_the_package_makes_is_as_declared(product: xr.Dataset) -> None:
    known = [str(name) for name in product.variables if name in VARIABLES]
    assert len(known) >= 8
    schema.check(product, known, made_by="the package")


@pytest.mark.parametrize("product", PRODUCTS, indirect=True)
def test_variables__what_the_package_makes_is_described(product: xr.Dataset) -> None:
    silent = [
        name
        for name in map(str, product.variables)
        if name in VARIABLES and product[name].attrs.get("long_name") != VARIABLES[name].text
    ]
    assert silent == []


# check


def dataset_of(declared: Variable, name: str, kind: str | None = None) -> xr.Dataset:
    values = np.zeros((2,) * len(declared.dims), KINDS_BY_WORD[kind or declared.kind])
    return xr.Dataset(coords={name: (declared.dims, values)})


@pytest.mark.parametrize("name", VARIABLES)
def test_check__accepts_what_is_declared(name: str) -> None:
    schema.check(dataset_of(VARIABLES[name], name), [name], made_by="fit()")


@pytest.mark.parametrize("name", VARIABLES)
def test_check__refuses_another_kind(name: str) -> None:
    for word in set(KINDS_BY_WORD) - {VARIABLES[name].kind}:
        wrong = dataset_of(VARIABLES[name], name, word)
        says = rf"{name} has values of type .*; expected {VARIABLES[name].kind}\. Build it with fit"
        with pytest.raises(SchemaError, match=says):
            schema.check(wrong, [name], made_by="fit()")


def test_check__missing_variable_says_what_it_is_and_what_there_is() -> None:
    with pytest.raises(SchemaError) as caught:
        schema.check(xr.Dataset({"a": 1, "b": 2}), ["focus_xyz"], made_by="corpus.build()")
    message = str(caught.value)
    assert message.startswith("focus_xyz ('focus', 'axis') is missing (coordinates as reported)")
    assert "the dataset has a, b. Build it with corpus.build()." in message


def test_check__missing_variable_of_an_empty_dataset() -> None:
    with pytest.raises(SchemaError, match="the dataset has none"):
        schema.check(xr.Dataset(), ["z"], made_by="fit()")


def test_check__other_dims_say_which_and_the_unit() -> None:
    flat = xr.Dataset({"focus_xyz": ("focus", [1.0])})
    says = r"focus_xyz has dims \('focus',\); expected \('focus', 'axis'\) in mm\. Build it with f"
    with pytest.raises(SchemaError, match=says):
        schema.check(flat, ["focus_xyz"], made_by="f()")
    turned = xr.Dataset({"focus_xyz": (("axis", "focus"), np.zeros((3, 2)))})
    with pytest.raises(SchemaError, match=r"dims \('axis', 'focus'\)"):
        schema.check(turned, ["focus_xyz"], made_by="f()")


def test_check__no_unit_is_not_mentioned() -> None:
    with pytest.raises(SchemaError, match=r"expected \('voxel',\)\. Build"):
        schema.check(xr.Dataset({"z": ("feature", [1.0])}), ["z"], made_by="f()")


@pytest.mark.parametrize(
    "dims", [("voxel",), ("effect", "voxel"), ("effect", "feature", "voxel"), ("feature", "voxel")]
)
def test_check__maps_may_have_dims_before_voxel(dims: tuple[str, ...]) -> None:
    maps = xr.Dataset({"z": (dims, np.zeros((1,) * len(dims), np.float32))})
    schema.check(maps, ["z"], made_by="f()")


@pytest.mark.parametrize("dims", [("analysis", "voxel"), ("voxel", "feature"), ("feature",), ()])
def test_check__maps_may_not_have_other_dims(dims: tuple[str, ...]) -> None:
    maps = xr.Dataset({"z": (dims, np.zeros((1,) * len(dims), np.float32))})
    with pytest.raises(SchemaError, match="z has dims"):
        schema.check(maps, ["z"], made_by="f()")


def test_check__numbers_without_dims() -> None:
    schema.check(xr.Dataset({"n_selected": 3}), ["n_selected"], made_by="f()")
    schema.check(xr.Dataset({"n_selected": ("feature", [3])}), ["n_selected"], made_by="f()")
    with pytest.raises(SchemaError, match="n_selected has dims"):
        schema.check(xr.Dataset({"n_selected": ("voxel", [3])}), ["n_selected"], made_by="f()")


def test_check__computes_nothing() -> None:
    import dask.array as da

    def fail(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise AssertionError("computed")

    lazy = da.zeros(4, chunks=2, dtype="f4").map_blocks(fail, dtype="f4", meta=np.empty(0, "f4"))
    schema.check(xr.Dataset({"z": ("voxel", lazy)}), ["z"], made_by="f()")


def test_describe__leaves_the_dataset_alone() -> None:
    maps = xr.Dataset({"z": ("voxel", [1.0]), "mine": ("voxel", [1.0])})
    described = schema.describe(maps)
    assert described["z"].attrs["long_name"] == "z score"
    assert described["mine"].attrs == {}
    assert maps["z"].attrs == {}


def test_describe__keeps_attributes_that_are_there() -> None:
    maps = xr.Dataset({"z": ("voxel", [1.0], {"long_name": "mine"})})
    assert schema.describe(maps)["z"].attrs["long_name"] == "mine"
    assert tiny_corpus()["focus_xyz"].attrs["units"] == "mm"


# provenance


def test_with_step__adds_to_what_was_there() -> None:
    first = with_step(xr.Dataset(), "one", settings={"a": 1})
    second = with_step(first, "two", references=["wager2007"], n_analyses=3)
    assert [step["step"] for step in steps(second)] == ["one", "two"]
    assert [step["step"] for step in steps(first)] == ["one"]
    assert steps(xr.Dataset()) == []
    assert steps(second)[0]["settings"] == {"a": 1}
    assert steps(second)[1]["n_analyses"] == 3
    assert steps(second)[1]["references"] == {"wager2007": REFERENCES["wager2007"]}
    assert steps(second)[1]["versions"] == versions()


def test_with_step__unknown_reference() -> None:
    with pytest.raises(KeyError, match="nobody1900"):
        with_step(xr.Dataset(), "one", references=["nobody1900"])


def test_with_step__numbers_of_numpy_survive_json() -> None:
    settings = {"n": np.int64(3), "r": np.float32(0.5), "yes": np.bool_(True), "list": [1.5, None]}
    (step,) = steps(with_step(xr.Dataset(), "one", settings=settings))
    assert step["settings"] == {"n": 3, "r": 0.5, "yes": True, "list": [1.5, None]}


def test_provenance__kernel_of_a_numpy_radius() -> None:
    radius: Any = np.float32(12.0)
    kernel = MKDAKernel(r=radius)
    maps = MKDAChi2(kernel=kernel).fit_features(simulated(), space=small_space())
    assert steps(maps)[-1]["settings"]["r"] == 12.0


def test_provenance__of_a_whole_analysis_survives_json() -> None:
    maps = correct_fdr(all_features())
    done = steps(maps)
    assert [step["step"] for step in done] == ["simulate_corpus", "MKDAChi2", "correct_fdr"]
    assert json.loads(json.dumps(done)) == done
    assert done[1]["settings"] == MKDAChi2().settings()
    assert done[1]["n_foci"] == 300
    assert done[1]["n_foci_by_space"] == {"MNI": 300}
    assert done[2]["settings"] == {"method": "indep"}
    assert "benjamini1995" in done[2]["references"]


def test_provenance__text_in_any_script_survives() -> None:
    (step,) = steps(with_step(xr.Dataset(), "痛み", settings={"label": "Ärger \"'\n"}))
    assert (step["step"], step["settings"]["label"]) == ("痛み", "Ärger \"'\n")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2, np.int32), np.zeros(2, np.float32)),
        (np.array([1, 2]), np.array([2, 1])),
        (np.array(["ab", "c"]), np.array(["a", "bc"])),
        (np.array(["a"]), np.array(["a", ""])),
        (np.array([0.0]), np.array([-0.0])),
    ],
)
def test_digest_values__tells_arrays_apart(first: Any, second: Any) -> None:
    assert digest_values(first) != digest_values(second)


def test_digest_values__does_not_depend_on_storage() -> None:
    values = np.arange(12.0).reshape(3, 4)
    texts = np.array(["a", "痛み", ""])
    assert digest_values(np.asfortranarray(values)) == digest_values(values)
    assert digest_values(values.astype(">f8")) == digest_values(values)
    assert digest_values(np.arange(24.0).reshape(3, 8)[:, ::2] / 2) == digest_values(
        np.arange(24.0).reshape(3, 8)[:, ::2].copy() / 2
    )
    for kind in (object, np.dtypes.StringDType()):
        assert digest_values(texts.astype(kind)) == digest_values(texts)
