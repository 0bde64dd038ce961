"""From an exporter, or from a file, to an answer: `FeatureStore.register_model` and `headrace register`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost

from headrace import Engine, FeatureStore, HeadraceError
from headrace.export import ExportedModel, export_lightgbm
from headrace_control.errors import ControlError
from headrace_control.registering import register_file

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
renamed = FeatureService("renamed", [taste[["a", "b"]], hour])
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
        ("computed", None, "length_mismatch", "4 features"),
        ("stored", ["a", "b"], "length_mismatch", "2 features"),
        ("renamed", None, "unknown_feature", "'c'"),
        (None, ["a", "b"], "length_mismatch", "takes 3"),
    ],
)
def test_what_does_not_fit_is_named(
    store: FeatureStore, tmp_path: Path, service: str | None, features: list[str] | None, code: str, part: str
) -> None:
    # Of as many features as the service, but one has another name there: no place in the order may stand for it.
    names = ["c", "a", "b"] if service == "renamed" else None
    exported = trained(tmp_path, names)[1]
    with pytest.raises(HeadraceError) as caught:
        store.register_model("late", exported, service, features=features)
    assert caught.value.code == code
    assert part in str(caught.value)
    assert not (store.config.state / "models" / "late").exists()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({name: ROWS[:, at] for at, name in enumerate("abc")}), path)
    return path


def write_model(library: str, folder: Path, names: list[str] | None) -> Path:
    """A model file as its library writes it."""
    label = ROWS[:, 0] > ROWS[:, 1]
    if library == "xgboost":
        path = folder / "model.ubj"
        matrix = xgboost.DMatrix(ROWS, label, feature_names=names)
        xgboost.train({"objective": "binary:logistic", "nthread": 1}, matrix, 3).save_model(path)
    elif library == "lightgbm":
        path = folder / "model.txt"
        trained(folder, names)[0].save_model(path)
    else:
        path = folder / "model.cbm"
        model = catboost.CatBoostClassifier(iterations=3, verbose=False, thread_count=1, allow_writing_files=False)
        model.fit(catboost.Pool(ROWS, label, feature_names=names)).save_model(str(path))
    return path


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
@pytest.mark.parametrize("service", ["stored", None])
def test_a_file_becomes_a_version(
    store: FeatureStore, tmp_path: Path, rows: Path, library: str, service: str | None
) -> None:
    project = store.config.root
    named = register_file(project, "late", write_model(library, tmp_path, list("abc")), rows, service)
    assert (named.version, named.features, named.golden_rows) == (1, ("a", "b", "c"), 64)
    unnamed = write_model(library, tmp_path, None)
    given = () if service else ("a", "b", "c")
    assert register_file(project, "late", unnamed, rows, service, given).version == 2
    with Engine(store, clock_us=NOW) as engine:
        asked: dict[str, Any] = {"features": {"a": [0.5], "b": [0.25], "c": [1]}, "outputs": ["margin"]}
        found = [margin(engine.predict("late", version=version, **asked)) for version in (1, 2)]
    assert found[0] == found[1]


def test_what_is_wrong_with_a_file_is_named(store: FeatureStore, tmp_path: Path, rows: Path) -> None:
    project, unnamed = store.config.root, write_model("lightgbm", tmp_path, None)
    broken, other = tmp_path / "broken.ubj", tmp_path / "model.pkl"
    broken.write_bytes(b"no model")
    other.write_bytes(b"")
    network = tmp_path / "model.onnx"
    network.write_bytes(b"")
    wrong: list[tuple[Path, str, dict[str, Any]]] = [
        (broken, "XGBoost cannot read", {}),
        (other, "known ending", {}),
        (network, "--task", {}),
        (unnamed, "--features", {}),
        (unnamed, "no column d", {"features": ("a", "b", "d")}),
    ]
    for file, part, options in wrong:
        with pytest.raises(ControlError, match=part):
            register_file(project, "late", file, rows, **options)
    assert not (store.config.state / "models" / "late").exists()
