"""What an older headrace wrote is read, and answers as it did; what today's writes is still what is kept."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
VERSIONS = sorted(folder.name for folder in (HERE / "kept").iterdir())


@pytest.fixture(scope="module")
def formats() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compat_formats", HERE / "formats.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(version: str) -> Any:
    return json.loads((HERE / "kept" / version / "expected.json").read_text("utf-8"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_project_of_an_older_headrace_answers_as_it_did(formats: ModuleType, tmp_path: Path, version: str) -> None:
    root = shutil.copytree(HERE / "kept" / version / "project", tmp_path / "project")
    assert formats.read(root) == expected(version)
    assert formats.read(root) == expected(version), "what reading it made anew, a snapshot above all, reads the same"


def test_todays_headrace_writes_what_the_newest_kept_project_holds(formats: ModuleType, tmp_path: Path) -> None:
    """Where this fails a format has changed: give it a new number, and keep a project of the new version."""
    root = tmp_path / "project"
    formats.write(root)
    with formats.FeatureStore(root, clock=lambda: formats.micros(formats.NOW)) as store:
        formats.write_more(store)
    assert formats.read(root) == expected(VERSIONS[-1])
    kept = HERE / "kept" / VERSIONS[-1] / "project"
    for pattern in ("plans/*.json", "models/*/*/*"):
        files = sorted((kept / ".headrace").glob(pattern))
        assert files
        for path in files:
            assert (root / path.relative_to(kept)).read_bytes() == path.read_bytes(), path.name


def test_what_is_damaged_in_a_kept_project_is_named(formats: ModuleType, tmp_path: Path) -> None:
    """The files of the fixture are really read: each one, broken, is found out."""
    kept = HERE / "kept" / VERSIONS[-1] / "project"
    for number, pattern in enumerate(("plans/sha256-*.json", "models/*/1/model.json", "online/snapshot/*/1-0.table")):
        root = shutil.copytree(kept, tmp_path / str(number))
        (path,) = (root / ".headrace").glob(pattern)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(formats.headrace.HeadraceError) as raised:
            formats.read(root)
        assert raised.value.code in ("corrupt_store", "corrupt_model"), raised.value
