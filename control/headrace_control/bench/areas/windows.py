"""Windowed aggregates: six of them from history beside DuckDB, and the ingest of a stream of events."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace_control.bench.measure import Point, measure
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import OURS, Session

TITLE = "Six window aggregates, one thread: questions at times of their own, and events as they come"
ENVIRONMENT = "duckdb"
CASE = "6-aggregates"
INGEST = "ingest-6-aggregates"
INGEST_ENGINE = "headrace_ingest"
INGEST_EVENTS = 1_000
ENGINES = (OURS, "duckdb")
PEERS = ENGINES[1:]

TOLERANCE = 1e-12
"""DuckDB adds floats in another order; relative to the largest value."""


@dataclass(frozen=True)
class Size:
    """How much there is, and how much is asked at a time."""

    users: int = 100_000
    events: int = 10_000_000
    questions: int = 1_000_000


QUICK = Size(users=2_000, events=200_000, questions=20_000)

BARS = (
    BarRule("windows_6_aggregates_duckdb_over_headrace", 5.0, ">=", CASE, Size().questions, "duckdb", OURS),
    # 300,000 events/s.
    BarRule("windows_ingest_1000_events_us", 1e6 / 300, "<=", INGEST, INGEST_EVENTS, OURS),
)
POINTS = [(CASE, Size().questions), (INGEST, INGEST_EVENTS)]


def run(session: Session, size: Size | None = None) -> Report:
    """Loads the events into every engine, compares the aggregates, and times them; then ingests."""
    settings = session.settings
    size = size or (QUICK if settings.quick else Size())
    data = {
        "area": "windows",
        "users": size.users,
        "events": size.events,
        "questions": size.questions,
        "seed": settings.seed,
    }
    session.details["data"] = data
    points = []
    if settings.takes_point(CASE, Size().questions):
        wanted = [engine for engine in ENGINES if settings.takes_engine(engine, (OURS,))]
        loaded = [session.load(engine, ENVIRONMENT, f"{engine} {CASE}", data, {}) for engine in wanted]
        engines = [one for one in loaded if one is not None]
        points.append(Point(CASE, size.questions, engines, OURS, {"duckdb": TOLERANCE}))
    if settings.takes_point(INGEST, INGEST_EVENTS):
        options = {"folder": str(session.folder)}
        ingest = session.load(INGEST_ENGINE, ENVIRONMENT, f"{OURS} {INGEST}", data, options)
        if ingest is not None:
            points.append(Point(INGEST, INGEST_EVENTS, [replace(ingest, engine=OURS)], OURS))
    session.pin_workers()
    measurable = {point.rows for point in points}
    return session.report("windows", measure(session, points), [rule for rule in BARS if rule.rows in measurable])
