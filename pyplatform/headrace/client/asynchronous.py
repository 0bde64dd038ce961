"""The asyncio client."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from headrace.client.arguments import id_of, predict_arguments, priority_of
from headrace.client.attempts import Call, Result, Retries
from headrace.client.base import ADDRESS, NO_RETRIES, NOT_READY, ClientBase, Failure
from headrace.client.columns import Columns
from headrace.client.grpc_transport import AsyncGrpcTransport
from headrace.client.http_transport import AsyncHttpTransport
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


class AsyncClient(ClientBase):
    """Asks a server with asyncio: `Client`, awaited. It belongs to one loop."""

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
        transports = (AsyncHttpTransport, AsyncGrpcTransport)
        super().__init__(address, timeout, api_key, api_key_file, tls, retries, connections_max, transports)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def _run(self, call: Call[Any, Any, Result], timeout: float | None, retries: Retries | None = None) -> Result:
        attempts = self._attempts(call, timeout, retries)
        while True:
            try:
                seconds = attempts.left()
                answer = await self._transport.exchange(call.request(seconds), seconds)
                return self._read(call, answer)
            except Failure as failure:
                pause = attempts.pause_after(failure)
            await asyncio.sleep(pause)

    async def predict(
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
        """As `Client.predict`."""
        arguments = predict_arguments(deployment, entities, features, request, outputs, explain, version, id, priority)
        call: Call[Any, Any, Predictions] = self._calls.predict(arguments)
        return await self._run(call, timeout)

    async def features(
        self,
        service: Any,
        entities: Columns | None = None,
        request: Columns | None = None,
        *,
        full_feature_names: bool = False,
        timeout: float | None = None,
    ) -> Features:
        """As `Client.features`."""
        call: Call[Any, Any, Features] = self._calls.features(service, entities, request, full_feature_names)
        return await self._run(call, timeout)

    async def infer(
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
        """As `Client.infer`."""
        call: Call[Any, Any, Tensors] = self._calls.infer(
            model, inputs, outputs, version, id_of(id), priority_of(priority)
        )
        return await self._run(call, timeout)

    async def push(self, view: Any, rows: Columns, *, timeout: float | None = None) -> WriteCounts:
        """As `Client.push`."""
        call: Call[Any, Any, WriteCounts] = self._calls.push(view, rows)
        return await self._run(call, timeout)

    async def delete(
        self, view: Any, keys: Columns, *, event_ts: dt.datetime | int | None = None, timeout: float | None = None
    ) -> WriteCounts:
        """As `Client.delete`."""
        call: Call[Any, Any, WriteCounts] = self._calls.delete(view, keys, event_ts)
        return await self._run(call, timeout)

    async def deployments(self, *, timeout: float | None = None) -> list[Deployment]:
        """What is served."""
        call: Call[Any, Any, list[Deployment]] = self._calls.deployments()
        return await self._run(call, timeout)

    async def deployment(self, name: str, *, timeout: float | None = None) -> Deployment:
        """A deployment with the fields of its requests.

        Raises:
            UnknownNameError: `unknown_model`.
        """
        call: Call[Any, Any, Deployment] = self._calls.deployment(name)
        return await self._run(call, timeout)

    async def metadata(self, *, timeout: float | None = None) -> ServerMetadata:
        """Of the server, in the Open Inference Protocol."""
        call: Call[Any, Any, ServerMetadata] = self._calls.server_metadata()
        return await self._run(call, timeout)

    async def model_metadata(
        self, model: str, version: int | None = None, *, timeout: float | None = None
    ) -> ModelMetadata:
        """Of a model, in the Open Inference Protocol.

        Raises:
            UnknownNameError: `unknown_model`, `unknown_model_version`.
        """
        call: Call[Any, Any, ModelMetadata] = self._calls.model_metadata(model, version)
        return await self._run(call, timeout)

    async def live(self, *, timeout: float | None = None) -> bool:
        """Whether the server answers. Nothing is tried again."""
        return await self._asked_health(self._calls.live(), timeout)

    async def ready(
        self, model: str | None = None, version: int | None = None, *, timeout: float | None = None
    ) -> bool:
        """Whether the server, or a model of it, can answer; False, too, where nothing can be reached."""
        return await self._asked_health(self._calls.ready(model, version), timeout)

    async def _asked_health(self, call: Call[Any, Any, bool], timeout: float | None) -> bool:
        try:
            return await self._run(call, timeout, NO_RETRIES)
        except HeadraceError as error:
            if error.code in NOT_READY:
                return False
            raise
