"""headrace.asgi: the same requests get the same bytes as from the server, alone and mounted in other applications."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import fastapi
import httpx
import numpy as np
import pytest
import starlette.applications
from starlette.routing import Mount
from tests.protocol.conftest import DEFINITIONS, NOW_US, write_model

import headrace
from headrace import Engine
from headrace.asgi import path_of
from headrace.client import AsyncClient

Request = tuple[str, str, bytes, dict[str, str]]

ROWS = {
    "id": "1",
    "entities": {"origin": ["JFK", "EWR", "Zürich"]},
    "request": {"planned": ["2013-01-01T03:00:00Z"] * 3, "seats": [0, None, 7]},
}
MANY = {"features": {"a": [0.5] * 300, "b": [1.0] * 300}}


def binary() -> Request:
    data = np.arange(6, dtype=np.float64).tobytes()
    tensor = {"name": "features", "datatype": "FP64", "shape": [3, 2], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"id": "b", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return "POST", "/v2/models/plain/infer", header + data, {"inference-header-content-length": str(len(header))}


def sent(path: str, body: Any, **headers: str) -> Request:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return "POST", path, content, {name.replace("_", "-"): value for name, value in headers.items()}


REQUESTS: list[Request] = [
    *(
        (method, path, b"", {})
        for method, path in [
            ("GET", "/v2"),
            ("GET", "/v2/"),
            ("GET", "/v2/health/live"),
            ("GET", "/v2/health/ready"),
            ("HEAD", "/v2/health/ready"),
            ("GET", "/v2/models"),
            ("GET", "/v2/models/late"),
            ("GET", "/v2/models/l%61te/versions/1?x=1"),
            ("GET", "/v2/models/late/versions/x"),
            ("GET", "/v2/models/late/ready"),
            ("GET", "/v2/models/late/config"),
            ("GET", "/v2/models/none%20of%2Fthese"),
            ("POST", "/v2/repository/index"),
            ("GET", "/v1/deployments"),
            ("GET", "/v1/deployments/late"),
            ("GET", "/v2/logging"),
            ("GET", "/v2/models/late/infer"),
            ("DELETE", "/v1/deployments/late"),
            ("BREW", "/v2"),
            ("GET", "/"),
            ("GET", "/metrics"),
            ("GET", "/v2//health/live"),
            ("POST", "/v2/systemsharedmemory/status"),
            ("POST", "/v2/repository/models/late/unload"),
        ]
    ),
    sent("/v1/deployments/late/predict", ROWS),
    sent("/v1/deployments/late/predict", {**ROWS, "outputs": ["label", "scores", "margin"]}),
    sent("/v1/deployments/late/predict", {**ROWS, "timeout_ms": 60000, "priority": 1}),
    sent("/v1/deployments/plain/predict", {"id": "e", "features": {"a": [1], "b": [2]}, "explain": True}),
    sent("/v1/deployments/late/versions/1/predict", ROWS),
    sent("/v1/deployments/late/versions/9/predict", ROWS),
    sent("/v1/deployments/plain/predict", {**MANY, "id": "x"}, accept_encoding="gzip"),
    sent("/v1/deployments/plain/predict", {**MANY, "id": "x"}, accept_encoding="deflate, br"),
    sent("/v1/deployments/plain/predict", gzip.compress(json.dumps(MANY).encode()), content_encoding="gzip"),
    sent("/v1/deployments/plain/predict", b"not gzip", content_encoding="gzip"),
    sent("/v1/deployments/plain/predict", b"{}", content_encoding="br"),
    sent("/v1/deployments/plain/predict", b"{"),
    sent("/v1/deployments/plain/predict", b""),
    sent("/v1/deployments/plain/predict", b"[" * 100_000),
    sent("/v1/deployments/plain/predict", b'{"features": {"a": [' + b"1," * 200_000 + b'1], "b": []}}'),
    sent("/get-online-features", {"feature_service": "risk", "entities": ROWS["entities"], "request": ROWS["request"]}),
    sent("/get-online-features", {"feature_service": "none"}),
    sent("/v1/feature-views/weather/push", {"columns": {}}),
    sent("/v1/feature-views/weather/delete", {"keys": {}}),
    binary(),
    sent("/v2/models/simple/infer", b"\0" * 64, inference_header_content_length="0"),
    sent("/v2/models/plain/infer", b"{}", inference_header_content_length="x"),
    sent("/v2/models/plain/infer", b"{}", inference_header_content_length="99"),
]

TOLD = ("content-type", "content-length", "content-encoding", "allow", "retry-after", "inference-header-content-length")


@pytest.fixture(scope="module")
def engine(project: Path) -> Iterator[Engine]:
    with Engine(project, clock_us=NOW_US) as engine:
        engine.add_fixtures()
        yield engine


def mounted(kind: str, engine: Engine) -> tuple[Any, str]:
    """An application, and the path at which headrace is in it."""
    application = headrace.asgi.app(engine)
    if kind == "alone":
        return application, ""
    if kind == "fastapi":
        host = fastapi.FastAPI()
        host.mount("/ml", application)
        return host, "/ml"
    inner = starlette.applications.Starlette(routes=[Mount("/b c", app=application)])
    return starlette.applications.Starlette(routes=[Mount("/a", app=inner)]), "/a/b%20c"


def scrubbed(reply: Any) -> tuple[int, dict[str, str], bytes]:
    """What is compared: all but made-up ids, times, and the lengths that these change."""
    timed = re.sub(rb'"timing_us":{[^}]*}', b"", reply.content)
    content = re.sub(rb'"id":"[0-9a-f-]{36}"', b"", timed)
    headers = {name: reply.headers[name] for name in TOLD if name in reply.headers}
    if content != reply.content:
        del headers["content-length"]
    return reply.status_code, headers, content


def test_the_answers_are_those_of_the_server(served: Any, engine: Engine) -> None:
    async def compare() -> None:
        applications = [mounted(kind, engine) for kind in ("alone", "fastapi", "starlette")]
        async with httpx.AsyncClient(base_url=f"http://{served.address}", trust_env=False) as server:
            server.headers.pop("accept-encoding")
            for method, path, body, headers in REQUESTS:
                expected = scrubbed(await server.request(method, path, content=body, headers=headers))
                for application, prefix in applications:
                    transport = httpx.ASGITransport(application)
                    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                        client.headers.pop("accept-encoding")
                        reply = await client.request(method, prefix + path, content=body, headers=headers)
                    assert scrubbed(reply) == expected, (method, prefix + path)

    asyncio.run(compare())


def test_both_answer_every_kind_of_status(served: Any) -> None:
    """So that the comparison compares something."""
    statuses = set()
    with httpx.Client(base_url=f"http://{served.address}", trust_env=False) as server:
        for method, path, body, headers in REQUESTS:
            statuses.add(server.request(method, path, content=body, headers=headers).status_code)
    assert {200, 400, 403, 404, 405, 501} <= statuses


def call(application: Any, method: str, path: str, messages: list[dict[str, Any]]) -> list[MutableMapping[str, Any]]:
    """What the application sends for a request that comes in these messages."""
    told: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": []}
    asyncio.run(application(scope, receive, send))
    return told


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_bodies_are_bounded_and_may_come_in_parts(engine: Engine) -> None:
    application = headrace.asgi.app(engine, body_bytes_max=100)
    path = "/v1/deployments/minutes/predict"
    told = call(application, "POST", path, [part(b'{"features": '), part(b""), part(b'{"a": [1.5]}}', more=False)])
    assert told[0]["status"] == 200
    assert json.loads(told[1]["body"])["predictions"] == [{"value": 3.0}]
    messages = [part(b" " * 60), part(b" " * 60), part(b" " * 1000, more=False)]
    told = call(application, "POST", path, messages)
    assert (told[0]["status"], json.loads(told[1]["body"])["code"]) == (413, "too_large")
    assert messages == []
    assert call(application, "POST", path, [part(b"{"), {"type": "http.disconnect"}]) == []
    bomb = gzip.compress(b" " * 10_000)
    assert len(bomb) < 100
    told = call(application, "POST", path, [part(b"x" * 101, more=False)])
    assert told[0]["status"] == 413


def test_other_scopes(engine: Engine) -> None:
    application = headrace.asgi.app(engine, refresh_seconds=0.01)
    told: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    async def live() -> None:
        messages = asyncio.Queue[dict[str, Any]]()
        messages.put_nowait({"type": "lifespan.startup"})
        task = asyncio.create_task(application({"type": "lifespan"}, messages.get, send))
        await asyncio.sleep(0.1)  # it refreshes a few times
        messages.put_nowait({"type": "lifespan.shutdown"})
        await task
        messages.put_nowait({"type": "websocket.connect"})
        await application({"type": "websocket"}, messages.get, send)
        with pytest.raises(NotImplementedError):
            await application({"type": "other"}, messages.get, send)

    asyncio.run(live())
    kinds = [message["type"] for message in told]
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


@pytest.mark.parametrize(
    ("path", "root", "raw", "expected"),
    [
        ("/ml/v2", "/ml", b"/ml/v2", "/v2"),
        ("/ml/v2/models/a b", "/ml", b"/%6dl/v2/models/a%20b", "/v2/models/a%20b"),
        ("/ml", "/ml", b"/ml", "/"),
        ("/mlx/v2", "/ml", b"/mlx/v2", "/mlx/v2"),
        ("/v2/a b", "", None, "/v2/a%20b"),
        ("/x/y/v2", "/x/y/", None, "/v2"),
    ],
)
def test_the_path_below_the_mount(path: str, root: str, raw: bytes | None, expected: str) -> None:
    assert path_of({"path": path, "root_path": root, "raw_path": raw}) == expected


def test_writes_and_models_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "headrace.toml").write_text("")
    (tmp_path / "features" / "all.py").write_text(DEFINITIONS)
    with headrace.FeatureStore(tmp_path) as store:
        store.apply()
    write_model(tmp_path / ".headrace" / "models" / "minutes" / "1", "regression", {"a": ("float64", 2.0)}, None)

    async def ask(post: Callable[[str, Any], Any]) -> None:
        columns = {"origin": ["JFK"], "at": ["2013-01-01T03:00:00Z"], "temp": [7.5], "wind": [0.5]}
        pushed = await post("/v1/feature-views/weather/push", {"columns": columns})
        assert (pushed.status_code, pushed.json()["inserted"]) == (200, 1)
        found = await post(
            "/get-online-features",
            {
                "feature_service": "risk",
                "entities": {"origin": ["JFK"], "planned": ["2013-01-01T03:00:00Z"], "seats": [1]},
            },
        )
        assert found.json()["results"][1]["values"] == [7.5]
        wrong = await post("/v1/feature-views/weather/push", {"columns": {"origin": [1]}})
        assert wrong.status_code == 400
        deleted = await post("/v1/feature-views/weather/delete", {"keys": {"origin": ["JFK"]}})
        assert deleted.json()["rows"] == 1
        assert (await post("/v2/repository/models/minutes/unload", {})).status_code == 200
        assert (await post("/v1/deployments/minutes/predict", {"features": {"a": [1]}})).status_code != 200
        assert (await post("/v2/repository/models/minutes/load", {})).status_code == 200
        assert (await post("/v1/deployments/minutes/predict", {"features": {"a": [1]}})).status_code == 200
        assert (await post("/v2/repository/models/nobody/load", {})).status_code == 404

    async def main() -> None:
        with Engine(tmp_path, clock_us=NOW_US) as engine:
            application = headrace.asgi.app(engine, writes=True, model_control=True)
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                await ask(lambda path, body: client.post(path, json=body))

    asyncio.run(main())


def test_options_that_cannot_be_are_refused(engine: Engine) -> None:
    with pytest.raises(headrace.InputError):
        headrace.asgi.app(engine, body_bytes_max=0)
    with pytest.raises(headrace.InputError):
        headrace.asgi.app(engine, refresh_seconds=0)


def test_the_client_asks_a_mounted_application(served: Any) -> None:
    """Its address may have a path."""

    async def ask() -> None:
        async with AsyncClient(f"http://{served.address}/nowhere") as client:
            with pytest.raises(headrace.UnknownNameError, match="/nowhere/v1/deployments"):
                await client.deployments()

    asyncio.run(ask())
