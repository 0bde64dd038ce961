"""A model version: a folder with the model, its signature, golden rows, metrics and lineage, named by its digest.

    models/NAME/VERSION/
      model.json    the manifest, which names the other files by digest
      model.ubj     (or model.txt) the file that the training library wrote
      golden.json   rows with the margins and scores that the library gave them
      digest        the digest of model.json in canonical form

The engine makes the folder, aside, and renames it, so that a version is either there as a whole or not at all; and only
if what it reads back reproduces the golden rows.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.export import export_lightgbm, export_xgboost
from headrace.registration import create_version
from headrace.registry import version_numbers
from headrace_control.training.config import ModelConfig
from headrace_control.training.fit import Matrix, Trained

GOLDEN_ROWS = 64
EXPORTERS = {"lightgbm": (export_lightgbm, "model.txt"), "xgboost": (export_xgboost, "model.ubj")}


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: int
    folder: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        return (self.folder / "digest").read_text("utf-8").strip()

    @property
    def model_file(self) -> Path:
        return self.folder / str(self.manifest["model"]["file"])


def versions(models: Path, name: str) -> list[ModelVersion]:
    """The versions of a model, oldest first."""
    return [read_version(models / name / str(number)) for number in version_numbers(models / name)]


def read_version(folder: Path) -> ModelVersion:
    manifest = json.loads((folder / "model.json").read_text("utf-8"))
    return ModelVersion(folder.parent.name, int(folder.name), folder, manifest)


def register(
    models: Path,
    config: ModelConfig,
    trained: Trained,
    signature: dict[str, Any],
    golden: Matrix,
    metrics: dict[str, Any],
    lineage: dict[str, Any],
    created_at: str,
) -> ModelVersion:
    """Writes the next version of a model, checks it with the engine, and makes it visible.

    Args:
        models: the project's folder of models.
        config: the model's name, task and labels.
        trained: the model.
        signature: service, plan digest, features, join keys and request fields.
        golden: rows (rows x features) whose margins and scores the engine must reproduce.
        metrics: measures by part of the training set.
        lineage: where the training set and the parameters came from.
        created_at: RFC 3339.

    Raises:
        headrace.HeadraceError: `golden_row_mismatch` or `unsupported_model`; no version is made then.
    """
    export, file_name = EXPORTERS[trained.library]
    with tempfile.TemporaryDirectory() as folder:
        exported = export(trained.booster, Path(folder) / file_name, golden)
        model = create_version(
            models,
            config.name,
            exported,
            signature,
            task=config.task,
            labels=config.labels,
            metrics=metrics,
            lineage=lineage,
            created_at=created_at,
        )
    return read_version(models / config.name / str(model.version))


def choose_golden(matrix: Matrix, seed: int) -> Matrix:
    """Rows for the golden file: some that hold nulls, some that hold none, chosen by the seed."""
    random = np.random.default_rng(seed)
    has_null = np.isnan(matrix).any(axis=1)
    chosen = [
        random.choice(rows, min(len(rows), GOLDEN_ROWS // 2), replace=False)
        for rows in (np.flatnonzero(has_null), np.flatnonzero(~has_null))
    ]
    golden: Matrix = matrix[np.sort(np.concatenate(chosen))]
    return golden
