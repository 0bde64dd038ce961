"""Models of the task seq2seq in the Common API: the same over HTTP, gRPC, the clients and the embedded engine."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.protocol.test_openapi import asked_as_described

import headrace
from headrace import Engine, FeatureStore, HeadraceError
from headrace.client.messages import message
from headrace.export import export_onnx_tensors

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2)
serve(Engine(sys.argv[1]), settings, lambda found: print(found["http"], found["grpc"], flush=True))
"""

Value = tuple[str, Any, list[int | str]]


def graph(nodes: list[Any], inputs: list[Value], outputs: list[Value], constants: dict[str, Any]) -> bytes:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())


def following() -> bytes:
    """Each token plus one, a quarter of it as its score, and their sum as the sequence's; padding is told apart."""
    nodes = [
        helper.make_node("Add", ["input_tokens", "one"], ["tokens"]),
        helper.make_node("Cast", ["input_tokens"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "quarter"], ["scores"]),
        helper.make_node("ReduceSum", ["scores", "axis"], ["score"], keepdims=0),
        helper.make_node("Identity", ["input_lengths"], ["lengths"]),
    ]
    return graph(
        nodes,
        [("input_tokens", TensorProto.INT64, ["N", "M"]), ("input_lengths", TensorProto.INT64, ["N"])],
        [
            ("tokens", TensorProto.INT64, ["N", "M"]),
            ("lengths", TensorProto.INT64, ["N"]),
            ("scores", TensorProto.FLOAT, ["N", "M"]),
            ("score", TensorProto.FLOAT, ["N"]),
        ],
        {"one": np.array(1), "quarter": np.float32(0.25), "axis": np.array([1])},
    )


def same() -> bytes:
    """Tokens as they come, and no padding."""
    node = helper.make_node("Identity", ["input_tokens"], ["tokens"])
    tokens: list[int | str] = ["N", "M"]
    inputs: list[Value] = [("input_tokens", TensorProto.INT32, tokens)]
    outputs: list[Value] = [("tokens", TensorProto.INT32, tokens)]
    return graph([node], inputs, outputs, {})


def louder() -> bytes:
    """A text behind which stands an exclamation mark."""
    node = helper.make_node("StringConcat", ["input_text", "mark"], ["text"])
    mark = np.array(["!"], dtype=object)
    inputs: list[Value] = [("input_text", TensorProto.STRING, ["N"])]
    outputs: list[Value] = [("text", TensorProto.STRING, ["N"])]
    return graph([node], inputs, outputs, {"mark": mark})


@dataclass(frozen=True)
class Served:
    http: str
    grpc: str
    engine: Engine

    def ask(self, model: str, body: Any) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.http}/v1/deployments/{model}/predict", data)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def everywhere(self, model: str, column: dict[str, Any], **named: Any) -> list[dict[str, Any]]:
        """The predictions, which all ways must tell alike."""
        status, told = self.ask(model, {"features": column, **named})
        assert status == 200, told
        predictions: list[dict[str, Any]] = told["predictions"]
        assert self.engine.predict(model, features=column, **named)["predictions"] == predictions
        for address in (f"http://{self.http}", f"grpc://{self.grpc}"):
            with headrace.Client(address, timeout=60) as client:
                answer = client.predict(model, features=column, **named)
            assert answer.task == told["task"] == "seq2seq"
            for found, expected in zip(answer, predictions, strict=True):
                assert found.text == expected.get("text")
                assert found.tokens == optional_tuple(expected.get("tokens"))
                assert found.score == expected.get("score")
                assert found.token_scores == optional_tuple(expected.get("scores"))
                assert (found.error is None) == ("status" not in expected)
                if found.error is not None:
                    assert found.error.code == expected["status"]["code"]
        return predictions


def optional_tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("sequences")
    (root / "headrace.toml").write_text('[project]\nname = "sequences"\n')
    golden: dict[str, tuple[bytes, dict[str, Any]]] = {
        "following": (following(), {"input_tokens": np.array([[1, 2], [3, 0]]), "input_lengths": np.array([2, 1])}),
        "same": (same(), {"input_tokens": np.array([[1, 2]])}),
        "louder": (louder(), {"input_text": np.array(["a", "späť"], dtype=np.object_)}),
    }
    with FeatureStore(root) as store:
        for name, (model, given) in golden.items():
            path = root / f"{name}.onnx"
            exported = export_onnx_tensors(model, path, given, task="seq2seq", batch_max=8)
            store.register_model(name, exported)
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        http, _, grpc = child.stdout.readline().strip().partition(" ")
        with Engine(root) as engine:
            yield Served(http, grpc, engine)
    finally:
        child.terminate()
        child.communicate(timeout=60)


def test_tokens_in_tokens_and_scores_out(served: Served) -> None:
    assert served.everywhere("following", {"tokens": [[1, 2, 3], [40]]}, id="mine") == [
        {"tokens": [2, 3, 4], "score": 1.5, "scores": [0.25, 0.5, 0.75]},
        {"tokens": [41], "score": 10.0, "scores": [10.0]},
    ]
    assert served.everywhere("following", {"tokens": [[7]]}, outputs=["label"]) == [{"tokens": [8]}]
    assert served.everywhere("following", {"tokens": [[8]]}, outputs=["scores"]) == [{"score": 2.0, "scores": [2.0]}]
    assert served.everywhere("following", {"tokens": []}) == []
    assert served.everywhere("same", {"tokens": [[-(2**31), 2**31 - 1]]}) == [{"tokens": [-(2**31), 2**31 - 1]}]


def test_text_in_text_out(served: Served) -> None:
    texts = ["", "späť", "a" * 10_000, '"\\\n']
    assert served.everywhere("louder", {"text": texts}) == [{"text": f"{text}!"} for text in texts]


def test_a_bad_row_fails_alone(served: Served) -> None:
    first, *bad = served.everywhere("following", {"tokens": [[1], None, [], [2]]})[:3]
    assert first == {"tokens": [2], "score": 0.25, "scores": [0.25]}
    for row, part in zip(bad, ("is null", "no tokens"), strict=True):
        assert (row["tokens"], row["score"], row["scores"]) == (None, None, None)
        assert row["status"]["code"] == "type_mismatch"
        assert part in row["status"]["error"]
    assert [row["text"] for row in served.everywhere("louder", {"text": [None, "b", None]})] == [None, "b!", None]
    # Over gRPC a column has one type, so these are for JSON and the embedded engine only.
    mixed = {"tokens": [["x"], [1.5], "ab", {"a": 1}, [[1]], [2**63], 7, [None], [5]]}
    status, told = served.ask("following", {"features": mixed})
    assert status == 200, told
    assert [row["tokens"] for row in told["predictions"]] == [None] * 8 + [[6]]
    assert all(f"row {number}" in row["status"]["error"] for number, row in enumerate(told["predictions"][:8]))
    embedded = served.engine.predict("following", features=mixed)["predictions"]
    assert [row["tokens"] for row in embedded] == [None] * 8 + [[6]]
    assert served.everywhere("same", {"tokens": [[2**31], [1]]})[1] == {"tokens": [1]}


def test_rows_of_other_lengths_need_a_model_that_is_told_of_padding(served: Served) -> None:
    status, told = served.ask("same", {"features": {"tokens": [[1, 2], [3]]}})
    assert (status, told["code"]) == (400, "length_mismatch")
    assert "row 1 of 'tokens' has 1 tokens, row 0 has 2" in told["error"]
    for address in (f"http://{served.http}", f"grpc://{served.grpc}"):
        with headrace.Client(address, timeout=60) as client, pytest.raises(HeadraceError, match="row 1 of 'tokens'"):
            client.predict("same", features={"tokens": [[1, 2], [3]]})
    with pytest.raises(HeadraceError, match="input_lengths"):
        served.engine.predict("same", features={"tokens": [[1, 2], [3]]})


@pytest.mark.parametrize(
    ("model", "body", "status", "part"),
    [
        ("following", {}, 400, "'tokens'"),
        ("following", {"features": {"text": ["a"]}}, 400, "'text'"),
        ("louder", {"features": {"tokens": [[1]]}}, 400, "'tokens'"),
        ("louder", {"entities": {"text": ["a"]}}, 400, "features"),
        ("following", {"features": {"tokens": [1, 2]}, "explain": True}, 400, "contributions"),
        ("following", {"features": {"tokens": [[1]]}, "outputs": ["margin"]}, 400, "margin"),
        ("following", {"features": {"tokens": "abc"}}, 400, "not a list"),
        ("following", {"features": {"tokens": [[1]] * 9}}, 413, "1 to 8"),
        ("following", {"features": {"tokens": [[1] * 1_100_000, [1]]}}, 200, "more than"),
        ("following", {"features": {"tokens": [[1] * 600_000, [1] * 600_000]}}, 413, "together"),
        ("following", {"features": {"tokens": [[1] * 600_000, *[[1]] * 7]}}, 413, "padding included"),
        ("following", b'{"features": {"tokens": [[1, 2}', 400, "line 1"),
        ("following", b'{"features": {"tokens": ' + b"[" * 100_000, 400, ""),
    ],
)
def test_requests_that_are_wrong_are_named(served: Served, model: str, body: Any, status: int, part: str) -> None:
    found, told = served.ask(model, body)
    assert (found, part in json.dumps(told)) == (status, True), json.dumps(told)[:500]
    assert served.ask("louder", {"features": {"text": ["b"]}})[1]["predictions"] == [{"text": "b!"}]


def test_messages_that_are_wrong_are_named(served: Served) -> None:
    import grpc

    made = message("headrace.v1.PredictRequest")
    with grpc.insecure_channel(served.grpc) as channel:
        predict = channel.unary_unary("/headrace.v1.Headrace/Predict")
        flat = made(deployment="following")
        flat.features["tokens"].int64s.values.append(1)
        deep = made(deployment="following")
        deep.features["tokens"].lists.values.add().lists.values.add().int64s.values.append(1)
        texts = made(deployment="louder")
        texts.features["text"].lists.values.add().strings.values.append("a")
        for request in (deep, texts):
            with pytest.raises(grpc.RpcError) as refused:
                predict(request.SerializeToString())
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "sent as lists" in refused.value.details()
        (row,) = message("headrace.v1.PredictResponse").FromString(predict(flat.SerializeToString())).predictions
        assert row.status.code == "type_mismatch"
        long = made(deployment="following")
        long.features["tokens"].lists.values.add().int64s.values.extend([1] * 1_100_000)
        with pytest.raises(grpc.RpcError) as refused:
            predict(long.SerializeToString())
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_arrays_and_frames_are_taken(served: Served) -> None:
    tokens = np.array([[1, 2], [3, 4]])
    with headrace.Client(f"grpc://{served.grpc}", timeout=60) as client:
        assert [row.tokens for row in client.predict("following", features={"tokens": tokens})] == [(2, 3), (4, 5)]
        with pytest.raises(HeadraceError, match="lists of lists"):
            client.predict("following", features={"tokens": [[[1]]]})
    found = served.engine.predict("following", features={"tokens": list(tokens)})["predictions"]
    assert [row["tokens"] for row in found] == [[2, 3], [4, 5]]


def test_what_is_served_is_described(served: Served) -> None:
    def get(path: str) -> Any:
        with urllib.request.urlopen(f"http://{served.http}{path}", timeout=60) as reply:
            return json.load(reply)

    described = get("/v1/deployments/following")
    assert described["features"] == [{"name": "tokens", "dtype": "list<int64>"}]
    assert (described["task"], described["outputs"]) == ("seq2seq", ["label", "scores"])
    paths = get("/v1/openapi.json")["paths"]
    operation = paths["/v1/deployments/following/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(body["features"]["properties"]) == {"tokens"}
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    members = answer["predictions"]["items"]["properties"]
    assert set(members) == {"tokens", "score", "scores", "status"}
    louder = paths["/v1/deployments/louder/versions/1/predict"]["post"]["responses"]["200"]["content"]
    assert set(louder["application/json"]["schema"]["properties"]["predictions"]["items"]["properties"]) == {
        "text",
        "status",
    }


def test_the_open_inference_protocol_goes_on(served: Served) -> None:
    data = {"name": "input_text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}
    request = urllib.request.Request(
        f"http://{served.http}/v2/models/louder/infer", json.dumps({"inputs": [data]}).encode()
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        (output,) = json.load(reply)["outputs"]
    assert (output["name"], output["data"]) == ("text", ["a!", "b!"])


def test_a_model_with_other_names_is_not_registered(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('[project]\nname = "other"\n')
    node = helper.make_node("Identity", ["ids"], ["tokens"])
    tokens: list[int | str] = ["N", "M"]
    model = graph([node], [("ids", TensorProto.INT64, tokens)], [("tokens", TensorProto.INT64, tokens)], {})
    golden = {"ids": np.array([[1]])}
    with FeatureStore(tmp_path) as store:
        exported = export_onnx_tensors(model, tmp_path / "m.onnx", golden, task="seq2seq", batch_max=8)
        with pytest.raises(HeadraceError, match="'ids' is none of input_text") as refused:
            store.register_model("other", exported)
        assert refused.value.code == "unsupported_model"
        flat = export_onnx_tensors(same(), tmp_path / "m.onnx", {"input_tokens": np.array([[1]])}, task="seq2seq")
        with pytest.raises(HeadraceError, match="no batch"):
            store.register_model("other", flat)
        exported = export_onnx_tensors(model, tmp_path / "m.onnx", golden, task="tensors", batch_max=8)
        assert store.register_model("other", exported).version == 1


def test_answers_are_those_that_are_described(served: Served) -> None:
    with urllib.request.urlopen(f"http://{served.http}/v1/openapi.json", timeout=60) as reply:
        document = json.load(reply)
    document["paths"] = {path: told for path, told in document["paths"].items() if "/versions/1/predict" in path}
    assert len(document["paths"]) == 3
    statuses = asked_as_described(document, served.http)
    assert {200, 400} <= set(statuses)
