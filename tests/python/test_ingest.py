"""Files from anywhere, rows that cannot be taken, and loads that go on where they were cut off."""

from __future__ import annotations

import datetime as dt
import gzip
import http.server
import json
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import FeatureStore, HeadraceError, RefusedRowsWarning, loads, sources
from headrace.cells import cast_rows
from headrace.dtypes import DType
from headrace.loads import Done
from headrace.sources import ViewRows, read_tables

NOON = dt.datetime(2013, 6, 1, 12, tzinfo=dt.UTC)
NOW_US = int(NOON.timestamp()) * 1_000_000
CSV = "id,at,x,n\n1,2013-06-01T10:00:00Z,1.5,7\n2,2013-06-01T11:00:00Z,,8\n"
DEFINITIONS = """
from headrace import *
import datetime as dt

item = Entity("item", join_keys=[Field("id", Int64)])
view = FeatureView("view", [item], [Field("x", Float64), Field("n", Int8)], FileSource({source}))
pushed = FeatureView("pushed", [item], [Field("x", Float64), Field("n", Int8)], PushSource(event_ts="at"))
values = FeatureService("values", [view])
"""
WITH_WINDOWS = (
    DEFINITIONS
    + """
counts = [Aggregation("x", ["count", "sum"], dt.timedelta(days=1))]
events = FeatureView("events", [item], [Field("x", Float64)], FileSource({source}), aggregations=counts)
sums = FeatureService("sums", [events])
"""
)


@pytest.fixture
def open_project(make_project: Callable[..., Path]) -> Iterator[Callable[..., FeatureStore]]:
    """Opens a project whose view reads a source: `open_project('"rows.csv", event_ts="at"')`."""
    stores: list[FeatureStore] = []

    def open_one(source: str, settings: str = "", definitions: str = DEFINITIONS) -> FeatureStore:
        for store in stores:
            store.close()
        root = make_project(definitions.format(source=source), settings)
        store = FeatureStore(root, clock=lambda: NOW_US)
        store.apply()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        store.close()


def letters(store: FeatureStore, view: str = "view") -> list[dict[str, Any]]:
    files = sorted((store.config.state / "dead-letter" / view).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def online(store: FeatureStore, *ids: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = store.get_online_features("values", {"id": list(ids)})["features"]
    return found


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of this machine, and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_files_at_a_url_are_read(
    open_project: Callable[..., FeatureStore], tmp_path: Path, web: tuple[str, Path]
) -> None:
    (tmp_path / "rows.csv").write_text(CSV)
    (web[1] / "rows.csv").write_text(CSV)
    with fsspec.open("memory://headrace/rows.csv", "w") as file:
        file.write(CSV)
    for source in (f"file://{tmp_path}/rows.csv", "memory://headrace/rows.csv", f"{web[0]}/rows.csv"):
        store = open_project(f'"{source}", event_ts="at"')
        assert store.materialize()["view"].rows == 2
        assert online(store, 1, 2) == {"x": [1.5, None], "n": [7, 8]}
        joined = store.get_historical_features("values", {"id": [1], "event_timestamp": [NOON]})
        assert joined["n"].to_pylist() == [7]


def test_parquet_in_a_folder_at_a_url(open_project: Callable[..., FeatureStore]) -> None:
    for name, ids in (("b", [2]), ("a", [1]), ("_hidden", [9])):
        table = pa.table({"id": ids, "at": [NOON], "x": [1.0], "n": pa.array(ids, pa.int8())})
        with fsspec.open(f"memory://folder/{name}.parquet", "wb") as file:
            pq.write_table(table, file)
    for path in ("memory://folder", "memory://folder/[ab].parquet"):
        store = open_project(f'"{path}", event_ts="at", format="parquet"')
        assert store.materialize(end=NOON + dt.timedelta(seconds=1))["view"].rows == 2
        assert online(store, 1, 2, 9)["n"] == [1, 2, None]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("memory://nowhere/rows.csv", "not_found"),
        ("memory://nowhere/*.csv", "not_found"),
        ("nonsense://nowhere/rows.csv", "io"),
        ("http://127.0.0.1:1/rows.csv", "io"),
    ],
)
def test_a_url_that_leads_nowhere_is_named(open_project: Callable[..., FeatureStore], path: str, code: str) -> None:
    store = open_project(f'"{path}", event_ts="at"')
    with pytest.raises(HeadraceError) as raised:
        store.materialize()
    assert raised.value.code in (code, "not_found")
    assert path in str(raised.value) and "view" in str(raised.value)


def test_packed_text_is_read(open_project: Callable[..., FeatureStore], tmp_path: Path) -> None:
    store = open_project('"rows.csv.gz", event_ts="at"')
    (store.config.root / "rows.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    store.materialize()
    assert online(store, 1)["x"] == [1.5]


BAD_CSV = (
    CSV
    + "3,2013-06-01T10:00:00Z,many,7\n"  # x is no number
    + "4,2013-06-01T10:00:00Z,1,400\n"  # n is no int8
    + "5,yesterday,1,4\n"
    + "six,2013-06-01T10:00:00Z,1,4\n"
    + "7,2013-06-01T10:00:00Z\n"  # cells are missing
    + ",2013-06-01T10:00:00Z,1,4\n"  # no key
    + "9,,1,4\n"  # no time
    + "10,2013-07-01T10:00:00Z,1,4\n"  # a month ahead
    + "11,2013-06-01T11:30:00Z, 2.5 ,-4\n"
)


def as_jsonl(text: str) -> str:
    lines = []
    names = text.splitlines()[0].split(",")
    for line in text.splitlines()[1:]:
        row: dict[str, Any] = {}
        for name, cell in zip(names, line.split(","), strict=False):
            try:
                row[name] = None if cell == "" else json.loads(cell)
            except ValueError:
                row[name] = cell
        lines.append(json.dumps(row) if len(row) == len(names) else "{" + line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_wrong_rows_are_counted_and_kept_and_end_nothing(
    open_project: Callable[..., FeatureStore], file_format: str
) -> None:
    store = open_project(f'"rows.{file_format}", event_ts="at"')
    text = BAD_CSV if file_format == "csv" else as_jsonl(BAD_CSV)
    (store.config.root / f"rows.{file_format}").write_text(text)
    [counts] = store.materialize(end=NOON + dt.timedelta(days=100)).values()
    assert counts.refused == {"type_mismatch": 4, "malformed": 1, "null_key": 1, "null_event_ts": 1, "future": 1}
    assert counts.rows == 11
    assert counts.inserted == 3
    assert online(store, *range(1, 12))["x"] == [1.5, *[None] * 9, 2.5]
    kept = letters(store)
    assert sorted(letter["reason"] for letter in kept) == sorted(
        reason for reason, count in counts.refused.items() for _ in range(count)
    )
    assert all(f"rows.{file_format}" in letter["origin"] for letter in kept)
    wrong = [letter for letter in kept if "many" in letter["row"]]
    assert ["x" in letter["detail"] for letter in wrong] == [True]
    joined = store.get_historical_features("values", {"id": [11, 4], "event_timestamp": [NOON, NOON]})
    assert joined["x"].to_pylist() == [2.5, None], "training leaves out the same rows"


def test_refused_rows_kept_are_bounded(open_project: Callable[..., FeatureStore]) -> None:
    limits = "[ingest]\ndead_letter_rows_max = 3\ndead_letter_files_max = 2\n"
    store = open_project('"rows.csv", event_ts="at"', limits)
    (store.config.root / "rows.csv").write_text("id,at,x,n\n" + "x,x,x,x\n" * 1000)
    for _ in range(4):
        [counts] = store.materialize().values()
        assert counts.refused == {"type_mismatch": 1000}
        assert len(letters(store)) <= 6
    assert len(letters(store)) == 6


def test_no_room_for_refused_rows_does_not_fail_the_load(open_project: Callable[..., FeatureStore]) -> None:
    store = open_project('"rows.csv", event_ts="at"')
    (store.config.root / "rows.csv").write_text(BAD_CSV)
    (store.config.state / "dead-letter").write_text("a file where the folder should be")
    assert store.materialize()["view"].inserted == 3


def test_rows_refused_in_a_push_are_kept(open_project: Callable[..., FeatureStore]) -> None:
    store = open_project('"rows.csv", event_ts="at"')
    with pytest.warns(RefusedRowsWarning, match="1 null_key"):
        counts = store.push("pushed", {"id": [1, None], "at": [NOON, NOON], "x": [1.0, 2.0], "n": [1, 2]})
    assert (counts.rows, counts.refused) == (2, {"null_key": 1})
    [letter] = letters(store, "pushed")
    assert (letter["origin"], json.loads(letter["row"])["x"]) == ("push", 2.0)


def test_rows_are_served_from_when_they_were_known(open_project: Callable[..., FeatureStore]) -> None:
    """What is loaded until a time answers as a join as of it and as known then; each row comes with one load."""
    source = '"rows.csv", event_ts="at", created_ts="made"'
    store = open_project(source, definitions=WITH_WINDOWS)
    (store.config.sources_root / "rows.csv").write_text(
        "id,at,made,x,n\n"
        "1,2013-06-01T10:00:00Z,2013-06-01T10:00:00Z,1,1\n"
        "1,2013-06-01T10:30:00Z,2013-06-01T11:30:00Z,2,2\n"  # known later than it happened
        "1,2013-06-01T10:00:00Z,2013-06-01T11:45:00Z,4,3\n"  # a correction
        "2,2013-06-01T10:00:00Z,,8,4\n"  # nobody says when it was known
        "2,2013-06-01T11:40:00Z,,16,5\n"
    )
    counted = []
    for hour in (11, 12):
        end = NOON.replace(hour=hour)
        store.materialize_incremental(end=end)
        asked = {"id": [1, 2], "event_timestamp": [end] * 2, "known": [end] * 2}
        joined = store.get_historical_features("values", asked, as_known_at="known")
        found = online(store, 1, 2)
        assert found["x"][0] == joined["x"].to_pylist()[0] == {11: 1.0, 12: 2.0}[hour]
        assert found["x"][1] == {11: 8.0, 12: 16.0}[hour]
        counted.append(store.get_online_features("sums", {"id": [1, 2]})["features"])
    assert [list(of_hour.values()) for of_hour in counted] == [[[1, 1], [1.0, 8.0]], [[3, 2], [7.0, 24.0]]]


def test_a_delay_of_a_source_holds_its_rows_back(open_project: Callable[..., FeatureStore]) -> None:
    store = open_project('"rows.csv", event_ts="at", available_after=dt.timedelta(minutes=30)')
    (store.config.sources_root / "rows.csv").write_text(CSV)
    counts = store.materialize(end=NOON.replace(hour=11, minute=15))
    assert counts["view"].rows == 1
    assert online(store, 1, 2)["n"] == [7, None]
    assert store.materialize_incremental(end=NOON)["view"].rows == 1
    assert online(store, 1, 2)["n"] == [7, 8]


def test_a_file_to_push_that_is_not_there_is_looked_for_here(
    open_project: Callable[..., FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_project('"rows.csv", event_ts="at"')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadraceError, match=r"the file gone\.csv .* does not exist") as caught:
        store.push_file("pushed", "gone.csv")
    assert caught.value.hint == f"correct the path; it starts in {tmp_path}"


def test_what_is_read_ahead_is_not_kept(open_project: Callable[..., FeatureStore]) -> None:
    """A load holds some row groups of a file at a time, not the file."""
    store = open_project('"rows.parquet", event_ts="at"')
    group = pa.table({name: np.random.default_rng(1).random(50_000) for name in ("id", "x", "n")})
    group = group.append_column("at", pa.array(range(50_000), pa.timestamp("us", "UTC")))
    with pq.ParquetWriter(store.config.sources_root / "rows.parquet", group.schema) as writer:
        for _ in range(150):  # several times what is read ahead, which does not grow with the file
            writer.write_table(group)
    view, before, most = ViewRows(json.loads(store.applied.json), "view"), pa.total_allocated_bytes(), 0
    names = view.columns(True)
    for table in read_tables(view, names, "rows.parquet", "parquet", store.config.sources_root, "the file", None):
        most = max(most, pa.total_allocated_bytes() - before - table.nbytes)
    assert most < (store.config.sources_root / "rows.parquet").stat().st_size / 2


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_a_file_is_pushed(open_project: Callable[..., FeatureStore], tmp_path: Path, file_format: str) -> None:
    store = open_project('"rows.csv", event_ts="at"')
    path = tmp_path / f"push.{file_format}"
    if file_format == "parquet":
        table = pa.table({"id": [1, 2], "at": [NOON, NOON], "x": [1.5, None], "n": [7, 8]})
        pq.write_table(table, path)
    else:
        path.write_text(CSV if file_format == "csv" else as_jsonl(CSV))
    assert store.push_file("pushed", path).inserted == 2
    assert store.push_file("view", path).inserted == 2, "a view of files takes pushed rows too"
    store.compact()
    history = pq.read_table(store.config.state / "history" / "pushed").to_pydict()
    assert (history["id"], history["n"]) == ([1, 2], [7, 8])
    assert online(store, 1, 2)["n"] == [7, 8]


def small_batches(monkeypatch: pytest.MonkeyPatch, rows: int = 10) -> None:
    monkeypatch.setattr(sources, "BATCH_ROWS_MAX", rows)


def write_rows(root: Path, count: int = 100, first: int = 0) -> None:
    times = [NOON - dt.timedelta(minutes=count - n) for n in range(count)]
    columns = {"id": list(range(first, first + count)), "at": times, "x": [n / 2 for n in range(count)]}
    pq.write_table(pa.table({**columns, "n": pa.array([1] * count, pa.int8())}), root / "rows.parquet")


class CutError(Exception):
    """Ends a load as a signal would."""


def cut_after(rows: int) -> Callable[[str, int], None]:
    def progress(_: str, done: int) -> None:
        if done >= rows:
            raise CutError

    return progress


def test_a_load_goes_on_where_it_was_cut_off(
    open_project: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    store = open_project('"rows.parquet", event_ts="at"')
    write_rows(store.config.root)
    for done in (30, 20):
        with pytest.raises(CutError):
            store.materialize(progress=cut_after(done))
    assert store.open_online().next_sequence == 50
    [counts] = store.materialize().values()
    assert (counts.rows, counts.inserted, counts.stale) == (50, 50, 0)
    assert store.open_online().progress("view") is None
    assert online(store, *range(100))["x"] == [n / 2 for n in range(100)]
    assert store.materialize()["view"].rows == 100, "a load that has ended is not gone on with"


def test_a_later_end_takes_what_the_first_part_left_out(
    open_project: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    store = open_project('"rows.parquet", event_ts="at"')
    write_rows(store.config.root)
    table = pq.read_table(store.config.root / "rows.parquet")
    pq.write_table(table.take(list(reversed(range(100)))), store.config.root / "rows.parquet")
    with pytest.raises(CutError):
        store.materialize(end=NOON - dt.timedelta(minutes=25), progress=cut_after(15))
    rows_before = store.open_online().next_sequence
    [counts] = store.materialize().values()
    assert rows_before + counts.rows == 100
    assert online(store, *range(100))["x"] == [n / 2 for n in range(100)]


def windows(store: FeatureStore) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = store.get_online_features("sums", {"id": [0, 99]})["features"]
    return found


@pytest.mark.parametrize("again", ["materialize", "materialize_incremental"])
def test_aggregates_whose_building_was_cut_off(
    open_project: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """A view of aggregates that is built anew forgets first; cut off there, whichever command follows completes it."""
    small_batches(monkeypatch)
    store = open_project('"rows.parquet", event_ts="at"', definitions=WITH_WINDOWS)
    write_rows(store.config.root)
    store.materialize(views=["events"])
    whole = windows(store)
    assert whole["x_count_1d"] == [1, 1]
    with pytest.raises(CutError):
        store.materialize(views=["events"], progress=cut_after(50))
    assert windows(store) != whole and not store.open_online().intervals("events")
    [counts] = getattr(store, again)(views=["events"]).values()
    assert counts.rows == 50, "what was done is not done again"
    assert windows(store) == whole


def test_changed_files_are_loaded_from_the_beginning(
    open_project: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    store = open_project('"rows.parquet", event_ts="at"')
    write_rows(store.config.root)
    with pytest.raises(CutError):
        store.materialize(progress=cut_after(50))
    write_rows(store.config.root, first=1000)
    assert store.materialize()["view"].rows == 100


def test_rows_refused_before_the_cut_are_not_counted_again(
    open_project: Callable[..., FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.text_files.BLOCK_BYTES", 256)
    store = open_project('"rows.jsonl", event_ts="at"')
    lines = [
        json.dumps({"id": n, "at": "2013-06-01T10:00:00Z", "x": "no" if n % 10 == 3 else 1.0, "n": 1})
        for n in range(200)
    ]
    (store.config.root / "rows.jsonl").write_text("\n".join(lines))
    refused = []
    write = loads.Intake.write

    def counted(self: loads.Intake, *arguments: Any, **options: Any) -> None:
        write(self, *arguments, **options)
        refused.append(self)

    monkeypatch.setattr(loads.Intake, "write", counted)
    with pytest.raises(CutError):
        store.materialize(progress=cut_after(80))
    first = refused[-1].counts
    [second] = store.materialize().values()
    assert first.refused["type_mismatch"] + second.refused["type_mismatch"] == 20
    assert first.inserted + second.inserted == 180
    assert second.stale == 0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 100)), max_size=6), st.integers(1, 13))
def test_what_is_done_is_never_more_than_what_was_loaded(cuts: list[tuple[int, int]], batch: int) -> None:
    """Whatever is cut off where, each row is loaded up to at least the last end, and no row twice for one time."""
    loaded: dict[int, list[tuple[int, int]]] = {row: [] for row in range(60)}
    done = Done("it")
    for stop, end_us in [*cuts, (60, 100)]:
        position, record = 0, None
        while position < stop:
            count = min(batch, 60 - position)
            for first, last, covered in done.split(position, count):
                for row in range(first, last):
                    start = -1 if covered is None else covered
                    if start < end_us:
                        loaded[row].append((start, end_us))
                record = json.loads(json.dumps(done.passed(last, end_us)))
            position += count
        done = Done.of_load(record, "it")
    for spans in loaded.values():
        assert max(end for _, end in spans) == 100
        assert spans[0][0] == -1


VALUES = {
    "int8": ["1", "-128", " 7 ", "128", "1.0", "x", ""],
    "float64": ["1", "1.5e3", "nan", "-inf", "1,5", "one", "0x"],
    "bool": ["true", "0", "False", "yes", "2"],
    "timestamp": ["2013-01-01", "2013-01-01T10:00:00+02:00", "2013-13-01", "now", "10:00"],
    "string": ["a", "é"],
}


@settings(max_examples=60)
@given(st.data())
def test_each_wrong_cell_is_found_and_no_right_one(data: st.DataObject) -> None:
    dtype = DType(data.draw(st.sampled_from(sorted(VALUES))))
    cells = data.draw(st.lists(st.one_of(st.none(), st.sampled_from(VALUES[dtype])), max_size=40))
    table = pa.table({"c": pa.array([None if cell is None else cell.encode() for cell in cells], pa.binary())})

    def is_right(cell: str | None) -> bool:
        one = pa.table({"c": pa.array([None if cell is None else cell.encode()], pa.binary())})
        try:
            cast_rows(one, {"v": ("c", dtype)}, "it", from_text=True, refuse=None)
        except HeadraceError as error:
            assert error.code == "type_mismatch"
            return False
        return True

    refused: list[Any] = []

    def refuse(_reason: str, rows: Any, _detail: str) -> None:
        refused.extend(rows.column("c").to_pylist())

    found = cast_rows(table, {"v": ("c", dtype)}, "it", from_text=True, refuse=refuse)["v"]
    right = [cell for cell in cells if is_right(cell)]
    assert len(found) == len(right)
    assert refused == [cell for cell in cells if not is_right(cell)]


def test_random_bytes_as_text_end_nothing(open_project: Callable[..., FeatureStore]) -> None:
    chance = random.Random(7)
    store = open_project('"rows.jsonl", event_ts="at"')
    good = json.dumps({"id": 1, "at": "2013-06-01T10:00:00Z", "x": 1.0, "n": 1}).encode()
    noise = [bytes(chance.randrange(256) for _ in range(chance.randrange(80))).replace(b"\n", b"") for _ in range(200)]
    (store.config.root / "rows.jsonl").write_bytes(b"\n".join([good, *noise, good]))
    [counts] = store.materialize().values()
    assert counts.inserted + counts.replaced + counts.stale == 2
    assert counts.refused["malformed"] > 100
