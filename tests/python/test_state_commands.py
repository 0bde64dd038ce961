"""The commands that keep, compare, remove and restore what a project holds, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from headrace import FeatureStore


@pytest.fixture
def call(weather_store: FeatureStore, weather_project: Path) -> Any:
    """Runs `headrace ARGUMENTS --json` in the weather project: its exit code and its object."""
    from headrace_control.cli import main

    def run(*arguments: object, status: int = 0, project: Path = weather_project) -> Any:
        weather_store.close()
        given = [*map(str, arguments), "--project", str(project), "--json"]
        done = CliRunner().invoke(main, given, prog_name="headrace")
        assert done.exit_code == status, done.output
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_push_compact_and_erase(call: Any, tmp_path: Path, weather_project: Path) -> None:
    rows = tmp_path / "gates.csv"
    rows.write_text("origin,at,open,crew\nJFK,2013-01-01T00:00:00Z,true,A\nEWR,2013-01-01T00:00:00Z,maybe,B\n")
    pushed = call("push", "gate", rows)
    assert (pushed["inserted"], pushed["refused"]) == (1, {"type_mismatch": 1})
    assert pushed["rows_per_s"] >= 0
    rows.write_text(rows.read_text().replace("maybe", "false"))
    assert call("push", "gate", rows)["refused"] == {}
    assert call("compact")["views"]["gate"]["files_after"] == 1
    exported = call("history", "export", "gate", tmp_path / "lake")
    assert (exported["rows"], exported["version"]) == (3, 0)
    [shown] = call("history", "show")["views"]
    assert (shown["view"], shown["rows"], shown["files"], shown["exports"]) == ("gate", 3, 1, [str(tmp_path / "lake")])
    receipt = call("erase", "airport", "--key", "origin=EWR", "--yes")
    assert receipt["removed"]["history"] == {"gate": 1}
    assert receipt["removed"]["dead_letters"] == {"gate": 1}
    keys = tmp_path / "keys.csv"
    keys.write_text("origin\nJFK\nLGA\n")
    assert call("erase", "airport", "--keys", keys, "--yes")["keys"] == 2
    assert call("erase", "airport", "--yes", status=2)["error"]["code"] == "usage"
    assert len(list((weather_project / ".headrace/erasures").glob("*.json"))) == 2


def test_datasets(call: Any, tmp_path: Path) -> None:
    start = "2013-01-01T00:00:00"
    table = pa.table({"origin": ["JFK", "EWR"] * 3, "planned": [start] * 6, "event_timestamp": [start] * 6})
    pq.write_table(table, tmp_path / "rows.parquet")
    made = call("dataset", "create", "d", "risk", tmp_path / "rows.parquet")
    assert (made["version"], made["rows"]) == (1, 6)
    split = ("--hash-split", "origin", "--part", "train=0.5", "--part", "test=0.5")
    second = call("dataset", "create", "d", "risk", tmp_path / "rows.parquet", *split)
    assert second["version"] == 2 and sum(second["parts"].values()) == 6
    listed = call("dataset", "list")["datasets"]
    assert [(one["name"], one["version"]) for one in listed] == [("d", 1), ("d", 2)]
    assert call("dataset", "show", "d", "--version", 1)["digest"] == made["digest"]
    assert "split" in call("dataset", "diff", "d", 1, 2)["changes"]
    assert call("dataset", "show", "nothing", status=4)["error"]["code"] == "not_found"


def test_backup_restore_and_teardown(call: Any, tmp_path: Path, weather_project: Path) -> None:
    call("materialize", "--view", "weather", "--end", "2013-01-02T00:00:00Z")
    made = call("backup", tmp_path / "backup")
    assert made["online_rows"] == 6 and made["could_be_lost"]
    restored = call("restore", tmp_path / "backup", project=tmp_path / "new")
    assert restored["online_rows"] == 6 and len(restored["could_be_lost"]) == 2
    assert call("restore", tmp_path / "backup", status=1)["error"]["code"] == "io"
    assert call("restore", tmp_path / "backup", "--replace")["project"] == "project"
    assert "online" in call("teardown", "--yes")["removed"]
    assert not (weather_project / ".headrace").exists()
