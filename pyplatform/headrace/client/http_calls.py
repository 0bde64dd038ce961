"""Calls as HTTP requests, and their answers read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from headrace.client import tensor_bytes
from headrace.client.arguments import Predict, event_time, name_of, version_of
from headrace.client.attempts import Call
from headrace.client.columns import Columns, json_value, plain_columns
from headrace.client.failures import refusal, refuse_argument
from headrace.client.results import (
    Deployment,
    Explanation,
    Features,
    FieldInfo,
    ModelMetadata,
    Prediction,
    Predictions,
    ServerMetadata,
    TensorInfo,
    Tensors,
    WriteCounts,
)

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
HEADER_LENGTH = "inference-header-content-length"
T = TypeVar("T")


@dataclass(frozen=True)
class HttpRequest:
    """One request, apart from the address."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer of status 200."""

    headers: Mapping[str, str]
    body: bytes


HttpCall: TypeAlias = Call[HttpRequest, HttpAnswer, T]


def predict(asked: Predict) -> HttpCall[Predictions]:
    """POST /v1/deployments/NAME[/versions/N]/predict"""
    version = "" if asked.version is None else f"/versions/{asked.version}"
    path = f"/v1/deployments/{segment(asked.deployment)}{version}/predict"
    body: dict[str, Any] = {"id": asked.id}
    for name in ("entities", "features", "request"):
        if columns := getattr(asked, name):
            body[name] = columns
    if asked.outputs:
        body["outputs"] = asked.outputs
    if asked.explain:
        body["explain"] = {"top": asked.explain_top} if asked.explain_top else True
    if asked.priority:
        body["priority"] = asked.priority
    begun = dumped(body)[:-1]

    def request(seconds: float) -> HttpRequest:
        return HttpRequest("POST", path, b'%b,"timeout_ms":%d}' % (begun, max(1, int(seconds * 1000))))

    return Call(request, lambda answer: predictions_of(loaded(answer)), id=asked.id)


def features(service: Any, entities: Columns | None, request: Columns | None, full_names: bool) -> HttpCall[Features]:
    """POST /get-online-features"""
    body: dict[str, Any] = {
        "feature_service": name_of("feature service", service),
        "entities": plain_columns("entities", entities),
        "full_feature_names": full_names,
    }
    if request is not None:
        body["request"] = plain_columns("request", request)
    return post("/get-online-features", dumped(body), lambda answer: features_of(loaded(answer)))


def infer(
    model: str,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None,
    version: int | None,
    id: str,  # noqa: A002 (the member's name in the protocol)
    priority: int,
) -> HttpCall[Tensors]:
    """POST /v2/models/NAME[/versions/N]/infer, tensors in binary."""
    blobs, listed = [], []
    for name, given in inputs.items():
        datatype, shape, data = tensor_bytes.encoded(name, given)
        parameters = {"binary_data_size": len(data)}
        listed.append({"name": name, "shape": shape, "datatype": datatype, "parameters": parameters})
        blobs.append(data)
    header: dict[str, Any] = {"id": id, "inputs": listed}
    if outputs:
        header["outputs"] = [{"name": name} for name in outputs]
    path = f"{model_path(model, version)}/infer"

    def request(seconds: float) -> HttpRequest:
        parameters = {"binary_data_output": True, "timeout": max(1, int(seconds * 1e6)), "priority": priority}
        text = dumped({**header, "parameters": parameters})
        headers = (("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(text))))
        return HttpRequest("POST", path, b"".join([text, *blobs]), headers)

    return Call(request, tensors_of, id=id)


def push(view: Any, rows: Any) -> HttpCall[WriteCounts]:
    """POST /v1/feature-views/NAME/push: JSON columns, or an Arrow stream of a frame."""
    path = f"/v1/feature-views/{segment(name_of('feature view', view))}/push"
    if isinstance(rows, Mapping):
        return post(path, dumped({"columns": plain_columns("rows", rows)}), counts_of)
    return post(path, arrow_stream(rows), counts_of, ARROW)


def delete(view: Any, keys: Columns, event_ts: Any) -> HttpCall[WriteCounts]:
    """POST /v1/feature-views/NAME/delete"""
    body: dict[str, Any] = {"keys": plain_columns("keys", keys)}
    if event_ts is not None:
        body["event_ts"] = event_time(event_ts)
    path = f"/v1/feature-views/{segment(name_of('feature view', view))}/delete"
    # Without a time it deletes what there is when it comes, which is not the same when it comes twice.
    return post(path, dumped(body), counts_of, is_idempotent=event_ts is not None)


def deployments() -> HttpCall[list[Deployment]]:
    """GET /v1/deployments"""
    return get("/v1/deployments", lambda answer: [deployment_of(one) for one in loaded(answer)["deployments"]])


def deployment(name: str) -> HttpCall[Deployment]:
    """GET /v1/deployments/NAME"""
    path = f"/v1/deployments/{segment(name_of('deployment', name))}"
    return get(path, lambda answer: deployment_of(loaded(answer)))


def server_metadata() -> HttpCall[ServerMetadata]:
    """GET /v2"""

    def read(answer: HttpAnswer) -> ServerMetadata:
        told = loaded(answer)
        return ServerMetadata(text(told["name"]), text(told["version"]), tuple(map(text, told.get("extensions", ()))))

    return get("/v2", read)


def model_metadata(model: str, version: int | None) -> HttpCall[ModelMetadata]:
    """GET /v2/models/NAME[/versions/N]"""

    def tensors(told: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(text(one["name"]), text(one["datatype"]), tuple(map(int, one["shape"]))) for one in told
        )

    def read(answer: HttpAnswer) -> ModelMetadata:
        told = loaded(answer)
        versions = tuple(map(text, told.get("versions", ())))
        inputs, outputs = tensors(told["inputs"]), tensors(told["outputs"])
        return ModelMetadata(text(told["name"]), versions, text(told["platform"]), inputs, outputs)

    return get(model_path(model, version), read)


def live() -> HttpCall[bool]:
    """GET /v2/health/live"""
    return get("/v2/health/live", lambda _: True)


def ready(model: str | None, version: int | None) -> HttpCall[bool]:
    """GET /v2/health/ready, or a model's ready."""
    path = "/v2/health/ready" if model is None else f"{model_path(model, version)}/ready"
    return get(path, lambda _: True)


def get(path: str, read: Callable[[HttpAnswer], T]) -> HttpCall[T]:
    return Call(lambda _: HttpRequest("GET", path), read)


def post(
    path: str, body: bytes, read: Callable[[HttpAnswer], T], content_type: str = JSON, *, is_idempotent: bool = True
) -> HttpCall[T]:
    request = HttpRequest("POST", path, body, (("content-type", content_type),))
    return Call(lambda _: request, read, is_idempotent)


def segment(name: str) -> str:
    """A name as a part of a path."""
    return quote(name, safe="")


def model_path(model: str, version: int | None) -> str:
    version = version_of(version)
    return f"/v2/models/{segment(name_of('model', model))}" + ("" if version is None else f"/versions/{version}")


def dumped(value: Any) -> bytes:
    """JSON.

    Raises:
        InputError: `invalid_argument` for what it has no form for.
    """
    try:
        return json.dumps(value, default=json_value, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as error:
        refuse_argument(f"the request has no JSON form: {error}", "JSON has no infinite numbers; gRPC has")


def loaded(answer: HttpAnswer) -> dict[str, Any]:
    told = json.loads(answer.body)
    if not isinstance(told, dict):
        raise ValueError("it is not a JSON object")
    return told


def text(value: Any) -> str:
    """A text of an answer.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} stands where a text is expected")
    return value


def optional_text(value: Any) -> str | None:
    return None if value is None else text(value)


def number(value: Any) -> float | None:
    """A number of an answer, null for one that is not finite.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.40} stands where a number is expected")
    return float(value)


def integer(value: Any) -> int:
    """A whole number of an answer.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r:.40} stands where a whole number is expected")
    return value


def numbers(value: dict[str, Any]) -> dict[str, float | None]:
    return {name: number(one) for name, one in value.items()}


def predictions_of(told: dict[str, Any]) -> Predictions:
    timing = {name: number(us) or 0.0 for name, us in told["timing_us"].items()}
    read = sequence_of if told["task"] == "seq2seq" else prediction_of
    return Predictions(
        id=text(told["id"]),
        deployment=text(told["deployment"]),
        model=text(told["model"]),
        model_version=int(told["model_version"]),
        task=text(told["task"]),
        predictions=[read(one) for one in told["predictions"]],
        timing_us=timing,
    )


def prediction_of(told: dict[str, Any]) -> Prediction:
    margin = told.get("margin")
    if "margin" in told and not isinstance(margin, list):
        margin = [margin]
    explained = told.get("explanation")
    status = told.get("status")
    labels = told.get("labels")
    return Prediction(
        label=optional_text(told.get("label")),
        labels=None if labels is None else tuple(map(text, labels)),
        value=number(told.get("value")),
        scores=numbers(told["scores"]) if "scores" in told else None,
        margin=None if margin is None else tuple(map(number, margin)),
        explanation=explanations_of(explained) if explained else None,
        error=None if status is None else refusal(text(status["code"]), text(status["error"])),
    )


def sequence_of(told: dict[str, Any]) -> Prediction:
    tokens, scores, status = told.get("tokens"), told.get("scores"), told.get("status")
    return Prediction(
        text=optional_text(told.get("text")),
        tokens=None if tokens is None else tuple(map(integer, tokens)),
        score=number(told.get("score")),
        token_scores=None if scores is None else tuple(map(number, scores)),
        error=None if status is None else refusal(text(status["code"]), text(status["error"])),
    )


def explanations_of(told: Any) -> tuple[Explanation, ...] | None:
    listed = [one for one in (told if isinstance(told, list) else [told]) if one is not None]
    of_one = (
        Explanation(number(one["expected"]), numbers(one["contributions"]), number(one.get("others"))) for one in listed
    )
    return tuple(of_one) or None


def features_of(told: dict[str, Any]) -> Features:
    names, results = told["metadata"]["feature_names"], told["results"]
    values = {text(name): list(one["values"]) for name, one in zip(names, results, strict=True)}
    statuses = {text(name): list(map(text, one["statuses"])) for name, one in zip(names, results, strict=True)}
    return Features(values, statuses)


def tensors_of(answer: HttpAnswer) -> Tensors:
    told_length = answer.headers.get(HEADER_LENGTH)
    length = len(answer.body) if told_length is None else int(told_length)
    if not 0 <= length <= len(answer.body):
        raise ValueError("the JSON is longer than the answer")
    told = loaded(HttpAnswer({}, answer.body[:length]))
    blobs = memoryview(answer.body)[length:]
    tensors = Tensors()
    tensors.id, tensors.model = text(told.get("id", "")), text(told["model_name"])
    tensors.model_version = text(told.get("model_version", ""))
    errors = json.loads(told.get("parameters", {}).get("row_errors", "{}"))
    tensors.row_errors = {int(row): text(reason) for row, reason in errors.items()}
    for output in told["outputs"]:
        name, datatype, shape = text(output["name"]), text(output["datatype"]), output["shape"]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            tensors[name] = tensor_bytes.of_json(datatype, shape, output["data"])
            continue
        if not 0 <= size <= len(blobs):
            raise ValueError(f"the output '{name}' has {size} bytes, {len(blobs)} are left")
        tensors[name] = tensor_bytes.decoded(datatype, shape, blobs[:size])
        blobs = blobs[size:]
    return tensors


def deployment_of(told: dict[str, Any]) -> Deployment:
    def listed(name: str) -> tuple[FieldInfo, ...]:
        return tuple(FieldInfo(text(one["name"]), text(one["dtype"])) for one in told.get(name, ()))

    return Deployment(
        name=text(told["name"]),
        model=text(told["model"]),
        model_version=int(told["model_version"]),
        versions=tuple(int(version) for version in told["versions"]),
        task=text(told["task"]),
        feature_service=optional_text(told.get("feature_service")),
        ready=told["ready"] is True,
        reason=optional_text(told.get("reason")),
        entities=listed("entities"),
        features=listed("features"),
        request=listed("request"),
        outputs=tuple(map(text, told.get("outputs", ()))),
        classes=tuple(map(text, told.get("classes", ()))),
    )


def counts_of(answer: HttpAnswer) -> WriteCounts:
    told = loaded(answer)
    known = {one.name for one in fields(WriteCounts)}
    return WriteCounts(**{name: value for name, value in told.items() if name in known})


def arrow_stream(frame: Any) -> bytes:
    """A frame of Arrow, Polars or pandas.

    Raises:
        InputError: `invalid_argument`.
    """
    import pyarrow as pa

    if hasattr(frame, "to_arrow"):
        table = frame.to_arrow()
    elif isinstance(frame, pa.Table | pa.RecordBatch):
        table = frame
    elif hasattr(frame, "iloc"):
        table = pa.Table.from_pandas(frame, preserve_index=False)
    else:
        refuse_argument(f"the rows are {type(frame).__name__}", "give a dict of lists, or a frame")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream
