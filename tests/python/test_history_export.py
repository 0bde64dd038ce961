"""Pushed rows in a Delta Lake table: each push once, whatever cuts an export off, and readable as a source."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError, history_export

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DEFINITIONS = """
from headrace import *

item = Entity("item", join_keys=[Field("id", UInt32)])
fields = [Field("x", Float32), Field("n", UInt64), Field("tags", List(UInt8)), Field("name", String)]
pushed = FeatureView("pushed", [item], fields, PushSource(event_ts="at", created_ts="made"))
static = FeatureView("static", [item], [Field("y", Int64)], PushSource())
lake = FeatureView(
    "lake", [item], [Field("x", Float32), Field("name", String)],
    FileSource("lake", event_ts="__event_ts", created_ts="__created_ts", format="delta"),
)
ours = FeatureService("ours", [pushed[["x", "name"]]])
theirs = FeatureService("theirs", [lake])
"""


@pytest.fixture
def store(make_project: Callable[..., Path]) -> Iterator[FeatureStore]:
    clock = lambda: START + 100 * HOUR  # noqa: E731
    with FeatureStore(make_project(DEFINITIONS), clock=clock) as opened:
        opened.apply()
        yield opened


def push(store: FeatureStore, hour: int, *ids: int) -> None:
    at = [START + hour * HOUR] * len(ids)
    values = {"x": [hour + one / 8 for one in ids], "n": [2**64 - 1] * len(ids), "tags": [[255, None]] * len(ids)}
    store.push("pushed", {"id": ids, "at": at, "name": [f"{hour}/{one}" for one in ids], **values})


def rows(target: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = deltalake.DeltaTable(target).to_pyarrow_table().sort_by("__part").to_pylist()
    return found


def test_each_push_is_appended_once(store: FeatureStore, tmp_path: Path) -> None:
    target = tmp_path / "lake"
    assert store.export_history("pushed", target).version is None, "nothing was pushed"
    push(store, 1, 1, 2)
    push(store, 2, 1)
    first = store.export_history("pushed", target)
    assert (first.rows, first.first_push, first.next_push, first.version) == (3, 0, 3, 0)
    assert store.export_history("pushed", target) == history_export.Exported(0, 3, 3, 0)
    push(store, 3, 7)
    store.compact()
    push(store, 4, 8)
    store.delete("pushed", {"id": [7]}, START + 5 * HOUR)
    second = store.export_history("pushed", target)
    assert (second.rows, second.version) == (3, 1)
    found = rows(target)
    assert [(row["id"], row["__deleted"]) for row in found[3:]] == [(7, False), (8, False), (7, True)]
    assert found[0]["n"] == 2**64 - 1
    assert found[0]["tags"] == [255, None]
    assert found[0]["__event_ts"] == START + HOUR
    assert deltalake.DeltaTable(target, version=0).to_pyarrow_table().num_rows == 3, "as it was"


def test_an_exported_table_is_a_source_of_the_same_features(store: FeatureStore) -> None:
    for hour in range(6):
        push(store, hour, hour % 3, 5)
        store.export_history("pushed", store.config.root / "lake")
    asked = pa.table(
        {"id": [0, 1, 2, 5, 5, 9], "event_timestamp": [START + hour * HOUR for hour in (0, 3, 9, 2, 4, 9)]}
    )
    ours, theirs = (store.get_historical_features(name, asked).to_pydict() for name in ("ours", "theirs"))
    assert ours == theirs
    assert ours["name"] == ["0/0", "1/1", "5/2", "2/5", "4/5", None]


def test_a_new_feature_becomes_a_column(store: FeatureStore, tmp_path: Path) -> None:
    push(store, 1, 1)
    store.export_history("pushed", tmp_path / "lake")
    definitions = store.config.features / "all.py"
    definitions.write_text(
        definitions.read_text().replace(
            'Field("x", Float32), Field("n"', 'Field("x", Float32), Field("w", Bool), Field("n"'
        )
    )
    store.apply()
    at = [START + 2 * HOUR]
    store.push("pushed", {"id": [1], "at": at, "x": [1.0], "w": [True], "n": [1], "tags": [None], "name": [None]})
    store.export_history("pushed", tmp_path / "lake")
    assert [row["w"] for row in rows(tmp_path / "lake")] == [None, True]


def test_two_exports_at_once_append_no_push_twice(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(store, 1, 1)
    store.export_history("pushed", tmp_path / "lake")
    push(store, 2, 2)
    write = deltalake.write_deltalake

    def late(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(deltalake, "write_deltalake", write)
        assert store.export_history("pushed", tmp_path / "lake").rows == 1
        write(*arguments, **options)

    monkeypatch.setattr(deltalake, "write_deltalake", late)
    with pytest.raises(HeadraceError, match="cannot be written") as error:
        store.export_history("pushed", tmp_path / "lake")
    assert error.value.code == "io"
    assert [row["id"] for row in rows(tmp_path / "lake")] == [1, 2]


def test_rows_without_a_time_and_views_of_files(store: FeatureStore, tmp_path: Path) -> None:
    store.push("static", {"id": [1], "y": [2]})
    assert store.export_history("static", tmp_path / "lake").rows == 1
    assert "__event_ts" not in rows(tmp_path / "lake")[0]
    with pytest.raises(HeadraceError, match="has no pushed rows"):
        store.export_history("lake", tmp_path / "lake")


def test_an_erasure_names_the_tables(store: FeatureStore, tmp_path: Path) -> None:
    push(store, 1, 1)
    store.export_history("pushed", tmp_path / "lake")
    backup = tmp_path / "backup"
    store.backup(backup)
    assert list(backup.glob("**/exports.json"))
    held = store.erase("item", {"id": [1]})["still_held"]
    assert [one["where"] for one in held if one["kind"] == "export"] == [str(tmp_path / "lake")]
