"""Rows of feature views on their way into the engine: read from files or handed over by programs, in one shape.

That shape: the view's key columns and fields by name and exact type, `__event_ts` and `__created_ts` (null type for
static
rows), and `__deleted` where some rows are deletions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from headrace.aggregations import aggregates_digest
from headrace.cells import cast_rows
from headrace.digests import digest_file
from headrace.dtypes import DType
from headrace.errors import HeadraceError, make_error, nearest_hint
from headrace.frames import TIMESTAMP, arrow_type, cast_column, take_columns, take_keys, to_table
from headrace.locations import Location, find, is_url, unreachable
from headrace.text_files import Refuse, csv_columns, json_columns, open_text, read_csv, read_json_lines

EVENT_TS = "__event_ts"
CREATED_TS = "__created_ts"
DELETED = "__deleted"
BATCH_ROWS_MAX = 65_536
UNKNOWN_US = 2**62
"""Stands for the creation time of a row of which nobody says when it became known, until it is chosen."""

TEXT_FORMATS = ("csv", "jsonl")
AsOf = int | str | dt.datetime | None
"""A state of the past: a version, or a time (of ISO 8601 where it is text). None is now."""
Part = tuple[int, int | None]
"""A file's number among those of a source; and of a row group in it, or None for all of the file."""


@dataclass(frozen=True)
class _Exact:
    """Tables of this schema have the view's types: their columns need to be taken only."""

    schema: pa.Schema
    given_by_files: bool
    taken: list[str]
    names: list[str]


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
        self.document = {"views": {name: view}, "entities": {one: plan["entities"][one] for one in view["entities"]}}
        """What of the plan is about the view."""
        self.source: dict[str, Any] = view["source"]
        self.keys = {
            key["name"]: DType(key["dtype"])
            for entity in view["entities"]
            for key in plan["entities"][entity]["join_keys"]
        }
        self._aggregates = aggregates_digest(view)
        self.fields = {field["name"]: DType(field["dtype"]) for field in view["fields"]}
        self._exact: _Exact | None = None

    @property
    def is_static(self) -> bool:
        """Whether its rows have no event time."""
        return self.source["event_ts"] is None

    @property
    def is_windowed(self) -> bool:
        """Whether its rows are events, over which its features are aggregates."""
        return self._aggregates is not None

    @property
    def aggregates(self) -> str | None:
        """Names what is aggregated from what; None for a plain view."""
        return self._aggregates

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

    def shape(
        self,
        table: pa.Table,
        now_us: int,
        place: str,
        *,
        given_by_files: bool,
        from_text: bool = False,
        refuse: Refuse | None = None,
    ) -> pa.Table:
        """The rows in the engine's shape.

        Args:
            table: at least the columns that the view's source names.
            now_us: stands in for a creation time that is not known.
            place: what the table is, for messages.
            given_by_files: rows of the view's source (its `rename` applies), rather than pushed ones.
            from_text: cells are the text of a file, which holds no types.
            refuse: called with the rows in which a value is not of its type, and these rows are left out; None raises.

        Raises:
            InputError: `missing_column`, `type_mismatch`.
        """
        known = self._exact
        if known is not None and known.given_by_files == given_by_files and table.schema.equals(known.schema):
            columns = dict(zip(known.names, table.select(known.taken).columns, strict=True))
        else:
            names = self.columns(given_by_files)
            if not given_by_files and names.get(CREATED_TS) not in table.column_names:
                names.pop(CREATED_TS, None)
            distinct = list(dict.fromkeys(names.values()))
            taken = take_columns(table, distinct, place)
            dtypes = {name: self.keys.get(name) or self.fields.get(name) or DType("timestamp") for name in names}
            wanted = {name: (names[name], dtype) for name, dtype in dtypes.items()}
            columns = cast_rows(taken, wanted, place, from_text=from_text, refuse=refuse)
            if all(columns[name].type == taken.schema.field(old).type for name, old in names.items()):
                self._exact = _Exact(table.schema, given_by_files, list(names.values()), list(names))
        event_ts, created_ts = columns.pop(EVENT_TS, None), columns.pop(CREATED_TS, None)
        rows = table.num_rows if not columns else len(next(iter(columns.values())))
        columns[EVENT_TS], columns[CREATED_TS] = self._times(event_ts, created_ts, rows, now_us, given_by_files)
        if self.is_pushed:
            columns[DELETED] = pa.repeat(pa.scalar(False), rows)
        # Not the table's own fields: they may be marked as never null, and all rows of a view shall have one schema.
        return pa.Table.from_arrays(list(columns.values()), list(columns))

    def _times(self, event_ts: Any, created_ts: Any, rows: int, now_us: int, given_by_files: bool) -> tuple[Any, Any]:
        if event_ts is None:
            nothing = pa.nulls(rows)
            return nothing, nothing
        delay_us = self.source["available_after_us"]
        if delay_us is not None:
            known = pc.add_checked(event_ts.cast(pa.int64()), delay_us).cast(TIMESTAMP)
        elif given_by_files and created_ts is None:
            known = event_ts
        else:
            known = pa.scalar(now_us, pa.int64()).cast(TIMESTAMP)
        if created_ts is None:
            return event_ts, known if isinstance(known, pa.ChunkedArray) else pa.repeat(known, rows)
        return event_ts, pc.coalesce(created_ts, known)

    def deletions(self, keys: Any, event_ts_us: int, created_ts_us: int, place: str) -> pa.Table:
        """Rows that delete the given keys at a time.

        Raises:
            InputError: `missing_column`, `type_mismatch`.
        """
        table = take_keys(to_table(keys, place), list(self.keys), place)
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


def read_rows(
    view: ViewRows,
    root: Path,
    now_us: int,
    refuse: Refuse | None = None,
    as_of: AsOf = None,
    part: Part | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a view's file source in the engine's shape, in the files' order, in batches.

    Args:
        view: whose source to read.
        root: where relative paths start from.
        now_us: stands in for a creation time that is not known.
        refuse: called with rows that are left out because a value is not of its type, or a line is no row.
        as_of: the version or the time of a Delta table; by default what the source says.
        part: one of the `source_parts`; by default all rows.

    Raises:
        UnknownNameError: `not_found`, there is no such file.
        InputError: `missing_column` or `type_mismatch`, naming file, view and column.
        StoreError: `io`, a file cannot be read.
    """
    source = view.source
    place = place_of(view, root)
    names = view.columns(True)
    for table in read_tables(view, names, source["path"], source["format"], root, place, refuse, as_of, part=part):
        shaped = view.shape(
            table, now_us, place, given_by_files=True, from_text=source["format"] in TEXT_FORMATS, refuse=refuse
        )
        yield from shaped.to_batches(max_chunksize=BATCH_ROWS_MAX)


def source_parts(view: ViewRows, root: Path, as_of: AsOf = None) -> list[Part]:
    """What the rows of a view's source can be cut into, in their order: row groups, or files of text.

    Raises:
        UnknownNameError, InputError, StoreError: as `read_rows`.
    """
    source, place = view.source, place_of(view, root)
    try:
        if source["format"] in TEXT_FORMATS:
            return [(number, None) for number in range(len(find(source["path"], root, place).paths))]
        fragments = _dataset(view, source["path"], source["format"], root, place, as_of).get_fragments()
        return [(number, group.id) for number, fragment in enumerate(fragments) for group in fragment.row_groups]
    except HeadraceError:
        raise
    except Exception as error:
        raise unreachable(place, error) from error


def count_rows(view: ViewRows, root: Path, as_of: AsOf = None) -> int:
    """How many rows a view's source has; of text, a number that is not smaller.

    Raises:
        UnknownNameError, InputError, StoreError: as `read_rows`.
    """
    source, place = view.source, place_of(view, root)
    try:
        if source["format"] in TEXT_FORMATS:
            cells = max(len(view.columns(True)), 1)
            sizes = (file[1] or 0 for file in find(source["path"], root, place).fingerprint())
            return sum(sizes) // (2 * cells)
        return int(_dataset(view, source["path"], source["format"], root, place, as_of).count_rows())
    except HeadraceError:
        raise
    except Exception as error:
        raise unreachable(place, error) from error


def typed_exactly(view: ViewRows, root: Path, as_of: AsOf = None) -> set[str]:
    """The fields whose column in the source has just their type, so that no row is refused for a value in it.

    Raises:
        UnknownNameError, InputError, StoreError: as `read_rows`.
    """
    if view.is_pushed:
        return set(view.fields)
    source, place = view.source, place_of(view, root)
    if source["format"] in TEXT_FORMATS:
        return set()
    try:
        schema = _dataset(view, source["path"], source["format"], root, place, as_of).schema
    except HeadraceError:
        raise
    except Exception as error:
        raise unreachable(place, error) from error
    names = view.columns(True)
    types = {name: schema.field(old).type for name, old in names.items() if schema.names.count(old) == 1}
    return {name for name, dtype in view.fields.items() if types.get(name) == arrow_type(dtype)}


def leave_out(*_: object) -> None:
    """Rows that materialize refuses are no part of training either."""


def place_of(view: ViewRows, root: Path) -> str:
    """A view's file source, for messages."""
    path = view.source["path"]
    return f"the source {path if is_url(path) else root / path} of view '{view.name}'"


def fingerprint(view: ViewRows, root: Path, as_of: AsOf = None) -> Any:
    """What changes when the files of a view's source do; of a Delta table, its version."""
    source, place = view.source, place_of(view, root)
    if source["format"] == "delta":
        from headrace.delta import delta_table

        base = None if is_url(source["path"]) else root
        return delta_table(source["path"], base, source.get("as_of") if as_of is None else as_of, place).version()
    return find(source["path"], root, place).fingerprint()


def source_files(view: ViewRows, root: Path) -> list[dict[str, Any]]:
    """The files of a view's source with their digests; of files elsewhere, what their place says of them."""
    location = find(view.source["path"], root, place_of(view, root))
    if location.filesystem is not None:
        return [{"path": path, "bytes": size, "marks": marks} for path, size, *marks in location.fingerprint()]
    found = []
    for path in map(Path, location.paths):
        shown = path.relative_to(root) if path.is_relative_to(root) else path
        found.append({"path": str(shown), "bytes": path.stat().st_size, "digest": digest_file(path)})
    return found


def read_tables(
    view: ViewRows,
    names: dict[str, str],
    path: str,
    file_format: str,
    root: Path,
    place: str,
    refuse: Refuse | None,
    as_of: AsOf = None,
    optional: tuple[str, ...] = (),
    part: Part | None = None,
) -> Iterator[pa.Table]:
    """The rows of some files as they stand in them, with the columns of `names` (the view's name -> the file's)."""
    try:
        if file_format not in TEXT_FORMATS:
            dataset = _dataset(view, path, file_format, root, place, as_of)
            yield from _scan(dataset, names, place, optional, part, is_url(path))
            return
        location = find(path, root, place)
        for file in location.paths if part is None else [location.paths[part[0]]]:
            given = _present_in_text(names, location, file, file_format, place, optional)
            if given is not None:
                yield from _read_text(view, given, location, file, file_format, refuse or leave_out)
    except HeadraceError:
        raise
    except Exception as error:
        raise unreachable(place, error) from error


def _dataset(view: ViewRows, path: str, file_format: str, root: Path, place: str, as_of: AsOf) -> Any:
    """Parquet files, or those of a Delta table."""
    if file_format == "delta":
        from headrace.delta import open_delta

        base = None if is_url(path) else root
        return open_delta(path, base, as_of if as_of is not None else view.source.get("as_of"), place)
    location = find(path, root, place)
    files: Any = location.paths[0] if len(location.paths) == 1 else location.paths
    return ds.dataset(files, format="parquet", filesystem=location.arrow())


def _scan(
    dataset: Any, names: dict[str, str], place: str, optional: tuple[str, ...], part: Part | None, is_remote: bool
) -> Iterator[pa.Table]:
    names = _present(names, dataset.schema.names, place, optional)
    # What is fetched ahead is kept until the end of a file: worth it only where each read is a request to elsewhere.
    options = ds.ParquetFragmentScanOptions(pre_buffer=is_remote)
    how = {
        "columns": list(dict.fromkeys(names.values())),
        "batch_size": BATCH_ROWS_MAX,
        "fragment_scan_options": options,
    }
    if part is None:
        scanner = dataset.scanner(**how)
    else:
        fragment = list(dataset.get_fragments())[part[0]].subset(row_group_ids=[part[1]])
        scanner = fragment.scanner(schema=dataset.schema, **how)
    for batch in scanner.to_batches():
        yield pa.Table.from_batches([batch])


def _present_in_text(
    names: dict[str, str], location: Location, path: str, file_format: str, place: str, optional: tuple[str, ...]
) -> dict[str, str] | None:
    """The wanted columns of a text file; None where it has no rows at all."""
    with location.open(path) as file:
        found = (csv_columns if file_format == "csv" else json_columns)(open_text(file, path))
    return None if found is None else _present(names, found, place, optional)


def _read_text(
    view: ViewRows, names: dict[str, str], location: Location, path: str, file_format: str, refuse: Refuse
) -> Iterator[pa.Table]:
    dtypes = view.keys | view.fields
    wanted = {old: dtypes.get(name, DType("timestamp")) for name, old in names.items()}
    with location.open(path) as file:
        text = open_text(file, path)
        yield from (
            read_csv(text, list(wanted), refuse) if file_format == "csv" else read_json_lines(text, wanted, refuse)
        )


def _present(names: dict[str, str], found: list[str], place: str, optional: tuple[str, ...]) -> dict[str, str]:
    """The wanted columns without the optional ones that are not there."""
    for name, old in names.items():
        if old not in found and name not in optional:
            raise make_error("missing_column", f"{place} has no column '{old}'", nearest_hint(old, found, "columns"))
    return {name: old for name, old in names.items() if old in found}


def between(view: ViewRows, batch: pa.RecordBatch, start_us: int | None, end_us: int, now_us: int) -> pa.RecordBatch:
    """The rows of a time, and those without an event time, which the engine counts.

    A row belongs to the moment at which it has happened and, in files, has become known: a load until then serves just
    what a join as of then and as known then finds, and the next load, from then on, takes what was known later. Of a
    row of which nobody says when it became known, only the event time counts.

    Args:
        view: the view.
        batch: its rows, read with `UNKNOWN_US` in place of the time.
        start_us: the first moment; None is the beginning.
        end_us: the moment after the last.
        now_us: becomes the creation time of the rows that have none.
    """
    moment_us = event_us = batch.column(EVENT_TS).cast(pa.int64())
    if not view.is_pushed:  # what was pushed was known to the table at once
        created_us = batch.column(CREATED_TS).cast(pa.int64())
        is_unknown = pc.equal(created_us, UNKNOWN_US)
        moment_us = pc.max_element_wise(event_us, pc.if_else(is_unknown, event_us, created_us))
        if pc.any(is_unknown).as_py():
            stamped = pc.if_else(is_unknown, pa.scalar(now_us), created_us).cast(TIMESTAMP)
            batch = batch.set_column(batch.schema.get_field_index(CREATED_TS), CREATED_TS, stamped)
    chosen = pc.less(moment_us, end_us)
    if start_us is not None:
        chosen = pc.and_(chosen, pc.greater_equal(moment_us, start_us))
    chosen = pc.fill_null(pc.or_kleene(chosen, pc.is_null(event_us)), True)
    return batch if pc.all(chosen, min_count=0).as_py() else batch.filter(chosen)


def accepted(view: ViewRows, batch: pa.RecordBatch, latest_us: int) -> pa.Table:
    """The rows that a store takes: with a whole key and, unless the view is static, an event time up to `latest_us`."""
    chosen = pa.repeat(pa.scalar(True), batch.num_rows)
    for name in view.keys:
        if batch.column(name).null_count:
            chosen = pc.and_(chosen, pc.is_valid(batch.column(name)))
    if not view.is_static:
        in_time = pc.less_equal(batch.column(EVENT_TS), pa.scalar(latest_us).cast(TIMESTAMP))
        chosen = pc.and_(chosen, pc.fill_null(in_time, False))
    if pc.all(chosen, min_count=0).as_py():
        return pa.Table.from_batches([batch])
    return pa.Table.from_batches([batch.filter(chosen)])
