"""CatBoost: a `CatBoost` model of numbers and one-hot categories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import make_error
from headrace.export.exported import (
    ExportedModel,
    GoldenTable,
    Matrix,
    golden_matrix,
    golden_rows,
    golden_table,
    in_order,
    label_names,
    library,
    replacing,
)

# What a model answers with: `predict` with this prediction type.
PROBABILITY = {"Logloss", "CrossEntropy", "Focal"}
PROBABILITIES = {"MultiClass", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy"}
EXPONENT = {"Poisson", "Tweedie"}
RANKING = ("YetiRank", "PairLogit", "Query", "LambdaMart", "StochasticRank", "StochasticFilter")


def export_catboost(model: Any, path: str | Path, golden: Any) -> ExportedModel:
    """Writes a CatBoost model as JSON and computes its golden rows.

    Categories of a feature are texts, or the whole numbers from 0 to 65535, and few enough that CatBoost asks for each
    of them (`one_hot_max_size`).

    Args:
        model: a fitted `CatBoost`, `CatBoostClassifier`, `CatBoostRegressor` or `CatBoostRanker`.
        path: the file to write.
        golden: rows of shape (rows, features), NaN where a value is missing, which of a category is the text 'nan';
            categories as their numbers, or as their texts in a frame or an object array. The columns of a frame are
            found by name.

    Raises:
        HeadraceError: `invalid_argument` (another kind of object, a model that is not fitted, categories of golden rows
            that are no whole numbers), `unsupported_model` (features of text or embeddings, statistics of categories, a
            scale), `length_mismatch` and `missing_column` (golden rows).
    """
    catboost = library("catboost")
    if not isinstance(model, catboost.CatBoost):
        message = f"a {type(model).__module__}.{type(model).__qualname__} is not a CatBoost model"
        raise make_error("invalid_argument", message, "give a fitted catboost.CatBoost")
    if not model.is_fitted():
        raise make_error("invalid_argument", "the CatBoost model is not fitted", "call fit before exporting it")
    golden = in_order(golden, model.feature_names_)
    table = golden_table(golden, len(model.feature_names_), None)
    rows: Any = golden_matrix(golden, len(model.feature_names_)) if table is None else table
    given = _given(model, rows) if table is None else _given_texts(model, table)
    loss = _loss(model)
    _refuse(model, loss)
    file = Path(path)
    with replacing(file) as aside:
        model.save_model(str(aside), format="json")
        _refuse_statistics(aside)
        is_classifier = loss in PROBABILITY | PROBABILITIES
        margins = model.predict(given, prediction_type="RawFormulaVal")
        scores = model.predict(given, prediction_type=_prediction_type(loss))
    if loss in PROBABILITY:
        scores = scores[:, 1]
    return ExportedModel(
        file=file,
        format="catboost-json",
        task=_task(loss, is_classifier),
        labels=label_names(list(model.classes_)) if is_classifier else None,
        features=label_names(model.feature_names_),
        golden=golden_rows(rows, margins, scores),
        library="catboost",
        library_version=catboost.__version__,
    )


def _loss(model: Any) -> str:
    """The name of the loss without its parameters; "" of a sum of models, which keeps none."""
    if "params" not in model.get_metadata():
        return ""
    return str(model.get_all_params().get("loss_function", "")).split(":")[0]


def _prediction_type(loss: str) -> str:
    if loss in PROBABILITY | PROBABILITIES:
        return "Probability"
    return "Exponent" if loss in EXPONENT else "RawFormulaVal"


def _task(loss: str, is_classifier: bool) -> str:
    if loss in ("MultiLogloss", "MultiCrossEntropy"):
        return "multi_label"
    if is_classifier:
        return "classification"
    return "ranking" if loss.startswith(RANKING) else "regression"


def _refuse(model: Any, loss: str) -> None:
    """Raises `unsupported_model` for what the engine does not evaluate."""
    kinds = {"text": model.get_text_feature_indices(), "embedding": model.get_embedding_feature_indices()}
    for kind, found in kinds.items():
        if found:
            message = f"the model has {kind} features"
            raise make_error("unsupported_model", message, "train on numbers and categories only")
    if loss == "RMSEWithUncertainty":
        message = "the model's loss is RMSEWithUncertainty"
        raise make_error("unsupported_model", message, "train with RMSE, or with MultiQuantile")
    scale = model.get_scale_and_bias()[0]
    if np.frexp(scale)[0] != 0.5:
        message = f"the model's scale is {scale}"
        raise make_error("unsupported_model", message, "call set_scale_and_bias(1.0, bias) before exporting it")


def _refuse_statistics(file: Path) -> None:
    document = json.loads(file.read_text("utf-8"))
    if "ctr_data" in document or document["features_info"].get("ctrs"):
        message = "the model replaces categories by statistics of the training set (CTR)"
        hint = "train with one_hot_max_size at least the number of categories of each feature, or encode them first"
        raise make_error("unsupported_model", message, hint)


def _given(model: Any, rows: Matrix) -> Any:
    """Rows as CatBoost takes them: categories as whole numbers, not as floats.

    Raises:
        HeadraceError: `invalid_argument`, a category is no whole number.
    """
    places = model.get_cat_feature_indices()
    if not places:
        return rows
    given = rows.astype(object)
    given[:, places] = _whole(rows[:, places])
    return given


def _whole(codes: Matrix) -> Any:
    """Categories as whole numbers, a missing one as CatBoost knows it."""
    odd = codes[~np.isnan(codes) & (codes != np.floor(codes))]
    if len(odd):
        message = f"golden rows hold the category {odd[0]}, which is no whole number"
        raise make_error("invalid_argument", message, "give categories as the numbers that the model was trained on")
    whole = np.empty(codes.shape, dtype=object)
    for place in range(codes.shape[1]):
        whole[:, place] = ["nan" if code != code else int(code) for code in codes[:, place]]
    return whole


def _given_texts(model: Any, table: GoldenTable) -> Any:
    """As `_given`, of rows with texts.

    Raises:
        HeadraceError: `invalid_argument`, text in a column of numbers, or a category that is no whole number.
    """
    places = model.get_cat_feature_indices()
    odd = [place for place in table.texts if place not in places]
    if odd:
        message = f"golden rows hold texts in column {odd[0]}, which is no feature of categories"
        raise make_error("invalid_argument", message, "give its numbers")
    given = np.empty((len(table.rows), len(table.columns)), dtype=object)
    for place, values in enumerate(table.columns):
        if place in table.texts:
            given[:, place] = ["nan" if value is None else value for value in values]
        else:
            numbers = np.array([[np.nan if value is None else value] for value in values], dtype=np.float64)
            given[:, place] = _whole(numbers)[:, 0] if place in places else numbers[:, 0]
    return given
