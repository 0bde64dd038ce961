"""Writing feature rows: from files in bulk and by pushes of 1,000 rows, beside embedded stores that survive a kill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace_control.bench.measure import Point, measure, statistics
from headrace_control.bench.results import BarRule, Report, Result
from headrace_control.bench.session import JOB_TIMEOUT_S, OURS, Session
from headrace_control.errors import ControlError

TITLE = "Ingest: 50 float32 features into a durable embedded store"
ENVIRONMENT = "stores"
BULK = "materialize-50-float32"
PUSH = "push-50-float32"
FIELDS = 50
ROWS_OF_PUSH = 1000
BOUND = "numpy_copy"
PEERS = ("rocksdict", "lmdb", "sqlite")
ENGINES = (OURS, BOUND, *PEERS)
ALWAYS = (OURS, BOUND)
BULK_ROWS = 500_000

BARS = (
    BarRule("ingest_materialize_rows_per_s", 500_000, ">=", BULK, BULK_ROWS, OURS, figure="rows_per_s"),
    BarRule("ingest_push_rows_per_s", 200_000, ">=", PUSH, ROWS_OF_PUSH, OURS, figure="rows_per_s"),
)


@dataclass(frozen=True)
class Size:
    """How much is written."""

    bulk_rows: int = BULK_ROWS
    push_keys: int = 200_000


QUICK = Size(bulk_rows=50_000, push_keys=20_000)
POINTS = [(BULK, BULK_ROWS), (PUSH, ROWS_OF_PUSH)]


def run(session: Session, size: Size | None = None) -> Report:
    """Times pushes in turns, then whole loads of a Parquet file into empty stores, one engine after the other."""
    size = size or (QUICK if session.settings.quick else Size())
    results = []
    folder = {"folder": str(session.folder)}
    wanted = [engine for engine in ENGINES if session.settings.takes_engine(engine, ALWAYS)]
    if session.settings.takes_point(PUSH, ROWS_OF_PUSH):
        data = {"area": "lookup", "keys": size.push_keys, "views": 1, "fields": FIELDS, "seed": session.settings.seed}
        session.details["data"] = data
        loaded = [session.load(engine, ENVIRONMENT, f"{engine} push", data, folder) for engine in _writers(wanted)]
        engines = [one for one in loaded if one is not None]
        results += measure(session, [Point(PUSH, ROWS_OF_PUSH, engines, f"{BOUND}_writer")])
    if session.settings.takes_point(BULK, BULK_ROWS):
        results += _bulk(session, [engine for engine in wanted if engine != BOUND], size.bulk_rows)
    return session.report("ingest", [_named(result) for result in results], BARS)


def _writers(wanted: list[str]) -> list[str]:
    """The names under which the environment has its writers: those alone are its readers."""
    return [f"{engine}_writer" for engine in wanted]


def _named(result: Result) -> Result:
    import dataclasses

    return dataclasses.replace(result, engine=result.engine.removesuffix("_writer"))


def _bulk(session: Session, engines: list[str], rows: int) -> list[Result]:
    took: dict[str, list[int]] = {engine: [] for engine in engines}
    versions: dict[str, str] = {}
    with session.start_worker(ENVIRONMENT, {}) as worker:
        for repeat in range(min(session.settings.repeats, 5)):
            session.note(f"{BULK} {repeat + 1}")
            for engine in list(took):
                options = {"engine": engine, "rows": rows, "fields": FIELDS, "folder": str(session.folder)}
                try:
                    found = worker.ask("job", JOB_TIMEOUT_S, name="bulk", options=options)
                except ControlError as error:
                    session.skip(f"{engine} {BULK}", error)
                    del took[engine]
                    continue
                took[engine].append(found["ns"])
                versions[engine] = found["version"]
    results = []
    for engine, ns in took.items():
        median_us, p99_us = statistics([np.array([one]) for one in ns])
        # The case is named for its full size; a quick run loads less, and its rate is of what it loaded.
        results.append(Result(engine, versions[engine], BULK, BULK_ROWS, median_us, p99_us, rows * 1e6 / median_us))
    return results
