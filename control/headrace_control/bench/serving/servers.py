"""The servers that the area `serve` compares, each a process of its own on a free port, ended with the run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_control.bench.environments import environment_python
from headrace_control.bench.micro import cargo_program
from headrace_control.bench.session import ONE_THREAD, Session
from headrace_control.demo.load import exchange
from headrace_control.errors import ControlError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
THREADS = 2
"""Of every server that can be told: as many as the machine of the bars has cores."""

BUSY = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()\n"
MAIN = "import sys\nfrom headrace_control.cli import main\nmain(sys.argv[1:])\n"


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        metrics: `HOST:PORT` of its Prometheus page, where it has one.
        grpc: the port of gRPC, where it has one.
    """

    process: subprocess.Popen[bytes]
    port: int
    metrics: str | None = None
    grpc: int | None = None

    def pause(self) -> None:
        """Stops it by signal, so that what computes in it takes no time from others."""
        self.process.send_signal(signal.SIGSTOP)

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Goes on for the block."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def resident_mib(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise ControlError("unavailable", "the server has ended", "look at its log")


@contextmanager
def running(
    command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the block: SIGTERM, and SIGKILL when it does not end."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, cwd=log.parent, env={**os.environ, **(variables or {})}
        )
    assert process.stdout is not None
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def headrace_server(project: Path, log: Path, options: Sequence[str] = (), *, busy: bool = False) -> Iterator[Server]:
    """The real `headrace serve` of this interpreter; with `busy`, a Python thread in its process computes without end.

    Raises:
        ControlError: `unavailable`, with the end of its log.
    """
    arguments = ["serve", "--project", str(project), "--http", "127.0.0.1:0", "--json", *options]
    variables = {"HEADRACE_SERVER_THREADS": str(THREADS)}
    command = [sys.executable, "-c", (BUSY if busy else "") + MAIN, *arguments]
    with running(command, log, variables) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            raise failed("headrace serve", log) from None
        if "error" in told:
            raise ControlError(**told["error"])
        grpc = told.get("grpc")
        grpc_port = None if grpc is None else int(grpc.rpartition(":")[2])
        yield Server(process, int(told["http_port"]), told.get("metrics"), grpc_port)


@contextmanager
def nginx_server(folder: Path, answer: bytes) -> Iterator[Server]:
    """Nginx with `answer` as a file that it serves from its cache of open files.

    Raises:
        ControlError: `missing_program`, `unavailable`.
    """
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise ControlError("missing_program", "nginx is not installed", "apt-get install nginx-light")
    (folder / "html").mkdir(parents=True)
    (folder / "html" / "answer").write_bytes(answer)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, workers=THREADS, user=nginx_user()))
    log = folder / "nginx.log"
    with running([program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(log)], log) as process:
        wait_for(port, process, "nginx", log)
        yield Server(process, port)


NGINX = """{user}
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
events {{ worker_connections 1024; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    open_file_cache max=100;
    open_file_cache_valid 3600s;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port} reuseport; root {folder}/html; }}
}}
"""


def nginx_user() -> str:
    """Root's workers would give up their rights and could not read the run's folder."""
    return "user root;" if os.geteuid() == 0 else ""


def bare_server(session: Session, folder: Path, answer: bytes) -> AbstractContextManager[Server]:
    """A hyper server that reads each request and answers the same bytes, with as many threads.

    Raises:
        ControlError: `missing_program`, `build_failed`.
    """
    return _answering_the_same(session, folder, answer, "bare", "application/json")


def bare_grpc_server(session: Session, folder: Path, answer: bytes) -> AbstractContextManager[Server]:
    """A server made with tonic that reads each message and answers the same one, with as many threads.

    Raises:
        ControlError: `missing_program`, `build_failed`.
    """
    return _answering_the_same(session, folder, answer, "bare-grpc")


@contextmanager
def _answering_the_same(session: Session, folder: Path, answer: bytes, program: str, *options: str) -> Iterator[Server]:
    """A program of bench/load, on one port whatever it speaks."""
    path = cargo_program(session.root, "headrace-load", program)
    folder.mkdir(parents=True)
    (folder / "answer").write_bytes(answer)
    with running([str(path), str(THREADS), str(folder / "answer"), *options], folder / f"{program}.log") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().decode().rpartition(":")[2])
        yield Server(process, port, grpc=port)


@contextmanager
def fastapi_server(session: Session, folder: Path, model: Path) -> Iterator[Server]:
    """Uvicorn with uvloop and httptools, a worker for each core."""
    folder.mkdir(parents=True)
    port = free_port()
    python = environment_python(session.compare, "fastapi", session.cache)
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        str(THREADS),
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    command = [str(python), "-m", "uvicorn", "app:app", "--app-dir", str(session.compare / "fastapi"), *options]
    log = folder / "fastapi.log"
    with running(command, log, {**ONE_THREAD, "MODEL": str(model)}) as process:
        wait_for(port, process, "uvicorn", log)
        yield Server(process, port)


@contextmanager
def mlserver_server(session: Session, folder: Path, model: Path) -> Iterator[Server]:
    """MLServer with its XGBoost runtime, a worker process for each core, metrics and logs off."""
    folder.mkdir(parents=True)
    ports = {"http_port": free_port(), "grpc_port": free_port(), "metrics_port": free_port()}
    settings = {"host": "127.0.0.1", "parallel_workers": THREADS, "metrics_endpoint": None, "debug": False, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    named = {"name": "plain", "implementation": "mlserver_xgboost.XGBoostModel", "parameters": {"uri": str(model)}}
    (folder / "model-settings.json").write_text(json.dumps(named))
    python = environment_python(session.compare, "mlserver", session.cache)
    log = folder / "mlserver.log"
    with running([str(python), "-m", "mlserver.cli.main", "start", str(folder)], log, ONE_THREAD) as process:
        wait_for(ports["http_port"], process, "MLServer", log, "/v2/models/plain/ready")
        yield Server(process, ports["http_port"], grpc=ports["grpc_port"])


@contextmanager
def busy_process() -> Iterator[Server]:
    """A Python process that computes without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield Server(process, 0)
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], what: str, log: Path, path: str = "/") -> None:
    """Until a GET is answered, and by 200 where a path is named."""
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S) as connection:
                reply = exchange(connection, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            if path == "/" or reply.status == 200:
                return
        except (OSError, ControlError, IndexError, ValueError):
            pass
        time.sleep(0.05)
    raise failed(what, log)


def failed(what: str, log: Path) -> ControlError:
    said = " ".join(log.read_text(errors="replace").split())[-400:] if log.exists() else ""
    return ControlError("unavailable", f"{what} did not start: {said}", "start it by hand to see why")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
