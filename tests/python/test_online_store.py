from __future__ import annotations

import datetime as dt
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace import FeatureStore, HeadraceError, RefusedRowsWarning
from headrace.online_store import OnlineStore, merge_interval

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
HOUR_US = 3_600_000_000


def crews(store: FeatureStore, *origins: str | None) -> list[tuple[Any, str]]:
    found = store.get_online_features("gates", {"origin": list(origins)})
    return list(zip(found["features"]["crew"], found["statuses"]["crew"], strict=True))


def push(store: FeatureStore, origin: str, crew: str | None, at: dt.datetime = START) -> Any:
    return store.push("gate", {"origin": [origin], "at": [at], "open": [True], "crew": pa.array([crew], pa.string())})


def test_materialized_rows_are_found_with_their_status(weather_store: FeatureStore) -> None:
    counts = weather_store.materialize()
    assert counts["weather"].refused == {"null_event_ts": 1}
    assert (counts["weather"].rows, counts["weather"].inserted, counts["weather"].replaced) == (7, 2, 4)
    found = weather_store.get_online_features(
        "risk", {"origin": ["JFK", "EWR", "LGA", None]}, {"planned": [START + 7 * HOUR] * 4}
    )
    features, statuses = found["features"], found["statuses"]
    assert features["temp"] == [4.0, 11.0, None, None]
    assert math.isnan(features["wind_dir"][0])
    assert statuses["temp"] == ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert features["runways"] == [4, 3, None, None]
    assert features["hour"] == [7] * 4
    assert statuses["headwind"] == ["PRESENT", "PRESENT", "NULL_VALUE", "NULL_VALUE"]


def test_rows_older_than_the_ttl_are_told_apart(weather_store: FeatureStore, now_us: list[int]) -> None:
    weather_store.materialize()
    last_us = int((START + HOUR).timestamp()) * 1_000_000
    for now, status in ((last_us + 3 * HOUR_US, "PRESENT"), (last_us + 3 * HOUR_US + 1, "OUTSIDE_MAX_AGE")):
        now_us[0] = now
        found = weather_store.get_online_features("risk", {"origin": ["EWR"]}, {"planned": [START]})
        assert found["statuses"]["temp"] == [status]
        assert (found["features"]["temp"] == [None]) == (status != "PRESENT")


def test_an_older_row_never_replaces_a_newer_one(weather_store: FeatureStore) -> None:
    push(weather_store, "JFK", "new", START + HOUR)
    assert push(weather_store, "JFK", "old", START).stale == 1
    assert crews(weather_store, "JFK") == [("new", "PRESENT")]
    assert push(weather_store, "JFK", "corrected", START + HOUR).replaced == 1
    assert crews(weather_store, "JFK") == [("corrected", "PRESENT")]


def test_a_deleted_row_stays_deleted_until_a_newer_one(weather_store: FeatureStore) -> None:
    push(weather_store, "JFK", "a", START)
    assert weather_store.delete("gate", {"origin": ["JFK"]}, event_ts=START + HOUR).deleted == 1
    assert crews(weather_store, "JFK") == [(None, "NOT_FOUND")]
    assert push(weather_store, "JFK", "late", START + HOUR / 2).stale == 1
    assert crews(weather_store, "JFK") == [(None, "NOT_FOUND")]
    push(weather_store, "JFK", "b", START + 2 * HOUR)
    assert crews(weather_store, "JFK") == [("b", "PRESENT")]


def test_rows_too_far_in_the_future_are_refused_and_counted(weather_store: FeatureStore, now_us: list[int]) -> None:
    now = START + dt.timedelta(microseconds=now_us[0] - int(START.timestamp()) * 1_000_000)
    assert push(weather_store, "JFK", "soon", now + dt.timedelta(minutes=5)).refused == {}
    with pytest.warns(RefusedRowsWarning, match="rows pushed to view 'gate' were refused: 1 future"):
        counts = push(weather_store, "EWR", "far", now + dt.timedelta(minutes=5, microseconds=1))
    assert counts.refused == {"future": 1}
    assert crews(weather_store, "JFK", "EWR") == [("soon", "PRESENT"), (None, "NOT_FOUND")]


def test_materializing_goes_on_where_it_ended(weather_store: FeatureStore) -> None:
    first = weather_store.materialize_incremental(end=START + 2 * HOUR)["weather"]
    assert first.rows - sum(first.refused.values()) == 4
    assert weather_store.materialize_incremental(end=START + 2 * HOUR)["weather"].rows == 0
    second = weather_store.materialize_incremental()["weather"]
    assert second.rows - sum(second.refused.values()) == 2
    [(start, end)] = weather_store.open_online().intervals("weather")
    assert (start, end) == (None, weather_store.now_us())


def test_touching_intervals_become_one() -> None:
    spans = merge_interval(merge_interval([], (10, 20)), (30, 40))
    assert merge_interval(spans, (20, 30)) == [(10, 40)]
    assert merge_interval(spans, (None, 5)) == [(None, 5), (10, 20), (30, 40)]
    assert merge_interval(spans, (None, 35)) == [(None, 40)]


def test_everything_is_there_after_a_clean_close(weather_store: FeatureStore, weather_project: Path) -> None:
    weather_store.materialize()
    push(weather_store, "JFK", "a")
    sequence = weather_store.open_online().next_sequence
    weather_store.close()
    assert [path.name for path in (weather_project / ".headrace/online/snapshot").iterdir()] == [f"{sequence:020}"]
    again = FeatureStore(weather_project, clock=weather_store.now_us)
    assert crews(again, "JFK") == [("a", "PRESENT")]
    assert again.open_online().next_sequence == sequence
    assert again.open_online().intervals("weather") != []


def test_snapshots_shorten_the_log(weather_project: Path, make_project: Callable[..., Path]) -> None:
    (weather_project / "headrace.toml").write_text("[online]\nsnapshot_log_bytes = 600\n")
    with FeatureStore(weather_project) as store:
        store.apply()
        hour = pushes = 0
        log = store.open_online(writable=True)._log
        assert log is not None
        while pushes < 10 or (len(list(log.entries(0))) == pushes and pushes < 10_000):  # files are written beside us
            hour, pushes = pushes % 10, pushes + 1
            push(store, "JFK", f"crew {hour}", START + hour * HOUR)
        assert len(list(log.entries(0))) < pushes
        store.open_online().snapshot()
        assert not list(log.entries(0))
        assert len(list((weather_project / ".headrace/online/snapshot").iterdir())) == 1
    assert crews(FeatureStore(weather_project), "JFK") == [("crew 9", "PRESENT")]


def test_a_store_follows_its_definitions(weather_store: FeatureStore, weather_project: Path) -> None:
    push(weather_store, "JFK", "a")
    weather_store.close()  # a snapshot ..
    push(weather_store, "EWR", "b")  # .. and a log after it
    definitions = weather_project / "features/all.py"
    definitions.write_text(
        definitions.read_text().replace('Field("crew", String)]', 'Field("crew", String), Field("seats", Int64)]')
    )
    weather_store.apply()
    found = weather_store.get_online_features("gates", {"origin": ["JFK", "EWR"]})
    assert found["features"]["crew"] == ["a", "b"]
    assert found["statuses"]["seats"] == ["NULL_VALUE"] * 2


def test_a_reader_needs_no_lock_and_follows_the_writer(weather_store: FeatureStore, weather_project: Path) -> None:
    push(weather_store, "JFK", "a")
    reader = FeatureStore(weather_project, clock=weather_store.now_us)
    assert crews(reader, "JFK") == [("a", "PRESENT")]
    assert not reader.open_online().writable
    table = reader.open_online().local
    push(weather_store, "JFK", "b", START + HOUR)
    assert crews(reader, "JFK") == [("b", "PRESENT")]
    assert reader.open_online().local is table, "the log had all that was new"
    push(weather_store, "JFK", "c", START + 2 * HOUR)
    weather_store.open_online().snapshot()
    assert crews(reader, "JFK") == [("c", "PRESENT")]


def test_a_reader_of_a_store_that_nobody_has_written(weather_project: Path, weather_store: FeatureStore) -> None:
    reader = FeatureStore(weather_project, clock=weather_store.now_us)
    assert crews(reader, "JFK") == [(None, "NOT_FOUND")]
    push(weather_store, "JFK", "a")
    assert crews(reader, "JFK") == [("a", "PRESENT")]


def test_a_second_writer_is_refused_by_name(weather_store: FeatureStore, weather_project: Path) -> None:
    push(weather_store, "JFK", "a")
    program = (
        "import sys, headrace\n"
        "try:\n"
        f"    headrace.FeatureStore({str(weather_project)!r}).open_online(writable=True)\n"
        "except headrace.StoreError as error:\n"
        "    print(error.code, error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("store_locked")
    assert f"process {os.getpid()} is writing" in done.stdout
    push(weather_store, "JFK", "b", START + HOUR)  # the first writer goes on
    weather_store.close()
    with FeatureStore(weather_project) as second:
        push(second, "JFK", "c", START + 2 * HOUR)


@pytest.mark.parametrize(
    "victim", ["log/CURRENT", "log/MANIFEST", "log/*.sst", "snapshot/*/manifest.json", "snapshot/*/*.table"]
)
def test_a_damaged_folder_is_named_with_what_to_do(
    weather_store: FeatureStore, weather_project: Path, victim: str
) -> None:
    push(weather_store, "JFK", "a")
    weather_store.close()
    folder = weather_project / ".headrace/online"
    pattern = victim if "*" in victim else victim + "*"
    [path, *_] = sorted(folder.glob(pattern))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged[: max(1, len(damaged) - 9)]))
    for writable in (False, True):
        with pytest.raises(HeadraceError) as raised:
            FeatureStore(weather_project).open_online(writable=writable)
        assert raised.value.code == "corrupt_store"
        assert ".headrace/online" in raised.value.message
        assert raised.value.hint


def test_damage_in_the_log_is_never_passed_over(weather_store: FeatureStore, weather_project: Path) -> None:
    for hour in range(4):
        push(weather_store, "JFK", f"crew {hour}" * 50, START + hour * HOUR)
    [log] = [path for path in (weather_project / ".headrace/online/log").glob("*.log") if path.stat().st_size]
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    copy = weather_project / "copy"
    (copy / "log").mkdir(parents=True)
    for path in (weather_project / ".headrace/online/log").iterdir():
        (copy / "log" / path.name).write_bytes(bytes(damaged) if path == log else path.read_bytes())
    with pytest.raises(HeadraceError) as raised:
        OnlineStore(copy, weather_store.applied, weather_store.config.online, writable=False)
    assert raised.value.code == "corrupt_store"


def test_a_full_table_refuses_and_the_store_goes_on(weather_project: Path) -> None:
    (weather_project / "headrace.toml").write_text("[online]\nbytes_max = 2000000\n")
    with FeatureStore(weather_project) as store:
        store.apply()
        push(store, "JFK", "a")
        sequence = store.open_online().next_sequence
        many = 50_000
        rows = {
            "origin": [f"key {i}" for i in range(many)],
            "at": [START] * many,
            "open": [True] * many,
            "crew": ["x" * 60] * many,
        }
        with pytest.raises(HeadraceError) as raised:
            store.push("gate", rows)
        assert raised.value.code == "store_full"
        assert store.open_online().next_sequence == sequence
        assert crews(store, "JFK") == [("a", "PRESENT")]
    assert crews(FeatureStore(weather_project), "JFK") == [("a", "PRESENT")], "the refused batch is not met again"


@pytest.mark.parametrize(
    ("call", "code", "part"),
    [
        (lambda s: s.push("gates", {}), "unknown_feature_view", "'gates'"),
        (lambda s: s.push("gate", {"origin": ["JFK"], "at": [START], "open": [True]}), "missing_column", "'crew'"),
        (lambda s: push(s, "JFK", "a", "now"), "type_mismatch", "'at'"),  # type: ignore[arg-type]
        (lambda s: s.delete("gate", {"code": ["JFK"]}), "missing_column", "'origin'"),
        (lambda s: s.materialize(views=["gate"]), "invalid_argument", "'gate'"),
        (lambda s: s.materialize(views=["gat"]), "unknown_feature_view", "'gat'"),
        (lambda s: s.get_online_features("gate", {}), "unknown_feature_service", "'gate'"),
        (lambda s: s.get_online_features("gates", {"code": ["JFK"]}), "unknown_entity", "'code'"),
        (lambda s: s.get_online_features("gates", {}), "missing_column", "'origin'"),
        (lambda s: s.get_online_features("gates", {"origin": [7]}), "type_mismatch", "'origin'"),
        (lambda s: s.get_online_features("gates", {"origin": "JFK"}), "type_mismatch", "not a sequence"),
        (lambda s: s.get_online_features("risk", {"origin": ["JFK"]}), "missing_column", "'planned'"),
        (lambda s: s.get_online_features("risk", {"origin": ["JFK"]}, {"planned": []}), "length_mismatch", "'request'"),
        (lambda s: s.open_online().write("gate", None, 0, None), "read_only", "open for reading"),
    ],
)
def test_what_is_wrong_with_a_call_is_named(weather_store: FeatureStore, call: Any, code: str, part: str) -> None:
    with pytest.raises(HeadraceError) as raised:
        call(weather_store)
    assert raised.value.code == code
    assert part in str(raised.value)


def test_an_empty_push_does_nothing(weather_store: FeatureStore) -> None:
    empty = pa.table(
        {"origin": pa.array([], pa.string()), "at": pa.array([], pa.timestamp("us")), "open": [], "crew": []}
    )
    assert weather_store.push("gate", empty).rows == 0
    assert weather_store.open_online().next_sequence == 0
