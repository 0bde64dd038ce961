"""The README's example is run as it is printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_embedded_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = README.read_text(encoding="utf-8")
    definitions, program = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
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
    names["store"].close()
