"""Measures an HTTP server with bare sockets: a client that costs little, so that the figures are the server's.

Closed loop: each connection sends its next request when the answer to the last one is in.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace_control.errors import ControlError

HEADER_END = b"\r\n\r\n"
TIMEOUT_SECONDS = 10.0


def post(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    """The bytes of a request on a connection that stays open."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + HEADER_END + body


def connect(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@dataclass
class Reply:
    """One answer as it arrives."""

    received: bytearray = field(default_factory=bytearray)

    def is_whole(self) -> bool:
        end = self.received.find(HEADER_END)
        if end < 0:
            return False
        head = bytes(self.received[:end]).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        return len(self.received) >= end + len(HEADER_END) + length

    @property
    def status(self) -> int:
        return int(self.received.split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        return bytes(self.received.split(HEADER_END, 1)[1])


def exchange(connection: socket.socket, request: bytes) -> Reply:
    """Sends a request and waits for its answer.

    Raises:
        ControlError: `unavailable`, when the server closed the connection.
    """
    connection.sendall(request)
    reply = Reply()
    while not reply.is_whole():
        _receive(connection, reply)
    return reply


def _receive(connection: socket.socket, reply: Reply) -> None:
    part = connection.recv(1 << 16)
    if not part:
        raise ControlError("unavailable", "the server closed the connection", "look at the server's log")
    reply.received += part


def _checked(reply: Reply) -> None:
    if reply.status != 200:
        text = reply.body.decode(errors="replace")[:300]
        raise ControlError("unavailable", f"the server answered {reply.status}: {text}", "look at the server's log")


def latencies_us(host: str, port: int, requests: Sequence[bytes]) -> list[float]:
    """Microseconds of each request, sent one after the other on one connection.

    Raises:
        ControlError: `unavailable`, when an answer is not 200.
    """
    found = []
    with connect(host, port) as connection:
        for request in requests:
            start = time.perf_counter_ns()
            reply = exchange(connection, request)
            found.append((time.perf_counter_ns() - start) / 1000)
            _checked(reply)
    return found


def requests_per_second(host: str, port: int, requests: Sequence[bytes], connections: int) -> float:
    """How many of the requests are answered in a second over several connections at once.

    Raises:
        ControlError: `unavailable`, when an answer is not 200.
    """
    selector = selectors.DefaultSelector()
    opened = [connect(host, port) for _ in range(connections)]
    replies = {connection: Reply() for connection in opened}
    waiting = iter(requests)
    try:
        start = time.perf_counter()
        open_count = 0
        for connection, request in zip(opened, waiting, strict=False):
            selector.register(connection, selectors.EVENT_READ, connection)
            connection.sendall(request)
            open_count += 1
        while open_count:
            ready = selector.select(TIMEOUT_SECONDS)
            if not ready:
                raise ControlError(
                    "unavailable", f"no answer within {TIMEOUT_SECONDS:.0f} s", "look at the server's log"
                )
            for key, _ in ready:
                connection = key.data
                reply = replies[connection]
                _receive(connection, reply)
                if not reply.is_whole():
                    continue
                _checked(reply)
                replies[connection] = Reply()
                following = next(waiting, None)
                if following is None:
                    open_count -= 1
                    selector.unregister(connection)
                else:
                    connection.sendall(following)
        return len(requests) / (time.perf_counter() - start)
    finally:
        selector.close()
        for connection in opened:
            connection.close()
