"""The `params` of a [[model]]: what the training library does not take is refused by name, and no version is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_control.errors import ControlError
from headrace_control.training.config import ModelConfig
from headrace_control.training.fit import Examples, fit

Command = Callable[..., Any]


def train(library: str, params: dict[str, Any]) -> None:
    features = np.random.default_rng(5).random((60, 2))
    rows = Examples(features, (features[:, 0] > 0.5).astype(np.float64))
    config = ModelConfig("risk", "rows", library, "classification", ("no", "yes"), 2, 1, params)
    fit(config, ["a", "b"], rows, 1, lambda done, text: None)


@pytest.mark.parametrize(
    ("library", "params", "named"),
    [
        ("lightgbm", {"num_leaves": "many"}, "num_leaves = 'many'"),
        ("lightgbm", {"num_leaves": -3}, "num_leaves = -3"),
        ("lightgbm", {"metric": {"auc": 1}}, "metric"),
        ("lightgbm", {"objective": "gues"}, "gues"),
        ("lightgbm", {"num_leafs": 31}, "did you mean 'num_leaves'?"),
        ("lightgbm", {"zzz": 1}, "'zzz'"),
        ("xgboost", {"max_depth": "many"}, "max_depth = 'many'"),
        ("xgboost", {"eta": -1}, "eta = -1"),
        ("xgboost", {"objective": "gues"}, "gues"),
        ("xgboost", {"max_depht": 6}, "did you mean 'max_depth'?"),
        ("xgboost", {"booster": "gblinear"}, "gblinear"),
        ("xgboost", {"rate_drop": 0.1}, "'rate_drop'"),
    ],
)
def test_what_the_library_does_not_take_is_refused(library: str, params: dict[str, Any], named: str) -> None:
    with pytest.raises(ControlError) as caught:
        train(library, params)
    assert caught.value.code == "invalid_definition"
    assert "[[model]] 'risk'" in caught.value.message
    assert library in caught.value.message
    assert named in caught.value.message + caught.value.hint
    assert "headrace.toml" in caught.value.hint


@pytest.mark.parametrize(
    ("library", "params"),
    [
        ("lightgbm", {"num_leaf": 4, "eta": 0.1, "metric": ["auc"], "verbosity": 1}),
        ("xgboost", {"booster": "dart", "rate_drop": 0.1, "eta": 0.1, "eval_metric": "auc"}),
    ],
)
def test_other_names_of_a_parameter_are_taken(library: str, params: dict[str, Any]) -> None:
    train(library, params)


def test_the_command_refuses_and_registers_nothing(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    settings = project / "headrace.toml"
    settings.write_text(settings.read_text("utf-8").replace("num_leaves = 31", "num_leafs = 31"), "utf-8")
    done = headrace("train", "departure_risk_lightgbm", "--project", project, "--json")
    assert done.status == 3, done.stdout + done.stderr
    assert "num_leafs" in done.error["message"]
    assert not (project / ".headrace" / "models").exists()
