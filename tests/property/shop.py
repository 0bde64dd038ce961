"""A project of a shop with every kind of view, and sources with all that is hard about rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from headrace import FeatureStore

NOW = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
DAY_US = 86_400_000_000
KEYS = 40

DEFINITIONS = """
from datetime import timedelta

from headrace import *

user = Entity("user", join_keys=[Field("user_id", Int64)])
shop = Entity("shop", join_keys=[Field("city", String), Field("number", Int32)])
stock = FeatureView(
    "stock",
    [user],
    [Field("level", Int64), Field("note", String)],
    FileSource("stock.parquet", event_ts="at", created_ts="known"),
)
shops = FeatureView("shops", [shop], [Field("size", Float64)], FileSource("shops.csv"))
world = FeatureView("world", [], [Field("mood", Float64)], FileSource("world.parquet", event_ts="at"))
spent = FeatureView(
    "spent",
    [user],
    [Field("amount", Float64), Field("item", String)],
    FileSource("spent.parquet", event_ts="at"),
    aggregations=[
        Aggregation("amount", ["sum", "mean", "std", "min", "max", "p90"], [timedelta(hours=1), timedelta(days=7)]),
        Aggregation("item", ["last_2", "count_distinct"], timedelta(days=2)),
        Aggregation(None, "count", timedelta(days=7), name="bought", where=col("amount") > 3.0),
    ],
)
prices = FeatureView("prices", [shop], [Field("price", Float32)], FileSource("prices", event_ts="at", format="delta"))
visits = FeatureView(
    "visits", [user], [Field("page", String), Field("seconds", Int16)], PushSource(event_ts="at"), ttl=timedelta(days=4)
)
clicks = FeatureView(
    "clicks",
    [user],
    [Field("weight", Float64)],
    PushSource(event_ts="at"),
    aggregations=[Aggregation("weight", ["sum", "last_3", "p50"], timedelta(days=3))],
)
busy = OnDemandFeatureView(
    "busy",
    inputs=[visits, stock],
    schema=[Field("pace", Float64, col("level") / col("seconds"))],
)
service = FeatureService("all", [stock, shops, world, spent, prices, visits, clicks, busy])
"""


CITIES = ("Oslo", "Rome", "", "Łódź")


def moments(us: Any) -> pa.Array:
    return pa.array(us, pa.timestamp("us", "UTC"))


def write_sources(root: Path, seed: int, rows: int = 6_000, until_us: int | None = None) -> None:
    """Rows in no order: ties, corrections, rows without key or time, of a time to come, and years old."""
    rng = np.random.default_rng(seed)
    old = rng.random(rows) < 0.3
    age_us = np.where(old, rng.integers(30 * DAY_US, 900 * DAY_US, rows), rng.integers(-DAY_US, 9 * DAY_US, rows))
    at_us = np.where(rng.random(rows) < 0.3, NOW_US - (age_us // DAY_US) * DAY_US, NOW_US - age_us)
    users = rng.integers(0, KEYS, rows).astype(object)
    users[rng.random(rows) < 0.02] = None
    users = np.where(old & (rng.random(rows) < 0.2), KEYS + 1, users)  # known, and without an event in any window
    times = at_us.astype(object)
    times[rng.random(rows) < 0.02] = None
    known = (at_us + rng.integers(0, 3, rows)).astype(object)
    known[rng.random(rows) < 0.5] = None
    amounts = rng.normal(5, 1e6, rows)
    shown = pa.array(np.ones(rows, bool) if until_us is None else at_us < until_us)
    events = pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "at": moments(times),
            "known": moments(known),
            "level": pa.array(rng.integers(0, 99, rows)),
            "note": [f"note {number}" for number in range(rows)],
            "amount": pa.array(amounts, mask=rng.random(rows) < 0.1),
            "item": [f"item {number}" for number in rng.integers(0, 30, rows)],
        }
    )
    events = events.filter(shown)
    pq.write_table(
        events.select(["user_id", "at", "known", "level", "note"]), root / "stock.parquet", row_group_size=700
    )
    pq.write_table(events.select(["user_id", "at", "amount", "item"]), root / "spent.parquet", row_group_size=900)
    pq.write_table(
        events.select(["at", "amount"]).rename_columns(["at", "mood"]), root / "world.parquet", row_group_size=500
    )
    cities = [CITIES[number] for number in rng.integers(0, 4, 300)]
    sizes = ["wide" if number % 50 == 0 else str(number / 7) for number in range(300)]
    shops = pa.table({"city": cities, "number": rng.integers(0, 3, 300), "size": sizes})
    pyarrow.csv.write_csv(shops, root / "shops.csv")

    # Two versions of a table: what Ray reads must be the one that is read here.
    at = moments(NOW_US - rng.integers(0, 9 * DAY_US, rows))
    shops = {"city": [CITIES[number] for number in rng.integers(0, 4, rows)], "number": rng.integers(0, 3, rows)}
    prices = pa.table({**shops, "at": at, "price": pa.array(rng.normal(9, 1, rows), pa.float32())})
    deltalake.write_deltalake(root / "prices", prices.slice(rows // 2), mode="overwrite")
    deltalake.write_deltalake(root / "prices", prices.slice(0, rows // 2), mode="append")


def push_rows(store: FeatureStore, seed: int, rows: int = 3_000) -> None:
    """Visits and clicks, in a few pushes, and deletions of some."""
    rng = np.random.default_rng([seed, 1])
    for number in range(3):
        users = rng.integers(0, KEYS, rows)
        at = moments(NOW_US - rng.integers(0, 9 * DAY_US, rows))
        pages = [f"page {page}" for page in rng.integers(0, 99, rows)]
        seconds = pa.array(rng.integers(0, 3, rows), pa.int16())
        store.push("visits", {"user_id": users, "at": at, "page": pages, "seconds": seconds})
        store.push("clicks", {"user_id": users, "at": at, "weight": rng.normal(0, 1e3, rows)})
        for view in ("visits", "clicks"):
            store.delete(view, {"user_id": [number, number + 7]}, NOW - dt.timedelta(days=number))


def entity_rows(rows: int, seed: int) -> pa.Table:
    """Rows that ask, in no order, some without a key."""
    rng = np.random.default_rng([seed, 2])
    users = rng.integers(-1, KEYS + 3, rows).astype(object)
    users[rng.random(rows) < 0.02] = None
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "city": [CITIES[number] for number in rng.integers(0, 4, rows)],
            "number": pa.array(rng.integers(0, 3, rows), pa.int32()),
            "event_timestamp": moments(NOW_US - rng.integers(-DAY_US, 12 * DAY_US, rows)),
            "row": np.arange(rows),
        }
    )
