"""What is acknowledged is seen by every reader and kept for training; what is not leaves nothing behind."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import Engine, FeatureStore, HeadraceError, RefusedRowsWarning
from headrace.acknowledged import Acknowledged, AcknowledgedFile, read_acknowledged
from headrace.files import make_folder
from headrace.history import settle
from headrace.push_files import HEAD_BYTES, PushWriter, read_head, read_pushes

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
START_US = 1_356_998_400_000_000
HOUR = dt.timedelta(hours=1)

DEFINITIONS = """
from headrace import *

shop = Entity("shop", join_keys=[Field("id", Int64)])
sales = FeatureView("sales", [shop], [Field("sum", Float64)], PushSource(event_ts="at", created_ts="made"))
all_sales = FeatureService("all_sales", [sales])
"""

WRITER = """
import sys
import pyarrow as pa
from headrace import FeatureStore
from pathlib import Path

START_US = 1_356_998_400_000_000
root, told = Path(sys.argv[1]), Path(sys.argv[2])
with FeatureStore(root, clock=lambda: START_US) as store:
    for number in range(int(sys.argv[3])):
        time = pa.array([START_US] * 50).cast(pa.timestamp("us", "UTC"))
        ids = range(number * 7, number * 7 + 50)
        store.push("sales", {"id": ids, "at": time, "made": time, "sum": [1.0] * 50})
        told.with_suffix(".new").write_text(str(store.open_online().next_sequence))
        told.with_suffix(".new").replace(told)
"""


@pytest.fixture
def project(make_project: Callable[..., Path]) -> Callable[..., Path]:
    return lambda settings="": make_project(DEFINITIONS, f"[online]\n{settings}\n")


def opened(root: Path, now_us: int = START_US) -> FeatureStore:
    store = FeatureStore(root, clock=lambda: now_us)
    store.apply()
    return store


def rows(ids: list[int], value: float, at: dt.datetime = START, made: dt.datetime = START) -> dict[str, Any]:
    return {"id": ids, "at": [at] * len(ids), "made": [made] * len(ids), "sum": [value] * len(ids)}


def online(store: FeatureStore, key: int) -> float | None:
    found: float | None = store.get_online_features("all_sales", {"id": [key]})["features"]["sum"][0]
    return found


def offline(store: FeatureStore, key: int, at: dt.datetime = START + HOUR) -> float | None:
    joined = store.get_historical_features("all_sales", {"id": [key], "event_timestamp": [at]})
    found: float | None = joined.column("sum")[0].as_py()
    return found


def test_readers_beside_a_writer_see_all_that_is_acknowledged_and_never_fail(
    project: Callable[..., Path], tmp_path: Path
) -> None:
    """The writer makes a snapshot, and deletes log, every few writes: what a reader meets changes under its hands."""
    root = project("snapshot_log_bytes = 3000")
    opened(root).close()
    told = tmp_path / "told"
    told.write_text("0")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(root), str(told), "300"])
    following = FeatureStore(root, clock=lambda: START_US)
    looks = 0
    try:
        while writer.poll() is None:
            acknowledged = int(told.read_text())
            with FeatureStore(root, clock=lambda: START_US) as fresh:
                assert fresh.open_online().next_sequence >= acknowledged
            reader = following.open_online()
            reader.refresh()
            assert reader.next_sequence >= acknowledged
            looks += 1
    finally:
        writer.kill()
        writer.wait()
    assert writer.returncode == 0
    assert looks > 0
    assert int(told.read_text()) == 300 * 50
    following.open_online().refresh()
    assert following.open_online().next_sequence == 300 * 50
    following.close()


def test_what_the_writer_says_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    assert read_acknowledged(tmp_path) is None
    file = AcknowledgedFile(tmp_path, store=7)
    file.write(10, 5)
    assert read_acknowledged(tmp_path) == Acknowledged(store=7, next_sequence=10, snapshot_sequence=5, revision=1)
    path = tmp_path / "acknowledged"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_acknowledged(tmp_path) is None
        path.write_bytes(whole[:at])
        assert read_acknowledged(tmp_path) is None
    file.close()


def test_a_write_that_does_not_fit_leaves_nothing_behind(project: Callable[..., Path]) -> None:
    root = project("bytes_max = 1048576")
    store = opened(root)
    store.push("sales", rows([1], 1.0))
    with pytest.raises(HeadraceError) as raised:
        store.push("sales", rows(list(range(100_000)), 111.0))
    assert raised.value.code == "store_full"
    assert (online(store, 1), online(store, 5)) == (1.0, None)
    assert (offline(store, 1), offline(store, 5)) == (1.0, None)
    assert store.push("sales", rows([5], 222.0)).inserted == 1, "there is room for what fits"
    assert (online(store, 5), offline(store, 5)) == (222.0, 222.0)
    store.close()
    again = FeatureStore(root, clock=lambda: START_US)
    assert (online(again, 1), online(again, 5), online(again, 6)) == (1.0, 222.0, None)
    again.close()


def test_the_bound_of_the_store_holds_after_a_restart_too(project: Callable[..., Path]) -> None:
    root = project("bytes_max = 1048576")
    with opened(root) as store:
        store.push("sales", rows([1], 1.0))
    with opened(root) as store, pytest.raises(HeadraceError) as raised:
        store.push("sales", rows(list(range(100_000)), 2.0))
    assert raised.value.code == "store_full"


def test_history_holds_what_the_store_accepted_and_nothing_else(project: Callable[..., Path]) -> None:
    store = opened(project())
    with pytest.warns(RefusedRowsWarning):
        counts = store.push("sales", rows([1], 99.0, at=START + HOUR))
    assert counts.refused == {"future": 1}
    nulls = {"id": pa.array([None, 1]), "at": pa.array([START, None], pa.timestamp("us", "UTC"))}
    with pytest.warns(RefusedRowsWarning):
        counts = store.push("sales", {**nulls, "made": [START] * 2, "sum": [98.0] * 2})
    assert counts.refused == {"null_event_ts": 1, "null_key": 1}
    assert offline(store, 1, START + 2 * HOUR) is None
    store.push("sales", rows([1], 1.0))
    assert offline(store, 1, START + 2 * HOUR) == 1.0
    store.close()


def test_history_outlives_the_online_store(project: Callable[..., Path]) -> None:
    import shutil

    root = project()
    with opened(root) as store:
        store.push("sales", rows([1], 1.0))
        store.push("sales", rows([2], 2.0))
    shutil.rmtree(root / ".headrace/online")
    with opened(root) as store:
        store.push("sales", rows([3], 3.0))
        store.push("sales", rows([1], 4.0))
        assert [offline(store, key) for key in (1, 2, 3)] == [4.0, 2.0, 3.0], "of equal times the later write wins"


def test_rows_put_aside_count_once_the_log_has_them(project: Callable[..., Path]) -> None:
    """The process may end between the log and the history: the next writer finishes what was acknowledged."""
    root = project()
    with opened(root) as store:
        store.push("sales", rows([1], 1.0))
        store.push("sales", rows([2], 2.0))
    [path] = (root / ".headrace/history/sales").iterdir()
    head = read_head(path)
    rows_of_log = 2
    writer = PushWriter.open(path, sync=False)
    [(_, batch), *_] = read_pushes(path)
    writer.append(batch, rows_of_log, head.next_number, 0)
    writer.close()
    path.write_bytes(replace(head, end=head.begin, next_number=0).to_bytes() + path.read_bytes()[HEAD_BYTES:])
    with opened(root) as store:
        assert offline(store, 1) is None
        store.open_online(writable=True)
        assert (offline(store, 1), offline(store, 2)) == (1.0, 2.0)
    assert read_head(path) == head, "the log ends before the third push"
    assert path.stat().st_size == head.end
    settle(root / "nowhere", 0, sync=False)


def test_a_snapshot_that_fails_takes_nothing_back(project: Callable[..., Path]) -> None:
    root = project("snapshot_log_bytes = 1")
    with opened(root) as store:
        store.open_online(writable=True)
        snapshots = root / ".headrace/online/snapshot"
        snapshots.write_text("in the way")
        with pytest.warns(UserWarning, match="no snapshot"):
            assert store.push("sales", rows([1], 1.0)).inserted == 1
        assert online(store, 1) == 1.0
        with pytest.warns(UserWarning, match="no snapshot"):
            store.close()
    snapshots.unlink()
    with opened(root) as store:
        store.push("sales", rows([2], 2.0))
        assert (online(store, 1), online(store, 2)) == (1.0, 2.0)


def test_an_engine_over_a_store_sees_its_writes_at_once(
    weather_store: FeatureStore, make_model: Callable[..., Path]
) -> None:
    make_model("late/1", {"temp": 1.0})
    engine = Engine(weather_store, clock_us=weather_store.now_us())

    def margin() -> Any:
        request = {"planned": [START]}
        [found] = engine.predict("late", entities={"origin": ["JFK"]}, request=request, outputs=["margin"])[
            "predictions"
        ]
        return found.get("margin")

    weather_store.materialize()
    assert margin() == 4.0


def test_folders_are_made_down_from_the_first_that_is_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "a/b/c")
    make_folder(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
