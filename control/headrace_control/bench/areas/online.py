"""The online table: lookups beside the bound of a plain gather, memory, restart, and lookups while a writer writes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from headrace_control.bench.measure import ENDING_S, Point, measure
from headrace_control.bench.micro import cargo_program
from headrace_control.bench.results import Bar, BarRule, Report, Result
from headrace_control.bench.session import JOB_TIMEOUT_S, OURS, Loaded, Session
from headrace_control.errors import ControlError

TITLE = "The online table: lookups, memory, restart"
ENVIRONMENT = "stores"
WIDE = "5x50-float32"
NARROW = "50-float32"
LARGE = "50-float32-10m-keys"
RESTART = "restart-1-kb-rows"
NATIVE = ("columns-plain", "columns-mixed", "floats-quiet", "floats-while-writing")
PLAIN, MIXED, QUIET, WRITING = NATIVE
MEMORY = ("memory-1x250", "memory-25x10")
BOUNDS = ("numpy_take", "numpy_take_new")
BOUND = "|".join(BOUNDS)
PEERS = ("dict",)
ENGINES = (OURS, *BOUNDS, *PEERS)
ALWAYS = (OURS, *BOUNDS)
KEYS_OF_CALL = 100
RESTARTED_ROWS = 1_000_000

BARS = (
    BarRule("online_100_keys_over_numpy_take", 1.3, "<=", WIDE, KEYS_OF_CALL, OURS, BOUND),
    BarRule("online_10m_keys_over_numpy_take", 2.0, "<=", LARGE, KEYS_OF_CALL, OURS, BOUND),
    BarRule("online_1_key_us", 2.0, "<=", NARROW, 1, OURS),
    BarRule("online_1_key_p99_over_dict", 1.0, "<=", NARROW, 1, OURS, "dict", figure="p99_us"),
    BarRule("online_mixed_over_plain", 1.5, "<=", MIXED, KEYS_OF_CALL, OURS, OURS, to_case=PLAIN),
    BarRule("online_while_writing_over_quiet", 1.2, "<=", WRITING, KEYS_OF_CALL, OURS, OURS, to_case=QUIET),
    BarRule(
        "online_while_writing_p99_over_quiet",
        2.0,
        "<=",
        WRITING,
        KEYS_OF_CALL,
        OURS,
        OURS,
        figure="p99_us",
        to_case=QUIET,
    ),
    BarRule("online_restart_s", 4.0, "<", RESTART, RESTARTED_ROWS, OURS, unit_us=1e6),
)
MEMORY_BARS = (("online_memory_1x250_over_raw", 1.15, MEMORY[0]), ("online_memory_25x10_over_raw", 1.7, MEMORY[1]))


@dataclass(frozen=True)
class Size:
    """How much is stored."""

    keys: int = 1_000_000
    keys_of_large: int = 10_000_000
    restarted_rows: int = RESTARTED_ROWS
    native_blocks: int = 7


QUICK = Size(keys=50_000, keys_of_large=200_000, restarted_rows=50_000, native_blocks=3)

POINTS = [
    (WIDE, KEYS_OF_CALL),
    (NARROW, 1),
    (LARGE, KEYS_OF_CALL),
    *((case, KEYS_OF_CALL) for case in NATIVE),
    (RESTART, RESTARTED_ROWS),
    *((case, Size.keys) for case in MEMORY),
]


def run(session: Session, size: Size | None = None) -> Report:
    """Measures what was asked for, the lookups first."""
    size = size or (QUICK if session.settings.quick else Size())
    results = _lookups(session, size)
    if any(session.settings.takes_point(case, KEYS_OF_CALL) for case in NATIVE):
        results += _native(session, size)
    if session.settings.takes_point(RESTART, RESTARTED_ROWS):
        results += _restart(session, size)
    return session.report("online", results, BARS, _memory(session, size))


def _lookups(session: Session, size: Size) -> list[Result]:
    shapes = [
        (WIDE, KEYS_OF_CALL, size.keys, 5, BOUNDS),
        (NARROW, 1, size.keys, 1, ("dict", *BOUNDS)),
        (LARGE, KEYS_OF_CALL, size.keys_of_large, 1, BOUNDS),
    ]
    results = []
    for case, rows, keys, views, others in shapes:
        if not session.settings.takes_point(case, rows):
            continue
        data = {"area": "lookup", "keys": keys, "views": views, "fields": 50, "seed": session.settings.seed}
        session.details.setdefault("data", {})[case] = data
        wanted = [engine for engine in (OURS, *others) if session.settings.takes_engine(engine, ALWAYS)]
        loaded = [session.load(engine, ENVIRONMENT, f"{engine} {case}", data, {}) for engine in wanted]
        engines: list[Loaded] = [one for one in loaded if one is not None]
        session.pin_workers()
        results += measure(session, [Point(case, rows, engines, BOUNDS[0])])
        for one in engines:
            one.worker.ask("close", JOB_TIMEOUT_S, key=one.key)
    return results


def _native(session: Session, size: Size) -> list[Result]:
    """In a program of its own: a reader and a writer without Python, each on its own core."""
    session.note("native lookups")
    try:
        program = cargo_program(session.root, "headrace-micro", "online")
        done = subprocess.run(
            [program, str(size.keys), str(size.native_blocks)],
            capture_output=True,
            text=True,
            check=False,
            timeout=max(session.seconds_left - ENDING_S, 1.0),
        )
    except (ControlError, subprocess.TimeoutExpired) as error:
        failure = error if isinstance(error, ControlError) else ControlError("timeout", str(error), "run it again")
        session.skip("native lookups", failure)
        return []
    if done.returncode != 0:
        session.skip("native lookups", ControlError("failed", done.stderr.strip(), "see bench/micro/src/bin/online.rs"))
        return []
    found = json.loads(done.stdout)
    session.details["written_rows_per_s"] = found["written_rows_per_s"]
    return [
        _result(case, KEYS_OF_CALL, figures["median_us"], figures["p99_us"]) for case, figures in found["cases"].items()
    ]


def _restart(session: Session, size: Size) -> list[Result]:
    """A process from its start to the first answer, over a store that another process has closed."""
    session.note("restart")
    found = _job(session, "restart", {"rows": size.restarted_rows, "repeats": 3})
    if found is None:
        return []
    session.details["restart"] = found
    took_us = [seconds * 1e6 for seconds in found["after_close_s"]]
    return [_result(RESTART, RESTARTED_ROWS, sorted(took_us)[len(took_us) // 2], max(took_us))]


def _memory(session: Session, size: Size) -> list[Bar]:
    bars = []
    for name, target, case in MEMORY_BARS:
        if not session.settings.takes_point(case, Size.keys):
            continue
        session.note(case)
        views = 1 if case == MEMORY[0] else 25
        data = {"area": "lookup", "keys": size.keys, "views": views, "fields": 250 // views, "seed": 1}
        found = _job(session, "memory", data)
        if found is not None:
            session.details[case] = found
        bars.append(Bar(name, None if found is None else found["resident_bytes"] / found["raw_bytes"], target, "<="))
    return bars


def _job(session: Session, name: str, options: dict[str, Any]) -> dict[str, Any] | None:
    """In a worker of its own, whose memory nothing else uses."""
    try:
        with session.start_worker(ENVIRONMENT, {}) as worker:
            options = {**options, "folder": str(session.folder)}
            return worker.ask("job", JOB_TIMEOUT_S, name=name, options=options)
    except ControlError as error:
        session.skip(name, error)
        return None


def _result(case: str, rows: int, median_us: float, p99_us: float) -> Result:
    import headrace

    return Result(OURS, headrace.__version__, case, rows, median_us, p99_us, rows * 1e6 / median_us)
