"""From an exporter to an answer: `FeatureStore.register_model`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest

from headrace import Engine, FeatureStore, HeadraceError
from headrace.export import ExportedModel, export_lightgbm

NOW = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
DEFINITIONS = """
from headrace import *

user = Entity("user", join_keys=[Field("user_id", Int64)])
taste = FeatureView(
    "taste", [user], [Field("a", Float32), Field("b", Float64), Field("c", Int64)], PushSource(event_ts="at")
)
hour = OnDemandFeatureView(
    "hour", inputs=[Field("asked", Timestamp)], schema=[Field("hour", Int64, col("asked").dt.hour())]
)
stored = FeatureService("stored", [taste])
computed = FeatureService("computed", [taste, hour])
"""
ROWS = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32).astype(np.float64)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    root = tmp_path / "shop"
    (root / "features").mkdir(parents=True)
    (root / "headrace.toml").write_text('[project]\nname = "shop"\n')
    (root / "features" / "all.py").write_text(DEFINITIONS)
    with FeatureStore(root, clock=lambda: NOW) as store:
        store.apply()
        values = {name: pa.array(ROWS[:2, at]) for at, name in enumerate("ab")}
        store.push("taste", pa.table({"user_id": [1, 2], "at": [NOW, NOW], **values, "c": [3, 4]}))
        yield store


def trained(tmp_path: Path, names: list[str] | None, columns: int = 3) -> tuple[lightgbm.Booster, ExportedModel]:
    data = lightgbm.Dataset(ROWS[:, :columns], ROWS[:, 0] > ROWS[:, 1], feature_name=names or "auto")
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, data, 5)
    return booster, export_lightgbm(booster, tmp_path / "trees.txt", golden=ROWS[:8, :columns])


def margin(found: dict[str, Any]) -> float:
    (row,) = found["predictions"]
    return float(row["margin"])


@pytest.mark.parametrize("names", [None, ["a", "b", "c"], ["c", "a", "b"]])
def test_a_registered_model_is_asked_by_its_keys(store: FeatureStore, tmp_path: Path, names: list[str] | None) -> None:
    booster, exported = trained(tmp_path, names)
    model = store.register_model("late", exported, "stored", labels=["no", "yes"], metrics={"auc": 0.7})
    assert (model.name, model.version) == ("late", 1)
    manifest = json.loads(model.manifest or "")
    assert manifest["labels"] == ["no", "yes"]
    assert manifest["metrics"] == {"auc": 0.7}
    assert manifest["signature"]["plan_digest"] == store.applied.digest
    known = {"a": ROWS[1, 0], "b": ROWS[1, 1], "c": 4.0}
    expected = booster.predict([[known[name] for name in names or "abc"]], raw_score=True)
    with Engine(store, clock_us=NOW) as engine:
        assert margin(engine.predict("late", entities={"user_id": [2]}, outputs=["margin"])) == expected[0]
    assert store.register_model("late", exported, "stored").version == 2


def test_a_model_of_some_features_and_a_request_field(store: FeatureStore, tmp_path: Path) -> None:
    booster, exported = trained(tmp_path, ["hour", "b"], columns=2)
    store.register_model("late", exported, service="computed")
    with Engine(store, clock_us=NOW) as engine:
        asked: dict[str, Any] = {"entities": {"user_id": [1]}, "request": {"asked": [NOW.replace(hour=5)]}}
        found = margin(engine.predict("late", **asked, outputs=["margin"]))
    assert found == booster.predict([[5.0, ROWS[0, 1]]], raw_score=True)[0]


def test_a_model_without_a_service_is_given_its_features(store: FeatureStore, tmp_path: Path) -> None:
    booster, exported = trained(tmp_path, None)
    store.register_model("named", exported, features=["x", "y", "z"])
    store.register_model("typed", exported, features={"x": "float32", "y": "int64", "z": "float64"})
    with Engine(store, clock_us=NOW) as engine:
        for name in ("named", "typed"):
            found = engine.predict(name, features={"x": [0.5], "y": [1], "z": [-0.25]}, outputs=["margin"])
            assert margin(found) == booster.predict([[0.5, 1.0, -0.25]], raw_score=True)[0]


@pytest.mark.parametrize(
    ("service", "features", "code", "part"),
    [
        ("late", None, "unknown_feature_service", "'late'"),
        ("stored", ["a", "b", "d"], "unknown_feature", "'d'"),
        ("computed", None, "unknown_feature", "'Column_0'"),
        ("stored", ["a", "b"], "length_mismatch", "2 features"),
        (None, ["a", "b"], "length_mismatch", "takes 3"),
    ],
)
def test_what_does_not_fit_is_named(
    store: FeatureStore, tmp_path: Path, service: str | None, features: list[str] | None, code: str, part: str
) -> None:
    exported = trained(tmp_path, None)[1]
    with pytest.raises(HeadraceError) as caught:
        store.register_model("late", exported, service, features=features)
    assert caught.value.code == code
    assert part in str(caught.value)
    assert not (store.config.state / "models" / "late").exists()
