"""XGBoost: a `Booster`, or a model of its scikit-learn interface."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import make_error
from headrace.export.exported import ExportedModel, golden_matrix, golden_rows, label_names, library, replacing

FORMATS = {".ubj": "xgboost-ubj", ".json": "xgboost-json"}


def export_xgboost(model: Any, path: str | Path, golden: Any) -> ExportedModel:
    """Writes an XGBoost model in its native form and computes its golden rows.

    Args:
        model: a `Booster`, which predicts with all its trees, or an `XGBModel`, which predicts with those up to the
            best iteration when early stopping was on.
        path: the file to write; `.ubj` or `.json`.
        golden: rows of shape (rows, features), NaN where a value is missing; categories as their codes.

    Raises:
        HeadraceError: `invalid_argument` (another kind of object, a path of another ending, a model that is not
            fitted), `unsupported_model` (a missing value other than NaN), `length_mismatch` (golden rows).
    """
    xgboost = library("xgboost")
    file = Path(path)
    if file.suffix not in FORMATS:
        raise make_error("invalid_argument", f"'{file}' ends in neither .ubj nor .json", "name the file model.ubj")
    booster = _booster(xgboost, model)
    config = json.loads(booster.save_config())["learner"]
    rows = golden_matrix(golden, booster.num_features()).astype(np.float32)
    content = bytes(booster.save_raw(file.suffix.removeprefix(".")))
    objective = config["objective"]["name"]
    data = xgboost.DMatrix(
        rows, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True
    )
    margins = booster.predict(data, output_margin=True)
    if objective == "multi:softmax":  # `predict` gives the class; its probabilities are those of softprob
        booster = xgboost.Booster(model_file=bytearray(booster.save_raw("ubj")))
        booster.set_param({"objective": "multi:softprob"})
    scores = booster.predict(data)
    targets = int(config["learner_model_param"].get("num_target", "1"))
    task = _task(objective, targets)
    with replacing(file) as aside:
        aside.write_bytes(content)
    return ExportedModel(
        file=file,
        format=FORMATS[file.suffix],
        task=task,
        labels=_labels(model, task, targets),
        features=label_names(booster.feature_names),
        golden=golden_rows(rows.astype(np.float64), margins, scores),
        library="xgboost",
        library_version=xgboost.__version__,
    )


def _booster(xgboost: Any, model: Any) -> Any:
    """The trees that the model predicts with."""
    if isinstance(model, xgboost.Booster):
        return model
    if not isinstance(model, xgboost.XGBModel):
        message = f"a {type(model).__module__}.{type(model).__qualname__} is not an XGBoost model"
        raise make_error("invalid_argument", message, "give an xgboost.Booster or a fitted xgboost.XGBModel")
    if not model.__sklearn_is_fitted__():
        raise make_error("invalid_argument", "the XGBoost model is not fitted", "call fit before exporting it")
    if model.missing is not None and not np.isnan(model.missing):
        message = f"the model takes {model.missing!r} for a missing value; the engine takes NaN"
        raise make_error("unsupported_model", message, "replace it by NaN before fit, and leave `missing` alone")
    booster = model.get_booster()
    if json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear":
        return booster  # a linear model keeps the weights of its last iteration only, and predicts with them
    try:
        best = int(model.best_iteration)
    except AttributeError:  # early stopping was off
        return booster
    return booster[: best + 1]


def _labels(model: Any, task: str, targets: int) -> tuple[str, ...] | None:
    """The classes; of several targets, each of them yes or no, the targets' numbers."""
    if not hasattr(model, "predict_proba"):
        return None
    return label_names(range(targets) if task == "multi_label" else getattr(model, "classes_", None))


def _task(objective: str, targets: int) -> str:
    if objective.startswith("rank:"):
        return "ranking"
    if objective.startswith(("binary:", "multi:")):
        return "multi_label" if targets > 1 else "classification"
    return "regression"
