"""Rows pushed and deleted over HTTP: durable and visible when they are acknowledged, the same as by the SDK."""

from __future__ import annotations

import datetime as dt
import http.client
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore, HeadraceError

NOW = dt.datetime(2013, 1, 1, 12, tzinfo=dt.UTC)
DEFINITIONS = """
from datetime import timedelta

from headrace import *

item = Entity("item", join_keys=[Field("id", Int64)])
pushed = FeatureView("pushed", [item], [Field("x", Float64), Field("name", String)], PushSource(event_ts="at"))
sums = [Aggregation("x", ["count", "sum"], timedelta(days=1))]
events = FeatureView("events", [item], [Field("x", Float64)], PushSource(event_ts="at"), aggregations=sums)
values = FeatureService("values", [pushed, events])
"""
PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2, writes=sys.argv[3] == "writes", writes_max=64)
with Engine(sys.argv[1], clock_us=int(sys.argv[2])) as engine:
    engine.store._clock = lambda: int(sys.argv[2])
    serve(engine, settings, lambda found: print(found["http"], flush=True))
"""
STREAM = "application/vnd.apache.arrow.stream"


class Server:
    """A server process over a project."""

    def __init__(self, root: Path, mode: str) -> None:
        program = [sys.executable, "-c", PROGRAM, str(root), str(int(NOW.timestamp()) * 1_000_000), mode]
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the server did not start"

    def post(self, path: str, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": content_type})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        return answer.status, found

    def push(self, view: str, columns: dict[str, list[Any]]) -> tuple[int, Any]:
        return self.post(f"/v1/feature-views/{view}/push", {"columns": columns})

    def values(self, *ids: int) -> dict[str, list[Any]]:
        status, found = self.post("/get-online-features", {"feature_service": "values", "entities": {"id": list(ids)}})
        assert status == 200, found
        names = found["metadata"]["feature_names"]
        return {name: result["values"] for name, result in zip(names, found["results"], strict=True)}

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.communicate(timeout=60)


@pytest.fixture
def root(make_project: Callable[..., Path]) -> Path:
    folder = make_project(DEFINITIONS)
    FeatureStore(folder).apply()
    return folder


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def one(mode: str = "writes") -> Server:
        servers.append(Server(root, mode))
        return servers[-1]

    yield one
    for server in servers:
        server.stop()


def rows(*ids: int, x: float = 0.5, at: str = "2013-01-01T11:00:00Z") -> dict[str, list[Any]]:
    return {"id": list(ids), "at": [at] * len(ids), "x": [x] * len(ids), "name": [f"n{one}" for one in ids]}


def test_a_push_is_visible_durable_and_history(root: Path, start: Callable[..., Server]) -> None:
    server = start()
    status, counts = server.push("pushed", rows(1, 2))
    assert (status, counts["inserted"], counts["refused"]) == (200, 2, {})
    status, counts = server.push("events", rows(1, 1, 2))
    assert (status, counts.get("inserted")) == (200, 3), counts
    expected = {"id": [1, 2, 3], "x": [0.5, 0.5, None], "name": ["n1", "n2", None]}
    expected |= {"x_count_1d": [2, 1, None], "x_sum_1d": [1.0, 0.5, None]}
    assert server.values(1, 2, 3) == expected
    with pytest.raises(HeadraceError) as locked:
        FeatureStore(root).push("pushed", rows(3))
    assert locked.value.code == "store_locked"
    server.stop(signal.SIGKILL)
    assert start("reads").values(1, 2, 3) == expected
    joined = FeatureStore(root).get_historical_features("values", {"id": [1], "event_timestamp": [NOW]})
    assert (joined["name"].to_pylist(), joined["x_count_1d"].to_pylist()) == (["n1"], [2])


def test_a_deletion(start: Callable[..., Server]) -> None:
    server = start()
    server.push("pushed", rows(1, 2))
    body = {"keys": {"id": [1]}, "event_ts": "2013-01-01T11:30:00Z"}
    status, counts = server.post("/v1/feature-views/pushed/delete", body)
    assert (status, counts["deleted"]) == (200, 1)
    assert server.push("pushed", rows(1))[1]["stale"] == 1
    assert server.values(1, 2)["name"] == [None, "n2"]
    assert server.push("pushed", rows(1, at="2013-01-01T11:45:00Z"))[0] == 200
    assert server.values(1)["name"] == ["n1"]


def test_an_arrow_stream(start: Callable[..., Server]) -> None:
    server = start()
    at = pa.array([NOW] * 2, pa.timestamp("ns", "Europe/Zurich"))
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "at": at, "x": [1.5, None], "name": pa.array(["a", "b"])})
    table = table.set_column(3, "name", table["name"].dictionary_encode())
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    path = "/v1/feature-views/pushed/push"
    status, counts = server.post(path, sink.getvalue(), f"{STREAM}; version=1")
    assert (status, counts["inserted"]) == (200, 2), counts
    assert server.values(1, 2)["x"] == [1.5, None]
    assert server.post(path, sink.getvalue()[:-40], STREAM)[1]["code"] == "invalid_argument"
    assert server.post(path, b"\xff" * 64, STREAM)[1]["code"] == "invalid_argument"
    assert server.values(2)["name"] == ["b"], "it goes on"


def test_rows_that_are_wrong_are_refused_and_kept(root: Path, start: Callable[..., Server]) -> None:
    server = start()
    columns = rows(1, 2, 3, 4)
    columns["x"][1] = "much"
    columns["id"][2] = None
    columns["at"][3] = "2013-01-02T12:00:00Z"
    status, counts = server.push("pushed", columns)
    assert (status, counts["rows"], counts["inserted"]) == (200, 4, 1)
    assert counts["refused"] == {"type_mismatch": 1, "null_key": 1, "future": 1}
    letters = [pq.read_table(path) for path in (root / ".headrace/dead-letter/pushed").glob("*.parquet")]
    assert sum(table.num_rows for table in letters) == 3


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("push", {"columns": {"id": [1]}}, 400, "missing_column"),
        ("push", {"columns": {}}, 400, "missing_column"),
        ("push", b"{", 400, "invalid_json"),
        ("push", {"columns": {"id": [1, 2], "at": []}}, 400, "length_mismatch"),
        ("delete", {"keys": {}}, 400, "missing_column"),
        ("delete", {"keys": {"id": [None]}}, 200, None),
    ],
)
def test_what_is_wrong_is_said(start: Callable[..., Server], path: str, body: Any, status: int, code: Any) -> None:
    server = start()
    found = server.post(f"/v1/feature-views/pushed/{path}", body)
    assert (found[0], found[1].get("code")) == (status, code), found
    assert server.post(f"/v1/feature-views/pusht/{path}", body)[1]["code"] == "unknown_feature_view"


def test_a_server_that_does_not_write_says_so(root: Path, start: Callable[..., Server]) -> None:
    server = start("reads")
    status, found = server.push("pushed", rows(1))
    assert (status, found["code"]) == (403, "read_only") and "--writes" in found["error"]
    with FeatureStore(root, clock=lambda: NOW) as store:
        store.push("pushed", {**rows(1), "at": [NOW]})


def test_a_locked_store_is_another_time(root: Path, start: Callable[..., Server]) -> None:
    server = start()
    with FeatureStore(root, clock=lambda: NOW) as store:
        store.push("pushed", {**rows(1), "at": [NOW]})
        status, found = server.push("pushed", rows(2))
        assert (status, found["code"]) == (503, "store_locked")
    assert server.push("pushed", rows(2))[0] == 200
    assert server.values(1, 2)["name"] == ["n1", "n2"]
