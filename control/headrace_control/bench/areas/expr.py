"""On-demand expressions, one thread: twelve features of ten columns, over single rows and over columns."""

from __future__ import annotations

from headrace_control.bench.measure import Point, measure
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import OURS, Session

TITLE = "Twelve on-demand expressions, one thread: columns in, columns out"
CASE = "12-features"
ENVIRONMENT = "polars"
ENGINES = (OURS, "polars")
PEERS = ENGINES[1:]
ROWS = (1, 100, 10_000)
POOL_ROWS = 131_101
"""A prime: no batch size divides it, so windows come round at other offsets."""
QUICK_POOL_ROWS = 20_011

TOLERANCE = 1e-12
"""Polars takes its transcendental functions from another library; relative to the largest magnitude, 20,000 km."""

BARS = (
    BarRule("expr_12_features_1_row_us", 2.0, "<", CASE, 1, OURS),
    BarRule("expr_12_features_10000_rows_polars_over_headrace", 1.0, ">=", CASE, 10_000, "polars", OURS),
)
POINTS = [(CASE, count) for count in ROWS]


def run(session: Session, rows: tuple[int, ...] = ROWS, pool_rows: int | None = None) -> Report:
    """Loads the columns into every engine, compares the features, and times them."""
    settings = session.settings
    pool_rows = pool_rows or (QUICK_POOL_ROWS if settings.quick else POOL_ROWS)
    data = {"area": "expr", "rows": pool_rows, "seed": settings.seed}
    wanted = [engine for engine in ENGINES if settings.takes_engine(engine, (OURS,))]
    loaded = [session.load(engine, ENVIRONMENT, f"{engine} {CASE}", data, {}) for engine in wanted]
    engines = [one for one in loaded if one is not None]
    points = [
        Point(CASE, count, engines, OURS, {"polars": TOLERANCE}) for count in rows if settings.takes_point(CASE, count)
    ]
    session.pin_workers()
    return session.report("expr", measure(session, points), [rule for rule in BARS if rule.rows in rows])
