"""The gRPC port as Triton's own client speaks it: metadata, raw and typed tensors, streams, timeouts, errors."""

from __future__ import annotations

import asyncio
import queue
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the client's own dependencies
    client_grpc = pytest.importorskip("tritonclient.grpc", reason="install it with: pip install 'tritonclient[grpc]'")
    client_aio = pytest.importorskip("tritonclient.grpc.aio")
    client_http = pytest.importorskip("tritonclient.http")

import grpc
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

PACKAGE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[Any]:
    with client_grpc.InferenceServerClient(served.grpc) as client:
        yield client


@pytest.fixture(scope="module")
def channel(served: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.grpc) as channel:
        yield channel


def tensor(name: str, values: np.ndarray[Any, Any], datatype: str) -> Any:
    made = client_grpc.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def late_inputs(rows: dict[str, Any]) -> list[Any]:
    times = [text.removesuffix("Z") for text in rows["request"]["planned"]]
    return [
        tensor("seats", np.array(rows["request"]["seats"], dtype=np.int32), "INT32"),
        tensor("origin", np.array(rows["entities"]["origin"], dtype=np.object_), "BYTES"),
        tensor("planned", np.array(times, dtype="datetime64[us]").astype(np.int64), "INT64"),
    ]


def asked(*names: str) -> list[Any]:
    return [client_grpc.InferRequestedOutput(name) for name in names]


def embedded(served: Any, rows: dict[str, Any], version: int | None = None) -> list[dict[str, Any]]:
    answer = served.engine.predict("late", **rows, outputs=["label", "scores", "margin"], version=version)
    predictions: list[dict[str, Any]] = answer["predictions"]
    return predictions


def call(channel: grpc.Channel, path: str, request: bytes) -> bytes:
    """A call without generated stubs: bytes out, bytes in."""
    answer: bytes = channel.unary_unary(path)(request, timeout=30)
    return answer


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("late", "1")
    assert not client.is_model_ready("late", "7")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "headrace"
    model = client.get_model_metadata("late")
    assert list(model.versions) == ["1", "2"]
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [
        ("origin", "BYTES", [-1]),
        ("planned", "INT64", [-1]),
        ("seats", "INT32", [-1]),
    ]
    config = client.get_model_config("late").config
    assert config.max_batch_size == 0
    assert not config.model_transaction_policy.decoupled
    assert {entry.name for entry in config.input if entry.optional} == {"temp", "wind", "hour", "crowd"}
    assert config.output[1].data_type == model_config_pb2.TYPE_FP64
    index = {(entry.name, entry.version): entry.state for entry in client.get_model_repository_index().models}
    fixtures = ("simple", "simple_identity", "simple_string")
    mine = [("late", "1"), ("late", "2"), ("minutes", "1"), ("plain", "1")]
    assert index == dict.fromkeys([*mine, *((name, "1") for name in fixtures)], "READY")


def test_raw_tensors_give_the_bits_of_the_embedded_engine(client: Any, served: Any, rows: dict[str, Any]) -> None:
    result = client.infer("late", late_inputs(rows), outputs=asked("scores", "label", "margin"), request_id="r 1")
    expected = embedded(served, rows)
    assert [text.decode() for text in result.as_numpy("label")] == [row["label"] for row in expected]
    assert result.as_numpy("scores").tolist() == [list(row["scores"].values()) for row in expected]
    assert result.as_numpy("margin").tolist() == [[row["margin"]] for row in expected]
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("r 1", "late", "2")


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_version_can_be_named_and_no_outputs_are_all_of_them(
    client: Any, served: Any, rows: dict[str, Any], version: str
) -> None:
    result = client.infer("late", late_inputs(rows), model_version=version)
    expected = embedded(served, rows, int(version))
    assert result.as_numpy("scores")[:, 1].tolist() == [row["scores"]["späť"] for row in expected]
    assert [output.name for output in result.get_response().outputs] == ["label", "scores", "margin"]


def test_typed_tensors_are_answered_typed_and_with_the_same_bits(client: Any) -> None:
    features = np.array([[1.5, 2.25], [3.0, -4.0]])
    raw = client.infer("plain", [tensor("features", features, "FP64")])
    request = service_pb2.ModelInferRequest(model_name="plain")
    given = request.inputs.add(name="features", datatype="FP64", shape=[2, 2])
    given.contents.fp64_contents.extend(features.ravel())
    answer = client._client_stub.ModelInfer(request)
    outputs = {output.name: output for output in answer.outputs}
    assert not answer.raw_output_contents
    assert list(outputs["scores"].contents.fp64_contents) == raw.as_numpy("scores").ravel().tolist()
    assert list(outputs["label"].contents.bytes_contents) == raw.as_numpy("label").tolist()
    request.raw_input_contents.append(features.tobytes())
    with pytest.raises(grpc.RpcError) as raised:
        client._client_stub.ModelInfer(request)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "both raw_input_contents and contents" in raised.value.details()
    assert ("headrace-code", "invalid_tensor") in raised.value.trailing_metadata()


@pytest.mark.parametrize(("datatype", "dtype"), [("FP64", np.float64), ("FP32", np.float32), ("FP16", np.float16)])
def test_a_model_without_a_service_takes_one_tensor(client: Any, datatype: str, dtype: Any) -> None:
    features = np.array([[1, 2], [3, -4], [0, 0]], dtype=dtype)
    result = client.infer("plain", [tensor("features", features, datatype)])
    assert result.as_numpy("margin").tolist() == [[0.0], [5.0], [0.0]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_messages(client: Any, algorithm: str) -> None:
    features = np.zeros((200, 2))
    result = client.infer("plain", [tensor("features", features, "FP64")], compression_algorithm=algorithm)
    assert result.as_numpy("scores").tolist() == [[0.5, 0.5]] * 200


def test_the_classification_extension(client: Any) -> None:
    best = client_grpc.InferRequestedOutput("scores", class_count=1)
    result = client.infer("plain", [tensor("features", np.array([[3.0, 0.0]]), "FP64")], outputs=[best])
    assert result.as_numpy("scores").tolist()[0][0].decode().split(":")[1:] == ["1", "späť"]


def test_a_stream_answers_in_order_and_survives_an_error(served: Any) -> None:
    found: queue.Queue[Any] = queue.Queue()
    inputs = [tensor("a", np.array([1.5]), "FP64")]
    with client_grpc.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: found.put(result if error is None else error))
        for number, model in enumerate(["minutes", "nobody", "minutes"]):
            client.async_stream_infer(model, inputs, request_id=str(number))
        first, second, third = (found.get(timeout=30) for _ in range(3))
        client.stop_stream()
    assert [result.get_response().id for result in (first, third)] == ["0", "2"]
    assert third.as_numpy("value").tolist() == [3.0]
    assert "nobody" in str(second)


def test_many_requests_at_a_time(served: Any) -> None:
    async def ask() -> list[Any]:
        async with client_aio.InferenceServerClient(served.grpc) as client:
            inputs = [[tensor("a", np.array([float(number)]), "FP64")] for number in range(200)]
            return await asyncio.gather(*(client.infer("minutes", one) for one in inputs))

    answers = asyncio.run(ask())
    assert [answer.as_numpy("value").tolist() for answer in answers] == [[2.0 * number] for number in range(200)]


def test_statistics_count_rows_and_requests(client: Any) -> None:
    before = client.get_inference_statistics("minutes").model_stats[0]
    client.infer("minutes", [tensor("a", np.zeros(5), "FP64")])
    after = client.get_inference_statistics("minutes").model_stats[0]
    assert after.inference_count - before.inference_count == 5
    assert after.execution_count - before.execution_count == 1
    assert after.inference_stats.success.ns > before.inference_stats.success.ns


@pytest.mark.parametrize(
    ("model", "name", "values", "status", "part"),
    [
        ("nobody", "features", np.zeros((1, 2)), "NOT_FOUND", "'nobody'"),
        ("plain", "features", np.zeros((1, 3)), "INVALID_ARGUMENT", "[1, 3]"),
        ("plain", "featuers", np.zeros((1, 2)), "INVALID_ARGUMENT", "'featuers'"),
        ("late", "origin", np.zeros(1), "INVALID_ARGUMENT", "BYTES"),
    ],
)
def test_errors_name_what_is_wrong(
    client: Any, model: str, name: str, values: np.ndarray[Any, Any], status: str, part: str
) -> None:
    with pytest.raises(InferenceServerException, match=status) as raised:
        client.infer(model, [tensor(name, values, "FP64")])
    assert part in raised.value.message()


def test_what_is_not_offered_says_what_to_do(client: Any) -> None:
    for ask in (client.get_system_shared_memory_status, client.get_cuda_shared_memory_status):
        with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
            ask()


def test_settings_are_those_of_http(client: Any, served: Any) -> None:
    with client_http.InferenceServerClient(served.address) as other:
        for model in (None, "late"):
            told = client.get_trace_settings(model, as_json=True)["settings"]
            expected = other.get_trace_settings(model)
            assert told == {
                name: {"value": [value] if isinstance(value, str) else value} for name, value in expected.items()
            }
        client.update_trace_settings("late", {"trace_rate": "7", "trace_level": ["OFF"]})
        assert other.get_trace_settings("late")["trace_rate"] == "7"
        assert other.get_trace_settings()["trace_rate"] == "1000"
        client.update_trace_settings("late", {"trace_rate": None})
        assert other.get_trace_settings("late")["trace_rate"] == "1000"
        client.update_log_settings({"log_verbose_level": 1, "log_format": "ISO8601", "log_info": False})
        expected = other.get_log_settings()
        assert (expected["log_verbose_level"], expected["log_format"], expected["log_info"]) == (1, "ISO8601", False)
        told = client.get_log_settings(as_json=True)["settings"]
        assert {name: next(iter(value.values())) for name, value in told.items()} == expected
        client.update_log_settings({"log_verbose_level": 0, "log_format": "default", "log_info": True})


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"trace_level": ["OFF", "TENSORS"]}, "TENSORS"),
        ({"trace_level": ["LOUD"]}, "trace_level"),
        ({"trace_rate": "often"}, "trace_rate"),
        ({"trace_rates": "1"}, "trace_rates"),
        ({"trace_file": "/tmp/x"}, "trace_file"),
    ],
)
def test_settings_that_there_are_not_are_refused_by_name(client: Any, settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InferenceServerException, match=part):
        client.update_trace_settings(None, settings)
    for wrong in ({"log_file": "x"}, {"log_format": "loud"}, {"nothing": True}):
        with pytest.raises(InferenceServerException, match=next(iter(wrong))):
            client.update_log_settings(wrong)
    with pytest.raises(InferenceServerException, match="nobody"):
        client.get_trace_settings("nobody")


@pytest.mark.parametrize("name", ["late", "plain", "simple"])
def test_metadata_and_config_are_those_of_http(client: Any, served: Any, name: str) -> None:
    with client_http.InferenceServerClient(served.address) as other:
        metadata = other.get_model_metadata(name)
        told = client.get_model_metadata(name, as_json=True)
        assert [tensor["name"] for tensor in told["inputs"]] == [tensor["name"] for tensor in metadata["inputs"]]
        assert [tensor["datatype"] for tensor in told["outputs"]] == [
            tensor["datatype"] for tensor in metadata["outputs"]
        ]
        expected = json_format.ParseDict(
            other.get_model_config(name), model_config_pb2.ModelConfig(), ignore_unknown_fields=True
        )
        assert client.get_model_config(name).config == expected


def test_statistics_are_those_of_http(client: Any, served: Any) -> None:
    client.infer("minutes", [tensor("a", np.zeros(5), "FP64")])
    with client_http.InferenceServerClient(served.address) as other:
        expected = other.get_inference_statistics("minutes")
    ignoring = {"ignore_unknown_fields": True}
    parsed = json_format.ParseDict(expected, service_pb2.ModelStatisticsResponse(), **ignoring)
    assert client.get_inference_statistics("minutes") == parsed


def test_a_request_whose_time_is_over_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"DEADLINE_EXCEEDED|Deadline Exceeded"):
        client.infer("minutes", [tensor("a", np.zeros(1), "FP64")], timeout=1)


def test_health_by_bytes(channel: grpc.Channel) -> None:
    check = "/grpc.health.v1.Health/Check"
    for service in (b"", b"late", PACKAGE.encode()):
        assert call(channel, check, bytes([0x0A, len(service)]) + service) == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, check, b"\x0a\x06nobody")
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    watched = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    assert next(iter(watched)) == b"\x08\x01"
    watched.cancel()


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def test_the_messages_are_those_of_triton(channel: grpc.Channel) -> None:
    """Every field that this server defines has the number and the type that Triton's client has for it."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    stub = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    answer = next(iter(stub(iter([field(4, PACKAGE.encode())]))))
    pool = descriptor_pool.DescriptorPool()
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in files_of(answer)]
    for file in sorted(files, key=lambda file: len(file.dependency)):
        pool.Add(file)
    theirs = service_pb2.DESCRIPTOR.pool
    compared = 0
    for file in files:
        for message in file.message_type:
            mine, other = (one.FindMessageTypeByName(f"inference.{message.name}") for one in (pool, theirs))
            for name, found in mine.fields_by_name.items():
                if (message.name, name) == ("ModelMetadataResponse", "properties"):
                    continue  # of the Open Inference Protocol, not of Triton
                expected = other.fields_by_name[name]
                assert (found.number, found.type) == (expected.number, expected.type), (message.name, name)
                compared += 1
    assert compared > 150


def files_of(answer: bytes) -> list[bytes]:
    """The files of a ServerReflectionResponse: field 1 of field 4."""
    (nested,) = (content for number, content in parts(answer) if number == 4)
    return [content for number, content in parts(nested) if number == 1]


def parts(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that has fields of bytes only."""
    at = 0
    while at < len(message):
        number, at = message[at] >> 3, at + 1
        length = shift = 0
        while True:
            byte, at = message[at], at + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        yield number, message[at : at + length]
        at += length


def test_models_of_tensors(client: Any) -> None:
    numbers = np.arange(32, dtype=np.int32).reshape(2, 16)
    inputs = [tensor("INPUT0", numbers, "INT32"), tensor("INPUT1", numbers[::-1].copy(), "INT32")]
    answer = client.infer("simple", inputs, request_id="seven")
    assert answer.get_response().id == "seven"
    assert np.array_equal(answer.as_numpy("OUTPUT0"), numbers + numbers[::-1])
    assert np.array_equal(answer.as_numpy("OUTPUT1"), numbers - numbers[::-1])
    words = np.array([[b"\xff\x00", b""]], dtype=np.object_)
    echoed = client.infer("simple_identity", [tensor("INPUT0", words, "BYTES")]).as_numpy("OUTPUT0")
    assert echoed.tolist() == words.tolist()
    with pytest.raises(InferenceServerException, match="INPUT1"):
        client.infer("simple", inputs[:1])
