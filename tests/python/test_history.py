"""Pushed rows kept for training: compaction, retention, reading them as they were, and whatever may end a process."""

from __future__ import annotations

import datetime as dt
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError
from headrace.history import HistoryFile, history_files
from headrace.push_files import PushWriter

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
DEFINITIONS = """
from headrace import *
from datetime import timedelta

item = Entity("item", join_keys=[Field("id", Int64)])
pushed = FeatureView(
    "pushed", [item], [Field("x", Float64)], PushSource(event_ts="at", created_ts="made"), ttl=timedelta(days=2)
)
table = FeatureView("table", [item], [Field("y", Int64)], FileSource("table", event_ts="at", format="delta"))
plain = FeatureView("plain", [item], [Field("z", Int64)], FileSource("plain.csv"))
values = FeatureService("values", [pushed])
tables = FeatureService("tables", [table])
both = FeatureService("both", [pushed, plain])
"""


@pytest.fixture
def now() -> list[dt.datetime]:
    return [START]


@pytest.fixture
def store(make_project: Callable[..., Path], now: list[dt.datetime]) -> Iterator[FeatureStore]:
    root = make_project(DEFINITIONS, "[history]\nretention_days = 10\n")
    with FeatureStore(root, clock=lambda: int(now[0].timestamp() * 1_000_000)) as opened:
        opened.apply()
        yield opened


def push_days(store: FeatureStore, now: list[dt.datetime], days: range) -> None:
    """One push a day of keys 1 and 2."""
    for day in days:
        now[0] = START + day * DAY
        store.push("pushed", {"id": [1, 2], "at": [now[0]] * 2, "x": [float(day), -float(day)]})


def joined(store: FeatureStore, days: range, **options: Any) -> list[Any]:
    asked = {"id": [1] * len(days), "event_timestamp": [START + day * DAY for day in days]}
    found: list[Any] = store.get_historical_features("values", asked, **options)["x"].to_pylist()
    return found


def folder(store: FeatureStore) -> Path:
    return store.config.state / "history" / "pushed"


def test_compaction_changes_no_answer(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(8))
    store.delete("pushed", {"id": [1]}, START + 7 * DAY)
    before = joined(store, range(9))
    done = store.compact()["pushed"]
    assert (done.files_before, done.files_after, done.rows_removed) == (1, 1, 0)
    assert [path.suffix for path in folder(store).iterdir()] == [".parquet"]
    assert joined(store, range(9)) == before
    for days in (range(8, 9), range(9, 10)):
        push_days(store, now, days)
        store.close()
    assert joined(store, range(10))[8:] == [8.0, 9.0]
    done = store.compact()["pushed"]
    assert (done.files_before, done.files_after) == (2, 1)
    assert joined(store, range(10))[8:] == [8.0, 9.0]


def test_compaction_of_an_older_definition(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(2))
    definitions = store.config.features / "all.py"
    definitions.write_text(
        definitions.read_text().replace('Field("x", Float64)', 'Field("x", Float64), Field("w", Bool)')
    )
    store.apply()
    now[0] = START + 2 * DAY
    store.push("pushed", {"id": [1], "at": [now[0]], "x": [2.0], "w": [True]})
    before = joined(store, range(3))
    store.compact()
    assert joined(store, range(3)) == before == [0.0, 1.0, 2.0]


def test_retention_removes_old_events_and_keeps_the_online_row(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(15))
    assert store.compact()["pushed"].rows_removed == 2 * 4
    assert joined(store, range(15)) == [None] * 4 + [float(day) for day in range(4, 15)]
    now[0] = START + 40 * DAY
    store.compact()
    assert joined(store, range(15)) == [None] * 15
    assert len(store.open_online().local) == 2


def test_retention_keeps_what_a_dataset_was_made_of(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(8))
    asked = {"id": [1, 1], "event_timestamp": [START + 5 * DAY, START + 6 * DAY]}
    dataset = store.create_dataset("week", "values", asked)
    push_days(store, now, range(8, 30))
    for _ in range(2):
        store.compact()
    found = joined(store, range(30))
    assert found[3:8] == [3.0, 4.0, 5.0, 6.0, 7.0], "from two days before its first row on: the view's ttl"
    assert found[:3] == [None] * 3
    assert found[10:19] == [None] * 9, "pushed after the dataset was made"
    position = dataset.manifest["lineage"]["views"]["pushed"]["before_part"]
    again = store.create_dataset("week", "values", asked, as_of={"pushed": position})
    assert again.to_arrow() == dataset.to_arrow()


def test_history_is_read_as_it_was(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(3))
    now[0] = START + 5 * DAY
    store.push("pushed", {"id": [1], "at": [START + DAY], "x": [100.0]})  # a correction
    assert joined(store, range(3)) == [0.0, 100.0, 2.0]
    for _ in range(2):
        assert joined(store, range(3), as_of=START + 2 * DAY) == [0.0, 1.0, 2.0]
        assert joined(store, range(3), as_of=START + DAY) == [0.0, 1.0, 1.0]
        assert joined(store, range(3), as_of=0) == [None] * 3
        store.compact()
    with pytest.raises(HeadraceError, match="as_of"):
        joined(store, range(1), as_of="yesterday")


def test_files_without_a_past_are_refused(store: FeatureStore) -> None:
    (store.config.root / "plain.csv").write_text("id,z\n1,7\n")
    asked = {"id": [1], "event_timestamp": [START]}
    with pytest.raises(HeadraceError, match=r"'plain' keep no past"):
        store.get_historical_features("both", asked, as_of=START)
    found = store.get_historical_features("both", asked, as_of={"pushed": START})
    assert found["z"].to_pylist() == [7]


def test_a_removed_online_folder_overwrites_no_history(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(3))
    store.close()
    shutil.rmtree(store.config.state / "online")
    push_days(store, now, range(3, 6))
    assert joined(store, range(6)) == [float(day) for day in range(6)]


def test_a_push_that_failed_leaves_nothing_for_training(
    store: FeatureStore, now: list[dt.datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    push_days(store, now, range(2))
    online = store.open_online(writable=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(online, "write", fail)
        with pytest.raises(OSError, match="no room"):
            store.push("pushed", {"id": [1], "at": [START + 2 * DAY], "x": [99.0]})
    push_days(store, now, range(2, 4))
    assert joined(store, range(4)) == [0.0, 1.0, 2.0, 3.0]


def test_a_reader_beside_a_compaction_has_all_rows(
    store: FeatureStore, now: list[dt.datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    push_days(store, now, range(4))
    before = joined(store, range(4))
    find = HistoryFile.of
    compacted: list[Path] = []

    def compact_first(path: Path) -> HistoryFile | None:
        if not compacted:
            compacted.append(path)
            store.compact()
        return find(path)

    monkeypatch.setattr(HistoryFile, "of", compact_first)
    assert joined(FeatureStore(store.config.root), range(4)) == before
    assert compacted


def test_fields_that_are_marked_as_never_null_change_nothing(store: FeatureStore, now: list[dt.datetime]) -> None:
    """A frame's own marks are not the view's: all pushes lie in one file and are described together."""
    at = pa.array([START], pa.timestamp("us", "UTC"))
    for mark in (True, False, False, True):
        fields = [pa.field("id", pa.int64(), mark), pa.field("at", at.type, mark), pa.field("x", pa.float64(), mark)]
        store.push("pushed", pa.table([pa.array([1]), at, pa.array([1.0])], schema=pa.schema(fields)))
    assert len(history_files(folder(store))) == 1
    assert store.describe("pushed")["rows"] == 4


def test_a_forked_child_compacts_nothing(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(2))
    child = os.fork()
    if child == 0:
        try:
            store.compact()
        except HeadraceError as error:
            os._exit(3 if error.code == "used_after_fork" else 4)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    push_days(store, now, range(2, 4))
    assert joined(store, range(4)) == [0.0, 1.0, 2.0, 3.0]


def test_a_history_that_cannot_be_settled_keeps_the_store_from_writing(
    store: FeatureStore, now: list[dt.datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    push_days(store, now, range(1))
    monkeypatch.setattr(PushWriter, "count", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # as if it ended between the log and the history
        push_days(store, now, range(1, 2))
    monkeypatch.undo()
    copy = store.config.root.with_name("copy")
    shutil.copytree(store.config.root, copy)
    again = FeatureStore(copy, clock=lambda: int(now[0].timestamp() * 1_000_000))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patched:
        patched.setattr("headrace.history.settle_pushes", full)
        with pytest.raises(HeadraceError, match="cannot be opened for writing") as error:
            again.push("pushed", {"id": [1], "at": [now[0]], "x": [9.0]})
        assert error.value.code == "io"
    push_days(again, now, range(2, 3))
    assert joined(again, range(3)) == [0.0, 1.0, 2.0]
    again.close()


COMPACT = """
import sys
import headrace
import pyarrow as pa

store = headrace.FeatureStore(sys.argv[1])
print("ready", flush=True)
while True:
    store.compact()
    now = pa.array([store.now_us()], pa.timestamp("us", "UTC"))
    store.push("pushed", {"id": [3], "at": now, "x": [0.5]})
"""


@pytest.mark.slow
def test_killed_while_compacting(store: FeatureStore, now: list[dt.datetime]) -> None:
    push_days(store, now, range(8))
    before = joined(store, range(8))
    store.close()
    chance = random.Random(1)
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", COMPACT, str(store.config.root)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline()
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        reader = FeatureStore(store.config.root)
        assert joined(reader, range(8)) == before
        accepted = reader.open_online().next_sequence
        reader.open_online(writable=True)
        rows = sum(file.count_rows() for file in history_files(folder(store)))
        assert rows == accepted, "each acknowledged row once"
        reader.close()


FULL = """
import resource, sys
import headrace
import pyarrow as pa

store = headrace.FeatureStore(sys.argv[1])
store.open_online(writable=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
done = 0
try:
    while True:
        at = pa.array([done] * 500, pa.timestamp("us", "UTC"))
        store.push("pushed", {"id": list(range(500)), "at": at, "x": [float(n * 7919 % 997) for n in range(500)]})
        done += 1
except headrace.HeadraceError as error:
    print(done, error.code, flush=True)
import os
os._exit(0)
"""


def test_a_full_disk_is_a_clear_error_and_the_store_stays_readable(store: FeatureStore) -> None:
    """A limit on the size of files stands for the disk."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(store.config.root)], capture_output=True, text=True, check=True
    )
    pushes, code = done.stdout.split()
    assert code == "io"
    assert int(pushes) > 0
    reader = FeatureStore(store.config.root)
    assert reader.open_online().next_sequence >= int(pushes) * 500
    reader.push("pushed", {"id": [1], "at": [START], "x": [1.0]})
    assert joined(reader, range(1)) == [1.0]
    reader.close()


def write_delta(store: FeatureStore, value: int, mode: str) -> None:
    table = pa.table({"id": [1], "at": pa.array([START], pa.timestamp("us", "UTC")), "y": [value]})
    deltalake.write_deltalake(str(store.config.root / "table"), table, mode=mode)  # type: ignore[call-overload]


def test_a_delta_table_is_read_as_it_is_and_as_it_was(store: FeatureStore, now: list[dt.datetime]) -> None:
    asked = {"id": [1], "event_timestamp": [START]}

    def found(**options: Any) -> Any:
        return store.get_historical_features("tables", asked, **options)["y"].to_pylist()

    write_delta(store, 1, "append")
    between = dt.datetime.now(dt.UTC)
    write_delta(store, 2, "append")
    write_delta(store, 3, "overwrite")
    assert found() == [3]
    assert [found(as_of=version) for version in range(3)] == [[1], [2], [3]], "a later append wins a tie"
    assert found(as_of=between) == found(as_of={"table": between.isoformat()}) == [1]
    for wrong in (9, START):
        with pytest.raises(HeadraceError) as raised:
            found(as_of=wrong)
        assert raised.value.code == "not_found"
    now[0] = START + DAY
    assert store.materialize(views=["table"])["table"].inserted == 1
    assert store.get_online_features("tables", {"id": [1]})["features"]["y"] == [3]
    definitions = store.config.features / "all.py"
    definitions.write_text(definitions.read_text().replace('format="delta"', 'format="delta", as_of=0'))
    store.apply()
    assert found() == [1]


def test_a_folder_that_is_no_delta_table_is_named(store: FeatureStore) -> None:
    with pytest.raises(HeadraceError, match="is not a Delta table") as raised:
        store.materialize(views=["table"])
    assert raised.value.code == "not_found"


def test_a_dataset_of_a_delta_table_names_its_version(store: FeatureStore) -> None:
    write_delta(store, 1, "append")
    asked = {"id": [1], "event_timestamp": [START]}
    first = store.create_dataset("d", "tables", asked)
    write_delta(store, 2, "overwrite")
    second = store.create_dataset("d", "tables", asked)
    assert [one.manifest["lineage"]["views"]["table"]["version"] for one in (first, second)] == [0, 1]
    assert store.create_dataset("d", "tables", asked, as_of={"table": 0}).version == first.version
