"""Erasure: the bytes are gone, late writes do not bring them back, and the receipt says who still has them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import Engine, FeatureStore, HeadraceError
from headrace.dtypes import DType
from headrace.erase import ErasedKeys, canonical_keys

pytestmark = pytest.mark.filterwarnings("ignore::headrace.RefusedRowsWarning")
START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SECRET = "Zaphod-Beeblebrox-4711"
OTHER = "Trillian-0815-McMillan"
DEFINITIONS = """
from datetime import timedelta

from headrace import *

person = Entity("person", join_keys=[Field("name", String)])
shop = Entity("shop", join_keys=[Field("shop", Int64)])
visits = FeatureView("visits", [person], [Field("note", String)], PushSource(event_ts="at"))
bills = FeatureView("bills", [person, shop], [Field("paid", Float64)], PushSource(event_ts="at"))
known = FeatureView("known", [person], [Field("city", String)], FileSource("known.csv"))
shops = FeatureView("shops", [shop], [Field("size", Int64)], PushSource(event_ts="at"))
sums = [Aggregation("paid", ["count", "sum"], timedelta(days=30))]
spent = FeatureView("spent", [person], [Field("paid", Float64)], PushSource(event_ts="at"), aggregations=sums)
all_of_it = FeatureService("all_of_it", [visits, bills, known, shops, spent])
"""


@pytest.fixture
def now() -> list[dt.datetime]:
    return [START + DAY]


@pytest.fixture
def store(make_project: Callable[..., Path], now: list[dt.datetime]) -> Iterator[FeatureStore]:
    root = make_project(DEFINITIONS)
    (root / "known.csv").write_text(f"name,city\n{SECRET},Betelgeuse\n{OTHER},Islington\n")
    with FeatureStore(root, clock=lambda: int(now[0].timestamp() * 1_000_000)) as opened:
        opened.apply()
        opened.materialize()
        for at in (START, START + DAY / 2):
            push(opened, at)
            opened.push("spent", {"name": [SECRET, OTHER], "at": [at, at], "paid": [1.5, 2.5]})
        yield opened


def push(store: FeatureStore, at: dt.datetime) -> list[Any]:
    """A row of both people in both views; also rows that are refused."""
    names = [SECRET, OTHER]
    visits = {"name": [*names, *names], "at": [at, at, None, None], "note": [f"{name} was here" for name in names * 2]}
    bills = {"name": names, "shop": [1, 1], "at": [at, at], "paid": [1.5, 2.5]}
    shops = {"shop": [1], "at": [at], "size": [9]}
    pushed = (("visits", visits), ("bills", bills), ("shops", shops))
    return [store.push(view, rows).refused for view, rows in pushed]


def online(store: FeatureStore) -> dict[str, list[Any]]:
    asked: dict[str, list[Any]] = {"name": [SECRET, OTHER], "shop": [1, 1]}
    found: dict[str, list[Any]] = store.get_online_features("all_of_it", asked)["features"]
    return found


def holders(store: FeatureStore) -> list[str]:
    """The files of the state in which the key's bytes stand."""
    state = store.config.state
    return [
        str(path.relative_to(state))
        for path in sorted(state.rglob("*"))
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


GONE = {
    "note": [None, f"{OTHER} was here"],
    "paid": [None, 2.5],
    "city": [None, "Islington"],
    "size": [9, 9],
    "paid_count_30d": [None, 2],
    "paid_sum_30d": [None, 5.0],
}


def test_the_payload_log_forgets_too(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PAYLOAD_SAMPLE", "1")
    at = store.now_us()
    with Engine(store.config.root, clock_us=at) as engine:
        for names in ([SECRET, OTHER], [SECRET]):
            engine.get_online_features("all_of_it", {"name": names, "shop": [1] * len(names)})
            engine.flush_payload()
    report = store.verify_consistency()
    assert (report.rows, report.is_consistent) == (3, True)
    assert len([path for path in holders(store) if path.startswith("payload")]) == 2
    consistency = store.config.state / "consistency.json"
    consistency.write_text(consistency.read_text().replace('"examples": []', f'"examples": ["{SECRET}"]'))
    receipt = store.erase("person", {"name": [SECRET]})
    assert holders(store) == []
    assert receipt["removed"]["payload"] == {"all_of_it": 2}
    assert "payload" in {held["kind"] for held in receipt["still_held"]}
    assert store.verify_consistency().rows == 1


@pytest.mark.parametrize("snapshot_first", [False, True])
def test_the_bytes_are_gone(store: FeatureStore, snapshot_first: bool) -> None:
    if snapshot_first:
        store.close()
    assert holders(store)
    receipt = store.erase("person", {"name": [SECRET]})
    assert online(store) == GONE
    assert holders(store) == []
    assert receipt["removed"]["online"] == {"name": 1, "name,shop": 1}
    assert receipt["removed"]["history"] == {"visits": 2, "bills": 2, "spent": 2}
    assert receipt["removed"]["dead_letters"] == {"visits": 2}
    assert sorted(receipt["removed"]["statistics"]) == ["bills", "known", "spent", "visits"]
    store.close()
    with FeatureStore(store.config.root, clock=store.now_us) as later:
        assert online(later) == GONE
    joined = store.get_historical_features(
        "all_of_it", {"name": [SECRET, OTHER], "shop": [1, 1], "event_timestamp": [START + DAY] * 2}
    )
    assert joined["note"].to_pylist() == GONE["note"]
    assert joined["city"].to_pylist() == ["Betelgeuse", "Islington"], "the files of a source are their owner's"
    assert {"kind": "source", "where": "known.csv", "view": "known", "rows": 1, "hint": "erase it there"} in receipt[
        "still_held"
    ]
    kept = json.loads(Path(receipt["path"]).read_text())
    assert kept["removed"] == receipt["removed"]
    assert SECRET not in Path(receipt["path"]).read_text()


def test_a_reader_forgets_too(store: FeatureStore) -> None:
    reader = FeatureStore(store.config.root, clock=store.now_us)
    assert online(reader)["note"][0] is not None
    store.erase("person", {"name": [SECRET]})
    assert online(reader) == GONE


def test_late_writes_do_not_bring_it_back(store: FeatureStore, now: list[dt.datetime]) -> None:
    store.erase("person", {"name": [SECRET]})
    now[0] = START + 2 * DAY
    assert push(store, START + DAY / 2) == [{"erased": 2, "null_event_ts": 1}, {"erased": 1}, {}]
    [counts] = store.materialize(views=["known"]).values()
    assert counts.refused == {"erased": 1}
    store.delete("visits", {"name": [SECRET]}, START)
    assert online(store) == GONE
    assert holders(store) == []
    store.close()
    push(store, START + DAY / 2)
    assert online(store) == GONE, "another process knows it too"


def test_a_later_event_is_taken(store: FeatureStore, now: list[dt.datetime]) -> None:
    store.erase("person", {"name": [SECRET]})
    now[0] = START + 3 * DAY
    push(store, START + 2 * DAY)
    assert online(store)["note"] == [f"{SECRET} was here", f"{OTHER} was here"]
    assert online(store)["city"][0] is None


def test_a_key_of_another_entity_takes_its_rows(store: FeatureStore) -> None:
    receipt = store.erase("shop", {"shop": [1]})
    assert receipt["removed"]["online"] == {"shop": 1, "name,shop": 2}
    found = online(store)
    assert found["paid"] == found["size"] == [None, None]
    assert found["note"][0] is not None


def test_datasets_are_made_anew_or_listed(store: FeatureStore) -> None:
    asked = {"name": [SECRET, OTHER], "shop": [1, 1], "event_timestamp": [START + DAY] * 2}
    store.create_dataset("people", "all_of_it", asked)
    listed = store.erase("person", {"name": [SECRET]}, rewrite_datasets=False)
    assert [one["where"] for one in listed["still_held"] if one["kind"] == "dataset"] == ["people version 1"]
    assert store.dataset("people", 1).to_arrow().num_rows == 2
    rewritten = store.erase("person", {"name": [SECRET]})
    assert [one["replaced_by"] for one in rewritten["removed"]["datasets"]] == [2]
    assert store.dataset("people").to_arrow()["name"].to_pylist() == [OTHER]
    with pytest.raises(HeadraceError, match="use version 2"):
        store.dataset("people", 1).to_arrow()
    assert holders(store) == []
    assert store.erase("person", {"name": [SECRET]})["removed"]["datasets"] == []


def test_erasing_again_and_nobody(store: FeatureStore) -> None:
    before = online(store)
    receipt = store.erase("person", {"name": ["nobody"]})
    assert receipt["removed"]["online"] == {"name": 0, "name,shop": 0}
    assert online(store) == before
    for _ in range(2):
        store.erase("person", {"name": [SECRET, "nobody"]})
        assert online(store) == GONE


@pytest.mark.parametrize(
    ("entity", "keys", "code"),
    [
        ("persons", {"name": ["a"]}, "unknown_entity"),
        ("person", {"nam": ["a"]}, "missing_column"),
        ("person", {"name": [1]}, "type_mismatch"),
        ("person", {"name": [None]}, "null_key"),
    ],
)
def test_what_is_wrong_is_named(store: FeatureStore, entity: str, keys: Any, code: str) -> None:
    with pytest.raises(HeadraceError) as raised:
        store.erase(entity, keys)
    assert raised.value.code == code
    if code == "missing_column":
        assert raised.value.hint == "give the join keys: name; its columns: nam"
    assert online(store)["note"][0] is not None


def test_a_block_ends_when_it_is_told_to(make_project: Callable[..., Path], now: list[dt.datetime]) -> None:
    root = make_project(DEFINITIONS, "[erase]\nblock_days = 5\n")
    (root / "known.csv").write_text(f"name,city\n{SECRET},Betelgeuse\n")
    with FeatureStore(root, clock=lambda: int(now[0].timestamp() * 1_000_000)) as store:
        store.apply()
        store.materialize()
        store.erase("person", {"name": [SECRET]})
        now[0] += 4 * DAY
        assert store.materialize()["known"].refused == {"erased": 1}
        now[0] += 2 * DAY
        assert store.materialize()["known"].refused == {}


KEYS = {"i": DType("int64"), "s": DType("string"), "b": DType("bool"), "t": DType("timestamp")}


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.text(max_size=9),
            st.booleans(),
            st.datetimes(timezones=st.just(dt.UTC)),
        ),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    st.data(),
)
def test_the_engine_knows_keys_by_the_same_bytes(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """Whatever the key's types: exactly the rows of the erased keys leave the table."""
    from headrace import _native
    from headrace.compiler import compile_plan
    from headrace.definitions import Entity, FeatureView, Field, PushSource

    columns = dict(zip(KEYS, (list(column) for column in zip(*rows, strict=True)), strict=True))
    entity = Entity("e", join_keys=[Field(name, dtype) for name, dtype in KEYS.items()])
    view = FeatureView("v", [entity], [Field("x", "float64")], PushSource())
    plan = _native.Plan.from_json(compile_plan("p", [view]))
    store = _native.LocalStore(plan)
    types = {"i": pa.int64(), "s": pa.string(), "b": pa.bool_(), "t": pa.timestamp("us", "UTC")}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    batch = table.append_column("x", pa.array([1.0] * len(rows))).append_column("__event_ts", pa.nulls(len(rows)))
    [batch] = batch.append_column("__created_ts", pa.nulls(len(rows))).combine_chunks().to_batches()
    store.apply(store.encode("v", batch, 0, 0, 0)[0])
    assert len(store) == len(rows)
    part = data.draw(st.sampled_from(["i", "s", "b", "t"]))
    chosen = data.draw(st.sampled_from(columns[part]))
    keys = canonical_keys(pa.table({part: pa.array([chosen], types[part])}), {part: KEYS[part]})
    left, removed = store.without_keys([part], keys)
    wanted = ErasedKeys({part: KEYS[part]}, pa.table({part: pa.array([chosen], types[part])}))
    assert removed == {"i,s,b,t": sum(wanted.found_in(table).to_pylist())}
    assert len(left) == len(rows) - columns[part].count(chosen)
