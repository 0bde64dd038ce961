"""What can be wrong in a project, and what the command says of it: the thing, the fault, what to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore
from headrace_control.training.register import versions

Command = Callable[..., Any]
MODEL = "departure_risk_lightgbm"
PAIRS = ("origin=JFK", "tailnum=N004", "carrier=UA", "planned_departure=2013-11-01T13:00:00Z")
CUT = datetime(2013, 11, 1, 12, tzinfo=UTC)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def refused(done: Any, status: int, code: str, *named: str) -> None:
    assert done.status == status, done.stdout + done.stderr
    assert done.error["code"] == code
    assert done.error["hint"]
    for name in named:
        assert name in done.error["message"] + done.error["hint"]


def test_a_column_that_a_source_lacks(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    path = project / "data" / "weather.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["humid"]), path)
    for command in ("materialize", "train"):
        refused(headrace(command, "--project", project, "--json"), 1, "missing_column", "humid", "weather")


def test_a_column_that_the_training_rows_lack(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    path = project / "data" / "flights.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["arr_delay"]), path)
    refused(headrace("train", "--project", project, "--json"), 1, "missing_column", "arr_delay", "departures")


def test_data_that_is_not_there_yet(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    (project / "data" / "flights.parquet").unlink()
    refused(headrace("train", "--project", project, "--json"), 4, "missing_data", "flights.parquet", "prepare.py")


def test_a_service_or_model_that_does_not_exist(headrace: Command, copy_of_trained: Path) -> None:
    refused(headrace("train", "nobody", "--project", copy_of_trained, "--json"), 1, "unknown_model", "nobody", MODEL)
    refused(headrace("predict", "nobody", *PAIRS, "--project", copy_of_trained, "--json"), 1, "unknown_model", MODEL)
    ask = ("predict", MODEL, *PAIRS, "--project", copy_of_trained, "--json")
    refused(headrace(*ask, "--version", "9"), 1, "unknown_model_version", "9")
    refused(headrace(*ask, "wind=3"), 1, "unknown_feature", "wind")
    replace(copy_of_trained / "headrace.toml", 'service = "departure_risk"', 'service = "departure_rsk"')
    done = headrace("train", "--project", copy_of_trained, "--json")
    refused(done, 1, "unknown_feature_service", "departure_rsk", "departure_risk")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('plane_register[["year_built"]]', 'plane_register[["year_bilt"]]', "unknown_feature"),
        ('Field("humid", Float64)', 'Field("humid", "float65")', "unknown_dtype"),
        ('col("wind_dir")', 'col("wind")', "invalid_expression"),
    ],
)
def test_a_wrong_definition_is_refused_whatever_is_wrong(
    headrace: Command, project: Path, old: str, new: str, code: str
) -> None:
    replace(project / "features" / "flights.py", old, new)
    for command in ("plan", "apply"):
        refused(headrace(command, "--project", project, "--json"), 3, code, new.split('"')[-2])


def test_an_entity_that_the_service_does_not_have(headrace: Command, trained: Path) -> None:
    done = headrace("predict", MODEL, "-e", "airport=JFK", "--project", trained, "--json")
    refused(done, 1, "unknown_entity", "airport")


def test_a_value_of_the_wrong_type_fails_its_row(headrace: Command, trained: Path) -> None:
    pairs = (*PAIRS[:3], "planned_departure=soon")
    done = headrace("predict", MODEL, *pairs, "--project", trained, "--json")
    assert done.status == 1
    assert "planned_departure" in json.dumps(done.json)


def test_a_change_of_type_names_the_services_and_models_that_it_would_break(
    headrace: Command, copy_of_trained: Path
) -> None:
    before = (copy_of_trained / ".headrace" / "plans" / "HEAD").read_text("utf-8")
    replace(copy_of_trained / "features" / "flights.py", 'Field("humid", Float64)', 'Field("humid", String)')
    done = headrace("apply", "--project", copy_of_trained, "--json")
    refused(done, 3, "breaking_change", "weather", "humid", "departure_risk", f"{MODEL}/1")
    assert (copy_of_trained / ".headrace" / "plans" / "HEAD").read_text("utf-8") == before
    check = headrace("plan", "--project", copy_of_trained, "--check")
    assert check.status == 3
    assert "humid" in check.stdout


def test_a_corrupt_model_file_is_not_served(headrace: Command, copy_of_trained: Path) -> None:
    (version,) = versions(copy_of_trained / ".headrace" / "models", MODEL)
    data = bytearray(version.model_file.read_bytes())
    data[len(data) // 2] ^= 0x55
    version.model_file.write_bytes(bytes(data))
    done = headrace("predict", MODEL, *PAIRS, "--project", copy_of_trained, "--json")
    assert done.status == 1
    assert done.error["code"] in ("corrupt_model", "unavailable")
    assert MODEL in done.error["message"]


def test_a_corrupt_log_is_named_and_not_passed_over(headrace: Command, copy_of_trained: Path) -> None:
    log = copy_of_trained / ".headrace" / "online" / "log"
    for path in (*log.glob("MANIFEST*"), *log.glob("CURRENT")):
        path.write_bytes(b"\x00nonsense\x00" * 20)
    for command in (("status",), ("materialize",)):
        done = headrace(*command, "--project", copy_of_trained, "--json")
        refused(done, 1, "corrupt_store", str(log.parent))


def test_a_second_writer_is_told_who_has_the_store(headrace: Command, copy_of_trained: Path) -> None:
    with FeatureStore(copy_of_trained) as store:
        store.open_online(writable=True)
        done = headrace("materialize", "--project", copy_of_trained, "--json")
        refused(done, 1, "store_locked", str(os.getpid()))
        assert headrace("status", "--project", copy_of_trained).status == 0, "reading needs no lock"
    assert headrace("materialize", "--project", copy_of_trained).status == 0


def test_a_busy_port_is_named(headrace: Command, trained: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = headrace("serve", "--http", f"127.0.0.1:{port}", "--project", trained, "--json")
        refused(done, 1, "port_busy", str(port))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_when_asked(trained: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-m", "headrace_control", "serve", "--project", str(trained)]
    options = ["--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--clock", CUT.isoformat()]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        process.send_signal(end)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
