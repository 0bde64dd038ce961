"""What the area `serve` measures on: a project to be served, and files of requests with the answers to expect.

Runs as jobs of the environment that trains (`bench/compare/boosters`). A file of requests is what the load generator
reads: u32 (little endian) lengths, each followed by the bytes to send.
"""

from __future__ import annotations

import json
import struct
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from engine import package
from inputs import Array, TreeInputs

import headrace
from headrace.export import export_python_class, export_xgboost

FEATURES = 50
KEY = "item_id"
VIEW = "items"
SERVICE = "item_features"
GOLDEN_ROWS = 16
SLEEPERS = {"fixed-cost": "0.001", "slow": "0.005 * len(batch)"}
"""Models that sleep, and for how many seconds a call: the first whatever its rows, the other for each of them."""
SLOW_OBJECTIVE_S = 0.015
"""An accepted request of the slow model may wait for two others."""

NAMES = [f"f{at}" for at in range(FEATURES)]
DEFINITIONS = f"""
from headrace import *

item = Entity("item", join_keys=[Field("{KEY}", Int64)])
fields = [Field(f"f{{at}}", Float32) for at in range({FEATURES})]
items = FeatureView("{VIEW}", [item], fields, PushSource(event_ts="at"))
{SERVICE} = FeatureService("{SERVICE}", [items])
"""
SLEEPER = """
import time


class Model:
    def predict(self, batch):
        time.sleep({seconds})
        return batch.column(0).to_numpy() * 2
"""


def make_projects(options: dict[str, Any]) -> dict[str, Any]:
    """Makes `served/`, a project with every model and `keys` rows, and `small/`, with one model and no rows.

    Options: `folder`, `model` (XGBoost's file), `keys`, `seed`.
    """
    folder = Path(options["folder"])
    rows = item_rows(options)
    booster = package("xgboost").Booster(model_file=options["model"])
    exported = export_xgboost(booster, folder / "trees.ubj", golden=rows[:GOLDEN_ROWS])
    types = dict.fromkeys(NAMES, "float32")
    with opened(folder / "small", None) as store:
        store.register_model("plain", exported, features=types)
    with opened(folder / "served", DEFINITIONS, f"[queue]\nobjectives = {{slow = {SLOW_OBJECTIVE_S}}}\n") as store:
        store.apply()
        now = np.full(len(rows), time.time_ns() // 1000, dtype="datetime64[us]")
        pyarrow = package("pyarrow")
        times = pyarrow.array(now).cast(pyarrow.timestamp("us", "UTC"))
        columns = {KEY: np.arange(len(rows), dtype=np.int64), "at": times}
        counts = store.push(VIEW, pyarrow.table({**columns, **dict(zip(NAMES, rows.T.copy(), strict=True))}))
        store.register_model("plain", exported, features=types)
        store.register_model("found", exported, SERVICE, features=NAMES)
        for name, seconds in SLEEPERS.items():
            source = folder / f"{name.replace('-', '_')}.py"
            source.write_text(SLEEPER.format(seconds=seconds))
            golden = np.arange(2.0).reshape(2, 1)
            told = export_python_class(source, golden, {"x": "float64"}, task="regression")
            store.register_model(name, told, features={"x": "float64"})
    return {"keys": len(rows), "written": counts.inserted}


def opened(folder: Path, definitions: str | None, settings: str = "") -> headrace.FeatureStore:
    folder.mkdir(parents=True)
    (folder / "headrace.toml").write_text(f'[project]\nname = "{folder.name}"\n\n{settings}')
    (folder / "features").mkdir()
    if definitions is not None:
        (folder / "features" / "items.py").write_text(textwrap.dedent(definitions))
    return headrace.FeatureStore(folder)


def item_rows(options: dict[str, Any]) -> Array:
    """The features of each key: those of the area `trees`."""
    rows: Array = TreeInputs(FEATURES, options["seed"]).kinds["features"][: options["keys"]]
    return rows


def make_requests(options: dict[str, Any]) -> dict[str, Any]:
    """Writes `KIND.requests` of each kind, in one order of keys, and the model's answers as `expected.npy`.

    Options: `folder`, `model`, `keys`, `seed`, `requests`.
    """
    folder, rows = Path(options["folder"]), item_rows(options)
    keys = np.random.default_rng([options["seed"], 5]).integers(0, len(rows), options["requests"])
    asked = rows[keys]
    booster = package("xgboost").Booster(model_file=options["model"])
    np.save(folder / "expected.npy", booster.inplace_predict(asked))
    writers: dict[str, Callable[[Array, int], bytes]] = {
        "json": lambda row, key: infer("plain", matrix_json(row)),
        "binary": lambda row, key: infer_binary("plain", row),
        "grpc": lambda row, key: infer_grpc("plain", row),
        "common": lambda row, key: predict(
            "plain", {"features": {n: [float(v)] for n, v in zip(NAMES, texts(row), strict=True)}}
        ),
        "entities": lambda row, key: predict("found", {"entities": {KEY: [key]}}),
        "fastapi": lambda row, key: post("/predict", json.dumps({"features": texts(row)}).encode()),
        **{name: lambda row, key, name=name: infer(name, one_number(key)) for name in SLEEPERS},
        "static": lambda row, key: b"GET /answer HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }
    for kind, write in writers.items():
        write_requests(
            folder / f"{kind}.requests", (write(row, int(key)) for row, key in zip(asked, keys, strict=True))
        )
    return {"requests": len(asked)}


def texts(row: Array) -> list[float]:
    """Float32 values as the shortest decimals that give them back, which is how clients send them."""
    return [float(str(value)) for value in row]


def named(row: Array) -> dict[str, list[float]]:
    return {name: [value] for name, value in zip(NAMES, texts(row), strict=True)}


def tensor(name: str, values: list[Any], datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": values}


def matrix_json(row: Array) -> dict[str, Any]:
    return {"inputs": [tensor("features", texts(row), "FP32", [1, FEATURES])]}


def one_number(value: int) -> dict[str, Any]:
    return {"inputs": [tensor("x", [float(value)], "FP64", [1])]}


def post(path: str, body: bytes, headers: Iterable[str] = ()) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def infer(model: str, message: dict[str, Any]) -> bytes:
    return post(f"/v2/models/{model}/infer", json.dumps(message, separators=(",", ":")).encode())


def infer_binary(model: str, row: Array) -> bytes:
    """Values behind the JSON, and the answer's likewise: the binary tensor extension as tritonclient sends it."""
    values = row.astype("<f4").tobytes()
    given = {
        "name": "features",
        "shape": [1, FEATURES],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(values)},
    }
    message = {"inputs": [given], "parameters": {"binary_data_output": True}}
    head = json.dumps(message, separators=(",", ":")).encode()
    return post(f"/v2/models/{model}/infer", head + values, [f"Inference-Header-Content-Length: {len(head)}"])


def infer_grpc(model: str, row: Array) -> bytes:
    """An `inference.ModelInferRequest`, its values raw; the generator of load puts the frames around it."""
    given = field(1, b"features") + field(2, b"FP32") + field(3, bytes([1, FEATURES]))
    return field(1, model.encode()) + field(5, given) + field(7, row.astype("<f4").tobytes())


def field(number: int, value: bytes) -> bytes:
    """A field of protobuf that has a length; packed integers below 128 are bytes."""
    length = len(value)
    varint = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + varint + value


def predict(model: str, message: dict[str, Any]) -> bytes:
    return post(f"/v1/deployments/{model}/predict", json.dumps(message, separators=(",", ":")).encode())


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for request in requests:
            file.write(struct.pack("<I", len(request)) + request)
