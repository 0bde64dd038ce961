"""headrace.Client and AsyncClient against real servers over both transports, and against servers that are no good."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from tests.protocol.fake_server import answer, faked

import headrace
from headrace import HeadraceError, InputError, ProcessError, StoreError, UnknownNameError
from headrace.client import AsyncClient, Client, Retries, Tls
from headrace.client.failures import split_hint

NO_PAUSE = Retries(first_pause=0.0)
MINUTES = {
    "id": "a",
    "deployment": "minutes",
    "model": "minutes",
    "model_version": "1",
    "task": "regression",
    "predictions": [{"value": 2.0}],
    "timing_us": {"total": 1.5},
}
BUSY = {"error": "too many requests are waiting (try again in a second)", "code": "unavailable"}


class Blocking:
    """AsyncClient with the face of Client, so that each test asks both."""

    def __init__(self, address: str, **options: Any) -> None:
        self._client = AsyncClient(address, **options)
        self._runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *given, **named: self._runner.run(getattr(self._client, name)(*given, **named))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(params=[Client, Blocking], ids=["sync", "async"])
def client_type(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, served: Any, client_type: Any) -> Iterator[Any]:
    address = f"http://{served.address}" if request.param == "http" else f"grpc://{served.grpc}"
    with client_type(address, timeout=30) as client:
        yield client


def test_predictions_are_those_of_the_embedded_engine(client: Any, served: Any, rows: dict[str, Any]) -> None:
    answer = client.predict("late", **rows, outputs=["label", "scores", "margin"], id="mine")
    expected = served.engine.predict("late", **rows, outputs=["label", "scores", "margin"])
    assert [one.label for one in answer] == [one["label"] for one in expected["predictions"]]
    assert [one.scores for one in answer] == [one["scores"] for one in expected["predictions"]]
    assert [one.margin for one in answer] == [(one["margin"],) for one in expected["predictions"]]
    assert (answer.id, answer.deployment, answer.model_version, answer.task) == ("mine", "late", 2, "classification")
    assert set(answer.timing_us) == {"queue", "lookup", "transform", "model", "total"}
    assert client.predict("late", **rows, version=1).model_version == 1
    assert len(client.predict("late", **rows).id) == 32


def test_columns_may_be_arrays_frames_and_datetimes(client: Any, rows: dict[str, Any]) -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    expected = [one.scores for one in client.predict("late", **rows)]
    times = [dt.datetime.fromisoformat(text) for text in rows["request"]["planned"]]
    asked = {"planned": times, "seats": np.array(rows["request"]["seats"], np.int16)}
    as_array = {**asked, "planned": np.array([time.replace(tzinfo=None) for time in times], "datetime64[us]")}
    keys = {"origin": np.array(rows["entities"]["origin"], object)}
    for frame in (asked, as_array, pd.DataFrame(asked), pl.DataFrame(asked), pa.table(asked)):
        answer = client.predict("late", entities=keys, request=frame, priority=1)
        assert [one.scores for one in answer] == expected, type(frame)


def test_features_and_their_statuses_are_the_same_over_both_transports(client: Any, served: Any) -> None:
    entities = {"origin": ["JFK", "nowhere", None]}
    request = {"planned": ["2013-01-01T03:00:00.5Z"] * 3, "seats": [7, None, 3]}
    answer = client.features("risk", entities, request)
    expected = served.engine.get_online_features("risk", entities, request)
    assert answer.values["origin"] == ["JFK", "nowhere", None]
    assert {name: answer.values[name] for name in expected["features"]} == expected["features"]
    assert {name: answer.statuses[name] for name in expected["statuses"]} == expected["statuses"]
    assert answer.statuses["temp"] == ["PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert "weather__temp" in client.features("risk", entities, request, full_feature_names=True).values


def test_a_row_that_fails_says_why_and_the_others_are_answered(client: Any, rows: dict[str, Any]) -> None:
    asked = {**rows["request"], "seats": [0, None, 7]}
    first, second, third = client.predict("late", entities=rows["entities"], request=asked)
    assert first.error is None
    assert third.label is not None
    assert isinstance(second.error, InputError)
    assert "is null" in second.error.message
    assert second.error.hint.startswith("give a value")
    assert second.label is None
    assert second.scores == {"on_time": None, "späť": None}


def test_an_explanation_tells_what_each_feature_adds(client: Any) -> None:
    columns = {"a": np.array([3.0, 4.0]), "b": [2.0, 2.0]}
    for explain in (True, {"top": 1}):
        for one in client.predict("plain", features=columns, outputs=["margin"], explain=explain):
            assert one.label is None
            assert one.scores is None
            (explained,) = one.explanation
            total = explained.expected + sum(explained.contributions.values()) + (explained.others or 0.0)
            assert (total,) == pytest.approx(one.margin)
            assert len(explained.contributions) == (2 if explain is True else 1)


def test_tensors_come_back_as_arrays(client: Any, served: Any, rows: dict[str, Any]) -> None:
    features = np.array([[1, 2], [3, -4], [0, 0]], np.float32)
    answer = client.infer("plain", {"features": features}, id="t")
    assert answer["margin"].tolist() == [[0.0], [5.0], [0.0]]
    assert answer["label"].tolist()[1] == "späť".encode()
    assert (answer.id, answer.model, answer.model_version) == ("t", "plain", "1")
    assert list(client.infer("plain", {"features": features}, outputs=["scores"], version=1)) == ["scores"]
    inputs = {
        "origin": np.array(rows["entities"]["origin"]),
        "planned": np.array([text.removesuffix("Z") for text in rows["request"]["planned"]], "datetime64[us]"),
        "seats": np.array(rows["request"]["seats"], ">i4"),
    }
    expected = [list(one["scores"].values()) for one in served.engine.predict("late", **rows)["predictions"]]
    assert client.infer("late", inputs)["scores"].tolist() == expected
    sums = client.infer("simple", {name: np.full((1, 16), 3, np.int32) for name in ("INPUT0", "INPUT1")}, priority=9)
    assert sums["OUTPUT0"].dtype == np.int32
    assert sums["OUTPUT0"].tolist() == [[6] * 16]
    texts = np.array([["ä", "b\0c"]], object)
    same = client.infer("simple_identity", {"INPUT0": texts})["OUTPUT0"]
    assert same.tolist() == [["ä".encode(), b"b\0c"]]


def test_rows_that_a_model_cannot_answer_are_named_beside_tensors(client: Any) -> None:
    answer = client.infer("minutes", {"a": np.array([1.0, np.nan])})
    assert list(answer.row_errors) == [1]
    assert answer["value"].tolist()[0] == 2.0


def test_what_is_served_is_told(client: Any) -> None:
    listed = {one.name: one for one in client.deployments()}
    assert listed["late"].versions == (1, 2)
    assert listed["late"].feature_service == "risk"
    assert listed["plain"].feature_service is None
    late = client.deployment("late")
    assert [(field.name, field.dtype) for field in late.request] == [("planned", "timestamp"), ("seats", "int32")]
    assert late.classes == ("on_time", "späť")
    assert client.metadata().name == "headrace"
    assert "binary_tensor_data" in client.metadata().extensions
    model = client.model_metadata("simple")
    first = model.inputs[0]
    assert (first.name, first.datatype, first.shape) == ("INPUT0", "INT32", (-1, 16))
    assert client.live()
    assert client.ready()
    assert client.ready("late", 1)
    assert not client.ready("late", 7)
    assert not client.ready("nobody")


@pytest.mark.parametrize(
    ("method", "given", "kind", "code", "part"),
    [
        ("predict", {"deployment": "lat"}, UnknownNameError, "unknown_model", "'lat'"),
        ("predict", {"deployment": "plain", "features": {"a": [1.0]}}, InputError, "missing_column", "'b'"),
        ("predict", {"deployment": "plain", "features": {"c": [1.0]}}, UnknownNameError, "unknown_feature", "'c'"),
        ("features", {"service": "rusk"}, UnknownNameError, "unknown_feature_service", "'rusk'"),
        ("infer", {"model": "plain", "inputs": {"x": np.zeros(1)}}, UnknownNameError, "unknown_feature", "'x'"),
        ("infer", {"model": "plain", "inputs": {"x": np.zeros(1, complex)}}, InputError, "type_mismatch", "complex"),
        ("deployment", {"name": "lat"}, UnknownNameError, "unknown_model", "'lat'"),
        ("predict", {"deployment": ""}, InputError, "invalid_argument", "not a name"),
        ("predict", {"deployment": "plain", "features": [1]}, InputError, "type_mismatch", "not columns"),
        ("predict", {"deployment": "plain", "features": {"a": "text"}}, InputError, "type_mismatch", "not a list"),
        ("predict", {"deployment": "plain", "features": {"a": [{}]}}, InputError, "type_mismatch", "holds {}"),
        ("predict", {"deployment": "plain", "priority": 10}, InputError, "invalid_argument", "priority"),
        ("predict", {"deployment": "plain", "outputs": ["x"]}, InputError, "invalid_argument", "'x'"),
        ("predict", {"deployment": "plain", "explain": {"top": 0}}, InputError, "invalid_argument", "explain"),
        ("predict", {"deployment": "plain", "timeout": 0}, InputError, "invalid_argument", "timeout"),
    ],
)
def test_refusals_are_the_exceptions_of_headrace(
    client: Any, method: str, given: dict[str, Any], kind: type[HeadraceError], code: str, part: str
) -> None:
    with pytest.raises(kind, match=part) as raised:
        getattr(client, method)(**given)
    assert raised.value.code == code
    assert raised.value.hint


def test_errors_tell_the_id_of_the_request(client: Any) -> None:
    with pytest.raises(UnknownNameError) as raised:
        client.predict("nobody", id="request 7")
    assert raised.value.request_id == "request 7"
    assert "request id: request 7" in raised.value.__notes__


SLOW = """
import time

class Model:
    def predict(self, batch):
        time.sleep(0.5)
        return batch.column("a").to_numpy(zero_copy_only=False)
"""

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2, writes=True)
serve(Engine(sys.argv[1]), settings, lambda found: print(found["http"], found["grpc"], flush=True))
"""

DEFINITIONS = """
from headrace import Entity, FeatureService, FeatureView, Field, Float64, Int64, PushSource

item = Entity("item", join_keys=[Field("item_id", Int64)])
view = FeatureView("prices", [item], [Field("price", Float64)], PushSource(event_ts="at"))
service = FeatureService("priced", [view])
"""


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a server that takes writes, and has a model that takes half a second."""
    from headrace.export import export_python_class

    root = tmp_path_factory.mktemp("writing") / "project"
    (root / "features").mkdir(parents=True)
    (root / "headrace.toml").write_text("")
    (root / "features" / "all.py").write_text(DEFINITIONS)
    (root.parent / "slow.py").write_text(SLOW)
    with headrace.FeatureStore(root) as store:
        store.apply()
        exported = export_python_class(root.parent / "slow.py", np.array([[1.0]]), {"a": "float64"}, task="regression")
        store.register_model("slow", exported)
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        http, _, grpc = child.stdout.readline().strip().partition(" ")
        assert http, "the server did not start"
        yield http, grpc
    finally:
        child.terminate()
        child.communicate(timeout=60)


def test_rows_are_pushed_found_and_deleted(client_type: Any, writing: tuple[str, str]) -> None:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    at = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    one, two, three, four = range(10, 14) if client_type is Client else range(20, 24)
    with client_type(f"http://{writing[0]}", timeout=30) as client:
        rows = {"item_id": [one, two], "at": [at, at], "price": np.array([9.5, np.nan])}
        assert client.push("prices", rows).rows == 2
        again = client.push("prices", rows)  # as a retry does
        assert (again.inserted, again.refused) == (0, {})
        for make in (pa.table, pl.DataFrame, pd.DataFrame):
            frame = make({"item_id": [three], "at": [at], "price": [1.25]})
            assert client.push("prices", frame).rows == 1
        found = client.features("priced", {"item_id": [one, two, three, four]})
        assert found.values["price"] == [9.5, None, 1.25, None]
        assert found.statuses["price"] == ["PRESENT", "NULL_VALUE", "PRESENT", "NOT_FOUND"]
        counts = client.delete("prices", {"item_id": [one, three]}, event_ts=at + dt.timedelta(days=1))
        assert counts.rows == 2
        assert client.features("priced", {"item_id": [one]}).statuses["price"] == ["NOT_FOUND"]
        with pytest.raises(UnknownNameError, match="'nothing'"):
            client.push("nothing", rows)
        client.delete("prices", {"item_id": [two]})


def test_writes_are_refused_where_there_are_none(client_type: Any, served: Any, writing: tuple[str, str]) -> None:
    with client_type(f"http://{served.address}") as client, pytest.raises(StoreError, match="does not write"):
        client.push("weather", {})
    with client_type(f"grpc://{writing[1]}") as client, pytest.raises(UnknownNameError, match="not written over gRPC"):
        client.push("prices", {})


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_deadline_ends_a_call(client_type: Any, writing: tuple[str, str], transport: str) -> None:
    address = f"http://{writing[0]}" if transport == "http" else f"grpc://{writing[1]}"
    with client_type(address) as client:
        with pytest.raises(ProcessError) as raised:
            client.predict("slow", features={"a": [1.0]}, timeout=0.05)
        # The client's own word, or the server's, which is told the limit and begins nothing that is late.
        assert raised.value.code in ("deadline_exceeded", "unavailable")
        assert client.predict("slow", features={"a": [1.0]}, timeout=60)[0].value == 1.0


def test_the_server_is_told_how_long_the_caller_waits(client_type: Any) -> None:
    with faked(answer(200, MINUTES)) as server, client_type(server.address) as client:
        assert client.predict("minutes", features={"a": [1.0]}, timeout=2.5)[0].value == 2.0
        line, _, body = server.requests[0]
        assert line == "POST /v1/deployments/minutes/predict HTTP/1.1"
        assert 2000 < json.loads(body)["timeout_ms"] <= 2500
        with pytest.raises(ProcessError):
            client.infer("minutes", {"a": np.zeros(1)}, timeout=2.5)
        header = json.loads(server.requests[1][2][: int(server.requests[1][1]["inference-header-content-length"])])
        assert 2_000_000 < header["parameters"]["timeout"] <= 2_500_000


def test_busy_servers_are_asked_again(client_type: Any) -> None:
    busy = answer(503, BUSY, "retry-after: 0")
    with faked(busy, b"", busy, answer(200, MINUTES)) as server:
        with client_type(server.address, retries=NO_PAUSE) as client:
            assert client.predict("minutes", features={"a": [1.0]})[0].value == 2.0
        assert len(server.requests) == 4


def test_a_busy_server_that_stays_so_is_left_alone(client_type: Any) -> None:
    with faked(answer(503, BUSY, "retry-after: 0")) as server:
        with client_type(server.address, retries=NO_PAUSE) as client:
            with pytest.raises(ProcessError, match="too many requests") as raised:
                client.predict("minutes", features={"a": [1.0]}, id="x")
            assert raised.value.hint == "try again in a second"
            assert "after 4 attempts" in raised.value.__notes__
            assert len(server.requests) == 4
            for _ in range(20):
                with pytest.raises(ProcessError):
                    client.predict("minutes", features={"a": [1.0]})
        # 21 calls, 10 retries from the bucket and 2 that the calls have earned.
        assert 21 + 10 <= len(server.requests) <= 21 + 13


def test_what_is_asked_to_wait_longer_than_the_deadline_is_told_at_once(client_type: Any) -> None:
    with faked(answer(503, BUSY, "retry-after: 30")) as server:
        with client_type(server.address) as client, pytest.raises(ProcessError, match="too many requests"):
            client.predict("minutes", features={"a": [1.0]}, timeout=5)
        assert len(server.requests) == 1


def test_a_503_that_names_no_time_is_not_asked_again(client_type: Any) -> None:
    with faked(answer(503, b"<html>")) as server:
        with client_type(server.address, retries=NO_PAUSE) as client, pytest.raises(ProcessError, match="status 503"):
            client.deployments()
        assert len(server.requests) == 1


def test_only_writes_that_may_come_twice_are_sent_twice(client_type: Any) -> None:
    done = answer(200, {"rows": 1, "deleted": 1, "something_new": 3})
    with faked(b"", done) as server, client_type(server.address, retries=NO_PAUSE) as client:
        assert client.push("view", {"a": [1]}).rows == 1
        assert len(server.requests) == 2
    with faked(b"", done) as server, client_type(server.address, retries=NO_PAUSE) as client:
        with pytest.raises(ProcessError, match="cannot be reached"):
            client.delete("view", {"a": [1]})
        assert len(server.requests) == 1
        assert client.delete("view", {"a": [1]}, event_ts=5).deleted == 1
        assert json.loads(server.requests[1][2])["event_ts"] == "1970-01-01T00:00:00.000005Z"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there(client_type: Any, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with client_type(f"{scheme}://127.0.0.1:{port}", retries=NO_PAUSE) as client:
        with pytest.raises(ProcessError, match="cannot be reached") as raised:
            client.deployments()
        assert raised.value.code == "unavailable"
        assert not client.ready()
        assert not client.live()


@pytest.mark.parametrize(
    "bytes_",
    [
        answer(200, MINUTES)[:-5],
        answer(200, b"{"),
        answer(200, b"[]"),
        answer(200, b"null"),
        answer(200, b"[" * 200_000),
        answer(200, b"\xff\xfe"),
        answer(200, {**MINUTES, "predictions": 7}),
        answer(200, {**MINUTES, "predictions": [{"value": "2"}]}),
        answer(200, {**MINUTES, "predictions": [{"scores": [1]}]}),
        answer(200, {**MINUTES, "predictions": [{"status": {}}]}),
        answer(200, {**MINUTES, "model_version": "two"}),
        answer(200, {**MINUTES, "timing_us": None}),
        answer(200, b'{"id": %b}' % (b"9" * 10_000)),
        answer(204, b""),
        answer(301, b"", "location: http://127.0.0.1:1/"),
        answer(500, b"oh"),
        answer(500, {"error": 1, "code": []}),
        answer(400, {"error": "x" * 1_000_000, "code": "y" * 1_000_000}),
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    ],
    ids=range(24),
)
def test_answers_of_no_headrace_server_are_errors_of_headrace(client_type: Any, bytes_: bytes) -> None:
    with faked(bytes_) as server, client_type(server.address, retries=NO_PAUSE) as client:
        with pytest.raises(HeadraceError) as raised:
            client.predict("minutes", features={"a": [1.0]}, timeout=10)
        assert len(str(raised.value)) < 5000
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("told", "blob"),
    [
        ({"binary_data_size": 8}, b"1234"),
        ({"binary_data_size": 4}, b"1234"),
        ({"binary_data_size": -8}, b"12345678"),
        ({"binary_data_size": "8"}, b"12345678"),
        ({}, b""),
    ],
)
def test_tensors_that_do_not_fit_are_refused(client_type: Any, told: dict[str, Any], blob: bytes) -> None:
    output = {"name": "value", "datatype": "FP64", "shape": [1], "parameters": told}
    header = json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode()
    length = f"inference-header-content-length: {len(header)}"
    with faked(answer(200, header + blob, length)) as server, client_type(server.address) as client:  # noqa: SIM117
        with pytest.raises(ProcessError, match="cannot be read"):
            client.infer("m", {"a": np.zeros(1)})


def test_answers_larger_than_the_limit_are_not_read(client_type: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.client.http_transport.ANSWER_BYTES_MAX", 10_000)
    bomb = answer(200, gzip.compress(b" " * 10_000_000), "content-encoding: gzip")
    for told in (answer(200, b" " * 20_000), bomb):
        with faked(told) as server, client_type(server.address) as client:  # noqa: SIM117
            with pytest.raises(ProcessError, match="more than 10000 bytes"):
                client.deployments()


def test_a_server_that_stops_in_the_middle_is_waited_for_until_the_deadline(client_type: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with client_type(address) as client, pytest.raises(ProcessError) as raised:
            client.deployments(timeout=0.2)
        assert raised.value.code == "deadline_exceeded"
        assert "0.2 s" in raised.value.message or "0.1" in raised.value.message


def test_a_key_is_sent_from_wherever_it_is(client_type: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from-file\n")
    monkeypatch.setenv("HEADRACE_API_KEY", "from-environment")
    with faked(answer(200, {"deployments": []})) as server:
        for options in ({"api_key": "given"}, {"api_key_file": tmp_path / "key"}, {}):
            with client_type(server.address, **options) as client:
                assert client.deployments() == []
        monkeypatch.delenv("HEADRACE_API_KEY")
        with client_type(server.address) as client:
            client.deployments()
        sent = [headers.get("authorization") for _, headers, _ in server.requests]
    assert sent == ["Bearer given", "Bearer from-file", "Bearer from-environment", None]


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("127.0.0.1:8000", {}),
        ("ftp://127.0.0.1", {}),
        ("http://", {}),
        ("http://user:word@host", {}),
        ("http://host:99999", {}),
        ("grpc://host/path", {}),
        ("http://host", {"api_key": "two words"}),
        ("http://host", {"api_key": "line\nbreak"}),
        ("http://host", {"tls": Tls()}),
        ("grpcs://host", {"tls": Tls(verify=False)}),
        ("http://host", {"timeout": -1}),
        ("http://host", {"connections_max": 0}),
    ],
)
def test_options_that_cannot_be_are_refused(client_type: Any, address: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError) as raised, client_type(address, **options) as client:
        client.deployments()
    assert raised.value.hint


def test_many_calls_share_connections(served: Any) -> None:
    async def ask() -> list[float | None]:
        async with AsyncClient(f"http://{served.address}", connections_max=4, timeout=60) as client:
            calls = [client.predict("minutes", features={"a": [float(number)]}) for number in range(50)]
            return [answer[0].value for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [2.0 * number for number in range(50)]


def test_the_hint_is_told_apart_from_the_message() -> None:
    assert split_hint("no (really) (use `a (b)` or c)") == ("no (really)", "use `a (b)` or c")
    assert split_hint("f(x)") == ("f(x)", "")
    assert split_hint("plain") == ("plain", "")
    assert split_hint("odd) x)") == ("odd) x)", "")


def test_the_client_does_not_use_the_engine() -> None:
    """It may be installed where no compiled module is: only the package around it imports that."""
    folder = Path(headrace.__file__).parent / "client"
    allowed = {"headrace.errors"}
    for path in folder.glob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] == ["from"] and words[1].startswith("headrace"):
                assert words[1] in allowed or words[1].startswith("headrace.client"), line
    assert headrace.Client is Client
