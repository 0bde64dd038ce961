"""Backups while a writer goes on, restoring them elsewhere, and removing all."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError, RefusedRowsWarning
from headrace.backup import read_backup, restore_backup, teardown
from headrace.history import history_files
from headrace.online_log import OnlineLog
from headrace.online_store import FORMAT

NOON = dt.datetime(2013, 6, 1, 12, tzinfo=dt.UTC)
DEFINITIONS = """
from headrace import *

item = Entity("item", join_keys=[Field("id", Int64)])
pushed = FeatureView("pushed", [item], [Field("version", Int64)], PushSource(event_ts="at"))
values = FeatureService("values", [pushed])
"""
PUSH = """
import sys
import headrace
import pyarrow as pa

store = headrace.FeatureStore(sys.argv[1])
version = 0
while True:
    version += 1
    at = pa.array([version] * 10, pa.timestamp("us", "UTC"))
    store.push("pushed", {"id": list(range(10)), "at": at, "version": [version] * 10})
    print(version, flush=True)
"""


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Path:
    root = make_project(DEFINITIONS, "[online]\nsnapshot_log_bytes = 20000\n")
    FeatureStore(root).apply()
    return root


def push(root: Path, version: int) -> None:
    with FeatureStore(root) as store:
        at = pa.array([version] * 10, pa.timestamp("us", "UTC"))
        store.push("pushed", {"id": list(range(10)), "at": at, "version": [version] * 10})


def versions(root: Path) -> list[int | None]:
    found: list[int | None] = FeatureStore(root).get_online_features("values", {"id": list(range(10))})["features"][
        "version"
    ]
    return found


def test_a_backup_is_the_store_at_one_moment(project: Path, tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", PUSH, str(project)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        for number in range(4):
            acknowledged = int(writer.stdout.readline())
            made = FeatureStore(project).backup(tmp_path / f"backup{number}")
            assert made["online_rows"] >= acknowledged * 10
            target = tmp_path / f"elsewhere{number}"
            restore_backup(tmp_path / f"backup{number}", target)
            version = made["online_rows"] // 10
            assert versions(target) == [version] * 10
            joined = FeatureStore(target).get_historical_features(
                "values", {"id": [3], "event_timestamp": pa.array([version], pa.timestamp("us", "UTC"))}
            )
            assert joined["version"].to_pylist() == [version]
            files = history_files(target / ".headrace/history/pushed")
            assert sum(file.count_rows() for file in files) == made["online_rows"]
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()


def test_a_restored_store_is_written_on(project: Path, tmp_path: Path) -> None:
    push(project, 1)
    with FeatureStore(project) as store:
        asked = {"id": [1], "event_timestamp": [NOON]}
        dataset = store.create_dataset("d", "values", asked)
        store.backup(tmp_path / "backup")
    target = tmp_path / "elsewhere"
    restore_backup(tmp_path / "backup", target)
    push(target, 2)
    assert versions(target) == [2] * 10
    restored = FeatureStore(target)
    assert restored.dataset("d").path.read_bytes() == dataset.path.read_bytes()
    assert restored.plan().added == ()
    times = pa.array([1, 2], pa.timestamp("us", "UTC"))
    joined = restored.get_historical_features("values", {"id": [1, 1], "event_timestamp": times})
    assert joined["version"].to_pylist() == [1, 2]


def test_replacing_a_state_keeps_it_aside_and_names_erasures(project: Path, tmp_path: Path) -> None:
    push(project, 1)
    with FeatureStore(project) as store:
        store.backup(tmp_path / "backup")
        receipt = store.erase("item", {"id": [3]})
        with pytest.raises(HeadraceError, match="holds a store already"):
            restore_backup(tmp_path / "backup", project)
        with pytest.raises(HeadraceError) as raised:
            restore_backup(tmp_path / "backup", project, replace=True)
        assert raised.value.code == "store_locked"
    found = restore_backup(tmp_path / "backup", project, replace=True)
    assert found["erasures_after"] == [receipt["id"]]
    assert versions(project) == [1] * 10
    assert (project / ".headrace.before-restore/plans/HEAD").exists()


def test_erased_keys_stay_blocked_in_a_restored_store(project: Path, tmp_path: Path) -> None:
    push(project, 1)
    with FeatureStore(project) as store:
        store.erase("item", {"id": [3]})
        store.backup(tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "elsewhere")
    with pytest.warns(RefusedRowsWarning, match="1 erased"):
        push(tmp_path / "elsewhere", 2)
    assert versions(tmp_path / "elsewhere")[2:5] == [2, None, 2]


def test_a_damaged_backup_is_named_and_changes_nothing(project: Path, tmp_path: Path) -> None:
    push(project, 1)
    FeatureStore(project).backup(tmp_path / "backup")
    files = sorted(read_backup(tmp_path / "backup")["files"])
    assert any(".table" in name for name in files) and any("history" in name for name in files)
    for number, name in enumerate(files):
        broken = shutil.copytree(tmp_path / "backup", tmp_path / f"broken{number}")
        if (broken / name).stat().st_size:
            data = (tmp_path / "backup" / name).read_bytes()
            (broken / name).write_bytes(bytes([data[0] ^ 1]) + data[1:])
        else:
            (broken / name).unlink()
        with pytest.raises(HeadraceError) as raised:
            restore_backup(broken, tmp_path / "elsewhere")
        assert raised.value.code == "corrupt_store"
        assert name in str(raised.value)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(HeadraceError, match="there is no backup"):
        restore_backup(tmp_path, tmp_path / "elsewhere")
    with pytest.raises(HeadraceError, match="is not empty"):
        FeatureStore(project).backup(tmp_path / "backup")


def test_teardown_removes_what_headrace_keeps_and_nothing_else(project: Path) -> None:
    push(project, 1)
    with FeatureStore(project) as store:
        store.open_online(writable=True)
        with pytest.raises(HeadraceError) as raised:
            teardown(store.config)
        assert raised.value.code == "store_locked"
    removed = teardown(store.config, keep=("history",))
    assert {"online", "plans"} <= removed.keys()
    assert sorted(path.name for path in (project / ".headrace").iterdir()) == ["history"]
    teardown(store.config)
    assert not (project / ".headrace").exists()
    assert sorted(path.name for path in project.iterdir()) == ["features", "headrace.toml"]
    assert teardown(store.config) == {}


def test_a_newer_online_format_is_refused_by_name(project: Path) -> None:
    push(project, 1)
    log = OnlineLog(project / ".headrace/online/log", writable=True)
    log.put_meta({"format": FORMAT + 1})
    log.close()
    for writable in (False, True):
        with pytest.raises(HeadraceError) as raised:
            FeatureStore(project).open_online(writable=writable)
        assert raised.value.code == "newer_format"


def test_an_older_store_is_read_and_becomes_the_new_format(repository_root: Path, tmp_path: Path) -> None:
    kept = repository_root / "tests/compat/kept/0.1.0/project"
    root = shutil.copytree(kept, tmp_path / "project")
    log = OnlineLog(root / ".headrace/online/log", writable=False)
    assert log.meta("format") is None
    log.close()
    with FeatureStore(root) as store:
        before = store.open_online().next_sequence
        files = len(history_files(root / ".headrace/history/gate"))
        assert files == 3
        store.compact()
        assert store.open_online().next_sequence == before
        assert len(history_files(root / ".headrace/history/gate")) == 1
        store.erase("flight", {"carrier": ["UA"], "number": [1]})
    log = OnlineLog(root / ".headrace/online/log", writable=False)
    assert log.meta("format") == FORMAT
    log.close()
    keys: dict[str, list[Any]] = {"carrier": ["UA", "DL"], "number": [1, -3], "origin": ["JFK", "JFK"]}
    with FeatureStore(root) as store:
        found = store.get_online_features("everything", keys)["features"]["big"]
        assert found[0] is None
        assert found[1] is not None
