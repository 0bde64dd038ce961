"""The blocking client."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from headrace.client.arguments import id_of, predict_arguments, priority_of
from headrace.client.attempts import Call, Result, Retries
from headrace.client.base import ADDRESS, NO_RETRIES, NOT_READY, ClientBase, Failure
from headrace.client.columns import Columns
from headrace.client.grpc_transport import GrpcTransport
from headrace.client.http_transport import HttpTransport
from headrace.client.options import Tls
from headrace.client.results import (
    Deployment,
    Features,
    ModelMetadata,
    Predictions,
    ServerMetadata,
    Tensors,
    WriteCounts,
)
from headrace.errors import HeadraceError


class Client(ClientBase):
    """Asks a server, blocking. Threads may share it; after a fork, make another one."""

    def __init__(
        self,
        address: str = ADDRESS,
        *,
        timeout: float = 10.0,
        api_key: str | None = None,
        api_key_file: str | os.PathLike[str] | None = None,
        tls: Tls | None = None,
        retries: Retries | None = None,
        connections_max: int = 16,
    ) -> None:
        """Nothing is connected before the first call.

        Args:
            address: `http://HOST:PORT`, `https://`, `grpc://` or `grpcs://`.
            timeout: seconds that a call may take, retries included, where it does not say its own.
            api_key: sent as a bearer token; by default what `api_key_file` holds, or HEADRACE_API_KEY.
            api_key_file: a file with the key.
            tls: how an encrypted connection is checked.
            retries: what is tried again, and how often.
            connections_max: of HTTP, at a time; a call that finds none waits for one. gRPC has one connection.

        Raises:
            InputError: `invalid_argument`.
            UnknownNameError: `unsupported`, a library is missing that `pip install 'headrace[client]'` brings.
        """
        transports = (HttpTransport, GrpcTransport)
        super().__init__(address, timeout, api_key, api_key_file, tls, retries, connections_max, transports)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def _run(self, call: Call[Any, Any, Result], timeout: float | None, retries: Retries | None = None) -> Result:
        attempts = self._attempts(call, timeout, retries)
        while True:
            try:
                seconds = attempts.left()
                answer = self._transport.exchange(call.request(seconds), seconds)
                return self._read(call, answer)
            except Failure as failure:
                pause = attempts.pause_after(failure)
            time.sleep(pause)

    def predict(
        self,
        deployment: str,
        *,
        entities: Columns | None = None,
        features: Columns | None = None,
        request: Columns | None = None,
        outputs: Sequence[str] | None = None,
        explain: bool | Mapping[str, int] = False,
        version: int | None = None,
        id: str | None = None,  # noqa: A002 (the member's name in the Common API)
        priority: int = 0,
        timeout: float | None = None,
    ) -> Predictions:
        """Predicts some rows.

        Args:
            deployment: its name.
            entities: join key -> values, one for each row, as lists, arrays or a frame; the server finds their
                features.
            features: feature -> values in the place of stored ones.
            request: request field -> values, for on-demand features.
            outputs: of "label", "scores" and "margin"; by default the first two.
            explain: True tells what every feature adds to the margin, `{"top": 5}` only of the five that count most.
            version: by default the one that answers when none is asked for.
            id: comes back in the answer and in errors; made up by default.
            priority: at a busy model, 1 (first) to 9 (last); 0 is the usual one.
            timeout: seconds, retries included; the server is told and does not begin what is too late.

        Raises:
            UnknownNameError: `unknown_model`, `unknown_entity`, `unknown_feature`.
            InputError: `missing_column`, `length_mismatch`, `type_mismatch`.
            ProcessError: `deadline_exceeded`; `unavailable`, also after all attempts.
        """
        arguments = predict_arguments(deployment, entities, features, request, outputs, explain, version, id, priority)
        call: Call[Any, Any, Predictions] = self._calls.predict(arguments)
        return self._run(call, timeout)

    def features(
        self,
        service: Any,
        entities: Columns | None = None,
        request: Columns | None = None,
        *,
        full_feature_names: bool = False,
        timeout: float | None = None,
    ) -> Features:
        """The features of some entities now.

        Args:
            service: the feature service, or its name.
            entities: join key -> values, one for each row.
            request: request field -> values, for on-demand features.
            full_feature_names: `view__feature` in the place of the service's own names.
            timeout: seconds, retries included.

        Raises:
            UnknownNameError: `unknown_feature_service`, `unknown_entity`.
            InputError: `missing_column`, `length_mismatch`.
            ProcessError: as `predict`.
        """
        call: Call[Any, Any, Features] = self._calls.features(service, entities, request, full_feature_names)
        return self._run(call, timeout)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] | None = None,
        version: int | None = None,
        id: str | None = None,  # noqa: A002 (the member's name in the protocol)
        priority: int = 0,
        timeout: float | None = None,
    ) -> Tensors:
        """Runs a model on tensors, by the Open Inference Protocol in its binary form.

        Args:
            model: its name.
            inputs: input -> array, with the datatype that the array has.
            outputs: names; all by default.
            version: by default the one that answers when none is asked for.
            id: comes back in the answer and in errors; made up by default.
            priority: as of `predict`.
            timeout: seconds, retries included; the server is told.

        Raises:
            UnknownNameError: `unknown_model`, `unknown_feature`.
            InputError: `invalid_tensor`, `type_mismatch`.
            ProcessError: as `predict`.
        """
        call: Call[Any, Any, Tensors] = self._calls.infer(
            model, inputs, outputs, version, id_of(id), priority_of(priority)
        )
        return self._run(call, timeout)

    def push(self, view: Any, rows: Columns, *, timeout: float | None = None) -> WriteCounts:
        """Writes rows, which are durable and visible when this returns. Over HTTP only.

        It is tried again like a read: the same rows written twice are the same rows, by their event time.

        Args:
            view: the feature view, or its name.
            rows: column -> values, or a frame, which travels as an Arrow stream.
            timeout: seconds, retries included.

        Raises:
            UnknownNameError: `unknown_feature_view`; `unsupported` over gRPC.
            StoreError: `read_only`, the server takes no writes.
        """
        call: Call[Any, Any, WriteCounts] = self._calls.push(view, rows)
        return self._run(call, timeout)

    def delete(
        self, view: Any, keys: Columns, *, event_ts: dt.datetime | int | None = None, timeout: float | None = None
    ) -> WriteCounts:
        """Deletes the rows of some keys. Over HTTP only.

        Args:
            view: the feature view, or its name.
            keys: join key -> values.
            event_ts: from when on they are gone; by default when the server gets to it, and then a deletion whose
                answer was lost is not tried again, since newer rows may have come.
            timeout: seconds, retries included.

        Raises:
            As `push`.
        """
        call: Call[Any, Any, WriteCounts] = self._calls.delete(view, keys, event_ts)
        return self._run(call, timeout)

    def deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """What is served."""
        call: Call[Any, Any, list[Deployment]] = self._calls.deployments()
        return self._run(call, timeout)

    def deployment(self, name: str, *, timeout: float | None = None) -> Deployment:
        """A deployment with the fields of its requests.

        Raises:
            UnknownNameError: `unknown_model`.
        """
        call: Call[Any, Any, Deployment] = self._calls.deployment(name)
        return self._run(call, timeout)

    def metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """Of the server, in the Open Inference Protocol."""
        call: Call[Any, Any, ServerMetadata] = self._calls.server_metadata()
        return self._run(call, timeout)

    def model_metadata(self, model: str, version: int | None = None, *, timeout: float | None = None) -> ModelMetadata:
        """Of a model, in the Open Inference Protocol.

        Raises:
            UnknownNameError: `unknown_model`, `unknown_model_version`.
        """
        call: Call[Any, Any, ModelMetadata] = self._calls.model_metadata(model, version)
        return self._run(call, timeout)

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the server answers. Nothing is tried again."""
        return self._asked_health(self._calls.live(), timeout)

    def ready(self, model: str | None = None, version: int | None = None, *, timeout: float | None = None) -> bool:
        """Whether the server, or a model of it, can answer; False, too, where nothing can be reached."""
        return self._asked_health(self._calls.ready(model, version), timeout)

    def _asked_health(self, call: Call[Any, Any, bool], timeout: float | None) -> bool:
        try:
            return self._run(call, timeout, NO_RETRIES)
        except HeadraceError as error:
            if error.code in NOT_READY:
                return False
            raise
