"""Makes `fixtures/`: small models as their libraries write them, with what the libraries say of some rows.

The Rust tests of `core/models` read these files, so that the loaders are checked bit for bit without a Python
environment. They are committed and need making again only when a case is added:

    .venv/bin/python tests/models/make_fixtures.py [NAME...]

`xgboost_2_1` is made by XGBoost 2.1, whose base score is one number (`5E-1`) and not yet a list; others skip it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas
import xgboost
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, PoissonRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from headrace.export import ExportedModel, export_catboost, export_lightgbm, export_sklearn, export_xgboost

FOLDER = Path(__file__).parent / "fixtures"
ROWS, GOLDEN_ROWS = 600, 48
Matrix = NDArray[np.float64]


def features(has_missing: bool = True) -> Matrix:
    """Numbers, a small whole number, a category code and a column that is often zero; one value in ten is missing."""
    random = np.random.default_rng(11)
    rows = random.normal(size=(ROWS, 5)).astype(np.float32).astype(np.float64)
    rows[:, 1] = random.integers(-2, 3, ROWS)
    rows[:, 3] = random.integers(0, 40, ROWS)
    rows[random.random(ROWS) < 0.5, 2] = 0.0
    if has_missing:
        rows[random.random(rows.shape) < 0.1] = np.nan
    return rows


def answer(rows: Matrix, classes: int = 2) -> NDArray[np.int64]:
    score = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 2]) + (np.nan_to_num(rows[:, 3]) * 7 % 5 > 2)
    return np.clip(np.floor(score + classes / 2 - 0.5), 0, classes - 1).astype(np.int64)


def xgboost_model(path: Path, parameters: dict[str, Any], classes: int = 2, categorical: bool = False) -> ExportedModel:
    rows = features()
    types = ["float", "float", "float", "c", "float"] if categorical else None
    data = xgboost.DMatrix(rows, answer(rows, classes), feature_types=types, enable_categorical=categorical)
    fixed = {"max_depth": 4, "seed": 1, **parameters}
    booster = xgboost.train({key: value for key, value in fixed.items() if value is not None}, data, 5)
    return export_xgboost(booster, path, rows[:GOLDEN_ROWS])


def lightgbm_model(
    path: Path, parameters: dict[str, Any], classes: int = 2, categorical: bool = False
) -> ExportedModel:
    rows = features()
    groups = {"min_data_per_group": 5, "min_data_in_leaf": 5, "cat_smooth": 1, "max_cat_to_onehot": 1}
    fixed = {"num_leaves": 9, "verbose": -1, "seed": 1, **groups}
    data = lightgbm.Dataset(rows, answer(rows, classes), categorical_feature=[3] if categorical else [])
    return export_lightgbm(lightgbm.train({**fixed, **parameters}, data, 5), path, rows[:GOLDEN_ROWS])


def linear_model(path: Path, model: Any, link: str, classes: int = 2) -> ExportedModel:
    rows = features(has_missing=False)
    exported = export_sklearn(model.fit(rows, answer(rows, classes)), path, rows[:GOLDEN_ROWS])
    weights, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    document = {"format": 1, "weights": weights.tolist(), "intercept": intercept.tolist(), "link": link}
    path.write_text(json.dumps(document, allow_nan=False), "utf-8")
    return exported


def vectors_model(path: Path) -> ExportedModel:
    rows = features()
    answers = np.stack([answer(rows), answer(rows, 3), rows[:, 1] > 0], axis=1)
    parameters = {"multi_strategy": "multi_output_tree", "max_depth": 3, "seed": 1}
    return export_xgboost(xgboost.train(parameters, xgboost.DMatrix(rows, answers), 4), path, rows[:GOLDEN_ROWS])


def catboost_model(
    path: Path, parameters: dict[str, Any], classes: int = 2, categorical: bool = False
) -> ExportedModel:
    rows = features()
    given: Any = rows
    if categorical:
        rows[:, 3] = np.nan_to_num(rows[:, 3]) % 6
        given = rows.astype(object)
        given[:, 3] = rows[:, 3].astype(int)
    fixed = {"iterations": 5, "depth": 3, "random_seed": 1, "verbose": False, "allow_writing_files": False}
    model = catboost.CatBoost({**fixed, **parameters})
    model.fit(catboost.Pool(given, answer(rows, classes), cat_features=[3] if categorical else None))
    return export_catboost(model, path, rows[:GOLDEN_ROWS])


def pipeline_model(path: Path, estimator: Any, classes: int = 2, has_missing: bool = True) -> ExportedModel:
    rows = features(has_missing)
    return export_sklearn(estimator.fit(rows, answer(rows, classes)), path, rows[:GOLDEN_ROWS])


def prepared(estimator: Any) -> Any:
    """The estimator behind imputers, scalers and encoders."""
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False)
    columns = [("codes", encoder, [1, 3]), ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), [0, 2, 4])]
    return make_pipeline(ColumnTransformer(columns), estimator)


def texts(rows_count: int = 300) -> Any:
    """A frame whose columns 1 and 3 are text."""
    random = np.random.default_rng(5)
    rows = pandas.DataFrame(random.normal(size=(rows_count, 4)), columns=["a", "b", "c", "d"])
    rows["b"] = pandas.Series(random.choice(["", "JFK", "New York, NY", "nan"], rows_count), dtype=object)
    rows["d"] = pandas.Series(random.choice([f"category {number}" for number in range(40)], rows_count), dtype=object)
    return rows


def answer_of_texts(rows: Any) -> Any:
    return ((rows["a"] + (rows["b"] == "JFK") + rows["d"].astype(str).str.len() / 5) > 3).astype(int)


def text_model(path: Path, library: str) -> ExportedModel:
    rows = texts()
    answers, golden = answer_of_texts(rows), rows[:GOLDEN_ROWS]
    if library == "catboost":
        fixed: dict[str, Any] = {"iterations": 5, "depth": 3, "random_seed": 1, "verbose": 0, "one_hot_max_size": 99}
        model = catboost.CatBoostClassifier(**fixed, cat_features=[1, 3], allow_writing_files=False)
        return export_catboost(model.fit(rows, answers), path, golden)
    if library == "sklearn":
        columns = [("flags", OneHotEncoder(handle_unknown="ignore"), ["b"]), ("means", TargetEncoder(), ["d"])]
        encoded = make_pipeline(ColumnTransformer(columns, remainder=StandardScaler()), FOREST_MODEL)
        golden = golden.assign(b=["not seen", *golden["b"][1:]])
        return export_sklearn(encoded.fit(rows, answers), path, golden)
    categories = rows.astype({"b": "category", "d": "category"})
    if library == "lightgbm":
        boosted = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=8, min_child_samples=5, verbose=-1)
        return export_lightgbm(boosted.fit(categories, answers), path, categories[:GOLDEN_ROWS])
    boosted = xgboost.XGBClassifier(n_estimators=5, max_depth=3, enable_categorical=True)
    return export_xgboost(boosted.fit(categories, answers), path, categories[:GOLDEN_ROWS])


GBLINEAR = {"booster": "gblinear", "max_depth": None, "updater": "coord_descent"}
FOREST_MODEL = RandomForestClassifier(n_estimators=5, max_depth=4, random_state=1)
BOOSTING_MODEL = GradientBoostingRegressor(n_estimators=5, random_state=1)
HISTOGRAM_MODEL = HistGradientBoostingClassifier(max_iter=5, max_leaf_nodes=8, categorical_features=[3], random_state=1)
NETWORK_MODEL = MLPClassifier((8, 5), max_iter=20, random_state=1)
BINARY = {"objective": "binary:logistic"}
SOFTPROB = {"objective": "multi:softprob", "num_class": 3}
MULTICLASS = {"objective": "multiclass", "num_class": 3}
FOREST = {"objective": "binary", "boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}
CASES: dict[str, tuple[str, Callable[[Path], ExportedModel]]] = {
    "xgboost_binary": (".xgb.json", lambda path: xgboost_model(path, BINARY)),
    "xgboost_softprob": (".ubj", lambda path: xgboost_model(path, SOFTPROB, classes=3)),
    "xgboost_categorical": (".ubj", lambda path: xgboost_model(path, BINARY, categorical=True)),
    "xgboost_dart": (".ubj", lambda path: xgboost_model(path, {**BINARY, "booster": "dart", "rate_drop": 0.5})),
    "xgboost_poisson": (".xgb.json", lambda path: xgboost_model(path, {"objective": "count:poisson"})),
    "xgboost_pruned": (".ubj", lambda path: xgboost_model(path, {**BINARY, "tree_method": "exact", "gamma": 4})),
    "xgboost_2_1": (".xgb.json", lambda path: xgboost_model(path, {**BINARY, "base_score": 0.25})),
    "lightgbm_binary": (".txt", lambda path: lightgbm_model(path, {"objective": "binary"})),
    "lightgbm_multiclass": (".txt", lambda path: lightgbm_model(path, MULTICLASS, classes=3, categorical=True)),
    "lightgbm_forest": (".txt", lambda path: lightgbm_model(path, FOREST)),
    "lightgbm_zero": (".txt", lambda path: lightgbm_model(path, {"objective": "binary", "zero_as_missing": True})),
    "lightgbm_poisson": (".txt", lambda path: lightgbm_model(path, {"objective": "poisson"}, categorical=True)),
    "linear_logistic": (".linear.json", lambda path: linear_model(path, LogisticRegression(), "logistic")),
    "linear_softmax": (".linear.json", lambda path: linear_model(path, LogisticRegression(), "softmax", classes=3)),
    "linear_poisson": (".linear.json", lambda path: linear_model(path, PoissonRegressor(), "exponential")),
    "xgboost_linear": (".ubj", lambda path: xgboost_model(path, {**SOFTPROB, **GBLINEAR}, classes=3)),
    "xgboost_vectors": (".ubj", vectors_model),
    "catboost_binary": (".catboost.json", lambda path: catboost_model(path, {"loss_function": "Logloss"})),
    "catboost_multiclass": (
        ".catboost.json",
        lambda path: catboost_model(path, {"loss_function": "MultiClass", "one_hot_max_size": 10}, 3, categorical=True),
    ),
    "catboost_lossguide": (
        ".catboost.json",
        lambda path: catboost_model(path, {"loss_function": "Poisson", "grow_policy": "Lossguide"}),
    ),
    "sklearn_forest": (".safetensors", lambda path: pipeline_model(path, FOREST_MODEL, classes=3)),
    "sklearn_boosting": (".safetensors", lambda path: pipeline_model(path, BOOSTING_MODEL, has_missing=False)),
    "sklearn_histogram": (".safetensors", lambda path: pipeline_model(path, HISTOGRAM_MODEL)),
    "sklearn_logistic": (".safetensors", lambda path: pipeline_model(path, prepared(LogisticRegression()))),
    "sklearn_text": (".safetensors", lambda path: text_model(path, "sklearn")),
    "lightgbm_text": (".txt", lambda path: text_model(path, "lightgbm")),
    "xgboost_text": (".xgb.json", lambda path: text_model(path, "xgboost")),
    "catboost_text": (".catboost.json", lambda path: text_model(path, "catboost")),
    "sklearn_network": (".safetensors", lambda path: pipeline_model(path, prepared(NETWORK_MODEL), classes=3)),
}


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names or CASES:
        if name == "xgboost_2_1" and not xgboost.__version__.startswith("2.1"):
            continue
        ending, make = CASES[name]
        exported = make(FOLDER / f"{name}{ending}")
        (FOLDER / f"{name}.golden.json").write_text(json.dumps(exported.golden), "utf-8")
        print(f"{exported.file.name}: {exported.library} {exported.library_version}")


if __name__ == "__main__":
    main(sys.argv[1:])
