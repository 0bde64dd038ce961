"""Tree ensembles, one thread: the native kernels beside the libraries that train, convert or compile such models."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_control.bench.measure import Point, measure
from headrace_control.bench.places import content_key
from headrace_control.bench.results import BarRule, Report
from headrace_control.bench.session import JOB_TIMEOUT_S, OURS, Loaded, Session
from headrace_control.bench.workers import Worker
from headrace_control.errors import ControlError

TITLE = "Tree ensembles from Python, one thread: float32 rows in, margins out"
ROWS = (1, 16, 128, 1024, 16384)
TRAINER = "boosters"
ENVIRONMENTS = {
    OURS: "boosters",
    "xgboost": "boosters",
    "lightgbm": "boosters",
    "onnxruntime": "onnx",
    "treelite": "treelite",
    "lleaves": "lleaves",
}
ENGINES = tuple(ENVIRONMENTS)
PEERS = ENGINES[1:]

FLOAT32_TOLERANCE = 1e-5
"""onnxruntime and Treelite add float32 leaves in an order of their own."""
FLOAT64_TOLERANCE = 1e-12

BARS = (
    BarRule("trees_500x8_1_row_onnxruntime_over_headrace", 2.0, ">=", "xgboost-500x8", 1, "onnxruntime", OURS),
    BarRule("trees_500x8_1024_rows_xgboost_over_headrace", 1.3, ">=", "xgboost-500x8", 1024, "xgboost", OURS),
)


@dataclass(frozen=True)
class Model:
    """How a model is trained; everything in it is part of the cache's key."""

    case: str
    library: str
    trees: int
    parameters: dict[str, Any]
    rows: int = 200_000
    features: int = 50

    @property
    def engines(self) -> tuple[str, ...]:
        other = {"xgboost": ("lightgbm", "lleaves"), "lightgbm": ("xgboost",)}[self.library]
        return tuple(engine for engine in ENGINES if engine not in other)

    @property
    def tolerance(self) -> dict[str, float]:
        """Against the library that trained the model; headrace is held to the same bits."""
        return {"onnxruntime": FLOAT32_TOLERANCE, "treelite": FLOAT32_TOLERANCE, "lleaves": FLOAT64_TOLERANCE}

    @property
    def suffix(self) -> str:
        return {"xgboost": ".json", "lightgbm": ".txt"}[self.library]


def xgboost_model(trees: int, depth: int) -> Model:
    parameters = {
        "objective": "reg:squarederror",
        "max_depth": depth,
        "eta": 0.1,
        "tree_method": "hist",
        "base_score": 0.5,
    }
    return Model(f"xgboost-{trees}x{depth}", "xgboost", trees, parameters | {"nthread": 0, "seed": 1})


def lightgbm_model(trees: int, leaves: int) -> Model:
    parameters = {"objective": "regression", "num_leaves": leaves, "learning_rate": 0.1, "verbosity": -1, "seed": 1}
    return Model(
        f"lightgbm-{trees}x{leaves}", "lightgbm", trees, parameters | {"deterministic": True, "num_threads": 0}
    )


MODELS = (xgboost_model(100, 6), xgboost_model(500, 8), lightgbm_model(500, 63))
QUICK_MODELS = (xgboost_model(100, 6),)
QUICK_ROWS = (1, 16, 1024)
POINTS = [(model.case, count) for model in MODELS for count in ROWS]


def run(session: Session, models: tuple[Model, ...] | None = None, rows: tuple[int, ...] | None = None) -> Report:
    """Trains or finds the models, loads them into every engine, and predicts."""
    settings = session.settings
    models = models or (QUICK_MODELS if settings.quick else MODELS)
    rows = rows or (QUICK_ROWS if settings.quick else ROWS)
    points = []
    for model in models:
        wanted_rows = [count for count in rows if settings.takes_point(model.case, count)]
        if not wanted_rows:
            continue
        path = trained_model(session, model)
        engines = _load(session, model, path)
        points += [Point(model.case, count, engines, model.library, model.tolerance) for count in wanted_rows]
    session.pin_workers()
    return session.report("trees", measure(session, points), [rule for rule in BARS if _has(models, rows, rule)])


def _has(models: tuple[Model, ...], rows: tuple[int, ...], rule: BarRule) -> bool:
    return rule.rows in rows and any(model.case == rule.case for model in models)


def _load(session: Session, model: Model, path: Path) -> list[Loaded]:
    data = {"area": "trees", "features": model.features, "seed": session.settings.seed}
    options = {"model": str(path), "library": model.library, "case": model.case, "folder": str(session.folder)}
    # The library that trained the model is the reference of the comparison, so it is always there.
    always = (OURS, model.library)
    wanted = [engine for engine in model.engines if session.settings.takes_engine(engine, always)]
    loaded = [session.load(one, ENVIRONMENTS[one], f"{one} {model.case}", data, options) for one in wanted]
    return [one for one in loaded if one is not None]


def trained_model(session: Session, model: Model) -> Path:
    """The model's file in the cache, trained at first use.

    Raises:
        ControlError: the training environment cannot be made or training fails.
    """
    worker = session.worker(TRAINER)
    versions = worker.ask("job", JOB_TIMEOUT_S, name="versions", options={"packages": [model.library, "numpy"]})
    recipe = {
        "library": model.library,
        "parameters": model.parameters,
        "trees": model.trees,
        "rows": model.rows,
        "features": model.features,
        "seed": session.settings.seed,
    }
    folder = session.cache / "models" / f"{model.case}-{content_key(recipe, versions)}"
    path, about = folder / f"model{model.suffix}", folder / "about.json"
    if not about.exists():
        session.note(f"train {model.case}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # A process of its own: training may use every core, and its memory goes with it.
        with session.start_worker(TRAINER, {}) as trainer:
            made = _train(trainer, {**recipe, "path": str(path)})
        about.write_text(json.dumps({"recipe": recipe, "versions": versions, **made}))
    session.details.setdefault("models", {})[model.case] = json.loads(about.read_text())
    return path


def _train(trainer: Worker, recipe: dict[str, Any]) -> dict[str, Any]:
    made = trainer.ask("job", JOB_TIMEOUT_S, name="train", options=recipe)
    if not Path(recipe["path"]).exists():
        raise ControlError("worker_failed", "training wrote no model", "see bench/compare/boosters/engines.py")
    return made
