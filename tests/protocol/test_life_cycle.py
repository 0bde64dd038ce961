"""Models come and go, and servers end, under requests that must not notice."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton
from tests.protocol.conftest import write_model
from tests.waiting import eventually

from headrace import Engine, UnknownNameError

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

told = sys.argv[2] == "yes"
settings = ServerSection(http_port=0, metrics_port=0, threads=2, refresh_seconds=0.05, model_control=told)
serve(Engine(sys.argv[1]), settings, lambda found: print(found["http"], found["grpc"], flush=True))
"""
BODY = json.dumps({"features": {"a": [1.0], "b": [2.0]}, "outputs": ["margin"]})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "headrace.toml").write_text('[project]\nname = "cycle"\n')
    folder = root / ".headrace" / "models"
    write_model(folder / "plain" / "1", "classification", {"a": ("float64", 1.0), "b": ("float64", -0.5)}, None)
    return folder


@contextmanager
def server(models: Path, model_control: bool = True) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with serving(models, model_control) as (child, address, _):
        yield child, address


@contextmanager
def serving(models: Path, model_control: bool = True) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server, and its addresses for HTTP and gRPC."""
    root = models.parent.parent
    arguments = [sys.executable, "-c", PROGRAM, str(root), "yes" if model_control else "no"]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        address, _, grpc = child.stdout.readline().strip().partition(" ")
        assert address, "the server did not start"
        yield child, address, grpc
    finally:
        child.kill()
        child.communicate()


class Caller(threading.Thread):
    """Asks one question after the other on one connection, until it is told that the connection ends."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.answers: list[float] = []
        self.faults: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=60)) as connection:
            self.ask(connection)

    def ask(self, connection: http.client.HTTPConnection) -> None:
        while not self.stopped.is_set():
            try:
                connection.request("POST", "/v1/deployments/plain/predict", BODY)
                reply = connection.getresponse()
                text = reply.read()
                if reply.status != 200:
                    self.faults.append(f"{reply.status} {text[:200]!r}")
                    return
                self.answers.append(json.loads(text)["predictions"][0]["margin"])
                if reply.getheader("connection") == "close":
                    return
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(repr(error))
                return


@contextmanager
def callers(address: str, count: int = 4) -> Iterator[list[Caller]]:
    started = [Caller(address) for _ in range(count)]
    for caller in started:
        caller.start()
    try:
        yield started
    finally:
        for caller in started:
            caller.stopped.set()
        for caller in started:
            caller.join(timeout=60)


def test_models_are_unloaded_and_loaded_by_triton_s_client(models: Path) -> None:
    with server(models) as (_, address), triton.InferenceServerClient(address) as client:
        assert client.is_model_ready("plain")
        client.unload_model("plain")
        assert not client.is_model_ready("plain")
        (entry,) = client.get_model_repository_index()
        assert (entry["name"], entry["version"], entry["state"]) == ("plain", "1", "UNAVAILABLE")
        assert "unloaded" in entry["reason"]
        # What is registered meanwhile does not bring it back.
        write_model(models / "plain" / "2", "classification", {"a": ("float64", 3.0), "b": ("float64", 0.0)}, None)
        time.sleep(0.3)
        assert not client.is_model_ready("plain")
        client.load_model("plain")
        assert client.is_model_ready("plain", "2")
        assert {entry["state"] for entry in client.get_model_repository_index()} == {"READY"}
        for change in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match=r"no version of|no model"):
                change("nobody")
        with pytest.raises(triton.InferenceServerException, match="loaded from the registry"):
            client.load_model("plain", config="{}")


def test_loading_is_refused_unless_it_was_allowed(models: Path) -> None:
    with server(models, model_control=False) as (_, address), triton.InferenceServerClient(address) as client:
        for change in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match="model_control") as refusal:
                change("plain")
            assert refusal.value.status() == "403"
        assert client.is_model_ready("plain")


def test_models_are_unloaded_and_loaded_over_grpc(models: Path) -> None:
    with serving(models) as (_, address, grpc), triton_grpc.InferenceServerClient(grpc) as client:
        client.unload_model("plain")
        assert not client.is_model_ready("plain")
        (entry,) = client.get_model_repository_index().models
        assert (entry.name, entry.version, entry.state) == ("plain", "1", "UNAVAILABLE")
        client.unload_model("plain", unload_dependents=True)
        write_model(models / "plain" / "2", "classification", {"a": ("float64", 3.0), "b": ("float64", 0.0)}, None)
        client.load_model("plain")
        assert client.is_model_ready("plain", "2")
        with triton.InferenceServerClient(address) as other:
            assert other.is_model_ready("plain", "2")
        for change in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match=r"no version of|no model") as unknown:
                change("nobody")
            assert unknown.value.status() == "StatusCode.NOT_FOUND"
        for wrong in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"hi"}}):
            with pytest.raises(triton.InferenceServerException, match="loaded from the registry"):
                client.load_model("plain", **wrong)
        assert client.is_model_ready("plain", "2")


def test_models_are_changed_by_the_asynchronous_client_while_others_ask(models: Path) -> None:
    async def change(grpc: str) -> None:
        async with triton_aio.InferenceServerClient(grpc) as client:
            for _ in range(5):
                await asyncio.gather(*(client.load_model("plain") for _ in range(4)))
            await client.unload_model("plain")
            assert not await client.is_model_ready("plain")
            await client.load_model("plain")
            assert await client.is_model_ready("plain")

    with serving(models) as (_, _, grpc):
        asyncio.run(change(grpc))


def test_loading_over_grpc_is_refused_unless_it_was_allowed(models: Path) -> None:
    with serving(models, model_control=False) as (_, _, grpc), triton_grpc.InferenceServerClient(grpc) as client:
        for change in (client.load_model, client.unload_model):
            with pytest.raises(triton.InferenceServerException, match="model_control") as refusal:
                change("plain")
            assert refusal.value.status() == "StatusCode.PERMISSION_DENIED"
        assert client.is_model_ready("plain")


def test_a_model_that_cannot_be_loaded_is_named_and_the_old_one_answers(models: Path) -> None:
    with server(models) as (_, address), triton.InferenceServerClient(address) as client:
        shutil.copytree(models / "plain" / "1", models / "plain" / "2")
        (models / "plain" / "2" / "linear.json").write_text("{}")
        with pytest.raises(triton.InferenceServerException):
            client.load_model("plain")
        assert client.is_model_ready("plain", "1")
        assert not client.is_model_ready("plain", "2")


def test_versions_are_swapped_under_requests_that_notice_nothing(models: Path) -> None:
    with server(models) as (_, address), triton.InferenceServerClient(address) as client, callers(address) as asking:
        for version in range(2, 12):
            weights = {"a": ("float64", float(version)), "b": ("float64", 0.0)}
            write_model(models / "plain" / str(version), "classification", weights, None)
            client.load_model("plain")
            shutil.rmtree(models / "plain" / str(version - 1))
        eventually(lambda: all(caller.answers[-1:] == [11.0] for caller in asking))
    for caller in asking:
        assert not caller.faults
        assert set(caller.answers) <= {0.0, *map(float, range(2, 12))}


def test_a_server_that_is_told_to_stop_loses_no_request(models: Path) -> None:
    with server(models) as (child, address), callers(address, 8) as asking:
        eventually(lambda: all(len(caller.answers) > 20 for caller in asking))
        child.send_signal(signal.SIGTERM)
        for caller in asking:
            caller.join(timeout=60)
        assert child.wait(timeout=60) == 0
    assert [caller.faults for caller in asking] == [[]] * 8


def resident_kib(child: subprocess.Popen[str]) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def test_loading_and_unloading_again_and_again_holds_no_memory(models: Path) -> None:
    """`HEADRACE_SOAK=1000` makes a thousand cycles."""
    cycles = int(os.environ.get("HEADRACE_SOAK", "60"))
    weights = {f"feature_{number}": ("float64", 0.5) for number in range(2000)}
    write_model(models / "wide" / "1", "regression", weights, None)
    body = json.dumps({"features": {name: [1.0] for name in weights}, "outputs": ["value"]})
    with server(models) as (child, address), triton.InferenceServerClient(address) as client:
        held = []
        with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            for _ in range(cycles):
                client.load_model("wide")
                connection.request("POST", "/v1/deployments/wide/predict", body)
                assert json.loads(connection.getresponse().read())["predictions"] == [{"value": 1000.0}]
                client.unload_model("wide")
                held.append(resident_kib(child))
    # A model is 250 KiB in files and more in memory: keeping each one would show.
    assert held[-1] - held[cycles // 3] < 4096, held


def test_an_engine_in_this_process_does_the_same(models: Path) -> None:
    with Engine(models.parent.parent) as engine:
        engine.unload_model("plain")
        engine.refresh()
        with pytest.raises(UnknownNameError):
            engine.predict("plain", features={"a": [1.0], "b": [2.0]})
        engine.load_model("plain")
        assert engine.predict("plain", features={"a": [1.0], "b": [2.0]}, outputs=["margin"])["predictions"]
        with pytest.raises(UnknownNameError, match="nobody"):
            engine.load_model("nobody")
        with pytest.raises(UnknownNameError, match="nobody"):
            engine.unload_model("nobody")
