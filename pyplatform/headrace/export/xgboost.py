"""XGBoost: a `Booster`, or a model of its scikit-learn interface."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import make_error
from headrace.export.exported import (
    ExportedModel,
    GoldenTable,
    golden_matrix,
    golden_rows,
    golden_table,
    label_names,
    library,
    replacing,
)

FORMATS = {".ubj": "xgboost-ubj", ".json": "xgboost-json"}


def export_xgboost(model: Any, path: str | Path, golden: Any) -> ExportedModel:
    """Writes an XGBoost model in its native form and computes its golden rows.

    Args:
        model: a `Booster`, which predicts with all its trees, or an `XGBModel`, which predicts with those up to the
            best iteration when early stopping was on.
        path: the file to write; `.ubj` or `.json`.
        golden: rows of shape (rows, features), NaN where a value is missing; categories as their codes. Of a model that
            was trained on a frame with categories that are texts, by XGBoost 3.1 or later: a frame, or an object array
            with the texts.

    Raises:
        HeadraceError: `invalid_argument` (another kind of object, a path of another ending, a model that is not
            fitted), `unsupported_model` (a missing value other than NaN, categories that the file does not hold),
            `length_mismatch` (golden rows).
    """
    xgboost = library("xgboost")
    file = Path(path)
    if file.suffix not in FORMATS:
        raise make_error("invalid_argument", f"'{file}' ends in neither .ubj nor .json", "name the file model.ubj")
    booster = _booster(xgboost, model)
    config = json.loads(booster.save_config())["learner"]
    table = golden_table(golden, booster.num_features(), booster.feature_names)
    content = bytes(booster.save_raw(file.suffix.removeprefix(".")))
    objective = config["objective"]["name"]
    rows: Any
    if table is None:
        given = golden_matrix(golden, booster.num_features()).astype(np.float32)
        rows = given.astype(np.float64)
        data = xgboost.DMatrix(
            given, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True
        )
    else:
        frame, rows = _frame(booster, table)
        data = xgboost.DMatrix(frame, enable_categorical=True)
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
        golden=golden_rows(rows, margins, scores),
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


def _frame(booster: Any, table: GoldenTable) -> tuple[Any, GoldenTable]:
    """Golden rows as XGBoost takes them, and as the engine does.

    Raises:
        HeadraceError: `unsupported_model`, the file does not hold the categories of a column; `invalid_argument`,
            golden rows hold one that it does not know.
    """
    pandas = library("pandas")
    series = {}
    names = booster.feature_names or [str(place) for place in range(len(table.columns))]
    for place, (name, values) in enumerate(zip(names, table.columns, strict=True)):
        known = _categories(booster, place)
        if known is None and place in table.texts:
            message = f"the model's file does not hold the categories of column {place}, which is text"
            raise make_error("unsupported_model", message, "train by XGBoost 3.1 or later, with enable_categorical")
        if known is None:
            numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
            series[name] = pandas.Series(numbers)
            table = table.with_column(place, [None if value != value else float(value) for value in numbers])
            continue
        if place in table.texts and not all(word.isascii() for word in known):
            message = f"column {place} has categories that are not ASCII, which XGBoost cuts short in its file"
            raise make_error("unsupported_model", message, "use ASCII names of categories, or train on their codes")
        unknown = [value for value in values if value is not None and value not in known]
        if unknown:
            message = f"column {place} of the golden rows holds {unknown[0]!r}, which the model was not trained on"
            raise make_error("invalid_argument", message, "XGBoost answers such rows with an error: leave them out")
        series[name] = pandas.Series(pandas.Categorical(values, categories=known))
        if place not in table.texts and not all(isinstance(word, str) for word in known):
            table = table.with_column(place, [None if value is None else float(known.index(value)) for value in values])
    return pandas.DataFrame(series), table


def _categories(booster: Any, place: int) -> list[Any] | None:
    """The categories of a feature, texts or whole numbers, if the file holds them."""
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    lists = model.get("gbtree", model).get("model", {}).get("cats", {}).get("enc", [])
    if place >= len(lists):
        return None
    if "offsets" not in lists[place]:
        return list(lists[place]["values"])
    text = bytes(byte % 256 for byte in lists[place]["values"])
    ends = lists[place]["offsets"]
    words = [text[begin:end].decode("utf-8", "replace") for begin, end in pairwise(ends)]
    return words or None


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
