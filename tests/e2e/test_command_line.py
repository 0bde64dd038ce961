"""The `headrace` command: help, JSON, exit codes, and one block for each refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from headrace_control.cli import COMMANDS

Command = Callable[..., Any]


def test_help_names_every_command_without_loading_them(headrace: Command) -> None:
    done = headrace("--help")
    assert done.status == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_list_says_what_the_command_says(name: str) -> None:
    module, line = COMMANDS[name]
    command = import_module(module).command
    assert command.name == name
    assert line.endswith(".")
    assert command.help


def test_an_unknown_command_or_option_is_a_usage_error(headrace: Command) -> None:
    for args in (("fly",), ("plan", "--fast"), ("predict",), ("materialize", "--end", "tomorrow")):
        done = headrace(*args)
        assert done.status == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert "what to do: " in done.stderr


def test_with_json_an_error_is_one_object_on_stdout(headrace: Command, tmp_path: Path) -> None:
    done = headrace("plan", "--project", tmp_path, "--json")
    assert done.status == 4
    assert done.error["code"] == "not_a_project"
    assert str(tmp_path) in done.error["message"]
    assert done.error["hint"]
    assert done.stderr == ""


def test_version_and_doctor_answer_without_a_project(headrace: Command, tmp_path: Path) -> None:
    version = headrace("version", "--json", cwd=tmp_path)
    assert version.json["source_digest"].startswith("sha256:")
    doctor = headrace("doctor", "--json", cwd=tmp_path)
    assert doctor.status == 0, doctor.stdout
    assert {"python", "engine", "rocksdict"} <= {finding["what"] for finding in doctor.json["findings"]}
    assert "ok" in headrace("doctor", cwd=tmp_path).stdout


def test_doctor_finds_wrong_definitions(headrace: Command, project: Path) -> None:
    (project / "features" / "flights.py").write_text("weather = FeatureView()\n", "utf-8")
    done = headrace("doctor", "--project", project, "--json")
    assert done.status == 4
    (failed,) = [finding for finding in done.json["findings"] if finding["status"] == "fail"]
    assert failed["what"] == "definitions"
    assert "flights.py:1" in failed["found"]


def test_init_makes_the_example_and_refuses_a_folder_in_use(headrace: Command, tmp_path: Path) -> None:
    done = headrace("init", tmp_path / "new", "--json")
    assert done.status == 0
    assert set(done.json["files"]) == {"headrace.toml", "prepare.py", "features/flights.py"}
    again = headrace("init", tmp_path / "new", "--json")
    assert again.status == 2
    assert again.error["code"] == "invalid_argument"


def test_plan_then_apply_then_no_changes(headrace: Command, project: Path) -> None:
    assert headrace("plan", "--project", project, "--check").status == 1
    planned = headrace("plan", "--project", project, "--json").json
    assert {change["name"] for change in planned["added"]} >= {"weather", "departure_risk", "departure"}
    assert not (project / ".headrace" / "plans").exists(), "plan writes nothing"
    applied = headrace("apply", "--project", project, "--json").json
    assert applied["digest"] == planned["digest"]
    assert (project / ".headrace" / "plans" / "HEAD").read_text("utf-8").strip() == planned["digest"]
    after = headrace("plan", "--project", project, "--check", "--json")
    assert after.status == 0
    assert after.json["changes"] is False


def test_commands_that_need_a_plan_say_so(headrace: Command, project: Path) -> None:
    for command in ("materialize", "train"):
        done = headrace(command, "--project", project, "--json")
        assert done.status == 4
        assert done.error["code"] == "not_applied"
        assert "headrace apply" in done.error["hint"]


def test_wrong_definitions_are_refused_with_file_and_line(headrace: Command, project: Path) -> None:
    path = project / "features" / "flights.py"
    path.write_text(path.read_text("utf-8").replace('weather[["wind_dir", "wind_speed"]]', 'weather[["wind_dirr"]]'))
    done = headrace("apply", "--project", project, "--json")
    assert done.status != 0
    assert done.error["code"] == "unknown_feature"
    assert "flights.py:" in done.error["message"]
    assert "wind_dir" in done.error["hint"]


def test_an_unknown_setting_is_named(headrace: Command, project: Path) -> None:
    with (project / "headrace.toml").open("a", encoding="utf-8") as file:
        file.write("\n[sever]\nhttp_port = 1\n")
    done = headrace("plan", "--project", project, "--json")
    assert done.status == 2
    assert "sever" in done.error["message"]


def test_a_wrong_training_table_is_refused(headrace: Command, project: Path) -> None:
    assert headrace("apply", "--project", project).status == 0
    path = project / "headrace.toml"
    path.write_text(path.read_text("utf-8").replace('library = "xgboost"', 'library = "torch"'), "utf-8")
    done = headrace("train", "--project", project, "--json")
    assert done.status == 3
    assert "torch" in done.error["message"]


def test_nothing_heavy_is_imported_to_show_help() -> None:
    heavy = ["pyarrow", "pandas", "rich", "headrace", "lightgbm", "xgboost", "matplotlib", "numpy"]
    program = (
        "import sys\nfrom headrace_control.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"import json\nprint('LOADED' + json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(done.stdout.split("LOADED")[1]) == []
