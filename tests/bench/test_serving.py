"""The area `serve`: what it reads of load, how it takes turns, and its servers, on a small model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.client.messages import message
from headrace_control.bench import Result, Session, Settings
from headrace_control.bench.areas import serve
from headrace_control.bench.serving.load import Sample, sample_of_generator, sample_of_wrk
from headrace_control.bench.serving.servers import nginx_server
from headrace_control.bench.serving.turns import Turn, measure_turns
from headrace_control.demo.load import connect, exchange
from headrace_control.errors import ControlError


def generated(**by_status: dict[str, float]) -> dict[str, Any]:
    answered = sum(one["count"] for one in by_status.values())
    return {"seconds": 2.0, "due": answered + 3, "unanswered": 3, "by_status": by_status}


def latencies(count: int, p99_us: float) -> dict[str, float]:
    return {"count": count, "per_s": count / 2, "p50_us": p99_us / 2, "p99_us": p99_us, "max_us": p99_us * 2}


def test_samples_of_both_generators() -> None:
    found = {"requests": 500, "seconds": 2.0, "p50_us": 7, "p99_us": 9, "not_ok": 100, "failed": 1}
    assert sample_of_wrk(f"Running 1s test\n  a line\n{json.dumps(found)}\n") == Sample(200.0, 7, 9, 101)
    with pytest.raises(ControlError, match="no result"):
        sample_of_wrk("wrk: something went wrong")
    report = generated(**{"200": latencies(100, 800.0), "503": latencies(10, 50.0)})
    assert sample_of_generator(report) == Sample(50.0, 400.0, 800.0, 13)
    assert sample_of_generator(generated()) == Sample(0.0, 2e6, 2e6, 3)


def test_overload_is_judged_by_what_is_answered_and_how_fast_the_rest_is_refused() -> None:
    report = generated(**{"200": latencies(380, 15_000.0), "503": latencies(3000, 700.0)})
    found = serve.figures_of_overload(report, 200.0)
    assert found["goodput_over_peak"] == 0.95
    assert found["accepted_p99_over_service"] == 3.0
    assert found["refused_max_ms"] == 1.4
    held = {bar.name: bar.holds for bar in serve.overload_bars([found])}
    assert all(held.values())
    assert len(held) == 3
    # A server that queues everything refuses nothing, and that bar cannot hold.
    queued = serve.figures_of_overload(generated(**{"200": latencies(380, 900_000.0)}), 200.0)
    assert [bar.value for bar in serve.overload_bars([queued])] == [0.95, 180.0, None]
    assert not any(bar.holds for bar in serve.overload_bars([])[:2])


@pytest.mark.parametrize(("nginx_us", "expected"), [(400.0, 0.8), (1200.0, 0.5), (None, 0.8)])
def test_the_open_loop_is_allowed_twice_nginx_or_a_fixed_time(nginx_us: float | None, expected: float) -> None:
    results = [Result("headrace", "1", serve.OPEN, 1, 100.0, 1200.0, 1e4)]
    if nginx_us is not None:
        results.append(Result("nginx", "", serve.OPEN, 1, 100.0, nginx_us, 1e4))
    with Session(Settings(), note=lambda _: None) as session:
        assert [bar.value for bar in serve.open_loop_bar(session, results)] == [pytest.approx(expected)]


def test_turns_alternate_and_a_server_that_fails_is_left_out() -> None:
    order: list[str] = []

    def turn(engine: str, samples: Iterator[Sample]) -> Turn:
        @contextmanager
        def around() -> Iterator[None]:
            order.append(engine)
            yield

        return Turn(engine, "1", "case", lambda seconds: next(samples), around)

    good = iter([Sample(rate, 10.0, rate) for rate in (1, 50, 10, 30)])
    bad = iter([Sample(100, 1, 1), Sample(100, 1, 1), Sample(100, 1, 1, other=5)])
    with Session(Settings(repeats=3), note=lambda _: None) as session:
        results = measure_turns(session, [turn("a", good), turn("b", bad)], 1.0)
        assert "5 requests were not answered with 200" in session.skipped["b case"]
    # A warm-up of each, then rounds that begin with another one.
    assert order == ["a", "b", "a", "b", "b", "a", "a"]
    assert results == [Result("a", "1", "case", 1, 10.0, 30.0, 30.0)]


def test_values_of_answers() -> None:
    output = {"name": "value", "datatype": "FP64", "shape": [1]}
    assert serve.value_of_json(json.dumps({"outputs": [{**output, "data": [1.5]}]}).encode()) == 1.5
    binary = json.dumps(
        {"outputs": [{**output, "parameters": {"binary_data_size": 8}}]}, separators=(",", ":")
    ).encode()
    assert serve.value_of_binary(binary + np.array([2.5, 9.0], "<f8").tobytes()) == 2.5
    assert serve.value_of_common(b'{"predictions":[{"value":3.5}]}') == 3.5
    answer = message("inference.ModelInferResponse")()
    answer.outputs.add(name="value", datatype="FP32", shape=[1]).contents.fp32_contents.append(4.5)
    assert serve.value_of_grpc(answer.SerializeToString()) == 4.5
    answer.raw_output_contents.append(np.array([5.5], "<f4").tobytes())
    assert serve.value_of_grpc(answer.SerializeToString()) == 5.5


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="apt-get install nginx-light")
def test_nginx_answers_the_file_and_ends_with_the_block(tmp_path: Path) -> None:
    with nginx_server(tmp_path / "nginx", b"an answer") as server, connect("127.0.0.1", server.port) as connection:
        reply = exchange(connection, b"GET /answer HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (reply.status, reply.body) == (200, b"an answer")
    assert server.process.returncode == 0


def test_a_peer_that_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ControlError, match="nginx is not installed") as raised, nginx_server(tmp_path / "nginx", b""):
        pass
    assert "apt-get install nginx-light" in raised.value.hint
