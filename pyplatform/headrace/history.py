"""The history of a view: the rows that were pushed, in the order of the pushes, kept in files for training.

    history/VIEW/FIRST.pushes            pushes as they came, from that number on: `headrace.push_files`
    history/VIEW/FIRST-LAST.parquet      the same after compaction
    history/VIEW/NUMBER.parquet          the rows of one push, as headrace 0.1.0 kept them

Training must see exactly the rows that the online store has accepted. So a push is first appended to its file, with the
sequence number that the log will give its first row, and counts once the log has it; that is also how a start finds out
what to do with a push that was under way when the process ended. Numbers only grow, and are those of the log unless it
was begun anew: no push replaces another.

A file whose numbers lie within those of a longer one is what a compaction was about to remove: readers pass over it.
Beside the rows stand `__part`, the number of their push, and `__pushed_us`, its time.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.delta import as_of_version_or_time
from headrace.errors import HeadraceError, make_error
from headrace.files import make_folder, sync_folder
from headrace.push_files import SUFFIX as PUSHES
from headrace.push_files import (
    Push,
    PushWriter,
    copy_pushes,
    corrupt,
    counted_pushes,
    is_blank,
    read_head,
    read_pushes,
    settle_pushes,
)
from headrace.sources import BATCH_ROWS_MAX, EVENT_TS, AsOf, ViewRows

PART = "__part"
PUSHED_US = "__pushed_us"
_READ_ATTEMPTS_MAX = 5
_MAGIC = b"PAR1"  # the end of every Parquet file
_UNSYNCED_SECONDS_MAX = 120.0
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
        """What a path is; of pushes, as its head says now.

        Raises:
            FileNotFoundError: it has been compacted.
            StoreError: `corrupt_store`, its head is damaged.
        """
        first, dash, last = path.stem.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            return None
        if path.suffix == PUSHES:
            return cls(int(first), read_head(path).next_number - 1, path)
        return cls(int(first), int(last or first), path)

    @property
    def has_pushes(self) -> bool:
        """Whether it has pushes as they came, rather than Parquet."""
        return self.path.suffix == PUSHES

    def count_rows(self) -> int:
        """How many rows it has."""
        if self.has_pushes:
            return sum(push.rows for push in counted_pushes(self.path))
        return int(pq.read_metadata(self.path).num_rows)

    def tables(self) -> Iterator[pa.Table]:
        """Its rows, numbered, in pieces.

        Raises:
            FileNotFoundError: it has been compacted.
            StoreError: `corrupt_store`.
        """
        if self.has_pushes:
            yield from _push_tables(read_pushes(self.path))
            return
        try:
            with pq.ParquetFile(self.path) as opened:
                for group in range(opened.num_row_groups):
                    yield self._numbered(opened.read_row_group(group))
        except FileNotFoundError:  # it has been compacted
            raise
        except (pa.ArrowException, OSError) as error:
            raise corrupt(self.path, str(error)) from error

    def table(self) -> pa.Table:
        """All its rows, numbered."""
        tables = list(self.tables())
        return pa.concat_tables(tables) if tables else self._numbered(pq.read_table(self.path))

    def _numbered(self, table: pa.Table) -> pa.Table:
        """The rows with the number and the time of their push, which files of headrace 0.1.0 do not hold."""
        if PART in table.column_names:
            return table
        pushed_us = self.path.stat().st_mtime_ns // 1000
        return _with_push(table, np.full(table.num_rows, self.first), np.full(table.num_rows, pushed_us))


def _push_tables(pushes: Iterator[tuple[Push, pa.RecordBatch]]) -> Iterator[pa.Table]:
    """Pushes in pieces of many: what follows has a price for each piece."""
    taken: list[tuple[Push, pa.RecordBatch]] = []
    rows = 0
    for push, batch in pushes:
        taken.append((push, batch))
        rows += push.rows
        if rows >= BATCH_ROWS_MAX:
            yield _together(taken)
            taken, rows = [], 0
    if taken:
        yield _together(taken)


def _together(pushes: Sequence[tuple[Push, pa.RecordBatch]]) -> pa.Table:
    rows = [push.rows for push, _ in pushes]
    numbers = np.repeat([push.number for push, _ in pushes], rows)
    times_us = np.repeat([push.pushed_us for push, _ in pushes], rows)
    table = pa.Table.from_batches([batch for _, batch in pushes]).combine_chunks()
    return _with_push(table, numbers, times_us)


def _with_push(table: pa.Table, numbers: Any, times_us: Any) -> pa.Table:
    table = table.append_column(PART, pa.array(numbers, pa.int64()))
    return table.append_column(PUSHED_US, pa.array(times_us, pa.int64()))


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
    """The files that hold the history, in order.

    Raises:
        StoreError: `corrupt_store`.
    """
    return [file for file in _current(folder) if file.last >= file.first]


def _current(folder: Path) -> list[HistoryFile]:
    """The files that are not passed over, in order, with those of pushes none of which counts yet."""
    attempts = 0
    while True:
        try:
            found = [file for path in _paths(folder) if (file := HistoryFile.of(path)) is not None]
            break
        except FileNotFoundError:  # compacted since it was listed: what stands for it may not have been there
            attempts += 1
            if attempts == _READ_ATTEMPTS_MAX:
                raise
    shown: list[HistoryFile] = []
    last = -1
    # Of files that begin alike the longest comes first, and a compacted one before the pushes that it holds.
    for file in sorted(found, key=lambda file: (file.first, -file.last, "-" not in file.path.stem)):
        if file.first > last:
            shown.append(file)
            last = max(last, file.last)
    return shown


def _paths(folder: Path) -> list[Path]:
    """The files, listed until nothing changes meanwhile: one listing may miss both a file and what replaces it."""
    paths: list[Path] = []
    for _ in range(_READ_ATTEMPTS_MAX):
        before, paths = paths, sorted(path for path in folder.glob("*") if path.suffix in (PUSHES, ".parquet"))
        if paths == before:
            break
    return paths


def position(folder: Path) -> int:
    """The number after the last push."""
    return max((file.last + 1 for file in history_files(folder)), default=0)


class ViewHistory:
    """One view's history, for its only writer."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        """Takes over what is there.

        Args:
            folder: made at the first write.
            sync: each write waits for the disk, as the log's do.
        """
        self.folder = folder
        self.sync = sync
        self._end: int | None = None
        self._file: PushWriter | None = None

    @contextmanager
    def kept(self, rows: pa.Table, sequence: int, now_us: int) -> Iterator[None]:
        """Keeps rows if the block writes them to the log from `sequence` on, and not if it fails.

        Args:
            rows: in the shape of `headrace.sources`, of accepted rows only.
            sequence: that of the first one.
            now_us: when they were pushed.

        Raises:
            StoreError: `io`, `corrupt_store`.
        """
        [batch] = rows.combine_chunks().to_batches()
        try:
            make_folder(self.folder)
            # Only the writer adds files, so it need not look at them for each write.
            number = max(sequence, position(self.folder) if self._end is None else self._end)
            file = self._file_for(batch.schema, number)
            file.append(batch, sequence, number, now_us)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            yield
        except BaseException:
            file.drop()
            raise
        file.count()
        self._end = number + 1

    def _file_for(self, schema: pa.Schema, number: int) -> PushWriter:
        """The file that takes the next push. A schema of another definition begins another one."""
        if self._file is None:
            files = history_files(self.folder)
            if files and files[-1].has_pushes:
                self._file = PushWriter.open(files[-1].path, sync=self.sync)
        if self._file is None or not self._file.takes(schema):
            self.close()
            path = self.folder / f"{number:020}{PUSHES}"
            self._file = PushWriter.create(path, schema, number, sync=self.sync)
        return self._file

    def close(self) -> None:
        """Lets go of the file; the next push begins as the first did.

        Raises:
            StoreError: `io`, the file cannot be brought to say what counts.
        """
        self._end = None
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            except OSError as error:
                raise _unwritable(self.folder, error) from error


def settle(root: Path, next_sequence: int, *, sync: bool) -> None:
    """Decides about pushes that were under way when a process ended: the log has them, or they never happened.

    After a power cut, files that nobody had synced may have lost content: they must not keep training from the rest.
    Their rows were acknowledged for the life of the process only (`durability = "process"`), as those at the end of the
    log were. Older files have long been written by the kernel.

    Args:
        root: the folder of all views' histories.
        next_sequence: the log has the rows before it.
        sync: each write has waited for the disk: what is damaged now was not by a power cut, and is left for readers to
            say so.

    Raises:
        OSError: the disk does not take it.
    """
    for unfinished in root.glob("*/*.tmp"):
        unfinished.unlink()
    for folder in root.glob("*/"):
        paths = _paths(folder)
        changed = [path.stat().st_mtime for path in paths]
        newest_pushes = max((path for path in paths if path.suffix == PUSHES), default=None)
        for path, changed_s in zip(paths, changed, strict=True):
            # The clock may have been put back: the file in use is looked at whatever its time.
            if path == newest_pushes or changed_s > max(changed) - _UNSYNCED_SECONDS_MAX:
                torn = _settle_file(path, next_sequence, sync)
                if torn is not None:
                    warnings.warn(f"the history file {torn} lost content in a power cut and is left out", stacklevel=3)


def _settle_file(path: Path, next_sequence: int, sync: bool) -> Path | None:
    """Where a file stands that a power cut has damaged, if it did."""
    if path.suffix == PUSHES:
        if not is_blank(path):
            with contextlib.suppress(HeadraceError):  # no power cut does that: who reads it says so
                return settle_pushes(path, next_sequence, sync=sync)
            return None
    else:
        with path.open("rb") as content:
            content.seek(max(path.stat().st_size - len(_MAGIC), 0))
            if content.read() == _MAGIC:
                return None
    if sync:
        return None
    torn = path.with_suffix(".torn")
    path.rename(torn)
    return torn


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    sync_folder(path.parent)


def _unwritable(path: Path, error: Exception) -> HeadraceError:
    return make_error("io", f"the history {path} cannot be written: {error}", "make room on the disk")


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
        yield from _in_shape(rows, schema).to_batches(max_chunksize=BATCH_ROWS_MAX)


def read_pushes_from(view: ViewRows, folder: Path, first: int, end: int) -> Iterator[pa.Table]:
    """The rows of the pushes from a number on, before another one, with the numbers and times of the pushes.

    Raises:
        StoreError: as `read_history`.
    """
    schema = pa.schema([*view.schema(), (PART, pa.int64()), (PUSHED_US, pa.int64())])
    for table in _tables(folder, first - 1):
        rows = table.filter(pc.less(table.column(PART), end))
        if rows.num_rows:
            yield _in_shape(rows, schema)


def _in_shape(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows.column(field.name).cast(field.type)
        if field.name in rows.column_names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _before(table: pa.Table, moment: int | dt.datetime) -> Any:
    if isinstance(moment, int):
        return pc.less(table.column(PART), moment)
    moment_us = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
    return pc.less_equal(table.column(PUSHED_US), moment_us)


def _tables(folder: Path, after: int = -1) -> Iterator[pa.Table]:
    """The rows of the pushes after a number, in pieces.

    A compaction may replace the files meanwhile: then they are listed again.
    """
    attempts = 0
    while True:
        try:
            for file in history_files(folder):
                first = max(file.first, after + 1)
                if file.last < first:
                    continue
                for table in file.tables():
                    # A file that was compacted may have been read in part before; one of pushes may have grown.
                    is_whole = first == file.first and not file.has_pushes
                    yield table if is_whole else table.filter(_within(table.column(PART), first, file.last))
                after = file.last
            return
        except FileNotFoundError:
            attempts += 1
            if attempts == _READ_ATTEMPTS_MAX:
                raise
        except (pa.ArrowException, OSError) as error:
            raise corrupt(folder, str(error)) from error


def _within(numbers: Any, first: int, last: int) -> Any:
    return pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last))


def compact_history(
    folder: Path, bytes_target: int, before_us: int | None, references: Sequence[Reference]
) -> Compaction:
    """Makes Parquet of pushes, joins small files, and removes events before a time (None: none) that no dataset needs.

    Only the writer of the store may do it. Whatever ends it, the history is whole at every moment.
    """
    files = history_files(folder)
    done = Compaction(len(files))
    keep = None if before_us is None else _retained(before_us, references)
    for group in _groups(files, bytes_target):
        is_compact = len(group) == 1 and not group[0].has_pushes
        if not is_compact or (keep is not None and _has_old_rows(group[0], before_us)):
            done.rows_removed += _rewrite(folder, group, keep)
    _remove_passed_over(folder)
    done.files_after = len(history_files(folder))
    return done


def _remove_passed_over(folder: Path) -> None:
    """Removes the files that a compaction has replaced, and whose removal was cut off."""
    current = {file.path for file in _current(folder)}
    for path in _paths(folder):
        if path not in current and HistoryFile.of(path) is not None:
            path.unlink()


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
    """Puts one file in the place of some; returns the number of rows that were left out."""
    tables = []
    removed = 0
    for file in group:
        table = file.table()
        rows = table.num_rows
        if keep is not None:
            table = table.filter(keep(table))
        removed += rows - table.num_rows
        tables.append(table.replace_schema_metadata(None))
    # A push of a younger definition has columns that an older one lacks: there they are null.
    _replace(folder, group, pa.concat_tables(tables, promote_options="permissive").combine_chunks())
    return removed


def _replace(folder: Path, group: Sequence[HistoryFile], table: pa.Table) -> None:
    path = folder / f"{group[0].first:020}-{group[-1].last:020}.parquet"
    _write(path, table)
    for file in group:
        if file.path != path:
            file.path.unlink()


def remove_rows(folder: Path, wanted: Keep) -> int:
    """Rewrites the files that hold rows for which `wanted` is true without them; returns the number of rows.

    What a power cut has damaged goes altogether: who knows what is in it.
    """
    _remove_passed_over(folder)
    for torn in folder.glob("*.torn"):
        torn.unlink()
    removed = 0
    for file in history_files(folder):
        table = file.table()
        found = pc.fill_null(wanted(table), False)
        count = pc.sum(found).as_py() or 0
        if count:
            _replace(folder, [file], table.filter(pc.invert(found)))
            removed += count
    return removed


def copy_history(folder: Path, place: Path, before: int, next_sequence: int) -> None:
    """Copies the pushes that came before one, and those that the log has: the rows before a sequence number.

    Raises:
        FileNotFoundError: a compaction has replaced files meanwhile.
        OSError, StoreError: `corrupt_store`; the copy cannot be written.
    """
    for file in _current(folder):
        if file.has_pushes:
            copy_pushes(file.path, place / file.path.name, before, next_sequence)
        elif file.first < before or file.first < next_sequence:
            shutil.copy2(file.path, place / file.path.name)
    for path in folder.glob("*.json"):
        shutil.copy2(path, place / path.name)
