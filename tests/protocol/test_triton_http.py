"""Triton's own HTTP client, sync and asyncio, against the models of Triton's examples: every call that is served."""

from __future__ import annotations

import asyncio
import gzip
import json
import urllib.error
import urllib.request
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the client's own dependencies
    client_http = pytest.importorskip("tritonclient.http", reason="install it with: pip install 'tritonclient[http]'")
    client_aio = pytest.importorskip("tritonclient.http.aio")

from tritonclient.utils import InferenceServerException

LEFT = np.arange(32, dtype=np.int32).reshape(2, 16)
RIGHT = np.ones((2, 16), dtype=np.int32)


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[Any]:
    with client_http.InferenceServerClient(served.address) as client:
        yield client


def tensor(name: str, values: np.ndarray[Any, Any], datatype: str, binary: bool = True) -> Any:
    made = client_http.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def pair(binary: bool = True, left: Any = LEFT, right: Any = RIGHT) -> list[Any]:
    return [tensor("INPUT0", left, "INT32", binary), tensor("INPUT1", right, "INT32", binary)]


def texts(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([str(value).encode() for value in values.ravel()], dtype=np.object_).reshape(values.shape)


def call(served: Any, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """A request by hand: status, headers and body."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{served.address}{path}", body, given)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, dict(reply.headers.items()), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), error.read()


def infer(served: Any, model: str, message: dict[str, Any]) -> tuple[int, Any]:
    status, _, body = call(served, f"/v2/models/{model}/infer", json.dumps(message).encode())
    return status, json.loads(body)


def test_server_and_models_describe_themselves(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("simple", "1")
    extensions = set(client.get_server_metadata()["extensions"])
    assert {"classification", "binary_tensor_data", "statistics", "trace", "logging", "schedule_policy"} <= extensions
    assert client.get_model_metadata("simple", "1") == {
        "name": "simple",
        "versions": ["1"],
        "platform": "headrace_fixture",
        "inputs": [{"name": name, "datatype": "INT32", "shape": [-1, 16]} for name in ("INPUT0", "INPUT1")],
        "outputs": [{"name": name, "datatype": "INT32", "shape": [-1, 16]} for name in ("OUTPUT0", "OUTPUT1")],
        "properties": {"task": "tensors"},
    }
    config = client.get_model_config("simple_string")
    assert config["max_batch_size"] == 8
    assert config["input"][0] == {"name": "INPUT0", "data_type": "TYPE_STRING", "dims": [16], "optional": False}
    assert config["model_transaction_policy"] == {"decoupled": False}
    assert config["response_cache"] == {"enable": False}
    index = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert index["simple"] == index["simple_string"] == index["simple_identity"] == "READY"


@pytest.mark.parametrize("inputs_binary", [False, True])
@pytest.mark.parametrize("outputs_binary", [False, True])
def test_simple_adds_and_subtracts(client: Any, inputs_binary: bool, outputs_binary: bool) -> None:
    outputs = [client_http.InferRequestedOutput(name, binary_data=outputs_binary) for name in ("OUTPUT1", "OUTPUT0")]
    result = client.infer(
        "simple", pair(inputs_binary), outputs=outputs, request_id="7", timeout=60_000_000, priority=1
    )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), LEFT + RIGHT)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), LEFT - RIGHT)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["OUTPUT1", "OUTPUT0"]
    assert (result.get_response()["id"], result.get_response()["model_version"]) == ("7", "1")


def test_json_and_binary_tensors_mix_and_one_output_overrides(client: Any) -> None:
    inputs = [tensor("INPUT0", LEFT, "INT32", False), tensor("INPUT1", RIGHT, "INT32", True)]
    outputs = [
        client_http.InferRequestedOutput("OUTPUT0", binary_data=False),
        client_http.InferRequestedOutput("OUTPUT1", binary_data=True),
    ]
    result = client.infer("simple", inputs, outputs=outputs, parameters={"note": "kept", "weight": 0.5, "flag": True})
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), LEFT + RIGHT)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), LEFT - RIGHT)
    sum_, difference = result.get_response()["outputs"]
    assert "data" in sum_ and difference["parameters"] == {"binary_data_size": 128}


@pytest.mark.parametrize("binary", [False, True])
def test_simple_string_computes_with_texts(client: Any, binary: bool) -> None:
    inputs = [tensor("INPUT0", texts(LEFT), "BYTES", binary), tensor("INPUT1", texts(RIGHT), "BYTES", binary)]
    result = client.infer("simple_string", inputs)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), texts(LEFT + RIGHT))
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), texts(LEFT - RIGHT))


def test_bytes_that_are_no_text_go_both_ways_in_binary_only(client: Any, served: Any) -> None:
    values = np.array([[b"\xff\x00\xfe", b"", "späť".encode()]], dtype=np.object_)
    result = client.infer("simple_identity", [tensor("INPUT0", values, "BYTES")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), values)
    outputs = [client_http.InferRequestedOutput("OUTPUT0", binary_data=False)]
    with pytest.raises(InferenceServerException, match="not UTF-8"):
        client.infer("simple_identity", [tensor("INPUT0", values, "BYTES")], outputs=outputs)
    message = {"inputs": [{"name": "INPUT0", "datatype": "BYTES", "shape": [1, 2], "data": [["späť", ""]]}]}
    status, answer = infer(served, "simple_identity", message)
    assert (status, answer["outputs"][0]["data"]) == (200, ["späť", ""])


def test_classification_tells_value_and_place(client: Any) -> None:
    outputs = [client_http.InferRequestedOutput("OUTPUT0", class_count=2)]
    result = client.infer("simple", pair(), outputs=outputs)
    found = [[bytes(text).decode() for text in row] for row in result.as_numpy("OUTPUT0")]
    assert found == [["16:15", "15:14"], ["32:15", "31:14"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_answers_are_compressed(client: Any, served: Any, algorithm: str) -> None:
    left = np.arange(10**6, 10**6 + 128, dtype=np.int32).reshape(8, 16)
    right = np.zeros((8, 16), dtype=np.int32)
    result = client.infer(
        "simple",
        pair(True, left, right),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), left)
    message = {
        "inputs": [
            {"name": name, "datatype": "INT32", "shape": [8, 16], "data": values.ravel().tolist()}
            for name, values in (("INPUT0", left), ("INPUT1", right))
        ]
    }
    status, headers, body = call(
        served, "/v2/models/simple/infer", json.dumps(message).encode(), Accept_Encoding=f"br, {algorithm}"
    )
    assert (status, headers["content-encoding"]) == (200, algorithm)
    plain = gzip.decompress(body) if algorithm == "gzip" else zlib.decompress(body)
    assert json.loads(plain)["outputs"][0]["data"] == left.ravel().tolist()


def test_a_raw_request_is_the_bytes_of_the_only_input(served: Any) -> None:
    path = "/v2/models/simple_identity/infer"
    status, headers, body = call(served, path, b"\xffraw", Inference_Header_Content_Length="0")
    assert status == 200
    header = json.loads(body[: int(headers["inference-header-content-length"])])
    assert header["outputs"][0]["shape"] == [1, 1]
    assert body.endswith(b"\x04\x00\x00\x00\xffraw")
    status, _, body = call(served, "/v2/models/simple/infer", LEFT.tobytes(), Inference_Header_Content_Length="0")
    assert status == 400 and "must only have 1 input" in json.loads(body)["error"]


def message_with(**changes: Any) -> dict[str, Any]:
    """A sound request to `simple`, INPUT1 changed."""
    sound = {"name": "INPUT0", "datatype": "INT32", "shape": [1, 16], "data": list(range(16))}
    return {"inputs": [sound, {**sound, "name": "INPUT1", **changes}]}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"name": "INPUT0"}, "twice"),
        ({"name": "INPUT9"}, "no input 'INPUT9'"),
        ({"shape": [1, 15]}, "values"),
        ({"shape": [2, 16]}, "values"),
        ({"shape": [1, 17], "data": [0] * 17}, "takes [-1, 16]"),
        ({"shape": [2**40, 2**40]}, "bounds"),
        ({"shape": [-1, 16]}, "whole number"),
        ({"datatype": "FP32"}, "takes INT32"),
        ({"datatype": "INT33"}, "not a datatype"),
        ({"data": [*range(15), 2**31]}, "place 15"),
        ({"data": [*range(15), "x"]}, "place 15"),
        ({"data": [*range(15), None]}, "null at place 15"),
        ({"data": [*range(15), 0.5]}, "place 15"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"parameters": {"note": [1]}}, "string, a number or a bool"),
    ],
)
def test_what_does_not_fit_is_named(served: Any, changes: dict[str, Any], part: str) -> None:
    status, answer = infer(served, "simple", message_with(**changes))
    assert status == 400
    assert part in answer["error"], answer


def test_missing_inputs_deep_json_and_past_deadlines_are_refused(served: Any) -> None:
    status, answer = infer(served, "simple", {"inputs": message_with()["inputs"][:1]})
    assert status == 400 and "'INPUT1' is missing" in answer["error"]
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    status, answer = infer(served, "simple", {**message_with(), "note": deep})
    assert status == 400 and "nested deeper than 100" in answer["error"]
    status, answer = infer(served, "simple", {**message_with(), "note": deep[0]})
    assert status == 200
    status, answer = infer(served, "simple", {**message_with(), "parameters": {"timeout": 1}})
    assert status == 504 and answer["code"] == "deadline_exceeded"
    status, answer = infer(served, "simple", {**message_with(), "parameters": {"timeout": -1}})
    assert status == 400
    status, answer = infer(served, "simple", {**message_with(), "parameters": {"priority": 3, "timeout": 0}})
    assert status == 200


def test_trace_settings_are_kept_and_answered(client: Any) -> None:
    first = client.get_trace_settings()
    assert first["trace_level"] == ["OFF"] and first["trace_rate"] == "1000"
    assert client.update_trace_settings(settings={"trace_rate": "5", "trace_level": ["OFF"]})["trace_rate"] == "5"
    assert client.update_trace_settings("simple", {"trace_count": "9"})["trace_count"] == "9"
    assert client.get_trace_settings("simple")["trace_rate"] == "5"
    assert client.get_trace_settings()["trace_count"] == "-1"
    assert client.update_trace_settings("simple", {"trace_count": None})["trace_count"] == "-1"
    assert client.update_trace_settings(settings={"trace_rate": None}) == first
    with pytest.raises(InferenceServerException, match="TIMESTAMPS is not served"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
    with pytest.raises(InferenceServerException, match="nobody"):
        client.get_trace_settings("nobody")


def test_log_settings_are_kept_and_answered(client: Any) -> None:
    first = client.get_log_settings()
    assert first == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }
    changed = client.update_log_settings({"log_verbose_level": 2, "log_format": "ISO8601", "log_info": False})
    assert (changed["log_verbose_level"], changed["log_format"], changed["log_info"]) == (2, "ISO8601", False)
    assert client.update_log_settings({"log_verbose_level": 0, "log_format": "default", "log_info": True}) == first
    with pytest.raises(InferenceServerException, match="log_file"):
        client.update_log_settings({"log_file": "/tmp/x"})


def test_what_is_not_served_is_refused_by_name(client: Any, served: Any) -> None:
    with pytest.raises(InferenceServerException, match="systemsharedmemory is not served"):
        client.get_system_shared_memory_status()
    assert call(served, "/v2/cudasharedmemory/status")[0] == 501
    assert call(served, "/v2/models/simple/infer")[0] == 405
    assert call(served, "/v2/models/simple/versions/v1/infer", b"{}")[0] == 400
    assert call(served, "/v2/models/nobody/infer", b"{}")[0] == 404
    status, _, body = call(served, "/v1/deployments/simple/predict", b"{}")
    assert status == 400 and "takes tensors" in json.loads(body)["error"]


def test_statistics_count_the_rows_of_batches(client: Any) -> None:
    def counts() -> tuple[int, int]:
        stats = client.get_inference_statistics("simple", "1")["model_stats"][0]
        return stats["inference_count"], stats["execution_count"]

    before = counts()
    client.infer("simple", pair())
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)
    assert {entry["name"] for entry in client.get_inference_statistics()["model_stats"]} >= {"simple", "late"}


def test_many_requests_at_a_time(served: Any) -> None:
    with client_http.InferenceServerClient(served.address, concurrency=4) as many:
        running = [many.async_infer("simple", pair(bool(number % 2))) for number in range(100)]
        for request in running:
            np.testing.assert_array_equal(request.get_result().as_numpy("OUTPUT0"), LEFT + RIGHT)


def test_the_asyncio_client_makes_the_same_calls(served: Any) -> None:
    async def calls() -> None:
        async with client_aio.InferenceServerClient(served.address) as client:
            assert await client.is_server_live() and await client.is_server_ready()
            assert await client.is_model_ready("simple")
            assert (await client.get_server_metadata())["name"] == "headrace"
            assert (await client.get_model_metadata("simple"))["versions"] == ["1"]
            assert (await client.get_model_config("simple"))["max_batch_size"] == 8
            assert any(entry["name"] == "simple" for entry in await client.get_model_repository_index())
            assert (await client.get_inference_statistics("simple"))["model_stats"][0]["name"] == "simple"
            assert (await client.get_trace_settings())["trace_level"] == ["OFF"]
            assert (await client.get_log_settings())["log_info"] is True
            results = await asyncio.gather(*(client.infer("simple", pair(bool(n % 2))) for n in range(20)))
            for result in results:
                np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), LEFT - RIGHT)
            compressed = await client.infer(
                "simple", pair(), request_compression_algorithm="gzip", response_compression_algorithm="gzip"
            )
            np.testing.assert_array_equal(compressed.as_numpy("OUTPUT0"), LEFT + RIGHT)
            with pytest.raises(InferenceServerException, match="nobody"):
                await client.infer("nobody", pair())

    asyncio.run(calls())
