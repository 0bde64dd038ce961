"""How bars are computed and judged, and the form of the JSON: what later runs are compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace_control.bench import Bar, Report, Result
from headrace_control.bench.areas import AREAS
from headrace_control.bench.results import BarRule, Measured
from headrace_control.bench.tables import tables

OURS = "headrace"


def result(engine: str, median_us: float, case: str = "c", rows: int = 100) -> Result:
    return Result(engine, "1.0", case, rows, median_us, median_us * 2, rows * 1e6 / median_us)


def report(*bars: Bar) -> Report:
    machine: dict[str, Any] = {
        "cpu": "some",
        "cores": 2,
        "settings": {"quick": False, "seed": 1},
        "not_measured": {"redis": "redis-server is not installed; apt-get install redis-server"},
        "absolute_bars_in_calibrations": {},
    }
    return Report("lookup", machine, [result(OURS, 20.0), result("lmdb", 139.0)], list(bars))


@pytest.mark.parametrize(
    ("op", "value", "holds"),
    [("<=", 1.8, True), ("<=", 1.9, False), ("<", 1.8, False), ("<", 1.7, True), (">=", 1.8, True), (">=", 1.7, False)],
)
def test_operators(op: str, value: float, holds: bool) -> None:
    assert Bar("b", value, 1.8, op).holds is holds


def test_a_bar_that_could_not_be_measured_does_not_hold() -> None:
    assert not Bar("b", None, 1.0, ">=").holds


def test_ratio_against_the_faster_of_two_bounds() -> None:
    rule = BarRule("b", 1.8, "<=", "c", 100, OURS, "take|take_new")
    measured = Measured([result(OURS, 30.0), result("take", 25.0), result("take_new", 20.0)])
    assert rule.judge(measured) == Bar("b", 1.5, 1.8, "<=")
    assert rule.limit_us(measured, OURS) == pytest.approx(36.0)


def test_ratio_of_a_peer_over_ours() -> None:
    rule = BarRule("b", 3.0, ">=", "c", 100, "lmdb", OURS)
    measured = Measured([result(OURS, 20.0), result("lmdb", 140.0)])
    assert rule.judge(measured).value == pytest.approx(7.0)
    assert rule.limit_us(measured, OURS) == pytest.approx(140 / 3)


def test_absolute_bar_in_its_unit() -> None:
    rule = BarRule("b", 2.0, "<", "c", 100, OURS, unit_us=1e6)
    assert rule.judge(Measured([result(OURS, 500_000.0)])).value == pytest.approx(0.5)


@pytest.mark.parametrize("missing", ["lmdb", OURS])
def test_a_missing_engine_leaves_the_bar_unmeasured(missing: str) -> None:
    rule = BarRule("b", 3.0, ">=", "c", 100, "lmdb", OURS)
    measured = Measured([result(name, 1.0) for name in ("lmdb", OURS) if name != missing])
    assert rule.judge(measured).value is None


def test_json_has_exactly_the_agreed_fields() -> None:
    written = json.loads(json.dumps(report(Bar("b", 1.23456789, 1.8, "<=")).as_json()))
    assert set(written) == {"area", "machine", "results", "bars"}
    assert set(written["results"][0]) == {"engine", "version", "case", "rows", "median_us", "p99_us", "rows_per_s"}
    assert written["bars"] == [{"name": "b", "value": 1.23457, "target": 1.8, "op": "<=", "holds": True}]


def test_bars_have_distinct_names_and_known_engines() -> None:
    rules = [(area, rule) for area in AREAS.values() for rule in area.BARS]
    assert len({rule.name for _, rule in rules}) == len(rules)
    for area, rule in rules:
        assert rule.engines <= set(area.ENGINES)


def test_tables_say_what_was_not_measured() -> None:
    shown = tables(report(Bar("b", None, 1.0, ">=")))
    assert any("redis" in text and "apt-get install" in text for text in shown if isinstance(text, str))


@pytest.mark.parametrize("area", list(AREAS))
def test_every_area_can_be_drawn(area: str, tmp_path: Path) -> None:
    from headrace_control.bench.plots import draw

    made = report(Bar("b", 1.0, 1.8, "<="), Bar("c", None, 1.8, "<="))
    made.area = area
    draw(made, "A title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
