"""The README's examples are run as they are printed."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_embedded_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = README.read_text(encoding="utf-8")
    definitions, program, training, explanations = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert "`shop/features/customers.py`" in text
    assert len([line for line in program.splitlines() if line]) <= 10, "ten lines, as promised"

    (tmp_path / "shop/features").mkdir(parents=True)
    (tmp_path / "shop/headrace.toml").touch()
    (tmp_path / "shop/features/customers.py").write_text(definitions, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("program.py")

    printed = capsys.readouterr().out
    assert "'spent': [99.0, None]" in printed
    assert "'NOT_FOUND'" in printed
    assert f"'log_spent': [{np.log1p(99.0)}, None]" in printed
    np.testing.assert_array_equal(names["features"], np.array([[99.0], [np.nan]], np.float32))

    exec(training, names)
    printed = capsys.readouterr().out
    assert "'spent': 99.0" in printed
    assert "'spent__status': 'NOT_FOUND'" in printed
    exec(explanations, names)
    assert "sum to its margin: True" in capsys.readouterr().out
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", text, flags=re.MULTILINE))
    assert table == {"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"}
    names["store"].close()

    ask_over_http(tmp_path, text)


def ask_over_http(folder: Path, text: str) -> None:
    """Runs the README's server and its curl commands, at free ports."""
    (shell,) = [block for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL) if "curl" in block]
    start, *requests = shell.strip().splitlines()
    assert start == "headrace serve --project shop --writes &"
    command = [sys.executable, "-m", "headrace_control", "serve", "--project", "shop", "--writes", "--http", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found
            answers = [run(line.replace("http://127.0.0.1:8000", found[0])) for line in requests]
        finally:
            process.terminate()
    assert answers[0]["inserted"] == 1
    assert answers[1]["metadata"]["feature_names"] == ["customer_id", "spent", "log_spent"]
    assert answers[2]["code"] == "unknown_model", "the shop has no model; the address is right"


def run(command: str) -> dict[str, Any]:
    done = subprocess.run(shlex.split(command.replace("curl", "curl -sS")), capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
