"""A served project: weather by airport, one model that looks its features up, two that are given them."""

from __future__ import annotations

import datetime as dt
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import Engine, FeatureStore, _native

NOW = dt.datetime(2013, 1, 1, 3, tzinfo=dt.UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000

DEFINITIONS = """
from datetime import timedelta

from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
weather = FeatureView(
    "weather",
    [airport],
    [Field("temp", Float64), Field("wind", Float32)],
    PushSource(event_ts="at"),
    ttl=timedelta(hours=3),
)
departure = OnDemandFeatureView(
    "departure",
    inputs=[Field("planned", Timestamp), Field("seats", Int32)],
    schema=[
        Field("hour", Int64, col("planned").dt.hour()),
        Field("crowd", Float64, col("seats").log1p()),
    ],
)
risk = FeatureService("risk", [weather, departure])
"""

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2)
engine = Engine(sys.argv[1], clock_us=int(sys.argv[2]))
engine.add_fixtures()
serve(engine, settings, lambda found: print(found["http"], found["grpc"], flush=True))
"""


@dataclass(frozen=True)
class Served:
    """A server's addresses, and an engine in this process over the same project."""

    address: str
    grpc: str
    engine: Engine


def field(name: str, dtype: str) -> dict[str, str]:
    return {"name": name, "dtype": dtype}


def write_model(folder: Path, task: str, weights: Mapping[str, tuple[str, float]], service: str | None) -> None:
    """A linear model's version folder; `weights` is feature -> (dtype, weight)."""
    folder.mkdir(parents=True)
    is_classifier = task == "classification"
    margin = sum(weight for _, weight in weights.values())
    score = 1 / (1 + math.exp(-margin)) if is_classifier else margin
    link = "logistic" if is_classifier else "identity"
    values = [weight for _, weight in weights.values()]
    model = {"format": 1, "weights": [values], "intercept": [0.0], "link": link}
    golden = {"features": [[1.0] * len(values)], "margins": [[margin]], "scores": [[score]]}
    (folder / "linear.json").write_text(json.dumps(model))
    (folder / "golden.json").write_text(json.dumps(golden))
    manifest = {
        "format": 1,
        "name": folder.parent.name,
        "version": int(folder.name),
        "task": task,
        "labels": ["on_time", "späť"] if is_classifier else None,
        "model": file("linear.json", folder) | {"format": "linear-json"},
        "signature": {
            "service": service,
            "plan_digest": None,
            "features": [field(name, dtype) for name, (dtype, _) in weights.items()],
            "join_keys": [field("origin", "string")] if service else [],
            "request_fields": [field("planned", "timestamp"), field("seats", "int32")] if service else [],
        },
        "golden": file("golden.json", folder),
        "metrics": {},
        "lineage": {},
        "trainer": {"library": "hand", "version": "1"},
        "created_at": "2013-01-01T00:00:00Z",
    }
    text = _native.canonical_json(json.dumps(manifest))
    (folder / "model.json").write_text(text)
    (folder / "digest").write_text(_native.digest_bytes(text.encode()) + "\n")


def file(name: str, folder: Path) -> dict[str, str]:
    return {"file": name, "digest": _native.digest_file(folder / name)}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served") / "project"
    (root / "features").mkdir(parents=True)
    (root / "headrace.toml").write_text('[project]\nname = "served"\n')
    (root / "features" / "all.py").write_text(DEFINITIONS)
    hour = dt.timedelta(hours=1)
    rows = {
        "origin": ["JFK", "EWR", "Zürich"],
        "at": pa.array([NOW - hour, NOW - 3 * hour, NOW], pa.timestamp("us", "UTC")),
        "temp": [3.5, 8.0, -2.0],
        "wind": pa.array([0.25, 1.0, 0.1], pa.float32()),
    }
    with FeatureStore(root, clock=lambda: NOW_US) as store:
        store.apply()
        store.push("weather", rows)
    models = root / ".headrace" / "models"
    weights = {"temp": ("float64", 0.1), "wind": ("float32", -1.0), "hour": ("int64", 0.05), "crowd": ("float64", 0.2)}
    write_model(models / "late" / "1", "classification", weights, "risk")
    write_model(models / "late" / "2", "classification", {name: (t, 2 * w) for name, (t, w) in weights.items()}, "risk")
    write_model(models / "plain" / "1", "classification", {"a": ("float64", 1.0), "b": ("float64", -0.5)}, None)
    write_model(models / "minutes" / "1", "regression", {"a": ("float64", 2.0)}, None)
    return root


@contextmanager
def serving(project: Path) -> Iterator[Served]:
    """The server over a project, and an engine beside it."""
    arguments = [sys.executable, "-c", PROGRAM, str(project), str(NOW_US)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        address, _, grpc = child.stdout.readline().strip().partition(" ")
        assert address, "the server did not start"
        with Engine(project, clock_us=NOW_US) as engine:
            yield Served(address, grpc, engine)
    finally:
        child.terminate()
        child.communicate(timeout=60)


@pytest.fixture(scope="session")
def served(project: Path) -> Iterator[Served]:
    with serving(project) as served:
        yield served


@pytest.fixture(scope="session")
def rows() -> dict[str, dict[str, list[Any]]]:
    """Three rows for the model `late`. It is linear, so it needs every feature."""
    planned = ["2013-01-01T03:00:00Z", "2013-01-01T10:00:00Z", "2013-01-02T02:00:00Z"]
    return {"entities": {"origin": ["JFK", "EWR", "Zürich"]}, "request": {"planned": planned, "seats": [0, 180, 7]}}
