"""A moment is a moment, whatever zone or unit its column is written in: the join sees only the moment."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from headrace import FeatureStore

DEFINITIONS = """
from datetime import timedelta

from headrace import *

meter = Entity("meter", join_keys=[Field("id", String)])
load = FeatureView(
    "load",
    [meter],
    [Field("watts", Int64), Field("read_at", Timestamp)],
    FileSource("load.parquet", event_ts="at", created_ts="known"),
    ttl=timedelta(minutes=90),
)
tariff = FeatureView("tariff", [meter], [Field("cents", Int64)], FileSource("tariff.jsonl", event_ts="since"))
everything = FeatureService("everything", [load, tariff])
"""
TTL_US = 90 * 60 * 1_000_000

# Around the night in which New York turns the clock back: one hour has its local times twice.
MIDNIGHT = dt.datetime(2013, 11, 3, 4, tzinfo=dt.UTC)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
ZONES = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "+05:45"]
COLUMNS = st.sampled_from([pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (*ZONES, None)])
OFFSETS = st.integers(-12 * 4, 14 * 4).map(lambda quarters: dt.timezone(dt.timedelta(minutes=15 * quarters)))
MOMENTS = st.integers(0, 16).map(lambda quarters: MIDNIGHT + dt.timedelta(minutes=15 * quarters))
IDS = st.sampled_from(["a", "b"])


def to_us(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def column(moments: list[dt.datetime], kind: pa.TimestampType) -> pa.Array:
    """The moments in a column of some zone and unit; without a zone a column is UTC."""
    return pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp(kind.unit, kind.tz or "UTC")).cast(kind)


@dataclass(frozen=True)
class Load:
    id: str
    at: dt.datetime
    known: dt.datetime


@dataclass(frozen=True)
class Tariff:
    id: str
    since: dt.datetime
    offset: dt.timezone

    def line(self, number: int) -> str:
        since = self.since.astimezone(self.offset).isoformat()
        return json.dumps({"id": self.id, "since": since, "cents": number}) + "\n"


LOADS = st.lists(st.builds(Load, IDS, MOMENTS, MOMENTS), min_size=1, max_size=12)
TARIFFS = st.lists(st.builds(Tariff, IDS, MOMENTS, OFFSETS), min_size=1, max_size=6)
ASKED = st.lists(st.tuples(IDS, MOMENTS, OFFSETS), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    root: Path = tmp_path_factory.mktemp("zones")
    (root / "features").mkdir()
    (root / "headrace.toml").write_text('[project]\nname = "zones"\n')
    (root / "features" / "all.py").write_text(DEFINITIONS)
    with FeatureStore(root) as store:
        store.apply()
        yield store


def specified(loads: list[Load], tariffs: list[Tariff], asked: list[tuple[str, dt.datetime, Any]]) -> list[Any]:
    entities = [reference.EntityRow((key,), to_us(at)) for key, at, _ in asked]
    load_rows = [
        reference.SourceRow((row.id,), to_us(row.at), to_us(row.known), n, {"watts": n, "read_at": row.at})
        for n, row in enumerate(loads)
    ]
    tariff_rows = [
        reference.SourceRow((row.id,), to_us(row.since), to_us(row.since), n, {"cents": n})
        for n, row in enumerate(tariffs)
    ]
    found = zip(
        reference.point_in_time_join(entities, load_rows, ["watts", "read_at"], TTL_US),
        reference.point_in_time_join(entities, tariff_rows, ["cents"]),
        strict=True,
    )
    return [{**load, **tariff} for load, tariff in found]


@given(LOADS, TARIFFS, ASKED, st.tuples(COLUMNS, COLUMNS, COLUMNS), st.one_of(st.none(), COLUMNS))
def test_the_zone_in_which_a_time_is_written_does_not_matter(
    store: FeatureStore,
    loads: list[Load],
    tariffs: list[Tariff],
    asked: list[tuple[str, dt.datetime, dt.timezone]],
    written: tuple[pa.TimestampType, pa.TimestampType, pa.TimestampType],
    asked_in: pa.TimestampType | None,
) -> None:
    """`asked_in` None: the entity rows are Python datetimes, each of its own zone, in one list."""
    root = store.config.root
    at, known = [row.at for row in loads], [row.known for row in loads]
    columns = {
        "id": pa.array([row.id for row in loads]),
        "at": column(at, written[0]),
        "known": column(known, written[1]),
        "read_at": column(at, written[2]),
        "watts": pa.array(range(len(loads)), pa.int64()),
    }
    pq.write_table(pa.table(columns), root / "load.parquet")
    (root / "tariff.jsonl").write_text("".join(row.line(number) for number, row in enumerate(tariffs)))
    moments = [moment for _, moment, _ in asked]
    times = (
        [moment.astimezone(offset) for _, moment, offset in asked] if asked_in is None else column(moments, asked_in)
    )
    joined = store.get_historical_features(
        "everything", {"id": [key for key, _, _ in asked], "event_timestamp": times}, statuses=True
    )
    for row, expected in zip(joined.to_pylist(), specified(loads, tariffs, asked), strict=True):
        for name, (status, value) in expected.items():
            assert (row[f"{name}__status"], row[name]) == (status, value)
