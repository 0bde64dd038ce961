"""`serve`: a process that answers until it is told to stop, and follows what other processes write."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import eventually

from headrace import FeatureStore

PROGRAM = """
import sys
from headrace import Engine
from headrace.config import ServerSection
from headrace.serving import serve

settings = ServerSection(http_port=0, metrics_port=0, threads=2, refresh_seconds=0.05)
serve(
    Engine(sys.argv[1], clock_us=int(sys.argv[2])),
    settings,
    on_ready=lambda addresses: print(addresses["http"], addresses["metrics"], flush=True),
)
print("heavy", [name for name in ("pyarrow", "pandas", "numba", "numpy") if name in sys.modules])
"""


@contextlib.contextmanager
def server(root: Path, now_us: int, program: str = PROGRAM) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    child = subprocess.Popen([sys.executable, "-c", program, str(root), str(now_us)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        http, metrics = child.stdout.readline().split()
        yield child, f"http://{http}", f"http://{metrics}"
    finally:
        child.kill()
        child.communicate()


def predict(url: str, model: str, origin: str) -> dict[str, Any]:
    body = {
        "entities": {"origin": [origin]},
        "request": {"planned": ["2013-01-01T00:00:00Z"]},
        "outputs": ["margin"],
    }
    asked = urllib.request.Request(f"{url}/v1/deployments/{model}/predict", json.dumps(body).encode())
    with urllib.request.urlopen(asked, timeout=30) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_answers_follows_and_stops(
    weather_store: FeatureStore,
    weather_project: Path,
    make_model: Callable[..., Path],
    now_us: list[int],
    stop: signal.Signals,
) -> None:
    weather_store.materialize()
    make_model("late/1", {"temp": 1.0})
    with server(weather_project, now_us[0]) as (child, http, metrics):
        assert predict(http, "late", "JFK")["predictions"] == [{"margin": 4.0}]
        with urllib.request.urlopen(f"{metrics}/metrics", timeout=30) as reply:
            assert b"headrace" in reply.read()
        make_model("late/2", {"temp": 2.0})
        eventually(lambda: predict(http, "late", "JFK")["predictions"] == [{"margin": 8.0}])
        row = {"origin": ["JFK"], "time_hour": [now_us[0]], "temp": [7.0], "wind_dir": [0.0]}
        import pyarrow as pa

        weather_store.push("weather", {**row, "time_hour": pa.array([now_us[0]], pa.timestamp("us", "UTC"))})
        eventually(lambda: predict(http, "late", "JFK")["predictions"] == [{"margin": 14.0}])
        child.send_signal(stop)
        assert child.stdout is not None
        assert child.stdout.read().strip() == "heavy []"
        assert child.wait(timeout=30) == 0


LIMITED = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))\n" + PROGRAM


def test_idle_connections_leave_files_to_the_process(
    weather_store: FeatureStore, weather_project: Path, make_model: Callable[..., Path], now_us: list[int]
) -> None:
    """Under a limit of 400 open files, half of them stay for models, the table's log and the metrics port."""
    weather_store.materialize()
    make_model("late/1", {"temp": 1.0})
    with server(weather_project, now_us[0], LIMITED) as (_, http, metrics), contextlib.ExitStack() as open_ones:
        host, port = http.removeprefix("http://").split(":")
        idle = [open_ones.enter_context(socket.create_connection((host, int(port)), 30)) for _ in range(300)]
        idle[-1].settimeout(30)
        assert idle[-1].recv(12) == b"HTTP/1.1 503"
        with urllib.request.urlopen(f"{metrics}/metrics", timeout=30) as reply:
            assert b"headrace_http_connections 200" in reply.read()
        make_model("late/2", {"temp": 2.0})
        open_ones.close()
        eventually(lambda: predict(http, "late", "JFK")["predictions"] == [{"margin": 8.0}])


def test_a_busy_port_is_named(weather_project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = (
            "import sys\nfrom headrace import Engine, ProcessError\nfrom headrace.config import ServerSection\n"
            "from headrace.serving import serve\n"
            "try:\n"
            f"    serve(Engine({str(weather_project)!r}), ServerSection(http_port={port}))\n"
            "except ProcessError as error:\n"
            "    print(error.code, error.message)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("port_busy")
    assert str(port) in done.stdout


def test_a_wrong_setting_of_the_server_is_named(weather_project: Path) -> None:
    from headrace import Engine, InputError
    from headrace.config import ServerSection
    from headrace.serving import serve

    engine = Engine(weather_project)
    with pytest.raises(InputError, match=r"server\.host is 'nowhere'"):
        serve(engine, ServerSection(host="nowhere"))
    with pytest.raises(InputError, match=r"server\.http_port is 70000"):
        serve(engine, ServerSection(http_port=70_000))


def test_a_store_that_cannot_be_read_does_not_end_the_server(
    weather_store: FeatureStore, weather_project: Path, make_model: Callable[..., Path], now_us: list[int]
) -> None:
    weather_store.materialize()
    weather_store.close()
    make_model("late/1", {"temp": 1.0})
    head = weather_project / ".headrace/plans/HEAD"
    with server(weather_project, now_us[0]) as (child, http, _):
        before = predict(http, "late", "JFK")["predictions"]
        applied = head.read_text()
        head.write_text("garbage")
        time.sleep(0.3)  # some refreshes
        assert predict(http, "late", "JFK")["predictions"] == before
        head.write_text(applied)
        (weather_project / ".headrace/online/log/CURRENT").write_text("garbage")
        (weather_project / ".headrace/online/acknowledged").write_bytes(b"")
        time.sleep(0.3)
        assert child.poll() is None
        assert predict(http, "late", "JFK")["predictions"] == before


FUNCTIONS = """
import math

from headrace import *


@scalar_function
def doubled(angle: float) -> float:
    return math.cos(angle) * 2


@python_function(returns=Float64)
def feels(temps):
    if any(temp is not None and temp > 90 for temp in temps):
        raise ValueError("too hot")
    return [None if temp is None else temp * 10 for temp in temps]
"""


def test_functions_in_python_are_served_and_their_errors_end_nothing(
    weather_project: Path, make_model: Callable[..., Path], now_us: list[int]
) -> None:
    definitions = weather_project / "features" / "all.py"
    fields = 'Field("twice", Float64, doubled(col("wind_dir"))), Field("feels", Float64, feels(col("temp"))),\n    ],'
    definitions.write_text(FUNCTIONS + definitions.read_text().replace("    ],\n)\nrisk", f"    {fields}\n)\nrisk"))
    with FeatureStore(weather_project, clock=lambda: now_us[0]) as store:
        store.apply()
        store.materialize()
        make_model("late/1", {"feels": 1.0, "twice": 0.0})
        with server(weather_project, now_us[0]) as (_, http, _metrics):
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: predict(http, "late", "EWR")["predictions"], range(40)))
            assert answers == [[{"margin": 110.0}]] * 40

            def push(temp: float) -> None:
                import pyarrow as pa

                at = pa.array([now_us[0]], pa.timestamp("us", "UTC"))
                store.push("weather", {"origin": ["EWR"], "time_hour": at, "temp": [temp], "wind_dir": [0.0]})

            def failure() -> dict[str, str]:
                try:
                    predict(http, "late", "EWR")
                except urllib.error.HTTPError as error:
                    said: dict[str, str] = json.load(error)
                    assert error.code == 500
                    return said
                return {}

            push(95.0)
            eventually(lambda: failure() != {})
            assert failure()["code"] == "function_failed"
            assert "function 'all:feels' raised ValueError: too hot" in failure()["error"]
            push(7.0)
            eventually(lambda: failure() == {})
            assert predict(http, "late", "EWR")["predictions"] == [{"margin": 70.0}]
