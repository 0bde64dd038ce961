"""Projects to test with: a folder, a headrace.toml, definitions, and source files."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)

WEATHER = """
from datetime import timedelta

from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
weather = FeatureView(
    "weather",
    [airport],
    [Field("temp", Float64), Field("wind_dir", Float64)],
    FileSource("weather.parquet", event_ts="time_hour"),
    ttl=timedelta(hours=3),
)
runway = FeatureView("runway", [airport], [Field("runways", Int64)], FileSource("runways.csv"))
gate = FeatureView(
    "gate",
    [airport],
    [Field("open", Bool), Field("crew", String)],
    PushSource(event_ts="at"),
)
departure = OnDemandFeatureView(
    "departure",
    inputs=[Field("planned", Timestamp), weather],
    schema=[
        Field("hour", Int64, col("planned").dt.hour()),
        Field("headwind", Float64, col("wind_dir").radians().cos()),
    ],
)
risk = FeatureService("risk", [weather, runway, departure])
gates = FeatureService("gates", [gate])
"""


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Makes a project of some definitions and settings."""

    def make(definitions: str, settings: str = "", name: str = "project") -> Path:
        root = tmp_path / name
        (root / "features").mkdir(parents=True, exist_ok=True)
        (root / "headrace.toml").write_text(f'[project]\nname = "{name}"\n{settings}')
        (root / "features" / "all.py").write_text(definitions)
        return root

    return make


def weather_table() -> pa.Table:
    """Two airports, four hours; one temperature is null, one wind direction is NaN, one row has no time."""
    return pa.table(
        {
            "origin": ["JFK", "JFK", "JFK", "JFK", "EWR", "EWR", "EWR"],
            "time_hour": pa.array(
                [START, START + HOUR, START + 2 * HOUR, START + 3 * HOUR, START, START + HOUR, None],
                pa.timestamp("us", "UTC"),
            ),
            "temp": [1.0, 2.0, None, 4.0, 10.0, 11.0, 99.0],
            "wind_dir": [0.0, 90.0, 180.0, float("nan"), 45.0, 60.0, 0.0],
        }
    )


@pytest.fixture
def weather_project(make_project: Callable[..., Path]) -> Path:
    """A project with weather by the hour, a static view, a pushed view and an on-demand view."""
    root = make_project(WEATHER)
    pq.write_table(weather_table(), root / "weather.parquet")
    (root / "runways.csv").write_text("origin,runways\nJFK,4\nEWR,3\n")
    return root


@pytest.fixture
def now_us() -> list[int]:
    """The time of `weather_store`, in microseconds; a test may change its only element."""
    return [int((START + 3 * HOUR).timestamp()) * 1_000_000 + 60_000_000]


@pytest.fixture
def weather_store(weather_project: Path, now_us: list[int]) -> Iterator[FeatureStore]:
    """`weather_project`, applied, at a standing clock just after the last hour."""
    with FeatureStore(weather_project, clock=lambda: now_us[0]) as store:
        store.apply()
        yield store


def write_linear_model(
    folder: Path, weights: dict[str, float], service: str | None = "risk", golden_margin: float | None = None
) -> Path:
    """A model version's folder: a logistic model of some features, with one golden row of ones."""
    from headrace import _native

    margin = sum(weights.values()) if golden_margin is None else golden_margin
    score = 1 / (1 + math.exp(-margin))
    folder.mkdir(parents=True)
    model = {"format": 1, "weights": [list(weights.values())], "intercept": [0.0], "link": "logistic"}
    golden = {"features": [[1.0] * len(weights)], "margins": [[margin]], "scores": [[score]]}
    (folder / "model.json").touch()
    files = {"linear.json": model, "golden.json": golden}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    keys = [{"name": "origin", "dtype": "string"}] if service else []
    fields = [{"name": "planned", "dtype": "timestamp"}] if service else []
    manifest = {
        "format": 1,
        "name": folder.parent.name,
        "version": int(folder.name),
        "task": "classification",
        "labels": ["on_time", "late"],
        "model": {
            "file": "linear.json",
            "format": "linear-json",
            "digest": _native.digest_file(folder / "linear.json"),
        },
        "signature": {
            "service": service,
            "plan_digest": None,
            "features": [{"name": name, "dtype": DTYPES.get(name, "float64")} for name in weights],
            "join_keys": keys,
            "request_fields": fields,
        },
        "golden": {"file": "golden.json", "digest": _native.digest_file(folder / "golden.json")},
        "metrics": {},
        "lineage": {},
        "trainer": {"library": "hand", "version": "1"},
        "created_at": "2013-01-01T00:00:00Z",
    }
    text = _native.canonical_json(json.dumps(manifest))
    (folder / "model.json").write_text(text)
    (folder / "digest").write_text(_native.digest_bytes(text.encode()) + "\n")
    return folder


DTYPES = {"runways": "int64", "hour": "int64"}


@pytest.fixture
def make_model(weather_project: Path) -> Callable[..., Path]:
    """Registers a linear model of `weather_project`: `make_model("late/1", {"temp": 0.5})`."""

    def make(version: str, weights: dict[str, float], **options: Any) -> Path:
        return write_linear_model(weather_project / ".headrace/models" / version, weights, **options)

    return make
