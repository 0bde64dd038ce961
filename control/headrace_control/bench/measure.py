"""Compares the outputs of engines, then times them in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_control.bench.results import Result
from headrace_control.bench.session import JOB_TIMEOUT_S, Loaded, Session
from headrace_control.errors import ControlError

WARM_UP_NS = 10_000_000
ROWS_COMPARED = 1024
"""Rows asked for comparison at a point, in as many calls as it takes, and at least one call."""

ENDING_S = 30.0
"""Time kept for calibration, plot and report."""


@dataclass(frozen=True)
class Point:
    """One case at one number of rows, and the engines to time there.

    Attributes:
        reference: the engine whose output the others are compared with.
        tolerance: largest allowed difference by engine, relative to the reference's largest magnitude; an engine
            that is not named has to give the same bits.
    """

    case: str
    rows: int
    engines: Sequence[Loaded]
    reference: str
    tolerance: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.case}/{self.rows}"


def measure(session: Session, points: Sequence[Point]) -> list[Result]:
    """The results of all points that fit into the time limit; the others are noted as not measured."""
    results = []
    for number, point in enumerate(points, 1):
        if session.seconds_left < ENDING_S:
            session.skipped[point.name] = "the time limit of the area was reached"
            continue
        session.note(f"{number}/{len(points)} {point.name}")
        agreeing = compare(session, point)
        results.extend(_time_in_turns(session, point, agreeing))
    return results


def compare(session: Session, point: Point) -> list[Loaded]:
    """The engines of a point whose outputs agree with the reference's; the others are noted and left out."""
    calls = max(ROWS_COMPARED // point.rows, 1)
    answers: dict[str, NDArray[Any]] = {}
    for one in point.engines:
        path = session.folder / f"answers-{one.engine}.npy"
        try:
            one.worker.ask("answers", JOB_TIMEOUT_S, key=one.key, rows=point.rows, calls=calls, path=str(path))
            answers[one.engine] = np.load(path)
        except ControlError as error:
            session.skip(f"{one.engine} {point.name}", error)
    expected = answers.get(point.reference)
    if expected is None:
        session.skipped[point.name] = f"the reference engine {point.reference} gave no output"
        return []
    agreeing = []
    for one in point.engines:
        if one.engine not in answers:
            continue
        allowed = point.tolerance.get(one.engine, 0.0)
        problem = difference(answers[one.engine], expected, allowed)
        how = "the same bits" if allowed == 0 else f"within {allowed:g} of the largest magnitude"
        if problem is None:
            agreeing.append(one)
            if one.engine != point.reference:
                session.compared[f"{one.engine} {point.case}"] = f"{how} as {point.reference}"
        else:
            session.skipped[f"{one.engine} {point.name}"] = f"its output is not {how} as {point.reference}'s: {problem}"
            session.note(f"without {one.engine} {point.name}: {session.skipped[f'{one.engine} {point.name}']}")
    return agreeing


def difference(found: NDArray[Any], expected: NDArray[Any], allowed: float) -> str | None:
    """What is wrong with an output; `None` when it agrees. With `allowed` 0 the bits count."""
    if found.shape != expected.shape:
        found = found.reshape(-1) if found.size == expected.size else found
        expected = expected.reshape(-1)
        if found.shape != expected.shape:
            return f"shape {found.shape} instead of {expected.shape}"
    if allowed == 0:
        # A float32 widened to float64 keeps its value, so an engine that answers in the wider type can be held to it.
        expected = expected.astype(np.result_type(found, expected))
        if found.dtype != expected.dtype:
            return f"type {found.dtype} instead of {expected.dtype}"
        unsigned = f"u{expected.dtype.itemsize}"
        differing = int(np.count_nonzero(found.view(unsigned) != expected.view(unsigned)))
        return None if differing == 0 else f"{differing} of {expected.size} values have other bits"
    gap = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
    limit = allowed * max(float(np.abs(expected).max(initial=0.0)), 1.0)
    return None if gap <= limit else f"largest difference {gap:.3g}, allowed {limit:.3g}"


def _time_in_turns(session: Session, point: Point, engines: Sequence[Loaded]) -> list[Result]:
    """Blocks of every engine in turn. Each round starts with another engine, so that none is always the first."""
    settings = session.settings
    blocks: dict[str, list[NDArray[np.uint64]]] = {one.engine: [] for one in engines}
    running = list(engines)

    def block(one: Loaded, block_ns: int) -> NDArray[np.uint64] | None:
        try:
            return one.worker.block_ns(one.key, point.rows, block_ns, JOB_TIMEOUT_S)
        except ControlError as error:
            session.skip(f"{one.engine} {point.name}", error)
            running.remove(one)
            blocks.pop(one.engine)
            return None

    for one in list(running):
        block(one, WARM_UP_NS)
    for repeat in range(settings.repeats):
        turn = repeat % max(len(running), 1)
        for one in running[turn:] + running[:turn]:
            took = block(one, settings.block_ms * 1_000_000)
            if took is not None:
                blocks[one.engine].append(took)
    return [_result(one, point, blocks[one.engine]) for one in running]


def _result(one: Loaded, point: Point, blocks: Sequence[NDArray[np.uint64]]) -> Result:
    median_us, p99_us = statistics(blocks)
    return Result(one.engine, one.version, point.case, point.rows, median_us, p99_us, point.rows * 1e6 / median_us)


def statistics(blocks_ns: Sequence[NDArray[Any]]) -> tuple[float, float]:
    """The median of the blocks' medians, and the 99th percentile of all calls, in microseconds."""
    median_us = float(np.median([np.median(block) for block in blocks_ns])) / 1000
    return median_us, float(np.percentile(np.concatenate(blocks_ns), 99)) / 1000
