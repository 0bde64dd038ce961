"""A server whose log, metrics and traces a test looks at."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = """
import json, logging, sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2, model_control=True, **json.loads(sys.argv[3]))
engine = Engine(sys.argv[1], clock_us=int(sys.argv[2]))

def ready(found):
    print(json.dumps(found), flush=True)
    logging.getLogger("some.library").warning("said by %s", "Python")

serve(engine, settings, ready)
"""


@dataclass
class Watched:
    """Its addresses; and when it has ended, what it has written to stderr."""

    http: str
    grpc: str
    metrics: str
    stderr: list[str] = field(default_factory=list)

    def ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers in lower case, and JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.http}{path}", data, dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = {name.lower(): value for name, value in answer.headers.items()}
                return answer.status, found, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            found = {name.lower(): value for name, value in error.headers.items()}
            return error.code, found, json.loads(error.read() or b"null")

    def metrics_page(self) -> str:
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=60) as answer:
            return str(answer.read().decode())


@contextmanager
def watched(
    project: Path, now_us: int, environment: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[Watched]:
    """A server over a project; what it writes to stderr is there when the block has ended."""
    arguments = [sys.executable, "-c", PROGRAM, str(project), str(now_us), json.dumps(settings)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    child = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**plain, **(environment or {})}
    )
    assert child.stdout is not None
    assert child.stderr is not None
    lines: list[str] = []
    stderr = child.stderr
    reader = threading.Thread(target=lambda: lines.extend(stderr))
    reader.start()
    try:
        line = child.stdout.readline()
        assert line, lines
        addresses = json.loads(line)
        yield Watched(addresses["http"], addresses["grpc"], addresses["metrics"], lines)
    finally:
        child.terminate()
        child.wait(timeout=60)
        reader.join()
        child.stdout.close()
        stderr.close()


@dataclass
class Collector:
    """What takes traces."""

    address: str
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def collector() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.headers.append({"path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            taken.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken = Collector(f"127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
