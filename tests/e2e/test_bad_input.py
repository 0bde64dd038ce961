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


def test_plan_apply_and_doctor_warn_about_sources(headrace: Command, project: Path) -> None:
    definitions = project / "features" / "flights.py"
    replace(definitions, 'event_ts="time_hour"', 'event_ts="time_hor"')
    replace(definitions, '"dep_delay": "carrier_dep_delay"', '"dep_dela": "carrier_dep_delay"')
    (project / "data" / "planes.parquet").unlink()
    for command in ("plan", "apply"):
        done = headrace(command, "--project", project, "--json")
        assert done.status == 0
        warnings = done.json["warnings"]
        assert [warning.split(":")[0] for warning in warnings] == [
            "view 'carrier_delay'",
            "view 'plane'",
            "view 'weather'",
        ]
        assert "no column 'dep_dela' (rename of 'carrier_dep_delay'); did you mean 'dep_delay'?" in warnings[0]
        assert "planes.parquet does not exist" in warnings[1]
        assert "no column 'time_hor' (event_ts); did you mean 'time_hour'?" in warnings[2]
        assert all(f"warning: {warning}" in done.stderr for warning in warnings)
    done = headrace("doctor", "--project", project, "--json")
    assert [one["found"] for one in done.json["findings"] if one["what"] == "source"] == warnings


def test_a_column_that_the_training_rows_lack(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    path = project / "data" / "flights.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["arr_delay"]), path)
    refused(headrace("train", "--project", project, "--json"), 1, "missing_column", "arr_delay", "departures")


def test_data_that_is_not_there_yet(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    (project / "data" / "flights.parquet").unlink()
    refused(headrace("train", "--project", project, "--json"), 4, "missing_data", "flights.parquet", "prepare.py")
    (project / "data" / "weather.parquet").unlink()
    refused(headrace("materialize", "--project", project, "--json"), 4, "not_found", "weather.parquet")


def test_a_service_or_model_that_does_not_exist(headrace: Command, copy_of_trained: Path) -> None:
    refused(headrace("train", "nobody", "--project", copy_of_trained, "--json"), 2, "unknown_model", "nobody", MODEL)
    refused(headrace("predict", "nobody", *PAIRS, "--project", copy_of_trained, "--json"), 2, "unknown_model", MODEL)
    ask = ("predict", MODEL, *PAIRS, "--project", copy_of_trained, "--json")
    refused(headrace(*ask, "--version", "9"), 2, "unknown_model_version", "9")
    refused(headrace(*ask, "wind=3"), 2, "unknown_feature", "wind")
    replace(copy_of_trained / "headrace.toml", 'service = "departure_risk"', 'service = "departure_rsk"')
    done = headrace("train", "--project", copy_of_trained, "--json")
    refused(done, 3, "unknown_feature_service", "departure_rsk", "departure_risk")


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
    done = headrace("predict", MODEL, *PAIRS, "-e", "airport=JFK", "--project", trained, "--json")
    refused(done, 2, "unknown_entity", "airport")


def test_all_that_a_prediction_lacks_is_named_at_once(headrace: Command, trained: Path) -> None:
    done = headrace("predict", MODEL, "carrier=UA", "--project", trained, "--json")
    refused(done, 2, "usage", "origin=VALUE tailnum=VALUE planned_departure=VALUE")
    done = headrace("predict", MODEL, "temp=2", "--project", trained, "--json")
    refused(done, 2, "invalid_argument", "origin")


def test_views_and_times_that_are_given_wrongly(headrace: Command, trained: Path) -> None:
    ask = ("materialize", "--project", trained, "--json")
    refused(headrace(*ask, "--view", "wether"), 2, "unknown_feature_view", "did you mean 'weather'?")
    refused(headrace(*ask, "--start", "2013-03-01", "--end", "2013-02-01"), 2, "usage", "--start", "--end")
    refused(headrace(*ask, "--start", "3013-03-01"), 2, "usage", "--start", "now")


def test_a_project_without_definitions(headrace: Command, project: Path) -> None:
    (project / "features" / "flights.py").unlink()
    for command in ("plan", "apply"):
        refused(headrace(command, "--project", project, "--json"), 4, "not_found", "features")


def test_a_model_before_it_is_trained(headrace: Command, project: Path) -> None:
    done = headrace("predict", MODEL, *PAIRS, "--project", project, "--json")
    refused(done, 4, "not_trained", "headrace train")


def test_work_with_an_older_plan_is_said(headrace: Command, copy_of_trained: Path) -> None:
    replace(
        copy_of_trained / "features" / "flights.py",
        'Field("visib", Float64),',
        'Field("visib", Float64), Field("wind_gust", Float64),',
    )
    for command in (("materialize", "--view", "plane"), ("train", MODEL)):
        done = headrace(*command, "--project", copy_of_trained, "--json")
        assert done.status == 0, done.stdout
        assert "run: headrace apply" in done.stderr


def test_a_prediction_from_nothing_says_so(headrace: Command, trained: Path) -> None:
    pairs = ("origin=JFK", "tailnum=N999", "carrier=ZZ", PAIRS[3])
    done = headrace("predict", MODEL, *pairs, "--project", trained, "--json")
    assert done.status == 0
    statuses = done.json["feature_statuses"]
    assert statuses["carrier_dep_delay"] == "NOT_FOUND"
    assert statuses["temp"] == "OUTSIDE_MAX_AGE"
    assert statuses["hour_sin"] == "PRESENT"
    (warning,) = done.json["warnings"]
    assert "NOT_FOUND" in warning
    assert "8 OUTSIDE_MAX_AGE" in warning
    assert warning in done.stderr
    at = headrace("predict", MODEL, *PAIRS, "--project", trained, "--json", "--clock", "2013-10-01")
    assert "after the clock" in at.json["warnings"][0]
    assert "materialize --end 2013-10-01T00:00:00Z" in at.json["warnings"][0]


def test_a_value_of_the_wrong_type_fails_its_row(headrace: Command, trained: Path) -> None:
    pairs = (*PAIRS[:3], "planned_departure=soon")
    done = headrace("predict", MODEL, *pairs, "--project", trained, "--json")
    assert done.status == 1
    assert "planned_departure" in json.dumps(done.json)
    done = headrace("predict", MODEL, *pairs, "--project", trained)
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr.startswith("error: row 0 of 'planned_departure'")


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


FUNCTIONS = """from headrace import *


@scalar_function
def half(x: float) -> float:
    return x / 2


@python_function(returns=Float64)
def slow(xs):
    return [x + 1 for x in xs]


view = OnDemandFeatureView(
    "v", [Field("x", Float64)], [Field("a", Float64, half(col("x"))), Field("b", Float64, slow(col("x")))]
)
service = FeatureService("s", [view])
"""


def test_plan_shows_python_hops_and_refuses_what_may_not_end(headrace: Command, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "headrace.toml").write_text('[project]\nname = "functions"\n')
    definitions = tmp_path / "features" / "all.py"
    definitions.write_text(FUNCTIONS)
    done = headrace("plan", "--project", tmp_path)
    assert done.status == 0, done.stdout + done.stderr
    assert "python hop: v.b calls all:slow" in done.stdout
    assert "v.a" not in done.stdout
    assert headrace("plan", "--project", tmp_path, "--json").json["python_hops"] == ["v.b calls all:slow"]
    replace(definitions, "    return x / 2", "    while x > 1:\n        x /= 2\n    return x")
    done = headrace("plan", "--project", tmp_path, "--json")
    refused(done, 3, "invalid_definition", "all:half", "line 6", "while loop")
