"""A Redis server of the harness's own: memory only, on a free loopback port, ended with the run."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace_control.errors import ControlError

START_TIMEOUT_S = 10.0


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Runs a server for the block; gives its port.

    Raises:
        ControlError: `missing_program` without redis-server, `unavailable` when it does not answer.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ControlError("missing_program", "redis-server is not installed", "apt-get install redis-server")
    port = _free_port()
    arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with (folder / "redis.log").open("w") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        _wait_until_ready(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise ControlError("unavailable", "redis-server did not answer a PING", "run redis-server by hand to see why")
