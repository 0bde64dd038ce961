"""`headrace train`, step by step: training set, model, measures, version."""

from __future__ import annotations

import datetime
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace import FeatureStore
from headrace.digests import digest_json
from headrace.registration import service_signature
from headrace_control.errors import ControlError
from headrace_control.progress import Progress
from headrace_control.training import fit, metrics
from headrace_control.training.config import ModelConfig, TrainingConfig
from headrace_control.training.dataset import PARTS, TrainingSet
from headrace_control.training.register import ModelVersion, choose_golden, register, versions

THREADS_MAX = 8
NO_FEATURES_AUC = 0.5


@dataclass(frozen=True)
class TrainingRun:
    """What became of one model.

    Attributes:
        is_new: false when the latest version was made of the same rows by the same recipe, and nothing was trained.
        seconds: of training, measuring and registering.
    """

    version: ModelVersion
    is_new: bool
    seconds: float

    @property
    def metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = self.version.manifest["metrics"]
        return found


def chosen_models(config: TrainingConfig, names: tuple[str, ...]) -> list[ModelConfig]:
    """The models to train: those named, or all.

    Raises:
        ControlError: `unknown_model`, or `invalid_definition` when the project has none.
    """
    if not config.models:
        raise ControlError(
            "invalid_definition", "headrace.toml has no [[model]]", "see the example project: headrace init NAME"
        )
    for name in names:
        if name not in config.models:
            raise ControlError(
                "unknown_model", f"headrace.toml has no [[model]] '{name}'", f"it has: {', '.join(config.models)}"
            )
    return [config.models[name] for name in names or config.models]


def train(
    store: FeatureStore,
    config: ModelConfig,
    training_set: TrainingSet,
    lineage: dict[str, Any],
    progress: Progress,
    force: bool = False,
) -> TrainingRun:
    """Trains one model and registers it, unless its latest version has been made of the same by the same.

    Args:
        store: the project's features; the signature comes from its plan.
        config: the model.
        training_set: its rows.
        lineage: of the training set, from `dataset.keep`.
        progress: called with (trees so far, None).
        force: trains and makes a new version in any case.

    Raises:
        ControlError: `missing_package`, `invalid_definition`.
        headrace.HeadraceError: `golden_row_mismatch`.
    """
    start = time.perf_counter()
    threads = min(THREADS_MAX, len(os.sched_getaffinity(0)))
    recipe = {
        "library": config.library,
        "library_version": fit.library_version(config.library),
        "task": config.task,
        "labels": list(config.labels),
        "rounds": config.rounds,
        "seed": config.seed,
        "params": dict(config.params),
        "threads": threads,
    }
    made_of = {"recipe": recipe, "dataset": lineage, "plan_digest": training_set.plan_digest}
    made_of["recipe_digest"] = digest_json(json.dumps([recipe, lineage["lineage_digest"]]))
    models = store.config.state / "models"
    latest = next(reversed(versions(models, config.name)), None)
    if latest and not force and latest.manifest["lineage"].get("recipe_digest") == made_of["recipe_digest"]:
        return TrainingRun(latest, is_new=False, seconds=time.perf_counter() - start)
    check_labels(config, training_set)
    trained = fit.fit(config, training_set.names, training_set.examples("train"), threads, progress)
    version = register(
        models,
        config,
        trained,
        service_signature(json.loads(store.applied.service(training_set.config.service)), training_set.plan_digest),
        choose_golden(training_set.features, config.seed),
        measure(config, training_set, trained),
        made_of,
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return TrainingRun(version, is_new=True, seconds=time.perf_counter() - start)


def check_labels(config: ModelConfig, training_set: TrainingSet) -> None:
    """Two classes need labels 0 and 1, both of them, among the rows to train with."""
    if config.task != "classification":
        return
    found = np.unique(training_set.labels[training_set.rows("train")])
    if not np.array_equal(found, [0.0, 1.0]):
        label = training_set.config.label_column
        raise ControlError(
            "invalid_definition",
            f"[[model]] '{config.name}' needs labels 0 and 1; '{label}' gives {found[:5].tolist()}",
            'set label.above in its [[dataset]], or task = "regression"',
        )


def measure(config: ModelConfig, training_set: TrainingSet, trained: fit.Trained) -> dict[str, Any]:
    """Measures by part, and the baselines' on the test part."""
    found: dict[str, Any] = {}
    for part in PARTS:
        rows = training_set.rows(part)
        if not rows.any():
            continue
        scores = trained.scores(training_set.features[rows]).astype(np.float64)
        labels = training_set.labels[rows]
        if config.task == "classification":
            found[part] = metrics.classification_metrics(labels > 0, scores)
        else:
            found[part] = metrics.regression_metrics(labels, scores)
    found["baselines"] = baselines(config, training_set)
    found["importance"] = trained.importance
    return found


def baselines(config: ModelConfig, training_set: TrainingSet) -> dict[str, float]:
    """What a guess without features reaches on the test part: AUC for classes, RMSE for values."""
    train_rows, test_rows = training_set.rows("train"), training_set.rows("test")
    labels = training_set.labels[test_rows]
    mean = training_set.labels[train_rows].mean()
    is_classes = config.task == "classification"
    found = {metrics.NO_FEATURES: NO_FEATURES_AUC if is_classes else float(np.sqrt(np.mean((labels - mean) ** 2)))}
    scores = baseline_scores(training_set)
    if scores is not None:
        name = f"{training_set.config.baseline} mean"
        measured = metrics.regression_metrics(labels, scores)["rmse"]
        found[name] = metrics.area_under_curve(labels > 0, scores) if is_classes else measured
    return found


def baseline_scores(training_set: TrainingSet) -> metrics.Floats | None:
    """The mean label of each test row's group among the rows to train with; `None` without a group."""
    groups = training_set.groups
    if groups is None:
        return None
    train_rows, test_rows = training_set.rows("train"), training_set.rows("test")
    return metrics.group_mean_scores(groups[train_rows], training_set.labels[train_rows], groups[test_rows])
