"""Models of each training library, exported and evaluated by the engine: the same bits as the library's own answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest
import xgboost
from numpy.typing import NDArray

from headrace import HeadraceError, Model
from headrace.export import ExportedModel, export_lightgbm, export_xgboost

Matrix = NDArray[np.float64]
THREADS = {"nthread": 1}


@pytest.fixture(scope="module")
def rows() -> Matrix:
    """Numbers, whole numbers that tie with thresholds, a column that is often zero, and missing values."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(1500, 8)).astype(np.float32).astype(np.float64)
    rows[:, 1] = random.integers(-3, 4, len(rows))
    rows[random.random(len(rows)) < 0.4, 2] = 0.0
    rows[random.random(rows.shape) < 0.08] = np.nan
    return rows


@pytest.fixture(scope="module")
def total(rows: Matrix) -> Matrix:
    sums: Matrix = np.nansum(rows[:, :4], axis=1)
    return sums


def label(total: Matrix, classes: int) -> NDArray[np.int64]:
    edges = np.quantile(total, np.linspace(0, 1, classes + 1)[1:-1])
    return np.searchsorted(edges, total).astype(np.int64)


def tie_with_thresholds(rows: Matrix, thresholds: list[tuple[int, float]]) -> Matrix:
    """Copies of rows of which some hold exactly the value of a threshold, a zero of either sign, or a tiny number."""
    random = np.random.default_rng(6)
    edge = rows[:400].copy()
    for row in range(0, len(edge), 2):
        feature, threshold = thresholds[random.integers(len(thresholds))]
        edge[row, feature] = threshold
    edge[:6] = np.array([0.0, -0.0, 1e-36, -1e-36, 1e30, np.nan])[:, None]
    return edge


def assert_same_bits(exported: ExportedModel, edge: Matrix, margins: Any, scores: Any) -> None:
    """Margins to the bit, scores to the bound that the library's precision sets."""
    model = Model.from_bytes(exported.format, exported.file.read_bytes())
    narrow = exported.library == "xgboost"
    expected = np.asarray(margins, dtype=np.float64).reshape(len(edge), -1)
    answers = np.asarray(scores).reshape(len(edge), -1)
    variants: list[Any] = [edge, edge.astype(np.float32)] if narrow else [edge]
    for features in variants:
        np.testing.assert_array_equal(model.margins(features, threads=1).view(np.int64), expected.view(np.int64))
        for row in range(0, len(edge), 97):
            np.testing.assert_array_equal(model.margins(features[row : row + 1], threads=1), expected[row : row + 1])
    found = model.scores(edge, threads=1)
    if narrow:
        np.testing.assert_array_max_ulp(found.astype(np.float32), answers.astype(np.float32), maxulp=1)
    else:
        np.testing.assert_array_max_ulp(found, answers.astype(np.float64), maxulp=2)


def xgboost_thresholds(booster: Any) -> list[tuple[int, float]]:
    frame = booster.trees_to_dataframe()
    frame = frame[frame["Feature"] != "Leaf"]
    names = [int(name.removeprefix("f")) for name in frame["Feature"]]
    return [(name, float(np.float32(split))) for name, split in zip(names, frame["Split"], strict=True)] or [(0, 0.0)]


XGBOOST: dict[str, dict[str, Any]] = {
    "logistic": {"objective": "binary:logistic"},
    "logitraw": {"objective": "binary:logitraw"},
    "hinge": {"objective": "binary:hinge"},
    "squared": {"objective": "reg:squarederror"},
    "poisson": {"objective": "count:poisson"},
    "softprob": {"objective": "multi:softprob", "num_class": 4},
    "dart": {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.3},
    "deep": {"objective": "binary:logistic", "max_depth": 13, "min_child_weight": 0.0},
    "lossguide": {"objective": "binary:logistic", "grow_policy": "lossguide", "max_depth": 0, "max_leaves": 40},
    "pruned": {"objective": "binary:logistic", "tree_method": "exact", "gamma": 2.0},
    "parallel": {"objective": "binary:logistic", "num_parallel_tree": 4, "subsample": 0.5},
    "many_bins": {"objective": "binary:logistic", "max_bin": 1500, "max_depth": 8},
    "no_splits": {"objective": "binary:logistic", "gamma": 1e9},
}


@pytest.mark.parametrize("ending", [".ubj", ".json"])
@pytest.mark.parametrize("case", XGBOOST)
def test_xgboost_gives_its_own_bits(case: str, ending: str, rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    parameters = {"max_depth": 5, "seed": 1, **THREADS, **XGBOOST[case]}
    answer = label(total, parameters.get("num_class", 2))
    booster = xgboost.train(parameters, xgboost.DMatrix(rows, answer, nthread=1), 20)
    exported = export_xgboost(booster, tmp_path / f"model{ending}", rows[:50])
    edge = tie_with_thresholds(rows, xgboost_thresholds(booster))
    data = xgboost.DMatrix(edge.astype(np.float32), nthread=1)
    assert_same_bits(exported, edge, booster.predict(data, output_margin=True), booster.predict(data))


POSITIVE = ["reg:gamma", "reg:tweedie", "reg:squaredlogerror", "count:poisson", "survival:cox"]
XGBOOST_OBJECTIVES: dict[str, tuple[dict[str, Any], str]] = {
    **{name: ({"objective": name}, "positive") for name in POSITIVE},
    "survival:aft": ({"objective": "survival:aft"}, "bounds"),
    **{
        name: ({"objective": name}, "number")
        for name in ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror")
    },
    **{
        name: ({"objective": name}, "class")
        for name in ("reg:logistic", "binary:logistic", "binary:logitraw", "binary:hinge")
    },
    **{name: ({"objective": name}, "group") for name in ("rank:pairwise", "rank:ndcg", "rank:map")},
    "quantile": ({"objective": "reg:quantileerror", "quantile_alpha": 0.3}, "number"),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, "number"),
    "two_targets": ({"objective": "reg:squarederror"}, "two numbers"),
    "two_labels": ({"objective": "binary:logistic"}, "two classes"),
    "softprob": ({"objective": "multi:softprob", "num_class": 3}, "three"),
    "base_score_logistic": ({"objective": "binary:logistic", "base_score": 0.2}, "class"),
    "base_score_poisson": ({"objective": "count:poisson", "base_score": 0.2}, "positive"),
    "base_score_raw": ({"objective": "binary:logitraw", "base_score": 0.2}, "class"),
}
MANY = ["quantiles", "two_targets", "two_labels", "softprob"]
BOOSTERS = [(case, {"booster": booster}) for case in XGBOOST_OBJECTIVES for booster in ("gbtree", "gblinear")]
VECTORS = [(case, {"multi_strategy": "multi_output_tree", "booster": "gbtree"}) for case in MANY]


@pytest.mark.parametrize(("case", "booster"), BOOSTERS + VECTORS)
def test_every_objective_and_booster_of_xgboost_gives_its_own_bits(
    case: str, booster: dict[str, str], rows: Matrix, total: Matrix, tmp_path: Path
) -> None:
    parameters, kind = XGBOOST_OBJECTIVES[case]
    positive = np.abs(total) + 0.1
    answers: dict[str, dict[str, Any]] = {
        "number": {"label": total},
        "positive": {"label": positive},
        "class": {"label": label(total, 2)},
        "three": {"label": label(total, 3)},
        "group": {"label": label(total, 2), "group": [50] * 30},
        "two numbers": {"label": np.stack([total, -positive], axis=1)},
        "two classes": {"label": np.stack([label(total, 2), label(-positive, 2)], axis=1)},
        "bounds": {"label_lower_bound": positive, "label_upper_bound": positive + 1},
    }
    data = xgboost.DMatrix(rows, nthread=1, **answers[kind])
    depth = {} if booster["booster"] == "gblinear" else {"max_depth": 3}
    trained = xgboost.train({**THREADS, **parameters, **booster, **depth, "verbosity": 0}, data, 5)
    exported = export_xgboost(trained, tmp_path / "model.ubj", rows[:20])
    edge = rows[:300].astype(np.float32).astype(np.float64)
    asked = xgboost.DMatrix(edge, nthread=1)
    assert_same_bits(exported, edge, trained.predict(asked, output_margin=True), trained.predict(asked))


def test_a_category_container_leaves_codes_as_they_are(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    """XGBoost keeps the categories of a frame; the engine is given codes, as a matrix without a container is."""
    random = np.random.default_rng(3)
    names = np.array(["x", "yy", "z", "w"])
    codes = random.integers(0, 4, len(rows))
    frame = pandas.DataFrame({"kind": pandas.Categorical(names[codes], categories=names), "size": rows[:, 0]})
    data = xgboost.DMatrix(frame, (codes == 2) + total, enable_categorical=True, nthread=1)
    booster = xgboost.train({"max_depth": 4, **THREADS}, data, 5)
    asked = np.stack([codes.astype(np.float64), rows[:, 0]], axis=1)
    exported = export_xgboost(booster, tmp_path / "model.ubj", asked[:20])
    assert exported.features == ("kind", "size")
    assert_same_bits(exported, asked, booster.predict(data, output_margin=True), booster.predict(data))


def test_xgboosts_categories_go_where_the_library_sends_them(rows: Matrix, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    codes = rows.copy()
    codes[:, 0], codes[:, 1] = random.integers(0, 40, len(rows)), random.integers(0, 3, len(rows))
    answer = (codes[:, 0] * 7 % 5 > 2) ^ (codes[:, 1] == 1)
    kind: dict[str, Any] = {"feature_types": ["c", "c"] + ["q"] * 6, "enable_categorical": True, "nthread": 1}
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 4, **THREADS}, xgboost.DMatrix(codes, answer, **kind), 10
    )
    exported = export_xgboost(booster, tmp_path / "model.ubj", codes[:50])
    edge = codes[:300].copy()
    edge[:6, 0] = [np.nan, 0, 39, 1, 20, 3]
    data = xgboost.DMatrix(edge, **kind)
    assert_same_bits(exported, edge, booster.predict(data, output_margin=True), booster.predict(data))


LIGHTGBM: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary"},
    "sigmoid": {"objective": "binary", "sigmoid": 0.7},
    "multiclass": {"objective": "multiclass", "num_class": 4},
    "one_against_all": {"objective": "multiclassova", "num_class": 4},
    "regression": {"objective": "regression"},
    "square_root": {"objective": "regression", "reg_sqrt": True},
    "square_root_l1": {"objective": "regression_l1", "reg_sqrt": True},
    "square_root_fair": {"objective": "fair", "reg_sqrt": True},
    "square_root_quantile": {"objective": "quantile", "reg_sqrt": True},
    "square_root_mape": {"objective": "mape", "reg_sqrt": True},
    "square_root_huber": {"objective": "huber", "reg_sqrt": True},
    "square_root_poisson": {"objective": "poisson", "reg_sqrt": True},
    "poisson": {"objective": "poisson"},
    "cross_entropy": {"objective": "cross_entropy"},
    "cross_entropy_lambda": {"objective": "cross_entropy_lambda"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "huber": {"objective": "huber"},
    "goss": {"objective": "binary", "data_sample_strategy": "goss"},
    "forest_multiclass": {
        "objective": "multiclass",
        "num_class": 3,
        "boosting": "rf",
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
    },
    "forest": {"objective": "binary", "boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1},
    "dart": {"objective": "binary", "boosting": "dart"},
    "zero_as_missing": {"objective": "binary", "zero_as_missing": True},
    "no_missing": {"objective": "binary", "use_missing": False},
    "deep": {"objective": "binary", "num_leaves": 300, "min_data_in_leaf": 1},
    "many_bins": {"objective": "binary", "max_bin": 1200, "min_data_in_bin": 1, "num_leaves": 100},
    "no_splits": {"objective": "binary", "min_data_in_leaf": 1000},
}


def lightgbm_thresholds(booster: Any) -> list[tuple[int, float]]:
    found: list[tuple[int, float]] = []
    pending = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while pending:
        node = pending.pop()
        if "left_child" in node:
            if node["decision_type"] == "<=":
                found.append((node["split_feature"], node["threshold"]))
            pending += [node["left_child"], node["right_child"]]
    return found or [(0, 0.0)]


@pytest.mark.parametrize("case", LIGHTGBM)
def test_lightgbm_gives_its_own_bits(case: str, rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    parameters = {"verbose": -1, "seed": 1, "num_threads": 1, **LIGHTGBM[case]}
    answer: Matrix = label(total, parameters.get("num_class", 2)).astype(np.float64)
    if case == "gamma":
        answer += 1.0
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows * 1.1, answer), 20)
    exported = export_lightgbm(booster, tmp_path / "model.txt", rows[:50])
    edge = tie_with_thresholds(rows * 1.1, lightgbm_thresholds(booster))
    edge[6:10] = np.array([1e-35, -1e-35, 1.0000000180025095e-35, -1.0000000180025095e-35])[:, None]
    assert_same_bits(exported, edge, booster.predict(edge, raw_score=True), booster.predict(edge))


@pytest.mark.parametrize("classes", [2, 3])
def test_lightgbms_categories_go_where_the_library_sends_them(classes: int, rows: Matrix, tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    codes = rows.copy()
    codes[:, 0] = random.integers(0, 60, len(rows))
    answer = codes[:, 0] * 7 % 5 % classes
    objective = {"objective": "multiclass", "num_class": 3} if classes == 3 else {"objective": "binary"}
    groups = {"min_data_per_group": 5, "cat_smooth": 1, "max_cat_to_onehot": 1}
    data = lightgbm.Dataset(codes, answer, categorical_feature=[0])
    booster = lightgbm.train({**objective, **groups, "verbose": -1, "num_threads": 1}, data, 10)
    assert "cat_threshold=" in booster.model_to_string()
    exported = export_lightgbm(booster, tmp_path / "model.txt", codes[:50])
    edge = codes[:300].copy()
    edge[:10, 0] = [np.nan, -0.5, -1.0, 0.5, 2.99, 59, 60, 1e9, 1e30, -1e30]
    assert_same_bits(exported, edge, booster.predict(edge, raw_score=True), booster.predict(edge))


def test_early_stopping_is_honoured_where_the_library_honours_it(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    answer = label(total, 2)
    random = np.random.default_rng(9)
    noise = random.integers(0, 2, 500)
    boosted = xgboost.XGBClassifier(n_estimators=60, max_depth=3, n_jobs=1, early_stopping_rounds=3)
    boosted.fit(rows, answer, eval_set=[(rows[:500], noise)], verbose=False)
    assert boosted.best_iteration + 1 < boosted.get_booster().num_boosted_rounds()
    exported = export_xgboost(boosted, tmp_path / "model.ubj", rows[:50])
    edge = rows[:300]
    assert_same_bits(exported, edge, boosted.predict(edge, output_margin=True), boosted.predict_proba(edge)[:, 1])
    assert (exported.task, exported.labels) == ("classification", ("0", "1"))

    # A Booster by itself predicts with all its trees, whatever its best iteration.
    booster = boosted.get_booster()
    exported = export_xgboost(booster, tmp_path / "booster.ubj", rows[:50])
    data = xgboost.DMatrix(edge, nthread=1)
    assert_same_bits(exported, edge, booster.predict(data, output_margin=True), booster.predict(data))

    light = lightgbm.LGBMClassifier(n_estimators=60, n_jobs=1, verbose=-1)
    light.fit(rows, answer, eval_X=rows[:500], eval_y=noise, callbacks=[lightgbm.early_stopping(3, verbose=False)])
    assert light.best_iteration_ < 60
    exported = export_lightgbm(light, tmp_path / "model.txt", rows[:50])
    assert_same_bits(
        exported, edge, light.booster_.predict(edge, raw_score=True), np.asarray(light.predict_proba(edge))[:, 1]
    )


def test_a_linear_booster_predicts_with_its_last_iteration(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    noise = np.random.default_rng(9).normal(size=500)
    model = xgboost.XGBRegressor(
        n_estimators=40,
        booster="gblinear",
        n_jobs=1,
        early_stopping_rounds=3,
        learning_rate=0.3,
        updater="coord_descent",
    )
    model.fit(rows, total, eval_set=[(rows[:500], noise)], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    exported = export_xgboost(model, tmp_path / "model.ubj", rows[:50])
    edge = rows[:300].astype(np.float32).astype(np.float64)
    assert_same_bits(exported, edge, model.predict(edge, output_margin=True), model.predict(edge))


def test_several_targets_have_a_label_each(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    targets = np.stack([total > 0, total > 1, total < -1], axis=1).astype(int)
    model = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(rows, targets)
    exported = export_xgboost(model, tmp_path / "model.ubj", rows[:5])
    assert (exported.task, exported.labels) == ("multi_label", ("0", "1", "2"))
    assert len(exported.golden["scores"][0]) == 3


def test_the_class_names_and_the_task_are_told(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    names = np.array(["early", "late", "on time"])[label(total, 3)]
    light = lightgbm.LGBMClassifier(n_estimators=3, n_jobs=1, verbose=-1).fit(rows, names)
    exported = export_lightgbm(light, tmp_path / "model.txt", rows[:5])
    assert (exported.task, exported.labels) == ("classification", ("early", "late", "on time"))
    assert exported.features == tuple(f"Column_{index}" for index in range(8))
    ranker = lightgbm.LGBMRanker(n_estimators=3, n_jobs=1, verbose=-1).fit(rows, label(total, 3), group=[100] * 15)
    assert export_lightgbm(ranker, tmp_path / "ranker.txt", rows[:5]).task == "ranking"
    regressor = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(rows, total)
    exported = export_xgboost(regressor, tmp_path / "model.ubj", rows[:5])
    assert (exported.task, exported.labels, exported.library) == ("regression", None, "xgboost")
    softmax = xgboost.train(
        {"objective": "multi:softmax", "num_class": 3, **THREADS}, xgboost.DMatrix(rows, label(total, 3)), 3
    )
    golden = export_xgboost(softmax, tmp_path / "softmax.ubj", rows[:5]).golden
    assert all(abs(sum(score or 0.0 for score in row) - 1) < 1e-6 for row in golden["scores"])


def test_what_cannot_be_exported_is_refused_by_name(rows: Matrix, total: Matrix, tmp_path: Path) -> None:
    answer = label(total, 2)
    complete = np.nan_to_num(rows)
    fitted = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(rows, answer)
    linear_trees = lightgbm.train(
        {"objective": "regression", "linear_tree": True, "verbose": -1, "num_threads": 1},
        lightgbm.Dataset(complete, total),
        2,
    )
    shifted = xgboost.XGBClassifier(n_estimators=2, n_jobs=1, missing=-999.0).fit(complete, answer)
    hasty = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1, pred_early_stop=True).fit(rows, answer)
    path = tmp_path / "model.ubj"
    cases: list[tuple[str, str, Any]] = [
        ("invalid_argument", "'model.bin' ends in neither", lambda: export_xgboost(fitted, "model.bin", rows[:5])),
        ("invalid_argument", "builtins.dict is not an XGBoost", lambda: export_xgboost({}, path, rows[:5])),
        ("invalid_argument", "not fitted", lambda: export_xgboost(xgboost.XGBRegressor(), path, rows[:5])),
        ("unsupported_model", "takes -999.0 for a missing", lambda: export_xgboost(shifted, path, rows[:5])),
        ("length_mismatch", "(5, 7)", lambda: export_xgboost(fitted, path, rows[:5, :7])),
        ("length_mismatch", "(0, 8)", lambda: export_xgboost(fitted, path, rows[:0])),
        ("invalid_argument", "infinite", lambda: export_xgboost(fitted, path, np.full((1, 8), np.inf))),
        ("invalid_argument", "not a LightGBM", lambda: export_lightgbm(fitted, path, rows[:5])),
        ("invalid_argument", "not fitted", lambda: export_lightgbm(lightgbm.LGBMRegressor(), path, rows[:5])),
        ("unsupported_model", "has pred_early_stop", lambda: export_lightgbm(hasty, path, rows[:5])),
        ("unsupported_model", "linear trees", lambda: export_lightgbm(linear_trees, path, rows[:5])),
    ]
    for code, message, export in cases:
        with pytest.raises(HeadraceError) as caught:
            export()
        assert caught.value.code == code, caught.value
        assert message in caught.value.message
        assert caught.value.hint
    assert not path.exists()


def test_importing_the_exporters_imports_no_training_library() -> None:
    libraries = {"xgboost", "lightgbm", "sklearn", "catboost", "pandas"}
    code = f"import sys, headrace.export; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
