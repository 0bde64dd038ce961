"""Rules of the Python packages that no lint checks: who may import what, and what each command's help must show."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA_PLANE = ROOT / "pyplatform/headrace"
CONTROL_PLANE = ROOT / "control/headrace_control"

# Loading one of these formats can run code that the file brings along.
CODE_CARRIERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(paths: list[Path], wanted: re.Pattern[str]) -> list[str]:
    return [f"{path.relative_to(ROOT)}: {name}" for path in paths for name in imports(path) if wanted.fullmatch(name)]


def test_nothing_loads_pickles() -> None:
    pattern = re.compile(rf"({'|'.join(sorted(CODE_CARRIERS))})(\..*)?")
    assert importers(sources(DATA_PLANE, CONTROL_PLANE), pattern) == []
    allowing = [
        str(path.relative_to(ROOT))
        for path in sources(DATA_PLANE, CONTROL_PLANE)
        if re.search(r"allow_pickle\s*=\s*True|torch\.load\(", path.read_text(encoding="utf-8"))
    ]
    assert allowing == []


def test_data_plane_does_not_know_the_control_plane() -> None:
    assert importers(sources(DATA_PLANE), re.compile(r"headrace_control(\..*)?")) == []


def test_native_module_is_private_to_the_data_plane() -> None:
    reporters = {CONTROL_PLANE / "cli/version.py", CONTROL_PLANE / "cli/doctor.py"}  # they report on the module itself
    others = [path for path in sources(CONTROL_PLANE) if path not in reporters]
    assert importers(others, re.compile(r"headrace\._native(\..*)?")) == []


def test_importing_headrace_stays_light() -> None:
    """A serving process starts fast and small: frames, models and plots are imported by those who use them."""
    heavy = ["pandas", "pyarrow", "polars", "numba", "matplotlib", "sklearn", "xgboost", "lightgbm", "headrace_control"]
    program = f"import sys, headrace; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT / "tests"
    )
    assert done.stdout.strip() == "[]"


def test_both_packages_are_typed() -> None:
    assert (DATA_PLANE / "py.typed").exists()
    assert (CONTROL_PLANE / "py.typed").exists()


def command_names() -> list[str]:
    from headrace_control.cli import COMMANDS

    return list(COMMANDS)


@pytest.mark.parametrize("name", command_names())
def test_each_command_shows_an_example_and_offers_json(name: str) -> None:
    from click.testing import CliRunner

    from headrace_control.cli import main

    result = CliRunner().invoke(main, [name, "--help"], prog_name="headrace")
    assert result.exit_code == 0, result.output
    assert "--json" in result.output
    assert re.search(rf"^\s+headrace {name}\b", result.output, flags=re.MULTILINE), "show at least one call"
