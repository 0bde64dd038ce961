"""Views of aggregates in a project: defined, materialized, pushed to, restarted, joined."""

from __future__ import annotations

import datetime as dt
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import (
    Aggregation,
    DefinitionError,
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    Float64,
    HeadraceError,
    PushSource,
    String,
)
from headrace.lineage import view_features

START = dt.datetime(2013, 1, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)

DEFINITIONS = """
from datetime import timedelta

from headrace import *

carrier = Entity("carrier", join_keys=[Field("carrier", String)])
hour, day = timedelta(hours=1), timedelta(days=1)
aggregations = [
    Aggregation("delay", ["count", "sum", "mean"], [hour, day]),
    Aggregation("delay", "count", hour, name="late", where=col("delay") > 15),
    Aggregation("delay", "last_2", day),
]
files = FileSource("landed.parquet", event_ts="at")
landed = FeatureView("landed", [carrier], [Field("delay", Float64)], files, aggregations=aggregations)
told = FeatureView("told", [carrier], [Field("delay", Float64)], PushSource(event_ts="at"), aggregations=aggregations)
shops = Entity("shop", join_keys=[Field("shop", String)])
sold = FeatureView(
    "sold",
    [shops],
    [Field("offer", String), Field("amount", Int64)],
    PushSource(event_ts="at"),
    aggregations=[
        Aggregation("amount", ["sum", "p50"], [hour, day], by="offer", limit=2),
        Aggregation(None, "count", hour, by="offer"),
        Aggregation("offer", "count_distinct", [hour, day]),
        Aggregation("amount", ["p50", "p99.9"], day),
    ],
)
sales = FeatureService("sales", [sold])
delays = FeatureService("delays", [landed])
told_delays = FeatureService("told_delays", [told])
"""


def write_landed(root: Path, events: list[tuple[str, dt.datetime, float | None]]) -> None:
    columns = {
        "carrier": [carrier for carrier, _, _ in events],
        "at": pa.array([at for _, at, _ in events], pa.timestamp("us", "UTC")),
        "delay": pa.array([delay for _, _, delay in events], pa.float64()),
    }
    pq.write_table(pa.table(columns), root / "landed.parquet")


EVENTS: list[tuple[str, dt.datetime, float | None]] = [
    ("UA", START - 2 * HOUR, 30.0),
    ("UA", START - 10 * MINUTE, 5.0),
    ("UA", START - 20 * MINUTE, 20.0),
    ("UA", START - 5 * MINUTE, None),
    ("AA", START - 30 * HOUR, 1.0),
]


@pytest.fixture
def root(make_project: Callable[..., Path]) -> Path:
    folder = make_project(DEFINITIONS)
    write_landed(folder, EVENTS)
    return folder


def opened(root: Path, now: dt.datetime = START) -> FeatureStore:
    return FeatureStore(root, clock=lambda: int(now.timestamp()) * 1_000_000)


def asked(store: FeatureStore, *carriers: str, service: str = "delays") -> dict[str, Any]:
    return store.get_online_features(service, {"carrier": list(carriers)})


def test_aggregates_are_built_kept_and_found(root: Path) -> None:
    with opened(root) as store:
        store.apply()
        counts = store.materialize()["landed"]
        assert (counts.inserted, counts.stale) == (4, 1), (
            "an event older than every window makes its key known, no more"
        )
    with opened(root) as store:
        found = asked(store, "UA", "AA", "DL")
        assert found["features"]["delay_count_1h"] == [2, 0, None]
        assert found["features"]["delay_sum_1h"] == [25.0, 0.0, None]
        assert found["features"]["delay_mean_1h"] == [12.5, None, None]
        assert found["features"]["delay_sum_1d"] == [55.0, 0.0, None]
        assert found["features"]["late_count_1h"] == [1, 0, None]
        assert found["features"]["delay_last_2_1d"] == [[5.0, 20.0], None, None]
        assert found["statuses"]["delay_mean_1h"] == ["PRESENT", "NULL_VALUE", "NOT_FOUND"]
        joined = store.get_historical_features(
            "delays", {"carrier": ["UA", "AA", "DL"], "event_timestamp": [START] * 3}, statuses=True
        )
        for name, values in found["features"].items():
            assert joined.column(name).to_pylist() == values
            assert joined.column(f"{name}__status").to_pylist() == found["statuses"][name]


def test_sketches_and_groups_are_given_online_and_from_history(root: Path) -> None:
    minutes = [90, 50, 40, 30, 20, 10]
    events = {
        "shop": ["a"] * 6,
        "at": [START - minute * MINUTE for minute in minutes],
        "offer": ["x", "y", "z", "x", None, "y"],
        "amount": [1, 2, 3, 4, 5, 6],
    }
    expected = {
        "amount_sum_by_offer_1h": [4, 8],
        "amount_sum_by_offer_1d": [5, 8],
        "amount_p50_by_offer_1h": [4.0, 2.0],
        "amount_p50_by_offer_1d": [1.0, 2.0],
        "amount_offer_keys_1h": ["x", "y"],
        "amount_offer_keys_1d": ["x", "y"],
        "count_by_offer_1h": [1, 2, 1],
        "offer_keys_1h": ["x", "y", "z"],
        "offer_count_distinct_1h": 3,
        "offer_count_distinct_1d": 3,
        "amount_p50_1d": pytest.approx(3, rel=1 / 128),
        "amount_p99_9_1d": pytest.approx(5, rel=1 / 128),
    }
    with opened(root) as store:
        store.apply()
        store.push("sold", events)
    with opened(root) as store:
        found = store.get_online_features("sales", {"shop": ["a", "b"]})
        joined = store.get_historical_features("sales", {"shop": ["a", "b"], "event_timestamp": [START] * 2})
        for name, value in expected.items():
            assert found["features"][name] == [value, None], name
            assert joined.column(name).to_pylist() == found["features"][name], name
            assert found["statuses"][name] == ["PRESENT", "NOT_FOUND"]
    with opened(root, START + 3 * HOUR) as store:
        found = store.get_online_features("sales", {"shop": ["a"]})
        for name, nothing in {"amount_sum_by_offer_1h": [], "offer_keys_1h": [], "offer_count_distinct_1h": 0}.items():
            assert found["features"][name] == [nothing], name


def test_the_types_of_aggregates_are_shown(root: Path) -> None:
    with opened(root) as store:
        store.apply()
        dtypes = {feature.name: feature.dtype for feature in store.features() if feature.view == "sold"}
        planned = json.loads(store.applied.json)["views"]["sold"]
    assert dtypes == {feature["name"]: feature["dtype"] for feature in view_features(planned)}
    assert dtypes["amount_sum_by_offer_1h"] == "list<int64>"
    assert dtypes["amount_offer_keys_1h"] == "list<string>"
    assert dtypes["offer_count_distinct_1d"] == "int64"
    assert dtypes["amount_p99_9_1d"] == "float64"


def test_the_clock_alone_moves_a_window(root: Path) -> None:
    with opened(root) as store:
        store.apply()
        store.materialize()
    for later, count in ((0, 2), (44, 2), (45, 1), (54, 1), (55, 0)):
        with opened(root, START + later * MINUTE) as store:
            assert asked(store, "UA")["features"]["delay_count_1h"] == [count], later


def test_materializing_again_counts_nothing_twice(root: Path) -> None:
    with opened(root) as store:
        store.apply()
        store.materialize()
        store.materialize()
        assert asked(store, "UA")["features"]["delay_count_1h"] == [2]
    write_landed(root, [*EVENTS, ("UA", START + MINUTE, 7.0)])
    with opened(root, START + 2 * MINUTE) as store:
        assert store.materialize_incremental()["landed"].inserted == 1
        assert asked(store, "UA")["features"]["delay_count_1h"] == [3]
        assert store.materialize_incremental()["landed"].rows == 0
        assert asked(store, "UA")["features"]["delay_count_1h"] == [3]


def test_changed_aggregates_are_built_anew(root: Path) -> None:
    path = root / "features/all.py"
    with opened(root) as store:
        store.apply()
        store.materialize()
        store.push("told", {"carrier": ["UA"], "at": [START - MINUTE], "delay": [40.0]})
    path.write_text(path.read_text().replace("> 15", "> 3"))
    with opened(root, START + MINUTE) as store:
        store.apply()
        assert asked(store, "UA")["statuses"]["late_count_1h"] == ["NOT_FOUND"], "nothing of the old ones is used"
        store.materialize_incremental()
        store.materialize(views=["told"])
        assert asked(store, "UA")["features"]["late_count_1h"] == [2]
        assert asked(store, "UA", service="told_delays")["features"]["late_count_1h"] == [1]
        store.materialize_incremental()
        assert asked(store, "UA")["features"]["late_count_1h"] == [2]


def test_pushed_events_count_until_they_are_deleted(root: Path) -> None:
    with opened(root) as store:
        store.apply()
        events = {"carrier": ["UA", "UA"], "at": [START - 2 * MINUTE, START - MINUTE], "delay": [1.0, 2.0]}
        store.push("told", events)
        assert asked(store, "UA", service="told_delays")["features"]["delay_sum_1h"] == [3.0]
    with opened(root, START + MINUTE) as store:
        assert asked(store, "UA", service="told_delays")["features"]["delay_sum_1h"] == [3.0]
        store.delete("told", {"carrier": ["UA"]})
        assert asked(store, "UA", service="told_delays")["statuses"]["delay_sum_1h"] == ["NOT_FOUND"]
    with opened(root, START + 2 * MINUTE) as store:
        late = {"carrier": ["UA"], "at": [START], "delay": [100.0]}
        assert store.push("told", late).stale == 1
        assert asked(store, "UA", service="told_delays")["statuses"]["delay_sum_1h"] == ["NOT_FOUND"]
        joined = store.get_historical_features(
            "told_delays", {"carrier": ["UA", "UA"], "event_timestamp": [START, START + 2 * MINUTE]}
        )
        assert joined.column("delay_sum_1h").to_pylist() == [3.0, None]


@pytest.mark.parametrize(
    ("aggregation", "message"),
    [
        (Aggregation("dely", "mean", HOUR), "did you mean 'delay'"),
        (Aggregation("delay", "median", HOUR), "no function 'median'"),
        (Aggregation(None, "mean", HOUR), "names no column"),
        (Aggregation("delay", "mean", dt.timedelta(0)), "has the window"),
        (Aggregation("delay", [], HOUR), "no function or no window"),
        (Aggregation("delay", "p5O", HOUR), "no function 'p5O'"),
        (Aggregation("delay", "sum", HOUR, by="offr"), "of the column 'offr'"),
    ],
)
def test_what_is_wrong_with_an_aggregation_is_said(aggregation: Aggregation, message: str) -> None:
    carrier = Entity("carrier", join_keys=[Field("carrier", String)])
    with pytest.raises(DefinitionError) as raised:
        FeatureView("v", [carrier], [Field("delay", Float64)], PushSource(event_ts="at"), aggregations=[aggregation])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["count", "sum", "mean"]', '["count", "sum", "mean", "mean"]', "two features named"),
        ('where=col("delay") > 15', 'where=col("delay") + 15', "filter"),
        ('"last_2", day', '"last_2000", day', "its k is 2000"),
        ('"last_2", day', '"p101", day', "its q is 1.01"),
        ('hour, by="offer")', 'hour, by="offer", limit=0)', "its limit is 0"),
        ('["sum", "p50"], [hour, day], by="offer"', '"last_2", day, by="offer"', "a list of lists"),
        ('"count_distinct", [hour, day])', '"p50", day)', "aggregate a column of numbers"),
        ('"last_2", day', '"sum", day, by="delay"', "its secondary key 'delay' is float64"),
        ('PushSource(event_ts="at")', "PushSource()", "no event time"),
        ('PushSource(event_ts="at"), ', 'PushSource(event_ts="at"), ttl=hour, ', "a ttl"),
    ],
)
def test_the_plan_refuses_windows_that_cannot_be(root: Path, old: str, new: str, message: str) -> None:
    path = root / "features/all.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with opened(root) as store, pytest.raises(HeadraceError) as raised:
        store.plan()
    assert message in str(raised.value), raised.value


def test_the_plan_shows_windows_and_their_filters(root: Path) -> None:
    with opened(root) as store:
        assert "late_count_1h" in str(store.plan())
        store.apply()
        plan = json.loads(store.applied.json)
        assert plan["views"]["landed"]["aggregations"][0]["name"] == "delay_count_1h"
        path = root / "features/all.py"
        path.write_text(path.read_text().replace("> 15", "> 30"))
        assert {str(change) for change in store.plan().changed} == {"feature view landed", "feature view told"}


def test_aggregates_and_lists_of_events_are_inputs_of_expressions(make_project: Callable[..., Path]) -> None:
    definitions = """
    from datetime import timedelta

    from headrace import *

    carrier = Entity("carrier", join_keys=[Field("carrier", String)])
    day = timedelta(days=1)
    events = FeatureView(
        "events",
        [carrier],
        [Field("delay", Float64), Field("origin", String)],
        FileSource("landed.parquet", event_ts="at"),
        aggregations=[Aggregation("delay", ["last_3", "mean", "count"], day), Aggregation("origin", "last_3", day)],
    )
    told = OnDemandFeatureView(
        "told",
        [events],
        [
            Field("rise", Float64, col("delay_last_3_1d").list.get(0) - col("delay_last_3_1d").list.get(-1)),
            Field("worst", Float64, col("delay_last_3_1d").list.max()),
            Field("known", Int64, col("origin_last_3_1d").list.length()),
            Field("was_in_jfk", Bool, col("origin_last_3_1d").list.contains("JFK")),
            Field("share", Float64, col("delay_mean_1d") / (col("delay_count_1d") + 1)),
        ],
    )
    service = FeatureService("all", [told])
    """
    root = make_project(textwrap.dedent(definitions))
    table = pa.table(
        {
            "carrier": ["UA"] * 4 + ["AA"],
            "at": pa.array([START - hours * HOUR for hours in (4, 3, 2, 1, 30)], pa.timestamp("us", "UTC")),
            "delay": [40.0, 10.0, 20.0, 6.0, 1.0],
            "origin": ["JFK", "EWR", None, "LGA", "JFK"],
        }
    )
    pq.write_table(table, root / "landed.parquet")
    expected = {
        "rise": [-4.0, None, None],
        "worst": [20.0, None, None],
        "known": [3, None, None],
        "was_in_jfk": [True, None, None],
        "share": [19.0 / 5, None, None],
    }
    with opened(root) as store:
        store.apply()
        store.materialize()
        online = store.get_online_features("all", {"carrier": ["UA", "AA", "XX"]})["features"]
        entities = pa.table({"carrier": ["UA", "AA", "XX"], "at": pa.array([START] * 3, pa.timestamp("us", "UTC"))})
        training = store.get_historical_features("all", entities, event_ts_column="at")
        assert {name: training[name].to_pylist() for name in expected} == online
        assert online == expected
