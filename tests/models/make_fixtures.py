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

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, PoissonRegressor

from headrace.export import ExportedModel, export_lightgbm, export_sklearn_linear, export_xgboost

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
    booster = xgboost.train({"max_depth": 4, "seed": 1, **parameters}, data, 5)
    return export_xgboost(booster, path, rows[:GOLDEN_ROWS])


def lightgbm_model(
    path: Path, parameters: dict[str, Any], classes: int = 2, categorical: bool = False
) -> ExportedModel:
    rows = features()
    groups = {"min_data_per_group": 5, "min_data_in_leaf": 5, "cat_smooth": 1, "max_cat_to_onehot": 1}
    fixed = {"num_leaves": 9, "verbose": -1, "seed": 1, **groups}
    data = lightgbm.Dataset(rows, answer(rows, classes), categorical_feature=[3] if categorical else [])
    return export_lightgbm(lightgbm.train({**fixed, **parameters}, data, 5), path, rows[:GOLDEN_ROWS])


def linear_model(path: Path, model: Any, classes: int = 2) -> ExportedModel:
    rows = features(has_missing=False)
    return export_sklearn_linear(model.fit(rows, answer(rows, classes)), path, rows[:GOLDEN_ROWS])


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
    "linear_logistic": (".linear.json", lambda path: linear_model(path, LogisticRegression())),
    "linear_softmax": (".linear.json", lambda path: linear_model(path, LogisticRegression(), classes=3)),
    "linear_poisson": (".linear.json", lambda path: linear_model(path, PoissonRegressor())),
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
