"""A server that answers what it is told to, byte by byte: for what no sound server does."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def answer(status: int, body: bytes | dict[str, Any], *headers: str) -> bytes:
    """A whole HTTP answer, after which the connection ends."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "connection: close", f"content-length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


class FakeServer:
    """Gives one answer a connection; the last one again and again. Empty bytes close it without an answer."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Line, headers and body of each request."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        file = connection.makefile("rb")
        line = file.readline().decode().strip()
        headers = {}
        while text := file.readline().decode().strip():
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", "0")))
        self.requests.append((line, headers, body))
        told = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        try:
            connection.sendall(told)
            connection.shutdown(socket.SHUT_WR)
            file.read()  # until the client has closed: nothing that it still sends may reset the connection
        except OSError:
            pass
        finally:
            file.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def faked(*answers: bytes) -> Iterator[FakeServer]:
    server = FakeServer(answers)
    try:
        yield server
    finally:
        server.close()
