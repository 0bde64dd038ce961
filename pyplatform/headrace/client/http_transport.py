"""HTTP by httpx: kept connections, limits on time and on what is read, and what went wrong as a `Failure`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from headrace.client.failures import (
    CODE_OF_STATUS,
    Failure,
    Repeat,
    late,
    refusal,
    unreachable,
    unreadable,
)
from headrace.client.http_calls import HttpAnswer, HttpRequest
from headrace.client.options import ANSWER_BYTES_MAX, Address, Tls
from headrace.errors import HeadraceError, make_error

if TYPE_CHECKING:
    import httpx

RETRY_AFTER_MAX = 3600.0


def _httpx() -> Any:
    try:
        import httpx
    except ImportError:
        raise make_error("unsupported", "the HTTP client needs httpx", "pip install 'headrace[client]'") from None
    return httpx


def _options(address: Address, api_key: str | None, tls: Tls | None, connections_max: int) -> dict[str, Any]:
    """Of an httpx client. The environment's proxies and passwords are not used: a key goes to the server named."""
    headers = {"accept": "application/json", "user-agent": "headrace"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    limits = _httpx().Limits(max_connections=connections_max, max_keepalive_connections=connections_max)
    options: dict[str, Any] = {"base_url": str(address), "headers": headers, "limits": limits, "trust_env": False}
    if address.is_encrypted:
        options["verify"] = (tls or Tls()).context()
    return options


def _timeout(seconds: float) -> Any:
    return _httpx().Timeout(seconds)


def _failure(address: Address, error: Exception, seconds: float) -> Failure:
    """Of a request that has got no answer yet."""
    httpx = _httpx()
    if isinstance(error, httpx.ConnectTimeout | httpx.ReadTimeout | httpx.WriteTimeout):
        return late(str(address), seconds)
    if isinstance(error, httpx.PoolTimeout):
        return late(f"the pool of connections to {address}", seconds)
    if isinstance(error, httpx.ConnectError):
        return unreachable(str(address), error, Repeat.ALWAYS)
    if isinstance(error, httpx.NetworkError) or _is_disconnect(error):
        return unreachable(str(address), str(error) or type(error).__name__, Repeat.IDEMPOTENT)
    return unreadable(str(address), str(error) or type(error).__name__)


def _is_disconnect(error: Exception) -> bool:
    """Whether the server closed the connection before an answer, for example an idle one that is asked again."""
    return isinstance(error, _httpx().RemoteProtocolError) and "without sending a response" in str(error)


class _Body:
    """An answer's bytes as they come, within limits."""

    def __init__(self, address: Address, headers: Mapping[str, str], until: float, seconds: float) -> None:
        self._address, self._until, self._seconds = address, until, seconds
        self._parts: list[bytes] = []
        self._bytes = 0
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > ANSWER_BYTES_MAX:
            raise self._too_large()

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self._bytes += len(part)
        if self._bytes > ANSWER_BYTES_MAX:
            raise self._too_large()
        if time.monotonic() > self._until:
            raise late(str(self._address), self._seconds)

    def whole(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def _too_large(self) -> Failure:
        return unreadable(self._address.__str__(), f"more than {ANSWER_BYTES_MAX} bytes")


def _answer(status: int, headers: Mapping[str, str], body: bytes, address: Address) -> HttpAnswer:
    """The answer of a request that was met.

    Raises:
        Failure: it was refused.
    """
    if status == 200:
        return HttpAnswer(headers, body)
    raise _refused(status, headers, body, address)


def _refused(status: int, headers: Mapping[str, str], body: bytes, address: Address) -> Failure:
    request_id = headers.get("x-request-id", "")[:200]
    error: HeadraceError
    try:
        told = json.loads(body)
        text = str(told["error"])
        code = told.get("code", "")
        error = refusal(str(code) if code else CODE_OF_STATUS.get(status, "internal"), text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if status not in CODE_OF_STATUS:
            return unreadable(str(address), f"status {status}")
        error = make_error(CODE_OF_STATUS[status], f"{address} answered with status {status}")
    wait = headers.get("retry-after", "").strip()
    if status in (429, 503) and wait.isdecimal():
        seconds = min(float(wait), RETRY_AFTER_MAX) if len(wait) < 8 else RETRY_AFTER_MAX
        return Failure(error, Repeat.IDEMPOTENT, wait_seconds=seconds, request_id=request_id)
    return Failure(error, request_id=request_id)


class HttpTransport:
    """Blocking."""

    def __init__(self, address: Address, api_key: str | None, tls: Tls | None, connections_max: int) -> None:
        self._address = address
        self._client: httpx.Client = _httpx().Client(**_options(address, api_key, tls, connections_max))

    def exchange(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """Sends a request and reads its answer.

        Raises:
            Failure: there is none.
        """
        until = time.monotonic() + seconds
        with self._sent(request, seconds) as response:
            body = _Body(self._address, response.headers, until, seconds)
            try:
                for part in response.iter_bytes():
                    body.add(part)
            except _httpx().TimeoutException as error:
                raise late(str(self._address), seconds) from error
            except _httpx().HTTPError as error:
                raise unreadable(str(self._address), error) from error
            return _answer(response.status_code, response.headers, body.whole(), self._address)

    @contextmanager
    def _sent(self, request: HttpRequest, seconds: float) -> Iterator[httpx.Response]:
        made = self._client.build_request(
            request.method, request.path, content=request.body, headers=request.headers, timeout=_timeout(seconds)
        )
        try:
            response = self._client.send(made, stream=True)
        except _httpx().HTTPError as error:
            raise _failure(self._address, error, seconds) from error
        try:
            yield response
        finally:
            response.close()

    def close(self) -> None:
        self._client.close()


class AsyncHttpTransport:
    """With asyncio. Its connections belong to the loop that uses it first."""

    def __init__(self, address: Address, api_key: str | None, tls: Tls | None, connections_max: int) -> None:
        self._address = address
        self._client: httpx.AsyncClient = _httpx().AsyncClient(**_options(address, api_key, tls, connections_max))

    async def exchange(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        """As the blocking one; the whole of it is bounded by the time."""
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(request, seconds)
        except TimeoutError as error:
            raise late(str(self._address), seconds) from error

    async def _exchange(self, request: HttpRequest, seconds: float) -> HttpAnswer:
        until = time.monotonic() + seconds
        async with self._sent(request, seconds) as response:
            body = _Body(self._address, response.headers, until, seconds)
            try:
                async for part in response.aiter_bytes():
                    body.add(part)
            except _httpx().TimeoutException as error:
                raise late(str(self._address), seconds) from error
            except _httpx().HTTPError as error:
                raise unreadable(str(self._address), error) from error
            return _answer(response.status_code, response.headers, body.whole(), self._address)

    @asynccontextmanager
    async def _sent(self, request: HttpRequest, seconds: float) -> AsyncIterator[httpx.Response]:
        made = self._client.build_request(
            request.method, request.path, content=request.body, headers=request.headers, timeout=_timeout(seconds)
        )
        try:
            response = await self._client.send(made, stream=True)
        except _httpx().HTTPError as error:
            raise _failure(self._address, error, seconds) from error
        try:
            yield response
        finally:
            await response.aclose()

    async def close(self) -> None:
        await self._client.aclose()
