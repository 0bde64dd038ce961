"""From measured points to a recommendation: which batch size meets an objective, at what cost, and what limits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SECONDS_AN_HOUR = 3600
FIXED_SHARE = 0.5
"""From this share of a call's time on, its fixed cost is what limits."""


@dataclass(frozen=True)
class Point:
    """What calls of `rows` rows took on one device.

    Attributes:
        p50_us: the median of a call.
        p99_us: the time within which 99 of 100 calls end.
        calls: calls that were timed.
    """

    device: str
    rows: int
    threads: int
    p50_us: float
    p99_us: float
    calls: int

    @property
    def rows_per_s(self) -> float:
        return self.rows * 1e6 / self.p50_us

    def cost_per_million(self, price_per_hour: float, cores: int) -> float:
        """The price of a million predictions, if the price is for `cores` cores and only the used ones are paid."""
        seconds = 1e6 / self.rows_per_s
        return price_per_hour / SECONDS_AN_HOUR * seconds * min(self.threads, cores) / cores


@dataclass(frozen=True)
class Line:
    """A call of `n` rows takes `fixed_us + row_us * n`, fitted to the medians by the least relative squares.

    Attributes:
        error: the largest difference between a median and the line, relative to the median.
    """

    device: str
    threads: int
    fixed_us: float
    row_us: float
    error: float


@dataclass(frozen=True)
class Recommendation:
    """What to do.

    Attributes:
        point: the largest batch within the objective, or none.
        batch_rows_by_line: rows that fit into the objective by the fitted line; perhaps more than were measured.
        text: the same in words.
    """

    point: Point | None
    batch_rows_by_line: int | None
    text: tuple[str, ...]


def fit(points: Sequence[Point]) -> Line:
    """The line of the points of one device and number of threads. One point lies on a line without a fixed cost."""
    rows = np.array([point.rows for point in points], dtype=np.float64)
    times = np.array([point.p50_us for point in points])
    if len(points) == 1:
        fixed, each = 0.0, float(times[0] / rows[0])
    else:
        # Each equation divided by its time: a call of 1 row counts as much as one of 10,000.
        system = np.column_stack([1 / times, rows / times])
        fixed, each = (float(value) for value in np.linalg.lstsq(system, np.ones(len(points)), rcond=None)[0])
        if fixed < 0:
            fixed, each = 0.0, float(np.sum(rows / times) / np.sum((rows / times) ** 2))
        elif each < 0:
            fixed, each = float(np.sum(1 / times) / np.sum(1 / times**2)), 0.0
    error = float(np.max(np.abs(fixed + each * rows - times) / times))
    return Line(points[0].device, points[0].threads, fixed, each, error)


def lines(points: Sequence[Point]) -> list[Line]:
    """A line for each device and number of threads."""
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.device, point.threads), []).append(point)
    return [fit(group) for group in groups.values()]


def recommend(points: Sequence[Point], slo_us: float) -> Recommendation:
    """The point of the most rows a second for each core, among those whose 99th percentile meets the objective.

    Rows a second for each core and not for the call: threads that cost more than they bring are not recommended. A tie
    within 3 % goes to the smaller batch, which waits less for its rows.
    """
    fitting = [point for point in points if point.p99_us <= slo_us]
    if not fitting:
        fastest = min(points, key=lambda point: point.p99_us)
        text = (
            f"no batch size meets {time_text(slo_us)}: {batch_text(fastest)} has a p99 of {time_text(fastest.p99_us)}",
            "allow more time, or train a smaller model",
        )
        return Recommendation(None, None, text)
    best = max(point.rows_per_s / point.threads for point in fitting)
    near = [point for point in fitting if point.rows_per_s / point.threads >= 0.97 * best]
    chosen = min(near, key=lambda point: (point.threads, point.rows))
    line = next(one for one in lines(points) if (one.device, one.threads) == (chosen.device, chosen.threads))
    by_line = int((slo_us - line.fixed_us) / line.row_us) if line.row_us > 0 and slo_us > line.fixed_us else None
    requests = 1e6 / chosen.p50_us / chosen.threads
    texts = [
        f"call it with {batch_text(chosen)} on {chosen.device}: {requests:,.0f} calls and "
        f"{chosen.rows_per_s / chosen.threads:,.0f} rows a second a core, p99 {time_text(chosen.p99_us)}",
        limit_text(chosen, line),
    ]
    if all(point.p99_us <= slo_us for point in points):
        texts.append("every measured batch size meets the objective: measure larger ones with --rows-max")
    return Recommendation(chosen, by_line, tuple(texts))


def limit_text(point: Point, line: Line) -> str:
    """What a call's time is made of."""
    share = min(line.fixed_us / point.p50_us, 1.0)
    told = f"{time_text(line.fixed_us)} a call and {time_text(line.row_us)} a row"
    if share >= FIXED_SHARE:
        return f"the fixed cost of a call limits it ({told}): larger batches are cheaper"
    return f"the work for each row limits it ({told}): larger batches gain at most {100 * share:.0f} %"


def largest_within(points: Sequence[Point], slo_us: float) -> dict[tuple[str, int], int]:
    """The largest batch whose p99 meets the objective, by device and threads; absent where none does."""
    largest: dict[tuple[str, int], int] = {}
    for point in points:
        if point.p99_us <= slo_us:
            key = (point.device, point.threads)
            largest[key] = max(largest.get(key, 0), point.rows)
    return largest


def batch_text(point: Point) -> str:
    rows = "1 row" if point.rows == 1 else f"{point.rows:,} rows"
    return f"{rows} on 1 thread" if point.threads == 1 else f"{rows} on {point.threads} threads"


def time_text(us: float) -> str:
    """Three digits that matter, with a unit."""
    if us < 0.9995:  # what rounds up to the next unit is told in it
        return f"{1000 * us:.3g} ns"
    if us < 999.5:
        return f"{us:.3g} us"
    return f"{us / 1000:.3g} ms" if us < 999.5e3 else f"{us / 1e6:.3g} s"


def as_json(
    points: Sequence[Point], slo_us: float, price: float | None, cores: int, found: Recommendation
) -> dict[str, Any]:
    """The part of the report that is reckoned."""
    largest = largest_within(points, slo_us)

    def told(point: Point) -> dict[str, Any]:
        values = {**asdict(point), "rows_per_s": point.rows_per_s, "meets_slo": point.p99_us <= slo_us}
        values["is_largest_within_slo"] = largest.get((point.device, point.threads)) == point.rows
        if price is not None:
            values["cost_per_million"] = point.cost_per_million(price, cores)
        return values

    return {
        "slo_us": slo_us,
        "results": [told(point) for point in points],
        "lines": [asdict(line) for line in lines(points)],
        "recommendation": {
            "point": None if found.point is None else told(found.point),
            "batch_rows_by_line": found.batch_rows_by_line,
            "text": list(found.text),
        },
    }
