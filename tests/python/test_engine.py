from __future__ import annotations

import datetime as dt
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import Engine, FeatureStore, HeadraceError, Model, UnknownNameError

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
WEIGHTS = {"temp": 0.5, "runways": -1.0, "hour": 0.25}


def logistic(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


@pytest.fixture
def engine(weather_store: FeatureStore, make_model: Callable[..., Path], now_us: list[int]) -> Engine:
    weather_store.materialize()
    make_model("late/1", WEIGHTS)
    return Engine(weather_store, clock_us=now_us[0])


def test_a_prediction_tells_what_each_feature_added(engine: Engine) -> None:
    ask: dict[str, Any] = {
        "entities": {"origin": ["JFK"]},
        "request": {"planned": [START + 8 * HOUR]},
        "outputs": ["margin"],
    }
    (found,) = engine.predict("late", explain=True, **ask)["predictions"]
    contributions = {"temp": 0.5 * 4.0, "runways": -4.0, "hour": 0.25 * 8}
    assert found == {"margin": 0.0, "explanation": {"expected": 0.0, "contributions": contributions}}
    (found,) = engine.predict("late", explain={"top": 1}, **ask)["predictions"]
    assert found["explanation"] == {"expected": 0.0, "contributions": {"runways": -4.0}, "others": 4.0}
    (found,) = engine.predict("late", explain=False, **ask)["predictions"]
    assert found == {"margin": 0.0}
    for wrong in (3, {"top": 0}, {"bottom": 1}):
        with pytest.raises(HeadraceError, match="explain is"):
            engine.predict("late", explain=wrong, **ask)  # type: ignore[arg-type]


def test_looks_up_transforms_and_predicts(engine: Engine) -> None:
    answer = engine.predict(
        "late",
        entities={"origin": ["JFK", "EWR"]},
        request={"planned": [START + 8 * HOUR, "2013-01-01T04:00:00Z"]},
        outputs=["label", "scores", "margin"],
        id="r1",
    )
    timing = answer.pop("timing_us")
    assert list(timing) == ["queue", "lookup", "transform", "model", "total"]
    margins = [0.5 * 4.0 - 4 + 0.25 * 8, 0.5 * 11.0 - 3 + 0.25 * 4]
    assert answer.pop("predictions") == [
        {
            "label": "late" if logistic(margin) > 0.5 else "on_time",
            "scores": {"on_time": 1 - logistic(margin), "late": logistic(margin)},
            "margin": margin,
        }
        for margin in margins
    ]
    assert answer == {
        "id": "r1",
        "api_version": "v1",
        "deployment": "late",
        "model": "late",
        "model_version": "1",
        "task": "classification",
    }


def test_a_given_feature_replaces_the_stored_one(engine: Engine) -> None:
    ask: dict[str, Any] = {"entities": {"origin": ["JFK"]}, "request": {"planned": [START]}, "outputs": ["margin"]}
    assert engine.predict("late", **ask)["predictions"] == [{"margin": 2.0 - 4.0}]
    assert engine.predict("late", **ask, features={"runways": [1]})["predictions"] == [{"margin": 2.0 - 1.0}]


def test_all_features_given_need_no_lookup(engine: Engine) -> None:
    answer = engine.predict("late", features={"temp": [1.0], "runways": [1], "hour": [1]}, outputs=["margin"])
    assert answer["predictions"] == [{"margin": -0.25}]


def test_a_row_that_cannot_be_used_fails_alone(engine: Engine) -> None:
    answer = engine.predict("late", entities={"origin": ["JFK", 7, "LGA"]}, request={"planned": [START, START, START]})
    good, bad, unknown = answer["predictions"]
    assert good["label"] == "on_time"
    assert bad["label"] is None
    assert bad["status"]["code"] == "type_mismatch"
    assert "row 1 of 'origin'" in bad["status"]["error"]
    assert unknown["status"]["code"] == "invalid_argument", "a linear model has no answer without its features"


@pytest.mark.parametrize(
    "origins",
    [np.array(["JFK"]), np.array(["JFK"], dtype=object), ("JFK",)],
)
@pytest.mark.parametrize(
    "planned",
    [
        [START],
        [START.replace(tzinfo=None)],
        [START.astimezone(dt.timezone(dt.timedelta(hours=9)))],
        [int(START.timestamp()) * 1_000_000],
        ["2013-01-01T00:00:00Z"],
        np.array(["2013-01-01T00:00:00"], "datetime64[ns]"),
    ],
)
def test_values_of_every_kind(engine: Engine, origins: Any, planned: Any) -> None:
    answer = engine.predict("late", entities={"origin": origins}, request={"planned": planned}, outputs=["margin"])
    assert answer["predictions"] == [{"margin": -2.0}]


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"model": "early"}, "unknown_model", "'early'"),
        ({"version": 9}, "unknown_model_version", "9"),
        ({"entities": {"orgin": ["JFK"]}}, "unknown_entity", "'orgin'"),
        ({"entities": {}}, "missing_column", "'origin'"),
        ({"request": {}}, "missing_column", "'planned'"),
        ({"request": {"planned": [START, START]}}, "length_mismatch", None),
        ({"features": {"wind": [1]}}, "unknown_feature", "'wind'"),
        ({"outputs": ["odds"]}, "invalid_argument", "'odds'"),
        ({"entities": {"origin": "JFK"}}, "type_mismatch", "'origin'"),
        ({"entities": ["JFK"]}, "type_mismatch", "'entities'"),
        ({"entities": {1: ["JFK"]}}, "type_mismatch", "'entities'"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    engine: Engine, change: dict[str, Any], code: str, part: str | None
) -> None:
    ask: dict[str, Any] = {"model": "late", "entities": {"origin": ["JFK"]}, "request": {"planned": [START]}} | change
    with pytest.raises(HeadraceError) as raised:
        engine.predict(**ask)
    assert raised.value.code == code
    assert part is None or part in str(raised.value)


def test_the_highest_version_answers_unless_told(engine: Engine, make_model: Callable[..., Path]) -> None:
    make_model("late/2", {"temp": 1.0})
    make_model("late/10", {"temp": 3.0})
    engine.refresh()
    ask: dict[str, Any] = {"entities": {"origin": ["JFK"]}, "request": {"planned": [START]}, "outputs": ["margin"]}
    assert engine.predict("late", **ask)["model_version"] == "10"
    assert engine.predict("late", version=2, **ask)["predictions"] == [{"margin": 4.0}]
    assert [(model["name"], model["version"], model["ready"]) for model in engine.models()] == [
        ("late", 1, True),
        ("late", 2, True),
        ("late", 10, True),
    ]


def test_a_model_that_does_not_reproduce_is_not_served_and_says_why(
    weather_store: FeatureStore, make_model: Callable[..., Path]
) -> None:
    make_model("wrong/1", {"temp": 1.0}, golden_margin=2.0)
    damaged = make_model("damaged/1", {"temp": 1.0})
    (damaged / "linear.json").write_text("{}")
    engine = Engine(weather_store)
    ask: dict[str, Any] = {"entities": {"origin": ["JFK"]}, "request": {"planned": [START]}}
    for name, code in (("wrong", "golden_row_mismatch"), ("damaged", "corrupt_model")):
        with pytest.raises(HeadraceError) as raised:
            engine.predict(name, **ask)
        assert raised.value.code == code
        assert engine.faults[f"{name}/1"].code == code


def test_a_damaged_model_is_listed_and_taken_up_when_it_is_restored(
    engine: Engine, make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_model("hurt/1", {"temp": 2.0}, service=None)
    file = folder / "linear.json"
    sound, times = file.read_bytes(), file.stat()
    file.write_bytes(sound.replace(b"2.0", b"3.0"))
    engine.refresh()
    engine.refresh()
    assert engine.faults["hurt/1"].code == "corrupt_model"
    assert [record.getMessage().startswith("model hurt/1 cannot be loaded: ") for record in caplog.records] == [True]
    file.write_bytes(sound)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a restore from a backup does
    engine.refresh()
    assert "hurt/1" not in engine.faults
    assert engine.predict("hurt", features={"temp": [1.0]}, outputs=["margin"])["predictions"] == [{"margin": 2.0}]


def test_a_deleted_model_stops_answering(engine: Engine, make_model: Callable[..., Path]) -> None:
    first, second = make_model("gone/1", {"temp": 1.0}, service=None), make_model("gone/2", {"temp": 2.0}, service=None)
    engine.refresh()
    ask: dict[str, Any] = {"features": {"temp": [1.0]}, "outputs": ["margin"]}
    assert engine.predict("gone", **ask)["model_version"] == "2"
    shutil.rmtree(second)
    engine.refresh()
    assert engine.predict("gone", **ask)["model_version"] == "1"
    shutil.rmtree(first)
    engine.refresh()
    with pytest.raises(UnknownNameError, match="gone"):
        engine.predict("gone", **ask)


def test_a_copy_under_another_name_is_refused(engine: Engine, make_model: Callable[..., Path]) -> None:
    folder = make_model("mine/1", {"temp": 1.0}, service=None)
    shutil.copytree(folder, folder.parent.parent / "theirs" / "1")
    shutil.copytree(folder, folder.parent / "2")
    engine.refresh()
    for key in ("theirs/1", "mine/2"):
        assert engine.faults[key].code == "corrupt_model"
        assert f"is {key}, its manifest says mine/1" in str(engine.faults[key])
    assert "theirs" not in [model["name"] for model in engine.models()]


def test_an_engine_of_its_own_reads_what_was_written(
    weather_store: FeatureStore, weather_project: Path, make_model: Callable[..., Path], now_us: list[int]
) -> None:
    weather_store.materialize()
    make_model("late/1", {"temp": 1.0})
    ask: dict[str, Any] = {"entities": {"origin": ["JFK"]}, "request": {"planned": [START]}, "outputs": ["margin"]}
    with Engine(weather_project, clock_us=now_us[0]) as engine:
        assert engine.predict("late", **ask)["predictions"] == [{"margin": 4.0}]
        engine.set_clock(now_us[0] + 24 * 3600 * 10**6)
        assert "status" in engine.predict("late", **ask)["predictions"][0], "the weather has expired"


def test_an_engine_follows_a_writer_in_another_process(
    weather_store: FeatureStore, weather_project: Path, make_model: Callable[..., Path], now_us: list[int]
) -> None:
    engine = Engine(weather_project, clock_us=now_us[0])
    weather_store.materialize()
    make_model("late/1", {"temp": 1.0})
    engine.refresh()
    ask: dict[str, Any] = {"entities": {"origin": ["EWR"]}, "request": {"planned": [START]}, "outputs": ["margin"]}
    assert engine.predict("late", **ask)["predictions"] == [{"margin": 11.0}]


def test_a_model_by_itself(make_model: Callable[..., Path]) -> None:
    model = Model.open(make_model("late/4", {"temp": 1.0, "hour": 2.0}))
    assert (model.name, model.version, model.features_count, model.outputs_count) == ("late", 4, 2, 1)
    assert model.manifest is not None
    assert json.loads(model.manifest)["labels"] == ["on_time", "late"]
    rows = [[1.0, 2.0], [0.0, -1.0]]
    for x in (np.array(rows), np.array(rows, np.float32), np.array(rows, np.int64), np.array(rows).T.copy().T, rows):
        assert np.asarray(model.margins(x)).tolist() == [[5.0], [-2.0]]
    for dtype in (np.float64, np.float32):
        raw = b"x" + np.array(rows, dtype).tobytes()
        unaligned = np.frombuffer(raw, dtype, offset=1).reshape(2, 2)
        assert np.asarray(model.margins(unaligned)).tolist() == [[5.0], [-2.0]]
    assert np.asarray(model.scores(np.array(rows), threads=2)).tolist() == [[logistic(5.0)], [logistic(-2.0)]]
    assert np.asarray(model.margins(np.array(rows[0]))).tolist() == [[5.0]]
    assert np.asarray(model.margins(np.zeros((0, 2)))).shape == (0, 1)
    with pytest.raises(HeadraceError, match="x has 3 features a row, the model takes 2"):
        model.margins(np.zeros((1, 3)))


def test_a_model_file_by_itself() -> None:
    text = '{"format": 1, "weights": [[2.0]], "intercept": [1.0], "link": "identity"}'
    model = Model.from_bytes("linear-json", text.encode())
    assert (model.name, model.manifest) == (None, None)
    assert np.asarray(model.margins([[3.0]])).tolist() == [[7.0]]
    with pytest.raises(HeadraceError, match="'pickle' is not a model format"):
        Model.from_bytes("pickle", b"")


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match=r"model\.json"):
        Model.open(tmp_path)
