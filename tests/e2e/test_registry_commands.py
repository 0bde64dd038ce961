"""`headrace search`, `features` and `lineage` on the trained example project."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[..., Any]
SVG = "{http://www.w3.org/2000/svg}"


def test_search_finds_by_words_and_kind(headrace: Command, trained: Path) -> None:
    done = headrace("search", "wind", "speed", "--kind", "feature", "--project", trained, "--json")
    assert done.status == 0
    assert [item["name"] for item in done.json["results"]] == ["weather:wind_speed"]
    shown = headrace("search", "hourly weather", "--project", trained)
    assert "weather:temp" in shown.stdout
    assert headrace("search", "no such thing", "--project", trained).stdout.strip().endswith("0 found")


def test_features_are_listed_with_their_users(headrace: Command, trained: Path) -> None:
    done = headrace("features", "--project", trained, "--clock", "2013-11-01T13:00:00Z")
    [line] = [line for line in done.stdout.splitlines() if line.startswith("weather:temp ")]
    assert "departure_risk_xgboost/1" in line
    assert "1:00:00 ago" in line
    unused = headrace("features", "--unused", "--project", trained, "--json").json
    assert unused["count"] == 0, unused


def test_lineage_is_drawn(headrace: Command, trained: Path, tmp_path: Path) -> None:
    svg = tmp_path / "lineage.svg"
    done = headrace("lineage", "--svg", svg, "--project", trained, "--json")
    assert {"from": "service departure_risk", "to": "model departure_risk_lightgbm/1"} in done.json["edges"]
    root = ET.fromstring(svg.read_text("utf-8"))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"data/weather.parquet", "weather", "crosswind", "departure_risk"} <= texts
    assert len(list(root.iter(f"{SVG}path"))) >= 50
    assert "prefers-color-scheme: dark" in svg.read_text("utf-8")
    about = headrace("lineage", "crosswind", "--project", trained)
    assert "feature weather:wind_dir -> feature departure:crosswind" in about.stdout
    assert "temp" not in about.stdout


def test_an_unknown_name_and_a_project_without_a_plan_say_what_to_do(
    headrace: Command, trained: Path, project: Path
) -> None:
    done = headrace("lineage", "crosswinds", "--project", trained, "--json")
    assert done.status == 4
    assert "crosswind" in done.error["hint"]
    for command in ("search", "features", "lineage"):
        assert headrace(command, "--project", project, "--json").error["code"] == "not_applied"


def test_describe_shows_a_view_a_service_and_a_file(headrace: Command, trained: Path) -> None:
    done = headrace("describe", "weather", "--project", trained, "--json")
    assert done.status == 0
    assert done.json["columns"]["temp"]["nulls"] == 0
    shown = headrace("describe", "weather", "--project", trained).stdout
    [line] = [line for line in shown.splitlines() if line.startswith("wind_dir ")]
    assert "float64" in line
    assert "%" in line
    assert "█" in line
    service = headrace("describe", "departure_risk", "--project", trained).stdout
    assert "computed" in service
    file = headrace("describe", trained / "data/weather.parquet", "--json")
    assert file.json["rows"] == 4 * 366 * 3
    assert {item["value"] for item in file.json["columns"]["origin"]["top"]} == {"EWR", "JFK", "LGA"}


def test_describe_refuses_what_it_cannot_read(headrace: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_bytes(b"no")
    (tmp_path / "rows.parquet").write_bytes(b"no")
    assert headrace("describe", tmp_path / "rows.xlsx", "--json").error["code"] == "invalid_argument"
    assert headrace("describe", tmp_path / "rows.parquet", "--json").error["code"] == "io"
    assert headrace("describe", "departure", "--project", trained, "--json").error["code"] == "not_found"
