"""From keys to margins, one thread: the lookup and the model behind one call, beside a call for each."""

from __future__ import annotations

import dataclasses

from headrace_control.bench.areas.trees import Model, trained_model, xgboost_model
from headrace_control.bench.measure import Point, measure
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import OURS, Session

TITLE = "From Python, one thread: int64 keys in, the margins of a model of 50 looked-up float32 features out"
ROWS = (1, 100, 1024)
ENVIRONMENT = "boosters"
ONE_CALL, TWO_CALLS = f"{OURS}, one call", f"{OURS}, two calls"
ENGINES = (OURS, TWO_CALLS)
KEYS = 100_000
QUICK_KEYS = 10_000

BARS = (BarRule("predict_100x6_100_rows_one_call_over_two", 0.95, "<=", "xgboost-100x6", 100, OURS, TWO_CALLS),)
MODELS = (xgboost_model(100, 6), xgboost_model(500, 8))
QUICK_MODELS = MODELS[:1]
POINTS = [(model.case, count) for model in MODELS for count in ROWS]


def run(session: Session, models: tuple[Model, ...] | None = None) -> Report:
    """Trains or finds the models of the area `trees`, and asks both forms with the same keys."""
    settings = session.settings
    models = models or (QUICK_MODELS if settings.quick else MODELS)
    points = []
    for model in models:
        rows = [count for count in ROWS if settings.takes_point(model.case, count)]
        if not rows:
            continue
        path = trained_model(session, model)
        data = {
            "area": "lookup",
            "keys": QUICK_KEYS if settings.quick else KEYS,
            "views": 1,
            "fields": model.features,
            "seed": settings.seed,
            "normal": True,
        }
        options = {"model": str(path), "library": model.library, "case": model.case, "folder": str(session.folder)}
        loaded = [session.load(one, ENVIRONMENT, f"{one} {model.case}", data, options) for one in (ONE_CALL, TWO_CALLS)]
        named = zip(ENGINES, loaded, strict=True)
        engines = [dataclasses.replace(one, engine=name) for name, one in named if one is not None]
        points += [Point(model.case, count, engines, TWO_CALLS, {OURS: 0.0}) for count in rows]
    session.pin_workers()
    judged = [rule for rule in BARS if any(rule.case == model.case for model in models)]
    return session.report("predict", measure(session, points), judged)
