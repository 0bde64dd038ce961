"""Models of texts: each library's pipeline of text categories, exported, and evaluated by the engine's codes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas
import polars
import pyarrow as pa
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.tree import DecisionTreeRegressor

from headrace import HeadraceError, Model
from headrace.export import (
    ExportedModel,
    export_catboost,
    export_lightgbm,
    export_sklearn,
    export_xgboost,
)
from headrace_control.cli.profile import draw_texts, rows_to_predict
from headrace_control.explanations import explain_file
from headrace_control.named_models import open_model
from headrace_control.row_files import RowFile

Frame = pandas.DataFrame
Floats = NDArray[np.float64]

PLACES = ["", "Zürich", "JFK", "naïve café", "東京", "a" * 70, "e\u0301", "\u00e9", "🚲 bike", "New York, NY"]
ASCII = ["", "JFK", "a" * 70, "New York, NY", 'quote"d', "nan", "None", "0"]
UNSEEN = "never seen"


def frame(rows: int = 400, places: list[str] | None = None, seed: int = 1) -> Frame:
    """Two columns of text, one of whole numbers and one of floats."""
    random = np.random.default_rng(seed)
    return Frame(
        {
            "place": pandas.Series(random.choice(places or PLACES, rows), dtype=object),
            "size": random.normal(size=rows),
            "kind": pandas.Series(random.choice(["x", "y", "z"], rows, p=[0.7, 0.29, 0.01]), dtype=object),
            "month": random.integers(0, 12, rows).astype(float),
        }
    )


def number(rows: Frame) -> Floats:
    values = {place: float(index) for index, place in enumerate(PLACES + ASCII)}
    known = rows["place"].astype(object).map(values).fillna(3.5)
    total = known + rows["size"] + 2 * (rows["kind"] == "y") + rows["month"].astype(float) / 6
    return np.asarray(total, dtype=np.float64)


def label(rows: Frame) -> NDArray[np.int64]:
    return (number(rows) > np.median(number(rows))).astype(np.int64)


def with_nulls(rows: Frame, share: float = 0.1) -> Frame:
    rows = rows.copy()
    random = np.random.default_rng(7)
    for name in ("place", "kind"):
        rows.loc[random.random(len(rows)) < share, name] = None
    return rows


def with_unseen(rows: Frame) -> Frame:
    rows = rows.copy()
    rows.loc[::7, "place"] = UNSEEN
    rows.loc[::11, "kind"] = ""
    return rows


def loaded(exported: ExportedModel) -> Model:
    return Model.from_bytes(exported.format, exported.file.read_bytes())


def registered(exported: ExportedModel, models: Path, texts: tuple[str, ...] = ("place", "kind")) -> Model:
    """The version that `ModelFolder` makes of it, once its golden rows are reproduced."""
    names = exported.features or ("place", "size", "kind", "month")
    fields = [{"name": name, "dtype": "string" if name in texts else "float64"} for name in names]
    draft = {
        "task": exported.task,
        "labels": exported.labels,
        "format": exported.format,
        "golden": exported.golden,
        "signature": {"features": fields},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "2026-01-01T00:00:00Z",
    }
    return Model.create(models, "texts", json.dumps(draft), exported.file.read_bytes())


def forms(rows: Frame) -> dict[str, Any]:
    """The same rows in each form that a model takes."""
    objects = rows.astype(object).where(rows.notna(), None)
    columns = {name: objects[name].tolist() for name in rows}
    return {
        "pandas": rows,
        "pandas categories": rows.astype({"place": "category", "kind": "category"}),
        "pandas strings": rows.astype({"place": "str", "kind": "str"}),
        "objects": objects.to_numpy(),
        "lists": objects.to_numpy().tolist(),
        "dict": columns,
        "arrow": pa.table(columns),
        "arrow dictionaries": pa.table({**columns, "place": pa.array(columns["place"]).dictionary_encode()}),
        "polars": polars.DataFrame(columns),
    }


def agree(model: Model, rows: Frame, margins: Any, tolerance: float = 0.0) -> None:
    expected = np.asarray(margins, dtype=np.float64).reshape(len(rows), -1)
    for name, form in forms(rows).items():
        found = model.margins(form)
        assert np.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True), name
        if not tolerance:
            assert np.array_equal(found, expected, equal_nan=True), name
    assert np.array_equal(model.margins(model.encode(rows)), model.margins(rows))


TEXTS = ["place", "kind"]


def encode(*steps: Any, rest: Any = "passthrough") -> ColumnTransformer:
    return make_column_transformer((make_pipeline(*steps) if len(steps) > 1 else steps[0], TEXTS), remainder=rest)


def ignoring(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", **options)


ENCODERS: dict[str, Callable[[], ColumnTransformer]] = {
    "one-hot": lambda: encode(ignoring()),
    "one-hot dropping the first": lambda: encode(ignoring(drop="first")),
    "one-hot of frequent ones": lambda: encode(OneHotEncoder(min_frequency=30, handle_unknown="infrequent_if_exist")),
    "one-hot of so many": lambda: encode(OneHotEncoder(max_categories=4, handle_unknown="infrequent_if_exist")),
    "one-hot of some, others ignored": lambda: encode(ignoring(max_categories=4)),
    "codes": lambda: encode(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-7)),
    "codes, of missing ones too": lambda: encode(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-7, encoded_missing_value=-3)
    ),
    "codes of frequent ones": lambda: encode(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=99, max_categories=5)
    ),
    "means of the target": lambda: encode(TargetEncoder()),
    "both": lambda: encode(FeatureUnion([("flags", ignoring()), ("means", TargetEncoder())]), rest=StandardScaler()),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_of_text(name: str, tmp_path: Path) -> None:
    rows = frame()
    tree = make_pipeline(ENCODERS[name](), DecisionTreeRegressor(random_state=1)).fit(rows, number(rows))
    line = make_pipeline(ENCODERS[name](), Ridge()).fit(rows, number(rows))
    asked = with_unseen(frame(90, seed=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that unknown categories are encoded as told
        exported = export_sklearn(tree, tmp_path / "tree.safetensors", asked[:40])
        agree(loaded(exported), asked, tree.predict(asked))
        agree(registered(exported, tmp_path / "models"), asked, tree.predict(asked))
        exported = export_sklearn(line, tmp_path / "line.safetensors", asked[:40])
        agree(loaded(exported), asked, line.predict(asked), 1e-12)


MISSING: dict[str, Callable[[], ColumnTransformer]] = {
    "one-hot": lambda: encode(ignoring()),
    "codes": lambda: encode(
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-7, encoded_missing_value=-3)
    ),
    "means": lambda: encode(TargetEncoder()),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_text_is_a_category_where_the_library_takes_it_for_one(name: str, tmp_path: Path) -> None:
    rows, asked = with_nulls(frame()), with_nulls(with_unseen(frame(90, seed=3)))
    model = make_pipeline(MISSING[name](), DecisionTreeRegressor(random_state=1)).fit(rows, number(rows))
    exported = export_sklearn(model, tmp_path / "model.safetensors", asked[:30])
    agree(loaded(exported), asked, model.predict(asked))


@pytest.mark.parametrize(
    "imputer",
    [
        SimpleImputer(strategy="most_frequent"),
        SimpleImputer(strategy="constant", fill_value="<none>"),
        SimpleImputer(strategy="constant", fill_value="<none>", add_indicator=True),
    ],
)
def test_missing_texts_are_filled(imputer: SimpleImputer, tmp_path: Path) -> None:
    def nan(rows: Frame) -> Frame:  # what the imputer takes for missing
        return rows.astype({"place": "object", "kind": "object"}).where(rows.notna(), np.nan)

    rows, asked = nan(with_nulls(frame())), nan(with_nulls(with_unseen(frame(90, seed=3))))
    model = make_pipeline(encode(imputer, ignoring()), DecisionTreeRegressor(random_state=1)).fit(rows, number(rows))
    exported = export_sklearn(model, tmp_path / "model.safetensors", asked[:30])
    agree(loaded(exported), asked, model.predict(asked))


def test_a_category_that_the_encoder_refuses_is_named(tmp_path: Path) -> None:
    rows = frame()
    model = make_pipeline(encode(OneHotEncoder()), LinearRegression()).fit(rows, number(rows))
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:30])
    engine = registered(exported, tmp_path / "models")
    agree(engine, rows[:60], model.predict(rows[:60]), 1e-12)
    for wrong, told in ((UNSEEN, "'never seen'"), (None, "null")):
        asked = rows[:3].copy()
        asked.loc[1, "place"] = wrong
        with pytest.raises(ValueError, match="unknown categories"):
            model.predict(asked)
        with pytest.raises(HeadraceError, match=f"row 1 of 'place': {told} is no category"):
            engine.margins(asked)


def test_objects_without_names(tmp_path: Path) -> None:
    rows, asked = frame().to_numpy(dtype=object), with_unseen(frame(50, seed=2)).to_numpy(dtype=object)
    steps = ColumnTransformer([("text", ignoring(), [0, 2])], remainder="drop")
    model = make_pipeline(steps, LogisticRegression()).fit(rows, label(frame()))
    exported = export_sklearn(model, tmp_path / "model.safetensors", asked[:20])
    engine = loaded(exported)
    assert np.allclose(engine.margins(asked)[:, 0], model.decision_function(asked), rtol=1e-12, atol=1e-12)
    assert engine.margins(asked[0]).shape == (1, 1)
    assert engine.text_features == [0, 2] and engine.categories(1) is None
    assert sorted(engine.categories(0) or []) == sorted(PLACES)


def test_histogram_boosting_of_categories(tmp_path: Path) -> None:
    rows = with_nulls(frame()).astype({"place": "category", "kind": "category"})
    model = HistGradientBoostingClassifier(max_iter=8, random_state=1).fit(rows, label(rows))
    asked = with_nulls(frame(80, seed=5)).astype({"place": rows["place"].dtype, "kind": rows["kind"].dtype})
    exported = export_sklearn(model, tmp_path / "model.safetensors", asked[:30])
    agree(loaded(exported), asked, model.decision_function(asked))


def test_forests_of_text_are_explained_by_the_column_that_was_given(tmp_path: Path) -> None:
    rows = frame()
    forest = RandomForestClassifier(n_estimators=5, max_depth=4, random_state=1)
    model = make_pipeline(encode(ignoring()), forest).fit(rows, label(rows))
    engine = loaded(export_sklearn(model, tmp_path / "model.safetensors", rows[:30]))
    values = engine.contributions(rows[:20])
    assert values.shape == (20, 5) and np.abs(values[:, 0]).max() > 0
    assert np.allclose(values.sum(axis=1), engine.margins(rows[:20])[:, 0])


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((ColumnTransformer([("t", ignoring(), ["kind"])], remainder="passthrough"),), "input 'place' is text"),
        ((ColumnTransformer([("t", ignoring(), ["kind"])], remainder=Normalizer()),), "reaches a step"),
    ],
)
def test_text_that_reaches_a_step_of_numbers_is_refused_by_name(
    steps: tuple[Any, ...], told: str, tmp_path: Path
) -> None:
    rows = frame()
    rows["place"] = np.random.default_rng(1).choice(["1", "2"], len(rows))  # texts that the library takes for numbers
    model = make_pipeline(*steps, LinearRegression()).fit(rows, number(rows))
    with pytest.raises(HeadraceError, match=told):
        export_sklearn(model, tmp_path / "model.safetensors", rows[:10])


def test_none_beside_nan_is_refused_by_name(tmp_path: Path) -> None:
    rows = with_nulls(frame())
    rows.loc[3:9, "kind"] = np.nan
    model = make_pipeline(encode(ignoring()), LinearRegression()).fit(rows, number(rows))
    with pytest.raises(HeadraceError, match="both None and NaN"):
        export_sklearn(model, tmp_path / "model.safetensors", rows[:20])


def categories(rows: Frame) -> Frame:
    kinds = pandas.CategoricalDtype(["z", "y", "x"], ordered=True)
    return rows.astype({"place": "category", "kind": kinds, "month": "category"})


@pytest.mark.parametrize("has_ordered", [False, True])
def test_lightgbm(has_ordered: bool, tmp_path: Path) -> None:
    """An ordered column has codes, and splits as numbers do: the file alone would not say which column is which."""
    rows = categories(with_nulls(frame()))
    if not has_ordered:
        rows["kind"] = rows["kind"].astype(pandas.CategoricalDtype(["z", "y", "x"]))
    model = lightgbm.LGBMRegressor(n_estimators=12, num_leaves=15, min_child_samples=3, verbose=-1)
    model.fit(rows, number(rows))
    asked = with_nulls(with_unseen(frame(90, seed=3)))
    given = asked.astype({"place": "category", "kind": "category", "month": rows["month"].dtype})
    expected = model.booster_.predict(given, raw_score=True)
    exported = export_lightgbm(model, tmp_path / "model.txt", given[:40])
    codes = asked.assign(month=given["month"].cat.codes.astype(float))  # whole numbers are given as their codes
    agree(loaded(exported), codes, expected)
    agree(registered(exported, tmp_path / "models"), codes, expected)
    again = lightgbm.Booster(model_file=exported.file)
    assert np.array_equal(again.predict(given, raw_score=True), expected)
    plain = Model.from_bytes("lightgbm-text", model.booster_.model_to_string().encode())
    assert not plain.text_features  # LightGBM's own file does not say which features its categories belong to


def columns_of_categories(exported: ExportedModel) -> list[str]:
    lines = exported.file.read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("headrace_category_columns:")]


def test_lightgbm_finds_the_columns_of_golden_rows_by_name(tmp_path: Path) -> None:
    rows = frame().drop(columns="month").rename(columns={"place": "the place"})
    rows = rows.astype({"the place": "category", "kind": "category"})
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1).fit(rows, number(frame()))
    mixed = rows[["size", "the place", "kind"]].assign(more=1.0)[:20]
    exported = export_lightgbm(model, tmp_path / "model.txt", mixed)
    assert exported.golden["features"] == rows[:20].astype(object).to_numpy().tolist()
    assert columns_of_categories(exported) == ["headrace_category_columns:0,2"]
    engine = registered(exported, tmp_path / "models", ("the_place", "kind"))
    assert np.array_equal(engine.margins(rows.to_numpy())[:, 0], model.booster_.predict(rows))
    with pytest.raises(HeadraceError, match="no column 'kind'"):
        export_lightgbm(model, tmp_path / "model.txt", mixed.drop(columns="kind"))
    with pytest.raises(
        HeadraceError, match=r"columns \[1, 2\] of the golden rows hold categories, the model's are \[0, 2\]"
    ):
        export_lightgbm(model, tmp_path / "model.txt", mixed.to_numpy()[:, :3])


def test_lightgbm_rows_of_objects(tmp_path: Path) -> None:
    rows = frame().drop(columns="month").astype({"place": "category", "kind": "category"})
    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(rows, label(frame()))
    exported = export_lightgbm(model, tmp_path / "model.txt", with_unseen(frame(20)).to_numpy()[:, :3])
    expected = model.booster_.predict(rows, raw_score=True)
    assert np.array_equal(loaded(exported).margins(rows)[:, 0], expected)
    with pytest.raises(HeadraceError, match="trained on 2"):
        export_lightgbm(model, tmp_path / "model.txt", frame(20).assign(size="big").to_numpy()[:, :3])


@pytest.mark.parametrize("booster", ["gbtree", "dart"])
@pytest.mark.parametrize("ending", ["json", "ubj"])
def test_xgboost(ending: str, booster: str, tmp_path: Path) -> None:
    rows = categories(frame(places=ASCII))
    rows["month"] = rows["month"].astype(int).astype("category")
    options: dict[str, Any] = {"n_estimators": 10, "max_depth": 5, "enable_categorical": True, "booster": booster}
    model = xgboost.XGBClassifier(**options, max_cat_to_onehot=3).fit(rows, label(frame(places=ASCII)))
    asked = with_nulls(frame(90, ASCII, seed=3))
    given = asked.astype({"place": rows["place"].dtype, "kind": rows["kind"].dtype})
    given["month"] = given["month"].astype(int).astype(rows["month"].dtype)
    expected = model.predict(given, output_margin=True)
    exported = export_xgboost(model, tmp_path / f"model.{ending}", given[:40])
    agree(loaded(exported), asked, expected)  # months are their own codes
    engine = registered(exported, tmp_path / "models")
    agree(engine, asked, expected)
    asked.loc[4, "place"] = UNSEEN
    with pytest.raises(HeadraceError, match="row 4 of 'place': 'never seen' is no category"):
        engine.margins(asked)


def test_xgboost_categories_that_its_file_cuts_short_are_refused(tmp_path: Path) -> None:
    rows = frame().astype({"place": "category", "kind": "category"})
    model = xgboost.XGBRegressor(n_estimators=3, enable_categorical=True).fit(rows, number(frame()))
    with pytest.raises(HeadraceError, match="not ASCII"):
        export_xgboost(model, tmp_path / "model.ubj", rows[:20])
    codes = frame(20).assign(place=0.0, kind=1.0)
    engine = loaded(export_xgboost(model, tmp_path / "model.ubj", codes))
    assert engine.text_features == [2] and engine.categories(0) is None


@pytest.mark.parametrize("grow_policy", ["SymmetricTree", "Depthwise"])
def test_catboost(grow_policy: str, tmp_path: Path) -> None:
    rows = with_nulls(frame(places=PLACES + ASCII), 0.03)
    rows = rows.assign(month=rows["month"].astype(int))
    given = rows.assign(**{name: rows[name].fillna("nan") for name in TEXTS})
    options: dict[str, Any] = {"iterations": 20, "depth": 4, "one_hot_max_size": 200, "grow_policy": grow_policy}
    features = ["place", "kind", "month"]
    model = catboost.CatBoostRegressor(**options, cat_features=features, verbose=0, allow_writing_files=False)
    model.fit(given, number(rows))
    asked = with_nulls(with_unseen(frame(120, PLACES + ASCII, seed=3)))
    known = asked.assign(**{name: asked[name].fillna("nan") for name in TEXTS}, month=asked["month"].astype(int))
    exported = export_catboost(model, tmp_path / "model.json", asked[:60])
    agree(loaded(exported), asked, model.predict(known))
    engine = registered(exported, tmp_path / "models")
    agree(engine, asked, model.predict(known))
    assert engine.categories(0) is None and engine.text_features == [0, 2, 3]


def test_catboost_finds_the_columns_of_golden_rows_by_name(tmp_path: Path) -> None:
    rows = frame().drop(columns="month")
    options: dict[str, Any] = {"iterations": 5, "one_hot_max_size": 99, "verbose": 0, "allow_writing_files": False}
    model = catboost.CatBoostRegressor(**options, cat_features=list(TEXTS)).fit(rows, number(frame()))
    expected = rows[:20].astype(object).to_numpy().tolist()
    mixed = rows[["kind", "size", "place"]][:20]
    assert export_catboost(model, tmp_path / "model.json", mixed).golden["features"] == expected
    with pytest.raises(HeadraceError, match="no column 'size'"):
        export_catboost(model, tmp_path / "model.json", mixed.drop(columns="size"))
    unnamed = catboost.CatBoostRegressor(**options, cat_features=[0, 2]).fit(rows.to_numpy(), number(frame()))
    assert export_catboost(unnamed, tmp_path / "model.json", rows[:20]).golden["features"] == expected


@pytest.mark.parametrize("length", [1, 3, 4, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 300])
def test_catboost_texts_of_any_length(length: int, tmp_path: Path) -> None:
    """The file knows a text by a hash, which takes another way for each of these lengths."""
    texts = [chr(97 + place // 2) * (length - 1) + chr(97 + place) for place in range(6)]
    random = np.random.default_rng(length)
    column = random.choice(texts, 200)
    answers = np.array([texts.index(text) for text in column]) + random.normal(size=200) / 10
    rows = Frame({"text": pandas.Series(column, dtype=object)})
    options: dict[str, Any] = {"iterations": 8, "one_hot_max_size": 50, "cat_features": [0], "verbose": 0}
    model = catboost.CatBoostRegressor(**options, allow_writing_files=False).fit(rows, answers)
    exported = export_catboost(model, tmp_path / "model.json", rows[:60])
    assert np.array_equal(loaded(exported).margins(rows)[:, 0], model.predict(rows))
    assert len(set(model.predict(rows))) > 3


def test_wrong_rows_are_named(tmp_path: Path) -> None:
    rows = frame()
    model = make_pipeline(encode(ignoring()), LinearRegression()).fit(rows, number(rows))
    engine = registered(export_sklearn(model, tmp_path / "model.safetensors", rows[:30]), tmp_path / "models")
    wrong: list[tuple[Any, str]] = [
        (rows.drop(columns="kind"), "no column 'kind'"),
        (rows.assign(kind=3), "column 'kind' is Int64"),
        (rows.assign(size="big"), "column 'size'"),
        ({"place": ["JFK"], "size": ["big"], "kind": ["x"], "month": [1]}, "row 0 of 'size' is 'big'"),
        ({"place": [5], "size": [1], "kind": ["x"], "month": [1]}, "row 0 of 'place' is 5, the model takes text"),
        ({"place": ["JFK"], "size": [1, 2], "kind": ["x"], "month": [1]}, "'size' has 2 rows"),
        ([["JFK", 1.0, "x"]], r"shape \[1, 3\]"),
    ]
    for given, told in wrong:
        with pytest.raises(HeadraceError, match=told):
            engine.margins(given)
    assert engine.margins(rows[:0]).shape == (0, 1)


def test_texts_of_a_file_of_rows_are_explained_and_profiled(tmp_path: Path) -> None:
    rows = frame()
    model = make_pipeline(encode(ignoring()), Ridge()).fit(rows, number(rows))
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:5])
    registered(exported, tmp_path / ".headrace" / "models")
    (tmp_path / "headrace.toml").write_text("", "utf-8")
    named = open_model(tmp_path, "texts")
    source, target = tmp_path / "rows.parquet", tmp_path / "contributions.parquet"
    rows.to_parquet(source)
    explain_file(named, source, target)
    first = RowFile(source, named.features).first(3)
    assert isinstance(first, Frame) and first.astype(object).equals(rows[:3].astype(object))
    assert np.array_equal(RowFile(source, ["size", "month"]).first(3), rows[:3][["size", "month"]])
    written = pandas.read_parquet(target)
    assert np.allclose(written["__margin"], model.predict(rows))
    golden = rows_to_predict(named, None)
    assert np.array_equal(golden, named.model.encode(rows[:5]))
    drawn = np.repeat(golden, 100, axis=0)
    draw_texts(named.model, drawn)
    assert set(drawn[:, 0]) == set(named.model.codes(0) or []) and np.array_equal(drawn[:5, 1], golden[[0] * 5, 1])


def test_a_file_of_numbers_keeps_its_format(tmp_path: Path) -> None:
    rows = frame()[["size", "month"]]
    exported = export_sklearn(LinearRegression().fit(rows, rows["size"]), tmp_path / "model.safetensors", rows[:5])
    assert b'\\"format\\": 1' in exported.file.read_bytes()


def test_golden_rows_that_are_wrong_are_named(tmp_path: Path) -> None:
    rows = frame()
    model = make_pipeline(encode(ignoring()), LinearRegression()).fit(rows, number(rows))
    wrong: list[tuple[Any, str]] = [
        (rows[:5].drop(columns="kind"), "no column 'kind'"),
        (rows[:5].assign(size=[b"bytes"] * 5), "neither a number nor a text"),
        (rows[:5].assign(kind=["x", "y", 3, "x", "y"]), "column 2 of the golden rows holds texts, and the number 3"),
        (rows[:5].assign(size=np.inf), "infinite"),
        (rows[:5].to_numpy()[:, :3], r"shape \(5, 3\)"),
    ]
    for golden, told in wrong:
        with pytest.raises(HeadraceError, match=told):
            export_sklearn(model, tmp_path / "model.safetensors", golden)
