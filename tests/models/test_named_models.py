"""A model of a project by its name and version."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from headrace import Model
from headrace.export import export_sklearn
from headrace_control.errors import ControlError
from headrace_control.named_models import open_model


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with version 1 of a model, and beside it a folder whose name is a digit of no number."""
    rows = np.random.default_rng(1).normal(size=(20, 2))
    model = LinearRegression().fit(rows, rows[:, 0])
    exported = export_sklearn(model, tmp_path / "model.safetensors", rows[:3])
    draft = {
        "task": exported.task,
        "format": exported.format,
        "golden": exported.golden,
        "signature": {"features": [{"name": name, "dtype": "float64"} for name in ("a", "b")]},
        "trainer": {"library": exported.library, "version": exported.library_version},
        "created_at": "2026-01-01T00:00:00Z",
    }
    (tmp_path / "headrace.toml").write_text("", "utf-8")
    models = tmp_path / ".headrace" / "models"
    Model.create(models, "delays", json.dumps(draft), exported.file.read_bytes())
    (models / "delays" / "²").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["delays", "delays/1", "delays/01"])
def test_a_version_is_found_by_its_number(name: str, project: Path) -> None:
    assert open_model(project, name).name == "delays/1"


@pytest.mark.parametrize("version", ["2", "²", "\u0661", "1" * 200, "-1", "one"])
def test_what_is_no_version_is_refused(version: str, project: Path) -> None:
    with pytest.raises(ControlError) as caught:
        open_model(project, f"delays/{version}")
    assert caught.value.code == "unknown_model_version"
