"""Training sets that are larger than the memory that a join may hold."""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop import DEFINITIONS, NOW_US, entity_rows, push_rows, write_sources

from headrace import FeatureStore, HeadraceError, partitions

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
ROWS = 5_000
LITTLE = "2MB"


@pytest.fixture
def asked() -> pa.Table:
    """Entity rows whose join takes more than `LITTLE`."""
    minutes = [START + dt.timedelta(minutes=number % 300) for number in range(ROWS)]
    return pa.table(
        {
            "row": list(range(ROWS)),
            "origin": [("JFK", "EWR", None, "LGA")[number % 4] for number in range(ROWS)],
            "event_timestamp": pa.array(minutes, pa.timestamp("us", "UTC")),
            "planned": pa.array(minutes, pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many partitions each join was cut into."""
    seen: list[int] = []
    wanted = partitions.partitions_wanted

    def watched(*args: Any) -> int:
        seen.append(wanted(*args))
        return seen[-1]

    monkeypatch.setattr(partitions, "partitions_wanted", watched)
    return seen


def test_little_memory_gives_the_same_rows(weather_store: FeatureStore, asked: pa.Table, cuts: list[int]) -> None:
    at_once = weather_store.get_historical_features("risk", asked, statuses=True)
    in_parts = weather_store.get_historical_features("risk", asked, statuses=True, memory=LITTLE)
    assert cuts[0] == 1 < cuts[1]
    assert in_parts.schema.equals(at_once.schema, check_metadata=True), "the counts too"
    assert repr(in_parts.to_pylist()) == repr(at_once.to_pylist())
    assert not list(weather_store.config.spill.iterdir()), "the partitions are removed"


def test_the_setting_bounds_every_join(
    weather_project: Path, asked: pa.Table, cuts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_OFFLINE_MEMORY", LITTLE)
    with FeatureStore(weather_project) as store:
        store.apply()
        assert store.get_historical_features("risk", asked).num_rows == ROWS
    assert cuts[0] > 1


def test_files_in_and_out(weather_store: FeatureStore, asked: pa.Table, cuts: list[int], tmp_path: Path) -> None:
    pq.write_table(asked, tmp_path / "asked.parquet", row_group_size=700)
    entities = tmp_path / "asked.parquet"
    counts = weather_store.write_historical_features("risk", entities, tmp_path / "parts.parquet", memory=LITTLE)
    again = weather_store.write_historical_features("risk", asked, tmp_path / "once.parquet")
    assert cuts[0] > 1 == cuts[1]
    assert counts == again
    assert counts["rows"] == ROWS
    assert (tmp_path / "parts.parquet").read_bytes() == (tmp_path / "once.parquet").read_bytes()
    read = weather_store.get_historical_features("risk", entities)
    assert repr(pq.read_table(tmp_path / "once.parquet").to_pylist()) == repr(read.to_pylist())
    assert json.loads(pq.read_schema(tmp_path / "once.parquet").metadata[b"headrace.counts"]) == counts


def test_a_file_of_no_rows(weather_store: FeatureStore, asked: pa.Table, tmp_path: Path) -> None:
    pq.write_table(asked.slice(0, 0), tmp_path / "none.parquet")
    counts = weather_store.write_historical_features("risk", tmp_path / "none.parquet", tmp_path / "out.parquet")
    assert counts["rows"] == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names[-2:] == ["hour", "headwind"]


def test_a_full_disk_is_told_and_leaves_nothing(
    weather_store: FeatureStore, asked: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: partitions.PartitionFiles, number: int, rows: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(partitions.PartitionFiles, "write", full)
    with pytest.raises(HeadraceError, match=r"the disk of .* is full") as caught:
        weather_store.get_historical_features("risk", asked, memory=LITTLE)
    assert caught.value.code == "io"
    assert "offline.spill" in caught.value.hint
    assert not list(weather_store.config.spill.iterdir())


def test_a_source_that_fails_leaves_nothing(
    weather_store: FeatureStore, weather_project: Path, asked: pa.Table, tmp_path: Path
) -> None:
    (weather_project / "weather.parquet").write_bytes(b"no Parquet")
    with pytest.raises(HeadraceError) as caught:
        weather_store.write_historical_features("risk", asked, tmp_path / "out.parquet", memory=LITTLE)
    assert caught.value.code == "io"
    assert not list(weather_store.config.spill.glob("*"))
    assert not list(tmp_path.glob("*out.parquet*"))


def test_what_a_killed_process_left_is_removed(weather_store: FeatureStore, asked: pa.Table) -> None:
    gone = 2**22 + 1  # above every number of a process
    left = weather_store.config.spill / f"join-{socket.gethostname()}-{gone}-x"
    elsewhere = weather_store.config.spill / f"join-elsewhere-{gone}-x"
    left.mkdir(parents=True)
    elsewhere.mkdir()
    weather_store.get_historical_features("risk", asked, memory=LITTLE)
    assert list(weather_store.config.spill.iterdir()) == [elsewhere]


@pytest.mark.parametrize("given", ["much", "-1GB", "0", 0, -5, 1.5, True, "1 XB"])
def test_memory_that_is_none(weather_store: FeatureStore, asked: pa.Table, given: Any) -> None:
    with pytest.raises(HeadraceError, match="give an amount of memory") as caught:
        weather_store.get_historical_features("risk", asked, memory=given)
    assert caught.value.code == "invalid_argument"


def test_pushed_rows_and_aggregates(make_project: Callable[..., Path], asked: pa.Table, cuts: list[int]) -> None:
    root = make_project(
        """
from datetime import timedelta

from headrace import *

airport = Entity("airport", join_keys=[Field("origin", String)])
delays = FeatureView(
    "delays",
    [airport],
    [Field("minutes", Float64)],
    PushSource(event_ts="at"),
    aggregations=[
        Aggregation("minutes", ["mean", "last_2"], timedelta(hours=1)),
        Aggregation(None, "count", timedelta(hours=2), name="events"),
    ],
)
service = FeatureService("delays", [delays])
"""
    )
    with FeatureStore(root) as store:
        store.apply()
        for part in range(3):
            at = [START + dt.timedelta(minutes=7 * number + part) for number in range(40)]
            origin = [("JFK", "EWR")[number % 2] for number in range(40)]
            store.push("delays", {"origin": origin, "at": at, "minutes": [float(number) for number in range(40)]})
        at_once = store.get_historical_features("delays", asked, statuses=True)
        in_parts = store.get_historical_features("delays", asked, statuses=True, memory=LITTLE)
    assert cuts[0] == 1 < cuts[1]
    assert repr(in_parts.to_pylist()) == repr(at_once.to_pylist())


def test_a_large_frame_in_partitions_is_the_one_at_once(
    make_project: Callable[..., Path], cuts: list[int], tmp_path: Path
) -> None:
    """Every kind of view, three sets of keys, as written to a file."""
    root = make_project(DEFINITIONS)
    write_sources(root, 5, rows=60_000)
    pq.write_table(entity_rows(300_000, 5), tmp_path / "asked.parquet", row_group_size=70_000)
    with FeatureStore(root, clock=lambda: NOW_US) as store:
        store.apply()
        push_rows(store, 5)
        for name, memory in (("once", "4GB"), ("parts", "330MB")):
            store.write_historical_features(
                "all", tmp_path / "asked.parquet", tmp_path / name, memory=memory, as_known_at=True, statuses=True
            )
    assert cuts[0] == 1 < cuts[1]
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "once").read_bytes()
