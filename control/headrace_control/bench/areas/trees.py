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
SHAPE_ROWS = (1, 1024)
TRAINER = "boosters"
OURS_TWO_THREADS = f"{OURS}, 2 threads"
ENVIRONMENTS = {
    OURS: "boosters",
    OURS_TWO_THREADS: "boosters",
    "xgboost": "boosters",
    "lightgbm": "boosters",
    "onnxruntime": "onnx",
    "treelite": "treelite",
    "tl2cgen": "tl2cgen",
    "lleaves": "lleaves",
}
ENGINES = tuple(ENVIRONMENTS)
PEERS = ENGINES[2:]
LIBRARIES = {"xgboost": ("lightgbm", "lleaves"), "lightgbm": ("xgboost",)}
"""The engines that do not read a library's models."""

FLOAT32_TOLERANCE = 1e-5
"""onnxruntime, Treelite and tl2cgen add float32 leaves in an order of their own."""
FLOAT64_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Model:
    """How a model is trained; everything but `asked` is part of the cache's key.

    Attributes:
        trees: boosting rounds; with several classes each has a tree for every class.
        missing: the share of values that are missing, when it is trained and when it is asked.
        asked: rows of a call.
    """

    case: str
    library: str
    trees: int
    parameters: dict[str, Any]
    rows: int = 200_000
    features: int = 50
    missing: float = 0.0
    asked: tuple[int, ...] = SHAPE_ROWS

    def engines(self, rows: int) -> tuple[str, ...]:
        other = LIBRARIES[self.library] + (() if rows == ROWS[-1] else (OURS_TWO_THREADS,))
        return tuple(engine for engine in ENGINES if engine not in other)

    @property
    def tolerance(self) -> dict[str, float]:
        """Against the library that trained the model; headrace is held to the same bits."""
        float32 = dict.fromkeys(("onnxruntime", "treelite", "tl2cgen"), FLOAT32_TOLERANCE)
        # `inplace_predict` weighs the trees of a DART model otherwise than `predict`, whose bits headrace has.
        dart = {OURS: FLOAT32_TOLERANCE} if self.parameters.get("booster") == "dart" else {}
        return {**float32, "lleaves": FLOAT64_TOLERANCE, **dart}

    @property
    def suffix(self) -> str:
        return {"xgboost": ".json", "lightgbm": ".txt"}[self.library]


XGBOOST = {
    "objective": "reg:squarederror",
    "eta": 0.1,
    "tree_method": "hist",
    "base_score": 0.5,
    "nthread": 0,
    "seed": 1,
}
LIGHTGBM = {
    "objective": "regression",
    "learning_rate": 0.1,
    "verbosity": -1,
    "seed": 1,
    "deterministic": True,
    "num_threads": 0,
}


def xgboost_model(
    trees: int, depth: int, case: str = "", parameters: dict[str, Any] | None = None, **more: Any
) -> Model:
    parameters = {**XGBOOST, "max_depth": depth, **(parameters or {})}
    return Model(case or f"xgboost-{trees}x{depth}", "xgboost", trees, parameters, **more)


def lightgbm_model(trees: int, leaves: int, **more: Any) -> Model:
    return Model(f"lightgbm-{trees}x{leaves}", "lightgbm", trees, {**LIGHTGBM, "num_leaves": leaves}, **more)


NAMED = (
    xgboost_model(100, 6, asked=ROWS),
    xgboost_model(500, 8, asked=ROWS),
    lightgbm_model(500, 63, asked=ROWS),
)
CLASSES = {"objective": "multi:softmax", "num_class": 10}
DEEP = {"min_child_weight": 0, "eta": 0.3}
SHAPES = (
    xgboost_model(2000, 2, "xgboost-2000x2-shallow"),
    xgboost_model(10, 14, "xgboost-10x14-deep", DEEP),
    xgboost_model(200, 6, "xgboost-200x6-2000-features", features=2000, rows=10_000),
    xgboost_model(30, 6, "xgboost-30x6-10-classes", CLASSES, rows=50_000),
    xgboost_model(100, 6, "xgboost-100x6-dart", {"booster": "dart", "rate_drop": 0.1}, rows=20_000),
    xgboost_model(100, 6, "xgboost-100x6-missing", missing=0.9),
    lightgbm_model(20, 4095),
)
"""Shapes that are none of the named ones: no kernel may be good at those alone."""
MODELS = NAMED + SHAPES
QUICK_MODELS = (xgboost_model(100, 6, asked=(1, 16, 1024)),)
POINTS = [(model.case, count) for model in MODELS for count in model.asked]


def best_peer(name: str, target: float, model: Model, rows: int) -> BarRule:
    """How much faster headrace is than the fastest peer."""
    peers = "|".join(engine for engine in PEERS if engine in model.engines(rows))
    return BarRule(name, target, ">=", model.case, rows, peers, OURS)


def _bars() -> tuple[BarRule, ...]:
    small, large, leaves = NAMED
    rules = [
        best_peer("trees_100x6_1_row_best_peer_over_headrace", 3.0, small, 1),
        best_peer("trees_500x8_1_row_best_peer_over_headrace", 2.5, large, 1),
        BarRule("trees_lightgbm_1_row_lleaves_over_headrace", 2.5, ">=", leaves.case, 1, "lleaves", OURS),
        BarRule("trees_lightgbm_1024_rows_lleaves_over_headrace", 1.5, ">=", leaves.case, 1024, "lleaves", OURS),
    ]
    for name, model in (("100x6", small), ("500x8", large)):
        rules += [
            best_peer(f"trees_{name}_{rows}_rows_best_peer_over_headrace", 1.7, model, rows) for rows in (1024, 16384)
        ]
        threads = f"trees_{name}_16384_rows_1_over_2_threads"
        rules.append(BarRule(threads, 1.8, ">=", model.case, 16384, OURS, OURS_TWO_THREADS))
    for model in SHAPES:
        name = model.case.replace("-", "_")
        rules += [
            best_peer(f"trees_{name}_{rows}_rows_best_peer_over_headrace", 1.0, model, rows) for rows in model.asked
        ]
    return tuple(rules)


BARS = _bars()


def run(session: Session, models: tuple[Model, ...] | None = None) -> Report:
    """Trains or finds the models, loads them into every engine, and predicts."""
    settings = session.settings
    models = models or (QUICK_MODELS if settings.quick else MODELS)
    points = []
    for model in models:
        wanted_rows = [count for count in model.asked if settings.takes_point(model.case, count)]
        if not wanted_rows:
            continue
        path = trained_model(session, model)
        engines = _load(session, model, path, wanted_rows)
        for count in wanted_rows:
            here = [one for one in engines if one.engine in model.engines(count)]
            points.append(Point(model.case, count, here, model.library, model.tolerance))
    session.pin_workers()
    return session.report("trees", measure(session, points), [rule for rule in BARS if _has(models, rule)])


def _has(models: tuple[Model, ...], rule: BarRule) -> bool:
    return any(model.case == rule.case and rule.rows in model.asked for model in models)


def _load(session: Session, model: Model, path: Path, rows: list[int]) -> list[Loaded]:
    data = {"area": "trees", "features": model.features, "seed": session.settings.seed, "missing": model.missing}
    options = {"model": str(path), "library": model.library, "case": model.case, "folder": str(session.folder)}
    # The library that trained the model is the reference of the comparison, so it is always there.
    always = (OURS, model.library)
    engines = [engine for engine in ENGINES if any(engine in model.engines(count) for count in rows)]
    wanted = [engine for engine in engines if session.settings.takes_engine(engine, always)]
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
        "missing": model.missing,
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
