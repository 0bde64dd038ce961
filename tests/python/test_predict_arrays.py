"""Answers in arrays, and models whose matrix the lookup fills by itself."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from headrace import Engine, FeatureStore, HeadraceError, Model
from headrace.export import export_sklearn

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
WIDE = 2**24 + 1
"""The first integer that no float32 is."""
DEFINITIONS = """
from datetime import timedelta

from headrace import *

user = Entity("user", join_keys=[Field("user_id", Int64)])
taste = FeatureView(
    "taste", [user], [Field("a", Float32), Field("b", Float32)], PushSource(event_ts="at"), ttl=timedelta(days=1)
)
count = FeatureView("count", [user], [Field("c", Int8)], PushSource(event_ts="at"))
total = FeatureView("total", [user], [Field("d", Int64)], PushSource(event_ts="at"))
narrow = FeatureService("narrow", [taste, count])
wide = FeatureService("wide", [taste, total])
"""
DTYPES = {"a": "float32", "b": "float32", "c": "int8", "d": "int64"}
WEIGHTS = {"a": 0.5, "b": -2.0, "c": 1.0, "d": 1.0}


@pytest.fixture
def root(make_project: Callable[..., Path]) -> Path:
    return make_project(DEFINITIONS)


@pytest.fixture
def store(root: Path) -> Iterator[FeatureStore]:
    now_us = int((START + dt.timedelta(hours=2)).timestamp()) * 1_000_000
    with FeatureStore(root, clock=lambda: now_us) as store:
        store.apply()
        days = [START, START, START - dt.timedelta(days=3)]
        times = pa.array(days, pa.timestamp("us", "UTC"))
        keys = [1, 2, 4]
        taste = {"a": pa.array([1.5, None, 1.0], pa.float32()), "b": pa.array([0.25, 1.0, 1.0], pa.float32())}
        store.push("taste", pa.table({"user_id": keys, "at": times, **taste}))
        store.push("count", pa.table({"user_id": keys, "at": times, "c": pa.array([3, 4, 5], pa.int8())}))
        store.push("total", pa.table({"user_id": keys, "at": times, "d": [WIDE, 8, 9]}))
        yield store


def register(root: Path, name: str, features: str, service: str | None, task: str = "classification") -> None:
    """A linear model of some features, in this order."""
    weights = [WEIGHTS[feature] for feature in features]
    link = "logistic" if task == "classification" else "identity"
    margin = sum(weights)
    score = 1 / (1 + np.exp(-margin)) if task == "classification" else margin
    draft = {
        "task": task,
        "labels": ["no", "yes"] if task == "classification" else None,
        "format": "linear-json",
        "golden": {"features": [[1.0] * len(weights)], "margins": [[margin]], "scores": [[score]]},
        "signature": {
            "service": service,
            "features": [{"name": feature, "dtype": DTYPES[feature]} for feature in features],
            "join_keys": [{"name": "user_id", "dtype": "int64"}] if service else [],
        },
        "trainer": {"library": "test", "version": "1"},
        "created_at": "2013-01-01T00:00:00Z",
    }
    model = {"format": 1, "weights": [weights], "intercept": [0.0], "link": link}
    Model.create(root / ".headrace/models", name, json.dumps(draft), json.dumps(model).encode())


@pytest.fixture
def engine(root: Path, store: FeatureStore) -> Engine:
    for name, features in {"forward": "abc", "backward": "cba", "part": "ab"}.items():
        register(root, name, features, "narrow")
    register(root, "wide", "abd", "wide", "regression")
    register(root, "given", "ab", None)
    return Engine(store, clock_us=START + dt.timedelta(hours=2))


def test_a_model_of_a_whole_service_answers_as_one_of_its_columns(engine: Engine) -> None:
    keys = [1, 2, 3, 4, 1]
    plain = engine.predict_arrays("forward", entities={"user_id": keys}, outputs=["margin", "label"])
    turned = engine.predict_arrays("backward", entities={"user_id": keys}, outputs=["margin", "label"])
    np.testing.assert_array_equal(plain["margins"], turned["margins"])
    assert plain["margins"][0] == plain["margins"][4] == 0.5 * 1.5 - 2.0 * 0.25 + 3.0
    assert plain["labels"].tolist() == turned["labels"].tolist() == [1, -1, -1, -1, 1]
    assert {row: error.code for row, error in plain["errors"].items()} == dict.fromkeys([1, 2, 3], "invalid_argument")
    assert list(turned["errors"]) == [1, 2, 3], "null, unknown, older than the ttl"


def test_an_integer_that_no_float32_holds_reaches_the_model(engine: Engine) -> None:
    found = engine.predict_arrays("wide", entities={"user_id": [1]})
    assert found["scores"].tolist() == [[0.5 * 1.5 - 2.0 * 0.25 + WIDE]]
    assert "labels" not in found
    assert found["classes"] == []


def test_arrays_say_what_predict_says(engine: Engine) -> None:
    ask: dict[str, Any] = {"entities": {"user_id": [1, 3, None, "x"]}, "outputs": ["label", "scores", "margin"]}
    for model in ("forward", "backward", "part"):
        found, rows = engine.predict_arrays(model, **ask), engine.predict(model, **ask)["predictions"]
        assert found["scores"].shape == (4, 2)
        assert found["margins"].shape == (4, 1)
        assert found["model_version"] == 1
        for row, told in enumerate(rows):
            error = found["errors"].get(row)
            assert told.get("status", {}).get("code") == (error.code if error else None)
            if error is None:
                assert dict(zip(found["classes"], found["scores"][row], strict=True)) == told["scores"]
                assert found["classes"][found["labels"][row]] == told["label"]
                assert found["margins"][row, 0] == told["margin"]
            else:
                assert np.isnan(found["scores"][row]).all()


def test_a_given_feature_replaces_what_the_lookup_would_find(engine: Engine) -> None:
    given: dict[str, Any] = {"entities": {"user_id": [1, 3]}, "features": {"b": [1.0, 1.0]}, "outputs": ["margin"]}
    forward, backward = engine.predict_arrays("forward", **given), engine.predict_arrays("backward", **given)
    np.testing.assert_array_equal(forward["margins"], backward["margins"])
    assert forward["margins"][0] == 0.5 * 1.5 - 2.0 + 3.0


def test_an_explanation_after_a_lookup_into_the_matrix(engine: Engine) -> None:
    for _ in range(2):
        (told,) = engine.predict("forward", entities={"user_id": [1]}, explain=True)["predictions"]
        assert told["explanation"]["contributions"] == {"a": 0.75, "b": -0.5, "c": 3.0}
        engine.predict_arrays("forward", entities={"user_id": [2, 2, 2]})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", ">f4"])
def test_arrays_of_any_type_of_numbers_are_taken(engine: Engine, dtype: str) -> None:
    values = np.array([2, 4, 6, 8]).astype(dtype)
    for column in (values, values[::2], values[::-1]):
        found = engine.predict_arrays("given", features={"a": column, "b": column}, outputs=["margin"])
        assert found["margins"][:, 0].tolist() == [-1.5 * float(value) for value in column]


def test_keys_of_a_numpy_array(engine: Engine) -> None:
    keys = np.array([1, 3, 1])
    listed = engine.predict_arrays("forward", entities={"user_id": keys.tolist()})
    np.testing.assert_array_equal(
        engine.predict_arrays("forward", entities={"user_id": keys})["scores"], listed["scores"]
    )
    assert engine.predict_arrays("forward", entities={"user_id": keys[:0]})["scores"].shape == (0, 2)
    with pytest.raises(HeadraceError, match="'user_id'"):
        engine.predict_arrays("forward", entities={"user_id": np.array(1)})
    failed = engine.predict_arrays("forward", entities={"user_id": keys + 0.5})
    assert [error.code for error in failed["errors"].values()] == ["type_mismatch"] * 3


def test_texts_go_in_as_they_are(root: Path, store: FeatureStore, tmp_path: Path) -> None:
    rows = pandas.DataFrame({"place": ["JFK", "EWR", "LGA", "JFK"] * 5, "size": np.arange(20.0)})
    pipeline = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["place"]), remainder="passthrough"), LinearRegression()
    ).fit(rows, np.arange(20.0) % 7)
    exported = export_sklearn(pipeline, tmp_path / "place.safetensors", golden=rows[:8])
    store.register_model("place", exported)
    with Engine(store, clock_us=START) as engine:
        asked: dict[str, Any] = {"features": {"place": ["LGA", "XXX", "JFK"], "size": np.array([1.0, 2.0, 3.0])}}
        found = engine.predict_arrays("place", **asked)
    assert list(found["errors"]) == [1]
    assert "'XXX'" in str(found["errors"][1])
    expected = pipeline.predict(pandas.DataFrame({"place": ["LGA", "JFK"], "size": [1.0, 3.0]}))
    np.testing.assert_allclose(found["scores"][[0, 2], 0], expected, rtol=1e-12)


def test_what_a_masked_array_hides_is_not_looked_up(engine: Engine) -> None:
    keys = np.ma.array([1, 1], mask=[False, True])
    found = engine.predict_arrays("forward", entities={"user_id": keys})
    listed = engine.predict_arrays("forward", entities={"user_id": [1, None]})
    np.testing.assert_array_equal(found["scores"], listed["scores"])
    assert list(found["errors"]) == [1]


def test_rows_without_a_request_id_get_one_in_the_payload_log(root: Path, store: FeatureStore) -> None:
    register(root, "forward", "abc", "narrow")
    (root / "headrace.toml").write_text('[project]\nname = "project"\n[payload]\nsample = 1.0\n')
    with FeatureStore(root, clock=lambda: START) as reader, Engine(reader, clock_us=START) as engine:
        for _ in range(2):
            engine.predict_arrays("forward", entities={"user_id": [1]})
        engine.flush_payload()
    written = pa.concat_tables([pq.read_table(path) for path in (root / ".headrace" / "payload").glob("*/*/*.parquet")])
    ids = written["request_id"].to_pylist()
    assert len(set(ids)) == 2
    assert all(ids)
