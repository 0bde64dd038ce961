"""gRPC by grpcio: one channel, and what went wrong as a `Failure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.client.failures import Failure, Repeat, late, refusal, refuse_argument, unreachable
from headrace.client.grpc_calls import GrpcRequest
from headrace.client.options import ANSWER_BYTES_MAX, Address, Tls
from headrace.errors import make_error

CODE_OF_STATUS = {
    "CANCELLED": "cancelled",
    "INVALID_ARGUMENT": "invalid_argument",
    "NOT_FOUND": "not_found",
    "PERMISSION_DENIED": "permission_denied",
    "RESOURCE_EXHAUSTED": "too_large",
    "UNAUTHENTICATED": "unauthenticated",
    "UNAVAILABLE": "unavailable",
    "UNIMPLEMENTED": "unsupported",
}

OPTIONS = (
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # ours have a budget and a deadline
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)


def _grpc() -> Any:
    try:
        import google.protobuf  # noqa: F401 (asked for here, so that both are missed in the same words)
        import grpc
        import grpc.aio
    except ImportError:
        raise make_error("unsupported", "the gRPC client needs grpcio", "pip install 'headrace[client]'") from None
    return grpc


def _credentials(tls: Tls) -> Any:
    """Raises InputError `invalid_argument`: gRPC checks certificates always."""
    if not tls.verify:
        refuse_argument("Tls(verify=False) is for HTTP", "give the server's authority: Tls(ca=PEM_FILE)")

    def read(path: Any) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return _grpc().ssl_channel_credentials(read(tls.ca), read(tls.key), read(tls.certificate))


def _channel(module: Any, address: Address, tls: Tls | None) -> Any:
    target = f"dns:///{address.netloc}" if not address.host.replace(".", "").isdecimal() else f"ipv4:{address.netloc}"
    if ":" in address.host:
        target = f"ipv6:{address.netloc}"
    if address.is_encrypted:
        return module.secure_channel(target, _credentials(tls or Tls()), options=OPTIONS)
    return module.insecure_channel(target, options=OPTIONS)


def _metadata(api_key: str | None) -> tuple[tuple[str, str], ...]:
    return () if api_key is None else (("authorization", f"Bearer {api_key}"),)


def _failure(address: Address, error: Any, seconds: float) -> Failure:
    status = error.code().name
    trailers = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    code, text = trailers.get("headrace-code", ""), error.details() or status
    if not code:
        if status == "DEADLINE_EXCEEDED":
            return late(str(address), seconds)
        if status == "UNAVAILABLE":
            return unreachable(str(address), text, Repeat.IDEMPOTENT)
        code = CODE_OF_STATUS.get(status, "internal")
    repeat = Repeat.IDEMPOTENT if status == "UNAVAILABLE" else Repeat.NEVER
    return Failure(refusal(code, text), repeat, request_id=trailers.get("x-request-id", "")[:200])


class GrpcTransport:
    """Blocking."""

    def __init__(self, address: Address, api_key: str | None, tls: Tls | None, connections_max: int) -> None:
        self._address, self._metadata = address, _metadata(api_key)
        self._channel = _channel(_grpc(), address, tls)

    def exchange(self, request: GrpcRequest, seconds: float) -> bytes:
        """Makes a call.

        Raises:
            Failure: it has no answer.
        """
        try:
            answer: bytes = self._channel.unary_unary(request.path)(
                request.message, timeout=seconds, metadata=self._metadata
            )
        except _grpc().RpcError as error:
            raise _failure(self._address, error, seconds) from error
        return answer

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport:
    """With asyncio. The channel is made by the first call, in its loop."""

    def __init__(self, address: Address, api_key: str | None, tls: Tls | None, connections_max: int) -> None:
        _grpc()
        self._address, self._metadata, self._tls = address, _metadata(api_key), tls
        self._channel: Any = None

    async def exchange(self, request: GrpcRequest, seconds: float) -> bytes:
        """As the blocking one."""
        if self._channel is None:
            self._channel = _channel(_grpc().aio, self._address, self._tls)
        try:
            answer: bytes = await self._channel.unary_unary(request.path)(
                request.message, timeout=seconds, metadata=self._metadata
            )
        except _grpc().RpcError as error:
            raise _failure(self._address, error, seconds) from error
        return answer

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
