"""The point-in-time join: in memory beside libraries of data frames, and from files within a bound of memory."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_control.bench.measure import ENDING_S, Point, measure, statistics
from headrace_control.bench.places import content_key
from headrace_control.bench.results import Bar, BarRule, Measured, Report, Result
from headrace_control.bench.session import JOB_TIMEOUT_S, OURS, Loaded, Session
from headrace_control.bench.workers import Worker
from headrace_control.errors import ControlError

TITLE = "Point-in-time join of unsorted rows, three views, every core"
MEMORY = "memory"
"""The case of a join of what is in memory; its rows are the rows that ask."""
FILES = "files-2gb"
"""The case of a join of Parquet files; its rows are events."""

ENVIRONMENT = "frames"
PEERS = ("pandas", "polars", "duckdb")
ENGINES = (OURS, *PEERS)
BOUND = "2GB"
BOUND_MIB = 2e9 / 2**20
EVENT_BYTES = 9
"""Of an event in its file, at the most."""

FILE_REPEATS = 3
"""Calls of each of the two sizes, in turns; a call on the larger one takes as long as tens on the smaller one."""


@dataclass(frozen=True)
class Size:
    """How much is joined.

    Attributes:
        rows: that ask in one call.
        events: of all views together.
        factor: how many times the events there are in the larger of the two sets of files.
    """

    keys: int = 100_000
    rows: int = 1_000_000
    events: int = 10_000_000
    factor: int = 20

    @property
    def pool_rows(self) -> int:
        return 2 * self.rows + 3


FULL = Size()
QUICK = Size(keys=20_000, rows=100_000, events=1_000_000, factor=4)
POINTS = [(MEMORY, FULL.rows), (FILES, FULL.events), (FILES, FULL.factor * FULL.events)]
BARS = (BarRule("pit_1m_rows_10m_events_best_peer_over_headrace", 2.0, ">=", MEMORY, FULL.rows, "|".join(PEERS), OURS),)


def run(session: Session, size: Size | None = None) -> Report:
    """Compares and times the joins in memory, then those of files."""
    settings = session.settings
    size = size or (QUICK if settings.quick else FULL)
    results: list[Result] = []
    if settings.takes_point(MEMORY, FULL.rows):
        results += _measure_memory(session, size)
    bars: list[Bar] = []
    if settings.takes_point(FILES, FULL.events) or settings.takes_point(FILES, FULL.factor * FULL.events):
        found, bars = _measure_files(session, size)
        results += found
    report = session.report("pit", results, [rule for rule in BARS if rule.rows == size.rows])
    report.bars += bars
    return report


def _worker(session: Session, name: str) -> Worker:
    """A worker that may use every core, as its peers: this area is about joins as people run them."""
    if name not in session.workers:
        session.workers[name] = session.stack.enter_context(session.start_worker(ENVIRONMENT, {}))
    return session.workers[name]


def _measure_memory(session: Session, size: Size) -> list[Result]:
    _worker(session, ENVIRONMENT)
    data = {
        "area": "pit",
        "keys": size.keys,
        "events": size.events,
        "pool_rows": size.pool_rows,
        "seed": session.settings.seed,
    }
    wanted = [engine for engine in ENGINES if session.settings.takes_engine(engine, (OURS,))]
    loaded = [session.load(engine, ENVIRONMENT, f"{engine} {MEMORY}", data, {}) for engine in wanted]
    engines = [one for one in loaded if one is not None]
    results = measure(session, [Point(MEMORY, size.rows, engines, OURS)])
    for one in engines:
        one.worker.ask("close", JOB_TIMEOUT_S, key=one.key)
    session.workers.pop(ENVIRONMENT).close()
    return results


def _measure_files(session: Session, size: Size) -> tuple[list[Result], list[Bar]]:
    """The same join of files with the events once and several times, in turns, each in a process of its own."""
    counts = (size.events, size.events * size.factor)
    loaded: dict[int, Loaded] = {}
    for events in counts:
        try:
            loaded[events] = _load_files(session, size, events)
        except ControlError as error:
            session.skip(f"{FILES}/{events}", error)
    blocks: dict[int, list[Any]] = {events: [] for events in loaded}
    for repeat in range(FILE_REPEATS):
        for events, one in loaded.items():
            if session.seconds_left < ENDING_S:
                session.skipped[f"{FILES}/{events} repeat {repeat + 1}"] = "the time limit of the area was reached"
                continue
            session.note(f"{FILES}/{events} {repeat + 1}/{FILE_REPEATS}")
            blocks[events].append(one.worker.block_ns(one.key, size.rows, 1, JOB_TIMEOUT_S))
    results = []
    peak_mib: dict[int, float] = {}
    for events, one in loaded.items():
        if blocks[events]:
            median_us, p99_us = statistics(blocks[events])
            results.append(Result(OURS, one.version, FILES, events, median_us, p99_us, events * 1e6 / median_us))
            peak_mib[events] = one.worker.ask("memory", JOB_TIMEOUT_S)["peak"]
    session.details["peak_resident_mib"] = {str(events): peak for events, peak in peak_mib.items()}
    measured = Measured(results)
    small, large = (measured.median_us(OURS, FILES, events) for events in counts)
    ratio = None if small is None or large is None else large / small
    limit = 25.0 * size.factor / FULL.factor
    peak = max(peak_mib.values()) if len(peak_mib) == len(counts) else None
    return results, [
        Bar(f"pit_files_{size.factor}x_events_over_1x_time", ratio, limit, "<="),
        Bar("pit_files_peak_resident_mib", peak, BOUND_MIB, "<="),
    ]


def _load_files(session: Session, size: Size, events: int) -> Loaded:
    """A worker with the join of so many events.

    Raises:
        ControlError: the files cannot be made, or the worker does not start.
    """
    folder = _event_files(session, size, events)
    name = f"{ENVIRONMENT}-{events}"
    worker = _worker(session, name)
    key = f"{OURS} {FILES}/{events}"
    data = {
        "area": "pit",
        "keys": size.keys,
        "events": 0,
        "pool_rows": size.pool_rows,
        "seed": session.settings.seed,
    }
    options = {"folder": str(session.folder / name), "sources": str(folder), "memory": BOUND}
    reply = worker.ask("load", JOB_TIMEOUT_S, engine="headrace_files", key=key, data=data, options=options)
    session.versions[OURS] = reply["version"]
    session.choices[f"{OURS} {FILES}"] = reply["note"]
    return Loaded(OURS, reply["version"], worker, key)


def _event_files(session: Session, size: Size, events: int) -> Path:
    """The folder of the views' Parquet files in the cache, made at first use."""
    recipe = {"events": events, "keys": size.keys, "seed": session.settings.seed, "form": 1}
    folder = session.cache / "events" / f"{events}-{content_key(recipe)}"
    about = folder / "about.json"
    if not about.exists():
        free, needed = shutil.disk_usage(session.cache).free, 2 * EVENT_BYTES * events
        if free < needed:
            raise ControlError(
                "io",
                f"{events:,} events need {needed / 1e9:.1f} GB in {session.cache}, which has {free / 1e9:.1f}",
                "free space, or set HEADRACE_BENCH_CACHE to a folder on another disk",
            )
        session.note(f"make {events:,} events")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with session.start_worker(ENVIRONMENT, {}) as maker:
            made = maker.ask("job", JOB_TIMEOUT_S, name="write_events", options={**recipe, "folder": str(folder)})
        about.write_text(json.dumps({"recipe": recipe, **made}))
    session.details.setdefault("event_files", {})[str(events)] = json.loads(about.read_text())["bytes"]
    return folder
