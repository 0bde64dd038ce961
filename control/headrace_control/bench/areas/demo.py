"""The example project on real flights: the training join, and predictions with lookup, in this process and over HTTP.

There are no peers here; the project is the demo's own, kept in the cache with its models, so that a later run only
measures. Runs in the interpreter of the command.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace_control.bench.places import content_key
from headrace_control.bench.results import BarRule, Report, Result
from headrace_control.bench.session import OURS, Session
from headrace_control.cli.init import EXAMPLE

if TYPE_CHECKING:
    from headrace import Engine
    from headrace_control.demo.child import Server
    from headrace_control.demo.steps import Asked, Trained

TITLE = "The main job on real flights: training join, prediction with lookup"
ENGINES = (OURS,)
PEERS: tuple[str, ...] = ()

JOIN = "join-all-flights"
EMBEDDED = "predict-embedded"
HTTP = "predict-http"
INFERENCE = "predict-http-inference-protocol"
LOADED = "predict-http-8-connections"
CONNECTIONS = 8

FLIGHTS = 336_776
"""Rows of the join: all flights of the data set."""

POINTS = [(JOIN, FLIGHTS), (EMBEDDED, 1), (HTTP, 1), (INFERENCE, 1), (LOADED, 1)]

BARS = (
    BarRule("demo_join_s", 2.0, "<", JOIN, FLIGHTS, OURS, unit_us=1e6),
    BarRule("demo_embedded_predict_p50_us", 25.0, "<", EMBEDDED, 1, OURS),
)


def run(session: Session) -> Report:
    """Prepares the demo's project, then measures the cases that were asked for."""
    from headrace_control.cli.output import Output
    from headrace_control.demo import steps

    settings = session.settings
    folder = session.cache / f"demo-{_example_key()}"
    quiet = Output(as_json=True)
    session.note("prepare the demo's project")
    steps.define(folder, quiet)
    session.note("train")
    trained = steps.train_all(folder, quiet)
    session.note("materialize")
    steps.materialize(folder, quiet)
    best = max(trained.models, key=lambda model: model.auc_validate)
    session.details["model"] = {"name": best.name, "library": best.library, "features": trained.data.features}

    results: list[Result] = []
    if settings.takes_point(JOIN, FLIGHTS):
        session.note(JOIN)
        results.append(_measure_join(session, folder, trained))
    calls = (200 if settings.quick else 1000) * settings.repeats
    asked = steps.Asked.after_the_cut(trained.rows.table, calls)
    if settings.takes_point(EMBEDDED, 1):
        session.note(EMBEDDED)
        results.append(_measure_embedded(session, folder, best.name, asked))
    if any(settings.takes_point(case, 1) for case in (HTTP, INFERENCE, LOADED)):
        results.extend(_measure_http(session, folder, best.name, asked))
    return session.report("demo", results, BARS)


def _example_key() -> str:
    """Changes with the example project, whose sources and models are kept in the cache."""
    with as_file(files("headrace_control") / "examples" / EXAMPLE) as example:
        paths = sorted(path for path in example.rglob("*") if path.suffix in (".py", ".toml"))
        return content_key([path.read_text("utf-8") for path in paths])


def _measure_join(session: Session, folder: Path, trained: Trained) -> Result:
    """All flights, features as known an hour before departure; reading the sources is part of it."""
    from headrace_control.projects import open_applied
    from headrace_control.training import dataset

    config = trained.rows.config
    entities = dataset.read_entities(config)
    random = np.random.default_rng(session.settings.seed)
    took = []
    with open_applied(folder) as store:
        views = len(json.loads(store.applied.service(config.service))["views"])
        for repeat in range(session.settings.repeats):
            # The first repeat asks in the order of the file, the others in random ones.
            rows = entities if repeat == 0 else entities.take(random.permutation(entities.num_rows))
            start = time.perf_counter_ns()
            joined = store.get_historical_features(
                config.service, rows, event_ts_column=config.event_time, as_known_at=config.as_known_at or None
            )
            took.append([time.perf_counter_ns() - start])
            assert joined.num_rows == entities.num_rows
    session.details["join"] = {"rows": entities.num_rows, "views": views, "features": trained.data.features}
    return summarize(JOIN, entities.num_rows, [np.array(one) for one in took])


def _measure_embedded(session: Session, folder: Path, model: str, asked: Asked) -> Result:
    from headrace import Engine
    from headrace_control.demo import steps
    from headrace_control.projects import to_us

    engine: Engine = Engine(folder, clock_us=to_us(steps.CUT))
    blocks = []
    for bodies in _parts(asked.bodies, session.settings.repeats):
        latency, _ = steps.predict_embedded(engine, model, steps.Asked(list(bodies)), warmup_calls=100)
        blocks.append(np.array(latency.samples_us) * 1000)
    return summarize(EMBEDDED, 1, blocks)


def _measure_http(session: Session, folder: Path, model: str, asked: Asked) -> list[Result]:
    """A server of its own, asked over loopback by this process."""
    from headrace_control.demo import load, steps
    from headrace_control.demo.child import Server

    common = [load.post(f"/v1/deployments/{model}/predict", body) for body in asked.common()]
    inference = [load.post(f"/v2/models/{model}/infer", body) for body in asked.inference()]
    results = []
    with Server(folder, steps.CUT) as server:
        for case, requests in ((HTTP, common), (INFERENCE, inference)):
            if session.settings.takes_point(case, 1):
                session.note(case)
                results.append(_measure_one_connection(session, server, case, requests))
        if session.settings.takes_point(LOADED, 1):
            session.note(LOADED)
            rates = [
                load.requests_per_second(*server.address, list(part), CONNECTIONS)
                for part in _parts(common * 4, session.settings.repeats)
            ]
            session.details["requests_per_s"] = {f"{CONNECTIONS} connections": round(float(np.median(rates)))}
            results.append(_from_rates(rates))
    return results


def _measure_one_connection(session: Session, server: Server, case: str, requests: Sequence[bytes]) -> Result:
    from headrace_control.demo import load

    load.latencies_us(*server.address, requests[:100])
    blocks = [
        np.array(load.latencies_us(*server.address, part)) * 1000 for part in _parts(requests, session.settings.repeats)
    ]
    return summarize(case, 1, blocks)


def _from_rates(rates: list[float]) -> Result:
    """A closed loop of N connections answers at `rate`: by Little's law a request takes N / rate on average."""
    import headrace

    took_us = CONNECTIONS * 1e6 / np.array(rates)
    median_us, p99_us = float(np.median(took_us)), float(np.percentile(took_us, 99))
    return Result(OURS, headrace.__version__, LOADED, 1, median_us, p99_us, float(np.median(rates)))


def summarize(case: str, rows: int, blocks_ns: Sequence[Any]) -> Result:
    """A result of this area: no worker measured it."""
    import headrace
    from headrace_control.bench.measure import statistics

    median_us, p99_us = statistics(blocks_ns)
    return Result(OURS, headrace.__version__, case, rows, median_us, p99_us, rows * 1e6 / median_us)


def _parts(values: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Consecutive parts of equal length."""
    size = len(values) // count
    return [values[at * size : (at + 1) * size] for at in range(count)]
