"""The recommendation of `headrace profile`, on made-up measurements."""

from __future__ import annotations

import click
import numpy as np
import pytest

from headrace_control.cli.params import LATENCY
from headrace_control.profiling.measure import Device, batch_sizes, largest_batch, measure, row_pool
from headrace_control.profiling.recommend import Point, as_json, fit, largest_within, recommend, time_text


def calls(fixed: float, each: float, threads: int = 1, rows: tuple[int, ...] = (1, 2, 4, 8, 16, 64)) -> list[Point]:
    """Calls that take `fixed + each x rows` microseconds, their p99 a tenth more."""
    times = [fixed + each * count for count in rows]
    return [Point("cpu", n, threads, us, 1.1 * us, 100) for n, us in zip(rows, times, strict=True)]


@pytest.mark.parametrize(("text", "us"), [("5ms", 5_000.0), ("500us", 500.0), ("0.01s", 10_000.0), ("1s", 1e6)])
def test_latencies_have_units(text: str, us: float) -> None:
    assert LATENCY.convert(text, None, None) == us


@pytest.mark.parametrize("text", ["5", "ms", "-1ms", "0us", "5 ms", "5m", "infs"])
def test_what_is_no_latency_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match="is not a latency"):
        LATENCY.convert(text, None, None)


def test_the_line_finds_fixed_cost_and_cost_of_a_row() -> None:
    line = fit(calls(20.0, 0.5))
    assert (line.fixed_us, line.row_us) == pytest.approx((20.0, 0.5))
    assert line.error == pytest.approx(0, abs=1e-9)
    assert fit(calls(20.0, 0.5, rows=(4,))).row_us == pytest.approx(5.5)
    falling = [Point("cpu", 1, 1, 10.0, 11.0, 9), Point("cpu", 2, 1, 9.0, 10.0, 9)]
    assert fit(falling).row_us == 0.0
    assert fit(falling).error > 0
    steep = [Point("cpu", 1, 1, 1.0, 1.0, 9), Point("cpu", 2, 1, 9.0, 10.0, 9)]
    assert fit(steep).fixed_us == 0.0


def test_the_most_rows_a_second_within_the_objective_are_recommended() -> None:
    points = calls(20.0, 1.0)
    found = recommend(points, 45.0)  # 16 rows: p99 39.6; 64 rows: 92.4
    assert found.point is not None
    assert found.point.rows == 16
    assert found.batch_rows_by_line == 25
    assert largest_within(points, 45.0) == {("cpu", 1): 16}
    assert "call it with 16 rows on 1 thread on cpu: 27,778 calls and 444,444 rows a second a core" in found.text[0]
    assert "the fixed cost of a call limits it (20 us a call and 1 us a row)" in found.text[1]


def test_a_tie_goes_to_the_smaller_batch() -> None:
    found = recommend(calls(0.0, 1.0), 1e6)
    assert found.point is not None
    assert found.point.rows == 1
    assert "the work for each row limits it" in found.text[1]
    assert "measure larger ones" in found.text[2]


def test_threads_that_do_not_pay_are_not_recommended() -> None:
    slow_together = calls(30.0, 0.9, threads=2)
    found = recommend([*calls(20.0, 1.0), *slow_together], 200.0)
    assert found.point is not None
    assert found.point.threads == 1
    # Only two threads meet this one.
    strict = [point for point in calls(20.0, 1.0) if point.rows == 64] + calls(5.0, 0.1, threads=2)
    found = recommend(strict, 15.0)
    assert found.point is not None
    assert (found.point.threads, found.point.rows) == (2, 64)


def test_no_batch_within_the_objective_is_said() -> None:
    found = recommend(calls(20.0, 1.0), 5.0)
    assert found.point is None
    assert found.text[0] == "no batch size meets 5 us: 1 row on 1 thread has a p99 of 23.1 us"


def test_a_million_predictions_cost_what_their_time_costs() -> None:
    point = Point("cpu", 1000, 1, 1000.0, 1100.0, 100)  # a million rows a second
    assert point.cost_per_million(7.2, cores=2) == pytest.approx(7.2 / 3600 / 2)
    report = as_json([point], 2000.0, None, 2, recommend([point], 2000.0))
    assert "cost_per_million" not in report["results"][0]
    assert report["results"][0]["is_largest_within_slo"]


def test_every_call_has_other_rows_and_every_point_is_measured() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(6) == [1, 2, 4, 6]
    rows = np.arange(40.0).reshape(20, 2)
    pool = row_pool(rows, 8)
    assert {tuple(row) for row in pool} <= {tuple(row) for row in rows}
    asked: list[tuple[int, int, int]] = []

    def predict(window: np.ndarray, threads: int) -> None:
        asked.append((len(window), threads, window.ctypes.data))

    points = measure(Device("cpu", predict), pool, [1, 4], [1, 2], 0.0)
    assert [(point.rows, point.threads) for point in points] == [(1, 1), (4, 1), (1, 2), (4, 2)]
    assert {(count, threads) for count, threads, _ in asked} == {(1, 1), (4, 1), (1, 2), (4, 2)}
    places = [place for count, threads, place in asked if (count, threads) == (4, 1)]
    assert len(set(places)) > len(places) / 2


@pytest.mark.parametrize(
    ("us", "text"),
    [(0.25, "250 ns"), (12.34, "12.3 us"), (0.9999, "1 us"), (999.9, "1 ms"), (5_000, "5 ms"), (2.5e6, "2.5 s")],
)
def test_times_are_told_in_three_digits(us: float, text: str) -> None:
    assert time_text(us) == text


def test_batches_are_no_larger_than_memory() -> None:
    assert largest_batch(28, 1) > 1 << 20
    assert largest_batch(65_536, 1) == 511
    assert largest_batch(1 << 20, 1 << 30) == 1
    rows = np.zeros((2, 65_536))
    assert row_pool(rows, largest_batch(65_536, 1)).nbytes < 1 << 30
