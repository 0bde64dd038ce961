"""scikit-learn's models and pipelines, evaluated by the engine: trees to the bit, other sums within their bound."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from headrace import HeadraceError, Model, _native
from headrace.export import export_sklearn
from headrace.export.exported import replacing
from headrace.export.sklearn_links import CLASSIFIERS, linear_link

Matrix = NDArray[np.float64]


def complete_rows() -> Matrix:
    random = np.random.default_rng(21)
    rows = random.normal(size=(500, 6))
    rows[:, 1], rows[:, 2] = random.integers(0, 5, len(rows)), random.integers(0, 30, len(rows))
    return rows


def missing_rows() -> Matrix:
    rows = complete_rows()
    rows[np.random.default_rng(22).random(rows.shape) < 0.1] = np.nan
    return rows


def answers(rows: Matrix) -> dict[str, Any]:
    rows = np.nan_to_num(rows)
    total = rows[:, 0] + rows[:, 3] + (rows[:, 1] == 2) + (rows[:, 2] % 7 > 3)
    two = np.stack([total, -2 * total + rows[:, 4]], axis=1)
    return {
        "two classes": (total > 0.5).astype(int),
        "three classes": np.digitize(total, [-0.5, 1.2]),
        "number": total,
        "positive": np.abs(total) + 0.01,
        "two numbers": two,
        "two labels": (two > 0.5).astype(int),
    }


SMALL: dict[str, Any] = {"n_estimators": 6, "max_depth": 6, "random_state": 1}
TREE: dict[str, Any] = {"random_state": 1}
BOOST: dict[str, Any] = {"max_iter": 8, "random_state": 1}
STAGES: dict[str, Any] = {"n_estimators": 6, "random_state": 1}
TREES: dict[str, tuple[Any, str]] = {
    "tree_classifier": (DecisionTreeClassifier(**TREE), "two classes"),
    "tree_three_classes": (DecisionTreeClassifier(**TREE), "three classes"),
    "tree_regressor": (DecisionTreeRegressor(**TREE), "number"),
    "tree_two_targets": (DecisionTreeRegressor(**TREE), "two numbers"),
    "extra_tree_classifier": (ExtraTreeClassifier(**TREE), "three classes"),
    "extra_tree_regressor": (ExtraTreeRegressor(**TREE), "number"),
    "forest_two_classes": (RandomForestClassifier(**SMALL), "two classes"),
    "forest_three_classes": (RandomForestClassifier(**SMALL), "three classes"),
    "forest_regressor": (RandomForestRegressor(**SMALL), "number"),
    "forest_two_targets": (RandomForestRegressor(**SMALL), "two numbers"),
    "extra_trees_classifier": (ExtraTreesClassifier(**SMALL), "three classes"),
    "extra_trees_regressor": (ExtraTreesRegressor(**SMALL), "number"),
    "histogram_two_classes": (HistGradientBoostingClassifier(**BOOST), "two classes"),
    "histogram_three_classes": (HistGradientBoostingClassifier(**BOOST), "three classes"),
    "histogram_categories": (HistGradientBoostingClassifier(categorical_features=[1, 2], **BOOST), "two classes"),
    "histogram_regressor": (HistGradientBoostingRegressor(**BOOST), "number"),
    "histogram_poisson": (HistGradientBoostingRegressor(loss="poisson", **BOOST), "positive"),
    "histogram_gamma": (HistGradientBoostingRegressor(loss="gamma", **BOOST), "positive"),
    "histogram_quantile": (HistGradientBoostingRegressor(loss="quantile", quantile=0.3, **BOOST), "number"),
}
COMPLETE_TREES: dict[str, tuple[Any, str]] = {
    "boosting_two_classes": (GradientBoostingClassifier(**STAGES), "two classes"),
    "boosting_exponential": (GradientBoostingClassifier(loss="exponential", **STAGES), "two classes"),
    "boosting_three_classes": (GradientBoostingClassifier(**STAGES), "three classes"),
    "boosting_from_zero": (GradientBoostingClassifier(init="zero", **STAGES), "two classes"),
    "boosting_regressor": (GradientBoostingRegressor(subsample=0.5, **STAGES), "number"),
    "boosting_huber": (GradientBoostingRegressor(loss="huber", **STAGES), "number"),
    "boosting_quantile": (GradientBoostingRegressor(loss="quantile", **STAGES), "number"),
}
NORMS = [Normalizer(), StandardScaler(), Normalizer("l1"), Normalizer("max")]
LINEAR: dict[str, tuple[Any, str]] = {
    "powers": (make_pipeline(PowerTransformer(), LinearRegression()), "number"),
    "powers_of_positive": (
        make_pipeline(MinMaxScaler((1, 3)), PowerTransformer("box-cox", standardize=False), LinearRegression()),
        "number",
    ),
    "norms": (make_pipeline(*NORMS, LinearRegression()), "number"),
    "least_squares": (LinearRegression(), "number"),
    "two_targets": (LinearRegression(), "two numbers"),
    "ridge": (Ridge(), "number"),
    "lasso": (Lasso(0.01), "number"),
    "elastic_net": (ElasticNet(0.01), "number"),
    "sgd_regressor": (make_pipeline(StandardScaler(), SGDRegressor(random_state=1)), "number"),
    "support_vectors": (SVR(kernel="linear"), "number"),
    "linear_support_vectors": (LinearSVR(), "number"),
    "poisson": (PoissonRegressor(), "positive"),
    "gamma": (GammaRegressor(), "positive"),
    "tweedie": (TweedieRegressor(power=1.5), "positive"),
    "tweedie_identity": (TweedieRegressor(power=0), "number"),
    "network_regressor": (MLPRegressor(hidden_layer_sizes=(8, 5), max_iter=20, random_state=1), "number"),
    "network_poisson": (MLPRegressor(loss="poisson", max_iter=20, random_state=1), "positive"),
    "network_labels": (MLPClassifier((8,), max_iter=20, random_state=1), "two labels"),
    **{
        f"{name}_{classes.split()[0]}": (estimator, classes)
        for name, estimator in {
            "logistic": LogisticRegression(),
            "sgd_log": make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=1)),
            "sgd_modified_huber": SGDClassifier(loss="modified_huber", random_state=1),
            "sgd_hinge": SGDClassifier(random_state=1),
            "ridge": RidgeClassifier(),
            "support_vectors": LinearSVC(),
            "perceptron": Perceptron(),
            "discriminant": LinearDiscriminantAnalysis(),
            "network_relu": MLPClassifier((8, 5), max_iter=20, random_state=1),
            "network_tanh": MLPClassifier((8,), activation="tanh", max_iter=20, random_state=1),
            "network_logistic": MLPClassifier((8,), activation="logistic", max_iter=20, random_state=1),
        }.items()
        for classes in ("two classes", "three classes")
    },
}


def evaluate(estimator: Any, rows: Matrix, answer: Any, path: Path) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Margins and scores of the engine, and of the library, for every row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training stops early
        estimator.fit(rows, answer)
    exported = export_sklearn(estimator, path, rows)
    model = Model.from_bytes(exported.format, exported.file.read_bytes())
    golden = exported.golden
    alone = np.concatenate([model.margins(rows[row : row + 1], threads=1) for row in range(0, len(rows), 50)])
    margins = model.margins(rows, threads=1)
    np.testing.assert_allclose(alone, margins[::50], rtol=1e-12, atol=1e-13)
    return margins, model.scores(rows, threads=1), np.array(golden["margins"]), np.array(golden["scores"])


@pytest.mark.parametrize("case", [*TREES, *COMPLETE_TREES])
def test_trees_give_their_own_bits(case: str, tmp_path: Path) -> None:
    estimator, kind = {**TREES, **COMPLETE_TREES}[case]
    rows = missing_rows() if case in TREES else complete_rows()
    margins, scores, expected, answer = evaluate(estimator, rows, answers(rows)[kind], tmp_path / "model.safetensors")
    np.testing.assert_array_equal(margins, expected)
    np.testing.assert_array_max_ulp(scores, answer, maxulp=2)


@pytest.mark.parametrize("case", LINEAR)
def test_linear_models_and_networks_agree_within_their_bound(case: str, tmp_path: Path) -> None:
    estimator, kind = LINEAR[case]
    rows = complete_rows()
    margins, scores, expected, answer = evaluate(estimator, rows, answers(rows)[kind], tmp_path / "model.safetensors")
    np.testing.assert_allclose(margins, expected, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(scores, answer, rtol=1e-11, atol=1e-11)


def test_a_network_of_float32_agrees_within_its_bound(tmp_path: Path) -> None:
    rows = complete_rows()
    network = MLPRegressor(hidden_layer_sizes=(8, 5), max_iter=20, random_state=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training stops early
        network.fit(rows.astype(np.float32), answers(rows)["number"].astype(np.float32))
    exported = export_sklearn(network, tmp_path / "model.safetensors", rows)
    model = Model.from_bytes(exported.format, exported.file.read_bytes())
    np.testing.assert_allclose(model.margins(rows), np.array(exported.golden["margins"]), rtol=1e-5, atol=1e-5)


def columns(*transformers: Any, **options: Any) -> ColumnTransformer:
    return ColumnTransformer([(str(index), *part) for index, part in enumerate(transformers)], **options)


PIPELINES: dict[str, tuple[Any, str]] = {
    "imputer_with_indicator": (SimpleImputer(add_indicator=True), "missing"),
    "imputer_of_medians": (SimpleImputer(strategy="median"), "missing"),
    "imputer_of_modes": (SimpleImputer(strategy="most_frequent"), "missing"),
    "imputer_of_a_constant": (SimpleImputer(strategy="constant", fill_value=-7), "missing"),
    "imputer_of_a_marker": (SimpleImputer(missing_values=2.0, add_indicator=True), "complete"),
    "scalers": (make_pipeline(StandardScaler(), MinMaxScaler((-2, 3)), MaxAbsScaler(), RobustScaler()), "missing"),
    "scalers_in_part": (make_pipeline(StandardScaler(with_mean=False), RobustScaler(with_scaling=False)), "missing"),
    "scaler_with_clip": (MinMaxScaler(clip=True), "missing"),
    "norm": (make_pipeline(StandardScaler(), Normalizer("max"), StandardScaler()), "complete"),
    "one_hot": (columns((OneHotEncoder(sparse_output=False), [1, 2]), remainder="passthrough"), "missing"),
    "one_hot_dropped": (columns((OneHotEncoder(drop="first", sparse_output=False), [1])), "complete"),
    "one_hot_rare": (
        columns(
            (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=18, sparse_output=False), [2]),
            (OneHotEncoder(handle_unknown="ignore", max_categories=6, drop="first", sparse_output=False), [1, 2]),
        ),
        "missing",
    ),
    "ordinal": (columns((OrdinalEncoder(), [1, 2]), remainder=StandardScaler()), "missing"),
    "ordinal_unknown": (
        columns(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), [2]),
            (
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=99, min_frequency=20),
                [1, 2],
            ),
        ),
        "missing",
    ),
    "target_encoder": (columns((TargetEncoder(random_state=1), [1, 2])), "missing"),
    "bins": (
        columns(
            (KBinsDiscretizer(5, encode="ordinal", quantile_method="linear"), [0, 3]),
            (KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform"), slice(3, 5)),
        ),
        "complete",
    ),
    "polynomial": (make_pipeline(StandardScaler(), PolynomialFeatures(3), RobustScaler()), "complete"),
    "interactions": (PolynomialFeatures((2, 3), interaction_only=True, include_bias=False), "complete"),
    "selection": (make_pipeline(SelectKBest(k=3), "passthrough", StandardScaler()), "complete"),
    "union": (
        FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())], transformer_weights={"b": 0.3}),
        "missing",
    ),
    "nested": (
        columns(
            (make_pipeline(SimpleImputer(), columns((StandardScaler(), [0]), ("passthrough", [1]))), [0, 3]),
            ("drop", [4]),
            (FunctionTransformer(), [5]),
            transformer_weights={"0": 2.0},
        ),
        "missing",
    ),
}


@pytest.mark.parametrize("case", PIPELINES)
def test_what_a_pipeline_prepares_is_prepared_to_the_bit(case: str, tmp_path: Path) -> None:
    """A deep tree behind the transformers shows each column's bits."""
    transformer, kind = PIPELINES[case]
    rows = missing_rows() if kind == "missing" else complete_rows()
    estimator = make_pipeline(transformer, HistGradientBoostingRegressor(max_iter=15, min_samples_leaf=1))
    path = tmp_path / "model.safetensors"
    margins, _, expected, _ = evaluate(estimator, rows, answers(rows)["number"], path)
    np.testing.assert_array_equal(margins, expected)


@pytest.mark.parametrize("classes", ["two classes", "three classes"])
@pytest.mark.parametrize("loss", ["modified_huber", "log_loss"])
def test_the_link_is_that_of_the_loss_where_golden_rows_are_saturated(loss: str, classes: str, tmp_path: Path) -> None:
    rows = complete_rows()
    model = SGDClassifier(loss=loss, random_state=1).fit(rows * 1000, answers(rows)[classes])
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:5] * 1000)
    loaded = Model.from_bytes(exported.format, exported.file.read_bytes())
    near = rows / np.abs(model.coef_).max()
    expected = model.predict_proba(near)
    scores = loaded.scores(near)
    np.testing.assert_allclose(scores, expected[:, 1:] if scores.shape[1] == 1 else expected, rtol=1e-9, atol=1e-11)


def test_a_link_that_the_class_does_not_tell_is_found_near_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = complete_rows()
    model = SGDClassifier(loss="modified_huber", random_state=1).fit(rows * 1000, answers(rows)["two classes"])
    monkeypatch.delitem(CLASSIFIERS, "SGDClassifier")
    assert linear_link(model, rows[:5] * 1000, model.coef_, model.intercept_) == "modified_huber"
    nothing = np.zeros_like(model.coef_)
    monkeypatch.setattr(model, "coef_", nothing)  # the answers are all the same: 1, which several links give
    monkeypatch.setattr(model, "intercept_", np.array([100.0]))
    with pytest.raises(HeadraceError, match="which of the links"):
        linear_link(model, rows[:5], nothing, model.intercept_)


def test_columns_that_are_left_out_at_the_end_stay_out(tmp_path: Path) -> None:
    rows = complete_rows()
    answer = rows[:, 0] + 3 * rows[:, 1]
    model = make_pipeline(SelectKBest(f_regression, k=2), LinearRegression()).fit(rows, answer)
    assert list(model[0].get_support(indices=True)) == [0, 1]
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:5])
    loaded = Model.from_bytes(exported.format, exported.file.read_bytes())
    np.testing.assert_allclose(loaded.scores(rows)[:, 0], model.predict(rows), rtol=1e-11, atol=1e-11)


def test_a_pipeline_at_the_end_of_a_pipeline_is_taken_apart(tmp_path: Path) -> None:
    rows = complete_rows()
    inner = make_pipeline(Normalizer(), make_pipeline("passthrough", LogisticRegression()))
    model = make_pipeline(make_pipeline(StandardScaler(), PolynomialFeatures(2)), inner)
    model.fit(rows, answers(rows)["two classes"])
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:5])
    assert exported.task == "classification"
    loaded = Model.from_bytes(exported.format, exported.file.read_bytes())
    np.testing.assert_allclose(loaded.scores(rows)[:, 0], model.predict_proba(rows)[:, 1], rtol=1e-9, atol=1e-11)


def test_an_older_file_stays_where_an_export_is_refused(tmp_path: Path) -> None:
    rows = complete_rows()
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"older")
    with pytest.raises(HeadraceError):
        export_sklearn(SVC().fit(rows, answers(rows)["two classes"]), path, rows[:5])
    with pytest.raises(RuntimeError), replacing(path) as aside:
        aside.write_bytes(b"newer")
        raise RuntimeError
    assert path.read_bytes() == b"older"
    with replacing(path) as aside:
        aside.write_bytes(b"newer")
        assert path.read_bytes() == b"older"
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_sparse_coefficients_are_exported(tmp_path: Path) -> None:
    rows = complete_rows()
    model = LogisticRegression().fit(rows, answers(rows)["three classes"]).sparsify()
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:5])
    loaded = Model.from_bytes(exported.format, exported.file.read_bytes())
    np.testing.assert_allclose(loaded.scores(rows), model.predict_proba(rows), rtol=1e-9, atol=1e-11)


def test_unknown_categories_are_what_the_encoder_says(tmp_path: Path) -> None:
    rows = complete_rows()
    encoders = columns(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), [1]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-5), [2]),
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False), [2]),
    )
    model = make_pipeline(encoders, LinearRegression()).fit(rows, answers(rows)["number"])
    unseen = rows[:50].copy()
    unseen[::2, 1], unseen[::3, 2] = 77.0, -1.5
    exported = export_sklearn(model, tmp_path / "model.safetensors", unseen)
    loaded = Model.from_bytes(exported.format, exported.file.read_bytes())
    np.testing.assert_allclose(loaded.scores(unseen)[:, 0], model.predict(unseen), rtol=1e-11, atol=1e-11)


def test_a_frames_columns_are_found_by_name_and_the_engine_answers(tmp_path: Path) -> None:
    rows = missing_rows()
    names = ["length", "kind", "code", "width", "height", "spare"]
    frame = pandas.DataFrame(rows, columns=names)
    labels = np.array(["late", "on time"])[answers(rows)["two classes"]]
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    model = make_pipeline(
        columns((scaled, ["width", "length"]), (encoder, ["kind"]), remainder="drop"), LogisticRegression()
    ).fit(frame, labels)
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:40])
    assert exported.features == tuple(names)
    assert (exported.task, exported.labels) == ("classification", ("late", "on time"))
    draft = {
        "task": exported.task,
        "labels": exported.labels,
        "format": exported.format,
        "golden": exported.golden,
        "signature": {"features": [{"name": name, "dtype": "float64"} for name in names]},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "2026-01-01T00:00:00Z",
    }
    Model.create(tmp_path / "models", "arrivals", json.dumps(draft), exported.file.read_bytes())
    engine = _native.Engine()
    engine.add_model(tmp_path / "models" / "arrivals" / "1")
    asked = {name: [None if value != value else value for value in rows[:5, at]] for at, name in enumerate(names)}
    predictions = engine.predict("arrivals", features=asked)["predictions"]
    expected = model.predict_proba(frame[:5])
    found = [[prediction["scores"][label] for label in ("late", "on time")] for prediction in predictions]
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert [prediction["label"] for prediction in predictions] == list(model.predict(frame[:5]))


def test_what_has_no_counterpart_is_refused_by_name(tmp_path: Path) -> None:
    rows = complete_rows()
    answer = answers(rows)
    path = tmp_path / "model.safetensors"
    texts = rows.astype(object)
    texts[:, 1] = np.array(["a", "b"])[(rows[:, 1] > 2).astype(int)]

    class OwnScaler(StandardScaler):  # type: ignore[misc]
        """Somebody's own: what it does is not known."""

    class OwnRidge(Ridge):  # type: ignore[misc]
        def predict(self, rows: Any) -> Any:
            return np.maximum(super().predict(rows), -1e9)

    class OwnSelection(SelectKBest):  # type: ignore[misc]
        pass

    class Narrow(StandardScaler):  # type: ignore[misc]
        """What a scaler of another release could do: answer in float32."""

        def transform(self, rows: Any, copy: Any = None) -> Any:
            return super().transform(rows, copy).astype(np.float32)

    Narrow.__module__, Narrow.__name__ = "sklearn.preprocessing", "StandardScaler"
    flags = OneHotEncoder(dtype=np.float32, sparse_output=False)
    narrow_flags = columns((flags, [1]), remainder="passthrough")
    narrow_bins = KBinsDiscretizer(3, dtype=np.float32, encode="ordinal", strategy="uniform")
    with_text = make_pipeline(columns((OneHotEncoder(), [1])), LinearRegression()).fit(texts, answer["number"])
    number = answer["number"]
    cases: list[tuple[str, str, Any]] = [
        ("invalid_argument", "builtins.dict is not an estimator", {}),
        ("invalid_argument", "LinearRegression is not fitted", LinearRegression()),
        ("invalid_argument", "StandardScaler is not an estimator", StandardScaler().fit(rows)),
        ("unsupported_model", "the estimator is a SVC", SVC().fit(rows, answer["two classes"])),
        (
            "unsupported_model",
            "starts from a Ridge",
            GradientBoostingRegressor(n_estimators=2, init=Ridge()).fit(rows, number),
        ),
        (
            "unsupported_model",
            "has 2 targets",
            DecisionTreeClassifier(max_depth=2).fit(rows, answer["two labels"]),
        ),
        (
            "unsupported_model",
            "has a QuantileTransformer",
            make_pipeline(QuantileTransformer(n_quantiles=9), LinearRegression()).fit(rows, number),
        ),
        (
            "unsupported_model",
            "has a FunctionTransformer",
            make_pipeline(FunctionTransformer(np.abs), LinearRegression()).fit(rows, number),
        ),
        ("unsupported_model", "OwnScaler", make_pipeline(OwnScaler(), LinearRegression()).fit(rows, number)),
        ("unsupported_model", "OwnRidge", OwnRidge().fit(rows, number)),
        ("unsupported_model", "OwnRidge", make_pipeline(StandardScaler(), OwnRidge()).fit(rows, number)),
        (
            "unsupported_model",
            "OwnSelection",
            make_pipeline(OwnSelection(f_regression, k=2), Ridge()).fit(rows, number),
        ),
        *(
            (
                "unsupported_model",
                strategy,
                GradientBoostingClassifier(n_estimators=2, init=DummyClassifier(strategy=strategy)).fit(
                    rows, answer["two classes"]
                ),
            )
            for strategy in ("stratified", "uniform")
        ),
        (
            "unsupported_model",
            "OneHotEncoder answers in float32",
            make_pipeline(narrow_flags, Ridge()).fit(rows, number),
        ),
        (
            "unsupported_model",
            "KBinsDiscretizer answers in float32",
            make_pipeline(narrow_bins, Ridge()).fit(rows, number),
        ),
        (
            "unsupported_model",
            "StandardScaler answers in float32",
            make_pipeline(Narrow(), SelectKBest(f_regression, k=2), Ridge()).fit(rows, number),
        ),
        *(
            ("unsupported_model", "StandardScaler answers in float32", make_pipeline(beside, Ridge()).fit(rows, number))
            for beside in (
                columns((Narrow(), [0, 2]), (StandardScaler(), [1])),
                columns((make_pipeline(StandardScaler(), Narrow()), [0, 2]), remainder="passthrough"),
                FeatureUnion([("one", StandardScaler()), ("other", columns((Narrow(), [2]), (StandardScaler(), [1])))]),
            )
        ),
        ("unsupported_model", "'a', which is not a number", with_text),
    ]
    for code, message, model in cases:
        with pytest.raises(HeadraceError) as caught:
            export_sklearn(model, path, rows[:5])
        assert caught.value.code == code, caught.value
        assert message in caught.value.message
        assert caught.value.hint
    assert not path.exists()
    with pytest.raises(HeadraceError, match="golden rows have shape"):
        export_sklearn(Ridge().fit(rows, number), path, rows[:5, :3])
