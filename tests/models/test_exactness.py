"""Random small models of every family against the engine, on rows that are chosen to be awkward.

Each family trains many models of random shape, objective and settings on random rows, and asks them about rows with
missing values, infinities, denormal numbers, zeros of both signs, values that hit a threshold exactly or miss it by one
unit in the last place, and categories that were never seen. Where the order of a sum is defined the margins must be the
library's own bits; elsewhere they stay within the bound that core/models/README.md states.

A few seconds for each family in the normal suite; `HEADRACE_EXACTNESS_ROUNDS=50 HEADRACE_EXACTNESS_SEED=7 pytest
tests/models/test_exactness.py` looks fifty times as long, from another seed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from headrace import Model
from headrace.export import ExportedModel, export_catboost, export_lightgbm, export_sklearn, export_xgboost

Matrix = NDArray[np.float64]
Random = np.random.Generator
ROUNDS = int(os.environ.get("HEADRACE_EXACTNESS_ROUNDS", "1"))
SEED = int(os.environ.get("HEADRACE_EXACTNESS_SEED", "1"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training stops early, classes are rare
        yield


def make_rows(random: Random, has_missing: bool = True) -> Matrix:
    """Columns of several kinds: smooth, whole numbers with ties, mostly zero, wide in scale, tiny."""
    rows_count, columns_count = int(random.integers(30, 90)), int(random.integers(1, 7))
    kinds: list[Callable[[], Any]] = [
        lambda: random.normal(size=rows_count).astype(np.float32),
        lambda: random.integers(-3, 4, rows_count),
        lambda: random.normal(size=rows_count) * (random.random(rows_count) < 0.4),
        lambda: random.normal(size=rows_count) * 10.0 ** random.integers(-30, 30, rows_count),
        lambda: random.normal(size=rows_count) * 1e-39,
        lambda: random.integers(0, 12, rows_count),
    ]
    rows = np.stack([kinds[random.integers(len(kinds))]() for _ in range(columns_count)], axis=1).astype(np.float64)
    if has_missing:
        rows[random.random(rows.shape) < random.choice([0.0, 0.1, 0.5])] = np.nan
    return rows


def make_answer(random: Random, rows: Matrix, kind: str) -> Any:
    ranks = np.argsort(np.argsort(np.nan_to_num(rows[:, 0]) * 2 + random.normal(size=len(rows))))
    score = ranks / len(rows) * 4 - 2
    answers: dict[str, Any] = {
        "number": score,
        "positive": np.abs(score) + 0.05,
        "share": (score + 2) / 4,
        "two classes": (score > 0.3).astype(int),
        "three classes": np.digitize(score, [-0.7, 0.9]),
        "two numbers": np.stack([score, np.abs(score)], axis=1),
    }
    return answers[kind]


def awkward(random: Random, rows: Matrix, thresholds: list[tuple[int, float]], narrow: bool, limit: float) -> Matrix:
    """Rows around the training rows; no value is larger than `limit`, since some libraries refuse it."""
    asked = rows[random.integers(0, len(rows), 60)].copy()
    special = np.array(
        [0.0, -0.0, 5e-324, 1e-45, -1e-40, 1e-35, -1e-35, 1.0000000180025095e-35, limit, -limit, 77.0, -0.5]
    )
    places = random.random(asked.shape) < 0.15
    asked[places] = random.choice(special, int(places.sum()))
    for row in range(0, len(asked), 2):
        if thresholds:
            feature, threshold = thresholds[random.integers(len(thresholds))]
            number = np.float32(threshold) if narrow else np.float64(threshold)
            one = type(number)
            near = [number, np.nextafter(number, one(np.inf)), np.nextafter(number, one(-np.inf))]
            asked[row, feature] = np.clip(float(near[random.integers(3)]), -limit, limit)
    return asked


def assert_margins(exported: ExportedModel, asked: Matrix, expected: Any, what: Any, tolerance: float = 0.0) -> None:
    """Together and one by one; `tolerance` is of the largest margin."""
    model = Model.from_bytes(exported.format, exported.file.read_bytes())
    expected = np.asarray(expected, dtype=np.float64).reshape(len(asked), -1)
    found = model.margins(asked, threads=1)
    if tolerance == 0.0:
        np.testing.assert_array_equal(found, expected, err_msg=str(what))
    else:
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale, err_msg=str(what))
    alone = np.concatenate([model.margins(asked[row : row + 1], threads=1) for row in range(0, len(asked), 20)])
    if exported.format != "pipeline-safetensors":
        np.testing.assert_array_equal(alone, found[::20], err_msg=str(what))


def each(count: int) -> Iterator[Random]:
    for index in range(count * ROUNDS):
        yield np.random.default_rng([SEED, index])


def chosen(random: Random, options: list[Any]) -> Any:
    return options[random.integers(len(options))]


XGBOOST: list[tuple[dict[str, Any], str]] = [
    ({"objective": "binary:logistic"}, "two classes"),
    ({"objective": "binary:logitraw"}, "two classes"),
    ({"objective": "binary:hinge"}, "two classes"),
    ({"objective": "multi:softprob", "num_class": 3}, "three classes"),
    ({"objective": "multi:softmax", "num_class": 3}, "three classes"),
    ({"objective": "reg:squarederror"}, "number"),
    ({"objective": "reg:absoluteerror"}, "number"),
    ({"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.7]}, "number"),
    ({"objective": "reg:squarederror"}, "two numbers"),
    ({"objective": "reg:logistic"}, "share"),
    ({"objective": "count:poisson"}, "positive"),
    ({"objective": "reg:gamma"}, "positive"),
    ({"objective": "reg:tweedie"}, "positive"),
    ({"objective": "survival:cox"}, "positive"),
    ({"objective": "rank:pairwise"}, "two classes"),
]


def xgboost_thresholds(booster: Any) -> list[tuple[int, float]]:
    frame = booster.trees_to_dataframe()
    frame = frame[(frame["Feature"] != "Leaf") & frame["Split"].notna()]
    return [(int(name[1:]), float(split)) for name, split in zip(frame["Feature"], frame["Split"], strict=True)]


def test_xgboost(tmp_path: Path) -> None:
    for random in each(250):
        rows = make_rows(random)
        rows = np.clip(rows, -3e38, 3e38)
        objective, kind = chosen(random, XGBOOST)
        parameters: dict[str, Any] = {**objective, "nthread": 1, "seed": 1, "verbosity": 0}
        parameters["booster"] = chosen(random, ["gbtree", "gbtree", "dart", "gblinear"])
        categorical = []
        if parameters["booster"] != "gblinear":
            parameters |= {
                "max_depth": int(random.integers(1, 9)),
                "eta": float(random.uniform(0.05, 1.0)),
                "min_child_weight": 0.0,
                "tree_method": chosen(random, ["hist", "exact", "approx"]),
                "subsample": chosen(random, [1.0, 0.6]),
                "num_parallel_tree": chosen(random, [1, 1, 3]),
                "max_cat_to_onehot": chosen(random, [2, 100]),
            }
            if chosen(random, [False, True]) and parameters["tree_method"] != "exact":
                categorical = [int(random.integers(rows.shape[1]))]
                rows[:, categorical] = random.integers(0, 12, (len(rows), 1))
            has_many = kind in ("two numbers", "three classes") and not categorical
            if has_many and parameters["booster"] == "gbtree" and random.random() < 0.5:
                parameters |= {"multi_strategy": "multi_output_tree", "tree_method": "hist", "num_parallel_tree": 1}
                parameters["subsample"] = 1.0
        if parameters["booster"] == "dart":
            parameters["rate_drop"] = 0.4
        if kind in ("two classes", "share") and "rank" not in parameters["objective"] and random.random() < 0.3:
            parameters["base_score"] = float(random.uniform(0.05, 0.95))
        types = ["c" if index in categorical else "q" for index in range(rows.shape[1])]
        options: dict[str, Any] = {"feature_types": types, "enable_categorical": True, "nthread": 1}
        group = {"group": [len(rows)]} if "rank" in parameters["objective"] else {}
        data = xgboost.DMatrix(rows, make_answer(random, rows, kind), **options, **group)
        booster = xgboost.train(parameters, data, int(random.integers(1, 8)))
        thresholds = (
            [] if parameters["booster"] == "gblinear" or "multi_strategy" in parameters else xgboost_thresholds(booster)
        )
        thresholds = [(feature, threshold) for feature, threshold in thresholds if feature not in categorical]
        asked = awkward(random, rows, thresholds, narrow=True, limit=3e38)
        if categorical:
            asked[:, categorical] = random.integers(0, 40, (len(asked), 1))  # some unseen
            asked[::7, categorical] = np.nan
        exported = export_xgboost(booster, tmp_path / "model.ubj", np.where(np.abs(rows[:5]) < 3e38, rows[:5], np.nan))
        margins = booster.predict(xgboost.DMatrix(asked, **options), output_margin=True)
        assert_margins(exported, asked, margins, parameters)


LIGHTGBM: list[tuple[dict[str, Any], str]] = [
    ({"objective": "binary"}, "two classes"),
    ({"objective": "multiclass", "num_class": 3}, "three classes"),
    ({"objective": "multiclassova", "num_class": 3}, "three classes"),
    ({"objective": "regression"}, "number"),
    ({"objective": "regression_l1"}, "number"),
    ({"objective": "quantile", "alpha": 0.3}, "number"),
    ({"objective": "huber"}, "number"),
    ({"objective": "poisson"}, "positive"),
    ({"objective": "tweedie"}, "positive"),
    ({"objective": "cross_entropy"}, "share"),
    ({"objective": "cross_entropy_lambda"}, "share"),
]


def lightgbm_thresholds(booster: Any) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    pending = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while pending:
        node = pending.pop()
        if "left_child" in node:
            if node["decision_type"] == "<=":
                found.append((node["split_feature"], float(node["threshold"])))
            pending += [node["left_child"], node["right_child"]]
    return found


def test_lightgbm(tmp_path: Path) -> None:
    for random in each(250):
        rows = make_rows(random)
        objective, kind = chosen(random, LIGHTGBM)
        parameters = {
            **objective,
            "verbose": -1,
            "seed": 1,
            "num_threads": 1,
            "min_data_in_leaf": int(random.integers(1, 6)),
            "min_data_in_bin": 1,
            "num_leaves": int(random.integers(2, 24)),
            "learning_rate": float(random.uniform(0.05, 0.9)),
            "boosting": chosen(random, ["gbdt", "gbdt", "dart", "rf"]),
            "zero_as_missing": chosen(random, [False, False, True]),
            "use_missing": chosen(random, [True, True, False]),
            "min_data_per_group": 2,
            "cat_smooth": 1,
            "max_cat_to_onehot": chosen(random, [1, 4]),
        }
        if parameters["boosting"] == "rf":
            parameters |= {"bagging_fraction": 0.6, "bagging_freq": 1}
        categorical = [int(random.integers(rows.shape[1]))] if random.random() < 0.4 else []
        rows[:, categorical] = random.integers(0, 40, (len(rows), len(categorical)))
        data = lightgbm.Dataset(rows, make_answer(random, rows, kind), categorical_feature=categorical)
        booster = lightgbm.train(parameters, data, int(random.integers(1, 8)))
        asked = awkward(random, rows, lightgbm_thresholds(booster), narrow=False, limit=np.inf)
        exported = export_lightgbm(booster, tmp_path / "model.txt", np.where(np.isinf(rows[:5]), np.nan, rows[:5]))
        assert_margins(exported, asked, booster.predict(asked, raw_score=True), parameters)


CATBOOST: list[tuple[str, str]] = [
    ("RMSE", "number"),
    ("MAE", "number"),
    ("Quantile:alpha=0.3", "number"),
    ("Logloss", "two classes"),
    ("CrossEntropy", "share"),
    ("MultiClass", "three classes"),
    ("MultiClassOneVsAll", "three classes"),
    ("MultiRMSE", "two numbers"),
    ("Poisson", "positive"),
]


def test_catboost(tmp_path: Path) -> None:
    for random in each(60):
        rows = make_rows(random)
        rows[:, 0] = np.arange(len(rows))  # at least one feature is not constant
        loss, kind = chosen(random, CATBOOST)
        parameters = {
            "loss_function": loss,
            "iterations": int(random.integers(1, 8)),
            "depth": int(random.integers(1, 7)),
            "learning_rate": float(random.uniform(0.05, 1.0)),
            "grow_policy": chosen(random, ["SymmetricTree", "SymmetricTree", "Depthwise", "Lossguide"]),
            "nan_mode": chosen(random, ["Min", "Max"]),
            "border_count": chosen(random, [5, 254]),
            "one_hot_max_size": 60,
            "thread_count": 1,
            "random_seed": 1,
            "verbose": False,
            "allow_writing_files": False,
        }
        if loss == "MultiRMSE":
            parameters["grow_policy"] = "SymmetricTree"
        given: Any = rows
        categorical = [rows.shape[1] - 1] if rows.shape[1] > 1 and random.random() < 0.4 else []
        if categorical:
            rows[:, categorical[0]] = random.integers(0, 9, len(rows))
            given = rows.astype(object)
            given[:, categorical[0]] = rows[:, categorical[0]].astype(int)
        model = catboost.CatBoost(parameters)
        model.fit(catboost.Pool(given, make_answer(random, rows, kind), cat_features=categorical or None))
        borders = {} if categorical else model.get_borders()
        thresholds = [(feature, border) for feature, list_ in borders.items() for border in list_]
        asked = awkward(random, rows, thresholds, narrow=True, limit=np.inf)
        # CatBoost refuses a missing value of a feature that had none in training.
        whole = ~np.isnan(rows).any(axis=0)
        asked[:, whole] = np.nan_to_num(asked[:, whole], nan=0.5, posinf=np.inf, neginf=-np.inf)
        shown: Any = asked
        if categorical:
            asked[:, categorical[0]] = random.integers(0, 14, len(asked))
            shown = asked.astype(object)
            shown[:, categorical[0]] = asked[:, categorical[0]].astype(int)
        exported = export_catboost(model, tmp_path / "model.json", np.where(np.isinf(rows[:5]), 0.0, rows[:5]))
        assert_margins(exported, asked, model.predict(shown, prediction_type="RawFormulaVal"), parameters)


SKLEARN_TREES: list[tuple[Callable[..., Any], list[str]]] = [
    (DecisionTreeClassifier, ["two classes", "three classes"]),
    (DecisionTreeRegressor, ["number", "two numbers"]),
    (lambda **options: RandomForestClassifier(5, **options), ["two classes", "three classes"]),
    (lambda **options: RandomForestRegressor(5, **options), ["number", "two numbers"]),
    (lambda **options: ExtraTreesClassifier(5, **options), ["two classes", "three classes"]),
    (lambda **options: ExtraTreesRegressor(5, **options), ["number", "two numbers"]),
    (lambda **options: GradientBoostingClassifier(n_estimators=4, **options), ["two classes", "three classes"]),
    (lambda **options: GradientBoostingRegressor(n_estimators=4, **options), ["number"]),
]


def sklearn_thresholds(model: Any) -> list[tuple[int, float]]:
    trees = np.ravel(model.estimators_) if hasattr(model, "estimators_") else [model]
    pairs = [zip(tree.tree_.feature, tree.tree_.threshold, strict=True) for tree in trees]
    return [(int(feature), float(threshold)) for tree in pairs for feature, threshold in tree if feature >= 0]


def test_sklearn_trees(tmp_path: Path) -> None:
    for random in each(250):
        make, kinds = chosen(random, SKLEARN_TREES)
        kind = chosen(random, kinds)
        model = make(max_depth=int(random.integers(1, 9)), random_state=1)
        rows = make_rows(random, has_missing="Gradient" not in type(model).__name__)
        rows = np.clip(rows, -3e38, 3e38)
        model.fit(rows, make_answer(random, rows, kind))
        asked = awkward(random, rows, sklearn_thresholds(model), narrow=bool(random.integers(2)), limit=3e38)
        whole = ~np.isnan(rows).any(axis=0)
        asked[:, whole] = np.nan_to_num(asked[:, whole], nan=0.5)
        assert_sklearn_bits(model, asked, tmp_path / "model.safetensors")


def assert_sklearn_bits(model: Any, asked: Matrix, path: Path) -> None:
    finite = np.where(np.isinf(asked), 0.0, asked)
    exported = export_sklearn(model, path, finite)
    assert_margins(exported, finite, np.array(exported.golden["margins"]), model)
    answers = np.array(exported.golden["scores"], dtype=np.float64)
    found = Model.from_bytes(exported.format, exported.file.read_bytes()).scores(finite, threads=1)
    np.testing.assert_array_max_ulp(found, answers, maxulp=2)


def test_sklearn_histograms_and_pipelines(tmp_path: Path) -> None:
    for random in each(60):
        rows = make_rows(random)
        kind = chosen(random, ["two classes", "three classes", "number", "positive"])
        kinds = {"number": "squared_error", "positive": "poisson"}
        options: dict[str, Any] = {"max_iter": 4, "min_samples_leaf": 1, "max_leaf_nodes": int(random.integers(2, 20))}
        if random.random() < 0.4:
            column = int(random.integers(rows.shape[1]))
            rows[:, column] = random.integers(0, 20, len(rows))
            options["categorical_features"] = [column]
        is_number = kind in kinds
        regressor = HistGradientBoostingRegressor(loss=kinds.get(kind, "squared_error"), **options)
        model: Any = regressor if is_number else HistGradientBoostingClassifier(**options)
        if "categorical_features" not in options:
            scaler = chosen(random, [StandardScaler(), MinMaxScaler(), RobustScaler(), "passthrough"])
            imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
            unknown = {
                "handle_unknown": "use_encoded_value",
                "unknown_value": -1,
                "min_frequency": chosen(random, [1, 4]),
            }
            encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=5)
            coded = ColumnTransformer(
                [("one", encoder, [0]), ("number", OrdinalEncoder(**unknown), [rows.shape[1] - 1])],
                remainder=make_pipeline(imputer, scaler),
            )
            model = make_pipeline(coded, model)
        model.fit(rows, make_answer(random, rows, kind))
        assert_sklearn_bits(model, awkward(random, rows, [], narrow=False, limit=1e30), tmp_path / "model.safetensors")


def test_sklearn_sums_of_products(tmp_path: Path) -> None:
    for random in each(80):
        rows = np.clip(make_rows(random, has_missing=False), -100, 100)
        options: list[tuple[Any, str]] = [
            (LinearRegression(), "two numbers"),
            (Ridge(), "number"),
            (PoissonRegressor(max_iter=20), "positive"),
            (LogisticRegression(max_iter=20), chosen(random, ["two classes", "three classes"])),
            (SGDClassifier(loss="modified_huber", max_iter=5), chosen(random, ["two classes", "three classes"])),
            (MLPRegressor(hidden_layer_sizes=(7, 3), max_iter=3), "two numbers"),
            (MLPClassifier((6,), activation="tanh", max_iter=3), chosen(random, ["two classes", "three classes"])),
        ]
        estimator, kind = chosen(random, options)
        model = make_pipeline(StandardScaler(), estimator)
        model.fit(rows, make_answer(random, rows, kind))
        asked = rows + random.normal(size=rows.shape)
        exported = export_sklearn(model, tmp_path / "model.safetensors", asked)
        assert_margins(exported, asked, np.array(exported.golden["margins"]), estimator, tolerance=1e-11)
