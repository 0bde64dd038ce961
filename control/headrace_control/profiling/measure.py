"""Times a model's calls at each batch size and number of threads, with other rows on every call."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_control.profiling.recommend import Point
from headrace_control.progress import Progress, silent

Matrix = NDArray[np.float64]
Predict = Callable[[Matrix, int], Any]
"""Rows and threads to margins."""

POOL_VALUES_MAX = 8_000_000
POOL_ROWS_MIN = 4_096
BATCH_VALUES_MAX = 1 << 26
"""Features and margins of two batches, which are in memory together: half a gigabyte."""
CALLS_MIN = 30
CALLS_MAX = 20_000
ROUNDS = 3


@dataclass(frozen=True)
class Device:
    """Where a model can run.

    Attributes:
        name: as `--device` names it and each result tells it.
        predict: rows and threads to margins, on this device.
    """

    name: str
    predict: Predict


def batch_sizes(rows_max: int) -> list[int]:
    """1, 2, 4, ... and `rows_max` itself."""
    return sorted({1 << power for power in range(rows_max.bit_length())} | {rows_max})


def largest_batch(features_count: int, outputs_count: int) -> int:
    """Rows of the largest batch that is measured of such a model."""
    return max(BATCH_VALUES_MAX // (2 * features_count + outputs_count), 1)


def row_pool(rows: Matrix, rows_max: int, seed: int = 1) -> Matrix:
    """Rows drawn from `rows` with replacement, more than any cache remembers where they are many, in C order.

    Each value is kept; a call takes a window of the pool, the next call the next one.
    """
    count = min(max(4 * rows_max, POOL_ROWS_MIN), max(POOL_VALUES_MAX // rows.shape[1], 2 * rows_max))
    chosen = np.random.default_rng(seed).integers(0, len(rows), count)
    pool: Matrix = np.ascontiguousarray(rows[chosen])
    return pool


def measure(
    device: Device,
    pool: Matrix,
    batches: Sequence[int],
    threads: Sequence[int],
    seconds_each: float,
    progress: Progress = silent,
) -> list[Point]:
    """Every batch size with every number of threads, in rounds, so that a busy moment does not fall on one of them.

    Args:
        device: what to call.
        pool: rows to take windows of, as `row_pool` makes them.
        batches: rows of a call.
        threads: threads that a call may use.
        seconds_each: time spent on each point, warm-up apart.
        progress: is told the points that are done.
    """
    points = [(rows, count) for count in threads for rows in batches]
    took: dict[tuple[int, int], list[NDArray[np.int64]]] = {point: [] for point in points}
    next_row = 0
    for done in range(ROUNDS * len(points)):
        rows, count = points[done % len(points)]
        progress(done / ROUNDS, f"{rows:,} rows, {count} threads")
        for _ in range(2):  # caches and branch predictors
            device.predict(pool[:rows], count)
        times, next_row = _calls(device, pool, rows, count, seconds_each / ROUNDS, next_row)
        took[rows, count].append(times)
    return [_point(device.name, rows, count, took[rows, count]) for rows, count in points]


def _calls(
    device: Device, pool: Matrix, rows: int, threads: int, seconds: float, next_row: int
) -> tuple[NDArray[np.int64], int]:
    """Nanoseconds of each call."""
    clock, predict = time.perf_counter_ns, device.predict
    times: list[int] = []
    elapsed, enough = 0, seconds * 1e9
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        while (elapsed < enough and len(times) < CALLS_MAX) or len(times) < CALLS_MIN / ROUNDS:
            if next_row + rows > len(pool):
                next_row = 0
            window = pool[next_row : next_row + rows]
            next_row += rows
            start = clock()
            predict(window, threads)
            times.append(clock() - start)
            elapsed += times[-1]
    finally:
        if is_enabled:
            gc.enable()
    return np.array(times, np.int64), next_row


def _point(device: str, rows: int, threads: int, rounds: Sequence[NDArray[np.int64]]) -> Point:
    """The median of the rounds' medians, the 99th percentile of all calls."""
    median_us = float(np.median([np.median(times) for times in rounds])) / 1000
    together = np.concatenate(rounds)
    return Point(device, rows, threads, median_us, float(np.percentile(together, 99)) / 1000, len(together))
