from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import FeatureStore, HeadraceError
from headrace.compiler import compile_plan
from headrace.definitions import Entity, FeatureView, Field, FileSource
from headrace.sources import ViewRows, between, read_rows

NOON = dt.datetime(2013, 6, 1, 12, tzinfo=dt.UTC)
NOW_US = int(NOON.timestamp()) * 1_000_000
HOUR = dt.timedelta(hours=1)
FIELDS = [Field("x", "float64"), Field("n", "int64"), Field("word", "string"), Field("when", "timestamp")]
ROWS = [
    {"id": 1, "at": NOON - HOUR, "x": 1.5, "n": 2**53 + 1, "word": "NA", "when": NOON},
    {"id": 2, "at": NOON, "x": float("nan"), "n": None, "word": None, "when": None},
]


def rows_of(path: Path, **source: Any) -> pa.Table:
    given = {"event_ts": "at"} | source
    view = FeatureView("v", [Entity("e", join_keys=[Field("id", "int64")])], FIELDS, FileSource(path.name, **given))
    rows = ViewRows(json.loads(compile_plan("p", [view])), "v")
    return pa.Table.from_batches(read_rows(rows, path.parent, NOW_US), rows.schema())


def write_parquet(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    types = {"at": pa.timestamp("us", "UTC"), "when": pa.timestamp("ms", "Asia/Tokyo"), "n": pa.int64()}
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]}
    pq.write_table(pa.table(columns), path)
    return path


def write_csv(path: Path) -> Path:
    path.write_text(
        "id,at,x,n,word,when,extra\n"
        f'1,2013-06-01T11:00:00Z,1.5,{2**53 + 1},"NA",2013-06-01 14:00:00+02:00,?\n'
        "2,2013-06-01 12:00:00,NaN,,NA,,?\n"
    )
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text(
        f'{{"id": 1, "at": "2013-06-01T11:00:00Z", "x": 1.5, "n": {2**53 + 1}, "word": "NA",'
        ' "when": "2013-06-01T12:00:00"}\n'
        '{"id": 2, "at": "2013-06-01T12:00:00Z", "x": NaN, "n": null, "word": null}\n'
    )
    return path


@pytest.mark.parametrize("write", [write_parquet, write_csv, write_jsonl])
def test_every_format_gives_the_same_rows(tmp_path: Path, write: Any) -> None:
    table = rows_of(write(tmp_path / f"rows.{write.__name__.removeprefix('write_')}"))
    found = table.to_pylist()
    assert str(found[1].pop("x")) == "nan", "NaN is a number and not null"
    expected = [{**row, "__event_ts": row["at"], "__created_ts": row["at"]} for row in ROWS]
    for row in expected:
        del row["at"]
    del expected[1]["x"]
    assert found == expected


def test_a_column_may_be_the_time_and_a_feature_under_two_names(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": [1], "at": pa.array([NOON]), "x": [1.0], "n": [1], "word": ["a"]}), tmp_path / "r.parquet"
    )
    table = rows_of(tmp_path / "r.parquet", rename={"at": "when"})
    assert table.column("when").to_pylist() == table.column("__event_ts").to_pylist() == [NOON]


def test_when_a_row_became_known(tmp_path: Path) -> None:
    created = [{**row, "made": made} for row, made in zip(ROWS, [NOON - 2 * HOUR, None], strict=True)]
    path = write_parquet(tmp_path / "r.parquet", created)
    known = rows_of(path, created_ts="made").column("__created_ts").to_pylist()
    assert known == [NOON - 2 * HOUR, NOON], "null: the time of reading"
    known = rows_of(path, created_ts="made", available_after=HOUR).column("__created_ts").to_pylist()
    assert known == [NOON - 2 * HOUR, NOON + HOUR], "null: the event time and the delay"
    known = rows_of(path, available_after=HOUR).column("__created_ts").to_pylist()
    assert known == [NOON, NOON + HOUR]


def test_static_rows_have_no_times(tmp_path: Path) -> None:
    table = rows_of(write_parquet(tmp_path / "r.parquet"), event_ts=None)
    assert table.schema.field("__event_ts").type == table.schema.field("__created_ts").type == pa.null()


def test_a_folder_and_a_glob_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for name, row in (("b.parquet", ROWS[1]), ("a.parquet", ROWS[0])):
        write_parquet(tmp_path / "many" / name, [row])
    assert rows_of(tmp_path / "many", format="parquet").column("id").to_pylist() == [1, 2]
    view = FeatureView("v", [Entity("e", join_keys=[Field("id", "int64")])], FIELDS, FileSource("many/*.parquet", "at"))
    rows = ViewRows(json.loads(compile_plan("p", [view])), "v")
    assert [len(batch) for batch in read_rows(rows, tmp_path, NOW_US)] == [1, 1]


def ids_between(batch: pa.RecordBatch, start_us: int, end_us: int) -> list[Any]:
    view = FeatureView("v", [Entity("e", join_keys=[Field("id", "int64")])], FIELDS, FileSource("r.parquet", "at"))
    rows = ViewRows(json.loads(compile_plan("p", [view])), "v")
    found: list[Any] = between(rows, batch, start_us, end_us, NOW_US).column("id").to_pylist()
    return found


def test_between_is_half_open_and_keeps_rows_without_a_time(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "at": None}]
    [batch] = rows_of(write_parquet(tmp_path / "r.parquet", rows)).to_batches()
    assert ids_between(batch, NOW_US - 3_600_000_000, NOW_US) == [1, 1]
    assert ids_between(batch, NOW_US, NOW_US + 1) == [2, 1]


@pytest.mark.parametrize(
    ("write", "code", "parts"),
    [
        (lambda path: None, "not_found", ["does not exist", "'v'"]),
        (lambda path: path.write_bytes(b"PAR1 no PAR1"), "io", ["cannot be read"]),
        (
            lambda path: pq.write_table(pa.table({"id": [1], "at": pa.array([NOON]), "xx": [1.0]}), path),
            "missing_column",
            ["no column 'x'", "'v'", "did you mean 'xx'"],
        ),
        (
            lambda path: write_parquet(path, [{**ROWS[0], "word": 7}]),
            "type_mismatch",
            ["column 'word'", "int64, not string", "'v'"],
        ),
    ],
)
def test_what_is_wrong_with_a_source_is_named(tmp_path: Path, write: Any, code: str, parts: list[str]) -> None:
    path = tmp_path / "rows.parquet"
    write(path)
    with pytest.raises(HeadraceError) as raised:
        rows_of(path)
    assert raised.value.code == code
    for part in [*parts, "rows.parquet"]:
        assert part in str(raised.value)


def test_an_empty_source_has_no_rows(tmp_path: Path) -> None:
    pq.write_table(pq.read_table(write_parquet(tmp_path / "r.parquet")).slice(0, 0), tmp_path / "r.parquet")
    assert rows_of(tmp_path / "r.parquet").num_rows == 0


def test_a_missing_file_does_not_end_the_others(weather_store: FeatureStore, weather_project: Path) -> None:
    (weather_project / "runways.csv").unlink()
    with pytest.raises(HeadraceError, match="runways"):
        weather_store.materialize()
    weather_store.materialize(views=["weather"])
    assert weather_store.open_online().next_sequence == 6
