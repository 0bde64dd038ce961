"""Explanations of tree ensembles, one thread: every feature's contribution to the margin of each row."""

from __future__ import annotations

from pathlib import Path

from headrace_control.bench.areas.trees import Model, lightgbm_model, trained_model, xgboost_model
from headrace_control.bench.measure import Point, measure
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import OURS, Loaded, Session

TITLE = "Explanations from Python, one thread: float32 rows in, contributions of 50 features out"
ROWS = (1, 128, 1024)
ENVIRONMENT = "shap"
ENGINES = (OURS, "xgboost", "lightgbm", "shap")
PEERS = ENGINES[1:]

TOLERANCE = {"xgboost": 1e-4, "lightgbm": 1e-9}
"""By the library that trained the model, whose contributions are the reference: XGBoost sums in float32."""

SHAP_ROWS_MAX = 128
"""shap hands both libraries' models back to them: its calls on many rows take long and say nothing new."""

BARS = (BarRule("shap_100x6_1024_rows_xgboost_over_headrace", 3.0, ">=", "xgboost-100x6", 1024, "xgboost", OURS),)
MODELS = (xgboost_model(100, 6), xgboost_model(500, 8), lightgbm_model(500, 63))
QUICK_MODELS = (xgboost_model(100, 6),)
QUICK_ROWS = (1, 1024)
POINTS = [(model.case, count) for model in MODELS for count in ROWS]


def run(session: Session, models: tuple[Model, ...] | None = None, rows: tuple[int, ...] | None = None) -> Report:
    """Trains or finds the models of the area `trees`, and explains rows with every engine."""
    settings = session.settings
    models = models or (QUICK_MODELS if settings.quick else MODELS)
    rows = rows or (QUICK_ROWS if settings.quick else ROWS)
    points = []
    for model in models:
        wanted_rows = [count for count in rows if settings.takes_point(model.case, count)]
        if not wanted_rows:
            continue
        engines = _load(session, model, trained_model(session, model))
        tolerance = dict.fromkeys(ENGINES, TOLERANCE[model.library])
        for count in wanted_rows:
            taking_part = [one for one in engines if one.engine != "shap" or count <= SHAP_ROWS_MAX]
            points.append(Point(model.case, count, taking_part, model.library, tolerance))
    session.pin_workers()
    judged = [rule for rule in BARS if rule.rows in rows and any(model.case == rule.case for model in models)]
    return session.report("shap", measure(session, points), judged)


def _load(session: Session, model: Model, path: Path) -> list[Loaded]:
    settings = session.settings
    data = {"area": "trees", "features": model.features, "seed": settings.seed}
    options = {"model": str(path), "library": model.library, "case": model.case, "folder": str(session.folder)}
    # The library that trained the model is the reference of the comparison, so it is always there.
    always = (OURS, model.library)
    wanted = [engine for engine in (*always, "shap") if settings.takes_engine(engine, always)]
    loaded = [session.load(one, ENVIRONMENT, f"{one} {model.case}", data, options) for one in wanted]
    return [one for one in loaded if one is not None]
