"""The server's log: every line is an object, what happens is told, and no value that a request brings along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.protocol.conftest import NOW_US
from tests.protocol.watched import watched
from tests.waiting import eventually

from headrace._native import Engine as NativeEngine
from headrace.logs import ServerLogHandler, server_log

PREDICT = "/v1/deployments/late/predict"
CANARY = "canary-7f3a"
CANARY_NUMBER = 31337.625


@pytest.fixture
def copied(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "project"))


def events_of(lines: list[str]) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in lines]
    for event in events:
        assert {"ts", "level", "event", "message"} <= set(event)
        assert event["ts"].endswith("Z")
    return events


def test_every_line_is_json_and_none_holds_a_value(copied: Path, rows: Any) -> None:
    hostile = {"entities": {"origin": [CANARY]}, "request": {"planned": [CANARY], "seats": [CANARY_NUMBER]}}
    with watched(copied, NOW_US, log="json", access_log=True, slow_request_seconds=1e-9) as server:
        assert (
            server.ask(PREDICT, rows, {"x-request-id": "r-9", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"})[0] == 200
        )
        server.ask(PREDICT, hostile)
        server.ask(PREDICT, {"entities": {CANARY: [1]}})
        server.ask("/v1/deployments/plain/predict", {"features": {"a": [CANARY_NUMBER], "b": [CANARY]}})
        server.ask("/v2/models/plain/infer", {"inputs": CANARY})
        server.ask("/v2/repository/models/plain/unload", {})
        eventually(lambda: any('"model_unloaded"' in line for line in server.stderr))
    text = "".join(server.stderr)
    assert CANARY not in text
    assert "31337" not in text
    events = events_of(server.stderr)
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "stop"
    assert {"start", "ready", "model_loaded", "model_unloaded", "request", "slow_request", "drain", "stop"} <= set(
        kinds
    )
    first = next(event for event in events if event["event"] == "request")
    assert (first["model"], first["rows"], first["status"], first["request_id"]) == ("late", 3, 200, "r-9")
    assert first["trace_id"] == "ab" * 16
    assert first["cost_us"] > 0
    assert first["total_us"] >= first["model_us"] > 0
    refused = [event for event in events if event["event"] == "request" and event["status"] == 400]
    assert "unknown_entity" in {event["error"] for event in refused}
    said = next(event for event in events if event["event"] == "log")
    assert (said["logger"], said["message"], said["level"]) == ("some.library", "said by Python", "warning")
    ready = next(event for event in events if event["event"] == "ready")
    assert ready["http"] == server.http


def test_tritons_settings_take_effect(copied: Path, rows: Any) -> None:
    with watched(copied, NOW_US, log="json") as server:
        server.ask(PREDICT, rows)
        server.ask("/v2/logging", {"log_verbose_level": 1})

        def asked() -> bool:
            server.ask(PREDICT, rows, {"x-request-id": "verbose"})
            return any('"verbose"' in line for line in server.stderr)

        eventually(asked)
        server.ask("/v2/logging", {"log_info": False, "log_verbose_level": 0})
    events = events_of(server.stderr)
    requests = [event for event in events if event["event"] == "request"]
    assert requests
    assert all(event.get("request_id") == "verbose" or "logging" in event["message"] for event in requests)
    assert "stop" not in {event["event"] for event in events}, "info is off"


def test_a_text_log_is_for_people(copied: Path, rows: Any) -> None:
    with watched(copied, NOW_US, log="text", access_log=True) as server:
        server.ask(PREDICT, rows, {"x-request-id": "r=1"})
    line = next(line for line in server.stderr if " request: " in line)
    assert f"POST {PREDICT} 200" in line
    assert 'request_id="r=1"' in line
    assert any("WARNING log: said by Python logger=some.library" in line for line in server.stderr)


def test_python_records_go_where_the_settings_let_them(capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    logger = logging.getLogger("tests.own")
    logger.propagate = False
    handler = ServerLogHandler(NativeEngine(), "json")
    logger.addHandler(handler)
    try:
        logger.warning("kept", extra={"event": "told"})
        try:
            raise ValueError(CANARY)
        except ValueError:
            logger.exception("failed\nwith a second line")
    finally:
        logger.removeHandler(handler)
    first, second = events_of(capfd.readouterr().err.splitlines())
    assert (first["event"], first["message"], first["logger"]) == ("told", "kept", "tests.own")
    assert (second["level"], second["exception"]) == ("error", "ValueError")
    assert CANARY not in json.dumps(second)


def test_a_program_with_its_own_logging_keeps_it() -> None:
    import logging

    before = list(logging.getLogger().handlers)  # pytest's own
    with server_log(NativeEngine(), "json"):
        assert logging.getLogger().handlers == before
