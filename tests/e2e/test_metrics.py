"""The measures of training: checked against scikit-learn and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_control.training.metrics import (
    area_under_curve,
    calibration_curve,
    classification_metrics,
    group_mean_scores,
    regression_metrics,
    roc_curve,
)

ROWS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])), min_size=2, max_size=60
)


@given(ROWS)
def test_the_area_counts_pairs_in_the_right_order_and_half_of_the_ties(rows: list[tuple[bool, float]]) -> None:
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    found = area_under_curve(np.array([label for label, _ in rows]), np.array([score for _, score in rows]))
    if not positives or not negatives:
        assert np.isnan(found)
        return
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    assert found == pytest.approx(wins / (len(positives) * len(negatives)))


@given(ROWS)
def test_the_curve_runs_from_nothing_to_everything_and_has_the_same_area(rows: list[tuple[bool, float]]) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows])
    false_rate, true_rate = roc_curve(labels, scores, points=1000)
    assert (false_rate[0], true_rate[0]) == (0, 0)
    assert (np.diff(false_rate) >= 0).all()
    assert (np.diff(true_rate) >= 0).all()
    if labels.any() and not labels.all():
        assert (false_rate[-1], true_rate[-1]) == (1, 1)
        assert np.trapezoid(true_rate, false_rate) == pytest.approx(area_under_curve(labels, scores))


def test_the_measures_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(3)
    scores = random.random(500)
    labels = random.random(500) < scores
    found = classification_metrics(labels, scores)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, scores))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, scores))
    values = random.normal(size=500)
    measured = regression_metrics(values, scores)
    assert measured["r2"] == pytest.approx(metrics.r2_score(values, scores))
    assert measured["rmse"] == pytest.approx(metrics.root_mean_squared_error(values, scores))
    assert measured["mae"] == pytest.approx(metrics.mean_absolute_error(values, scores))


def test_a_group_that_training_never_saw_gets_the_overall_mean() -> None:
    groups = np.array(["UA", "UA", "B6", ""])
    values = np.array([1.0, 0.0, 1.0, 0.0])
    found = group_mean_scores(groups, values, np.array(["UA", "B6", "", "ZZ", "AA"]))
    assert found.tolist() == [0.5, 1.0, 0.0, 0.5, 0.5]


def test_calibration_groups_hold_every_row_once() -> None:
    scores = np.linspace(0, 1, 103)
    mean_score, share, rows = calibration_curve(scores > 0.5, scores)
    assert rows.sum() == 103
    assert (np.diff(mean_score) > 0).all()
    assert (share[0], share[-1]) == (0, 1)
