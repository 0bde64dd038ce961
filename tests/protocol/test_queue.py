"""Requests for a slow model share its calls, one bad row fails alone, and what cannot be in time is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton

from headrace import Engine, FeatureStore, HeadraceError
from headrace.export import export_python_class

# A call costs 20 ms, however many rows it has.
CLASS = """
import time

class Model:
    def predict(self, batch):
        time.sleep(0.02)
        a = batch.column("a").to_numpy(zero_copy_only=False)
        if (a < 0).any():
            raise ValueError("a negative value")
        return 2 * a
"""

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, grpc_port=0, threads=2)
serve(Engine(sys.argv[1]), settings, lambda found: print(found["http"], found["grpc"], found["metrics"], flush=True))
"""


@dataclass(frozen=True)
class Addresses:
    http: str
    grpc: str
    metrics: str

    def count(self, metric: str) -> float:
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=30) as reply:
            page = reply.read().decode()
        return sum(float(found) for found in re.findall(rf"^{re.escape(metric)}{{.*}} (\S+)$", page, re.MULTILINE))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slow") / "project"
    root.mkdir()
    (root / "headrace.toml").write_text('[project]\nname = "slow"\n\n[queue]\nobjectives = {doubler = 5.0}\n')
    file = root / "doubler.py"
    file.write_text(CLASS)
    exported = export_python_class(file, np.array([[1.0], [2.0]]), {"a": "float64"}, task="regression")
    with FeatureStore(root) as store:
        store.register_model("doubler", exported)
    return root


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Addresses]:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(project)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield Addresses(*child.stdout.readline().split())
    finally:
        child.terminate()
        child.communicate(timeout=60)


def ask(server: Addresses, a: list[float], parameters: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    tensor = {"name": "features", "shape": [len(a), 1], "datatype": "FP64", "data": a}
    body = json.dumps({"inputs": [tensor], "parameters": parameters or {}}).encode()
    asked = urllib.request.Request(f"http://{server.http}/v2/models/doubler/infer", body)
    try:
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def values(answer: dict[str, Any]) -> list[float]:
    return next(output["data"] for output in answer["outputs"] if output["name"] == "value")


def test_requests_share_calls_over_http_and_grpc(server: Addresses) -> None:
    ask(server, [1.0])
    ask(server, [1.0, 2.0])  # from two sizes the queue knows what a row costs
    calls, answered = server.count("nv_inference_exec_count"), server.count("nv_inference_request_success")

    def over_grpc(number: float) -> list[float]:
        with triton_grpc.InferenceServerClient(server.grpc) as client:
            tensor = triton_grpc.InferInput("features", [1, 1], "FP64")
            tensor.set_data_from_numpy(np.array([[number]]))
            output = triton_grpc.InferRequestedOutput("value")
            found = client.infer("doubler", [tensor], outputs=[output]).as_numpy("value")
            assert found is not None
            return [float(value) for value in found]

    with ThreadPoolExecutor(24) as threads:
        http = [threads.submit(ask, server, [float(number)]) for number in range(24)]
        grpc = [threads.submit(over_grpc, 100.0 + number) for number in range(24)]
        for number, one in enumerate(http):
            status, answer = one.result()
            assert (status, values(answer)) == (200, [2.0 * number])
        assert [one.result() for one in grpc] == [[2.0 * (100 + number)] for number in range(24)]
    assert server.count("nv_inference_request_success") - answered == 48
    assert server.count("nv_inference_exec_count") - calls < 48
    assert server.count("headrace_queue_waiting_requests") == 0


def test_a_bad_row_fails_alone(server: Addresses) -> None:
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(ask, server, [-1.0 if number == 3 else float(number)]) for number in range(8)]
        answers = [one.result() for one in asked]
    assert [status for status, _ in answers] == [200, 200, 200, 500, 200, 200, 200, 200]
    assert "a negative value" in answers[3][1]["error"]
    status, answer = ask(server, [1.0, -5.0, 3.0])
    assert (status, values(answer)) == (200, [2.0, None, 6.0])
    assert "a negative value" in json.loads(answer["parameters"]["row_errors"])["1"]


def test_what_cannot_be_in_time_is_refused_when_it_comes(server: Addresses) -> None:
    status, answer = ask(server, [1.0], {"timeout": 5_000})
    assert (status, answer["code"]) == (503, "unavailable")
    assert "request's deadline" in answer["error"]
    assert ask(server, [1.0], {"timeout": 30_000_000, "priority": 1})[0] == 200
    assert ask(server, [1.0], {"priority": 10})[0] == 400
    assert server.count("headrace_queue_refused_requests_total") >= 1
    with triton.InferenceServerClient(server.http) as client:
        tensor = triton.InferInput("features", [1, 1], "FP64")
        tensor.set_data_from_numpy(np.array([[1.0]]))
        with pytest.raises(triton.InferenceServerException, match="overloaded"):
            client.infer("doubler", [tensor], timeout=5_000)


def test_threads_of_an_embedded_engine_share_calls_too(project: Path) -> None:
    with Engine(project) as engine:

        def predict(number: float) -> float:
            answer = engine.predict("doubler", features={"a": [number]}, outputs=["value"])
            return float(answer["predictions"][0]["value"])

        assert [predict(1.0), predict(2.0)] == [2.0, 4.0]
        with ThreadPoolExecutor(16) as threads:
            assert list(threads.map(predict, range(64))) == [2.0 * number for number in range(64)]
        with pytest.raises(HeadraceError, match="a negative value"):
            predict(-1.0)
