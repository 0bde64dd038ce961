"""Contributions of features: against the libraries' own, against shap, and by the definition of the Shapley value."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace import HeadraceError, Model
from headrace.export import export_lightgbm, export_xgboost

Matrix = NDArray[np.float64]
FIXTURES = Path(__file__).parent / "fixtures"


def table(seed: int, rows: int = 600, features: int = 8) -> tuple[Matrix, Matrix]:
    """Rows with ties, zeros and missing values, and a target that features share."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, features)).astype(np.float32).astype(np.float64)
    x[:, 1] = random.integers(-3, 4, rows)
    x[random.random(rows) < 0.3, 2] = 0.0
    y = x[:, 0] + x[:, 1] * (x[:, 2] > 0) + np.sin(3 * x[:, 3]) * x[:, 4] + random.normal(size=rows) / 4
    x[random.random(x.shape) < 0.08] = np.nan
    return x, np.nan_to_num(y)


def of_xgboost(booster: Any, x: Matrix, tmp_path: Path) -> Model:
    exported = export_xgboost(booster, tmp_path / "model.ubj", x[:20])
    return Model.from_bytes(exported.format, exported.file.read_bytes())


def of_lightgbm(booster: Any, x: Matrix, tmp_path: Path) -> Model:
    exported = export_lightgbm(booster, tmp_path / "model.txt", x[:20])
    return Model.from_bytes(exported.format, exported.file.read_bytes())


def assert_close(found: Any, expected: Any, relative: float) -> None:
    expected = np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=relative * max(float(np.abs(expected).max()), 1.0))


def assert_sums_to_margins(model: Model, x: Matrix, relative: float) -> None:
    assert_close(model.contributions(x).sum(axis=-1).reshape(len(x), -1), model.margins(x), relative)


XGBOOST: dict[str, dict[str, Any]] = {
    "squared": {"objective": "reg:squarederror"},
    "base_score": {"objective": "binary:logistic", "base_score": 0.2},
    "softprob": {"objective": "multi:softprob", "num_class": 3},
    "dart": {"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.3},
    "deep": {"objective": "reg:squarederror", "max_depth": 14, "min_child_weight": 0.0},
    "lossguide": {"objective": "reg:squarederror", "grow_policy": "lossguide", "max_depth": 0, "max_leaves": 60},
    "no_splits": {"objective": "reg:squarederror", "gamma": 1e9},
}


@pytest.mark.parametrize("case", XGBOOST)
def test_xgboosts_own_contributions_are_found(case: str, tmp_path: Path) -> None:
    x, y = table(1)
    label = np.digitize(y, [-0.7, 0.7]) if case == "softprob" else y > 0 if case == "base_score" else y
    parameters = {"max_depth": 5, "seed": 1, "nthread": 1, **XGBOOST[case]}
    booster = xgboost.train(parameters, xgboost.DMatrix(x, label, nthread=1), 15)
    model = of_xgboost(booster, x, tmp_path)
    data = xgboost.DMatrix(x[:200].astype(np.float32), nthread=1)
    expected = booster.predict(data, pred_contribs=True, approx_contribs=False)
    assert_close(model.contributions(x[:200]), expected, 2e-5)
    assert_close(model.contributions(x[:200].astype(np.float32)), model.contributions(x[:200]), 0)
    assert_sums_to_margins(model, x, 1e-5)


def test_categories_are_explained_as_xgboost_explains_them(tmp_path: Path) -> None:
    x, y = table(2)
    random = np.random.default_rng(3)
    x[:, 0] = random.integers(0, 30, len(x))
    y = y + (x[:, 0] * 7 % 5)
    kind: dict[str, Any] = {"feature_types": ["c"] + ["q"] * 7, "enable_categorical": True, "nthread": 1}
    booster = xgboost.train({"max_depth": 4, "nthread": 1}, xgboost.DMatrix(x, y, **kind), 10)
    data = xgboost.DMatrix(x[:200], **kind)
    model = of_xgboost(booster, x, tmp_path)
    assert_close(model.contributions(x[:200]), booster.predict(data, pred_contribs=True), 2e-5)


LIGHTGBM: dict[str, dict[str, Any]] = {
    "regression": {"objective": "regression"},
    "binary": {"objective": "binary"},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "zero_as_missing": {"objective": "regression", "zero_as_missing": True},
    "leafy": {"objective": "regression", "num_leaves": 120, "min_data_in_leaf": 1},
    "categorical": {"objective": "regression", "min_data_per_group": 5},
}


@pytest.mark.parametrize("case", LIGHTGBM)
def test_lightgbms_own_contributions_are_found(case: str, tmp_path: Path) -> None:
    x, y = table(4)
    if case == "categorical":
        x[:, 1] = np.nan_to_num(x[:, 1]) + 3
    label = np.digitize(y, [-0.7, 0.7]) if case == "multiclass" else y > 0 if case == "binary" else y
    parameters = {"verbosity": -1, "seed": 1, "num_threads": 1, **LIGHTGBM[case]}
    data = lightgbm.Dataset(x, label, categorical_feature=[1] if case == "categorical" else "auto")
    booster = lightgbm.train(parameters, data, 12)
    model = of_lightgbm(booster, x, tmp_path)
    expected = np.asarray(booster.predict(x[:200], pred_contrib=True))
    found = model.contributions(x[:200])
    if case == "multiclass":
        assert found.shape == (200, 3, 9)
        found = found.reshape(200, -1)
    assert_close(found, expected, 1e-9)
    assert_sums_to_margins(model, x, 1e-12)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_shap_finds_the_same(library: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it draws with an older matplotlib in mind
        import shap
    x, y = table(5)
    booster: Any
    if library == "xgboost":
        booster = xgboost.train({"max_depth": 6, "nthread": 1}, xgboost.DMatrix(x, y, nthread=1), 10)
        model, bound = of_xgboost(booster, x, tmp_path), 2e-5
    else:
        booster = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(x, y), 10)
        model, bound = of_lightgbm(booster, x, tmp_path), 1e-9
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    found = model.contributions(x[:100])
    assert_close(found[:, :-1], explainer.shap_values(x[:100]), bound)
    assert_close(found[:, -1], np.full(100, np.ravel(explainer.expected_value)[0]), bound)


def document_of(booster: Any) -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def known_value(tree: dict[str, Any], row: Matrix, known: frozenset[int], node: int = 0) -> float:
    """A tree's mean answer when only some features are known: other splits weigh both branches by their covers."""
    left, right = tree["left_children"][node], tree["right_children"][node]
    if left == -1:
        return float(tree["split_conditions"][node])
    feature = tree["split_indices"][node]
    if feature in known:
        value = row[feature]
        is_left = tree["default_left"][node] if np.isnan(value) else value < np.float32(tree["split_conditions"][node])
        return known_value(tree, row, known, left if is_left else right)
    covers = [tree["sum_hessian"][child] for child in (left, right)]
    values = [known_value(tree, row, known, child) for child in (left, right)]
    return float(np.dot(covers, values) / sum(covers))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), depth=st.integers(1, 5))
def test_contributions_are_shapley_values_by_definition(
    seed: int, depth: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count = 4
    x, y = table(seed, 150, 5)
    x = x[:, :count]
    booster = xgboost.train({"max_depth": depth, "nthread": 1}, xgboost.DMatrix(x, y, nthread=1), 3)
    model = of_xgboost(booster, x, tmp_path_factory.mktemp("model"))
    trees = document_of(booster)
    for row in x[:4]:
        sets = [frozenset(s) for size in range(count + 1) for s in itertools.combinations(range(count), size)]
        value = {known: sum(known_value(tree, row, known) for tree in trees) for known in sets}
        expected = [
            sum(
                math.factorial(len(known))
                * math.factorial(count - len(known) - 1)
                / math.factorial(count)
                * (value[known | {feature}] - value[known])
                for known in sets
                if feature not in known
            )
            for feature in range(count)
        ]
        np.testing.assert_allclose(model.contributions(row[None])[0, :-1], expected, rtol=0, atol=1e-6)


def test_a_linear_model_multiplies_weights_and_features() -> None:
    data = {"format": 1, "weights": [[0.5, -1.0], [2.0, 0.0]], "intercept": [0.1, 0.2], "link": "softmax"}
    model = Model.from_bytes("linear-json", json.dumps(data).encode())
    found = model.contributions(np.array([[2.0, 3.0]]))
    np.testing.assert_array_equal(found, [[[1.0, -3.0, 0.1], [4.0, 0.0, 0.2]]])
    assert model.explainer_bytes == 0


def test_threads_and_shapes_of_rows_change_nothing() -> None:
    model = Model.from_bytes("lightgbm-text", (FIXTURES / "lightgbm_binary.txt").read_bytes())
    random = np.random.default_rng(1)
    x = random.normal(size=(301, model.features_count))
    whole = model.contributions(x, threads=1)
    np.testing.assert_array_equal(model.contributions(x, threads=4), whole)
    np.testing.assert_array_equal(np.vstack([model.contributions(row) for row in x[:20]]), whole[:20])
    np.testing.assert_array_equal(model.contributions(np.asfortranarray(x)), whole)
    assert model.contributions(x[:0]).shape == (0, model.features_count + 1)
    with pytest.raises(HeadraceError, match="features a row"):
        model.contributions(x[:, 1:])


def test_a_model_without_covers_is_refused_before_any_work() -> None:
    text = (FIXTURES / "lightgbm_binary.txt").read_text()
    model = Model.from_bytes("lightgbm-text", text.replace("\ninternal_count=", "\nwas_count=").encode())
    model.margins(np.zeros((1, model.features_count)))
    for ask in (model.check_explainable, lambda: model.contributions(np.zeros((1, model.features_count)))):
        with pytest.raises(HeadraceError, match="the model file has no covers") as caught:
            ask()
        assert caught.value.code == "unsupported_model"


@pytest.fixture
def registered(tmp_path: Path) -> Callable[[], Model]:
    """Registers a forest as version 1 of `m`, and opens it."""
    x, y = table(6)
    booster = xgboost.train({"max_depth": 6, "nthread": 1}, xgboost.DMatrix(x, y, nthread=1), 30)
    exported = export_xgboost(booster, tmp_path / "model.ubj", x[:20])
    features = [{"name": f"f{number}", "dtype": "float64"} for number in range(8)]
    draft = {
        "task": "regression",
        "format": exported.format,
        "golden": exported.golden,
        "signature": {"features": features},
        "trainer": {"library": "xgboost", "version": "3"},
        "created_at": "2026-01-01T00:00:00Z",
    }
    made = Model.create(tmp_path / "models", "m", json.dumps(draft), exported.file.read_bytes())
    assert made.contributions(x[:1]).shape == (1, 9)
    return lambda: Model.open(tmp_path / "models" / "m" / "1")


def test_a_registered_model_takes_no_memory_for_explanations_before_the_first(
    registered: Callable[[], Model], tmp_path: Path
) -> None:
    model = registered()
    assert model.bytes > 0
    assert model.explainer_bytes == 0
    row = np.zeros((1, 8))
    found = model.contributions(row)
    assert model.explainer_bytes > 0
    (tmp_path / "models" / "m" / "1" / "model.ubj").unlink()
    np.testing.assert_array_equal(model.contributions(row), found)


def test_a_file_that_was_changed_or_is_gone_is_told(registered: Callable[[], Model], tmp_path: Path) -> None:
    changed, gone = registered(), registered()
    file = tmp_path / "models" / "m" / "1" / "model.ubj"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(HeadraceError, match="was changed since the model was loaded"):
        changed.contributions(np.zeros((1, 8)))
    file.unlink()
    gone.check_explainable()
    with pytest.raises(HeadraceError, match="cannot be read") as caught:
        gone.contributions(np.zeros((1, 8)))
    assert caught.value.code == "unavailable"
