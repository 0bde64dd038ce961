"""How good scores are, for two classes: area under the curve, log loss, Brier score, and the curves for a plot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]
NO_FEATURES = "no features"
"""The baseline that says the same of every row."""


def area_under_curve(labels: Labels, scores: Floats) -> float:
    """The chance that a positive row scores higher than a negative one, a tie counting half; NaN without both."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    above = middle_rank[inverse][labels].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def roc_curve(labels: Labels, scores: Floats, points: int = 400) -> tuple[Floats, Floats]:
    """False and true positive rates at falling thresholds, thinned to at most `points`."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    is_last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    rows = np.flatnonzero(is_last_of_tie)
    true_rate = np.append(0.0, hits[rows] / max(1, hits[-1]))
    false_rate = np.append(0.0, (rows + 1 - hits[rows]) / max(1, len(labels) - hits[-1]))
    kept = np.unique(np.linspace(0, len(true_rate) - 1, points).astype(np.int64))
    return false_rate[kept], true_rate[kept]


def calibration_curve(labels: Labels, scores: Floats, bins: int = 10) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean score, share of positives and rows of each of `bins` groups of equal size, by score."""
    groups = np.array_split(np.argsort(scores, kind="stable"), min(bins, len(scores)))
    mean_score = np.array([scores[group].mean() for group in groups])
    share = np.array([labels[group].mean() for group in groups])
    return mean_score, share, np.array([len(group) for group in groups])


def classification_metrics(labels: Labels, scores: Floats) -> dict[str, Any]:
    """AUC, log loss, Brier score, rows and the share of positives."""
    clipped = np.clip(scores, 1e-15, 1 - 1e-15)
    log_loss = -np.mean(np.where(labels, np.log(clipped), np.log1p(-clipped)))
    return {
        "rows": len(labels),
        "positive_share": float(labels.mean()),
        "auc": area_under_curve(labels, scores),
        "log_loss": float(log_loss),
        "brier": float(np.mean((scores - labels) ** 2)),
    }


def regression_metrics(values: Floats, predictions: Floats) -> dict[str, Any]:
    """Root mean squared error, mean absolute error, R squared and rows."""
    error = predictions - values
    spread = float(np.mean((values - values.mean()) ** 2))
    return {
        "rows": len(values),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "mae": float(np.mean(np.abs(error))),
        "r2": 1 - float(np.mean(error**2)) / spread if spread else float("nan"),
    }


def group_mean_scores(groups: NDArray[Any], values: Floats, asked: NDArray[Any]) -> Floats:
    """The mean of `values` in the group of each asked row: the baseline that any model must beat.

    Args:
        groups: the group of each training row, as strings; null as an empty string.
        values: the label of each training row.
        asked: the groups to score; one that training never saw gets the overall mean.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    means = np.bincount(inverse, weights=values) / np.bincount(inverse)
    place = np.clip(np.searchsorted(names, asked), 0, len(names) - 1)
    return np.where(names[place] == asked, means[place], values.mean())
