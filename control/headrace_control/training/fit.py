"""One trained model, whichever library trained it: what it says of rows, and the file that the engine reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace_control.errors import require
from headrace_control.progress import Progress
from headrace_control.training.config import ModelConfig
from headrace_control.training.hyperparameters import check_lightgbm, check_xgboost, refusals

Matrix = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

# Library -> the packages that may bring it, the one to install first.
PACKAGES = {"lightgbm": ("lightgbm",), "xgboost": ("xgboost-cpu", "xgboost")}


@dataclass(frozen=True)
class Examples:
    """Rows to learn from: features (rows x features, NaN for null) and labels."""

    features: Matrix
    labels: NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A model as its library made it.

    Attributes:
        booster: the library's own object.
        margins: raw scores of a matrix, as the library computes them, before the link function.
        scores: probabilities of the positive class, or predicted values for a regression.
        importance: total gain of each feature.
    """

    library: str
    booster: Any
    margins: Callable[[Matrix], Floats]
    scores: Callable[[Matrix], Floats]
    importance: dict[str, float]


def fit(config: ModelConfig, names: list[str], train: Examples, threads: int, progress: Progress) -> Trained:
    """Trains `config.rounds` trees; the same rows, configuration, library version and threads give the same model.

    Args:
        config: library, parameters, rounds and seed.
        names: the features, in the order of the matrix's columns.
        train: the rows to learn from.
        threads: threads of the library.
        progress: called with (trees so far, None).

    Raises:
        ControlError: `missing_package`; `invalid_definition`, the library does not take a value or name in `params`.
    """
    library = _fit_lightgbm if config.library == "lightgbm" else _fit_xgboost
    library_version(config.library)
    _let_threads_sleep()
    with refusals(config):
        return library(config, names, train, threads, progress)


def load(library: str, file: Path, threads: int) -> Trained:
    """The model in the library that trained it, from its file: the referee of the engine's own evaluation."""
    library_version(library)
    _let_threads_sleep()
    if library == "lightgbm":
        import lightgbm

        return _lightgbm(lightgbm.Booster(model_file=str(file)), threads)
    import xgboost

    return _xgboost(xgboost.Booster({"nthread": threads}, model_file=str(file)), threads)


def library_version(library: str) -> str:
    """The installed version of a training library, without loading it.

    Raises:
        ControlError: `missing_package`.
    """
    require(library, PACKAGES[library][0], f'training with library = "{library}"')
    for package in PACKAGES[library]:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "unknown"


def _let_threads_sleep() -> None:
    """Before a library loads its OpenMP: threads that wait must not spin.

    Spinning gains nothing here on an idle machine, and on a busy one it made training 2.6 to 5.9 times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _fit_lightgbm(config: ModelConfig, names: list[str], train: Examples, threads: int, progress: Progress) -> Trained:
    import lightgbm

    check_lightgbm(config)
    objective = "binary" if config.task == "classification" else "regression"
    fixed = {"deterministic": True, "force_row_wise": True, "num_threads": threads, "seed": config.seed, "verbose": -1}
    rows = lightgbm.Dataset(train.features, train.labels, feature_name=names, free_raw_data=False)
    booster = lightgbm.train(
        {"objective": objective, **config.params, **fixed},
        rows,
        num_boost_round=config.rounds,
        callbacks=[lambda state: progress(state.iteration + 1, None)],
    )
    return _lightgbm(booster, threads)


def _lightgbm(booster: Any, threads: int) -> Trained:
    def predict(rows: Matrix, raw: bool) -> Floats:
        return np.asarray(booster.predict(rows, raw_score=raw, num_threads=threads))

    gains = booster.feature_importance("gain")
    return Trained(
        library="lightgbm",
        booster=booster,
        margins=lambda rows: predict(rows, raw=True),
        scores=lambda rows: predict(rows, raw=False),
        importance={name: float(gain) for name, gain in zip(booster.feature_name(), gains, strict=True)},
    )


def _fit_xgboost(config: ModelConfig, names: list[str], train: Examples, threads: int, progress: Progress) -> Trained:
    import xgboost

    class Report(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress(epoch + 1, None)
            return False

    objective = "binary:logistic" if config.task == "classification" else "reg:squarederror"
    fixed = {"tree_method": "hist", "nthread": threads, "seed": config.seed, "verbosity": 0}
    rows = xgboost.QuantileDMatrix(train.features, train.labels, feature_names=names, nthread=threads)
    params = {"objective": objective, **config.params, **fixed}
    check_xgboost(config, params, rows)
    booster = xgboost.train(params, rows, num_boost_round=config.rounds, callbacks=[Report()])
    return _xgboost(booster, threads)


def _xgboost(booster: Any, threads: int) -> Trained:
    import xgboost

    def predict(rows: Matrix, raw: bool) -> Floats:
        # The engine feeds XGBoost float32, as XGBoost itself does with any input.
        matrix = xgboost.DMatrix(rows.astype(np.float32), feature_names=booster.feature_names, nthread=threads)
        return np.asarray(booster.predict(matrix, output_margin=raw))

    gains: dict[str, Any] = booster.get_score(importance_type="total_gain")
    return Trained(
        library="xgboost",
        booster=booster,
        margins=lambda rows: predict(rows, raw=True),
        scores=lambda rows: predict(rows, raw=False),
        importance={name: float(gains.get(name, 0.0)) for name in booster.feature_names or []},
    )
