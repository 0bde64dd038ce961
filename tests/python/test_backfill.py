"""A backfill in parts, each reduced to what the table keeps, gives the answers of a load row by row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop import DAY_US, DEFINITIONS, KEYS, NOW, NOW_US, write_sources

from headrace import FeatureStore, ray_backfill, ray_tasks, sources
from headrace.backfill import Backfill, PartReport, joined_parts
from headrace.online_store import OnlineStore
from headrace.ray_tasks import as_bytes, batches_of
from headrace.sources import source_parts


@pytest.fixture
def store_at(make_project: Callable[..., Path]) -> Callable[..., FeatureStore]:
    """A project with the sources of a seed; its clock is a list with the time."""

    def make(name: str, clock: list[int], seed: int = 1) -> FeatureStore:
        root = make_project(DEFINITIONS, name=name)
        write_sources(root, seed)
        store = FeatureStore(root, clock=lambda: clock[0])
        store.apply()
        return store

    return make


def drive_here(kind: str, folder: Path) -> dict[str, Any]:
    """What the driver does on a cluster, one task after the other."""
    assert kind == "backfill"
    text = (folder / "job.json").read_text()
    job = Backfill.from_json(text)
    told = [ray_tasks.read_here(text, part) for part in source_parts(job.rows, Path(job.sources_root), job.as_of)]
    report = PartReport(job.letters_max)
    for *_, one in told:
        report.add(str(one))
    schema = job.rows.schema()
    for number in range(job.partitions):
        cut = [pa.Table.from_batches(list(batches_of(part[number])), schema=schema) for part in told]  # type: ignore[arg-type]
        (folder / f"{number}.rows").write_bytes(as_bytes(schema, [joined_parts(job, cut)]))
    if report.profile is not None:
        (folder / "profile.stats").write_bytes(report.profile.to_bytes())
    return {"accepted": report.accepted, "refused": report.refused, "letters": report.letters, "nodes": 1}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is this process."""
    monkeypatch.setattr(ray_backfill, "drive", drive_here)
    monkeypatch.setattr(ray_backfill, "check_installed", lambda: None)


ASKED = {
    "user_id": [*range(-1, KEYS + 3)],
    "city": [("Oslo", "Rome", "", "Łódź")[number % 4] for number in range(KEYS + 4)],
    "number": [number % 3 for number in range(KEYS + 4)],
}


def answers(store: FeatureStore, clock: list[int]) -> list[str]:
    """What the table says of every key at several times, as text that tells the bits."""
    found = []
    for later_us in (0, 1, 3_600_000_000, DAY_US, 5 * DAY_US):
        clock[0] = NOW_US + later_us
        found.append(repr(store.get_online_features("all", ASKED)))
    clock[0] = NOW_US
    return found


def check_same(one: FeatureStore, other: FeatureStore, clock: list[int]) -> None:
    assert answers(one, clock) == answers(other, clock)
    for view in ("stock", "shops", "world", "spent"):
        assert one.open_online().intervals(view) == other.open_online().intervals(view)
        mine, others = one.describe(view), other.describe(view)
        assert mine["rows"] == others["rows"]
        for name, column in mine["columns"].items():
            assert {key: column[key] for key in ("nulls", "min", "max", "quantiles", "distinct")} == {
                key: others["columns"][name][key] for key in ("nulls", "min", "max", "quantiles", "distinct")
            }


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_parts_give_the_answers_of_a_load_row_by_row(store_at: Callable[..., FeatureStore], seed: int) -> None:
    clock = [NOW_US]
    with store_at("row_by_row", clock, seed) as one, store_at("parts", clock, seed) as other:
        expected = one.materialize()
        found = other.materialize(on="ray")
        check_same(one, other, clock)
        for view, counts in expected.items():
            assert found[view].refused == counts.refused
            assert found[view].rows == counts.rows
            assert found[view].inserted == counts.inserted or view == "spent"
        letters = [sorted(store.config.state.glob("dead-letter/shops/*.parquet")) for store in (one, other)]
        texts = [[pq.read_table(path).column("row").to_pylist() for path in paths] for paths in letters]
        assert texts[0] == texts[1] != []
        assert not list(other.config.spill.iterdir())


class KilledError(Exception):
    """In place of the end of a process: nothing after it is done."""


def kill_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next writes but so many fail."""
    write, left = OnlineStore.write, [writes]

    def dying(self: OnlineStore, *args: Any, **options: Any) -> None:
        if left[0] == 0:
            raise KilledError
        left[0] -= 1
        write(self, *args, **options)

    monkeypatch.setattr(OnlineStore, "write", dying)


BEFORE_US = NOW_US - 2 * DAY_US
BEFORE = NOW - dt.timedelta(days=2)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("first_on", [None, "ray"])
@pytest.mark.parametrize("then_on", [None, "ray"])
def test_a_load_that_dies_half_way_counts_nothing_twice(
    store_at: Callable[..., FeatureStore],
    monkeypatch: pytest.MonkeyPatch,
    first_on: str | None,
    then_on: str | None,
) -> None:
    """Also where the files have changed meanwhile, so that it cannot go on where it stopped."""
    clock = [NOW_US]
    monkeypatch.setattr(sources, "BATCH_ROWS_MAX", 300)
    monkeypatch.setattr(ray_backfill, "BATCH_ROWS_MAX", 20)
    with store_at("whole", clock) as whole, store_at("dying", clock) as dying:
        whole.materialize()
        write_sources(dying.config.root, 1, until_us=NOW_US - DAY_US)
        dying.materialize(end=BEFORE, on=first_on)
        with monkeypatch.context() as patch:
            kill_after(9, patch)
            with pytest.raises(KilledError):
                dying.materialize_incremental(views=["spent"], on=first_on)
        write_sources(dying.config.root, 1)
        dying.materialize_incremental(on=then_on)
        assert answers(dying, clock) == answers(whole, clock)


@pytest.mark.usefixtures("here")
def test_loads_add_up_wherever_they_run(store_at: Callable[..., FeatureStore]) -> None:
    clock = [NOW_US]
    with store_at("once", clock) as once, store_at("twice", clock) as twice:
        for store in (once, twice):
            store.materialize()
            store.materialize_incremental()
        expected = answers(once, clock)
    with store_at("mixed", clock) as mixed:
        mixed.materialize(end=BEFORE, on="ray")
        mixed.materialize_incremental(end=NOW - dt.timedelta(hours=5))
        mixed.materialize_incremental(on="ray")
        assert answers(mixed, clock) == expected


@pytest.mark.usefixtures("here")
def test_erased_keys_stay_away(store_at: Callable[..., FeatureStore]) -> None:
    clock = [NOW_US]
    with store_at("one", clock) as one, store_at("other", clock) as other:
        found = []
        for store, on in ((one, None), (other, "ray")):
            store.materialize()
            store.erase("user", {"user_id": [3, 4]})
            found.append(store.materialize(on=on))
        assert found[0]["stock"].refused["erased"] > 0
        assert found[0]["spent"].refused == found[1]["spent"].refused
        assert answers(one, clock) == answers(other, clock)


def test_events_that_were_pushed_count_once(make_project: Callable[..., Path]) -> None:
    root = make_project(DEFINITIONS.replace('FileSource("spent.parquet", event_ts="at")', 'PushSource(event_ts="at")'))
    write_sources(root, 1)
    clock = [NOW_US]
    with FeatureStore(root, clock=lambda: clock[0]) as store:
        store.apply()
        store.materialize()
        store.materialize(views=["spent"])
        clock[0] += DAY_US
        hours = [NOW + dt.timedelta(hours=hour) for hour in range(8)]
        store.push("spent", {"user_id": [1] * 8, "at": hours, "amount": [5.0] * 8, "item": ["a"] * 8})
        expected = repr(store.get_online_features("all", ASKED))
        store.materialize_incremental(views=["spent"])
        assert repr(store.get_online_features("all", ASKED)) == expected
