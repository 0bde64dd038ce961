"""Reading feature rows by key: the online table beside stores that people use, and the bound of a plain gather."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from headrace_control.bench.measure import Point, measure
from headrace_control.bench.redis_server import redis_server
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import OURS, Loaded, Session
from headrace_control.errors import ControlError

TITLE = "Feature lookup from Python: keys in, one float32 buffer filled"
ENVIRONMENT = "stores"
CASE = "5x50-float32"
BOUNDS = ("numpy_take", "numpy_take_new")
BOUND = "|".join(BOUNDS)
PEERS = ("dict", "rocksdict", "lmdb", "sqlite", "redis")
ENGINES = (OURS, *BOUNDS, *PEERS)
ALWAYS = (OURS, *BOUNDS)

BARS = (
    BarRule("lookup_100_keys_over_numpy_take", 1.3, "<=", CASE, 100, OURS, BOUND),
    BarRule("lookup_100_keys_lmdb_over_headrace", 3.0, ">=", CASE, 100, "lmdb", OURS),
    BarRule("lookup_1_key_us", 3.0, "<=", CASE, 1, OURS),
)


@dataclass(frozen=True)
class Size:
    """How much is stored and asked."""

    keys: int = 1_000_000
    views: int = 5
    fields: int = 50
    rows: tuple[int, ...] = (1, 10, 100, 1000)


QUICK = Size(keys=50_000)

POINTS = [(CASE, rows) for rows in Size().rows]


def run(session: Session, size: Size | None = None) -> Report:
    """Fills every store with the same rows, then reads random keys."""
    size = size or (QUICK if session.settings.quick else Size())
    data = {
        "area": "lookup",
        "keys": size.keys,
        "views": size.views,
        "fields": size.fields,
        "seed": session.settings.seed,
    }
    session.details["data"] = data
    with ExitStack() as servers:
        options: dict[str, Any] = {"folder": str(session.folder)}
        wanted = [engine for engine in ENGINES if session.settings.takes_engine(engine, ALWAYS)]
        if "redis" in wanted:
            try:
                options["redis_port"] = servers.enter_context(redis_server(session.folder))
            except ControlError as error:
                session.skip("redis", error)
        loaded = [session.load(engine, ENVIRONMENT, engine, data, options) for engine in wanted]
        engines: list[Loaded] = [one for one in loaded if one is not None]
        session.pin_workers()
        points = [
            Point(CASE, rows, engines, BOUNDS[0]) for rows in size.rows if session.settings.takes_point(CASE, rows)
        ]
        return session.report("lookup", measure(session, points), [rule for rule in BARS if rule.rows in size.rows])
