"""The training tables of headrace.toml: what is wrong with them is said with the table's name."""

from __future__ import annotations

from pathlib import Path

import pytest

import headrace_control
from headrace_control.errors import EXIT_CODES, ControlError
from headrace_control.training.config import load_training

EXAMPLE = Path(headrace_control.__file__).parent / "examples" / "flights" / "headrace.toml"


def refusal(folder: Path, text: str) -> ControlError:
    (folder / "headrace.toml").write_text(text, "utf-8")
    with pytest.raises(ControlError) as caught:
        load_training(folder)
    return caught.value


def test_the_example_has_one_dataset_and_two_models() -> None:
    config = load_training(EXAMPLE.parent)
    assert list(config.datasets) == ["departures"]
    assert {model.library for model in config.models.values()} == {"lightgbm", "xgboost"}
    assert config.datasets["departures"].label_above == 15


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('library = "lightgbm"', 'library = "catboost"', "library = 'catboost'"),
        ("rounds = 300", 'rounds = "many"', "rounds = 'many'"),
        ("rounds = 300", "rounds = true", "rounds = True"),
        ("rounds = 300", "rounds = 0", "rounds = 0"),
        ('dataset = "departures"', 'dataset = "arrivals"', "arrivals"),
        ('labels = ["on_time", "late"]', 'labels = ["late"]', "1 labels"),
        ('service = "departure_risk"', 'servise = "departure_risk"', "'service'"),
        ("seed = 7", "seed = 7\nsped = 8", "sped"),
        ('label = { column = "arr_delay", above = 15 }', 'label = "arr_delay"', "label"),
        ("test_from = 2013-11-01", "test_from = 2013-09-01", "test_from"),
        ("departure_risk_xgboost", "departure_risk_lightgbm", "departure_risk_lightgbm"),
        ("[[model]]", "[model]", "model"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    text = EXAMPLE.read_text("utf-8")
    assert old in text
    error = refusal(
        tmp_path, text.replace(old, new) if old != "[[model]]" else text.split("[[model]]")[0] + "[model]\n"
    )
    assert named in error.message
    assert error.hint
    assert EXIT_CODES[error.code] == 3


def test_a_folder_without_settings_is_not_a_project(tmp_path: Path) -> None:
    with pytest.raises(ControlError) as caught:
        load_training(tmp_path)
    assert caught.value.code == "not_a_project"
    assert EXIT_CODES[caught.value.code] == 4


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    assert "headrace.toml" in refusal(tmp_path, "[project\n").message
