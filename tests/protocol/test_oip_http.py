"""The Open Inference Protocol as Triton's own client speaks it: health, metadata, JSON and binary tensors, errors."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the client's own dependencies
    client_http = pytest.importorskip("tritonclient.http", reason="install it with: pip install 'tritonclient[http]'")

from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def client(served: Any) -> Iterator[Any]:
    with client_http.InferenceServerClient(served.address) as client:
        yield client


def tensor(name: str, values: np.ndarray[Any, Any], datatype: str, binary: bool) -> Any:
    made = client_http.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def late_inputs(rows: dict[str, Any], binary: bool) -> list[Any]:
    origin = np.array(rows["entities"]["origin"], dtype=np.object_)
    times = [text.removesuffix("Z") for text in rows["request"]["planned"]]
    planned = np.array(times, dtype="datetime64[us]").astype(np.int64)
    seats = np.array(rows["request"]["seats"], dtype=np.int32)
    return [
        tensor("seats", seats, "INT32", binary),
        tensor("origin", origin, "BYTES", binary),
        tensor("planned", planned, "INT64", not binary),
    ]


def asked(names: list[str], binary: bool) -> list[Any]:
    return [client_http.InferRequestedOutput(name, binary_data=binary) for name in names]


def texts(array: np.ndarray[Any, Any]) -> list[str]:
    """Triton's client has BYTES as bytes from a blob and as str from JSON."""
    return [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]


def embedded(served: Any, rows: dict[str, Any], version: int | None = None) -> list[dict[str, Any]]:
    answer = served.engine.predict("late", **rows, outputs=["label", "scores", "margin"], version=version)
    predictions: list[dict[str, Any]] = answer["predictions"]
    return predictions


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("late")
    assert client.is_model_ready("late", "1")
    assert not client.is_model_ready("late", "7")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert server["name"] == "headrace"
    assert "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("late")
    assert model["versions"] == ["1", "2"]
    assert model["platform"] == "linear_json"
    assert model["inputs"] == [
        {"name": "origin", "datatype": "BYTES", "shape": [-1]},
        {"name": "planned", "datatype": "INT64", "shape": [-1]},
        {"name": "seats", "datatype": "INT32", "shape": [-1]},
    ]
    assert [output["name"] for output in model["outputs"]] == ["label", "scores", "margin"]
    assert client.get_model_metadata("plain")["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 2]}]
    config = client.get_model_config("late")
    assert config["max_batch_size"] == 0
    assert {entry["name"] for entry in config["input"] if entry.get("optional")} == {"temp", "wind", "hour", "crowd"}
    index = {(entry["name"], entry["version"]): entry["state"] for entry in client.get_model_repository_index()}
    ready = ("late", "1"), ("late", "2"), ("minutes", "1"), ("plain", "1")
    assert index.items() >= dict.fromkeys(ready, "READY").items()


@pytest.mark.parametrize("inputs_binary", [False, True])
@pytest.mark.parametrize("outputs_binary", [False, True])
def test_every_form_gives_the_bits_of_the_embedded_engine(
    client: Any, served: Any, rows: dict[str, Any], inputs_binary: bool, outputs_binary: bool
) -> None:
    outputs = asked(["scores", "label", "margin"], outputs_binary)
    result = client.infer("late", late_inputs(rows, inputs_binary), outputs=outputs, request_id="r 1")
    expected = embedded(served, rows)
    assert texts(result.as_numpy("label")) == [row["label"] for row in expected]
    assert result.as_numpy("scores").tolist() == [list(row["scores"].values()) for row in expected]
    assert result.as_numpy("margin").tolist() == [[row["margin"]] for row in expected]
    assert result.get_response()["id"] == "r 1"
    assert result.get_response()["model_version"] == "2"
    assert "row_errors" not in result.get_response().get("parameters", {})


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_version_can_be_named_and_no_outputs_are_all_of_them(
    client: Any, served: Any, rows: dict[str, Any], version: str
) -> None:
    result = client.infer("late", late_inputs(rows, True), model_version=version)
    expected = embedded(served, rows, int(version))
    assert result.as_numpy("scores")[:, 1].tolist() == [row["scores"]["späť"] for row in expected]
    assert {output["name"] for output in result.get_response()["outputs"]} == {"label", "scores", "margin"}


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests(client: Any, served: Any, rows: dict[str, Any], algorithm: str) -> None:
    inputs = late_inputs(rows, True)
    result = client.infer(
        "late", inputs, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    assert result.as_numpy("margin").ravel().tolist() == [row["margin"] for row in embedded(served, rows)]


def test_a_feature_by_its_name_replaces_the_stored_one(client: Any, served: Any, rows: dict[str, Any]) -> None:
    temp = np.array([[1.0], [2.0], [3.0]], dtype=np.float32)
    result = client.infer("late", [*late_inputs(rows, True), tensor("temp", temp, "FP32", True)])
    expected = served.engine.predict("late", **rows, features={"temp": [1.0, 2.0, 3.0]}, outputs=["margin"])
    assert result.as_numpy("margin").ravel().tolist() == [row["margin"] for row in expected["predictions"]]


@pytest.mark.parametrize("binary", [False, True])
def test_a_row_that_fails_is_named_and_the_others_answer(client: Any, rows: dict[str, Any], binary: bool) -> None:
    unknown = {**rows, "entities": {"origin": ["JFK", "XXX", "EWR"]}}
    result = client.infer("late", late_inputs(unknown, binary), outputs=asked(["label", "margin"], binary))
    failed = json.loads(result.get_response()["parameters"]["row_errors"])
    assert list(failed) == ["1"]
    assert "needs every feature" in failed["1"]
    assert texts(result.as_numpy("label"))[1] == ""
    assert np.isnan(result.as_numpy("margin").astype(float).ravel()).tolist() == [False, True, False]


@pytest.mark.parametrize(("datatype", "dtype"), [("FP64", np.float64), ("FP32", np.float32), ("INT16", np.int16)])
@pytest.mark.parametrize("binary", [False, True])
def test_a_model_without_a_service_takes_one_tensor(client: Any, datatype: str, dtype: Any, binary: bool) -> None:
    features = np.array([[1, 2], [3, -4], [0, 0]], dtype=dtype)
    result = client.infer("plain", [tensor("features", features, datatype, binary)])
    assert result.as_numpy("margin").tolist() == [[0.0], [5.0], [0.0]]
    assert result.as_numpy("scores").shape == (3, 2)


def test_half_floats_come_as_binary_only(client: Any, served: Any) -> None:
    features = np.array([[1.5, 2.0]], dtype=np.float16)
    assert client.infer("plain", [tensor("features", features, "FP16", True)]).as_numpy("margin").tolist() == [[0.5]]
    body = {"inputs": [{"name": "features", "shape": [1, 2], "datatype": "FP16", "data": [1.5, 2.0]}]}
    status, answer = post(served, "plain", json.dumps(body).encode())
    assert status == 400
    assert "no JSON form" in answer["error"]


def test_a_regression_answers_its_value(client: Any) -> None:
    result = client.infer("minutes", [tensor("a", np.array([1.5, -2.0]), "FP64", True)])
    assert result.as_numpy("value").tolist() == [3.0, -4.0]


def test_the_classification_extension_keeps_score_and_label_together(client: Any) -> None:
    features = np.array([[3.0, 0.0], [-3.0, 0.0]])
    best = client_http.InferRequestedOutput("scores", class_count=1)
    result = client.infer("plain", [tensor("features", features, "FP64", True)], outputs=[best])
    found = [text.split(":") for text in texts(result.as_numpy("scores"))]
    assert [(index, label) for _, index, label in found] == [("1", "späť"), ("0", "on_time")]
    assert float(found[0][0]) == 1 / (1 + np.exp(-3.0))


def test_many_requests_at_a_time(client: Any, served: Any, rows: dict[str, Any]) -> None:
    with client_http.InferenceServerClient(served.address, concurrency=8) as many:
        running = [many.async_infer("late", late_inputs(rows, bool(number % 2))) for number in range(200)]
        expected = [[row["margin"]] for row in embedded(served, rows)]
        assert all(request.get_result().as_numpy("margin").tolist() == expected for request in running)


def test_statistics_count_rows_and_requests(client: Any) -> None:
    def of_minutes() -> dict[str, Any]:
        found: dict[str, Any] = client.get_inference_statistics("minutes")["model_stats"][0]
        return found

    before = of_minutes()
    client.infer("minutes", [tensor("a", np.zeros(5), "FP64", True)])
    after = of_minutes()
    assert after["inference_count"] - before["inference_count"] == 5
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_stats"]["success"]["ns"] > before["inference_stats"]["success"]["ns"]


@pytest.mark.parametrize(
    ("model", "name", "values", "datatype", "part"),
    [
        ("nobody", "features", np.zeros((1, 2)), "FP64", "'nobody'"),
        ("plain", "features", np.zeros((1, 3)), "FP64", "[1, 3]"),
        ("plain", "featuers", np.zeros((1, 2)), "FP64", "'featuers'"),
        ("late", "origin", np.zeros(1), "FP64", "BYTES"),
        ("late", "origin", np.array(["JFK"], dtype=np.object_), "BYTES", "'planned'"),
    ],
)
def test_errors_are_named(
    client: Any, model: str, name: str, values: np.ndarray[Any, Any], datatype: str, part: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(name, values, datatype, True)])
    assert part in str(caught.value)
    assert client.is_server_live()


def test_an_output_that_is_not_there_is_named(client: Any) -> None:
    inputs = [tensor("features", np.zeros((1, 2)), "FP64", True)]
    with pytest.raises(InferenceServerException, match="'probability'"):
        client.infer("plain", inputs, outputs=asked(["probability"], True))


def post(served: Any, model: str, body: bytes, header_bytes: str | None = None) -> tuple[int, Any]:
    """An infer request by hand; the answer's body is JSON or, behind a header length, bytes."""
    headers = {} if header_bytes is None else {"Inference-Header-Content-Length": header_bytes}
    request = urllib.request.Request(f"http://{served.address}/v2/models/{model}/infer", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            split = reply.headers.get("Inference-Header-Content-Length")
            content = reply.read()
            return reply.status, json.loads(content) if split is None else content[int(split) :]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_raw_request_is_the_tensor_alone(served: Any) -> None:
    features = np.array([[1.0, 2.0], [3.0, 4.0]])
    status, blobs = post(served, "plain", features.tobytes(), "0")
    assert status == 200
    assert blobs.endswith(np.array([0.0, 1.0]).tobytes())  # the margins
    status, answer = post(served, "late", b"JFK", "0")
    assert status == 400
    assert "must only have 1 input" in answer["error"]
    status, answer = post(served, "plain", features.tobytes()[:-8], "0")
    assert (status, answer["code"]) == (400, "invalid_tensor")


@pytest.mark.parametrize("header_bytes", ["x", "-1", "1000000", "3"])
def test_a_wrong_header_length_is_refused(served: Any, header_bytes: str) -> None:
    status, answer = post(served, "plain", b'{"inputs": []}', header_bytes)
    assert status == 400
    assert answer["error"]
