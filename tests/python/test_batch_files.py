"""Large batches of the log: each in a file that is there as long as the log refers to it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError, online_log
from headrace.batch_files import BYTES_MIN, BatchFiles
from headrace.online_log import OnlineLog

DEFINITIONS = """
from headrace import *

item = Entity("item", join_keys=[Field("id", Int64)])
wide = FeatureView("wide", [item], [Field(f"x{n}", Float64) for n in range(20)], PushSource(event_ts="at"))
values = FeatureService("values", [wide])
"""
ROWS = 10_000
AT = pa.scalar(1_000_000, pa.timestamp("us", "UTC"))


@pytest.fixture
def store(make_project: Callable[..., Path]) -> Iterator[FeatureStore]:
    with FeatureStore(make_project(DEFINITIONS), clock=lambda: 2_000_000) as opened:
        opened.apply()
        yield opened


def push(store: FeatureStore, value: float, rows: int = ROWS) -> None:
    columns: dict[str, Any] = {"id": np.arange(rows), "at": pa.repeat(AT, rows)}
    store.push("wide", pa.table(columns | {f"x{n}": np.full(rows, value + n) for n in range(20)}))


def files(store: FeatureStore) -> list[int]:
    return sorted(int(path.name) for path in (store.config.state / "online/batches").glob("*"))


def value(store: FeatureStore, key: int = ROWS - 1) -> Any:
    return store.get_online_features("values", {"id": [key]})["features"]["x0"][0]


def killed(store: FeatureStore) -> FeatureStore:
    """The store as it is found after its process was killed."""
    target = store.config.root.parent / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(store.config.root, target)
    return FeatureStore(target, clock=lambda: 2_000_000)


def test_a_large_batch_is_read_from_its_file(store: FeatureStore) -> None:
    push(store, 1.0)
    push(store, 2.0, 10)
    push(store, 3.0)
    assert files(store) == [0, ROWS + 10]
    assert value(FeatureStore(store.config.root)) == 3.0, "another reader"
    with killed(store) as again:
        again.open_online(writable=True)
        assert (again.open_online().next_sequence, value(again)) == (2 * ROWS + 10, 3.0)
    store.open_online().snapshot()
    assert files(store) == []
    assert value(FeatureStore(store.config.root)) == 3.0


def test_a_file_that_the_log_does_not_refer_to_goes_at_the_start(store: FeatureStore) -> None:
    push(store, 1.0)
    BatchFiles(store.config.state / "online/batches").write(ROWS, bytes(BYTES_MIN))
    assert files(store) == [0, ROWS]
    with killed(store) as again:
        again.open_online(writable=True)
        assert (files(again), value(again)) == ([0], 1.0)
        push(again, 2.0)
        assert (files(again), value(again)) == ([0, ROWS], 2.0)


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_file_is_said(store: FeatureStore, damage: str) -> None:
    push(store, 1.0)
    with killed(store) as again:
        path = again.config.state / "online/batches" / f"{0:020}"
        data = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
        for writable in (False, True):
            with pytest.raises(HeadraceError, match="cannot be read") as error:
                again.open_online(writable=writable)
            assert error.value.code == "corrupt_store"


def test_a_full_disk_is_said_and_outlived(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    push(store, 1.0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patched:
        patched.setattr("headrace.batch_files.os.fdatasync", full)
        with pytest.raises(HeadraceError, match="no room") as error:
            push(store, 2.0)
        assert error.value.code == "io"
    assert (files(store), value(store)) == ([0], 1.0)
    push(store, 3.0)
    assert value(store) == 3.0
    with killed(store) as again:
        assert value(again) == 3.0


def test_what_cannot_be_applied_is_taken_back(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    push(store, 1.0)
    online = store.open_online()
    apply = type(online.local).apply
    faults = [HeadraceError("store_full", "no room in the table", "allow more memory")]

    class Failing:
        """The table, whose first batch finds no room."""

        def __init__(self, local: Any) -> None:
            self._local = local

        def __getattr__(self, name: str) -> Any:
            return getattr(self._local, name)

        def apply(self, batch: bytes) -> Any:
            if faults:
                raise faults.pop()
            return apply(self._local, batch)

    monkeypatch.setattr(online, "local", Failing(online.local))
    with pytest.raises(HeadraceError, match="no room in the table"):
        push(store, 2.0)
    assert (files(store), value(store)) == ([0], 1.0)


def test_small_and_large_batches_come_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online_log, "BYTES_MIN", 100)
    log = OnlineLog(tmp_path / "log", writable=True)
    batches = [bytes([n]) * (n * 17 % 230) for n in range(40)]
    for sequence, batch in enumerate(batches):
        log.append(sequence, batch, {"next_sequence": sequence + 1})
    log.retract(39, {"next_sequence": 39})
    log.close()
    log = OnlineLog(tmp_path / "log", writable=True)
    assert list(log.entries(5)) == list(enumerate(batches))[5:39]
    log.forget_before(20, {"snapshot_sequence": 20})
    assert list(log.entries(0)) == list(enumerate(batches))[20:39]
    assert len(list((tmp_path / "batches").iterdir())) == sum(len(batch) >= 100 for batch in batches[20:39])
    log.close()
