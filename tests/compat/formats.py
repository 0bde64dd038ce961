"""Everything that headrace keeps on disk, in one small project: written by `write`, read back by `read`.

`python tests/compat/formats.py` keeps what today's headrace writes as `tests/compat/kept/VERSION/`, once, when a format
changes and before the old one's writer is gone. What is kept is never written again.

    kept/VERSION/
      project/                     a project as a user has it
        headrace.toml, features/, data/
        .headrace/plans/           plan documents and HEAD
        .headrace/online/          RocksDB: batches of rows and the manifest; table snapshots
        .headrace/history/         pushed rows
        .headrace/models/          one model version
      expected.json                what reading it answers
"""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import headrace
from headrace import Engine, FeatureStore, Model

KEPT = Path(__file__).resolve().parent / "kept"
START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
NOW = START + 3 * HOUR
MODEL = "late"
NOT_KEPT = ("LOG", "LOG.old.*", "__pycache__")  # RocksDB's own diary names this machine

DEFINITIONS = """
from datetime import timedelta

from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
flight = Entity("flight", join_keys=[Field("carrier", String), Field("number", Int64)])
weather = FeatureView(
    "weather",
    [airport],
    [Field("temp", Float64), Field("wind_dir", Float32), Field("kinds", List(String)), Field("seen", Timestamp)],
    FileSource("data/weather.parquet", event_ts="time_hour"),
    ttl=timedelta(hours=2),
)
gate = FeatureView(
    "gate",
    [flight],
    [Field("open", Bool), Field("crew", String), Field("seats", Int16), Field("code", Bytes), Field("big", Int64)],
    PushSource(event_ts="at"),
)
departure = OnDemandFeatureView(
    "departure",
    inputs=[Field("planned", Timestamp), weather],
    schema=[Field("hour", Int64, col("planned").dt.hour()), Field("tail", Float64, col("temp") * 2.0)],
)
everything = FeatureService("everything", [weather, gate])
late = FeatureService("late", [weather[["temp"]], departure])
"""


def write(root: Path) -> None:
    """Makes the project and fills it: both online sources, a snapshot, rows after the snapshot, a model."""
    (root / "features").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "headrace.toml").write_text('[project]\nname = "kept"\n')
    (root / "features" / "all.py").write_text(DEFINITIONS)
    weather = {
        "origin": ["JFK", "JFK", "EWR", "LGA"],
        "time_hour": pa.array([START, START + 2 * HOUR, START, START + HOUR], pa.timestamp("us", "UTC")),
        "temp": [1.0, 2.5, -3.0, None],
        "wind_dir": pa.array([0.0, math.nan, 90.0, 180.0], pa.float32()),
        "kinds": [["rain"], ["snow", "a wind that is longer than a row keeps"], [], None],
        "seen": pa.array([START, None, START, START], pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(weather), root / "data" / "weather.parquet")
    with FeatureStore(root, clock=lambda: micros(NOW)) as store:
        store.apply()
        store.materialize()
        store.push("gate", gates([("UA", 1), ("AA", 2**53 + 1)], START + HOUR))
    draft = {
        "task": "classification",
        "labels": ["on_time", "late"],
        "format": "linear-json",
        "golden": {"features": [[0.0, 1.0, 2.0]], "margins": [[0.5]], "scores": [[1 / (1 + math.exp(-0.5))]]},
        "signature": {
            "service": "late",
            "features": [
                {"name": "temp", "dtype": "float64"},
                {"name": "hour", "dtype": "int64"},
                {"name": "tail", "dtype": "float64"},
            ],
            "join_keys": [{"name": "origin", "dtype": "string"}],
            "request_fields": [{"name": "planned", "dtype": "timestamp"}],
        },
        "trainer": {"library": "hand", "version": "1"},
        "created_at": "2013-01-01T00:00:00Z",
    }
    model = {"format": 1, "weights": [[0.25, 0.5, -0.125]], "intercept": [0.25], "link": "logistic"}
    Model.create(root / ".headrace" / "models", MODEL, json.dumps(draft), json.dumps(model).encode())


def write_more(store: FeatureStore) -> None:
    """Rows after the snapshot that closing the store made: they are only in the log."""
    store.push("gate", gates([("UA", 1), ("DL", -3)], START + 2 * HOUR))
    store.delete("gate", {"carrier": ["AA"], "number": [2**53 + 1]}, START + 2 * HOUR)


def gates(flights: list[tuple[str, int]], at: dt.datetime) -> dict[str, Any]:
    count = len(flights)
    return {
        "carrier": [carrier for carrier, _ in flights],
        "number": [number for _, number in flights],
        "at": [at] * count,
        "open": [n % 2 == 0 for n in range(count)],
        "crew": ["a crew whose names are too many for a row" * n for n in range(count)],
        "seats": pa.array([300 - n for n in range(count)], pa.int16()),
        "code": pa.array([b"\0\xff"] * count, pa.binary()),
        "big": [2**62 + n for n in range(count)],
    }


def micros(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def read(root: Path) -> dict[str, Any]:
    """What the project answers, in JSON's types: online values, joined rows, a prediction, digests."""
    entities: dict[str, list[Any]] = {
        "origin": ["JFK", "EWR", "LGA", "ORD"],
        "carrier": ["UA", "AA", "DL", "UA"],
        "number": [1, 2**53 + 1, -3, 2],
    }
    with FeatureStore(root, clock=lambda: micros(NOW)) as store:
        digest = store.applied.digest
        online = store.get_online_features("everything", entities)
        asked = {**entities, "event_timestamp": [NOW] * 4}
        joined = store.get_historical_features("everything", asked, statuses=True).to_pylist()
    with Engine(root, clock_us=micros(NOW)) as engine:
        predicted = engine.predict(MODEL, entities={"origin": ["JFK", "LGA"]}, request={"planned": [NOW, NOW]})
    model = Model.open(root / ".headrace" / "models" / MODEL / "1")
    return {
        "plan": digest,
        "model": model.digest,
        "online": plain(online),
        "joined": plain(joined),
        "predictions": plain(predicted["predictions"]),
    }


def plain(value: Any) -> Any:
    """The value in JSON's types; a float as its exact digits."""
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return value.isoformat() if isinstance(value, dt.datetime) else value


def main() -> int:
    folder = KEPT / headrace.__version__
    if folder.exists():
        print(f"{folder} is kept already", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as work:
        root = Path(work) / "project"
        write(root)
        with FeatureStore(root, clock=lambda: micros(NOW)) as store:
            write_more(store)
            shutil.copytree(root, folder / "project", ignore=shutil.ignore_patterns(*NOT_KEPT))
        (folder / "expected.json").write_text(json.dumps(read(root), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
