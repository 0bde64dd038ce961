from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def frame(*rows: tuple[str | None, dt.datetime | None]) -> pa.Table:
    return pa.table(
        {
            "row": list(range(len(rows))),
            "origin": pa.array([origin for origin, _ in rows], pa.string()),
            "event_timestamp": pa.array([at for _, at in rows], pa.timestamp("us", "UTC")),
            "planned": pa.array([START + 5 * HOUR for _ in rows], pa.timestamp("us", "UTC")),
        }
    )


def test_features_as_they_were_at_the_time_of_each_row(weather_store: FeatureStore) -> None:
    asked = frame(
        ("JFK", START + HOUR),
        ("JFK", START + HOUR),  # a duplicate stays
        ("JFK", START - HOUR),
        ("EWR", START + 4 * HOUR),  # three hours after the last row: still counts
        ("EWR", START + 4 * HOUR + dt.timedelta(microseconds=1)),
        (None, START),
        ("JFK", START + 2 * HOUR),
    )
    table = weather_store.get_historical_features("risk", asked, statuses=True)
    assert table.column("row").to_pylist() == list(range(7)), "exactly the entity rows, in their order"
    assert table.column("temp").to_pylist() == [2.0, 2.0, None, 11.0, None, None, None]
    assert table.column("temp__status").to_pylist() == [
        "PRESENT",
        "PRESENT",
        "NOT_FOUND",
        "PRESENT",
        "OUTSIDE_MAX_AGE",
        "NOT_FOUND",
        "NULL_VALUE",
    ]
    assert table.column("runways").to_pylist() == [4, 4, 4, 3, 3, None, 4], "static rows are always true"
    assert table.column("hour").to_pylist() == [5] * 7
    counts = json.loads(table.schema.metadata[b"headrace.counts"])
    assert counts["views"]["weather"]["null_event_ts"] == 1


def test_nan_is_found_and_null_is_null(weather_store: FeatureStore) -> None:
    table = weather_store.get_historical_features("risk", frame(("JFK", START + 3 * HOUR)), statuses=True)
    [row] = table.to_pylist()
    assert math.isnan(row["wind_dir"])
    assert row["wind_dir__status"] == "PRESENT"
    assert math.isnan(row["headwind"])


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", None])
def test_the_zone_of_the_entity_frame_does_not_matter(weather_store: FeatureStore, zone: str | None) -> None:
    asked = frame(("JFK", START + HOUR)).to_pandas()
    asked["event_timestamp"] = asked["event_timestamp"].dt.tz_convert(zone)
    table = weather_store.get_historical_features("risk", asked)
    assert table.column("temp").to_pylist() == [2.0]
    assert isinstance(table.to_pandas(), pd.DataFrame)


def test_an_empty_frame_gives_an_empty_frame_with_all_columns(weather_store: FeatureStore) -> None:
    table = weather_store.get_historical_features("risk", frame())
    assert table.num_rows == 0
    assert table.column_names[-5:] == ["temp", "wind_dir", "runways", "hour", "headwind"]
    assert table.schema.field("hour").type == pa.int64()


def test_what_was_known_later_is_left_out(weather_store: FeatureStore, now_us: list[int]) -> None:
    weather_store.push("gate", {"origin": ["JFK"], "at": [START], "open": [True], "crew": ["a"]})
    pushed_at = dt.datetime.fromtimestamp(now_us[0] / 1e6, dt.UTC)
    asked = pa.table({"origin": ["JFK"] * 2, "at": [START + HOUR, pushed_at], "known": [pushed_at, START]})
    asked = asked.set_column(1, "at", asked.column("at").cast(pa.timestamp("us", "UTC")))

    def crew(cutoff: Any) -> list[Any]:
        table = weather_store.get_historical_features("gates", asked, event_ts_column="at", as_known_at=cutoff)
        return table.column("crew").to_pylist()  # type: ignore[no-any-return]

    assert crew(None) == ["a", "a"]
    assert crew(True) == [None, "a"]
    assert crew("known") == ["a", None]


def test_pushes_and_deletions_are_history(weather_store: FeatureStore, now_us: list[int]) -> None:
    weather_store.push("gate", {"origin": ["JFK"], "at": [START], "open": [True], "crew": ["a"]})
    weather_store.push("gate", {"origin": ["JFK"], "at": [START], "open": [None], "crew": ["b"]})  # a correction
    weather_store.delete("gate", {"origin": ["JFK"]}, event_ts=START + 2 * HOUR)
    asked = pa.table({"origin": ["JFK"] * 2, "at": pa.array([START + HOUR, START + 3 * HOUR])})
    table = weather_store.get_historical_features("gates", asked, event_ts_column="at", statuses=True)
    assert table.column("crew").to_pylist() == ["b", None], "the last of equal times wins; a deleted row is not found"
    assert table.column("open__status").to_pylist() == ["NULL_VALUE", "NOT_FOUND"]


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"service": "risky"}, "unknown_feature_service", "'risky'"),
        ({"event_ts_column": "at"}, "missing_column", "no column 'at'"),
        ({"event_ts_column": "row"}, "type_mismatch", "column 'row'"),
        ({"as_known_at": "cutoff"}, "missing_column", "no column 'cutoff'"),
        ({"as_known_at": 7}, "type_mismatch", "as_known_at is 7"),
        ({"entity_df": {"origin": ["JFK"]}}, "missing_column", "no column"),
        ({"entity_df": "rows.csv"}, "type_mismatch", "the entity frame is a str"),
        (
            {"threads": 1, "entity_df": frame().append_column("temp", pa.array([], pa.int64()))},
            "invalid_argument",
            "'temp'",
        ),
    ],
)
def test_what_is_wrong_with_the_question_is_named(
    weather_store: FeatureStore, change: dict[str, Any], code: str, part: str
) -> None:
    given = {"service": "risk", "entity_df": frame(("JFK", START))} | change
    with pytest.raises(HeadraceError) as raised:
        weather_store.get_historical_features(**given)
    assert raised.value.code == code
    assert part in str(raised.value)
