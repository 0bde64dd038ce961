"""Model files that a training library has written, opened in that library and exported for the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.export import ExportedModel, export_catboost, export_lightgbm, export_onnx, export_xgboost
from headrace.export.exported import are_made_up
from headrace_control.errors import ControlError, require


@dataclass(frozen=True)
class OpenedModel:
    """A model in its library.

    Attributes:
        features: names in the model's order; empty where the library knows none.
        export: takes a file to write and golden rows.
    """

    features: tuple[str, ...]
    export: Callable[[Path, Any], ExportedModel]


def open_model_file(path: Path, task: str | None, labels: tuple[str, ...]) -> OpenedModel:
    """Opens a file in the library that its ending names.

    Args:
        path: `.ubj` or `.json` of XGBoost, `.txt` of LightGBM, `.cbm` of CatBoost, `.onnx`.
        task: what an ONNX model answers; other models know it.
        labels: of an ONNX model's classes.

    Raises:
        ControlError: `invalid_argument`, `missing_package`, or `unsupported_model`: the library does not take the file.
    """
    opener = OPENERS.get(path.suffix)
    if opener is None:
        raise ControlError("invalid_argument", f"{path} has no known ending", f"use one of {', '.join(OPENERS)}")
    return opener(path, task, labels)


def _read(library: str, path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"{library} cannot read {path}: {first}"
        raise ControlError("unsupported_model", message, f"write the file with {library} again") from error


def _xgboost(path: Path, _task: str | None, _labels: tuple[str, ...]) -> OpenedModel:
    require("xgboost", "xgboost-cpu", str(path))
    import xgboost

    booster = _read("XGBoost", path, lambda: xgboost.Booster(model_file=str(path)))
    names = tuple(booster.feature_names or ())
    return OpenedModel(names, lambda file, golden: export_xgboost(booster, file.with_suffix(".ubj"), golden))


def _lightgbm(path: Path, _task: str | None, _labels: tuple[str, ...]) -> OpenedModel:
    require("lightgbm", "lightgbm", str(path))
    import lightgbm

    booster = _read("LightGBM", path, lambda: lightgbm.Booster(model_file=str(path)))
    names = tuple(booster.feature_name())
    return OpenedModel(
        () if are_made_up(names) else names,
        lambda file, golden: export_lightgbm(booster, file.with_suffix(".txt"), golden),
    )


def _catboost(path: Path, _task: str | None, _labels: tuple[str, ...]) -> OpenedModel:
    require("catboost", "catboost", str(path))
    import catboost

    model = _read("CatBoost", path, lambda: catboost.CatBoost().load_model(str(path)))
    names = tuple(model.feature_names_)
    return OpenedModel(
        () if are_made_up(names) else names,
        lambda file, golden: export_catboost(model, file.with_suffix(".json"), golden),
    )


def _onnx(path: Path, task: str | None, labels: tuple[str, ...]) -> OpenedModel:
    require("onnxruntime", "onnxruntime", str(path))
    if task is None:
        raise ControlError("invalid_argument", f"{path} does not say what its output is", "give --task")
    return OpenedModel(
        (),
        lambda file, golden: export_onnx(path, file.with_suffix(".onnx"), golden, task=task, labels=labels or None),
    )


OPENERS = {
    ".ubj": _xgboost,
    ".json": _xgboost,
    ".txt": _lightgbm,
    ".cbm": _catboost,
    ".onnx": _onnx,
}
