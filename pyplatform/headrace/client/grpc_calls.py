"""Calls as gRPC messages, and their answers read."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, TypeVar

from headrace.client import tensor_bytes
from headrace.client.arguments import Predict, name_of, version_of
from headrace.client.attempts import Call
from headrace.client.columns import Columns, Mapped, plain_columns, time_us, told_number, told_time
from headrace.client.failures import refusal
from headrace.client.messages import message
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
from headrace.errors import make_error

COMMON = "/headrace.v1.Headrace/"
INFERENCE = "/inference.GRPCInferenceService/"
STATUSES = ("INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")
T = TypeVar("T")


@dataclass(frozen=True)
class GrpcRequest:
    """One unary call."""

    path: str
    message: bytes


GrpcCall: TypeAlias = Call[GrpcRequest, bytes, T]


def asked(path: str, request: Any, answer: str, read: Callable[[Any], T], request_id: str = "") -> GrpcCall[T]:
    """A call whose answer is a message of that name. The deadline travels as the call's own."""
    sent = GrpcRequest(path, request.SerializeToString())
    return Call(lambda _: sent, lambda told: read(message(answer).FromString(told)), id=request_id)


def predict(given: Predict) -> GrpcCall[Predictions]:
    """headrace.v1.Headrace/Predict"""
    request = message("headrace.v1.PredictRequest")(
        deployment=given.deployment,
        version=version_text(given.version),
        id=given.id,
        outputs=given.outputs,
        priority=given.priority,
    )
    for columns, values in (
        (request.entities, given.entities),
        (request.features, given.features),
        (request.request, given.request),
    ):
        fill_columns(columns, values)
    if given.explain:
        request.explain.top = given.explain_top
        request.explain.SetInParent()
    tells_labels = not given.outputs or "label" in given.outputs

    def read(told: Any) -> Predictions:
        return predictions_of(told, tells_labels)

    return asked(COMMON + "Predict", request, "headrace.v1.PredictResponse", read, given.id)


def features(service: Any, entities: Columns | None, request: Columns | None, full_names: bool) -> GrpcCall[Features]:
    """headrace.v1.Headrace/GetOnlineFeatures"""
    made = message("headrace.v1.GetOnlineFeaturesRequest")(
        feature_service=name_of("feature service", service), full_feature_names=full_names
    )
    fill_columns(made.entities, plain_columns("entities", entities))
    fill_columns(made.request, plain_columns("request", request))
    return asked(COMMON + "GetOnlineFeatures", made, "headrace.v1.GetOnlineFeaturesResponse", features_of)


def infer(
    model: str,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None,
    version: int | None,
    id: str,  # noqa: A002 (the member's name in the protocol)
    priority: int,
) -> GrpcCall[Tensors]:
    """inference.GRPCInferenceService/ModelInfer, tensors raw."""
    request = message("inference.ModelInferRequest")(
        model_name=name_of("model", model), model_version=version_text(version_of(version)), id=id
    )
    for name, given in inputs.items():
        datatype, shape, data = tensor_bytes.encoded(name, given)
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(data)
    for name in outputs or ():
        request.outputs.add(name=name)
    if priority:
        request.parameters["priority"].int64_param = priority
    return asked(INFERENCE + "ModelInfer", request, "inference.ModelInferResponse", tensors_of, id)


def push(view: Any, rows: Any) -> GrpcCall[WriteCounts]:
    """Not over gRPC."""
    no_writes()


def delete(view: Any, keys: Columns, event_ts: Any) -> GrpcCall[WriteCounts]:
    """Not over gRPC."""
    no_writes()


def no_writes() -> NoReturn:
    raise make_error("unsupported", "rows are not written over gRPC", "use a client of the HTTP address for writes")


def deployments() -> GrpcCall[list[Deployment]]:
    """headrace.v1.Headrace/ListDeployments"""

    def read(told: Any) -> list[Deployment]:
        return [deployment_of(one) for one in told.deployments]

    request = message("headrace.v1.ListDeploymentsRequest")()
    return asked(COMMON + "ListDeployments", request, "headrace.v1.ListDeploymentsResponse", read)


def deployment(name: str) -> GrpcCall[Deployment]:
    """headrace.v1.Headrace/DescribeDeployment"""
    request = message("headrace.v1.DescribeDeploymentRequest")(name=name_of("deployment", name))
    return asked(COMMON + "DescribeDeployment", request, "headrace.v1.DescribeDeploymentResponse", deployment_of)


def server_metadata() -> GrpcCall[ServerMetadata]:
    """inference.GRPCInferenceService/ServerMetadata"""

    def read(told: Any) -> ServerMetadata:
        return ServerMetadata(told.name, told.version, tuple(told.extensions))

    request = message("inference.ServerMetadataRequest")()
    return asked(INFERENCE + "ServerMetadata", request, "inference.ServerMetadataResponse", read)


def model_metadata(model: str, version: int | None) -> GrpcCall[ModelMetadata]:
    """inference.GRPCInferenceService/ModelMetadata"""

    def tensors(told: Any) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(one.name, one.datatype, tuple(one.shape)) for one in told)

    def read(told: Any) -> ModelMetadata:
        return ModelMetadata(
            told.name, tuple(told.versions), told.platform, tensors(told.inputs), tensors(told.outputs)
        )

    request = message("inference.ModelMetadataRequest")(
        name=name_of("model", model), version=version_text(version_of(version))
    )
    return asked(INFERENCE + "ModelMetadata", request, "inference.ModelMetadataResponse", read)


def live() -> GrpcCall[bool]:
    """inference.GRPCInferenceService/ServerLive"""
    request = message("inference.ServerLiveRequest")()
    return asked(INFERENCE + "ServerLive", request, "inference.ServerLiveResponse", lambda told: bool(told.live))


def ready(model: str | None, version: int | None) -> GrpcCall[bool]:
    """inference.GRPCInferenceService/ServerReady or ModelReady"""

    def read(told: Any) -> bool:
        return bool(told.ready)

    if model is None:
        request = message("inference.ServerReadyRequest")()
        return asked(INFERENCE + "ServerReady", request, "inference.ServerReadyResponse", read)
    request = message("inference.ModelReadyRequest")(
        name=name_of("model", model), version=version_text(version_of(version))
    )
    return asked(INFERENCE + "ModelReady", request, "inference.ModelReadyResponse", read)


def version_text(version: int | None) -> str:
    return "" if version is None else str(version)


def fill_columns(columns: Any, values: Mapped) -> None:
    """Puts columns into a map of Column messages.

    Raises:
        InputError: `type_mismatch` for a column of several types.
    """
    for name, column in values.items():
        fill_column(columns[name], name, column)


def fill_column(column: Any, name: str, values: list[Any]) -> None:
    kinds = {type(value) for value in values if value is not None}
    nulls = [row for row, value in enumerate(values) if value is None]
    column.nulls.extend(nulls)
    if kinds == {list}:
        column.lists.SetInParent()
        for items in values:
            fill_column(column.lists.values.add(), name, items or [])
        return
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) > 1:
        told = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise make_error(
            "type_mismatch", f"column '{name}' holds {told}", "give one type; over HTTP only such rows fail"
        )
    kind: type = kinds.pop() if kinds else str
    place: Any
    empty: Any
    if kind is bool:
        place, empty = column.bools, False
    elif kind is int:
        is_long = any(value is not None and value >= 1 << 63 for value in values)
        place, empty = (column.uint64s if is_long else column.int64s), 0
    elif kind is float:
        place, empty = column.doubles, 0.0
    elif kind is bytes:
        place, empty = column.bytes, b""
    elif kind is dt.datetime:
        place, empty = column.timestamps_us, 0
        values = [None if value is None else time_us(value) for value in values]
    else:
        place, empty = column.strings, ""
    place.SetInParent()
    try:
        place.values.extend([empty if value is None else value for value in values] if nulls else values)
    except (ValueError, TypeError, OverflowError) as error:
        raise make_error("type_mismatch", f"column '{name}': {error}", "an integer has at most 64 bits") from None


def told_values(column: Any) -> list[Any]:
    """A column's values as JSON tells them, so that both transports answer the same."""
    kind = column.WhichOneof("values")
    if kind is None:
        return []
    told: list[Any]
    if kind == "lists":
        told = [told_values(items) for items in column.lists.values]
    else:
        told = list(getattr(column, kind).values)
        if kind in ("floats", "doubles"):
            told = [told_number(value) for value in told]
        elif kind == "timestamps_us":
            told = [told_time(value) for value in told]
        elif kind == "bytes":
            told = [base64.b64encode(value).decode() for value in told]
    for row in column.nulls:
        told[row] = None
    return told


def predictions_of(told: Any, tells_labels: bool) -> Predictions:
    timing = {field.name: getattr(told.timing_us, field.name) for field in told.timing_us.DESCRIPTOR.fields}
    return Predictions(
        id=told.id,
        deployment=told.deployment,
        model=told.model,
        model_version=int(told.model_version),
        task=told.task,
        predictions=[prediction_of(one, tells_labels) for one in told.predictions],
        timing_us=timing,
    )


def numbers(told: Any) -> dict[str, float | None]:
    return {name: told_number(value) for name, value in told.items()}


def prediction_of(told: Any, tells_labels: bool) -> Prediction:
    kind = told.WhichOneof("answer")
    label, labels, value, scores = None, None, None, None
    if kind == "classification":
        label = told.classification.label if told.classification.HasField("label") else None
        scores = numbers(told.classification.scores) or None
    elif kind == "multi_label":
        labels = tuple(told.multi_label.labels) if tells_labels else None  # a list cannot be absent here
        scores = numbers(told.multi_label.scores) or None
    elif kind == "value":
        value = told_number(told.value.value)
    found = told.sequence if kind == "sequence" else None
    explained = tuple(
        Explanation(
            told_number(one.expected),
            numbers(one.contributions),
            told_number(one.others) if one.HasField("others") else None,
        )
        for one in told.explanation
    )
    return Prediction(
        label=label,
        labels=labels,
        value=value,
        scores=scores,
        text=found.text if found is not None and found.HasField("text") else None,
        tokens=tuple(found.tokens.values) if found is not None and found.HasField("tokens") else None,
        score=told_number(found.score) if found is not None and found.HasField("score") else None,
        token_scores=(
            tuple(map(told_number, found.scores.values)) if found is not None and found.HasField("scores") else None
        ),
        margin=tuple(map(told_number, told.margin)) or None,
        explanation=explained or None,
        error=refusal(told.status.code, told.status.error) if told.HasField("status") else None,
    )


def features_of(told: Any) -> Features:
    named = list(zip(told.metadata.feature_names, told.results, strict=True))
    values = {name: told_values(one.values) for name, one in named}
    return Features(values, {name: [STATUSES[status] for status in one.statuses] for name, one in named})


def tensors_of(told: Any) -> Tensors:
    tensors = Tensors()
    tensors.id, tensors.model, tensors.model_version = told.id, told.model_name, told.model_version
    errors = json.loads(told.parameters["row_errors"].string_param) if "row_errors" in told.parameters else {}
    tensors.row_errors = {int(row): str(reason) for row, reason in errors.items()}
    for output, data in zip(told.outputs, told.raw_output_contents, strict=True):
        tensors[output.name] = tensor_bytes.decoded(output.datatype, list(output.shape), data)
    return tensors


def deployment_of(told: Any) -> Deployment:
    def listed(name: str) -> tuple[FieldInfo, ...]:
        return tuple(FieldInfo(one.name, one.dtype) for one in getattr(told, name, ()))

    return Deployment(
        name=told.name,
        model=told.model,
        model_version=int(told.model_version),
        versions=tuple(int(version) for version in told.versions),
        task=told.task,
        feature_service=told.feature_service or None,
        ready=told.ready,
        reason=told.reason or None,
        entities=listed("entities"),
        features=listed("features"),
        request=listed("request"),
        outputs=tuple(getattr(told, "outputs", ())),
        classes=tuple(getattr(told, "classes", ())),
    )
