"""scikit-learn: trees, forests, boosting, linear models and networks, alone or at the end of a pipeline."""

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
    label_names,
    library,
)
from headrace.export.safetensors import write_safetensors
from headrace.export.sklearn_estimators import estimate
from headrace.export.sklearn_steps import Preparation, kind_of, named, transform, transformed

FORMAT = 1
TEXT_FORMAT = 2
"""Of a pipeline with inputs of text, which an older headrace refuses."""
DESCRIPTION_KEY = "headrace.pipeline"


def export_sklearn(model: Any, path: str | Path, golden: Any) -> ExportedModel:
    """Writes a model of scikit-learn as `pipeline-safetensors` (core/models/README.md) and computes its golden rows.

    A classifier of two classes has one score, the probability of the second class; one without probabilities (hinge
    losses, `RidgeClassifier`) answers with its margins, whose sign or maximum is the label. Where the library raises an
    error for a number that it was not trained on as a category, the engine takes none of the columns of a
    `OneHotEncoder`, and a missing value of an `OrdinalEncoder`; for such a text, the row has no answer.

    Args:
        model: a fitted estimator, or a `Pipeline` that ends in one.
        path: the file to write.
        golden: rows of shape (rows, features), NaN where a value is missing; the features that the pipeline takes.
            Where some are text: a frame, or an object array. A column whose golden rows hold texts is one of text.

    Raises:
        HeadraceError: `invalid_argument` (not an estimator, not fitted), `unsupported_model` (a step, an estimator or
            an option of it that has no counterpart, by name), `length_mismatch` (golden rows).
    """
    sklearn = library("sklearn")
    features_count = _check_fitted(sklearn, model)
    names = label_names(getattr(model, "feature_names_in_", None))
    table = golden_table(golden, features_count, names)
    rows = golden_matrix(golden, features_count) if table is None else table
    steps = _steps(model)
    texts: tuple[int, ...] = () if table is None else table.texts
    numbers = [place for place in range(features_count) if place not in texts and _has_values(rows, place)]
    preparation = Preparation.of(features_count, names, texts, numbers)
    for step in steps[:-1]:
        transform(preparation, step)
    asked = named(model, rows) if table is None else table.given
    prepared = asked
    for step in steps[:-1]:
        if step is not None and not isinstance(step, str):
            prepared = transformed(step, prepared)
    last = steps[-1]
    if getattr(last, "_preprocessor", None) is None:  # histogram gradient boosting encodes categories itself
        prepared = np.asarray(prepared.toarray() if hasattr(prepared, "toarray") else prepared, dtype=np.float64)
    estimator = estimate(last, prepared, preparation)
    stages = preparation.described(features_count)
    inputs = [{"name": name} for name in names] if names else [{} for _ in range(features_count)]
    inputs = [{**given, **categories.described()} for given, categories in zip(inputs, preparation.inputs, strict=True)]
    description = {
        "format": TEXT_FORMAT if any("categories" in given for given in inputs) else FORMAT,
        "inputs": inputs,
        "stages": stages,
        "estimator": estimator.description,
        "link": estimator.link,
    }
    golden_answers = golden_rows(rows, estimator.margins, _scores(model, asked, estimator.margins))
    file = Path(path)
    write_safetensors(file, estimator.tensors, {DESCRIPTION_KEY: json.dumps(description, allow_nan=False)})
    classes = getattr(last, "classes_", None)
    is_multi_label = (
        classes is not None and getattr(last, "_label_binarizer", None) is not None and _is_multi_label(last)
    )
    return ExportedModel(
        file=file,
        format="pipeline-safetensors",
        task="multi_label" if is_multi_label else "regression" if classes is None else "classification",
        labels=label_names(classes),
        features=names,
        golden=golden_answers,
        library="scikit-learn",
        library_version=sklearn.__version__,
    )


def _has_values(rows: Matrix | GoldenTable, place: int) -> bool:
    if isinstance(rows, GoldenTable):
        return any(value is not None for value in rows.columns[place])
    return not np.isnan(rows[:, place]).all()


def _check_fitted(sklearn: Any, model: Any) -> int:
    if not isinstance(model, sklearn.base.BaseEstimator) or not hasattr(model, "predict"):
        message = f"a {type(model).__module__}.{type(model).__qualname__} is not an estimator of scikit-learn"
        raise make_error("invalid_argument", message, "give a fitted estimator, or a Pipeline that ends in one")
    try:
        return int(model.n_features_in_)
    except AttributeError:
        message = f"the {type(model).__name__} is not fitted"
        raise make_error("invalid_argument", message, "call fit before exporting it") from None


def _steps(model: Any) -> list[Any]:
    """The steps of a pipeline, and of the pipelines in it."""
    if kind_of(model) != "Pipeline":
        return [model]
    return [inner for _, step in model.steps for inner in _steps(step)]


def _is_multi_label(network: Any) -> bool:
    return bool(network._label_binarizer.y_type_.startswith("multilabel"))


def _scores(model: Any, asked: Any, margins: Matrix) -> Matrix:
    if not hasattr(model, "classes_"):
        return np.asarray(model.predict(asked), dtype=np.float64)
    if not hasattr(model, "predict_proba"):
        return margins
    probabilities = np.asarray(model.predict_proba(asked), dtype=np.float64)
    return probabilities[:, 1:] if margins.shape[1] == 1 else probabilities
