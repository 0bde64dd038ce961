"""Rows of feature views on their way into the engine: read from files or handed over by programs, in one shape.

That shape: the view's key columns and fields by name and exact type, `__event_ts` and `__created_ts` (null type for
static
rows), and `__deleted` where some rows are deletions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.csv import ConvertOptions
from pyarrow.json import ParseOptions

from headrace.digests import digest_json
from headrace.dtypes import DType
from headrace.errors import make_error, nearest_hint
from headrace.frames import TIMESTAMP, arrow_type, cast_column, take_columns, to_table

EVENT_TS = "__event_ts"
CREATED_TS = "__created_ts"
DELETED = "__deleted"
BATCH_ROWS_MAX = 65_536
_CSV_NULLS = ["", "NA", "N/A", "NULL", "null"]  # without quotes; NaN is a number


class ViewRows:
    """What the plan says about one view, as far as its rows are concerned."""

    def __init__(self, plan: dict[str, Any], name: str) -> None:
        """Looks the view up in a plan document.

        Raises:
            UnknownNameError: `unknown_feature_view`.
        """
        if name not in plan["views"]:
            raise make_error(
                "unknown_feature_view",
                f"there is no feature view '{name}'",
                nearest_hint(name, plan["views"], "feature views"),
            )
        view = plan["views"][name]
        self.name = name
        self.source: dict[str, Any] = view["source"]
        self.keys = {
            key["name"]: DType(key["dtype"])
            for entity in view["entities"]
            for key in plan["entities"][entity]["join_keys"]
        }
        self._aggregations = view.get("aggregations")
        self.fields = {field["name"]: DType(field["dtype"]) for field in view["fields"]}

    @property
    def is_static(self) -> bool:
        """Whether its rows have no event time."""
        return self.source["event_ts"] is None

    @property
    def is_windowed(self) -> bool:
        """Whether its rows are events, over which its features are aggregates."""
        return bool(self._aggregations)

    @property
    def aggregates(self) -> str | None:
        """Names what is aggregated from what; None for a plain view."""
        if not self._aggregations:
            return None
        columns = [[name, str(dtype)] for name, dtype in self.fields.items()]
        return digest_json(json.dumps([columns, self._aggregations]))

    @property
    def is_pushed(self) -> bool:
        return bool(self.source["kind"] == "push")

    def columns(self, given_by_files: bool) -> dict[str, str]:
        """Column as the engine knows it -> its name in the source."""
        inverse = {new: old for old, new in self.source["rename"].items()} if given_by_files else {}
        names = {name: inverse.get(name, name) for name in (*self.keys, *self.fields)}
        if self.source["event_ts"] is not None:
            names[EVENT_TS] = self.source["event_ts"]
        if self.source["created_ts"] is not None:
            names[CREATED_TS] = self.source["created_ts"]
        return names

    def schema(self) -> pa.Schema:
        """The Arrow schema of the engine's shape."""
        time = pa.null() if self.is_static else TIMESTAMP
        fields = [(name, arrow_type(dtype)) for name, dtype in (*self.keys.items(), *self.fields.items())]
        fields += [(EVENT_TS, time), (CREATED_TS, time)]
        return pa.schema(fields + ([(DELETED, pa.bool_())] if self.is_pushed else []))

    def shape(self, table: pa.Table, now_us: int, place: str, *, given_by_files: bool) -> pa.Table:
        """The rows in the engine's shape.

        Args:
            table: at least the columns that the view's source names.
            now_us: stands in for a creation time that is not known.
            place: what the table is, for messages.
            given_by_files: rows of the view's source (its `rename` applies), rather than pushed ones.

        Raises:
            InputError: `missing_column`, `type_mismatch`.
        """
        names = self.columns(given_by_files)
        if not given_by_files and names.get(CREATED_TS) not in table.column_names:
            names.pop(CREATED_TS, None)
        distinct = list(dict.fromkeys(names.values()))
        taken = take_columns(table, distinct, place)
        columns: dict[str, Any] = {}
        for name, dtype in (*self.keys.items(), *self.fields.items()):
            columns[name] = cast_column(taken.column(names[name]), dtype, f"{place}, column '{names[name]}'")
        columns[EVENT_TS], columns[CREATED_TS] = self._times(taken, names, now_us, place, given_by_files)
        if self.is_pushed:
            columns[DELETED] = pa.repeat(pa.scalar(False), table.num_rows)
        return pa.table(columns)

    def _times(
        self, table: pa.Table, names: dict[str, str], now_us: int, place: str, given_by_files: bool
    ) -> tuple[Any, Any]:
        if self.is_static:
            nothing = pa.nulls(table.num_rows)
            return nothing, nothing
        timestamp = DType("timestamp")
        event_ts = cast_column(table.column(names[EVENT_TS]), timestamp, f"{place}, column '{names[EVENT_TS]}'")
        delay_us = self.source["available_after_us"]
        if delay_us is not None:
            known = pc.add_checked(event_ts.cast(pa.int64()), delay_us).cast(TIMESTAMP)
        elif given_by_files and CREATED_TS not in names:
            known = event_ts
        else:
            known = pa.scalar(now_us, pa.int64()).cast(TIMESTAMP)
        if CREATED_TS not in names:
            return event_ts, known if isinstance(known, pa.ChunkedArray) else pa.repeat(known, table.num_rows)
        created_ts = cast_column(table.column(names[CREATED_TS]), timestamp, f"{place}, column '{names[CREATED_TS]}'")
        return event_ts, pc.coalesce(created_ts, known)

    def deletions(self, keys: Any, event_ts_us: int, created_ts_us: int, place: str) -> pa.Table:
        """Rows that delete the given keys at a time.

        Raises:
            InputError: `missing_column`, `type_mismatch`.
        """
        table = take_columns(to_table(keys, place), list(self.keys), place)
        rows = table.num_rows
        columns: dict[str, Any] = {
            name: cast_column(table.column(name), dtype, f"{place}, column '{name}'")
            for name, dtype in self.keys.items()
        }
        for name, dtype in self.fields.items():
            columns[name] = pa.nulls(rows, arrow_type(dtype))
        for name, time_us in ((EVENT_TS, event_ts_us), (CREATED_TS, created_ts_us)):
            columns[name] = pa.nulls(rows) if self.is_static else pa.repeat(pa.scalar(time_us).cast(TIMESTAMP), rows)
        columns[DELETED] = pa.repeat(pa.scalar(True), rows)
        return pa.table(columns)


def read_rows(view: ViewRows, root: Path, now_us: int) -> Iterator[pa.RecordBatch]:
    """The rows of a view's file source in the engine's shape, in the files' order, in batches.

    Args:
        view: whose source to read.
        root: where relative paths start from.
        now_us: stands in for a creation time that is not known.

    Raises:
        UnknownNameError: `not_found`, there is no such file.
        InputError: `missing_column` or `type_mismatch`, naming file, view and column.
        StoreError: `io`, a file cannot be read.
    """
    place = _place(view, root)
    with _readable(place):
        yield from _shaped(view, _dataset(view, root, place), now_us, place)


def source_parts(view: ViewRows, root: Path) -> list[tuple[int, tuple[int, ...] | None]]:
    """A view's files, or for Parquet their row groups, in the order of their rows: what `read_part` reads.

    Raises:
        UnknownNameError, InputError: as `read_rows`.
    """
    parts: list[tuple[int, tuple[int, ...] | None]] = []
    place = _place(view, root)
    with _readable(place):
        for number, fragment in enumerate(_dataset(view, root, place).get_fragments()):
            if isinstance(fragment, ds.ParquetFileFragment):
                parts.extend((number, (group.id,)) for group in fragment.row_groups)
            else:
                parts.append((number, None))
    return parts


def read_part(
    view: ViewRows, root: Path, now_us: int, part: tuple[int, tuple[int, ...] | None]
) -> Iterator[pa.RecordBatch]:
    """As `read_rows`, for one of the `source_parts`."""
    place = _place(view, root)
    number, groups = part
    with _readable(place):
        dataset = _dataset(view, root, place)
        fragment = list(dataset.get_fragments())[number]
        if groups is not None:
            fragment = fragment.subset(row_group_ids=list(groups))
        yield from _shaped(view, fragment, now_us, place, schema=dataset.schema)


def _place(view: ViewRows, root: Path) -> str:
    return f"the source {root / view.source['path']} of view '{view.name}'"


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turns what a reader raises into an error that names the source."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise make_error(
            "io", f"{place} cannot be read: {reason}", "correct the file, or the source's format"
        ) from error


def _shaped(view: ViewRows, rows: Any, now_us: int, place: str, **options: Any) -> Iterator[pa.RecordBatch]:
    columns = list(dict.fromkeys(view.columns(True).values()))
    for batch in rows.scanner(columns=columns, batch_size=BATCH_ROWS_MAX, **options).to_batches():
        table = pa.Table.from_batches([batch])
        yield from view.shape(table, now_us, place, given_by_files=True).to_batches(max_chunksize=BATCH_ROWS_MAX)


def _dataset(view: ViewRows, root: Path, place: str) -> Any:
    source = view.source
    given = root / source["path"]
    paths = [str(given)] if given.exists() else sorted(str(path) for path in root.glob(source["path"]))
    if not paths:
        raise make_error(
            "not_found", f"{place} does not exist", "correct the path; relative ones start at sources.root"
        )
    files: Any = paths[0] if len(paths) == 1 else paths
    file_format = source["format"]
    if file_format == "parquet":
        dataset = ds.dataset(files, format="parquet")
        found = dataset.schema.names
    else:
        found = ds.dataset(files, format="json" if file_format == "jsonl" else "csv").schema.names
        dataset = ds.dataset(files, format=_text_format(view, file_format))
    for name in view.columns(True).values():
        if name not in found:
            raise make_error("missing_column", f"{place} has no column '{name}'", nearest_hint(name, found, "columns"))
    return dataset


def _text_format(view: ViewRows, file_format: str) -> Any:
    """A reader that takes the types from the definition, because text has none. Times are parsed afterwards."""
    dtypes = view.keys | view.fields
    types = {}
    for name, old in view.columns(True).items():
        dtype = dtypes.get(name, DType("timestamp"))
        types[old] = pa.string() if dtype == "timestamp" else arrow_type(dtype)
    if file_format == "csv":
        options = ConvertOptions(
            column_types=types, null_values=_CSV_NULLS, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        return ds.CsvFileFormat(convert_options=options)
    parse = ParseOptions(explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore")
    return ds.JsonFileFormat(parse_options=parse)


def between(batch: pa.RecordBatch, start_us: int | None, end_us: int) -> pa.RecordBatch:
    """The rows from `start_us` until before `end_us`, and those without an event time, which the engine counts."""
    event_ts = batch.column(EVENT_TS)
    chosen = pc.less(event_ts, pa.scalar(end_us).cast(TIMESTAMP))
    if start_us is not None:
        chosen = pc.and_(chosen, pc.greater_equal(event_ts, pa.scalar(start_us).cast(TIMESTAMP)))
    return batch.filter(pc.fill_null(chosen, True))


def accepted(view: ViewRows, batch: pa.RecordBatch, latest_us: int) -> pa.Table:
    """The rows that a store takes: with a whole key and, unless the view is static, an event time up to `latest_us`."""
    chosen = pa.repeat(pa.scalar(True), batch.num_rows)
    for name in view.keys:
        chosen = pc.and_(chosen, pc.is_valid(batch.column(name)))
    if not view.is_static:
        in_time = pc.less_equal(batch.column(EVENT_TS), pa.scalar(latest_us).cast(TIMESTAMP))
        chosen = pc.and_(chosen, pc.fill_null(in_time, False))
    return pa.Table.from_batches([batch.filter(chosen)])


def read_history(view: ViewRows, folder: Path) -> Iterator[pa.RecordBatch]:
    """The pushed rows of a view in the order of the pushes. A feature that is younger than a row is null in it.

    Raises:
        StoreError: `corrupt_store`, a file cannot be read.
    """
    schema = view.schema()
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = pq.read_table(path)
            columns = [
                table.column(field.name).cast(field.type)
                if field.name in table.column_names
                else pa.nulls(table.num_rows, field.type)
                for field in schema
            ]
        except (pa.ArrowException, OSError) as error:
            raise make_error(
                "corrupt_store", f"the history file {path} cannot be read: {error}", "restore the file, or remove it"
            ) from error
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches(max_chunksize=BATCH_ROWS_MAX)
