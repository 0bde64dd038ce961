"""The history of a view: the rows that were pushed, in the order of the pushes, kept for training in Parquet files.

    history/VIEW/NUMBER.parquet                      the rows of one write
    history/VIEW/FIRST-LAST.parquet                  those of several, after compaction
    history/VIEW/NUMBER.parquet.SEQUENCE.pending     the rows of a write that is under way

Training must see exactly the rows that the online store has accepted. So a write's rows are first put aside, durably,
under the sequence number that the log will give the first of them; they count once the log has them, which is also how
a start finds out what to do with rows that were put aside when the process ended. Numbers only grow, and are those of
the log unless it was begun anew: no push replaces another's file.

A file whose numbers lie within those of a longer one is what a compaction was about to remove: readers pass over it.
Beside the rows stand `__part`, the number of their write, and `__pushed_us`, its time.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.delta import as_of_version_or_time
from headrace.errors import HeadraceError, make_error
from headrace.files import make_folder, sync_folder
from headrace.sources import BATCH_ROWS_MAX, EVENT_TS, AsOf, ViewRows

PART = "__part"
PUSHED_US = "__pushed_us"
PENDING = ".pending"
_SEQUENCE = b"headrace.sequence"
_READ_ATTEMPTS_MAX = 5
_SUFFIX = ".parquet"
Keep = Callable[[pa.Table], Any]
"""Says which rows of a table to keep, as a boolean column."""


@dataclass(frozen=True, order=True)
class HistoryFile:
    """A file of a history and the numbers of the pushes in it."""

    first: int
    last: int
    path: Path

    @classmethod
    def of(cls, path: Path) -> HistoryFile | None:
        first, dash, last = path.stem.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return None
        return cls(int(first), int(last or first), path)


@dataclass(frozen=True)
class Reference:
    """Rows of a history that a dataset was made of: pushes before a number, events from a time on (None: all)."""

    before_part: int
    event_us: int | None


@dataclass
class Compaction:
    """What a compaction did."""

    files_before: int = 0
    files_after: int = 0
    rows_removed: int = 0


def history_files(folder: Path) -> list[HistoryFile]:
    """The files that hold the history, in order."""
    found = [file for path in folder.glob("*.parquet") if (file := HistoryFile.of(path)) is not None]
    shown: list[HistoryFile] = []
    # Of files that begin alike the longest comes first, and a compacted one before the single push that it holds.
    for file in sorted(found, key=lambda file: (file.first, -file.last, "-" not in file.path.stem)):
        if not shown or file.first > shown[-1].last:
            shown.append(file)
    return shown


def position(folder: Path) -> int:
    """The number after the last push."""
    return max((file.last + 1 for file in history_files(folder)), default=0)


class ViewHistory:
    """One view's history, for its only writer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._end: int | None = None

    @contextmanager
    def kept(self, rows: pa.Table, sequence: int, now_us: int) -> Iterator[None]:
        """Keeps rows if the block writes them to the log from `sequence` on, and not if it fails.

        Args:
            rows: in the shape of `headrace.sources`, of accepted rows only.
            sequence: that of the first one.
            now_us: when they were pushed.

        Raises:
            StoreError: `io`.
        """
        aside = self._put_aside(rows, sequence, now_us)
        try:
            yield
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        aside.rename(_final(aside))

    def _put_aside(self, rows: pa.Table, sequence: int, now_us: int) -> Path:
        make_folder(self.folder)
        # Only the writer adds files, so it need not list thousands of them for each write.
        end = position(self.folder) if self._end is None else self._end
        number = max(sequence, end)
        parts = rows.append_column(PART, pa.repeat(pa.scalar(number, pa.int64()), rows.num_rows))
        parts = parts.append_column(PUSHED_US, pa.repeat(pa.scalar(now_us, pa.int64()), rows.num_rows))
        path = self.folder / f"{number:020}{_SUFFIX}.{sequence}{PENDING}"
        _write(path, [parts.replace_schema_metadata({_SEQUENCE: str(sequence).encode()})])
        self._end = number + 1
        return path


def _final(path: Path) -> Path:
    return path.with_name(path.name.partition(_SUFFIX)[0] + _SUFFIX)


def settle(root: Path, next_sequence: int) -> None:
    """Decides about rows that were put aside when a process ended: the log has them, or they never happened.

    Args:
        root: the folder of all views' histories.
        next_sequence: the log has the rows before it.
    """
    for unfinished in root.glob("*/*.tmp"):
        unfinished.unlink()
    for path in sorted(root.glob(f"*/*{PENDING}")):
        if pending_sequence(path) < next_sequence:
            path.rename(_final(path))
            sync_folder(path.parent)
        else:
            path.unlink()


def pending_sequence(path: Path) -> int:
    """The number that the log gives the first of the rows that were put aside in a file."""
    return int(path.name.removesuffix(PENDING).rpartition(".")[2])


def sequence_of(file: HistoryFile) -> int:
    """The number that the log gave the first row of a file."""
    try:
        found = (pq.read_schema(file.path).metadata or {}).get(_SEQUENCE)
    except pa.ArrowException as error:
        raise _unreadable(file.path, error) from error
    return file.first if found is None else int(found)


def _write(path: Path, tables: Sequence[pa.Table]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, tables[0].schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise make_error(
            "io", f"the history file {path} cannot be written: {error}", "make room on the disk"
        ) from error
    sync_folder(path.parent)


def read_history(view: ViewRows, folder: Path, as_of: AsOf = None) -> Iterator[pa.RecordBatch]:
    """The pushed rows of a view in the order of the pushes. A feature that is younger than a row is null in it.

    Args:
        view: the view.
        folder: `.headrace/history/VIEW`.
        as_of: only pushes before this number, or until this time; None is all.

    Raises:
        StoreError: `corrupt_store`, a file cannot be read.
        InputError: `invalid_argument`, as_of is neither a number nor a time.
    """
    schema = view.schema()
    moment = as_of_version_or_time(as_of)
    for table in _tables(folder):
        rows = table.filter(_before(table, moment)) if moment is not None else table
        columns = [
            rows.column(field.name).cast(field.type)
            if field.name in rows.column_names
            else pa.nulls(rows.num_rows, field.type)
            for field in schema
        ]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches(max_chunksize=BATCH_ROWS_MAX)


def _before(table: pa.Table, moment: int | dt.datetime) -> Any:
    if isinstance(moment, int):
        return pc.less(table.column(PART), moment)
    moment_us = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    return pc.less_equal(table.column(PUSHED_US), moment_us)


def _tables(folder: Path) -> Iterator[pa.Table]:
    """The rows of the history, in pieces. A compaction may replace the files meanwhile: then they are listed again."""
    after = -1
    attempts = 0
    while True:
        try:
            for file in history_files(folder):
                if file.last > after:
                    opened = pq.ParquetFile(file.path)
                    with opened:
                        tables = [_numbered(opened.read_row_group(n), file) for n in range(opened.num_row_groups)]
                    for table in tables:
                        yield table if file.first > after else table.filter(pc.greater(table.column(PART), after))
                    after = file.last
            return
        except FileNotFoundError:
            attempts += 1
            if attempts == _READ_ATTEMPTS_MAX:
                raise
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(file.path, error) from error


def _unreadable(path: Path, error: Exception) -> HeadraceError:
    return make_error(
        "corrupt_store", f"the history file {path} cannot be read: {error}", "restore the file, or remove it"
    )


def _numbered(table: pa.Table, file: HistoryFile) -> pa.Table:
    """The rows with the number and the time of their push, which files of headrace 0.1.0 do not hold."""
    if PART in table.column_names:
        return table
    pushed_us = file.path.stat().st_mtime_ns // 1000
    table = table.append_column(PART, pa.repeat(pa.scalar(file.first, pa.int64()), table.num_rows))
    return table.append_column(PUSHED_US, pa.repeat(pa.scalar(pushed_us, pa.int64()), table.num_rows))


def compact_history(
    folder: Path, bytes_target: int, before_us: int | None, references: Sequence[Reference]
) -> Compaction:
    """Joins small files, and removes events before a time (None: none) that no dataset refers to.

    Only the writer of the store may do it. Whatever ends it, the history is whole at every moment.
    """
    files = history_files(folder)
    done = Compaction(len(files))
    keep = None if before_us is None else _retained(before_us, references)
    for group in _groups(files, bytes_target):
        if len(group) > 1 or (keep is not None and _has_old_rows(group[0], before_us)):
            done.rows_removed += _rewrite(folder, group, keep)
    visible = history_files(folder)
    shown = {file.path for file in visible}
    for path in folder.glob("*.parquet"):
        if HistoryFile.of(path) is not None and path not in shown:
            path.unlink()
    done.files_after = len(visible)
    return done


def _groups(files: Sequence[HistoryFile], bytes_target: int) -> list[list[HistoryFile]]:
    groups: list[list[HistoryFile]] = []
    size = 0
    for file in files:
        size_of_file = file.path.stat().st_size
        if not groups or size + size_of_file > bytes_target:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += size_of_file
    return groups


def _has_old_rows(file: HistoryFile, before_us: int | None) -> bool:
    column = pq.read_table(file.path, columns=[EVENT_TS]).column(EVENT_TS)
    if before_us is None or pa.types.is_null(column.type):
        return False
    oldest = pc.min(column.cast(pa.int64())).as_py()
    return oldest is not None and oldest < before_us


def _retained(before_us: int, references: Sequence[Reference]) -> Keep:
    def keep(table: pa.Table) -> Any:
        if pa.types.is_null(table.column(EVENT_TS).type):
            return pa.chunked_array([pa.repeat(pa.scalar(True), table.num_rows)])
        event_us = table.column(EVENT_TS).cast(pa.int64())
        kept = pc.greater_equal(event_us, before_us)
        for reference in references:
            referred = pc.less(table.column(PART), reference.before_part)
            if reference.event_us is not None:
                referred = pc.and_(referred, pc.greater_equal(event_us, reference.event_us))
            kept = pc.or_(kept, referred)
        return pc.fill_null(kept, False)

    return keep


def _rewrite(folder: Path, group: Sequence[HistoryFile], keep: Keep | None) -> int:
    """Puts one file in the place of several; returns the number of rows that were left out."""
    tables = []
    removed = 0
    for file in group:
        table = _numbered(pq.read_table(file.path), file)
        rows = table.num_rows
        if keep is not None:
            table = table.filter(keep(table))
        removed += rows - table.num_rows
        tables.append(table.replace_schema_metadata(None))
    # A push of a younger definition has columns that an older one lacks: there they are null.
    unified = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    name = f"{group[0].first:020}-{group[-1].last:020}.parquet"
    _write(folder / name, [unified])
    for file in group:
        if file.path.name != name:
            file.path.unlink()
    return removed


def remove_rows(folder: Path, wanted: Keep) -> int:
    """Rewrites the files that hold rows for which `wanted` is true without them; returns the number of rows."""
    removed = 0
    for file in history_files(folder):
        table = _numbered(pq.read_table(file.path), file)
        found = pc.fill_null(wanted(table), False)
        count = pc.sum(found).as_py() or 0
        if count:
            _write(file.path, [table.filter(pc.invert(found))])
            removed += count
    return removed
