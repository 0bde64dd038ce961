"""CatBoost's models, evaluated by the engine: the same bits as the library's own raw answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace import HeadraceError, Model
from headrace.export import ExportedModel, export_catboost

Matrix = NDArray[np.float64]
FIXED: dict[str, Any] = {"iterations": 12, "thread_count": 1, "random_seed": 1, "verbose": False}
FIXED["allow_writing_files"] = False


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """Numbers, small whole numbers, and missing values in three of five columns."""
    random = np.random.default_rng(31)
    rows = random.normal(size=(900, 5)).astype(np.float32).astype(np.float64)
    rows[:, 3], rows[:, 4] = random.integers(0, 6, len(rows)), random.integers(0, 3, len(rows))
    rows[:, :3][random.random((len(rows), 3)) < 0.1] = np.nan
    return rows


@pytest.fixture(scope="module")
def total(rows: Matrix) -> Matrix:
    sums: Matrix = np.nansum(rows[:, :3], axis=1) + (rows[:, 3] == 2)
    return sums


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "squared": ({"loss_function": "RMSE"}, "number"),
    "absolute": ({"loss_function": "MAE"}, "number"),
    "quantile": ({"loss_function": "Quantile:alpha=0.3"}, "number"),
    "quantiles": ({"loss_function": "MultiQuantile:alpha=0.2,0.8"}, "number"),
    "huber": ({"loss_function": "Huber:delta=1.0"}, "number"),
    "poisson": ({"loss_function": "Poisson"}, "positive"),
    "tweedie": ({"loss_function": "Tweedie:variance_power=1.5"}, "positive"),
    "two_targets": ({"loss_function": "MultiRMSE"}, "two numbers"),
    "logistic": ({"loss_function": "Logloss"}, "two classes"),
    "cross_entropy": ({"loss_function": "CrossEntropy"}, "share"),
    "softmax": ({"loss_function": "MultiClass"}, "three classes"),
    "one_against_all": ({"loss_function": "MultiClassOneVsAll"}, "three classes"),
    "two_labels": ({"loss_function": "MultiLogloss"}, "two labels"),
    "depthwise": ({"loss_function": "Logloss", "grow_policy": "Depthwise"}, "two classes"),
    "lossguide": ({"loss_function": "Logloss", "grow_policy": "Lossguide", "max_leaves": 20}, "two classes"),
    "lossguide_classes": ({"loss_function": "MultiClass", "grow_policy": "Lossguide"}, "three classes"),
    "missing_last": ({"loss_function": "RMSE", "nan_mode": "Max"}, "number"),
    "deep": ({"loss_function": "RMSE", "depth": 10}, "number"),
    "many_borders": ({"loss_function": "RMSE", "border_count": 800}, "number"),
}


def answers(total: Matrix) -> dict[str, Any]:
    return {
        "number": total,
        "positive": np.abs(total),
        "share": np.clip(np.abs(total) / 4, 0, 1),
        "two classes": (total > 0).astype(int),
        "three classes": np.digitize(total, [-1, 1]),
        "two numbers": np.stack([total, -2 * total], axis=1),
        "two labels": (np.stack([total, np.abs(total)], axis=1) > 0.7).astype(int),
    }


def edges(model: Any, rows: Matrix) -> Matrix:
    """Rows of which some hold exactly the value of a border, infinities and tiny numbers."""
    random = np.random.default_rng(32)
    edge = rows[:300].copy()
    borders = model.get_borders()
    for row in range(0, len(edge), 2):
        feature = int(random.integers(3))
        if borders.get(feature):
            edge[row, feature] = random.choice(borders[feature])
    edge[:6, :3] = np.array([0.0, -0.0, 1e-40, np.inf, -np.inf, 3e38])[:, None]
    return edge


def assert_same_bits(exported: ExportedModel, edge: Matrix, raw: Any) -> None:
    model = Model.from_bytes(exported.format, exported.file.read_bytes())
    expected = np.asarray(raw, dtype=np.float64).reshape(len(edge), -1)
    margins = model.margins(edge, threads=1)
    np.testing.assert_array_equal(margins.view(np.int64), expected.view(np.int64))
    scores = model.scores(np.array(exported.golden["features"], dtype=np.float64), threads=1)
    # CatBoost's exponential function is its own, a few units in the last place from the platform's.
    np.testing.assert_allclose(scores, np.array(exported.golden["scores"]), rtol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_catboost_gives_its_own_bits(case: str, rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    parameters, kind = CASES[case]
    model = catboost.CatBoost({**FIXED, **parameters}).fit(rows, answers(total)[kind])
    exported = export_catboost(model, tmp_path / "model.json", rows[:80])
    edge = edges(model, rows)
    assert_same_bits(exported, edge, model.predict(edge, prediction_type="RawFormulaVal"))


@pytest.mark.parametrize("policy", ["SymmetricTree", "Lossguide"])
def test_categories_go_where_the_library_sends_them(policy: str, rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    coded = rows.astype(object)
    coded[:, 3:] = rows[:, 3:].astype(int)
    answer = (rows[:, 3] * 7 % 5 > 2) ^ (rows[:, 4] == 1) ^ (total > 1)
    model = catboost.CatBoostClassifier(**FIXED, one_hot_max_size=10, grow_policy=policy)
    model.fit(catboost.Pool(coded, answer.astype(int), cat_features=[3, 4]))
    exported = export_catboost(model, tmp_path / "model.json", rows[:80])
    assert (exported.task, exported.labels) == ("classification", ("0", "1"))
    asked = coded[:200].copy()
    asked[:4, 3] = [7, 99999, 6, 1234567]  # unseen
    assert_same_bits(exported, asked.astype(np.float64), model.predict(asked, prediction_type="RawFormulaVal"))


def test_what_cannot_be_represented_is_refused_by_name(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    answer = (total > 0).astype(int)
    path = tmp_path / "model.json"
    coded = rows.astype(object)
    coded[:, 3:] = rows[:, 3:].astype(int)
    statistics = catboost.CatBoost({**FIXED, "loss_function": "Logloss", "one_hot_max_size": 2})
    statistics.fit(catboost.Pool(coded, answer, cat_features=[3]))
    uncertain = catboost.CatBoost({**FIXED, "loss_function": "RMSEWithUncertainty"}).fit(rows, total)
    scaled = catboost.CatBoost({**FIXED, "loss_function": "RMSE"}).fit(rows, total)
    scaled.set_scale_and_bias(0.3, 0.0)
    cases: list[tuple[str, str, Any]] = [
        ("unsupported_model", "statistics of the training set (CTR)", statistics),
        ("unsupported_model", "RMSEWithUncertainty", uncertain),
        ("unsupported_model", "scale is 0.3", scaled),
        ("invalid_argument", "builtins.dict is not a CatBoost model", {}),
        ("invalid_argument", "not fitted", catboost.CatBoostRegressor()),
    ]
    for code, message, model in cases:
        with pytest.raises(HeadraceError) as caught:
            export_catboost(model, path, np.nan_to_num(rows[:5]))
        assert caught.value.code == code, caught.value
        assert message in caught.value.message
        assert caught.value.hint
    assert not path.exists()
    names = coded.copy()
    names[:, 4] = np.array(["a", "b", "c"])[rows[:, 4].astype(int)]
    named = catboost.CatBoost({**FIXED, "loss_function": "Logloss", "one_hot_max_size": 9})
    named.fit(catboost.Pool(names, (rows[:, 4] == 1).astype(int), cat_features=[4]))
    named.save_model(str(path), format="json")
    assert Model.from_bytes("catboost-json", path.read_bytes()).text_features == [4]
    path.write_bytes(b"older")
    with pytest.raises(HeadraceError, match="statistics of the training set"):
        export_catboost(statistics, path, np.nan_to_num(rows[:5]))
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_category_that_is_no_whole_number_is_refused(rows: Matrix, tmp_path: Path) -> None:
    coded = rows.astype(object)
    coded[:, 3:] = rows[:, 3:].astype(int)
    model = catboost.CatBoostClassifier(**FIXED, one_hot_max_size=10)
    model.fit(catboost.Pool(coded, (rows[:, 3] > 2).astype(int), cat_features=[3, 4]))
    asked = rows[:5].copy()
    asked[2, 3] = 1.5
    with pytest.raises(HeadraceError, match=r"category 1\.5, which is no whole number") as caught:
        export_catboost(model, tmp_path / "model.json", asked)
    assert caught.value.code == "invalid_argument"
    assert not list(tmp_path.iterdir())


def test_a_sum_of_models_answers_with_its_margins(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    first = catboost.CatBoost({**FIXED, "loss_function": "RMSE"}).fit(rows, total)
    second = catboost.CatBoost({**FIXED, "loss_function": "RMSE"}).fit(rows, -2 * total)
    both = catboost.sum_models([first, second], weights=[0.5, 0.5])
    exported = export_catboost(both, tmp_path / "model.json", rows[:80])
    assert (exported.task, exported.labels) == ("regression", None)
    edge = edges(both, rows)
    assert_same_bits(exported, edge, both.predict(edge, prediction_type="RawFormulaVal"))
