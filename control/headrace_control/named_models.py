"""Models as commands name them: NAME or NAME/VERSION of the project, a version's folder, or a model file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace import Model
from headrace.registry import version_numbers
from headrace_control.errors import ControlError

Matrix = NDArray[np.float64]

ENDINGS = {
    ".catboost.json": "catboost-json",
    ".function.json": "numba-function",
    ".linear.json": "linear-json",
    ".safetensors": "pipeline-safetensors",
    ".onnx": "onnx",
    ".json": "xgboost-json",
    ".ubj": "xgboost-ubj",
    ".txt": "lightgbm-text",
}
"""Formats of model files by their ending, the longest first."""


@dataclass(frozen=True)
class NamedModel:
    """A model and what is known of it.

    Attributes:
        name: NAME/VERSION, or the file's path.
        features: names in the model's order; `f0`, `f1`, .. for a file.
        labels: names of the outputs of a classification; empty where there are none.
        folder: the version's folder; `None` for a file.
    """

    model: Model
    name: str
    features: tuple[str, ...]
    labels: tuple[str, ...]
    folder: Path | None

    @property
    def manifest(self) -> dict[str, Any] | None:
        """`None` for a file."""
        return None if self.model.manifest is None else json.loads(self.model.manifest)

    @property
    def outputs(self) -> tuple[str, ...]:
        """A name for each margin: the class, or its number."""
        if len(self.labels) == self.model.outputs_count:
            return self.labels
        return tuple(str(number) for number in range(self.model.outputs_count))

    def golden_rows(self) -> Matrix | None:
        """The rows that the model was registered with, texts as their codes; `None` for a file."""
        manifest = self.manifest
        if manifest is None or self.folder is None:
            return None
        golden = json.loads((self.folder / manifest["golden"]["file"]).read_text("utf-8"))
        if self.model.text_features:
            encoded: Matrix = self.model.encode(np.array(golden["features"], dtype=object))
            return encoded
        return np.array(golden["features"], dtype=np.float64)  # null is NaN


def open_model(project: Path, name: str) -> NamedModel:
    """Opens what `name` names.

    Args:
        project: the folder of the project, for a name without a folder.
        name: NAME, NAME/VERSION (the default is the newest version), the folder of a version, or a model file.

    Raises:
        ControlError: `not_a_project`, `not_trained`, `unknown_model`, `unknown_model_version`, `invalid_argument`.
        headrace.HeadraceError: the model cannot be loaded.
    """
    path = Path(name)
    if path.is_file():
        return _of_file(path)
    if (path / "model.json").is_file():
        return _of_folder(path)
    return _of_folder(_registered(project, name))


def _of_file(path: Path) -> NamedModel:
    file_format = next((found for end, found in ENDINGS.items() if path.name.endswith(end)), None)
    if file_format is None:
        raise ControlError("invalid_argument", f"{path} has no known ending", f"use one of {', '.join(ENDINGS)}")
    model = Model.from_bytes(file_format, path.read_bytes())
    return NamedModel(model, str(path), tuple(f"f{number}" for number in range(model.features_count)), (), None)


def _of_folder(folder: Path) -> NamedModel:
    model = Model.open(folder)
    manifest = json.loads(model.manifest or "{}")
    features = tuple(field["name"] for field in manifest["signature"]["features"])
    return NamedModel(model, f"{model.name}/{model.version}", features, tuple(manifest.get("labels") or ()), folder)


def _registered(project: Path, name: str) -> Path:
    from headrace_control.projects import check_project

    check_project(project)
    models = project / ".headrace" / "models"
    model, _, version = name.partition("/")
    found = version_numbers(models / model) if model else []
    if not found:
        known = sorted(path.name for path in models.glob("*") if path.is_dir())
        raise ControlError(
            "unknown_model" if known else "not_trained",
            f"the project has no model '{model}', and there is no file or folder of that name",
            f"it has: {', '.join(known)}" if known else "train one first: headrace train",
        )
    if version and (not _is_number(version) or int(version) not in found):
        raise ControlError(
            "unknown_model_version",
            f"model '{model}' has no version {version}",
            f"it has: {', '.join(map(str, found))}",
        )
    return models / model / str(int(version) if version else found[-1])


def _is_number(text: str) -> bool:
    """Whether it is digits of ASCII, and few enough of them for a version."""
    return text.isascii() and text.isdecimal() and len(text) <= 20
