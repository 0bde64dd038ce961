"""scikit-learn's linear models: anything fitted with `coef_` and `intercept_` whose answers one link explains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import make_error
from headrace.export.exported import ExportedModel, Matrix, golden_matrix, golden_rows, label_names, library

FORMAT = 1
TOLERANCE = 1e-9


def export_sklearn_linear(model: Any, path: str | Path, golden: Any) -> ExportedModel:
    """Writes a linear model of scikit-learn (regressors, logistic and Poisson regression, ...) as `linear-json`.

    The link between margin and answer is found by asking the model: the one that reproduces its answers on the golden
    rows.

    Args:
        model: a fitted linear estimator, not a pipeline.
        path: the file to write.
        golden: rows of shape (rows, features), without missing values, which these models do not take.

    Raises:
        HeadraceError: `invalid_argument` (not a fitted linear model), `unsupported_model` (no probabilities, or a link
            that is none of identity, logistic, softmax, exponential), `length_mismatch` (golden rows).
    """
    sklearn = library("sklearn")
    if not hasattr(model, "coef_") or not hasattr(model, "intercept_"):
        message = f"a {type(model).__module__}.{type(model).__qualname__} has no fitted coefficients"
        raise make_error("invalid_argument", message, "give a fitted linear model; of a pipeline, its last step")
    classes = getattr(model, "classes_", None)
    if classes is not None and not hasattr(model, "predict_proba"):
        message = f"{type(model).__name__} gives no probabilities"
        raise make_error("unsupported_model", message, "use LogisticRegression, or SGDClassifier with loss='log_loss'")
    weights = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), len(weights))
    rows = golden_matrix(golden, weights.shape[1])
    margins = rows @ weights.T + intercept
    answers = np.asarray(model.predict(rows) if classes is None else model.predict_proba(rows), dtype=np.float64)
    answers = answers.reshape(len(rows), -1)
    if classes is not None and len(weights) == 1:
        answers = answers[:, 1:]
    link = _link(margins, answers, type(model).__name__)
    file = Path(path)
    document = {"format": FORMAT, "weights": weights.tolist(), "intercept": intercept.tolist(), "link": link}
    file.write_text(json.dumps(document, allow_nan=False), "utf-8")
    return ExportedModel(
        file=file,
        format="linear-json",
        task="regression" if classes is None else "classification",
        labels=label_names(classes),
        features=label_names(getattr(model, "feature_names_in_", None)),
        golden=golden_rows(rows, margins, answers),
        library="scikit-learn",
        library_version=sklearn.__version__,
    )


def _link(margins: Matrix, answers: Matrix, kind: str) -> str:
    with np.errstate(over="ignore"):
        raised = np.exp(margins - margins.max(axis=1, keepdims=True))
        candidates = {
            "identity": margins,
            "logistic": 1.0 / (1.0 + np.exp(-margins)),
            "exponential": np.exp(margins),
            "softmax": raised / raised.sum(axis=1, keepdims=True),
        }
    for link, values in candidates.items():
        if values.shape == answers.shape and np.allclose(values, answers, rtol=TOLERANCE, atol=TOLERANCE):
            return link
    message = f"no known link leads from the margins of {kind} to its answers"
    raise make_error("unsupported_model", message, "use one with the link identity, logistic, softmax or exponential")
