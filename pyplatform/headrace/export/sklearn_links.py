"""The link from the margins of an estimator of scikit-learn to its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from headrace.export.exported import Matrix
from headrace.export.sklearn_steps import kind_of, named, refuse

Link = str | dict[str, Any]
TOLERANCE = 1e-9
LOGISTIC: Link = {"logistic": {"scale": 1.0}}
PROBES = (-2.0, -1.3, -0.7, -0.2, 0.3, 0.8, 1.4, 2.0)


def link_of_loss(loss: Any, kind: str) -> Link:
    """The link of a loss of `sklearn._loss`.

    Raises:
        HeadraceError: `unsupported_model`, the engine has no such link.
    """
    name = type(loss.link).__name__
    links: dict[str, Link] = {
        "IdentityLink": "identity",
        "LogLink": "exponential",
        "LogitLink": LOGISTIC,
        "HalfLogitLink": {"logistic": {"scale": 2.0}},
        "MultinomialLogit": "softmax",
    }
    if name not in links:
        raise refuse(f"{kind} has the link {name}", f"use a loss with one of {', '.join(links)}")
    return links[name]


def linear_link(step: Any, rows: Matrix, weights: Matrix, intercept: Matrix) -> Link:
    """The link of a linear model: what its class and parameters say, or the only one that its answers fit.

    Args:
        step: the fitted model.
        rows: prepared golden rows.
        weights: of shape (outputs, features).
        intercept: of shape (outputs,).

    Raises:
        HeadraceError: `unsupported_model`, no link or several lead to the model's answers.
    """
    told = _told(step)
    asked = rows if told is not None else np.concatenate([rows, *_probes(weights, intercept)])
    margins = asked @ weights.T + intercept
    answers = _answers(step, named(step, asked))
    fitting = [link for link, values in _candidates(margins) if _agree(values, answers)]
    if told is not None and told in fitting:
        return told
    hint = "use one with the link identity, logistic, softmax or exponential"
    if told is not None or not fitting:
        known = "no known link" if told is None else f"no link {told}"
        raise refuse(f"{known} leads from the margins of {kind_of(step)} to its answers", hint)
    if len(fitting) > 1:
        raise refuse(f"which of the links {fitting} leads to the answers of {kind_of(step)} cannot be told", hint)
    return fitting[0]


def _told(step: Any) -> Link | None:
    """What the class and the parameters say; None where they say nothing."""
    if hasattr(step, "classes_"):
        if not hasattr(step, "predict_proba"):
            return "identity"  # the label is that of the largest margin, or of the sign of one
        told = CLASSIFIERS.get(kind_of(step))
        return None if told is None else told(step)
    if hasattr(step, "_base_loss"):
        return link_of_loss(step._base_loss, kind_of(step))
    return "identity" if _is_regressor(step) else None


def _is_regressor(step: Any) -> bool:
    tags = getattr(step, "__sklearn_tags__", None)
    kind = getattr(step, "_estimator_type", None) if tags is None else tags().estimator_type  # before 1.6, and since
    return bool(kind == "regressor")


def _logistic_regression(step: Any) -> Link:
    # `multi_class` is a parameter of scikit-learn before 1.8.
    multi_class = getattr(step, "multi_class", None)
    if len(step.classes_) == 2:
        return {"logistic": {"scale": 2.0}} if multi_class == "multinomial" else LOGISTIC
    return "one_against_rest" if multi_class == "ovr" or step.solver == "liblinear" else "softmax"


def _stochastic_gradient(step: Any) -> Link:
    if step.loss == "modified_huber":
        return "modified_huber"
    return LOGISTIC if len(step.classes_) == 2 else "one_against_rest"


def _discriminant(step: Any) -> Link:
    return LOGISTIC if len(step.classes_) == 2 else "softmax"


CLASSIFIERS: dict[str, Callable[[Any], Link]] = {
    "LinearDiscriminantAnalysis": _discriminant,
    "LogisticRegression": _logistic_regression,
    "LogisticRegressionCV": _logistic_regression,
    "SGDClassifier": _stochastic_gradient,
}


def _answers(step: Any, rows: Any) -> Matrix:
    if not hasattr(step, "classes_"):
        answers: Matrix = step.predict(rows)
        return answers.reshape(len(rows), -1)
    has_probabilities = hasattr(step, "predict_proba")
    answers = step.predict_proba(rows) if has_probabilities else step.decision_function(rows)
    answers = answers.reshape(len(rows), -1)
    return answers[:, 1:] if has_probabilities and answers.shape[1] == 2 else answers


def _agree(values: Matrix, answers: Matrix) -> bool:
    return values.shape == answers.shape and np.allclose(values, answers, rtol=TOLERANCE, atol=TOLERANCE)


def _probes(weights: Matrix, intercept: Matrix) -> Iterator[Matrix]:
    """Rows along the weights of each output whose margins of that output run from -2 to 2, where links differ."""
    for along, constant in zip(weights, intercept, strict=True):
        length = float(np.linalg.norm(along))
        if length > 0.0:
            rows = (np.array(PROBES) - constant)[:, None] / length * (along / length)
            if np.isfinite(rows).all():
                yield rows


def _candidates(margins: Matrix) -> list[tuple[Link, Matrix]]:
    with np.errstate(over="ignore", invalid="ignore"):
        raised = np.exp(margins - margins.max(axis=1, keepdims=True))
        logistic = 1.0 / (1.0 + np.exp(-margins))
        clipped = (np.clip(margins, -1.0, 1.0) + 1.0) / 2.0
        if margins.shape[1] > 1:
            clipped[(clipped == 0.0).all(axis=1)] = 1.0
            clipped /= clipped.sum(axis=1, keepdims=True)
        found: list[tuple[Link, Matrix]] = [
            ("identity", margins),
            (LOGISTIC, logistic),
            ({"logistic": {"scale": 2.0}}, 1.0 / (1.0 + np.exp(-2.0 * margins))),
            ("modified_huber", clipped),
            ("exponential", np.exp(margins)),
        ]
        if margins.shape[1] > 1:
            found += [
                ("softmax", raised / raised.sum(axis=1, keepdims=True)),
                ("one_against_rest", logistic / logistic.sum(axis=1, keepdims=True)),
            ]
    return found
