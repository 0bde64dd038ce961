"""What holds without any specification: offline and online agree, and the order of writes does not matter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from answers import Online, offline
from cases import TIMES_US, Case, Row, View, cases_with_keys, entity_rows
from hypothesis import given
from hypothesis import strategies as st


@st.composite
def questions(draw: st.DrawFn) -> tuple[Case, list[dict[str, Any]]]:
    case = draw(cases_with_keys())
    return case, draw(entity_rows(case))


def known(view: View, until_us: int, created_until_us: int | None = None) -> View:
    """The view with the rows that had happened, and were known, by then."""

    def counts(row: Row) -> bool:
        happened = row.event_ts is not None and row.event_ts <= until_us
        is_known = created_until_us is None or (row.created_ts is not None and row.created_ts <= created_until_us)
        return view.static or (happened and is_known)

    return dataclasses.replace(view, rows=tuple(row for row in view.rows if counts(row)))


@given(questions(), st.data())
def test_offline_and_online_give_the_same_bits(asked: tuple[Case, list[dict[str, Any]]], data: st.DataObject) -> None:
    case, rows = asked
    now_us = data.draw(TIMES_US, "now")
    rows = [{**row, "at": now_us} for row in rows]
    past = dataclasses.replace(case, views=tuple(known(view, now_us) for view in case.views))
    online = Online(past)
    for batch in online.batches([1, 5, 3]):
        online.store.apply(batch)
    assert online.read(rows, now_us) == offline(case, rows)


@given(questions(), st.data())
def test_a_knowledge_cutoff_is_the_store_as_it_was_then(
    asked: tuple[Case, list[dict[str, Any]]], data: st.DataObject
) -> None:
    case, rows = asked
    now_us, cutoff_us = data.draw(TIMES_US, "now"), data.draw(TIMES_US, "cutoff")
    rows = [{**row, "at": now_us, "cutoff": cutoff_us} for row in rows]
    past = dataclasses.replace(case, views=tuple(known(view, now_us, cutoff_us) for view in case.views))
    online = Online(past)
    for batch in online.batches([4]):
        online.store.apply(batch)
    answers = online.read(rows, now_us)
    assert answers == offline(case, rows, as_known_at="cutoff")
    if now_us == cutoff_us:
        assert answers == offline(case, rows, as_known_at=True)


@given(questions(), st.data())
def test_writes_may_arrive_in_any_order_and_more_than_once(
    asked: tuple[Case, list[dict[str, Any]]], data: st.DataObject
) -> None:
    case, rows = asked
    now_us = data.draw(TIMES_US, "now")
    in_order, shuffled = Online(case), Online(case)
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4), "sizes")
    batches = in_order.batches(sizes)
    for batch in batches:
        in_order.store.apply(batch)
    again = data.draw(st.lists(st.sampled_from(batches), max_size=3), "twice") if batches else []
    for batch in data.draw(st.permutations(batches + again), "order"):
        shuffled.store.apply(batch)
    assert shuffled.read(rows, now_us) == in_order.read(rows, now_us)
    assert len(shuffled.store) == len(in_order.store)


@given(questions(), st.data())
def test_snapshot_and_replay_is_the_live_store(
    tmp_path_factory: Any, asked: tuple[Case, list[dict[str, Any]]], data: st.DataObject
) -> None:
    case, rows = asked
    now_us = data.draw(TIMES_US, "now")
    live = Online(case)
    batches = live.batches([2, 7])
    cut = data.draw(st.integers(0, len(batches)), "batches before the snapshot")
    for batch in batches[:cut]:
        live.store.apply(batch)
    folder: Path = tmp_path_factory.mktemp("snapshot")
    live.store.write_snapshot(folder)
    for batch in batches[cut:]:
        live.store.apply(batch)
    read_only = data.draw(st.booleans(), "read only") and cut == len(batches)
    reopened = Online(case, type(live.store).open_snapshot(live.plan, folder, read_only))
    for batch in [] if read_only else batches[data.draw(st.integers(0, cut), "replayed from") :]:
        reopened.store.apply(batch)
    assert reopened.read(rows, now_us) == live.read(rows, now_us)
    assert len(reopened.store) == len(live.store)


@given(questions())
def test_threads_do_not_change_the_join(asked: tuple[Case, list[dict[str, Any]]]) -> None:
    case, rows = asked
    assert offline(case, rows, threads=1) == offline(case, rows, threads=3)
