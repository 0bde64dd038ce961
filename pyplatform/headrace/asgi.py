"""The server's HTTP answers as an ASGI application, to be mounted in an application that somebody has already.

```python
engine = headrace.Engine("flights")
api = FastAPI()
api.mount("/ml", headrace.asgi.app(engine))
```

The Rust handlers of `headrace serve` make the answers; only sockets, connection limits and metrics are the host's. A
cheap answer is made on the event loop, in microseconds and without the GIL; one that takes long, or waits for a queue,
on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from headrace import _native
from headrace.engine import Engine
from headrace.errors import make_error
from headrace.serving import ModelControl, Writer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES_MAX = 64 << 20

_log = logging.getLogger(__name__)


def app(
    engine: Engine,
    *,
    body_bytes_max: int = BODY_BYTES_MAX,
    writes: bool = False,
    model_control: bool = False,
    refresh_seconds: float | None = 1.0,
) -> AsgiApp:
    """The application.

    Args:
        engine: what answers.
        body_bytes_max: of a request, as sent and as inflated; larger ones are answered 413.
        writes: take pushes and deletions, which otherwise are answered 403.
        model_control: let clients load and unload models, which otherwise is answered 403.
        refresh_seconds: how often what other processes write and register is brought in, between the lifespan's startup
            and shutdown; None for never. A mounted application gets no lifespan events from Starlette: enter
            `app.running()` in the host's own lifespan, or call `engine.refresh()` yourself.

    Raises:
        InputError: `invalid_argument`.
    """
    if body_bytes_max < 1 or (refresh_seconds is not None and not refresh_seconds > 0):
        raise make_error("invalid_argument", "body_bytes_max and refresh_seconds are above 0", "leave them out")
    return AsgiApp(engine, body_bytes_max, writes, model_control, refresh_seconds)


class AsgiApp:
    """An ASGI 3 application; made by `app`."""

    def __init__(
        self, engine: Engine, body_bytes_max: int, writes: bool, model_control: bool, refresh_seconds: float | None
    ) -> None:
        self._engine = engine
        self._body_bytes_max = body_bytes_max
        self._refresh_seconds = refresh_seconds
        self._embedded = _native.Embedded(engine.native, body_bytes_max, writes, model_control)
        self._write = Writer(engine) if writes else None
        self._change_model = ModelControl(engine) if model_control else None
        self._errands = threading.Lock()
        """One write at a time, as the server makes them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003, "reason": "headrace speaks HTTP"})
        else:
            raise NotImplementedError(f"the ASGI scope {scope['type']!r}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self._body(scope, receive)
        if body is None:
            return  # the client has gone
        begun = self._embedded.begin(scope["method"], path_of(scope), list(scope["headers"]), body)
        if isinstance(begun, _native.EmbeddedAnswer):
            status, headers, content = await asyncio.to_thread(self._finish, begun)
        else:
            status, headers, content = begun
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        # An answer to HEAD tells the length of what it does not send.
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    def _finish(self, answer: _native.EmbeddedAnswer) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if answer.kind == "prediction":
            return answer.finish()
        with self._errands:
            return answer.finish(self._write, self._change_model)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """All of it, or a part that is larger than the limit; None where it breaks off."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            if part and size <= self._body_bytes_max:
                # What comes behind the limit is read and dropped: the host's server wants it gone.
                parts.append(part[: self._body_bytes_max + 1 - size])
                size += len(parts[-1])
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Brings in what other processes write, as long as this is entered."""
        task = None if self._refresh_seconds is None else asyncio.create_task(self._refresh(self._refresh_seconds))
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _refresh(self, seconds: float) -> None:
        fault = None
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(self._engine.refresh)
                fault = None
            except Exception as error:
                if str(error) != fault:
                    fault = str(error)
                    _log.warning("what others have written cannot be read, so answers are as of before: %s", error)


def path_of(scope: Scope) -> str:
    """The request's path below the place where the application is mounted, percent-encoded as it was sent."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    raw = scope.get("raw_path")
    sent = raw.decode("latin-1").partition("?")[0] if raw is not None else quote(path)
    if root and (path == root or path.startswith(root + "/")):
        # By its segments: the prefix may be encoded in more than one way.
        return "/" + "/".join(sent.split("/")[root.count("/") + 1 :])
    return sent
