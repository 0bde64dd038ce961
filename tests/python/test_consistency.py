"""The proof that online equals offline: silent where nothing is wrong, and finds what was made wrong on purpose."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import Engine, FeatureStore, StoreError
from headrace.consistency import ConsistencyReport, FeatureFinding
from headrace.history import ViewHistory
from headrace.push_files import copy_pushes, counted_pushes
from headrace.sources import ViewRows

START = dt.datetime(2013, 1, 1, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)
HOUR = dt.timedelta(hours=1)

DEFINITIONS = """
from datetime import timedelta

from headrace import *

user = Entity("user", join_keys=[Field("user", String)])
item = Entity("item", join_keys=[Field("item", Int64)])
profile = FeatureView(
    "profile",
    [user],
    [Field("age", Float64), Field("city", String), Field("scores", List(Float32))],
    PushSource(event_ts="at"),
    ttl=timedelta(hours=2),
)
prices = FeatureView("prices", [item], [Field("price", Float64)], FileSource("prices.parquet", event_ts="at"))
clicks = FeatureView(
    "clicks",
    [user, item],
    [Field("value", Float64)],
    PushSource(event_ts="at"),
    aggregations=[Aggregation("value", ["count", "sum", "mean", "std", "max", "last_2"], timedelta(hours=1))],
)
derived = OnDemandFeatureView(
    "derived",
    inputs=[Field("asked", Timestamp), Field("amount", Float64), profile, clicks],
    schema=[
        Field("hour", Int64, col("asked").dt.hour()),
        Field("share", Float64, col("amount") / col("value_sum_1h")),
        Field("double_age", Float64, col("age") * 2.0),
    ],
)
everything = FeatureService("everything", [profile, prices, clicks, derived])
"""
NAN = float("nan")


@pytest.fixture
def clock() -> list[dt.datetime]:
    return [START]


@pytest.fixture
def store(make_project: Callable[..., Path], clock: list[dt.datetime]) -> Iterator[FeatureStore]:
    root = make_project(DEFINITIONS, "[payload]\nsample = 1.0\n")
    write_prices(root, [(1, START - HOUR, 10.0), (2, START - HOUR, NAN), (3, START + HOUR, 30.0)])
    with FeatureStore(root, clock=lambda: clock[0]) as opened:
        opened.apply()
        yield opened


@pytest.fixture
def engine(store: FeatureStore, clock: list[dt.datetime]) -> Iterator[Engine]:
    store.materialize(end=START + 3 * HOUR)
    store.open_online(writable=True)
    with Engine(store, clock_us=clock[0]) as opened:
        yield opened


def write_prices(root: Path, rows: list[tuple[int, dt.datetime, float]]) -> None:
    items, times, prices = zip(*rows, strict=True)
    times_column = pa.array(times, pa.timestamp("us", "UTC"))
    table = {"item": pa.array(items, pa.int64()), "at": times_column, "price": pa.array(prices, pa.float64())}
    pq.write_table(pa.table(table), root / "prices.parquet")


def push_profile(store: FeatureStore, user: str, at: dt.datetime, age: float | None, city: str | None = "Rome") -> None:
    scores = [[1.0, None, NAN]]
    store.push("profile", {"user": [user], "at": [at], "age": [age], "city": [city], "scores": scores})


def push_clicks(store: FeatureStore, user: str, item: int, at: dt.datetime, *values: float) -> None:
    rows = len(values)
    store.push("clicks", {"user": [user] * rows, "item": [item] * rows, "at": [at] * rows, "value": list(values)})


def look(engine: Engine, at: dt.datetime, users: list[str | None], items: list[int | None]) -> dict[str, Any]:
    engine.set_clock(at)
    request: dict[str, Any] = {
        "asked": [at] * len(users),
        "amount": [1.0, None] * (len(users) // 2) + [2.5] * (len(users) % 2),
    }
    found: dict[str, Any] = engine.get_online_features("everything", {"user": users, "item": items}, request)
    return found


def verify(engine: Engine, **options: Any) -> ConsistencyReport:
    engine.flush_payload()
    return engine.store.verify_consistency(**options)


def differing(report: ConsistencyReport) -> dict[str, FeatureFinding]:
    return {one.feature: one for one in report.features if one.differing}


def work(store: FeatureStore, engine: Engine, clock: list[dt.datetime]) -> None:
    """Half an hour of writes, deletes and lookups, none of which is wrong."""
    users: list[str | None] = ["ann", "bob", "eve", "nobody", None, "ann"]
    items: list[int | None] = [1, 2, 3, 99, 1, None]
    look(engine, clock[0], users, items)
    for step in range(6):
        clock[0] += 5 * MINUTE
        at = clock[0]
        push_profile(store, "ann", at - MINUTE, 30.0 + step)
        push_profile(store, "bob", at - 3 * HOUR, None, None)
        push_profile(store, "eve", at, NAN if step % 2 else -0.0, "x" * 5_000)
        push_clicks(store, "ann", 1, at - SECOND, 0.1 * step, 1e9, -0.3)
        push_clicks(store, "bob", 2, at - 2 * HOUR, 5.0)
        if step == 3:
            store.delete("profile", {"user": ["ann"]}, at)
        look(engine, at + SECOND, users, items)
        clock[0] += SECOND * 2


def test_nothing_is_found_where_nothing_is_wrong(store: FeatureStore, engine: Engine, clock: list[dt.datetime]) -> None:
    work(store, engine, clock)
    clock[0] += 4 * HOUR
    store.materialize()
    look(engine, clock[0], ["ann", "bob", "eve"], [1, 2, 3])  # beyond the ttl and the windows
    report = verify(engine)
    assert (report.rows, dict(report.skipped)) == (7 * 6 + 3, {})
    assert differing(report) == {}
    assert report.is_consistent
    assert {one.feature for one in report.features} == {
        *("age", "city", "scores", "price", "hour", "share", "double_age"),
        *(f"value_{name}_1h" for name in ("count", "sum", "mean", "std", "max", "last_2")),
    }
    assert all(one.count == report.rows and one.late == 0 for one in report.features)


def test_a_lost_push_is_found_with_the_time_since_when_it_is_missing(
    store: FeatureStore, engine: Engine, clock: list[dt.datetime]
) -> None:
    push_profile(store, "ann", START, 30.0)
    clock[0] += MINUTE
    lose_push(store, clock[0], "ann", 31.0)
    look(engine, clock[0] + 2 * SECOND, ["ann", "bob"], [1, 1])
    report = verify(engine)
    assert report.is_consistent, "two seconds may pass"
    assert {one.feature for one in report.features if one.late} == {"age", "double_age", "city"}
    look(engine, clock[0] + 90 * SECOND, ["ann", "bob"], [1, 1])
    found = differing(verify(engine))
    assert set(found) == {"age", "double_age", "city"}
    assert (found["age"].mismatched, found["age"].count, found["age"].largest_difference) == (1, 4, 1.0)
    assert max(found["age"].lags_seconds) == 90.0
    example = found["age"].examples[0]
    assert example["keys"] == {"user": "ann", "item": 1}
    assert (example["served"], example["recomputed"], example["lag_seconds"]) == (30.0, 31.0, 90.0)
    assert verify(engine, lag=2 * MINUTE).is_consistent
    assert verify(engine, until=clock[0] + 60 * SECOND).is_consistent


def lose_push(store: FeatureStore, at: dt.datetime, user: str, age: float) -> None:
    """History gets rows that the online store never sees."""
    view = ViewRows(json.loads(store.applied.json), "profile")
    frame = {"user": [user], "at": pa.array([at], pa.timestamp("us", "UTC")), "age": [age]}
    frame |= {"city": ["Oslo"], "scores": pa.array([[1.0, None, NAN]], pa.list_(pa.float32()))}
    at_us = round(at.timestamp() * 1e6)
    rows = view.shape(pa.table(frame), at_us, "a lost push", given_by_files=False)
    with ViewHistory(store.config.state / "history" / "profile", sync=False).kept(rows, 10**9, at_us):
        pass


def lose_last_push(store: FeatureStore, view: str) -> None:
    """The history of a view loses its last push."""
    [path] = (store.config.state / "history" / view).glob("*.pushes")
    *_, last = counted_pushes(path)
    copy_pushes(path, path.with_suffix(".copy"), last.number, 0)
    path.with_suffix(".copy").rename(path)


def test_what_only_online_has_is_found(store: FeatureStore, engine: Engine, clock: list[dt.datetime]) -> None:
    push_profile(store, "ann", START, 30.0)
    look(engine, START + SECOND, ["ann"], [1])
    shutil.rmtree(store.config.state / "history" / "profile")
    found = differing(verify(engine))
    assert set(found) == {"age", "double_age", "city", "scores"}
    assert (found["city"].extra, found["city"].mismatched, found["city"].lags_seconds) == (1, 0, [])


def test_late_data_is_found(store: FeatureStore, engine: Engine, clock: list[dt.datetime]) -> None:
    """A row that says it was known before the lookup, and came after it."""
    work(store, engine, clock)
    write_prices(store.config.root, [(1, START - HOUR, 10.0), (1, START + MINUTE, 11.0), (2, START - HOUR, NAN)])
    found = differing(verify(engine))
    assert set(found) == {"price"}
    # Item 1 is asked for in two rows of six times since; item 3 is no longer in the file, and was not yet known either.
    assert (found["price"].mismatched, found["price"].missing) == (6 * 2, 0)


def test_a_window_that_lacks_an_event_is_found(store: FeatureStore, engine: Engine, clock: list[dt.datetime]) -> None:
    push_clicks(store, "ann", 1, START, 1.0, 2.0)
    push_clicks(store, "ann", 1, START + SECOND, 4.0)
    clock[0] += MINUTE
    look(engine, clock[0], ["ann"], [1])
    lose_last_push(store, "clicks")
    found = differing(verify(engine))
    assert {"value_count_1h", "value_sum_1h", "value_mean_1h", "value_last_2_1h", "share"} <= set(found)
    assert found["value_sum_1h"].largest_difference == 4.0


def change(store: FeatureStore, old: str, new: str) -> None:
    path = store.config.root / "features" / "all.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    store.apply()


def test_a_server_that_goes_on_with_an_old_transform_is_found(
    store: FeatureStore, engine: Engine, clock: list[dt.datetime]
) -> None:
    push_profile(store, "ann", START, 30.0)
    push_profile(store, "nil", START, None)
    look(engine, START + SECOND, ["ann", "nil"], [1, 1])
    change(store, 'col("age") * 2.0', 'col("age") * 3.0')
    assert verify(engine).is_consistent, "what was served before the change is held to the plan of then"
    applied_at = START + 10 * SECOND
    os.utime(store.plans.folder / "HEAD", (applied_at.timestamp(), applied_at.timestamp()))
    look(engine, START + MINUTE, ["ann", "nil"], [1, 1])  # the engine was not refreshed
    found = differing(verify(engine))
    assert set(found) == {"double_age"}
    assert (found["double_age"].mismatched, found["double_age"].count) == (1, 4)
    engine.refresh()
    look(engine, START + 2 * MINUTE, ["ann", "nil"], [1, 1])
    assert verify(engine, since=START + 90 * SECOND).is_consistent


def test_a_source_that_changed_without_a_new_materialization_is_found(
    store: FeatureStore, engine: Engine, clock: list[dt.datetime]
) -> None:
    pq.write_table(
        pq.read_table(store.config.root / "prices.parquet").append_column("net", pa.array([8.0, NAN, 24.0])),
        store.config.root / "prices.parquet",
    )
    change(store, 'event_ts="at"))', 'event_ts="at", rename={"net": "price"}))')
    engine.refresh()
    look(engine, START + MINUTE, ["ann", "ann"], [1, 2])
    found = differing(verify(engine))
    assert set(found) == {"price"}
    assert (found["price"].mismatched, found["price"].largest_difference) == (1, 2.0)


def test_predictions_are_verified_and_given_features_left_out(
    store: FeatureStore, engine: Engine, clock: list[dt.datetime]
) -> None:
    write_model(store.config.state / "models/risk/1")
    engine.refresh()
    push_profile(store, "ann", START, 30.0)
    ask: dict[str, Any] = {"entities": {"user": ["ann", "zoe"], "item": [1, 1]}}
    ask["request"] = {"asked": [START, START], "amount": [1.0, 2.0]}
    engine.set_clock(START + SECOND)
    engine.predict("risk", **ask, id="first")
    engine.predict("risk", **ask, features={"age": [1.0, 2.0]})
    report = verify(engine, deployment="risk")
    assert (report.rows, report.is_consistent) == (2, True)
    assert report.skipped == {"the request gave features itself": 2}
    lose_push(store, START, "zoe", 5.0)
    found = differing(verify(engine, deployment="risk", lag=dt.timedelta()))
    assert {name: (one.deployment, one.missing) for name, one in found.items()} == {
        "age": ("risk", 1),
        "double_age": ("risk", 1),
    }
    assert found["age"].examples[0]["request_id"] == "first"
    assert verify(engine, deployment="everything").rows == 0


def write_model(folder: Path) -> None:
    from headrace import _native

    weights = {"age": 1.0, "double_age": 0.5, "price": 1.0, "value_sum_1h": 1.0}
    margin = sum(weights.values())
    folder.mkdir(parents=True)
    model = {"format": 1, "weights": [list(weights.values())], "intercept": [0.0], "link": "identity"}
    golden = {"features": [[1.0] * len(weights)], "margins": [[margin]], "scores": [[margin]]}
    for name, content in {"linear.json": model, "golden.json": golden}.items():
        (folder / name).write_text(json.dumps(content))
    digest = _native.digest_file
    manifest = {
        "format": 1,
        "name": "risk",
        "version": 1,
        "task": "regression",
        "labels": None,
        "model": {"file": "linear.json", "format": "linear-json", "digest": digest(folder / "linear.json")},
        "signature": {
            "service": "everything",
            "plan_digest": None,
            "features": [{"name": name, "dtype": "float64"} for name in weights],
            "join_keys": [{"name": "user", "dtype": "string"}, {"name": "item", "dtype": "int64"}],
            "request_fields": [{"name": "asked", "dtype": "timestamp"}, {"name": "amount", "dtype": "float64"}],
        },
        "golden": {"file": "golden.json", "digest": digest(folder / "golden.json")},
        "metrics": {},
        "lineage": {},
        "trainer": {"library": "hand", "version": "1"},
        "created_at": "2013-01-01T00:00:00Z",
    }
    text = _native.canonical_json(json.dumps(manifest))
    (folder / "model.json").write_text(text)
    (folder / "digest").write_text(_native.digest_bytes(text.encode()) + "\n")


def test_invalid_rows_and_unknown_plans_are_told(store: FeatureStore, engine: Engine, clock: list[dt.datetime]) -> None:
    engine.set_clock(START)
    request: dict[str, Any] = {"asked": [START, START], "amount": [1.0, "much"]}
    engine.get_online_features("everything", {"user": ["ann", "bob"], "item": [1, 1]}, request)
    report = verify(engine)
    assert (report.rows, report.skipped) == (1, {"the row was invalid": 1})
    digest = store.plans.head()
    assert digest is not None
    change(store, "* 2.0", "* 4.0")
    store.plans.path(digest).unlink()
    report = verify(engine)
    assert report.rows == 0
    assert any(digest in reason for reason in report.skipped)


def segments(store: FeatureStore) -> list[Path]:
    return sorted((store.config.state / "payload").glob("*/*/*.parquet"))


def test_hostile_segments_are_refused_by_name_and_torn_ones_are_not_read(
    store: FeatureStore, engine: Engine, clock: list[dt.datetime]
) -> None:
    look(engine, START, ["ann"], [1])
    assert verify(engine).rows == 1
    (sound,) = segments(store)
    sound.with_name(f".{sound.name}.tmp").write_bytes(sound.read_bytes()[:100])
    assert verify(engine).rows == 1
    data = sound.read_bytes()
    table = pq.read_table(sound)
    metadata = table.schema.metadata or {}
    said = json.loads(metadata[b"headrace.payload"])
    strange = sound.with_name("lookup-strange.parquet")
    for content in (b"", b"PAR1", data[: len(data) // 2], bytes(reversed(data)), b"x" * 1000):
        strange.write_bytes(content)
        refused(engine, strange, "corrupt_store")
    newer = {b"headrace.payload": json.dumps(said | {"format": 99}).encode()}
    pq.write_table(table.replace_schema_metadata(newer), strange)
    refused(engine, strange, "newer_format")
    for wrong in (
        {},
        {b"headrace.payload": b"[1, 2]"},
        {b"headrace.payload": b"{\xff"},
        {b"headrace.payload": json.dumps(said | {"outputs": [{"name": "other"}]}).encode()},
        {b"headrace.payload": json.dumps(said | {"service": 7}).encode()},
    ):
        pq.write_table(table.replace_schema_metadata(wrong), strange)
        refused(engine, strange, "corrupt_store")
    for name in ("keys", "at", "status"):
        column = pa.array([["x"]] * table.num_rows)
        pq.write_table(table.set_column(table.column_names.index(name), name, column), strange)
        refused(engine, strange, "corrupt_store")
        pq.write_table(table.drop_columns([name]), strange)
        refused(engine, strange, "corrupt_store")


def refused(engine: Engine, path: Path, code: str) -> None:
    with pytest.raises(StoreError) as raised:
        verify(engine)
    assert raised.value.code == code
    assert str(path) in raised.value.message


def test_the_log_is_off_by_default_and_counts_what_it_takes(
    store: FeatureStore, engine: Engine, make_project: Callable[..., Path]
) -> None:
    look(engine, START, ["ann", "bob"], [1, 1])
    engine.flush_payload()
    stats = engine.payload_stats()
    assert stats is not None
    assert (stats["written_rows"], stats["waiting_rows"], stats["dropped_memory_rows"]) == (2, 0, 0)
    quiet = make_project(DEFINITIONS, name="quiet")
    with Engine(quiet) as other:
        assert other.payload_stats() is None


def test_a_segment_can_be_read_as_it_lies(store: FeatureStore, engine: Engine) -> None:
    odd: list[str | None] = ["ann", 'a"; drop\n', "x" * 100_000, None]
    look(engine, START, odd, [1, -(2**63), None, 2])
    engine.flush_payload()
    table = pq.ParquetFile(segments(store)[0]).read()
    row = table.slice(0, 1).to_pylist()[0]
    assert table.column("keys").combine_chunks().field("user").to_pylist() == odd
    assert (row["deployment"], row["node"], row["status"], row["at"]) == ("everything", "lookup", "ok", START)
    assert row["outputs"]["price"] == 10.0
    assert row["outputs"]["age__status"] == "NOT_FOUND"
    assert row["sampled_weight"] == 1.0
    assert row["plan_digest"] == store.plans.head()
    assert len(row["request_id"]) == 36
    assert segments(store)[0].parent.name == "2013-01-01T12"
